//! Does what a run says is next, until it is over or waits.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::budget::Purse;
use super::context::{self, Cut, Fitted, Room};
use super::definition::{Definition, Member, ToolDefinition};
use super::event::Event;
use super::gauges::RUNNING;
use super::journal::{Halt, Journal, now};
use super::run::{Run, Step};
use super::staff::Staff;
use super::voice::Voice;
use crate::access::Caller;
use crate::canon::{ChatRequest, Owner, Passed, RunId, RunState, StopReason, Tool, Trace, Usage};
use crate::config::StreamMode;
use crate::gateway::agents::{Forecast, Report};
use crate::telemetry::OneMore;

/// A run that is at work in this process, for those who look at it from outside.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: RunId,
    pub(super) root: RunId,
    pub(super) owner: Owner,
    pub(super) version: Arc<str>,
    pub(super) voice: Voice,
    /// What a stream of it shows.
    pub(super) stream: StreamMode,
    pub(super) report: watch::Sender<Report>,
    /// The number of its last entry.
    pub(super) seq: watch::Sender<u64>,
    /// There may be something to know.
    pub(super) poke: Notify,
    /// The same, for those below it that wait.
    pub(super) stirred: Notify,
    pub(super) poked: AtomicBool,
    /// It ends when nobody follows it any more.
    pub(super) leaves: bool,
    /// Until then its client waits with it for an approval.
    pub(super) patience: OnceLock<Instant>,
    /// The run that began it.
    pub(super) above: Option<Arc<Live>>,
    /// It is to begin nothing for now.
    pub(super) paused: AtomicBool,
    /// By what the versions of all agents are drawn that its root begins.
    pub(super) sticky: Arc<str>,
}

/// The run that begins another one.
#[derive(Debug)]
pub(super) struct Above {
    pub(super) purse: Arc<Purse>,
    pub(super) live: Arc<Live>,
}

/// Who works at a run.
pub(super) struct Actor {
    pub(super) staff: Arc<Staff>,
    pub(super) journal: Arc<Journal>,
    pub(super) live: Arc<Live>,
    pub(super) purse: Arc<Purse>,
    pub(super) caller: Caller,
    pub(super) definition: Arc<Definition>,
    /// The agents above it stand so high.
    pub(super) depth: u32,
    /// What had been used when this work at it began.
    pub(super) before: Usage,
    /// The last signal that was taken in.
    pub(super) signals: AtomicU64,
    /// When one of the runs that it waits for is to be looked at.
    pub(super) wakes: AtomicU64,
}

/// How a run is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Over(RunState),
    Waits(RunState, Option<u64>),
}

pub(super) type Driving<'a> = Pin<Box<dyn Future<Output = Result<Rest, Halt>> + Send + 'a>>;

/// What came of work that something may come between.
pub(super) enum Outcome<T> {
    Done(T),
    /// The run is to end.
    Cancelled,
    Late,
}

/// What came, while it is taken in. Work that ends meanwhile drops that in the middle, and then it
/// is looked for once more.
struct Unheard<'a>(Option<&'a AtomicBool>);

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(poked) = self.0 {
            poked.store(true, Ordering::Release);
        }
    }
}

impl Live {
    /// Its model says something.
    pub(super) fn hear(&self, event: &crate::canon::Event) {
        self.voice.hear(event);
        if self.seq.receiver_count() > 0 {
            // Nothing was added to the journal, but there is more to be read.
            self.seq.send_modify(|_| {});
        }
    }

    /// Has whoever works at it look for what came.
    pub(super) fn poke(&self) {
        self.poked.store(true, Ordering::Release);
        self.poke.notify_one();
        self.stirred.notify_one();
    }

    /// Whether it, or one above it, is to begin nothing for now.
    pub(super) fn is_paused(&self) -> bool {
        let mut live = Some(self);
        while let Some(here) = live {
            if here.paused.load(Ordering::Acquire) {
                return true;
            }
            live = here.above.as_deref();
        }
        false
    }
}

impl Actor {
    /// Where those whom it asks stand in its trace.
    pub(super) async fn trace(&self) -> Trace {
        let run = self.journal.run().await;
        self.staff.trace(&run).below(run.span())
    }

