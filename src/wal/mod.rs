//! An ordered, checksummed, segmented log of bytes with positions.
//!
//! What was acknowledged survives `kill -9` and power loss, in order, once. Positions only grow and are never used twice.
//! Opening always starts: a torn tail is cut, damage is set aside, counted and stepped over (see `recovery`).
//!
//! # Format, version 1
//!
//! A log is a directory of segments, `<base position, 20 digits>.wal`, and perhaps `quarantine/` with copies of damaged ranges,
//! `<base, 20 digits>-<offset>-<bytes>`. A position is a byte's distance from the beginning of the log: the base of its segment
//! plus the offset in its file. All integers are little-endian.
//!
//! ```text
//! 0       header        [8] "TRAILWAL"
//!                       u8  version, 1
//!                       [3] zero
//!                       u32 CRC-32 of the header with this field zero
//!                       u64 base: the position of the segment's first byte
//!                       u64 end of the frames before this segment, 0 when there were none
//!                       [8] salt, random
//! 40      zeroes
//! 4096    the header again
//! 4136    frames, to the end of the file, each:
//!         [4] magic, F4 'T' 'F' FF
//!         u32 payload length, at most 64 MiB
//!         u32 CRC-32 of salt, position of the frame (u64) and payload length (u32)
//!         u32 CRC-32 of salt, position, payload length and payload
//!         payload
//! ```
//!
//! Salt and position are in the sums so that a frame that is stale, was moved, or was written by someone into a payload is
//! never taken for one. CRC-32 is the one of gzip. `tests/golden/` holds a log in this format.
//!
//! # Threads
//!
//! One owner thread writes (`writer` around `log`); any number of handles enqueue; readers read files on their callers' threads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Serialize;

mod frame;
mod segment;

mod disk;
mod log;
mod reader;
mod recovery;
mod writer;

mod dump;
mod inspect;
mod lock;

pub use disk::{Access, Disk, DiskFile, RealDisk};
pub use dump::dump;
pub use frame::{Batch, FRAME_HEADER_BYTES, MAX_PAYLOAD_BYTES, Reason};
pub use inspect::{Inspection, Quarantined, SegmentReport, inspect};
pub use lock::{DirLock, LockError};
pub use reader::{Chunk, EachFrame, Reader};
pub use writer::{Admitted, Appending, Permit};

#[cfg(test)]
pub use writer::Moves;
use writer::{Parts, Shared};

/// Where a frame starts, in bytes since the log's beginning. Positions only grow, are never used twice, and survive trimming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Position(pub u64);

#[derive(Debug, Clone)]
pub struct Options {
    pub directory: PathBuf,
    /// A segment takes no further batch beyond this; a single batch may be larger.
    pub segment_bytes: u64,
    /// All segments together; reaching it answers `AppendError::Full`.
    pub max_bytes: u64,
    /// Free bytes of the file system below which appends are answered `AppendError::DiskFull`.
    pub disk_reserve: DiskReserve,
    /// Bytes that may wait for the owner thread.
    pub queue_bytes: usize,
}

/// See `Options::disk_reserve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskReserve {
    /// For a log that must go on to the last byte (the ledger).
    None,
    Bytes(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("log is full: {used} of {capacity} bytes used, {asked} asked")]
    Full {
        used: u64,
        capacity: u64,
        asked: u64,
    },
    #[error("batch of {asked} bytes can never fit into a log of {capacity} bytes")]
    NeverFits { asked: u64, capacity: u64 },
    #[error("disk is full: {free} bytes free, {reserve} kept in reserve")]
    DiskFull { free: u64, reserve: u64 },
    #[error("payload of {bytes} bytes is longer than the {limit} a log takes")]
    TooLarge { bytes: usize, limit: usize },
    #[error("log has failed and takes nothing more: {reason}")]
    Failed { reason: String },
    #[error("log is closed")]
    Closed,
}

/// What opening found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovery {
    /// Segments kept.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    /// Bytes behind the last good frame, from a write that was never acknowledged.
    pub torn_bytes: u64,
    /// Those of them that were more than zeroes, and are in quarantine.
    pub torn_bytes_quarantined: u64,
    /// Ranges that are damaged elsewhere.
    pub damaged_ranges: u64,
    pub damaged_bytes: u64,
    /// Bytes that later segments say were there, and are not.
    pub missing_bytes: u64,
    /// Files that are not the log's.
    pub foreign_files: u64,
    /// The damaged and missing ranges; the first thousand of them.
    pub damage: Vec<Damage>,
}

