//! One frame: a header of sixteen bytes and a payload. Pure functions of bytes.
//!
//! ```text
//! [4]     magic, F4 'T' 'F' FF (never part of UTF-8 text)
//! u32 LE  payload length
//! u32 LE  CRC-32 of the segment's salt, the frame's position (u64 LE) and the length (u32 LE)
//! u32 LE  CRC-32 of the same and then the payload
//! [...]   payload
//! ```
//!
//! The first sum lets a reader trust the length: a frame with a damaged payload is stepped over exactly, and what only
//! looks like a header costs twelve bytes of arithmetic, however many times someone wrote it into an event.

use crc32fast::Hasher;
use serde::Serialize;

pub(super) const MAGIC: [u8; 4] = [0xf4, b'T', b'F', 0xff];
/// Bytes before each payload.
pub const FRAME_HEADER_BYTES: usize = 16;
/// The longest payload a frame takes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// The state of the CRC after the segment's salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    pub fn of_salt(salt: [u8; 8]) -> Self {
        Self(crc32fast::hash(&salt))
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Neither copy of the segment's header is readable.
    SegmentHeader,
    /// Zeroes where a frame should begin.
    Zeroed,
    /// No frame's magic where one should begin.
    NoFrame,
    /// A frame's header whose sum is wrong: damaged, moved, or only looking like one.
    FrameHeader,
    /// A good header over a payload with the wrong sum.
    Payload,
    /// The file ends within the frame.
    Truncated,
    /// The following segment says that more was here, or that a segment stood here.
    Missing,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SegmentHeader => "segment header damaged",
            Self::Zeroed => "zeroed",
            Self::NoFrame => "not a frame",
            Self::FrameHeader => "frame header damaged",
            Self::Payload => "payload damaged",
            Self::Truncated => "truncated",
            Self::Missing => "missing",
        })
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A whole, intact frame of so many bytes, header included.
    Frame(usize),
    /// It takes so many bytes to tell.
    Need(usize),
    /// A frame of so many bytes whose payload is damaged.
    BadPayload(usize),
    /// No frame.
    Bad(Reason),
}

/// Looks at the frame that should begin at `position`, where `window` begins too. `left` bytes are in the file from there on.
pub(super) fn look(window: &[u8], position: u64, seed: Seed, left: u64) -> Look {
    let Some(header) = window.first_chunk::<FRAME_HEADER_BYTES>() else {
        let enough = left.min(FRAME_HEADER_BYTES as u64) as usize;
        return match window.len() < enough {
            true => Look::Need(enough),
            false if window.iter().all(|byte| *byte == 0) => Look::Bad(Reason::Zeroed),
            false => Look::Bad(Reason::Truncated),
        };
    };
    if header[..4] != MAGIC {
        let zeroed = header.iter().all(|byte| *byte == 0);
        return Look::Bad(if zeroed {
            Reason::Zeroed
        } else {
            Reason::NoFrame
        });
    }
    let [_, length, header_sum, sum] = words(header);
    let mut hasher = begin(seed, position, length);
    if hasher.clone().finalize() != header_sum || length as usize > MAX_PAYLOAD_BYTES {
        return Look::Bad(Reason::FrameHeader);
    }
    let bytes = FRAME_HEADER_BYTES + length as usize;
    if bytes as u64 > left {
        return Look::Bad(Reason::Truncated);
    }
    let Some(payload) = window.get(FRAME_HEADER_BYTES..bytes) else {
        return Look::Need(bytes);
    };
    hasher.update(payload);
    if hasher.finalize() == sum {
        Look::Frame(bytes)
    } else {
        Look::BadPayload(bytes)
    }
}

fn begin(seed: Seed, position: u64, length: u32) -> Hasher {
    let mut head = [0; 12];
    head[..8].copy_from_slice(&position.to_le_bytes());
    head[8..].copy_from_slice(&length.to_le_bytes());
    let mut hasher = Hasher::new_with_initial(seed.0);
    hasher.update(&head);
    hasher
}

fn words(header: &[u8; FRAME_HEADER_BYTES]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(header.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// Writes the sums of the frames that stand one after the other in `frames` (magic and length are in place) and will
/// stand from `position` on. Gives the position after them.
pub(super) fn seal(frames: &mut [u8], position: u64, seed: Seed) -> u64 {
    let mut at = 0;
    while at < frames.len() {
        let length = payload_length(&frames[at..]);
        let end = at + FRAME_HEADER_BYTES + length;
        let mut hasher = begin(seed, position + at as u64, length as u32);
        let header_sum = hasher.clone().finalize();
        hasher.update(&frames[at + FRAME_HEADER_BYTES..end]);
        frames[at + 8..at + 12].copy_from_slice(&header_sum.to_le_bytes());
        frames[at + 12..at + 16].copy_from_slice(&hasher.finalize().to_le_bytes());
        at = end;
    }
    position + frames.len() as u64
}

/// The payload's length as the header that begins `frame` states it; the header must be known to be good.
pub(super) fn payload_length(frame: &[u8]) -> usize {
    u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]) as usize
}

/// Payloads to append together, each with room for its frame header. Not a transaction: after a crash, a batch nobody
/// was answered for may have left its first payloads.
#[derive(Debug, Default)]
pub struct Batch {
    frames: Vec<u8>,
    payloads: usize,
    too_large: Option<usize>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// With room for so many bytes, headers included (`FRAME_HEADER_BYTES` each).
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            frames: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// Appends one payload, written by `write` at the end of the buffer it is given, which must only grow.
    /// One longer than `MAX_PAYLOAD_BYTES` is left out, and `Permit::append` then refuses the whole batch.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.frames.len();
        self.frames.extend_from_slice(&MAGIC);
        self.frames.extend_from_slice(&[0; FRAME_HEADER_BYTES - 4]);
        write(&mut self.frames);
        let length = self
            .frames
            .len()
            .checked_sub(start + FRAME_HEADER_BYTES)
            .expect("push_with: the writer only appends");
        if length > MAX_PAYLOAD_BYTES {
            self.frames.truncate(start);
            self.too_large = Some(length);
            return;
        }
        self.frames[start + 4..start + 8].copy_from_slice(&(length as u32).to_le_bytes());
        self.payloads += 1;
    }

    pub fn push(&mut self, payload: &[u8]) {
        self.push_with(|out| out.extend_from_slice(payload));
    }

    pub fn is_empty(&self) -> bool {
        self.payloads == 0
    }

    /// Payloads in it.
    pub fn len(&self) -> usize {
        self.payloads
    }

    /// Bytes it takes in the log, headers included.
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The length of a payload that was too long to take.
    pub(super) fn too_large(&self) -> Option<usize> {
        self.too_large
    }

    pub(super) fn frames(&self) -> &[u8] {
        &self.frames
    }

    pub(super) fn frames_mut(&mut self) -> &mut [u8] {
        &mut self.frames
    }
}
