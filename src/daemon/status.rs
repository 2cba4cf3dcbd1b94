//! What `traild status` shows.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use super::delivery::Views;
use crate::api::status::{Latest, TrailFacts};
use crate::clock::WallMillis;
use crate::config::Config;
use crate::deliver::view::{self, Facts, LegView, Sink};
use crate::digest::writer::{self, view::View};
use crate::history::{History, Metrics};
use crate::server::ops::Readiness;
use crate::telemetry::status::{
    DigestStatus, HistoryStatus, JournalStatus, LastError, SinkStatus, Status, TrailStatus,
};
use crate::trail::Trail;
use crate::wal::Wal;

/// A trail and how its legs do.
#[derive(Debug, Clone)]
pub struct TrailView {
    pub trail: Arc<Trail>,
    /// S3 first.
    pub sinks: Vec<SinkView>,
    /// Of a trail with validation.
    pub digests: Option<View>,
}

/// A leg, and where it sends to.
#[derive(Debug, Clone)]
pub struct SinkView {
    pub leg: LegView,
    /// A bucket as `s3://…`, or an ARN or a name.
    pub target: String,
}

/// These legs follow those: whoever goes on where another stopped has its news, and of the others nothing is pending any more.
pub fn succeed(former: &[TrailView], views: &[TrailView]) {
    let legs = |views: &[TrailView]| -> Vec<LegView> {
        let sinks = views.iter().flat_map(|view| &view.sinks);
        sinks.map(|sink| sink.leg.clone()).collect()
    };
    let legs_now = legs(views);
    for before in legs(former) {
        match legs_now.iter().find(|now| now.leg() == before.leg()) {
            Some(now) => now.inherit(&before.facts()),
            None => before.retire(),
        }
    }
    for view in views {
        let before = former.iter().find(|it| it.trail.arn() == view.trail.arn());
        if let (Some(now), Some(before)) =
            (&view.digests, before.and_then(|it| it.digests.as_ref()))
        {
            now.inherit(&before.facts());
        }
    }
}

impl SinkView {
    /// The trail's bucket.
    pub fn s3(trail: &Trail, leg: LegView) -> Self {
        let bucket = &trail.bucket;
        let target = match trail.prefix.as_str() {
            "" => format!("s3://{bucket}"),
            prefix => format!("s3://{bucket}/{prefix}"),
        };
        Self { leg, target }
    }
}

/// Everything a status is told from.
#[derive(Clone)]
pub struct Asked {
    pub config: Arc<Config>,
    pub journal: Wal,
    pub phase: watch::Receiver<Readiness>,
    pub views: Views,
    pub history: History,
}

impl Asked {
    pub fn status(&self, now: WallMillis) -> Status {
        let phase = match &*self.phase.borrow() {
            Readiness::Ready => None,
            Readiness::NotReady(reason) => Some(reason.clone()),
        };
        let obstacle = phase.or_else(|| super::obstacle(&self.journal));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: obstacle.is_none(),
            not_ready_reason: obstacle,
            account_id: self.config.account_id.to_string(),
            region: self.config.region.to_string(),
            journal: JournalStatus {
                bytes: self.journal.bytes(),
                max_bytes: self.config.journal.max_bytes,
                start: self.journal.start().0,
                durable: self.journal.durable().0,
                failure: self.journal.failure(),
            },
            history: self.history.store().map(|store| history(store.metrics())),
            trails: self
                .views
                .borrow()
                .iter()
                .map(|view| trail(view, now))
                .collect(),
        }
    }
}

fn history(metrics: &Metrics) -> HistoryStatus {
    let unsigned = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
    HistoryStatus {
        events: metrics.events.get(),
        pending_bytes: unsigned(&metrics.pending_bytes),
        bytes: unsigned(&metrics.bytes),
        skipped_bytes: metrics.skipped_bytes.get(),
        quarantined_files: metrics.quarantined.get(),
    }
}

fn trail(view: &TrailView, now: WallMillis) -> TrailStatus {
    let TrailView {
        trail,
        sinks,
        digests,
    } = view;
    TrailStatus {
        name: trail.name.to_string(),
        arn: trail.arn(),
        home_region: trail.home_region.to_string(),
        bucket: trail.bucket.clone(),
        prefix: trail.prefix.clone(),
        sinks: sinks.iter().map(|view| sink(view, now)).collect(),
        digests: digests.as_ref().map(|view| digest(&view.facts())),
    }
}

fn sink(view: &SinkView, now: WallMillis) -> SinkStatus {
    let SinkView { leg, target } = view;
    let facts = leg.facts();
    let (pending, dead_lettered) = (facts.pending(), facts.dead_lettered());
    let Facts {
        delivered,
        objects,
        oldest_pending,
        last_error,
        last_delivery_at,
        ..
    } = facts;
    SinkStatus {
        sink: leg.leg().sink.to_string(),
        target: target.clone(),
        delivered,
        pending,
        oldest_pending_seconds: oldest_pending.map(|oldest| now.since(oldest).as_secs_f64()),
        dead_lettered,
        objects,
        last_delivery_at: last_delivery_at.map(WallMillis::rfc3339),
        last_error: last_error.map(told),
    }
}

fn digest(facts: &writer::view::Facts) -> DigestStatus {
    let seconds = |seconds: i64| WallMillis(seconds.saturating_mul(1000)).rfc3339();
    DigestStatus {
        delivered: facts.delivered,
        pending_windows: facts.pending_windows,
        undeliverable: facts.undeliverable,
        covered_until: facts.covered_until.map(seconds),
        last_delivery_at: facts.last_delivery_at.map(WallMillis::rfc3339),
        last_error: facts.last_error.clone().map(told),
    }
}

/// What GetTrailStatus tells of a trail.
pub fn latest(view: &TrailView) -> TrailFacts {
    let of = |sink| {
        let mut legs = view.sinks.iter().map(|view| &view.leg);
        let leg = legs.find(|leg| leg.leg().sink == sink)?;
        let facts = leg.facts();
        Some(news(facts.last_delivery_at, facts.last_error.as_ref()))
    };
    let digests = view.digests.as_ref().map(|view| {
        let facts = view.facts();
        news(facts.last_delivery_at, facts.last_error.as_ref())
    });
    TrailFacts {
        log_files: of(Sink::S3).unwrap_or_default(),
        notifications: of(Sink::Sns),
        log_events: of(Sink::Logs),
        digests,
    }
}

fn news(delivered_at: Option<WallMillis>, error: Option<&view::LastError>) -> Latest {
    let failed = error.map(|error| (error.at, error.code.as_str()));
    Latest::new(delivered_at, failed)
}

fn told(error: view::LastError) -> LastError {
    LastError {
        code: error.code,
        message: error.message,
        at: error.at.rfc3339(),
    }
}
