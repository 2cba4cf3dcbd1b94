//! The legs: what carries events from the journal to where a trail sends them.
//!
//! Each trail and destination is a consumer of its own, with its own place in the journal; none knows another, so that a dead or slow
//! destination delays nobody else.

pub mod gate;
pub mod s3;
pub mod view;

pub use view::{LegView, Metrics};
