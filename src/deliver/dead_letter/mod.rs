//! Dead letters: what a destination would not take, kept with the reason, to be read and sent again.
//!
//! Each leg has a file of its own in `data_dir/dead-letters`, one JSON object a line. A letter is written, and synced, before its
//! item counts as settled.
//!
//! ```text
//! <trail>.<sink>.ndjson             letters, added at the end
//! <trail>.<sink>.replay-<n>.ndjson  handed back to the leg: nothing is added any more
//! lock                              held (flock) for the time of an append and of a hand-over
//! ```
//!
//! # Hand-over
//!
//! `traild dlq replay` hands a file back by renaming it, n counting up. The leg takes the lowest n first, sends the items once more, and
//! removes the file when each of them is delivered or, refused again, in a new letter. It works the same whether a daemon runs or not.
//! The leg's memory tells how far it has come in a file ([`Replayed`]), so that a stop in the middle sends nothing twice.
//!
//! A gap names items that were never read, so that there is nothing to send; a line may be unreadable, after a power loss, say; and a
//! letter may be of another trail, which had the same name in another account or region. A file that holds only gaps and unreadable lines is not
//! handed over. Otherwise all these lines go along, and back: when the items of the file are settled, they are added to the first file
//! again before theirs is removed. They stay until someone removes them.
//!
//! A crash between any two steps loses nothing: the rename is one step, and what was settled since the leg's memory was saved last is sent
//! again. A crash between the lines going back and the removal doubles those lines.

mod file;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::item::ItemId;
use super::memory::{self, Replayed};
use super::view::JOURNAL_DAMAGED;
use crate::wal::Position;

pub use file::{LetterFile, Letters, Line, files};

/// The directory's name, below `data_dir`.
pub const DIRECTORY: &str = "dead-letters";

/// Lines that are added back with one write, about this many bytes of them.
const ADDED_BACK_BYTES: usize = 1 << 20;

/// One line of a dead-letter file. The names are stable: they are written to disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Letter {
    /// When it was written: RFC 3339 in UTC.
    pub at: String,
    pub trail: String,
    /// Another account or region may have a trail of the same name. Letters of the first versions do not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trail_arn: Option<String>,
    pub sink: String,
    pub reason: String,
    pub message: String,
    /// Events that it stands for.
    pub events: u64,
    #[serde(flatten)]
    pub content: Content,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// An item that was refused: where it stood in its log, and all of it.
    Item {
        position: u64,
        index: u32,
        body: Box<RawValue>,
    },
    /// Items that were never sent: those at positions `from` to below `to`. Either the log could not wait for them, and S3 has their events;
    /// or it could not give them back ([`JOURNAL_DAMAGED`]), and S3 may not have them either.
    Gap { from: u64, to: u64 },
}

/// A [`Letter`] as it is read: `serde` has raw JSON neither in flattened nor in untagged values.
#[derive(Deserialize)]
struct Stored {
    at: String,
    trail: String,
    trail_arn: Option<String>,
    sink: String,
    reason: String,
    message: String,
    events: u64,
    position: Option<u64>,
    index: Option<u32>,
    body: Option<Box<RawValue>>,
    from: Option<u64>,
    to: Option<u64>,
}

impl TryFrom<Stored> for Letter {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored {
            at,
            trail,
            trail_arn,
            sink,
            reason,
            message,
            events,
            position,
            index,
            body,
            from,
            to,
        } = stored;
        let content = match (position, index, body, from, to) {
            (Some(position), Some(index), Some(body), None, None) => Content::Item {
                position,
                index,
                body,
            },
            (None, None, None, Some(from), Some(to)) => Content::Gap { from, to },
            _ => return Err("neither an item nor a gap"),
        };
        Ok(Self {
            at,
            trail,
            trail_arn,
            sink,
            reason,
            message,
            events,
            content,
        })
    }
}

/// The dead letters of one leg.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    directory: PathBuf,
    /// `<trail>.<sink>`, with which the names of its files begin.
    stem: String,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub items: u64,
    /// Events of the items.
    pub item_events: u64,
    /// Gaps that S3 fills.
    pub gaps: u64,
    pub gap_events: u64,
    /// Gaps where the log is damaged.
    pub damaged: u64,
    pub damaged_events: u64,
    /// Lines that cannot be read.
    pub unreadable: u64,
}

/// A file that was handed back.
#[derive(Debug)]
pub struct Replay {
    leg: DeadLetters,
    file: LetterFile,
    trail_arn: String,
    /// Which file it is, with nothing of it settled.
    mark: Replayed,
    /// Of this many bytes of it, what is not sent was added to the first file again.
    added_back: u64,
}

/// Letters to be sent together. No two of them are of one item.
#[derive(Debug, Clone)]
pub struct Batch {
    pub letters: Vec<Letter>,
    /// When they are settled, so is all in this many bytes of the file.
    pub upto: u64,
}

