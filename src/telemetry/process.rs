//! What the kernel knows of this process, under the names that Prometheus' own client libraries give it.
//!
//! Read from `/proc` at each scrape (proc(5)). A figure that cannot be read is left out; on systems without `/proc`, all are.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// Ticks a second in which the kernel tells times to programs: `USER_HZ`, 100 on every architecture that is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// `process_cpu_seconds_total`, `process_start_time_seconds`, `process_resident_memory_bytes`, `process_open_fds`, `process_max_fds`.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            let counter = ConstCounter::new(seconds);
            let help = "Time on a CPU, in user and in system mode";
            let metric = counter.metric_type();
            counter.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                metric,
            )?)?;
        }
        let gauges = [
            (
                "process_start_time_seconds",
                "When this process was started, seconds since 1970",
                started_at(),
            ),
            (
                "process_resident_memory_bytes",
                "Memory of this process that is in RAM",
                read("/proc/self/status")
                    .as_deref()
                    .and_then(resident_bytes),
            ),
            (
                "process_open_fds",
                "File descriptors that are open",
                fs::read_dir("/proc/self/fd")
                    .ok()
                    .map(|open| open.count() as f64),
            ),
            (
                "process_max_fds",
                "File descriptors that may be open",
                getrlimit(Resource::Nofile)
                    .current
                    .map(|limit| limit as f64),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            let metric = gauge.metric_type();
            gauge.encode(encoder.encode_descriptor(name, help, None, metric)?)?;
        }
        Ok(())
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn started_at() -> Option<f64> {
    let since_boot = field(&read("/proc/self/stat")?, 22)? / TICKS_PER_SECOND;
    let stat = read("/proc/stat")?;
    let booted_at: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(booted_at + since_boot)
}

/// `utime` and `stime`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

/// A field of `/proc/self/stat`, counted from 1 as proc(5) does. The second is the program's name in brackets, and may hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name
        .split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "17 (a) b) S 1 17 17 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 8800 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(field(stat, 22), Some(8800.0));
        assert_eq!(field(stat, 2), None);
        assert_eq!(field(stat, 90), None);
        assert_eq!(cpu_seconds("nonsense"), None);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\ttraild\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(resident_bytes(status), Some(1_048_576.0));
        assert_eq!(resident_bytes("VmRSS: lots\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(name)),
                "{name} {text}"
            );
        }
    }
}
