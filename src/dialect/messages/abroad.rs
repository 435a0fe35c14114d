//! What clients of this API say that hosts of others take otherwise, or cannot take at all.

use std::borrow::Cow;

use serde_json::Value;

use super::source;
use crate::canon::{ChatRequest, Content, Dialect, Format, Message, Role, Tool};
use crate::error::{Error, Kind, Upstream};

/// Claude Code's note to Anthropic in front of the system prompt. Others would read it as words to
/// their model, and it changes with each conversation, so that no prompt cache would hold.
const BILLING: &str = "x-anthropic-billing-header:";

/// Threads that the API remembers. Whoever is refused one sends all of the conversation.
const THREAD: &str = "thread";
pub(super) const NO_THREAD: &str = "thread_unsupported_request";

/// The question as it is meant for another API, and what of it had to give way.
pub fn abroad(
    request: &ChatRequest,
    into: Dialect,
) -> Result<(Cow<'_, ChatRequest>, Vec<Cow<'static, str>>), Error> {
    if request.extras.dialect != Some(Dialect::Messages) || into == Dialect::Messages {
        return Ok((Cow::Borrowed(request), Vec::new()));
    }
    if request.extras.fields.contains_key(THREAD) {
        return Err(no_thread());
    }
    let strict = matches!(into, Dialect::Chat | Dialect::Responses);
    let (loose, noted) = (strict && has_loose(request), request.messages.iter().any(has_note));
    let told = request.messages.iter().flat_map(|message| &message.parts).any(source::is_in);
    if !loose && !noted && !told {
        return Ok((Cow::Borrowed(request), Vec::new()));
    }
    let mut request = request.clone();
    let mut gave_way: Vec<Cow<'static, str>> = Vec::new();
    gave_way.extend(loose.then_some("strict".into()));
    for message in request.messages.iter_mut().filter(|_| told) {
        gave_way.extend(source::tell(&mut message.parts));
    }
    for message in request.messages.iter_mut().filter(|message| has_note(message)) {
        message.parts.retain(|part| !part.as_text().is_some_and(is_note));
    }
    request.messages.retain(|message| !message.parts.is_empty());
    if loose {
        loosen(&mut request);
    }
    gave_way.sort_unstable();
    gave_way.dedup();
    Ok((Cow::Owned(request), gave_way))
}

fn no_thread() -> Error {
    let message = "The target keeps no threads: send the whole conversation without `thread`.";
    let upstream = Upstream {
        kind: Some("invalid_request_error".to_owned()),
        param: Some(THREAD.to_owned()),
        code: Some(NO_THREAD.to_owned()),
    };
    Error {
        status: Some(400),
        upstream: Some(upstream.into()),
        ..Error::new(Kind::InvalidRequest, message)
    }
}

fn is_note(text: &str) -> bool {
    text.starts_with(BILLING)
}

fn has_note(message: &Message) -> bool {
    let note = |content: &Content| matches!(content, Content::Text { text, .. } if is_note(text));
    message.role == Role::System && message.parts.iter().any(|part| note(&part.content))
}

fn has_loose(request: &ChatRequest) -> bool {
    let tools = request.tools.iter().any(|tool| match tool {
        Tool::Function { strict: Some(true), schema: Some(schema), .. } => !is_strict(schema),
        _ => false,
    });
    let format = match &request.format {
        Format::JsonSchema { strict: Some(true), schema, .. } => !is_strict(schema),
        _ => false,
    };
    tools || format
}

fn loosen(request: &mut ChatRequest) {
    for tool in &mut request.tools {
        if let Tool::Function { strict, schema: Some(schema), .. } = tool
            && !is_strict(schema)
        {
            *strict = None;
        }
    }
    if let Format::JsonSchema { strict, schema, .. } = &mut request.format
        && !is_strict(schema)
    {
        *strict = None;
    }
}

/// Whether OpenAI takes a schema as a strict one: each object names all of its properties as
/// required and has no others. This API lets them be optional.
fn is_strict(schema: &Value) -> bool {
    let own = schema.get("properties").and_then(Value::as_object).is_none_or(|properties| {
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &String| {
            required.is_some_and(|names| names.iter().any(|known| known == name.as_str()))
        };
        schema.get("additionalProperties") == Some(&Value::Bool(false))
            && properties.keys().all(is_required)
    });
    own && match schema {
        Value::Object(fields) => fields.values().all(is_strict),
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}
