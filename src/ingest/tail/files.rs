//! The followed files: found, recognised, read, closed. Blocking.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::state::{self, Saved};
use super::{Error, Options};
use crate::clock::WallMillis;

/// A file is recognised by so many of its first bytes.
const PREFIX_BYTES: u64 = 256;

/// Five seconds, with the default poll.
const QUIET_POLLS: u32 = 20;

/// For so long the position of a file that is nowhere to be found is kept: its volume may be mounted again.
const KEEP_MISSING: Duration = Duration::from_secs(7 * 24 * 3600);

pub struct Files {
    options: Options,
    read_bytes: usize,
    followed: Vec<Followed>,
    /// Saved positions whose files have not been found since the start.
    orphans: Vec<Saved>,
    /// When they are looked for again under other names.
    orphans_due: Instant,
    unsaved: bool,
    /// Paths that could not be used, to say it once.
    troubled: HashMap<PathBuf, String>,
}

/// Lines read from a file, not yet stored.
pub struct Piece {
    pub path: PathBuf,
    pub generation: Uuid,
    /// Where `bytes` stand in the file.
    pub offset: u64,
    /// Whole lines; or the last line of a file that is done.
    pub bytes: Vec<u8>,
    /// A line that is too long begins here.
    pub too_long_at: Option<u64>,
    /// Where to go on.
    next: u64,
    in_long_line: bool,
}

struct Followed {
    /// Where it was first seen.
    home: PathBuf,
    file: File,
    device: u64,
    inode: u64,
    prefix_bytes: u64,
    prefix_hash: u128,
    generation: Uuid,
    offset: u64,
    in_long_line: bool,
    /// Size and time of change when it was last looked at.
    seen: Option<(u64, SystemTime)>,
    quiet_since: Instant,
    /// Another file, or none, is at `home` now.
    rotated: bool,
    /// A pattern leads to it.
    matched: bool,
}

