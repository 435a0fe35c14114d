//! What stands inside an item: text, images, files, sounds, and where claims come from.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::item::{Bad, string};
use crate::canon::{
    CacheMark, Citation, Content, Dialect, Foreign, Media, MediaKind, Opaque, Part, Source,
};
use crate::dialect::{Inexpressible, document};

/// A message's `content` or a tool's `output`: a text or a list of parts.
pub(super) fn read(value: &Value) -> Result<Vec<Part>, Bad> {
    match value {
        Value::String(text) => Ok(vec![Part::text(text.as_str())]),
        Value::Array(parts) => parts.iter().map(read_part).collect(),
        Value::Null => Ok(Vec::new()),
        _ => Err("content"),
    }
}

fn read_part(value: &Value) -> Result<Part, Bad> {
    let content = match value["type"].as_str().ok_or("content[].type")? {
        "input_text" | "output_text" | "text" | "summary_text" => Content::Text {
            text: string(value, "text").ok_or("content[].text")?.to_owned(),
            citations: citations(&value["annotations"]),
        },
        "refusal" => {
            Content::Refusal(string(value, "refusal").ok_or("content[].refusal")?.to_owned())
        }
        "input_image" => Content::Media(read_image(value)?),
        "input_file" => Content::Media(read_file(value)?),
        "input_audio" => Content::Media(read_audio(&value["input_audio"])?),
        _ => Content::Foreign(Foreign { dialect: Dialect::Responses, value: value.clone() }),
    };
    Ok(Part { content, cache: read_mark(value), opaque: None })
}

/// OpenAI's breakpoint, or the one that `OpenRouter` takes.
fn read_mark(value: &Value) -> Option<CacheMark> {
    let control = &value["cache_control"];
    let marked = value["prompt_cache_breakpoint"].is_object() || control.is_object();
    let mark = if control["ttl"] == "1h" { CacheMark::Long } else { CacheMark::Short };
    marked.then_some(mark)
}

fn read_image(value: &Value) -> Result<Media, Bad> {
    let url = string(value, "image_url").or_else(|| string(&value["image_url"], "url"));
    let source = match (url, string(value, "file_id")) {
        (Some(url), _) => located(url),
        (None, Some(id)) => uploaded(id),
        (None, None) => return Err("content[].image_url"),
    };
    let mut media = Media::new(MediaKind::Image, source);
    media.detail = string(value, "detail").map(str::to_owned);
    Ok(media)
}

fn read_file(value: &Value) -> Result<Media, Bad> {
    let given = |name| string(value, name);
    let source = match (given("file_data"), given("file_url"), given("file_id")) {
        (Some(data), _, _) if data.starts_with("data:") => located(data),
        (Some(data), _, _) => {
            Source::Base64 { media_type: "application/pdf".to_owned(), data: data.to_owned() }
        }
        (None, Some(url), _) => located(url),
        (None, None, Some(id)) => uploaded(id),
        (None, None, None) => return Err("content[].file_data"),
    };
    let mut media = Media::new(MediaKind::Document, source);
    media.name = given("filename").map(str::to_owned);
    Ok(media)
}

fn read_audio(value: &Value) -> Result<Media, Bad> {
    let data = string(value, "data").ok_or("content[].input_audio.data")?.to_owned();
    let media_type = match string(value, "format").unwrap_or("wav") {
        "mp3" => "audio/mpeg".to_owned(),
        format => format!("audio/{format}"),
    };
    Ok(Media::new(MediaKind::Audio, Source::Base64 { media_type, data }))
}

fn uploaded(id: &str) -> Source {
    Source::File { dialect: Dialect::Responses, id: id.to_owned() }
}

/// A URL, or what a data URL holds.
fn located(url: &str) -> Source {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match inline {
        Some((media_type, data)) => {
            Source::base64(media_type.split(';').next().unwrap_or_default(), data)
        }
        None => Source::Url { url: url.to_owned(), media_type: None },
    }
}

/// A text's `annotations`.
pub(super) fn citations(value: &Value) -> Vec<Citation> {
    value.as_array().into_iter().flatten().map(citation).collect()
}

const PLAIN: [&str; 5] = ["type", "url", "title", "start_index", "end_index"];

pub(super) fn citation(value: &Value) -> Citation {
    let object = value.as_object();
    let plain = value["type"] == "url_citation"
        && object.is_some_and(|fields| fields.keys().all(|name| PLAIN.contains(&name.as_str())));
    let text = |name| string(value, name).map(str::to_owned);
    Citation {
        url: text("url"),
        title: text("title").or_else(|| text("filename")),
        quote: None,
        start: value["start_index"].as_u64(),
        end: value["end_index"].as_u64(),
        original: (!plain).then(|| Opaque { dialect: Dialect::Responses, data: value.clone() }),
    }
}

