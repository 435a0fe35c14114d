//! Cohere's chat, version 2.

use serde_json::{Map, Value, json};

use super::model::{self, FRESH, Prompt, READ, Reply};
use super::shape::{self, Shape, each, find_schema, text};
use super::{Answer, Refusal, Request, demand, pydantic};

const REQUEST: Shape = &[
    ("model", "!string"),
    ("messages", "!array"),
    ("stream", "boolean"),
    ("tools", "array"),
    ("strict_tools", "boolean"),
    ("documents", "array"),
    ("citation_options", "object"),
    ("response_format", "object"),
    ("safety_mode", "string"),
    ("max_tokens", "integer"),
    ("stop_sequences", "array"),
    ("temperature", "number"),
    ("seed", "integer"),
    ("frequency_penalty", "number"),
    ("presence_penalty", "number"),
    ("k", "integer"),
    ("p", "number"),
    ("logprobs", "boolean"),
    ("tool_choice", "string"),
    ("thinking", "object"),
    ("priority", "integer"),
];
const SPEAKER: Shape = &[("role", "!string"), ("content", "!string|array")];
const ASSISTANT: Shape = &[
    ("role", "!string"),
    ("content", "string|array"),
    ("tool_calls", "array"),
    ("tool_plan", "string"),
    ("citations", "array"),
];
const RESULT: Shape =
    &[("role", "!string"), ("tool_call_id", "!string"), ("content", "!string|array")];
const CALL: Shape = &[("id", "!string"), ("type", "!string"), ("function", "!object")];
const TOOL: Shape = &[("type", "!string"), ("function", "!object")];
const FUNCTION: Shape =
    &[("name", "!string"), ("description", "string"), ("parameters", "!object")];
const THINKING: Shape = &[("type", "!string"), ("token_budget", "integer")];

pub(super) fn answer(request: &Request, body: &Value) -> Result<Answer, Refusal> {
    let key = request.header("authorization").is_some();
    key.then_some(()).ok_or_else(|| Refusal::new(401, "no api key supplied"))?;
    object(body, "", REQUEST)?;
    let mut prompt = read(body)?;
    prompt.model = text(body, "model").to_owned();
    check_settings(body, &mut prompt)?;
    let reply = prompt.answer();
    let (input, output) = (FRESH + READ, reply.output());
    let usage = json!({
        "billed_units": {"input_tokens": 3, "output_tokens": 2},
        "tokens": {"input_tokens": input, "output_tokens": output}, "cached_tokens": READ,
    });
    let finish = if reply.calls.is_empty() { "COMPLETE" } else { "TOOL_CALL" };
    if prompt.stream {
        return Ok(stream(&reply, &json!({"finish_reason": finish, "usage": usage})));
    }
    let mut message = json!({"role": "assistant"});
    if reply.calls.is_empty() {
        let thinking =
            reply.thought.iter().map(|thought| json!({"type": "thinking", "thinking": thought}));
        message["content"] =
            thinking.chain([json!({"type": "text", "text": reply.text})]).collect();
    } else {
        // Models that think say no plan besides.
        match &reply.thought {
            Some(thought) => {
                message["content"] = json!([{"type": "thinking", "thinking": thought}]);
            }
            None => message["tool_plan"] = json!(reply.text),
        }
        message["tool_calls"] = json!(calls(&reply));
    }
    let id = "c14c80c3-18eb-4519-9460-6c92edd8cfb4";
    Ok(Answer::Whole(
        json!({"id": id, "message": message, "finish_reason": finish, "usage": usage}),
    ))
}

fn object(value: &Value, path: &str, shape: Shape) -> Result<(), Refusal> {
    let refused = |fault| Refusal { status: 422, ..pydantic(&fault) };
    shape::object(value, path, shape, false).map(|_| ()).map_err(refused)
}

fn check_settings(body: &Value, prompt: &mut Prompt) -> Result<(), Refusal> {
    let mut names = Vec::new();
    for (path, tool) in each(body.get("tools"), "tools") {
        object(tool, &path, TOOL)?;
        object(&tool["function"], &format!("{path}.function"), FUNCTION)?;
        names.push(text(&tool["function"], "name").to_owned());
    }
    let choice = text(body, "tool_choice");
    demand(
        matches!(choice, "" | "REQUIRED" | "NONE"),
        "invalid request: tool_choice must be REQUIRED or NONE",
    )?;
    demand(
        choice.is_empty() || !names.is_empty(),
        "invalid request: tool_choice can only be specified with tools",
    )?;
    prompt.tools = if choice == "NONE" { Vec::new() } else { names };
    let thinking = &body["thinking"];
    if !thinking.is_null() {
        object(thinking, "thinking", THINKING)?;
        prompt.thinks = text(thinking, "type") == "enabled";
    }
    let format = &body["response_format"];
    let json = text(format, "type") == "json_object";
    demand(
        !json || prompt.tools.is_empty(),
        "invalid request: response_format is not supported with tools",
    )?;
    if let Some(schema) = format.get("json_schema").or_else(|| format.get("schema")) {
        let bad = |object: &Map<String, Value>| {
            let is_object = object.get("type") == Some(&json!("object"));
            let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len);
            (is_object && required == 0).then(|| "at least one field must be required".to_owned())
        };
        let found = find_schema(schema, "response_format.json_schema", &bad);
        demand(found.is_none(), format!("invalid json_schema: {found:?}"))?;
        prompt.schema = Some(schema.clone());
    }
    let limit = body["k"].as_u64().unwrap_or(0);
    demand(limit <= 500, "invalid request: k must be between 0 and 500 inclusive.")
}

