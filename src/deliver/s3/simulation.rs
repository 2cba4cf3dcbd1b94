//! The way from acceptance to object on a disk that crashes, loses power, fails and fills up.
//!
//! The real journal, ledger and [`Plan`]; only the bucket is a map that, like S3, survives whatever happens to the daemon. A life of the daemon
//! is a script drawn from a seed; it ends when the disk does. Then the disk recovers and the next life begins, and a last one, undisturbed,
//! drains. What must hold at the end:
//!
//! - every event that was answered is in exactly one object (I1), every other in at most one (I2);
//! - an upload done again has the same events as the first (I4);
//! - opening always works (I6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::plan::{Now, Plan};
use crate::batch::Limits;
use crate::campaign::{count, count_of, enough, seeds};
use crate::clock::WallMillis;
use crate::event::{Meta, Record};
use crate::ledger::{self, Entry, Object, Replay, SealedBatch, Settled, TrailState};
use crate::trail::tests::{event, trail};
use crate::wal::sim::{Operation, Random, SimDisk};
use crate::wal::{AppendError, Batch, DiskReserve, Metrics, Options, Position, Wal};

const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-2"];

/// What outlives a daemon.
#[derive(Default)]
struct World {
    disk: SimDisk,
    /// Key to the events in it.
    bucket: BTreeMap<String, Vec<u64>>,
    /// Events whose sender was told that they are safe.
    answered: BTreeSet<u64>,
    next_event: u64,
    /// Seconds; it goes on from life to life.
    clock: u64,
    uploads_repeated: u64,
}

/// A daemon's life, until its disk ends it.
struct Life<'a> {
    world: &'a mut World,
    journal: Wal,
    ledger: Wal,
    plan: Plan,
    ready: VecDeque<SealedBatch>,
}

/// Why a life ended.
#[derive(Debug)]
struct Death;

impl From<AppendError> for Death {
    fn from(_: AppendError) -> Self {
        Death
    }
}

