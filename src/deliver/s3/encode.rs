//! Makes the log file of a sealed batch from the journal, within a budget of memory.
//!
//! The budget bounds all files of all legs together, being made or on their way. So that a destination that hangs does not take it
//! from the others, each leg has a [`Share`] as well: its files on their way hold at most 16 MiB, compressed. The waits have
//! one order, share before budget, and what holds both waits for nothing but the disk and the processor until its file
//! is made; so they cannot block each other. A file larger than a limit counts as the whole of it, and is made or sent alone.
//!
//! What this means: of the daemon's 128 MiB, legs whose destinations hang take at most 16 MiB each, until their first uploads run out
//! of time; after that the gate lets them hold one file at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::background;
use crate::batch::Positions;
use crate::deliver::failure::Failure;
use crate::event::Record;
use crate::ledger::SealedBatch;
use crate::logfile::{Builder, Compressors, LogFile};
use crate::wal::{ReadError, Wal};

/// What all legs share for making log files.
#[derive(Debug)]
pub struct Encoding {
    pub compressors: Compressors,
    budget: Limit,
    /// Files being made at a time: more than there are processors would hold memory and gain nothing.
    processors: Arc<Semaphore>,
    /// Those who make files, or wait for a processor to.
    makers: AtomicUsize,
}

impl Encoding {
    /// `budget_bytes` bounds what all files being made or uploaded hold together, uncompressed and compressed. A file
    /// larger than that is made alone.
    pub fn new(compressors: Compressors, budget_bytes: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            compressors,
            budget: Limit::new(budget_bytes),
            processors: Arc::new(Semaphore::new(processors)),
            makers: AtomicUsize::new(0),
        }
    }
}

/// One of the makers of files. The last to go gives back the memory that they were made in.
struct Maker(Arc<Encoding>);

impl Maker {
    fn of(encoding: &Arc<Encoding>) -> Self {
        encoding.makers.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(encoding))
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if self.0.makers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.compressors.release();
        }
    }
}

/// What one leg's files on their way may hold.
#[derive(Debug)]
pub(super) struct Share(Limit);

impl Default for Share {
    fn default() -> Self {
        Self(Limit::new(16 << 20))
    }
}

#[cfg(test)]
impl Share {
    pub fn of(bytes: usize) -> Self {
        Self(Limit::new(bytes))
    }
}

/// A log file in memory, with the room it takes.
pub(super) struct Encoded {
    /// Without its bytes, which are in `gzip`.
    pub file: LogFile,
    pub gzip: Bytes,
    /// Events that the journal could not give back.
    pub lost: u32,
    _room: [OwnedSemaphorePermit; 2],
}

pub(super) enum Made {
    File(Encoded),
    /// None of the batch's events could be read back.
    Nothing,
}

/// Reads the batch's events back from the journal and makes its file.
pub(super) async fn encode(
    batch: &SealedBatch,
    journal: &Wal,
    encoding: &Arc<Encoding>,
    share: &Share,
) -> Result<Made, Failure> {
    // Events compress to a tenth or so. What a file turns out to be counts from then on.
    let mut on_its_way = share.0.take(batch.json_bytes / 8).await;
    // The uncompressed file, and a compressed one that in practice is a fraction of it.
    let mut room = encoding
        .budget
        .take(batch.json_bytes + batch.json_bytes / 4)
        .await;
    let made = {
        let maker = Maker::of(encoding);
        let processor = encoding.processors.clone().acquire_owned().await;
        let processor = processor.expect("processors: their semaphore is never closed");
        let journal = journal.clone();
        let (json_bytes, positions) = (batch.json_bytes, batch.positions.clone());
        background::spawn_blocking(move || {
            let _processor = processor;
            let compressors = &maker.0.compressors;
            background::run(|| file_of(&positions, json_bytes, &journal, compressors))
        })
        .await
    };
    let made = made.map_err(|error| Failure::new("Internal", error.to_string()))?;
    let made = made.map_err(|error| Failure::new("NoThread", error.to_string()))?;
    let (file, lost) = made?;
    let Some(mut file) = file else {
        return Ok(Made::Nothing);
    };
    let gzip = Bytes::from(std::mem::take(&mut file.gzip));
    encoding.budget.settle(&mut room, gzip.len() as u64);
    share.0.settle(&mut on_its_way, gzip.len() as u64);
    Ok(Made::File(Encoded {
        file,
        gzip,
        lost,
        _room: [on_its_way, room],
    }))
}

