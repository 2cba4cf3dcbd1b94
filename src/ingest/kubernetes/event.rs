//! An audit event as the API server writes it (Kubernetes documentation, "kube-apiserver Audit Configuration (v1)"), as far as it is looked into.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::event::Code;
use crate::event::refusal::shown;

/// Addresses that are kept.
const MAX_ADDRESSES: usize = 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    #[serde(rename = "auditID", default)]
    pub audit_id: String,
    #[serde(default)]
    pub level: String,
    #[serde(default)]
    pub stage: String,
    #[serde(rename = "requestURI", default)]
    pub request_uri: String,
    #[serde(default)]
    pub verb: String,
    #[serde(borrow, default)]
    pub user: User<'a>,
    #[serde(borrow)]
    pub impersonated_user: Option<&'a RawValue>,
    #[serde(rename = "sourceIPs")]
    pub source_ips: Option<Addresses>,
    pub user_agent: Option<String>,
    pub object_ref: Option<ObjectRef>,
    pub response_status: Option<ResponseStatus>,
    #[serde(borrow)]
    pub request_object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub response_object: Option<&'a RawValue>,
    #[serde(default)]
    pub request_received_timestamp: String,
    #[serde(default)]
    pub stage_timestamp: String,
    #[serde(borrow)]
    pub annotations: Option<&'a RawValue>,
}

/// Who was authenticated.
#[derive(Debug, Default, Deserialize)]
pub struct User<'a> {
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub uid: String,
    #[serde(borrow)]
    pub groups: Option<&'a RawValue>,
    #[serde(borrow)]
    pub extra: Option<&'a RawValue>,
}

/// The last of a list of addresses, of which a client may have made all but the very last.
#[derive(Debug, Default)]
pub struct Addresses(pub Vec<String>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(AddressList)
    }
}

struct AddressList;

impl<'de> Visitor<'de> for AddressList {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut addresses: A) -> Result<Addresses, A::Error> {
        let mut last = VecDeque::new();
        while let Some(address) = addresses.next_element()? {
            if last.len() == MAX_ADDRESSES {
                last.pop_front();
            }
            last.push_back(address);
        }
        Ok(Addresses(last.into()))
    }
}

/// What the request is about; none for a path that is no resource.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub api_group: String,
    pub api_version: String,
    pub resource_version: String,
    pub subresource: String,
}

/// A `Status` of `meta/v1`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    pub status: Option<String>,
    pub message: Option<String>,
    pub reason: Option<String>,
    pub code: Option<i64>,
}

impl<'a> Event<'a> {
    /// Or why it is none.
    pub fn read(item: &'a RawValue) -> Result<Self, (Code, String)> {
        let event: Self = serde_json::from_str(item.get()).map_err(|error| {
            let error = shown(error.to_string().as_bytes(), 256);
            (Code::InvalidJson, format!("not an audit event: {error}"))
        })?;
        let required = [
            ("stage", &event.stage),
            ("auditID", &event.audit_id),
            ("verb", &event.verb),
        ];
        match required.iter().find(|(_, text)| text.is_empty()) {
            Some((name, _)) => Err((Code::MissingField, format!("{name} is missing"))),
            None => Ok(event),
        }
    }

    /// Whether it tells of a request with its outcome.
    pub fn is_answered(&self) -> bool {
        matches!(self.stage.as_str(), "ResponseComplete" | "Panic")
    }

    /// When the request was made; where that is not said, when it came to its stage.
    pub fn time(&self) -> Cow<'_, str> {
        let given = match self.request_received_timestamp.is_empty() {
            true => &self.stage_timestamp,
            false => &self.request_received_timestamp,
        };
        // The server writes microseconds, CloudTrail whole seconds.
        match given.split_once('.') {
            Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z").into(),
            _ => given.into(),
        }
    }
}
