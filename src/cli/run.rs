//! `traild run`: the daemon, and what signals do to it.
//!
//! SIGTERM and SIGINT stop it in order. SIGHUP reads the configuration again: a bad one is told and refused, and the daemon goes on as it was; a
//! good one takes effect by stopping and starting inside the process: the doors are closed for as long as a start takes, and nothing is
//! lost. When it is unchanged, the certificate of the api listener is read again, and no connection notices.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{ConfigArgument, Failure};
use crate::config::{self, Config, Loaded, Mistake, Source};
use crate::daemon::{Daemon, DaemonError};
use crate::telemetry::{chain, logs, systemd};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = super::load(&arguments.config)?;
    logs::init();
    block_on(supervise(arguments.config.config.as_deref(), loaded))
}

/// Runs a daemon's future to its end. Blocking work that is left then, such as a file being compressed, is not waited for: what matters
/// is on disk.
pub fn block_on(daemon: impl Future<Output = anyhow::Result<()>>) -> Result<(), Failure> {
    crate::server::raise_file_limit();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let outcome = runtime.block_on(daemon);
    runtime.shutdown_background();
    outcome.map_err(
        |error| match error.downcast_ref().and_then(DaemonError::hint) {
            Some(hint) => Failure::hinted(error, hint),
            None => error.into(),
        },
    )
}

/// Signals that a daemon listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Stop,
    Reload,
}

impl Signals {
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Resolves when a stop is asked for; a reload is passed over.
    pub async fn stop_asked(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// Runs until it is told to stop, or until it cannot go on.
async fn supervise(path: Option<&Path>, loaded: Loaded) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tell(&loaded);
    let mut config = loaded.config;
    let mut daemon = tokio::select! {
        started = Daemon::start(&config) => started?,
        // Nothing was accepted yet: there is nothing to bring to an end.
        () = signals.stop_asked() => return Ok(()),
    };
    loop {
        announce(&daemon);
        let accepting = format!("accepting events on {}", daemon.addresses().api);
        systemd::ready(&accepting);
        let next = loop {
            tokio::select! {
                error = daemon.failed() => {
                    tracing::error!(error = %chain(&error), "daemon cannot go on");
                    daemon.stop().await;
                    return Err(error.into());
                }
                asked = signals.next() => match asked {
                    Asked::Stop => break None,
                    Asked::Reload => {
                        systemd::reloading();
                        match reload(path, &config) {
                            Reload::Taken(next) => break Some(*next),
                            Reload::Unchanged => {
                                daemon.renew_certificate().await;
                                systemd::ready(&accepting);
                            }
                            Reload::Refused => systemd::ready(&format!("{accepting}; the new configuration is refused")),
                        }
                    }
                },
            }
        };
        let Some(next) = next else {
            systemd::stopping(daemon.patience());
            tracing::info!("stopping");
            daemon.stop().await;
            tracing::info!("stopped");
            return Ok(());
        };
        daemon.stop().await;
        daemon = tokio::select! {
            started = restart(&mut config, next) => started?,
            () = signals.stop_asked() => return Ok(()),
        };
    }
}

/// What reading the configuration again comes to.
enum Reload {
    Taken(Box<Config>),
    Unchanged,
    Refused,
}

fn reload(path: Option<&Path>, current: &Config) -> Reload {
    match config::load(path, config::environment()) {
        Ok(loaded) if loaded.config == *current => {
            tracing::info!("configuration is unchanged");
            Reload::Unchanged
        }
        Ok(loaded) => {
            tell(&loaded);
            Reload::Taken(Box::new(loaded.config))
        }
        Err(mistakes) => {
            for mistake in &mistakes {
                tracing::error!(mistake = %one_line(mistake), "mistake in the configuration");
            }
            tracing::error!(
                mistakes = mistakes.len(),
                "new configuration is refused, going on with the old one"
            );
            Reload::Refused
        }
    }
}

fn one_line(mistake: &Mistake) -> String {
    mistake
        .to_string()
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Starts with the new configuration, or, when that does not work (a port may be taken), with the old one again.
async fn restart(config: &mut Config, next: Config) -> Result<Daemon, DaemonError> {
    match Daemon::start(&next).await {
        Ok(daemon) => {
            *config = next;
            tracing::info!("new configuration is in use");
            Ok(daemon)
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "cannot start with the new configuration, going back to the old one");
            start_again(config).await
        }
    }
}

/// What a start that failed has opened may take a moment to be closed again.
async fn start_again(config: &Config) -> Result<Daemon, DaemonError> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match Daemon::start(config).await {
            Err(DaemonError::Bind(_) | DaemonError::Locked(_)) => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            outcome => return outcome,
        }
    }
    Daemon::start(config).await
}

fn tell(loaded: &Loaded) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = %loaded.source, "traild");
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if loaded.source != Source::EmbeddedDefault && loaded.config.trails.is_empty() {
        tracing::info!("no trails are configured");
    }
}

fn announce(daemon: &Daemon) {
    let addresses = daemon.addresses();
    let trails = daemon.trails();
    let trails: Vec<_> = trails.iter().map(|trail| trail.name.as_str()).collect();
    tracing::info!(
        api = %addresses.api, ops = %addresses.ops, store = addresses.store.map(tracing::field::display),
        trails = trails.join(","), "ready"
    );
}
