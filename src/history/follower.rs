//! Follows the journal into the files of history: one thread, of the lowest priority, that may fall behind.
//!
//! ```text
//! journal ── chunk ──► gathered, at most GATHERED_BYTES or AT_LEAST_EVERY ── one transaction a file ──► visible
//!                                              every SYNC_EVERY: files on the disk ──► place ──► the journal may go
//! ```
//!
//! # Each event once
//!
//! A file tells which span of the journal it has of its day, in the transaction of its events. After a crash the journal is read again from the place, which
//! is behind all that is certainly on the disk; an event that falls in a span of its day is there already. So neither a killed process nor a power loss
//! loses an event or has it twice; and when a file is lost, the journal is read again as far as it goes, and what falls in no span is added.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Bounds;
use super::feed::{Feed, Happened};
use super::files::{Files, WriteError};
use super::metrics::Metrics;
use super::part::Given;
use super::store::Store;
use crate::clock::WallMillis;
use crate::event::{Category, Record};
use crate::pump::TailError;
use crate::snapshot;
use crate::telemetry::chain;
use crate::wal::{Chunk, Position, Wal};

/// Of chunks whose events wait to be written.
const GATHERED_BYTES: usize = 8 << 20;
/// An event waits no longer than this, while the disk keeps up.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);
/// How often what was written is brought to the disk for certain.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often it looks for what has expired, and for files at rest.
const TIDY_EVERY: Duration = Duration::from_secs(10);
/// And no more often than this, however small the journal is.
const SYNC_AT_MOST_EVERY: Duration = Duration::from_millis(100);
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// By event time.
    pub retention: Duration,
    pub bounds: Bounds,
}

/// Below the directory of history.
const PLACE: &str = "place";

#[derive(Debug, Serialize, Deserialize)]
struct PlaceFile {
    /// Every position of the journal before it has been seen, and is on the disk.
    next: u64,
}

