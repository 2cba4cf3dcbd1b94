//! The whole daemon, simulated: what [`Daemon::start`](super::Daemon::start) builds and wires, on one thread and tokio's paused time, with a disk that crashes, loses power, fails and
//! fills up under its logs ([`SimDisk`]), and an AWS that answers late, wrongly or not at all ([`aws`]).
//!
//! A world has many lives. In each a daemon starts, senders send, faults strike, and it ends: killed at any moment or in the middle of a file operation,
//! with or without the machine's power, or stopped. Safety is held to after each life, with everything still broken. In the last one the
//! faults are over, and all must come to rest by itself. The seed decides everything ([`crate::simulation`]): one that failed fails again.
//!
//! Two things are not simulated. The small files of `data_dir` (cursors, sealed digests, keys, fingerprints, dead letters) are real ones in a temporary directory:
//! whatever the daemon has written of them stays, as they are synced before anything follows from them. And nobody connects to the listeners: senders call what is behind them.
//! There is no event history, whose database would have threads and files of its own.

mod aws;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{Context as Sum, SHA256};
use rustix::io::Errno;
use serde_json::Value;
use tokio::time::Instant;

use self::aws::Aws;
use super::{Daemon, DaemonError};
use crate::campaign;
use crate::cli::verify::tests::{Memory, verified};
use crate::clock::WallMillis;
use crate::config::{self, Config};
use crate::deliver::view::Facts;
use crate::digest::Location;
use crate::digest::keys::PublicKey;
use crate::digest::verify::Metadata;
use crate::ingest::{Accounts, Ingest, Origin};
use crate::simulation::{self, Machine, Running};
use crate::wal::sim::{Operation, Random, SimDisk};

/// 2026-05-01T00:12:34Z.
const BEGIN: WallMillis = WallMillis(1_777_594_354_000);
const REGIONS: [&str; 3] = ["us-east-1", "eu-west-1", "ap-southeast-2"];
const BUCKET: &str = "audit";

/// What happens to events once the faults are over: so much simulated time may pass until all of them are where they belong.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What outlives a daemon.
struct World {
    seed: u64,
    disk: SimDisk,
    aws: Aws,
    senders: Arc<Mutex<Senders>>,
    config: Config,
    /// Faults that struck, besides those of the disk and of AWS.
    ends: u64,
    jumps: u64,
    directory: tempfile::TempDir,
    _running: Running,
}

/// What the senders know.
#[derive(Default)]
struct Senders {
    next: u64,
    /// What was sent, by its number.
    sent: BTreeMap<u64, String>,
    /// What was answered 200 for.
    answered: BTreeSet<u64>,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    PowerLoss,
}

fn draw(bound: u64) -> u64 {
    simulation::with(|machine| machine.random.below(bound)).expect("the simulation runs")
}

