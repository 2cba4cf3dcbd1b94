//! What requests ask for: s3s's inputs turned into the store's own values, and refused where they make no sense.

use std::ops;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use time::OffsetDateTime;

use crate::store::body::Trailers;
use crate::store::digests::{Algorithm, Claims};
use crate::store::error::StoreError;
use crate::store::layout::{Facts, Headers};
use crate::store::multipart::MAX_PARTS;
use crate::store::objects::{MAX_PUT_BYTES, Precondition};

/// S3's limit for the names and values of user metadata together.
const MAX_USER_METADATA_BYTES: usize = 2048;
pub(super) const MAX_KEYS: usize = 1000;

/// The inputs that create objects share these fields without sharing a type.
macro_rules! headers_of {
    ($input:expr) => {
        Headers {
            content_type: $input.content_type.take().map(|value| value.to_string()),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            content_disposition: $input.content_disposition.take(),
            cache_control: $input.cache_control.take(),
            expires_seconds: $input.expires.as_ref().map(|expires| seconds_of(expires)),
            storage_class: $input
                .storage_class
                .take()
                .map(|value| value.as_str().to_owned()),
            website_redirect_location: $input.website_redirect_location.take(),
            server_side_encryption: $input
                .server_side_encryption
                .take()
                .map(|value| value.as_str().to_owned()),
            kms_key_id: $input.ssekms_key_id.take(),
            kms_encryption_context: $input.ssekms_encryption_context.take(),
            bucket_key_enabled: $input.bucket_key_enabled,
            tagging: $input.tagging.take(),
            user: $input
                .metadata
                .take()
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.to_lowercase(), value))
                .collect(),
        }
    };
}

pub(super) use headers_of;

pub(super) fn check_user_metadata(headers: &Headers) -> Result<(), StoreError> {
    let bytes: usize = headers
        .user
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_USER_METADATA_BYTES {
        Err(StoreError::MetadataTooLarge)
    } else {
        Ok(())
    }
}

pub(super) fn copied_headers(
    source: Headers,
    asked: Headers,
    replace: bool,
    replace_tags: bool,
) -> Headers {
    let tagging = if replace_tags {
        asked.tagging.clone()
    } else {
        source.tagging.clone()
    };
    if replace {
        return Headers { tagging, ..asked };
    }
    // These are never copied: they come from the request, as in S3.
    let Headers {
        storage_class,
        website_redirect_location,
        server_side_encryption,
        kms_key_id,
        kms_encryption_context,
        bucket_key_enabled,
        ..
    } = asked;
    Headers {
        storage_class,
        website_redirect_location,
        server_side_encryption,
        kms_key_id,
        kms_encryption_context,
        bucket_key_enabled,
        tagging,
        ..source
    }
}

/// The body's claims and trailers, left in the request's extensions by the adapter.
pub(super) fn claims_of<T>(request: &S3Request<T>) -> (Claims, Trailers) {
    let claims = request
        .extensions
        .get::<Claims>()
        .cloned()
        .unwrap_or_default();
    let trailers = request
        .extensions
        .get::<Trailers>()
        .cloned()
        .unwrap_or_default();
    (claims, trailers)
}

pub(super) fn algorithm_of(
    name: Option<&ChecksumAlgorithm>,
) -> Result<Option<Algorithm>, StoreError> {
    match name {
        None => Ok(None),
        Some(name) => match Algorithm::from_name(name.as_str()) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => Err(StoreError::InvalidRequest(
                "Checksum algorithm provided is unsupported.".into(),
            )),
        },
    }
}

pub(super) fn precondition(
    if_match: Option<&IfMatch>,
    if_none_match: Option<&IfNoneMatch>,
) -> Result<Precondition, StoreError> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Precondition::Etag(etag.value().to_owned())),
        (_, Some(_)) => Err(StoreError::NotImplemented(
            "A header you provided implies functionality that is not implemented".into(),
        )),
    }
}

/// What GetObject and HeadObject ask for, in fields that they share without sharing a type.
macro_rules! reading_of {
    ($input:expr) => {{
        let input = $input;
        Reading {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
            range: input.range,
            part_number: input.part_number,
            checksum_mode: input.checksum_mode,
            version_id: input.version_id,
            bucket: input.bucket,
            key: input.key,
        }
    }};
}
pub(super) use reading_of;

pub(super) struct Reading {
    pub bucket: String,
    pub key: String,
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
    pub range: Option<Range>,
    pub part_number: Option<i32>,
    pub checksum_mode: Option<ChecksumMode>,
    pub version_id: Option<String>,
}

impl Reading {
    pub fn conditions(&self) -> ReadConditions<'_> {
        ReadConditions {
            if_match: self.if_match.as_ref(),
            if_none_match: self.if_none_match.as_ref(),
            if_modified_since: self.if_modified_since.as_ref(),
            if_unmodified_since: self.if_unmodified_since.as_ref(),
        }
    }
}

