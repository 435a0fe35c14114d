//! Asks a model for the next turn of a run, and takes in what it says.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::actor::{Actor, Outcome, until};
use super::budget::{Held, Wish};
use super::context::Fitted;
use super::counts::Purpose;
use super::definition::Member;
use super::demanded::{invalid, is_as_demanded, unfence};
use super::event::{Asking, Doer, Event};
use super::journal::{Halt, now};
use super::people::millis;
use super::run::{Ending, Step, sureness};
use super::view::{CUT, FILTERED};
use super::wants::requests;
use crate::canon::{ChatRequest, ChatResponse, Choice, FinishReason, Part, StopReason, Usage};
use crate::config::{CacheMode, Confidence, OnFilter};
use crate::error::{Error, Kind};
use crate::gateway::agents::{Guarded, Receipt, Turn};
use crate::store::hex;
use crate::tool::canonical;

/// A turn that broke off is asked for again so often.
const MOST_BREAKS: u32 = 2;
/// A client that waits for its answer does not wait for longer until its key may call again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Others may be quicker than it: it is tried so often.
const MOST_PAUSES: u32 = 30;

const UNPRICED: &str = "The run has a budget in USD, and a model of its route has no price: give \
                        it one in `[models]`, or the agent no `usd`.";

/// A call of a model, whose type is long.
pub(super) type Turning<'a> =
    Pin<Box<dyn Future<Output = (Result<ChatResponse, Error>, Receipt)> + Send + 'a>>;

impl Actor {
    /// One turn.
    pub(super) async fn ask(&self, tools: bool) -> Result<(), Halt> {
        if self.note_obstacle().await? {
            return Ok(());
        }
        let began = Instant::now();
        let Some((fitted, held)) = self.has_means(tools).await? else { return Ok(()) };
        let wanted = self.wanted(&fitted);
        let mut request = fitted.request;
        request.sampling.max_tokens = Some(held.max_tokens);
        let run = self.journal.run().await;
        let call = run.retry.unwrap_or(run.asks + 1);
        let until = until(&run, self.definition.limits.step_timeout);
        drop(run);
        let asked = Event::Asked(Asking {
            call,
            summary: false,
            model: request.model.clone(),
            digest: digest(&request),
            tools,
            max_tokens: held.max_tokens,
            clamped: held.max_tokens < wanted,
            input_estimate: fitted.forecast.input_tokens,
            cost_estimate: held.usd,
            at: now(),
        });
        self.journal.intend(vec![asked]).await?;
        self.took("assemble", began);
        self.live.voice.turn(&self.name());
        self.live.voice.takes_off(self.journal.run().await.seq);
        let turn = self.turn(request, until).await;
        let receipt = Arc::clone(&turn.receipt);
        let mut hear = |event: &crate::canon::Event| self.live.hear(event);
        let work: Turning<'_> = Box::pin(self.staff.gateway.turn(turn, &mut hear));
        match self.unless_ended(work, until).await? {
            Outcome::Done((Ok(response), receipt)) => {
                self.answered(call, response, receipt, held).await
            }
            Outcome::Done((Err(error), receipt)) => {
                self.refused(call, error, (receipt, held)).await
            }
            // The call was settled when it was dropped.
            Outcome::Cancelled => {
                let receipt = receipt.get().cloned().unwrap_or_default();
                self.broke(call, ("cancelled", "The run was cancelled."), (receipt, held)).await
            }
            Outcome::Late => {
                let receipt = receipt.get().cloned().unwrap_or_default();
                self.note_late(call, (receipt, held)).await
            }
        }
    }

