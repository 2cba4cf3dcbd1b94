//! `traild demo`: the whole way in one command, on the embedded default.
//!
//! Starts the daemon, sends sample events through its real HTTP input, waits for the log files and their digests, and prints what a person needs
//! next: the objects, the first record, the proof that they are what was delivered, and the commands that read and validate them with the
//! unmodified AWS CLI. What it says of deliveries it reads back from the bucket.

mod events;
mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_s3::Client;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use events::{Event, Records};

use super::Failure;
use super::run::{Signals, block_on};
use crate::aws;
use crate::clock::WallMillis;
use crate::config::{Config, TrailConfig};
use crate::daemon::{Addresses, DEFAULT_TRAIL, Daemon};
use crate::digest::DigestKey;
use crate::telemetry::logs;
use crate::trail::Members;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// End when everything sent is delivered, with 0 if it was
    #[arg(long)]
    once: bool,
    /// Where to keep the demo's data
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Events to send instead of the samples: NDJSON, a JSON array or {"Records":[…]}
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Events a second to send; without it, all at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    logs::init();
    block_on(demonstrate(arguments))
}

/// How many events are made up.
const SAMPLES: usize = 300;

/// Events a request.
const BATCH: usize = 100;

/// How long it waits for the last log file, and for the last digest.
const PATIENCE: Duration = Duration::from_secs(60);

async fn demonstrate(options: Arguments) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = Config::embedded_default();
    config.delivery.max_age = Duration::from_secs(1);
    config.digest.interval = Duration::from_secs(5);
    if let Some(data_dir) = &options.data_dir {
        config.data_dir = data_dir.clone();
    }
    let events = match &options.events {
        Some(path) => events::read(path)?,
        None => events::samples(SAMPLES, config.account_id.as_str()),
    };
    cover_accounts(&mut config, &events);

    let mut daemon = Daemon::start(&config).await?;
    let outcome = tokio::select! {
        outcome = show(daemon.addresses(), &config, &options, &events) => outcome,
        error = daemon.failed() => Err(error.into()),
        () = signals.stop_asked() => match options.once {
            true => Err(anyhow::anyhow!("interrupted before everything was delivered")),
            false => Ok(()),
        },
    };
    if outcome.is_ok() && !options.once {
        eprintln!(
            "\nthe daemon goes on: send events of your own, look into the bucket; ctrl-c ends it"
        );
        tokio::select! {
            () = signals.stop_asked() => {}
            error = daemon.failed() => {
                daemon.stop().await;
                return Err(error.into());
            }
        }
    }
    daemon.stop().await;
    outcome
}

/// The default trail takes the home account. Events of other accounts need one that takes them all.
fn cover_accounts(config: &mut Config, events: &[Event]) {
    let home = config.account_id.as_str();
    let foreign = |event: &Event| {
        let account = event.account.as_deref();
        account.is_some_and(|account| account != home)
    };
    if !events.iter().any(foreign) {
        return;
    }
    let (name, bucket) = DEFAULT_TRAIL;
    config.trails = vec![TrailConfig {
        name: name.to_owned(),
        s3_bucket_name: bucket.to_owned(),
        s3_key_prefix: String::new(),
        sns_topic: None,
        cloud_watch_logs: None,
        event_bus: None,
        selectors: Default::default(),
        is_multi_region_trail: true,
        include_global_service_events: true,
        is_organization_trail: true,
        organization_id: Some("o-traildemo0".to_owned()),
        organization_accounts: Members::Every,
        enable_log_file_validation: true,
        kms_key_id: None,
    }];
}

/// Where the daemon is reached.
#[derive(Debug, Clone, Copy)]
struct Place {
    api: SocketAddr,
    store: SocketAddr,
}

