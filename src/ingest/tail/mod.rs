//! Reads files of NDJSON as they grow.
//!
//! A line is taken when its newline is there; the last one of a file without a newline is taken when the file was rotated away and
//! has been quiet for a while. A file is known by device, inode and the hash of its first bytes, so it is followed through a rename and
//! not taken for another one that got its inode. A file that became shorter, or whose first bytes changed, is a new file from its
//! beginning (`copytruncate`; what was written between the copy and the truncation is gone with it).
//!
//! The position is saved after the events are durable. A crash in between means that lines are read again; they are duplicates by their
//! eventID, and lines without one are given an eventID that depends on the file, the offset and the bytes, so they are duplicates as well.
//! A journal that is full makes the reading wait. A line that is no event is logged with its file and offset, counted and stepped over.

mod files;
mod lines;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::accept::{Ingest, Origin};
use super::accounts::Accounts;
use super::store::{Ready, Stamp};
use crate::clock::WallMillis;
use crate::event::fingerprint::derived_event_id;
use crate::event::{Code, check};
use files::{Files, Piece};
use lines::lines;

/// Who reads a file is on this machine.
const SOURCE_ADDRESS: &str = "127.0.0.1";

/// What is read of a file in one go, at least.
const READ_BYTES: usize = 1 << 20;

/// Between two tries to store what the journal did not take.
const RETRY: Duration = Duration::from_secs(1);

/// Refused lines of one piece that are logged one by one.
const LOGGED: usize = 10;

#[derive(Debug, Clone)]
pub struct Options {
    /// Paths, globs allowed, one for each `[[inputs.file]]`.
    pub paths: Vec<String>,
    /// Where positions are kept: `data_dir/inputs.json`.
    pub state_file: PathBuf,
    pub poll: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {path}")]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot understand the path pattern {pattern}")]
    Pattern {
        pattern: String,
        #[source]
        source: glob::PatternError,
    },
    #[error("reading files broke off")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Follows the files until `stop`. An error is one of its own state file or of a pattern; trouble with a followed file is logged and
/// retried.
pub async fn run(ingest: Ingest, options: Options, stop: CancellationToken) -> Result<(), Error> {
    let read_bytes = READ_BYTES.max(ingest.max_event_bytes() + 4096);
    let (poll, mut files) = (
        options.poll,
        off_thread(move || Files::open(options, read_bytes)).await??,
    );
    while !stop.is_cancelled() {
        let known;
        (files, known) = off_thread(move || {
            let known = files.look();
            (files, known)
        })
        .await?;
        let mut progress = false;
        for number in 0..if known { files.len() } else { 0 } {
            let piece;
            (files, piece) = off_thread(move || {
                let piece = files.read(number);
                (files, piece)
            })
            .await?;
            let Some(piece) = piece else {
                continue;
            };
            if !take(&ingest, &piece, &stop).await {
                return Ok(());
            }
            files = off_thread(move || {
                files.advance(number, &piece);
                files
            })
            .await?;
            progress = true;
        }
        if !progress {
            stop.run_until_cancelled(tokio::time::sleep(poll)).await;
        }
    }
    Ok(())
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Error::Panicked)
}

/// Stores the events of a piece, however long that takes. Answers whether they are durable; not so when told to stop before.
async fn take(ingest: &Ingest, piece: &Piece, stop: &CancellationToken) -> bool {
    let now = WallMillis::now();
    let from = Origin {
        account: None,
        region: None,
        peer: SOURCE_ADDRESS.to_owned(),
        accounts: Accounts::every(),
    };
    let rules = ingest.rules(&from, now);
    let mut ready = Vec::new();
    let mut refused = 0;
    let mut refuse = |code: Code, offset: u64, message: &str| {
        ingest.metrics().count_rejected(code);
        refused += 1;
        if refused <= LOGGED {
            warn!(path = %piece.path.display(), offset, %code, message, "a line is no event and was stepped over");
        }
    };
    if let Some(offset) = piece.too_long_at {
        refuse(
            Code::EventTooLarge,
            offset,
            "the line is longer than an event may be",
        );
    }
    for (offset, item) in lines(&piece.bytes, piece.offset) {
        match item.and_then(|(given, found)| check(given, &found, &rules)) {
            Ok(event) => {
                ready.push(Ready::new(event, ingest.secret(), |given| {
                    derived_event_id(&piece.generation, offset, given)
                }));
            }
            Err(refusal) => refuse(refusal.code, offset, &refusal.message),
        }
    }
    if refused > LOGGED {
        warn!(path = %piece.path.display(), lines = refused - LOGGED, "more lines are no events and were stepped over");
    }
    let mut waiting = false;
    let mut rest = ready.as_slice();
    let mut part = rest.len();
    while !rest.is_empty() {
        let stamp = Stamp {
            accepted_at: now,
            source_address: SOURCE_ADDRESS,
        };
        let (first, behind) = rest.split_at(part.min(rest.len()));
        let Err(reason) = ingest.store(first, stamp).await else {
            rest = behind;
            continue;
        };
        // A little may fit where much does not.
        part = first.len().div_ceil(2);
        if !waiting {
            waiting = true;
            error!(path = %piece.path.display(), error = %reason, "cannot store events of a file, will retry until it works");
        }
        let told_to_stop = stop
            .run_until_cancelled(tokio::time::sleep(RETRY))
            .await
            .is_none();
        if told_to_stop || ingest.is_stopping() {
            return false;
        }
    }
    if waiting {
        info!(path = %piece.path.display(), "the journal takes events again, reading goes on");
    }
    true
}

#[cfg(test)]
mod tests;
