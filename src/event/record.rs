//! An accepted event as the journal keeps it: a small binary head, then the event's JSON.
//!
//! The head holds what routing, batching and the usual selectors ask, so that nothing after acceptance need parse JSON again.
//!
//! ```text
//! u8      version, 2
//! u8      category: 0 Management, 1 Data, 2 NetworkActivity, 3 Insight, 4 ActivityAuditLog
//! u8      flags: bit 0 global service (IAM, STS, CloudFront recorded in us-east-1), bit 1 read-only
//! u8      length of the region's name
//! i64 LE  event time, seconds since 1970
//! i64 LE  acceptance, milliseconds since 1970
//! [16]    fingerprint of what was given; two events with the same one are the same event sent twice
//! [12]    account
//! […]     region
//! […]     the event's JSON, to the end of the frame
//! ```
//!
//! Version 1 had the folder in the second byte (0 CloudTrail, 1 CloudTrail-Insight, 2 CloudTrail-NetworkActivity) and only bit 0 among
//! its flags. It is still read; what its head does not say is looked up in its JSON.

use super::fields::Fields;
use super::scan::Field;
use super::types::{AccountId, Category, Folder, Region};
use crate::clock::WallMillis;

const VERSION: u8 = 2;
const FIXED_HEAD: usize = 4 + 8 + 8 + 16 + 12;
const GLOBAL_SERVICE: u8 = 1;
const READ_ONLY: u8 = 2;

/// What traild reasons about in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub account: AccountId,
    pub region: Region,
    pub category: Category,
    /// The event belongs to a global service, which CloudTrail records in us-east-1 (CloudTrail user guide, "global service events").
    pub global_service: bool,
    /// `readOnly`; where the event says nothing, what its operation's name says.
    pub read_only: bool,
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
    #[error("event record has version {0}, this program knows versions 1 to {VERSION}")]
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
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.global_service, GLOBAL_SERVICE) | flag(self.read_only, READ_ONLY);
        out.extend_from_slice(&[VERSION, self.category as u8, flags, region_len]);
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
        let [version, kind, flags, region_len] = [head[0], head[1], head[2], head[3]];
        let (region, json) = rest
            .split_at_checked(usize::from(region_len))
            .ok_or(malformed.clone())?;
        let (category, read_only) = match version {
            1 => version_1(kind, json).ok_or(malformed)?,
            VERSION => {
                let category = Category::from_number(kind).ok_or(malformed)?;
                (category, flags & READ_ONLY != 0)
            }
            _ => return Err(RecordError::UnknownVersion(version)),
        };
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
                category,
                global_service: flags & GLOBAL_SERVICE != 0,
                read_only,
                event_time: i64::from_le_bytes(eight(4)),
                accepted_at: WallMillis(i64::from_le_bytes(eight(12))),
                fingerprint: head[20..36].try_into().expect("slice: sixteen bytes long"),
            },
            json,
        })
    }
}

/// The category and whether it only reads, of a record that says only its folder.
fn version_1(folder: u8, json: &[u8]) -> Option<(Category, bool)> {
    let fields = Fields::of(json)?;
    let category = match Folder::from_number(folder)? {
        Folder::Insight => Category::Insight,
        Folder::NetworkActivity => Category::NetworkActivity,
        Folder::CloudTrail => Category::named(&fields.text(Field::EventCategory)?)?,
    };
    Some((category, fields.is_read_only()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            account: "111122223333".parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            category: Category::NetworkActivity,
            global_service: true,
            read_only: true,
            event_time: 1_700_000_000,
            accepted_at: WallMillis(1_700_000_000_123),
            fingerprint: [7; 16],
        }
    }

    #[test]
    fn a_record_reads_back_as_written() {
        for (category, global_service, read_only) in [
            (Category::Management, false, false),
            (Category::Data, true, false),
            (Category::NetworkActivity, false, true),
            (Category::Insight, true, true),
            (Category::ActivityAuditLog, false, false),
        ] {
            let meta = Meta {
                category,
                global_service,
                read_only,
                ..meta()
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

    #[test]
    fn the_bytes_of_version_2_stay_as_they_are() {
        let mut bytes = Vec::new();
        meta().encode(&mut bytes);
        let golden = "0202030c00f15365000000007b68e5cf8b01000007070707070707070707070707070707\
                      31313131323232323333333365752d63656e7472616c2d31";
        assert_eq!(hex::encode(bytes), golden);
    }

    #[test]
    fn a_record_of_version_1_is_read_with_the_help_of_its_json() {
        let read = |folder: u8, json: &'static str| {
            let mut bytes = vec![1, folder, 1, 12];
            bytes.extend_from_slice(&1_700_000_000_i64.to_le_bytes());
            bytes.extend_from_slice(&1_700_000_000_123_i64.to_le_bytes());
            bytes.extend_from_slice(&[7; 16]);
            bytes.extend_from_slice(b"111122223333eu-central-1");
            bytes.extend_from_slice(json.as_bytes());
            Record::decode(&bytes).map(|record| {
                assert_eq!(record.json, json.as_bytes());
                record.meta
            })
        };
        let expected = |category, read_only| {
            Ok(Meta {
                category,
                read_only,
                ..meta()
            })
        };
        use Category::*;
        for (folder, json, category, read_only) in [
            (
                0,
                r#"{"eventCategory":"Management","readOnly":true}"#,
                Management,
                true,
            ),
            (
                0,
                r#"{"eventCategory":"Data","readOnly":"false","eventName":"GetObject"}"#,
                Data,
                false,
            ),
            (
                0,
                r#"{"eventCategory":"Data","readOnly":null,"eventName":"GetObject"}"#,
                Data,
                true,
            ),
            (1, r#"{"eventCategory":"Insight"}"#, Insight, false),
            (2, r#"{"eventName":"ListKeys"}"#, NetworkActivity, true),
        ] {
            assert_eq!(read(folder, json), expected(category, read_only), "{json}");
        }
        for (folder, json) in [
            (0, "{}"),
            (0, r#"{"eventCategory":"Other"}"#),
            (3, "{}"),
            (2, "["),
        ] {
            assert_eq!(read(folder, json), Err(RecordError::Malformed), "{json}");
        }
    }

    #[test]
    fn what_no_version_says_is_refused() {
        let mut bytes = Vec::new();
        meta().encode(&mut bytes);
        bytes[0] = 3;
        assert_eq!(Record::decode(&bytes), Err(RecordError::UnknownVersion(3)));
        bytes[..2].copy_from_slice(&[VERSION, 5]);
        assert_eq!(Record::decode(&bytes), Err(RecordError::Malformed));
    }
}
