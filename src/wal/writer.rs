//! The owner thread: the only one that writes. It takes all that is queued, commits it with one fsync for each segment
//! touched, publishes the durable end, and answers; what arrives meanwhile waits for the next round and shares its fsync.
//!
//! The queue is bounded in bytes: a permit is room in it, and is held until the bytes are durable or refused. Whoever does not know yet
//! when it will write has its bytes [`Admitted`], which keeps room in the log and lets others pass in the queue.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::disk::Disk;
use super::frame::{Batch, MAX_PAYLOAD_BYTES};
use super::log::{CommitError, Log};
use super::recovery::Segment;
use super::segment::FRAMES_AT;
use super::{AppendError, DiskReserve, Metrics, Position};

/// The owner thread goes round at least this often, so that its silence means that it hangs.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// What the handles, the readers and the owner thread have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub max_bytes: u64,
    pub disk_reserve: DiskReserve,
    pub metrics: Metrics,
    /// Oldest first; the last one may be growing.
    pub segments: Mutex<Vec<Segment>>,
    /// Damaged ranges of positions that have been counted, start to end.
    pub known_damage: Mutex<BTreeMap<u64, u64>>,
    pub durable: watch::Sender<Position>,
    pub failure: watch::Sender<Option<String>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    #[cfg(test)]
    woken: tokio::sync::Notify,
    /// Told when the durable end has moved, in a simulation.
    #[cfg(test)]
    moved: tokio::sync::Notify,
    room: Arc<Semaphore>,
    queue_bytes: u32,
    /// Bytes that were permitted and are not yet written or given back.
    pending_bytes: AtomicU64,
    began: Instant,
    /// Milliseconds from `began` to the owner thread's last round.
    heartbeat: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    batches: Vec<Batch>,
    waiters: Vec<Waiter>,
    roll: bool,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Range<Position>, AppendError>>,
    enqueued: Instant,
    /// Given back when the waiter is answered. A barrier has none.
    _room: Option<(Admitted, OwnedSemaphorePermit)>,
}

/// Bytes counted as about to be written, until dropped: room in the log, none in the queue.
#[derive(Debug)]
pub struct Admitted {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared
            .pending_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Admitted {
    /// Waits for room in the queue for a batch of so many bytes; refuses when the log has failed or is closed.
    pub async fn permit(self, bytes: usize) -> Result<Permit, AppendError> {
        let shared = &self.shared;
        let permits = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(shared.queue_bytes);
        let room = Arc::clone(&shared.room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| shared.stopped())?;
        if shared.failure.borrow().is_some() {
            return Err(shared.stopped());
        }
        Ok(Permit {
            admitted: self,
            room,
        })
    }
}

/// Locks a mutex whose content is whole between any two statements, so that a panic elsewhere does not matter.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `Shared` is made of.
pub(super) struct Parts {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub max_bytes: u64,
    pub disk_reserve: DiskReserve,
    pub queue_bytes: usize,
    pub metrics: Metrics,
    pub segments: Vec<Segment>,
    pub known_damage: BTreeMap<u64, u64>,
    pub durable: Position,
}

impl Shared {
    pub fn new(parts: Parts) -> Self {
        let queue_bytes = u32::try_from(parts.queue_bytes.max(1)).unwrap_or(u32::MAX);
        Self {
            disk: parts.disk,
            directory: parts.directory,
            max_bytes: parts.max_bytes,
            disk_reserve: parts.disk_reserve,
            metrics: parts.metrics,
            segments: Mutex::new(parts.segments),
            known_damage: Mutex::new(parts.known_damage),
            durable: watch::Sender::new(parts.durable),
            failure: watch::Sender::new(None),
            queue: Mutex::default(),
            wake: Condvar::new(),
            #[cfg(test)]
            woken: tokio::sync::Notify::new(),
            #[cfg(test)]
            moved: tokio::sync::Notify::new(),
            room: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            pending_bytes: AtomicU64::new(0),
            began: Instant::now(),
            heartbeat: AtomicU64::new(0),
        }
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        lock(&self.segments)
            .iter()
            .map(|segment| segment.bytes)
            .sum()
    }

    pub fn last_heartbeat(&self) -> Instant {
        self.began + Duration::from_millis(self.heartbeat.load(Ordering::Relaxed))
    }

