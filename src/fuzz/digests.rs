//! What `traild verify` reads from a bucket, which whoever can write there has written.

use std::sync::Arc;

use serde_json::Value;

use super::{Input, JSON, corpus, fuzz};
use crate::cli::verify::content::{self, Read};
use crate::cli::verify::source::Source;
use crate::cli::verify::tests::{Memory, gzip};
use crate::digest::key::DigestKey;
use crate::digest::verify::LogState;
use crate::digest::{Digest, Location, Sha256};
use crate::event::corpus as real;
use crate::event::time::parse_rfc3339;
use crate::logfile::EventTimes;

#[test]
fn a_digest_reads_back_as_what_it_was_read_as() {
    let tokens = [
        JSON,
        &[
            "\"digestStartTime\"",
            "2026-05-01T00:12:34Z",
            "0000-00-00T00:00:00Z",
            "9999-12-31T23:59:60Z",
            "\"logFiles\":",
            "\"SHA-256\"",
            "null,",
        ],
    ]
    .concat();
    fuzz(
        "digests",
        40_000,
        &corpus("digests"),
        &tokens,
        |json| match Digest::read(json) {
            Ok(digest) => {
                assert_eq!(Digest::read(&digest.to_json()).unwrap(), digest);
                Input::Understood
            }
            Err(why) => {
                assert!(!why.to_string().is_empty());
                Input::Refused
            }
        },
    );
}

#[test]
fn a_digests_key_has_one_spelling() {
    let tokens = [
        "/",
        "_",
        "..",
        "AWSLogs",
        "_backfill",
        "20260501T001234Z",
        "us-east-1",
        "o-abcdefghij",
        "\0",
        "é",
    ];
    fuzz(
        "digest-keys",
        100_000,
        &corpus("digest-keys"),
        &tokens,
        |key| {
            let parsed = std::str::from_utf8(key)
                .ok()
                .and_then(|key| Some((key, DigestKey::parse(key)?)));
            if let Some((key, parsed)) = &parsed {
                assert_eq!(parsed.to_string(), *key);
            }
            Input::understood(parsed.is_some())
        },
    );
}

#[test]
fn the_times_of_a_log_file_are_those_that_another_reader_finds_however_it_comes_in_pieces() {
    let records: Vec<String> = real::events()
        .iter()
        .step_by(50)
        .map(|event| String::from_utf8(event.clone()).unwrap())
        .collect();
    let files: Vec<Vec<u8>> = records
        .chunks(3)
        .map(|three| format!("{{\"Records\":[{}]}}", three.join(",")).into_bytes())
        .collect();
    let tokens = [
        JSON,
        &["\"Records\":[", "\"eventTime\":\"2026-05-01T00:12:34Z\","],
    ]
    .concat();
    fuzz("log-files", 10_000, &files, &tokens, |json| {
        let (mut whole, mut in_pieces) = (EventTimes::default(), EventTimes::default());
        whole.take(json);
        json.chunks(7).for_each(|piece| in_pieces.take(piece));
        assert_eq!(
            (whole.records(), whole.is_whole()),
            (in_pieces.records(), in_pieces.is_whole())
        );
        let times = whole.finish();
        assert_eq!(times, in_pieces.finish());
        let plain = serde_json::from_slice::<Value>(json)
            .ok()
            .filter(|plain| has_every_name_once(json, plain));
        if let Some(plain) = &plain {
            assert_eq!(times, times_of(plain));
        }
        Input::understood(plain.is_some())
    });
}

/// Readers disagree on a name given twice, and this one does not look behind escapes: both are for the hash to tell of.
fn has_every_name_once(json: &[u8], plain: &Value) -> bool {
    // Of a name given twice the plain reader keeps one.
    let kept = plain.to_string();
    let count = |name, text| memchr::memmem::find_iter(text, name).count();
    memchr::memmem::find(json, b"\\u").is_none()
        && ["\"Records\"", "\"eventTime\""]
            .iter()
            .all(|name| count(name, json) == count(name, kept.as_bytes()))
}

fn times_of(file: &Value) -> Option<(i64, i64)> {
    let records = file["Records"].as_array()?;
    let times = records
        .iter()
        .filter_map(|record| parse_rfc3339(record["eventTime"].as_str()?.as_bytes()));
    let times: Vec<i64> = times.collect();
    Some((*times.iter().max()?, *times.iter().min()?))
}

#[test]
fn an_object_is_read_whole_or_said_to_be_unreadable() {
    let plain = corpus("digests");
    let objects: Vec<Vec<u8>> = plain.iter().map(|plain| gzip(plain)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    fuzz(
        "objects",
        6_000,
        &objects,
        &["\x1f\u{8b}", "\0\0\0\0", "\u{ff}"],
        |object| {
            let location = Location {
                bucket: "b".into(),
                key: "k".into(),
            };
            let mut memory = Memory::default();
            memory.put(&location, object.to_vec(), None, 0);
            let source = Source::Memory(Arc::new(memory));
            let digest = runtime
                .block_on(content::digest(&source, &location))
                .unwrap();
            let log = runtime.block_on(content::log(&source, &location)).unwrap();
            match (digest, log) {
                (Read::Whole((json, _)), LogState::Read { sha256, .. }) => {
                    assert_eq!(sha256, Sha256::of(&json));
                    Input::Understood
                }
                (Read::Unreadable(why), LogState::Unreadable(_)) => {
                    assert!(!why.is_empty());
                    Input::Refused
                }
                (_, log) => panic!("two readers do not agree: {log:?}"),
            }
        },
    );
}
