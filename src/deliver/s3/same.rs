//! Whether an object that is read from a store holds certain bytes, whatever compressor packed them, or none: a proxy may have
//! inflated it. What it holds when it is another log file is told as well, as a digest must tell of it. Nothing of it is kept, and
//! no more of it read than what is looked for may have, so that it may come in any size.

use std::io::{self, Write};

use aws_lc_rs::digest;
use flate2::write::MultiGzDecoder;

use crate::logfile::{EventTimes, LogFile};

/// What an object must hold, uncompressed.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

impl From<&LogFile> for Content {
    fn from(file: &LogFile) -> Self {
        Self {
            sha256: file.sha256,
            bytes: file.uncompressed_bytes,
        }
    }
}

/// An object that holds a log file, to its end: at least one record, and the time of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of the uncompressed bytes.
    pub sha256: [u8; 32],
    /// Uncompressed.
    pub bytes: u64,
    /// As the store sent it.
    pub object_bytes: u64,
    pub records: u64,
    /// Seconds since 1970.
    pub oldest_event_time: i64,
    pub newest_event_time: i64,
}

/// What all that was read is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// With what it holds, if it is a log file.
    Other(Option<Held>),
}

pub(super) struct Comparison {
    /// Nothing when any log file is looked for.
    sha256: Option<[u8; 32]>,
    largest: u64,
    /// As it came, and inflated; each until it has more bytes than what is looked for.
    raw: Option<Reading>,
    inflated: Option<MultiGzDecoder<Reading>>,
    received: u64,
}

impl Comparison {
    pub fn with(content: Content) -> Self {
        Self {
            sha256: Some(content.sha256),
            ..Self::with_any(content.bytes)
        }
    }

    /// With no content: what a log file of at most so many bytes, uncompressed, holds.
    pub fn with_any(most_bytes: u64) -> Self {
        Self {
            sha256: None,
            // Gzip adds a little to what it cannot compress.
            largest: most_bytes
                .saturating_add(most_bytes / 1000)
                .saturating_add(4096),
            raw: Some(Reading::of(most_bytes)),
            inflated: Some(MultiGzDecoder::new(Reading::of(most_bytes))),
            received: 0,
        }
    }

    /// No object of what is looked for is larger.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Takes the next bytes. False when no more are needed: it is something else.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        self.received += bytes.len() as u64;
        if self.received > self.largest {
            (self.raw, self.inflated) = (None, None);
        }
        self.raw = self
            .raw
            .take()
            .and_then(|mut raw| raw.write_all(bytes).is_ok().then_some(raw));
        self.inflated = self
            .inflated
            .take()
            .and_then(|mut inflated| inflated.write_all(bytes).is_ok().then_some(inflated));
        self.raw.is_some() || self.inflated.is_some()
    }

    /// What all that was taken is.
    pub fn finish(self) -> Verdict {
        let inflated = self.inflated.and_then(|inflated| inflated.finish().ok());
        let mut held = None;
        for reading in [inflated, self.raw].into_iter().flatten() {
            let (sha256, of_log_file) = reading.finish(self.received);
            if self.sha256 == Some(sha256) {
                return Verdict::Same;
            }
            held = held.or(of_log_file);
        }
        Verdict::Other(held)
    }
}

/// Hashes what passes and reads the times of its events; refuses more bytes than it may have.
struct Reading {
    hash: digest::Context,
    events: EventTimes,
    bytes: u64,
    most_bytes: u64,
}

impl Reading {
    fn of(most_bytes: u64) -> Self {
        Self {
            hash: digest::Context::new(&digest::SHA256),
            events: EventTimes::default(),
            bytes: 0,
            most_bytes,
        }
    }

    /// The hash, and what it says of a log file in an object of so many bytes.
    fn finish(self, object_bytes: u64) -> ([u8; 32], Option<Held>) {
        let Self {
            hash,
            events,
            bytes,
            most_bytes: _,
        } = self;
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(hash.finish().as_ref());
        let (records, is_whole) = (events.records(), events.is_whole());
        let times = events.finish().filter(|_| is_whole);
        let held = times.map(|(newest_event_time, oldest_event_time)| Held {
            sha256,
            bytes,
            object_bytes,
            records,
            oldest_event_time,
            newest_event_time,
        });
        (sha256, held)
    }
}