    fn wake_owner(&self) {
        self.wake.notify_one();
        #[cfg(test)]
        self.woken.notify_one();
    }

    pub fn roll(&self) {
        lock(&self.queue).roll = true;
        self.wake_owner();
    }

    /// Asks for a roll when it would change something.
    pub fn roll_unless_empty(&self) {
        let newest = lock(&self.segments).last().copied();
        if newest.is_some_and(|newest| newest.bytes > FRAMES_AT) {
            self.roll();
        }
    }

    /// Takes nothing more; the owner thread stops when it has written what is queued.
    pub fn close(&self) {
        lock(&self.queue).closed = true;
        self.room.close();
        self.wake_owner();
    }

    /// Why nothing is taken: it failed, or it was closed.
    fn stopped(&self) -> AppendError {
        match &*self.failure.borrow() {
            Some(reason) => AppendError::Failed {
                reason: reason.clone(),
            },
            None => AppendError::Closed,
        }
    }

    /// Counts the bytes in when log and disk have room for them besides all that is already permitted.
    pub fn admit(self: &Arc<Self>, asked: u64) -> Result<Admitted, AppendError> {
        if self.failure.borrow().is_some() || self.room.is_closed() {
            return Err(self.stopped());
        }
        let pending = self.pending_bytes.fetch_add(asked, Ordering::Relaxed);
        let admitted = Admitted {
            shared: Arc::clone(self),
            bytes: asked,
        };
        let used = self.bytes().saturating_add(pending);
        // There is always room left to begin a segment, without which a full log could not be trimmed.
        if used.saturating_add(asked).saturating_add(FRAMES_AT) > self.max_bytes {
            // Even a log whose frames are all trimmed keeps its newest segment.
            if asked.saturating_add(2 * FRAMES_AT) > self.max_bytes {
                return Err(AppendError::NeverFits {
                    asked,
                    capacity: self.max_bytes,
                });
            }
            return Err(AppendError::Full {
                used,
                capacity: self.max_bytes,
                asked,
            });
        }
        if let DiskReserve::Bytes(reserve) = self.disk_reserve {
            match self.disk.free_bytes(&self.directory) {
                Ok(free) => {
                    if free.saturating_sub(pending).saturating_sub(asked) < reserve {
                        return Err(AppendError::DiskFull { free, reserve });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot ask for the disk's free space, its reserve is not checked");
                }
            }
        }
        Ok(admitted)
    }

    /// Why the smallest batch would be refused now.
    pub fn obstacle(self: &Arc<Self>) -> Option<AppendError> {
        self.admit(1).err()
    }

    pub fn barrier(self: &Arc<Self>) -> Appending {
        self.enqueue(Batch::new(), None)
    }

    fn enqueue(
        self: &Arc<Self>,
        batch: Batch,
        room: Option<(Admitted, OwnedSemaphorePermit)>,
    ) -> Appending {
        let (answer, receiver) = oneshot::channel();
        let waiter = Waiter {
            answer,
            enqueued: Instant::now(),
            _room: room,
        };
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            return Appending(State::Refused(Some(self.stopped())));
        }
        queue.batches.push(batch);
        queue.waiters.push(waiter);
        drop(queue);
        self.wake_owner();
        Appending(State::Queued {
            receiver,
            shared: Arc::clone(self),
        })
    }

    fn disk_full(&self) -> AppendError {
        AppendError::DiskFull {
            free: self.disk.free_bytes(&self.directory).unwrap_or(0),
            reserve: match self.disk_reserve {
                DiskReserve::None => 0,
                DiskReserve::Bytes(reserve) => reserve,
            },
        }
    }

    fn fail(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            if failure.is_some() {
                return false;
            }
            tracing::error!(directory = %self.directory.display(), reason, "log has failed and takes nothing more");
            *failure = Some(reason.to_owned());
            true
        });
        // Whoever waits for room learns of it now.
        self.room.close();
    }
}

/// Room in the queue. Dropped unused, it gives the room back.
#[derive(Debug)]
pub struct Permit {
    admitted: Admitted,
    room: OwnedSemaphorePermit,
}

