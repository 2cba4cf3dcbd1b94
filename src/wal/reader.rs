//! Reading what is durable, while it is written, trimmed or found damaged.
//!
//! A reader never looks past the durable end. Each frame's sums are checked on every read. A segment that was removed
//! meanwhile is simply not there.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{self, Access, DiskFile};
use super::frame::{self, FRAME_HEADER_BYTES, Look, Reason};
use super::recovery::Segment;
use super::segment::{self, FRAMES_AT, Met, Walk};
use super::writer::{Shared, lock};
use super::{FrameError, Position, ReadError};

/// Files a reader keeps open.
const OPEN_FILES: usize = 16;
/// Frames with less than this between their starts are read together.
const COALESCE_BYTES: u64 = 4 << 10;
/// The most that is read together.
const READ_BYTES: u64 = 1 << 20;
/// What is read behind the start of the last frame of a group, in the hope that it ends there.
const FRAME_GUESS_BYTES: u64 = 2 << 10;

/// Reads what is durable. Blocking file I/O: use it off the async threads. Cheap to make; each keeps its own open files.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    files: BTreeMap<u64, Arc<dyn DiskFile>>,
}

/// Called with a position and the payload of the frame there.
pub type EachFrame<'e> = dyn FnMut(Position, Result<&[u8], FrameError>) + 'e;

/// A segment that was found, and its file.
struct Held {
    segment: Segment,
    file: Arc<dyn DiskFile>,
}

/// Frames read in one go, one contiguous buffer.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Where to read on.
    pub next: Position,
    buffer: Vec<u8>,
    frames: Vec<(Position, Range<usize>)>,
}

impl Chunk {
    pub fn iter(&self) -> impl Iterator<Item = (Position, &[u8])> {
        self.frames
            .iter()
            .map(|(position, payload)| (*position, &self.buffer[payload.clone()]))
    }