    /// The question, and what is set aside for it; nothing where there is no room or no budget for
    /// one, which is then in the journal.
    async fn has_means(&self, tools: bool) -> Result<Option<(Fitted, Held)>, Halt> {
        let fitted = self.fit(tools).await?;
        // It may have been called off while older turns were told in short.
        if self.journal.run().await.is_called_off() {
            return Ok(None);
        }
        let fitted = match fitted {
            Ok(fitted) => fitted,
            Err(reason) => return self.stop(reason).await.map(|()| None),
        };
        match self.sets_aside(&fitted, tools).await {
            Ok(held) => return Ok(Some((fitted, held))),
            Err(StopReason::Budget) if self.is_unpriced(&fitted) => {
                self.breaks_off(StopReason::Budget, Some(UNPRICED.to_owned())).await?;
            }
            Err(reason) => self.stop(reason).await?,
        }
        Ok(None)
    }

    /// Whether something keeps it from asking, which is then in the journal.
    async fn note_obstacle(&self) -> Result<bool, Halt> {
        self.tell_lost().await?;
        let route = self.journal.run().await.member().map(|it| it.route.clone());
        let route = route.filter(|route| !self.staff.gateway.leads_anywhere(route));
        let guarded = self.guarded().await;
        let lost = guarded.iter().find_map(|it| self.staff.gateway.lost_guard(it));
        if let Some(gone) = route.or(lost) {
            return self.escalate_unavailable(None, &gone).await.map(|()| true);
        }
        self.remark().await?;
        if !self.is_beyond_repair().await || self.asks_other(None).await? {
            return Ok(false);
        }
        let run = self.journal.run().await;
        let is_cut = run.finish == Some(FinishReason::Length) && run.successor().is_none();
        drop(run);
        if is_cut {
            return self.breaks_off(StopReason::Budget, Some(CUT.into())).await.map(|()| true);
        }
        let text = "Its model calls tools with arguments that none of them takes.";
        self.give_up(StopReason::InvalidOutput, text).await.map(|()| true)
    }

    /// A model was told often enough what is wrong with its calls.
    async fn is_beyond_repair(&self) -> bool {
        let run = self.journal.run().await;
        let turns = run.malformed + u32::from(run.is_malformed());
        turns > self.definition.limits.repairs && run.limit.is_none()
    }

    /// The question as a call of the run's own.
    pub(super) async fn turn(&self, request: ChatRequest, until: Instant) -> Turn {
        // Who may change something must not act on what was remembered.
        let cache = self.definition.changes_something().then_some(CacheMode::Off);
        let run = self.journal.run().await;
        let user = run.created.user.as_deref().map(Into::into);
        let (version, step) = (run.created.version.as_str().into(), run.asks);
        let avoids = run.avoided.clone();
        let (headers, labels) = (run.created.headers.clone(), run.created.labels.clone());
        drop(run);
        let trace = Some(self.trace().await);
        Turn {
            caller: self.caller.clone(),
            request,
            run: self.journal.id,
            agent: self.definition.agent.as_str().into(),
            version,
            step,
            guarded: self.guarded().await,
            user,
            headers,
            labels,
            session: self.live.root.spread(),
            trace,
            deadline: until,
            cache,
            avoids,
            rate_limit_tries: self.definition.limits.rate_limit_tries,
            receipt: Arc::default(),
        }
    }

    async fn note_late(&self, call: u32, settled: (Receipt, Held)) -> Result<(), Halt> {
        self.broke(call, ("upstream_timeout", "The step took too long."), settled).await?;
        if self.journal.run().await.failures > MOST_BREAKS {
            return self.give_up(StopReason::ModelFailed, "Its model took too long.").await;
        }
        Ok(())
    }

    /// Sets aside what a turn may use. Behind one that may call something there is to be enough for
    /// the last word; where there is not at the very first, it goes without.
    async fn sets_aside(&self, fitted: &Fitted, tools: bool) -> Result<Held, StopReason> {
        let run = self.journal.run().await;
        let keeps = tools && run.offers() && self.definition.limits.final_answer;
        let is_first = run.answers == 0;
        drop(run);
        let wanted = self.wanted(fitted);
        let wish = if keeps { Wish::Turn } else { Wish::Last };
        match self.purse.reserve(&fitted.forecast, wanted, wish) {
            Err(_) if keeps && is_first => self.purse.reserve(&fitted.forecast, wanted, Wish::Last),
            held => held,
        }
    }

