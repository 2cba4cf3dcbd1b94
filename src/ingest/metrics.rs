//! What the ways in count. Every series exists from the start.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::event::Code;

/// Why audit events are refused, one by one, in the names that PutAuditEvents has for it (API reference of CloudTrail Data, `ResultErrorEntry`).
pub mod audit_code {
    pub const FIELD_TOO_LONG: &str = "FieldTooLong";
    pub const FIELD_NOT_FOUND: &str = "FieldNotFound";
    pub const INVALID_CHECKSUM: &str = "InvalidChecksum";
    pub const INVALID_DATA: &str = "InvalidData";
    pub const INVALID_RECIPIENT: &str = "InvalidRecipient";
    pub const INVALID_EVENT_SOURCE: &str = "InvalidEventSource";

    pub const ALL: [&str; 6] = [
        FIELD_TOO_LONG,
        FIELD_NOT_FOUND,
        INVALID_CHECKSUM,
        INVALID_DATA,
        INVALID_RECIPIENT,
        INVALID_EVENT_SOURCE,
    ];
}

/// Counters of events; `Default` makes unregistered ones for tests.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub accepted: Counter,
    pub duplicate: Counter,
    pub skipped: Counter,
    rejected: Family<CodeLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            accepted: Counter::default(),
            duplicate: Counter::default(),
            skipped: Counter::default(),
            rejected: Family::default(),
        };
        for code in Code::ALL
            .map(Code::as_str)
            .into_iter()
            .chain(audit_code::ALL)
        {
            drop(metrics.rejected.get_or_create(&CodeLabel { code }));
        }
        metrics
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            accepted,
            duplicate,
            skipped,
            rejected,
        } = self;
        registry.register(
            "traild_events_accepted",
            "Events stored durably and answered",
            accepted.clone(),
        );
        registry.register(
            "traild_events_duplicate",
            "Events that were already stored",
            duplicate.clone(),
        );
        registry.register(
            "traild_events_skipped",
            "Events of Kubernetes about requests that are not answered yet",
            skipped.clone(),
        );
        registry.register(
            "traild_events_rejected",
            "Events refused, by the code their sender was told",
            rejected.clone(),
        );
    }

    pub fn count_rejected(&self, code: Code) {
        self.count_rejected_as(code.as_str());
    }

    /// By one of those, or of [`audit_code`].
    pub fn count_rejected_as(&self, code: &'static str) {
        self.rejected.get_or_create(&CodeLabel { code }).inc();
    }

    /// How many events were refused with `code`.
    pub fn rejected(&self, code: Code) -> u64 {
        self.rejected_as(code.as_str())
    }

    /// The same for one of those, or of [`audit_code`].
    pub fn rejected_as(&self, code: &'static str) -> u64 {
        self.rejected.get_or_create(&CodeLabel { code }).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start() {
        let mut registry = Registry::default();
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        metrics.accepted.inc_by(3);
        metrics.count_rejected(Code::TooDeep);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("traild_events_accepted_total 3\n"), "{text}");
        assert!(text.contains("traild_events_duplicate_total 0\n"), "{text}");
        assert!(
            text.contains("traild_events_rejected_total{code=\"TooDeep\"} 1\n"),
            "{text}"
        );
        for code in Code::ALL
            .map(Code::as_str)
            .into_iter()
            .chain(audit_code::ALL)
        {
            assert!(
                text.contains(&format!("traild_events_rejected_total{{code=\"{code}\"}}")),
                "{text}"
            );
        }
    }
}
