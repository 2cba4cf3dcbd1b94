//! The composition root: opens the logs, builds every part, wires, runs and stops them. The only one who knows everyone, and it decides nothing
//! about an event.
//!
//! Start: lock `data_dir`, replay the ledger, replay the journal into the duplicate window, start the legs, then open the doors. Stop: close
//! the doors, let what was taken become durable, stop the legs, close the logs. Nothing needs uploading to stop: what is open stays
//! in the journal.
//!
//! ```text
//! data_dir/
//!   lock       held by the running daemon, names it
//!   id         sixteen random bytes in hex: the identity that object keys are derived from
//!   journal/   the event log      dedup/   fingerprints of segments that are gone
//!   ledger/    what was sealed and delivered
//!   inputs.json  how far files were read      buckets/  the embedded store
//! ```

mod routes;
mod status;
mod trails;
mod trim;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::WallMillis;
use crate::config::{Config, StorageKind};
use crate::deliver::s3::{
    Absent, Bucket, Encoding, LegError, OnStop, Options as LegOptions, Plan, S3Leg, Uploader,
};
use crate::deliver::view::{Leg, LegView};
use crate::deliver::{self, gate::Gate};
use crate::ingest::dedup::Sidecars;
use crate::ingest::{self, Ingest, tail};
use crate::ledger::{Replay, TrailState};
use crate::logfile::Compressors;
use crate::server::ops::{Ops, Readiness};
use crate::server::{self, BindError, Limits, Listener};
use crate::telemetry::metrics::Registry;
use crate::telemetry::{chain, systemd};
use crate::trail::Trail;
use crate::wal::{self, DirLock, DiskReserve, Position, RealDisk, Wal};
use crate::{aws, batch, snapshot, store};

pub use trails::DEFAULT_TRAIL;

/// Why a daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot use data_dir {path}")]
    DataDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Locked(#[from] wal::LockError),
    #[error("cannot open the {log}")]
    Log {
        log: &'static str,
        #[source]
        source: wal::OpenError,
    },
    #[error("cannot open the embedded store")]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("leg of trail {trail} has stopped")]
    Leg {
        trail: String,
        #[source]
        source: LegError,
    },
    #[error("the {log} has failed and takes nothing more: {reason}")]
    LogFailed { log: &'static str, reason: String },
    #[error("cannot follow the input files")]
    Inputs(#[from] tail::Error),
    #[error("delivery.gzip_level cannot be used")]
    GzipLevel(#[from] crate::logfile::encode::InvalidLevel),
    #[error("a part of the daemon has stopped")]
    Part(#[from] JoinError),
}

impl DaemonError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::DataDir { source, .. } => Some(match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "let the user that traild runs as write there, or set data_dir to a directory of its own"
                }
                std::io::ErrorKind::StorageFull => {
                    "make room on that disk; nothing in data_dir is lost meanwhile"
                }
                _ => "set data_dir to a directory that traild can create and write",
            }),
            Self::Locked(_) => {
                Some("stop the other daemon, or give this one a data_dir of its own")
            }
            Self::LogFailed { .. } => {
                Some("look at the disk, then start traild again: it recovers by itself")
            }
            _ => None,
        }
    }
}

/// Where a running daemon is reached.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub api: SocketAddr,
    pub ops: SocketAddr,
    /// The embedded store's.
    pub store: Option<SocketAddr>,
}

type Part = Pin<Box<dyn Future<Output = Result<(), DaemonError>> + Send>>;

/// A daemon that runs.
pub struct Daemon {
    addresses: Addresses,
    journal: Wal,
    ledger: Wal,
    ingest: Ingest,
    phase: watch::Sender<Readiness>,
    views: Arc<Vec<status::TrailView>>,
    /// One for each stage of stopping, in order.
    doors: Stage,
    legs: Stage,
    rest: Stage,
    stop_timeout: Duration,
    _lock: DirLock,
}

/// Tasks that stop together.
struct Stage {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), DaemonError>>,
}

