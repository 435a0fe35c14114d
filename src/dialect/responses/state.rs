//! What a server of this API remembers for its clients, as pure steps over stored items.
//!
//! Items stay as they came, those that nobody here knows included.

use serde_json::{Map, Value, json};

use crate::dialect::Misread;

/// The items of a question's `input`: a text is a user's message.
pub fn items(input: &Value) -> Vec<Value> {
    match input {
        Value::Array(items) => items.clone(),
        Value::String(text) => vec![json!({
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        })],
        _ => Vec::new(),
    }
}

/// A question with all that was said before it in its `input`: it refers to nothing any more.
/// `knows` says whether an item of this id was said, though it may not be among `earlier`.
pub fn resume(
    mut body: Map<String, Value>,
    mut earlier: Vec<Value>,
    knows: impl Fn(&Value) -> bool,
) -> Result<Map<String, Value>, Misread> {
    let new = items(&body.shift_remove("input").unwrap_or_default());
    body.shift_remove("previous_response_id");
    body.shift_remove("conversation");
    for (place, item) in new.into_iter().enumerate() {
        if item["type"] != "item_reference" {
            earlier.push(item);
        } else if !item["id"].is_string() || !knows(&item["id"]) {
            return Err(Misread::new(format!(
                "`input[{place}]` refers to an item that is not known."
            )));
        }
        // What was said already is not said twice.
    }
    body.insert("input".to_owned(), Value::Array(earlier));
    Ok(body)
}

/// Which of the stored items a client asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page<'a> {
    /// The item after which the page begins.
    pub after: Option<&'a str>,
    /// 20 where it says nothing, 100 at most.
    pub limit: Option<usize>,
    /// Oldest first; the API's own order is newest first.
    pub ascending: bool,
}

/// A page of a response's input items, each with an id.
pub fn list(response: &str, items: &[Value], page: Page<'_>) -> Value {
    let id = response.strip_prefix("resp_").unwrap_or(response);
    let mut all: Vec<Value> = items
        .iter()
        .cloned()
        .enumerate()
        .map(|(place, mut item)| {
            if let Some(fields) = item.as_object_mut().filter(|fields| !fields.contains_key("id")) {
                fields.insert("id".to_owned(), format!("item_{id}_{place}").into());
            }
            item
        })
        .collect();
    if !page.ascending {
        all.reverse();
    }
    let after = page.after.and_then(|after| all.iter().position(|item| item["id"] == after));
    let rest = all.split_off(after.map_or(0, |place| place + 1));
    let limit = page.limit.unwrap_or(20).clamp(1, 100);
    let shown = &rest[..rest.len().min(limit)];
    json!({
        "object": "list",
        "data": shown,
        "first_id": shown.first().map(|item| &item["id"]),
        "last_id": shown.last().map(|item| &item["id"]),
        "has_more": rest.len() > limit,
    })
}

/// A kept response as the stream that it could have come in: each item whole in one piece.
pub fn replay(response: &Value) -> Vec<u8> {
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    let output = response["output"].as_array().into_iter().flatten();
    for (place, item) in output.enumerate() {
        replay_item(place, item, &mut events);
    }
    let end = end_of(response["status"].as_str().unwrap_or_default());
    events.push(json!({"type": end, "response": response}));
    let mut out = Vec::new();
    for (number, mut event) in events.into_iter().enumerate() {
        event["sequence_number"] = json!(number);
        let kind = event["type"].as_str().unwrap_or_default();
        out.extend_from_slice(format!("event: {kind}\ndata: {event}\n\n").as_bytes());
    }
    out
}

/// The event by which a stream ends whose response has this status. The API has none of its own for
/// one that was called off, and its libraries know no other than these.
pub fn end_of(status: &str) -> &'static str {
    match status {
        "failed" => "response.failed",
        "incomplete" | "cancelled" => "response.incomplete",
        _ => "response.completed",
    }
}

fn replay_item(place: usize, item: &Value, events: &mut Vec<Value>) {
    let mut opened = item.clone();
    let parts = if item["type"] == "message" { opened["content"].take() } else { Value::Null };
    if parts.is_array() {
        opened["content"] = json!([]);
        opened["status"] = json!("in_progress");
    }
    events.push(json!({
        "type": "response.output_item.added", "output_index": place, "item": opened,
    }));
    for (index, part) in parts.as_array().into_iter().flatten().enumerate() {
        replay_part(place, &item["id"], index, part, events);
    }
    events.push(json!({
        "type": "response.output_item.done", "output_index": place, "item": item,
    }));
}

/// A part of a message. What is no text or refusal comes with its part alone.
fn replay_part(place: usize, id: &Value, index: usize, part: &Value, events: &mut Vec<Value>) {
    let event = |kind: &str, name: &str, value: Value| {
        let mut event = json!({
            "type": kind, "item_id": id, "output_index": place, "content_index": index,
        });
        event[name] = value;
        if kind.starts_with("response.output_text.") {
            event["logprobs"] = json!([]);
        }
        event
    };
    let names = match part["type"].as_str() {
        Some("output_text") => Some(("output_text", "text")),
        Some("refusal") => Some(("refusal", "refusal")),
        _ => None,
    };
    let mut opened = part.clone();
    if let Some((_, field)) = names {
        opened[field] = json!("");
    }
    events.push(event("response.content_part.added", "part", opened));
    if let Some((kind, field)) = names {
        let text = &part[field];
        events.push(event(&format!("response.{kind}.delta"), "delta", text.clone()));
        events.push(event(&format!("response.{kind}.done"), field, text.clone()));
    }
    events.push(event("response.content_part.done", "part", part.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_anew_with_all_that_was_said() {
        let body = json!({"model": "m", "previous_response_id": "resp_1", "input": "more"});
        let Value::Object(body) = body else { panic!("no object") };
        let earlier = vec![json!({"type": "odd", "id": "x", "data": [1]})];
        let knows = |id: &Value| id == "x";
        let resumed = resume(body.clone(), earlier.clone(), knows).unwrap();
        assert_eq!(resumed["input"][0], earlier[0]);
        assert_eq!(resumed["input"][1]["content"][0]["text"], "more");
        assert!(!resumed.contains_key("previous_response_id"));
        let mut lost = body;
        lost.insert("input".into(), json!([{"type": "item_reference", "id": "y"}]));
        assert!(resume(lost, earlier, knows).is_err());
    }

    #[test]
    fn items_are_listed_page_by_page() {
        let items: Vec<Value> = (0..3).map(|number| json!({ "n": number })).collect();
        let page = list("resp_a", &items, Page { limit: Some(2), ..Page::default() });
        assert_eq!((&page["data"][0]["n"], &page["has_more"]), (&json!(2), &json!(true)));
        let after = page["last_id"].as_str();
        let rest = list("resp_a", &items, Page { after, ..Page::default() });
        assert_eq!((&rest["data"][0]["n"], &rest["has_more"]), (&json!(0), &json!(false)));
    }
}
