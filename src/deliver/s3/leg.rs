//! The task that carries out what [`Plan`] decides: reads the journal, writes the ledger, runs the uploads.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Now, Plan, Taken};
use super::upload::{Outcome, Uploader};
use crate::clock::{self, Monotonic};
use crate::deliver::view::JOURNAL_DAMAGED;
use crate::ledger::{self, BatchId, Entry, Settled};
use crate::pump::{Tail, TailError};
use crate::wal::{AppendError, Batch, Chunk, Position, Wal};

/// Uploads of one trail that run at the same time.
const PARALLEL_UPLOADS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum LegError {
    #[error("cannot follow the journal")]
    Tail(#[from] TailError),
    #[error("cannot write the ledger")]
    Ledger(#[from] AppendError),
    #[error("an upload task has stopped")]
    Upload(#[from] tokio::task::JoinError),
}

/// What happens to open batches when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They stay in the journal and are delivered after the next start.
    Leave,
    /// They are cut and uploaded, within this time.
    Flush(Duration),
}

/// How far a leg has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The lowest journal position that is still wanted.
    pub journal: Position,
    /// The lowest ledger position that is still wanted: where the latest checkpoint begins.
    pub ledger: Position,
}

/// What a leg is built with.
pub struct Options {
    /// Bytes of memory that events taken and not settled may hold.
    pub held_bytes: usize,
    /// Bytes of the journal waiting for this leg above which open batches are cut before they are due, so that it can be trimmed.
    pub journal_bytes: u64,
    /// How often batches are cut by age while the leg is far behind.
    pub max_age: Duration,
    /// As it is when the leg is stopped.
    pub on_stop: watch::Receiver<OnStop>,
}

pub type Written = Result<(Vec<Entry>, Range<Position>), AppendError>;

/// The S3 leg of one trail.
pub struct S3Leg {
    plan: Plan,
    tail: Tail,
    journal: Wal,
    ledger: Wal,
    uploader: Arc<Uploader>,
    options: Options,
    /// Sealed durably, waiting for one of the parallel uploads.
    ready: VecDeque<BatchId>,
    uploads: JoinSet<Outcome>,
    /// Entries on their way to the ledger. One write at a time keeps them in order.
    writing: Option<Pin<Box<dyn Future<Output = Written> + Send>>>,
    /// A checkpoint is asked for by each change of this.
    checkpoint_wanted: watch::Receiver<u64>,
    checkpoint_due: bool,
    /// Where the checkpoint begins that is being written, in parts.
    checkpoint_start: Option<Position>,
    /// When batches were last cut by age.
    cut_at: Instant,
    progress: watch::Sender<Progress>,
}

impl S3Leg {
    /// A leg that goes on from what its plan remembers. When this returns, the ledger knows the trail, so that no event accepted from then on
    /// can be missed; for a trail that it knew before (`is_known`), nothing has to be written for that.
    pub async fn open(
        mut plan: Plan,
        journal: &Wal,
        ledger: Wal,
        uploader: Arc<Uploader>,
        options: Options,
        checkpoint_wanted: watch::Receiver<u64>,
        is_known: bool,
    ) -> Result<Self, LegError> {
        let view = &uploader.view;
        let state = plan.state();
        let totals = state.totals;
        let pending = state
            .pending
            .values()
            .map(|batch| u64::from(batch.positions.len()));
        let taken = totals.events.saturating_add(totals.lost);
        view.routed(pending.fold(taken, u64::saturating_add));
        view.delivered(totals.events, totals.objects, totals.object_bytes);
        view.dead_lettered(JOURNAL_DAMAGED, totals.lost);
        let ready = state.pending.keys().copied().collect();

        plan.checkpoint();
        if !is_known {
            while plan.has_outbox() {
                write(ledger.clone(), plan.take_outbox()).await?;
            }
        }
        let progress = Progress {
            journal: plan.horizon(),
            ledger: ledger.start(),
        };
        Ok(Self {
            tail: Tail::new(journal, plan.next()),
            journal: journal.clone(),
            plan,
            ledger,
            uploader,
            options,
            ready,
            uploads: JoinSet::new(),
            writing: None,
            checkpoint_wanted,
            checkpoint_due: false,
            checkpoint_start: None,
            cut_at: Instant::now(),
            progress: watch::Sender::new(progress),
        })
    }

    pub fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Runs until `stop`, or until the journal or the ledger fails.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LegError> {
        let mut stopping = false;
        let deadline = tokio::time::sleep(FAR);
        tokio::pin!(deadline);
        loop {
            self.make_room();
            if stopping && self.tail.is_at_end() {
                self.plan.cut_all(Now::read());
            }
            self.start_writing();
            self.start_uploads();
            self.publish();
            if stopping && self.is_drained() {
                return Ok(());
            }
            let due = self.next_cut();
            let has_room = self.has_room();
            tokio::select! {
                biased; // outcomes before new work, so that a flood of it starves nothing
                () = stop.cancelled(), if !stopping => match *self.options.on_stop.borrow() {
                    OnStop::Leave => return Ok(()),
                    OnStop::Flush(within) => {
                        stopping = true;
                        deadline.as_mut().reset(Instant::now() + within);
                    }
                },
                () = &mut deadline, if stopping => {
                    let batches = self.plan.state().pending.len();
                    tracing::warn!(
                        trail = %self.plan.trail().name, batches,
                        "stop_timeout is over, what is not delivered stays in the journal"
                    );
                    return Ok(());
                }
                Some(written) = optional(&mut self.writing) => {
                    self.writing = None;
                    let (entries, range) = written?;
                    self.written(entries, range.start);
                }
                Some(outcome) = self.uploads.join_next() => match outcome? {
                    Outcome::Settled(settled) => self.plan.finish(settled),
                    Outcome::KeyTaken(batch) => self.plan.rekey(batch),
                    Outcome::Again(batch) => self.ready.push_back(batch.id()),
                },
                Ok(()) = self.checkpoint_wanted.changed() => self.checkpoint_due = true,
                () = sleep_until(due) => {
                    self.cut_at = Instant::now();
                    self.plan.cut_due(Now::read());
                }
                chunk = self.tail.next(), if has_room => self.take(&chunk?),
            }
        }
    }

    fn take(&mut self, chunk: &Chunk) {
        let now = Now::read();
        let mut routed = 0;
        for (position, record) in chunk.iter() {
            match self.plan.take(position, record, now) {
                Taken::Routed => routed += 1,
                Taken::Passed => {}
                Taken::Undecodable(error) => {
                    tracing::error!(
                        trail = %self.plan.trail().name, position = position.0, %error,
                        "journal holds a record that is no event"
                    );
                    self.uploader.view.routed(1);
                    self.uploader.view.dead_lettered(JOURNAL_DAMAGED, 1);
                }
            }
        }
        self.plan.advance(chunk.next);
        self.uploader.view.routed(routed);
    }

    /// While a leg holds as much as it may, it takes nothing more.
    fn has_room(&self) -> bool {
        self.plan.held_bytes() < self.options.held_bytes
    }

    /// When all that a full leg holds is in open batches, it cuts the longest ones, so that there is something to deliver; when much of the
    /// journal waits for it, the oldest ones, so that it can be trimmed.
    fn make_room(&mut self) {
        if !self.plan.state().pending.is_empty() || !self.plan.has_open() {
            return;
        }
        let now = Now::read();
        if !self.has_room() {
            (0..PARALLEL_UPLOADS).for_each(|_| self.plan.cut_longest(now));
        } else if self.held_journal_bytes() > self.options.journal_bytes {
            (0..PARALLEL_UPLOADS).for_each(|_| self.plan.cut_oldest(now));
        }
    }

    /// Bytes of the journal that wait for this leg.
    fn held_journal_bytes(&self) -> u64 {
        let end = self.journal.durable();
        end.0.saturating_sub(self.plan.horizon().0)
    }

    /// When batches are cut by age.
    fn next_cut(&self) -> Option<Monotonic> {
        let due = self.plan.next_due()?;
        let wait = wait_of_due(Load {
            behind: self.tail.behind(),
            pending: self.plan.state().pending.len(),
            has_room: self.has_room(),
            until_next_turn: self.options.max_age.saturating_sub(self.cut_at.elapsed()),
        })?;
        Some(due.max(clock::monotonic() + wait))
    }

    fn start_writing(&mut self) {
        if self.writing.is_some() {
            return;
        }
        if std::mem::take(&mut self.checkpoint_due) {
            self.plan.checkpoint();
        }
        if self.plan.has_outbox() {
            let entries = self.plan.take_outbox();
            self.writing = Some(Box::pin(write(self.ledger.clone(), entries)));
        }
    }

    /// These entries are durable, the first of them at `start`.
    fn written(&mut self, entries: Vec<Entry>, start: Position) {
        for entry in entries {
            match entry {
                Entry::Sealed(batch) => self.ready.push_back(batch.id()),
                Entry::Settled(settled) => {
                    self.tell(&settled);
                    self.plan.settle(settled);
                }
                Entry::Carried(_) => {}
                // The first of a checkpoint's entries comes first in its write.
                Entry::Checkpoint(checkpoint) if checkpoint.sealed_through.is_empty() => {
                    self.checkpoint_start = Some(start);
                }
                Entry::Checkpoint(_) | Entry::Forgotten { .. } => {}
            }
        }
        if !self.plan.has_checkpoint_left()
            && let Some(start) = self.checkpoint_start.take()
        {
            // All of it is durable: nothing before it is needed any more.
            self.progress
                .send_modify(|progress| progress.ledger = start);
        }
    }

    fn tell(&self, settled: &Settled) {
        let view = &self.uploader.view;
        view.dead_lettered(JOURNAL_DAMAGED, u64::from(settled.lost));
        if let Some(object) = &settled.object {
            view.delivered(u64::from(object.events), 1, object.bytes);
            view.delivery_at(settled.settled_at);
            tracing::debug!(
                trail = %self.plan.trail().name, key = %object.key, events = object.events, "log file delivered"
            );
        }
    }

    fn start_uploads(&mut self) {
        while self.uploads.len() < PARALLEL_UPLOADS {
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(batch) = self.plan.state().pending.get(&id).cloned() else {
                continue;
            };
            let uploader = self.uploader.clone();
            self.uploads
                .spawn(async move { uploader.deliver(batch).await });
        }
    }

    fn publish(&self) {
        let journal = self.plan.horizon();
        self.progress.send_if_modified(|progress| {
            let moved = progress.journal != journal;
            progress.journal = journal;
            moved
        });
        self.uploader
            .view
            .oldest_pending(self.plan.oldest_pending(Now::read()));
    }

    fn is_drained(&self) -> bool {
        self.tail.is_at_end()
            && self.writing.is_none()
            && !self.plan.has_outbox()
            && !self.plan.has_open()
            && self.plan.state().pending.is_empty()
    }
}

/// How busy a leg is when a batch comes of age.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Bytes of the journal not read yet.
    behind: u64,
    /// Batches cut and not settled.
    pending: usize,
    /// It may take more events.
    has_room: bool,
    /// Of `max_age`, since batches were last cut by age.
    until_next_turn: Duration,
}

