//! What is on the disk: the journal's frames, its records, the ledger's entries.

use std::sync::{Arc, Mutex};

use super::{Input, JSON, corpus, events, fuzz};
use crate::event::{Record, corpus as real};
use crate::ledger::{Replay, decode, encode};
use crate::wal::sim::SimDisk;
use crate::wal::{Batch, DiskReserve, Metrics, Options, Position, Wal};

fn options() -> Options {
    Options {
        directory: "/log".into(),
        segment_bytes: 1 << 20,
        max_bytes: 1 << 30,
        disk_reserve: DiskReserve::None,
        queue_bytes: 1 << 20,
    }
}

type Frames = Vec<(Position, Vec<u8>)>;

/// Opens the log of a disk, and gives what it finds there.
fn frames_of(disk: &SimDisk) -> Frames {
    let mut frames = Vec::new();
    let mut each = |position, frame: &[u8]| frames.push((position, frame.to_vec()));
    let opened = Wal::open(
        Arc::new(disk.clone()),
        options(),
        Metrics::default(),
        &mut each,
    );
    drop(opened.expect("a log opens whatever is in it"));
    frames
}

#[test]
fn a_damaged_journal_gives_frames_that_were_written_at_their_places_and_no_others() {
    let disk = SimDisk::new();
    let (wal, _) = Wal::open(
        Arc::new(disk.clone()),
        options(),
        Metrics::default(),
        &mut |_, _| {},
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for payload in corpus("events") {
        let mut batch = Batch::new();
        batch.push(&payload);
        // What looks like a frame is none where it stands.
        batch.push(&[b"\xf4TF\xff\x04\0\0\0".as_slice(), &payload].concat());
        let appended = async { wal.reserve(batch.bytes()).await?.append(batch).await };
        runtime.block_on(appended).unwrap();
    }
    drop(wal);
    let written = frames_of(&disk);
    assert!(!written.is_empty());
    let segment = disk.paths().into_iter().min().unwrap();
    let whole = disk.content(&segment);
    let undamaged = Mutex::new(0);
    fuzz(
        "journal",
        3_000,
        &[whole],
        &["\u{f4}TF\u{ff}", "\0\0\0\0", "TRAILD"],
        |content| {
            let disk = SimDisk::new();
            disk.put(&segment, Some(content.to_vec()));
            let found = match content.is_empty() {
                true => Vec::new(),
                false => frames_of(&disk),
            };
            assert!(found.is_sorted_by_key(|(position, _)| *position));
            for frame in &found {
                assert!(written.contains(frame), "{frame:?} was never written");
            }
            *undamaged.lock().unwrap() += found.len();
            Input::understood(!found.is_empty())
        },
    );
}

#[test]
fn a_record_reads_back_as_what_it_was_read_as() {
    let stored = real::events()
        .iter()
        .step_by(20)
        .filter_map(|given| events::stored(given))
        .collect::<Vec<_>>();
    fuzz(
        "records",
        60_000,
        &stored,
        JSON,
        |frame| match Record::decode(frame) {
            Ok(record) => {
                let mut again = Vec::new();
                record.meta.encode(&mut again);
                again.extend_from_slice(record.json);
                assert_eq!(Record::decode(&again), Ok(record));
                Input::Understood
            }
            Err(_) => Input::Refused,
        },
    );
}

#[test]
fn an_entry_of_the_ledger_reads_back_as_what_it_was_read_as() {
    let tokens = [
        JSON,
        &[
            "\"entry\":\"settled\"",
            "\"positions\":\"QJwL\"",
            "////",
            "\"first\":64,",
            "\"lost\":4294967295,",
        ],
    ]
    .concat();
    fuzz("ledger", 40_000, &corpus("ledger"), &tokens, |frame| {
        let entries: Vec<_> = decode(frame).filter_map(Result::ok).collect();
        let again: Vec<_> = decode(&encode(&entries)).map(Result::unwrap).collect();
        assert_eq!(again, entries);
        let mut replay = Replay::default();
        replay.take(Position(64), frame);
        let read = decode(frame).count() - entries.len();
        assert_eq!(replay.undecodable(), read as u64);
        for (arn, mut state) in replay.rest() {
            state.checkpoint(&arn, Position(64));
        }
        Input::understood(!entries.is_empty())
    });
}
