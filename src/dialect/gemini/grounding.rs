//! Where an answer's claims come from: Gemini's grounding and citation metadata.

use serde_json::{Map, Value, json};

use crate::canon::{Citation, Dialect, Opaque};

/// The citations in a candidate's metadata. The first carries the whole as its original.
pub(super) fn read(metadata: &Map<String, Value>, answer: &str) -> Vec<Citation> {
    let mut citations = Vec::new();
    if let Some(grounding) = metadata.get("groundingMetadata") {
        read_grounding(grounding, answer, &mut citations);
    }
    if let Some(sources) = metadata.get("citationMetadata").and_then(|recited| {
        recited.get("citationSources").or_else(|| recited.get("citations"))?.as_array()
    }) {
        citations.extend(sources.iter().map(|source| {
            let (start, end) = span(source, answer);
            Citation {
                url: text(source, "uri"),
                title: text(source, "title"),
                start,
                end,
                ..Citation::default()
            }
        }));
    }
    if citations.is_empty()
        && let Some(pages) =
            metadata.get("urlContextMetadata").and_then(|read| read["urlMetadata"].as_array())
    {
        citations.extend(pages.iter().filter_map(|page| {
            Some(Citation { url: Some(text(page, "retrievedUrl")?), ..Citation::default() })
        }));
    }
    if let Some(first) = citations.first_mut() {
        let data = Value::Object(metadata.clone());
        first.original = Some(Opaque { dialect: Dialect::Gemini, data });
    }
    citations
}

fn read_grounding(grounding: &Value, answer: &str, citations: &mut Vec<Citation>) {
    let none = Vec::new();
    let chunks = grounding["groundingChunks"].as_array().unwrap_or(&none);
    let supports = grounding["groundingSupports"].as_array().unwrap_or(&none);
    let mut cited = vec![false; chunks.len()];
    for support in supports {
        let (start, end) = span(&support["segment"], answer);
        let places = support["groundingChunkIndices"].as_array().unwrap_or(&none);
        for place in places.iter().filter_map(|place| usize::try_from(place.as_u64()?).ok()) {
            let Some(chunk) = chunks.get(place) else { continue };
            cited[place] = true;
            citations.push(Citation { start, end, ..source(chunk) });
        }
    }
    let silent = chunks.iter().zip(&cited).filter(|(_, cited)| !**cited);
    citations.extend(silent.map(|(chunk, _)| source(chunk)));
}

/// What a chunk names: a page, a place on a map, a piece of a file.
fn source(chunk: &Value) -> Citation {
    let named =
        ["web", "retrievedContext", "maps", "image"].iter().find_map(|kind| chunk.get(*kind));
    let Some(named) = named else { return Citation::default() };
    Citation {
        url: text(named, "uri").or_else(|| text(named, "sourceUri")),
        title: text(named, "title"),
        quote: text(named, "text"),
        ..Citation::default()
    }
}

/// From Gemini's bytes to characters. Where its places do not fit, its words are looked for.
fn span(segment: &Value, answer: &str) -> (Option<u64>, Option<u64>) {
    let byte = |name: &str| segment[name].as_u64().and_then(|byte| usize::try_from(byte).ok());
    let (start, Some(end)) = (byte("startIndex").unwrap_or(0), byte("endIndex")) else {
        return (None, None);
    };
    let words = segment["text"].as_str();
    let found = answer.get(start..end).filter(|found| words.is_none_or(|words| words == *found));
    let (start, end) = match (found, words) {
        (Some(_), _) => (start, end),
        (None, Some(words)) => match answer.find(words) {
            Some(start) => (start, start + words.len()),
            None => return (None, None),
        },
        (None, None) => return (None, None),
    };
    let characters = |to: usize| answer.get(..to).map(|before| before.chars().count() as u64);
    (characters(start), characters(end))
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

/// A candidate's metadata for these citations: the original, or what can be said anew.
pub(super) fn write(citations: &[&Citation], answer: &str) -> Map<String, Value> {
    let original = citations.iter().find_map(|citation| match &citation.original {
        Some(Opaque { dialect: Dialect::Gemini, data: Value::Object(data) }) => Some(data.clone()),
        _ => None,
    });
    if let Some(original) = original {
        return original;
    }
    let mut chunks = Vec::new();
    let mut supports = Vec::new();
    for citation in citations {
        let Some(chunk) = chunk(citation) else { continue };
        let place = chunks.iter().position(|known| *known == chunk).unwrap_or_else(|| {
            chunks.push(chunk);
            chunks.len() - 1
        });
        let bytes = citation.start.zip(citation.end).and_then(|(start, end)| {
            let (start, end) = (byte_of(answer, start)?, byte_of(answer, end)?);
            Some((start, end, answer.get(start..end)?))
        });
        if let Some((start, end, words)) = bytes {
            let segment = json!({ "startIndex": start, "endIndex": end, "text": words });
            supports.push(json!({ "segment": segment, "groundingChunkIndices": [place] }));
        }
    }
    let mut out = Map::new();
    if !chunks.is_empty() {
        let grounding = json!({ "groundingChunks": chunks, "groundingSupports": supports });
        out.insert("groundingMetadata".into(), grounding);
    }
    out
}

fn chunk(citation: &Citation) -> Option<Value> {
    let mut named = Map::new();
    for (name, value) in [("uri", &citation.url), ("title", &citation.title)] {
        if let Some(value) = value {
            named.insert(name.into(), json!(value));
        }
    }
    // What stands in the web has an address.
    let kind = if citation.url.is_some() { "web" } else { "retrievedContext" };
    if let (None, Some(quote)) = (&citation.url, &citation.quote) {
        named.insert("text".into(), json!(quote));
    }
    (!named.is_empty()).then(|| json!({ kind: named }))
}

fn byte_of(answer: &str, character: u64) -> Option<usize> {
    let character = usize::try_from(character).ok()?;
    let mut places = answer.char_indices().map(|(byte, _)| byte).chain([answer.len()]);
    places.nth(character)
}
