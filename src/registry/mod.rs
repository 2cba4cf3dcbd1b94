//! Every trail there is: those of the configuration file, and those that callers of the API have made; and every channel.
//!
//! ```text
//!  book   the trails as values: who keeps each, what it is tagged with, when it was started     file           their form on the disk
//!        channels   the channels as values                                                   channel_file   theirs
//!
//!  API ─► change(book) ─► trails.json, fsynced ─► generation ─► daemon ─► applied ─► the caller is answered
//! ```
//!
//! - A trail of the configuration file can be read here and not be changed; one of the API is in `data_dir/trails.json`.
//! - Changes come one after the other. Each is decided on a copy of the book, and is what everybody sees once it is on the disk; one that cannot be
//!   written has not happened.
//! - Channels are kept in the same way in `data_dir/channels.json`. A change is one of trails or one of channels; legs know of no channel.
//! - What legs have to know of it is a [`Generation`]. A change is answered when its generation runs, or after [`PATIENCE`] anyway: durable it
//!   is, and it runs sooner or later. At a stop nobody waits any more, and no change is made for a caller ([`Registry::stop`]).
//! - A trail that is deleted stays in the generations, and nowhere else, until [`Registry::forget`] says that all it had recorded before is
//!   delivered. One that is made under its ARN meanwhile takes over what is left of it.
//! - A file that is damaged is put aside under another name, and told of ([`kept`]): the daemon starts with the trails of its configuration.

pub mod book;
mod channel_file;
pub mod channels;
mod file;
mod kept;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::WallMillis;
use crate::trail::Trail;
use crate::wal::Position;

pub use book::{Book, Entry, KeptBy, NoRoom, StartedTooOften};
pub use book::{InsightSelector, Tag};
pub use channels::{Channel, Destination};

/// How long a caller waits for the legs to take a change up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Below `data_dir`.
const FILE: &str = "trails.json";
const CHANNELS_FILE: &str = "channels.json";

/// The trails. Clones share them.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    channels_path: PathBuf,
    /// Held while a change is decided and written.
    changing: Mutex<()>,
    book: Mutex<Arc<Book>>,
    generation: watch::Sender<Generation>,
    /// The number of the newest generation that runs.
    applied: watch::Sender<u64>,
    stopping: CancellationToken,
}

/// All trails, as legs are to run for them.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Greater with each.
    pub number: u64,
    /// No two have the same ARN.
    pub trails: Arc<[Arc<Trail>]>,
    /// The ARNs of those among them that are deleted: what they recorded before is still to be delivered.
    pub deleted: Arc<BTreeSet<String>>,
}

impl Generation {
    fn of(book: &Book, number: u64) -> Self {
        Self {
            number,
            trails: book.running().map(|entry| entry.trail.clone()).collect(),
            deleted: Arc::new(book.deleted().map(|entry| entry.trail.arn()).collect()),
        }
    }

    fn asks_for_the_same(&self, other: &Self) -> bool {
        self.trails == other.trails && self.deleted == other.deleted
    }
}

/// A change has not happened, as it could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the change in {path}")]
pub struct NotKept {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Registry {
    /// Blocking. `configured` are the file's trails.
    pub fn open(data_dir: &Path, configured: Vec<Trail>) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let channels_path = data_dir.join(CHANNELS_FILE);
        let now = WallMillis::now();
        let kept = file::read(&path, now)?;
        let channels = channel_file::read(&channels_path, now)?;
        let book = Book::new(configured, kept).with_channels(channels);
        let generation = watch::Sender::new(Generation::of(&book, 1));
        Ok(Self {
            shared: Arc::new(Shared {
                path,
                channels_path,
                changing: Mutex::default(),
                book: Mutex::new(Arc::new(book)),
                generation,
                applied: watch::Sender::new(0),
                stopping: CancellationToken::new(),
            }),
        })
    }

    /// All trails; a new value with each change, after it is durable.
    pub fn watch(&self) -> watch::Receiver<Generation> {
        self.shared.generation.subscribe()
    }

    /// The daemon tells that a generation's trails run.
    pub fn applied(&self, number: u64) {
        self.shared.applied.send_if_modified(|newest| {
            let is_newer = number > *newest;
            *newest = number.max(*newest);
            is_newer
        });
    }

