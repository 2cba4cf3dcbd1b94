//! `traild send`: events from files to a running daemon.
//!
//! A thread reads and cuts batches while the one before is on its way; two batches are the most that wait. A batch whose answer was lost
//! is sent again as it was: every event has an `eventID`, so the daemon counts what it already has as duplicates.

mod source;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use http::{StatusCode, header};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::client::{Answer, Client, SIGNING_HINT};
use super::{EndpointArgument, Failure, counted, talk};
use source::{Event, SourceError};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    endpoint: EndpointArgument,
    /// NDJSON, a JSON array or {"Records":[…]}, plain or gzip; - is the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A request's worth of events.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_EVENTS: usize = 500;

/// How long one answer may take; an answer waits for the daemon's disk.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// How long to go on trying without any progress: less when nothing was ever reached, since then the endpoint is probably wrong.
const REACH_PATIENCE: Duration = Duration::from_secs(3);
const RETRY_PATIENCE: Duration = Duration::from_secs(300);

/// Refused events told by name; the rest is counted.
const TOLD: usize = 10;

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let runtime = super::runtime()?;
    let outcome = send_all(&runtime, arguments);
    // A thread that still waits for the standard input must not keep the program.
    runtime.shutdown_background();
    outcome
}

fn send_all(runtime: &tokio::runtime::Runtime, arguments: Arguments) -> Result<(), Failure> {
    let size = arguments
        .files
        .iter()
        .map(|path| std::fs::metadata(path).ok().map(|metadata| metadata.len()))
        .sum();
    let progress = progress(size);
    let mut sender = Sender::new(arguments.endpoint.client(), progress.clone());
    let mut unread = 0;
    for path in &arguments.files {
        let outcome = runtime.block_on(send_file(path, &mut sender));
        match outcome {
            Ok(()) => {}
            // What was read before is sent; the other files are sent, too.
            Err(Stop::Source(error)) => {
                unread += 1;
                progress.suspend(|| {
                    talk(format!(
                        "error: cannot send all of {}: {:#}",
                        path.display(),
                        anyhow!(error)
                    ))
                });
            }
            Err(Stop::Failure(failure)) => {
                progress.finish_and_clear();
                talk(sender.tally.summary(arguments.files.len()));
                return Err(failure);
            }
        }
    }
    progress.finish_and_clear();
    for line in &sender.tally.told {
        talk(line);
    }
    talk(sender.tally.summary(arguments.files.len()));
    if sender.tally.rejected > 0 || unread > 0 {
        Err(Failure::Told)
    } else {
        Ok(())
    }
}

fn progress(size: Option<u64>) -> ProgressBar {
    // Draws on stderr, and only when that is a terminal.
    let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = if size.is_some() {
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}"
    } else {
        "{spinner} {bytes} {bytes_per_sec} {msg}"
    };
    bar.with_style(ProgressStyle::with_template(template).expect("progress template: well-formed"))
}

enum Stop {
    /// The rest of this file cannot be read.
    Source(SourceError),
    /// Nothing more can be sent.
    Failure(Failure),
}

async fn send_file(path: &Path, sender: &mut Sender) -> Result<(), Stop> {
    let read_bytes = Arc::new(AtomicU64::new(0));
    let input =
        open(path, read_bytes.clone()).map_err(|error| Stop::Source(SourceError::Io(error)))?;
    let (batches, mut waiting) = mpsc::channel(1);
    let reader = tokio::task::spawn_blocking(move || cut(input, &batches));
    let mut first_index = 0;
    let already = sender.progress.position();
    while let Some(batch) = waiting.recv().await {
        let events = batch.events.len() as u64;
        sender
            .deliver(path, first_index, batch)
            .await
            .map_err(Stop::Failure)?;
        first_index += events;
        sender
            .progress
            .set_position(already + read_bytes.load(Ordering::Relaxed));
        sender
            .progress
            .set_message(format!("{} accepted", sender.tally.accepted));
    }
    let outcome = reader.await.map_err(|error| Stop::Failure(error.into()))?;
    sender
        .progress
        .set_position(already + read_bytes.load(Ordering::Relaxed));
    outcome.map_err(Stop::Source)
}

/// Counts what was read of a file, compressed as it is.
struct Counted<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.bytes.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

