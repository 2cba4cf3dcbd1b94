//! What the digests of one trail know: which log files wait for one, where each chain ends, what is due. Plain values.
//!
//! The ledger says which log files were delivered, and in which order; each goes into the digest of the window that is open when it is
//! delivered, or the next one. They are taken strictly in the ledger's order, so that one place in it tells which log files have a digest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::windows::{self, Situation, Window};
use crate::digest::{Chain, Digest, File, Fingerprint, Kind, Location, Previous};
use crate::event::{AccountId, Region};
use crate::ledger::{self, Settled};
use crate::trail::{Trail, TrailName};
use crate::wal::Position;

/// A trail, as far as its digests need it. The names are stable: they are written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The trail's ARN.
    pub trail: String,
    #[serde(with = "text")]
    pub name: TrailName,
    #[serde(with = "text")]
    pub home_account: AccountId,
    #[serde(with = "text")]
    pub home_region: Region,
    pub organization_id: Option<String>,
    pub bucket: String,
    pub prefix: String,
    pub kms_key_id: Option<String>,
}

impl From<&Trail> for Place {
    fn from(trail: &Trail) -> Self {
        Self {
            trail: trail.arn(),
            name: trail.name.clone(),
            home_account: trail.home_account,
            home_region: trail.home_region,
            organization_id: trail.organization_id().map(str::to_owned),
            bucket: trail.bucket.clone(),
            prefix: trail.prefix.clone(),
            kms_key_id: trail.kms_key_id.clone(),
        }
    }
}

/// The digests of one account and source region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    pub account: AccountId,
    pub region: Region,
}

/// The newest digests of a chain: what the next ones name as previous.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    pub standard: Option<Previous>,
    pub backfill: Option<Previous>,
}

/// What is remembered across restarts, after each window. The names are stable: they are written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub place: Place,
    /// End of the newest window, seconds since 1970.
    pub end: i64,
    /// Where the clock leapt ahead of the windows, if it has not come back: until there the chains have digests that stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leapt_from: Option<i64>,
    /// Log files before it have a digest.
    pub next: Next,
    /// The chains have had their final digests. What was delivered since has none.
    pub has_ended: bool,
    #[serde(with = "chains")]
    pub chains: BTreeMap<Source, Heads>,
}

/// A place in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Next {
    /// Of a frame.
    pub position: u64,
    /// Of an entry in it.
    pub index: u32,
}

impl Next {
    pub fn frame(position: Position) -> Self {
        Self {
            position: position.0,
            index: 0,
        }
    }
}

impl State {
    /// The ledger must never use a position before it again.
    pub fn ledger(&self) -> Position {
        Position(self.next.position)
    }

    /// Logging starts at `now`, with the log files delivered from `next` on. The first window is the one before, so that a chain
    /// begins with an empty digest at once (CloudTrail's "starting digest"). `former` is where the digests end that the trail had before: no time
    /// is covered twice.
    pub fn starting(
        place: Place,
        now: i64,
        interval: i64,
        next: Next,
        former: Option<i64>,
    ) -> Self {
        let earliest = now.saturating_sub(interval);
        let home = Source {
            account: place.home_account,
            region: place.home_region,
        };
        Self {
            end: former.map_or(earliest, |former| former.max(earliest)),
            leapt_from: None,
            place,
            next,
            has_ended: false,
            chains: BTreeMap::from([(home, Heads::default())]),
        }
    }
}

/// A delivered log file without a digest.
#[derive(Debug)]
struct Waiting {
    at: Next,
    /// Seconds since 1970.
    delivered_at: i64,
    source: Source,
    file: File,
}

/// A digest but for its key: everything that is decided before somebody signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub source: Source,
    pub window: Window,
    pub location: Location,
    pub previous: Option<Previous>,
    /// The newest delivery first.
    pub files: Vec<File>,
}

