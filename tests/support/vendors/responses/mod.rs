//! OpenAI's Responses API: what is asked, checked item by item.

mod written;

use serde_json::{Value, json};

use super::chat::{check_strict, spelled};
use super::model::{self, Prompt, seal};
use super::shape::{self, Fault, Shape, bracketed, each, text};
use super::{Answer, Refusal, Request, Vendor, demand};

const FAMILY: &str = "openai";

const REQUEST: Shape = &[
    ("model", "!string"),
    ("input", "!string|array"),
    ("instructions", "string|null"),
    ("stream", "boolean|null"),
    ("stream_options", "object|null"),
    ("max_output_tokens", "integer|null"),
    ("max_tool_calls", "integer|null"),
    ("temperature", "number|null"),
    ("top_p", "number|null"),
    ("top_logprobs", "integer|null"),
    ("tools", "array"),
    ("tool_choice", "string|object"),
    ("parallel_tool_calls", "boolean|null"),
    ("text", "object"),
    ("reasoning", "object|null"),
    ("include", "array|null"),
    ("store", "boolean|null"),
    ("background", "boolean|null"),
    ("previous_response_id", "string|null"),
    ("conversation", "string|object|null"),
    ("prompt", "object|null"),
    ("prompt_cache_key", "string|null"),
    ("prompt_cache_retention", "string|null"),
    ("safety_identifier", "string|null"),
    ("service_tier", "string|null"),
    ("truncation", "string|null"),
    ("metadata", "object|null"),
    ("user", "string"),
    ("context_management", "array|null"),
    ("client_metadata", "object|null"),
];
const MESSAGE: Shape = &[
    ("type", "string"),
    ("role", "!string"),
    ("content", "!string|array"),
    ("id", "string|null"),
    ("status", "string|null"),
    ("phase", "string|null"),
];
const REASONING: Shape = &[
    ("type", "!string"),
    ("id", "string|null"),
    ("summary", "!array"),
    ("content", "array|null"),
    ("encrypted_content", "string|null"),
    ("status", "string|null"),
];
const CALL: Shape = &[
    ("type", "!string"),
    ("id", "string|null"),
    ("call_id", "!string"),
    ("name", "!string"),
    ("arguments", "!string"),
    ("status", "string|null"),
    ("namespace", "string|null"),
];
const OUTPUT: Shape = &[
    ("type", "!string"),
    ("id", "string|null"),
    ("call_id", "!string"),
    ("output", "!string|array"),
    ("status", "string|null"),
];
const FUNCTION: Shape = &[
    ("type", "!string"),
    ("name", "!string"),
    ("description", "string|null"),
    ("parameters", "object|null"),
    ("strict", "boolean|null"),
    ("defer_loading", "boolean"),
];
const FORMAT: Shape = &[
    ("type", "!string"),
    ("name", "!string"),
    ("schema", "!object"),
    ("description", "string|null"),
    ("strict", "boolean|null"),
];
const PARTS: &[(&str, Shape)] = &[
    ("input_text", &[("type", "!string"), ("text", "!string")]),
    (
        "input_image",
        &[
            ("type", "!string"),
            ("image_url", "string|null"),
            ("file_id", "string|null"),
            ("detail", "string|null"),
        ],
    ),
    (
        "input_file",
        &[
            ("type", "!string"),
            ("file_data", "string|null"),
            ("file_url", "string|null"),
            ("file_id", "string|null"),
            ("filename", "string|null"),
        ],
    ),
    (
        "output_text",
        &[
            ("type", "!string"),
            ("text", "!string"),
            ("annotations", "array"),
            ("logprobs", "array|null"),
        ],
    ),
    ("refusal", &[("type", "!string"), ("refusal", "!string")]),
];

fn object(value: &Value, path: &str, shape: Shape) -> Result<(), Refusal> {
    let fault = |fault: Fault| spelled(Vendor::OpenAi, &fault);
    shape::object(value, path, shape, false).map(|_| ()).map_err(fault)
}

