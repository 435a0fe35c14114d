//! The log: JSON lines or text, written by a thread of its own and never waited for.
//!
//! Each worker appends to a buffer of its own; the writer collects them a few times a second. A
//! buffer that nobody takes is bounded: further lines are dropped and counted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::basket::Basket;
use super::object::{Milliseconds, Object};
use super::repeats::{More, Repeats};
use crate::canon::{
    Attempt, CacheUse, CallRecord, GuardNote, Money, Purpose, RunPart, Skipped, Task, Usage,
};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Text,
}

/// What libraries would tell of the values and headers that pass through them is told to nobody,
/// whatever the level.
const QUIET: [&str; 3] = ["tokio_postgres=warn", "h2=info", "rmcp=error"];

/// The bytes one worker may have waiting to be written.
const MOST: usize = 4 * 1024 * 1024;
/// How lines of the operational log begin by themselves, and as they do here.
const THEIR_TIME: &[u8] = b"{\"timestamp\":";
const OUR_TIME: &[u8] = b"{\"time\":";
/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// How long warnings that were left out wait to be told of at the most, with nothing else to tell.
const TELL_MORE: Duration = Duration::from_secs(10);
/// Where lines go.
pub struct Log {
    format: Format,
    access: bool,
    basket: Basket,
    /// Lines wait, and the writer knows.
    waiting: AtomicBool,
    wake: SyncSender<()>,
    repeats: Repeats,
    /// Lines that could not be written.
    lost: AtomicU64,
    output: Mutex<Box<dyn Write + Send>>,
}

/// One line that stands for several.
#[derive(Debug, Serialize)]
struct Repeated<'a> {
    time: &'a str,
    level: &'static str,
    message: &'a str,
}

/// One line of the access log.
struct Line<'a> {
    at: SystemTime,
    id: &'a str,
    surface: &'static str,
    stream: bool,
    key: Option<&'a str>,
    team: Option<&'a str>,
    user: Option<&'a str>,
    route: Option<&'a str>,
    provider: Option<&'a str>,
    model: Option<&'a str>,
    outcome: &'static str,
    status: u16,
    attempts: usize,
    /// The attempts before the last, of which the rest of the line tells.
    failed: Vec<Failed<'a>>,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    reasoning_tokens: u64,
    usage_source: &'static str,
    cost_usd: Option<f64>,
    duration: Duration,
    first_token: Option<Duration>,
    overhead: Duration,
    generation: u64,
    task: Option<&'static str>,
    task_by: Option<&'static str>,
    /// Targets of the route that were not asked.
    skipped: &'a [Skipped],
    trace: Option<u128>,
    /// Of calls that the gateway makes itself.
    purpose: Option<&'static str>,
    /// The run that asked, or that was asked for, and its agent.
    run: Option<&'a str>,
    agent: Option<&'a str>,
    part: Option<&'a RunPart>,
    cache: Option<&'static str>,
    cache_similarity: Option<f32>,
    /// Fields of the question that the target could not take.
    dropped: &'a [Cow<'static, str>],
    /// What each guard said that looked at the call.
    guards: Vec<Guarded<'a>>,
}

/// What one guard said of one kind of texts. Never what stands in them.
#[derive(Debug, Serialize)]
struct Guarded<'a> {
    guard: &'a str,
    stage: &'static str,
    action: &'static str,
    found: &'a BTreeMap<String, u32>,
    scanned_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a str>,
}

/// An attempt that another one followed.
#[derive(Debug, Serialize)]
struct Failed<'a> {
    provider: &'a str,
    model: &'a str,
    outcome: &'static str,
    status: u16,
    ms: u64,
    /// What it used all the same, by estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens: Option<u64>,
}

// === impl Log ===

