//! Everything a human watches: metrics, logs and traces, declared once.

mod basket;
mod conventions;
mod exemplars;
mod log;
mod metrics;
mod object;
mod openmetrics;
mod process;
mod protobuf;
mod refusal;
mod repeats;
mod runs;
mod spans;
mod traces;

pub use conventions::{Fact, RunStep};
pub use log::{Format, Log};
pub use metrics::{Meters, Metrics, OneMore};
/// A metric that rises and falls, by its labels.
pub use prometheus::GaugeVec as Gauges;
/// A metric that only rises, by its labels.
pub use prometheus::IntCounterVec as Counters;
pub use refusal::Refusal;
pub use runs::{RunLine, RunSpan, Told};
pub use traces::{Batch, Traces};

use std::sync::Arc;

use crate::canon::CallRecord;

/// What every finished call is told to.
#[derive(Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub log: Arc<Log>,
    /// `None` where nothing is traced.
    pub traces: Option<Arc<Traces>>,
}

impl Telemetry {
    pub fn new(log: Arc<Log>) -> Result<Self, prometheus::Error> {
        Ok(Self { metrics: Metrics::new()?, log, traces: None })
    }

    /// The same, with traces.
    #[must_use]
    pub fn tracing(self, traces: Option<Traces>) -> Self {
        Self { traces: traces.map(Arc::new), ..self }
    }

    /// Tells metrics, access log and traces of a finished call. `meters` are those of the target that
    /// answered, or of none.
    pub fn finish(&self, record: &CallRecord, meters: &Meters) {
        meters.finish(&self.metrics, record);
        if record.is_of_agent() {
            self.metrics.finish_of_agent(record);
        }
        self.log.access(record);
        if let Some(traces) = &self.traces
            && let Some(trace) = traces.finish(record)
        {
            meters.exemplify(&self.metrics, record, trace);
        }
    }

    /// All metrics, as OpenMetrics or in Prometheus' own text format.
    pub fn expose(&self, open: bool) -> String {
        self.metrics.log_lines_dropped.reset();
        self.metrics.log_lines_dropped.inc_by(self.log.dropped());
        let dropped = self.traces.as_ref().map_or(0, |traces| traces.dropped());
        self.metrics.traces_dropped.reset();
        self.metrics.traces_dropped.inc_by(dropped);
        if open { self.metrics.expose_open() } else { self.metrics.expose() }
    }
}
