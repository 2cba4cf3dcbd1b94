//! The delivery ledger: what was sealed, and what became of it. The second log, typed.
//!
//! A batch is written here as [`Entry::Sealed`] before its upload is tried, with its key and the exact journal positions in it, and as
//! [`Entry::Settled`] when its object is known to be in the bucket. A restart therefore finds every upload either unstarted,
//! in doubt or done, and repeats the ones in doubt to the same key with the same bytes.
//!
//! An entry is a line of JSON. Entries of one trail are written by one task, in order, and those that are written together
//! share one frame: it is there whole or not at all. A power loss can keep the end of an unfinished write and drop its middle; with a frame
//! for each entry, a batch could be missing that a later entry has passed over, and its events would be lost.
//!
//! Within a stream (account, region,
//! folder) batches take their events in journal order, so "sealed through position P" says of each event of the stream whether
//! a batch has it; that, and the batches not yet settled, is all that a trail must remember. [`Entry::Checkpoint`] writes it
//! down again at the head of the log, so that older segments can go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::batch::Positions;
use crate::clock::WallMillis;
use crate::event::{AccountId, Folder, Region};
use crate::trail::Stream;
use crate::wal::{Position, ReadError, Wal};

/// One line of the ledger. The names are stable: they are written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// Intent: this batch will become the object `key`.
    Sealed(SealedBatch),
    /// The same, said again after a checkpoint because it is not settled yet.
    Carried(SealedBatch),
    /// Outcome: the object is in the bucket.
    Settled(Settled),
    /// What a trail remembers, instead of all entries before.
    Checkpoint(Checkpoint),
    /// The trail was deleted, and everything it recorded is delivered: nothing of it is remembered.
    Forgotten { trail: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBatch {
    /// The trail's ARN.
    pub trail: String,
    #[serde(flatten)]
    pub stream: StreamName,
    #[serde(with = "position")]
    pub first: Position,
    #[serde(with = "positions")]
    pub positions: Positions,
    pub json_bytes: u64,
    pub bucket: String,
    pub key: String,
    /// When it was sealed, milliseconds since 1970.
    #[serde(with = "millis")]
    pub sealed_at: WallMillis,
    /// Acceptance of its oldest event, milliseconds since 1970.
    #[serde(with = "millis")]
    pub oldest_accepted_at: WallMillis,
    /// Above zero when an earlier key was taken by something else.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    pub trail: String,
    #[serde(flatten)]
    pub stream: StreamName,
    #[serde(with = "position")]
    pub first: Position,
    /// Nothing when none of the batch's events could be read back.
    pub object: Option<Object>,
    /// Events of the batch that the journal could not give back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u32,
    /// Milliseconds since 1970.
    #[serde(with = "millis")]
    pub settled_at: WallMillis,
}

/// A delivered log file, with what a digest says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub bucket: String,
    pub key: String,
    /// Lower-case hex of the SHA-256 of the uncompressed bytes.
    pub sha256: String,
    pub etag: Option<String>,
    /// Bytes of the object, compressed.
    pub bytes: u64,
    pub events: u32,
    /// Seconds since 1970.
    pub oldest_event_time: i64,
    pub newest_event_time: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub trail: String,
    /// Every event before it is settled or was not selected.
    #[serde(with = "position")]
    pub horizon: Position,
    pub sealed_through: Vec<SealedThrough>,
    pub totals: Totals,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedThrough {
    #[serde(flatten)]
    pub stream: StreamName,
    #[serde(with = "position")]
    pub position: Position,
}

/// What a trail has delivered to S3 since it was first started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub events: u64,
    pub objects: u64,
    pub object_bytes: u64,
    pub lost: u64,
}

impl Totals {
    /// They only tell: one that cannot go on is no reason not to start.
    fn add(&mut self, settled: &Settled) {
        let add = |total: &mut u64, more: u64| *total = total.saturating_add(more);
        add(&mut self.lost, settled.lost.into());
        if let Some(object) = &settled.object {
            add(&mut self.events, object.events.into());
            add(&mut self.objects, 1);
            add(&mut self.object_bytes, object.bytes);
        }
    }
}

/// A [`Stream`] as the ledger spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(pub Stream);

#[derive(Serialize, Deserialize)]
struct StreamFields<'a> {
    #[serde(borrow)]
    account: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    region: std::borrow::Cow<'a, str>,
    folder: u8,
}

