//! Signed, chained digests of the log files that were delivered: what a digest is, and all that can be wrong with one.
//!
//! A chain belongs to one trail, account and source region. Each digest names the log files delivered in its window, with their
//! hashes, and the digest before it, with its hash and its signature. It is signed with its region's key, and the signature is
//! metadata of its object. A file that was changed, removed or added anywhere, or a digest, breaks the chain visibly
//! (CloudTrail user guide, "Validating CloudTrail log file integrity").
//!
//! ```text
//!  key       where a digest belongs          document   its JSON, written and read back
//!  sign      what is signed, and how         keys       which key, from when until when
//!  verify    a chain against what is there: every finding
//! ```
//!
//! Values in, values out, but for two: [`keys`] are on a disk or in AWS KMS, and the [`writer`] carries out. Moments are whole seconds since
//! 1970, as digests write them.

pub mod document;
pub mod hex;
pub mod key;
pub mod keys;
pub mod moment;
pub mod sign;
pub mod verify;
pub mod writer;

#[cfg(test)]
mod vectors;

pub use document::{Digest, File, Previous};
pub use hex::{Fingerprint, Sha256, Signature};
pub use key::{Chain, DigestKey, Kind};
pub use sign::Signed;

use std::fmt;

use serde::{Deserialize, Serialize};

/// An object: a digest or a log file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    pub bucket: String,
    pub key: String,
}

/// `s3://<bucket>/<key>`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}
