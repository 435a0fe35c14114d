//! AWS Bedrock's Converse, signed requests and binary frames.

use serde_json::{Map, Value, json};

use super::messages::FAMILY;
use super::model::{self, FRESH, Prompt, READ, Reply, WRITTEN, seal};
use super::shape::{self, Fault, Shape, Wrong, each, text};
use super::{Answer, Refusal, Request, demand};

const REQUEST: Shape = &[
    ("messages", "array"),
    ("system", "array"),
    ("inferenceConfig", "object"),
    ("toolConfig", "object"),
    ("guardrailConfig", "object"),
    ("additionalModelRequestFields", "object"),
    ("additionalModelResponseFieldPaths", "array"),
    ("promptVariables", "object"),
    ("requestMetadata", "object"),
    ("performanceConfig", "object"),
    ("serviceTier", "object"),
    ("outputConfig", "object"),
];
const INFERENCE: Shape = &[
    ("maxTokens", "integer"),
    ("temperature", "number"),
    ("topP", "number"),
    ("stopSequences", "array"),
];
const MESSAGE: Shape = &[("role", "!string"), ("content", "!array")];
const TOOLS: Shape = &[("tools", "!array"), ("toolChoice", "object")];
const SPEC: Shape = &[
    ("name", "!string"),
    ("description", "string"),
    ("inputSchema", "!object"),
    ("strict", "boolean"),
];
const USE: Shape =
    &[("toolUseId", "!string"), ("name", "!string"), ("input", "!any"), ("type", "string")];
const RESULT: Shape =
    &[("toolUseId", "!string"), ("content", "!array"), ("status", "string"), ("type", "string")];
const BLOCKS: [&str; 10] = [
    "text",
    "image",
    "document",
    "video",
    "toolUse",
    "toolResult",
    "guardContent",
    "cachePoint",
    "reasoningContent",
    "citationsContent",
];

pub(super) fn answer(request: &Request, body: &Value) -> Result<Answer, Refusal> {
    let (model, method) = request.path.rsplit_once('/').unwrap_or_default();
    let model = model.strip_prefix("/model/").unwrap_or_default();
    demand(
        !model.is_empty() && !model.contains(['/', ':']),
        "The provided model identifier is invalid.",
    )?;
    let proof = request.header("authorization").unwrap_or_default();
    let signed = proof.starts_with("AWS4-HMAC-SHA256 Credential=")
        && proof.contains("/bedrock/aws4_request")
        && request.header("x-amz-date").is_some();
    let known = signed || proof.starts_with("Bearer ");
    known.then_some(()).ok_or_else(|| Refusal::new(403, "Missing Authentication Token"))?;
    object(body, "", REQUEST)?;
    let mut prompt = read(body)?;
    model.clone_into(&mut prompt.model);
    prompt.tools = check_tools(body)?;
    check_settings(body, &mut prompt)?;
    let reply = prompt.answer();
    let usage = json!({
        "inputTokens": FRESH, "outputTokens": reply.output(),
        "totalTokens": FRESH + READ + WRITTEN + reply.output(),
        "cacheReadInputTokens": READ, "cacheWriteInputTokens": WRITTEN,
    });
    let stop = if reply.calls.is_empty() { "end_turn" } else { "tool_use" };
    match method {
        "converse" => Ok(Answer::Whole(json!({
            "output": {"message": {"role": "assistant", "content": content(&reply)}},
            "stopReason": stop, "usage": usage, "metrics": {"latencyMs": 12},
        }))),
        "converse-stream" => Ok(stream(&reply, stop, &usage)),
        _ => Err(Refusal::new(404, "<UnknownOperationException/>")),
    }
}

fn object<'a>(
    value: &'a Value,
    path: &str,
    shape: Shape,
) -> Result<&'a Map<String, Value>, Refusal> {
    shape::object(value, path, shape, false).map_err(|Fault { path, wrong }| {
        Refusal::new(400, match wrong {
            Wrong::Unknown => format!("Malformed input request: #: extraneous key [{path}] is not permitted, please reformat your input and try again."),
            Wrong::Missing => format!("1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"),
            Wrong::Type(types) => format!("Malformed input request: {path} must be {types}"),
        })
    })
}

