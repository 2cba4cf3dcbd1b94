//! An ordered, checksummed, segmented log of bytes with positions. (Format prose to be written here.)

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

mod disk;
pub use disk::{Disk, RealDisk};

/// Where a frame starts, in bytes since the log's beginning. Positions only grow, are never used twice, and survive trimming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

#[derive(Debug, Clone)]
pub struct Options {
    pub directory: PathBuf,
    pub segment_bytes: u64,
    /// All segments together; reaching it answers `AppendError::Full`.
    pub max_bytes: u64,
    /// Free bytes of the file system below which appends are answered `AppendError::DiskFull`; 0 for a log that must go on (the ledger).
    pub disk_reserve: DiskReserve,
    /// Bytes that may wait for the owner thread.
    pub queue_bytes: usize,
}

/// See `Options::disk_reserve`.
#[derive(Debug, Clone, Copy)]
pub enum DiskReserve {
    None,
    Bytes(u64),
}

/// Payloads to append together, each with room for its frame header.
#[derive(Debug, Default)]
pub struct Batch {}

impl Batch {
    pub fn new() -> Self {
        todo!()
    }
    /// Appends one payload, written by `write` into the buffer it is given.
    pub fn push_with(&mut self, _write: impl FnOnce(&mut Vec<u8>)) {
        todo!()
    }
    pub fn push(&mut self, payload: &[u8]) {
        self.push_with(|out| out.extend_from_slice(payload))
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// Payloads in it.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Bytes it takes in the log, headers included.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("log is full: {used} of {capacity} bytes used, {asked} asked")]
    Full {
        used: u64,
        capacity: u64,
        asked: u64,
    },
    #[error("disk is full: {free} bytes free, {reserve} kept in reserve")]
    DiskFull { free: u64, reserve: u64 },
    #[error("log has failed and takes nothing more: {reason}")]
    Failed { reason: String },
    #[error("log is closed")]
    Closed,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct Recovery {/* torn bytes, quarantined ranges, segments, frames, … */}

/// A handle on an open log. Clones share it.
#[derive(Clone)]
pub struct Wal {}

impl Wal {
    /// Opens or creates the log: cuts a torn tail, quarantines damage, always starts. `each` sees every frame that is left, in order.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _options: Options,
        _metrics: Metrics,
        _each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(Self, Recovery), OpenError> {
        todo!()
    }

    /// Waits for room in the queue; refuses at once when the log or disk is full, failed or closed.
    pub async fn reserve(&self, _bytes: usize) -> Result<Permit, AppendError> {
        todo!()
    }

    /// The end of what is durable: every frame before it survives a power loss.
    pub fn durable(&self) -> Position {
        todo!()
    }
    pub fn watch_durable(&self) -> tokio::sync::watch::Receiver<Position> {
        todo!()
    }
    /// Resolves when all that was enqueued before the call is durable.
    pub async fn barrier(&self) -> Result<(), AppendError> {
        todo!()
    }
    /// The first position still held.
    pub fn start(&self) -> Position {
        todo!()
    }
    pub fn bytes(&self) -> u64 {
        todo!()
    }
    /// Why it takes nothing more, when an fsync has failed.
    pub fn failure(&self) -> Option<String> {
        todo!()
    }
    /// Resolves when the log fails (see `failure`); pends for ever otherwise.
    pub async fn failed(&self) -> String {
        todo!()
    }

    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Whole closed segments that end at or before `below`, oldest first.
    pub fn trimmable(&self, _below: Position) -> Vec<Range<Position>> {
        todo!()
    }
    /// Deletes the oldest segment, which must be `segment`.
    pub fn remove_oldest(&self, _segment: Range<Position>) -> std::io::Result<()> {
        todo!()
    }
    /// Starts a new segment with the next append (so that what is before can be trimmed).
    pub fn roll(&self) {
        todo!()
    }

    /// Writes and syncs what is queued, then stops the owner thread.
    pub fn close(&self) {
        todo!()
    }
}

/// Room in the queue. Dropped unused, it gives the room back.
pub struct Permit {}
impl Permit {
    /// Enqueues, in the order of these calls; the future resolves when durable, with the range of positions it took.
    /// The order holds even when the future is dropped.
    pub fn append(self, _batch: Batch) -> Appending {
        todo!()
    }
}
pub struct Appending {}
impl std::future::Future for Appending {
    type Output = Result<Range<Position>, AppendError>;
    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        todo!()
    }
}

/// Reads what is durable. Blocking file I/O: use it off the async threads. Cheap to make; each keeps its own open files.
pub struct Reader {}

/// Frames read in one go, one contiguous buffer.
pub struct Chunk {
    pub next: Position,
}
impl Chunk {
    pub fn iter(&self) -> impl Iterator<Item = (Position, &[u8])> {
        std::iter::empty()
    }
}

impl Reader {
    /// Whole frames from `from` (a frame's start, or any position in a gap) to the durable end, about `budget` bytes of them and at
    /// least one. Damage met on the way is skipped, counted and named in the log.
    pub fn read(&mut self, _from: Position, _budget: usize) -> Result<Chunk, ReadError> {
        todo!()
    }
    /// The frames at exactly these ascending positions, neighbours read together. A damaged or missing one is given as `Err`.
    pub fn read_each(
        &mut self,
        _positions: &mut dyn Iterator<Item = Position>,
        _each: &mut dyn FnMut(Position, Result<&[u8], FrameError>),
    ) -> Result<(), ReadError> {
        todo!()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read segment {segment}")]
    Io {
        segment: u64,
        #[source]
        source: std::io::Error,
    },
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is damaged")]
    Damaged,
    #[error("the frame is not in the log any more")]
    Missing,
}
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// The log's own series; `Default` makes unregistered ones for tests.
#[derive(Debug, Clone, Default)]
pub struct Metrics {/* bytes gauge, fsync histogram, append histogram, quarantined counter */}
