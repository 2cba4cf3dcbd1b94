//! A store that is down for long: gigabytes wait in the journal. What a start takes then, held against reading the same files once, and
//! what memory the drain takes.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Extras, Setup};
use crate::sink::Sink;
use crate::{Args, each_event_id, load, median, work};

const EVENTS_AT_A_TIME: usize = 200_000;
const STARTS: usize = 5;

pub fn measure(args: &Args, home: &Path, gigabytes: u64) -> Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/invictus.ndjson.gz");
    let sink = Sink::start()?;
    sink.set_down(true);
    let home = home.join("daemon");
    let setup = Setup {
        home: &home,
        sink: sink.address,
        max_age: &args.max_age,
        trails: 1,
        journal_gb: gigabytes * 2 + 2,
        extras: Extras::NONE,
    };
    let mut daemon = Daemon::start(setup)?;
    let (mut events, mut bytes) = (0, 0);
    for number in 0.. {
        let work = work::make(
            &corpus,
            args.seed + number,
            EVENTS_AT_A_TIME,
            args.events_per_body,
            args.pairs,
        )?;
        let posts = load::prepare(&work.bodies, None)?;
        load::post(daemon.api, &posts, args.connections, None)?;
        events += EVENTS_AT_A_TIME;
        bytes += work.bytes();
        if bytes as u64 >= gigabytes * 1_000_000_000 {
            break;
        }
    }
    println!(
        "{events} events, {:.1} GB wait; peak {:.0} MiB",
        bytes as f64 / 1e9,
        mib(daemon.peak_memory()?)
    );

    let journal = home.join("data").join("journal");
    let mut ratios = Vec::new();
    for number in 1..=STARTS {
        daemon.kill()?;
        read_once(&journal)?; // so that both find the same in the page cache
        let once = read_once(&journal)?;
        daemon = Daemon::start_again(setup)?;
        let ratio = daemon.ready_after.as_secs_f64() / once.as_secs_f64();
        println!(
            "start {number}: ready after {:.2} s, the files read once in {:.2} s: {ratio:.2}",
            daemon.ready_after.as_secs_f64(),
            once.as_secs_f64()
        );
        ratios.push(ratio);
    }
    println!(
        "median of start to ready over reading once: {:.2} (target: <= 2)",
        median(ratios.into_iter())
    );

    let before = daemon.cpu_seconds()?;
    let began = Instant::now();
    sink.set_down(false);
    let mut ids = HashSet::new();
    let mut found = 0;
    while found < events {
        std::thread::sleep(Duration::from_millis(200));
        // Taken now and then, or the sink would hold it all.
        let files = sink.take();
        each_event_id(files.iter().map(|(key, gzip)| (&**key, gzip)), &mut |id| {
            found += 1;
            ids.insert(id);
        })?;
        ensure!(
            began.elapsed() < Duration::from_secs(3600),
            "only {found} of {events} events delivered"
        );
    }
    daemon.wait_delivered(events as u64, Duration::from_secs(10))?;
    ensure!(
        ids.len() == events && found == events,
        "{found} delivered, {} different",
        ids.len()
    );
    println!(
        "drained after {:.1} s: {:.0} events/s, {:.2} CPU s/GB, peak {:.0} MiB (target: <= 256)",
        began.elapsed().as_secs_f64(),
        events as f64 / began.elapsed().as_secs_f64(),
        (daemon.cpu_seconds()? - before) / (bytes as f64 / 1e9),
        mib(daemon.peak_memory()?)
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Reads all files of a folder from begin to end, as `cat` does, in blocks of 128 KiB.
fn read_once(folder: &Path) -> Result<Duration> {
    let mut paths = Vec::<PathBuf>::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    let mut block = vec![0; 128 << 10];
    let began = Instant::now();
    for path in paths {
        let mut file = std::fs::File::open(path)?;
        while file.read(&mut block)? > 0 {}
    }
    Ok(began.elapsed())
}
