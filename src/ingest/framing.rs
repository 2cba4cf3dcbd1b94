//! Where the events of a body begin and end.
//!
//! A body is NDJSON, or documents: JSON arrays of events, `{"Records":[…]}`, single events, one after another, spread over lines as they
//! like. Which it is shows at its beginning, behind a byte order mark and whitespace:
//!
//! - `[` begins documents
//! - a first line that is a value by itself begins NDJSON. A body of a single line that begins with `{"Records":[` is a document
//! - a first line that is not, but belongs to a value that ends on a later line, begins documents
//! - a first line that breaks off behind `{`, `[`, `,` or `:`, with something else than `{` on the next, was meant as a document, as was
//!   one that begins with `{"Records":[` and breaks off so: what is wrong is told with its place
//! - everything else is NDJSON
//!
//! In NDJSON a broken line is one refused event and harms no neighbour; blank lines are skipped and do not count; a line may hold
//! `{"Records":[…]}`. In documents there are no lines to go on with: what is broken is told with its place, and nothing is taken.
//! Members of `{"Records":[…]}` behind the array are not looked at.

use crate::event::check::{not_an_object, read, unreadable};
use crate::event::json::{self, Fault};
use crate::event::scan::scan;
use crate::event::{Refusal, Scanned};

/// An event's bytes and what a walk over them found, or why there is none in this place.
pub type Item<'a> = Result<(&'a [u8], Scanned), Refusal>;

/// A body that makes no sense as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Broken {
    pub code: &'static str,
    pub message: String,
}

/// Goes through a body, event by event.
pub struct Framing<'a> {
    body: &'a [u8],
    /// The next byte to look at.
    at: usize,
    layout: Layout,
    inside: Inside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Lines,
    Documents,
}

/// What the next byte is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    /// An array, before its first element or behind one.
    Array {
        first: bool,
        envelope: bool,
    },
}

impl<'a> Framing<'a> {
    pub fn new(body: &'a [u8]) -> Result<Self, Broken> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let at = json::skip_whitespace(body, 0);
        if at == body.len() {
            return Err(Broken {
                code: "EmptyBody",
                message: "the body is empty, it should hold events".to_owned(),
            });
        }
        Ok(Self {
            body,
            at,
            layout: layout(body, at),
            inside: Inside::Nothing,
        })
    }

    /// How far it has come, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn next_item(&mut self) -> Result<Option<Item<'a>>, Broken> {
        match self.layout {
            Layout::Lines => self.next_in_lines(),
            Layout::Documents => self.next_in_documents(),
        }
        .map_err(|fault| {
            let Refusal { code, message, .. } = unreadable(self.body, fault);
            Broken {
                code: code.as_str(),
                message: format!("the body is {message}"),
            }
        })
    }

    fn next_in_lines(&mut self) -> Result<Option<Item<'a>>, Fault> {
        loop {
            if let Inside::Array { .. } = self.inside {
                // Known to be whole.
                if let Some(item) = self.next_element()? {
                    return Ok(Some(item));
                }
                continue;
            }
            if self.at >= self.body.len() {
                return Ok(None);
            }
            let end = line_end(self.body, self.at);
            let line = &self.body[self.at..end];
            let start = self.at + (line.len() - line.trim_ascii_start().len());
            if let Some(elements) = records_begin(line, start - self.at)
                && is_one_value(&self.body[..end], start)
            {
                self.at += elements;
                self.inside = Inside::Array {
                    first: true,
                    envelope: true,
                };
                continue;
            }
            self.at = (end + 1).min(self.body.len());
            if !line.trim_ascii().is_empty() {
                return Ok(Some(read(line)));
            }
        }
    }

    fn next_in_documents(&mut self) -> Result<Option<Item<'a>>, Fault> {
        loop {
            if let Inside::Array { .. } = self.inside {
                if let Some(item) = self.next_element()? {
                    return Ok(Some(item));
                }
                continue;
            }
            self.at = json::skip_whitespace(self.body, self.at);
            if self.at == self.body.len() {
                return Ok(None);
            }
            if self.body[self.at] == b'[' {
                self.at += 1;
                self.inside = Inside::Array {
                    first: true,
                    envelope: false,
                };
            } else if let Some(elements) = records_begin(self.body, self.at) {
                self.at = elements;
                self.inside = Inside::Array {
                    first: true,
                    envelope: true,
                };
            } else {
                return self.take_value().map(Some);
            }
        }
    }

    /// The next element of the array it is inside of; nothing, and outside of it, at the array's end.
    fn next_element(&mut self) -> Result<Option<Item<'a>>, Fault> {
        let Inside::Array { first, envelope } = self.inside else {
            return Ok(None);
        };
        self.at = json::skip_whitespace(self.body, self.at);
        match self.body.get(self.at) {
            Some(b']') => {
                self.at += 1;
                self.inside = Inside::Nothing;
                if envelope {
                    self.at = envelope_end(self.body, self.at)?;
                }
                return Ok(None);
            }
            _ if first => {}
            Some(b',') => self.at = json::skip_whitespace(self.body, self.at + 1),
            Some(_) => {
                return Err(Fault {
                    at: self.at,
                    what: "',' or ']' is expected",
                });
            }
            None => {
                return Err(Fault {
                    at: self.at,
                    what: "the text ends inside an array",
                });
            }
        }
        self.inside = Inside::Array {
            first: false,
            envelope,
        };
        self.take_value().map(Some)
    }

    fn take_value(&mut self) -> Result<Item<'a>, Fault> {
        let text = &self.body[self.at..];
        let shifted = |fault: Fault| Fault {
            at: fault.at + self.at,
            ..fault
        };
        if text.first() == Some(&b'{') {
            let found = scan(text).map_err(shifted)?;
            self.at += found.len;
            return Ok(Ok((&text[..found.len], found)));
        }
        let end = json::skip_value(text, 0).map_err(shifted)?.end;
        self.at += end;
        Ok(Err(not_an_object(&text[..end])))
    }
}

