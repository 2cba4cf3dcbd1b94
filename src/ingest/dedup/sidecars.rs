//! The fingerprints of journal segments that are gone, one small file each in `data_dir/dedup`.
//!
//! ```text
//! <position of the segment, 20 digits>.fps
//!   [4]      "TRFP"
//!   u32 LE   version, 1
//!   u64 LE   position of the segment
//!   u64 LE   number of fingerprints
//!   [16] × n fingerprints, in the journal's order
//!   u32 LE   CRC-32 of all before
//! secret     the 192 random bytes that fingerprints are made with
//! ```
//!
//! A file is written before its segment is removed and dropped when newer files alone fill the window. A damaged one is set aside under
//! the name `….damaged`, counted and said; what it held is then not recognised any more, nothing else is lost. Without its secret the
//! memory recognises nothing: should the file be damaged, a new secret is made and the old memory left to age away.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::window::{Fingerprint, Window};
use crate::event::fingerprint::SECRET_BYTES;
use crate::event::{Record, Secret};
use crate::snapshot;
use crate::wal::{Position, Wal};

const MAGIC: &[u8; 4] = b"TRFP";
const VERSION: u32 = 1;
const HEAD: usize = 4 + 4 + 8 + 8;
/// Of a segment that is read for its fingerprints.
const READ_BYTES: usize = 1 << 20;

pub struct Sidecars {
    directory: PathBuf,
    /// Events the window holds.
    window: usize,
    /// Fingerprints in each file, by the segment's position.
    kept: BTreeMap<u64, usize>,
}

impl Sidecars {
    /// Opens `data_dir/dedup`, making the directory and the secret on first use, and loads what it holds into a window of `events`.
    /// Opening the journal with `|_, frame| window.remember_frame(frame)` then adds what the journal still holds.
    pub fn open(data_dir: &Path, events: usize) -> io::Result<(Self, Window)> {
        let directory = data_dir.join("dedup");
        fs::create_dir_all(&directory)?;
        fs::File::open(data_dir)?.sync_all()?;
        let mut sidecars = Self {
            window: events,
            kept: BTreeMap::new(),
            directory,
        };
        let mut window = Window::new(sidecars.load_or_make_secret()?, events);
        for (base, path) in sidecars.files()? {
            match decode(&fs::read(&path)?, base) {
                Some(fingerprints) => {
                    sidecars.kept.insert(base, fingerprints.len());
                    for fingerprint in fingerprints {
                        window.claim(fingerprint);
                    }
                }
                None => sidecars.set_aside(&path)?,
            }
        }
        sidecars.drop_old()?;
        info!(
            events = window.len(),
            files = sidecars.kept.len(),
            "remembered events of removed journal segments"
        );
        Ok((sidecars, window))
    }

    /// Deletes the journal's segments that end at or before `below`, each after its fingerprints are kept here. Blocking. Answers how
    /// many segments went.
    pub fn trim(&mut self, wal: &Wal, below: Position) -> io::Result<usize> {
        let segments = wal.trimmable(below);
        let count = segments.len();
        let mut reader = wal.reader();
        for segment in segments {
            let mut fingerprints = Vec::new();
            let mut from = segment.start;
            while from < segment.end {
                let chunk = reader.read(from, READ_BYTES).map_err(io::Error::other)?;
                let in_segment = chunk
                    .iter()
                    .take_while(|(position, _)| *position < segment.end);
                fingerprints.extend(
                    in_segment
                        .filter_map(|(_, frame)| Record::decode(frame).ok())
                        .map(|record| record.meta.fingerprint),
                );
                if chunk.next <= from {
                    break;
                }
                from = chunk.next;
            }
            self.keep(segment.start.0, &fingerprints)?;
            wal.remove_oldest(segment)?;
        }
        Ok(count)
    }

    /// Keeps the fingerprints of the segment at `base`, durably, and drops files that the window has no more use for.
    pub fn keep(&mut self, base: u64, fingerprints: &[Fingerprint]) -> io::Result<()> {
        snapshot::replace(&self.path(base), &encode(base, fingerprints))?;
        self.kept.insert(base, fingerprints.len());
        self.drop_old()
    }

    /// Drops the oldest files as long as the newer ones fill the window by themselves.
    fn drop_old(&mut self) -> io::Result<()> {
        let mut held: usize = self.kept.values().sum();
        while let Some((&base, &count)) = self.kept.first_key_value()
            && held - count >= self.window
        {
            fs::remove_file(self.path(base))?;
            self.kept.remove(&base);
            held -= count;
        }
        Ok(())
    }

    fn path(&self, base: u64) -> PathBuf {
        self.directory.join(format!("{base:020}.fps"))
    }

    /// The files by position. Others, such as the leftover of a write that a crash cut short, are not looked at.
    fn files(&self) -> io::Result<BTreeMap<u64, PathBuf>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let is_sidecar = path.extension().is_some_and(|extension| extension == "fps");
            let base = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok());
            if let (true, Some(base)) = (is_sidecar, base) {
                files.insert(base, path);
            }
        }
        Ok(files)
    }

    fn set_aside(&self, path: &Path) -> io::Result<()> {
        warn!(path = %path.display(), "a file of remembered events is damaged and set aside, its events sent again will be taken as new");
        fs::rename(path, path.with_extension("fps.damaged"))
    }

    fn load_or_make_secret(&self) -> io::Result<Secret> {
        let path = self.directory.join("secret");
        if let Some(bytes) = snapshot::read(&path)? {
            match <[u8; SECRET_BYTES]>::try_from(bytes) {
                Ok(secret) => return Ok(Secret::new(secret)),
                Err(_) => self.set_aside(&path)?,
            }
        }
        let mut secret = [0; SECRET_BYTES];
        crate::random::fill(&mut secret).map_err(io::Error::other)?;
        snapshot::replace(&path, &secret)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Secret::new(secret))
    }
}

