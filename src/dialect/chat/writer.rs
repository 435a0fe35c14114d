//! Writes an answer's stream in pieces that the official SDKs put together.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reader::write_reason;
use super::{media, response, thought};
use crate::canon::{
    Content, Delta, Event, Finish, MediaKind, Opaque, Opening, Part, Reasoning, Start, Usage,
};
use crate::dialect::openai::{DONE, write_usage};
use crate::dialect::{Context, WriteStream, portable_id, sse};

/// One stream to a client.
#[derive(Debug)]
pub(super) struct Writer {
    id: String,
    created: u64,
    model: String,
    /// The client asked for the usage as the last piece.
    include_usage: bool,
    /// All pieces begin with this: `data: ` and the answer's id, model and so on.
    head: Vec<u8>,
    answers: BTreeMap<u32, Progress>,
    usage: Option<Usage>,
    ended: bool,
}

/// How far one answer is.
#[derive(Debug, Default)]
struct Progress {
    finished: bool,
    open: Open,
    calls: usize,
    thoughts: usize,
    /// How many entries each list of citations has.
    cited: BTreeMap<&'static str, usize>,
}

#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Text,
    Call {
        custom: bool,
    },
    /// Its text so far, for the entry that carries its state.
    Thought(Reasoning),
    Audio,
}

impl Writer {
    pub(super) fn new(context: &Context<'_>) -> Self {
        Self {
            id: context.id.to_owned(),
            created: context.created,
            model: context.model.to_owned(),
            include_usage: context.request.include_usage,
            head: Vec::new(),
            answers: BTreeMap::new(),
            usage: None,
            ended: false,
        }
    }

    fn start(&mut self, start: &Start) {
        let id = if start.id.starts_with("chatcmpl-") {
            start.id.clone()
        } else {
            format!("chatcmpl-{}", self.id)
        };
        let head = json!({
            "id": id,
            "object": "chat.completion.chunk",
            "created": start.created.unwrap_or(self.created),
            "model": if start.model.is_empty() { &self.model } else { &start.model },
        });
        let mut head = head.to_string();
        // Left open, for the choices follow.
        head.pop();
        if let Some(tier) = &start.service_tier {
            head.push_str(",\"service_tier\":");
            head.push_str(&Value::from(tier.as_str()).to_string());
        }
        self.head = [b"data: ", head.as_bytes()].concat();
    }

    /// Writes a piece around what `fill` puts into its `delta`.
    fn piece(&mut self, choice: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[{\"index\":");
        out.extend_from_slice(choice.to_string().as_bytes());
        out.extend_from_slice(b",\"delta\":");
        fill(out);
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":null}]");
        self.close_piece(out);
    }

    fn close_piece(&self, out: &mut Vec<u8>) {
        if self.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// A piece whose delta is `{"NAME":"TEXT"}`.
    fn text(&mut self, choice: u32, name: &str, text: &str, out: &mut Vec<u8>) {
        self.piece(choice, out, |out| {
            out.extend_from_slice(b"{\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            push_text(text, out);
            out.push(b'}');
        });
    }

    fn value(&mut self, choice: u32, delta: &Value, out: &mut Vec<u8>) {
        self.piece(choice, out, |out| out.extend_from_slice(delta.to_string().as_bytes()));
    }

    /// The first piece of an answer says whose it is.
    fn begin(&mut self, choice: u32, out: &mut Vec<u8>) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.answers.entry(choice) {
            entry.insert(Progress::default());
            self.value(choice, &json!({ "role": "assistant", "content": null }), out);
        }
    }

    fn progress(&mut self, choice: u32) -> &mut Progress {
        self.answers.entry(choice).or_default()
    }

    fn open(&mut self, choice: u32, part: &Opening, out: &mut Vec<u8>) {
        self.begin(choice, out);
        let progress = self.progress(choice);
        match part {
            Opening::Text => progress.open = Open::Text,
            Opening::Refusal | Opening::Foreign(_) => progress.open = Open::Nothing,
            Opening::Audio { .. } => progress.open = Open::Audio,
            Opening::Reasoning { summary, redacted } => {
                let (summary, redacted) = (*summary, *redacted);
                let index = progress.thoughts;
                progress.thoughts += 1;
                progress.open =
                    Open::Thought(Reasoning { summary, redacted, ..Reasoning::default() });
                if !redacted && (summary || index > 0) {
                    // Told apart from what `reasoning_content` alone would say.
                    let entry = Part::new(Content::Reasoning(Reasoning {
                        summary,
                        redacted,
                        ..Reasoning::default()
                    }));
                    let entries = thought::entries(&entry, index);
                    self.value(choice, &json!({ "reasoning_details": entries }), out);
                }
            }
            Opening::ToolCall { id, name, custom } => {
                let call = crate::canon::ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                    custom: *custom,
                };
                progress.open = Open::Call { custom: *custom };
                let mut first = json!({ "index": progress.calls });
                progress.calls += 1;
                let object = response::call_object(&call, &portable_id(id));
                if let (Some(first), Value::Object(object)) = (first.as_object_mut(), object) {
                    first.extend(object);
                }
                self.value(choice, &json!({ "tool_calls": [first] }), out);
            }
            Opening::Media(media) => {
                progress.open = Open::Nothing;
                if media.kind == MediaKind::Image {
                    let image = media::write_image(media, &media.source);
                    self.value(choice, &json!({ "images": [image] }), out);
                }
            }
        }
    }

