//! Event history: management events and Insight events of the last ninety days, by account and region, for LookupEvents.
//!
//! Another consumer of the journal, which knows nothing of trails and deliveries: every event is in it, whether a trail selects it or not. It is kept in
//! SQLite files of one day each ([`part`]), which one thread writes ([`follower`]) and lookups read ([`store`]). History can be made again from what the
//! journal still holds, and nothing else depends on it: a damaged file is put aside, and trouble with the disk makes it late, never the daemon.
//!
//! ```text
//!  attribute   what an event can be looked up by      resources   what it names, by service
//!  key         what postings are kept by              filter      which files need not be opened
//!  part        one file                               files       those that are written
//!  store       all of them, and lookups               feed        reads the journal
//!  follower    from the journal into the files
//! ```

pub mod attribute;
mod feed;
pub mod files;
pub mod filter;
pub mod follower;
pub mod key;
pub mod metrics;
pub mod part;
pub mod resources;
pub mod store;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::background::{self, Priority};
use crate::clock::WallMillis;
use crate::telemetry::chain;
use crate::wal::{Position, Wal};

pub use attribute::{Attribute, Facts};
pub use follower::{FollowError, Follower, Options};
pub use key::Scope;
pub use metrics::Metrics;
pub use store::{Page, Place, Query, Store};

/// Below `data_dir`.
pub const DIRECTORY: &str = "history";

/// Lookups that run at the same time; others wait.
const LOOKUPS: usize = 4;

/// Why a lookup has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("there is no event history for LookupEvents: history.enabled is false")]
    Off,
    #[error("event history could not be opened when the daemon was started")]
    Unavailable,
    #[error(transparent)]
    Store(#[from] store::LookupError),
    #[error("the lookup has stopped")]
    Task(#[from] JoinError),
}

/// What history may take from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of the disk that it leaves free.
    pub disk_reserve: u64,
    /// Bytes of the journal after which it brings to the disk what it has.
    pub held_bytes: u64,
}

/// Answers lookups. Clones share everything.
#[derive(Debug, Clone)]
pub struct History {
    kept: Kept,
    retention: Duration,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
enum Kept {
    Off,
    Unavailable,
    In(Arc<Store>),
}

impl History {
    fn new(kept: Kept, retention: Duration) -> Self {
        Self {
            kept,
            retention,
            permits: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// None is kept.
    pub fn off() -> Self {
        Self::new(Kept::Off, RETENTION)
    }

    /// Opens the history in `directory`. What is damaged in it is put aside; if it cannot be used at all, that is told, and lookups say so. Blocking.
    pub fn open(directory: &Path, journal: &Wal, retention: Duration, metrics: Metrics) -> Self {
        match Store::open(directory, journal.durable(), metrics) {
            Ok(store) => Self::of(Arc::new(store), retention),
            Err(error) => {
                tracing::error!(
                    directory = %directory.display(), %error,
                    "event history cannot be opened: events are accepted and delivered, but cannot be looked up until traild is started again"
                );
                Self::new(Kept::Unavailable, retention)
            }
        }
    }

    /// What is in a store and not older than `retention`.
    pub fn of(store: Arc<Store>, retention: Duration) -> Self {
        Self::new(Kept::In(store), retention)
    }

    /// What there is, if there is any.
    pub fn store(&self) -> Option<&Store> {
        match &self.kept {
            Kept::Off | Kept::Unavailable => None,
            Kept::In(store) => Some(store),
        }
    }

    /// What is to follow the journal into it, if there is any.
    pub fn follower(
        &self,
        journal: &Wal,
        bounds: Bounds,
        cut: watch::Receiver<Position>,
    ) -> Option<Follower> {
        let Kept::In(store) = &self.kept else {
            return None;
        };
        let options = Options {
            retention: self.retention,
            bounds,
        };
        Some(Follower::new(store.clone(), journal.clone(), options, cut))
    }

    /// The newest events that are asked for.
    pub async fn lookup(&self, mut query: Query) -> Result<Page, LookupError> {
        let store = match &self.kept {
            Kept::Off => return Err(LookupError::Off),
            Kept::Unavailable => return Err(LookupError::Unavailable),
            Kept::In(store) => store.clone(),
        };
        // Files go by the day, events by the second.
        let oldest = store::oldest_kept(self.retention, WallMillis::now());
        query.times.0 = query.times.0.max(oldest);
        let permits = self.permits.clone();
        let permit = permits.acquire_owned().await;
        let started = std::time::Instant::now();
        let page = tokio::task::spawn_blocking(move || {
            let page = store.lookup(&query);
            drop(permit);
            let took = started.elapsed().as_secs_f64();
            store.metrics().lookup_seconds.observe(took);
            page
        });
        Ok(page.await??)
    }
}

/// What a follower has to end when it is stopped.
const GRACE: Duration = Duration::from_millis(300);

/// How often it is told how far a follower is behind, whatever that one does.
const MEASURE_EVERY: Duration = Duration::from_millis(250);

/// Runs a follower on a thread of its own, until `stop`. It ends before only if the journal does.
pub async fn follow(mut follower: Follower, stop: CancellationToken) {
    let (progress, backlog) = (follower.progress(), follower.backlog());
    let (done, mut ended) = oneshot::channel();
    let stopped = stop.clone();
    let thread = std::thread::Builder::new().name("history".to_owned());
    // What this one reads with keeps the usual priority, so it is started here.
    let spawned = follower.start_reading(&stop).and_then(|()| {
        thread.spawn(move || {
            background::give_way(Priority::Lowest);
            // Nobody may be there any more.
            let _ = done.send(follower.run(&stop));
        })
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "the thread of the event history cannot be started");
    }
    let mut late = pin!(async {
        stopped.cancelled().await;
        tokio::time::sleep(GRACE).await;
    });
    let mut every = tokio::time::interval(MEASURE_EVERY);
    let running = &backlog.metrics().running;
    running.set(1);
    let outcome = loop {
        tokio::select! {
            outcome = &mut ended => break outcome,
            // It may wait long for a processor. What it does not finish is as after a crash: the next run does it.
            () = &mut late => return,
            _ = every.tick() => backlog.measure(),
        }
    };
    running.set(0);
    match outcome {
        Ok(Ok(())) => return,
        Ok(Err(error)) => {
            tracing::error!(error = %chain(&error), "the event history has stopped until traild is started again");
        }
        Err(_) => {
            tracing::error!("the event history's thread has ended until traild is started again");
        }
    }
    // Events go on being accepted and delivered: it does not hold the journal any more.
    progress.send_replace(Position(u64::MAX));
    while stopped.run_until_cancelled(every.tick()).await.is_some() {
        backlog.measure();
    }
}

/// By default: as long as AWS keeps it.
pub const RETENTION: Duration = Duration::from_secs(90 * 86_400);

#[cfg(test)]
mod tests;
