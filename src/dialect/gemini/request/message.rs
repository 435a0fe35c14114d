//! Writes what was said: contents that take turns, and the instruction above them.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::RESULT;
use super::write::Draft;
use crate::canon::{Content, Dialect, Media, Message, Part, Role, ToolResult};
use crate::dialect::gemini::part::{self, Reader};
use crate::dialect::gemini::{media, signature};
use crate::dialect::{Inexpressible, lost, schema};

/// One content at a time; neighbours of one kind are joined.
#[derive(Default)]
struct Speech<'a> {
    written: Vec<Value>,
    kind: Option<Kind>,
    parts: Vec<Value>,
    /// The tools' names by their calls' ids.
    names: HashMap<&'a str, &'a str>,
    /// Media of results, for models that take them only behind all the results.
    behind: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Model,
    /// Results stand in a user's content, and nothing beside them.
    Results,
}

pub(super) fn write(draft: &mut Draft<'_>) -> Result<(Option<Value>, Vec<Value>), Inexpressible> {
    let messages = &draft.request.messages;
    let is_system = |message: &&Message| matches!(message.role, Role::System | Role::Developer);
    let system = messages.iter().take_while(is_system).count();
    let mut instruction = Vec::new();
    for (place, message) in messages[..system].iter().enumerate() {
        draft.dropped.add_if(message.name.is_some(), "name");
        for part in &message.parts {
            instruction.extend(write_part(draft, part, place)?);
        }
    }
    let mut speech = Speech::default();
    for (place, message) in messages.iter().enumerate().skip(system) {
        draft.dropped.add_if(message.name.is_some(), "name");
        if message.role != Role::Tool {
            speech.show();
        }
        for part in &message.parts {
            speech.part(draft, part, message, place)?;
        }
    }
    let mut contents = speech.finish();
    if draft.model.third {
        contents.iter_mut().for_each(sign_first_call);
    }
    if contents.is_empty() && messages.iter().any(|message| message.role == Role::User) {
        // The API wants a content, and takes an empty text where that is all there is.
        contents.push(json!({ "role": "user", "parts": [{ "text": "" }] }));
    } else if contents.is_empty() && !instruction.is_empty() {
        // Instructions alone are a question too.
        return Ok((None, vec![json!({ "role": "user", "parts": instruction })]));
    }
    let system = (!instruction.is_empty()).then(|| json!({ "parts": instruction }));
    Ok((system, contents))
}

/// An empty text says nothing, and the API refuses it.
fn is_void(part: &Part) -> bool {
    let (Content::Text { text, .. } | Content::Refusal(text)) = &part.content else { return false };
    text.is_empty() && part.opaque_for(Dialect::Gemini).is_none()
}

// === impl Speech ===

impl<'a> Speech<'a> {
    fn part(
        &mut self,
        draft: &mut Draft<'_>,
        part: &'a Part,
        message: &Message,
        place: usize,
    ) -> Result<(), Inexpressible> {
        if let Content::ToolResult(result) = &part.content {
            draft.dropped.add_if(part.cache.is_some(), "cache_control");
            let known = self.names.get(result.id.as_str()).copied();
            let name = result.name.as_deref().or(known);
            let own = part.opaque_for(Dialect::Gemini).and_then(|own| own[RESULT].as_bool());
            let written = write_result(draft, (result, own), name, place, &mut self.behind)?;
            self.add(Kind::Results, written);
            return Ok(());
        }
        if let Content::ToolCall(call) = &part.content {
            self.names.insert(&call.id, &call.name);
        }
        let kind = match message.role {
            Role::Assistant => Kind::Model,
            // An instruction in the middle keeps its place, so that what stands before it can be
            // taken from the provider's cache.
            Role::System | Role::Developer | Role::User | Role::Tool => Kind::User,
        };
        if let Some(written) = write_part(draft, part, place)? {
            self.add(kind, written);
        }
        Ok(())
    }

    /// Puts the media of the results before what follows them.
    fn show(&mut self) {
        for part in std::mem::take(&mut self.behind) {
            self.add(Kind::User, part);
        }
    }

    fn add(&mut self, kind: Kind, part: Value) {
        if self.kind != Some(kind) {
            self.close();
            self.kind = Some(kind);
        }
        self.parts.push(part);
    }

