//! `traild demo`: the whole way in one command, on the embedded default.
//!
//! Starts the daemon, sends sample events through its real HTTP input, waits for the log files, and prints what a person needs next: the
//! objects, the first record, and the commands that read it with the unmodified AWS CLI. What it says of deliveries it reads
//! back from the bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_s3::Client;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Failure;
use super::run::{Asked, Signals, block_on};
use crate::aws;
use crate::config::{Config, TrailConfig};
use crate::daemon::{Addresses, DEFAULT_TRAIL, Daemon};
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

/// How long `--once` waits for the last log file.
const PATIENCE: Duration = Duration::from_secs(60);

async fn demonstrate(options: Arguments) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let mut config = Config::embedded_default();
    config.delivery.max_age = Duration::from_secs(1);
    if let Some(data_dir) = &options.data_dir {
        config.data_dir = data_dir.clone();
    }
    let events = match &options.events {
        Some(path) => read_events(path)?,
        None => samples(SAMPLES, config.account_id.as_str()),
    };
    if events.is_empty() {
        bail!("there are no events to send");
    }
    cover_accounts(&mut config, &events);

    let mut daemon = Daemon::start(&config).await?;
    let outcome = tokio::select! {
        outcome = show(daemon.addresses(), &config, &options, &events) => outcome,
        error = daemon.failed() => Err(error.into()),
        () = stop_asked(&mut signals) => Ok(()),
    };
    if outcome.is_ok() && !options.once {
        eprintln!(
            "\nthe daemon goes on: send events of your own, look into the bucket; ctrl-c ends it"
        );
        tokio::select! {
            () = stop_asked(&mut signals) => {}
            error = daemon.failed() => {
                daemon.stop().await;
                return Err(error.into());
            }
        }
    }
    daemon.stop().await;
    outcome
}

async fn stop_asked(signals: &mut Signals) {
    while signals.next().await != Asked::Stop {}
}

/// The default trail takes the home account. Events of other accounts need one that takes them all.
fn cover_accounts(config: &mut Config, events: &[Value]) {
    let home = config.account_id.as_str();
    let foreign = |event: &Value| account_of(event).is_some_and(|account| account != home);
    if !events.iter().any(foreign) {
        return;
    }
    let (name, bucket) = DEFAULT_TRAIL;
    config.trails = vec![TrailConfig {
        name: name.to_owned(),
        s3_bucket_name: bucket.to_owned(),
        s3_key_prefix: String::new(),
        sns_topic_arn: None,
        cloud_watch_logs_log_group_arn: None,
        cloud_watch_logs_role_arn: None,
        event_bus: None,
        is_multi_region_trail: true,
        include_global_service_events: true,
        is_organization_trail: true,
        organization_id: Some("o-traildemo0".to_owned()),
        organization_accounts: Members::Every,
        enable_log_file_validation: false,
        kms_key_id: None,
    }];
}

fn account_of(event: &Value) -> Option<&str> {
    let recipient = event.get("recipientAccountId").and_then(Value::as_str);
    recipient.or_else(|| {
        event
            .pointer("/userIdentity/accountId")
            .and_then(Value::as_str)
    })
}

/// Sends, waits, prints.
async fn show(
    addresses: Addresses,
    config: &Config,
    options: &Arguments,
    events: &[Value],
) -> anyhow::Result<()> {
    let store = addresses
        .store
        .context("the embedded store does not listen")?;
    let store = aws::reachable(store);
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
    print!(
        "{}",
        report(&objects, &accepted, store, config, options.once)?
    );
    let delivered: Vec<_> = objects.values().flatten().collect();
    let missing = accepted
        .iter()
        .filter(|id| {
            !delivered
                .iter()
                .any(|event| event_id(event) == Some(id.as_str()))
        })
        .count();
    let doubled = doubled(&objects, &accepted);
    if missing > 0 || doubled > 0 {
        bail!(
            "of {} accepted events {missing} are not delivered and {doubled} more than once",
            accepted.len()
        );
    }
    eprintln!(
        "\nall {} accepted events are delivered, each in exactly one object",
        accepted.len()
    );
    Ok(())
}

/// The accepted eventIDs.
async fn send(
    api: SocketAddr,
    events: &[Value],
    rate: Option<u32>,
) -> anyhow::Result<BTreeSet<String>> {
    let client: legacy::Client<_, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let batch = rate.map_or(BATCH, |rate| BATCH.min(rate.max(1) as usize));
    let mut ids = BTreeSet::new();
    for chunk in events.chunks(batch) {
        let mut body = Vec::new();
        for event in chunk {
            serde_json::to_writer(&mut body, event)?;
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
        ids.extend(
            kept.filter_map(|(_, event)| event_id(event))
                .map(str::to_owned),
        );
        if let Some(rate) = rate {
            tokio::time::sleep(Duration::from_secs_f64(
                chunk.len() as f64 / f64::from(rate.max(1)),
            ))
            .await;
        }
    }
    Ok(ids)
}

fn event_id(event: &Value) -> Option<&str> {
    event.get("eventID").and_then(Value::as_str)
}

type Objects = BTreeMap<String, Vec<Value>>;

/// Reads the bucket until it holds all of `wanted`, or patience is over.
async fn wait_for(client: &Client, wanted: &BTreeSet<String>) -> anyhow::Result<Objects> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut objects = Objects::new();
    loop {
        read_bucket(client, &mut objects).await?;
        let seen: BTreeSet<&str> = objects.values().flatten().filter_map(event_id).collect();
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
            if objects.contains_key(key) {
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
            let mut file: Value = serde_json::from_str(&text).context("object is not JSON")?;
            let records = file["Records"].take();
            let Value::Array(records) = records else {
                bail!("object {key} has no Records")
            };
            objects.insert(key.to_owned(), records);
        }
    }
    Ok(())
}

