//! A streamed answer made whole, and a whole answer made a stream.

use serde_json::{Value, json};

use crate::canon::{
    ChatResponse, Choice, Content, Delta, Event, Media, MediaKind, Opening, Part, Reasoning,
    Source, Start, StreamFailure, ToolCall,
};

/// Gathers the events of one stream.
#[derive(Debug, Default)]
pub struct Fold {
    response: ChatResponse,
    /// The answers that have a part open, by the rules of a stream the last of their parts.
    finished: Vec<bool>,
    failure: Option<StreamFailure>,
    ended: bool,
}

impl Fold {
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Start(start) => {
                self.response.id.clone_from(&start.id);
                self.response.model.clone_from(&start.model);
                self.response.created = start.created;
                self.response.service_tier.clone_from(&start.service_tier);
            }
            Event::Open { choice, part } => self.choice(*choice).parts.push(begin(part)),
            Event::Delta { choice, delta } => self.delta(*choice, delta),
            Event::Close { .. } | Event::Aside(_) => {}
            Event::Finish { choice, finish } => {
                self.choice(*choice).finish = finish.clone();
                if let Some(finished) = self.finished.get_mut(*choice as usize) {
                    *finished = true;
                }
            }
            Event::Usage(usage) => self.response.usage = Some(*usage),
            Event::Failed(failure) => self.failure = Some(failure.clone()),
            Event::End => self.ended = true,
        }
    }

    /// The whole answer; what the upstream failed with, or nothing when the stream was cut.
    pub fn finish(self) -> Result<ChatResponse, Option<StreamFailure>> {
        if let Some(failure) = self.failure {
            return Err(Some(failure));
        }
        let complete = self.finished.iter().all(|finished| *finished) && !self.finished.is_empty();
        if complete || self.ended { Ok(self.response) } else { Err(None) }
    }

    /// More answers than this are no answers.
    fn choice(&mut self, choice: u32) -> &mut Choice {
        let place = (choice as usize).min(MOST_CHOICES - 1);
        while self.response.choices.len() <= place {
            self.response.choices.push(Choice::default());
            self.finished.push(false);
        }
        &mut self.response.choices[place]
    }

    fn delta(&mut self, choice: u32, delta: &Delta) {
        let choice = self.choice(choice);
        if let Delta::Logprobs(more) = delta {
            add_logprobs(&mut choice.logprobs, more);
            return;
        }
        let Some(part) = choice.parts.last_mut() else { return };
        match (&mut part.content, delta) {
            (_, Delta::Opaque(opaque)) => part.opaque = Some(opaque.clone()),
            (Content::Text { text, .. }, Delta::Text(more))
            | (Content::Refusal(text), Delta::Refusal(more)) => text.push_str(more),
            (Content::Text { citations, .. }, Delta::Citation(citation)) => {
                citations.push(citation.clone());
            }
            (Content::Reasoning(reasoning), Delta::Reasoning(more)) => {
                reasoning.text.push_str(more);
            }
            (Content::ToolCall(call), Delta::Arguments(more)) => call.arguments.push_str(more),
            (Content::Media(media), Delta::Audio(more)) => {
                if let Source::Base64 { data, .. } = &mut media.source {
                    data.push_str(more);
                }
            }
            (Content::Media(media), Delta::Transcript(more)) => {
                media.transcript.get_or_insert_default().push_str(more);
            }
            _ => {}
        }
    }
}

const MOST_CHOICES: usize = 128;

/// The part that begins so.
pub(super) fn begin(part: &Opening) -> Part {
    Part::new(match part {
        Opening::Text => Content::Text { text: String::new(), citations: Vec::new() },
        Opening::Refusal => Content::Refusal(String::new()),
        Opening::Reasoning { summary, redacted } => Content::Reasoning(Reasoning {
            summary: *summary,
            redacted: *redacted,
            ..Reasoning::default()
        }),
        Opening::ToolCall { id, name, custom } => Content::ToolCall(ToolCall {
            id: id.clone(),
            name: name.clone(),
            arguments: String::new(),
            custom: *custom,
        }),
        Opening::Audio { media_type } => Content::Media(Media::new(
            MediaKind::Audio,
            Source::Base64 { media_type: media_type.clone(), data: String::new() },
        )),
        Opening::Media(media) => Content::Media(media.clone()),
        Opening::Foreign(foreign) => Content::Foreign(foreign.clone()),
    })
}

/// Adds log probabilities, as OpenAI spells them, to those before.
pub(super) fn add_logprobs(whole: &mut Option<Value>, more: &Value) {
    let whole = whole.get_or_insert_with(|| json!({}));
    for (name, tokens) in more.as_object().into_iter().flatten() {
        let Some(tokens) = tokens.as_array() else { continue };
        if let Some(list) = whole[name].as_array_mut() {
            list.extend(tokens.iter().cloned());
        } else {
            whole[name] = Value::Array(tokens.clone());
        }
    }
}

