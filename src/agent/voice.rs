//! What a client hears of a run while it is at work: one answer, however many models spoke.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::cache::Tape;
use crate::canon::{
    Content, Delta, Dialect, Event, Finish, FinishReason, Foreign, Opening, Part, Start, ToolCall,
    Usage,
};
use crate::gateway::agents::GAP;

/// An answer that nobody follows is not held beyond so many bytes.
const LONGEST: usize = 16 << 20;

/// The one answer of a run, as its client follows it.
#[derive(Debug)]
pub(super) struct Voice {
    tape: Arc<Tape>,
    state: Mutex<State>,
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, each so or not")]
#[derive(Debug, Default)]
struct State {
    started: bool,
    /// Only the answer is told, and not what leads to it.
    only_final: bool,
    /// What was said in this turn, should it be the answer.
    held: Vec<Event>,
    /// A part of the turn is being told.
    open: bool,
    /// Some text has been told.
    told: bool,
    /// Some of it is what the model says in this turn.
    told_turn: bool,
    /// The next text is another turn's.
    breaks: bool,
    over: bool,
    flight: Flight,
}

/// The text of the turn that is being said, piece by piece, for those who read the journal along.
#[derive(Debug, Default)]
struct Flight {
    /// The entry of the journal that it comes behind.
    behind: u64,
    text: String,
    /// Where each piece ends.
    ends: Vec<usize>,
}

impl Voice {
    pub(super) fn new(only_final: bool) -> Self {
        let state = State { only_final, ..State::default() };
        Self { tape: Arc::default(), state: Mutex::new(state) }
    }

    pub(super) fn tape(&self) -> &Arc<Tape> {
        &self.tape
    }

    /// A turn of a model begins.
    pub(super) fn turn(&self, model: &str) {
        let mut state = self.state();
        if !state.started {
            state.started = true;
            let start = Start { model: model.to_owned(), ..Start::default() };
            self.push(vec![Event::Start(start)]);
        }
        state.held.clear();
        state.breaks = state.told;
    }

    /// What is said from here on is asked for by this entry of the journal.
    pub(super) fn takes_off(&self, behind: u64) {
        let mut state = self.state();
        state.flight = Flight { behind, ..Flight::default() };
        state.told_turn = false;
    }

    /// The pieces of the turn that is being said, from the one with this number on (the first is
    /// 1), if it was asked for by an entry up to `seen`.
    pub(super) fn in_flight(&self, seen: u64, from: usize) -> Vec<String> {
        let state = self.state();
        let flight = &state.flight;
        if flight.behind > seen {
            return Vec::new();
        }
        let begins = |number: usize| match number {
            0 => 0,
            _ => flight.ends.get(number - 1).copied().unwrap_or_default(),
        };
        let piece = |number: usize| flight.text.get(begins(number)..flight.ends[number]);
        let first = from.saturating_sub(1);
        (first..flight.ends.len()).filter_map(piece).map(str::to_owned).collect()
    }

    /// The model says something. Calls of tools and thoughts are not the client's.
    pub(super) fn hear(&self, event: &Event) {
        let mut state = self.state();
        let mut out = Vec::new();
        match event {
            Event::Open { part, .. } => {
                state.open = matches!(
                    part,
                    Opening::Text | Opening::Refusal | Opening::Media(_) | Opening::Audio { .. }
                );
                if state.open {
                    out.push(event.clone());
                }
            }
            Event::Delta { .. } if state.open => {
                if state.breaks && is_text(event) {
                    let delta = Delta::Text(GAP.to_owned());
                    out.push(Event::Delta { choice: 0, delta });
                    state.breaks = false;
                }
                state.flight.hear(event);
                out.push(event.clone());
            }
            Event::Close { .. } if state.open => {
                state.open = false;
                out.push(event.clone());
            }
            _ => {}
        }
        self.say(&mut state, out);
    }

    fn say(&self, state: &mut State, events: Vec<Event>) {
        if state.only_final {
            state.held.extend(events);
            return;
        }
        state.tells(&events);
        self.push(events);
    }

