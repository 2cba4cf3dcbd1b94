//! How fast, how frugal: the real daemon, durable, under full and under half load, held against what no program can beat.
//!
//! ```text
//! cargo bench --bench throughput                     three turns of 200,000 events: a few minutes
//! cargo bench --bench throughput -- --full           five turns of 1,000,000
//! cargo bench --bench throughput -- --pairs 10000    many open batches: the peak of memory is what counts
//! cargo bench --bench throughput -- --extras         what event history and SigV4 cost: without, with each, with both
//! cargo bench --bench throughput -- --trails 16      as many trails that take everything, held against one
//! cargo bench --bench throughput -- --freshness      how long after its answer an event is in an object
//! cargo bench --bench throughput -- --backlog 10     10 GB are accepted while S3 is down: start to ready, and the drain
//! ```
//!
//! Each turn measures the daemon and then, on the same bytes and the same disk, bare libdeflate at the same level and bare
//! `write` + `fdatasync`. Printed are medians over the turns and their ratios, because the machine's own speed varies. The
//! log files are counted through after each turn: figures of a daemon that lost an event are not figures. No target is
//! enforced here.

mod backlog;
mod daemon;
mod floor;
mod freshness;
mod load;
mod sink;
mod trails;
mod work;

use std::collections::HashSet;
use std::fmt::{self, Display};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use daemon::{Daemon, Extras, Setup};
use sink::Sink;
use work::Work;

const GZIP_LEVEL: i32 = 6;
const HALF_LOAD_EVENTS: usize = 200_000;

