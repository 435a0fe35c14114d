//! OpenAI's chat completions, and the servers that look like them but are not.

use serde_json::{Map, Value, json};

use super::model::{self, FRESH, Prompt, READ, Reply, WHOLE, seal};
use super::shape::{self, Fault, Shape, Wrong, bracketed, each, find_schema, text};
use super::{Answer, Refusal, Request, Vendor, demand, pydantic};

const FAMILY: &str = "openrouter";

const REQUEST: Shape = &[
    ("model", "!string"),
    ("messages", "!array"),
    ("stream", "boolean|null"),
    ("stream_options", "object|null"),
    ("max_tokens", "integer|null"),
    ("max_completion_tokens", "integer|null"),
    ("temperature", "number|null"),
    ("top_p", "number|null"),
    ("n", "integer|null"),
    ("stop", "string|array|null"),
    ("seed", "integer|null"),
    ("presence_penalty", "number|null"),
    ("frequency_penalty", "number|null"),
    ("logit_bias", "object|null"),
    ("logprobs", "boolean|null"),
    ("top_logprobs", "integer|null"),
    ("tools", "array"),
    ("tool_choice", "string|object"),
    ("parallel_tool_calls", "boolean"),
    ("response_format", "object"),
    ("reasoning_effort", "string|null"),
    ("verbosity", "string|null"),
    ("user", "string"),
    ("metadata", "object|null"),
    ("store", "boolean|null"),
    ("service_tier", "string|null"),
    ("prompt_cache_key", "string"),
    ("safety_identifier", "string"),
    ("modalities", "array|null"),
    ("audio", "object|null"),
    ("prediction", "object|null"),
    ("web_search_options", "object"),
];
/// What Mistral knows of these, and what only it knows.
const MISTRAL: Shape = &[
    ("model", "!string"),
    ("messages", "!array"),
    ("stream", "boolean|null"),
    ("max_tokens", "integer|null"),
    ("temperature", "number|null"),
    ("top_p", "number|null"),
    ("n", "integer|null"),
    ("stop", "string|array|null"),
    ("random_seed", "integer|null"),
    ("presence_penalty", "number|null"),
    ("frequency_penalty", "number|null"),
    ("tools", "array|null"),
    ("tool_choice", "string|object"),
    ("parallel_tool_calls", "boolean"),
    ("response_format", "object"),
    ("prompt_mode", "string|null"),
    ("reasoning_effort", "string|null"),
    ("safe_prompt", "boolean"),
    ("metadata", "object|null"),
    ("prompt_cache_key", "string|null"),
];
const ASSISTANT: Shape = &[
    ("role", "!string"),
    ("content", "string|array|null"),
    ("tool_calls", "array|null"),
    ("refusal", "string|null"),
    ("name", "string"),
    ("audio", "object|null"),
    ("annotations", "array"),
    ("function_call", "object|null"),
];
/// Mistral's.
const SAID: Shape = &[
    ("role", "!string"),
    ("content", "string|array|null"),
    ("tool_calls", "array|null"),
    ("prefix", "boolean"),
];
const SPEAKER: Shape = &[("role", "!string"), ("content", "!string|array"), ("name", "string")];
const TOOL_RESULT: Shape = &[
    ("role", "!string"),
    ("content", "!string|array"),
    ("tool_call_id", "!string"),
    ("name", "string"),
];
const CALL: Shape =
    &[("id", "!string"), ("type", "string"), ("function", "!object"), ("index", "integer")];
const CALLED: Shape = &[("name", "!string"), ("arguments", "!string")];
const TOOL: Shape = &[("type", "!string"), ("function", "object"), ("custom", "object")];
const FUNCTION: Shape = &[
    ("name", "!string"),
    ("description", "string"),
    ("parameters", "object"),
    ("strict", "boolean|null"),
];
const FORMAT: Shape = &[
    ("name", "!string"),
    ("description", "string"),
    ("schema", "!object"),
    ("strict", "boolean|null"),
];

