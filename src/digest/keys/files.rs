//! Keys in a directory of the machine: made on first use, replaced every thirty days, the public ones kept for ever.
//!
//! ```text
//! <key_dir>/                                        0700; refused when anyone else has rights to it
//!   <region>.<fingerprint>.private.der              0400, PKCS#8
//!   <region>.<fingerprint>.public.json              a `PublicKeyList` member: the key and its validity
//!   <region>.<fingerprint>.kms.json                 the same, of a key in AWS KMS in that region ([`kept`](super::kept))
//! ```
//!
//! Public keys are listed whoever signs today: pairs of files while AWS KMS signs, and keys of KMS after it.
//!
//! A pair is there when its public file is: that one is written last, when the private one is durable. What a crash leaves before that
//! is never signed with and never listed. The validity of a region's pairs follows without gaps for as long as digests are signed, so that at each
//! moment there is one pair, and the same moment always gives the same.
//!
//! A private key that is lost or damaged is reported, and a new pair takes its place for the same time: what the old one
//! has signed still verifies. The private part of a pair is removed when nothing of its time is left to sign ([`FileKeys::retire`]), so that a thief of the
//! directory cannot sign older history anew.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::kept::Kept;
use super::kms::KmsError;
use super::{PublicKey, TimeRange};
use crate::clock::WallMillis;
use crate::digest::hex::Fingerprint;
use crate::digest::moment;
use crate::digest::sign::{KeyError, KeyPair};
use crate::event::Region;
use crate::snapshot;

/// Seconds for which a pair signs.
pub const VALIDITY: i64 = 30 * 86_400;
const PRIVATE: &str = "private.der";
const PUBLIC: &str = "public.json";
const KMS: &str = "kms.json";
const UNFINISHED: &str = ".new";

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("others have rights to the key directory {path} (mode {mode:04o})\n  hint: chmod 700 {path}", path = path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("cannot use the key directory {path}", path = path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {path} in the key directory", path = path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Kms(#[from] KmsError),
    #[error("the daemon is stopping")]
    Stopping,
}

/// The key directory. Clones share it. No other process may write there.
#[derive(Debug, Clone)]
pub struct FileKeys {
    // Held only by blocking threads, also while a pair is made: two callers would make two.
    directory: Arc<Mutex<Directory>>,
}

impl FileKeys {
    /// Makes the directory when there is none. Blocking.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let directory = Directory::open(path)?;
        Ok(Self {
            directory: Arc::new(Mutex::new(directory)),
        })
    }

    /// The pair that signs in `region` what is of the moment `at`, made when there is none yet.
    pub async fn signer(&self, region: Region, at: WallMillis) -> Result<Arc<KeyPair>, KeysError> {
        self.blocking(move |directory| directory.signer(region, at.unix_seconds()))
            .await?
    }

    /// The public keys of all regions that are valid in some part of `range`, by region and time.
    pub async fn public_keys(
        &self,
        range: TimeRange,
    ) -> Result<Vec<(Region, PublicKey)>, KeysError> {
        self.blocking(move |directory| directory.public_keys(range))
            .await
    }

    /// Sees to it that the public key of KMS with this DER (PKCS#1) is listed for `at`. It may sign for that moment when this returns.
    pub(super) async fn keep(
        &self,
        region: Region,
        der: Vec<u8>,
        at: WallMillis,
    ) -> Result<(), KeysError> {
        self.blocking(move |directory| directory.keep(region, &der, at.unix_seconds()))
            .await?
    }

    /// Removes the private keys that ended by `before`, up to which everything is signed. A key that cannot be removed is reported.
    pub async fn retire(&self, before: WallMillis) -> Result<(), KeysError> {
        self.blocking(move |directory| directory.retire(before.unix_seconds()))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Directory) -> T + Send + 'static,
    ) -> Result<T, KeysError> {
        let directory = Arc::clone(&self.directory);
        let task = crate::background::spawn_blocking(move || {
            // What it remembers is what is on disk, after each step.
            work(&mut directory.lock().unwrap_or_else(PoisonError::into_inner))
        });
        task.await.map_err(|_| KeysError::Stopping)
    }
}

/// Whether the key directory may be used: there is none yet, or one that nobody else has rights to. Changes nothing. Blocking.
pub fn check(path: &Path) -> Result<(), KeysError> {
    let unusable = |source| KeysError::Directory {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(unusable)?,
    };
    if !metadata.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// The directory and what is known of it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// By start of validity.
    regions: BTreeMap<Region, Vec<Entry>>,
    kept: Kept,
}

#[derive(Debug)]
struct Entry {
    public: PublicKey,
    /// Once it was read.
    pair: Option<Arc<KeyPair>>,
}

/// Why the private part of a pair is not at hand, and will not be.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("{0}")]
    Damaged(KeyError),
    #[error("it belongs to another public key")]
    Other,
}

