//! All files of history, and lookups over them.
//!
//! ```text
//! history/
//!   2026-05-01.0000.db       events of a day, see super::part      2026-05-01.0000.filter   see super::filter
//!   place                    every position of the journal before this one has been seen, and is on the disk
//!   quarantine/              files that were found damaged
//! ```
//!
//! A lookup takes the newest event of any file, then the next newest, until it has enough: it opens a file when no newer event can be in those that are
//! open. What it costs depends on how many events it answers, and hardly on how many there are.

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use zstd::zstd_safe::DCtx;

use super::attribute::{Attribute, Facts};
use super::filter::{Builder, Filter};
use super::key::{Keys, Scope};
use super::metrics::Metrics;
use super::part::{self, DAY, Head, PartError, PartId, Reader, Writer};
use crate::clock::WallMillis;
use crate::event::Record;
use crate::snapshot;
use crate::wal::Position;

/// Connections that are kept for the next lookup.
const OPEN_READERS: usize = 192;
/// Filters whose files are kept open.
const OPEN_FILTERS: usize = 512;
/// A page that has so many bytes is full.
const PAGE_BYTES: usize = 4 << 20;
/// Postings that are read from a file at a time: a page of the API, and whether there is another.
const POSTINGS: usize = 51;

/// Which events are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub scope: Scope,
    /// All of them without.
    pub filter: Option<(Attribute, String)>,
    /// Seconds since 1970, both included.
    pub times: (i64, i64),
    /// Only what comes after this event.
    pub after: Option<Place>,
    pub most: usize,
}

/// Where an event stands in the order of lookups: by its second, then by its file, then by its number there. The newest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub time: i64,
    pub part: PartId,
    pub at: i64,
}

/// Events that were found, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The journal's frames, see [`Record`].
    pub events: Vec<Vec<u8>>,
    /// Of the last of them, if there are more.
    pub next: Option<Place>,
}

/// A file could not be read for a reason that is not in it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read history of {stem}")]
pub struct LookupError {
    pub stem: String,
    #[source]
    pub source: PartError,
}

/// A file as lookups see it.
#[derive(Debug)]
pub struct Part {
    id: PartId,
    seed: u64,
    state: Mutex<State>,
    is_gone: AtomicBool,
}

#[derive(Debug, Clone)]
struct State {
    head: Head,
    filter: FilterState,
}

#[derive(Debug, Clone)]
enum FilterState {
    /// There is none for what the file holds now.
    None,
    /// There is one, in a file that is opened when it is asked.
    Closed,
    Open(Arc<Filter>),
}

impl Part {
    fn new(id: PartId, head: Head) -> Self {
        Self {
            id,
            seed: head.seed,
            state: Mutex::new(State {
                head,
                filter: FilterState::None,
            }),
            is_gone: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> PartId {
        self.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn head(&self) -> Head {
        self.state().head
    }

    /// Whether there is no filter for what the part holds now.
    pub fn lacks_filter(&self) -> bool {
        matches!(self.state().filter, FilterState::None)
    }

    /// Whether the part was removed or put aside.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }
}

/// The files, and who reads them. The thread that writes them tells it of each change.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    metrics: Metrics,
    parts: RwLock<BTreeMap<PartId, Arc<Part>>>,
    readers: Mutex<Readers>,
    open_filters: AtomicU64,
    /// Something was put aside: what the journal still holds of it should be read again.
    has_lost: AtomicBool,
}

#[derive(Default)]
struct Readers {
    idle: HashMap<PartId, Vec<Reader>>,
    /// In the order they were given back.
    order: VecDeque<PartId>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} readers", self.order.len())
    }
}

