//! Which request goes where, and who is let in.
//!
//! | path | speaks | signed for | asks the policy for |
//! |---|---|---|---|
//! | `/` | JSON 1.1 | the service of its `X-Amz-Target` | the operation, once its request is read |
//! | `/PutAuditEvents` | REST-JSON | `cloudtrail-data` | `cloudtrail-data:PutAuditEvents` on the channel, whose policy is asked, too |
//! | `/v1/kubernetes/audit` | traild | `traild` | `traild:PutKubernetesAudit`, for the caller's account |
//! | `/v1/events` | traild | `traild` | `traild:PutEvents`, for each account that the events are of |
//! | `/v1/status` | traild | `traild` | `traild:GetStatus` |
//!
//! A body is read through the proof of its signature; whatever was made of a body that is not what was signed is thrown away, and the refusal is
//! answered instead. Before that nothing is done: what a body asks for is done only when it was read to its end.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use super::status::Asked;
use crate::api::Api;
use crate::api::protocol::Service;
use crate::auth::sigv4::pairs;
use crate::auth::{self, Admitted, Caller, Door, Protocol, SignedBody};
use crate::clock::WallMillis;
use crate::ingest::http::post_events;
use crate::ingest::kubernetes::post_audit;
use crate::ingest::{Accounts, Ingest, Origin};
use crate::server::Peer;
use crate::server::ops::Ops;

type Answer = Response<Full<Bytes>>;

/// Of the body of a refused request, so much is read before it is answered: a client that is still sending would not see the answer.
const DRAINED_BYTES: usize = 16 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(5);

/// What the api listener answers from. Clones share it.
#[derive(Clone)]
pub struct Parts {
    pub door: Door,
    pub ingest: Ingest,
    pub asked: Asked,
    pub api: Api,
    /// The resource that is asked about with `traild:GetStatus`: of the home account.
    pub status_arn: std::sync::Arc<str>,
}