#[derive(Parser)]
struct Args {
    /// Events of each turn under full load
    #[arg(long, default_value_t = 200_000)]
    events: usize,
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Five turns of a million events
    #[arg(long)]
    full: bool,
    /// Without event history and SigV4, with each, and with both, in turn
    #[arg(long)]
    extras: bool,
    /// One trail and so many, in turn
    #[arg(long)]
    trails: Option<usize>,
    /// Seconds from the answer to the object, at a low and at half of the full load
    #[arg(long)]
    freshness: bool,
    /// GB of journal that wait for a store that is down
    #[arg(long, value_name = "GB")]
    backlog: Option<u64>,
    /// Account × region pairs; a square number
    #[arg(long, default_value_t = 16)]
    pairs: usize,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[arg(long, default_value_t = 500)]
    events_per_body: usize,
    /// The daemon's delivery.max_age; its wait is part of what is delivered per second
    #[arg(long, default_value = "1s")]
    max_age: String,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The figures of one turn.
struct Turn {
    ready_ms: f64,
    accepted_per_second: f64,
    delivered_per_second: f64,
    cpu_per_gb: f64,
    peak_mib: f64,
    full_p50_ms: f64,
    full_p99_ms: f64,
    half_p50_ms: f64,
    half_p99_ms: f64,
    /// Of the same requests, from the append to the journal until it is durable, and its fdatasync: the bounds of histogram buckets.
    half_append_p99_ms: f64,
    half_fsync_p99_ms: f64,
    deflate_per_gb: f64,
    bare_p50_ms: f64,
    bare_p99_ms: f64,
    objects: f64,
    object_bytes: f64,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.full {
        (args.turns, args.events) = (5, 1_000_000);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root.join("tests/corpus/invictus.ndjson.gz");
    let home = root.join("target/bench");
    let full = work::make(
        &corpus,
        args.seed,
        args.events,
        args.events_per_body,
        args.pairs,
    )?;
    let half_events = HALF_LOAD_EVENTS.min(args.events);
    let half = work::make(
        &corpus,
        args.seed ^ 0x5eed,
        half_events,
        args.events_per_body,
        args.pairs,
    )?;
    println!(
        "{} events of {:.0} bytes on average, {} pairs, bodies of {}, {} connections, seed {}",
        args.events,
        full.bytes() as f64 / args.events as f64,
        args.pairs,
        args.events_per_body,
        args.connections,
        args.seed
    );
    if args.extras {
        return extras(&args, &home, &full, &half);
    }
    if let Some(trails) = args.trails {
        return trails::scaling(&args, &home, &full, trails);
    }
    if args.freshness {
        return freshness::measure(&args, &home);
    }
    if let Some(gigabytes) = args.backlog {
        return backlog::measure(&args, &home, gigabytes);
    }
    let mut turns = Vec::new();
    for number in 1..=args.turns {
        let turn = turn(&args, &home, &full, &half, Extras::NONE)?;
        println!("turn {number}: {turn}");
        turns.push(turn);
    }
    let gzip = floor::gzip_bytes(&full)? as f64;
    report(&turns, full.bytes() as f64, gzip);
    Ok(())
}

type Figure = fn(&Turn) -> f64;

/// What the extras cost, each held against none in the same turn.
fn extras(args: &Args, home: &Path, full: &Work, half: &Work) -> Result<()> {
    let all = [
        ("none", false, false),
        ("history", true, false),
        ("SigV4", false, true),
        ("history and SigV4", true, true),
    ];
    let mut columns: [Vec<Turn>; 4] = Default::default();
    for number in 1..=args.turns {
        for (column, (name, history, sigv4)) in columns.iter_mut().zip(all) {
            let turn = turn(args, home, full, half, Extras { history, sigv4 })?;
            println!("turn {number}, {name}: {turn}");
            column.push(turn);
        }
    }
    let figures: [(&str, Figure); 5] = [
        ("accepted/s", |turn| turn.accepted_per_second),
        ("delivered/s", |turn| turn.delivered_per_second),
        ("CPU s/GB", |turn| turn.cpu_per_gb),
        ("p99 at half load, ms", |turn| turn.half_p99_ms),
        ("peak MiB", |turn| turn.peak_mib),
    ];
    println!("\nmedians, and of the ratios to none in the same turn");
    for (column, (name, ..)) in columns.iter().zip(all) {
        print!("{name:<20}");
        for (figure, of) in figures {
            let value = median(column.iter().map(of));
            let ratios = column.iter().zip(&columns[0]);
            let ratio = median(ratios.map(|(turn, none)| of(turn) / of(none)));
            print!("  {figure} {value:.1} ({ratio:.2})");
        }
        println!();
    }
    Ok(())
}

fn turn(args: &Args, home: &Path, full: &Work, half: &Work, extras: Extras) -> Result<Turn> {
    let sink = Sink::start()?;
    let home_of_daemon = home.join("daemon");
    let mut daemon = Daemon::start(Setup {
        home: &home_of_daemon,
        sink: sink.address,
        max_age: &args.max_age,
        trails: 1,
        journal_gb: 10,
        extras,
    })?;
    let signer = extras.signer();
    let patience = Duration::from_secs(900);

    let posts = load::prepare(&full.bodies, signer.as_ref())?;
    let cpu_before = daemon.cpu_seconds()?;
    let began = Instant::now();
    let at_full = load::post(daemon.api, &posts, args.connections, None)?;
    daemon.wait_delivered(full.events.len() as u64, patience)?;
    let delivered_after = began.elapsed();
    let cpu = daemon.cpu_seconds()? - cpu_before;
    let peak = daemon.peak_memory()?;
    let files = sink.take();
    verify(&files, full.events.len())?;

    let per_second = |took: Duration| full.events.len() as f64 / took.as_secs_f64();
    // The peak load is what is delivered, not the burst that the journal can swallow ahead of it.
    let rate = per_second(delivered_after) / 2.0 / args.events_per_body as f64;
    let posts = load::prepare(&half.bodies, signer.as_ref())?;
    let [append, fsync] = ["traild_append_seconds", "traild_journal_fsync_seconds"];
    let before = (daemon.histogram(append)?, daemon.histogram(fsync)?);
    let at_half = load::post(daemon.api, &posts, args.connections, Some(rate))?;
    let half_append_p99_ms = p99_ms(&before.0, &daemon.histogram(append)?);
    let half_fsync_p99_ms = p99_ms(&before.1, &daemon.histogram(fsync)?);
    daemon.wait_delivered((full.events.len() + half.events.len()) as u64, patience)?;
    verify(&sink.take(), half.events.len())?;
    let ready_ms = milliseconds(daemon.ready_after);
    drop(daemon);

    let deflate = floor::deflate_seconds(full, GZIP_LEVEL)?;
    let bare = floor::durable_writes(&home.join("bare"), &half.bodies)?;
    let gigabytes = full.bytes() as f64 / 1e9;
    Ok(Turn {
        ready_ms,
        accepted_per_second: per_second(at_full.took),
        delivered_per_second: per_second(delivered_after),
        cpu_per_gb: cpu / gigabytes,
        peak_mib: peak as f64 / f64::from(1 << 20),
        full_p50_ms: milliseconds(at_full.percentile(50)),
        full_p99_ms: milliseconds(at_full.percentile(99)),
        half_p50_ms: milliseconds(at_half.percentile(50)),
        half_p99_ms: milliseconds(at_half.percentile(99)),
        half_append_p99_ms,
        half_fsync_p99_ms,
        deflate_per_gb: deflate / gigabytes,
        bare_p50_ms: milliseconds(load::percentile(&bare, 50)),
        bare_p99_ms: milliseconds(load::percentile(&bare, 99)),
        objects: files.len() as f64,
        object_bytes: files.iter().map(|(_, bytes)| bytes.len() as f64).sum(),
    })
}

impl Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} accepted/s, {:.0} delivered/s, {:.2} CPU s/GB against {:.2}, p99 at half load {:.1} ms, peak {:.0} MiB",
            self.accepted_per_second,
            self.delivered_per_second,
            self.cpu_per_gb,
            self.deflate_per_gb,
            self.half_p99_ms,
            self.peak_mib
        )
    }
}

