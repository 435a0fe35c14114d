//! A chat that is nothing but texts, told apart without reading it into our own words: its tokens
//! are counted for each call that has limits, and nothing else of it may ever be asked.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::estimate;
use super::tokenizer::Tokenizer;

/// The texts of an `OpenAI` chat completion.
#[derive(Debug)]
pub struct PlainChat<'a>(Vec<Message<'a>>);

/// What may stand beside the texts and is no part of what a model reads. Whatever else there is
/// makes a chat that has to be read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
    #[serde(rename = "model")]
    _model: IgnoredAny,
    #[serde(default, rename = "stream")]
    _stream: IgnoredAny,
    #[serde(default, rename = "stream_options")]
    _stream_options: IgnoredAny,
    #[serde(default, rename = "temperature")]
    _temperature: IgnoredAny,
    #[serde(default, rename = "top_p")]
    _top_p: IgnoredAny,
    #[serde(default, rename = "max_tokens")]
    _max_tokens: IgnoredAny,
    #[serde(default, rename = "max_completion_tokens")]
    _max_completion_tokens: IgnoredAny,
    #[serde(default, rename = "n")]
    _choices: IgnoredAny,
    #[serde(default, rename = "seed")]
    _seed: IgnoredAny,
    #[serde(default, rename = "stop")]
    _stop: IgnoredAny,
    #[serde(default, rename = "user")]
    _user: IgnoredAny,
    #[serde(default, rename = "presence_penalty")]
    _presence_penalty: IgnoredAny,
    #[serde(default, rename = "frequency_penalty")]
    _frequency_penalty: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(rename = "role")]
    _role: Role,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    Developer,
    User,
    Assistant,
}

impl<'a> PlainChat<'a> {
    /// `None` where there is more than texts, or a mistake: whoever reads all of it says which.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let body: Body<'a> = serde_json::from_slice(body).ok()?;
        let is_plain = body.messages.iter().all(|message| !message.content.is_empty());
        is_plain.then_some(Self(body.messages))
    }

    /// What `estimate::tokens` says of the same chat.
    pub fn tokens(&self, tokenizer: Option<Tokenizer>) -> u64 {
        estimate::texts(self.0.iter().map(|message| &*message.content), tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::canon::{Dialect, Surface};
    use crate::dialect;
    use crate::dialect::tokenizer::Encoding;

    fn message() -> impl Strategy<Value = Value> {
        let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool"]);
        let content = prop_oneof![
            8 => "\\PC{0,40}".prop_map(Value::from),
            1 => Just(Value::Null),
            1 => "[a-z ]{0,9}".prop_map(|text| json!([{"type": "text", "text": text}])),
        ];
        (role, content, any::<bool>()).prop_map(|(role, content, named)| {
            let mut message = json!({"role": role, "content": content});
            if named {
                message["name"] = json!("ann");
            }
            message
        })
    }

    fn beside() -> impl Strategy<Value = (&'static str, Value)> {
        prop::sample::select(vec![
            ("temperature", json!(0.5)),
            ("max_tokens", json!(5)),
            ("n", json!(2)),
            ("stop", json!(["a"])),
            ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
            ("response_format", json!({"type": "json_object"})),
            ("reasoning_effort", json!("low")),
            ("metadata", json!({"a": "b"})),
        ])
    }

    proptest! {
        #[test]
        fn what_is_plain_is_counted_as_if_all_of_it_were_read(
            messages in prop::collection::vec(message(), 0..5),
            beside in prop::collection::vec(beside(), 0..3),
        ) {
            let mut body = json!({"model": "m", "messages": messages});
            for (name, value) in beside {
                body[name] = value;
            }
            let body = body.to_string();
            if let Some(plain) = PlainChat::read(body.as_bytes()) {
                let client = dialect::client(Surface::Chat);
                let request = client.read_request(body.as_bytes()).unwrap();
                for name in ["gpt-4o", "claude-opus-4-5"] {
                    let tokenizer = Encoding::of(name).and_then(Encoding::open);
                    for home in [Dialect::Chat, Dialect::Messages] {
                        let read = estimate::tokens(&request, home, tokenizer);
                        prop_assert_eq!(plain.tokens(tokenizer), read);
                    }
                }
            }
        }
    }

    #[test]
    fn only_texts_are_plain() {
        let plain = |body: Value| PlainChat::read(body.to_string().as_bytes()).is_some();
        let texts = json!([{"role": "user", "content": "a \"b\" \u{e9}"}]);
        assert!(plain(json!({"model": "m", "messages": texts, "stream": true, "max_tokens": 3})));
        assert!(!plain(json!({"model": "m", "messages": texts, "tools": []})));
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}]);
        assert!(!plain(json!({"model": "m", "messages": parts})));
        assert!(PlainChat::read(b"{\"model\":\"m\",\"messages\":[").is_none());
    }
}