/// A damaged range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The base of the segment, which names its file.
    pub segment: Position,
    /// Where in the file.
    pub offset: u64,
    pub bytes: u64,
    pub reason: Reason,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{path} is in format version {version}, this program knows up to {known}: use the newer program"
    )]
    Newer {
        path: PathBuf,
        version: u8,
        known: u8,
    },
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

/// A handle on an open log. Clones share it; the last one to go closes it.
#[derive(Debug, Clone)]
pub struct Wal {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    #[cfg(test)]
    simulated: Option<writer::Simulated>,
}

impl Wal {
    /// Opens or creates the log: cuts a torn tail, quarantines damage, always starts. `each` sees every frame that is left, in order.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        metrics: Metrics,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(Self, Recovery), OpenError> {
        Self::open_beyond(disk, options, metrics, Position(0), each)
    }

    /// Like `open`; new frames also go beyond `at_least`, a position that the caller remembers from elsewhere. So even when
    /// the log's own files were lost, no position is used for a second frame.
    pub fn open_beyond(
        disk: Arc<dyn Disk>,
        options: Options,
        metrics: Metrics,
        at_least: Position,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> Result<(Self, Recovery), OpenError> {
        let Options {
            directory,
            segment_bytes,
            max_bytes,
            disk_reserve,
            queue_bytes,
        } = options;
        let recovered = recovery::recover(&*disk, &directory, at_least, each)?;
        let report = recovered.report;
        metrics
            .quarantined_bytes
            .inc_by(report.damaged_bytes + report.torn_bytes_quarantined);
        let known_damage: BTreeMap<u64, u64> = report
            .damage
            .iter()
            .filter(|damage| damage.reason != Reason::Missing)
            .map(|damage| {
                let start = damage.segment.0 + damage.offset;
                (start, start + damage.bytes)
            })
            .collect();
        let log = log::Log::new(
            Arc::clone(&disk),
            directory.clone(),
            segment_bytes,
            recovered.next_base,
            recovered.end,
        );
        let shared = Arc::new(Shared::new(Parts {
            disk,
            directory: directory.clone(),
            max_bytes,
            disk_reserve,
            queue_bytes,
            metrics,
            segments: recovered.segments,
            known_damage,
            durable: Position(recovered.next_base),
        }));
        shared.count_bytes();
        #[cfg(test)]
        if crate::simulation::is_on() {
            let simulated = Some(writer::Simulated::start(&shared, log));
            let owner = Owner {
                shared,
                thread: Mutex::new(None),
                simulated,
            };
            let wal = Self {
                owner: Arc::new(owner),
            };
            return Ok((wal, report));
        }
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wal".to_owned())
            .spawn(move || writer::run(&for_thread, log))
            .map_err(|source| OpenError::Io {
                path: directory,
                source,
            })?;
        let owner = Owner {
            shared,
            thread: Mutex::new(Some(thread)),
            #[cfg(test)]
            simulated: None,
        };
        let wal = Self {
            owner: Arc::new(owner),
        };
        Ok((wal, report))
    }

    /// Waits for room in the queue; refuses at once when the log or disk is full, failed or closed.
    ///
    /// `bytes` are the batch's, headers included. More than the queue holds waits until the queue is empty.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit, AppendError> {
        self.admit(bytes)?.permit(bytes).await
    }

    /// The first half of [`Wal::reserve`], for what is written later: counts the bytes in without a place in the queue, where it would be in the
    /// way of others.
    pub fn admit(&self, bytes: usize) -> Result<Admitted, AppendError> {
        let admitted = self.owner.shared.admit(bytes as u64);
        if let Err(AppendError::Full { .. }) = admitted {
            // Lets what is in the newest segment be trimmed as well: it may be all that is in the way. Refusals that follow change
            // nothing, as the newest is empty by then.
            self.owner.shared.roll_unless_empty();
        }
        admitted
    }

    /// The end of what is durable: every frame before it survives a power loss.
    pub fn durable(&self) -> Position {
        *self.owner.shared.durable.borrow()
    }

    #[cfg(test)]
    pub fn moves(&self) -> Moves {
        Moves::of(&self.owner.shared)
    }

    pub fn watch_durable(&self) -> tokio::sync::watch::Receiver<Position> {
        self.owner.shared.durable.subscribe()
    }

    /// Resolves when all that was enqueued before the call is durable or refused.
    pub async fn barrier(&self) -> Result<(), AppendError> {
        self.owner.shared.barrier().await.map(|_| ())
    }

    /// The first position still held.
    pub fn start(&self) -> Position {
        let first = writer::lock(&self.owner.shared.segments)
            .first()
            .map(|segment| segment.base);
        first.map_or_else(|| self.durable(), Position)
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.owner.shared.bytes()
    }

    /// Why `reserve` would refuse the smallest batch now.
    pub fn obstacle(&self) -> Option<AppendError> {
        self.owner.shared.obstacle()
    }

    /// Why it takes nothing more, when an fsync or a write has failed.
    pub fn failure(&self) -> Option<String> {
        self.owner.shared.failure.borrow().clone()
    }

    /// Resolves when the log fails (see `failure`); pends for ever otherwise.
    pub async fn failed(&self) -> String {
        let mut failure = self.owner.shared.failure.subscribe();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// When the owner thread last went round: at most half a second ago, unless it is in the middle of a write or sync.
    pub fn last_heartbeat(&self) -> Instant {
        self.owner.shared.last_heartbeat()
    }

    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.owner.shared))
    }

    /// Whole closed segments that end at or before `below`, oldest first. Never the newest, which remembers where positions
    /// go on: `roll` makes it an older one.
    pub fn trimmable(&self, below: Position) -> Vec<Range<Position>> {
        let segments = writer::lock(&self.owner.shared.segments);
        let closed = segments.len().saturating_sub(1);
        segments[..closed]
            .iter()
            .take_while(|segment| segment.end() <= below.0)
            .map(|segment| Position(segment.base)..Position(segment.end()))
            .collect()
    }

    /// Deletes the oldest segment, which must be `segment`. When the file cannot be removed, the segment stays in the log.
    pub fn remove_oldest(&self, segment: Range<Position>) -> std::io::Result<()> {
        let shared = &self.owner.shared;
        let removed = {
            let mut segments = writer::lock(&shared.segments);
            let is_oldest = segments.len() > 1 && segments[0].base == segment.start.0;
            if !is_oldest {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidInput,
                    format!("{} is not the oldest closed segment", segment.start.0),
                ));
            }
            // Readers let go of it before the file does.
            segments.remove(0)
        };
        let path = shared.directory.join(segment::name(removed.base));
        match shared.disk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                writer::lock(&shared.segments).insert(0, removed);
                return Err(error);
            }
            _ => {}
        }
        shared.count_bytes();
        shared.disk.sync_directory(&shared.directory)
    }

    /// Starts a new segment soon, unless the newest is empty, so that what is before can be trimmed.
    pub fn roll(&self) {
        self.owner.shared.roll();
    }

    /// Writes and syncs what is queued, then stops the owner thread. Blocks until then.
    pub fn close(&self) {
        self.owner.close();
    }
}

