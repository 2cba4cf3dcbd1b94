//! `traild demo`: the daemon on sample events.

use std::path::PathBuf;

use super::Failure;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// End when everything sent is delivered, with 0 if it was
    #[arg(long)]
    pub once: bool,
    /// Where to keep the demo's data
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Events to send instead of the samples, as NDJSON
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Events a second to send
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
}

pub fn run(_arguments: Arguments) -> Result<(), Failure> {
    Err(anyhow::anyhow!("cannot run the demo: the daemon is not part of this build").into())
}
