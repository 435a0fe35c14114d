//! One answer while it is read: which of its parts is open, and what is still to be told of it.

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::wire::{Blob, Call, Piece, Text};
use super::{finish, grounding, media, signature};
use crate::canon::{
    Delta, Dialect, Event, Finish, FinishReason, Foreign, Media, MediaKind, Opaque, Opening,
    Source, StreamFailure,
};
use crate::dialect::{Misread, portable_id};

#[derive(Debug, Default)]
pub(super) struct Choice {
    open: Option<Open>,
    called: bool,
    /// Why it ends, as was said last, and more about that. Google says it with pieces before the
    /// last one too.
    pub(super) ending: Option<(String, Option<String>)>,
    /// The last piece is code that runs, whose result is to come.
    pub(super) runs: bool,
    pub(super) finished: bool,
    /// The text of the answer so far, for places in it are told in bytes of the whole.
    text: String,
    /// What is said of the sources, kept until all of the text is known.
    metadata: Map<String, Value>,
    logprobs: Option<Value>,
}

#[derive(Debug)]
enum Open {
    Text,
    Thought,
    /// Pieces of sound can be joined as long as their base64 was not filled up.
    Audio {
        media_type: String,
        joinable: bool,
    },
    /// A call whose arguments still come.
    Call(Arguments),
}

/// One choice and where its events go.
pub(super) struct Desk<'a> {
    pub(super) number: u32,
    pub(super) choice: &'a mut Choice,
    pub(super) events: &'a mut Vec<Event>,
}

// === impl Choice ===

impl Choice {
    /// Why it ends, unless its last piece has yet to be followed by another.
    pub(super) fn ends(&self) -> Option<FinishReason> {
        let (reason, _) = self.ending.as_ref().filter(|_| !self.runs)?;
        Some(finish::read(reason, self.called))
    }
}

// === impl Desk ===

