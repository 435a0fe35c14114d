//! What a trace shows of a run, cut from its entries: a collector is told the same as whoever asks
//! for it later.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::close::since;
use super::definition::ToolDefinition;
use super::event::{Asking, Created, Doer, Event};
use super::journal::Halt;
use super::run::{Call, Run, Step, Stretch};
use super::staff::Staff;
use crate::canon::{Money, Part, RunId, RunState, StopReason, Trace, Usage, span_below};
use crate::config::{Capture, ToolKind};
use crate::guard::Redactor;
use crate::store::hex;
use crate::store::runs::{EventRow, RunFilter, RunRow};
use crate::telemetry::{Fact, RunSpan, RunStep, Told};
use crate::tool::{Toolbox, Wire, canonical};

/// So many bytes of arguments and of a result are shown.
const LONGEST: usize = 16 * 1024;

/// Runs of one tree.
const MOST_CHILDREN: u32 = 1000;

/// Cuts spans.
pub(super) struct Cutter<'a> {
    pub(super) toolbox: &'a Toolbox,
    pub(super) capture: Capture,
    /// Nobody else tells of models, and of the ends of stretches that are long over.
    pub(super) is_all: bool,
}

/// What became of a call of a tool.
#[derive(Default)]
struct Came<'a> {
    error: Option<&'a str>,
    attempts: Option<u32>,
    cached: bool,
    parts: &'a [Part],
    wire: Option<&'a Wire>,
}

/// The trace that a run belongs to, and who called it there.
pub(super) fn trace_of(id: RunId, created: &Created) -> Trace {
    let given = created.trace.as_deref().and_then(|text| {
        let (parent, state) = match text.split_once(' ') {
            Some((parent, state)) => (parent, Some(state)),
            None => (text, None),
        };
        Trace::read(parent, state)
    });
    match given {
        Some(trace) => Trace { is_remote: false, ..trace },
        // As that of a call: one id leads to the other.
        None => Trace { id: id.bits(), parent: 0, is_remote: false, sampled: None, state: None },
    }
}

/// As a journal keeps it: the parent as W3C Trace Context spells it, and behind a space the state.
pub(super) fn written(trace: &Trace) -> String {
    let parent = trace.parent_of_next(trace.parent, trace.sampled == Some(true));
    let parent = String::from_utf8_lossy(&parent);
    match &trace.state {
        Some(state) => format!("{parent} {state}"),
        None => parent.into_owned(),
    }
}

impl Staff {
    /// The spans of a run and of all that it began, as its journal tells them.
    pub(super) async fn spans(&self, row: &RunRow) -> Result<Vec<RunSpan>, Halt> {
        let mut spans = self.own_spans(row).await?;
        if row.id != row.root {
            return Ok(spans);
        }
        let below = RunFilter { root: Some(row.root), ..RunFilter::default() };
        let below = self.gateway.store().runs(below, MOST_CHILDREN).await;
        let below = below.map_err(|failure| Halt::Store(failure.to_string()))?;
        for child in below.iter().filter(|child| child.id != row.id) {
            spans.extend(self.own_spans(child).await?);
        }
        Ok(spans)
    }

    async fn own_spans(&self, row: &RunRow) -> Result<Vec<RunSpan>, Halt> {
        let rows = self.rows(row.id).await?;
        let read = |entry: &EventRow| serde_json::from_str::<Event>(&entry.data).ok();
        let Some(Event::Created(created)) = rows.first().and_then(read) else {
            return Ok(Vec::new());
        };
        let definition = self.definition(&created.definition).await?;
        let mut run = Run::new(row.id, *created, definition, Vec::new());
        let traces = self.gateway.telemetry.traces.as_ref();
        let capture = traces.map_or(Capture::None, |traces| traces.capture());
        let toolbox = self.toolbox();
        let cutter = Cutter { toolbox: &toolbox, capture, is_all: true };
        let (mut spans, mut last) = (Vec::new(), row.created_at);
        for entry in rows.iter().skip(1) {
            // What a later version has written is left out, and not the rest with it.
            let Some(event) = read(entry) else { continue };
            spans.extend(cutter.cuts(&run, &event, (last, entry.at)));
            run.apply(&event);
            last = entry.at;
        }
        if run.finished.is_none() {
            spans.extend(Cutter::left(&run, row.state, last));
        }
        Ok(spans)
    }
}

