//! A disk in memory that crashes, loses power, fails and fills up on demand.
//!
//! It keeps apart what is in the page cache and what is on the platter. A sync moves one file's dirty sectors, or one
//! directory's entries, over. A failed sync drops them, as Linux does: the cache goes on showing what the platter will never
//! hold, and the next sync reports success. A power loss keeps any subset of the dirty sectors, any length between the two,
//! and any subset of the changed entries.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Access, Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// Operations that change something. Reads are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Write,
    SetBytes,
    SyncData,
    Remove,
    SyncDirectory,
}

/// Clones share the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    next_file: u64,
    /// Handles of an earlier life are dead.
    life: u64,
    operations: u64,
    counts: BTreeMap<Operation, u64>,
    stop_at: Option<u64>,
    stopped: bool,
    faults: Vec<(Operation, u64, i32)>,
    fired: u64,
    forgotten: Vec<Operation>,
    capacity: Option<u64>,
    /// Files and offsets that cannot be read.
    unreadable: Vec<(u64, u64)>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors whose cached content a sync would write.
    dirty: BTreeSet<usize>,
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changing operations since the beginning.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Stops in the middle of the `operation`-th changing operation: it is half done, and nothing works after it.
    pub fn stop_at(&self, operation: u64) {
        self.state().stop_at = Some(operation);
    }

    /// Nothing works from now on.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// Fails the `nth` (from 1, counted from now) operation of its kind with this error number.
    pub fn fail(&self, operation: Operation, nth: u64, errno: rustix::io::Errno) {
        let mut state = self.state();
        let nth = state.counts.get(&operation).copied().unwrap_or(0) + nth;
        state.faults.push((operation, nth, errno.raw_os_error()));
    }

    /// Every operation waits until what is given is dropped.
    pub fn hold(&self) -> impl Sized + '_ {
        self.state()
    }

    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Faults and stops that happened.
    pub fn fired(&self) -> u64 {
        self.state().fired
    }

    /// From now on this operation reports success and does nothing: shows that a test would notice its absence.
    pub fn forget(&self, operation: Operation) {
        self.state().forgotten.push(operation);
    }

    /// Bytes all files may have together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// The process is gone, the machine goes on: what was written is there.
    pub fn restart(&self) {
        let mut state = self.state();
        state.life += 1;
        state.stopped = false;
        state.stop_at = None;
        state.faults.clear();
    }

    /// The machine goes down and comes up again.
    pub fn power_loss(&self, seed: u64) {
        self.restart();
        let mut state = self.state();
        let mut random = Random(seed);
        let loss = Loss::draw(&mut random);
        for content in state.files.values_mut() {
            content.lose_power(loss, &mut random);
        }
        let all: BTreeSet<PathBuf> = state
            .names
            .keys()
            .chain(state.durable_names.keys())
            .cloned()
            .collect();
        let mut names = BTreeMap::new();
        for path in all {
            let (cached, durable) = (state.names.get(&path), state.durable_names.get(&path));
            let survivor = if loss.keeps(&mut random) {
                cached
            } else {
                durable
            };
            if let Some(file) = survivor {
                names.insert(path, *file);
            }
        }
        state.durable_names = names.clone();
        state.names = names;
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    pub fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.files[&state.names[path]].cached.clone()
    }

    /// Damages a file behind everyone's back, on the platter and in the cache.
    pub fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[path];
        let content = state.files.get_mut(&file).unwrap();
        change(&mut content.cached);
        content.durable = content.cached.clone();
        content.dirty.clear();
    }

    /// From now on, reading the byte at `offset` fails.
    pub fn break_byte(&self, path: &Path, offset: u64) {
        let mut state = self.state();
        let file = state.names[path];
        state.unreadable.push((file, offset));
    }

    /// Puts a file there, or removes it when there is no content.
    pub fn put(&self, path: &Path, content: Option<Vec<u8>>) {
        let mut state = self.state();
        let Some(bytes) = content else {
            state.names.remove(path);
            state.durable_names.remove(path);
            return;
        };
        let file = state.next_file;
        state.next_file += 1;
        let content = Content {
            cached: bytes.clone(),
            durable: bytes,
            dirty: BTreeSet::new(),
        };
        state.files.insert(file, content);
        state.names.insert(path.to_path_buf(), file);
        state.durable_names.insert(path.to_path_buf(), file);
    }
}

