//! The files of history that are being written: which event goes to which of them, and when they are brought to the disk.
//!
//! A file tells which span of the journal it has of its day, in the transaction of its events. Events that are given again, in any batch, are left out when a
//! file of their day has them in its span; so all that is asked is that no event is left out between two that are given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::part::{self, DAY, Given, Head, MAX_BYTES, MAX_EVENTS, PartError, PartId, Writer};
use super::store::Store;
use crate::clock::WallMillis;
use crate::event::Record;
use crate::wal::Position;

/// A write-ahead log that is larger should be put in place.
const LOG_BYTES: u64 = 96 << 20;
/// A file that is not written for so long is closed.
const REST_AFTER: Duration = Duration::from_secs(30);
/// Files that are open for writing.
const WRITERS: usize = 4;

/// What writes history: one of a directory.
pub struct Files {
    store: Arc<Store>,
    writers: BTreeMap<PartId, Open>,
    /// Files without a writer whose log may have what is not on the disk: left by the run before, or after an error.
    unsynced: BTreeSet<PartId>,
    /// Events of a file, and bytes.
    most: u64,
    most_bytes: u64,
    /// The file whose filter was the last to be tried.
    filtered: Option<PartId>,
}

/// A file that is written.
struct Open {
    writer: Writer,
    used_at: Instant,
    is_dirty: bool,
}

/// A file could not be written, or brought to the disk.
#[derive(Debug, thiserror::Error)]
#[error("cannot write history of {stem}")]
pub struct WriteError {
    pub stem: String,
    #[source]
    pub source: PartError,
}

impl WriteError {
    fn of(id: PartId) -> impl FnOnce(PartError) -> Self {
        move |source| Self {
            stem: id.stem(),
            source,
        }
    }
}

impl Files {
    pub fn new(store: Arc<Store>) -> Self {
        let parts = store.parts().into_iter().map(|part| part.id());
        let has_log = |id: &PartId| part::log_bytes(store.directory(), *id) > 0;
        let unsynced = parts.filter(has_log).collect();
        Self {
            store,
            unsynced,
            writers: BTreeMap::new(),
            most: MAX_EVENTS,
            most_bytes: MAX_BYTES,
            filtered: None,
        }
    }

    /// With smaller files, so that a test has many.
    #[cfg(test)]
    pub fn with_at_most(store: Arc<Store>, most: u64) -> Self {
        Self {
            most,
            ..Self::new(store)
        }
    }

    /// With files of fewer bytes, so that a test has many.
    #[cfg(test)]
    pub fn with_bytes_at_most(store: Arc<Store>, most_bytes: u64) -> Self {
        Self {
            most_bytes,
            ..Self::new(store)
        }
    }

    fn is_full(&self, head: &Head) -> bool {
        head.events >= self.most || head.bytes >= self.most_bytes
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Adds events, in the order of their positions. After an error some may have been added; to give all of them again is right.
    pub fn write(&mut self, events: &[Given]) -> Result<(), WriteError> {
        let mut by_day: BTreeMap<i32, Vec<Given>> = BTreeMap::new();
        for given in events {
            by_day.entry(day_of(given)).or_default().push(given.clone());
        }
        for (day, events) in by_day {
            self.write_day(day, &events)?;
        }
        Ok(())
    }

    fn write_day(&mut self, day: i32, mut events: &[Given]) -> Result<(), WriteError> {
        while let Some((first, _)) = events.split_first() {
            let mut parts: Vec<_> = self
                .store
                .parts_of(day)
                .iter()
                .map(|part| (part.id(), part.head()))
                .collect();
            parts.sort_unstable_by_key(|(_, head)| head.from);
            let before = parts.partition_point(|(_, head)| head.from <= first.position);
            // Positions from here on are of a later part.
            let end = parts.get(before).map(|(_, head)| head.from);
            let is_before_end = |given: &Given| end.is_none_or(|end| given.position < end);
            let predecessor = before.checked_sub(1).map(|at| parts[at]);
            if let Some((_, head)) = predecessor {
                let there = events.partition_point(|given| given.position < head.upto);
                if there > 0 {
                    events = &events[there..];
                    continue;
                }
            }
            let fits = events.partition_point(is_before_end);
            let (id, room) = match predecessor {
                Some((id, head)) if !self.is_full(&head) => (id, self.most - head.events),
                _ => {
                    let newest = parts.iter().map(|(id, _)| id.number).max();
                    let number = newest.map_or(0, |newest| newest + 1);
                    (PartId { day, number }, self.most)
                }
            };
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (now, later) = events.split_at(fits.min(room));
            self.append(id, now)?;
            events = later;
        }
        Ok(())
    }

    /// Adds events to a part, a new one if there is none yet.
    fn append(&mut self, id: PartId, events: &[Given]) -> Result<(), WriteError> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        // A lookup may have put the file aside; then its writer is of what lies in quarantine.
        let is_known = self.store.part(id).is_some();
        let mut open = match self.writers.remove(&id).filter(|_| is_known) {
            Some(open) => Ok(open),
            None => self.open(id, first.position),
        };
        if let Ok(open) = &mut open {
            open.used_at = Instant::now();
            open.is_dirty = true;
        }
        let appended = open.and_then(|mut open| {
            open.writer.append(events)?;
            Ok(open)
        });
        match appended {
            Ok(open) => {
                self.store.wrote(&open.writer);
                self.store.metrics().events.inc_by(events.len() as u64);
                self.writers.insert(id, open);
                self.close_some();
                Ok(())
            }
            Err(error) => {
                // What it was to write is found missing by the next attempt, in any case. What it wrote before may be in its log.
                self.unsynced.insert(id);
                Err(self.failed(id, error))
            }
        }
    }

