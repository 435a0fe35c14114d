//! What the bodies of all requests may hold together, and what each holds of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind};

/// The bytes that all request bodies of the process may hold together.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    limit: AtomicUsize,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
    bytes: AtomicUsize,
}

// === impl ByteBudget ===

impl ByteBudget {
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Held { bytes: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }))
    }

    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub fn lease(&self) -> Lease {
        Lease { held: Arc::clone(&self.0), bytes: AtomicUsize::new(0) }
    }

    /// One that takes nothing of any budget: of what the gateway makes itself.
    pub(super) fn unbound() -> Lease {
        Self::new(usize::MAX).lease()
    }
}

impl Lease {
    /// Takes more of it; the error says that there is no more.
    pub fn grow(&self, bytes: usize) -> Result<(), Error> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.held.limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut error = Error::new(
            Kind::Overloaded,
            "The gateway holds too many request bodies at the moment; try again.",
        );
        error.retry_after = Some(Duration::from_secs(1));
        Err(error)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}
