//! `traild run`: the daemon.

use super::{ConfigArgument, Failure};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
}

pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let loaded = super::load(&arguments.config)?;
    Err(anyhow::anyhow!(
        "cannot run {}: the daemon is not part of this build",
        loaded.source
    )
    .into())
}
