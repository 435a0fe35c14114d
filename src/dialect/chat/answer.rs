//! The parts of one answer put in order: one open at a time, each closed before the next.

use serde_json::Value;

use super::media;
use super::thought::{Detail, Kind, read_extra};
use super::wire::Message;
use crate::canon::{
    Citation, Delta, Dialect, Event, Finish, FinishReason, Media, MediaKind, Opaque, Opening,
};
use crate::dialect::assemble::{Assembler, Piece};
use crate::dialect::legible::Said;

/// One choice's way through its stream.
#[derive(Debug, Default)]
pub(super) struct Answer {
    number: u32,
    open: Open,
    calls: Assembler,
    /// What came while a call's arguments were incomplete: it follows the calls.
    late: Vec<Delta>,
    /// Log probabilities that came before any part.
    logprobs: Vec<Value>,
    /// Some of it was said.
    pub(super) begun: bool,
    /// Why it ends, as was said last. Some servers say it before the end.
    pub(super) ending: Option<Finish>,
    pub(super) finished: bool,
}

#[derive(Debug, Default, PartialEq)]
enum Open {
    #[default]
    Nothing,
    Text,
    Refusal,
    /// With what it is called later.
    Audio(Option<Opaque>),
    Calls,
    Thought(Thought),
}

/// The thought that is open.
#[derive(Debug, Default, PartialEq)]
struct Thought {
    summary: bool,
    index: Option<u64>,
    /// Bytes of its text so far.
    length: usize,
    /// The text came in `reasoning_content` and not in entries.
    plain: bool,
    state: Option<Opaque>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(number: u32, answer: &str) -> Self {
        Self { number, calls: Assembler::new(answer), ..Self::default() }
    }

    /// What a message or a piece of one says.
    pub(super) fn read(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        self.thoughts(message, events);
        self.say(Delta::Text(message.content.spoken().into_owned()), events);
        for part in message.content.list() {
            self.content_part(part, events);
        }
        let cited = [&message.annotations, &message.x_citations].map(Value::as_array);
        for annotation in cited.into_iter().flatten().flatten() {
            self.cite(media::read_citation(annotation), events);
        }
        self.text_state(&message.extra_content, events);
        self.say(Delta::Refusal(message.refusal.text().to_owned()), events);
        self.audio(&message.audio, events);
        for image in message.images.as_array().into_iter().flatten() {
            self.media(media::read_image(image), events);
        }
        self.tool_calls(message, events);
        self.begun |= self.open != Open::Nothing;
    }

    /// Log probabilities belong to the part that they came with.
    pub(super) fn add_logprobs(&mut self, logprobs: Value, events: &mut Vec<Event>) {
        let filled = |name: &str| logprobs[name].as_array().is_some_and(|list| !list.is_empty());
        if !filled("content") && !filled("refusal") {
            return;
        }
        self.logprobs.push(logprobs);
        self.give_logprobs(events);
    }

    pub(super) fn cite(&mut self, citation: Citation, events: &mut Vec<Event>) {
        if !self.make_way(events) {
            return self.late.push(Delta::Citation(citation));
        }
        self.begin(Open::Text, Opening::Text, events);
        self.push(Delta::Citation(citation), events);
    }

    /// Closes what is open and says why the answer ended.
    pub(super) fn finish(&mut self, mut finish: Finish, events: &mut Vec<Event>) {
        self.close(events);
        for delta in std::mem::take(&mut self.late) {
            match delta {
                Delta::Citation(citation) => self.cite(citation, events),
                delta => self.say(delta, events),
            }
        }
        self.close(events);
        // A client that is told of calls waits for some.
        finish.reason = match finish.reason {
            FinishReason::Stop if !self.calls.is_empty() => FinishReason::ToolCalls,
            FinishReason::ToolCalls if self.calls.is_empty() => FinishReason::Stop,
            reason => reason,
        };
        self.finished = true;
        events.push(Event::Finish { choice: self.number, finish });
    }

    /// Whether a call still lacks some of its arguments.
    pub(super) fn is_cut(&self) -> bool {
        self.calls.is_cut()
    }

    fn thoughts(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        let details = [&message.reasoning_details, &message.thinking_blocks];
        let details = details.into_iter().filter_map(Value::as_array).flatten();
        let details: Vec<Detail<'_>> = details.filter_map(Detail::read).collect();
        let text = [&message.reasoning_content, &message.reasoning, &message.reasoning_text]
            .into_iter()
            .map(Said::spoken)
            .find(|text| !text.is_empty());
        if let Some(text) = text.filter(|_| details.iter().all(|detail| detail.text.is_empty())) {
            self.say(Delta::Reasoning(text.into_owned()), events);
        }
        for detail in details {
            self.detail(detail, events);
        }
        // A server's own state beside the whole message stands for its thoughts.
        let own = read_extra(&message.extra_content);
        if let Some(state) = own.filter(|state| state.dialect == Dialect::Chat)
            && self.make_way(events)
        {
            let data = serde_json::json!({ "extra_content": state.data });
            self.withheld(Opaque { data, ..state }, events);
        }
    }

