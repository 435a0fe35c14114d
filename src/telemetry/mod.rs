//! Everything a human watches: metrics and logs, declared once.

mod log;
mod metrics;
mod process;

pub use log::{Format, Log};
pub use metrics::{Meters, Metrics};

use std::sync::Arc;

use crate::canon::CallRecord;

/// What every finished call is told to.
#[derive(Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub log: Arc<Log>,
}

impl Telemetry {
    pub fn new(log: Arc<Log>) -> Result<Self, prometheus::Error> {
        Ok(Self { metrics: Metrics::new()?, log })
    }

    /// Tells metrics and access log of a finished call. `meters` are those of the target that
    /// answered, or of none.
    pub fn finish(&self, record: &CallRecord, meters: &Meters) {
        meters.finish(&self.metrics, record);
        self.log.access(record);
    }

    /// All metrics in Prometheus' text format.
    pub fn expose(&self) -> String {
        self.metrics.log_lines_dropped.reset();
        self.metrics.log_lines_dropped.inc_by(self.log.dropped());
        self.metrics.expose()
    }
}