pub(super) fn answer(vendor: Vendor, request: &Request, body: &Value) -> Result<Answer, Refusal> {
    let key = request.header("authorization").or_else(|| request.header("api-key")).is_some();
    key.then_some(()).ok_or_else(|| Refusal::new(401, "You didn't provide an API key."))?;
    let fault = |fault: Fault| spelled(vendor, &fault);
    let shape = if vendor == Vendor::Mistral { MISTRAL } else { REQUEST };
    // Only these two refuse what they do not know.
    let open = matches!(vendor, Vendor::OpenRouter | Vendor::DeepSeek);
    shape::object(body, "", shape, open).map_err(fault)?;
    check_settings(vendor, body)?;
    let tools = check_tools(vendor, body)?;
    let mut prompt = read(vendor, body)?;
    prompt.tools = tools;
    prompt.model = text(body, "model").to_owned();
    let reply = prompt.answer();
    if !prompt.stream {
        return Ok(Answer::Whole(whole(vendor, &prompt, &reply)));
    }
    let with_usage = body.pointer("/stream_options/include_usage") == Some(&json!(true));
    let Answer::Stream(kind, mut events) = stream(vendor, &prompt, &reply, with_usage) else {
        unreachable!()
    };
    if vendor == Vendor::OpenRouter {
        events.insert(0, b": OPENROUTER PROCESSING\n\n".to_vec());
    }
    events.push(b"data: [DONE]\n\n".to_vec());
    Ok(Answer::Stream(kind, events))
}

/// A fault in the words of OpenAI, or of those whose servers are written in Python.
pub(super) fn spelled(vendor: Vendor, fault: &Fault) -> Refusal {
    if vendor == Vendor::Mistral {
        return Refusal { status: 422, ..pydantic(fault) };
    }
    let path = bracketed(&fault.path);
    let (message, code) = match fault.wrong {
        Wrong::Unknown => (format!("Unknown parameter: '{path}'."), "unknown_parameter"),
        Wrong::Missing => {
            (format!("Missing required parameter: '{path}'."), "missing_required_parameter")
        }
        Wrong::Type(types) => {
            (format!("Invalid type for '{path}': expected one of {types}."), "invalid_type")
        }
    };
    Refusal { code: Some(code), ..Refusal::of(&path, message) }
}

