//! Where things lie on disk, and how an object's facts are written behind its bytes.
//!
//! ```text
//! <directory>/
//!   traild-store                 "traild-store 1\n"; locked while a daemon has the store open
//!   tmp/                         half-written files; emptied at open
//!   damaged/                     files whose footer did not verify, moved aside at open
//!   buckets/<name>/
//!     bucket.json                what CreateBucket and the bucket's sub-resources said
//!     objects/<2 hex>/<62 hex>   an object; the name is the SHA-256 of its key
//!     uploads/<id>/upload.json   a multipart upload: its key and headers
//!     uploads/<id>/part-00001    a part, in the same format as an object
//! ```
//!
//! A key never becomes a path: only its hash does, so `..`, `/` at the end, keys that are prefixes of others and
//! names longer than the file system allows are all the same to us.
//!
//! An object or part file, version 1, integers little-endian:
//!
//! ```text
//! content      as it was sent
//! facts        JSON of `Facts`
//! footer       24 bytes: content length u64 · facts length u32 · CRC-32 of the facts u32 · "trdobj" · 0 · version u8
//! ```
//!
//! Content comes first so that a part or object can be read, copied and looked at with plain tools.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::digests::Checksums;

pub const VERSION: u8 = 1;
pub const MARKER: &str = "traild-store";
const MAGIC: &[u8; 6] = b"trdobj";
const FOOTER_BYTES: usize = 24;
/// Read at once from the end of a file: footer and facts of all but objects with very many parts.
const TAIL_BYTES: u64 = 4096;
/// 10,000 part sizes and the largest headers fit many times over.
const MAX_FACTS_BYTES: u32 = 1 << 20;

/// Everything the store knows of an object or part besides its bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub key: String,
    #[serde(skip)]
    pub size: u64,
    pub modified_millis: i64,
    /// Hex MD5 of the content, or `<hex>-<parts>` for a completed multipart upload; without quotes.
    pub etag: String,
    #[serde(default, skip_serializing_if = "Checksums::is_empty")]
    pub checksums: Checksums,
    #[serde(default)]
    pub headers: Headers,
    /// Sizes of the parts a multipart upload was completed from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub part_sizes: Vec<u64>,
}

/// What the writer asked to have returned with the object. Encryption headers are kept and returned; nothing is
/// encrypted here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website_redirect_location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_encryption_context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_key_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tagging: Option<String>,
    /// `x-amz-meta-…`, names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, String>,
}

/// `bucket.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BucketFacts {
    pub version: u8,
    pub created_millis: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<(String, String)>>,
}

/// `upload.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadFacts {
    pub version: u8,
    pub key: String,
    pub initiated_millis: i64,
    pub headers: Headers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum_algorithm: Option<super::digests::Algorithm>,
    #[serde(default)]
    pub full_object_checksum: bool,
}

/// The place of `key` below a bucket's `objects` directory: shard and file name.
pub fn place_of(key: &str) -> (String, String) {
    let name = hex::encode(digest(&SHA256, key.as_bytes()));
    let (shard, rest) = name.split_at(2);
    (shard.to_owned(), rest.to_owned())
}

pub fn object_path(bucket: &Path, key: &str) -> PathBuf {
    let (shard, name) = place_of(key);
    bucket.join("objects").join(shard).join(name)
}

pub fn part_name(number: u16) -> String {
    format!("part-{number:05}")
}

/// What goes behind the content: facts and footer.
pub fn encode_tail(facts: &Facts) -> io::Result<Vec<u8>> {
    let mut tail = serde_json::to_vec(facts)?;
    let length = u32::try_from(tail.len())
        .ok()
        .filter(|length| *length <= MAX_FACTS_BYTES)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the object's facts exceed 1 MiB",
            )
        })?;
    let crc = crc32fast::hash(&tail);
    tail.extend_from_slice(&facts.size.to_le_bytes());
    tail.extend_from_slice(&length.to_le_bytes());
    tail.extend_from_slice(&crc.to_le_bytes());
    tail.extend_from_slice(MAGIC);
    tail.extend_from_slice(&[0, VERSION]);
    Ok(tail)
}

