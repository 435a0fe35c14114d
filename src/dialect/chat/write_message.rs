//! Writes a conversation's messages for one target.

use serde_json::{Map, Value, json};

use super::cache::mark_last;
use super::media::{write_mark, write_media};
use super::{response, thought};
use crate::canon::{
    Content, Dialect, Foreign, Media, MediaKind, Message, Opaque, Part, Role, Source, ToolCall,
    ToolResult,
};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::{Aim, Inexpressible, Thoughts, custom, portable_id};

/// Said in the model's place where it must have spoken and has not: true whatever follows.
const BRIDGE: &str = "I have the results.";

/// The messages so far.
pub(super) struct Transcript<'a> {
    aim: &'a Aim<'a>,
    messages: Vec<Value>,
    /// A schema to tell, until it is told.
    schema: Option<&'a Value>,
    /// Media of tool results: a tool's message holds only text, so they follow in a user's.
    shown: Vec<Value>,
    dropped: Dropped,
}

impl<'a> Transcript<'a> {
    pub(super) fn new(aim: &'a Aim<'a>, schema: Option<&'a Value>) -> Self {
        Self { aim, messages: Vec::new(), schema, shown: Vec::new(), dropped: Dropped::default() }
    }

    pub(super) fn add(&mut self, message: &Message) -> Result<(), Inexpressible> {
        // Results first: they must follow their calls, whatever else the message says.
        for part in &message.parts {
            if let Content::ToolResult(result) = &part.content {
                self.result(part, result)?;
            }
        }
        let is_rest = |part: &&Part| !matches!(part.content, Content::ToolResult(_));
        let rest: Vec<&Part> = message.parts.iter().filter(is_rest).collect();
        if rest.is_empty() && !message.parts.is_empty() || message.role == Role::Tool {
            return Ok(());
        }
        self.show();
        if !matches!(message.role, Role::System | Role::Developer) {
            self.tell_schema();
        }
        let mut written = match message.role {
            Role::Assistant => match self.assistant(&rest)? {
                Some(written) => written,
                // Nothing is left that this target could take.
                None => return Ok(()),
            },
            role => {
                let role = match role {
                    Role::Developer if self.aim.traits.developer => "developer",
                    Role::System | Role::Developer => "system",
                    Role::User | Role::Assistant | Role::Tool => "user",
                };
                let mut written = Map::new();
                written.insert("role".into(), json!(role));
                written.insert("content".into(), self.content(&rest)?);
                written
            }
        };
        match &message.name {
            Some(_) if self.aim.traits.refused.contains(&"name") => self.dropped.add("name"),
            Some(name) => {
                written.insert("name".into(), json!(name));
            }
            None => {}
        }
        self.messages.push(written.into());
        Ok(())
    }

    pub(super) fn finish(mut self, prefix: Option<&str>) -> (Vec<Value>, Dropped) {
        self.show();
        self.tell_schema();
        let strict = self.aim.traits.strict_turns;
        if strict {
            self.bridge();
        }
        // Where a turn of the model would be refused without it, it is said in any case.
        let prefix = if strict { Some("prefix") } else { prefix };
        let last = self.messages.last_mut().filter(|last| last["role"] == "assistant");
        let last = last.filter(|last| last.get("tool_calls").is_none());
        if let (Some(prefix), Some(last)) = (prefix, last) {
            last[prefix] = json!(true);
        }
        (self.messages, self.dropped)
    }

    /// Puts a turn of the model between a tool's and a user's.
    fn bridge(&mut self) {
        let bare = std::mem::take(&mut self.messages);
        for message in bare {
            let after_tool = self.messages.last().is_some_and(|last| last["role"] == "tool");
            if after_tool && message["role"] == "user" {
                self.messages.push(json!({ "role": "assistant", "content": BRIDGE }));
            }
            self.messages.push(message);
        }
    }

    /// Behind the leading instructions, where it stays the same from turn to turn.
    fn tell_schema(&mut self) {
        let Some(schema) = self.schema.take() else { return };
        let text = format!("Answer only with JSON that follows this JSON Schema:\n{schema}");
        self.messages.push(json!({ "role": "system", "content": text }));
    }

