//! Work that can wait gets the processor when nobody else wants it.
//!
//! Making log files keeps every processor busy for tenths of a second at a time. Among equals, the threads that answer requests wait behind it
//! for their turn; so it is done on threads of lower priority, of which Linux lets any process make some.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use tokio::task::JoinHandle;

/// How far work stands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Less than a third of a processor that others want, too.
    Low,
    /// Next to nothing of it.
    Lowest,
}

impl Priority {
    /// Linux's nice value, which is 0 for all else.
    fn nice(self) -> i32 {
        match self {
            Self::Low => 4,
            Self::Lowest => 19,
        }
    }
}

/// Does `work` on a thread of low priority, and waits for it. Blocking. An error when there is no thread to be had; then nothing was done.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let background = thread::Builder::new().name("background".to_owned());
        let done = background.spawn_scoped(scope, || {
            give_way(Priority::Low);
            work()
        })?;
        done.join().map_err(|panic| resume_unwind(panic))
    })
}

/// Does `work` on a thread where it may block. Tokio's own, but in a simulation, which has one thread and an order of things: there it is done when this is
/// called, and its caller learns of it a little later.
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(test)]
    if crate::simulation::is_on() {
        let done = work();
        return tokio::spawn(async move {
            crate::simulation::pause().await;
            done
        });
    }
    tokio::task::spawn_blocking(work)
}

/// Lowers the calling thread's priority, for as long as it lives. Where that is not to be had it is as it was.
pub fn give_way(priority: Priority) {
    // Of Linux's threads each has its own, and no process named is the thread that calls (setpriority(2), "C library/kernel differences"); elsewhere that
    // would be the whole process.
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, priority.nice())
    {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_work_gives_way_and_nothing_else_does() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert_eq!(run(nice).unwrap(), before.max(Priority::Low.nice()));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_panic_of_the_work_is_the_callers() {
        let panicked = std::panic::catch_unwind(|| run(|| panic!("in the background")));
        let message = *panicked.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(message, "in the background");
    }
}
