//! The two logs of a `data_dir`, opened and replayed.

use std::path::Path;
use std::sync::Arc;

use super::DaemonError;
use crate::config::Config;
use crate::deliver::memory;
use crate::digest::writer::{self, State};
use crate::history;
use crate::ingest::dedup::{Sidecars, Window};
use crate::ledger::Replay;
use crate::snapshot;
use crate::wal::{self, Disk, DiskReserve, Position, Wal};

const MIB: usize = 1 << 20;

/// Below `data_dir`: where the legs besides S3 are in their logs.
pub const CURSORS: &str = "cursors";

/// Below `data_dir`: sealed digests.
pub const DIGESTS: &str = "digests";

/// The journal and the ledger, with what they told.
pub struct Logs {
    pub identity: [u8; 16],
    /// Where a trail begins that the ledger does not know.
    pub new_from: Position,
    pub journal: Wal,
    pub ledger: Wal,
    pub replay: Replay,
    pub sidecars: Sidecars,
    pub window: Window,
}

impl Logs {
    /// Blocking.
    pub fn open(
        config: &Config,
        disk: Arc<dyn Disk>,
        metrics: wal::Metrics,
    ) -> Result<Self, DaemonError> {
        let data_dir = &config.data_dir;
        let unusable = |source| DaemonError::DataDir {
            path: data_dir.clone(),
            source,
        };
        let identity = identity(data_dir).map_err(unusable)?;
        let cursors = data_dir.join(CURSORS);
        snapshot::make_private_dir(&cursors).map_err(unusable)?;
        let remembered = memory::highest(&cursors).map_err(unusable)?;
        let digests = writer::states(&data_dir.join(DIGESTS)).map_err(unusable)?;
        let digests = digests.iter().map(State::ledger);

        let seen_by_history = history::follower::place(&data_dir.join(history::DIRECTORY));

        let mut replay = Replay::default();
        let options = wal::Options {
            directory: data_dir.join("ledger"),
            segment_bytes: 16 << 20,
            max_bytes: u64::MAX,
            disk_reserve: DiskReserve::None,
            queue_bytes: 64 * MIB,
        };
        let (ledger, recovery) = Wal::open_beyond(
            disk.clone(),
            options,
            wal::Metrics::default(),
            digests.fold(remembered.ledger, Position::max),
            &mut |at, frame| replay.take(at, frame),
        )
        .map_err(|source| DaemonError::Log {
            log: "ledger",
            source,
        })?;
        tracing::info!(?recovery, "ledger is open");
        let is_whole = recovery.frames > 0
            && recovery.damaged_ranges == 0
            && recovery.missing_bytes == 0
            && replay.undecodable() == 0;

        let window_events = config.ingest.dedup_window;
        let (sidecars, mut window) = Sidecars::open(data_dir, window_events).map_err(unusable)?;
        let options = wal::Options {
            directory: data_dir.join("journal"),
            segment_bytes: config.journal.segment_bytes,
            max_bytes: config.journal.max_bytes,
            disk_reserve: DiskReserve::Bytes(disk_reserve(config)),
            queue_bytes: 16 * MIB,
        };
        let (journal, recovery) = Wal::open_beyond(
            disk,
            options,
            metrics,
            replay
                .highest_position()
                .max(remembered.journal)
                .max(seen_by_history.unwrap_or_default()),
            &mut |_, frame| window.remember_frame(frame),
        )
        .map_err(|source| DaemonError::Log {
            log: "journal",
            source,
        })?;
        tracing::info!(?recovery, "journal is open");
        // A trail that a whole ledger does not know is new. A ledger that is lost or damaged may have forgotten it: then all
        // that the journal holds is delivered, rather twice than never.
        let new_from = if is_whole {
            journal.durable()
        } else {
            journal.start()
        };
        Ok(Self {
            identity,
            new_from,
            journal,
            ledger,
            replay,
            sidecars,
            window,
        })
    }
}

/// Free bytes of the disk that events may not take, so that the ledger can go on and deliveries can make room: one segment, but
/// no more than an eighth of a small journal.
pub fn disk_reserve(config: &Config) -> u64 {
    let journal = &config.journal;
    journal
        .segment_bytes
        .min(journal.max_bytes / 8)
        .clamp(1 << 20, 64 << 20)
}

/// The identity of this `data_dir`, made on its first use.
fn identity(data_dir: &Path) -> std::io::Result<[u8; 16]> {
    let path = data_dir.join("id");
    if let Some(text) = snapshot::read(&path)? {
        let mut identity = [0; 16];
        match hex::decode_to_slice(text.trim_ascii(), &mut identity) {
            Ok(()) => return Ok(identity),
            // It only has to be unlike any other: a new one serves as well. Batches that were sealed have their keys already.
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "identity cannot be read, a new one is made")
            }
        }
    }
    let mut identity = [0; 16];
    crate::random::fill(&mut identity).map_err(std::io::Error::other)?;
    snapshot::replace(&path, hex::encode(identity).as_bytes())?;
    Ok(identity)
}
