//! The legs besides S3: each follows a log and sends what it finds there on, one item at a time, at least once.
//!
//! ```text
//! log ── read ──► items ── entry ──► entries ── fits ──► requests ── send ──► delivered ──► cursor
//!                                       │                              └────► refused ──► dead letter
//!                                       └► refused: too large ──────────────────────────► dead letter
//! ```
//!
//! The leg ([`leg`]) is the same for every destination: it reads a chunk of the log, sends its items in as many lanes as the
//! destination asks for, and goes on when each of them is settled: delivered, or in the dead-letter file with the reason. Its place is
//! saved every second and when it stops, so a crash sends again what was settled within the last second. A stop waits 0.8 s for
//! the answers to what was sent, and sends nothing twice that is answered by then; what is not may be sent again after the next start.
//!
//! What a destination answers decides, and nothing else does: an item that it refuses for what is in it is dead-lettered; whatever else
//! goes wrong is tried again for ever, with the leg's patience ([`super::gate`]).

mod lane;

pub mod absent;
pub mod events;
pub mod leg;

use std::future::{Future, ready};

use bytes::Bytes;

use super::failure::Failure;
pub use super::item::{Item, ItemId};
use crate::wal::Position;

/// What became of one entry of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Not this time.
    Again(Failure),
    Refused(Refusal),
}

/// Why an item can never be delivered to a destination as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`super::view::REASONS`].
    pub reason: &'static str,
    pub message: String,
}

/// A frame that holds none of what its log should hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Whether what was sent has arrived, where an answer alone does not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    Arrived,
    /// It went nowhere, though it was answered with success: it must be sent again.
    Vanished(Failure),
    /// It is not known; ask again.
    Unknown(Failure),
}

/// Where a leg sends to.
pub trait Destination: Send + Sync + 'static {
    /// An item as the destination takes it.
    type Entry: Send + Sync;

    /// The destination's own name, an ARN where it has one.
    fn target(&self) -> &str;

    /// Asked at each start, before anything is sent: whether the destination is there, where an answer to what is sent would not tell.
    fn is_there(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        ready(Ok(()))
    }

    /// Says once to a destination that the trail has not sent to before that it will.
    fn introduce(&self) -> impl Future<Output = Result<(), Failure>> + Send {
        ready(Ok(()))
    }

    /// The items in the frame at `at` that this destination wants, in order.
    fn read(&self, at: Position, frame: Bytes) -> Result<Vec<Item>, Unreadable>;

    /// Refuses what could never be sent: an item over the destination's limits.
    fn entry(&self, item: &Item) -> Result<Self::Entry, Refusal>;

    /// How many of these, from the first on, one request takes: at least one.
    fn fits(&self, entries: &[Self::Entry]) -> usize;

    /// Requests that run at the same time, while this many bytes of the log wait to be read.
    fn lanes(&self, behind: u64) -> usize;

    /// How many of the leg's chunks are read at once, while this many bytes of the log wait to be read.
    fn chunks(&self, _behind: u64) -> usize {
        1
    }

    /// Sends one request. The verdicts are in the order of the entries, one for each.
    fn send(
        &self,
        lane: usize,
        entries: &[Self::Entry],
    ) -> impl Future<Output = Result<Vec<Verdict>, Failure>> + Send;

    /// Asked after requests were answered with success, before what they held counts as delivered.
    fn confirm(&self) -> impl Future<Output = Confirmation> + Send {
        ready(Confirmation::Arrived)
    }
}

#[cfg(test)]
mod tests;
