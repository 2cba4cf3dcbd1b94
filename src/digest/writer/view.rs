//! What the digests of a trail show of themselves: to `traild status` and, as metrics, to Prometheus.

use std::sync::{Arc, Mutex, MutexGuard};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::WallMillis;
use crate::deliver::view::LastError;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrailLabel {
    trail: String,
}

/// The series of all trails.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    delivered: Family<TrailLabel, Counter>,
    errors: Family<TrailLabel, Counter>,
    pending: Family<TrailLabel, Gauge>,
    undeliverable: Family<TrailLabel, Counter>,
    covered_until: Family<TrailLabel, Gauge>,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            delivered,
            errors,
            pending,
            undeliverable,
            covered_until,
        } = self.clone();
        registry.register(
            "traild_digests_delivered",
            "Digest files written to S3",
            delivered,
        );
        registry.register(
            "traild_digest_errors",
            "Failed attempts to sign or to deliver digest files",
            errors,
        );
        registry.register(
            "traild_digest_windows_pending",
            "Windows whose digest files are sealed and not all delivered",
            pending,
        );
        registry.register(
            "traild_digests_undeliverable",
            "Digest files whose key holds something else: holes in their chains",
            undeliverable,
        );
        registry.register(
            "traild_digest_covered_until_seconds",
            "End of the newest window that has digest files, seconds since 1970",
            covered_until,
        );
    }
}

/// Counts and latest news.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Digests, since the daemon was started.
    pub delivered: u64,
    /// Windows that are sealed and not all delivered.
    pub pending_windows: u64,
    /// End of the newest sealed window, seconds since 1970.
    pub covered_until: Option<i64>,
    pub last_delivery_at: Option<WallMillis>,
    /// Digests that are not in their chains, as something else has their key. Since the daemon was started.
    pub undeliverable: u64,
    /// Kept until the next success, and for ever when a digest cannot be delivered.
    pub last_error: Option<LastError>,
}

/// Shared between a writer, which writes it, and whoever asks.
#[derive(Debug, Clone)]
pub struct View {
    label: TrailLabel,
    facts: Arc<Mutex<Facts>>,
    metrics: Metrics,
}

impl View {
    /// Makes every series of the trail exist.
    pub fn new(trail: &str, metrics: Metrics) -> Self {
        let label = TrailLabel {
            trail: trail.to_owned(),
        };
        drop(metrics.delivered.get_or_create(&label));
        drop(metrics.errors.get_or_create(&label));
        drop(metrics.pending.get_or_create(&label));
        drop(metrics.undeliverable.get_or_create(&label));
        Self {
            label,
            facts: Arc::default(),
            metrics,
        }
    }

    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The writer goes on where another stopped that is shown in these facts.
    pub fn inherit(&self, former: &Facts) {
        let mut facts = self.lock();
        facts.delivered += former.delivered;
        if facts.last_delivery_at.is_none() {
            facts.last_delivery_at = former.last_delivery_at;
            facts.last_error = facts.last_error.take().or(former.last_error.clone());
        }
    }

    pub(super) fn delivered(&self, digests: u64, at: WallMillis) {
        let counter = self.metrics.delivered.get_or_create(&self.label).clone();
        counter.inc_by(digests);
        let mut facts = self.lock();
        facts.delivered += digests;
        facts.last_delivery_at = Some(at);
        if facts.undeliverable == 0 {
            facts.last_error = None;
        }
    }

    pub(super) fn undeliverable(&self, message: String, at: WallMillis) {
        let counter = self
            .metrics
            .undeliverable
            .get_or_create(&self.label)
            .clone();
        counter.inc();
        self.lock().undeliverable += 1;
        self.failed("KeyTaken", message, at);
    }

    pub(super) fn failed(&self, code: &str, message: String, at: WallMillis) {
        self.metrics.errors.get_or_create(&self.label).inc();
        self.lock().last_error = Some(LastError {
            code: code.to_owned(),
            message,
            at,
        });
    }

    pub(super) fn stands(&self, covered_until: i64, pending_windows: usize) {
        let pending = u64::try_from(pending_windows).unwrap_or(u64::MAX);
        {
            let mut facts = self.lock();
            facts.covered_until = Some(covered_until);
            facts.pending_windows = pending;
        }
        let gauge = self
            .metrics
            .covered_until
            .get_or_create(&self.label)
            .clone();
        gauge.set(covered_until);
        let gauge = self.metrics.pending.get_or_create(&self.label).clone();
        gauge.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }

    /// The chains have ended: there is nothing that could be late any more. What was counted stays counted.
    pub(super) fn retire(&self) {
        self.metrics.covered_until.remove(&self.label);
    }
}
