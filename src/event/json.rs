//! Walks JSON without building it: says where a value ends, how deep it goes, and where it is broken.
//!
//! One pass, no allocation for documents up to 64 deep, no recursion at any depth. It is as strict as RFC 8259, and refuses two things
//! the grammar allows because common readers fail on them, and with them on the whole log file an event ends up in: half of a surrogate
//! pair (`"\ud800"`) and numbers beyond a double (`1e999`). UTF-8 is the caller's to check.

/// Why and where bytes are not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Fault {
    pub at: usize,
    pub what: &'static str,
}

/// Where a value ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// The first byte after the value.
    pub end: usize,
    /// Objects and arrays within one another, at the deepest place; 0 for a string, number or word.
    pub depth: usize,
}

fn fault<T>(at: usize, what: &'static str) -> Result<T, Fault> {
    Err(Fault { at, what })
}

/// The first byte from `at` that is not whitespace.
pub fn skip_whitespace(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Steps over one value that begins exactly at `at`.
pub fn skip_value(bytes: &[u8], mut at: usize) -> Result<Skipped, Fault> {
    let mut open = Nesting::default();
    let mut deepest = 0;
    loop {
        // Here a value begins.
        match bytes.get(at) {
            Some(b'"') => at = skip_string(bytes, at)?.end,
            Some(b'{') => {
                open.push(true);
                deepest = deepest.max(open.depth);
                at = skip_whitespace(bytes, at + 1);
                if bytes.get(at) != Some(&b'}') {
                    at = skip_name(bytes, at)?;
                    continue;
                }
            }
            Some(b'[') => {
                open.push(false);
                deepest = deepest.max(open.depth);
                at = skip_whitespace(bytes, at + 1);
                if bytes.get(at) != Some(&b']') {
                    continue;
                }
            }
            Some(b'-' | b'0'..=b'9') => at = skip_number(bytes, at)?,
            Some(b't') => at = skip_word(bytes, at, b"true")?,
            Some(b'f') => at = skip_word(bytes, at, b"false")?,
            Some(b'n') => at = skip_word(bytes, at, b"null")?,
            Some(_) => return fault(at, "a value is expected"),
            None => return fault(at, "the text ends where a value is expected"),
        }
        // Here a value has ended, or an empty object or array is about to.
        loop {
            let Some(in_object) = open.top() else {
                return Ok(Skipped {
                    end: at,
                    depth: deepest,
                });
            };
            at = skip_whitespace(bytes, at);
            match (bytes.get(at), in_object) {
                (Some(b','), true) => {
                    at = skip_name(bytes, skip_whitespace(bytes, at + 1))?;
                    break;
                }
                (Some(b','), false) => {
                    at = skip_whitespace(bytes, at + 1);
                    break;
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    open.pop();
                    at += 1;
                }
                (None, _) => return fault(at, "the text ends inside an object or array"),
                (_, true) => return fault(at, "',' or '}' is expected"),
                (_, false) => return fault(at, "',' or ']' is expected"),
            }
        }
    }
}

/// Steps over a member's name and colon, to the first byte of its value.
fn skip_name(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    if bytes.get(at) != Some(&b'"') {
        return fault(at, "a name in quotes is expected");
    }
    skip_colon(bytes, skip_string(bytes, at)?.end)
}

/// Steps over a colon and the space around it.
pub fn skip_colon(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let at = skip_whitespace(bytes, at);
    if bytes.get(at) != Some(&b':') {
        return fault(at, "':' is expected");
    }
    Ok(skip_whitespace(bytes, at + 1))
}

/// Where a string ended, and whether it holds a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// The first byte after the closing quote.
    pub end: usize,
    pub escaped: bool,
}

