//! Reads answers, streamed or whole: each event of a stream is a whole answer's shape.

use serde_json::Value;

use super::desk::{Choice, Desk};
use super::wire::{Candidate, Chunk, PromptFeedback, Text};
use super::{logprobs, usage};
use crate::canon::{Event, Finish, FinishReason, Start, StreamFailure};
use crate::dialect::{Misread, ReadStream};

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
        let has_ended = |choice: &Choice| choice.finished || choice.ending.is_some();
        if self.choices.iter().all(has_ended) {
            self.finish(events);
        }
    }

    fn endings(&self) -> Option<(u32, FinishReason)> {
        let endings = || self.choices.iter().filter_map(Choice::ends);
        let count = u32::try_from(endings().count()).ok()?;
        endings().next().map(|reason| (count, reason))
    }
}

impl Reader {
    /// Says why each answer ends; of a whole one, that may be left unsaid.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) {
        if self.choices.is_empty() || std::mem::replace(&mut self.ended, true) {
            return;
        }
        for (number, choice) in (0..).zip(&mut self.choices) {
            let (reason, message) = choice.ending.take().unwrap_or_else(|| ("STOP".into(), None));
            Desk { number, choice, events }.finish(&reason, message);
        }
        events.push(Event::End);
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
            let read = self.candidate(candidate, source, place, events);
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
                .and_then(|usage| usage.service_tier.clone())
                .map(|tier| if tier == "standard" { "default".to_owned() } else { tier }),
        }));
    }

    fn candidate(
        &mut self,
        candidate: Candidate<'_>,
        source: (&[u8], Option<usize>),
        place: usize,
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
        let (mut raw, mut runs) = (None, desk.choice.runs);
        let pieces = candidate.content.and_then(|content| content.parts).unwrap_or_default();
        for (number, piece) in pieces.into_iter().enumerate() {
            if let Some(call) = piece.function_call {
                desk.call(call, piece.thought_signature.as_ref(), id, nameless)?;
            } else if piece.text.is_some() || piece.inline_data.is_some() {
                desk.piece(piece);
            } else {
                let whole = raw.get_or_insert_with(|| raw_parts(source, place));
                let part = whole.get_mut(number).map(Value::take).unwrap_or_default();
                runs = part.get("executableCode").is_some();
                desk.foreign(part);
                continue;
            }
            runs = false;
        }
        desk.choice.runs = runs;
        desk.metadata([
            ("groundingMetadata", candidate.grounding_metadata),
            ("citationMetadata", candidate.citation_metadata),
            ("urlContextMetadata", candidate.url_context_metadata),
        ]);
        desk.logprobs(candidate.logprobs_result.as_ref().and_then(logprobs::read));
        if let Some(reason) = Text::filled(candidate.finish_reason.as_ref())
            && reason != "FINISH_REASON_UNSPECIFIED"
        {
            desk.choice.ending = Some((reason.to_owned(), candidate.finish_message));
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
        let mut choice = Choice::default();
        choice.finished = true;
        let mut desk = Desk { number: 0, choice: &mut choice, events };
        desk.refusal(told);
        let reason = FinishReason::ContentFilter;
        desk.events
            .push(Event::Finish { choice: 0, finish: Finish { reason, ..Finish::default() } });
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
