//! Images, sounds, films and documents: `inlineData` and `fileData`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::canon::{Dialect, Media, MediaKind, Source};

/// Ends of names and what they stand for, for addresses that come without a type.
const TYPES: [(&str, &str); 26] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("gif", "image/gif"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("mp3", "audio/mpeg"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("ogg", "audio/ogg"),
    ("aac", "audio/aac"),
    ("m4a", "audio/mp4"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mpeg", "video/mpeg"),
    ("avi", "video/x-msvideo"),
    ("3gp", "video/3gpp"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("json", "application/json"),
    ("xml", "application/xml"),
];

/// Files of Google's own store: nobody else can open them.
const STORE: &str = "https://generativelanguage.googleapis.com/";

pub(super) fn kind(media_type: &str) -> MediaKind {
    match media_type.split('/').next() {
        Some("image") => MediaKind::Image,
        Some("audio") => MediaKind::Audio,
        Some("video") => MediaKind::Video,
        _ => MediaKind::Document,
    }
}

/// The type that an address suggests.
fn guess(url: &str) -> Option<&'static str> {
    if ["https://www.youtube.com/", "https://youtu.be/"].iter().any(|start| url.starts_with(start))
    {
        return Some("video/mp4");
    }
    let path = url.split(['?', '#']).next()?;
    let (_, end) = path.rsplit_once('/')?.1.rsplit_once('.')?;
    TYPES
        .iter()
        .find(|(known, _)| end.eq_ignore_ascii_case(known))
        .map(|(_, media_type)| *media_type)
}

/// What `fileData` names.
pub(super) fn read_file(url: &str, media_type: Option<&str>) -> Media {
    let known = media_type.or_else(|| guess(url));
    let source = if url.starts_with(STORE) {
        Source::File { dialect: Dialect::Gemini, id: url.to_owned() }
    } else {
        Source::Url { url: url.to_owned(), media_type: media_type.map(str::to_owned) }
    };
    Media::new(known.map_or(MediaKind::Document, kind), source)
}

/// The part for a medium; the reason where there is none.
pub(super) fn write(media: &Media) -> Result<Map<String, Value>, String> {
    let inline = |media_type: &str, data: &str| json!({ "inlineData": { "mimeType": media_type, "data": data } });
    let file = |url: &str, media_type: &str| json!({ "fileData": { "fileUri": url, "mimeType": media_type } });
    let part = match &media.source {
        Source::Base64 { media_type, data } => inline(media_type, data),
        Source::Text(text) => inline("text/plain", &STANDARD.encode(text)),
        Source::File { dialect: Dialect::Gemini, id } => json!({ "fileData": { "fileUri": id } }),
        Source::File { .. } => {
            return Err("a file uploaded to another provider, which Gemini cannot open".into());
        }
        Source::Url { url, media_type } => match url.split_once(':') {
            Some(("data", data)) => {
                let (head, data) =
                    data.split_once(";base64,").ok_or("a `data:` address that is not base64")?;
                inline(head.split(';').next().unwrap_or_default(), data)
            }
            Some(("https" | "http" | "gs", _)) => {
                let media_type = media_type.as_deref().or_else(|| guess(url));
                file(url, media_type.unwrap_or_else(|| fallback(media.kind)))
            }
            _ => return Err("an address that is neither `https:`, `gs:` nor `data:`".into()),
        },
    };
    match part {
        Value::Object(part) => Ok(part),
        _ => Ok(Map::new()),
    }
}

/// Google looks at the bytes; the type must only be one that it takes.
fn fallback(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image/jpeg",
        MediaKind::Audio => "audio/mpeg",
        MediaKind::Video => "video/mp4",
        MediaKind::Document => "application/pdf",
    }
}
