//! How a trail's deliveries go, for GetTrailStatus.

use crate::clock::WallMillis;

/// Of a trail's destinations; nothing for one that it has not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrailFacts {
    pub log_files: Latest,
    pub notifications: Option<Latest>,
    pub log_events: Option<Latest>,
    pub digests: Option<Latest>,
}

/// The latest news of one destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Latest {
    pub delivered_at: Option<WallMillis>,
    /// Whether it went well or not.
    pub attempted_at: Option<WallMillis>,
    /// The destination's own code for the last failure; nothing after a success, or when it gave no answer.
    pub error: Option<String>,
}

impl Latest {
    /// By the last success, and the last failure since: its moment and its code.
    pub fn new(delivered_at: Option<WallMillis>, failed: Option<(WallMillis, &str)>) -> Self {
        /// Ours, for what had no answer (API reference, GetTrailStatus: errors do "not occur for requests that time out").
        const SILENCE: [&str; 3] = ["Timeout", "DispatchFailure", "ResponseError"];
        let code = failed.map(|(_, code)| code);
        Self {
            delivered_at,
            attempted_at: failed.map(|(at, _)| at).or(delivered_at),
            error: code
                .filter(|code| !SILENCE.contains(code))
                .map(str::to_owned),
        }
    }
}
