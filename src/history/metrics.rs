//! What history counts. Every series exists from the start.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// `Default` makes unregistered ones for tests.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub events: Counter,
    pub expired: Counter,
    pub running: Gauge,
    pub pending_bytes: Gauge,
    pub bytes: Gauge,
    pub files: Gauge,
    pub lookup_seconds: Histogram,
    pub skipped_bytes: Counter,
    pub quarantined: Counter,
    pub damaged: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = [
            0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
        ];
        Self {
            events: Counter::default(),
            expired: Counter::default(),
            running: Gauge::default(),
            pending_bytes: Gauge::default(),
            bytes: Gauge::default(),
            files: Gauge::default(),
            lookup_seconds: Histogram::new(seconds),
            skipped_bytes: Counter::default(),
            quarantined: Counter::default(),
            damaged: Counter::default(),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            events,
            expired,
            running,
            pending_bytes,
            bytes,
            files,
            lookup_seconds,
            skipped_bytes,
            quarantined,
            damaged,
        } = self;
        registry.register(
            "traild_history_events",
            "Events added to the event history",
            events.clone(),
        );
        registry.register(
            "traild_history_expired_events",
            "Events that were older than history.retention when they came, and are not in the event history",
            expired.clone(),
        );
        registry.register(
            "traild_history_running",
            "1 while the event history follows the journal",
            running.clone(),
        );
        registry.register(
            "traild_history_pending_bytes",
            "Bytes of the journal that the event history has not seen",
            pending_bytes.clone(),
        );
        registry.register(
            "traild_history_bytes",
            "Bytes of the event history's files",
            bytes.clone(),
        );
        registry.register(
            "traild_history_files",
            "Files of the event history",
            files.clone(),
        );
        registry.register(
            "traild_history_lookup_seconds",
            "How long lookups of the event history took",
            lookup_seconds.clone(),
        );
        registry.register(
            "traild_history_skipped_bytes",
            "Bytes of the journal that could not wait for the event history; their events are not in it",
            skipped_bytes.clone(),
        );
        registry.register(
            "traild_history_quarantined_files",
            "Files of the event history that were found damaged and put aside",
            quarantined.clone(),
        );
        registry.register(
            "traild_history_damaged_events",
            "Events of the event history that were found damaged by lookups and left out",
            damaged.clone(),
        );
    }
}
