//! Reads streams of Converse.
//!
//! An event is known by its fields and not by its name: the names say nothing that they do not,
//! except that something failed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::response::{Tier, Tokens, foreign, hosted, is_hosted, read_citation, read_finish};
use crate::canon::{
    Citation, Content, Delta, Dialect, Event, Media, MediaKind, Opening, Source, Start,
    StreamFailure,
};
use crate::dialect::legible::object;
use crate::dialect::messages::stands_for;
use crate::dialect::row::{self, Row};
use crate::dialect::{Misread, ReadStream};

#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
pub(super) struct Reader {
    row: Row<Key>,
    /// The block of a hosted tool, which goes out whole.
    hosted: Option<Hosted>,
    /// The picture that comes in pieces.
    picture: Option<Picture>,
    cited: Cited,
    started: bool,
    finished: bool,
    told_usage: bool,
    /// A call has come without its name: the answer is not whole.
    lost_call: bool,
    ended: bool,
}

/// A block's place, and what is said in it: a server that mixes both in one place means two.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key {
    Text(u64),
    Thought(u64),
    Call(u64),
    /// A block that goes out whole.
    Whole,
}

struct Picture {
    index: u64,
    format: String,
    bytes: Vec<u8>,
}

/// The text at hand, and what is cited for it, which is told when all of it has been said.
#[derive(Default)]
struct Cited {
    index: u64,
    /// In characters of the whole answer.
    start: u64,
    end: u64,
    citations: Vec<Citation>,
}

struct Hosted {
    index: u64,
    start: Map<String, Value>,
    input: String,
    results: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    role: Option<String>,
    content_block_index: Option<u64>,
    start: Option<Map<String, Value>>,
    delta: Option<Piece>,
    stop_reason: Option<String>,
    additional_model_response_fields: Option<Value>,
    #[serde(default, deserialize_with = "object")]
    usage: Option<Tokens>,
    metrics: Option<Value>,
    service_tier: Option<Tier>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Piece {
    text: Option<String>,
    reasoning_content: Option<Thought>,
    tool_use: Option<Input>,
    tool_result: Option<Vec<Value>>,
    citation: Option<Value>,
    #[serde(default, deserialize_with = "object")]
    image: Option<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    #[serde(default, deserialize_with = "object")]
    source: Option<Bytes>,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thought {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    input: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exception {
    #[serde(rename = "__type")]
    kind: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
    original_message: Option<String>,
    original_status_code: Option<u16>,
}

/// The status that each exception has where it comes before a stream.
const EXCEPTIONS: [(&str, u16); 11] = [
    ("validationException", 400),
    ("serviceQuotaExceededException", 400),
    ("accessDeniedException", 403),
    ("resourceNotFoundException", 404),
    ("modelTimeoutException", 408),
    ("modelErrorException", 424),
    ("modelStreamErrorException", 424),
    ("throttlingException", 429),
    ("modelNotReadyException", 429),
    ("internalServerException", 500),
    ("serviceUnavailableException", 503),
];

// === impl Reader ===

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            row: Row::new(Dialect::Converse),
            hosted: None,
            picture: None,
            cited: Cited::default(),
            started: false,
            finished: false,
            told_usage: false,
            lost_call: false,
            ended: false,
        }
    }