impl Store {
    /// Opens what is there; what is damaged is put aside. `durable` is the end of the journal: a file that has more is of another one. Blocking.
    pub fn open(directory: &Path, durable: Position, metrics: Metrics) -> io::Result<Self> {
        snapshot::make_private_dir(directory)?;
        let store = Self {
            directory: directory.to_owned(),
            metrics,
            parts: RwLock::default(),
            readers: Mutex::default(),
            open_filters: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
        };
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            if let Some(id) = name.to_str().and_then(PartId::named) {
                store.adopt(id, durable);
            }
        }
        store.measure();
        Ok(store)
    }

    fn adopt(&self, id: PartId, durable: Position) {
        let read =
            Reader::open(&self.directory, id).and_then(|reader| Ok((reader.head()?, reader)));
        match read {
            Ok((mut head, reader)) => {
                head.upto = head.upto.min(durable);
                let part = Part::new(id, head);
                self.find_filter(&part);
                self.give_back(id, reader);
                self.parts_mut().insert(id, Arc::new(part));
            }
            Err(PartError::Empty) => {
                tracing::info!(file = id.stem(), "a file of history was never written to");
                self.has_lost.store(true, Ordering::Release);
                if let Err(error) = part::remove(&self.directory, id) {
                    tracing::warn!(file = id.stem(), %error, "an empty file of history cannot be removed");
                }
            }
            Err(error) => self.quarantine(id, &error),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The parts of a day, in their order.
    pub fn parts_of(&self, day: i32) -> Vec<Arc<Part>> {
        let (first, last) = (PartId { day, number: 0 }, u32::MAX);
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let of_day = parts.range(first..=PartId { day, number: last });
        of_day.map(|(_, part)| part.clone()).collect()
    }

    pub fn parts(&self) -> Vec<Arc<Part>> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.values().cloned().collect()
    }

    fn parts_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<PartId, Arc<Part>>> {
        self.parts.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn part(&self, id: PartId) -> Option<Arc<Part>> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.get(&id).cloned()
    }

    /// Takes in a file that was made now.
    pub fn made(&self, writer: &Writer) {
        let (id, head) = (writer.id(), *writer.head());
        self.parts_mut().insert(id, Arc::new(Part::new(id, head)));
    }

    /// What is in a file now, as its writer knows. Of a file that was put aside meanwhile nothing is.
    pub fn wrote(&self, writer: &Writer) {
        let Some(part) = self.part(writer.id()) else {
            return;
        };
        let mut state = part.state();
        state.head = *writer.head();
        self.drop_filter(&mut state);
    }

    /// Whether something was put aside that [`take_lost`](Self::take_lost) has not told.
    pub fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::Acquire)
    }

    /// Whether something was put aside since this was asked last.
    pub fn take_lost(&self) -> bool {
        self.has_lost.swap(false, Ordering::AcqRel)
    }

    /// Puts a damaged file aside, and forgets it.
    pub fn quarantine(&self, id: PartId, error: &PartError) {
        self.forget(id);
        self.metrics.quarantined.inc();
        self.has_lost.store(true, Ordering::Release);
        let quarantine = self.directory.join("quarantine");
        let moved = snapshot::make_private_dir(&quarantine).and_then(|()| {
            let stamp = WallMillis::now().0;
            for path in part::files(&self.directory, id) {
                let Some(name) = path.file_name().filter(|_| path.exists()) else {
                    continue;
                };
                // In front: SQLite looks for a log by the name of its database.
                let name = format!("{stamp}.{}", name.to_string_lossy());
                std::fs::rename(&path, quarantine.join(name))?;
            }
            Ok(())
        });
        let file = id.stem();
        tracing::error!(
            file, %error, quarantine = %quarantine.display(),
            "a file of history is damaged and put aside: its events are found again as far as the journal still holds them"
        );
        if let Err(error) = moved {
            tracing::error!(file, %error, "a damaged file of history cannot be put aside");
        }
    }

    fn forget(&self, id: PartId) {
        if let Some(part) = self.parts_mut().remove(&id) {
            part.is_gone.store(true, Ordering::Release);
            self.drop_filter(&mut part.state());
        }
        let mut readers = lock(&self.readers);
        readers.idle.remove(&id);
        readers.order.retain(|it| *it != id);
    }

    /// The second of the oldest events that are kept, since 1970: by the clock, but never as if it were more than a day after the newest day
    /// of which there is a file. A clock that jumps ahead must not delete the history.
    pub fn oldest_kept(&self, retention: Duration, now: WallMillis) -> i64 {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let newest = parts.last_key_value();
        let latest = newest.map_or(i64::MAX, |(id, _)| (id.day_start() + 2 * DAY) * 1000);
        oldest_kept(retention, WallMillis(now.0.min(latest)))
    }

    /// Removes the files of days that ended before this second. How many they were.
    pub fn expire(&self, before: i64) -> usize {
        let expired = self.parts();
        let expired = expired
            .iter()
            .filter(|part| part.id.day_start() + DAY <= before);
        let mut removed = 0;
        for part in expired {
            self.forget(part.id);
            match part::remove(&self.directory, part.id) {
                Ok(()) => removed += 1,
                Err(error) => {
                    tracing::warn!(file = part.id.stem(), %error, "an expired file of history cannot be removed");
                }
            }
        }
        removed
    }

    /// Makes the filter of a file that is not written now. Whether it has one now.
    pub fn make_filter(&self, part: &Part) -> bool {
        let made = self.build_filter(part.id, part.head().events);
        match made {
            Ok(()) => self.find_filter(part),
            Err(error) if error.is_damage() => self.quarantine(part.id, &error),
            Err(error) => {
                tracing::warn!(file = part.id.stem(), %error, "the filter of a file of history cannot be made");
            }
        }
        !part.lacks_filter()
    }

    fn build_filter(&self, id: PartId, events: u64) -> Result<(), PartError> {
        let reader = Reader::open(&self.directory, id)?;
        let mut keys = 0;
        reader.each_key(|_| keys += 1)?;
        let mut builder = Builder::new(keys, events);
        reader.each_key(|key| builder.add(key))?;
        let path = part::filter_path(&self.directory, id);
        Ok(snapshot::replace(&path, &builder.finish())?)
    }

    fn find_filter(&self, part: &Part) {
        let path = part::filter_path(&self.directory, part.id);
        let mut state = part.state();
        if let Ok(Some(filter)) = Filter::open(&path, state.head.events) {
            let open = self.open_filters.fetch_add(1, Ordering::Relaxed);
            state.filter = FilterState::Open(Arc::new(filter));
            if open >= OPEN_FILTERS as u64 {
                self.open_filters.fetch_sub(1, Ordering::Relaxed);
                state.filter = FilterState::Closed;
            }
        }
    }

    fn drop_filter(&self, state: &mut State) {
        if let FilterState::Open(_) = std::mem::replace(&mut state.filter, FilterState::None) {
            self.open_filters.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether the part may have events of this key.
    fn may_have(&self, part: &Part, state: &State, key: i64) -> bool {
        let filter = match &state.filter {
            FilterState::None => return true,
            FilterState::Open(filter) => filter.clone(),
            FilterState::Closed => {
                let path = part::filter_path(&self.directory, part.id);
                match Filter::open(&path, state.head.events) {
                    Ok(Some(filter)) => Arc::new(filter),
                    _ => return true,
                }
            }
        };
        match filter.may_have(key) {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                tracing::warn!(
                    file = part.id.stem(),
                    "the filter of a file of history is damaged and made anew"
                );
                self.drop_filter(&mut part.state());
                true
            }
            Err(_) => true,
        }
    }

    /// Counts files and bytes.
    pub fn measure(&self) {
        let parts = self.parts();
        let paths = parts
            .iter()
            .flat_map(|part| part::files(&self.directory, part.id));
        let bytes: u64 = paths
            .filter_map(|path| Some(std::fs::metadata(path).ok()?.len()))
            .sum();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.bytes.set(signed(bytes));
        self.metrics.files.set(signed(parts.len() as u64));
    }

    fn take_reader(&self, id: PartId) -> Result<Reader, PartError> {
        let mut readers = lock(&self.readers);
        if let Some(reader) = readers.idle.get_mut(&id).and_then(Vec::pop) {
            if let Some(at) = readers.order.iter().rposition(|it| *it == id) {
                readers.order.remove(at);
            }
            return Ok(reader);
        }
        drop(readers);
        Reader::open(&self.directory, id)
    }

    fn give_back(&self, id: PartId, reader: Reader) {
        let mut readers = lock(&self.readers);
        readers.idle.entry(id).or_default().push(reader);
        readers.order.push_back(id);
        while readers.order.len() > OPEN_READERS {
            let Some(oldest) = readers.order.pop_front() else {
                return;
            };
            if let Some(idle) = readers.idle.get_mut(&oldest) {
                idle.pop();
                if idle.is_empty() {
                    readers.idle.remove(&oldest);
                }
            }
        }
    }

    /// Closes connections to a file that nobody uses now, so that it can be put in order.
    pub fn release(&self, id: PartId) {
        let mut readers = lock(&self.readers);
        readers.idle.remove(&id);
        readers.order.retain(|it| *it != id);
    }

    /// The newest events that are asked for. Blocking.
    pub fn lookup(&self, query: &Query) -> Result<Page, LookupError> {
        let mut search = Search {
            store: self,
            query,
            sources: Vec::new(),
            heads: BinaryHeap::new(),
            readers: HashMap::new(),
            context: DCtx::create(),
        };
        let page = search.run();
        for (id, (part, reader)) in search.readers {
            if !part.is_gone() {
                self.give_back(id, reader);
            }
        }
        page
    }
}

