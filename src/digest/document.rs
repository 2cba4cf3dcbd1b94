//! The JSON of a digest (CloudTrail user guide, "CloudTrail digest file structure"): members in that page's order, no white space, so
//! that a digest has exactly one spelling.
//!
//! Reading is stricter than the AWS CLI: every member of the page must be there, null only where a digest without files or
//! without a predecessor has it, and every hash, time and algorithm in its one spelling. Members that the page does not know are passed over.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use super::hex::{Fingerprint, Sha256, Signature};
use super::{Location, moment};
use crate::event::AccountId;

/// The only signature algorithm; also metadata of the object.
pub const SIGNATURE_ALGORITHM: &str = "SHA256withRSA";
const HASH_ALGORITHM: &str = "SHA-256";

/// What a digest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    pub account: AccountId,
    /// The window, seconds since 1970. Log files delivered from `start` to just before `end` are in it.
    pub start: i64,
    pub end: i64,
    /// Where the digest itself belongs.
    pub location: Location,
    /// Of the key that signs it.
    pub fingerprint: Fingerprint,
    /// None for the first of a chain.
    pub previous: Option<Previous>,
    /// The log files delivered in the window, the newest delivery first, as CloudTrail lists them.
    pub files: Vec<File>,
}

/// The digest before, as its successor vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    pub location: Location,
    /// Of its uncompressed bytes.
    pub sha256: Sha256,
    pub signature: Signature,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub location: Location,
    /// Of its uncompressed bytes.
    pub sha256: Sha256,
    /// Event times, seconds since 1970.
    pub newest: i64,
    pub oldest: i64,
}

/// Why some bytes are no digest.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} is not a time like 2026-05-01T00:12:34Z")]
    Time(&'static str),
    #[error("awsAccountId is not twelve digits")]
    Account,
    #[error("{0} is not an algorithm of digests")]
    Algorithm(&'static str),
    #[error("the members previousDigest… are neither all null nor all given")]
    HalfPrevious,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    aws_account_id: Cow<'a, str>,
    digest_start_time: Cow<'a, str>,
    digest_end_time: Cow<'a, str>,
    #[serde(rename = "digestS3Bucket")]
    digest_s3_bucket: Cow<'a, str>,
    #[serde(rename = "digestS3Object")]
    digest_s3_object: Cow<'a, str>,
    digest_public_key_fingerprint: Fingerprint,
    digest_signature_algorithm: Cow<'a, str>,
    #[serde(deserialize_with = "nullable")]
    newest_event_time: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "nullable")]
    oldest_event_time: Option<Cow<'a, str>>,
    #[serde(rename = "previousDigestS3Bucket", deserialize_with = "nullable")]
    previous_digest_s3_bucket: Option<Cow<'a, str>>,
    #[serde(rename = "previousDigestS3Object", deserialize_with = "nullable")]
    previous_digest_s3_object: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "nullable")]
    previous_digest_hash_value: Option<Sha256>,
    #[serde(deserialize_with = "nullable")]
    previous_digest_hash_algorithm: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "nullable")]
    previous_digest_signature: Option<Signature>,
    log_files: Vec<WireFile<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFile<'a> {
    #[serde(rename = "s3Bucket")]
    s3_bucket: Cow<'a, str>,
    #[serde(rename = "s3Object")]
    s3_object: Cow<'a, str>,
    hash_value: Sha256,
    hash_algorithm: Cow<'a, str>,
    newest_event_time: Cow<'a, str>,
    oldest_event_time: Cow<'a, str>,
}

/// Null is an answer, absence is not: by itself serde takes an absent `Option` for none.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

impl Digest {
    /// The event times of all its files, seconds since 1970: the newest and the oldest.
    pub fn event_times(&self) -> Option<(i64, i64)> {
        let newest = self.files.iter().map(|file| file.newest).max()?;
        let oldest = self.files.iter().map(|file| file.oldest).min()?;
        Some((newest, oldest))
    }

    /// The uncompressed bytes of the digest.
    pub fn to_json(&self) -> Vec<u8> {
        let Self {
            account,
            start,
            end,
            location,
            fingerprint,
            previous,
            files,
        } = self;
        let time = |seconds: i64| Cow::Owned(moment::text(seconds));
        let event_times = self.event_times();
        let previous = previous.as_ref();
        let wire = Wire {
            aws_account_id: account.as_str().into(),
            digest_start_time: time(*start),
            digest_end_time: time(*end),
            digest_s3_bucket: (&location.bucket).into(),
            digest_s3_object: (&location.key).into(),
            digest_public_key_fingerprint: *fingerprint,
            digest_signature_algorithm: SIGNATURE_ALGORITHM.into(),
            newest_event_time: event_times.map(|(newest, _)| time(newest)),
            oldest_event_time: event_times.map(|(_, oldest)| time(oldest)),
            previous_digest_s3_bucket: previous.map(|it| (&it.location.bucket).into()),
            previous_digest_s3_object: previous.map(|it| (&it.location.key).into()),
            previous_digest_hash_value: previous.map(|it| it.sha256),
            previous_digest_hash_algorithm: previous.map(|_| HASH_ALGORITHM.into()),
            previous_digest_signature: previous.map(|it| it.signature.clone()),
            log_files: files.iter().map(File::to_wire).collect(),
        };
        serde_json::to_vec(&wire).expect("digest: strings and lists always serialise")
    }

