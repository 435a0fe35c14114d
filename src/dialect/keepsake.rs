//! What a provider wants back with a tool's result and a client may not be able to carry: the
//! thoughts before a call, their signatures, and the call's own.

use serde::{Deserialize, Serialize};

use crate::canon::{Content, Delta, Event, Message, Opaque, Opening, Part, Reasoning, Role};

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

impl Keepsake {
    fn is_of(&self, part: &Part) -> bool {
        matches!(&part.content, Content::ToolCall(call) if call.id == self.call)
    }
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

    /// The calls with which something has to be kept.
    pub fn finish(self) -> Vec<Keepsake> {
        let worth = |keepsake: &Keepsake| {
            keepsake.opaque.is_some()
                || keepsake.thoughts.iter().any(|thought| thought.opaque.is_some())
        };
        self.kept.into_iter().filter(worth).collect()
    }
}

/// The tool calls of a conversation whose state the client did not send along.
pub fn missing(messages: &[Message]) -> Vec<String> {
    let turns = messages.iter().filter(|message| is_bare(message));
    turns.flat_map(|message| calls(message).map(str::to_owned)).collect()
}

/// Puts the keepsakes of these calls back where they were.
pub fn restore(messages: &mut [Message], kept: &[Keepsake]) {
    for message in messages.iter_mut().filter(|message| is_bare(message)) {
        let mut parts = Vec::with_capacity(message.parts.len() + 1);
        let mut is_first = true;
        for mut part in message.parts.drain(..) {
            if let Some(keepsake) = kept.iter().find(|keepsake| keepsake.is_of(&part)) {
                part.opaque.clone_from(&keepsake.opaque);
                // A turn begins with its thoughts, whatever it says before the first call.
                let at = parts.len() * usize::from(!is_first);
                parts.splice(at..at, keepsake.thoughts.iter().cloned().map(recalled));
            }
            is_first &= !matches!(part.content, Content::ToolCall(_));
            parts.push(part);
        }
        message.parts = parts;
    }
}

fn recalled(mut thought: Part) -> Part {
    if let Content::Reasoning(thought) = &mut thought.content {
        thought.recalled = true;
    }
    thought
}

/// A turn that calls tools and came without any state: whoever sends some sends all.
fn is_bare(message: &Message) -> bool {
    message.role == Role::Assistant
        && calls(message).next().is_some()
        && message.parts.iter().all(|part| part.opaque.is_none())
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
