//! The embedded object store: buckets under a directory, served over the S3 protocol to any S3 client.
//!
//! # What is promised
//!
//! - A write that was answered with success is on disk: content and metadata in one file, fsynced, renamed into place, its
//!   directory fsynced. A write that was not is either wholly there or not at all.
//! - Conditional writes (`If-None-Match: *`, `If-Match`) are decided and carried out under one lock per key. A `412` for an
//!   existing object is only answered when that object is durable.
//! - A reader gets one object whole: the one that was current when it asked, even while it is overwritten or deleted.
//! - Credentials are not checked: the store listens on loopback. Encryption headers are kept and returned, nothing is
//!   encrypted; access control lists are accepted and mean nothing. There are no versions.
//!
//! # Why a crash leaves whole objects only
//!
//! An object is one file with a checksummed footer (see [`layout`]), written under `tmp/`, fsynced, and renamed over the
//! object's own name, which is the hash of its key. A crash before the rename leaves a file in `tmp/`, which the next open
//! removes; a crash after it leaves the new object. The file system may lose a rename whose directory was not fsynced: then
//! the old object is there, and the new one was not yet answered. Content and metadata cannot part: they are one file.
//! What does not verify at open (a disk that lied) is moved to `damaged/` and logged, never served and never removed.
//!
//! # Memory
//!
//! The keys of all buckets are held in order in memory (see [`index`]): about 65 bytes for a CloudTrail log file. They are
//! read from the files at open. Bodies pass through in pieces of [`body::PIECE_BYTES`].
//!
//! s3s logs every refused request as an error, a missing key too: filter it with `s3s=off`; failures of the disk are
//! logged here.

mod adapter;
mod body;
mod digests;
mod error;
mod index;
mod layout;
mod list;
mod multipart;
mod objects;
mod server;
mod service;

pub use error::StoreError;
pub use server::serve;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio_util::task::TaskTracker;

use crate::clock::WallMillis;
use index::{Entry, Index};
use layout::{BucketFacts, Facts};

/// Writers of different keys rarely meet; writers of one key always do.
const KEY_LOCKS: usize = 64;
const SCAN_THREADS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {attempt} {path}", path = path.display())]
    Io {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store in {directory} is open in another process", directory = directory.display())]
    InUse { directory: PathBuf },
    #[error("the store in {directory} has format {found:?}, this version knows {known:?}: if no later version has written to it, its file {marker} is damaged and may be removed", marker = layout::MARKER, directory = directory.display())]
    UnknownFormat {
        directory: PathBuf,
        found: String,
        known: String,
    },
}

/// An open store; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
    /// Held while a bucket is created or deleted on disk, so that `buckets` itself is only ever held for an instant.
    changing_buckets: Mutex<()>,
    next_temporary: AtomicU64,
    /// Blocking work in progress, some of it for clients that have gone.
    tasks: TaskTracker,
    /// Held locked for as long as the store is open.
    _marker: File,
}

pub(crate) struct Bucket {
    path: PathBuf,
    /// False once deleted; held for reading by everything that changes the bucket's files.
    alive: RwLock<bool>,
    facts: Mutex<BucketFacts>,
    index: RwLock<Index>,
    key_locks: [RwLock<()>; KEY_LOCKS],
    upload_locks: [Mutex<()>; KEY_LOCKS],
}

/// A file under `tmp/` that goes away unless it was renamed.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone after a rename; what a failure leaves, the next open removes.
        let _ = fs::remove_file(&self.0);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.0.directory).finish()
    }
}

/// Creates the directory and those above it, and makes their names durable: a crash must not take the objects along that are in it.
fn create_directory(path: &Path) -> std::io::Result<()> {
    use crate::wal::{Disk as _, RealDisk};
    RealDisk.create_directory(path)
}

impl Store {
    /// Opens the store in `directory`, creating it when there is none, and reads the names of all its objects.
    /// It blocks on the disk.
    pub fn open(directory: PathBuf) -> Result<Self, OpenError> {
        let at = |attempt: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io {
                attempt,
                path,
                source,
            }
        };
        for path in [
            directory.clone(),
            directory.join("tmp"),
            directory.join("damaged"),
            directory.join("buckets"),
        ] {
            create_directory(&path).map_err(at("create directory", &path))?;
        }
        let marker = lock_marker(&directory)?;
        layout::sync_directory(&directory).map_err(at("sync directory", &directory))?;
        empty_directory(&directory.join("tmp"))
            .map_err(at("empty directory", &directory.join("tmp")))?;