fn open(path: &Path, bytes: Arc<AtomicU64>) -> io::Result<Counted<Box<dyn Read + Send>>> {
    let input: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    Ok(Counted { input, bytes })
}

/// Events to send in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Batch {
    events: Vec<Vec<u8>>,
    /// Sent as a JSON array, since a value may span lines; else as NDJSON, since a line may be no JSON.
    array: bool,
}

impl Batch {
    fn body(&self) -> (&'static str, Bytes) {
        let size: usize = self.events.iter().map(|event| event.len() + 1).sum();
        let mut body = Vec::with_capacity(size + 2);
        if self.array {
            body.push(b'[');
            for (index, event) in self.events.iter().enumerate() {
                body.extend_from_slice(if index == 0 { b"" } else { b"," });
                body.extend_from_slice(event);
            }
            body.push(b']');
            return ("application/json", body.into());
        }
        for event in &self.events {
            body.extend_from_slice(event);
            body.push(b'\n');
        }
        ("application/x-ndjson", body.into())
    }
}

/// Reads `input` and gives it to `batches` in batches, until nobody takes them.
fn cut(input: impl Read, batches: &mpsc::Sender<Batch>) -> Result<(), SourceError> {
    let mut open = Batch {
        events: Vec::new(),
        array: false,
    };
    let mut size = 0;
    let give = |batch: Batch| batch.events.is_empty() || batches.blocking_send(batch).is_ok();
    let outcome = source::read(input, |event| {
        let (bytes, array) = match event {
            Event::Line(bytes) => (bytes, false),
            Event::Value(bytes) => (bytes, true),
        };
        let full = open.events.len() == BATCH_EVENTS
            || (size + bytes.len() > BATCH_BYTES && !open.events.is_empty());
        if full || open.array != array {
            let closed = std::mem::replace(
                &mut open,
                Batch {
                    events: Vec::new(),
                    array,
                },
            );
            size = 0;
            if !give(closed) {
                return false;
            }
        }
        size += bytes.len() + 1;
        open.events.push(bytes);
        true
    });
    // What was sound before the damage is sent.
    give(open);
    outcome
}

/// What became of the events.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    rejected: u64,
    told: Vec<String>,
}

impl Tally {
    fn reject(
        &mut self,
        path: &Path,
        index: u64,
        event_id: Option<&str>,
        code: &str,
        message: &str,
    ) {
        self.rejected += 1;
        if self.told.len() < TOLD {
            let id = event_id.map(|id| format!(" ({id})")).unwrap_or_default();
            self.told.push(format!(
                "{}: event {index}{id} was rejected: {code}: {message}",
                path.display()
            ));
        }
    }

    fn summary(&self, files: usize) -> String {
        let more = self.rejected - self.told.len() as u64;
        let more = if more > 0 {
            format!(" ({more} of them not shown)")
        } else {
            String::new()
        };
        format!(
            "{}: {} accepted, {} duplicates, {} rejected{more}",
            counted(files, "file"),
            self.accepted,
            self.duplicates,
            self.rejected
        )
    }
}

struct Sender {
    client: Client,
    progress: ProgressBar,
    tally: Tally,
    /// Since when nothing went well; `None` before the first answer.
    last_success: Option<Instant>,
    started: Instant,
}

/// The daemon's answer to events.
#[derive(Debug, Deserialize)]
struct Receipt {
    accepted: u64,
    duplicates: u64,
    rejected: Vec<Rejection>,
}

#[derive(Debug, Deserialize)]
struct Rejection {
    index: u64,
    #[serde(rename = "eventID")]
    event_id: Option<String>,
    code: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

/// What an answer means.
enum Verdict {
    Final(Outcome),
    Again {
        after: Option<Duration>,
        reason: String,
    },
}

/// An answer that sending again would not change.
enum Outcome {
    Receipt(Receipt),
    /// The whole body was refused, for its size or its content.
    BodyRefused(Refusal),
    /// No other body would fare better.
    Hopeless(Refusal),
}

impl Sender {
    fn new(client: Client, progress: ProgressBar) -> Self {
        Self {
            client,
            progress,
            tally: Tally::default(),
            last_success: None,
            started: Instant::now(),
        }
    }