/// The bound of the bucket that the 99th percentile of what was observed in between lies in, in milliseconds.
fn p99_ms(before: &[(f64, u64)], after: &[(f64, u64)]) -> f64 {
    let earlier = |bound: f64| {
        let same = before.iter().find(|(of, _)| *of == bound);
        same.map_or(0, |(_, count)| *count)
    };
    let between = |(bound, count): &(f64, u64)| (*bound, count - earlier(*bound));
    let all = after.last().map_or(0, |last| between(last).1);
    let reached = after
        .iter()
        .map(between)
        .find(|(_, count)| count * 100 >= all * 99);
    reached.map_or(0.0, |(bound, _)| bound * 1e3)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every event in exactly one log file.
fn verify(files: &[(String, bytes::Bytes)], events: usize) -> Result<()> {
    let mut ids = HashSet::new();
    let mut found = 0;
    each_event_id(files.iter().map(|(key, gzip)| (&**key, gzip)), &mut |id| {
        found += 1;
        ids.insert(id);
    })?;
    ensure!(
        found == events && ids.len() == events,
        "{events} events sent, {found} delivered, {} different",
        ids.len()
    );
    Ok(())
}

/// Hands over the eventID of each event in these log files.
fn each_event_id<'a>(
    files: impl Iterator<Item = (&'a str, &'a bytes::Bytes)>,
    take: &mut impl FnMut(u128),
) -> Result<()> {
    let mut inflate = libdeflater::Decompressor::new();
    for (key, gzip) in files {
        let size = gzip
            .last_chunk::<4>()
            .map(|length| u32::from_le_bytes(*length))
            .context("an empty object")?;
        let mut text = vec![0; size as usize];
        inflate
            .gzip_decompress(gzip, &mut text)
            .ok()
            .with_context(|| format!("{key} is not one gzip member"))?;
        let name = br#""eventID":""#;
        for at in memchr::memmem::find_iter(&text, name) {
            let id = text
                .get(at + name.len()..at + name.len() + 36)
                .with_context(|| format!("{key} is torn"))?;
            let id = uuid::Uuid::try_parse_ascii(id)
                .with_context(|| format!("{key} has an eventID that is none"))?;
            take(id.as_u128());
        }
    }
    Ok(())
}

