//! What is in an object, while it passes: nothing of a log file is kept, and nothing that grows without end is followed.

use std::io::{self, Write};

use anyhow::Context;
use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use super::source::{Object, Source};
use crate::digest::verify::{Fault, LogState, Metadata};
use crate::digest::{Location, Sha256};
use crate::logfile::EventTimes;

/// A digest of fifty thousand log files is smaller.
const MAX_DIGEST_BYTES: u64 = 32 << 20;

/// Log files hold 50 MB (CloudTrail user guide), and no event is that large.
const MAX_LOG_BYTES: u64 = 1 << 30;

/// The same as they are stored. What JSON becomes in gzip is far smaller.
const MAX_STORED_LOG_BYTES: u64 = 128 << 20;

/// How often a body that breaks off is read, from its beginning. The SDK repeats requests, not what comes after their headers.
const ATTEMPTS: usize = 3;

/// A digest's object as read.
pub enum Read<T> {
    Missing,
    Unreadable(String),
    Whole(T),
}

/// Uncompressed bytes, with metadata where there are any.
pub type DigestBytes = (Vec<u8>, Option<Metadata>);

/// Reads a digest's object.
pub async fn digest(source: &Source, location: &Location) -> anyhow::Result<Read<DigestBytes>> {
    let keep = || Limited::new(Vec::new(), MAX_DIGEST_BYTES);
    Ok(
        match inflate(source, location, MAX_DIGEST_BYTES, keep).await? {
            Read::Missing => Read::Missing,
            Read::Unreadable(why) => Read::Unreadable(why),
            Read::Whole((json, metadata)) => Read::Whole((json.inner, metadata)),
        },
    )
}

/// Reads a log file, and looks at the times of its events.
pub async fn log(source: &Source, location: &Location) -> anyhow::Result<LogState> {
    let look = || Limited::new(Look::default(), MAX_LOG_BYTES);
    Ok(
        match inflate(source, location, MAX_STORED_LOG_BYTES, look).await? {
            Read::Missing => LogState::Missing,
            Read::Unreadable(why) => LogState::Unreadable(why),
            Read::Whole((look, _)) => look.inner.state(),
        },
    )
}

/// Why bytes of a digest do not even get to be judged.
pub fn fault<T>(read: Read<T>) -> Result<T, Fault> {
    match read {
        Read::Missing => Err(Fault::NotFound),
        Read::Unreadable(why) => Err(Fault::Format(why)),
        Read::Whole(it) => Ok(it),
    }
}

async fn inflate<W: Write + Send>(
    source: &Source,
    location: &Location,
    most_stored: u64,
    sink: impl Fn() -> W,
) -> anyhow::Result<Read<(W, Option<Metadata>)>> {
    let mut attempt = 1;
    loop {
        let Some(object) = source.get(location).await? else {
            return Ok(Read::Missing);
        };
        match inflate_once(object, most_stored, sink()).await {
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            other => return other.with_context(|| format!("cannot read all of {location}")),
        }
    }
}

async fn inflate_once<W: Write>(
    object: Object,
    most_stored: u64,
    sink: W,
) -> anyhow::Result<Read<(W, Option<Metadata>)>> {
    let Object { metadata, mut body } = object;
    // All members are one content, as everybody reads gzip but the AWS CLI: it knows of one member, older versions of the first alone.
    let mut decoder = MultiGzDecoder::new(sink);
    // Members may be empty, and then bytes come without end and none leave.
    let mut left = most_stored;
    while let Some(piece) = body.next().await? {
        let Some(rest) = left.checked_sub(piece.len() as u64) else {
            return Ok(Read::Unreadable(format!("more than {most_stored} bytes")));
        };
        left = rest;
        if let Err(error) = write(&mut decoder, &piece) {
            return Ok(Read::Unreadable(error.to_string()));
        }
    }
    Ok(match decoder.finish() {
        Ok(sink) => Read::Whole((sink, metadata)),
        Err(error) => Read::Unreadable(error.to_string()),
    })
}

fn write(decoder: &mut impl Write, piece: &Bytes) -> io::Result<()> {
    decoder.write_all(piece)
}

/// Refuses more than it was made for.
struct Limited<W> {
    inner: W,
    most: u64,
    left: u64,
}

impl<W> Limited<W> {
    fn new(inner: W, most: u64) -> Self {
        Self {
            inner,
            most,
            left: most,
        }
    }
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| {
            io::Error::other(format!("more than {} bytes uncompressed", self.most))
        })?;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes a log file and reads the times of its events.
struct Look {
    hash: digest::Context,
    times: EventTimes,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            hash: digest::Context::new(&SHA256),
            times: EventTimes::default(),
        }
    }
}

impl Look {
    fn state(self) -> LogState {
        let hash = self.hash.finish().as_ref().try_into();
        LogState::Read {
            sha256: Sha256(hash.expect("SHA-256: 32 bytes long")),
            event_times: self.times.finish(),
        }
    }
}

impl Write for Look {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.times.take(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{Memory, gzip};
    use super::*;

    async fn state(object: Vec<u8>) -> LogState {
        let location = Location {
            bucket: "b".into(),
            key: "k".into(),
        };
        let mut memory = Memory::default();
        memory.put(&location, object, None, 0);
        log(&Source::Memory(Arc::new(memory)), &location)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_log_file_is_one_content_to_its_end() {
        let plain = br#"{"Records":[{"eventTime":"2026-05-01T00:12:34Z"}]}"#;
        let whole = gzip(plain);
        let expected = LogState::Read {
            sha256: Sha256::of(plain),
            event_times: Some((1_777_594_354, 1_777_594_354)),
        };
        assert_eq!(state(whole.clone()).await, expected);
        let more = [&whole[..], &gzip(b"{}")].concat();
        assert!(
            matches!(state(more).await, LogState::Read { sha256, .. } if sha256 != Sha256::of(plain))
        );
        for broken in [
            whole[..whole.len() - 1].to_vec(),
            whole[..whole.len() - 8].to_vec(),
            whole[..20].to_vec(),
            [&whole[..], b"x"].concat(),
            plain.to_vec(),
            Vec::new(),
        ] {
            let read = state(broken.clone()).await;
            assert!(
                matches!(read, LogState::Unreadable(_)),
                "{broken:?}: {read:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_comes_without_end_is_given_up_although_nothing_comes_of_it() {
        let empty = gzip(b"");
        let members = empty.repeat(MAX_DIGEST_BYTES as usize / empty.len() + 1);
        let location = Location {
            bucket: "b".into(),
            key: "k".into(),
        };
        let mut memory = Memory::default();
        memory.put(&location, members, None, 0);
        let read = digest(&Source::Memory(Arc::new(memory)), &location).await;
        match read.unwrap() {
            Read::Unreadable(why) => assert_eq!(why, "more than 33554432 bytes"),
            _ => panic!("it was read"),
        }
    }

    #[tokio::test]
    async fn what_inflates_without_end_is_given_up() {
        let location = Location {
            bucket: "b".into(),
            key: "k".into(),
        };
        let mut memory = Memory::default();
        let bomb = gzip(&vec![b' '; (MAX_DIGEST_BYTES + 1) as usize]);
        memory.put(&location, bomb, None, 0);
        let read = digest(&Source::Memory(Arc::new(memory)), &location).await;
        match read.unwrap() {
            Read::Unreadable(why) => assert_eq!(why, "more than 33554432 bytes uncompressed"),
            _ => panic!("it was read"),
        }
    }
}
