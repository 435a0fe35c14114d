//! A Rust file as the checks see it: tokens without comments and without its tests.

use super::{read, root};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::path::Path;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Text {
    Word(String),
    Mark(String),
    Literal(String),
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) text: Text,
}

/// A path as written, with the braces of a `use` spread out: `a::{b, c::d}` is two.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the folder it was read from: `gateway/pipeline.rs`.
    pub(super) path: String,
    pub(super) text: String,
    /// What ships: nothing below a `#[cfg(test)]`.
    pub(super) tokens: Vec<Token>,
    pub(super) test_lines: usize,
}

// === impl Token ===

impl Token {
    pub(super) fn is(&self, mark: &str) -> bool {
        matches!(&self.text, Text::Mark(text) if text == mark)
    }

    pub(super) fn word(&self) -> Option<&str> {
        if let Text::Word(word) = &self.text { Some(word) } else { None }
    }

    /// The inside of a string literal, however it is quoted.
    pub(super) fn string(&self) -> Option<&str> {
        let Text::Literal(literal) = &self.text else { return None };
        let (start, end) = (literal.find('"')?, literal.rfind('"')?);
        literal.get(start + 1..end)
    }
}

// === impl Source ===

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut all = Vec::new();
        flatten(stream, &mut all);
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let (tokens, test_lines) =
            if is_test { (Vec::new(), text.lines().count()) } else { without_tests(&all) };
        Self { path: path.to_owned(), text: text.to_owned(), tokens, test_lines }
    }

    /// Every Rust file below a folder of the project, in the order of their paths.
    pub(super) fn all(folder: &str) -> Vec<Self> {
        let base = root().join(folder);
        let mut paths = Vec::new();
        collect(&base, &mut paths);
        paths.sort();
        let relative = |path: &Path| path.strip_prefix(&base).unwrap().display().to_string();
        paths.iter().map(|path| Self::new(&relative(path), &read(path))).collect()
    }

    /// The module of `lib.rs` this file belongs to: `net` for `net/tls.rs`.
    pub(super) fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub(super) fn paths(&self) -> Vec<Named> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < self.tokens.len() {
            at = read_path(&self.tokens, at, &[], &mut found);
        }
        found
    }
}

fn collect(folder: &Path, paths: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let text = match tree {
            TokenTree::Ident(word) => Text::Word(word.to_string()),
            TokenTree::Literal(literal) => Text::Literal(literal.to_string()),
            TokenTree::Punct(mark) => {
                let second = mark.as_char() == ':' && tokens.pop_if(|last| last.is(":")).is_some();
                Text::Mark(if second { "::".to_owned() } else { mark.to_string() })
            }
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                tokens.push(Token { line, text: Text::Mark(open.to_owned()) });
                flatten(group.stream(), tokens);
                let line = group.span_close().end().line;
                tokens.push(Token { line, text: Text::Mark(close.to_owned()) });
                continue;
            }
        };
        tokens.push(Token { line, text });
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::None => ("", ""),
    }
}

/// Drops each item marked `#[cfg(test)]` and counts the lines that went with it.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    let (mut kept, mut lines, mut at) = (Vec::new(), 0, 0);
    while let Some(token) = tokens.get(at) {
        if starts_test(&tokens[at..]) {
            let end = item_end(tokens, at + 7);
            lines += tokens[end].line - token.line + 1;
            at = end + 1;
        } else {
            kept.push(token.clone());
            at += 1;
        }
    }
    (kept, lines)
}

fn starts_test(tokens: &[Token]) -> bool {
    let attribute = tokens.iter().take(7).map(|token| match &token.text {
        Text::Word(text) | Text::Mark(text) | Text::Literal(text) => text.as_str(),
    });
    attribute.eq(["#", "[", "cfg", "(", "test", ")", "]"])
}

/// The item ends with its first `;` or closing `}` outside all brackets.
fn item_end(tokens: &[Token], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        let Text::Mark(mark) = &token.text else { continue };
        match mark.as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (mark == ";" || mark == "}") {
            return at;
        }
    }
    tokens.len() - 1
}

/// Reads the path that starts here, if one does, and says where to go on.
fn read_path(tokens: &[Token], from: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let (mut segments, mut at) = (before.to_vec(), from);
    loop {
        match tokens.get(at) {
            Some(token) if token.word().is_some() => {
                segments.extend(token.word().map(str::to_owned));
                at += 1;
            }
            Some(token) if token.is("{") && !segments.is_empty() && at > from => {
                return read_group(tokens, at + 1, &segments, found);
            }
            _ => break,
        }
        if !tokens.get(at).is_some_and(|token| token.is("::")) {
            break;
        }
        at += 1;
    }
    if segments.len() > before.len() {
        found.push(Named { line: tokens[from].line, segments });
    }
    at.max(from + 1)
}

fn read_group(tokens: &[Token], from: usize, before: &[String], found: &mut Vec<Named>) -> usize {
    let mut at = from;
    while let Some(token) = tokens.get(at) {
        if token.is("}") {
            return at + 1;
        }
        at = read_path(tokens, at, before, found);
    }
    at
}

#[test]
fn braces_are_spread_and_comments_strings_and_tests_are_not_seen() {
    let source = Source::new(
        "net/tls.rs",
        "use a::{b, c::{d, e}, self};\n// f::g\n/// h::i\nfn j() { k::l(\"m::n\"); }\n\
         #[cfg(test)]\nmod tests {\n use o::p;\n}\nfn q() { r::s::<T>(); }",
    );
    let joined: Vec<String> = source.paths().iter().map(|path| path.segments.join("::")).collect();
    for expected in ["a::b", "a::c::d", "a::c::e", "k::l", "r::s"] {
        assert!(joined.iter().any(|path| path == expected), "{expected} is not in {joined:?}");
    }
    for unexpected in ["f::g", "h::i", "m::n", "o::p"] {
        assert!(!joined.iter().any(|path| path == unexpected), "{unexpected} is in {joined:?}");
    }
    assert_eq!((source.room(), source.test_lines), ("net", 4));
}