/// The api listener: events in, status out, and the CloudTrail API.
pub fn api(
    parts: Parts,
) -> impl Fn(Request<Incoming>, Peer) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Clone {
    move |request, peer| match (request.method(), request.uri().path()) {
        (_, "/v1/events") => {
            let parts = parts.clone();
            Box::pin(async move { events(&parts, request, peer).await })
        }
        (_, "/PutAuditEvents") => {
            let parts = parts.clone();
            Box::pin(async move { audit_events(&parts, request, peer).await })
        }
        (_, "/v1/kubernetes/audit") => {
            let parts = parts.clone();
            Box::pin(async move { kubernetes_audit(&parts, request, peer).await })
        }
        (&Method::GET, "/v1/status") => {
            let parts = parts.clone();
            Box::pin(async move { status(&parts, request, peer).await })
        }
        (_, "/v1/status") => Box::pin(ready(error(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "only GET is answered here",
        ))),
        (method, "/") if *method != Method::GET && *method != Method::HEAD => {
            let parts = parts.clone();
            Box::pin(async move { operation(&parts, request, peer).await })
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

async fn operation(parts: &Parts, request: Request<Incoming>, peer: Peer) -> Answer {
    let (head, body) = request.into_parts();
    let service = Service::of(&head).signing_name();
    let answer = async |head, body, caller: Caller| {
        let request = Request::from_parts(head, body);
        parts.api.answer(request, &caller).await
    };
    admitted(
        &parts.door,
        head,
        body,
        peer,
        service,
        Protocol::Json11,
        answer,
    )
    .await
}

async fn events(parts: &Parts, request: Request<Incoming>, peer: Peer) -> Answer {
    let (head, body) = request.into_parts();
    let source_ip = peer.source_ip().to_string();
    let answer = async |head, body, caller: Caller| {
        let from = origin(caller, source_ip, auth::PUT_EVENTS);
        post_events(&parts.ingest, Request::from_parts(head, body), from).await
    };
    admitted(
        &parts.door,
        head,
        body,
        peer,
        auth::TRAILD,
        Protocol::Traild,
        answer,
    )
    .await
}

async fn kubernetes_audit(parts: &Parts, request: Request<Incoming>, peer: Peer) -> Answer {
    let (head, body) = request.into_parts();
    let source_ip = peer.source_ip().to_string();
    let answer = async |head: request::Parts, body, caller: Caller| {
        let from = origin(caller, source_ip, auth::PUT_KUBERNETES_AUDIT);
        let query = pairs(head.uri.query().unwrap_or_default());
        let cluster = query.into_iter().find(|(name, _)| name == b"cluster");
        let cluster = cluster.map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
        let request = Request::from_parts(head, body);
        post_audit(&parts.ingest, request, from, cluster).await
    };
    admitted(
        &parts.door,
        head,
        body,
        peer,
        auth::TRAILD,
        Protocol::Traild,
        answer,
    )
    .await
}

async fn audit_events(parts: &Parts, request: Request<Incoming>, peer: Peer) -> Answer {
    let (head, body) = request.into_parts();
    let source_ip = peer.source_ip().to_string();
    let answer = async |head, body, caller: Caller| {
        let request = Request::from_parts(head, body);
        let answer = parts
            .api
            .put_audit_events(&parts.ingest, request, &caller, source_ip);
        answer.await
    };
    admitted(
        &parts.door,
        head,
        body,
        peer,
        auth::CLOUDTRAIL_DATA,
        Protocol::RestJson,
        answer,
    )
    .await
}

fn origin(caller: Caller, source_ip: String, action: &'static str) -> Origin {
    Origin {
        account: Some(caller.account),
        region: Some(caller.region),
        peer: source_ip,
        accounts: accounts(caller, action),
    }
}

/// Whose events a caller may send by this action.
fn accounts(caller: Caller, action: &'static str) -> Accounts {
    if caller.may_do_everything() {
        return Accounts::every();
    }
    let now = WallMillis::now();
    Accounts::asking(move |account| {
        let events = format!("arn:aws:traild:{}:{account}:events", caller.region);
        let allowed = caller.authorize(action, &events, now);
        allowed.map_err(|denied| denied.to_string())
    })
}

/// Answers a request whose caller is let in, once its body has proved to be the caller's.
async fn admitted(
    door: &Door,
    head: request::Parts,
    body: Incoming,
    peer: Peer,
    service: &str,
    protocol: Protocol,
    answer: impl AsyncFnOnce(request::Parts, SignedBody<Incoming>, Caller) -> Answer,
) -> Answer {
    let Admitted { caller, pending } = match door.admit(&head, &peer, service, WallMillis::now()) {
        Ok(admitted) => admitted,
        Err(refused) => {
            tracing::debug!(%peer, %refused, "request refused at the door");
            drain(body).await;
            return auth::refusal(&refused, protocol);
        }
    };
    let (body, verdict) = SignedBody::new(body, pending);
    let answer = answer(head, body, caller).await;
    match verdict.refused() {
        None => answer,
        Some(refused) => {
            tracing::debug!(%peer, %refused, "request refused behind its body");
            auth::refusal(&refused, protocol)
        }
    }
}

/// What does not come in time or is too much stays where it is, and the connection is closed on it.
async fn drain(body: Incoming) {
    let mut body = Limited::new(body, DRAINED_BYTES);
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DRAINED_FOR, read).await;
}

async fn status(parts: &Parts, request: Request<Incoming>, peer: Peer) -> Answer {
    let (head, body) = request.into_parts();
    let now = WallMillis::now();
    let admitted = parts.door.admit(&head, &peer, auth::TRAILD, now);
    let caller = admitted.and_then(|Admitted { caller, pending }| {
        pending.map_or(Ok(()), auth::Pending::without_body)?;
        Ok(caller)
    });
    let denied = match caller {
        Ok(caller) => match caller.authorize(auth::GET_STATUS, &parts.status_arn, now) {
            Ok(()) => return status_of(&parts.asked, now),
            Err(denied) => auth::refusal(&denied, Protocol::Traild),
        },
        Err(refused) => auth::refusal(&refused, Protocol::Traild),
    };
    drain(body).await;
    denied
}

fn status_of(asked: &Asked, now: WallMillis) -> Answer {
    match serde_json::to_vec(&asked.status(now)) {
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
