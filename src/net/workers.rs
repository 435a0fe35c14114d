//! One single-threaded runtime per core, and who runs on which.
//!
//! A connection lives on one worker from accept to close, together with the upstream connections
//! it uses: no wake-up ever crosses a core. The figures behind this choice, against one
//! work-stealing runtime, stand in `benches/README.md`.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of the worker that the caller runs on; 0 outside of the workers.
pub fn current() -> usize {
    CURRENT.get()
}

/// The workers of the process.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Connections it holds.
    load: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// A connection's place on a worker, given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Workers {
    /// Starts `count` workers, or one per core when `count` is 0.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism()?.get(),
            count => count,
        };
        let stop = watch::Sender::new(false);
        let workers =
            (0..count).map(|number| Worker::start(number, &stop)).collect::<io::Result<_>>()?;
        Ok(Self { workers, stop })
    }

    pub fn count(&self) -> usize {
        self.workers.len()
    }

    pub fn handles(&self) -> impl Iterator<Item = &Handle> {
        self.workers.iter().map(|worker| &worker.handle)
    }

    /// The worker with the fewest connections, and a place on it.
    pub fn least_loaded(&self) -> Option<(&Handle, Place)> {
        let worker =
            self.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed))?;
        worker.load.fetch_add(1, Ordering::Relaxed);
        Some((&worker.handle, Place(Arc::clone(&worker.load))))
    }
}

impl Worker {
    fn start(number: usize, stop: &watch::Sender<bool>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let mut stop = stop.subscribe();
        // Only a thread inside `block_on` drives this runtime, so it waits there for the end.
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                CURRENT.set(number);
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
                runtime.shutdown_background();
            })?;
        Ok(Self { handle, load: Arc::default(), thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let caller = std::thread::current().id();
        for worker in &mut self.workers {
            // The last task of a worker may be the last to hold them all, and cannot wait for itself.
            let thread = worker.thread.take().filter(|thread| thread.thread().id() != caller);
            let _ = thread.map(JoinHandle::join);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
