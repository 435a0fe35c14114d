//! Asks a model for what is no step of a run: its plan, and older turns told in short.

use std::sync::Arc;

use super::actor::{Actor, Outcome, until};
use super::ask::{Turning, digest};
use super::budget::{Held, Wish};
use super::context;
use super::counts::Purpose;
use super::event::{ASIDE, Asking, Event};
use super::journal::{Halt, now};
use crate::canon::{ChatRequest, ChatResponse, Part};
use crate::error::Error;
use crate::gateway::agents::{Forecast, Receipt};

/// Tokens of a summary, at most, and bytes of each message that it is made of.
const SUMMARY: u64 = 1500;
const SHORT: [usize; 5] = [4000, 2000, 1000, 400, 100];

/// A question, what is set aside for it, and what the journal knows of both.
pub(super) struct Aside {
    pub(super) request: ChatRequest,
    pub(super) held: Held,
    pub(super) asking: Asking,
}

/// What a model has said, or why it has not, and what that has used.
pub(super) type Said = (Result<ChatResponse, Error>, (Receipt, Held));

impl Actor {
    /// A question with an answer of at most so many tokens; nothing where it cannot be paid.
    pub(super) fn aside(
        &self,
        mut request: ChatRequest,
        forecast: Forecast,
        longest: u64,
        summary: bool,
    ) -> Option<Aside> {
        let wish = if summary { Wish::Aside } else { Wish::Before };
        let held = self.purse.reserve(&forecast, longest, wish).ok()?;
        request.sampling.max_tokens = Some(held.max_tokens);
        let asking = Asking {
            call: ASIDE,
            summary,
            model: request.model.clone(),
            digest: digest(&request),
            tools: false,
            max_tokens: held.max_tokens,
            clamped: false,
            input_estimate: forecast.input_tokens,
            cost_estimate: held.usd,
            at: now(),
        };
        Some(Aside { request, held, asking })
    }

    /// Asks it, if the journal does not say yet that this is intended. Nothing where the run was
    /// called off, or the step has taken too long: the journal has that then.
    pub(super) async fn ask_aside(&self, aside: Aside) -> Result<Option<Said>, Halt> {
        let Aside { request, held, asking } = aside;
        let is_plan = asking.is_plan();
        let run = self.journal.run().await;
        let until = until(&run, self.definition.limits.step_timeout);
        let is_intended = run.open_ask.is_some();
        drop(run);
        if !is_intended {
            self.journal.intend(vec![Event::Asked(asking)]).await?;
        }
        let mut turn = self.turn(request, until).await;
        if is_plan {
            let span = self.journal.run().await.span_of_plan();
            turn.trace = turn.trace.map(|trace| trace.below(span));
        }
        let receipt = Arc::clone(&turn.receipt);
        let mut deaf = |_: &crate::canon::Event| {};
        let work: Turning<'_> = Box::pin(self.staff.gateway.turn(turn, &mut deaf));
        let why = match self.unless_ended(work, until).await? {
            Outcome::Done((answer, receipt)) => return Ok(Some((answer, (receipt, held)))),
            Outcome::Cancelled => ("cancelled", "The run was cancelled."),
            Outcome::Late => ("upstream_timeout", "The step took too long."),
        };
        let receipt = receipt.get().cloned().unwrap_or_default();
        self.broke(ASIDE, why, (receipt, held)).await?;
        Ok(None)
    }

    /// Has older turns told in short. False where nobody could.
    pub(super) async fn summarise(&self, through: usize) -> Result<bool, Halt> {
        let Some(aside) = self.summary_asked_for(through).await else { return Ok(false) };
        let Some((answer, (receipt, held))) = self.ask_aside(aside).await? else {
            return Ok(false);
        };
        let summary = answer.map(|answer| {
            let parts = answer.choices.into_iter().next().unwrap_or_default().parts;
            parts.iter().filter_map(Part::as_text).collect::<String>()
        });
        let (code, message) = match summary {
            Ok(summary) if !summary.trim().is_empty() => {
                let (usage, cost) = (receipt.usage, receipt.cost.map(crate::canon::Money::nanos));
                held.settle(usage, cost);
                self.counts_answer(Purpose::Summarise, &receipt, "ok");
                let metrics = &self.staff.gateway.telemetry.metrics;
                let agent = self.definition.agent.as_str();
                metrics.agent_compactions.with_label_values(&[agent]).inc();
                let through = u32::try_from(through).unwrap_or(u32::MAX);
                let told = Event::Compacted { through, summary, usage, cost };
                return self.journal.append(vec![told]).await.map(|()| true);
            }
            Ok(_) => ("invalid_output", "The summary is empty.".into()),
            Err(error) => (error.kind.code(), error.message),
        };
        self.broke(ASIDE, (code, &message), (receipt, held)).await.map(|()| false)
    }

    /// With as much of each message as there is room for.
    async fn summary_asked_for(&self, through: usize) -> Option<Aside> {
        let run = self.journal.run().await;
        let route = run.member()?.context.summariser.clone()?;
        let mut asked = SHORT.iter().map(|longest| {
            let messages = context::summary(&run, through, *longest);
            let request = ChatRequest { model: route.clone(), messages, ..ChatRequest::default() };
            let forecast = self.staff.gateway.forecast(&self.caller, &request);
            (request, forecast)
        });
        let fits = |(_, forecast): &(ChatRequest, Forecast)| {
            let window = forecast.window.unwrap_or(u64::MAX);
            forecast.input_tokens.saturating_add(SUMMARY) <= window
        };
        let (request, forecast) = asked.find(fits)?;
        self.aside(request, forecast, SUMMARY, true)
    }
}
