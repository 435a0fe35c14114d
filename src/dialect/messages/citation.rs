//! Citations: where in which document, search result or page a claim stands.

use serde_json::{Value, json};

use crate::canon::{Citation, Dialect, Opaque};

/// Reads a citation. Its places count in the source and not in the answer, so only the original
/// has them.
pub(super) fn read(value: Value) -> Citation {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let citation = Citation {
        url: text("url"),
        title: text("title").or_else(|| text("document_title")),
        quote: text("cited_text"),
        ..Citation::default()
    };
    if is_written_here(&value) {
        return citation;
    }
    Citation { original: Some(Opaque { dialect: Dialect::Messages, data: value }), ..citation }
}

/// The citation as Anthropic made it; `None` for another's.
pub(super) fn original(citation: &Citation) -> Option<&Value> {
    let original = citation.original.as_ref()?;
    (original.dialect == Dialect::Messages).then_some(&original.data)
}

/// The citation for a client: another's becomes a web search's, if it has an address.
pub(super) fn write(citation: &Citation) -> Option<Value> {
    if let Some(original) = original(citation) {
        return Some(original.clone());
    }
    let url = citation.url.as_ref()?;
    Some(json!({
        "type": "web_search_result_location",
        "url": url,
        "title": citation.title,
        "cited_text": citation.quote.as_deref().unwrap_or_default(),
        "encrypted_index": "",
    }))
}

/// Anthropic never leaves the index empty.
fn is_written_here(value: &Value) -> bool {
    value.get("encrypted_index").and_then(Value::as_str) == Some("")
}
