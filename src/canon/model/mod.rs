//! What a model costs and what it can do. Money is counted exactly: no fractions of binary kind.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Usage;

const NANOS: u64 = 1_000_000_000;
const MILLION: u128 = 1_000_000;

/// An amount of USD in nano-dollars, for one token can cost less than a micro-dollar.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Money(u64);

/// What a million tokens cost, in nano-dollars. Not the price of a token: that may be less than
/// one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// Why a text is no amount of USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("is not an amount of USD like 3, 0.25 or 0.0375")]
    NotDecimal,
    #[error("has more than nine digits behind the point")]
    TooFine,
    #[error("is too large")]
    TooLarge,
}

/// What a model is known to be. The default is one of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The most tokens of question and answer together.
    pub context: Option<u64>,
    /// The most tokens of an answer.
    pub max_output: Option<u64>,
    /// None is not free: a money budget cannot let such a call pass.
    pub price: Option<Price>,
    pub features: Features,
}

/// What calls of a model cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Price {
    pub rates: Rates,
    /// Further rates for long questions.
    pub tiers: Vec<Tier>,
}

/// Rates of a whole call whose question, cached or not, has more tokens than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub above: u64,
    pub rates: Rates,
}

/// What each class of tokens costs. A class without a rate of its own costs what it is a part of:
/// cache reads and writes cost as `input`, an hour's writes as `cache_write`, audio as `input` and
/// `output`, and reasoning as `output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    pub input: Rate,
    pub output: Rate,
    pub cache_read: Option<Rate>,
    pub cache_write: Option<Rate>,
    pub cache_write_hour: Option<Rate>,
    pub reasoning: Option<Rate>,
    pub audio_input: Option<Rate>,
    pub audio_output: Option<Rate>,
}

/// Something that not every model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    Tools,
    /// Several tool calls in one answer.
    ParallelTools,
    /// Answers that follow a JSON Schema.
    Schema,
    /// Answers that are some JSON.
    JsonMode,
    Vision,
    Pdf,
    AudioIn,
    AudioOut,
    Reasoning,
    /// Goes on with an assistant's message that stands last.
    Prefill,
    /// Searches the web on the provider's side.
    WebSearch,
}

/// Some things that not every model can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureSet(u16);

/// What a model can do, if anyone knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(Option<u16>);

// === impl Money ===

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// As metrics and JSON have it: the fraction that is nearest to it.
    pub fn usd(self) -> f64 {
        let whole = u32::try_from(self.0 / NANOS).unwrap_or(u32::MAX);
        let fraction = u32::try_from(self.0 % NANOS).unwrap_or(0);
        f64::from(whole) + f64::from(fraction) / 1e9
    }

    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl FromStr for Money {
    type Err = AmountError;

    fn from_str(usd: &str) -> Result<Self, AmountError> {
        nanos(usd).map(Self)
    }
}

/// In USD, without zeros that say nothing: `12`, `0.000123`.
impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / NANOS, self.0 % NANOS);
        if fraction == 0 {
            return write!(formatter, "{whole}");
        }
        // Nine digits, without the zeros behind them. It is spelled for each call.
        let mut digits = *b"000000000";
        let mut rest = fraction;
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        let digits = str::from_utf8(&digits).unwrap_or_default().trim_end_matches('0');
        formatter.write_str(&whole.to_string())?;
        formatter.write_str(".")?;
        formatter.write_str(digits)
    }
}

// === impl Rate ===

impl Rate {
    pub const fn from_nanos_per_million(nanos: u64) -> Self {
        Self(nanos)
    }

    pub const fn nanos_per_million(self) -> u64 {
        self.0
    }

    /// What so many tokens cost, a million times over.
    fn times(self, tokens: u64) -> u128 {
        u128::from(self.0) * u128::from(tokens)
    }
}

/// From USD per million tokens.
impl FromStr for Rate {
    type Err = AmountError;

    fn from_str(usd: &str) -> Result<Self, AmountError> {
        nanos(usd).map(Self)
    }
}

