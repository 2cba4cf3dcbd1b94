//! What the API is asked, as CloudTrail events of the caller's account: CloudTrail records its own API like any other.
//!
//! Every operation that AWS has is recorded, whether it was done, refused or is not built; what nobody could be known for is not: requests that were turned away
//! at the door, or that name no operation. Neither are the ways in for events, which would make more of themselves.
//!
//! - A **change** is refused before it is made when there is no room for its record (`ServiceUnavailableException`). Its record is durable before it is
//!   answered, also when the caller has hung up. A crash between the two leaves a change without a record and without an answer.
//! - What only **reads** is answered even when its record cannot be kept, or not in time; that is counted and logged.
//! - A request whose record would not tell what is done is refused before anything is ([`can_tell`]).
//!
//! ```text
//!  room in the journal ─► can_tell(request) ─► operation ─► record(request, outcome) ─► journal, durable ─► answer
//! ```

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::Error;
use super::protocol::Service;
use crate::auth::{Caller, Principal};
use crate::clock::WallMillis;
use crate::event::check::MAX_DEPTH;
use crate::event::refusal::shown;
use crate::ingest::Ingest;
use crate::ingest::records::{Origin, RecordError, Room};
use crate::telemetry;

/// CloudTrail's limits of fields: texts are cut, what objects have too much is left out (user guide, "CloudTrail record contents").
const MAX_TEXT_BYTES: usize = 1 << 10;
const MAX_OBJECT_BYTES: usize = 100 << 10;

/// What a record holds besides its request and answer: texts at their limits, each byte of which may be escaped.
const HEAD_BYTES: usize = 24 << 10;

/// How much longer a request or what it is answered with can be in a record: 0.1 MB of `1e20` are numbers of 22 digits there.
const GROWTH: usize = 10;

/// Members of a request, and bytes of their names: several times what any operation has. Marks of all of them are within an object's limit, and so
/// are all of them together when none is longer than a name or an ARN can be.
const MOST_MEMBERS: usize = 64;
const MOST_NAME_BYTES: usize = 128;

/// How long an answer that only reads waits for its record.
const READ_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps records. Clones share everything.
#[derive(Clone)]
pub struct Records {
    ingest: Ingest,
    metrics: Metrics,
}

/// What records count; `Default` makes unregistered ones.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    kept: Counter,
    lost: Counter,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self { kept, lost } = self;
        registry.register(
            "traild_audit_records",
            "Calls of the API that were recorded as events",
            kept.clone(),
        );
        registry.register(
            "traild_audit_records_lost",
            "Calls of the API whose record could not be kept",
            lost.clone(),
        );
    }
}

/// A call of the API, as far as it is known before it runs.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub service: Service,
    /// One that there is.
    pub operation: &'static str,
    /// Of the request.
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub caller: &'a Caller,
    pub now: WallMillis,
    /// As it is answered.
    pub request_id: Uuid,
}

impl Asked<'_> {
    /// Whether it changes nothing: what its verb says, as all of CloudTrail's that are built do.
    pub fn only_reads(&self) -> bool {
        ["Describe", "Get", "List", "Lookup", "Search"]
            .iter()
            .any(|verb| self.operation.starts_with(verb))
    }
}

impl Records {
    pub fn new(ingest: Ingest, metrics: Metrics) -> Self {
        Self { ingest, metrics }
    }

    /// Room for the record of a change. Without it, the change must not be made.
    pub fn room(&self, asked: &Asked<'_>) -> Result<Room, Error> {
        if self.ingest.is_stopping() {
            return Err(Error::Unrecordable("the daemon is stopping".to_owned()));
        }
        let room = self.ingest.room(most_bytes(asked));
        room.map_err(|error| Error::Unrecordable(error.to_string()))
    }

    /// Keeps the record of a change; resolves when it is durable. A change that is made and not recorded is not answered as done.
    pub async fn keep_change(
        &self,
        room: Room,
        asked: &Asked<'_>,
        outcome: Result<Vec<u8>, Error>,
    ) -> Result<Vec<u8>, Error> {
        let kept = self.keep_in(room, asked, &outcome).await;
        match self.count(asked, kept) {
            Ok(()) => outcome,
            Err(error) => outcome.and(Err(Error::Unrecorded(error))),
        }
    }

