//! The daemon's word to systemd (`Type=notify` and `notify-reload`). Without `NOTIFY_SOCKET` nothing is said.

use std::future::Future;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

/// The daemon accepts events.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The daemon has been told to stop, and may take `patience` for it, also when `TimeoutStopSec=` is shorter.
pub fn stopping(patience: Duration) {
    let micros = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(micros),
    ]);
}

/// The daemon re-reads its configuration; [`ready`] follows, whatever comes of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot tell systemd about the reload"),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd about the daemon's state");
    }
}

/// Feeds the watchdog for as long as `alive` says so; `None` when no watchdog waits. Run it as a task of the runtime whose health it
/// vouches for: a runtime that is stuck does not feed.
pub fn watchdog(
    alive: impl Fn() -> bool + Send + 'static,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    let interval = sd_notify::watchdog_enabled()?;
    Some(feed(interval / 2, alive, || {
        notify(&[NotifyState::Watchdog])
    }))
}

async fn feed(every: Duration, alive: impl Fn() -> bool, bark: impl Fn()) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        if alive() {
            bark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_alive() {
        let (alive, fed) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (asked, counted) = (alive.clone(), fed.clone());
        let feeding = feed(
            Duration::from_secs(1),
            move || asked.load(Ordering::SeqCst),
            move || {
                counted.fetch_add(1, Ordering::SeqCst);
            },
        );
        let task = tokio::spawn(feeding);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(fed.load(Ordering::SeqCst), 3);
        alive.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(fed.load(Ordering::SeqCst), 3);
        task.abort();
    }
}
