//! What a model costs and what it can do. Money is counted exactly: no fractions of binary kind.

use std::fmt;
use std::str::FromStr;

use super::Usage;

const NANOS: u64 = 1_000_000_000;
const MILLION: u128 = 1_000_000;

/// An amount of USD in nano-dollars, for one token can cost less than a micro-dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        let digits = format!("{fraction:09}");
        write!(formatter, "{whole}.{}", digits.trim_end_matches('0'))
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
}

/// These and no others.
impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(Some(features.into_iter().fold(0, |bits, feature| bits | feature.bit())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(usd: &str) -> Rate {
        usd.parse().unwrap()
    }

    fn rates(input: &str, output: &str) -> Rates {
        Rates { input: rate(input), output: rate(output), ..Rates::default() }
    }

    fn usd(price: &Price, usage: &Usage) -> String {
        price.cost(usage).to_string()
    }

    #[test]
    fn claude_writes_and_reads_of_the_cache_have_their_own_rates() {
        let rates = Rates {
            cache_read: Some(rate("0.3")),
            cache_write: Some(rate("3.75")),
            cache_write_hour: Some(rate("6")),
            ..rates("3", "15")
        };
        let usage = Usage {
            input: 2000,
            cache_read: 10_000,
            cache_write: 1000,
            cache_write_long: 500,
            output: 800,
            ..Usage::default()
        };
        // 6000 + 3000 + 3750 + 3000 + 12000 millionths.
        assert_eq!(usd(&Price { rates, tiers: vec![] }, &usage), "0.02775");
    }

    #[test]
    fn gpt_4o_charges_half_for_what_was_cached() {
        let rates = Rates { cache_read: Some(rate("1.25")), ..rates("2.5", "10") };
        // OpenAI says 1000 prompt tokens, 300 of them cached.
        let usage = Usage { input: 700, cache_read: 300, output: 500, ..Usage::default() };
        assert_eq!(usd(&Price { rates, tiers: vec![] }, &usage), "0.007125");
    }

    #[test]
    fn gemini_2_5_pro_costs_more_for_all_of_a_call_above_200k() {
        let long = Rates { cache_read: Some(rate("0.25")), ..rates("2.5", "15") };
        let short = Rates { cache_read: Some(rate("0.125")), ..rates("1.25", "10") };
        let price = Price { rates: short, tiers: vec![Tier { above: 200_000, rates: long }] };
        let usage =
            |input, cache_read| Usage { input, cache_read, output: 1000, ..Usage::default() };
        assert_eq!(usd(&price, &usage(200_000, 0)), "0.26");
        assert_eq!(usd(&price, &usage(250_000, 0)), "0.64");
        // What is read from the cache counts towards the length: 0.45 + 0.005 + 0.015.
        assert_eq!(usd(&price, &usage(180_000, 20_001)), "0.47000025");
    }

    #[test]
    fn the_highest_tier_reached_counts_in_whatever_order_they_stand() {
        let tier = |above, input| Tier { above, rates: rates(input, "1") };
        let tiers = vec![tier(128_000, "3"), tier(32_000, "2.4")];
        let price = Price { rates: rates("1.2", "1"), tiers };
        for (tokens, input) in [(32_000, "1.2"), (32_001, "2.4"), (128_001, "3")] {
            assert_eq!(price.at(tokens).input, rate(input));
        }
    }

    #[test]
    fn audio_and_reasoning_are_charged_apart_from_what_they_are_parts_of() {
        let rates = Rates {
            audio_input: Some(rate("32")),
            audio_output: Some(rate("64")),
            ..rates("2.5", "10")
        };
        let usage = Usage {
            input: 1000,
            audio_input: 400,
            output: 300,
            audio_output: 200,
            ..Usage::default()
        };
        assert_eq!(usd(&Price { rates, tiers: vec![] }, &usage), "0.0281");

        let rates = Rates { reasoning: Some(rate("3")), ..self::rates("2", "8") };
        let usage = Usage { input: 100, output: 1000, reasoning: 600, ..Usage::default() };
        assert_eq!(usd(&Price { rates, tiers: vec![] }, &usage), "0.0052");
    }

    #[test]
    fn a_class_without_a_rate_costs_what_it_is_a_part_of() {
        let plain = Price { rates: rates("1", "10"), tiers: vec![] };
        let usage = Usage {
            input: 1,
            cache_read: 1,
            cache_write: 1,
            cache_write_long: 1,
            output: 2,
            reasoning: 1,
            audio_input: 1,
            audio_output: 1,
        };
        assert_eq!(plain.cost(&usage), Money(24_000));
        let written = Rates { cache_write: Some(rate("2")), ..plain.rates };
        assert_eq!(Price { rates: written, tiers: vec![] }.cost(&usage), Money(26_000));
    }

    #[test]
    fn a_sum_is_rounded_once_and_half_a_nano_dollar_goes_up() {
        let price = Price { rates: rates("0.0005", "0.0005"), tiers: vec![] };
        let usage = |input, output| Usage { input, output, ..Usage::default() };
        assert_eq!(price.cost(&usage(1, 0)), Money(1));
        assert_eq!(price.cost(&usage(1, 1)), Money(1));
        let finer = Price { rates: rates("0.000499999", "0"), tiers: vec![] };
        assert_eq!(finer.cost(&usage(1, 0)), Money::ZERO);
    }

    #[test]
    fn what_costs_nothing_costs_nothing_and_too_much_saturates() {
        let usage = Usage { input: 1 << 60, output: 1 << 60, ..Usage::default() };
        assert_eq!(Price::free().cost(&usage), Money::ZERO);
        let dear = Price { rates: rates("1000", "1000"), tiers: vec![] };
        assert_eq!(dear.cost(&usage), Money(u64::MAX));
        assert_eq!(Money(u64::MAX).checked_add(Money(1)), None);
        assert_eq!(Money(u64::MAX).saturating_add(Money(1)), Money(u64::MAX));
        assert_eq!(Money(1).saturating_sub(Money(2)), Money::ZERO);
    }

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        for (text, nanos) in [
            ("3", 3_000_000_000),
            ("0.15", 150_000_000),
            ("0.003625", 3_625_000),
            ("0.000000001", 1),
            ("1.5000000000000", 1_500_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Money(nanos)), "{text}");
        }
        for text in ["", ".", ".5", "5.", "-1", "+1", "1e3", "1_0", "inf", "0x10", " 1", "1,5"] {
            assert_eq!(text.parse::<Rate>(), Err(AmountError::NotDecimal), "{text}");
        }
        assert_eq!("0.0000000001".parse::<Rate>(), Err(AmountError::TooFine));
        assert_eq!("18446744074".parse::<Rate>(), Err(AmountError::TooLarge));
        assert_eq!("99999999999999999999".parse::<Rate>(), Err(AmountError::TooLarge));
    }

    #[test]
    fn money_is_shown_in_dollars_without_idle_zeros() {
        let shown = [(0, "0"), (123_000, "0.000123"), (1, "0.000000001"), (12 * NANOS, "12")];
        for (nanos, text) in shown {
            assert_eq!(Money(nanos).to_string(), text);
        }
    }

    #[test]
    fn ignorance_never_blocks_and_a_list_says_what_is_lacking() {
        assert!(Feature::ALL.into_iter().all(|feature| Features::UNKNOWN.has(feature)));
        let some: Features = [Feature::Tools, Feature::WebSearch].into_iter().collect();
        let had: Vec<_> = Feature::ALL.into_iter().filter(|one| some.has(*one)).collect();
        assert_eq!(had, [Feature::Tools, Feature::WebSearch]);
        assert!(some.is_known() && !Features::UNKNOWN.is_known());
        let none: Features = [].into_iter().collect();
        assert!(none.is_known() && !Feature::ALL.into_iter().any(|feature| none.has(feature)));
    }

    #[test]
    fn every_feature_is_found_by_its_name() {
        for feature in Feature::ALL {
            assert_eq!(Feature::from_name(feature.name()), Some(feature));
        }
        assert_eq!(Feature::from_name("flight"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_is_read(nanos: u64) {
            prop_assert_eq!(Money(nanos).to_string().parse(), Ok(Money(nanos)));
        }

        #[test]
        fn a_flat_price_charges_every_token_exactly_once(
            parts in proptest::array::uniform8(0_u64..1 << 40),
        ) {
            let [input, cache_read, cache_write, cache_write_long, output, rest @ ..] = parts;
            let [reasoning, audio_input, audio_output] = rest;
            let usage = Usage {
                input, cache_read, cache_write, cache_write_long, output,
                reasoning, audio_input, audio_output,
            };
            // A thousandth of a dollar per million is one nano-dollar per token.
            let price = Price { rates: rates("0.001", "0.001"), tiers: vec![] };
            prop_assert_eq!(price.cost(&usage), Money(usage.total()));
        }
    }
}