    /// Reads the uncompressed bytes of a digest.
    pub fn read(json: &[u8]) -> Result<Self, Unreadable> {
        let wire: Wire<'_> = serde_json::from_slice(json)?;
        let account = wire.aws_account_id.parse();
        if wire.digest_signature_algorithm != SIGNATURE_ALGORITHM {
            return Err(Unreadable::Algorithm("digestSignatureAlgorithm"));
        }
        for (name, given) in [
            ("newestEventTime", &wire.newest_event_time),
            ("oldestEventTime", &wire.oldest_event_time),
        ] {
            if let Some(given) = given {
                read_time(name, given)?;
            }
        }
        let start = read_time("digestStartTime", &wire.digest_start_time)?;
        let end = read_time("digestEndTime", &wire.digest_end_time)?;
        let previous = match (
            wire.previous_digest_s3_bucket,
            wire.previous_digest_s3_object,
            wire.previous_digest_hash_value,
            wire.previous_digest_hash_algorithm.as_deref(),
            wire.previous_digest_signature,
        ) {
            (None, None, None, None, None) => None,
            (Some(bucket), Some(key), Some(sha256), Some(HASH_ALGORITHM), Some(signature)) => {
                Some(Previous {
                    location: location(bucket, key),
                    sha256,
                    signature,
                })
            }
            (Some(_), Some(_), Some(_), Some(_), Some(_)) => {
                return Err(Unreadable::Algorithm("previousDigestHashAlgorithm"));
            }
            _ => return Err(Unreadable::HalfPrevious),
        };
        let files = wire.log_files.into_iter().map(File::from_wire);
        Ok(Self {
            account: account.map_err(|_| Unreadable::Account)?,
            start,
            end,
            location: location(wire.digest_s3_bucket, wire.digest_s3_object),
            fingerprint: wire.digest_public_key_fingerprint,
            previous,
            files: files.collect::<Result<_, _>>()?,
        })
    }
}

impl File {
    fn to_wire(&self) -> WireFile<'_> {
        let Self {
            location,
            sha256,
            newest,
            oldest,
        } = self;
        WireFile {
            s3_bucket: (&location.bucket).into(),
            s3_object: (&location.key).into(),
            hash_value: *sha256,
            hash_algorithm: HASH_ALGORITHM.into(),
            newest_event_time: moment::text(*newest).into(),
            oldest_event_time: moment::text(*oldest).into(),
        }
    }

    fn from_wire(wire: WireFile<'_>) -> Result<Self, Unreadable> {
        if wire.hash_algorithm != HASH_ALGORITHM {
            return Err(Unreadable::Algorithm("hashAlgorithm"));
        }
        Ok(Self {
            location: location(wire.s3_bucket, wire.s3_object),
            sha256: wire.hash_value,
            newest: read_time("newestEventTime", &wire.newest_event_time)?,
            oldest: read_time("oldestEventTime", &wire.oldest_event_time)?,
        })
    }
}

fn location(bucket: Cow<'_, str>, key: Cow<'_, str>) -> Location {
    Location {
        bucket: bucket.into_owned(),
        key: key.into_owned(),
    }
}