impl Write for Reading {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sum = self.bytes.checked_add(bytes.len() as u64);
        self.bytes = sum
            .filter(|sum| *sum <= self.most_bytes)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.hash.update(bytes);
        self.events.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfile::{Builder, Compressors};

    fn holds(stored: &[u8], file: &LogFile) -> bool {
        let mut comparison = Comparison::with(file.into());
        for piece in stored.chunks(100) {
            comparison.take(piece);
        }
        comparison.finish() == Verdict::Same
    }

    fn file(level: u8) -> LogFile {
        let compressors = Compressors::new(level).unwrap();
        let mut builder = Builder::with_capacity(0, &compressors).unwrap();
        for n in 0..1000 {
            builder
                .push(format!(r#"{{"eventID":"{n}"}}"#).as_bytes(), n)
                .unwrap();
        }
        builder.finish(&compressors).unwrap()
    }

    #[test]
    fn an_object_is_known_by_its_events_not_by_its_compressor() {
        let (one, other) = (file(1), file(9));
        assert_ne!(one.gzip, other.gzip);
        assert!(holds(&other.gzip, &one));
        let mut inflated = Vec::new();
        io::Read::read_to_end(
            &mut flate2::bufread::GzDecoder::new(&*one.gzip),
            &mut inflated,
        )
        .unwrap();
        assert!(holds(&inflated, &one), "inflated on its way");
        assert!(!holds(&inflated[1..], &one));
        assert!(!holds(&one.gzip[..one.gzip.len() - 1], &one), "cut short");
        assert!(!holds(&[&*one.gzip, b"x"].concat(), &one), "more after it");
        let compressors = Compressors::new(6).unwrap();
        let mut longer = Builder::with_capacity(0, &compressors).unwrap();
        longer.push(b"{}", 0).unwrap();
        assert!(!holds(&one.gzip, &longer.finish(&compressors).unwrap()));
        assert!(!holds(b"not gzip", &one));
        assert!(!holds(b"", &one));
    }

    #[test]
    fn an_object_that_does_not_end_is_given_up() {
        let file = file(6);
        let mut comparison = Comparison::with((&file).into());
        let zeroes = [0; 1024];
        let taken = (0..u64::MAX).find(|_| !comparison.take(&zeroes)).unwrap();
        assert!(taken * 1024 <= comparison.largest());
        assert_eq!(comparison.finish(), Verdict::Other(None));
    }

    #[test]
    fn another_log_file_is_told_as_a_digest_must_tell_of_it() {
        let event = |second| format!(r#"{{"eventTime":"2026-05-01T00:12:{second}Z"}}"#);
        let compressors = Compressors::new(6).unwrap();
        let mut builder = Builder::with_capacity(0, &compressors).unwrap();
        for second in [34, 38, 36] {
            builder
                .push(event(second).as_bytes(), 1_777_594_320 + second)
                .unwrap();
        }
        let file = builder.finish(&compressors).unwrap();
        let mut inflated = Vec::new();
        io::Read::read_to_end(
            &mut flate2::bufread::GzDecoder::new(&*file.gzip),
            &mut inflated,
        )
        .unwrap();
        let held = |object: &[u8], mut comparison: Comparison| {
            object.chunks(7).for_each(|piece| {
                comparison.take(piece);
            });
            match comparison.finish() {
                Verdict::Same => panic!("it is another one"),
                Verdict::Other(held) => held,
            }
        };
        let most = file.uncompressed_bytes;
        let something = Content {
            sha256: [7; 32],
            bytes: most,
        };
        for object in [&file.gzip, &inflated] {
            let expected = Some(Held {
                sha256: file.sha256,
                bytes: most,
                object_bytes: object.len() as u64,
                records: 3,
                oldest_event_time: 1_777_594_354,
                newest_event_time: 1_777_594_358,
            });
            assert_eq!(held(object, Comparison::with_any(most)), expected);
            assert_eq!(held(object, Comparison::with(something)), expected);
            assert_eq!(
                held(object, Comparison::with_any(most - 1)),
                None,
                "longer than that"
            );
            let cut = &object[..object.len() - 1];
            assert_eq!(held(cut, Comparison::with_any(most)), None, "cut short");
        }
        for no_log_file in ["{}", r#"{"Records":[]}"#, r#"{"Records":[{}]}"#, ""] {
            assert_eq!(held(no_log_file.as_bytes(), Comparison::with_any(99)), None);
        }
    }
}
