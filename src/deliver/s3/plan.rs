//! What the S3 leg of one trail decides, as arithmetic: nothing here reads a clock, a disk or a network.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::{Batches, Limits, Sealed};
use crate::clock::{Monotonic, WallMillis};
use crate::event::Record;
use crate::event::record::RecordError;
use crate::ledger::{self, Entry, SealedBatch, Settled, StreamName, TrailState};
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
        let pending_bytes = state.pending.values().map(SealedBatch::weight).sum();
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
        let event = match Record::decode(record) {
            Ok(event) => event,
            Err(error) => return Taken::Undecodable(error),
        };
        let Record { meta, json } = &event;
        let stream = Stream::from(meta);
        if self.state.has_sealed(&stream, position) || !self.trail.selects(position, &event) {
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

    /// Cuts the oldest batch, so that the journal can be trimmed.
    pub fn cut_oldest(&mut self, now: Now) {
        if let Some(sealed) = self.batches.seal_oldest() {
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

    /// The key of `batch` belongs to something else, or to a bucket that the trail has left: it gets another one.
    pub fn rekey(&mut self, mut batch: SealedBatch) {
        batch.attempt += 1;
        batch.bucket.clone_from(&self.trail.bucket);
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
            self.pending_bytes += batch.weight();
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
            self.pending_bytes -= batch.weight();
        }
        self.state.apply(Entry::Settled(settled));
    }

    /// The entries to write next, in order and together. They must be durable before those of the next call are written.
    pub fn take_outbox(&mut self) -> Vec<Entry> {
        ledger::take_frame(&mut self.outbox)
    }

    /// Whether parts of a checkpoint are still to be written.
    pub fn has_checkpoint_left(&self) -> bool {
        let is_part = |entry: &Entry| matches!(entry, Entry::Checkpoint(_) | Entry::Carried(_));
        // They were put before everything else.
        self.outbox.front().is_some_and(is_part)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Meta;
    use crate::trail::tests::{event, trail};
    use crate::wal::MAX_PAYLOAD_BYTES;
    use std::time::Duration;

    const NOW: Now = Now {
        wall: WallMillis(1_700_000_100_000),
        monotonic: Duration::from_secs(1_000_000),
    };

    fn plan() -> Plan {
        let limits = Limits {
            max_age: Duration::from_secs(60),
            max_bytes: 1 << 20,
        };
        Plan::new(Arc::new(trail()), [1; 16], limits, TrailState::default())
    }

    fn record(meta: &Meta) -> Vec<u8> {
        let mut record = Vec::new();
        meta.encode(&mut record);
        record.extend_from_slice(b"{}");
        record
    }

    fn drain(plan: &mut Plan) -> Vec<Vec<Entry>> {
        std::iter::from_fn(|| plan.has_outbox().then(|| plan.take_outbox())).collect()
    }

    #[test]
    fn the_horizon_is_the_lowest_position_that_is_not_settled() {
        let mut plan = plan();
        let [here, there] = ["us-east-1", "eu-west-1"].map(|region| event("111122223333", region));
        assert_eq!(plan.take(Position(100), &record(&here), NOW), Taken::Routed);
        assert_eq!(
            plan.take(Position(200), &record(&there), NOW),
            Taken::Routed
        );
        let foreign = event("999988887777", "us-east-1");
        assert_eq!(
            plan.take(Position(300), &record(&foreign), NOW),
            Taken::Passed
        );
        plan.advance(Position(400));
        assert_eq!(plan.horizon(), Position(100));
        plan.cut_all(NOW);
        assert_eq!(plan.horizon(), Position(100), "sealed is not settled");
        let batches: Vec<_> = plan.state().pending.values().cloned().collect();
        for (batch, horizon) in batches.into_iter().zip([200, 400]) {
            plan.settle(Settled {
                trail: batch.trail,
                stream: batch.stream,
                first: batch.first,
                object: None,
                lost: 0,
                settled_at: NOW.wall,
            });
            assert_eq!(plan.horizon(), Position(horizon));
        }
        assert_eq!(plan.held_bytes(), 0);
    }

    #[test]
    fn an_event_that_a_batch_has_is_not_taken_again_after_a_restart() {
        let mut before = plan();
        let meta = event("111122223333", "us-east-1");
        before.take(Position(100), &record(&meta), NOW);
        before.cut_all(NOW);
        before.take(Position(200), &record(&meta), NOW);
        let mut state = TrailState::default();
        drain(&mut before)
            .into_iter()
            .flatten()
            .for_each(|entry| state.apply(entry));
        let limits = Limits {
            max_age: Duration::from_secs(60),
            max_bytes: 1 << 20,
        };
        let mut after = Plan::new(Arc::new(trail()), [1; 16], limits, state);
        assert_eq!(
            after.take(Position(100), &record(&meta), NOW),
            Taken::Passed
        );
        assert_eq!(
            after.take(Position(200), &record(&meta), NOW),
            Taken::Routed
        );
    }

    #[test]
    fn a_batch_is_as_old_as_its_oldest_event_also_when_the_clock_was_set_back() {
        let mut plan = plan();
        let accepted = |seconds: i64| {
            let accepted_at = WallMillis(NOW.wall.0 + seconds * 1000);
            record(&Meta {
                accepted_at,
                ..event("111122223333", "us-east-1")
            })
        };
        plan.take(Position(100), &accepted(-20), NOW);
        assert_eq!(
            plan.next_due(),
            Some(NOW.monotonic + Duration::from_secs(40))
        );
        plan.cut_all(NOW);
        plan.take(Position(200), &accepted(3600), NOW);
        assert_eq!(
            plan.next_due(),
            Some(NOW.monotonic + Duration::from_secs(60))
        );
    }

    /// A client may invent as many regions as it likes; the ledger must take what is remembered of them.
    #[test]
    fn three_hundred_thousand_streams_fit_the_frames_of_the_ledger() {
        let mut plan = plan();
        for n in 0..300_000u64 {
            let meta = event("111122223333", &format!("region-{n}"));
            plan.take(Position(100 + n), &record(&meta), NOW);
        }
        plan.cut_all(NOW);
        drain(&mut plan);
        plan.checkpoint();
        let mut state = TrailState::default();
        for entries in drain(&mut plan) {
            let frame = ledger::encode(&entries);
            assert!(frame.len() < MAX_PAYLOAD_BYTES, "{}", frame.len());
            ledger::decode(&frame).for_each(|entry| state.apply(entry.unwrap()));
        }
        assert_eq!(state, *plan.state());
    }
}
