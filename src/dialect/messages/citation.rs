//! Citations: where in which document, search result or page a claim stands.

use serde_json::{Value, json};

use crate::canon::{Citation, Dialect, Opaque};

/// Reads a citation. The places that it names are in the source and not in the answer, so only the
/// original has them.
pub(super) fn read(value: Value) -> Citation {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let citation = Citation {
        url: text("url"),
        title: text("title").or_else(|| text("document_title")),
        quote: text("cited_text"),
        ..Citation::default()
    };
    if is_written_here(&value) {
        let title = citation.title.filter(|title| citation.url.as_ref() != Some(title));
        return Citation { title, ..citation };
    }
    Citation { original: Some(Opaque { dialect: Dialect::Messages, data: value }), ..citation }
}

/// Says which characters of the answer the citation supports.
pub(in crate::dialect) fn stands_for(citation: &mut Citation, start: u64, end: u64) {
    if start < end {
        (citation.start, citation.end) = (Some(start), Some(end));
    }
}

/// The citation as Anthropic made it; `None` for another's.
pub(super) fn original(citation: &Citation) -> Option<&Value> {
    let original = citation.original.as_ref()?;
    (original.dialect == Dialect::Messages).then_some(&original.data)
}

/// What Bedrock's Converse calls the places in a document, and what they are called here: the
/// citation, where it begins and where it ends.
const PLACES: [(&str, [&str; 3]); 3] = [
    ("documentChar", ["char_location", "start_char_index", "end_char_index"]),
    ("documentPage", ["page_location", "start_page_number", "end_page_number"]),
    ("documentChunk", ["content_block_location", "start_block_index", "end_block_index"]),
];

/// The citation for a client: another's becomes a web search's, if it has an address. Claude cites
/// documents on Bedrock as it does here.
pub(super) fn write(citation: &Citation) -> Option<Value> {
    if let Some(original) = original(citation) {
        return Some(original.clone());
    }
    let Some(url) = &citation.url else { return place(citation) };
    Some(json!({
        "type": "web_search_result_location",
        "url": url,
        // Typed clients want one.
        "title": citation.title.as_ref().unwrap_or(url),
        "cited_text": citation.quote.as_deref().unwrap_or_default(),
        "encrypted_index": "",
    }))
}

/// A place in a document, as Converse names it.
fn place(citation: &Citation) -> Option<Value> {
    let original = citation.original.as_ref().filter(|it| it.dialect == Dialect::Converse)?;
    let location = original.data.get("location")?;
    let (place, [kind, start, end]) =
        PLACES.iter().find_map(|(name, words)| Some((location.get(name)?, *words)))?;
    Some(json!({
        "type": kind,
        "cited_text": citation.quote.as_deref().unwrap_or_default(),
        "document_index": place.get("documentIndex")?.as_u64()?,
        "document_title": citation.title,
        start: place.get("start")?.as_u64()?,
        end: place.get("end")?.as_u64()?,
    }))
}

/// Anthropic never leaves the index empty.
fn is_written_here(value: &Value) -> bool {
    value.get("encrypted_index").and_then(Value::as_str) == Some("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_a_title_is_called_by_its_address() {
        let page = Citation { url: Some("https://a.example".into()), ..Citation::default() };
        let written = write(&page).unwrap();
        assert_eq!(written["title"], "https://a.example");
        assert_eq!(read(written), Citation { quote: Some(String::new()), ..page });
    }
}