impl Directory {
    fn open(path: &Path) -> Result<Self, KeysError> {
        let unusable = |source| KeysError::Directory {
            path: path.to_owned(),
            source,
        };
        snapshot::make_private_dir(path).map_err(unusable)?;
        check(path)?;
        let mut directory = Self {
            path: path.to_owned(),
            regions: BTreeMap::new(),
            kept: Kept::default(),
        };
        for entry in fs::read_dir(path).map_err(unusable)? {
            let name = entry.map_err(unusable)?.file_name();
            if let Some(name) = name.to_str() {
                directory.take_in(name)?;
            }
        }
        for entries in directory.regions.values_mut() {
            entries.sort_by_key(|entry| (entry.public.start, entry.public.fingerprint()));
        }
        Ok(directory)
    }

    /// Takes in a file found there. Files with other names than ours are left alone.
    fn take_in(&mut self, name: &str) -> Result<(), KeysError> {
        let path = self.path.join(name);
        let failed = |source| KeysError::File {
            path: path.clone(),
            source,
        };
        let (whole, is_unfinished) = match name.strip_suffix(UNFINISHED) {
            Some(whole) => (whole, true),
            None => (name, false),
        };
        let Some((region, fingerprint, what)) = parse_name(whole) else {
            return Ok(());
        };
        if is_unfinished {
            return fs::remove_file(&path).map_err(failed);
        }
        if what == PRIVATE {
            return Ok(());
        }
        let json = fs::read(&path).map_err(failed)?;
        match serde_json::from_slice::<PublicKey>(&json) {
            Ok(public) if public.fingerprint() == fingerprint && what == KMS => {
                self.kept.put(region, public);
            }
            Ok(public) if public.fingerprint() == fingerprint => {
                let entry = Entry { public, pair: None };
                self.regions.entry(region).or_default().push(entry);
            }
            Ok(public) => tracing::error!(
                path = %path.display(), fingerprint = %public.fingerprint(),
                "public key is not the one of its name, its digests cannot be verified"
            ),
            Err(error) => tracing::error!(
                path = %path.display(), %error,
                "public key cannot be read, its digests cannot be verified"
            ),
        }
        Ok(())
    }

    fn signer(&mut self, region: Region, at: i64) -> Result<Arc<KeyPair>, KeysError> {
        let entries = self.regions.get(&region).map_or(&[][..], Vec::as_slice);
        let mut lost = Vec::new();
        let mut found = None;
        for (index, entry) in entries.iter().enumerate() {
            if !entry.public.is_valid_at(at) {
                continue;
            }
            if let Some(pair) = &entry.pair {
                return Ok(Arc::clone(pair));
            }
            match self.load(region, &entry.public)? {
                Ok(pair) => {
                    found = Some((index, Arc::new(pair)));
                    break;
                }
                Err(why) => lost.push((entry.public.fingerprint(), why)),
            }
        }
        if let Some((index, pair)) = found {
            if let Some(entry) = self
                .regions
                .get_mut(&region)
                .and_then(|it| it.get_mut(index))
            {
                entry.pair = Some(Arc::clone(&pair));
            }
            return Ok(pair);
        }
        for (fingerprint, why) in lost {
            tracing::error!(
                %region, %fingerprint, %why, path = %file(&self.path, region, fingerprint, PRIVATE).display(),
                "private key of digests is lost, a new pair takes its place; what it has signed still verifies"
            );
        }
        self.make(region, at)
    }