    /// Tokens of the answer that are wanted.
    fn wanted(&self, fitted: &Fitted) -> u64 {
        let budget = self.definition.budget.output_tokens;
        let wished = fitted.request.sampling.max_tokens.unwrap_or(budget);
        let question = fitted.forecast.input_tokens;
        let room = fitted.window.map_or(u64::MAX, |window| window.saturating_sub(question));
        budget.min(wished).min(room.max(1))
    }

    /// A limit keeps the model from being asked: the last word, or the end.
    async fn stop(&self, reason: StopReason) -> Result<(), Halt> {
        if reason == StopReason::ContextOverflow || self.journal.run().await.limit.is_some() {
            return self.breaks_off(reason, None).await;
        }
        self.hit(reason).await
    }

    /// It has a budget in money, and nobody knows what its model costs.
    fn is_unpriced(&self, fitted: &Fitted) -> bool {
        fitted.forecast.output_price.is_none() && self.purse.is_of_money()
    }

    /// It ends at a limit, and has no last word.
    async fn breaks_off(&self, reason: StopReason, message: Option<String>) -> Result<(), Halt> {
        if self.journal.run().await.limit.is_none() {
            self.hit(reason).await?;
        }
        self.finish_as(crate::canon::RunState::Incomplete, reason, message).await
    }

    /// The process ended while a model was asked: it may have used all that was set aside for it.
    pub(super) async fn tell_lost(&self) -> Result<(), Halt> {
        let Some(open) = self.journal.run().await.open_ask.clone() else { return Ok(()) };
        let (input, output) = (open.input_estimate, open.max_tokens);
        let usage = Usage { input, output, ..Usage::default() };
        let cost = Some(open.cost_estimate).filter(|cost| *cost > 0);
        self.purse.spend(usage, cost);
        let paid = cost.map(crate::canon::Money::from_nanos);
        let receipt = Receipt { usage, cost: paid, ..Receipt::default() };
        self.counts_answer(Purpose::of(Some(&open)), &receipt, "lost");
        let lost = Event::AskFailed {
            call: open.call,
            code: "lost".to_owned(),
            message: "The process ended while the model was asked.".to_owned(),
            usage,
            cost,
            estimated: true,
            lost: true,
            at: now(),
            id: None,
            retry_after: None,
        };
        self.journal.append(vec![lost]).await
    }

    /// Remarks on calls that were made again and again.
    async fn remark(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let warn = self.definition.limits.loop_warn;
        let mut events = Vec::new();
        for call in &run.calls {
            let same = format!("{} {}", call.request.alias, canonical(&call.request.args));
            if run.repetitions(&call.request) >= warn && !run.remarked.contains(&same) {
                let text = format!(
                    "[`{}` was called {warn} times with the same arguments. Do something else, or \
                     answer with what you have.]",
                    call.request.alias
                );
                events.push(Event::Noted { text, reason: Some(same) });
            }
        }
        drop(run);
        if events.is_empty() { Ok(()) } else { self.journal.append(events).await }
    }

