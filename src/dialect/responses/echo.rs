//! What an answer repeats of its question.

use serde_json::{Map, Value, json};

use super::tools::{self, Spelling};
use super::write;
use crate::canon::Role;
use crate::dialect::Context;

/// The fields of a response object that say how it was asked for.
pub(super) fn echo(context: &Context<'_>) -> Map<String, Value> {
    let request = context.request;
    let extra = |name: &str, otherwise: Value| {
        request.extras.fields.get(name).cloned().unwrap_or(otherwise)
    };
    let first = request.messages.first().filter(|message| message.role == Role::System);
    let choice = request.tool_choice.as_ref();
    let choice = choice.map_or_else(
        || extra("tool_choice", "auto".into()),
        |choice| tools::write_choice(choice, &request.tools, Spelling::default()),
    );
    let format = write::write_format(&request.format);
    let thinking = request.reasoning.as_ref();
    let sampling = &request.sampling;
    let fields = json!({
        "background": extra("background", false.into()),
        "instructions": first.map(crate::canon::Message::text),
        "max_output_tokens": sampling.max_tokens,
        "max_tool_calls": extra("max_tool_calls", Value::Null),
        "metadata": request.metadata.clone().unwrap_or_default(),
        "parallel_tool_calls": request.parallel_tool_calls.unwrap_or(true),
        "previous_response_id": context.previous,
        "prompt_cache_key": request.cache_key,
        "reasoning": {
            "effort": thinking.and_then(|thinking| thinking.effort).map(crate::canon::Effort::name),
            "summary": thinking.and_then(|thinking| thinking.summary.as_deref()),
        },
        "safety_identifier": request.user,
        "store": extra("store", true.into()),
        "temperature": sampling.temperature.unwrap_or(1.0),
        "text": {
            "format": format.unwrap_or_else(|| json!({"type": "text"})),
            "verbosity": request.verbosity.as_deref().unwrap_or("medium"),
        },
        "tool_choice": choice,
        "tools": tools::write(&request.tools, Spelling::default()),
        "top_logprobs": sampling.logprobs.unwrap_or(0),
        "top_p": sampling.top_p.unwrap_or(1.0),
        "truncation": extra("truncation", "disabled".into()),
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