fn check_settings(vendor: Vendor, body: &Value) -> Result<(), Refusal> {
    let model = text(body, "model");
    let openai = matches!(vendor, Vendor::OpenAi | Vendor::Azure);
    if openai && (model.starts_with("gpt-5") || model.starts_with('o')) {
        let named = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                     'max_completion_tokens' instead.";
        demand(body["max_tokens"].is_null(), named)?;
    }
    let usage = body["stream_options"].is_null() || body["stream"] == json!(true);
    demand(usage, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")?;
    let format = &body["response_format"];
    match text(format, "type") {
        "" | "text" => Ok(()),
        "json_schema" if vendor == Vendor::DeepSeek => {
            Err(Refusal::new(400, "This response_format type is unavailable now"))
        }
        "json_schema" => {
            let path = "response_format.json_schema";
            shape::object(&format["json_schema"], path, FORMAT, false)
                .map_err(|fault| spelled(vendor, &fault))?;
            let strict = format.pointer("/json_schema/strict") == Some(&json!(true));
            if strict && openai {
                check_strict(&format["json_schema"]["schema"], "response_format")
            } else {
                Ok(())
            }
        }
        "json_object" => {
            let said = body["messages"].to_string().to_ascii_lowercase().contains("json");
            demand(
                said,
                "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
            )
        }
        other => Err(Refusal::of("response_format.type", format!("Invalid value: '{other}'."))),
    }
}

/// Strict schemas name every property as required and allow no others.
pub(super) fn check_strict(schema: &Value, place: &str) -> Result<(), Refusal> {
    let bad = |object: &Map<String, Value>| {
        if object.get("type") != Some(&json!("object")) {
            return None;
        }
        if object.get("additionalProperties") != Some(&json!(false)) {
            return Some(
                "'additionalProperties' is required to be supplied and to be false".to_owned(),
            );
        }
        let required = object.get("required").cloned().unwrap_or_default();
        let named =
            |name: &&String| !each(Some(&required), "").any(|(_, value)| value == name.as_str());
        let mut properties =
            object.get("properties").and_then(Value::as_object).into_iter().flatten();
        let missing = properties.find(|(name, _)| named(name))?;
        Some(format!(
            "'required' is required to be supplied and to be an array including every key in properties. Missing '{}'",
            missing.0
        ))
    };
    let found = find_schema(schema, "", &bad);
    found.map_or(Ok(()), |(path, what)| {
        Err(Refusal::of(place, format!("Invalid schema for {place}: In context=({path}), {what}.")))
    })
}

fn check_tools(vendor: Vendor, body: &Value) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    let fault = |fault: Fault| spelled(vendor, &fault);
    for (path, tool) in each(body.get("tools"), "tools") {
        shape::object(tool, &path, TOOL, false).map_err(fault)?;
        if text(tool, "type") == "custom" && vendor == Vendor::OpenAi {
            names.push(text(&tool["custom"], "name").to_owned());
            continue;
        }
        let function = &tool["function"];
        shape::object(function, &format!("{path}.function"), FUNCTION, false).map_err(fault)?;
        if function["strict"] == json!(true) && vendor != Vendor::OpenRouter {
            let place = format!("function '{}'", text(function, "name"));
            check_strict(&function["parameters"], &place)?;
        }
        names.push(text(function, "name").to_owned());
    }
    let offered = body.get("tools").is_some_and(|tools| !tools.is_null());
    demand(
        !offered || !names.is_empty(),
        "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    )?;
    let choice = &body["tool_choice"];
    demand(
        choice.is_null() || offered,
        "'tool_choice' is only allowed when 'tools' are specified.",
    )?;
    Ok(if choice == "none" { Vec::new() } else { names })
}

/// What the settings say to the model.
fn heed(body: &Value) -> Prompt {
    let thinks = ["reasoning_effort", "reasoning", "thinking"].into_iter().any(|name| {
        let value = &body[name];
        let off =
            value == "none" || text(value, "type") == "disabled" || text(value, "effort") == "none";
        !value.is_null() && !off
    });
    let plain = text(&body["response_format"], "type") == "json_object";
    let city = json!({"name": {"type": "string"}, "population": {"type": "integer"}});
    let schema = body.pointer("/response_format/json_schema/schema").cloned();
    Prompt {
        stream: body["stream"] == json!(true),
        single: body["parallel_tool_calls"] == json!(false),
        schema: schema.or_else(|| plain.then(|| json!({"properties": city}))),
        thinks: thinks || body["prompt_mode"] == "reasoning",
        ..Prompt::default()
    }
}

fn read(vendor: Vendor, body: &Value) -> Result<Prompt, Refusal> {
    let mut prompt = heed(body);
    let mut open: Vec<String> = Vec::new();
    let messages: Vec<_> = each(body.get("messages"), "messages").collect();
    demand(!messages.is_empty(), "Invalid 'messages': empty array.")?;
    let mut before = "";
    for (path, message) in &messages {
        let role = text(message, "role");
        let strict = vendor == Vendor::Mistral && before == "tool" && role == "user";
        demand(!strict, "Unexpected role 'user' after role 'tool'")?;
        before = role;
        demand(role == "tool" || open.is_empty(), unanswered(&open))?;
        match role {
            "system" | "developer" => {
                let open = matches!(vendor, Vendor::OpenAi | Vendor::Azure | Vendor::OpenRouter);
                let message_of = format!("{path}.role: unknown variant `developer`");
                demand(role == "system" || open, message_of)?;
                shape::object(message, path, SPEAKER, false)
                    .map_err(|fault| spelled(vendor, &fault))?;
                prompt.system.push_str(&words(&message["content"]));
            }
            "user" => hear(vendor, &mut prompt, path, message)?,
            "assistant" => open = say(vendor, &mut prompt, path, message)?,
            "tool" => take(vendor, &mut prompt, path, message, &mut open)?,
            other => {
                let known = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'";
                let what = format!("Invalid value: '{other}'. Supported values are: {known}.");
                return Err(Refusal::of(path, what));
            }
        }
    }
    let last = messages.last().map_or("", |(_, message)| text(message, "role"));
    let prefixed = messages.last().is_some_and(|(_, message)| message["prefix"] == json!(true));
    let refused = vendor == Vendor::Mistral && last == "assistant" && !prefixed;
    demand(
        !refused,
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
    )?;
    demand(open.is_empty(), unanswered(&open))?;
    Ok(prompt)
}

fn unanswered(ids: &[String]) -> String {
    format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to \
         each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        ids.join(", ")
    )
}

