//! `traild health`: whether a running daemon is well, for what starts it again when it is not.
//!
//! A container's health check has no shell and no curl, only this program. It asks the ops listener, which needs no credentials.

use std::time::Duration;

use anyhow::anyhow;

use super::Failure;
use super::client::{Client, Endpoint};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The daemon's ops listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4581")]
    endpoint: Endpoint,
    /// Ask whether it accepts events (/readyz), not whether it is alive (/livez)
    #[arg(long)]
    ready: bool,
}

/// Who asks every few seconds has no use for a late answer.
const PATIENCE: Duration = Duration::from_secs(4);

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = match arguments.ready {
        true => "/readyz",
        false => "/livez",
    };
    let mut client = Client::new(arguments.endpoint);
    let answer = super::runtime()?.block_on(client.get(path, PATIENCE));
    let answer = answer.map_err(|error| {
        Failure::hinted(
            error,
            "is traild running? name its ops listener with --endpoint",
        )
    })?;
    if answer.status.is_success() {
        return super::print(answer.body);
    }
    let reason = String::from_utf8_lossy(&answer.body);
    Err(anyhow!(
        "{} answered {} to GET {path}: {}",
        client.endpoint(),
        answer.status,
        reason.trim_end()
    )
    .into())
}
