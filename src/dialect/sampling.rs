//! How an answer is to be drawn, read from a body that nobody else reads: in the words of any of
//! the doors, which agree but for their spelling.

use serde::Deserialize;
use serde_json::Value;

use crate::canon::Sampling;

/// Longer bodies are not read for this alone.
const LONGEST: usize = 64 * 1024;

/// What is not of the kind that it should be is told of by the provider, and not here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    temperature: Value,
    #[serde(alias = "topP")]
    top_p: Value,
    #[serde(alias = "topK")]
    top_k: Value,
    seed: Value,
    #[serde(alias = "stop_sequences", alias = "stopSequences")]
    stop: Value,
    #[serde(alias = "frequencyPenalty")]
    frequency_penalty: Value,
    #[serde(alias = "presencePenalty")]
    presence_penalty: Value,
    #[serde(alias = "candidateCount")]
    n: Value,
    /// Gemini's.
    #[serde(alias = "generationConfig")]
    generation_config: Option<Box<Written>>,
}

/// What `body` says of it; the longest answer aside. `None` where it is too long, or no JSON.
pub fn sampling(body: &[u8]) -> Option<Sampling> {
    if body.len() > LONGEST {
        return None;
    }
    let written: Written = serde_json::from_slice(body).ok()?;
    let written = match written.generation_config {
        Some(config) => *config,
        None => written,
    };
    let stop = match written.stop {
        Value::String(stop) => vec![stop],
        Value::Array(stops) => {
            stops.iter().filter_map(|stop| Some(stop.as_str()?.to_owned())).collect()
        }
        _ => Vec::new(),
    };
    Some(Sampling {
        temperature: written.temperature.as_f64(),
        top_p: written.top_p.as_f64(),
        top_k: written.top_k.as_u64(),
        seed: written.seed.as_i64(),
        frequency_penalty: written.frequency_penalty.as_f64(),
        presence_penalty: written.presence_penalty.as_f64(),
        choices: written.n.as_u64().and_then(|number| u32::try_from(number).ok()),
        stop,
        ..Sampling::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_read_in_the_words_of_every_door() {
        let expected = Sampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            seed: Some(-7),
            stop: vec!["END".to_owned()],
            frequency_penalty: Some(0.25),
            presence_penalty: Some(-1.0),
            choices: Some(2),
            ..Sampling::default()
        };
        let openai = r#"{"messages":[{"role":"user","content":"temperature"}],"temperature":0.5,
            "top_p":0.9,"top_k":40,"seed":-7,"stop":"END","frequency_penalty":0.25,
            "presence_penalty":-1,"n":2}"#;
        let gemini = r#"{"contents":[],"generationConfig":{"temperature":0.5,"topP":0.9,
            "topK":40,"seed":-7,"stopSequences":["END"],"frequencyPenalty":0.25,
            "presencePenalty":-1,"candidateCount":2}}"#;
        for body in [openai, gemini] {
            assert_eq!(sampling(body.as_bytes()), Some(expected.clone()), "{body}");
        }
        let anthropic = r#"{"temperature":0.5,"top_k":40,"stop_sequences":["END"]}"#;
        let sampling = sampling(anthropic.as_bytes()).unwrap();
        assert_eq!((sampling.top_k, sampling.stop.len()), (Some(40), 1));
    }

    #[test]
    fn what_is_of_another_kind_or_too_long_is_left_to_the_provider() {
        let odd = sampling(br#"{"temperature":"hot","stop":[1],"n":-1,"seed":0.5}"#);
        assert_eq!(odd, Some(Sampling::default()));
        let long = format!(r#"{{"temperature":1,"prompt":"{}"}}"#, "a".repeat(LONGEST));
        assert_eq!(sampling(long.as_bytes()), None);
        assert_eq!(sampling(b"{\"temperature\":"), None);
    }
}
