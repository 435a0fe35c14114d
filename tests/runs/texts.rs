//! Which words of a run stand where in the answers of each API.

use serde_json::{Value, json};

use super::doors::{House, RESPONSES, chat, events};
use crate::support::client::CHAT;

/// All that was said in these events under this name, by the place of its part.
fn texts(stream: &str, pointer: &str, place: &str) -> Vec<String> {
    let mut texts: Vec<(Value, String)> = Vec::new();
    for event in events(stream) {
        let Some(piece) = event.pointer(pointer).and_then(Value::as_str) else { continue };
        match texts.last_mut().filter(|(known, _)| *known == event[place]) {
            Some((_, text)) => text.push_str(piece),
            None => texts.push((event[place].clone(), piece.to_owned())),
        }
    }
    texts.into_iter().map(|(_, text)| text).collect()
}

#[tokio::test]
async fn texts_are_set_apart_only_where_an_answer_has_but_one() {
    let house = House::new().await;
    house.gate.open();
    let messages = json!([{"role": "user", "content": "My order?"}]);
    let anthropic = json!({
        "model": "agent/support", "max_tokens": 100, "messages": messages, "stream": true,
    });
    let openai = json!({"model": "agent/support", "input": "My order?", "stream": true});
    let stream = house.ask(RESPONSES, &[], &openai).await;
    let apart = ["Let me look.", "It is in Bonn."];
    assert_eq!(texts(stream.text(), "/delta", "output_index"), apart, "{}", stream.text());
    let last = events(stream.text()).pop().unwrap()["response"].clone();
    let said = last["output"].as_array().unwrap().iter();
    let said: Vec<_> = said.filter_map(|item| item["content"][0]["text"].as_str()).collect();
    assert_eq!(said, apart, "{last:#}");
    let stream = house.ask("/v1/messages", &[], &anthropic).await;
    assert_eq!(texts(stream.text(), "/delta/text", "index"), apart, "{}", stream.text());
    let whole = ["Let me look.\n\nIt is in Bonn."];
    let stream = house.ask(CHAT, &[], &chat("My order?", &json!({"stream": true}))).await;
    let content = texts(stream.text(), "/choices/0/delta/content", "none").concat();
    assert_eq!(content, whole[0], "{}", stream.text());
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "My order?"}]}]});
    let path = "/v1beta/models/agent/support:streamGenerateContent?alt=sse";
    let stream = house.ask(path, &[], &google).await;
    let said = texts(stream.text(), "/candidates/0/content/parts/0/text", "none");
    assert_eq!(said, whole, "{}", stream.text());
}

#[tokio::test]
async fn every_line_of_a_stream_by_googles_door_is_data() {
    let house = House::new().await;
    house.gate.open();
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "My order?"}]}]});
    let path = "/v1beta/models/agent/support:streamGenerateContent?alt=sse";
    for mode in ["live", "final", "steps"] {
        let stream = house.ask(path, &[("x-switchpoint-stream", mode)], &google).await;
        let odd = |line: &str| !line.is_empty() && !line.starts_with("data: {");
        let odd: Vec<&str> = stream.text().lines().filter(|line| odd(line)).collect();
        assert!(odd.is_empty() && stream.text().contains("Bonn"), "{mode}: {odd:?}");
    }
}

#[tokio::test]
async fn what_is_to_be_json_has_no_other_words_before_it() {
    let house = House::new().await;
    house.gate.open();
    let schema = json!({"type": "object", "properties": {"place": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let more = json!({"stream": true, "response_format": format});
    let stream = house.ask(CHAT, &[], &chat("My order?", &more)).await;
    let content = texts(stream.text(), "/choices/0/delta/content", "none").concat();
    assert_eq!(content, "It is in Bonn.", "{}", stream.text());
    let format = json!({"format": {"type": "json_schema", "name": "a", "schema": schema}});
    let openai =
        json!({"model": "agent/support", "input": "My order?", "stream": true, "text": format});
    let stream = house.ask(RESPONSES, &[], &openai).await;
    let said = texts(stream.text(), "/delta", "output_index");
    assert_eq!(said, ["It is in Bonn."], "{}", stream.text());
}