impl Owner {
    fn close(&self) {
        self.shared.close();
        #[cfg(test)]
        if let Some(owner) = &self.simulated {
            owner.close(&self.shared);
        }
        let Some(thread) = writer::lock(&self.thread).take() else {
            return;
        };
        // The owner thread itself may drop the last handle, with a waiter that held it.
        if thread.thread().id() != std::thread::current().id() {
            // A panic in it has been told by then, as the log's failure.
            let _ = thread.join();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

/// The log's own series; `Default` makes unregistered ones, for the ledger and for tests.
#[derive(Debug, Clone)]
pub struct Metrics {
    bytes: Gauge,
    fsync_seconds: Histogram,
    append_seconds: Histogram,
    quarantined_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // 50 µs to about 13 s.
        let buckets = || exponential_buckets(50e-6, 2.0, 19);
        Self {
            bytes: Gauge::default(),
            fsync_seconds: Histogram::new(buckets()),
            append_seconds: Histogram::new(buckets()),
            quarantined_bytes: Counter::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            bytes,
            fsync_seconds,
            append_seconds,
            quarantined_bytes,
        } = self;
        registry.register(
            "traild_journal_bytes",
            "Bytes of the journal on disk",
            bytes.clone(),
        );
        registry.register(
            "traild_journal_fsync_seconds",
            "Time of each fdatasync of the journal",
            fsync_seconds.clone(),
        );
        registry.register(
            "traild_append_seconds",
            "Time from enqueueing a batch of events to its being durable",
            append_seconds.clone(),
        );
        registry.register(
            "traild_journal_quarantined_bytes",
            "Damaged bytes found in the journal",
            quarantined_bytes.clone(),
        );
    }
}

#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod tests;
