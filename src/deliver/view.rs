//! What a leg shows of itself: to `traild status` and, as metrics, to Prometheus.
//!
//! At rest, for each trail and sink: routed = delivered + pending + dead-lettered. The counts go on across restarts: what was
//! delivered comes from the ledger, what is pending is routed again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clock::WallMillis;

/// A kind of destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    S3,
    Sns,
    /// CloudWatch Logs.
    Logs,
    /// EventBridge.
    Bus,
}

impl Sink {
    pub const ALL: [Self; 4] = [Self::S3, Self::Sns, Self::Logs, Self::Bus];

    /// Its name in metrics, in the status and in the names of files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Sns => "sns",
            Self::Logs => "logs",
            Self::Bus => "bus",
        }
    }

    /// Why its events may be dead-lettered.
    fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[JOURNAL_DAMAGED],
            Self::Sns | Self::Bus => &[JOURNAL_DAMAGED, CUT_OFF, TOO_LARGE, REFUSED],
            Self::Logs => &REASONS,
        }
    }

    /// What its service usually answers when it fails (the errors of PutObject, Publish, PutLogEvents and PutEvents, and those
    /// common to all actions).
    fn usual_errors(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["AccessDenied", "InternalError", "NoSuchBucket", "SlowDown"],
            Self::Sns => &[
                "AuthorizationError",
                "InternalError",
                "KMSAccessDenied",
                "KMSThrottling",
                "NotFound",
                "Throttled",
                "Throttling",
            ],
            Self::Logs => &[
                "AccessDeniedException",
                "ResourceNotFoundException",
                "ServiceUnavailableException",
                "ThrottlingException",
                "UnrecognizedClientException",
            ],
            Self::Bus => &[
                "AccessDeniedException",
                "InternalException",
                "InternalFailure",
                "NotAuthorizedForSourceException",
                "ResourceNotFoundException",
                "ThrottlingException",
            ],
        }
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Sink {
    type Err = UnknownSink;

    fn from_str(text: &str) -> Result<Self, UnknownSink> {
        let named = Self::ALL.into_iter().find(|sink| sink.as_str() == text);
        named.ok_or(UnknownSink)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sink is s3, sns, logs or bus")]
pub struct UnknownSink;

impl EncodeLabelValue for Sink {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

/// A trail and one of its destinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Leg {
    pub trail: String,
    pub sink: Sink,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LegError {
    trail: String,
    sink: Sink,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LegReason {
    trail: String,
    sink: Sink,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrailLabel {
    trail: String,
}

/// The series of all legs.
#[derive(Debug, Clone)]
pub struct Metrics {
    routed: Family<Leg, Counter>,
    delivered: Family<Leg, Counter>,
    pending: Family<Leg, Gauge>,
    dead_lettered: Family<LegReason, Counter>,
    oldest_pending_seconds: Family<Leg, Gauge<f64, std::sync::atomic::AtomicU64>>,
    errors: Family<LegError, Counter>,
    objects: Family<TrailLabel, Counter>,
    object_bytes: Family<TrailLabel, Counter>,
    put_object_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            routed: Family::default(),
            delivered: Family::default(),
            pending: Family::default(),
            dead_lettered: Family::default(),
            oldest_pending_seconds: Family::default(),
            errors: Family::default(),
            objects: Family::default(),
            object_bytes: Family::default(),
            put_object_seconds: Histogram::new(exponential_buckets(0.002, 2.0, 15)),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            routed,
            delivered,
            pending,
            dead_lettered,
            oldest_pending_seconds,
            errors,
            objects,
            object_bytes,
            put_object_seconds,
        } = self.clone();
        registry.register(
            "traild_events_routed",
            "Events that a trail selected",
            routed,
        );
        registry.register(
            "traild_events_delivered",
            "Events that reached their destination",
            delivered,
        );
        registry.register(
            "traild_events_pending",
            "Events routed and not yet settled",
            pending,
        );
        registry.register(
            "traild_events_dead_lettered",
            "Events that could not be delivered, by reason",
            dead_lettered,
        );
        registry.register(
            "traild_oldest_pending_seconds",
            "Time since the oldest pending event was accepted",
            oldest_pending_seconds,
        );
        registry.register(
            "traild_delivery_errors",
            "Failed attempts, by error code",
            errors,
        );
        registry.register(
            "traild_objects_delivered",
            "Log files written to S3",
            objects,
        );
        registry.register(
            "traild_object_bytes",
            "Bytes of the log files, compressed",
            object_bytes,
        );
        registry.register(
            "traild_put_object_seconds",
            "Time that one PutObject took",
            put_object_seconds,
        );
    }

    pub(super) fn observe_put(&self, seconds: f64) {
        self.put_object_seconds.observe(seconds);
    }
}

/// The last failure of a leg.
#[derive(Debug, Clone)]
pub struct LastError {
    pub code: String,
    pub message: String,
    pub at: WallMillis,
}

/// A leg's counts and its latest news.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub routed: u64,
    pub delivered: u64,
    /// By reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    pub objects: u64,
    pub object_bytes: u64,
    pub oldest_pending: Option<WallMillis>,
    pub last_error: Option<LastError>,
    pub last_delivery_at: Option<WallMillis>,
}

impl Facts {
    pub fn dead_lettered(&self) -> u64 {
        self.dead_letters.values().sum()
    }

    pub fn pending(&self) -> u64 {
        self.routed
            .saturating_sub(self.delivered + self.dead_lettered())
    }
}

/// Failures that a request to any destination may meet before it is answered.
const ERRORS_OF_ANY_SINK: [&str; 3] = ["CredentialsError", "DispatchFailure", "Timeout"];
/// A destination chooses its codes, so only so many of them become series of a leg. The rest is counted together.
const MAX_ERROR_CODES: usize = 64;
const OTHER_ERRORS: &str = "Other";

/// Shared between a leg, which writes it, and whoever asks.
#[derive(Debug, Clone)]
pub struct LegView {
    leg: Leg,
    facts: Arc<Mutex<Facts>>,
    /// Error codes that are series of this leg.
    error_codes: Arc<Mutex<BTreeSet<String>>>,
    metrics: Metrics,
}

impl LegView {
    /// Makes every series of the leg exist.
    pub fn new(leg: Leg, metrics: Metrics) -> Self {
        let sink = leg.sink;
        drop(metrics.routed.get_or_create(&leg));
        drop(metrics.pending.get_or_create(&leg));
        drop(metrics.oldest_pending_seconds.get_or_create(&leg));
        let view = Self {
            leg,
            facts: Arc::default(),
            error_codes: Arc::default(),
            metrics,
        };
        view.delivered(0, 0, 0);
        for reason in sink.reasons() {
            view.dead_lettered(reason, 0);
        }
        for code in ERRORS_OF_ANY_SINK.iter().chain(sink.usual_errors()) {
            view.count_errors(code, 0);
        }
        view
    }

    pub fn leg(&self) -> &Leg {
        &self.leg
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn routed(&self, events: u64) {
        let mut facts = self.lock();
        facts.routed += events;
        raise(&self.metrics.routed.get_or_create(&self.leg), facts.routed);
    }

    pub fn delivered(&self, events: u64, objects: u64, object_bytes: u64) {
        let mut facts = self.lock();
        facts.delivered += events;
        facts.objects += objects;
        facts.object_bytes += object_bytes;
        let counter = self.metrics.delivered.get_or_create(&self.leg);
        raise(&counter, facts.delivered);
        // Objects are of a trail, and only its S3 leg makes them.
        if self.leg.sink == Sink::S3 {
            let label = TrailLabel {
                trail: self.leg.trail.clone(),
            };
            let metrics = &self.metrics;
            raise(&metrics.objects.get_or_create(&label), facts.objects);
            let bytes = metrics.object_bytes.get_or_create(&label);
            raise(&bytes, facts.object_bytes);
        }
    }

    pub fn dead_lettered(&self, reason: &'static str, events: u64) {
        let mut facts = self.lock();
        let count = facts.dead_letters.entry(reason).or_default();
        *count += events;
        let Leg { trail, sink } = self.leg.clone();
        let counter = self.metrics.dead_lettered.get_or_create(&LegReason {
            trail,
            sink,
            reason,
        });
        raise(&counter, *count);
    }

    pub fn delivery_at(&self, at: WallMillis) {
        let mut facts = self.lock();
        facts.last_delivery_at = Some(at);
        facts.last_error = None;
    }

    pub fn failed(&self, code: &str, message: String, at: WallMillis) {
        self.count_errors(code, 1);
        self.lock().last_error = Some(LastError {
            code: code.to_owned(),
            message,
            at,
        });
    }

    fn count_errors(&self, code: &str, errors: u64) {
        let Leg { trail, sink } = self.leg.clone();
        let label = LegError {
            trail,
            sink,
            code: self.error_label(code).to_owned(),
        };
        self.metrics.errors.get_or_create(&label).inc_by(errors);
    }

    fn error_label<'a>(&self, code: &'a str) -> &'a str {
        let mut codes = self
            .error_codes
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if codes.contains(code) {
            return code;
        }
        if codes.len() >= MAX_ERROR_CODES {
            return OTHER_ERRORS;
        }
        codes.insert(code.to_owned());
        code
    }

    /// The leg goes on where another stopped that is shown in these facts: its news are the latest, until there are others.
    pub fn inherit(&self, former: &Facts) {
        let mut facts = self.lock();
        let Facts {
            last_error,
            last_delivery_at,
            ..
        } = former;
        if facts.last_delivery_at.is_none() {
            facts.last_delivery_at = *last_delivery_at;
            facts.last_error = facts.last_error.take().or(last_error.clone());
        }
    }

    /// The leg is gone for good: nothing is pending any more. What it has counted stays counted.
    pub fn retire(&self) {
        self.metrics.pending.remove(&self.leg);
        self.metrics.oldest_pending_seconds.remove(&self.leg);
    }

    pub fn oldest_pending(&self, oldest: Option<WallMillis>) {
        self.lock().oldest_pending = oldest;
    }

    /// Brings the gauges up to date: called before they are read.
    pub fn refresh(&self, now: WallMillis) {
        let facts = self.facts();
        let pending = i64::try_from(facts.pending()).unwrap_or(i64::MAX);
        self.metrics.pending.get_or_create(&self.leg).set(pending);
        let age = facts
            .oldest_pending
            .map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        self.metrics
            .oldest_pending_seconds
            .get_or_create(&self.leg)
            .set(age);
    }
}

/// Brings a counter up to a total. A leg that is built anew while the daemon runs begins with what it remembers, which its series has counted
/// before.
fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// The journal could not give an event back.
pub const JOURNAL_DAMAGED: &str = "journal_damaged";
/// The log was full, and the leg, which may not hold it back, was cut off.
pub const CUT_OFF: &str = "cut_off";
/// Over the destination's limit for one event.
pub const TOO_LARGE: &str = "too_large";
/// The destination refused it for what is in it.
pub const REFUSED: &str = "refused";
/// CloudWatch Logs: more than two hours ahead of its clock.
pub const TOO_NEW: &str = "too_new";
/// CloudWatch Logs: more than 14 days behind its clock.
pub const TOO_OLD: &str = "too_old";
/// CloudWatch Logs: older than the log group keeps events.
pub const EXPIRED: &str = "expired";

/// Every reason there is.
pub const REASONS: [&str; 7] = [
    JOURNAL_DAMAGED,
    CUT_OFF,
    TOO_LARGE,
    REFUSED,
    TOO_NEW,
    TOO_OLD,
    EXPIRED,
];

/// The reason that stands on the disk; one that this version does not know counts as [`REFUSED`].
pub fn reason(stored: &str) -> &'static str {
    let known = REASONS.into_iter().find(|reason| *reason == stored);
    known.unwrap_or(REFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered() -> (Metrics, Registry) {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        (metrics, registry)
    }

    fn leg(metrics: &Metrics, trail: &str, sink: Sink) -> LegView {
        let leg = Leg {
            trail: trail.to_owned(),
            sink,
        };
        LegView::new(leg, metrics.clone())
    }

    /// The lines of a metric, without its name.
    fn series(registry: &Registry, metric: &str) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix(metric))
            .filter(|line| line.starts_with('{'))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_leg_has_its_series_from_the_start_and_only_s3_has_objects() {
        for sink in Sink::ALL {
            let (metrics, registry) = registered();
            leg(&metrics, "main", sink);
            let of_leg = format!("{{trail=\"main\",sink=\"{sink}\"");
            for metric in [
                "traild_events_routed_total",
                "traild_events_delivered_total",
                "traild_events_pending",
                "traild_oldest_pending_seconds",
            ] {
                let lines = series(&registry, metric);
                assert_eq!(lines.len(), 1, "{metric}");
                assert!(lines[0].starts_with(&format!("{of_leg}}} 0")), "{lines:?}");
            }
            let reasons = series(&registry, "traild_events_dead_lettered_total");
            assert_eq!(reasons.len(), sink.reasons().len());
            let errors = series(&registry, "traild_delivery_errors_total");
            let codes = ERRORS_OF_ANY_SINK.len() + sink.usual_errors().len();
            assert_eq!(errors.len(), codes);
            let all = reasons.iter().chain(&errors);
            for line in all {
                assert!(line.starts_with(&of_leg) && line.ends_with(" 0"), "{line}");
            }
            let objects = usize::from(sink == Sink::S3);
            for metric in [
                "traild_objects_delivered_total",
                "traild_object_bytes_total",
            ] {
                assert_eq!(series(&registry, metric).len(), objects, "{metric} {sink}");
            }
        }
    }

    #[test]
    fn what_another_leg_delivers_counts_no_objects() {
        let (metrics, registry) = registered();
        let s3 = leg(&metrics, "main", Sink::S3);
        let bus = leg(&metrics, "main", Sink::Bus);
        s3.delivered(5, 1, 700);
        bus.delivered(5, 0, 0);
        let objects = series(&registry, "traild_objects_delivered_total");
        assert_eq!(objects, ["{trail=\"main\"} 1"]);
        assert_eq!(bus.facts().delivered, 5);
    }

    #[test]
    fn a_sink_and_a_reason_are_read_back_from_their_names() {
        for sink in Sink::ALL {
            assert_eq!(sink.as_str().parse(), Ok(sink));
            assert!(sink.reasons().iter().all(|each| REASONS.contains(each)));
        }
        for other in ["", "S3", "replay-1"] {
            assert_eq!(other.parse::<Sink>(), Err(UnknownSink), "{other}");
        }
        for known in REASONS {
            assert_eq!(reason(known), known);
        }
        assert_eq!(reason("out_of_fashion"), REFUSED);
    }

    #[test]
    fn errors_have_series_from_the_start_and_never_more_than_a_store_may_ask_for() {
        let (metrics, registry) = registered();
        let errors = || series(&registry, "traild_delivery_errors_total");
        let view = leg(&metrics, "main", Sink::S3);
        let at_start = errors().len();

        for n in 0..1000 {
            view.failed(&format!("Code{n}"), "no".to_owned(), WallMillis(1));
        }
        view.failed("Timeout", "late".to_owned(), WallMillis(2));
        let after = errors();
        assert_eq!(after.len(), MAX_ERROR_CODES + 1);
        let counted = |code: &str| {
            let line = after
                .iter()
                .find(|line| line.contains(&format!("code=\"{code}\"")));
            line.and_then(|line| line.rsplit_once(' ')).unwrap().1
        };
        assert_eq!((counted("Code0"), counted("Timeout")), ("1", "1"));
        let told_apart = MAX_ERROR_CODES - at_start;
        assert_eq!(counted("Other"), (1000 - told_apart).to_string());
        assert_eq!(view.facts().last_error.unwrap().code, "Timeout");

        leg(&metrics, "other", Sink::S3).failed("Code999", String::new(), WallMillis(1));
        assert!(
            errors()
                .iter()
                .any(|line| line.contains("other") && line.contains("Code999")),
            "each leg has its own"
        );
    }
}
