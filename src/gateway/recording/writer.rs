//! Writes kept calls, one a line, and puts full files away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use serde_json::Value as Json;

use super::kept::{Attempted, Form, Kept};
use super::{Entry, Taken, Work, mask};
use crate::canon::{Attempt, CallRecord, Task};
use crate::config::{Bodies, Record, Secret};
use crate::telemetry::Counters;

const NAME: &str = "calls";

/// The file that is written, and what it must not become.
struct Volume {
    terms: Arc<Record>,
    file: File,
    length: usize,
}

/// The secrets of one generation.
#[derive(Default)]
struct Known {
    generation: Option<u64>,
    secrets: Vec<Secret>,
}

/// Works until nobody can send any more.
pub(super) fn write_all(work: &Receiver<Work>, held: &AtomicUsize, results: &Counters) {
    let mut volume: Option<Volume> = None;
    let mut known = Known::default();
    while let Ok(work) = work.recv() {
        let entry = match work {
            Work::Keep(entry) => entry,
            Work::Flush(done) => {
                let _ = done.send(());
                continue;
            }
        };
        let size = entry.taken.len();
        let terms = Arc::clone(&entry.taken.terms);
        let line = line(*entry, &mut known);
        held.fetch_sub(size, Ordering::Relaxed);
        let written = append(&mut volume, terms, &line);
        if let Err(error) = &written {
            volume = None;
            tracing::error!(%error, "a call could not be kept");
        }
        let result = if written.is_ok() { "kept" } else { "failed" };
        results.with_label_values(&[result]).inc();
    }
}

fn append(volume: &mut Option<Volume>, terms: Arc<Record>, line: &str) -> io::Result<()> {
    let fits = |volume: &Volume| {
        volume.terms == terms && volume.length + line.len() <= terms.max_file.max(line.len())
    };
    if !volume.as_ref().is_some_and(fits) {
        *volume = None;
    }
    let open = match volume {
        Some(open) => open,
        None => volume.insert(Volume::open(terms, line.len())?),
    };
    open.file.write_all(line.as_bytes())?;
    open.length += line.len();
    Ok(())
}

// === impl Volume ===

impl Volume {
    /// Opens the file for a line of this length; a full one is put away before.
    fn open(terms: Arc<Record>, line: usize) -> io::Result<Self> {
        fs::create_dir_all(&terms.folder)?;
        let path = numbered(&terms, 0);
        let length = fs::metadata(&path).map_or(0, |found| found.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > 0 && length.saturating_add(line) > terms.max_file {
            put_away(&terms)?;
            return Self::open(terms, line);
        }
        // What people wrote is nobody else's.
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Self { terms, file, length })
    }
}

/// Moves every file one further; the last one goes.
fn put_away(terms: &Record) -> io::Result<()> {
    let last = terms.max_files - 1;
    for number in (0..=last).rev() {
        let path = numbered(terms, number);
        let moved = match number {
            number if number == last => fs::remove_file(&path),
            number => fs::rename(&path, numbered(terms, number + 1)),
        };
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn numbered(terms: &Record, number: usize) -> PathBuf {
    terms.folder.join(match number {
        0 => format!("{NAME}.jsonl"),
        number => format!("{NAME}.{number}.jsonl"),
    })
}

/// The line of a call, with its end.
fn line(entry: Entry, known: &mut Known) -> String {
    let Entry { taken, record, house } = entry;
    if known.generation != Some(house.generation) {
        known.secrets = mask::secrets(&house.config);
        known.generation = Some(house.generation);
    }
    let kept = kept(taken, &record);
    let line = serde_json::to_string(&kept).unwrap_or_default();
    mask::without(&line, &known.secrets) + "\n"
}

fn kept(taken: Taken, record: &CallRecord) -> Kept {
    let form = match taken.terms.bodies {
        Bodies::None => Form::None,
        Bodies::Redacted => Form::Redacted,
        Bodies::Whole => Form::Whole,
    };
    let mut body = serde_json::from_slice(&taken.asked.to_bytes()).unwrap_or(Json::Null);
    let mut answer = (!taken.answer.is_empty() && !taken.cut)
        .then(|| String::from_utf8_lossy(&taken.answer.to_bytes()).into_owned());
    if form == Form::Redacted {
        mask::shape(&mut body);
        answer = answer.map(|answer| match serde_json::from_str::<Json>(&answer) {
            Ok(mut whole) => {
                mask::shape(&mut whole);
                whole.to_string()
            }
            Err(_) => mask::shape_events(&answer),
        });
    }
    let headers = taken.headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    let text = |name: &Option<Arc<str>>| name.as_ref().map(ToString::to_string);
    Kept {
        version: Kept::VERSION,
        id: record.id.to_string(),
        at: humantime::format_rfc3339_millis(record.at).to_string(),
        surface: record.surface.name().to_owned(),
        stream: record.stream,
        model: taken.model,
        key: text(&record.key),
        team: text(&record.team),
        headers: headers.collect(),
        form,
        body,
        generation: record.generation,
        route: text(&record.route),
        task: record.task.map(|task| Task::name(task).to_owned()),
        outcome: record.outcome,
        status: record.status,
        attempts: record.attempts.iter().map(Attempted::of).collect(),
        usage: record.usage,
        cost_usd: record.cost.map(|cost| cost.to_string()),
        duration_ms: milliseconds(record.duration),
        first_token_ms: record.first_token.map(milliseconds),
        answer,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Attempted {
    pub(super) fn of(attempt: &Attempt) -> Self {
        Self {
            provider: attempt.provider.to_string(),
            model: attempt.model.to_string(),
            outcome: attempt.outcome,
            status: attempt.status,
            ms: milliseconds(attempt.elapsed),
        }
    }
}
