//! From a body of bytes to durable events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::accounts::{Accounts, Judge};
use super::answer::Answer;
use super::body::{Budget, Limits};
use super::dedup::Window;
use super::framing::{Broken, Framing};
use super::metrics::Metrics;
use super::rejected::Rejected;
use super::store::{Ready, Stamp, Store, Stored};
use crate::clock::WallMillis;
use crate::event::check::{read, refusal};
use crate::event::{AccountId, Checked, Code, Refusal, Region, Rules, Scanned, Secret, check};
use crate::wal::{Admitted, AppendError, MAX_PAYLOAD_BYTES, Wal};

/// What the events of one request may take in the journal, completed; with bodies allowed that are larger than half of this, twice a
/// body. Tiny events grow sevenfold when they are completed, and all of a request is in memory at once.
const MOST_STORED_BYTES: usize = 64 << 20;

/// Parsing lets other tasks run after so many bytes, about a third of a millisecond.
const PARSE_STEP: usize = 256 << 10;

#[derive(Debug, Clone)]
pub struct Options {
    /// Of one request, as sent and inflated.
    pub max_body_bytes: usize,
    pub max_event_bytes: usize,
    pub home_account: AccountId,
    pub home_region: Region,
    /// Bodies being read or waiting for the disk, all requests together.
    pub body_memory_bytes: usize,
    /// How long a sender may be slower than `min_body_bytes_per_second`.
    pub body_grace: Duration,
    pub min_body_bytes_per_second: u64,
}

impl Options {
    /// The contract's defaults.
    pub fn new(home_account: AccountId, home_region: Region) -> Self {
        Self {
            max_body_bytes: 16 << 20,
            max_event_bytes: 256 << 10,
            home_account,
            home_region,
            body_memory_bytes: 64 << 20,
            body_grace: Duration::from_secs(10),
            min_body_bytes_per_second: 8 << 10,
        }
    }
}

/// Who sends.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The caller's; without one the home account.
    pub account: Option<AccountId>,
    /// The request's; without one the home region.
    pub region: Option<Region>,
    /// The address written as `sourceIPAddress` into events that name none.
    pub peer: String,
    /// Whose events these may be.
    pub accounts: Accounts,
}

/// An event that was made here out of another form.
#[derive(Debug)]
pub struct Made {
    pub json: Vec<u8>,
    /// The eventID, when the JSON has none: the same again whenever the same event comes. It alone tells then whether the event is a duplicate.
    pub id: Option<Uuid>,
}

/// A handle on the ways in. Clones share it.
#[derive(Clone)]
pub struct Ingest {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    secret: Secret,
    options: Options,
    limits: Limits,
    budget: Budget,
    metrics: Metrics,
    stopping: AtomicBool,
}

impl Ingest {
    /// `window` has remembered what the sidecars and the journal hold (see [`super::dedup`]).
    pub fn new(wal: Wal, window: Window, options: Options, metrics: Metrics) -> Self {
        let mut options = options;
        // An event and what is added to it must fit a frame.
        options.max_event_bytes = options.max_event_bytes.min(MAX_PAYLOAD_BYTES / 2);
        let limits = Limits {
            max_body_bytes: options.max_body_bytes,
            grace: options.body_grace,
            min_bytes_per_second: options.min_body_bytes_per_second,
        };
        let shared = Shared {
            secret: window.secret().clone(),
            store: Store::new(wal, window),
            budget: Budget::new(options.body_memory_bytes, options.max_body_bytes),
            limits,
            options,
            metrics,
            stopping: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes the events of one body, NDJSON, array or `{"Records":[…]}`. Resolves when those accepted are durable. Dropping the
    /// future may leave them accepted.
    pub async fn accept(&self, body: Bytes, from: Origin) -> Answer {
        if self.is_stopping() {
            return unavailable(&AppendError::Closed);
        }
        let now = WallMillis::now();
        let (ready, rejected) = match self.sort_out(&body, &from, now).await {
            Ok(sorted) => sorted,
            Err(broken) => return broken.into(),
        };
        self.finish(ready, rejected, &from, now).await
    }

    /// Takes events that were made out of another form, in which they were one request. Resolves as [`accept`](Self::accept) does.
    pub async fn take(&self, events: &[Made], from: &Origin) -> Answer {
        if self.is_stopping() {
            return unavailable(&AppendError::Closed);
        }
        let now = WallMillis::now();
        let rules = self.rules(from, now);
        let mut accounts = from.accounts.judge();
        let mut ready = Vec::with_capacity(events.len());
        let mut rejected = Rejected::of(events.iter().map(|made| made.json.len()).sum());
        let mut until_pause = PARSE_STEP;
        for (index, made) in events.iter().enumerate() {
            let judged = read(&made.json)
                .and_then(|(given, found)| judge(given, &found, &rules, &mut accounts));
            match judged {
                Ok(event) => {
                    let id = |_: &[u8]| made.id.unwrap_or_else(Uuid::new_v4);
                    ready.push(Ready::new(event, self.secret(), id));
                }
                Err(refusal) => {
                    if let Err(broken) = rejected.push(index, refusal) {
                        return broken.into();
                    }
                }
            }
            until_pause = until_pause.saturating_sub(made.json.len());
            if until_pause == 0 {
                until_pause = PARSE_STEP;
                tokio::task::yield_now().await;
            }
        }
        self.finish(ready, rejected, from, now).await
    }

    /// Stores what passed, and answers for all of it.
    async fn finish(
        &self,
        ready: Vec<Ready<'_>>,
        rejected: Rejected,
        from: &Origin,
        now: WallMillis,
    ) -> Answer {
        let stamp = Stamp {
            accepted_at: now,
            source_address: &from.peer,
        };
        let (bytes, most) = (Store::most_bytes(&ready, &stamp), self.most_stored_bytes());
        if bytes > most {
            return Answer::TooLarge {
                message: format!(
                    "the {} events of the body take up to {bytes} bytes when their absent fields are filled in, at most {most} are \
                     taken at once; nothing was accepted, split the request",
                    ready.len()
                ),
            };
        }
        match self.shared.store.store(&ready, stamp).await {
            Ok(stored) => {
                self.count(stored);
                Answer::Taken {
                    accepted: stored.accepted,
                    duplicates: stored.duplicates,
                    rejected: rejected.counted(&self.shared.metrics),
                }
            }
            Err(error) => unavailable(&error),
        }
    }

    /// From now on every request is answered 503 `Stopping`; what was taken before is still answered.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Relaxed)
    }

    /// Parts the events of `body` into those to store and those refused.
    async fn sort_out<'b>(
        &self,
        body: &'b [u8],
        from: &Origin,
        now: WallMillis,
    ) -> Result<(Vec<Ready<'b>>, Rejected), Broken> {
        let rules = self.rules(from, now);
        let mut accounts = from.accounts.judge();
        let mut ready = Vec::new();
        let mut rejected = Rejected::of(body.len());
        let mut next_pause = PARSE_STEP;
        let mut framing = Framing::new(body)?;
        for index in 0.. {
            let Some(item) = framing.next_item()? else {
                break;
            };
            let judged =
                item.and_then(|(given, found)| judge(given, &found, &rules, &mut accounts));
            match judged {
                Ok(event) => ready.push(Ready::new(event, self.secret(), |_| Uuid::new_v4())),
                Err(refusal) => rejected.push(index, refusal)?,
            }
            if framing.position() >= next_pause {
                next_pause = framing.position() + PARSE_STEP;
                tokio::task::yield_now().await;
            }
        }
        Ok((ready, rejected))
    }

