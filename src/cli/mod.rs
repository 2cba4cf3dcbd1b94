//! placeholder until merged
mod demo;
mod run;
use std::path::PathBuf;
use std::process::ExitCode;
use clap::{Parser, Subcommand};
use crate::config::{self, Loaded, Mistake};
#[derive(Debug, Parser)]
struct Arguments { #[command(subcommand)] command: Command }
#[derive(Debug, Subcommand)]
enum Command { Run(run::Arguments), Demo(demo::Arguments) }
#[derive(Debug, Clone, clap::Args)]
struct ConfigArgument { #[arg(long, value_name = "FILE")] config: Option<PathBuf> }
#[derive(Debug)]
pub enum Failure { Failed { error: anyhow::Error, hint: Option<String> }, Configuration(Vec<Mistake>) }
impl<E: Into<anyhow::Error>> From<E> for Failure { fn from(error: E) -> Self { Self::Failed { error: error.into(), hint: None } } }
fn load(a: &ConfigArgument) -> Result<Loaded, Failure> { config::load(a.config.as_deref(), config::environment()).map_err(Failure::Configuration) }
pub fn main() -> ExitCode {
    let r = match Arguments::parse().command { Command::Run(a) => run::run(a), Command::Demo(a) => demo::run(a) };
    match r { Ok(()) => ExitCode::SUCCESS, Err(f) => { eprintln!("{f:?}"); ExitCode::FAILURE } }
}
