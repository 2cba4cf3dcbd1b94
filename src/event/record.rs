//! An accepted event as the journal keeps it: a small binary head, then the event's JSON.
//!
//! The head holds what routing and batching ask, so that nothing after acceptance parses JSON again.
//!
//! ```text
//! u8      version, 1
//! u8      folder: 0 CloudTrail, 1 CloudTrail-Insight, 2 CloudTrail-NetworkActivity
//! u8      flags: bit 0 global service (IAM, STS, CloudFront recorded in us-east-1)
//! u8      length of the region's name
//! i64 LE  event time, seconds since 1970
//! i64 LE  acceptance, milliseconds since 1970
//! [16]    fingerprint of what was given; two events with the same one are the same event sent twice
//! [12]    account
//! […]     region
//! […]     the event's JSON, to the end of the frame
//! ```

use super::types::{AccountId, Folder, Region};
use crate::clock::WallMillis;

const VERSION: u8 = 1;
const FIXED_HEAD: usize = 4 + 8 + 8 + 16 + 12;
const GLOBAL_SERVICE: u8 = 1;

/// What traild reasons about in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub account: AccountId,
    pub region: Region,
    pub folder: Folder,
    /// The event belongs to a global service, which CloudTrail records in us-east-1 (CloudTrail user guide, "global service events").
    pub global_service: bool,
    /// Seconds since 1970.
    pub event_time: i64,
    pub accepted_at: WallMillis,
    /// Identifies the event as given, with its account and region.
    pub fingerprint: [u8; 16],
}

/// An event read back from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub meta: Meta,
    pub json: &'a [u8],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("event record has version {0}, this program knows version {VERSION}")]
    UnknownVersion(u8),
    #[error("event record is malformed")]
    Malformed,
}

impl Meta {
    /// Bytes that [`encode`](Self::encode) writes before the JSON.
    pub fn encoded_len(&self) -> usize {
        FIXED_HEAD + self.region.as_str().len()
    }

    /// Appends the head to `out`; the event's JSON follows it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let region = self.region.as_str().as_bytes();
        let region_len = u8::try_from(region.len()).expect("region: at most 32 bytes");
        let flags = if self.global_service {
            GLOBAL_SERVICE
        } else {
            0
        };
        out.extend_from_slice(&[VERSION, self.folder as u8, flags, region_len]);
        out.extend_from_slice(&self.event_time.to_le_bytes());
        out.extend_from_slice(&self.accepted_at.0.to_le_bytes());
        out.extend_from_slice(&self.fingerprint);
        out.extend_from_slice(self.account.as_bytes());
        out.extend_from_slice(region);
    }
}

impl<'a> Record<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let malformed = RecordError::Malformed;
        let (head, rest) = bytes
            .split_at_checked(FIXED_HEAD)
            .ok_or(malformed.clone())?;
        let [version, folder, flags, region_len] = [head[0], head[1], head[2], head[3]];
        if version != VERSION {
            return Err(RecordError::UnknownVersion(version));
        }
        let (region, json) = rest
            .split_at_checked(usize::from(region_len))
            .ok_or(malformed.clone())?;
        let eight = |at: usize| -> [u8; 8] {
            head[at..at + 8]
                .try_into()
                .expect("slice: eight bytes long")
        };
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed);
        Ok(Self {
            meta: Meta {
                account: text(&bytes[36..48])?
                    .parse()
                    .map_err(|_| RecordError::Malformed)?,
                region: text(region)?.parse().map_err(|_| RecordError::Malformed)?,
                folder: Folder::from_number(folder).ok_or(malformed)?,
                global_service: flags & GLOBAL_SERVICE != 0,
                event_time: i64::from_le_bytes(eight(4)),
                accepted_at: WallMillis(i64::from_le_bytes(eight(12))),
                fingerprint: head[20..36].try_into().expect("slice: sixteen bytes long"),
            },
            json,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_written() {
        let meta = Meta {
            account: "111122223333".parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            folder: Folder::NetworkActivity,
            global_service: true,
            event_time: 1_700_000_000,
            accepted_at: WallMillis(1_700_000_000_123),
            fingerprint: [7; 16],
        };
        let mut bytes = Vec::new();
        meta.encode(&mut bytes);
        assert_eq!(bytes.len(), meta.encoded_len());
        bytes.extend_from_slice(b"{}");
        assert_eq!(Record::decode(&bytes), Ok(Record { meta, json: b"{}" }));
        for cut in 0..bytes.len() - 2 {
            assert!(Record::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
