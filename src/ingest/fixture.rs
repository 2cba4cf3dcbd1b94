//! A journal on a real disk with the ways in on top, for tests.

use std::path::Path;
use std::sync::Arc;

use super::dedup::Sidecars;
use super::{Accounts, Ingest, Metrics, Options, Origin};
use crate::event::{Meta, Record};
use crate::wal::{self, DiskReserve, Position, RealDisk, Wal};

pub struct Fixture {
    pub wal: Wal,
    pub sidecars: Sidecars,
    pub ingest: Ingest,
    pub metrics: Metrics,
}

/// What a test may turn.
#[derive(Clone, Copy)]
pub struct Knobs {
    pub max_bytes: u64,
    pub segment_bytes: u64,
    pub window: usize,
    pub max_body_bytes: usize,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            segment_bytes: 1 << 20,
            window: 10_000,
            max_body_bytes: 16 << 20,
        }
    }
}

pub fn open(data_dir: &Path, knobs: Knobs) -> Fixture {
    let (sidecars, mut window) = Sidecars::open(data_dir, knobs.window).unwrap();
    let options = wal::Options {
        directory: data_dir.join("journal"),
        segment_bytes: knobs.segment_bytes,
        max_bytes: knobs.max_bytes,
        disk_reserve: DiskReserve::None,
        queue_bytes: 16 << 20,
    };
    let (wal, _) = Wal::open(
        Arc::new(RealDisk),
        options,
        wal::Metrics::default(),
        &mut |_, frame| window.remember_frame(frame),
    )
    .unwrap();
    let metrics = Metrics::default();
    let mut options = Options::new(
        "999988887777".parse().unwrap(),
        "eu-central-1".parse().unwrap(),
    );
    options.max_body_bytes = knobs.max_body_bytes;
    let ingest = Ingest::new(wal.clone(), window, options, metrics.clone());
    Fixture {
        wal,
        sidecars,
        ingest,
        metrics,
    }
}

impl Fixture {
    /// Everything durable, in order.
    pub fn stored(&self) -> Vec<(Meta, String)> {
        let mut reader = self.wal.reader();
        let mut stored = Vec::new();
        let mut from = self.wal.start();
        while from < self.wal.durable() {
            let chunk = reader.read(from, 1 << 20).unwrap();
            for (_, frame) in chunk.iter() {
                let record = Record::decode(frame).unwrap();
                stored.push((
                    record.meta,
                    String::from_utf8(record.json.to_vec()).unwrap(),
                ));
            }
            // Nothing is in the gap before the place where the next frame will be.
            if chunk.next <= from {
                break;
            }
            from = chunk.next;
        }
        stored
    }

    pub fn stored_names(&self) -> Vec<String> {
        self.stored()
            .iter()
            .map(|(_, json)| name_of(json))
            .collect()
    }

    /// Keeps fingerprints and deletes every segment that can go.
    pub fn trim_all(&mut self) -> usize {
        self.trim(Position(u64::MAX))
    }

    /// The same for segments that end at or before `below`.
    pub fn trim(&mut self, below: Position) -> usize {
        self.sidecars.trim(&self.wal, below).unwrap()
    }
}

fn name_of(json: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(json).unwrap();
    event["eventName"].as_str().unwrap().to_owned()
}

pub fn origin() -> Origin {
    Origin {
        account: None,
        region: None,
        peer: "192.0.2.7".to_owned(),
        accounts: Accounts::every(),
    }
}

/// An event with an eventID, on one line.
pub fn event(name: &str) -> String {
    format!(
        r#"{{"eventTime":"2026-05-01T00:19:01Z","eventSource":"s3.amazonaws.com","eventName":"{name}","eventID":"id-{name}","awsRegion":"us-east-1","recipientAccountId":"111122223333"}}"#
    )
}

/// An event without an eventID.
pub fn anonymous(name: &str) -> String {
    format!(
        r#"{{"eventTime":"2026-05-01T00:19:01Z","eventSource":"s3.amazonaws.com","eventName":"{name}"}}"#
    )
}
