//! What the questions of a batch want and its answers have used, line by line as files pass by.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::openai::{self, Skim};
use super::{references, responses};
use crate::canon::Usage;

/// What is kept of one line of questions without its long strings.
const LONGEST_LINE: usize = 4 * 1024 * 1024;
/// Different models and files of which one batch may speak.
const MOST_MODELS: usize = 64;
const MOST_FILES: usize = 1000;
/// Bytes that make a token.
const BYTES: u64 = 4;

/// Reads a file of questions; of its lines only the shape of the one at hand is kept.
#[derive(Debug)]
pub struct Lines {
    line: Skim,
    bytes: u64,
    at: u64,
    contents: Contents,
}

/// What a file of questions wants.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub models: BTreeMap<String, Share>,
    /// The files to which the questions refer.
    pub files: BTreeSet<String>,
    /// Why it can be no batch's.
    pub fault: Option<String>,
}

/// What it wants of one model.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Tokens of the questions, by estimate.
    pub input: u64,
    /// Tokens of the answers at the most, where the questions say it.
    pub output: u64,
    /// Answers of which they do not.
    pub open: u64,
}

/// One question.
#[derive(Debug, Deserialize)]
struct Task {
    #[serde(default)]
    url: String,
    body: Asked,
}

/// What is read of it. A field that occurs twice is refused.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    model: String,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    previous_response_id: Option<IgnoredAny>,
    conversation: Option<IgnoredAny>,
}

/// Adds up a file of answers; of its lines only the shape of the one at hand is kept.
#[derive(Debug, Default)]
pub struct Tally {
    line: Skim,
    usage: Option<Usage>,
    model: Option<String>,
}

/// One line of it.
#[derive(Debug, Deserialize)]
struct Line {
    response: Answered,
}

#[derive(Debug, Deserialize)]
struct Answered {
    body: Body,
}

#[derive(Debug, Deserialize)]
struct Body {
    model: Option<String>,
    usage: Value,
}

// === impl Lines ===

impl Default for Lines {
    fn default() -> Self {
        Self { line: new_line(), bytes: 0, at: 0, contents: Contents::default() }
    }
}

fn new_line() -> Skim {
    Skim::up_to(LONGEST_LINE)
}

impl Lines {
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.contents.fault.is_some() {
            return;
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.feed(piece);
            self.bytes += piece.len() as u64;
            if piece.ends_with(b"\n") {
                self.look();
            }
        }
    }

    /// Drops what stands behind the last line end.
    pub fn forget_rest(&mut self) {
        (self.line, self.bytes) = (new_line(), 0);
    }

    pub fn finish(mut self) -> Contents {
        self.look();
        self.contents
    }

    fn look(&mut self) {
        self.at += 1;
        let line = std::mem::replace(&mut self.line, new_line());
        let bytes = std::mem::take(&mut self.bytes);
        if self.contents.fault.is_none()
            && !line.kept().trim_ascii().is_empty()
            && let Err(why) = self.contents.add(&line, bytes)
        {
            self.contents.fault = Some(format!("Line {} of the file {why}.", self.at));
        }
    }
}

// === impl Contents ===

impl Contents {
    fn add(&mut self, line: &Skim, bytes: u64) -> Result<(), &'static str> {
        let (Some(task), Some(found)) = (line.read::<Task>(), references::read_line(line.kept()))
        else {
            return Err("cannot be read: each is one JSON object with `body`, no field twice");
        };
        let Task { url, body } = task;
        if body.model.is_empty() {
            return Err("has no `model` in its `body`, or one that is too long");
        }
        if body.previous_response_id.is_some() || body.conversation.is_some() {
            return Err("refers to what was said before, which a batch cannot do here");
        }
        if !found.items.is_empty() {
            return Err("refers to an item by its id, which a batch cannot do here");
        }
        self.files.extend(found.files);
        let share = self.models.entry(body.model).or_default();
        let most = body.max_tokens.or(body.max_completion_tokens).or(body.max_output_tokens);
        let answers = body.n.unwrap_or(1).max(1);
        share.input = share.input.saturating_add(bytes.div_ceil(BYTES));
        share.output = share.output.saturating_add(most.unwrap_or(0).saturating_mul(answers));
        if most.is_none() && !url.ends_with("/embeddings") && !url.ends_with("/moderations") {
            share.open = share.open.saturating_add(answers);
        }
        if self.models.len() > MOST_MODELS || self.files.len() > MOST_FILES {
            return Err("is one too many: a batch has at most 64 models and 1000 other files");
        }
        Ok(())
    }
}

