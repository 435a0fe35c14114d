//! Turns of one party that a client has sent in pieces: Google's own libraries keep each piece of a
//! stream as a turn of its own, and Anthropic's API takes neighbours for one. And what of a turn
//! only the other party may say.

use std::borrow::Cow;

use crate::canon::{Content, MediaKind, Message, Part, Role};

/// Joins neighbouring turns of the model, and the pieces of one thought in them.
pub fn join(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    // Whether the last of them has been put together from several.
    let mut is_whole = false;
    for message in messages {
        match joined.last_mut() {
            Some(last) if last.role == Role::Assistant && message.role == Role::Assistant => {
                let first = if is_whole { Vec::new() } else { std::mem::take(&mut last.parts) };
                is_whole = true;
                first.into_iter().chain(message.parts).for_each(|part| add(&mut last.parts, part));
            }
            _ => {
                is_whole = false;
                joined.push(message);
            }
        }
    }
    joined
}

/// What a stream ends with says nothing, and a thought whose signature comes behind it is one.
fn add(parts: &mut Vec<Part>, part: Part) {
    let is_empty = matches!(&part.content, Content::Text { text, .. } if text.is_empty());
    if is_empty && part.opaque.is_none() && part.cache.is_none() {
        return;
    }
    match (parts.last_mut(), &part.content) {
        (Some(Part { content: Content::Reasoning(last), cache: None, opaque }), content)
            if opaque.is_none()
                && let Content::Reasoning(next) = content
                && last.summary == next.summary
                && !next.redacted =>
        {
            last.text.push_str(&next.text);
            opaque.clone_from(&part.opaque);
        }
        _ => parts.push(part),
    }
}

/// The conversation with the pictures and documents of the model's turns in the next turn of the
/// user's, for APIs that let nobody else show any; and whether some had no such turn and are gone.
pub fn shown_by_user(messages: &[Message]) -> (Cow<'_, [Message]>, bool) {
    let shows = |message: &Message| {
        message.role == Role::Assistant && message.parts.iter().any(is_for_users)
    };
    if !messages.iter().any(shows) {
        return (Cow::Borrowed(messages), false);
    }
    let mut told = Vec::with_capacity(messages.len() + 1);
    let mut held = Vec::new();
    for message in messages {
        let mut message = message.clone();
        match message.role {
            Role::Assistant => {
                show(&mut held, &mut told);
                let (made, said) = message.parts.into_iter().partition(is_for_users);
                held.extend::<Vec<_>>(made);
                message.parts = said;
            }
            Role::User => {
                let is_result = |part: &Part| matches!(part.content, Content::ToolResult(_));
                let place = message.parts.iter().rposition(is_result).map_or(0, |last| last + 1);
                message.parts.splice(place..place, held.drain(..));
            }
            Role::System | Role::Developer | Role::Tool => {}
        }
        told.push(message);
    }
    show(&mut held, &mut told);
    (Cow::Owned(told), !held.is_empty())
}

fn is_for_users(part: &Part) -> bool {
    let Content::Media(media) = &part.content else { return false };
    matches!(media.kind, MediaKind::Image | MediaKind::Document)
}

