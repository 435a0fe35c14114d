//! Whatever could change an answer changes the key of its question, and nothing else does.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::cache::key::{self, Digest, Setting};
use crate::canon::{ChatRequest, Dialect, Surface};
use crate::dialect::{client, embed};

pub(super) const POLICY: Digest = [7; 32];
/// Whose values change no answer.
const NO_MATTER: [&str; 8] = [
    "model",
    "stream",
    "stream_options",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "store",
];

fn setting(body: (Dialect, &[u8])) -> Setting<'_> {
    Setting { tenant: "key:a", policy: &POLICY, targets: &[1, 2], headers: &[("beta", b"x")], body }
}

/// The key of a body that comes in by this door; `None` for one that cannot be read.
fn digest(surface: Surface, body: &[u8]) -> Option<Digest> {
    let request = client(surface).read_request(body).ok()?;
    Some(key::of_chat(&setting((surface.dialect().unwrap(), body)), &request))
}

fn of(surface: Surface, body: &Value) -> Option<Digest> {
    digest(surface, body.to_string().as_bytes())
}

fn chat() -> Value {
    json!({
        "model": "r", "stream": true, "stream_options": {"include_usage": true}, "user": "u",
        "metadata": {"a": "b"}, "temperature": 0, "top_p": 0.5, "max_tokens": 50, "seed": 3,
        "n": 2, "stop": ["x", "y"], "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "logprobs": true, "top_logprobs": 2, "logit_bias": {"17": 4}, "service_tier": "flex",
        "reasoning_effort": "low", "verbosity": "low", "parallel_tool_calls": true,
        "guided_regex": {"deep": [1, {"er": null}]},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
            "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "d", "strict": false,
                "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}},
            {"type": "function", "function": {"name": "go", "parameters": {"type": "object"}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
            ]},
            {"role": "assistant", "content": "Wait.", "tool_calls": [{"id": "call_1",
                "type": "function", "function": {"name": "look", "arguments": "{\"q\":1}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
            {"role": "user", "content": "So?"},
        ],
    })
}

fn messages() -> Value {
    json!({
        "model": "r", "stream": true, "temperature": 0, "top_p": 0.5, "top_k": 4, "max_tokens": 50,
        "stop_sequences": ["x"], "metadata": {"user_id": "u"}, "future_field": {"a": [1]},
        "system": [{"type": "text", "text": "Be brief."}],
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "tools": [{"name": "look", "description": "d",
            "input_schema": {"type": "object", "properties": {"q": {"type": "string"}}}}],
        "tool_choice": {"type": "tool", "name": "look"},
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
                {"type": "text", "text": "What?"},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"q": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"},
                {"type": "text", "text": "So?"},
            ]},
        ],
    })
}

fn responses() -> Value {
    json!({
        "model": "r", "stream": true, "store": false, "temperature": 0, "max_output_tokens": 50,
        "instructions": "Be brief.", "reasoning": {"effort": "low"}, "truncation": "auto",
        "text": {"format": {"type": "json_schema", "name": "n", "strict": true,
            "schema": {"type": "object"}}},
        "tools": [{"type": "function", "name": "look", "description": "d", "strict": true,
            "parameters": {"type": "object"}}],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "What?"}]},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "seen"},
            {"role": "user", "content": "So?"},
        ],
    })
}

fn gemini() -> Value {
    json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"temperature": 0, "topP": 0.5, "topK": 4, "maxOutputTokens": 50,
            "stopSequences": ["x"], "seed": 3},
        "safetySettings": [{"category": "A", "threshold": "B"}],
        "tools": [{"functionDeclarations": [{"name": "look", "description": "d",
            "parameters": {"type": "OBJECT"}}]}],
        "contents": [
            {"role": "user", "parts": [{"text": "What?"},
                {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "look", "args": {"q": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "look",
                "response": {"a": 1}}}]},
            {"role": "user", "parts": [{"text": "So?"}]},
        ],
    })
}