    fn delta(&mut self, choice: u32, delta: &Delta, out: &mut Vec<u8>) {
        match delta {
            Delta::Text(text) => self.text(choice, "content", text, out),
            Delta::Refusal(text) => self.text(choice, "refusal", text, out),
            Delta::Reasoning(text) => {
                if let Open::Thought(thought) = &mut self.progress(choice).open {
                    thought.text.push_str(text);
                }
                self.text(choice, "reasoning_content", text, out);
            }
            Delta::Arguments(text) => self.arguments(choice, text, out),
            Delta::Audio(data) => self.audio(choice, "data", data, out),
            Delta::Transcript(text) => self.audio(choice, "transcript", text, out),
            Delta::Citation(citation) => {
                let (field, mut cited) = media::write_citation(citation);
                let count = self.progress(choice).cited.entry(field).or_default();
                // OpenAI's own library puts lists together by that.
                if let Some(cited) = cited.as_object_mut() {
                    cited.insert("index".to_owned(), json!(*count));
                }
                *count += 1;
                self.value(choice, &json!({ field: [cited] }), out);
            }
            Delta::Opaque(state) => self.opaque(choice, state, out),
            Delta::Logprobs(logprobs) => {
                out.extend_from_slice(&self.head);
                let choice = json!([{
                    "index": choice, "delta": {}, "logprobs": logprobs, "finish_reason": null,
                }]);
                out.extend_from_slice(b",\"choices\":");
                out.extend_from_slice(choice.to_string().as_bytes());
                self.close_piece(out);
            }
        }
    }

    fn arguments(&mut self, choice: u32, text: &str, out: &mut Vec<u8>) {
        let progress = self.progress(choice);
        let index = progress.calls.saturating_sub(1);
        let custom = matches!(progress.open, Open::Call { custom: true });
        self.piece(choice, out, |out| {
            out.extend_from_slice(b"{\"tool_calls\":[{\"index\":");
            out.extend_from_slice(index.to_string().as_bytes());
            let field: &[u8] =
                if custom { b",\"custom\":{\"input\":" } else { b",\"function\":{\"arguments\":" };
            out.extend_from_slice(field);
            push_text(text, out);
            out.extend_from_slice(b"}}]}");
        });
    }

    fn audio(&mut self, choice: u32, name: &str, text: &str, out: &mut Vec<u8>) {
        let audio = json!({ "audio": { "id": format!("audio_{}", self.id), name: text } });
        self.value(choice, &audio, out);
    }

    fn opaque(&mut self, choice: u32, state: &Opaque, out: &mut Vec<u8>) {
        let progress = self.progress(choice);
        let delta = match &progress.open {
            Open::Call { .. } => {
                let extra = thought::extra_content(state);
                // OpenAI's own library wants a function in every piece of a call.
                json!({ "tool_calls": [{
                    "index": progress.calls.saturating_sub(1), "function": {}, "extra_content": extra,
                }] })
            }
            Open::Thought(reasoning) => {
                let index = progress.thoughts.saturating_sub(1);
                let content = Content::Reasoning(reasoning.clone());
                let part = Part { opaque: Some(state.clone()), ..Part::new(content) };
                match response::own_extra(&part) {
                    Some(extra) => json!({ "extra_content": extra }),
                    None => json!({ "reasoning_details": thought::entries(&part, index) }),
                }
            }
            Open::Text => json!({ "extra_content": thought::extra_content(state) }),
            Open::Audio => json!({ "audio": state.data }),
            Open::Nothing => return,
        };
        self.value(choice, &delta, out);
    }

    fn finish(&mut self, choice: u32, finish: &Finish, out: &mut Vec<u8>) {
        self.begin(choice, out);
        if std::mem::replace(&mut self.progress(choice).finished, true) {
            return;
        }
        let (reason, native) = write_reason(finish.reason);
        let mut last = json!({
            "index": choice, "delta": {}, "logprobs": null, "finish_reason": reason,
        });
        if let Some(native) = native {
            last["native_finish_reason"] = json!(native);
        }
        if let Some(stop) = &finish.stop_sequence {
            last["stop_reason"] = json!(stop);
        }
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":");
        out.extend_from_slice(json!([last]).to_string().as_bytes());
        self.close_piece(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(usage) = self.usage.filter(|_| self.include_usage) {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"choices\":[],\"usage\":");
            out.extend_from_slice(write_usage(&usage).to_string().as_bytes());
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(DONE);
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.head.is_empty() && !matches!(event, Event::Start(_)) {
            self.start(&Start::default());
        }
        match event {
            Event::Start(start) if self.head.is_empty() => self.start(start),
            Event::Open { choice, part } => self.open(*choice, part, out),
            Event::Delta { choice, delta } => self.delta(*choice, delta, out),
            Event::Close { choice } => self.progress(*choice).open = Open::Nothing,
            Event::Finish { choice, finish } => self.finish(*choice, finish, out),
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Aside(text) => sse::comment(text, out),
            Event::End => self.end(out),
            // The gateway says an error itself.
            Event::Start(_) | Event::Failed(_) => {}
        }
    }
}

/// Appends `text` as a JSON string.
fn push_text(text: &str, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}
