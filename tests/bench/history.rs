//! What the event history costs: to keep, to look up, and to let go of.
//!
//! ```text
//! cargo bench --bench history                            a million events, and ten million: about twelve minutes
//! cargo bench --bench history -- --events 1000000
//! ```
//!
//! The events are those of the throughput's work, over 16 account × region pairs, spread evenly over ninety days up to now and written in their order by the
//! daemon's own code, in batches as a busy daemon has them. Lookups are for a page of 50, each for a value that some event has, chosen at random over all
//! of history; they run one after another. Processor time is that of the thread, which other work on the machine hardly touches. Prints Markdown.

#[expect(dead_code, reason = "made for the throughput, which needs more of it")]
mod work;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use traild::clock::WallMillis;
use traild::event::fill::Filling;
use traild::event::{Record, Rules, parse};
use traild::history::files::Files;
use traild::history::part::Given;
use traild::history::store::Store;
use traild::history::{Attribute, Facts, Metrics, Query, Scope};
use traild::wal::Position;
use uuid::Uuid;

const DAYS: i64 = 90;
const DAY: i64 = 86_400;
/// Made at a time.
const SLICE: usize = 48_000;
/// Written at a time: 8 MiB.
const BATCH: usize = 6_000;
const PAGE: usize = 50;
/// Values that are kept to ask for, of each attribute.
const VALUES: usize = 4000;

#[derive(Parser)]
struct Args {
    /// Sizes of history, one after another
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    events: Vec<usize>,
    /// Lookups of each kind
    #[arg(long, default_value_t = 1000)]
    lookups: usize,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where the files are made; removed in the end
    #[arg(long, default_value = "target/bench-history")]
    directory: std::path::PathBuf,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut columns = Vec::new();
    for events in &args.events {
        columns.push(measure(*events, &args)?);
        eprintln!("{events} events: done");
    }
    let heads: Vec<String> = args
        .events
        .iter()
        .map(|events| format!("{events} events"))
        .collect();
    println!("| | {} |", heads.join(" | "));
    println!("|---|{}", "---|".repeat(heads.len()));
    for row in 0..columns[0].len() {
        let cells: Vec<&str> = columns
            .iter()
            .map(|column| column[row].1.as_str())
            .collect();
        println!("| {} | {} |", columns[0][row].0, cells.join(" | "));
    }
    Ok(())
}

/// The rows of one size.
fn measure(events: usize, args: &Args) -> Result<Vec<(String, String)>> {
    let home = &args.directory;
    if home.exists() {
        std::fs::remove_dir_all(home)?;
    }
    let directory = home.join("data/history");
    std::fs::create_dir_all(&directory)?;
    let store = Arc::new(Store::open(
        &directory,
        Position(u64::MAX),
        Metrics::default(),
    )?);
    let mut rng = work::Rng::new(args.seed);
    let kept = keep(events, args.seed, &store, &mut rng)?;
    let mut rows = vec![
        row("write: processor time an event", kept.write_cpu, events),
        row("write: time an event", kept.write_wall, events),
        row(
            "bring to the disk: processor time an event",
            kept.sync_cpu,
            events,
        ),
        row(
            "filters of files at rest: processor time an event",
            kept.filter_cpu,
            events,
        ),
    ];
    store.measure();
    let bytes = store.metrics().bytes.get();
    rows.push((
        "bytes an event on disk".into(),
        format!("{:.0}", bytes as f64 / events as f64),
    ));
    rows.push(("files".into(), store.parts().len().to_string()));
    for (name, queries) in kinds(&kept.values, args.lookups, &mut rng) {
        let figures = look_up(&store, &queries)?;
        rows.push((
            format!("look up {name}: p50, p99; processor time"),
            figures.shown(),
        ));
    }
    let by_name: Vec<&Value> = kept
        .values
        .iter()
        .filter(|it| it.attribute == Attribute::EventName)
        .collect();
    rows.push((
        "memory of the process, most".into(),
        format!("{:.0} MiB", peak_mib()?),
    ));
    let over_http = over_http(home, &by_name)?;
    rows.push(("by EventName over HTTP: p50, p99".into(), over_http));
    let oldest = WallMillis::now().unix_seconds() - (DAYS - 9) * DAY;
    let began = Instant::now();
    let removed = store.expire(oldest);
    rows.push((
        "retention removes nine days".into(),
        format!("{:.0} ms, {removed} files", milliseconds(began.elapsed())),
    ));
    drop(store);
    std::fs::remove_dir_all(home)?;
    Ok(rows)
}

