//! Reads a request's body into memory, inflating it on the way, within limits that hold at every instant.
//!
//! - Bytes: no more than `max_body_bytes`, as sent and as inflated, checked as they come; a bomb is noticed at its first byte too many.
//! - Memory: all bodies together stay within a budget, charged before memory is asked for. A body grows in steps while there is room. When
//!   there is none it waits, for room or for the lane: a reserve as large as the largest body, held by one at a time, whose holder can always
//!   finish. So no set of half-read bodies can wait for one another for ever.
//! - Time: a sender may be slow for a grace, then the average since the beginning must keep up with a minimum. Waiting for memory does not
//!   count, it is not the sender's fault.

use std::fmt::Display;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// Room a body begins with, if it is not known to need less.
const FIRST_STEP: usize = 16 << 10;

/// Output of one call to the inflater, so that a long inflation lets others run in between.
const INFLATE_STEP: usize = 128 << 10;

/// The largest window a zstd body may ask for, 8 MiB: what RFC 8878 recommends every decoder to support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A body waits this long for memory before its sender is asked to come back.
const MOST_WAIT_FOR_MEMORY: Duration = Duration::from_secs(10);

const KIB: usize = 1 << 10;

#[derive(Debug, Clone)]
pub struct Limits {
    pub max_body_bytes: usize,
    pub grace: Duration,
    pub min_bytes_per_second: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body inflates to more than {0} bytes")]
    InflatesTooLarge(usize),
    #[error("the body comes more slowly than {0} bytes a second")]
    TooSlow(u64),
    #[error("Content-Encoding {0} is not known, send gzip, zstd or none")]
    UnknownEncoding(String),
    #[error("the body is not whole {encoding}: {reason}")]
    Garbled {
        encoding: &'static str,
        reason: String,
    },
    #[error("the body broke off: {0}")]
    BrokeOff(String),
    #[error("other bodies take up all the memory for them")]
    NoMemory,
}

/// The memory for all bodies together.
#[derive(Debug, Clone)]
pub struct Budget {
    /// KiB that bodies share.
    shared: Arc<Semaphore>,
    /// The right to use the reserve.
    lane: Arc<Semaphore>,
}

impl Budget {
    /// `total_bytes` for all; of that, room for one largest body is the reserve.
    pub fn new(total_bytes: usize, largest_body_bytes: usize) -> Self {
        let shared = total_bytes
            .saturating_sub(charge(largest_body_bytes, true))
            .max(KIB);
        let permits = (shared / KIB).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Semaphore::new(permits)),
            lane: Arc::new(Semaphore::new(1)),
        }
    }

    fn hold_nothing(&self) -> Held {
        Held {
            budget: self.clone(),
            bytes: 0,
            shared: None,
            lane: None,
        }
    }
}

/// A body's part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: usize,
    shared: Option<OwnedSemaphorePermit>,
    lane: Option<OwnedSemaphorePermit>,
}

impl Held {
    async fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        let more = bytes.saturating_sub(self.bytes).div_ceil(KIB);
        if more > 0 && self.lane.is_none() {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let shared = Arc::clone(&self.budget.shared);
            let lane = Arc::clone(&self.budget.lane);
            let wait = async {
                tokio::select! {
                    biased;
                    permit = shared.acquire_many_owned(more) => {
                        let permit = permit.expect("semaphore: never closed");
                        match &mut self.shared {
                            Some(held) => held.merge(permit),
                            none => *none = Some(permit),
                        }
                    }
                    permit = lane.acquire_owned() => self.lane = Some(permit.expect("semaphore: never closed")),
                }
            };
            timeout(MOST_WAIT_FOR_MEMORY, wait)
                .await
                .map_err(|_| BodyError::NoMemory)?;
        }
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }
}

/// What a buffer of so many bytes costs. An inflater's window may hold once more what it has put out.
fn charge(capacity: usize, inflated: bool) -> usize {
    if inflated {
        capacity.saturating_mul(2)
    } else {
        capacity
    }
}

/// A body in memory. Keep it until its events are durable: dropping it gives its part of the budget back.
#[derive(Debug)]
pub struct Whole {
    pub bytes: Bytes,
    _held: Held,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, BodyError> {
        let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(only) = encodings.next() else {
            return Ok(Self::Identity);
        };
        let given = only.to_str().unwrap_or("in strange characters").trim();
        match given.to_ascii_lowercase().as_str() {
            _ if encodings.next().is_some() => Err(BodyError::UnknownEncoding(
                "given more than once".to_owned(),
            )),
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(BodyError::UnknownEncoding(crate::event::refusal::shown(
                given.as_bytes(),
                64,
            ))),
        }
    }
}