pub(super) fn answer(request: &Request, body: &Value) -> Result<Answer, Refusal> {
    let key = request.header("authorization").or_else(|| request.header("api-key")).is_some();
    key.then_some(()).ok_or_else(|| Refusal::new(401, "You didn't provide an API key."))?;
    object(body, "", REQUEST)?;
    let mut prompt = read(body)?;
    prompt.model = text(body, "model").to_owned();
    prompt.tools = check_tools(body)?;
    let format = &body["text"]["format"];
    if text(format, "type") == "json_schema" {
        object(format, "text.format", FORMAT)?;
        if format["strict"] == json!(true) {
            check_strict(&format["schema"], "response_format")?;
        }
        prompt.schema = Some(format["schema"].clone());
    }
    let reply = prompt.answer();
    let sealed =
        each(body.get("include"), "").any(|(_, name)| name == "reasoning.encrypted_content");
    let summed = !body["reasoning"]["summary"].is_null();
    let items = written::items(&reply, sealed, summed);
    let whole = written::whole(body, &reply, &items);
    Ok(if prompt.stream { written::stream(&whole, &items) } else { Answer::Whole(whole) })
}

/// The state that goes with a reasoning item.
fn state(summary: &Value) -> String {
    let said: String =
        each(Some(summary), "").map(|(_, part)| text(part, "text").to_owned()).collect();
    seal(FAMILY, &said)
}

fn check_tools(body: &Value) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for (path, tool) in each(body.get("tools"), "tools") {
        if text(tool, "type") == "function" {
            object(tool, &path, FUNCTION)?;
            if tool["strict"] == json!(true) {
                check_strict(&tool["parameters"], &format!("function '{}'", text(tool, "name")))?;
            }
        }
        demand(
            tool["type"].is_string(),
            format!("Missing required parameter: '{}.type'.", bracketed(&path)),
        )?;
        names.push(text(tool, "name").to_owned());
    }
    Ok(if body["tool_choice"] == "none" { Vec::new() } else { names })
}

fn read(body: &Value) -> Result<Prompt, Refusal> {
    let reasoning = &body["reasoning"];
    let mut prompt = Prompt {
        stream: body["stream"] == json!(true),
        single: body["parallel_tool_calls"] == json!(false),
        thinks: !reasoning.is_null() && text(reasoning, "effort") != "none",
        system: text(body, "instructions").to_owned(),
        ..Prompt::default()
    };
    if let Some(said) = body["input"].as_str() {
        prompt.hear(said, Vec::new());
        return Ok(prompt);
    }
    let items: Vec<_> = each(body.get("input"), "input").collect();
    let (mut calls, mut outputs) = (Vec::new(), Vec::new());
    for (at, (path, item)) in items.iter().enumerate() {
        check_id(item, path)?;
        match item["type"].as_str().unwrap_or("message") {
            "message" => message(&mut prompt, path, item)?,
            "reasoning" => {
                let next = items
                    .get(at + 1)
                    .map_or("", |(_, next)| next["type"].as_str().unwrap_or("message"));
                thoughts(body, path, item, next)?;
            }
            "function_call" => {
                call(item, path)?;
                calls.push(text(item, "call_id"));
                prompt.say("");
            }
            "function_call_output" => {
                let id = text(item, "call_id");
                let unknown = "No tool call found for function call output with call_id";
                demand(calls.contains(&id), format!("{unknown} {id}."))?;
                outputs.push(id);
                prompt.results.push(output(item, path)?);
            }
            other => {
                return Err(Refusal::of(
                    path,
                    format!(
                        "Invalid value: '{other}'. Supported values are: 'message', 'reasoning', 'function_call', 'function_call_output' and others."
                    ),
                ));
            }
        }
    }
    let missing = calls.iter().find(|id| !outputs.contains(id));
    demand(
        missing.is_none(),
        format!("No tool output found for function call {}.", missing.unwrap_or(&"")),
    )?;
    Ok(prompt)
}

