//! What the answers of a batch have used, line by line as their file passes by.

use serde::Deserialize;
use serde_json::Value;

use super::openai::{self, Skim};
use super::responses;
use crate::canon::Usage;

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

    #[test]
    fn a_file_without_usage_counts_nothing() {
        let mut tally = Tally::default();
        tally.feed(b"{}\n");
        assert_eq!(tally.finish(), None);
    }
}