    fn begin(&mut self, service_tier: Option<String>, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start(Start { service_tier, ..Start::default() }));
        }
    }

    fn open(
        &mut self,
        index: u64,
        mut start: Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        self.turn_to(index, events);
        let is_result = start.contains_key("toolResult");
        let format = start.get("image").and_then(|image| image.get("format")?.as_str());
        if let Some(format) = format {
            self.picture = Some(Picture { index, format: format.to_owned(), bytes: Vec::new() });
            return Ok(());
        }
        match start.get_mut("toolUse") {
            Some(Value::Object(call)) if !is_hosted(call) => {
                let mut take = |name: &str| match call.get_mut(name).map(Value::take) {
                    Some(Value::String(text)) => Ok(text),
                    _ => Err(Misread::new(format!("`start.toolUse.{name}` is not a string."))),
                };
                let (id, name) = (take("toolUseId")?, take("name")?);
                let part = Opening::ToolCall { id, name, custom: false };
                self.row.start(Key::Call(index), part, events);
            }
            // An empty start, or that of a text, says no more than the first delta will.
            None if !is_result => {}
            _ => {
                let (input, results) = (String::new(), Vec::new());
                self.hosted = Some(Hosted { index, start, input, results });
            }
        }
        Ok(())
    }

    fn add(&mut self, index: u64, piece: Piece, events: &mut Vec<Event>) -> Result<(), Misread> {
        self.turn_to(index, events);
        if let Some(text) = piece.text.filter(|text| !text.is_empty()) {
            self.cited.end += text.chars().count() as u64;
            self.say(Key::Text(index), Opening::Text, Delta::Text(text), events);
        }
        self.cited.citations.extend(piece.citation.map(read_citation));
        if let Some(image) = piece.image {
            self.show(index, image)?;
        }
        if let Some(thought) = piece.reasoning_content {
            self.think(index, thought, events);
        }
        if let Some(hosted) = self.hosted.as_mut().filter(|hosted| hosted.index == index) {
            hosted.results.extend(piece.tool_result.into_iter().flatten());
            hosted.input.push_str(piece.tool_use.as_ref().map_or("", |call| &call.input));
        } else if let Some(call) = piece.tool_use {
            if !self.row.has(Key::Call(index)) {
                self.lost_call = true;
                return Err(Misread::new("A tool's input has come without its name."));
            }
            if !call.input.is_empty() {
                let delta = Delta::Arguments(call.input);
                self.row.add(Key::Call(index), delta, events);
            }
        }
        Ok(())
    }

    fn say(&mut self, key: Key, part: Opening, delta: Delta, events: &mut Vec<Event>) {
        if !self.row.has(key) {
            self.row.start(key, part, events);
        }
        self.row.add(key, delta, events);
    }

    /// A text ends where another block goes on.
    fn turn_to(&mut self, index: u64, events: &mut Vec<Event>) {
        if self.cited.index != index {
            self.cite(events);
            self.cited.index = index;
        }
    }

    /// Tells the citations of the text that has ended.
    fn cite(&mut self, events: &mut Vec<Event>) {
        let Cited { index, start, end, citations } = std::mem::take(&mut self.cited);
        self.cited = Cited { index, start: end, end, citations: Vec::new() };
        for mut citation in citations {
            stands_for(&mut citation, start, end);
            self.say(Key::Text(index), Opening::Text, Delta::Citation(citation), events);
        }
    }

    /// Each piece of a picture is base64 of its own.
    fn show(&mut self, index: u64, image: Shown) -> Result<(), Misread> {
        let Some(data) = image.source.and_then(|source| source.bytes) else { return Ok(()) };
        let Some(picture) = self.picture.as_mut().filter(|picture| picture.index == index) else {
            return Err(Misread::new("A picture has come without its format."));
        };
        let wrong = |_| Misread::new("`delta.image.source.bytes` is not base64.");
        picture.bytes.extend(STANDARD.decode(data).map_err(wrong)?);
        Ok(())
    }

    fn stop_picture(&mut self, events: &mut Vec<Event>) {
        let Some(picture) = self.picture.take().filter(|picture| !picture.bytes.is_empty()) else {
            return;
        };
        let media_type = format!("image/{}", picture.format);
        let source = Source::Base64 { media_type, data: STANDARD.encode(picture.bytes) };
        let media = Media::new(MediaKind::Image, source);
        self.row.start(Key::Whole, Opening::Media(media), events);
        self.row.stop(Key::Whole, events);
    }

    fn think(&mut self, index: u64, thought: Thought, events: &mut Vec<Event>) {
        let key = Key::Thought(index);
        let redacted = thought.redacted_content.is_some();
        let opening = Opening::Reasoning { summary: false, redacted };
        if let Some(text) = thought.text.filter(|text| !text.is_empty()) {
            self.say(key, opening.clone(), Delta::Reasoning(text), events);
        }
        if let Some(state) = thought.signature.or(thought.redacted_content) {
            if !self.row.has(key) {
                self.row.start(key, opening, events);
            }
            self.row.keep(key, &state);
        }
    }

    fn stop(&mut self, index: u64, events: &mut Vec<Event>) {
        if self.hosted.as_ref().is_some_and(|hosted| hosted.index == index) {
            self.stop_hosted(events);
        }
        if self.picture.as_ref().is_some_and(|picture| picture.index == index) {
            self.stop_picture(events);
        }
        if self.cited.index == index {
            self.cite(events);
        }
        for key in [Key::Text(index), Key::Thought(index), Key::Call(index)] {
            if self.row.has(key) {
                self.row.stop(key, events);
            }
        }
    }

    fn stop_hosted(&mut self, events: &mut Vec<Event>) {
        let Some(told) = self.hosted.take() else { return };
        if let Content::Foreign(block) = foreign(hosted(told.start, &told.input, told.results)) {
            self.row.start(Key::Whole, Opening::Foreign(block), events);
            self.row.stop(Key::Whole, events);
        }
    }

    fn finish(&mut self, reason: &str, additional: Option<&Value>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.cite(events);
        self.stop_hosted(events);
        self.stop_picture(events);
        self.row.finish(events);
        if self.lost_call {
            self.ended = true;
            events.push(Event::Failed(row::lost_call()));
            return;
        }
        events.push(Event::Finish { choice: 0, finish: read_finish(reason, additional) });
    }

    fn read_said(&mut self, said: Said, events: &mut Vec<Event>) -> Result<(), Misread> {
        let index = said.content_block_index.unwrap_or_default();
        let is_stop = said.content_block_index.is_some();
        self.begin(said.service_tier.map(|tier| tier.name), events);
        if let Some(reason) = said.stop_reason {
            self.finish(&reason, said.additional_model_response_fields.as_ref(), events);
        } else if said.usage.is_some() || said.metrics.is_some() {
            self.told_usage = true;
            events.extend(said.usage.as_ref().map(|tokens| Event::Usage(tokens.read())));
        } else if self.finished {
            return Err(Misread::new("More of the answer has come after its end."));
        } else if let Some(start) = said.start {
            self.open(index, start, events)?;
        } else if let Some(piece) = said.delta {
            self.add(index, piece, events)?;
        } else if is_stop {
            self.stop(index, events);
        } else if said.role.is_none() {
            return Err(Misread::new("The event is none that Converse defines."));
        }
        if self.told_usage {
            self.end(events);
        }
        Ok(())
    }
}

