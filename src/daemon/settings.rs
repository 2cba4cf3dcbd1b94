//! The settings that alarms are measured against, as series: an alert rule then fits every configuration.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::config::Config;

pub fn register(config: &Config, registry: &mut Registry) {
    let journal_bytes: Gauge = Gauge::default();
    journal_bytes.set(i64::try_from(config.journal.max_bytes).unwrap_or(i64::MAX));
    registry.register(
        "traild_journal_max_bytes",
        "The setting journal.max_bytes",
        journal_bytes,
    );
    for (name, help, setting) in [
        (
            "traild_delivery_max_age_seconds",
            "The setting delivery.max_age",
            config.delivery.max_age,
        ),
        (
            "traild_digest_interval_seconds",
            "The setting digest.interval",
            config.digest.interval,
        ),
    ] {
        let seconds: Gauge<f64, AtomicU64> = Gauge::default();
        seconds.set(setting.as_secs_f64());
        registry.register(name, help, seconds);
    }
}
