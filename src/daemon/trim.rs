//! Gives disk space back: what every leg has settled is removed from the journal, what checkpoints have said again from the ledger.
//!
//! S3 legs may hold the logs back for as long as it takes. The others may, too, until a log is nearly full: then the oldest segments that only they want
//! are taken from them ([`crate::config::JournalOnFull`]).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::JournalOnFull;
use crate::deliver::s3::Progress;
use crate::ingest::dedup::Sidecars;
use crate::wal::{Position, Wal};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);
/// How often it looks while legs are being cut off, to take away what they let go of.
const EVERY_UNDER_PRESSURE: Duration = Duration::from_millis(50);

/// A ledger larger than this is worth a checkpoint.
const LEDGER_BYTES: u64 = 64 << 20;

/// A ledger larger than this waits for no leg besides S3.
const LEDGER_HELD_BYTES: u64 = 256 << 20;

/// The legs besides S3 that follow one log.
#[derive(Debug)]
pub struct Followers {
    /// The lowest position that each still wants.
    pub progress: Vec<watch::Receiver<Position>>,
    /// What they must let go of: all before it.
    pub cut: watch::Sender<Position>,
}

impl Default for Followers {
    fn default() -> Self {
        Self {
            progress: Vec::new(),
            cut: watch::Sender::new(Position(0)),
        }
    }
}

impl Followers {
    /// The lowest position that any of them still wants, below `held`.
    fn floor(&self, held: Position) -> Position {
        let wanted = self.progress.iter().map(|progress| *progress.borrow());
        wanted.fold(held, Position::min)
    }

    /// Takes from them what is in the way.
    fn cut_to(&self, cut: Position) {
        raise(&self.cut, cut);
    }
}

/// A follower of the journal that stays when legs come and go: the event history.
#[derive(Debug, Clone)]
pub struct Lasting {
    /// The lowest position that it still wants.
    pub progress: watch::Receiver<Position>,
    /// What it must let go of: all before it.
    pub cut: watch::Sender<Position>,
}

impl Lasting {
    /// The lowest position that is kept for it, below `held`. When the journal `must_go`, what was cut off is not, whether the follower
    /// has let go of it or not: it may wait long for a processor.
    fn floor(&self, held: Position, must_go: bool) -> Position {
        let wanted = *self.progress.borrow();
        held.min(match must_go {
            true => wanted.max(*self.cut.borrow()),
            false => wanted,
        })
    }

    fn cut_to(&self, cut: Position) {
        raise(&self.cut, cut);
    }
}

fn raise(told: &watch::Sender<Position>, cut: Position) {
    told.send_if_modified(|before| {
        let is_further = cut > *before;
        *before = cut.max(*before);
        is_further
    });
}

pub struct Trimmer {
    pub journal: Wal,
    pub ledger: Wal,
    pub sidecars: Arc<Mutex<Sidecars>>,
    /// Of every leg that may hold both logs back.
    pub progress: Vec<watch::Receiver<Progress>>,
    /// What writers of digests still want of the ledger. No log file may be without one, so they hold it for as long as it takes.
    pub digests: Vec<watch::Receiver<Position>>,
    pub journal_followers: Followers,
    pub ledger_followers: Followers,
    /// It may hold the journal until it is nearly full, whatever `journal_on_full` says: nothing is refused for it.
    pub history: Option<Lasting>,
    pub journal_max_bytes: u64,
    pub journal_on_full: JournalOnFull,
    pub checkpoint_wanted: watch::Sender<u64>,
}

impl Trimmer {
    pub async fn run(mut self, stop: CancellationToken) {
        // The size that was reached when checkpoints were asked for last.
        let mut asked_at = 0;
        let mut pause = EVERY;
        while stop
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_some()
        {
            let trimmed = crate::background::spawn_blocking(move || {
                let cuts = self.trim();
                (self, cuts)
            });
            match trimmed.await {
                Ok((trimmer, cuts)) => {
                    self = trimmer;
                    pause = if cuts { EVERY_UNDER_PRESSURE } else { EVERY };
                }
                Err(error) => {
                    tracing::error!(%error, "trimming has stopped, disk space is not given back until a restart");
                    return;
                }
            }
            let bytes = self.ledger.bytes();
            if bytes > asked_at + LEDGER_BYTES {
                self.ledger.roll();
                self.checkpoint_wanted.send_modify(|times| *times += 1);
                asked_at = bytes;
            }
            asked_at = asked_at.min(bytes);
        }
    }