    /// Reads the private part of a pair. An error of the disk that may pass is the outer one.
    fn load(&self, region: Region, public: &PublicKey) -> Result<Result<KeyPair, Lost>, KeysError> {
        let path = file(&self.path, region, public.fingerprint(), PRIVATE);
        let mut pkcs8 = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) => {
                return match source.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                        Ok(Err(Lost::Unreadable(source)))
                    }
                    _ => Err(KeysError::File { path, source }),
                };
            }
        };
        let pair = KeyPair::from_pkcs8(&pkcs8);
        pkcs8.fill(0);
        // Or the compiler could leave that out.
        std::hint::black_box(&pkcs8);
        Ok(match pair {
            Ok(pair) if pair.public_key() == public.der() => Ok(pair),
            Ok(_) => Err(Lost::Other),
            Err(error) => Err(Lost::Damaged(error)),
        })
    }

    /// Makes a pair that is valid at this moment.
    fn make(&mut self, region: Region, at: i64) -> Result<Arc<KeyPair>, KeysError> {
        let entries = self.regions.entry(region).or_default();
        let (start, end) = validity(entries.iter().map(|entry| &entry.public), at);
        let pair = KeyPair::generate()?;
        let public = PublicKey::new(pair.public_key().to_vec(), start, end);
        let fingerprint = pair.fingerprint();

        let paths = [PRIVATE, PUBLIC].map(|what| file(&self.path, region, fingerprint, what));
        let written = write_pair(&pair, &public, &paths);
        if written.is_err() {
            // The caller tries again for ever, and each time with a new pair: a full disk must not fill up with them.
            for path in &paths {
                let _ = fs::remove_file(path);
            }
        }
        written?;
        tracing::info!(
            %region, %fingerprint,
            from = moment::text(start), until = moment::text(end),
            "new key for digests"
        );

        let pair = Arc::new(pair);
        let entries = self.regions.entry(region).or_default();
        entries.push(Entry {
            public,
            pair: Some(Arc::clone(&pair)),
        });
        entries.sort_by_key(|entry| (entry.public.start, entry.public.fingerprint()));
        Ok(pair)
    }

    /// Removes the private parts of pairs that ended by then.
    fn retire(&mut self, before: i64) {
        for (region, entries) in &mut self.regions {
            for Entry { public, pair } in entries.iter_mut().filter(|it| it.public.end <= before) {
                *pair = None;
                let fingerprint = public.fingerprint();
                let path = file(&self.path, *region, fingerprint, PRIVATE);
                match fs::remove_file(&path) {
                    Ok(()) => {
                        tracing::info!(%region, %fingerprint, "private key of old digests removed");
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(
                        path = %path.display(), %error,
                        "private key of old digests cannot be removed"
                    ),
                }
            }
        }
    }

    fn public_keys(&self, range: TimeRange) -> Vec<(Region, PublicKey)> {
        let all = self.regions.iter().flat_map(|(region, entries)| {
            let keys = entries.iter().map(|entry| entry.public.clone());
            keys.map(move |key| (*region, key))
        });
        let all = all.chain(self.kept.iter().cloned());
        let mut found: Vec<_> = all.filter(|(_, key)| range.touches(key)).collect();
        found.sort_by_key(|(region, key)| (*region, key.start, key.fingerprint()));
        found
    }

    fn keep(&mut self, region: Region, der: &[u8], at: i64) -> Result<(), KeysError> {
        let Some(public) = self.kept.wanting(region, der, at) else {
            return Ok(());
        };
        let fingerprint = public.fingerprint();
        write_public(&public, &file(&self.path, region, fingerprint, KMS))?;
        tracing::info!(
            %region, %fingerprint,
            from = moment::text(public.start), until = moment::text(public.end),
            "key of AWS KMS for digests"
        );
        self.kept.put(region, public);
        Ok(())
    }
}

/// Writes the private file, and when that is durable the public one.
fn write_pair(
    pair: &KeyPair,
    public: &PublicKey,
    [private_path, public_path]: &[PathBuf; 2],
) -> Result<(), KeysError> {
    let pkcs8 = pair.to_pkcs8()?;
    snapshot::replace_secret(private_path, pkcs8.as_ref()).map_err(|source| KeysError::File {
        path: private_path.clone(),
        source,
    })?;
    write_public(public, public_path)
}

fn write_public(public: &PublicKey, path: &Path) -> Result<(), KeysError> {
    let json = serde_json::to_vec(public).expect("public key: text and numbers always serialise");
    snapshot::replace(path, &json).map_err(|source| KeysError::File {
        path: path.to_owned(),
        source,
    })
}

/// When a new pair is valid that signs at `at`, beside those of its region: in the place of a lost one; else from where the one
/// before ends, if that is not long ago, to where the next begins.
fn validity<'a>(others: impl Iterator<Item = &'a PublicKey> + Clone, at: i64) -> (i64, i64) {
    if let Some(lost) = others.clone().find(|key| key.is_valid_at(at)) {
        return (lost.start, lost.end);
    }
    let before = others.clone().map(|key| key.end).filter(|end| *end <= at);
    let after = others.map(|key| key.start).filter(|start| *start > at);
    let recent = before
        .max()
        .filter(|end| at.saturating_sub(*end) < VALIDITY);
    let start = recent.unwrap_or(at);
    let whole = start.saturating_add(VALIDITY);
    (start, after.min().map_or(whole, |next| next.min(whole)))
}

fn file(directory: &Path, region: Region, fingerprint: Fingerprint, what: &str) -> PathBuf {
    directory.join(format!("{region}.{fingerprint}.{what}"))
}

/// The region, the fingerprint, and which of their files it is. Nothing for names that are not ours.
fn parse_name(name: &str) -> Option<(Region, Fingerprint, &'static str)> {
    let (region, rest) = name.split_once('.')?;
    let (fingerprint, what) = rest.split_once('.')?;
    let what = [PRIVATE, PUBLIC, KMS].into_iter().find(|it| *it == what)?;
    Some((region.parse().ok()?, fingerprint.parse().ok()?, what))
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
