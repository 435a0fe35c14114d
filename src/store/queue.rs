//! The threads that touch the database: one writes, a few read, and no worker ever waits on a disk.
//!
//! The writer takes all that is queued into one transaction and answers when it is committed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::Failure;
use super::sqlite::failed;

/// Jobs that may wait for one queue; who comes after them waits before it.
const LONGEST: usize = 1024;
/// Jobs in one transaction.
const BATCH: usize = 256;

/// Where jobs are handed in. The threads end when the last of these is gone.
#[derive(Debug, Clone)]
pub(super) struct Queue(mpsc::Sender<Box<dyn Job>>);

/// One piece of work on the database, and someone who waits for its result.
trait Job: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn answer(self: Box<Self>, outcome: Result<(), Failure>);
}

struct Task<F, T> {
    /// Gone once it has run.
    work: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

// === impl Queue ===

impl Queue {
    /// Starts the one thread that writes; `up` says whether its last transaction was committed.
    pub(super) fn write(connection: Connection, up: Arc<AtomicBool>) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel(LONGEST);
        let thread = std::thread::Builder::new().name("store-write".to_owned());
        thread.spawn(move || write(connection, jobs, &up))?;
        Ok(Self(sender))
    }

    /// Starts a reader on each connection.
    pub(super) fn read(connections: Vec<Connection>) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel(LONGEST);
        let jobs = Arc::new(Mutex::new(jobs));
        for connection in connections {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name("store-read".to_owned());
            thread.spawn(move || read(&connection, &jobs))?;
        }
        Ok(Self(sender))
    }

    /// Has `work` done and waits for the end of its transaction. Once handed in it is done even if
    /// nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work: Some(work), result: None, reply });
        self.0.send(job).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The same for a thread of its own.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work: Some(work), result: None, reply });
        self.0.blocking_send(job).map_err(|_| stopped())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

// === impl Task ===

impl<T, F> Job for Task<F, T>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(connection)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        let Self { result, reply, .. } = *self;
        // Who does not wait any more does not want to know.
        let _ = reply.send(outcome.and_then(|()| result.ok_or_else(stopped)));
    }
}

fn write(mut connection: Connection, mut jobs: mpsc::Receiver<Box<dyn Job>>, up: &AtomicBool) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let outcome = commit(&mut connection, &mut batch).map_err(failed);
        up.store(outcome.is_ok(), Ordering::Relaxed);
        if let Err(error) = &outcome {
            tracing::error!(%error, jobs = batch.len(), "the store could not be written");
        }
        for job in batch.drain(..) {
            job.answer(outcome.clone());
        }
    }
}

/// All or none: only the disk makes a job fail, and it would fail the others as well.
fn commit(connection: &mut Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in batch {
        job.run(&transaction)?;
    }
    transaction.commit()
}

fn read(connection: &Connection, jobs: &Mutex<mpsc::Receiver<Box<dyn Job>>>) {
    loop {
        // One waits for the next job, the others wait for the lock.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(mut job) = next else { return };
        let outcome = job.run(connection).map_err(failed);
        job.answer(outcome);
    }
}

fn stopped() -> Failure {
    Failure::new("the store has stopped".to_owned())
}
