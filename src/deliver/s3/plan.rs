//! What the S3 leg of one trail decides, as arithmetic: nothing here reads a clock, a disk or a network.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::{Batches, Limits, Sealed};
use crate::clock::{Monotonic, WallMillis};
use crate::event::Record;
use crate::event::record::RecordError;
use crate::ledger::{Entry, SealedBatch, Settled, StreamName, TrailState};
use crate::logfile::key;
use crate::trail::{Stream, Trail};
use crate::wal::Position;

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub wall: WallMillis,
    pub monotonic: Monotonic,
}

impl Now {
    pub fn read() -> Self {
        Self {
            wall: WallMillis::now(),
            monotonic: crate::clock::monotonic(),
        }
    }

    /// When, on the monotonic clock, something happened that the wall clock saw at `then`. A future that only a clock set back can
    /// explain counts as now.
    fn monotonic_at(&self, then: WallMillis) -> Monotonic {
        self.monotonic.saturating_sub(self.wall.since(then))
    }

    fn wall_at(&self, then: Monotonic) -> WallMillis {
        let age = self.monotonic.saturating_sub(then).as_millis();
        WallMillis(
            self.wall
                .0
                .saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)),
        )
    }
}

/// What became of a journal record that was offered.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in an open batch now.
    Routed,
    /// The trail does not want it, or has it already.
    Passed,
    /// It is not an event record. Its frame was whole, so it was written by something else.
    Undecodable(RecordError),
}

/// The S3 leg of one trail, without its limbs.
#[derive(Debug)]
pub struct Plan {
    trail: Arc<Trail>,
    arn: String,
    /// The journal's own random identity.
    journal: [u8; 16],
    batches: Batches,
    state: TrailState,
    /// Everything before it was offered.
    next: Position,
    /// Entries to write to the ledger, in order.
    outbox: VecDeque<Entry>,
    /// Bytes of the position lists of pending batches.
    pending_bytes: usize,
}

impl Plan {
    /// A leg that goes on from what the ledger remembers. It wants the journal from [`next`](Self::next) on.
    pub fn new(trail: Arc<Trail>, journal: [u8; 16], limits: Limits, state: TrailState) -> Self {
        let pending_bytes = state.pending.values().map(weight).sum();
        Self {
            arn: trail.arn(),
            trail,
            journal,
            batches: Batches::new(limits),
            next: state.horizon,
            state,
            outbox: VecDeque::new(),
            pending_bytes,
        }
    }

    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    pub fn state(&self) -> &TrailState {
        &self.state
    }

    pub fn next(&self) -> Position {
        self.next
    }

    /// Takes the record at `position`; `now` dates what is cut because of it.
    pub fn take(&mut self, position: Position, record: &[u8], now: Now) -> Taken {
        let Record { meta, json } = match Record::decode(record) {
            Ok(record) => record,
            Err(error) => return Taken::Undecodable(error),
        };
        let stream = Stream::from(&meta);
        if !self.trail.selects(&meta) || self.state.has_sealed(&stream, position) {
            return Taken::Passed;
        }
        let since = now.monotonic_at(meta.accepted_at);
        if let Some(sealed) = self.batches.push(stream, position, json.len(), since) {
            self.seal(sealed, now);
        }
        Taken::Routed
    }

    /// All records before `next` were offered.
    pub fn advance(&mut self, next: Position) {
        self.next = self.next.max(next);
    }

    /// When [`cut_due`](Self::cut_due) has something to do.
    pub fn next_due(&self) -> Option<Monotonic> {
        self.batches.next_due()
    }

    /// Cuts the batches that are old.
    pub fn cut_due(&mut self, now: Now) {
        while let Some(sealed) = self.batches.seal_due(now.monotonic) {
            self.seal(sealed, now);
        }
    }

    /// Cuts all batches, to be delivered before a stop.
    pub fn cut_all(&mut self, now: Now) {
        while let Some(sealed) = self.batches.seal_oldest() {
            self.seal(sealed, now);
        }
    }

    /// Cuts the longest batch, to make room.
    pub fn cut_longest(&mut self, now: Now) {
        if let Some(sealed) = self.batches.seal_longest() {
            self.seal(sealed, now);
        }
    }