/// A tool's result, which must answer an open call.
fn take(
    vendor: Vendor,
    prompt: &mut Prompt,
    path: &str,
    message: &Value,
    open: &mut Vec<String>,
) -> Result<(), Refusal> {
    shape::object(message, path, TOOL_RESULT, vendor == Vendor::Mistral)
        .map_err(|fault| spelled(vendor, &fault))?;
    let id = text(message, "tool_call_id");
    let what = format!(
        "Invalid parameter: messages with role 'tool' must be a response to a preceeding message \
         with 'tool_calls' ({path})."
    );
    demand(open.iter().any(|known| known == id), what)?;
    open.retain(|known| known != id);
    prompt.results.push(words(&message["content"]));
    Ok(())
}

fn words(content: &Value) -> String {
    let parts = || each(Some(content), "").map(|(_, part)| text(part, "text").to_owned()).collect();
    content.as_str().map_or_else(parts, str::to_owned)
}

fn hear(vendor: Vendor, prompt: &mut Prompt, path: &str, message: &Value) -> Result<(), Refusal> {
    shape::object(message, path, SPEAKER, false).map_err(|fault| spelled(vendor, &fault))?;
    let mut images = Vec::new();
    for (path, part) in each(message.get("content"), &format!("{path}.content")) {
        match text(part, "type") {
            "text" | "input_audio" | "file" => {}
            "image_url" => {
                let image = &part["image_url"];
                // Mistral takes a bare string too.
                let url = image.as_str().unwrap_or_else(|| text(image, "url"));
                let read = model::data_url(url)
                    .or_else(|| url.starts_with("https://").then(|| ("url".to_owned(), 0)));
                images.push(read.ok_or_else(|| Refusal::of(&path, "Invalid image URL: expected a base64-encoded data URL with an image MIME type, or a URL."))?);
            }
            other => {
                return Err(Refusal::of(
                    &path,
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', 'audio', and 'file'."
                    ),
                ));
            }
        }
    }
    prompt.hear(&words(&message["content"]), images);
    Ok(())
}

