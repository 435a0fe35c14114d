//! Asks a second target the same, for comparison. The caller neither waits for it nor pays.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::arrival::Question;
use super::ask::Answer;
use super::call::Call;
use super::chain::Shadow;
use super::flow::{Flow, Step};
use super::reply::outcome_of;
use super::{journey, till};
use crate::canon::Outcome;
use crate::config::ALL_CALLS;
use crate::error::Error;
use crate::net::shed::Permit;

/// Tokens that may be spent in each hour of the clock.
#[derive(Debug)]
pub(super) struct Hourly {
    most: u64,
    spent: Mutex<Spent>,
}

#[derive(Debug, Default)]
struct Spent {
    hour: u64,
    tokens: u64,
}

// === impl Hourly ===

impl Hourly {
    pub(super) fn new(most: u64) -> Self {
        Self { most, spent: Mutex::default() }
    }

    /// Whether so many are left; if so, they are spent.
    fn take(&self, tokens: u64) -> bool {
        let mut spent = self.this_hour();
        let allowed = spent.tokens.saturating_add(tokens) <= self.most;
        if allowed {
            spent.tokens += tokens;
        }
        allowed
    }

    fn spend(&self, tokens: u64) {
        let mut spent = self.this_hour();
        spent.tokens = spent.tokens.saturating_add(tokens);
    }

    fn this_hour(&self) -> MutexGuard<'_, Spent> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at behind the lock, so that nobody comes with an hour that is over.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let hour = since.as_secs() / Duration::from_hours(1).as_secs();
        if spent.hour != hour {
            *spent = Spent { hour, tokens: 0 };
        }
        spent
    }
}

/// Sends the question to the shadow of its route, if there is one and it is this call's turn. The
/// error says that the call is refused by its accounts: then nothing is sent to anybody.
pub(super) async fn cast(call: &mut Call, question: &mut Question) -> Result<(), Error> {
    let Some(shadowed) = call.chain.clone() else { return Ok(()) };
    let Some(shadow) = shadowed.shadow.as_ref() else { return Ok(()) };
    // What is only counted is not answered, and what is still arriving can be read once only.
    let fit = !call.surface().counts_tokens() && question.rest().is_none();
    if !fit || call.draw() % u64::from(ALL_CALLS) >= u64::from(shadow.sample) {
        return Ok(());
    }
    till::hold(call, question).await?;
    let Some(running) = enter(shadow, call) else { return Ok(()) };
    let Some(question) = question.copy() else { return Ok(()) };
    let house = (Arc::clone(&call.gateway), Arc::clone(&call.house));
    let mut second = Call::open(house, call.surface(), None, None);
    second.shadows(call);
    second.routed(&shadow.chain, &question);
    call.gateway.tasks.spawn(async move {
        let (mut second, answer) = journey::walk(second, Box::new(question)).await;
        let outcome = match answer {
            Ok(Answer::Stream(flow)) => drain(&mut second, flow).await,
            Ok(Answer::Whole { .. } | Answer::Bytes(_)) => Outcome::Ok,
            Err(error) => outcome_of(error.kind),
        };
        second.ends(outcome);
        if let Some(hour) = shadowed.shadow.as_ref().and_then(|shadow| shadow.tokens.as_ref()) {
            hour.spend(second.output_tokens());
        }
        drop(running);
    });
    Ok(())
}

fn enter(shadow: &Shadow, call: &Call) -> Option<Permit> {
    let running = shadow.running.acquire()?;
    let tokens = call.input_estimate();
    let affordable = shadow.tokens.as_ref().is_none_or(|hour| hour.take(tokens));
    affordable.then_some(running)
}

/// The same for a stream that others follow, and only as long as they do: its client has left.
pub(super) async fn drain_for_others(call: &mut Call, flow: Box<Flow>) {
    let tape = flow.tape().map(Arc::clone);
    let deserted = async {
        match tape {
            Some(tape) => tape.deserted().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = drain(call, flow) => {}
        () = deserted => {}
    }
}

/// Reads a stream to its end and notes what it used.
pub(super) async fn drain(call: &mut Call, mut flow: Box<Flow>) -> Outcome {
    // Whoever passed it on may have stopped watching its socket.
    flow.watch(true);
    let limits = call.target().map(|target| target.limits);
    let Some(limits) = limits else { return Outcome::Internal };
    let end = call.end(&limits);
    let outcome = loop {
        flow.ready.clear();
        // The process may end before the stream does.
        call.streamed(flow.passage.sight());
        let step = std::future::poll_fn(|context| flow.poll_step(context));
        let due = end.min(tokio::time::Instant::now() + limits.idle);
        match tokio::time::timeout_at(due, step).await {
            Err(_) => break Outcome::Timeout,
            // Nobody hears the rest of it, and what it costs is held to its budget all the same.
            Ok(Step::Data) if call.outgrows(flow.passage.sight()).is_some() => {
                break Outcome::BudgetExceeded;
            }
            Ok(Step::Data) => {}
            Ok(Step::Failed(_)) => break Outcome::UpstreamError,
            Ok(Step::Ended) if flow.passage.sight().finished => break Outcome::Ok,
            Ok(Step::Ended | Step::Cut(_)) => break Outcome::UpstreamTruncated,
        }
    };
    call.streamed(flow.passage.sight());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_takes_nothing_and_an_hour_begins_with_all_of_it() {
        let hourly = Hourly::new(10);
        assert!(hourly.take(8) && !hourly.take(3) && hourly.take(2) && !hourly.take(1));
        hourly.spend(u64::MAX);
        assert!(!hourly.take(u64::MAX));
        // As one leaves it who comes from the hour before.
        *hourly.spent.lock().unwrap() = Spent { hour: 1, tokens: u64::MAX };
        assert!(hourly.take(10) && !hourly.take(1));
    }
}
