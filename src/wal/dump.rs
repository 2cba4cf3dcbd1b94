//! The frames of a segment at rest, for people: reads one segment from outside, changes nothing, needs no lock.

use super::disk::{Access, Disk, RealDisk};
use super::segment::{FRAMES_AT, Header, Met, Walk};
use super::{OpenError, Position, SegmentReport};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Gives each intact frame of an inspected segment, in order.
pub fn dump(
    segment: &SegmentReport,
    each: &mut dyn FnMut(Position, &[u8]),
) -> Result<(), OpenError> {
    let failed = |source| OpenError::Io {
        path: segment.file.clone(),
        source,
    };
    let file = RealDisk.open(&segment.file, Access::Read).map_err(failed)?;
    let base = segment.base.0;
    let Ok(read) = Header::read(&*file, base).map_err(failed)? else {
        return Ok(());
    };
    let seed = read.header.seed();
    let range = FRAMES_AT..segment.bytes;
    let mut walk = Walk::new(&*file, base, seed, range, Vec::new(), READ_BYTES);
    loop {
        match walk.next().map_err(failed)? {
            Met::Frame { offset, payload } => {
                each(Position(base + offset), &walk.window()[payload])
            }
            Met::Damage { .. } => {}
            Met::End | Met::WindowEnds => return Ok(()),
        }
    }
}
