//! Where texts stand in a question and in an answer, for whoever reads or changes all of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::canon::{
    ChatRequest, ChatResponse, Citation, Content, Format, Media, Message, Part, Role, Source, Tool,
    ToolCall,
};
use crate::config::Stage;
use crate::guard::Blocked;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stage: Stage,
    /// It is JSON, and has to be JSON afterwards.
    pub(super) json: bool,
    /// Somebody says it to somebody, and it is no setting.
    pub(super) said: bool,
}

/// Takes in one text after the other, and may change them.
pub(super) type Visit<'a> = dyn FnMut(Place, &mut String) -> Result<(), Blocked> + 'a;

type Seen = Result<(), Blocked>;

/// Names and kinds, which are no texts as long as they look like such.
const NAMES: [&str; 16] = [
    "type",
    "id",
    "role",
    "model",
    "status",
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "item_id",
    "file_id",
    "media_type",
    "mime_type",
    "mimeType",
    "voice",
    "encoding_format",
    "input_type",
];
const LONGEST_NAME: usize = 128;
/// State of a provider, and pictures and the like, as long as they look like it.
const OPAQUE: [&str; 7] = [
    "signature",
    "encrypted_content",
    "encrypted_index",
    "data",
    "b64_json",
    "bytes",
    "thoughtSignature",
];

// === impl Place ===

impl Place {
    pub(super) fn said(stage: Stage) -> Self {
        Self { stage, json: false, said: true }
    }

    fn setting() -> Self {
        Self { stage: Stage::Input, json: false, said: false }
    }
}

/// Whether a text that somebody has changed is still what it must be.
pub(super) fn check(place: Place, text: &str, guard: &str) -> Seen {
    if !place.json || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Ok(());
    }
    Err(Blocked { guard: guard.to_owned(), label: "malformed".to_owned() })
}

/// All texts of a question, in their order.
pub(super) fn of_request(request: &mut ChatRequest, visit: &mut Visit<'_>) -> Seen {
    for message in &mut request.messages {
        of_message(message, visit)?;
    }
    for tool in &mut request.tools {
        of_tool(tool, visit)?;
    }
    if let Format::JsonSchema { description, schema, .. } = &mut request.format {
        optional(description, visit)?;
        leaves(schema, Place::setting(), visit)?;
    }
    for stop in &mut request.sampling.stop {
        visit(Place::setting(), stop)?;
    }
    optional(&mut request.user, visit)?;
    optional(&mut request.cache_key, visit)?;
    let metadata = request.metadata.iter_mut().flat_map(|metadata| metadata.values_mut());
    for value in metadata.chain(request.extras.fields.values_mut()) {
        leaves(value, Place::setting(), visit)?;
    }
    Ok(())
}

fn optional(text: &mut Option<String>, visit: &mut Visit<'_>) -> Seen {
    text.as_mut().map_or(Ok(()), |text| visit(Place::setting(), text))
}

fn of_message(message: &mut Message, visit: &mut Visit<'_>) -> Seen {
    optional(&mut message.name, visit)?;
    let stage = if message.role == Role::Tool { Stage::ToolResults } else { Stage::Input };
    message.parts.iter_mut().try_for_each(|part| of_part(part, (stage, stage), visit))
}

fn of_tool(tool: &mut Tool, visit: &mut Visit<'_>) -> Seen {
    match tool {
        Tool::Function { description, schema, .. }
        | Tool::Custom { description, format: schema, .. } => {
            optional(description, visit)?;
            let schema = schema.as_mut();
            schema.map_or(Ok(()), |schema| leaves(schema, Place::setting(), visit))
        }
        Tool::Hosted(foreign) => leaves(&mut foreign.value, Place::setting(), visit),
    }
}

/// `arguments` is where those of tools are looked at.
fn of_part(part: &mut Part, (stage, arguments): (Stage, Stage), visit: &mut Visit<'_>) -> Seen {
    let place = Place::said(stage);
    match &mut part.content {
        Content::Text { text, citations } => {
            visit(place, text)?;
            citations.iter_mut().try_for_each(|citation| of_citation(citation, stage, visit))
        }
        Content::Refusal(text) => visit(place, text),
        Content::Reasoning(reasoning) => visit(place, &mut reasoning.text),
        Content::Media(media) => of_media(media, stage, visit),
        Content::ToolCall(ToolCall { arguments: text, custom, .. }) => {
            visit(Place { json: !*custom, ..Place::said(arguments) }, text)
        }
        Content::ToolResult(result) => {
            let inside = (Stage::ToolResults, Stage::ToolResults);
            result.parts.iter_mut().try_for_each(|part| of_part(part, inside, visit))
        }
        Content::Foreign(foreign) => {
            let kind = foreign.value["type"].as_str().unwrap_or_default();
            let result =
                stage == Stage::Input && (kind.contains("result") || kind.contains("output"));
            let stage = if result { Stage::ToolResults } else { stage };
            leaves(&mut foreign.value, Place::said(stage), visit)
        }
    }
}

pub(super) fn of_citation(citation: &mut Citation, stage: Stage, visit: &mut Visit<'_>) -> Seen {
    let place = Place { said: false, ..Place::said(stage) };
    let texts = [&mut citation.url, &mut citation.title, &mut citation.quote];
    for text in texts.into_iter().flatten() {
        visit(place, text)?;
    }
    let original = citation.original.as_mut();
    original.map_or(Ok(()), |original| leaves(&mut original.data, place, visit))
}

