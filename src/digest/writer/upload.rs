//! Brings the digests of sealed windows to their bucket.
//!
//! An upload may be done again after a crash or a lost answer: the bytes and the key are those that were sealed. Something else under a digest's
//! key is left alone: the chain has no other place for it. That is told, and tried again after the next start.

use std::collections::BTreeSet;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;

use super::book::Place;
use super::spool::Sealed;
use super::view::View;
use crate::clock::WallMillis;
use crate::deliver::failure::Failure;
use crate::deliver::gate::Gate;
use crate::deliver::s3::same::Content;
use crate::deliver::s3::{Bucket, Encryption, Found, NewObject, Put};

/// Digests of one trail on their way at the same time.
const PARALLEL: usize = 8;

/// Everything an upload needs, besides the digests.
pub struct Uploader {
    pub place: Place,
    pub bucket: Bucket,
    pub gate: Gate,
    pub view: View,
}

/// What became of one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    /// Its key holds something else.
    Taken,
    Again,
}

/// Digests of a window that are settled, by their place in it.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub settled: BTreeSet<usize>,
    /// Some of them are not delivered, and cannot be.
    pub has_taken: bool,
}

impl Uploader {
    /// Tries each digest once that is not settled, until one fails: a bucket that is gone must not keep the windows of others waiting. Whether
    /// all are settled.
    pub async fn deliver(&self, digests: Vec<Sealed>, mut done: Done) -> (bool, Done) {
        let count = digests.len();
        let left: Vec<_> = digests
            .into_iter()
            .enumerate()
            .filter(|(index, _)| !done.settled.contains(index))
            .collect();
        let attempts = left.into_iter().map(|(index, digest)| async move {
            let outcome = self.attempt(digest).await;
            (index, outcome)
        });
        let mut attempts = futures::stream::iter(attempts).buffer_unordered(PARALLEL);
        while let Some((index, outcome)) = attempts.next().await {
            if outcome != Outcome::Again {
                done.settled.insert(index);
            }
            done.has_taken |= outcome == Outcome::Taken;
            if outcome == Outcome::Again {
                break;
            }
        }
        (done.settled.len() == count, done)
    }

    async fn attempt(&self, digest: Sealed) -> Outcome {
        let turn = self.gate.enter().await;
        match self.put(&digest).await {
            Ok(true) => {
                turn.succeeded();
                self.view.delivered(1, WallMillis::now());
                tracing::debug!(trail = %self.place.name, key = digest.location.key, "digest file delivered");
                Outcome::Delivered
            }
            Ok(false) => {
                turn.succeeded();
                let message = format!(
                    "{} holds something else, its digest file is not delivered",
                    digest.location
                );
                tracing::error!(
                    trail = %self.place.name, bucket = digest.location.bucket, key = digest.location.key,
                    "key of this digest file holds something else, which is left alone; the chain has a hole until it is gone and \
                     the daemon is started again"
                );
                self.view.undeliverable(message, WallMillis::now());
                Outcome::Taken
            }
            Err(Failure { code, message, .. }) => {
                tracing::warn!(
                    trail = %self.place.name, bucket = digest.location.bucket, key = digest.location.key, code, error = message,
                    "upload of a digest file failed, will retry"
                );
                self.view.failed(&code, message, WallMillis::now());
                turn.failed().await;
                Outcome::Again
            }
        }
    }

    /// Whether it is there now: otherwise its key is taken.
    async fn put(&self, digest: &Sealed) -> Result<bool, Failure> {
        let Sealed {
            location,
            signed,
            backfilled_at,
        } = digest;
        let gzip = gzip(&signed.json).map_err(|error| Failure::new("Gzip", error.to_string()))?;
        let metadata = signed.metadata(*backfilled_at);
        let object = NewObject {
            bucket: &location.bucket,
            key: &location.key,
            gzip: &gzip,
            metadata: &metadata,
            encryption: self.place.kms_key_id.as_deref().map(|key| Encryption {
                kms_key_id: key,
                trail_arn: &self.place.trail,
            }),
        };
        if let Put::Stored { .. } = self.bucket.put(object).await? {
            return Ok(true);
        }
        let content = Content {
            sha256: signed.sha256.0,
            bytes: signed.json.len() as u64,
        };
        let found = self.bucket.look(&location.bucket, &location.key, content);
        match found.await? {
            Found::Same { .. } => Ok(true),
            Found::Other { .. } => Ok(false),
            // What is there cannot be told. Nobody else's digests belong there, so it is made sure that it is this one.
            Found::Hidden(_) => self.bucket.overwrite(object).await.map(|_| true),
            Found::Nothing => Err(Failure::new(
                "NoSuchKey",
                "the key is taken for PutObject and not there for GetObject",
            )),
        }
    }
}

/// The same bytes always give the same: no time is in it.
fn gzip(json: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(json)?;
    Ok(encoder.finish()?.into())
}
