//! The model behind every scripted vendor: it reads what it is shown and answers always the same.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Tokens per class, all different, so that one taken for another shows.
pub(crate) const FRESH: u64 = 120;
pub(crate) const READ: u64 = 30;
pub(crate) const WRITTEN: u64 = 7;
pub(crate) const SPOKEN: u64 = 45;
pub(crate) const THOUGHT: u64 = 15;

static ANSWERS: AtomicUsize = AtomicUsize::new(0);

/// The position of an answer as a whole among what has ids.
pub(crate) const WHOLE: usize = 1000;

/// What the model is shown, through whichever API.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) system: String,
    /// What the user said last.
    pub(crate) asked: String,
    /// How often the user has spoken.
    pub(crate) turns: usize,
    /// What the model said last.
    pub(crate) said: String,
    /// Names of the tools that it may call.
    pub(crate) tools: Vec<String>,
    /// Only one call at a time.
    pub(crate) single: bool,
    /// What the tools answered since the model spoke last.
    pub(crate) results: Vec<String>,
    pub(crate) schema: Option<Value>,
    /// Media types and sizes of the images in the last question.
    pub(crate) images: Vec<(String, usize)>,
    pub(crate) thinks: bool,
}

/// What the model answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) thought: Option<String>,
    pub(crate) text: String,
    /// Names and arguments.
    pub(crate) calls: Vec<(String, Value)>,
    /// How many answers there were before: no two have an id in common.
    number: usize,
}

impl Prompt {
    /// The user speaks.
    pub(crate) fn hear(&mut self, text: &str, images: Vec<(String, usize)>) {
        self.turns += 1;
        text.clone_into(&mut self.asked);
        self.images = images;
        self.results.clear();
    }

    /// The model has spoken.
    pub(crate) fn say(&mut self, text: &str) {
        if !text.is_empty() {
            text.clone_into(&mut self.said);
        }
        self.results.clear();
    }

    pub(crate) fn answer(&self) -> Reply {
        let thought = self.thinks.then(|| format!("Let me think of turn {}, sí.", self.turns));
        let calls = if self.results.is_empty() { self.calls() } else { Vec::new() };
        let text = if calls.is_empty() { self.text() } else { "I shall look — a moment.".into() };
        Reply { thought, text, calls, number: ANSWERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// A line `CALL name {…}` calls that tool; who asks for the weather is told
    /// to a tool of that name, for two cities.
    fn calls(&self) -> Vec<(String, Value)> {
        let scripted = self.asked.lines().filter_map(|line| {
            let (name, arguments) = line.trim().strip_prefix("CALL ")?.split_once(' ')?;
            let offered = self.tools.iter().any(|tool| tool == name);
            offered.then(|| Some((name.to_owned(), serde_json::from_str(arguments).ok()?)))?
        });
        let mut calls: Vec<_> = scripted.collect();
        let asked = self.asked.to_ascii_lowercase().contains("weather");
        if calls.is_empty() && asked && self.tools.iter().any(|tool| tool == "weather") {
            calls = ["Paris", "Rome"].map(|city| ("weather".into(), json!({"city": city}))).into();
        }
        calls.truncate(if self.single { 1 } else { calls.len() });
        calls
    }

    fn text(&self) -> String {
        if let Some(schema) = &self.schema {
            return instance(schema, schema).to_string();
        }
        if !self.results.is_empty() {
            return format!("The tools say: {}.", self.results.join("; "));
        }
        let images: Vec<_> =
            self.images.iter().map(|(kind, size)| format!("{kind} of {size} bytes")).collect();
        if !images.is_empty() {
            return format!("I see {}.", images.join(" and "));
        }
        let system = if self.system.is_empty() { "" } else { " by the rules" };
        let before = if self.said.is_empty() { "nothing" } else { &self.said };
        format!("Voilà, turn {}{system}: {}. I said {before} before.", self.turns, self.asked)
    }
}

impl Reply {
    /// The text in pieces as a model makes them.
    pub(crate) fn pieces(text: &str) -> Vec<&str> {
        text.split_inclusive([' ', ',', ':']).collect()
    }

    /// An id for what is at this position.
    pub(crate) fn id(&self, prefix: &str, at: usize) -> String {
        format!("{prefix}{}", &fingerprint(&format!("{} {at}", self.number))[..20])
    }

    pub(crate) fn output(&self) -> u64 {
        SPOKEN + self.reasoning()
    }

    pub(crate) fn reasoning(&self) -> u64 {
        if self.thought.is_some() { THOUGHT } else { 0 }
    }
}

/// What only the vendors of `family` can read, made for `content` and true for nothing else.
pub(crate) fn seal(family: &str, content: &str) -> String {
    let print = fingerprint(&format!("{family}\n{content}"));
    // It begins with both characters that other alphabets of base64 lack.
    STANDARD.encode([&[0xfb, 0xff][..], family.as_bytes(), b" ", print.as_bytes()].concat())
}

fn fingerprint(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut print, byte| {
        let _ = write!(print, "{byte:02x}");
        print
    })
}

/// A call as its seal sees it, whatever the order of the arguments.
pub(crate) fn call_content(name: &str, arguments: &Value) -> String {
    let mut fields: Vec<_> = arguments.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| *name);
    format!("{name} {fields:?}")
}

/// Media type and size of base64 data; `None` if it is not.
pub(crate) fn media(kind: &str, data: &str) -> Option<(String, usize)> {
    Some((kind.to_owned(), STANDARD.decode(data).ok()?.len()))
}

/// Media type and size of what a `data:` URL holds.
pub(crate) fn data_url(url: &str) -> Option<(String, usize)> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    media(kind, data)
}

/// The least value that follows a schema.
fn instance(schema: &Value, root: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).cloned();
        return target.map_or(Value::Null, |target| instance(&target, root));
    }
    if let Some(first) = schema["enum"].get(0).or_else(|| schema["anyOf"].get(0)) {
        return if schema["enum"].is_null() { instance(first, root) } else { first.clone() };
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object");
    match kind.to_ascii_lowercase().as_str() {
        "string" => json!("Rome"),
        "integer" => json!(2_800_000),
        "number" => json!(0.5),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => json!([instance(&schema["items"], root)]),
        _ => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let made = properties.map(|(name, value)| (name.clone(), instance(value, root)));
            Value::Object(made.collect::<Map<_, _>>())
        }
    }
}
