//! Reads a question.

use serde_json::{Map, Value};

use super::TOOL_FIELD;
use crate::canon::{
    ChatRequest, Content, Dialect, Effort, Extras, Foreign, Format, Message, Role, Sampling,
    Thinking, Tool, ToolChoice,
};
use crate::dialect::messages::block::{read_content, read_mark};
use crate::dialect::messages::fields::Fields;
use crate::dialect::{Misread, turns};

pub(in crate::dialect::messages) fn read(body: &[u8]) -> Result<ChatRequest, Misread> {
    let mut fields = Fields::new(serde_json::from_slice(body)?, "")?;
    let mut request = ChatRequest {
        model: fields.text("model")?.unwrap_or_default(),
        stream: fields.flag("stream")?.unwrap_or(false),
        // Every stream of this dialect ends with its usage.
        include_usage: true,
        sampling: read_sampling(&mut fields)?,
        ..ChatRequest::default()
    };
    if let Some(system) = fields.take("system") {
        let parts = read_content(system, "system")?;
        request.messages.push(Message::new(Role::System, parts));
    }
    if !fields.has("messages") {
        return Err(Misread::new("`messages` is missing."));
    }
    for (place, message) in fields.list("messages")?.into_iter().enumerate() {
        read_message(message, place, &mut request.messages)?;
    }
    request.messages = turns::join(request.messages);
    let tool_fields = read_tools(&mut fields, &mut request)?;
    if let Some(choice) = fields.object("tool_choice")? {
        read_choice(choice, &mut request)?;
    }
    request.reasoning = read_thinking(&mut fields)?;
    let config = read_output_config(&mut fields, &mut request)?;
    read_metadata(&mut fields, &mut request)?;
    request.service_tier = fields.text("service_tier")?.map(|tier| match tier.as_str() {
        "standard_only" => "default".to_owned(),
        _ => tier,
    });
    let mut rest = fields.rest();
    // What versions the body's own dialect is the target's to say.
    rest.shift_remove("anthropic_version");
    if !config.is_empty() {
        rest.insert("output_config".to_owned(), Value::Object(config));
    }
    rest.extend(tool_fields);
    request.extras = Extras { dialect: Some(Dialect::Messages), fields: rest };
    Ok(request)
}

fn read_sampling(fields: &mut Fields) -> Result<Sampling, Misread> {
    let texts = fields.list("stop_sequences")?;
    let stop: Option<Vec<String>> =
        texts.into_iter().map(|stop| stop.as_str().map(str::to_owned)).collect();
    Ok(Sampling {
        max_tokens: fields.count("max_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.count("top_k")?,
        stop: stop.ok_or_else(|| fields.wrong("stop_sequences", "a list of strings"))?,
        ..Sampling::default()
    })
}

/// A user's message may hold tool results beside other blocks: those are messages of their own.
fn read_message(message: Value, place: usize, messages: &mut Vec<Message>) -> Result<(), Misread> {
    let mut fields = Fields::new(message, format!("messages[{place}]"))?;
    let role = match fields.required_text("role")?.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(fields.wrong("role", "`user`, `assistant` or `system`")),
    };
    let path = fields.path("content");
    let Some(content) = fields.take("content") else {
        return Err(Misread::new(format!("`{path}` is missing.")));
    };
    let parts = read_content(content, &path)?;
    if role != Role::User || parts.is_empty() {
        messages.push(Message::new(role, parts));
        return Ok(());
    }
    let start = messages.len();
    for part in parts {
        let role = match part.content {
            Content::ToolResult(_) => Role::Tool,
            _ => Role::User,
        };
        match messages.get_mut(start..).and_then(<[Message]>::last_mut) {
            Some(last) if last.role == role => last.parts.push(part),
            _ => messages.push(Message::new(role, vec![part])),
        }
    }
    Ok(())
}