fn encode(base: u64, fingerprints: &[Fingerprint]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + fingerprints.len() * 16 + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&base.to_le_bytes());
    bytes.extend_from_slice(&(fingerprints.len() as u64).to_le_bytes());
    bytes.extend_from_slice(fingerprints.as_flattened());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The fingerprints of the file for `base`, or nothing when it is not whole or of an unknown version.
fn decode(bytes: &[u8], base: u64) -> Option<Vec<Fingerprint>> {
    let (covered, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (head, fingerprints) = covered.split_at_checked(HEAD)?;
    let (fingerprints, rest) = fingerprints.as_chunks::<16>();
    let expected = encode(base, &[]);
    let count = u64::from_le_bytes(head[16..24].try_into().ok()?);
    let whole =
        head[..16] == expected[..16] && rest.is_empty() && count == fingerprints.len() as u64;
    whole.then(|| fingerprints.to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::window::Claim;
    use super::*;

    fn fingerprints(range: std::ops::Range<u32>) -> Vec<Fingerprint> {
        range
            .map(|n| xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_le_bytes())
            .collect()
    }

    fn knows(window: &mut Window, fingerprint: Fingerprint) -> bool {
        matches!(window.claim(fingerprint), Claim::Seen(_))
    }

    #[test]
    fn a_file_reads_back_as_written_and_no_damage_passes() {
        let kept = fingerprints(0..5);
        let bytes = encode(77, &kept);
        assert_eq!(decode(&bytes, 77), Some(kept));
        assert_eq!(decode(&encode(0, &[]), 0), Some(Vec::new()));
        assert_eq!(decode(&bytes, 78), None);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], 77), None, "cut at {cut}");
            let mut flipped = bytes.clone();
            flipped[cut] ^= 1;
            assert_eq!(decode(&flipped, 77), None, "flipped at {cut}");
        }
    }

    #[test]
    fn what_was_kept_is_known_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sidecars, window) = Sidecars::open(directory.path(), 100).unwrap();
        let secret = window.secret().clone();
        let all = fingerprints(0..30);
        sidecars.keep(0, &all[..10]).unwrap();
        sidecars.keep(1000, &all[10..20]).unwrap();
        // A crash after the write and before the removal of the segment: the journal shows them again.
        sidecars.keep(1000, &all[10..20]).unwrap();
        let (_, mut window) = Sidecars::open(directory.path(), 100).unwrap();
        assert!(
            all[..20]
                .iter()
                .all(|fingerprint| knows(&mut window, *fingerprint))
        );
        assert!(!knows(&mut window, all[20]));
        let account = "111122223333".parse().unwrap();
        let region = "us-east-1".parse().unwrap();
        assert_eq!(
            secret.fingerprint(&account, &region, b"x"),
            window.secret().fingerprint(&account, &region, b"x")
        );
        let mode = fs::metadata(directory.path().join("dedup/secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn old_files_go_when_newer_ones_fill_the_window() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sidecars, _) = Sidecars::open(directory.path(), 20).unwrap();
        let all = fingerprints(0..50);
        for part in 0..5 {
            sidecars
                .keep(part as u64 * 100, &all[part * 10..part * 10 + 10])
                .unwrap();
        }
        assert_eq!(
            sidecars.files().unwrap().into_keys().collect::<Vec<_>>(),
            [300, 400]
        );
        let (_, mut window) = Sidecars::open(directory.path(), 20).unwrap();
        assert!(
            all[30..]
                .iter()
                .all(|fingerprint| knows(&mut window, *fingerprint))
        );
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_others_count() {
        let directory = tempfile::tempdir().unwrap();
        let (mut sidecars, _) = Sidecars::open(directory.path(), 100).unwrap();
        let all = fingerprints(0..20);
        sidecars.keep(0, &all[..10]).unwrap();
        sidecars.keep(100, &all[10..]).unwrap();
        let victim = sidecars.path(0);
        let mut bytes = fs::read(&victim).unwrap();
        bytes[40] ^= 4;
        fs::write(&victim, bytes).unwrap();
        let (_, mut window) = Sidecars::open(directory.path(), 100).unwrap();
        assert!(victim.with_extension("fps.damaged").exists() && !victim.exists());
        assert!(
            all[10..]
                .iter()
                .all(|fingerprint| knows(&mut window, *fingerprint))
        );
        assert!(!knows(&mut window, all[0]));
    }

    #[test]
    fn a_damaged_secret_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Sidecars::open(directory.path(), 100).unwrap();
        fs::write(directory.path().join("dedup/secret"), b"short").unwrap();
        Sidecars::open(directory.path(), 100).unwrap();
        let aside = directory.path().join("dedup/secret.fps.damaged");
        assert_eq!(fs::read(&aside).unwrap(), b"short");
        // The new one is sound.
        fs::remove_file(&aside).unwrap();
        Sidecars::open(directory.path(), 100).unwrap();
        assert!(!aside.exists());
    }
}