    /// Keeps the record of what only reads, if that can be done. A disk that does not answer in time has lost it, although what waits for the disk
    /// may still get there.
    pub async fn keep(&self, asked: &Asked<'_>, outcome: &Result<Vec<u8>, Error>) {
        let kept = match self.ingest.room(most_bytes(asked)) {
            Ok(room) => timeout(READ_PATIENCE, self.keep_in(room, asked, outcome))
                .await
                .unwrap_or(Err(RecordError::TooSlow(READ_PATIENCE))),
            Err(error) => Err(error.into()),
        };
        // Told already, and no reason to refuse an answer.
        let _ = self.count(asked, kept);
    }

    async fn keep_in(
        &self,
        room: Room,
        asked: &Asked<'_>,
        outcome: &Result<Vec<u8>, Error>,
    ) -> Result<(), RecordError> {
        let record = serde_json::to_vec(&record(asked, outcome));
        let event = record.map_err(|error| RecordError::NoEvent(error.to_string()))?;
        let from = Origin {
            account: asked.caller.account,
            region: asked.caller.region,
        };
        room.keep(&event, from).await
    }

    fn count(&self, asked: &Asked<'_>, kept: Result<(), RecordError>) -> Result<(), RecordError> {
        match &kept {
            Ok(()) => {
                self.metrics.kept.inc();
            }
            Err(error) => {
                self.metrics.lost.inc();
                let (operation, caller) = (asked.operation, asked.caller.principal_arn());
                let error = telemetry::chain(error);
                tracing::error!(id = %asked.request_id, operation, caller, error, "a call of the api is not recorded");
            }
        }
        kept
    }
}

/// No fewer than its record has. An answer may be of things that the request does not name.
fn most_bytes(asked: &Asked<'_>) -> usize {
    let request = (asked.body.len() * GROWTH).min(MAX_OBJECT_BYTES);
    let answer = match asked.only_reads() {
        true => 0,
        false => MAX_OBJECT_BYTES,
    };
    HEAD_BYTES + request + answer
}

/// Refuses a request that its record could not tell truly, before anything is done: operations leave aside what they do not know, the record tells all.
///
/// - No two names that CloudTrail spells alike are in one object: the record would tell one of them, and the other be what is done.
/// - No more levels than an event may have, and nothing that common readers of JSON fail on (`1e999`, `"\ud800"`).
/// - No more members, and no longer names, than [`fitting`] can mark as left out.
pub fn can_tell(asked: &Asked<'_>) -> Result<(), Error> {
    let refused = |reason: String| Error::Serialization {
        operation: asked.operation,
        reason: shown(reason.as_bytes(), 256),
    };
    let members = respelt(asked.body).map_err(|error| refused(error.to_string()))?;
    if members.len() > MOST_MEMBERS {
        let count = members.len();
        return Err(refused(format!(
            "it has {count} members, at most {MOST_MEMBERS} are taken"
        )));
    }
    if members.keys().any(|name| name.len() > MOST_NAME_BYTES) {
        return Err(refused(format!(
            "a member has a name of more than {MOST_NAME_BYTES} bytes"
        )));
    }
    Ok(())
}

/// An event, in the order in which CloudTrail writes its fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a> {
    event_version: &'static str,
    user_identity: Identity<'a>,
    event_time: String,
    event_source: String,
    event_name: &'static str,
    aws_region: &'a str,
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: String,
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    request_parameters: Option<Map<String, Value>>,
    response_elements: Option<Map<String, Value>>,
    #[serde(rename = "requestID")]
    request_id: String,
    #[serde(rename = "eventID")]
    event_id: String,
    read_only: bool,
    event_type: &'static str,
    management_event: bool,
    recipient_account_id: &'a str,
    event_category: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_details: Option<TlsDetails>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    r#type: &'static str,
    principal_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arn: Option<String>,
    account_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TlsDetails {
    tls_version: &'static str,
    cipher_suite: &'static str,
    client_provided_host_header: Option<String>,
}

