//! How much may be said: characters, and tokens by estimate.

use super::{Finding, Reader};
use crate::dialect::estimate::Count;

pub(super) struct Length {
    most_characters: Option<u64>,
    most_tokens: Option<u64>,
    characters: u64,
    tokens: Count,
    told: bool,
}

// === impl Length ===

impl Length {
    pub(super) fn new(most_characters: Option<u64>, most_tokens: Option<u64>) -> Self {
        let tokens = Count::default();
        Self { most_characters, most_tokens, characters: 0, tokens, told: false }
    }
}

impl Reader for Length {
    fn read(&mut self, piece: &str) -> Option<Finding> {
        self.characters += piece.chars().count() as u64;
        self.tokens.take(piece);
        let over = |most: Option<u64>, count| most.is_some_and(|most| count > most);
        if !over(self.most_characters, self.characters)
            && !over(self.most_tokens, self.tokens.tokens())
        {
            return None;
        }
        // Once is enough where it is only noted.
        let first = !std::mem::replace(&mut self.told, true);
        first.then(|| Finding { label: "length".to_owned(), ..Finding::default() })
    }

    /// The texts of one surface count together.
    fn end(&mut self) -> Option<Finding> {
        None
    }
}