// === impl Run ===

impl Run {
    /// The span of the work that is under way.
    pub(super) fn span(&self) -> u64 {
        self.stretch.map_or_else(|| self.id.spread(), |stretch| self.span_of(stretch.seq))
    }

    /// As logs and collectors spell it.
    pub(super) fn trace_id(&self) -> String {
        format!("{:032x}", trace_of(self.id, &self.created).id)
    }

    fn span_of(&self, seq: u64) -> u64 {
        span_below(self.id.spread(), seq)
    }

    /// The span of the plan that is being made.
    pub(super) fn span_of_plan(&self) -> u64 {
        span_below(self.span(), 1 << 50)
    }

    /// The span of a call of a tool that was begun.
    pub(super) fn span_of_call(&self, id: &str) -> u64 {
        let call = self.call(id);
        let number = call.map_or(0, |call| u64::from(call.request.number));
        let began = call.and_then(|call| call.began).unwrap_or_default();
        span_below(self.span(), number ^ began.rotate_left(16))
    }

    fn tool_definition(&self, name: &str) -> Option<&ToolDefinition> {
        self.definition.members.values().find_map(|member| member.tool(name))
    }

    /// It was let go of as it should be.
    fn is_at_rest(&self) -> Option<RunState> {
        match self.next(0) {
            Step::Wait { state, .. } => Some(state),
            Step::End(ending) if self.finished.is_some() => Some(ending.state),
            _ => None,
        }
    }
}

// === impl Cutter ===

