//! Phrases of many languages that say what kind of work is wanted, found in one pass.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::tally::{Signal, Tally};
use super::text::{Text, Zone, fold};
use super::{Prompt, Task};

/// The table: task, weight, language, phrases.
const TABLE: &str = include_str!("lexicon.tsv");

/// Languages that are written without spaces between words, or that join particles to them.
const JOINED: [&str; 3] = ["zh", "ja", "ko"];

/// From here on letters are theirs.
const FIRST_JOINED: char = '\u{2e80}';

/// Where an instruction in front is this clear, what stands at the end is no other one.
const CLEAR: f32 = 3.5;
const TAIL_AFTER_CLEAR: f32 = 0.3;

/// Of several phrases for the same task only the strongest counts in full.
const FURTHER: f32 = 0.35;

static LEXICON: LazyLock<Lexicon> = LazyLock::new(Lexicon::new);

struct Entry {
    task: Task,
    weight: f32,
    phrase: &'static str,
    /// May begin or end inside of a word.
    opens: bool,
    closes: bool,
}

struct Lexicon {
    entries: Vec<Entry>,
    /// Pattern `n` is entry `n`. Without it, which does not happen, no phrase is ever found.
    automaton: Option<AhoCorasick>,
}

/// One phrase at one place.
struct Match {
    entry: usize,
    zone: Zone,
    weight: f32,
}

/// What the phrases for one task come to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    all: f32,
    against: f32,
    best: f32,
    phrase: &'static str,
}

pub(super) fn prepare() {
    LazyLock::force(&LEXICON);
}

/// Adds what the words of a text say, `factor` times.
pub(super) fn weigh(text: &Text<'_>, prompt: &Prompt<'_>, factor: f32, tally: &mut Tally) {
    let mut matches = LEXICON.matches(text);
    for found in &mut matches {
        found.weight *= relevance(LEXICON.entries[found.entry].task, text, prompt);
    }
    let instructs =
        |task: Task| !matches!(task, Task::Chat | Task::Tools | Task::Document | Task::Vision);
    let clear = matches.iter().any(|found| {
        let entry = &LEXICON.entries[found.entry];
        found.zone == Zone::Head && found.weight >= CLEAR && instructs(entry.task)
    });
    for found in &mut matches {
        if found.zone == Zone::Tail && clear {
            found.weight *= TAIL_AFTER_CLEAR;
        }
    }
    // Each phrase once, at its best place.
    matches.sort_unstable_by(|left, right| {
        let heavier = right.weight.abs().total_cmp(&left.weight.abs());
        left.entry.cmp(&right.entry).then(heavier)
    });
    matches.dedup_by_key(|found| found.entry);
    for (task, sum) in Task::ALL.into_iter().zip(sums(&matches)) {
        let total = sum.best + FURTHER * (sum.all - sum.best) + sum.against;
        if total != 0.0 {
            tally.add(task, factor * total, Signal::Lexical(sum.phrase));
        }
    }
}

fn sums(matches: &[Match]) -> [Sum; Task::ALL.len()] {
    let mut sums = [Sum::default(); Task::ALL.len()];
    for Match { entry, weight, .. } in matches {
        let entry = &LEXICON.entries[*entry];
        let sum = &mut sums[entry.task as usize];
        if *weight < 0.0 {
            sum.against += weight;
        } else {
            sum.all += weight;
        }
        if *weight > sum.best {
            (sum.best, sum.phrase) = (*weight, entry.phrase);
        }
    }
    sums
}

/// Words that mean little without what they are about.
fn relevance(task: Task, text: &Text<'_>, prompt: &Prompt<'_>) -> f32 {
    match task {
        // Letters begin with a greeting, and long questions have something to go by.
        Task::Chat if text.folded.len() > 500 => 0.4,
        Task::Tools if prompt.tools == 0 => 0.2,
        Task::Vision if !prompt.images => 0.2,
        Task::Document if !prompt.files && prompt.tokens < 8_000 => 0.35,
        _ => 1.0,
    }
}

// === impl Lexicon ===

impl Lexicon {
    fn new() -> Self {
        let entries: Vec<Entry> = TABLE.lines().filter_map(row).flatten().collect();
        let patterns =
            entries.iter().map(|entry| fold(entry.phrase.trim_matches('*')).into_owned());
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(patterns).ok();
        Self { entries, automaton }
    }

    fn matches(&self, text: &Text<'_>) -> Vec<Match> {
        let Some(automaton) = &self.automaton else { return Vec::new() };
        let folded = text.folded.as_ref();
        let mut matches = Vec::new();
        for found in automaton.find_overlapping_iter(folded) {
            let number = found.pattern().as_usize();
            let entry = &self.entries[number];
            if entry.stands_in(folded, found.start(), found.end()) {
                let (zone, factor) = text.place(found.start());
                matches.push(Match { entry: number, zone, weight: entry.weight * factor });
            }
        }
        matches
    }
}

/// The phrases of a row, or nothing for a comment or an empty line.
fn row(line: &'static str) -> Option<impl Iterator<Item = Entry>> {
    let mut cells = line.split('\t');
    let task = Task::parse(cells.next()?)?;
    let weight = cells.next()?.parse().ok()?;
    let joined = JOINED.contains(&cells.next()?);
    let phrases = cells.next()?.split(" | ");
    Some(phrases.map(move |phrase| Entry {
        task,
        weight,
        phrase,
        opens: joined || phrase.starts_with('*'),
        closes: joined || phrase.ends_with('*'),
    }))
}

// === impl Entry ===

impl Entry {
    /// Whether a phrase found here is words of its own, as far as it has to be.
    fn stands_in(&self, text: &str, start: usize, end: usize) -> bool {
        // Latin words stand free in Chinese, Japanese and Korean, though no space is around them.
        let inside =
            |letter: char| letter < FIRST_JOINED && (letter.is_alphanumeric() || letter == '_');
        // A phrase may itself begin or end with something that is no letter, as `c++` does.
        let cut = |here: Option<char>, beyond: Option<char>| {
            here.is_some_and(inside) && beyond.is_some_and(inside)
        };
        let phrase = &text[start..end];
        let opens = self.opens || !cut(phrase.chars().next(), text[..start].chars().next_back());
        opens && (self.closes || !cut(phrase.chars().next_back(), text[end..].chars().next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table_is_read() {
        let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in rows {
            assert!(row(line).is_some_and(|mut row| row.next().is_some()), "{line}");
        }
        assert!(LEXICON.automaton.is_some());
    }

    #[test]
    fn no_phrase_stands_twice_for_a_task_or_in_a_case_that_is_never_met() {
        let mut seen = std::collections::BTreeSet::new();
        for entry in &LEXICON.entries {
            let what = (entry.task, entry.phrase, entry.opens, entry.closes);
            assert!(seen.insert(what), "{what:?}");
            assert!(!entry.phrase.trim_matches('*').contains('*'), "{what:?}");
            assert_eq!(entry.phrase.to_lowercase(), entry.phrase);
        }
    }
}
