//! The listener: connections, their limits, and an orderly end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpResponse, S3Error};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Store;
use super::adapter::{MAX_DOCUMENT_BYTES, adapt};
use super::service::Service;

const MAX_CONNECTIONS: usize = 256;
/// For the head of a request, and between requests on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// What requests in progress get when the daemon stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves `store` on `listener` until `stop`; every connection and all work on the disk has ended when this returns.
pub async fn serve(store: Store, listener: TcpListener, stop: CancellationToken) {
    let service = s3_service(store.clone());
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (service, stop) = (service.clone(), stop.clone());
                connections.spawn(async move {
                    connection(service, stream, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the object store could not accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    let ended = tokio::time::timeout(STOP_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests to the object store were cut off at the stop"
        );
        connections.shutdown().await;
    }
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

async fn connection(service: S3Service, stream: TcpStream, stop: CancellationToken) {
    // Small answers must not wait for an acknowledgement; a failure only costs time.
    let _ = stream.set_nodelay(true);
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(&service, request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), handler)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the object store broke");
    }
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