pub(super) fn bodies() -> [(Surface, Value); 6] {
    let plain = json!({"model": "r", "temperature": 0, "max_tokens": 9, "stop": ["x", "y"], "own": 1,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user",
        "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]}]});
    let mut message = plain.clone();
    message["messages"][0]["role"] = json!("assistant");
    message["system"] = json!("Be brief.");
    [
        (Surface::Chat, plain),
        (Surface::Messages, message),
        (Surface::Chat, chat()),
        (Surface::Messages, messages()),
        (Surface::Responses, responses()),
        (Surface::Generate, gemini()),
    ]
}

/// Every body that differs from this one in one place, with a word on how.
pub(super) fn mutations(value: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match value {
        Value::Null => all.push(("=1".to_owned(), json!(1))),
        Value::Bool(flag) => all.push((format!("={}", !flag), json!(!flag))),
        Value::Number(number) => {
            let more = number.as_u64().map_or_else(|| json!(0.25), |number| json!(number + 1));
            all.push((format!("={more}"), more));
        }
        Value::String(text) => all.push(("+x".to_owned(), json!(format!("{text}x")))),
        Value::Array(list) => {
            for (at, item) in list.iter().enumerate() {
                let mut without = list.clone();
                without.remove(at);
                all.push((format!("[{at}] gone"), without.into()));
                for (how, changed) in mutations(item) {
                    let mut other = list.clone();
                    other[at] = changed;
                    all.push((format!("[{at}]{how}"), other.into()));
                }
            }
            for at in 1..list.len() {
                let mut swapped = list.clone();
                swapped.swap(at - 1, at);
                all.push((format!("[{at}] swapped"), swapped.into()));
            }
        }
        Value::Object(map) => {
            let mut more = map.clone();
            more.insert("zz_unknown".to_owned(), json!(1));
            all.push((".zz_unknown".to_owned(), more.into()));
            for (name, item) in map {
                let mut without = map.clone();
                without.shift_remove(name);
                all.push((format!(".{name} gone"), without.into()));
                for (how, changed) in mutations(item) {
                    let mut other = map.clone();
                    other.insert(name.clone(), changed);
                    all.push((format!(".{name}{how}"), other.into()));
                }
            }
        }
    }
    all
}

/// The body without what cannot change its answer.
fn essence(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().retain(|name, _| !NO_MATTER.contains(&name.as_str()));
    body
}

/// The same with the members of all objects the other way round.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(reversed).collect(),
        Value::Object(map) => {
            let members = map.iter().rev().map(|(name, value)| (name.clone(), reversed(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[test]
fn whatever_changes_in_one_place_changes_the_key() {
    for (surface, body) in bodies() {
        let base = of(surface, &body).unwrap();
        let mut found = Vec::new();
        for (how, changed) in mutations(&body) {
            let Some(other) = of(surface, &changed) else { continue };
            if (other == base) != (essence(&changed) == essence(&body)) {
                found.push(how);
            }
        }
        assert!(found.is_empty(), "{}: {found:#?}", surface.name());
    }
}

#[test]
fn no_two_changes_have_one_key() {
    for (surface, body) in bodies() {
        let mut known = BTreeMap::new();
        for (how, changed) in mutations(&body) {
            let Some(digest) = of(surface, &changed) else { continue };
            let (essence, written) = (essence(&changed), changed.to_string());
            let (other, before) =
                known.entry(digest).or_insert_with(|| (essence.clone(), how.clone()));
            assert_eq!(*other, essence, "{how} is {before}: {written}");
        }
    }
}

proptest! {
    #[test]
    fn several_changes_change_the_key_unless_they_undo_one_another(
        which in 0..6_usize,
        places in proptest::collection::vec(any::<prop::sample::Index>(), 1..5),
    ) {
        let (surface, body) = bodies().into_iter().nth(which).unwrap();
        let base = of(surface, &body);
        let mut changed = body.clone();
        for place in places {
            let all = mutations(&changed);
            changed = all[place.index(all.len())].1.clone();
        }
        if let Some(other) = of(surface, &changed) {
            prop_assert_eq!(Some(other) == base, essence(&changed) == essence(&body));
        }
    }
}

#[test]
fn neither_white_space_nor_the_order_of_members_makes_another_question() {
    for (surface, body) in bodies() {
        let base = of(surface, &body).unwrap();
        let pretty = serde_json::to_string_pretty(&reversed(&body)).unwrap();
        assert_eq!(digest(surface, pretty.as_bytes()), Some(base), "{}", surface.name());
        let doubled = body.to_string().replacen('{', r#"{"model":"a","model":"b","#, 1);
        assert_ne!(digest(surface, doubled.as_bytes()), Some(base), "{}", surface.name());
        let mut odd = body.clone();
        odd["zz"] = json!({"b": 1, "a": {"d": 2, "c": 3}});
        assert_eq!(of(surface, &odd), of(surface, &reversed(&odd)));
    }
}

#[test]
fn one_question_has_one_key_in_all_dialects() {
    let chat = json!({"model": "r", "temperature": 0, "max_tokens": 9, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]});
    let messages = json!({"model": "r", "temperature": 0.0, "max_tokens": 9, "stream": true,
        "system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]});
    let responses = json!({"model": "r", "temperature": 0, "max_output_tokens": 9,
        "instructions": "Be brief.", "input": "Hi"});
    let gemini = json!({"systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"temperature": 0, "maxOutputTokens": 9},
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]});
    let base = of(Surface::Chat, &chat).unwrap();
    assert_eq!(of(Surface::Messages, &messages), Some(base));
    assert_eq!(of(Surface::Responses, &responses), Some(base));
    assert_eq!(of(Surface::Generate, &gemini), Some(base));
}

#[test]
fn another_tenant_policy_target_or_header_is_another_question() {
    let body = chat().to_string();
    let request: ChatRequest = client(Surface::Chat).read_request(body.as_bytes()).unwrap();
    let base = setting((Dialect::Chat, body.as_bytes()));
    let others = [
        Setting { tenant: "key:b", ..base },
        Setting { tenant: "key:", ..base },
        Setting { policy: &[8; 32], ..base },
        Setting { targets: &[1], ..base },
        Setting { targets: &[2, 1], ..base },
        Setting { headers: &[], ..base },
        Setting { headers: &[("beta", b"y")], ..base },
        Setting { headers: &[("bet", b"ax")], ..base },
    ];
    let mut digests: Vec<_> = others.iter().map(|other| key::of_chat(other, &request)).collect();
    digests.push(key::of_chat(&base, &request));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), others.len() + 1);
}

#[test]
fn similar_questions_are_the_same_in_all_but_the_last_words() {
    let plain = |text: &str| {
        let body = json!({"model": "r", "temperature": 0, "messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]});
        let body = body.to_string();
        let request = client(Surface::Chat).read_request(body.as_bytes()).unwrap();
        key::of_last_words(&setting((Dialect::Chat, body.as_bytes())), &request)
    };
    let (words, rest) = plain("How are you?").unwrap();
    assert_eq!(words, "How are you?");
    assert_eq!(plain("And you?").unwrap().1, rest);
    assert!(plain(" ").is_none());
    let base = chat();
    let rest = |body: &Value| {
        let text = body.to_string();
        let request = client(Surface::Chat).read_request(text.as_bytes()).ok()?;
        key::of_last_words(&setting((Dialect::Chat, text.as_bytes())), &request)
    };
    let others = [json!("And?"), json!([{"type": "text", "text": "And?"}])];
    for other in others {
        let mut changed = base.clone();
        changed["messages"][4]["content"] = other;
        assert_eq!(rest(&changed).unwrap().1, rest(&base).unwrap().1);
    }
    let own = rest(&base).unwrap();
    for (how, changed) in mutations(&base) {
        let same = rest(&changed).is_some_and(|other| other.1 == own.1);
        let is_words = how.starts_with(".messages[4].content+");
        assert_eq!(same, is_words || essence(&changed) == essence(&base), "{how}");
    }
}

#[test]
fn vectors_of_other_texts_or_forms_are_others() {
    let read = |body: Value| {
        let body = body.to_string();
        let request = embed::read_request(body.as_bytes()).unwrap();
        key::of_embeddings(&setting((Dialect::Chat, body.as_bytes())), &request)
    };
    let all = [
        json!({"model": "r", "input": "a"}),
        json!({"model": "r", "input": ["a", "b"]}),
        json!({"model": "r", "input": ["ab"]}),
        json!({"model": "r", "input": "a", "dimensions": 8}),
        json!({"model": "r", "input": "a", "encoding_format": "base64"}),
        json!({"model": "r", "input": "a", "truncate": "END"}),
        json!({"model": "r", "input": [[1, 2]]}),
    ];
    let mut digests: Vec<_> = all.iter().cloned().map(read).collect();
    assert_eq!(digests[0], read(json!({"input": ["a"], "user": "u", "model": "other"})));
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), all.len());
}