fn read(body: &Value) -> Result<Prompt, Refusal> {
    let mut prompt = Prompt { stream: body["stream"] == json!(true), ..Prompt::default() };
    let mut open: Vec<String> = Vec::new();
    for (path, message) in each(body.get("messages"), "messages") {
        let role = text(message, "role");
        let answered = role == "tool" || open.is_empty();
        demand(
            answered,
            format!(
                "invalid request: {path}: all tool calls must have results before the next message: {}",
                open.join(", ")
            ),
        )?;
        match role {
            "system" => {
                object(message, &path, SPEAKER)?;
                prompt.system.push_str(&words(&message["content"]));
            }
            "user" => {
                object(message, &path, SPEAKER)?;
                let images = each(message.get("content"), "")
                    .filter(|(_, part)| text(part, "type") == "image_url");
                let read = images
                    .map(|(_, part)| model::data_url(text(&part["image_url"], "url")))
                    .collect();
                let read: Option<Vec<_>> = read;
                prompt.hear(
                    &words(&message["content"]),
                    read.ok_or_else(|| {
                        Refusal::new(400, "invalid request: image could not be decoded")
                    })?,
                );
            }
            "assistant" => {
                object(message, &path, ASSISTANT)?;
                open = say(&mut prompt, &path, message)?;
            }
            "tool" => {
                object(message, &path, RESULT)?;
                let id = text(message, "tool_call_id");
                demand(
                    open.iter().any(|known| known == id),
                    format!(
                        "invalid request: {path}: tool_call_id {id} does not match any tool call"
                    ),
                )?;
                open.retain(|known| known != id);
                prompt.results.push(words(&message["content"]));
            }
            other => return Err(Refusal::new(422, format!("{path}: unknown role {other}"))),
        }
    }
    demand(
        open.is_empty() && prompt.turns > 0,
        "invalid request: messages must end with a user message or with tool results",
    )?;
    Ok(prompt)
}

fn say(prompt: &mut Prompt, path: &str, message: &Value) -> Result<Vec<String>, Refusal> {
    let mut ids = Vec::new();
    for (path, call) in each(message.get("tool_calls"), &format!("{path}.tool_calls")) {
        object(call, &path, CALL)?;
        let arguments = serde_json::from_str::<Value>(text(&call["function"], "arguments"));
        demand(
            arguments.is_ok_and(|value| value.is_object()),
            format!("invalid request: {path}: arguments are no JSON object"),
        )?;
        ids.push(text(call, "id").to_owned());
    }
    let said = words(&message["content"]);
    demand(
        !said.is_empty() || !ids.is_empty(),
        format!("invalid request: {path}: must have content or tool calls"),
    )?;
    prompt.say(&said);
    Ok(ids)
}

fn words(content: &Value) -> String {
    let part = |part: &Value| {
        let document = part.pointer("/document/data").map(Value::to_string);
        document.unwrap_or_else(|| text(part, "text").to_owned())
    };
    let parts = || each(Some(content), "").map(|(_, value)| part(value)).collect();
    content.as_str().map_or_else(parts, str::to_owned)
}

fn calls(reply: &Reply) -> Vec<Value> {
    let call = |(at, (name, arguments)): (usize, &(String, Value))| {
        let id = reply.id(&format!("{name}_"), at);
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
    };
    reply.calls.iter().enumerate().map(call).collect()
}

fn stream(reply: &Reply, end: &Value) -> Answer {
    let start = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
    let mut events =
        vec![json!({"type": "message-start", "id": "c14c80c3", "delta": {"message": start}})];
    let mut at = 0;
    let mut content = |events: &mut Vec<Value>, kind: &str, whole: &str| {
        let part = |value: Value| json!({"message": {"content": value}});
        events.push(json!({"type": "content-start", "index": at, "delta": part(json!({"type": kind, kind: ""}))}));
        let pieces = Reply::pieces(whole).into_iter();
        events.extend(pieces.map(|piece| json!({"type": "content-delta", "index": at, "delta": part(json!({kind: piece}))})));
        events.push(json!({"type": "content-end", "index": at}));
        at += 1;
    };
    if let Some(thought) = &reply.thought {
        content(&mut events, "thinking", thought);
    }
    if reply.calls.is_empty() {
        content(&mut events, "text", &reply.text);
    } else if reply.thought.is_none() {
        let pieces = Reply::pieces(&reply.text).into_iter();
        events.extend(pieces.map(
            |piece| json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}}),
        ));
    }
    for (at, mut call) in calls(reply).into_iter().enumerate() {
        let arguments = call["function"]["arguments"].take();
        call["function"]["arguments"] = json!("");
        events.push(json!({"type": "tool-call-start", "index": at, "delta": {"message": {"tool_calls": call}}}));
        let pieces = Reply::pieces(arguments.as_str().unwrap_or_default()).into_iter();
        events.extend(pieces.map(|piece| {
            let call = json!({"function": {"arguments": piece}});
            json!({"type": "tool-call-delta", "index": at, "delta": {"message": {"tool_calls": call}}})
        }));
        events.push(json!({"type": "tool-call-end", "index": at}));
    }
    events.push(json!({"type": "message-end", "id": "c14c80c3", "delta": end}));
    Answer::named(&events)
}
