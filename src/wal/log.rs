//! The synchronous heart: appends frames to the newest segment and makes them durable.
//!
//! ```text
//!        commit, roll                    commit that does not fit, roll
//! none ──────────────► active segment ───────────────────────────────────► active segment
//!                      a new file: header written, file synced, directory synced
//! ```
//!
//! After an error there are two ways on. No room (ENOSPC, EDQUOT, EFBIG) when writing: the file is cut back to its last good
//! end and the next commit may work. No file descriptor for a new segment (EMFILE, ENFILE): likewise. Anything else, above all a failed fsync: the log takes nothing more, because nobody can
//! say what the disk holds (a second fsync would report success over pages that the kernel has given up).

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::disk::{self, Disk, DiskFile};
use super::frame::{self, Batch, Seed};
use super::segment::{self, FRAMES_AT, Header};

#[derive(Debug)]
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    segment_bytes: u64,
    active: Option<Active>,
    /// Where the next segment begins, unless the active one ends later.
    next_base: u64,
    /// The end of the last frame.
    end: u64,
    failure: Option<String>,
    /// What the last fsync of data took.
    last_sync: Duration,
    draw_salt: fn() -> Result<[u8; 8], getrandom::Error>,
}

#[derive(Debug)]
struct Active {
    file: Box<dyn DiskFile>,
    base: u64,
    seed: Seed,
    /// Where the file's durable content ends.
    bytes: u64,
}

/// The newest segment, as others need to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ActiveSegment {
    pub base: u64,
    pub bytes: u64,
    pub seed: Seed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommitError {
    /// There is no room, or no file can be opened; nothing was appended, and it may work later.
    DiskFull,
    /// It will never work again.
    Failed(String),
}

