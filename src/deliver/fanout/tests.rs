//! The leg against a destination of which everything is known: what it was sent, and what it is told to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::leg::{Leg, LegError, Parts};
use super::{Confirmation, Destination, Item, ItemId, Refusal, Unreadable, Verdict};
use crate::campaign;
use crate::clock::WallMillis;
use crate::deliver::dead_letter::{Content, DeadLetters, Letter};
use crate::deliver::failure::Failure;
use crate::deliver::memory::MemoryFile;
use crate::deliver::view::{self, Facts, LegView, Metrics, REFUSED, TOO_LARGE};
use crate::wal::sim::{Random, SimDisk};
use crate::wal::{Batch, DiskReserve, Options, Position, Wal};

type Answer = Box<dyn FnMut(&[u64]) -> Result<Vec<Verdict>, Failure> + Send>;

/// What a destination has, and how it answers.
#[derive(Default)]
struct State {
    /// How often each number came and was answered with success.
    taken: BTreeMap<u64, u32>,
    /// The numbers of each request.
    requests: Vec<Vec<u64>>,
    introductions: u32,
    is_missing: bool,
    /// It never answers an introduction.
    is_shut: bool,
    /// Answers instead of success.
    answer: Option<Answer>,
    confirmation: Option<Confirmation>,
    /// It never answers.
    is_silent: bool,
}

#[derive(Clone, Default)]
struct Post(Arc<Mutex<State>>);

impl Post {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn answers(
        &self,
        answer: impl FnMut(&[u64]) -> Result<Vec<Verdict>, Failure> + Send + 'static,
    ) {
        self.state().answer = Some(Box::new(answer));
    }

    fn taken(&self) -> BTreeSet<u64> {
        self.state().taken.keys().copied().collect()
    }

    fn doubled(&self) -> usize {
        self.state()
            .taken
            .values()
            .filter(|times| **times > 1)
            .count()
    }
}

fn all(verdict: Verdict, numbers: &[u64]) -> Vec<Verdict> {
    vec![verdict; numbers.len()]
}

/// Numbers above this are too large.
const LARGE: u64 = 1_000_000;
/// Numbers that this divides are not wanted.
const UNWANTED: u64 = 10;

impl Destination for Post {
    type Entry = u64;

    fn target(&self) -> &str {
        "post"
    }

    async fn is_there(&self) -> Result<(), Failure> {
        match self.state().is_missing {
            true => Err(Failure::new("ResourceNotFoundException", "no bus")),
            false => Ok(()),
        }
    }

    async fn introduce(&self) -> Result<(), Failure> {
        let is_shut = {
            let mut state = self.state();
            state.introductions += 1;
            state.is_shut
        };
        match is_shut {
            true => std::future::pending().await,
            false => Ok(()),
        }
    }

    fn read(&self, at: Position, frame: Bytes) -> Result<Vec<Item>, Unreadable> {
        let number = number(&frame).ok_or_else(|| Unreadable("no number".into()))?;
        let item = Item {
            id: ItemId {
                position: at,
                index: 0,
            },
            events: 1,
            since: WallMillis::now(),
            json: frame,
        };
        Ok((!number.is_multiple_of(UNWANTED))
            .then_some(item)
            .into_iter()
            .collect())
    }

    fn entry(&self, item: &Item) -> Result<u64, Refusal> {
        let number = number(&item.json).unwrap();
        if number > LARGE {
            return Err(Refusal {
                reason: TOO_LARGE,
                message: "it is too large".into(),
            });
        }
        Ok(number)
    }

    fn fits(&self, entries: &[u64]) -> usize {
        entries.len().min(10)
    }

    fn lanes(&self, _behind: u64) -> usize {
        3
    }

    async fn send(&self, _lane: usize, entries: &[u64]) -> Result<Vec<Verdict>, Failure> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let is_silent = self.state().is_silent;
        if is_silent {
            std::future::pending::<()>().await;
        }
        let mut state = self.state();
        state.requests.push(entries.to_vec());
        let verdicts = match &mut state.answer {
            Some(answer) => answer(entries)?,
            None => all(Verdict::Delivered, entries),
        };
        for (number, verdict) in entries.iter().zip(&verdicts) {
            if *verdict == Verdict::Delivered {
                *state.taken.entry(*number).or_default() += 1;
            }
        }
        Ok(verdicts)
    }

    async fn confirm(&self) -> Confirmation {
        let confirmation = self.state().confirmation.clone();
        confirmation.unwrap_or(Confirmation::Arrived)
    }
}

