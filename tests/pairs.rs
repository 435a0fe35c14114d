//! One conversation as every client spells it, put to every provider, and every provider's answer
//! given to every client, whole and streamed: each pair of dialects must write what its file in
//! `tests/fixtures/dialects/pairs` holds, byte for byte.
//!
//! `SWITCHPOINT_BLESS=1 cargo test --test main pairs` writes the files anew. Read what changed
//! before you commit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use switchpoint::canon::{ChatRequest, Dialect, Surface};
use switchpoint::dialect::fold::unfold;
use switchpoint::dialect::{Aim, Context, client, upstream};
use switchpoint::provider::catalog::CATALOG;

/// What clients speak, by the name of their folder.
const CLIENTS: [(&str, Surface); 5] = [
    ("chat", Surface::Chat),
    ("completions", Surface::Completions),
    ("gemini", Surface::Generate),
    ("messages", Surface::Messages),
    ("responses", Surface::Responses),
];

/// What providers speak, with a row of the catalogue and a model that takes most.
pub(crate) const PROVIDERS: [(Dialect, &str, &str); 6] = [
    (Dialect::Chat, "openai", "gpt-5.4"),
    (Dialect::Responses, "openai", "gpt-5.4"),
    (Dialect::Messages, "anthropic", "claude-sonnet-4-5"),
    (Dialect::Gemini, "gemini", "gemini-3-pro-preview"),
    (Dialect::Converse, "bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    (Dialect::Cohere, "cohere", "command-a-reasoning-08-2025"),
];

/// The files of each pair, by their paths in the folder.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/dialects/pairs")
}

fn question(name: &str, surface: Surface) -> ChatRequest {
    let body = std::fs::read(folder().join("asked").join(name).with_extension("json")).unwrap();
    client(surface).read_request(&body).unwrap()
}

/// Laid out for people; the order of the fields is the writer's.
fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn asked(files: &mut Files) {
    for (name, surface) in CLIENTS {
        let request = question(name, surface);
        for (dialect, provider, model) in PROVIDERS {
            let row = CATALOG.iter().find(|kind| kind.id == provider).unwrap();
            let aim = Aim { model, traits: &row.traits, cache: None };
            let file = match upstream(dialect).write_request(&request, &aim) {
                Ok(written) => {
                    let body: Value = serde_json::from_slice(&written.body).unwrap();
                    json!({ "dropped": written.dropped, "body": body })
                }
                Err(cause) => json!({ "refused": cause.to_string() }),
            };
            let path = Path::new(name).join(format!("{}.asked.json", dialect.name()));
            files.insert(path, pretty(&file));
        }
    }
}

fn answered(files: &mut Files) {
    for (dialect, _, model) in PROVIDERS {
        let path = folder().join("answered").join(dialect.name()).with_extension("json");
        let answer = upstream(dialect).read_response(&std::fs::read(path).unwrap()).unwrap();
        for (name, surface) in CLIENTS {
            let request = question(name, surface);
            let context = Context {
                previous: None,
                id: "0123456789abcdef0123456789abcdef",
                created: 1_700_000_000,
                model,
                input_estimate: 90,
                request: &request,
            };
            let whole = client(surface).write_response(&answer, &context);
            let (mut writer, mut stream) = (client(surface).writer(&context), Vec::new());
            for event in unfold(&answer) {
                writer.write(&event, &mut stream);
            }
            let path = |ending| Path::new(name).join(format!("{}.{ending}", dialect.name()));
            files.insert(path("answered.json"), pretty(&serde_json::from_slice(&whole).unwrap()));
            files.insert(path("answered.sse"), stream);
        }
    }
}

/// What lies in the folders of the clients.
fn kept() -> Files {
    let mut files = Files::new();
    for (name, _) in CLIENTS {
        let Ok(entries) = std::fs::read_dir(folder().join(name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path.strip_prefix(folder()).unwrap().to_owned(), bytes);
        }
    }
    files
}

#[test]
fn every_pair_of_dialects_writes_what_was_found_right() {
    let mut files = Files::new();
    asked(&mut files);
    answered(&mut files);
    if std::env::var_os("SWITCHPOINT_BLESS").is_some() {
        for (path, bytes) in &files {
            let path = folder().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let kept = kept();
    let wrong = files.keys().chain(kept.keys()).filter(|path| files.get(*path) != kept.get(*path));
    let wrong: Vec<_> = wrong.map(|path| path.display().to_string()).collect();
    assert!(wrong.is_empty(), "not as in the files (see the head of this test): {wrong:#?}");
}