/// One list of postings of one file, as far as it was read.
struct Source {
    part: Arc<Part>,
    key: i64,
    low: i64,
    /// What was read and not taken, the oldest first.
    read: Vec<i64>,
    /// Whether there may be more than was read.
    has_more: bool,
}

/// A lookup under way.
struct Search<'s> {
    store: &'s Store,
    query: &'s Query,
    sources: Vec<Source>,
    /// The newest event of each source that is open.
    heads: BinaryHeap<(Place, usize)>,
    readers: HashMap<PartId, (Arc<Part>, Reader)>,
    context: DCtx<'static>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<Page, LookupError> {
        let mut page = Page {
            events: Vec::new(),
            next: None,
        };
        let mut last = None;
        let mut bytes = 0;
        // The newest part last.
        let mut closed: Vec<(Place, Arc<Part>)> = Vec::new();
        for part in self.store.parts() {
            let head = part.head();
            let (low, high) = self.span(part.id);
            if head.events > 0 && low.max(head.first_at) < high.min(head.last_at + 1) {
                let newest = place(part.id, head.last_at.min(high - 1));
                closed.push((newest, part));
            }
        }
        closed.sort_unstable_by_key(|(newest, _)| *newest);
        loop {
            // No event of a closed part may be newer than the one that is taken.
            while let Some((newest, _)) = closed.last() {
                if self.heads.peek().is_some_and(|(head, _)| head > newest) {
                    break;
                }
                if let Some((newest, part)) = closed.pop() {
                    self.open(&part, newest.at)?;
                }
            }
            let Some((found, source)) = self.heads.pop() else {
                return Ok(page);
            };
            let part = self.sources[source].part.clone();
            self.advance(source)?;
            if Some(found) == last {
                continue;
            }
            let Some(frame) = self.event(&part, found.at)? else {
                continue;
            };
            if page.events.len() == self.query.most || bytes >= PAGE_BYTES {
                page.next = last;
                return Ok(page);
            }
            bytes += frame.len();
            page.events.push(frame);
            last = Some(found);
        }
    }

    /// The `at`s of a part that are asked for: from the first to before the second.
    fn span(&self, part: PartId) -> (i64, i64) {
        let (from, to) = self.query.times;
        let mut high = part.at(to.saturating_add(1));
        if to < part.day_start() {
            high = 0;
        }
        if let Some(after) = self.query.after {
            let below = match part.cmp(&after.part) {
                std::cmp::Ordering::Equal => after.at,
                // In the same second, events of earlier parts come after those of later ones.
                std::cmp::Ordering::Less => part.at(after.time.saturating_add(1)),
                std::cmp::Ordering::Greater => part.at(after.time),
            };
            high = high.min(below);
        }
        (part.at(from), high)
    }

    /// Begins with a part, at `newest`: what came since is not of this page, whose order it would break.
    fn open(&mut self, part: &Arc<Part>, newest: i64) -> Result<(), LookupError> {
        let state = part.state().clone();
        let mut keys = Keys::new(part.seed, &self.query.scope);
        let keys = match &self.query.filter {
            Some((attribute, value)) => vec![keys.of(*attribute, value)],
            None => keys.of_all().to_vec(),
        };
        let (low, high) = self.span(part.id);
        for key in keys {
            if !self.store.may_have(part, &state, key) {
                continue;
            }
            self.sources.push(Source {
                part: part.clone(),
                key,
                low,
                read: Vec::new(),
                has_more: true,
            });
            self.fill(self.sources.len() - 1, high.min(newest.saturating_add(1)))?;
        }
        Ok(())
    }

    /// The next event of a source, whose newest was taken.
    fn advance(&mut self, source: usize) -> Result<(), LookupError> {
        let it = &mut self.sources[source];
        let taken = it.read.pop();
        match (it.read.last(), taken) {
            (Some(at), _) => {
                let head = (place(it.part.id, *at), source);
                self.heads.push(head);
                Ok(())
            }
            (None, Some(taken)) if it.has_more => self.fill(source, taken),
            (None, _) => Ok(()),
        }
    }

    /// Reads on, below `high`.
    fn fill(&mut self, source: usize, high: i64) -> Result<(), LookupError> {
        let Source { part, key, low, .. } = &self.sources[source];
        let (part, key, low) = (part.clone(), *key, *low);
        let most = POSTINGS.min(self.query.most + 1);
        let read = self.with(&part, |reader, _| reader.newest(key, low, high, most))?;
        let it = &mut self.sources[source];
        it.read = read.unwrap_or_default();
        it.has_more = it.read.len() == most;
        it.read.reverse();
        if let Some(at) = it.read.last() {
            self.heads.push((place(part.id, *at), source));
        }
        Ok(())
    }

    /// The event at `at`, if it is what is asked for.
    fn event(&mut self, part: &Arc<Part>, at: i64) -> Result<Option<Vec<u8>>, LookupError> {
        let frame = self.with(part, |reader, context| reader.frame(at, context))?;
        let Some(frame) = frame else {
            return Ok(None);
        };
        let is_wanted = frame.as_deref().map(|frame| self.is_wanted(frame));
        if is_wanted.flatten().is_none() {
            self.store.metrics.damaged.inc();
            tracing::error!(
                file = part.id.stem(),
                at,
                "an event of history is damaged and left out"
            );
            return Ok(None);
        }
        Ok(frame.filter(|_| is_wanted == Some(Some(true))))
    }

    /// Whether a frame is of an event that is asked for; nothing when it is of no event.
    fn is_wanted(&self, frame: &[u8]) -> Option<bool> {
        let record = Record::decode(frame).ok()?;
        let is_of_scope = Scope::of(&record.meta) == self.query.scope;
        Some(match &self.query.filter {
            None => is_of_scope,
            Some((attribute, value)) => is_of_scope && Facts::of(&record).has(*attribute, value),
        })
    }

    /// Reads from a part. Nothing when it is gone, or put aside now.
    fn with<T>(
        &mut self,
        part: &Arc<Part>,
        read: impl FnOnce(&mut Reader, &mut DCtx<'static>) -> Result<T, PartError>,
    ) -> Result<Option<T>, LookupError> {
        let outcome = match self.readers.entry(part.id) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => self
                .store
                .take_reader(part.id)
                .map(|reader| entry.insert((part.clone(), reader))),
        };
        let context = &mut self.context;
        match outcome.and_then(|(_, reader)| read(reader, context)) {
            Ok(value) => Ok(Some(value)),
            Err(_) if part.is_gone() => Ok(None),
            Err(error) if error.is_damage() => {
                self.readers.remove(&part.id);
                self.store.quarantine(part.id, &error);
                Ok(None)
            }
            Err(source) => Err(LookupError {
                stem: part.id.stem(),
                source,
            }),
        }
    }
}

/// The second of the oldest events that are answered, since 1970.
pub fn oldest_kept(retention: Duration, now: WallMillis) -> i64 {
    let retention = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    now.unix_seconds().saturating_sub(retention)
}

fn place(part: PartId, at: i64) -> Place {
    Place {
        time: part.time_of(at),
        part,
        at,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
