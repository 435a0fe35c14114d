//! Tokens of a call in disjoint classes.

/// Token counts. The input classes are disjoint and sum to the provider's input total; `reasoning`
/// is the part of `output` that the client did not see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens that were neither read from nor written to the provider's prompt cache.
    pub input: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Usage {
    /// All input tokens, cached or not.
    pub fn input_total(&self) -> u64 {
        self.input + self.cache_read + self.cache_write
    }

    pub fn total(&self) -> u64 {
        self.input_total() + self.output
    }

    /// Each class with its label in `switchpoint_tokens_total`.
    pub fn classes(&self) -> [(&'static str, u64); 5] {
        [
            ("input", self.input),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("output", self.output.saturating_sub(self.reasoning)),
            ("reasoning", self.reasoning),
        ]
    }
}
