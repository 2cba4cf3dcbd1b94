//! Logs on stderr: readable on a terminal, one JSON object a line otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Begins logging. `TRAILD_LOG`, else `RUST_LOG`, chooses what is told, in tracing's directives; `info` when neither does.
/// Called twice, the first call holds.
pub fn init() {
    let (filter, complaint) = filter(
        ["TRAILD_LOG", "RUST_LOG"]
            .into_iter()
            .find_map(|name| Some((name, std::env::var(name).ok()?))),
    );
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Another subscriber is only there in tests.
    let _ = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    };
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
}

/// The filter asked for, or the default and what is wrong with the one asked for.
fn filter(asked: Option<(&str, String)>) -> (EnvFilter, Option<String>) {
    let Some((name, directives)) = asked.filter(|(_, directives)| !directives.trim().is_empty())
    else {
        return (EnvFilter::new(DEFAULT), None);
    };
    match EnvFilter::builder().parse(&directives) {
        Ok(filter) => (filter, None),
        Err(error) => (
            EnvFilter::new(DEFAULT),
            Some(format!(
                "cannot use {name}={directives}: {error}; logging at {DEFAULT}"
            )),
        ),
    }
}

/// `s3s` reports every refused request of the embedded store as an error, a missing key too; what matters is told by `store`.
const DEFAULT: &str = "info,s3s=off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_told_and_replaced() {
        assert!(filter(None).1.is_none());
        assert!(filter(Some(("RUST_LOG", "".into()))).1.is_none());
        assert_eq!(
            filter(Some(("RUST_LOG", "traild=debug".into())))
                .0
                .to_string(),
            "traild=debug"
        );
        let (used, complaint) = filter(Some(("TRAILD_LOG", "traild=loud".into())));
        assert_eq!(used.to_string(), EnvFilter::new(DEFAULT).to_string());
        assert!(complaint.is_some_and(|text| text.contains("TRAILD_LOG=traild=loud")));
    }
}
