//! Events of traild's own making: what its API was asked.
//!
//! They go the way of all others, into the journal, and are as durable. Room in the journal is taken before a change is made, so that what has been
//! done can be recorded although the journal fills meanwhile; a place in its queue only when the record is there, so that a change that takes long
//! is in no sender's way.

use std::time::Duration;

use super::accept::Ingest;
use super::store::{Ready, Stamp};
use crate::clock::WallMillis;
use crate::event::check::read;
use crate::event::{AccountId, Region, Rules, check};
use crate::wal::{Admitted, AppendError};

/// Bytes of a record: no limit of a sender's events holds for it, and this one is CloudTrail's (user guide, "CloudTrail record contents": 256 KB).
pub const MAX_RECORD_BYTES: usize = 256 << 10;

/// For what is put around a record in the journal.
const AROUND_BYTES: usize = 512;

/// Of whom and where a record is.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub account: AccountId,
    pub region: Region,
}

/// Why a record is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the journal does not take the record of it")]
    Journal(#[from] AppendError),
    #[error("the record of it is no event: {0}")]
    NoEvent(String),
    #[error("the disk does not answer, the record of it was not durable within {0:?}")]
    TooSlow(Duration),
}

/// Room in the journal for one record.
pub struct Room {
    ingest: Ingest,
    admitted: Admitted,
}

impl Ingest {
    /// Takes room for a record of so many bytes; refuses at once when the journal is full or has failed.
    pub fn room(&self, bytes: usize) -> Result<Room, AppendError> {
        let admitted = self.admit(bytes + AROUND_BYTES)?;
        let ingest = self.clone();
        Ok(Room { ingest, admitted })
    }
}

impl Room {
    /// Resolves when the record is durable. `event` is a whole one, with its eventID, of no more bytes than there is room for.
    pub async fn keep(self, event: &[u8], from: Origin) -> Result<(), RecordError> {
        let Self { ingest, admitted } = self;
        let now = WallMillis::now();
        let Origin { account, region } = from;
        let rules = Rules {
            max_event_bytes: MAX_RECORD_BYTES,
            account,
            region,
            now,
        };
        let checked = read(event).and_then(|(given, found)| check(given, &found, &rules));
        let checked = checked.map_err(|refusal| RecordError::NoEvent(refusal.to_string()))?;
        let ready = Ready::new(checked, ingest.secret(), |_| uuid::Uuid::new_v4());
        let stamp = Stamp {
            accepted_at: now,
            source_address: "127.0.0.1",
        };
        Ok(ingest.store_in(admitted, &ready, stamp).await?)
    }
}
