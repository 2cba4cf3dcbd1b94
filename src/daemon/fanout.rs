//! The legs besides S3 of all trails: built, spawned, and watched for how far they have come.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::buses::Buses;
use super::clients::Clients;
use super::legs::Ground;
use super::logs::CURSORS;
use super::stage::Stage;
use super::status::SinkView;
use super::trim::Followers;
use super::{DaemonError, trails};
use crate::aws;
use crate::deliver::bus::{self, Bus};
use crate::deliver::dead_letter::{self, DeadLetters};
use crate::deliver::fanout::Destination;
use crate::deliver::fanout::absent::Absent;
use crate::deliver::fanout::leg::{Leg, LegError, Parts};
use crate::deliver::logs::LogStreams;
use crate::deliver::memory::{self, MemoryFile};
use crate::deliver::sns::Notifications;
use crate::deliver::view::{self, LegView, Sink};
use crate::trail::Trail;
use crate::wal::{Position, Wal};

/// Bytes of the logs that all these legs read at a time, together.
const CHUNKS_BYTES: usize = 16 << 20;

/// The legs besides S3, as they are started.
pub struct Fanout<'a> {
    ground: &'a Ground,
    clients: &'a Clients,
    chunk_bytes: usize,
    cursors: PathBuf,
    dead_letters: PathBuf,
    journal_followers: Followers,
    ledger_followers: Followers,
    /// The stems of the legs' files.
    started: BTreeSet<String>,
    buses: Buses,
}

impl<'a> Fanout<'a> {
    /// What the legs of these trails are started from; none of them may run yet.
    pub async fn new(
        ground: &'a Ground,
        clients: &'a Clients,
        trails: &[Arc<Trail>],
    ) -> Result<Self, DaemonError> {
        let data_dir = &ground.config.data_dir;
        let legs: usize = trails.iter().map(|trail| legs_of(trail)).sum();
        let cursors = data_dir.join(CURSORS);
        let buses = {
            let (cursors, trails) = (cursors.clone(), trails.to_vec());
            let (region, account) = (clients.region().to_owned(), ground.config.account_id);
            let journal = ground.journal.start()..ground.journal.durable();
            crate::background::spawn_blocking(move || {
                Buses::agree(&cursors, &trails, (&region, account), journal)
            })
        };
        Ok(Self {
            ground,
            clients,
            chunk_bytes: (CHUNKS_BYTES / legs.max(1)).clamp(128 << 10, 1 << 20),
            buses: buses.await?.map_err(|source| DaemonError::DataDir {
                path: cursors.clone(),
                source,
            })?,
            cursors,
            dead_letters: data_dir.join(dead_letter::DIRECTORY),
            journal_followers: Followers::default(),
            ledger_followers: Followers::default(),
            started: BTreeSet::new(),
        })
    }

    /// Starts the legs of a trail. `new_from` is where the trail begins in the journal, if it is new.
    pub async fn start(
        &mut self,
        trail: &Arc<Trail>,
        new_from: Option<Position>,
        stage: &mut Stage,
    ) -> Result<Vec<SinkView>, DaemonError> {
        let mut views = Vec::new();
        let sinks = &self.ground.config.sinks;
        if let Some(topic) = &trail.topic {
            let region = *topic.region();
            let client = self
                .clients
                .renewing(move |sdk| async move { aws::sns_client(&sdk, &region) });
            let notifications = Notifications::new(trail, topic.clone(), client.await);
            views.push(self.follow_ledger(trail, notifications, stage).await?);
        }
        if let Some(group) = &trail.log_group {
            let of = group.clone();
            let client = self.clients.renewing(move |sdk| {
                let of = of.clone();
                async move { aws::logs_client(&sdk, of.region(), of.role_arn()).await }
            });
            let max_bytes = sinks.cloudwatch_max_event_bytes;
            let streams = LogStreams::new(trail.clone(), group.clone(), client.await, max_bytes);
            let leg = self.follow_journal(trail, Sink::Logs, new_from, streams, stage);
            views.push(leg.await?);
        }
        if let Some(event_bus) = &trail.event_bus {
            let region = event_bus.region().copied();
            let client = self
                .clients
                .renewing(move |sdk| async move { aws::events_client(&sdk, region.as_ref()) });
            let shared = self.buses.take(trail);
            let earlier = shared.earlier.clone();
            let new_from = new_from.unwrap_or_else(|| self.ground.journal.durable());
            let begun = crate::background::spawn_blocking(move || shared.begin(new_from));
            begun.await?.map_err(|source| DaemonError::DataDir {
                path: self.cursors.clone(),
                source,
            })?;
            let options = bus::Options {
                source: sinks.event_bridge_source.clone(),
                max_bytes: sinks.put_events_max_bytes,
            };
            let bus = Bus::new(
                trail.clone(),
                earlier,
                event_bus.clone(),
                client.await,
                options,
            );
            let leg = self.follow_journal(trail, Sink::Bus, Some(new_from), bus, stage);
            views.push(leg.await?);
        }
        Ok(views)
    }

