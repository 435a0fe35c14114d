//! Identical questions at the same time wait for one answer: the first asks, the others follow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Digest;
use super::tape::{Follower, Tape};
use crate::error::Error;

/// The answers that are being given now.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Digest, Arc<Tape>>>);

/// What somebody is to do who asks.
#[derive(Debug)]
pub enum Seat {
    /// Ask, for all who follow.
    Lead(Lead),
    /// Wait for what somebody else is being answered.
    Follow(Follower),
}

/// Who asks for all. Dropped before the answer was whole, those who follow are told that it failed.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    digest: Digest,
    tape: Arc<Tape>,
}

// === impl Seat ===

impl Seat {
    fn tape(&self) -> Arc<Tape> {
        match self {
            Self::Lead(lead) => Arc::clone(&lead.tape),
            Self::Follow(follower) => follower.tape(),
        }
    }
}

// === impl Flights ===

impl Flights {
    /// Follows whoever is being answered this, or leads. All who followed `before` to no avail
    /// follow the same one next, however late they come: else a crowd would ask one by one.
    pub fn join(self: &Arc<Self>, digest: Digest, before: Option<&Arc<Tape>>) -> Seat {
        let before = before.filter(|tape| tape.has_failed());
        let mut flights = self.lock();
        if let Some(next) = before.and_then(|tape| tape.next.get()) {
            return Seat::Follow(Follower::of(next));
        }
        let seat = if let Some(follower) = flights.get(&digest).and_then(Tape::follow) {
            Seat::Follow(follower)
        } else {
            let tape = Arc::new(Tape::after(before.map(|tape| &**tape)));
            flights.insert(digest, Arc::clone(&tape));
            Seat::Lead(Lead { flights: Arc::clone(self), digest, tape })
        };
        if let Some(before) = before {
            before.next.get_or_init(|| seat.tape());
        }
        seat
    }

    /// Asks for nobody else.
    pub fn alone(self: &Arc<Self>, digest: Digest) -> Lead {
        Lead { flights: Arc::clone(self), digest, tape: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Tape>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on nobody new follows this tape.
    fn close(flights: &mut HashMap<Digest, Arc<Tape>>, digest: &Digest, tape: &Arc<Tape>) {
        if flights.get(digest).is_some_and(|known| Arc::ptr_eq(known, tape)) {
            flights.remove(digest);
        }
    }
}

// === impl Lead ===

impl Lead {
    pub fn tape(&self) -> &Arc<Tape> {
        &self.tape
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether the answer is of no use to anybody; if so, nobody can follow from here on.
    pub fn close_if_unfollowed(&self) -> bool {
        let mut flights = self.flights.lock();
        let nobody = self.tape.followers() == 0;
        if nobody {
            Flights::close(&mut flights, &self.digest, &self.tape);
        }
        nobody
    }

    /// Tells those who follow why there is no answer.
    pub fn fail(self, error: Option<Error>) {
        self.tape.fail(error);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        // First the end: whoever comes between the two follows to it, or asks anew.
        self.tape.fail(None);
        let mut flights = self.flights.lock();
        Flights::close(&mut flights, &self.digest, &self.tape);
    }
}