fn row(name: &str, took: Duration, events: usize) -> (String, String) {
    let micros = took.as_secs_f64() * 1e6 / events as f64;
    (name.to_owned(), format!("{micros:.1} µs"))
}

/// A value that an event has.
struct Value {
    scope: Scope,
    attribute: Attribute,
    value: String,
    time: i64,
}

struct Kept {
    write_cpu: Duration,
    write_wall: Duration,
    sync_cpu: Duration,
    filter_cpu: Duration,
    values: Vec<Value>,
}

fn keep(events: usize, seed: u64, store: &Arc<Store>, rng: &mut work::Rng) -> Result<Kept> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/invictus.ndjson.gz");
    let mut files = Files::new(store.clone());
    let mut kept = Kept {
        write_cpu: Duration::ZERO,
        write_wall: Duration::ZERO,
        sync_cpu: Duration::ZERO,
        filter_cpu: Duration::ZERO,
        values: Vec::new(),
    };
    let end = WallMillis::now().unix_seconds();
    let begin = end - DAYS * DAY + 60;
    let mut made = 0;
    while made < events {
        let slice = SLICE.min(events - made);
        let work = work::make(&corpus, seed + made as u64, slice, slice, 16)?;
        let mut given = Vec::with_capacity(slice);
        for line in work
            .bodies
            .iter()
            .flat_map(|body| body.split(|byte| *byte == b'\n'))
        {
            if line.is_empty() {
                continue;
            }
            let time = begin + ((end - begin) as i128 * made as i128 / events as i128) as i64;
            let frame = frame(line, time)?;
            if (made as u64).is_multiple_of((events / VALUES).max(1) as u64) {
                take_values(&frame, time, &mut kept.values)?;
            }
            given.push(Given {
                position: Position(made as u64 * 2000),
                time,
                frame,
            });
            made += 1;
        }
        for batch in given.chunks(BATCH) {
            let (cpu, wall) = (thread_cpu()?, Instant::now());
            files.write(batch)?;
            kept.write_cpu += thread_cpu()? - cpu;
            kept.write_wall += wall.elapsed();
        }
        let cpu = thread_cpu()?;
        ensure!(files.sync()?, "a file was not brought to the disk");
        kept.sync_cpu += thread_cpu()? - cpu;
        let cpu = thread_cpu()?;
        while files.make_filter(WallMillis::now()) {}
        kept.filter_cpu += thread_cpu()? - cpu;
    }
    files.close_all();
    let mut files = Files::new(store.clone());
    while files.make_filter(WallMillis::now()) {}
    // The order of what is asked has nothing to do with the order of events.
    for at in (1..kept.values.len()).rev() {
        kept.values.swap(at, rng.below(at as u64 + 1) as usize);
    }
    Ok(kept)
}

/// The event as the journal has it, at another time.
fn frame(line: &[u8], time: i64) -> Result<Bytes> {
    let mut line = line.to_vec();
    let name = b"\"eventTime\":\"";
    let at = memchr::memmem::find(&line, name).context("an event without a time")? + name.len();
    let text = WallMillis(time * 1000).rfc3339();
    line[at..at + text.len()].copy_from_slice(text.as_bytes());
    let rules = Rules {
        max_event_bytes: 256 << 10,
        account: "111122223333".parse()?,
        region: "us-east-1".parse()?,
        now: WallMillis(time * 1000),
    };
    let checked = parse(&line, &rules).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    let mut bytes = Vec::with_capacity(line.len() + 128);
    checked.meta(rules.now, [0; 16]).encode(&mut bytes);
    let filling = Filling {
        event_id: Uuid::nil(),
        source_address: "192.0.2.7",
    };
    checked.write(&mut bytes, filling);
    Ok(bytes.into())
}

fn take_values(frame: &[u8], time: i64, values: &mut Vec<Value>) -> Result<()> {
    let record = Record::decode(frame)?;
    let scope = Scope::of(&record.meta);
    Facts::of(&record).each(|attribute, value| {
        values.push(Value {
            scope,
            attribute,
            value: value.to_owned(),
            time,
        });
    });
    Ok(())
}

