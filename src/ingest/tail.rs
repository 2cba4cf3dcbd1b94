//! Reads files of NDJSON as they grow.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::accept::Ingest;

#[derive(Debug, Clone)]
pub struct Options {
    /// Paths, globs allowed, one for each `[[inputs.file]]`.
    pub paths: Vec<String>,
    /// Where positions are kept: `data_dir/inputs.json`.
    pub state_file: PathBuf,
    pub poll: Duration,
}

/// Follows the files until `stop`. An error is one of its own state file or of a pattern; trouble with a followed file is logged and
/// retried.
pub async fn run(_ingest: Ingest, _options: Options, _stop: CancellationToken) -> Result<(), Error> {
    todo!()
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use {path}")]
    State { path: PathBuf, #[source] source: std::io::Error },
    #[error("cannot understand the path pattern {pattern}")]
    Pattern { pattern: String, #[source] source: glob::PatternError },
}
