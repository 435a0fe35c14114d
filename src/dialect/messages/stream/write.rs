//! Writes a streamed answer, in the order that the API's SDKs insist on: `message_start`; each
//! block with its start, deltas and stop; one `message_delta` with reason and usage;
//! `message_stop`.

use serde_json::{Value, json};

use crate::canon::{Delta, Dialect, Event, Finish, Foreign, Opaque, Opening, Start, Usage};
use crate::dialect::messages::{block, citation, finish, response, usage};
use crate::dialect::{Context, WriteStream, opaque, portable_id, sse};

/// Writes one stream.
pub(in crate::dialect::messages) struct Writer {
    id: String,
    model: String,
    input_estimate: u64,
    /// The number of the block that is open, or of the next.
    index: u64,
    open: Open,
    started: bool,
    ended: bool,
    called: bool,
    /// The state of a text, until something follows it.
    held: Option<Opaque>,
    /// How the model declined, until it is known whether the end says so too.
    declined: Option<String>,
    finish: Finish,
    usage: Option<Usage>,
}

/// The block at hand.
enum Open {
    /// There is none, or one that this API has no form for.
    Nothing,
    /// A text that has not said a word yet.
    Blank,
    Text,
    Refusal(String),
    Thinking,
    /// Begins only with its data.
    Redacted,
    Call {
        /// As it begins, until its first piece: it may come to know who calls.
        block: Option<Value>,
        /// Its arguments are free text, which goes into an object.
        custom: bool,
        /// State that has no place in the block and follows it.
        state: Option<Opaque>,
    },
}

impl Writer {
    pub(in crate::dialect::messages) fn new(context: &Context<'_>) -> Self {
        Self {
            id: response::write_id("", context),
            model: context.model.to_owned(),
            input_estimate: context.input_estimate,
            index: 0,
            open: Open::Nothing,
            started: false,
            ended: false,
            called: false,
            held: None,
            declined: None,
            finish: Finish::default(),
            usage: None,
        }
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start(start) => self.start(start, out),
            Event::Open { choice: 0, part } => self.open(part, out),
            Event::Delta { choice: 0, delta } => self.delta(delta, out),
            Event::Close { choice: 0 } => self.close(out),
            Event::Finish { choice: 0, finish } => {
                self.close(out);
                self.finish = finish.clone();
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Aside(text) => sse::comment(text, out),
            Event::End => self.end(out),
            // This API has one answer to a question; the failure is the caller's to spell.
            Event::Open { .. }
            | Event::Delta { .. }
            | Event::Close { .. }
            | Event::Finish { .. }
            | Event::Failed(_) => {}
        }
    }
}

