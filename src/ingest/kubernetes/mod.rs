//! `POST /v1/kubernetes/audit`: what the audit webhook of a Kubernetes API server sends (Kubernetes documentation, "Auditing", "Webhook backend";
//! the shapes are those of `audit.k8s.io/v1`).
//!
//! ```text
//!  {"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[…]}, or one {"kind":"Event",…}
//!      ─► event   what an event says     ─► record   the CloudTrail record of it     ─► the same way as all events
//! ```
//!
//! - A request to the API server has up to three events, one for each of its stages. What CloudTrail records is the request with its outcome:
//!   only those of the stages `ResponseComplete` and `Panic` become records. `RequestReceived` says nothing that these do not say, and
//!   `ResponseStarted` is for watches, which have a `ResponseComplete`, too. They are counted as skipped.
//! - The server sends a batch again when it sees no answer, byte for byte, so that an event that was stored is found to be a duplicate: by its
//!   `auditID` and all that it says. By the `auditID` alone it must not be: a client of the cluster may choose it (header `Audit-ID`), and could hide
//!   what it does behind one that was there before.
//! - What clients of the cluster put into their requests need not be UTF-8, and the server passes it on as it is: bytes that are none become
//!   U+FFFD, so that nobody can have a batch refused by them.
//! - Answered 200 the batch is durable. When the journal is full it is 503 with `Retry-After`, upon which the server tries again; a batch that it
//!   gives up is lost to traild, so let its buffer be large.

mod event;
mod record;

use std::fmt::Display;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::accept::{Ingest, Made, Origin};
use super::answer::{Answer, Refused, taken_status};
use super::body;
use super::bounded::Bounded;
use super::http::{closing, json, method_not_allowed, refused_body, response};
use super::rejected::Rejected;
use crate::clock::WallMillis;
use crate::event::refusal::shown;
use crate::event::{Code, Refusal};
use event::Event;
use record::Place;

const API_VERSION: &str = "audit.k8s.io/v1";

/// Events of a batch; an API server sends 400 by default. A body of gzip holds millions that say nothing.
const MAX_ITEMS: usize = 100_000;

/// Mapping lets other tasks run after so many bytes.
const MAP_STEP: usize = 256 << 10;

/// Characters of the name of a cluster.
const MAX_CLUSTER_CHARS: usize = 100;

/// What was sent, as far as it says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(borrow)]
    items: Option<Bounded<&'a RawValue, MAX_ITEMS>>,
}

/// What the answer tells. The API server looks at its status alone.
#[derive(Debug, Serialize)]
struct Taken {
    accepted: usize,
    duplicates: usize,
    skipped: usize,
    rejected: Vec<Refused>,
}

/// Answers one request, of a sender who was let in. `cluster` is what the sender calls the cluster that the events are of.
pub async fn post_audit<B>(
    ingest: &Ingest,
    request: Request<B>,
    from: Origin,
    cluster: Option<String>,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return method_not_allowed("audit events are sent with POST");
    }
    let read = body::read(&head.headers, body, ingest.limits(), ingest.budget()).await;
    let sent = match read {
        Ok(sent) => sent,
        // What is left of the body is not worth reading.
        Err(error) => return closing(response(&refused_body(error))),
    };
    match take(ingest, &sent.bytes, &from, cluster).await {
        Ok((taken, status)) => {
            let body = serde_json::to_vec(&taken).expect("numbers and strings: always JSON");
            json(status, body)
        }
        Err(answer) => response(&answer),
    }
}

