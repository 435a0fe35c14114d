//! Every field of a question that the documentation of its API knows is found in what a target is
//! sent, or named among what it could not take.
//!
//! Each case puts a few fields into a question that is otherwise as plain as can be. Then each of
//! them is left out by itself: the target must be sent something else, or told of another loss.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use switchpoint::canon::{Dialect, Surface};
use switchpoint::dialect::{Aim, Traits, client, upstream};
use switchpoint::provider::catalog::CATALOG;

use crate::pairs::PROVIDERS;

type Target = (Dialect, &'static str, &'static str);

/// What is another language's: nothing in it is a field of the API.
const OPAQUE: [&str; 17] = [
    "args",
    "arguments",
    "audio",
    "context_management",
    "input_schema",
    "labels",
    "location",
    "logit_bias",
    "metadata",
    "parameters",
    "parametersJsonSchema",
    "prediction",
    "response",
    "responseJsonSchema",
    "responseSchema",
    "schema",
    "user_location",
];

/// Fields that say nothing which the others do not, or nothing to the one who answers; and why.
const IMPLIED: &[(&str, &str)] = &[
    ("chat modalities", "`audio` says it"),
    ("chat response_format.json_schema.name", "must be given, and is named"),
    ("chat stream", "stands in the address"),
    ("chat stream_options", "usage is asked for in any case"),
    ("chat stream_options.include_usage", "usage is asked for in any case"),
    ("chat tools", "what may not be called is left out"),
    ("chat top_logprobs", "named as `logprobs`"),
    ("gemini contents.parts.functionResponse.id", "results stand in the order of their calls"),
    ("gemini contents.parts.thoughtSignature", "is for nobody but Google"),
    ("gemini contents.role", "`user` is meant where none is said"),
    ("gemini generationConfig.logprobs", "named as `logprobs`"),
    ("gemini generationConfig.responseLogprobs", "`logprobs` says it"),
    ("gemini generationConfig.thinkingConfig.includeThoughts -> cohere", "they are shown"),
    ("gemini generationConfig.thinkingConfig.includeThoughts -> converse", "they are shown"),
    ("gemini tools.functionDeclarations", "what may not be called is left out"),
    ("messages messages.content.citations -> cohere", "all documents are cited"),
    ("messages messages.content.citations.enabled -> cohere", "all documents are cited"),
    ("messages messages.content.signature", "is for nobody but Anthropic"),
    ("messages messages.content.source.media_type", "of a text it is always the same"),
    ("messages service_tier", "others have no tier to stay out of"),
    ("messages stream", "stands in the address"),
    ("messages thinking -> chat", "others think as they see fit unasked"),
    ("messages thinking -> cohere", "others think as they see fit unasked"),
    ("messages thinking -> responses", "others think as they see fit unasked"),
    ("messages thinking.display -> chat", "none are shown"),
    ("messages thinking.display -> responses", "none are shown"),
    ("messages tools", "what may not be called is left out"),
    ("messages tools.input_schema", "of a tool without arguments it is always the same"),
    ("responses include", "thoughts are kept in any case"),
    ("responses input.encrypted_content", "is for nobody but OpenAI"),
    ("responses input.id", "the gateway's own"),
    ("responses input.status", "what was said is complete"),
    ("responses reasoning.summary", "thoughts are shown whole"),
    ("responses stream", "stands in the address"),
    ("responses text.format.name", "must be given, and is named"),
    ("responses tools", "what may not be called is left out"),
];

/// A plain question of each API, and cases of further fields.
fn cases() -> Vec<(&'static str, Surface, Value, Vec<Value>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/dialects/fields");
    [
        ("chat", Surface::Chat),
        ("responses", Surface::Responses),
        ("messages", Surface::Messages),
        ("gemini", Surface::Generate),
    ]
    .map(|(name, surface)| {
        let text = std::fs::read(format!("{folder}/{name}.json")).unwrap();
        let file: Value = serde_json::from_slice(&text).unwrap();
        let cases = file["cases"].as_array().unwrap().clone();
        (name, surface, file["plain"].clone(), cases)
    })
    .into()
}

