//! Anthropic's Messages API, at its own address and at Google's.

use serde_json::{Map, Value, json};

use super::model::{self, FRESH, Prompt, READ, Reply, WHOLE, WRITTEN, seal};
use super::shape::{self, Shape, each, find_schema, text};
use super::{Answer, Refusal, Request, Vendor, demand, pydantic};

/// Claude's signatures are the same on every platform.
pub(super) const FAMILY: &str = "claude";
const REDACTED: &str = "redacted";

const REQUEST: Shape = &[
    ("model", "string"),
    ("anthropic_version", "string"),
    ("max_tokens", "!integer"),
    ("messages", "!array"),
    ("system", "string|array"),
    ("stream", "boolean"),
    ("temperature", "number"),
    ("top_p", "number"),
    ("top_k", "integer"),
    ("stop_sequences", "array"),
    ("tools", "array"),
    ("tool_choice", "object"),
    ("thinking", "object"),
    ("metadata", "object"),
    ("output_config", "object"),
    ("service_tier", "string"),
    ("cache_control", "object|null"),
    ("container", "string|object|null"),
    ("context_management", "object|null"),
    ("mcp_servers", "array"),
    ("inference_geo", "string|null"),
];
const MESSAGE: Shape = &[("role", "!string"), ("content", "!string|array")];
const CACHE: (&str, &str) = ("cache_control", "object|null");
const BLOCKS: &[(&str, Shape)] = &[
    ("text", &[("type", "!string"), ("text", "!string"), ("citations", "array|null"), CACHE]),
    ("image", &[("type", "!string"), ("source", "!object"), CACHE]),
    (
        "document",
        &[
            ("type", "!string"),
            ("source", "!object"),
            ("title", "string|null"),
            ("context", "string|null"),
            ("citations", "object|null"),
            CACHE,
        ],
    ),
    ("thinking", &[("type", "!string"), ("thinking", "!string"), ("signature", "!string")]),
    ("redacted_thinking", &[("type", "!string"), ("data", "!string")]),
    (
        "tool_use",
        &[
            ("type", "!string"),
            ("id", "!string"),
            ("name", "!string"),
            ("input", "!object"),
            ("caller", "object"),
            CACHE,
        ],
    ),
    (
        "tool_result",
        &[
            ("type", "!string"),
            ("tool_use_id", "!string"),
            ("content", "string|array"),
            ("is_error", "boolean"),
            CACHE,
        ],
    ),
];
const TOOL: Shape = &[
    ("name", "!string"),
    ("type", "string|null"),
    ("description", "string"),
    ("input_schema", "!object"),
    ("strict", "boolean"),
    ("eager_input_streaming", "boolean|null"),
    ("defer_loading", "boolean"),
    ("input_examples", "array"),
    CACHE,
];

pub(super) fn answer(vendor: Vendor, request: &Request, body: &Value) -> Result<Answer, Refusal> {
    shape::object(body, "", REQUEST, false).map_err(|fault| pydantic(&fault))?;
    let on_vertex = vendor == Vendor::Vertex;
    if on_vertex {
        // The versions that the docs and the newest SDK name.
        let known = ["vertex-2023-10-16", "2026-10-21"].contains(&text(body, "anthropic_version"));
        demand(known, "anthropic_version: Input should be 'vertex-2023-10-16'")?;
        demand(body["model"].is_null(), "model: Extra inputs are not permitted")?;
    } else {
        demand(body["model"].is_string(), "model: Field required")?;
        demand(
            body["anthropic_version"].is_null(),
            "anthropic_version: Extra inputs are not permitted",
        )?;
        let version = vendor != Vendor::Anthropic || request.header("anthropic-version").is_some();
        demand(version, "anthropic-version: header is required")?;
        let key = request.header("x-api-key").or_else(|| request.header("authorization")).is_some();
        let refused = || Refusal::new(401, "x-api-key header is required");
        key.then_some(()).ok_or_else(refused)?;
    }
    check_settings(body)?;
    let tools = check_tools(body)?;
    let mut prompt = read(body)?;
    prompt.tools = tools;
    let path = request.path.split(['/', ':']).rev().nth(1).unwrap_or_default();
    prompt.model = body["model"].as_str().unwrap_or(path).to_owned();
    if on_vertex {
        prompt.stream = request.path.contains(":streamRawPredict");
    }
    let reply = prompt.answer();
    let redacted = prompt.asked.contains("redacted");
    let content = content(&reply, redacted);
    let message = json!({
        "id": reply.id("msg_01", WHOLE), "type": "message", "role": "assistant", "model": prompt.model,
        "content": content, "stop_reason": stop_reason(&reply), "stop_sequence": null,
        "usage": usage(&reply),
    });
    Ok(if prompt.stream { stream(message) } else { Answer::Whole(message) })
}

