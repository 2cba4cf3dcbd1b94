//! The log on a disk that crashes, loses power, fails and fills up, against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::io::Errno;
use tokio::runtime::Runtime;

use super::sim::{Operation, Random, SimDisk};
use super::*;
use crate::campaign;

const SEGMENT_BYTES: u64 = 16 << 10;

fn directory() -> PathBuf {
    PathBuf::from("/log")
}

fn options() -> Options {
    Options {
        directory: directory(),
        segment_bytes: SEGMENT_BYTES,
        max_bytes: 1 << 30,
        disk_reserve: DiskReserve::None,
        queue_bytes: 1 << 20,
    }
}

/// What a user of the log knows, and what he may therefore expect.
#[derive(Default)]
struct Model {
    /// By position: acknowledged, or seen by a successful opening.
    owed: BTreeMap<Position, Vec<u8>>,
    /// Everything ever tried, by number.
    tried: BTreeMap<u64, Vec<u8>>,
    /// Positions below may have been trimmed.
    trimmed: Position,
    /// Beyond every position ever seen.
    highest: Position,
    next_number: u64,
}

impl Model {
    fn payload(&mut self, random: &mut Random) -> Vec<u8> {
        let number = self.next_number;
        self.next_number += 1;
        let bytes = match random.below(10) {
            0 => 0,
            1 => random.below(6000),
            _ => random.below(400),
        };
        let mut payload = number.to_le_bytes().to_vec();
        while (payload.len() as u64) < 8 + bytes {
            match random.below(8) {
                0 => payload.extend_from_slice(&super::frame::MAGIC),
                1 => payload.extend_from_slice(&[0; 40]),
                _ => payload.extend_from_slice(&random.next().to_le_bytes()),
            }
        }
        self.tried.insert(number, payload.clone());
        payload
    }

    fn acknowledged(&mut self, range: Range<Position>, payloads: &[Vec<u8>]) {
        let mut at = range.start;
        assert!(
            at >= self.highest,
            "position {at:?} is used again, {:?} was reached before",
            self.highest
        );
        for payload in payloads {
            self.owed.insert(at, payload.clone());
            at.0 += (FRAME_HEADER_BYTES + payload.len()) as u64;
        }
        assert_eq!(at, range.end);
        self.highest = range.end;
    }

    /// Compares what opening showed with what is owed, and owes that from now on.
    fn opened(&mut self, seen: Vec<(Position, Vec<u8>)>) {
        let mut numbers = BTreeSet::new();
        let mut last = None;
        for (position, payload) in &seen {
            assert!(last < Some(*position), "frames out of order");
            last = Some(*position);
            let number = u64::from_le_bytes(payload[..8].try_into().unwrap());
            assert!(numbers.insert(number), "payload {number} is there twice");
            assert_eq!(&self.tried[&number], payload, "payload {number} changed");
            if let Some(owed) = self.owed.get(position) {
                assert_eq!(owed, payload, "another payload at {position:?}");
            }
        }
        let seen: BTreeMap<_, _> = seen.into_iter().collect();
        for position in self.owed.keys() {
            assert!(
                *position < self.trimmed || seen.contains_key(position),
                "the acknowledged frame at {position:?} is lost; trimmed below {:?}",
                self.trimmed
            );
        }
        for (position, payload) in &seen {
            let end = position.0 + (FRAME_HEADER_BYTES + payload.len()) as u64;
            self.highest = self.highest.max(Position(end));
        }
        self.owed = seen;
    }
}

