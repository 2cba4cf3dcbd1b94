//! Objects on the wire: writing one where nothing is yet, and looking at what is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::encode::Share;
use super::same::{Comparison, Content, Held, Verdict};
use crate::deliver::failure::Failure;
use crate::deliver::renewing::Renewing;

/// A trail's bucket, seen through its own client.
pub struct Bucket {
    client: Renewing<Client>,
    /// Make it when it does not exist: for the embedded store.
    create: bool,
    /// The store has shown that it does not know `If-None-Match` on a PUT.
    unconditional: AtomicBool,
    /// What the files on their way to it may hold.
    pub(super) share: Share,
}

/// A gzipped file of JSON to be written: a log file or a digest. CloudTrail gives both `Content-Type: application/json`,
/// `Content-Encoding: gzip` and the ACL `bucket-owner-full-control`.
#[derive(Debug, Clone, Copy)]
pub struct NewObject<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub gzip: &'a Bytes,
    /// What follows `x-amz-meta-`, with its value.
    pub metadata: &'a [(&'static str, String)],
    pub encryption: Option<Encryption<'a>>,
}

/// SSE-KMS, as CloudTrail asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Encryption<'a> {
    pub kms_key_id: &'a str,
    pub trail_arn: &'a str,
}

/// What became of a PUT.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    Stored {
        etag: Option<String>,
    },
    /// There is something with this key, and it was left alone.
    Taken,
}

/// What is there already.
#[derive(Debug)]
pub enum Found {
    Same {
        etag: Option<String>,
    },
    Other {
        etag: Option<String>,
        /// When it is a log file, no longer than what was looked for.
        held: Option<Held>,
    },
    Nothing,
    /// The store answers, but does not let us see.
    Hidden(Failure),
}

impl Bucket {
    pub fn new(client: Renewing<Client>, create: bool) -> Self {
        Self {
            client,
            create,
            unconditional: AtomicBool::new(false),
            share: Share::default(),
        }
    }

    /// Writes the object unless there is something with this key. A bucket may be made for it, and a store that
    /// does not know the condition is asked without.
    pub async fn put(&self, object: NewObject<'_>) -> Result<Put, Failure> {
        let put = async |client| self.put_by(&client, object).await;
        self.client.attempt(put).await
    }

    /// Writes the object over what is there.
    pub async fn overwrite(&self, object: NewObject<'_>) -> Result<Put, Failure> {
        let put = async |client| put_once(&client, object, false).await;
        self.client.attempt(put).await
    }

    async fn put_by(&self, client: &Client, object: NewObject<'_>) -> Result<Put, Failure> {
        let put = |conditional| put_once(client, object, conditional);
        let conditional = !self.unconditional.load(Ordering::Relaxed);
        let failure = match put(conditional).await {
            Err(failure) => failure,
            answer => return answer,
        };
        match (failure.code.as_str(), failure.status) {
            ("NotImplemented", _) | (_, Some(501)) if conditional => {
                let answer = put(false).await;
                // Otherwise it was something else that the store does not know.
                if answer.is_ok() && !self.unconditional.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        bucket = object.bucket,
                        "store does not know conditional puts, going on without: an upload that is repeated overwrites itself"
                    );
                }
                answer
            }
            ("NoSuchBucket", _) if self.create => {
                make(client, object.bucket).await?;
                put(conditional).await
            }
            _ => Err(failure),
        }
    }

    /// Whether `bucket` holds `content` at `key`.
    pub async fn look(&self, bucket: &str, key: &str, content: Content) -> Result<Found, Failure> {
        self.look_with(Comparison::with(content), bucket, key).await
    }

    /// What `bucket` holds at `key`, if that is a log file of at most `most_bytes` uncompressed. Never [`Found::Same`].
    pub async fn look_for_log_file(
        &self,
        bucket: &str,
        key: &str,
        most_bytes: u64,
    ) -> Result<Found, Failure> {
        let comparison = Comparison::with_any(most_bytes);
        self.look_with(comparison, bucket, key).await
    }

    async fn look_with(
        &self,
        comparison: Comparison,
        bucket: &str,
        key: &str,
    ) -> Result<Found, Failure> {
        let limit = patience(comparison.largest());
        let look = async |client| {
            within(
                limit,
                "GetObject",
                compare(&client, bucket, key, comparison),
            )
            .await?
        };
        self.client.attempt(look).await
    }
}

