//! The seam between the log and the disk.
//!
//! Everything the log does to files goes through these two traits, so that a test can fail, crash or cut the power at
//! every single operation. `RealDisk` is the operating system's file system.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A directory tree.
pub trait Disk: Send + Sync + Debug {
    /// Creates the directory and those above it, and makes their entries durable.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// The names of what is directly in the directory, in no order. A directory that does not exist is an error.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations and removals in the directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes an unprivileged process can still write to the file system of `directory`.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
}

/// What an opened file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
}

/// An open file, addressed by offset.
pub trait DiskFile: Send + Sync + Debug {
    fn bytes(&self) -> io::Result<u64>;
    /// Reads until `buffer` is full or the file ends, and says how much it read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all the slices one after the other. After an error any part of them may have been written.
    fn write_at(&self, slices: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Makes the content durable, and what is needed to read it back (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
}

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// The most slices one pwritev takes (IOV_MAX of Linux).
const SLICES_AT_ONCE: usize = 1024;

impl Disk for RealDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            self.create_directory(parent)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_directory(Path::new(".")),
            Some(parent) => self.sync_directory(parent),
            None => Ok(()),
        }
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Box::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(directory)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .0
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, mut slices: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let at_once = slices.len().min(SLICES_AT_ONCE);
            match rustix::io::pwritev(&self.0, &slices[..at_once], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut slices, count);
                    offset += count as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Whether the error says that there is no room, which can pass, and not that the disk is broken, which does not.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Whether the error says that no file can be opened now, by this process or by any, which passes.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Copies `bytes` bytes of `from` at `offset` into the new file `to`, and makes the copy's content durable.
/// What cannot be read is copied as zeroes, so that a broken sector does not keep its neighbours from being saved.
pub(super) fn copy_range(
    from: &dyn DiskFile,
    offset: u64,
    bytes: u64,
    to: &dyn DiskFile,
) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(bytes).unwrap_or(COPY_BYTES))];
    let mut done = 0;
    while done < bytes {
        let part = buffer
            .len()
            .min(usize::try_from(bytes - done).unwrap_or(usize::MAX));
        let count = read_what_can_be(from, &mut buffer[..part], offset + done)?;
        if count == 0 {
            break;
        }
        to.write_at(&mut [IoSlice::new(&buffer[..count])], done)?;
        done += count as u64;
    }
    to.sync_data()
}

/// The unit in which a disk loses data.
const PAGE_BYTES: usize = 4096;

/// Like `read_at`, but gives zeroes for the pages that the disk cannot read.
pub(super) fn read_what_can_be(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    match file.read_at(buffer, offset) {
        Err(error) if is_unreadable(&error) => {}
        other => return other,
    }
    let end = file.bytes()?;
    let mut filled = 0;
    while filled < buffer.len() && offset + (filled as u64) < end {
        let at = offset + filled as u64;
        let to_page_end = PAGE_BYTES - (at % PAGE_BYTES as u64) as usize;
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let part = to_page_end.min(buffer.len() - filled).min(left);
        let page = &mut buffer[filled..filled + part];
        match file.read_at(page, at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if is_unreadable(&error) => {
                tracing::error!(offset = at, bytes = part, %error, "the disk cannot read part of the log");
                page.fill(0);
                filled += part;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
