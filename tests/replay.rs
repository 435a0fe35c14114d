//! Conversations with thoughts and tools that go on: with the provider that began them, which must
//! find its own state unharmed, and with any other, which must not be shown it.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::client::{self, Answer};
use crate::support::gateway::{Gateway, KEY};
use crate::support::upstream::Request;
use crate::support::{Fleet, Vendor};

/// A client's API: how it asks, and how it gives back an answer with the results of its tools.
struct Tongue {
    name: &'static str,
    ask: fn() -> Value,
    go_on: fn(&mut Value, &Value),
}

/// Providers whose state has to come back, by what clients name them.
const KEEPERS: [(&str, Vendor); 6] = [
    ("anthropic/claude-sonnet-4-6", Vendor::Anthropic),
    ("vertex/claude-sonnet-4-6", Vendor::Vertex),
    ("bedrock/us.anthropic.claude-sonnet-4-6", Vendor::Bedrock),
    ("gemini/gemini-3-pro-preview", Vendor::Gemini),
    ("openai/gpt-5-mini", Vendor::OpenAi),
    ("openrouter/anthropic/claude-sonnet-4.6", Vendor::OpenRouter),
];

/// Providers that a conversation is moved to.
const OTHERS: [&str; 10] = [
    "openai/gpt-5-mini",
    "azure/gpt-5-mini",
    "mistral/magistral-medium-latest",
    "deepseek/deepseek-chat",
    "openrouter/anthropic/claude-sonnet-4.6",
    "anthropic/claude-sonnet-4-6",
    "gemini/gemini-3-pro-preview",
    "vertex/gemini-2.5-pro",
    "bedrock/us.anthropic.claude-sonnet-4-6",
    "cohere/command-a-reasoning-08-2025",
];

const TONGUES: [Tongue; 4] = [
    Tongue { name: "chat", ask: chat, go_on: chat_goes_on },
    Tongue { name: "responses", ask: responses, go_on: responses_go_on },
    Tongue { name: "messages", ask: messages, go_on: messages_go_on },
    Tongue { name: "generate", ask: generate, go_on: generate_goes_on },
];

const QUESTION: &str = "How is the weather in Paris and in Rome?";

fn schema() -> Value {
    let city = json!({"city": {"type": "string"}});
    json!({"type": "object", "properties": city, "required": ["city"], "additionalProperties": false})
}

fn chat() -> Value {
    let function =
        json!({"name": "weather", "description": "The weather.", "parameters": schema()});
    json!({
        "reasoning_effort": "medium", "tools": [{"type": "function", "function": function}],
        "messages": [{"role": "user", "content": QUESTION}],
    })
}

fn chat_goes_on(question: &mut Value, answer: &Value) {
    let message = &answer["choices"][0]["message"];
    let results = elements(&message["tool_calls"])
        .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "18 C"}));
    extend(&mut question["messages"], [message.clone()].into_iter().chain(results));
}

fn responses() -> Value {
    let tool = json!({"type": "function", "name": "weather", "description": "The weather.", "parameters": schema(), "strict": true});
    json!({
        "input": [{"role": "user", "content": QUESTION}], "tools": [tool], "store": false,
        "reasoning": {"effort": "medium", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
    })
}

fn responses_go_on(question: &mut Value, answer: &Value) {
    let items = &answer["output"];
    let calls = elements(items).filter(|item| item["type"] == "function_call");
    let results = calls.map(
        |call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "18 C"}),
    );
    extend(&mut question["input"], elements(items).cloned().chain(results));
}

fn messages() -> Value {
    json!({
        "max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048},
        "tools": [{"name": "weather", "description": "The weather.", "input_schema": schema()}],
        "messages": [{"role": "user", "content": QUESTION}],
    })
}

fn messages_go_on(question: &mut Value, answer: &Value) {
    let calls = elements(&answer["content"]).filter(|block| block["type"] == "tool_use");
    let results: Vec<_> = calls
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "18 C"}))
        .collect();
    let said = json!({"role": "assistant", "content": answer["content"]});
    extend(&mut question["messages"], [said, json!({"role": "user", "content": results})]);
}

fn generate() -> Value {
    let function =
        json!({"name": "weather", "description": "The weather.", "parametersJsonSchema": schema()});
    json!({
        "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
        "tools": [{"functionDeclarations": [function]}],
        "generationConfig": {"thinkingConfig": {"includeThoughts": true, "thinkingBudget": 2048}},
    })
}

