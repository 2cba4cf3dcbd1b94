use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::campaign;
use crate::clock::WallMillis;
use crate::digest::verify::{self, Scope, Valid};
use crate::digest::{Sha256, Signature};
use crate::event::Folder;
use crate::ledger::{Entry, Object, Settled, StreamName};
use crate::trail::{Stream, tests::trail};

const INTERVAL: i64 = 3600;
const BEGIN: i64 = 1_700_000_123;

fn place() -> Place {
    Place::from(&trail())
}

fn starting(now: i64) -> State {
    State::starting(place(), now, INTERVAL, Next::default(), None)
}

impl Default for Next {
    fn default() -> Self {
        Self::frame(Position(0))
    }
}

fn book(state: State) -> Book {
    Book::new(state, Duration::from_secs(INTERVAL as u64))
}

const SOURCES: [(&str, &str); 4] = [
    ("111122223333", "us-east-1"),
    ("111122223333", "eu-west-1"),
    ("444455556666", "us-east-1"),
    ("444455556666", "ap-south-1"),
];

/// The log file that was delivered as the `number`th.
fn settled(number: u64, source: usize, at: i64) -> Entry {
    let (account, region) = SOURCES[source];
    let stream = Stream {
        account: account.parse().unwrap(),
        region: region.parse().unwrap(),
        folder: Folder::CloudTrail,
    };
    Entry::Settled(Settled {
        trail: trail().arn(),
        stream: StreamName(stream),
        first: Position(number),
        object: Some(Object {
            bucket: "audit-logs".into(),
            key: format!("file-{number}"),
            sha256: Sha256::of(&number.to_le_bytes()).to_string(),
            etag: None,
            bytes: 1,
            events: 1,
            oldest_event_time: at - 10,
            newest_event_time: at,
        }),
        lost: 0,
        settled_at: WallMillis(at * 1000 + 7),
    })
}

/// What stands for a signature here: nobody checks it, its successor quotes it.
fn sign(draft: Draft) -> Valid {
    let kind = draft.window.kind;
    let digest = draft.digest("d5d3e8448c6a26f52c9aaf486c4b31a8".parse().unwrap());
    let sha256 = Sha256::of(&digest.to_json());
    Valid {
        digest,
        kind,
        signature: Signature(sha256.0.to_vec()),
        sha256,
    }
}

/// Seals a window, and says again what was sealed.
fn seal(book: &mut Book, window: Window, now: i64) -> Vec<Valid> {
    let mut drafts = book.draft(window, now);
    let mut sealed = Vec::new();
    for draft in std::mem::take(&mut drafts.digests) {
        let source = draft.source;
        let valid = sign(draft);
        let previous = Previous {
            location: valid.digest.location.clone(),
            sha256: valid.sha256,
            signature: valid.signature.clone(),
        };
        drafts.set_head(source, previous);
        sealed.push(valid);
    }
    // What is remembered is what is written.
    let written = serde_json::to_vec(&drafts.state).unwrap();
    assert_eq!(
        serde_json::from_slice::<State>(&written).unwrap(),
        drafts.state
    );
    book.close(drafts);
    sealed
}

fn names(valid: &Valid) -> Vec<&str> {
    let files = valid.digest.files.iter();
    files.map(|file| file.location.key.as_str()).collect()
}

#[test]
fn a_chain_begins_with_an_empty_digest_of_the_time_before() {
    let mut book = book(starting(BEGIN));
    let window = book.due(BEGIN, Duration::ZERO, false).unwrap();
    assert_eq!((window.start, window.end), (BEGIN - INTERVAL, BEGIN));
    let sealed = seal(&mut book, window, BEGIN);
    assert_eq!(sealed.len(), 1);
    let digest = &sealed[0].digest;
    assert_eq!((&digest.previous, digest.files.len()), (&None, 0));
    assert_eq!(
        digest.location.key,
        "AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2023/11/14/\
         111122223333_CloudTrail-Digest_us-east-1_main_us-east-1_20231114T221523Z.json.gz"
    );
    assert_eq!(book.due(BEGIN + INTERVAL - 1, Duration::ZERO, false), None);
}

