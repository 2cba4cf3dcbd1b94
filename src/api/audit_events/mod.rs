//! PutAuditEvents of CloudTrail Data: events of sources outside of AWS, by a channel (API reference of CloudTrail Data).
//!
//! ```text
//!  POST /PutAuditEvents?channelArn=…&externalId=…    200 {"successful":[{"id":"1","eventID":"…"}],"failed":[{"id":"2","errorCode":"InvalidData",…}]}
//!  {"auditEvents":[{"id":"1","eventData":"{…}"}]}    400 | 403 | 413 | 503, named by x-amzn-ErrorType and __type
//! ```
//!
//! - Each event is judged by itself ([`event`]), and those that pass become CloudTrail records. It is answered when they are on the disk.
//! - An event that comes again by its channel with the same bytes is the same event, with the same eventID, and stored once: a client that saw no
//!   answer sends again.
//! - Who may send: the caller's policy is asked for `cloudtrail-data:PutAuditEvents` on the channel, and so is the policy of the channel, which
//!   alone lets other accounts in ([`Caller::authorize_at`]). A channel that does not let a caller in is told as `ChannelInsufficientPermission`.
//! - When the journal takes nothing the answer is 503 with `Retry-After`, and nothing was stored.

pub mod event;
mod refusal;

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode, request};
use http_body::Body;
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::arn_of;
use super::{Api, protocol};
use crate::auth::sigv4::pairs;
use crate::auth::{self, AtResource, Caller, ResourcePolicy};
use crate::clock::WallMillis;
use crate::event::fingerprint::event_id_of;
use crate::event::refusal::shown;
use crate::ingest::audit_code::{INVALID_CHECKSUM, INVALID_DATA};
use crate::ingest::body::{self, Budget, Limits};
use crate::ingest::bounded::Bounded;
use crate::ingest::{Accounts, Answer, Ingest, Made, Origin, answer};
use crate::registry::Channel;
use crate::telemetry;
use crate::trail::arn::Arn;
use event::Refused;

pub use refusal::Error;

/// Events of a request.
const MAX_EVENTS: usize = 100;

/// Of the `eventData` of all events of a request: "up to 1 MB".
const MAX_DATA_BYTES: usize = 1 << 20;

/// A body, as sent and inflated: 1 MB of events as clients write them into JSON, where quotes and letters beyond ASCII take more.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Memory for the bodies of all requests together.
const BODIES_BYTES: usize = 32 << 20;

/// How bodies of these requests are read. Clones share the memory for them.
#[derive(Debug, Clone)]
pub struct Bodies {
    limits: Arc<Limits>,
    budget: Budget,
}

