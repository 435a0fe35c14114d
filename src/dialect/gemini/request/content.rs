//! Reads what was said: contents with their parts.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::field::{get, list, object, string, text, wrong};
use super::{RESULT, RESULT_FIELD};
use crate::canon::{
    Content, Dialect, Foreign, Media, Message, Opaque, Opening, Part, Reasoning, Role, Source,
    ToolCall, ToolResult,
};
use crate::dialect::gemini::{media, signature};
use crate::dialect::{Misread, portable_id};

/// Fields beside a part's content that go with it where it is written back.
const BESIDE: [&str; 3] = ["videoMetadata", "mediaResolution", "partMetadata"];

/// Calls that no result has answered yet, by their names: results may come without ids.
#[derive(Default)]
struct Calls {
    waiting: HashMap<String, VecDeque<String>>,
    /// What only Gemini says of results, by their ids.
    beside: Map<String, Value>,
}

pub(super) fn read_system(system: &Value) -> Result<Message, Misread> {
    let path = "systemInstruction";
    let parts = match system {
        Value::String(text) => vec![Part::text(text)],
        _ => read_parts(system, path, &mut Calls::default(), 0)?,
    };
    Ok(Message::new(Role::System, parts))
}

/// The messages, and extras that are fields of results.
pub(super) fn read(contents: &Value) -> Result<(Vec<Message>, Map<String, Value>), Misread> {
    let mut calls = Calls::default();
    let mut messages = Vec::new();
    if let Value::String(text) = contents {
        return Ok((vec![Message::new(Role::User, vec![Part::text(text)])], Map::new()));
    }
    for (place, content) in list(contents, "contents")?.iter().enumerate() {
        let path = format!("contents[{place}]");
        let role = match text(object(content, &path)?, "role") {
            Some("model" | "assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some("user" | "function" | "tool" | "") | None => Role::User,
            Some(_) => return Err(wrong(&format!("{path}.role"), "`user` or `model`")),
        };
        let mut parts = read_parts(content, &path, &mut calls, place)?;
        if role == Role::Assistant {
            parts = joined(parts);
        }
        apart(role, parts, &mut messages);
    }
    Ok((messages, calls.beside))
}

/// Results of tools are messages of their own.
fn apart(role: Role, parts: Vec<Part>, messages: &mut Vec<Message>) {
    let mut message = Message::new(role, Vec::new());
    for part in parts {
        let is_result = matches!(part.content, Content::ToolResult(_));
        let role = if is_result { Role::Tool } else { role };
        if message.role != role && !message.parts.is_empty() {
            messages.push(std::mem::replace(&mut message, Message::new(role, Vec::new())));
        }
        message.role = role;
        message.parts.push(part);
    }
    messages.push(message);
}

fn read_parts(
    content: &Value,
    path: &str,
    calls: &mut Calls,
    turn: usize,
) -> Result<Vec<Part>, Misread> {
    let path = format!("{path}.parts");
    let Some(parts) = get(object(content, &path)?, "parts") else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for (place, part) in list(parts, &path)?.iter().enumerate() {
        let path = format!("{path}[{place}]");
        let fields = object(part, &path)?;
        let content = match (get(fields, "functionCall"), get(fields, "functionResponse")) {
            (Some(call), _) => {
                let kept = text(fields, "thoughtSignature").and_then(signature::call_id);
                let fallback = kept.unwrap_or_else(|| format!("call_g{turn}_{place}"));
                Some(Content::ToolCall(read_call(call, &path, fallback, calls)?))
            }
            (None, Some(result)) => Some(Content::ToolResult(read_result(result, &path, calls)?)),
            (None, None) => read_content(fields, part, &path)?,
        };
        let opaque = match get(fields, "functionResponse") {
            Some(result) => own_name(result),
            None => read_opaque(fields, content.as_ref()),
        };
        out.extend(content.map(|content| Part { content, cache: None, opaque }));
    }
    Ok(out)
}

/// Clients give a streamed answer back as the pieces that it came in: a piece of only a space
/// belongs between its neighbours, and the state behind the last of a thought is for all of it.
fn joined(pieces: Vec<Part>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        let before = parts.last_mut().filter(|before| before.opaque.is_none());
        match (before.map(|before| (&mut before.content, &mut before.opaque)), piece) {
            // A signed text stays the part that it was signed as.
            (
                Some((Content::Text { text, .. }, _)),
                Part { content: Content::Text { text: more, .. }, opaque: None, .. },
            ) => text.push_str(&more),
            (
                Some((Content::Reasoning(thought), opaque)),
                Part { content: Content::Reasoning(more), opaque: sign, .. },
            ) => {
                thought.text.push_str(&more.text);
                (thought.summary, thought.redacted) = (more.summary, more.redacted);
                *opaque = sign;
            }
            (_, piece) => parts.push(piece),
        }
    }
    parts
}

