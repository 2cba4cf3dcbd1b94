//! Which key signs a digest, and the public keys that ListPublicKeys gives out.
//!
//! Each region has its own pair, which is valid for thirty days. The pair that signs is the one valid at the moment that the
//! digest is about: the end of its window, or the making of a backfill digest. Validators ask for the keys of about that moment (the AWS CLI: from its
//! `--start-time` to two hours after its `--end-time`), so a digest that is written late is still signed with the key of its time.

pub mod files;
pub mod public;

pub use files::{FileKeys, KeysError};
pub use public::{InvalidTimeRange, PublicKey, TimeRange};

use std::sync::Arc;

use super::hex::{Fingerprint, Signature};
use super::sign::{KeyPair, SignError, Signer};
use crate::clock::WallMillis;
use crate::event::Region;

/// Where the keys of digests are. Clones share them.
#[derive(Debug, Clone)]
pub enum Keys {
    Files(FileKeys),
}

/// Whoever signs, of [`Keys`].
#[derive(Debug, Clone)]
pub enum AnySigner {
    File(Arc<KeyPair>),
}

impl Keys {
    /// The signer in `region` of what is of the moment `at`.
    pub async fn signer(&self, region: Region, at: WallMillis) -> Result<AnySigner, KeysError> {
        match self {
            Self::Files(files) => files.signer(region, at).await.map(AnySigner::File),
        }
    }

    /// The public keys of all regions that are valid in some part of `range`, by region and time.
    pub async fn public_keys(
        &self,
        range: TimeRange,
    ) -> Result<Vec<(Region, PublicKey)>, KeysError> {
        match self {
            Self::Files(files) => files.public_keys(range).await,
        }
    }

    /// Removes private keys that ended by `before`, up to which everything is signed.
    pub async fn retire(&self, before: WallMillis) -> Result<(), KeysError> {
        match self {
            Self::Files(files) => files.retire(before).await,
        }
    }
}

impl Signer for AnySigner {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::File(pair) => Signer::fingerprint(pair),
        }
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::File(pair) => Signer::public_key(pair),
        }
    }

    async fn sign(&self, text: &str) -> Result<Signature, SignError> {
        match self {
            Self::File(pair) => Signer::sign(pair, text).await,
        }
    }
}
