//! What was said, as Cohere takes it: documents and plans stand beside the words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::PLAN;
use super::request::Draft;
use crate::canon::{
    Content, Dialect, Media, MediaKind, Message, Part, Role, Source, ToolCall, ToolResult,
};
use crate::dialect::{Inexpressible, custom, lost};

// === impl Draft ===

impl Draft<'_> {
    pub(super) fn message(&mut self, message: &Message, path: &str) -> Result<(), Inexpressible> {
        self.dropped.add_if(message.name.is_some(), "name");
        self.dropped.add_if(message.parts.iter().any(|part| part.cache.is_some()), "cache_control");
        match message.role {
            Role::System | Role::Developer => {
                let content = self.content(&message.parts, path)?;
                self.say("system", content);
            }
            Role::User => {
                let content = self.content(&message.parts, path)?;
                self.say("user", content);
            }
            Role::Assistant => self.assistant(message, path)?,
            Role::Tool => self.results(message, path)?,
        }
        Ok(())
    }

    fn say(&mut self, role: &str, mut content: Vec<Value>) {
        // A text alone is written as such: every model takes that.
        let content = match content.as_mut_slice() {
            [] => return,
            [only] if only["type"] == "text" => only["text"].take(),
            _ => Value::Array(content),
        };
        self.messages.push(json!({ "role": role, "content": content }));
    }

    fn content(&mut self, parts: &[Part], path: &str) -> Result<Vec<Value>, Inexpressible> {
        let mut content = Vec::new();
        for part in parts {
            match &part.content {
                Content::Text { text, .. } | Content::Refusal(text) => {
                    content.push(json!({ "type": "text", "text": text }));
                }
                Content::Media(medium) => content.extend(self.medium(medium, path)?),
                Content::Foreign(block) if block.dialect == Dialect::Cohere => {
                    content.push(block.value.clone());
                }
                Content::Foreign(block) => {
                    self.dropped.add(lost::kind(block));
                }
                Content::Reasoning(_) | Content::ToolCall(_) | Content::ToolResult(_) => {}
            }
        }
        Ok(content)
    }

    /// An image as a block; a document goes beside the conversation.
    fn medium(&mut self, medium: &Media, path: &str) -> Result<Option<Value>, Inexpressible> {
        let refuse = |what: &str| {
            Inexpressible(format!("`{path}.content`: this provider does not take {what}.").into())
        };
        match (medium.kind, &medium.source) {
            (MediaKind::Image, Source::Url { url, .. }) => Ok(Some(image(url, medium))),
            (MediaKind::Image, Source::Base64 { media_type, data }) => {
                Ok(Some(image(&format!("data:{media_type};base64,{data}"), medium)))
            }
            (MediaKind::Document, Source::Text(text)) => {
                self.document(text, medium);
                Ok(None)
            }
            (MediaKind::Document, Source::Base64 { media_type, data })
                if media_type.starts_with("text/") =>
            {
                let bytes = STANDARD.decode(data).ok();
                let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                self.document(&text.ok_or_else(|| refuse("a text that is not UTF-8"))?, medium);
                Ok(None)
            }
            (MediaKind::Document, _) => Err(refuse("documents other than plain text")),
            (MediaKind::Image, _) => Err(refuse("images by the id of another provider's file")),
            (MediaKind::Audio, _) => Err(refuse("sounds")),
            (MediaKind::Video, _) => Err(refuse("films")),
        }
    }

    fn document(&mut self, text: &str, medium: &Media) {
        let mut data = json!({ "text": text });
        if let Some(name) = &medium.name {
            data["title"] = json!(name);
        }
        let id = format!("doc:{}", self.documents.len());
        self.documents.push(json!({ "id": id, "data": data }));
    }

    fn assistant(&mut self, message: &Message, path: &str) -> Result<(), Inexpressible> {
        let mut said = json!({ "role": "assistant" });
        let mut content = Vec::new();
        let (mut calls, mut plan) = (Vec::new(), String::new());
        for part in &message.parts {
            match &part.content {
                Content::ToolCall(call) => calls.push(write_call(call)),
                Content::Reasoning(thought) if thought.text.is_empty() => {}
                Content::Reasoning(thought)
                    if part.opaque_for(Dialect::Cohere).is_some_and(|it| it == PLAN) =>
                {
                    plan.push_str(&thought.text);
                }
                Content::Reasoning(thought) if self.thinks => {
                    content.push(json!({ "type": "thinking", "thinking": thought.text }));
                }
                Content::Reasoning(_) => {}
                _ => content.extend(self.content(std::slice::from_ref(part), path)?),
            }
        }
        if calls.is_empty() && content.is_empty() {
            return Ok(());
        }
        if !content.is_empty() {
            said["content"] = match content.as_mut_slice() {
                [only] if only["type"] == "text" => only["text"].take(),
                _ => Value::Array(content),
            };
        }
        if !plan.is_empty() {
            said["tool_plan"] = json!(plan);
        }
        if !calls.is_empty() {
            said["tool_calls"] = Value::Array(calls);
        }
        self.messages.push(said);
        Ok(())
    }

    fn results(&mut self, message: &Message, path: &str) -> Result<(), Inexpressible> {
        for part in &message.parts {
            if let Content::ToolResult(result) = &part.content {
                self.result(result, path)?;
            }
        }
        Ok(())
    }

    fn result(&mut self, result: &ToolResult, path: &str) -> Result<(), Inexpressible> {
        let marked = result.parts.iter().any(|part| part.cache.is_some());
        self.dropped.add_if(marked, "cache_control");
        let is_text = |part: &Part| matches!(part.content, Content::Text { .. });
        if !result.parts.iter().all(is_text) {
            let why = format!("`{path}.content`: this provider takes only text from a tool.");
            return Err(Inexpressible(why.into()));
        }
        let mut text: String = result.parts.iter().filter_map(Part::as_text).collect();
        if result.is_error && !text.to_ascii_lowercase().contains("error") {
            // There is no field for it, and the model should know.
            text.insert_str(0, "Error: ");
        }
        let id = &result.id;
        self.messages.push(json!({ "role": "tool", "tool_call_id": id, "content": text }));
        Ok(())
    }
}

fn image(url: &str, medium: &Media) -> Value {
    let mut image = json!({ "url": url });
    if let Some(detail) = &medium.detail {
        image["detail"] = json!(detail);
    }
    json!({ "type": "image_url", "image_url": image })
}

fn write_call(call: &ToolCall) -> Value {
    let given = custom::arguments(call);
    let arguments = match custom::object(call) {
        Some(input) if !input.is_empty() => given,
        _ => Value::Object(custom::input(call)).to_string().into(),
    };
    let function = json!({ "name": call.name, "arguments": arguments });
    json!({ "id": call.id, "type": "function", "function": function })
}
