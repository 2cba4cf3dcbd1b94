//! The canonical request: one spelling of all requests that mean the same (IAM user guide, "Create a signed AWS API request", step 1).
//!
//! ```text
//!  <method>
//!  </path, normalized, each byte but A-Z a-z 0-9 - . _ ~ and / as %XX: what comes encoded is encoded once more>
//!  <query, each name and value encoded once, sorted; without X-Amz-Signature>
//!  <each signed header: name:value, trimmed, runs of blanks as one, values of one name joined by commas>
//!
//!  <the names of the signed headers, joined by semicolons>
//!  <SHA-256 of the payload in lower-case hex>
//! ```

use http::{HeaderMap, request};

/// All of it but the payload's hash, which follows.
pub(super) fn before_payload(head: &request::Parts, signed_headers: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b'\n');
    path(&mut out, head.uri.path().as_bytes());
    out.push(b'\n');
    query(&mut out, head.uri.query().unwrap_or_default());
    out.push(b'\n');
    headers(&mut out, &head.headers, signed_headers);
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out
}

fn path(out: &mut Vec<u8>, given: &[u8]) {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in given.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    for part in &parts {
        out.push(b'/');
        encode(out, part);
    }
    let ends_in_slash = matches!(
        given,
        [.., b'/'] | [.., b'/', b'.'] | [.., b'/', b'.', b'.']
    );
    if parts.is_empty() || ends_in_slash {
        out.push(b'/');
    }
}

fn query(out: &mut Vec<u8>, given: &str) {
    let encoded = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(bytes.len());
        encode(&mut out, bytes);
        out
    };
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs(given)
        .into_iter()
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .map(|(name, value)| (encoded(&name), encoded(&value)))
        .collect();
    pairs.sort();
    for (index, (name, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

fn headers(out: &mut Vec<u8>, given: &HeaderMap, signed: &str) {
    for name in signed.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        for (index, value) in given.get_all(name).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let words = value.as_bytes().split(|byte| matches!(byte, b' ' | b'\t'));
            for (index, word) in words.filter(|word| !word.is_empty()).enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(word);
            }
        }
        out.push(b'\n');
    }
}

/// Names and values of a query, decoded. A plus is a plus, and a percent sign without two hex digits behind it is itself.
pub fn pairs(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(given: &str) -> Vec<u8> {
    let nibble = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(given.len());
    let mut rest = given.as_bytes();
    while let [first, behind @ ..] = rest {
        if let (b'%', [high, low, after @ ..]) = (first, behind)
            && let (Some(high), Some(low)) = (nibble(high), nibble(low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}

fn encode(out: &mut Vec<u8>, given: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in given {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
}
