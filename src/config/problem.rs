//! What is wrong in a config file, and where.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parse_toml;
use super::reference::{Found, Known, Reference};
use super::secret::Secret;
use super::text::Literal;

/// One fault in what the operator wrote. `line` is 0 when no line is to blame,
/// `path` is empty when no key is, and `file` when the text is in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub file: PathBuf,
    pub line: usize,
    pub path: String,
    pub message: String,
}

/// Gathers the problems and warnings of one file while it is read, so that all are told at once.
pub(super) struct Report {
    file: PathBuf,
    places: HashMap<String, Place>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    literals: RefCell<Vec<Literal>>,
    /// Secrets that were fetched from where they are kept.
    known: Known,
    references: RefCell<BTreeMap<Reference, Found>>,
}

/// Where a key stands, and its value.
struct Place {
    line: usize,
    value: Range<usize>,
}

/// Where the lines of a text begin, to turn offsets into line numbers.
pub(super) struct Lines(Vec<usize>);

// === impl Problem ===

impl Problem {
    /// A fault of the file itself rather than of a line in it.
    pub(super) fn of_file(file: &Path, message: String) -> Self {
        Self { file: file.to_path_buf(), line: 0, path: String::new(), message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.display(), self.line) {
            (_, 0) if self.file.as_os_str().is_empty() => {}
            (_, line) if self.file.as_os_str().is_empty() => write!(formatter, "line {line}: ")?,
            (file, 0) => write!(formatter, "{file}: ")?,
            (file, line) => write!(formatter, "{file}:{line}: ")?,
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

// === impl Report ===

impl Report {
    pub(super) fn new(file: &Path, lines: &Lines, root: &DeTable<'_>) -> Self {
        let mut index = HashMap::new();
        index_table(&mut index, lines, "", root);
        Self {
            file: file.to_path_buf(),
            places: index,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            literals: RefCell::default(),
            known: Known::new(),
            references: RefCell::default(),
        }
    }

    /// Of what stands in no file.
    pub(super) fn empty() -> Self {
        Self {
            file: PathBuf::new(),
            places: HashMap::new(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            literals: RefCell::default(),
            known: Known::new(),
            references: RefCell::default(),
        }
    }

    pub(super) fn problem(&self, path: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(self.at(path, message.into()));
    }

    pub(super) fn warn(&self, path: &str, message: impl Into<String>) {
        self.warnings.borrow_mut().push(self.at(path, message.into()));
    }

    /// Whether the operator wrote this key at all.
    pub(super) fn mentions(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// The same with secrets that were fetched from where they are kept.
    pub(super) fn knowing(self, known: &Known) -> Self {
        Self { known: known.clone(), ..self }
    }

    /// The secret that `reference` stands for, or itself until that is known.
    pub(super) fn look_up(&self, path: &str, reference: Reference) -> Secret {
        let value = self.known.get(&reference).cloned();
        let secret = value.clone().unwrap_or_else(|| Secret::new(reference.to_string()));
        let line = self.places.get(path).map_or(0, |place| place.line);
        let found = || Found { path: path.to_owned(), line, value };
        self.references.borrow_mut().entry(reference).or_insert_with(found);
        secret
    }

    /// The secrets that are kept elsewhere.
    pub(super) fn references(&self) -> BTreeMap<Reference, Found> {
        self.references.borrow().clone()
    }

    /// Complains of the references below `path`.
    pub(super) fn refuse_references(&self, path: &str, message: &str) {
        let references = self.references.borrow();
        let below = references.values().filter(|found| found.path.starts_with(path));
        below.for_each(|found| self.problem(&found.path, message));
    }

    /// Notes that a secret stands in the text itself.
    pub(super) fn secret(&self, path: &str) {
        let literal = |place: &Place| Literal { path: path.to_owned(), span: place.value.clone() };
        self.literals.borrow_mut().extend(self.places.get(path).map(literal));
    }

    /// The secrets that stand in the text, in its order.
    pub(super) fn literals(&self) -> Vec<Literal> {
        let mut literals = self.literals.take();
        literals.sort_by_key(|literal| literal.span.start);
        literals
    }

    /// A relative path means "beside the config file", wherever the gateway was started from.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("")).join(path)
    }

    /// The warnings, when nothing is wrong; else every problem, in the order of the file.
    pub(super) fn close(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let mut problems = self.problems.into_inner();
        // Nobody can tell yet what is wrong with a secret that was not fetched.
        let references = self.references.borrow();
        let unknown = |path: &str| {
            references.values().any(|found| found.value.is_none() && found.path == path)
        };
        problems.retain(|problem| !unknown(&problem.path));
        let mut warnings = self.warnings.into_inner();
        problems.sort_by_key(|problem| problem.line);
        warnings.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(warnings) } else { Err(problems) }
    }

    fn at(&self, path: &str, message: String) -> Problem {
        let line = self.places.get(path).map_or(0, |place| place.line);
        Problem { file: self.file.clone(), line, path: path.to_owned(), message }
    }
}

// === impl Lines ===

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(offset, _)| offset).collect())
    }

    pub(super) fn number(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|newline| *newline < span.start) + 1
    }
}

