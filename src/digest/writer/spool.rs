//! Sealed windows on the disk: what a trail's digests remember, and the digests that are not delivered yet.
//!
//! ```text
//! data_dir/digests/<account>.<region>.<trail>/
//!   <number>.jsonl     one for each window that is not delivered, and always the newest
//! ```
//!
//! A file has a line with the CRC-32 of the rest in hex; a line with the [`State`] after the window; a line for each digest, with its
//! bytes and its signature. It is replaced whole before the first of its digests is uploaded: a crash finds a window either not sealed, and nobody has seen
//! anything of it, or sealed, and the same bytes are uploaded again. When all of them are delivered, the newest file keeps its state
//! alone, and older ones go.
//!
//! A write goes on when whoever waited for it is gone, as blocking work does; a daemon that starts again in the same process must not meet it. So
//! each [`Spool`] that is opened puts an end to those before it of the same trail: they write nothing more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::book::{Place, State};
use crate::digest::{Location, Sha256, Signature, Signed};
use crate::snapshot;

const SUFFIX: &str = ".jsonl";

/// A digest to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub location: Location,
    pub signed: Signed,
    /// Of a backfill digest: when it was made, seconds since 1970.
    pub backfilled_at: Option<i64>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    location: Location,
    signature: Signature,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backfilled_at: Option<i64>,
    #[serde(borrow)]
    digest: &'a RawValue,
}

/// The files of one trail.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: PathBuf,
    /// How often the directory was opened before.
    opened: u64,
}

/// How often each directory was opened by this process. Held while something is written there.
static OPENED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// What was found on opening.
#[derive(Debug, Default)]
pub struct Recalled {
    /// After the newest window; nothing for a trail without one, or when its file is damaged.
    pub state: Option<State>,
    /// The newest window's number; zero when there is none.
    pub newest: u64,
    /// Windows that may have digests to deliver, the oldest first.
    pub undelivered: Vec<u64>,
    pub is_damaged: bool,
}

impl Spool {
    /// Of the trail at `place`, below `root`. Blocking.
    pub fn open(root: &Path, place: &Place) -> io::Result<(Self, Recalled)> {
        let Place {
            name,
            home_account,
            home_region,
            ..
        } = place;
        Self::open_directory(root.join(format!("{home_account}.{home_region}.{name}")))
    }

    /// What is remembered of every trail that has been here. Blocking.
    pub fn states(root: &Path) -> io::Result<Vec<State>> {
        snapshot::make_private_dir(root)?;
        let mut states = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let reader = Self {
                    directory: entry.path(),
                    opened: 0,
                };
                states.extend(reader.recall()?.state);
            }
        }
        Ok(states)
    }

    fn open_directory(directory: PathBuf) -> io::Result<(Self, Recalled)> {
        snapshot::make_private_dir(&directory)?;
        let opened = {
            let mut all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
            let times = all.entry(directory.clone()).or_default();
            *times += 1;
            *times
        };
        let spool = Self { directory, opened };
        let recalled = spool.recall()?;
        Ok((spool, recalled))
    }

    fn recall(&self) -> io::Result<Recalled> {
        let mut undelivered = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            undelivered.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        undelivered.sort_unstable();
        let Some(newest) = undelivered.last().copied() else {
            return Ok(Recalled::default());
        };
        let state = self.read(newest, parse_state)?;
        Ok(Recalled {
            is_damaged: state.is_none(),
            state,
            newest,
            undelivered,
        })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// When this returns, the window is sealed. Blocking.
    pub fn write(&self, number: u64, state: &State, digests: &[Sealed]) -> io::Result<()> {
        let mut content = serde_json::to_vec(state)?;
        content.push(b'\n');
        for Sealed {
            location,
            signed,
            backfilled_at,
        } in digests
        {
            let digest = std::str::from_utf8(&signed.json).map_err(io::Error::other)?;
            let line = Line {
                location: location.clone(),
                signature: signed.signature.clone(),
                backfilled_at: *backfilled_at,
                digest: serde_json::from_str(digest)?,
            };
            serde_json::to_writer(&mut content, &line)?;
            content.push(b'\n');
        }
        let content = snapshot::with_sum(&content);
        self.alone(|| snapshot::replace(&self.file(number), &content))
    }

    /// Does it while nobody else writes here, unless the directory was opened again.
    fn alone(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let all = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.directory) != Some(&self.opened) {
            return Err(io::Error::other(
                "somebody else writes these digests by now",
            ));
        }
        work()
    }

    /// The digests of a window; nothing when the file is damaged, which is told. Blocking.
    pub fn digests(&self, number: u64) -> io::Result<Option<Vec<Sealed>>> {
        self.read(number, parse_digests)
    }

    fn read<T>(
        &self,
        number: u64,
        parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> io::Result<Option<T>> {
        let path = self.file(number);
        let bytes = fs::read(&path)?;
        let read = snapshot::without_sum(&bytes).map(parse);
        match read {
            Some(Ok(read)) => Ok(Some(read)),
            Some(Err(error)) => {
                tracing::error!(path = %path.display(), %error, "sealed digests cannot be read");
                Ok(None)
            }
            None => {
                tracing::error!(path = %path.display(), "sealed digests are damaged");
                Ok(None)
            }
        }
    }

    /// The digests of a window are delivered. The newest keeps `state`, older ones are of no more use. Blocking.
    pub fn settle(&self, number: u64, state: Option<&State>) -> io::Result<()> {
        match state {
            Some(state) => self.write(number, state, &[]),
            None => self.remove(number),
        }
    }

    /// Forgets a window. Blocking.
    pub fn remove(&self, number: u64) -> io::Result<()> {
        self.alone(|| match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
    }

    fn file(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:020}{SUFFIX}"))
    }
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = content.split(|byte| *byte == b'\n');
    lines.filter(|line| !line.is_empty())
}

fn parse_state(content: &[u8]) -> serde_json::Result<State> {
    serde_json::from_slice(lines(content).next().unwrap_or_default())
}

fn parse_digests(content: &[u8]) -> serde_json::Result<Vec<Sealed>> {
    let digests = lines(content).skip(1).map(|line| {
        let Line {
            location,
            signature,
            backfilled_at,
            digest,
        } = serde_json::from_slice(line)?;
        let json = digest.get().as_bytes().to_vec();
        Ok(Sealed {
            location,
            signed: Signed {
                sha256: Sha256::of(&json),
                json,
                signature,
            },
            backfilled_at,
        })
    });
    digests.collect()
}