/// The file of the events at `positions`, nothing when none of them could be read back, and how many those are. Blocking.
fn file_of(
    positions: &Positions,
    json_bytes: u64,
    journal: &Wal,
    compressors: &Compressors,
) -> Result<(Option<LogFile>, u32), NotMade> {
    let json_bytes = usize::try_from(json_bytes).unwrap_or(0);
    let mut builder = Builder::with_capacity(json_bytes, compressors)?;
    let mut pushed = Ok(());
    let mut lost = 0;
    journal
        .reader()
        .read_each(&mut positions.iter(), &mut |position, frame| match frame
            .map_err(|error| error.to_string())
            .and_then(|frame| Record::decode(frame).map_err(|error| error.to_string()))
        {
            Ok(record) if pushed.is_ok() => {
                pushed = builder.push(record.json, record.meta.event_time);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(
                    position = position.0,
                    error,
                    "event cannot be read back from the journal"
                );
                lost += 1;
            }
        })?;
    pushed?;
    if builder.is_empty() {
        return Ok((None, lost));
    }
    Ok((Some(builder.finish(compressors)?), lost))
}

/// Why there is no file yet; it is tried again.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    JournalRead(#[from] ReadError),
    #[error("no memory for a log file: {0}")]
    NoMemory(#[from] std::io::Error),
}

impl From<NotMade> for Failure {
    fn from(error: NotMade) -> Self {
        let code = match error {
            NotMade::JournalRead(_) => "JournalRead",
            NotMade::NoMemory(_) => "NoMemory",
        };
        Self::new(code, error.to_string())
    }
}

/// Bytes that are taken in KiB, in the order of asking. One who asks for more than there is takes all of it.
#[derive(Debug)]
struct Limit {
    kib: u32,
    free: Arc<Semaphore>,
}

impl Limit {
    fn new(bytes: usize) -> Self {
        let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
        Self {
            kib,
            free: Arc::new(Semaphore::new(kib as usize)),
        }
    }

    async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        self.free
            .clone()
            .acquire_many_owned(self.count(bytes))
            .await
            .expect("limit: its semaphore is never closed")
    }

    /// Brings what was taken to `bytes`: down at once; up as far as there is room now, without waiting with a file in hand.
    fn settle(&self, taken: &mut OwnedSemaphorePermit, bytes: u64) {
        let wanted = self.count(bytes) as usize;
        match taken.num_permits().checked_sub(wanted) {
            Some(spare) => drop(taken.split(spare)),
            None => {
                let missing = wanted - taken.num_permits();
                let missing = u32::try_from(missing.min(self.free.available_permits()));
                let more = missing.map(|count| self.free.clone().try_acquire_many_owned(count));
                if let Ok(Ok(more)) = more {
                    taken.merge(more);
                }
            }
        }
    }

    fn count(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.kib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_is_never_exceeded_and_never_in_the_way_of_a_file_larger_than_it() {
        let limit = Limit::new(10 << 10);
        let mut huge = limit.take(u64::MAX).await;
        assert_eq!(limit.free.available_permits(), 0);
        limit.settle(&mut huge, 3 << 10);
        assert_eq!(limit.free.available_permits(), 7);
        let mut grown = limit.take(1).await;
        limit.settle(&mut grown, 5 << 10);
        assert_eq!(limit.free.available_permits(), 2, "up, while there is room");
        limit.settle(&mut grown, 50 << 10);
        assert_eq!(limit.free.available_permits(), 0, "and no further");
        drop((huge, grown));
        assert_eq!(limit.free.available_permits(), 10);
    }
}