impl ReadStream for Reader {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if self.ended {
            return Ok(());
        }
        if let Some(failure) = read_failure(name, data) {
            self.ended = true;
            events.push(Event::Failed(failure));
            return Ok(());
        }
        let said: Said = serde_json::from_slice(data)?;
        self.read_said(said, events)
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.finished && !std::mem::replace(&mut self.ended, true) {
            events.push(Event::End);
        }
    }
}

/// What an event says that is named after an exception.
fn read_failure(name: Option<&[u8]>, data: &[u8]) -> Option<StreamFailure> {
    let name = name.and_then(|name| std::str::from_utf8(name).ok())?;
    let is_exception = name.ends_with("Exception") || name.ends_with("Error") || name == "error";
    if !is_exception {
        return None;
    }
    let said = serde_json::from_slice(data).unwrap_or(Exception {
        kind: None,
        message: None,
        original_message: None,
        original_status_code: None,
    });
    let kind = said.kind.unwrap_or_else(|| name.to_owned());
    let known = EXCEPTIONS.iter().find(|(exception, _)| exception.eq_ignore_ascii_case(&kind));
    let message = said.message.or(said.original_message);
    Some(StreamFailure {
        message: message.unwrap_or_else(|| format!("The upstream failed with {kind}.")),
        kind: Some(kind),
        code: None,
        status: said.original_status_code.or_else(|| Some(known?.1)),
    })
}
