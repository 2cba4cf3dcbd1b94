//! What answers tell: what the store knows turned into s3s's outputs.

use std::ops;

use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use s3s::dto::*;
use s3s::{S3Error, S3Response, S3Result};
use time::OffsetDateTime;

use crate::store::digests::Checksums;
use crate::store::error::StoreError;
use crate::store::index::Entry;
use crate::store::layout::{Facts, Headers};
use crate::store::list::url_encode;

/// Everything belongs to one owner.
const OWNER: &str = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a";
pub(super) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

pub(super) fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

pub(super) fn no_content<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::with_status(output, StatusCode::NO_CONTENT))
}

/// The answers that tell an object's checksums share these fields without sharing a type.
macro_rules! with_checksums {
    (typed $output:ident, $checksums:expr, { $($fields:tt)* }) => {{
        let checksums: Checksums = $checksums;
        let kind = checksum_type(&checksums);
        with_checksums!($output, checksums, { checksum_type: kind, $($fields)* })
    }};
    ($output:ident, $checksums:expr, { $($fields:tt)* }) => {{
        let checksums: Checksums = $checksums;
        $output {
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            $($fields)*
        }
    }};
}
pub(super) use with_checksums;

/// GetObject and HeadObject answer with the same headers.
macro_rules! object_output {
    ($output:ident, $facts:expr, $bytes:expr, $partial:expr, $checksums:expr, $by_part:expr, { $($extra:tt)* }) => {{
        let (facts, checksums): (&Facts, Checksums) = ($facts, $checksums);
        let headers = &facts.headers;
        with_checksums!(typed $output, checksums, {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed($bytes.end - $bytes.start)),
            content_range: content_range(&$bytes, facts, $partial),
            content_type: Some(headers.content_type.clone().unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned())),
            content_encoding: headers.content_encoding.clone(),
            content_language: headers.content_language.clone(),
            content_disposition: headers.content_disposition.clone(),
            cache_control: headers.cache_control.clone(),
            expires: expires_of(headers),
            e_tag: Some(ETag::Strong(facts.etag.clone())),
            last_modified: Some(timestamp(facts.modified_millis)),
            metadata: metadata_of(headers),
            storage_class: storage_class_of(headers),
            website_redirect_location: headers.website_redirect_location.clone(),
            server_side_encryption: headers.server_side_encryption.clone().map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id.clone(),
            bucket_key_enabled: headers.bucket_key_enabled,
            parts_count: $by_part.then(|| i32::try_from(facts.part_sizes.len()).unwrap_or(i32::MAX)).filter(|count| *count > 0),
            $($extra)*
            ..$output::default()
        })
    }};
}

pub(super) use object_output;

/// A 304 carries the validators of what was not sent.
pub(super) fn read_refusal(error: StoreError, facts: &Facts) -> S3Error {
    let unmodified = matches!(error, StoreError::NotModified);
    let mut answer = S3Error::from(error);
    if unmodified {
        let mut headers = HeaderMap::new();
        let modified = OffsetDateTime::from(timestamp(facts.modified_millis));
        let format = time::macros::format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        if let Ok(etag) = ETag::Strong(facts.etag.clone()).to_http_header() {
            headers.insert(ETAG, etag);
        }
        if let Some(modified) = modified
            .format(format)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            headers.insert(LAST_MODIFIED, modified);
        }
        answer.set_headers(headers);
    }
    answer
}

pub(super) fn content_range(
    bytes: &ops::Range<u64>,
    facts: &Facts,
    partial: bool,
) -> Option<String> {
    (partial && !bytes.is_empty())
        .then(|| format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, facts.size))
}

/// S3 returns checksums of the whole object, so only with all of it.
pub(super) fn shown_checksums(
    facts: &Facts,
    mode: Option<&ChecksumMode>,
    whole: bool,
) -> Checksums {
    match mode {
        Some(mode) if whole && mode.as_str().eq_ignore_ascii_case("ENABLED") => {
            facts.checksums.clone()
        }
        _ => Checksums::default(),
    }
}

pub(super) fn checksum_type(checksums: &Checksums) -> Option<ChecksumType> {
    if checksums.is_empty() {
        None
    } else if checksums.composite {
        Some(ChecksumType::from_static(ChecksumType::COMPOSITE))
    } else {
        Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT))
    }
}

pub(super) fn metadata_of(headers: &Headers) -> Option<Metadata> {
    (!headers.user.is_empty()).then(|| headers.user.clone().into_iter().collect())
}

pub(super) fn expires_of(headers: &Headers) -> Option<Timestamp> {
    headers
        .expires_seconds
        .map(|seconds| timestamp(seconds.saturating_mul(1000)))
}

/// The standard class is what S3 does not mention.
pub(super) fn storage_class_of(headers: &Headers) -> Option<StorageClass> {
    headers
        .storage_class
        .clone()
        .filter(|class| class != StorageClass::STANDARD)
        .map(StorageClass::from)
}

pub(super) fn listed_object(
    key: String,
    entry: Entry,
    encode: &dyn Fn(String) -> String,
    with_owner: bool,
) -> Object {
    Object {
        key: Some(encode(key)),
        e_tag: Some(ETag::Strong(entry.etag())),
        size: Some(signed(entry.size)),
        last_modified: Some(timestamp(entry.modified_millis)),
        storage_class: Some(ObjectStorageClass::from_static(
            ObjectStorageClass::STANDARD,
        )),
        owner: with_owner.then(owner),
        ..Object::default()
    }
}

pub(super) fn encoder(
    encoding: Option<&EncodingType>,
) -> Result<impl Fn(String) -> String + use<>, StoreError> {
    let url = match encoding.map(EncodingType::as_str) {
        None => false,
        Some(EncodingType::URL) => true,
        Some(_) => {
            return Err(StoreError::InvalidArgument(
                "Invalid Encoding Method specified in Request".into(),
            ));
        }
    };
    Ok(move |text: String| if url { url_encode(&text) } else { text })
}

pub(super) fn common_prefixes(
    prefixes: Vec<String>,
    encode: &dyn Fn(String) -> String,
) -> Option<CommonPrefixList> {
    (!prefixes.is_empty()).then(|| {
        prefixes
            .into_iter()
            .map(|prefix| CommonPrefix {
                prefix: Some(encode(prefix)),
            })
            .collect()
    })
}

pub(super) fn owner() -> Owner {
    Owner {
        display_name: None,
        id: Some(OWNER.to_owned()),
    }
}

pub(super) fn full_control() -> Vec<Grant> {
    vec![Grant {
        grantee: Some(Grantee {
            display_name: None,
            email_address: None,
            id: Some(OWNER.to_owned()),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }]
}

/// A tagging header as pairs, as encoded.
pub(super) fn tags_of(tagging: &str) -> impl Iterator<Item = &str> {
    tagging.split('&').filter(|pair| !pair.is_empty())
}

pub(super) fn count_tags(tagging: &str) -> i32 {
    i32::try_from(tags_of(tagging).count()).unwrap_or(i32::MAX)
}

pub(super) fn url_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let mut decoded = [0];
        match first {
            b'+' => out.push(b' '),
            b'%' if tail.len() >= 2 && hex::decode_to_slice(&tail[..2], &mut decoded).is_ok() => {
                out.push(decoded[0]);
                rest = &tail[2..];
            }
            other => out.push(*other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn timestamp(millis: i64) -> Timestamp {
    let nanos = i128::from(millis) * 1_000_000;
    Timestamp::from(
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    )
}

pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