impl Files {
    pub fn open(options: Options, read_bytes: usize) -> Result<Self, Error> {
        for pattern in &options.paths {
            glob::Pattern::new(pattern).map_err(|source| Error::Pattern {
                pattern: pattern.clone(),
                source,
            })?;
        }
        let path = options.state_file.clone();
        let orphans = state::load(&path).map_err(|source| Error::State { path, source })?;
        Ok(Self {
            options,
            read_bytes,
            followed: Vec::new(),
            orphans,
            orphans_due: Instant::now(),
            unsaved: false,
            troubled: HashMap::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.followed.len()
    }

    /// Finds new files, notices rotations and truncations, closes what is done. Whatever it learns about which file is which is saved
    /// before anything is read by it; the answer is whether that worked.
    pub fn look(&mut self) -> bool {
        let matches = self.matches();
        for followed in &mut self.followed {
            followed.matched = matches.iter().any(|(_, meta)| followed.is(meta));
            match fs::metadata(&followed.home) {
                Ok(meta) => followed.rotated = !followed.is(&meta),
                Err(error) if error.kind() == io::ErrorKind::NotFound => followed.rotated = true,
                // Nobody can say what is there: it stays what it was, or a file that cannot be reached for a while would be forgotten.
                Err(_) => {}
            }
        }
        for (path, meta) in matches {
            if !self.followed.iter().any(|followed| followed.is(&meta)) {
                self.follow(&path);
            }
        }
        if Instant::now() >= self.orphans_due {
            self.look_for_orphans();
            self.orphans_due = Instant::now() + self.rotated_quiet();
        }
        for followed in &mut self.followed {
            match followed.look() {
                Ok(changed) => self.unsaved |= changed,
                Err(error) => {
                    warn!(path = %followed.home.display(), %error, "cannot look at a followed file, will retry")
                }
            }
        }
        let quiet = self.rotated_quiet();
        let before = self.followed.len();
        self.followed.retain(|followed| {
            let done = followed.rotated
                && !followed.matched
                && followed.quiet_since.elapsed() >= quiet
                && followed.is_read();
            if done {
                info!(path = %followed.home.display(), "a rotated file is read to its end");
            }
            !done
        });
        self.unsaved |= self.followed.len() != before;
        !self.unsaved || self.save()
    }

    /// The next lines of a file; nothing when there are none yet.
    pub fn read(&mut self, number: usize) -> Option<Piece> {
        let quiet = self.rotated_quiet();
        let followed = self.followed.get(number)?;
        let done = followed.rotated && followed.quiet_since.elapsed() >= quiet;
        match followed.read(self.read_bytes, done) {
            Ok(piece) => piece,
            Err(error) => {
                warn!(path = %followed.home.display(), %error, "cannot read a followed file, will retry");
                None
            }
        }
    }

    /// Takes note that a piece is stored.
    pub fn advance(&mut self, number: usize, piece: &Piece) {
        if let Some(followed) = self.followed.get_mut(number) {
            followed.offset = piece.next;
            followed.in_long_line = piece.in_long_line;
            followed.quiet_since = Instant::now();
        }
        self.save();
    }

    /// When it does not work, the positions on disk are older ones, from which lines are read again as duplicates; tried again soon.
    fn save(&mut self) -> bool {
        let saved = self
            .followed
            .iter()
            .map(Followed::saved)
            .chain(self.orphans.iter().cloned())
            .collect();
        let outcome = state::save(&self.options.state_file, saved);
        self.unsaved = outcome.is_err();
        if let Err(error) = outcome {
            let path = self.options.state_file.clone();
            self.say_trouble(&path, &error);
        }
        !self.unsaved
    }

    /// A file that was rotated away and has been quiet for so long is done.
    fn rotated_quiet(&self) -> Duration {
        self.options.poll * QUIET_POLLS
    }

    /// The regular files that the patterns lead to, each once.
    fn matches(&mut self) -> Vec<(PathBuf, Metadata)> {
        let mut found: Vec<(PathBuf, Metadata)> = Vec::new();
        // The patterns were understood when opening.
        let patterns = self.options.paths.clone();
        for entry in patterns
            .iter()
            .filter_map(|pattern| glob::glob(pattern).ok())
            .flatten()
        {
            let outcome = match entry {
                Ok(path) => fs::metadata(&path)
                    .map(|meta| (path.clone(), meta))
                    .map_err(|error| (path, error)),
                Err(error) => Err((error.path().to_owned(), io::Error::other(error.to_string()))),
            };
            match outcome {
                Ok((path, meta)) if meta.is_file() => {
                    let known = found
                        .iter()
                        .any(|(_, other)| (other.dev(), other.ino()) == (meta.dev(), meta.ino()));
                    if !known {
                        found.push((path, meta));
                    }
                }
                Ok(_) => {}
                Err((path, error)) => self.say_trouble(&path, &error),
            }
        }
        found
    }

    fn follow(&mut self, path: &Path) {
        match self.try_follow(path) {
            Ok(()) => {
                self.troubled.remove(path);
                self.unsaved = true;
            }
            Err(error) => self.say_trouble(path, &error),
        }
    }

    fn say_trouble(&mut self, path: &Path, error: &io::Error) {
        let words = error.to_string();
        if self.troubled.get(path) != Some(&words) {
            warn!(path = %path.display(), %error, "cannot use a file, will retry");
            self.troubled.insert(path.to_owned(), words);
        }
    }

    fn try_follow(&mut self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let mut resumed = None;
        for (number, saved) in self.orphans.iter().enumerate() {
            if is_same(saved, &file, &meta)? {
                resumed = Some(number);
                break;
            }
        }
        let followed = match resumed {
            Some(number) => Followed::resumed(file, &self.orphans.remove(number)),
            None => Followed::new(path, file, &meta)?,
        };
        info!(path = %path.display(), offset = followed.offset, "following a file");
        self.followed.push(followed);
        Ok(())
    }

    /// Looks for files that were renamed while nobody watched. A position is given up only when its file is known to be gone, or was
    /// not seen for days: until then the file may be on a volume that is not mounted, or not be readable yet.
    fn look_for_orphans(&mut self) {
        for mut orphan in std::mem::take(&mut self.orphans) {
            match self.follow_renamed(&orphan) {
                Ok(Search::Followed) => self.unsaved = true,
                Ok(Search::Gone) => {
                    info!(path = %orphan.path.display(), "a file is gone or another one now, its position is forgotten");
                    self.unsaved = true;
                }
                Ok(Search::Unknown) | Err(_) => {
                    let now = WallMillis::now().0;
                    let since = *orphan.missing_since_millis.get_or_insert_with(|| {
                        warn!(path = %orphan.path.display(), "a file is not there to go on with, its position is kept for a week");
                        self.unsaved = true;
                        now
                    });
                    let missing = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
                    if Duration::from_millis(missing) > KEEP_MISSING {
                        info!(path = %orphan.path.display(), "a file has been missing for a week, its position is forgotten");
                        self.unsaved = true;
                    } else {
                        self.orphans.push(orphan);
                    }
                }
            }
        }
    }

    /// Looks for a file under any name in the directory it was in. An error says that it could not be found out.
    fn follow_renamed(&mut self, orphan: &Saved) -> io::Result<Search> {
        let identity = (orphan.device, orphan.inode);
        let Some(directory) = orphan.path.parent() else {
            return Ok(Search::Gone);
        };
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let same_inode =
                fs::metadata(&path).is_ok_and(|meta| (meta.dev(), meta.ino()) == identity);
            if !same_inode {
                continue;
            }
            let known = self
                .followed
                .iter()
                .any(|other| (other.device, other.inode) == identity);
            if known {
                // As a new file, because its first bytes were others.
                return Ok(Search::Gone);
            }
            let file = File::open(&path)?;
            let meta = file.metadata()?;
            if !is_same(orphan, &file, &meta)? {
                return Ok(Search::Gone);
            }
            info!(path = %path.display(), offset = orphan.offset, "following a rotated file to its end");
            let mut followed = Followed::resumed(file, orphan);
            followed.rotated = true;
            self.followed.push(followed);
            return Ok(Search::Followed);
        }
        // On another device it would say nothing: that may be what the volume is mounted over.
        let replaced = fs::metadata(&orphan.path)
            .is_ok_and(|meta| meta.dev() == orphan.device && meta.ino() != orphan.inode);
        Ok(if replaced {
            Search::Gone
        } else {
            Search::Unknown
        })
    }
}

/// What became of a file that was followed before the start.
enum Search {
    Followed,
    Gone,
    Unknown,
}

impl Followed {
    fn new(path: &Path, file: File, meta: &Metadata) -> io::Result<Self> {
        let prefix_bytes = meta.len().min(PREFIX_BYTES);
        Ok(Self {
            home: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            prefix_bytes,
            prefix_hash: prefix_hash(&file, prefix_bytes)?,
            generation: Uuid::new_v4(),
            offset: 0,
            in_long_line: false,
            seen: None,
            quiet_since: Instant::now(),
            rotated: false,
            matched: true,
            file,
        })
    }

