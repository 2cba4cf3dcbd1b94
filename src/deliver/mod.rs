//! The legs: what carries events from the journal to where a trail sends them.
//!
//! Each trail and destination is a consumer of its own, with its own place in the journal; none knows another, so that a dead or slow
//! destination delays nobody else.
//!
//! - [`s3`] makes log files, each event in exactly one of them.
//! - [`fanout`] sends on, at least once: [`sns`] the news of each log file, [`logs`] and [`bus`] each event.

pub mod dead_letter;
pub mod failure;
pub mod gate;
pub mod item;
pub mod memory;
pub mod renewing;
pub mod view;

pub mod s3;

pub mod fanout;

pub mod bus;
pub mod logs;
pub mod sns;

#[cfg(test)]
pub(crate) mod fake;

use std::time::Duration;

pub use view::{LegView, Metrics};

/// How long a leg that is not configured any more holds its log back, from each start on.
pub const ABSENCE: Duration = Duration::from_secs(3600);