fn generate_goes_on(question: &mut Value, answer: &Value) {
    let content = &answer["candidates"][0]["content"];
    let calls = elements(&content["parts"]).map(|part| &part["functionCall"]);
    let results = calls.filter(|call| !call.is_null()).map(|call| {
        let mut result = json!({"name": call["name"], "response": {"result": "18 C"}});
        if !call["id"].is_null() {
            result["id"] = call["id"].clone();
        }
        json!({"functionResponse": result})
    });
    let results = json!({"role": "user", "parts": results.collect::<Vec<_>>()});
    extend(&mut question["contents"], [content.clone(), results]);
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn extend(value: &mut Value, more: impl IntoIterator<Item = Value>) {
    value.as_array_mut().unwrap().extend(more);
}

/// What only its maker can read, in order.
fn opaque(value: &Value) -> Vec<String> {
    let named = |(name, value): (&String, &Value)| {
        let known = ["signature", "thoughtSignature", "encrypted_content"].contains(&name.as_str());
        match value.as_str().filter(|_| known) {
            Some(text) => vec![text.to_owned()],
            None => opaque(value),
        }
    };
    match value {
        Value::Array(all) => all.iter().flat_map(opaque).collect(),
        Value::Object(block) if block.get("type") == Some(&json!("redacted_thinking")) => {
            vec![value["data"].as_str().unwrap().to_owned()]
        }
        Value::Object(fields) => fields.iter().flat_map(named).collect(),
        _ => Vec::new(),
    }
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Streamed,
}

async fn send(gateway: &Gateway, tongue: &Tongue, model: &str, question: &Value) -> Answer {
    send_by(Way::Whole, gateway, tongue, model, question).await
}

async fn send_by(
    way: Way,
    gateway: &Gateway,
    tongue: &Tongue,
    model: &str,
    question: &Value,
) -> Answer {
    let mut question = question.clone();
    let method = match way {
        Way::Whole => "generateContent",
        Way::Streamed => "streamGenerateContent?alt=sse",
    };
    let path = match tongue.name {
        "chat" => "/v1/chat/completions".to_owned(),
        "generate" => format!("/v1beta/models/{model}:{method}"),
        name => format!("/v1/{name}"),
    };
    if tongue.name != "generate" {
        question["model"] = json!(model);
        question["stream"] = json!(way == Way::Streamed);
    }
    client::post(gateway.address, &path, KEY, question.to_string()).await
}

/// The whole answer that a client of this API makes of what came.
fn gathered(way: Way, tongue: &Tongue, answer: &Answer) -> Value {
    if way == Way::Whole {
        return answer.json();
    }
    let data = answer.text().lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    match tongue.name {
        "chat" => gather_chat(&events),
        "responses" => events.last().unwrap()["response"].clone(),
        "messages" => gather_messages(&events),
        _ => {
            let parts = events.iter().flat_map(|event| {
                elements(&event["candidates"][0]["content"]["parts"]).cloned().collect::<Vec<_>>()
            });
            let content = json!({"role": "model", "parts": parts.collect::<Vec<_>>()});
            json!({"candidates": [{"content": content}]})
        }
    }
}

/// Adds text to text, and puts anything else in its place.
fn grow(whole: &mut Value, more: &Value) {
    match (whole, more) {
        (Value::String(whole), Value::String(more)) => whole.push_str(more),
        (_, Value::Null) => {}
        (whole, more) => *whole = more.clone(),
    }
}

/// Puts these fields in their places where they came.
fn put(whole: &mut Value, more: &Value, names: &[&str]) {
    for name in names.iter().filter(|name| more.get(**name).is_some()) {
        whole[*name] = more[*name].clone();
    }
}

fn gather_chat(events: &[Value]) -> Value {
    let mut message = json!({"role": "assistant"});
    let (mut details, mut calls) = (Vec::new(), Vec::new());
    for delta in events.iter().map(|event| &event["choices"][0]["delta"]) {
        for name in ["content", "reasoning_content"] {
            grow(&mut message[name], &delta[name]);
        }
        elements(&delta["reasoning_details"])
            .for_each(|detail| gather_detail(&mut details, detail));
        elements(&delta["tool_calls"]).for_each(|piece| gather_call(&mut calls, piece));
    }
    message["reasoning_details"] = details.into();
    message["tool_calls"] = calls.into();
    json!({"choices": [{"message": message}]})
}

/// A piece of a thought is joined to those before it, as the convention has it.
fn gather_detail(details: &mut Vec<Value>, detail: &Value) {
    let same =
        |known: &&mut Value| ["index", "type"].iter().all(|name| known[*name] == detail[*name]);
    let Some(known) = details.iter_mut().find(same) else { return details.push(detail.clone()) };
    grow(&mut known["text"], &detail["text"]);
    put(known, detail, &["signature", "data", "format"]);
}

fn gather_call(calls: &mut Vec<Value>, piece: &Value) {
    let place = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
    if place == calls.len() {
        calls.push(json!({"type": "function", "function": {}}));
    }
    let call = &mut calls[place];
    put(call, piece, &["id", "extra_content"]);
    for name in ["name", "arguments"] {
        grow(&mut call["function"][name], &piece["function"][name]);
    }
}

fn gather_messages(events: &[Value]) -> Value {
    let mut content: Vec<Value> = Vec::new();
    let mut input = String::new();
    for event in events {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                content.push(event["content_block"].clone());
                input.clear();
            }
            "content_block_delta" => {
                let (delta, block) = (&event["delta"], content.last_mut().unwrap());
                input.push_str(delta["partial_json"].as_str().unwrap_or_default());
                for name in ["text", "thinking", "signature"] {
                    let more = delta.get(name).into_iter();
                    more.for_each(|more| grow(&mut block[name], more));
                }
            }
            "content_block_stop" if !input.is_empty() => {
                content.last_mut().unwrap()["input"] = serde_json::from_str(&input).unwrap();
            }
            _ => {}
        }
    }
    json!({"content": content})
}

