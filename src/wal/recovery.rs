//! What opening does with whatever it finds: it always starts.
//!
//! - Every frame whose sums hold is kept, wherever it stands.
//! - A torn tail of the last segment (from behind the last good frame to the end of the file) is what a crash leaves. It is cut
//!   off; if there is more in it than zeroes, it is copied to `quarantine/` first.
//! - Any other damage is copied to `quarantine/<segment>-<offset>-<length>` and otherwise left where it is.
//! - What is kept is synced before anyone may call it durable: the last process may have died before its fsync.
//! - New frames go to a new segment beyond everything seen. Segments that never held a frame are removed, except the newest,
//!   which remembers how far positions have come.
//!
//! One thing is refused: a segment written by a later version of the program. The data is good, the program is old.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::disk::{self, Access, Disk, DiskFile};
use super::frame::{Reason, Seed};
use super::segment::{self, FRAMES_AT, Header, HeaderError, HeaderRead, Met, Walk};
use super::{Damage, OpenError, Position, Recovery};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Damaged ranges that are listed one by one; all are counted.
const LISTED_DAMAGE: usize = 1000;
pub(super) const QUARANTINE: &str = "quarantine";

/// A segment that is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub base: u64,
    /// Where its durable content ends in the file.
    pub bytes: u64,
    /// Nothing when the header is lost: no frame of it can be read.
    pub seed: Option<Seed>,
}

impl Segment {
    pub fn end(&self) -> u64 {
        self.base + self.bytes
    }
}

/// A log put in order.
#[derive(Debug)]
pub(super) struct Recovered {
    /// Oldest first.
    pub segments: Vec<Segment>,
    /// Where the next segment begins: beyond everything seen.
    pub next_base: u64,
    /// The end of the last frame, 0 when there is none.
    pub end: u64,
    pub report: Recovery,
}

/// A segment's file before its frames are looked at.
struct Candidate {
    base: u64,
    bytes: u64,
    header: Option<HeaderRead>,
}

/// Puts the log in order and shows every frame to `each`.
pub(super) fn recover(
    disk: &dyn Disk,
    directory: &Path,
    at_least: Position,
    each: &mut dyn FnMut(Position, &[u8]),
) -> Result<Recovered, OpenError> {
    let on_directory = |source| OpenError::Io {
        path: directory.to_path_buf(),
        source,
    };
    disk.create_directory(directory).map_err(on_directory)?;
    let mut recoverer = Recoverer {
        disk,
        directory,
        each,
        window: Vec::new(),
        end: 0,
        report: Recovery::default(),
    };
    let candidates = recoverer.candidates()?;
    // The log's directory entries may be in the cache alone, like its bytes.
    disk.sync_directory(directory).map_err(on_directory)?;

    let mut segments = Vec::new();
    let mut removed = false;
    for (index, candidate) in candidates.iter().enumerate() {
        let next = candidates.get(index + 1);
        if candidate.never_held_a_frame(next) {
            let path = recoverer.path(candidate.base);
            disk.remove(&path)
                .map_err(|source| OpenError::Io { path, source })?;
            removed = true;
            continue;
        }
        recoverer.note_gap_before(candidate, segments.last());
        let segment = recoverer.segment(candidate, next.is_none())?;
        segments.push(segment);
    }
    if removed {
        disk.sync_directory(directory).map_err(on_directory)?;
    }
    let seen = candidates
        .iter()
        .map(|candidate| candidate.base + candidate.bytes)
        .max();
    let beyond = |position: u64| position.saturating_add(1);
    let next_base = match (seen, at_least.0) {
        (None, 0) => 0,
        (seen, at_least) => beyond(seen.unwrap_or(0).max(at_least)),
    };
    let Recoverer {
        end, mut report, ..
    } = recoverer;
    report.segments = segments.len();
    report.bytes = segments.iter().map(|segment| segment.bytes).sum();
    Ok(Recovered {
        segments,
        next_base,
        end,
        report,
    })
}

impl Candidate {
    /// The process died, or found no room, before the first frame; the next segment agrees that nothing was here.
    fn never_held_a_frame(&self, next: Option<&Self>) -> bool {
        self.bytes <= FRAMES_AT
            && next
                .and_then(|next| next.header)
                .is_some_and(|next| next.header.previous_end <= self.base)
    }
}