/// The log under test with its model.
struct Bench {
    disk: SimDisk,
    runtime: Runtime,
    wal: Option<Wal>,
    model: Model,
    random: Random,
    /// What the log's user remembers of positions, for when files were taken away.
    at_least: Position,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Self {
            disk: SimDisk::new(),
            runtime,
            wal: None,
            model: Model::default(),
            random: Random(seed),
            at_least: Position(0),
        }
    }

    /// Opens and checks. Says whether it opened, which a disk may prevent that stops or fails meanwhile.
    fn open(&mut self) -> Option<Recovery> {
        self.wal = None;
        let mut seen = Vec::new();
        let disk = Arc::new(self.disk.clone());
        let each = &mut |position, payload: &[u8]| seen.push((position, payload.to_vec()));
        let metrics = Metrics::default();
        let opened = Wal::open_beyond(disk, options(), metrics, self.at_least, each);
        let (wal, recovery) = opened.ok()?;
        self.model.opened(seen);
        self.wal = Some(wal);
        Some(recovery)
    }

    fn reopen(&mut self) {
        self.open().expect("the log opens on a disk that works");
    }

    fn batch(&mut self) -> (Batch, Vec<Vec<u8>>) {
        let mut batch = Batch::new();
        let mut payloads = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let payload = self.model.payload(&mut self.random);
            batch.push(&payload);
            payloads.push(payload);
        }
        (batch, payloads)
    }

    /// Appends `count` batches at once; the model learns of those that were acknowledged.
    fn append(&mut self, count: u64) -> Vec<Result<(), AppendError>> {
        let batches: Vec<_> = (0..count).map(|_| self.batch()).collect();
        let Some(wal) = self.wal.clone() else {
            return Vec::new();
        };
        let mut answers = Vec::new();
        let mut waiting = Vec::new();
        for (batch, payloads) in batches {
            match self.runtime.block_on(wal.reserve(batch.bytes())) {
                Ok(permit) => waiting.push((permit.append(batch), payloads)),
                Err(error) => answers.push(Err(error)),
            }
        }
        for (appending, payloads) in waiting {
            answers.push(match self.runtime.block_on(appending) {
                Ok(range) => {
                    assert!(wal.durable() >= range.end);
                    self.model.acknowledged(range, &payloads);
                    Ok(())
                }
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Removes one segment from the front, perhaps.
    fn trim(&mut self) {
        let Some(wal) = &self.wal else { return };
        if let Some(segment) = wal.trimmable(wal.durable()).first().cloned() {
            self.model.trimmed = segment.end;
            let _ = wal.remove_oldest(segment);
        }
    }

    fn roll(&mut self) {
        let Some(wal) = &self.wal else { return };
        wal.roll();
        let _ = self.runtime.block_on(wal.barrier());
    }

    /// What a reader gives equals what is owed.
    fn check_reader(&mut self) {
        let Some(wal) = &self.wal else { return };
        let mut reader = wal.reader();
        let mut at = wal.start();
        let mut seen = Vec::new();
        let budget = 1 + self.random.below(9000) as usize;
        loop {
            let chunk = reader.read(at, budget).unwrap();
            if chunk.is_empty() {
                break;
            }
            assert!(chunk.next > at);
            at = chunk.next;
            seen.extend(chunk.iter().map(|(at, payload)| (at, payload.to_vec())));
        }
        let start = wal.start();
        let owed: Vec<_> = self
            .model
            .owed
            .range(start..)
            .map(|(at, payload)| (*at, payload.clone()))
            .collect();
        if seen != owed {
            let only = |these: &[(Position, Vec<u8>)], those: &[(Position, Vec<u8>)]| -> Vec<_> {
                let missing = these.iter().filter(|frame| !those.contains(frame));
                missing.map(|(at, _)| *at).collect()
            };
            let (more, less) = (only(&seen, &owed), only(&owed, &seen));
            panic!("the reader gives {more:?} too much and {less:?} not");
        }

        let some: Vec<Position> = owed
            .iter()
            .map(|(at, _)| *at)
            .filter(|_| self.random.below(3) > 0)
            .collect();
        let mut exact = Vec::new();
        let result = reader.read_each(&mut some.iter().copied(), &mut |at, payload| {
            exact.push((at, payload.unwrap().to_vec()));
        });
        result.unwrap();
        assert_eq!(exact.len(), some.len());
        for ((at, payload), wanted) in exact.iter().zip(&some) {
            assert_eq!(at, wanted);
            assert_eq!(&self.model.owed[at], payload);
        }
    }

    /// A few steps of everything that does not harm.
    fn steps(&mut self, count: u64) {
        for _ in 0..count {
            if self.disk.is_stopped() {
                return;
            }
            match self.random.below(20) {
                0 => self.trim(),
                1 => self.roll(),
                _ => {
                    let together = 1 + self.random.below(2);
                    self.append(together);
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Trim,
    Roll,
    Read,
    Reopen,
    Kill,
    KillDuring(u64),
    PowerLoss(u64),
    PowerLossDuring(u64, u64),
    FailDuring(Operation, u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        Just(Operation::Create),
        Just(Operation::Write),
        Just(Operation::SetBytes),
        Just(Operation::SyncData),
        Just(Operation::Remove),
        Just(Operation::SyncDirectory),
    ];
    prop_oneof![
        12 => (1..4u64).prop_map(Step::Append),
        2 => Just(Step::Trim),
        1 => Just(Step::Roll),
        1 => Just(Step::Read),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => (1..12u64).prop_map(Step::KillDuring),
        1 => any::<u64>().prop_map(Step::PowerLoss),
        1 => (1..12u64, any::<u64>()).prop_map(|(after, seed)| Step::PowerLossDuring(after, seed)),
        1 => (operation, 1..3u64, any::<bool>())
            .prop_map(|(operation, nth, full)| Step::FailDuring(operation, nth, full)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn acknowledged_frames_survive_in_order_once(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new(seed);
        bench.reopen();
        for step in steps {
            match step {
                Step::Append(count) => { bench.append(count); }
                Step::Trim => bench.trim(),
                Step::Roll => bench.roll(),
                Step::Read => bench.check_reader(),
                Step::Reopen => bench.reopen(),
                Step::Kill => {
                    bench.disk.stop_at(bench.disk.operations() + 1);
                    bench.append(2);
                    bench.wal = None;
                    bench.disk.restart();
                    bench.reopen();
                }
                Step::KillDuring(after) => {
                    bench.disk.stop_at(bench.disk.operations() + after);
                    bench.steps(after);
                    bench.open();
                    bench.wal = None;
                    bench.disk.restart();
                    bench.reopen();
                }
                Step::PowerLoss(loss) => {
                    bench.wal = None;
                    bench.disk.power_loss(loss);
                    bench.reopen();
                }
                Step::PowerLossDuring(after, loss) => {
                    bench.disk.stop_at(bench.disk.operations() + after);
                    bench.steps(after);
                    bench.open();
                    bench.wal = None;
                    bench.disk.power_loss(loss);
                    bench.reopen();
                }
                Step::FailDuring(operation, nth, full) => {
                    let errno = if full { Errno::NOSPC } else { Errno::IO };
                    bench.disk.fail(operation, nth, errno);
                    bench.steps(3);
                    bench.wal = None;
                    bench.disk.restart();
                    bench.reopen();
                }
            }
        }
        bench.reopen();
        bench.check_reader();
    }
}

/// Crashes at operation `stop`, then starts again, appends, and starts once more.
fn crash_once(seed: u64, steps: u64, stop: u64, loss: Option<u64>) -> bool {
    let mut bench = Bench::new(seed);
    bench.disk.stop_at(stop);
    bench.open();
    bench.steps(steps);
    bench.wal = None;
    match loss {
        Some(loss) => bench.disk.power_loss(loss),
        None => bench.disk.restart(),
    }
    bench.reopen();
    bench.append(1);
    bench.check_reader();
    bench.reopen();
    bench.disk.fired() > 0
}

#[test]
fn a_crash_at_every_operation_loses_nothing() {
    const STEPS: u64 = 200;
    for script in campaign::seeds(1) {
        let seed = script + 7;
        let mut whole = Bench::new(seed);
        whole.reopen();
        whole.steps(STEPS);
        let operations = whole.disk.operations();
        assert!(operations > 400);
        let mut fired = 0;
        for stop in 1..=operations {
            let loss = (stop % 2 == 0).then_some(stop);
            fired += u64::from(crash_once(seed, STEPS, stop, loss));
        }
        campaign::count("crash-points", fired, fired);
        // Appends that meet in the queue share their operations: the busier the machine, the fewer there are in a run.
        assert!(
            fired * 2 > operations,
            "{fired} of {operations} crashes happened"
        );
    }
}

#[test]
fn power_loss_loses_nothing() {
    let seeds = campaign::seeds(2000);
    let mut fired = 0;
    for seed in seeds.clone() {
        let stop = 1 + Random(seed).below(60);
        fired += u64::from(crash_once(seed, 16, stop, Some(seed)));
    }
    campaign::enough("power-loss", &seeds, fired, 0.5);
}

/// Runs power losses on a disk that leaves out one operation, and says whether the model noticed.
fn is_noticed(forgotten: Operation) -> bool {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(|| {
        for seed in 0..40 {
            let mut bench = Bench::new(seed);
            bench.disk.forget(forgotten);
            bench.reopen();
            bench.steps(10);
            bench.wal = None;
            bench.disk.power_loss(seed);
            bench.reopen();
        }
    });
    std::panic::set_hook(hook);
    outcome.is_err()
}

#[test]
fn the_model_notices_a_missing_fsync() {
    assert!(is_noticed(Operation::SyncData));
    assert!(is_noticed(Operation::SyncDirectory));
}

#[test]
fn after_a_failed_write_or_fsync_nothing_is_taken_until_the_next_start() {
    let mut fired = 0;
    for operation in [
        Operation::Create,
        Operation::Write,
        Operation::SyncData,
        Operation::SyncDirectory,
    ] {
        for nth in 1..=30 {
            let mut bench = Bench::new(nth);
            bench.reopen();
            bench.append(1);
            bench.disk.fail(operation, nth, Errno::IO);
            let mut failed = false;
            for _ in 0..60 {
                let answers = bench.append(2);
                if answers.iter().any(Result::is_err) {
                    failed = true;
                }
                let all_failed = answers
                    .iter()
                    .all(|answer| matches!(answer, Err(AppendError::Failed { .. })));
                // The first batch of the group may have been committed by itself before the fault.
                if failed && !answers.iter().any(Result::is_ok) {
                    assert!(all_failed);
                    break;
                }
            }
            let wal = bench.wal.clone().unwrap();
            if failed {
                fired += 1;
                let reason = bench.runtime.block_on(wal.failed());
                assert_eq!(wal.failure(), Some(reason));
                assert!(bench.append(3).iter().all(Result::is_err));
                assert!(bench.runtime.block_on(wal.barrier()).is_err());
                bench.check_reader();
            }
            drop(wal);
            bench.wal = None;
            bench.disk.power_loss(nth);
            bench.reopen();
            assert!(bench.append(1).iter().all(Result::is_ok));
            bench.reopen();
        }
    }
    assert!(fired >= 60, "{fired} faults happened");
}

#[test]
fn what_a_failed_fsync_left_in_the_cache_is_not_taken_for_durable() {
    let mut bench = Bench::new(1);
    bench.reopen();
    bench.append(2);
    bench.disk.fail(Operation::SyncData, 1, Errno::IO);
    assert!(bench.append(1).iter().all(Result::is_err));
    bench.wal = None;
    bench.disk.restart();
    bench.reopen();
    // Whatever was shown now is owed, and the power goes off.
    bench.wal = None;
    bench.disk.power_loss(0);
    bench.reopen();
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    for seed in campaign::seeds(20) {
        let mut bench = Bench::new(seed);
        bench.reopen();
        bench.append(2);
        let capacity = 20_000 + seed % 20 * 1000;
        bench.disk.set_capacity(Some(capacity));
        let mut refused = 0;
        for _ in 0..200 {
            for answer in bench.append(2) {
                match answer {
                    Ok(()) => {}
                    Err(AppendError::DiskFull { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(refused > 100);
        bench.check_reader();
        if seed % 2 == 0 {
            bench.reopen();
        }
        bench.disk.set_capacity(None);
        assert!(bench.append(5).iter().all(Result::is_ok));
        assert_eq!(bench.wal.as_ref().unwrap().failure(), None);
        bench.check_reader();
        bench.reopen();
    }
}

#[test]
fn a_full_disk_whose_file_cannot_be_cut_back_ends_the_log() {
    let mut bench = Bench::new(3);
    bench.reopen();
    bench.append(2);
    bench.disk.fail(Operation::Write, 1, Errno::NOSPC);
    bench.disk.fail(Operation::SetBytes, 1, Errno::IO);
    let answers = bench.append(1);
    assert!(matches!(answers[..], [Err(AppendError::Failed { .. })]));
    bench.wal = None;
    bench.disk.restart();
    bench.reopen();
}

#[test]
fn a_segment_for_which_there_is_no_file_descriptor_is_begun_later() {
    for operation in [Operation::Create, Operation::SyncDirectory] {
        for errno in [Errno::MFILE, Errno::NFILE] {
            let mut bench = Bench::new(5);
            bench.reopen();
            bench.append(2);
            bench.disk.fail(operation, 1, errno);
            let fired = bench.disk.fired();
            let mut refused = 0;
            for _ in 0..200 {
                for answer in bench.append(2) {
                    match answer {
                        Ok(()) => {}
                        Err(AppendError::DiskFull { .. }) => refused += 1,
                        Err(error) => panic!("{operation:?}, {errno}: {error}"),
                    }
                }
            }
            assert_eq!(bench.disk.fired(), fired + 1);
            assert!(refused > 0);
            bench.check_reader();
            bench.disk.power_loss(6);
            bench.reopen();
        }
    }
}

#[test]
fn damage_that_opening_found_is_known_by_its_own_bounds() {
    let bench = sound_log(7);
    let paths = segment_paths(&bench.disk);
    assert!(paths.len() > 3);
    // A segment is missing before the damage.
    bench.disk.remove(&paths[1]).unwrap();
    for path in &paths[2..] {
        let at = super::segment::FRAMES_AT as usize + 20;
        bench.disk.tamper(path, |content| content[at] ^= 0x10);
    }
    let disk = Arc::new(bench.disk.clone());
    let (wal, report) = Wal::open(disk, options(), Metrics::default(), &mut |_, _| {}).unwrap();
    let is_missing = |damage: &&Damage| damage.reason == Reason::Missing;
    assert!(report.damage.iter().any(|damage| is_missing(&damage)));
    let expected: BTreeMap<u64, u64> = report
        .damage
        .iter()
        .filter(|damage| !is_missing(damage))
        .map(|damage| damage.segment.0 + damage.offset)
        .map(|start| {
            let of = |damage: &&Damage| damage.segment.0 + damage.offset == start;
            (start, start + report.damage.iter().find(of).unwrap().bytes)
        })
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(
        *super::writer::lock(&wal.owner.shared.known_damage),
        expected
    );
}

#[test]
fn the_reserve_of_the_disk_is_kept() {
    let mut bench = Bench::new(4);
    bench.reopen();
    let disk = Arc::new(bench.disk.clone());
    let options = Options {
        directory: PathBuf::from("/other"),
        disk_reserve: DiskReserve::Bytes(50_000),
        ..options()
    };
    let (wal, _) = Wal::open(disk, options, Metrics::default(), &mut |_, _| {}).unwrap();
    bench.disk.set_capacity(Some(100_000));
    let first = bench.runtime.block_on(wal.reserve(30_000)).unwrap();
    let second = bench.runtime.block_on(wal.reserve(30_000));
    assert!(matches!(
        second,
        Err(AppendError::DiskFull {
            free: 100_000,
            reserve: 50_000
        })
    ));
    drop(first);
    bench.runtime.block_on(wal.reserve(30_000)).unwrap();
}

#[test]
fn positions_go_on_when_everything_was_trimmed() {
    let mut bench = Bench::new(5);
    bench.reopen();
    for _ in 0..5 {
        bench.append(2);
        bench.roll();
        for _ in 0..3 {
            bench.trim();
        }
        let wal = bench.wal.clone().unwrap();
        assert!(wal.bytes() < 5000, "{} bytes are left", wal.bytes());
        assert_eq!(wal.trimmable(wal.durable()), []);
        drop(wal);
        bench.reopen();
        bench.reopen();
    }
}

#[test]
fn new_frames_go_beyond_what_the_caller_remembers() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let disk = Arc::new(SimDisk::new());
    let remembered = Position(1_000_000);
    let (wal, _) = Wal::open_beyond(
        disk,
        options(),
        Metrics::default(),
        remembered,
        &mut |_, _| {},
    )
    .unwrap();
    assert!(wal.durable() > remembered);
    let mut batch = Batch::new();
    batch.push(b"x");
    let permit = runtime.block_on(wal.reserve(batch.bytes())).unwrap();
    let range = runtime.block_on(permit.append(batch)).unwrap();
    assert!(range.start > remembered);
}

/// A log of several segments, closed, and its frames.
fn sound_log(seed: u64) -> Bench {
    let mut bench = Bench::new(seed);
    bench.reopen();
    for _ in 0..30 {
        bench.append(2);
    }
    bench.wal = None;
    bench
}

fn segment_paths(disk: &SimDisk) -> Vec<PathBuf> {
    let mut paths = disk.paths();
    paths.retain(|path| path.parent() == Some(&directory()));
    paths
}

/// Damages one file at random; gives the positions that were touched.
fn damage(disk: &SimDisk, random: &mut Random) -> Range<u64> {
    let paths = segment_paths(disk);
    let path = &paths[random.below(paths.len() as u64) as usize];
    let base = base_of(path);
    let bytes = disk.content(path).len() as u64;
    let mut at = random.below(bytes);
    let range = match random.below(6) {
        0 => {
            disk.tamper(path, |content| content[at as usize] ^= 1 << random.below(8));
            at..at + 1
        }
        1 => {
            disk.tamper(path, |content| content.truncate(at as usize));
            at..bytes
        }
        2 => {
            at -= at % 4096;
            let end = (at + 4096).min(bytes);
            disk.tamper(path, |content| content[at as usize..end as usize].fill(0));
            at..end
        }
        3 => {
            let end = (at + 700).min(bytes);
            disk.tamper(path, |content| {
                for byte in &mut content[at as usize..end as usize] {
                    *byte = random.next() as u8;
                }
            });
            at..end
        }
        4 => {
            // Another part of the same file stands here: intact frames in a wrong place.
            let end = (at + 900).min(bytes);
            let from = random.below(bytes - (end - at) + 1) as usize;
            disk.tamper(path, |content| {
                content.copy_within(from..from + (end - at) as usize, at as usize);
            });
            at..end
        }
        _ => {
            disk.put(path, None);
            0..bytes
        }
    };
    base + range.start..base + range.end
}

fn base_of(path: &Path) -> u64 {
    super::segment::base_of(path.file_name().unwrap().to_str().unwrap()).unwrap()
}

fn is_touched(at: &Position, payload: &[u8], touched: &[Range<u64>]) -> bool {
    let end = at.0 + (FRAME_HEADER_BYTES + payload.len()) as u64;
    touched
        .iter()
        .any(|range| range.start < end && at.0 < range.end)
}

/// The header stands twice: losing both copies loses the segment.
fn lost_headers(touched: &[Range<u64>], bases: &[u64]) -> Vec<u64> {
    let both = |base: &u64| {
        let hit = |from: u64, to: u64| {
            touched
                .iter()
                .any(|range| range.start < base + to && base + from < range.end)
        };
        hit(0, 40) && hit(4096, 4136)
    };
    bases.iter().copied().filter(both).collect()
}

#[test]
fn damage_costs_no_more_than_the_damaged_frames() {
    let seeds = campaign::seeds(500);
    let mut lossy = 0;
    for seed in seeds.clone() {
        let mut bench = sound_log(seed % 10);
        let bases: Vec<u64> = segment_paths(&bench.disk)
            .iter()
            .map(|path| base_of(path))
            .collect();
        assert!(bases.len() > 2);
        let originals: BTreeMap<u64, Vec<u8>> = segment_paths(&bench.disk)
            .iter()
            .map(|path| (base_of(path), bench.disk.content(path)))
            .collect();
        let mut random = Random(seed);
        let touched: Vec<Range<u64>> = (0..1 + seed % 2)
            .map(|_| damage(&bench.disk, &mut random))
            .collect();
        let changed = segment_paths(&bench.disk)
            .iter()
            .filter(|path| originals[&base_of(path)] != bench.disk.content(path))
            .count()
            + (bases.len() - segment_paths(&bench.disk).len());
        let lost_segments = lost_headers(&touched, &bases);
        let in_lost_segment = |at: &Position| {
            let index = bases.partition_point(|base| *base <= at.0);
            lost_segments.contains(&bases[index - 1])
        };
        let before = std::mem::take(&mut bench.model.owed);
        bench.at_least = bench.model.highest;
        let recovery = bench.open().expect("a damaged log opens");
        let mut lost = 0;
        for (at, payload) in &before {
            if bench.model.owed.get(at) == Some(payload) {
                continue;
            }
            assert!(!bench.model.owed.contains_key(at));
            assert!(
                is_touched(at, payload, &touched) || in_lost_segment(at),
                "seed {seed}: the frame at {at:?} is lost, only {touched:?} was damaged; {recovery:?}"
            );
            lost += 1;
        }
        let told = recovery.torn_bytes + recovery.damaged_bytes + recovery.missing_bytes;
        // What nobody can tell: the newest end is gone at a frame's edge, or the newest or oldest segment altogether.
        let first_or_last_gone = touched
            .iter()
            .any(|range| bases.first() == Some(&range.start) || range.end > *bases.last().unwrap());
        if changed > 0 && !first_or_last_gone {
            assert!(told > 0, "seed {seed}: {touched:?} was not noticed");
        }
        let copies: u64 = bench
            .disk
            .paths()
            .iter()
            .filter(|path| path.starts_with(directory().join("quarantine")))
            .map(|path| bench.disk.content(path).len() as u64)
            .sum();
        assert_eq!(
            copies,
            recovery.damaged_bytes + recovery.torn_bytes_quarantined,
            "seed {seed}"
        );
        lossy += u64::from(lost > 0);
        bench.check_reader();
        assert!(bench.append(2).iter().all(Result::is_ok));
        bench.check_reader();
        bench.reopen();
    }
    campaign::enough("damage", &seeds, lossy, 0.5);
}

#[test]
fn damage_at_run_time_is_skipped_named_and_counted_once() {
    let seeds = campaign::seeds(100);
    for seed in seeds.clone() {
        let bench = sound_log(seed % 10);
        let metrics = Metrics::default();
        let disk = Arc::new(bench.disk.clone());
        let (wal, _) = Wal::open(disk, options(), metrics.clone(), &mut |_, _| {}).unwrap();
        let mut random = Random(seed);
        let paths = segment_paths(&bench.disk);
        let path = &paths[random.below(paths.len() as u64) as usize];
        let bytes = bench.disk.content(path).len() as u64;
        let at = super::segment::FRAMES_AT + random.below(bytes - super::segment::FRAMES_AT);
        bench
            .disk
            .tamper(path, |content| content[at as usize] ^= 0x10);
        let hit = base_of(path) + at;
        let touched = hit..hit + 1;
        let mut counted = 0;
        for _ in 0..2 {
            let mut reader = wal.reader();
            let mut next = wal.start();
            let mut seen = BTreeMap::new();
            loop {
                let chunk = reader.read(next, 3000).unwrap();
                if chunk.is_empty() {
                    break;
                }
                next = chunk.next;
                seen.extend(chunk.iter().map(|(at, payload)| (at, payload.to_vec())));
            }
            for (at, payload) in &bench.model.owed {
                assert_eq!(
                    seen.get(at) == Some(payload),
                    !is_touched(at, payload, std::slice::from_ref(&touched))
                );
            }
            let all: Vec<Position> = bench.model.owed.keys().copied().collect();
            let mut damaged = 0;
            let each = &mut |at, payload: Result<&[u8], FrameError>| match payload {
                Ok(payload) => assert_eq!(bench.model.owed[&at], payload),
                Err(error) => {
                    assert_eq!(error, FrameError::Damaged);
                    damaged += 1;
                }
            };
            reader.read_each(&mut all.into_iter(), each).unwrap();
            assert_eq!(damaged, 1);
            if counted == 0 {
                counted = metrics.quarantined_bytes.get();
            }
            assert!(counted > 0);
            assert_eq!(metrics.quarantined_bytes.get(), counted);
        }
    }
    campaign::enough("damage", &seeds, campaign::count_of(&seeds), 1.0);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_costs_its_end_alone() {
    let bench = sound_log(1);
    let metrics = Metrics::default();
    let disk = Arc::new(bench.disk.clone());
    let (wal, _) = Wal::open(disk, options(), metrics.clone(), &mut |_, _| {}).unwrap();
    let path = &segment_paths(&bench.disk)[1];
    let bytes = bench.disk.content(path).len() as u64;
    bench
        .disk
        .tamper(path, |content| content.truncate(bytes as usize - 1000));
    let touched = base_of(path) + bytes - 1000..base_of(path) + bytes;
    let mut reader = wal.reader();
    let mut next = wal.start();
    let mut seen = BTreeMap::new();
    loop {
        let chunk = reader.read(next, 3000).unwrap();
        if chunk.is_empty() {
            break;
        }
        next = chunk.next;
        seen.extend(chunk.iter().map(|(at, payload)| (at, payload.to_vec())));
    }
    for (at, payload) in &bench.model.owed {
        let whole = !is_touched(at, payload, std::slice::from_ref(&touched));
        assert_eq!(seen.get(at) == Some(payload), whole);
    }
    assert!(metrics.quarantined_bytes.get() >= 1000);
}

#[test]
fn a_sector_that_cannot_be_read_costs_the_frames_in_its_page() {
    let seeds = campaign::seeds(50);
    for seed in seeds.clone() {
        let mut bench = sound_log(seed % 10);
        let mut random = Random(seed);
        let paths = segment_paths(&bench.disk);
        let path = &paths[random.below(paths.len() as u64 - 1) as usize];
        let bytes = bench.disk.content(path).len() as u64;
        let frames_at = super::segment::FRAMES_AT;
        let broken = frames_at + random.below(bytes - frames_at);
        bench.disk.break_byte(path, broken);
        let page = base_of(path) + broken - broken % 4096;
        let touched = page..page + 4096;
        let before = std::mem::take(&mut bench.model.owed);
        let recovery = bench.open().expect("a log with a broken sector opens");
        assert!(recovery.damaged_bytes > 0);
        for (at, payload) in &before {
            let lost = !bench.model.owed.contains_key(at);
            assert!(!lost || is_touched(at, payload, std::slice::from_ref(&touched)));
        }
        assert!(before.len() > bench.model.owed.len());
        assert!(bench.append(1).iter().all(Result::is_ok));
    }
    campaign::enough("damage", &seeds, campaign::count_of(&seeds), 1.0);
}

#[test]
fn frames_written_into_a_payload_are_never_taken_for_frames() {
    let mut bench = Bench::new(9);
    bench.reopen();
    bench.append(3);
    let path = segment_paths(&bench.disk).pop().unwrap();
    let frames_at = super::segment::FRAMES_AT as usize;
    // What stands in the file, sums and all, comes back as a payload, several times.
    let stale = bench.disk.content(&path)[frames_at..].repeat(3);
    let mut payload = bench.model.next_number.to_le_bytes().to_vec();
    payload.extend_from_slice(&stale);
    bench
        .model
        .tried
        .insert(bench.model.next_number, payload.clone());
    bench.model.next_number += 1;
    let mut batch = Batch::new();
    batch.push(&payload);
    let wal = bench.wal.clone().unwrap();
    let permit = bench.runtime.block_on(wal.reserve(batch.bytes())).unwrap();
    let range = bench.runtime.block_on(permit.append(batch)).unwrap();
    drop(wal);
    bench.append(1);
    let honest: Vec<Position> = bench.model.owed.keys().copied().collect();
    let path = segment_paths(&bench.disk).pop().unwrap();
    let header = (range.start.0 - base_of(&path)) as usize;
    bench.disk.tamper(&path, |content| content[header + 5] ^= 1);
    let recovery = bench.open().unwrap();
    assert_eq!(recovery.damaged_bytes, range.end.0 - range.start.0);
    let seen: Vec<Position> = bench.model.owed.keys().copied().collect();
    assert_eq!(seen, honest);
}

#[test]
fn foreign_files_are_left_alone() {
    let mut bench = sound_log(1);
    let foreign = directory().join("notes.txt");
    bench.disk.put(&foreign, Some(b"mine".to_vec()));
    let garbage = directory().join(super::segment::name(1));
    bench.disk.put(&garbage, Some(vec![0xaa; 9000]));
    let recovery = bench.open().unwrap();
    assert_eq!(recovery.foreign_files, 1);
    assert_eq!(recovery.damaged_bytes, 9000);
    assert_eq!(bench.disk.content(&foreign), b"mine");
    assert_eq!(bench.disk.content(&garbage), [0xaa; 9000]);
}

#[test]
fn a_segment_of_a_later_version_is_refused_and_left_as_it_is() {
    let bench = sound_log(1);
    let path = segment_paths(&bench.disk).pop().unwrap();
    let base = base_of(&path);
    bench.disk.tamper(&path, |content| {
        for at in [0, 4096] {
            let header = &mut content[at..at + 40];
            header[8] = 2;
            header[12..16].fill(0);
            let sum = crc32fast::hash(header);
            header[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        content.extend_from_slice(b"something new");
    });
    let before: Vec<_> = bench
        .disk
        .paths()
        .iter()
        .map(|path| bench.disk.content(path))
        .collect();
    let disk = Arc::new(bench.disk.clone());
    let error = Wal::open(disk, options(), Metrics::default(), &mut |_, _| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "/log/{base:020}.wal is in format version 2, this program knows up to 1: use the newer program"
        )
    );
    let after: Vec<_> = bench
        .disk
        .paths()
        .iter()
        .map(|path| bench.disk.content(path))
        .collect();
    assert_eq!(before, after);
}

#[test]
fn a_torn_tail_is_cut_and_kept_in_quarantine_unless_it_is_zeroes() {
    for (tail, quarantined) in [(vec![0; 777], 0), (vec![7; 777], 777)] {
        let mut bench = sound_log(2);
        let path = segment_paths(&bench.disk).pop().unwrap();
        let good = bench.disk.content(&path).len();
        bench
            .disk
            .tamper(&path, |content| content.extend_from_slice(&tail));
        let recovery = bench.open().unwrap();
        assert_eq!(recovery.torn_bytes, 777);
        assert_eq!(recovery.torn_bytes_quarantined, quarantined);
        assert_eq!(recovery.damaged_bytes, 0);
        assert_eq!(bench.disk.content(&path).len(), good);
        let name = format!("{:020}-{good}-777", base_of(&path));
        let copy = directory().join("quarantine").join(name);
        assert_eq!(bench.disk.paths().contains(&copy), quarantined > 0);
        assert_eq!(bench.open().unwrap().torn_bytes, 0);
    }
}