/// The record of a call that ended so.
pub fn record<'a>(asked: &Asked<'a>, outcome: &Result<Vec<u8>, Error>) -> Record<'a> {
    let &Asked {
        service,
        operation,
        headers,
        body,
        caller,
        now,
        request_id,
    } = asked;
    let source_ip = caller.source_ip.map(|ip| ip.to_string());
    let error = outcome.as_ref().err();
    Record {
        event_version: "1.11",
        user_identity: identity(caller),
        event_time: now.rfc3339(),
        event_source: format!("{}.amazonaws.com", service.signing_name()),
        event_name: operation,
        aws_region: caller.region.as_str(),
        // A process at the unix socket is on this machine.
        source_ip_address: source_ip.unwrap_or_else(|| "127.0.0.1".to_owned()),
        user_agent: text(headers, header::USER_AGENT),
        error_code: error.map(error_code),
        error_message: error.map(|error| shown(error.to_string().as_bytes(), MAX_TEXT_BYTES)),
        // As CloudTrail does: who may not ask is not repeated.
        request_parameters: match outcome {
            Err(Error::AccessDenied(_) | Error::Serialization { .. }) => None,
            _ => object(body),
        },
        response_elements: match outcome {
            Ok(answer) if !asked.only_reads() => object(answer),
            _ => None,
        },
        request_id: request_id.hyphenated().to_string(),
        event_id: Uuid::new_v4().hyphenated().to_string(),
        read_only: asked.only_reads(),
        event_type: "AwsApiCall",
        management_event: true,
        recipient_account_id: caller.account.as_str(),
        event_category: "Management",
        tls_details: caller.tls.as_ref().map(|tls| TlsDetails {
            tls_version: tls.version,
            cipher_suite: tls.cipher_suite,
            client_provided_host_header: text(headers, header::HOST),
        }),
    }
}

/// Users of traild have no other id than their name. Whoever was not asked who they are is the account, and is not called its root.
fn identity(caller: &Caller) -> Identity<'_> {
    let account_id = caller.account.as_str();
    let Some(name) = caller.user_name() else {
        return Identity {
            r#type: "AWSAccount",
            principal_id: account_id.into(),
            arn: None,
            account_id,
            access_key_id: None,
            user_name: None,
        };
    };
    Identity {
        r#type: "IAMUser",
        principal_id: name.clone(),
        arn: Some(caller.principal_arn()),
        account_id,
        // What others say of an access key is not verified.
        access_key_id: match caller.principal {
            Principal::User => caller.access_key_id.as_deref(),
            _ => None,
        },
        user_name: Some(name),
    }
}

/// CloudTrail writes this one without its ending.
fn error_code(error: &Error) -> &'static str {
    match error {
        Error::AccessDenied(_) => "AccessDenied",
        error => error.code(),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(shown(value.as_bytes(), MAX_TEXT_BYTES))
}

/// A request or an answer as a record tells it. Nothing for an empty one.
fn object(json: &[u8]) -> Option<Map<String, Value>> {
    let members = respelt(json).ok()?;
    (!members.is_empty()).then(|| fitting(members))
}

/// Leaves the largest members out until the rest fits, and marks each by its name with `Omitted` behind it, as records of a Kubernetes API server
/// do. Within the limits of [`can_tell`] no name of a trail or channel is ever among them: those that stay are larger.
fn fitting(mut members: Map<String, Value>) -> Map<String, Value> {
    let mut total = json_bytes(&members);
    if total <= MAX_OBJECT_BYTES {
        return members;
    }
    let mut sizes: Vec<(usize, String)> = members
        .iter()
        .map(|(name, value)| (json_bytes(value), name.clone()))
        .collect();
    sizes.sort();
    while let Some((bytes, name)) = sizes.pop()
        && total > MAX_OBJECT_BYTES
    {
        members.remove(&name);
        let mark = json!({ "bytes": bytes });
        let name = format!("{name}{OMITTED}");
        total = total.saturating_sub(bytes) + OMITTED.len() + json_bytes(&mark);
        members.insert(name, mark);
    }
    members
}

const OMITTED: &str = "Omitted";

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

/// The members of a JSON object in CloudTrail's spelling: every name begins with a small letter. No object holds two that are spelt alike.
fn respelt(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    // The event is a level, too.
    let levels = MAX_DEPTH - 1;
    let value = Respelt { levels }.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(de::Error::custom("it is not a JSON object")),
    }
}

/// Reads a value that holds no more levels of objects and arrays.
#[derive(Clone, Copy)]
struct Respelt {
    levels: usize,
}

impl Respelt {
    fn inside<E: de::Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        let levels = levels.ok_or_else(|| E::custom("it has too many levels"))?;
        Ok(Self { levels })
    }
}

impl<'de> DeserializeSeed<'de> for Respelt {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Respelt {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inside)?;
            match object.entry(small(&name)) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(_) => {
                    let name = shown(name.as_bytes(), 64);
                    let reason = format!("{name} is given twice, in one spelling or two");
                    return Err(de::Error::custom(reason));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

/// `S3BucketName` is `s3BucketName`, `TrailARN` is `trailARN`.
fn small(name: &str) -> String {
    let mut small = name.to_owned();
    if let Some(first) = small.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    small
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