// === impl Tally ===

impl Tally {
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.feed(piece);
            if piece.ends_with(b"\n") {
                self.count();
            }
        }
    }

    /// The tokens of all answers, and the model that gave the first of them.
    pub fn finish(mut self) -> Option<(Usage, Option<String>)> {
        self.count();
        Some((self.usage?, self.model))
    }

    fn count(&mut self) {
        let line = std::mem::take(&mut self.line);
        // One that has failed has used nothing.
        let Some(Line { response: Answered { body } }) = line.read() else { return };
        if let Some(usage) = read_usage(&body.usage) {
            *self.usage.get_or_insert_default() += usage;
            self.model = self.model.take().or(body.model);
        }
    }
}

/// Usage as either of OpenAI's APIs spells it.
pub fn read_usage(value: &Value) -> Option<Usage> {
    responses::read_usage(value).or_else(|| openai::count(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = concat!(
        r#"{"custom_id":"1","response":{"status_code":200,"body":{"model":"m","choices":[{"message":{"content":"LONG"}}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4}}}},"error":null}"#,
        "\n",
        r#"{"custom_id":"2","response":{"status_code":400,"body":{"error":{"message":"no"}}},"error":null}"#,
        "\n",
        "\nnonsense\n",
        r#"{"custom_id":"3","response":{"status_code":200,"body":{"model":"m","usage":{"input_tokens":5,"output_tokens":3,"total_tokens":8}}},"error":null}"#,
    );

    proptest! {
        #[test]
        fn all_answers_are_added_up_in_any_chunking(size in 1_usize..500, length in 0_usize..5000) {
            let file = FILE.replace("LONG", &"a".repeat(length));
            let mut tally = Tally::default();
            file.as_bytes().chunks(size).for_each(|piece| tally.feed(piece));
            let usage = Usage { input: 11, cache_read: 4, output: 5, ..Usage::default() };
            prop_assert_eq!(tally.finish(), Some((usage, Some("m".to_owned()))));
        }
    }

    fn contents(text: &str) -> Contents {
        let mut lines = Lines::default();
        lines.feed(text.as_bytes());
        lines.finish()
    }

    #[test]
    fn the_questions_of_a_batch_are_added_up_by_their_models_in_any_chunking() {
        let text = concat!(
            r#"{"url":"/v1/chat/completions","body":{"model":"a","max_tokens":5,"n":2}}"#,
            "\r\n\n",
            r#"{"url":"/v1/responses","body":{"model":"b","input":[{"file_id":"file-7"}]}}"#,
            "\n",
            r#"{"url":"/v1/embeddings","body":{"mod\u0065l":"b","input":"x"}}"#,
        );
        for size in 1..text.len() {
            let mut lines = Lines::default();
            text.as_bytes().chunks(size).for_each(|piece| lines.feed(piece));
            let found = lines.finish();
            assert_eq!(found.fault, None);
            let shares: Vec<_> = found
                .models
                .iter()
                .map(|(model, share)| (&**model, share.output, share.open))
                .collect();
            assert_eq!(shares, [("a", 10, 0), ("b", 0, 1)]);
            assert_eq!(found.files.iter().collect::<Vec<_>>(), ["file-7"]);
        }
    }

    #[test]
    fn a_line_of_which_it_cannot_be_told_what_it_wants_is_a_fault() {
        for line in [
            "x".to_owned(),
            "{}".to_owned(),
            r#"{"body":{}}"#.to_owned(),
            r#"{"body":{"model":"a"},"body":{"model":"b"}}"#.to_owned(),
            r#"{"body":{"model":"a","model":"b"}}"#.to_owned(),
            r#"{"body":{"model":"a","previous_response_id":"resp_1"}}"#.to_owned(),
            r#"{"body":{"model":"a","input":[{"type":"item_reference","id":"b"}]}}"#.to_owned(),
            format!(r#"{{"body":{{"model":"{}"}}}}"#, "a".repeat(200)),
        ] {
            let good = r#"{"body":{"model":"a","previous_response_id":null}}"#;
            let found = contents(&format!("{good}\n{line}\n{good}"));
            assert!(found.fault.is_some_and(|fault| fault.starts_with("Line 2 ")), "{line}");
        }
    }

    #[test]
    fn a_file_without_usage_counts_nothing() {
        let mut tally = Tally::default();
        tally.feed(b"{}\n");
        assert_eq!(tally.finish(), None);
    }
}
