//! The commands: what people type, and what they are told.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 it did not work, 2 usage, 78 configuration (`EX_CONFIG` of sysexits.h).

mod client;
mod demo;
mod dlq;
mod health;
mod journal;
mod lookup;
mod run;
mod send;
mod status;
mod trust;
mod validate;
pub(crate) mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, Loaded, Mistake};

/// An open, self-hosted AWS CloudTrail: audit events in, CloudTrail log files out
#[derive(Debug, Parser)]
#[command(
    name = "traild",
    version,
    max_term_width = 120,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "exit codes: 0 done, 1 it did not work, 2 usage, 78 configuration")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::Arguments),
    /// Run the daemon on sample events and show how to read what it delivers
    Demo(demo::Arguments),
    /// Check a configuration and tell every mistake in it
    Validate(validate::Arguments),
    /// Send events to a running daemon
    Send(send::Arguments),
    /// Show what a running daemon has delivered, and what not yet
    Status(status::Arguments),
    /// Look up recent events
    Lookup(lookup::Arguments),
    /// Ask a running daemon whether it is well: exit 0 if it is, 1 if not
    Health(health::Arguments),
    /// Check the digests of a bucket and the log files that they vouch for
    Verify(verify::Arguments),
    /// Look into the journal and the ledger on the disk
    #[command(subcommand)]
    Wal(journal::Command),
    /// Look at dead letters, and send them again
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Print shell completions
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// Which configuration to use.
#[derive(Debug, Clone, clap::Args)]
struct ConfigArgument {
    /// The configuration; without it ./traild.toml, then /etc/traild/traild.toml, then the embedded default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where a daemon keeps what it has, whether it runs or not.
#[derive(Debug, Clone, clap::Args)]
struct DataDirArgument {
    /// The daemon's data_dir
    #[arg(long, value_name = "DIR", default_value = "./traild-data")]
    data_dir: PathBuf,
}

/// Where a daemon listens.
#[derive(Debug, Clone, clap::Args)]
struct EndpointArgument {
    /// The daemon's api listener: http://HOST:PORT, https://HOST:PORT or unix:/PATH
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4580")]
    endpoint: client::Endpoint,
    #[command(flatten)]
    trust: trust::Trust,
}

impl EndpointArgument {
    fn client(self) -> client::Client {
        client::Client::new(self.endpoint).trusting(self.trust)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// It did not work.
    Failed {
        error: anyhow::Error,
        hint: Option<String>,
    },
    /// It did not work, and the reader has been told.
    Told,
    /// The configuration has mistakes.
    Configuration(Vec<Mistake>),
}

impl Failure {
    pub fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> Self {
        Self::Failed {
            error: error.into(),
            hint: Some(hint.into()),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Told => 1,
            Self::Configuration(_) => 78,
        }
    }

    fn tell(&self) {
        match self {
            Self::Failed { error, hint } => {
                talk(format!("error: {error:#}"));
                if let Some(hint) = hint {
                    talk(format!("  hint: {hint}"));
                }
            }
            Self::Told => {}
            Self::Configuration(mistakes) => {
                for mistake in mistakes {
                    talk(mistake);
                }
                talk(format!(
                    "error: the configuration has {}",
                    counted(mistakes.len(), "mistake")
                ));
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed {
            error: error.into(),
            hint: None,
        }
    }
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    // clap exits with 2 on its own for what it cannot parse.
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
        Command::Validate(arguments) => validate::run(arguments),
        Command::Send(arguments) => send::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Lookup(arguments) => lookup::run(arguments),
        Command::Health(arguments) => health::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Wal(command) => journal::run(command),
        Command::Dlq(command) => dlq::run(command),
        Command::Completions { shell } => print(completions(shell)),
        Command::Man => manual().map_err(Failure::from).and_then(print),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code())
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "traild", &mut out);
    out
}

/// One page: the program, then each command.
fn manual() -> io::Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut out = Vec::new();
    let page = clap_mangen::Man::new(command.clone());
    page.render(&mut out)?;
    describe_below(&command, &mut out)?;
    Ok(out)
}

fn describe_below(command: &clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        let page = clap_mangen::Man::new(below.clone());
        let typed = below.get_bin_name().unwrap_or(below.get_name());
        writeln!(out, ".SH \"{}\"", typed.to_uppercase())?;
        page.render_description_section(out)?;
        page.render_synopsis_section(out)?;
        page.render_options_section(out)?;
        describe_below(below, out)?;
    }
    Ok(())
}

/// Data, to stdout. A reader that has seen enough (`| head`) is no error.
fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(bytes.as_ref())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A line of talk, to stderr. Nobody can be told when that fails.
fn talk(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Loads the configuration, and tells what is doubtful in it.
fn load(argument: &ConfigArgument) -> Result<Loaded, Failure> {
    let loaded = config::load(argument.config.as_deref(), config::environment())
        .map_err(Failure::Configuration)?;
    for warning in &loaded.warnings {
        talk(format!("warning: {warning}"));
    }
    Ok(loaded)
}

/// A runtime for a command that mostly waits.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn completions_and_manual_name_every_command() {
        let manual = String::from_utf8(manual().unwrap()).unwrap();
        let bash = String::from_utf8(completions(clap_complete::Shell::Bash)).unwrap();
        for command in [
            "run",
            "demo",
            "validate",
            "send",
            "status",
            "lookup",
            "health",
            "verify",
            "wal",
            "wal inspect",
            "dlq",
            "dlq list",
            "dlq replay",
            "completions",
            "man",
        ] {
            assert!(
                manual.contains(&format!("TRAILD {}", command.to_uppercase())),
                "{command}"
            );
            let last = command.rsplit(' ').next().unwrap();
            assert!(bash.contains(last), "{command}");
        }
        assert!(manual.contains("\\-\\-offline"));
    }
}
