//! Writes an answer's stream: each event a whole answer's shape, as SSE or as a JSON array.

use serde_json::{Map, Value, json};

use super::part::{self, Reader as For};
use super::response::{closing, or};
use super::{grounding, logprobs, usage};
use crate::canon::{
    Citation, Content, Delta, Event, Finish, Media, MediaKind, Part, Source, Usage,
};
use crate::dialect::fold::{add_logprobs, begin};
use crate::dialect::{Context, WriteStream};

/// How events are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `alt=sse`, which every library asks for.
    Sse,
    /// A JSON array that grows.
    Array,
}

#[derive(Debug)]
pub(super) struct Writer {
    framing: Framing,
    /// The model and id to say where the upstream says none.
    model: String,
    id: String,
    tier: Option<String>,
    /// What every event ends with.
    tail: String,
    begun: bool,
    ended: bool,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

/// What of a choice must be known later.
#[derive(Debug, Default)]
struct Choice {
    /// The part that is open, without what was written of it at once.
    part: Option<Part>,
    text: String,
    /// Another provider wants thoughts of it back.
    signed: bool,
    /// What is said in its sounds.
    transcript: String,
    citations: Vec<Citation>,
    logprobs: Option<Value>,
    malformed: Option<String>,
    finish: Option<Finish>,
}

/// More answers than this are no answers.
const MOST_CHOICES: usize = 128;

// === impl Writer ===

impl Writer {
    pub(super) fn new(context: &Context<'_>, framing: Framing) -> Self {
        let mut writer = Self {
            framing,
            model: context.model.to_owned(),
            id: context.id.to_owned(),
            tier: None,
            tail: String::new(),
            begun: false,
            ended: false,
            choices: Vec::new(),
            usage: None,
        };
        writer.name();
        writer
    }