    /// The trails as they are now.
    pub fn book(&self) -> Arc<Book> {
        lock(&self.shared.book).clone()
    }

    /// Decides a change on a copy of the book, and makes it. Answers when it is durable and runs; a change that `decide` refuses, or that
    /// cannot be written, has not happened. It is made also when nobody waits for the answer any more.
    pub async fn change<T, E>(
        &self,
        decide: impl FnOnce(&mut Book) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<NotKept> + Send + 'static,
    {
        let shared = self.shared.clone();
        let made = self.make(move |book| {
            if shared.stopping.is_cancelled() {
                let path = shared.path.clone();
                let source = io::Error::other("the daemon is stopping");
                return Err(NotKept { path, source }.into());
            }
            decide(book)
        });
        let (answer, number) = made.await?;
        let mut applied = self.shared.applied.subscribe();
        let runs = applied.wait_for(|newest| *newest >= number);
        let runs = tokio::time::timeout(PATIENCE, runs);
        let runs = self.shared.stopping.run_until_cancelled(runs).await;
        if matches!(runs, Some(Err(_))) {
            tracing::warn!(
                generation = number,
                "a change of trails is kept, and does not run yet"
            );
        }
        Ok(answer)
    }

    /// The daemon stops: changes that callers ask for are not made from now on, and those that are made are answered without waiting for the legs.
    pub fn stop(&self) {
        self.shared.stopping.cancel();
    }

    /// The daemon tells how far the legs of these trails had read the journal when they learned that logging was started or stopped: that is
    /// where it was. It is before the caller is answered, who waits for the legs.
    pub async fn settle(&self, arns: BTreeSet<String>, at: Position) -> Result<(), NotKept> {
        let settled = self.make(move |book| {
            book.settle(&arns, at);
            Ok::<_, NotKept>(())
        });
        settled.await.map(|((), _)| ())
    }

    /// The daemon tells that nothing is left to deliver of a trail that is deleted.
    pub async fn forget(&self, arn: &str) -> Result<(), NotKept> {
        let arn = arn.to_owned();
        let forgotten = self.make(move |book| {
            book.forget(&arn);
            Ok::<_, NotKept>(())
        });
        forgotten.await.map(|((), _)| ())
    }

    /// The answer, and the generation that has the change.
    async fn make<T, E>(
        &self,
        decide: impl FnOnce(&mut Book) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, u64), E>
    where
        T: Send + 'static,
        E: From<NotKept> + Send + 'static,
    {
        let shared = self.shared.clone();
        let made = crate::background::spawn_blocking(move || shared.make(decide));
        made.await.unwrap_or_else(|error| {
            let path = self.shared.path.clone();
            let source = io::Error::other(error);
            Err(NotKept { path, source }.into())
        })
    }
}

impl Shared {
    /// Blocking.
    fn make<T, E>(&self, decide: impl FnOnce(&mut Book) -> Result<T, E>) -> Result<(T, u64), E>
    where
        E: From<NotKept>,
    {
        let _alone = lock(&self.changing);
        let before = lock(&self.book).clone();
        let mut after = Book::clone(&before);
        let answer = decide(&mut after)?;
        let number = self.generation.borrow().number;
        if after == *before {
            return Ok((answer, number));
        }
        self.write(&before, &after)?;
        let next = Generation::of(&after, number + 1);
        *lock(&self.book) = Arc::new(after);
        if self.generation.borrow().asks_for_the_same(&next) {
            return Ok((answer, number));
        }
        self.generation.send_replace(next);
        Ok((answer, number + 1))
    }

    /// Only the file that has something new.
    fn write(&self, before: &Book, after: &Book) -> Result<(), NotKept> {
        let not_kept = |path: &Path| {
            let path = path.to_owned();
            move |source| NotKept { path, source }
        };
        if after.channels != before.channels {
            let path = &self.channels_path;
            channel_file::write(path, &after.channels).map_err(not_kept(path))?;
        }
        if !after.kept().eq(before.kept()) {
            file::write(&self.path, after).map_err(not_kept(&self.path))?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests;
