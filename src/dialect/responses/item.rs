//! One item of a conversation as parts: what the model said, thought or called.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::content;
use super::hosted::{Hosted, joined};
use crate::canon::{
    Content, Dialect, Foreign, Media, MediaKind, Opaque, Part, Reasoning, Source, ToolCall,
};
use crate::dialect::opaque;

/// The field that is missing or not of its type.
pub(super) type Bad = &'static str;

/// What an item of the model's stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read {
    Parts(Vec<Part>),
    /// State that another provider wants back with the part before; this API has no place for it
    /// but an item of its own.
    Belongs(Opaque),
}

pub(super) fn string<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// Reads an item that the model wrote; one that is not known is kept as it is.
pub(super) fn read(item: &Value) -> Result<Read, Bad> {
    let kind = string(item, "type").unwrap_or("message");
    let part = match kind {
        "message" => return message(item).map(Read::Parts),
        "reasoning" => return Ok(reasoning(item)),
        "function_call" => function_call(item)?,
        "custom_tool_call" => custom_call(item)?,
        "image_generation_call" if item["result"].is_string() => image(item),
        _ => match Hosted::of_call(kind) {
            Some(hosted) => hosted_call(hosted, item)?,
            None => Part::new(Content::Foreign(Foreign {
                dialect: Dialect::Responses,
                value: item.clone(),
            })),
        },
    };
    Ok(Read::Parts(vec![part]))
}

/// The fields of an item that our types do not say, to be written back with it. An id alone is not
/// worth keeping: no API asks for it.
pub(super) fn rest(item: &Value, known: &[&str]) -> Option<Opaque> {
    let fields = item.as_object()?.iter();
    let kept: Map<String, Value> = fields
        .filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let telling = kept.keys().any(|name| name != "id");
    telling.then(|| Opaque { dialect: Dialect::Responses, data: Value::Object(kept) })
}

/// The fields of a message that our types say.
pub(super) const MESSAGE: &[&str] = &["type", "role", "content", "status"];
const FUNCTION: &[&str] = &["type", "call_id", "name", "namespace", "arguments", "status"];
const CUSTOM: &[&str] = &["type", "call_id", "name", "namespace", "input", "status"];

fn message(item: &Value) -> Result<Vec<Part>, Bad> {
    let mut parts = content::read(&item["content"])?;
    let rest = rest(item, MESSAGE);
    for part in &mut parts {
        part.opaque.clone_from(&rest);
    }
    Ok(parts)
}

/// The id that joins a call and its result.
pub(super) fn call_id(item: &Value) -> Result<String, Bad> {
    let id = string(item, "call_id").or_else(|| string(item, "id"));
    id.filter(|id| !id.is_empty()).map(str::to_owned).ok_or("call_id")
}

pub(super) fn call_name(item: &Value) -> Result<String, Bad> {
    let name = string(item, "name").filter(|name| !name.is_empty()).ok_or("name")?;
    Ok(joined(string(item, "namespace").unwrap_or_default(), name))
}

/// A text, or the JSON that stands in its place.
pub(super) fn json_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        Value::Null => "".into(),
        other => other.to_string().into(),
    }
}

fn function_call(item: &Value) -> Result<Part, Bad> {
    let arguments = json_text(&item["arguments"]).into_owned();
    let call = ToolCall { id: call_id(item)?, name: call_name(item)?, arguments, custom: false };
    Ok(Part { opaque: rest(item, FUNCTION), ..Part::new(Content::ToolCall(call)) })
}

fn custom_call(item: &Value) -> Result<Part, Bad> {
    let call = ToolCall {
        id: call_id(item)?,
        name: call_name(item)?,
        arguments: string(item, "input").unwrap_or_default().to_owned(),
        custom: true,
    };
    Ok(Part { opaque: rest(item, CUSTOM), ..Part::new(Content::ToolCall(call)) })
}

/// A call of a tool that the client runs; its kind stays with it.
fn hosted_call(hosted: &Hosted, item: &Value) -> Result<Part, Bad> {
    let call = ToolCall {
        id: call_id(item)?,
        name: hosted.name.to_owned(),
        arguments: item.get(hosted.field).ok_or(hosted.field)?.to_string(),
        custom: false,
    };
    let opaque = rest(item, &["call_id", "status", hosted.field]);
    Ok(Part { opaque, ..Part::new(Content::ToolCall(call)) })
}

/// A picture that the model made.
fn image(item: &Value) -> Part {
    let format = string(item, "output_format").unwrap_or("png");
    let source = Source::Base64 {
        media_type: format!("image/{format}"),
        data: string(item, "result").unwrap_or_default().to_owned(),
    };
    let media = Content::Media(Media::new(MediaKind::Image, source));
    Part { opaque: rest(item, &["result", "status"]), ..Part::new(media) }
}

/// All texts of a list of summaries or thoughts.
fn texts(list: &Value) -> String {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|part| string(part, "text")).collect::<Vec<_>>().join("\n\n")
}

fn reasoning(item: &Value) -> Read {
    let summary = texts(&item["summary"]);
    let is_summary = !summary.is_empty();
    let text = if is_summary { summary } else { texts(&item["content"]) };
    let encrypted = string(item, "encrypted_content").filter(|state| !state.is_empty());
    let opened = encrypted.and_then(opaque::open).map(unpack);
    let mut redacted = text.is_empty() && encrypted.is_some();
    let opaque = match opened {
        Some(Sealed::Belongs(opaque)) => return Read::Belongs(opaque),
        Some(Sealed::Blank(opaque)) => {
            redacted = false;
            Some(opaque)
        }
        Some(Sealed::Thought(opaque)) => Some(opaque),
        None => {
            let theirs = string(item, "id").is_some_and(|id| !is_ours(id));
            (encrypted.is_some() || theirs)
                .then(|| Opaque { dialect: Dialect::Responses, data: item.clone() })
        }
    };
    let thought = Reasoning { text, summary: is_summary, redacted, ..Reasoning::default() };
    let content = Content::Reasoning(thought);
    Read::Parts(vec![Part { opaque, ..Part::new(content) }])
}

/// Whether the gateway made this id: `rs_sp_`, 32 digits, a place.
fn is_ours(id: &str) -> bool {
    let place = id.strip_prefix("rs_sp_").and_then(|rest| rest.split_once('_'));
    place.is_some_and(|(_, place)| place.bytes().all(|byte| byte.is_ascii_digit()))
}

/// State of another provider in an item of this API.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sealed {
    /// A thought's, or all that there is of it.
    Thought(Opaque),
    /// A thought's that has no words and yet is not withheld.
    Blank(Opaque),
    /// Of the part before.
    Belongs(Opaque),
}

// === impl Sealed ===

impl Sealed {
    pub(super) fn seal(&self) -> String {
        let (of, state) = match self {
            Self::Thought(opaque) => return opaque::seal(opaque),
            Self::Blank(opaque) => ("blank", opaque),
            Self::Belongs(opaque) => ("previous", opaque),
        };
        let data = json!({"of": of, "state": opaque::seal(state)});
        opaque::seal(&Opaque { dialect: Dialect::Responses, data })
    }
}

fn unpack(opened: Opaque) -> Sealed {
    let of = (opened.dialect == Dialect::Responses).then(|| string(&opened.data, "of")).flatten();
    let inner = string(&opened.data, "state").and_then(opaque::open);
    match (of, inner) {
        (Some("blank"), Some(inner)) => Sealed::Blank(inner),
        (Some("previous"), Some(inner)) => Sealed::Belongs(inner),
        _ => Sealed::Thought(opened),
    }
}
