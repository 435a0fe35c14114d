//! Tools whose input is free text, for APIs whose tools take JSON.
//!
//! OpenAI's custom tools (Codex edits files with one) become functions with one string, `input`.
//! What the model then calls is a function whose arguments are `{"input": "…"}`; the client waits
//! for the text itself, so the writer of its answer takes it out again, while it streams.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::WriteStream;
use crate::canon::{
    ChatRequest, ChatResponse, Content, Delta, Event, Opening, Part, Tool, ToolCall,
};
use crate::error::Error;

/// What a writer names as dropped where a grammar is told in words, which bind less.
pub const FORMAT: &str = "tools.custom.format";

/// The function that stands for a custom tool; `None` for any other tool.
pub fn as_function(tool: &Tool) -> Option<Tool> {
    let Tool::Custom { name, description, format } = tool else { return None };
    let mut text = description.clone().unwrap_or_default();
    if let Some(grammar) = format.as_ref().and_then(grammar) {
        text.push_str(if text.is_empty() { "" } else { "\n\n" });
        text.push_str(&grammar);
    }
    Some(Tool::Function {
        name: name.clone(),
        description: (!text.is_empty()).then_some(text),
        schema: Some(json!({
            "type": "object",
            "properties": {"input": {"type": "string", "description": "The whole input as plain text."}},
            "required": ["input"],
            "additionalProperties": false,
        })),
        strict: None,
        cache: None,
    })
}

/// Whether the tool's input follows a grammar, which functions do not enforce.
pub fn has_grammar(tool: &Tool) -> bool {
    matches!(tool, Tool::Custom { format: Some(format), .. } if grammar(format).is_some())
}

/// What the model must know of a grammar that nobody enforces for it.
fn grammar(format: &Value) -> Option<String> {
    let grammar = format.get("grammar").unwrap_or(format);
    let definition = grammar.get("definition")?.as_str()?;
    let syntax = grammar.get("syntax").and_then(Value::as_str).unwrap_or("formal");
    Some(format!("`input` must follow this {syntax} grammar:\n{definition}"))
}

/// A call's arguments as JSON, whatever kind of tool it calls.
pub fn arguments(call: &ToolCall) -> Cow<'_, str> {
    if call.custom {
        Cow::Owned(json!({ "input": call.arguments }).to_string())
    } else {
        Cow::Borrowed(&call.arguments)
    }
}

/// A call's arguments where they are an object, as most APIs want them.
pub fn object(call: &ToolCall) -> Option<Map<String, Value>> {
    match arguments(call).trim() {
        "" => Some(Map::new()),
        text => serde_json::from_str(text).ok(),
    }
}

/// The same for an API that is told of a call that was made: a conversation in which a model has
/// called a tool with broken arguments, cut short perhaps, has to go on. They are told as Anthropic
/// has them told.
pub fn input(call: &ToolCall) -> Map<String, Value> {
    let broken = || Map::from_iter([("INVALID_JSON".to_owned(), json!(call.arguments))]);
    object(call).unwrap_or_else(broken)
}

/// The question with functions in the place of its custom tools, and of their calls and results.
pub fn without(request: &ChatRequest) -> Cow<'_, ChatRequest> {
    let is_custom = |part: &Part| match &part.content {
        Content::ToolCall(call) => call.custom,
        Content::ToolResult(result) => result.custom,
        _ => false,
    };
    let said = request.messages.iter().any(|message| message.parts.iter().any(is_custom));
    if !said && names(request).is_empty() {
        return Cow::Borrowed(request);
    }
    let mut request = request.clone();
    for tool in &mut request.tools {
        if let Some(function) = as_function(tool) {
            *tool = function;
        }
    }
    for part in request.messages.iter_mut().flat_map(|message| &mut message.parts) {
        match &mut part.content {
            Content::ToolCall(call) if call.custom => {
                call.arguments = arguments(call).into_owned();
                call.custom = false;
            }
            Content::ToolResult(result) => result.custom = false,
            _ => {}
        }
    }
    Cow::Owned(request)
}

/// The text in `{"input": "…"}`; anything else as it is.
pub fn unwrap(arguments: &str) -> String {
    let mut text = String::new();
    let mut unwrapper = Unwrapper::default();
    unwrapper.feed(arguments, &mut text);
    unwrapper.finish(&mut text);
    text
}

fn names(request: &ChatRequest) -> HashSet<String> {
    let names = request.tools.iter().filter_map(|tool| match tool {
        Tool::Custom { name, .. } => Some(name.clone()),
        Tool::Function { .. } | Tool::Hosted(_) => None,
    });
    names.collect()
}

/// The answer with the calls of the question's custom tools as such, however the model made them.
pub fn restored<'a>(response: &'a ChatResponse, request: &ChatRequest) -> Cow<'a, ChatResponse> {
    let names = names(request);
    if names.is_empty() {
        return Cow::Borrowed(response);
    }
    let mut response = response.clone();
    for part in response.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
        if let Content::ToolCall(call) = &mut part.content
            && !call.custom
            && names.contains(&call.name)
        {
            call.arguments = unwrap(&call.arguments);
            call.custom = true;
        }
    }
    Cow::Owned(response)
}