fn layout(body: &[u8], at: usize) -> Layout {
    if body[at] == b'[' {
        return Layout::Documents;
    }
    if body[at] != b'{' {
        return Layout::Lines;
    }
    let end = line_end(body, at);
    let is_envelope = records_begin(body, at).is_some();
    let next_line = json::skip_whitespace(body, end);
    if is_envelope && next_line == body.len() {
        return Layout::Documents;
    }
    if is_one_value(&body[..end], at) {
        return Layout::Lines;
    }
    if json::skip_value(body, at).is_ok_and(|value| value.end > end) {
        return Layout::Documents;
    }
    let breaks_off = matches!(
        body[at..end].trim_ascii_end().last(),
        Some(b'{' | b'[' | b',' | b':')
    );
    if breaks_off && (is_envelope || body.get(next_line) != Some(&b'{')) {
        Layout::Documents
    } else {
        Layout::Lines
    }
}

/// The line break at or after `at`, or the end.
fn line_end(body: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |length| at + length)
}

/// Whether `text` from `at` is one value with nothing but whitespace behind it.
fn is_one_value(text: &[u8], at: usize) -> bool {
    json::skip_value(text, at)
        .is_ok_and(|value| json::skip_whitespace(text, value.end) == text.len())
}

/// When `{"Records":[` stands at `at`, the first byte behind it.
fn records_begin(text: &[u8], at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'{') {
        return None;
    }
    let name = json::skip_whitespace(text, at + 1);
    let rest = text.get(name..)?.strip_prefix(b"\"Records\"")?;
    let value = json::skip_colon(text, text.len() - rest.len()).ok()?;
    (text.get(value) == Some(&b'[')).then_some(value + 1)
}

