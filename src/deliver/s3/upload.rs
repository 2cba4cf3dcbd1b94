//! Brings one sealed batch to its bucket, however long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::WallMillis;
use crate::deliver::gate::Gate;
use crate::deliver::view::LegView;
use crate::event::Record;
use crate::ledger::{Object, SealedBatch, Settled};
use crate::logfile::{Builder, Compressors, LogFile};
use crate::trail::Trail;
use crate::wal::{ReadError, Wal};

/// What all legs share for making log files.
#[derive(Debug)]
pub struct Encoding {
    pub compressors: Compressors,
    budget: Arc<Semaphore>,
    budget_kib: u32,
}

impl Encoding {
    /// `budget_bytes` bounds what all files being made or uploaded hold together, uncompressed and compressed. A file
    /// larger than that is made alone.
    pub fn new(compressors: Compressors, budget_bytes: usize) -> Self {
        let budget_kib = u32::try_from(budget_bytes / 1024)
            .unwrap_or(u32::MAX)
            .max(1);
        let budget = Arc::new(Semaphore::new(budget_kib as usize));
        Self {
            compressors,
            budget,
            budget_kib,
        }
    }

    async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let kib = self.kib(bytes);
        let budget = self.budget.clone();
        budget
            .acquire_many_owned(kib)
            .await
            .expect("budget: its semaphore is never closed")
    }

    fn kib(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(1024))
            .unwrap_or(u32::MAX)
            .clamp(1, self.budget_kib)
    }
}

/// A trail's bucket, seen through its own client.
#[derive(Debug)]
pub struct Bucket {
    pub client: Client,
    /// Make it when it does not exist: for the embedded store.
    pub create: bool,
    /// The store has said that it does not know `If-None-Match` on a PUT.
    unconditional: AtomicBool,
}

impl Bucket {
    pub fn new(client: Client, create: bool) -> Self {
        Self {
            client,
            create,
            unconditional: AtomicBool::new(false),
        }
    }
}

/// How an upload ended.
#[derive(Debug)]
pub enum Outcome {
    Settled(Settled),
    /// The key holds something else: the batch needs another one.
    KeyTaken(SealedBatch),
}

/// Everything an upload needs, besides the batch.
pub struct Uploader {
    pub trail: Arc<Trail>,
    pub bucket: Bucket,
    pub journal: Wal,
    pub encoding: Arc<Encoding>,
    pub gate: Gate,
    pub view: LegView,
}

/// A log file in memory, with the room it takes.
struct Encoded {
    file: LogFile,
    gzip: Bytes,
    lost: u32,
    _room: OwnedSemaphorePermit,
}

enum Made {
    File(Encoded),
    /// None of the batch's events could be read back.
    Nothing {
        lost: u32,
    },
}

#[derive(Debug)]
enum Attempt {
    Delivered { etag: Option<String> },
    KeyTaken,
}

/// A failed attempt. Whatever it was, it is tried again.
#[derive(Debug)]
struct Failure {
    code: String,
    message: String,
}

impl Failure {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn of<E: ProvideErrorMetadata + std::error::Error + 'static>(
        error: &SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
    ) -> Self {
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        let code = match (error.code(), error, status) {
            (Some(code), _, _) => code.to_owned(),
            (None, SdkError::TimeoutError(_), _) => "Timeout".to_owned(),
            (None, SdkError::DispatchFailure(_), _) => "DispatchFailure".to_owned(),
            (None, SdkError::ConstructionFailure(_), _) => "ConstructionFailure".to_owned(),
            (None, _, Some(status)) => format!("Http{status}"),
            (None, _, None) => "ResponseError".to_owned(),
        };
        // A service says it in a sentence; what never reached one is in the chain of causes.
        let message = match (error.message(), error) {
            (Some(message), _) => message.to_owned(),
            (None, SdkError::ServiceError(_)) => match status {
                Some(status) => format!("http status {status}"),
                None => "no message".to_owned(),
            },
            (None, _) => causes(error),
        };
        // The code becomes a metric's label: a store may not make up endless ones.
        let well_formed = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
        let code = if well_formed {
            code
        } else {
            "Unknown".to_owned()
        };
        Self { code, message }
    }
}

impl Uploader {
    /// Uploads until it has worked.
    pub async fn deliver(&self, batch: SealedBatch) -> Outcome {
        loop {
            let turn = self.gate.enter().await;
            match self.attempt(&batch).await {
                Ok(outcome) => {
                    turn.succeeded();
                    return outcome;
                }
                Err(Failure { code, message }) => {
                    tracing::warn!(
                        trail = %self.trail.name, bucket = %self.trail.bucket, key = %batch.key, code, error = message,
                        "upload failed, will retry"
                    );
                    self.view.failed(&code, message, WallMillis::now());
                    turn.failed().await;
                }
            }
        }
    }

