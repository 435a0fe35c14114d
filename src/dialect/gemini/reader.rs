//! Reads answers, streamed or whole: each event of a stream is a whole answer's shape.

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::wire::{Blob, Call, Candidate, Chunk, Piece, PromptFeedback, Text};
use super::{finish, grounding, logprobs, media, signature, usage};
use crate::canon::{
    Delta, Dialect, Event, Finish, FinishReason, Foreign, Media, MediaKind, Opaque, Opening,
    Source, Start, StreamFailure,
};
use crate::dialect::{Misread, ReadStream, portable_id};

/// More answers than this are no answers.
const MOST_CHOICES: u32 = 128;

/// Reads one answer, event by event.
#[derive(Debug, Default)]
pub(super) struct Reader {
    started: bool,
    ended: bool,
    id: String,
    /// Calls that came without an id so far.
    nameless: u32,
    choices: Vec<Choice>,
}

#[derive(Debug, Default)]
struct Choice {
    open: Option<Open>,
    called: bool,
    finished: bool,
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
struct Desk<'a> {
    number: u32,
    choice: &'a mut Choice,
    events: &'a mut Vec<Event>,
}

// === impl Reader ===

impl ReadStream for Reader {
    fn read(
        &mut self,
        _name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if data.trim_ascii_start().starts_with(b"[") {
            for (place, chunk) in
                serde_json::from_slice::<Vec<Chunk<'_>>>(data)?.into_iter().enumerate()
            {
                self.chunk(chunk, (data, Some(place)), events)?;
            }
            return Ok(());
        }
        self.chunk(serde_json::from_slice(data)?, (data, None), events)
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let complete =
            !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished);
        if complete && !std::mem::replace(&mut self.ended, true) {
            events.push(Event::End);
        }
    }
}

impl Reader {
    /// Finishes what a whole answer has left unsaid.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        for (number, choice) in (0..).zip(&mut self.choices) {
            Desk { number, choice, events }.finish("STOP", None);
        }
        self.end(events);
    }

    fn chunk(
        &mut self,
        chunk: Chunk<'_>,
        source: (&[u8], Option<usize>),
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if self.ended {
            return Ok(());
        }
        if let Some(error) = &chunk.error {
            self.ended = true;
            events.push(Event::Failed(failure(error)));
            return Ok(());
        }
        let before = events.len();
        self.start(&chunk, events);
        let mut outcome = Ok(());
        for (place, candidate) in chunk.candidates.into_iter().flatten().enumerate() {
            // One that makes no sense does not take its neighbours along.
            let read = self.candidate(candidate, (source, place), events);
            outcome = outcome.and(read);
        }
        if let Some(feedback) = &chunk.prompt_feedback {
            self.blocked(feedback, events);
        }
        events.extend(chunk.usage_metadata.as_ref().and_then(usage::read).map(Event::Usage));
        let failed = events[before..].iter().position(|event| matches!(event, Event::Failed(_)));
        if let Some(failed) = failed {
            self.ended = true;
            events.truncate(before + failed + 1);
        }
        outcome
    }

    fn start(&mut self, chunk: &Chunk<'_>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let text = |text: &Option<Text<'_>>| {
            text.as_ref().map_or_else(String::new, |text| text.0.to_string())
        };
        self.id = text(&chunk.response_id);
        events.push(Event::Start(Start {
            id: self.id.clone(),
            model: text(&chunk.model_version),
            created: None,
            service_tier: chunk
                .usage_metadata
                .as_ref()
                .and_then(|usage| usage.service_tier.clone()),
        }));
    }

    fn candidate(
        &mut self,
        candidate: Candidate<'_>,
        (source, place): ((&[u8], Option<usize>), usize),
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let number = candidate.index.unwrap_or_default();
        if number >= MOST_CHOICES {
            return Err(Misread::new("A candidate's index is beyond all measure."));
        }
        while self.choices.len() <= number as usize {
            self.choices.push(Choice::default());
        }
        let (id, nameless) = (&self.id, &mut self.nameless);
        let Some(choice) = self.choices.get_mut(number as usize) else { return Ok(()) };
        if choice.finished {
            return Ok(());
        }
        let mut desk = Desk { number, choice, events };
        let mut raw = None;
        let pieces = candidate.content.and_then(|content| content.parts).unwrap_or_default();
        for (number, piece) in pieces.into_iter().enumerate() {
            if let Some(call) = piece.function_call {
                let mut fresh = || {
                    *nameless += 1;
                    format!("call_{id}_{nameless}")
                };
                desk.call(call, piece.thought_signature.as_ref(), (id, &mut fresh))?;
            } else if piece.text.is_some() || piece.inline_data.is_some() {
                desk.piece(piece);
            } else {
                let whole = raw.get_or_insert_with(|| raw_parts(source, place));
                desk.foreign(whole.get_mut(number).map(Value::take).unwrap_or_default());
            }
        }
        desk.metadata([
            ("groundingMetadata", candidate.grounding_metadata),
            ("citationMetadata", candidate.citation_metadata),
            ("urlContextMetadata", candidate.url_context_metadata),
        ]);
        desk.logprobs(candidate.logprobs_result.as_ref().and_then(logprobs::read));
        if let Some(reason) = Text::filled(candidate.finish_reason.as_ref())
            && reason != "FINISH_REASON_UNSPECIFIED"
        {
            desk.finish(reason, candidate.finish_message);
        }
        Ok(())
    }

    /// The question was refused before there was any answer.
    fn blocked(&mut self, feedback: &PromptFeedback, events: &mut Vec<Event>) {
        let Some(reason) = &feedback.block_reason else { return };
        if !self.choices.is_empty() || reason == "BLOCK_REASON_UNSPECIFIED" {
            return;
        }
        let told = feedback.block_reason_message.clone();
        let told = told.unwrap_or_else(|| format!("The prompt was blocked: {reason}."));
        let mut choice = Choice { finished: true, ..Choice::default() };
        let mut desk = Desk { number: 0, choice: &mut choice, events };
        desk.refusal(told);
        let reason = FinishReason::ContentFilter;
        desk.events
            .push(Event::Finish { choice: 0, finish: Finish { reason, stop_sequence: None } });
        self.choices.push(choice);
    }
}

