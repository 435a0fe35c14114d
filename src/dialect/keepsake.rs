//! What a provider wants back with a tool's result and a client may not be able to carry: the
//! thoughts before a call, their signatures, and the call's own.
//!
//! A client that carries thoughts may trim or reword them, and a signature that does not fit its
//! thought costs the whole question. So state that stands for words travels with their digest.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fnv;
use crate::canon::{
    ChatResponse, Content, Delta, Dialect, Event, Message, Opaque, Opening, Part, Reasoning, Role,
};

/// In a thought's state on its way through a client: the digest of the words that it stands for.
const WORDS: &str = "switchpoint_words";

/// What belongs to one tool call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keepsake {
    /// The id of the call, as the client was given it.
    pub call: String,
    /// The thoughts between the call before this one, or the turn's beginning, and this call.
    pub thoughts: Vec<Part>,
    /// The state of the call itself.
    pub opaque: Option<Opaque>,
}

/// Gathers keepsakes from an answer's events. Of several answers the first counts.
#[derive(Debug, Default)]
pub struct Keeper {
    thoughts: Vec<Part>,
    open: Open,
    kept: Vec<Keepsake>,
}

#[derive(Debug, Default, PartialEq)]
enum Open {
    #[default]
    Other,
    Thought,
    Call,
}

impl Keeper {
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Open { choice: 0, part: Opening::Reasoning { summary, redacted } } => {
                let (text, summary, redacted) = (String::new(), *summary, *redacted);
                let thought = Content::Reasoning(Reasoning {
                    text,
                    summary,
                    redacted,
                    ..Reasoning::default()
                });
                self.thoughts.push(Part::new(thought));
                self.open = Open::Thought;
            }
            Event::Open { choice: 0, part: Opening::ToolCall { id, .. } } => {
                let thoughts = std::mem::take(&mut self.thoughts);
                self.kept.push(Keepsake { call: id.clone(), thoughts, opaque: None });
                self.open = Open::Call;
            }
            Event::Open { choice: 0, .. } => self.open = Open::Other,
            Event::Delta { choice: 0, delta } => self.delta(delta),
            _ => {}
        }
    }

    fn delta(&mut self, delta: &Delta) {
        match (&self.open, delta) {
            (Open::Thought, Delta::Reasoning(more)) => {
                if let Some(Part { content: Content::Reasoning(thought), .. }) =
                    self.thoughts.last_mut()
                {
                    thought.text.push_str(more);
                }
            }
            (Open::Thought, Delta::Opaque(opaque)) => {
                if let Some(thought) = self.thoughts.last_mut() {
                    thought.opaque = Some(opaque.clone());
                }
            }
            (Open::Call, Delta::Opaque(opaque)) => {
                if let Some(keepsake) = self.kept.last_mut() {
                    keepsake.opaque = Some(opaque.clone());
                }
            }
            _ => {}
        }
    }

    /// The event as a client is to carry it, once it was noted.
    pub fn bind(&self, event: &mut Event) {
        if let (Open::Thought, Event::Delta { choice: 0, delta: Delta::Opaque(state) }) =
            (&self.open, event)
            && let Some(Content::Reasoning(thought)) =
                self.thoughts.last().map(|part| &part.content)
        {
            bind_to(state, thought);
        }
    }

    /// The calls with which something has to be kept.
    pub fn finish(self) -> Vec<Keepsake> {
        let worth = |keepsake: &Keepsake| {
            keepsake.opaque.is_some()
                || keepsake.thoughts.iter().any(|thought| thought.opaque.is_some())
        };
        self.kept.into_iter().filter(worth).collect()
    }
}

/// A whole answer as a client is to carry it.
pub fn bind(response: &mut ChatResponse) {
    for part in response.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
        if let (Content::Reasoning(thought), Some(state)) = (&part.content, &mut part.opaque) {
            bind_to(state, thought);
        }
    }
}

/// Only Anthropic's models sign the words of their thoughts.
fn bind_to(state: &mut Opaque, thought: &Reasoning) {
    if thought.redacted {
        return;
    }
    match (state.dialect, &mut state.data) {
        (Dialect::Messages, Value::Object(fields)) => {
            fields.insert(WORDS.to_owned(), json!(digest(&thought.text)));
        }
        (Dialect::Converse, Value::String(signature)) => {
            state.data = json!({ "signature": signature, WORDS: digest(&thought.text) });
        }
        _ => {}
    }
}

