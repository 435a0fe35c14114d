//! Reads the events of a server, ordered or not.
//!
//! Servers differ: items overlap, ids and indices are missing, arguments come only at the end. An
//! item is known by its id or that of its call, else by its index, else it is the last one. One part
//! is open at a time: words and thoughts give way to whatever begins, a call keeps its place until it
//! is complete, and what other items bring meanwhile is held back.

use serde_json::{Value, json};

use super::chunk::Chunk;
use crate::canon::{Citation, Delta, Event, Opening, Start, StreamFailure};
use crate::dialect::responses::content;
use crate::dialect::responses::item::{self, string};
use crate::dialect::{Misread, ReadStream, portable_id};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message,
    Reasoning,
    Call,
    /// Taken whole when it is done.
    Other,
}

/// What is known of one item.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) call: String,
    pub(super) index: Option<i64>,
    pub(super) name: String,
    pub(super) custom: bool,
    /// What came while a call had the floor.
    pub(super) held: String,
    /// Which of its parts the last words belong to.
    pub(super) part: (u8, i64),
    /// Something of the part at hand has been given.
    pub(super) said: bool,
    pub(super) citations: usize,
    /// Its fields as they are known.
    pub(super) value: Value,
    /// The whole of a call's arguments has been told.
    pub(super) told: bool,
    pub(super) done: bool,
    /// All of it has been given.
    pub(super) given: bool,
}

/// What an event calls the item that it is of.
#[derive(Debug)]
pub(super) struct Name<'a> {
    pub(super) id: &'a str,
    pub(super) call: &'a str,
    pub(super) index: Option<i64>,
}

/// Reads one stream.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(super) started: bool,
    pub(super) response: String,
    pub(super) items: Vec<Item>,
    /// The item that has the open part.
    pub(super) open: Option<usize>,
    /// How many characters the parts before the one at hand have, and with it.
    pub(super) spoken: (u64, u64),
    pub(super) calls: bool,
    pub(super) logprobs: bool,
    pub(super) ended: bool,
}

/// Kinds of words within an item.
const TEXT: u8 = 0;
const REFUSAL: u8 = 1;
const SUMMARY: u8 = 2;
const THOUGHT: u8 = 3;

pub(super) type Events = Vec<Event>;

impl ReadStream for Reader {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Events,
    ) -> Result<(), Misread> {
        if data == b"[DONE]" || self.ended {
            return Ok(());
        }
        let chunk: Chunk<'_> = serde_json::from_slice(data)?;
        let kind = match (chunk.kind.text(), name) {
            ("", Some(name)) => std::str::from_utf8(name).unwrap_or_default(),
            (kind, _) => kind,
        };
        self.dispatch(kind, &chunk, events)
    }

    fn end(&mut self, _: &mut Events) {}
}

// === impl Reader ===

