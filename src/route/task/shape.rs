//! What a text looks like, whatever language it is in: code, formulas, lists of labels.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::Task;
use super::tally::{Signal, Tally};
use super::text::Text;

/// What stands in code and hardly elsewhere, and how much of it.
const CODE_MARKS: [&str; 44] = [
    "```",
    "\n@@ ",
    "@@ -",
    "diff --git",
    "#!/",
    "#include",
    "</",
    "/>",
    "::",
    "=>",
    "==",
    "!=",
    "&&",
    "||",
    "();",
    ");",
    "{\n",
    "};",
    "})",
    "def ",
    "fn ",
    "func ",
    "function ",
    "const ",
    "let mut",
    "import ",
    "public class",
    "return ",
    "SELECT ",
    " FROM ",
    "INSERT INTO",
    "Traceback (most",
    "Error:",
    "Exception",
    "    at ",
    "self.",
    "this.",
    "+=",
    "[]",
    "std::",
    "NULL",
    "print(",
    " = [",
    "```\n",
];

const MATHS: [&str; 14] =
    ["^n", "e^", "²", "³", "√", "∫", "∑", "≥", "≤", "π", "^2", "\\frac", "∀", "≠"];

/// Adds what the shape of the text says.
pub(super) fn weigh(text: &Text<'_>, tally: &mut Tally) {
    let window = text.window.as_ref();
    let (marks, maths) = marks(window);
    let names = code_names(window);
    let code = 0.55 * small(marks.min(7)) + 0.5 * small(names.min(4));
    if marks + names >= 2 {
        tally.add(Task::Code, code.min(4.0), Signal::Shape("code"));
    }
    if maths || has_formula(window) {
        tally.add(Task::Reasoning, 2.0, Signal::Shape("formula"));
    }
    let head = text.window.get(..text.head_end).unwrap_or(window);
    let asks = head.contains(QUESTION) || window.ends_with("か。") || window.ends_with(QUESTION);
    let numbers = if asks && window.len() < 800 { numbers(window) } else { 0 };
    if numbers >= 2 {
        let measured = if MEASURES.iter().any(|unit| window.contains(unit)) { 1.2 } else { 0.0 };
        let weight = 0.7 + 0.4 * small(numbers.min(4)) + measured;
        tally.add(Task::Reasoning, weight, Signal::Shape("a question with numbers"));
    }
    if labels(head) {
        tally.add(Task::Classification, 1.6, Signal::Shape("a list of labels"));
    }
    if chooses(head, window) {
        tally.add(Task::Classification, 2.2, Signal::Shape("a choice about a quotation"));
    }
    if ["\nA) ", "\n(A) ", "\na) ", "\nA. "].iter().any(|mark| window.contains(mark)) {
        tally.add(Task::Classification, 1.2, Signal::Shape("choices"));
    }
    if asks && window.len() < 160 && !window.contains("\n\n") {
        tally.add(Task::Chat, 0.8, Signal::Shape("a short question"));
    }
    if marks + names < 2 && head.len() < 160 && window.len() > head.len() + 240 {
        tally.add(Task::Summarisation, 1.2, Signal::Shape("a few words about a text"));
    }
}

/// Adds what the shape of an application's instructions says: the labels it wants.
pub(super) fn weigh_system(text: &Text<'_>, tally: &mut Tally) {
    if labels(&text.window) {
        tally.add(Task::Classification, 1.6, Signal::Shape("a list of labels"));
    }
}

const QUESTION: [char; 3] = ['?', '？', '؟'];

/// What numbers in exercises are of.
const MEASURES: [&str; 30] = [
    "%", "€", "$", "£", "R$", " km", "km/h", " cm", " kg", " m²", "cm²", "км", "руб", "元", "岁",
    "小时", "分钟", "歳", "時間", "円", "時速", "시속", "시간", " hours", " years", " jours",
    " Jahre", "horas", " ore ", "godzin",
];

/// How languages say "or".
const OR: [&str; 17] = [
    " or ",
    " oder ",
    " ou ",
    " o ",
    " u ",
    " lub ",
    " czy ",
    " или ",
    "还是",
    "或",
    "それとも",
    "か、",
    " 또는 ",
    "아니면",
    " او ",
    " या ",
    " veya ",
];

/// A first line or sentence that leaves a choice, and a quotation behind it.
fn chooses(head: &str, window: &str) -> bool {
    if !head.contains(QUESTION) {
        return false;
    }
    let Some(at) = window.find(['"', '“', '„', '«', '「', '\n']).or_else(|| window.rfind(": "))
    else {
        return false;
    };
    let question = window.get(..at.min(head.len())).unwrap_or_default();
    let brief = question.len() < 140 && window.len() > question.len() + 12;
    let asks = question.trim_end().ends_with(QUESTION) || question.contains(QUESTION);
    let either = OR.iter().any(|or| question.contains(or)) || question.contains('/');
    brief && asks && either
}

