//! The S3 operations, translated: s3s's inputs to calls on the store, what the store knows to s3s's outputs.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{ETAG, LAST_MODIFIED};
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use time::OffsetDateTime;

use super::body::{FileBody, Trailers, blocking, discard, receive};
use super::digests::{Algorithm, Checksums, Claims};
use super::error::StoreError;
use super::index::Entry;
use super::layout::{Facts, Headers, UploadFacts, VERSION};
use super::list::{self, url_encode};
use super::multipart::{MAX_PARTS, NamedPart, Whole};
use super::objects::{MAX_PUT_BYTES, Precondition, copy_range};
use super::{Bucket, Store};
use crate::clock::WallMillis;

/// S3's limit for the names and values of user metadata together.
const MAX_USER_METADATA_BYTES: usize = 2048;
const MAX_KEYS: usize = 1000;
/// Everything belongs to one owner.
const OWNER: &str = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a";
const DEFAULT_REGION: &str = "us-east-1";
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

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

pub struct Service(pub Store);

impl Service {
    fn admit(
        &self,
        input: &mut PutObjectInput,
    ) -> Result<(Arc<Bucket>, Precondition, Headers), StoreError> {
        check_key(&input.key)?;
        too_large(input.content_length)?;
        if input.write_offset_bytes.is_some() {
            return Err(StoreError::NotImplemented(
                "appending is not implemented".into(),
            ));
        }
        let precondition = precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let headers: Headers = headers_of!(input);
        check_user_metadata(&headers)?;
        let bucket = self.0.bucket(&input.bucket)?;
        precondition.check(bucket.entry(&input.key))?;
        Ok((bucket, precondition, headers))
    }

    async fn admit_part(
        &self,
        input: &UploadPartInput,
    ) -> Result<(Arc<Bucket>, UploadFacts, u16), StoreError> {
        too_large(input.content_length)?;
        let number = part_number(input.part_number)?;
        let (key, id) = (input.key.clone(), input.upload_id.clone());
        let (bucket, upload) = self
            .on(&input.bucket, move |_, bucket| {
                Ok((bucket.clone(), bucket.upload(&id, &key)?))
            })
            .await?;
        Ok((bucket, upload, number))
    }

    /// Blocking work on a bucket.
    async fn on<T: Send + 'static>(
        &self,
        bucket: &str,
        work: impl FnOnce(&Store, &Arc<Bucket>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, bucket) = (self.0.clone(), bucket.to_owned());
        blocking(&self.0, move || work(&store, &store.bucket(&bucket)?)).await
    }
}

fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn owner() -> Owner {
    Owner {
        display_name: None,
        id: Some(OWNER.to_owned()),
    }
}