    fn resumed(file: File, saved: &Saved) -> Self {
        Self {
            home: saved.path.clone(),
            file,
            device: saved.device,
            inode: saved.inode,
            prefix_bytes: saved.prefix_bytes,
            prefix_hash: u128::from_str_radix(&saved.prefix_xxh3, 16).unwrap_or_default(),
            generation: saved.generation(),
            offset: saved.offset,
            in_long_line: saved.in_long_line,
            seen: None,
            quiet_since: Instant::now(),
            rotated: false,
            matched: false,
        }
    }

    fn saved(&self) -> Saved {
        Saved {
            path: self.home.clone(),
            device: self.device,
            inode: self.inode,
            prefix_bytes: self.prefix_bytes,
            prefix_xxh3: format!("{:032x}", self.prefix_hash),
            generation: self.generation.to_string(),
            offset: self.offset,
            in_long_line: self.in_long_line,
            missing_since_millis: None,
        }
    }

    fn is(&self, meta: &Metadata) -> bool {
        (self.device, self.inode) == (meta.dev(), meta.ino())
    }

    /// Nothing is left behind the position.
    fn is_read(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|meta| meta.len() <= self.offset)
    }

    /// Notices growth, truncation and other content. Answers whether its identity has changed and must be saved before reading on.
    fn look(&mut self) -> io::Result<bool> {
        let meta = self.file.metadata()?;
        let now = (meta.len(), meta.modified()?);
        if self.seen == Some(now) {
            return Ok(false);
        }
        self.quiet_since = Instant::now();
        let shorter = meta.len() < self.offset.max(self.prefix_bytes);
        if shorter || prefix_hash(&self.file, self.prefix_bytes)? != self.prefix_hash {
            info!(path = %self.home.display(), "a followed file was truncated or replaced in place, reading it from its beginning");
            let anew = Self::new(&self.home, self.file.try_clone()?, &meta)?;
            *self = Self {
                rotated: self.rotated,
                matched: self.matched,
                seen: Some(now),
                ..anew
            };
            return Ok(true);
        }
        self.seen = Some(now);
        let grown = meta.len().min(PREFIX_BYTES);
        if grown > self.prefix_bytes {
            self.prefix_hash = prefix_hash(&self.file, grown)?;
            self.prefix_bytes = grown;
            return Ok(true);
        }
        Ok(false)
    }

