//! Log probabilities: Gemini's `logprobsResult` and OpenAI's `logprobs`, which is what we keep.

use serde_json::{Value, json};

pub(super) fn read(result: &Value) -> Option<Value> {
    let chosen = result["chosenCandidates"].as_array()?;
    let tops = result["topCandidates"].as_array();
    let tokens = chosen.iter().enumerate().map(|(place, candidate)| {
        let top = tops.and_then(|tops| tops.get(place)?["candidates"].as_array());
        let top: Vec<Value> = top.into_iter().flatten().map(read_token).collect();
        let mut token = read_token(candidate);
        token["top_logprobs"] = Value::Array(top);
        token
    });
    let tokens: Vec<Value> = tokens.collect();
    (!tokens.is_empty()).then(|| json!({ "content": tokens }))
}

fn read_token(candidate: &Value) -> Value {
    let token = candidate["token"].as_str().unwrap_or_default();
    let logprob = candidate["logProbability"].as_f64().unwrap_or_default();
    json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes() })
}

pub(super) fn write(logprobs: &Value) -> Option<Value> {
    let tokens = logprobs["content"].as_array()?;
    let chosen: Vec<Value> = tokens.iter().map(write_token).collect();
    let tops = tokens.iter().map(|token| {
        let top = token["top_logprobs"].as_array();
        let top: Vec<Value> = top.into_iter().flatten().map(write_token).collect();
        json!({ "candidates": top })
    });
    let tops: Vec<Value> = tops.collect();
    Some(json!({ "topCandidates": tops, "chosenCandidates": chosen }))
}

fn write_token(token: &Value) -> Value {
    json!({ "token": token["token"], "logProbability": token["logprob"] })
}
