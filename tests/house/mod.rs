//! The rules of the source tree that clippy cannot see, read from the tree itself.
//!
//! Each check is a pure function from text to complaints, beside a test that feeds it a
//! violation, so that a green run means something. There is no list of exceptions.

mod catalogue;
mod documents;
mod layers;
mod metrics;
mod owners;
mod questions;
mod shape;
mod source;

use std::path::{Path, PathBuf};

/// One broken rule, ready to be read: `path:line: what is wrong and what to do`.
type Complaint = String;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn assert_clean(complaints: &[Complaint]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[track_caller]
fn assert_complains(complaints: &[Complaint], expected: &[&str]) {
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, fragment) in complaints.iter().zip(expected) {
        assert!(complaint.contains(fragment), "{complaint:?} does not say {fragment:?}");
    }
}
