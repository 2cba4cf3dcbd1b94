//! A segment: its name, its header, and the walk over its frames.
//!
//! ```text
//! 0       header        [8] "TRAILWAL"
//!                       u8  version, 1
//!                       [3] zero
//!                       u32 LE  CRC-32 of the header with this field zero
//!                       u64 LE  base: the position of the segment's first byte
//!                       u64 LE  end of the frames before this segment, 0 when there were none
//!                       [8] salt, random
//! 40      zeroes
//! 4096    the header again
//! 4136    frames
//! ```
//!
//! The header stands twice, a page apart, because without the salt no frame of the segment can be told from noise.

use std::io;
use std::ops::Range;

use super::disk::{self, DiskFile};
use super::frame::{self, Look, Reason, Seed};

pub(super) const VERSION: u8 = 1;
const MAGIC: [u8; 8] = *b"TRAILWAL";
pub(super) const HEADER_BYTES: usize = 40;
const COPY_AT: usize = 4096;
/// Where frames begin in a segment's file.
pub(super) const FRAMES_AT: u64 = (COPY_AT + HEADER_BYTES) as u64;
/// Positions beyond this are not believed: they would leave no room for what comes after them.
const HIGHEST_BASE: u64 = 1 << 62;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub base: u64,
    /// Where the frames before this segment ended.
    pub previous_end: u64,
    pub salt: [u8; 8],
}

/// Why a header is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    /// Intact, and written by a program of a later version.
    Newer(u8),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = VERSION;
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt);
        let sum = crc32fast::hash(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// All that stands before the first frame.
    pub fn encode_twice(&self) -> Vec<u8> {
        let header = self.encode();
        let mut bytes = vec![0; FRAMES_AT as usize];
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        bytes[COPY_AT..].copy_from_slice(&header);
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut unsummed = *bytes;
        unsummed[12..16].fill(0);
        if bytes[..8] != MAGIC || bytes[12..16] != crc32fast::hash(&unsummed).to_le_bytes() {
            return Err(HeaderError::Damaged);
        }
        match bytes[8] {
            VERSION => {}
            version if version > VERSION => return Err(HeaderError::Newer(version)),
            _ => return Err(HeaderError::Damaged),
        }
        Ok(Self {
            base: u64_at(bytes, 16),
            previous_end: u64_at(bytes, 24),
            salt: u64_at(bytes, 32).to_le_bytes(),
        })
    }

    /// Reads the header of the segment that should begin at `base`, from whichever copy is intact. Nothing inside when neither is.
    pub fn read(file: &dyn DiskFile, base: u64) -> io::Result<Result<HeaderRead, HeaderError>> {
        let mut bytes = vec![0; FRAMES_AT as usize];
        let count = disk::read_what_can_be(file, &mut bytes, 0)?;
        let copy = |at: usize| match bytes[at..].first_chunk::<HEADER_BYTES>() {
            Some(copy) => Self::decode(copy),
            None => Err(HeaderError::Damaged),
        };
        let intact = count == bytes.len();
        let copies = [copy(0), copy(COPY_AT)];
        if let Some(newer) = copies
            .iter()
            .find(|copy| matches!(copy, Err(HeaderError::Newer(_))))
        {
            return Ok(newer.map(|header| HeaderRead { header, intact }));
        }
        let [first, second] = copies.map(|copy| copy.ok().filter(|header| header.base == base));
        let gap_is_zero = bytes[HEADER_BYTES..COPY_AT].iter().all(|byte| *byte == 0);
        Ok(match first.or(second) {
            Some(header) => Ok(HeaderRead {
                header,
                intact: intact && gap_is_zero && first == second,
            }),
            None => Err(HeaderError::Damaged),
        })
    }

    pub fn seed(&self) -> Seed {
        Seed::of_salt(self.salt)
    }
}

/// A header as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeaderRead {
    pub header: Header,
    /// Both copies, and the zeroes between, are as they were written.
    pub intact: bool,
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The file name of the segment that begins at `base`.
pub(super) fn name(base: u64) -> String {
    format!("{base:020}.wal")
}

/// The base of the segment with this file name; nothing for the name of something else.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|base| *base <= HIGHEST_BASE)
}

/// What a walk met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Met {
    /// A frame at this offset of the file; its payload is at this range of the window.
    Frame { offset: u64, payload: Range<usize> },
    /// Bytes of the file that are no frame.
    Damage { range: Range<u64>, reason: Reason },
    /// Telling needs more than the window holds, and refilling was not asked for.
    WindowEnds,
    /// The end was reached.
    End,
}

/// A walk over the frames of a segment, in a window of bounded size.
///
/// Damage is stepped over: by its length when the frame's header is good, else by searching for the next intact header.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    file: &'a dyn DiskFile,
    base: u64,
    seed: Seed,
    /// Where the file, or what may be read of it, ends.
    end: u64,
    /// The offset in the file of what is looked at next.
    offset: u64,
    window: Vec<u8>,
    /// The offset in the file of the window's first byte.
    window_at: u64,
    /// How much of the window is filled.
    filled: usize,
    read_bytes: usize,
}

