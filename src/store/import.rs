//! Takes the journal into the database: each record once, whatever ends the process and when.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::database::{Alone, Database, Fault};
use super::journal::{self, Journal, Position, Record};
use super::queue::Queue;
use super::rows::CallRow;
use super::{Failure, entries};
use crate::canon::{Outcome, UsageSource};

/// How long a settled call may wait before it shows in the database.
const PAUSE: Duration = Duration::from_millis(200);
/// How long after a failure it is tried again.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for what is left.
const LAST: Duration = Duration::from_secs(5);
/// Records in one transaction where no file sets a measure.
const BATCH: usize = 2000;

/// What one transaction takes in.
pub(super) struct Batch {
    records: Vec<Record>,
    /// None where the records do not come from a file.
    position: Option<Position>,
}

/// The thread that imports. It ends with the last handle of the store, when all is taken in.
pub(super) struct Importer {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// Until when the end of the process waits: what is not taken in then the journal keeps.
    end: Arc<OnceLock<Instant>>,
}

type Request = oneshot::Sender<Result<(), Failure>>;

struct Worker {
    journal: Arc<Journal>,
    queue: Queue,
    place: Place,
    progress: Progress,
    is_failing: bool,
    /// It is known that another process has the folder.
    is_second: bool,
    end: Arc<OnceLock<Instant>>,
}

/// Where the journal lies, and whose it is.
pub(super) struct Place {
    /// None for a database in memory.
    pub(super) folder: Option<PathBuf>,
    /// Bytes of one file.
    pub(super) segment: u64,
    pub(super) node: Arc<str>,
}

/// How far the journal has been taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Calls go by way of memory: there is no folder, or another process has it.
    Memory,
    /// What earlier processes left, up to this segment, is not in the database yet.
    Behind(u64),
    At(Position),
}

// === impl Importer ===

impl Importer {
    /// Takes in what an earlier process left, and then what this one adds.
    pub(super) fn start(
        journal: Arc<Journal>,
        queue: Queue,
        place: Place,
    ) -> Result<Self, Failure> {
        let (sender, requests) = mpsc::sync_channel(64);
        let (started, start) = mpsc::sync_channel(1);
        let progress = Progress::Memory;
        let (is_failing, is_second) = (false, false);
        let end = Arc::<OnceLock<Instant>>::default();
        let known = Arc::clone(&end);
        let mut worker =
            Worker { journal, queue, place, progress, is_failing, is_second, end: known };
        let thread = std::thread::Builder::new().name("store-import".to_owned());
        let run = move || {
            // A database that is away comes back; until then the journal keeps what there is.
            let mut outcome = worker.import();
            if outcome.as_ref().is_err_and(Failure::is_away) {
                worker.note(&outcome);
                outcome = Ok(());
            }
            let goes_on = outcome.is_ok();
            if started.send(outcome).is_ok() && goes_on {
                worker.run(&requests);
            }
        };
        let thread = thread.spawn(run).map_err(super::no_thread)?;
        let importer = Self { requests: Some(sender), thread: Some(thread), end };
        start.recv().unwrap_or_else(|_| Err(busy()))?;
        Ok(importer)
    }