impl Log {
    /// A log whose next segment begins at `next_base`; the frames before it ended at `end`.
    pub fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        segment_bytes: u64,
        next_base: u64,
        end: u64,
    ) -> Self {
        Self {
            disk,
            directory,
            segment_bytes,
            active: None,
            next_base,
            end,
            failure: None,
            last_sync: Duration::ZERO,
            draw_salt: || {
                let mut salt = [0; 8];
                crate::random::fill(&mut salt).map(|()| salt)
            },
        }
    }

    #[cfg(test)]
    pub fn with_salt(self, draw_salt: fn() -> Result<[u8; 8], getrandom::Error>) -> Self {
        Self { draw_salt, ..self }
    }

    pub fn active(&self) -> Option<ActiveSegment> {
        self.active.as_ref().map(|active| ActiveSegment {
            base: active.base,
            bytes: active.bytes,
            seed: active.seed,
        })
    }

    /// The end of the last frame.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether it takes anything at all.
    pub fn healthy(&self) -> Result<(), CommitError> {
        match &self.failure {
            Some(reason) => Err(CommitError::Failed(reason.clone())),
            None => Ok(()),
        }
    }

    pub fn last_sync(&self) -> Duration {
        self.last_sync
    }

    /// Closes the active segment and begins a new one, so that what came before can be trimmed while a file remains to say
    /// where positions go on. Without room nothing changes.
    pub fn roll(&mut self) -> Result<(), CommitError> {
        self.healthy()?;
        if let Some(active) = &self.active {
            self.next_base = active.base + active.bytes;
        }
        self.active = Some(self.begin_segment()?);
        Ok(())
    }

    /// Appends as many of the batches as the segment takes, at least one, and makes them durable with one fsync.
    /// Gives how many; they stand one after the other before `end`.
    pub fn commit(&mut self, batches: &mut [Batch]) -> Result<usize, CommitError> {
        self.healthy()?;
        let Some(first) = batches.first() else {
            return Ok(0);
        };
        let fits = |active: &Active| {
            active.bytes == FRAMES_AT || active.bytes + first.bytes() as u64 <= self.segment_bytes
        };
        if !self.active.as_ref().is_some_and(fits) {
            self.roll()?;
        }
        let mut active = self
            .active
            .take()
            .expect("commit: a segment was just begun");
        let (count, bytes) = fitting(batches, self.segment_bytes.saturating_sub(active.bytes));
        let batches = &mut batches[..count];
        let end = match append(&active, batches) {
            Ok(end) => end,
            Err(error) => {
                let cut = active.file.set_bytes(active.bytes);
                if !disk::is_full(&error) {
                    return Err(self.fail(&active, "write", &error));
                }
                if let Err(error) = cut {
                    return Err(self.fail(&active, "cut back", &error));
                }
                self.active = Some(active);
                return Err(CommitError::DiskFull);
            }
        };
        let started = Instant::now();
        if let Err(error) = active.file.sync_data() {
            // What was not synced must not look durable to the next start, whose page cache still holds it.
            let _ = active.file.set_bytes(active.bytes);
            return Err(self.fail(&active, "sync", &error));
        }
        self.last_sync = started.elapsed();
        active.bytes += bytes;
        self.end = end;
        self.active = Some(active);
        Ok(count)
    }

    fn begin_segment(&mut self) -> Result<Active, CommitError> {
        let base = self.next_base;
        let path = self.directory.join(segment::name(base));
        let salt = match (self.draw_salt)() {
            Ok(salt) => salt,
            Err(error) => return Err(self.fail_for(format!("cannot draw a salt: {error}"))),
        };
        let header = Header {
            base,
            previous_end: self.end,
            salt,
        };
        let file = match self.disk.create(&path) {
            Ok(file) => file,
            Err(error) if disk::is_full(&error) => return Err(CommitError::DiskFull),
            Err(error) if disk::is_out_of_files(&error) => {
                tracing::error!(path = %path.display(), %error, "cannot begin a segment, appends are refused until files can be opened");
                return Err(CommitError::DiskFull);
            }
            Err(error) => {
                return Err(self.fail_for(format!("cannot create {}: {error}", path.display())));
            }
        };
        if let Err(error) = file.write_at(&mut [IoSlice::new(&header.encode_twice())], 0) {
            if !disk::is_full(&error) {
                return Err(self.fail_for(format!("cannot write {}: {error}", path.display())));
            }
            return Err(self.give_up_segment(&path));
        }
        if let Err(error) = file.sync_data() {
            return Err(self.fail_for(format!("cannot sync {}: {error}", path.display())));
        }
        if let Err(error) = self.disk.sync_directory(&self.directory) {
            if disk::is_out_of_files(&error) {
                // It was not opened, so nothing was lost in a failed sync.
                tracing::error!(directory = %self.directory.display(), %error, "cannot begin a segment, appends are refused until files can be opened");
                return Err(self.give_up_segment(&path));
            }
            let directory = self.directory.display();
            return Err(self.fail_for(format!("cannot sync {directory}: {error}")));
        }
        Ok(Active {
            file,
            base,
            seed: header.seed(),
            bytes: FRAMES_AT,
        })
    }

    /// Removes the file of a segment that could not be begun for want of room.
    fn give_up_segment(&mut self, path: &Path) -> CommitError {
        match self.disk.remove(path) {
            Ok(()) => CommitError::DiskFull,
            Err(error) => self.fail_for(format!("cannot remove {}: {error}", path.display())),
        }
    }

    fn fail(&mut self, active: &Active, attempted: &str, error: &io::Error) -> CommitError {
        let path = self.directory.join(segment::name(active.base));
        self.fail_for(format!("cannot {attempted} {}: {error}", path.display()))
    }

    fn fail_for(&mut self, reason: String) -> CommitError {
        self.failure = Some(reason.clone());
        CommitError::Failed(reason)
    }
}

/// How many of the batches fit into `room`, at least one, and their bytes.
fn fitting(batches: &[Batch], room: u64) -> (usize, u64) {
    let mut count = 0;
    let mut bytes = 0;
    for batch in batches {
        let with_this = bytes + batch.bytes() as u64;
        if count > 0 && with_this > room {
            break;
        }
        count += 1;
        bytes = with_this;
    }
    (count, bytes)
}

/// Seals and writes the batches at the end of the segment; gives the position after them.
fn append(active: &Active, batches: &mut [Batch]) -> io::Result<u64> {
    let mut position = active.base + active.bytes;
    for batch in batches.iter_mut() {
        position = frame::seal(batch.frames_mut(), position, active.seed);
    }
    let mut slices: Vec<IoSlice<'_>> = batches
        .iter()
        .map(|batch| IoSlice::new(batch.frames()))
        .collect();
    active.file.write_at(&mut slices, active.bytes)?;
    Ok(position)
}