impl Reader {
    pub(super) fn dispatch(
        &mut self,
        kind: &str,
        chunk: &Chunk<'_>,
        events: &mut Events,
    ) -> Result<(), Misread> {
        let (content, summary) =
            (chunk.content_index.unwrap_or(0), chunk.summary_index.unwrap_or(0));
        match kind.strip_prefix("response.").unwrap_or(kind) {
            "output_text.delta" => self.words(chunk, (TEXT, content), events),
            "refusal.delta" => self.words(chunk, (REFUSAL, content), events),
            "reasoning_summary_text.delta" => self.words(chunk, (SUMMARY, summary), events),
            "reasoning_text.delta" | "reasoning.delta" => {
                self.words(chunk, (THOUGHT, content), events);
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                let place = self.find(chunk, Kind::Call);
                self.items[place].custom |= kind.contains("custom");
                self.add(place, &chunk.delta.json(), events);
            }
            "function_call_arguments.done" => {
                self.call_done(chunk, &chunk.arguments.json(), events);
            }
            "custom_tool_call_input.done" => self.call_done(chunk, &chunk.input.json(), events),
            "output_text.done" => {
                self.words_done(chunk, (TEXT, content), chunk.text.text(), events);
            }
            "refusal.done" => {
                self.words_done(chunk, (REFUSAL, content), chunk.refusal.text(), events);
            }
            "reasoning_summary_text.done" => {
                self.words_done(chunk, (SUMMARY, summary), chunk.text.text(), events);
            }
            "reasoning_text.done" => {
                self.words_done(chunk, (THOUGHT, content), chunk.text.text(), events);
            }
            "content_part.done" => self.part_done(chunk, content, events),
            "output_text.annotation.added" => self.annotate(chunk, events),
            "output_item.added" => self.item_added(&chunk.item, chunk.output_index, events),
            "output_item.done" => self.item_done(&chunk.item, chunk.output_index, events)?,
            "created" | "in_progress" | "queued" => self.start(&chunk.response, events),
            "completed" | "incomplete" | "failed" | "done" | "cancelled" => {
                self.read_whole(&chunk.response, events)?;
            }
            "error" => self.fail(chunk, events),
            // Progress of hosted tools, and what is yet to be invented.
            _ if kind.is_empty() && !chunk.error.is_null() => self.fail(chunk, events),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn start(&mut self, response: &Value, events: &mut Events) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let text = |name| string(response, name).unwrap_or_default().to_owned();
        self.response = text("id");
        let tier = string(response, "service_tier").filter(|tier| *tier != "auto");
        let created = response["created_at"].as_f64();
        events.push(Event::Start(Start {
            id: text("id"),
            model: text("model"),
            // Some servers say it with a fraction.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "seconds since 1970"
            )]
            created: created.map(|seconds| seconds as u64),
            service_tier: tier.map(str::to_owned),
        }));
    }

    pub(super) fn fail(&mut self, chunk: &Chunk<'_>, events: &mut Events) {
        let nested = chunk.error.as_object().map(|_| &chunk.error);
        let message = nested
            .and_then(|error| string(error, "message"))
            .unwrap_or_else(|| chunk.message.text());
        let code = nested.map_or(&chunk.code, |error| &error["code"]);
        self.failed(message, code, events);
    }

    pub(super) fn failed(&mut self, message: &str, code: &Value, events: &mut Events) {
        self.ended = true;
        if matches!(events.last(), Some(Event::Failed(_))) {
            return; // the first failure is the cause, and nothing follows it
        }
        let code = code.as_str().map(str::to_owned);
        let message = if message.is_empty() { "The upstream failed." } else { message };
        events.push(Event::Failed(StreamFailure {
            message: message.to_owned(),
            kind: code.clone(),
            code,
            status: None,
        }));
    }

    /// The item that a delta belongs to; one that was never announced begins here.
    pub(super) fn find(&mut self, chunk: &Chunk<'_>, kind: Kind) -> usize {
        let id = chunk.item_id.text();
        let name = Name { id, call: "", index: chunk.output_index };
        self.known(&name, kind)
            .unwrap_or_else(|| self.begin(kind, &json!({"id": id}), chunk.output_index))
    }

    pub(super) fn known(&self, name: &Name<'_>, kind: Kind) -> Option<usize> {
        let last = |fits: &dyn Fn(&Item) -> bool| {
            self.items.iter().rposition(|item| item.kind == kind && fits(item))
        };
        let is_called =
            |item: &Item, id: &str| !id.is_empty() && (item.id == id || item.call == id);
        let may_be = |item: &Item| name.call.is_empty() || item.call.is_empty();
        let is_there = |item: &Item| name.index.is_some() && item.index == name.index;
        last(&|item| is_called(item, name.id) || is_called(item, name.call)).or_else(|| {
            if name.id.is_empty() {
                return last(&|item| may_be(item) && is_there(item)).or_else(|| last(&may_be));
            }
            // Some servers say another id with each event, and an item without one takes the first
            // that is said of it.
            last(&|item| {
                let is_bare = item.id.is_empty() && name.index.is_none();
                may_be(item) && !item.done && (is_bare || is_there(item))
            })
        })
    }

    pub(super) fn begin(&mut self, kind: Kind, value: &Value, index: Option<i64>) -> usize {
        let text = |name| string(value, name).unwrap_or_default().to_owned();
        self.items.push(Item {
            kind,
            id: text("id"),
            call: text("call_id"),
            index,
            name: item::call_name(value).unwrap_or_default(),
            custom: value["type"] == "custom_tool_call",
            held: String::new(),
            part: (TEXT, -1),
            said: false,
            citations: 0,
            value: value.clone(),
            told: false,
            done: false,
            given: false,
        });
        self.items.len() - 1
    }

    pub(super) fn item_added(&mut self, value: &Value, index: Option<i64>, events: &mut Events) {
        let kind = kind_of(value);
        let id = string(value, "id").unwrap_or_default();
        let is_it = |item: &Item| item.kind == kind && item.id == id;
        if id.is_empty() || !self.items.iter().any(is_it) {
            let place = self.begin(kind, value, index);
            if kind == Kind::Call {
                self.add(place, "", events);
            }
        }
    }

    /// Whether the item may speak now. Words give way, calls keep the floor.
    pub(super) fn take_floor(&mut self, place: usize, events: &mut Events) -> bool {
        match self.open {
            Some(open) if open == place => true,
            Some(open) if self.items[open].kind == Kind::Call && !self.items[open].done => false,
            _ => {
                self.close(events);
                true
            }
        }
    }

    pub(super) fn close(&mut self, events: &mut Events) {
        let Some(open) = self.open.take() else { return };
        let item = &self.items[open];
        let opaque = match item.kind {
            Kind::Message => item::rest(&item.value, item::MESSAGE),
            Kind::Call | Kind::Reasoning | Kind::Other => None,
        };
        events.extend(opaque.map(|opaque| change(Delta::Opaque(opaque))));
        events.push(Event::Close { choice: 0 });
    }

    pub(super) fn open(&mut self, place: usize, part: Opening, events: &mut Events) {
        self.start(&Value::Null, events);
        self.close(events);
        events.push(Event::Open { choice: 0, part });
        self.open = Some(place);
    }

    pub(super) fn words(&mut self, chunk: &Chunk<'_>, part: (u8, i64), events: &mut Events) {
        let kind = if part.0 >= SUMMARY { Kind::Reasoning } else { Kind::Message };
        let place = self.find(chunk, kind);
        self.say(place, part, chunk.delta.text(), events);
        if let Some(logprobs) = chunk.logprobs.as_array().filter(|list| !list.is_empty()) {
            self.add_logprobs(place, logprobs, events);
        }
    }

    pub(super) fn add_logprobs(&mut self, place: usize, logprobs: &[Value], events: &mut Events) {
        if self.open == Some(place) {
            self.logprobs = true;
            events.push(change(Delta::Logprobs(json!({ "content": logprobs }))));
        }
    }

    pub(super) fn say(&mut self, place: usize, part: (u8, i64), text: &str, events: &mut Events) {
        if !self.take_floor(place, events) {
            self.items[place].part = part;
            self.items[place].held.push_str(text);
            return;
        }
        let item = &mut self.items[place];
        let (before, thinking) = (item.part, part.0 >= SUMMARY);
        // A summary and the thoughts themselves are not told both.
        if thinking && item.said && before.0 != part.0 {
            return;
        }
        let next = item.said && before != part;
        item.part = part;
        if next && !thinking {
            item.said = false;
            item.citations = 0;
        }
        if self.open != Some(place) || (next && !thinking) {
            let opening = match part.0 {
                TEXT => Opening::Text,
                REFUSAL => Opening::Refusal,
                kind => Opening::Reasoning { summary: kind == SUMMARY, redacted: false },
            };
            self.spoken.0 = self.spoken.1;
            self.open(place, opening, events);
        } else if next {
            events.push(change(Delta::Reasoning("\n\n".to_owned())));
        }
        self.items[place].said = true;
        if !text.is_empty() {
            events.push(change(match part.0 {
                TEXT => {
                    self.spoken.1 += text.chars().count() as u64;
                    Delta::Text(text.to_owned())
                }
                REFUSAL => Delta::Refusal(text.to_owned()),
                _ => Delta::Reasoning(text.to_owned()),
            }));
        }
    }

    /// The whole of a part's words: what is missing of it when no delta brought any.
    pub(super) fn words_done(
        &mut self,
        chunk: &Chunk<'_>,
        part: (u8, i64),
        text: &str,
        events: &mut Events,
    ) {
        let kind = if part.0 >= SUMMARY { Kind::Reasoning } else { Kind::Message };
        let place = self.find(chunk, kind);
        self.complete_words(place, part, text, events);
        if let Some(logprobs) =
            chunk.logprobs.as_array().filter(|list| !list.is_empty() && !self.logprobs)
        {
            self.add_logprobs(place, logprobs, events);
        }
    }

    pub(super) fn complete_words(
        &mut self,
        place: usize,
        part: (u8, i64),
        text: &str,
        events: &mut Events,
    ) {
        let item = &self.items[place];
        let later = part.1 > item.part.1 || (!item.said && item.held.is_empty());
        if !item.given && later && !text.is_empty() {
            self.say(place, part, text, events);
        }
    }

    pub(super) fn part_done(&mut self, chunk: &Chunk<'_>, content: i64, events: &mut Events) {
        let kind = match string(&chunk.part, "type") {
            Some("output_text" | "refusal") => Kind::Message,
            _ => return,
        };
        let place = self.find(chunk, kind);
        self.complete_part(place, content, &chunk.part, events);
    }

    /// A message's part as its server has it in the end: words, citations, log probabilities.
    pub(super) fn complete_part(
        &mut self,
        place: usize,
        content: i64,
        part: &Value,
        events: &mut Events,
    ) {
        let (kind, text) = match string(part, "refusal") {
            Some(text) => (REFUSAL, text),
            None => (TEXT, string(part, "text").unwrap_or_default()),
        };
        self.complete_words(place, (kind, content), text, events);
        if self.open != Some(place) || self.items[place].part != (kind, content) {
            return;
        }
        let citations = content::citations(&part["annotations"]);
        let missing = citations.iter().skip(self.items[place].citations);
        let before = events.len();
        events.extend(missing.map(|citation| self.cited(citation)));
        self.items[place].citations += events.len() - before;
        if let Some(list) =
            part["logprobs"].as_array().filter(|list| !list.is_empty() && !self.logprobs)
        {
            self.add_logprobs(place, list, events);
        }
    }

    pub(super) fn annotate(&mut self, chunk: &Chunk<'_>, events: &mut Events) {
        let place = self.find(chunk, Kind::Message);
        if self.open == Some(place) && chunk.annotation.is_object() {
            self.items[place].citations += 1;
            events.push(self.cited(&content::citation(&chunk.annotation)));
        }
    }

    /// A citation of the part at hand, with its place in all of the answer.
    fn cited(&self, citation: &Citation) -> Event {
        change(Delta::Citation(content::moved(citation, |place| {
            place.saturating_add(self.spoken.0)
        })))
    }

    /// Adds to a call's arguments, when it has the floor and its name.
    pub(super) fn add(&mut self, place: usize, text: &str, events: &mut Events) {
        let ready = !self.items[place].name.is_empty();
        if self.items[place].given {
            return;
        }
        if !ready || !self.take_floor(place, events) {
            self.items[place].held.push_str(text);
            return;
        }
        if self.open != Some(place) {
            self.open_call(place, events);
        }
        let held = std::mem::take(&mut self.items[place].held);
        for text in [held.as_str(), text] {
            if !text.is_empty() {
                self.items[place].said = true;
                events.push(change(Delta::Arguments(text.to_owned())));
            }
        }
    }

    pub(super) fn open_call(&mut self, place: usize, events: &mut Events) {
        let item = &self.items[place];
        let id = match (item.call.as_str(), item.id.as_str()) {
            ("", "") => portable_id(&format!("{}:{place}", self.response)).into_owned(),
            ("", id) => id.to_owned(),
            (call, _) => call.to_owned(),
        };
        let opening = Opening::ToolCall { id, name: item.name.clone(), custom: item.custom };
        self.calls = true;
        self.open(place, opening, events);
    }

    pub(super) fn call_done(&mut self, chunk: &Chunk<'_>, arguments: &str, events: &mut Events) {
        let is_named = !chunk.item_id.text().is_empty() || chunk.output_index.is_some();
        let is_next = |item: &Item| item.kind == Kind::Call && !item.told && !item.done;
        // llama.cpp does not say of which call it tells, and tells of one after the other.
        let next = self.items.iter().position(is_next).filter(|_| !is_named);
        let place = next.unwrap_or_else(|| self.find(chunk, Kind::Call));
        let item = &mut self.items[place];
        item.told = true;
        if item.name.is_empty() {
            item.name.push_str(chunk.name.text());
        }
        if !item.said && item.held.is_empty() {
            self.add(place, arguments, events);
        }
    }
}

pub(super) fn change(delta: Delta) -> Event {
    Event::Delta { choice: 0, delta }
}

pub(super) fn kind_of(item: &Value) -> Kind {
    match string(item, "type") {
        Some("message") => Kind::Message,
        Some("reasoning") => Kind::Reasoning,
        Some("function_call" | "custom_tool_call") => Kind::Call,
        _ => Kind::Other,
    }
}