fn full_control() -> Vec<Grant> {
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

fn timestamp(millis: i64) -> Timestamp {
    let nanos = i128::from(millis) * 1_000_000;
    Timestamp::from(
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    )
}

fn seconds_of(timestamp: &Timestamp) -> i64 {
    OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The body's claims and trailers, left in the request's extensions by the adapter.
fn claims_of<T>(request: &S3Request<T>) -> (Claims, Trailers) {
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

fn algorithm_of(name: Option<&ChecksumAlgorithm>) -> Result<Option<Algorithm>, StoreError> {
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

fn precondition(
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

/// The conditions of a read; RFC 9110, section 13.2.2, gives their order.
#[derive(Default)]
struct ReadConditions<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    fn check(&self, etag: &str, modified_millis: i64) -> Result<(), StoreError> {
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

/// A 304 carries the validators of what was not sent.
fn read_refusal(error: StoreError, facts: &Facts) -> S3Error {
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

/// Which bytes a read asks for: all, a range, or those of one part.
fn asked_bytes(
    facts: &Facts,
    range: Option<&Range>,
    part_number: Option<i32>,
) -> Result<(std::ops::Range<u64>, bool), StoreError> {
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

fn content_range(bytes: &std::ops::Range<u64>, facts: &Facts, partial: bool) -> Option<String> {
    (partial && !bytes.is_empty())
        .then(|| format!("bytes {}-{}/{}", bytes.start, bytes.end - 1, facts.size))
}

/// S3 returns checksums of the whole object, so only with all of it.
fn shown_checksums(facts: &Facts, mode: Option<&ChecksumMode>, whole: bool) -> Checksums {
    match mode {
        Some(mode) if whole && mode.as_str().eq_ignore_ascii_case("ENABLED") => {
            facts.checksums.clone()
        }
        _ => Checksums::default(),
    }
}

fn checksum_type(checksums: &Checksums) -> Option<ChecksumType> {
    if checksums.is_empty() {
        None
    } else if checksums.composite {
        Some(ChecksumType::from_static(ChecksumType::COMPOSITE))
    } else {
        Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT))
    }
}

fn metadata_of(headers: &Headers) -> Option<Metadata> {
    (!headers.user.is_empty()).then(|| headers.user.clone().into_iter().collect())
}

fn expires_of(headers: &Headers) -> Option<Timestamp> {
    headers
        .expires_seconds
        .map(|seconds| timestamp(seconds.saturating_mul(1000)))
}

/// The standard class is what S3 does not mention.
fn storage_class_of(headers: &Headers) -> Option<StorageClass> {
    headers
        .storage_class
        .clone()
        .filter(|class| class != StorageClass::STANDARD)
        .map(StorageClass::from)
}

fn check_user_metadata(headers: &Headers) -> Result<(), StoreError> {
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

/// GetObject and HeadObject answer with the same headers.
macro_rules! object_output {
    ($output:ident, $facts:expr, $bytes:expr, $partial:expr, $checksums:expr, $by_part:expr, { $($extra:tt)* }) => {{
        let (facts, checksums): (&Facts, Checksums) = ($facts, $checksums);
        let headers = &facts.headers;
        $output {
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
            checksum_type: checksum_type(&checksums),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            parts_count: $by_part.then(|| i32::try_from(facts.part_sizes.len()).unwrap_or(i32::MAX)).filter(|count| *count > 0),
            $($extra)*
            ..$output::default()
        }
    }};
}

fn listed_object(
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

fn encoder(
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

fn common_prefixes(
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

fn page_size(asked: Option<i32>, name: &'static str) -> Result<usize, StoreError> {
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

fn part_number(number: i32) -> Result<u16, StoreError> {
    u16::try_from(number)
        .ok()
        .filter(|number| (1..=MAX_PARTS).contains(number))
        .ok_or(StoreError::InvalidArgument(
            "Part number must be an integer between 1 and 10000, inclusive".into(),
        ))
}

fn copy_source(source: &CopySource) -> Result<(String, String), StoreError> {
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

fn too_large(content_length: Option<i64>) -> Result<(), StoreError> {
    match content_length.map(u64::try_from) {
        Some(Ok(length)) if length > MAX_PUT_BYTES => Err(StoreError::EntityTooLarge),
        _ => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() {
        Err(StoreError::InvalidArgument(
            "The key must not be empty".into(),
        ))
    } else {
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let CreateBucketInput {
            bucket,
            create_bucket_configuration,
            ..
        } = req.input;
        let location = create_bucket_configuration
            .and_then(|configuration| configuration.location_constraint)
            .map(|location| location.as_str().to_owned())
            .filter(|location| !location.is_empty() && location != DEFAULT_REGION);
        let (store, name, elsewhere) = (self.0.clone(), bucket.clone(), location.is_some());
        match blocking(&self.0, move || store.create_bucket(&name, location)).await {
            // us-east-1 answers the owner's second request like the first.
            Err(StoreError::BucketAlreadyOwnedByYou) if !elsewhere => {}
            result => result?,
        }
        ok(CreateBucketOutput {
            location: Some(format!("/{bucket}")),
        })
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        let store = self.0.clone();
        blocking(&self.0, move || store.delete_bucket(&req.input.bucket)).await?;
        Ok(S3Response::with_status(
            DeleteBucketOutput {},
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let facts = self.0.bucket(&req.input.bucket)?.facts();
        ok(HeadBucketOutput {
            bucket_region: Some(facts.location.unwrap_or_else(|| DEFAULT_REGION.to_owned())),
            ..HeadBucketOutput::default()
        })
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let ListBucketsInput {
            prefix,
            max_buckets,
            continuation_token,
            ..
        } = req.input;
        let starts = prefix.clone().unwrap_or_default();
        let after = continuation_token.unwrap_or_default();
        let max = max_buckets
            .and_then(|max| usize::try_from(max).ok())
            .filter(|max| *max > 0)
            .unwrap_or(10_000);
        let mut names = self.0.bucket_names();
        names.retain(|(name, _)| name.starts_with(&starts) && *name > after);
        let more = names.len() > max;
        names.truncate(max);
        let continuation_token = names.last().filter(|_| more).map(|(name, _)| name.clone());
        let buckets = names.into_iter().map(|(name, facts)| Bucket_ {
            name: Some(name),
            creation_date: Some(timestamp(facts.created_millis)),
            bucket_region: None,
        });
        ok(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            owner: Some(owner()),
            continuation_token,
            prefix,
        })
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let facts = self.0.bucket(&req.input.bucket)?.facts();
        ok(GetBucketLocationOutput {
            location_constraint: facts.location.map(BucketLocationConstraint::from),
        })
    }

    async fn get_bucket_acl(
        &self,
        req: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        self.0.bucket(&req.input.bucket)?;
        ok(GetBucketAclOutput {
            grants: Some(full_control()),
            owner: Some(owner()),
        })
    }

    async fn get_object_acl(
        &self,
        req: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let GetObjectAclInput { bucket, key, .. } = req.input;
        self.on(&bucket, move |_, bucket| bucket.open(&key)).await?;
        ok(GetObjectAclOutput {
            grants: Some(full_control()),
            owner: Some(owner()),
            request_charged: None,
        })
    }

    async fn get_bucket_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        self.0.bucket(&req.input.bucket)?;
        ok(GetBucketVersioningOutput::default())
    }

    async fn put_bucket_policy(
        &self,
        req: S3Request<PutBucketPolicyInput>,
    ) -> S3Result<S3Response<PutBucketPolicyOutput>> {
        let PutBucketPolicyInput { bucket, policy, .. } = req.input;
        if serde_json::from_str::<serde::de::IgnoredAny>(&policy).is_err() {
            return Err(s3_error!(
                MalformedPolicy,
                "Policies must be valid JSON and the first byte must be '{{'"
            ));
        }
        self.on(&bucket, move |store, bucket| {
            bucket.change_facts(store, |facts| facts.policy = Some(policy))
        })
        .await?;
        Ok(S3Response::with_status(
            PutBucketPolicyOutput {},
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn get_bucket_policy(
        &self,
        req: S3Request<GetBucketPolicyInput>,
    ) -> S3Result<S3Response<GetBucketPolicyOutput>> {
        match self.0.bucket(&req.input.bucket)?.facts().policy {
            Some(policy) => ok(GetBucketPolicyOutput {
                policy: Some(policy),
            }),
            None => Err(s3_error!(
                NoSuchBucketPolicy,
                "The bucket policy does not exist"
            )),
        }
    }

    async fn delete_bucket_policy(
        &self,
        req: S3Request<DeleteBucketPolicyInput>,
    ) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
        self.on(&req.input.bucket, |store, bucket| {
            bucket.change_facts(store, |facts| facts.policy = None)
        })
        .await?;
        Ok(S3Response::with_status(
            DeleteBucketPolicyOutput {},
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn put_bucket_tagging(
        &self,
        req: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        let PutBucketTaggingInput {
            bucket, tagging, ..
        } = req.input;
        let tags = tagging
            .tag_set
            .into_iter()
            .map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()));
        let tags = tags.collect();
        self.on(&bucket, move |store, bucket| {
            bucket.change_facts(store, |facts| facts.tags = Some(tags))
        })
        .await?;
        Ok(S3Response::with_status(
            PutBucketTaggingOutput {},
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn get_bucket_tagging(
        &self,
        req: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        match self.0.bucket(&req.input.bucket)?.facts().tags {
            Some(tags) => ok(GetBucketTaggingOutput {
                tag_set: tags
                    .into_iter()
                    .map(|(key, value)| Tag {
                        key: Some(key),
                        value: Some(value),
                    })
                    .collect(),
            }),
            None => Err(s3_error!(NoSuchTagSet, "The TagSet does not exist")),
        }
    }

    async fn delete_bucket_tagging(
        &self,
        req: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        self.on(&req.input.bucket, |store, bucket| {
            bucket.change_facts(store, |facts| facts.tags = None)
        })
        .await?;
        Ok(S3Response::with_status(
            DeleteBucketTaggingOutput {},
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn put_object(
        &self,
        mut req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let (claims, trailers) = claims_of(&req);
        let input = &mut req.input;
        // Refused before the body is written where that can be; the precondition is decided again at the commit.
        let admitted = self.admit(input);
        if admitted.is_err() {
            discard(&mut input.body).await;
        }
        let (bucket, precondition, headers) = admitted?;
        let key = std::mem::take(&mut input.key);
        let facts = receive(
            self.0.clone(),
            input.body.take(),
            claims,
            trailers,
            move |incoming, claims| {
                bucket.commit(incoming.seal(&claims, key, headers)?, &precondition)
            },
        )
        .await?;
        let Facts {
            etag,
            checksums,
            headers,
            ..
        } = facts;
        ok(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_type: checksum_type(&checksums),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            server_side_encryption: headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id,
            ssekms_encryption_context: headers.kms_encryption_context,
            bucket_key_enabled: headers.bucket_key_enabled,
            ..PutObjectOutput::default()
        })
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput {
            bucket,
            key,
            if_match,
            if_none_match,
            if_modified_since,
            if_unmodified_since,
            range,
            part_number,
            checksum_mode,
            version_id,
            ..
        } = req.input;
        check_version(version_id.as_deref())?;
        let (file, facts) = self.on(&bucket, move |_, bucket| bucket.open(&key)).await?;
        let conditions = ReadConditions {
            if_match: if_match.as_ref(),
            if_none_match: if_none_match.as_ref(),
            if_modified_since: if_modified_since.as_ref(),
            if_unmodified_since: if_unmodified_since.as_ref(),
        };
        conditions
            .check(&facts.etag, facts.modified_millis)
            .map_err(|error| read_refusal(error, &facts))?;
        let (bytes, partial) = asked_bytes(&facts, range.as_ref(), part_number)?;
        let checksums = shown_checksums(&facts, checksum_mode.as_ref(), !partial);
        let wanted = bytes.clone();
        let body = blocking(&self.0, move || {
            FileBody::open(file, wanted).map_err(StoreError::io("read an object"))
        })
        .await?;
        let tags = facts.headers.tagging.as_deref().map(count_tags);
        ok(
            object_output!(GetObjectOutput, &facts, bytes, partial, checksums, part_number.is_some(), {
                body: Some(body),
                tag_count: tags,
            }),
        )
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput {
            bucket,
            key,
            if_match,
            if_none_match,
            if_modified_since,
            if_unmodified_since,
            range,
            part_number,
            checksum_mode,
            version_id,
            ..
        } = req.input;
        check_version(version_id.as_deref())?;
        let (_, facts) = self.on(&bucket, move |_, bucket| bucket.open(&key)).await?;
        let conditions = ReadConditions {
            if_match: if_match.as_ref(),
            if_none_match: if_none_match.as_ref(),
            if_modified_since: if_modified_since.as_ref(),
            if_unmodified_since: if_unmodified_since.as_ref(),
        };
        conditions
            .check(&facts.etag, facts.modified_millis)
            .map_err(|error| read_refusal(error, &facts))?;
        let (bytes, partial) = asked_bytes(&facts, range.as_ref(), part_number)?;
        let checksums = shown_checksums(&facts, checksum_mode.as_ref(), !partial);
        ok(object_output!(
            HeadObjectOutput,
            &facts,
            bytes,
            partial,
            checksums,
            part_number.is_some(),
            {}
        ))
    }

    async fn get_object_tagging(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let GetObjectTaggingInput { bucket, key, .. } = req.input;
        let (_, facts) = self.on(&bucket, move |_, bucket| bucket.open(&key)).await?;
        let tags = facts.headers.tagging.unwrap_or_default();
        let tag_set = tags.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Tag {
                key: Some(url_decode(key)),
                value: Some(url_decode(value)),
            }
        });
        ok(GetObjectTaggingOutput {
            tag_set: tag_set.collect(),
            version_id: None,
        })
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput {
            bucket,
            key,
            if_match,
            version_id,
            ..
        } = req.input;
        check_version(version_id.as_deref())?;
        let condition = precondition(if_match.as_ref(), None)?;
        let results = self
            .on(&bucket, move |_, bucket| {
                bucket.delete(vec![(key, condition)])
            })
            .await?;
        for result in results {
            result?;
        }
        Ok(S3Response::with_status(
            DeleteObjectOutput::default(),
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = req.input;
        if delete.objects.is_empty() || delete.objects.len() > MAX_KEYS {
            return Err(s3_error!(
                MalformedXML,
                "The XML you provided was not well-formed or did not validate against our published schema"
            ));
        }
        let quiet = delete.quiet.unwrap_or(false);
        let keys: Vec<_> = delete
            .objects
            .into_iter()
            .map(|object| {
                let condition =
                    object
                        .e_tag
                        .map_or(Precondition::None, |etag| match etag.value() {
                            "*" => Precondition::Present,
                            value => Precondition::Etag(value.to_owned()),
                        });
                (object.key, condition)
            })
            .collect();
        let asked: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
        let results = self
            .on(&bucket, move |_, bucket| bucket.delete(keys))
            .await?;
        let mut output = DeleteObjectsOutput::default();
        for (key, result) in asked.into_iter().zip(results) {
            match result {
                Ok(()) if quiet => {}
                Ok(()) => output.deleted.get_or_insert_default().push(DeletedObject {
                    key: Some(key),
                    ..DeletedObject::default()
                }),
                Err(error) => {
                    let message = error.to_string();
                    let code = S3Error::from(error).code().as_str().to_owned();
                    let error = Error {
                        code: Some(code),
                        key: Some(key),
                        message: Some(message),
                        version_id: None,
                    };
                    output.errors.get_or_insert_default().push(error);
                }
            }
        }
        ok(output)
    }

    async fn copy_object(
        &self,
        mut req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = &mut req.input;
        check_key(&input.key)?;
        let (source_bucket, source_key) = copy_source(&input.copy_source)?;
        let replace = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let replace_tags = input
            .tagging_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == TaggingDirective::REPLACE);
        let headers: Headers = headers_of!(input);
        check_user_metadata(&headers)?;
        let same = source_bucket == input.bucket && source_key == input.key;
        let changes = replace
            || headers.storage_class.is_some()
            || headers.server_side_encryption.is_some()
            || headers.website_redirect_location.is_some();
        if same && !changes {
            return Err(s3_error!(
                InvalidRequest,
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
            ));
        }
        let algorithm = algorithm_of(input.checksum_algorithm.as_ref())?;
        let input = req.input;
        let store = self.0.clone();
        let facts = blocking(&self.0, move || {
            let target = store.bucket(&input.bucket)?;
            let (file, source) = store.bucket(&source_bucket)?.open(&source_key)?;
            let conditions = ReadConditions {
                if_match: input.copy_source_if_match.as_ref(),
                if_none_match: input.copy_source_if_none_match.as_ref(),
                if_modified_since: input.copy_source_if_modified_since.as_ref(),
                if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
            };
            conditions
                .check(&source.etag, source.modified_millis)
                .map_err(|_| StoreError::PreconditionFailed)?;
            let headers = copied_headers(source.headers, headers, replace, replace_tags);
            let wanted = algorithm
                .into_iter()
                .chain(source.checksums.algorithms())
                .collect();
            let claims = Claims {
                wanted,
                ..Claims::default()
            };
            let incoming = copy_range(&store, &file, 0..source.size, &claims)?;
            target.commit(
                incoming.seal(&claims, input.key, headers)?,
                &Precondition::None,
            )
        })
        .await?;
        let Facts {
            etag,
            checksums,
            headers,
            modified_millis,
            ..
        } = facts;
        ok(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(timestamp(modified_millis)),
                checksum_type: checksum_type(&checksums),
                checksum_crc32: checksums.crc32,
                checksum_crc32c: checksums.crc32c,
                checksum_crc64nvme: checksums.crc64nvme,
                checksum_sha1: checksums.sha1,
                checksum_sha256: checksums.sha256,
            }),
            server_side_encryption: headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id,
            ssekms_encryption_context: headers.kms_encryption_context,
            bucket_key_enabled: headers.bucket_key_enabled,
            ..CopyObjectOutput::default()
        })
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let ListObjectsInput {
            bucket,
            delimiter,
            encoding_type,
            marker,
            max_keys,
            prefix,
            ..
        } = req.input;
        let encode = encoder(encoding_type.as_ref())?;
        let max_keys = page_size(max_keys, "maxKeys")?;
        let query = list::Query {
            prefix: prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone(),
            after: marker.clone().unwrap_or_default(),
            max_keys,
        };
        let page = self
            .on(&bucket, move |_, bucket| Ok(bucket.list(&query)))
            .await?;
        let truncated = page.next.is_some();
        ok(ListObjectsOutput {
            name: Some(bucket),
            // Said only with a delimiter: otherwise the last key is the marker.
            next_marker: page.next.filter(|_| delimiter.is_some()).map(&encode),
            is_truncated: Some(truncated),
            contents: Some(
                page.contents
                    .into_iter()
                    .map(|(key, entry)| listed_object(key, entry, &encode, true))
                    .collect(),
            ),
            common_prefixes: common_prefixes(page.common_prefixes, &encode),
            prefix: Some(encode(prefix.unwrap_or_default())),
            marker: Some(encode(marker.unwrap_or_default())),
            delimiter: delimiter.map(&encode),
            max_keys: i32::try_from(max_keys).ok(),
            encoding_type,
            request_charged: None,
        })
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let ListObjectsV2Input {
            bucket,
            continuation_token,
            delimiter,
            encoding_type,
            fetch_owner,
            max_keys,
            prefix,
            start_after,
            ..
        } = req.input;
        let encode = encoder(encoding_type.as_ref())?;
        let max_keys = page_size(max_keys, "max-keys")?;
        let after = match &continuation_token {
            None => start_after.clone().unwrap_or_default(),
            Some(token) => token_key(token)?,
        };
        let query = list::Query {
            prefix: prefix.clone().unwrap_or_default(),
            delimiter: delimiter.clone(),
            after,
            max_keys,
        };
        let page = self
            .on(&bucket, move |_, bucket| Ok(bucket.list(&query)))
            .await?;
        let with_owner = fetch_owner.unwrap_or(false);
        let count = page.contents.len() + page.common_prefixes.len();
        ok(ListObjectsV2Output {
            name: Some(bucket),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(hex::encode),
            contents: Some(
                page.contents
                    .into_iter()
                    .map(|(key, entry)| listed_object(key, entry, &encode, with_owner))
                    .collect(),
            ),
            common_prefixes: common_prefixes(page.common_prefixes, &encode),
            key_count: i32::try_from(count).ok(),
            max_keys: i32::try_from(max_keys).ok(),
            prefix: Some(encode(prefix.unwrap_or_default())),
            delimiter: delimiter.map(&encode),
            start_after: start_after.map(&encode),
            continuation_token,
            encoding_type,
            request_charged: None,
        })
    }

    async fn create_multipart_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = &mut req.input;
        check_key(&input.key)?;
        let headers: Headers = headers_of!(input);
        check_user_metadata(&headers)?;
        let algorithm = algorithm_of(input.checksum_algorithm.as_ref())?;
        let full_object = match input.checksum_type.as_ref().map(ChecksumType::as_str) {
            Some(kind) => kind == ChecksumType::FULL_OBJECT,
            None => algorithm == Some(Algorithm::Crc64nvme),
        };
        let facts = UploadFacts {
            version: VERSION,
            key: input.key.clone(),
            initiated_millis: WallMillis::now().0,
            headers: headers.clone(),
            checksum_algorithm: algorithm,
            full_object_checksum: full_object,
        };
        let id = self
            .on(&input.bucket, move |store, bucket| {
                bucket.create_upload(store, &facts)
            })
            .await?;
        let kind = if full_object {
            ChecksumType::FULL_OBJECT
        } else {
            ChecksumType::COMPOSITE
        };
        ok(CreateMultipartUploadOutput {
            bucket: Some(req.input.bucket),
            key: Some(req.input.key),
            upload_id: Some(id),
            checksum_algorithm: algorithm
                .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: algorithm.map(|_| ChecksumType::from_static(kind)),
            server_side_encryption: headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id,
            ssekms_encryption_context: headers.kms_encryption_context,
            bucket_key_enabled: headers.bucket_key_enabled,
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let (mut claims, trailers) = claims_of(&req);
        let admitted = self.admit_part(&req.input).await;
        if admitted.is_err() {
            discard(&mut req.input.body).await;
        }
        let (bucket, upload, number) = admitted?;
        let (key, id) = (req.input.key, req.input.upload_id);
        claims.wanted.extend(upload.checksum_algorithm);
        let facts = receive(
            self.0.clone(),
            req.input.body.take(),
            claims,
            trailers,
            move |incoming, claims| {
                bucket.put_part(
                    &id,
                    number,
                    incoming.seal(&claims, key, Headers::default())?,
                )
            },
        )
        .await?;
        let Facts {
            etag, checksums, ..
        } = facts;
        ok(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            server_side_encryption: upload
                .headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: upload.headers.kms_key_id,
            ..UploadPartOutput::default()
        })
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = req.input;
        let number = part_number(input.part_number)?;
        let (source_bucket, source_key) = copy_source(&input.copy_source)?;
        let range = match input.copy_source_range.as_deref().map(Range::parse) {
            None => None,
            Some(Ok(range)) => Some(range),
            Some(Err(_)) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "The x-amz-copy-source-range value must be of the form bytes=first-last"
                ));
            }
        };
        let store = self.0.clone();
        let facts = blocking(&self.0, move || {
            let target = store.bucket(&input.bucket)?;
            let upload = target.upload(&input.upload_id, &input.key)?;
            let (file, source) = store.bucket(&source_bucket)?.open(&source_key)?;
            let conditions = ReadConditions {
                if_match: input.copy_source_if_match.as_ref(),
                if_none_match: input.copy_source_if_none_match.as_ref(),
                if_modified_since: input.copy_source_if_modified_since.as_ref(),
                if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
            };
            conditions
                .check(&source.etag, source.modified_millis)
                .map_err(|_| StoreError::PreconditionFailed)?;
            let (bytes, _) = asked_bytes(&source, range.as_ref(), None)?;
            let claims = Claims {
                wanted: upload.checksum_algorithm.into_iter().collect(),
                ..Claims::default()
            };
            let incoming = copy_range(&store, &file, bytes, &claims)?;
            target.put_part(
                &input.upload_id,
                number,
                incoming.seal(&claims, input.key, Headers::default())?,
            )
        })
        .await?;
        let Facts {
            etag,
            checksums,
            modified_millis,
            ..
        } = facts;
        ok(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult {
                e_tag: Some(ETag::Strong(etag)),
                last_modified: Some(timestamp(modified_millis)),
                checksum_crc32: checksums.crc32,
                checksum_crc32c: checksums.crc32c,
                checksum_crc64nvme: checksums.crc64nvme,
                checksum_sha1: checksums.sha1,
                checksum_sha256: checksums.sha256,
            }),
            ..UploadPartCopyOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let named = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let named = named.into_iter().map(|part| {
            Ok(NamedPart {
                number: part_number(part.part_number.unwrap_or_default())?,
                etag: part
                    .e_tag
                    .map(|etag| etag.value().trim_matches('"').to_owned())
                    .unwrap_or_default(),
                checksums: Checksums {
                    crc32: part.checksum_crc32,
                    crc32c: part.checksum_crc32c,
                    crc64nvme: part.checksum_crc64nvme,
                    sha1: part.checksum_sha1,
                    sha256: part.checksum_sha256,
                    composite: false,
                },
            })
        });
        let named = named.collect::<Result<Vec<_>, StoreError>>()?;
        let whole = Whole {
            precondition: precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?,
            checksums: Checksums {
                crc32: input.checksum_crc32,
                crc32c: input.checksum_crc32c,
                crc64nvme: input.checksum_crc64nvme,
                sha1: input.checksum_sha1,
                sha256: input.checksum_sha256,
                composite: false,
            },
            size: input
                .mpu_object_size
                .and_then(|size| u64::try_from(size).ok()),
        };
        let (id, key) = (input.upload_id, input.key.clone());
        let facts = self
            .on(&input.bucket, move |store, bucket| {
                bucket.complete_upload(store, &id, &key, &named, &whole)
            })
            .await?;
        let Facts {
            etag,
            checksums,
            headers,
            ..
        } = facts;
        ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, url_encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            checksum_type: checksum_type(&checksums),
            checksum_crc32: checksums.crc32,
            checksum_crc32c: checksums.crc32c,
            checksum_crc64nvme: checksums.crc64nvme,
            checksum_sha1: checksums.sha1,
            checksum_sha256: checksums.sha256,
            server_side_encryption: headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id,
            bucket_key_enabled: headers.bucket_key_enabled,
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let AbortMultipartUploadInput {
            bucket,
            key,
            upload_id,
            ..
        } = req.input;
        self.on(&bucket, move |store, bucket| {
            bucket.abort_upload(store, &upload_id, &key)
        })
        .await?;
        Ok(S3Response::with_status(
            AbortMultipartUploadOutput::default(),
            http::StatusCode::NO_CONTENT,
        ))
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let ListPartsInput {
            bucket,
            key,
            upload_id,
            max_parts,
            part_number_marker,
            ..
        } = req.input;
        let max = page_size(max_parts, "max-parts")?;
        let after = u16::try_from(part_number_marker.unwrap_or(0)).unwrap_or(0);
        let (id, wanted_key) = (upload_id.clone(), key.clone());
        let (upload, parts, more) = self
            .on(&bucket, move |_, bucket| {
                let upload = bucket.upload(&id, &wanted_key)?;
                let (parts, more) = bucket.parts(&id, after, max)?;
                Ok((upload, parts, more))
            })
            .await?;
        let last = parts.last().map(|(number, _)| i32::from(*number));
        let parts = parts.into_iter().map(|(number, facts)| Part {
            part_number: Some(i32::from(number)),
            size: Some(signed(facts.size)),
            e_tag: Some(ETag::Strong(facts.etag)),
            last_modified: Some(timestamp(facts.modified_millis)),
            checksum_crc32: facts.checksums.crc32,
            checksum_crc32c: facts.checksums.crc32c,
            checksum_crc64nvme: facts.checksums.crc64nvme,
            checksum_sha1: facts.checksums.sha1,
            checksum_sha256: facts.checksums.sha256,
        });
        ok(ListPartsOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            parts: Some(parts.collect()),
            is_truncated: Some(more),
            max_parts: i32::try_from(max).ok(),
            part_number_marker: Some(i32::from(after)),
            next_part_number_marker: last.filter(|_| more),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            checksum_algorithm: upload
                .checksum_algorithm
                .map(|algorithm| ChecksumAlgorithm::from_static(algorithm.name())),
            ..ListPartsOutput::default()
        })
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let ListMultipartUploadsInput {
            bucket,
            prefix,
            delimiter,
            encoding_type,
            key_marker,
            upload_id_marker,
            max_uploads,
            ..
        } = req.input;
        if delimiter
            .as_ref()
            .is_some_and(|delimiter| !delimiter.is_empty())
        {
            return Err(s3_error!(
                NotImplemented,
                "ListMultipartUploads with a delimiter is not implemented"
            ));
        }
        let encode = encoder(encoding_type.as_ref())?;
        let max = page_size(max_uploads, "max-uploads")?;
        let starts = prefix.clone().unwrap_or_default();
        let after = (
            key_marker.clone().unwrap_or_default(),
            upload_id_marker.clone(),
        );
        let mut uploads = self.on(&bucket, |_, bucket| bucket.uploads()).await?;
        uploads.retain(|(id, facts)| {
            let above = match (&after.0, &after.1) {
                (key, Some(marker)) if *key == facts.key => id > marker,
                (key, _) => facts.key > *key,
            };
            facts.key.starts_with(&starts) && (above || after.0.is_empty())
        });
        let more = uploads.len() > max;
        uploads.truncate(max);
        let last = uploads
            .last()
            .filter(|_| more)
            .map(|(id, facts)| (id.clone(), facts.key.clone()));
        let uploads = uploads.into_iter().map(|(id, facts)| MultipartUpload {
            key: Some(encode(facts.key)),
            upload_id: Some(id),
            initiated: Some(timestamp(facts.initiated_millis)),
            owner: Some(owner()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..MultipartUpload::default()
        });
        let uploads = uploads.collect();
        ok(ListMultipartUploadsOutput {
            bucket: Some(bucket),
            uploads: Some(uploads),
            is_truncated: Some(more),
            max_uploads: i32::try_from(max).ok(),
            next_key_marker: last.as_ref().map(|(_, key)| encode(key.clone())),
            next_upload_id_marker: last.map(|(id, _)| id),
            prefix: prefix.map(&encode),
            key_marker: key_marker.map(&encode),
            upload_id_marker,
            encoding_type,
            ..ListMultipartUploadsOutput::default()
        })
    }
}

/// The name is taken by the store's own type.
type Bucket_ = s3s::dto::Bucket;

fn copied_headers(source: Headers, asked: Headers, replace: bool, replace_tags: bool) -> Headers {
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

/// There is one version of everything, and S3 calls it `null`.
fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

fn count_tags(tagging: &str) -> i32 {
    i32::try_from(tagging.split('&').filter(|pair| !pair.is_empty()).count()).unwrap_or(i32::MAX)
}

fn token_key(token: &str) -> Result<String, StoreError> {
    hex::decode(token)
        .ok()
        .and_then(|key| String::from_utf8(key).ok())
        .ok_or(StoreError::InvalidArgument(
            "The continuation token provided is incorrect".into(),
        ))
}

fn url_decode(text: &str) -> String {
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
