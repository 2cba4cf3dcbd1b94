//! What `GET /v1/status` answers and `traild status` shows.
//!
//! Times are RFC 3339 in UTC; amounts name their unit.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub ready: bool,
    /// Why not, when not ready.
    #[serde(default)]
    pub not_ready_reason: Option<String>,
    pub account_id: String,
    /// The home region.
    pub region: String,
    pub journal: JournalStatus,
    /// Nothing when none is kept.
    #[serde(default)]
    pub history: Option<HistoryStatus>,
    pub trails: Vec<TrailStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalStatus {
    pub bytes: u64,
    pub max_bytes: u64,
    /// The first position still held.
    pub start: u64,
    /// Every event before this position survives a power loss.
    pub durable: u64,
    /// Why nothing more is accepted, when the journal has failed.
    #[serde(default)]
    pub failure: Option<String>,
}

/// How the event history does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// Added since the daemon was started.
    pub events: u64,
    /// Bytes of the journal that it has not seen.
    pub pending_bytes: u64,
    /// Of its files.
    pub bytes: u64,
    /// Bytes of the journal that could not wait for it, since the daemon was started.
    pub skipped_bytes: u64,
    /// Files that were found damaged, since the daemon was started.
    pub quarantined_files: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrailStatus {
    pub name: String,
    pub arn: String,
    pub home_region: String,
    pub bucket: String,
    pub prefix: String,
    pub sinks: Vec<SinkStatus>,
    /// Of a trail with log file validation.
    #[serde(default)]
    pub digests: Option<DigestStatus>,
}

/// How the digest files of a trail do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestStatus {
    /// Digest files, since the daemon was started.
    pub delivered: u64,
    /// Windows whose digest files are sealed and not all delivered.
    pub pending_windows: u64,
    /// Digest files that are not in their chains, as something else has their key, since the daemon was started.
    #[serde(default)]
    pub undeliverable: u64,
    /// End of the newest window that has digest files.
    #[serde(default)]
    pub covered_until: Option<String>,
    #[serde(default)]
    pub last_delivery_at: Option<String>,
    /// The latest error, kept until a digest file is delivered.
    #[serde(default)]
    pub last_error: Option<LastError>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// `s3`, `sns`, `logs` or `bus`.
    pub sink: String,
    /// Where it sends to: `s3://bucket/prefix`, the ARN of a topic or a log group, the name or the ARN of an event bus.
    #[serde(default)]
    pub target: String,
    /// Events, since the trail began.
    pub delivered: u64,
    /// Events accepted and not delivered yet.
    pub pending: u64,
    /// Age of the oldest pending event; `None` when nothing is pending.
    #[serde(default)]
    pub oldest_pending_seconds: Option<f64>,
    pub dead_lettered: u64,
    pub objects: u64,
    #[serde(default)]
    pub last_delivery_at: Option<String>,
    /// The latest error, kept until a delivery succeeds.
    #[serde(default)]
    pub last_error: Option<LastError>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    pub code: String,
    pub message: String,
    pub at: String,
}
