//! Costs worked out by hand, and every amount read exactly or refused.

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
    let usage = |input, cache_read| Usage { input, cache_read, output: 1000, ..Usage::default() };
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
    let usage =
        Usage { input: 1000, audio_input: 400, output: 300, audio_output: 200, ..Usage::default() };
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