struct Recoverer<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    each: &'a mut dyn FnMut(Position, &[u8]),
    window: Vec<u8>,
    end: u64,
    report: Recovery,
}

impl Recoverer<'_> {
    fn path(&self, base: u64) -> PathBuf {
        self.directory.join(segment::name(base))
    }

    /// All segment files with their headers, oldest first. Nothing is changed yet, so that a log of a later version stays as it is.
    fn candidates(&mut self) -> Result<Vec<Candidate>, OpenError> {
        let names = self
            .disk
            .list(self.directory)
            .map_err(|source| OpenError::Io {
                path: self.directory.to_path_buf(),
                source,
            })?;
        let mut candidates = Vec::new();
        for name in names {
            let Some(base) = segment::base_of(&name) else {
                if name != QUARANTINE {
                    self.foreign(&name);
                }
                continue;
            };
            let path = self.path(base);
            let file = match self.disk.open(&path, Access::ReadWrite) {
                Ok(file) => file,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory
                    ) =>
                {
                    self.foreign(&name);
                    continue;
                }
                Err(source) => return Err(OpenError::Io { path, source }),
            };
            let on_file = |source| OpenError::Io {
                path: path.clone(),
                source,
            };
            let bytes = file.bytes().map_err(on_file)?;
            let header = match Header::read(&*file, base).map_err(on_file)? {
                Ok(header) => Some(header),
                Err(HeaderError::Damaged) => None,
                Err(HeaderError::Newer(version)) => {
                    return Err(OpenError::Newer {
                        path,
                        version,
                        known: segment::VERSION,
                    });
                }
            };
            candidates.push(Candidate {
                base,
                bytes,
                header,
            });
        }
        candidates.sort_by_key(|candidate| candidate.base);
        Ok(candidates)
    }

    fn foreign(&mut self, name: &str) {
        tracing::warn!(file = name, directory = %self.directory.display(), "not a segment of the log, left alone");
        self.report.foreign_files += 1;
    }

    /// Frames that the header of `candidate` says came before it, and are not there.
    fn note_gap_before(&mut self, candidate: &Candidate, previous: Option<&Segment>) {
        let (Some(read), Some(previous)) = (candidate.header, previous) else {
            return;
        };
        let missing = previous.end()..read.header.previous_end;
        if missing.is_empty() {
            return;
        }
        tracing::error!(
            from = missing.start,
            to = missing.end,
            before = segment::name(candidate.base),
            "part of the log is missing"
        );
        self.report.missing_bytes += missing.end - missing.start;
        self.list(Damage {
            segment: Position(previous.base),
            offset: previous.bytes,
            bytes: missing.end - missing.start,
            reason: Reason::Missing,
        });
    }

    fn list(&mut self, damage: Damage) {
        if self.report.damage.len() < LISTED_DAMAGE {
            self.report.damage.push(damage);
        }
    }

    /// Walks one segment: shows its frames, quarantines its damage, cuts its torn tail when it is the last, and syncs it.
    fn segment(&mut self, candidate: &Candidate, last: bool) -> Result<Segment, OpenError> {
        let base = candidate.base;
        let path = self.path(base);
        let on_file = |source| OpenError::Io {
            path: path.clone(),
            source,
        };
        let file = self.disk.open(&path, Access::ReadWrite).map_err(on_file)?;
        let mut segment = Segment {
            base,
            bytes: candidate.bytes,
            seed: candidate.header.map(|read| read.header.seed()),
        };
        let short = candidate.bytes < FRAMES_AT;
        if short && last {
            // It died while the header was being written: no frame was ever acknowledged here.
            self.report.torn_bytes += candidate.bytes;
            return Ok(segment);
        }
        let Some(read) = candidate.header else {
            self.damaged(&*file, base, 0..candidate.bytes, Reason::SegmentHeader);
            self.end = segment.end();
            return Ok(segment);
        };
        if !read.intact {
            let range = 0..FRAMES_AT.min(candidate.bytes);
            self.damaged(&*file, base, range, Reason::SegmentHeader);
        }
        let tail = self
            .frames(&*file, &segment)
            .map_err(on_file)?
            .filter(|(tail, _)| !tail.is_empty());
        if let Some((tail, reason)) = tail {
            if !last {
                self.damaged(&*file, base, tail, reason);
            } else if self.tail_is_safe(&*file, base, tail.clone()) {
                file.set_bytes(tail.start).map_err(on_file)?;
                segment.bytes = tail.start;
            }
        }
        file.sync_data().map_err(on_file)?;
        Ok(segment)
    }

    /// Shows the segment's frames and quarantines the damage between them. Gives the damage that reaches to the end.
    fn frames(
        &mut self,
        file: &dyn DiskFile,
        segment: &Segment,
    ) -> io::Result<Option<(Range<u64>, Reason)>> {
        let Some(seed) = segment.seed else {
            return Ok(None);
        };
        let window = std::mem::take(&mut self.window);
        let range = FRAMES_AT..segment.bytes;
        let mut walk = Walk::new(file, segment.base, seed, range, window, READ_BYTES);
        let mut pending: Option<(Range<u64>, Reason)> = None;
        loop {
            match walk.next()? {
                Met::Frame { offset, payload } => {
                    if let Some((range, reason)) = pending.take() {
                        self.damaged(file, segment.base, range, reason);
                    }
                    let payload = &walk.window()[payload];
                    (self.each)(Position(segment.base + offset), payload);
                    self.report.frames += 1;
                    self.end = segment.base + walk.offset();
                }
                Met::Damage { range, reason } => match &mut pending {
                    Some((whole, _)) => whole.end = range.end,
                    None => pending = Some((range, reason)),
                },
                Met::End | Met::WindowEnds => break,
            }
        }
        self.window = walk.into_window();
        Ok(pending)
    }

    /// Counts, names and copies a damaged range. A copy that fails is only told: the original stays.
    fn damaged(&mut self, file: &dyn DiskFile, base: u64, range: Range<u64>, reason: Reason) {
        let bytes = range.end - range.start;
        if bytes == 0 {
            return;
        }
        tracing::error!(
            file = segment::name(base),
            offset = range.start,
            bytes,
            %reason,
            "part of the log is damaged, skipped and copied to quarantine"
        );
        self.report.damaged_ranges += 1;
        self.report.damaged_bytes += bytes;
        self.list(Damage {
            segment: Position(base),
            offset: range.start,
            bytes,
            reason,
        });
        if let Err(error) = self.quarantine(file, base, range, Existing::IsEnough) {
            tracing::error!(file = segment::name(base), %error, "cannot copy damage to quarantine");
        }
    }

    /// Counts and names the torn tail, and copies it when there is anything in it. Says whether it may be cut.
    fn tail_is_safe(&mut self, file: &dyn DiskFile, base: u64, tail: Range<u64>) -> bool {
        let bytes = tail.end - tail.start;
        self.report.torn_bytes += bytes;
        let saved = match is_zero(file, tail.clone()) {
            Ok(true) => Ok(()),
            _ => {
                self.report.torn_bytes_quarantined += bytes;
                self.quarantine(file, base, tail.clone(), Existing::MayBePartial)
            }
        };
        let offset = tail.start;
        match saved {
            Ok(()) => {
                tracing::warn!(
                    file = segment::name(base),
                    offset,
                    bytes,
                    "torn tail cut off"
                );
                true
            }
            Err(error) => {
                tracing::error!(file = segment::name(base), offset, bytes, %error, "cannot copy the torn tail to quarantine, it stays");
                false
            }
        }
    }

    fn quarantine(
        &self,
        file: &dyn DiskFile,
        base: u64,
        range: Range<u64>,
        existing: Existing,
    ) -> io::Result<()> {
        let directory = self.directory.join(QUARANTINE);
        self.disk.create_directory(&directory)?;
        let bytes = range.end - range.start;
        let path = directory.join(format!("{base:020}-{}-{bytes}", range.start));
        match self.disk.open(&path, Access::Read) {
            Ok(copy) if existing == Existing::IsEnough && copy.bytes()? == bytes => return Ok(()),
            Ok(_) => self.disk.remove(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let copy = self.disk.create(&path)?;
        disk::copy_range(file, range.start, bytes, &*copy)?;
        self.disk.sync_directory(&directory)
    }
}

/// What a copy of the same range from an earlier start is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    IsEnough,
    /// The original is about to go: the copy is made again.
    MayBePartial,
}

fn is_zero(file: &dyn DiskFile, range: Range<u64>) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    let mut at = range.start;
    while at < range.end {
        let part = buffer
            .len()
            .min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        let count = disk::read_what_can_be(file, &mut buffer[..part], at)?;
        if count == 0 || buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(count == 0);
        }
        at += count as u64;
    }
    Ok(true)
}
