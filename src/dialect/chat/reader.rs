//! Reads answers, streamed or whole: a whole answer is a stream of one piece.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::Answer;
use super::wire::{Choice, Chunk};
use crate::canon::{ChatResponse, Citation, Event, Finish, FinishReason, Start, StreamFailure};
use crate::dialect::fold::Fold;
use crate::dialect::gemini::read_finish as read_gemini;
use crate::dialect::openai::{count, read_error, says_failure};
use crate::dialect::{Misread, ReadStream};

/// More answers than this are no answers.
const MOST_CHOICES: i64 = 128;

/// What is known of one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    id: String,
    started: bool,
    done: bool,
    /// The usage came by itself, as a last word.
    counted: bool,
    /// The most tokens that were told.
    most: u64,
    answers: BTreeMap<u32, Answer>,
    /// Perplexity's sources, said with every piece and given once.
    sources: Vec<Citation>,
}

impl ReadStream for Reader {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if self.done {
            return Ok(());
        }
        if data.starts_with(b"[DONE]") {
            self.over(events);
            return Ok(());
        }
        if name == Some(b"error") {
            self.fail(data, events);
            return Ok(());
        }
        let chunk: Chunk<'_> = serde_json::from_slice(data)?;
        self.chunk(chunk, data, events);
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        let ended = self.answers.values().all(|answer| answer.ending.is_some());
        if !self.done && !self.answers.is_empty() && ended {
            self.complete(events);
        }
    }

    fn endings(&self) -> Option<(u32, FinishReason)> {
        let endings = || self.answers.values().filter_map(|answer| answer.ending.as_ref());
        let count = u32::try_from(endings().count()).ok()?;
        endings().next().map(|ending| (count, ending.reason))
    }
}

impl Reader {
    /// Reads a whole answer.
    pub(super) fn read_whole(body: &[u8]) -> Result<ChatResponse, Misread> {
        let chunk: Chunk<'_> = serde_json::from_slice(body)?;
        if chunk.error.is_null() && chunk.choices.as_ref().is_none_or(Vec::is_empty) {
            return Err(Misread::new("The answer has no `choices`."));
        }
        let mut reader = Self::default();
        let mut events = Vec::new();
        reader.chunk(chunk, body, &mut events);
        reader.complete(&mut events);
        let mut fold = Fold::default();
        for event in &events {
            fold.add(event);
        }
        fold.finish().map_err(|failure| {
            let message = failure.map(|failure| failure.message);
            Misread::new(message.unwrap_or_else(|| "The answer is not complete.".into()))
        })
    }

    fn chunk(&mut self, chunk: Chunk<'_>, data: &[u8], events: &mut Vec<Event>) {
        self.start(&chunk, events);
        let carried = count(&chunk.usage).or_else(|| count(&chunk.x_groq["usage"]));
        let mut usage = carried;
        self.note_sources(&chunk);
        let is_bare = chunk.choices.as_ref().is_none_or(Vec::is_empty);
        for mut choice in chunk.choices.into_iter().flatten() {
            usage = usage.or_else(|| count(&choice.usage));
            if choice.error.is_null() && choice.finish_reason.text() == "error" {
                choice.error = chunk.error.clone();
            }
            self.choice(choice, events);
            if self.done {
                break;
            }
        }
        // Zeros behind real counts are no news.
        if let Some(usage) = usage.filter(|usage| usage.total() > 0 || self.most == 0) {
            self.most = self.most.max(usage.total());
            self.counted |= is_bare && usage.total() > 0;
            let at = if self.done { events.len() - 1 } else { events.len() };
            events.insert(at, Event::Usage(usage));
        }
        // What brings nothing may be an error by another name.
        let is_odd = || is_bare && usage.is_none_or(|it| it.total() == 0) && says_failure(data);
        if !self.done && (!chunk.error.is_null() || is_odd()) {
            self.fail(data, events);
        }
    }

