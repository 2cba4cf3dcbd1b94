//! Which key signs a digest, and the public keys that ListPublicKeys gives out.
//!
//! Each region has its own pair, which is valid for thirty days. The pair that signs is the one valid at the moment that the
//! digest is about: the end of its window, or the making of a backfill digest. Validators ask for the keys of about that moment (the AWS CLI: from its
//! `--start-time` to two hours after its `--end-time`), so a digest that is written late is still signed with the key of its time.

pub mod files;
pub mod public;

pub use files::{FileKeys, KeysError};
pub use public::{InvalidTimeRange, PublicKey, TimeRange};
