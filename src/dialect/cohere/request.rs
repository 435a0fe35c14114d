//! Writes questions for Cohere.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::PLAN;
use crate::canon::{
    ChatRequest, Content, Dialect, Effort, Format, Media, MediaKind, Message, Part, Role, Source,
    Tool, ToolCall, ToolChoice, ToolResult,
};
use crate::dialect::{Aim, Inexpressible, Written, schema};

/// Fields of Cohere itself that a client of any dialect may state.
const OWN: [&str; 5] =
    ["documents", "citation_options", "safety_mode", "priority", "raw_prompting"];

/// Cohere's models that cannot be asked to think; any other is taken to be able to.
const THOUGHTLESS: [&str; 6] = [
    "command-r",
    "command-a-0",
    "command-a-vision",
    "command-a-translate",
    "c4ai",
    "command-light",
];

/// More than this is out of range, and so is exactly 1.
const MOST_TOP_P: f64 = 0.99;

/// A question on its way into Cohere's words.
struct Draft<'a> {
    request: &'a ChatRequest,
    thinks: bool,
    messages: Vec<Value>,
    /// Documents stand beside the conversation, not in it.
    documents: Vec<Value>,
    dropped: Vec<Cow<'static, str>>,
}

pub(super) fn write(request: &ChatRequest, aim: &Aim<'_>) -> Result<Written, Inexpressible> {
    let thinks = !THOUGHTLESS.iter().any(|name| aim.model.contains(name));
    let (messages, documents) = (Vec::new(), Vec::new());
    let mut draft = Draft { request, thinks, messages, documents, dropped: Vec::new() };
    for (place, message) in request.messages.iter().enumerate() {
        draft.message(message, &format!("messages[{place}]"))?;
    }
    let mut body = Map::new();
    body.insert("model".into(), json!(aim.model));
    body.insert("stream".into(), json!(request.stream));
    draft.tools(&mut body)?;
    draft.extras(&mut body);
    draft.format(&mut body)?;
    if !draft.documents.is_empty() {
        let mut documents = std::mem::take(&mut draft.documents);
        let given = body.get_mut("documents").and_then(Value::as_array_mut).map(std::mem::take);
        documents.splice(..0, given.unwrap_or_default());
        body.insert("documents".into(), Value::Array(documents));
    }
    body.insert("messages".into(), Value::Array(std::mem::take(&mut draft.messages)));
    draft.sampling(&mut body);
    draft.thinking(&mut body);
    draft.rest();
    let body = Value::Object(body).to_string().into_bytes();
    Ok(Written { body, dropped: draft.dropped })
}

// === impl Draft ===