impl Draft {
    /// The digest, to be signed with the key of this fingerprint.
    pub fn digest(self, fingerprint: Fingerprint) -> Digest {
        Digest {
            account: self.source.account,
            start: self.window.start,
            end: self.window.end,
            location: self.location,
            fingerprint,
            previous: self.previous,
            files: self.files,
        }
    }
}

/// The digests of one window, of all chains.
#[derive(Debug)]
pub struct Drafts {
    pub window: Window,
    /// What is remembered when they are signed, but for the heads of the chains.
    pub state: State,
    pub digests: Vec<Draft>,
    /// Log files in them.
    files: usize,
}

impl Drafts {
    /// A digest of `source` is signed: the next one names it.
    pub fn set_head(&mut self, source: Source, previous: Previous) {
        let heads = self.state.chains.entry(source).or_default();
        *head(heads, self.window.kind) = Some(previous);
    }
}

fn head(heads: &mut Heads, kind: Kind) -> &mut Option<Previous> {
    match kind {
        Kind::Standard => &mut heads.standard,
        Kind::Backfill => &mut heads.backfill,
    }
}

/// What the digests of one trail know.
#[derive(Debug)]
pub struct Book {
    state: State,
    /// Seconds.
    interval: i64,
    is_ending: bool,
    waiting: VecDeque<Waiting>,
    /// All entries before it were offered.
    read_to: Position,
}