/// Lookups of every kind.
fn kinds(values: &[Value], most: usize, rng: &mut work::Rng) -> Vec<(&'static str, Vec<Query>)> {
    let query = |value: &Value, filter| Query {
        scope: value.scope,
        filter,
        times: (i64::MIN, i64::MAX),
        after: None,
        most: PAGE,
    };
    let mut kinds: Vec<(&'static str, Vec<Query>)> = Attribute::ALL
        .into_iter()
        .map(|attribute| {
            let values = values.iter().filter(|it| it.attribute == attribute);
            let queries = values.take(most);
            let queries = queries.map(|it| query(it, Some((attribute, it.value.clone()))));
            (attribute.name(), queries.collect())
        })
        .collect();
    let unknown = (0..most).map(|_| {
        let value = &values[rng.below(values.len() as u64) as usize];
        let id = Uuid::from_u64_pair(rng.next(), rng.next()).to_string();
        query(value, Some((Attribute::EventId, id)))
    });
    kinds.push(("an EventId that is not there", unknown.collect()));
    let all = values.iter().take(most).map(|value| query(value, None));
    kinds.push(("everything", all.collect()));
    let named = values
        .iter()
        .filter(|it| it.attribute == Attribute::EventName);
    let hours = named.take(most).map(|value| Query {
        times: (value.time - 3600, value.time + 3600),
        ..query(value, Some((value.attribute, value.value.clone())))
    });
    kinds.push(("EventName within two hours", hours.collect()));
    kinds
}

struct Figures {
    wall: Vec<Duration>,
    /// Of all of them together: the kernel tells the thread's own in ticks of some milliseconds.
    cpu: Duration,
}

impl Figures {
    fn shown(&self) -> String {
        let at = |sorted: &[Duration], percent: usize| {
            milliseconds(sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)])
        };
        format!(
            "{:.2}, {:.2}; {:.2} ms",
            at(&self.wall, 50),
            at(&self.wall, 99),
            milliseconds(self.cpu) / self.wall.len() as f64
        )
    }
}

fn look_up(store: &Store, queries: &[Query]) -> Result<Figures> {
    let mut wall = Vec::new();
    let worked = thread_cpu()?;
    for query in queries {
        let began = Instant::now();
        let page = store.lookup(query)?;
        wall.push(began.elapsed());
        let is_there = query
            .filter
            .as_ref()
            .is_none_or(|(_, id)| !page.events.is_empty() || id.len() == 36);
        ensure!(is_there, "{query:?} found nothing");
    }
    wall.sort_unstable();
    let cpu = thread_cpu()? - worked;
    Ok(Figures { wall, cpu })
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// What the thread has had of the processors.
fn thread_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// The same history behind the daemon's own API: each caller's account is named by its access key.
fn over_http(home: &Path, values: &[&Value]) -> Result<String> {
    let free = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    let (api, ops, store) = (free()?, free()?, free()?);
    let config = home.join("traild.toml");
    let text = format!(
        "data_dir = \"{}\"\n[listen]\napi = \"127.0.0.1:{api}\"\nops = \"127.0.0.1:{ops}\"\n[storage]\nlisten = \"127.0.0.1:{store}\"\n",
        home.join("data").display()
    );
    std::fs::write(&config, text)?;
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_traild"))
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let took = ask(api, values);
    daemon.kill()?;
    daemon.wait()?;
    let mut took = took?;
    took.sort_unstable();
    let at = |percent: usize| milliseconds(took[(took.len() * percent / 100).min(took.len() - 1)]);
    Ok(format!("{:.2}, {:.2} ms", at(50), at(99)))
}

fn ask(port: u16, values: &[&Value]) -> Result<Vec<Duration>> {
    let began = Instant::now();
    let stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut took = Vec::new();
    for value in values.iter().take(500) {
        let body = serde_json::json!({
            "LookupAttributes": [{"AttributeKey": value.attribute.name(), "AttributeValue": value.value}]
        })
        .to_string();
        let Scope {
            account, region, ..
        } = value.scope;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-amz-json-1.1\r\n\
             X-Amz-Target: CloudTrail_20131101.LookupEvents\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={account}/20260501/{region}/cloudtrail/aws4_request, SignedHeaders=host, Signature=00\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        writer.write_all(request.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "{line}");
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        took.push(began.elapsed());
        ensure!(
            memchr::memmem::find(&answer, b"\"EventId\"").is_some(),
            "nothing was found"
        );
    }
    Ok(took)
}
