//! Remembers the fingerprints of the last events, so that a batch sent again after a lost answer adds nothing.

use std::io;
use std::path::Path;

use crate::wal::{Position, Wal};

/// The last fingerprints, first in, first out.
pub struct Window {}

impl Window {
    /// Takes note of a frame of the journal, as `Wal::open` shows it.
    pub fn remember_frame(&mut self, _frame: &[u8]) {
        todo!()
    }
}

/// The fingerprints of journal segments that are gone, one small file each in `data_dir/dedup`.
pub struct Sidecars {}

impl Sidecars {
    /// Opens `data_dir/dedup`, making the directory and the secret on first use, and loads what it holds into a window of `events`.
    /// Then `Wal::open` with `|_, frame| window.remember_frame(frame)` adds what the journal still holds.
    pub fn open(_data_dir: &Path, _events: usize) -> io::Result<(Self, Window)> {
        todo!()
    }

    /// Deletes the journal's segments that end at or before `below`, each after its fingerprints are kept here. Blocking. Answers how
    /// many segments went.
    pub fn trim(&mut self, _wal: &Wal, _below: Position) -> io::Result<usize> {
        todo!()
    }
}
