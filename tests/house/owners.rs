//! Every outside crate lives in a few rooms, so that swapping it touches only those.

use super::source::{Source, Text};
use super::{Complaint, assert_clean, assert_complains};

/// A crate stands for its family too: `hyper` also means `hyper_util`.
const OWNERS: &[(&str, &[&str])] = &[
    ("hyper", &["net", "http", "gateway"]),
    ("http_body", &["net", "http", "gateway", "provider"]),
    // Reads keys out of PEM, wherever they are for.
    ("rustls_pki_types", &["net", "provider", "store"]),
    // Tells why a peer ended a stream.
    ("h2", &["net"]),
    ("rustls", &["net"]),
    ("tokio_rustls", &["net", "store"]),
    ("webpki_roots", &["net"]),
    ("httparse", &["net"]),
    ("socket2", &["net"]),
    ("flate2", &["net"]),
    ("aws_smithy_eventstream", &["dialect"]),
    ("aws", &["provider"]),
    // In `net` it is the provider of that name inside of rustls.
    ("ring", &["net", "provider", "access", "guard", "agent"]),
    ("base64", &["dialect", "provider", "access", "tool", "agent", "cli"]),
    ("getrandom", &["access", "gateway", "cli"]),
    ("rlimit", &["cli"]),
    ("humantime", &["gateway", "telemetry", "agent", "http", "provider"]),
    ("httpdate", &["provider"]),
    ("percent_encoding", &["http", "provider", "tool", "config"]),
    // Addresses and encodings as the web has them.
    ("url", &["tool"]),
    ("encoding_rs", &["tool"]),
    (
        "sha2",
        &["config", "store", "access", "cache", "provider", "tool", "gateway", "agent", "http"],
    ),
    ("strsim", &["config", "route"]),
    ("uuid", &["canon"]),
    // Exact arithmetic, and JSON numbers as RFC 8785 writes them.
    ("rust_decimal", &["tool"]),
    ("ryu_js", &["tool"]),
    // Calendars and their zones.
    ("jiff", &["config", "access", "tool"]),
    ("ipnet", &["config", "access"]),
    ("aho_corasick", &["route", "guard"]),
    ("memchr", &["dialect", "store", "tool"]),
    ("tiktoken", &["dialect"]),
    // What may be said: regular expressions, languages and schemas.
    ("regex_automata", &["guard"]),
    ("regex_syntax", &["guard"]),
    ("whatlang", &["guard"]),
    ("unicode_normalization", &["guard"]),
    ("jsonschema", &["guard", "tool"]),
    ("prometheus", &["telemetry"]),
    ("governor", &["telemetry", "tool"]),
    ("procfs", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("rusqlite", &["store"]),
    ("redis", &["store"]),
    ("tokio_postgres", &["store"]),
    ("crc32fast", &["store"]),
    ("foldhash", &["cache"]),
    ("moka", &["access", "cache", "tool", "gateway"]),
    ("cel", &["route"]),
    ("toml", &["config"]),
    ("notify", &["config"]),
    ("std::env", &["config"]),
    ("arc_swap", &["access", "gateway"]),
    ("tower", &["http", "net"]),
    // The Model Context Protocol, and the events of its streams.
    ("rmcp", &["tool", "http"]),
    ("sse_stream", &["tool"]),
    // Ends what was started, with all that belongs to it.
    ("rustix", &["tool", "cli"]),
    ("clap", &["cli"]),
    // The files of other gateways are YAML, and descriptions of APIs.
    ("serde_saphyr", &["cli", "tool"]),
    ("tikv_jemallocator", &["main"]),
];

/// Shutdown waits for the tasks this file knows, and for no others.
const SPAWNER: &str = "net/tasks.rs";

fn owners(source: &Source) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for path in source.paths() {
        // A lone word is a variable or a field, except for `use prometheus;`, which gains nothing.
        let [first, second, ..] = path.segments.as_slice() else { continue };
        let written = if first == "std" { format!("std::{second}") } else { first.clone() };
        let owned = OWNERS.iter().find(|(name, _)| {
            written == *name || written.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'))
        });
        let Some((_, rooms)) = owned else { continue };
        if !rooms.contains(&source.room()) {
            let (file, line, rooms) = (&source.path, path.line, rooms.join("`, `"));
            complaints.push(format!("src/{file}:{line}: `{written}` belongs to `{rooms}`"));
        }
    }
    complaints
}

