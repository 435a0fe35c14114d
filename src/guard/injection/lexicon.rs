//! The words and the features, made ready: automata over all of them, and who needs whom.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

use super::features::{Category, FEATURES, MARKS};
use super::letters::{fold, is_wide};
use super::watch::{Features, Judgement, Sign};
use super::words::{Spelling, Words};

/// The table: class, language, words and phrases.
const WORDS: &str = include_str!("words.tsv");
/// The language that is also looked for in disguise.
const DISGUISED: &str = "en";
/// Shorter words are parts of others when spaces are missing.
const LEAST_JOINED: usize = 3;
/// The best feature of a category counts; the best category counts in full, the rest by this part.
const REST: i32 = 4;
/// Speech about attacks takes no more than this away.
const MILDEST: i32 = -400;

/// How a pattern is written in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bank {
    Plain,
    Rot13,
    Reversed,
    /// Within letters that were spaced out, where no space parts words.
    Joined,
}

pub(super) struct Lexicon {
    pub(super) words: Table,
    pub(super) marks: Table,
    pub(super) classes: usize,
    pub(super) features: Vec<Ready>,
    /// The features that need a class.
    pub(super) features_of: Vec<Vec<usize>>,
    /// The features that speak for an attack, not against.
    pub(super) attacks: Features,
    /// Whether what is encoded is decoded.
    pub(super) decodes: bool,
}

/// An automaton, and which class and bank each of its patterns has.
pub(super) struct Table {
    automaton: NFA,
    pub(super) start: StateID,
    classes: Vec<(usize, Bank)>,
}

/// A feature, with its classes looked up.
pub(super) struct Ready {
    pub(super) name: &'static str,
    pub(super) category: Option<Category>,
    pub(super) points: i32,
    pub(super) within: u64,
    pub(super) needs: Vec<Vec<usize>>,
    pub(super) needs_attack: bool,
}

/// Patterns on their way into a table, each once for each class.
type Patterns = BTreeSet<(String, usize, Bank)>;
/// The number of each class.
type Names = BTreeMap<&'static str, usize>;

// === impl Bank ===

impl Bank {
    /// `Joined` is seen as `Plain` is.
    pub(super) const SEEN: usize = 3;
}

// === impl Lexicon ===

impl Lexicon {
    /// Features of other categories do not count.
    pub(super) fn new(categories: &[Category]) -> Result<Self, String> {
        let mut names: Names =
            Sign::NAMES.iter().enumerate().map(|(at, name)| (*name, at)).collect();
        let words = Table::new(&read_words(&mut names)?)?;
        let marks = Table::new(&read_marks(&mut names))?;
        let wanted = |category: Option<Category>| {
            category.is_none_or(|category| categories.contains(&category))
        };
        let wanted = FEATURES.iter().filter(|feature| wanted(feature.category));
        let mut features = Vec::new();
        for feature in wanted {
            let needs: Option<Vec<Vec<usize>>> = feature
                .needs
                .iter()
                .map(|need| need.split('|').map(|name| names.get(name).copied()).collect())
                .collect();
            features.push(Ready {
                name: feature.name,
                category: feature.category,
                points: feature.points,
                within: feature.within,
                needs: needs.ok_or_else(|| format!("{} needs an unknown class", feature.name))?,
                needs_attack: feature.needs.iter().any(|need| need.contains("attack")),
            });
        }
        let mut features_of = vec![Vec::new(); names.len()];
        let mut attacks = 0;
        for (at, feature) in features.iter().enumerate() {
            attacks |= Features::from(feature.points > 0) << at;
            feature.needs.iter().flatten().for_each(|class| features_of[*class].push(at));
        }
        let decodes = categories.contains(&Category::Encoded);
        Ok(Self { words, marks, classes: names.len(), features, features_of, attacks, decodes })
    }

    /// How bad it is that these features come together.
    pub(super) fn judge(&self, found: Features) -> Judgement {
        let mut sums = [0; Category::ALL.len()];
        let mut milder = 0;
        for (_, feature) in self.found(found) {
            match feature.category {
                Some(category) => {
                    let sum = &mut sums[category as usize];
                    *sum = feature.points.max(*sum);
                }
                None => milder += feature.points,
            }
        }
        let best = sums.iter().copied().max().unwrap_or_default();
        let category = Category::ALL.into_iter().find(|category| sums[*category as usize] == best);
        let rest = sums.iter().sum::<i32>() - best;
        let total = best + rest / REST + milder.max(MILDEST);
        Judgement {
            permille: total.clamp(0, 1000).unsigned_abs(),
            features: found & self.attacks,
            category: category.unwrap_or_default(),
        }
    }