impl<'a> Walk<'a> {
    /// From `offset` to `end`, reading `read_bytes` at once into `window`.
    pub fn new(
        file: &'a dyn DiskFile,
        base: u64,
        seed: Seed,
        range: Range<u64>,
        window: Vec<u8>,
        read_bytes: usize,
    ) -> Self {
        Self {
            file,
            base,
            seed,
            end: range.end,
            offset: range.start,
            window,
            window_at: range.start,
            filled: 0,
            read_bytes: read_bytes.max(frame::FRAME_HEADER_BYTES),
        }
    }

    pub fn window(&self) -> &[u8] {
        &self.window[..self.filled]
    }

    pub fn into_window(mut self) -> Vec<u8> {
        self.window.truncate(self.filled);
        self.window
    }

    /// The offset of what is looked at next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes one frame or one damaged range on, reading as needed. Ranges in the window given before are void after it.
    pub fn next(&mut self) -> io::Result<Met> {
        loop {
            match self.next_in_window()? {
                (Met::WindowEnds, need) => self.refill(need)?,
                (met, _) => return Ok(met),
            }
        }
    }

    /// Goes on without moving the window: ends where that would be needed, and before damage.
    pub fn next_without_refill(&mut self) -> io::Result<Met> {
        if self.offset < self.end && matches!(self.look(self.offset), Look::Bad(_)) {
            return Ok(Met::WindowEnds);
        }
        Ok(self.next_in_window()?.0)
    }

    /// The step, and how many bytes from `offset` on it takes to go on when the window ends.
    fn next_in_window(&mut self) -> io::Result<(Met, usize)> {
        if self.offset >= self.end {
            return Ok((Met::End, 0));
        }
        let offset = self.offset;
        match self.look(offset) {
            Look::Need(bytes) => Ok((Met::WindowEnds, bytes)),
            Look::Frame(bytes) => {
                let start = (offset - self.window_at) as usize;
                self.offset += bytes as u64;
                let payload = start + frame::FRAME_HEADER_BYTES..start + bytes;
                Ok((Met::Frame { offset, payload }, 0))
            }
            Look::BadPayload(bytes) => {
                self.offset += bytes as u64;
                let range = offset..self.offset;
                Ok((
                    Met::Damage {
                        range,
                        reason: Reason::Payload,
                    },
                    0,
                ))
            }
            Look::Bad(reason) => {
                self.find_next_header()?;
                let range = offset..self.offset;
                Ok((Met::Damage { range, reason }, 0))
            }
        }
    }

    fn look(&self, offset: u64) -> Look {
        let start = (offset - self.window_at) as usize;
        let window = self.window().get(start..).unwrap_or_default();
        frame::look(window, self.base + offset, self.seed, self.end - offset)
    }

    /// Moves `offset` to the next header that is good, or to the end.
    fn find_next_header(&mut self) -> io::Result<()> {
        let finder = memchr::memmem::Finder::new(&frame::MAGIC);
        self.offset += 1;
        // Fewer bytes than a header cannot be a frame.
        while self.end.saturating_sub(self.offset) >= frame::FRAME_HEADER_BYTES as u64 {
            let start = (self.offset - self.window_at) as usize;
            let found = finder.find(self.window().get(start..).unwrap_or_default());
            let Some(found) = found else {
                let searched = (self.window_at + self.filled as u64).saturating_sub(3);
                self.offset = self.offset.max(searched);
                self.refill(frame::FRAME_HEADER_BYTES)?;
                continue;
            };
            self.offset += found as u64;
            let in_window = (self.window_at + self.filled as u64) - self.offset;
            if in_window < frame::FRAME_HEADER_BYTES as u64 {
                self.refill(frame::FRAME_HEADER_BYTES)?;
            }
            // `Need` says that the header is good and the payload is not in the window yet.
            if !matches!(self.look(self.offset), Look::Bad(_)) {
                return Ok(());
            }
            self.offset += 1;
        }
        self.offset = self.end;
        Ok(())
    }

    /// Moves the window so that it begins at `offset`, and fills it with at least `need` bytes.
    fn refill(&mut self, need: usize) -> io::Result<()> {
        let passed = usize::try_from(self.offset - self.window_at)
            .unwrap_or(usize::MAX)
            .min(self.filled);
        self.window.copy_within(passed..self.filled, 0);
        self.filled -= passed;
        self.window_at = self.offset;
        let left = self.end - self.offset;
        let wanted = need
            .max(self.read_bytes)
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if self.window.len() < wanted {
            self.window.resize(wanted, 0);
        }
        let from = self.offset + self.filled as u64;
        let count = disk::read_what_can_be(self.file, &mut self.window[self.filled..wanted], from)?;
        self.filled += count;
        if self.filled < wanted {
            // The file is shorter than it was: what is left of it decides.
            self.end = self.offset + self.filled as u64;
        }
        Ok(())
    }
}
