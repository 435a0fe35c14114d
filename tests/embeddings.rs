//! OpenAI's clients get vectors from providers whose API for them is another.

use std::pin::pin;

use serde_json::{Value, json};
use switchpoint::provider::catalog::{CATALOG, Kind, find};

use crate::providers::{folder, section};
use crate::support::client::{Answer, post};
use crate::support::gateway::{KEY, route};
use crate::support::{Gateway, Script, Upstream, client, until};

const TITAN: &str = "amazon.titan-embed-text-v2:0";

async fn embed(gateway: &Gateway, body: Value) -> Answer {
    post(gateway.address, "/v1/embeddings", KEY, body.to_string()).await
}

/// What the scripted upstream calls a model: as it stands in paths.
fn script_name(model: &str) -> String {
    model.replace(':', "%3A")
}

/// A gateway whose provider `p` is one of this kind at `upstream`; `more` is further TOML.
async fn house(kind: &Kind, upstream: &Upstream, more: &str) -> Gateway {
    let base = format!("http://{}", upstream.address);
    Gateway::start("", &format!("{}\n{more}", section(kind, &base))).await
}

/// A vector of Titan's that is told from others.
fn titan(number: usize) -> Script {
    let body = json!({"embedding": [number, 0.5], "inputTextTokenCount": 2});
    Script::json(200, &body.to_string())
}

fn numbers(encoded: &Value) -> Vec<f32> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine.decode(encoded.as_str().unwrap()).unwrap();
    bytes.chunks(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

async fn serves(kind: &Kind, case: &Value) {
    let model = case["model"].as_str().unwrap();
    let headers = case["headers"].as_object().unwrap();
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    let reply = Script::reply(200, &headers, case["reply"].to_string());
    let upstream = Upstream::start([(script_name(model), [reply])]).await;
    let gateway = house(kind, &upstream, "").await;
    let model = format!("p/{model}");
    let mut question =
        json!({"model": model, "input": ["one", "two"], "dimensions": 3, "user": "u"});

    let reply = embed(&gateway, question.clone()).await;
    assert_eq!(reply.status, 200, "{model}: {}", reply.text());
    let answer = reply.json();
    let expected = &case["expect"];
    let vectors: Vec<_> =
        answer["data"].as_array().unwrap().iter().map(|item| &item["embedding"]).collect();
    assert_eq!(json!(vectors), expected["vectors"], "{model}");
    assert_eq!(reply.header("x-switchpoint-dropped"), Some("user"), "{model}");

    let mut asked: Vec<String> = upstream
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(Some(&*request.path), case["path"].as_str());
            serde_json::from_slice::<Value>(&request.body).unwrap().to_string()
        })
        .collect();
    let mut wanted: Vec<String> =
        case["requests"].as_array().unwrap().iter().map(Value::to_string).collect();
    // Those that are under way together arrive in any order.
    asked.sort();
    wanted.sort();
    assert_eq!(asked, wanted, "{model}");

    question["encoding_format"] = json!("base64");
    let reply = embed(&gateway, question).await.json();
    for (item, vector) in
        reply["data"].as_array().unwrap().iter().zip(expected["vectors"].as_array().unwrap())
    {
        assert_eq!(json!(numbers(&item["embedding"])), *vector, "{model}");
    }

    let record = &gateway.recorded(2).await[0];
    let source = if expected["input_tokens"].is_null() { "estimated" } else { "provider" };
    assert_eq!(record["usage_source"], source, "{model}: {record}");
    if source == "provider" {
        assert_eq!(record["input_tokens"], expected["input_tokens"], "{model}");
        assert_eq!(answer["usage"]["prompt_tokens"], expected["input_tokens"], "{model}");
    }
}

