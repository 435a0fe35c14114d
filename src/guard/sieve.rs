//! Finds what rules describe in a text that comes in pieces, exactly as if it had come whole.
//!
//! Every rule is a regular expression and a check of what it matched. Of all beginnings of matches
//! in the text so far, the earliest that more text could still complete or change is where the
//! text is held; whatever stands before it is decided for good. It is found by one more expression,
//! made of the beginnings of all rules (`prefix`), that is read from the end of the text backwards:
//! so what is held is as long as what could still matter, and mostly nothing. No text is held
//! beyond `HELD_MOST` bytes: at that point, which the text alone decides, it is looked at as if it
//! ended there.

use std::ops::Range;

use regex_automata::meta::{Config, Regex};
use regex_automata::{Input, MatchKind, PatternSet};
use regex_syntax::hir::Hir;

use super::prefix;

/// No match is longer than this many bytes.
const HELD_MOST: usize = 4096;
/// So many bytes in front of a match are shown to its check.
const CONTEXT: usize = 64;
/// What an expression may cost: in states, as bytes of them, and as bytes of what is built lazily.
const EXPRESSION_MOST: usize = 4 << 20;
const TABLES_MOST: usize = 8 << 20;

/// What one kind of finding looks like.
pub(super) struct Rule {
    /// Stable: verdicts, metrics and placeholders bear it.
    pub(super) label: String,
    pub(super) expression: String,
    /// Its check takes nothing that begins within a word of ASCII letters and digits, so that the
    /// rest of one need not be tried.
    pub(super) begins_words: bool,
    pub(super) check: Check,
}

/// The part of the candidate that is a finding, in bytes of its text, if any is.
pub(super) type Check = Box<dyn Fn(&Candidate<'_>) -> Option<Range<usize>> + Send + Sync>;

/// What an expression has matched, and where it stands.
pub(super) struct Candidate<'a> {
    pub(super) text: &'a str,
    /// Up to `CONTEXT` bytes in front of it.
    pub(super) before: &'a str,
    pub(super) after: Option<char>,
}

/// Rules made ready. Shared by all texts.
pub(super) struct Sieve {
    labels: Vec<String>,
    rules: Vec<(Regex, bool, Check)>,
    /// All expressions in one: tells in one pass which rules are worth asking.
    any: Regex,
    alive: Regex,
}

/// One text on its way through a sieve.
#[derive(Default)]
pub(super) struct Sift {
    /// The text that is held, behind as much of what has left as the checks may see.
    text: String,
    /// Where the held text begins.
    at: usize,
}

/// Where a text goes that has been looked at.
pub(super) trait Sink {
    fn pass(&mut self, text: &str);
    /// Whether to go on.
    fn found(&mut self, label: &str, value: &str) -> bool;
}

/// A finding: which rule, from where its candidate begins, and where it stands.
struct Found {
    rule: usize,
    from: usize,
    range: Range<usize>,
}

// === impl Candidate ===

impl Candidate<'_> {
    pub(super) fn last_before(&self) -> Option<char> {
        self.before.chars().next_back()
    }

    /// The character behind the first `length` bytes of the match.
    pub(super) fn behind(&self, length: usize) -> Option<char> {
        self.text[length..].chars().next().or(self.after)
    }

    pub(super) fn whole(&self) -> Range<usize> {
        0..self.text.len()
    }
}

// === impl Sieve ===

impl Sieve {
    /// The error names the expression that is at fault.
    pub(super) fn new(rules: Vec<Rule>) -> Result<Self, String> {
        let mut expressions = Vec::new();
        for rule in &rules {
            let parsed = regex_syntax::parse(&rule.expression);
            let parsed = parsed.map_err(|error| faulty(&rule.expression, &error.to_string()))?;
            if parsed.properties().minimum_len().unwrap_or_default() == 0 {
                return Err(faulty(&rule.expression, "it matches nothing at all, everywhere"));
            }
            expressions.push(parsed);
        }
        let (mut ready, mut labels) = (Vec::new(), Vec::new());
        for (rule, expression) in rules.into_iter().zip(&expressions) {
            let regex = build(std::slice::from_ref(expression));
            let regex = regex.map_err(|error| faulty(&rule.expression, &error))?;
            ready.push((regex, rule.begins_words, rule.check));
            labels.push(rule.label);
        }
        let together = |error| format!("the expressions together cannot be used: {error}");
        let alive = Hir::alternation(expressions.iter().map(prefix::alive).collect());
        let (alive, any) =
            (build(&[alive]).map_err(together)?, build(&expressions).map_err(together)?);
        Ok(Self { labels, rules: ready, any, alive })
    }

    /// The earliest start, from `at` on, of what more text could complete or change.
    fn held_from(&self, text: &str, at: usize) -> usize {
        let input = Input::new(text).span(at..text.len());
        self.alive.search(&input).map_or(text.len(), |found| found.start())
    }

    /// The first candidate of each rule that has one in the text from `at` on.
    fn candidates(&self, text: &str, at: usize) -> Vec<Found> {
        let mut hit = PatternSet::new(self.rules.len());
        self.any.which_overlapping_matches(&Input::new(text).span(at..text.len()), &mut hit);
        hit.iter().filter_map(|rule| self.first(rule.as_usize(), text, at)).collect()
    }

