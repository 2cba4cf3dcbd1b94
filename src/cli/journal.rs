//! `traild wal`: a look into the journal and the ledger on the disk.

use std::collections::VecDeque;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{DataDirArgument, Failure, counted};
use crate::event::Record;
use crate::wal::{self, Inspection, Position};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show the segments of the journal and the ledger
    Inspect {
        #[command(flatten)]
        data_dir: DataDirArgument,
        /// Also show the last N events of the journal: position, account, region, folder and JSON
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
        records: u16,
    },
    /// Read everything, and exit with 1 if anything is damaged
    Check {
        #[command(flatten)]
        data_dir: DataDirArgument,
    },
}

/// The two logs below a data directory.
const LOGS: [&str; 2] = [JOURNAL, "ledger"];
const JOURNAL: &str = "journal";

pub fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Inspect { data_dir, records } => {
            let mut out = String::new();
            for (directory, inspection) in inspect(&data_dir.data_dir)? {
                out.push_str(&segments(&directory, &inspection));
                if directory.ends_with(JOURNAL) {
                    out.push_str(&last_records(&inspection, usize::from(records))?);
                }
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

/// The last `wanted` events, oldest first, read from the newest segment backwards.
fn last_records(inspection: &Inspection, wanted: usize) -> Result<String, Failure> {
    let mut lines = VecDeque::new();
    for segment in inspection.segments.iter().rev() {
        let missing = wanted - lines.len();
        if missing == 0 {
            break;
        }
        let mut last = VecDeque::new();
        wal::dump(segment, &mut |position, payload| {
            if last.len() == missing {
                last.pop_front();
            }
            last.push_back((position, payload.to_vec()));
        })
        .with_context(|| format!("cannot read {}", segment.file.display()))?;
        for (position, payload) in last.iter().rev() {
            lines.push_front(record(*position, payload));
        }
    }
    Ok(lines.into_iter().collect())
}

fn record(position: Position, payload: &[u8]) -> String {
    match Record::decode(payload) {
        Ok(Record { meta, json }) => {
            let json = String::from_utf8_lossy(json);
            format!(
                "{} {} {} {} {json}\n",
                position.0,
                meta.account,
                meta.region,
                meta.category.folder().as_str()
            )
        }
        Err(error) => format!("{} {error}\n", position.0),
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::WallMillis;
    use crate::event::{Category, Meta};
    use crate::wal::{Batch, DiskReserve, Options, RealDisk, Wal};

    async fn journal(data_dir: &Path, events: usize) {
        let options = Options {
            directory: data_dir.join(JOURNAL),
            segment_bytes: 64 << 10,
            max_bytes: 1 << 30,
            disk_reserve: DiskReserve::None,
            queue_bytes: 1 << 20,
        };
        let (wal, _) = Wal::open(
            Arc::new(RealDisk),
            options,
            wal::Metrics::default(),
            &mut |_, _| {},
        )
        .unwrap();
        for number in 0..events {
            let meta = Meta {
                account: "111122223333".parse().unwrap(),
                region: "eu-central-1".parse().unwrap(),
                category: Category::Management,
                global_service: false,
                read_only: false,
                event_time: 0,
                accepted_at: WallMillis(0),
                fingerprint: [0; 16],
            };
            let mut batch = Batch::new();
            batch.push_with(|out| {
                meta.encode(out);
                out.extend_from_slice(
                    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(2000)).as_bytes(),
                );
            });
            wal.reserve(batch.bytes())
                .await
                .unwrap()
                .append(batch)
                .await
                .unwrap();
        }
        tokio::task::spawn_blocking(move || wal.close())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn the_last_records_are_shown_across_segments() {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path(), 100).await;
        let (_, inspection) = inspect(directory.path()).unwrap().remove(0);
        assert!(inspection.segments.len() > 2, "{inspection:?}");
        let text = last_records(&inspection, 50).unwrap();
        let numbers: Vec<usize> = text
            .lines()
            .map(|line| {
                line.split("\"n\":")
                    .nth(1)
                    .unwrap()
                    .split(',')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert_eq!(numbers, (50..100).collect::<Vec<_>>());
        assert!(
            text.lines()
                .all(|line| line.contains(" 111122223333 eu-central-1 CloudTrail {"))
        );
        assert_eq!(
            last_records(&inspection, 1000).unwrap().lines().count(),
            100
        );
        assert!(segments(directory.path(), &inspection).contains("segments, "));
    }

    #[tokio::test]
    async fn damage_is_told_with_file_and_offset() {
        let directory = tempfile::tempdir().unwrap();
        journal(directory.path(), 100).await;
        let (path, inspection) = inspect(directory.path()).unwrap().remove(0);
        assert!(verdict(&path, &inspection).contains("sound, 100 frames"));
        let first = &inspection.segments[0];
        let mut bytes = std::fs::read(&first.file).unwrap();
        bytes[20_000] ^= 0xff;
        std::fs::write(&first.file, bytes).unwrap();
        let check = Command::Check {
            data_dir: DataDirArgument {
                data_dir: directory.path().to_owned(),
            },
        };
        assert!(matches!(run(check), Err(Failure::Told)));
        let (path, inspection) = inspect(directory.path()).unwrap().remove(0);
        let told = verdict(&path, &inspection);
        assert!(
            told.contains("bytes damaged or missing, 99 frames intact"),
            "{told}"
        );
        assert!(told.contains("at offset"), "{told}");
    }
}
