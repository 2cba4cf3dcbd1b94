//! Reads events out of what people have: NDJSON, a JSON array, `{"Records":[…]}` or any of them one after another, plain or gzip.
//!
//! Files are streamed: memory holds one event, never one file. Events are passed on byte for byte, but for an `eventID` given to those
//! without one: the daemon recognises an event sent twice by it, so that a retry after a lost answer adds nothing.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

/// No event may be longer; the daemon's own limit is far below.
const EVENT_LIMIT: u64 = 32 << 20;

/// How much is looked at to tell the format.
const PROBE: usize = 1 << 20;

/// What an event is sent as: a line of NDJSON as it stood, sound or not, or a sound JSON value that may span lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Line(Vec<u8>),
    Value(Vec<u8>),
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read it")]
    Io(#[source] io::Error),
    #[error("line {line} is longer than {EVENT_LIMIT} bytes")]
    LineTooLong { line: u64 },
    #[error("not NDJSON, a JSON array or {{\"Records\":[…]}}")]
    Json(#[source] serde_json::Error),
    /// The taker wants no more.
    #[error("stopped")]
    Stopped,
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Gives every event of `input` to `take`, until that answers false.
pub fn read(input: impl Read, mut take: impl FnMut(Event) -> bool) -> Result<(), SourceError> {
    let mut raw = BufReader::with_capacity(128 << 10, input);
    let mut magic = [0; 2];
    let got = fill(&mut raw, &mut magic)?;
    let head = io::Cursor::new(magic[..got].to_vec()).chain(raw);
    let plain: Box<dyn Read> = if magic[..got] == [0x1f, 0x8b] {
        Box::new(flate2::bufread::MultiGzDecoder::new(head))
    } else {
        Box::new(head)
    };
    read_plain(BufReader::with_capacity(128 << 10, plain), &mut take)
}

/// As many bytes as there are, up to the buffer's length.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

enum Format {
    Lines,
    /// Arrays and `{"Records":[…]}`, one after another.
    Arrays,
    /// Values one after another, each possibly over several lines.
    Values,
}

fn read_plain(
    mut input: impl BufRead,
    take: &mut dyn FnMut(Event) -> bool,
) -> Result<(), SourceError> {
    let mut probe = Vec::new();
    (&mut input)
        .take(PROBE as u64)
        .read_until(b'\n', &mut probe)?;
    // A byte order mark, and blank lines before the first event.
    if probe.starts_with(b"\xef\xbb\xbf") {
        probe.drain(..3);
    }
    while probe.trim_ascii().is_empty() && !probe.is_empty() {
        probe.clear();
        (&mut input)
            .take(PROBE as u64)
            .read_until(b'\n', &mut probe)?;
    }
    let format = tell_format(&probe);
    let input = io::Cursor::new(probe).chain(input);
    match format {
        Format::Lines => read_lines(input, take),
        Format::Arrays => read_json(input, take, true),
        Format::Values => read_json(input, take, false),
    }
}

/// Decides by the first line, or as much of it as was probed.
fn tell_format(probe: &[u8]) -> Format {
    #[derive(Deserialize)]
    struct Wrapper {
        #[serde(rename = "Records")]
        records: Option<IgnoredAny>,
    }
    let text = probe.trim_ascii_start();
    if text.starts_with(b"[") || begins_records(text) {
        return Format::Arrays;
    }
    match serde_json::from_slice::<Wrapper>(text) {
        Ok(Wrapper { records: Some(_) }) => Format::Arrays,
        Ok(Wrapper { records: None }) => Format::Lines,
        // The object goes on in the next line: it is pretty-printed, or a wrapper whose records come late.
        Err(error) if error.is_eof() && text.starts_with(b"{") => Format::Values,
        // Not JSON: the daemon names the line.
        Err(_) => Format::Lines,
    }
}

/// `{"Records":[` with any space between.
fn begins_records(text: &[u8]) -> bool {
    let mut rest = text;
    for token in [&b"{"[..], b"\"Records\"", b":", b"["] {
        match rest.trim_ascii_start().strip_prefix(token) {
            Some(after) => rest = after,
            // The line may end between two tokens.
            None => {
                return rest.trim_ascii_start().is_empty()
                    && token != b"{"
                    && token != b"\"Records\"";
            }
        }
    }
    true
}

fn read_lines(
    mut input: impl BufRead,
    take: &mut dyn FnMut(Event) -> bool,
) -> Result<(), SourceError> {
    let mut number = 0;
    loop {
        let mut line = Vec::new();
        (&mut input)
            .take(EVENT_LIMIT)
            .read_until(b'\n', &mut line)?;
        number += 1;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == EVENT_LIMIT && !line.ends_with(b"\n") {
            return Err(SourceError::LineTooLong { line: number });
        }
        let event = line.trim_ascii();
        if !event.is_empty() && !take(Event::Line(identified(event))) {
            return Err(SourceError::Stopped);
        }
    }
}

fn read_json(
    input: impl BufRead,
    take: &mut dyn FnMut(Event) -> bool,
    arrays: bool,
) -> Result<(), SourceError> {
    let allowance = Rc::new(Cell::new(EVENT_LIMIT));
    let mut input = Metered {
        input,
        allowance: allowance.clone(),
    };
    let mut sink = Sink {
        take,
        allowance,
        stopped: false,
    };
    loop {
        sink.allowance.set(EVENT_LIMIT);
        if !skip_space(&mut input)? {
            return Ok(());
        }
        // Reads exactly the bytes of one value.
        let mut value = serde_json::Deserializer::from_reader(&mut input);
        let outcome = if arrays {
            Top(&mut sink).deserialize(&mut value)
        } else {
            sink.value_or_records(&mut value)
        };
        match outcome {
            Ok(()) => {}
            Err(_) if sink.stopped => return Err(SourceError::Stopped),
            Err(error) => return Err(SourceError::Json(error)),
        }
    }
}

/// Skips white space; false at the end of the input.
fn skip_space(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let Some(&next) = input.fill_buf()?.first() else {
            return Ok(false);
        };
        if !next.is_ascii_whitespace() {
            return Ok(true);
        }
        input.consume(1);
    }
}

/// Bounds what one event may read.
struct Metered<R> {
    input: R,
    allowance: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    fn spend(&self, bytes: usize) {
        self.allowance
            .set(self.allowance.get().saturating_sub(bytes as u64));
    }

    fn check(&self) -> io::Result<()> {
        match self.allowance.get() {
            0 => Err(io::Error::other(format!(
                "an event is longer than {EVENT_LIMIT} bytes"
            ))),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let got = self.input.read(buffer)?;
        self.spend(got);
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.check()?;
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.spend(bytes);
        self.input.consume(bytes);
    }
}

struct Sink<'a> {
    take: &'a mut dyn FnMut(Event) -> bool,
    allowance: Rc<Cell<u64>>,
    stopped: bool,
}

impl Sink<'_> {
    fn event(&mut self, raw: &RawValue) -> Result<(), serde_json::Error> {
        self.allowance.set(EVENT_LIMIT);
        if (self.take)(Event::Value(identified(raw.get().as_bytes()))) {
            return Ok(());
        }
        self.stopped = true;
        Err(serde_json::Error::custom("stopped"))
    }

    fn value_or_records<R: Read>(
        &mut self,
        input: &mut serde_json::Deserializer<serde_json::de::IoRead<R>>,
    ) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Wrapper {
            #[serde(rename = "Records")]
            records: Option<Vec<Box<RawValue>>>,
        }
        let value: Box<RawValue> = Box::deserialize(input)?;
        match serde_json::from_str::<Wrapper>(value.get()) {
            Ok(Wrapper {
                records: Some(records),
            }) => records.iter().try_for_each(|record| self.event(record)),
            _ => self.event(&value),
        }
    }
}

