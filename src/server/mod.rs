//! HTTP/1.1 over TCP, TLS and unix sockets, for clients that may be slow, many, broken or hostile.
//!
//! - A connection that sends no complete request head within `Limits::header_timeout` is closed: from the first byte on, between
//!   requests too (hyper starts this timer when it begins to wait, not when something arrives). How slowly a body may come is the handler's business.
//! - A handshake of TLS that is not done within `Limits::handshake_timeout` is broken off, and earlier when too many are under way ([`handshake`]).
//! - A connection that takes nothing of its answer for `Limits::write_timeout` is closed.
//! - At most `Limits::connections` are open, and at most `Limits::connections_per_ip` from one address. Over the first, new ones wait in the kernel's
//!   queue: whoever is served keeps being served, and nothing is spent on the rest. Over the second, the connection is closed at once: queueing
//!   it would let one address hold up all others.
//! - A failed accept (no file descriptors left, a client gone already) is logged and tried again after a pause.
//! - A panic in a handler ends its connection and nothing else.
//! - On stop, the socket closes first, idle connections next, requests in flight are given `Limits::drain` to finish; the rest is dropped.
//!   Every task has ended when [`serve`] returns.

pub mod certificate;
mod files;
mod handshake;
mod listener;
pub mod ops;
mod stall;
pub mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use files::raise_file_limit;
use handshake::Handshakes;
use listener::Stream;
pub use listener::{BindError, Listener, Peer};

/// What a listener bears.
#[derive(Debug, Clone)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_ip: usize,
    /// Of TLS, under way.
    pub handshakes: usize,
    pub handshake_timeout: Duration,
    /// From the first wait for a request's head until it is complete.
    pub header_timeout: Duration,
    /// For a peer that does not read its answer.
    pub write_timeout: Duration,
    /// Of a request's head; also of the buffer a connection reads into.
    pub header_bytes: usize,
    /// Given to requests in flight when the daemon stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_ip: 512,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            header_bytes: 64 << 10,
            drain: Duration::from_millis(500),
        }
    }
}

/// Serves `listener` until `stop`, one call of `handler` a request. Returns when every connection has ended.
pub async fn serve<H, F, B>(listener: Listener, handler: H, limits: Limits, stop: CancellationToken)
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(limits.connections));
    let per_ip = PerIp::default();
    let handshakes = Handshakes::new(limits.handshakes);
    let mut connections = JoinSet::new();
    loop {
        // Connections that have ended are reaped here, so that the set holds the open ones only.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%listener, %error, "cannot accept a connection, will try again");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                }
            }
        };
        let Some(share) = per_ip.take(&peer, limits.connections_per_ip) else {
            debug!(%peer, limit = limits.connections_per_ip, "too many connections from one address, closing this one");
            continue;
        };
        let (handler, limits, stop) = (handler.clone(), limits.clone(), stop.clone());
        let (tls, handshakes) = (listener.tls().cloned(), handshakes.clone());
        connections.spawn(async move {
            // Below TLS, so that what counts is what the peer takes.
            let stream = stall::Impatient::new(stream, limits.write_timeout);
            match tls {
                None => connection(stream, peer, handler, limits, stop).await,
                Some(tls) => {
                    let secured = handshakes.run(stream, &tls, limits.handshake_timeout);
                    match stop.run_until_cancelled(secured).await {
                        Some(Ok((stream, secured))) => {
                            let peer = peer.secured(secured);
                            connection(stream, peer, handler, limits, stop).await;
                        }
                        Some(Err(error)) => debug!(%peer, %error, "tls handshake failed"),
                        None => {}
                    }
                }
            }
            drop((slot, share));
        });
    }
    drop(listener);
    drain(connections, limits.drain).await;
}

/// After a failed accept: long enough not to spin, short enough not to be felt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes a slot first, so that over the cap nothing is accepted.
async fn accept(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(Stream, Peer, OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .expect("slots: the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn connection<S, H, F, B>(
    stream: S,
    peer: Peer,
    handler: H,
    limits: Limits,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>, Peer) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let service = service_fn(|request| {
        let answer = handler(request, peer.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, error = &error as &dyn Error, "connection ended early");
    }
}

/// Lets what is in flight finish until `patience` ends.
async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(deadline, connections.join_next()).await {
            Ok(None) => return,
            Ok(Some(ended)) => report(ended),
            Err(_) => break,
        }
    }
    warn!(
        connections = connections.len(),
        "requests were still in flight at the end of the drain, dropping them"
    );
    connections.shutdown().await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a request's handler panicked, its connection is closed; please report this bug");
    }
}

/// Connections of each address.
#[derive(Debug, Clone, Default)]
struct PerIp(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's share of its address's allowance, given back on drop.
struct Share(Option<(PerIp, IpAddr)>);

impl PerIp {
    /// Nothing when the address has its fill. Unix sockets are not counted: who may connect is decided by the file's mode.
    fn take(&self, peer: &Peer, limit: usize) -> Option<Share> {
        let (Peer::Tcp(address) | Peer::Tls(address, _)) = peer else {
            return Some(Share(None));
        };
        let ip = address.ip();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Share(Some((self.clone(), ip))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((per_ip, ip)) = self.0.take() else {
            return;
        };
        let mut open = per_ip.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests;