    fn seal(&mut self, sealed: Sealed, now: Now) {
        let oldest_accepted_at = now.wall_at(sealed.since);
        let Sealed {
            stream,
            first,
            positions,
            json_bytes,
            since: _,
        } = sealed;
        let batch = SealedBatch {
            trail: self.arn.clone(),
            stream: StreamName(stream),
            first,
            positions,
            json_bytes,
            bucket: self.trail.bucket.clone(),
            key: String::new(),
            sealed_at: now.wall,
            oldest_accepted_at,
            attempt: 0,
        };
        self.announce(batch);
    }

    /// The key of `batch` belongs to something else: it gets another one.
    pub fn rekey(&mut self, mut batch: SealedBatch) {
        batch.attempt += 1;
        self.announce(batch);
    }

    fn announce(&mut self, mut batch: SealedBatch) {
        let identity = key::Identity {
            journal: &self.journal,
            first: batch.first,
            last: batch.positions.last(),
            count: batch.positions.len(),
            attempt: batch.attempt,
        };
        batch.key = key::of(&self.trail, &batch.stream.0, batch.sealed_at, identity);
        if batch.attempt == 0 {
            self.pending_bytes += weight(&batch);
        }
        let entry = Entry::Sealed(batch);
        self.state.apply(entry.clone());
        self.outbox.push_back(entry);
    }

    /// The upload of a batch has come to an end.
    pub fn finish(&mut self, settled: Settled) {
        self.outbox.push_back(Entry::Settled(settled));
    }

    /// `settled` is durable: its batch is forgotten.
    pub fn settle(&mut self, settled: Settled) {
        if let Some(batch) = self.state.pending.get(&settled.id()) {
            self.pending_bytes -= weight(batch);
        }
        self.state.apply(Entry::Settled(settled));
    }

    /// The entries to write next, in order and together. They must be durable before those of the next call are written.
    /// About 8 MiB of them, but a checkpoint and what it carries over are never parted.
    pub fn take_outbox(&mut self) -> Vec<Entry> {
        const LIMIT: usize = 8 << 20;
        let mut bytes = 0;
        let parted = self.outbox.iter().position(|entry| {
            let (weight, is_parting) = match entry {
                Entry::Sealed(batch) => (weight(batch), true),
                Entry::Settled(_) => (1024, true),
                Entry::Carried(batch) => (weight(batch), false),
                Entry::Checkpoint(_) => (0, false),
            };
            bytes += weight;
            bytes > LIMIT && is_parting
        });
        // One entry at least: the first may be heavier than the limit on its own.
        let count = parted.map_or(self.outbox.len(), |first_left| first_left.max(1));
        self.outbox.drain(..count).collect()
    }

    pub fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Says everything again, ahead of what is in the outbox. Only for a moment when no entry is being written: an outcome that is
    /// on its way and not applied yet would be undone by it.
    pub fn checkpoint(&mut self) {
        let horizon = self.horizon();
        let entries = self.state.checkpoint(&self.arn, horizon);
        for entry in entries.into_iter().rev() {
            self.outbox.push_front(entry);
        }
    }

    /// The lowest position that may still be read from the journal.
    pub fn horizon(&self) -> Position {
        let pending = self.state.pending.first_key_value().map(|(id, _)| id.first);
        [pending, self.batches.lowest()]
            .into_iter()
            .flatten()
            .fold(self.next, Position::min)
    }

    /// Bytes of memory that the events taken and not settled hold.
    pub fn held_bytes(&self) -> usize {
        self.batches.held_bytes() + self.pending_bytes
    }

    pub fn has_open(&self) -> bool {
        !self.batches.is_empty()
    }

    /// Acceptance of the oldest event that is not settled.
    pub fn oldest_pending(&self, now: Now) -> Option<WallMillis> {
        let open = self.batches.oldest().map(|since| now.wall_at(since));
        // The first by position was accepted first.
        let pending = self
            .state
            .pending
            .first_key_value()
            .map(|(_, batch)| batch.oldest_accepted_at);
        open.into_iter().chain(pending).min()
    }
}

/// Bytes a pending batch holds: its list of positions, its key and bookkeeping.
fn weight(batch: &SealedBatch) -> usize {
    batch.positions.as_bytes().len() + 512
}
