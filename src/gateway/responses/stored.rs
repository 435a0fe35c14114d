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
    /// Who made it; none where that is nobody else.
    #[serde(flatten)]
    pub(super) maker: Option<Maker>,
    /// What it takes where it is kept, if it was read from there.
    #[serde(skip)]
    pub(super) bytes: usize,
}

/// A provider, with how it answers in this API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gateway) struct Maker {
    pub(in crate::gateway) provider: String,
    /// Its answers are put into these words here. Where they are not, it may keep them too.
    #[serde(default)]
    pub(in crate::gateway) translated: bool,
}

/// A longer chain is not followed.
pub(super) const LONGEST_CHAIN: usize = 2_000;

/// What was said in a conversation, oldest first, for those who may be asked next, as far as they
/// are known. Thoughts are for whom they were made by: no other can read what is encrypted, nor find
/// what stands there by its id alone.
pub(super) fn said(chain: &[Stored], listeners: &[Option<Maker>]) -> Vec<Value> {
    let mut items = Vec::new();
    for turn in chain {
        items.extend(turn.input.iter().cloned());
        let maker = turn.maker.as_ref();
        items.extend(turn.output().filter(|item| told(item, maker, listeners)).cloned());
    }
    items
}

/// Whether what `maker` said is for all of these.
pub(super) fn told(item: &Value, maker: Option<&Maker>, listeners: &[Option<Maker>]) -> bool {
    let is_translated = |maker: Option<&Maker>| maker.is_none_or(|maker| maker.translated);
    // What was sealed here is opened here, on the way to another API.
    let is_opened = is_sealed(item) && is_translated(maker);
    let hears = |listener: Option<&Maker>| {
        maker.is_some() && listener == maker || is_opened && is_translated(listener)
    };
    !is_thought(item) || listeners.iter().all(|listener| hears(listener.as_ref()))
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

    fn maker(provider: &str, translated: bool) -> Maker {
        Maker { provider: provider.to_owned(), translated }
    }

    fn turn(question: &str, answer: &Value, maker: Option<Maker>) -> Stored {
        let input = vec![json!({"type": "message", "role": "user", "content": question})];
        let response = json!({"id": question, "output": answer});
        Stored { response, input, previous: None, maker, bytes: 0 }
    }

    fn types(items: &[Value]) -> Vec<&str> {
        items.iter().map(|item| item["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn who_made_a_response_is_read_from_what_older_versions_kept() {
        let kept = |provider: Value| {
            let kept = json!({"response": {}, "input": [], "previous": null, "provider": provider});
            serde_json::from_value::<Stored>(kept).unwrap().maker
        };
        assert_eq!((kept(json!("a")), kept(Value::Null)), (Some(maker("a", false)), None));
        for by in [Some(maker("a", true)), None] {
            let stored = turn("one", &json!([]), by);
            let bytes = serde_json::to_vec(&stored).unwrap();
            assert_eq!(serde_json::from_slice::<Stored>(&bytes).unwrap(), stored);
        }
    }

    #[test]
    fn a_conversation_is_told_in_order_and_thoughts_only_to_who_can_read_them() {
        let said_before = json!({"type": "message", "role": "assistant"});
        let thought = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let sealed = json!({"type": "reasoning", "id": "rs_2", "encrypted_content": "x"});
        let answers = [json!([thought, said_before]), json!([sealed])];
        let chain = |by: Option<Maker>| {
            [turn("one", &answers[0], by.clone()), turn("two", &answers[1], by)]
        };
        let all = ["message", "reasoning", "message", "message", "reasoning"];
        let none = ["message", "message", "message"];
        let sealed_alone = ["message", "message", "message", "reasoning"];
        let (a, b) = (|| Some(maker("a", false)), || Some(maker("b", false)));
        assert_eq!(types(&said(&chain(a()), &[a()])), all);
        assert_eq!(types(&said(&chain(a()), &[b()])), none);
        assert_eq!(types(&said(&chain(a()), &[a(), None])), none);
        assert_eq!(types(&said(&chain(None), &[a()])), none);
        assert_eq!(types(&said(&chain(None), &[None, None])), sealed_alone);
        let (c, d) = (|| Some(maker("c", true)), || Some(maker("d", true)));
        assert_eq!(types(&said(&chain(c()), &[c()])), all);
        assert_eq!(types(&said(&chain(c()), &[c(), d()])), sealed_alone);
        assert_eq!(types(&said(&chain(c()), &[None])), sealed_alone);
        assert_eq!(types(&said(&chain(c()), &[c(), a()])), none);
        assert_eq!(types(&asked(&chain(None))), ["message", "reasoning", "message", "message"]);
    }
}
