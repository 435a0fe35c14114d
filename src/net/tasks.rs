//! Background work that is named, counted and waited for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Notify;

/// The handle with which every task of the process is started.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<State>);

#[derive(Debug, Default)]
struct State {
    running: AtomicUsize,
    idle: Notify,
}

/// Counts one task down when it ends, by return, panic or cancellation.
struct Running(Arc<State>);

impl Tasks {
    /// Starts `future` on the runtime of the caller.
    pub fn spawn<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        tokio::spawn(self.track(future));
    }

    /// Starts `future` on another runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime.spawn(self.track(future));
    }

    fn track<F: Future<Output = ()>>(&self, future: F) -> impl Future<Output = ()> + use<F> {
        let running = self.enter();
        async move {
            future.await;
            drop(running);
        }
    }

    /// How many tasks run now.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::Acquire)
    }

    /// Returns when no task runs.
    pub async fn finished(&self) {
        loop {
            let idle = self.0.idle.notified();
            if self.running() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn enter(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        Running(Arc::clone(&self.0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