/// What a target is sent, and what is named; or why it is sent nothing.
fn told(surface: Surface, body: &Value, target: Target) -> Option<Value> {
    let request = client(surface).read_request(body.to_string().as_bytes()).ok()?;
    let (dialect, provider, model) = target;
    let row = CATALOG.iter().find(|kind| kind.id == provider).unwrap();
    let traits: &Traits = &row.traits;
    let aim = Aim { model, traits, cache: None };
    Some(match upstream(dialect).write_request(&request, &aim) {
        Ok(written) => {
            let body: Value = serde_json::from_slice(&written.body).unwrap();
            json!({"body": body, "dropped": written.dropped})
        }
        Err(refusal) => json!({"refused": refusal.to_string()}),
    })
}

/// The places of all fields and elements below this one, and whether each has more below it.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, it)| (name.clone(), it)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, it)| (index.to_string(), it)).collect()
        }
        _ => return,
    };
    for (name, value) in parts {
        let place = format!("{at}/{name}");
        found.push(place.clone());
        if !OPAQUE.contains(&name.as_str()) {
            places(value, &place, found);
        }
    }
}

fn without(body: &Value, place: &str) -> Value {
    let mut body = body.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Array(list) => drop(list.remove(name.parse().unwrap())),
        parent => drop(parent.as_object_mut().unwrap().remove(name)),
    }
    body
}

/// A place without the numbers in it.
fn path(place: &str) -> String {
    let names = place.split('/').filter(|name| name.parse::<usize>().is_err() && !name.is_empty());
    names.collect::<Vec<_>>().join(".")
}

fn is_implied(there: &str, path: &str) -> bool {
    IMPLIED.iter().any(|(known, _)| *known == there || *known == path)
}

/// Whether one object stands there, and no message: what is named of a list may be one of several.
fn is_thing(body: &Value, place: &str) -> bool {
    let thing = body.pointer(place).and_then(Value::as_object);
    thing.is_some_and(|thing| !thing.contains_key("role"))
}

/// What is neither sent nor named to this target, of what a case has.
fn silent(surface: Surface, body: &Value, found: &[String], target: Target) -> Vec<String> {
    let whole = told(surface, body, target).unwrap_or_else(|| panic!("cannot be read: {body}"));
    if whole.get("refused").is_some() {
        return Vec::new();
    }
    let (mut silent, mut named) = (Vec::new(), Vec::<&str>::new());
    for place in found {
        // What was named as a whole has nothing left to name.
        let is_below = |above: &&str| place.starts_with(&format!("{above}/"));
        if named.iter().any(is_below) || place.ends_with("/type") {
            continue;
        }
        // Without some fields there is no question.
        let Some(less) = told(surface, &without(body, place), target) else { continue };
        if less == whole {
            silent.push(path(place));
        } else if less["dropped"] != whole["dropped"]
            && (less["body"] == whole["body"] || is_thing(body, place))
        {
            named.push(place);
        }
    }
    silent
}

#[test]
fn every_field_is_sent_in_some_form_or_named_as_dropped() {
    let mut wrong = BTreeSet::new();
    for (name, surface, plain, cases) in cases() {
        for case in cases {
            let mut body = plain.clone();
            body.as_object_mut().unwrap().extend(case.as_object().unwrap().clone());
            let mut found = Vec::new();
            places(&case, "", &mut found);
            for target in PROVIDERS {
                let silent = silent(surface, &body, &found, target).into_iter();
                let silent = silent.map(|path| format!("{name} {path}"));
                let silent = silent.map(|path| (format!("{path} -> {}", target.0.name()), path));
                let silent = silent.filter(|(there, path)| !is_implied(there, path));
                wrong.extend(silent.map(|(there, _)| format!("{there}, in {case}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