impl DeadLetters {
    /// Those of a trail's leg, below `directory`, which is made when the first letter is written.
    pub fn new(directory: &Path, trail: &str, sink: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            stem: memory::stem(trail, sink),
        }
    }

    /// Adds letters. When this returns, they are durable. Blocking.
    pub fn append(&self, letters: &[Letter]) -> io::Result<()> {
        let mut lines = Vec::new();
        for letter in letters {
            write_line(&mut lines, letter)?;
        }
        self.append_lines(&lines)
    }

    /// The items of this trail at or after `from` that have a letter. Blocking.
    pub fn known(&self, trail_arn: &str, from: u64) -> io::Result<BTreeSet<ItemId>> {
        let mut known = BTreeSet::new();
        let mut add = |letters: Option<Letters>| -> io::Result<()> {
            let Some(mut letters) = letters else {
                return Ok(());
            };
            let mut left = Left::default();
            while let Some(line) = letters.next_line_from(from)? {
                match line.item_of(trail_arn) {
                    Some(item) => drop(known.insert(item)),
                    None => left.count(&line),
                }
            }
            left.tell(letters.path());
            Ok(())
        };
        // In this order, a hand-over meanwhile shows its letters twice, not never.
        add(Letters::open(&self.path())?)?;
        for file in self.waiting()? {
            add(file.open()?)?;
        }
        known.retain(|item| item.position.0 >= from);
        Ok(known)
    }

    /// The oldest file that was handed back to this leg. Blocking.
    pub fn handed_back(&self, trail_arn: &str) -> io::Result<Option<Replay>> {
        let Some(file) = self.waiting()?.into_iter().next() else {
            return Ok(None);
        };
        let of = match fs::metadata(&file.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            of => of?,
        };
        let seconds = of.mtime().saturating_mul(1_000_000_000);
        Ok(Some(Replay {
            leg: self.clone(),
            mark: Replayed {
                number: file.replay.unwrap_or_default(),
                bytes: of.len(),
                modified: seconds.saturating_add(of.mtime_nsec()),
                ..Replayed::default()
            },
            file,
            trail_arn: trail_arn.to_owned(),
            added_back: 0,
        }))
    }

    /// Hands the letters back to the leg, if there is an item among them, and tells what there is. Blocking.
    pub fn hand_over(&self) -> io::Result<Tally> {
        if !self.path().exists() {
            return Ok(Tally::default());
        }
        let lock = Lock::take(&self.directory)?;
        let Some(letters) = Letters::open(&self.path())? else {
            return Ok(Tally::default());
        };
        if self.holds_an_item()? {
            let number = match self.waiting()?.last().and_then(|file| file.replay) {
                Some(last) => last.checked_add(1).ok_or(io::ErrorKind::StorageFull)?,
                None => 1,
            };
            let name = file::replay_name(&self.stem, number);
            fs::rename(self.path(), self.directory.join(name))?;
            sync_directory(&self.directory)?;
        }
        drop(lock);
        letters.tally()
    }

    fn holds_an_item(&self) -> io::Result<bool> {
        let Some(mut letters) = Letters::open(&self.path())? else {
            return Ok(false);
        };
        while let Some(line) = letters.next_line()? {
            if line.item().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The files that were handed back, the oldest first.
    fn waiting(&self) -> io::Result<Vec<LetterFile>> {
        let mut files = files(&self.directory)?;
        files.retain(|file| file.stem() == self.stem && file.replay.is_some());
        Ok(files)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(file::name(&self.stem))
    }

    /// Adds whole lines with one write, and syncs them. If that fails, none of them is there, as far as the disk allows it.
    fn append_lines(&self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let _lock = Lock::take(&self.directory)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path())?;
        let length = file.metadata()?.len();
        if length == 0 {
            // It may be new, and the directory, too: their entries must be durable before what they lead to.
            sync_directory(&self.directory)?;
            sync_directory(&self.directory.join(".."))?;
        }
        let written = match ends_a_line(&file, length)? {
            true => file.write_all(lines),
            false => file.write_all(&[b"\n", lines].concat()),
        };
        written.and_then(|()| file.sync_data()).inspect_err(|_| {
            // If this fails as well, the next append ends the line.
            let _ = file.set_len(length);
        })
    }
}

impl Replay {
    /// Which file it is, with nothing of it settled.
    pub fn mark(&self) -> &Replayed {
        &self.mark
    }

    /// The next letters that hold items of this trail, after `upto` bytes and about this many bytes of them; none at the end. Of letters that
    /// say the same of one item, there is one; if they do not say the same, the second is left for later. Blocking.
    pub fn next(&self, upto: u64, bytes: usize) -> io::Result<Batch> {
        let mut batch = Batch {
            letters: Vec::new(),
            upto,
        };
        let Some(mut letters) = self.file.open()? else {
            return Ok(batch);
        };
        letters.go_to(upto)?;
        let mut places = BTreeMap::new();
        let mut gathered = 0;
        while gathered < bytes.max(1) {
            let Some(line) = letters.next_line()? else {
                break;
            };
            if let Some(item) = line.item_of(&self.trail_arn)
                && let Line::Letter { letter, text } = line
            {
                match places
                    .get(&item)
                    .map(|place: &usize| &batch.letters[*place])
                {
                    Some(first) if first.says_the_same(&letter) => {}
                    Some(_) => break,
                    None => {
                        places.insert(item, batch.letters.len());
                        gathered += text.len();
                        batch.letters.push(letter);
                    }
                }
            }
            batch.upto = letters.offset();
        }
        Ok(batch)
    }

