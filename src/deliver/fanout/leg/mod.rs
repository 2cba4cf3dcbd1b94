//! The task of one leg: reads its log, sends what is there, and remembers how far it has come.
//!
//! A chunk at a time. While one is being sent nothing more is read ahead, so a destination that hangs costs no memory; only a scout goes on, which
//! counts what waits and keeps nothing. The next chunk is begun when all of this one was sent; a few chunks may wait to be confirmed meanwhile.
//!
//! A leg never holds its log back against the log's will: told by [`Parts::cut`] that the log can wait no longer, it counts what it leaves behind,
//! writes the gap to its dead letters, and goes on after it.

mod lag;
mod letters;
mod work;

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::work::{Answer, Confirming, Happened, Source, Work, next_of};
use super::lane::{self, Lanes, Report};
use super::{Confirmation, Destination, Item, ItemId, Refusal};
use crate::clock::WallMillis;
use crate::deliver::dead_letter::{DeadLetters, Replay};
use crate::deliver::failure::Failure;
use crate::deliver::gate::Gate;
use crate::deliver::memory::{Memory, MemoryFile, Recalled};
use crate::deliver::view::{self, LegView};
use crate::pump::{Tail, TailError};
use crate::retry::Backoff;
use crate::telemetry::chain;
use crate::wal::{Chunk, Position, Wal};

/// How often its place is saved.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often its place is saved when it has only passed over what it does not want.
const SAVE_MOVES_EVERY: Duration = Duration::from_secs(10);
/// How often it looks for dead letters that were handed back.
const REPLAY_EVERY: Duration = Duration::from_secs(3);
/// A chunk that takes longer than this makes the scout count what waits behind it.
const SLOW: Duration = Duration::from_secs(2);
/// What requests under way have to end when the leg stops.
const GRACE: Duration = Duration::from_millis(800);
/// Chunks that may wait to be confirmed while the next is sent.
const CHUNKS_AHEAD: usize = 4;
/// Reports that wait for the leg.
const REPORTS: usize = 64;

