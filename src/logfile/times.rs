//! The times of the events in a log file, and how many there are, while its bytes pass in pieces.
//!
//! One pass that knows strings from structure and how deep it is, and no more: `Records[*].eventTime` is all it looks for. What is
//! no JSON it does not notice. The hash says whether the file is the one that was signed; this says whether its digest told the
//! truth of it, and what a digest has to say of a file that was read back instead of made.

use memchr::memchr2;

use crate::event::time::parse_rfc3339;

/// Longer names and times are not looked at.
const LONGEST: usize = 64;

/// Depths, in containers: of the file's own members, of the records, of a record's members.
const FILE: usize = 1;
const RECORDS: usize = 2;
const RECORD: usize = 3;

/// The newest and the oldest so far.
#[derive(Debug, Default)]
pub struct EventTimes {
    times: Option<(i64, i64)>,
    records: u64,
    depth: usize,
    /// Whether what is open at these depths is what it should be.
    in_file: bool,
    in_records: bool,
    in_record: bool,
    /// The next string is a member's name, if what is open is an object.
    awaits_name: bool,
    /// The member whose value comes next is the one looked for at its depth.
    is_wanted: bool,
    string: Option<Text>,
}

/// A string that is being read.
#[derive(Debug)]
struct Text {
    /// As written, without the quotes. Nothing when nobody wants it, or it is too long.
    raw: Option<Vec<u8>>,
    after_backslash: bool,
}

impl EventTimes {
    pub fn take(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.string.is_some() {
                bytes = self.go_on_in_string(bytes);
            } else {
                self.structure(*first);
                bytes = &bytes[1..];
            }
        }
    }

    /// The objects in `Records` so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Whether all that was opened is closed.
    pub fn is_whole(&self) -> bool {
        self.depth == 0 && self.string.is_none()
    }

    /// The newest and the oldest event time, seconds since 1970; nothing when there is none.
    pub fn finish(self) -> Option<(i64, i64)> {
        self.times
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                let is_object = byte == b'{';
                match self.depth {
                    FILE => self.in_file = is_object,
                    RECORDS => self.in_records = self.in_file && self.is_wanted && !is_object,
                    RECORD => {
                        self.in_record = self.in_records && is_object;
                        self.records += u64::from(self.in_record);
                    }
                    _ => {}
                }
                self.awaits_name = true;
                self.is_wanted = false;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_wanted = false;
            }
            b',' => {
                self.awaits_name = true;
                self.is_wanted = false;
            }
            b':' => self.awaits_name = false,
            b'"' => {
                let is_of_interest = self.is_member() && (self.awaits_name || self.is_wanted);
                self.string = Some(Text {
                    raw: is_of_interest.then(Vec::new),
                    after_backslash: false,
                });
            }
            _ => {}
        }
    }

    /// Whether it is at the members of the file or of a record.
    fn is_member(&self) -> bool {
        match self.depth {
            FILE => self.in_file,
            RECORD => self.in_records && self.in_record,
            _ => false,
        }
    }

    /// Reads up to the string's end, and gives what is after it.
    fn go_on_in_string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(text) = &mut self.string else {
            return bytes;
        };
        if text.after_backslash {
            text.after_backslash = false;
            text.keep(&bytes[..1]);
            return &bytes[1..];
        }
        let Some(end) = memchr2(b'"', b'\\', bytes) else {
            text.keep(bytes);
            return &[];
        };
        if bytes[end] == b'\\' {
            text.keep(&bytes[..=end]);
            text.after_backslash = true;
        } else {
            text.keep(&bytes[..end]);
            let raw = self.string.take().and_then(|text| text.raw);
            if let Some(raw) = raw {
                self.end_string(&raw);
            }
        }
        &bytes[end + 1..]
    }

    fn end_string(&mut self, raw: &[u8]) {
        let quoted = [b"\"", raw, b"\""].concat();
        let text: Option<String> = serde_json::from_slice(&quoted).ok();
        if self.awaits_name {
            let wanted = if self.depth == FILE {
                "Records"
            } else {
                "eventTime"
            };
            self.is_wanted = text.as_deref() == Some(wanted);
            return;
        }
        let time = text.and_then(|text| parse_rfc3339(text.as_bytes()));
        if let (RECORD, Some(time)) = (self.depth, time) {
            let (newest, oldest) = self.times.unwrap_or((time, time));
            self.times = Some((newest.max(time), oldest.min(time)));
        }
    }
}

