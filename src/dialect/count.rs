//! Counting a question's tokens where its target's provider does it: the bodies of each API.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{gemini, messages};
use crate::canon::{Dialect, Surface};

/// What of a question each API counts; it refuses the rest.
const MESSAGES: &[&str] = &["system", "messages", "tools", "tool_choice", "thinking"];
const RESPONSES: &[&str] = &[
    "model",
    "instructions",
    "input",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
];
/// Vertex AI's own form; Gemini's API takes the whole question, under a name.
const VERTEX: &[&str] = &["systemInstruction", "contents", "tools"];

/// The body by which a target counts this question, which was written for it; `None` where the
/// dialect counts nothing. `at_home`: by the dialect's own maker, and not by Vertex AI.
pub fn ask(question: &[u8], into: Dialect, model: &str, at_home: bool) -> Option<Vec<u8>> {
    let mut question: Map<String, Value> = serde_json::from_slice(question).ok()?;
    let known = match into {
        Dialect::Messages => MESSAGES,
        Dialect::Responses => RESPONSES,
        Dialect::Gemini if !at_home => VERTEX,
        Dialect::Gemini => {
            question.insert("model".into(), json!(format!("models/{model}")));
            return Some(json!({ "generateContentRequest": question }).to_string().into_bytes());
        }
        Dialect::Chat | Dialect::Converse | Dialect::Cohere => return None,
    };
    question.retain(|name, _| known.contains(&name.as_str()));
    // In the path there is the counter's own name.
    if into == Dialect::Messages {
        question.insert("model".into(), json!(model));
    }
    Some(Value::Object(question).to_string().into_bytes())
}

#[derive(Deserialize)]
struct Counted {
    #[serde(alias = "totalTokens")]
    input_tokens: u64,
}

/// What the provider has counted.
pub fn read(answer: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Counted>(answer).ok().map(|counted| counted.input_tokens)
}

/// What the door says of it.
pub fn answer(surface: Surface, tokens: u64) -> Vec<u8> {
    match surface {
        Surface::GoogleCountTokens => gemini::write_count(tokens),
        Surface::InputTokens => {
            let count = json!({ "object": "response.input_tokens", "input_tokens": tokens });
            count.to_string().into_bytes()
        }
        _ => messages::write_token_count(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(question: &Value, into: Dialect, at_home: bool) -> Option<Value> {
        let body = ask(question.to_string().as_bytes(), into, "m-1", at_home)?;
        Some(serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn each_api_is_asked_to_count_what_it_counts_and_nothing_else() {
        let question = json!({"model": "x", "messages": [1], "max_tokens": 9, "stream": true});
        let expected = json!({"messages": [1], "model": "m-1"});
        assert_eq!(asked(&question, Dialect::Messages, false), Some(expected));
        let question = json!({"model": "m-1", "input": [1], "store": false, "text": {}});
        let expected = json!({"model": "m-1", "input": [1], "text": {}});
        assert_eq!(asked(&question, Dialect::Responses, true), Some(expected));
        let question = json!({"contents": [1], "generationConfig": {}});
        let whole = json!({"generateContentRequest": {
            "contents": [1], "generationConfig": {}, "model": "models/m-1"}});
        assert_eq!(asked(&question, Dialect::Gemini, true), Some(whole));
        assert_eq!(asked(&question, Dialect::Gemini, false), Some(json!({"contents": [1]})));
        assert_eq!(asked(&question, Dialect::Chat, true), None);
        assert_eq!(
            (read(br#"{"input_tokens":7}"#), read(br#"{"totalTokens":8}"#)),
            (Some(7), Some(8))
        );
        assert_eq!(read(b"{}"), None);
    }
}