    fn close(&mut self) {
        if !self.parts.is_empty() {
            let role = if self.kind == Some(Kind::Model) { "model" } else { "user" };
            self.written.push(json!({ "role": role, "parts": std::mem::take(&mut self.parts) }));
        }
    }

    fn finish(mut self) -> Vec<Value> {
        self.show();
        self.close();
        self.written
    }
}

fn write_part(
    draft: &mut Draft<'_>,
    part: &Part,
    place: usize,
) -> Result<Option<Value>, Inexpressible> {
    draft.dropped.add_if(part.cache.is_some(), "cache_control");
    if is_void(part) {
        return Ok(None);
    }
    match &part.content {
        Content::Media(media) => {
            let detail = media.detail.as_deref();
            draft.dropped.add_if(detail.is_some_and(|detail| detail != "auto"), "detail");
            draft.dropped.add_if(media.citable, "citations");
        }
        Content::Foreign(foreign) if foreign.dialect != Dialect::Gemini => {
            draft.dropped.add_if(true, lost::kind(foreign));
        }
        _ => {}
    }
    let mut written = part::write(part, Reader::Gemini)
        .map_err(|cause| Inexpressible(format!("`messages[{place}]` holds {cause}").into()))?;
    let is_own = draft.request.extras.dialect == Some(Dialect::Gemini);
    if let (Content::Media(Media { name: Some(name), .. }), true) = (&part.content, is_own)
        && let Some(Value::Object(blob)) =
            written.as_mut().and_then(|part| part.get_mut("inlineData"))
    {
        blob.insert("displayName".into(), json!(name));
    }
    Ok(written)
}

/// A result as the object that Gemini wants. Media go inside, or behind it for older models.
fn write_result(
    draft: &mut Draft<'_>,
    (result, own): (&ToolResult, Option<bool>),
    name: Option<&str>,
    place: usize,
    behind: &mut Vec<Value>,
) -> Result<Value, Inexpressible> {
    let Some(name) = name else {
        let id = &result.id;
        let text = format!(
            "`messages[{place}]` answers the call `{id}`, which no message before it makes"
        );
        return Err(Inexpressible(text.into()));
    };
    let mut texts = Vec::new();
    let mut inside = Vec::new();
    for part in &result.parts {
        match &part.content {
            Content::Text { text, .. } => texts.push(text.as_str()),
            Content::Media(medium) => {
                let written = media::write(medium).map_err(|cause| {
                    Inexpressible(format!("`messages[{place}]` holds {cause}").into())
                })?;
                inside.push(Value::Object(written));
            }
            _ => {}
        }
        draft.dropped.add_if(part.cache.is_some(), "cache_control");
    }
    let mut out = Map::new();
    out.insert("id".into(), json!(result.id));
    out.insert("name".into(), json!(name));
    out.insert("response".into(), response(&texts.concat(), result.is_error, own));
    if draft.model.third && !inside.is_empty() {
        out.insert("parts".into(), Value::Array(inside));
    } else {
        behind.append(&mut inside);
    }
    out.extend(draft.result_fields(&result.id));
    Ok(json!({ "functionResponse": out }))
}

/// A JSON object as it is, any other text under the name that Gemini looks for. `own`: its client
/// had another name for it, and whether that named a text.
fn response(text: &str, is_error: bool, own: Option<bool>) -> Value {
    if is_error {
        return json!({ "error": text });
    }
    if let Some(is_text) = own {
        let said = serde_json::from_str(text).ok().filter(|_: &Value| !is_text);
        return json!({ RESULT: said.unwrap_or_else(|| json!(text)) });
    }
    match serde_json::from_str::<Value>(text) {
        // Gemini takes `$ref` for a reference of its own, to a medium in the result.
        Ok(value) if value.is_object() && !schema::holds_reference(&value) => value,
        _ => json!({ "output": text }),
    }
}

/// Newer models refuse a turn whose first call has no signature, as calls made elsewhere have none.
fn sign_first_call(content: &mut Value) {
    let parts = content["parts"].as_array_mut();
    let first = parts.into_iter().flatten().find(|part| part.get("functionCall").is_some());
    if let Some(Value::Object(part)) = first {
        part.entry("thoughtSignature").or_insert_with(|| json!(signature::DUMMY));
    }
}