        let buckets = scan::buckets(&directory)?;
        Ok(Self(Arc::new(Inner {
            directory,
            buckets: RwLock::new(buckets),
            changing_buckets: Mutex::new(()),
            next_temporary: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            _marker: marker,
        })))
    }

    fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    fn temporary(&self) -> Temporary {
        let number = self.0.next_temporary.fetch_add(1, Ordering::Relaxed);
        Temporary(self.0.directory.join("tmp").join(number.to_string()))
    }

    pub(crate) fn bucket(&self, name: &str) -> Result<Arc<Bucket>, StoreError> {
        read(&self.0.buckets)
            .get(name)
            .cloned()
            .ok_or(StoreError::NoSuchBucket)
    }

    pub(crate) fn bucket_names(&self) -> Vec<(String, BucketFacts)> {
        read(&self.0.buckets)
            .iter()
            .map(|(name, bucket)| (name.clone(), bucket.facts()))
            .collect()
    }

    /// Creates a bucket. `name` was checked against the naming rules, which also make it a safe file name.
    pub(crate) fn create_bucket(
        &self,
        name: &str,
        location: Option<String>,
    ) -> Result<(), StoreError> {
        let _changing = lock(&self.0.changing_buckets);
        if self.bucket(name).is_ok() {
            return Err(StoreError::BucketAlreadyOwnedByYou);
        }
        let facts = BucketFacts {
            version: layout::VERSION,
            created_millis: WallMillis::now().0,
            location,
            ..BucketFacts::default()
        };
        let path = self.bucket_path(name);
        let temporary = self.temporary();
        let made = make_bucket_directory(temporary.path(), &path, &facts);
        if made.is_err() {
            let _ = fs::remove_dir_all(temporary.path());
        }
        made.map_err(StoreError::io("create the bucket"))?;
        write(&self.0.buckets).insert(name.to_owned(), Arc::new(Bucket::new(path, facts)));
        Ok(())
    }

    /// Deletes an empty bucket; multipart uploads in progress go with it, as in S3.
    pub(crate) fn delete_bucket(&self, name: &str) -> Result<(), StoreError> {
        let _changing = lock(&self.0.changing_buckets);
        let bucket = self.bucket(name)?;
        let mut alive = write(&bucket.alive);
        if !read(&bucket.index).is_empty() {
            return Err(StoreError::BucketNotEmpty);
        }
        let grave = self.temporary();
        fs::rename(&bucket.path, grave.path()).map_err(StoreError::io("delete the bucket"))?;
        *alive = false;
        write(&self.0.buckets).remove(name);
        layout::sync_directory(&self.0.directory.join("buckets"))
            .map_err(StoreError::io("delete the bucket"))?;
        fs::remove_dir_all(grave.path()).map_err(StoreError::io("delete the bucket"))
    }

    fn bucket_path(&self, name: &str) -> PathBuf {
        self.0.directory.join("buckets").join(name)
    }
}

impl Bucket {
    fn new(path: PathBuf, facts: BucketFacts) -> Self {
        Self {
            path,
            alive: RwLock::new(true),
            facts: Mutex::new(facts),
            index: RwLock::default(),
            key_locks: std::array::from_fn(|_| RwLock::new(())),
            upload_locks: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    pub(crate) fn facts(&self) -> BucketFacts {
        lock(&self.facts).clone()
    }

    /// Changes `bucket.json` durably.
    pub(crate) fn change_facts(
        &self,
        store: &Store,
        change: impl FnOnce(&mut BucketFacts),
    ) -> Result<(), StoreError> {
        let _alive = self.alive()?;
        let mut facts = lock(&self.facts);
        let mut changed = facts.clone();
        change(&mut changed);
        let bytes = serde_json::to_vec(&changed)
            .map_err(|error| StoreError::io("encode the bucket's facts")(error.into()))?;
        layout::replace_small(
            store.temporary().path(),
            &self.path.join("bucket.json"),
            &bytes,
        )
        .map_err(StoreError::io("write the bucket's facts"))?;
        *facts = changed;
        Ok(())
    }

    /// Keeps the bucket from being deleted while held.
    fn alive(&self) -> Result<RwLockReadGuard<'_, bool>, StoreError> {
        let alive = read(&self.alive);
        if *alive {
            Ok(alive)
        } else {
            Err(StoreError::NoSuchBucket)
        }
    }

    fn key_lock(&self, key: &str) -> &RwLock<()> {
        &self.key_locks[crc32fast::hash(key.as_bytes()) as usize % KEY_LOCKS]
    }

    fn upload_lock(&self, id: &str) -> &Mutex<()> {
        &self.upload_locks[crc32fast::hash(id.as_bytes()) as usize % KEY_LOCKS]
    }

    pub(crate) fn list(&self, query: &list::Query) -> list::Page {
        list::page(&read(&self.index), query)
    }
}

fn lock_marker(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(layout::MARKER);
    let at = |attempt: &'static str| {
        let path = path.clone();
        move |source| OpenError::Io {
            attempt,
            path,
            source,
        }
    };
    let mut marker = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(at("open"))?;
    match marker.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::InUse {
                directory: directory.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(at("lock")(source)),
    }
    let known = format!("{} {}\n", layout::MARKER, layout::VERSION);
    let mut found = Vec::new();
    (&marker)
        .take(64)
        .read_to_end(&mut found)
        .map_err(at("read"))?;
    let found = String::from_utf8_lossy(&found).into_owned();
    // A crash while it was written leaves its beginning.
    if found != known {
        if !known.starts_with(&found) {
            let (found, known) = (found.trim_end().to_owned(), known.trim_end().to_owned());
            return Err(OpenError::UnknownFormat {
                directory: directory.to_owned(),
                found,
                known,
            });
        }
        marker
            .write_all(&known.as_bytes()[found.len()..])
            .map_err(at("write"))?;
        marker.sync_all().map_err(at("write"))?;
    }
    Ok(marker)
}

