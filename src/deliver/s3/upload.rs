//! One attempt to bring a sealed batch to its bucket, and what follows from it.
//!
//! ```text
//! sealed for this bucket    PUT if nothing is there ─► stored ──────────────────────────────► Settled
//!                                                   └► taken ─► GET ─► the same events ─────► Settled
//!                                                                   ├► may not be seen ─────► Settled
//!                                                                   └► something else ──────► KeyTaken
//! sealed for another one    GET there ─► the same events ───────────────────────────────────► Settled, there
//!                                     └► nothing, something else, or it may not be seen ────► KeyTaken
//! anything else that a store may answer ────────────────────────────────────────────────────► Again
//! ```
//!
//! A trail's bucket may be changed in the configuration while an upload to the old one is in doubt. Its object counts when it is
//! there. When the old bucket says nothing about it (a wrong name often answers 403), the batch goes to the new one: if the old
//! one does have the object, its events are in both buckets. The warning names the key.

use std::sync::Arc;
use std::time::Instant;

use super::bucket::{Bucket, Encryption, Found, NewObject, Put};
use super::encode::{Encoded, Encoding, Made, encode};
use crate::clock::WallMillis;
use crate::deliver::failure::Failure;
use crate::deliver::gate::Gate;
use crate::deliver::view::LegView;
use crate::ledger::{Object, SealedBatch, Settled};
use crate::logfile::LogFile;
use crate::trail::Trail;
use crate::wal::Wal;

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    Settled(Settled),
    /// The batch needs another key, in the bucket that the trail has now: this one holds something else, or is in another bucket.
    KeyTaken(SealedBatch),
    /// It did not work. Others go first, so that a batch that is always refused stands in nobody's way.
    Again(SealedBatch),
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

/// Where the batch's events are, if they are anywhere.
enum Place {
    Object {
        bucket: String,
        etag: Option<String>,
    },
    KeyTaken,
}

impl Uploader {
    /// Tries once, when it is this leg's turn. Failures are answered only after the wait that they ask for.
    pub async fn deliver(&self, batch: SealedBatch) -> Outcome {
        let turn = self.gate.enter().await;
        match self.attempt(&batch).await {
            Ok(Some(settled)) => {
                turn.succeeded();
                Outcome::Settled(settled)
            }
            Ok(None) => {
                // Twice in a row can only be a store that says so whatever the key.
                if batch.attempt > 0 {
                    turn.failed().await;
                }
                Outcome::KeyTaken(batch)
            }
            Err(Failure { code, message, .. }) => {
                tracing::warn!(
                    trail = %self.trail.name, bucket = %self.trail.bucket, key = %batch.key, code, error = message,
                    "upload failed, will retry"
                );
                self.view.failed(&code, message, WallMillis::now());
                turn.failed().await;
                Outcome::Again(batch)
            }
        }
    }

    /// Nothing when the batch needs another key.
    async fn attempt(&self, batch: &SealedBatch) -> Result<Option<Settled>, Failure> {
        let made = encode(batch, &self.journal, &self.encoding, &self.bucket.share).await?;
        let encoded = match made {
            Made::File(encoded) => encoded,
            Made::Nothing { lost } => return Ok(Some(settled(batch, None, lost))),
        };
        let place = if batch.bucket == self.trail.bucket {
            self.put(batch, &encoded).await?
        } else {
            self.find_in_former_bucket(batch, &encoded).await?
        };
        let Place::Object { bucket, etag } = place else {
            return Ok(None);
        };
        let LogFile {
            sha256,
            count,
            event_times,
            ..
        } = &encoded.file;
        let (oldest_event_time, newest_event_time) = event_times.unwrap_or_default();
        let object = Object {
            bucket,
            key: batch.key.clone(),
            sha256: hex::encode(sha256),
            etag,
            bytes: encoded.gzip.len() as u64,
            events: *count,
            oldest_event_time,
            newest_event_time,
        };
        Ok(Some(settled(batch, Some(object), encoded.lost)))
    }