impl Book {
    /// Goes on from `state`; the ledger must be offered from [`Next::position`] on.
    pub fn new(state: State, interval: Duration) -> Self {
        Self {
            read_to: Position(state.next.position),
            state,
            interval: i64::try_from(interval.as_secs()).unwrap_or(3600).max(1),
            is_ending: false,
            waiting: VecDeque::new(),
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// From now on only what remains to end the chains is due.
    pub fn come_to_an_end(&mut self) {
        self.is_ending = true;
    }

    /// Takes a frame of the ledger. Answers how many delivered log files it could not take, for want of a hash: a digest cannot name them.
    pub fn take(&mut self, position: Position, frame: &[u8]) -> usize {
        let mut unnameable = 0;
        for (index, settled) in ledger::settled(frame, &self.state.place.trail) {
            let at = Next {
                position: position.0,
                index,
            };
            if at < self.state.next {
                continue;
            }
            match waiting(at, settled) {
                Some(Ok(waiting)) => self.waiting.push_back(waiting),
                Some(Err(Unnameable)) => unnameable += 1,
                None => {}
            }
        }
        unnameable
    }

    /// All entries before `next` were offered.
    pub fn advance(&mut self, next: Position) {
        self.read_to = self.read_to.max(next);
    }

    /// Nothing before it in the ledger is wanted any more. What lies between [`State::next`] and it is of others.
    pub fn wanted(&self) -> Position {
        let first = self.waiting.front();
        first.map_or(self.read_to, |waiting| Position(waiting.at.position))
    }

    /// Bytes of the ledger that wait for a digest.
    pub fn held_ledger_bytes(&self) -> u64 {
        self.read_to.0.saturating_sub(self.wanted().0)
    }

    /// The window to be closed now, if any. `idle` as in [`Situation`].
    pub fn due(&self, now: i64, idle: Duration, is_pressed: bool) -> Option<Window> {
        if self.state.has_ended {
            return None;
        }
        windows::due(Situation {
            start: self.state.end,
            interval: self.interval,
            now,
            idle,
            is_pressed,
            is_ending: self.is_ending,
        })
    }

    /// What the trail goes on from when its clock is found to be far behind its newest window: new chains, for the log files that wait.
    /// Nothing when it is not.
    pub fn beginning_anew(&self, now: i64) -> Option<State> {
        let State {
            end,
            leapt_from,
            has_ended,
            place,
            next,
            ..
        } = &self.state;
        let is_lost = !has_ended && windows::is_lost(*end, self.interval, now);
        is_lost.then(|| State::starting(place.clone(), now, self.interval, *next, *leapt_from))
    }

    /// This state is durable.
    pub fn begin_anew(&mut self, state: State) {
        self.state = state;
    }

    /// Until a window is due, when the clock does not jump.
    pub fn wait(&self, now: i64) -> Duration {
        windows::wait(self.state.end, self.interval, now)
    }

    /// The digests of a window that is due. Nothing is decided by this: it may be asked again, of another window.
    pub fn draft(&self, window: Window, now: i64) -> Drafts {
        let Window { end, kind, .. } = window;
        // A delivery in the future can only be one that a clock set back has dated.
        let is_in =
            |it: &&Waiting| window.is_last || it.delivered_at < end || it.delivered_at > now;
        let taken: Vec<&Waiting> = self.waiting.iter().take_while(is_in).collect();
        let is_leap = end.saturating_sub(window.start) > self.interval;
        let leap = is_leap.then_some(window.start);
        let mut state = State {
            end,
            leapt_from: self.state.leapt_from.or(leap),
            has_ended: window.is_last,
            next: match self.waiting.get(taken.len()) {
                Some(first_left) => first_left.at,
                None => Next::frame(self.read_to).max(self.state.next),
            },
            ..self.state.clone()
        };
        let mut files: BTreeMap<Source, Vec<File>> = BTreeMap::new();
        for waiting in taken.iter().rev() {
            let of_source = files.entry(waiting.source).or_default();
            of_source.push(waiting.file.clone());
        }
        for source in files.keys() {
            state.chains.entry(*source).or_default();
        }
        let digests = state.chains.iter_mut().map(|(source, heads)| Draft {
            source: *source,
            window,
            location: Location {
                bucket: self.state.place.bucket.clone(),
                key: chain(&self.state.place, *source).key(end, kind),
            },
            previous: head(heads, kind).clone(),
            files: files.remove(source).unwrap_or_default(),
        });
        Drafts {
            window,
            digests: digests.collect(),
            files: taken.len(),
            state,
        }
    }

    /// These digests are signed and durable.
    pub fn close(&mut self, drafts: Drafts) {
        self.waiting.drain(..drafts.files.min(self.waiting.len()));
        self.state = drafts.state;
    }
}

/// The hash of a log file, as the ledger has it, is none.
struct Unnameable;

/// Nothing for a batch that did not become a log file.
fn waiting(at: Next, settled: Settled) -> Option<Result<Waiting, Unnameable>> {
    let object = settled.object?;
    let Ok(sha256) = object.sha256.parse() else {
        return Some(Err(Unnameable));
    };
    let stream = settled.stream.0;
    Some(Ok(Waiting {
        at,
        delivered_at: settled.settled_at.unix_seconds(),
        source: Source {
            account: stream.account,
            region: stream.region,
        },
        file: File {
            location: Location {
                bucket: object.bucket,
                key: object.key,
            },
            sha256,
            newest: object.newest_event_time,
            oldest: object.oldest_event_time,
        },
    }))
}

fn chain(place: &Place, source: Source) -> Chain {
    Chain {
        prefix: place.prefix.clone(),
        organization_id: place.organization_id.clone(),
        account: source.account,
        source_region: source.region,
        trail: place.name.clone(),
        home_region: place.home_region,
    }
}

/// As its text.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As a list: JSON has only texts as keys.
mod chains {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{AccountId, Heads, Region, Source, text};

    #[derive(Serialize, Deserialize)]
    struct Entry<H> {
        #[serde(with = "text")]
        account: AccountId,
        #[serde(with = "text")]
        region: Region,
        #[serde(flatten)]
        heads: H,
    }

    pub fn serialize<S: Serializer>(
        chains: &BTreeMap<Source, Heads>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(chains.iter().map(|(source, heads)| Entry {
            account: source.account,
            region: source.region,
            heads,
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Source, Heads>, D::Error> {
        let entries = Vec::<Entry<Heads>>::deserialize(deserializer)?;
        let pairs = entries.into_iter().map(|entry| {
            let source = Source {
                account: entry.account,
                region: entry.region,
            };
            (source, entry.heads)
        });
        Ok(pairs.collect())
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