fn check_settings(body: &Value) -> Result<(), Refusal> {
    let limit = body["max_tokens"].as_u64().unwrap_or_default();
    demand(limit >= 1, "max_tokens: Input should be greater than or equal to 1")?;
    if let Some(format) = body.pointer("/output_config/format") {
        demand(
            text(format, "type") == "json_schema",
            "output_config.format.type: Input should be 'json_schema'",
        )?;
        demand(format["schema"].is_object(), "output_config.format.schema: Field required")?;
        check_schema(&format["schema"], "output_config.format.schema")?;
    }
    let thinking = &body["thinking"];
    match text(thinking, "type") {
        "" | "disabled" => return Ok(()),
        "adaptive" => {}
        "enabled" => {
            let budget = thinking["budget_tokens"].as_u64().unwrap_or_default();
            demand(
                budget >= 1024,
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
            )?;
            demand(
                budget < limit,
                "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our \
                 documentation at https://docs.claude.com/en/docs/build-with-claude/extended-thinking",
            )?;
        }
        other => {
            return Err(Refusal::new(
                400,
                format!(
                    "thinking: Input tag '{other}' found using 'type' does not match any of the expected tags"
                ),
            ));
        }
    }
    let temperature = body["temperature"].as_f64().unwrap_or(1.0);
    demand(
        (temperature - 1.0).abs() < 1e-9,
        "`temperature` may only be set to 1 when thinking is enabled.",
    )?;
    demand(body["top_k"].is_null(), "`top_k` must be unset when thinking is enabled.")?;
    let forced = matches!(text(&body["tool_choice"], "type"), "any" | "tool");
    demand(!forced, "Thinking may not be enabled when tool_choice forces tool use.")
}

/// Structured outputs take a subset of JSON Schema.
fn check_schema(schema: &Value, path: &str) -> Result<(), Refusal> {
    let bad = |object: &Map<String, Value>| {
        let closed = object.get("additionalProperties") == Some(&json!(false));
        let is_object = object.get("type") == Some(&json!("object"));
        let unknown = ["minimum", "maximum", "minLength", "maxLength", "oneOf"];
        if is_object && !closed {
            return Some(
                "For 'object' type, 'additionalProperties' must be explicitly set to false"
                    .to_owned(),
            );
        }
        let found = unknown.iter().find(|name| object.contains_key(**name))?;
        Some(format!(
            "For '{}' type, property '{found}' is not supported",
            object.get("type").and_then(Value::as_str).unwrap_or("any")
        ))
    };
    let found = find_schema(schema, path, &bad);
    found.map_or(Ok(()), |(path, what)| Err(Refusal::of(&path, format!("{path}: {what}"))))
}