fn call(item: &Value, path: &str) -> Result<(), Refusal> {
    object(item, path, CALL)?;
    let arguments = serde_json::from_str::<Value>(text(item, "arguments"));
    let good = arguments.is_ok_and(|value| value.is_object());
    demand(good, format!("Invalid '{path}.arguments': no JSON object."))
}

/// What a tool answered.
fn output(item: &Value, path: &str) -> Result<String, Refusal> {
    object(item, path, OUTPUT)?;
    let parts = || each(item.get("output"), "").map(|(_, part)| text(part, "text").to_owned());
    Ok(item["output"].as_str().map_or_else(|| parts().collect(), str::to_owned))
}

/// Ids begin with what their kind says, and are never long.
fn check_id(item: &Value, path: &str) -> Result<(), Refusal> {
    for name in ["id", "call_id"] {
        let id = text(item, name);
        demand(
            id.len() <= 64,
            format!(
                "Invalid '{}.{name}': string too long. Expected a string with maximum length 64, but got a string with length {} instead.",
                bracketed(path),
                id.len()
            ),
        )?;
    }
    let Some(id) = item["id"].as_str() else { return Ok(()) };
    let prefix = match item["type"].as_str().unwrap_or("message") {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        _ => return Ok(()),
    };
    demand(
        id.starts_with(prefix),
        format!(
            "Invalid '{}.id': '{id}'. Expected an ID that begins with '{prefix}'.",
            bracketed(path)
        ),
    )
}

fn message(prompt: &mut Prompt, path: &str, item: &Value) -> Result<(), Refusal> {
    object(item, path, MESSAGE)?;
    let role = text(item, "role");
    let wanted = if role == "assistant" {
        ["output_text", "refusal"].as_slice()
    } else {
        &["input_text", "input_image", "input_file"]
    };
    let (mut words, mut images) = (Vec::new(), Vec::new());
    words.extend(item["content"].as_str());
    for (path, part) in each(item.get("content"), &format!("{path}.content")) {
        let kind = text(part, "type");
        let known = PARTS.iter().find(|(known, _)| *known == kind && wanted.contains(known));
        let Some((_, shape)) = known else {
            let values = wanted.join("', '");
            return Err(Refusal::of(
                &path,
                format!("Invalid value: '{kind}'. Supported values are: '{values}'."),
            ));
        };
        object(part, &path, shape)?;
        words.extend(part["text"].as_str());
        if let Some(url) = part["image_url"].as_str() {
            let read = model::data_url(url)
                .or_else(|| url.starts_with("https://").then(|| ("url".to_owned(), 0)));
            images.push(read.ok_or_else(|| Refusal::of(&path, "Invalid 'image_url'. Expected a base64-encoded data URL with an image MIME type, or a URL."))?);
        }
    }
    let words = words.join("\n");
    match role {
        "user" => prompt.hear(&words, images),
        "assistant" => prompt.say(&words),
        "system" | "developer" => prompt.system.push_str(&words),
        other => {
            return Err(Refusal::of(
                path,
                format!(
                    "Invalid value: '{other}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
                ),
            ));
        }
    }
    Ok(())
}

fn thoughts(body: &Value, path: &str, item: &Value, next: &str) -> Result<(), Refusal> {
    object(item, path, REASONING)?;
    let id = text(item, "id");
    let followed = matches!(next, "message" | "function_call" | "reasoning");
    demand(
        followed,
        format!(
            "Item '{id}' of type 'reasoning' was provided without its required following item."
        ),
    )?;
    let Some(sealed) = item["encrypted_content"].as_str() else {
        let kept = body["store"] != json!(false);
        return demand(
            kept,
            format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove this item from your input."
            ),
        );
    };
    let refusal = Refusal {
        code: Some("invalid_encrypted_content"),
        ..Refusal::new(
            400,
            format!(
                "The encrypted content for item {id} could not be verified. Reason: Encrypted content could not be decrypted or parsed."
            ),
        )
    };
    if sealed == state(&item["summary"]) { Ok(()) } else { Err(refusal) }
}