impl World {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let aws = Aws::default();
        let machine = Machine {
            random: Random(seed),
            wall: BEGIN,
            passed: Duration::ZERO,
            booted: None,
            keys_made: 0,
            sdk: aws.sdk(),
        };
        Self {
            seed,
            disk: SimDisk::new(),
            aws,
            senders: Arc::default(),
            config: config_in(&directory.path().join("data")),
            ends: 0,
            jumps: 0,
            directory,
            _running: simulation::start(machine),
        }
    }

    /// Runs something on paused time that begins where the life before ended.
    fn run<T>(&self, life: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let lived = runtime.block_on(async {
            simulation::with(|machine| machine.booted = Some(Instant::now()));
            let lived = life.await;
            simulation::with(|machine| {
                machine.passed = machine.elapsed();
                machine.booted = None;
            });
            lived
        });
        drop(runtime);
        lived
    }

    /// One life among faults.
    fn live(&mut self, end: End) {
        self.aws.state().trouble = [0, 5, 30, 80][draw(4) as usize];
        self.aws.state().is_silent = draw(4) == 0;
        match draw(6) {
            0 => self.disk.stop_at(self.disk.operations() + draw(300)),
            1 => self
                .disk
                .fail(Operation::SyncData, 1 + draw(200), Errno::IO),
            2 => self.disk.fail(Operation::Write, 1 + draw(200), Errno::IO),
            3 => self.disk.set_capacity(Some(20_000 + draw(200_000))),
            _ => {}
        }
        let span = match draw(4) {
            0 => Duration::from_millis(draw(5_000)),
            1 => Duration::from_secs(draw(3 * 3600)),
            _ => Duration::from_millis(draw(300_000)),
        };
        self.run(async {
            let Ok(mut daemon) = self.start().await else {
                return self.disk.stop();
            };
            let senders = self.send(&daemon, span);
            tokio::select! {
                biased;
                _ = daemon.failed() => {}
                () = self.disk_stops() => {}
                () = tokio::time::sleep(span) => {}
            }
            if end == End::Stop {
                daemon.stop().await;
            } else {
                // What is on its way when the process dies comes to nothing.
                self.disk.stop();
                drop(daemon);
            }
            drop(senders);
        });
        self.ends += u64::from(end != End::Stop);
        match end {
            End::PowerLoss => self.disk.power_loss(draw(u64::MAX)),
            End::Stop | End::Kill => self.disk.restart(),
        }
        self.disk.set_capacity(None);
        self.check_safety();
        // Now and then the machine is off for weeks: digests are behind, and their keys out of date.
        if draw(8) == 0 {
            let off = Duration::from_secs(draw(40 * 86_400));
            simulation::with(|machine| machine.passed += off);
        }
        // And its clock is wrong in the next life.
        self.set_clock();
    }

    /// The clock jumps, by up to an hour or up to a day, forwards or back; half of the times it is set right.
    fn set_clock(&mut self) {
        let span = [0, 0, 3_600_000, 86_400_000][draw(4) as usize];
        let by = draw(2 * span + 1) as i64 - span as i64;
        simulation::with(|machine| machine.wall = WallMillis(BEGIN.0 + by));
        self.jumps += u64::from(by != 0);
    }

    async fn start(&self) -> Result<Daemon, DaemonError> {
        Daemon::start_on(&self.config, Arc::new(self.disk.clone())).await
    }

    async fn disk_stops(&self) {
        while !self.disk.is_stopped() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Three senders, who send again what they were not answered for.
    fn send(&self, daemon: &Daemon, span: Duration) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        let pause = (span.as_millis() as u64 / 40).max(20);
        for _ in 0..3 {
            let (ingest, senders) = (daemon.ingest.clone(), self.senders.clone());
            tasks.spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(draw(2 * pause))).await;
                    let numbers = new_events(&senders);
                    while !offer(&ingest, &senders, &numbers).await {
                        tokio::time::sleep(Duration::from_millis(1 + draw(2_000))).await;
                    }
                }
            });
        }
        tasks
    }

    /// The last life, without faults: everything comes to rest, and the digests prove it.
    fn settle(&mut self) {
        self.aws.state().trouble = 0;
        self.aws.state().is_silent = false;
        simulation::with(|machine| machine.wall = BEGIN);
        self.run(async {
            let daemon = self
                .start()
                .await
                .unwrap_or_else(|error| panic!("seed {}: {error:?}", self.seed));
            let left: Vec<u64> = {
                let senders = self.senders.lock().unwrap();
                let sent = senders.sent.keys();
                let left = sent.filter(|number| !senders.answered.contains(number));
                left.copied().collect()
            };
            for numbers in left.chunks(10) {
                assert!(offer(&daemon.ingest, &self.senders, numbers).await);
            }
            let began = Instant::now();
            while let Some(lacking) = self.lacking() {
                assert!(
                    began.elapsed() < PATIENCE,
                    "seed {}: {lacking} after {PATIENCE:?} without faults: {:?}",
                    self.seed,
                    facts(&daemon)
                );
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            // The window of the last file is over, and its digest written.
            tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
            self.check_books(&daemon);
            daemon.stop().await;
        });
        self.check_safety();
        self.check_digests();
    }

    /// Something that is not where it belongs yet.
    fn lacking(&self) -> Option<String> {
        let delivered = self.delivered();
        let aws = self.aws.state();
        let senders = self.senders.lock().unwrap();
        for number in &senders.answered {
            if !delivered.contains_key(number) {
                return Some(format!("event {number} is in no object"));
            }
        }
        let logged: BTreeSet<u64> = aws.logged.iter().filter_map(|it| number_of(it)).collect();
        let put: BTreeSet<u64> = aws.put.iter().filter_map(|it| number_of(it)).collect();
        for (place, there) in [("log group", logged), ("bus", put)] {
            if let Some(number) = senders.answered.difference(&there).next() {
                return Some(format!("event {number} is not in the {place}"));
            }
        }
        let published = aws.published.join("\n");
        let is_log = |key: &&String| key.contains("/CloudTrail/");
        let names = aws.objects.keys().filter(is_log);
        let names = names.map(|key| key.rsplit('/').next().unwrap_or_default());
        for name in names {
            if !published.contains(name) {
                return Some(format!("{name} was not published"));
            }
        }
        None
    }

    /// The events in the bucket with their records. Each is there once, in an object that is whole.
    fn delivered(&self) -> BTreeMap<u64, Value> {
        let seed = self.seed;
        let mut events = BTreeMap::new();
        let aws = self.aws.state();
        for (key, object) in &aws.objects {
            if !key.contains("/CloudTrail/") {
                continue;
            }
            let mut plain = Vec::new();
            let mut gzip = flate2::bufread::GzDecoder::new(&object.bytes[..]);
            gzip.read_to_end(&mut plain)
                .unwrap_or_else(|error| panic!("seed {seed}: {key} is torn: {error}"));
            let mut file: Value = serde_json::from_slice(&plain)
                .unwrap_or_else(|error| panic!("seed {seed}: {key} is torn: {error}"));
            for record in file["Records"].as_array_mut().unwrap() {
                let number = number_of(record["eventID"].as_str().unwrap()).unwrap();
                let region = record["awsRegion"].as_str().unwrap();
                assert!(key.contains(&format!("/{region}/")), "seed {seed}: {key}");
                let before = events.insert(number, record.take());
                assert!(
                    before.is_none(),
                    "seed {seed}: event {number} is twice in the bucket"
                );
            }
        }
        events
    }

    /// What holds at every moment: nothing is twice, torn, changed or made up.
    fn check_safety(&self) {
        let seed = self.seed;
        let violations = &self.aws.state().violations.clone();
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
        let senders = self.senders.lock().unwrap();
        for (number, record) in self.delivered() {
            let sent: Value = serde_json::from_str(&senders.sent[&number]).unwrap();
            for (name, value) in sent.as_object().unwrap() {
                assert_eq!(&record[name], value, "seed {seed}: event {number}, {name}");
            }
        }
    }

    /// At rest, what every leg was given is delivered.
    fn check_books(&self, daemon: &Daemon) {
        let seed = self.seed;
        for (target, facts) in facts(daemon) {
            let left = (facts.pending(), facts.dead_lettered());
            assert_eq!(left, (0, 0), "seed {seed}: {target}: {facts:?}");
        }
    }

    /// `traild verify` has nothing against the bucket, and every log file is in a digest.
    fn check_digests(&self) {
        let mut memory = Memory::default();
        let aws = self.aws.state();
        let mut logs = 0;
        for (path, object) in &aws.objects {
            let (bucket, key) = path.split_once('/').unwrap();
            logs += u64::from(key.contains("/CloudTrail/"));
            let metadata = |name: &str| object.metadata.get(name).cloned();
            let metadata = Metadata {
                signature: metadata("signature"),
                signature_algorithm: metadata("signature-algorithm"),
                backfill_generation_timestamp: metadata("backfill-generation-timestamp"),
            };
            let location = Location {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            };
            let at = BEGIN.unix_seconds() + object.at.as_secs() as i64;
            memory.put(&location, object.bytes.clone(), Some(metadata), at);
        }
        drop(aws);
        let now = simulation::elapsed().unwrap().as_secs() as i64 + BEGIN.unix_seconds();
        let keys = self.public_keys();
        let (failures, digests, named) =
            self.run(async move { verified(memory, BUCKET, keys, now).await });
        let seed = self.seed;
        assert!(failures.is_empty(), "seed {seed}: {failures:#?}");
        assert!(digests > 0 || logs == 0, "seed {seed}: no digests");
        assert_eq!(named, logs, "seed {seed}: log files in digests, and there");
    }

    fn public_keys(&self) -> Vec<PublicKey> {
        let files = std::fs::read_dir(self.config.key_dir()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let public = paths.filter(|path| path.to_string_lossy().ends_with("public.json"));
        public
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect()
    }

    fn faults(&self) -> u64 {
        self.ends + self.jumps + self.disk.fired() + self.aws.state().faults
    }

    /// A hash over every byte of the disk, of the files beside it and of the bucket, and all that was sent elsewhere.
    fn sum(&self) -> String {
        let top = self.directory.path();
        let mut sum = Sum::new(&SHA256);
        let mut add = |name: &str, bytes: &[u8]| {
            sum.update(format!("{name} {}\n", bytes.len()).as_bytes());
            sum.update(bytes);
        };
        let below = |path: &Path| path.strip_prefix(top).unwrap().display().to_string();
        for path in self.disk.paths() {
            add(&below(&path), &self.disk.content(&path));
        }
        for file in files_below(top) {
            // The lock names the process.
            if !file.ends_with("lock") {
                add(&below(&file), &std::fs::read(&file).unwrap());
            }
        }
        let aws = self.aws.state();
        for (key, object) in &aws.objects {
            add(key, &object.bytes);
            add("metadata", format!("{:?}", object.metadata).as_bytes());
        }
        for sent in aws.published.iter().chain(&aws.logged).chain(&aws.put) {
            add("sent", sent.as_bytes());
        }
        hex::encode(sum.finish())
    }
}

/// What every leg tells of itself, by its target.
fn facts(daemon: &Daemon) -> Vec<(String, Facts)> {
    let views = daemon.views.borrow();
    let sinks = views.iter().flat_map(|view| &view.sinks);
    sinks
        .map(|sink| (sink.target.clone(), sink.leg.facts()))
        .collect()
}

/// In order.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

fn config_in(data_dir: &Path) -> Config {
    let text = format!(
        r#"
            account_id = "111122223333"
            region = "us-east-1"
            data_dir = "{}"
            [listen]
            api = "127.0.0.1:0"
            ops = "127.0.0.1:0"
            [storage]
            kind = "s3"
            [aws]
            force_path_style = true
            [journal]
            segment_bytes = "16KiB"
            max_bytes = "4MiB"
            on_full = "reject"
            [delivery]
            max_bytes = "4KiB"
            [history]
            enabled = false
            [[trails]]
            name = "main"
            s3_bucket_name = "{BUCKET}"
            is_multi_region_trail = true
            enable_log_file_validation = true
            sns_topic_arn = "arn:aws:sns:us-east-1:111122223333:trail"
            cloud_watch_logs_log_group_arn = "arn:aws:logs:us-east-1:111122223333:log-group:trail:*"
            event_bus = "default"
        "#,
        data_dir.display()
    );
    let loaded = config::check(config::Source::EmbeddedDefault, &text, []);
    loaded
        .unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
        .config
}

/// A few new events, by their numbers.
fn new_events(senders: &Mutex<Senders>) -> Vec<u64> {
    let count = 1 + draw(5);
    let mut senders = senders.lock().unwrap();
    let first = senders.next;
    senders.next += count;
    for number in first..first + count {
        let region = REGIONS[draw(3) as usize];
        let padding = "x".repeat(draw(700) as usize);
        let time = WallMillis::now().rfc3339();
        let event = format!(
            r#"{{"eventVersion":"1.11","eventID":"{number:08}-0000-4000-8000-000000000000","eventTime":"{time}","eventSource":"s3.amazonaws.com","eventName":"PutObject","awsRegion":"{region}","recipientAccountId":"111122223333","requestParameters":{{"padding":"{padding}"}}}}"#
        );
        senders.sent.insert(number, event);
    }
    (first..first + count).collect()
}

/// Sends events. Whether they were taken.
async fn offer(ingest: &Ingest, senders: &Mutex<Senders>, numbers: &[u64]) -> bool {
    let body = {
        let senders = senders.lock().unwrap();
        let lines = numbers.iter().map(|number| senders.sent[number].clone());
        lines.collect::<Vec<_>>().join("\n")
    };
    let origin = Origin {
        account: None,
        region: None,
        peer: "203.0.113.7".to_owned(),
        accounts: Accounts::every(),
    };
    let answer = ingest.accept(body.into(), origin).await;
    let is_taken = answer.status() == 200;
    if is_taken {
        senders.lock().unwrap().answered.extend(numbers);
    } else {
        assert_eq!(answer.status(), 503, "{answer:?}");
    }
    is_taken
}

/// The number of an event, out of its ID, wherever that stands in `text`.
fn number_of(text: &str) -> Option<u64> {
    let (before, _) = text.split_once("-0000-4000-8000-000000000000")?;
    before.get(before.len().checked_sub(8)?..)?.parse().ok()
}

/// A world of a few lives, settled.
fn world(seed: u64, lives: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..lives {
        let end = [End::Stop, End::Kill, End::Kill, End::PowerLoss][draw(4) as usize];
        world.live(end);
    }
    world.settle();
    world
}

#[test]
fn whatever_strikes_the_daemon_nothing_is_lost_or_doubled_and_all_comes_to_rest() {
    /// They have found something: `verify` took the first windows of a chain, a second each while the clock caught up, for its usual ones.
    const TELLING: [u64; 3] = [
        2_333_035_306_000_000_064,
        2_333_035_306_000_000_105,
        2_333_035_306_000_000_306,
    ];
    let seeds = campaign::seeds(8);
    let mut faults = 0;
    for seed in TELLING.into_iter().chain(seeds.clone()) {
        let world = world(seed, 4);
        faults += world.faults();
    }
    campaign::enough("whole-daemon", &seeds, faults, 1.0);
}

#[test]
fn a_disk_that_only_says_that_it_has_synced_is_found_out() {
    let is_found_out = |seed: &u64| {
        let lived = std::panic::catch_unwind(|| {
            let mut world = World::new(*seed);
            world.disk.forget(Operation::SyncData);
            world.live(End::PowerLoss);
            world.settle();
        });
        lived.is_err()
    };
    assert!((0..20).any(|seed| is_found_out(&seed)));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in campaign::seeds(2) {
        let [first, again] = [(), ()].map(|()| world(seed, 3).sum());
        assert_eq!(first, again, "seed {seed}");
    }
}