    /// All items in the file are settled, which are those in `upto` bytes: the other lines go back, and the file is removed. Where that
    /// fails, it can be asked for again, and goes on from there. Blocking.
    pub fn finish(&mut self, upto: u64) -> io::Result<()> {
        if !self.next(upto, 1)?.letters.is_empty() {
            return Err(io::Error::other("there are letters that were not settled"));
        }
        self.add_back()?;
        match fs::remove_file(&self.file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_directory(&self.leg.directory)
    }

    fn add_back(&mut self) -> io::Result<()> {
        let Some(mut letters) = self.file.open()? else {
            return Ok(());
        };
        letters.go_to(self.added_back)?;
        let mut left = Left::default();
        let mut lines = Vec::new();
        while let Some(line) = letters.next_line()? {
            if line.item_of(&self.trail_arn).is_none() {
                left.count(&line);
                lines.extend_from_slice(line.text());
                lines.push(b'\n');
            }
            if lines.len() >= ADDED_BACK_BYTES {
                self.leg.append_lines(&lines)?;
                self.added_back = letters.offset();
                lines.clear();
            }
        }
        self.leg.append_lines(&lines)?;
        self.added_back = letters.offset();
        left.tell(letters.path());
        Ok(())
    }
}

/// Lines that were passed over, though one might have hoped otherwise.
#[derive(Default)]
struct Left {
    unreadable: u64,
    /// Letters of another trail of the same name.
    others: u64,
}

impl Left {
    /// Counts a line that is no item of the trail.
    fn count(&mut self, line: &Line) {
        match line {
            Line::Unreadable { .. } => self.unreadable += 1,
            Line::Letter { .. } => self.others += u64::from(line.item().is_some()),
        }
    }

    fn tell(&self, path: &Path) {
        let Self { unreadable, others } = *self;
        let path = path.display();
        if unreadable > 0 {
            tracing::warn!(%path, lines = unreadable, "dead letters that cannot be read were passed over");
        }
        if others > 0 {
            tracing::warn!(
                %path, letters = others,
                "dead letters of a trail of this name in another account or region were passed over"
            );
        }
    }
}

impl Letter {
    /// Whether both are of one item, and would send the same.
    fn says_the_same(&self, other: &Self) -> bool {
        match (&self.content, &other.content) {
            (
                Content::Item {
                    position,
                    index,
                    body,
                },
                Content::Item {
                    position: other_position,
                    index: other_index,
                    body: other_body,
                },
            ) => {
                (position, index, body.get(), self.events)
                    == (other_position, other_index, other_body.get(), other.events)
            }
            _ => false,
        }
    }
}

impl Tally {
    fn count(&mut self, line: &Line) {
        match line {
            Line::Letter { letter, .. } => match letter.content {
                Content::Item { .. } => {
                    self.items += 1;
                    self.item_events = self.item_events.saturating_add(letter.events);
                }
                Content::Gap { .. } if letter.reason == JOURNAL_DAMAGED => {
                    self.damaged += 1;
                    self.damaged_events = self.damaged_events.saturating_add(letter.events);
                }
                Content::Gap { .. } => {
                    self.gaps += 1;
                    self.gap_events = self.gap_events.saturating_add(letter.events);
                }
            },
            Line::Unreadable { .. } => self.unreadable += 1,
        }
    }
}

impl Line {
    /// The item that it holds, which can be sent again.
    fn item(&self) -> Option<ItemId> {
        let Self::Letter { letter, .. } = self else {
            return None;
        };
        match letter.content {
            Content::Item {
                position, index, ..
            } => Some(ItemId {
                position: Position(position),
                index,
            }),
            Content::Gap { .. } => None,
        }
    }

    /// The same, if it is of this trail.
    fn item_of(&self, trail_arn: &str) -> Option<ItemId> {
        let Self::Letter { letter, .. } = self else {
            return None;
        };
        let is_of = letter.trail_arn.as_deref().is_none_or(|of| of == trail_arn);
        self.item().filter(|_| is_of)
    }
}

impl Letters {
    /// Reads to the end.
    fn tally(mut self) -> io::Result<Tally> {
        let mut tally = Tally::default();
        while let Some(line) = self.next_line()? {
            tally.count(&line);
        }
        Ok(tally)
    }
}

/// The right to add to the files of a directory, or to rename them.
struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory when it is missing. Waits for its turn.
    fn take(directory: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A body may have line ends between its tokens; in JSON they mean no more than spaces, and within strings there are none.
fn write_line(lines: &mut Vec<u8>, letter: &Letter) -> io::Result<()> {
    let start = lines.len();
    serde_json::to_writer(&mut *lines, letter)?;
    for byte in &mut lines[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
    Ok(())
}

/// Whether the file, this many bytes long, ends where a line does: not after a write that a power loss cut short.
fn ends_a_line(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
