//! What the process itself takes, under the names that every Prometheus client uses.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts};

/// Memory, processor time and open files, looked up at each scrape. Linux tells; others do not.
#[derive(Debug)]
pub(super) struct Process {
    cpu: Counter,
    memory: IntGauge,
    open_files: IntGauge,
    most_files: IntGauge,
    start: Gauge,
}

impl Process {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Processor time spent by the process and by the system for it, in seconds.",
            ))?,
            memory: IntGauge::new("process_resident_memory_bytes", "Memory that it occupies.")?,
            open_files: IntGauge::new("process_open_fds", "Files and sockets it has open.")?,
            most_files: IntGauge::new("process_max_fds", "Files and sockets it may have open.")?,
            start: Gauge::new("process_start_time_seconds", "When it began, since 1970.")?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.memory, &self.open_files, &self.most_files, &self.start]
    }

    /// What cannot be read keeps its last value.
    #[cfg(target_os = "linux")]
    fn look(&self) {
        use procfs::process::{LimitValue, Process as Seen};
        use procfs::{WithCurrentSystemInfo as _, boot_time_secs, ticks_per_second};

        let Ok(seen) = Seen::myself() else { return };
        if let Ok(stat) = seen.stat() {
            #[expect(clippy::cast_precision_loss, reason = "ticks of a lifetime fit")]
            let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
            self.cpu.reset();
            self.cpu.inc_by(seconds(stat.utime + stat.stime));
            self.memory.set(stat.rss_bytes().get().cast_signed());
            if let Ok(boot) = boot_time_secs() {
                #[expect(clippy::cast_precision_loss, reason = "so do seconds since 1970")]
                self.start.set(boot as f64 + seconds(stat.starttime));
            }
        }
        if let Ok(count) = seen.fd_count() {
            self.open_files.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        if let Ok(limits) = seen.limits() {
            self.most_files.set(match limits.max_open_files.soft_limit {
                LimitValue::Value(most) => most.cast_signed(),
                LimitValue::Unlimited => i64::MAX,
            });
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    #[cfg(target_os = "linux")]
    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }

    #[cfg(not(target_os = "linux"))]
    fn collect(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_sees_itself() {
        let process = Process::new().unwrap();
        assert_eq!(process.collect().len(), process.desc().len());
        assert!(process.memory.get() > 100_000);
        assert!((3..=process.most_files.get()).contains(&process.open_files.get()));
        assert!(process.start.get() > 1_700_000_000.0);
    }
}
