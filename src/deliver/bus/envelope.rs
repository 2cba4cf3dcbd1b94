//! An event as EventBridge takes it, the way CloudTrail sends it.
//!
//! | member | value |
//! |---|---|
//! | Source | by the template ([`source`]), `{service}` being the event's `eventSource` without `.amazonaws.com` |
//! | DetailType | by the kind of event: `AWS API Call via CloudTrail` and its kin |
//! | Time | the event's `eventTime` |
//! | Resources | none |
//! | Detail | the event, byte for byte |
//!
//! CloudTrail's own source is `aws.{service}`, which EventBridge lets nobody else use; `DetailType` and `Detail` are CloudTrail's, so that
//! a rule differs in its `source` alone (EventBridge user guide, "AWS service events delivered via CloudTrail").

use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use bytes::Bytes;

use super::source;
use crate::deliver::fanout::Refusal;
use crate::deliver::view::REFUSED;
use crate::event::Fields;
use crate::event::scan::Field;
use crate::event::time::parse_rfc3339;

/// What EventBridge counts for `Time` ("Calculating PutEvents event entry size").
const TIME_BYTES: usize = 14;

/// One entry of a PutEvents request, but for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    source: String,
    detail_type: &'static str,
    /// Seconds since 1970.
    time: Option<i64>,
    /// UTF-8.
    detail: Bytes,
}

impl Envelope {
    /// Refuses what is not one JSON object, as every accepted event is, and a source that EventBridge would not take.
    pub fn of(event: &Bytes, source_template: &str) -> Result<Self, Refusal> {
        let fields = match std::str::from_utf8(event) {
            Ok(_) => Fields::of(event),
            Err(_) => None,
        };
        let fields = fields.ok_or_else(|| refused("the event is not a JSON object"))?;
        let text = |field| fields.text(field);
        let source = source::of(
            source_template,
            service(text(Field::EventSource).as_deref()),
        )?;
        Ok(Self {
            source,
            detail_type: detail_type(
                text(Field::EventType).as_deref(),
                text(Field::EventCategory).as_deref(),
            ),
            time: text(Field::EventTime).and_then(|time| parse_rfc3339(time.as_bytes())),
            detail: event.clone(),
        })
    }

    /// Bytes that EventBridge counts of it ("Calculating PutEvents event entry size").
    pub fn size(&self) -> u64 {
        let time = self.time.map_or(0, |_| TIME_BYTES);
        (time + self.source.len() + self.detail_type.len() + self.detail.len()) as u64
    }

    /// For this bus, a name or an ARN.
    pub fn addressed(&self, bus: &str) -> PutEventsRequestEntry {
        let detail = String::from_utf8(self.detail.to_vec())
            .expect("detail: found to be UTF-8 when the envelope was made");
        PutEventsRequestEntry::builder()
            .event_bus_name(bus)
            .source(&self.source)
            .detail_type(self.detail_type)
            .set_time(self.time.map(DateTime::from_secs))
            .detail(detail)
            .build()
    }
}

/// Insight events have no `eventSource`; AWS sends them with CloudTrail's own.
fn service(event_source: Option<&str>) -> &str {
    let source = event_source.unwrap_or("cloudtrail");
    source.strip_suffix(".amazonaws.com").unwrap_or(source)
}

fn detail_type(event_type: Option<&str>, category: Option<&str>) -> &'static str {
    const API_CALL: &str = "AWS API Call via CloudTrail";
    const INSIGHT: &str = "AWS Insight via CloudTrail";
    const NETWORK_ACTIVITY: &str = "AWS Network Activity Event via CloudTrail";
    match (event_type, category) {
        (Some("AwsApiCall"), _) => API_CALL,
        // One list of the user guide spells "Signin"; the rules that work spell it so.
        (Some("AwsConsoleSignIn"), _) => "AWS Console Sign In via CloudTrail",
        (Some("AwsConsoleAction"), _) => "AWS Console Action via CloudTrail",
        (Some("AwsServiceEvent"), _) => "AWS Service Event via CloudTrail",
        (Some("AwsCloudTrailInsight"), _) => INSIGHT,
        // The user guide's text has the plural, its sample the singular.
        (Some("AwsVpceEvent" | "AwsVpceEvents"), _) => NETWORK_ACTIVITY,
        (_, Some("Insight")) => INSIGHT,
        (_, Some("NetworkActivity")) => NETWORK_ACTIVITY,
        _ => API_CALL,
    }
}

fn refused(message: &str) -> Refusal {
    Refusal {
        reason: REFUSED,
        message: message.to_owned(),
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