    pub(super) fn rules(&self, from: &Origin, now: WallMillis) -> Rules {
        let Options {
            max_event_bytes,
            home_account,
            home_region,
            ..
        } = self.shared.options;
        Rules {
            max_event_bytes,
            account: from.account.unwrap_or(home_account),
            region: from.region.unwrap_or(home_region),
            now,
        }
    }

    /// What the events of one request may take in the journal.
    pub(super) fn most_stored_bytes(&self) -> usize {
        MOST_STORED_BYTES.max(self.shared.options.max_body_bytes.saturating_mul(2))
    }

    /// Stores events that came in another way than a request, and counts them.
    pub(super) async fn store(
        &self,
        events: &[Ready<'_>],
        stamp: Stamp<'_>,
    ) -> Result<Stored, AppendError> {
        let stored = self.shared.store.store(events, stamp).await?;
        self.count(stored);
        Ok(stored)
    }

    /// Takes room in the journal for one event.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted, AppendError> {
        self.shared.store.admit(bytes)
    }

    /// Stores an event where there is room for it already, and counts it.
    pub(super) async fn store_in(
        &self,
        admitted: Admitted,
        event: &Ready<'_>,
        stamp: Stamp<'_>,
    ) -> Result<(), AppendError> {
        let stored = self.shared.store.store_in(admitted, event, stamp).await?;
        self.count(stored);
        Ok(())
    }

    fn count(&self, stored: Stored) {
        self.shared.metrics.accepted.inc_by(stored.accepted as u64);
        self.shared
            .metrics
            .duplicate
            .inc_by(stored.duplicates as u64);
    }

    pub(super) fn secret(&self) -> &Secret {
        &self.shared.secret
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(super) fn max_event_bytes(&self) -> usize {
        self.shared.options.max_event_bytes
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.shared.budget
    }
}

/// Whether an event is sound, and its sender's to send.
fn judge<'b>(
    given: &'b [u8],
    found: &Scanned,
    rules: &Rules,
    accounts: &mut Judge<'_>,
) -> Result<Checked<'b>, Refusal> {
    let event = check(given, found, rules)?;
    let allowed = accounts.check(event.account);
    allowed.map_err(|why| refusal(given, found, Code::AccessDenied, why))?;
    Ok(event)
}

/// What a sender is told when the journal does not take its events.
pub(super) fn unavailable(error: &AppendError) -> Answer {
    let (code, seconds) = match error {
        AppendError::Full { .. } => ("JournalFull", 5),
        AppendError::DiskFull { .. } => ("DiskFull", 10),
        AppendError::TooLarge { .. } | AppendError::NeverFits { .. } => {
            return Answer::TooLarge {
                message: format!("cannot store events: {error}; split the request"),
            };
        }
        AppendError::Failed { .. } => ("JournalFailed", 30),
        AppendError::Closed => ("Stopping", 2),
    };
    let message = match error {
        AppendError::Closed => "the daemon is stopping".to_owned(),
        error => format!("cannot store events: {error}"),
    };
    Answer::Unavailable {
        code,
        message,
        retry_after: Duration::from_secs(seconds),
    }
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
