//! The S3 leg of one trail: from the journal to log files in a bucket, each event in exactly one of them.
//!
//! ```text
//! journal ── take ──► open batches ── cut ──► Sealed, in the ledger ── upload ──► object ──► Settled, in the ledger
//! ```
//!
//! Intent, then effect, then outcome. A batch is uploaded only after its `Sealed` entry is durable, and forgotten only after its
//! `Settled` entry is. The key and the bytes follow from the sealed batch, so an upload done again after a crash writes the
//! same object; `If-None-Match: *` turns that into "mine already" where the store supports it.
//!
//! - [`plan`] decides: what is taken, cut, pending, settled. Pure.
//! - [`leg`] carries it out: one task a trail, the only writer of its ledger entries.
//! - [`absent`] remembers a trail that is not configured any more.
//! - [`upload`] tries to bring one batch to its bucket; [`encode`] makes its file, [`bucket`] speaks to the store.

mod bucket;
mod encode;

pub mod absent;
pub mod leg;
pub mod plan;
pub mod same;
pub mod upload;

#[cfg(test)]
mod simulation;

pub use absent::Absent;
pub use bucket::{Bucket, Encryption, Found, NewObject, Put};
pub use encode::Encoding;
pub use leg::{LegError, OnStop, Options, Progress, S3Leg, write};
pub use plan::Plan;
pub use upload::Uploader;