/// Where no user speaks behind the results of tools, it stands for itself.
fn show(held: &mut Vec<Part>, told: &mut Vec<Message>) {
    if !held.is_empty() && told.last().is_some_and(|last| last.role == Role::Tool) {
        told.push(Message::new(Role::User, std::mem::take(held)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::canon::{Dialect, Opaque, Reasoning};
    use crate::dialect::{Aim, ClientSide, Traits, chat, upstream};

    fn thought(text: &str, signature: Option<&str>) -> Part {
        let reasoning = Reasoning { text: text.to_owned(), ..Reasoning::default() };
        let mut part = Part::new(Content::Reasoning(reasoning));
        part.opaque = signature.map(|it| Opaque { dialect: Dialect::Gemini, data: json!(it) });
        part
    }

    #[test]
    fn a_turn_in_pieces_is_one_turn_with_whole_thoughts() {
        let model = |part: Part| Message::new(Role::Assistant, vec![part]);
        let pieces = vec![
            Message::new(Role::User, vec![Part::text("a")]),
            Message::new(Role::User, vec![Part::text("b")]),
            model(thought("I th", None)),
            model(thought("ink", None)),
            model(thought("", Some("s"))),
            model(Part::text("Hel")),
            model(Part::text("lo")),
            model(Part::text("")),
            Message::new(Role::User, vec![Part::text("c")]),
        ];
        let joined = join(pieces);
        assert_eq!(joined.len(), 4);
        let whole = vec![thought("I think", Some("s")), Part::text("Hel"), Part::text("lo")];
        assert_eq!(joined[2], Message::new(Role::Assistant, whole));
    }

    /// What a target is told of messages of chat completions, and the names of what it is not.
    fn told(messages: &Value, target: Dialect) -> (Value, Vec<Cow<'static, str>>) {
        let body = json!({ "model": "m", "messages": messages }).to_string();
        let request = chat::CODEC.read_request(body.as_bytes()).unwrap();
        let aim = Aim { model: "anthropic.claude-opus-4-1", traits: &Traits::NONE, cache: None };
        let written = upstream(target).write_request(&request, &aim).unwrap();
        (serde_json::from_slice(&written.body).unwrap(), written.dropped)
    }

    #[test]
    fn a_picture_that_the_model_made_goes_back_to_whoever_may_show_it_there() {
        let url = "data:image/png;base64,aGk=";
        let images = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let mut messages = json!([
            {"role": "user", "content": "A fox."},
            {"role": "assistant", "content": null, "images": images},
            {"role": "user", "content": "In blue."},
        ]);
        let said = [("messages", "content"), ("messages", "content"), ("contents", "parts")];
        let targets = [Dialect::Messages, Dialect::Converse, Dialect::Gemini];
        for (target, (list, parts)) in targets.into_iter().zip(said) {
            let (body, dropped) = told(&messages, target);
            let turns = body[list].as_array().unwrap();
            let with = turns.iter().find(|turn| turn[parts].to_string().contains("aGk=")).unwrap();
            let role = if target == Dialect::Gemini { "model" } else { "user" };
            assert_eq!((&with["role"], dropped.len()), (&json!(role), 0), "{body}");
        }
        for target in [Dialect::Chat, Dialect::Responses] {
            assert_eq!(told(&messages, target).1, ["images"], "{target:?}");
        }
        messages.as_array_mut().unwrap().pop();
        let (body, dropped) = told(&messages, Dialect::Messages);
        assert!(!body.to_string().contains("aGk=") && dropped == ["images"], "{body}");
    }

    #[test]
    fn what_the_model_shows_beside_its_calls_follows_their_results() {
        let image =
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
        let function = json!({"name": "f", "arguments": "{}"});
        let messages = json!([
            {"role": "user", "content": "A fox."},
            {"role": "assistant", "content": "So.", "images": [image],
                "tool_calls": [{"id": "c", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
        ]);
        let (body, dropped) = told(&messages, Dialect::Messages);
        let types = body["messages"][2]["content"].as_array().unwrap().iter();
        let types: Vec<&Value> = types.map(|block| &block["type"]).collect();
        assert!(types == ["tool_result", "image"] && dropped.is_empty(), "{body}");
    }

    #[test]
    fn thoughts_with_signatures_of_their_own_stay_apart() {
        let two = vec![
            Message::new(Role::Assistant, vec![thought("a", Some("1"))]),
            Message::new(Role::Assistant, vec![thought("b", Some("2"))]),
        ];
        assert_eq!(join(two)[0].parts, [thought("a", Some("1")), thought("b", Some("2"))]);
    }
}
