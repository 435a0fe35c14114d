//! What is read to a model with its place: search results, and documents made of blocks. Only this
//! API has such blocks; others are told what stands in them.

use std::borrow::Cow;

use serde_json::Value;

use super::block::read_content;
use crate::canon::{CacheMark, Content, Dialect, Foreign, Media, Part, Source};

/// Whether the part is such a block, or a tool's result with one.
pub(super) fn is_in(part: &Part) -> bool {
    match &part.content {
        Content::ToolResult(result) => result.parts.iter().any(|part| is_in(part) || is_text(part)),
        Content::Foreign(foreign) => foreign.dialect == Dialect::Messages && is_source(foreign),
        _ => false,
    }
}

/// A document that is plain text. Where a user may say one, a tool often may not.
fn is_text(part: &Part) -> bool {
    matches!(&part.content, Content::Media(Media { source: Source::Text(_), .. }))
}

fn is_source(foreign: &Foreign) -> bool {
    match foreign.value["type"].as_str() {
        Some("search_result") => true,
        Some("document") => foreign.value["source"]["type"] == "content",
        _ => false,
    }
}

/// Puts what they say in their places. Gives the names of what is lost.
pub(super) fn tell(parts: &mut Vec<Part>) -> Vec<Cow<'static, str>> {
    let mut lost = Vec::new();
    let mut told = Vec::with_capacity(parts.len());
    for mut part in parts.drain(..) {
        match &mut part.content {
            Content::ToolResult(result) => {
                lost.extend(tell(&mut result.parts));
                result.parts.iter_mut().for_each(|part| lost.extend(read_out(part)));
            }
            Content::Foreign(foreign) if is_source(foreign) => {
                let citable = foreign.value["citations"]["enabled"] == true;
                lost.extend(citable.then_some("citations".into()));
                told.extend(said(&foreign.value));
                if let Some(last) = told.last_mut() {
                    last.cache = mark(&foreign.value).or(last.cache);
                }
                continue;
            }
            _ => {}
        }
        told.push(part);
    }
    *parts = told;
    lost
}

/// Makes a text of a document that is one. Gives the name of what is lost.
fn read_out(part: &mut Part) -> Option<Cow<'static, str>> {
    let Content::Media(Media { source: Source::Text(text), name, citable, .. }) = &part.content
    else {
        return None;
    };
    let (head, citable) = (name.as_deref().map(|name| format!("{name}\n\n")), *citable);
    let text = format!("{}{text}", head.unwrap_or_default());
    part.content = Content::Text { text, citations: Vec::new() };
    citable.then_some("citations".into())
}

fn mark(block: &Value) -> Option<CacheMark> {
    let mark = block.get("cache_control").filter(|mark| mark.is_object())?;
    Some(if mark["ttl"] == "1h" { CacheMark::Long } else { CacheMark::Short })
}

/// What a block says: where it comes from, in a line of its own, and then the rest.
fn said(block: &Value) -> Vec<Part> {
    let content = match block["type"].as_str() {
        Some("document") => &block["source"]["content"],
        _ => &block["content"],
    };
    let mut parts = read_content(content.clone(), "content").unwrap_or_default();
    let heads = [&block["title"], &block["source"], &block["context"]];
    let heads: Vec<&str> = heads.into_iter().filter_map(Value::as_str).collect();
    if heads.is_empty() {
        return parts;
    }
    let head = format!("{}\n\n", heads.join("\n"));
    match parts.first_mut().map(|part| &mut part.content) {
        Some(Content::Text { text, .. }) => text.insert_str(0, &head),
        _ => parts.insert(0, Part::text(head)),
    }
    parts
}
