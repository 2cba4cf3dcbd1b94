//! When a digest is due, and for what time. Arithmetic over whole seconds since 1970.
//!
//! Windows follow one another without a gap from the start of logging on, each as long as the interval, whether or not anything was
//! delivered (CloudTrail user guide, "Validating CloudTrail log file integrity"). The wall clock decides when one is over, and may jump:
//!
//! - Forwards, or the daemon was down: the missed windows are made up for in order. One whose time is over for more than [`IN_TIME`] is a
//!   backfill digest. What was missed longer ago than [`CAUGHT_UP`] windows is one long window: a clock that begins in 1970 must not make
//!   half a million digests.
//! - Backwards: time that has a digest already cannot have another. Until the clock is there again, a window of one second is made
//!   in each interval that passes on the monotonic clock, so that log files are proven no later than otherwise, the chain
//!   has no gap, and the clock soon catches up. A clock that is further back than that can mend ([`CAUGHT_UP`] intervals: it had been wrong
//!   before, as one that began in the wrong year) begins new chains at its own time.

use std::time::Duration;

use crate::digest::Kind;

/// Seconds after its window until which a digest is a standard one. Validators look for the keys of standard digests until then, and the
/// backfill ones name the moment that they were made at.
pub const IN_TIME: i64 = 2 * 3600;

/// Missed windows that get a digest each: a week of hours.
pub const CAUGHT_UP: i64 = 7 * 24;

/// The time that the next digests of a trail cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start: i64,
    pub end: i64,
    pub kind: Kind,
    /// Nothing follows: logging or validation was stopped.
    pub is_last: bool,
}

/// What the decision is made from.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// End of the window before.
    pub start: i64,
    /// Seconds, above zero.
    pub interval: i64,
    /// By the wall clock.
    pub now: i64,
    /// Since the window before was closed, or the writer began, by the monotonic clock.
    pub idle: Duration,
    /// More is waiting than a digest should hold.
    pub is_pressed: bool,
    /// Logging or validation was stopped.
    pub is_ending: bool,
}

/// The window to be closed now, if any.
pub fn due(situation: Situation) -> Option<Window> {
    let Situation {
        start,
        interval,
        now,
        idle,
        is_pressed,
        is_ending,
    } = situation;
    let soonest = start.saturating_add(1);
    let window = |end: i64, is_last| {
        let late = now.saturating_sub(end) > IN_TIME;
        Window {
            start,
            end,
            kind: if late { Kind::Backfill } else { Kind::Standard },
            is_last,
        }
    };
    let passed = now.saturating_sub(start).max(0) / interval;
    if passed > CAUGHT_UP {
        let skipped = (passed - CAUGHT_UP).saturating_mul(interval);
        return Some(window(start.saturating_add(skipped), false));
    }
    if passed > 0 {
        return Some(window(start.saturating_add(interval), false));
    }
    if is_ending {
        return Some(window(now.max(soonest), true));
    }
    let is_behind = now < start && i64::try_from(idle.as_secs()).unwrap_or(i64::MAX) >= interval;
    (is_pressed || is_behind).then(|| window(now.max(soonest), false))
}

/// Whether the clock says that the newest window is of a time that it will not reach soon.
pub fn is_lost(start: i64, interval: i64, now: i64) -> bool {
    start.saturating_sub(now) > interval.saturating_mul(CAUGHT_UP)
}

/// Seconds until the clock reaches the end of the window that is open, when it does not jump.
pub fn wait(start: i64, interval: i64, now: i64) -> Duration {
    let left = start.saturating_add(interval).saturating_sub(now);
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3600;
    const START: i64 = 1_700_000_123;

    fn at(now: i64) -> Situation {
        Situation {
            start: START,
            interval: HOUR,
            now,
            idle: Duration::ZERO,
            is_pressed: false,
            is_ending: false,
        }
    }

    fn window(end: i64, kind: Kind) -> Option<Window> {
        Some(Window {
            start: START,
            end,
            kind,
            is_last: false,
        })
    }

    #[test]
    fn a_window_is_due_when_its_interval_is_over() {
        assert_eq!(due(at(START)), None);
        assert_eq!(due(at(START + HOUR - 1)), None);
        for now in [START + HOUR, START + HOUR + IN_TIME] {
            assert_eq!(due(at(now)), window(START + HOUR, Kind::Standard), "{now}");
        }
        assert_eq!(
            due(at(START + HOUR + IN_TIME + 1)),
            window(START + HOUR, Kind::Backfill)
        );
    }

    #[test]
    fn what_was_missed_long_ago_is_one_window() {
        let missed = |hours: i64| due(at(START + hours * HOUR + 7)).unwrap();
        assert_eq!(missed(168).end, START + HOUR);
        assert_eq!(missed(169).end, START + HOUR);
        assert_eq!(missed(170).end, START + 2 * HOUR);
        assert_eq!(missed(490_000).end, START + (490_000 - 168) * HOUR);
        assert_eq!(missed(490_000).kind, Kind::Backfill);
    }

    #[test]
    fn a_clock_set_back_gets_a_second_in_each_interval() {
        let behind = |idle| {
            due(Situation {
                idle: Duration::from_secs(idle),
                ..at(START - 86_400)
            })
        };
        assert_eq!(behind(3599), None);
        assert_eq!(behind(3600), window(START + 1, Kind::Standard));
    }

    #[test]
    fn a_clock_that_was_years_ahead_is_not_waited_for() {
        for (behind, lost) in [(0, false), (168 * HOUR, false), (168 * HOUR + 1, true)] {
            assert_eq!(is_lost(START, HOUR, START - behind), lost, "{behind}");
        }
        assert!(!is_lost(START, HOUR, START + 10 * HOUR));
    }

    #[test]
    fn the_last_window_ends_now_and_is_never_empty() {
        let last = |now| {
            let ending = Situation {
                is_ending: true,
                ..at(now)
            };
            due(ending).unwrap()
        };
        for (now, end) in [
            (START - 50, START + 1),
            (START, START + 1),
            (START + 17, START + 17),
        ] {
            assert_eq!((last(now).end, last(now).is_last), (end, true));
        }
        let before = last(START + HOUR);
        assert_eq!((before.end, before.is_last), (START + HOUR, false));
    }

    #[test]
    fn a_window_that_is_full_is_closed_early() {
        let full = |now| {
            due(Situation {
                is_pressed: true,
                ..at(now)
            })
        };
        assert_eq!(full(START + 60), window(START + 60, Kind::Standard));
        assert_eq!(full(START - 60), window(START + 1, Kind::Standard));
    }

    proptest! {
        /// Whatever the clock does, windows have a length, and a few of them bring the writer up to the clock.
        #[test]
        fn the_clock_is_soon_caught_up_with(start in -1_i64 << 40..1 << 40, now in -1_i64 << 40..1 << 40, interval in 1_i64..=3600) {
            let mut situation = Situation { start, interval, now, idle: Duration::ZERO, is_pressed: false, is_ending: false };
            let mut windows = 0;
            while let Some(window) = due(situation) {
                prop_assert_eq!(window.start, situation.start);
                prop_assert!(window.end > window.start && window.end <= now);
                situation.start = window.end;
                windows += 1;
            }
            prop_assert!(windows <= CAUGHT_UP + 1);
            prop_assert!(now < situation.start + interval);
        }
    }
}
