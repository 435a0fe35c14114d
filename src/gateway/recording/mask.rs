//! Takes what people wrote out of a body, and leaves its shape; takes secrets out of any text.

use serde_json::Value as Json;

use crate::config::{Config, GuardKind, Secret};

/// What is shorter stands in too many words to be a secret.
const SHORTEST: usize = 8;

/// Words of the APIs themselves, which decide where a call goes and are nobody's.
const KEPT: [&str; 22] = [
    "model",
    "role",
    "type",
    "object",
    "stop_reason",
    "finish_reason",
    "finishReason",
    "status",
    "service_tier",
    "effort",
    "reasoning_effort",
    "tool_choice",
    "detail",
    "format",
    "media_type",
    "mimeType",
    "encoding_format",
    "truncation",
    "verbosity",
    "modality",
    "ttl",
    "mode",
];

/// Each letter becomes an `x` and each digit a `0`; what stands between them stays, so that lengths
/// and lines are as they were.
pub(super) fn shape(value: &mut Json) {
    match value {
        Json::String(text) => *text = hidden(text),
        Json::Array(elements) => elements.iter_mut().for_each(shape),
        Json::Object(members) => {
            for (key, value) in members.iter_mut() {
                if !(value.is_string() && KEPT.contains(&key.as_str())) {
                    shape(value);
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// The same for a stream: for what stands behind `data:` in each line.
pub(super) fn shape_events(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("data:") {
        Some(data) => match serde_json::from_str::<Json>(data.trim()) {
            Ok(mut event) => {
                shape(&mut event);
                format!("data: {event}")
            }
            Err(_) if data.trim() == "[DONE]" => line.to_owned(),
            Err(_) => format!("data: {}", hidden(data.trim())),
        },
        None if line.starts_with("event:") || line.starts_with(':') => line.to_owned(),
        None => hidden(line),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn hidden(text: &str) -> String {
    let letter = |letter: char| match letter {
        letter if letter.is_numeric() => '0',
        letter if letter.is_alphabetic() => 'x',
        // Symbols of scripts that know no letters tell as much as letters do.
        letter if letter.is_ascii() => letter,
        _ => 'x',
    };
    text.chars().map(letter).collect()
}

/// Every secret of a config that is long enough to be told from a word.
pub(super) fn secrets(config: &Config) -> Vec<Secret> {
    let providers = config.providers.values().flat_map(|provider| {
        let cloud = [
            &provider.cloud.secret_access_key,
            &provider.cloud.session_token,
            &provider.cloud.client_secret,
        ];
        provider.api_keys.iter().chain(provider.headers.values()).chain(cloud.into_iter().flatten())
    });
    let keys = config.keys.values().filter_map(|key| key.secret.as_ref());
    let guards = config.guards.values().filter_map(|guard| match &guard.kind {
        GuardKind::Webhook { secret, .. } => secret.as_ref(),
        _ => None,
    });
    let all = providers.chain(keys).chain(guards).chain(&config.admin.key);
    all.filter(|secret| secret.expose().len() >= SHORTEST).cloned().collect()
}

/// JSON without any of these, in the way JSON spells them.
pub(super) fn without(json: &str, secrets: &[Secret]) -> String {
    secrets.iter().fold(json.to_owned(), |json, secret| {
        let spelled = Json::from(secret.expose()).to_string();
        let spelled = spelled.trim_matches('"');
        if spelled.is_empty() { json } else { json.replace(spelled, "***") }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_wrote_is_gone_and_its_shape_stays() {
        let mut body = json!({
            "model": "fast", "temperature": 0.5, "user": "ann@example.com",
            "messages": [
                {"role": "user", "content": "Call 0171-55 for Jürgen, 你好!"},
                {"role": "user", "content": [{"type": "text", "text": "a\nb"}]},
            ],
            "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
        });
        shape(&mut body);
        assert_eq!(
            body,
            json!({
                "model": "fast", "temperature": 0.5, "user": "xxx@xxxxxxx.xxx",
                "messages": [
                    {"role": "user", "content": "xxxx 0000-00 xxx xxxxxx, xx!"},
                    {"role": "user", "content": [{"type": "text", "text": "x\nx"}]},
                ],
                "tools": [{"type": "function", "function": {"name": "xxxx_xx", "parameters": {}}}],
            })
        );
        let events = "event: delta\ndata: {\"type\":\"t\",\"text\":\"Hello\"}\n\ndata: [DONE]\n\n";
        let expected =
            "event: delta\ndata: {\"type\":\"t\",\"text\":\"xxxxx\"}\n\ndata: [DONE]\n\n";
        assert_eq!(shape_events(events), expected);
    }

    #[test]
    fn a_secret_is_gone_from_any_text() {
        let secrets = [Secret::new("sk-canary-1"), Secret::new("sk-\\canary-2")];
        let text = json!("a sk-\\canary-2 b sk-canary-1").to_string();
        assert_eq!(without(&text, &secrets), "\"a *** b ***\"");
    }
}
