//! Takes out of texts what is personal or secret, for places where nothing is ever put back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::arguments::Arguments;
use super::filter::Filter;
use super::scan::Scan;
use super::sieve::Sieve;
use super::vault::Vault;
use super::verdict::Blocked;
use super::{Engine, Guard, Replace, pii, secrets};
use crate::config::{Action, Mode, OnError, PII_KINDS, Stage};

/// Masks all that the guards `pii` and `secrets` look for. Made when it is first needed.
static GUARD: LazyLock<Option<Arc<Guard>>> = LazyLock::new(|| {
    let kinds: Vec<String> = PII_KINDS.iter().map(|&kind| kind.to_owned()).collect();
    let rules = pii::rules(&kinds).into_iter().chain(secrets::rules());
    let sieve = Sieve::new(rules.collect()).ok()?;
    Some(Arc::new(Guard {
        name: "redact".to_owned(),
        action: Action::Mask,
        mode: Mode::Blocking,
        on_error: OnError::Block,
        timeout: Duration::ZERO,
        dry_run: false,
        restore: false,
        stages: vec![Stage::Output],
        engine: Engine::Sieve(sieve, Replace::Placeholder),
    }))
});

/// The texts of one call: the same value gets the same placeholder in all of them.
#[derive(Default)]
pub struct Redactor(Arc<Vault>);

// === impl Redactor ===

impl Redactor {
    /// The text, or of JSON its strings and numbers, with `[EMAIL_1]` and the like in it.
    pub fn redact(&self, text: &str) -> String {
        // Without its rules, which does not happen, nothing passes.
        let Some(guard) = &*GUARD else { return String::new() };
        let scan = Scan::new(std::slice::from_ref(guard), Stage::Output, Arc::clone(&self.0));
        let is_json = text.trim_start().starts_with(['{', '[', '"']);
        let redacted = if is_json { whole(Arguments::new(scan), text) } else { whole(scan, text) };
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