    /// What tools have shown comes after all results of the turn.
    fn show(&mut self) {
        if !self.shown.is_empty() {
            let content = std::mem::take(&mut self.shown);
            self.messages.push(json!({ "role": "user", "content": content }));
        }
    }

    /// One string where the target wants or deserves it, else a list of parts.
    fn content(&mut self, parts: &[&Part]) -> Result<Value, Inexpressible> {
        let mut written = Vec::new();
        for part in parts {
            written.extend(self.part(part)?);
        }
        let is_text = |part: &Value| part["type"] == "text";
        let is_plain = |part: &Value| is_text(part) && part.get("cache_control").is_none();
        let flat = self.aim.traits.flat_text && written.iter().all(is_text);
        if flat || (written.len() <= 1 && written.iter().all(is_plain)) {
            let texts: Vec<&str> =
                written.iter().filter_map(|part| part["text"].as_str()).collect();
            return Ok(texts.join("\n\n").into());
        }
        Ok(written.into())
    }

    fn part(&mut self, part: &Part) -> Result<Option<Value>, Inexpressible> {
        let mut written = match &part.content {
            Content::Text { text, .. } | Content::Refusal(text) => {
                json!({ "type": "text", "text": text })
            }
            Content::Media(media) => {
                if media.citable {
                    self.dropped.add("citations");
                }
                write_media(media, self.aim)?
            }
            Content::Foreign(Foreign { dialect: Dialect::Chat, value }) => value.clone(),
            Content::Foreign(foreign) => {
                self.dropped.add(lost::kind(foreign));
                return Ok(None);
            }
            Content::Reasoning(_) | Content::ToolCall(_) | Content::ToolResult(_) => {
                return Ok(None);
            }
        };
        match part.cache {
            Some(mark) if self.aim.traits.cache_control => {
                written["cache_control"] = write_mark(mark);
            }
            Some(_) => self.dropped.add("cache_control"),
            None => {}
        }
        Ok(Some(written))
    }

    fn result(&mut self, part: &Part, result: &ToolResult) -> Result<(), Inexpressible> {
        if result.is_error {
            self.dropped.add("is_error");
        }
        let (texts, media): (Vec<&Part>, Vec<&Part>) =
            result.parts.iter().partition(|part| part.as_text().is_some());
        let mut content = self.content(&texts)?;
        for part in media {
            let shown = self.part(part)?;
            self.shown.extend(shown);
        }
        if texts.is_empty() && !self.shown.is_empty() {
            content = json!("The result follows in the next message.");
        }
        match part.cache {
            Some(mark) if self.aim.traits.cache_control => {
                mark_last(&mut content, write_mark(mark));
            }
            Some(_) => self.dropped.add("cache_control"),
            None => {}
        }
        let id = self.id(&result.id);
        self.messages.push(json!({ "role": "tool", "tool_call_id": id, "content": content }));
        Ok(())
    }

    fn assistant(&mut self, parts: &[&Part]) -> Result<Option<Map<String, Value>>, Inexpressible> {
        let mut message = Map::new();
        message.insert("role".into(), json!("assistant"));
        message.insert("content".into(), Value::Null);
        let keeps_refusal = !self.aim.traits.refused.contains(&"refusal");
        let mut said = Vec::new();
        let mut calls = Vec::new();
        for part in parts {
            match &part.content {
                Content::Refusal(text) if keeps_refusal => {
                    message.insert("refusal".into(), json!(text));
                }
                Content::Media(media) => said.extend(self.made_media(part, media, &mut message)),
                Content::ToolCall(call) => calls.push(self.call(part, call)),
                Content::Reasoning(_) | Content::ToolResult(_) => {}
                Content::Text { .. } | Content::Refusal(_) | Content::Foreign(_) => {
                    said.extend(self.spoken(part, &mut message)?);
                }
            }
        }
        self.thoughts(parts, &mut message, &mut said);
        let is_plain = |part: &Value| part["type"] == "text" && part.get("cache_control").is_none();
        let joined: Option<String> = (said.len() <= 1 && said.iter().all(is_plain)
            || self.aim.traits.flat_text && said.iter().all(|part| part["type"] == "text"))
        .then(|| said.iter().filter_map(|part| part["text"].as_str()).collect());
        if !said.is_empty() {
            message.insert("content".into(), joined.map_or_else(|| said.into(), Value::from));
        }
        if !calls.is_empty() {
            message.insert("tool_calls".into(), calls.into());
        }
        let is_empty = message.len() == 2 && message["content"].is_null();
        if is_empty && parts.is_empty() {
            message.insert("content".into(), json!(""));
        }
        Ok((!is_empty || parts.is_empty()).then_some(message))
    }

