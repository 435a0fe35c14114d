//! The tables agree with the files beside them: providers with fixtures, the example with its reader.

use super::owners::stray_ids;
use super::source::Source;
use super::{Complaint, assert_clean, assert_complains, root};
use std::collections::BTreeSet;
use std::process::Command;
use switchpoint::provider::catalog::CATALOG;

const FIXTURES: [&str; 3] = ["reply.json", "stream.sse", "errors"];

/// Names with a second meaning: dialects, and the provider built in.
const SHARED_NAMES: [&str; 4] = ["openai", "demo", "gemini", "cohere"];

fn ids() -> Vec<&'static str> {
    CATALOG.iter().map(|kind| kind.id).collect()
}

/// `files` holds `id/file` of every fixture there is.
fn fixtures(ids: &[&str], files: &BTreeSet<String>) -> Vec<Complaint> {
    let wanted = ids.iter().filter(|id| **id != "demo");
    let missing = wanted
        .flat_map(|id| FIXTURES.map(|file| format!("{id}/{file}")))
        .filter(|file| !files.contains(file))
        .map(|file| format!("tests/fixtures/providers/{file} is missing"));
    let folders: BTreeSet<&str> = files.iter().filter_map(|file| file.split('/').next()).collect();
    let strays = folders.into_iter().filter(|folder| !ids.contains(folder));
    missing.chain(strays.map(|id| format!("the fixtures of `{id}` have no row"))).collect()
}

#[test]
fn every_row_has_its_fixtures_and_every_fixture_its_row() {
    let base = root().join("tests/fixtures/providers");
    let mut files = BTreeSet::new();
    let entries = std::fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().path());
    for folder in entries.filter(|path| path.is_dir()) {
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            files.insert(file.strip_prefix(&base).unwrap().display().to_string());
        }
    }
    assert_clean(&fixtures(&ids(), &files));
}

#[test]
fn provider_ids_stand_only_in_the_catalogue() {
    let ids: Vec<_> = ids().into_iter().filter(|id| !SHARED_NAMES.contains(id)).collect();
    let sources = Source::all("src");
    assert_clean(&sources.iter().flat_map(|file| stray_ids(&ids, file)).collect::<Vec<_>>());
}

#[test]
fn the_example_config_passes_the_check_with_nothing_around_it() {
    let mut check = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    let output = check.env_clear().arg("check").arg(root().join("config.example.toml")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_row_without_fixtures_and_fixtures_without_a_row_are_caught() {
    let files = ["groq/reply.json", "groq/stream.sse", "gone/reply.json"];
    let files = files.map(str::to_owned).into_iter().collect();
    let expected = ["groq/errors is missing", "`gone` have no row"];
    assert_complains(&fixtures(&["groq", "demo"], &files), &expected);
}
