//! The items of a stream while they are written.

use serde_json::{Value, json};

use super::line::Json::{Number, Raw, Text};
use super::line::{Json, Lines, json, object};
use super::writer::Names;
use crate::canon::{Citation, Dialect, Opaque};
use crate::dialect::portable_id;
use crate::dialect::responses::content::write_citation;
use crate::dialect::responses::hosted::{Hosted, split};
use crate::dialect::responses::item::Sealed;
use crate::dialect::responses::write::is_item;

/// Which item, and where it stands.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) index: u64,
}

// === impl Place ===

impl Place {
    fn fields(&self) -> [(&'static str, Json<'_>); 2] {
        [("item_id", Text(&self.id)), ("output_index", Number(self.index))]
    }

    fn event(&self, lines: &mut Lines, out: &mut Vec<u8>, name: &str, more: &[(&str, Json<'_>)]) {
        let fields: Vec<(&str, Json<'_>)> = self.fields().iter().chain(more).copied().collect();
        lines.event(out, name, &fields);
    }

    fn item(&self, lines: &mut Lines, out: &mut Vec<u8>, name: &str, item: &[u8]) {
        lines.event(out, name, &[("output_index", Number(self.index)), ("item", Raw(item))]);
    }
}

/// Words, in one or more parts.
#[derive(Debug)]
pub(super) struct Message {
    place: Place,
    /// Parts that are done, as JSON.
    content: Vec<Vec<u8>>,
    part: Option<Words>,
    pub(super) opaque: Option<Opaque>,
}

#[derive(Debug, Default)]
struct Words {
    refusal: bool,
    text: String,
    citations: Vec<Value>,
    logprobs: Vec<Value>,
}

// === impl Message ===

impl Message {
    pub(super) fn new(place: Place, lines: &mut Lines, out: &mut Vec<u8>) -> Self {
        let item = json!({"id": place.id, "type": "message", "status": "in_progress", "content": [], "role": "assistant"});
        place.item(lines, out, "output_item.added", &json(&item));
        Self { place, content: Vec::new(), part: None, opaque: None }
    }

    /// Whether the next words can be a part of this message: its state is its own.
    pub(super) fn takes_more(&self) -> bool {
        self.opaque.is_none()
    }

    pub(super) fn begin(&mut self, refusal: bool, lines: &mut Lines, out: &mut Vec<u8>) {
        self.close_part(lines, out);
        let words = Words { refusal, ..Words::default() };
        let part = words.part();
        self.part = Some(words);
        let index = self.content.len() as u64;
        self.place.event(
            lines,
            out,
            "content_part.added",
            &[("content_index", Number(index)), ("part", Raw(&part))],
        );
    }

    pub(super) fn add(&mut self, text: &str, lines: &mut Lines, out: &mut Vec<u8>) {
        let Some(words) = &mut self.part else { return };
        words.text.push_str(text);
        let index = ("content_index", Number(self.content.len() as u64));
        let [id, item] = self.place.fields();
        if words.refusal {
            lines.event(out, "refusal.delta", &[id, item, index, ("delta", Text(text))]);
        } else {
            let logprobs = ("logprobs", Raw(b"[]"));
            lines.event(
                out,
                "output_text.delta",
                &[id, item, index, ("delta", Text(text)), logprobs],
            );
        }
    }

    pub(super) fn cite(&mut self, citation: &Citation, lines: &mut Lines, out: &mut Vec<u8>) {
        let Some(words) = &mut self.part else { return };
        let Some(citation) = write_citation(citation) else { return };
        let annotation = json(&citation);
        self.place.event(
            lines,
            out,
            "output_text.annotation.added",
            &[
                ("content_index", Number(self.content.len() as u64)),
                ("annotation_index", Number(words.citations.len() as u64)),
                ("annotation", Raw(&annotation)),
            ],
        );
        words.citations.push(citation);
    }

    /// They are told when the part is done.
    pub(super) fn add_logprobs(&mut self, logprobs: &Value) {
        let list = logprobs["content"].as_array().into_iter().flatten();
        if let Some(words) = &mut self.part {
            words.logprobs.extend(list.cloned());
        }
    }

    pub(super) fn close_part(&mut self, lines: &mut Lines, out: &mut Vec<u8>) {
        let Some(words) = self.part.take() else { return };
        let index = ("content_index", Number(self.content.len() as u64));
        if words.refusal {
            self.place.event(lines, out, "refusal.done", &[index, ("refusal", Text(&words.text))]);
        } else {
            let logprobs = json(&words.logprobs);
            self.place.event(
                lines,
                out,
                "output_text.done",
                &[index, ("text", Text(&words.text)), ("logprobs", Raw(&logprobs))],
            );
        }
        let part = words.part();
        self.place.event(lines, out, "content_part.done", &[index, ("part", Raw(&part))]);
        self.content.push(part);
    }

    pub(super) fn close(
        mut self,
        lines: &mut Lines,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Option<Opaque>) {
        self.close_part(lines, out);
        let content = [b"[", self.content.join(&b","[..]).as_slice(), b"]"].concat();
        let own = self.opaque.as_ref().filter(|opaque| opaque.dialect == Dialect::Responses);
        let rest = rest(own);
        let mut fields = vec![
            ("id", Text(&self.place.id)),
            ("type", Text("message")),
            ("status", Text("completed")),
            ("content", Raw(&content)),
            ("role", Text("assistant")),
        ];
        fields.extend(rest.iter().map(|(name, value)| (*name, Raw(value))));
        let item = object(&fields);
        self.place.item(lines, out, "output_item.done", &item);
        (item, self.opaque)
    }
}

/// The fields that this API keeps with an item besides; the id is ours.
fn rest(own: Option<&Opaque>) -> Vec<(&str, Vec<u8>)> {
    let fields = own.and_then(|opaque| opaque.data.as_object()).into_iter().flatten();
    let fields = fields.filter(|(name, _)| !matches!(name.as_str(), "id" | "type" | "status"));
    fields.map(|(name, value)| (name.as_str(), json(value))).collect()
}

impl Words {
    fn part(&self) -> Vec<u8> {
        if self.refusal {
            return json(&json!({"type": "refusal", "refusal": self.text}));
        }
        json(&json!({
            "type": "output_text",
            "annotations": self.citations,
            "logprobs": self.logprobs,
            "text": self.text,
        }))
    }
}

/// What the model thought.
#[derive(Debug)]
pub(super) struct Thought {
    place: Place,
    summary: bool,
    redacted: bool,
    text: String,
    announced: bool,
    opaque: Option<Opaque>,
    /// The item as its server made it.
    whole: Option<Value>,
}

// === impl Thought ===

impl Thought {
    pub(super) fn new(place: Place, summary: bool, redacted: bool) -> Self {
        let text = String::new();
        Self { place, summary, redacted, text, announced: false, opaque: None, whole: None }
    }

    /// An item of this API stays as it is, unless it was announced under another id.
    pub(super) fn keep(&mut self, opaque: &Opaque) {
        let id = opaque.data["id"].as_str().filter(|_| is_item(opaque) && !self.announced);
        if let Some(id) = id {
            id.clone_into(&mut self.place.id);
            self.whole = Some(opaque.data.clone());
        } else {
            self.opaque = Some(opaque.clone());
        }
    }

    fn announce(&mut self, lines: &mut Lines, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.announced, true) {
            let item = json!({"id": self.place.id, "type": "reasoning", "summary": []});
            self.place.item(lines, out, "output_item.added", &json(&item));
        }
    }

    fn index(&self) -> (&'static str, Json<'static>) {
        (if self.summary { "summary_index" } else { "content_index" }, Number(0))
    }

    fn part(&self, text: &str) -> Vec<u8> {
        let kind = if self.summary { "summary_text" } else { "reasoning_text" };
        object(&[("type", Text(kind)), ("text", Text(text))])
    }

    pub(super) fn add(&mut self, text: &str, lines: &mut Lines, out: &mut Vec<u8>) {
        self.announce(lines, out);
        if self.text.is_empty() {
            let name =
                if self.summary { "reasoning_summary_part.added" } else { "content_part.added" };
            let part = self.part("");
            self.place.event(lines, out, name, &[self.index(), ("part", Raw(&part))]);
        }
        self.text.push_str(text);
        let name =
            if self.summary { "reasoning_summary_text.delta" } else { "reasoning_text.delta" };
        let [id, item] = self.place.fields();
        lines.event(out, name, &[id, item, self.index(), ("delta", Text(text))]);
    }

    pub(super) fn close(mut self, lines: &mut Lines, out: &mut Vec<u8>) -> Vec<u8> {
        self.announce(lines, out);
        let part = self.part(&self.text);
        if !self.text.is_empty() {
            let (text, done) = if self.summary {
                ("reasoning_summary_text.done", "reasoning_summary_part.done")
            } else {
                ("reasoning_text.done", "content_part.done")
            };
            self.place.event(lines, out, text, &[self.index(), ("text", Text(&self.text))]);
            self.place.event(lines, out, done, &[self.index(), ("part", Raw(&part))]);
        }
        let item = match &self.whole {
            Some(whole) => json(whole),
            None => self.item(&part),
        };
        self.place.item(lines, out, "output_item.done", &item);
        item
    }

    fn item(&self, part: &[u8]) -> Vec<u8> {
        let list = if self.text.is_empty() { b"[]".to_vec() } else { [b"[", part, b"]"].concat() };
        let (summary, content) =
            if self.summary { (&list[..], None) } else { (&b"[]"[..], Some(&list[..])) };
        let mut fields = vec![
            ("id", Text(&self.place.id)),
            ("type", Text("reasoning")),
            ("summary", Raw(summary)),
        ];
        fields.extend(content.map(|content| ("content", Raw(content))));
        let blank = self.text.is_empty() && !self.redacted;
        let seal = |opaque: &Opaque| {
            let opaque = opaque.clone();
            if blank { Sealed::Blank(opaque) } else { Sealed::Thought(opaque) }.seal()
        };
        let state = self.opaque.as_ref().map(seal);
        fields.extend(state.as_deref().map(|state| ("encrypted_content", Text(state))));
        object(&fields)
    }
}

/// A call of a tool.
#[derive(Debug)]
pub(super) struct Call {
    place: Place,
    kind: CallKind,
    id: String,
    name: String,
    /// JSON, or the text of a custom tool.
    arguments: String,
    pub(super) opaque: Option<Opaque>,
}

#[derive(Debug)]
enum CallKind {
    Function,
    Custom,
    Hosted(&'static Hosted),
}

// === impl Call ===

impl Call {
    /// How the id of its item begins.
    pub(super) fn prefix(name: &str, custom: bool, names: &Names) -> &'static str {
        match CallKind::of(name, custom, names) {
            CallKind::Function => "fc",
            CallKind::Custom => "ctc",
            CallKind::Hosted(_) => "lsh",
        }
    }

    pub(super) fn new(
        place: Place,
        id: &str,
        name: &str,
        custom: bool,
        names: &Names,
        lines: &mut Lines,
        out: &mut Vec<u8>,
    ) -> Self {
        let call = Self {
            place,
            kind: CallKind::of(name, custom, names),
            id: portable_id(id).into_owned(),
            name: name.to_owned(),
            arguments: String::new(),
            opaque: None,
        };
        // What the client itself runs is shown when it is whole.
        if !matches!(call.kind, CallKind::Hosted(_)) {
            let item = call.item("in_progress");
            call.place.item(lines, out, "output_item.added", &item);
        }
        call
    }

    pub(super) fn add(&mut self, text: &str, lines: &mut Lines, out: &mut Vec<u8>) {
        match &mut self.kind {
            CallKind::Function => self.say("function_call_arguments.delta", text, lines, out),
            CallKind::Custom => self.say("custom_tool_call_input.delta", text, lines, out),
            CallKind::Hosted(_) => self.arguments.push_str(text),
        }
    }

    fn say(&mut self, name: &str, text: &str, lines: &mut Lines, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.arguments.push_str(text);
            let [id, item] = self.place.fields();
            lines.event(out, name, &[id, item, ("delta", Text(text))]);
        }
    }

    pub(super) fn close(
        mut self,
        lines: &mut Lines,
        out: &mut Vec<u8>,
    ) -> (Vec<u8>, Option<Opaque>) {
        if matches!(self.kind, CallKind::Hosted(_)) && !is_object(&self.arguments) {
            // What the item has no field for is shown as it was written.
            self.kind = CallKind::Function;
            let item = self.item("in_progress");
            self.place.item(lines, out, "output_item.added", &item);
        }
        match &self.kind {
            CallKind::Function => {
                if self.arguments.is_empty() {
                    self.say("function_call_arguments.delta", "{}", lines, out);
                }
                let said = [("name", Text(&self.name)), ("arguments", Text(&self.arguments))];
                self.place.event(lines, out, "function_call_arguments.done", &said);
            }
            CallKind::Custom => {
                let said = [("input", Text(&self.arguments))];
                self.place.event(lines, out, "custom_tool_call_input.done", &said);
            }
            CallKind::Hosted(_) => {
                let item = self.item("in_progress");
                self.place.item(lines, out, "output_item.added", &item);
            }
        }
        let item = self.item("completed");
        self.place.item(lines, out, "output_item.done", &item);
        (item, self.opaque)
    }

    fn item(&self, status: &str) -> Vec<u8> {
        let (kind, field) = match &self.kind {
            CallKind::Function => ("function_call", "arguments"),
            CallKind::Custom => ("custom_tool_call", "input"),
            CallKind::Hosted(hosted) => (hosted.call, hosted.field),
        };
        let mut fields = vec![
            ("id", Text(&self.place.id)),
            ("type", Text(kind)),
            ("status", Text(status)),
            ("call_id", Text(&self.id)),
        ];
        if matches!(self.kind, CallKind::Hosted(_)) {
            let parsed: Value = serde_json::from_str(&self.arguments).unwrap_or_else(|_| json!({}));
            let arguments = json(&parsed);
            fields.push((field, Raw(&arguments)));
            return object(&fields);
        }
        let (namespace, name) = split(&self.name);
        fields.push((field, Text(&self.arguments)));
        fields.push(("name", Text(name)));
        fields.extend(namespace.map(|namespace| ("namespace", Text(namespace))));
        let own = self.opaque.as_ref().filter(|opaque| opaque.dialect == Dialect::Responses);
        let rest = rest(own);
        fields.extend(rest.iter().map(|(name, value)| (*name, Raw(value))));
        object(&fields)
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()
}

impl CallKind {
    fn of(name: &str, custom: bool, names: &Names) -> Self {
        if custom {
            return Self::Custom;
        }
        let hosted = names.hosted.iter().find(|hosted| hosted.name == name);
        hosted.map_or(Self::Function, |hosted| Self::Hosted(hosted))
    }
}

/// An item that comes all at once.
#[derive(Debug)]
pub(super) struct Whole {
    place: Place,
    item: Value,
}

// === impl Whole ===

impl Whole {
    pub(super) fn new(place: Place, item: Value) -> Self {
        Self { place, item }
    }

    pub(super) fn image(place: Place, media_type: &str, data: &str) -> Self {
        let format = media_type.strip_prefix("image/").unwrap_or(media_type);
        let mut item =
            json!({"id": place.id, "type": "image_generation_call", "status": "completed"});
        if format != "png" {
            item["output_format"] = format.into();
        }
        item["result"] = data.into();
        Self { place, item }
    }

    pub(super) fn keep(&mut self, opaque: &Opaque) {
        let (Value::Object(rest), Dialect::Responses) = (&opaque.data, opaque.dialect) else {
            return;
        };
        for (name, value) in rest {
            self.item[name] = value.clone();
        }
    }

    pub(super) fn close(self, lines: &mut Lines, out: &mut Vec<u8>) -> Vec<u8> {
        let item = json(&self.item);
        self.place.item(lines, out, "output_item.added", &item);
        self.place.item(lines, out, "output_item.done", &item);
        item
    }
}
