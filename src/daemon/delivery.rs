//! Everything between the two logs and the destinations: the legs of the trails there are, as long as they stay what they are.
//!
//! When trails change, all legs stop, as they would with the daemon, and new ones begin from what the ledger and the cursors remember. Events
//! are accepted meanwhile; they are delivered by the new legs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use super::legs::{Ground, Legs, is_drained};
use super::stage::Stage;
use super::status::{self, TrailView};
use super::trim::Trimmer;
use crate::deliver::s3::{self, OnStop, Progress};
use crate::ingest::dedup::Sidecars;
use crate::ledger::{Entry, Replay};
use crate::registry::{Generation, Registry};
use crate::telemetry::chain;
use crate::trail::Trail;
use crate::wal::Position;

/// How long legs that make way for others may take to stop.
const MAKE_WAY: Duration = Duration::from_secs(30);

/// How the trails do, always those of the legs that run.
pub type Views = watch::Receiver<Arc<Vec<TrailView>>>;

/// The legs, and what keeps them up to date.
pub struct Delivery {
    ground: Ground,
    sidecars: Arc<Mutex<Sidecars>>,
    /// Told to the legs when the daemon stops, and not when they make way for others.
    on_stop: watch::Sender<OnStop>,
    stage: Stage,
    registry: Registry,
    wanted: watch::Receiver<Generation>,
    views: watch::Sender<Arc<Vec<TrailView>>>,
    /// The trails whose legs run.
    trails: Arc<[Arc<Trail>]>,
    /// The ARNs of those among them that are deleted.
    deleted: Arc<BTreeSet<String>>,
}

/// What a delivery is started with, besides its ground.
pub struct Parts {
    pub sidecars: Sidecars,
    /// Told to the legs when the daemon stops.
    pub on_stop: watch::Sender<OnStop>,
    pub registry: Registry,
}

impl Delivery {
    /// Starts the legs. A trail that the ledger does not know begins at `new_from`.
    pub async fn start(
        ground: Ground,
        replay: Replay,
        new_from: Position,
        parts: Parts,
    ) -> Result<Self, DaemonError> {
        let Parts {
            sidecars,
            on_stop,
            registry,
        } = parts;
        let mut delivery = Self {
            ground,
            sidecars: Arc::new(Mutex::new(sidecars)),
            on_stop,
            stage: Stage::new(),
            wanted: registry.watch(),
            registry,
            views: watch::Sender::default(),
            trails: Arc::new([]),
            deleted: Arc::default(),
        };
        delivery.begin(replay, new_from).await?;
        Ok(delivery)
    }

    pub fn views(&self) -> Views {
        self.views.subscribe()
    }

    async fn begin(&mut self, replay: Replay, new_from: Position) -> Result<(), DaemonError> {
        let Generation {
            number,
            trails,
            deleted,
        } = self.wanted.borrow_and_update().clone();
        self.stage = Stage::new();
        let legs = Legs::start(&self.ground, &trails, replay, new_from, &mut self.stage);
        let Legs {
            views,
            progress,
            digests,
            journal_followers,
            ledger_followers,
            checkpoint_wanted,
        } = legs.await?;
        for (trail, progress) in trails.iter().zip(&progress) {
            if deleted.contains(&trail.arn()) {
                self.watch_for_the_end_of(trail, progress.clone());
            }
        }
        (self.trails, self.deleted) = (trails, deleted);
        let config = &self.ground.config;
        let trimmer = Trimmer {
            journal: self.ground.journal.clone(),
            ledger: self.ground.ledger.clone(),
            sidecars: self.sidecars.clone(),
            progress,
            digests,
            journal_followers,
            ledger_followers,
            history: self.ground.history.clone(),
            journal_max_bytes: config.journal.max_bytes,
            journal_on_full: config.journal.on_full,
            checkpoint_wanted,
        };
        self.stage.spawn(|stop| {
            Box::pin(async move {
                trimmer.run(stop).await;
                Ok(())
            })
        });
        let former = self.views.send_replace(views.clone());
        status::succeed(&former, &views);
        self.registry.applied(number);
        Ok(())
    }

    /// Runs until `stop`; open batches are then left or delivered, as `on_stop` says.
    pub async fn run(
        mut self,
        on_stop: OnStop,
        stop: CancellationToken,
    ) -> Result<(), DaemonError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.on_stop.send_replace(on_stop);
                    let patience = match on_stop {
                        OnStop::Leave => Duration::from_secs(1),
                        OnStop::Flush(within) => within + Duration::from_secs(1),
                    };
                    self.stage.stop(patience).await;
                    return Ok(());
                }
                error = self.stage.ended() => return Err(error),
                Ok(()) = self.wanted.changed() => {
                    let generation = self.wanted.borrow().number;
                    tracing::info!(generation, "trails have changed, their legs begin anew");
                    self.stage.stop(MAKE_WAY).await;
                    self.settle().await;
                    self.forget().await?;
                    let replay = self.replay().await?;
                    let new_from = self.ground.journal.durable();
                    self.begin(replay, new_from).await?;
                }
            }
        }
    }

    fn watch_for_the_end_of(&mut self, trail: &Trail, progress: watch::Receiver<Progress>) {
        let (arn, registry) = (trail.arn(), self.registry.clone());
        let until = trail.logging.stopped_at().unwrap_or_default();
        self.stage.spawn(|stop| {
            Box::pin(async move {
                if is_drained(until, progress, stop).await
                    && let Err(error) = registry.forget(&arn).await
                {
                    tracing::error!(arn, error = %chain(&error), "a deleted trail cannot be forgotten yet");
                }
                Ok(())
            })
        });
    }

    /// Logging is started and stopped where the legs are that learn of it now.
    async fn settle(&self) {
        let next = self.wanted.borrow().trails.clone();
        let is_switched = |trail: &&Arc<Trail>| {
            let next = next.iter().find(|next| next.arn() == trail.arn());
            next.is_some_and(|next| next.logging.is_on() != trail.logging.is_on())
        };
        let switched = self.trails.iter().filter(is_switched);
        let switched: BTreeSet<_> = switched.map(|trail| trail.arn()).collect();
        if switched.is_empty() {
            return;
        }
        let at = self.ground.journal.durable();
        if let Err(error) = self.registry.settle(switched, at).await {
            tracing::warn!(error = %chain(&error), "cannot note where trails were started and stopped");
        }
    }

    /// Deleted trails that the next generation does not have are delivered: the ledger may forget them.
    async fn forget(&self) -> Result<(), DaemonError> {
        let trails = self.wanted.borrow().trails.clone();
        let stay: BTreeSet<String> = trails.iter().map(|trail| trail.arn()).collect();
        let gone = self.deleted.difference(&stay).cloned();
        let entries: Vec<_> = gone.map(|trail| Entry::Forgotten { trail }).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let written = s3::write(self.ground.ledger.clone(), entries).await;
        written.map(|_| ()).map_err(|error| DaemonError::LogFailed {
            log: "ledger",
            reason: error.to_string(),
        })
    }

    /// What the ledger says, when all that was on its way to it has arrived.
    async fn replay(&self) -> Result<Replay, DaemonError> {
        let ledger = self.ground.ledger.clone();
        if let Err(error) = ledger.barrier().await {
            let reason = error.to_string();
            return Err(DaemonError::LogFailed {
                log: "ledger",
                reason,
            });
        }
        let replayed = crate::background::spawn_blocking(move || Replay::of(&ledger)).await?;
        replayed.map_err(DaemonError::Replay)
    }
}