    /// The turn is over, and is the answer or is not; or it broke off, and is begun anew.
    pub(super) fn turn_over(&self, is_answer: bool) {
        let mut state = self.state();
        if state.open {
            state.open = false;
            self.say(&mut state, vec![Event::Close { choice: 0 }]);
        }
        let held = std::mem::take(&mut state.held);
        state.flight = Flight::default();
        if is_answer {
            state.tells(&held);
            self.push(held);
        }
    }

    /// Something that is no part of the answer.
    pub(super) fn aside(&self, text: String) {
        self.push(vec![Event::Aside(text)]);
    }

    /// A whole text, as the gateway's own word.
    pub(super) fn text(&self, model: &str, text: &str) {
        self.turn(model);
        let mut state = self.state();
        let breaks = std::mem::take(&mut state.breaks);
        let text = if breaks { format!("{GAP}{text}") } else { text.to_owned() };
        state.told = true;
        self.push(vec![
            Event::Open { choice: 0, part: Opening::Text },
            Event::Delta { choice: 0, delta: Delta::Text(text) },
            Event::Close { choice: 0 },
        ]);
    }

    /// Parts that were said before, or elsewhere.
    pub(super) fn parts(&self, model: &str, parts: &[Part]) {
        for part in parts {
            if let Content::Text { text, .. } = &part.content {
                self.text(model, text);
            }
        }
    }

    /// Calls that the client is to make.
    pub(super) fn calls(&self, model: &str, calls: &[ToolCall]) {
        self.turn(model);
        for call in calls {
            let (id, name, custom) = (call.id.clone(), call.name.clone(), call.custom);
            self.push(vec![
                Event::Open { choice: 0, part: Opening::ToolCall { id, name, custom } },
                Event::Delta { choice: 0, delta: Delta::Arguments(call.arguments.clone()) },
                Event::Close { choice: 0 },
            ]);
        }
    }

    /// An item that only the responses API has.
    pub(super) fn item(&self, model: &str, value: Value) {
        self.turn(model);
        let foreign = Foreign { dialect: Dialect::Responses, value };
        self.push(vec![
            Event::Open { choice: 0, part: Opening::Foreign(foreign) },
            Event::Close { choice: 0 },
        ]);
    }

    /// That was all.
    pub(super) fn end(&self, model: &str, reason: FinishReason, usage: Usage) {
        self.turn(model);
        let mut state = self.state();
        if std::mem::replace(&mut state.over, true) {
            return;
        }
        let finish = Finish { reason, ..Finish::default() };
        self.push(vec![Event::Finish { choice: 0, finish }, Event::Usage(usage), Event::End]);
        self.tape.end();
    }

    /// Whether its client has been told anything.
    pub(super) fn has_spoken(&self) -> bool {
        self.state().told
    }

    /// The same of what the model has said in its last turn.
    pub(super) fn has_said_turn(&self) -> bool {
        self.state().told_turn
    }

    /// It cannot go on here, and its client is to know why.
    pub(super) fn fail(&self, error: crate::error::Error) {
        self.state().over = true;
        self.tape.fail(Some(error));
    }

    fn push(&self, events: Vec<Event>) {
        self.tape.push(events, LONGEST);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A model has said this.
    fn tells(&mut self, events: &[Event]) {
        let is_said = events.iter().any(is_text);
        self.told |= is_said;
        self.told_turn |= is_said;
    }
}

impl Flight {
    fn hear(&mut self, event: &Event) {
        if let Event::Delta { delta: Delta::Text(text), .. } = event
            && !text.is_empty()
        {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
    }
}

fn is_text(event: &Event) -> bool {
    matches!(event, Event::Delta { delta: Delta::Text(text), .. } if !text.is_empty())
}

/// A call of a tool as the responses API shows it.
pub(super) fn mcp_call(id: &str, name: &str, args: &Value, result: Result<&str, &str>) -> Value {
    json!({
        "type": "mcp_call",
        "id": format!("mcp_{id}"),
        "server_label": "switchpoint",
        "name": name,
        "arguments": args.to_string(),
        "output": result.ok(),
        "error": result.err(),
        "status": if result.is_ok() { "completed" } else { "failed" },
    })
}

/// A question to a person, as the responses API shows it.
pub(super) fn mcp_approval(approval: &str, name: &str, args: &Value) -> Value {
    json!({
        "type": "mcp_approval_request",
        "id": approval,
        "server_label": "switchpoint",
        "name": name,
        "arguments": args.to_string(),
    })
}
