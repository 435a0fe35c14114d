//! Reads a question as Codex and OpenAI's libraries ask it.

use serde_json::{Map, Value};

use super::hosted::Hosted;
use super::item::{self, Bad, Read, call_id, rest, string};
use super::{content, tools};
use crate::canon::{
    ChatRequest, Content, Dialect, Effort, Extras, Format, Message, Opaque, Part, Role, Sampling,
    Thinking, ToolResult,
};
use crate::dialect::Misread;

/// A question's fields; each is taken out as it is understood, and what is left are the extras.
struct Fields(Map<String, Value>);

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Misread> {
    let mut fields = Fields(serde_json::from_slice(body)?);
    let mut request = ChatRequest {
        model: fields.text("model")?.unwrap_or_default(),
        stream: fields.flag("stream")?.unwrap_or_default(),
        include_usage: true,
        ..ChatRequest::default()
    };
    if let Some(instructions) = fields.text("instructions")? {
        request.messages.push(Message::new(Role::System, vec![Part::text(instructions)]));
    }
    let (input, more) = apart(fields.take("input"));
    read_input(input, &mut request.messages)?;
    request.tools = tools::read(&fields.take("tools").unwrap_or_default())?;
    for tools in more {
        tools::add(&mut request.tools, tools::read(&tools)?);
    }
    fields.read_choice(&mut request);
    fields.read_text(&mut request)?;
    fields.read_sampling(&mut request)?;
    request.reasoning = fields.read_reasoning()?;
    request.parallel_tool_calls = fields.flag("parallel_tool_calls")?;
    request.user = fields.text("safety_identifier")?;
    if request.user.is_none() {
        request.user = fields.text("user")?;
    }
    request.service_tier = fields.text("service_tier")?;
    request.cache_key = fields.text("prompt_cache_key")?;
    request.metadata = match fields.take("metadata") {
        Some(Value::Object(metadata)) => Some(metadata),
        None => None,
        Some(_) => return Err(wrong("metadata", "an object")),
    };
    request.extras = Extras { dialect: Some(Dialect::Responses), fields: fields.0 };
    Ok(request)
}

fn wrong(name: &str, kind: &str) -> Misread {
    Misread::new(format!("`{name}` must be {kind}."))
}

// === impl Fields ===

impl Fields {
    /// A field's value; null counts as none.
    fn take(&mut self, name: &str) -> Option<Value> {
        // Order matters to those who get the extras: they go on as they came.
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Misread> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, Misread> {
        self.take(name)
            .map(|value| value.as_bool().ok_or_else(|| wrong(name, "a boolean")))
            .transpose()
    }

    fn count(&mut self, name: &str) -> Result<Option<u64>, Misread> {
        let read = |value: Value| value.as_u64().ok_or_else(|| wrong(name, "a whole number"));
        self.take(name).map(read).transpose()
    }

    fn number(&mut self, name: &str) -> Result<Option<f64>, Misread> {
        self.take(name)
            .map(|value| value.as_f64().ok_or_else(|| wrong(name, "a number")))
            .transpose()
    }

    fn object(&mut self, name: &str) -> Result<Option<Self>, Misread> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Self(fields))),
            Some(_) => Err(wrong(name, "an object")),
        }
    }

    /// Keeps what is left of an object under its name.
    fn keep(&mut self, name: &str, left: Self) {
        if !left.0.is_empty() {
            self.0.insert(name.to_owned(), Value::Object(left.0));
        }
    }

    fn read_choice(&mut self, request: &mut ChatRequest) {
        let Some(value) = self.take("tool_choice") else { return };
        request.tool_choice = tools::read_choice(&value);
        if request.tool_choice.is_none() {
            self.0.insert("tool_choice".to_owned(), value);
        }
    }

    /// `text`: the answer's format and how wordy it is.
    fn read_text(&mut self, request: &mut ChatRequest) -> Result<(), Misread> {
        let Some(mut text) = self.object("text")? else { return Ok(()) };
        request.verbosity = text.text("verbosity")?;
        if let Some(format) = text.take("format") {
            request.format = read_format(&format)?;
        }
        self.keep("text", text);
        Ok(())
    }

    fn read_sampling(&mut self, request: &mut ChatRequest) -> Result<(), Misread> {
        request.sampling = Sampling {
            max_tokens: self.count("max_output_tokens")?,
            temperature: self.number("temperature")?,
            top_p: self.number("top_p")?,
            frequency_penalty: self.number("frequency_penalty")?,
            presence_penalty: self.number("presence_penalty")?,
            ..Sampling::default()
        };
        let alternatives = self.count("top_logprobs")?;
        let mut wanted = alternatives.is_some_and(|count| count > 0);
        if let Some(Value::Array(mut include)) = self.take("include") {
            wanted |= include.iter().any(|what| what == "message.output_text.logprobs");
            // Thoughts travel whether or not they are asked for.
            let known = ["message.output_text.logprobs", "reasoning.encrypted_content"];
            include.retain(|what| !what.as_str().is_some_and(|what| known.contains(&what)));
            if !include.is_empty() {
                self.0.insert("include".to_owned(), Value::Array(include));
            }
        }
        let alternatives = u32::try_from(alternatives.unwrap_or(0)).unwrap_or(u32::MAX);
        request.sampling.logprobs = wanted.then_some(alternatives);
        Ok(())
    }

    fn read_reasoning(&mut self) -> Result<Option<Thinking>, Misread> {
        let Some(mut reasoning) = self.object("reasoning")? else { return Ok(None) };
        let effort = match reasoning.text("effort")? {
            Some(name) => Some(Effort::parse(&name).ok_or_else(|| {
                Misread::new(format!("`reasoning.effort` is `{name}`, which is not known."))
            })?),
            None => None,
        };
        let older = reasoning.text("generate_summary")?;
        let summary = reasoning.text("summary")?.or(older).filter(|summary| summary != "none");
        let visible = summary.is_some().then_some(true);
        self.keep("reasoning", reasoning);
        let thinking = Thinking { effort, budget: None, visible, summary };
        Ok((thinking != Thinking::default()).then_some(thinking))
    }
}

