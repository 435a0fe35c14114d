//! A run as its journal tells it, and what is to be done next. Pure: no clock, no chance, no I/O.
//! The same entries always make the same state.

mod apply;
mod heard;
mod next;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub(in crate::agent) use self::apply::{result_of, sureness};
pub use self::next::{Ending, Step};
use super::definition::{Definition, Member};
use super::event::{Asking, CallError, Ceiling, Created, Event, Requested, Spent};
use super::people::approval_hash;
use super::wants::changed_key;
use crate::canon::{
    Content, Effect, FinishReason, Format, Message, Part, RunId, RunState, StopReason, ToolResult,
    Usage,
};
use crate::config::StreamMode;
use crate::store::runs::Totals;

/// A run at one moment.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each so or not")]
#[derive(Debug, Clone)]
pub struct Run {
    pub id: RunId,
    pub created: Created,
    pub definition: Arc<Definition>,
    /// The number of its last entry.
    pub seq: u64,
    pub state: RunState,
    pub reason: Option<StopReason>,
    /// What is to be said of its end.
    pub message: Option<String>,
    pub started: Option<u64>,
    pub finished: Option<u64>,
    /// Since when nothing was to be done, and how long that was before, in milliseconds.
    pub waiting_since: Option<u64>,
    pub waited: u64,
    /// Who has the conversation.
    pub active: String,
    /// All that was said, earlier turns of the session included.
    pub transcript: Vec<Message>,
    /// How much of it is from earlier turns.
    pub earlier: usize,
    /// What stands for the messages before this one.
    pub compacted: Option<(usize, String)>,
    /// What is to be done, if that was planned.
    pub plan: Option<Vec<String>>,
    /// Routes whose models could not read what they were asked.
    pub overflowed: BTreeMap<String, Overflow>,
    /// Calls of models that were begun.
    pub asks: u32,
    /// A model that is being asked, or was when the process ended.
    pub open_ask: Option<Asking>,
    /// How often in a row a model was asked in vain, and the call that is made again.
    pub failures: u32,
    pub retry: Option<u32>,
    /// Before when whoever failed last is called in vain, where that is known.
    pub callable_at: Option<u64>,
    /// Calls whose repetition was remarked on.
    pub remarked: BTreeSet<String>,
    /// A person has the last word, about these calls.
    pub escalated: Option<Escalation>,
    pub escalated_calls: BTreeSet<String>,
    /// A person has said it.
    pub settled_by_human: bool,
    /// What the last answer wants done, in its order.
    pub calls: Vec<Call>,
    pub answers: u32,
    /// Some call of a model was not answered from what is remembered, or another agent had a part.
    pub asked_anew: bool,
    /// Who gave the last one, and whose are of no use here, as `provider/model`.
    pub answered_by: Option<String>,
    pub avoided: Option<String>,
    /// How the last answer ended.
    pub finish: Option<FinishReason>,
    /// The last answer was given without tools because a limit was hit.
    pub is_last: bool,
    pub tool_calls: u32,
    /// Answers and calls of tools in that part of its journal which is another run's.
    pub(super) taken_over: (u32, u32),
    /// Of each tool, those that were made: none that was refused or came from what is remembered.
    pub tool_uses: BTreeMap<String, u32>,
    /// How often the same was called with the same arguments.
    pub repeated: BTreeMap<String, u32>,
    pub bytes: u64,
    pub usage: Usage,
    pub cost: u64,
    /// What those have used that it has begun, as far as it knows.
    pub below: BTreeMap<RunId, Spent>,
    /// The work at it that is under way, or was last.
    pub stretch: Option<Stretch>,
    pub handoffs: u32,
    pub repairs: u32,
    /// What a person has let pass for the rest of the run, by tool: by which approval, and who.
    pub remembered: BTreeMap<String, (String, String)>,
    /// So many turns in a row wanted nothing that could be done, for their arguments were wrong.
    pub malformed: u32,
    /// What came of the calls of this turn: some arguments were wrong, some call was well formed.
    pub had_wrong: bool,
    pub had_right: bool,
    /// A call of this turn that was to change something has failed for good.
    pub broke: bool,
    /// How often its user was asked in vain.
    pub questions: u32,
    pub limit: Option<StopReason>,
    /// The least sure it was.
    pub confidence: Option<u32>,
    pub degraded: bool,
    pub degraded_tools: BTreeSet<String>,
    pub fallback_level: u32,
    pub paused: bool,
    pub cancel: Option<Cancel>,
    /// What can be taken back, in the order in which it was done.
    pub undoable: Vec<Undoable>,
}

/// Work at a run, from its beginning or from where it was taken up to where it was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The number of its first entry.
    pub seq: u64,
    pub from: u64,
    /// The one before it.
    pub before: Option<u64>,
    /// What had been used by then.
    pub usage: Usage,
}

