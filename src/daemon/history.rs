//! The event history: opened, and following the journal as long as the daemon runs.

use tokio::sync::watch;

use super::DaemonError;
use super::logs::disk_reserve;
use super::stage::Stage;
use super::trim::Lasting;
use crate::config::Config;
use crate::history::{self, Bounds, DIRECTORY, History, Metrics};
use crate::wal::{Position, Wal};

/// Bytes of the disk that history leaves free, above what events leave to deliveries: it is the first to stop when a disk becomes full.
const LEFT_FREE: u64 = 32 << 20;

/// Bytes of the journal that it holds at most, while it keeps up.
const MOST_HELD: u64 = 512 << 20;

/// Starts it, if it is wanted: whom to ask, and what holds the journal for it.
pub async fn start(
    config: &Config,
    journal: &Wal,
    metrics: Metrics,
    stage: &mut Stage,
) -> Result<(History, Option<Lasting>), DaemonError> {
    if !config.history.enabled {
        return Ok((History::off(), None));
    }
    let (directory, retention) = (config.data_dir.join(DIRECTORY), config.history.retention);
    let opened = {
        let journal = journal.clone();
        tokio::task::spawn_blocking(move || History::open(&directory, &journal, retention, metrics))
    };
    let history = opened.await?;
    let cut = watch::Sender::new(Position(0));
    let bounds = Bounds {
        disk_reserve: 2 * disk_reserve(config) + LEFT_FREE,
        held_bytes: (config.journal.max_bytes / 8).min(MOST_HELD),
    };
    let Some(follower) = history.follower(journal, bounds, cut.subscribe()) else {
        return Ok((history, None));
    };
    let progress = follower.watch_progress();
    stage.spawn(|stop| {
        Box::pin(async move {
            history::follow(follower, stop).await;
            Ok(())
        })
    });
    Ok((history, Some(Lasting { progress, cut })))
}
