//! Token counts as Gemini reports them, read into disjoint classes and written from them.

use serde_json::{Map, Value, json};

use super::wire::{Modality, UsageMetadata};
use crate::canon::Usage;

/// The counts, if there are any: some events of a stream only name the kind of traffic.
///
/// `promptTokenCount` holds what was read from the cache, `candidatesTokenCount` leaves out the
/// thoughts, and what hosted tools read stands beside both.
pub(super) fn read(said: &UsageMetadata) -> Option<Usage> {
    if said.prompt_token_count.is_none() && said.total_token_count.is_none() {
        return None;
    }
    let prompt = said.prompt_token_count.unwrap_or_default();
    let tools = said.tool_use_prompt_token_count.unwrap_or_default();
    let spoken = said.candidates_token_count.unwrap_or_default();
    let mut reasoning = said.thoughts_token_count.unwrap_or_default();
    let input = prompt.saturating_add(tools);
    let mut output = spoken.saturating_add(reasoning);
    let sum = input.saturating_add(output);
    match said.total_token_count {
        // Some servers count the thoughts among the candidates' tokens,
        Some(total) if total < sum && total == input.saturating_add(spoken) => output = spoken,
        // and some leave them out of everything but the total.
        Some(total) if total > sum => {
            output += total - sum;
            reasoning += total - sum;
        }
        _ => {}
    }
    let cache_read = said.cached_content_token_count.unwrap_or_default().min(prompt);
    let cached_audio = audio(said.cache_tokens_details.as_ref());
    let audio_input = audio(said.prompt_tokens_details.as_ref()).saturating_sub(cached_audio);
    let input = input - cache_read;
    Some(Usage {
        input,
        cache_read,
        output,
        reasoning: reasoning.min(output),
        audio_input: audio_input.min(input),
        audio_output: audio(said.candidates_tokens_details.as_ref()).min(output),
        ..Usage::default()
    })
}

fn audio(details: Option<&Vec<Modality>>) -> u64 {
    let of_audio = |detail: &&Modality| detail.modality == "AUDIO";
    let counts = details.into_iter().flatten().filter(of_audio);
    counts.filter_map(|detail| detail.token_count).fold(0, u64::saturating_add)
}

pub(super) fn write(usage: &Usage, service_tier: Option<&str>) -> Value {
    let input = usage.input_total();
    let spoken = usage.output.saturating_sub(usage.reasoning);
    let mut out = Map::new();
    out.insert("promptTokenCount".into(), json!(input));
    out.insert("candidatesTokenCount".into(), json!(spoken));
    out.insert("totalTokenCount".into(), json!(usage.total()));
    if usage.cache_read > 0 {
        out.insert("cachedContentTokenCount".into(), json!(usage.cache_read));
    }
    if usage.reasoning > 0 {
        out.insert("thoughtsTokenCount".into(), json!(usage.reasoning));
    }
    if usage.audio_input > 0 {
        out.insert("promptTokensDetails".into(), details(input, usage.audio_input));
    }
    if usage.audio_output > 0 {
        out.insert("candidatesTokensDetails".into(), details(spoken, usage.audio_output));
    }
    if let Some(tier) = service_tier {
        // What others call the usual tier.
        let tier = if tier == "default" { "standard" } else { tier };
        out.insert("serviceTier".into(), json!(tier));
    }
    Value::Object(out)
}

fn details(all: u64, audio: u64) -> Value {
    json!([
        { "modality": "TEXT", "tokenCount": all.saturating_sub(audio) },
        { "modality": "AUDIO", "tokenCount": audio },
    ])
}
