//! All series of the daemon in the OpenMetrics text format.
//!
//! Each module declares its own series next to the code that moves them and registers them here.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry;

use super::process::Process;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every series there is. Complete before the first scrape, so that none appears late.
#[derive(Debug, Default)]
pub struct Registry {
    series: registry::Registry,
    ready: Gauge,
}

impl Registry {
    /// With `traild_build_info`, `traild_ready` and the series of the process.
    pub fn new() -> Self {
        let mut registry = registry::Registry::default();
        let labels = vec![("version", env!("CARGO_PKG_VERSION"))];
        let family: Family<Vec<(&str, &str)>, Gauge> = Family::default();
        family.get_or_create(&labels).set(1);
        registry.register(
            "traild_build_info",
            "The version that runs; always 1",
            family,
        );
        let ready = Gauge::default();
        registry.register(
            "traild_ready",
            "1 when events are accepted, 0 when /readyz tells why they are not",
            ready.clone(),
        );
        registry.register_collector(Box::new(Process));
        Self {
            series: registry,
            ready,
        }
    }

    /// Where modules register their series.
    pub fn inner(&mut self) -> &mut registry::Registry {
        &mut self.series
    }

    pub fn tell_ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        prometheus_client::encoding::text::encode(&mut out, &self.series)
            .expect("writing to a String cannot fail");
        out
    }
}