fn check_settings(body: &Value, prompt: &mut Prompt) -> Result<(), Refusal> {
    let inference = &body["inferenceConfig"];
    if !inference.is_null() {
        object(inference, "inferenceConfig", INFERENCE)?;
    }
    if let Some(format) = body.pointer("/outputConfig/textFormat") {
        let schema = format.pointer("/structure/jsonSchema/schema").and_then(Value::as_str);
        let schema = schema.and_then(|schema| serde_json::from_str(schema).ok());
        demand(
            text(format, "type") == "json_schema" && schema.is_some(),
            "The schema of outputConfig.textFormat is invalid.",
        )?;
        prompt.schema = schema;
    }
    let more = &body["additionalModelRequestFields"];
    let thinking = &more["thinking"];
    prompt.thinks = matches!(text(thinking, "type"), "enabled" | "adaptive");
    if text(thinking, "type") == "enabled" {
        let budget = thinking["budget_tokens"].as_u64().unwrap_or_default();
        let limit = inference["maxTokens"].as_u64().unwrap_or(4096);
        demand(
            budget >= 1024,
            "The model returned the following errors: thinking.enabled.budget_tokens: Input should be greater than or equal to 1024",
        )?;
        demand(
            budget < limit,
            "The model returned the following errors: `max_tokens` must be greater than `thinking.budget_tokens`.",
        )?;
        let warm =
            inference["temperature"].as_f64().is_some_and(|value| (value - 1.0).abs() > 1e-9);
        demand(
            !warm,
            "The model returned the following errors: `temperature` may only be set to 1 when thinking is enabled.",
        )?;
        let kept = prompt.results.is_empty() || last_begins_with_thought(body);
        demand(
            kept,
            "The model returned the following errors: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When `thinking` is enabled, a final `assistant` message must start with a thinking block.",
        )?;
    }
    Ok(())
}

fn last_begins_with_thought(body: &Value) -> bool {
    let mut messages = each(body.get("messages"), "").rev();
    let last = messages.find(|(_, message)| text(message, "role") == "assistant");
    last.is_none_or(|(_, message)| !message["content"][0]["reasoningContent"].is_null())
}

fn check_tools(body: &Value) -> Result<Vec<String>, Refusal> {
    let blocks = body["messages"].to_string();
    let used = blocks.contains("{\"toolUse\":") || blocks.contains("{\"toolResult\":");
    let config = &body["toolConfig"];
    if config.is_null() {
        demand(
            !used,
            "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
        )?;
        return Ok(Vec::new());
    }
    object(config, "toolConfig", TOOLS)?;
    let mut names = Vec::new();
    for (path, tool) in each(config.get("tools"), "toolConfig.tools") {
        if tool["cachePoint"].is_object() {
            continue;
        }
        let spec = &tool["toolSpec"];
        object(spec, &format!("{path}.toolSpec"), SPEC)?;
        let schema = &spec["inputSchema"]["json"];
        demand(
            text(schema, "type") == "object",
            format!(
                "The value at {path}.toolSpec.inputSchema.json.type must be one of the following: object."
            ),
        )?;
        demand(
            spec["description"] != "",
            format!(
                "Invalid length for parameter {path}.toolSpec.description, value: 0, valid min length: 1"
            ),
        )?;
        demand(
            good_id(text(spec, "name")),
            format!(
                "Value at '{path}.toolSpec.name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
            ),
        )?;
        names.push(text(spec, "name").to_owned());
    }
    demand(
        !names.is_empty(),
        "Value '[]' at 'toolConfig.tools' failed to satisfy constraint: Member must have length greater than or equal to 1",
    )?;
    Ok(names)
}

fn good_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&id.len()) && id.bytes().all(fits)
}