/// A tool of the client's, and its fields that only this API has; one that the API defines stays
/// as it is.
fn read_tool(tool: Value, path: &str) -> Result<(Tool, Map<String, Value>), Misread> {
    let kind = tool.get("type").filter(|kind| !kind.is_null());
    if tool.is_object() && kind.is_some_and(|kind| kind != "custom") {
        let hosted = Foreign { dialect: Dialect::Messages, value: tool };
        return Ok((Tool::Hosted(hosted), Map::new()));
    }
    let mut fields = Fields::new(tool, path)?;
    fields.take("type");
    let tool = Tool::Function {
        name: fields.required_text("name")?,
        description: fields.text("description")?,
        schema: fields.take("input_schema"),
        strict: fields.flag("strict")?,
        cache: read_mark(&mut fields),
    };
    Ok((tool, fields.rest()))
}

/// Reads the tools. Their own fields go among the extras, as `tools.FIELD`, by the tools' names:
/// so each tool is one that every API has, and a target that lacks a field can name it.
fn read_tools(
    fields: &mut Fields,
    request: &mut ChatRequest,
) -> Result<Map<String, Value>, Misread> {
    let mut extras = Map::new();
    for (place, tool) in fields.list("tools")?.into_iter().enumerate() {
        let (tool, rest) = read_tool(tool, &format!("tools[{place}]"))?;
        let name = if let Tool::Function { name, .. } = &tool { name.as_str() } else { "" };
        for (field, value) in rest {
            let values = extras.entry(format!("{TOOL_FIELD}{field}"));
            values.or_insert_with(|| Value::Object(Map::new()))[name] = value;
        }
        request.tools.push(tool);
    }
    Ok(extras)
}

fn read_choice(mut fields: Fields, request: &mut ChatRequest) -> Result<(), Misread> {
    request.tool_choice = Some(match fields.required_text("type")?.as_str() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Required,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(fields.required_text("name")?),
        _ => return Err(fields.wrong("type", "`auto`, `any`, `tool` or `none`")),
    });
    request.parallel_tool_calls = fields.flag("disable_parallel_tool_use")?.map(|off| !off);
    Ok(())
}

/// A kind of thinking that has no common meaning stays as it is.
fn read_thinking(fields: &mut Fields) -> Result<Option<Thinking>, Misread> {
    let Some(value) = fields.take("thinking") else { return Ok(None) };
    let mut thinking = Fields::new(value.clone(), "thinking")?;
    let mut read = Thinking::default();
    match thinking.required_text("type")?.as_str() {
        "enabled" => read.budget = thinking.count("budget_tokens")?,
        "adaptive" => {}
        "disabled" => read.effort = Some(Effort::None),
        _ => {
            fields.put("thinking", value);
            return Ok(None);
        }
    }
    read.visible = match thinking.text("display")?.as_deref() {
        Some("summarized") => Some(true),
        Some("omitted") => Some(false),
        _ => None,
    };
    Ok(Some(read))
}

/// Effort and format; gives back what else the object holds.
fn read_output_config(
    fields: &mut Fields,
    request: &mut ChatRequest,
) -> Result<Map<String, Value>, Misread> {
    let mut format = fields.object("output_format")?;
    let mut rest = Map::new();
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(effort) = config.text("effort")? {
            // Where thinking is off, effort is said of all else, which no other API has a word for.
            let off = request.reasoning.as_ref().is_some_and(|asked| asked.effort.is_some());
            match Effort::parse(&effort).filter(|_| !off) {
                known @ Some(_) => request.reasoning.get_or_insert_default().effort = known,
                None => config.put("effort", Value::String(effort)),
            }
        }
        format = config.object("format")?.or(format);
        rest = config.rest();
    }
    if let Some(mut format) = format {
        let Some(schema) = format.take("schema") else {
            return Err(format.wrong("schema", "a JSON schema"));
        };
        let name = "answer".to_owned();
        let strict = Some(true);
        request.format = Format::JsonSchema { name, description: None, schema, strict };
    }
    Ok(rest)
}

fn read_metadata(fields: &mut Fields, request: &mut ChatRequest) -> Result<(), Misread> {
    let Some(mut metadata) = fields.object("metadata")? else { return Ok(()) };
    request.user = metadata.text("user_id")?;
    let rest = metadata.rest();
    request.metadata = (!rest.is_empty()).then_some(rest);
    Ok(())
}
