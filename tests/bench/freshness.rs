//! How long it takes from an answer to the object that has the event, with `max_age = 1s`: held against that age, one bare PUT, and 250 ms.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, Extras, Setup};
use crate::sink::{Object, Sink};
use crate::{Args, each_event_id, load, work};

const MAX_AGE: Duration = Duration::from_secs(1);
/// Bodies a second, and events in each: a quiet service, and a busy one.
const LOADS: [(f64, usize); 2] = [(20.0, 10), (100.0, 200)];
const SECONDS: f64 = 30.0;

pub fn measure(args: &Args, home: &Path) -> Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/invictus.ndjson.gz");
    for (rate, per_body) in LOADS {
        let events = (rate * SECONDS) as usize * per_body;
        let work = work::make(&corpus, args.seed, events, per_body, args.pairs)?;
        let sink = Sink::start()?;
        let mut daemon = Daemon::start(Setup {
            home: &home.join("daemon"),
            sink: sink.address,
            max_age: "1s",
            trails: 1,
            journal_gb: 10,
            extras: Extras::NONE,
        })?;
        let posts = load::prepare(&work.bodies, None)?;
        let began = Instant::now();
        let outcome = load::post(daemon.api, &posts, args.connections, Some(rate))?;
        daemon.wait_delivered(events as u64, Duration::from_secs(60))?;
        let objects = sink.take_objects();
        drop(daemon);

        // A body's events are due at its number over the rate; their answer comes at most one latency later, which counts as waiting.
        let due_of: HashMap<u128, Duration> = work
            .bodies
            .iter()
            .enumerate()
            .flat_map(|(number, body)| {
                let due = Duration::from_secs_f64(number as f64 / rate);
                ids_of(body).into_iter().map(move |id| (id, due))
            })
            .collect();
        let mut waits = Vec::new();
        for (key, object) in &objects {
            each_event_id(std::iter::once((&**key, &object.bytes)), &mut |id| {
                let due = due_of.get(&id).copied().unwrap_or_default();
                waits.push(object.at.duration_since(began).saturating_sub(due));
            })?;
        }
        ensure!(waits.len() == events, "{} of {events} events", waits.len());
        waits.sort_unstable();
        let put = median_put(&sink, &objects)?;
        let limit = MAX_AGE + put + Duration::from_millis(250);
        let at = |percent| load::percentile(&waits, percent).as_secs_f64();
        println!(
            "{:.0} events/s: from due to object p50 {:.3} s, p99 {:.3} s, longest {:.3} s; target p99 <= 1 s + one bare PUT ({:.1} ms) + 0.25 s = {:.3} s; p99 of the answer {:.1} ms",
            rate * per_body as f64,
            at(50),
            at(99),
            at(100),
            put.as_secs_f64() * 1e3,
            limit.as_secs_f64(),
            outcome.percentile(99).as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

fn ids_of(body: &[u8]) -> Vec<u128> {
    let name = br#""eventID":""#;
    memchr::memmem::find_iter(body, name)
        .filter_map(|at| {
            let id = body.get(at + name.len()..at + name.len() + 36)?;
            Some(uuid::Uuid::try_parse_ascii(id).ok()?.as_u128())
        })
        .collect()
}

/// One PUT of an object of the usual size, on a connection that is open.
fn median_put(sink: &Sink, objects: &[(String, Object)]) -> Result<Duration> {
    let (_, object) = objects.first().context("no object")?;
    let mut connection = TcpStream::connect(sink.address)?;
    connection.set_nodelay(true)?;
    let mut times = Vec::new();
    for number in 0..51 {
        let began = Instant::now();
        write!(
            connection,
            "PUT /bench/bare-{number} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n",
            object.bytes.len()
        )?;
        connection.write_all(&object.bytes)?;
        let mut answer = [0; 4096];
        ensure!(connection.read(&mut answer)? > 0, "the sink hung up");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(load::percentile(&times, 50))
}
