//! A leg that ran here and is not configured any more: its trail or its destination was taken out, on purpose or by a slip of the pen.
//!
//! For a while it holds its log where it was, unless the log is full, so that a slip that is mended soon loses nothing. After that it is forgotten, and
//! should it come back, it is a new leg. See [`crate::deliver::s3::absent`] for the same of S3.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::deliver::ABSENCE;
use crate::deliver::memory::{Found, Recalled};
use crate::wal::Position;

pub struct Absent {
    found: Found,
    cut: watch::Receiver<Position>,
    progress: watch::Sender<Position>,
}

impl Absent {
    /// Nothing when its file cannot be read: where it was is not known. `cut` tells what its log can wait for no longer. Blocking.
    pub fn new(found: Found, cut: watch::Receiver<Position>) -> Option<Self> {
        let Recalled::Memory(memory) = found.file.read() else {
            return None;
        };
        tracing::warn!(
            leg = found.stem,
            position = memory.next,
            "leg is not configured any more; what it has not delivered is kept for an hour, configure it again to deliver it"
        );
        Some(Self {
            found,
            cut,
            progress: watch::Sender::new(Position(memory.next)),
        })
    }

    /// The lowest position of its log that is held for it.
    pub fn watch_progress(&self) -> watch::Receiver<Position> {
        self.progress.subscribe()
    }

    /// Runs until `stop`, or until it is forgotten.
    pub async fn run(mut self, stop: CancellationToken) {
        let grace = tokio::time::sleep(ABSENCE);
        tokio::pin!(grace);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut grace => break,
                Ok(()) = self.cut.changed() => {
                    let cut = *self.cut.borrow_and_update();
                    self.progress.send_modify(|progress| *progress = cut.max(*progress));
                }
            }
        }
        tracing::warn!(
            leg = self.found.stem,
            "leg is still not configured, it is forgotten with what it has not delivered"
        );
        let file = self.found.file;
        let removed = crate::background::spawn_blocking(move || file.remove()).await;
        if let Ok(Err(error)) = removed {
            tracing::error!(leg = self.found.stem, %error, "cannot remove the place of a leg");
        }
        self.progress.send_replace(Position(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::memory::{self, Memory, MemoryFile};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn an_absent_leg_holds_its_log_for_an_hour_and_is_forgotten_then() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory {
            next: 500,
            ..Memory::default()
        };
        let file = MemoryFile::new(directory.path(), "main", "logs");
        file.write(&memory).unwrap();
        let found = memory::files(directory.path()).unwrap().remove(0);
        let cut = watch::Sender::new(Position(0));
        let absent = Absent::new(found, cut.subscribe()).unwrap();
        let progress = absent.watch_progress();
        assert_eq!(*progress.borrow(), Position(500));
        let running = tokio::spawn(absent.run(CancellationToken::new()));
        cut.send_replace(Position(700));
        tokio::time::sleep(Duration::from_secs(3500)).await;
        assert_eq!(
            *progress.borrow(),
            Position(700),
            "a full log waits for nobody"
        );
        assert!(matches!(file.read(), Recalled::Memory(_)));
        tokio::time::sleep(Duration::from_secs(200)).await;
        running.await.unwrap();
        assert_eq!(*progress.borrow(), Position(u64::MAX));
        assert_eq!(file.read(), Recalled::Nothing);
    }
}
