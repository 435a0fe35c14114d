//! What is said of models: exact prices, and every mistake with its line and path.

use super::super::ModelOverride;
use super::{complaints_beside_sound, parse};
use crate::canon::{Feature, Features, Price, Rates, Tier};

fn read(entry: &str) -> ModelOverride {
    let text = format!("[providers.groq]\nkind = \"groq\"\n[models.\"groq/llama\"]\n{entry}");
    let config = parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.models["groq/llama"].clone()
}

fn rates(input: &str, output: &str) -> Rates {
    Rates { input: input.parse().unwrap(), output: output.parse().unwrap(), ..Rates::default() }
}

#[test]
fn every_key_of_a_model_arrives_and_prices_are_exact() {
    let model = read(
        r#"
price = { input = 0.1, output = 3, cache_read = 0.003625, cache_write = 0.125, cache_write_hour = 0.2, reasoning = 3.5, audio_input = 1, audio_output = 2, tiers = [{ above = 200_000, input = 0.2, output = 4.5 }] }
context = 128_000
max_output = 16_384
features = ["tools", "web_search"]
"#,
    );
    let some = |text: &str| Some(text.parse().unwrap());
    let expected = Rates {
        cache_read: some("0.003625"),
        cache_write: some("0.125"),
        cache_write_hour: some("0.2"),
        reasoning: some("3.5"),
        audio_input: some("1"),
        audio_output: some("2"),
        ..rates("0.1", "3")
    };
    let tiers = vec![Tier { above: 200_000, rates: rates("0.2", "4.5") }];
    assert_eq!(model.price, Some(Price { rates: expected, tiers }));
    assert_eq!((model.context, model.max_output), (Some(128_000), Some(16_384)));
    let features: Features = [Feature::WebSearch, Feature::Tools].into_iter().collect();
    assert_eq!(model.features, Some(features));
}

#[test]
fn what_is_not_written_is_not_replaced() {
    assert_eq!(read(""), ModelOverride::default());
    let free = ModelOverride { price: Some(Price::free()), ..ModelOverride::default() };
    assert_eq!(read("price = \"free\""), free);
    let unable =
        ModelOverride { features: Some([].into_iter().collect()), ..ModelOverride::default() };
    assert_eq!(read("features = []"), unable);
}

#[test]
fn every_mistake_in_a_model_is_told_at_once() {
    let text = r#"
[models."groq/a"]
price = { input = 0.15 }
context = 0
[models."groq/b"]
price = { output = "0.6", input = -1 }
features = ["tools", "visoin", 3]
[models."gorq/c"]
price = 0.5
[models.llama]
prize = "free"
[models."groq/d"]
price = { input = 0.0000000001, output = 1e3, tiers = [{ input = 1, output = 1 }] }
[models."groq/e"]
price = { input = 1, output = 1, tiers = [{ above = 5, input = 1, output = 1 }, { above = 5, input = 1, output = 1 }] }
"#;
    assert_eq!(
        complaints_beside_sound(text),
        r#"8: models."groq/a".price: `output` is missing
9: models."groq/a".context: must be a whole number from 1 to 1000000000, not 0
11: models."groq/b".price.input: -1 is not an amount of USD like 3, 0.25 or 0.0375
11: models."groq/b".price.output: must be USD per million tokens, not text
12: models."groq/b".features[1]: no feature is called "visoin"; did you mean "vision"?
12: models."groq/b".features[2]: must be text in "quotes", not an integer
13: models."gorq/c": no provider is called "gorq"; did you mean "groq"?
14: models."gorq/c".price: must be "free" or { input = 0.15, output = 0.6 }, in USD per million tokens
15: models.llama: "llama" is not a model; write "provider/model"
16: models.llama.prize: "prize" is not known; did you mean "price"?
18: models."groq/d".price.tiers[0]: `above` is missing
18: models."groq/d".price.input: 0.0000000001 has more than nine digits behind the point
18: models."groq/d".price.output: 1e3 is not an amount of USD like 3, 0.25 or 0.0375
20: models."groq/e".price.tiers[1]: there are two tiers above 5 tokens
"#
    );
}