impl Cutter<'_> {
    /// What comes to its end by an entry that the run is about to take in. `times`: when the entry
    /// before it was made, and this one.
    pub(super) fn cuts(
        &self,
        run: &Run,
        event: &Event,
        times: (u64, u64),
    ) -> impl Iterator<Item = RunSpan> {
        self.cut(run, event, times).into_iter().chain(Self::planned(run, event, times.1))
    }

    fn cut(&self, run: &Run, event: &Event, times: (u64, u64)) -> Option<RunSpan> {
        let (last, at) = times;
        match event {
            Event::Started { .. } | Event::Resumed { .. } => self.taken_up(run, last),
            Event::Done { id, cached, attempts, parts, wire, .. } => {
                let (attempts, wire) = (Some(*attempts), wire.as_deref());
                let came = Came { attempts, cached: *cached, parts, wire, ..Came::default() };
                self.tool(run, id, at, &came)
            }
            Event::Failed { id, error, attempts, wire, .. } => {
                let (error, attempts) = (Some(error.kind.as_str()), Some(*attempts));
                let wire = wire.as_deref();
                self.tool(run, id, at, &Came { error, attempts, wire, ..Came::default() })
            }
            Event::Refused { id, error } => {
                let error = Some(error.kind.as_str());
                self.tool(run, id, at, &Came { error, ..Came::default() })
            }
            Event::Unknown { id } => {
                let error = Some("unknown_outcome");
                self.tool(run, id, at, &Came { error, ..Came::default() })
            }
            Event::Rejected { id, expired, .. } => {
                let error = Some(if *expired { "expired" } else { "denied" });
                self.tool(run, id, at, &Came { error, ..Came::default() })
            }
            Event::Handoff { id, .. } => self.tool(run, id, at, &Came::default()),
            // To ask is all that such a call does.
            Event::InputAsked { id, .. }
                if run.call(id).is_some_and(|call| call.request.doer == Doer::User) =>
            {
                self.tool(run, id, at, &Came::default())
            }
            Event::UndoDone { id, error } => {
                let error = error.as_ref().map(|error| error.kind.as_str());
                Self::undone(run, id, error, (last, at))
            }
            Event::Answered { .. }
            | Event::AskFailed { .. }
            | Event::Planned { .. }
            | Event::Compacted { .. }
                if self.is_all =>
            {
                Self::model(run, event, at)
            }
            Event::Ended { state, reason, .. } => {
                let ended = (*state, *reason);
                run.stretch.map(|stretch| Self::stretch(run, stretch, ended, at))
            }
            _ => None,
        }
    }

    /// The plan, made or not.
    fn planned(run: &Run, event: &Event, at: u64) -> Option<RunSpan> {
        let (steps, error) = match event {
            Event::Planned { steps, .. } => (steps.len(), steps.is_empty().then_some("no_plan")),
            // Nobody makes it any more.
            Event::AskFailed { code, .. }
                if run.cancel.is_some() && run.open_ask.as_ref().is_some_and(Asking::is_plan) =>
            {
                (0, Some(code.as_str()))
            }
            _ => return None,
        };
        let agent = &run.created.agent;
        let facts = vec![
            (Fact::AgentName, Told::Text(agent.clone())),
            (Fact::Run, Told::Text(run.id.to_string())),
            (Fact::PlanSteps, Told::Whole(steps as u64)),
        ];
        let from = run.stretch.map_or(at, |stretch| stretch.from);
        Some(RunSpan {
            of: agent.clone(),
            error: error.map(str::to_owned),
            ..Self::below(run, RunStep::Plan, run.span_of_plan(), (from, at), facts)
        })
    }

    /// The work that is left with the run in this state.
    pub(super) fn left(run: &Run, state: RunState, at: u64) -> Option<RunSpan> {
        run.stretch.map(|stretch| Self::stretch(run, stretch, (state, None), at))
    }

    /// Somebody goes on with a run. Who was at work before may not have come to tell of it.
    fn taken_up(&self, run: &Run, last: u64) -> Option<RunSpan> {
        let stretch = run.stretch?;
        let created = &run.created;
        let is_made = created.replay_of.is_some() || created.forked_from.is_some();
        if run.finished.is_some() || created.compensates || (is_made && !self.is_all) {
            return None;
        }
        if let Some(state) = run.is_at_rest() {
            return self.is_all.then(|| Self::stretch(run, stretch, (state, None), last));
        }
        let span = Self::stretch(run, stretch, (RunState::Running, None), last);
        Some(RunSpan { error: Some("interrupted".to_owned()), ..span })
    }

    fn stretch(
        run: &Run,
        stretch: Stretch,
        (state, reason): (RunState, Option<StopReason>),
        at: u64,
    ) -> RunSpan {
        let (created, trace) = (&run.created, trace_of(run.id, &run.created));
        let member = run.definition.member(&created.agent);
        let text = |text: &str| Told::Text(text.to_owned());
        let output = if run.output_schema().is_some() { "json" } else { "text" };
        let mut facts = vec![
            (Fact::System, text("switchpoint")),
            (Fact::AgentName, text(&created.agent)),
            (Fact::AgentId, text(&format!("{}@{}", created.agent, created.version))),
            (Fact::AgentVersion, text(&created.version)),
            (Fact::OutputType, text(output)),
            (Fact::Run, text(&run.id.to_string())),
            (Fact::RunState, text(state.name())),
            (Fact::RunCost, Told::Fraction(Money::from_nanos(run.cost).usd())),
            (Fact::Steps, Told::Whole(run.asks.into())),
        ];
        let maybe = [
            (Fact::AgentDescription, member.map(|member| member.description.as_str())),
            (Fact::RequestModel, member.map(|member| member.route.as_str())),
            (Fact::Prompt, member.and_then(|member| member.prompt_version.as_deref())),
            (Fact::Conversation, created.session.as_deref()),
            (Fact::User, created.user.as_deref()),
            (Fact::Key, created.caller.get("key").and_then(Value::as_str)),
            (Fact::StopReason, reason.map(StopReason::name)),
        ];
        let said = maybe.into_iter().filter_map(|(fact, said)| Some((fact, said?)));
        facts.extend(said.filter(|(_, it)| !it.is_empty()).map(|(fact, it)| (fact, text(it))));
        if let Some(finish) = run.finish.filter(|_| state.is_over()) {
            facts.push((Fact::FinishReasons, Told::List(vec![finish.traced_as().to_owned()])));
        }
        // What it cost stands on the calls of models, so that a sum over spans counts nothing twice.
        facts.extend(used(&since(run.usage, stretch.usage), None));
        let failed = matches!(state, RunState::Failed | RunState::Expired);
        let why = reason.map_or_else(|| state.name(), StopReason::name);
        RunSpan {
            step: RunStep::Agent,
            of: created.agent.clone(),
            trace: trace.id,
            state: trace.state,
            id: run.span(),
            parent: trace.parent,
            link: stretch.before.map(|before| run.span_of(before)),
            from: stretch.from,
            to: at.max(stretch.from),
            facts,
            error: failed.then(|| why.to_owned()),
        }
    }

    /// A call of a tool, done or not.
    fn tool(&self, run: &Run, id: &str, at: u64, came: &Came<'_>) -> Option<RunSpan> {
        let call = run.call(id).filter(|call| !call.is_unknown())?;
        let request = &call.request;
        let text = |text: &str| Told::Text(text.to_owned());
        let mut facts = vec![
            (Fact::ToolName, text(&request.tool)),
            (Fact::ToolCall, text(&request.id)),
            (Fact::ToolType, text(self.sort(&request.tool))),
            (Fact::ToolEffect, text(request.effect.name())),
            (Fact::AgentName, text(&run.active)),
            (Fact::Run, text(&run.id.to_string())),
        ];
        if let Some(tool) = self.toolbox.get(&request.tool) {
            facts.push((Fact::ToolKind, text(tool.terms.kind.name())));
        }
        if let Some(definition) = run.tool_definition(&request.tool) {
            facts.push((Fact::ToolDescription, text(&definition.description)));
            facts.push((Fact::ToolVersion, text(&definition.version)));
        }
        facts.extend(call.approval.as_deref().map(|approval| (Fact::Approval, text(approval))));
        facts.extend(came.attempts.map(|made| (Fact::ToolAttempts, Told::Whole(made.into()))));
        if came.cached {
            facts.push((Fact::ToolCached, Told::Flag(true)));
        }
        facts.extend(self.went(&request.tool, came));
        facts.extend(self.shown(call, came));
        let from = call.began.filter(|began| Some(*began) >= run.stretch.map(|it| it.from));
        let from = from.or_else(|| call.began.and(run.stretch).map(|it| it.from)).unwrap_or(at);
        Some(RunSpan {
            of: request.tool.clone(),
            error: came.error.map(|kind| error_type(kind, came.wire)),
            ..Self::below(run, RunStep::Tool, run.span_of_call(id), (from, at), facts)
        })
    }

    /// How a tool of a server of MCP was called.
    fn went(&self, tool: &str, came: &Came<'_>) -> Vec<(Fact, Told)> {
        let tool = self.toolbox.get(tool);
        let is_mcp = tool.is_some_and(|tool| matches!(tool.terms.kind, ToolKind::Mcp(_)));
        if came.wire.is_none() && (!is_mcp || came.attempts.is_none() || came.cached) {
            return Vec::new();
        }
        let mut facts = vec![(Fact::McpMethod, Told::Text("tools/call".to_owned()))];
        let Some(wire) = came.wire else { return facts };
        let code = wire.code.map(|code| code.to_string());
        let said = [
            (Fact::McpProtocol, wire.protocol.as_deref()),
            (Fact::McpSession, wire.session.as_deref()),
            (Fact::RpcRequest, Some(wire.request.as_str()).filter(|id| !id.is_empty())),
            (Fact::RpcStatus, code.as_deref()),
            (Fact::Transport, Some(wire.transport.as_str())),
        ];
        let said = said.into_iter().filter_map(|(fact, said)| Some((fact, said?)));
        facts.extend(said.map(|(fact, said)| (fact, Told::Text(said.to_owned()))));
        facts
    }

    /// As OpenTelemetry sorts tools.
    fn sort(&self, tool: &str) -> &'static str {
        let kind = self.toolbox.get(tool).map(|tool| tool.terms.kind.name());
        match kind {
            Some("sql") => "datastore",
            Some("builtin") | None => "function",
            Some(_) => "extension",
        }
    }

    /// What was asked of a tool and what it gave, as far as the config lets it be shown.
    fn shown(&self, call: &Call, came: &Came<'_>) -> Vec<(Fact, Told)> {
        let args = || canonical(&call.request.args);
        let result = || came.parts.iter().filter_map(Part::as_text).collect::<String>();
        let digest = |text: String| Told::Text(hex(&Sha256::digest(text.as_bytes())));
        let cut = |mut text: String| {
            text.truncate(text.floor_char_boundary(LONGEST));
            Told::Text(text)
        };
        match self.capture {
            Capture::None => Vec::new(),
            Capture::Hashes => {
                vec![(Fact::ArgumentsHash, digest(args())), (Fact::ResultHash, digest(result()))]
            }
            Capture::Redacted => {
                let redactor = Redactor::default();
                let covered = |text: String| cut(redactor.redact(&text));
                vec![(Fact::ToolArguments, covered(args())), (Fact::ToolResult, covered(result()))]
            }
            Capture::Full => {
                vec![(Fact::ToolArguments, cut(args())), (Fact::ToolResult, cut(result()))]
            }
        }
    }

    fn undone(run: &Run, id: &str, error: Option<&str>, times: (u64, u64)) -> Option<RunSpan> {
        let undo = run.undoable.iter().find(|undo| undo.id == id)?;
        let span = span_below(run.span(), run.seq | 1 << 48);
        let text = |text: &str| Told::Text(text.to_owned());
        let facts = vec![(Fact::ToolName, text(&undo.tool)), (Fact::ToolCall, text(id))];
        Some(RunSpan {
            of: undo.tool.clone(),
            error: error.map(str::to_owned),
            ..Self::below(run, RunStep::Tool, span, times, facts)
        })
    }

    /// A call of a model, as far as a journal knows it.
    fn model(run: &Run, event: &Event, at: u64) -> Option<RunSpan> {
        let open = run.open_ask.as_ref()?;
        let mut facts = vec![(Fact::RequestModel, Told::Text(open.model.clone()))];
        let (id, error) = match event {
            Event::Answered {
                id,
                usage,
                cost,
                provider,
                model,
                fallback_level,
                cached,
                finish,
                ..
            } => {
                facts.push((Fact::System, Told::Text(provider.clone())));
                facts.push((Fact::ResponseModel, Told::Text(model.clone())));
                let finish = vec![finish.reason.traced_as().to_owned()];
                facts.push((Fact::FinishReasons, Told::List(finish)));
                facts.push((Fact::FallbackLevel, Told::Whole((*fallback_level).into())));
                if *cached {
                    facts.push((Fact::Cached, Told::Text("hit".to_owned())));
                }
                facts.extend(used(usage, *cost));
                (id, None)
            }
            Event::AskFailed { id, code, usage, cost, .. } => {
                facts.extend(used(usage, *cost));
                (id, Some(code.clone()))
            }
            Event::Planned { usage, cost, .. } | Event::Compacted { usage, cost, .. } => {
                facts.extend(used(usage, *cost));
                (&None, None)
            }
            _ => return None,
        };
        let parent = if open.is_plan() { run.span_of_plan() } else { run.span() };
        // The same as the call's own, where it has told of itself.
        let own = id.as_deref().and_then(crate::canon::CallId::parse);
        let other = || span_below(run.span(), u64::from(open.call) | 1 << 49);
        let span = own.map_or_else(other, crate::canon::CallId::span);
        let of = open.model.clone();
        let below = Self::below(run, RunStep::Model, span, (open.at, at), facts);
        Some(RunSpan { of, parent, error, ..below })
    }

    fn below(
        run: &Run,
        step: RunStep,
        id: u64,
        (from, to): (u64, u64),
        facts: Vec<(Fact, Told)>,
    ) -> RunSpan {
        let Trace { id: trace, state, .. } = trace_of(run.id, &run.created);
        let (parent, to) = (run.span(), to.max(from));
        let (of, link, error) = (String::new(), None, None);
        RunSpan { step, of, trace, state, id, parent, link, from, to, facts, error }
    }
}

/// What went wrong with a call of a tool, by its server's own word where it has said one.
fn error_type(kind: &str, wire: Option<&Wire>) -> String {
    match wire {
        Some(wire) if wire.is_error => "tool_error".to_owned(),
        Some(Wire { code: Some(code), .. }) => code.to_string(),
        _ => kind.to_owned(),
    }
}

fn used(usage: &Usage, cost: Option<u64>) -> Vec<(Fact, Told)> {
    let written = usage.cache_write + usage.cache_write_long;
    let mut facts = vec![
        (Fact::InputTokens, Told::Whole(usage.input_total())),
        (Fact::OutputTokens, Told::Whole(usage.output)),
    ];
    let some = [
        (Fact::CacheReadTokens, usage.cache_read),
        (Fact::CacheWriteTokens, written),
        (Fact::CacheCreationTokens, written),
        (Fact::ReasoningTokens, usage.reasoning),
    ];
    facts.extend(some.into_iter().filter(|(_, it)| *it > 0).map(|(f, it)| (f, Told::Whole(it))));
    let cost = cost.map(|cost| Told::Fraction(Money::from_nanos(cost).usd()));
    facts.extend(cost.map(|cost| (Fact::Cost, cost)));
    facts
}