    /// Azure's first piece speaks of its filters and has neither id nor choices.
    fn start(&mut self, chunk: &Chunk<'_>, events: &mut Vec<Event>) {
        let has_choices = chunk.choices.as_ref().is_some_and(|choices| !choices.is_empty());
        if self.started || !(has_choices || !chunk.id.text().is_empty() || chunk.usage.is_object())
        {
            return;
        }
        self.started = true;
        chunk.id.text().clone_into(&mut self.id);
        let tier = chunk.service_tier.text();
        events.push(Event::Start(Start {
            id: self.id.clone(),
            model: chunk.model.text().to_owned(),
            created: chunk.created.as_u64().filter(|created| *created > 0),
            service_tier: (!tier.is_empty()).then(|| tier.to_owned()),
        }));
    }

    fn choice(&mut self, choice: Choice<'_>, events: &mut Vec<Event>) {
        let number = choice.index.unwrap_or(0).clamp(0, MOST_CHOICES - 1);
        let number = u32::try_from(number).unwrap_or(0);
        let answer = self.answers.entry(number).or_insert_with(|| Answer::new(number, &self.id));
        if answer.finished {
            return;
        }
        // MiniMax says at the end once more what it has said in pieces.
        let whole = choice.message.as_ref().filter(|_| !answer.begun);
        if let Some(message) = choice.delta.as_ref().or(whole) {
            answer.read(message, events);
        }
        answer.add_logprobs(choice.logprobs, events);
        let reason = choice.finish_reason.text();
        if let Some(failure) = failure_of(reason, &choice.error) {
            self.done = true;
            events.push(Event::Failed(failure));
            return;
        }
        if !is_reason(reason) {
            return;
        }
        let stop = choice.stop_reason.text();
        answer.ending = Some(Finish {
            reason: read_reason(reason, choice.native_finish_reason.text()),
            stop_sequence: (!stop.is_empty()).then(|| stop.to_owned()),
            details: None,
        });
    }

    fn finish(&mut self, number: u32, finish: Finish, events: &mut Vec<Event>) {
        let Some(answer) = self.answers.get_mut(&number) else { return };
        for source in std::mem::take(&mut self.sources) {
            answer.cite(source, events);
        }
        let from = events.len();
        answer.finish(finish, events);
        let failed = events[from..].iter().position(|event| matches!(event, Event::Failed(_)));
        if let Some(at) = failed {
            // A call that cannot be completed is the end of it.
            events.truncate(from + at + 1);
            self.done = true;
        }
    }

    /// The stream's own last word has come. Gateways say it too when they were cut off: without any
    /// reason for the end the answer is not whole, unless its usage was told, as Snowflake does.
    fn over(&mut self, events: &mut Vec<Event>) {
        if self.counted || self.answers.values().any(|answer| answer.ending.is_some()) {
            self.complete(events);
        }
        self.done = true;
    }

    /// No more is to come. Some servers never say why an answer ended.
    fn complete(&mut self, events: &mut Vec<Event>) {
        let open: Vec<u32> =
            self.answers.iter().filter(|(_, answer)| !answer.finished).map(|(n, _)| *n).collect();
        for number in open {
            let answer = self.answers.get_mut(&number);
            let ending = answer.and_then(|answer| answer.ending.take());
            if ending.is_none() && self.answers.get(&number).is_some_and(Answer::is_cut) {
                events.push(Event::Failed(StreamFailure {
                    message: "The upstream ended inside a tool call.".into(),
                    ..StreamFailure::default()
                }));
                self.done = true;
                return;
            }
            self.finish(number, ending.unwrap_or_default(), events);
            if self.done {
                return; // it failed, and nothing follows
            }
        }
        self.done = true;
        events.push(Event::End);
    }

    fn fail(&mut self, data: &[u8], events: &mut Vec<Event>) {
        self.done = true;
        let (message, upstream) = read_error(data).unwrap_or_else(|| {
            ("The upstream reports an error.".to_owned(), crate::error::Upstream::default())
        });
        let status = upstream.code.as_deref().and_then(|code| code.parse().ok());
        let (kind, code) = (upstream.kind, upstream.code);
        let status = status.filter(|status| (400..600).contains(status));
        events.push(Event::Failed(StreamFailure { message, kind, code, status }));
    }