impl Serialize for StreamName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Stream {
            account,
            region,
            folder,
        } = &self.0;
        let fields = StreamFields {
            account: account.as_str().into(),
            region: region.as_str().into(),
            folder: *folder as u8,
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = StreamFields::deserialize(deserializer)?;
        let account: AccountId = fields.account.parse().map_err(serde::de::Error::custom)?;
        let region: Region = fields.region.parse().map_err(serde::de::Error::custom)?;
        let folder = Folder::from_number(fields.folder)
            .ok_or_else(|| serde::de::Error::custom("unknown folder"))?;
        Ok(Self(Stream {
            account,
            region,
            folder,
        }))
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

mod position {
    use super::*;

    pub fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        position.0.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        u64::deserialize(deserializer).map(Position)
    }
}

mod positions {
    use super::*;

    pub fn serialize<S: Serializer>(
        positions: &Positions,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        BASE64.encode(positions.as_bytes()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Positions, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        Positions::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

mod millis {
    use super::*;

    pub fn serialize<S: Serializer>(when: &WallMillis, serializer: S) -> Result<S::Ok, S::Error> {
        when.0.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WallMillis, D::Error> {
        i64::deserialize(deserializer).map(WallMillis)
    }
}

/// Takes as many entries as one frame should hold, about 8 MiB, and one at least.
pub fn take_frame(outbox: &mut VecDeque<Entry>) -> Vec<Entry> {
    const LIMIT: usize = 8 << 20;
    let mut bytes = 0;
    let parted = outbox.iter().position(|entry| {
        bytes += match entry {
            Entry::Sealed(batch) | Entry::Carried(batch) => batch.weight(),
            Entry::Settled(_) | Entry::Forgotten { .. } => 1024,
            Entry::Checkpoint(checkpoint) => 100 * checkpoint.sealed_through.len() + 512,
        };
        bytes > LIMIT
    });
    let count = parted.map_or(outbox.len(), |first_left| first_left.max(1));
    outbox.drain(..count).collect()
}

/// The frame that holds these entries, a line each.
pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut frame = Vec::new();
    for entry in entries {
        serde_json::to_writer(&mut frame, entry)
            .expect("ledger entry: strings and numbers always serialise");
        frame.push(b'\n');
    }
    frame
}

/// The entries of a frame.
pub fn decode(frame: &[u8]) -> impl Iterator<Item = Result<Entry, serde_json::Error>> + '_ {
    let lines = frame
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice)
}

/// The log files of one trail that a frame says were delivered, in order, each with its place among the frame's entries. Other
/// lines are passed over, also those that are no entry: the replay tells of them.
pub fn settled<'a>(frame: &'a [u8], trail: &'a str) -> impl Iterator<Item = (u32, Settled)> + 'a {
    /// What the line of a [`Settled`] begins with. The other kinds can be long and are of no interest here.
    const SETTLED: &[u8] = br#"{"entry":"settled""#;
    let lines = frame.split(|byte| *byte == b'\n');
    let lines = (0..).zip(lines.filter(|line| !line.is_empty()));
    lines.filter_map(move |(index, line)| {
        if !line.starts_with(SETTLED) {
            return None;
        }
        match serde_json::from_slice(line) {
            Ok(Entry::Settled(settled)) if settled.trail == trail => Some((index, settled)),
            _ => None,
        }
    })
}

impl Entry {
    /// The ARN of the trail it speaks of.
    pub fn trail(&self) -> &str {
        match self {
            Self::Sealed(sealed) | Self::Carried(sealed) => &sealed.trail,
            Self::Settled(settled) => &settled.trail,
            Self::Checkpoint(checkpoint) => &checkpoint.trail,
            Self::Forgotten { trail } => trail,
        }
    }
}

/// What tells the batches of one trail apart: no event is in two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId {
    pub first: Position,
    pub stream: Stream,
}

impl SealedBatch {
    /// About as many bytes as it holds in memory: its list of positions, its key and bookkeeping.
    pub fn weight(&self) -> usize {
        self.positions.as_bytes().len() + 512
    }

    pub fn id(&self) -> BatchId {
        BatchId {
            first: self.first,
            stream: self.stream.0,
        }
    }
}

impl Settled {
    pub fn id(&self) -> BatchId {
        BatchId {
            first: self.first,
            stream: self.stream.0,
        }
    }
}

/// What one trail remembers: the ledger, replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrailState {
    /// Sealed and not settled, the oldest first.
    pub pending: BTreeMap<BatchId, SealedBatch>,
    /// The highest position of each stream that is in a batch.
    pub sealed_through: HashMap<Stream, Position>,
    /// Nothing before it is wanted any more.
    pub horizon: Position,
    pub totals: Totals,
}