/// That a person is to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    pub reason: String,
    /// The number of the first entry that says so.
    pub seq: u64,
    pub until: Option<u64>,
}

/// That a question was too long for its models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// How often since they have answered.
    pub times: u32,
    /// By our estimate; what has so many tokens is too long.
    pub tokens: u64,
}

/// Something that the model wants done.
#[derive(Debug, Clone)]
pub struct Call {
    pub request: Requested,
    pub stage: Stage,
    /// When it was begun last.
    pub began: Option<u64>,
    /// It is among the uses of its tool.
    pub used: bool,
    /// What a person was asked for it.
    pub approval: Option<String>,
    /// A person has put in other arguments.
    pub edited: bool,
    /// The digest of what a person has let pass.
    pub allowed: Option<String>,
    /// It was made before, and nobody knew what became of it.
    pub in_doubt: bool,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    New,
    /// A person must let it pass.
    Pending {
        approval: String,
        hash: String,
        expires_at: u64,
    },
    /// A person has.
    Approved {
        hash: String,
    },
    /// It may have happened.
    Began,
    /// A person must say what became of it; `seq`: the entry that tells so.
    Unknown {
        seq: u64,
    },
    /// A person must answer first.
    Asking {
        request: String,
        message: String,
        schema: Option<Value>,
        /// Arguments that are missing, which the answer has.
        fills: Vec<String>,
        expires_at: u64,
    },
    /// It was answered, and can go on.
    Answered {
        values: Value,
    },
    /// Another run does it.
    Child {
        run: RunId,
    },
    /// It has its result.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    pub by: String,
    pub reason: Option<String>,
    pub after_step: bool,
}

/// A call that was done and can be taken back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Undoable {
    pub id: String,
    pub tool: String,
    pub args: Value,
    pub key: String,
    /// Another run has done it, and can take back what it has done.
    pub child: Option<RunId>,
    pub began: bool,
    pub over: bool,
    /// It could not be taken back.
    pub failed: bool,
}

// === impl Call ===

impl Call {
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.stage, Stage::Unknown { .. })
    }

    /// What stands in the place of its result when its run has ended before it.
    fn left(&self) -> CallError {
        let is_begun = self.in_doubt || self.is_unknown() || self.stage == Stage::Began;
        if is_begun && self.request.effect != Effect::Read {
            return CallError::unknown_outcome();
        }
        CallError::new("cancelled", "The run ended before this was done.")
    }

    /// With other arguments it is another call, and has a key of its own.
    fn change(&mut self, args: Value) {
        if args != self.request.args {
            self.request.key = changed_key(&self.request.key, &args);
            self.request.args = args;
        }
    }
}

// === impl Run ===

impl Run {
    /// A run of which nothing but the beginning is known. `history`: what was said in the session
    /// before.
    pub fn new(
        id: RunId,
        created: Created,
        definition: Arc<Definition>,
        history: Vec<Message>,
    ) -> Self {
        Self {
            id,
            earlier: history.len(),
            transcript: history.into_iter().chain(created.messages.iter().cloned()).collect(),
            created,
            active: definition.agent.clone(),
            degraded_tools: definition.missing(),
            definition,
            seq: 1,
            state: RunState::Queued,
            reason: None,
            message: None,
            started: None,
            finished: None,
            waiting_since: None,
            waited: 0,
            compacted: None,
            plan: None,
            overflowed: BTreeMap::new(),
            asks: 0,
            open_ask: None,
            failures: 0,
            retry: None,
            callable_at: None,
            remarked: BTreeSet::new(),
            escalated: None,
            escalated_calls: BTreeSet::new(),
            settled_by_human: false,
            calls: Vec::new(),
            answers: 0,
            asked_anew: false,
            answered_by: None,
            avoided: None,
            finish: None,
            is_last: false,
            tool_calls: 0,
            taken_over: (0, 0),
            tool_uses: BTreeMap::new(),
            repeated: BTreeMap::new(),
            bytes: 0,
            usage: Usage::default(),
            cost: 0,
            below: BTreeMap::new(),
            stretch: None,
            handoffs: 0,
            repairs: 0,
            remembered: BTreeMap::new(),
            malformed: 0,
            had_wrong: false,
            had_right: false,
            broke: false,
            questions: 0,
            limit: None,
            confidence: None,
            degraded: false,
            fallback_level: 0,
            paused: false,
            cancel: None,
            undoable: Vec::new(),
        }
    }

    /// Who has the conversation. A definition always has the agent itself.
    pub fn member(&self) -> Option<&Member> {
        self.definition.member(&self.active)
    }

