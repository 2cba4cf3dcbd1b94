//! One attempt to bring a sealed batch to its bucket, and what follows from it.
//!
//! ```text
//! sealed for this bucket    PUT if nothing is there ─► stored ──────────────────────────────► Settled
//!                                                   └► taken ─► GET ─► the same events ─────► Settled
//!                                                                   ├► may not be seen ─────► Settled; Again, if the journal is damaged
//!                                                                   └► something else ──────► KeyTaken
//! sealed for another one    GET there ─► the same events ───────────────────────────────────► Settled, there
//!                                     └► nothing, something else, or it may not be seen ────► KeyTaken
//! no event can be read      GET there ─► the batch's events, from before the damage ────────► Settled
//!                                     └► anything else ─────────────────────────────────────► Settled, without an object
//! anything else that a store may answer ────────────────────────────────────────────────────► Again
//! ```
//!
//! A trail's bucket may be changed in the configuration while an upload to the old one is in doubt. Its object counts when it is
//! there. When the old bucket says nothing about it (a wrong name often answers 403), the batch goes to the new one: if the old
//! one does have the object, its events are in both buckets. The warning names the key.
//!
//! The journal may be damaged between two attempts. What was delivered before then holds more events than can be made a file of now, and
//! another key would give the rest of them two objects. So it is kept, when it is what the sealed batch tells of: the number of its
//! records, and their length when none is missing. What is settled, and a digest says one day, is read from that object, never from
//! the shorter file; and only what no object has is lost. While it may not be read, the batch waits for the permission: a digest of
//! another hash would be a lie for ever, and another object would double the events. When not one event can be given back, nothing is
//! written; an object that an earlier attempt wrote is looked for all the same, once.

use std::sync::Arc;
use std::time::Instant;

use super::bucket::{Bucket, Encryption, Found, NewObject, Put};
use super::encode::{Encoded, Encoding, Made, encode};
use super::same::Held;
use crate::clock::WallMillis;
use crate::deliver::failure::Failure;
use crate::deliver::gate::Gate;
use crate::deliver::view::LegView;
use crate::ledger::{Object, SealedBatch, Settled};
use crate::logfile::LogFile;
use crate::logfile::encode::uncompressed_bytes;
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
    Object(Object),
    KeyTaken,
}