    fn note_sources(&mut self, chunk: &Chunk<'_>) {
        let pages = chunk.search_results.as_array().or(chunk.web_search.as_array());
        let Some(sources) = chunk.citations.as_array().or(pages) else { return };
        let title = |url: &str, page: &Value| {
            let known = || pages.into_iter().flatten().find(|page| address(page) == Some(url));
            let title = page["title"].as_str().or_else(|| known()?["title"].as_str());
            title.map(str::to_owned)
        };
        let cite = |source: &Value| {
            let url = address(source)?;
            let title = title(url, source);
            Some(Citation { url: Some(url.to_owned()), title, ..Citation::default() })
        };
        if self.answers.values().all(|answer| !answer.finished) {
            self.sources = sources.iter().filter_map(cite).collect();
        }
    }
}

/// Where a source is, told alone or with more of it.
fn address(source: &Value) -> Option<&str> {
    [source, &source["url"], &source["link"]].into_iter().find_map(Value::as_str)
}

/// Reasons that say the upstream broke down.
pub(in crate::dialect) const BROKEN: [&str; 4] =
    ["error", "network_error", "insufficient_system_resource", "abort"];

/// Whether what stands for a finish reason is one: some servers fill it in with every piece.
pub(in crate::dialect) fn is_reason(said: &str) -> bool {
    !matches!(said, "" | "null")
}

/// One of these, or OpenRouter's error inside a choice.
fn failure_of(reason: &str, error: &Value) -> Option<StreamFailure> {
    if error.is_null() && !BROKEN.contains(&reason) {
        return None;
    }
    let message = error["message"].as_str().unwrap_or("The upstream broke off its answer.");
    let code = error["code"].as_u64();
    Some(StreamFailure {
        message: message.to_owned(),
        kind: Some(if reason.is_empty() { "error" } else { reason }.to_owned()),
        code: code.map(|code| code.to_string()),
        status: code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400),
    })
}

/// Each server's word for why it stopped. Where a router also says the word of the server behind
/// it, that one may be the more exact.
pub(in crate::dialect) fn read_reason(reason: &str, native: &str) -> FinishReason {
    let exact = match native {
        "pause_turn" => Some(FinishReason::Pause),
        "refusal" => Some(FinishReason::Refusal),
        "model_context_window_exceeded" => Some(FinishReason::ContextFull),
        "malformed_function_call" | "MALFORMED_FUNCTION_CALL" => Some(FinishReason::Malformed),
        _ => None,
    };
    if let Some(exact) = exact {
        return exact;
    }
    if reason == "stop" {
        return FinishReason::Stop;
    }
    match &*reason.to_ascii_lowercase() {
        "length" | "max_output_tokens" | "time_limit" => FinishReason::Length,
        "model_length" | "context_length_exceeded" | "model_context_window_exceeded" => {
            FinishReason::ContextFull
        }
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filtered" | "sensitive" | "guardrail_intervened" => FinishReason::ContentFilter,
        filtered if filtered.starts_with("content_filter") => FinishReason::ContentFilter,
        "refusal" => FinishReason::Refusal,
        "pause_turn" => FinishReason::Pause,
        // Google's, as its API in OpenAI's words has them.
        theirs => {
            let theirs = theirs.rsplit_once(": ").map_or(theirs, |(_, theirs)| theirs);
            read_gemini(&theirs.to_ascii_uppercase(), false)
        }
    }
}

/// The word for a reason, and the more exact one for those that OpenAI does not have.
pub(in crate::dialect) fn write_reason(
    reason: FinishReason,
) -> (&'static str, Option<&'static str>) {
    match reason {
        FinishReason::Stop => ("stop", None),
        FinishReason::Length => ("length", None),
        FinishReason::ContextFull => ("length", Some("model_context_window_exceeded")),
        FinishReason::ToolCalls => ("tool_calls", None),
        FinishReason::ContentFilter => ("content_filter", None),
        FinishReason::Refusal => ("content_filter", Some("refusal")),
        FinishReason::Pause => ("stop", Some("pause_turn")),
        FinishReason::Malformed => ("stop", Some("malformed_function_call")),
    }
}