    /// Puts the file aside if it is the file's fault.
    fn failed(&self, id: PartId, error: PartError) -> WriteError {
        if error.is_damage() {
            self.store.quarantine(id, &error);
        }
        WriteError::of(id)(error)
    }

    /// Goes on with a part, or makes it, if the store does not know it.
    fn open(&self, id: PartId, from: Position) -> Result<Open, PartError> {
        let known = self.store.part(id);
        let directory = self.store.directory();
        let writer = match known {
            Some(_) => Writer::open(directory, id)?,
            None => Writer::create(directory, id, from)?,
        };
        if known.is_none() {
            self.store.made(&writer);
        }
        // By a thread of a daemon before, that was not waited for.
        if known.is_some_and(|part| part.head().events != writer.head().events) {
            self.store.wrote(&writer);
            return Err(PartError::Changed);
        }
        Ok(Open {
            writer,
            used_at: Instant::now(),
            is_dirty: true,
        })
    }

    /// Closes the files that were not used for the longest time, so that few are open.
    fn close_some(&mut self) {
        while self.writers.len() > WRITERS {
            let oldest = self.writers.iter().min_by_key(|(_, open)| open.used_at);
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            if !self.close(id) {
                return;
            }
        }
    }

    /// Whether the file is closed, and all of it on the disk.
    fn close(&mut self, id: PartId) -> bool {
        let Some(open) = self.writers.get(&id) else {
            return true;
        };
        self.store.release(id);
        match open.writer.sync() {
            Ok(true) => {
                if let Some(open) = self.writers.remove(&id) {
                    open.writer.close();
                }
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::warn!(file = id.stem(), %error, "a file of history cannot be brought to the disk, will retry");
                false
            }
        }
    }

    /// Whether so much waits to be put in place that it should not wait longer.
    pub fn has_long_log(&self) -> bool {
        self.writers
            .values()
            .any(|open| open.is_dirty && open.writer.log_bytes() > LOG_BYTES)
    }

    /// Brings all that was written to the disk. Whether it is there: a lookup may have been in the way.
    pub fn sync(&mut self) -> Result<bool, WriteError> {
        while let Some(id) = self.unsynced.first().copied() {
            if let Some(part) = self.store.part(id)
                && !self.writers.contains_key(&id)
            {
                let opened = self.open(id, part.head().from);
                let open = opened.map_err(|error| self.failed(id, error))?;
                self.writers.insert(id, open);
            }
            self.unsynced.remove(&id);
        }
        let mut is_all = true;
        let mut failed = None;
        for (id, open) in &mut self.writers {
            if open.is_dirty {
                match open.writer.sync() {
                    Ok(is_there) => open.is_dirty = !is_there,
                    Err(error) => failed = Some((*id, error)),
                }
                is_all &= !open.is_dirty;
            }
        }
        if let Some((id, error)) = failed {
            return Err(self.failed(id, error));
        }
        self.close_some();
        Ok(is_all)
    }

    /// Closes every file.
    pub fn close_all(mut self) {
        let open: Vec<PartId> = self.writers.keys().copied().collect();
        for id in open {
            self.close(id);
        }
    }

    /// Forgets files that were put aside.
    pub fn forget_lost(&mut self) {
        let store = &self.store;
        self.writers.retain(|id, _| store.part(*id).is_some());
    }

    /// Removes the files of days that ended before the second `oldest`, and closes those at rest.
    pub fn tidy(&mut self, oldest: i64) {
        self.writers.retain(|id, _| id.day_start() + DAY > oldest);
        let removed = self.store.expire(oldest);
        if removed > 0 {
            tracing::info!(files = removed, "history that has expired was removed");
        }
        let rested = self.writers.iter();
        let rested = rested.filter(|(_, open)| open.used_at.elapsed() >= REST_AFTER);
        let rested: Vec<PartId> = rested.map(|(id, _)| *id).collect();
        for id in rested {
            self.close(id);
        }
    }

    /// Makes the filter of one file at rest that has none: one that is full, or of a day that is over. Whether one was made: where that
    /// fails, the next file is tried the next time.
    pub fn make_filter(&mut self, now: WallMillis) -> bool {
        let today = now.unix_seconds().div_euclid(DAY);
        let mut lacking = self.store.parts();
        lacking.retain(|part| {
            let is_done = self.is_full(&part.head()) || i64::from(part.id().day) < today;
            is_done && !self.writers.contains_key(&part.id()) && part.lacks_filter()
        });
        let next = lacking.iter().find(|part| Some(part.id()) > self.filtered);
        let Some(part) = next.or(lacking.first()) else {
            return false;
        };
        self.filtered = Some(part.id());
        self.store.make_filter(part)
    }
}

/// The day of the file that an event belongs to. One that is dated far ahead is kept with the events that came with it, and no longer than they are.
fn day_of(given: &Given) -> i32 {
    let accepted = Record::decode(&given.frame)
        .map_or(given.time, |record| record.meta.accepted_at.unix_seconds());
    let latest = accepted.saturating_add(DAY);
    let day = given.time.min(latest).div_euclid(DAY);
    // The years that RFC 3339 can write.
    i32::try_from(day.clamp(-719_528, 2_932_896)).unwrap_or_default()
}
