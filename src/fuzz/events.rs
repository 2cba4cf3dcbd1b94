//! Events, and the bodies that bring them.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::Full;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Input, JSON, corpus, fuzz};
use crate::clock::WallMillis;
use crate::event::fill::Filling;
use crate::event::time::parse_rfc3339;
use crate::event::{self, Code, Record, Rules, parse};
use crate::ingest::body::{self, Budget, Limits};
use crate::ingest::framing::Framing;

type Event = Map<String, Value>;

fn rules() -> Rules {
    Rules {
        max_event_bytes: 64 << 10,
        account: "999988887777".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        now: WallMillis(1_800_000_000_000),
    }
}

/// An event as the journal keeps it; nothing when it is not accepted.
pub fn stored(given: &[u8]) -> Option<Vec<u8>> {
    let checked = parse(given, &rules()).ok()?;
    let mut bytes = Vec::new();
    checked.meta(rules().now, [7; 16]).encode(&mut bytes);
    let filling = Filling {
        event_id: Uuid::nil(),
        source_address: "192.0.2.7",
    };
    checked.write(&mut bytes, filling);
    Some(bytes)
}

#[test]
fn an_event_is_taken_for_what_another_reader_takes_it_for() {
    let all = [corpus("events"), event::corpus::events()].concat();
    let tokens = [
        JSON,
        &[
            "\"eventTime\":\"2026-05-01T00:12:34Z\"",
            "eventName",
            "\"accountId\":\"111122223333\"",
            "userIdentity",
            "awsRegion",
        ],
    ]
    .concat();
    fuzz("events", 40_000, &all, &tokens, |input| {
        let text = input.trim_ascii();
        let plain = serde_json::from_slice::<Event>(text);
        match parse(input, &rules()) {
            Ok(checked) => {
                let plain = plain.expect("what is accepted is an object to every reader");
                assert_eq!(checked.given, text, "the bytes are kept");
                check_fields(&checked, &plain);
                check_stored(&stored(input).unwrap(), text, &plain);
                Input::Understood
            }
            Err(refusal) => {
                assert!(
                    refusal.message.len() < 2000 && !refusal.message.contains(char::is_control)
                );
                let unreadable = matches!(refusal.code, Code::InvalidJson | Code::InvalidUtf8);
                match plain {
                    Ok(_) => assert!(!unreadable, "{refusal}, but it is an object"),
                    // How deep serde_json goes is its own affair.
                    Err(error) => assert!(
                        unreadable || error.to_string().contains("recursion limit"),
                        "{error}, but {refusal}"
                    ),
                }
                Input::Refused
            }
        }
    });
}

fn check_fields(checked: &event::Checked<'_>, plain: &Event) {
    let account = plain
        .get("recipientAccountId")
        .or_else(|| plain.get("userIdentity")?.get("accountId"));
    assert_eq!(
        checked.account.as_str(),
        account.map_or("999988887777", |account| account.as_str().unwrap())
    );
    let region = plain
        .get("awsRegion")
        .map_or("eu-central-1", |region| region.as_str().unwrap());
    assert_eq!(checked.region.as_str(), region);
    let time = parse_rfc3339(plain["eventTime"].as_str().unwrap().as_bytes());
    assert_eq!(Some(checked.event_time), time);
    assert_eq!(checked.has_event_id(), plain.contains_key("eventID"));
}

/// What is stored is what was given and a few more members behind it.
fn check_stored(frame: &[u8], given: &[u8], plain: &Event) {
    let record = Record::decode(frame).unwrap();
    assert_eq!(record.meta.fingerprint, [7; 16]);
    assert!(record.json.starts_with(&given[..given.len() - 1]));
    let stored: Event = serde_json::from_slice(record.json).unwrap();
    assert!(
        plain
            .iter()
            .all(|(name, value)| stored.get(name) == Some(value))
    );
    assert!(stored.contains_key("eventID") && stored.contains_key("eventCategory"));
}

#[test]
fn a_body_is_the_events_that_stand_in_it_one_after_the_other() {
    let tokens = [
        JSON,
        &["{\"Records\":[", "]}", "{\"a\":1}\n", "\n\n", "},{"],
    ]
    .concat();
    fuzz("bodies", 60_000, &corpus("bodies"), &tokens, |body| {
        let items = items(body);
        if let Ok(elements) = serde_json::from_slice::<Vec<Value>>(body) {
            check_items(items.as_ref().expect("an array is a body"), &elements);
        } else if let Some(lines) = lines(body) {
            check_items(items.as_ref().expect("lines are a body"), &lines);
        }
        Input::understood(items.is_ok_and(|items| items.iter().any(Option::is_some)))
    });
}

/// The bytes of each event, nothing for what is refused.
fn items(body: &[u8]) -> Result<Vec<Option<&[u8]>>, ()> {
    let mut framing = Framing::new(body).map_err(drop)?;
    let mut items = Vec::new();
    let mut end = body.as_ptr();
    while let Some(item) = framing.next_item().map_err(drop)? {
        let bytes = item.ok().map(|(bytes, _)| bytes);
        if let Some(bytes) = bytes {
            assert!(bytes.as_ptr() >= end, "no byte is in two events");
            end = bytes.as_ptr_range().end;
            assert!(end <= body.as_ptr_range().end);
        }
        items.push(bytes);
        assert!(items.len() <= body.len(), "each takes a byte at least");
    }
    Ok(items)
}

/// The objects of a body that has one a line.
fn lines(body: &[u8]) -> Option<Vec<Value>> {
    let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let objects = lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).ok().filter(Value::is_object));
    let objects: Vec<Value> = objects.collect::<Option<_>>()?;
    let is_plain =
        !objects.is_empty() && objects.iter().all(|object| object.get("Records").is_none());
    is_plain.then_some(objects)
}

fn check_items(items: &[Option<&[u8]>], expected: &[Value]) {
    assert_eq!(items.len(), expected.len());
    for (item, expected) in items.iter().zip(expected) {
        let item: Option<Value> = item.map(|bytes| serde_json::from_slice(bytes).unwrap());
        assert_eq!(
            item.as_ref(),
            Some(expected).filter(|value| value.is_object())
        );
    }
}

#[test]
fn a_compressed_body_is_what_its_bytes_inflate_to_or_refused() {
    const MOST: usize = 64 << 10;
    let limits = Limits {
        max_body_bytes: MOST,
        grace: Duration::from_secs(5),
        min_bytes_per_second: 1024,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let budget = Budget::new(1 << 20, MOST);
    let plain = corpus("bodies");
    let gzipped: Vec<Vec<u8>> = plain
        .iter()
        .map(|plain| crate::cli::verify::tests::gzip(plain))
        .collect();
    fuzz(
        "gzip",
        8_000,
        &gzipped,
        &["\x1f\u{8b}\x08", "\0\0\0\0", "\u{ff}\u{ff}", "\x01"],
        |input| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            let body = Full::new(Bytes::copy_from_slice(input));
            let read = runtime.block_on(body::read(&headers, body, &limits, &budget));
            let mut inflated = Vec::new();
            let is_gzip = flate2::read::MultiGzDecoder::new(input)
                .take(MOST as u64 + 1)
                .read_to_end(&mut inflated)
                .is_ok();
            if let Ok(whole) = &read {
                assert!(whole.bytes.len() <= MOST);
                assert!(is_gzip && whole.bytes == inflated);
            }
            Input::understood(read.is_ok())
        },
    );
}