impl TrailState {
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Sealed(sealed) | Entry::Carried(sealed) => {
                let through = self.sealed_through.entry(sealed.stream.0).or_default();
                *through = (*through).max(sealed.positions.last());
                self.pending.insert(sealed.id(), sealed);
            }
            Entry::Settled(settled) => {
                self.pending.remove(&settled.id());
                self.totals.add(&settled);
            }
            Entry::Checkpoint(checkpoint) => {
                self.horizon = self.horizon.max(checkpoint.horizon);
                self.totals = checkpoint.totals;
                for SealedThrough { stream, position } in checkpoint.sealed_through {
                    let through = self.sealed_through.entry(stream.0).or_default();
                    *through = (*through).max(position);
                }
            }
            Entry::Forgotten { .. } => *self = Self::default(),
        }
    }

    /// Whether a batch has the event of `stream` at `position`.
    pub fn has_sealed(&self, stream: &Stream, position: Position) -> bool {
        self.sealed_through
            .get(stream)
            .is_some_and(|through| position <= *through)
    }

    /// The entries that say all of this again, for the head of the log. They add up, so they need not stand in one frame.
    /// Streams that end before the horizon are left out: no event of theirs will be asked for.
    pub fn checkpoint(&mut self, trail: &str, horizon: Position) -> Vec<Entry> {
        /// A hundred bytes each, far below what a frame takes.
        const STREAMS_AN_ENTRY: usize = 10_000;
        self.horizon = self.horizon.max(horizon);
        self.sealed_through.retain(|_, through| *through >= horizon);
        let mut sealed_through: Vec<_> = self
            .sealed_through
            .iter()
            .map(|(stream, position)| SealedThrough {
                stream: StreamName(*stream),
                position: *position,
            })
            .collect();
        sealed_through.sort_by_key(|entry| entry.position);
        let part = |sealed_through: &[SealedThrough]| {
            Entry::Checkpoint(Checkpoint {
                trail: trail.to_owned(),
                horizon: self.horizon,
                sealed_through: sealed_through.to_vec(),
                totals: self.totals,
            })
        };
        let mut entries = vec![part(&[])];
        entries.extend(sealed_through.chunks(STREAMS_AN_ENTRY).map(part));
        entries.extend(self.pending.values().cloned().map(Entry::Carried));
        entries
    }
}

/// Every trail's state, by ARN.
#[derive(Debug, Default)]
pub struct Replay {
    trails: HashMap<String, TrailState>,
    undecodable: u64,
    highest: Position,
}

impl Replay {
    /// Reads an open ledger from its beginning. Blocking.
    pub fn of(ledger: &Wal) -> Result<Self, ReadError> {
        const CHUNK_BYTES: usize = 1 << 20;
        let mut replay = Self::default();
        let mut reader = ledger.reader();
        let (mut next, end) = (ledger.start(), ledger.durable());
        while next < end {
            let chunk = reader.read(next, CHUNK_BYTES)?;
            for (position, frame) in chunk.iter() {
                replay.take(position, frame);
            }
            next = chunk.next;
        }
        Ok(replay)
    }

    /// Takes the next frame of the ledger. A line that is no entry is counted and passed over: its frame was whole, so it was
    /// written by something else.
    pub fn take(&mut self, position: Position, frame: &[u8]) {
        for entry in decode(frame) {
            match entry {
                Ok(entry) => self.apply(entry),
                Err(error) => {
                    tracing::error!(position = position.0, %error, "ledger entry cannot be read, passed over");
                    self.undecodable += 1;
                }
            }
        }
    }

    fn apply(&mut self, entry: Entry) {
        let highest = match &entry {
            Entry::Sealed(sealed) | Entry::Carried(sealed) => sealed.positions.last(),
            Entry::Settled(_) | Entry::Forgotten { .. } => Position(0),
            Entry::Checkpoint(checkpoint) => {
                let through = checkpoint
                    .sealed_through
                    .iter()
                    .map(|through| through.position);
                through.fold(checkpoint.horizon, Position::max)
            }
        };
        self.highest = self.highest.max(highest);
        if let Entry::Forgotten { trail } = &entry {
            self.trails.remove(trail);
            return;
        }
        self.trails
            .entry(entry.trail().to_owned())
            .or_default()
            .apply(entry);
    }

    /// The state of a trail, taken out; nothing for one that the ledger does not know.
    pub fn remove(&mut self, arn: &str) -> Option<TrailState> {
        self.trails.remove(arn)
    }

