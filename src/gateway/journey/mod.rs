//! A call's way through the targets of its route, until one answers: plan, send, classify, go on.
//! Only before the first content is relayed.

mod insist;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use self::insist::{Again, Patience};
use super::arrival::Question;
use super::ask::{self, Answer, Answered, JSON};
use super::call::Call;
use super::chain::{Chain, Group};
use super::errand::{self, Errand, Unfit};
use super::hedge::{self, Rival};
use super::onward::Onward;
use super::relayed::Relayed;
use super::snapshot::Target;
use super::{anew, count, explain, guarding, remember, till, verdict};
use crate::canon::{FeatureSet, Outcome};
use crate::config::OnBreak;
use crate::error::{Error, Kind};
use crate::provider::{Blame, Failure, Next};
use crate::route::health::board::Entry;
use crate::route::health::{Reason, Report};
use crate::route::load::InFlight;
use crate::route::plan::{Needs, Plan, Skip, Stage, plan};

/// Where a call has been, and where it may still go.
pub(super) struct Journey {
    /// Requests that may still leave.
    left: u32,
    course: Course,
    stage: Stage,
    needs: Needs,
    /// What the last attempt came to, and where.
    pub(super) last: Option<(usize, Failure)>,
    /// Why a target could not even be asked.
    pub(super) unfit: Option<Error>,
    pub(super) skipped: Vec<(u16, Skip)>,
    /// The shortest time that somebody asked us to wait.
    pub(super) shortest_wait: Option<Duration>,
    /// A soft threshold of its caller's budgets is crossed, or these have no room for the others.
    thrifty: bool,
    /// Only who carries on an answer that was begun can be of use.
    prefill: bool,
    /// Who is being asked.
    place: Option<usize>,
    /// Who was asked.
    tried: SmallVec<[u64; 4]>,
    /// Who may answer when asked again, by which credential, and not before when.
    again: SmallVec<[Again; 2]>,
    /// How long that is waited for.
    patience: Patience,
}

/// Where failures so far have left a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Anybody else may answer.
    On,
    /// Only who has a larger context window.
    Larger,
    /// Only who is named for what a content filter refuses.
    Filtered,
    /// Nobody.
    Over,
}

/// Tries the targets in order. The question is let go as soon as no further attempt can need it.
pub(super) async fn walk(
    call: Box<Call>,
    question: Box<Question>,
) -> (Box<Call>, Result<Answer, Error>) {
    if call.guarding.is_some() {
        return Box::pin(behind_guards(call, question)).await;
    }
    if call.is_remembered() {
        return Box::pin(remember::walk(call, question)).await;
    }
    seek(call, question).await
}

/// Some guards may still be asked: whoever has answered, nobody has the answer before they have
/// spoken.
async fn behind_guards(
    call: Box<Call>,
    question: Box<Question>,
) -> (Box<Call>, Result<Answer, Error>) {
    let (mut call, answer) = if call.is_remembered() {
        Box::pin(remember::walk(call, question)).await
    } else {
        Box::pin(seek(call, question)).await
    };
    let Some(late) = call.take_late_guards().filter(|_| answer.is_ok()) else {
        return (call, answer);
    };
    let verdict = Box::pin(late.ask()).await;
    (call, verdict.and(answer))
}

/// The same for an answer that is not remembered.
pub(super) async fn seek(
    mut call: Box<Call>,
    mut question: Box<Question>,
) -> (Box<Call>, Result<Answer, Error>) {
    if call.is_counted()
        && let Err(error) = Box::pin(till::hold(&mut call, &mut question)).await
    {
        return (call, Err(error));
    }
    let mut journey = Journey::new(&call);
    if call.wishes().is_some_and(|wishes| wishes.on_break != OnBreak::Error) {
        return Box::pin(Box::new(Onward { question, journey }).walk(call)).await;
    }
    let answer = journey.go(&mut call, &question).await;
    (call, answer)
}