impl Permit {
    /// Enqueues, in the order of these calls; the future resolves when durable, with the range of positions it took.
    /// The order holds even when the future is dropped, and so does the append.
    ///
    /// A batch smaller than what was reserved gives the difference back at once; a larger one is taken all the same.
    pub fn append(self, batch: Batch) -> Appending {
        let Self {
            mut admitted,
            mut room,
        } = self;
        let shared = Arc::clone(&admitted.shared);
        if let Some(bytes) = batch.too_large() {
            return Appending(State::Refused(Some(AppendError::TooLarge {
                bytes,
                limit: MAX_PAYLOAD_BYTES,
            })));
        }
        let bytes = batch.bytes();
        drop(room.split(room.num_permits().saturating_sub(bytes)));
        shared
            .pending_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
        shared
            .pending_bytes
            .fetch_sub(admitted.bytes, Ordering::Relaxed);
        admitted.bytes = bytes as u64;
        shared.enqueue(batch, Some((admitted, room)))
    }
}

/// Resolves when the batch is durable or refused.
#[derive(Debug)]
pub struct Appending(State);

#[derive(Debug)]
enum State {
    Refused(Option<AppendError>),
    Queued {
        receiver: oneshot::Receiver<Result<Range<Position>, AppendError>>,
        shared: Arc<Shared>,
    },
}

impl Future for Appending {
    type Output = Result<Range<Position>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(AppendError::Closed))),
            State::Queued { receiver, shared } => Pin::new(receiver)
                .poll(context)
                .map(|answer| answer.unwrap_or_else(|_| Err(shared.stopped()))),
        }
    }
}

/// The owner thread's work, until closed.
pub(super) fn run(shared: &Shared, mut log: Log) {
    let _guard = FailOnPanic(shared);
    let mut batches = Vec::new();
    let mut waiters = Vec::new();
    loop {
        let round = next_round(shared, &mut batches, &mut waiters);
        if round.roll {
            roll(shared, &mut log);
        }
        commit(shared, &mut log, &mut batches, &mut waiters);
        if round.closed && batches.is_empty() {
            return;
        }
    }
}

/// The owner of a log in a simulation: a task, since a thread would write whenever it likes.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(super) struct Simulated(Arc<Mutex<Log>>);

#[cfg(test)]
impl Simulated {
    pub fn start(shared: &Arc<Shared>, log: Log) -> Self {
        let owner = Self(Arc::new(Mutex::new(log)));
        let (own, shared) = (owner.clone(), Arc::clone(shared));
        drop(tokio::spawn(async move {
            loop {
                shared.woken.notified().await;
                crate::simulation::pause().await;
                own.go_round(&shared);
            }
        }));
        owner
    }

    /// Does what there is to do.
    fn go_round(&self, shared: &Shared) {
        let (mut batches, mut waiters) = (Vec::new(), Vec::new());
        let wants_roll = {
            let mut queue = lock(&shared.queue);
            std::mem::swap(&mut queue.batches, &mut batches);
            std::mem::swap(&mut queue.waiters, &mut waiters);
            std::mem::take(&mut queue.roll)
        };
        let mut log = lock(&self.0);
        if wants_roll {
            roll(shared, &mut log);
        }
        commit(shared, &mut log, &mut batches, &mut waiters);
    }

    /// Writes what is queued; nothing more is taken by then.
    pub fn close(&self, shared: &Shared) {
        self.go_round(shared);
    }
}

/// A log whose owner is gone takes nothing more.
struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.closed = true;
        if std::thread::panicking() {
            self.0.fail("its owner thread panicked");
        }
        let left = std::mem::take(&mut *queue);
        queue.closed = true;
        drop(queue);
        drop(left);
    }
}

struct Round {
    roll: bool,
    closed: bool,
}

