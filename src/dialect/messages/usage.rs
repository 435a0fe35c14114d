//! Token counts: this API counts what it read from and wrote to its cache apart from the input.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::canon::Usage;
use crate::dialect::legible::{list, object, tokens};

/// The counts of a whole answer, or of a stream so far. Those of a stream are totals: a later one
/// replaces an earlier one, and one left out still holds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    #[serde(deserialize_with = "tokens")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "tokens")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "tokens")]
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "tokens")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(deserialize_with = "object")]
    cache_creation: Option<Lifetimes>,
    #[serde(deserialize_with = "object")]
    output_tokens_details: Option<Details>,
    /// Each run of a model on its own. The fields beside leave out runs that summed up the history
    /// and those of other models (an advisor): all of them together are what is billed.
    #[serde(deserialize_with = "list")]
    iterations: Option<Vec<Counts>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Lifetimes {
    #[serde(deserialize_with = "tokens")]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(deserialize_with = "tokens")]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(deserialize_with = "tokens")]
    thinking_tokens: Option<u64>,
}

impl Counts {
    /// Without what it says of the answer.
    pub(super) fn of_question(self) -> Self {
        Self { output_tokens: None, ..self }
    }

    pub(super) fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or(self.input_tokens);
        self.output_tokens = later.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens =
            later.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens =
            later.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_creation = later.cache_creation.or(self.cache_creation);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
        if later.iterations.is_some() {
            self.iterations = later.iterations;
        }
    }

    pub(super) fn usage(&self) -> Usage {
        let said = self.own();
        let mut all = Usage::default();
        for run in self.iterations.iter().flatten().map(Self::own) {
            all.input = all.input.saturating_add(run.input);
            all.cache_read = all.cache_read.saturating_add(run.cache_read);
            all.cache_write = all.cache_write.saturating_add(run.cache_write);
            all.cache_write_long = all.cache_write_long.saturating_add(run.cache_write_long);
            all.output = all.output.saturating_add(run.output);
        }
        // A list that lacks some run, or how long what it wrote is kept, is no reason to count less
        // than was said.
        let written = |usage: &Usage| usage.cache_write.saturating_add(usage.cache_write_long);
        let long = all.cache_write_long.max(said.cache_write_long);
        let written = written(&all).max(written(&said));
        Usage {
            input: all.input.max(said.input),
            cache_read: all.cache_read.max(said.cache_read),
            cache_write: written.saturating_sub(long),
            cache_write_long: long,
            output: all.output.max(said.output),
            ..said
        }
    }

    /// The counts without those of single runs.
    fn own(&self) -> Usage {
        let lifetimes = self.cache_creation.unwrap_or_default();
        let (short, long) = (
            lifetimes.ephemeral_5m_input_tokens.unwrap_or(0),
            lifetimes.ephemeral_1h_input_tokens.unwrap_or(0),
        );
        // A stream splits by lifetime only at its start; the total is what counts.
        let written =
            self.cache_creation_input_tokens.unwrap_or_else(|| short.saturating_add(long));
        let long = long.min(written);
        let output = self.output_tokens.unwrap_or(0);
        let reasoning = self.output_tokens_details.and_then(|details| details.thinking_tokens);
        Usage {
            input: self.input_tokens.unwrap_or(0),
            cache_read: self.cache_read_input_tokens.unwrap_or(0),
            cache_write: written - long,
            cache_write_long: long,
            output,
            reasoning: reasoning.unwrap_or(0).min(output),
            ..Usage::default()
        }
    }
}

/// The counts of an answer as this API spells them.
pub(super) fn write(usage: &Usage) -> Value {
    let mut written = json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_long,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_long,
        },
        "output_tokens": usage.output,
    });
    if usage.reasoning > 0 {
        written["output_tokens_details"] = json!({ "thinking_tokens": usage.reasoning });
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_an_hour_is_counted_once() {
        let run = json!({"input_tokens": 5, "cache_creation_input_tokens": 100});
        let counts: Counts = serde_json::from_value(json!({
            "input_tokens": 5, "cache_creation_input_tokens": 100,
            "cache_creation": {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60},
            "iterations": [run],
        }))
        .unwrap();
        let usage = counts.usage();
        assert_eq!((usage.cache_write, usage.cache_write_long), (40, 60));
    }
}
