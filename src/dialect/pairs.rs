//! Tool calls and their results, paired: every API refuses a history in which one stands alone.

use std::collections::HashMap;

use crate::canon::{Content, Message, Part, Role, ToolResult};

/// A call without a result, or a result without its call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Orphan {
    #[error("`messages[{message}]`: the tool call `{id}` has no result behind it.")]
    Call { message: usize, id: String },
    #[error("`messages[{message}]`: the result for `{id}` answers no tool call before it.")]
    Result { message: usize, id: String },
}

/// What stands in for a result that never came.
const NO_RESULT: &str = "[no result: this call was not answered]";

/// Calls that wait for their results. A history may have as many as its body holds.
#[derive(Default)]
struct Open {
    /// In the order in which they were made.
    ids: Vec<String>,
    /// How many of each id have no result yet.
    left: HashMap<String, usize>,
}

/// The first call or result that stands alone. Numbers are those of the messages as they are.
pub fn check(messages: &[Message]) -> Result<(), Orphan> {
    let mut open = Open::default();
    let mut asked = 0;
    let all_answered = |open: &mut Open, message| match open.close().into_iter().next() {
        Some(id) => Err(Orphan::Call { message, id }),
        None => Ok(()),
    };
    for (message, said) in messages.iter().enumerate() {
        if said.role == Role::Tool {
            let stray = results(said).find(|id| !open.answer(id));
            stray.map_or(Ok(()), |id| Err(Orphan::Result { message, id: id.to_owned() }))?;
        } else {
            all_answered(&mut open, asked)?;
            asked = message;
            calls(said).for_each(|id| open.add(id));
        }
    }
    all_answered(&mut open, asked)
}

/// Makes pairs: a call that was never answered gets a result that says so, and a result without
/// its call becomes words of the user. What was whole is not touched.
pub fn repair(messages: Vec<Message>) -> Vec<Message> {
    let mut whole: Vec<Message> = Vec::with_capacity(messages.len());
    let mut open = Open::default();
    for message in messages {
        if message.role == Role::Tool {
            let (answers, strays) = sort(message, &mut open);
            if !answers.parts.is_empty() {
                whole.push(answers);
            }
            if !strays.is_empty() {
                close(&mut open, &mut whole);
                whole.push(Message::new(Role::User, strays));
            }
            continue;
        }
        close(&mut open, &mut whole);
        calls(&message).for_each(|id| open.add(id));
        whole.push(message);
    }
    close(&mut open, &mut whole);
    whole
}

fn calls(message: &Message) -> impl Iterator<Item = &str> {
    message.parts.iter().filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(call.id.as_str()),
        _ => None,
    })
}

fn results(message: &Message) -> impl Iterator<Item = &str> {
    message.parts.iter().filter_map(|part| match &part.content {
        Content::ToolResult(result) => Some(result.id.as_str()),
        _ => None,
    })
}

/// The results that answer an open call, and the words of those that do not.
fn sort(message: Message, open: &mut Open) -> (Message, Vec<Part>) {
    let (mut answers, mut strays) = (Message { parts: Vec::new(), ..message }, Vec::new());
    for part in message.parts {
        let Content::ToolResult(result) = &part.content else { continue };
        if open.answer(&result.id) {
            answers.parts.push(part);
        } else {
            let text: String = result.parts.iter().filter_map(Part::as_text).collect();
            strays.push(Part::text(format!("[result of a tool call not shown here] {text}")));
        }
    }
    (answers, strays)
}

/// Answers the calls that are still open.
fn close(open: &mut Open, whole: &mut Vec<Message>) {
    let parts: Vec<Part> = open
        .close()
        .into_iter()
        .map(|id| {
            Part::new(Content::ToolResult(ToolResult {
                id,
                name: None,
                parts: vec![Part::text(NO_RESULT)],
                is_error: true,
                custom: false,
            }))
        })
        .collect();
    if parts.is_empty() {
        return;
    }
    match whole.last_mut() {
        Some(last) if last.role == Role::Tool => last.parts.extend(parts),
        _ => whole.push(Message::new(Role::Tool, parts)),
    }
}

// === impl Open ===

impl Open {
    fn add(&mut self, id: &str) {
        self.ids.push(id.to_owned());
        *self.left.entry(id.to_owned()).or_default() += 1;
    }

    /// Whether a call of this id was waiting.
    fn answer(&mut self, id: &str) -> bool {
        take_one(&mut self.left, id)
    }

    /// Those that wait in vain; from here on none is open.
    fn close(&mut self) -> Vec<String> {
        let (ids, mut left) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.left));
        ids.into_iter().filter(|id| take_one(&mut left, id)).collect()
    }
}

/// Whether there was one to take.
fn take_one(left: &mut HashMap<String, usize>, id: &str) -> bool {
    let left = left.get_mut(id).filter(|left| **left > 0);
    left.map(|left| *left -= 1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::ToolCall;

    fn call(ids: &[&str]) -> Message {
        let part = |id: &&str| {
            Part::new(Content::ToolCall(ToolCall {
                id: (*id).into(),
                name: "look".into(),
                arguments: "{}".into(),
                custom: false,
            }))
        };
        Message::new(Role::Assistant, ids.iter().map(part).collect())
    }

    fn result(ids: &[&str]) -> Message {
        let part = |id: &&str| {
            Part::new(Content::ToolResult(ToolResult {
                id: (*id).into(),
                name: None,
                parts: vec![Part::text("seen")],
                is_error: false,
                custom: false,
            }))
        };
        Message::new(Role::Tool, ids.iter().map(part).collect())
    }

    fn user() -> Message {
        Message::new(Role::User, vec![Part::text("hi")])
    }

    #[test]
    fn of_two_calls_by_one_id_each_wants_a_result() {
        let twice = vec![call(&["a", "b", "a"]), result(&["b", "a"])];
        let alone = Orphan::Call { message: 0, id: "a".to_owned() };
        assert_eq!(check(&twice), Err(alone));
        let whole = repair(twice);
        assert_eq!(whole.len(), 2);
        assert_eq!(check(&whole), Ok(()));
    }

    #[test]
    fn a_whole_history_is_left_as_it_is() {
        let whole = vec![user(), call(&["a", "b"]), result(&["b"]), result(&["a"]), user()];
        assert_eq!(check(&whole), Ok(()));
        assert_eq!(repair(whole.clone()), whole);
    }

    #[test]
    fn an_orphan_is_named_with_its_message_and_id() {
        let orphan = |message, id: &str| Err(Orphan::Call { message, id: id.into() });
        assert_eq!(check(&[user(), call(&["a"]), user()]), orphan(1, "a"));
        assert_eq!(check(&[call(&["a", "b"]), result(&["a"])]), orphan(0, "b"));
        let stray = Err(Orphan::Result { message: 2, id: "a".into() });
        assert_eq!(check(&[call(&["a"]), result(&["a"]), result(&["a"])]), stray);
    }

    #[test]
    fn whatever_was_broken_is_whole_after_the_repair() {
        for broken in [
            vec![user(), call(&["a"]), user()],
            vec![call(&["a", "b"]), result(&["a"])],
            vec![result(&["a"]), user()],
            vec![call(&["a"]), result(&["x"]), result(&["a"])],
            vec![call(&["a"]), call(&["b"]), result(&["a", "b"])],
        ] {
            assert!(check(&broken).is_err());
            let whole = repair(broken);
            assert_eq!(check(&whole), Ok(()), "{whole:?}");
        }
    }
}
