//! `traild status`: what a running daemon has delivered, and what not yet.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::StatusCode;

use super::client::{Client, Endpoint, SIGNING_HINT};
use super::{EndpointArgument, Failure};
use crate::telemetry::status::{
    DigestStatus, HistoryStatus, LastError, SinkStatus, Status, TrailStatus,
};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    endpoint: EndpointArgument,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
}

const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let (body, status) = super::runtime()?.block_on(fetch(arguments.endpoint.endpoint))?;
    if arguments.json {
        return super::print([&body[..], b"\n"].concat());
    }
    super::print(table(&status))
}

/// The daemon's status, as text and as read. Any failure to get it says what to do.
pub async fn fetch(endpoint: Endpoint) -> Result<(Vec<u8>, Status), Failure> {
    let mut client = Client::new(endpoint);
    let answer = client.get("/v1/status", PATIENCE).await;
    let answer = answer.map_err(|error| {
        Failure::hinted(
            error,
            "is traild running? name its api listener with --endpoint",
        )
    })?;
    if !answer.status.is_success() {
        let error = anyhow!(
            "{} answered {} to GET /v1/status",
            client.endpoint(),
            answer.status
        );
        let hint = match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SIGNING_HINT,
            _ => "is it the api listener of a traild?",
        };
        return Err(Failure::hinted(error, hint));
    }
    let status = serde_json::from_slice(&answer.body);
    let status = status.with_context(|| {
        format!(
            "{} answered other than a traild of this version does",
            client.endpoint()
        )
    });
    let status = status.map_err(|error| {
        Failure::hinted(error, "is it the api listener of a traild of this version?")
    })?;
    Ok((answer.body.trim_ascii_end().to_vec(), status))
}

fn table(status: &Status) -> String {
    let mut out = String::new();
    let ready = match (&status.ready, &status.not_ready_reason) {
        (true, _) => "ready".to_owned(),
        (false, Some(reason)) => format!("not ready: {reason}"),
        (false, None) => "not ready".to_owned(),
    };
    let journal = &status.journal;
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    line(format!(
        "traild {} · account {} · {} · {ready}",
        status.version, status.account_id, status.region
    ));
    line(format!(
        "journal {} of {} · positions {} to {}",
        rounded_size(journal.bytes),
        rounded_size(journal.max_bytes),
        journal.start,
        journal.durable
    ));
    if let Some(failure) = &journal.failure {
        line(format!("journal failed: {failure}"));
    }
    if let Some(history) = &status.history {
        line(history_line(history));
    }
    if status.trails.is_empty() {
        line("no trails".into());
        return out;
    }
    let heads = [
        "TRAIL",
        "SINK",
        "DESTINATION",
        "DELIVERED",
        "PENDING",
        "OLDEST",
        "DEAD",
        "OBJECTS",
        "LAST DELIVERY",
    ];
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).to_vec()];
    let (mut digests, mut errors) = (Vec::new(), Vec::new());
    for TrailStatus {
        name,
        sinks,
        digests: digest,
        ..
    } in &status.trails
    {
        let told = |what: &str, error: &LastError| {
            let LastError { code, message, at } = error;
            format!("{name} {what}: {code} at {at}: {message}")
        };
        for sink in sinks {
            rows.push(row(name, sink));
            errors.extend(sink.last_error.iter().map(|error| told(&sink.sink, error)));
        }
        if let Some(digest) = digest {
            digests.push(digest_line(name, digest));
            let error = digest.last_error.iter();
            errors.extend(error.map(|error| told("digests", error)));
        }
    }
    line(String::new());
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        line(cells.join("  ").trim_end().to_owned());
    }
    if !digests.is_empty() {
        line(String::new());
        digests.into_iter().for_each(&mut line);
    }
    if !errors.is_empty() {
        line("\nlast errors:".into());
        errors
            .into_iter()
            .for_each(|error| line(format!("  {error}")));
    }
    out
}

/// A size as people say it: `12 B`, `1.5 MiB`.
fn rounded_size(bytes: u64) -> String {
    let units = [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    match units.into_iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => format!("{:.1} {name}", bytes as f64 / size as f64),
        None => format!("{bytes} B"),
    }
}

fn history_line(history: &HistoryStatus) -> String {
    let mut text = format!("event history {}", rounded_size(history.bytes));
    if history.pending_bytes > 0 {
        let pending = rounded_size(history.pending_bytes);
        text.push_str(&format!(" · {pending} of the journal not in it yet"));
    }
    if history.skipped_bytes > 0 {
        let skipped = rounded_size(history.skipped_bytes);
        text.push_str(&format!(" · {skipped} of the journal left out"));
    }
    if history.quarantined_files > 0 {
        let files = super::counted(history.quarantined_files, "damaged file");
        text.push_str(&format!(" · {files} put aside"));
    }
    text
}