/// Why a leg cannot go on. Nothing that its destination does is a reason.
#[derive(Debug, thiserror::Error)]
pub enum LegError {
    /// The log is closed, or the thread that reads it has panicked.
    #[error("cannot follow the log")]
    Tail(#[from] TailError),
    /// A task that sends, or one that writes its files, has panicked.
    #[error("a task of the leg has stopped")]
    Task(#[from] JoinError),
}

/// What a leg is built from.
pub struct Parts<D> {
    /// The trail's ARN.
    pub trail: String,
    pub destination: D,
    pub log: Wal,
    /// Where a leg begins that is new.
    pub new_from: Position,
    pub memory: MemoryFile,
    pub letters: DeadLetters,
    pub view: LegView,
    /// Bytes of the log that are read at a time: the leg holds a small multiple of it in memory.
    pub chunk_bytes: usize,
    /// The log can wait for nothing before this position.
    pub cut: watch::Receiver<Position>,
}

/// The leg of one trail to one destination.
pub struct Leg<D: Destination> {
    destination: Arc<D>,
    log: Wal,
    tail: Tail,
    chunk_bytes: usize,
    memory: Memory,
    memory_file: MemoryFile,
    /// Whether all that was settled is on the disk.
    is_saved: bool,
    /// Whether `memory.next` has moved since it was saved.
    has_moved: bool,
    saved_at: Instant,
    letters: Arc<DeadLetters>,
    /// Items that had a letter when the leg began, though its memory does not know.
    buried: BTreeSet<ItemId>,
    replay: Option<Replay>,
    /// When it was told last that the replay cannot go on.
    replay_told: Option<Instant>,
    view: LegView,
    gate: Arc<Gate>,
    has_taken: Arc<AtomicBool>,
    introduction: Option<Introduction>,
    work: Option<Work>,
    /// Every event before it is counted as routed.
    counted: Position,
    scout: Option<Tail>,
    cut: watch::Receiver<Position>,
    progress: watch::Sender<Position>,
    /// Stops lanes, not the leg.
    lanes_stop: CancellationToken,
}

/// The destination is being looked for, and told that the trail will send to it.
struct Introduction {
    answer: Answer<Result<(), Failure>>,
    patience: Backoff,
    since: Instant,
}

/// The destination's answer to the introduction; pends while there is none under way. Cancel safe.
async fn answer(introduction: &mut Option<Introduction>) -> Result<(), Failure> {
    match introduction {
        Some(introduction) => (&mut introduction.answer).await,
        None => pending().await,
    }
}

impl<D: Destination> Leg<D> {
    /// A leg that goes on from where it was. Blocking.
    pub fn open(parts: Parts<D>) -> Self {
        let Parts {
            trail,
            destination,
            log,
            new_from,
            memory: memory_file,
            letters,
            view,
            chunk_bytes,
            cut,
        } = parts;
        let (memory, is_saved) = recall(&memory_file, &trail, &log, new_from, &view);
        let dead = memory.dead_lettered.values().sum::<u64>();
        view.routed(memory.delivered + dead);
        view.delivered(memory.delivered, 0, 0);
        for (reason, events) in &memory.dead_lettered {
            view.dead_lettered(view::reason(reason), *events);
        }
        let next = Position(memory.next);
        let buried = letters::buried(&letters, &trail, memory.next, &view);
        let leg = Self {
            destination: Arc::new(destination),
            tail: Tail::with_chunks_of(&log, next, chunk_bytes),
            log,
            chunk_bytes,
            memory,
            memory_file,
            is_saved,
            has_moved: false,
            saved_at: Instant::now(),
            letters: Arc::new(letters),
            buried,
            replay: None,
            replay_told: None,
            view,
            gate: Arc::default(),
            has_taken: Arc::default(),
            introduction: None,
            work: None,
            counted: next,
            scout: None,
            cut,
            progress: watch::Sender::new(next),
            lanes_stop: CancellationToken::new(),
        };
        if !leg.is_saved
            && let Err(error) = leg.memory_file.write(&leg.memory)
        {
            leg.tell_unsaved(&error);
        }
        leg
    }

    /// The lowest position of the log that is still wanted, also after a crash.
    pub fn watch_progress(&self) -> watch::Receiver<Position> {
        self.progress.subscribe()
    }

    /// Runs until `stop`, or until the log fails.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LegError> {
        self.introduce();
        let mut save = tokio::time::interval(SAVE_EVERY);
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look_for_letters = tokio::time::interval(REPLAY_EVERY);
        look_for_letters.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.go_on(&stop).await?;
            let is_free = self.work.is_none() && self.introduction.is_none();
            let has_room = match &self.work {
                Some(work) => work.has_room(self.chunk_bytes * CHUNKS_AHEAD),
                None => is_free,
            };
            let is_slow = self.prepare_scout();
            let chunks = self.destination.chunks(self.tail.behind());
            self.tail.set_chunk_bytes(self.chunk_bytes * chunks.max(1));
            tokio::select! {
                biased; // what ends work before what begins it
                () = stop.cancelled() => break,
                Ok(()) = self.cut.changed() => self.obey_cut(&stop).await?,
                answer = answer(&mut self.introduction) => self.introduced(answer).await?,
                happened = next_of(&mut self.work) => self.take(happened, &stop).await?,
                _ = save.tick() => self.save_if_due().await?,
                _ = look_for_letters.tick(), if is_free => self.take_letters_back(&stop).await?,
                chunk = lag::scout(&mut self.scout), if is_slow => self.count_ahead(chunk?),
                chunk = self.tail.next(), if has_room => self.begin(chunk?, &stop).await?,
            }
        }
        self.end(&stop).await
    }

    /// Sees that the destination is there, and introduces the trail to one that it has not sent to before.
    fn introduce(&mut self) {
        self.introduction = Some(Introduction {
            answer: self.ask_for_introduction(Duration::ZERO),
            patience: Backoff::default(),
            since: Instant::now(),
        });
    }

