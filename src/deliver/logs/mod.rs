//! To CloudWatch Logs: each event is one log event in the trail's log group, its text the record as it is in the log file.
//!
//! - The log stream is `<account>_CloudTrail_<region>`, the trail's home account and home region whatever the event's own; a trail that has
//!   a backlog uses up to three others beside it, `…_2`, `…_3` and `…_4` (CloudTrail user guide, "CloudWatch log group and log stream
//!   naming for CloudTrail"), each for one request at a time. A stream is made when it is first missed. The log group is not: it is the operator's, with its retention.
//! - The timestamp is the time of delivery, as CloudTrail's is: one for all of a request. So they are in order, and span no time.
//! - It asks for no more than CloudTrail's role policy allows: `logs:CreateLogStream` and `logs:PutLogEvents`.

mod batch;
mod rejected;

use std::sync::Arc;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use bytes::Bytes;

pub use batch::Text;

use super::failure::Failure;
use super::fanout::{Destination, Item, Refusal, Unreadable, Verdict, events};
use super::renewing::Renewing;
use crate::clock::WallMillis;
use crate::trail::{LogGroup, Trail};
use crate::wal::Position;

/// Each so many bytes of backlog double the streams that are written to at the same time.
const BYTES_PER_DOUBLING: u64 = 4 << 20;
/// Up to four streams. Each takes a request of 1 MiB, which is held three times while it is sent: as read, as a log event, as JSON.
const MAX_DOUBLINGS: u64 = 2;

/// The stream, or the group, is not there.
const NOT_FOUND: &str = "ResourceNotFoundException";

/// The log streams of one trail.
pub struct LogStreams {
    trail: Arc<Trail>,
    group: LogGroup,
    client: Renewing<Client>,
    max_event_bytes: usize,
}

impl LogStreams {
    /// Those of `trail` in `group`, which `client` may write to. An event of more than `max_event_bytes` is refused.
    pub fn new(
        trail: Arc<Trail>,
        group: LogGroup,
        client: Renewing<Client>,
        max_event_bytes: u64,
    ) -> Self {
        Self {
            trail,
            group,
            client,
            max_event_bytes: usize::try_from(max_event_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Makes the stream that a trail without a backlog writes to, and so sees that the group may be written to.
    pub async fn prepare(&self) -> Result<(), Failure> {
        self.create(&self.stream(0)).await
    }

    fn stream(&self, lane: usize) -> String {
        let Trail {
            home_account,
            home_region,
            ..
        } = &*self.trail;
        match lane {
            0 => format!("{home_account}_CloudTrail_{home_region}"),
            _ => format!("{home_account}_CloudTrail_{home_region}_{}", lane + 1),
        }
    }

    /// How many streams are written to at the same time, while this many bytes of the log wait: one near its end.
    fn streams(behind: u64) -> usize {
        1 << (behind / BYTES_PER_DOUBLING).min(MAX_DOUBLINGS)
    }

    async fn put(&self, stream: &str, texts: &[Text]) -> Result<Vec<Verdict>, Failure> {
        let WallMillis(now) = WallMillis::now();
        let log_events = texts.iter().map(|text| log_event(text, now)).collect();
        let put = self.client.attempt(async |client| {
            client
                .put_log_events()
                .log_group_name(self.group.name())
                .log_stream_name(stream)
                .set_log_events(Some(log_events))
                .send()
                .await
                .map_err(|error| Failure::of(&error))
        });
        let answer = put.await?;
        Ok(rejected::verdicts(
            answer.rejected_log_events_info(),
            texts.len(),
        ))
    }

    /// Makes the stream, unless somebody else has.
    async fn create(&self, stream: &str) -> Result<(), Failure> {
        let create = self.client.attempt(async |client| {
            client
                .create_log_stream()
                .log_group_name(self.group.name())
                .log_stream_name(stream)
                .send()
                .await
                .map_err(|error| Failure::of(&error))
        });
        match create.await {
            Ok(_) => {
                tracing::info!(trail = %self.trail.name, log_group = self.group.name(), stream, "log stream created");
                Ok(())
            }
            Err(failure) if failure.code == "ResourceAlreadyExistsException" => Ok(()),
            Err(failure) if failure.code == NOT_FOUND => Err(self.group_is_missing(failure)),
            // No event is to blame for it.
            Err(failure) if failure.is_about_content() => Err(Failure::new(
                "CreateLogStream",
                format!("{}: {}", failure.code, failure.message),
            )),
            Err(failure) => Err(failure),
        }
    }

    /// PutLogEvents names a group, not its account, which is that of the credentials: so a wrong role looks like a missing group.
    fn group_is_missing(&self, failure: Failure) -> Failure {
        let (name, region) = (self.group.name(), self.group.region());
        let message = format!(
            "log group {name} does not exist in {region} for account {}; \
             create it there, or correct cloud_watch_logs_log_group_arn or the role",
            self.group.account()
        );
        Failure {
            status: failure.status,
            ..Failure::new(&failure.code, message)
        }
    }
}

impl Destination for LogStreams {
    type Entry = Text;

    fn target(&self) -> &str {
        self.group.arn()
    }

    fn read(&self, at: Position, frame: Bytes) -> Result<Vec<Item>, Unreadable> {
        let item = events::read(&self.trail, at, &frame)?;
        Ok(item.into_iter().collect())
    }

    fn entry(&self, item: &Item) -> Result<Text, Refusal> {
        Text::new(item.json.clone(), self.max_event_bytes)
    }

    fn fits(&self, entries: &[Text]) -> usize {
        batch::fits(entries)
    }

    fn lanes(&self, behind: u64) -> usize {
        Self::streams(behind)
    }

    /// As many as there are streams: a chunk has 1 MiB at most, so it makes about one request.
    fn chunks(&self, behind: u64) -> usize {
        Self::streams(behind)
    }

    async fn send(&self, lane: usize, entries: &[Text]) -> Result<Vec<Verdict>, Failure> {
        let stream = self.stream(lane);
        match self.put(&stream, entries).await {
            Err(failure) if failure.code == NOT_FOUND => {
                self.create(&stream).await?;
                self.put(&stream, entries).await
            }
            result => result,
        }
    }
}

fn log_event(text: &Text, at: i64) -> InputLogEvent {
    InputLogEvent::builder()
        .timestamp(at)
        .message(text.as_str())
        .build()
        .expect("log event: it has a timestamp and a message")
}

#[cfg(test)]
mod tests;
