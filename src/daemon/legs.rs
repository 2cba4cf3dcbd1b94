//! The legs of a set of trails: built, spawned, and watched for how far they have come.

use std::future::ready;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::digests::Digests;
use super::fanout::Fanout;
use super::stage::Stage;
use super::status::{SinkView, TrailView};
use super::trim::{Followers, Lasting};
use super::{Addresses, DaemonError, trails};
use crate::aws;
use crate::batch;
use crate::config::{Config, StorageKind};
use crate::deliver;
use crate::deliver::gate::Gate;
use crate::deliver::renewing::Renewing;
use crate::deliver::s3::{
    Absent, Bucket, Encoding, OnStop, Options, Plan, Progress, S3Leg, Uploader,
};
use crate::deliver::view::{Leg, LegView, Sink};
use crate::digest;
use crate::digest::keys::Keys;
use crate::ledger::{Replay, TrailState};
use crate::logfile::Compressors;
use crate::trail::Trail;
use crate::wal::{Position, Wal};

const MIB: usize = 1 << 20;

/// What the files being made and uploaded hold in memory, all legs together.
const FILES_BYTES: usize = 128 * MIB;

/// What the open and pending batches hold in memory, all legs together.
const BATCHES_BYTES: usize = 48 * MIB;

/// What the legs are built on.
pub struct Ground {
    pub config: Arc<Config>,
    pub addresses: Addresses,
    /// The journal's own.
    pub identity: [u8; 16],
    pub journal: Wal,
    pub ledger: Wal,
    pub metrics: deliver::Metrics,
    pub keys: Keys,
    /// What holds the journal for the event history, if one is kept.
    pub history: Option<Lasting>,
    pub digest_metrics: digest::writer::view::Metrics,
    /// What legs to S3 do with open batches when they are stopped.
    pub on_stop: watch::Receiver<OnStop>,
}

/// The legs, running.
pub struct Legs {
    pub views: Arc<Vec<TrailView>>,
    /// Of every leg that may hold both logs back.
    pub progress: Vec<watch::Receiver<Progress>>,
    /// The lowest positions of the ledger that writers of digests still want.
    pub digests: Vec<watch::Receiver<Position>>,
    /// The legs besides S3.
    pub journal_followers: Followers,
    pub ledger_followers: Followers,
    /// Each change asks every leg for a checkpoint.
    pub checkpoint_wanted: watch::Sender<u64>,
}

impl Legs {
    /// Starts the legs of each of these trails, and a memory for each other one that the ledger knows. A trail that the ledger does not know begins at
    /// `new_from`.
    pub async fn start(
        ground: &Ground,
        trails: &[Arc<Trail>],
        mut replay: Replay,
        new_from: Position,
        stage: &mut Stage,
    ) -> Result<Self, DaemonError> {
        let config = &*ground.config;
        let compressors = Compressors::new(config.delivery.gzip_level)?;
        let encoding = Arc::new(Encoding::new(compressors, FILES_BYTES));
        let clients = Clients::new(config).await;
        let held_bytes = (BATCHES_BYTES / trails.len().max(1)).clamp(MIB, 16 * MIB);
        let checkpoint_wanted = watch::Sender::new(0);
        let mut progress = Vec::new();
        let mut views = Vec::new();
        let mut fanout = Fanout::new(ground, &clients, trails).await?;
        let mut digests = Digests::new(ground, &clients).await?;
        for trail in trails.iter() {
            let client = s3_client(config, ground.addresses, &clients).await;
            let create_bucket = config.storage.kind == StorageKind::Embedded;
            let view = view(trails::label(trail, config), &ground.metrics);
            let mut sinks = vec![SinkView::s3(trail, view.clone())];
            let uploader = Uploader {
                trail: trail.clone(),
                bucket: Bucket::new(client, create_bucket),
                journal: ground.journal.clone(),
                encoding: encoding.clone(),
                gate: Gate::default(),
                view,
            };
            let remembered = replay.remove(&trail.arn());
            let is_known = remembered.is_some();
            let state = remembered.unwrap_or_else(|| begin(trail, new_from));
            let horizon = state.horizon;
            // Their places are on the disk before the ledger knows the trail, so that a crash in between leaves no leg behind.
            let new_from = if is_known { None } else { Some(horizon) };
            let others = fanout.start(trail, new_from, stage);
            sinks.extend(others.await?);
            // Uploads in doubt may have reached the bucket while the trail had validation.
            let in_doubt = state
                .pending
                .values()
                .map(|batch| batch.positions.last())
                .max();
            let ends_at = match trail.log_file_validation && trail.logging.has_begun() {
                true => trail.logging.stopped_at(),
                false => Some(in_doubt.map_or(Position(0), |last| Position(last.0 + 1))),
            };
            let end = CancellationToken::new();
            if ends_at == Some(Position(0)) {
                end.cancel();
            }
            let digests = digests.start(trail, end.clone(), stage).await?;
            let failed = failed(trail.name.to_string());
            let leg = S3Leg::open(
                Plan::new(trail.clone(), ground.identity, limits(config), state),
                &ground.journal,
                ground.ledger.clone(),
                Arc::new(uploader),
                options(config, held_bytes, ground.on_stop.clone()),
                checkpoint_wanted.subscribe(),
                is_known,
            );
            let leg = leg.await.map_err(&failed)?;
            progress.push(leg.watch_progress());
            if let Some(until) = ends_at {
                let progress = leg.watch_progress();
                stage.spawn(|stop| Box::pin(end_digests(until, progress, end, stop)));
            }
            stage.spawn(|stop| Box::pin(async move { leg.run(stop).await.map_err(failed) }));
            views.push(TrailView {
                trail: trail.clone(),
                sinks,
                digests,
            });
        }
        fanout.start_absent(stage)?;
        digests.start_absent(stage).await?;
        let (journal_followers, ledger_followers) = fanout.into_followers();
        for (arn, state) in replay.rest() {
            let failed = failed(arn.clone());
            let wanted = checkpoint_wanted.subscribe();
            let absent = Absent::new(arn, state, &ground.journal, ground.ledger.clone(), wanted);
            if let Some(absent) = absent {
                progress.push(absent.watch_progress());
                stage.spawn(|stop| Box::pin(async move { absent.run(stop).await.map_err(failed) }));
            }
        }
        Ok(Self {
            views: Arc::new(views),
            progress,
            digests: digests.into_wanted(stage),
            journal_followers,
            ledger_followers,
            checkpoint_wanted,
        })
    }
}

