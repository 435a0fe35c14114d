//! Turns of one conversation come one behind the other, at whichever replicas they are asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::begin::{LOOK, away, ceiling};
use super::staff::{Ear, Staff};
use super::words::Words;
use crate::canon::{ChatRequest, Owner, RunId};
use crate::config::SessionConflict;
use crate::error::{Error, Kind};
use crate::gateway::agents::{Commission, Performance};
use crate::store::hex;
use crate::store::runs::{Begun as Stored, RunRow};

/// How long a turn waits for the one before it in its session.
pub(super) const LONGEST_TURN: Duration = Duration::from_mins(2);

/// What a turn comes behind.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// The turn that it goes on from, which is over.
    pub(super) last: Option<RunRow>,
    /// With which run its session ends so far.
    pub(super) head: Option<RunId>,
}

/// Turns that wait for the one before them in their session go on in the order in which they came
/// to this process.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Session, Arc<tokio::sync::Mutex<()>>>>);

type Session = (Owner, String);

/// A place in the queue of a session, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queues: &'a Queues,
    session: Session,
    first: Option<OwnedMutexGuard<()>>,
}

impl Queues {
    /// Waits until all others have gone on that came before.
    pub(super) async fn first(&self, session: Session) -> Place<'_> {
        let queue = Arc::clone(self.lock().entry(session.clone()).or_default());
        let mut place = Place { queues: self, session, first: None };
        place.first = Some(queue.lock_owned().await);
        place
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Session, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        self.first = None;
        // Whoever else waits holds it, too.
        if queues.get(&self.session).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.session);
        }
    }
}

impl Staff {
    /// The turn that this one comes behind, when it is over; `None` where it waits for something.
    pub(super) async fn before(
        &self,
        owner: &Owner,
        commission: &Commission,
    ) -> Result<Option<Before>, Error> {
        let store = self.gateway.store();
        let head = match &commission.wishes.session {
            Some(session) => store.session(owner, session).await.map_err(away)?,
            None => None,
        };
        let head = head.map(|session| session.head);
        let mut last = match commission.previous.or(head) {
            Some(run) => store.run(Some(owner), run).await.map_err(away)?,
            None => None,
        };
        if let (None, Some(_), Some(head)) = (&last, commission.previous, head) {
            last = store.run(Some(owner), head).await.map_err(away)?;
        }
        let last = match last {
            Some(row) if !row.state.is_over() => match self.gives_way(commission, row).await? {
                None => return Ok(None),
                over => over,
            },
            last => last,
        };
        Ok(Some(Before { last, head }))
    }

    /// Whether a run that waits for something else is ended by what its client says now.
    pub(super) async fn makes_way(&self, row: &RunRow, words: &Words) -> Result<bool, Error> {
        let conflict = self.gateway.snapshot().config.agent_engine.session_conflict;
        let answers = !words.approvals.is_empty() || !words.results.is_empty();
        if conflict != SessionConflict::Interrupt || answers || words.last.is_empty() {
            return Ok(false);
        }
        if self.asks_user(row).await.is_some() {
            return Ok(false);
        }
        Ok(true)
    }

    /// The run that was asked for by the same idempotency key, as it stands.
    pub(super) async fn known(
        self: &Arc<Self>,
        owner: &Owner,
        commission: &Commission,
    ) -> Result<Option<Performance>, Error> {
        let Some(asked) = idempotency(commission) else { return Ok(None) };
        match self.gateway.store().run_by_key(owner, asked).await.map_err(away)? {
            Some(Stored::Known(row)) => self.once_more(&row, Ear::of(commission)).await.map(Some),
            Some(Stored::Conflict) => Err(used_before()),
            Some(Stored::New { .. } | Stored::Overtaken) | None => {
                self.known_in_passing(owner, commission).await
            }
        }
    }

    /// What becomes of a turn that is asked for while this one is at work.
    async fn gives_way(
        &self,
        commission: &Commission,
        row: RunRow,
    ) -> Result<Option<RunRow>, Error> {
        let conflict = self.gateway.snapshot().config.agent_engine.session_conflict;
        match conflict {
            SessionConflict::Reject => return Err(busy(&row)),
            SessionConflict::Interrupt => {
                let by = commission.caller.key().to_string();
                let reason = "another turn of its session has begun";
                let data = json!({"by": by, "reason": reason}).to_string();
                let store = self.gateway.store();
                store.signal_run(row.id, "cancel", data, None).await.map_err(away)?;
                self.nudge(row.id);
            }
            SessionConflict::Enqueue => {}
        }
        self.over(&row, conflict == SessionConflict::Interrupt).await
    }

    /// `ends`: it is about to, whatever it waits for.
    async fn over(&self, row: &RunRow, ends: bool) -> Result<Option<RunRow>, Error> {
        let until = Instant::now() + LONGEST_TURN;
        while Instant::now() < until {
            let known = self.gateway.store().run(None, row.id).await.map_err(away)?;
            match known {
                Some(known) if known.state.is_over() => return Ok(Some(known)),
                Some(known) if known.state.is_waiting() && !ends => return Ok(None),
                Some(_) => tokio::time::sleep(LOOK).await,
                None => return Err(busy(row)),
            }
        }
        Err(busy(row))
    }
}

pub(super) fn busy(row: &RunRow) -> Error {
    let message =
        format!("The session has a run that is not over: `{}` is {}.", row.id, row.state.name());
    Error::new(Kind::Conflict, message)
}

pub(super) fn used_before() -> Error {
    Error::new(Kind::Conflict, "This `Idempotency-Key` was used for something else.")
}

/// The client's key, and the digest of what it asks with it: all but how it wants to be told.
pub(super) fn idempotency(commission: &Commission) -> Option<(String, String)> {
    let Commission { agent, request, wishes, .. } = commission;
    let key = wishes.idempotency_key.clone()?;
    let request = ChatRequest { stream: false, include_usage: false, ..request.clone() };
    let asked = json!({
        "agent": agent,
        "request": request,
        "session": wishes.session,
        "user": wishes.user,
        "labels": wishes.labels,
        "budget": commission.budget.map(ceiling),
    });
    Some((key, hex(&Sha256::digest(asked.to_string()))))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_of_a_session_go_on_in_the_order_in_which_they_came_and_leave_nothing() {
        let queues = Queues::default();
        let session = |name: &str| (Owner::new("ann"), name.to_owned());
        let first = queues.first(session("s")).await;
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(queues.first(session("s")))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        let other = queues.first(session("other")).now_or_never();
        assert!(other.is_some(), "it is another one");
        drop((first, other, waiting.remove(1)));
        let [second, third] = waiting.as_mut_slice() else { unreachable!() };
        assert!(third.as_mut().now_or_never().is_none());
        let second = second.as_mut().now_or_never().expect("it is its turn");
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        drop(third.as_mut().now_or_never().expect("it is its turn"));
        assert!(queues.lock().is_empty());
    }
}
