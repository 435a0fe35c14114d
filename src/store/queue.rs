//! The threads that touch the database: one writes, a few read, and no worker ever waits on a disk.
//!
//! The writer takes all that is queued into one transaction and answers when it is committed. A
//! database that is away is looked for again, at growing intervals; until it is back, who asks is
//! told so after a short wait.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Failure;
use super::database::{Database, Fault};

/// Jobs that may wait for one queue; who comes after them waits before it.
const LONGEST: usize = 1024;
/// Jobs in one transaction.
const BATCH: usize = 256;
/// How long the first who finds the database away waits for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon a database that is away is looked for again, and how late at most.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often work is done anew that others were in the way of.
const TRIES: usize = 4;

/// Where jobs are handed in. The threads end when the last of these is gone.
#[derive(Debug, Clone)]
pub(super) struct Queue(mpsc::Sender<Box<dyn Job>>);

/// What a thread has to do with the database: the connection, and how to come by another.
pub(super) struct Link {
    database: Option<Database>,
    open: Box<dyn FnMut() -> Result<Database, Failure> + Send>,
    /// Its file as it was when that was opened, which must stay where it is: what is written into
    /// one that nobody finds any more is lost.
    file: Option<(PathBuf, Option<(u64, u64)>)>,
    /// Since it was found away, or never found.
    is_away: bool,
    interval: Duration,
    next: Instant,
}

/// One piece of work on the database, and someone who waits for its result.
trait Job: Send {
    fn is_durable(&self) -> bool;
    fn run(&mut self, database: &mut Database) -> Result<(), Fault>;
    fn answer(self: Box<Self>, outcome: Result<(), Failure>);
}

struct Task<F, T> {
    work: F,
    is_durable: bool,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, Failure>>,
}

// === impl Queue ===

impl Queue {
    /// Starts the one thread that writes; `up` says whether its last transaction was committed.
    pub(super) fn write(link: Link, up: Arc<AtomicBool>) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel(LONGEST);
        let thread = std::thread::Builder::new().name("store-write".to_owned());
        thread.spawn(move || write(link, jobs, &up))?;
        Ok(Self(sender))
    }

    /// Starts a reader on each connection.
    pub(super) fn read(links: Vec<Link>) -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel(LONGEST);
        let jobs = Arc::new(Mutex::new(jobs));
        for link in links {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name("store-read".to_owned());
            thread.spawn(move || read(link, &jobs))?;
        }
        Ok(Self(sender))
    }

    /// Has `work` done and waits for the end of its transaction. Once handed in it is done even if
    /// nobody waits any more, and done anew where the first time came to nothing.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Database) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        self.send(work, false).await
    }

    /// The same, and it is on the disk when this returns. Others that are committed with it share
    /// its wait for the disk.
    pub(super) async fn run_durable<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Database) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        self.send(work, true).await
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Database) -> Result<T, Fault> + Send + 'static,
        is_durable: bool,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work, is_durable, result: None, reply });
        self.0.send(job).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The same for a thread of its own.
    pub(super) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Database) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Task { work, is_durable: false, result: None, reply });
        self.0.blocking_send(job).map_err(|_| stopped())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }
}

// === impl Link ===

impl Link {
    /// With a first connection, if there is one.
    pub(super) fn new(
        database: Option<Database>,
        open: impl FnMut() -> Result<Database, Failure> + Send + 'static,
    ) -> Self {
        let (is_away, interval) = (database.is_none(), INTERVALS.0);
        let open = Box::new(open);
        Self { database, open, file: None, is_away, interval, next: Instant::now() }
    }

