//! Bytes that each worker adds to without waiting, and that one other takes away. Bounded: what
//! nobody takes is dropped and counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Buffers; workers beyond this number share them.
const BUFFERS: usize = 64;

pub(super) struct Basket {
    buffers: Vec<Mutex<Vec<u8>>>,
    /// The bytes that one worker may have waiting.
    most: usize,
    dropped: AtomicU64,
}

// === impl Basket ===

impl Basket {
    pub(super) fn new(most: usize) -> Self {
        let buffers = (0..BUFFERS).map(|_| Mutex::default()).collect();
        Self { buffers, most, dropped: AtomicU64::new(0) }
    }

    /// Adds what `write` writes; nothing of it where that fails. Tells how much waits here.
    pub(super) fn add(&self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> usize {
        let mine = &self.buffers[buffer_of_thread()];
        let mut buffer = mine.lock().unwrap_or_else(PoisonError::into_inner);
        let length = buffer.len();
        if length >= self.most {
            self.drop_one();
        } else if !write(&mut buffer) {
            buffer.truncate(length);
        }
        buffer.len()
    }

    /// All that waits.
    pub(super) fn take(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for buffer in &self.buffers {
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            if !buffer.is_empty() {
                all.append(&mut buffer);
            }
        }
        all
    }

    /// One thing was not kept.
    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// So many things were not kept.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A number for the calling thread, so that threads rarely share a buffer.
fn buffer_of_thread() -> usize {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static MINE: usize = usize::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(0) % BUFFERS;
    }
    MINE.with(|mine| *mine)
}
