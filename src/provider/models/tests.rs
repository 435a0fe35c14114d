//! The table is whole and sane, and models are found however they are spelled.

use super::*;
use crate::canon::{Money, Rate, Usage};
use crate::provider::catalog;

/// As it is bundled.
const TEXT: &str = include_str!("table.txt");

fn rate(text: &str) -> Rate {
    text.parse().unwrap()
}

fn input(kind: &str, model: &str) -> Rate {
    find(kind, model).unwrap().price.as_ref().unwrap().rates.input
}

// === The table ===

#[test]
fn every_row_is_read_and_every_heading_is_a_row_of_the_catalogue() {
    let table = read(TEXT).unwrap();
    let rows: usize = table.values().map(|kind| kind.models.len()).sum();
    assert!(rows >= 300, "{rows} models");
    let priced = table.values().filter(|section| !section.models.is_empty());
    assert!(priced.count() >= 20);
    for kind in table.keys() {
        assert!(catalog::find(kind).is_some(), "[{kind}]");
    }
    assert!(TEXT.len() < 120_000, "{} bytes", TEXT.len());
}

#[test]
fn no_row_has_a_price_or_a_window_that_is_a_slip_of_the_hand() {
    for (kind, section) in read(TEXT).unwrap() {
        for (name, model) in section.models {
            let place = format!("{kind}/{name}");
            let price = model.price.iter().find(|price| **price != Price::free());
            let tiers = price.iter().flat_map(|price| price.tiers.iter().map(|tier| tier.rates));
            for rates in price.iter().map(|price| price.rates).chain(tiers) {
                check_rates(&place, rates);
            }
            let tiers = price.map(|price| price.tiers.as_slice()).unwrap_or_default();
            assert!(tiers.is_sorted_by(costs_more), "{place}: tiers rise and cost more");
            let first = price.zip(tiers.first());
            let base = |price: &Price| Tier { above: 0, rates: price.rates };
            assert!(first.is_none_or(|(price, tier)| costs_more(&base(price), tier)), "{place}");
            // The smallest are those of models that make vectors.
            let sane = |tokens| (500..=10_000_000).contains(&tokens);
            assert!(model.context.is_none_or(sane), "{place}");
            let most = model.context.zip(model.max_output);
            assert!(most.is_none_or(|(context, output)| output <= context), "{place}");
        }
    }
}

fn check_rates(place: &str, rates: Rates) {
    let nanos = |rate: Rate| rate.nanos_per_million();
    let (input, output) = (nanos(rates.input), nanos(rates.output));
    assert!((1_000_000..=200_000_000_000).contains(&input), "{place}: input {input}");
    assert!(output == 0 || output >= input / 10, "{place}: output {output}");
    assert!(output <= input.saturating_mul(200), "{place}: output {output}");
    assert!(rates.cache_read.is_none_or(|rate| rate <= rates.input), "{place}: cache read");
    let write = rates.cache_write.map_or(input, nanos);
    assert!((input..=2 * input).contains(&write), "{place}: cache write");
    let hour = rates.cache_write_hour.map_or(2 * input, nanos);
    assert_eq!(hour, 2 * input, "{place}: cache write of an hour");
}

fn costs_more(below: &Tier, above: &Tier) -> bool {
    above.above > below.above
        && above.rates.input >= below.rates.input
        && above.rates.output >= below.rates.output
}

#[test]
fn rows_stand_in_the_order_of_their_names() {
    let mut before = String::new();
    for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ' '])) {
        let name = line.split(' ').next().unwrap_or_default().to_lowercase();
        assert!(name >= before || line.starts_with('['), "{name} stands behind {before}");
        before = if line.starts_with('[') { String::new() } else { name };
    }
}

#[test]
fn a_broken_row_says_where_and_why() {
    for (text, fault) in [
        ("[a]\nm 1 1 2 3 - -", "too few columns"),
        ("[a]\nm 1 1 2 3 - - -", "no features"),
        ("[a]\nm 1 1 2 3 - - - tools,flight", "\"flight\""),
        ("[a]\nm 1k 1 2 3 - - - ?", "\"1k\""),
        ("[a]\nm 1 1 0.0000000001 3 - - - ?", "more than nine digits"),
        ("[a]\nm 1 1 2 3 - - - ? audio=3", "audio without"),
        ("[a]\nm 1 1 2 3 - - - ? video=3", "video"),
        ("[a]\n> 5 2 3 - - -", "follows no price"),
        ("[a]\nm 1 1 2 3 - - - ?\nm 1 1 2 3 - - - ?", "twice"),
        ("[a]\n[a]", "twice"),
    ] {
        let told = read(text).unwrap_err();
        assert!(told.contains(fault) && told.starts_with("line "), "{told}");
    }
}

// === Spellings ===

