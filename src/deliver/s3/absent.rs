//! A trail that the ledger knows and the configuration does not: taken out on purpose, or by a slip of the pen.
//!
//! What is remembered of it stays in the ledger, so that it goes on where it stopped when it comes back, and doubles nothing. For a while it also holds
//! the journal back, so that a slip that is mended soon loses nothing; after that its undelivered events go as the journal is
//! trimmed. It is forgotten when the journal has moved past all it knew.

use std::collections::VecDeque;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::leg::{LegError, Progress, write};
use crate::deliver::ABSENCE;
use crate::ledger::{self, TrailState};
use crate::wal::{Position, Wal};

/// The memory of an absent trail.
pub struct Absent {
    arn: String,
    state: TrailState,
    ledger: Wal,
    checkpoint_wanted: watch::Receiver<u64>,
    progress: watch::Sender<Progress>,
}

impl Absent {
    /// Nothing when there is nothing worth remembering: all of it was delivered, and the journal has moved on.
    pub fn new(
        arn: String,
        state: TrailState,
        journal: &Wal,
        ledger: Wal,
        checkpoint_wanted: watch::Receiver<u64>,
    ) -> Option<Self> {
        if state.pending.is_empty() && state.horizon < journal.start() {
            return None;
        }
        let events = state
            .pending
            .values()
            .map(|batch| u64::from(batch.positions.len()));
        tracing::warn!(
            arn,
            sealed_batches = state.pending.len(),
            events_in_them = events.sum::<u64>(),
            "ledger knows a trail that is not configured; its undelivered events are kept for an hour, configure it again to deliver them"
        );
        let first = state.pending.first_key_value().map(|(id, _)| id.first);
        let progress = watch::Sender::new(Progress {
            journal: first.map_or(state.horizon, |first| first.min(state.horizon)),
            ledger: ledger.start(),
        });
        Some(Self {
            arn,
            state,
            ledger,
            checkpoint_wanted,
            progress,
        })
    }

    pub fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Where it begins.
    async fn write_checkpoint(&mut self) -> Result<Position, LegError> {
        let horizon = self.state.horizon;
        let mut entries: VecDeque<_> = self.state.checkpoint(&self.arn, horizon).into();
        let (_, first) = write(self.ledger.clone(), ledger::take_frame(&mut entries)).await?;
        while !entries.is_empty() {
            write(self.ledger.clone(), ledger::take_frame(&mut entries)).await?;
        }
        Ok(first.start)
    }

    /// Says again what is remembered whenever checkpoints are asked for.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LegError> {
        let grace = tokio::time::sleep(ABSENCE);
        tokio::pin!(grace);
        let mut is_held = true;
        loop {
            let start = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                start = self.write_checkpoint() => start?,
            };
            self.progress
                .send_modify(|progress| progress.ledger = start);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = &mut grace, if is_held => {
                        is_held = false;
                        tracing::warn!(arn = self.arn, "trail is still not configured, its undelivered events are let go");
                        self.progress.send_modify(|progress| progress.journal = Position(u64::MAX));
                    }
                    wanted = self.checkpoint_wanted.changed() => match wanted {
                        Ok(()) => break,
                        // The daemon is going down.
                        Err(_) => return Ok(()),
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Checkpoint, Entry, Replay, SealedThrough, StreamName};
    use crate::trail::{Stream, tests::event};
    use crate::wal::sim::SimDisk;
    use crate::wal::{DiskReserve, Metrics, Options};
    use std::sync::Arc;

    fn open(disk: &SimDisk, directory: &str, replay: &mut Replay) -> Wal {
        let options = Options {
            directory: directory.into(),
            segment_bytes: 1 << 20,
            max_bytes: 1 << 30,
            disk_reserve: DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let disk = Arc::new(disk.clone());
        let each = &mut |at, frame: &[u8]| replay.take(at, frame);
        Wal::open(disk, options, Metrics::default(), each)
            .unwrap()
            .0
    }

    #[tokio::test]
    async fn what_an_absent_trail_knew_outlives_the_trimming_of_the_ledger() {
        let disk = SimDisk::new();
        let journal = open(&disk, "/journal", &mut Replay::default());
        let ledger = open(&disk, "/ledger", &mut Replay::default());
        let mut state = TrailState::default();
        let stream = Stream::from(&event("111122223333", "us-east-1"));
        let sealed = SealedThrough {
            stream: StreamName(stream),
            position: Position(9000),
        };
        state.apply(Entry::Checkpoint(Checkpoint {
            trail: "arn".into(),
            horizon: Position(5000),
            sealed_through: vec![sealed],
            totals: Default::default(),
        }));
        let wanted = watch::Sender::new(0);
        let absent = Absent::new(
            "arn".into(),
            state.clone(),
            &journal,
            ledger.clone(),
            wanted.subscribe(),
        )
        .unwrap();
        let mut progress = absent.watch_progress();
        assert_eq!(
            progress.borrow().journal,
            Position(5000),
            "it holds the journal back"
        );

        let stop = CancellationToken::new();
        let running = tokio::spawn(absent.run(stop.clone()));
        progress.changed().await.unwrap();
        ledger.roll();
        wanted.send_replace(1);
        progress.changed().await.unwrap();
        let floor = progress.borrow().ledger;
        for segment in ledger.trimmable(floor) {
            ledger.remove_oldest(segment).unwrap();
        }
        stop.cancel();
        running.await.unwrap().unwrap();
        ledger.close();

        let mut replay = Replay::default();
        open(&disk, "/ledger", &mut replay).close();
        assert_eq!(replay.remove("arn"), Some(state));
    }
}
