//! A function whose name asks a question answers it, and changes nothing.

use super::source::{Source, Token};
use super::{Complaint, assert_clean, assert_complains};

/// What begins like this is a question.
const QUESTIONS: [&str; 4] = ["is_", "has_", "must_", "was_"];

/// The place behind the brackets that open at `from`.
fn behind(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        if token.is("(") {
            depth += 1;
        } else if token.is(")") {
            depth -= 1;
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn complaint(path: &str, tokens: &[Token], at: usize) -> Option<Complaint> {
    let name = tokens.get(at + 1)?.word()?;
    let asks = QUESTIONS.iter().any(|question| name.starts_with(question));
    if !asks || tokens[at].word() != Some("fn") {
        return None;
    }
    let open = at + tokens[at..].iter().position(|token| token.is("("))?;
    let close = behind(tokens, open);
    // Not `mut self`, which changes nobody else's.
    let changes = tokens[open..close].windows(3).any(|three| {
        !three[0].is("(") && three[1].word() == Some("mut") && three[2].word() == Some("self")
    });
    let is_silent = !(tokens.get(close)?.is("-") && tokens.get(close + 1)?.is(">"));
    let line = tokens[at].line;
    if changes {
        return Some(format!(
            "{path}:{line}: `{name}` asks, and takes `&mut self`; say what it does"
        ));
    }
    is_silent
        .then(|| format!("{path}:{line}: `{name}` asks, and returns nothing; say what it does"))
}

fn complaints(path: &str, source: &Source) -> Vec<Complaint> {
    (0..source.tokens.len()).filter_map(|at| complaint(path, &source.tokens, at)).collect()
}

#[test]
fn who_asks_changes_nothing_and_gets_an_answer() {
    let folder = |folder: &'static str| {
        let named = |file: &Source| complaints(&format!("{folder}/{}", file.path), file);
        Source::all(folder).iter().flat_map(named).collect::<Vec<_>>()
    };
    assert_clean(&["src", "tests", "benches"].map(folder).concat());
}

#[test]
fn a_question_that_changes_something_or_returns_nothing_is_caught() {
    let text = "impl A {\n fn is_b<'a>(&'a mut self) -> bool { c() }\n fn has_d<T>(&self, e: (F, T)) {}\n\
                fn must_g(&self, h: fn() -> bool);\n fn was_i(&self) -> bool { j() }\n\
                fn isolate(&mut self) {}\n}\nfn is_k(l: &mut M) -> bool { n() }";
    let caught = complaints("a.rs", &Source::new("a.rs", text));
    assert_complains(&caught, &["`is_b`", "`has_d`", "`must_g`"]);
}
