//! Writes a chat's answer as a stream of text completions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::canon::{Delta, Event, Opening, Usage};
use crate::dialect::chat::reader::write_reason;
use crate::dialect::openai::{DONE, write_usage};
use crate::dialect::{Context, WriteStream, sse};

/// One stream to a client.
#[derive(Debug)]
pub(super) struct Writer {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    usage: Option<Usage>,
    /// Each answer's text so far, in characters: where log probabilities begin. `None` while
    /// something else than its text is open.
    texts: BTreeMap<u32, (bool, usize)>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(context: &Context<'_>) -> Self {
        Self {
            id: format!("cmpl-{}", context.id),
            created: context.created,
            model: context.model.to_owned(),
            include_usage: context.request.include_usage,
            usage: None,
            texts: BTreeMap::new(),
            ended: false,
        }
    }

    fn piece(&self, choices: &Value, usage: Option<&Usage>, out: &mut Vec<u8>) {
        let mut piece = json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if self.include_usage {
            piece["usage"] = usage.map_or(Value::Null, write_usage);
        }
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(piece.to_string().as_bytes());
        out.extend_from_slice(b"\n\n");
    }

    fn choice(&self, index: u32, text: &str, rest: (Value, Value), out: &mut Vec<u8>) {
        let (logprobs, reason) = rest;
        let choice = json!([{
            "text": text, "index": index, "logprobs": logprobs, "finish_reason": reason,
        }]);
        self.piece(&choice, None, out);
    }

    fn delta(&mut self, index: u32, delta: &Delta, out: &mut Vec<u8>) {
        let (is_text, length) = self.texts.entry(index).or_default();
        match delta {
            Delta::Text(text) if *is_text => {
                *length += text.chars().count();
                self.choice(index, text, (Value::Null, Value::Null), out);
            }
            Delta::Logprobs(logprobs) => {
                let logprobs = write_logprobs(logprobs, *length);
                self.choice(index, "", (logprobs, Value::Null), out);
            }
            _ => {}
        }
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start(start) => {
                self.created = start.created.unwrap_or(self.created);
                if !start.model.is_empty() {
                    self.model.clone_from(&start.model);
                }
            }
            Event::Open { choice, part } => {
                self.texts.entry(*choice).or_default().0 = matches!(part, Opening::Text);
            }
            Event::Delta { choice, delta } => self.delta(*choice, delta, out),
            Event::Finish { choice, finish } => {
                let reason = write_reason(finish.reason).0;
                self.choice(*choice, "", (Value::Null, json!(reason)), out);
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::End if !self.ended => {
                self.ended = true;
                if let Some(usage) = self.usage.filter(|_| self.include_usage) {
                    self.piece(&json!([]), Some(&usage), out);
                }
                out.extend_from_slice(DONE);
            }
            Event::Aside(text) => sse::comment(text, out),
            Event::Close { .. } | Event::Failed(_) | Event::End => {}
        }
    }
}

/// A chat's log probabilities as this API has them: one list for each fact. `offset` is where the
/// first token begins in the text.
pub(super) fn write_logprobs(logprobs: &Value, offset: usize) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    let mut at = offset;
    for token in logprobs["content"].as_array().into_iter().flatten() {
        let text = token["token"].as_str().unwrap_or_default();
        tokens.push(json!(text));
        values.push(token["logprob"].clone());
        let top = token["top_logprobs"].as_array().into_iter().flatten();
        let top = top.filter_map(|other| {
            Some((other["token"].as_str()?.to_owned(), other["logprob"].clone()))
        });
        tops.push(Value::Object(top.collect::<Map<String, Value>>()));
        offsets.push(json!(at));
        at += text.chars().count();
    }
    json!({
        "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets,
    })
}
