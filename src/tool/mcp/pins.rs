//! Which description of each tool was approved. A server that changes it afterwards has another
//! tool, whatever it calls it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::canon::Owner;
use crate::store::{Draft, ObjectKind, Store};
use crate::tool::canonical;

/// Pins of one server that are read at once.
const PAGE: u32 = 10_000;

/// Digits of a digest that tell one description from another.
const VERSION: usize = 12;
/// What clients of `/mcp` are shown of a tool, and models are not.
const NOTES: [&str; 3] = ["title", "annotations", "_meta"];

/// A tool as its server describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) input: Value,
    pub(super) output: Option<Value>,
    /// What else is said of it; unknown of what was approved before that was looked at.
    #[serde(default)]
    pub(super) notes: Option<Map<String, Value>>,
}

/// What is approved of one server.
#[derive(Debug)]
pub(super) struct Pins {
    owner: Owner,
    store: Store,
}

// === impl Seen ===

impl Seen {
    pub(super) fn of(tool: &rmcp::model::Tool) -> Self {
        let object = |it: &Arc<serde_json::Map<String, Value>>| Value::Object((**it).clone());
        let description = tool.description.as_deref().or(tool.title.as_deref());
        let mut told = serde_json::to_value(tool).unwrap_or_default();
        let note = |key: &str| Some((key.to_owned(), told.get_mut(key)?.take()));
        let notes = NOTES.into_iter().filter_map(note).collect();
        Self {
            name: tool.name.clone().into_owned(),
            description: description.unwrap_or_default().to_owned(),
            input: object(&tool.input_schema),
            output: tool.output_schema.as_ref().map(object),
            notes: Some(notes),
        }
    }

    /// Which one it is for models, in short.
    pub(super) fn version(&self) -> String {
        let mut digest = self.bare().digest();
        digest.truncate(VERSION);
        digest
    }

    /// As models are shown it.
    fn bare(&self) -> Self {
        Self { notes: None, ..self.clone() }
    }

    /// The same for the same description, however it is written.
    pub(super) fn digest(&self) -> String {
        let Self { name, description, input, output, notes } = self;
        let mut all =
            json!({"name": name, "description": description, "input": input, "output": output});
        if let Some(notes) = notes.as_ref().filter(|notes| !notes.is_empty()) {
            all["notes"] = json!(notes);
        }
        let mut digits = String::new();
        for byte in Sha256::digest(canonical(&all)) {
            let _ = write!(digits, "{byte:02x}");
        }
        digits
    }
}

// === impl Pins ===

impl Pins {
    pub(super) fn new(server: &str, store: &Store) -> Self {
        Self { owner: Owner::new(format!("mcp:{server}")), store: store.clone() }
    }

    /// Those that are not as they were approved, as they were. What was never seen is approved.
    pub(super) async fn compare(&self, seen: &[Seen]) -> Result<BTreeMap<String, Seen>, String> {
        let objects = self.store.list(&self.owner, ObjectKind::ToolPin, None, PAGE).await;
        let objects = objects.map_err(|error| format!("pins cannot be read: {error}"))?;
        let approved: BTreeMap<String, Seen> = objects
            .into_iter()
            .filter_map(|object| Some((object.id, serde_json::from_slice(&object.value).ok()?)))
            .collect();
        let mut drifted = BTreeMap::new();
        for tool in seen {
            match approved.get(&tool.name) {
                None => self.put(tool).await?,
                Some(pin) if pin.notes.is_none() && pin.digest() == tool.bare().digest() => {
                    self.put(tool).await?;
                }
                Some(pin) if pin.digest() == tool.digest() => {}
                Some(pin) => {
                    drifted.insert(tool.name.clone(), pin.clone());
                }
            }
        }
        Ok(drifted)
    }

    pub(super) async fn put(&self, seen: &Seen) -> Result<(), String> {
        let value = Bytes::from(serde_json::to_vec(seen).unwrap_or_default());
        let draft = Draft { id: seen.name.clone(), value, expires_at: None };
        let put = self.store.put(&self.owner, ObjectKind::ToolPin, draft).await;
        put.map_err(|error| format!("pins cannot be kept: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, StoreUrl};

    fn seen(more: &Value) -> Seen {
        let mut tool = json!({"name": "echo", "inputSchema": {"type": "object"}});
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Seen::of(&serde_json::from_value(tool).unwrap())
    }

    #[tokio::test]
    async fn all_that_a_server_says_of_a_tool_is_approved_with_it() {
        let store = Store::open(&config::Store::at(StoreUrl::Memory)).unwrap();
        let pins = Pins::new("small", &store);
        let first = seen(&json!({"description": "Echo", "title": "Echo"}));
        // As it was kept when nobody looked at what else is said.
        let mut kept = json!(first);
        kept.as_object_mut().unwrap().remove("notes");
        let (id, value) = ("echo".to_owned(), Bytes::from(kept.to_string()));
        let draft = Draft { id, value, expires_at: None };
        store.put(&pins.owner, ObjectKind::ToolPin, draft).await.unwrap();
        for _ in 0..2 {
            assert!(pins.compare(std::slice::from_ref(&first)).await.unwrap().is_empty());
        }
        for more in [
            json!({"title": "Delete all"}),
            json!({"annotations": {"readOnlyHint": true}}),
            json!({"_meta": {"shown": "as"}}),
        ] {
            let mut told = json!({"description": "Echo", "title": "Echo"});
            told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let other = seen(&told);
            assert_eq!(other.version(), first.version(), "models are shown the same");
            let drifted = pins.compare(&[other]).await.unwrap();
            assert_eq!(drifted.get("echo"), Some(&first), "{more}");
        }
    }
}
