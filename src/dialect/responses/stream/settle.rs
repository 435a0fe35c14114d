//! What a stream still owes when an item, or all of it, is done.

use serde_json::Value;

use super::reader::{Events, Kind, Name, Reader, change, kind_of};
use crate::canon::{Content, Delta, Event, Finish, FinishReason, Opening};
use crate::dialect::Misread;
use crate::dialect::fold::unfold_part;
use crate::dialect::responses::item::{self, Read, string};
use crate::dialect::responses::usage;

impl Reader {
    pub(super) fn item_done(
        &mut self,
        value: &Value,
        index: Option<i64>,
        events: &mut Events,
    ) -> Result<(), Misread> {
        let kind = kind_of(value);
        let place = self.known(&name_of(value, index), kind);
        let place = place.unwrap_or_else(|| self.begin(kind, value, index));
        self.finish_item(place, value.clone(), events)
    }

    pub(super) fn finish_item(
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
    pub(super) fn release(&mut self, events: &mut Events) -> Result<(), Misread> {
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

    pub(super) fn give_held(&mut self, place: usize, events: &mut Events) {
        let held = std::mem::take(&mut self.items[place].held);
        let part = self.items[place].part;
        if !held.is_empty() {
            self.say(place, part, &held, events);
        }
    }

    /// Gives all that is still owed of an item that is done.
    pub(super) fn give(&mut self, place: usize, events: &mut Events) -> Result<(), Misread> {
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

    pub(super) fn give_thought(
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

    pub(super) fn give_call(&mut self, place: usize, value: &Value, events: &mut Events) {
        let item = &self.items[place];
        if item.name.is_empty() {
            self.failed("The upstream called a tool without saying which.", &Value::Null, events);
            return;
        }
        let whole = if item.said || !item.held.is_empty() {
            ""
        } else {
            let field = if item.custom { "input" } else { "arguments" };
            &item::json_text(&value[field])
        };
        self.add(place, whole, events);
        if let Ok(Read::Parts(parts)) = item::read(value) {
            let opaque = parts.into_iter().find_map(|part| part.opaque);
            events.extend(opaque.map(|opaque| change(Delta::Opaque(opaque))));
        }
    }

    /// An item of which nothing has been given yet.
    pub(super) fn give_whole(
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
        let finish = Finish {
            reason: self.reason(status, response),
            stop_sequence: None,
            ..Finish::default()
        };
        events.push(Event::Finish { choice: 0, finish });
        events.extend(usage::read(&response["usage"]).map(Event::Usage));
        events.push(Event::End);
        self.ended = true;
        Ok(())
    }

    /// Completes what is open, then adds the kinds of items that the stream did not have at all.
    pub(super) fn settle(&mut self, output: &[Value], events: &mut Events) -> Result<(), Misread> {
        let seen: Vec<Kind> = self.items.iter().map(|item| item.kind).collect();
        for (index, value) in (0_i64..).zip(output) {
            let kind = kind_of(value);
            if !seen.contains(&kind) {
                let place = self.begin(kind, value, Some(index));
                self.finish_item(place, value.clone(), events)?;
            } else if let Some(place) = self.known(&name_of(value, Some(index)), kind) {
                self.finish_item(place, value.clone(), events)?;
            }
        }
        for place in 0..self.items.len() {
            let value = self.items[place].value.clone();
            self.finish_item(place, value, events)?;
        }
        Ok(())
    }

    pub(super) fn reason(&self, status: &str, response: &Value) -> FinishReason {
        match (status, string(&response["incomplete_details"], "reason")) {
            ("incomplete", Some("content_filter")) => FinishReason::ContentFilter,
            ("incomplete", _) => FinishReason::Length,
            ("queued" | "in_progress", _) => FinishReason::Pause,
            _ if self.calls => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        }
    }
}

fn name_of(value: &Value, index: Option<i64>) -> Name<'_> {
    let said = |name| string(value, name).unwrap_or_default();
    Name { id: said("id"), call: said("call_id"), index }
}

fn bad(field: item::Bad) -> Misread {
    Misread::new(format!("An item of the answer has no `{field}`."))
}