// === impl Journey ===

impl Journey {
    pub(super) fn new(call: &Call) -> Self {
        let attempts = call.chain.as_ref().map_or(0, |chain| chain.attempts);
        Self {
            // Who asks again himself multiplies our attempts; one other target remains even so.
            left: attempts.saturating_sub(call.bearings.retries).max(attempts.min(2)),
            course: Course::On,
            stage: Stage::Own,
            needs: Needs::default(),
            last: None,
            unfit: None,
            skipped: Vec::new(),
            shortest_wait: None,
            thrifty: false,
            prefill: false,
            place: None,
            tried: SmallVec::new(),
            again: SmallVec::new(),
            patience: Patience::of(call),
        }
    }

    pub(super) async fn go(
        &mut self,
        call: &mut Call,
        question: &Question,
    ) -> Result<Answer, Error> {
        match call.take_late_guards() {
            None => self.try_all(call, question).await,
            Some(late) => Box::pin(guarding::beside(late, self.try_all(call, question))).await,
        }
    }

    async fn try_all(&mut self, call: &mut Call, question: &Question) -> Result<Answer, Error> {
        let Some(chain) = call.chain.clone() else {
            return Err(Error::new(Kind::Internal, "The call has no targets."));
        };
        call.gateway.retries.deposit(1, Instant::now());
        self.find_needs(call, question, &chain).await;
        if call.explains {
            call.explanation = explain::header(call, &chain, self);
        }
        let saves = call.till.saves();
        self.thrifty = saves || call.is_past_soft();
        for group in chain.by_turn(self.thrifty) {
            let is_paid = !saves || group.stage == Stage::Budget;
            if is_paid
                && self.goes_to(group.stage)
                && let Some(answer) = self.visit_all(call, question, &chain, group).await?
            {
                return Ok(answer);
            }
        }
        if let Some(answer) = Box::pin(self.insist(call, question, &chain)).await? {
            return Ok(answer);
        }
        if let (Some((place, _)), true) = (&self.last, call.surface().counts_tokens()) {
            // Better a count by estimate than none: clients go on by it.
            let estimate = count::estimate(call, question, &chain.targets[*place]);
            return Ok(whole(Box::pin(estimate).await?));
        }
        Err(verdict::explain(call, &chain, self))
    }