fn background_work(source: &Source) -> Vec<Complaint> {
    let file = &source.path;
    let mut complaints = Vec::new();
    for path in source.paths() {
        let last = path.segments.last().map_or("", String::as_str);
        let from_tokio = matches!(path.segments[0].as_str(), "tokio" | "task");
        if from_tokio && last.starts_with("spawn") && file != SPAWNER {
            let line = path.line;
            complaints.push(format!("src/{file}:{line}: `{last}` belongs to src/{SPAWNER}"));
        }
    }
    for token in &source.tokens {
        if let Text::Word(word) = &token.text
            && word.to_lowercase().starts_with("unbounded")
        {
            complaints.push(format!("src/{file}:{}: `{word}` has no bound", token.line));
        }
    }
    complaints
}

/// Provider ids are data: a second home for one is a second place to change.
pub(super) fn stray_ids(ids: &[&str], source: &Source) -> Vec<Complaint> {
    let file = &source.path;
    let at_home = |id: &str| {
        let own = format!("provider/{}", id.replace('-', "_"));
        let named = file.strip_prefix(&own);
        file == "provider/catalog.rs"
            // It asks the local servers on their usual ports, and only these have one.
            || (file == "config/discover.rs" && matches!(id, "ollama" | "vllm"))
            // A publisher on Vertex AI is called as its own provider is.
            || (file == "provider/vertex.rs" && id == "anthropic")
            || named.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    let mut complaints = Vec::new();
    for token in &source.tokens {
        let Some(id) = token.string().filter(|text| ids.contains(text)) else { continue };
        if !at_home(id) {
            let line = token.line;
            complaints.push(format!("src/{file}:{line}: \"{id}\" belongs to provider/catalog.rs"));
        }
    }
    complaints
}

#[test]
fn every_outside_crate_stays_in_its_rooms() {
    assert_clean(&Source::all("src").iter().flat_map(owners).collect::<Vec<_>>());
}

#[test]
fn an_outside_crate_in_a_foreign_room_is_caught() {
    let caught = |path, text| owners(&Source::new(path, text));
    let text = "use hyper_util::rt::TokioIo; #[derive(clap::Args)] struct A { b: toml::Value }";
    assert_complains(&caught("route/mod.rs", text), &["hyper_util", "clap", "toml"]);
    assert_complains(&caught("cli/mod.rs", "use std::{env, fs};"), &["`std::env` belongs to"]);
    assert_complains(&caught("lib.rs", "static A: tikv_jemallocator::X = 1;"), &["`main`"]);
    assert_clean(&caught("net/mod.rs", "use hyper::body::Body; use tower_service::Service;"));
    assert_clean(&caught("route/mod.rs", "fn f(toml: u8) -> u8 { toml } use crate::tower::x;"));
    assert_clean(&caught("route/mod.rs", "#[cfg(test)]\nmod tests { use hyper::body; }"));
}

#[test]
fn background_work_is_named_counted_and_bounded() {
    assert_clean(&Source::all("src").iter().flat_map(background_work).collect::<Vec<_>>());
}

#[test]
fn a_loose_task_and_an_unbounded_channel_are_caught() {
    let caught = |path, text| background_work(&Source::new(path, text));
    let text = "fn f() { tokio::spawn(x); task::spawn_local(x); mpsc::unbounded_channel::<u8>(); }";
    let expected = ["`spawn`", "`spawn_local`", "`unbounded_channel`"];
    assert_complains(&caught("http/mod.rs", text), &expected);
    assert_clean(&caught("net/tasks.rs", "fn f() { tokio::spawn(x); }"));
    assert_clean(&caught("http/mod.rs", "fn f() { tasks.spawn(x); std::thread::spawn(y); }"));
}

#[test]
fn a_provider_id_away_from_home_is_caught() {
    let caught = |path, text| stray_ids(&["groq", "ollama"], &Source::new(path, text));
    let text = "//! Not \"groq\".\nfn f() { x == \"groq\"; y == \"groq is\"; }";
    assert_complains(&caught("gateway/relay.rs", text), &["gateway/relay.rs:2: \"groq\""]);
    assert_complains(&caught("config/discover.rs", "const A: &str = \"groq\";"), &["groq"]);
    assert_clean(&caught("config/discover.rs", "const A: &str = \"ollama\";"));
    assert_clean(&caught("provider/groq.rs", text));
    assert_clean(&caught("gateway/relay.rs", "#[cfg(test)]\nmod tests { const A: X = \"groq\"; }"));
}
