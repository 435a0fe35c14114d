//! What an answer has said so far, for all who wait for it, each at a pace of its own.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::canon::{Delta, Event, Opening};
use crate::error::Error;

/// What an event takes besides its text.
const OVERHEAD: usize = 96;

/// One answer as it is being given. It holds each event once, however many follow.
#[derive(Debug, Default)]
pub struct Tape {
    said: Mutex<Said>,
    /// Somebody has stopped following.
    left: Notify,
    /// How many before have failed to answer the same.
    pub lineage: u32,
    /// Who asks in its stead, if it has failed.
    pub(super) next: OnceLock<Arc<Self>>,
    /// Who answers: provider and model.
    pub by: OnceLock<(Arc<str>, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Said {
    events: Vec<Arc<[Event]>>,
    bytes: usize,
    end: Option<End>,
    /// One place for each who ever followed.
    waiting: Vec<Option<Waker>>,
    followers: usize,
}

#[derive(Debug, Clone)]
enum End {
    Whole,
    /// With what those who wait can be told, if anything.
    Failed(Option<Box<Error>>),
    /// It is too long to be held for those who may come.
    Dropped,
}

/// Who follows an answer.
#[derive(Debug)]
pub struct Follower {
    tape: Arc<Tape>,
    next: usize,
    place: usize,
}

/// What a follower is told.
#[derive(Debug)]
pub enum Next {
    Events(Arc<[Event]>),
    End,
    /// Nothing more will come, and what came is not all.
    Failed(Option<Box<Error>>),
}

// === impl Tape ===

impl Tape {
    /// The one behind a tape that has failed, or the first.
    pub(super) fn after(before: Option<&Self>) -> Self {
        Self { lineage: before.map_or(0, |before| before.lineage + 1), ..Self::default() }
    }

    /// Whether there is no more of it to be had, though it is not all.
    pub(super) fn has_failed(&self) -> bool {
        self.said().has_failed()
    }

    /// Adds to what was said. What is longer than `most` and followed by nobody is let go.
    pub fn push(&self, events: Vec<Event>, most: usize) {
        let mut said = self.said();
        if said.end.is_some() || events.is_empty() {
            return;
        }
        said.bytes += events.iter().map(size).sum::<usize>();
        if said.bytes > most && said.followers == 0 {
            said.end(End::Dropped);
            said.events = Vec::new();
            return;
        }
        said.events.push(events.into());
        said.wake();
    }

    /// That was all.
    pub fn end(&self) {
        self.said().end(End::Whole);
    }

    /// There is no more, and that was not all.
    pub fn fail(&self, error: Option<Error>) {
        self.said().end(End::Failed(error.map(Box::new)));
    }

    pub fn followers(&self) -> usize {
        self.said().followers
    }

    /// Ready when nobody follows.
    pub async fn deserted(&self) {
        while self.followers() > 0 {
            self.left.notified().await;
        }
    }

    /// Follows it from the beginning. `None`: that cannot be had any more.
    pub fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut said = self.said();
        if said.has_failed() {
            return None;
        }
        said.followers += 1;
        said.waiting.push(None);
        Some(Follower { tape: Arc::clone(self), next: 0, place: said.waiting.len() - 1 })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Said ===

impl Said {
    fn has_failed(&self) -> bool {
        matches!(self.end, Some(End::Failed(_) | End::Dropped))
    }

    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    fn wake(&mut self) {
        self.waiting.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

// === impl Follower ===

impl Follower {
    /// Follows a tape that nothing has gone wrong with; one that has failed tells that at once.
    pub fn of(tape: &Arc<Tape>) -> Self {
        let mut said = tape.said();
        said.followers += 1;
        said.waiting.push(None);
        let place = said.waiting.len() - 1;
        drop(said);
        Self { tape: Arc::clone(tape), next: 0, place }
    }

    pub fn tape(&self) -> Arc<Tape> {
        Arc::clone(&self.tape)
    }

    /// Who answers, if that is known yet.
    pub fn by(&self) -> Option<&(Arc<str>, Arc<str>)> {
        self.tape.by.get()
    }

    pub fn lineage(&self) -> u32 {
        self.tape.lineage
    }

    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let mut said = self.tape.said();
        if let Some(events) = said.events.get(self.next) {
            self.next += 1;
            return Poll::Ready(Next::Events(Arc::clone(events)));
        }
        match &said.end {
            Some(End::Whole) => Poll::Ready(Next::End),
            Some(End::Failed(error)) => Poll::Ready(Next::Failed(error.clone())),
            Some(End::Dropped) => Poll::Ready(Next::Failed(None)),
            None => {
                if let Some(place) = said.waiting.get_mut(self.place) {
                    *place = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut said = self.tape.said();
        said.followers -= 1;
        if let Some(place) = said.waiting.get_mut(self.place) {
            *place = None;
        }
        let none = said.followers == 0;
        drop(said);
        if none {
            self.tape.left.notify_one();
        }
    }
}

/// About how much memory an event takes.
fn size(event: &Event) -> usize {
    let text = match event {
        Event::Delta { delta, .. } => match delta {
            Delta::Text(text)
            | Delta::Refusal(text)
            | Delta::Reasoning(text)
            | Delta::Arguments(text)
            | Delta::Audio(text)
            | Delta::Transcript(text) => text.len(),
            Delta::Citation(_) | Delta::Opaque(_) | Delta::Logprobs(_) => 1024,
        },
        Event::Open { part: Opening::Media(_) | Opening::Foreign(_), .. } => 64 * 1024,
        Event::Start(_)
        | Event::Open { .. }
        | Event::Close { .. }
        | Event::Finish { .. }
        | Event::Usage(_)
        | Event::Failed(_)
        | Event::End => 0,
        Event::Aside(text) => return text.len() + OVERHEAD,
    };
    text + OVERHEAD
}
