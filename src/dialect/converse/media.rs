//! Images, documents, films and sounds as Converse takes them: by format, in bytes or from S3.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::canon::{Media, MediaKind, Source};

/// Media types with the format that Converse calls them by.
const FORMATS: [(MediaKind, &str, &str); 37] = [
    (MediaKind::Image, "image/png", "png"),
    (MediaKind::Image, "image/jpeg", "jpeg"),
    (MediaKind::Image, "image/jpg", "jpeg"),
    (MediaKind::Image, "image/gif", "gif"),
    (MediaKind::Image, "image/webp", "webp"),
    (MediaKind::Document, "application/pdf", "pdf"),
    (MediaKind::Document, "text/csv", "csv"),
    (MediaKind::Document, "application/msword", "doc"),
    (
        MediaKind::Document,
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    (MediaKind::Document, "application/vnd.ms-excel", "xls"),
    (
        MediaKind::Document,
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    (MediaKind::Document, "text/html", "html"),
    (MediaKind::Document, "text/plain", "txt"),
    (MediaKind::Document, "text/markdown", "md"),
    (MediaKind::Video, "video/mp4", "mp4"),
    (MediaKind::Video, "video/quicktime", "mov"),
    (MediaKind::Video, "video/mov", "mov"),
    (MediaKind::Video, "video/x-matroska", "mkv"),
    (MediaKind::Video, "video/webm", "webm"),
    (MediaKind::Video, "video/x-flv", "flv"),
    (MediaKind::Video, "video/mpeg", "mpeg"),
    (MediaKind::Video, "video/mpg", "mpg"),
    (MediaKind::Video, "video/x-ms-wmv", "wmv"),
    (MediaKind::Video, "video/wmv", "wmv"),
    (MediaKind::Video, "video/3gpp", "three_gp"),
    (MediaKind::Audio, "audio/mpeg", "mp3"),
    (MediaKind::Audio, "audio/mp3", "mp3"),
    (MediaKind::Audio, "audio/wav", "wav"),
    (MediaKind::Audio, "audio/x-wav", "wav"),
    (MediaKind::Audio, "audio/ogg", "ogg"),
    (MediaKind::Audio, "audio/opus", "opus"),
    (MediaKind::Audio, "audio/aac", "aac"),
    (MediaKind::Audio, "audio/flac", "flac"),
    (MediaKind::Audio, "audio/mp4", "mp4"),
    (MediaKind::Audio, "audio/m4a", "m4a"),
    (MediaKind::Audio, "audio/webm", "webm"),
    (MediaKind::Audio, "audio/pcm", "pcm"),
];

/// The names that a request's documents have so far: no two may have the same.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

// === impl Names ===

impl Names {
    /// A name made of what Converse allows: letters, digits, single spaces, hyphens, parentheses
    /// and square brackets.
    fn pick(&mut self, wanted: Option<&str>) -> String {
        let allowed = |letter: char| {
            letter.is_ascii_alphanumeric() || matches!(letter, '-' | '(' | ')' | '[' | ']')
        };
        let clean: String =
            wanted.unwrap_or("").chars().map(|it| if allowed(it) { it } else { ' ' }).collect();
        let words: Vec<&str> = clean.split_whitespace().collect();
        let base: String = words.join(" ").chars().take(180).collect();
        let base = if base.is_empty() { "Document".to_owned() } else { base };
        let mut name = base.clone();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{base} ({number})");
            number += 1;
        }
        name
    }
}

/// The block for a medium, or why there is none.
pub(super) fn write(media: &Media, names: &mut Names) -> Result<Value, Cow<'static, str>> {
    let format = |media_type: &str| format_of(media.kind, media_type);
    let (format, source) = match &media.source {
        Source::Base64 { media_type, data } => (format(media_type)?, json!({ "bytes": data })),
        Source::Text(text) => ("txt", json!({ "bytes": STANDARD.encode(text) })),
        Source::Url { url, media_type } if url.starts_with("s3://") => {
            let ending = || url.rsplit('.').next().unwrap_or_default();
            let format =
                media_type.as_deref().map_or_else(|| by_name(media.kind, ending()), format)?;
            (format, json!({ "s3Location": { "uri": url } }))
        }
        Source::Url { .. } => {
            return Err(
                "is given by a URL, and this provider takes only bytes or S3 objects".into()
            );
        }
        Source::File { .. } => {
            return Err("was uploaded to another provider, and only that one can open it".into());
        }
    };
    Ok(match media.kind {
        MediaKind::Image => json!({ "image": { "format": format, "source": source } }),
        MediaKind::Video => json!({ "video": { "format": format, "source": source } }),
        MediaKind::Audio => json!({ "audio": { "format": format, "source": source } }),
        MediaKind::Document => {
            let name = names.pick(media.name.as_deref());
            let mut document = json!({ "format": format, "name": name, "source": source });
            if media.citable {
                document["citations"] = json!({ "enabled": true });
            }
            json!({ "document": document })
        }
    })
}

fn format_of(kind: MediaKind, media_type: &str) -> Result<&'static str, Cow<'static, str>> {
    let plain = media_type.split(';').next().unwrap_or_default().trim();
    let known = FORMATS.iter().find(|(of, name, _)| *of == kind && *name == plain);
    // Source code and the like are texts, whatever their name.
    let text = || (kind == MediaKind::Document && plain.starts_with("text/")).then_some("txt");
    let found = known.map(|(_, _, format)| *format).or_else(text);
    found.ok_or_else(|| format!("is `{media_type}`, which this provider does not take").into())
}

fn by_name(kind: MediaKind, ending: &str) -> Result<&'static str, Cow<'static, str>> {
    let ending = if ending == "jpg" { "jpeg" } else { ending };
    let known = FORMATS.iter().find(|(of, _, format)| *of == kind && *format == ending);
    let found = known.map(|(_, _, format)| *format);
    found.ok_or_else(|| format!("ends in `{ending}`, which this provider does not take").into())
}

/// A picture in an answer.
pub(super) fn read_image(value: &Value) -> Option<Media> {
    let format = value.get("format")?.as_str()?;
    let data = value.pointer("/source/bytes")?.as_str()?.to_owned();
    let source = Source::Base64 { media_type: format!("image/{format}"), data };
    Some(Media::new(MediaKind::Image, source))
}