impl Log {
    /// Starts the writer of `output`.
    pub fn start(
        format: Format,
        access: bool,
        output: Box<dyn Write + Send>,
    ) -> io::Result<Arc<Self>> {
        let (wake, woken) = sync_channel(1);
        let log = Arc::new(Self {
            format,
            access,
            basket: Basket::new(MOST),
            waiting: AtomicBool::new(false),
            wake,
            repeats: Repeats::default(),
            lost: AtomicU64::new(0),
            output: Mutex::new(output),
        });
        let writer = Arc::downgrade(&log);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_all(&writer, &woken))?;
        Ok(log)
    }

    /// Sends the operational log of the process here too; `level` as in `info` or
    /// `info,switchpoint::net=debug`.
    pub fn install(self: &Arc<Self>, level: &str) {
        let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
        let quiet = QUIET.iter().filter_map(|directive| directive.parse().ok());
        let filter = quiet.fold(filter, EnvFilter::add_directive);
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(Lines(Arc::clone(self)));
        let lines = match self.format {
            Format::Json => lines.json().flatten_event(true).boxed(),
            Format::Text => lines.boxed(),
        };
        let registry = tracing_subscriber::registry().with(filter);
        // A second call in one process, as in tests, changes nothing.
        let _ = registry.with(lines.with_filter(self.repeats.clone())).try_init();
    }

    /// Writes what waits, if that is possible within `patience`: who reads the log may have
    /// stopped, and must not keep the process from its end.
    pub fn end(self: &Arc<Self>, patience: Duration) {
        self.repeats.rest().iter().for_each(|more| self.say_more(more));
        let (told, done) = sync_channel(1);
        let log = Arc::clone(self);
        let thread = std::thread::Builder::new().name("last lines".to_owned());
        let started = thread.spawn(move || {
            log.flush();
            let _ = told.send(());
        });
        if started.is_ok() {
            let _ = done.recv_timeout(patience);
        }
    }

    fn flush(&self) {
        let lines = self.basket.take();
        if lines.is_empty() {
            return;
        }
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the gateway.
        if output.write_all(&lines).and_then(|()| output.flush()).is_err() {
            // Each line ends with a break, behind the last of which is nothing.
            let count = lines.split(|byte| *byte == b'\n').count() - 1;
            self.lost.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn tells_of_calls(&self) -> bool {
        self.access
    }

    /// Lines so far that nobody took, or that could not be written.
    pub fn dropped(&self) -> u64 {
        self.basket.dropped() + self.lost.load(Ordering::Relaxed)
    }

    fn say_more(&self, More { level, text, count }: &More) {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let message = format!("{count} more like it: {text}");
        self.append(|buffer| match self.format {
            Format::Json => {
                let line = Repeated { time: &time, level: level.as_str(), message: &message };
                serde_json::to_writer(&mut *buffer, &line).map_err(io::Error::from)
            }
            Format::Text => write!(buffer, "{time}  {level} {message}"),
        });
    }

    /// One line for a finished call.
    pub fn access(&self, record: &CallRecord) {
        if !self.access {
            return;
        }
        let mut id = [0; 36];
        let served = record.served_by();
        let line = Line {
            at: record.at,
            id: record.id.encode(&mut id),
            surface: record.surface.name(),
            stream: record.stream,
            key: record.key.as_deref(),
            team: record.team.as_deref(),
            user: record.user.as_deref(),
            route: record.route.as_deref(),
            provider: served.map(|attempt| attempt.provider.as_ref()),
            model: served.map(|attempt| attempt.model.as_ref()),
            outcome: record.outcome.name(),
            status: record.status,
            attempts: record.attempts.len(),
            failed: failed(&record.attempts),
            input_tokens: record.usage.input_total(),
            output_tokens: record.usage.output,
            cache_read_tokens: record.usage.cache_read,
            cache_write_tokens: record.usage.cache_write + record.usage.cache_write_long,
            reasoning_tokens: record.usage.reasoning,
            usage_source: record.usage_source.name(),
            cost_usd: record.cost.map(Money::usd),
            duration: record.duration,
            first_token: record.first_token,
            overhead: record.overhead,
            generation: record.generation,
            task: record.task.map(Task::name),
            task_by: record.task_by,
            skipped: &record.skipped,
            trace: record.trace.as_ref().map(|trace| trace.id),
            cache: record.cache.map(CacheUse::name),
            cache_similarity: record.similarity,
            purpose: (record.purpose != Purpose::Client).then(|| record.purpose.name()),
            run: of_run(record, "run"),
            agent: of_run(record, "agent"),
            part: record.part.as_deref(),
            dropped: &record.dropped,
            guards: record.guards.iter().map(guarded).collect(),
        };
        self.append(|buffer| match self.format {
            Format::Json => line.write_json(buffer),
            Format::Text => line.write_text(buffer),
        });
    }

    /// Adds one line to the caller's buffer.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        self.basket.add(|buffer| {
            let written = write(buffer).is_ok();
            buffer.push(b'\n');
            written
        });
        if !self.waiting.swap(true, Ordering::AcqRel) {
            let _ = self.wake.try_send(());
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Log({:?})", self.format)
    }
}

/// Writes lines as they come, until the log is gone.
fn write_all(log: &Weak<Log>, woken: &Receiver<()>) {
    while gather(woken) {
        let Some(log) = log.upgrade() else { return };
        log.repeats.due().iter().for_each(|more| log.say_more(more));
        log.waiting.store(false, Ordering::Release);
        log.flush();
    }
}

/// Waits for lines and lets more of them gather; false when the log is gone.
fn gather(woken: &Receiver<()>) -> bool {
    match woken.recv_timeout(TELL_MORE) {
        Ok(()) => {
            #[expect(clippy::disallowed_methods, reason = "a thread that batches by time")]
            std::thread::sleep(GATHER);
            true
        }
        Err(RecvTimeoutError::Timeout) => true,
        Err(RecvTimeoutError::Disconnected) => false,
    }
}

fn guarded(note: &GuardNote) -> Guarded<'_> {
    Guarded {
        guard: &note.guard,
        stage: note.stage,
        action: note.result(),
        found: &note.found,
        scanned_bytes: note.scanned_bytes,
        score: note.score,
        failure: note.failure.as_deref(),
    }
}

