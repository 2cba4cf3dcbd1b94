//! A leg that lags: what waits is counted, and what the log cannot keep is let go of.

use std::future::pending;

use tokio_util::sync::CancellationToken;

use super::work::Work;
use super::{Leg, LegError, SLOW};
use crate::deliver::dead_letter::Content;
use crate::deliver::fanout::Destination;
use crate::deliver::view::CUT_OFF;
use crate::pump::{Tail, TailError};
use crate::wal::{Chunk, Position};

impl<D: Destination> Leg<D> {
    /// Whether the work is slow enough for the scout to go ahead.
    pub(super) fn prepare_scout(&mut self) -> bool {
        let work = self.work.as_ref().map(|work| work.since);
        let introduction = self.introduction.as_ref().map(|asked| asked.since);
        let is_slow = work
            .or(introduction)
            .is_some_and(|since| since.elapsed() >= SLOW);
        if is_slow && self.scout.is_none() {
            let from = self.counted.max(self.tail.position());
            self.scout = Some(Tail::with_chunks_of(&self.log, from, self.chunk_bytes));
        }
        is_slow
    }

    pub(super) fn count_ahead(&mut self, chunk: Chunk) {
        let next = chunk.next;
        let (items, _) = self.items(chunk);
        let events = items
            .iter()
            .filter(|item| item.id.position >= self.counted)
            .map(|item| item.events)
            .sum();
        if let Some(first) = items.first()
            && self.view.facts().oldest_pending.is_none()
        {
            self.view.oldest_pending(Some(first.since));
        }
        self.view.routed(events);
        self.counted = self.counted.max(next);
    }

    /// The log can wait for nothing before the position that `cut` tells: what is left behind becomes a gap.
    pub(super) async fn obey_cut(&mut self, stop: &CancellationToken) -> Result<(), LegError> {
        let upto = *self.cut.borrow_and_update();
        let from = Position(self.memory.next);
        if upto <= from {
            // The log only waits to hear of it.
            return self.save().await;
        }
        // Letters being sent again are not of the log.
        self.work.take_if(|work| work.is_from_log());
        self.scout = None;
        let mut events = 0;
        let mut uncounted = 0;
        let mut left_behind = Tail::with_chunks_of(&self.log, from, self.chunk_bytes);
        while left_behind.position() < upto && !left_behind.is_at_end() {
            let Some(chunk) = stop.run_until_cancelled(left_behind.next()).await else {
                return Ok(());
            };
            let (items, _) = self.items(chunk?);
            for item in items.iter().filter(|item| item.id.position < upto) {
                events += item.events;
                if item.id.position >= self.counted {
                    uncounted += item.events;
                }
            }
        }
        let leg = self.view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, from = from.0, to = upto.0, events,
            "log is full and cannot wait for this leg any longer: it is cut off, its events are not delivered there"
        );
        self.view.routed(uncounted);
        if events > 0 {
            let message = "the log was full and could not wait for this destination".to_owned();
            let gap = Content::Gap {
                from: from.0,
                to: upto.0,
            };
            let letter = self.letter(CUT_OFF, message, events, gap);
            if self.bury(vec![letter], stop).await?.is_none() {
                return Ok(());
            }
            self.count_dead(CUT_OFF, events);
        }
        self.memory.advance(upto);
        self.counted = self.counted.max(upto);
        self.is_saved = false;
        self.tail = Tail::with_chunks_of(&self.log, upto, self.chunk_bytes);
        let oldest = self.work.as_ref().and_then(Work::oldest);
        self.view.oldest_pending(oldest);
        self.save().await
    }
}

/// The next chunk for the scout; pends while there is none.
pub(super) async fn scout(scout: &mut Option<Tail>) -> Result<Chunk, TailError> {
    match scout {
        Some(tail) => tail.next().await,
        None => pending().await,
    }
}