fn read_content(
    fields: &Map<String, Value>,
    part: &Value,
    path: &str,
) -> Result<Option<Content>, Misread> {
    if let Some(blob) = get(fields, "inlineData") {
        let path = format!("{path}.inlineData");
        let blob = object(blob, &path)?;
        let media_type = text(blob, "mimeType").unwrap_or_default();
        let data = get(blob, "data").ok_or_else(|| wrong(&format!("{path}.data"), "base64"))?;
        let data = string(data, &format!("{path}.data"))?;
        // Google's libraries write base64 for addresses; the rest of the world reads the other.
        let data = data.replace('-', "+").replace('_', "/");
        let mut media = Media::new(media::kind(media_type), Source::base64(media_type, data));
        media.name = text(blob, "displayName").map(str::to_owned);
        return Ok(Some(Content::Media(media)));
    }
    if let Some(file) = get(fields, "fileData") {
        let path = format!("{path}.fileData");
        let file = object(file, &path)?;
        let url =
            text(file, "fileUri").ok_or_else(|| wrong(&format!("{path}.fileUri"), "an address"))?;
        return Ok(Some(Content::Media(media::read_file(url, text(file, "mimeType")))));
    }
    let known = ["text", "thought", "thoughtSignature"];
    let words = get(fields, "text");
    if words.is_none() {
        let foreign = fields.keys().any(|name| {
            let name = super::field::camel(name);
            !known.contains(&name.as_ref()) && !BESIDE.contains(&name.as_ref())
        });
        if foreign {
            let value = part.clone();
            return Ok(Some(Content::Foreign(Foreign { dialect: Dialect::Gemini, value })));
        }
    }
    let text =
        words.map_or_else(|| Ok(String::new()), |words| string(words, &format!("{path}.text")))?;
    if get(fields, "thought") != Some(&json!(true)) {
        return Ok(Some(Content::Text { text, citations: Vec::new() }));
    }
    let sign = self::text(fields, "thoughtSignature");
    let Opening::Reasoning { summary, redacted } = signature::thought(sign) else {
        return Ok(None);
    };
    Ok(Some(Content::Reasoning(Reasoning { text, summary, redacted, ..Reasoning::default() })))
}

/// A signature alone, or with the other fields that only Gemini has.
fn read_opaque(fields: &Map<String, Value>, content: Option<&Content>) -> Option<Opaque> {
    if matches!(content, Some(Content::Foreign(_))) {
        return None;
    }
    let sign = text(fields, "thoughtSignature").filter(|sign| !sign.is_empty());
    let mut beside = Map::new();
    for name in BESIDE {
        if let Some(value) = get(fields, name) {
            beside.insert(name.into(), value.clone());
        }
    }
    let typed = get(fields, "fileData").filter(|file| {
        let stored =
            matches!(content, Some(Content::Media(Media { source: Source::File { .. }, .. })));
        stored && file.as_object().is_some_and(|file| text(file, "mimeType").is_some())
    });
    if let Some(file) = typed {
        beside.insert("fileData".into(), file.clone());
    }
    if beside.is_empty() {
        return sign.and_then(signature::read);
    }
    if let Some(sign) = sign {
        beside.insert("thoughtSignature".into(), json!(sign));
    }
    Some(Opaque { dialect: Dialect::Gemini, data: Value::Object(beside) })
}

fn read_call(
    call: &Value,
    path: &str,
    fallback: String,
    calls: &mut Calls,
) -> Result<ToolCall, Misread> {
    let path = format!("{path}.functionCall");
    let fields = object(call, &path)?;
    let name = text(fields, "name").ok_or_else(|| wrong(&format!("{path}.name"), "a string"))?;
    let id = text(fields, "id").filter(|id| !id.is_empty());
    let id = id.map_or(fallback, |id| portable_id(id).into_owned());
    let arguments = match get(fields, "args") {
        Some(args) => {
            object(args, &format!("{path}.args"))?;
            args.to_string()
        }
        None => "{}".to_owned(),
    };
    calls.waiting.entry(name.to_owned()).or_default().push_back(id.clone());
    Ok(ToolCall { id, name: name.to_owned(), arguments, custom: false })
}

/// What a result was called that has another name than others read it by, and whether it is a text.
fn own_name(result: &Value) -> Option<Opaque> {
    let response = get(result.as_object()?, "response")?.as_object()?;
    let result = response.get(RESULT).filter(|_| response.len() == 1)?;
    Some(Opaque { dialect: Dialect::Gemini, data: json!({ RESULT: result.is_string() }) })
}

fn read_result(result: &Value, path: &str, calls: &mut Calls) -> Result<ToolResult, Misread> {
    let path = format!("{path}.functionResponse");
    let fields = object(result, &path)?;
    let name = text(fields, "name").ok_or_else(|| wrong(&format!("{path}.name"), "a string"))?;
    let given = text(fields, "id").filter(|id| !id.is_empty()).map(portable_id);
    let waiting = calls.waiting.get_mut(name);
    let id = match (given, waiting) {
        (Some(id), waiting) => {
            if let Some(ids) = waiting {
                ids.retain(|waiting| *waiting != *id);
            }
            id.into_owned()
        }
        (None, Some(ids)) => ids.pop_front().unwrap_or_else(|| portable_id(name).into_owned()),
        (None, None) => portable_id(name).into_owned(),
    };
    for (field, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let field = super::field::camel(field);
        if !["id", "name", "response", "parts"].contains(&field.as_ref()) {
            let values = calls.beside.entry(format!("{RESULT_FIELD}{field}"));
            values.or_insert_with(|| Value::Object(Map::new()))[&id] = value.clone();
        }
    }
    let empty = Map::new();
    let response = match get(fields, "response") {
        Some(response) => object(response, &format!("{path}.response"))?,
        None => &empty,
    };
    let only = |name: &str| {
        let value = (response.len() == 1).then(|| response.get(name)).flatten()?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let failed = only("error");
    let is_error = failed.is_some();
    let said = failed
        .or_else(|| only("output").or_else(|| only(RESULT)))
        .unwrap_or_else(|| Value::Object(response.clone()).to_string());
    let mut parts = vec![Part::text(said)];
    if let Some(media) = get(fields, "parts") {
        let path = format!("{path}.parts");
        for (place, part) in list(media, &path)?.iter().enumerate() {
            let path = format!("{path}[{place}]");
            let content = read_content(object(part, &path)?, part, &path)?;
            parts.extend(content.map(Part::new));
        }
    }
    Ok(ToolResult { id, name: Some(name.to_owned()), parts, is_error, custom: false })
}