impl Text {
    fn keep(&mut self, bytes: &[u8]) {
        self.raw = self
            .raw
            .take()
            .filter(|raw| raw.len() + bytes.len() <= LONGEST);
        if let Some(raw) = &mut self.raw {
            raw.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(json: &[u8], piece: usize) -> EventTimes {
        let mut times = EventTimes::default();
        json.chunks(piece).for_each(|piece| times.take(piece));
        times
    }

    fn times(json: &[u8], piece: usize) -> Option<(i64, i64)> {
        read(json, piece).finish()
    }

    #[test]
    fn only_the_records_own_times_count() {
        let at = |second: i64| crate::digest::moment::text(1_777_594_300 + second);
        let decoy = json!({"eventTime": at(59), "Records": [{"eventTime": at(59)}]});
        let file = json!({
            "eventTime": at(59),
            "A": decoy,
            "Before": [{"eventTime": at(59)}],
            "Records": [
                {"a": decoy, "eventTime": at(10), "z": [decoy]},
                {"eventName": "eventTime", "x": at(59), "eventTime": at(5), "q": "a\\\"b,{\"eventTime\":"},
                [{"eventTime": at(59)}],
                {"eventTime": [at(59)]},
                {"eventTime": {"eventTime": at(59)}},
                {"eventTime": at(20)},
            ],
            "Z": {"Records": [{"eventTime": at(59)}]},
        });
        let text = file.to_string();
        let expected = Some((1_777_594_320, 1_777_594_305));
        for json in [
            text.clone(),
            serde_json::to_string_pretty(&file).unwrap(),
            text.replace("eventTime", "\\u0065ventTime"),
        ] {
            for piece in [1, 2, 3, 7, 64, 4096] {
                let read = read(json.as_bytes(), piece);
                assert_eq!((read.records(), read.is_whole()), (5, true), "{json}");
                assert_eq!(read.finish(), expected, "{piece}: {json}");
            }
        }
        for end in 1..text.len() {
            assert!(
                !read(&text.as_bytes()[..end], 99).is_whole(),
                "cut at {end}"
            );
        }
        assert_eq!(times(br#"{"Records":[]}"#, 99), None);
        assert_eq!(
            times(br#"[{"eventTime":"2026-05-01T00:12:34Z"}]"#, 99),
            None
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "(Records|eventTime|.{0,9}|2026-05-01T00:1[0-9]:34Z)".prop_map(Value::from),
        ];
        let name = "(Records|eventTime|.{0,5})";
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds(records in any_json(), piece in 1..40_usize) {
            let file = json!({"Records": [records.clone(), {"eventTime": records}], "b": records});
            let of_records = file["Records"].as_array().unwrap().iter();
            let expected: Vec<i64> = of_records
                .filter_map(|record| record.as_object()?.get("eventTime")?.as_str())
                .filter_map(|text| parse_rfc3339(text.as_bytes()))
                .collect();
            let expected = expected.iter().max().zip(expected.iter().min());
            let expected = expected.map(|(newest, oldest)| (*newest, *oldest));
            let objects = file["Records"].as_array().unwrap().iter().filter(|record| record.is_object());
            let read = read(file.to_string().as_bytes(), piece);
            prop_assert_eq!((read.records(), read.is_whole()), (objects.count() as u64, true));
            prop_assert_eq!(read.finish(), expected);
        }

        #[test]
        fn no_bytes_make_it_stumble(bytes: Vec<u8>, piece in 1..9_usize) {
            let _ = times(&bytes, piece);
        }
    }
}