#[test]
fn a_trail_that_starts_again_covers_no_time_twice() {
    let ended = State {
        end: BEGIN - 100,
        has_ended: true,
        ..starting(0)
    };
    let state = State::starting(place(), BEGIN, INTERVAL, Next::default(), Some(ended.end));
    assert_eq!(state.end, BEGIN - 100);
    let long_ago = State {
        end: BEGIN - 86_400,
        ..ended
    };
    let state = State::starting(
        place(),
        BEGIN,
        INTERVAL,
        Next::default(),
        Some(long_ago.end),
    );
    assert_eq!(state.end, BEGIN - INTERVAL);
    assert!(
        state
            .chains
            .values()
            .all(|heads| *heads == Heads::default())
    );
}

#[test]
fn a_clock_that_leaps_ahead_and_comes_back_at_once_begins_a_chain_beside_the_old_one() {
    let mut book = book(starting(BEGIN));
    let leap = BEGIN + 2000 * INTERVAL;
    for now in [BEGIN, leap] {
        while let Some(window) = book.due(now, Duration::ZERO, false) {
            seal(&mut book, window, now);
        }
    }
    assert_eq!(book.beginning_anew(leap), None);
    let anew = book.beginning_anew(BEGIN).unwrap();
    assert_eq!(anew.end, BEGIN, "there is a digest of until then");
    assert!(anew.chains.values().all(|heads| *heads == Heads::default()));
}

#[test]
fn each_source_has_its_own_chain_and_the_newest_delivery_comes_first() {
    let mut book = book(starting(BEGIN));
    let window = book.due(BEGIN, Duration::ZERO, false).unwrap();
    seal(&mut book, window, BEGIN);
    let frame = ledger::encode(&[
        settled(1, 0, BEGIN + 1),
        settled(2, 1, BEGIN + 2),
        settled(3, 0, BEGIN + 3),
        settled(4, 0, BEGIN + INTERVAL),
    ]);
    assert_eq!(book.take(Position(64), &frame), 0);
    book.advance(Position(500));
    let now = BEGIN + INTERVAL;
    let window = book.due(now, Duration::ZERO, false).unwrap();
    let sealed = seal(&mut book, window, now);
    let by_region: BTreeMap<_, _> = sealed
        .iter()
        .map(|valid| (valid.digest.location.key.contains("_eu-west-1_"), valid))
        .collect();
    assert_eq!(names(by_region[&false]), ["file-3", "file-1"]);
    assert_eq!(names(by_region[&true]), ["file-2"]);
    assert!(by_region[&false].digest.previous.is_some());
    assert!(by_region[&true].digest.previous.is_none());
    let next = Next {
        position: 64,
        index: 3,
    };
    assert_eq!(book.state().next, next, "the fourth is of the next window");
    assert_eq!(book.wanted(), Position(64));
}

#[test]
fn entries_of_others_and_batches_without_a_file_are_in_no_digest() {
    let Entry::Settled(own) = settled(1, 0, BEGIN) else {
        panic!()
    };
    let foreign = Settled {
        trail: "arn:aws:cloudtrail:us-east-1:111122223333:trail/other".into(),
        ..own.clone()
    };
    let lost = Settled {
        object: None,
        lost: 3,
        ..own.clone()
    };
    let mut broken = own.clone();
    broken.object.as_mut().unwrap().sha256 = "none".into();
    let mut book = book(starting(BEGIN));
    let frame = ledger::encode(&[foreign, lost, broken].map(Entry::Settled));
    assert_eq!(book.take(Position(64), &frame), 1, "told, not named");
    book.advance(Position(900));
    assert_eq!(book.wanted(), Position(900));
}

/// One thing that happens to a trail.
#[derive(Debug, Clone)]
enum Step {
    /// Log files are delivered, in one frame of the ledger.
    Deliver(Vec<usize>),
    /// Time passes, on both clocks.
    Pass(i64),
    /// The wall clock is set.
    Set(i64),
    /// The daemon dies and starts again: what was not sealed is forgotten.
    Crash,
    /// The end of logging, and a new start.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(0_usize..4, 1..4).prop_map(Step::Deliver),
        4 => (1_i64..5000).prop_map(Step::Pass),
        1 => (1_i64..40 * INTERVAL).prop_map(Step::Pass),
        1 => prop_oneof![Just(3600), Just(-3600), Just(86_400), Just(-86_400), -4000_i64..4000].prop_map(Step::Set),
        2 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ]
}