fn empty_directory(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make_bucket_directory(temporary: &Path, path: &Path, facts: &BucketFacts) -> io::Result<()> {
    fs::create_dir(temporary)?;
    fs::create_dir(temporary.join("objects"))?;
    fs::create_dir(temporary.join("uploads"))?;
    let mut file = File::create(temporary.join("bucket.json"))?;
    file.write_all(&serde_json::to_vec(facts)?)?;
    file.sync_all()?;
    layout::sync_directory(temporary)?;
    fs::rename(temporary, path)?;
    layout::sync_directory(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// Reading the names of all objects at open.
mod scan {
    use super::*;

    pub fn buckets(directory: &Path) -> Result<BTreeMap<String, Arc<Bucket>>, OpenError> {
        let mut buckets = BTreeMap::new();
        let mut shards = Vec::new();
        let all = directory.join("buckets");
        for path in entries(&all)? {
            let Some(name) = path
                .file_name()
                .and_then(|name| name.to_str())
                .map(str::to_owned)
            else {
                continue;
            };
            let bucket = Arc::new(Bucket::new(path.clone(), bucket_facts(&path)?));
            for shard in entries(&path.join("objects"))? {
                shards.push((bucket.clone(), shard));
            }
            buckets.insert(name, bucket);
        }
        let shards = Mutex::new(shards);
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(SCAN_THREADS));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| scan_shards(directory, &shards)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| match worker.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })?;
        Ok(buckets)
    }

    fn scan_shards(
        directory: &Path,
        shards: &Mutex<Vec<(Arc<Bucket>, PathBuf)>>,
    ) -> Result<(), OpenError> {
        loop {
            let Some((bucket, shard)) = lock(shards).pop() else {
                return Ok(());
            };
            for path in entries(&shard)? {
                match object(&bucket, &path) {
                    Ok((key, entry)) => write(&bucket.index).insert(&key, entry),
                    Err(error) if is_damage(&error) => set_aside(directory, &path, &error)?,
                    Err(source) => {
                        return Err(OpenError::Io {
                            attempt: "read object",
                            path,
                            source,
                        });
                    }
                }
            }
        }
    }

    fn object(bucket: &Bucket, path: &Path) -> io::Result<(String, Entry)> {
        let facts: Facts = layout::read_facts(&File::open(path)?)?;
        if layout::object_path(&bucket.path, &facts.key) != path {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not where its key belongs",
            ));
        }
        let entry = Entry::new(facts.size, facts.modified_millis, &facts.etag)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its ETag is malformed"))?;
        Ok((facts.key, entry))
    }

    fn is_damage(error: &io::Error) -> bool {
        use io::ErrorKind::*;
        matches!(
            error.kind(),
            InvalidData | UnexpectedEof | InvalidInput | Other | IsADirectory
        )
    }

    fn set_aside(directory: &Path, path: &Path, error: &io::Error) -> Result<(), OpenError> {
        let name: Vec<_> = path
            .components()
            .rev()
            .take(4)
            .map(|part| part.as_os_str().to_string_lossy())
            .collect();
        let to = directory
            .join("damaged")
            .join(name.into_iter().rev().collect::<Vec<_>>().join("-"));
        tracing::error!(path = %path.display(), moved_to = %to.display(), %error, "an object is damaged and was set aside");
        fs::rename(path, &to).map_err(|source| OpenError::Io {
            attempt: "set aside",
            path: path.to_owned(),
            source,
        })
    }

    fn bucket_facts(path: &Path) -> Result<BucketFacts, OpenError> {
        let file = path.join("bucket.json");
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => {
                return Err(OpenError::Io {
                    attempt: "read",
                    path: file,
                    source,
                });
            }
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::error!(path = %file.display(), %error, "a bucket's facts are damaged; its objects are served without them");
            BucketFacts { version: layout::VERSION, ..BucketFacts::default() }
        }))
    }

    fn entries(directory: &Path) -> Result<Vec<PathBuf>, OpenError> {
        let listed = fs::read_dir(directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        listed.map_err(|source| OpenError::Io {
            attempt: "list",
            path: directory.to_owned(),
            source,
        })
    }
}

// A thread that panicked while it held one of these left no half-made change: each guards one assignment or insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