    async fn put(&self, batch: &SealedBatch, encoded: &Encoded) -> Result<Place, Failure> {
        let started = Instant::now();
        let arn = self.trail.arn();
        let put = self.bucket.put(NewObject {
            bucket: &self.trail.bucket,
            key: &batch.key,
            gzip: &encoded.gzip,
            metadata: &[],
            encryption: self.trail.kms_key_id.as_deref().map(|key| Encryption {
                kms_key_id: key,
                trail_arn: &arn,
            }),
        });
        let put = put.await?;
        self.view
            .metrics()
            .observe_put(started.elapsed().as_secs_f64());
        match put {
            Put::Stored { etag } => Ok(here(batch, etag)),
            Put::Taken => self.verify(batch, encoded).await,
        }
    }

    /// Something has this key. An earlier attempt whose answer was lost, in all likelihood: then it holds these events.
    async fn verify(&self, batch: &SealedBatch, encoded: &Encoded) -> Result<Place, Failure> {
        let SealedBatch { bucket, key, .. } = batch;
        let found = self
            .bucket
            .look(bucket, key, (&encoded.file).into())
            .await?;
        let trail = &self.trail.name;
        match found {
            Found::Same { etag } => {
                tracing::info!(%trail, key, "object is there already, with the same events");
                Ok(here(batch, etag))
            }
            Found::Other { etag } if encoded.lost > 0 => {
                // Written while the journal could still give every event back. Another key would give the rest of them two objects.
                tracing::warn!(
                    %trail, key, lost = encoded.lost,
                    "object is there already, from before the journal was damaged; it is kept"
                );
                Ok(here(batch, etag))
            }
            Found::Other { .. } => {
                tracing::error!(
                    %trail, bucket, key,
                    "key of this batch holds something else; it is left alone and the batch gets another key"
                );
                Ok(Place::KeyTaken)
            }
            // The key is a hash over this very batch; nobody else would come upon it.
            Found::Hidden(_) => {
                tracing::info!(
                    %trail, key,
                    "object is there already and may not be read back; taken as this batch's own"
                );
                Ok(here(batch, None))
            }
            Found::Nothing => Err(Failure::new(
                "NoSuchKey",
                "the key is taken for PutObject and not there for GetObject",
            )),
        }
    }

    /// The batch was sealed when the trail had another bucket, and may have reached it.
    async fn find_in_former_bucket(
        &self,
        batch: &SealedBatch,
        encoded: &Encoded,
    ) -> Result<Place, Failure> {
        let SealedBatch { bucket, key, .. } = batch;
        let found = self
            .bucket
            .look(bucket, key, (&encoded.file).into())
            .await?;
        let trail = &self.trail.name;
        match found {
            Found::Same { etag } => {
                tracing::info!(%trail, former_bucket = bucket, key, "object had reached the trail's former bucket");
                Ok(here(batch, etag))
            }
            Found::Other { etag } if encoded.lost > 0 => {
                tracing::warn!(
                    %trail, former_bucket = bucket, key, lost = encoded.lost,
                    "object had reached the trail's former bucket before the journal was damaged; it is kept"
                );
                Ok(here(batch, etag))
            }
            Found::Other { .. } | Found::Nothing => {
                tracing::info!(%trail, former_bucket = bucket, key, "the trail's bucket has changed, delivering to the new one");
                Ok(Place::KeyTaken)
            }
            Found::Hidden(Failure { code, message, .. }) => {
                tracing::warn!(
                    %trail, former_bucket = bucket, key, code, error = message,
                    "cannot tell whether the former bucket has this object, delivering to the new one; \
                     if it has, its events are in both"
                );
                Ok(Place::KeyTaken)
            }
        }
    }
}

/// In the bucket that the batch was sealed for.
fn here(batch: &SealedBatch, etag: Option<String>) -> Place {
    Place::Object {
        bucket: batch.bucket.clone(),
        etag,
    }
}

fn settled(batch: &SealedBatch, object: Option<Object>, lost: u32) -> Settled {
    Settled {
        trail: batch.trail.clone(),
        stream: batch.stream,
        first: batch.first,
        object,
        lost,
        settled_at: WallMillis::now(),
    }
}

#[cfg(test)]
mod tests;
