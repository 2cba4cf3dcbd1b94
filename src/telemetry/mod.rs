//! How the daemon tells what it does: logs, metrics, its status, and its word to systemd.

pub mod disk;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod status;
pub mod systemd;

/// An error and what caused it, each said once, in a line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}