    async fn answered(
        &self,
        call: u32,
        response: ChatResponse,
        receipt: Receipt,
        held: Held,
    ) -> Result<(), Halt> {
        let began = Instant::now();
        let cost = receipt.cost.map(crate::canon::Money::nanos);
        held.settle(receipt.usage, cost);
        let Choice { mut parts, finish, .. } =
            response.choices.into_iter().next().unwrap_or_default();
        let run = self.journal.run().await;
        let requested = requests(&run, &mut parts);
        let fenced = run.output_schema().is_some() && requested.is_empty() && unfence(&mut parts);
        // There was budget for the beginning of an answer only.
        let clamped = run.open_ask.as_ref().is_some_and(|open| open.clamped);
        let is_cut = clamped && finish.reason == FinishReason::Length && requested.is_empty();
        let speaks = run.is_last
            || requested.is_empty()
            || requested.iter().all(|it| it.doer == Doer::Client);
        let on_filter = run.member().map(|member| member.on_filter).unwrap_or_default();
        // What is not as it must be, nobody hears.
        let speaks = speaks && (!requested.is_empty() || is_as_demanded(&run, &parts).is_ok());
        drop(run);
        let is_filtered =
            matches!(finish.reason, FinishReason::ContentFilter | FinishReason::Refusal);
        // Somebody else answers, or the user is told instead.
        let speaks = speaks && !(is_filtered && on_filter != OnFilter::Reject);
        self.live.voice.turn_over(speaks && !fenced);
        if speaks && fenced {
            self.live.voice.parts(&self.name(), &parts);
        }
        let mut events = Vec::with_capacity(requested.len() + 2);
        events.extend(fallbacks(call, &receipt));
        if is_cut {
            self.notes_hit(StopReason::Budget).await;
            events.push(Event::LimitHit { reason: StopReason::Budget });
        }
        self.counts_answer(Purpose::Reason, &receipt, "ok");
        if is_filtered {
            let message = "The model's provider has filtered its answer.".to_owned();
            events.push(Event::Guarded { guard: "content_filter".to_owned(), message });
        }
        events.push(Event::Answered {
            call,
            parts,
            finish,
            usage: receipt.usage,
            estimated: receipt.estimated,
            cost,
            provider: receipt.provider.as_deref().unwrap_or_default().to_owned(),
            model: receipt.model.as_deref().unwrap_or_default().to_owned(),
            fallback_level: receipt.fallback_level,
            cached: receipt.cached,
            at: now(),
            id: receipt.id.map(|id| id.to_string()),
        });
        events.extend(requested.into_iter().map(|request| Event::Requested(Box::new(request))));
        let done = self.journal.append(events).await;
        self.took("journal", began);
        done
    }

    /// No model has answered.
    async fn refused(
        &self,
        call: u32,
        error: Error,
        (receipt, held): (Receipt, Held),
    ) -> Result<(), Halt> {
        let cost = receipt.cost.map(crate::canon::Money::nanos);
        let is_asked = receipt.provider.is_some() || !receipt.failed.is_empty();
        if is_asked {
            held.settle(receipt.usage, cost);
        } else {
            held.give_back();
        }
        self.live.voice.turn_over(false);
        self.counts_answer(Purpose::Reason, &receipt, error.kind.code());
        let failed = Event::AskFailed {
            call,
            code: error.kind.code().to_owned(),
            message: error.message.to_string(),
            usage: receipt.usage,
            cost,
            estimated: receipt.estimated,
            lost: false,
            at: now(),
            id: receipt.id.map(|id| id.to_string()),
            retry_after: error.retry_after.map(millis),
        };
        let mut events = fallbacks(call, &receipt);
        events.push(failed);
        self.journal.append(events).await?;
        let failures = self.journal.run().await.failures;
        match error.kind {
            Kind::StreamTruncated | Kind::UpstreamTimeout if failures <= MOST_BREAKS => Ok(()),
            // It is made shorter, or asked of others, as long as that helps.
            Kind::ContextTooLong => Ok(()),
            Kind::GuardBlocked | Kind::ContentFiltered => self.heed_guard(&error).await,
            Kind::BudgetExceeded => self.exhausts_key().await,
            Kind::RateLimited if !is_asked => self.pauses(&error).await,
            Kind::RateLimited => self.give_up(StopReason::RateLimited, &error.message).await,
            _ => self.give_up(StopReason::ModelFailed, &error.message).await,
        }
    }

