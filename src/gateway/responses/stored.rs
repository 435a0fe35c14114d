//! A response as it is kept: what was asked, what was answered, and what came before.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;

/// One kept response. A conversation is a chain of them, each with its own turn only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) response: Value,
    /// The items of this turn's question.
    pub(super) input: Vec<Value>,
    pub(super) previous: Option<String>,
    /// The provider that made it in its own words and may keep it too; none where the answer was
    /// put into these words here.
    pub(super) provider: Option<String>,
    /// What it takes where it is kept, if it was read from there.
    #[serde(skip)]
    pub(super) bytes: usize,
}

/// A longer chain is not followed.
pub(super) const LONGEST_CHAIN: usize = 2_000;

/// What was said in a conversation, oldest first, for those who may be asked next: each by its name
/// where it speaks this API itself. Thoughts are for whom they were made by: no other can read what
/// is encrypted, nor find what stands there by its id alone.
pub(super) fn said(chain: &[Stored], listeners: &[Option<&str>]) -> Vec<Value> {
    let mut items = Vec::new();
    for turn in chain {
        items.extend(turn.input.iter().cloned());
        let maker = turn.provider.as_deref();
        items.extend(turn.output().filter(|item| told(item, maker, listeners)).cloned());
    }
    items
}

/// Whether what `maker` said is for all of these.
pub(super) fn told(item: &Value, maker: Option<&str>, listeners: &[Option<&str>]) -> bool {
    let own = || listeners.iter().all(|listener| *listener == maker);
    // What was sealed here is opened here, on the way to another API.
    !is_thought(item) || own() && (maker.is_some() || is_sealed(item))
}

/// What the last of these was asked with: all before it, and its own question.
pub(super) fn asked(chain: &[Stored]) -> Vec<Value> {
    let Some((last, earlier)) = chain.split_last() else { return Vec::new() };
    let turns = earlier.iter().flat_map(|turn| turn.input.iter().chain(turn.output()));
    turns.chain(&last.input).cloned().collect()
}

impl Stored {
    /// Whether it is still being made.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self.response["status"].as_str(), Some("queued" | "in_progress"))
    }

    pub(super) fn fail(&mut self, error: &Error) {
        self.response["status"] = json!("failed");
        self.response["error"] = json!({"code": error.kind.code(), "message": error.message});
    }

    /// The ids of its items, asked and answered.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.input.iter().chain(self.output()).filter_map(|item| item["id"].as_str())
    }

    pub(super) fn output(&self) -> impl Iterator<Item = &Value> {
        self.response["output"].as_array().into_iter().flatten()
    }
}

fn is_thought(item: &Value) -> bool {
    item["type"] == "reasoning"
}

fn is_sealed(item: &Value) -> bool {
    item["encrypted_content"].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn(question: &str, answer: &Value, provider: Option<&str>) -> Stored {
        let input = vec![json!({"type": "message", "role": "user", "content": question})];
        let response = json!({"id": question, "output": answer});
        let provider = provider.map(str::to_owned);
        Stored { response, input, previous: None, provider, bytes: 0 }
    }

    fn types(items: &[Value]) -> Vec<&str> {
        items.iter().map(|item| item["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_conversation_is_told_in_order_and_thoughts_only_to_who_can_read_them() {
        let said_before = json!({"type": "message", "role": "assistant"});
        let thought = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let sealed = json!({"type": "reasoning", "id": "rs_2", "encrypted_content": "x"});
        let answers = [json!([thought, said_before]), json!([sealed])];
        let chain = |by| [turn("one", &answers[0], by), turn("two", &answers[1], by)];
        let all = ["message", "reasoning", "message", "message", "reasoning"];
        let none = ["message", "message", "message"];
        assert_eq!(types(&said(&chain(Some("a")), &[Some("a")])), all);
        assert_eq!(types(&said(&chain(Some("a")), &[Some("b")])), none);
        assert_eq!(types(&said(&chain(Some("a")), &[Some("a"), None])), none);
        assert_eq!(types(&said(&chain(None), &[Some("a")])), none);
        assert_eq!(
            types(&said(&chain(None), &[None, None])),
            ["message", "message", "message", "reasoning"]
        );
        assert_eq!(types(&asked(&chain(None))), ["message", "reasoning", "message", "message"]);
    }
}