/// What was taken, and the status that tells of it; or why nothing was.
async fn take(
    ingest: &Ingest,
    body: &[u8],
    from: &Origin,
    cluster: Option<String>,
) -> Result<(Taken, StatusCode), Answer> {
    let rules = ingest.rules(from, WallMillis::now());
    let place = Place {
        account: rules.account,
        region: rules.region,
        cluster: checked_cluster(cluster)?,
        max_event_bytes: rules.max_event_bytes,
    };
    let text = String::from_utf8_lossy(body);
    let items = items(&text)?;
    // All of them are of this account.
    let denied = from.accounts.judge().check(place.account).err();
    let mut made = Vec::new();
    let mut made_bytes = 0;
    // Which event of the request each of them is.
    let mut indices = Vec::new();
    let mut rejected = Rejected::of(body.len());
    let mut skipped = 0;
    let mut until_pause = MAP_STEP;
    for (index, item) in items.into_iter().enumerate() {
        let read = match &denied {
            Some(why) => Err((Code::AccessDenied, why.clone())),
            None => Event::read(item),
        };
        match read.map(|event| event.is_answered().then_some(event)) {
            Ok(None) => skipped += 1,
            Ok(Some(event)) => {
                let json = record::of(&event, &place);
                made_bytes += json.len();
                if made_bytes > ingest.most_stored_bytes() {
                    return Err(too_large(format!(
                        "the records of the first {} events take more than {} bytes",
                        index + 1,
                        ingest.most_stored_bytes()
                    )));
                }
                made.push(Made { json, id: None });
                indices.push(index);
            }
            Err((code, message)) => rejected.push(
                index,
                Refusal {
                    code,
                    event_id: None,
                    message,
                },
            )?,
        }
        until_pause = until_pause.saturating_sub(item.get().len());
        if until_pause == 0 {
            until_pause = MAP_STEP;
            tokio::task::yield_now().await;
        }
    }
    let (accepted, duplicates, refused) = match ingest.take(&made, from).await {
        Answer::Taken {
            accepted,
            duplicates,
            rejected,
        } => (accepted, duplicates, rejected),
        answer => return Err(answer),
    };
    // Only now: a batch that is not stored comes again.
    ingest.metrics().skipped.inc_by(skipped as u64);
    let mut rejected = rejected.counted(ingest.metrics());
    rejected.extend(refused.into_iter().map(|refused| Refused {
        index: indices[refused.index],
        ..refused
    }));
    rejected.sort_by_key(|refused| refused.index);
    let status = taken_status(accepted + duplicates, &rejected);
    let taken = Taken {
        accepted,
        duplicates,
        skipped,
        rejected,
    };
    Ok((taken, status))
}

/// The events of a body.
fn items(body: &str) -> Result<Vec<&RawValue>, Answer> {
    let unreadable = |message: String| Answer::Unreadable {
        code: "InvalidKubernetesAudit",
        message,
    };
    let not_json = |error: serde_json::Error| {
        let error = shown(error.to_string().as_bytes(), 256);
        unreadable(format!("the body is no list of audit events: {error}"))
    };
    let sent: Sent<'_> = serde_json::from_str(body).map_err(not_json)?;
    if sent.api_version != API_VERSION {
        let given = shown(sent.api_version.as_bytes(), 64);
        return Err(unreadable(format!(
            "apiVersion is {API_VERSION}, which every API server since 1.12 sends, given: {given}"
        )));
    }
    match sent.kind.as_str() {
        "EventList" => match sent.items.unwrap_or_default() {
            Bounded { count, .. } if count > MAX_ITEMS => Err(too_large(format!(
                "a list has at most {MAX_ITEMS} audit events, given: {count}"
            ))),
            list => Ok(list.kept),
        },
        "Event" => serde_json::from_str(body)
            .map(|event| vec![event])
            .map_err(not_json),
        other => {
            let given = shown(other.as_bytes(), 64);
            Err(unreadable(format!(
                "kind is EventList or Event, given: {given}"
            )))
        }
    }
}

fn too_large(why: String) -> Answer {
    Answer::TooLarge {
        message: format!("{why}; nothing was accepted, send smaller batches"),
    }
}

/// The name of a cluster stands in ARNs.
fn checked_cluster(given: Option<String>) -> Result<Option<String>, Answer> {
    let Some(name) = given else {
        return Ok(None);
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    match (1..=MAX_CLUSTER_CHARS).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(Some(name)),
        false => Err(Answer::Unreadable {
            code: "InvalidCluster",
            message: format!(
                "cluster has 1 to {MAX_CLUSTER_CHARS} letters, digits, '.', '_' and '-', given: {}",
                shown(name.as_bytes(), 64)
            ),
        }),
    }
}

#[cfg(test)]
mod tests;
