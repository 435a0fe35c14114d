//! What counts as the same question: a digest of everything that could change the answer.
//!
//! Each value is written with its kind and its length before it, so that no two questions are
//! written alike, and objects in the order of their keys, so that one question is written one way.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::plain::{self, Shape};
use crate::canon::{ChatRequest, Dialect, EmbedInput, EmbedRequest, Message, Part, Role};

/// SHA-256 of a question and all around it.
pub type Digest = [u8; 32];

/// What stands beside a question and could change its answer, too.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// Whose answers these are: a question of somebody else never has the same digest.
    pub tenant: &'a str,
    /// What the config says that changes answers.
    pub policy: &'a Digest,
    /// Who may answer.
    pub targets: &'a [u64],
    /// What the provider is told in headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The question as it came, and in which dialect.
    pub body: (Dialect, &'a [u8]),
}

/// Fields that change no answer, whoever's they are.
const NO_MATTER: [&str; 8] = [
    "model",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "store",
];

/// Bytes that are different for different values.
#[derive(Default)]
struct Canon(Vec<u8>);

/// The digest of these, none of which can be taken for a part of another.
pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut canon = Canon::default();
    parts.into_iter().for_each(|part| canon.bytes(b'p', part));
    canon.finish()
}

/// All around a question, and `more`, in bytes that are different for different ones.
pub(super) fn around(setting: &Setting<'_>, more: &[&[u8]]) -> Vec<u8> {
    let mut canon = Canon::of(setting, b'l');
    canon.bytes(b'd', setting.body.0.name().as_bytes());
    for part in more {
        canon.bytes(b'm', part);
    }
    canon.0
}

/// The digest of a question to a chat model, whatever dialect it came in, and streamed or not.
pub fn of_chat(setting: &Setting<'_>, request: &ChatRequest) -> Digest {
    digest(setting, request, &request.messages, b'c')
}

/// What was said last, if that is the user's words and nothing else, and the digest of all besides.
pub fn of_last_words(setting: &Setting<'_>, request: &ChatRequest) -> Option<(String, Digest)> {
    let (last, before) = request.messages.split_last()?;
    let is_plain = |part: &Part| part.as_text().is_some() && part.opaque.is_none();
    if last.role != Role::User || last.name.is_some() || !last.parts.iter().all(is_plain) {
        return None;
    }
    let text = last.text();
    (!text.trim().is_empty()).then(|| (text, digest(setting, request, before, b'w')))
}

fn digest(setting: &Setting<'_>, request: &ChatRequest, messages: &[Message], kind: u8) -> Digest {
    // All by name, so that nothing new is left out unawares.
    let ChatRequest {
        // Who may answer stands in the setting, whatever they are called.
        model: _,
        // The same answer can be streamed or not, with its usage or without.
        stream: _,
        include_usage: _,
        messages: _,
        // Whose it is and where its beginning is cached changes no answer.
        user: _,
        metadata: _,
        cache_key: _,
        tools,
        tool_choice,
        parallel_tool_calls,
        format,
        sampling,
        reasoning,
        verbosity,
        audio,
        service_tier,
        prefix,
        extras,
    } = request;
    let mut canon = Canon::of(setting, kind);
    canon.list(messages);
    canon.list(tools);
    canon.add(tool_choice);
    canon.add(parallel_tool_calls);
    canon.add(format);
    canon.add(sampling);
    canon.add(reasoning);
    canon.add(verbosity);
    canon.add(audio);
    canon.add(service_tier);
    canon.add(prefix);
    let extra = extras.fields.iter().filter(|(name, _)| !NO_MATTER.contains(&name.as_str()));
    let (dialect, body) = setting.body;
    let shape = plain::shape(setting.body, &NO_MATTER, &extras.fields);
    // What only one dialect can say is another thing in another dialect.
    let is_own = shape != Shape::Plain || extra.clone().next().is_some();
    canon.add(&is_own.then(|| dialect.name()));
    canon.members(extra);
    match shape {
        Shape::Plain => {}
        Shape::Odd => canon.body(dialect, body, messages.len() < request.messages.len()),
        Shape::Doubled => canon.bytes(b'b', body),
    }
    canon.finish()
}

/// The digest of a question for vectors.
pub fn of_embeddings(setting: &Setting<'_>, request: &EmbedRequest) -> Digest {
    let EmbedRequest { model: _, user: _, inputs, dimensions, base64, purpose, extras } = request;
    let mut canon = Canon::of(setting, b'e');
    canon.length(b'[', inputs.len());
    for input in inputs {
        match input {
            EmbedInput::Text(text) => canon.bytes(b's', text.as_bytes()),
            EmbedInput::Tokens(tokens) => canon.add(tokens),
        }
    }
    canon.add(dimensions);
    canon.add(base64);
    canon.add(purpose);
    canon.object(extras);
    canon.finish()
}

// === impl Canon ===

impl Canon {
    fn of(setting: &Setting<'_>, kind: u8) -> Self {
        let Setting { tenant, policy, targets, headers, body: _ } = setting;
        let mut canon = Self(Vec::with_capacity(512));
        canon.0.push(kind);
        canon.bytes(b't', tenant.as_bytes());
        canon.bytes(b'p', *policy);
        canon.length(b'T', targets.len());
        targets.iter().for_each(|target| canon.0.extend_from_slice(&target.to_be_bytes()));
        canon.length(b'H', headers.len());
        for (name, value) in *headers {
            canon.bytes(b'n', name.as_bytes());
            canon.bytes(b'v', value);
        }
        canon
    }

    fn finish(self) -> Digest {
        Sha256::digest(&self.0).into()
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.0.push(kind);
        self.0.extend_from_slice(&(length as u64).to_be_bytes());
    }

    fn bytes(&mut self, kind: u8, bytes: &[u8]) {
        self.length(kind, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn list<T: Serialize>(&mut self, items: &[T]) {
        self.length(b'[', items.len());
        for item in items {
            self.add(item);
        }
    }

    fn add<T: Serialize>(&mut self, value: &T) {
        // Our own types have no maps but with text as keys, so this cannot fail.
        self.value(&serde_json::to_value(value).unwrap_or_default());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.push(b'0'),
            Value::Bool(flag) => self.0.push(if *flag { b'y' } else { b'n' }),
            Value::Number(number) => self.bytes(b'#', number.to_string().as_bytes()),
            Value::String(text) => self.bytes(b's', text.as_bytes()),
            Value::Array(list) => {
                self.length(b'[', list.len());
                for item in list {
                    self.value(item);
                }
            }
            Value::Object(map) => self.object(map),
        }
    }

    /// All of a body that may matter; perhaps without the last words.
    fn body(&mut self, dialect: Dialect, body: &[u8], is_but_last: bool) {
        match serde_json::from_slice(body) {
            Ok(Value::Object(mut body)) => {
                let conversation = plain::conversation(dialect);
                if let Some(list) = body.get_mut(conversation).and_then(Value::as_array_mut)
                    && is_but_last
                    && list.last().is_some_and(|last| plain::is_words(dialect, last))
                {
                    list.pop();
                }
                self.members(body.iter().filter(|(name, _)| !NO_MATTER.contains(&name.as_str())));
            }
            _ => self.bytes(b'b', body),
        }
    }

    fn object(&mut self, map: &serde_json::Map<String, Value>) {
        self.members(map.iter());
    }

    fn members<'a>(&mut self, members: impl Iterator<Item = (&'a String, &'a Value)>) {
        let mut members: Vec<_> = members.collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        self.length(b'{', members.len());
        for (name, value) in members {
            self.bytes(b'k', name.as_bytes());
            self.value(value);
        }
    }
}
