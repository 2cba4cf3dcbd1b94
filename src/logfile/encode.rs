//! The bytes of a log file: `{"Records":[…]}` without white space of its own, in one gzip member.
//!
//! The same events at the same level give the same bytes: the gzip header carries no time and no name. Two members in a
//! file would be read as one damaged file by the AWS CLI's validator, so there is always exactly one.

use std::io;
use std::sync::{Mutex, MutexGuard};

use aws_lc_rs::digest;
use libdeflater::{CompressionLvl, Compressor};

use super::buffer::Buffer;

const OPEN: &[u8] = b"{\"Records\":[";
const CLOSE: &[u8] = b"]}";

/// A finished log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    pub gzip: Vec<u8>,
    /// SHA-256 of the uncompressed bytes: the `hashValue` of a digest.
    pub sha256: [u8; 32],
    pub uncompressed_bytes: u64,
    pub count: u32,
    /// The earliest and latest event time in it, seconds since 1970.
    pub event_times: Option<(i64, i64)>,
}

/// Uncompressed bytes of the file of events that have `json_bytes`, when a comma is counted after each of them.
pub fn uncompressed_bytes(json_bytes: u64) -> u64 {
    let envelope = (OPEN.len() + CLOSE.len()) as u64;
    json_bytes.saturating_sub(1).saturating_add(envelope)
}

/// Gathers the events of one file. Its errors are of a system that has no memory left.
#[derive(Debug)]
pub struct Builder {
    content: Buffer,
    count: u32,
    event_times: Option<(i64, i64)>,
}

impl Builder {
    /// A file of about `json_bytes` of events, commas included.
    pub fn with_capacity(json_bytes: usize, compressors: &Compressors) -> io::Result<Self> {
        let mut content = taken(&compressors.spare, OPEN.len() + json_bytes + CLOSE.len())?;
        content.extend(OPEN)?;
        Ok(Self {
            content,
            count: 0,
            event_times: None,
        })
    }

    /// Adds an event, byte for byte.
    pub fn push(&mut self, json: &[u8], event_time: i64) -> io::Result<()> {
        if self.count > 0 {
            self.content.extend(b",")?;
        }
        self.content.extend(json)?;
        self.count += 1;
        let (earliest, latest) = self.event_times.unwrap_or((event_time, event_time));
        self.event_times = Some((earliest.min(event_time), latest.max(event_time)));
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Hashes and compresses.
    pub fn finish(self, compressors: &Compressors) -> io::Result<LogFile> {
        let Self {
            mut content,
            count,
            event_times,
        } = self;
        content.extend(CLOSE)?;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &content).as_ref());
        let gzip = compressors.gzip(&content)?;
        let uncompressed_bytes = content.len() as u64;
        lock(&compressors.spare).push(content);
        Ok(LogFile {
            gzip,
            sha256,
            uncompressed_bytes,
            count,
            event_times,
        })
    }
}

/// Compressors at one level, kept between files: each holds about a megabyte of tables. So is the memory that files are made in, until
/// [`Compressors::release`].
pub struct Compressors {
    level: CompressionLvl,
    idle: Mutex<Vec<Compressor>>,
    /// For what is compressed.
    spare: Mutex<Vec<Buffer>>,
    /// For what it is compressed to, of which a fraction is ever touched.
    bounds: Mutex<Vec<Buffer>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gzip level {0} is not between 1 and 12")]
pub struct InvalidLevel(u8);

impl Compressors {
    /// Level 1 (fast) to 12 (small); 6 is gzip's own default.
    pub fn new(level: u8) -> Result<Self, InvalidLevel> {
        let given = CompressionLvl::new(i32::from(level)).map_err(|_| InvalidLevel(level))?;
        if level == 0 {
            return Err(InvalidLevel(level));
        }
        Ok(Self {
            level: given,
            idle: Mutex::default(),
            spare: Mutex::default(),
            bounds: Mutex::default(),
        })
    }

    /// Gives back to the system what no file is made in.
    pub fn release(&self) {
        lock(&self.spare).clear();
        lock(&self.bounds).clear();
    }

    fn gzip(&self, content: &[u8]) -> io::Result<Vec<u8>> {
        let idle = lock(&self.idle).pop();
        let mut compressor = idle.unwrap_or_else(|| Compressor::new(self.level));
        let mut bound = taken(&self.bounds, compressor.gzip_compress_bound(content.len()))?;
        let written = compressor
            .gzip_compress(content, bound.room())
            .expect("gzip: the buffer has the size of the bound");
        let gzip = bound.room()[..written].to_vec();
        lock(&self.bounds).push(bound);
        lock(&self.idle).push(compressor);
        Ok(gzip)
    }
}

/// One of the buffers with room for `bytes`, or another.
fn taken(buffers: &Mutex<Vec<Buffer>>, bytes: usize) -> io::Result<Buffer> {
    let spare = lock(buffers).pop();
    match spare {
        Some(spare) => spare.reuse(bytes),
        None => Buffer::with_capacity(bytes),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl std::fmt::Debug for Compressors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressors")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn file(events: &[&str]) -> LogFile {
        file_by(&Compressors::new(6).unwrap(), events)
    }

    fn file_by(compressors: &Compressors, events: &[&str]) -> LogFile {
        let mut builder = Builder::with_capacity(100, compressors).unwrap();
        for (n, event) in events.iter().enumerate() {
            builder.push(event.as_bytes(), 1_000 - n as i64).unwrap();
        }
        builder.finish(compressors).unwrap()
    }

    #[test]
    fn a_file_is_one_gzip_member_of_compact_json() {
        let file = file(&[r#"{"a": 1}"#, r#"{"b":2}"#]);
        let mut text = String::new();
        let mut decoder = flate2::bufread::GzDecoder::new(&*file.gzip);
        decoder.read_to_string(&mut text).unwrap();
        assert_eq!(text, r#"{"Records":[{"a": 1},{"b":2}]}"#);
        assert!(
            decoder.into_inner().is_empty(),
            "nothing after the first member"
        );
        assert_eq!(
            file.sha256.as_slice(),
            digest::digest(&digest::SHA256, text.as_bytes()).as_ref()
        );
        assert_eq!(
            (file.count, file.uncompressed_bytes),
            (2, text.len() as u64)
        );
        let with_commas = r#"{"a": 1},{"b":2},"#.len() as u64;
        assert_eq!(file.uncompressed_bytes, uncompressed_bytes(with_commas));
        assert_eq!(file.event_times, Some((999, 1000)));
    }

    #[test]
    fn the_same_events_give_the_same_bytes_without_a_time_in_them() {
        let (one, two) = (file(&["{}", "{}"]), file(&["{}", "{}"]));
        assert_eq!(one, two);
        assert_eq!(one.gzip[4..8], [0; 4], "gzip's modification time is zero");
    }

    #[test]
    fn what_was_in_a_buffer_before_is_in_no_later_file() {
        let compressors = Compressors::new(6).unwrap();
        let long = ["{\"long\":\"".to_owned() + &"x".repeat(10_000) + "\"}"];
        let first = file_by(&compressors, &[&long[0]]);
        let second = file_by(&compressors, &["{}"]);
        assert_eq!(second, file(&["{}"]));
        compressors.release();
        assert_eq!(first, file_by(&compressors, &[&long[0]]));
    }

    #[test]
    fn levels_outside_one_to_twelve_are_refused() {
        assert!(Compressors::new(0).is_err());
        assert!(Compressors::new(13).is_err());
        assert!(Compressors::new(12).is_ok());
    }
}