fn report(turns: &[Turn], bytes: f64, gzip: f64) {
    let median = |figure: Figure| median(turns.iter().map(figure));
    let ratio =
        |of: Figure, to: Figure| crate::median(turns.iter().map(|turn| of(turn) / to(turn)));
    let row = |name: &str, value: String, held_against: String, ratio: String, target: &str| {
        println!("{name:<42}{value:>14}{held_against:>26}{ratio:>8}  {target}");
    };
    let none = String::new;
    println!();
    row(
        "medians",
        "traild".into(),
        "held against".into(),
        "ratio".into(),
        "target",
    );
    row(
        "CPU s per GB of events",
        format!("{:.2}", median(|turn| turn.cpu_per_gb)),
        format!("libdeflate -6 {:.2}", median(|turn| turn.deflate_per_gb)),
        format!(
            "{:.2}",
            ratio(|turn| turn.cpu_per_gb, |turn| turn.deflate_per_gb)
        ),
        "<= 1.5",
    );
    row(
        "p99 of the answer at half load, ms",
        format!("{:.1}", median(|turn| turn.half_p99_ms)),
        format!("write+fdatasync {:.1}", median(|turn| turn.bare_p99_ms)),
        format!(
            "{:.2}",
            ratio(|turn| turn.half_p99_ms, |turn| turn.bare_p99_ms)
        ),
        "<= 3",
    );
    row(
        "  of it until the journal is durable, ms",
        format!("<= {:.1}", median(|turn| turn.half_append_p99_ms)),
        format!("fdatasync <= {:.1}", median(|turn| turn.half_fsync_p99_ms)),
        none(),
        "",
    );
    row(
        "p50 of the answer at half load, ms",
        format!("{:.1}", median(|turn| turn.half_p50_ms)),
        format!("write+fdatasync {:.1}", median(|turn| turn.bare_p50_ms)),
        format!(
            "{:.2}",
            ratio(|turn| turn.half_p50_ms, |turn| turn.bare_p50_ms)
        ),
        "",
    );
    let size = median(|turn| turn.object_bytes);
    row(
        "gzip size, MB",
        format!("{:.1}", size / 1e6),
        format!("gzip -6 {:.1}", gzip / 1e6),
        format!("{:.3}", size / gzip),
        "<= 1.03",
    );
    row(
        "events accepted per second",
        format!("{:.0}", median(|turn| turn.accepted_per_second)),
        none(),
        none(),
        "",
    );
    row(
        "events delivered per second",
        format!("{:.0}", median(|turn| turn.delivered_per_second)),
        none(),
        none(),
        "",
    );
    row(
        "p50 of the answer at full load, ms",
        format!("{:.1}", median(|turn| turn.full_p50_ms)),
        none(),
        none(),
        "",
    );
    row(
        "p99 of the answer at full load, ms",
        format!("{:.1}", median(|turn| turn.full_p99_ms)),
        none(),
        none(),
        "",
    );
    row(
        "peak memory, MiB",
        format!("{:.0}", median(|turn| turn.peak_mib)),
        none(),
        none(),
        "<= 256",
    );
    row(
        "start to ready, ms",
        format!("{:.0}", median(|turn| turn.ready_ms)),
        none(),
        none(),
        "<= 100",
    );
    row(
        "log files",
        format!("{:.0}", median(|turn| turn.objects)),
        none(),
        none(),
        "",
    );
    row(
        "compressed to",
        format!("{:.1} %", 100.0 * size / bytes),
        none(),
        none(),
        "",
    );
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