/// After StopLogging: the chains end when what was recorded before is in its bucket.
async fn end_digests(
    until: Position,
    progress: watch::Receiver<Progress>,
    end: CancellationToken,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    if is_drained(until, progress, stop).await {
        end.cancel();
    }
    Ok(())
}

/// Waits until a leg wants nothing more of the journal before `until`. False when it stops first.
pub async fn is_drained(
    until: Position,
    mut progress: watch::Receiver<Progress>,
    stop: CancellationToken,
) -> bool {
    let drained = progress.wait_for(|progress| progress.journal >= until);
    matches!(stop.run_until_cancelled(drained).await, Some(Ok(_)))
}

/// The embedded store asks for no credentials in particular.
pub async fn s3_client(
    config: &Config,
    addresses: Addresses,
    clients: &Clients,
) -> Renewing<aws_sdk_s3::Client> {
    if let Some(address) = addresses.store {
        let client = aws::embedded_client(config, address);
        return Renewing::new(client.clone(), move || ready(client.clone()));
    }
    let config = Arc::new(config.clone());
    let make = move |sdk| {
        let config = config.clone();
        async move { aws::s3_client(&sdk, &config) }
    };
    clients.renewing(make).await
}

fn failed(trail: String) -> impl Fn(deliver::s3::LegError) -> DaemonError {
    move |source| DaemonError::Leg {
        trail: trail.clone(),
        source,
    }
}

/// A trail of the API may have been told to record before its legs were built.
fn begin(trail: &Trail, new_from: Position) -> TrailState {
    let began = trail.logging.began_at().unwrap_or(new_from);
    let horizon = new_from.min(began);
    tracing::info!(trail = %trail.name, horizon = horizon.0, "new trail");
    TrailState {
        horizon,
        ..TrailState::default()
    }
}

fn view(trail: String, metrics: &deliver::Metrics) -> LegView {
    let leg = Leg {
        trail,
        sink: Sink::S3,
    };
    LegView::new(leg, metrics.clone())
}

fn limits(config: &Config) -> batch::Limits {
    batch::Limits {
        max_age: config.delivery.max_age,
        max_bytes: config.delivery.max_bytes,
    }
}

fn options(config: &Config, held_bytes: usize, on_stop: watch::Receiver<OnStop>) -> Options {
    Options {
        held_bytes,
        journal_bytes: config.journal.max_bytes / 2,
        max_age: config.delivery.max_age,
        on_stop,
    }
}
