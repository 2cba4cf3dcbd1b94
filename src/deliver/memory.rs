//! What a leg remembers across restarts: its place in its log, and its counts there.
//!
//! A small file, replaced whole: `data_dir/cursors/<trail>.<sink>.json`, a line with the CRC-32 of the rest in hex, then one JSON object. One that
//! cannot be read is told, and the leg begins at the start of what its log still holds: rather twice than never.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::item::ItemId;
use super::view::Sink;
use crate::snapshot;
use crate::wal::Position;

/// The names are stable: they are written to disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The trail's ARN.
    pub trail: String,
    /// The destination that was introduced last.
    pub introduced_to: Option<String>,
    /// Every frame before it is settled.
    pub next: u64,
    /// Items at or after `next` that are settled, by position and index.
    pub settled: BTreeSet<(u64, u32)>,
    /// Events, since the leg began.
    pub delivered: u64,
    /// Events, since the leg began, by reason.
    pub dead_lettered: BTreeMap<String, u64>,
    /// Of a leg to an event bus: what it leaves to the legs of other trails there, by their ARNs.
    #[serde(default)]
    pub earlier: BTreeMap<String, Left>,
    /// The file of dead letters that is being sent again.
    #[serde(default)]
    pub replay: Option<Replayed>,
}

/// What a leg leaves to the leg of another trail. The names are stable: they are written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Events before this position were never left.
    pub since: u64,
    /// The other trail's [`selection`](super::bus::sharing::selection).
    pub selection: String,
}

/// How far the sending of a file of dead letters that was handed back has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Which file: its number may be given again, together with length and time it is not.
    pub number: u64,
    pub bytes: u64,
    /// When it was last written to: nanoseconds since 1970.
    pub modified: i64,
    /// The letters in this many of its bytes are settled.
    pub upto: u64,
    /// Items of letters after that which are settled, too, by position and index.
    pub settled: BTreeSet<(u64, u32)>,
}

impl Replayed {
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        let of = |this: &Self| (this.number, this.bytes, this.modified);
        of(self) == of(other)
    }

    pub fn has_settled(&self, id: ItemId) -> bool {
        self.settled.contains(&(id.position.0, id.index))
    }
}

/// What became of a leg's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recalled {
    /// There is none: the leg is new.
    Nothing,
    Memory(Memory),
    /// It cannot be read.
    Damaged,
}

impl Memory {
    /// The highest position it speaks of: its log must never use it, or one before it, again.
    pub fn highest(&self) -> Position {
        let settled = self.settled.last().map_or(0, |(position, _)| *position);
        Position(self.next.max(settled))
    }

    pub fn has_settled(&self, id: ItemId) -> bool {
        id.position.0 < self.next || self.settled.contains(&(id.position.0, id.index))
    }

    pub fn settle(&mut self, id: ItemId) {
        if id.position.0 >= self.next {
            self.settled.insert((id.position.0, id.index));
        }
    }

    /// An item of the dead letters that are being sent again is settled.
    pub fn settle_letter(&mut self, id: ItemId) {
        if let Some(replay) = &mut self.replay {
            replay.settled.insert((id.position.0, id.index));
        }
    }

    /// The letters in this many bytes of the file that is being sent again are settled.
    pub fn advance_replay(&mut self, upto: u64) {
        if let Some(replay) = &mut self.replay
            && upto > replay.upto
        {
            replay.upto = upto;
            replay.settled.clear();
        }
    }

    /// Every frame before `next` is settled.
    pub fn advance(&mut self, next: Position) {
        if next.0 > self.next {
            self.next = next.0;
            self.settled = self.settled.split_off(&(next.0, 0));
        }
    }
}

/// The file of one leg's memory.
#[derive(Debug, Clone)]
pub struct MemoryFile {
    path: PathBuf,
}

impl MemoryFile {
    /// Of a trail's leg, below `directory`.
    pub fn new(directory: &Path, trail: &str, sink: &str) -> Self {
        Self {
            path: directory.join(format!("{}{SUFFIX}", stem(trail, sink))),
        }
    }

    /// Blocking.
    pub fn read(&self) -> Recalled {
        match snapshot::read(&self.path) {
            Ok(None) => Recalled::Nothing,
            Ok(Some(bytes)) => decode(&bytes).map_or(Recalled::Damaged, Recalled::Memory),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "cannot read the place of a leg");
                Recalled::Damaged
            }
        }
    }

    /// Forgets the leg. Blocking.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// When this returns, it is durable. Blocking.
    pub fn write(&self, memory: &Memory) -> io::Result<()> {
        snapshot::replace(&self.path, &encode(memory))
    }
}