    async fn attempt(&self, batch: &SealedBatch) -> Result<Outcome, Failure> {
        let encoded = match self.encode(batch).await? {
            Made::File(encoded) => encoded,
            Made::Nothing { lost } => return Ok(Outcome::Settled(self.settled(batch, None, lost))),
        };
        let started = Instant::now();
        let patience = patience(encoded.gzip.len());
        let put = tokio::time::timeout(patience, self.put(batch, &encoded)).await;
        let attempt = put.map_err(|_| {
            Failure::new(
                "Timeout",
                format!("no answer to PutObject within {patience:?}"),
            )
        })??;
        self.view
            .metrics()
            .observe_put(started.elapsed().as_secs_f64());
        match attempt {
            Attempt::KeyTaken => Ok(Outcome::KeyTaken(batch.clone())),
            Attempt::Delivered { etag } => {
                let LogFile {
                    sha256,
                    count,
                    event_times,
                    ..
                } = &encoded.file;
                let (oldest_event_time, newest_event_time) = event_times.unwrap_or_default();
                let object = Object {
                    bucket: self.trail.bucket.clone(),
                    key: batch.key.clone(),
                    sha256: hex::encode(sha256),
                    etag,
                    bytes: encoded.gzip.len() as u64,
                    events: *count,
                    oldest_event_time,
                    newest_event_time,
                };
                Ok(Outcome::Settled(self.settled(
                    batch,
                    Some(object),
                    encoded.lost,
                )))
            }
        }
    }

    fn settled(&self, batch: &SealedBatch, object: Option<Object>, lost: u32) -> Settled {
        Settled {
            trail: batch.trail.clone(),
            stream: batch.stream,
            first: batch.first,
            object,
            lost,
            settled_at: WallMillis::now(),
        }
    }

    /// Reads the batch's events back from the journal and makes its file.
    async fn encode(&self, batch: &SealedBatch) -> Result<Made, Failure> {
        // The uncompressed file, and a compressed one that in practice is a fraction of it.
        let mut room = self
            .encoding
            .reserve(batch.json_bytes + batch.json_bytes / 4)
            .await;
        let journal = self.journal.clone();
        let encoding = self.encoding.clone();
        let json_bytes = usize::try_from(batch.json_bytes).unwrap_or(usize::MAX);
        let positions = batch.positions.clone();
        let made = tokio::task::spawn_blocking(move || {
            let mut builder = Builder::with_capacity(json_bytes);
            let mut lost = 0;
            journal.reader().read_each(
                &mut positions.iter(),
                &mut |position, frame| match frame
                    .map_err(|error| error.to_string())
                    .and_then(|frame| Record::decode(frame).map_err(|error| error.to_string()))
                {
                    Ok(record) => builder.push(record.json, record.meta.event_time),
                    Err(error) => {
                        tracing::error!(
                            position = position.0,
                            error,
                            "event cannot be read back from the journal"
                        );
                        lost += 1;
                    }
                },
            )?;
            let file = (!builder.is_empty()).then(|| builder.finish(&encoding.compressors));
            Ok::<_, ReadError>((file, lost))
        });
        let made = made
            .await
            .map_err(|error| Failure::new("Internal", error.to_string()))?;
        let (file, lost) = made.map_err(|error| Failure::new("JournalRead", error.to_string()))?;
        let Some(mut file) = file else {
            return Ok(Made::Nothing { lost });
        };
        let gzip = Bytes::from(std::mem::take(&mut file.gzip));
        let kept = self.encoding.kib(gzip.len() as u64) as usize;
        if let Some(spare) = room.num_permits().checked_sub(kept) {
            drop(room.split(spare));
        }
        Ok(Made::File(Encoded {
            file,
            gzip,
            lost,
            _room: room,
        }))
    }

    async fn put(&self, batch: &SealedBatch, encoded: &Encoded) -> Result<Attempt, Failure> {
        let conditional = !self.bucket.unconditional.load(Ordering::Relaxed);
        let mut request = self.request(batch, encoded.gzip.clone());
        if conditional {
            request = request.if_none_match("*");
        }
        let error = match request.send().await {
            Ok(answer) => {
                let etag = answer.e_tag().map(str::to_owned);
                return Ok(Attempt::Delivered { etag });
            }
            Err(error) => error,
        };
        let failure = Failure::of(&error);
        let status = error
            .raw_response()
            .map(|response| response.status().as_u16());
        match (failure.code.as_str(), status) {
            (_, Some(412)) if conditional => self.verify(batch, encoded).await,
            ("NotImplemented", _) | (_, Some(501)) if conditional => {
                tracing::warn!(
                    trail = %self.trail.name, bucket = %self.trail.bucket,
                    "store does not know conditional puts, going on without: an upload that is repeated overwrites itself"
                );
                self.bucket.unconditional.store(true, Ordering::Relaxed);
                Err(failure)
            }
            ("NoSuchBucket", _) if self.bucket.create => {
                self.create_bucket().await?;
                Box::pin(self.put(batch, encoded)).await
            }
            _ => Err(failure),
        }
    }