fn number(frame: &[u8]) -> Option<u64> {
    std::str::from_utf8(frame).ok()?.parse().ok()
}

/// A log, a folder for the leg's files, and a destination: what outlives a leg.
struct World {
    log: Wal,
    home: tempfile::TempDir,
    post: Post,
    cut: watch::Sender<Position>,
    /// Items in the log that the destination wants, and letters that were handed back.
    routed: AtomicU64,
}

struct Running {
    task: JoinHandle<Result<(), LegError>>,
    stop: CancellationToken,
    view: LegView,
    progress: watch::Receiver<Position>,
}

impl World {
    fn new() -> Self {
        let options = Options {
            directory: "/log".into(),
            segment_bytes: 4096 + 2048,
            max_bytes: 1 << 30,
            disk_reserve: DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let disk = Arc::new(SimDisk::new());
        let metrics = crate::wal::Metrics::default();
        let (log, _) = Wal::open(disk, options, metrics, &mut |_, _| ()).unwrap();
        Self {
            log,
            home: tempfile::tempdir().unwrap(),
            post: Post::default(),
            cut: watch::Sender::new(Position(0)),
            routed: AtomicU64::new(0),
        }
    }

    fn expect(&self, items: u64) {
        self.routed.fetch_add(items, Ordering::Relaxed);
    }

    /// Hands all letters back to the leg.
    fn hand_over(&self) {
        let tally = self.letters().hand_over().unwrap();
        self.expect(tally.item_events);
    }

    /// What a leg has done, with its books checked: it has counted no more than there is, and settled no more than it has counted.
    fn balanced(&self, view: &LegView) -> Facts {
        let facts = view.facts();
        assert!(
            facts.routed <= self.routed.load(Ordering::Relaxed)
                && facts.delivered + facts.dead_lettered() <= facts.routed,
            "{facts:?} of {:?}",
            self.routed
        );
        facts
    }

    /// The same, of a leg that has seen all there is.
    fn complete(&self, view: &LegView) -> Facts {
        let facts = self.balanced(view);
        assert_eq!(facts.routed, self.routed.load(Ordering::Relaxed));
        facts
    }

    fn letters(&self) -> DeadLetters {
        DeadLetters::new(&self.home.path().join("dead-letters"), "main", "logs")
    }

    fn memory(&self) -> MemoryFile {
        let directory = self.home.path().join("cursors");
        std::fs::create_dir_all(&directory).unwrap();
        MemoryFile::new(&directory, "main", "logs")
    }

    async fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.expect(u64::from(!number.is_multiple_of(UNWANTED)));
            let mut batch = Batch::new();
            batch.push(number.to_string().as_bytes());
            let permit = self.log.reserve(batch.bytes()).await.unwrap();
            permit.append(batch).await.unwrap();
        }
    }

    fn start(&self) -> Running {
        let view = LegView::new(
            view::Leg {
                trail: "main".into(),
                sink: view::Sink::Logs,
            },
            Metrics::default(),
        );
        let leg = Leg::open(Parts {
            trail: "arn".into(),
            destination: self.post.clone(),
            log: self.log.clone(),
            new_from: Position(0),
            memory: self.memory(),
            letters: self.letters(),
            view: view.clone(),
            chunk_bytes: 512,
            cut: self.cut.subscribe(),
        });
        let progress = leg.watch_progress();
        let stop = CancellationToken::new();
        Running {
            task: tokio::spawn(leg.run(stop.clone())),
            stop,
            view,
            progress,
        }
    }

    /// Waits until the leg has come to the end of the log, as saved.
    async fn drain(&self, leg: &mut Running) -> Facts {
        let end = self.log.durable();
        let settled = leg.progress.wait_for(|progress| *progress >= end);
        let settled = tokio::time::timeout(Duration::from_secs(3600), settled).await;
        settled.expect("it drains").unwrap();
        self.complete(&leg.view)
    }

    /// Position and reason of each dead letter of an item.
    fn buried(&self) -> Vec<(u64, String)> {
        let path = self.home.path().join("dead-letters/main.logs.ndjson");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let letters = text
            .lines()
            .map(|line| serde_json::from_str::<Letter>(line).unwrap());
        letters
            .filter_map(|letter| match letter.content {
                Content::Item { body, .. } => Some((body.get().parse().unwrap(), letter.reason)),
                Content::Gap { .. } => None,
            })
            .collect()
    }
}

