//! A response as it is kept: what was asked, what was answered, and what came before.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One kept response. A conversation is a chain of them, each with its own turn only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) response: Value,
    /// The items of this turn's question.
    pub(super) input: Vec<Value>,
    pub(super) previous: Option<String>,
    /// The provider that keeps it too, under the same id.
    pub(super) provider: Option<String>,
}

/// A longer chain is not followed.
pub(super) const LONGEST_CHAIN: usize = 2_000;

impl Stored {
    /// What a request asked, in the items of the API. A text alone is a user's message.
    pub(super) fn input_of(request: &Value) -> Vec<Value> {
        match &request["input"] {
            Value::String(text) => vec![json!({
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": text}],
            })],
            Value::Array(items) => items.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn output(&self) -> &[Value] {
        self.response["output"].as_array().map_or(&[], Vec::as_slice)
    }
}

/// The request with all that was said before in its input, oldest first. `own` says whether the
/// provider that is asked keeps these responses itself: any other cannot make sense of thoughts
/// that stand there by their id alone.
pub(super) fn unroll(request: &mut Map<String, Value>, chain: &[Stored], own: bool) {
    let asked = Stored::input_of(&Value::Object(request.clone()));
    let mut input = Vec::new();
    for turn in chain {
        input.extend(turn.input.iter().cloned());
        input.extend(turn.output().iter().filter(|item| own || !is_bare_thought(item)).cloned());
    }
    input.extend(asked);
    request.insert("input".to_owned(), Value::Array(input));
    request.shift_remove("previous_response_id");
}

fn is_bare_thought(item: &Value) -> bool {
    item["type"] == "reasoning" && !item["encrypted_content"].is_string()
}

/// One page of the items that a response was asked with: newest first unless `order` is `asc`.
pub(super) fn page(stored: &[Stored], query: &[(String, String)]) -> Value {
    let field = |name: &str| {
        let found = query.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    };
    let mut items: Vec<Value> = Vec::new();
    for (place, turn) in stored.iter().enumerate() {
        let is_last = place + 1 == stored.len();
        items.extend(turn.input.iter().cloned());
        items.extend(turn.output().iter().filter(|_| !is_last).cloned());
    }
    for (place, item) in items.iter_mut().enumerate() {
        identify(item, place);
    }
    if field("order") != Some("asc") {
        items.reverse();
    }
    let start = field("after")
        .and_then(|after| items.iter().position(|item| item["id"] == after))
        .map_or(0, |found| found + 1);
    let limit = field("limit").and_then(|text| text.parse().ok()).unwrap_or(20_usize);
    let limit = limit.clamp(1, 100);
    let data: Vec<Value> = items.iter().skip(start).take(limit).cloned().collect();
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "has_more": start + data.len() < items.len(),
        "data": data,
    })
}

/// Items of a question need no id; in a list they have one.
fn identify(item: &mut Value, place: usize) {
    let Some(item) = item.as_object_mut() else { return };
    item.entry("type").or_insert_with(|| json!("message"));
    item.entry("id").or_insert_with(|| json!(format!("item_{place}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(question: &str, answer: &Value) -> Stored {
        let input = Stored::input_of(&json!({"input": question}));
        let response = json!({"id": question, "output": answer});
        Stored { response, input, previous: None, provider: None }
    }

    #[test]
    fn a_conversation_is_unrolled_in_order_and_names_no_response_any_more() {
        let said = json!({"type": "message", "role": "assistant"});
        let thought = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let sealed = json!({"type": "reasoning", "id": "rs_2", "encrypted_content": "x"});
        let chain = [turn("one", &json!([thought, said])), turn("two", &json!([sealed]))];
        let request = json!({"previous_response_id": "two", "input": "three", "model": "m"});
        let mut other = request.as_object().cloned().unwrap();
        unroll(&mut other, &chain, false);
        assert!(!other.contains_key("previous_response_id"));
        let types = |request: &Map<String, Value>| -> Vec<String> {
            let items = request["input"].as_array().unwrap().iter();
            items.map(|item| item["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(types(&other), ["message", "message", "message", "reasoning", "message"]);
        let mut own = request.as_object().cloned().unwrap();
        unroll(&mut own, &chain, true);
        assert_eq!(types(&own)[1], "reasoning");
    }

    #[test]
    fn a_page_of_items_goes_on_behind_the_last_one() {
        let stored =
            [turn("one", &json!([{"type": "message", "id": "msg_1"}])), turn("two", &json!([]))];
        let query = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let first = page(&stored, &query(&[("limit", "2")]));
        assert_eq!((&first["has_more"], &first["last_id"]), (&json!(true), &json!("msg_1")));
        let second = page(&stored, &query(&[("limit", "2"), ("after", "msg_1")]));
        assert_eq!((&second["has_more"], &second["first_id"]), (&json!(false), &json!("item_0")));
        let ascending = page(&stored, &query(&[("order", "asc")]));
        assert_eq!(ascending["first_id"], "item_0");
    }
}