/// What the model said before; gives the ids of its calls.
fn say(
    vendor: Vendor,
    prompt: &mut Prompt,
    path: &str,
    message: &Value,
) -> Result<Vec<String>, Refusal> {
    let open = vendor == Vendor::OpenRouter || vendor == Vendor::DeepSeek;
    let shape = if vendor == Vendor::Mistral { SAID } else { ASSISTANT };
    shape::object(message, path, shape, open).map_err(|fault| spelled(vendor, &fault))?;
    let mut ids = Vec::new();
    for (path, call) in each(message.get("tool_calls"), &format!("{path}.tool_calls")) {
        shape::object(call, &path, CALL, open).map_err(|fault| spelled(vendor, &fault))?;
        let (id, function) = (text(call, "id"), &call["function"]);
        shape::object(function, &format!("{path}.function"), CALLED, false)
            .map_err(|fault| spelled(vendor, &fault))?;
        demand(
            id.len() <= 40,
            format!(
                "Invalid '{}.id': string too long. Expected a string with maximum length 40, but got a string with length {} instead.",
                bracketed(&path),
                id.len()
            ),
        )?;
        if vendor == Vendor::Mistral {
            let good = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            demand(
                good,
                format!("Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."),
            )?;
        }
        let arguments = serde_json::from_str::<Map<String, Value>>(text(function, "arguments"));
        demand(
            arguments.is_ok(),
            format!("Invalid arguments for {path}: they are no JSON object."),
        )?;
        ids.push(id.to_owned());
    }
    let said = words(&message["content"]);
    demand(
        !said.is_empty() || !ids.is_empty() || !message["refusal"].is_null(),
        format!("Invalid value for 'content': expected a string, got null ({path})."),
    )?;
    check_thoughts(vendor, prompt, message, !ids.is_empty())?;
    prompt.say(&said);
    Ok(ids)
}

/// Thoughts that a vendor wants back, as it gave them.
fn check_thoughts(
    vendor: Vendor,
    prompt: &Prompt,
    message: &Value,
    calls: bool,
) -> Result<(), Refusal> {
    if vendor == Vendor::DeepSeek && prompt.thinks && calls {
        let kept = message["reasoning_content"].is_string();
        return demand(
            kept,
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        );
    }
    for (path, detail) in each(message.get("reasoning_details"), "reasoning_details") {
        if vendor == Vendor::OpenRouter && text(detail, "type") == "reasoning.text" {
            let good = text(detail, "signature") == seal(FAMILY, text(detail, "text"));
            demand(good, format!("{path}: Invalid `signature` in `thinking` block"))?;
        }
    }
    Ok(())
}

/// The message, with the thoughts where the vendor puts them.
fn message(vendor: Vendor, reply: &Reply) -> Value {
    let mut message = json!({"role": "assistant", "content": reply.text});
    if vendor == Vendor::OpenAi || vendor == Vendor::Azure {
        (message["refusal"], message["annotations"]) = (Value::Null, json!([]));
    }
    let Some(thought) = &reply.thought else { return message };
    match vendor {
        Vendor::DeepSeek => message["reasoning_content"] = json!(thought),
        Vendor::OpenRouter => {
            message["reasoning"] = json!(thought);
            message["reasoning_details"] = json!([detail(thought)]);
        }
        Vendor::Mistral => {
            let thinking =
                json!({"type": "thinking", "thinking": [{"type": "text", "text": thought}]});
            message["content"] = json!([thinking, {"type": "text", "text": reply.text}]);
        }
        _ => {}
    }
    message
}

fn detail(thought: &str) -> Value {
    let signature = seal(FAMILY, thought);
    json!({"type": "reasoning.text", "text": thought, "signature": signature, "format": "anthropic-claude-v1", "index": 0})
}

fn calls(vendor: Vendor, reply: &Reply) -> Vec<Value> {
    let call = |(at, (name, arguments)): (usize, &(String, Value))| {
        let id = if vendor == Vendor::Mistral {
            reply.id("", at)[..9].to_owned()
        } else {
            reply.id("call_", at)
        };
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
    };
    reply.calls.iter().enumerate().map(call).collect()
}

fn usage(vendor: Vendor, reply: &Reply) -> Value {
    let (input, output) = (FRESH + READ, reply.output());
    let mut usage = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": {"cached_tokens": READ, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning(), "audio_tokens": 0},
    });
    if vendor == Vendor::DeepSeek {
        usage["prompt_cache_hit_tokens"] = json!(READ);
        usage["prompt_cache_miss_tokens"] = json!(FRESH);
    }
    usage
}

fn finish(reply: &Reply) -> &'static str {
    if reply.calls.is_empty() { "stop" } else { "tool_calls" }
}