fn read(body: &Value) -> Result<Prompt, Refusal> {
    let system = each(body.get("system"), "").map(|(_, block)| text(block, "text")).collect();
    let mut prompt = Prompt { system, ..Prompt::default() };
    let messages: Vec<_> = each(body.get("messages"), "messages").collect();
    demand(
        !messages.is_empty(),
        "A conversation must start with a user message. Try again with a conversation that starts with a user message.",
    )?;
    let mut open: Vec<String> = Vec::new();
    for (at, (path, message)) in messages.iter().enumerate() {
        object(message, path, MESSAGE)?;
        let expected = if at % 2 == 0 { "user" } else { "assistant" };
        let role = text(message, "role");
        demand(
            at > 0 || role == "user",
            "A conversation must start with a user message. Try again with a conversation that starts with a user message.",
        )?;
        demand(
            role == expected,
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.",
        )?;
        let blocks: Vec<_> = each(message.get("content"), &format!("{path}.content")).collect();
        demand(
            !blocks.is_empty(),
            format!(
                "The content field in the Message object at {path} is empty. Add a ContentBlock object to the content field and try again."
            ),
        )?;
        for (path, block) in &blocks {
            check_block(block, path)?;
        }
        if role == "user" {
            hear(&mut prompt, path, &blocks, &std::mem::take(&mut open))?;
        } else {
            open = say(&mut prompt, &blocks)?;
        }
    }
    demand(
        open.is_empty(),
        "The model returned the following errors: `tool_use` ids were found without `tool_result` blocks immediately after",
    )?;
    Ok(prompt)
}

fn check_block(block: &Value, path: &str) -> Result<(), Refusal> {
    let fields = block.as_object().into_iter().flatten();
    let names: Vec<_> = fields.map(|(name, _)| name.as_str()).collect();
    demand(
        names.len() == 1 && BLOCKS.contains(&names[0]),
        format!(
            "The ContentBlock object at {path} must set one of the following keys: text, image, toolUse, toolResult, document, video, cachePoint, reasoningContent."
        ),
    )?;
    let blank = block["text"].as_str().is_some_and(|said| said.trim().is_empty());
    demand(
        !blank,
        format!(
            "The text field in the ContentBlock object at {path} is blank. Add text to the text field, and try again."
        ),
    )
}

fn hear(
    prompt: &mut Prompt,
    path: &str,
    blocks: &[(String, &Value)],
    open: &[String],
) -> Result<(), Refusal> {
    let (mut words, mut images, mut results) = (Vec::new(), Vec::new(), Vec::new());
    let mut answered = Vec::new();
    for (path, block) in blocks {
        words.extend(block["text"].as_str());
        if let Some(image) = block.get("image") {
            let format = text(image, "format");
            demand(
                ["png", "jpeg", "gif", "webp"].contains(&format),
                format!(
                    "Value '{format}' at '{path}.image.format' failed to satisfy constraint: Member must satisfy enum value set: [gif, jpeg, png, webp]"
                ),
            )?;
            let bytes = image.pointer("/source/bytes").and_then(Value::as_str).unwrap_or("!");
            let read = model::media(&format!("image/{format}"), bytes);
            images.push(read.ok_or_else(|| Refusal::new(400, "Could not process image"))?);
        }
        let Some(result) = block.get("toolResult") else { continue };
        object(result, &format!("{path}.toolResult"), RESULT)?;
        answered.push(text(result, "toolUseId").to_owned());
        let said = each(result.get("content"), "").map(|(_, part)| {
            part["text"].as_str().map_or_else(|| part["json"].to_string(), str::to_owned)
        });
        results.push(said.collect::<String>());
    }
    let extra = answered.iter().any(|id| !open.contains(id));
    demand(
        !extra,
        format!(
            "The number of toolResult blocks at {path}.content exceeds the number of toolUse blocks of previous turn."
        ),
    )?;
    let missing: Vec<_> = open.iter().filter(|id| !answered.contains(id)).cloned().collect();
    demand(
        missing.is_empty(),
        format!(
            "Expected toolResult blocks at {path}.content for the following Ids: {}",
            missing.join(", ")
        ),
    )?;
    if results.is_empty() || !words.is_empty() {
        prompt.hear(&words.join("\n"), images);
    }
    prompt.results = results;
    Ok(())
}

