//! Signature Version 4: a request that was changed after it was signed is not taken for the one that was.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use http::request;

use super::{Input, corpus, fuzz, parsed};
use crate::auth::SecretKey;
use crate::auth::sigv4::{Claim, Expected, Refused, Rules, Signer, SigningKey, pairs};
use crate::clock::WallMillis;

const NOW: WallMillis = WallMillis(1_777_594_354_000); // 20260501T001234Z

fn signer() -> Signer {
    Signer {
        access_key_id: "AKID".into(),
        secret: SecretKey::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
        session_token: None,
        region: "us-east-1".parse().unwrap(),
        service: "cloudtrail",
    }
}

/// A request of a file of the corpus, signed, as text.
fn signed(text: &[u8]) -> Vec<u8> {
    let (mut head, body) = parsed(text).unwrap();
    signer().sign(&mut head, body, NOW).unwrap();
    let mut text = format!("{} {}\n", head.method, head.uri).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    text.push(b'\n');
    text.extend(body);
    text
}

fn verify(head: &request::Parts, body: &[u8]) -> Result<(), Refused> {
    let claim = Claim::of(head)?;
    claim.check(
        &head.headers,
        &Rules {
            service: "cloudtrail",
            now: NOW,
        },
    )?;
    let key = SigningKey::derive(&signer().secret, &claim);
    Expected::new(head, &claim, key)?.finish(digest(&SHA256, body).as_ref())
}

/// What a request means: all that its signature should cover, in words of HTTP.
#[derive(Debug, PartialEq)]
struct Meaning {
    method: String,
    path: Vec<String>,
    query: Vec<(Vec<u8>, Vec<u8>)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Meaning {
    fn of(head: &request::Parts, body: &[u8]) -> Self {
        let mut path: Vec<String> = Vec::new();
        for segment in head.uri.path().split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(path.pop()),
                other => path.push(other.to_owned()),
            }
        }
        let mut query = pairs(head.uri.query().unwrap_or_default());
        query.sort();
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in &head.headers {
            let is_signed = name == "host" || name.as_str().starts_with("x-amz-");
            if is_signed && name != "x-amz-user-agent" {
                let value: Vec<_> = std::str::from_utf8(value.as_bytes())
                    .unwrap()
                    .split_ascii_whitespace()
                    .collect();
                let known = headers.entry(name.to_string()).or_default();
                *known = [known.as_str(), &value.join(" ")].join(",");
            }
        }
        Self {
            method: head.method.to_string(),
            path,
            query,
            headers,
            body: body.to_vec(),
        }
    }
}

#[test]
fn a_request_that_is_taken_means_what_was_signed() {
    let signed: Vec<Vec<u8>> = corpus("signatures")
        .iter()
        .map(|text| signed(text))
        .collect();
    let meanings: Vec<Meaning> = signed
        .iter()
        .map(|text| parsed(text).unwrap())
        .map(|(head, body)| Meaning::of(&head, body))
        .collect();
    let tokens = [
        "\n",
        "\nx-amz-target: CloudTrail_20131101.DeleteTrail",
        "\nhost: other",
        "\nx-amz-date: 20260501T001235Z",
        "%2F",
        "%",
        "/..",
        "//",
        "?a=b",
        "&",
        "=",
        ";",
        ",",
        ", ",
        " ",
        "  ",
        "SignedHeaders=host;",
        "Signature=",
        "é",
        "\t",
        "AKID",
        "x-amz-",
    ];
    fuzz("signatures", 60_000, &signed, &tokens, |text| {
        let Some((head, body)) = parsed(text) else {
            return Input::Refused;
        };
        match verify(&head, body) {
            Ok(()) => {
                let meaning = Meaning::of(&head, body);
                assert!(meanings.contains(&meaning), "{meaning:?}");
                Input::Understood
            }
            Err(refused) => {
                let told = refused.to_string();
                assert!(
                    told.len() < 2000 && !told.contains(char::is_control),
                    "{told}"
                );
                Input::Refused
            }
        }
    });
}