    /// The same frames, sharing the chunk's one buffer.
    pub fn into_frames(self) -> impl Iterator<Item = (Position, Bytes)> {
        let buffer = Bytes::from(self.buffer);
        self.frames
            .into_iter()
            .map(move |(position, payload)| (position, buffer.slice(payload)))
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.frames.len()
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            files: BTreeMap::new(),
        }
    }

    /// Whole frames from `from` (a frame's start, or any position in a gap) to the durable end, about `budget` bytes of them and at
    /// least one. Damage met on the way is skipped, counted and named in the log. Empty when there is nothing more yet.
    pub fn read(&mut self, from: Position, budget: usize) -> Result<Chunk, ReadError> {
        // Looked up before the segments: what is durable by now is in them.
        let durable = self.shared.durable.borrow().0;
        let mut from = from.0;
        while let Some(segment) = self.segment_at_or_after(from) {
            let offset = from.saturating_sub(segment.base).max(FRAMES_AT);
            let chunk = self.read_segment(segment, offset, budget)?;
            if let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) {
                return Ok(chunk);
            }
            from = segment.end();
        }
        // The durable end may lie beyond the last frame: behind a gap, or the head of a new segment.
        Ok(Chunk {
            next: Position(from.max(durable)),
            ..Chunk::default()
        })
    }

    /// The segment that holds `from`, or the first one after it.
    fn segment_at_or_after(&self, from: u64) -> Option<Segment> {
        let segments = lock(&self.shared.segments);
        let index = segments.partition_point(|segment| segment.end() <= from);
        let segment = segments[index..]
            .iter()
            .find(|segment| segment.bytes > FRAMES_AT);
        segment.copied()
    }

    /// Frames of one segment; nothing when it has been removed.
    fn read_segment(
        &mut self,
        segment: Segment,
        offset: u64,
        budget: usize,
    ) -> Result<Option<Chunk>, ReadError> {
        let Some(seed) = segment.seed else {
            self.count_damage(segment.base, 0..segment.bytes, Reason::SegmentHeader);
            return Ok(None);
        };
        let Some(file) = self.file(segment)? else {
            return Ok(None);
        };
        let range = offset..segment.bytes;
        let mut walk = Walk::new(&*file, segment.base, seed, range, Vec::new(), budget);
        let mut frames = Vec::new();
        loop {
            let met = match frames.is_empty() {
                true => walk.next(),
                false => walk.next_without_refill(),
            };
            match met.map_err(|source| ReadError::Io {
                segment: segment.base,
                source,
            })? {
                Met::Frame { offset, payload } => {
                    frames.push((Position(segment.base + offset), payload));
                }
                Met::Damage { range, reason } => self.count_damage(segment.base, range, reason),
                Met::WindowEnds => break,
                Met::End => {
                    // Empty unless someone has cut the file.
                    let cut = walk.offset()..segment.bytes;
                    if !cut.is_empty() {
                        self.count_damage(segment.base, cut, Reason::Truncated);
                    }
                    break;
                }
            }
        }
        Ok(Some(Chunk {
            next: Position(segment.base + walk.offset()),
            buffer: walk.into_window(),
            frames,
        }))
    }

    /// The frames at exactly these ascending positions, neighbours read together. A damaged or missing one is given as `Err`.
    pub fn read_each(
        &mut self,
        positions: &mut dyn Iterator<Item = Position>,
        each: &mut EachFrame<'_>,
    ) -> Result<(), ReadError> {
        let mut ahead = VecDeque::new();
        let mut window = Window::default();
        loop {
            let group = next_group(&mut ahead, positions);
            let Some(last) = group.last().copied() else {
                return Ok(());
            };
            let mut at = 0;
            while at < group.len() {
                let position = group[at];
                let Some(Held { segment, file }) = self.holder(position)? else {
                    each(Position(position), Err(FrameError::Missing));
                    at += 1;
                    continue;
                };
                let upto = last.min(segment.end()).max(position) + FRAME_GUESS_BYTES;
                window.fill(&*file, segment, position..upto)?;
                while let Some(&position) = group.get(at) {
                    if position < segment.base || position >= segment.end() {
                        break;
                    }
                    let frame = self.frame(&mut window, &*file, segment, position)?;
                    each(Position(position), frame);
                    at += 1;
                }
            }
        }
    }

    /// The segment that holds this durable position, and its file.
    fn holder(&mut self, position: u64) -> Result<Option<Held>, ReadError> {
        let segment = self.segment_at_or_after(position);
        let Some(segment) = segment.filter(|segment| segment.base <= position) else {
            return Ok(None);
        };
        Ok(self.file(segment)?.map(|file| Held { segment, file }))
    }

    fn frame<'w>(
        &self,
        window: &'w mut Window,
        file: &dyn DiskFile,
        segment: Segment,
        position: u64,
    ) -> Result<Result<&'w [u8], FrameError>, ReadError> {
        let offset = position - segment.base;
        let Some(seed) = segment.seed.filter(|_| offset >= FRAMES_AT) else {
            self.count_damage(segment.base, 0..segment.bytes, Reason::SegmentHeader);
            return Ok(Err(FrameError::Damaged));
        };
        let left = segment.bytes - offset;
        let mut look = frame::look(window.from(offset), position, seed, left);
        while let Look::Need(bytes) = look {
            if !window.extend(file, segment, offset..offset + bytes as u64)? {
                look = Look::Bad(Reason::Truncated);
                break;
            }
            look = frame::look(window.from(offset), position, seed, left);
        }
        let (bytes, reason) = match look {
            Look::Frame(bytes) => {
                return Ok(Ok(&window.from(offset)[FRAME_HEADER_BYTES..bytes]));
            }
            Look::BadPayload(bytes) => (bytes, Reason::Payload),
            Look::Bad(reason) => (FRAME_HEADER_BYTES, reason),
            Look::Need(bytes) => (bytes, Reason::Truncated),
        };
        self.count_damage(segment.base, offset..offset + bytes as u64, reason);
        Ok(Err(FrameError::Damaged))
    }

    /// The segment's file, kept open; nothing when the segment has been removed.
    fn file(&mut self, segment: Segment) -> Result<Option<Arc<dyn DiskFile>>, ReadError> {
        let oldest = lock(&self.shared.segments)
            .first()
            .map_or(0, |segment| segment.base);
        self.files = self.files.split_off(&oldest);
        if segment.base < oldest {
            return Ok(None);
        }
        if let Some(file) = self.files.get(&segment.base) {
            return Ok(Some(Arc::clone(file)));
        }
        let path = self.shared.directory.join(segment::name(segment.base));
        let file: Arc<dyn DiskFile> = match self.shared.disk.open(&path, Access::Read) {
            Ok(file) => file.into(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_gone(segment) => {
                return Ok(None);
            }
            Err(source) => {
                return Err(ReadError::Io {
                    segment: segment.base,
                    source,
                });
            }
        };
        if self.files.len() >= OPEN_FILES {
            self.files.pop_first();
        }
        self.files.insert(segment.base, Arc::clone(&file));
        Ok(Some(file))
    }

    fn is_gone(&self, segment: Segment) -> bool {
        let segments = lock(&self.shared.segments);
        segments.iter().all(|held| held.base != segment.base)
    }

    /// Counts and names damage, unless it is known already.
    fn count_damage(&self, base: u64, range: Range<u64>, reason: Reason) {
        let (start, end) = (base + range.start, base + range.end);
        let mut known = lock(&self.shared.known_damage);
        let covered = known
            .range(..=start)
            .next_back()
            .is_some_and(|(_, known_end)| *known_end >= end);
        if covered {
            return;
        }
        known.insert(start, end);
        drop(known);
        self.shared.metrics.quarantined_bytes.inc_by(end - start);
        tracing::error!(
            file = segment::name(base),
            offset = range.start,
            bytes = end - start,
            %reason,
            "part of the log is damaged, skipped"
        );
    }
}

