//! Parts of a content list, images and citations, read and written.

use serde_json::{Map, Value, json};

use crate::canon::{
    CacheMark, Citation, Content, Dialect, Foreign, Media, MediaKind, Opaque, Part, Source,
};
use crate::dialect::{Aim, Documents, Inexpressible, Misread, document};

/// Reads one part of a message's content list; `path` names it in errors.
pub(super) fn read_part(part: &Value, path: &str) -> Result<Part, Misread> {
    if let Some(text) = part.as_str() {
        return Ok(Part::text(text));
    }
    let kind = part["type"].as_str();
    let kind = kind.ok_or_else(|| Misread::new(format!("`{path}.type` must be a string.")))?;
    let lacks = |name: &str| Misread::new(format!("`{path}.{name}` must be given."));
    let content = match kind {
        "text" | "input_text" | "output_text" => match &part["text"] {
            Value::String(text) => Content::Text { text: text.clone(), citations: Vec::new() },
            _ => return Err(lacks("text")),
        },
        "refusal" => Content::Refusal(text_of(&part["refusal"])),
        "thinking" => Content::Reasoning(crate::canon::Reasoning {
            text: text_of(&part["thinking"]),
            ..Default::default()
        }),
        "image_url" => Content::Media(read_image(part).ok_or_else(|| lacks("image_url.url"))?),
        "video_url" => {
            let url = address(&part["video_url"]).ok_or_else(|| lacks("video_url.url"))?;
            Content::Media(Media::new(MediaKind::Video, read_source(url)))
        }
        "document_url" => {
            let url = address(&part["document_url"]).ok_or_else(|| lacks("document_url"))?;
            let mut media = Media::new(MediaKind::Document, read_source(url));
            media.name = part["document_name"].as_str().map(str::to_owned);
            Content::Media(media)
        }
        "input_audio" => Content::Media(read_audio(part).ok_or_else(|| lacks("input_audio.data"))?),
        "file" => Content::Media(read_file(part).ok_or_else(|| lacks("file.file_data"))?),
        _ => Content::Foreign(Foreign { dialect: Dialect::Chat, value: part.clone() }),
    };
    // A block that is kept whole keeps its mark too.
    let cache = if matches!(content, Content::Foreign(_)) { None } else { read_mark(part) };
    Ok(Part { cache, ..Part::new(content) })
}

/// The breakpoint on a part, a tool or a message: Anthropic's way, or OpenAI's.
pub(super) fn read_mark(part: &Value) -> Option<CacheMark> {
    let control = &part["cache_control"];
    if control["type"] == "ephemeral" {
        return Some(if control["ttl"] == "1h" { CacheMark::Long } else { CacheMark::Short });
    }
    (part["prompt_cache_breakpoint"]["mode"] == "explicit").then_some(CacheMark::Short)
}

pub(super) fn write_mark(mark: CacheMark) -> Value {
    match mark {
        CacheMark::Short => json!({ "type": "ephemeral" }),
        CacheMark::Long => json!({ "type": "ephemeral", "ttl": "1h" }),
    }
}

/// A text, or the joined texts of a list of text parts.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(|part| text_of(&part["text"])).collect(),
        _ => String::new(),
    }
}

/// An `image_url` part; Mistral has the URL where others have an object.
pub(super) fn read_image(part: &Value) -> Option<Media> {
    let image = &part["image_url"];
    let mut media = Media::new(MediaKind::Image, read_source(address(image)?));
    media.detail = image["detail"].as_str().map(str::to_owned);
    Some(media)
}

fn address(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["url"].as_str()).filter(|url| !url.is_empty())
}

fn read_source(url: &str) -> Source {
    match data_url(url) {
        Some((media_type, data)) => Source::base64(media_type, data),
        None => Source::Url { url: url.to_owned(), media_type: None },
    }
}

/// Media type and base64 of a `data:` URL.
fn data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    Some((head.strip_suffix(";base64")?, data))
}

fn read_audio(part: &Value) -> Option<Media> {
    let audio = &part["input_audio"];
    let data = audio["data"].as_str()?;
    let media_type = match audio["format"].as_str().unwrap_or("wav") {
        "mp3" => "audio/mpeg".to_owned(),
        format => format!("audio/{format}"),
    };
    let source = match data_url(data) {
        Some((media_type, data)) => Source::base64(media_type, data),
        None => Source::Base64 { media_type, data: data.to_owned() },
    };
    Some(Media::new(MediaKind::Audio, source))
}

fn read_file(part: &Value) -> Option<Media> {
    let file = &part["file"];
    let name = file["filename"].as_str().map(str::to_owned);
    let source = match (file["file_data"].as_str(), file["file_id"].as_str()) {
        (Some(data), _) if data.starts_with("data:") || data.starts_with("http") => {
            read_source(data)
        }
        (Some(data), _) => {
            Source::Base64 { media_type: "application/pdf".into(), data: data.to_owned() }
        }
        (None, Some(id)) => Source::File { dialect: Dialect::Chat, id: id.to_owned() },
        (None, None) => return None,
    };
    Some(Media { name, ..Media::new(MediaKind::Document, source) })
}