fn check_tools(body: &Value) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for (path, tool) in each(body.get("tools"), "tools") {
        let kind = text(tool, "type");
        if kind.is_empty() || kind == "custom" {
            shape::object(tool, &path, TOOL, false).map_err(|fault| pydantic(&fault))?;
            let object = text(&tool["input_schema"], "type") == "object";
            demand(object, format!("{path}.custom.input_schema.type: Field required"))?;
            if tool["strict"] == json!(true) {
                check_schema(&tool["input_schema"], &format!("{path}.custom.input_schema"))?;
            }
        }
        let name = text(tool, "name");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let good = (1..=128).contains(&name.len()) && name.bytes().all(fits);
        demand(
            good,
            format!("{path}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"),
        )?;
        demand(!names.contains(&name.to_owned()), "tools: Tool names must be unique.")?;
        names.push(name.to_owned());
    }
    let choice = &body["tool_choice"];
    demand(
        choice.is_null() || !names.is_empty(),
        "tool_choice: `tool_choice` may only be specified while providing `tools`.",
    )?;
    let none = text(choice, "type") == "none";
    Ok(if none { Vec::new() } else { names })
}

fn read(body: &Value) -> Result<Prompt, Refusal> {
    let mut prompt = Prompt {
        stream: body["stream"] == json!(true),
        single: body.pointer("/tool_choice/disable_parallel_tool_use") == Some(&json!(true)),
        schema: body.pointer("/output_config/format/schema").cloned(),
        thinks: matches!(text(&body["thinking"], "type"), "enabled" | "adaptive"),
        ..Prompt::default()
    };
    prompt.system = body["system"].as_str().map_or_else(
        || each(body.get("system"), "").map(|(_, block)| text(block, "text")).collect(),
        str::to_owned,
    );
    let marks = body.to_string().matches("\"cache_control\":{").count();
    demand(
        marks <= 4,
        format!("A maximum of 4 blocks with cache_control may be provided. Found {marks}."),
    )?;
    let messages: Vec<_> = each(body.get("messages"), "messages").collect();
    demand(!messages.is_empty(), "messages: at least one message is required")?;
    let mut asked: Vec<String> = Vec::new();
    for (at, (path, message)) in messages.iter().enumerate() {
        shape::object(message, path, MESSAGE, false).map_err(|fault| pydantic(&fault))?;
        let last = at + 1 == messages.len();
        match text(message, "role") {
            "user" => hear(&mut prompt, path, message, &mut asked)?,
            "assistant" => {
                demand(at > 0, "messages: first message must use the \"user\" role")?;
                demand(asked.is_empty(), unanswered(path, &asked))?;
                asked = say(&mut prompt, path, &message["content"], last)?;
            }
            _ => {
                return Err(Refusal::of(
                    path,
                    format!("{path}.role: Input should be 'user' or 'assistant'"),
                ));
            }
        }
    }
    demand(asked.is_empty(), unanswered("messages", &asked))?;
    check_loop(body, &prompt, &messages)?;
    Ok(prompt)
}

fn unanswered(path: &str, ids: &[String]) -> String {
    format!(
        "{path}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. \
         Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        ids.join(", ")
    )
}