    fn ask_for_introduction(&self, delay: Duration) -> Answer<Result<(), Failure>> {
        let destination = self.destination.clone();
        let is_new = self.memory.introduced_to.as_deref() != Some(destination.target());
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            destination.is_there().await?;
            match is_new {
                true => destination.introduce().await,
                false => Ok(()),
            }
        })
    }

    /// The destination has answered the introduction.
    async fn introduced(&mut self, answer: Result<(), Failure>) -> Result<(), LegError> {
        let Some(mut introduction) = self.introduction.take() else {
            return Ok(());
        };
        if let Err(failure) = answer {
            lane::tell(&self.view, self.destination.target(), &failure);
            introduction.answer = self.ask_for_introduction(introduction.patience.next_delay());
            self.introduction = Some(introduction);
            return Ok(());
        }
        self.scout = None;
        let target = Some(self.destination.target().to_owned());
        if self.memory.introduced_to != target {
            self.memory.introduced_to = target;
            self.is_saved = false;
        }
        self.save().await
    }

    /// Starts what can be started: a question whether what was sent has arrived, lanes for what must be sent again, the end of the work.
    async fn go_on(&mut self, stop: &CancellationToken) -> Result<(), LegError> {
        self.ask();
        let idle = self.work.as_ref().filter(|work| !work.is_busy());
        // What went nowhere when it was sent, and what has no letter because none could be written.
        let again: Vec<Item> = idle.map_or_else(Vec::new, |work| work.open().cloned().collect());
        if again.is_empty() {
            self.finish();
            return Ok(());
        }
        let refused = self.launch(again);
        self.refuse(refused, stop).await
    }

    /// Asks whether what was sent has arrived.
    fn ask(&mut self) {
        let Some(work) = &mut self.work else { return };
        if work.confirming.is_none() && !work.sent.is_empty() {
            let destination = self.destination.clone();
            work.confirming = Some(Confirming {
                ids: std::mem::take(&mut work.sent),
                answer: Box::pin(async move { destination.confirm().await }),
                patience: Backoff::default(),
            });
        }
    }

    /// Ends the work when all of it is settled.
    fn finish(&mut self) {
        self.advance();
        let is_done = |work: &Work| !work.is_busy() && work.is_settled();
        let Some(work) = self.work.take_if(|work| is_done(work)) else {
            return;
        };
        if let Source::Letters(upto) = work.source {
            self.memory.advance_replay(upto);
            self.is_saved = false;
        }
        self.scout = None;
        self.view.oldest_pending(None);
    }

    /// Moves on to the first item that is not settled.
    fn advance(&mut self) {
        let settled_before = self.work.as_ref().and_then(Work::settled_before);
        if let Some(next) = settled_before
            && next.0 > self.memory.next
        {
            self.memory.advance(next);
            self.has_moved = true;
        }
    }

    /// Takes a chunk of the log.
    async fn begin(&mut self, chunk: Chunk, stop: &CancellationToken) -> Result<(), LegError> {
        let upto = chunk.next;
        let (items, damaged) = self.items(chunk);
        let ahead: u64 = items
            .iter()
            .filter(|item| item.id.position >= self.counted)
            .map(|item| item.events)
            .sum();
        self.view.routed(ahead);
        self.counted = self.counted.max(upto);
        for (at, error) in damaged {
            if !self.pass_over(at, &error, stop).await? {
                return Ok(());
            }
        }
        self.send(Source::Log(upto), items, stop).await
    }

    /// What a chunk holds for this destination that is not settled, and the frames that cannot be read.
    fn items(&self, chunk: Chunk) -> (Vec<Item>, Vec<(Position, String)>) {
        let (mut items, mut damaged) = (Vec::new(), Vec::new());
        for (at, frame) in chunk.into_frames() {
            match self.destination.read(at, frame) {
                Ok(found) => items.extend(found),
                Err(error) => damaged.push((at, error.to_string())),
            }
        }
        items.retain(|item| !self.memory.has_settled(item.id));
        let at_frame = |at: Position| ItemId {
            position: at,
            index: 0,
        };
        damaged.retain(|(at, _)| !self.memory.has_settled(at_frame(*at)));
        (items, damaged)
    }

    /// Begins to send items.
    async fn send(
        &mut self,
        source: Source,
        items: Vec<Item>,
        stop: &CancellationToken,
    ) -> Result<(), LegError> {
        let work = self.work.get_or_insert_with(|| Work::new(source));
        work.source = source;
        items.iter().cloned().for_each(|item| work.add(item));
        let refused = self.launch(items);
        self.refuse(refused, stop).await?;
        let oldest = self.work.as_ref().and_then(Work::oldest);
        self.view.oldest_pending(oldest);
        Ok(())
    }

    /// Starts lanes for these items. What could never be sent is given back.
    fn launch(&mut self, items: Vec<Item>) -> Vec<(Item, Refusal)> {
        let Some(work) = &mut self.work else {
            return Vec::new();
        };
        let (mut sendable, mut entries, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match self.destination.entry(&item) {
                Ok(entry) => {
                    sendable.push(item);
                    entries.push(entry);
                }
                Err(refusal) => refused.push((item, refusal)),
            }
        }
        let requests = lane::pack(&*self.destination, sendable, entries);
        if requests.is_empty() {
            return refused;
        }
        let wanted = self.destination.lanes(self.tail.behind());
        let count = wanted.clamp(1, requests.len());
        let lanes = Arc::new(Lanes {
            destination: self.destination.clone(),
            gate: self.gate.clone(),
            view: self.view.clone(),
            has_taken: self.has_taken.clone(),
            requests: Mutex::new(requests),
            stop: self.lanes_stop.clone(),
        });
        let (reports, seen) = mpsc::channel(REPORTS);
        for lane in 0..count {
            work.lanes.spawn(lanes.clone().run(lane, reports.clone()));
        }
        work.reports = Some(seen);
        refused
    }

    async fn take(&mut self, happened: Happened, stop: &CancellationToken) -> Result<(), LegError> {
        match happened {
            Happened::Report(Report::Sent(ids)) => {
                if let Some(work) = &mut self.work {
                    work.sent.extend(ids);
                }
                Ok(())
            }
            Happened::Report(Report::Refused(refused)) => self.refuse(refused, stop).await,
            Happened::LanesEnded => {
                if let Some(work) = &mut self.work {
                    work.reports = None;
                    while let Some(ended) = work.lanes.join_next().await {
                        ended?;
                    }
                }
                Ok(())
            }
            Happened::Answer(Confirmation::Arrived) => {
                self.arrived();
                Ok(())
            }
            Happened::Answer(Confirmation::Vanished(failure)) => {
                self.ask_again(&failure, true);
                Ok(())
            }
            Happened::Answer(Confirmation::Unknown(failure)) => {
                self.ask_again(&failure, false);
                Ok(())
            }
        }
    }

    /// What was asked about has arrived.
    fn arrived(&mut self) {
        let Some(work) = &mut self.work else { return };
        let Some(Confirming { ids, .. }) = work.confirming.take() else {
            return;
        };
        let from_log = work.is_from_log();
        let mut events = 0;
        for id in ids {
            let Some(item) = work.remove(id) else {
                continue;
            };
            events += item.events;
            match from_log {
                true => self.memory.settle(id),
                false => self.memory.settle_letter(id),
            }
        }
        if events == 0 {
            return;
        }
        self.memory.delivered += events;
        self.is_saved = false;
        let oldest = work.oldest();
        self.view.delivered(events, 0, 0);
        self.view.delivery_at(WallMillis::now());
        self.view.oldest_pending(oldest);
    }

    /// Asks once more, after a wait.
    fn ask_again(&mut self, failure: &Failure, has_vanished: bool) {
        lane::tell(&self.view, self.destination.target(), failure);
        let Some(work) = &mut self.work else { return };
        if has_vanished {
            // All that was sent by now may have gone the same way. It stays open, and is sent when the destination is there.
            work.sent.clear();
            work.reports = None;
            work.lanes = JoinSet::new();
        }
        let Some(confirming) = &mut work.confirming else {
            return;
        };
        if has_vanished {
            confirming.ids.clear();
        }
        let delay = confirming.patience.next_delay();
        let destination = self.destination.clone();
        confirming.answer = Box::pin(async move {
            tokio::time::sleep(delay).await;
            destination.confirm().await
        });
    }

    /// Writes down its place, if it is time.
    async fn save_if_due(&mut self) -> Result<(), LegError> {
        let is_due = self.has_moved && self.saved_at.elapsed() >= SAVE_MOVES_EVERY;
        match is_due || !self.is_saved {
            true => self.save().await,
            false => Ok(()),
        }
    }

    /// Writes down its place.
    async fn save(&mut self) -> Result<(), LegError> {
        if self.has_moved || !self.is_saved {
            let (file, memory) = (self.memory_file.clone(), self.memory.clone());
            let written = crate::background::spawn_blocking(move || file.write(&memory)).await?;
            if let Err(error) = written {
                self.tell_unsaved(&error);
                return Ok(());
            }
            self.is_saved = true;
            self.has_moved = false;
            self.saved_at = Instant::now();
        }
        let next = Position(self.memory.next);
        self.progress.send_if_modified(|progress| {
            let moved = *progress != next;
            *progress = next;
            moved
        });
        Ok(())
    }

    fn tell_unsaved(&self, error: &io::Error) {
        let leg = self.view.leg();
        tracing::error!(
            trail = %leg.trail, sink = %leg.sink, error = %chain(error),
            "cannot save the place of this leg, will retry; a crash now would send more than a second's events again"
        );
    }

    /// Lets requests under way end, within [`GRACE`], so that what is answered by then is not sent twice. What is still open then is sent
    /// again after the next start.
    async fn end(mut self, stop: &CancellationToken) -> Result<(), LegError> {
        self.lanes_stop.cancel();
        let deadline = Instant::now() + GRACE;
        loop {
            self.ask();
            let is_busy = self.work.as_ref().is_some_and(Work::is_busy);
            if !is_busy {
                break;
            }
            let next = next_of(&mut self.work);
            let Ok(happened) = tokio::time::timeout_at(deadline, next).await else {
                break;
            };
            self.take(happened, stop).await?;
        }
        self.finish();
        self.save().await
    }
}

/// The leg's memory; whether it is on the disk as it is.
fn recall(
    file: &MemoryFile,
    trail: &str,
    log: &Wal,
    new_from: Position,
    view: &LegView,
) -> (Memory, bool) {
    let leg = view.leg();
    let begin_at = |next: Position| Memory {
        trail: trail.to_owned(),
        next: next.0,
        ..Memory::default()
    };
    match file.read() {
        // A trail of the same name in another account or region is another trail.
        Recalled::Memory(memory) if memory.trail == trail => {
            let start = log.start();
            if start.0 > memory.next {
                tracing::warn!(
                    trail = %leg.trail, sink = %leg.sink, from = memory.next, to = start.0,
                    "log does not hold any more what this leg has not seen; it goes on after that"
                );
            }
            (memory, true)
        }
        Recalled::Memory(_) | Recalled::Nothing => {
            tracing::info!(trail = %leg.trail, sink = %leg.sink, from = new_from.0, "new leg");
            (begin_at(new_from), false)
        }
        Recalled::Damaged => {
            tracing::error!(
                trail = %leg.trail, sink = %leg.sink,
                "place of this leg cannot be read: it sends all again that the log still holds"
            );
            (begin_at(log.start()), false)
        }
    }
}
