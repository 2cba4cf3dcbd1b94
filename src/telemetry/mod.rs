//! How the daemon tells what it does: logs, metrics, its status, and its word to systemd.

pub mod logs;
pub mod metrics;
pub mod status;
pub mod systemd;