async fn put_once(
    client: &Client,
    object: NewObject<'_>,
    conditional: bool,
) -> Result<Put, Failure> {
    let mut request = request(client, object);
    if conditional {
        request = request.if_none_match("*");
    }
    let limit = patience(object.gzip.len() as u64);
    match within(limit, "PutObject", request.send()).await? {
        Ok(answer) => Ok(Put::Stored { etag: answer.e_tag }),
        Err(error) => match Failure::of(&error) {
            Failure {
                status: Some(412), ..
            } if conditional => Ok(Put::Taken),
            failure => Err(failure),
        },
    }
}

fn request(client: &Client, object: NewObject<'_>) -> PutObjectFluentBuilder {
    let NewObject {
        bucket,
        key,
        gzip,
        metadata,
        encryption,
    } = object;
    let mut request = client
        .put_object()
        .bucket(bucket)
        .key(key)
        .content_type("application/json")
        .content_encoding("gzip")
        .acl(ObjectCannedAcl::BucketOwnerFullControl)
        .body(ByteStream::from(gzip.clone()));
    for (name, value) in metadata {
        request = request.metadata(*name, value);
    }
    match encryption {
        None => request,
        Some(Encryption {
            kms_key_id,
            trail_arn,
        }) => {
            let context = encryption_context(trail_arn, bucket, key);
            request
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .ssekms_key_id(kms_key_id)
                .ssekms_encryption_context(context)
        }
    }
}

async fn make(client: &Client, bucket: &str) -> Result<(), Failure> {
    let request = client.create_bucket().bucket(bucket);
    match within(patience(0), "CreateBucket", request.send()).await? {
        Ok(_) => {
            tracing::info!(bucket, "made the bucket");
            Ok(())
        }
        Err(error) => {
            let failure = Failure::of(&error);
            match failure.code.as_str() {
                "BucketAlreadyOwnedByYou" | "BucketAlreadyExists" => Ok(()),
                _ => Err(failure),
            }
        }
    }
}

async fn compare(
    client: &Client,
    bucket: &str,
    key: &str,
    mut comparison: Comparison,
) -> Result<Found, Failure> {
    let request = client.get_object().bucket(bucket).key(key);
    let mut object = match request.send().await {
        Ok(object) => object,
        Err(error) => {
            let failure = Failure::of(&error);
            return match (failure.status, failure.code.as_str()) {
                (Some(404), _) => Ok(Found::Nothing),
                // These are about the bucket and stay as they are, whoever asks. A PUT gets them as well.
                (_, "PermanentRedirect" | "AuthorizationHeaderMalformed")
                | (_, "InvalidBucketName") => Ok(Found::Hidden(failure)),
                (Some(403), _) if !failure.is_about_credentials() => Ok(Found::Hidden(failure)),
                _ => Err(failure),
            };
        }
    };
    let etag = object.e_tag;
    // The length may be missing, so the bytes are counted as they come.
    while let Some(bytes) = object.body.next().await {
        let bytes = bytes.map_err(|error| Failure::new("ResponseError", error.to_string()))?;
        if !comparison.take(&bytes) {
            return Ok(Found::Other { etag, held: None });
        }
    }
    Ok(match comparison.finish() {
        Verdict::Same => Found::Same { etag },
        Verdict::Other(held) => Found::Other { etag, held },
    })
}

/// How long one request that moves `bytes` may take: half a minute, and what a slow line needs.
fn patience(bytes: u64) -> Duration {
    const SLOWEST_BYTES_PER_SECOND: u64 = 128 * 1024;
    Duration::from_secs(30 + bytes / SLOWEST_BYTES_PER_SECOND)
}

async fn within<F: Future>(limit: Duration, what: &str, answer: F) -> Result<F::Output, Failure> {
    tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| Failure::new("Timeout", format!("no answer to {what} within {limit:?}")))
}

/// Base64 of the JSON that `x-amz-server-side-encryption-context` carries, with CloudTrail's names (CloudTrail user guide, "how
/// CloudTrail uses AWS KMS").
fn encryption_context(trail_arn: &str, bucket: &str, key: &str) -> String {
    let partition = trail_arn.split(':').nth(1).unwrap_or("aws");
    let context = serde_json::json!({
        "aws:cloudtrail:arn": trail_arn,
        "aws:s3:arn": format!("arn:{partition}:s3:::{bucket}/{key}"),
    });
    BASE64.encode(context.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encryption_context_names_the_trail_and_the_object() {
        let context = encryption_context(
            "arn:aws:cloudtrail:us-east-1:111122223333:trail/main",
            "b",
            "AWSLogs/x",
        );
        let json = String::from_utf8(BASE64.decode(context).unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"aws:cloudtrail:arn":"arn:aws:cloudtrail:us-east-1:111122223333:trail/main","aws:s3:arn":"arn:aws:s3:::b/AWSLogs/x"}"#
        );
    }
}