    /// Sends `batch`, whose first event is number `first` of `path`, until it is answered for good.
    async fn deliver(&mut self, path: &Path, first: u64, batch: Batch) -> Result<(), Failure> {
        let mut work = VecDeque::from([(first, batch)]);
        while let Some((first, mut batch)) = work.pop_front() {
            match self.exchange(&batch).await? {
                Outcome::Receipt(receipt) => {
                    self.tally.accepted += receipt.accepted;
                    self.tally.duplicates += receipt.duplicates;
                    for Rejection {
                        index,
                        event_id,
                        code,
                        message,
                    } in receipt.rejected
                    {
                        self.tally.reject(
                            path,
                            first + index,
                            event_id.as_deref(),
                            &code,
                            &message,
                        );
                    }
                }
                // One bad event must not take its neighbours with it.
                Outcome::BodyRefused(_) if batch.events.len() > 1 => {
                    let half = batch.events.len() / 2;
                    let rest = Batch {
                        events: batch.events.split_off(half),
                        array: batch.array,
                    };
                    work.push_front((first + half as u64, rest));
                    work.push_front((first, batch));
                }
                Outcome::BodyRefused(refusal) => {
                    self.tally
                        .reject(path, first, None, &refusal.code, &refusal.message);
                }
                Outcome::Hopeless(refusal) => {
                    let error = anyhow!(
                        "{} refused the events: {}: {}",
                        self.client.endpoint(),
                        refusal.code,
                        refusal.message
                    );
                    // AWS's names are of the door alone.
                    let hint = if refusal.code.ends_with("Exception") {
                        SIGNING_HINT
                    } else {
                        "is it the api listener of a traild?"
                    };
                    return Err(Failure::hinted(error, hint));
                }
            }
        }
        Ok(())
    }

    /// Sends until there is an answer that sending again would not change.
    async fn exchange(&mut self, batch: &Batch) -> Result<Outcome, Failure> {
        let (content_type, body) = batch.body();
        let mut pause = Duration::from_millis(100);
        let mut told = false;
        loop {
            let answer = self
                .client
                .post("/v1/events", content_type, body.clone(), ANSWER_PATIENCE)
                .await;
            let (error, after) = match answer.map(|answer| verdict(&answer)) {
                Ok(Verdict::Again { after, reason }) => {
                    // It is there, and it is busy: from now on it is worth the long wait.
                    self.last_success.get_or_insert_with(Instant::now);
                    (
                        anyhow!(
                            "{} cannot take events now: {reason}",
                            self.client.endpoint()
                        ),
                        after,
                    )
                }
                Ok(Verdict::Final(outcome)) => {
                    self.last_success = Some(Instant::now());
                    return Ok(outcome);
                }
                Err(error) => (error, None),
            };
            let (since, patience) = match self.last_success {
                Some(moment) => (moment, RETRY_PATIENCE),
                None => (self.started, REACH_PATIENCE),
            };
            if since.elapsed() >= patience {
                return Err(Failure::hinted(
                    error,
                    "is traild running and healthy? see traild status; sending again is safe",
                ));
            }
            if !told {
                self.progress
                    .suspend(|| talk(format!("{error:#}, will try again")));
                told = true;
            }
            tokio::time::sleep(after.unwrap_or(pause).min(Duration::from_secs(30))).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

fn verdict(answer: &Answer) -> Verdict {
    let refusal = || {
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| Refusal {
            code: answer.status.as_str().to_owned(),
            message: String::from_utf8_lossy(&answer.body)
                .chars()
                .take(200)
                .collect(),
        })
    };
    let outcome = match answer.status {
        StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
            match serde_json::from_slice(&answer.body) {
                Ok(receipt) => Outcome::Receipt(receipt),
                Err(_) if answer.status == StatusCode::BAD_REQUEST => {
                    Outcome::BodyRefused(refusal())
                }
                Err(_) => Outcome::Hopeless(refusal()),
            }
        }
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::BodyRefused(refusal()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            return again(answer, refusal());
        }
        status if status.is_server_error() => return again(answer, refusal()),
        _ => Outcome::Hopeless(refusal()),
    };
    Verdict::Final(outcome)
}

fn again(answer: &Answer, refusal: Refusal) -> Verdict {
    let seconds = answer
        .headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Verdict::Again {
        after: seconds.map(Duration::from_secs),
        reason: format!("{}: {}", refusal.code, refusal.message),
    }
}

#[cfg(test)]
mod tests;
