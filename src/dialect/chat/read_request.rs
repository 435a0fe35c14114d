//! Reads questions: everything but the messages.

use serde_json::{Map, Value};

use super::{media, read_message};
use crate::canon::{
    ChatRequest, Dialect, Effort, Extras, Foreign, Format, Sampling, Thinking, Tool, ToolChoice,
};
use crate::dialect::Misread;

/// The fields of a question that have not been read yet.
pub(in crate::dialect) struct Fields(pub Map<String, Value>);

pub(super) fn read(body: &[u8]) -> Result<ChatRequest, Misread> {
    let mut fields = Fields(serde_json::from_slice(body)?);
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err(Misread::new("`messages` must be an array.")),
        None => return Err(Misread::new("`messages` must be given.")),
    };
    let mut request = ChatRequest {
        model: fields.string("model")?.unwrap_or_default(),
        stream: fields.boolean("stream")?.unwrap_or_default(),
        messages: read_message::read_all(&messages)?,
        tools: read_tools(&mut fields)?,
        tool_choice: read_choice(&mut fields)?,
        parallel_tool_calls: fields.boolean("parallel_tool_calls")?,
        format: read_format(&mut fields)?,
        sampling: read_sampling(&mut fields)?,
        reasoning: read_thinking(&mut fields)?,
        verbosity: fields.string("verbosity")?,
        audio: fields.take("audio"),
        user: fields.string("user")?,
        metadata: fields.object("metadata")?,
        service_tier: fields.string("service_tier")?,
        cache_key: fields.string("prompt_cache_key")?,
        prefix: read_prefix(&messages),
        ..ChatRequest::default()
    };
    if let Some(options) = fields.take("stream_options") {
        request.include_usage = options["include_usage"] == true;
        if let Value::Object(mut options) = options {
            options.shift_remove("include_usage");
            if !options.is_empty() {
                fields.0.insert("stream_options".into(), Value::Object(options));
            }
        }
    }
    drop_implied(&mut fields, request.audio.is_some());
    request.extras = Extras { dialect: Some(Dialect::Chat), fields: fields.0 };
    Ok(request)
}

/// By which word a client says that its last message is to be carried on.
fn read_prefix(messages: &[Value]) -> Option<String> {
    let last = messages.last().filter(|last| last["role"] == "assistant")?;
    ["prefix", "partial"].into_iter().find(|name| last[name] == true).map(str::to_owned)
}

/// `modalities` says nothing that `audio` does not, unless images are wanted.
fn drop_implied(fields: &mut Fields, spoken: bool) {
    fields.0.retain(|_, value| !value.is_null());
    let is_implied = |value: &Value| {
        value.as_array().is_some_and(|list| {
            list.iter().all(|name| name == "text" || (spoken && name == "audio"))
        })
    };
    if fields.0.get("modalities").is_some_and(is_implied) {
        fields.take("modalities");
    }
}

// === impl Fields ===

