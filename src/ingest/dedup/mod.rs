//! Remembers the fingerprints of the last events, so that a batch sent again after a lost answer adds nothing.
//!
//! The memory survives restarts: the journal's frames carry their fingerprints, and before a segment of the journal is removed, its
//! fingerprints are kept in a small file beside it. Opening reads those files, oldest first, then the frames still in the journal.

mod sidecars;
mod window;

pub use sidecars::Sidecars;
pub use window::{Claim, Window};
