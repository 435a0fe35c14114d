//! The order of `lib.rs` is the architecture: a module uses only those listed before it.

use super::source::{Named, Source};
use super::{Complaint, assert_clean, assert_complains, read, root};

/// These state what they need in types of their own; only `gateway` knows several of them.
const STRANGERS: [&str; 6] = ["provider", "access", "guard", "cache", "route", "tool"];

/// Functions over bytes: they can be fuzzed, and are the same on every machine and day.
const PURE_ROOMS: [&str; 2] = ["canon", "dialect"];
const IMPURE: [&str; 11] = [
    "tokio",
    "hyper",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    // A point in time is data; asking for it is not.
    "std::time::SystemTime::now",
    "SystemTime::now",
];

pub(super) fn modules(lib: &str) -> Vec<String> {
    let declaration = |line: &str| {
        let name = line.trim().strip_prefix("pub mod ")?.split(';').next()?;
        Some(name.trim().to_owned())
    };
    lib.lines().filter_map(declaration).collect()
}

/// The module of `lib.rs` that a path reaches, if it reaches one.
fn reached(source: &Source, path: &Named) -> Option<String> {
    let first = path.segments.first()?;
    if first == "crate" {
        return path.segments.get(1).cloned();
    }
    let climbs = path.segments.iter().take_while(|segment| *segment == "super").count();
    let file = source.path.strip_suffix(".rs")?;
    let module = file.strip_suffix("/mod").unwrap_or(file);
    (climbs > 0 && climbs == module.split('/').count())
        .then(|| path.segments.get(climbs).cloned())?
}

fn order(modules: &[String], source: &Source) -> Vec<Complaint> {
    let place = |name: &str| modules.iter().position(|module| module == name);
    let Some(own) = place(source.room()) else { return Vec::new() };
    let mut complaints = Vec::new();
    for path in source.paths() {
        let Some(name) = reached(source, &path) else { continue };
        let Some(other) = place(&name) else { continue };
        let strangers = STRANGERS.contains(&name.as_str()) && STRANGERS.contains(&source.room());
        let wrong = if other > own {
            "is listed after it in lib.rs; what both need belongs lower"
        } else if other != own && strangers {
            "is a stranger to it; `gateway` brings them together"
        } else {
            continue;
        };
        let (file, line, room) = (&source.path, path.line, source.room());
        complaints.push(format!("src/{file}:{line}: `{room}` uses `{name}`, which {wrong}"));
    }
    complaints
}

fn purity(source: &Source) -> Vec<Complaint> {
    if !PURE_ROOMS.contains(&source.room()) {
        return Vec::new();
    }
    let offends = |path: &Named| {
        let written = format!("{}::", path.segments.join("::"));
        IMPURE.iter().find(|name| written.starts_with(&format!("{name}::")))
    };
    let complaint = |path: &Named| {
        let (file, line, room, name) = (&source.path, path.line, source.room(), offends(path)?);
        Some(format!("src/{file}:{line}: `{room}` is pure and may not use `{name}`"))
    };
    source.paths().iter().filter_map(complaint).collect()
}

#[test]
fn every_module_uses_only_those_listed_before_it() {
    let modules = modules(&read(&root().join("src/lib.rs")));
    let sources = Source::all("src");
    assert_clean(&sources.iter().flat_map(|source| order(&modules, source)).collect::<Vec<_>>());
    assert_clean(&sources.iter().flat_map(purity).collect::<Vec<_>>());
}

#[test]
fn an_upward_import_is_caught_however_it_is_spelled() {
    let modules = modules("pub mod error; // one\npub mod net;\npub mod http;\n");
    let caught = |path, text| order(&modules, &Source::new(path, text));
    assert_complains(&caught("net/tls.rs", "use crate::http::Door;"), &["`net` uses `http`"]);
    assert_complains(&caught("net/tls.rs", "use crate::{error, http::Door};"), &["`http`"]);
    assert_complains(&caught("net/tls.rs", "use super::super::http;"), &["`http`"]);
    assert_complains(&caught("net/mod.rs", "fn f() { super::http::open(); }"), &["`http`"]);
    assert_complains(&caught("error.rs", "\nfn f() { x(crate::net::y) }"), &["src/error.rs:2: "]);
    assert_clean(&caught("http/mod.rs", "use crate::net::{self, tls}; use super::error;"));
    assert_clean(&caught("net/tls.rs", "use super::http; use self::http;"));
    assert_clean(&caught("net/tls.rs", "#[cfg(test)]\nmod tests { use crate::http; }"));
}

#[test]
fn strangers_are_caught_meeting_in_either_direction() {
    let modules = modules("pub mod provider;\npub mod route;\n");
    let caught = |path, text| order(&modules, &Source::new(path, text));
    assert_complains(&caught("route/plan.rs", "use crate::provider::Kind;"), &["a stranger"]);
    assert_complains(&caught("provider/mod.rs", "use crate::route::Plan;"), &["listed after it"]);
}

#[test]
fn a_clock_or_a_socket_in_a_pure_room_is_caught() {
    let caught = |path, text| purity(&Source::new(path, text));
    let text = "use std::{fs, time::{Duration, Instant}}; use tokio::net::TcpStream;";
    assert_complains(&caught("dialect/sse.rs", text), &["std::fs", "time::Instant", "`tokio`"]);
    assert_clean(&caught("net/tls.rs", text));
}