/// The place of the last run; nothing when there is none, or when it is damaged. Then the journal is read from its start.
pub fn place(directory: &Path) -> Option<Position> {
    let bytes = snapshot::read(&directory.join(PLACE)).ok()??;
    let place: PlaceFile = serde_json::from_slice(snapshot::without_sum(&bytes)?).ok()?;
    Some(Position(place.next))
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("cannot follow the journal")]
pub struct FollowError(#[from] TailError);

/// What writes history.
pub struct Follower {
    store: Arc<Store>,
    files: Files,
    options: Options,
    journal: Wal,
    feed: Feed,
    gathered: Vec<Given>,
    /// Of the chunks that `gathered` holds on to.
    gathered_bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    /// All before it is in the files.
    written: Position,
    /// All before it is on the disk: the place.
    synced: Position,
    synced_at: Instant,
    tidy_at: Instant,
    /// After trouble: when to try again.
    paused_until: Option<Instant>,
    told_at: Option<Instant>,
    progress: watch::Sender<Position>,
    backlog: Backlog,
}

/// How much of the journal the history has not seen, whether its follower has a processor or not.
#[derive(Clone)]
pub struct Backlog {
    journal: Wal,
    store: Arc<Store>,
    /// Where the follower is.
    seen: Arc<AtomicU64>,
}

impl Backlog {
    pub fn metrics(&self) -> &Metrics {
        self.store.metrics()
    }

    pub fn measure(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        let behind = self.journal.durable().0.saturating_sub(seen);
        let behind = i64::try_from(behind).unwrap_or(i64::MAX);
        self.metrics().pending_bytes.set(behind);
    }
}

/// Why it waits.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the disk has only {free} bytes left")]
    NoRoom { free: u64 },
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot use the directory of history")]
    Directory(#[source] std::io::Error),
}

impl Follower {
    /// Goes on at the place of the last run. `cut` is the position that the journal cannot keep anything before.
    pub fn new(
        store: Arc<Store>,
        journal: Wal,
        options: Options,
        cut: watch::Receiver<Position>,
    ) -> Self {
        let start = journal.start();
        let from = match place(store.directory()) {
            Some(place) if !store.take_lost() => place,
            _ => start,
        };
        if from < start {
            tracing::warn!(
                from = from.0,
                to = start.0,
                "journal does not hold any more what the event history has not seen; it goes on after that"
            );
            store.metrics().skipped_bytes.inc_by(start.0 - from.0);
        }
        let from = from.max(start);
        let backlog = Backlog {
            journal: journal.clone(),
            store: store.clone(),
            seen: Arc::new(AtomicU64::new(from.0)),
        };
        backlog.measure();
        let now = Instant::now();
        Self {
            feed: Feed::new(&journal, from, cut),
            files: Files::new(store.clone()),
            store,
            options,
            journal,
            gathered: Vec::new(),
            gathered_bytes: 0,
            since: None,
            written: from,
            synced: from,
            synced_at: now,
            tidy_at: now + TIDY_EVERY,
            paused_until: None,
            told_at: None,
            progress: watch::Sender::new(from),
            backlog,
        }
    }

    /// The lowest position of the journal that is still wanted, also after a power loss.
    pub fn watch_progress(&self) -> watch::Receiver<Position> {
        self.progress.subscribe()
    }

    /// What tells it, for whoever knows better.
    pub fn progress(&self) -> watch::Sender<Position> {
        self.progress.clone()
    }

    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Starts what reads the journal for it, with the priority of this thread. In a runtime.
    pub fn start_reading(&mut self, stop: &CancellationToken) -> std::io::Result<()> {
        self.feed.start(Handle::current(), stop.clone())
    }

    /// Runs until `stop`, or until the journal is closed. Blocking: it wants a thread of its own.
    pub fn run(mut self, stop: &CancellationToken) -> Result<(), FollowError> {
        self.tidy();
        while !stop.is_cancelled() {
            let before = self.feed.position();
            let happened = self.next()?;
            let now = Instant::now();
            // Before anything is written: what was gathered comes after what is lost.
            let reads_again = self.look_again_if_lost();
            match happened {
                Happened::Stop => break,
                Happened::Cut(upto) => self.obey_cut(upto),
                Happened::Read(_) | Happened::Gone(_) if reads_again => {}
                Happened::Read(chunk) => self.gather(chunk, now),
                // A full journal does not wait until a cut is obeyed.
                Happened::Gone(upto) => self.tell_skipped(before, upto),
                Happened::Time => {}
            }
            if self.paused_until.is_some_and(|until| until <= now) {
                self.paused_until = None;
            }
            if self.is_due(now) {
                self.write_or_pause(now);
            }
            let is_due = now >= self.synced_at + SYNC_EVERY || self.holds_too_much(now);
            if is_due || self.files.has_long_log() {
                self.sync_or_tell(now);
            }
            if now >= self.tidy_at {
                self.tidy_at = now + TIDY_EVERY;
                self.tidy();
            }
            // Measured elsewhere: the journal's end is behind a lock.
            self.backlog.seen.store(self.written.0, Ordering::Relaxed);
        }
        // What is not on the disk for certain is read again by the next run, and found to be there.
        self.write_or_pause(Instant::now());
        Ok(())
    }

    fn next(&mut self) -> Result<Happened, TailError> {
        let has_room = self.gathered_bytes < GATHERED_BYTES && self.paused_until.is_none();
        let mut wake = (self.synced_at + SYNC_EVERY).min(self.tidy_at);
        if let Some(until) = self.paused_until {
            wake = wake.min(until);
        } else if let Some(since) = self.since {
            wake = wake.min(since + AT_LEAST_EVERY);
        }
        let most = wake.saturating_duration_since(Instant::now());
        self.feed.next(has_room, most)
    }

    fn tell_skipped(&self, from: Position, to: Position) {
        self.store.metrics().skipped_bytes.inc_by(to.0 - from.0);
        tracing::error!(
            from = from.0,
            to = to.0,
            "journal is full and cannot wait for the event history any longer: the events in between are not in it"
        );
    }

    /// Keeps what history wants of a chunk.
    fn gather(&mut self, chunk: Chunk, now: Instant) {
        let mut held = 0;
        let mut kept = false;
        let oldest = self.oldest_kept(WallMillis::now());
        for (position, frame) in chunk.into_frames() {
            held += frame.len();
            if let Some(given) = self.wanted(position, frame, oldest) {
                self.gathered.push(given);
                kept = true;
            }
        }
        if kept {
            self.gathered_bytes += held;
            self.since.get_or_insert(now);
        }
        if self.gathered.is_empty() {
            self.written = self.feed.position();
        }
    }

    fn wanted(&self, position: Position, frame: Bytes, oldest: i64) -> Option<Given> {
        // A frame that is none was told and counted by those who deliver.
        let meta = Record::decode(&frame).ok()?.meta;
        if !matches!(meta.category, Category::Management | Category::Insight) {
            return None;
        }
        let time = meta.event_time;
        if time < oldest {
            self.store.metrics().expired.inc();
            return None;
        }
        Some(Given {
            position,
            time,
            frame,
        })
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_full = self.gathered_bytes >= GATHERED_BYTES;
        let is_old = self
            .since
            .is_some_and(|since| now >= since + AT_LEAST_EVERY);
        (is_full || is_old || self.holds_too_much(now)) && self.paused_until.is_none()
    }

    fn holds_too_much(&self, now: Instant) -> bool {
        let held = self.feed.position().0.saturating_sub(self.synced.0);
        held >= self.options.bounds.held_bytes && now >= self.synced_at + SYNC_AT_MOST_EVERY
    }

    fn write_or_pause(&mut self, now: Instant) {
        if let Err(error) = self.write() {
            self.paused_until = Some(now + RETRY_AFTER);
            self.tell(&error, now);
        }
    }

    fn tell(&mut self, error: &Trouble, now: Instant) {
        if self.told_at.is_none_or(|told| now >= told + TELL_EVERY) {
            self.told_at = Some(now);
            tracing::error!(error = %chain(error), "event history cannot be written, will retry");
        }
    }

    /// Writes what was gathered. After an error what was written is left out of the next attempt.
    fn write(&mut self) -> Result<(), Trouble> {
        if !self.gathered.is_empty() {
            self.check_room()?;
            self.files.write(&self.gathered)?;
        }
        self.gathered.clear();
        (self.gathered_bytes, self.since, self.told_at) = (0, None, None);
        self.written = self.feed.position();
        Ok(())
    }

    fn check_room(&self) -> Result<(), Trouble> {
        let disk = rustix::fs::statvfs(self.store.directory());
        let disk = disk.map_err(|errno| Trouble::Directory(errno.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match free < self.options.bounds.disk_reserve {
            true => Err(Trouble::NoRoom { free }),
            false => Ok(()),
        }
    }

    fn sync_or_tell(&mut self, now: Instant) {
        self.synced_at = now;
        if let Err(error) = self.sync() {
            self.tell(&error, now);
        }
    }

    /// Brings all that was written to the disk, and moves the place.
    fn sync(&mut self) -> Result<(), Trouble> {
        // What was put aside is read again: the place must not move past it.
        if self.files.sync()? && self.written > self.synced && !self.store.has_lost() {
            // Names of new files are on the disk before the place is.
            let saved = std::fs::File::open(self.store.directory())
                .and_then(|directory| directory.sync_all())
                .and_then(|()| self.save(self.written));
            saved.map_err(Trouble::Directory)?;
        }
        Ok(())
    }

    fn save(&mut self, next: Position) -> std::io::Result<()> {
        let json = serde_json::to_vec(&PlaceFile { next: next.0 })?;
        let path = self.store.directory().join(PLACE);
        snapshot::replace(&path, &snapshot::with_sum(&json))?;
        self.synced = next;
        self.progress.send_replace(next);
        Ok(())
    }

    /// The journal cannot wait any longer for what is before `upto`. What cannot be written now is left out.
    fn obey_cut(&mut self, upto: Position) {
        if upto <= self.synced {
            self.progress.send_replace(self.synced);
            return;
        }
        let now = Instant::now();
        self.write_or_pause(now);
        self.sync_or_tell(now);
        if upto <= self.synced {
            return;
        }
        let from = self.written;
        if upto > self.written {
            self.gathered.retain(|given| given.position >= upto);
            if self.feed.position() < upto {
                self.feed.seek(upto);
            }
            self.written = upto;
            self.tell_skipped(from, upto);
        }
        if let Err(error) = self.save(upto) {
            tracing::warn!(%error, "the place of the event history cannot be saved");
            self.progress.send_replace(upto);
        }
    }

    /// When something was put aside, the journal is read again from its start, and what is in no file any more is added. Whether it is.
    fn look_again_if_lost(&mut self) -> bool {
        if !self.store.take_lost() {
            return false;
        }
        self.files.forget_lost();
        self.gathered.clear();
        (self.gathered_bytes, self.since) = (0, None);
        let start = self.journal.start();
        self.feed.seek(start);
        (self.written, self.synced) = (start, start);
        self.progress.send_replace(start);
        // For a run that ends before it has read all of it.
        if let Err(error) = self.save(start) {
            tracing::warn!(%error, "the place of the event history cannot be saved");
        }
        tracing::info!(
            from = start.0,
            "the journal is read again for the event history"
        );
        true
    }

    /// Removes what has expired, closes what is at rest, and makes a filter: one at a time, as the journal waits meanwhile. The next one
    /// follows soon, unless there is none, or the disk does not take it.
    fn tidy(&mut self) {
        let now = WallMillis::now();
        self.files.tidy(self.oldest_kept(now));
        if self.files.make_filter(now) {
            self.tidy_at = Instant::now();
        }
        self.store.measure();
    }

    fn oldest_kept(&self, now: WallMillis) -> i64 {
        self.store.oldest_kept(self.options.retention, now)
    }
}