/// The blocks of a message, each of its shape; a string is one block of text.
fn blocks(content: &Value, path: &str) -> Result<Vec<(String, Value)>, Refusal> {
    if let Some(said) = content.as_str() {
        demand(!said.is_empty(), "messages: text content blocks must be non-empty")?;
        return Ok(vec![(path.to_owned(), json!({"type": "text", "text": said}))]);
    }
    for (path, block) in each(Some(content), path) {
        let kind = text(block, "type");
        let Some((_, shape)) = BLOCKS.iter().find(|(known, _)| *known == kind) else {
            let message = format!(
                "{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            );
            return Err(Refusal::of(&path, message));
        };
        shape::object(block, &format!("{path}.{kind}"), shape, false)
            .map_err(|fault| pydantic(&fault))?;
        let blank = kind == "text" && text(block, "text").trim().is_empty();
        demand(!blank, "messages: text content blocks must contain non-whitespace text")?;
    }
    Ok(each(Some(content), path).map(|(path, block)| (path, block.clone())).collect())
}

fn hear(
    prompt: &mut Prompt,
    path: &str,
    message: &Value,
    asked: &mut Vec<String>,
) -> Result<(), Refusal> {
    let blocks = blocks(&message["content"], &format!("{path}.content"))?;
    let (mut words, mut images, mut results) = (Vec::new(), Vec::new(), Vec::new());
    let called = std::mem::take(asked);
    for (path, block) in &blocks {
        match text(block, "type") {
            "tool_result" => {
                let id = text(block, "tool_use_id");
                demand(words.is_empty() && images.is_empty(), unanswered(path, &called))?;
                demand(
                    called.iter().any(|known| known == id),
                    format!(
                        "{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each \
                     `tool_result` block must have a corresponding `tool_use` block in the previous message."
                    ),
                )?;
                let inner = each(block.get("content"), "").map(|(_, part)| text(part, "text"));
                results.push((
                    id,
                    block["content"].as_str().map_or_else(|| inner.collect(), str::to_owned),
                ));
            }
            "image" => images.push(source(&block["source"], path)?),
            "text" => words.push(text(block, "text")),
            "document" => {}
            other => {
                return Err(Refusal::new(
                    400,
                    format!("{path}: `{other}` blocks are not permitted in user turns"),
                ));
            }
        }
    }
    let missing: Vec<_> =
        called.iter().filter(|id| !results.iter().any(|(found, _)| found == id)).cloned().collect();
    demand(missing.is_empty(), unanswered(path, &missing))?;
    if results.is_empty() || !words.is_empty() {
        prompt.hear(&words.join("\n"), images);
    }
    prompt.results = results.into_iter().map(|(_, said)| said).collect();
    Ok(())
}

fn source(source: &Value, path: &str) -> Result<(String, usize), Refusal> {
    match text(source, "type") {
        "base64" => {
            let kind = text(source, "media_type");
            let known = ["image/jpeg", "image/png", "image/gif", "image/webp"].contains(&kind);
            demand(
                known,
                format!(
                    "{path}.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'"
                ),
            )?;
            let read = model::media(kind, text(source, "data"));
            read.ok_or_else(|| {
                Refusal::new(400, format!("{path}.source.base64.data: invalid base64 data"))
            })
        }
        "url" | "file" => Ok((text(source, "type").to_owned(), 0)),
        other => Err(Refusal::new(400, format!("{path}.source: Input tag '{other}' is unknown"))),
    }
}

/// What the model said before; gives the ids of its calls.
fn say(
    prompt: &mut Prompt,
    path: &str,
    content: &Value,
    last: bool,
) -> Result<Vec<String>, Refusal> {
    let blocks = blocks(content, &format!("{path}.content"))?;
    let (mut said, mut ids) = (String::new(), Vec::new());
    for (path, block) in &blocks {
        match text(block, "type") {
            "thinking" => {
                let good = text(block, "signature") == seal(FAMILY, text(block, "thinking"));
                demand(good, format!("{path}: Invalid `signature` in `thinking` block"))?;
                demand(
                    ids.is_empty(),
                    format!("{path}: `thinking` blocks cannot follow `tool_use`"),
                )?;
            }
            "redacted_thinking" => {
                let good = text(block, "data") == seal(FAMILY, REDACTED);
                demand(good, format!("{path}: Invalid `data` in `redacted_thinking` block"))?;
            }
            "tool_use" => {
                let id = text(block, "id");
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
                let good = !id.is_empty() && id.bytes().all(fits);
                demand(
                    good,
                    format!("{path}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"),
                )?;
                demand(!ids.contains(&id.to_owned()), "messages: `tool_use` ids must be unique")?;
                ids.push(id.to_owned());
            }
            "text" => said.push_str(text(block, "text")),
            other => {
                return Err(Refusal::new(
                    400,
                    format!("{path}: `{other}` blocks are not permitted in assistant turns"),
                ));
            }
        }
    }
    let trailing = last && said.ends_with(char::is_whitespace);
    demand(!trailing, "messages: final assistant content cannot end with trailing whitespace")?;
    prompt.say(&said);
    Ok(ids)
}

/// A turn that goes on after tools must keep the thoughts that it began with.
fn check_loop(body: &Value, prompt: &Prompt, messages: &[(String, &Value)]) -> Result<(), Refusal> {
    if prompt.results.is_empty() || text(&body["thinking"], "type") != "enabled" {
        return Ok(());
    }
    let [.., (path, message), _] = messages else { return Ok(()) };
    let first = text(&message["content"][0], "type");
    demand(
        matches!(first, "thinking" | "redacted_thinking"),
        format!(
            "{path}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. \
         When `thinking` is enabled, a final `assistant` message must start with a thinking block \
         (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
        ),
    )
}

fn content(reply: &Reply, redacted: bool) -> Vec<Value> {
    let mut content = Vec::new();
    if let Some(thought) = &reply.thought {
        content.push(if redacted {
            json!({"type": "redacted_thinking", "data": seal(FAMILY, REDACTED)})
        } else {
            json!({"type": "thinking", "thinking": thought, "signature": seal(FAMILY, thought)})
        });
    }
    content.push(json!({"type": "text", "text": reply.text}));
    content.extend(reply.calls.iter().enumerate().map(|(at, (name, input))| {
        json!({"type": "tool_use", "id": reply.id("toolu_01", at), "name": name, "input": input})
    }));
    content
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.calls.is_empty() { "end_turn" } else { "tool_use" }
}

fn usage(reply: &Reply) -> Value {
    json!({
        "input_tokens": FRESH, "cache_creation_input_tokens": WRITTEN, "cache_read_input_tokens": READ,
        "cache_creation": {"ephemeral_5m_input_tokens": WRITTEN, "ephemeral_1h_input_tokens": 0},
        "output_tokens": reply.output(), "service_tier": "standard",
    })
}

fn stream(mut message: Value) -> Answer {
    let content = message["content"].take();
    let (stop, mut usage) = (message["stop_reason"].take(), message["usage"].clone());
    message["content"] = json!([]);
    message["usage"]["output_tokens"] = json!(1);
    let mut events = vec![json!({"type": "message_start", "message": message})];
    for (at, block) in content.as_array().into_iter().flatten().enumerate() {
        let kind = text(block, "type");
        let mut start = block.clone();
        let mut deltas = Vec::new();
        let pieces = |kind: &str, name: &str, whole: &str| {
            let delta = |piece: &&str| json!({"type": kind, name: piece});
            Reply::pieces(whole).iter().map(delta).collect::<Vec<_>>()
        };
        match kind {
            "thinking" => {
                (start["thinking"], start["signature"]) = (json!(""), json!(""));
                deltas = pieces("thinking_delta", "thinking", text(block, "thinking"));
                deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            }
            "text" => {
                start["text"] = json!("");
                deltas = pieces("text_delta", "text", text(block, "text"));
            }
            "tool_use" => {
                start["input"] = json!({});
                deltas = vec![json!({"type": "input_json_delta", "partial_json": ""})];
                deltas.extend(pieces(
                    "input_json_delta",
                    "partial_json",
                    &block["input"].to_string(),
                ));
            }
            _ => {}
        }
        events.push(json!({"type": "content_block_start", "index": at, "content_block": start}));
        events.extend((at == 0).then(|| json!({"type": "ping"})));
        events.extend(
            deltas
                .iter()
                .map(|delta| json!({"type": "content_block_delta", "index": at, "delta": delta})),
        );
        events.push(json!({"type": "content_block_stop", "index": at}));
    }
    if let Some(usage) = usage.as_object_mut() {
        usage.remove("cache_creation");
        usage.remove("service_tier");
    }
    let delta = json!({"stop_reason": stop, "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    Answer::named(&events)
}

pub(super) fn refusal(refusal: &Refusal) -> Value {
    let kind = if refusal.status == 401 { "authentication_error" } else { "invalid_request_error" };
    let error = json!({"type": kind, "message": refusal.message});
    json!({"type": "error", "error": error, "request_id": "req_scripted"})
}
