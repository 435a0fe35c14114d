//! Each file opens with a sentence, fits in a head, and is named after what it holds.

use super::source::Source;
use super::{Complaint, assert_clean, assert_complains};

/// The house asks for 400; beyond this a file has stopped being one subject.
const LONGEST: usize = 600;

/// Names that say where things were dropped, not what they are.
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "types", "manager", "managers"];

fn opening(path: &str, text: &str) -> Option<Complaint> {
    let sentence = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    let words = sentence.map_or(0, |sentence| sentence.split_whitespace().count());
    (words < 3).then(|| format!("{path}: opens without a `//!` sentence a stranger understands"))
}

fn length(path: &str, source: &Source) -> Option<Complaint> {
    let lines = source.text.lines().count().saturating_sub(source.test_lines);
    (lines > LONGEST).then(|| format!("{path}: {lines} lines without tests; split it by subject"))
}

fn name(path: &str) -> Option<Complaint> {
    let empty = |part: &&str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
    let part = path.split('/').find(empty)?;
    Some(format!("{path}: `{part}` names nothing; say what is in it"))
}

fn all() -> impl Iterator<Item = (String, Source)> {
    let folder = |folder: &'static str| {
        Source::all(folder).into_iter().map(move |file| (format!("{folder}/{}", file.path), file))
    };
    ["src", "tests", "benches"].into_iter().flat_map(folder)
}

#[test]
fn every_file_opens_with_a_sentence() {
    assert_clean(&all().filter_map(|(path, file)| opening(&path, &file.text)).collect::<Vec<_>>());
}

#[test]
fn no_file_outgrows_one_head() {
    assert_clean(&all().filter_map(|(path, file)| length(&path, &file)).collect::<Vec<_>>());
}

#[test]
fn no_file_or_folder_has_an_empty_name() {
    assert_clean(&all().filter_map(|(path, _)| name(&path)).collect::<Vec<_>>());
}

#[test]
fn a_missing_sentence_a_long_file_and_an_empty_name_are_caught() {
    assert!(opening("a.rs", "use b;\n//! Too late to help anyone.").is_some());
    assert!(opening("a.rs", "//! Utilities.").is_some());
    assert!(opening("a.rs", "//! Says when to retry.").is_none());

    let body = "fn f() {}\n".repeat(LONGEST);
    let with_tests = format!("{body}#[cfg(test)]\nmod tests {{\n{body}}}\n");
    assert!(length("a.rs", &Source::new("a.rs", &format!("{body}fn g() {{}}\n"))).is_some());
    assert!(length("a.rs", &Source::new("a.rs", &with_tests)).is_none());

    let caught: Vec<_> = ["src/net/utils.rs", "src/types/a.rs", "src/net/tls.rs"]
        .into_iter()
        .filter_map(name)
        .collect();
    assert_complains(&caught, &["`utils.rs`", "`types`"]);
}