impl Desk<'_> {
    fn open(&mut self, part: Opening) {
        self.close();
        self.events.push(Event::Open { choice: self.number, part });
    }

    fn delta(&mut self, delta: Delta) {
        self.events.push(Event::Delta { choice: self.number, delta });
    }

    /// Closes what is open. A call that is cut off here is told as it stands by `settle`.
    fn close(&mut self) {
        if self.choice.open.take().is_some() {
            self.close_part();
        }
    }

    fn close_part(&mut self) {
        self.events.push(Event::Close { choice: self.number });
    }

    /// A part that is whole at once.
    fn whole(&mut self, part: Opening, deltas: impl IntoIterator<Item = Delta>) {
        self.open(part);
        for delta in deltas {
            self.delta(delta);
        }
        self.close_part();
    }

    pub(super) fn refusal(&mut self, text: String) {
        self.whole(Opening::Refusal, [Delta::Refusal(text)]);
    }

    pub(super) fn piece(&mut self, piece: Piece<'_>) {
        let sign = Text::filled(piece.thought_signature.as_ref());
        let thought = piece.thought.unwrap_or_default();
        if let Some(text) = piece.text {
            self.text(text.0.into_owned(), thought, sign);
        } else if let Some(blob) = piece.inline_data {
            self.blob(blob, sign.and_then(signature::read));
        }
    }

    /// A part with a signature stays one of its own, as the provider wants it back.
    fn text(&mut self, text: String, thought: bool, sign: Option<&str>) {
        let opening = if thought { signature::thought(sign) } else { Opening::Text };
        if !thought {
            self.choice.text.push_str(&text);
        }
        let delta = match (text.is_empty(), thought) {
            (true, _) => None,
            (false, true) => Some(Delta::Reasoning(text)),
            (false, false) => Some(Delta::Text(text)),
        };
        if let Some(sign) = sign {
            let opaque = signature::read(sign).map(Delta::Opaque);
            self.settle();
            self.whole(opening, delta.into_iter().chain(opaque));
            return;
        }
        let Some(delta) = delta else { return };
        match (&self.choice.open, thought) {
            (Some(Open::Text), false) | (Some(Open::Thought), true) => {}
            _ => {
                self.settle();
                self.open(opening);
                self.choice.open = Some(if thought { Open::Thought } else { Open::Text });
            }
        }
        self.delta(delta);
    }

    fn blob(&mut self, blob: Blob<'_>, opaque: Option<Opaque>) {
        let text =
            |text: Option<Text<'_>>| text.map_or_else(String::new, |text| text.0.into_owned());
        let (media_type, data) = (text(blob.mime_type), text(blob.data));
        self.settle();
        if media::kind(&media_type) != MediaKind::Audio {
            let kind = media::kind(&media_type);
            let media = Media::new(kind, Source::Base64 { media_type, data });
            self.whole(Opening::Media(media), opaque.map(Delta::Opaque));
            return;
        }
        let joins = opaque.is_none()
            && matches!(&self.choice.open, Some(Open::Audio { media_type: open, joinable: true }) if *open == media_type);
        if !joins {
            self.open(Opening::Audio { media_type: media_type.clone() });
        }
        let joinable = opaque.is_none() && !data.ends_with('=') && data.len().is_multiple_of(4);
        self.choice.open = Some(Open::Audio { media_type, joinable });
        if !data.is_empty() {
            self.delta(Delta::Audio(data));
        }
        if let Some(opaque) = opaque {
            self.delta(Delta::Opaque(opaque));
        }
    }

    /// Parts that only Gemini has, and signatures that stand alone.
    pub(super) fn foreign(&mut self, part: Value) {
        let Value::Object(fields) = &part else { return };
        let lone = fields.keys().all(|key| key == "thoughtSignature" || key == "thought");
        if lone {
            if let Some(text) = part["thoughtSignature"].as_str().filter(|text| !text.is_empty()) {
                let thought = part["thought"] == json!(true);
                self.text(String::new(), thought, Some(text));
            }
            return;
        }
        self.settle();
        self.whole(Opening::Foreign(Foreign { dialect: Dialect::Gemini, value: part }), []);
    }

    pub(super) fn call(
        &mut self,
        call: Call<'_>,
        sign: Option<&Text<'_>>,
        answer: &str,
        nameless: &mut u32,
    ) -> Result<(), Misread> {
        let goes_on = call.will_continue.unwrap_or_default();
        let pieces = call.partial_args.unwrap_or_default();
        let Some(name) = Text::filled(call.name.as_ref()) else {
            let Some(Open::Call(arguments)) = &mut self.choice.open else {
                return Err(Misread::new("A function call has no name."));
            };
            pieces.into_iter().try_for_each(|piece| arguments.add(piece))?;
            if !goes_on {
                self.settle();
            }
            return Ok(());
        };
        self.settle();
        let id = Text::filled(call.id.as_ref()).map_or_else(
            || {
                *nameless += 1;
                // Without the answer's id, at least calls of different tools differ between turns.
                let told = if answer.is_empty() {
                    format!(":{name}:{:?}", call.args)
                } else {
                    String::new()
                };
                format!("call_{answer}_{nameless}{told}")
            },
            str::to_owned,
        );
        let id = portable_id(&id).into_owned();
        self.choice.called = true;
        self.open(Opening::ToolCall { id, name: name.to_owned(), custom: false });
        if let Some(opaque) = Text::filled(sign).and_then(signature::read) {
            self.delta(Delta::Opaque(opaque));
        }
        let mut arguments = Arguments::new(call.args);
        let added = pieces.into_iter().try_for_each(|piece| arguments.add(piece));
        self.choice.open = Some(Open::Call(arguments));
        if !goes_on {
            self.settle();
        }
        added
    }

    /// Ends a call whose arguments are all there; one that was cut fails the answer.
    fn settle(&mut self) {
        if !matches!(self.choice.open, Some(Open::Call(_))) {
            return;
        }
        let Some(Open::Call(arguments)) = self.choice.open.take() else { return };
        let Some(arguments) = arguments.finish() else {
            self.events.push(Event::Failed(StreamFailure {
                message: "The model's function call was cut off.".into(),
                kind: Some("MALFORMED_FUNCTION_CALL".into()),
                ..StreamFailure::default()
            }));
            return;
        };
        self.delta(Delta::Arguments(arguments));
        self.close_part();
    }

    pub(super) fn metadata<const N: usize>(&mut self, fields: [(&str, Option<Value>); N]) {
        for (name, value) in fields {
            let Some(value) =
                value.filter(|value| value.as_object().is_some_and(|fields| !fields.is_empty()))
            else {
                continue;
            };
            match self.choice.metadata.get_mut(name).and_then(Value::as_object_mut) {
                Some(known) => known.extend(value.as_object().cloned().unwrap_or_default()),
                None => _ = self.choice.metadata.insert(name.to_owned(), value),
            }
        }
    }

    pub(super) fn logprobs(&mut self, more: Option<Value>) {
        let Some(more) = more else { return };
        if matches!(self.choice.open, Some(Open::Text)) {
            self.delta(Delta::Logprobs(more));
        } else if let (Some(Value::Array(known)), Value::Array(more)) = (
            self.choice.logprobs.as_mut().and_then(|known| known.get_mut("content")),
            &more["content"],
        ) {
            known.extend(more.iter().cloned());
        } else {
            self.choice.logprobs = Some(more);
        }
    }

    pub(super) fn finish(&mut self, reason: &str, message: Option<String>) {
        if std::mem::replace(&mut self.choice.finished, true) {
            return;
        }
        self.settle();
        let metadata = std::mem::take(&mut self.choice.metadata);
        let citations = grounding::read(&metadata, &self.choice.text);
        let logprobs = self.choice.logprobs.take();
        if logprobs.is_some() || !citations.is_empty() {
            if !matches!(self.choice.open, Some(Open::Text)) {
                self.open(Opening::Text);
                self.choice.open = Some(Open::Text);
            }
            let citations = citations.into_iter().map(Delta::Citation);
            for delta in logprobs.map(Delta::Logprobs).into_iter().chain(citations) {
                self.delta(delta);
            }
        }
        self.close();
        let reason = finish::read(reason, self.choice.called);
        if let (FinishReason::ContentFilter, Some(message)) = (reason, message) {
            self.refusal(message);
        }
        let finish = Finish { reason, stop_sequence: None, ..Finish::default() };
        self.events.push(Event::Finish { choice: self.number, finish });
    }
}
