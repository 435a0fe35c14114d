//! `limits`: how often, how much at a time, and how many at once.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::reader::{Field, Section, kind_of};
use super::value;

pub(super) const KEYS: &[&str] = &["requests", "tokens", "concurrency"];

const EXAMPLES: &str = "\"60/m\" or \"100k/h\"; the units are s, m, h and d";
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
const FACTORS: [(&str, u64); 2] = [("k", 1000), ("M", 1_000_000)];

/// What whoever has these limits may do at most; an empty list is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub requests: Vec<Pace>,
    pub tokens: Vec<Pace>,
    /// Calls at the same time.
    pub concurrency: Option<u64>,
}

/// So many in any span of so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    pub amount: u64,
    pub seconds: u64,
}

// === impl Limits ===

impl Limits {
    /// Reads the `limits` of whoever may have some.
    pub(super) fn read(owner: &Section<'_>) -> Self {
        let section = owner.get("limits").and_then(|field| field.section(KEYS));
        let Some(section) = section else { return Self::default() };
        let paces = |key| section.get(key).map(|field| paces(&field)).unwrap_or_default();
        Self {
            requests: paces("requests"),
            tokens: paces("tokens"),
            concurrency: section
                .read("concurrency", |value| value::whole(value, 1..=u64::from(u32::MAX))),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.tokens.is_empty() && self.concurrency.is_none()
    }
}

/// One pace, or a list of them for different spans.
pub(super) fn paces(field: &Field<'_>) -> Vec<Pace> {
    if !field.is_list() {
        return field.read(pace).into_iter().collect();
    }
    let mut paces: Vec<Pace> = Vec::new();
    for element in field.list().into_iter().flatten() {
        let Some(pace) = element.read(pace) else { continue };
        if paces.iter().any(|other| other.seconds == pace.seconds) {
            element.fail("there are two limits for the same span");
        }
        paces.push(pace);
    }
    paces
}

fn pace(value: &DeValue<'_>) -> Result<Pace, String> {
    let Some(text) = value.as_str() else {
        return Err(format!("must be {EXAMPLES}, not {}", kind_of(value)));
    };
    let wrong = || format!("{text:?} is not a limit; write {EXAMPLES}");
    let (amount, unit) = text.split_once('/').ok_or_else(wrong)?;
    let amount = self::amount(amount.trim()).ok_or_else(wrong)?;
    let unit = unit.trim();
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    match amount {
        0 => Err("must be at least 1".to_owned()),
        amount => Ok(Pace { amount, seconds: *seconds }),
    }
}

/// Digits, `_` between them as in TOML, and `k` or `M` behind them.
fn amount(text: &str) -> Option<u64> {
    let factor = FACTORS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, factor)));
    let (digits, factor) = factor.unwrap_or((text, &1));
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    digits.replace('_', "").parse::<u64>().ok()?.checked_mul(*factor)
}