    /// The same for the tool of a call, with what the run's client wants it to know.
    pub(super) async fn passed(&self, call: &str) -> Passed {
        let run = self.journal.run().await;
        let (trace, baggage) = (self.staff.trace(&run), run.created.baggage.as_deref());
        Passed::below(&trace, run.span_of_call(call), baggage)
    }

    /// The same as [`Self::drive`], with its type forgotten: agents ask agents.
    pub(super) fn drive_on(&self) -> Driving<'_> {
        Box::pin(self.drive())
    }

    /// Works until there is nothing to do.
    async fn drive(&self) -> Result<Rest, Halt> {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let labels = [self.definition.agent.as_str(), RUNNING];
        let _at_work = OneMore::of(&metrics.agent_runs_active, &labels);
        let mut looked_after = false;
        loop {
            self.take_signals().await?;
            match self.next().await {
                Step::Plan => Box::pin(self.plan()).await?,
                Step::Ask { tools } => Box::pin(self.ask(tools)).await?,
                Step::Act(mut ids) => {
                    ids.extend(self.left_children(looked_after).await);
                    looked_after = true;
                    Box::pin(self.act(ids)).await?;
                }
                Step::TakeBack => Box::pin(self.compensate()).await?,
                Step::FallBack => self.fall_back().await?,
                Step::Finish => self.finish().await?,
                Step::Limit(reason) => self.hit(reason).await?,
                // Those whom it waits for may have something to do.
                Step::Wait { .. } if !looked_after && self.has_children().await => {
                    let children = self.left_children(looked_after).await;
                    looked_after = true;
                    Box::pin(self.act(children)).await?;
                }
                Step::Wait {
                    state: RunState::WaitingApproval | RunState::WaitingChild, ..
                } if self.waits_with_client().await => {
                    looked_after = false;
                }
                Step::Wait { state, until } => {
                    let wakes = self.wakes.load(Ordering::Acquire);
                    let until = until.unwrap_or(u64::MAX).min(wakes);
                    return self.rest(state, Some(until).filter(|it| *it < u64::MAX)).await;
                }
                Step::End(ending) => return Box::pin(self.end(ending)).await,
            }
            self.shows().await;
        }
    }

    /// What is to be done: nothing that a run above it does not let begin.
    async fn next(&self) -> Step {
        let run = self.journal.run().await;
        let step = run.next(now());
        if self.live.is_paused() && run.can_rest(&step) {
            return Step::Wait { state: RunState::Paused, until: None };
        }
        step
    }

    /// Whether something may have come while its client waits for it. A run that nobody waits with
    /// is let go of at once.
    async fn waits_with_client(&self) -> bool {
        let Some(until) = self.live.patience.get() else { return false };
        tokio::select! {
            () = self.live.poke.notified() => !self.journal.is_lost(),
            () = tokio::time::sleep_until(*until) => false,
            () = self.live.voice.tape().deserted() => false,
        }
    }

    /// Notes that somebody goes on with it.
    pub(super) async fn resumes(&self) -> Result<(), Halt> {
        let resumed = Event::Resumed { at: now(), epoch: self.journal.epoch };
        self.journal.append(vec![resumed]).await
    }

    /// What its clients call it.
    pub(super) fn name(&self) -> String {
        format!("agent/{}", self.definition.agent)
    }

    pub(super) async fn hit(&self, reason: StopReason) -> Result<(), Halt> {
        self.hits(reason, self.limit(reason)).await
    }

    async fn hits(&self, reason: StopReason, limit: &'static str) -> Result<(), Halt> {
        self.notes_limit(reason, limit).await;
        self.journal.append(vec![Event::LimitHit { reason }]).await
    }

    /// Results of tools are as long as they may be, all together.
    pub(super) async fn hits_bytes(&self) -> Result<(), Halt> {
        self.hits(StopReason::Budget, "bytes").await
    }

    /// What its key may use is used up, whatever is left of its own budget.
    pub(super) async fn exhausts_key(&self) -> Result<(), Halt> {
        if self.journal.run().await.limit.is_none() {
            self.hits(StopReason::Budget, "key").await?;
        }
        self.finish_as(crate::canon::RunState::Incomplete, StopReason::Budget, None).await
    }

    /// Tells operators of a limit.
    pub(super) async fn notes_hit(&self, reason: StopReason) {
        self.notes_limit(reason, self.limit(reason)).await;
    }

    async fn notes_limit(&self, reason: StopReason, limit: &'static str) {
        let agent = self.definition.agent.as_str();
        let (event, outcome) = ("limit.hit", reason.name());
        let run = self.journal.run().await;
        let (run_id, step, version) = (&run.id, run.asks, run.created.version.as_str());
        let trace_id = run.trace_id();
        tracing::warn!(
            %run_id, agent, version, step, event, outcome, limit, trace_id,
            "a run has hit a limit"
        );
        drop(run);
        let metrics = &self.staff.gateway.telemetry.metrics;
        metrics.agent_limit_hits.with_label_values(&[agent, limit]).inc();
    }

    /// What a limit is of, as metrics have it.
    fn limit(&self, reason: StopReason) -> &'static str {
        match reason {
            StopReason::Budget => self.purse.scarcest(),
            reason => reason.limit(),
        }
    }

    /// Tells those who look on how it stands.
    pub(super) async fn shows(&self) {
        let run = self.journal.run().await;
        let report = report(&run);
        drop(run);
        self.live.report.send_replace(report);
    }

    /// Does `work` unless the run is to end first, or `until` passes.
    pub(super) async fn unless_ended<T>(
        &self,
        work: impl Future<Output = T>,
        until: Instant,
    ) -> Result<Outcome<T>, Halt> {
        let mut work = std::pin::pin!(work);
        let mut deserted = std::pin::pin!(self.deserted());
        let mut is_deserted = false;
        loop {
            // All of these are polled together: what came is noted by the same lock that the work
            // may wait for.
            tokio::select! {
                biased;
                done = &mut work => return Ok(Outcome::Done(done)),
                () = tokio::time::sleep_until(until) => return Ok(Outcome::Late),
                ends = self.await_end() => if ends? {
                    return Ok(Outcome::Cancelled);
                },
                left = &mut deserted, if !is_deserted => {
                    left?;
                    is_deserted = true;
                    self.live.poke();
                }
            }
        }
    }

    /// Waits until something comes; whether it is that the run must end.
    async fn await_end(&self) -> Result<bool, Halt> {
        self.live.poke.notified().await;
        if self.journal.is_lost() {
            return Err(Halt::LeaseLost);
        }
        let mut unheard = Unheard(Some(&self.live.poked));
        self.take_signals().await?;
        unheard.0 = None;
        let run = self.journal.run().await;
        Ok(run.is_called_off())
    }

    /// Notes that its client has left, when it has.
    async fn deserted(&self) -> Result<(), Halt> {
        if !self.live.leaves {
            return std::future::pending().await;
        }
        self.live.voice.tape().deserted().await;
        let reason = Some("its client has left".to_owned());
        let asked = Event::CancelAsked { by: "client".to_owned(), reason, after_step: false };
        self.journal.append(vec![asked]).await
    }

    /// Has another model of the route answer, once, where what this one says cannot be mended.
    /// False where there is none.
    pub(super) async fn asks_other(&self, note: Option<Event>) -> Result<bool, Halt> {
        let run = self.journal.run().await;
        let gateway = &self.staff.gateway;
        let has_other =
            |it: &String| run.member().is_some_and(|member| gateway.leads_past(&member.route, it));
        let from = run.answered_by.clone().filter(|_| run.avoided.is_none()).filter(has_other);
        let (call, level) = (run.asks, run.fallback_level + 1);
        drop(run);
        let Some(from) = from else { return Ok(false) };
        let outcome = StopReason::InvalidOutput.name().to_owned();
        let passed = Event::Fallback { call, level, from, outcome };
        self.journal.append(note.into_iter().chain([passed]).collect()).await.map(|()| true)
    }

    /// Makes the next question fit: the question, what it comes to, or why that cannot be. Where
    /// nothing makes it fit, another route may be able to read more.
    pub(super) async fn fit(&self, tools: bool) -> Result<Result<Fitted, StopReason>, Halt> {
        let run = self.journal.run().await;
        let Some(member) = run.member() else { return Ok(Err(StopReason::Internal)) };
        let routes: Vec<String> =
            std::iter::once(&member.route).chain(&member.context.overflow).cloned().collect();
        // Each was made shorter once already.
        let gave_up = |route: &String| run.overflowed.get(route).is_some_and(|it| it.times > 1);
        let routes: Vec<String> = routes.into_iter().filter(|route| !gave_up(route)).collect();
        drop(run);
        for route in routes {
            if let Some(fitted) = Box::pin(self.fit_for(&route, tools)).await? {
                return Ok(Ok(fitted));
            }
        }
        Ok(Err(StopReason::ContextOverflow))
    }

    async fn fit_for(&self, route: &str, tools: bool) -> Result<Option<Fitted>, Halt> {
        let (mut place, mut unpaid) = (0, None);
        while let Some(cut) = Cut::ALL.get(place) {
            let run = self.journal.run().await;
            let Some(member) = run.member() else { return Ok(None) };
            let terms = &member.context;
            let known = self.known_of(route);
            let window = [terms.window, known.window].into_iter().flatten().min();
            let room = Room::of(terms, window, run.overflowed.get(route).map(|it| it.tokens));
            // There is to be a last word, however much its results have to say.
            let paid = if tools { None } else { self.purse.longest_question(&known) };
            let room = Room { paid, ..room };
            let mut request = context::question(&run, tools, *cut, room);
            route.clone_into(&mut request.model);
            let withheld = self.withheld(member);
            request.tools.retain(
                |tool| !matches!(tool, Tool::Function { name, .. } if withheld.contains(&&**name)),
            );
            if request.tools.is_empty() {
                request.tool_choice = None;
            }
            let forecast = self.staff.gateway.forecast(&self.caller, &request);
            let fits = cut.fits(room, forecast.input_tokens);
            let untold = cut.untold(&run).filter(|_| terms.summariser.is_some());
            drop(run);
            match untold {
                _ if !fits => place += 1,
                _ if !room.pays(forecast.input_tokens) => {
                    (place, unpaid) = (place + 1, Some(Fitted { request, forecast, window }));
                }
                // What it leaves out is told in short, and with that it may not fit any more.
                Some(through) if Box::pin(self.summarise(through)).await? => place = 0,
                _ => return Ok(Some(Fitted { request, forecast, window })),
            }
        }
        Ok(unpaid)
    }

    /// What the tools are called that the key of the run may not use: models are not shown them.
    pub(super) fn withheld<'a>(&self, member: &'a Member) -> Vec<&'a str> {
        let tools = member.tools.iter().filter(|tool| !tool.asks_user);
        let withheld = tools.filter(|tool| !self.may_use(tool));
        withheld.map(|tool| tool.alias.as_str()).collect()
    }

    /// Whether the key of the run may use a tool.
    pub(super) fn may_use(&self, tool: &ToolDefinition) -> bool {
        tool.is_delegate() || self.caller.may_use_tool(&tool.name)
    }

    /// How much the models of a route can read, and what that costs.
    pub(super) fn known_of(&self, route: &str) -> Forecast {
        let asked = ChatRequest { model: route.to_owned(), ..ChatRequest::default() };
        self.staff.gateway.forecast(&self.caller, &asked)
    }
}

/// How a run stands, for its client.
pub(super) fn report(run: &Run) -> Report {
    let spent = run.spent();
    Report {
        state: run.state,
        reason: run.reason.map(StopReason::name),
        steps: run.asks,
        model_calls: spent.model_calls,
        tool_calls: spent.tool_calls,
        usage: spent.usage,
        cost: Some(crate::canon::Money::from_nanos(spent.cost)),
        approvals: super::view::pending(run),
        degraded: run.degraded,
        confidence: run.confidence,
        degraded_tools: run.degraded_tools.iter().cloned().collect(),
        fallback_level: run.fallback_level,
        recalled: run.is_recalled(),
    }
}

/// When this step must be over, at the latest when the run must.
pub(super) fn until(run: &Run, step: Duration) -> Instant {
    let left = run.deadline(now()).saturating_sub(now());
    Instant::now() + step.min(Duration::from_millis(left))
}