/// Both tables in one pass.
static MARKS: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new(CODE_MARKS.iter().chain(&MATHS)).ok());

/// How many different marks of code there are, and whether there are any of mathematics.
fn marks(text: &str) -> (usize, bool) {
    let (mut code, mut maths) = ([false; CODE_MARKS.len()], false);
    for found in MARKS.iter().flat_map(|marks| marks.find_overlapping_iter(text)) {
        match code.get_mut(found.pattern().as_usize()) {
            Some(mark) => *mark = true,
            None => maths = true,
        }
    }
    (code.into_iter().filter(|mark| *mark).count(), maths)
}

/// A count of a few, as a weight.
fn small(count: usize) -> f32 {
    f32::from(u8::try_from(count).unwrap_or(u8::MAX))
}

/// Words that look like names in code: `camelCase`, `snake_case`, `main.rs`, `call(`.
fn code_names(text: &str) -> usize {
    let words =
        text.split(|letter: char| letter.is_whitespace() || matches!(letter, ',' | ';' | '"'));
    words.filter(|word| is_code_name(word)).take(8).count()
}

const ENDINGS: [&str; 18] = [
    ".rs", ".py", ".js", ".ts", ".go", ".java", ".cpp", ".c", ".h", ".sh", ".sql", ".tsx", ".html",
    ".css", ".yml", ".yaml", ".toml", ".json",
];

fn is_code_name(word: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase();
    // As most words are.
    if word.as_bytes().iter().skip(1).all(plain) {
        return false;
    }
    if word.len() > 80 || word.contains('@') || word.starts_with("http") {
        return false;
    }
    let bytes = word.as_bytes();
    let pair = |test: fn(u8, u8) -> bool| bytes.windows(2).any(|pair| test(pair[0], pair[1]));
    let camel = pair(|left, right| left.is_ascii_lowercase() && right.is_ascii_uppercase());
    let snake = bytes.windows(3).any(|three| {
        three[1] == b'_' && three[0].is_ascii_alphanumeric() && three[2].is_ascii_alphanumeric()
    });
    let call = pair(|left, right| left.is_ascii_alphanumeric() && right == b'(') && word.is_ascii();
    let file = word.trim_end_matches(['.', ':', '?', ')']);
    let file = ENDINGS.iter().any(|ending| file.len() > ending.len() && file.ends_with(ending));
    camel || snake || call || file
}

/// Digits or a letter around an operator, as in `2x + 3y = 5`.
fn has_formula(text: &str) -> bool {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let words: Vec<&str> = text.split_whitespace().take(400).collect();
    let term = |word: &str| word.len() < 12 && word.bytes().any(|byte| byte.is_ascii_digit());
    words.windows(3).any(|three| {
        matches!(three[1], "+" | "=" | "*" | "/" | "×" | "-") && term(three[0]) && term(three[2])
    })
}

/// How many numbers there are, up to a few.
fn numbers(text: &str) -> usize {
    let runs = text.split(|letter: char| !letter.is_ascii_digit());
    runs.filter(|run| !run.is_empty()).take(9).count()
}

/// Three or more short words with commas or strokes between them, in brackets or behind a colon.
fn labels(head: &str) -> bool {
    let brackets = [('(', ')'), ('{', '}'), ('[', ']'), ('（', '）')];
    let bracketed = brackets.into_iter().any(|(open, close)| {
        let mut rest = head;
        while let Some((_, after)) = rest.split_once(open) {
            let Some((inside, after)) = after.split_once(close) else { break };
            if is_list(inside, 3) {
                return true;
            }
            rest = after;
        }
        false
    });
    bracketed
        || head
            .split(": ")
            .skip(1)
            .any(|rest| is_list(rest.split(['.', '\n', '?']).next().unwrap_or(rest), 3))
}

fn is_list(text: &str, least: usize) -> bool {
    let items = text.split([',', '/', ';', '、', '，', '|']).map(str::trim);
    let mut count = 0;
    for item in items {
        let plain = item
            .chars()
            .all(|letter| letter.is_alphabetic() || matches!(letter, ' ' | '_' | '-' | '"'));
        if item.is_empty() || item.len() > 30 || item.split(' ').count() > 3 || !plain {
            return false;
        }
        count += 1;
    }
    count >= least
}