fn digest(text: &str) -> String {
    format!("{:016x}", fnv(text, 0))
}

/// Whether this field of a state is for nobody but us.
pub fn is_private(field: &str) -> bool {
    field == WORDS
}

/// Takes the state from thoughts that are not what their model thought.
pub fn check(messages: &mut [Message]) {
    messages.iter_mut().flat_map(|message| &mut message.parts).for_each(check_part);
}

fn check_part(part: &mut Part) {
    let (Content::Reasoning(thought), Some(state)) = (&part.content, &mut part.opaque) else {
        return;
    };
    let Some(fields) = state.data.as_object_mut() else { return };
    let Some(words) = fields.shift_remove(WORDS) else { return };
    if words != digest(&thought.text) {
        part.opaque = None;
    } else if state.dialect == Dialect::Converse {
        state.data = fields.shift_remove("signature").unwrap_or_default();
    }
}

/// The tool calls of a conversation whose state the client did not send along.
pub fn missing(messages: &[Message]) -> Vec<String> {
    let turns = messages.iter().filter(|message| is_bare(message));
    turns.flat_map(|message| calls(message).map(str::to_owned)).collect()
}

/// Puts the keepsakes of these calls back where they were.
pub fn restore(messages: &mut [Message], kept: &[Keepsake]) {
    let kept: HashMap<&str, &Keepsake> = kept.iter().map(|it| (it.call.as_str(), it)).collect();
    for message in messages.iter_mut().filter(|message| is_bare(message)) {
        let mut parts = Vec::with_capacity(message.parts.len() + 1);
        // Where what leads to the next call begins.
        let mut begin = 0;
        for mut part in message.parts.drain(..) {
            let keepsake = match &part.content {
                Content::ToolCall(call) => kept.get(call.id.as_str()),
                _ => None,
            };
            if let Some(keepsake) = keepsake {
                part.opaque = part.opaque.take().or_else(|| keepsake.opaque.clone());
                recall(&mut parts, begin, &keepsake.thoughts);
            }
            let is_call = matches!(part.content, Content::ToolCall(_));
            parts.push(part);
            if is_call {
                begin = parts.len();
            }
        }
        message.parts = parts;
    }
}

/// Puts the thoughts that led to a call into what stands before it, in the place of those that the
/// client sent without their state.
fn recall(parts: &mut Vec<Part>, begin: usize, thoughts: &[Part]) {
    if thoughts.is_empty() {
        return;
    }
    let is_thought = |part: &Part| matches!(part.content, Content::Reasoning(_));
    let sent = parts[begin..].iter().position(is_thought);
    // A turn begins with its thoughts, whatever it says before the first call.
    let at = match sent {
        Some(place) => begin + place,
        None if begin == 0 => 0,
        None => parts.len(),
    };
    let mut place = 0;
    parts.retain(|part| {
        place += 1;
        place <= begin || !is_thought(part)
    });
    let recalled = thoughts.iter().cloned().map(|mut part| {
        check_part(&mut part);
        if let Content::Reasoning(thought) = &mut part.content {
            thought.recalled = sent.is_none();
        }
        part
    });
    parts.splice(at..at, recalled);
}

/// A turn that calls tools and came without the state of its thoughts: whoever sends some sends
/// all. Who made a call, and its item's fields, are state that says nothing of thoughts.
fn is_bare(message: &Message) -> bool {
    let tells = |part: &Part| match (&part.content, &part.opaque) {
        (Content::Reasoning(_), Some(_)) => true,
        (_, Some(state)) => matches!(state.dialect, Dialect::Gemini | Dialect::Chat),
        (_, None) => false,
    };
    message.role == Role::Assistant
        && calls(message).next().is_some()
        && !message.parts.iter().any(tells)
}