impl Stage {
    fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    fn spawn(&mut self, part: impl FnOnce(CancellationToken) -> Part) {
        self.tasks.spawn(part(self.stop.clone()));
    }

    /// The first task that ends, which before `stop` is called is one that failed.
    async fn ended(&mut self) -> DaemonError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return error.into(),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops the tasks and waits for them, for as long as `patience`; then drops them.
    async fn stop(&mut self, patience: Duration) {
        self.stop.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(error = %chain(&error), "a part ended badly while stopping")
                    }
                    Err(error) => tracing::warn!(%error, "a part ended badly while stopping"),
                }
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "not everything stopped in time, dropping the rest"
            );
            self.tasks.shutdown().await;
        }
    }
}

const MIB: usize = 1 << 20;

impl Daemon {
    /// Starts everything; when this returns, events are accepted.
    pub async fn start(config: &Config) -> Result<Self, DaemonError> {
        let data_dir = &config.data_dir;
        let unusable = |source| DaemonError::DataDir {
            path: data_dir.clone(),
            source,
        };
        make_private_dir(data_dir).map_err(unusable)?;
        let lock = DirLock::acquire(data_dir)?;

        // The doors are claimed before the work of recovery, so that a taken port is told at once.
        let api = Listener::bind_tcp("listen.api", config.listen.api).await?;
        let ops = Listener::bind_tcp("listen.ops", config.listen.ops).await?;
        let unix = match &config.listen.unix {
            Some(path) => Some(Listener::bind_unix("listen.unix", path).await?),
            None => None,
        };
        let embedded = match config.storage.kind {
            StorageKind::Embedded => {
                Some(Listener::bind_tcp("storage.listen", config.storage.listen).await?)
            }
            StorageKind::S3 => None,
        };
        let addresses = Addresses {
            api: api.local_addr().unwrap_or(config.listen.api),
            ops: ops.local_addr().unwrap_or(config.listen.ops),
            store: embedded.as_ref().and_then(Listener::local_addr),
        };

        let mut registry = Registry::new();
        let journal_metrics = wal::Metrics::default();
        journal_metrics.register(registry.inner());
        let ingest_metrics = ingest::Metrics::default();
        ingest_metrics.register(registry.inner());
        let leg_metrics = deliver::Metrics::default();
        leg_metrics.register(registry.inner());

        let (mut doors, mut legs, mut rest) = (Stage::new(), Stage::new(), Stage::new());
        let (phase, phase_seen) = watch::channel(Readiness::NotReady("starting".to_owned()));
        let views: Arc<std::sync::OnceLock<Arc<Vec<status::TrailView>>>> = Arc::default();
        let journal_seen: Arc<std::sync::OnceLock<Wal>> = Arc::default();
        let answers = Ops {
            phase: phase_seen,
            obstacle: {
                let journal = journal_seen.clone();
                Arc::new(move || journal.get().and_then(obstacle))
            },
            illness: {
                let journal = journal_seen.clone();
                Arc::new(move || journal.get().and_then(illness))
            },
            metrics: Arc::new(registry),
            refresh: {
                let views = views.clone();
                Arc::new(move || {
                    for view in views.get().into_iter().flat_map(|views| views.iter()) {
                        view.s3.refresh(WallMillis::now());
                    }
                })
            },
        };
        rest.spawn(|stop| {
            Box::pin(async move {
                server::serve(ops, routes::ops(answers), Limits::default(), stop).await;
                Ok(())
            })
        });

        let opened = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || Logs::open(&config, journal_metrics)).await??
        };
        let Logs {
            identity,
            journal,
            ledger,
            mut replay,
            sidecars,
            window,
            new_from,
        } = opened;
        let _ = journal_seen.set(journal.clone());

        if let Some(Listener::Tcp(listener)) = embedded {
            let directory = data_dir.join("buckets");
            // Opening looks at every object; whoever connects meanwhile waits.
            rest.spawn(|stop| {
                Box::pin(async move {
                    let opening = tokio::task::spawn_blocking(|| store::Store::open(directory));
                    let Some(store) = stop.run_until_cancelled(opening).await else {
                        return Ok(());
                    };
                    let store = store??;
                    store::serve(store, listener, stop).await;
                    Ok(())
                })
            });
        }

        let trails = trails::of(config);
        let encoding = Arc::new(Encoding::new(
            Compressors::new(config.delivery.gzip_level)?,
            128 * MIB,
        ));
        let sdk = aws::sdk_config(config).await;
        let limits = batch::Limits {
            max_age: config.delivery.max_age,
            max_bytes: config.delivery.max_bytes,
        };
        let on_stop = match config.delivery.flush_on_stop {
            true => OnStop::Flush(config.delivery.stop_timeout),
            false => OnStop::Leave,
        };
        // What open and pending batches may hold, all trails together.
        let held_bytes = (48 * MIB / trails.len().max(1)).clamp(MIB, 16 * MIB);
        let checkpoint_wanted = watch::Sender::new(0);
        let mut progress = Vec::new();
        let mut trail_views = Vec::new();
        for trail in trails {
            let trail = Arc::new(trail);
            let name = trail.name.to_string();
            let arn = trail.arn();
            let remembered = replay.remove(&arn);
            let is_known = remembered.is_some();
            let state = remembered.unwrap_or_else(|| {
                tracing::info!(trail = name, horizon = new_from.0, "new trail");
                TrailState {
                    horizon: new_from,
                    ..TrailState::default()
                }
            });
            let view = LegView::new(
                Leg {
                    trail: name.clone(),
                    sink: "s3",
                },
                leg_metrics.clone(),
            );
            trail_views.push(status::TrailView {
                trail: trail.clone(),
                s3: view.clone(),
            });
            let uploader = Uploader {
                trail: trail.clone(),
                bucket: Bucket::new(
                    match addresses.store {
                        Some(address) => aws::embedded_client(config, address),
                        None => aws::s3_client(&sdk, config),
                    },
                    config.storage.kind == StorageKind::Embedded,
                ),
                journal: journal.clone(),
                encoding: encoding.clone(),
                gate: Gate::default(),
                view,
            };
            let plan = Plan::new(trail, identity, limits, state);
            let leg_error = {
                let name = name.clone();
                move |source| DaemonError::Leg {
                    trail: name.clone(),
                    source,
                }
            };
            let options = LegOptions {
                journal_bytes: config.journal.max_bytes / 2,
                max_age: config.delivery.max_age,
                held_bytes,
                on_stop,
            };
            let wanted = checkpoint_wanted.subscribe();
            let leg = S3Leg::open(
                plan,
                &journal,
                ledger.clone(),
                Arc::new(uploader),
                options,
                wanted,
                is_known,
            )
            .await
            .map_err(&leg_error)?;
            progress.push(leg.watch_progress());
            legs.spawn(|stop| Box::pin(async move { leg.run(stop).await.map_err(leg_error) }));
        }
        for (arn, state) in replay.rest() {
            let wanted = checkpoint_wanted.subscribe();
            if let Some(absent) = Absent::new(arn.clone(), state, &journal, ledger.clone(), wanted)
            {
                progress.push(absent.watch_progress());
                let failed = move |source| DaemonError::Leg { trail: arn, source };
                legs.spawn(|stop| Box::pin(async move { absent.run(stop).await.map_err(failed) }));
            }
        }
        let trail_views = Arc::new(trail_views);
        let _ = views.set(trail_views.clone());

        let trimmer = trim::Trimmer {
            journal: journal.clone(),
            ledger: ledger.clone(),
            sidecars,
            progress,
            checkpoint_wanted,
        };
        rest.spawn(|stop| {
            Box::pin(async move {
                trimmer.run(stop).await;
                Ok(())
            })
        });

        let options = ingest::Options {
            max_body_bytes: usize::try_from(config.ingest.max_body_bytes).unwrap_or(usize::MAX),
            max_event_bytes: usize::try_from(config.ingest.max_event_bytes).unwrap_or(usize::MAX),
            ..ingest::Options::new(config.account_id, config.region)
        };
        let ingest = Ingest::new(journal.clone(), window, options, ingest_metrics);
        let asked = status::Asked {
            config: Arc::new(config.clone()),
            journal: journal.clone(),
            phase: phase.subscribe(),
            views: trail_views.clone(),
        };
        for listener in [Some(api), unix].into_iter().flatten() {
            let handler = routes::api(ingest.clone(), asked.clone());
            doors.spawn(|stop| {
                Box::pin(async move {
                    server::serve(listener, handler, Limits::default(), stop).await;
                    Ok(())
                })
            });
        }
        if !config.inputs.file.is_empty() {
            let options = tail::Options {
                paths: config
                    .inputs
                    .file
                    .iter()
                    .map(|input| input.path.clone())
                    .collect(),
                state_file: data_dir.join("inputs.json"),
                poll: Duration::from_millis(250),
            };
            let ingest = ingest.clone();
            doors
                .spawn(|stop| Box::pin(async move { Ok(tail::run(ingest, options, stop).await?) }));
        }
        let beating = journal.clone();
        if let Some(watchdog) = systemd::watchdog(move || illness(&beating).is_none()) {
            rest.spawn(|stop| {
                Box::pin(async move {
                    stop.run_until_cancelled(watchdog).await;
                    Ok(())
                })
            });
        }

        phase.send_replace(Readiness::Ready);
        Ok(Self {
            addresses,
            journal,
            ledger,
            ingest,
            phase,
            views: trail_views,
            doors,
            legs,
            rest,
            stop_timeout: config.delivery.stop_timeout,
            _lock: lock,
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Each trail's name and how it does.
    pub fn views(&self) -> impl Iterator<Item = (&Trail, &LegView)> {
        self.views.iter().map(|view| (&*view.trail, &view.s3))
    }

    /// Resolves when a part fails that the daemon cannot go on without.
    pub async fn failed(&mut self) -> DaemonError {
        let (journal, ledger) = (self.journal.clone(), self.ledger.clone());
        tokio::select! {
            reason = journal.failed() => DaemonError::LogFailed { log: "journal", reason },
            reason = ledger.failed() => DaemonError::LogFailed { log: "ledger", reason },
            error = self.doors.ended() => error,
            error = self.legs.ended() => error,
            error = self.rest.ended() => error,
        }
    }

    /// Stops in order. Everything that was accepted is durable when this returns.
    pub async fn stop(mut self) {
        self.phase
            .send_replace(Readiness::NotReady("stopping".to_owned()));
        self.ingest.stop();
        self.doors.stop(Duration::from_secs(1)).await;
        if let Err(error) = self.journal.barrier().await {
            tracing::error!(%error, "journal could not be brought to an end in order");
        }
        self.legs
            .stop(self.stop_timeout + Duration::from_secs(1))
            .await;
        self.rest.stop(Duration::from_secs(1)).await;
        let (journal, ledger) = (self.journal.clone(), self.ledger.clone());
        let closed = tokio::task::spawn_blocking(move || {
            journal.close();
            ledger.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "logs could not be closed in order");
        }
    }
}

/// Why events would be refused now.
fn obstacle(journal: &Wal) -> Option<String> {
    match journal.failure() {
        Some(reason) => Some(format!("the journal has failed: {reason}")),
        None => journal.obstacle().map(|error| error.to_string()),
    }
}

/// Why the daemon should be started again.
fn illness(journal: &Wal) -> Option<String> {
    const SILENCE: Duration = Duration::from_secs(20);
    if let Some(reason) = journal.failure() {
        return Some(format!("the journal has failed: {reason}"));
    }
    let silent = journal.last_heartbeat().elapsed();
    (silent > SILENCE).then(|| {
        format!(
            "the journal's thread has been stuck for {} s",
            silent.as_secs()
        )
    })
}

/// The two logs, replayed.
struct Logs {
    identity: [u8; 16],
    /// Where a trail begins that the ledger does not know.
    new_from: Position,
    journal: Wal,
    ledger: Wal,
    replay: Replay,
    sidecars: Sidecars,
    window: ingest::dedup::Window,
}

impl Logs {
    /// Blocking.
    fn open(config: &Config, metrics: wal::Metrics) -> Result<Self, DaemonError> {
        let data_dir = &config.data_dir;
        let unusable = |source| DaemonError::DataDir {
            path: data_dir.clone(),
            source,
        };
        let identity = identity(data_dir).map_err(unusable)?;

        let mut replay = Replay::default();
        let options = wal::Options {
            directory: data_dir.join("ledger"),
            segment_bytes: 16 << 20,
            max_bytes: u64::MAX,
            disk_reserve: DiskReserve::None,
            queue_bytes: 64 * MIB,
        };
        let disk = Arc::new(RealDisk);
        let (ledger, recovery) = Wal::open(
            disk.clone(),
            options,
            wal::Metrics::default(),
            &mut |at, frame| replay.take(at, frame),
        )
        .map_err(|source| DaemonError::Log {
            log: "ledger",
            source,
        })?;
        tracing::info!(?recovery, "ledger is open");
        let is_whole = recovery.frames > 0
            && recovery.damaged_ranges == 0
            && recovery.missing_bytes == 0
            && replay.undecodable() == 0;

        let window_events = config.ingest.dedup_window;
        let (sidecars, mut window) = Sidecars::open(data_dir, window_events).map_err(unusable)?;
        let options = wal::Options {
            directory: data_dir.join("journal"),
            segment_bytes: config.journal.segment_bytes,
            max_bytes: config.journal.max_bytes,
            disk_reserve: DiskReserve::Bytes(disk_reserve(config)),
            queue_bytes: 16 * MIB,
        };
        let (journal, recovery) = Wal::open_beyond(
            disk,
            options,
            metrics,
            replay.highest_position(),
            &mut |_, frame| window.remember_frame(frame),
        )
        .map_err(|source| DaemonError::Log {
            log: "journal",
            source,
        })?;
        tracing::info!(?recovery, "journal is open");
        // A trail that a whole ledger does not know is new. A ledger that is lost or damaged may have forgotten it: then all
        // that the journal holds is delivered, rather twice than never.
        let new_from = if is_whole {
            journal.durable()
        } else {
            journal.start()
        };
        Ok(Self {
            identity,
            new_from,
            journal,
            ledger,
            replay,
            sidecars,
            window,
        })
    }
}

/// Free bytes of the disk that events may not take, so that the ledger can go on and deliveries can make room: one segment, but
/// no more than an eighth of a small journal.
fn disk_reserve(config: &Config) -> u64 {
    let journal = &config.journal;
    journal
        .segment_bytes
        .min(journal.max_bytes / 8)
        .clamp(1 << 20, 64 << 20)
}

fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let is_new = !path.exists();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    match path.canonicalize()?.parent() {
        // Its entry must be durable, too.
        Some(parent) if is_new => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// The identity of this `data_dir`, made on its first use.
fn identity(data_dir: &Path) -> std::io::Result<[u8; 16]> {
    let path = data_dir.join("id");
    if let Some(text) = snapshot::read(&path)? {
        let mut identity = [0; 16];
        match hex::decode_to_slice(text.trim_ascii(), &mut identity) {
            Ok(()) => return Ok(identity),
            // It only has to be unlike any other: a new one serves as well. Batches that were sealed have their keys already.
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "identity cannot be read, a new one is made")
            }
        }
    }
    let mut identity = [0; 16];
    getrandom::fill(&mut identity).map_err(std::io::Error::other)?;
    snapshot::replace(&path, hex::encode(identity).as_bytes())?;
    Ok(identity)
}
