//! The process itself, read when it is asked for, under the names that Prometheus clients share.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

#[derive(Debug)]
pub(crate) struct Process;

#[cfg(not(target_os = "linux"))]
impl Collector for Process {
    fn encode(&self, _: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        Ok(())
    }
}

#[cfg(target_os = "linux")]
impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        use prometheus_client::encoding::EncodeMetric as _;
        use prometheus_client::metrics::MetricType;
        use prometheus_client::metrics::counter::ConstCounter;
        use prometheus_client::metrics::gauge::ConstGauge;
        use prometheus_client::registry::Unit;

        // What cannot be read is left out.
        if let Some(bytes) = linux::resident_bytes() {
            let help = "Resident memory";
            let metric = encoder.encode_descriptor(
                "process_resident_memory",
                help,
                Some(&Unit::Bytes),
                MetricType::Gauge,
            )?;
            ConstGauge::new(bytes).encode(metric)?;
        }
        if let Some(seconds) = linux::cpu_seconds() {
            let help = "User and system time";
            let metric =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        if let Some(files) = linux::open_files() {
            let metric =
                encoder.encode_descriptor("process_open_fds", "Open files", None, MetricType::Gauge)?;
            ConstGauge::new(files).encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    pub(super) fn resident_bytes() -> Option<i64> {
        let statm = fs::read_to_string("/proc/self/statm").ok()?;
        let pages: i64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
    }

    pub(super) fn cpu_seconds() -> Option<f64> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name, which may hold blanks and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        Some((f64::from(user) + f64::from(system)) / f64::from(ticks))
    }

    pub(super) fn open_files() -> Option<i64> {
        i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_process_is_read() {
            assert!(resident_bytes().is_some_and(|bytes| (100_000..100_000_000_000).contains(&bytes)));
            assert!(cpu_seconds().is_some_and(|seconds| (0.0..1e6).contains(&seconds)));
            assert!(open_files().is_some_and(|files| files >= 3));
        }
    }
}