fn say(prompt: &mut Prompt, blocks: &[(String, &Value)]) -> Result<Vec<String>, Refusal> {
    let (mut said, mut open) = (String::new(), Vec::new());
    for (path, block) in blocks {
        said.push_str(text(block, "text"));
        let thought = &block["reasoningContent"];
        if let Some(thought) = thought.get("reasoningText") {
            let good = text(thought, "signature") == seal(FAMILY, text(thought, "text"));
            demand(
                good,
                format!(
                    "The model returned the following errors: {path}: Invalid `signature` in `thinking` block"
                ),
            )?;
        }
        let Some(call) = block.get("toolUse") else { continue };
        object(call, &format!("{path}.toolUse"), USE)?;
        demand(
            call["input"].is_object(),
            format!(
                "The format of the value at {path}.toolUse.input is invalid. Provide a json object for the field and try again."
            ),
        )?;
        demand(
            good_id(text(call, "toolUseId")),
            format!(
                "Value at '{path}.toolUse.toolUseId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_-]+"
            ),
        )?;
        open.push(text(call, "toolUseId").to_owned());
    }
    prompt.say(&said);
    Ok(open)
}

fn content(reply: &Reply) -> Vec<Value> {
    let thought = reply.thought.iter().map(|thought| {
        json!({"reasoningContent": {"reasoningText": {"text": thought, "signature": seal(FAMILY, thought)}}})
    });
    let calls = reply.calls.iter().enumerate().map(|(at, (name, input))| {
        json!({"toolUse": {"toolUseId": reply.id("tooluse_", at), "name": name, "input": input}})
    });
    thought.chain([json!({"text": reply.text})]).chain(calls).collect()
}

fn stream(reply: &Reply, stop: &str, usage: &Value) -> Answer {
    let mut events = vec![("messageStart", json!({"role": "assistant"}))];
    for (at, block) in content(reply).iter().enumerate() {
        let mut deltas = Vec::new();
        if let Some(thought) = block.pointer("/reasoningContent/reasoningText") {
            let pieces = Reply::pieces(text(thought, "text")).into_iter();
            deltas.extend(pieces.map(|piece| json!({"reasoningContent": {"text": piece}})));
            deltas.push(json!({"reasoningContent": {"signature": thought["signature"]}}));
        } else if let Some(call) = block.get("toolUse") {
            // Only calls have a start of their own.
            let start = json!({"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}});
            events.push(("contentBlockStart", json!({"contentBlockIndex": at, "start": start})));
            let input = call["input"].to_string();
            deltas.extend(
                Reply::pieces(&input).into_iter().map(|piece| json!({"toolUse": {"input": piece}})),
            );
        } else {
            let pieces = Reply::pieces(text(block, "text")).into_iter();
            deltas.extend(pieces.map(|piece| json!({"text": piece})));
        }
        events.extend(deltas.into_iter().map(|delta| {
            ("contentBlockDelta", json!({"contentBlockIndex": at, "delta": delta, "p": "abcd"}))
        }));
        events.push(("contentBlockStop", json!({"contentBlockIndex": at})));
    }
    events.push(("messageStop", json!({"stopReason": stop})));
    events.push(("metadata", json!({"usage": usage, "metrics": {"latencyMs": 12}})));
    let frames = events.iter().map(|(name, payload)| frame(name, &payload.to_string()));
    Answer::Stream("application/vnd.amazon.eventstream", frames.collect())
}

/// One message: lengths, headers, payload and two checksums.
fn frame(event: &str, payload: &str) -> Vec<u8> {
    let size = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let fields =
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")];
    let headers = fields.iter().flat_map(|(name, value)| {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        let text = [name.as_bytes(), &[7], &length, value.as_bytes()].concat();
        [vec![u8::try_from(name.len()).unwrap()], text].concat()
    });
    let headers: Vec<u8> = headers.collect();
    let total = 16 + headers.len() + payload.len();
    let mut bytes = [size(total), size(headers.len())].concat();
    bytes.extend(checksum(&bytes));
    bytes.extend(headers);
    bytes.extend(payload.as_bytes());
    bytes.extend(checksum(&bytes));
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum().to_be_bytes()
}
