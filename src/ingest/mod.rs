//! The ways in: events over HTTP and from files, checked, remembered, appended, answered when durable.
//!
//! ```text
//! http ─► body (limits, inflate) ─► framing (where events begin and end) ─► event::check ─► dedup ─► wal ─► answer
//! tail ─► lines of a file ───────────────────────────────────────────────────┤
//! kubernetes ─► events of an API server, made into CloudTrail's ──────────────┤
//! records ─► what the API was asked ──────────────────────────────────────────┘
//! ```

pub mod accept;
mod accounts;
pub mod answer;
pub mod body;
pub mod bounded;
pub mod dedup;
pub(crate) mod framing;
pub mod http;
pub mod kubernetes;
mod metrics;
pub mod records;
mod rejected;
mod store;
pub mod tail;

pub use accept::{Ingest, Made, Options, Origin};
pub use accounts::Accounts;
pub use answer::{Answer, Refused};
pub use metrics::{Metrics, audit_code};

#[cfg(test)]
pub mod fixture;
