//! What was said, in the turns that Converse wants: the user first, then one after the other.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::cache;
use super::family::Family;
use super::media::{self, Names};
use crate::canon::{
    CacheMark, ChatRequest, Content, Dialect, Media, Message, Part, Reasoning, Role, ToolCall,
    ToolResult,
};
use crate::dialect::lost::{self, Dropped};
use crate::dialect::turns::shown_by_user;
use crate::dialect::{Inexpressible, custom, portable_id};

/// What stands for a user who has said nothing, before the model does or beside a document.
const SILENCE: &str = "…";

/// A conversation, turn by turn.
pub(super) struct Turns<'a> {
    family: &'a Family,
    pub(super) system: Vec<Value>,
    pub(super) messages: Vec<Value>,
    names: Names,
    pub(super) dropped: Dropped,
    /// Names of the tools that were called, each once, in order.
    pub(super) called: Vec<String>,
    known: HashSet<String>,
    /// There are tool calls or results.
    pub(super) has_tools: bool,
    /// The last turn of the model calls tools without the thoughts that led there.
    pub(super) thoughtless: bool,
}

// === impl Turns ===

impl<'a> Turns<'a> {
    pub(super) fn write(request: &ChatRequest, family: &'a Family) -> Result<Self, Inexpressible> {
        let mut turns = Self {
            family,
            system: Vec::new(),
            messages: Vec::new(),
            names: Names::default(),
            dropped: Dropped::default(),
            called: Vec::new(),
            known: HashSet::new(),
            has_tools: false,
            thoughtless: false,
        };
        let (messages, lost) = shown_by_user(&request.messages);
        turns.dropped.add_if(lost, "images");
        for (place, message) in messages.iter().enumerate() {
            let path = format!("messages[{place}]");
            let mut blocks = Vec::new();
            for part in &message.parts {
                turns.write_part(message, part, &path, &mut blocks)?;
            }
            if message.name.is_some() {
                turns.dropped.add("name");
            }
            turns.push(message, blocks);
        }
        let keeps = |part: &Part, thought: &Reasoning| turns.write_thought(thought, part).is_some();
        let cited = lost::citations(request, |_| false);
        let beside = lost::beside(request, Dialect::Converse);
        for name in lost::thoughts(request, keeps).into_iter().chain(cited).chain(beside) {
            turns.dropped.add(name);
        }
        if turns.messages.first().is_none_or(|first| first["role"] == "assistant") {
            let silence = json!({ "role": "user", "content": [{ "text": SILENCE }] });
            turns.messages.insert(0, silence);
        }
        turns.trim_last();
        turns.messages.iter_mut().for_each(accompany);
        Ok(turns)
    }

    fn push(&mut self, message: &Message, mut blocks: Vec<Value>) {
        let role = match message.role {
            Role::System | Role::Developer => return self.system.append(&mut blocks),
            Role::User | Role::Tool => "user",
            Role::Assistant => "assistant",
        };
        if blocks.is_empty() {
            return;
        }
        if role == "assistant" {
            let has = |name: &str| blocks.iter().any(|block| block.get(name).is_some());
            self.thoughtless = has("toolUse") && !has("reasoningContent");
        } else if message.role == Role::User {
            // Thoughts must be kept only while the tools they led to are at work.
            self.thoughtless = false;
        }
        let last = self.messages.last_mut().filter(|last| last["role"] == role);
        match last.and_then(|last| last["content"].as_array_mut()) {
            Some(content) => content.append(&mut blocks),
            None => self.messages.push(json!({ "role": role, "content": blocks })),
        }
    }

    /// A model that is to go on from its own words refuses white space at their end.
    fn trim_last(&mut self) {
        let last = self.messages.last_mut().filter(|last| last["role"] == "assistant");
        let text =
            last.and_then(|last| last["content"].as_array_mut()?.last_mut()?.get_mut("text"));
        if let Some(Value::String(text)) = text {
            text.truncate(text.trim_end().len());
        }
    }

    fn write_part(
        &mut self,
        message: &Message,
        part: &Part,
        path: &str,
        blocks: &mut Vec<Value>,
    ) -> Result<(), Inexpressible> {
        let block = match &part.content {
            Content::Text { text, .. } | Content::Refusal(text) => write_text(text),
            Content::Media(medium) if !matches!(message.role, Role::System | Role::Developer) => {
                Some(self.write_medium(medium, path)?)
            }
            Content::Media(_) => {
                let why =
                    format!("`{path}.content`: this provider takes only text from the system.");
                return Err(Inexpressible(why.into()));
            }
            Content::Reasoning(thought) => self.write_thought(thought, part),
            Content::ToolCall(call) => Some(self.write_call(call)),
            Content::ToolResult(result) => Some(self.write_result(result, path)?),
            Content::Foreign(block) if block.dialect == Dialect::Converse => {
                self.has_tools |= block.value.get("toolUse").is_some();
                Some(block.value.clone())
            }
            Content::Foreign(block) => {
                self.dropped.add(lost::kind(block));
                None
            }
        };
        blocks.extend(block);
        if let Some(mark) = deepest_mark(part) {
            self.mark(mark, blocks);
        }
        Ok(())
    }