/// Steps over the string whose opening quote is at `at`.
pub fn skip_string(bytes: &[u8], at: usize) -> Result<Text, Fault> {
    let mut escaped = false;
    let mut at = at + 1;
    loop {
        at = plain_text_end(bytes, at);
        match bytes.get(at) {
            Some(b'"') => {
                return Ok(Text {
                    end: at + 1,
                    escaped,
                });
            }
            Some(b'\\') => {
                escaped = true;
                at = skip_escape(bytes, at)?;
            }
            Some(_) => return fault(at, "a control character in a string"),
            None => return fault(at, "the text ends inside a string"),
        }
    }
}

/// The first byte from `at` that is a quote, a backslash or a control character; eight bytes at a time.
fn plain_text_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        // "Determine if a word has a byte less than n", Bit Twiddling Hacks: the lowest bit set is exact.
        let word = u64::from_le_bytes(*eight);
        let quote = word ^ QUOTES;
        let backslash = word ^ BACKSLASHES;
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(SPACES) & !word);
        let found = found & HIGH;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while matches!(bytes.get(at), Some(byte) if *byte >= b' ' && *byte != b'"' && *byte != b'\\') {
        at += 1;
    }
    at
}

/// Steps over the escape whose backslash is at `at`; both halves of a surrogate pair count as one.
fn skip_escape(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match code_unit(bytes, at)? {
            0xD800..=0xDBFF => {
                let second = at + 6;
                let is_escape = bytes.get(second..second + 2) == Some(b"\\u");
                if is_escape && matches!(code_unit(bytes, second)?, 0xDC00..=0xDFFF) {
                    Ok(second + 6)
                } else {
                    fault(at, "half of a surrogate pair")
                }
            }
            0xDC00..=0xDFFF => fault(at, "half of a surrogate pair"),
            _ => Ok(at + 6),
        },
        Some(_) => fault(at, "an unknown escape in a string"),
        None => fault(at + 1, "the text ends inside a string"),
    }
}

/// The four digits of the `\u` escape at `at`.
fn code_unit(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let mut unit = 0;
    for offset in 2..6 {
        let digit = bytes
            .get(at + offset)
            .and_then(|byte| char::from(*byte).to_digit(16));
        let Some(digit) = digit else {
            return fault(at, "an escape without four hexadecimal digits");
        };
        unit = unit * 16 + digit;
    }
    Ok(unit)
}

fn skip_word(bytes: &[u8], at: usize, word: &'static [u8]) -> Result<usize, Fault> {
    if bytes[at..].starts_with(word) {
        Ok(at + word.len())
    } else {
        fault(at, "a value is expected")
    }
}

fn skip_digits(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    if !matches!(bytes.get(at), Some(b'0'..=b'9')) {
        return fault(at, "a digit is expected");
    }
    while matches!(bytes.get(at), Some(b'0'..=b'9')) {
        at += 1;
    }
    Ok(at)
}

