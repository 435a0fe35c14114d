//! The tokenizers that makers have published, by the names of their models.
//!
//! Their tables are compressed in the binary. One takes some 25 MB of memory and a tenth of a
//! second when it is opened, so whoever wants it first has that done on another thread; until then, and for makers who publish none, tokens are estimated by a rule of thumb.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};

use tiktoken::CoreBpe;

/// A longer text is not worth the time: it would take a worker ten milliseconds and more.
const LONGEST: usize = 1 << 20;

/// One that is open.
#[derive(Clone, Copy)]
pub struct Tokenizer(&'static CoreBpe);

/// Which one a model counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(&'static str);

#[derive(Default)]
struct Slot {
    wanted: AtomicBool,
    open: OnceLock<&'static CoreBpe>,
}

static SLOTS: LazyLock<HashMap<&'static str, Slot>> = LazyLock::new(|| {
    tiktoken::list_encodings().iter().map(|name| (*name, Slot::default())).collect()
});

// === impl Encoding ===

impl Encoding {
    /// That of a model, however it is spelled: `openai/gpt-5-mini`, `meta-llama/Llama-3.3-70B`.
    pub fn of(model: &str) -> Option<Self> {
        let name = model.rsplit(['/', ':']).next().unwrap_or(model).to_ascii_lowercase();
        let whole = model.to_ascii_lowercase();
        let found = tiktoken::model_to_encoding(&name);
        let found = found.or_else(|| tiktoken::model_to_encoding(whole.rsplit('/').next()?));
        found.map(Self)
    }

    /// The tokenizer, if it is open.
    pub fn tokenizer(self) -> Option<Tokenizer> {
        SLOTS.get(self.0)?.open.get().copied().map(Tokenizer)
    }

    /// Whether the caller is the first who wants it, and so is to have it opened.
    pub fn claim(self) -> bool {
        SLOTS.get(self.0).is_some_and(|slot| !slot.wanted.swap(true, Ordering::Relaxed))
    }

    /// The same, opened now if need be.
    pub fn open(self) -> Option<Tokenizer> {
        let slot = SLOTS.get(self.0)?;
        let open = tiktoken::get_encoding(self.0)?;
        Some(Tokenizer(slot.open.get_or_init(|| open)))
    }
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Tokens of a text; `None` for one that is too long to be counted.
    pub fn count(self, text: &str) -> Option<u64> {
        (text.len() <= LONGEST).then(|| self.0.count(text) as u64)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tokenizer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_known_however_they_are_spelled() {
        for (model, encoding) in [
            ("gpt-5-mini", Some("o200k_base")),
            ("openai/gpt-4o-2024-11-20", Some("o200k_base")),
            ("gpt-4-turbo", Some("cl100k_base")),
            ("openai/gpt-oss-120b", Some("o200k_harmony")),
            ("ft:gpt-4o-mini:acme::x1", Some("o200k_base")),
            ("llama-3.3-70b-versatile", Some("llama3")),
            ("meta-llama/Llama-3.3-70B-Instruct-Turbo", Some("llama3")),
            ("deepseek-ai/DeepSeek-V3", Some("deepseek_v3")),
            ("Qwen/Qwen3-235B-A22B", Some("qwen2")),
            ("claude-opus-4-5", None),
            ("gemini-2.5-pro", None),
        ] {
            assert_eq!(Encoding::of(model), encoding.map(Encoding), "{model}");
        }
    }

    #[test]
    fn tokens_are_those_of_the_maker() {
        let tokenizer = Encoding("o200k_base").open().unwrap();
        let words = "The quick brown fox jumps over the lazy dog.";
        assert_eq!(tokenizer.count(words), Some(10));
        assert_eq!(tokenizer.count(&"a".repeat(LONGEST + 1)), None);
        assert!(Encoding("o200k_base").tokenizer().is_some(), "it stays open");
    }
}