/// How long batches that are of age wait still, nothing when it is until an upload ends. After an outage all that is read is old at once; cut as
/// it comes, it would make a file of every few events. So while the leg is far behind, it gathers first, and cuts once in `max_age`; and not before
/// what was cut is nearly all delivered, since with many streams those files hold all the memory that it may have, and what little it could read
/// meanwhile would become a file for each event.
fn wait_of_due(load: Load) -> Option<Duration> {
    const FAR_BEHIND: u64 = 8 << 20;
    if load.behind < FAR_BEHIND {
        Some(Duration::ZERO)
    } else if load.pending > PARALLEL_UPLOADS {
        None
    } else if !load.has_room {
        Some(Duration::ZERO)
    } else {
        Some(load.until_next_turn)
    }
}

/// Far enough for a timer that is not set.
const FAR: Duration = Duration::from_secs(365 * 86_400);

async fn sleep_until(due: Option<Monotonic>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_sub(clock::monotonic())).await,
        None => std::future::pending().await,
    }
}

/// The future's output, or nothing when there is none: for a branch of `select!` that may be empty.
async fn optional<F: Future + Unpin>(future: &mut Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

/// Writes entries to the ledger, in one go. A full disk is waited for: to go on with later entries would leave a hole in what the
/// ledger says of a stream, and its events would be lost.
pub async fn write(log: Wal, entries: Vec<Entry>) -> Written {
    loop {
        let mut batch = Batch::new();
        batch.push(&ledger::encode(&entries));
        let appended = async { log.reserve(batch.bytes()).await?.append(batch).await };
        match appended.await {
            Ok(range) => return Ok((entries, range)),
            Err(error @ (AppendError::Full { .. } | AppendError::DiskFull { .. })) => {
                tracing::error!(%error, "cannot write the ledger, will retry; deliveries wait");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10,000 streams, a million events at once: a leg that went on cutting while its files waited made a file of each event.
    #[test]
    fn a_leg_far_behind_gathers_until_what_it_cut_is_delivered() {
        let second = Duration::from_secs(1);
        let load = |behind, pending, has_room| Load {
            behind,
            pending,
            has_room,
            until_next_turn: second,
        };
        let far = 100 << 20;
        let cases = [
            (load(1 << 20, 10_000, true), Some(Duration::ZERO)),
            (load(1 << 20, 0, false), Some(Duration::ZERO)),
            (load(far, 0, true), Some(second)),
            (load(far, PARALLEL_UPLOADS, true), Some(second)),
            (load(far, PARALLEL_UPLOADS, false), Some(Duration::ZERO)),
            (load(far, PARALLEL_UPLOADS + 1, true), None),
            (load(far, PARALLEL_UPLOADS + 1, false), None),
        ];
        for (load, wait) in cases {
            assert_eq!(wait_of_due(load), wait, "{load:?}");
        }
    }
}
