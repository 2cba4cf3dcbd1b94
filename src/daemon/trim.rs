//! Gives disk space back: what every leg has settled is removed from the journal, what checkpoints have said again from the ledger.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::deliver::s3::Progress;
use crate::ingest::dedup::Sidecars;
use crate::wal::{Position, Wal};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// A ledger larger than this is worth a checkpoint.
const LEDGER_BYTES: u64 = 64 << 20;

pub struct Trimmer {
    pub journal: Wal,
    pub ledger: Wal,
    pub sidecars: Sidecars,
    /// Of every leg that may hold the journal back.
    pub progress: Vec<watch::Receiver<Progress>>,
    pub checkpoint_wanted: watch::Sender<u64>,
}

impl Trimmer {
    pub async fn run(mut self, stop: CancellationToken) {
        // The size that was reached when checkpoints were asked for last.
        let mut asked_at = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(EVERY))
            .await
            .is_some()
        {
            let trimmed = tokio::task::spawn_blocking(move || {
                self.trim();
                self
            });
            match trimmed.await {
                Ok(trimmer) => self = trimmer,
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

    fn trim(&mut self) {
        let (journal, ledger) = self.wanted();
        if let Err(error) = self.sidecars.trim(&self.journal, journal) {
            tracing::warn!(%error, "cannot trim the journal, will try again");
        }
        for segment in self.ledger.trimmable(ledger) {
            if let Err(error) = self.ledger.remove_oldest(segment) {
                tracing::warn!(%error, "cannot trim the ledger, will try again");
                return;
            }
        }
    }

    /// The lowest positions that any leg still wants, of the journal and of the ledger. Without a leg nobody wants anything.
    fn wanted(&self) -> (Position, Position) {
        let end = (self.journal.durable(), self.ledger.durable());
        self.progress
            .iter()
            .map(|progress| *progress.borrow())
            .fold(end, |(journal, ledger), leg| {
                (journal.min(leg.journal), ledger.min(leg.ledger))
            })
    }
}