    /// The next whole lines; with `done`, the last line too, which has no newline.
    fn read(&self, most: usize, done: bool) -> io::Result<Option<Piece>> {
        let available = self.file.metadata()?.len().saturating_sub(self.offset);
        if available == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(available).unwrap_or(most).min(most)];
        let filled = fill(&self.file, &mut bytes, self.offset)?;
        bytes.truncate(filled);
        let mut piece = Piece {
            path: self.home.clone(),
            generation: self.generation,
            offset: self.offset,
            bytes: Vec::new(),
            too_long_at: None,
            next: self.offset,
            in_long_line: self.in_long_line,
        };
        if self.in_long_line {
            // Only its newline is of interest.
            let skipped = memchr::memchr(b'\n', &bytes).map(|end| end + 1);
            piece.next += skipped.unwrap_or(bytes.len()) as u64;
            piece.in_long_line = skipped.is_none();
            return Ok((piece.next > piece.offset).then_some(piece));
        }
        let whole = match memchr::memrchr(b'\n', &bytes) {
            Some(end) => end + 1,
            None if bytes.len() == most => {
                piece.too_long_at = Some(self.offset);
                piece.in_long_line = true;
                piece.next += bytes.len() as u64;
                return Ok(Some(piece));
            }
            None if done => bytes.len(),
            None => return Ok(None),
        };
        bytes.truncate(whole);
        piece.next += whole as u64;
        piece.bytes = bytes;
        Ok(Some(piece))
    }
}

/// Whether `file` is the one whose position was saved.
fn is_same(saved: &Saved, file: &File, meta: &Metadata) -> io::Result<bool> {
    let fits = (saved.device, saved.inode) == (meta.dev(), meta.ino())
        && meta.len() >= saved.offset.max(saved.prefix_bytes);
    Ok(fits && format!("{:032x}", prefix_hash(file, saved.prefix_bytes)?) == saved.prefix_xxh3)
}

fn prefix_hash(file: &File, bytes: u64) -> io::Result<u128> {
    let mut prefix = vec![0; usize::try_from(bytes.min(PREFIX_BYTES)).unwrap_or(0)];
    let filled = fill(file, &mut prefix, 0)?;
    Ok(xxh3_128(&prefix[..filled]))
}

/// Reads at `offset` until `into` is full or the file ends.
fn fill(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