/// The first byte behind the `}` of an envelope whose array ended at `at`, over members that may stand between.
fn envelope_end(body: &[u8], mut at: usize) -> Result<usize, Fault> {
    loop {
        at = json::skip_whitespace(body, at);
        match body.get(at) {
            Some(b'}') => return Ok(at + 1),
            Some(b',') => {
                let name = json::skip_whitespace(body, at + 1);
                if body.get(name) != Some(&b'"') {
                    return Err(Fault {
                        at: name,
                        what: "a name in quotes is expected",
                    });
                }
                let value = json::skip_colon(body, json::skip_string(body, name)?.end)?;
                at = json::skip_value(body, value)?.end;
            }
            Some(_) => {
                return Err(Fault {
                    at,
                    what: "',' or '}' is expected",
                });
            }
            None => {
                return Err(Fault {
                    at,
                    what: "the text ends inside an object",
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Code;

    /// The events' bytes, or the codes of the refusals.
    fn items(body: &[u8]) -> Result<Vec<Result<String, Code>>, Broken> {
        let mut framing = Framing::new(body)?;
        let mut items = Vec::new();
        while let Some(item) = framing.next_item()? {
            assert!(framing.position() <= body.len());
            items.push(
                item.map(|(given, _)| String::from_utf8_lossy(given).into_owned())
                    .map_err(|refusal| refusal.code),
            );
        }
        Ok(items)
    }

    fn taken(body: &str) -> Vec<String> {
        items(body.as_bytes())
            .unwrap()
            .into_iter()
            .map(|item| item.unwrap_or_else(|code| format!("{code}")))
            .collect()
    }

    #[test]
    fn every_layout_gives_its_events() {
        let cases: &[(&str, &[&str])] = &[
            ("{\"a\":1}", &["{\"a\":1}"]),
            ("{\"a\":1}\n{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            (
                "\u{feff}{\"a\":1}\r\n\r\n  \n{\"b\":2}\r\n",
                &["{\"a\":1}", "{\"b\":2}"],
            ),
            ("\n\n  {\"a\":1} \n", &["{\"a\":1}"]),
            ("[]", &[]),
            (" [ ] \n", &[]),
            ("[{\"a\":1}, {\"b\":[]}]", &["{\"a\":1}", "{\"b\":[]}"]),
            ("[\n{\"a\":\n1},{}\n]\n", &["{\"a\":\n1}", "{}"]),
            ("{\"Records\":[]}", &[]),
            ("{\"Records\":[{\"a\":1},{}]}", &["{\"a\":1}", "{}"]),
            (
                "{ \"Records\" : [ {} ] , \"more\" : {\"x\":[1]}, \"y\":2 }",
                &["{}"],
            ),
            (
                "{\n  \"Records\": [\n    {\n \"a\": 1\n},\n{}\n]\n}\n",
                &["{\n \"a\": 1\n}", "{}"],
            ),
            (
                "{\"Records\":[{},{\"a\":1}]}\n{\"b\":2}\n{\"Records\":[]}\n{\"Records\":[{\"c\":3}]} \n",
                &["{}", "{\"a\":1}", "{\"b\":2}", "{\"c\":3}"],
            ),
            ("{\n  \"a\": 1\n}\n", &["{\n  \"a\": 1\n}"]),
            ("{ \"a\": 1\n, \"b\": 2 }", &["{ \"a\": 1\n, \"b\": 2 }"]),
            (
                "{\n\"a\":1\n}\n{\n\"b\":2\n}",
                &["{\n\"a\":1\n}", "{\n\"b\":2\n}"],
            ),
            ("[{}][{\"a\":1}]", &["{}", "{\"a\":1}"]),
            ("{\"Records\":1}", &["{\"Records\":1}"]),
        ];
        for (body, events) in cases {
            assert_eq!(taken(body), *events, "{body}");
        }
    }

    #[test]
    fn a_bad_line_harms_no_neighbour() {
        let bad = [
            "{\"a\":",
            "{\"a\"",
            "{",
            "}",
            "garbage",
            "{} {}",
            "{\"a\":1} x",
            "[1]",
            "1",
            "\"s\"",
            "{\"a\":NaN}",
            "{\"a\":1,",
            "{\"Records\":[{}",
            "{\"Records\":[{},]}",
            "\u{1}",
        ];
        for line in bad {
            for body in [
                format!("{line}\n{{\"x\":1}}\n"),
                format!("{{\"x\":1}}\n{line}\n{{\"y\":2}}"),
                format!("{{\"x\":1}}\n{line}"),
            ] {
                let good = body.matches("{\"x\":1}").count() + body.matches("{\"y\":2}").count();
                let items =
                    items(body.as_bytes()).unwrap_or_else(|broken| panic!("{broken}: {body:?}"));
                assert_eq!(items.len(), good + 1, "{body:?}");
                assert_eq!(
                    items
                        .iter()
                        .filter(|item| **item == Err(Code::InvalidJson))
                        .count(),
                    1,
                    "{body:?}"
                );
            }
        }
        let items = items(b"{\"x\":1}\n{\"a\":\"\xff\"}\n\xff\n{}").unwrap();
        // Inside a string the walk does not mind; checking the event does.
        assert!(items[0].is_ok() && items[1].is_ok() && items[3].is_ok());
        assert_eq!(items[2], Err(Code::InvalidUtf8));
    }

    #[test]
    fn elements_that_are_no_objects_are_refused_alone() {
        assert_eq!(
            taken("[1,{},\"x\",[{}],null]"),
            [
                "InvalidJson",
                "{}",
                "InvalidJson",
                "InvalidJson",
                "InvalidJson"
            ]
        );
    }

    #[test]
    fn a_broken_document_is_refused_with_its_place() {
        let cases: &[(&str, usize)] = &[
            ("[", 1),
            ("[{}", 3),
            ("[{},]", 4),
            ("[{} {}]", 4),
            ("[{}]]", 4),
            ("[{}] x", 5),
            ("{\"Records\":[{}]", 15),
            ("{\"Records\":[{}", 14),
            ("{\"Records\":[{}],}", 16),
            ("{\"Records\":[{\"a\":}]}", 17),
            ("{\n  \"Records\": [\n    {\"a\": tru}\n  ]\n}", 27),
            ("{\n  \"a\": 1,\n}\n", 12),
            ("{\"Records\":[\n{}\n{}]}", 16),
        ];
        for (body, at) in cases {
            let broken = items(body.as_bytes()).unwrap_err();
            assert_eq!(broken.code, "InvalidJson", "{body}");
            assert!(
                broken.message.contains(&format!("at byte {at}")),
                "{body}: {broken}"
            );
        }
        assert_eq!(items(b"[{\"a\":\xff}]").unwrap_err().code, "InvalidUtf8");
        for empty in ["", " \r\n", "\u{feff}"] {
            assert_eq!(items(empty.as_bytes()).unwrap_err().code, "EmptyBody");
        }
    }

    #[test]
    fn a_hostile_body_costs_no_stack() {
        let deep = "[".repeat(1 << 20);
        assert!(items(deep.as_bytes()).is_err());
        let members = format!("{{\"Records\":[]{}}}", ",\"x\":0".repeat(200_000));
        assert_eq!(taken(&members).len(), 0);
    }

    fn any_event() -> impl Strategy<Value = String> {
        prop::collection::btree_map(
            "[a-zé\n\"]{1,6}",
            prop_oneof![
                Just("null".to_owned()),
                "[0-9]{1,3}".prop_map(|n| format!("[{{\"n\":1{n}}}]")),
                "\\PC{0,12}".prop_map(|s| serde_json::Value::from(s).to_string())
            ],
            0..5,
        )
        .prop_map(|members| {
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name)))
                .collect();
            format!("{{{}}}", members.join(","))
        })
    }

    proptest! {
        #[test]
        fn framing_round_trips(events in prop::collection::vec(any_event(), 1..6), pretty in any::<bool>()) {
            let events: Vec<String> = events.into_iter().map(|event| if pretty {
                serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&event).unwrap()).unwrap()
            } else { event }).collect();
            let mut bodies = vec![
                format!("[{}]", events.join(",")),
                format!("[\n{}\n]\n", events.join(" ,\n")),
                format!("{{\"Records\":[{}]}}", events.join(",")),
                format!("{{\n\"Records\" : [\n{}]\n}}\n", events.join(",\r\n")),
            ];
            if !pretty {
                bodies.push(events.join("\n"));
                bodies.push(format!("\u{feff}{}\r\n\n", events.join("\r\n\r\n")));
                bodies.push(format!("{{\"Records\":[{}]}}\n{{\"Records\":[]}}", events.join(",")));
            }
            for body in bodies {
                prop_assert_eq!(&taken(&body), &events, "{}", body);
            }
        }

        #[test]
        fn hostile_bodies_never_panic(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"Records\"", "\"a\"", "\n", " ", "1", "\u{feff}", "{\"Records\":[", "{}", "é",
        ]), 0..30)) {
            let _ = items(pieces.concat().as_bytes());
        }
    }
}