impl Default for Bodies {
    fn default() -> Self {
        let limits = Limits {
            max_body_bytes: MAX_BODY_BYTES,
            grace: Duration::from_secs(5),
            min_bytes_per_second: 1024,
        };
        Self {
            limits: Arc::new(limits),
            budget: Budget::new(BODIES_BYTES, MAX_BODY_BYTES),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutAuditEvents {
    #[serde(default)]
    audit_events: Bounded<AuditEvent, MAX_EVENTS>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuditEvent {
    #[serde(default)]
    id: String,
    #[serde(default)]
    event_data: String,
    event_data_checksum: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answered {
    successful: Vec<Successful>,
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Successful {
    id: String,
    #[serde(rename = "eventID")]
    event_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    id: String,
    error_code: &'static str,
    error_message: String,
}

impl Api {
    /// Answers a request to `/PutAuditEvents`.
    pub async fn put_audit_events<B>(
        &self,
        ingest: &Ingest,
        request: Request<B>,
        caller: &Caller,
        peer: String,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let (head, body) = request.into_parts();
        let id = Uuid::new_v4();
        let outcome = self.put(ingest, &head, body, caller, peer).await;
        match &outcome {
            Ok(_) => tracing::debug!(%id, "audit events answered"),
            Err(error) if error.is_ours() => {
                let error = telemetry::chain(error);
                tracing::error!(%id, error, "audit events failed");
            }
            Err(error) => tracing::debug!(%id, %error, "audit events refused"),
        }
        response(outcome, id)
    }

    async fn put<B>(
        &self,
        ingest: &Ingest,
        head: &request::Parts,
        body: B,
        caller: &Caller,
        peer: String,
    ) -> Result<Vec<u8>, Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Display,
    {
        let Bodies { limits, budget } = &self.audit_bodies;
        // First, as in `Api::outcome`; and before it has come to its end, nothing is proved of the caller.
        let whole = body::read(&head.headers, body, limits, budget).await?;
        if head.method != Method::POST {
            return Err(Error::Method);
        }
        let now = WallMillis::now();
        let channel = self.channel(head, caller, now)?;
        let request: PutAuditEvents = serde_json::from_slice(&whole.bytes)
            .map_err(|error| Error::Serialization(shown(error.to_string().as_bytes(), 256)))?;
        let events = checked(request)?;
        let answered = take(ingest, &channel, &events, now, caller, peer).await?;
        let tried = |event: &AuditEvent| event_id(&channel, event);
        let arn = channel.arn();
        self.home.ingestions.tell(
            &arn,
            now,
            answered
                .successful
                .last()
                .and_then(|one| one.event_id.parse().ok()),
            events.last().map(tried),
            answered.failed.last().map(|one| one.error_code),
        );
        // Deleted meanwhile; while it is there, DeleteChannel is still to forget it.
        if self.home.registry.book().channels.get(&arn).is_none() {
            self.home.ingestions.forget(&arn);
        }
        Ok(serde_json::to_vec(&answered)?)
    }

    /// The channel that a request is for, when its caller may send by it.
    fn channel(
        &self,
        head: &request::Parts,
        caller: &Caller,
        now: WallMillis,
    ) -> Result<Arc<Channel>, Error> {
        let given = Parameters::of(head)?;
        let arn = arn_of(&given.channel, caller.account, caller.region)
            .ok_or_else(|| Error::InvalidChannelArn(shown(given.channel.as_bytes(), 256)))?;
        let book = self.home.registry.book();
        let found = book.channels.get(&arn);
        let found = found.filter(|channel| channel.region == caller.region);
        let policy = found.and_then(|channel| channel.policy.as_deref());
        let policy = policy.map(|policy| ResourcePolicy::parse(policy, &arn));
        let policy = policy.transpose()?;
        let at = AtResource {
            owner: Arn::regional(&arn, "cloudtrail").map_or(caller.account, |arn| arn.account),
            policy: policy.as_ref(),
            external_id: given.external_id.as_deref(),
        };
        // Asked as well when there is none: whom it would not let in without a policy is not told whether it is there.
        caller.authorize_at(auth::PUT_AUDIT_EVENTS, &arn, at, now)?;
        let found = found.cloned();
        found.ok_or_else(|| Error::ChannelNotFound(shown(arn.as_bytes(), 256)))
    }
}

/// What the query of a request says.
struct Parameters {
    channel: String,
    external_id: Option<String>,
}

impl Parameters {
    fn of(head: &request::Parts) -> Result<Self, Error> {
        let given = pairs(head.uri.query().unwrap_or_default());
        let one = |name: &str| {
            let mut values = given.iter().filter(|(given, _)| given == name.as_bytes());
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => Err(Error::Validation(format!("{name} is given twice"))),
                (None, _) => Ok(None),
                (Some((_, value)), None) => match String::from_utf8(value.clone()) {
                    Ok(text) => Ok(Some(text)),
                    Err(_) => Err(Error::Validation(format!("{name} is not UTF-8"))),
                },
            }
        };
        let external_id = one("externalId")?;
        if let Some(id) = &external_id {
            let allowed = |c: char| c.is_alphanumeric() || "_+=,.@:/-".contains(c);
            if !(2..=1224).contains(&id.chars().count()) || !id.chars().all(allowed) {
                return Err(Error::Validation(
                    "externalId has 2 to 1224 letters, digits, and _+=,.@:/-".to_owned(),
                ));
            }
        }
        Ok(Self {
            channel: one("channelArn")?.unwrap_or_default(),
            external_id,
        })
    }
}

/// The events of a request that keeps to the limits of requests.
fn checked(request: PutAuditEvents) -> Result<Vec<AuditEvent>, Error> {
    let Bounded {
        kept: events,
        count,
    } = request.audit_events;
    if !(1..=MAX_EVENTS).contains(&count) {
        return Err(Error::Validation(format!(
            "auditEvents has 1 to {MAX_EVENTS} events, given: {count}"
        )));
    }
    let bytes: usize = events.iter().map(|event| event.event_data.len()).sum();
    if bytes > MAX_DATA_BYTES {
        return Err(Error::Validation(format!(
            "the eventData of all events of a request has at most {MAX_DATA_BYTES} bytes, given: {bytes}"
        )));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let mut ids = HashSet::new();
    for AuditEvent { id, .. } in &events {
        if !(1..=128).contains(&id.len()) || !id.bytes().all(allowed) {
            let id = shown(id.as_bytes(), 128);
            return Err(Error::Validation(format!(
                "the id of an event has 1 to 128 letters, digits, '-' and '_', given: {id}"
            )));
        }
        if !ids.insert(id) {
            return Err(Error::DuplicatedAuditEventId(id.clone()));
        }
    }
    Ok(events)
}

async fn take(
    ingest: &Ingest,
    channel: &Channel,
    events: &[AuditEvent],
    now: WallMillis,
    caller: &Caller,
    peer: String,
) -> Result<Answered, Error> {
    let mut verdicts: Vec<Result<Uuid, Refused>> = Vec::with_capacity(events.len());
    let mut made = Vec::new();
    let mut places = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let record = check_sum(event).and_then(|()| event::record(&event.event_data, channel, now));
        let id = event_id(channel, event);
        verdicts.push(record.map(|json| {
            made.push(Made { json, id: Some(id) });
            places.push(place);
            id
        }));
    }
    let from = Origin {
        account: Some(channel.account),
        region: Some(channel.region),
        peer,
        // The channel has let its caller in.
        accounts: Accounts::every(),
    };
    match ingest.take(&made, &from).await {
        Answer::Taken { rejected, .. } => {
            // Only now: a request that is not stored comes again. Those of `rejected` are counted already.
            for refused in verdicts.iter().filter_map(|verdict| verdict.as_ref().err()) {
                ingest.metrics().count_rejected_as(refused.code);
            }
            for answer::Refused {
                index,
                code,
                message,
                ..
            } in rejected
            {
                verdicts[places[index]] = Err(Refused {
                    code: INVALID_DATA,
                    message: format!("{code}: {message}"),
                });
            }
        }
        answer => return Err(Error::Unavailable(answer)),
    }
    tracing::debug!(channel = channel.arn(), account = %caller.account, events = made.len(), "audit events taken");
    let mut answered = Answered {
        successful: Vec::new(),
        failed: Vec::new(),
    };
    for (event, verdict) in events.iter().zip(verdicts) {
        let id = event.id.clone();
        match verdict {
            Ok(event_id) => answered.successful.push(Successful {
                id,
                event_id: event_id.to_string(),
            }),
            Err(Refused { code, message }) => answered.failed.push(Failed {
                id,
                error_code: code,
                error_message: shown(message.as_bytes(), 1000),
            }),
        }
    }
    Ok(answered)
}

/// The eventID of an event that comes by this channel.
fn event_id(channel: &Channel, event: &AuditEvent) -> Uuid {
    event_id_of(&[channel.arn().as_bytes(), event.event_data.as_bytes()])
}

/// That an event is what its checksum was made of, when it has one.
fn check_sum(event: &AuditEvent) -> Result<(), Refused> {
    let Some(given) = &event.event_data_checksum else {
        return Ok(());
    };
    let sum = digest::digest(&digest::SHA256, event.event_data.as_bytes());
    match BASE64.decode(given) {
        Ok(given) if given == sum.as_ref() => Ok(()),
        _ => Err(Refused {
            code: INVALID_CHECKSUM,
            message: "eventDataChecksum is not the base64 of the SHA-256 of eventData".to_owned(),
        }),
    }
}

fn response(outcome: Result<Vec<u8>, Error>, id: Uuid) -> Response<Full<Bytes>> {
    let (status, body, error) = match outcome {
        Ok(body) => (StatusCode::OK, body, None),
        Err(error) => (error.status(), error.to_json(), Some(error)),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let id = id.hyphenated().to_string();
    let id = HeaderValue::try_from(id).expect("request id: hexadecimal digits and hyphens");
    headers.insert(protocol::REQUEST_ID, id);
    if let Some(error) = error {
        headers.insert(refusal::TYPE, HeaderValue::from_static(error.code()));
        if let Some(seconds) = error.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(error, Error::Method) {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if matches!(error, Error::Body(_)) {
            // What is left of the body is not worth reading.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response
}

#[cfg(test)]
pub(crate) mod tests;