    /// Its key has called as often as its limits let it, and may call again after a while.
    async fn pauses(&self, error: &Error) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let is_background = run.created.wishes.background;
        let most = if is_background { self.definition.limits.step_timeout } else { LONGEST_PAUSE };
        let (until, failures) = (until(&run, most), run.failures);
        drop(run);
        let ready = error.retry_after.map(|wait| Instant::now() + wait);
        match ready.filter(|ready| *ready < until && failures <= MOST_PAUSES) {
            Some(ready) => {
                self.unless_ended(tokio::time::sleep_until(ready), until).await.map(|_| ())
            }
            None => self.give_up(StopReason::RateLimited, &error.message).await,
        }
    }

    /// A guard of ours has the last word; what becomes of it when a provider's filter says no, its
    /// agent says.
    async fn heed_guard(&self, error: &Error) -> Result<(), Halt> {
        let message = error.message.to_string();
        let guarded =
            Event::Guarded { guard: error.kind.code().to_owned(), message: message.clone() };
        self.journal.append(vec![guarded]).await?;
        let rejected = Step::End(Ending {
            state: crate::canon::RunState::Rejected,
            reason: Some(StopReason::Guard),
        });
        let next = match error.kind {
            Kind::ContentFiltered => self.journal.run().await.next_of_filtered(),
            _ => rejected,
        };
        match next {
            Step::End(ending) => {
                let message = if ending.state == crate::canon::RunState::Completed {
                    FILTERED.to_owned()
                } else {
                    message
                };
                self.finish_as(ending.state, StopReason::Guard, Some(message)).await
            }
            _ => self.fall_back().await,
        }
    }

    /// Another agent goes on with what this one was not let answer.
    pub(super) async fn fall_back(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let (from, to) = (run.active.clone(), run.successor().map(str::to_owned));
        drop(run);
        let Some(to) = to else { return Ok(()) };
        self.journal.append(vec![Event::AgentFallback { from, to }]).await
    }

    /// The question was called off here, or its answer is worth nothing.
    pub(super) async fn broke(
        &self,
        call: u32,
        (code, message): (&str, &str),
        (receipt, held): (Receipt, Held),
    ) -> Result<(), Halt> {
        let cost = receipt.cost.map(crate::canon::Money::nanos);
        held.settle(receipt.usage, cost);
        self.live.voice.turn_over(false);
        let purpose = Purpose::of(self.journal.run().await.open_ask.as_ref());
        self.counts_answer(purpose, &receipt, code);
        let failed = Event::AskFailed {
            call,
            code: code.to_owned(),
            message: message.to_owned(),
            usage: receipt.usage,
            cost,
            estimated: receipt.estimated,
            lost: false,
            at: now(),
            id: receipt.id.map(|id| id.to_string()),
            retry_after: None,
        };
        self.journal.append(vec![failed]).await
    }

    /// Nobody answers: another agent does, or the user is told, or the run fails.
    async fn give_up(&self, reason: StopReason, message: &str) -> Result<(), Halt> {
        if self.journal.run().await.successor().is_some() {
            return self.fall_back().await;
        }
        if let Some(notice) = &self.definition.degraded {
            let state = crate::canon::RunState::Incomplete;
            return self.finish_as(state, StopReason::Degraded, Some(notice.clone())).await;
        }
        let state = crate::canon::RunState::Failed;
        self.finish_as(state, reason, Some(message.to_owned())).await
    }

    /// What the model has said at the end: whether it is what was asked for.
    pub(super) async fn finish(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let answer = run.answer();
        let text: String = answer.iter().filter_map(Part::as_text).collect();
        let (repairs, degraded) = (run.repairs, run.degraded);
        let confidence = run.member().and_then(|member| member.confidence.clone());
        let demanded = is_as_demanded(&run, &answer);
        drop(run);
        if let Err(wrong) = demanded {
            self.live.voice.turn_over(false);
            let text = format!(
                "[That is not what the schema demands: {wrong}. Answer again, with the JSON and \
                 nothing else.]"
            );
            let noted = Event::Noted { text, reason: Some("repair".to_owned()) };
            if repairs < self.definition.limits.repairs {
                return self.journal.append(vec![noted]).await;
            }
            if self.asks_other(Some(noted)).await? {
                return Ok(());
            }
            let (state, message) = (crate::canon::RunState::Failed, Some(invalid(&wrong)));
            return self.finish_as(state, StopReason::InvalidOutput, message).await;
        }
        if let Some(confidence) = confidence
            && self.looks_at_answer(&text, &confidence).await?
        {
            return Ok(());
        }
        let state = crate::canon::RunState::Completed;
        let ended = Event::Ended { state, reason: None, message: None, degraded, at: now() };
        self.close(vec![ended]).await
    }

    /// Whose guards look at what it asks: those of the agent that was asked, and of the one that has
    /// the conversation now.
    async fn guarded(&self) -> Vec<Guarded> {
        let run = self.journal.run().await;
        let pinned = &*self.definition;
        let of = |agent: &str, member: &Member| Guarded {
            agent: agent.into(),
            version: member.version.as_str().into(),
            guards: member.guards.clone(),
        };
        let root = pinned.root().map(|it| of(&pinned.agent, it));
        let member = run.member().filter(|_| run.active != pinned.agent);
        let member = member.map(|it| of(&run.active, it));
        root.into_iter().chain(member).collect()
    }

    /// Whether a person must look at the answer first.
    async fn looks_at_answer(&self, text: &str, confidence: &Confidence) -> Result<bool, Halt> {
        use crate::config::Band;
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let Some(sure) = sureness(&value, &confidence.field) else { return Ok(false) };
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        metrics.agent_confidence.with_label_values(&[agent]).observe(f64::from(sure) / 1000.0);
        let reviewed = Event::Review { id: None, confidence: Some(sure) };
        match confidence.band(Some(sure)) {
            Band::Autonomous => Ok(false),
            Band::Log => {
                self.journal.append(vec![reviewed]).await?;
                Ok(false)
            }
            Band::Approve | Band::Escalate => {
                let share = f64::from(sure) / 1000.0;
                let escalated =
                    self.escalated(None, format!("it is only {share} sure of its answer"));
                self.journal.append(vec![reviewed, escalated]).await?;
                self.counts_escalation("confidence");
                Ok(true)
            }
        }
    }
}