    /// Holds the logs for legs that ran here and are not configured any more. To be called when all others are started.
    pub fn start_absent(&mut self, stage: &mut Stage) -> Result<(), DaemonError> {
        let unusable = |source| DaemonError::DataDir {
            path: self.cursors.clone(),
            source,
        };
        for found in memory::files(&self.cursors).map_err(unusable)? {
            if self.started.contains(&found.stem) {
                continue;
            }
            let followers = match found.follows_ledger() {
                true => &mut self.ledger_followers,
                false => &mut self.journal_followers,
            };
            if let Some(absent) = Absent::new(found, followers.cut.subscribe()) {
                followers.progress.push(absent.watch_progress());
                stage.spawn(|stop| {
                    Box::pin(async move {
                        absent.run(stop).await;
                        Ok(())
                    })
                });
            }
        }
        Ok(())
    }

    /// Of the journal and of the ledger.
    pub fn into_followers(self) -> (Followers, Followers) {
        (self.journal_followers, self.ledger_followers)
    }

    /// A leg that follows the ledger. Objects of before the trail had this destination are not announced to it.
    async fn follow_ledger<D: Destination>(
        &mut self,
        trail: &Trail,
        destination: D,
        stage: &mut Stage,
    ) -> Result<SinkView, DaemonError> {
        let log = &self.ground.ledger;
        let cut = self.ledger_followers.cut.subscribe();
        let parts = self.parts(trail, Sink::Sns, log, log.durable(), cut, destination);
        let (view, progress) = open(parts, stage).await?;
        self.ledger_followers.progress.push(progress);
        Ok(view)
    }

    /// A leg that follows the journal.
    async fn follow_journal<D: Destination>(
        &mut self,
        trail: &Trail,
        sink: Sink,
        new_from: Option<Position>,
        destination: D,
        stage: &mut Stage,
    ) -> Result<SinkView, DaemonError> {
        let log = &self.ground.journal;
        let cut = self.journal_followers.cut.subscribe();
        let new_from = new_from.unwrap_or_else(|| log.durable());
        let parts = self.parts(trail, sink, log, new_from, cut, destination);
        let (view, progress) = open(parts, stage).await?;
        self.journal_followers.progress.push(progress);
        Ok(view)
    }

    fn parts<D: Destination>(
        &mut self,
        trail: &Trail,
        sink: Sink,
        log: &Wal,
        new_from: Position,
        cut: watch::Receiver<Position>,
        destination: D,
    ) -> Parts<D> {
        let name = trails::label(trail, &self.ground.config);
        self.started.insert(memory::stem(&name, sink.as_str()));
        Parts {
            trail: trail.arn(),
            destination,
            log: log.clone(),
            new_from,
            memory: MemoryFile::new(&self.cursors, &name, sink.as_str()),
            letters: DeadLetters::new(&self.dead_letters, &name, sink.as_str()),
            view: LegView::new(view::Leg { trail: name, sink }, self.ground.metrics.clone()),
            chunk_bytes: self.chunk_bytes,
            cut,
        }
    }
}

/// Opens a leg and lets it run.
async fn open<D: Destination>(
    parts: Parts<D>,
    stage: &mut Stage,
) -> Result<(SinkView, watch::Receiver<Position>), DaemonError> {
    let view = SinkView {
        leg: parts.view.clone(),
        target: parts.destination.target().to_owned(),
    };
    let view::Leg { trail, sink } = view.leg.leg().clone();
    let failed = move |source: LegError| DaemonError::Follower {
        trail: trail.clone(),
        sink,
        source,
    };
    let leg = crate::background::spawn_blocking(move || Leg::open(parts)).await?;
    let progress = leg.watch_progress();
    stage.spawn(|stop| Box::pin(async move { leg.run(stop).await.map_err(failed) }));
    Ok((view, progress))
}

fn legs_of(trail: &Trail) -> usize {
    let Trail {
        topic,
        log_group,
        event_bus,
        ..
    } = trail;
    usize::from(topic.is_some())
        + usize::from(log_group.is_some())
        + usize::from(event_bus.is_some())
}