fn skip_number(bytes: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start;
    if bytes[at] == b'-' {
        at += 1;
    }
    at = if bytes.get(at) == Some(&b'0') {
        at + 1
    } else {
        skip_digits(bytes, at)?
    };
    let mut may_be_huge = at - start > 300;
    if bytes.get(at) == Some(&b'.') {
        at = skip_digits(bytes, at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = skip_digits(bytes, at)?;
        may_be_huge = true;
    }
    if may_be_huge {
        let number = std::str::from_utf8(&bytes[start..at])
            .ok()
            .and_then(|digits| digits.parse::<f64>().ok());
        if !number.is_some_and(f64::is_finite) {
            return fault(start, "a number beyond the range of a double");
        }
    }
    Ok(at)
}

/// Which of the open brackets are objects, one bit each.
#[derive(Default)]
struct Nesting {
    /// The innermost up to 64, the lowest bit innermost.
    bits: u64,
    depth: usize,
    /// Full words of 64 further out.
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0
            && self.depth.is_multiple_of(64)
            && let Some(bits) = self.outer.pop()
        {
            self.bits = bits;
        }
    }

    /// Whether the innermost is an object; nothing when none is open.
    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &[u8]) -> Result<usize, Fault> {
        let skipped = skip_value(text, skip_whitespace(text, 0))?;
        let end = skip_whitespace(text, skipped.end);
        if end == text.len() {
            Ok(skipped.depth)
        } else {
            fault(end, "more follows")
        }
    }

    #[test]
    fn what_is_json_is_taken_with_its_depth() {
        let cases: &[(&str, usize)] = &[
            ("{}", 1),
            ("[]", 1),
            ("\"\"", 0),
            (" [ ] ", 1),
            ("[[],{}]", 2),
            (
                r#"{"a":[1,-2.5e+3,0,true,false,null,"x\n\u00e9\ud83d\ude00"]}"#,
                2,
            ),
            ("{\"a\" : { \"b\" :\r\n\t[ ] } , \"c\" : 1 }", 3),
            ("1e308", 0),
            ("-0", 0),
        ];
        for (text, depth) in cases {
            assert_eq!(whole(text.as_bytes()), Ok(*depth), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_breaks() {
        let cases: &[(&str, usize)] = &[
            ("", 0),
            ("{", 1),
            ("{]", 1),
            ("[}", 1),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 5),
            ("{a:1}", 1),
            ("[1 2]", 3),
            ("01", 1),
            ("1.", 2),
            ("-", 1),
            ("1e", 2),
            ("+1", 0),
            (".5", 0),
            ("NaN", 0),
            ("nul", 0),
            ("Infinity", 0),
            ("-Infinity", 1),
            ("1e999", 0),
            ("\"a", 2),
            ("\"\\", 2),
            ("\"\\x\"", 1),
            ("\"\\u12g4\"", 1),
            ("\"\\ud800\"", 1),
            ("\"\\ud800\\u0041\"", 1),
            ("\"\\udc00\"", 1),
            ("\"a\nb\"", 2),
            ("'a'", 0),
            ("{} {}", 3),
        ];
        for (text, at) in cases {
            assert_eq!(
                whole(text.as_bytes()).map_err(|fault| fault.at),
                Err(*at),
                "{text}"
            );
        }
    }

    #[test]
    fn brackets_keep_their_kind_at_any_depth() {
        for depth in [1, 63, 64, 65, 128, 129, 1000, 100_000] {
            let open: String = (0..depth)
                .map(|level| if level % 3 == 0 { "{\"a\":" } else { "[" })
                .collect();
            let close: String = (0..depth)
                .rev()
                .map(|level| if level % 3 == 0 { '}' } else { ']' })
                .collect();
            assert_eq!(whole(format!("{open}1{close}").as_bytes()), Ok(depth));
            let wrong = close.replacen(['}', ']'], ")", 1);
            assert!(whole(format!("{open}1{wrong}").as_bytes()).is_err());
            let swapped: String = close
                .chars()
                .map(|c| if c == '}' { ']' } else { '}' })
                .collect();
            assert_eq!(
                whole(format!("{open}1{swapped}").as_bytes())
                    .unwrap_err()
                    .at,
                open.len() + 1,
                "{depth}"
            );
        }
    }

    proptest! {
        /// Texts made of JSON's own pieces, most of them broken: the verdict is serde_json's.
        #[test]
        fn agrees_with_serde_json(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"", "\\", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "1", "0", "-", ".", "e5", "e999",
            "true", "null", " ", "\n", "é", "\"k\":", "\u{1}", "12345678901234567890",
        ]), 0..24)) {
            let text = pieces.concat();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(whole(text.as_bytes()).is_ok(), theirs, "{}", text);
        }

        #[test]
        fn every_json_is_taken_and_every_cut_refused(value in any_json(), cut in 0.0..1.0f64) {
            let text = serde_json::to_vec(&value).unwrap();
            prop_assert!(whole(&text).is_ok());
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert!(whole(&pretty).is_ok());
            let cut = (text.len() as f64 * cut) as usize;
            prop_assert_eq!(whole(&text[..cut]).is_ok(), serde_json::from_slice::<serde_json::Value>(&text[..cut]).is_ok());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = whole(&bytes);
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
