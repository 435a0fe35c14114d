//! Turns of one party that a client has sent in pieces: Google's own libraries keep each piece of a
//! stream as a turn of its own, and Anthropic's API takes neighbours for one.

use crate::canon::{Content, Message, Part, Role};

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::canon::{Dialect, Opaque, Reasoning};

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

    #[test]
    fn thoughts_with_signatures_of_their_own_stay_apart() {
        let two = vec![
            Message::new(Role::Assistant, vec![thought("a", Some("1"))]),
            Message::new(Role::Assistant, vec![thought("b", Some("2"))]),
        ];
        assert_eq!(join(two)[0].parts, [thought("a", Some("1")), thought("b", Some("2"))]);
    }
}
