//! The audit event: raw JSON kept as received, plus the few fields the daemon reasons about.

pub mod record;
pub mod types;

pub use record::{Meta, Record};
pub use types::{AccountId, Folder, Region};
