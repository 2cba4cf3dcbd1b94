//! A look into a log from outside, for people: reads everything, changes nothing, needs no lock.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::disk::{Access, Disk, RealDisk};
use super::frame::Reason;
use super::recovery::QUARANTINE;
use super::segment::{self, FRAMES_AT, Header, HeaderError, Met, Walk};
use super::{Damage, OpenError, Position};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// Damaged ranges that are listed of each segment.
const LISTED_DAMAGE: usize = 1000;

/// A log as it stands on the disk.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Inspection {
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    pub quarantine: Vec<Quarantined>,
    /// Names of files that are not the log's.
    pub foreign: Vec<String>,
}

/// One segment as it stands on the disk.
#[derive(Debug, Clone, Serialize)]
pub struct SegmentReport {
    pub file: PathBuf,
    pub base: Position,
    pub bytes: u64,
    /// Intact frames.
    pub frames: u64,
    pub first: Option<Position>,
    pub last: Option<Position>,
    pub damaged_bytes: u64,
    /// The damaged ranges, and what is missing before the next segment; the first thousand of them.
    pub damage: Vec<Damage>,
    /// Bytes behind the last good frame of the newest segment: a torn write, or one in the making when the daemon runs.
    pub torn_bytes: u64,
}

/// A copy of a damaged range.
#[derive(Debug, Clone, Serialize)]
pub struct Quarantined {
    pub file: PathBuf,
    pub bytes: u64,
}

impl Inspection {
    /// Nothing is damaged or missing. A torn tail is no damage: it was never acknowledged.
    pub fn is_sound(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.damage.is_empty())
    }
}

/// Reads the whole log in `directory`.
pub fn inspect(directory: &Path) -> Result<Inspection, OpenError> {
    let disk = RealDisk;
    let names = disk.list(directory).map_err(|source| OpenError::Io {
        path: directory.to_path_buf(),
        source,
    })?;
    let mut inspection = Inspection {
        quarantine: quarantine(&disk, &directory.join(QUARANTINE)),
        ..Inspection::default()
    };
    let mut bases = Vec::new();
    for name in names {
        match segment::base_of(&name) {
            Some(base) => bases.push(base),
            None if name != QUARANTINE => inspection.foreign.push(name),
            None => {}
        }
    }
    bases.sort_unstable();
    inspection.foreign.sort_unstable();
    let mut window = Vec::new();
    for (index, base) in bases.iter().enumerate() {
        let path = directory.join(segment::name(*base));
        let newest = index + 1 == bases.len();
        // A running daemon may have trimmed the segment meanwhile.
        match one_segment(&disk, &path, *base, newest, &mut window) {
            Ok(Some((report, previous_end))) => {
                note_gap(inspection.segments.last_mut(), previous_end);
                inspection.segments.push(report);
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(inspection)
}

fn quarantine(disk: &RealDisk, directory: &Path) -> Vec<Quarantined> {
    let mut found = Vec::new();
    let mut names = disk.list(directory).unwrap_or_default();
    names.sort_unstable();
    for name in names {
        let file = directory.join(name);
        let bytes = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
        found.push(Quarantined { file, bytes });
    }
    found
}

fn note_gap(previous: Option<&mut SegmentReport>, previous_end: u64) {
    let Some(previous) = previous else { return };
    let end = previous.base.0 + previous.bytes;
    if previous_end > end {
        previous.damage.push(Damage {
            segment: previous.base,
            offset: previous.bytes,
            bytes: previous_end - end,
            reason: Reason::Missing,
        });
    }
}

/// The report, and where the header says that the frames before ended. Nothing when there is no such file.
fn one_segment(
    disk: &RealDisk,
    path: &Path,
    base: u64,
    newest: bool,
    window: &mut Vec<u8>,
) -> Result<Option<(SegmentReport, u64)>, OpenError> {
    let on_file = |source| OpenError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on_file(error)),
    };
    let bytes = file.bytes().map_err(on_file)?;
    let mut report = SegmentReport {
        file: path.to_path_buf(),
        base: Position(base),
        bytes,
        frames: 0,
        first: None,
        last: None,
        damaged_bytes: 0,
        damage: Vec::new(),
        torn_bytes: 0,
    };
    if newest && bytes < FRAMES_AT {
        report.torn_bytes = bytes;
        return Ok(Some((report, 0)));
    }
    let read = match Header::read(&*file, base).map_err(on_file)? {
        Ok(read) => read,
        Err(HeaderError::Damaged) => {
            report.damaged(0, bytes, Reason::SegmentHeader);
            return Ok(Some((report, 0)));
        }
        Err(HeaderError::Newer(version)) => {
            return Err(OpenError::Newer {
                path: path.to_path_buf(),
                version,
                known: segment::VERSION,
            });
        }
    };
    if !read.intact {
        report.damaged(0, FRAMES_AT.min(bytes), Reason::SegmentHeader);
    }
    let seed = read.header.seed();
    let range = FRAMES_AT..bytes;
    let mut walk = Walk::new(
        &*file,
        base,
        seed,
        range,
        std::mem::take(window),
        READ_BYTES,
    );
    let mut pending: Option<(u64, u64, Reason)> = None;
    loop {
        match walk.next().map_err(on_file)? {
            Met::Frame { offset, .. } => {
                if let Some((start, end, reason)) = pending.take() {
                    report.damaged(start, end - start, reason);
                }
                report.frames += 1;
                report.first.get_or_insert(Position(base + offset));
                report.last = Some(Position(base + offset));
            }
            Met::Damage { range, reason } => match &mut pending {
                Some((_, end, _)) => *end = range.end,
                None => pending = Some((range.start, range.end, reason)),
            },
            Met::End | Met::WindowEnds => break,
        }
    }
    *window = walk.into_window();
    match pending {
        Some((start, end, _)) if newest => report.torn_bytes = end - start,
        Some((start, end, reason)) => report.damaged(start, end - start, reason),
        None => {}
    }
    Ok(Some((report, read.header.previous_end)))
}

impl SegmentReport {
    fn damaged(&mut self, offset: u64, bytes: u64, reason: Reason) {
        self.damaged_bytes += bytes;
        if self.damage.len() < LISTED_DAMAGE {
            self.damage.push(Damage {
                segment: self.base,
                offset,
                bytes,
                reason,
            });
        }
    }
}