/// The stream that would have brought this answer.
pub fn unfold(response: &ChatResponse) -> Vec<Event> {
    let mut events = vec![Event::Start(Start {
        id: response.id.clone(),
        model: response.model.clone(),
        created: response.created,
        service_tier: response.service_tier.clone(),
    })];
    for (number, answer) in (0_u32..).zip(&response.choices) {
        // They are of the words; only where there are none, of whatever there is.
        let words = answer.parts.iter().position(|part| part.as_text().is_some()).unwrap_or(0);
        for (place, part) in answer.parts.iter().enumerate() {
            unfold_part(number, part, &mut events);
            if let Some(logprobs) = answer.logprobs.as_ref().filter(|_| place == words) {
                let delta = Delta::Logprobs(logprobs.clone());
                events.insert(events.len() - 1, Event::Delta { choice: number, delta });
            }
        }
        events.push(Event::Finish { choice: number, finish: answer.finish.clone() });
    }
    events.extend(response.usage.map(Event::Usage));
    events.push(Event::End);
    events
}

pub(super) fn unfold_part(choice: u32, part: &Part, events: &mut Vec<Event>) {
    let (opening, mut deltas) = opening(&part.content);
    events.push(Event::Open { choice, part: opening });
    if let Some(opaque) = part.opaque.clone().map(Delta::Opaque) {
        // Some clients are told a call's state as it begins, all else's as it ends.
        let is_call = matches!(part.content, Content::ToolCall(_));
        deltas.insert(if is_call { 0 } else { deltas.len() }, opaque);
    }
    events.extend(deltas.into_iter().map(|delta| Event::Delta { choice, delta }));
    events.push(Event::Close { choice });
}

/// How a part begins, and what follows.
fn opening(content: &Content) -> (Opening, Vec<Delta>) {
    match content {
        Content::Text { text, citations } => {
            let citations = citations.iter().cloned().map(Delta::Citation);
            let text = filled(text).map(Delta::Text);
            (Opening::Text, text.into_iter().chain(citations).collect())
        }
        Content::Refusal(text) => {
            (Opening::Refusal, filled(text).map(Delta::Refusal).into_iter().collect())
        }
        Content::Reasoning(Reasoning { text, summary, redacted, .. }) => (
            Opening::Reasoning { summary: *summary, redacted: *redacted },
            filled(text).map(Delta::Reasoning).into_iter().collect(),
        ),
        Content::ToolCall(call) => (
            Opening::ToolCall { id: call.id.clone(), name: call.name.clone(), custom: call.custom },
            filled(&call.arguments).map(Delta::Arguments).into_iter().collect(),
        ),
        Content::Media(Media {
            kind: MediaKind::Audio,
            source: Source::Base64 { media_type, data },
            transcript,
            ..
        }) => {
            let transcript = transcript.clone().map(Delta::Transcript);
            let data = filled(data).map(Delta::Audio);
            let opening = Opening::Audio { media_type: media_type.clone() };
            (opening, data.into_iter().chain(transcript).collect())
        }
        Content::Media(media) => (Opening::Media(media.clone()), Vec::new()),
        Content::Foreign(foreign) => (Opening::Foreign(foreign.clone()), Vec::new()),
        // A model does not answer with a tool's result.
        Content::ToolResult(result) => {
            let text: String = result.parts.iter().filter_map(Part::as_text).collect();
            (Opening::Text, filled(&text).map(Delta::Text).into_iter().collect())
        }
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Dialect, Finish, FinishReason, Opaque, Usage};

    #[test]
    fn an_answer_is_the_same_after_it_was_streamed() {
        let mut thought =
            Part::new(Content::Reasoning(Reasoning { text: "hm".into(), ..Reasoning::default() }));
        thought.opaque = Some(Opaque { dialect: Dialect::Messages, data: json!("sig") });
        let call = Content::ToolCall(ToolCall {
            id: "call_1".into(),
            name: "look".into(),
            arguments: "{}".into(),
            custom: false,
        });
        let answer = Choice {
            parts: vec![thought, Part::text("so"), Part::new(call)],
            finish: Finish {
                reason: FinishReason::ToolCalls,
                stop_sequence: None,
                ..Finish::default()
            },
            logprobs: Some(json!({"content": [{"token": "so"}]})),
        };
        let response = ChatResponse {
            id: "1".into(),
            model: "m".into(),
            created: Some(7),
            choices: vec![answer.clone(), Choice { logprobs: None, ..answer }],
            usage: Some(Usage { input: 3, output: 4, ..Usage::default() }),
            service_tier: None,
        };
        let mut fold = Fold::default();
        for event in unfold(&response) {
            fold.add(&event);
        }
        assert_eq!(fold.finish(), Ok(response));
    }

    #[test]
    fn a_stream_without_its_end_is_no_answer() {
        let mut fold = Fold::default();
        fold.add(&Event::Start(Start::default()));
        fold.add(&Event::Open { choice: 0, part: Opening::Text });
        assert_eq!(fold.finish(), Err(None));
    }
}