/// What the vendor says when it is asked the same without a gateway.
async fn straight(fleet: &Fleet, vendor: Vendor, asked: &Request) -> Value {
    let mut request =
        client::request(asked.method.parse().unwrap(), &asked.path, "", Bytes::clone(&asked.body));
    for (name, value) in &asked.headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    client::open(fleet.address(vendor), request).await.whole().await.json()
}

/// Whether this client's way to this provider has room for state at all.
fn has_state(tongue: &Tongue, vendor: Vendor) -> bool {
    match vendor {
        // Its chat API keeps its thoughts for itself.
        Vendor::OpenAi => tongue.name == "responses",
        // Its copy of the Responses API is OpenAI's, and covered there.
        Vendor::OpenRouter => tongue.name != "responses",
        _ => true,
    }
}

/// What went wrong when a conversation went on where it began.
async fn at_home(
    (fleet, gateway): (&Fleet, &Gateway),
    tongue: &Tongue,
    way: Way,
    (model, vendor): (&str, Vendor),
    about: &str,
) -> Option<String> {
    let cell = format!("{} → {model}, {way:?}", tongue.name);
    let before = fleet.questions(vendor).len();
    // Asked so, Claude withholds a thought.
    let mut question = about_it(&(tongue.ask)(), about);
    let whole = send(gateway, tongue, model, &question).await;
    if whole.status != 200 {
        return Some(format!("{cell}: {}", whole.text()));
    }
    let straight = straight(fleet, vendor, &fleet.questions(vendor)[before]).await;
    assert_eq!(straight.to_string().contains("redacted_thinking"), !about.is_empty(), "{cell}");
    let made = opaque(&straight);
    assert!(!made.is_empty(), "{cell}: the vendor sealed nothing");
    let answer = send_by(way, gateway, tongue, model, &question).await;
    (tongue.go_on)(&mut question, &gathered(way, tongue, &answer));
    let answer = send(gateway, tongue, model, &question).await;
    let last = fleet.questions(vendor).pop().unwrap();
    let came = opaque(&serde_json::from_slice(&last.body).unwrap());
    let unharmed = answer.status == 200 && came == made;
    (!unharmed).then(|| format!("{cell}: {made:?} became {came:?}: {}", answer.text()))
}

async fn both_ways(
    houses: (&Fleet, &Gateway),
    tongue: &Tongue,
    keeper: (&str, Vendor),
    about: &str,
) -> Vec<String> {
    let whole = at_home(houses, tongue, Way::Whole, keeper, about).await;
    let streamed = at_home(houses, tongue, Way::Streamed, keeper, about).await;
    whole.into_iter().chain(streamed).collect()
}

/// The question with more in it.
fn about_it(question: &Value, about: &str) -> Value {
    serde_json::from_str(&question.to_string().replace(QUESTION, &format!("{QUESTION}{about}")))
        .unwrap()
}

/// What went wrong when a conversation went on elsewhere, with each other provider.
async fn abroad(gateway: &Gateway, tongue: &Tongue, model: &str) -> Vec<String> {
    let cell = format!("{} → {model}", tongue.name);
    let mut question = (tongue.ask)();
    let answer = send(gateway, tongue, model, &question).await;
    if answer.status != 200 {
        return vec![format!("{cell}: {}", answer.text())];
    }
    (tongue.go_on)(&mut question, &answer.json());
    let mut broken = Vec::new();
    for other in OTHERS.iter().filter(|other| **other != model) {
        let answer = send(gateway, tongue, other, &question).await;
        if answer.status != 200 || !answer.text().contains("The tools say") {
            broken.push(format!("{cell} → {other}: {}", answer.text()));
        }
    }
    broken
}

#[tokio::test]
async fn what_a_provider_sealed_comes_back_to_it_byte_for_byte() {
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("").await;
    let mut broken = Vec::new();
    for tongue in &TONGUES {
        for keeper in KEEPERS.into_iter().filter(|(_, vendor)| has_state(tongue, *vendor)) {
            broken.extend(both_ways((&fleet, &gateway), tongue, keeper, "").await);
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[tokio::test]
async fn a_thought_that_claude_withholds_comes_back_to_it_byte_for_byte() {
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("").await;
    let mut broken = Vec::new();
    for tongue in &TONGUES {
        for keeper in [KEEPERS[0], KEEPERS[1]] {
            let about = " Think redacted.";
            broken.extend(both_ways((&fleet, &gateway), tongue, keeper, about).await);
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[tokio::test]
async fn a_conversation_with_thoughts_goes_on_with_any_other_provider() {
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("").await;
    let mut broken = Vec::new();
    for tongue in &TONGUES {
        for (model, _) in KEEPERS {
            broken.extend(abroad(&gateway, tongue, model).await);
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}
