//! SNS: the news of each log file, as CloudTrail publishes it (CloudTrail user guide, "configuring Amazon SNS notifications").
//!
//! - One message a log file, sent when the object is known to be in its bucket: `{"s3Bucket":"…","s3ObjectKey":["…"]}`. The user guide lets
//!   a message have several keys; AWS is seen to send one.
//! - No subject and no message attributes; nothing for digest files.
//! - A topic that is new to the trail gets `CloudTrail validation message.` first, which consumers of CloudTrail's topics know to skip.
//! - The ledger says which log files there are, so that a crash between an upload and its message does not lose the message.

use aws_sdk_sns::Client;
use bytes::Bytes;
use serde::Serialize;

use super::failure::Failure;
use super::fanout::{Destination, Item, ItemId, Refusal, Unreadable, Verdict};
use super::renewing::Renewing;
use super::view::{REFUSED, TOO_LARGE};
use crate::ledger::{self, Object};
use crate::trail::{Topic, Trail};
use crate::wal::Position;

/// What CloudTrail publishes when a trail is given a topic.
const VALIDATION_MESSAGE: &str = "CloudTrail validation message.";
/// Of one message, in UTF-8 (SNS API reference, Publish, parameter `Message`: by default, as topics may allow more or less).
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// Requests at a time.
const LANES: usize = 4;

/// The leg from a trail to its topic.
pub struct Notifications {
    /// The trail's ARN, as the ledger names it.
    trail: String,
    topic: Topic,
    client: Renewing<Client>,
}

/// The message, its members in CloudTrail's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    s3_bucket: &'a str,
    s3_object_key: [&'a str; 1],
}

impl Notifications {
    /// `client` is of the topic's region.
    pub fn new(trail: &Trail, topic: Topic, client: Renewing<Client>) -> Self {
        Self {
            trail: trail.arn(),
            topic,
            client,
        }
    }

    async fn publish(&self, message: &str) -> Result<(), Failure> {
        let publish = self.client.attempt(async |client| {
            let publish = client.publish().topic_arn(self.topic.arn());
            let published = publish.message(message).send().await;
            published.map_err(|error| Failure::of(&error))
        });
        match publish.await {
            Ok(_) => Ok(()),
            Err(failure) if failure.code == "NotFound" => Err(self.topic_is_missing(failure)),
            Err(failure) => Err(failure),
        }
    }

    fn topic_is_missing(&self, failure: Failure) -> Failure {
        let message = format!(
            "topic {} does not exist: create it, or name another one in sns_topic_arn; \
             until then its notifications wait here",
            self.topic.arn()
        );
        Failure {
            status: failure.status,
            ..Failure::new(&failure.code, message)
        }
    }
}

impl Destination for Notifications {
    type Entry = String;

    fn target(&self) -> &str {
        self.topic.arn()
    }

    async fn introduce(&self) -> Result<(), Failure> {
        self.publish(VALIDATION_MESSAGE).await
    }

    /// Lines that are no entry are passed over, as they are when the ledger is replayed, where they are told of.
    fn read(&self, at: Position, frame: Bytes) -> Result<Vec<Item>, Unreadable> {
        Ok(items(&self.trail, at, &frame))
    }

    fn entry(&self, item: &Item) -> Result<String, Refusal> {
        message(&item.json)
    }

    /// One message a request. PublishBatch would take ten, and answer for each by itself; a trail delivers a log file now and then, so its
    /// requests would hold one message anyhow.
    fn fits(&self, _entries: &[String]) -> usize {
        1
    }

    fn lanes(&self, _behind: u64) -> usize {
        LANES
    }

    async fn send(&self, _lane: usize, entries: &[String]) -> Result<Vec<Verdict>, Failure> {
        let mut verdicts = Vec::with_capacity(entries.len());
        for message in entries {
            self.publish(message).await?;
            verdicts.push(Verdict::Delivered);
        }
        Ok(verdicts)
    }
}

/// The notifications of the log files that a frame of the ledger says are in the bucket of this trail.
fn items(trail: &str, at: Position, frame: &[u8]) -> Vec<Item> {
    let delivered = ledger::settled(frame, trail)
        .filter_map(|(index, settled)| Some((index, settled.object?, settled.settled_at)));
    delivered
        .map(|(index, object, since)| Item {
            id: ItemId {
                position: at,
                index,
            },
            events: u64::from(object.events),
            since,
            json: notification(&object),
        })
        .collect()
}

fn notification(object: &Object) -> Bytes {
    let message = Message {
        s3_bucket: &object.bucket,
        s3_object_key: [&object.key],
    };
    let json = serde_json::to_vec(&message).expect("notification: two strings always serialise");
    json.into()
}

fn message(json: &[u8]) -> Result<String, Refusal> {
    let bytes = json.len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(Refusal {
            reason: TOO_LARGE,
            message: format!(
                "the message has {bytes} bytes, SNS takes at most {MAX_MESSAGE_BYTES}"
            ),
        });
    }
    String::from_utf8(json.to_vec()).map_err(|_| Refusal {
        reason: REFUSED,
        message: "the message is not UTF-8".to_owned(),
    })
}

#[cfg(test)]
mod tests;