/// Waits for work and takes all of it.
fn next_round(shared: &Shared, batches: &mut Vec<Batch>, waiters: &mut Vec<Waiter>) -> Round {
    let mut queue = lock(&shared.queue);
    loop {
        let beat = shared.began.elapsed().as_millis();
        shared
            .heartbeat
            .store(u64::try_from(beat).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !queue.batches.is_empty() || queue.roll || queue.closed {
            std::mem::swap(&mut queue.batches, batches);
            std::mem::swap(&mut queue.waiters, waiters);
            return Round {
                roll: std::mem::take(&mut queue.roll),
                closed: queue.closed,
            };
        }
        queue = shared
            .wake
            .wait_timeout(queue, HEARTBEAT)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

fn roll(shared: &Shared, log: &mut Log) {
    let newest = lock(&shared.segments).last().copied();
    if newest.is_none_or(|newest| newest.bytes <= FRAMES_AT) {
        return;
    }
    match log.roll() {
        Ok(()) => publish(shared, log),
        Err(CommitError::DiskFull) => {
            tracing::warn!(directory = %shared.directory.display(), "no room on the disk to begin a new segment");
        }
        Err(CommitError::Failed(reason)) => shared.fail(&reason),
    }
}

/// Commits the round and answers it; leaves both empty.
fn commit(shared: &Shared, log: &mut Log, batches: &mut Vec<Batch>, waiters: &mut Vec<Waiter>) {
    let mut rest = &mut batches[..];
    let mut waiting = waiters.drain(..);
    while !rest.is_empty() {
        let only_barriers = rest.iter().all(Batch::is_empty);
        let committed = match only_barriers {
            true => log.healthy().map(|()| rest.len()),
            false => log.commit(rest),
        };
        let count = match committed {
            Ok(count) => count,
            Err(error) => {
                // An empty segment may have been begun before the room ran out.
                publish(shared, log);
                let answer = match error {
                    CommitError::DiskFull => shared.disk_full(),
                    CommitError::Failed(reason) => {
                        shared.fail(&reason);
                        AppendError::Failed { reason }
                    }
                };
                for waiter in waiting {
                    let _ = waiter.answer.send(Err(answer.clone()));
                }
                break;
            }
        };
        if !only_barriers {
            let seconds = log.last_sync().as_secs_f64();
            shared.metrics.fsync_seconds.observe(seconds);
            publish(shared, log);
        }
        let (done, after) = rest.split_at_mut(count);
        let bytes: usize = done.iter().map(Batch::bytes).sum();
        let mut start = shared.durable.borrow().0 - bytes as u64;
        for (batch, waiter) in done.iter_mut().zip(&mut waiting) {
            let end = start + batch.bytes() as u64;
            *batch = Batch::new();
            if waiter._room.is_some() {
                let seconds = waiter.enqueued.elapsed().as_secs_f64();
                shared.metrics.append_seconds.observe(seconds);
            }
            let _ = waiter.answer.send(Ok(Position(start)..Position(end)));
            start = end;
        }
        rest = after;
    }
    batches.clear();
}

/// Tells everyone how far the log has come.
fn publish(shared: &Shared, log: &Log) {
    let Some(active) = log.active() else {
        return;
    };
    let segment = Segment {
        base: active.base,
        bytes: active.bytes,
        seed: Some(active.seed),
    };
    {
        let mut segments = lock(&shared.segments);
        match segments.last_mut() {
            Some(last) if last.base == segment.base => *last = segment,
            _ => segments.push(segment),
        }
    }
    shared.count_bytes();
    shared.durable.send_if_modified(|durable| {
        let moved = log.end() > durable.0;
        durable.0 = durable.0.max(log.end());
        moved
    });
    #[cfg(test)]
    shared.moved.notify_waiters();
}

/// The moves of a log's durable end in a simulation. Tokio wakes the receivers of a watch in an order that it draws itself, and no seed decides; those who
/// wait for these are woken in the order in which they came.
#[cfg(test)]
#[derive(Debug)]
pub struct Moves(Option<Arc<Shared>>);

#[cfg(test)]
impl Moves {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self(crate::simulation::is_on().then(|| Arc::clone(shared)))
    }

    /// Waits until something beyond `position` is durable. Outside of a simulation it waits for nothing.
    pub async fn beyond(&self, position: Position) {
        let Some(shared) = &self.0 else {
            return;
        };
        loop {
            let moved = shared.moved.notified();
            if *shared.durable.borrow() > position {
                return;
            }
            moved.await;
        }
    }
}

impl Shared {
    /// Brings the gauge up to date.
    pub fn count_bytes(&self) {
        let bytes = i64::try_from(self.bytes()).unwrap_or(i64::MAX);
        self.metrics.bytes.set(bytes);
    }
}