/// How many of `wanted` are there more than once.
fn doubled(objects: &Objects, wanted: &BTreeSet<String>) -> usize {
    let mut seen = BTreeSet::new();
    let ids = objects.values().flatten().filter_map(event_id);
    ids.filter(|id| !seen.insert(*id))
        .filter(|id| wanted.contains(*id))
        .count()
}

fn report(
    objects: &Objects,
    accepted: &BTreeSet<String>,
    store: SocketAddr,
    config: &Config,
    once: bool,
) -> anyhow::Result<String> {
    let bucket = DEFAULT_TRAIL.1;
    let new: Vec<_> = objects
        .iter()
        .filter(|(_, events)| {
            events
                .iter()
                .any(|event| event_id(event).is_some_and(|id| accepted.contains(id)))
        })
        .collect();
    let mut text = String::new();
    writeln!(text, "\ndelivered objects:")?;
    for (key, events) in &new {
        writeln!(text, "  s3://{bucket}/{key}  ({} records)", events.len())?;
    }
    let Some((key, events)) = new.first() else {
        return Ok(text);
    };
    if let Some(first) = events.first() {
        writeln!(
            text,
            "\nfirst record:\n{}",
            serde_json::to_string_pretty(first)?
        )?;
    }
    if once {
        let data_dir = shell_quoted(&config.data_dir.display().to_string());
        writeln!(
            text,
            "\nthe objects stay in {data_dir}; to read them, start the daemon again:"
        )?;
        writeln!(text, "  TRAILD__DATA_DIR={data_dir} traild run &")?;
    }
    writeln!(
        text,
        "\nread them with the AWS CLI (any credentials will do):"
    )?;
    writeln!(
        text,
        "  export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION={}",
        config.region
    )?;
    writeln!(
        text,
        "  aws --endpoint-url http://{store} s3 ls --recursive s3://{bucket}/"
    )?;
    writeln!(
        text,
        "  aws --endpoint-url http://{store} s3 cp s3://{bucket}/{key} - | gunzip"
    )?;
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

/// The events of a file, with an eventID each so that they can be found again.
fn read_events(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        match value.with_context(|| format!("{} is not JSON", path.display()))? {
            Value::Array(array) => events.extend(array),
            Value::Object(mut object) => match object.remove("Records") {
                Some(Value::Array(records)) => events.extend(records),
                Some(other) => bail!("Records in {} is no array but {other}", path.display()),
                None => events.push(Value::Object(object)),
            },
            other => bail!("{} holds {other}, which is no event", path.display()),
        }
    }
    for event in &mut events {
        if let Value::Object(event) = event {
            event
                .entry("eventID")
                .or_insert_with(|| uuid::Uuid::new_v4().to_string().into());
        }
    }
    Ok(events)
}

/// Made-up events of one account in three regions: a few people and roles at work.
fn samples(count: usize, account: &str) -> Vec<Value> {
    const CALLS: [(&str, &str, bool); 8] = [
        ("ec2.amazonaws.com", "DescribeInstances", true),
        ("s3.amazonaws.com", "ListBuckets", true),
        ("iam.amazonaws.com", "CreateUser", false),
        ("sts.amazonaws.com", "AssumeRole", true),
        ("ec2.amazonaws.com", "RunInstances", false),
        ("lambda.amazonaws.com", "GetFunction", true),
        ("kms.amazonaws.com", "Decrypt", true),
        ("orders.example.com", "CancelOrder", false),
    ];
    const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];
    const REGIONS: [&str; 3] = ["us-east-1", "eu-central-1", "ap-southeast-2"];
    let now = time::OffsetDateTime::now_utc();
    (0..count)
        .map(|n| {
            let (source, name, read_only) = CALLS[n % CALLS.len()];
            let person = PEOPLE[n / 3 % PEOPLE.len()];
            let at = now - Duration::from_secs((count - n) as u64);
            let at = at.replace_nanosecond(0).unwrap_or(at);
            serde_json::json!({
                "eventVersion": "1.11",
                "userIdentity": {
                    "type": "IAMUser",
                    "principalId": format!("AIDAEXAMPLE{}", person.to_uppercase()),
                    "arn": format!("arn:aws:iam::{account}:user/{person}"),
                    "accountId": account,
                    "userName": person,
                },
                "eventTime": at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
                "eventSource": source,
                "eventName": name,
                "awsRegion": if source.starts_with("iam") || source.starts_with("sts") { REGIONS[0] } else { REGIONS[n % 3] },
                "sourceIPAddress": format!("192.0.2.{}", 1 + n % 250),
                "userAgent": "traild-demo",
                "requestParameters": { "sample": n },
                "responseElements": null,
                "requestID": uuid::Uuid::new_v4().to_string(),
                "eventID": uuid::Uuid::new_v4().to_string(),
                "readOnly": read_only,
                "eventType": "AwsApiCall",
                "managementEvent": true,
                "recipientAccountId": account,
                "eventCategory": "Management",
            })
        })
        .collect()
}
