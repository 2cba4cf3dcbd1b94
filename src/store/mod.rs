//! store (placeholder until merged)
use std::path::PathBuf;
pub struct Store;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct OpenError;
impl Store { pub fn open(_d: PathBuf) -> Result<Self, OpenError> { Err(OpenError) } }
pub async fn serve(_s: Store, _l: tokio::net::TcpListener, _stop: tokio_util::sync::CancellationToken) {}