    /// Whether legs were cut off.
    fn trim(&mut self) -> bool {
        let (journal, ledger) = self.held();
        let of_legs = self.journal_followers.floor(journal);
        let is_full = self.journal.obstacle().is_some();
        let must_go =
            is_full || self.journal.bytes() > self.journal_max_bytes - self.journal_max_bytes / 16;
        let history = self.history.as_ref();
        let floor = history.map_or(of_legs, |it| it.floor(of_legs, must_go));
        let mut sidecars = self.sidecars.lock().unwrap_or_else(PoisonError::into_inner);
        let trimmed = sidecars.trim(&self.journal, floor);
        drop(sidecars);
        if let Err(error) = trimmed {
            tracing::warn!(%error, "cannot trim the journal, will try again");
        }
        let floor = self.ledger_followers.floor(ledger);
        for segment in self.ledger.trimmable(floor) {
            if let Err(error) = self.ledger.remove_oldest(segment) {
                tracing::warn!(%error, "cannot trim the ledger, will try again");
                return false;
            }
        }
        let mut cuts = false;
        let limit = self.journal_max_bytes - self.journal_max_bytes / 8;
        let excess_bytes = excess(self.journal.bytes(), limit, is_full);
        let held = match self.journal_on_full {
            JournalOnFull::CutOff => journal,
            JournalOnFull::Reject => of_legs,
        };
        if let Some(cut) = cut(&self.journal.trimmable(held), excess_bytes) {
            if self.journal_on_full == JournalOnFull::CutOff {
                self.journal_followers.cut_to(cut);
            }
            if let Some(history) = &self.history {
                history.cut_to(cut);
            }
            cuts = true;
        }
        let limit = if is_full {
            LEDGER_BYTES
        } else {
            LEDGER_HELD_BYTES
        };
        let excess = excess(self.ledger.bytes(), limit, false);
        if let Some(cut) = cut(&self.ledger.trimmable(ledger), excess) {
            self.ledger_followers.cut_to(cut);
            cuts = true;
        }
        cuts
    }

    /// The lowest positions that any leg that may hold the logs still wants, of the journal and of the ledger. Without a leg nobody wants
    /// anything.
    fn held(&self) -> (Position, Position) {
        let digests = self.digests.iter().map(|wanted| *wanted.borrow());
        let ledger = digests.fold(self.ledger.durable(), Position::min);
        let end = (self.journal.durable(), ledger);
        self.progress
            .iter()
            .map(|progress| *progress.borrow())
            .fold(end, |(journal, ledger), leg| {
                (journal.min(leg.journal), ledger.min(leg.ledger))
            })
    }
}

/// Bytes that should go. A log that refuses appends has something in the way even below its limit: a full disk.
fn excess(bytes: u64, limit: u64, is_full: bool) -> u64 {
    bytes.saturating_sub(limit).max(u64::from(is_full))
}

/// Through where the log must be let go of to free `excess` bytes, as far as these segments, which nobody else wants, can do that.
fn cut(segments: &[Range<Position>], excess: u64) -> Option<Position> {
    let mut freed = 0;
    let enough = segments.iter().find(|segment| {
        freed += segment.end.0 - segment.start.0;
        freed >= excess
    });
    (excess > 0)
        .then(|| enough.or(segments.last()))?
        .map(|segment| segment.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_from_a_leg_than_must_be() {
        let segments = [0..100, 100..200, 200..300]
            .map(|range: Range<u64>| Position(range.start)..Position(range.end));
        for (excess, expected) in [
            (0, None),
            (1, Some(100)),
            (100, Some(100)),
            (101, Some(200)),
            (5000, Some(300)),
        ] {
            assert_eq!(cut(&segments, excess), expected.map(Position), "{excess}");
        }
        assert_eq!(cut(&[], 5), None);
    }

    #[test]
    fn a_full_disk_calls_for_room_below_the_limit_too() {
        assert_eq!(excess(50, 100, false), 0);
        assert_eq!(excess(50, 100, true), 1);
        assert_eq!(excess(130, 100, true), 30);
    }

    #[test]
    fn a_full_journal_does_not_wait_for_the_history_to_let_go() {
        let at = watch::Sender::new(Position(40));
        let history = Lasting {
            progress: at.subscribe(),
            cut: watch::Sender::new(Position(0)),
        };
        assert_eq!(history.floor(Position(90), true), Position(40));
        history.cut_to(Position(60));
        assert_eq!(history.floor(Position(90), false), Position(40));
        assert_eq!(history.floor(Position(90), true), Position(60));
        assert_eq!(history.floor(Position(50), true), Position(50));
        at.send_replace(Position(70));
        assert_eq!(history.floor(Position(90), true), Position(70));
    }

    #[test]
    fn followers_hold_their_log_until_they_are_cut_off() {
        let at = watch::Sender::new(Position(40));
        let followers = Followers {
            progress: vec![at.subscribe()],
            ..Followers::default()
        };
        assert_eq!(followers.floor(Position(90)), Position(40));
        assert_eq!(followers.floor(Position(30)), Position(30));
        let seen = followers.cut.subscribe();
        followers.cut_to(Position(60));
        followers.cut_to(Position(50));
        assert_eq!(*seen.borrow(), Position(60), "it never goes back");
    }
}