fn whole(vendor: Vendor, prompt: &Prompt, reply: &Reply) -> Value {
    let mut message = message(vendor, reply);
    if !reply.calls.is_empty() {
        message["tool_calls"] = json!(calls(vendor, reply));
    }
    json!({
        "id": reply.id("chatcmpl-", WHOLE), "object": "chat.completion", "created": 1_760_000_000, "model": prompt.model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(reply)}],
        "usage": usage(vendor, reply), "service_tier": "default", "system_fingerprint": "fp_scripted",
    })
}

fn stream(vendor: Vendor, prompt: &Prompt, reply: &Reply, with_usage: bool) -> Answer {
    let chunk = |choices: Value| {
        json!({
            "id": reply.id("chatcmpl-", WHOLE), "object": "chat.completion.chunk", "created": 1_760_000_000,
            "model": prompt.model, "system_fingerprint": "fp_scripted", "choices": choices,
        })
    };
    let part = |delta: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]))
    };
    let mut chunks = vec![part(json!({"role": "assistant", "content": "", "refusal": null}))];
    chunks.extend(thoughts(vendor, reply).into_iter().map(part));
    chunks.extend(
        Reply::pieces(&reply.text).into_iter().map(|piece| part(json!({"content": piece}))),
    );
    for (at, mut call) in calls(vendor, reply).into_iter().enumerate() {
        call["index"] = json!(at);
        let arguments = call["function"]["arguments"].take();
        let arguments = arguments.as_str().unwrap_or_default();
        if vendor == Vendor::Mistral {
            // Mistral sends a call whole.
            call["function"]["arguments"] = json!(arguments);
            chunks.push(part(json!({"tool_calls": [call]})));
            continue;
        }
        call["function"]["arguments"] = json!("");
        chunks.push(part(json!({"tool_calls": [call]})));
        chunks.extend(Reply::pieces(arguments).into_iter().map(|piece| {
            part(json!({"tool_calls": [{"index": at, "function": {"arguments": piece}}]}))
        }));
    }
    let mut last =
        chunk(json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish(reply)}]));
    match vendor {
        Vendor::Mistral | Vendor::DeepSeek => {
            last["usage"] = usage(vendor, reply);
            chunks.push(last);
        }
        _ => {
            chunks.push(last);
            let mut end = chunk(json!([]));
            end["usage"] = usage(vendor, reply);
            chunks.extend(with_usage.then_some(end));
        }
    }
    Answer::events(&chunks)
}

fn thoughts(vendor: Vendor, reply: &Reply) -> Vec<Value> {
    let thought = reply.thought.as_deref().unwrap_or_default();
    let pieces = Reply::pieces(thought).into_iter();
    match vendor {
        Vendor::DeepSeek => pieces.map(|piece| json!({"content": null, "reasoning_content": piece})).collect(),
        Vendor::Mistral => pieces.map(|piece| {
            json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]})
        }).collect(),
        Vendor::OpenRouter if !thought.is_empty() => {
            let text = pieces.map(|piece| {
                let detail = json!({"type": "reasoning.text", "text": piece, "format": "anthropic-claude-v1", "index": 0});
                json!({"content": "", "reasoning": piece, "reasoning_details": [detail]})
            });
            let mut signature = detail(thought);
            signature["text"] = json!("");
            text.chain([json!({"content": "", "reasoning_details": [signature]})]).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn refusal(refusal: &Refusal) -> Value {
    json!({"error": {
        "message": refusal.message, "type": "invalid_request_error",
        "param": refusal.param, "code": refusal.code,
    }})
}

pub(super) fn mistral_refusal(refusal: &Refusal) -> Value {
    if refusal.status == 422 {
        let location = refusal.param.as_deref().unwrap_or_default().split('.').collect::<Vec<_>>();
        return json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": location, "msg": refusal.message}]}, "type": "invalid_request_error", "param": null, "code": null});
    }
    json!({"object": "error", "message": refusal.message, "type": "invalid_request_message_order", "param": null, "code": "3230"})
}
