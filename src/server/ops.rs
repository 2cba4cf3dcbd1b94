//! What the machinery around the daemon asks: `/livez`, `/readyz`, `/metrics`.
//!
//! Alive means "do not restart me": the daemon's loops turn. Ready means "send me events": they will be accepted.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body_util::Full;
use tokio::sync::watch;

use crate::telemetry::metrics::Registry;

/// Whether events can be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// Why not, as in "starting", "stopping" or "journal is full".
    NotReady(String),
}

/// Answers the ops listener.
#[derive(Clone)]
pub struct Ops {
    /// Starting, ready or stopping, as the daemon tells.
    pub phase: watch::Receiver<Readiness>,
    /// Asked at each `/readyz` once the phase is ready: the journal failed, the disk is full.
    pub obstacle: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Asked at each `/livez`: a reason to be restarted.
    pub illness: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    pub metrics: Arc<Registry>,
    /// Asked before each `/metrics`, to bring gauges up to date.
    pub refresh: Arc<dyn Fn() + Send + Sync>,
}

impl Ops {
    pub fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered here\n".into(),
            );
        }
        match path {
            "/livez" => verdict((self.illness)()),
            "/readyz" => verdict(self.unready()),
            "/metrics" => {
                (self.refresh)();
                self.metrics.tell_ready(self.unready().is_none());
                let mut answer = text(StatusCode::OK, self.metrics.encode());
                answer.headers_mut().insert(
                    header::CONTENT_TYPE,
                    header::HeaderValue::from_static(crate::telemetry::metrics::CONTENT_TYPE),
                );
                answer
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "ask /livez, /readyz or /metrics\n".into(),
            ),
        }
    }

    /// Why events would not be accepted now.
    fn unready(&self) -> Option<String> {
        match &*self.phase.borrow() {
            Readiness::NotReady(reason) => Some(reason.clone()),
            Readiness::Ready => (self.obstacle)(),
        }
    }
}

fn verdict(reason: Option<String>) -> Response<Full<Bytes>> {
    match reason {
        None => text(StatusCode::OK, "ok\n".into()),
        Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
