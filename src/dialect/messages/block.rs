//! Content blocks read into parts, and parts written as blocks.
//!
//! A block that has a common meaning becomes that; its fields without one stay beside it as opaque
//! state (`signature`, `data`, `caller`, `context`), an object that is written back as it was.
//! Every other block is kept whole.

use serde_json::{Map, Value, json};

use super::citation;
use super::fields::Fields;
use crate::canon::{
    CacheMark, Content, Dialect, Foreign, Media, MediaKind, Opaque, Part, Reasoning, Source,
    ToolCall, ToolResult,
};
use crate::dialect::{Misread, keepsake, opaque, portable_id};

/// In the data of a sealed state: it belongs to the block before, which has no field for it.
const OF_LAST: &str = "of_last";

/// Reads the blocks of a message; a plain string is one block of text.
pub(super) fn read_content(content: Value, path: &str) -> Result<Vec<Part>, Misread> {
    let blocks = match content {
        Value::String(text) => return Ok(vec![Part::text(text)]),
        Value::Array(blocks) => blocks,
        _ => return Err(Misread::new(format!("`{path}` must be a string or a list of blocks."))),
    };
    let mut parts: Vec<Part> = Vec::with_capacity(blocks.len());
    for (place, block) in blocks.into_iter().enumerate() {
        let part = read_block(block, &format!("{path}[{place}]"))?;
        match (of_last(&part), parts.last_mut()) {
            (Some(opaque), Some(last)) => last.opaque = Some(opaque),
            _ => parts.push(part),
        }
    }
    Ok(parts)
}

/// The state in this part, if it is one that `state_after` wrote.
fn of_last(part: &Part) -> Option<Opaque> {
    let opaque = part.opaque.as_ref()?;
    let data = opaque.data.get(OF_LAST).filter(|_| opaque.dialect != Dialect::Messages)?;
    Some(Opaque { dialect: opaque.dialect, data: data.clone() })
}

/// A block that carries another dialect's state of the block before it: clients must send such
/// blocks back and never look into them.
pub(super) fn state_after(part: &Part) -> Option<Value> {
    let opaque = part.opaque.as_ref().filter(|opaque| opaque.dialect != Dialect::Messages)?;
    Some(sealed_after(opaque))
}

pub(super) fn sealed_after(opaque: &Opaque) -> Value {
    let data = json!({ OF_LAST: opaque.data });
    let sealed = opaque::seal(&Opaque { dialect: opaque.dialect, data });
    json!({ "type": "redacted_thinking", "data": sealed })
}

pub(super) fn read_block(block: Value, path: &str) -> Result<Part, Misread> {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = match kind {
        "text" => read_text,
        "thinking" => read_thinking,
        "redacted_thinking" => read_redacted,
        "tool_use" => read_call,
        "tool_result" => read_result,
        "image" | "document" if has_plain_source(&block) => read_media,
        "" => return Err(Misread::new(format!("`{path}.type` must be a string."))),
        _ => return Ok(Part::new(foreign(block))),
    };
    let mut fields = Fields::new(block, path)?;
    let cache = read_mark(&mut fields);
    let mut part = kind(fields)?;
    part.cache = cache;
    Ok(part)
}

pub(super) fn foreign(block: Value) -> Content {
    Content::Foreign(Foreign { dialect: Dialect::Messages, value: block })
}

pub(super) fn read_mark(fields: &mut Fields) -> Option<CacheMark> {
    let mark = fields.take("cache_control")?;
    let long = mark.get("ttl").and_then(Value::as_str) == Some("1h");
    Some(if long { CacheMark::Long } else { CacheMark::Short })
}

/// A part with the fields that have no common meaning.
fn with_rest(content: Content, rest: Map<String, Value>) -> Part {
    let mut part = Part::new(content);
    part.opaque = own(rest);
    part
}

/// The state that these fields are; none if there are none.
pub(super) fn own(mut rest: Map<String, Value>) -> Option<Opaque> {
    rest.shift_remove("type");
    let data = Value::Object(rest);
    let filled = data.as_object().is_some_and(|rest| !rest.is_empty());
    filled.then_some(Opaque { dialect: Dialect::Messages, data })
}

/// The state in a field that travels opaquely: ours of another dialect, or Anthropic's own.
pub(super) fn unseal(mut fields: Map<String, Value>, name: &str) -> Option<Opaque> {
    match fields.get(name).and_then(Value::as_str) {
        Some("") => {
            fields.shift_remove(name);
        }
        Some(text) => {
            if let Some(opaque) = opaque::open(text) {
                return Some(opaque);
            }
        }
        None => {}
    }
    own(fields)
}

fn read_text(mut fields: Fields) -> Result<Part, Misread> {
    let text = fields.required_text("text")?;
    let citations = fields.list("citations")?.into_iter().map(citation::read).collect();
    Ok(with_rest(Content::Text { text, citations }, fields.rest()))
}

fn read_thinking(mut fields: Fields) -> Result<Part, Misread> {
    let text = fields.text("thinking")?.unwrap_or_default();
    let mut part = Part::new(Content::Reasoning(Reasoning { text, ..Reasoning::default() }));
    part.opaque = unseal(fields.rest(), "signature");
    Ok(part)
}