fn calls(message: &Message) -> impl Iterator<Item = &str> {
    message.parts.iter().filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(call.id.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{ChatResponse, Choice, Dialect, ToolCall};
    use crate::dialect::fold::unfold;
    use serde_json::json;

    fn sealed(content: Content, state: &str) -> Part {
        let opaque = Some(Opaque { dialect: Dialect::Messages, data: json!(state) });
        Part { opaque, ..Part::new(content) }
    }

    fn thought(text: &str) -> Content {
        Content::Reasoning(Reasoning { text: text.into(), ..Reasoning::default() })
    }

    fn call(id: &str) -> Content {
        Content::ToolCall(ToolCall {
            id: id.into(),
            name: "look".into(),
            arguments: "{}".into(),
            custom: false,
        })
    }

    #[test]
    fn a_client_that_drops_all_state_gets_it_back_in_its_place() {
        let parts = vec![
            sealed(thought("first"), "s1"),
            Part::text("let me look"),
            sealed(call("a"), "s2"),
            sealed(thought("second"), "s3"),
            Part::new(call("b")),
        ];
        let choices = vec![Choice { parts: parts.clone(), ..Choice::default() }];
        let mut keeper = Keeper::default();
        for event in unfold(&ChatResponse { choices, ..ChatResponse::default() }) {
            keeper.note(&event);
        }
        let kept = keeper.finish();
        let bare = vec![Part::text("let me look"), Part::new(call("a")), Part::new(call("b"))];
        let mut messages = vec![Message::new(Role::Assistant, bare)];
        assert_eq!(missing(&messages), ["a", "b"]);
        restore(&mut messages, &kept);
        let parts: Vec<Part> = parts.into_iter().map(recalled).collect();
        assert_eq!(messages[0].parts, parts);
        assert!(missing(&messages).is_empty());
    }

    fn recalled(mut part: Part) -> Part {
        if let Content::Reasoning(thought) = &mut part.content {
            thought.recalled = true;
        }
        part
    }

    fn keepsake(thoughts: Vec<Part>, opaque: Option<Opaque>) -> Keepsake {
        Keepsake { call: "a".into(), thoughts, opaque }
    }

    #[test]
    fn a_call_that_only_says_who_made_it_gets_its_thoughts_back() {
        let kept = [keepsake(vec![sealed(thought("first"), "s1")], None)];
        let said = vec![Part::text("let me look"), sealed(call("a"), "direct")];
        let mut messages = vec![Message::new(Role::Assistant, said.clone())];
        assert_eq!(missing(&messages), ["a"]);
        restore(&mut messages, &kept);
        assert_eq!(messages[0].parts[0], recalled(sealed(thought("first"), "s1")));
        assert_eq!(messages[0].parts[1..], said);
    }

    #[test]
    fn thoughts_that_came_without_their_state_are_not_doubled() {
        let state = Opaque { dialect: Dialect::Gemini, data: json!("s") };
        let kept = [keepsake(vec![Part::new(thought("first"))], Some(state.clone()))];
        let said = vec![Part::text("so"), Part::new(thought("first")), Part::new(call("a"))];
        let mut messages = vec![Message::new(Role::Assistant, said.clone())];
        restore(&mut messages, &kept);
        assert_eq!(messages[0].parts[..2], said[..2]);
        assert_eq!(messages[0].parts[2], Part { opaque: Some(state), ..Part::new(call("a")) });
    }

    #[test]
    fn an_altered_thought_loses_its_signature_and_becomes_what_it_was_where_that_is_known() {
        for data in [json!({"signature": "s1"}), json!("s1")] {
            let dialect = if data.is_object() { Dialect::Messages } else { Dialect::Converse };
            let opaque = Some(Opaque { dialect, data });
            let first = Part { opaque, ..Part::new(thought("first ")) };
            let parts = vec![first.clone(), Part::new(call("a"))];
            let choices = vec![Choice { parts, ..Choice::default() }];
            let mut answer = ChatResponse { choices, ..ChatResponse::default() };
            bind(&mut answer);
            let carried = answer.choices[0].parts.clone();
            assert_ne!(carried[0], first);

            let mut messages = vec![Message::new(Role::Assistant, carried.clone())];
            check(&mut messages);
            assert_eq!(messages[0].parts[0], first);

            let mut messages = vec![Message::new(Role::Assistant, carried)];
            messages[0].parts[0].content = thought("first");
            check(&mut messages);
            assert_eq!(messages[0].parts[0], Part::new(thought("first")));
            assert_eq!(missing(&messages), ["a"]);
            restore(&mut messages, &[keepsake(vec![first.clone()], None)]);
            assert_eq!(messages[0].parts[0], first);
        }
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_state() {
        let parts = vec![Part::new(thought("hm")), Part::new(call("a"))];
        let choices = vec![Choice { parts, ..Choice::default() }];
        let mut keeper = Keeper::default();
        for event in unfold(&ChatResponse { choices, ..ChatResponse::default() }) {
            keeper.note(&event);
        }
        assert!(keeper.finish().is_empty());
    }
}
