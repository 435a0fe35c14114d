//! Thoughts and their opaque state in `reasoning_details`, OpenRouter's convention.
//!
//! Entries of a server keep their own format; ours say whose state they carry as `switchpoint.` and
//! the dialect's name. A part's opaque state of this dialect is the entry without its text.

use serde_json::{Map, Value, json};

use crate::canon::{Content, Dialect, Opaque, Part, Reasoning};
use crate::dialect::opaque;

/// What our own entries' formats begin with.
const FORMAT: &str = "switchpoint.";

/// One entry of `reasoning_details`, read.
pub(super) struct Detail<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub index: Option<u64>,
    pub id: &'a str,
    /// The state of another dialect, which we put there.
    pub sealed: Option<Opaque>,
    /// It is one of ours.
    pub is_ours: bool,
    /// The fields of a server's own entry, its text left out.
    pub fields: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Summary,
    Encrypted,
}

// === impl Detail ===

impl<'a> Detail<'a> {
    pub(super) fn read(entry: &'a Value) -> Option<Self> {
        let object = entry.as_object()?;
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        let (kind, text) = match entry["type"].as_str()? {
            "reasoning.text" => (Kind::Text, "text"),
            "reasoning.summary" => (Kind::Summary, "summary"),
            "reasoning.encrypted" => (Kind::Encrypted, ""),
            // Anthropic's block, as LiteLLM passes it on.
            "thinking" => (Kind::Text, "thinking"),
            _ => return None,
        };
        let theirs = match text {
            "thinking" => Some(Dialect::Messages.name()),
            _ => field("format").strip_prefix(FORMAT),
        };
        let state = if kind == Kind::Encrypted { field("data") } else { field("signature") };
        let sealed = theirs.filter(|_| !state.is_empty()).and_then(|name| unseal(name, state));
        let mut fields = object.clone();
        fields.shift_remove(text);
        Some(Self {
            kind,
            text: if text.is_empty() { "" } else { field(text) },
            index: entry["index"].as_u64(),
            id: field("id"),
            sealed,
            is_ours: theirs.is_some() || !object.contains_key("format"),
            fields,
        })
    }
}

/// State as one text: itself where it is one, sealed where it is more.
fn state_text(state: &Opaque) -> String {
    match &state.data {
        Value::String(text) if opaque::open(text).is_none() => text.clone(),
        _ => opaque::seal(state),
    }
}

fn unseal(dialect: &str, text: &str) -> Option<Opaque> {
    let named = |name: &str| Dialect::ALL.into_iter().find(|dialect| dialect.name() == name);
    opaque::open(text)
        .or_else(|| Some(Opaque { dialect: named(dialect)?, data: Value::String(text.to_owned()) }))
}

/// Whether `reasoning_content` alone would lose some of these thoughts.
pub(super) fn need_details(thoughts: &[&Part]) -> bool {
    let plain = |part: &Part| {
        let Content::Reasoning(reasoning) = &part.content else { return true };
        part.opaque.is_none() && !reasoning.summary && !reasoning.redacted
    };
    thoughts.len() > 1 || !thoughts.iter().all(|part| plain(part))
}

/// The entries for one thought, the `index`th of its message.
pub(super) fn entries(part: &Part, index: usize) -> Vec<Value> {
    let Content::Reasoning(reasoning) = &part.content else { return Vec::new() };
    let (kind, name) = match reasoning {
        Reasoning { redacted: true, .. } => ("reasoning.encrypted", "data"),
        Reasoning { summary: true, .. } => ("reasoning.summary", "summary"),
        Reasoning { .. } => ("reasoning.text", "text"),
    };
    match &part.opaque {
        Some(Opaque { dialect: Dialect::Chat, data }) => own_entry(data, name, &reasoning.text),
        Some(state) => sealed_entries(reasoning, kind, name, state, index),
        None if reasoning.redacted => Vec::new(),
        None => vec![json!({ "type": kind, name: reasoning.text, "index": index })],
    }
}

/// A server's own entry with its text put back.
pub(super) fn own_entry(data: &Value, name: &str, text: &str) -> Vec<Value> {
    let Some(fields) = data.as_object().filter(|fields| fields.contains_key("type")) else {
        return Vec::new();
    };
    let mut entry = fields.clone();
    if name != "data" {
        entry.insert(name.to_owned(), text.into());
    }
    vec![Value::Object(entry)]
}

fn sealed_entries(
    reasoning: &Reasoning,
    kind: &str,
    name: &str,
    state: &Opaque,
    index: usize,
) -> Vec<Value> {
    let format = format!("{FORMAT}{}", state.dialect.name());
    let text = state_text(state);
    if reasoning.redacted {
        return vec![json!({ "type": kind, "data": text, "format": format, "index": index })];
    }
    if reasoning.summary {
        // A summary has no field for a signature: the state follows as an entry of its own.
        let summary =
            json!({ "type": kind, name: reasoning.text, "format": format, "index": index });
        let state = json!({
            "type": "reasoning.encrypted", "data": text, "format": format, "index": index,
        });
        return vec![summary, state];
    }
    vec![json!({
        "type": kind, name: reasoning.text, "signature": text, "format": format, "index": index,
    })]
}

/// State beside a call or a text, as `extra_content` of it: a server's own, or ours, sealed.
pub(super) fn extra_content(state: &Opaque) -> Value {
    match state.dialect {
        Dialect::Chat => state.data.clone(),
        Dialect::Responses
        | Dialect::Messages
        | Dialect::Gemini
        | Dialect::Converse
        | Dialect::Cohere => json!({ "switchpoint": opaque::seal(state) }),
    }
}

/// The state in an `extra_content`.
pub(super) fn read_extra(extra: &Value) -> Option<Opaque> {
    if let Some(sealed) = extra["switchpoint"].as_str() {
        return opaque::open(sealed);
    }
    let filled = extra.as_object().is_some_and(|fields| !fields.is_empty());
    filled.then(|| Opaque { dialect: Dialect::Chat, data: extra.clone() })
}
