//! Reads the messages of a question.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::answer::Answer;
use super::media;
use super::thought::read_extra;
use super::wire::Message as Wire;
use crate::canon::{
    ChatResponse, Content, Dialect, Finish, Media, MediaKind, Message, Opaque, Part, Role, Source,
    ToolCall, ToolResult,
};
use crate::dialect::fold::Fold;
use crate::dialect::legible::Said;
use crate::dialect::{Misread, portable_id};

/// What earlier messages say about later ones.
#[derive(Default)]
struct History {
    /// Ids of calls of custom tools.
    custom: HashSet<String>,
    /// The id of the latest legacy call, which has none of its own.
    function: Option<String>,
}

pub(super) fn read_all(messages: &[Value]) -> Result<Vec<Message>, Misread> {
    let mut history = History::default();
    let read = |(index, message)| history.read(message, &format!("messages[{index}]"));
    messages.iter().enumerate().map(read).collect()
}

impl History {
    fn read(&mut self, message: &Value, path: &str) -> Result<Message, Misread> {
        let role = match message["role"].as_str() {
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("tool" | "function") => Role::Tool,
            Some(other) => {
                return Err(Misread::new(format!("`{path}.role` is `{other}`, which is no role.")));
            }
            None => return Err(Misread::new(format!("`{path}.role` must be a string."))),
        };
        let mut parts = read_content(&message["content"], &format!("{path}.content"))?;
        let mark = media::read_mark(message);
        if let Some(last) = parts.last_mut().filter(|last| last.cache.is_none()) {
            last.cache = mark;
        }
        match role {
            Role::Assistant => parts = self.assistant(message, parts, path)?,
            Role::Tool => parts = vec![self.result(message, parts, path)?],
            Role::System | Role::Developer | Role::User => {}
        }
        let name = message["name"].as_str().filter(|_| role != Role::Tool).map(str::to_owned);
        Ok(Message { role, parts, name })
    }

    /// Thoughts first, then what was said, then the calls.
    fn assistant(
        &mut self,
        message: &Value,
        said: Vec<Part>,
        path: &str,
    ) -> Result<Vec<Part>, Misread> {
        let mut parts = read_thoughts(message);
        parts.extend(said);
        let refusal = message["refusal"].as_str().filter(|text| !text.is_empty());
        parts.extend(refusal.map(|text| Part::new(Content::Refusal(text.to_owned()))));
        if let Some(id) = message["audio"]["id"].as_str() {
            let source = Source::File { dialect: Dialect::Chat, id: id.to_owned() };
            parts.push(Part::new(Content::Media(Media::new(MediaKind::Audio, source))));
        }
        let images = message["images"].as_array().into_iter().flatten();
        let images = images.filter_map(media::read_image);
        parts.extend(images.map(|image| Part::new(Content::Media(image))));
        read_extras(message, &mut parts);
        let cited = ["annotations", media::WITHOUT_URL].map(|field| message[field].as_array());
        let annotations = cited.into_iter().flatten().flatten();
        if let Some(Content::Text { citations, .. }) = parts
            .iter_mut()
            .map(|part| &mut part.content)
            .rfind(|content| matches!(content, Content::Text { .. }))
        {
            citations.extend(annotations.map(media::read_citation));
        }
        let sealed = sealed_call_states(message);
        for (index, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let mut part = self.call(call, &format!("{path}.tool_calls[{index}]"))?;
            if let (None, Content::ToolCall(call)) = (&part.opaque, &part.content) {
                part.opaque = sealed.get(&call.id).cloned();
            }
            parts.push(part);
        }
        if message["function_call"].is_object() {
            parts.push(self.legacy_call(&message["function_call"], path)?);
        }
        Ok(parts)
    }