fn read_time(name: &'static str, given: &str) -> Result<i64, Unreadable> {
    moment::read(given).ok_or(Unreadable::Time(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::vectors;
    use super::*;

    #[test]
    fn the_vectors_are_reproduced_byte_for_byte() {
        let digests = vectors::digests();
        assert_eq!(digests.len(), 4);
        for object in digests {
            let digest = Digest::read(object.uncompressed.as_bytes()).unwrap();
            assert_eq!(digest.location.key, object.key);
            assert_eq!(
                String::from_utf8(digest.to_json()).unwrap(),
                object.uncompressed
            );
        }
    }

    #[test]
    fn a_digest_made_here_is_the_one_of_the_vectors() {
        let [_, one, two, _] = <[_; 4]>::try_from(vectors::digests()).unwrap();
        let made = Digest {
            account: "111122223333".parse().unwrap(),
            start: moment::read("2026-05-01T01:12:34Z").unwrap(),
            end: moment::read("2026-05-01T02:12:34Z").unwrap(),
            location: Location {
                bucket: "audit-bucket".into(),
                key: two.key.clone(),
            },
            fingerprint: "d5d3e8448c6a26f52c9aaf486c4b31a8".parse().unwrap(),
            previous: Some(Previous {
                location: Location {
                    bucket: "audit-bucket".into(),
                    key: one.key.clone(),
                },
                sha256: Sha256::of(one.uncompressed.as_bytes()),
                signature: one.signature(),
            }),
            files: Vec::new(),
        };
        assert_eq!(String::from_utf8(made.to_json()).unwrap(), two.uncompressed);
    }

    #[test]
    fn the_newest_and_oldest_event_are_those_of_all_files() {
        let mut digest = sample();
        let file = digest.files[0].clone();
        for (newest, oldest) in [(50, 40), (99, 60), (70, 7)] {
            digest.files.push(File {
                newest,
                oldest,
                ..file.clone()
            });
        }
        digest.files.remove(0);
        let json: Value = serde_json::from_slice(&digest.to_json()).unwrap();
        assert_eq!(json["newestEventTime"], "1970-01-01T00:01:39Z");
        assert_eq!(json["oldestEventTime"], "1970-01-01T00:00:07Z");
    }

    fn sample() -> Digest {
        Digest::read(vectors::digests()[1].uncompressed.as_bytes()).unwrap()
    }

    fn read(json: &Value) -> Result<Digest, String> {
        Digest::read(json.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_member_must_be_there_and_a_missing_one_is_named() {
        let whole: Value = serde_json::from_slice(&sample().to_json()).unwrap();
        let names: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 15);
        for name in &names {
            let mut json = whole.clone();
            json.as_object_mut().unwrap().remove(name);
            let error = read(&json).unwrap_err();
            assert!(
                error.contains(&format!("missing field `{name}`")),
                "{error}"
            );
        }
        let file_names: Vec<String> = whole["logFiles"][0]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(file_names.len(), 6);
        for name in &file_names {
            let mut json = whole.clone();
            json["logFiles"][0].as_object_mut().unwrap().remove(name);
            let error = read(&json).unwrap_err();
            assert!(
                error.contains(&format!("missing field `{name}`")),
                "{error}"
            );
        }
    }

    #[test]
    fn members_that_nobody_knows_are_passed_over() {
        let mut json: Value = serde_json::from_slice(&sample().to_json()).unwrap();
        json["shoeSize"] = json!({"eu": [43]});
        json["logFiles"][0]["colour"] = json!(null);
        assert_eq!(read(&json), Ok(sample()));
    }

    #[test]
    fn another_spelling_is_no_digest() {
        let whole: Value = serde_json::from_slice(&sample().to_json()).unwrap();
        let hash = sample().files[0].sha256.to_string().to_uppercase();
        for (pointer, other) in [
            ("/awsAccountId", json!("1111")),
            ("/digestStartTime", json!("2026-05-01T00:12:34+00:00")),
            ("/digestEndTime", json!(null)),
            (
                "/digestPublicKeyFingerprint",
                json!("D5D3E8448C6A26F52C9AAF486C4B31A8"),
            ),
            ("/digestSignatureAlgorithm", json!("none")),
            ("/newestEventTime", json!("today")),
            ("/previousDigestS3Bucket", json!(null)),
            ("/previousDigestSignature", json!(null)),
            ("/previousDigestHashAlgorithm", json!("MD5")),
            ("/previousDigestHashValue", json!("00")),
            ("/logFiles", json!(null)),
            ("/logFiles/0/hashValue", json!(hash)),
            ("/logFiles/0/hashAlgorithm", json!("MD5")),
            ("/logFiles/0/newestEventTime", json!(null)),
        ] {
            let mut json = whole.clone();
            *json.pointer_mut(pointer).unwrap() = other;
            assert!(read(&json).is_err(), "{pointer}");
        }
        let text = whole.to_string();
        let twice = text.replacen('{', r#"{"awsAccountId":"999999999999","#, 1);
        assert!(Digest::read(twice.as_bytes()).is_err(), "a member twice");
    }

    fn location() -> impl Strategy<Value = Location> {
        ("[a-z]{3,9}", ".{0,20}").prop_map(|(bucket, key)| Location { bucket, key })
    }

    fn file() -> impl Strategy<Value = File> {
        (
            location(),
            any::<[u8; 32]>(),
            0_i64..1 << 37,
            0_i64..1 << 37,
        )
            .prop_map(|(location, hash, newest, oldest)| File {
                location,
                sha256: Sha256(hash),
                newest,
                oldest,
            })
    }

    proptest! {
        #[test]
        fn every_digest_reads_back_as_written(
            own in location(),
            (start, end) in (0_i64..1 << 37, 0_i64..1 << 37),
            previous in proptest::option::of((location(), any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 1..300))),
            files in proptest::collection::vec(file(), 0..5),
        ) {
            let digest = Digest {
                start,
                end,
                location: own,
                previous: previous.map(|(location, hash, signature)| Previous {
                    location,
                    sha256: Sha256(hash),
                    signature: Signature(signature),
                }),
                files,
                ..sample()
            };
            prop_assert_eq!(Digest::read(&digest.to_json()).unwrap(), digest);
        }

        #[test]
        fn no_bytes_whatever_make_the_reader_stumble(at in 0_usize..1600, byte: u8, cut in 0_usize..1700) {
            let mut json = sample().to_json();
            if let Some(place) = json.get_mut(at) {
                *place = byte;
            }
            json.truncate(cut);
            let _ = Digest::read(&json);
        }
    }
}
