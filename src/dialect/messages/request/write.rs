//! Writes a question for a target of this dialect.

use serde_json::{Map, Value, json};

use super::thinking::{Plan, is_forced, plan};
use super::{Dropped, TOOL_FIELD, cache, conversation, inexpressible, schema};
use crate::canon::{
    ChatRequest, Citation, Dialect, Foreign, Format, Part, Reasoning, Tool, ToolChoice,
};
use crate::dialect::messages::block::write_mark;
use crate::dialect::messages::citation;
use crate::dialect::messages::models::{Family, Samples, family};
use crate::dialect::{Aim, Inexpressible, Written, custom, lost};

/// What Google's host of this API wants in the place of a version header.
const VERTEX_VERSION: &str = "vertex-2023-10-16";

pub(in crate::dialect::messages) fn write(
    request: &ChatRequest,
    aim: &Aim<'_>,
) -> Result<Written, Inexpressible> {
    let (family, mut dropped) = (family(aim.model), Dropped::default());
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    if aim.traits.model_in_path {
        put("anthropic_version", json!(VERTEX_VERSION));
    } else {
        put("model", json!(aim.model));
    }
    let plan = plan(request, family, &mut dropped);
    put("max_tokens", json!(request.sampling.max_tokens.unwrap_or(family.max_tokens)));
    let tools = write_tools(request, family, &mut dropped);
    if let (false, Some(choice)) = (tools.is_empty(), write_choice(request, family, &mut dropped)) {
        put("tool_choice", choice);
    }
    if !tools.is_empty() {
        put("tools", Value::Array(tools));
    }
    let mut talk = conversation::write(&request.messages, family, &mut dropped)?;
    if talk.messages.is_empty() {
        return Err(inexpressible("`messages` holds nothing that the target's API takes."));
    }
    let config = write_output_config(request, &plan, family, &mut talk.system, &mut dropped);
    if !talk.system.is_empty() {
        put("system", Value::Array(talk.system));
    }
    put("messages", Value::Array(talk.messages));
    if !config.is_empty() {
        put("output_config", Value::Object(config));
    }
    write_sampling(request, &plan, family, &mut body, &mut dropped);
    write_account(request, &mut body, &mut dropped);
    if let Some(thinking) = plan.thinking {
        body.insert("thinking".to_owned(), thinking);
    }
    if request.stream {
        body.insert("stream".to_owned(), json!(true));
    }
    write_extras(request, &mut body, &mut dropped);
    if !body.contains_key("thinking") {
        forget_thoughts(&mut body, &mut dropped);
    }
    note_unknown(request, &mut dropped);
    let keeps = |part: &Part, _: &Reasoning| part.opaque_for(Dialect::Messages).is_some();
    let cites = |cited: &Citation| citation::original(cited).is_some();
    let beside = lost::beside(request, Dialect::Messages);
    let sources = lost::citations(request, cites);
    for name in lost::thoughts(request, keeps).into_iter().chain(sources).chain(beside) {
        dropped.add(name);
    }
    cache::place(&mut body, aim.cache, &mut dropped);
    let body = Value::Object(body).to_string().into_bytes();
    Ok(Written { body, dropped: dropped.into_names() })
}

fn write_tools(request: &ChatRequest, family: &Family, dropped: &mut Dropped) -> Vec<Value> {
    let wanted = |name: &str| match &request.tool_choice {
        Some(ToolChoice::Among { names, .. }) => names.iter().any(|wanted| wanted == name),
        _ => true,
    };
    let mut tools = Vec::new();
    for tool in &request.tools {
        dropped.add_if(custom::has_grammar(tool), custom::FORMAT);
        let function = custom::as_function(tool);
        match function.as_ref().unwrap_or(tool) {
            Tool::Function { name, .. } | Tool::Custom { name, .. } if !wanted(name) => {}
            Tool::Function { name, description, schema, strict, cache } => {
                let mut tool = named_tool(name, description.as_deref(), schema.as_ref());
                // Others are strict by habit, with schemas that this API refuses, and with more
                // tools than it takes so.
                let meant = request.extras.dialect.is_none_or(|client| client == Dialect::Messages);
                if *strict == Some(true) && family.structured && meant {
                    tool["strict"] = json!(true);
                } else if *strict == Some(true) {
                    dropped.add("tools.function.strict");
                }
                if let Some(mark) = cache {
                    tool["cache_control"] = write_mark(*mark);
                }
                tools.push(tool);
            }
            // Made a function above.
            Tool::Custom { .. } => {}
            Tool::Hosted(Foreign { dialect: Dialect::Messages, value }) => {
                tools.push(value.clone());
            }
            Tool::Hosted(foreign) => {
                let kind = foreign.value.get("type").and_then(Value::as_str);
                dropped.add(format!("tools.{}", kind.unwrap_or_else(|| foreign.dialect.name())));
            }
        }
    }
    tools
}