/// Ascending positions that are read together.
fn next_group(
    ahead: &mut VecDeque<u64>,
    positions: &mut dyn Iterator<Item = Position>,
) -> Vec<u64> {
    let mut group = Vec::new();
    while let Some(position) = ahead
        .pop_front()
        .or_else(|| positions.next().map(|position| position.0))
    {
        let near = match (group.first(), group.last()) {
            (Some(first), Some(last)) => {
                position >= *last
                    && position - last < COALESCE_BYTES
                    && position - first < READ_BYTES
            }
            _ => true,
        };
        if !near {
            ahead.push_front(position);
            break;
        }
        group.push(position);
    }
    group
}

/// A piece of one segment's file.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    /// The offset in the file of the first byte.
    at: u64,
    filled: usize,
}

impl Window {
    /// What is held from `offset` on.
    fn from(&self, offset: u64) -> &[u8] {
        let start = offset.saturating_sub(self.at) as usize;
        self.bytes[..self.filled].get(start..).unwrap_or_default()
    }

    /// Reads the durable part of these positions.
    fn fill(
        &mut self,
        file: &dyn DiskFile,
        segment: Segment,
        positions: Range<u64>,
    ) -> Result<(), ReadError> {
        self.at = positions.start - segment.base;
        self.filled = 0;
        let end = positions.end.min(segment.end()) - segment.base;
        self.extend(file, segment, self.at..end).map(|_| ())
    }

    /// Reads on until `offsets` is held. Says no when the file ends before.
    fn extend(
        &mut self,
        file: &dyn DiskFile,
        segment: Segment,
        offsets: Range<u64>,
    ) -> Result<bool, ReadError> {
        let wanted = offsets.end.saturating_sub(self.at) as usize;
        if wanted <= self.filled {
            return Ok(true);
        }
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        let from = self.at + self.filled as u64;
        let count = disk::read_what_can_be(file, &mut self.bytes[self.filled..wanted], from)
            .map_err(|source| ReadError::Io {
                segment: segment.base,
                source,
            })?;
        self.filled += count;
        Ok(self.filled == wanted)
    }
}