impl Writer {
    fn start(&mut self, start: &Start, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        if start.id.starts_with("msg_") {
            self.id.clone_from(&start.id);
        }
        if !start.model.is_empty() {
            self.model.clone_from(&start.model);
        }
        let mut usage = usage::write(&Usage { input: self.input_estimate, ..Usage::default() });
        without_lifetimes(&mut usage);
        if let Some(tier) = start.service_tier.as_deref().and_then(response::write_tier) {
            usage["service_tier"] = json!(tier);
        }
        let message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        });
        event(out, "message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn open(&mut self, part: &Opening, out: &mut Vec<u8>) {
        self.start(&Start::default(), out);
        self.close(out);
        self.say_declined(out);
        // A text begins with its first word: some providers sign one that has none. A sound is
        // shown by what is said in it.
        let is_text = matches!(part, Opening::Text | Opening::Refusal | Opening::Audio { .. });
        if !is_text {
            self.say_held(out);
        }
        self.open = match part {
            Opening::Text | Opening::Audio { .. } => Open::Blank,
            Opening::Refusal => Open::Refusal(String::new()),
            Opening::Reasoning { redacted: true, .. } => Open::Redacted,
            Opening::Reasoning { .. } => {
                let block = json!({ "type": "thinking", "thinking": "", "signature": "" });
                self.start_block(&block, out);
                Open::Thinking
            }
            Opening::ToolCall { id, name, custom } => {
                self.called = true;
                let id = portable_id(id);
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                Open::Call { block: Some(block), custom: *custom, state: None }
            }
            Opening::Media(media) => self.whole(block::write_media(media), out),
            Opening::Foreign(Foreign { dialect: Dialect::Messages, value }) => {
                self.whole(Some(value.clone()), out)
            }
            Opening::Foreign(_) => Open::Nothing,
        };
    }

    /// A block that is complete as it begins.
    fn whole(&mut self, block: Option<Value>, out: &mut Vec<u8>) -> Open {
        if let Some(block) = block {
            self.start_block(&block, out);
            self.stop_block(out);
        }
        Open::Nothing
    }

    fn delta(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        let begins = match delta {
            Delta::Text(text) | Delta::Transcript(text) => !text.is_empty(),
            Delta::Citation(_) => true,
            _ => false,
        };
        if begins && matches!(self.open, Open::Blank) {
            self.say_held(out);
            self.start_block(&json!({ "type": "text", "text": "" }), out);
            self.open = Open::Text;
        }
        if matches!(delta, Delta::Arguments(_)) {
            self.begin_call(out);
        }
        match (&mut self.open, delta) {
            (Open::Text, Delta::Text(text) | Delta::Transcript(text)) => {
                self.piece("text_delta", "text", text, out);
            }
            (Open::Refusal(whole), Delta::Refusal(more)) => whole.push_str(more),
            (Open::Thinking, Delta::Reasoning(text)) => {
                self.piece("thinking_delta", "thinking", text, out);
            }
            (Open::Call { custom: false, .. }, Delta::Arguments(more)) => {
                self.piece("input_json_delta", "partial_json", more, out);
            }
            (Open::Call { custom: true, .. }, Delta::Arguments(more)) => {
                let quoted = json!(more).to_string();
                let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
                self.piece("input_json_delta", "partial_json", inner, out);
            }
            (Open::Text, Delta::Citation(citation)) => {
                if let Some(citation) = citation::write(citation) {
                    let delta = json!({ "type": "citations_delta", "citation": citation });
                    self.odd_piece(&delta, out);
                }
            }
            (_, Delta::Opaque(opaque)) => self.opaque(opaque, out),
            _ => {}
        }
    }

    fn opaque(&mut self, opaque: &Opaque, out: &mut Vec<u8>) {
        let own = (opaque.dialect == Dialect::Messages).then_some(&opaque.data);
        let field = |name: &str| match own {
            Some(data) => data.get(name).and_then(Value::as_str).map(str::to_owned),
            None => Some(opaque::seal(opaque)),
        };
        match &mut self.open {
            Open::Thinking => {
                if let Some(signature) = field("signature") {
                    self.piece("signature_delta", "signature", &signature, out);
                }
            }
            Open::Redacted => {
                if let Some(data) = field("data") {
                    let block = json!({ "type": "redacted_thinking", "data": data });
                    self.open = self.whole(Some(block), out);
                }
            }
            Open::Call { state, .. } if own.is_none() => *state = Some(opaque.clone()),
            Open::Call { block: Some(Value::Object(block)), .. } => {
                let fields = own.and_then(Value::as_object).into_iter().flatten();
                block.extend(fields.map(|(name, value)| (name.clone(), value.clone())));
            }
            Open::Refusal(_) if own.is_none() => self.held = Some(opaque.clone()),
            // No more of the text will come. Its state follows it if anything else does: that of
            // the last words is for no later turn, and clients show the last block.
            Open::Text | Open::Blank if own.is_none() => {
                self.close(out);
                self.held = Some(opaque.clone());
            }
            Open::Call { .. } | Open::Text | Open::Refusal(_) | Open::Blank | Open::Nothing => {}
        }
    }

    fn begin_call(&mut self, out: &mut Vec<u8>) {
        let Open::Call { block, custom, .. } = &mut self.open else { return };
        let (block, custom) = (block.take(), *custom);
        if let Some(block) = block {
            self.start_block(&block, out);
            if custom {
                self.piece("input_json_delta", "partial_json", "{\"input\":\"", out);
            }
        }
    }

    /// Tells how the model declined, as a text: this API has no other block for it.
    fn say_declined(&mut self, out: &mut Vec<u8>) {
        if let Some(text) = self.declined.take() {
            self.start_block(&json!({ "type": "text", "text": "" }), out);
            self.piece("text_delta", "text", &text, out);
            self.stop_block(out);
        }
    }

    /// Gives the state that waited for something to follow it.
    fn say_held(&mut self, out: &mut Vec<u8>) {
        if let Some(opaque) = self.held.take() {
            self.whole(Some(block::sealed_after(&opaque)), out);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        self.begin_call(out);
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing | Open::Blank | Open::Redacted => {}
            Open::Text | Open::Thinking => self.stop_block(out),
            Open::Refusal(text) => self.declined = Some(text).filter(|text| !text.is_empty()),
            Open::Call { custom, state, .. } => {
                if custom {
                    self.piece("input_json_delta", "partial_json", "\"}", out);
                }
                self.stop_block(out);
                if let Some(state) = state {
                    self.whole(Some(block::sealed_after(&state)), out);
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.start(&Start::default(), out);
        self.close(out);
        self.ended = true;
        if self.declined.as_deref() != finish::explanation(&self.finish) {
            self.say_declined(out);
        }
        let estimate = Usage { input: self.input_estimate, ..Usage::default() };
        let mut usage = usage::write(&self.usage.unwrap_or(estimate));
        without_lifetimes(&mut usage);
        let mut delta = json!({
            "stop_reason": finish::write(&self.finish, self.called),
            "stop_sequence": self.finish.stop_sequence,
        });
        if let Some(details) = finish::details(&self.finish) {
            delta["stop_details"] = details.clone();
        }
        let data = json!({ "type": "message_delta", "delta": delta, "usage": usage });
        event(out, "message_delta", &data);
        event(out, "message_stop", &json!({ "type": "message_stop" }));
    }

    fn start_block(&self, block: &Value, out: &mut Vec<u8>) {
        let data =
            json!({ "type": "content_block_start", "index": self.index, "content_block": block });
        event(out, "content_block_start", &data);
    }

    fn stop_block(&mut self, out: &mut Vec<u8>) {
        event(
            out,
            "content_block_stop",
            &json!({ "type": "content_block_stop", "index": self.index }),
        );
        self.index += 1;
    }

    fn odd_piece(&self, delta: &Value, out: &mut Vec<u8>) {
        let data = json!({ "type": "content_block_delta", "index": self.index, "delta": delta });
        event(out, "content_block_delta", &data);
    }

    /// The common delta, written straight into the stream.
    fn piece(&self, kind: &str, field: &str, text: &str, out: &mut Vec<u8>) {
        let index = self.index.to_string();
        for text in [
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
            &index,
            ",\"delta\":{\"type\":\"",
            kind,
            "\",\"",
            field,
            "\":",
        ] {
            out.extend_from_slice(text.as_bytes());
        }
        // Writing text to memory does not fail.
        let _ = serde_json::to_writer(&mut *out, text);
        out.extend_from_slice(b"}}\n\n");
    }
}

/// The API says only at the start how long cache entries are kept; that is too early here.
fn without_lifetimes(usage: &mut Value) {
    if let Some(usage) = usage.as_object_mut() {
        usage.shift_remove("cache_creation");
    }
}

fn event(out: &mut Vec<u8>, name: &str, data: &Value) {
    out.extend_from_slice(format!("event: {name}\ndata: {data}\n\n").as_bytes());
}