    fn request(&self, batch: &SealedBatch, gzip: Bytes) -> PutObjectFluentBuilder {
        let request = self
            .bucket
            .client
            .put_object()
            .bucket(&self.trail.bucket)
            .key(&batch.key)
            .content_type("application/json")
            .content_encoding("gzip")
            .acl(ObjectCannedAcl::BucketOwnerFullControl)
            .body(ByteStream::from(gzip));
        match &self.trail.kms_key_id {
            None => request,
            Some(key) => {
                let context = encryption_context(&self.trail.arn(), &self.trail.bucket, &batch.key);
                request
                    .server_side_encryption(ServerSideEncryption::AwsKms)
                    .ssekms_key_id(key)
                    .ssekms_encryption_context(context)
            }
        }
    }

    /// Something has this key. An earlier attempt whose answer was lost, in all likelihood: then it holds these events.
    async fn verify(&self, batch: &SealedBatch, encoded: &Encoded) -> Result<Attempt, Failure> {
        let bucket = &self.trail.bucket;
        let answer = self
            .bucket
            .client
            .get_object()
            .bucket(bucket)
            .key(&batch.key)
            .send()
            .await;
        let object = match answer {
            Ok(object) => object,
            Err(error) => {
                let failure = Failure::of(&error);
                let status = error
                    .raw_response()
                    .map(|response| response.status().as_u16());
                if status != Some(403) {
                    return Err(failure);
                }
                // The key is a hash over this very batch; nobody else would come upon it.
                tracing::info!(
                    trail = %self.trail.name, key = %batch.key,
                    "object is there already and may not be read back; taken as this batch's own"
                );
                return Ok(Attempt::Delivered { etag: None });
            }
        };
        let etag = object.e_tag().map(str::to_owned);
        let limit = object
            .content_length()
            .and_then(|length| u64::try_from(length).ok());
        // Other compressors make other bytes of the same events, but never several times as many.
        let plausible = limit.is_some_and(|length| length <= 2 * encoded.gzip.len() as u64 + 4096);
        let same = if plausible {
            let body = object.body.collect().await;
            let body = body.map_err(|error| Failure::new("ResponseError", error.to_string()))?;
            holds(&body.into_bytes(), &encoded.file)
        } else {
            false
        };
        if same {
            tracing::info!(trail = %self.trail.name, key = %batch.key, "object is there already, with the same events");
            return Ok(Attempt::Delivered { etag });
        }
        if encoded.lost > 0 {
            // Written while the journal could still give every event back. Another key would give the rest of them two objects.
            tracing::warn!(
                trail = %self.trail.name, key = %batch.key, lost = encoded.lost,
                "object is there already, from before the journal was damaged; it is kept"
            );
            return Ok(Attempt::Delivered { etag });
        }
        tracing::error!(
            trail = %self.trail.name, bucket = %bucket, key = %batch.key,
            "key of this batch holds something else; it is left alone and the batch gets another key"
        );
        Ok(Attempt::KeyTaken)
    }

    async fn create_bucket(&self) -> Result<(), Failure> {
        let bucket = &self.trail.bucket;
        match self
            .bucket
            .client
            .create_bucket()
            .bucket(bucket)
            .send()
            .await
        {
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
}

/// Whether a stored object holds exactly the events of `file`, whatever compressor made it.
fn holds(stored: &[u8], file: &LogFile) -> bool {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut decoder = MultiGzDecoder::new(stored);
    let mut buffer = [0; 16 * 1024];
    let mut total = 0u64;
    loop {
        match std::io::Read::read(&mut decoder, &mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                total += read as u64;
                if total > file.uncompressed_bytes {
                    return false;
                }
                context.update(&buffer[..read]);
            }
            Err(_) => return false,
        }
    }
    context.finish().as_ref() == file.sha256
}

/// An error and what is behind it, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

/// How long one PUT may take: half a minute, and what a slow line needs.
fn patience(bytes: usize) -> Duration {
    const SLOWEST_BYTES_PER_SECOND: u64 = 128 * 1024;
    Duration::from_secs(30 + bytes as u64 / SLOWEST_BYTES_PER_SECOND)
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

    #[test]
    fn an_object_is_known_by_its_events_not_by_its_compressor() {
        let file = |level| {
            let mut builder = Builder::with_capacity(0);
            for n in 0..1000 {
                builder.push(format!(r#"{{"eventID":"{n}"}}"#).as_bytes(), n);
            }
            builder.finish(&Compressors::new(level).unwrap())
        };
        let (one, other) = (file(1), file(9));
        assert_ne!(one.gzip, other.gzip);
        assert!(holds(&other.gzip, &one));
        assert!(!holds(&one.gzip[..one.gzip.len() - 1], &one), "cut short");
        let mut longer = Builder::with_capacity(0);
        longer.push(b"{}", 0);
        assert!(!holds(
            &one.gzip,
            &longer.finish(&Compressors::new(6).unwrap())
        ));
        assert!(!holds(b"not gzip", &one));
    }
}