/// Sends, waits, prints.
async fn show(
    addresses: Addresses,
    config: &Config,
    options: &Arguments,
    events: &[Event],
) -> anyhow::Result<()> {
    let store = addresses
        .store
        .context("the embedded store does not listen")?;
    let place = Place {
        api: aws::reachable(addresses.api),
        store: aws::reachable(store),
    };
    let store = place.store;
    eprintln!(
        "traild {} listens: events on http://{}, S3 on http://{store}",
        env!("CARGO_PKG_VERSION"),
        addresses.api
    );

    let accepted = send(addresses.api, events, options.rate).await?;
    eprintln!(
        "sent {} events, {} accepted; log files are cut after {:?}",
        events.len(),
        accepted.len(),
        config.delivery.max_age
    );

    let client = aws::embedded_client(config, store);
    let objects = wait_for(&client, &accepted).await?;
    print!("{}", report(&objects, &accepted)?);
    let delivered: BTreeSet<&str> = ids(&objects).collect();
    let missing = accepted
        .iter()
        .filter(|id| !delivered.contains(id.as_str()))
        .count();
    let doubled = doubled(&objects, &accepted);
    if missing > 0 || doubled > 0 {
        bail!(
            "of {} accepted events {missing} are not delivered and {doubled} more than once",
            accepted.len()
        );
    }
    if accepted.len() < events.len() {
        bail!(
            "{} of {} events were refused",
            events.len() - accepted.len(),
            events.len()
        );
    }
    eprintln!(
        "\nall {} events are delivered, each in exactly one object; their digests follow within {:?}",
        events.len(),
        config.digest.interval
    );
    let log_files: Vec<&str> = new(&objects, &accepted).map(|(key, _)| &**key).collect();
    proof::show(&client, place, &log_files).await?;
    print!("{}", next(place, config, &log_files, options.once)?);
    Ok(())
}

/// The objects that hold events of this demonstration: its `data_dir` may have seen others.
fn new<'a>(
    objects: &'a Objects,
    accepted: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'a String, &'a Vec<(String, Box<RawValue>)>)> {
    let is_new =
        |events: &[(String, Box<RawValue>)]| events.iter().any(|(id, _)| accepted.contains(id));
    objects.iter().filter(move |(_, events)| is_new(events))
}