/// What a power loss leaves of what was not synced.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Everything,
    Nothing,
    Some,
}

impl Loss {
    fn draw(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::Everything,
            1 => Self::Nothing,
            _ => Self::Some,
        }
    }

    fn keeps(self, random: &mut Random) -> bool {
        match self {
            Self::Everything => false,
            Self::Nothing => true,
            Self::Some => random.below(2) == 0,
        }
    }
}

impl Content {
    fn lose_power(&mut self, loss: Loss, random: &mut Random) {
        let (short, long) = (
            self.durable.len().min(self.cached.len()),
            self.durable.len().max(self.cached.len()),
        );
        let bytes = match (loss.keeps(random), random.below(3)) {
            (true, _) => self.cached.len(),
            (false, 0) if matches!(loss, Loss::Some) => {
                short + random.below((long - short) as u64 + 1) as usize
            }
            (false, _) => self.durable.len(),
        };
        let mut survivor = self.durable.clone();
        survivor.resize(bytes, 0);
        for sector in &self.dirty {
            if !loss.keeps(random) {
                continue;
            }
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(bytes).min(self.cached.len());
            if start < end {
                survivor[start..end].copy_from_slice(&self.cached[start..end]);
            }
        }
        self.cached = survivor.clone();
        self.durable = survivor;
        self.dirty.clear();
    }

    fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        if self.cached.len() < at + bytes.len() {
            let old = self.cached.len();
            self.cached.resize(at + bytes.len(), 0);
            self.mark(old, at);
        }
        self.cached[at..at + bytes.len()].copy_from_slice(bytes);
        self.mark(at, at + bytes.len());
    }

    fn mark(&mut self, start: usize, end: usize) {
        if start < end {
            self.dirty
                .extend(start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    fn set_bytes(&mut self, bytes: usize) {
        let old = self.cached.len();
        self.cached.resize(bytes, 0);
        self.mark(old, bytes);
        // The rest of the last sector is gone, and so is what was not synced behind it.
        self.dirty.retain(|sector| sector * SECTOR_BYTES < bytes);
    }

    fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.cached.len());
            self.durable[start..end].copy_from_slice(&self.cached[start..end]);
        }
    }
}

/// What the disk says to an operation.
enum Verdict {
    Do,
    /// Do half of it, then fail.
    Half(io::Error),
    Fail(io::Error),
    Pretend,
}

impl State {
    fn alive(&self, life: u64) -> io::Result<()> {
        match self.stopped || self.life != life {
            true => Err(io::Error::other("the simulated machine has stopped")),
            false => Ok(()),
        }
    }

    fn judge(&mut self, life: u64, operation: Operation) -> Verdict {
        if let Err(error) = self.alive(life) {
            return Verdict::Fail(error);
        }
        self.operations += 1;
        let count = self.counts.entry(operation).or_default();
        *count += 1;
        let count = *count;
        if self.stop_at == Some(self.operations) {
            self.stopped = true;
            self.fired += 1;
            return Verdict::Half(io::Error::other("the simulated machine stops"));
        }
        if let Some((_, _, errno)) = self
            .faults
            .iter()
            .find(|(kind, nth, _)| *kind == operation && *nth == count)
        {
            let error = io::Error::from_raw_os_error(*errno);
            self.fired += 1;
            return Verdict::Half(error);
        }
        match self.forgotten.contains(&operation) {
            true => Verdict::Pretend,
            false => Verdict::Do,
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|file| self.files[file].cached.len() as u64)
            .sum()
    }
}

