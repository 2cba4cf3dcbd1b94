//! From a body of bytes to durable events.

use std::time::Duration;

use bytes::Bytes;

use super::answer::Answer;
use super::dedup::Window;
use super::metrics::Metrics;
use crate::event::{AccountId, Region};
use crate::wal::Wal;

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
}

/// A handle on the ways in. Clones share it.
#[derive(Clone)]
pub struct Ingest {}

impl Ingest {
    /// `window` has remembered what the sidecars and the journal hold (see [`super::dedup`]).
    pub fn new(_wal: Wal, _window: Window, _options: Options, _metrics: Metrics) -> Self {
        todo!()
    }

    /// Takes the events of one body, NDJSON, array or `{"Records":[…]}`. Resolves when those accepted are durable. Dropping the
    /// future may leave them accepted.
    pub async fn accept(&self, _body: Bytes, _from: Origin) -> Answer {
        todo!()
    }

    /// From now on every request is answered 503 `Stopping`; what was taken before is still answered.
    pub fn stop(&self) {
        todo!()
    }
}
