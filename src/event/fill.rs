//! Writes an event as it is stored: the bytes as given, absent members spliced in before the closing brace.
//!
//! Which members belong depends on the category (CloudTrail user guide, "record contents", "Insights events", "network activity
//! events", "Lake integrations event schema"): an Insight event has no caller and no request, a network activity event in the guide's sample
//! no request, response or `readOnly`, and an event of another source than AWS need have none of them, nor an address. Those are not invented.

use std::io::Write;

use uuid::Uuid;

use super::check::Checked;
use super::scan::Field;
use super::types::Category;

/// The newest version of the record that traild knows.
const EVENT_VERSION: &str = "1.11";

/// What is put into members that were not given.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    pub event_id: Uuid,
    /// The peer's address, for `sourceIPAddress`.
    pub source_address: &'a str,
}

impl Checked<'_> {
    /// At least as many bytes as [`write`](Self::write) appends.
    pub fn most_bytes(&self, source_address: &str) -> usize {
        let added: usize = self
            .additions()
            .iter()
            .filter(|(field, _)| self.lacks(*field))
            // A comma, two quotes and a colon.
            .map(|(field, value)| {
                field.name().len() + 4 + self.most_value_bytes(value, source_address)
            })
            .sum();
        self.given.len() + added
    }

    /// Appends the event's JSON to `out`.
    pub fn write(&self, out: &mut Vec<u8>, filling: Filling<'_>) {
        let body = &self.given[..self.given.len() - 1];
        out.extend_from_slice(body);
        for (field, value) in self.additions() {
            if !self.lacks(*field) {
                continue;
            }
            out.extend_from_slice(b",\"");
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            self.write_value(out, value, filling);
        }
        out.push(b'}');
    }

    /// The members an event of this category has always.
    fn additions(&self) -> &'static [(Field, Value)] {
        use Field::{
            AwsRegion, EventCategory, EventId, EventType, EventVersion, ManagementEvent, ReadOnly,
            RecipientAccountId, RequestParameters, ResponseElements, SourceIpAddress, UserIdentity,
        };
        match self.category {
            Category::Insight => &[
                (EventVersion, Value::Text(EVENT_VERSION)),
                (AwsRegion, Value::Region),
                (EventId, Value::EventId),
                (EventType, Value::Text("AwsCloudTrailInsight")),
                (RecipientAccountId, Value::Account),
                (EventCategory, Value::Text("Insight")),
            ],
            Category::NetworkActivity => &[
                (EventVersion, Value::Text(EVENT_VERSION)),
                (UserIdentity, Value::Json("{\"type\":\"Unknown\"}")),
                (AwsRegion, Value::Region),
                (SourceIpAddress, Value::SourceAddress),
                (EventId, Value::EventId),
                (EventType, Value::Text("AwsVpceEvent")),
                (RecipientAccountId, Value::Account),
                (EventCategory, Value::Text("NetworkActivity")),
            ],
            Category::ActivityAuditLog => &[
                (EventVersion, Value::Text(EVENT_VERSION)),
                (UserIdentity, Value::Json("{\"type\":\"Unknown\"}")),
                (AwsRegion, Value::Region),
                (EventId, Value::EventId),
                (EventType, Value::Text("ActivityLog")),
                (RecipientAccountId, Value::Account),
                (EventCategory, Value::Text("ActivityAuditLog")),
            ],
            Category::Management | Category::Data => &[
                (EventVersion, Value::Text(EVENT_VERSION)),
                (UserIdentity, Value::Json("{\"type\":\"Unknown\"}")),
                (AwsRegion, Value::Region),
                (SourceIpAddress, Value::SourceAddress),
                (RequestParameters, Value::Json("null")),
                (ResponseElements, Value::Json("null")),
                (EventId, Value::EventId),
                (ReadOnly, Value::ReadOnly),
                (EventType, Value::Text("AwsApiCall")),
                (ManagementEvent, Value::IsManagement),
                (RecipientAccountId, Value::Account),
                (EventCategory, Value::Category),
            ],
        }
    }

    /// At least as many bytes as `write_value` appends.
    fn most_value_bytes(&self, value: &Value, source_address: &str) -> usize {
        match value {
            Value::Text(text) => text.len() + 2,
            Value::Region => self.region.as_str().len() + 2,
            Value::Account => self.account.as_str().len() + 2,
            Value::Category => "\"Management\"".len(),
            Value::EventId => uuid::fmt::Hyphenated::LENGTH + 2,
            Value::Json(json) => json.len(),
            Value::ReadOnly | Value::IsManagement => "false".len(),
            // A control character becomes six bytes.
            Value::SourceAddress => 6 * source_address.len() + 2,
        }
    }

    fn write_value(&self, out: &mut Vec<u8>, value: &Value, filling: Filling<'_>) {
        let mut quoted = |text: &str| {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        };
        match value {
            Value::Text(text) => quoted(text),
            Value::Region => quoted(self.region.as_str()),
            Value::Account => quoted(self.account.as_str()),
            Value::Category => quoted(if self.category == Category::Data {
                "Data"
            } else {
                "Management"
            }),
            Value::EventId => quoted(
                filling
                    .event_id
                    .hyphenated()
                    .encode_lower(&mut Uuid::encode_buffer()),
            ),
            Value::Json(json) => out.extend_from_slice(json.as_bytes()),
            Value::ReadOnly => out.extend_from_slice(self.read_only.to_string().as_bytes()),
            Value::IsManagement => {
                out.extend_from_slice(
                    (self.category == Category::Management)
                        .to_string()
                        .as_bytes(),
                );
            }
            Value::SourceAddress => {
                serde_json::to_writer(out.by_ref(), filling.source_address)
                    .expect("writing a string into memory: cannot fail");
            }
        }
    }
}

enum Value {
    Text(&'static str),
    Json(&'static str),
    Region,
    Account,
    Category,
    EventId,
    ReadOnly,
    IsManagement,
    SourceAddress,
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