    /// Replaces the candidates that begin in front of `at`.
    fn renew(&self, candidates: &mut Vec<Found>, text: &str, at: usize) {
        let (passed, ahead) =
            std::mem::take(candidates).into_iter().partition::<Vec<_>, _>(|found| found.from < at);
        let again = passed.into_iter().filter_map(|found| self.first(found.rule, text, at));
        candidates.extend(ahead.into_iter().chain(again));
    }

    /// The first candidate of a rule from `at` on that stands up to its check.
    fn first(&self, rule: usize, text: &str, at: usize) -> Option<Found> {
        let (regex, begins_words, check) = &self.rules[rule];
        let mut from = at;
        loop {
            let found = regex.search(&Input::new(text).span(from..text.len()))?;
            let start = found.start();
            let candidate = Candidate {
                text: &text[found.range()],
                before: &text[text.ceil_char_boundary(start.saturating_sub(CONTEXT))..start],
                after: text[found.end()..].chars().next(),
            };
            if let Some(part) = check(&candidate).filter(|part| !part.is_empty()) {
                let range = start + part.start..start + part.end;
                return Some(Found { rule, from: start, range });
            }
            from = text.ceil_char_boundary(start + 1);
            if *begins_words && text[start..from].ends_with(|c: char| c.is_ascii_alphanumeric()) {
                let joined = |c: char| !c.is_ascii_alphanumeric();
                from = text[from..].find(joined).map_or(text.len(), |length| from + length);
            }
        }
    }
}

fn build(expressions: &[Hir]) -> Result<Regex, String> {
    // Several together only tell which of them match at all.
    let kind = if expressions.len() > 1 { MatchKind::All } else { MatchKind::LeftmostFirst };
    let config = Config::new()
        .match_kind(kind)
        .nfa_size_limit(Some(EXPRESSION_MOST))
        .hybrid_cache_capacity(TABLES_MOST);
    let built = Regex::builder().configure(config).build_many_from_hir(expressions);
    built.map_err(|error| match error.size_limit() {
        Some(_) => "it is too large".to_owned(),
        None => error.to_string(),
    })
}

fn faulty(expression: &str, error: &str) -> String {
    format!("the expression {expression:?} cannot be used: {error}")
}

// === impl Sift ===

impl Sift {
    /// Takes in a piece, and hands on what is decided. `false`: the sink wants no more.
    pub(super) fn feed(&mut self, sieve: &Sieve, piece: &str, sink: &mut dyn Sink) -> bool {
        let mut rest = piece;
        while !rest.is_empty() {
            let room = HELD_MOST.saturating_sub(self.text.len() - self.at);
            let (now, later) = rest.split_at(rest.floor_char_boundary(room));
            self.text.push_str(now);
            // Where not a character more fits, the text is taken as ending here.
            if !self.settle(sieve, now.is_empty(), sink) {
                return false;
            }
            rest = later;
        }
        true
    }

    /// Hands on what is left, and is ready for another text.
    pub(super) fn finish(&mut self, sieve: &Sieve, sink: &mut dyn Sink) -> bool {
        let goes_on = self.settle(sieve, true, sink);
        *self = Self::default();
        goes_on
    }

    /// Decides what can be decided. `ends`: no more text comes.
    fn settle(&mut self, sieve: &Sieve, ends: bool, sink: &mut dyn Sink) -> bool {
        let Some(hold) = self.decide(sieve, ends, sink) else { return false };
        sink.pass(&self.text[self.at..hold]);
        self.at = hold;
        self.forget();
        true
    }

    /// Hands on what is found for certain, and says from where on the text is held. Nothing if
    /// the sink wants no more.
    fn decide(&mut self, sieve: &Sieve, ends: bool, sink: &mut dyn Sink) -> Option<usize> {
        let end = self.text.len();
        let open = |text: &str, at| if ends { end } else { sieve.held_from(text, at) };
        let mut undecided = open(&self.text, self.at);
        if undecided <= self.at {
            return Some(undecided);
        }
        let mut candidates = sieve.candidates(&self.text, self.at);
        // What begins in front of the undecided stands, unless something undecided could yet come
        // in front of the part of it that counts.
        while let Some(found) = earliest(&candidates, undecided) {
            let (rule, range) = (found.rule, found.range.clone());
            if range.start >= undecided {
                break;
            }
            sink.pass(&self.text[self.at..range.start]);
            self.at = range.end;
            if !sink.found(&sieve.labels[rule], &self.text[range]) {
                return None;
            }
            if self.at > undecided {
                undecided = open(&self.text, self.at);
            }
            sieve.renew(&mut candidates, &self.text, self.at);
        }
        let begun = candidates.iter().map(|found| found.from);
        begun.chain([undecided]).min()
    }

    /// Drops what has left, but for what checks may look at.
    fn forget(&mut self) {
        if self.at > 4 * CONTEXT {
            let kept = self.text.floor_char_boundary(self.at - CONTEXT - 4);
            self.text.drain(..kept);
            self.at -= kept;
        }
    }
}

/// Of the candidates that begin in front of `undecided`, the one that counts from the earliest.
fn earliest(candidates: &[Found], undecided: usize) -> Option<&Found> {
    let certain = candidates.iter().filter(|found| found.from < undecided);
    certain.min_by_key(|found| (found.range.start, found.rule))
}