fn no_space() -> io::Error {
    rustix::io::Errno::NOSPC.into()
}

impl Disk for SimDisk {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        let state = self.state();
        state.alive(state.life)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive(state.life)?;
        let names = state
            .names
            .keys()
            .filter(|path| path.parent() == Some(directory))
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned());
        Ok(names.collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let life = state.life;
        match state.judge(life, Operation::Create) {
            Verdict::Half(error) | Verdict::Fail(error) => return Err(error),
            Verdict::Do | Verdict::Pretend => {}
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Content::default());
        state.names.insert(path.to_path_buf(), file);
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, file, life }))
    }

    fn open(&self, path: &Path, _access: Access) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        let life = state.life;
        state.alive(life)?;
        let Some(file) = state.names.get(path).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let disk = self.clone();
        Ok(Box::new(SimFile { disk, file, life }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        match state.judge(life, Operation::Remove) {
            Verdict::Half(error) | Verdict::Fail(error) => return Err(error),
            Verdict::Do | Verdict::Pretend => {}
        }
        match state.names.remove(path) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state();
        let life = state.life;
        match state.judge(life, Operation::SyncDirectory) {
            Verdict::Half(error) | Verdict::Fail(error) => return Err(error),
            Verdict::Pretend => return Ok(()),
            Verdict::Do => {}
        }
        let inside = |path: &PathBuf| path.parent() == Some(directory);
        state.durable_names.retain(|path, _| !inside(path));
        let entries: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| inside(path))
            .map(|(path, file)| (path.clone(), *file))
            .collect();
        state.durable_names.extend(entries);
        Ok(())
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state
            .capacity
            .map_or(u64::MAX, |bytes| bytes.saturating_sub(state.used())))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.alive(self.life)?;
        Ok(state.files[&self.file].cached.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        state.alive(self.life)?;
        let content = &state.files[&self.file].cached;
        let start = (offset as usize).min(content.len());
        let count = buffer.len().min(content.len() - start);
        let read = offset..offset + count as u64;
        let broken = |(file, at): &(u64, u64)| *file == self.file && read.contains(at);
        if state.unreadable.iter().any(broken) {
            return Err(rustix::io::Errno::IO.into());
        }
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.judge(self.life, Operation::Write);
        let mut bytes = Vec::new();
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        let error = match verdict {
            Verdict::Fail(error) => return Err(error),
            Verdict::Pretend => return Ok(()),
            Verdict::Do => None,
            Verdict::Half(error) => {
                let half = Random(state.operations).below(bytes.len() as u64 + 1);
                bytes.truncate(half as usize);
                Some(error)
            }
        };
        let used = state.used();
        let capacity = state.capacity.unwrap_or(u64::MAX);
        let content = state.files.get_mut(&self.file).unwrap();
        let room = capacity.saturating_sub(used) as usize;
        let growth = (offset as usize + bytes.len()).saturating_sub(content.cached.len());
        let over = growth.saturating_sub(room);
        bytes.truncate(bytes.len() - over.min(bytes.len()));
        content.write(&bytes, offset as usize);
        match error {
            Some(error) => Err(error),
            None if over > 0 => Err(no_space()),
            None => Ok(()),
        }
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.judge(self.life, Operation::SetBytes) {
            Verdict::Half(error) | Verdict::Fail(error) => return Err(error),
            Verdict::Pretend => return Ok(()),
            Verdict::Do => {}
        }
        let content = state.files.get_mut(&self.file).unwrap();
        content.set_bytes(bytes as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.judge(self.life, Operation::SyncData);
        let stopped = state.stopped;
        let content = state.files.get_mut(&self.file).unwrap();
        match verdict {
            Verdict::Do => content.sync(),
            Verdict::Pretend => {}
            Verdict::Fail(error) => return Err(error),
            Verdict::Half(error) => {
                if !stopped {
                    content.dirty.clear();
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// SplitMix64: enough for tests, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