fn named_tool(name: &str, description: Option<&str>, schema: Option<&Value>) -> Value {
    let mut tool = json!({ "name": name });
    if let Some(description) = description {
        tool["description"] = json!(description);
    }
    tool["input_schema"] = schema::of_tool(schema);
    tool
}

fn write_choice(request: &ChatRequest, family: &Family, dropped: &mut Dropped) -> Option<Value> {
    let single = request.parallel_tool_calls == Some(false);
    let free = is_forced(request.tool_choice.as_ref()) && !family.forced;
    dropped.add_if(free, "tool_choice");
    let mut choice = match &request.tool_choice {
        _ if free => json!({ "type": "auto" }),
        Some(ToolChoice::None) => return Some(json!({ "type": "none" })),
        Some(ToolChoice::Required | ToolChoice::Among { required: true, .. }) => {
            json!({ "type": "any" })
        }
        Some(ToolChoice::Named(name)) => json!({ "type": "tool", "name": name }),
        Some(ToolChoice::Auto | ToolChoice::Among { .. }) => json!({ "type": "auto" }),
        None if request.parallel_tool_calls.is_some() => json!({ "type": "auto" }),
        None => return None,
    };
    if request.parallel_tool_calls.is_some() {
        choice["disable_parallel_tool_use"] = json!(single);
    }
    Some(choice)
}

/// Effort and the answer's format. A family without structured answers is asked in words, which
/// binds it less: then the field counts as dropped.
fn write_output_config(
    request: &ChatRequest,
    plan: &Plan,
    family: &Family,
    system: &mut Vec<Value>,
    dropped: &mut Dropped,
) -> Map<String, Value> {
    let mut config = Map::new();
    if let Some(effort) = plan.effort {
        config.insert("effort".to_owned(), json!(effort));
    }
    match &request.format {
        Format::JsonSchema { schema, .. } if family.structured => {
            let schema = schema::compile(schema, dropped);
            let format = json!({ "type": "json_schema", "schema": schema });
            config.insert("format".to_owned(), format);
            lost::format_labels(request, &[]).for_each(|name| dropped.add(name));
        }
        format => {
            let wish = lost::shape_in_words(format);
            dropped.add_if(wish.is_some(), "response_format");
            system.extend(wish.map(|wish| json!({ "type": "text", "text": wish })));
        }
    }
    config
}