fn options(directory: &str) -> Options {
    Options {
        directory: PathBuf::from("/data").join(directory),
        segment_bytes: 16 << 10,
        max_bytes: 1 << 20,
        disk_reserve: DiskReserve::None,
        queue_bytes: 1 << 20,
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn append(log: &Wal, batch: Batch) -> Result<Position, AppendError> {
    block_on(async { Ok(log.reserve(batch.bytes()).await?.append(batch).await?.start) })
}

impl<'a> Life<'a> {
    fn begin(world: &'a mut World) -> Result<Self, Death> {
        let disk: Arc<SimDisk> = Arc::new(world.disk.clone());
        let mut replay = Replay::default();
        let (ledger, _) = Wal::open(
            disk.clone(),
            options("ledger"),
            Metrics::default(),
            &mut |at, frame| {
                replay.take(at, frame);
            },
        )
        .map_err(|_| Death)?;
        let beyond = replay.highest_position();
        let (journal, _) = Wal::open_beyond(
            disk,
            options("journal"),
            Metrics::default(),
            beyond,
            &mut |_, _| (),
        )
        .map_err(|_| Death)?;
        let trail = Arc::new(trail());
        let state = replay.remove(&trail.arn()).unwrap_or_else(|| TrailState {
            horizon: journal.durable(),
            ..TrailState::default()
        });
        let ready = state.pending.values().cloned().collect();
        let limits = Limits {
            max_age: Duration::from_secs(60),
            max_bytes: 2000,
        };
        let plan = Plan::new(trail, [9; 16], limits, state);
        let mut life = Self {
            world,
            journal,
            ledger,
            plan,
            ready,
        };
        life.plan.checkpoint();
        life.write()?;
        Ok(life)
    }

    fn now(&self) -> Now {
        let seconds = self.world.clock;
        Now {
            wall: WallMillis(seconds as i64 * 1000),
            monotonic: Duration::from_secs(1_000_000 + seconds),
        }
    }

    /// One step of a script.
    fn step(&mut self, random: &mut Random) -> Result<(), Death> {
        self.world.clock += random.below(7);
        match random.below(12) {
            0..=3 => self.accept(1 + random.below(5), random),
            4..=6 => self.follow(),
            7 => {
                self.plan.cut_due(self.now());
                Ok(())
            }
            8 => self.write(),
            9..=10 => self.upload(random),
            _ => self.trim(random),
        }
    }

    fn accept(&mut self, count: u64, random: &mut Random) -> Result<(), Death> {
        let mut batch = Batch::new();
        let first = self.world.next_event;
        self.world.next_event += count;
        for id in first..first + count {
            let meta = Meta {
                accepted_at: self.now().wall,
                ..event("111122223333", REGIONS[random.below(3) as usize])
            };
            batch.push_with(|out| {
                meta.encode(out);
                out.extend_from_slice(
                    format!(
                        "{{\"id\":{id},\"pad\":\"{}\"}}",
                        "x".repeat(random.below(300) as usize)
                    )
                    .as_bytes(),
                );
            });
        }
        match append(&self.journal, batch) {
            Ok(_) => {
                self.world.answered.extend(first..first + count);
                Ok(())
            }
            // Refused, not broken: the sender is told 503.
            Err(AppendError::Full { .. } | AppendError::DiskFull { .. }) => Ok(()),
            Err(_) => Err(Death),
        }
    }

    fn follow(&mut self) -> Result<(), Death> {
        if self.plan.next() >= self.journal.durable() {
            return Ok(());
        }
        let chunk = self
            .journal
            .reader()
            .read(self.plan.next(), 1024)
            .map_err(|_| Death)?;
        for (position, record) in chunk.iter() {
            self.plan.take(position, record, self.now());
        }
        self.plan.advance(chunk.next);
        Ok(())
    }

    /// Writes the outbox and acts on it when it is durable, as the leg does.
    fn write(&mut self) -> Result<(), Death> {
        let entries = self.plan.take_outbox();
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.push(&ledger::encode(&entries));
        append(&self.ledger, batch)?;
        for entry in entries {
            match entry {
                Entry::Sealed(batch) => self.ready.push_back(batch),
                Entry::Settled(settled) => self.plan.settle(settled),
                Entry::Carried(_) | Entry::Checkpoint(_) | Entry::Forgotten { .. } => {}
            }
        }
        Ok(())
    }

    fn upload(&mut self, random: &mut Random) -> Result<(), Death> {
        let Some(batch) = self.ready.pop_front() else {
            return Ok(());
        };
        let mut events = Vec::new();
        let mut lost = 0;
        self.journal
            .reader()
            .read_each(&mut batch.positions.iter(), &mut |_, frame| match frame {
                Ok(frame) => events.push(id_of(Record::decode(frame).unwrap().json)),
                Err(_) => lost += 1,
            })
            .map_err(|_| Death)?;
        if let Some(first) = self.world.bucket.get(&batch.key) {
            self.world.uploads_repeated += 1;
            assert!(
                lost > 0 || *first == events,
                "redo of {} has {events:?} instead of {first:?}",
                batch.key
            );
        } else if !events.is_empty() {
            self.world.bucket.insert(batch.key.clone(), events.clone());
        }
        // The answer of some uploads is lost: they are tried again.
        if random.below(8) == 0 {
            self.ready.push_back(batch);
            return Ok(());
        }
        let object = Object {
            bucket: batch.bucket.clone(),
            key: batch.key.clone(),
            sha256: String::new(),
            etag: None,
            bytes: 1,
            events: events.len() as u32,
            oldest_event_time: 0,
            newest_event_time: 0,
        };
        self.plan.finish(Settled {
            trail: batch.trail,
            stream: batch.stream,
            first: batch.first,
            object: Some(object),
            lost,
            settled_at: self.now().wall,
        });
        Ok(())
    }

    fn trim(&mut self, random: &mut Random) -> Result<(), Death> {
        if random.below(4) == 0 {
            self.write()?;
            self.journal.roll();
            self.ledger.roll();
            let before = self.ledger.durable();
            self.plan.checkpoint();
            self.write()?;
            for segment in self.ledger.trimmable(before) {
                self.ledger.remove_oldest(segment).map_err(|_| Death)?;
            }
        }
        for segment in self.journal.trimmable(self.plan.horizon()) {
            self.journal.remove_oldest(segment).map_err(|_| Death)?;
        }
        Ok(())
    }

    fn live(mut self, steps: u64, random: &mut Random) -> Result<(), Death> {
        for _ in 0..steps {
            self.step(random)?;
        }
        Ok(())
    }

    fn drain(mut self, random: &mut Random) -> Result<(), Death> {
        while self.plan.next() < self.journal.durable() {
            self.follow()?;
        }
        self.plan.cut_all(self.now());
        self.write()?;
        while !self.ready.is_empty() {
            self.upload(random)?;
            self.write()?;
        }
        assert!(self.plan.state().pending.is_empty() && !self.plan.has_open());
        assert_eq!(self.plan.horizon(), self.plan.next());
        Ok(())
    }
}

fn id_of(json: &[u8]) -> u64 {
    serde_json::from_slice::<serde_json::Value>(json).unwrap()["id"]
        .as_u64()
        .unwrap()
}

impl World {
    fn live(&mut self, steps: u64, random: &mut Random) {
        if let Ok(life) = Life::begin(self) {
            let _ = life.live(steps, random);
        }
    }

    /// A last life on a disk that behaves; then the books are checked.
    fn settle(mut self, random: &mut Random) -> Self {
        Life::begin(&mut self)
            .expect("a healthy disk can always be opened")
            .drain(random)
            .expect("drains");
        let mut seen = BTreeSet::new();
        for (key, events) in &self.bucket {
            for event in events {
                assert!(
                    seen.insert(*event),
                    "event {event} is doubled, once in {key}"
                );
            }
        }
        let lost: Vec<_> = self.answered.difference(&seen).collect();
        assert!(lost.is_empty(), "answered and lost: {lost:?}");
        self
    }
}

/// Runs `lives` that each end as `end` says, for one seed.
fn campaign(
    seed: u64,
    lives: u64,
    mut end: impl FnMut(&SimDisk, &mut Random),
    death: impl Fn(&SimDisk, &mut Random),
) -> World {
    let mut random = Random(seed);
    let mut world = World::default();
    for _ in 0..lives {
        end(&world.disk, &mut random);
        let steps = 20 + random.below(60);
        world.live(steps, &mut random);
        death(&world.disk, &mut random);
    }
    world.settle(&mut random)
}

#[test]
fn a_crash_at_every_file_operation_loses_and_doubles_nothing() {
    const STEPS: u64 = 200;
    for script in seeds(1) {
        let script = || Random(script + 1);
        let operations = {
            let mut world = World::default();
            world.live(STEPS, &mut script());
            assert!(world.answered.len() > 100);
            world.disk.operations()
        };
        assert!(
            operations > 150,
            "the script touches the disk: {operations}"
        );
        for operation in 0..operations {
            let mut world = World::default();
            world.disk.stop_at(operation);
            world.live(STEPS, &mut script());
            world.disk.restart();
            let mut random = Random(operation);
            world.live(30, &mut random);
            world.disk.restart();
            world.settle(&mut random);
        }
        count("crash-points", operations, operations);
    }
}

#[test]
fn power_losses_lose_and_double_nothing() {
    let seeds = seeds(2000);
    let mut repeated = 0;
    for seed in seeds.clone() {
        let world = campaign(
            seed,
            3,
            |disk, random| disk.stop_at(disk.operations() + random.below(150)),
            |disk, random| disk.power_loss(random.next()),
        );
        repeated += world.uploads_repeated;
    }
    let lives = 3 * count_of(&seeds);
    count("power-loss", lives, lives);
    assert!(
        repeated * 20 >= count_of(&seeds),
        "uploads were in doubt now and then: {repeated}"
    );
}

#[test]
fn failed_writes_and_syncs_are_never_answered_and_lose_nothing() {
    const KINDS: [Operation; 3] = [
        Operation::Write,
        Operation::SyncData,
        Operation::SyncDirectory,
    ];
    let seeds = seeds(300);
    let mut fired = 0;
    for seed in seeds.clone() {
        let world = campaign(
            seed,
            3,
            |disk, random| {
                let kind = KINDS[random.below(3) as usize];
                disk.fail(kind, 1 + random.below(60), Errno::IO);
            },
            |disk, random| disk.power_loss(random.next()),
        );
        fired += world.disk.fired();
    }
    enough("io-errors", &seeds, fired, 0.3);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let seeds = seeds(100);
    for seed in seeds.clone() {
        let mut random = Random(seed);
        let mut world = World::default();
        world.live(40, &mut random);
        world.disk.restart();
        world.disk.set_capacity(Some(6_000 + random.below(30_000)));
        world.live(60, &mut random);
        world.disk.restart();
        world.disk.set_capacity(None);
        world.settle(&mut random);
    }
    count("disk-full", count_of(&seeds), count_of(&seeds));
}
