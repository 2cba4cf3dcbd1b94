//! An S3 that costs next to nothing: takes PUTs on loopback, honours `If-None-Match: *`, keeps what it got in memory.
//!
//! It runs in the benchmark's process, so that none of it counts as the daemon's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// What was put at a key, and when.
pub struct Object {
    pub bytes: Bytes,
    pub at: Instant,
}

type Objects = Arc<Mutex<HashMap<String, Object>>>;

pub struct Sink {
    pub address: SocketAddr,
    objects: Objects,
    /// Nothing is taken: 503.
    is_down: Arc<AtomicBool>,
}

impl Sink {
    pub fn start() -> Result<Self> {
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").context("cannot listen for the S3 sink")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let objects = Objects::default();
        let is_down = Arc::<AtomicBool>::default();
        let shared = (Arc::clone(&objects), Arc::clone(&is_down));
        std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || serve(listener, shared.0, shared.1))?;
        Ok(Self {
            address,
            objects,
            is_down,
        })
    }

    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// The log files got so far; the sink is empty afterwards.
    pub fn take(&self) -> Vec<(String, Bytes)> {
        let objects = self.take_objects().into_iter();
        objects.map(|(key, object)| (key, object.bytes)).collect()
    }

    /// The same, with when they came.
    pub fn take_objects(&self) -> Vec<(String, Object)> {
        let mut objects = self.objects.lock().expect("lock: held for a line only");
        objects
            .drain()
            .filter(|(key, _)| key.ends_with(".json.gz"))
            .collect()
    }
}

fn serve(listener: std::net::TcpListener, objects: Objects, is_down: Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the sink");
    runtime.block_on(async move {
        let listener =
            tokio::net::TcpListener::from_std(listener).expect("the sink's listener is valid");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let objects = Arc::clone(&objects);
            let is_down = Arc::clone(&is_down);
            let service = service_fn(move |request| {
                answer(
                    Arc::clone(&objects),
                    is_down.load(Ordering::Relaxed),
                    request,
                )
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
}

async fn answer(
    objects: Objects,
    is_down: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(error(StatusCode::BAD_REQUEST, "IncompleteBody"));
    };
    if is_down {
        return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"));
    }
    let path = head.uri.path().to_owned();
    let is_object = path.trim_matches('/').contains('/');
    Ok(match head.method {
        Method::PUT if is_object => put(&objects, path, &head.headers, body.to_bytes()),
        Method::GET | Method::HEAD if is_object => match lock(&objects).get(&path) {
            Some(object) => ok(object.bytes.clone()),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        Method::DELETE => {
            lock(&objects).remove(&path);
            status(StatusCode::NO_CONTENT)
        }
        _ => ok(Bytes::from_static(
            b"<?xml version='1.0'?><LocationConstraint/>",
        )),
    })
}

fn put(objects: &Objects, path: String, headers: &HeaderMap, body: Bytes) -> Response<Full<Bytes>> {
    let conditional = headers
        .get("if-none-match")
        .is_some_and(|value| value == "*");
    let chunked = headers
        .get("x-amz-content-sha256")
        .is_some_and(|value| value.as_bytes().starts_with(b"STREAMING"));
    if chunked {
        return error(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
    }
    let mut objects = lock(objects);
    if conditional && objects.contains_key(&path) {
        return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let at = Instant::now();
    objects.insert(path, Object { bytes: body, at });
    ok(Bytes::new())
}

fn lock(objects: &Objects) -> std::sync::MutexGuard<'_, HashMap<String, Object>> {
    objects.lock().expect("lock: held for a line only")
}

fn ok(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(
        "etag",
        http::HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\""),
    );
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn error(code: StatusCode, name: &str) -> Response<Full<Bytes>> {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{name}</Code><Message>{name}</Message></Error>"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response
}
