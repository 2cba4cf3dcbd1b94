//! The listener: what the server of all listeners is told about this one, and an orderly end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpResponse, S3Error};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Store;
use super::adapter::{MAX_DOCUMENT_BYTES, adapt};
use super::service::Service;
use crate::server::{self, Limits, Listener};

/// One address may have them all: the daemon's own uploads and a reader's tools come from the same machine.
const MAX_CONNECTIONS: usize = 256;
/// For the head of a request, and between requests on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves `store` on `listener` until `stop`; every connection and all work on the disk has ended when this returns.
pub async fn serve(store: Store, listener: TcpListener, stop: CancellationToken) {
    let service = s3_service(store.clone());
    let handler = move |request, _| {
        let service = service.clone();
        async move { answer(&service, request).await }
    };
    let limits = Limits {
        connections: MAX_CONNECTIONS,
        connections_per_ip: MAX_CONNECTIONS,
        header_timeout: HEADER_TIMEOUT,
        ..Limits::default()
    };
    server::serve(Listener::Tcp(listener), handler, limits, stop).await;
    // What was begun on the disk ends there: it holds the store open until then.
    store.tasks().close();
    store.tasks().wait().await;
}

fn s3_service(store: Store) -> S3Service {
    let mut config = S3Config::default();
    config.xml_max_body_size = MAX_DOCUMENT_BYTES;
    config.post_object_max_file_size = MAX_DOCUMENT_BYTES as u64;
    config.form_max_fields_size = MAX_DOCUMENT_BYTES;
    let mut builder = S3ServiceBuilder::new(Service(store));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

async fn answer(service: &S3Service, request: Request<Incoming>) -> HttpResponse {
    let read_whole = Arc::new(AtomicBool::new(false));
    let mut response = match adapt(request, &read_whole).await {
        Ok(request) => service.call(request).await.unwrap_or_else(|error| {
            tracing::error!(?error, "the object store has no answer");
            plain_error()
        }),
        Err(error) => S3Error::from(error)
            .to_http_response()
            .unwrap_or_else(|_| plain_error()),
    };
    if !read_whole.load(Ordering::Relaxed) {
        // A client must not put its next request behind the rest of this one's body.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    static REQUESTS: AtomicU64 = AtomicU64::new(1);
    let id = format!("{:016X}", REQUESTS.fetch_add(1, Ordering::Relaxed));
    if let Ok(value) = HeaderValue::try_from(id) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-amz-request-id"), value);
    }
    response
}

fn plain_error() -> HttpResponse {
    let mut response = HttpResponse::new(s3s::Body::from("internal error\n".to_owned()));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response
}
