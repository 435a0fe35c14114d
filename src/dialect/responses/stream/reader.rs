//! Reads the events of a server, ordered or not.
//!
//! Servers differ: items overlap, ids and indices are missing, arguments come only at the end. An
//! item is known by its id, else by its index, else it is the last one. One part is open at a time:
//! words and thoughts give way to whatever begins, a call keeps its place until it is complete, and
//! what other items bring meanwhile is held back.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::{Value, json};

use super::super::item::{self, Read, string};
use super::super::{content, usage};
use crate::canon::{Content, Delta, Event, Finish, FinishReason, Opening, Start, StreamFailure};
use crate::dialect::fold::unfold_part;
use crate::dialect::{Misread, ReadStream, portable_id};

/// One event; of the rare fields those that its type has.
#[derive(serde::Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    delta: Text<'a>,
    #[serde(borrow, default)]
    item_id: Text<'a>,
    #[serde(default)]
    output_index: Option<i64>,
    #[serde(default)]
    content_index: Option<i64>,
    #[serde(default)]
    summary_index: Option<i64>,
    #[serde(default)]
    logprobs: Option<Vec<Value>>,
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow, default)]
    refusal: Text<'a>,
    #[serde(borrow, default)]
    arguments: Text<'a>,
    #[serde(borrow, default)]
    input: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    error: Value,
    #[serde(default)]
    annotation: Value,
    #[serde(default)]
    item: Value,
    #[serde(default)]
    part: Value,
    #[serde(default)]
    response: Value,
}

/// A string, borrowed where it has no escapes; null counts as empty.
#[derive(Default)]
struct Text<'a>(Cow<'a, str>);

impl<'a, 'de: 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or null")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    Call,
    /// Taken whole when it is done.
    Other,
}

/// What is known of one item.
#[derive(Debug)]
struct Item {
    kind: Kind,
    id: String,
    call: String,
    index: Option<i64>,
    name: String,
    custom: bool,
    /// What came while a call had the floor.
    held: String,
    /// Which of its parts the last words belong to.
    part: (u8, i64),
    /// Something of the part at hand has been given.
    said: bool,
    citations: usize,
    /// Its fields as they are known.
    value: Value,
    done: bool,
    /// All of it has been given.
    given: bool,
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    started: bool,
    response: String,
    items: Vec<Item>,
    /// The item that has the open part.
    open: Option<usize>,
    calls: bool,
    logprobs: bool,
    ended: bool,
}

/// Kinds of words within an item.
const TEXT: u8 = 0;
const REFUSAL: u8 = 1;
const SUMMARY: u8 = 2;
const THOUGHT: u8 = 3;

type Events = Vec<Event>;

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
        let kind = match (chunk.kind.0.as_ref(), name) {
            ("", Some(name)) => std::str::from_utf8(name).unwrap_or_default(),
            (kind, _) => kind,
        };
        self.dispatch(kind, &chunk, events)
    }

    fn end(&mut self, _: &mut Events) {}
}

// === impl Reader ===

