//! The keys of digests, as the configuration asks for them.

use std::path::PathBuf;

use super::DaemonError;
use crate::config::Config;
use crate::digest::keys::{FileKeys, Keys};

/// Opens them, and makes their directory when there is none.
pub async fn open(config: &Config) -> Result<Keys, DaemonError> {
    let directory = directory(config);
    let files = tokio::task::spawn_blocking(move || FileKeys::open(&directory)).await??;
    Ok(Keys::Files(files))
}

/// `digest.key_dir`.
fn directory(config: &Config) -> PathBuf {
    let configured = config.digest.key_dir.clone();
    configured.unwrap_or_else(|| config.data_dir.join("keys"))
}