/// What the batch's key has in the bucket that it was sealed for.
enum There {
    /// This batch's object.
    Ours(Object),
    Other,
    Nothing,
    /// The store does not let us see.
    Hidden(Failure),
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
        let place = match &made {
            Made::Nothing => return self.recover(batch).await.map(Some),
            Made::File(encoded) if batch.bucket == self.trail.bucket => {
                self.put(batch, encoded).await?
            }
            Made::File(encoded) => self.find_in_former_bucket(batch, encoded).await?,
        };
        Ok(match place {
            Place::Object(object) => Some(settled(batch, Some(object))),
            Place::KeyTaken => None,
        })
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
            Put::Stored { etag } => Ok(Place::Object(made_of(batch, encoded, etag))),
            Put::Taken => self.verify(batch, encoded).await,
        }
    }

    /// Something has this key. An earlier attempt whose answer was lost, in all likelihood: then it holds these events.
    async fn verify(&self, batch: &SealedBatch, encoded: &Encoded) -> Result<Place, Failure> {
        let SealedBatch { bucket, key, .. } = batch;
        let trail = &self.trail.name;
        match self.look(batch, Some(encoded)).await? {
            There::Ours(object) => {
                tracing::info!(%trail, key, "object is there already, with this batch's events");
                Ok(Place::Object(object))
            }
            There::Other => {
                tracing::error!(
                    %trail, bucket, key,
                    "key of this batch holds something else; it is left alone and the batch gets another key"
                );
                Ok(Place::KeyTaken)
            }
            There::Hidden(Failure { code, message, .. }) if encoded.lost > 0 => {
                let lost = encoded.lost;
                Err(Failure::new(
                    &code,
                    format!(
                        "cannot read the object that is there already, and the journal has lost {lost} of its events ({message}); \
                         hint: allow s3:GetObject on {bucket}/{key}"
                    ),
                ))
            }
            // The key is a hash over this very batch, and its bytes follow from it; nobody else would come upon either.
            There::Hidden(_) => {
                tracing::info!(
                    %trail, key,
                    "object is there already and may not be read back; taken as this batch's own"
                );
                Ok(Place::Object(made_of(batch, encoded, None)))
            }
            There::Nothing => Err(Failure::new(
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
        let trail = &self.trail.name;
        match self.look(batch, Some(encoded)).await? {
            There::Ours(object) => {
                tracing::info!(%trail, former_bucket = bucket, key, "object had reached the trail's former bucket");
                Ok(Place::Object(object))
            }
            There::Other | There::Nothing => {
                tracing::info!(%trail, former_bucket = bucket, key, "the trail's bucket has changed, delivering to the new one");
                Ok(Place::KeyTaken)
            }
            There::Hidden(Failure { code, message, .. }) => {
                tracing::warn!(
                    %trail, former_bucket = bucket, key, code, error = message,
                    "cannot tell whether the former bucket has this object, delivering to the new one; \
                     if it has, its events are in both"
                );
                Ok(Place::KeyTaken)
            }
        }
    }

    /// The journal gives back no event of the batch. An earlier attempt may have delivered them.
    async fn recover(&self, batch: &SealedBatch) -> Result<Settled, Failure> {
        let SealedBatch { bucket, key, .. } = batch;
        let trail = &self.trail.name;
        let object = match self.look(batch, None).await? {
            There::Ours(object) => Some(object),
            There::Other | There::Nothing => None,
            There::Hidden(Failure { code, message, .. }) => {
                tracing::error!(
                    %trail, bucket, key, code, error = message,
                    "events are lost from the journal, and whether they were delivered before cannot be told; \
                     if they were, their log file is in no digest"
                );
                None
            }
        };
        Ok(settled(batch, object))
    }

    /// Whether the object is there, with what can be said of it: of one from before the journal was damaged, that is what it holds.
    async fn look(&self, batch: &SealedBatch, made: Option<&Encoded>) -> Result<There, Failure> {
        let SealedBatch { bucket, key, .. } = batch;
        let found = match made {
            Some(encoded) if encoded.lost == 0 => {
                let content = (&encoded.file).into();
                self.bucket.look(bucket, key, content).await?
            }
            _ => {
                let most = uncompressed_bytes(batch.json_bytes);
                self.bucket.look_for_log_file(bucket, key, most).await?
            }
        };
        Ok(match (found, made) {
            (Found::Same { etag }, Some(encoded)) => There::Ours(made_of(batch, encoded, etag)),
            (
                Found::Other {
                    etag,
                    held: Some(held),
                },
                _,
            ) if is_of(batch, made, &held) => {
                tracing::warn!(
                    trail = %self.trail.name, bucket, key, events = held.records,
                    "object is there already, from before the journal was damaged; it is kept"
                );
                There::Ours(kept(batch, &held, etag))
            }
            (Found::Same { .. } | Found::Other { .. }, _) => There::Other,
            (Found::Nothing, _) => There::Nothing,
            (Found::Hidden(failure), _) => There::Hidden(failure),
        })
    }
}

/// Whether an earlier attempt wrote this, when the journal could give back more of the batch's events than now: all of them, then it
/// has the length that follows from the sealed batch, or fewer, but none fewer than are left.
fn is_of(batch: &SealedBatch, made: Option<&Encoded>, held: &Held) -> bool {
    let left = match made {
        Some(Encoded { lost: 0, .. }) => return false,
        Some(encoded) => encoded.file.count,
        None => 1,
    };
    let all = batch.positions.len();
    let is_full = held.bytes == uncompressed_bytes(batch.json_bytes);
    let has_all = held.records == u64::from(all);
    (u64::from(left)..=u64::from(all)).contains(&held.records) && has_all == is_full
}

/// The object made of the batch's events.
fn made_of(batch: &SealedBatch, encoded: &Encoded, etag: Option<String>) -> Object {
    let LogFile {
        sha256,
        count,
        event_times,
        ..
    } = &encoded.file;
    let (oldest_event_time, newest_event_time) = event_times.unwrap_or_default();
    Object {
        bucket: batch.bucket.clone(),
        key: batch.key.clone(),
        sha256: hex::encode(sha256),
        etag,
        bytes: encoded.gzip.len() as u64,
        events: *count,
        oldest_event_time,
        newest_event_time,
    }
}

/// The object that was found.
fn kept(batch: &SealedBatch, held: &Held, etag: Option<String>) -> Object {
    let Held {
        sha256,
        bytes: _,
        object_bytes,
        records,
        oldest_event_time,
        newest_event_time,
    } = *held;
    Object {
        bucket: batch.bucket.clone(),
        key: batch.key.clone(),
        sha256: hex::encode(sha256),
        etag,
        bytes: object_bytes,
        events: u32::try_from(records).unwrap_or(u32::MAX),
        oldest_event_time,
        newest_event_time,
    }
}

/// What the batch has become. What no object has of it is lost.
fn settled(batch: &SealedBatch, object: Option<Object>) -> Settled {
    let delivered = object.as_ref().map_or(0, |object| object.events);
    Settled {
        trail: batch.trail.clone(),
        stream: batch.stream,
        first: batch.first,
        object,
        lost: batch.positions.len().saturating_sub(delivered),
        settled_at: WallMillis::now(),
    }
}

#[cfg(test)]
mod tests;
