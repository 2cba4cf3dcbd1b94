//! All series of the daemon in the OpenMetrics text format.
//!
//! Each module declares its own series next to the code that moves them and registers them here.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every series there is. Complete before the first scrape, so that none appears late.
#[derive(Debug, Default)]
pub struct Registry(registry::Registry);

impl Registry {
    /// With `traild_build_info`.
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
        Self(registry)
    }

    /// Where modules register their series.
    pub fn inner(&mut self) -> &mut registry::Registry {
        &mut self.0
    }

    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        prometheus_client::encoding::text::encode(&mut out, &self.0)
            .expect("writing to a String cannot fail");
        out
    }
}
