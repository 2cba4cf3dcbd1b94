//! Small files replaced whole: written beside the old one, fsynced, renamed over it, the directory fsynced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Puts `bytes` at `path` so that a crash at any instant leaves either the old content or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    put(path, bytes, options.write(true).create(true).truncate(true))
}

/// The same for a secret: only its owner can read it, and nobody write to it.
pub fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a crash left behind cannot be written to either.
    match fs::remove_file(temporary(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    put(
        path,
        bytes,
        options.write(true).create_new(true).mode(0o400),
    )
}

fn put(path: &Path, bytes: &[u8], options: &OpenOptions) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary(path);
    let mut file = options.open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // On a full disk half of it would only be in the way.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    temporary.into()
}

/// The content of `path`, or nothing when there is no such file.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `content` behind a line with its CRC-32 in hex, so that damage shows.
pub fn with_sum(content: &[u8]) -> Vec<u8> {
    let mut bytes = sum_line(content).into_bytes();
    bytes.extend_from_slice(content);
    bytes
}

/// What [`with_sum`] was given; nothing when it is damaged.
pub fn without_sum(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, content) = bytes.split_at_checked(9)?;
    (sum == sum_line(content).as_bytes()).then_some(content)
}

fn sum_line(content: &[u8]) -> String {
    format!("{:08x}\n", crc32fast::hash(content))
}

/// Makes the directory, and those above it, for its owner alone. One that is there stays as it is.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    match path.canonicalize()?.parent() {
        // Its entry must be durable, too.
        Some(parent) if is_new => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