    /// Asks the targets of one group, one after the other.
    async fn visit_all(
        &mut self,
        call: &mut Call,
        question: &Question,
        chain: &Chain,
        group: &Group,
    ) -> Result<Option<Answer>, Error> {
        self.stage = group.stage;
        let plan = self.plan(call, chain, group);
        call.skips(chain, &plan.skipped);
        self.skipped.extend(plan.skipped);
        for (step, &place) in plan.order.iter().enumerate() {
            let next = plan.order.get(step + 1).map(|place| usize::from(*place));
            let answer = self.visit(call, question, chain, usize::from(place), next).await?;
            if answer.is_some() || self.is_over() {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// The last target's answer has broken off. Who is left is looked at anew.
    pub(super) fn broke(&mut self, failure: Failure) {
        self.left = self.left.saturating_sub(1);
        self.again.clear();
        self.skipped.clear();
        self.last = self.place.map(|place| (place, failure));
    }

    /// From here on only who carries on what stands there.
    pub(super) fn needs_prefill(&mut self) {
        self.prefill = true;
    }

    /// Whether a group of targets is for calls that have come to this.
    fn goes_to(&self, stage: Stage) -> bool {
        let skipped = |test: fn(&Skip) -> bool| self.skipped.iter().any(|(_, skip)| test(skip));
        let limited =
            self.last.as_ref().is_some_and(|(_, failure)| failure.outcome == Outcome::RateLimited);
        match stage {
            Stage::Own => !matches!(self.course, Course::Filtered | Course::Over),
            Stage::Context => {
                let none = self.last.is_none() && skipped(|skip| matches!(skip, Skip::TooSmall(_)));
                self.course == Course::Larger || (self.course == Course::On && none)
            }
            Stage::ContentFilter => self.course == Course::Filtered,
            Stage::RateLimit => {
                let shut = |skip: &Skip| matches!(skip, Skip::Shut(_, Reason::RateLimited));
                self.course == Course::On && (limited || skipped(shut))
            }
            Stage::Budget => self.thrifty,
            Stage::General => self.course == Course::On,
        }
    }

    /// Finds out what the question demands of its target.
    pub(super) async fn find_needs(&mut self, call: &Call, question: &Question, chain: &Chain) {
        let needs = chain.needs(call, question).await;
        self.needs = Needs { larger_than: self.needs.larger_than, prefill: self.prefill, ..needs };
    }

    /// Tokens of the question, by estimate.
    pub(super) fn tokens(&self, call: &Call) -> u64 {
        if self.needs.tokens > 0 { self.needs.tokens } else { call.input_estimate() }
    }

    pub(super) fn features(&self) -> FeatureSet {
        self.needs.features
    }

    /// The targets of one group in the order in which they are tried.
    pub(super) fn plan(&self, call: &Call, chain: &Chain, group: &Group) -> Plan {
        let prospects = chain.prospects(call, group, self.tokens(call), Instant::now());
        // What belongs to no session is spread.
        let session = if call.bearings.session == 0 { call.draw() } else { call.bearings.session };
        plan(group.strategy, prospects, &self.needs, call.draw(), session)
    }

    fn is_over(&self) -> bool {
        let filtered = self.course == Course::Filtered && self.stage != Stage::ContentFilter;
        self.left == 0 || self.course == Course::Over || filtered
    }

    /// Asks one target, by each of its credentials if need be. `next` is whom a slow one may be
    /// raced against.
    async fn visit(
        &mut self,
        call: &mut Call,
        question: &Question,
        chain: &Chain,
        place: usize,
        next: Option<usize>,
    ) -> Result<Option<Answer>, Error> {
        let target = &chain.targets[place];
        let small = self.course == Course::Larger && !self.is_larger(target);
        if small || self.tried.contains(&target.identity) {
            return Ok(None);
        }
        self.tried.push(target.identity);
        let Some(errand) = self.prepare(call, question, target).await? else { return Ok(None) };
        if let Some(body) = errand.local() {
            return Ok(Some(whole(body.clone())));
        }
        let mut asked = false;
        for credential in credentials(call, question, target) {
            if self.left == 0 {
                return Ok(None);
            }
            // Others may have found out, since the plan was made, that it is of no use.
            let Some(pass) = target.lane(credential).enter(Instant::now()) else { continue };
            asked = true;
            let attempt = Attempt { place, credential, errand: &errand, pass };
            let next = next.filter(|next| self.may_race(question, chain, *next));
            if let Some(answer) = self.attempt(call, question, attempt, next).await? {
                return Ok(Some(answer));
            }
            let another_key =
                self.last.as_ref().is_some_and(|(_, failure)| failure.next == Next::Key);
            if !another_key {
                break;
            }
        }
        if let (false, Some(shut)) = (asked, target.shut(Instant::now())) {
            self.leave_alone(call, place, shut);
        }
        if self.bears_with(place) {
            return Box::pin(self.ask_again(call, question, chain, Some(place))).await;
        }
        Ok(None)
    }

    fn leave_alone(&mut self, call: &mut Call, place: usize, (until, reason): (Instant, Reason)) {
        let skipped = u16::try_from(place).map(|place| (place, Skip::Shut(until, reason)));
        if let (Ok(skipped), Some(chain)) = (skipped, call.chain.clone()) {
            call.skips(&chain, &[skipped]);
            self.skipped.push(skipped);
        }
    }

    /// Whether the target at `next` may be asked while another one is.
    fn may_race(&self, question: &Question, chain: &Chain, next: usize) -> bool {
        let target = &chain.targets[next];
        let small = self.course == Course::Larger && !self.is_larger(target);
        // What is still arriving can be sent once only.
        let possible = chain.hedge.is_some() && question.rest().is_none() && self.left > 1;
        possible && !small && !self.tried.contains(&target.identity)
    }

    fn is_larger(&self, target: &Target) -> bool {
        let seen = self.needs.larger_than.unwrap_or(0);
        target.info.context.map_or(self.stage == Stage::Context, |window| window > seen)
    }

    /// The question in the target's words; `None` if it cannot take it.
    async fn prepare(
        &mut self,
        call: &Call,
        question: &Question,
        target: &Target,
    ) -> Result<Option<Errand>, Error> {
        match errand::prepare(call, question, target).await {
            Ok(errand) => Ok(Some(errand)),
            Err(Unfit::Question(error)) => Err(error),
            Err(Unfit::Target(error)) => {
                self.unfit.get_or_insert(error);
                Ok(None)
            }
        }
    }

    /// Sends one request, or two if the first is slow and the route wants that.
    async fn attempt(
        &mut self,
        call: &mut Call,
        question: &Question,
        attempt: Attempt<'_>,
        next: Option<usize>,
    ) -> Result<Option<Answer>, Error> {
        let (place, credential) = (attempt.place, attempt.credential);
        if call.is_charged() {
            Box::pin(anew::hold(call, place, self.prefill)).await?;
        }
        let limited = call.chain.as_ref().is_some_and(|chain| !chain.targets[place].tab.is_empty());
        let hold = match limited.then(|| Box::pin(till::hold_target(call, question, place))) {
            None => Ok(None),
            Some(hold) => hold.await,
        };
        let hold = match hold {
            Ok(hold) => hold,
            Err(until) => {
                self.leave_alone(call, place, (until, Reason::RateLimited));
                return Ok(None);
            }
        };
        self.place = Some(place);
        call.attempt_begins(place, credential, &attempt.errand.dropped);
        call.holds(hold);
        if let Some(chain) = &call.chain
            && let Some(hedge) = &chain.hedge
        {
            hedge.pays(call, &chain.targets[place]);
        }
        let Some(next) = next else {
            let result = attempt.make(call, question).await;
            return self.came_to(call, question, place, credential, result);
        };
        let (result, rival) = Box::pin(hedge::race(call, question, attempt, next)).await;
        if rival.is_some() {
            let target = call.chain.as_ref().and_then(|chain| chain.targets.get(next));
            self.tried.extend(target.map(|target| target.identity));
        }
        match rival {
            Some(Rival::Won) => self.place = Some(next),
            Some(Rival::Failed(by, failure)) if result.is_err() => {
                self.note(call, question, (next, by, failure))?;
            }
            Some(Rival::Failed(..)) | None => {}
        }
        self.came_to(call, question, place, credential, result)
    }

    fn came_to(
        &mut self,
        call: &mut Call,
        question: &Question,
        place: usize,
        credential: usize,
        result: Result<Made, Box<Failure>>,
    ) -> Result<Option<Answer>, Error> {
        match result {
            Ok(made) => call.takes(made).map(Some),
            Err(failure) => {
                call.attempt_failed(&failure);
                self.note(call, question, (place, credential, *failure)).map(|()| None)
            }
        }
    }

    /// Decides what a failure leaves to be tried.
    fn note(
        &mut self,
        call: &mut Call,
        question: &Question,
        (place, credential, failure): (usize, usize, Failure),
    ) -> Result<(), Error> {
        let Some(chain) = call.chain.clone() else { return Ok(()) };
        let target = &chain.targets[place];
        tracing::debug!(
            provider = %target.provider.name, model = %target.model, status = failure.status,
            outcome = failure.outcome.name(), "an attempt failed"
        );
        self.shortest_wait = self.shortest_wait.into_iter().chain(failure.retry_after).min();
        // A key that is dead has cost nothing, so it does not count.
        self.left = self.left.saturating_sub(u32::from(failure.blame != Blame::Key));
        if end_if_spent(call, question)? || Instant::now() >= call.end(&target.limits) {
            self.left = 0;
        }
        match failure.next {
            Next::Same | Next::Key | Next::Target => {}
            Next::Larger => {
                let window = target.info.context.unwrap_or(self.needs.tokens);
                self.needs.larger_than = self.needs.larger_than.max(Some(window));
                self.course = Course::Larger;
            }
            Next::Filtered => self.course = Course::Filtered,
            Next::Final => self.course = Course::Over,
        }
        if failure.again {
            let ready = failure.retry_after.map(|wait| Instant::now() + wait);
            self.again.push(Again { place, credential, ready, after: Some(failure.reason) });
        }
        self.last = Some((place, failure));
        Ok(())
    }
}

fn whole(body: Bytes) -> Answer {
    Answer::Whole { content_type: JSON, body }
}

/// The credentials by which a target may be asked, in order.
fn credentials(call: &Call, question: &Question, target: &Target) -> Range<usize> {
    let pinned = question.relayed.as_ref().and_then(Relayed::credentials);
    // Files lie in the first one's account.
    let pinned = pinned.or_else(|| question.keeper.as_ref().map(|_| 0..1));
    // What a provider has cached it has cached for one account.
    pinned.unwrap_or_else(|| target.provider.turns(call.bearings.session))
}

/// Whether the question cannot be sent again. The error says that it never came to its end.
fn end_if_spent(call: &mut Call, question: &Question) -> Result<bool, Error> {
    let Some(rest) = question.rest() else { return Ok(false) };
    let Some(broken) = rest.broken() else { return Ok(rest.is_spent()) };
    call.ends(broken.outcome());
    Err(broken.into())
}

/// One request that is about to leave.
pub(super) struct Attempt<'a> {
    pub(super) place: usize,
    pub(super) credential: usize,
    pub(super) errand: &'a Errand,
    pub(super) pass: Entry<'a>,
}

/// What came of one that was answered.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) answered: Answered,
    pub(super) in_flight: InFlight,
}

// === impl Attempt ===

impl Attempt<'_> {
    /// Sends it, and tells what the target's health and load are by the answer.
    pub(super) async fn make(self, call: &Call, question: &Question) -> Result<Made, Box<Failure>> {
        let Self { place, credential, errand, pass } = self;
        let Some(target) = call.chain.as_ref().and_then(|chain| chain.targets.get(place)) else {
            return Err(Failure::unreachable().into());
        };
        let load = &target.standing.load;
        let in_flight = load.begin();
        let sent = Instant::now();
        let result = ask::ask(call, question, target, errand, credential).await;
        match &result {
            Ok(answered) => {
                load.first_token(answered.first_token - sent, answered.first_token);
                pass.report(Report::Ok, answered.first_token);
            }
            // Nobody is unwell for want of a patient client.
            Err(failure) if failure.outcome == Outcome::Timeout && call.is_hurried(target) => {}
            Err(failure) => pass.report(report(failure), Instant::now()),
        }
        result.map(|answered| Made { answered, in_flight })
    }
}

/// What a failure says of its target's health.
pub(super) fn report(failure: &Failure) -> Report {
    match (failure.blame, failure.outcome) {
        (Blame::Target, Outcome::Timeout) => Report::Failed(Reason::Timeouts),
        (Blame::Target, _) => Report::Failed(Reason::Errors),
        (Blame::Wait, _) => Report::Wait(failure.retry_after),
        (Blame::Key, _) if failure.is_about_money() => Report::Dead(Reason::QuotaSpent),
        (Blame::Key, _) => Report::Dead(Reason::KeyRefused),
        (Blame::Nobody, _) => Report::Neutral,
    }
}
