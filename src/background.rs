//! Work that can wait gets the processor when nobody else wants it.
//!
//! Making log files keeps every processor busy for tenths of a second at a time. Among equals, the threads that answer requests wait behind it
//! for their turn; so it is done on threads of lower priority, of which Linux lets any process make some.

use std::io;
use std::panic::resume_unwind;
use std::thread;

/// Linux's nice value, 0 for all else: such a thread gets about a tenth of what one that wants the same processor gets.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Does `work` on a thread of lower priority, and waits for it. Blocking. An error when there is no thread to be had; then nothing was done.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let background = thread::Builder::new().name("background".to_owned());
        let done = background.spawn_scoped(scope, || {
            give_way();
            work()
        })?;
        done.join().map_err(|panic| resume_unwind(panic))
    })
}

/// Lowers the calling thread's priority, for as long as it lives. Where that is not to be had it is as it was.
pub fn give_way() {
    // Of Linux's threads each has its own, and zero is the one that calls (setpriority(2), "BUGS"); elsewhere that would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
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
        assert_eq!(run(nice).unwrap(), before.max(NICE));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_panic_of_the_work_is_the_callers() {
        let panicked = std::panic::catch_unwind(|| run(|| panic!("in the background")));
        let message = *panicked.unwrap_err().downcast::<&str>().unwrap();
        assert_eq!(message, "in the background");
    }
}
