//! `traild wal`: a look into the journal and the ledger on the disk.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Failure, counted};
use crate::wal::{self, Inspection};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the segments of the journal and the ledger
    Inspect {
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Read everything, and exit with 1 if anything is damaged
    Check {
        #[command(flatten)]
        data_dir: DataDir,
    },
}

#[derive(Debug, clap::Args)]
pub struct DataDir {
    /// The daemon's data_dir
    #[arg(long, value_name = "DIR", default_value = "./traild-data")]
    data_dir: PathBuf,
}

/// The two logs below a data directory.
const LOGS: [&str; 2] = ["journal", "ledger"];

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Inspect { data_dir } => {
            let mut out = String::new();
            for (directory, inspection) in inspect(&data_dir.data_dir)? {
                out.push_str(&segments(&directory, &inspection));
            }
            super::print(out)
        }
        Command::Check { data_dir } => {
            let mut out = String::new();
            let mut sound = true;
            for (directory, inspection) in inspect(&data_dir.data_dir)? {
                out.push_str(&verdict(&directory, &inspection));
                sound &= inspection.is_sound();
            }
            super::print(out)?;
            if sound { Ok(()) } else { Err(Failure::Told) }
        }
    }
}

fn inspect(data_dir: &Path) -> Result<Vec<(PathBuf, Inspection)>, Failure> {
    let there: Vec<PathBuf> = LOGS
        .iter()
        .map(|log| data_dir.join(log))
        .filter(|path| path.is_dir())
        .collect();
    if there.is_empty() {
        let error = anyhow::anyhow!("cannot find a journal in {}", data_dir.display());
        return Err(Failure::hinted(
            error,
            "name the daemon's data_dir with --data-dir",
        ));
    }
    let mut read = Vec::new();
    for directory in there {
        let inspection = wal::inspect(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        read.push((directory, inspection));
    }
    Ok(read)
}

fn segments(directory: &Path, inspection: &Inspection) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    let bytes: u64 = inspection
        .segments
        .iter()
        .map(|segment| segment.bytes)
        .sum();
    line(format!(
        "{}: {}, {bytes} bytes",
        directory.display(),
        counted(inspection.segments.len(), "segment")
    ));
    for segment in &inspection.segments {
        let name = segment
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let span = match (segment.first, segment.last) {
            (Some(first), Some(last)) => format!("positions {} to {}", first.0, last.0),
            _ => "no frames".to_owned(),
        };
        let mut trouble = String::new();
        if segment.damaged_bytes > 0 {
            trouble.push_str(&format!(", {} damaged bytes", segment.damaged_bytes));
        }
        if segment.torn_bytes > 0 {
            trouble.push_str(&format!(
                ", {} bytes of an unfinished write",
                segment.torn_bytes
            ));
        }
        line(format!(
            "  {name}  {} bytes  {}  {span}{trouble}",
            segment.bytes,
            counted(segment.frames, "frame")
        ));
    }
    for quarantined in &inspection.quarantine {
        line(format!(
            "  quarantined: {}, {} bytes",
            quarantined.file.display(),
            quarantined.bytes
        ));
    }
    for name in &inspection.foreign {
        line(format!("  not a segment: {name}"));
    }
    out
}

fn verdict(directory: &Path, inspection: &Inspection) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    let frames: u64 = inspection
        .segments
        .iter()
        .map(|segment| segment.frames)
        .sum();
    let torn: u64 = inspection
        .segments
        .iter()
        .map(|segment| segment.torn_bytes)
        .sum();
    let mut damaged = 0;
    for segment in &inspection.segments {
        for damage in &segment.damage {
            damaged += damage.bytes;
            line(format!(
                "{}: {} bytes at offset {}: {:?}",
                segment.file.display(),
                damage.bytes,
                damage.offset,
                damage.reason
            ));
        }
    }
    let torn = if torn > 0 {
        format!(", {torn} bytes of an unfinished write, which are no damage")
    } else {
        String::new()
    };
    line(match inspection.is_sound() {
        true => format!(
            "{}: sound, {}{torn}",
            directory.display(),
            counted(frames, "frame")
        ),
        false => format!(
            "{}: {damaged} bytes damaged or missing, {} intact{torn}",
            directory.display(),
            counted(frames, "frame")
        ),
    });
    out
}
