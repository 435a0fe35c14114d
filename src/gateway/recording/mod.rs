//! Keeps chosen calls in files, and plays them again: taken in while a call lives, written by a
//! thread of its own, and never waited for.

mod kept;
mod mask;
mod player;
mod stand_in;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::arrival::Question;
use super::call::Call;
use super::snapshot::Snapshot;
use crate::canon::{CallRecord, Surface};
use crate::config::{ALL_CALLS, Bodies, Record};
use crate::dialect::splice::Payload;
use crate::telemetry::{Counters, Metrics};

pub use self::kept::{Attempted, Form, Kept};
pub use self::player::{Played, Player};

/// Calls that may wait to be written, and their bytes.
const MOST_WAITING: usize = 256;
const MOST_BYTES: usize = 64 << 20;
/// How long the end of the process waits for what is still to be written.
const LAST: Duration = Duration::from_secs(1);
/// Headers that say how a call is meant, besides `x-switchpoint-…`.
const USUAL: [&str; 5] =
    ["user-agent", "anthropic-version", "anthropic-beta", "openai-beta", "content-type"];
const OURS: &str = "x-switchpoint-";

/// Who keeps calls. It starts to work with the first of them.
#[derive(Debug)]
pub struct Recorder {
    sender: OnceLock<Option<SyncSender<Work>>>,
    /// Bytes that wait.
    held: Arc<AtomicUsize>,
    results: Counters,
}

/// What is taken in of a call while it lives.
#[derive(Debug)]
pub(super) struct Taken {
    terms: Arc<Record>,
    model: String,
    asked: Payload,
    headers: Vec<(HeaderName, HeaderValue)>,
    answer: Payload,
    /// More of the answer came than is kept.
    cut: bool,
}

/// What the writer is given.
enum Work {
    Keep(Box<Entry>),
    /// Tells when everything before is written.
    Flush(SyncSender<()>),
}

/// A call that has ended.
struct Entry {
    taken: Taken,
    record: CallRecord,
    house: Arc<Snapshot>,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let results = metrics.recordings.clone();
        Self { sender: OnceLock::new(), held: Arc::default(), results }
    }

    /// Hands a call over to the writer, or lets it go where that cannot keep up.
    fn keep(&self, entry: Box<Entry>) {
        let size = entry.taken.len();
        let waiting = self.held.fetch_add(size, Ordering::Relaxed) + size;
        let sender = self.sender.get_or_init(|| self.start()).as_ref();
        let taken = sender.filter(|_| waiting <= MOST_BYTES);
        if taken.is_none_or(|sender| sender.try_send(Work::Keep(entry)).is_err()) {
            self.held.fetch_sub(size, Ordering::Relaxed);
            self.results.with_label_values(&["dropped"]).inc();
        }
    }

    /// Gives calls to whoever asks this instead of writing them.
    fn listen(&self) -> Receiver<Work> {
        let (sender, work) = sync_channel(MOST_WAITING);
        let _ = self.sender.set(Some(sender));
        work
    }

    fn start(&self) -> Option<SyncSender<Work>> {
        let (sender, work) = sync_channel(MOST_WAITING);
        let (held, results) = (Arc::clone(&self.held), self.results.clone());
        let thread = std::thread::Builder::new().name("recorder".to_owned());
        let started = thread.spawn(move || writer::write_all(&work, &held, &results));
        started.is_ok().then_some(sender)
    }

    /// Waits a moment for what is still to be written.
    pub fn finish(&self) {
        let Some(Some(sender)) = self.sender.get() else { return };
        let (done, told) = sync_channel(1);
        if sender.try_send(Work::Flush(done)).is_ok() {
            let _ = told.recv_timeout(LAST);
        }
    }
}

// === impl Taken ===

impl Taken {
    fn len(&self) -> usize {
        self.asked.len() + self.answer.len()
    }
}

impl Call {
    /// Takes the question in, if calls like this one are to be kept.
    pub(super) fn begin_recording(&mut self, question: &Question, headers: &HeaderMap) {
        let Some(terms) = &self.house.config.record else { return };
        let surface = self.surface();
        let read =
            surface.is_chat() || matches!(surface, Surface::Completions | Surface::Embeddings);
        let route = self.record.route.as_deref().unwrap_or_default();
        let key = self.record.key.as_deref().unwrap_or_default();
        // The lower bits decide where calls go by chance; which are kept must not depend on that.
        let drawn = (self.draw() >> 32) % u64::from(ALL_CALLS) < u64::from(terms.sample);
        if !read || self.is_only_explained() || !drawn || !terms.is_for(route, key) {
            return;
        }
        let wanted = |name: &HeaderName| {
            let name = name.as_str();
            USUAL.contains(&name)
                || name.starts_with(OURS)
                || terms.headers.iter().any(|header| header == name)
        };
        let headers = headers.iter().filter(|(name, _)| wanted(name));
        let fits = terms.bodies != Bodies::None && question.payload.len() <= terms.max_body;
        self.taken = Some(Box::new(Taken {
            terms: Arc::clone(terms),
            model: question.envelope.model.clone(),
            asked: if fits { question.payload.clone() } else { Payload::default() },
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            answer: Payload::default(),
            cut: false,
        }));
    }

    /// A piece of the answer goes to the client.
    pub(super) fn says(&mut self, piece: &Bytes) {
        let Some(taken) = &mut self.taken else { return };
        let terms = &taken.terms;
        if !terms.answers || terms.bodies == Bodies::None {
            return;
        }
        taken.cut |= taken.answer.len() + piece.len() > terms.max_body;
        if !taken.cut {
            taken.answer.push(piece.clone());
        }
    }

    /// The call has ended, and its record is made.
    pub(super) fn end_recording(&mut self) {
        if let Some(taken) = self.taken.take() {
            let (record, house) = (self.record.clone(), Arc::clone(&self.house));
            self.gateway.recorder.keep(Box::new(Entry { taken: *taken, record, house }));
        }
    }
}
