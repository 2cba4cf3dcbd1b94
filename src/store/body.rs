//! Bodies between the network and the disk, in pieces, with the disk's work off the async threads.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::StdError;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::JoinHandle;

use super::Store;
use super::digests::Claims;
use super::error::StoreError;
use super::objects::Incoming;

/// Gathered before the disk is bothered, and read from it at once.
pub const PIECE_BYTES: usize = 256 << 10;
/// A refused body of at most this is read and thrown away; a larger one costs the connection.
const DISCARD_BYTES: usize = 1 << 20;
/// A body that brings nothing for this long is given up.
pub const STALL: Duration = Duration::from_secs(30);

/// The trailers of an `aws-chunked` body, there once its last byte was read. Travels in the request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Trailers(pub Arc<OnceLock<Vec<(String, String)>>>);

/// Runs blocking work. When the client goes it runs on to its end; the server awaits it before it stops.
pub async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match store.tasks().spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Stopping),
        },
    }
}

/// Writes a body to a file under `tmp/` and hands it to `finish` on a blocking thread, with the claims completed by the
/// trailers. A body that fits one piece costs one trip to that thread.
pub async fn receive<T: Send + 'static>(
    store: Store,
    body: Option<StreamingBlob>,
    claims: Claims,
    trailers: Trailers,
    finish: impl FnOnce(Incoming, Claims) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let claims = Arc::new(claims);
    let mut incoming: Option<Incoming> = None;
    let mut body = body;
    loop {
        let (pieces, ended) = gather(&mut body).await?;
        let begun = incoming.take();
        let (shared, tasks) = (claims.clone(), store.clone());
        let store = store.clone();
        let write = move || {
            let mut incoming = match begun {
                Some(incoming) => incoming,
                None => Incoming::create(&store, &shared)?,
            };
            incoming.write(&pieces)?;
            Ok(incoming)
        };
        if ended {
            return blocking(&tasks, move || {
                let incoming = write()?;
                finish(incoming, Claims::clone(&claims).with_trailers(&trailers)?)
            })
            .await;
        }
        incoming = Some(blocking(&tasks, write).await?);
    }
}

/// Reads a small body that is not wanted, so that the refusal reaches its client and the connection lives on.
pub async fn discard(body: &mut Option<StreamingBlob>) {
    for _ in 0..DISCARD_BYTES / PIECE_BYTES {
        match gather(body).await {
            Ok((_, false)) => {}
            Ok((_, true)) | Err(_) => return,
        }
    }
}

async fn gather(body: &mut Option<StreamingBlob>) -> Result<(Vec<Bytes>, bool), StoreError> {
    let Some(stream) = body else {
        return Ok((Vec::new(), true));
    };
    let mut pieces = Vec::new();
    let mut gathered = 0;
    while gathered < PIECE_BYTES {
        match tokio::time::timeout(STALL, stream.next()).await {
            Err(_) => return Err(StoreError::RequestTimeout),
            Ok(None) => return Ok((pieces, true)),
            Ok(Some(Err(error))) => return Err(body_error(&error)),
            Ok(Some(Ok(piece))) => {
                gathered += piece.len();
                pieces.push(piece);
            }
        }
    }
    Ok((pieces, false))
}

fn body_error(error: &StdError) -> StoreError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = source {
        if let Some(chunked) = error.downcast_ref::<super::adapter::ChunkedError>() {
            return chunked.as_store_error();
        }
        source = error.source();
    }
    StoreError::IncompleteBody
}

/// Part of a file as a response body.
pub struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// Reads what fits one piece at once; the rest follows as the client takes it.
    pub fn open(file: File, range: std::ops::Range<u64>) -> io::Result<StreamingBlob> {
        if range.end - range.start <= PIECE_BYTES as u64 {
            let bytes = read_piece(&file, range.start, range.end)?;
            return Ok(StreamingBlob::from(s3s::Body::from(bytes)));
        }
        Ok(StreamingBlob::new(Self {
            file: Arc::new(file),
            at: range.start,
            end: range.end,
            reading: None,
        }))
    }
}

fn read_piece(file: &File, at: u64, end: u64) -> io::Result<Bytes> {
    let take = usize::try_from(end - at)
        .unwrap_or(PIECE_BYTES)
        .min(PIECE_BYTES);
    let mut piece = vec![0; take];
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

impl Stream for FileBody {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.at >= this.end {
            return Poll::Ready(None);
        }
        let reading = this.reading.get_or_insert_with(|| {
            let (file, at, end) = (this.file.clone(), this.at, this.end);
            tokio::task::spawn_blocking(move || read_piece(&file, at, end))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        this.reading = None;
        let piece = match read {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => {
                this.at = this.end;
                return Poll::Ready(Some(Err(error.into())));
            }
            Err(error) => {
                this.at = this.end;
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        this.at += piece.len() as u64;
        Poll::Ready(Some(Ok(piece)))
    }
}

impl ByteStream for FileBody {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.end - self.at).unwrap_or(usize::MAX))
    }
}