/// Reads `body` to its end.
pub async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limits: &Limits,
    budget: &Budget,
) -> Result<Whole, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let encoding = Encoding::of(headers)?;
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > limits.max_body_bytes) {
        return Err(BodyError::TooLarge(limits.max_body_bytes));
    }
    let source = Arriving {
        body,
        limits,
        received: 0,
        began: Instant::now(),
        waited: Duration::ZERO,
    };
    let mut room = Room {
        bytes: Vec::new(),
        // One byte more than a body may have shows that it has more.
        most: limits.max_body_bytes.saturating_add(1),
        inflated: encoding != Encoding::Identity,
        held: budget.hold_nothing(),
    };
    match encoding {
        Encoding::Identity => read_plain(source, &mut room, announced).await?,
        Encoding::Gzip => {
            let inflater = flate2::bufread::MultiGzDecoder::new(Chunks::default());
            read_inflated(source, &mut room, inflater, "gzip", |gzip| gzip.get_mut()).await?;
        }
        Encoding::Zstd => {
            let garbled = |error: io::Error| BodyError::Garbled {
                encoding: "zstd",
                reason: error.to_string(),
            };
            let mut inflater =
                zstd::stream::read::Decoder::with_buffer(Chunks::default()).map_err(garbled)?;
            inflater.window_log_max(ZSTD_WINDOW_LOG).map_err(garbled)?;
            read_inflated(source, &mut room, inflater, "zstd", |zstd| zstd.get_mut()).await?;
        }
    }
    Ok(Whole {
        bytes: Bytes::from(room.bytes),
        _held: room.held,
    })
}

async fn read_plain<B>(
    mut source: Arriving<'_, B>,
    room: &mut Room,
    announced: Option<usize>,
) -> Result<(), BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    while let Some(chunk) = source.next_chunk().await? {
        let needed = room.bytes.len() + chunk.len();
        if needed > room.bytes.capacity() {
            // An announcement is believed as far as twice what has come.
            let target = announced
                .unwrap_or(usize::MAX)
                .min(needed * 2)
                .max(needed)
                .max(FIRST_STEP.min(announced.unwrap_or(0)));
            source.while_waiting(room.grow_to(target)).await?;
        }
        room.bytes.extend_from_slice(&chunk);
    }
    Ok(())
}

async fn read_inflated<B, I>(
    mut source: Arriving<'_, B>,
    room: &mut Room,
    mut inflater: I,
    encoding: &'static str,
    chunks: impl Fn(&mut I) -> &mut Chunks,
) -> Result<(), BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
    I: Read,
{
    let most = source.limits.max_body_bytes;
    let mut since_yield = 0;
    loop {
        if room.bytes.len() == room.bytes.capacity() {
            if room.bytes.len() > most {
                return Err(BodyError::InflatesTooLarge(most));
            }
            let target = (room.bytes.len() * 2).max(FIRST_STEP);
            source.while_waiting(room.grow_to(target)).await?;
        }
        let filled = room.bytes.len();
        let step = (room.bytes.capacity() - filled).min(INFLATE_STEP);
        room.bytes.resize(filled + step, 0);
        let outcome = inflater.read(&mut room.bytes[filled..]);
        room.bytes
            .truncate(filled + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) if chunks(&mut inflater).ended => break,
            Ok(0) => {
                // It thinks it is done: anything more but the end is one thing too many.
                let more = source.next_chunk().await?;
                match more {
                    None => break,
                    Some(_) => {
                        return Err(BodyError::Garbled {
                            encoding,
                            reason: "more follows its end".to_owned(),
                        });
                    }
                }
            }
            Ok(inflated) => {
                since_yield += inflated;
                if since_yield >= 2 * INFLATE_STEP {
                    since_yield = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let next = source.next_chunk().await?;
                let chunks = chunks(&mut inflater);
                chunks.ended = next.is_none();
                chunks.chunk = next.unwrap_or_default();
            }
            Err(error) => {
                return Err(BodyError::Garbled {
                    encoding,
                    reason: error.to_string(),
                });
            }
        }
    }
    if room.bytes.len() > most {
        Err(BodyError::InflatesTooLarge(most))
    } else {
        Ok(())
    }
}

/// A buffer that grows only with the budget's consent.
struct Room {
    bytes: Vec<u8>,
    most: usize,
    inflated: bool,
    held: Held,
}

impl Room {
    async fn grow_to(&mut self, capacity: usize) -> Result<(), BodyError> {
        let capacity = capacity.min(self.most).max(self.bytes.len());
        self.held.grow_to(charge(capacity, self.inflated)).await?;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }
}

/// A body on its way, with its sender's patience account.
struct Arriving<'a, B> {
    body: B,
    limits: &'a Limits,
    received: usize,
    began: Instant,
    /// Time that was not the sender's fault.
    waited: Duration,
}

impl<B> Arriving<'_, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    /// The next bytes that are not empty; nothing at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let frame = timeout_at(self.deadline(), self.body.frame()).await;
            let frame = frame.map_err(|_| BodyError::TooSlow(self.limits.min_bytes_per_second))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| BodyError::BrokeOff(error.to_string()))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.received += data.len();
                if self.received > self.limits.max_body_bytes {
                    return Err(BodyError::TooLarge(self.limits.max_body_bytes));
                }
                return Ok(Some(data));
            }
        }
    }

    /// When the average falls below the minimum if nothing more comes.
    fn deadline(&self) -> Instant {
        let earned = Duration::from_secs_f64(
            self.received as f64 / self.limits.min_bytes_per_second.max(1) as f64,
        );
        self.began + self.waited + self.limits.grace + earned
    }

    async fn while_waiting<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = wait.await;
        self.waited += began.elapsed();
        done
    }
}

/// The compressed bytes at hand. Out of them, it would block; that is when the next chunk is awaited.
#[derive(Default)]
struct Chunks {
    chunk: Bytes,
    ended: bool,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(into.len());
        into[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