    /// A piece of text of whichever kind, in the part for it.
    fn say(&mut self, delta: Delta, events: &mut Vec<Event>) {
        let length = match &delta {
            Delta::Text(text) | Delta::Refusal(text) | Delta::Reasoning(text) => text.len(),
            _ => 0,
        };
        if length == 0 {
            return;
        }
        if !self.make_way(events) {
            return self.late.push(delta);
        }
        match &delta {
            Delta::Refusal(_) => self.begin(Open::Refusal, Opening::Refusal, events),
            Delta::Reasoning(_) => {
                if let Open::Thought(thought) = &mut self.open {
                    thought.length += length;
                    thought.plain = true;
                } else {
                    let thought = Thought { length, plain: true, ..Thought::default() };
                    let opening = Opening::Reasoning { summary: false, redacted: false };
                    self.begin(Open::Thought(thought), opening, events);
                }
            }
            _ => self.begin(Open::Text, Opening::Text, events),
        }
        self.push(delta, events);
    }

    fn detail(&mut self, detail: Detail<'_>, events: &mut Vec<Event>) {
        if detail.kind == Kind::Encrypted {
            return self.encrypted(detail, events);
        }
        if !self.make_way(events) {
            return self.late.push(Delta::Reasoning(detail.text.to_owned()));
        }
        let summary = detail.kind == Kind::Summary;
        let goes_on = match &self.open {
            Open::Thought(open) => {
                open.summary == summary && open.index.unwrap_or(0) == detail.index.unwrap_or(0)
            }
            _ => false,
        };
        if !goes_on {
            let thought = Thought { summary, index: detail.index, ..Thought::default() };
            self.close(events);
            let opening = Opening::Reasoning { summary, redacted: false };
            self.begin(Open::Thought(thought), opening, events);
        }
        let Open::Thought(thought) = &mut self.open else { return };
        // At the end of a thought our streams give it whole, for clients that only keep entries.
        let is_repeated = thought.plain && thought.length == detail.text.len();
        thought.index = detail.index;
        if detail.sealed.is_some() {
            thought.state = detail.sealed;
        } else if !detail.is_ours {
            let old = thought.state.take().map(|state| state.data);
            thought.state = Some(merge(old, detail.fields));
        }
        if !is_repeated && !detail.text.is_empty() {
            thought.length += detail.text.len();
            self.push(Delta::Reasoning(detail.text.to_owned()), events);
        }
    }

    /// State without a text: of the summary before it, of a call, or of a thought that is withheld.
    fn encrypted(&mut self, detail: Detail<'_>, events: &mut Vec<Event>) {
        if let Some(sealed) = &detail.sealed {
            if let Open::Thought(thought) = &mut self.open
                && thought.index.unwrap_or(0) == detail.index.unwrap_or(0)
                && thought.state.is_none()
            {
                thought.state = detail.sealed;
                return self.close(events);
            }
            if !detail.id.is_empty() && self.calls.attach(detail.id, sealed) {
                return;
            }
        }
        if !self.make_way(events) {
            return;
        }
        let state = detail.sealed.unwrap_or_else(|| merge(None, detail.fields));
        self.withheld(state, events);
    }

    fn withheld(&mut self, state: Opaque, events: &mut Vec<Event>) {
        self.close(events);
        let thought = Thought { state: Some(state), ..Thought::default() };
        let opening = Opening::Reasoning { summary: false, redacted: true };
        self.begin(Open::Thought(thought), opening, events);
        self.close(events);
    }

    /// A part of a content list: Mistral's and Databricks' thoughts among them.
    fn content_part(&mut self, part: &Value, events: &mut Vec<Event>) {
        match part["type"].as_str().unwrap_or_default() {
            "text" | "output_text" => self.say(Delta::Text(media::text_of(&part["text"])), events),
            "refusal" => self.say(Delta::Refusal(media::text_of(&part["refusal"])), events),
            "thinking" => {
                self.say(Delta::Reasoning(media::text_of(&part["thinking"])), events);
            }
            "reasoning" => {
                self.say(Delta::Reasoning(media::text_of(&part["summary"])), events);
            }
            "image_url" => self.media(media::read_image(part), events),
            _ => {}
        }
    }