fn failed(attempts: &[Attempt]) -> Vec<Failed<'_>> {
    let Some((_, before)) = attempts.split_last() else { return Vec::new() };
    before
        .iter()
        .map(|attempt| {
            let Attempt { provider, model, outcome, status, elapsed, usage, cost: _, leg: _ } =
                attempt;
            let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let (outcome, status) = (outcome.name(), *status);
            let input_tokens = usage.as_ref().map(Usage::input_total);
            let output_tokens = usage.map(|usage| usage.output);
            Failed { provider, model, outcome, status, ms, input_tokens, output_tokens }
        })
        .collect()
}

/// What a record says of its run. Of any other call such a mark is its client's word.
fn of_run<'a>(record: &'a CallRecord, name: &str) -> Option<&'a str> {
    let is_asked = record.route.as_deref().is_some_and(|route| route.starts_with("agent/"));
    let has_run = is_asked || record.purpose == Purpose::Agent;
    if has_run { record.tags.get(name).map(|value| &**value) } else { None }
}

// === impl Line ===

impl Line<'_> {
    fn write_json(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut object = Object::begin(buffer);
        object.shown("time", humantime::format_rfc3339_millis(self.at))?;
        object.text("level", "INFO")?;
        object.text("message", "call")?;
        object.text("id", self.id)?;
        object.text("surface", self.surface)?;
        object.value("stream", &self.stream)?;
        object.value("key", &self.key)?;
        object.maybe("team", self.team)?;
        object.maybe("user", self.user)?;
        object.value("route", &self.route)?;
        object.value("provider", &self.provider)?;
        object.value("model", &self.model)?;
        object.text("outcome", self.outcome)?;
        object.value("status", &self.status)?;
        object.value("attempts", &self.attempts)?;
        object.list("failed", &self.failed)?;
        object.value("input_tokens", &self.input_tokens)?;
        object.value("output_tokens", &self.output_tokens)?;
        object.value("cache_read_tokens", &self.cache_read_tokens)?;
        object.value("cache_write_tokens", &self.cache_write_tokens)?;
        object.value("reasoning_tokens", &self.reasoning_tokens)?;
        object.text("usage_source", self.usage_source)?;
        if let Some(cost) = self.cost_usd {
            object.value("cost_usd", &cost)?;
        }
        object.milliseconds("duration_ms", self.duration)?;
        if let Some(first) = self.first_token {
            object.milliseconds("first_token_ms", first)?;
        }
        let overhead = u64::try_from(self.overhead.as_micros()).unwrap_or(u64::MAX);
        object.value("overhead_us", &overhead)?;
        object.value("generation", &self.generation)?;
        self.write_rest(object)
    }

    /// What few calls have.
    fn write_rest(&self, mut object: Object<'_>) -> io::Result<()> {
        object.maybe("task", self.task)?;
        object.maybe("task_by", self.task_by)?;
        object.list("skipped", self.skipped)?;
        if let Some(trace) = self.trace {
            object.shown("trace_id", format_args!("{trace:032x}"))?;
        }
        object.maybe("purpose", self.purpose)?;
        if let Some(run) = self.run {
            object.text("run_id", run)?;
            object.text("event", "call")?;
        }
        object.maybe("agent", self.agent)?;
        if let Some(RunPart { version, step }) = self.part {
            object.text("version", version)?;
            if let Some(step) = step {
                object.value("step", step)?;
            }
        }
        object.maybe("cache", self.cache)?;
        if let Some(similarity) = self.cache_similarity {
            object.value("cache_similarity", &similarity)?;
        }
        object.list("dropped", self.dropped)?;
        object.list("guards", &self.guards)?;
        object.end();
        Ok(())
    }

    fn write_text(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        write!(
            buffer,
            "{}  INFO call {} {}{} key={} route={} {}/{} {} {} attempts={} tokens={}+{} {}ms",
            humantime::format_rfc3339_millis(self.at),
            self.id,
            self.surface,
            if self.stream { " stream" } else { "" },
            self.key.unwrap_or("-"),
            self.route.unwrap_or("-"),
            self.provider.unwrap_or("-"),
            self.model.unwrap_or("-"),
            self.outcome,
            self.status,
            self.attempts,
            self.input_tokens,
            self.output_tokens,
            Milliseconds(self.duration),
        )
    }
}

/// Lets `tracing` write its lines into the log.
struct Lines(Arc<Log>);

struct OneLine<'a>(&'a Log);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = OneLine<'a>;

    fn make_writer(&'a self) -> OneLine<'a> {
        OneLine(&self.0)
    }
}

impl Write for OneLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        self.0.append(|buffer| match line.strip_prefix(THEIR_TIME) {
            Some(rest) => buffer.write_all(OUR_TIME).and_then(|()| buffer.write_all(rest)),
            None => buffer.write_all(line),
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
