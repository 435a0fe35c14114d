//! Tokens as this API counts them: what was cached is part of the input, thoughts of the output.

use serde_json::{Value, json};

use crate::canon::Usage;
use crate::dialect::legible::tokens;
use crate::dialect::openai;

pub fn read(value: &Value) -> Option<Usage> {
    let told = |value: &Value| tokens(value).ok().flatten();
    let count = |value: &Value| told(value).unwrap_or(0);
    let (input, output) = (told(&value["input_tokens"]), told(&value["output_tokens"]));
    if input.or(output).is_none() {
        // Some servers count in the words of chat completions.
        return openai::count(value);
    }
    // What is not told of one side is what the other leaves of the total.
    let total = told(&value["total_tokens"]);
    let rest = |side: Option<u64>| Some(total?.saturating_sub(side?));
    let input = input.or_else(|| rest(output))?;
    let output = output.or_else(|| rest(Some(input))).unwrap_or(0);
    let (said, wrote) = (&value["input_tokens_details"], &value["output_tokens_details"]);
    let cache_read = count(&said["cached_tokens"]).min(input);
    let cache_write = count(&said["cache_write_tokens"]).min(input - cache_read);
    Some(Usage {
        input: input - cache_read - cache_write,
        cache_read,
        cache_write,
        cache_write_long: 0,
        output,
        reasoning: count(&wrote["reasoning_tokens"]).min(output),
        audio_input: count(&said["audio_tokens"]),
        audio_output: count(&wrote["audio_tokens"]),
    })
}

pub(super) fn write(usage: &Usage) -> Value {
    let written = usage.cache_write + usage.cache_write_long;
    let mut value = json!({
        "input_tokens": usage.input_total(),
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total(),
    });
    let rare = [
        ("input_tokens_details", "audio_tokens", usage.audio_input),
        ("output_tokens_details", "audio_tokens", usage.audio_output),
    ];
    for (side, name, count) in rare.into_iter().filter(|(_, _, count)| *count > 0) {
        value[side][name] = count.into();
    }
    value
}