    fn audio(&mut self, audio: &Value, events: &mut Vec<Event>) {
        let field = |name: &str| audio[name].as_str().filter(|text| !text.is_empty());
        let (data, transcript, id) = (field("data"), field("transcript"), field("id"));
        if (data.is_none() && transcript.is_none()) || !self.make_way(events) {
            return;
        }
        if !matches!(self.open, Open::Audio(_)) {
            let media_type = "audio/wav".to_owned();
            self.begin(Open::Audio(None), Opening::Audio { media_type }, events);
        }
        let data = data.map(|text| Delta::Audio(text.to_owned()));
        let transcript = transcript.map(|text| Delta::Transcript(text.to_owned()));
        for delta in data.into_iter().chain(transcript) {
            self.push(delta, events);
        }
        if let (Some(id), Open::Audio(state)) = (id, &mut self.open) {
            // A later question may name it instead of sending it again.
            let data = serde_json::json!({ "id": id });
            *state = Some(Opaque { dialect: Dialect::Chat, data });
        }
    }

    fn media(&mut self, media: Option<Media>, events: &mut Vec<Event>) {
        let Some(media) = media.filter(|media| media.kind == MediaKind::Image) else { return };
        if !self.make_way(events) {
            return;
        }
        self.close(events);
        events.push(Event::Open { choice: self.number, part: Opening::Media(media) });
        events.push(Event::Close { choice: self.number });
    }

    fn tool_calls(&mut self, message: &Message<'_>, events: &mut Vec<Event>) {
        for (place, call) in message.tool_calls.iter().flatten().enumerate() {
            // Snowflake sends an empty one of the other kind with each, so the kind is what the
            // name or the text is in.
            let custom = call.custom.as_ref().filter(|_| call.function.is_none());
            let (name, arguments) = match (custom, &call.function) {
                (Some(custom), _) => (custom.name.text(), custom.input.json()),
                (None, Some(function)) => (function.name.text(), function.arguments.json()),
                (None, None) => ("", "".into()),
            };
            let piece = Piece {
                id: call.id.text(),
                name,
                index: call.index,
                place,
                arguments: &arguments,
                custom: custom.is_some(),
                opaque: read_extra(&call.extra_content),
            };
            self.piece(piece, events);
        }
        let Some(function) = &message.function_call else { return };
        let (name, arguments) = (function.name.text(), function.arguments.json());
        if !name.is_empty() || !arguments.is_empty() {
            self.piece(Piece { name, arguments: &arguments, ..Piece::default() }, events);
        }
    }

    fn piece(&mut self, piece: Piece<'_>, events: &mut Vec<Event>) {
        if self.open != Open::Calls {
            self.close(events);
            self.open = Open::Calls;
        }
        self.calls.add(self.number, piece, events);
        self.give_logprobs(events);
    }

    /// State beside the whole message: where we put it there, it belongs to the text.
    fn text_state(&mut self, extra: &Value, events: &mut Vec<Event>) {
        let ours = read_extra(extra).filter(|state| state.dialect != Dialect::Chat);
        if let Some(state) = ours.filter(|_| self.make_way(events)) {
            self.begin(Open::Text, Opening::Text, events);
            self.push(Delta::Opaque(state), events);
        }
    }

    /// Makes room for something other than calls; `false` while a call is incomplete.
    fn make_way(&mut self, events: &mut Vec<Event>) -> bool {
        if self.open != Open::Calls {
            return true;
        }
        if !self.calls.is_whole() {
            return false;
        }
        self.close(events);
        true
    }

    fn begin(&mut self, open: Open, opening: Opening, events: &mut Vec<Event>) {
        if self.open == open {
            return;
        }
        self.close(events);
        self.open = open;
        events.push(Event::Open { choice: self.number, part: opening });
        self.give_logprobs(events);
    }

    fn give_logprobs(&mut self, events: &mut Vec<Event>) {
        let is_open = match self.open {
            Open::Nothing => false,
            Open::Calls => self.calls.is_open(),
            Open::Text | Open::Refusal | Open::Audio(_) | Open::Thought(_) => true,
        };
        if is_open {
            for logprobs in std::mem::take(&mut self.logprobs) {
                self.push(Delta::Logprobs(logprobs), events);
            }
        }
    }

    fn push(&self, delta: Delta, events: &mut Vec<Event>) {
        events.push(Event::Delta { choice: self.number, delta });
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        match std::mem::take(&mut self.open) {
            Open::Nothing => {}
            Open::Calls => self.calls.finish(self.number, events),
            Open::Thought(Thought { state: Some(state), .. }) | Open::Audio(Some(state)) => {
                self.push(Delta::Opaque(state), events);
                events.push(Event::Close { choice: self.number });
            }
            Open::Text | Open::Refusal | Open::Audio(None) | Open::Thought(_) => {
                events.push(Event::Close { choice: self.number });
            }
        }
    }
}

/// The fields of an entry, those of its earlier pieces included.
fn merge(old: Option<Value>, fields: serde_json::Map<String, Value>) -> Opaque {
    let mut data = match old {
        Some(Value::Object(old)) => old,
        _ => serde_json::Map::new(),
    };
    for (name, value) in fields {
        if !value.is_null() || !data.contains_key(&name) {
            data.insert(name, value);
        }
    }
    Opaque { dialect: Dialect::Chat, data: Value::Object(data) }
}
