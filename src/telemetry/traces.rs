//! Which calls leave a trace, and their spans until somebody takes them to the collector.

use std::time::Duration;

use tokio::sync::Notify;

use super::basket::Basket;
use super::conventions::{self, Names};
use super::protobuf::{Message, Value};
use super::runs::RunSpan;
use super::spans;
use crate::canon::{CallRecord, Outcome, Surface, Trace};
use crate::config::{ALL_CALLS, Attributes, Capture, Otlp};

/// A batch is sent when so much of one worker waits, and no batch is much larger: collectors
/// commonly refuse more than 4 MiB.
const BATCH: usize = 1024 * 1024;
const ENOUGH: usize = BATCH / 2;

const SCOPE: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The traces of the process.
pub struct Traces {
    names: &'static Names,
    sample: u32,
    routes: std::collections::BTreeMap<String, u32>,
    slow: Option<Duration>,
    capture: Capture,
    /// What every batch says of the process: `ResourceSpans.resource`.
    resource: Vec<u8>,
    basket: Basket,
    enough: Notify,
}

/// Spans as one request to a collector.
#[derive(Debug)]
pub struct Batch {
    /// An `ExportTraceServiceRequest`.
    pub message: Vec<u8>,
    pub spans: u64,
}

// === impl Traces ===

impl Traces {
    pub fn new(otlp: &Otlp) -> Self {
        let names = match otlp.attributes {
            Attributes::GenAi => &conventions::GEN_AI,
            Attributes::OpenInference => &conventions::OPENINFERENCE,
        };
        Self {
            names,
            sample: otlp.sample,
            routes: otlp.routes.clone(),
            slow: otlp.slow,
            capture: otlp.capture,
            resource: resource(otlp),
            basket: Basket::new(otlp.queue),
            enough: Notify::new(),
        }
    }

    /// What they show of questions and answers.
    pub fn capture(&self) -> Capture {
        self.capture
    }

    /// Whether this call's share of the trace is kept, as far as its beginning tells: what is told
    /// to those who are called.
    pub fn samples(&self, trace: &Trace, route: Option<&str>) -> bool {
        trace.sampled.unwrap_or_else(|| {
            let own = route.and_then(|route| self.routes.get(route));
            let sample = own.copied().unwrap_or(self.sample);
            // The lower bits of a trace's id are random, and the same for all who see it.
            (trace.id & u128::from(u32::MAX)) * u128::from(ALL_CALLS) < u128::from(sample) << 32
        })
    }

    /// Cuts the spans of a finished call, if they are to be kept, and tells its trace.
    pub(super) fn finish(&self, record: &CallRecord) -> Option<u128> {
        let trace = record.trace.as_ref().filter(|trace| self.keeps(record, trace))?;
        let waiting = self.basket.add(|buffer| {
            spans::cut(buffer, record, trace, self.names);
            true
        });
        if waiting >= ENOUGH {
            self.enough.notify_one();
        }
        Some(trace.id)
    }

    /// Keeps a step of a run, of a trace that is kept or where it went wrong.
    pub fn keep(&self, span: &RunSpan, is_sampled: bool) {
        if !is_sampled && span.error.is_none() {
            return;
        }
        let waiting = self.basket.add(|buffer| {
            span.cut(buffer, self.names);
            true
        });
        if waiting >= ENOUGH {
            self.enough.notify_one();
        }
    }

    /// What went wrong and what was slow is always kept.
    fn keeps(&self, record: &CallRecord, trace: &Trace) -> bool {
        if record.surface == Surface::Explain {
            return false;
        }
        let wrong = |outcome: Outcome| {
            matches!(
                outcome,
                Outcome::UpstreamTruncated
                    | Outcome::UpstreamError
                    | Outcome::Timeout
                    | Outcome::Internal
            )
        };
        self.samples(trace, record.route.as_deref())
            || wrong(record.outcome)
            || self.slow.is_some_and(|slow| record.duration >= slow)
            || record.attempts.iter().any(|attempt| wrong(attempt.outcome))
    }

    /// Returns when there is enough for a batch.
    pub async fn enough(&self) {
        self.enough.notified().await;
    }

    /// All that waits, in batches.
    pub fn take(&self) -> Vec<Batch> {
        let spans = self.basket.take();
        let mut rest = &spans[..];
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let (end, count) = fitting(rest);
            batches.push(Batch { message: self.request(&rest[..end]), spans: count });
            rest = &rest[end..];
        }
        batches
    }

    /// Calls whose spans nobody took in time.
    pub fn dropped(&self) -> u64 {
        self.basket.dropped()
    }

    fn request(&self, spans: &[u8]) -> Vec<u8> {
        const SCOPE_SPANS: u64 = 2;
        let mut message = Vec::with_capacity(spans.len() + self.resource.len() + 64);
        Message(&mut message).message(1, |of_resource| {
            of_resource.0.extend_from_slice(&self.resource);
            of_resource.message(SCOPE_SPANS, |of_scope| {
                of_scope.message(1, scope);
                of_scope.0.extend_from_slice(spans);
            });
        });
        message
    }
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Traces({} of a million)", self.sample)
    }
}

/// `InstrumentationScope`.
fn scope(scope: &mut Message<'_>) {
    scope.bytes(1, SCOPE.as_bytes());
    scope.bytes(2, VERSION.as_bytes());
}

fn resource(otlp: &Otlp) -> Vec<u8> {
    const RESOURCE: u64 = 1;
    let mut written = Vec::new();
    let of_process = [(conventions::SERVICE_NAME, SCOPE), (conventions::SERVICE_VERSION, VERSION)];
    Message(&mut written).message(RESOURCE, |resource| {
        for (name, value) in of_process {
            if !otlp.resource.contains_key(name) {
                resource.attribute(1, name, Value::Text(value));
            }
        }
        for (name, value) in &otlp.resource {
            resource.attribute(1, name, Value::Text(value));
        }
    });
    written
}

/// Where the last span ends that fits into one batch, and how many there are.
fn fitting(spans: &[u8]) -> (usize, u64) {
    let (mut end, mut count) = (0, 0);
    while end < spans.len() {
        let next = end + size_of_first(&spans[end..]);
        if count > 0 && next > BATCH {
            break;
        }
        (end, count) = (next.min(spans.len()), count + 1);
    }
    (end, count)
}

/// The bytes of the first span, its key of one byte and its length included.
fn size_of_first(spans: &[u8]) -> usize {
    let (mut size, mut shift, mut read) = (0_usize, 0, 1);
    for byte in spans.iter().skip(1).take(5) {
        size |= usize::from(byte & 0x7f) << shift;
        (shift, read) = (shift + 7, read + 1);
        if byte & 0x80 == 0 {
            break;
        }
    }
    read + size
}