impl Running {
    /// As `kill -9` does.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn stop(self) -> Facts {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.view.facts()
    }
}

fn wanted(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    numbers
        .into_iter()
        .filter(|n| !n.is_multiple_of(UNWANTED))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_item_arrives_once_and_a_restart_sends_nothing_again() {
    let world = World::new();
    world.append(1..=300).await;
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.pending()), (270, 0));
    assert_eq!(world.post.taken(), wanted(1..=300));
    leg.stop().await;

    let mut leg = world.start();
    world.append(301..=350).await;
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.pending()), (315, 0), "counts go on");
    assert_eq!(world.post.taken(), wanted(1..=350));
    assert_eq!(world.post.doubled(), 0);
    assert_eq!(world.post.state().introductions, 1, "introduced once");
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_sends_nothing_twice() {
    let world = World::new();
    world.append(1..=500).await;
    for _ in 0..20 {
        let leg = world.start();
        tokio::time::sleep(Duration::from_millis(13)).await;
        world.balanced(&leg.view);
        leg.stop().await;
    }
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!(facts.delivered, 450);
    assert_eq!(world.post.taken(), wanted(1..=500));
    assert_eq!(world.post.doubled(), 0);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_time_loses_nothing_and_doubles_little() {
    const LIVES: u64 = 6;
    for seed in campaign::seeds(40) {
        let mut random = Random(seed + 1);
        let world = World::new();
        let mut next = 1;
        for _ in 0..LIVES {
            let count = 1 + random.below(120);
            world.append(next..next + count).await;
            next += count;
            let leg = world.start();
            tokio::time::sleep(Duration::from_millis(random.below(3000))).await;
            world.balanced(&leg.view);
            leg.kill().await;
        }
        let mut leg = world.start();
        let facts = world.drain(&mut leg).await;
        assert_eq!(world.post.taken(), wanted(1..next), "seed {seed}");
        assert_eq!(facts.delivered, wanted(1..next).len() as u64, "seed {seed}");
        leg.stop().await;
        campaign::count("kill", LIVES, LIVES);
    }
}

#[tokio::test(start_paused = true)]
async fn only_failed_entries_are_sent_again() {
    let world = World::new();
    world.append(1..=9).await;
    world.post.answers(|numbers| {
        let throttled = Failure::new("ThrottlingException", "slow down");
        let verdict = |n: &u64| match numbers.contains(&1) && n.is_multiple_of(3) {
            true => Verdict::Again(throttled.clone()),
            false => Verdict::Delivered,
        };
        Ok(numbers.iter().map(verdict).collect())
    });
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!(facts.delivered, 9);
    assert_eq!(world.post.doubled(), 0);
    let requests = world.post.state().requests.clone();
    assert_eq!(requests, [vec![1, 2, 3, 4, 5, 6, 7, 8, 9], vec![3, 6, 9]]);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_too_little_settles_nothing() {
    let world = World::new();
    world.append(1..=9).await;
    let mut answers = 0;
    world.post.answers(move |numbers| {
        answers += 1;
        Ok(all(
            Verdict::Delivered,
            &numbers[usize::from(answers < 3)..],
        ))
    });
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (9, 0));
    assert_eq!(world.post.state().requests.len(), 3);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_poison_record_becomes_a_dead_letter_alone_and_its_neighbours_go_on() {
    let world = World::new();
    world.append(1..=200).await;
    world.append([LARGE + 1]).await;
    world.post.answers(|numbers| match numbers.contains(&57) {
        true => Err(Failure::new("InvalidParameterException", "a record is bad")),
        false => Ok(all(Verdict::Delivered, numbers)),
    });
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (179, 2));
    let mut expected = wanted(1..=200);
    expected.remove(&57);
    assert_eq!(world.post.taken(), expected);
    assert_eq!(world.post.doubled(), 0);
    leg.stop().await;
    let buried: BTreeSet<_> = world.buried().into_iter().collect();
    let letters = [(57, REFUSED.to_owned()), (LARGE + 1, TOO_LARGE.to_owned())];
    assert_eq!(buried, letters.into());

    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!(
        (facts.delivered, facts.dead_lettered()),
        (179, 2),
        "counts go on"
    );
    leg.stop().await;
}

/// A mistake in the destination's settings looks like a bad record, for every record.
#[tokio::test(start_paused = true)]
async fn a_destination_that_refuses_everything_for_a_while_makes_no_dead_letters() {
    let world = World::new();
    world.append(1..=50).await;
    let since = tokio::time::Instant::now();
    world.post.answers(
        move |numbers| match since.elapsed() < Duration::from_secs(8) {
            true => Err(Failure::new("InvalidParameterException", "no such thing")),
            false => Ok(all(Verdict::Delivered, numbers)),
        },
    );
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (45, 0));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_went_nowhere_is_not_delivered_until_it_is_sent_again() {
    let world = World::new();
    world.append(1..=50).await;
    let missing = Failure::new("ResourceNotFoundException", "no bus");
    world.post.state().confirmation = Some(Confirmation::Vanished(missing));
    let mut leg = world.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let facts = world.balanced(&leg.view);
    assert_eq!((facts.delivered, facts.pending()), (0, 45));
    assert_eq!(facts.last_error.unwrap().code, "ResourceNotFoundException");
    world.post.state().taken.clear(); // they went nowhere
    world.post.state().confirmation = None;
    let facts = world.drain(&mut leg).await;
    assert_eq!(facts.delivered, 45);
    assert_eq!(world.post.taken(), wanted(1..=50));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_silent_destination_is_counted() {
    let world = World::new();
    world.post.state().is_silent = true;
    world.append(1..=500).await;
    let leg = world.start();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.complete(&leg.view).pending(), 450);
    world.append(501..=600).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let facts = world.complete(&leg.view);
    assert_eq!(facts.pending(), 540);
    assert!(facts.oldest_pending.is_some());
    world.post.state().is_silent = false;
    // The requests that were never answered are given up with the leg.
    leg.stop().await;
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.pending()), (540, 0));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_at_any_start_before_the_destination_is_there() {
    let world = World::new();
    world.append(1..=20).await;
    let mut leg = world.start();
    world.drain(&mut leg).await;
    leg.stop().await;

    world.append(21..=40).await;
    world.post.state().is_missing = true;
    let mut leg = world.start();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.post.taken(), wanted(1..=20));
    let facts = leg.view.facts();
    assert_eq!(facts.pending(), 18);
    assert_eq!(facts.last_error.unwrap().code, "ResourceNotFoundException");
    world.post.state().is_missing = false;
    world.drain(&mut leg).await;
    assert_eq!(world.post.taken(), wanted(1..=40));
    assert_eq!(world.post.state().introductions, 1);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_an_introduction_is_counted() {
    let world = World::new();
    world.post.state().is_shut = true;
    world.append(1..=100).await;
    let leg = world.start();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let facts = world.balanced(&leg.view);
    assert_eq!((facts.pending(), facts.delivered), (90, 0));
    assert!(facts.oldest_pending.is_some());
    leg.stop().await;
    world.post.state().is_shut = false;
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.pending()), (90, 0));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_are_handed_back_are_sent_again() {
    let world = World::new();
    world.append(1..=30).await;
    world.post.answers(|numbers| {
        let refused = Verdict::Refused(Refusal {
            reason: REFUSED,
            message: "not that one".into(),
        });
        let verdict = |n: &u64| match n {
            7 | 13 => refused.clone(),
            _ => Verdict::Delivered,
        };
        Ok(numbers.iter().map(verdict).collect())
    });
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (25, 2));

    world.hand_over();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let facts = world.complete(&leg.view);
    assert_eq!(
        (facts.delivered, facts.dead_lettered()),
        (25, 4),
        "refused again"
    );

    world.post.state().answer = None;
    world.hand_over();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let facts = world.complete(&leg.view);
    assert_eq!((facts.delivered, facts.pending()), (27, 0));
    assert_eq!(world.post.taken(), wanted(1..=30));
    assert_eq!(world.post.doubled(), 0);
    assert_eq!(world.buried(), [], "the letters are gone");
    leg.stop().await;
}

