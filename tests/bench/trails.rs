//! What more trails cost: each has log files of its own, so that what is read, compressed and sent grows with their number; nothing else should.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::daemon::{Daemon, Extras, Setup};
use crate::sink::Sink;
use crate::work::Work;
use crate::{Args, each_event_id, load, median};

/// The figures of one run.
struct Cost {
    cpu_seconds: f64,
    /// Of each trail.
    delivered_per_second: f64,
    peak_mib: f64,
}

/// The same events to one trail and to `trails`, in turn.
pub fn scaling(args: &Args, home: &Path, work: &Work, trails: usize) -> Result<()> {
    let gigabytes = work.bytes() as f64 / 1e9;
    let mut turns = Vec::new();
    for number in 1..=args.turns {
        let turn = (run(args, home, work, 1)?, run(args, home, work, trails)?);
        for (trails, cost) in [(1, &turn.0), (trails, &turn.1)] {
            println!(
                "turn {number}, {trails} trails: {:.0} delivered/s to each, {:.2} CPU s per GB written, peak {:.0} MiB",
                cost.delivered_per_second,
                cost.cpu_seconds / gigabytes / trails as f64,
                cost.peak_mib
            );
        }
        turns.push(turn);
    }
    let one = median(turns.iter().map(|(one, _)| one.cpu_seconds / gigabytes));
    let per_trail = |cost: &Cost| cost.cpu_seconds / gigabytes / trails as f64;
    let many = median(turns.iter().map(|(_, many)| per_trail(many)));
    let growth = median(
        turns
            .iter()
            .map(|(one, many)| many.cpu_seconds / one.cpu_seconds),
    );
    println!(
        "\nmedians: CPU s per GB of log files written: 1 trail {one:.2}, {trails} trails {many:.2}; {trails} times the bytes cost {growth:.1} times the CPU (target: <= {trails})"
    );
    Ok(())
}

fn run(args: &Args, home: &Path, work: &Work, trails: usize) -> Result<Cost> {
    let sink = Sink::start()?;
    let mut daemon = Daemon::start(Setup {
        home: &home.join("daemon"),
        sink: sink.address,
        max_age: &args.max_age,
        trails,
        journal_gb: 10,
        extras: Extras::NONE,
    })?;
    let posts = load::prepare(&work.bodies, None)?;
    let before = daemon.cpu_seconds()?;
    let began = Instant::now();
    load::post(daemon.api, &posts, args.connections, None)?;
    let events = work.events.len();
    daemon.wait_delivered((events * trails) as u64, Duration::from_secs(900))?;
    let took = began.elapsed();
    let cost = Cost {
        cpu_seconds: daemon.cpu_seconds()? - before,
        delivered_per_second: events as f64 / took.as_secs_f64(),
        peak_mib: daemon.peak_memory()? as f64 / f64::from(1 << 20),
    };
    let files = sink.take();
    let mut times = HashMap::new();
    each_event_id(files.iter().map(|(key, gzip)| (&**key, gzip)), &mut |id| {
        *times.entry(id).or_insert(0) += 1;
    })?;
    ensure!(
        times.len() == events && times.values().all(|times| *times == trails),
        "not each event is in one log file of each trail"
    );
    Ok(cost)
}
