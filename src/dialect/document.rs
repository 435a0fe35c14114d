//! Documents that are plain text, though they travel as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The text of one; `None` if it is none.
pub fn text(media_type: &str, data: &str) -> Option<String> {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/") || kind.ends_with("json") || kind.ends_with("xml");
    let bytes = STANDARD.decode(data.as_bytes()).ok().filter(|_| is_text)?;
    String::from_utf8(bytes).ok()
}

/// A text as one travels.
pub fn of_text(text: &str) -> String {
    STANDARD.encode(text)
}