    fn name(&mut self) {
        let (model, id) = (json!(self.model), json!(self.id));
        self.tail = format!(r#","modelVersion":{model},"responseId":{id}}}"#);
    }

    fn choice(&mut self, number: u32) -> &mut Choice {
        let place = (number as usize).min(MOST_CHOICES - 1);
        while self.choices.len() <= place {
            self.choices.push(Choice::default());
        }
        &mut self.choices[place]
    }

    /// One event: `fill` writes its fields up to those that all have.
    fn frame(&mut self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
        let begun = std::mem::replace(&mut self.begun, true);
        out.extend_from_slice(match (self.framing, begun) {
            (Framing::Sse, _) => b"data: {",
            (Framing::Array, false) => b"[{",
            (Framing::Array, true) => b",\r\n{",
        });
        fill(out);
        out.extend_from_slice(self.tail.as_bytes());
        if self.framing == Framing::Sse {
            out.extend_from_slice(b"\n\n");
        }
    }

    /// More of a text, the common event.
    fn text(&mut self, number: u32, (text, thought): (&str, bool), out: &mut Vec<u8>) {
        self.frame(out, |out| {
            out.extend_from_slice(br#""candidates":[{"content":{"parts":[{"text":"#);
            push(out, text);
            if thought {
                out.extend_from_slice(br#","thought":true"#);
            }
            out.extend_from_slice(br#"}],"role":"model"},"index":"#);
            push(out, &number);
            out.extend_from_slice(b"}]");
        });
    }

    fn part(&mut self, number: u32, part: &Value, out: &mut Vec<u8>) {
        let content = json!({ "parts": [part], "role": "model" });
        self.frame(out, |out| {
            out.extend_from_slice(br#""candidates":"#);
            push(out, &json!([{ "content": content, "index": number }]));
        });
    }

    fn delta(&mut self, number: u32, delta: &Delta, out: &mut Vec<u8>) {
        let choice = self.choice(number);
        match delta {
            Delta::Transcript(more) => choice.transcript.push_str(more),
            Delta::Citation(citation) => choice.citations.push(citation.clone()),
            Delta::Logprobs(more) => add_logprobs(&mut choice.logprobs, more),
            _ => {}
        }
        let Some(part) = &mut choice.part else { return };
        match (&mut part.content, delta) {
            (_, Delta::Opaque(opaque)) => part.opaque = Some(opaque.clone()),
            (Content::ToolCall(call), Delta::Arguments(more)) => call.arguments.push_str(more),
            (
                Content::Media(Media { source: Source::Base64 { media_type, .. }, .. }),
                Delta::Audio(data),
            ) => {
                let part = json!({ "inlineData": { "mimeType": media_type, "data": data } });
                self.part(number, &part, out);
            }
            (Content::Text { .. }, Delta::Text(text)) => {
                choice.text.push_str(text);
                self.text(number, (text, false), out);
            }
            (Content::Refusal(_), Delta::Refusal(text)) => self.text(number, (text, false), out),
            (Content::Reasoning(_), Delta::Reasoning(text)) => {
                self.text(number, (text, true), out);
            }
            _ => {}
        }
    }

    /// Writes what is left of the open part: all of a call, the signature of anything else.
    fn close(&mut self, number: u32, out: &mut Vec<u8>) {
        let choice = self.choice(number);
        let Some(mut part) = choice.part.take() else { return };
        choice.signed |= part::is_signed_elsewhere(&part);
        let signed = choice.signed;
        let told = match &part.content {
            Content::Text { .. } | Content::Refusal(_) | Content::Reasoning(_) => {
                part.opaque.is_none()
            }
            // Its sound has been told as it came; a signature goes behind it.
            Content::Media(Media {
                kind: MediaKind::Audio,
                source: Source::Base64 { data, .. },
                ..
            }) if data.is_empty() => {
                part.content = Content::Text { text: String::new(), citations: Vec::new() };
                part.opaque.is_none()
            }
            _ => false,
        };
        if told {
            return;
        }
        match part::write(&part, For::Client) {
            Ok(Some(mut written)) => {
                if signed {
                    part::mark(&part, &mut written);
                }
                self.part(number, &written, out);
            }
            Ok(None) => {}
            Err(cause) => choice.malformed = Some(cause),
        }
    }

    /// The last events: how each answer ended, and with the last of them the usage.
    fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let choices = std::mem::take(&mut self.choices);
        let last = choices.len().saturating_sub(1);
        for (number, choice) in (0_u32..).zip(choices) {
            let candidate = Value::Object(last_candidate(number, choice));
            let said = self.usage.filter(|_| number as usize == last);
            let mut fields = json!({ "candidates": [candidate] });
            if let Some(said) = said {
                fields["usageMetadata"] = usage::write(&said, self.tier.as_deref());
            }
            let fields = fields.to_string();
            let inside = &fields[1..fields.len() - 1];
            self.frame(out, |out| out.extend_from_slice(inside.as_bytes()));
        }
        if self.framing == Framing::Array {
            out.extend_from_slice(if self.begun { b"]" } else { b"[]" });
        }
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        match event {
            Event::Start(start) => {
                self.model = or(&start.model, &self.model).to_owned();
                self.id = or(&start.id, &self.id).to_owned();
                self.tier.clone_from(&start.service_tier);
                self.name();
                // An array that has begun can be ended with an error, whatever else is in it.
                if self.framing == Framing::Array {
                    self.frame(out, |out| out.extend_from_slice(br#""candidates":[]"#));
                }
            }
            Event::Open { choice, part } => {
                self.close(*choice, out);
                self.choice(*choice).part = Some(begin(part));
            }
            Event::Delta { choice, delta } => self.delta(*choice, delta, out),
            Event::Close { choice } => self.close(*choice, out),
            Event::Finish { choice, finish } => {
                self.close(*choice, out);
                self.choice(*choice).finish = Some(finish.clone());
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            // The error's own event follows, from whoever ends the stream. Google's Python library
            // takes a comment for JSON.
            Event::Failed(_) | Event::Aside(_) => {}
            Event::End => self.end(out),
        }
    }
}

fn last_candidate(number: u32, choice: Choice) -> Map<String, Value> {
    let reason = choice.finish.unwrap_or_default().reason;
    let mut out = closing(number, reason, choice.malformed);
    // A sound's transcript has no other place, and is the answer's text where there is none.
    let text = if choice.text.is_empty() { choice.transcript.as_str() } else { "" };
    out.insert("content".into(), json!({ "parts": [{ "text": text }], "role": "model" }));
    let citations: Vec<&Citation> = choice.citations.iter().collect();
    out.extend(grounding::write(&citations, &choice.text));
    let logprobs = choice.logprobs.as_ref().and_then(logprobs::write);
    out.extend(logprobs.map(|logprobs| ("logprobsResult".to_owned(), logprobs)));
    out
}

/// JSON of what always has one.
fn push(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing to memory cannot fail, and these values have no keys but strings.
    let _ = serde_json::to_writer(out, value);
}