    fn call(&mut self, call: &Value, path: &str) -> Result<Part, Misread> {
        let lacks = |name: &str| Misread::new(format!("`{path}.{name}` must be a string."));
        let id = call["id"].as_str().ok_or_else(|| lacks("id"))?;
        let custom = call["type"] == "custom";
        let (kind, text) = if custom { ("custom", "input") } else { ("function", "arguments") };
        if custom {
            self.custom.insert(id.to_owned());
        }
        let name = call[kind]["name"].as_str().ok_or_else(|| lacks(&format!("{kind}.name")))?;
        let arguments = match &call[kind][text] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            // Some clients send back the object that they parsed.
            other => other.to_string(),
        };
        let (id, name) = (id.to_owned(), name.to_owned());
        let mut part = Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom }));
        part.opaque = read_extra(&call["extra_content"]);
        Ok(part)
    }

    fn legacy_call(&mut self, call: &Value, path: &str) -> Result<Part, Misread> {
        let name = call["name"].as_str();
        let lacks = || Misread::new(format!("`{path}.function_call.name` must be a string."));
        let name = name.ok_or_else(lacks)?.to_owned();
        let id = portable_id(&format!("{path}:{name}")).into_owned();
        self.function = Some(id.clone());
        let arguments = call["arguments"].as_str().unwrap_or_default().to_owned();
        Ok(Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom: false })))
    }

    fn result(
        &mut self,
        message: &Value,
        mut parts: Vec<Part>,
        path: &str,
    ) -> Result<Part, Misread> {
        let named = message["tool_call_id"].as_str().map(str::to_owned);
        let legacy = || self.function.take().filter(|_| message["role"] == "function");
        let lacks = || Misread::new(format!("`{path}.tool_call_id` must be a string."));
        let id = named.or_else(legacy).ok_or_else(lacks)?;
        // A breakpoint behind the last of the result's parts is one behind the result.
        let cache = parts.last_mut().and_then(|part| part.cache.take());
        let custom = self.custom.contains(&id);
        let name = message["name"].as_str().map(str::to_owned);
        let result = ToolResult { id, name, parts, is_error: false, custom };
        Ok(Part { cache, ..Part::new(Content::ToolResult(result)) })
    }
}

fn read_content(content: &Value, path: &str) -> Result<Vec<Part>, Misread> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Part::text(text)]),
        Value::Array(list) => {
            let parts = list.iter().enumerate();
            parts.map(|(index, part)| media::read_part(part, &format!("{path}[{index}]"))).collect()
        }
        _ => Err(Misread::new(format!("`{path}` must be a string or an array of parts."))),
    }
}

/// Thoughts are given back as they were given out, so they are read as an answer's are.
fn read_thoughts(message: &Value) -> Vec<Part> {
    let field = |name: &str| {
        let text = message[name].as_str().map(|text| text.to_owned().into());
        text.map_or(Said::Nothing, Said::Text)
    };
    // State of a call is not a thought.
    let calls = call_ids(message);
    let is_thought = |entry: &&Value| !entry["id"].as_str().is_some_and(|id| calls.contains(id));
    let details = message["reasoning_details"].as_array().into_iter().flatten();
    let wire = Wire {
        reasoning_content: field("reasoning_content"),
        reasoning: field("reasoning"),
        reasoning_text: field("reasoning_text"),
        reasoning_details: details.filter(is_thought).cloned().collect(),
        ..Wire::default()
    };
    let mut answer = Answer::new(0, "");
    let mut events = Vec::new();
    answer.read(&wire, &mut events);
    answer.finish(Finish::default(), &mut events);
    let mut fold = Fold::default();
    for event in &events {
        fold.add(event);
    }
    let read: ChatResponse = fold.finish().unwrap_or_default();
    read.choices.into_iter().flat_map(|choice| choice.parts).collect()
}

fn call_ids(message: &Value) -> HashSet<&str> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    calls.filter_map(|call| call["id"].as_str()).collect()
}

/// State of calls that stands among the thoughts, as some clients only keep that.
fn sealed_call_states(message: &Value) -> HashMap<String, Opaque> {
    let calls = call_ids(message);
    let details = message["reasoning_details"].as_array().into_iter().flatten();
    details
        .filter_map(super::thought::Detail::read)
        .filter(|detail| calls.contains(detail.id))
        .filter_map(|detail| Some((detail.id.to_owned(), detail.sealed?)))
        .collect()
}

/// State of the whole message: ours belongs to its text, a server's stands for its thoughts.
fn read_extras(message: &Value, parts: &mut Vec<Part>) {
    let Some(state) = read_extra(&message["extra_content"]) else { return };
    if state.dialect == Dialect::Chat {
        let thought = crate::canon::Reasoning { redacted: true, ..Default::default() };
        let data = serde_json::json!({ "extra_content": state.data });
        let mut part = Part::new(Content::Reasoning(thought));
        part.opaque = Some(Opaque { data, ..state });
        return parts.insert(0, part);
    }
    match parts.iter_mut().rfind(|part| part.as_text().is_some()) {
        Some(text) => text.opaque = Some(state),
        None => parts.push(Part { opaque: Some(state), ..Part::text("") }),
    }
}