impl Reader {
    fn dispatch(
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
                self.words(chunk, (THOUGHT, content), events)
            }
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                let place = self.find(chunk, Kind::Call);
                self.items[place].custom |= kind.contains("custom");
                self.add(place, &chunk.delta.0, events);
            }
            "function_call_arguments.done" => self.call_done(chunk, &chunk.arguments.0, events),
            "custom_tool_call_input.done" => self.call_done(chunk, &chunk.input.0, events),
            "output_text.done" => self.words_done(chunk, (TEXT, content), &chunk.text.0, events),
            "refusal.done" => self.words_done(chunk, (REFUSAL, content), &chunk.refusal.0, events),
            "reasoning_summary_text.done" => {
                self.words_done(chunk, (SUMMARY, summary), &chunk.text.0, events);
            }
            "reasoning_text.done" => {
                self.words_done(chunk, (THOUGHT, content), &chunk.text.0, events)
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

    fn start(&mut self, response: &Value, events: &mut Events) {
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

    fn fail(&mut self, chunk: &Chunk<'_>, events: &mut Events) {
        let nested = chunk.error.as_object().map(|_| &chunk.error);
        let message = nested.and_then(|error| string(error, "message")).unwrap_or(&chunk.message.0);
        let code = nested.map_or(&chunk.code, |error| &error["code"]);
        self.failed(message, code, events);
    }

    fn failed(&mut self, message: &str, code: &Value, events: &mut Events) {
        self.ended = true;
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
    fn find(&mut self, chunk: &Chunk<'_>, kind: Kind) -> usize {
        self.known(&chunk.item_id.0, chunk.output_index, kind).unwrap_or_else(|| {
            let value = json!({"id": chunk.item_id.0.as_ref()});
            self.begin(kind, &value, chunk.output_index)
        })
    }

    fn known(&self, id: &str, index: Option<i64>, kind: Kind) -> Option<usize> {
        let mut latest = self.items.iter().enumerate().rev().filter(|(_, item)| item.kind == kind);
        if !id.is_empty() {
            let same = latest.clone().find(|(_, item)| item.id == id || item.call == id);
            if let Some((place, _)) = same {
                return Some(place);
            }
            // An item without an id takes the first that is said of it, if the index agrees.
            let bare = latest.find(|(_, item)| item.id.is_empty() && !item.done);
            return bare
                .filter(|(_, item)| index.is_none() || item.index == index)
                .map(|(place, _)| place);
        }
        let indexed =
            index.and_then(|index| latest.clone().find(|(_, item)| item.index == Some(index)));
        indexed.or_else(|| latest.next()).map(|(place, _)| place)
    }

    fn begin(&mut self, kind: Kind, value: &Value, index: Option<i64>) -> usize {
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
            done: false,
            given: false,
        });
        self.items.len() - 1
    }

    fn item_added(&mut self, value: &Value, index: Option<i64>, events: &mut Events) {
        let kind = kind_of(value);
        let id = string(value, "id").unwrap_or_default();
        if id.is_empty()
            || self.known(id, index, kind).is_none_or(|place| self.items[place].id != id)
        {
            let place = self.begin(kind, value, index);
            if kind == Kind::Call {
                self.add(place, "", events);
            }
        }
    }

    /// Whether the item may speak now. Words give way, calls keep the floor.
    fn take_floor(&mut self, place: usize, events: &mut Events) -> bool {
        match self.open {
            Some(open) if open == place => true,
            Some(open) if self.items[open].kind == Kind::Call && !self.items[open].done => false,
            _ => {
                self.close(events);
                true
            }
        }
    }

    fn close(&mut self, events: &mut Events) {
        let Some(open) = self.open.take() else { return };
        let item = &self.items[open];
        let opaque = match item.kind {
            Kind::Message => item::rest(&item.value, item::MESSAGE),
            Kind::Call | Kind::Reasoning | Kind::Other => None,
        };
        events.extend(opaque.map(|opaque| change(Delta::Opaque(opaque))));
        events.push(Event::Close { choice: 0 });
    }

    fn open(&mut self, place: usize, part: Opening, events: &mut Events) {
        self.start(&Value::Null, events);
        self.close(events);
        events.push(Event::Open { choice: 0, part });
        self.open = Some(place);
    }

    fn words(&mut self, chunk: &Chunk<'_>, part: (u8, i64), events: &mut Events) {
        let kind = if part.0 >= SUMMARY { Kind::Reasoning } else { Kind::Message };
        let place = self.find(chunk, kind);
        self.say(place, part, &chunk.delta.0, events);
        if let Some(logprobs) = chunk.logprobs.as_ref().filter(|list| !list.is_empty()) {
            self.add_logprobs(place, logprobs, events);
        }
    }

    fn add_logprobs(&mut self, place: usize, logprobs: &[Value], events: &mut Events) {
        if self.open == Some(place) {
            self.logprobs = true;
            events.push(change(Delta::Logprobs(json!({ "content": logprobs }))));
        }
    }

    fn say(&mut self, place: usize, part: (u8, i64), text: &str, events: &mut Events) {
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
            self.open(place, opening, events);
        } else if next {
            events.push(change(Delta::Reasoning("\n\n".to_owned())));
        }
        self.items[place].said = true;
        if !text.is_empty() {
            events.push(change(match part.0 {
                TEXT => Delta::Text(text.to_owned()),
                REFUSAL => Delta::Refusal(text.to_owned()),
                _ => Delta::Reasoning(text.to_owned()),
            }));
        }
    }

    /// The whole of a part's words: what is missing of it when no delta brought any.
    fn words_done(&mut self, chunk: &Chunk<'_>, part: (u8, i64), text: &str, events: &mut Events) {
        let kind = if part.0 >= SUMMARY { Kind::Reasoning } else { Kind::Message };
        let place = self.find(chunk, kind);
        self.complete_words(place, part, text, events);
        if let Some(logprobs) =
            chunk.logprobs.as_ref().filter(|list| !list.is_empty() && !self.logprobs)
        {
            self.add_logprobs(place, logprobs, events);
        }
    }

    fn complete_words(&mut self, place: usize, part: (u8, i64), text: &str, events: &mut Events) {
        let item = &self.items[place];
        let later = part.1 > item.part.1 || (!item.said && item.held.is_empty());
        if !item.given && later && !text.is_empty() {
            self.say(place, part, text, events);
        }
    }

    fn part_done(&mut self, chunk: &Chunk<'_>, content: i64, events: &mut Events) {
        let kind = match string(&chunk.part, "type") {
            Some("output_text" | "refusal") => Kind::Message,
            _ => return,
        };
        let place = self.find(chunk, kind);
        self.complete_part(place, content, &chunk.part, events);
    }

    /// A message's part as its server has it in the end: words, citations, log probabilities.
    fn complete_part(&mut self, place: usize, content: i64, part: &Value, events: &mut Events) {
        let (kind, text) = match string(part, "refusal") {
            Some(text) => (REFUSAL, text),
            None => (TEXT, string(part, "text").unwrap_or_default()),
        };
        self.complete_words(place, (kind, content), text, events);
        if self.open != Some(place) || self.items[place].part != (kind, content) {
            return;
        }
        let citations = content::citations(&part["annotations"]);
        let item = &mut self.items[place];
        let missing = citations.into_iter().skip(item.citations);
        let before = events.len();
        events.extend(missing.map(|citation| change(Delta::Citation(citation))));
        item.citations += events.len() - before;
        if let Some(list) =
            part["logprobs"].as_array().filter(|list| !list.is_empty() && !self.logprobs)
        {
            self.add_logprobs(place, list, events);
        }
    }

    fn annotate(&mut self, chunk: &Chunk<'_>, events: &mut Events) {
        let place = self.find(chunk, Kind::Message);
        if self.open == Some(place) && chunk.annotation.is_object() {
            self.items[place].citations += 1;
            events.push(change(Delta::Citation(content::citation(&chunk.annotation))));
        }
    }

    /// Adds to a call's arguments, when it has the floor and its name.
    fn add(&mut self, place: usize, text: &str, events: &mut Events) {
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

    fn open_call(&mut self, place: usize, events: &mut Events) {
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

    fn call_done(&mut self, chunk: &Chunk<'_>, arguments: &str, events: &mut Events) {
        let place = self.find(chunk, Kind::Call);
        let item = &mut self.items[place];
        if item.name.is_empty() {
            item.name.push_str(&chunk.name.0);
        }
        if !item.said && item.held.is_empty() {
            self.add(place, arguments, events);
        }
    }

    fn item_done(
        &mut self,
        value: &Value,
        index: Option<i64>,
        events: &mut Events,
    ) -> Result<(), Misread> {
        let kind = kind_of(value);
        let id = string(value, "id").unwrap_or_default();
        let place = self.known(id, index, kind).unwrap_or_else(|| self.begin(kind, value, index));
        self.finish_item(place, value.clone(), events)
    }

    fn finish_item(
        &mut self,
        place: usize,
        value: Value,
        events: &mut Events,
    ) -> Result<(), Misread> {
        let item = &mut self.items[place];
        if std::mem::replace(&mut item.done, true) {
            return Ok(());
        }
        if item.call.is_empty() {
            item.call = string(&value, "call_id").unwrap_or_default().to_owned();
        }
        if item.name.is_empty() {
            item.name = item::call_name(&value).unwrap_or_default();
        }
        item.value = value;
        if self.open.is_none_or(|open| {
            open == place || self.items[open].kind != Kind::Call || self.items[open].done
        }) {
            self.give(place, events)?;
            self.release(events)?;
        }
        Ok(())
    }

    /// Gives what others brought while a call had the floor.
    fn release(&mut self, events: &mut Events) -> Result<(), Misread> {
        for place in 0..self.items.len() {
            let item = &self.items[place];
            if item.given || (item.held.is_empty() && !item.done) {
                continue;
            }
            if item.done {
                self.give(place, events)?;
                continue;
            }
            match item.kind {
                Kind::Call => self.add(place, "", events),
                _ => self.give_held(place, events),
            }
            if self.open == Some(place) && self.items[place].kind == Kind::Call {
                break;
            }
        }
        Ok(())
    }

    fn give_held(&mut self, place: usize, events: &mut Events) {
        let held = std::mem::take(&mut self.items[place].held);
        let part = self.items[place].part;
        if !held.is_empty() {
            self.say(place, part, &held, events);
        }
    }

    /// Gives all that is still owed of an item that is done.
    fn give(&mut self, place: usize, events: &mut Events) -> Result<(), Misread> {
        let value = std::mem::take(&mut self.items[place].value);
        match self.items[place].kind {
            Kind::Message => {
                self.items[place].value.clone_from(&value);
                self.give_held(place, events);
                for (content, part) in (0..).zip(value["content"].as_array().into_iter().flatten())
                {
                    self.complete_part(place, content, part, events);
                }
            }
            Kind::Reasoning => self.give_thought(place, &value, events)?,
            Kind::Call => self.give_call(place, &value, events),
            Kind::Other => self.give_whole(place, &value, events)?,
        }
        if self.open == Some(place) {
            self.close(events);
        }
        self.items[place].given = true;
        Ok(())
    }

    fn give_thought(
        &mut self,
        place: usize,
        value: &Value,
        events: &mut Events,
    ) -> Result<(), Misread> {
        self.give_held(place, events);
        if self.open != Some(place) && !self.items[place].said {
            return self.give_whole(place, value, events);
        }
        let Read::Parts(parts) = item::read(value).map_err(bad)? else { return Ok(()) };
        let opaque = parts.into_iter().find_map(|part| part.opaque);
        if self.open != Some(place) {
            // Others have spoken since; encrypted thoughts are still owed.
            if opaque.is_none() || string(value, "encrypted_content").is_none() {
                return Ok(());
            }
            self.open(place, Opening::Reasoning { summary: false, redacted: true }, events);
        }
        events.extend(opaque.map(|opaque| change(Delta::Opaque(opaque))));
        Ok(())
    }

    fn give_call(&mut self, place: usize, value: &Value, events: &mut Events) {
        let item = &self.items[place];
        if item.name.is_empty() {
            self.failed("The upstream called a tool without saying which.", &Value::Null, events);
            return;
        }
        let whole = if item.said || !item.held.is_empty() {
            ""
        } else {
            let field = if item.custom { "input" } else { "arguments" };
            string(value, field).unwrap_or_default()
        };
        self.add(place, whole, events);
        if let Ok(Read::Parts(parts)) = item::read(value) {
            let opaque = parts.into_iter().find_map(|part| part.opaque);
            events.extend(opaque.map(|opaque| change(Delta::Opaque(opaque))));
        }
    }

    /// An item of which nothing has been given yet.
    fn give_whole(
        &mut self,
        place: usize,
        value: &Value,
        events: &mut Events,
    ) -> Result<(), Misread> {
        let Read::Parts(parts) = item::read(value).map_err(bad)? else { return Ok(()) };
        self.start(&Value::Null, events);
        self.close(events);
        for part in &parts {
            self.calls |= matches!(part.content, Content::ToolCall(_));
            unfold_part(0, part, events);
        }
        self.items[place].said = true;
        Ok(())
    }

    /// The response as it stands in the end; what its stream did not bring is taken from it.
    pub(crate) fn read_whole(
        &mut self,
        response: &Value,
        events: &mut Events,
    ) -> Result<(), Misread> {
        self.start(response, events);
        if let Some(error) = response.get("error").filter(|error| error.is_object()) {
            self.failed(string(error, "message").unwrap_or_default(), &error["code"], events);
            return Ok(());
        }
        let status = string(response, "status").unwrap_or("completed");
        if matches!(status, "failed" | "cancelled") {
            self.failed(&format!("The answer was {status}."), &Value::Null, events);
            return Ok(());
        }
        let output = response["output"].as_array().map_or(&[][..], Vec::as_slice);
        self.settle(output, events)?;
        if self.ended {
            return Ok(());
        }
        self.close(events);
        let finish = Finish { reason: self.reason(status, response), stop_sequence: None };
        events.push(Event::Finish { choice: 0, finish });
        events.extend(usage::read(&response["usage"]).map(Event::Usage));
        events.push(Event::End);
        self.ended = true;
        Ok(())
    }

    /// Completes what is open, then adds the kinds of items that the stream did not have at all.
    fn settle(&mut self, output: &[Value], events: &mut Events) -> Result<(), Misread> {
        let seen: Vec<Kind> = self.items.iter().map(|item| item.kind).collect();
        for (index, value) in (0_i64..).zip(output) {
            let kind = kind_of(value);
            let id = string(value, "id").unwrap_or_default();
            if !seen.contains(&kind) {
                let place = self.begin(kind, value, Some(index));
                self.finish_item(place, value.clone(), events)?;
            } else if let Some(place) = self.known(id, Some(index), kind) {
                self.finish_item(place, value.clone(), events)?;
            }
        }
        for place in 0..self.items.len() {
            let value = self.items[place].value.clone();
            self.finish_item(place, value, events)?;
        }
        Ok(())
    }

    fn reason(&self, status: &str, response: &Value) -> FinishReason {
        match (status, string(&response["incomplete_details"], "reason")) {
            ("incomplete", Some("content_filter")) => FinishReason::ContentFilter,
            ("incomplete", _) => FinishReason::Length,
            ("queued" | "in_progress", _) => FinishReason::Pause,
            _ if self.calls => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        }
    }
}

fn change(delta: Delta) -> Event {
    Event::Delta { choice: 0, delta }
}

fn bad(field: item::Bad) -> Misread {
    Misread::new(format!("An item of the answer has no `{field}`."))
}

fn kind_of(item: &Value) -> Kind {
    match string(item, "type") {
        Some("message") => Kind::Message,
        Some("reasoning") => Kind::Reasoning,
        Some("function_call" | "custom_tool_call") => Kind::Call,
        _ => Kind::Other,
    }
}
