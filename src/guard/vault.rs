//! What was masked in a call: the same value gets the same placeholder, and comes back as itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::filter::Filter;
use super::sieve::{Rule, Sieve, Sift, Sink};
use super::verdict::Blocked;

/// Any placeholder, whether it was ever given or not.
const PLACEHOLDER: &str = r"\[[A-Z][A-Z0-9_]{0,23}_[1-9][0-9]{0,5}\]";

static PLACEHOLDERS: LazyLock<Option<Sieve>> = LazyLock::new(|| {
    let check = Box::new(|candidate: &super::sieve::Candidate<'_>| Some(candidate.whole()));
    let rule = Rule {
        label: "placeholder".to_owned(),
        expression: PLACEHOLDER.to_owned(),
        begins_words: false,
        check,
    };
    Sieve::new(vec![rule]).ok()
});

/// The values of one call, and what stands for them. Nothing of it is ever printed or stored.
#[derive(Default)]
pub struct Vault(Mutex<Values>);

#[derive(Default)]
struct Values {
    placeholders: HashMap<(String, String), String>,
    /// What may be put back: only what was masked where it came from the caller.
    restorable: HashMap<String, String>,
    last: HashMap<String, u32>,
    /// Placeholders that the caller wrote, which are not given to values.
    taken: HashSet<String>,
}

/// Puts back what was masked.
pub struct Restorer {
    vault: Arc<Vault>,
    sift: Sift,
}

struct Restoring<'a> {
    values: &'a Values,
    out: &'a mut String,
}

struct Taking<'a>(&'a mut HashSet<String>);

// === impl Vault ===

impl Vault {
    /// Notes what looks like a placeholder in a text that will be masked. To be called with every
    /// text of the call before any is masked, so that no value gets a name that is in use.
    pub fn avoid(&self, text: &str) {
        if !text.contains('[') {
            return;
        }
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sieve) = &*PLACEHOLDERS else { return };
        let (mut sift, mut sink) = (Sift::default(), Taking(&mut values.taken));
        let _ = sift.feed(sieve, text, &mut sink) && sift.finish(sieve, &mut sink);
    }

    /// What stands for the value: `[EMAIL_1]`.
    pub(super) fn placeholder(&self, label: &str, value: &str, restorable: bool) -> String {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (label.to_owned(), value.to_owned());
        let placeholder = match values.placeholders.get(&key) {
            Some(placeholder) => placeholder.clone(),
            None => values.next(label),
        };
        if restorable {
            values.restorable.insert(placeholder.clone(), value.to_owned());
        }
        values.placeholders.insert(key, placeholder.clone());
        placeholder
    }

    /// The text with all that can be put back into it replaced again.
    pub fn conceal(&self, text: &str) -> String {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<(&String, &String)> = values.restorable.iter().collect();
        // A value may stand in a longer one.
        known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        known.into_iter().fold(text.to_owned(), |text, (placeholder, value)| {
            text.replace(value.as_str(), placeholder)
        })
    }

    /// Whether there is anything to put back, so that an answer need not be looked through.
    pub fn is_empty(&self) -> bool {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.restorable.is_empty()
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Vault(***)")
    }
}

impl Values {
    fn next(&mut self, label: &str) -> String {
        let name = label.to_ascii_uppercase();
        let last = self.last.entry(name.clone()).or_default();
        loop {
            *last += 1;
            let placeholder = format!("[{name}_{last}]");
            if !self.taken.contains(&placeholder) {
                return placeholder;
            }
        }
    }
}

impl Sink for Taking<'_> {
    fn pass(&mut self, _: &str) {}

    fn found(&mut self, _: &str, value: &str) -> bool {
        self.0.insert(value.to_owned());
        true
    }
}

// === impl Restorer ===

impl Restorer {
    pub fn new(vault: Arc<Vault>) -> Self {
        Self { vault, sift: Sift::default() }
    }

    fn run(&mut self, piece: Option<&str>, out: &mut String) {
        let values = self.vault.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sieve) = &*PLACEHOLDERS else { return out.push_str(piece.unwrap_or_default()) };
        let mut sink = Restoring { values: &values, out };
        match piece {
            Some(piece) => self.sift.feed(sieve, piece, &mut sink),
            None => self.sift.finish(sieve, &mut sink),
        };
    }
}

impl Filter for Restorer {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        self.run(Some(piece), out);
        Ok(())
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        self.run(None, out);
        Ok(())
    }
}

impl Sink for Restoring<'_> {
    fn pass(&mut self, text: &str) {
        self.out.push_str(text);
    }

    fn found(&mut self, _: &str, placeholder: &str) -> bool {
        let value = self.values.restorable.get(placeholder);
        self.out.push_str(value.map_or(placeholder, String::as_str));
        true
    }
}
