//! A second request to the next target when the first one is slow; the faster answer counts.

use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, sleep};

use super::arrival::Question;
use super::call::Call;
use super::chain::Chain;
use super::errand::Errand;
use super::journey::{Attempt, Made};
use super::rival::Departure;
use super::{errand, till};
use crate::access::account::Hold;
use crate::config::HedgeAfter;
use crate::provider::Failure;

/// How the race went.
enum Race {
    /// The first request's result counts; the second, if it left, failed with this.
    First(Box<Result<Made, Box<Failure>>>, Option<(usize, Failure)>),
    Second(Box<Second>),
}

struct Ready {
    errand: Errand,
    credential: usize,
    hold: Option<Hold>,
}

/// The second request's answer.
struct Second {
    made: Made,
    credential: usize,
    dropped: Vec<std::borrow::Cow<'static, str>>,
    /// The first request's failure, if it had come to its end.
    first: Option<Failure>,
}

/// What came of the second request, if it left and was not called off.
pub(super) enum Rival {
    Won,
    /// By this credential.
    Failed(usize, Failure),
}

/// Makes `attempt`; when it is slow, `next` is asked the same.
pub(super) async fn race(
    call: &mut Call,
    question: &Question,
    attempt: Attempt<'_>,
    next: usize,
) -> (Result<Made, Box<Failure>>, Option<Rival>) {
    let Some(chain) = call.chain.clone() else { return (attempt.make(call, question).await, None) };
    let Some(after) = delay(&chain, attempt.place) else {
        return (attempt.make(call, question).await, None);
    };
    let left = call.rival_may_begin(next);
    let came_to = match run(call, question, attempt, next, &chain, after, &left).await {
        Race::First(result, rival) => {
            call.rival_ended(rival.as_ref().map(|(_, failure)| (failure.outcome, failure.status)));
            (*result, rival.map(|(credential, failure)| Rival::Failed(credential, failure)))
        }
        Race::Second(second) => {
            let Second { made, credential, dropped, first } = *second;
            let ended = first.map(|failure| (failure.outcome, failure.status));
            call.rival_wins(credential, &dropped, ended);
            (Ok(made), Some(Rival::Won))
        }
    };
    if left.get().is_some() {
        call.note_held();
    }
    came_to
}

/// How long the first request has; `None` while nobody knows how long it usually takes.
fn delay(chain: &Chain, place: usize) -> Option<Duration> {
    match chain.hedge.as_ref()?.after {
        HedgeAfter::Fixed(after) => Some(after),
        HedgeAfter::P95 => chain.targets[place].standing.load.quantile(0.95),
    }
}

/// What the second request needs before it leaves; `None` where it may not.
async fn ready(call: &Call, question: &Question, next: usize, chain: &Chain) -> Option<Ready> {
    let target = &chain.targets[next];
    let affordable = chain.hedge.as_ref().is_some_and(|hedge| hedge.allows(call, target));
    if !affordable {
        return None;
    }
    let errand = errand::prepare(call, question, target).await.ok()?;
    let credential = target.soonest_credential(Instant::now());
    let hold = till::hold_target(call, question, next).await.ok()?;
    Some(Ready { errand, credential, hold })
}

async fn run(
    call: &Call,
    question: &Question,
    attempt: Attempt<'_>,
    next: usize,
    chain: &Chain,
    after: Duration,
    left: &Arc<OnceLock<Departure>>,
) -> Race {
    let mut first = pin!(attempt.make(call, question));
    if let Either::Left((result, _)) = select(first.as_mut(), pin!(sleep(after))).await {
        return Race::First(Box::new(result), None);
    }
    // What it takes to be ready holds up nobody who is already asked.
    let ready = match select(first.as_mut(), pin!(ready(call, question, next, chain))).await {
        Either::Left((result, _)) => return Race::First(Box::new(result), None),
        Either::Right((ready, _)) => ready,
    };
    let Some(Ready { errand, credential, hold }) = ready else {
        return Race::First(Box::new(first.await), None);
    };
    let Some(pass) = chain.targets[next].lane(credential).enter(Instant::now()) else {
        return Race::First(Box::new(first.await), None);
    };
    if !call.holds_beside(&chain.targets[next]) {
        return Race::First(Box::new(first.await), None);
    }
    let _ = left.set(Departure::new(hold));
    let rival = Attempt { place: next, credential, errand: &errand, pass };
    let rival = pin!(rival.make(call, question));
    let second = |made, first| {
        let dropped = errand.dropped.clone();
        Race::Second(Box::new(Second { made, credential, dropped, first }))
    };
    match select(first, rival).await {
        Either::Left((Ok(made), _)) => Race::First(Box::new(Ok(made)), None),
        Either::Left((Err(failure), rival)) => match rival.await {
            Ok(made) => second(made, Some(*failure)),
            Err(rival) => Race::First(Box::new(Err(failure)), Some((credential, *rival))),
        },
        Either::Right((Ok(made), _)) => second(made, None),
        Either::Right((Err(failure), first)) => {
            Race::First(Box::new(first.await), Some((credential, *failure)))
        }
    }
}