/// Problems of what `text` describes, in its order, with the line of what each names or of the nearest
/// section around that. Of one that begins with a field, as in `ca: it is not there`, that is meant.
pub fn located(text: &str, file: &Path, problems: Vec<(String, String)>) -> Vec<Problem> {
    let mut places = HashMap::new();
    if let Ok(root) = parse_toml(text, file) {
        index_table(&mut places, &Lines::of(text), "", &root);
    }
    let line = |path: &str| {
        let mut paths = std::iter::successors(Some(path), |path| {
            path.rsplit_once(['.', '[']).map(|(around, _)| around)
        });
        paths.find_map(|path| places.get(path)).map_or(0, |place| place.line)
    };
    let problem = |(path, message): (String, String)| {
        let named = message.split_once(": ").map(|(field, rest)| (child(&path, field), rest));
        let (path, message) = match named.filter(|(field, _)| places.contains_key(field)) {
            Some((field, rest)) => (field, rest.to_owned()),
            None => (path, message),
        };
        Problem { file: file.to_path_buf(), line: line(&path), path, message }
    };
    let mut problems: Vec<Problem> = problems.into_iter().map(problem).collect();
    problems.sort_by_key(|problem| problem.line);
    problems.dedup();
    problems
}

fn index_table(index: &mut HashMap<String, Place>, lines: &Lines, path: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let path = child(path, key.get_ref());
        index_value(index, lines, &path, value);
        index.insert(path, Place { line: lines.number(&key.span()), value: value.span() });
    }
}

fn index_value(
    index: &mut HashMap<String, Place>,
    lines: &Lines,
    path: &str,
    value: &Spanned<DeValue<'_>>,
) {
    if let Some(table) = value.get_ref().as_table() {
        index_table(index, lines, path, table);
    }
    for (position, element) in value.get_ref().as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{position}]");
        index_value(index, lines, &path, element);
        let span = element.span();
        index.insert(path, Place { line: lines.number(&span), value: span });
    }
}

/// The TOML path of `key` inside `path`, quoted where TOML would need quotes.
pub(super) fn child(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quoted = key.is_empty() || !key.chars().all(bare);
    let key = if quoted { format!("{key:?}") } else { key.to_owned() };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// `; did you mean "groq"?` when a known name is close enough to be a slip of the hand,
/// else the known names when they fit on a line, else nothing.
pub fn suggestion<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let slips = (written.chars().count() / 3).max(1);
    let nearest = known
        .clone()
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, _)| *distance <= slips)
        .min();
    if let Some((_, name)) = nearest {
        return format!("; did you mean \"{name}\"?");
    }
    let names: Vec<&str> = known.into_iter().collect();
    match names.len() {
        1..=8 => format!("; known: {}", names.join(", ")),
        _ => String::new(),
    }
}
