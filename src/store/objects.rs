//! Objects on disk: written aside, committed under their key's lock, read by an open file. Everything here blocks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::digests::{Claims, Hasher};
use super::error::StoreError;
use super::index::Entry;
use super::layout::{self, Facts, Headers};
use super::{Bucket, Store, Temporary, read, write};
use crate::clock::WallMillis;

/// S3's limit for one PUT or part.
pub const MAX_PUT_BYTES: u64 = 5 << 30;
const COPY_BYTES: usize = 256 << 10;

/// When a write may go ahead.
#[derive(Debug, Clone, Default)]
pub enum Precondition {
    #[default]
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match: "etag"`
    Etag(String),
}

impl Precondition {
    pub fn check(&self, current: Option<Entry>) -> Result<(), StoreError> {
        match (self, current) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => Ok(()),
            (Self::Present | Self::Etag(_), None) => Err(StoreError::NoSuchKey),
            (Self::Absent, Some(_)) => Err(StoreError::PreconditionFailed),
            (Self::Etag(etag), Some(entry)) if entry.etag() == *etag => Ok(()),
            (Self::Etag(_), Some(_)) => Err(StoreError::PreconditionFailed),
        }
    }
}

/// A body being written under `tmp/`.
pub struct Incoming {
    file: File,
    temporary: Temporary,
    hasher: Hasher,
    size: u64,
}

/// A body wholly written and fsynced with its facts, not yet visible.
pub struct Sealed {
    temporary: Temporary,
    facts: Facts,
}

impl Incoming {
    pub fn create(store: &Store, claims: &Claims) -> Result<Self, StoreError> {
        let temporary = store.temporary();
        let file = File::create_new(temporary.path()).map_err(StoreError::io("create a file"))?;
        Ok(Self {
            file,
            temporary,
            hasher: claims.hasher(),
            size: 0,
        })
    }

    pub fn write(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        for piece in pieces {
            self.size += piece.len() as u64;
            if self.size > MAX_PUT_BYTES {
                return Err(StoreError::EntityTooLarge);
            }
            self.hasher.update(piece);
            self.file
                .write_all(piece)
                .map_err(StoreError::io("write an object"))?;
        }
        Ok(())
    }

    /// Verifies what was received and makes it durable under its temporary name.
    pub fn seal(
        self,
        claims: &Claims,
        key: String,
        headers: Headers,
    ) -> Result<Sealed, StoreError> {
        let Self {
            file,
            temporary,
            hasher,
            size,
        } = self;
        let (md5, checksums) = claims.verify(hasher.finish())?;
        let facts = Facts {
            key,
            size,
            modified_millis: WallMillis::now().0,
            etag: hex::encode(md5),
            checksums,
            headers,
            part_sizes: Vec::new(),
        };
        seal(file, temporary, facts)
    }
}

/// Writes the facts behind the content and fsyncs both.
pub fn seal(mut file: File, temporary: Temporary, facts: Facts) -> Result<Sealed, StoreError> {
    let tail = layout::encode_tail(&facts).map_err(StoreError::io("encode an object's facts"))?;
    file.write_all(&tail)
        .and_then(|()| file.sync_data())
        .map_err(StoreError::io("write an object"))?;
    Ok(Sealed { temporary, facts })
}

impl Sealed {
    /// Moves the file to `path`; the caller holds whatever lock guards it and fsyncs the directory.
    pub fn rename_to(&self, path: &Path) -> io::Result<()> {
        fs::rename(self.temporary.path(), path)
    }

    pub fn into_facts(self) -> Facts {
        self.facts
    }
}

impl Bucket {
    /// Makes a sealed object the current one of its key, if `precondition` holds at that instant.
    pub(crate) fn commit(
        &self,
        sealed: Sealed,
        precondition: &Precondition,
    ) -> Result<Facts, StoreError> {
        let facts = &sealed.facts;
        let entry = Entry::new(facts.size, facts.modified_millis, &facts.etag)
            .ok_or(StoreError::InvalidArgument("malformed ETag".into()))?;
        let path = layout::object_path(&self.path, &facts.key);
        let shard = path.parent().unwrap_or(&self.path);

        let _alive = self.alive()?;
        let _key = write(self.key_lock(&facts.key));
        let current = read(&self.index).get(&facts.key);
        precondition.check(current)?;
        match sealed.rename_to(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_shard(shard).and_then(|()| sealed.rename_to(&path))
            }
            result => result,
        }
        .map_err(StoreError::io("put an object in place"))?;
        if let Err(error) = layout::sync_directory(shard) {
            // Not known to be durable, so not to be seen; an overwritten object cannot be brought back.
            match current {
                None => drop(fs::remove_file(&path)),
                Some(_) => write(&self.index).insert(&facts.key, entry),
            }
            return Err(StoreError::io("put an object in place")(error));
        }
        write(&self.index).insert(&facts.key, entry);
        Ok(sealed.into_facts())
    }

    pub(crate) fn entry(&self, key: &str) -> Option<Entry> {
        read(&self.index).get(key)
    }

    /// The current object of `key`: its open file stays readable whatever happens to the key.
    pub(crate) fn open(&self, key: &str) -> Result<(File, Facts), StoreError> {
        // A writer holds this lock until its object is durable: nothing is read that a crash could take back.
        let _key = read(self.key_lock(key));
        if read(&self.index).get(key).is_none() {
            return Err(StoreError::NoSuchKey);
        }
        let open = || {
            let file = File::open(layout::object_path(&self.path, key))?;
            let facts = layout::read_facts(&file)?;
            Ok((file, facts))
        };
        open().map_err(StoreError::io("read an object"))
    }

    /// Removes keys; those that do not exist are removed already. The first result is durable when all are returned.
    pub(crate) fn delete(
        &self,
        keys: Vec<(String, Precondition)>,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        let _alive = self.alive()?;
        let mut shards = BTreeSet::new();
        let results = keys.into_iter().map(|(key, precondition)| {
            let _key = write(self.key_lock(&key));
            let current = read(&self.index).get(&key);
            precondition.check(current)?;
            if current.is_none() {
                return Ok(());
            }
            let path = layout::object_path(&self.path, &key);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("delete an object")(error)),
            }
            write(&self.index).remove(&key);
            shards.extend(path.parent().map(Path::to_owned));
            Ok(())
        });
        let results = results.collect();
        for shard in shards {
            layout::sync_directory(&shard).map_err(StoreError::io("delete an object"))?;
        }
        Ok(results)
    }
}

fn make_shard(shard: &Path) -> io::Result<()> {
    match fs::create_dir(shard) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    layout::sync_directory(shard.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// A copy of `bytes` of an object under a temporary name, hashed on the way when `claims` are given.
pub fn copy_range(
    store: &Store,
    source: &File,
    bytes: std::ops::Range<u64>,
    claims: &Claims,
) -> Result<Incoming, StoreError> {
    let mut incoming = Incoming::create(store, claims)?;
    let mut at = bytes.start;
    while at < bytes.end {
        let take = usize::try_from(bytes.end - at)
            .unwrap_or(COPY_BYTES)
            .min(COPY_BYTES);
        let mut piece = vec![0; take];
        source
            .read_exact_at(&mut piece, at)
            .map_err(StoreError::io("read an object"))?;
        incoming.write(&[piece.into()])?;
        at += take as u64;
    }
    Ok(incoming)
}
