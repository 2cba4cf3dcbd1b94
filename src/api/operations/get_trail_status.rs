//! GetTrailStatus: whether a trail records, and how its deliveries go.
//!
//! What has not happened is left out, but for the six texts, which AWS gives as "". Deliveries are those since the daemon was started.

use serde::{Deserialize, Serialize};

use crate::api::status::{Latest, TrailFacts};
use crate::api::timestamp::Timestamp;
use crate::api::{Call, Error, Operation, trail};
use crate::clock::WallMillis;
use crate::registry::Entry;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GetTrailStatus {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Answer {
    is_logging: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_delivery_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_notification_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_delivery_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_notification_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_logging_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_logging_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_cloud_watch_logs_delivery_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_cloud_watch_logs_delivery_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_digest_delivery_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_digest_delivery_error: Option<String>,
    latest_delivery_attempt_time: String,
    latest_notification_attempt_time: String,
    latest_notification_attempt_succeeded: String,
    latest_delivery_attempt_succeeded: String,
    time_logging_started: String,
    time_logging_stopped: String,
}

impl Operation for GetTrailStatus {
    const NAME: &'static str = "GetTrailStatus";
    type Answer = Answer;

    fn resources(&self, call: &Call<'_>) -> Vec<String> {
        vec![trail::resource(&self.name, call)]
    }

    async fn run(self, call: &Call<'_>) -> Result<Answer, Error> {
        let entry = trail::found(call, &self.name)?;
        let facts = (call.home.facts)(&entry.trail.arn());
        Ok(answer(&entry, facts.unwrap_or_default()))
    }
}

fn answer(entry: &Entry, facts: TrailFacts) -> Answer {
    let TrailFacts {
        log_files,
        notifications,
        log_events,
        digests,
    } = facts;
    let [notifications, log_events, digests] =
        [notifications, log_events, digests].map(Option::unwrap_or_default);
    let text = |at: Option<WallMillis>| at.map(WallMillis::rfc3339).unwrap_or_default();
    let delivered = |latest: &Latest| latest.delivered_at.map(Timestamp);
    Answer {
        is_logging: entry.trail.logging.is_on(),
        latest_delivery_time: delivered(&log_files),
        latest_delivery_attempt_time: text(log_files.attempted_at),
        latest_delivery_attempt_succeeded: text(log_files.delivered_at),
        latest_delivery_error: log_files.error,
        latest_notification_time: delivered(&notifications),
        latest_notification_attempt_time: text(notifications.attempted_at),
        latest_notification_attempt_succeeded: text(notifications.delivered_at),
        latest_notification_error: notifications.error,
        latest_cloud_watch_logs_delivery_time: delivered(&log_events),
        latest_cloud_watch_logs_delivery_error: log_events.error,
        latest_digest_delivery_time: delivered(&digests),
        latest_digest_delivery_error: digests.error,
        start_logging_time: entry.started_at.map(Timestamp),
        stop_logging_time: entry.stopped_at.map(Timestamp),
        time_logging_started: text(entry.started_at),
        time_logging_stopped: text(entry.stopped_at),
    }
}