#[expect(clippy::unnecessary_wraps, reason = "one of several readers of one shape")]
fn read_redacted(fields: Fields) -> Result<Part, Misread> {
    let redacted = Reasoning { redacted: true, ..Reasoning::default() };
    let mut part = Part::new(Content::Reasoning(redacted));
    part.opaque = unseal(fields.rest(), "data");
    Ok(part)
}

fn read_call(mut fields: Fields) -> Result<Part, Misread> {
    let id = fields.required_text("id")?;
    let name = fields.required_text("name")?;
    let arguments = match fields.take("input") {
        None => "{}".to_owned(),
        // Some hosts send the text that they should have parsed.
        Some(Value::String(text)) if text.is_empty() => "{}".to_owned(),
        Some(Value::String(text)) => text,
        Some(input) => input.to_string(),
    };
    let call = ToolCall { id, name, arguments, custom: false };
    Ok(with_rest(Content::ToolCall(call), fields.rest()))
}

fn read_result(mut fields: Fields) -> Result<Part, Misread> {
    let id = fields.required_text("tool_use_id")?;
    let is_error = fields.flag("is_error")?.unwrap_or(false);
    let path = fields.path("content");
    let parts = match fields.take("content") {
        Some(content) => read_content(content, &path)?,
        None => Vec::new(),
    };
    let result = ToolResult { id, name: None, parts, is_error, custom: false };
    Ok(with_rest(Content::ToolResult(result), fields.rest()))
}

/// Whether the source of an image or a document is one that others have too.
fn has_plain_source(block: &Value) -> bool {
    let kind = block.get("source").and_then(|source| source.get("type")).and_then(Value::as_str);
    matches!(kind, Some("base64" | "url" | "text" | "file"))
}

fn read_media(mut fields: Fields) -> Result<Part, Misread> {
    let kind = match fields.take("type") {
        Some(Value::String(kind)) if kind == "image" => MediaKind::Image,
        _ => MediaKind::Document,
    };
    let path = fields.path("source");
    let Some(mut source) = fields.object("source")? else {
        return Err(Misread::new(format!("`{path}` must be an object.")));
    };
    let source = match source.required_text("type")?.as_str() {
        "base64" => {
            let media_type = source.required_text("media_type")?;
            Source::base64(&media_type, source.required_text("data")?)
        }
        "url" => Source::Url { url: source.required_text("url")?, media_type: None },
        "text" => Source::Text(source.required_text("data")?),
        _ => Source::File { dialect: Dialect::Messages, id: source.required_text("file_id")? },
    };
    let mut media = Media::new(kind, source);
    media.name = fields.text("title")?;
    if let Some(mut citations) = fields.object("citations")? {
        media.citable = citations.flag("enabled")?.unwrap_or(false);
    }
    Ok(with_rest(Content::Media(media), fields.rest()))
}

/// Adds to a block what its part carries besides its content.
pub(super) fn finish_block(mut block: Value, part: &Part) -> Value {
    if let Some(fields) = block.as_object_mut() {
        let own = part.opaque_for(Dialect::Messages).and_then(Value::as_object);
        let own = own.into_iter().flatten();
        for (name, value) in own.filter(|(name, _)| !keepsake::is_private(name)) {
            fields.insert(name.clone(), value.clone());
        }
        if let Some(mark) = part.cache {
            fields.insert("cache_control".to_owned(), write_mark(mark));
        }
    }
    block
}

pub(super) fn write_mark(mark: CacheMark) -> Value {
    match mark {
        CacheMark::Short => json!({ "type": "ephemeral" }),
        CacheMark::Long => json!({ "type": "ephemeral", "ttl": "1h" }),
    }
}

pub(super) fn write_call(call: &ToolCall, input: &Map<String, Value>) -> Value {
    let id = portable_id(&call.id);
    json!({ "type": "tool_use", "id": id, "name": call.name, "input": input })
}

/// An image or a document; `None` for what the API has no block for.
pub(super) fn write_media(media: &Media) -> Option<Value> {
    let kind = match media.kind {
        MediaKind::Image => "image",
        MediaKind::Document => "document",
        MediaKind::Audio | MediaKind::Video => return None,
    };
    let source = match &media.source {
        Source::Url { url, .. } => json!({ "type": "url", "url": url }),
        Source::Base64 { media_type, data } => {
            let known = media.kind == MediaKind::Image || media_type == "application/pdf";
            if known {
                json!({ "type": "base64", "media_type": media_type, "data": data })
            } else {
                plain_source(&decoded_text(media_type, data)?)
            }
        }
        Source::Text(text) => plain_source(text),
        Source::File { dialect: Dialect::Messages, id } => json!({ "type": "file", "file_id": id }),
        Source::File { .. } => return None,
    };
    let mut block = json!({ "type": kind, "source": source });
    if media.kind == MediaKind::Document {
        if let Some(name) = &media.name {
            block["title"] = json!(name);
        }
        if media.citable {
            block["citations"] = json!({ "enabled": true });
        }
    }
    Some(block)
}

fn plain_source(text: &str) -> Value {
    json!({ "type": "text", "media_type": "text/plain", "data": text })
}

/// A text file's text: the API takes only PDF as base64, and text as text.
fn decoded_text(media_type: &str, data: &str) -> Option<String> {
    use base64::Engine;
    let is_text = media_type.starts_with("text/")
        || ["application/json", "application/xml", "application/yaml"].contains(&media_type);
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok().filter(|_| is_text)?;
    String::from_utf8(bytes).ok()
}