/// `inner`, given the calls of the question's custom tools as such.
pub fn restoring(inner: impl WriteStream + 'static, request: &ChatRequest) -> Box<dyn WriteStream> {
    let names = names(request);
    if names.is_empty() {
        return Box::new(inner);
    }
    Box::new(Restoring { inner, names, open: BTreeMap::new() })
}

struct Restoring<W> {
    inner: W,
    /// The custom tools.
    names: HashSet<String>,
    /// Choices whose open part is such a call.
    open: BTreeMap<u32, Unwrapper>,
}

/// Takes the text out of `{"input": "…"}` as the JSON arrives.
#[derive(Debug, Default)]
pub struct Unwrapper {
    state: State,
    /// What is not decided yet: the beginning of the object, or of an escape.
    held: String,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text.
    #[default]
    Lead,
    Text,
    Escape,
    /// Past the text.
    Done,
    /// Not of the expected shape: kept until all of it is there.
    Other,
}

/// What stands before the text, white space aside.
const LEAD: &[&str] = &["{", "\"input\"", ":", "\""];

// === impl Restoring ===

impl<W: WriteStream> Restoring<W> {
    fn say(&mut self, choice: u32, text: String, out: &mut Vec<u8>) {
        if !text.is_empty() {
            let delta = Delta::Arguments(text);
            self.inner.write(&Event::Delta { choice, delta }, out);
        }
    }
}

impl<W: WriteStream> WriteStream for Restoring<W> {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Open { choice, part: Opening::ToolCall { id, name, custom: false } }
                if self.names.contains(name) =>
            {
                self.open.insert(*choice, Unwrapper::default());
                let part = Opening::ToolCall { id: id.clone(), name: name.clone(), custom: true };
                self.inner.write(&Event::Open { choice: *choice, part }, out);
                return;
            }
            Event::Delta { choice, delta: Delta::Arguments(more) } => {
                if let Some(unwrapper) = self.open.get_mut(choice) {
                    let mut text = String::new();
                    unwrapper.feed(more, &mut text);
                    self.say(*choice, text, out);
                    return;
                }
            }
            Event::Close { choice } => {
                if let Some(mut unwrapper) = self.open.remove(choice) {
                    let mut text = String::new();
                    unwrapper.finish(&mut text);
                    self.say(*choice, text, out);
                }
            }
            _ => {}
        }
        self.inner.write(event, out);
    }

    fn write_error(&self, error: &Error) -> Option<Vec<u8>> {
        self.inner.write_error(error)
    }
}

// === impl Unwrapper ===

impl Unwrapper {
    /// Appends to `out` what `arguments` adds to the text.
    pub fn feed(&mut self, arguments: &str, out: &mut String) {
        let rest = match self.state {
            State::Lead | State::Other => {
                self.held.push_str(arguments);
                match self.lead() {
                    Some(text) => text,
                    None => return,
                }
            }
            _ => arguments.to_owned(),
        };
        for character in rest.chars() {
            self.character(character, out);
        }
    }

    /// All has arrived.
    pub fn finish(&mut self, out: &mut String) {
        if !matches!(self.state, State::Lead | State::Other) {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let value: Option<Value> = serde_json::from_str(&held).ok();
        let text = value.as_ref().and_then(|value| value.get("input")).and_then(Value::as_str);
        out.push_str(text.unwrap_or(&held));
        self.state = State::Done;
    }

    /// Looks for the text's beginning in what is held; gives what stands behind it.
    fn lead(&mut self) -> Option<String> {
        if self.state == State::Other {
            return None;
        }
        let mut rest = self.held.as_str();
        for mark in LEAD {
            rest = rest.trim_ascii_start();
            match rest.strip_prefix(mark) {
                Some(behind) => rest = behind,
                None if mark.starts_with(rest) => return None,
                None => {
                    self.state = State::Other;
                    return None;
                }
            }
        }
        let rest = rest.to_owned();
        self.held.clear();
        self.state = State::Text;
        Some(rest)
    }

    fn character(&mut self, character: char, out: &mut String) {
        match (self.state, character) {
            (State::Text, '\\') => self.state = State::Escape,
            (State::Text, _) => {
                self.lone(out);
                if character == '"' {
                    self.state = State::Done;
                } else {
                    out.push(character);
                }
            }
            (State::Escape, _) => self.escape(character, out),
            _ => {}
        }
    }

    fn escape(&mut self, character: char, out: &mut String) {
        if self.held.is_empty() && character != 'u' {
            self.lone(out);
            out.push(match character {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                other => other,
            });
            self.state = State::Text;
            return;
        }
        self.held.push(character);
        if self.held.chars().count() < 5 {
            return;
        }
        let unit = self.held.get(1..).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.held.clear();
        self.state = State::Text;
        let unit = unit.unwrap_or(0xfffd);
        if (0xd800..0xdc00).contains(&unit) {
            self.lone(out);
            self.high = Some(unit);
            return;
        }
        let units = self.high.take().into_iter().chain([unit]);
        out.extend(char::decode_utf16(units).map(|found| found.unwrap_or('\u{fffd}')));
    }

    /// Half a pair without the other half is no character.
    fn lone(&mut self, out: &mut String) {
        out.extend(self.high.take().map(|_| '\u{fffd}'));
    }
}

#[cfg(test)]
mod tests;