#[tokio::test]
async fn every_provider_with_an_api_for_vectors_serves_openais_clients() {
    for kind in CATALOG.iter().filter(|kind| !kind.embeds.is_empty()) {
        let cases = std::fs::read_to_string(folder(kind).join("embeddings.json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
        assert!(cases.len() >= kind.embeds.len(), "{}: a case for each API", kind.id);
        for case in cases {
            serves(kind, &case).await;
        }
    }
}

#[tokio::test]
async fn many_requests_become_one_answer_in_the_order_of_the_texts() {
    let scripts = (0..30).map(titan);
    let upstream = Upstream::start([(script_name(TITAN), scripts)]).await;
    let gateway = house(find("bedrock").unwrap(), &upstream, "").await;
    let texts: Vec<String> = (0..30).map(|number| format!("text {number}.")).collect();
    let reply = embed(&gateway, json!({"model": format!("p/{TITAN}"), "input": texts})).await;
    let (answer, requests) = (reply.json(), upstream.requests());
    for (place, text) in texts.iter().enumerate() {
        let arrived = requests.iter().position(|request| request.text().contains(text)).unwrap();
        let item = &answer["data"][place];
        assert_eq!(
            (&item["index"], &item["embedding"][0]),
            (&json!(place), &json!(f64::from(u32::try_from(arrived).unwrap())))
        );
    }
    assert_eq!(answer["usage"]["prompt_tokens"], 60);
    let record = gateway.record().await;
    assert_eq!(record["attempts"].as_array().map_or(1, Vec::len), 1, "{record}");
}

#[tokio::test]
async fn eight_requests_are_under_way_at_once_and_a_client_that_leaves_ends_them() {
    let upstream = Upstream::start([(script_name(TITAN), [Script::default().stall()])]).await;
    let gateway = house(find("bedrock").unwrap(), &upstream, "").await;
    let body = json!({"model": format!("p/{TITAN}"), "input": vec!["x"; 20]}).to_string();
    let request = client::request(http::Method::POST, "/v1/embeddings", KEY, body.into());
    {
        let mut leaving = pin!(client::open(gateway.address, request));
        tokio::select! {
            answer = &mut leaving => panic!("an answer came: {}", answer.status),
            () = upstream.asked(8) => {}
        }
        assert_eq!((upstream.busy(), upstream.requests().len()), (8, 8));
    }
    until("the requests are given up", || upstream.busy() == 0).await;
    assert_eq!(upstream.requests().len(), 8);
    assert_eq!(gateway.record().await["outcome"], "client_closed");
}

#[tokio::test]
async fn one_refusal_fails_the_attempt_and_the_next_target_answers() {
    let refusal = Script::json(429, r#"{"message":"Too many requests"}"#);
    let other = Script::json(
        200,
        r#"{"embeddings":{"float":[[9.0],[8.0],[7.0]]},"meta":{"billed_units":{"input_tokens":3}}}"#,
    );
    let upstream = Upstream::start([
        (script_name(TITAN), vec![titan(0), refusal, titan(1)]),
        ("cohere.embed-v4%3A0".to_owned(), vec![other]),
    ])
    .await;
    let targets = [&*format!("p/{TITAN}"), "p/cohere.embed-v4:0"];
    let more = route("vectors", &targets, "");
    let gateway = house(find("bedrock").unwrap(), &upstream, &more).await;
    let reply = embed(&gateway, json!({"model": "vectors", "input": ["a", "b", "c"]})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["data"][0]["embedding"], json!([9.0]));
    assert_eq!(reply.header("x-switchpoint-attempts"), Some("2"));
}

#[tokio::test]
async fn what_cannot_be_asked_or_is_not_answered_is_told_as_elsewhere() {
    let short = Script::json(200, r#"{"embeddings":{"float":[[1.0]]}}"#);
    let upstream = Upstream::start([("short", [short])]).await;
    let gateway = house(find("cohere").unwrap(), &upstream, "").await;
    for (body, status, said) in [
        (json!({"model": "p/m", "input": []}), 400, "`input` is empty"),
        (json!({"model": "p/m", "input": [1, 2]}), 400, "`input` holds token numbers"),
        (json!({"model": "p/short", "input": ["a", "b"]}), 502, "broke its answer off"),
    ] {
        let reply = embed(&gateway, body).await;
        let message = reply.json()["error"]["message"].to_string();
        assert!(reply.status == status && message.contains(said), "{}: {message}", reply.status);
    }
    assert_eq!(upstream.requests().len(), 3, "what makes no sense is asked for again");
    let titan = house(find("bedrock").unwrap(), &upstream, "").await;
    let reply = embed(&titan, json!({"model": "p/amazon.nova-lite-v1:0", "input": "a"})).await;
    assert_eq!(reply.json()["error"]["code"], "unsupported", "{}", reply.text());
}
