//! Writes the digests of one trail: gathers what the ledger says was delivered, seals each window when it is over, and uploads it.
//!
//! ```text
//! ledger ── Settled ──► waiting ── window is over ──► drafts ── signed ──► sealed, on the disk ── upload ──► bucket
//! ```
//!
//! - A log file goes into exactly one digest, in the ledger's order; what is sealed is written down together with the place in the ledger
//!   that it reaches to. The ledger is held until then.
//! - Intent, then effect: a digest is uploaded only when its bytes and its signature are on the disk. A crash before leaves nothing
//!   anywhere; a crash after, and the same bytes go to the same key.
//! - A window that cannot be signed or uploaded is tried again for ever, and delays no log file. Windows overtake one that is refused.
//! - Stopping the daemon ends no chain; it goes on after the next start. A trail that is not configured any more, or not with validation,
//!   gets its final digests at the next start, for the part of the window that has passed.
//!
//! [`windows`] and [`book`] decide, [`spool`] remembers, [`upload`] delivers; this file carries out.

mod book;
mod spool;
mod upload;
pub mod view;
mod windows;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::OptionFuture;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use book::{Place, State};

use book::{Book, Draft, Drafts, Next};
use spool::{Recalled, Sealed, Spool};
use upload::{Done, Uploader};
use view::View;

use super::keys::{Keys, KeysError};
use super::sign::{SignError, Signer as _};
use super::{Kind, Signed};
use crate::clock::WallMillis;
use crate::deliver::gate::Gate;
use crate::deliver::s3::Bucket;
use crate::pump::{Tail, TailError};
use crate::retry::Backoff;
use crate::telemetry::chain;
use crate::wal::{Chunk, Position, Wal};

