//! What is compared: each subject's address, its process, and how one is measured.

use std::{borrow::Borrow, io, time::Duration};

use crate::{
    floor::Layout,
    load::{Fleet, Outcome, Target},
    process::{self, Running},
    report::{count, median, microseconds, percentile},
    traffic::{CHUNKS, Case},
};

/// Something that answers completions.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) target: Target,
    /// Without it, CPU and memory are not known.
    process: Option<u32>,
    /// Ends a process that this run started.
    running: Option<Running>,
}

/// One window's figures; times in microseconds.
pub(crate) struct Measurement {
    pub(crate) cpu_per_request: f64,
    pub(crate) cpu_per_chunk: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Measures every subject once in each round; a failure is told and leaves no figure.
pub(crate) async fn take_turns<S: Borrow<Subject>>(
    subjects: &[S],
    rounds: usize,
    measure: impl AsyncFn(&Subject) -> io::Result<Measurement>,
) -> Vec<Vec<Measurement>> {
    let mut measured: Vec<Vec<Measurement>> = subjects.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (subject, measurements) in subjects.iter().zip(&mut measured) {
            let subject = subject.borrow();
            match measure(subject).await {
                Ok(measurement) => measurements.push(measurement),
                Err(error) => println!("{}: {error}", subject.name),
            }
        }
    }
    measured
}

// === impl Subject ===

impl Subject {
    pub(crate) fn floor(name: &str, layout: Layout, upstream: &str) -> Self {
        let (running, address) =
            Running::start_self(&["floor", "--layout", layout.name(), "--upstream", upstream]);
        Self::started(name, running, &format!("http://{address}/v1"))
    }

    /// A subject that this run did not start.
    pub(crate) fn elsewhere(name: &str, url: &str, process: Option<u32>) -> Self {
        Self { name: name.to_owned(), target: Target::parse(url), process, running: None }
    }

    pub(crate) fn started(name: &str, running: Running, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            target: Target::parse(url),
            process: Some(running.id()),
            running: Some(running),
        }
    }

    /// Ends it as a supervisor would, and waits for that.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.running.take().map_or(Ok(()), Running::end)
    }

    pub(crate) async fn saturate(&self, case: &Case, time: Duration) -> io::Result<Measurement> {
        let fleet = Fleet::open(&self.target, case).await?;
        let before = self.cpu_time();
        let outcome = fleet.saturate(time).await?;
        Ok(Measurement::new(self.cpu_time() - before, &outcome))
    }

    /// As above, at a fixed rate; latency counts from the moment each request was due.
    pub(crate) async fn pace(
        &self,
        case: &Case,
        rate: u32,
        time: Duration,
    ) -> io::Result<Measurement> {
        let fleet = Fleet::open(&self.target, case).await?;
        let before = self.cpu_time();
        let outcome = fleet.pace(rate, time).await?;
        Ok(Measurement::new(self.cpu_time() - before, &outcome))
    }

    pub(crate) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Not a number for a process that is not known.
    pub(crate) fn resident_bytes(&self) -> f64 {
        self.process.map_or(f64::NAN, |id| count(process::resident_bytes(id)))
    }

    /// Microseconds; not a number for a process that is not known.
    pub(crate) fn cpu_time(&self) -> f64 {
        self.process.map_or(f64::NAN, |id| microseconds(process::cpu_time(id)))
    }
}

// === impl Measurement ===

impl Measurement {
    fn new(cpu: f64, outcome: &Outcome) -> Self {
        let cpu_per_request = cpu / count(outcome.latencies.len());
        Self {
            cpu_per_request,
            cpu_per_chunk: cpu_per_request / count(CHUNKS),
            per_second: outcome.per_second(),
            p50: microseconds(percentile(&outcome.latencies, 50)),
            p99: microseconds(percentile(&outcome.latencies, 99)),
        }
    }

    /// Each figure's own median.
    pub(crate) fn median(measurements: &[Self]) -> Self {
        let middle = |field: fn(&Self) -> f64| median(measurements.iter().map(field));
        Self {
            cpu_per_request: middle(|it| it.cpu_per_request),
            cpu_per_chunk: middle(|it| it.cpu_per_chunk),
            per_second: middle(|it| it.per_second),
            p50: middle(|it| it.p50),
            p99: middle(|it| it.p99),
        }
    }
}
