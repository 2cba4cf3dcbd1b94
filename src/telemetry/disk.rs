//! How full the disk is that the journal stands on.

use std::fmt;
use std::path::PathBuf;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;

/// `traild_disk_free_bytes` and `traild_disk_size_bytes`, of the file system that holds a directory, asked at each scrape: local ones know
/// without reading. One that answers with an error leaves them out.
#[derive(Debug)]
pub struct Disk {
    pub directory: PathBuf,
}

impl Collector for Disk {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(figures) = rustix::fs::statvfs(&self.directory) else {
            return Ok(());
        };
        for (name, help, blocks) in [
            (
                "traild_disk_free_bytes",
                "Bytes that traild may still write to the disk of data_dir",
                figures.f_bavail,
            ),
            (
                "traild_disk_size_bytes",
                "Bytes of the disk of data_dir",
                figures.f_blocks,
            ),
        ] {
            let gauge = ConstGauge::new(blocks as f64 * figures.f_frsize as f64);
            let metric = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, metric)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    fn told_of(directory: &str) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Disk {
            directory: directory.into(),
        }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn no_more_is_free_than_there_is() {
        let text = told_of("/");
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().parse().unwrap()
        };
        let (free, size) = (
            value("traild_disk_free_bytes "),
            value("traild_disk_size_bytes "),
        );
        assert!(0.0 <= free && free <= size && size > 0.0, "{text}");
    }

    #[test]
    fn a_directory_that_is_not_there_has_none() {
        assert_eq!(told_of("/nowhere"), "# EOF\n");
    }
}