    /// What its answer must fit: as the agent demands that has the conversation, or else the one
    /// that was asked.
    pub fn output_schema(&self) -> Option<&Value> {
        let members = [self.member(), self.definition.root()];
        members.into_iter().flatten().find_map(|member| member.output_schema.as_ref())
    }

    /// Who goes on when whoever has the conversation cannot.
    pub fn successor(&self) -> Option<&str> {
        let fallback = self.member()?.fallback.as_deref();
        fallback.filter(|name| *name != self.active)
    }

    /// Whether all that models have said in it was remembered.
    pub fn is_recalled(&self) -> bool {
        self.answers > 0 && !self.asked_anew
    }

    /// It is to end at once.
    pub fn is_called_off(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| !cancel.after_step)
    }

    /// It plays another one again, without what must not happen twice.
    pub fn only_plays(&self) -> bool {
        self.created.replay_of.is_some() && !self.created.effects
    }

    pub fn call(&self, id: &str) -> Option<&Call> {
        self.calls.iter().find(|call| call.request.id == id)
    }

    /// What the model calls the tool of a call that has its result, of whichever turn.
    pub fn alias_of(&self, id: &str) -> Option<&str> {
        let parts = self.transcript.iter().flat_map(|message| &message.parts);
        parts.rev().find_map(|part| match &part.content {
            Content::ToolResult(result) if result.id == id => result.name.as_deref(),
            _ => None,
        })
    }

    /// The digest by which a call of this tool with these arguments is let pass.
    pub fn hash_of(&self, tool: &str, args: &Value) -> Option<String> {
        let tool = self.definition.members.values().find_map(|member| member.tool(tool))?;
        Some(approval_hash(tool, args))
    }

    /// Whether an entry says something that is not known yet: of a call only the first outcome is
    /// one.
    pub fn awaits(&self, event: &Event) -> bool {
        match event {
            Event::Done { id, .. } | Event::Failed { id, .. } => {
                self.call(id).is_some_and(|call| call.stage != Stage::Over)
            }
            Event::Unknown { id } => {
                let known = |call: &Call| matches!(call.stage, Stage::Over | Stage::Unknown { .. });
                self.call(id).is_some_and(|call| !known(call))
            }
            _ => true,
        }
    }

    fn call_mut(&mut self, id: &str) -> Option<&mut Call> {
        self.calls.iter_mut().find(|call| call.request.id == id)
    }

    /// What it has used, with all that it has begun.
    pub fn spent(&self) -> Spent {
        let model_calls = self.answers.saturating_sub(self.taken_over.0);
        let tool_calls = self.own_tool_calls();
        let own = Spent { usage: self.usage, cost: self.cost, model_calls, tool_calls };
        self.below.values().fold(own, |mut all, below| {
            all += *below;
            all
        })
    }

    /// What was used for that part of its journal which is another run's.
    pub fn spent_before(&self) -> Spent {
        self.created.source.as_ref().map(|source| source.spent).unwrap_or_default()
    }

    fn own_tool_calls(&self) -> u32 {
        self.tool_calls.saturating_sub(self.taken_over.1)
    }

    /// The same without what others have used.
    pub fn totals(&self) -> Totals {
        Totals {
            steps: self.asks,
            tool_calls: self.own_tool_calls(),
            tokens_in: self.usage.input_total(),
            tokens_out: self.usage.output,
            cost: self.cost,
            bytes: self.bytes,
        }
    }

    /// Milliseconds that it has worked, without what it waited for people.
    pub fn worked(&self, now: u64) -> u64 {
        let Some(started) = self.started else { return 0 };
        let waiting = self.waiting_since.map_or(0, |since| now.saturating_sub(since));
        now.saturating_sub(started).saturating_sub(self.waited + waiting)
    }

    /// When its time is over, if it does not wait.
    pub fn deadline(&self, now: u64) -> u64 {
        let limit = self.created.budget.and_then(|budget| budget.seconds).map(|it| it * 1000);
        let own = u64::try_from(self.definition.limits.timeout.as_millis()).unwrap_or(u64::MAX);
        let limit = limit.map_or(own, |limit| limit.min(own));
        now.saturating_add(limit.saturating_sub(self.worked(now)))
    }

    /// How many calls of models it may make.
    pub fn most_steps(&self) -> u32 {
        let lower = self.created.budget.and_then(|budget| budget.steps);
        let limits = &self.definition;
        let own = limits.limits.steps.min(limits.budget.model_calls);
        lower.map_or(own, |lower| lower.min(own)).max(1)
    }

    /// What a stream of it shows.
    pub fn shown(&self) -> StreamMode {
        self.created.wishes.stream.unwrap_or(self.definition.stream)
    }

    /// Whether a stream of it has its answer only, and not what leads to it.
    pub fn tells_end_only(&self) -> bool {
        self.shown() == StreamMode::Final || self.demands()
    }

    /// Whether an answer of it may be none, for what its agent or its client demands of one.
    pub fn demands(&self) -> bool {
        self.definition.demands() || self.created.wishes.format != Format::Text
    }

    pub fn most_tool_calls(&self) -> u32 {
        let own = self.definition.budget.tool_calls;
        self.ceiling().and_then(|lower| lower.tool_calls).map_or(own, |lower| lower.min(own))
    }

    /// What its client lets it and all below it use, where that is less than its own budget.
    pub fn ceiling(&self) -> Option<Ceiling> {
        let Some(wished) = self.created.wishes.max_tool_calls else { return self.created.budget };
        let lower = self.created.budget.unwrap_or_default();
        let tool_calls = lower.tool_calls.map_or(wished, |lower| lower.min(wished));
        Some(Ceiling { tool_calls: Some(tool_calls), ..lower })
    }

    /// The text of its last answer, or of the last that said anything. What is not what the schema
    /// demands is no answer.
    pub fn answer(&self) -> Vec<Part> {
        if self.reason == Some(StopReason::InvalidOutput) {
            return Vec::new();
        }
        let own = self.transcript.iter().skip(self.earlier).rev();
        let said = |message: &&Message| {
            message.role == crate::canon::Role::Assistant
                && message.parts.iter().any(|part| part.as_text().is_some_and(|it| !it.is_empty()))
        };
        let last = own.into_iter().find(said);
        let shown = |part: &&Part| matches!(part.content, Content::Text { .. } | Content::Media(_));
        last.map(|message| message.parts.iter().filter(shown).cloned().collect())
            .unwrap_or_default()
    }

    /// How often the tool of a call was used but for it, with what is wanted of it before that.
    pub fn uses_before(&self, request: &Requested) -> u32 {
        let used = self.tool_uses.get(&request.tool).copied().unwrap_or_default();
        let own = u32::from(self.call(&request.id).is_some_and(|call| call.used));
        let before = self.calls.iter().take_while(|call| call.request.id != request.id);
        let may_come = |call: &&Call| {
            call.request.tool == request.tool && !call.used && call.stage != Stage::Over
        };
        let coming = u32::try_from(before.filter(may_come).count()).unwrap_or(u32::MAX);
        (used - own.min(used)).saturating_add(coming)
    }

    /// How often the same call was made, if that is looked at.
    pub fn repetitions(&self, request: &Requested) -> u32 {
        let tool = self.member().and_then(|member| member.tool(&request.tool));
        if tool.is_some_and(|tool| tool.repeatable) {
            return 0;
        }
        let same = apply::fingerprint(&request.alias, &request.args);
        self.repeated.get(&same).copied().unwrap_or_default()
    }

    /// What was said, with a word for every call that has no result.
    pub fn closed(mut self) -> Vec<Message> {
        let open: Vec<(String, CallError)> = self
            .calls
            .iter()
            .filter(|call| call.stage != Stage::Over)
            .map(|call| (call.request.id.clone(), call.left()))
            .collect();
        for (id, error) in open {
            self.settle(&id, vec![Part::text(error.text())], true);
        }
        self.transcript
    }

    /// Where the user's own last words stand.
    pub fn asked_at(&self) -> Option<usize> {
        let own = &self.created.messages;
        let last = own.iter().rposition(|message| message.role == crate::canon::Role::User);
        last.map(|place| self.earlier + place)
    }

    /// Puts the result of a call where the model reads it.
    fn settle(&mut self, id: &str, parts: Vec<Part>, is_error: bool) {
        let Some(call) = self.call_mut(id).filter(|call| call.stage != Stage::Over) else { return };
        call.stage = Stage::Over;
        let result = ToolResult {
            id: id.to_owned(),
            name: Some(call.request.alias.clone()),
            parts,
            is_error,
            custom: false,
        };
        // In the order of the calls, whichever ends first, and before all that was said meanwhile.
        let order: Vec<&str> = self.calls.iter().map(|call| call.request.id.as_str()).collect();
        let rank = |id: &str| order.iter().position(|known| *known == id).unwrap_or(usize::MAX);
        let (own, from) = (rank(id), self.results_from());
        let before = |it: &&Message| result_of(it).is_some_and(|other| rank(&other.id) < own);
        let at = from + self.transcript[from..].iter().take_while(before).count();
        let message =
            Message::new(crate::canon::Role::Tool, vec![Part::new(Content::ToolResult(result))]);
        self.transcript.insert(at, message);
    }

    /// Behind the last answer of a model.
    fn results_from(&self) -> usize {
        let last = self
            .transcript
            .iter()
            .rposition(|message| message.role == crate::canon::Role::Assistant);
        last.map_or(self.transcript.len(), |place| place + 1)
    }
}

#[cfg(test)]
pub(in crate::agent) mod tests;
