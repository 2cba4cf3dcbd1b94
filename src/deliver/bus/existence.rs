//! Whether a bus is there.
//!
//! One look at a time, one every [`INTERVAL`] at most, shared by all who wait for it: a look counts for those alone who asked before it
//! began. Where nobody may look, nobody looks again for [`REST_WHEN_HIDDEN`], so that a role which may only put does not fill the
//! account's own trail with denials. A bus that was missing and is there now is believed after [`SETTLING`]: those that take events may
//! come to know it later than those that describe it.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::deliver::failure::Failure;

/// Two of them fit into what a leg has to end when it stops: a look for what it sent before, and one for what was under way.
const INTERVAL: Duration = Duration::from_millis(200);
const SETTLING: Duration = Duration::from_secs(3);
const REST_WHEN_HIDDEN: Duration = Duration::from_secs(600);

/// What a look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Existence {
    Present,
    Absent(Failure),
    /// Who sends to it may not look, or the service does not tell.
    Hidden,
    /// It could not be found out.
    Unknown(Failure),
}

/// The last look at one bus.
#[derive(Debug, Default)]
pub struct Lookout {
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    began: Instant,
    found: Existence,
    /// It was missing when last something was known.
    was_missing: bool,
}

impl Look {
    fn answers(&self, asked: Instant) -> bool {
        let rests = self.found == Existence::Hidden && asked < self.began + REST_WHEN_HIDDEN;
        asked < self.began || rests
    }
}

impl Lookout {
    /// Answers what a look finds that begins after this call, `look` being one.
    pub async fn ask(&self, look: impl Future<Output = Existence>) -> Existence {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        let was_missing = last.as_ref().is_some_and(|look| look.was_missing);
        if let Some(look) = &*last {
            if look.answers(asked) {
                return look.found.clone();
            }
            sleep_until(look.began + INTERVAL).await;
        }
        let began = Instant::now();
        let found = look.await;
        if was_missing && found == Existence::Present {
            sleep(SETTLING).await;
        }
        *last = Some(Look {
            began,
            found: found.clone(),
            was_missing: match found {
                Existence::Absent(_) => true,
                Existence::Unknown(_) => was_missing,
                Existence::Present | Existence::Hidden => false,
            },
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LOOK: Duration = Duration::from_millis(50);

    /// Looks take a while and find `found`; answers how many there were.
    struct Bus {
        lookout: Lookout,
        looks: AtomicUsize,
        found: Existence,
    }

    impl Bus {
        fn new(found: Existence) -> Arc<Self> {
            Arc::new(Self {
                lookout: Lookout::default(),
                looks: AtomicUsize::new(0),
                found,
            })
        }

        /// Answers when the look that it got began, at the earliest.
        async fn ask(&self) -> Existence {
            let look = async {
                self.looks.fetch_add(1, Ordering::SeqCst);
                sleep(LOOK).await;
                self.found.clone()
            };
            self.lookout.ask(look).await
        }

        fn looks(&self) -> usize {
            self.looks.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_counts_only_for_those_who_asked_before_it_began() {
        let bus = Bus::new(Existence::Present);
        let start = Instant::now();
        let first = tokio::spawn({
            let bus = bus.clone();
            async move { bus.ask().await }
        });
        // While the first look is under way, others ask: it began too early for them, and one more does for all.
        sleep(LOOK / 2).await;
        let mut later = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let bus = bus.clone();
            later.spawn(async move {
                bus.ask().await;
                Instant::now()
            });
        }
        assert_eq!(first.await.unwrap(), Existence::Present);
        assert_eq!(bus.looks(), 1);
        for answered in later.join_all().await {
            assert_eq!(answered - start, INTERVAL + LOOK);
        }
        assert_eq!(bus.looks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn looks_keep_their_distance_however_many_ask() {
        let bus = Bus::new(Existence::Present);
        let start = Instant::now();
        for _ in 0..10 {
            bus.ask().await;
        }
        assert_eq!(bus.looks(), 10);
        assert_eq!(start.elapsed(), 9 * INTERVAL + LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_may_look_nobody_does_for_a_while() {
        let bus = Bus::new(Existence::Hidden);
        for _ in 0..100 {
            assert_eq!(bus.ask().await, Existence::Hidden);
        }
        assert_eq!(bus.looks(), 1);
        sleep(REST_WHEN_HIDDEN).await;
        bus.ask().await;
        assert_eq!(bus.looks(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_was_missing_is_believed_a_while_after_it_is_there() {
        let failure = || Failure::new("ResourceNotFoundException", "no");
        let lookout = Lookout::default();
        let took = async |found: Existence| {
            let asked = Instant::now();
            assert_eq!(lookout.ask(async { found.clone() }).await, found);
            asked.elapsed()
        };
        assert_eq!(took(Existence::Present).await, Duration::ZERO);
        assert_eq!(
            took(Existence::Present).await,
            INTERVAL,
            "it was never missing"
        );
        took(Existence::Absent(failure())).await;
        took(Existence::Unknown(failure())).await;
        let gave_up = tokio::time::timeout(SETTLING, took(Existence::Present)).await;
        assert!(gave_up.is_err());
        assert_eq!(took(Existence::Present).await, SETTLING);
        assert_eq!(
            took(Existence::Present).await,
            Duration::ZERO,
            "it is believed"
        );
        assert_eq!(took(Existence::Present).await, INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_gives_up_waiting_stands_in_nobodys_way() {
        let bus = Bus::new(Existence::Present);
        let gave_up = tokio::time::timeout(LOOK / 2, bus.ask()).await;
        assert!(gave_up.is_err());
        assert_eq!(bus.ask().await, Existence::Present);
        assert_eq!(bus.looks(), 2);
    }
}