/// A letter of this number, as if it had been refused long ago.
fn letter(number: u64, position: u64) -> Letter {
    Letter {
        at: "2026-01-02T03:04:05Z".into(),
        trail: "main".into(),
        trail_arn: Some("arn".into()),
        sink: "logs".into(),
        reason: REFUSED.into(),
        message: String::new(),
        events: 1,
        content: Content::Item {
            position,
            index: 0,
            body: RawValue::from_string(number.to_string()).unwrap(),
        },
    }
}

/// Waits until nothing is handed back any more.
async fn replayed(world: &World, leg: &Running) -> Facts {
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if world.letters().handed_back("arn").unwrap().is_none() {
            return world.complete(&leg.view);
        }
    }
    panic!("letters still wait: {:?}", leg.view.facts());
}

/// Refuses each number that this divides.
fn refuses(every: u64) -> impl FnMut(&[u64]) -> Result<Vec<Verdict>, Failure> {
    move |numbers| {
        let refused = Verdict::Refused(Refusal {
            reason: REFUSED,
            message: "not that one".into(),
        });
        let verdict = |n: &u64| match n.is_multiple_of(every) {
            true => refused.clone(),
            false => Verdict::Delivered,
        };
        Ok(numbers.iter().map(verdict).collect())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_replay_sends_and_refuses_nothing_twice() {
    let world = World::new();
    let letters: Vec<Letter> = (1..=400).map(|n| letter(n, n)).collect();
    world.letters().append(&letters).unwrap();
    world.hand_over();
    world.post.answers(refuses(7));
    for _ in 0..30 {
        let leg = world.start();
        tokio::time::sleep(Duration::from_millis(8)).await;
        world.balanced(&leg.view);
        leg.stop().await;
    }
    let facts = {
        let leg = world.start();
        let before = world.balanced(&leg.view);
        assert!(
            (1..343).contains(&before.delivered),
            "stopped in the middle: {before:?}"
        );
        let facts = replayed(&world, &leg).await;
        leg.stop().await;
        facts
    };
    assert_eq!((facts.delivered, facts.dead_lettered()), (343, 57));
    assert_eq!(world.post.doubled(), 0);
    let refused: Vec<u64> = world.buried().into_iter().map(|(n, _)| n).collect();
    let expected: Vec<u64> = (1_u64..=400).filter(|n| n.is_multiple_of(7)).collect();
    let different: BTreeSet<u64> = refused.iter().copied().collect();
    assert_eq!(different.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(refused.len(), expected.len(), "each once");
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_middle_of_a_replay_loses_nothing_and_the_books_are_right() {
    for seed in campaign::seeds(20) {
        let mut random = Random(seed + 1);
        let world = World::new();
        let letters: Vec<Letter> = (1..=400).map(|n| letter(n, n)).collect();
        world.letters().append(&letters).unwrap();
        world.hand_over();
        for _ in 0..4 {
            let leg = world.start();
            tokio::time::sleep(Duration::from_millis(random.below(2000))).await;
            world.balanced(&leg.view);
            leg.kill().await;
        }
        let leg = world.start();
        let facts = replayed(&world, &leg).await;
        assert_eq!(facts.delivered, 400, "seed {seed}");
        assert_eq!(world.post.taken(), (1..=400).collect(), "seed {seed}");
        leg.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_in_the_middle_of_a_replay_loses_no_letter() {
    let world = World::new();
    let letters: Vec<Letter> = (1..=100).map(|n| letter(n, n)).collect();
    world.letters().append(&letters).unwrap();
    world.hand_over();
    let throttled = Failure::new("ThrottlingException", "slow down");
    world.post.answers(move |_| Err(throttled.clone()));
    let mut leg = world.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.append(1001..=1019).await;
    world.cut.send_replace(world.log.durable());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.balanced(&leg.view).dead_lettered(), 18, "the gap");
    world.post.state().answer = None;
    world.append(2001..=2009).await;
    replayed(&world, &leg).await;
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.pending()), (109, 0));
    assert_eq!(world.post.taken(), (1..=100).chain(2001..=2009).collect());
    assert_eq!(world.post.doubled(), 0);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_cannot_be_ended_sends_nothing_twice() {
    let world = World::new();
    let gap = Letter {
        content: Content::Gap { from: 1, to: 2 },
        ..letter(0, 0)
    };
    world
        .letters()
        .append(&[letter(1, 1), letter(2, 2), gap])
        .unwrap();
    world.hand_over();
    // The gap cannot go back.
    let path = world.home.path().join("dead-letters/main.logs.ndjson");
    std::fs::create_dir(&path).unwrap();
    for _ in 0..3 {
        let leg = world.start();
        tokio::time::sleep(Duration::from_secs(100)).await;
        let facts = world.complete(&leg.view);
        assert_eq!((facts.delivered, facts.pending()), (2, 0));
        leg.stop().await;
    }
    assert!(world.letters().handed_back("arn").unwrap().is_some());
    std::fs::remove_dir(&path).unwrap();
    let leg = world.start();
    let facts = replayed(&world, &leg).await;
    assert_eq!(facts.delivered, 2);
    assert_eq!(world.post.doubled(), 0);
    let left = std::fs::read_to_string(&path).unwrap();
    assert_eq!(left.lines().count(), 1, "{left}");
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn letters_of_one_item_keep_the_books_right() {
    let world = World::new();
    let letters = [letter(1, 7), letter(1, 7), letter(2, 8), letter(3, 7)];
    world.letters().append(&letters).unwrap();
    world.letters().hand_over().unwrap();
    world.expect(3); // two say the same
    let leg = world.start();
    let facts = replayed(&world, &leg).await;
    assert_eq!((facts.delivered, facts.pending()), (3, 0));
    assert_eq!(world.post.taken(), [1, 2, 3].into());
    assert_eq!(world.post.doubled(), 0);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_cannot_write_letters_obeys_a_cut_and_a_stop() {
    let world = World::new();
    world.append(1..=9).await;
    world.append([LARGE + 1]).await;
    let directory = world.home.path().join("dead-letters");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("main.logs.ndjson");
    std::fs::create_dir(&path).unwrap();
    let leg = world.start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    leg.stop().await;
    let mut leg = world.start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.cut.send_replace(world.log.durable());
    tokio::time::sleep(Duration::from_secs(5)).await;
    std::fs::remove_dir(&path).unwrap();
    world.append(11..=19).await;
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (18, 1));
    assert_eq!(world.post.doubled(), 0);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn letters_that_cannot_be_read_do_not_stop_a_leg() {
    let world = World::new();
    world.append(1..=9).await;
    let path = world.home.path().join("dead-letters/main.logs.ndjson");
    std::fs::create_dir_all(&path).unwrap();
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!(facts.delivered, 9);
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_is_cut_off_counts_what_it_leaves_and_goes_on_after_it() {
    let world = World::new();
    world.append(1..=100).await;
    world.post.state().is_silent = true;
    let mut leg = world.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cut = world.log.durable();
    world.post.state().is_silent = false;
    world.append(101..=120).await;
    world.cut.send_replace(cut);
    let facts = world.drain(&mut leg).await;
    assert_eq!(
        (facts.delivered, facts.dead_lettered(), facts.pending()),
        (18, 90, 0)
    );
    assert_eq!(world.post.taken(), wanted(101..=120));
    leg.stop().await;
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (18, 90));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_counted_and_stepped_over() {
    let world = World::new();
    world.append([1]).await;
    let mut batch = Batch::new();
    batch.push(b"no number");
    let permit = world.log.reserve(batch.bytes()).await.unwrap();
    permit.append(batch).await.unwrap();
    world.expect(1);
    world.append([2]).await;
    let mut leg = world.start();
    let facts = world.drain(&mut leg).await;
    assert_eq!((facts.delivered, facts.dead_lettered()), (2, 1));
    leg.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leg_whose_place_is_damaged_begins_at_the_start_of_its_log() {
    let world = World::new();
    world.append(1..=20).await;
    let mut leg = world.start();
    world.drain(&mut leg).await;
    leg.stop().await;
    let path: &Path = &world.home.path().join("cursors/main.logs.json");
    let mut bytes = std::fs::read(path).unwrap();
    bytes[12] ^= 4;
    std::fs::write(path, bytes).unwrap();
    let mut leg = world.start();
    world.drain(&mut leg).await;
    assert_eq!(world.post.doubled(), 18, "rather twice than never");
    leg.stop().await;
}
