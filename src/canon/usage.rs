//! Tokens of a call in disjoint classes.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Token counts. `input`, `cache_read`, `cache_write` and `cache_write_long` are disjoint and sum
/// to all that was read; `output` is all that was written. The others are parts of those:
/// `reasoning` and `audio_output` of `output`, `audio_input` of `input`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Input tokens that were neither read from nor written to the provider's prompt cache.
    pub input: u64,
    pub cache_read: u64,
    /// Written to the prompt cache for five minutes, or for as long as the provider keeps it.
    pub cache_write: u64,
    /// Written to the prompt cache for an hour.
    pub cache_write_long: u64,
    pub output: u64,
    pub reasoning: u64,
    pub audio_input: u64,
    pub audio_output: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.input += more.input;
        self.cache_read += more.cache_read;
        self.cache_write += more.cache_write;
        self.cache_write_long += more.cache_write_long;
        self.output += more.output;
        self.reasoning += more.reasoning;
        self.audio_input += more.audio_input;
        self.audio_output += more.audio_output;
    }
}

impl Usage {
    /// All input tokens, cached or not.
    pub fn input_total(&self) -> u64 {
        self.input + self.cache_read + self.cache_write + self.cache_write_long
    }

    pub fn total(&self) -> u64 {
        self.input_total() + self.output
    }

    /// Each class with its label in `switchpoint_tokens_total`; together they are the total.
    pub fn classes(&self) -> [(&'static str, u64); 8] {
        [
            ("input", self.input.saturating_sub(self.audio_input)),
            ("audio_input", self.audio_input),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("cache_write_long", self.cache_write_long),
            (
                "output",
                self.output.saturating_sub(self.reasoning).saturating_sub(self.audio_output),
            ),
            ("reasoning", self.reasoning),
            ("audio_output", self.audio_output),
        ]
    }
}
