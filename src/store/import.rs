//! Takes the journal into the database: each record once, whatever ends the process and when.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::journal::{self, Journal, Position, Record};
use super::queue::Queue;
use super::rows::CallRow;
use super::{Failure, ledger};
use crate::canon::{Outcome, UsageSource};

/// How long a settled call may wait before it shows in the database.
const PAUSE: Duration = Duration::from_millis(200);
/// Records in one transaction where no file sets a measure.
const BATCH: usize = 500;

/// What one transaction takes in.
pub(super) struct Batch {
    records: Vec<Record<'static>>,
    /// None where the records do not come from a file.
    position: Option<Position>,
}

/// The thread that imports. It ends with the last handle of the store, when all is taken in.
pub(super) struct Importer {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

type Request = oneshot::Sender<Result<(), Failure>>;

/// Where batches are committed.
type Commit<'a> = dyn FnMut(Batch) -> Result<(), Failure> + 'a;

struct Worker {
    journal: Arc<Journal>,
    queue: Queue,
    /// None for a database in memory.
    folder: Option<PathBuf>,
    /// Bytes of one file.
    segment: u64,
    position: Position,
    is_failing: bool,
}

// === impl Importer ===

impl Importer {
    /// Takes in what an earlier process left, and then what this one adds.
    pub(super) fn start(
        journal: Arc<Journal>,
        queue: Queue,
        folder: Option<PathBuf>,
        segment: u64,
    ) -> Result<Self, Failure> {
        let (sender, requests) = mpsc::sync_channel(64);
        let (started, start) = mpsc::sync_channel(1);
        let position = Position::default();
        let mut worker = Worker { journal, queue, folder, segment, position, is_failing: false };
        let thread = std::thread::Builder::new().name("store-import".to_owned());
        let run = move || {
            let outcome = worker.import();
            let goes_on = outcome.is_ok();
            if started.send(outcome).is_ok() && goes_on {
                worker.run(&requests);
            }
        };
        let thread = thread.spawn(run).map_err(super::no_thread)?;
        let importer = Self { requests: Some(sender), thread: Some(thread) };
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
            let request = requests.recv_timeout(PAUSE);
            let outcome = self.import();
            if let Err(error) = &outcome
                && !self.is_failing
            {
                tracing::error!(%error, "the journal cannot be taken into the database");
            }
            self.is_failing = outcome.is_err();
            match request {
                // Who does not wait any more does not want to know.
                Ok(reply) => drop(reply.send(outcome)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn import(&mut self) -> Result<(), Failure> {
        self.journal.retry();
        let Some((folder, end)) = self.journal.end() else { return self.import_memory() };
        let before = self.position;
        while self.position < end {
            let piece = journal::read(&folder, self.position, end)
                .map_err(|error| unusable(&folder, &error))?;
            report(piece.damaged, self.position);
            let (count, next) = (piece.records.len(), piece.next);
            if next == self.position {
                break;
            }
            let batch = Batch { records: piece.records, position: Some(next) };
            self.queue.run_blocking(move |database| apply(database, &batch))?;
            self.journal.imported(count + piece.damaged);
            self.position = next;
        }
        if before.segment != self.position.segment {
            tidy(&folder, self.position);
        }
        if self.journal.is_healthy() {
            return Ok(());
        }
        Err(Failure::new("the journal cannot be written".to_owned()))
    }

    /// Without a folder of our own: the database is memory too, or another process has the folder.
    fn import_memory(&mut self) -> Result<(), Failure> {
        loop {
            let lines = self.journal.take(BATCH);
            if lines.is_empty() {
                return self.take_over();
            }
            let records = lines.iter().filter_map(|line| journal::parse(line)).collect();
            let batch = Batch { records, position: None };
            let written = self.queue.run_blocking(move |database| apply(database, &batch));
            if let Err(error) = written {
                self.journal.put_back(lines);
                return Err(error);
            }
            self.journal.imported(lines.len());
        }
    }

    /// Takes the folder once the process that had it has ended, and with it what that one left.
    fn take_over(&mut self) -> Result<(), Failure> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let claimed = journal::claim(&folder).map_err(|error| unusable(&folder, &error))?;
        // Another process has it: until it ends, calls of this one wait in memory.
        let Some(lock) = claimed else { return Ok(()) };
        let queue = self.queue.clone();
        let start = queue.run_blocking(ledger::position)?;
        let mut commit = |batch: Batch| queue.run_blocking(move |database| apply(database, &batch));
        let end = catch_up(&folder, start, &mut commit)?;
        while let Some(orphans) = queue.run_blocking(ledger::orphans)? {
            commit(cut_off(orphans))?;
        }
        self.position = end;
        self.journal.settle_in(&folder, lock, (end, self.segment));
        Ok(())
    }
}

/// Imports every segment of a folder that nobody writes, and says where to go on.
fn catch_up(folder: &Path, start: Position, commit: &mut Commit<'_>) -> Result<Position, Failure> {
    let found = journal::segments(folder).map_err(|error| unusable(folder, &error))?;
    let last = found.last().copied().unwrap_or_default();
    let mut position = start;
    for segment in found.into_iter().filter(|segment| *segment >= start.segment) {
        if segment > position.segment {
            position = Position { segment, offset: 0 };
        }
        let beyond = Position { segment: segment + 1, offset: 0 };
        while position < beyond {
            let piece = journal::read(folder, position, beyond)
                .map_err(|error| unusable(folder, &error))?;
            report(piece.damaged, position);
            position = piece.next;
            commit(Batch { records: piece.records, position: Some(position) })?;
        }
    }
    // A number is never given twice, even when its file is gone.
    position.segment = position.segment.max(last + 1);
    tidy(folder, position);
    Ok(position)
}

/// All or none. A call that is there already is left as it is and charged to nobody again.
fn apply(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let settled: HashSet<&str> = batch
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Settled(row) => Some(row.id.as_str()),
            Record::Open(_) => None,
        })
        .collect();
    for record in &batch.records {
        match record {
            Record::Open(row) if settled.contains(row.id.as_str()) => {}
            Record::Open(row) => ledger::open(connection, row)?,
            Record::Settled(row) => ledger::settle(connection, row)?,
        }
    }
    batch.position.map_or(Ok(()), |position| ledger::advance(connection, position))
}

/// Calls that the end of their process cut off: at their reserve, and marked as estimated.
fn cut_off(rows: Vec<CallRow>) -> Batch {
    let settle = |row| {
        let (outcome, usage_source) = (Outcome::Internal, UsageSource::Estimated);
        Record::Settled(Cow::Owned(CallRow { outcome, usage_source, ..row }))
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