    /// Waits until all that was noted before is in the database.
    pub(super) async fn flush(&self) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(busy)?;
        requests.try_send(reply).map_err(|_| busy())?;
        answer.await.unwrap_or_else(|_| Err(busy()))
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        let _ = self.end.set(Instant::now() + LAST);
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

// === impl Worker ===

impl Worker {
    fn run(&mut self, requests: &Receiver<Request>) {
        loop {
            let request = requests.recv_timeout(if self.is_failing { LONG_PAUSE } else { PAUSE });
            let outcome = self.import();
            self.note(&outcome);
            match request {
                // Who does not wait any more does not want to know.
                Ok(reply) => drop(reply.send(outcome)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn note(&mut self, outcome: &Result<(), Failure>) {
        if let Err(error) = outcome
            && !self.is_failing
        {
            tracing::error!(%error, "the journal cannot be taken into the database");
        }
        self.is_failing = outcome.is_err();
    }

    fn import(&mut self) -> Result<(), Failure> {
        if self.progress == Progress::Memory {
            self.claim()?;
        }
        self.journal.retry();
        match self.progress {
            Progress::Memory => self.import_memory(),
            Progress::Behind(last) => {
                let position = self.catch_up(last)?;
                self.progress = Progress::At(position);
                self.import_new(position)
            }
            Progress::At(position) => self.import_new(position),
        }
    }

    /// Takes in what this process has added.
    fn import_new(&mut self, start: Position) -> Result<(), Failure> {
        let Some((folder, end)) = self.journal.end() else { return Ok(()) };
        let mut position = start;
        while position < end && self.end.get().is_none_or(|end| Instant::now() < *end) {
            let (batch, count) = self.next(&folder, position, end)?;
            let Some(next) = batch.position.filter(|next| *next != position) else { break };
            self.commit(&Arc::new(batch))?;
            self.journal.imported(count);
            position = next;
            self.progress = Progress::At(position);
        }
        if start.segment != position.segment {
            tidy(&folder, position);
        }
        if self.journal.is_healthy() {
            return Ok(());
        }
        Err(Failure::new("the journal cannot be written".to_owned()))
    }

    /// The next records, and how many lines they are: from memory, or else from the files.
    fn next(
        &self,
        folder: &Path,
        position: Position,
        end: Position,
    ) -> Result<(Batch, usize), Failure> {
        if let Some((records, next)) = self.journal.take_fresh(position, BATCH) {
            let count = records.len();
            return Ok((Batch { records, position: Some(next) }, count));
        }
        let piece =
            journal::read(folder, position, end).map_err(|error| unusable(folder, &error))?;
        report(piece.lines.damaged, position);
        let batch = Batch { records: piece.records, position: Some(piece.next) };
        Ok((batch, piece.lines.whole + piece.lines.damaged))
    }

    /// Without a folder of our own: the database is memory too, or another process has the folder.
    fn import_memory(&mut self) -> Result<(), Failure> {
        loop {
            let records = self.journal.take(BATCH);
            if records.is_empty() {
                return Ok(());
            }
            let count = records.len();
            let batch = Arc::new(Batch { records, position: None });
            if let Err(error) = self.commit(&batch) {
                let records = Arc::into_inner(batch).map(|batch| batch.records);
                self.journal.put_back(records.unwrap_or_default());
                return Err(error);
            }
            self.journal.imported(count);
        }
    }

    /// Takes the folder, unless another process has it: until that one ends, calls of this one wait
    /// in memory. What was left in it is for later, so that calls can be noted at once, even while
    /// the database is away.
    fn claim(&mut self) -> Result<(), Failure> {
        let Some(folder) = &self.place.folder else { return Ok(()) };
        let unusable = |error| unusable(folder, &error);
        let Some(lock) = journal::claim(folder).map_err(unusable)? else {
            if !std::mem::replace(&mut self.is_second, true) {
                let folder = folder.display();
                tracing::warn!(%folder, "another process has the journal; calls wait in memory");
            }
            return Ok(());
        };
        let found = journal::segments(folder).map_err(unusable)?;
        let last = found.last().copied().unwrap_or_default();
        let end = Position { segment: last + 1, offset: 0 };
        self.journal.settle_in(folder, lock, end, self.place.segment);
        self.progress = Progress::Behind(last);
        Ok(())
    }

    /// Imports every segment that an earlier process left, up to the last, and settles the calls
    /// that it did not. Says where to go on.
    fn catch_up(&self, last: u64) -> Result<Position, Failure> {
        let Some(folder) = &self.place.folder else { return Ok(Position::default()) };
        let unusable = |error| unusable(folder, &error);
        let node = Arc::clone(&self.place.node);
        let start = self.queue.run_blocking(move |database| {
            entries::adopt(database, &node)?;
            entries::position(database, &node)
        })?;
        let mut position = start;
        let found = journal::segments(folder).map_err(unusable)?;
        for segment in found.into_iter().filter(|at| (start.segment..=last).contains(at)) {
            position = position.max(Position { segment, offset: 0 });
            let beyond = Position { segment: segment + 1, offset: 0 };
            while position < beyond {
                let piece = journal::read(folder, position, beyond).map_err(unusable)?;
                report(piece.lines.damaged, position);
                position = piece.next;
                let batch = Batch { records: piece.records, position: Some(position) };
                self.commit(&Arc::new(batch))?;
            }
        }
        let node = Arc::clone(&self.place.node);
        let orphans = move |database: &mut Database| entries::orphans(database, &node);
        while let Some(orphans) = self.queue.run_blocking(orphans.clone())? {
            self.commit(&Arc::new(cut_off(orphans)))?;
        }
        // Where this process began. A number is never given twice while its file is there.
        let position = Position { segment: last + 1, offset: 0 };
        tidy(folder, position);
        Ok(position)
    }

    fn commit(&self, batch: &Arc<Batch>) -> Result<(), Failure> {
        let (node, batch) = (Arc::clone(&self.place.node), Arc::clone(batch));
        self.queue.run_blocking(move |database| apply(database, &node, &batch))
    }
}

/// All or none. A call that is there already is left as it is and charged to nobody again.
fn apply(database: &mut Database, node: &str, batch: &Batch) -> Result<(), Fault> {
    let (mut settled, mut open) = (Vec::new(), Vec::new());
    for record in &batch.records {
        match record {
            Record::Settled(row) => settled.push(&**row),
            Record::Open(row) => open.push(&**row),
        }
    }
    // Most calls end within the batch in which they begin.
    let ended: HashSet<&str> = settled.iter().map(|row| row.id.as_str()).collect();
    open.retain(|row| !ended.contains(row.id.as_str()));
    entries::settle(database, node, &settled)?;
    entries::open(database, node, &open)?;
    batch.position.map_or(Ok(()), |position| entries::advance(database, node, position))
}

/// Settles some of the calls that another node has begun before `before` and not ended: it is gone,
/// and its journal with it. Whether there were any.
pub(super) fn settle_vanished(
    database: &mut Database,
    own: &str,
    before: i64,
) -> Result<bool, Fault> {
    database.alone(Alone::Retain)?;
    let Some(node) = entries::vanished(database, own, before)? else { return Ok(false) };
    let rows = entries::forsaken(database, &node, before)?;
    apply(database, &node, &cut_off(rows))?;
    Ok(true)
}

/// Calls that the end of their process cut off: at their reserve, and marked as estimated.
fn cut_off(rows: Vec<CallRow>) -> Batch {
    let settle = |row| {
        let (outcome, usage_source) = (Outcome::Internal, UsageSource::Estimated);
        Record::Settled(Box::new(CallRow { outcome, usage_source, ..row }))
    };
    Batch { records: rows.into_iter().map(settle).collect(), position: None }
}

/// Deletes what has been taken in. One segment more stays, until what was made of it has surely
/// reached the disk.
fn tidy(folder: &Path, position: Position) {
    let segments = journal::segments(folder).unwrap_or_default();
    for segment in segments.into_iter().filter(|segment| segment + 1 < position.segment) {
        if let Err(error) = std::fs::remove_file(journal::path(folder, segment)) {
            tracing::warn!(%error, segment, "an imported part of the journal cannot be deleted");
        }
    }
}

fn report(damaged: usize, at: Position) {
    if damaged > 0 {
        let segment = at.segment;
        tracing::error!(lines = damaged, segment, "damaged lines of the journal were left out");
    }
}

fn busy() -> Failure {
    Failure::new("the journal is being imported".to_owned())
}

fn unusable(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", folder.display()))
}
