//! The audit event: raw JSON kept as received, plus the few fields the daemon reasons about.
//!
//! [`scan`] walks the bytes once, [`check`] judges what it found, and [`Checked::write`] puts down the bytes as given with the members
//! that were missing spliced in before the closing brace. What was given is never rewritten.

pub mod check;
pub mod fields;
pub mod fill;
pub mod fingerprint;
pub mod json;
pub mod record;
pub mod refusal;
pub mod scan;
pub mod time;
pub mod types;

#[cfg(test)]
pub(crate) mod corpus;

pub use check::{Checked, Rules, check, parse};
pub use fields::Fields;
pub use fingerprint::Secret;
pub use record::{Meta, Record};
pub use refusal::{Code, Refusal};
pub use scan::Scanned;
pub use types::{AccountId, Category, Folder, Region};
