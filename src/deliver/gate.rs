//! One leg's patience: while its destination fails, one attempt at a time, each after a longer wait.
//!
//! A healthy leg works in parallel. From the first failure until the next success its attempts take turns, so that a dead destination is asked
//! now and then, not hammered, and holds little memory; and every waiting batch gets its turn, so that one that is always
//! refused does not stand in the way of its neighbours.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, MutexGuard};

use crate::retry::Backoff;

#[derive(Debug, Default)]
pub struct Gate {
    troubled: AtomicBool,
    turn: Mutex<Backoff>,
}

/// The right to make one attempt. Dropped, it says nothing about the destination.
pub struct Turn<'a> {
    gate: &'a Gate,
    backoff: Option<MutexGuard<'a, Backoff>>,
}

impl Gate {
    /// Waits for the right to try: none while all is well, one's turn otherwise.
    pub async fn enter(&self) -> Turn<'_> {
        let mut backoff = None;
        if self.troubled.load(Ordering::Acquire) {
            let turn = self.turn.lock().await;
            // Whoever had the turn before may have succeeded.
            if self.troubled.load(Ordering::Acquire) {
                backoff = Some(turn);
            }
        }
        Turn {
            gate: self,
            backoff,
        }
    }
}

impl Turn<'_> {
    /// The attempt worked: the way is free for all.
    pub fn succeeded(mut self) {
        self.gate.troubled.store(false, Ordering::Release);
        if let Some(backoff) = &mut self.backoff {
            backoff.reset();
        }
    }

    /// The attempt failed: waits, with the turn in hand, as long as the failures in a row ask for. A failure without the
    /// turn is one of several that began while all was well; it only calls for turns.
    pub async fn failed(mut self) {
        self.gate.troubled.store(true, Ordering::Release);
        if let Some(backoff) = &mut self.backoff {
            let delay = backoff.next_delay();
            tokio::time::sleep(delay).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_failing_destination_is_tried_by_one_at_a_time_and_then_by_all_again() {
        let gate = Arc::new(Gate::default());
        let healthy = Arc::new(AtomicBool::new(false));
        let (attempts, at_once) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (gate, healthy) = (gate.clone(), healthy.clone());
            let (attempts, at_once) = (attempts.clone(), at_once.clone());
            tasks.spawn(async move {
                loop {
                    let turn = gate.enter().await;
                    attempts.fetch_add(1, Ordering::Relaxed);
                    let others = at_once.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    at_once.fetch_sub(1, Ordering::Relaxed);
                    if healthy.load(Ordering::Relaxed) {
                        turn.succeeded();
                        return;
                    }
                    assert!(
                        turn.backoff.is_none() || others == 0,
                        "turns do not overlap"
                    );
                    turn.failed().await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        let while_dead = attempts.load(Ordering::Relaxed);
        assert!(
            (20..150).contains(&while_dead),
            "{while_dead} attempts in ten minutes"
        );
        healthy.store(true, Ordering::Relaxed);
        let back = tokio::time::Instant::now();
        while tasks.join_next().await.is_some() {}
        assert!(
            back.elapsed() < Duration::from_secs(31),
            "one wait, then all: {:?}",
            back.elapsed()
        );
    }
}