/// Bytes of the ledger that may wait for a digest before its window is closed early. A log file takes about a kilobyte there.
const PRESSING_LEDGER_BYTES: u64 = 64 << 20;
/// Bytes of the ledger that are read ahead while windows cannot be sealed.
const HELD_LEDGER_BYTES: u64 = 2 * PRESSING_LEDGER_BYTES;
/// How often the clock is looked at: it may jump.
const LOOK: Duration = Duration::from_secs(1);
/// Sealed windows that may wait for their bucket. Until it is back no more are sealed; then the missed ones are made up for.
const MAX_UNDELIVERED: usize = 168;
/// For how long one signature is tried again before its window is given up for now.
const SIGN_WITHIN: Duration = Duration::from_secs(600);
/// Signatures of one window that are made at the same time: of interest where KMS makes them, over a network.
const PARALLEL_SIGNATURES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("cannot use {path}", path = path.display())]
    Spool {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot follow the ledger")]
    Tail(#[from] TailError),
    #[error("a task of the digests has stopped")]
    Task(#[from] JoinError),
}

/// Why a window was not sealed. Each may go away by itself.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error("cannot get the key of region {region}")]
    Keys {
        region: crate::event::Region,
        #[source]
        source: KeysError,
    },
    #[error("cannot sign")]
    Sign(#[from] SignError),
    #[error("cannot write the sealed digests")]
    Write(#[source] io::Error),
    #[error("a task of the digests has stopped")]
    Task(#[from] JoinError),
}

impl SealError {
    /// The key is elsewhere, and may be reached the next time.
    fn is_of_kms(&self) -> bool {
        matches!(
            self,
            Self::Keys {
                source: KeysError::Kms(_),
                ..
            } | Self::Sign(SignError::Kms { .. })
        )
    }
}

/// What is remembered of every trail that has had digests, below `root`. Blocking.
pub fn states(root: &Path) -> io::Result<Vec<State>> {
    Spool::states(root)
}

/// What a writer is built with.
pub struct Parts {
    /// From the configuration, or as it was remembered.
    pub place: Place,
    /// Above zero; whole seconds.
    pub interval: Duration,
    /// Cancelled when logging or validation has stopped, also before the writer is opened: what was delivered until then gets its final digests, and
    /// no more follow.
    pub end: CancellationToken,
    /// Chains that have ended, or never were, begin. Otherwise only what is open goes on.
    pub begins: bool,
    pub ledger: Wal,
    pub keys: Keys,
    pub bucket: Bucket,
    pub view: View,
}

/// Writes the digests of one trail.
pub struct Writer {
    book: Book,
    spool: Spool,
    tail: Tail,
    ledger: Wal,
    end: CancellationToken,
    is_ending: bool,
    /// Entries from here on are of after the end.
    end_of_ledger: Position,
    keys: Keys,
    uploader: Arc<Uploader>,
    /// The number of the newest window.
    newest: u64,
    /// Its file has its state alone, and goes with the next one.
    newest_is_settled: bool,
    undelivered: VecDeque<(u64, Done)>,
    /// A window whose turn has come, and through where the ledger must be read for it.
    awaited: Option<Position>,
    sealing: Option<Sealing>,
    uploads: JoinSet<Uploaded>,
    /// After a failure to seal.
    backoff: Backoff,
    not_before: Instant,
    closed_at: Instant,
    wanted: watch::Sender<Position>,
    sealed_until: watch::Sender<i64>,
}

type Sealing = Pin<Box<dyn Future<Output = Result<(Drafts, Vec<Sealed>), SealError>> + Send>>;

struct Uploaded {
    number: u64,
    is_complete: bool,
    done: Done,
}

impl Writer {
    /// Nothing for a trail that has no digests and shall have none. When this returns, the trail's start, or where its digests are, is on
    /// the disk: no log file that is delivered from then on can be missed. Blocking.
    pub fn open(root: &Path, parts: Parts) -> Result<Option<Self>, WriterError> {
        let (spool, recalled) = Spool::open(root, &parts.place).map_err(|source| {
            let path = root.to_owned();
            WriterError::Spool { path, source }
        })?;
        let failed = |source| WriterError::Spool {
            path: spool.path().to_owned(),
            source,
        };
        let now = WallMillis::now().unix_seconds();
        let is_ending = parts.end.is_cancelled();
        let Recalled {
            state,
            mut newest,
            undelivered,
            is_damaged,
        } = recalled;
        let interval = i64::try_from(parts.interval.as_secs()).unwrap_or(3600);
        let start = |former: Option<i64>, next| {
            State::starting(parts.place.clone(), now, interval, next, former)
        };
        let begun = match &state {
            Some(state) if !state.has_ended => None,
            None if is_damaged => {
                tracing::error!(
                    trail = %parts.place.name, path = %spool.path().display(),
                    "place of the digests is lost: a new chain begins, with all log files that the ledger still knows; some may be in two \
                     digest files"
                );
                Some(start(None, Next::frame(parts.ledger.start())))
            }
            former if parts.begins => {
                let state = start(
                    former.as_ref().map(|former| former.end),
                    Next::frame(parts.ledger.durable()),
                );
                tracing::info!(trail = %parts.place.name, "digests begin");
                Some(state)
            }
            Some(_) => None,
            None => return Ok(None),
        };
        let newest_is_settled = begun.is_some();
        if let Some(state) = &begun {
            newest += 1;
            spool.write(newest, state, &[]).map_err(failed)?;
        }
        let Some(mut state) = begun.or(state) else {
            return Ok(None);
        };
        if !is_ending {
            state.place = parts.place;
        }
        parts.view.stands(state.end, undelivered.len());
        let uploader = Uploader {
            place: state.place.clone(),
            bucket: parts.bucket,
            gate: Gate::default(),
            view: parts.view,
        };
        let wanted = watch::Sender::new(Position(state.next.position));
        let sealed_until = watch::Sender::new(state.end);
        let mut writer = Self {
            tail: Tail::new(&parts.ledger, Position(state.next.position)),
            end: parts.end,
            is_ending: false,
            end_of_ledger: Position(u64::MAX),
            book: Book::new(state, parts.interval),
            spool,
            ledger: parts.ledger,
            keys: parts.keys,
            uploader: Arc::new(uploader),
            newest,
            newest_is_settled,
            undelivered: undelivered
                .into_iter()
                .map(|number| (number, Done::default()))
                .collect(),
            awaited: None,
            sealing: None,
            uploads: JoinSet::new(),
            backoff: Backoff::default(),
            not_before: Instant::now(),
            closed_at: Instant::now(),
            wanted,
            sealed_until,
        };
        if is_ending {
            writer.come_to_an_end();
        }
        Ok(Some(writer))
    }

    /// The lowest position of the ledger that is still wanted.
    pub fn watch_wanted(&self) -> watch::Receiver<Position> {
        self.wanted.subscribe()
    }

    /// Every window that ended by then is sealed; seconds since 1970.
    pub fn watch_sealed_until(&self) -> watch::Receiver<i64> {
        self.sealed_until.subscribe()
    }

    /// Runs until `stop`, or until the chains have ended and all is delivered.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WriterError> {
        loop {
            self.heed_the_clock().await;
            self.start_sealing();
            self.start_upload();
            if self.is_finished() {
                self.uploader.view.retire();
                self.wanted.send_replace(Position(u64::MAX));
                self.sealed_until.send_replace(i64::MAX);
                return Ok(());
            }
            let (has_room, pause) = (self.has_room(), self.pause());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.end.cancelled(), if !self.is_ending => self.come_to_an_end(),
                Some(sealed) = OptionFuture::from(self.sealing.as_mut()) => {
                    self.sealing = None;
                    // Not to be given up half-way: what is being written must be written before anybody else looks at it.
                    let sealed = match sealed {
                        Ok((drafts, digests)) => self.write(drafts, digests).await,
                        Err(error) => Err(error),
                    };
                    self.sealed(sealed).await;
                }
                Some(uploaded) = self.uploads.join_next() => self.uploaded(uploaded?).await,
                chunk = self.tail.next(), if has_room => self.take(&chunk?),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn come_to_an_end(&mut self) {
        self.is_ending = true;
        self.end_of_ledger = self.ledger.durable();
        self.book.come_to_an_end();
    }

    fn is_finished(&self) -> bool {
        self.book.state().has_ended
            && self.sealing.is_none()
            && self.undelivered.is_empty()
            && self.uploads.is_empty()
    }

    /// Drafts stay what they are while they are being signed.
    fn has_room(&self) -> bool {
        self.sealing.is_none()
            && !self.has_read_all()
            && self.book.held_ledger_bytes() < HELD_LEDGER_BYTES
    }

    fn has_read_all(&self) -> bool {
        self.tail.position() >= self.end_of_ledger
    }

    fn take(&mut self, chunk: &Chunk) {
        let mut unnameable = 0;
        for (position, frame) in chunk.iter() {
            if position < self.end_of_ledger {
                unnameable += self.book.take(position, frame);
            }
        }
        self.book.advance(chunk.next.min(self.end_of_ledger));
        self.wanted.send_replace(self.book.wanted());
        if unnameable > 0 {
            tracing::error!(
                trail = %self.uploader.place.name, log_files = unnameable,
                "ledger has no hash for these log files, they will be in no digest file"
            );
        }
    }

    /// Until the clock should be looked at again.
    fn pause(&self) -> Duration {
        let pause = self.book.wait(WallMillis::now().unix_seconds());
        let until_retry = self.not_before.saturating_duration_since(Instant::now());
        pause
            .clamp(Duration::from_millis(100), LOOK)
            .max(until_retry)
    }

    /// Begins new chains when the clock is found to have been far ahead.
    async fn heed_the_clock(&mut self) {
        if self.sealing.is_some() || Instant::now() < self.not_before {
            return;
        }
        let now = WallMillis::now().unix_seconds();
        let Some(state) = self.book.beginning_anew(now) else {
            return;
        };
        tracing::warn!(
            trail = %self.uploader.place.name,
            newest_window_ends = self.book.state().end, now,
            "the newest digest files are of a time that the clock is far from: it must have been wrong. New chains begin"
        );
        let (spool, number, written) = (self.spool.clone(), self.newest + 1, state.clone());
        let written =
            crate::background::spawn_blocking(move || spool.write(number, &written, &[])).await;
        match written {
            Ok(Ok(())) => {
                self.newest = number;
                self.newest_is_settled = true;
                self.book.begin_anew(state);
                self.closed_at = Instant::now();
            }
            Ok(Err(error)) => self.not_sealed(&SealError::Write(error)),
            Err(error) => self.not_sealed(&SealError::Task(error)),
        }
    }

    /// Begins to seal a window that is over, as soon as all that was delivered in it is read.
    fn start_sealing(&mut self) {
        if self.sealing.is_some() || Instant::now() < self.not_before {
            return;
        }
        let now = WallMillis::now().unix_seconds();
        let is_pressed = self.book.held_ledger_bytes() > PRESSING_LEDGER_BYTES;
        if self.undelivered.len() >= MAX_UNDELIVERED && !self.is_ending {
            return;
        }
        let Some(window) = self.book.due(now, self.closed_at.elapsed(), is_pressed) else {
            return;
        };
        let durable = self.ledger.durable().min(self.end_of_ledger);
        let wanted = *self.awaited.get_or_insert(durable);
        if self.tail.position() < wanted && self.book.held_ledger_bytes() < HELD_LEDGER_BYTES {
            return;
        }
        self.awaited = None;
        let drafts = self.book.draft(window, now);
        let view = self.uploader.view.clone();
        self.sealing = Some(Box::pin(sign_all(drafts, self.keys.clone(), now, view)));
    }

    /// When this returns, the window is sealed.
    fn write(
        &self,
        drafts: Drafts,
        digests: Vec<Sealed>,
    ) -> impl Future<Output = Result<Drafts, SealError>> + Send + use<> {
        let (spool, number) = (self.spool.clone(), self.newest + 1);
        let written = crate::background::spawn_blocking(move || {
            spool.write(number, &drafts.state, &digests)?;
            Ok(drafts)
        });
        async move { written.await?.map_err(SealError::Write) }
    }

    async fn sealed(&mut self, sealed: Result<Drafts, SealError>) {
        let drafts = match sealed {
            Ok(drafts) => drafts,
            Err(error) => return self.not_sealed(&error),
        };
        self.backoff.reset();
        if std::mem::take(&mut self.newest_is_settled) {
            let (spool, former) = (self.spool.clone(), self.newest);
            note(self.newest, move || spool.remove(former)).await;
        }
        self.newest += 1;
        self.undelivered.push_back((self.newest, Done::default()));
        self.closed_at = Instant::now();
        if drafts.window.is_last {
            tracing::info!(trail = %self.uploader.place.name, "final digest files are sealed, the chains have ended");
        }
        self.book.close(drafts);
        self.wanted.send_replace(self.book.wanted());
        self.sealed_until.send_replace(self.book.state().end);
        self.tell();
    }

    fn not_sealed(&mut self, error: &SealError) {
        self.not_before = Instant::now() + self.backoff.next_delay();
        let error = chain(error);
        tracing::error!(
            trail = %self.uploader.place.name, %error,
            "cannot seal digest files, will retry; log files are delivered as before"
        );
        let message = error.to_string();
        let view = &self.uploader.view;
        view.failed("SealError", message, WallMillis::now());
    }

    fn tell(&self) {
        let pending = self.undelivered.len() + self.uploads.len();
        self.uploader.view.stands(self.book.state().end, pending);
    }

    /// One window at a time; one that fails goes behind the others.
    fn start_upload(&mut self) {
        if !self.uploads.is_empty() {
            return;
        }
        let Some((number, done)) = self.undelivered.pop_front() else {
            return;
        };
        let (uploader, spool) = (self.uploader.clone(), self.spool.clone());
        self.uploads.spawn(async move {
            let read = crate::background::spawn_blocking(move || spool.digests(number)).await;
            let (is_complete, done) = match read {
                Ok(Ok(Some(digests))) => uploader.deliver(digests, done).await,
                // It is told, and kept for whoever wants to look.
                Ok(Ok(None)) => (true, Done { has_taken: true, ..done }),
                Ok(Err(error)) => {
                    tracing::warn!(window = number, %error, "sealed digests cannot be read, will retry");
                    tokio::time::sleep(LOOK).await;
                    (false, done)
                }
                Err(_stopping) => (false, done),
            };
            Uploaded {
                number,
                is_complete,
                done,
            }
        });
    }

    async fn uploaded(&mut self, uploaded: Uploaded) {
        let Uploaded {
            number,
            is_complete,
            done,
        } = uploaded;
        if !is_complete {
            self.undelivered.push_back((number, done));
        } else if !done.has_taken {
            self.settle(number).await;
        }
        self.tell();
    }

    /// A window is delivered. The newest keeps the state, which while the next one is being sealed is still its own.
    async fn settle(&mut self, number: u64) {
        let state = (number == self.newest).then(|| self.book.state().clone());
        self.newest_is_settled |= state.is_some();
        let spool = self.spool.clone();
        note(number, move || spool.settle(number, state.as_ref())).await;
    }
}

/// Notes that a window is delivered. When that fails, it is delivered again after the next start.
async fn note(window: u64, noting: impl FnOnce() -> io::Result<()> + Send + 'static) {
    match crate::background::spawn_blocking(noting).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            window, %error,
            "cannot note that digest files are delivered, they are delivered again after the next start"
        ),
        Err(_stopping) => {}
    }
}

async fn sign_all(
    mut drafts: Drafts,
    keys: Keys,
    now: i64,
    view: View,
) -> Result<(Drafts, Vec<Sealed>), SealError> {
    let unsigned = std::mem::take(&mut drafts.digests).into_iter();
    let signing =
        unsigned.map(|draft| {
            let (keys, view) = (&keys, &view);
            async move {
                Ok::<_, SealError>((draft.source, sign_patiently(draft, keys, now, view).await?))
            }
        });
    let mut signing = futures::stream::iter(signing).buffered(PARALLEL_SIGNATURES);
    let mut digests = Vec::new();
    while let Some(signed) = signing.next().await {
        let (source, sealed) = signed?;
        let previous = sealed.signed.as_previous(sealed.location.clone());
        drafts.set_head(source, previous);
        digests.push(sealed);
    }
    drop(signing);
    Ok((drafts, digests))
}

/// One signature of thousands that is throttled must not cost all the others.
async fn sign_patiently(
    draft: Draft,
    keys: &Keys,
    now: i64,
    view: &View,
) -> Result<Sealed, SealError> {
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match sign(draft.clone(), keys, now).await {
            Err(error) if began.elapsed() < SIGN_WITHIN && error.is_of_kms() => {
                let error = chain(&error);
                tracing::warn!(%error, "cannot sign a digest file, will retry");
                view.failed("SealError", error.to_string(), WallMillis::now());
                tokio::time::sleep(backoff.next_delay()).await;
            }
            signed => return signed,
        }
    }
}

async fn sign(draft: Draft, keys: &Keys, now: i64) -> Result<Sealed, SealError> {
    let region = draft.source.region;
    let (at, backfilled_at) = match draft.window.kind {
        Kind::Standard => (draft.window.end, None),
        Kind::Backfill => (now, Some(now)),
    };
    let at = WallMillis(at.saturating_mul(1000));
    let signer = keys.signer(region, at).await;
    let signer = signer.map_err(|source| SealError::Keys { region, source })?;
    let digest = draft.digest(signer.fingerprint());
    Ok(Sealed {
        signed: Signed::new(&digest, &signer).await?,
        location: digest.location,
        backfilled_at,
    })
}

#[cfg(test)]
mod tests;