/// A leg's file, as it stands in its directory.
#[derive(Debug, Clone)]
pub struct Found {
    /// `<trail>.<sink>`.
    pub stem: String,
    pub file: MemoryFile,
}

impl Found {
    /// Whether the leg is to this sink.
    pub fn is_to(&self, sink: Sink) -> bool {
        self.stem.ends_with(&stem("", sink.as_str()))
    }

    /// Legs to SNS follow the ledger, all others the journal.
    pub fn follows_ledger(&self) -> bool {
        self.is_to(Sink::Sns)
    }
}

/// The legs' files below `directory`, those of legs that are not configured any more included. Blocking.
pub fn files(directory: &Path) -> io::Result<Vec<Found>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) {
            files.push(Found {
                stem: stem.to_owned(),
                file: MemoryFile { path },
            });
        }
    }
    Ok(files)
}

/// The highest positions that any leg's memory speaks of, of legs that follow the journal and of those that follow the ledger. The
/// logs must not use them again, even when they have lost their tails. Blocking.
pub fn highest(directory: &Path) -> io::Result<Highest> {
    let mut highest = Highest::default();
    for found in files(directory)? {
        let Recalled::Memory(memory) = found.file.read() else {
            continue;
        };
        let of = match found.follows_ledger() {
            true => &mut highest.ledger,
            false => &mut highest.journal,
        };
        *of = memory.highest().max(*of);
    }
    Ok(highest)
}

/// See [`highest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Highest {
    pub journal: Position,
    pub ledger: Position,
}

const SUFFIX: &str = ".json";

/// What the names of a leg's files begin with.
pub fn stem(trail: &str, sink: &str) -> String {
    format!("{trail}.{sink}")
}

fn encode(memory: &Memory) -> Vec<u8> {
    let json = serde_json::to_vec(memory).expect("memory: strings and numbers always serialise");
    snapshot::with_sum(&json)
}

fn decode(bytes: &[u8]) -> Option<Memory> {
    serde_json::from_slice(snapshot::without_sum(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(position: u64, index: u32) -> ItemId {
        ItemId {
            position: Position(position),
            index,
        }
    }

    #[test]
    fn what_is_settled_out_of_order_is_remembered_until_its_frame_is_behind() {
        let mut memory = Memory::default();
        memory.advance(Position(100));
        memory.settle(id(300, 1));
        memory.settle(id(200, 0));
        memory.settle(id(50, 0));
        assert!(memory.has_settled(id(99, 0)) && memory.has_settled(id(300, 1)));
        assert!(!memory.has_settled(id(300, 0)) && !memory.has_settled(id(100, 0)));
        assert_eq!(memory.highest(), Position(300));
        memory.advance(Position(300));
        assert_eq!(memory.settled, [(300, 1)].into());
        memory.advance(Position(200));
        assert_eq!(memory.next, 300, "it never goes back");
    }

    #[test]
    fn a_file_reads_back_as_written_and_one_that_is_damaged_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let file = MemoryFile::new(directory.path(), "main", "logs");
        assert_eq!(file.read(), Recalled::Nothing);
        let memory = Memory {
            trail: "arn".into(),
            introduced_to: Some("topic".into()),
            next: 4096,
            settled: [(5000, 0)].into(),
            delivered: 7,
            dead_lettered: [("too_large".to_owned(), 1)].into(),
            earlier: [(
                "other".to_owned(),
                Left {
                    since: 70,
                    selection: "all".to_owned(),
                },
            )]
            .into(),
            replay: Some(Replayed {
                number: 2,
                modified: 1_767_323_045_000_000_001,
                settled: [(4000, 1)].into(),
                ..Replayed::default()
            }),
        };
        file.write(&memory).unwrap();
        assert_eq!(file.read(), Recalled::Memory(memory));
        let sound = std::fs::read(&file.path).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            std::fs::write(&file.path, damaged).unwrap();
            assert_eq!(file.read(), Recalled::Damaged, "byte {at}");
        }
        std::fs::write(&file.path, b"").unwrap();
        assert_eq!(file.read(), Recalled::Damaged);
    }
}