/// A value at the top: an array of events, or an object with them in `Records`.
struct Top<'a, 'b>(&'a mut Sink<'b>);

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events or {\"Records\":[…]}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(raw) = events.next_element::<Box<RawValue>>()? {
            self.0.event(&raw).map_err(A::Error::custom)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = entries.next_key::<String>()? {
            if key == "Records" {
                found = true;
                entries.next_value_seed(Top(&mut *self.0))?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        if found {
            Ok(())
        } else {
            Err(A::Error::custom(
                "an object without Records among arrays of events",
            ))
        }
    }
}

/// The event with an `eventID`: its own, or a new one put first. What is no JSON object stays as it is, for the daemon to refuse.
fn identified(event: &[u8]) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "eventID", default, deserialize_with = "present")]
        has_id: bool,
    }
    fn present<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(input).map(|_| true)
    }
    let Ok(Probe { has_id: false }) = serde_json::from_slice(event) else {
        return event.to_vec();
    };
    let Some(inside) = event.strip_prefix(b"{") else {
        return event.to_vec();
    };
    let comma = if inside.trim_ascii_start().starts_with(b"}") {
        ""
    } else {
        ","
    };
    let mut out = format!("{{\"eventID\":\"{}\"{comma}", uuid::Uuid::new_v4()).into_bytes();
    out.extend_from_slice(inside);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(input: &[u8]) -> Result<Vec<String>, SourceError> {
        let mut events = Vec::new();
        read(input, |event| {
            let (Event::Line(bytes) | Event::Value(bytes)) = event;
            events.push(String::from_utf8(bytes).unwrap());
            true
        })?;
        Ok(events)
    }

    #[test]
    fn every_form_gives_the_same_events_plain_or_gzip() {
        let (a, b) = (r#"{"eventID":"a","x":[1, "}\"]"]}"#, r#"{"eventID":"b"}"#);
        let pretty = "{\n  \"eventID\": \"a\",\n  \"x\": {}\n}";
        let table: Vec<(String, Vec<&str>)> = vec![
            (format!("{a}\n{b}\n"), vec![a, b]),
            (format!("\n\r\n{a}\r\n\n{b}"), vec![a, b]),
            (format!("\u{feff}{a}\n{b}"), vec![a, b]),
            (format!("[{a},{b}]"), vec![a, b]),
            (format!("\n [ {a} ,\n{b} ]\n"), vec![a, b]),
            (format!("[{a}]\n[{b}]\n"), vec![a, b]),
            (format!("{{\"Records\":[{a},{b}]}}"), vec![a, b]),
            (
                format!("{{ \"Records\" : [ {a} , {b} ] , \"more\":1}}"),
                vec![a, b],
            ),
            (
                format!("{{\"Records\":[{a}]}}{{\"Records\":[{b}]}}"),
                vec![a, b],
            ),
            (
                format!("{{\"Records\":[{a}]}}\n{{\"Records\":[{b}]}}\n"),
                vec![a, b],
            ),
            (
                format!("{{\n\"Records\": [\n{a},\n{b}\n]\n}}\n"),
                vec![a, b],
            ),
            (
                format!("{{\"more\":{{}},\"Records\":[{a},{b}]}}"),
                vec![a, b],
            ),
            (format!("{pretty}\n{b}"), vec![pretty, b]),
            (a.to_owned(), vec![a]),
            ("[]".to_owned(), vec![]),
            ("{\"Records\":[]}".to_owned(), vec![]),
            (String::new(), vec![]),
            ("\n\n".to_owned(), vec![]),
        ];
        for (text, expected) in table {
            assert_eq!(all(text.as_bytes()).unwrap(), expected, "{text}");
            assert_eq!(
                all(&gzip(text.as_bytes())).unwrap(),
                expected,
                "gzip of {text}"
            );
        }
        let members = [
            gzip(format!("{a}\n").as_bytes()),
            gzip(format!("{b}\n").as_bytes()),
        ]
        .concat();
        assert_eq!(all(&members).unwrap(), [a, b]);
    }

    #[test]
    fn what_is_no_json_is_left_to_the_daemon_by_line_and_refused_in_an_array() {
        assert_eq!(
            all(b"{\"eventID\":\"a\"}\nnot json\n{\"eventID\":\"b\"}")
                .unwrap()
                .len(),
            3
        );
        assert_eq!(all(b"not json\n").unwrap(), ["not json"]);
        assert!(matches!(
            all(b"[{\"eventID\":\"a\"},nonsense]"),
            Err(SourceError::Json(_))
        ));
        assert!(matches!(
            all(b"[{\"eventID\":\"a\"}"),
            Err(SourceError::Json(_))
        ));
        assert!(matches!(
            all(b"[]{\"eventID\":\"a\"}"),
            Err(SourceError::Json(_))
        ));
        let cut = gzip(b"{\"eventID\":\"a\"}\n{\"eventID\":\"b\"}\n");
        assert!(matches!(
            all(&cut[..cut.len() - 9]),
            Err(SourceError::Io(_))
        ));
    }

    #[test]
    fn events_without_an_id_get_one_and_the_rest_is_untouched() {
        let given =
            all(b"{\"a\": 1 }\n{ }\n{\"eventID\":null}\n{\"x\":{\"eventID\":\"inner\"}}\n[1]")
                .unwrap();
        let id = |event: &str| {
            serde_json::from_str::<serde_json::Value>(event).unwrap()["eventID"]
                .as_str()
                .map(str::len)
        };
        assert_eq!(id(&given[0]), Some(36));
        assert!(given[0].ends_with(",\"a\": 1 }"));
        assert_eq!(id(&given[1]), Some(36));
        assert_eq!(given[2], "{\"eventID\":null}");
        assert_eq!(id(&given[3]), Some(36));
        assert_ne!(given[0][..50], given[1][..50]);
        assert_eq!(given[4], "[1]");
    }

    #[test]
    fn a_taker_may_stop() {
        for text in ["{\"a\":1}\n{\"a\":2}\n", "[{\"a\":1},{\"a\":2}]"] {
            let mut seen = 0;
            let outcome = read(text.as_bytes(), |_| {
                seen += 1;
                false
            });
            assert!(matches!(outcome, Err(SourceError::Stopped)));
            assert_eq!(seen, 1);
        }
    }
}
