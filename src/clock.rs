//! Time as a value: the wall clock for stamps, the monotonic clock for ages.
//!
//! Everything that decides takes the time as an argument; only the rim of the daemon reads a clock, through here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock. It may jump, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMillis(pub i64);

impl WallMillis {
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(now) = crate::simulation::wall() {
            return now;
        }
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Self(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }

    /// Whole seconds since 1970, rounded down.
    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Seconds since 1970 as RFC 3339 in UTC; a year that this cannot write, as a number.
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.unix_seconds())
            .ok()
            .and_then(|when| when.format(&Rfc3339).ok())
            .unwrap_or_else(|| self.0.to_string())
    }

    /// How long before `self` the moment `earlier` was; zero when it was not before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Time since some fixed moment, more than a year before the program started, that never goes backwards: for ages.
pub type Monotonic = Duration;

/// Now, on the monotonic clock. It follows tokio's paused time in tests.
pub fn monotonic() -> Monotonic {
    // Events accepted before the start have ages too; the head start leaves room for them.
    const HEAD_START: Duration = Duration::from_secs(400 * 86_400);
    #[cfg(test)]
    if let Some(elapsed) = crate::simulation::elapsed() {
        return HEAD_START + elapsed;
    }
    static START: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
    HEAD_START + START.get_or_init(tokio::time::Instant::now).elapsed()
}
