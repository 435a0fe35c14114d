//! `[models."PROVIDER/MODEL"]`: what the bundled table of models says wrongly, or not at all.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::limit::Limits;
use super::problem::suggestion;
use super::reader::{Field, Section, kind_of};
use super::value;
use crate::canon::{Feature, Features, Price, Rate, Rates, Tier};

pub(super) const KEYS: &[&str] = &["price", "context", "max_output", "features", "limits"];
pub(super) const PRICE_KEYS: &[&str] = &[
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_hour",
    "reasoning",
    "audio_input",
    "audio_output",
    "tiers",
];
pub(super) const TIER_KEYS: &[&str] = &[
    "above",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_hour",
    "reasoning",
    "audio_input",
    "audio_output",
];

/// More than any model reads; a slip of the hand all the same.
const MOST_TOKENS: u64 = 1_000_000_000;

/// What is written wins over what is known, key by key: a price replaces all of the known price,
/// and a list of features all of the known features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelOverride {
    pub price: Option<Price>,
    pub context: Option<u64>,
    pub max_output: Option<u64>,
    pub features: Option<Features>,
    /// Of all calls that it answers, whatever their route.
    pub limits: Limits,
}

/// Every entry of `[models]`.
pub(super) fn read_all(root: &Section<'_>) -> BTreeMap<String, ModelOverride> {
    let entries = root.get("models").map(|field| field.entries()).unwrap_or_default();
    entries
        .into_iter()
        .map(|(name, field)| {
            if !name.split_once('/').is_some_and(|(one, two)| !one.is_empty() && !two.is_empty()) {
                field.fail(format!("{name:?} is not a model; write \"provider/model\""));
            }
            let section = field.section(KEYS);
            (name.to_owned(), section.as_ref().map(ModelOverride::read).unwrap_or_default())
        })
        .collect()
}

// === impl ModelOverride ===

impl ModelOverride {
    fn read(section: &Section<'_>) -> Self {
        let tokens = |key| section.read(key, |value| value::whole(value, 1..=MOST_TOKENS));
        Self {
            price: section.get("price").and_then(|field| price(&field)),
            context: tokens("context"),
            max_output: tokens("max_output"),
            features: section.get("features").and_then(|field| features(&field)),
            limits: Limits::read(section),
        }
    }
}

fn price(field: &Field<'_>) -> Option<Price> {
    if !field.is_table() {
        return field.read(free);
    }
    let section = field.section(PRICE_KEYS)?;
    let tiers = section.get("tiers").map(|field| tiers(&field)).unwrap_or_default();
    Some(Price { rates: rates(&section), tiers })
}

fn free(value: &DeValue<'_>) -> Result<Price, String> {
    match value.as_str() {
        Some("free") => Ok(Price::free()),
        _ => Err("must be \"free\" or { input = 0.15, output = 0.6 }, in USD per million tokens"
            .to_owned()),
    }
}

/// A rate that is missing is reported, so what stands in its place is never used.
fn rates(section: &Section<'_>) -> Rates {
    let required = |key| section.require(key).and_then(|field| field.read(rate));
    let optional = |key| section.read(key, rate);
    Rates {
        input: required("input").unwrap_or_default(),
        output: required("output").unwrap_or_default(),
        cache_read: optional("cache_read"),
        cache_write: optional("cache_write"),
        cache_write_hour: optional("cache_write_hour"),
        reasoning: optional("reasoning"),
        audio_input: optional("audio_input"),
        audio_output: optional("audio_output"),
    }
}

fn tiers(field: &Field<'_>) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for element in field.list().into_iter().flatten() {
        let Some(section) = element.section(TIER_KEYS) else { continue };
        let tokens = |value: &DeValue<'_>| value::whole(value, 1..=MOST_TOKENS);
        let above = section.require("above").and_then(|field| field.read(tokens));
        let rates = rates(&section);
        let Some(above) = above else { continue };
        if tiers.iter().any(|tier| tier.above == above) {
            element.fail(format!("there are two tiers above {above} tokens"));
        }
        tiers.push(Tier { above, rates });
    }
    tiers
}

/// Read from the digits as they stand, for a binary fraction is not what was written.
fn rate(value: &DeValue<'_>) -> Result<Rate, String> {
    let digits = match value {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        _ => return Err(format!("must be USD per million tokens, not {}", kind_of(value))),
    };
    digits.parse().map_err(|error| format!("{digits} {error}"))
}

fn features(field: &Field<'_>) -> Option<Features> {
    let elements = field.list()?;
    Some(elements.iter().filter_map(|element| element.read(feature)).collect())
}

fn feature(value: &DeValue<'_>) -> Result<Feature, String> {
    let name = value::text(value)?;
    Feature::from_name(&name).ok_or_else(|| {
        let hint = suggestion(&name, Feature::ALL.map(Feature::name));
        format!("no feature is called {name:?}{hint}")
    })
}
