//! `POST /v1/events`.
//!
//! With `auth.mode = "none"` nothing is verified, but a SigV4 `Authorization` header is read all the same: its scope names the region, and
//! an access key of twelve digits the account. A region there that is none is refused, instead of filing the events under another.

use std::fmt::Display;

use ::http::header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;

use super::accept::{Ingest, Origin, unavailable};
use super::answer::{Answer, Error};
use super::body::{self, BodyError};
use crate::event::refusal::shown;
use crate::event::{AccountId, Region};
use crate::wal::AppendError;

/// Answers one request. `peer` is the sender's address as text, written into events without `sourceIPAddress`.
pub async fn post_events<B>(
    ingest: &Ingest,
    request: Request<B>,
    peer: &str,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return method_not_allowed();
    }
    let from = match origin(&head.headers, peer) {
        Ok(from) => from,
        Err(answer) => return closing(response(&answer)),
    };
    if ingest.is_stopping() {
        return closing(response(&unavailable(&AppendError::Closed)));
    }
    let whole = match body::read(&head.headers, body, ingest.limits(), ingest.budget()).await {
        Ok(whole) => whole,
        // What is left of the body is not worth reading.
        Err(error) => return closing(response(&refused_body(error))),
    };
    let answer = ingest.accept(whole.bytes.clone(), from).await;
    drop(whole);
    response(&answer)
}

fn refused_body(error: BodyError) -> Answer {
    let message = error.to_string();
    match error {
        BodyError::TooLarge(_) | BodyError::InflatesTooLarge(_) => Answer::TooLarge { message },
        BodyError::TooSlow(_) => Answer::TooSlow { message },
        BodyError::UnknownEncoding(_) => Answer::UnknownEncoding { message },
        BodyError::Garbled { .. } => Answer::Unreadable {
            code: "InvalidEncoding",
            message,
        },
        BodyError::BrokeOff(_) => Answer::Unreadable {
            code: "IncompleteBody",
            message,
        },
        BodyError::NoMemory => Answer::Unavailable {
            code: "Busy",
            message,
            retry_after: std::time::Duration::from_secs(2),
        },
    }
}

/// Who sends, by the address and an unverified SigV4 header.
fn origin(headers: &HeaderMap, peer: &str) -> Result<Origin, Answer> {
    let mut origin = Origin {
        account: None,
        region: None,
        peer: peer.to_owned(),
    };
    if let Some((access_key, region)) = scope(headers) {
        origin.account = access_key.parse::<AccountId>().ok();
        let region = region
            .parse::<Region>()
            .map_err(|error| Answer::Unreadable {
                code: "InvalidRegion",
                message: format!(
                    "the Authorization header's scope: {error}, given: {}",
                    shown(region.as_bytes(), 64)
                ),
            })?;
        origin.region = Some(region);
    }
    Ok(origin)
}

/// Access key and region of the SigV4 `Authorization` header, unverified. Nothing without one.
pub fn scope(headers: &HeaderMap) -> Option<(&str, &str)> {
    credential(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// Access key and region of `AWS4-HMAC-SHA256 Credential=<access key>/<date>/<region>/<service>/aws4_request, …`.
fn credential(authorization: &str) -> Option<(&str, &str)> {
    let parameters = authorization
        .trim_start()
        .strip_prefix("AWS4-HMAC-SHA256")?;
    let credential = parameters
        .split(',')
        .find_map(|parameter| parameter.trim().strip_prefix("Credential="))?;
    // An access key may hold slashes, the scope behind it cannot.
    let mut from_behind = credential.trim().rsplitn(5, '/');
    let (Some("aws4_request"), Some(_service), Some(region), Some(_date), Some(access_key)) = (
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
        from_behind.next(),
    ) else {
        return None;
    };
    Some((access_key, region))
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = json(answer.status(), answer.to_json());
    if let Some(seconds) = answer.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let error = Error {
        code: "MethodNotAllowed",
        message: "events are sent with POST",
    };
    let body = serde_json::to_vec(&error).expect("strings: always JSON");
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, body);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