/// The citation with its place counted from elsewhere.
pub(super) fn moved(citation: &Citation, by: impl Fn(u64) -> u64) -> Citation {
    let (start, end) = (citation.start.map(&by), citation.end.map(&by));
    Citation { start, end, ..citation.clone() }
}

pub(super) fn write_citation(citation: &Citation) -> Option<Value> {
    if let Some(Opaque { dialect: Dialect::Responses, data }) = &citation.original {
        return Some(data.clone());
    }
    let Some(url) = &citation.url else {
        // What is cited is not what it is called.
        citation.title.as_ref().or(citation.quote.as_ref())?;
        let name = citation.title.as_deref().unwrap_or_default();
        return Some(
            json!({"type": "file_citation", "file_id": "", "filename": name, "index": citation.end.unwrap_or(0)}),
        );
    };
    Some(json!({
        "type": "url_citation",
        "start_index": citation.start.unwrap_or(0),
        "end_index": citation.end.unwrap_or(0),
        "url": url,
        "title": citation.title.as_deref().unwrap_or_default(),
    }))
}

/// A part of what a user, an operator or a tool says; `marks` tells whether the target knows cache
/// breakpoints. `None` for what only another API has.
pub(super) fn write_input(part: &Part, marks: bool) -> Result<Option<Value>, Inexpressible> {
    let mut value = match &part.content {
        Content::Text { text, .. } | Content::Refusal(text) => {
            json!({"type": "input_text", "text": text})
        }
        Content::Media(media) => write_media(media)?,
        Content::Foreign(Foreign { dialect: Dialect::Responses, value }) => value.clone(),
        Content::Foreign(_)
        | Content::Reasoning(_)
        | Content::ToolCall(_)
        | Content::ToolResult(_) => return Ok(None),
    };
    if marks && part.cache.is_some() {
        value["prompt_cache_breakpoint"] = json!({"mode": "explicit"});
    }
    Ok(Some(value))
}

fn write_media(media: &Media) -> Result<Value, Inexpressible> {
    let mut fields = Map::new();
    let (kind, place) = match media.kind {
        MediaKind::Image => ("input_image", "image_url"),
        MediaKind::Document => ("input_file", "file_url"),
        MediaKind::Audio => return write_audio(media),
        MediaKind::Video => {
            return Err(Inexpressible("The target takes no video (`messages`).".into()));
        }
    };
    fields.insert("type".into(), kind.into());
    match &media.source {
        Source::Url { url, .. } => fields.insert(place.into(), url.as_str().into()),
        Source::Base64 { media_type, data } => {
            let place = if media.kind == MediaKind::Image { place } else { "file_data" };
            fields.insert(place.into(), format!("data:{media_type};base64,{data}").into())
        }
        Source::Text(text) => {
            let text = document::in_words(media.name.as_deref(), text);
            return Ok(json!({"type": "input_text", "text": text}));
        }
        Source::File { dialect: Dialect::Responses | Dialect::Chat, id } => {
            fields.insert("file_id".into(), id.as_str().into())
        }
        Source::File { .. } => {
            return Err(Inexpressible(
                "A file that was uploaded to another provider (`file_id`) is not the target's to open.".into(),
            ));
        }
    };
    if media.kind == MediaKind::Document {
        let name = media.name.as_deref();
        let name = match &media.source {
            // The API asks for a name beside a file's data.
            Source::Base64 { media_type, .. } => Some(document::file_name(name, media_type)),
            _ => name.map(Cow::Borrowed),
        };
        fields.extend(name.map(|name| ("filename".to_owned(), json!(name))));
    } else {
        fields.extend(media.detail.as_deref().map(|detail| ("detail".to_owned(), detail.into())));
    }
    Ok(Value::Object(fields))
}

fn write_audio(media: &Media) -> Result<Value, Inexpressible> {
    let Source::Base64 { media_type, data } = &media.source else {
        return Err(Inexpressible(
            "The target takes sounds as base64 only (`input_audio`).".into(),
        ));
    };
    let format = match media_type.as_str() {
        "audio/mpeg" => "mp3",
        "audio/x-wav" | "audio/wave" => "wav",
        other => other.strip_prefix("audio/").unwrap_or(other),
    };
    Ok(json!({"type": "input_audio", "input_audio": {"data": data, "format": format}}))
}
