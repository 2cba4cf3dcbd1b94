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
//!   cursors/   where the legs besides S3 are      dead-letters/  what destinations would not take
//!   digests/   what chains of digests remember, and the sealed ones   keys/  what they are signed with
//!   history/   events to look up
//!   trails.json  the trails that callers of the API have made      channels.json  the channels
//!   inputs.json  how far files were read      buckets/  the embedded store
//! ```

mod stage;

mod buses;
mod clients;
mod delivery;
mod digests;
mod fanout;
mod history;
mod keys;
mod legs;
mod logs;
mod preflight;
mod settings;
mod sockets;
mod trails;
mod trim;

mod routes;
mod status;

#[cfg(test)]
mod simulation;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::auth::Door;
use crate::clock::WallMillis;
use crate::config::Config;
use crate::deliver;
use crate::deliver::fanout::leg as fanout_leg;
use crate::deliver::s3::{LegError, OnStop};
use crate::deliver::view::Sink;
use crate::digest;
use crate::digest::keys::KeysError;
use crate::digest::writer::WriterError;
use crate::ingest::{self, Ingest, tail};
use crate::registry;
use crate::server::ops::{Ops, Readiness};
use crate::server::tls::{self, Tls, TlsError};
use crate::server::{self, BindError, Limits, Listener};
use crate::snapshot;
use crate::store;
use crate::telemetry::disk::Disk;
use crate::telemetry::metrics::Registry;
use crate::telemetry::systemd;
use crate::trail::Trail;
use crate::wal::{self, DirLock, RealDisk, Wal};

