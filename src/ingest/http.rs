//! `POST /v1/events`.

use std::fmt::Display;

use ::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body;
use http_body_util::Full;

use super::accept::{Ingest, Origin, unavailable};
use super::answer::{Answer, Error};
use super::body::{self, BodyError};
use crate::wal::AppendError;

/// Answers one request, of a sender who was let in.
pub async fn post_events<B>(
    ingest: &Ingest,
    request: Request<B>,
    from: Origin,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return method_not_allowed("events are sent with POST");
    }
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

pub(super) fn refused_body(error: BodyError) -> Answer {
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

pub(super) fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let mut response = json(answer.status(), answer.to_json());
    if let Some(seconds) = answer.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(super) fn method_not_allowed(message: &str) -> Response<Full<Bytes>> {
    let error = Error {
        code: "MethodNotAllowed",
        message,
    };
    let body = serde_json::to_vec(&error).expect("strings: always JSON");
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, body);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