impl Fields {
    /// The field's value; null is none.
    pub(in crate::dialect) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, Misread> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wrong = || Misread::new(format!("`{name}` must be {kind}."));
        read(&value).map(Some).ok_or_else(wrong)
    }

    pub(in crate::dialect) fn string(&mut self, name: &str) -> Result<Option<String>, Misread> {
        self.typed(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(in crate::dialect) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Misread> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(in crate::dialect) fn number(&mut self, name: &str) -> Result<Option<f64>, Misread> {
        self.typed(name, "a number", Value::as_f64)
    }

    /// A whole number; some clients write 100 as 100.0.
    pub(in crate::dialect) fn count(&mut self, name: &str) -> Result<Option<u64>, Misread> {
        self.typed(name, "a whole number", read_count)
    }

    fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Misread> {
        self.typed(name, "an object", |value| value.as_object().cloned())
    }

    fn list(&mut self, name: &str) -> Result<Vec<Value>, Misread> {
        let list = self.typed(name, "an array", |value| value.as_array().cloned())?;
        Ok(list.unwrap_or_default())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
fn read_count(value: &Value) -> Option<u64> {
    let whole = |number: f64| number.fract() == 0.0 && (0.0..9e15).contains(&number);
    value.as_u64().or_else(|| value.as_f64().filter(|n| whole(*n)).map(|number| number as u64))
}

fn read_tools(fields: &mut Fields) -> Result<Vec<Tool>, Misread> {
    let mut tools = Vec::new();
    for (index, tool) in fields.list("tools")?.into_iter().enumerate() {
        let lacks = |name: &str| Misread::new(format!("`tools[{index}].{name}` must be given."));
        // Mistral's clients leave the type out.
        let default = tool["function"].is_object().then_some("function");
        match tool["type"].as_str().or(default).ok_or_else(|| lacks("type"))? {
            "function" => {
                let read = read_function(&tool["function"], media::read_mark(&tool));
                tools.push(read.ok_or_else(|| lacks("function.name"))?);
            }
            "custom" if tool["custom"].is_object() => {
                let custom = &tool["custom"];
                let text = |name: &str| custom[name].as_str().map(str::to_owned);
                tools.push(Tool::Custom {
                    name: text("name").ok_or_else(|| lacks("custom.name"))?,
                    description: text("description"),
                    format: custom.get("format").cloned(),
                });
            }
            _ => tools.push(Tool::Hosted(Foreign { dialect: Dialect::Chat, value: tool })),
        }
    }
    // The field's name before there were other tools than functions.
    for (index, function) in fields.list("functions")?.iter().enumerate() {
        let lacks = || Misread::new(format!("`functions[{index}].name` must be given."));
        tools.push(read_function(function, None).ok_or_else(lacks)?);
    }
    Ok(tools)
}

fn read_function(function: &Value, cache: Option<crate::canon::CacheMark>) -> Option<Tool> {
    Some(Tool::Function {
        name: function["name"].as_str()?.to_owned(),
        description: function["description"].as_str().map(str::to_owned),
        schema: function.get("parameters").filter(|schema| !schema.is_null()).cloned(),
        strict: function["strict"].as_bool(),
        cache,
    })
}

fn read_choice(fields: &mut Fields) -> Result<Option<ToolChoice>, Misread> {
    let legacy = fields.take("function_call");
    let Some(choice) = fields.take("tool_choice").or(legacy) else { return Ok(None) };
    let allowed = &choice["allowed_tools"];
    let named = [&choice["function"]["name"], &choice["custom"]["name"], &choice["name"]];
    let named = named.into_iter().find_map(Value::as_str);
    let read = match (choice.as_str(), named) {
        (Some("auto"), _) => Some(ToolChoice::Auto),
        (Some("none"), _) => Some(ToolChoice::None),
        (Some("required" | "any"), _) => Some(ToolChoice::Required),
        (None, Some(name)) => Some(ToolChoice::Named(name.to_owned())),
        (None, None) if allowed.is_object() => Some(ToolChoice::Among {
            names: allowed["tools"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(tool_name)
                .collect(),
            required: allowed["mode"] == "required",
        }),
        _ => None,
    };
    let wrong = || Misread::new("`tool_choice` must be `auto`, `none`, `required` or name a tool.");
    read.map(Some).ok_or_else(wrong)
}

fn tool_name(tool: &Value) -> Option<String> {
    let names = [&tool["function"]["name"], &tool["custom"]["name"], &tool["name"]];
    names.into_iter().find_map(Value::as_str).map(str::to_owned)
}

fn read_format(fields: &mut Fields) -> Result<Format, Misread> {
    let Some(format) = fields.take("response_format") else { return Ok(Format::Text) };
    match format["type"].as_str() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => {
            let inner = &format["json_schema"];
            let schema = inner.get("schema").filter(|schema| schema.is_object());
            let lacks = || Misread::new("`response_format.json_schema.schema` must be given.");
            Ok(Format::JsonSchema {
                name: inner["name"].as_str().unwrap_or("answer").to_owned(),
                description: inner["description"].as_str().map(str::to_owned),
                schema: schema.cloned().ok_or_else(lacks)?,
                strict: inner["strict"].as_bool(),
            })
        }
        // A grammar and the like: one server's own.
        Some(_) => {
            fields.0.insert("response_format".into(), format);
            Ok(Format::Text)
        }
        None => Err(Misread::new("`response_format.type` must be a string.")),
    }
}

fn read_sampling(fields: &mut Fields) -> Result<Sampling, Misread> {
    // Both may be given; the newer name wins, as it does at OpenAI.
    let old = fields.count("max_tokens")?;
    let max_tokens = fields.count("max_completion_tokens")?.or(old);
    let wanted = fields.boolean("logprobs")?.unwrap_or_default();
    let top = fields.count("top_logprobs")?.unwrap_or_default();
    let mistral = fields.typed("random_seed", "a whole number", Value::as_i64)?;
    Ok(Sampling {
        max_tokens,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.count("top_k")?,
        stop: fields
            .typed("stop", "a string or an array of strings", read_stop)?
            .unwrap_or_default(),
        seed: fields.typed("seed", "a whole number", Value::as_i64)?.or(mistral),
        frequency_penalty: fields.number("frequency_penalty")?,
        presence_penalty: fields.number("presence_penalty")?,
        choices: fields.count("n")?.and_then(|count| u32::try_from(count).ok()),
        logprobs: wanted.then(|| u32::try_from(top).unwrap_or(u32::MAX)),
        logit_bias: fields.object("logit_bias")?,
    })
}

pub(in crate::dialect) fn read_stop(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// How much to think, in any of the ways that servers of this dialect have.
fn read_thinking(fields: &mut Fields) -> Result<Option<Thinking>, Misread> {
    let unknown = |name: &str| Misread::new(format!("`{name}` is no effort that is known."));
    let mut thinking = Thinking::default();
    let mut said = false;
    if let Some(thought) = fields.object("thinking")? {
        said = true;
        match thought.get("type").and_then(Value::as_str) {
            Some("disabled") => thinking.effort = Some(Effort::None),
            _ => thinking.budget = thought.get("budget_tokens").and_then(read_count),
        }
    }
    if let Some(enabled) = fields.boolean("enable_thinking")? {
        said = true;
        thinking.effort = (!enabled).then_some(Effort::None);
    }
    if let Some(budget) = fields.count("thinking_budget")? {
        said = true;
        thinking.budget = Some(budget);
    }
    if let Some(reasoning) = fields.object("reasoning")? {
        said = true;
        let field = |name: &str| reasoning.get(name).filter(|value| !value.is_null());
        if let Some(effort) = field("effort") {
            let effort = effort.as_str().and_then(Effort::parse);
            thinking.effort = Some(effort.ok_or_else(|| unknown("reasoning.effort"))?);
        } else if field("enabled") == Some(&Value::Bool(false)) {
            thinking.effort = Some(Effort::None);
        }
        thinking.budget = field("max_tokens").and_then(read_count).or(thinking.budget);
        thinking.visible = field("exclude").and_then(Value::as_bool).map(|exclude| !exclude);
        thinking.summary = field("summary").and_then(Value::as_str).map(str::to_owned);
    }
    if let Some(effort) = fields.string("reasoning_effort")? {
        said = true;
        thinking.effort = Some(Effort::parse(&effort).ok_or_else(|| unknown("reasoning_effort"))?);
    }
    Ok(said.then_some(thinking))
}
