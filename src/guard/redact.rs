//! Takes out of texts what is personal or secret, for places where nothing is ever put back.

use std::sync::LazyLock;

use super::arguments::Arguments;
use super::filter::Filter;
use super::sieve::{Sieve, Sift, Sink};
use super::vault::Vault;
use super::verdict::Blocked;
use super::{pii, secrets};
use crate::config::PII_KINDS;

/// All that the guards `pii` and `secrets` look for. Made when it is first needed.
static SIEVE: LazyLock<Option<Sieve>> = LazyLock::new(|| {
    let kinds: Vec<String> = PII_KINDS.iter().map(|&kind| kind.to_owned()).collect();
    let rules = pii::rules(&kinds).into_iter().chain(secrets::rules());
    Sieve::new(rules.collect()).ok()
});

/// The texts of one call: the same value gets the same placeholder in all of them.
#[derive(Default)]
pub struct Redactor(Vault);

struct Redacting<'a> {
    vault: &'a Vault,
    sift: Sift,
}

struct Covering<'a> {
    vault: &'a Vault,
    out: &'a mut String,
}

// === impl Redactor ===

impl Redactor {
    /// The text, or of JSON its strings and numbers, with `[EMAIL_1]` and the like in it.
    pub fn redact(&self, text: &str) -> String {
        let inner = Redacting { vault: &self.0, sift: Sift::default() };
        let is_json = text.trim_start().starts_with(['{', '[', '"']);
        let redacted =
            if is_json { whole(Arguments::new(inner), text) } else { whole(inner, text) };
        // Nobody blocks here; better nothing than what was not looked at.
        redacted.unwrap_or_default()
    }
}

fn whole(mut filter: impl Filter, text: &str) -> Result<String, Blocked> {
    let mut out = String::with_capacity(text.len());
    filter.feed(text, &mut out)?;
    filter.finish(&mut out)?;
    Ok(out)
}

impl Redacting<'_> {
    fn run(&mut self, piece: Option<&str>, out: &mut String) {
        // Without its rules, which does not happen, nothing passes.
        let Some(sieve) = &*SIEVE else { return };
        let mut sink = Covering { vault: self.vault, out };
        match piece {
            Some(piece) => self.sift.feed(sieve, piece, &mut sink),
            None => self.sift.finish(sieve, &mut sink),
        };
    }
}

impl Filter for Redacting<'_> {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        self.run(Some(piece), out);
        Ok(())
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        self.run(None, out);
        Ok(())
    }
}

impl Sink for Covering<'_> {
    fn pass(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn found(&mut self, label: &str, value: &str) -> bool {
        self.out.push_str(&self.vault.placeholder(label, value, false));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_personal_or_secret_is_covered_in_texts_and_in_json() {
        let redactor = Redactor::default();
        assert_eq!(redactor.redact("Mail ann@example.com."), "Mail [EMAIL_1].");
        assert_eq!(
            redactor.redact(r#"[{"content":"to\nann@example.com or bob@example.com","n":7}]"#),
            r#"[{"content":"to\n[EMAIL_1] or [EMAIL_2]","n":7}]"#
        );
        let told = redactor.redact(r#"{"card": 4111111111111111, "cut": "ann@exam"#);
        assert!(!told.contains("4111") && told.contains(r#""[CARD"#), "{told}");
    }
}