    /// What is left: trails that nobody asked for.
    pub fn rest(self) -> impl Iterator<Item = (String, TrailState)> {
        self.trails.into_iter()
    }

    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// The highest journal position any entry speaks of. The journal must never use it or one before it again, even when
    /// it has lost its tail.
    pub fn highest_position(&self) -> Position {
        self.highest
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stream {
            account,
            region,
            folder,
        } = &self.stream;
        write!(f, "{account}/{}/{region}@{}", folder.as_str(), self.first.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batches, Limits};
    use crate::trail::tests::event;
    use std::time::Duration;

    fn sealed(region: &str, at: &[u64]) -> SealedBatch {
        let stream = Stream::from(&event("111122223333", region));
        let limits = Limits {
            max_age: Duration::ZERO,
            max_bytes: 1 << 20,
        };
        let mut batches = Batches::new(limits);
        for position in at {
            batches.push(stream, Position(*position), 10, Duration::ZERO);
        }
        let batch = batches.seal_oldest().unwrap();
        SealedBatch {
            trail: "arn:aws:cloudtrail:us-east-1:111122223333:trail/main".into(),
            stream: StreamName(stream),
            first: batch.first,
            positions: batch.positions,
            json_bytes: batch.json_bytes,
            bucket: "audit-logs".into(),
            key: format!("AWSLogs/{region}/{}", at[0]),
            sealed_at: WallMillis(5),
            oldest_accepted_at: WallMillis(4),
            attempt: 0,
        }
    }

    fn settled(sealed: &SealedBatch) -> Settled {
        Settled {
            trail: sealed.trail.clone(),
            stream: sealed.stream,
            first: sealed.first,
            object: Some(Object {
                bucket: sealed.bucket.clone(),
                key: sealed.key.clone(),
                sha256: "00".into(),
                etag: Some("\"e\"".into()),
                bytes: 100,
                events: sealed.positions.len(),
                oldest_event_time: 1,
                newest_event_time: 2,
            }),
            lost: 0,
            settled_at: WallMillis(9),
        }
    }

    #[test]
    fn entries_read_back_as_written() {
        let batch = sealed("us-east-1", &[64, 1500, 90_000]);
        let mut state = TrailState::default();
        state.apply(Entry::Sealed(batch.clone()));
        let mut entries = state.checkpoint("arn", Position(0));
        entries.push(Entry::Settled(settled(&batch)));
        entries.push(Entry::Sealed(SealedBatch {
            attempt: 3,
            ..batch
        }));
        let read: Vec<_> = decode(&encode(&entries)).map(Result::unwrap).collect();
        assert_eq!(read, entries);
    }

    #[test]
    fn the_form_on_disk_does_not_change() {
        let entry = Entry::Sealed(sealed("us-east-1", &[64, 1500]));
        let expected = concat!(
            r#"{"entry":"sealed","trail":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","account":"111122223333","#,
            r#""region":"us-east-1","folder":0,"first":64,"positions":"QJwL","json_bytes":22,"bucket":"audit-logs","#,
            r#""key":"AWSLogs/us-east-1/64","sealed_at":5,"oldest_accepted_at":4}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(encode(&[entry])).unwrap(), expected);
    }

    #[test]
    fn a_restart_finds_batches_pending_until_they_are_settled() {
        let (one, two) = (sealed("us-east-1", &[64, 300]), sealed("eu-west-1", &[200]));
        let mut state = TrailState::default();
        state.apply(Entry::Sealed(one.clone()));
        state.apply(Entry::Sealed(two.clone()));
        state.apply(Entry::Settled(settled(&one)));
        assert_eq!(state.pending.values().collect::<Vec<_>>(), [&two]);
        assert_eq!(
            state.totals,
            Totals {
                events: 2,
                objects: 1,
                object_bytes: 100,
                lost: 0
            }
        );
        assert!(state.has_sealed(&one.stream.0, Position(300)));
        assert!(!state.has_sealed(&one.stream.0, Position(301)));
        assert!(!state.has_sealed(&two.stream.0, Position(300)));
    }

    #[test]
    fn a_checkpoint_says_all_that_entries_before_it_said() {
        let mut state = TrailState::default();
        for entry in [
            Entry::Sealed(sealed("us-east-1", &[64, 300])),
            Entry::Settled(settled(&sealed("us-east-1", &[64, 300]))),
            Entry::Sealed(sealed("eu-west-1", &[400])),
        ] {
            state.apply(entry);
        }
        let mut replayed = TrailState::default();
        for entry in state.checkpoint("arn", Position(350)) {
            replayed.apply(entry);
        }
        assert_eq!(replayed, state);
        assert_eq!(
            replayed.sealed_through.len(),
            1,
            "a stream that ends before the horizon is forgotten"
        );
    }

    #[test]
    fn a_batch_sealed_again_under_another_key_replaces_itself() {
        let one = sealed("us-east-1", &[64]);
        let again = SealedBatch {
            key: "other".into(),
            attempt: 1,
            ..one.clone()
        };
        let mut state = TrailState::default();
        state.apply(Entry::Sealed(one));
        state.apply(Entry::Sealed(again.clone()));
        assert_eq!(state.pending.values().collect::<Vec<_>>(), [&again]);
    }
}