impl Draft<'_> {
    fn drop(&mut self, name: &'static str) {
        self.drop_named(Cow::Borrowed(name));
    }

    fn drop_named(&mut self, name: Cow<'static, str>) {
        if !self.dropped.contains(&name) {
            self.dropped.push(name);
        }
    }

    fn drop_if(&mut self, given: bool, name: &'static str) {
        if given {
            self.drop(name);
        }
    }

    fn message(&mut self, message: &Message, path: &str) -> Result<(), Inexpressible> {
        self.drop_if(message.name.is_some(), "name");
        self.drop_if(message.parts.iter().any(|part| part.cache.is_some()), "cache_control");
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
                    let kind = block.value.get("type").and_then(Value::as_str).unwrap_or("block");
                    self.drop_named(kind.to_owned().into());
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
                Content::ToolCall(call) => calls.push(write_call(call, path)?),
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
        self.drop_if(marked, "cache_control");
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

    fn tools(&mut self, body: &mut Map<String, Value>) -> Result<(), Inexpressible> {
        let (only, choice) = match &self.request.tool_choice {
            None | Some(ToolChoice::Auto) => (None, None),
            Some(ToolChoice::None) => (None, Some("NONE")),
            Some(ToolChoice::Required) => (None, Some("REQUIRED")),
            // One tool of several cannot be named, but the others can be left out.
            Some(ToolChoice::Named(name)) => (Some(vec![name]), Some("REQUIRED")),
            Some(ToolChoice::Among { names, required }) => {
                (Some(names.iter().collect()), required.then_some("REQUIRED"))
            }
        };
        let allowed = |name: &String| only.as_ref().is_none_or(|only| only.contains(&name));
        let (mut tools, mut strict) = (Vec::new(), 0);
        for tool in &self.request.tools {
            match tool {
                Tool::Function { name, description, schema, strict: exact, cache }
                    if allowed(name) =>
                {
                    self.drop_if(cache.is_some(), "cache_control");
                    let exact = *exact == Some(true);
                    strict += usize::from(exact);
                    let schema = self.parameters(name, schema.as_ref(), exact)?;
                    tools.push(write_tool(name, description.as_deref(), schema));
                }
                Tool::Function { .. } => {}
                Tool::Custom { .. } => self.drop("custom"),
                Tool::Hosted(foreign) => {
                    let kind = foreign.value.get("type").and_then(Value::as_str);
                    self.drop_named(kind.unwrap_or("tools").to_owned().into());
                }
            }
        }
        if tools.is_empty() {
            return Ok(());
        }
        // Cohere has one switch for all.
        if strict == tools.len() {
            body.insert("strict_tools".into(), json!(true));
        } else {
            self.drop_if(strict > 0, "strict");
        }
        body.insert("tools".into(), Value::Array(tools));
        body.extend(choice.map(|choice| ("tool_choice".to_owned(), json!(choice))));
        self.drop_if(self.request.parallel_tool_calls == Some(false), "parallel_tool_calls");
        Ok(())
    }

    fn parameters(
        &mut self,
        tool: &str,
        schema: Option<&Value>,
        exact: bool,
    ) -> Result<Value, Inexpressible> {
        match schema {
            None => Ok(json!({ "type": "object", "properties": {} })),
            Some(schema) if exact => self.schema(schema, &format!("tools.{tool}")),
            Some(schema) => Ok(schema.clone()),
        }
    }

    /// A schema in the words that Cohere enforces; what it cannot is named.
    fn schema(&mut self, schema: &Value, owner: &str) -> Result<Value, Inexpressible> {
        let compiled = schema::compile(schema, &schema::COHERE)
            .map_err(|why| Inexpressible(format!("in `{owner}`, {why}").into()))?;
        for pointer in compiled.lost {
            self.drop_named(format!("{owner}{pointer}").into());
        }
        Ok(compiled.schema)
    }

    fn format(&mut self, body: &mut Map<String, Value>) -> Result<(), Inexpressible> {
        let format = match &self.request.format {
            Format::Text => return Ok(()),
            // Cohere refuses a format beside tools or documents.
            _ if ["tools", "documents"].iter().any(|name| body.contains_key(*name))
                || !self.documents.is_empty() =>
            {
                self.drop("response_format");
                return Ok(());
            }
            Format::JsonObject => json!({ "type": "json_object" }),
            Format::JsonSchema { schema, .. } => {
                let schema = self.schema(schema, "response_format")?;
                json!({ "type": "json_object", "json_schema": schema })
            }
        };
        body.insert("response_format".into(), format);
        Ok(())
    }

    fn extras(&mut self, body: &mut Map<String, Value>) {
        let extras = &self.request.extras;
        let own = extras.dialect == Some(Dialect::Cohere);
        for (name, value) in &extras.fields {
            if own || OWN.contains(&name.as_str()) {
                body.insert(name.clone(), value.clone());
            } else {
                self.drop_named(name.clone().into());
            }
        }
    }

    fn sampling(&mut self, body: &mut Map<String, Value>) {
        let said = &self.request.sampling;
        let mut put = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("max_tokens", said.max_tokens.map(|tokens| json!(tokens)));
        put("temperature", said.temperature.map(|it| json!(it.clamp(0.0, 1.0))));
        put("p", said.top_p.map(|it| json!(it.min(MOST_TOP_P))));
        put("k", said.top_k.map(|it| json!(it)));
        put("stop_sequences", (!said.stop.is_empty()).then(|| json!(said.stop)));
        put("seed", said.seed.filter(|seed| *seed >= 0).map(|seed| json!(seed)));
        for (name, penalty) in [
            ("frequency_penalty", said.frequency_penalty),
            ("presence_penalty", said.presence_penalty),
        ] {
            put(name, penalty.map(|it| json!(it.clamp(0.0, 1.0))));
            self.drop_if(penalty.is_some_and(|it| !(0.0..=1.0).contains(&it)), name);
        }
        put("logprobs", said.logprobs.map(|_| json!(true)));
        self.drop_if(said.temperature.is_some_and(|it| it > 1.0), "temperature");
        self.drop_if(said.seed.is_some_and(|seed| seed < 0), "seed");
        self.drop_if(said.logprobs.is_some_and(|most| most > 0), "top_logprobs");
        self.drop_if(said.choices.is_some_and(|choices| choices > 1), "n");
        self.drop_if(said.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()), "logit_bias");
    }

    fn thinking(&mut self, body: &mut Map<String, Value>) {
        let Some(asked) = &self.request.reasoning else { return };
        let budget = asked.budget.or_else(|| asked.effort.map(Effort::budget));
        let Some(budget) = budget else { return };
        if !self.thinks {
            return self.drop_if(budget > 0, "reasoning_effort");
        }
        let thinking = if budget == 0 {
            json!({ "type": "disabled" })
        } else {
            json!({ "type": "enabled", "token_budget": budget })
        };
        body.insert("thinking".into(), thinking);
    }

    fn rest(&mut self) {
        let request = self.request;
        let tier = request.service_tier.as_deref();
        self.drop_if(tier.is_some_and(|tier| tier != "auto" && tier != "default"), "service_tier");
        self.drop_if(request.user.is_some(), "user");
        self.drop_if(request.metadata.is_some(), "metadata");
        self.drop_if(request.verbosity.is_some(), "verbosity");
        self.drop_if(request.audio.is_some(), "audio");
        self.drop_if(request.cache_key.is_some(), "prompt_cache_key");
    }
}

fn image(url: &str, medium: &Media) -> Value {
    let mut image = json!({ "url": url });
    if let Some(detail) = &medium.detail {
        image["detail"] = json!(detail);
    }
    json!({ "type": "image_url", "image_url": image })
}

fn write_call(call: &ToolCall, path: &str) -> Result<Value, Inexpressible> {
    let arguments = match call.arguments.trim() {
        text if call.custom => json!({ "input": text }).to_string(),
        "" => "{}".to_owned(),
        text if serde_json::from_str::<Map<String, Value>>(text).is_ok() => call.arguments.clone(),
        _ => {
            let id = &call.id;
            let why = format!("`{path}`: the arguments of tool call `{id}` are not a JSON object.");
            return Err(Inexpressible(why.into()));
        }
    };
    let function = json!({ "name": call.name, "arguments": arguments });
    Ok(json!({ "id": call.id, "type": "function", "function": function }))
}

fn write_tool(name: &str, description: Option<&str>, schema: Value) -> Value {
    let mut function = json!({ "name": name });
    if let Some(text) = description {
        function["description"] = json!(text);
    }
    function["parameters"] = schema;
    json!({ "type": "function", "function": function })
}
