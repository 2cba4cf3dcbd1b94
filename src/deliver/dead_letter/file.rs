//! The files of a dead-letter directory: their names, and their lines.
//!
//! A trail's name may hold dots, a sink's holds none, so that a name is read from its end.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use memchr::memmem;

use super::Letter;
use crate::deliver::view::Sink;
use crate::trail::TrailName;
use crate::wal::MAX_PAYLOAD_BYTES;

/// The most that is held of a line. No letter is longer: it holds at most a frame of a log, and some words about it. A longer line is
/// taken for several.
const MAX_LINE_BYTES: u64 = MAX_PAYLOAD_BYTES as u64 + (64 << 10);

/// A dead-letter file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFile {
    pub path: PathBuf,
    pub trail: String,
    pub sink: Sink,
    /// Its number, when it was handed back and waits to be sent.
    pub replay: Option<u64>,
}

/// The name of the file that letters are added to. A stem is `<trail>.<sink>`.
pub fn name(stem: &str) -> String {
    format!("{stem}.ndjson")
}

/// The name of a file that was handed back.
pub fn replay_name(stem: &str, number: u64) -> String {
    format!("{stem}.replay-{number}.ndjson")
}

/// The dead-letter files of a directory, which need not be there: by trail and sink, of each those that wait, and then the one that is
/// added to.
pub fn files(directory: &Path) -> io::Result<Vec<LetterFile>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        files.extend(LetterFile::at(entry?.path()));
    }
    files.sort_by_key(|file| {
        let number = file.replay.map_or((1, 0), |number| (0, number));
        (file.stem(), number)
    });
    Ok(files)
}

impl LetterFile {
    /// Nothing when the name is not one of a dead-letter file.
    fn at(path: PathBuf) -> Option<Self> {
        let file_name = path.file_name()?.to_str()?;
        let whole = file_name.strip_suffix(".ndjson")?;
        let (stem, replay) = match whole.rsplit_once(".replay-") {
            // A trail may have such a name itself.
            Some((stem, number)) if !number.contains('.') => (stem, Some(number.parse().ok()?)),
            _ => (whole, None),
        };
        let (trail, sink) = stem.rsplit_once('.')?;
        let trail = trail.parse::<TrailName>().ok()?.to_string();
        let sink = sink.parse().ok()?;
        // A number may be written in more ways than one; only this one is ours.
        let ours = match replay {
            Some(number) => replay_name(stem, number),
            None => name(stem),
        };
        if file_name != ours {
            return None;
        }
        Some(Self {
            path,
            trail,
            sink,
            replay,
        })
    }

    pub fn stem(&self) -> String {
        format!("{}.{}", self.trail, self.sink)
    }

    /// Its lines; nothing when it is no longer there.
    pub fn open(&self) -> io::Result<Option<Letters>> {
        Letters::open(&self.path)
    }
}

/// The lines of a file, one after the other, of which only one is held.
#[derive(Debug)]
pub struct Letters {
    path: PathBuf,
    reader: BufReader<File>,
    /// Bytes before the next line.
    offset: u64,
}

/// A line, with its bytes as they stand, without the line end.
#[derive(Debug)]
pub enum Line {
    Letter {
        letter: Letter,
        text: Vec<u8>,
    },
    /// No letter: cut short by a power loss, or written by someone else.
    Unreadable {
        text: Vec<u8>,
    },
}

impl Letters {
    /// Nothing when there is no such file.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self {
                path: path.to_owned(),
                reader: BufReader::with_capacity(64 << 10, file),
                offset: 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes before the next line.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at a line that has this many bytes before it.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        Ok(())
    }

    /// The next line that is not blank; none at the end.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        Ok(self.next_text(&mut text)?.then(|| Line::read(text)))
    }

    /// The same, but letters of items before the position `from` are passed over, and not parsed.
    pub fn next_line_from(&mut self, from: u64) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        while self.next_text(&mut text)? {
            if position(&text).is_none_or(|position| position >= from) {
                return Ok(Some(Line::read(text)));
            }
        }
        Ok(None)
    }

    /// Whether there is one more line; it stands in `text` then.
    fn next_text(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            text.clear();
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
            let read = limited.read_until(b'\n', text)?;
            if read == 0 {
                return Ok(false);
            }
            self.offset += read as u64;
            if text.last() == Some(&b'\n') {
                text.pop();
            }
            if !text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}

/// The position in a letter that stands as this version writes it, found without parsing it. Before the body there are no other objects, and a
/// quote within a string is escaped, so that what looks like the name is the name.
fn position(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"position\":";
    let at = memmem::find(line, NAME)?;
    if memmem::find(&line[..at], b"\"body\":").is_some() {
        return None;
    }
    let rest = &line[at + NAME.len()..];
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let number = std::str::from_utf8(&rest[..end]).ok()?;
    (rest[end] == b',').then(|| number.parse().ok()).flatten()
}

impl Line {
    fn read(text: Vec<u8>) -> Self {
        match serde_json::from_slice(&text) {
            Ok(letter) => Self::Letter { letter, text },
            Err(_) => Self::Unreadable { text },
        }
    }

    pub fn text(&self) -> &[u8] {
        match self {
            Self::Letter { text, .. } | Self::Unreadable { text } => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_position_of_a_letter_itself_is_taken_for_it() {
        for (line, expected) in [
            (
                r#"{"at":"x","events":1,"position":70,"index":0,"body":{"position":3,"a":1}}"#,
                Some(70),
            ),
            (
                r#"{"message":"\"position\":1,","position":70,"index":0}"#,
                Some(70),
            ),
            (
                r#"{"body":{"position":3,"a":1},"position":70,"index":0}"#,
                None,
            ),
            (r#"{"at":"x","from":1,"to":2}"#, None),
            (r#"{"position": 70,"index":0}"#, None),
            (r#"{"position":70.5,"index":0}"#, None),
            (r#"{"position":-7,"index":0}"#, None),
            (r#"{"position":99999999999999999999,"index":0}"#, None),
            (r#"{"position":70"#, None),
        ] {
            assert_eq!(position(line.as_bytes()), expected, "{line}");
        }
    }
}