/// A trail in a world of its own.
struct World {
    book: Book,
    now: i64,
    idle: i64,
    /// The frames of the ledger, by position.
    ledger: Vec<(Position, Vec<u8>)>,
    delivered: u64,
    digests: Vec<Valid>,
}

impl World {
    fn new() -> Self {
        Self {
            book: book(starting(BEGIN)),
            now: BEGIN,
            idle: 0,
            ledger: Vec::new(),
            delivered: 0,
            digests: Vec::new(),
        }
    }

    fn end_of_ledger(&self) -> Position {
        Position(64 * (self.ledger.len() as u64 + 1))
    }

    fn read_ledger(&mut self, book: &mut Book) {
        let from = book.state().next.position;
        for (position, frame) in &self.ledger {
            if position.0 >= from {
                book.take(*position, frame);
            }
        }
        book.advance(self.end_of_ledger());
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Deliver(sources) => {
                let entries: Vec<_> = sources
                    .iter()
                    .map(|source| {
                        self.delivered += 1;
                        settled(self.delivered, *source, self.now)
                    })
                    .collect();
                let (position, frame) = (self.end_of_ledger(), ledger::encode(&entries));
                self.book.take(position, &frame);
                self.ledger.push((position, frame));
                self.book.advance(self.end_of_ledger());
            }
            Step::Pass(seconds) => {
                self.now += seconds;
                self.idle += seconds;
            }
            Step::Set(seconds) => self.now += seconds,
            Step::Crash => {
                let mut again = book(self.book.state().clone());
                self.read_ledger(&mut again);
                self.book = again;
                self.idle = 0;
            }
            Step::Restart => {
                self.end();
                let next = Next::frame(self.end_of_ledger());
                let former = self.book.state().end;
                let state = State::starting(place(), self.now, INTERVAL, next, Some(former));
                self.book = book(state);
                self.book.advance(self.end_of_ledger());
            }
        }
        self.seal_what_is_due();
    }

    fn seal_what_is_due(&mut self) {
        loop {
            let idle = Duration::from_secs(self.idle as u64);
            let Some(window) = self.book.due(self.now, idle, false) else {
                return;
            };
            let sealed = seal(&mut self.book, window, self.now);
            self.digests.extend(sealed);
            self.idle = 0;
        }
    }

    /// Logging stops.
    fn end(&mut self) {
        let mut ending = Book::new(
            self.book.state().clone(),
            Duration::from_secs(INTERVAL as u64),
        );
        ending.come_to_an_end();
        self.read_ledger(&mut ending);
        self.book = ending;
        self.seal_what_is_due();
        assert!(self.book.state().has_ended);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(campaign::count_of(&campaign::seeds(300)) as u32))]

    /// I5: whatever the clock, crashes and stops do, each chain verifies without a gap, and every log file is in exactly one digest.
    #[test]
    fn every_log_file_is_in_exactly_one_digest_of_an_unbroken_chain(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.seal_what_is_due();
        for step in &steps {
            world.act(step);
        }
        world.end();
        let jumps = steps.iter().filter(|step| matches!(step, Step::Set(_))).count() as u64;
        campaign::count("clock", jumps, jumps);
        let mut named: Vec<String> = Vec::new();
        let mut chains: BTreeMap<(AccountId, bool, bool), Vec<Valid>> = BTreeMap::new();
        for valid in &world.digests {
            let key = &valid.digest.location.key;
            named.extend(names(valid).into_iter().map(str::to_owned));
            let of = (valid.digest.account, key.contains("/us-east-1/"), key.contains("/eu-west-1/"));
            chains.entry(of).or_default().push(valid.clone());
        }
        named.sort();
        let mut expected: Vec<String> = (1..=world.delivered).map(|number| format!("file-{number}")).collect();
        expected.sort();
        prop_assert_eq!(named, expected);
        for valid in chains.values() {
            let present: BTreeSet<Location> = valid.iter().map(|valid| valid.digest.location.clone()).collect();
            prop_assert_eq!(present.len(), valid.len(), "no two digests have one key");
            let scope = Scope {
                folder: valid[0].digest.location.clone(),
                from: 0,
                due: None,
            };
            let findings = verify::chain(&scope, &present, valid);
            let failures: Vec<_> = findings.iter().filter(|finding| finding.is_failure()).collect();
            prop_assert!(failures.is_empty(), "{:?}", failures);
        }
    }
}