#[test]
fn a_model_is_found_by_its_date_its_region_and_its_folder_or_without() {
    for (kind, known, spelled) in [
        ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
        ("openai", "omni-moderation", "omni-moderation-latest"),
        ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("anthropic", "claude-3-5-haiku", "claude-3-5-haiku-latest"),
        ("vertex", "claude-opus-4-1", "claude-opus-4-1@20250805"),
        ("gemini", "gemini-2.5-pro", "models/gemini-2.5-pro"),
        ("bedrock", "amazon.nova-pro", "eu.amazon.nova-pro-v1:0"),
        ("bedrock", "anthropic.claude-haiku-4-5", "us.anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("bedrock", "anthropic.claude-opus-4-6-v1", "jp.anthropic.claude-opus-4-6-v1"),
        ("bedrock", "anthropic.claude-opus-4-6", "us.anthropic.claude-opus-4-6-v1:0"),
        ("bedrock", "meta.llama3-3-70b-instruct", "us.meta.llama3-3-70b-instruct-v1:0"),
        ("openrouter", "openai/gpt-4o", "openai/gpt-4o:nitro"),
        ("openrouter", "moonshotai/kimi-k3", "moonshotai/kimi-k3-20260715"),
        ("azure", "gpt-4.1", "gpt-4.1-2025-04-14"),
    ] {
        assert!(find(kind, known).is_some(), "{kind}/{known}");
        assert_eq!(find(kind, spelled), find(kind, known), "{kind}/{spelled}");
    }
}

#[test]
fn a_row_of_its_own_wins_over_the_shorter_name() {
    assert_eq!(input("openai", "gpt-4o-2024-05-13"), rate("5"));
    assert_eq!(input("openai", "gpt-4o-2024-08-06"), rate("2.5"));
    let profile = "anthropic.claude-sonnet-4-5-20250929-v1:0";
    assert_eq!(input("bedrock", &format!("global.{profile}")), rate("3"));
    assert_eq!(input("bedrock", &format!("us.{profile}")), rate("3.3"));
}

#[test]
fn nothing_is_guessed() {
    for (kind, model) in [
        ("openai", "gpt-4o-mega"),
        ("openai", "gpt-4o-08-06"),
        ("openai", "claude-sonnet-4-5"),
        ("openrouter", "gpt-4o"),
        ("openrouter", "nobody/nothing"),
        ("groq", "gpt-oss-120b"),
        ("bedrock", "us.claude-haiku-4-5"),
        ("openai-compatible", "gpt-4o"),
        ("no-such-kind", "gpt-4o"),
    ] {
        assert_eq!(find(kind, model), None, "{kind}/{model}");
    }
}

#[test]
fn what_runs_on_ones_own_machine_is_free_and_may_be_able_to_do_anything() {
    for kind in catalog::CATALOG.iter().filter(|kind| kind.base_url.starts_with("http://127.")) {
        let model = find(kind.id, "llama3.2:latest").unwrap();
        assert_eq!(model.price, Some(Price::free()), "{}", kind.id);
        assert_eq!(model.features, Features::UNKNOWN);
    }
    assert_eq!(find("demo", "demo").unwrap().price, Some(Price::free()));
}

#[test]
fn free_variants_of_openrouter_are_free_whether_or_not_the_model_is_known() {
    for model in ["deepseek/deepseek-r1-0528:free", "nobody/nothing:free"] {
        assert_eq!(find("openrouter", model).unwrap().price, Some(Price::free()));
    }
    assert_eq!(find("openai", "gpt-4o:free"), None);
}

#[test]
fn claude_goes_on_with_an_assistants_words_up_to_4_5_only() {
    for (model, prefill) in [("claude-sonnet-4-5", true), ("claude-sonnet-4-6", false)] {
        let features = find("anthropic", model).unwrap().features;
        assert_eq!(features.has(Feature::Prefill), prefill, "{model}");
    }
}

// === Overrides ===

#[test]
fn an_override_replaces_the_keys_it_names_and_no_others() {
    let kind = catalog::find("openai").unwrap();
    let known = resolve(kind, "gpt-4o-mini", None);
    let written = ModelOverride { context: Some(64_000), ..ModelOverride::default() };
    let resolved = resolve(kind, "gpt-4o-mini", Some(&written));
    assert_eq!(resolved, Model { context: Some(64_000), ..known.clone() });

    let rates = Rates { input: rate("1"), output: rate("2"), ..Rates::default() };
    let price = Price { rates, tiers: vec![] };
    let written = ModelOverride {
        price: Some(price.clone()),
        features: Some([Feature::Tools].into_iter().collect()),
        ..ModelOverride::default()
    };
    let resolved = resolve(kind, "gpt-4o-mini", Some(&written));
    assert_eq!((resolved.price, resolved.context), (Some(price), known.context));
    assert!(!resolved.features.has(Feature::Vision));
}

#[test]
fn a_model_nobody_knows_has_no_price_and_may_be_able_to_do_anything() {
    let kind = catalog::find("openai-compatible").unwrap();
    let model = resolve(kind, "house-model", None);
    assert_eq!(model, Model::default());
    assert!(model.features.has(Feature::Vision));
    let written = ModelOverride { price: Some(Price::free()), ..ModelOverride::default() };
    assert_eq!(resolve(kind, "house-model", Some(&written)).price, Some(Price::free()));
}

#[test]
fn the_price_of_a_call_follows_from_its_row() {
    let cost =
        |kind, model, usage: Usage| find(kind, model).unwrap().price.as_ref().unwrap().cost(&usage);
    let usage = |input, output| Usage { input, output, ..Usage::default() };
    // 100 × 0.15 + 60 × 0.6 millionths of a dollar.
    assert_eq!(cost("openai", "gpt-4o-mini", usage(100, 60)), Money::from_nanos(51_000));
    // Above 100,000 tokens Haiku 5.5 costs five times as much, for all of the call.
    assert_eq!(cost("anthropic", "claude-haiku-5-5", usage(100_000, 1000)).to_string(), "0.0105");
    assert_eq!(
        cost("anthropic", "claude-haiku-5-5", usage(100_001, 1000)).to_string(),
        "0.0525005"
    );
}
