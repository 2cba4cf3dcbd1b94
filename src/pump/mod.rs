//! Follows a log for one consumer: hands over what is durable, in order, a chunk at a time.
//!
//! A consumer asks for the next chunk when it has room for one; until then nothing is read ahead, so that a consumer that
//! lags costs no memory. The log is the buffer.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::telemetry::chain;

use crate::wal::{Chunk, Position, ReadError, Reader, Wal};

/// Bytes read from a log at a time.
const CHUNK_BYTES: usize = 1 << 20;

const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("the log's reader has stopped")]
    Reader(#[from] JoinError),
    #[error("the log is closed")]
    Closed,
}

/// A place in a log that moves forward.
pub struct Tail {
    chunk_bytes: usize,
    next: Position,
    durable: watch::Receiver<Position>,
    reader: Option<Reader>,
    /// A read under way. It is kept here, so that a call of `next` that is given up loses nothing.
    reading: Option<JoinHandle<(Reader, Result<Chunk, ReadError>)>>,
    /// After a failed read: when to try again.
    paused_until: Option<Instant>,
    #[cfg(test)]
    moves: crate::wal::Moves,
}

impl Tail {
    pub fn new(log: &Wal, from: Position) -> Self {
        Self::with_chunks_of(log, from, CHUNK_BYTES)
    }

    /// A tail that reads about this many bytes at a time.
    pub fn with_chunks_of(log: &Wal, from: Position, chunk_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            next: from,
            durable: log.watch_durable(),
            reader: Some(log.reader()),
            reading: None,
            paused_until: None,
            #[cfg(test)]
            moves: log.moves(),
        }
    }

    /// From the next read on, about this many bytes are read at a time.
    pub fn set_chunk_bytes(&mut self, chunk_bytes: usize) {
        self.chunk_bytes = chunk_bytes;
    }

    /// The position after all that was handed over.
    pub fn position(&self) -> Position {
        self.next
    }

    /// Bytes that are durable and were not handed over.
    pub fn behind(&self) -> u64 {
        self.durable.borrow().0.saturating_sub(self.next.0)
    }

    /// Whether everything durable was handed over.
    pub fn is_at_end(&self) -> bool {
        self.next >= *self.durable.borrow()
    }

    /// The next chunk, as soon as there is one. A read that fails, for want of file descriptors or because of the disk, is told and
    /// tried again. Cancel safe.
    pub async fn next(&mut self) -> Result<Chunk, TailError> {
        loop {
            if let Some(until) = self.paused_until {
                tokio::time::sleep_until(until).await;
                self.paused_until = None;
            }
            if self.reading.is_none() {
                let next = self.next;
                #[cfg(test)]
                self.moves.beyond(next).await;
                self.durable
                    .wait_for(|durable| *durable > next)
                    .await
                    .map_err(|_| TailError::Closed)?;
                let Some(mut reader) = self.reader.take() else {
                    return Err(TailError::Closed);
                };
                let chunk_bytes = self.chunk_bytes;
                // Page cache or disk, it blocks either way.
                self.reading = Some(crate::background::spawn_blocking(move || {
                    let chunk = reader.read(next, chunk_bytes);
                    (reader, chunk)
                }));
            }
            if let Some(reading) = &mut self.reading {
                let finished = reading.await;
                self.reading = None;
                let (reader, chunk) = finished?;
                self.reader = Some(reader);
                match chunk {
                    Ok(chunk) => {
                        self.next = chunk.next;
                        return Ok(chunk);
                    }
                    Err(error) => {
                        tracing::error!(position = self.next.0, error = %chain(&error), "cannot read the log, will retry");
                        self.paused_until = Some(Instant::now() + RETRY_AFTER);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Batch, DiskReserve, Metrics, Options, RealDisk};
    use std::path::Path;
    use std::sync::Arc;

    fn open(directory: &Path) -> Wal {
        let options = Options {
            directory: directory.to_owned(),
            segment_bytes: 1 << 20,
            max_bytes: 1 << 30,
            disk_reserve: DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let disk = Arc::new(RealDisk);
        Wal::open(disk, options, Metrics::default(), &mut |_, _| ())
            .unwrap()
            .0
    }

    async fn append(journal: &Wal, payload: &[u8]) {
        let mut batch = Batch::new();
        batch.push(payload);
        let permit = journal.reserve(batch.bytes()).await.unwrap();
        permit.append(batch).await.unwrap();
    }

    /// After a restart the durable end lies in a new segment that has no frame yet.
    #[tokio::test]
    async fn a_tail_comes_to_the_end_of_a_reopened_journal_and_waits_there() {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(directory.path());
        append(&journal, b"one").await;
        journal.close();
        let journal = open(directory.path());
        let mut tail = Tail::new(&journal, Position(0));
        let mut seen = Vec::new();
        while !tail.is_at_end() {
            let chunk = tail.next().await.unwrap();
            seen.extend(chunk.iter().map(|(_, payload)| payload.to_vec()));
        }
        assert_eq!(seen, [b"one"]);
        let nothing = tokio::time::timeout(Duration::from_millis(50), tail.next()).await;
        assert!(
            nothing.is_err(),
            "there is nothing to read, and no spinning"
        );

        append(&journal, b"two").await;
        let chunk = tail.next().await.unwrap();
        let frames: Vec<_> = chunk.iter().map(|(_, payload)| payload).collect();
        assert_eq!(frames, [b"two"]);
        journal.close();
    }
}