    fn write_medium(&mut self, medium: &Media, path: &str) -> Result<Value, Inexpressible> {
        if medium.detail.as_deref().is_some_and(|detail| detail != "auto") {
            self.dropped.add("detail");
        }
        let refuse = |why| Inexpressible(format!("`{path}.content`: a file {why}.").into());
        media::write(medium, &mut self.names).map_err(refuse)
    }

    /// A breakpoint behind what has been written. Behind a document or a film Converse refuses
    /// one, so there it stands before them.
    fn mark(&mut self, mark: CacheMark, blocks: &mut Vec<Value>) {
        let is_file =
            |block: &Value| block.get("document").is_some() || block.get("video").is_some();
        let place = blocks.iter().rposition(|block| !is_file(block)).map_or(0, |last| last + 1);
        let before = place.checked_sub(1).and_then(|before| blocks.get(before));
        if before.is_some_and(cache::is_point) {
            return;
        }
        match cache::point(mark, self.family.caches).filter(|_| before.is_some()) {
            Some(point) => blocks.insert(place, point),
            None => self.dropped.add("cache_control"),
        }
    }

    fn write_thought(&self, thought: &Reasoning, part: &Part) -> Option<Value> {
        let own = part.opaque_for(Dialect::Converse).and_then(Value::as_str).map(Cow::Borrowed);
        let state = own.or_else(|| self.state_from_anthropic(thought, part));
        match state {
            Some(data) if thought.redacted => {
                Some(json!({ "reasoningContent": { "redactedContent": data } }))
            }
            Some(signature) => Some(json!({ "reasoningContent": {
                "reasoningText": { "text": thought.text, "signature": signature }
            } })),
            None if self.family.unsigned_thoughts && !thought.text.trim().is_empty() => {
                Some(json!({ "reasoningContent": { "reasoningText": { "text": thought.text } } }))
            }
            // There may be a place for it, but only for what the model itself has signed.
            None => None,
        }
    }

    /// Anthropic's signatures are good wherever its models run; redacted thoughts are bytes here,
    /// and so in base64 once more.
    fn state_from_anthropic(&self, thought: &Reasoning, part: &Part) -> Option<Cow<'static, str>> {
        let state = part.opaque_for(Dialect::Messages).filter(|_| self.family.is_claude())?;
        let field = if thought.redacted { "data" } else { "signature" };
        let state = state.as_str().or_else(|| state.get(field)?.as_str())?;
        Some(Cow::Owned(if thought.redacted { STANDARD.encode(state) } else { state.to_owned() }))
    }

    fn write_call(&mut self, call: &ToolCall) -> Value {
        self.has_tools = true;
        if self.known.insert(call.name.clone()) {
            self.called.push(call.name.clone());
        }
        let (id, input) = (portable_id(&call.id), custom::input(call));
        json!({ "toolUse": { "toolUseId": id, "name": call.name, "input": input } })
    }

    fn write_result(&mut self, result: &ToolResult, path: &str) -> Result<Value, Inexpressible> {
        self.has_tools = true;
        let mut content = Vec::new();
        for part in &result.parts {
            content.extend(match &part.content {
                Content::Text { text, .. } | Content::Refusal(text) => write_text(text),
                Content::Media(medium) => Some(self.write_medium(medium, path)?),
                _ => None,
            });
        }
        let id = portable_id(&result.id);
        let mut written = json!({ "toolUseId": id, "content": content });
        // Only some models take a status, and success is what all assume.
        if result.is_error {
            written["status"] = json!("error");
        }
        Ok(json!({ "toolResult": written }))
    }
}

/// A turn with a document is refused without a text.
fn accompany(turn: &mut Value) {
    let Some(blocks) = turn["content"].as_array_mut() else { return };
    let has = |name: &str| blocks.iter().any(|block| block.get(name).is_some());
    if has("document") && !has("text") {
        blocks.push(json!({ "text": SILENCE }));
    }
}

/// Blank texts are refused, wherever they stand.
fn write_text(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({ "text": text }))
}

/// A part's own breakpoint, or one within the tool result that it is.
fn deepest_mark(part: &Part) -> Option<CacheMark> {
    let within = match &part.content {
        Content::ToolResult(result) => result.parts.iter().rev().find_map(|part| part.cache),
        _ => None,
    };
    part.cache.or(within)
}