/// A candidate's parts as they stand in the body.
fn raw_parts((data, chunk): (&[u8], Option<usize>), place: usize) -> Vec<Value> {
    let mut whole: Value = serde_json::from_slice(data).unwrap_or_default();
    if let Some(chunk) = chunk {
        whole = whole.get_mut(chunk).map(Value::take).unwrap_or_default();
    }
    match whole.pointer_mut(&format!("/candidates/{place}/content/parts")).map(Value::take) {
        Some(Value::Array(parts)) => parts,
        _ => Vec::new(),
    }
}

fn failure(error: &Value) -> StreamFailure {
    let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    let code = error.get("code").filter(|code| !code.is_null());
    StreamFailure {
        message: text("message").unwrap_or_else(|| error.to_string()),
        kind: text("status"),
        code: code.map(ToString::to_string),
        status: code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok()),
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

    fn refusal(&mut self, text: String) {
        self.whole(Opening::Refusal, [Delta::Refusal(text)]);
    }

    fn piece(&mut self, piece: Piece<'_>) {
        let sign = Text::filled(piece.thought_signature.as_ref());
        let thought = piece.thought.unwrap_or_default();
        if let Some(text) = piece.text {
            self.text(text.0.into_owned(), thought, sign);
        } else if let Some(blob) = piece.inline_data {
            self.blob(blob, sign.map(signature::read));
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
            let opaque = Delta::Opaque(signature::read(sign));
            self.settle();
            self.whole(opening, delta.into_iter().chain([opaque]));
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
        let joins = matches!(&self.choice.open, Some(Open::Audio { media_type: open, joinable: true }) if *open == media_type);
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
    fn foreign(&mut self, part: Value) {
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

    fn call(
        &mut self,
        call: Call<'_>,
        sign: Option<&Text<'_>>,
        (answer, fresh): (&str, &mut dyn FnMut() -> String),
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
        let id = match Text::filled(call.id.as_ref()) {
            Some(id) => portable_id(id).into_owned(),
            // Without the answer's id, at least calls of different tools differ between turns.
            None if answer.is_empty() => {
                portable_id(&format!("{}:{name}:{:?}", fresh(), call.args)).into_owned()
            }
            None => portable_id(&fresh()).into_owned(),
        };
        self.choice.called = true;
        self.open(Opening::ToolCall { id, name: name.to_owned(), custom: false });
        if let Some(sign) = Text::filled(sign) {
            self.delta(Delta::Opaque(signature::read(sign)));
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

    fn metadata<const N: usize>(&mut self, fields: [(&str, Option<Value>); N]) {
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

    fn logprobs(&mut self, more: Option<Value>) {
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

    fn finish(&mut self, reason: &str, message: Option<String>) {
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
            logprobs.into_iter().for_each(|logprobs| self.delta(Delta::Logprobs(logprobs)));
            citations.into_iter().for_each(|citation| self.delta(Delta::Citation(citation)));
        }
        self.close();
        let reason = finish::read(reason, self.choice.called);
        if let (FinishReason::ContentFilter, Some(message)) = (reason, message) {
            self.refusal(message);
        }
        let finish = Finish { reason, stop_sequence: None };
        self.events.push(Event::Finish { choice: self.number, finish });
    }
}
