//! The S3 operations, translated: s3s's inputs to calls on the store, what the store knows to s3s's outputs.

mod asked;
mod told;

use std::fs::File;
use std::ops;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use self::asked::*;
use self::told::*;
use super::body::{FileBody, blocking, discard, receive};
use super::digests::{Algorithm, Checksums, Claims};
use super::error::StoreError;
use super::layout::{Facts, Headers, UploadFacts, VERSION};
use super::list::{self, url_encode};
use super::multipart::{NamedPart, Whole};
use super::objects::{Precondition, copy_range};
use super::{Bucket, Store};
use crate::clock::WallMillis;

const DEFAULT_REGION: &str = "us-east-1";

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

    /// The object that is to be read, if its conditions hold, and which of its bytes.
    async fn find(&self, asked: Reading) -> S3Result<Found> {
        check_version(asked.version_id.as_deref())?;
        let key = asked.key.clone();
        let opened = self.on(&asked.bucket, move |_, bucket| bucket.open(&key));
        let (file, facts) = opened.await?;
        let conditions = asked.conditions();
        conditions
            .check(&facts.etag, facts.modified_millis)
            .map_err(|error| read_refusal(error, &facts))?;
        let (bytes, partial) = asked_bytes(&facts, asked.range.as_ref(), asked.part_number)?;
        let checksums = shown_checksums(&facts, asked.checksum_mode.as_ref(), !partial);
        Ok(Found {
            file,
            facts,
            bytes,
            partial,
            checksums,
            by_part: asked.part_number.is_some(),
        })
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

/// What a read is answered with.
struct Found {
    file: File,
    facts: Facts,
    bytes: ops::Range<u64>,
    /// Fewer than all were asked for.
    partial: bool,
    checksums: Checksums,
    by_part: bool,
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
        no_content(DeleteBucketOutput {})
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
        no_content(PutBucketPolicyOutput {})
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
        no_content(DeleteBucketPolicyOutput {})
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
        no_content(PutBucketTaggingOutput {})
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
        no_content(DeleteBucketTaggingOutput {})
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
        ok(with_checksums!(typed PutObjectOutput, checksums, {
            e_tag: Some(ETag::Strong(etag)),
            server_side_encryption: headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: headers.kms_key_id,
            ssekms_encryption_context: headers.kms_encryption_context,
            bucket_key_enabled: headers.bucket_key_enabled,
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let Found {
            file,
            facts,
            bytes,
            partial,
            checksums,
            by_part,
        } = self.find(reading_of!(req.input)).await?;
        let wanted = bytes.clone();
        let body = blocking(&self.0, move || {
            FileBody::open(file, wanted).map_err(StoreError::io("read an object"))
        })
        .await?;
        let tags = facts.headers.tagging.as_deref().map(count_tags);
        ok(
            object_output!(GetObjectOutput, &facts, bytes, partial, checksums, by_part, {
                body: Some(body),
                tag_count: tags,
            }),
        )
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let Found {
            file: _,
            facts,
            bytes,
            partial,
            checksums,
            by_part,
        } = self.find(reading_of!(req.input)).await?;
        ok(object_output!(
            HeadObjectOutput,
            &facts,
            bytes,
            partial,
            checksums,
            by_part,
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
        let tag_set = tags_of(&tags).map(|pair| {
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
        no_content(DeleteObjectOutput::default())
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
            let conditions = source_conditions_of!(input);
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
            copy_object_result: Some(with_checksums!(typed CopyObjectResult, checksums, {
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(timestamp(modified_millis)),
            })),
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
        ok(with_checksums!(UploadPartOutput, checksums, {
            e_tag: Some(ETag::Strong(etag)),
            server_side_encryption: upload
                .headers
                .server_side_encryption
                .map(ServerSideEncryption::from),
            ssekms_key_id: upload.headers.kms_key_id,
            ..UploadPartOutput::default()
        }))
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
            let conditions = source_conditions_of!(input);
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
            copy_part_result: Some(with_checksums!(CopyPartResult, checksums, {
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(timestamp(modified_millis)),
            })),
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
        ok(
            with_checksums!(typed CompleteMultipartUploadOutput, checksums, {
                location: Some(format!("/{}/{}", input.bucket, url_encode(&input.key))),
                bucket: Some(input.bucket),
                key: Some(input.key),
                e_tag: Some(ETag::Strong(etag)),
                server_side_encryption: headers
                    .server_side_encryption
                    .map(ServerSideEncryption::from),
                ssekms_key_id: headers.kms_key_id,
                bucket_key_enabled: headers.bucket_key_enabled,
                ..CompleteMultipartUploadOutput::default()
            }),
        )
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
        no_content(AbortMultipartUploadOutput::default())
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
        let parts = parts.into_iter().map(|(number, facts)| {
            with_checksums!(Part, facts.checksums, {
                part_number: Some(i32::from(number)),
                size: Some(signed(facts.size)),
                e_tag: Some(ETag::Strong(facts.etag)),
                last_modified: Some(timestamp(facts.modified_millis)),
            })
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