/// A part of a user's message for this target.
pub(super) fn write_media(media: &Media, aim: &Aim<'_>) -> Result<Value, Inexpressible> {
    let cannot = |what: &str| Err(Inexpressible(format!("This target cannot take {what}.").into()));
    match (media.kind, &media.source) {
        (_, Source::File { dialect, id }) => match dialect {
            // OpenAI's two APIs share their files.
            Dialect::Chat | Dialect::Responses => {
                Ok(json!({ "type": "file", "file": { "file_id": id } }))
            }
            Dialect::Messages | Dialect::Gemini | Dialect::Converse | Dialect::Cohere => {
                cannot("a file that was uploaded to another provider")
            }
        },
        (_, Source::Text(text)) => {
            let text = document::in_words(media.name.as_deref(), text);
            Ok(json!({ "type": "text", "text": text }))
        }
        (MediaKind::Image, Source::Url { .. }) if !aim.traits.image_urls => {
            cannot("an image by its URL; send it as base64")
        }
        (MediaKind::Image, source) => Ok(write_image(media, source)),
        (MediaKind::Video, source) => {
            Ok(json!({ "type": "video_url", "video_url": { "url": write_source(source) } }))
        }
        (MediaKind::Audio, Source::Base64 { media_type, data }) => {
            let format = media_type.rsplit('/').next().unwrap_or("wav");
            let format = match format {
                "mpeg" => "mp3",
                "x-wav" | "wave" => "wav",
                other => other,
            };
            Ok(json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } }))
        }
        (MediaKind::Audio, Source::Url { .. }) => cannot("a sound by its URL; send it as base64"),
        (MediaKind::Document, source) => write_document(media, source, aim),
    }
}

fn write_document(media: &Media, source: &Source, aim: &Aim<'_>) -> Result<Value, Inexpressible> {
    let data = write_source(source);
    match (aim.traits.documents, source) {
        (Documents::DocumentUrl, _) => {
            let mut part = json!({ "type": "document_url", "document_url": data });
            if let Some(name) = &media.name {
                part["document_name"] = json!(name);
            }
            Ok(part)
        }
        (Documents::File, Source::Url { .. }) => Err(Inexpressible(
            "This target cannot take a document by its URL; send it as base64.".into(),
        )),
        (Documents::File | Documents::FileOrUrl, _) => {
            // The name is required beside data.
            let name = document::file_name(media.name.as_deref(), media_type_of(source));
            Ok(json!({ "type": "file", "file": { "filename": name, "file_data": data } }))
        }
    }
}

fn media_type_of(source: &Source) -> &str {
    match source {
        Source::Base64 { media_type, .. } | Source::Url { media_type: Some(media_type), .. } => {
            media_type
        }
        _ => "",
    }
}

pub(super) fn write_image(media: &Media, source: &Source) -> Value {
    let mut image = json!({ "url": write_source(source) });
    if let Some(detail) = &media.detail {
        image["detail"] = json!(detail);
    }
    json!({ "type": "image_url", "image_url": image })
}

fn write_source(source: &Source) -> String {
    match source {
        Source::Url { url, .. } => url.clone(),
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
        Source::Text(text) => text.clone(),
        Source::File { id, .. } => id.clone(),
    }
}

/// An entry of `annotations`.
pub(super) fn read_citation(annotation: &Value) -> Citation {
    const KNOWN: [&str; 5] = ["url", "title", "content", "start_index", "end_index"];
    let (known, cited) = match annotation["type"].as_str() {
        Some(kind @ ("url_citation" | "document_citation")) => (true, &annotation[kind]),
        _ => (false, annotation),
    };
    let text = |name: &str| cited[name].as_str().map(str::to_owned);
    let is_plain = |fields: &Map<String, Value>| {
        known
            && fields.iter().all(|(name, value)| KNOWN.contains(&name.as_str()) && !value.is_null())
    };
    let whole = cited.as_object().is_some_and(is_plain);
    // What ends at the beginning is a place that nobody told.
    let place = |name: &str| cited[name].as_u64().filter(|_| cited["end_index"] != 0);
    let original = || {
        let mut data = annotation.clone();
        // Its place in the list, by which clients put streams together.
        if let Some(fields) = data.as_object_mut() {
            fields.shift_remove("index");
        }
        Opaque { dialect: Dialect::Chat, data }
    };
    Citation {
        url: text("url"),
        title: text("title").filter(|title| !title.is_empty()),
        quote: text("content"),
        start: place("start_index"),
        end: place("end_index"),
        original: (!whole).then(original),
    }
}

/// Where citations stand that have no address.
pub(super) const WITHOUT_URL: &str = "x_citations";

/// A citation, and the field that it is an entry of. The SDKs know annotations with an address and
/// want all of their fields; others would break those that check types, and stand by themselves.
pub(super) fn write_citation(citation: &Citation) -> (&'static str, Value) {
    if let Some(Opaque { dialect: Dialect::Chat, data }) = &citation.original {
        return ("annotations", data.clone());
    }
    let mut fields = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let Some(url) = &citation.url else {
        put("title", text(&citation.title));
        put("content", text(&citation.quote));
        put("start_index", citation.start.map(Value::from));
        put("end_index", citation.end.map(Value::from));
        let kind = "document_citation";
        return (WITHOUT_URL, json!({ "type": kind, kind: fields }));
    };
    put("url", Some(json!(url)));
    put("title", Some(json!(citation.title.as_deref().unwrap_or_default())));
    put("content", text(&citation.quote));
    put("start_index", Some(citation.start.unwrap_or(0).into()));
    put("end_index", Some(citation.end.unwrap_or(0).into()));
    let kind = "url_citation";
    ("annotations", json!({ "type": kind, kind: fields }))
}
