//! Which key signs a digest, and the public keys that ListPublicKeys gives out.
//!
//! Keys are in files, or one is in AWS KMS. The public parts are in the key directory in either case, and stay there for ever: what has signed once
//! is listed, also when something else signs today.
//!
//! In files each region has its own pair, which is valid for thirty days. The pair that signs is the one valid at the moment that the
//! digest is about: the end of its window, or the making of a backfill digest. Validators ask for the keys of about that moment (the AWS CLI: from its
//! `--start-time` to two hours after its `--end-time`), so a digest that is written late is still signed with the key of its time.
//!
//! In KMS one key signs for every region, for as long as the configuration names it; its validity holds every moment that it has signed for.

pub mod files;
pub mod kms;
pub mod public;

mod kept;

#[cfg(test)]
pub(crate) mod fake_kms;

pub use files::{FileKeys, KeysError};
pub use kms::{KmsKeys, KmsSigner};
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
    Kms(KmsKeys),
}

/// Whoever signs, of [`Keys`].
#[derive(Debug, Clone)]
pub enum AnySigner {
    File(Arc<KeyPair>),
    Kms(KmsSigner),
}

impl Keys {
    /// The signer in `region` of what is of the moment `at`.
    pub async fn signer(&self, region: Region, at: WallMillis) -> Result<AnySigner, KeysError> {
        match self {
            Self::Files(files) => files.signer(region, at).await.map(AnySigner::File),
            Self::Kms(kms) => kms.signer(at).await.map(AnySigner::Kms),
        }
    }

    /// The public keys of all regions that are valid in some part of `range`, by region and time. Asks nobody but the disk.
    pub async fn public_keys(
        &self,
        range: TimeRange,
    ) -> Result<Vec<(Region, PublicKey)>, KeysError> {
        self.directory().public_keys(range).await
    }

    /// Removes private keys in files that ended by `before`, up to which everything is signed.
    pub async fn retire(&self, before: WallMillis) -> Result<(), KeysError> {
        self.directory().retire(before).await
    }

    fn directory(&self) -> &FileKeys {
        match self {
            Self::Files(files) => files,
            Self::Kms(kms) => kms.directory(),
        }
    }
}

impl Signer for AnySigner {
    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::File(pair) => Signer::fingerprint(pair),
            Self::Kms(signer) => signer.fingerprint(),
        }
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::File(pair) => Signer::public_key(pair),
            Self::Kms(signer) => signer.public_key(),
        }
    }

    async fn sign(&self, text: &str) -> Result<Signature, SignError> {
        match self {
            Self::File(pair) => Signer::sign(pair, text).await,
            Self::Kms(signer) => signer.sign(text).await,
        }
    }
}