/// Digits, or digits around a point; exact, or refused.
fn nanos(usd: &str) -> Result<u64, AmountError> {
    let (whole, fraction) = usd.split_once('.').unwrap_or((usd, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(AmountError::NotDecimal);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err(AmountError::TooFine);
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| AmountError::TooFine)?;
    let whole: u64 = whole.parse().map_err(|_| AmountError::TooLarge)?;
    let whole = whole.checked_mul(NANOS).ok_or(AmountError::TooLarge)?;
    whole.checked_add(fraction).ok_or(AmountError::TooLarge)
}

// === impl Price ===

impl Price {
    /// Nothing for anything, which is known.
    pub fn free() -> Self {
        Self::default()
    }

    /// The rates of a question with so many tokens.
    pub fn at(&self, input_tokens: u64) -> &Rates {
        let reached = self.tiers.iter().filter(|tier| input_tokens > tier.above);
        reached.max_by_key(|tier| tier.above).map_or(&self.rates, |tier| &tier.rates)
    }

    /// What a call with this usage costs, rounded once, half a nano-dollar up.
    pub fn cost(&self, usage: &Usage) -> Money {
        let rates = self.at(usage.input_total());
        let total = rates.classes(usage).into_iter().fold(0_u128, |total, (tokens, rate)| {
            // Saturates only beyond any sum a u64 of nano-dollars can hold.
            total.saturating_add(rate.times(tokens))
        });
        let nanos = total.saturating_add(MILLION / 2) / MILLION;
        Money(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

// === impl Rates ===

impl Rates {
    /// Each token of a call once, beside its rate.
    fn classes(&self, usage: &Usage) -> [(u64, Rate); 8] {
        // Parts never exceed what they are parts of, whatever an upstream reports.
        let audio_input = usage.audio_input.min(usage.input);
        let audio_output = usage.audio_output.min(usage.output);
        let reasoning = usage.reasoning.min(usage.output - audio_output);
        let write = self.cache_write.unwrap_or(self.input);
        [
            (usage.input - audio_input, self.input),
            (audio_input, self.audio_input.unwrap_or(self.input)),
            (usage.cache_read, self.cache_read.unwrap_or(self.input)),
            (usage.cache_write, write),
            (usage.cache_write_long, self.cache_write_hour.unwrap_or(write)),
            (usage.output - audio_output - reasoning, self.output),
            (audio_output, self.audio_output.unwrap_or(self.output)),
            (reasoning, self.reasoning.unwrap_or(self.output)),
        ]
    }
}

// === impl Feature ===

impl Feature {
    pub const ALL: [Self; 11] = [
        Self::Tools,
        Self::ParallelTools,
        Self::Schema,
        Self::JsonMode,
        Self::Vision,
        Self::Pdf,
        Self::AudioIn,
        Self::AudioOut,
        Self::Reasoning,
        Self::Prefill,
        Self::WebSearch,
    ];

    /// As configs and the table of models spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::ParallelTools => "parallel_tools",
            Self::Schema => "schema",
            Self::JsonMode => "json_mode",
            Self::Vision => "vision",
            Self::Pdf => "pdf",
            Self::AudioIn => "audio_in",
            Self::AudioOut => "audio_out",
            Self::Reasoning => "reasoning",
            Self::Prefill => "prefill",
            Self::WebSearch => "web_search",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

// === impl Features ===

impl Features {
    /// Nobody knows, so the model is taken to be able: ignorance never blocks a call.
    pub const UNKNOWN: Self = Self(None);

    /// Whether it can, as far as anyone knows.
    pub fn has(self, feature: Feature) -> bool {
        self.0.is_none_or(|bits| bits & feature.bit() != 0)
    }

    pub fn is_known(self) -> bool {
        self.0.is_some()
    }

    /// What of `wanted` it is known not to be able to do.
    pub fn lacking(self, wanted: FeatureSet) -> FeatureSet {
        FeatureSet(self.0.map_or(0, |bits| wanted.0 & !bits))
    }
}

// === impl FeatureSet ===

impl FeatureSet {
    pub const ALL: Self = Self((1 << Feature::ALL.len()) - 1);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Those that are not among `others`.
    #[must_use]
    pub fn but(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.contains(*feature))
    }
}

impl From<Feature> for FeatureSet {
    fn from(feature: Feature) -> Self {
        Self(feature.bit())
    }
}

impl BitOr for FeatureSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for FeatureSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOrAssign<Feature> for FeatureSet {
    fn bitor_assign(&mut self, feature: Feature) {
        self.0 |= feature.bit();
    }
}

/// Their names, with commas between them.
impl fmt::Display for FeatureSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, feature) in self.iter().enumerate() {
            if place > 0 {
                formatter.write_str(", ")?;
            }
            formatter.write_str(feature.name())?;
        }
        Ok(())
    }
}

/// These and no others.
impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(Some(features.into_iter().fold(0, |bits, feature| bits | feature.bit())))
    }
}

#[cfg(test)]
mod tests;
