//! Which request goes where.

use std::future::{Future, Ready, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::status::Asked;
use crate::api::Api;
use crate::clock::WallMillis;
use crate::ingest::Ingest;
use crate::ingest::http::post_events;
use crate::server::Peer;
use crate::server::ops::Ops;

type Answer = Response<Full<Bytes>>;

/// The api listener: events in, status out, and the CloudTrail API.
pub fn api(
    ingest: Ingest,
    asked: Asked,
    api: Api,
) -> impl Fn(Request<Incoming>, Peer) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send>> + Clone
{
    move |request, peer| match (request.method(), request.uri().path()) {
        (_, "/v1/events") => {
            let ingest = ingest.clone();
            Box::pin(
                async move { post_events(&ingest, request, &peer.source_ip().to_string()).await },
            )
        }
        (&Method::GET, "/v1/status") => {
            let asked = asked.clone();
            Box::pin(async move { status(&asked) })
        }
        (_, "/v1/status") => Box::pin(ready(error(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "only GET is answered here",
        ))),
        (method, "/") if *method != Method::GET && *method != Method::HEAD => {
            let api = api.clone();
            Box::pin(async move { api.answer(request).await })
        }
        (_, path) => {
            let message = format!("nothing is at {}", path.escape_default());
            Box::pin(ready(error(StatusCode::NOT_FOUND, "NotFound", &message)))
        }
    }
}

/// The ops listener: health and metrics.
pub fn ops(ops: Ops) -> impl Fn(Request<Incoming>, Peer) -> Ready<Answer> + Clone {
    move |request, _| ready(ops.answer(request.method(), request.uri().path()))
}

fn status(asked: &Asked) -> Answer {
    match serde_json::to_vec(&asked.status(WallMillis::now())) {
        Ok(body) => json(StatusCode::OK, body),
        Err(cause) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            &cause.to_string(),
        ),
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(
        status,
        serde_json::json!({ "code": code, "message": message })
            .to_string()
            .into(),
    )
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let content_type = header::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    answer
}