/// Reads the facts of an object or part, refusing a file that is not whole.
pub fn read_facts(file: &File) -> io::Result<Facts> {
    let file_bytes = file.metadata()?.len();
    let take = file_bytes.min(TAIL_BYTES);
    let mut tail = vec![0; usize::try_from(take).map_err(|_| damaged("too large"))?];
    file.read_exact_at(&mut tail, file_bytes - take)?;
    let footer_at = tail
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or_else(|| damaged("shorter than its footer"))?;
    let footer = Footer::decode(&tail[footer_at..])?;

    let whole = footer
        .content_bytes
        .checked_add(u64::from(footer.facts_bytes))
        .and_then(|n| n.checked_add(FOOTER_BYTES as u64));
    if whole != Some(file_bytes) {
        return Err(damaged("lengths do not add up"));
    }
    let facts_bytes = footer.facts_bytes as usize;
    let encoded = if facts_bytes <= footer_at {
        tail.drain(footer_at..);
        tail.drain(..footer_at - facts_bytes);
        tail
    } else {
        let mut encoded = vec![0; facts_bytes];
        file.read_exact_at(&mut encoded, footer.content_bytes)?;
        encoded
    };
    if crc32fast::hash(&encoded) != footer.facts_crc {
        return Err(damaged("its facts do not match their checksum"));
    }
    let mut facts: Facts = serde_json::from_slice(&encoded)?;
    facts.size = footer.content_bytes;
    Ok(facts)
}

struct Footer {
    content_bytes: u64,
    facts_bytes: u32,
    facts_crc: u32,
}

impl Footer {
    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let short = || damaged("short footer");
        let (content_bytes, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let (facts_bytes, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (facts_crc, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let version = match rest.strip_prefix(MAGIC) {
            Some([0, version]) => *version,
            _ => return Err(damaged("no footer")),
        };
        if version != VERSION {
            return Err(damaged("written by another version"));
        }
        let facts_bytes = u32::from_le_bytes(*facts_bytes);
        if facts_bytes > MAX_FACTS_BYTES {
            return Err(damaged("its facts are too long"));
        }
        Ok(Self {
            content_bytes: u64::from_le_bytes(*content_bytes),
            facts_bytes,
            facts_crc: u32::from_le_bytes(*facts_crc),
        })
    }
}

fn damaged(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Makes the entries of a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes a small file whole: under a temporary name, fsynced, renamed into place, its directory fsynced.
pub fn replace_small(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    sync_directory(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(facts: &Facts, content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.write_all(&encode_tail(facts).unwrap()).unwrap();
        file
    }

    #[test]
    fn an_object_with_ten_thousand_parts_is_read_back() {
        let facts = Facts {
            key: "k".into(),
            size: 3,
            part_sizes: vec![5 << 20; 10_000],
            ..Facts::default()
        };
        assert_eq!(read_facts(&write(&facts, b"abc")).unwrap(), facts);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let facts = Facts {
            key: "a/b".into(),
            size: 10,
            etag: "e".into(),
            ..Facts::default()
        };
        let file = write(&facts, b"0123456789");
        for length in 0..file.metadata().unwrap().len() {
            file.set_len(length).unwrap_or_default();
            assert!(read_facts(&file).is_err(), "cut to {length}");
            // Growing again fills with zeros: a torn write of the right length.
            let file = write(&facts, b"0123456789");
            let whole = file.metadata().unwrap().len();
            file.set_len(length).unwrap();
            file.set_len(whole).unwrap();
            assert!(read_facts(&file).is_err(), "zeros from {length}");
        }
    }

    #[test]
    fn keys_that_would_leave_the_directory_stay_inside() {
        let bucket = Path::new("/b");
        for key in [
            "../../etc/passwd",
            "/",
            "a/",
            "..",
            ".",
            "\u{0}",
            &"x".repeat(1024),
        ] {
            let path = object_path(bucket, key);
            assert_eq!(path.components().count(), bucket.components().count() + 3);
            assert!(path.starts_with("/b/objects"));
        }
    }

    proptest! {
        #[test]
        fn facts_round_trip(key in ".{0,200}", content in proptest::collection::vec(any::<u8>(), 0..9000),
                            etag in "[0-9a-f]{32}", user in proptest::collection::btree_map("[a-z0-9-]{1,20}", ".{0,50}", 0..40)) {
            let facts = Facts {
                key, etag, size: content.len() as u64, modified_millis: 1_700_000_000_123,
                headers: Headers { user, content_type: Some("text/plain".into()), ..Headers::default() },
                ..Facts::default()
            };
            prop_assert_eq!(read_facts(&write(&facts, &content)).unwrap(), facts);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let _ = read_facts(&file);
        }
    }
}
