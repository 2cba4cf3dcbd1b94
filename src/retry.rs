//! How long to wait before trying again: exponential, jittered, capped, for ever.
//!
//! The only place that uses the `backoff` crate, which is no longer maintained (RUSTSEC-2025-0012); replacing it means rewriting
//! this file and nothing else.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

const FIRST: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(20);

/// Delays that grow from about 0.1 s to about 20 s, each between half and one and a half times its nominal length.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Default for Backoff {
    fn default() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            multiplier: 2.0,
            randomization_factor: 0.5,
            max_interval: CAP,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Backoff {
    /// The next delay. It never says to give up.
    pub fn next_delay(&mut self) -> Duration {
        #[cfg(test)]
        if let Some(chance) = crate::simulation::chance() {
            let nominal = self.0.current_interval;
            self.0.current_interval = (nominal * 2).min(CAP);
            return nominal.mul_f64(0.5 + chance);
        }
        self.0.next_backoff().unwrap_or(CAP)
    }

    /// Begins again with the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_cap_and_begin_again_after_a_success() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..50).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= FIRST * 3 / 2, "{delays:?}");
        assert!(
            delays.iter().all(|delay| *delay <= CAP * 3 / 2),
            "{delays:?}"
        );
        assert!(
            delays[20..].iter().all(|delay| *delay >= CAP / 2),
            "{delays:?}"
        );
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST * 3 / 2);
    }
}