fn digest_line(trail: &str, digest: &DigestStatus) -> String {
    let until = digest.covered_until.as_deref().unwrap_or("nowhere");
    let mut text = format!("digests of {trail} reach to {until}");
    if digest.pending_windows > 0 {
        let windows = super::counted(digest.pending_windows, "window");
        text.push_str(&format!(", {windows} not delivered yet"));
    }
    if digest.undeliverable > 0 {
        let files = super::counted(digest.undeliverable, "digest file");
        text.push_str(&format!(", {files} cannot be delivered"));
    }
    text
}

fn row(trail: &str, sink: &SinkStatus) -> Vec<String> {
    let objects = match sink.sink.as_str() {
        "s3" => sink.objects.to_string(),
        _ => "-".to_owned(),
    };
    vec![
        trail.to_owned(),
        sink.sink.clone(),
        sink.target.clone(),
        sink.delivered.to_string(),
        sink.pending.to_string(),
        sink.oldest_pending_seconds
            .map_or("-".into(), |seconds| format!("{seconds:.0}s")),
        sink.dead_lettered.to_string(),
        objects,
        sink.last_delivery_at.clone().unwrap_or_else(|| "-".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status::JournalStatus;

    #[test]
    fn the_table_shows_each_destination_and_its_trouble() {
        let s3 = SinkStatus {
            sink: "s3".into(),
            target: "s3://logs/p".into(),
            delivered: 1200,
            pending: 34,
            oldest_pending_seconds: Some(12.4),
            dead_lettered: 0,
            objects: 5,
            last_delivery_at: None,
            last_error: Some(LastError {
                code: "NoSuchBucket".into(),
                message: "the bucket does not exist".into(),
                at: "2026-01-01T00:00:00Z".into(),
            }),
        };
        let sns = SinkStatus {
            sink: "sns".into(),
            target: "arn:aws:sns:us-east-1:111122223333:trail".into(),
            delivered: 1190,
            pending: 0,
            oldest_pending_seconds: None,
            dead_lettered: 10,
            objects: 0,
            last_delivery_at: Some("2026-01-01T00:00:00Z".into()),
            last_error: None,
        };
        let status = Status {
            version: "0.1.0".into(),
            ready: false,
            not_ready_reason: Some("disk is full".into()),
            account_id: "111122223333".into(),
            region: "us-east-1".into(),
            journal: JournalStatus {
                bytes: 77,
                max_bytes: 1 << 30,
                start: 0,
                durable: 77,
                failure: None,
            },
            history: Some(HistoryStatus {
                events: 9,
                pending_bytes: 2048,
                bytes: 3 << 20,
                skipped_bytes: 0,
                quarantined_files: 1,
            }),
            trails: vec![TrailStatus {
                name: "main".into(),
                arn: "arn:aws:cloudtrail:us-east-1:111122223333:trail/main".into(),
                home_region: "us-east-1".into(),
                bucket: "logs".into(),
                prefix: "p".into(),
                sinks: vec![s3, sns],
                digests: Some(DigestStatus {
                    delivered: 3,
                    pending_windows: 2,
                    undeliverable: 0,
                    covered_until: Some("2026-01-01T01:00:00Z".into()),
                    last_delivery_at: None,
                    last_error: None,
                }),
            }],
        };
        let text = table(&status);
        let expected = "\
traild 0.1.0 · account 111122223333 · us-east-1 · not ready: disk is full
journal 77 B of 1.0 GiB · positions 0 to 77
event history 3.0 MiB · 2.0 KiB of the journal not in it yet · 1 damaged file put aside

TRAIL  SINK  DESTINATION                               DELIVERED  PENDING  OLDEST  DEAD  OBJECTS  LAST DELIVERY
main   s3    s3://logs/p                               1200       34       12s     0     5        -
main   sns   arn:aws:sns:us-east-1:111122223333:trail  1190       0        -       10    -        2026-01-01T00:00:00Z

digests of main reach to 2026-01-01T01:00:00Z, 2 windows not delivered yet

last errors:
  main s3: NoSuchBucket at 2026-01-01T00:00:00Z: the bucket does not exist
";
        assert_eq!(text, expected);
        let json = serde_json::to_vec(&status).unwrap();
        assert_eq!(serde_json::from_slice::<Status>(&json).unwrap(), status);
    }
}