/// What CopyObject and UploadPartCopy ask of their source.
macro_rules! source_conditions_of {
    ($input:expr) => {
        ReadConditions {
            if_match: $input.copy_source_if_match.as_ref(),
            if_none_match: $input.copy_source_if_none_match.as_ref(),
            if_modified_since: $input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: $input.copy_source_if_unmodified_since.as_ref(),
        }
    };
}
pub(super) use source_conditions_of;

/// The conditions of a read; RFC 9110, section 13.2.2, gives their order.
#[derive(Default)]
pub(super) struct ReadConditions<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    pub(super) fn check(&self, etag: &str, modified_millis: i64) -> Result<(), StoreError> {
        let is = |condition: &ETagCondition| {
            condition
                .as_etag()
                .is_none_or(|asked| asked.value() == etag)
        };
        let modified_seconds = modified_millis.div_euclid(1000);
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) if !is(condition) => return Err(StoreError::PreconditionFailed),
            (None, Some(since)) if modified_seconds > seconds_of(since) => {
                return Err(StoreError::PreconditionFailed);
            }
            _ => {}
        }
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) if is(condition) => Err(StoreError::NotModified),
            (None, Some(since)) if modified_seconds <= seconds_of(since) => {
                Err(StoreError::NotModified)
            }
            _ => Ok(()),
        }
    }
}

/// Which bytes a read asks for: all, a range, or those of one part.
pub(super) fn asked_bytes(
    facts: &Facts,
    range: Option<&Range>,
    part_number: Option<i32>,
) -> Result<(ops::Range<u64>, bool), StoreError> {
    match (range, part_number) {
        (Some(_), Some(_)) => Err(StoreError::InvalidRequest(
            "Cannot specify both Range header and partNumber query parameter".into(),
        )),
        (Some(range), None) => Ok((
            range
                .check(facts.size)
                .map_err(|_| StoreError::InvalidRange)?,
            true,
        )),
        (None, None) => Ok((0..facts.size, false)),
        (None, Some(number)) => {
            let index = usize::try_from(number)
                .ok()
                .and_then(|number| number.checked_sub(1));
            match index {
                Some(0) if facts.part_sizes.is_empty() => Ok((0..facts.size, true)),
                Some(index) if index < facts.part_sizes.len() => {
                    let start = facts.part_sizes[..index].iter().sum();
                    Ok((start..start + facts.part_sizes[index], true))
                }
                _ => Err(StoreError::InvalidPartNumber),
            }
        }
    }
}

/// There is one version of everything, and S3 calls it `null`.
pub(super) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

pub(super) fn copy_source(source: &CopySource) -> Result<(String, String), StoreError> {
    match source {
        CopySource::Bucket {
            version_id: Some(version),
            ..
        } if version.as_ref() != "null" => Err(StoreError::InvalidArgument(
            "Invalid version id specified".into(),
        )),
        CopySource::Bucket { bucket, key, .. } => Ok((bucket.to_string(), key.to_string())),
        _ => Err(StoreError::NotImplemented(
            "access points are not implemented".into(),
        )),
    }
}

pub(super) fn page_size(asked: Option<i32>, name: &'static str) -> Result<usize, StoreError> {
    match asked {
        None => Ok(MAX_KEYS),
        Some(asked) => usize::try_from(asked)
            .map(|asked| asked.min(MAX_KEYS))
            .map_err(|_| {
                StoreError::InvalidArgument(
                    format!("Argument {name} must be an integer between 0 and 2147483647").into(),
                )
            }),
    }
}

pub(super) fn part_number(number: i32) -> Result<u16, StoreError> {
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_PARTS).contains(number))
        .ok_or(StoreError::InvalidArgument(
            "Part number must be an integer between 1 and 10000, inclusive".into(),
        ))
}

pub(super) fn token_key(token: &str) -> Result<String, StoreError> {
    hex::decode(token)
        .ok()
        .and_then(|key| String::from_utf8(key).ok())
        .ok_or(StoreError::InvalidArgument(
            "The continuation token provided is incorrect".into(),
        ))
}

pub(super) fn too_large(content_length: Option<i64>) -> Result<(), StoreError> {
    match content_length.map(u64::try_from) {
        Some(Ok(length)) if length > MAX_PUT_BYTES => Err(StoreError::EntityTooLarge),
        _ => Ok(()),
    }
}

pub(super) fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        Err(StoreError::InvalidArgument(
            "The key must not be empty".into(),
        ))
    } else {
        Ok(())
    }
}

pub(super) fn seconds_of(timestamp: &Timestamp) -> i64 {
    OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}
