//! What the API is asked, as CloudTrail events of the caller's account: CloudTrail records its own API like any other.
//!
//! Every operation that AWS has is recorded, whether it was done, refused or is not built; what nobody could be known for is not: requests that were turned away
//! at the door, or that name no operation. Neither are the ways in for events, which would make more of themselves.
//!
//! - A **change** is refused before it is made when there is no room for its record (`ServiceUnavailableException`). Its record is durable before it is
//!   answered, also when the caller has hung up. A crash between the two leaves a change without a record and without an answer.
//! - What only **reads** is answered even when its record cannot be kept; that is counted and logged.
//!
//! ```text
//!  room in the journal ─► operation ─► event(request, outcome) ─► journal, durable ─► answer
//! ```

use http::{HeaderMap, header};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Error;
use super::protocol::Service;
use crate::auth::{Caller, Principal};
use crate::clock::WallMillis;
use crate::event::refusal::shown;
use crate::ingest::Ingest;
use crate::ingest::records::{Origin, RecordError, Room};
use crate::telemetry;

/// CloudTrail's limits of fields: texts are cut, objects left out (user guide, "CloudTrail record contents").
const MAX_TEXT_BYTES: usize = 1 << 10;
const MAX_OBJECT_BYTES: usize = 100 << 10;

/// What a record holds besides its request and answer: texts at their limits, each byte of which may be escaped.
const HEAD_BYTES: usize = 24 << 10;

/// How much longer a request or what it is answered with can be in a record: 0.1 MB of `1e20` are numbers of 22 digits there.
const GROWTH: usize = 10;

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
    pub async fn room(&self, asked: &Asked<'_>) -> Result<Room, Error> {
        if self.ingest.is_stopping() {
            return Err(Error::Unrecordable("the daemon is stopping".to_owned()));
        }
        let room = self.ingest.room(most_bytes(asked)).await;
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

    /// Keeps the record of what only reads, if that can be done.
    pub async fn keep(&self, asked: &Asked<'_>, outcome: &Result<Vec<u8>, Error>) {
        let kept = match self.ingest.room(most_bytes(asked)).await {
            Ok(room) => self.keep_in(room, asked, outcome).await,
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
        let event = event(asked, outcome).to_string();
        let from = Origin {
            account: asked.caller.account,
            region: asked.caller.region,
        };
        room.keep(event.as_bytes(), from).await
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

/// No fewer than its record has.
fn most_bytes(asked: &Asked<'_>) -> usize {
    HEAD_BYTES + (asked.body.len() * GROWTH).min(2 * MAX_OBJECT_BYTES)
}

/// The event, in the order in which CloudTrail writes its fields.
pub fn event(asked: &Asked<'_>, outcome: &Result<Vec<u8>, Error>) -> Value {
    let Asked {
        service,
        operation,
        headers,
        body,
        caller,
        now,
        request_id,
    } = asked;
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| drop(event.insert(name.to_owned(), value));
    put("eventVersion", "1.11".into());
    put("userIdentity", identity(caller));
    put("eventTime", now.rfc3339().into());
    let source = format!("{}.amazonaws.com", service.signing_name());
    put("eventSource", source.into());
    put("eventName", (*operation).into());
    put("awsRegion", caller.region.as_str().into());
    let source_ip = caller.source_ip.map(|ip| ip.to_string());
    // A process at the unix socket is on this machine.
    put(
        "sourceIPAddress",
        source_ip.unwrap_or_else(|| "127.0.0.1".to_owned()).into(),
    );
    put("userAgent", text(headers, header::USER_AGENT).into());
    if let Err(error) = outcome {
        put("errorCode", error_code(error).into());
        put(
            "errorMessage",
            shown(error.to_string().as_bytes(), MAX_TEXT_BYTES).into(),
        );
    }
    // As CloudTrail does: who may not ask is not repeated.
    let parameters = match outcome {
        Err(Error::AccessDenied(_) | Error::Serialization { .. }) => Value::Null,
        _ => object(body),
    };
    put("requestParameters", parameters);
    let answer = match outcome {
        Ok(answer) if !asked.only_reads() => object(answer),
        _ => Value::Null,
    };
    put("responseElements", answer);
    put("requestID", request_id.hyphenated().to_string().into());
    put("eventID", Uuid::new_v4().hyphenated().to_string().into());
    put("readOnly", asked.only_reads().into());
    put("eventType", "AwsApiCall".into());
    put("managementEvent", true.into());
    put("recipientAccountId", caller.account.as_str().into());
    put("eventCategory", "Management".into());
    if let Some(tls) = &caller.tls {
        put(
            "tlsDetails",
            json!({
                "tlsVersion": tls.version,
                "cipherSuite": tls.cipher_suite,
                "clientProvidedHostHeader": text(headers, header::HOST),
            }),
        );
    }
    Value::Object(event)
}

/// Users of traild have no other id than their name. Whoever was not asked who they are is the account, and is not called its root.
fn identity(caller: &Caller) -> Value {
    let account = caller.account.as_str();
    let Some(name) = caller.user_name() else {
        return json!({ "type": "AWSAccount", "principalId": account, "accountId": account });
    };
    let mut identity = json!({
        "type": "IAMUser",
        "principalId": name,
        "arn": caller.principal_arn(),
        "accountId": account,
        "userName": name,
    });
    // What others say of an access key is not verified.
    if let (Principal::User, Some(key)) = (&caller.principal, &caller.access_key_id) {
        identity["accessKeyId"] = (&**key).into();
    }
    identity
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

/// A request or an answer in CloudTrail's spelling: every name begins with a small letter. Nothing for an empty one, and for one that is too large.
fn object(json: &[u8]) -> Value {
    let Ok(Value::Object(members)) = serde_json::from_slice(json) else {
        return Value::Null;
    };
    if members.is_empty() {
        return Value::Null;
    }
    let respelt = respelt(Value::Object(members));
    match serde_json::to_vec(&respelt) {
        Ok(written) if written.len() <= MAX_OBJECT_BYTES => respelt,
        _ => Value::Null,
    }
}

fn respelt(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter();
            Value::Object(
                members
                    .map(|(name, value)| (small(&name), respelt(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(respelt).collect()),
        other => other,
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