    /// The names of features, in the order of the table.
    pub(super) fn names(&self, found: Features) -> Vec<&'static str> {
        self.found(found).map(|(_, feature)| feature.name).collect()
    }

    fn found(&self, found: Features) -> impl Iterator<Item = (usize, &Ready)> {
        self.features.iter().enumerate().filter(move |(at, _)| found >> at & 1 == 1)
    }
}

// === impl Table ===

impl Table {
    fn new(patterns: &Patterns) -> Result<Self, String> {
        let faulty = |error: &dyn std::fmt::Display| format!("the words cannot be used: {error}");
        let texts = patterns.iter().map(|(text, ..)| text);
        let automaton =
            NFA::builder().dense_depth(3).build(texts).map_err(|error| faulty(&error))?;
        let start = automaton.start_state(Anchored::No).map_err(|error| faulty(&error))?;
        let classes = patterns.iter().map(|(_, class, bank)| (*class, *bank)).collect();
        Ok(Self { automaton, start, classes })
    }

    pub(super) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.automaton.next_state(Anchored::No, state, byte)
    }

    /// What ends in this state.
    pub(super) fn matches(&self, state: StateID) -> impl Iterator<Item = (usize, Bank)> {
        let ends = if self.automaton.is_match(state) { self.automaton.match_len(state) } else { 0 };
        (0..ends)
            .map(move |index| self.classes[self.automaton.match_pattern(state, index).as_usize()])
    }
}

/// The number of a class, new if it is.
fn number(names: &mut Names, name: &'static str) -> usize {
    let next = names.len();
    *names.entry(name).or_insert(next)
}

fn read_words(names: &mut Names) -> Result<Patterns, String> {
    let mut patterns = Patterns::new();
    for line in WORDS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [name, language, words] = fields[..] else {
            return Err(format!("not three fields: {line}"));
        };
        let class = number(names, name);
        for word in words.split('|') {
            let spelled = spelled(word);
            if spelled.trim().is_empty() {
                return Err(format!("an empty word in: {line}"));
            }
            if language == DISGUISED {
                patterns.extend(disguises(&spelled).map(|(text, bank)| (text, class, bank)));
            }
            patterns.insert((spelled, class, Bank::Plain));
        }
    }
    Ok(patterns)
}

fn read_marks(names: &mut Names) -> Patterns {
    let mut patterns = Patterns::new();
    for (name, marks) in MARKS {
        let class = number(names, name);
        for mark in *marks {
            let mut folded = String::new();
            mark.chars().for_each(|character| fold(character, |letter| folded.push(letter)));
            patterns.insert((folded, class, Bank::Plain));
        }
    }
    patterns
}

/// A pattern as the words of a text are given out: a space on either side, except where `*` stands
/// or the script knows none.
fn spelled(word: &str) -> String {
    let (opens, closes) = (word.starts_with('*'), word.ends_with('*'));
    let (mut words, mut out) = (Words::default(), " ".to_owned());
    for character in word.trim_matches('*').chars() {
        fold(character, |letter| words.push(letter, &mut out));
    }
    words.finish(&mut out);
    let wide = out.trim_start().starts_with(is_wide);
    let out = if opens || wide { out.trim_start() } else { &out };
    let out = if closes { out.trim_end() } else { out };
    out.to_owned()
}

impl Spelling for String {
    fn letter(&mut self, letter: char) {
        self.push(letter);
    }

    fn sign(&mut self, _: Sign) {}

    fn known(&self) -> u64 {
        0
    }

    fn join(&mut self, _: bool) {}
}

fn disguises(spelled: &str) -> impl Iterator<Item = (String, Bank)> {
    let joined = Some(spelled.replace(' ', "")).filter(|word| word.len() >= LEAST_JOINED);
    let disguises = [
        (spelled.chars().map(rot13).collect(), Bank::Rot13),
        (spelled.chars().rev().collect(), Bank::Reversed),
    ];
    disguises.into_iter().chain(joined.map(|joined| (joined, Bank::Joined)))
}

fn rot13(letter: char) -> char {
    match letter {
        'a'..='m' => char::from(letter as u8 + 13),
        'n'..='z' => char::from(letter as u8 - 13),
        other => other,
    }
}