    /// The same for a database in a file.
    pub(super) fn in_file(self, path: Option<&Path>) -> Self {
        Self { file: path.map(|path| (path.to_owned(), identity(path))), ..self }
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// The connection. Who finds the database away first waits a little, the others do not.
    fn database(&mut self) -> Result<&mut Database, Failure> {
        if let Some((path, opened)) = &self.file
            && identity(path) != *opened
        {
            let path = path.display();
            return Err(Failure::away(&format!(
                "{path} was deleted or is another file; put it back, or start the gateway anew"
            )));
        }
        if self.database.is_none() {
            self.database = Some(self.look_for()?);
            self.is_away = false;
            self.interval = INTERVALS.0;
        }
        self.database.as_mut().ok_or_else(stopped)
    }

    fn look_for(&mut self) -> Result<Database, Failure> {
        let until = Instant::now() + if self.is_away { Duration::ZERO } else { PATIENCE };
        let mut failure = Failure::away("it is looked for again soon");
        loop {
            if Instant::now() >= self.next {
                match (self.open)() {
                    Ok(database) => return Ok(database),
                    Err(error) => failure = error,
                }
                self.next = Instant::now() + self.interval;
                self.interval = (self.interval * 2).min(INTERVALS.1);
            }
            let now = Instant::now();
            if now >= until {
                self.is_away = true;
                return Err(failure);
            }
            std::thread::park_timeout(self.next.min(until) - now);
        }
    }

    /// Does `work` on the connection, anew where another process was in the way or the connection
    /// was lost.
    fn run(
        &mut self,
        mut work: impl FnMut(&mut Database) -> Result<(), Fault>,
    ) -> Result<(), Failure> {
        let mut tries = 1;
        loop {
            let Err(fault) = work(self.database()?) else { return Ok(()) };
            let is_gone = fault.is_gone();
            if is_gone {
                self.database = None;
            }
            // What may have come to pass is not done twice.
            let may_again = !matches!(fault, Fault::Unsure(_)) && (is_gone || fault.is_transient());
            if !may_again || tries >= TRIES {
                return Err(fault.into());
            }
            tries += 1;
        }
    }
}

// === impl Task ===

impl<T, F> Job for Task<F, T>
where
    T: Send,
    F: FnMut(&mut Database) -> Result<T, Fault> + Send,
{
    fn is_durable(&self) -> bool {
        self.is_durable
    }

    fn run(&mut self, database: &mut Database) -> Result<(), Fault> {
        // One that panics must take neither the thread nor the others with it. It ends within its
        // transaction, which is rolled back.
        let done = catch_unwind(AssertUnwindSafe(|| (self.work)(database)));
        self.result = Some(done.unwrap_or(Err(Fault::Panicked))?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Failure>) {
        let Self { work, result, reply, .. } = *self;
        // What the work was about is the asker's again.
        drop(work);
        // Who does not wait any more does not want to know.
        let _ = reply.send(outcome.and_then(|()| result.ok_or_else(stopped)));
    }
}

fn write(mut link: Link, mut jobs: mpsc::Receiver<Box<dyn Job>>, up: &AtomicBool) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let outcome = commit(&mut link, &mut batch);
        // One that cannot be done must not take the others with it.
        let is_ones_fault = outcome.as_ref().is_err_and(|error| !error.is_away());
        if is_ones_fault && batch.len() > 1 {
            for mut job in batch.drain(..) {
                let outcome = commit(&mut link, std::slice::from_mut(&mut job));
                note(&outcome, up);
                job.answer(outcome);
            }
            continue;
        }
        note(&outcome, up);
        for job in batch.drain(..) {
            job.answer(outcome.clone());
        }
    }
}

fn note(outcome: &Result<(), Failure>, up: &AtomicBool) {
    let was_up = up.swap(outcome.is_ok(), Ordering::Relaxed);
    match outcome {
        // Said once, however many come to know.
        Err(error) if was_up => tracing::error!(%error, "the store could not be written"),
        Ok(()) if !was_up => tracing::info!("the store is written again"),
        _ => {}
    }
}

/// All or none.
fn commit(link: &mut Link, batch: &mut [Box<dyn Job>]) -> Result<(), Failure> {
    let is_durable = batch.iter().any(|job| job.is_durable());
    link.run(|database| {
        if is_durable {
            database.sync(true)?;
        }
        let work = |database: &mut Database| batch.iter_mut().try_for_each(|job| job.run(database));
        let outcome = database.transaction(work);
        if is_durable {
            // Where this fails the next one is no less safe.
            let _ = database.sync(false);
        }
        outcome
    })
}

fn read(mut link: Link, jobs: &Mutex<mpsc::Receiver<Box<dyn Job>>>) {
    loop {
        // One waits for the next job, the others wait for the lock.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(mut job) = next else { return };
        let outcome = link.run(|database| job.run(database));
        job.answer(outcome);
    }
}

/// By what the file system knows a file, wherever it goes.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn stopped() -> Failure {
    Failure::new("the store has stopped".to_owned())
}