/// What is not text is not looked at: pictures, sounds, PDFs.
pub(super) fn of_media(media: &mut Media, stage: Stage, visit: &mut Visit<'_>) -> Seen {
    for text in [&mut media.name, &mut media.transcript].into_iter().flatten() {
        visit(Place::said(stage), text)?;
    }
    match &mut media.source {
        Source::Text(text) => visit(Place::said(stage), text),
        Source::Base64 { media_type, data } if is_text(media_type) => {
            let bytes = STANDARD.decode(data.as_bytes()).unwrap_or_default();
            let Ok(mut text) = String::from_utf8(bytes) else { return Ok(()) };
            visit(Place::said(stage), &mut text)?;
            *data = STANDARD.encode(text);
            Ok(())
        }
        Source::Url { .. } | Source::Base64 { .. } | Source::File { .. } => Ok(()),
    }
}

fn is_text(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("xml")
}

/// All texts of an answer, in their order.
pub(super) fn of_response(response: &mut ChatResponse, visit: &mut Visit<'_>) -> Seen {
    let parts = response.choices.iter_mut().flat_map(|choice| &mut choice.parts);
    let stages = (Stage::Output, Stage::ToolArgs);
    parts.into_iter().try_for_each(|part| of_part(part, stages, visit))
}

/// The strings of a JSON value.
pub(super) fn leaves(value: &mut Value, place: Place, visit: &mut Visit<'_>) -> Seen {
    match value {
        Value::String(text) => visit(place, text),
        Value::Array(items) => items.iter_mut().try_for_each(|item| leaves(item, place, visit)),
        Value::Object(members) => members
            .iter_mut()
            .filter(|(name, value)| !is_no_text(name, value))
            .try_for_each(|(_, value)| leaves(value, place, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn is_no_text(name: &str, value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:+".contains(&byte);
    let coded = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/+=".contains(&byte);
    (NAMES.contains(&name) && text.len() <= LONGEST_NAME && text.bytes().all(plain))
        || (OPAQUE.contains(&name) && text.bytes().all(coded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Dialect;
    use crate::canon::{Choice, Foreign};
    use serde_json::json;

    fn seen(request: &mut ChatRequest) -> Vec<(Stage, String)> {
        let mut texts = Vec::new();
        of_request(request, &mut |place, text| {
            texts.push((place.stage, text.clone()));
            Ok(())
        })
        .unwrap();
        texts
    }

    #[test]
    fn no_text_of_a_question_is_passed_over() {
        let document = STANDARD.encode("in a file");
        let body = json!({
            "model": "m", "user": "someone", "metadata": {"note": "in metadata"},
            "stop": ["at a stop"], "unknown": {"field": ["in a field"]},
            "messages": [
                {"role": "system", "content": "to the system"},
                {"role": "user", "name": "ann", "content": [
                    {"type": "text", "text": "by the user"},
                    {"type": "file", "file": {
                        "filename": "a.txt", "file_data": format!("data:text/plain;base64,{document}"),
                    }},
                ]},
                {"role": "assistant", "content": "by the model", "tool_calls": [{
                    "id": "call_1", "type": "function",
                    "function": {"name": "look", "arguments": "{\"at\":\"this\"}"},
                }]},
                {"role": "tool", "tool_call_id": "call_1", "content": "by a tool"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "look", "description": "looks", "parameters": {
                    "type": "object", "properties": {"at": {"type": "string", "description": "where"}},
                },
            }}],
        });
        let read = crate::dialect::client(crate::canon::Surface::Chat);
        let mut request = read.read_request(body.to_string().as_bytes()).unwrap();
        let texts = seen(&mut request);
        let has = |stage: Stage, text: &str| texts.contains(&(stage, text.to_owned()));
        for text in [
            "to the system",
            "by the user",
            "in a file",
            "ann",
            "by the model",
            "{\"at\":\"this\"}",
            "looks",
            "where",
            "someone",
            "in metadata",
            "at a stop",
            "in a field",
        ] {
            assert!(has(Stage::Input, text), "{text}: {texts:?}");
        }
        assert!(has(Stage::ToolResults, "by a tool"), "{texts:?}");
        assert!(!texts.iter().any(|(_, text)| text == "string"), "{texts:?}");
    }

    #[test]
    fn what_hosted_tools_say_is_looked_at_and_a_providers_state_is_not() {
        let block = json!({
            "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
            "content": [{"title": "A page", "encrypted_content": "EqgfCioIARgB"}],
        });
        let foreign = || {
            Part::new(Content::Foreign(Foreign {
                dialect: Dialect::Messages,
                value: block.clone(),
            }))
        };
        let mut request = ChatRequest {
            messages: vec![Message::new(Role::Assistant, vec![foreign()])],
            ..ChatRequest::default()
        };
        assert_eq!(seen(&mut request), [(Stage::ToolResults, "A page".to_owned())]);
        let choice = Choice { parts: vec![foreign()], ..Choice::default() };
        let mut response = ChatResponse { choices: vec![choice], ..ChatResponse::default() };
        let mut stages = Vec::new();
        of_response(&mut response, &mut |place, _| {
            stages.push(place.stage);
            Ok(())
        })
        .unwrap();
        assert_eq!(stages, [Stage::Output]);
    }
}