/// Who was meant to answer and did not, one after the other.
fn fallbacks(call: u32, receipt: &Receipt) -> Vec<Event> {
    let mut passed: Vec<Event> = Vec::new();
    let answered = receipt.provider.as_deref().zip(receipt.model.as_deref());
    for attempt in &receipt.failed {
        let from = format!("{}/{}", attempt.provider, attempt.model);
        let is_same =
            |it: &Event| matches!(it, Event::Fallback { from: known, .. } if *known == from);
        let level = u32::try_from(passed.len() + 1).unwrap_or(u32::MAX);
        let is_last = level > receipt.fallback_level
            || answered == Some((&*attempt.provider, &*attempt.model));
        if !is_last && !passed.iter().any(is_same) {
            let outcome = attempt.outcome.name().to_owned();
            passed.push(Event::Fallback { call, level, from, outcome });
        }
    }
    passed
}

/// What tells one question from another.
pub(super) fn digest(request: &ChatRequest) -> String {
    let body = serde_json::to_vec(&json!({
        "model": request.model,
        "messages": request.messages.len(),
        "last": request.messages.last(),
    }));
    hex(&Sha256::digest(body.unwrap_or_default()))
}

/// How long nothing of a step may take that is no call of a model or tool.
pub(super) const STEP: Duration = Duration::from_mins(10);

/// How an answer ended, as a client is told.
pub(super) fn told(finish: Option<FinishReason>) -> FinishReason {
    match finish {
        Some(FinishReason::Length) => FinishReason::Length,
        _ => FinishReason::Stop,
    }
}