/// The accepted eventIDs.
async fn send(
    api: SocketAddr,
    events: &[Event],
    rate: Option<u32>,
) -> anyhow::Result<BTreeSet<String>> {
    let client: legacy::Client<_, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let batch = rate.map_or(BATCH, |rate| BATCH.min(rate.max(1) as usize));
    let mut ids = BTreeSet::new();
    for chunk in events.chunks(batch) {
        let mut body = Vec::new();
        for event in chunk {
            serde_json::to_writer(&mut body, &event.json)?;
            body.push(b'\n');
        }
        let request = http::Request::post(format!("http://{}/v1/events", aws::reachable(api)))
            .header(http::header::CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(Bytes::from(body)))?;
        let answer = client
            .request(request)
            .await
            .context("cannot send events")?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() && answer.get("rejected").is_none() {
            bail!(
                "events were answered {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        let rejected = answer["rejected"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for refusal in rejected {
            eprintln!(
                "event {} was refused: {} {}",
                refusal["eventID"], refusal["code"], refusal["message"]
            );
        }
        let refused: BTreeSet<u64> = rejected
            .iter()
            .filter_map(|refusal| refusal["index"].as_u64())
            .collect();
        let kept = chunk
            .iter()
            .enumerate()
            .filter(|(index, _)| !refused.contains(&(*index as u64)));
        ids.extend(kept.map(|(_, event)| event.id.clone()));
        if let Some(rate) = rate {
            tokio::time::sleep(Duration::from_secs_f64(
                chunk.len() as f64 / f64::from(rate.max(1)),
            ))
            .await;
        }
    }
    Ok(ids)
}

#[derive(Deserialize)]
struct Identified {
    #[serde(rename = "eventID")]
    event_id: String,
}

fn event_id(record: &RawValue) -> Option<String> {
    let identified: Identified = serde_json::from_str(record.get()).ok()?;
    Some(identified.event_id)
}

/// The records of each object, with their eventIDs.
type Objects = BTreeMap<String, Vec<(String, Box<RawValue>)>>;

/// Reads the bucket until it holds all of `wanted`, or patience is over.
async fn wait_for(client: &Client, wanted: &BTreeSet<String>) -> anyhow::Result<Objects> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut objects = Objects::new();
    loop {
        read_bucket(client, &mut objects).await?;
        let seen: BTreeSet<&str> = ids(&objects).collect();
        if wanted.iter().all(|id| seen.contains(id.as_str()))
            || tokio::time::Instant::now() > deadline
        {
            return Ok(objects);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Adds the objects that are not known yet.
async fn read_bucket(client: &Client, objects: &mut Objects) -> anyhow::Result<()> {
    let bucket = DEFAULT_TRAIL.1;
    let mut pages = client
        .list_objects_v2()
        .bucket(bucket)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = match page {
            Ok(page) => page,
            // The bucket is made with the first log file.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_no_such_bucket()) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).context("cannot list the bucket"),
        };
        for key in page.contents().iter().filter_map(|object| object.key()) {
            if objects.contains_key(key) || DigestKey::parse(key).is_some() {
                continue;
            }
            let object = client
                .get_object()
                .bucket(bucket)
                .key(key)
                .send()
                .await
                .context("cannot read an object")?;
            let gzip = object.body.collect().await?.into_bytes();
            let mut text = String::new();
            flate2::bufread::GzDecoder::new(&*gzip)
                .read_to_string(&mut text)
                .context("object is not gzip")?;
            let file: Records = serde_json::from_str(&text).context("object is no log file")?;
            let records = file.records.into_iter();
            let identified = records.map(|record| (event_id(&record).unwrap_or_default(), record));
            objects.insert(key.to_owned(), identified.collect());
        }
    }
    Ok(())
}

fn ids(objects: &Objects) -> impl Iterator<Item = &str> {
    objects.values().flatten().map(|(id, _)| id.as_str())
}

/// How many of `wanted` are there more than once.
fn doubled(objects: &Objects, wanted: &BTreeSet<String>) -> usize {
    let mut seen = BTreeSet::new();
    ids(objects)
        .filter(|id| !seen.insert(*id))
        .filter(|id| wanted.contains(*id))
        .count()
}

fn report(objects: &Objects, accepted: &BTreeSet<String>) -> anyhow::Result<String> {
    let bucket = DEFAULT_TRAIL.1;
    let mut text = String::new();
    writeln!(text, "\ndelivered objects:")?;
    for (key, events) in new(objects, accepted) {
        writeln!(text, "  s3://{bucket}/{key}  ({} records)", events.len())?;
    }
    let first = new(objects, accepted).next();
    if let Some((_, first)) = first.and_then(|(_, events)| events.first()) {
        writeln!(text, "\nfirst record:\n{first}")?;
    }
    Ok(text)
}

/// What a person may want to do now.
fn next(place: Place, config: &Config, log_files: &[&str], once: bool) -> anyhow::Result<String> {
    let bucket = DEFAULT_TRAIL.1;
    let Place { api, store } = place;
    let mut text = String::new();
    let Some(key) = log_files.first() else {
        return Ok(text);
    };
    if once {
        let data_dir = shell_quoted(&config.data_dir.display().to_string());
        writeln!(
            text,
            "\nthe objects stay in {data_dir}; to read them, start the daemon again:"
        )?;
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| "traild".to_owned());
        writeln!(
            text,
            "  TRAILD__DATA_DIR={data_dir} {} run &",
            shell_quoted(&program)
        )?;
    }
    let options = format!(
        "--no-sign-request --region {} --endpoint-url http://{store}",
        config.region
    );
    writeln!(text, "\nlist and read them with the AWS CLI:")?;
    writeln!(text, "  aws s3 ls {options} --recursive s3://{bucket}/")?;
    writeln!(text, "  aws s3 cp {options} s3://{bucket}/{key} - | gunzip")?;
    if config.trails.is_empty() {
        let hour_ago = WallMillis(WallMillis::now().0 - 3_600_000).rfc3339();
        writeln!(text, "\nvalidate them with it:")?;
        writeln!(
            text,
            "  AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_ENDPOINT_URL_CLOUDTRAIL=http://{api} \
             AWS_ENDPOINT_URL_S3=http://{store} \\\n  aws cloudtrail validate-logs --region {} --start-time {hour_ago} --trail-arn \
             arn:aws:cloudtrail:{}:{}:trail/{}",
            config.region, config.region, config.account_id, DEFAULT_TRAIL.0
        )?;
    }
    writeln!(text, "and with traild, which checks more:")?;
    writeln!(text, "  {}", proof::command(place))?;
    Ok(text)
}

fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
