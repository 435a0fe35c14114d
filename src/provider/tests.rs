//! The catalogue keeps its word: rows are found, and have fixtures that read as they say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::catalog::{CATALOG, find};
use crate::canon::{ChatResponse, Dialect, FinishReason, Part};
use crate::dialect::fold::Fold;
use crate::dialect::sse::Decoder;
use crate::dialect::upstream;

fn fixtures(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a stream's own dialect reads in it, and how many events have data.
fn read_stream(path: &Path, dialect: Dialect) -> (ChatResponse, usize) {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(&fs::read(path).unwrap());
    let mut reader = upstream(dialect).reader();
    let (mut events, mut count) = (Vec::new(), 0);
    while let Some(frame) = decoder.next_frame() {
        let Some(data) = decoder.data(&frame) else { continue };
        count += 1;
        reader.read(decoder.event(&frame), data.trim_ascii(), &mut events).unwrap();
    }
    reader.end(&mut events);
    let mut fold = Fold::default();
    for event in &events {
        fold.add(event);
    }
    (fold.finish().unwrap_or_else(|e| panic!("{}: {e:?}", path.display())), count)
}

fn finish_name(response: &ChatResponse) -> &'static str {
    match response.choices[0].finish.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
        other => panic!("no fixture ends so: {other:?}"),
    }
}

#[test]
fn every_row_is_found_by_its_id_and_no_id_is_used_twice() {
    let ids: BTreeSet<_> = CATALOG.iter().map(|kind| kind.id).collect();
    assert_eq!(ids.len(), CATALOG.len());
    for kind in CATALOG {
        assert_eq!(find(kind.id), Some(kind));
    }
    assert_eq!(find("no-such-provider"), None);
}

#[test]
fn rows_say_the_same_of_stream_options_for_bytes_as_they_are_and_for_translations() {
    for kind in CATALOG {
        let refused = kind.traits.refused.contains(&"stream_options");
        assert_eq!(refused, !kind.quirks.stream_options, "{}", kind.id);
    }
}

#[test]
fn every_base_url_can_have_a_path_put_after_it() {
    for kind in CATALOG.iter().filter(|kind| !kind.base_url.is_empty()) {
        assert!(kind.base_url.starts_with("http"), "{}", kind.id);
        assert!(!kind.base_url.ends_with('/'), "{}", kind.id);
    }
}

#[test]
fn every_row_has_fixtures_and_every_fixture_a_row() {
    let rows: BTreeSet<_> =
        CATALOG.iter().map(|kind| kind.id.to_owned()).filter(|id| id != "demo").collect();
    let mut folders = names(&fixtures("providers"));
    folders.remove("README.md");
    assert_eq!(rows, folders);
}

#[test]
fn fixtures_say_what_their_expectations_say() {
    for kind in CATALOG.iter().filter(|kind| kind.id != "demo") {
        let folder = fixtures("providers").join(kind.id);
        // A row that is not odd needs no expectations: its fixtures are what its dialect says.
        let expect = folder.join("expect.json");
        let expect = if expect.is_file() { json(&expect) } else { continue };
        let (dialect, _) = kind.speaks[0];
        let reply = fs::read(folder.join("reply.json")).unwrap();
        let reply = upstream(dialect).read_response(&reply).unwrap();
        let (stream, count) = read_stream(&folder.join("stream.sse"), dialect);
        for (side, response) in [("reply", &reply), ("stream", &stream)] {
            let (expect, usage) = (&expect[side], response.usage.unwrap());
            assert_eq!(finish_name(response), expect["finish"], "{} {side}", kind.id);
            assert_eq!(usage.input_total(), expect["input_tokens"], "{} {side}", kind.id);
            assert_eq!(usage.output, expect["output_tokens"], "{} {side}", kind.id);
        }
        let parts = &stream.choices[0].parts;
        let text: String = parts.iter().filter_map(Part::as_text).collect();
        assert_eq!(text, expect["stream"]["content"].as_str().unwrap(), "{}", kind.id);
        assert_eq!(count, expect["stream"]["events"], "{}", kind.id);
    }
}

#[test]
fn every_error_fixture_has_a_status_a_body_and_a_class() {
    for kind in CATALOG.iter().filter(|kind| kind.id != "demo") {
        let folder = fixtures("providers").join(kind.id).join("errors");
        let names = names(&folder);
        assert!(!names.is_empty(), "{}", kind.id);
        for name in names {
            let error = json(&folder.join(&name));
            // Below 300 it is reported inside of a success.
            let status = error["status"].as_u64().unwrap();
            assert!(status == 200 || (400..600).contains(&status), "{} {name}", kind.id);
            assert!(error["headers"].is_object() && !error["body"].is_null(), "{name}");
            assert!(error["class"].is_string() && error["next"].is_string(), "{name}");
            assert!(error.get("wait").is_some(), "{} {name}", kind.id);
        }
    }
}

#[test]
fn every_odd_stream_is_described_and_every_description_has_a_stream() {
    let folder = fixtures("streams");
    let expect = json(&folder.join("expect.json"));
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let described: BTreeSet<_> = expect.as_object().unwrap().keys().cloned().collect();
    let streams: BTreeSet<_> = names(&folder)
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "sse"))
        .collect();
    assert_eq!(described, streams);
    assert!(streams.iter().all(|name| readme.contains(&format!("`{name}`"))));
}