fn write_sampling(
    request: &ChatRequest,
    plan: &Plan,
    family: &Family,
    body: &mut Map<String, Value>,
    dropped: &mut Dropped,
) {
    let sampling = &request.sampling;
    // Thinking wants a temperature of 1, no `top_k`, and a `top_p` of at least 0.95.
    let temperature = sampling.temperature.filter(|_| {
        family.sampling != Samples::None && (!plan.on || sampling.temperature == Some(1.0))
    });
    let mut top_p = sampling
        .top_p
        .filter(|top_p| family.sampling != Samples::None && (!plan.on || *top_p >= 0.95));
    if family.sampling == Samples::One && temperature.is_some() {
        top_p = None;
    }
    let top_k = sampling.top_k.filter(|_| family.sampling != Samples::None && !plan.on);
    // Other APIs go up to 2; here 1 is the most.
    let clamped = temperature.map(|wanted| wanted.min(1.0));
    let default = sampling.temperature.is_none_or(|wanted| (wanted - 1.0).abs() < f64::EPSILON);
    dropped.add_if(!default && clamped != sampling.temperature, "temperature");
    let all = sampling.top_p.is_none_or(|wanted| wanted >= 1.0);
    dropped.add_if(!all && top_p.is_none(), "top_p");
    dropped.add_if(sampling.top_k.is_some() && top_k.is_none(), "top_k");
    let stop: Vec<&String> = sampling.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    dropped.add_if(stop.len() < sampling.stop.len(), "stop");
    let fields = [
        ("temperature", clamped.map(|value| json!(value))),
        ("top_p", top_p.map(|value| json!(value))),
        ("top_k", top_k.map(|value| json!(value))),
        ("stop_sequences", (!stop.is_empty()).then(|| json!(stop))),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
}

fn write_account(request: &ChatRequest, body: &mut Map<String, Value>, dropped: &mut Dropped) {
    if let Some(user) = &request.user {
        let own = request.extras.dialect == Some(Dialect::Messages);
        if own || !is_address(user) {
            body.insert("metadata".to_owned(), json!({ "user_id": user }));
        } else {
            dropped.add("user");
        }
    }
    match request.service_tier.as_deref() {
        Some("auto") => {
            body.insert("service_tier".to_owned(), json!("auto"));
        }
        Some("default") => {
            body.insert("service_tier".to_owned(), json!("standard_only"));
        }
        Some(_) => dropped.add("service_tier"),
        None => {}
    }
}

/// Whether it looks like an e-mail address or a telephone number, which the API refuses for a user;
/// clients of other APIs do not know that.
fn is_address(user: &str) -> bool {
    let mail = user.split_once('@').is_some_and(|(_, domain)| domain.contains('.'));
    let digits = user.bytes().filter(u8::is_ascii_digit).count();
    let phone = user.chars().all(|it| it.is_ascii_digit() || " +-().".contains(it));
    mail || (phone && (7..=15).contains(&digits))
}

/// The API refuses an edit that clears thoughts where nobody thinks.
fn forget_thoughts(body: &mut Map<String, Value>, dropped: &mut Dropped) {
    let Some(Value::Object(management)) = body.get_mut("context_management") else { return };
    let Some(Value::Array(edits)) = management.get_mut("edits") else { return };
    let before = edits.len();
    let clears =
        |edit: &Value| edit["type"].as_str().is_some_and(|it| it.starts_with("clear_thinking"));
    edits.retain(|edit| !clears(edit));
    dropped.add_if(edits.len() < before, "context_management.edits");
    if edits.is_empty() {
        management.shift_remove("edits");
    }
    if management.is_empty() {
        body.shift_remove("context_management");
    }
}

/// Fields of this dialect go home; another's are named.
fn write_extras(request: &ChatRequest, body: &mut Map<String, Value>, dropped: &mut Dropped) {
    for (name, value) in &request.extras.fields {
        if request.extras.dialect != Some(Dialect::Messages) {
            dropped.add(name.clone());
            continue;
        }
        if let Some(field) = name.strip_prefix(TOOL_FIELD) {
            write_tool_field(field, value, body);
            continue;
        }
        match (body.get_mut(name), value) {
            (Some(Value::Object(ours)), Value::Object(theirs)) => {
                for (name, value) in theirs {
                    ours.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            (Some(_), _) => {}
            (None, value) => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}

fn write_tool_field(field: &str, values: &Value, body: &mut Map<String, Value>) {
    for tool in body.get_mut("tools").and_then(Value::as_array_mut).into_iter().flatten() {
        let value = tool["name"].as_str().and_then(|name| values.get(name)).cloned();
        if let (Some(value), Some(tool)) = (value, tool.as_object_mut()) {
            tool.entry(field).or_insert(value);
        }
    }
}

/// What this API has no word for.
fn note_unknown(request: &ChatRequest, dropped: &mut Dropped) {
    let sampling = &request.sampling;
    let summary = request.reasoning.as_ref().and_then(|thinking| thinking.summary.as_ref());
    for (lost, name) in [
        (sampling.seed.is_some(), "seed"),
        (sampling.frequency_penalty.is_some_and(|value| value != 0.0), "frequency_penalty"),
        (sampling.presence_penalty.is_some_and(|value| value != 0.0), "presence_penalty"),
        (sampling.choices.is_some_and(|choices| choices > 1), "n"),
        (sampling.logprobs.is_some(), "logprobs"),
        (sampling.logit_bias.is_some(), "logit_bias"),
        (summary.is_some(), "reasoning.summary"),
        (request.verbosity.is_some(), "verbosity"),
        (request.audio.is_some(), "audio"),
        (request.metadata.is_some(), "metadata"),
        (request.cache_key.is_some(), "prompt_cache_key"),
    ] {
        dropped.add_if(lost, name);
    }
}
