//! A response as it is kept: what was asked, what was answered, and what came before.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// What was said in a conversation, oldest first. `own` says whether the provider that is asked
/// keeps these responses itself: any other cannot make sense of thoughts that stand there by their
/// id alone.
pub(super) fn said(chain: &[Stored], own: bool) -> Vec<Value> {
    let mut items = Vec::new();
    for turn in chain {
        items.extend(turn.input.iter().cloned());
        items.extend(turn.output().filter(|item| own || !is_bare_thought(item)).cloned());
    }
    items
}

/// What the last of these was asked with: all before it, and its own question.
pub(super) fn asked(chain: &[Stored]) -> Vec<Value> {
    let Some((last, earlier)) = chain.split_last() else { return Vec::new() };
    let mut items = said(earlier, true);
    items.extend(last.input.iter().cloned());
    items
}

impl Stored {
    fn output(&self) -> impl Iterator<Item = &Value> {
        self.response["output"].as_array().into_iter().flatten()
    }
}

fn is_bare_thought(item: &Value) -> bool {
    item["type"] == "reasoning" && !item["encrypted_content"].is_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn turn(question: &str, answer: &Value) -> Stored {
        let input = vec![json!({"type": "message", "role": "user", "content": question})];
        let response = json!({"id": question, "output": answer});
        Stored { response, input, previous: None, provider: None }
    }

    fn types(items: &[Value]) -> Vec<&str> {
        items.iter().map(|item| item["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_conversation_is_told_in_order_and_thoughts_only_to_who_can_read_them() {
        let said_before = json!({"type": "message", "role": "assistant"});
        let thought = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let sealed = json!({"type": "reasoning", "id": "rs_2", "encrypted_content": "x"});
        let chain = [turn("one", &json!([thought, said_before])), turn("two", &json!([sealed]))];
        let other = said(&chain, false);
        assert_eq!(types(&other), ["message", "message", "message", "reasoning"]);
        let own = said(&chain, true);
        assert_eq!(types(&own), ["message", "reasoning", "message", "message", "reasoning"]);
        assert_eq!(types(&asked(&chain)), ["message", "reasoning", "message", "message"]);
    }
}