use delivery::{Delivery, Views};
use legs::Ground;
use logs::Logs;
use sockets::Sockets;
use stage::Stage;

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
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("leg of trail {trail} has stopped")]
    Leg {
        trail: String,
        #[source]
        source: LegError,
    },
    #[error("{sink} leg of trail {trail} has stopped")]
    Follower {
        trail: String,
        sink: Sink,
        #[source]
        source: fanout_leg::LegError,
    },
    #[error("cannot read the ledger")]
    Replay(#[source] wal::ReadError),
    #[error("digests of trail {trail} cannot be written")]
    Digests {
        trail: String,
        #[source]
        source: WriterError,
    },
    #[error("the {log} has failed and takes nothing more: {reason}")]
    LogFailed { log: &'static str, reason: String },
    #[error("cannot follow the input files")]
    Inputs(#[from] tail::Error),
    #[error("cannot use the keys of digests")]
    Keys(#[from] KeysError),
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

// How long the stages of a stop are waited for; the legs, for as long as `stop_timeout` says and a little.
const DOORS_PATIENCE: Duration = Duration::from_secs(1);
/// For changes that the API was asked for, and their records.
const CHANGES_PATIENCE: Duration = Duration::from_secs(1);
const REST_PATIENCE: Duration = Duration::from_secs(1);
/// For the last syncs of the logs.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);

/// A daemon that runs.
pub struct Daemon {
    addresses: Addresses,
    journal: Wal,
    ledger: Wal,
    ingest: Ingest,
    phase: watch::Sender<Readiness>,
    views: Views,
    tls: Option<Tls>,
    api: Api,
    /// One for each stage of stopping, in order.
    doors: Stage,
    legs: Stage,
    rest: Stage,
    stop_timeout: Duration,
    _lock: DirLock,
}

impl Daemon {
    /// Starts everything; when this returns, events are accepted.
    pub async fn start(config: &Config) -> Result<Self, DaemonError> {
        Self::start_on(config, Arc::new(RealDisk)).await
    }

    /// The logs are on this disk.
    async fn start_on(config: &Config, disk: Arc<dyn wal::Disk>) -> Result<Self, DaemonError> {
        let data_dir = &config.data_dir;
        let unusable = |source| DaemonError::DataDir {
            path: data_dir.clone(),
            source,
        };
        snapshot::make_private_dir(data_dir).map_err(unusable)?;
        let lock = DirLock::acquire(data_dir)?;

        let tls = match config.listen.tls.clone() {
            Some(files) => Some(crate::background::spawn_blocking(|| Tls::open(files)).await??),
            None => None,
        };
        let sockets = Sockets::bind(config, tls.clone()).await?;
        let addresses = sockets.addresses;

        let mut registry = Registry::new();
        settings::register(config, registry.inner());
        registry.inner().register_collector(Box::new(Disk {
            directory: data_dir.clone(),
        }));
        let journal_metrics = wal::Metrics::default();
        journal_metrics.register(registry.inner());
        let ingest_metrics = ingest::Metrics::default();
        ingest_metrics.register(registry.inner());
        let records_metrics = api::records::Metrics::default();
        records_metrics.register(registry.inner());
        let leg_metrics = deliver::Metrics::default();
        leg_metrics.register(registry.inner());
        let digest_metrics = digest::writer::view::Metrics::default();
        digest_metrics.register(registry.inner());
        let history_metrics = crate::history::Metrics::default();
        if config.history.enabled {
            history_metrics.register(registry.inner());
        }
        if let Some(tls) = &tls {
            tls.register(registry.inner());
        }

        let (mut doors, mut legs, mut rest) = (Stage::new(), Stage::new(), Stage::new());
        let (phase, phase_seen) = watch::channel(Readiness::NotReady("starting".to_owned()));
        let known = Known::default();
        let answers = known.answers(phase_seen, registry);
        rest.spawn(|stop| {
            Box::pin(async move {
                server::serve(sockets.ops, routes::ops(answers), Limits::default(), stop).await;
                Ok(())
            })
        });

        let opened = {
            let config = config.clone();
            crate::background::spawn_blocking(move || Logs::open(&config, disk, journal_metrics))
                .await??
        };
        let Logs {
            identity,
            journal,
            ledger,
            replay,
            sidecars,
            window,
            new_from,
        } = opened;
        let _ = known.journal.set(journal.clone());
        let keys = keys::open(config).await?;
        let trails = {
            let (data_dir, configured) = (data_dir.clone(), trails::of(config));
            let open = move || registry::Registry::open(&data_dir, configured);
            crate::background::spawn_blocking(open)
                .await?
                .map_err(unusable)?
        };

        if let Some(Listener::Tcp(listener)) = sockets.store {
            let directory = data_dir.join("buckets");
            rest.spawn(|stop| Box::pin(serve_store(directory, listener, stop)));
        }
        let (history, held_for_history) =
            history::start(config, &journal, history_metrics, &mut legs).await?;
        let (on_stop_told, on_stop) = watch::channel(OnStop::Leave);
        let ground = Ground {
            config: Arc::new(config.clone()),
            addresses,
            identity,
            journal: journal.clone(),
            ledger: ledger.clone(),
            metrics: leg_metrics,
            keys: keys.clone(),
            history: held_for_history,
            digest_metrics,
            on_stop,
        };
        let parts = delivery::Parts {
            sidecars,
            on_stop: on_stop_told,
            registry: trails.clone(),
        };
        let delivery = Delivery::start(ground, replay, new_from, parts).await?;
        let views = delivery.views();
        let _ = known.views.set(views.clone());
        let on_stop = match config.delivery.flush_on_stop {
            true => OnStop::Flush(config.delivery.stop_timeout),
            false => OnStop::Leave,
        };
        legs.spawn(|stop| Box::pin(delivery.run(on_stop, stop)));

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
            views: views.clone(),
            history: history.clone(),
        };
        let api = Api::new(api::Home {
            account: config.account_id,
            region: config.region,
            registry: trails,
            keys,
            journal: {
                let journal = journal.clone();
                Arc::new(move || journal.start()..journal.durable())
            },
            facts: {
                let views = views.clone();
                Arc::new(move |arn| {
                    let views = views.borrow();
                    let view = views.iter().find(|view| view.trail.arn() == arn)?;
                    Some(status::latest(view))
                })
            },
            preflight: Arc::new(preflight::Asking::new(config, addresses)),
            ingestions: api::channel::Ingestions::default(),
            history,
            records: config
                .api
                .record_calls
                .then(|| api::records::Records::new(ingest.clone(), records_metrics)),
        });
        let door = Door::new(
            config.account_id,
            config.region,
            config.auth.requests.clone(),
            config.auth.certificates.clone(),
        );
        let parts = routes::Parts {
            door,
            ingest: ingest.clone(),
            asked,
            api: api.clone(),
            status_arn: format!(
                "arn:aws:traild:{}:{}:status",
                config.region, config.account_id
            )
            .into(),
        };
        for listener in sockets.api {
            let handler = routes::api(parts.clone());
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
        if let Some(tls) = tls.clone() {
            rest.spawn(|stop| {
                Box::pin(async move {
                    tls.follow(tls::POLL, stop).await;
                    Ok(())
                })
            });
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
            views,
            tls,
            api,
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

    pub fn trails(&self) -> Vec<Arc<Trail>> {
        let views = self.views.borrow();
        views.iter().map(|view| view.trail.clone()).collect()
    }

    /// Reads the certificate again, now rather than when it is next looked at; connections stay.
    pub async fn renew_certificate(&self) {
        let Some(tls) = self.tls.clone() else {
            return;
        };
        if let Err(error) = crate::background::spawn_blocking(move || tls.look_again()).await {
            tracing::error!(%error, "cannot look at the certificate");
        }
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

    /// What [`Daemon::stop`] may take at most, as long as the disk answers.
    pub fn patience(&self) -> Duration {
        DOORS_PATIENCE + CHANGES_PATIENCE + self.legs_patience() + REST_PATIENCE + CLOSING_PATIENCE
    }

    fn legs_patience(&self) -> Duration {
        self.stop_timeout + Duration::from_secs(2)
    }

    /// Stops in order. Everything that was accepted is durable when this returns.
    pub async fn stop(mut self) {
        self.phase
            .send_replace(Readiness::NotReady("stopping".to_owned()));
        self.ingest.stop();
        self.doors.stop(DOORS_PATIENCE).await;
        if tokio::time::timeout(CHANGES_PATIENCE, self.api.settle())
            .await
            .is_err()
        {
            tracing::warn!(
                "a change that the api was asked for is still under way, not waiting for it"
            );
        }
        if let Err(error) = self.journal.barrier().await {
            tracing::error!(%error, "journal could not be brought to an end in order");
        }
        self.legs.stop(self.legs_patience()).await;
        self.rest.stop(REST_PATIENCE).await;
        let (journal, ledger) = (self.journal.clone(), self.ledger.clone());
        let closed = crate::background::spawn_blocking(move || {
            journal.close();
            ledger.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "logs could not be closed in order");
        }
    }
}

/// What the ops listener answers from. It answers from the start on, before there is anything to know.
#[derive(Clone, Default)]
struct Known {
    journal: Arc<OnceLock<Wal>>,
    views: Arc<OnceLock<Views>>,
}

impl Known {
    fn answers(&self, phase: watch::Receiver<Readiness>, registry: Registry) -> Ops {
        let Self { journal, views } = self.clone();
        let asked = journal.clone();
        Ops {
            phase,
            obstacle: Arc::new(move || asked.get().and_then(obstacle)),
            illness: Arc::new(move || journal.get().and_then(illness)),
            metrics: Arc::new(registry),
            refresh: Arc::new(move || {
                let views = views.get().map(|views| views.borrow().clone());
                for view in views.iter().flat_map(|views| views.iter()) {
                    let now = WallMillis::now();
                    view.sinks.iter().for_each(|sink| sink.leg.refresh(now));
                }
            }),
        }
    }
}

/// Opening the store looks at every object; whoever connects meanwhile waits.
async fn serve_store(
    directory: PathBuf,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), DaemonError> {
    let opening = crate::background::spawn_blocking(|| store::Store::open(directory));
    let Some(store) = stop.run_until_cancelled(opening).await else {
        return Ok(());
    };
    store::serve(store??, listener, stop).await;
    Ok(())
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