fn read_format(format: &Value) -> Result<Format, Misread> {
    match string(format, "type") {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => Ok(Format::JsonSchema {
            name: string(format, "name").unwrap_or("answer").to_owned(),
            description: string(format, "description").map(str::to_owned),
            schema: format
                .get("schema")
                .filter(|schema| schema.is_object())
                .cloned()
                .ok_or_else(|| wrong("text.format.schema", "an object"))?,
            strict: format["strict"].as_bool(),
        }),
        _ => Err(wrong("text.format.type", "`text`, `json_object` or `json_schema`")),
    }
}

/// Codex brings tools as items of the conversation, where its models know them so. Others are given
/// them where they look for tools.
fn apart(input: Option<Value>) -> (Option<Value>, Vec<Value>) {
    let Some(Value::Array(items)) = input else { return (input, Vec::new()) };
    let brings = |item: &Value| item["type"] == "additional_tools";
    let (tools, items): (Vec<Value>, Vec<Value>) = items.into_iter().partition(brings);
    let tools = tools.into_iter().map(|mut item| item["tools"].take()).collect();
    (Some(Value::Array(items)), tools)
}

/// Reads `input`: a text, or items, each of which is joined to those of its speaker before it.
fn read_input(input: Option<Value>, messages: &mut Vec<Message>) -> Result<(), Misread> {
    let items = match input {
        None => return Ok(()),
        Some(Value::String(text)) => {
            messages.push(Message::new(Role::User, vec![Part::text(text)]));
            return Ok(());
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(wrong("input", "a string or a list of items")),
    };
    for (place, item) in items.iter().enumerate() {
        read_item(item, messages).map_err(|field| match field {
            UNRESOLVED => {
                Misread::new(format!("`input[{place}]` refers to an item that is not known."))
            }
            field => Misread::new(format!(
                "`input[{place}].{field}` is missing or of another type than it must be."
            )),
        })?;
    }
    Ok(())
}

const UNRESOLVED: Bad = "item_reference";

fn read_item(item: &Value, messages: &mut Vec<Message>) -> Result<(), Bad> {
    let kind = match item.get("type") {
        None | Some(Value::Null) => "message",
        Some(Value::String(kind)) => kind,
        Some(_) => return Err("type"),
    };
    let output = match kind {
        "item_reference" => return Err(UNRESOLVED),
        "message" => match string(item, "role").ok_or("role")? {
            "assistant" => None,
            role => {
                messages.push(Message::new(party(role)?, content::read(&item["content"])?));
                return Ok(());
            }
        },
        "function_call_output" | "custom_tool_call_output" => Some(None),
        kind => Hosted::of_output(kind).map(Some),
    };
    match output {
        Some(hosted) => add(messages, Role::Tool, vec![result(item, hosted)?]),
        None => match item::read(item)? {
            Read::Parts(parts) => add(messages, Role::Assistant, parts),
            Read::Belongs(opaque) => give_back(messages, opaque),
        },
    }
    Ok(())
}

fn party(role: &str) -> Result<Role, Bad> {
    match role {
        "user" => Ok(Role::User),
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        _ => Err("role"),
    }
}

fn add(messages: &mut Vec<Message>, role: Role, parts: Vec<Part>) {
    match messages.last_mut().filter(|last| last.role == role) {
        Some(last) => last.parts.extend(parts),
        None => messages.push(Message::new(role, parts)),
    }
}

/// State that this API could not keep in its place returns to the part that it came with.
fn give_back(messages: &mut [Message], opaque: Opaque) {
    let last = messages.iter_mut().rev().find(|message| message.role == Role::Assistant);
    if let Some(part) = last.and_then(|message| message.parts.last_mut()) {
        part.opaque = Some(opaque);
    }
}

const RESULT: &[&str] = &["type", "call_id", "output", "status", "name"];
const HOSTED_RESULT: &[&str] = &["call_id", "output", "status"];

fn result(item: &Value, hosted: Option<&Hosted>) -> Result<Part, Bad> {
    let output = &item["output"];
    let (parts, opaque) = match (hosted, output) {
        (None, _) => (content::read(output).map_err(|_| "output")?, rest(item, RESULT)),
        // A list of what each command printed; another model reads it as JSON.
        (Some(_), Value::Array(_) | Value::Object(_)) => {
            (vec![Part::text(output.to_string())], rest(item, HOSTED_RESULT))
        }
        (Some(_), _) => {
            let said = output.as_str().or_else(|| item["status"].as_str()).unwrap_or_default();
            (vec![Part::text(said)], rest(item, HOSTED_RESULT))
        }
    };
    let result = ToolResult {
        id: call_id(item)?,
        name: hosted.map(|hosted| hosted.name.to_owned()),
        parts,
        is_error: item["status"] == "failed",
        custom: item["type"] == "custom_tool_call_output",
    };
    Ok(Part { opaque, ..Part::new(Content::ToolResult(result)) })
}