    fn spoken(
        &mut self,
        part: &Part,
        message: &mut Map<String, Value>,
    ) -> Result<Option<Value>, Inexpressible> {
        // State that a server of this dialect gave to a text is its to have back.
        if let Some(data) = part.opaque_for(Dialect::Chat) {
            message.insert("extra_content".into(), data.clone());
        }
        self.part(part)
    }

    /// A sound is named by the id that it came with, or told by its transcript.
    fn made_media(
        &mut self,
        part: &Part,
        media: &Media,
        message: &mut Map<String, Value>,
    ) -> Option<Value> {
        let own = part.opaque_for(Dialect::Chat).and_then(|state| state["id"].as_str());
        let id = match &media.source {
            Source::File { dialect: Dialect::Chat, id } => Some(id.as_str()),
            _ => own,
        };
        match (media.kind, id, &media.transcript) {
            (MediaKind::Audio, Some(id), _) if !self.aim.traits.refused.contains(&"audio") => {
                message.insert("audio".into(), json!({ "id": id }));
                None
            }
            (MediaKind::Audio, _, Some(text)) => Some(json!({ "type": "text", "text": text })),
            (kind, ..) => {
                self.dropped.add(if kind == MediaKind::Audio { "audio" } else { "images" });
                None
            }
        }
    }

    fn call(&self, part: &Part, call: &ToolCall) -> Value {
        let id = self.id(&call.id);
        let mut told = call.clone();
        if call.custom && !self.aim.traits.custom_tools {
            told.arguments = custom::arguments(call).into_owned();
            told.custom = false;
        }
        if told.arguments.is_empty() && !told.custom {
            "{}".clone_into(&mut told.arguments);
        }
        let mut written = response::call_object(&told, &id);
        if let Some(Opaque { dialect: Dialect::Chat, data }) = &part.opaque {
            written["extra_content"] = data.clone();
        }
        written
    }

    /// The id that the target takes, the same for a call and its result.
    fn id(&self, id: &str) -> String {
        let is_short = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !self.aim.traits.short_ids || is_short {
            return portable_id(id).into_owned();
        }
        // A character that no id has, so that the digits of a hash come out.
        let hash = portable_id(&format!("{id}:")).into_owned();
        hash.trim_start_matches("call_").chars().take(9).collect()
    }

    fn thoughts(&self, parts: &[&Part], message: &mut Map<String, Value>, said: &mut Vec<Value>) {
        let is_thought = |part: &&&Part| matches!(part.content, Content::Reasoning(_));
        let thoughts: Vec<&Part> = parts.iter().filter(is_thought).copied().collect();
        let text: String =
            thoughts.iter().filter_map(|part| response::thought_text(part)).collect();
        for part in &thoughts {
            if let Some(extra) = response::own_extra(part) {
                message.insert("extra_content".into(), extra);
            }
        }
        match self.aim.traits.thoughts {
            Thoughts::Unknown => {}
            Thoughts::Field(name) => {
                // Servers that think want the field with every call, even where there was nothing.
                let calls = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
                if !text.is_empty() || calls {
                    message.insert(name.into(), text.into());
                }
            }
            Thoughts::Parts => {
                if !text.is_empty() {
                    let inner = json!([{ "type": "text", "text": text }]);
                    said.insert(0, json!({ "type": "thinking", "thinking": inner }));
                }
            }
            Thoughts::Details => {
                let own = |part: &&&Part| part.opaque_for(Dialect::Chat).is_some();
                let entries: Vec<Value> = thoughts
                    .iter()
                    .filter(own)
                    .flat_map(|part| thought::entries(part, 0))
                    .collect();
                if !text.is_empty() {
                    message.insert("reasoning".into(), text.into());
                }
                if !entries.is_empty() {
                    message.insert("reasoning_details".into(), entries.into());
                }
            }
        }
    }
}
