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
pub fn resume(
    mut body: Map<String, Value>,
    earlier: &[Value],
) -> Result<Map<String, Value>, Misread> {
    let new = items(&body.shift_remove("input").unwrap_or_default());
    body.shift_remove("previous_response_id");
    body.shift_remove("conversation");
    let mut whole = earlier.to_vec();
    for (place, item) in new.into_iter().enumerate() {
        if item["type"] != "item_reference" {
            whole.push(item);
            continue;
        }
        let known =
            earlier.iter().find(|known| known["id"] == item["id"] && item["id"].is_string());
        match known {
            // What already stands there is not said twice.
            Some(_) => {}
            None => {
                return Err(Misread::new(format!(
                    "`input[{place}]` refers to an item that is not known."
                )));
            }
        }
    }
    body.insert("input".to_owned(), Value::Array(whole));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_anew_with_all_that_was_said() {
        let body = json!({"model": "m", "previous_response_id": "resp_1", "input": "more"});
        let Value::Object(body) = body else { panic!("no object") };
        let earlier = [json!({"type": "odd", "id": "x", "data": [1]})];
        let resumed = resume(body.clone(), &earlier).unwrap();
        assert_eq!(resumed["input"][0], earlier[0]);
        assert_eq!(resumed["input"][1]["content"][0]["text"], "more");
        assert!(!resumed.contains_key("previous_response_id"));
        let mut lost = body;
        lost.insert("input".into(), json!([{"type": "item_reference", "id": "y"}]));
        assert!(resume(lost, &earlier).is_err());
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
