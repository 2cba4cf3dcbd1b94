//! Whether an object that is read from a store holds certain bytes, whatever compressor packed them, or none: a proxy may have
//! inflated it. Nothing of it is kept, so that it may come in any size.

use std::io::{self, Write};

use aws_lc_rs::digest;
use flate2::write::MultiGzDecoder;

use crate::logfile::LogFile;

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

pub(super) struct Comparison {
    content: Content,
    /// As it came, and inflated; each until it cannot be the content any more.
    raw: Option<Fingerprint>,
    inflated: Option<MultiGzDecoder<Fingerprint>>,
    received: u64,
}

impl Comparison {
    pub fn with(content: Content) -> Self {
        let fingerprint = || Fingerprint {
            context: digest::Context::new(&digest::SHA256),
            left: content.bytes,
        };
        Self {
            content,
            raw: Some(fingerprint()),
            inflated: Some(MultiGzDecoder::new(fingerprint())),
            received: 0,
        }
    }

    /// No object of the same content is larger: gzip adds a little to what it cannot compress.
    pub fn largest(&self) -> u64 {
        self.content.bytes + self.content.bytes / 1000 + 4096
    }

    /// Takes the next bytes. False when no more are needed: it is something else.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        self.received += bytes.len() as u64;
        if self.received > self.largest() {
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

    /// Whether all that was taken is the content.
    pub fn finish(self) -> bool {
        let inflated = self.inflated.and_then(|inflated| inflated.finish().ok());
        [self.raw, inflated]
            .into_iter()
            .flatten()
            .any(|fingerprint| fingerprint.context.finish().as_ref() == self.content.sha256)
    }
}

/// A hash that refuses to take more than the content has.
struct Fingerprint {
    context: digest::Context,
    left: u64,
}

impl Write for Fingerprint {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.context.update(bytes);
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
        comparison.finish()
    }

    fn file(level: u8) -> LogFile {
        let mut builder = Builder::with_capacity(0);
        for n in 0..1000 {
            builder.push(format!(r#"{{"eventID":"{n}"}}"#).as_bytes(), n);
        }
        builder.finish(&Compressors::new(level).unwrap())
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
        let mut longer = Builder::with_capacity(0);
        longer.push(b"{}", 0);
        assert!(!holds(
            &one.gzip,
            &longer.finish(&Compressors::new(6).unwrap())
        ));
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
        assert!(!comparison.finish());
    }
}
