//! One daemon per data directory.
//!
//! `lock` in the directory is held with an exclusive flock for as long as the daemon lives; the kernel lets go of it
//! when the process ends in whatever way. Its text names the holder: `pid 123 (traild run), started 2024-05-01T10:00:00Z`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The most that is read of a lock file.
const HOLDER_BYTES: u64 = 512;

/// A data directory held for this process, until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("data_dir {directory} is in use by {holder}")]
    Held { directory: PathBuf, holder: String },
    #[error("cannot lock {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DirLock {
    /// Takes the directory, which is created when it is missing, or says who has it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let on_path = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(on_path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(on_path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held {
                    directory: directory.to_path_buf(),
                    holder: holder(&mut file),
                });
            }
            Err(error) => return Err(on_path(error.into())),
        }
        let named = file
            .set_len(0)
            .and_then(|()| file.write_all(own_name().as_bytes()));
        if let Err(error) = named {
            // On a full disk, say. The lock is held all the same; only a second daemon would not be told by whom.
            tracing::warn!(path = %path.display(), %error, "cannot write this process's name into the lock file");
        }
        Ok(Self { _file: file })
    }

    /// Who holds the directory, if anyone does. It is not taken, but a daemon that starts at this very instant finds it in use.
    pub fn holder(directory: &Path) -> Result<Option<String>, LockError> {
        let path = directory.join("lock");
        let on_path = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(on_path)?,
        };
        // Shared, so that of two who ask none takes the other for the holder.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(holder(&mut file))),
            Err(error) => Err(on_path(error.into())),
        }
    }
}

/// Who wrote the lock file; what is in it is shown only as far as it is plain text.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.take(HOLDER_BYTES).read_to_end(&mut bytes);
    let text: String = String::from_utf8_lossy(&bytes)
        .trim()
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    match read {
        Ok(_) if !text.is_empty() => text,
        _ => "another process".to_owned(),
    }
}

fn own_name() -> String {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_else(|| "traild".to_owned());
    let program = Path::new(&program)
        .file_name()
        .map_or(program.clone(), |name| name.to_string_lossy().into_owned());
    let mut command = program;
    // The rest may hold what does not belong into a file that anyone may read.
    if let Some(subcommand) = arguments.next().filter(|word| !word.starts_with('-')) {
        command = format!("{command} {subcommand}");
    }
    let started = OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .format(&Rfc3339)
        .unwrap_or_default();
    let pid = std::process::id();
    format!("pid {pid} ({command}), started {started}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_who_holds_the_directory() {
        let directory = tempfile::TempDir::new().unwrap();
        let held = DirLock::acquire(directory.path()).unwrap();
        let error = DirLock::acquire(directory.path()).unwrap_err().to_string();
        let expected = format!(
            "data_dir {} is in use by pid {} (",
            directory.path().display(),
            std::process::id()
        );
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("), started 2"), "{error}");
        drop(held);
        DirLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn the_holder_is_told_and_asking_takes_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        assert_eq!(DirLock::holder(directory.path()).unwrap(), None);
        assert!(!directory.path().join("lock").exists());
        let held = DirLock::acquire(directory.path()).unwrap();
        let holder = DirLock::holder(directory.path()).unwrap().unwrap();
        assert!(holder.starts_with(&format!("pid {} (", std::process::id())));
        drop(held);
        assert_eq!(DirLock::holder(directory.path()).unwrap(), None);
        DirLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_lock_file_that_cannot_be_written_is_held_all_the_same() {
        let directory = tempfile::TempDir::new().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("lock")).unwrap();
        let _held = DirLock::acquire(directory.path()).unwrap();
        let error = DirLock::acquire(directory.path()).unwrap_err();
        assert!(matches!(error, LockError::Held { .. }), "{error:?}");
    }

    #[test]
    fn a_lock_file_left_by_a_dead_daemon_is_taken_over() {
        let directory = tempfile::TempDir::new().unwrap();
        let stale =
            "pid 1 (traild run), started long ago and quite a lot longer than any new text\n";
        std::fs::write(directory.path().join("lock"), stale).unwrap();
        let _held = DirLock::acquire(directory.path()).unwrap();
        let text = std::fs::read_to_string(directory.path().join("lock")).unwrap();
        assert!(text.starts_with(&format!("pid {} ", std::process::id())));
        assert!(!text.contains("long ago"));
    }
}
