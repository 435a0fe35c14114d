//! Similar questions are answered alike where a route wants that, and nowhere else.

use serde_json::{Value, json};

use super::{OTHER, counted, question, told};
use crate::replicas::Redis;
use crate::support::client::{CHAT, chat, post};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::REPLY;
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// Embeds by a table: "warm" and "hot" are alike, "cold" is not.
fn vector(text: &str) -> [f64; 2] {
    match text {
        "warm" => [1.0, 0.1],
        "hot" => [1.0, 0.2],
        _ => [0.1, 1.0],
    }
}

fn mind(request: &Request) -> Script {
    if request.model != "e" {
        return Script::json(200, REPLY);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let text = body["input"][0].as_str().unwrap();
    let data = json!([{"object": "embedding", "index": 0, "embedding": vector(text)}]);
    let usage = json!({"prompt_tokens": 1, "total_tokens": 1});
    let answer = json!({"object": "list", "model": "e", "data": data, "usage": usage});
    Script::json(200, &answer.to_string())
}

fn sections(semantic: &str) -> String {
    let cache = format!("cache = {{ mode = \"on\", semantic = {semantic} }}");
    format!(
        "[cache]\nsemantic = {{ route = \"up/e\", threshold = 0.98 }}\n{}\
         [keys.other]\nsecret = \"{OTHER}\"\n",
        route("r", &["up/a"], &cache)
    )
}

fn asking(text: &str, more: &Value) -> String {
    let mut body: Value = serde_json::from_str(&question(more)).unwrap();
    body["messages"][0]["content"] = json!(text);
    body.to_string()
}

fn asked(upstream: &Upstream, model: &str) -> usize {
    upstream.requests().iter().filter(|request| request.model == model).count()
}

#[tokio::test]
async fn a_similar_question_is_given_the_answer_to_the_first() {
    let upstream = Upstream::answering(mind).await;
    let gateway = Gateway::before(&upstream, &sections("true")).await;
    let mut heard = Vec::new();
    for text in ["warm", "hot", "cold", "warm"] {
        heard.push(told(&chat(&gateway, asking(text, &json!({}))).await).to_owned());
    }
    assert_eq!(heard, ["miss", "semantic", "miss", "hit"]);
    assert_eq!(asked(&upstream, "a"), 2);
    let records = gateway.recorded(7).await;
    let similar = records.iter().find(|record| record["cache"] == "semantic").unwrap();
    assert!(similar["cache_similarity"].as_f64().unwrap() > 0.98, "{similar}");
    assert_eq!(similar["output_tokens"], 0);
    let embedded = records.iter().filter(|record| record["purpose"] == "cache").count();
    assert_eq!(embedded, 3);
    assert_eq!(counted(&gateway, "switchpoint_cache_similarity_count", &["route=\"r\""]).await, 2);
}

#[tokio::test]
async fn what_is_similar_but_for_its_tenant_tools_or_parameters_is_asked_anew() {
    let upstream = Upstream::answering(mind).await;
    let gateway = Gateway::before(&upstream, &sections("true")).await;
    assert_eq!(told(&chat(&gateway, asking("warm", &json!({}))).await), "miss");
    let tool = json!({"type": "function", "function": {"name": "look"}});
    for more in [json!({"max_tokens": 51}), json!({"tools": [tool]}), json!({"seed": 1})] {
        assert_eq!(told(&chat(&gateway, asking("hot", &more)).await), "miss", "{more}");
    }
    let other = post(gateway.address, CHAT, OTHER, asking("hot", &json!({}))).await;
    assert_eq!(told(&other), "miss");
    assert_eq!(
        told(&post(gateway.address, CHAT, KEY, asking("hot", &json!({}))).await),
        "semantic"
    );
}

#[tokio::test]
async fn in_the_shadow_what_would_have_been_found_is_only_told() {
    let upstream = Upstream::answering(mind).await;
    let gateway = Gateway::before(&upstream, &sections("{ shadow = true }")).await;
    for text in ["warm", "hot", "cold"] {
        assert_eq!(told(&chat(&gateway, asking(text, &json!({}))).await), "miss");
    }
    assert_eq!(asked(&upstream, "a"), 3);
    assert_eq!(counted(&gateway, "switchpoint_cache_similarity_count", &["route=\"r\""]).await, 2);
    assert_eq!(counted(&gateway, "switchpoint_cache_total", &["would_be_semantic"]).await, 1);
    let records = gateway.recorded(6).await;
    let told = records.iter().filter(|record| record["cache_similarity"].is_number());
    assert_eq!(told.count(), 2);
}

#[tokio::test]
async fn who_cannot_embed_fails_no_call() {
    let broken = |request: &Request| match request.model.as_str() {
        "e" => Script::json(500, "{}"),
        _ => Script::json(200, REPLY),
    };
    let upstream = Upstream::answering(broken).await;
    let gateway = Gateway::before(&upstream, &sections("true")).await;
    for (text, expected) in [("warm", "miss"), ("hot", "miss"), ("hot", "hit")] {
        assert_eq!(told(&chat(&gateway, asking(text, &json!({}))).await), expected);
    }
}

#[tokio::test]
async fn routes_that_do_not_ask_for_it_have_no_similar_questions() {
    let upstream = Upstream::answering(mind).await;
    let plain = sections("false");
    let gateway = Gateway::before(&upstream, &plain).await;
    for text in ["warm", "hot"] {
        assert_eq!(told(&chat(&gateway, asking(text, &json!({}))).await), "miss");
    }
    assert_eq!(asked(&upstream, "e"), 0);
}

/// Waits until a replica has heard so much of the others.
async fn hears(gateway: &Gateway, what: &str, most: f64) {
    let label = format!("what=\"{what}\"");
    while gateway.metric("switchpoint_cache_heard_total", &[&label]).await < most {
        tokio::task::yield_now().await;
    }
}

async fn ask(gateway: &Gateway, text: &str) -> String {
    told(&chat(gateway, asking(text, &json!({}))).await).to_owned()
}

#[tokio::test]
async fn what_one_replica_was_answered_another_finds_by_its_likeness_until_it_is_purged() {
    let Some(mut redis) = Redis::start().await else { return };
    let upstream = Upstream::answering(mind).await;
    let sections = format!("{}{}{}", redis.store(2), provider("up", &upstream), sections("true"));
    let (one, two) = (Gateway::start("", &sections).await, Gateway::start("", &sections).await);
    assert_eq!(ask(&one, "warm").await, "miss");
    hears(&two, "question", 1.0).await;
    assert_eq!(ask(&two, "hot").await, "semantic");
    let other = post(two.address, CHAT, OTHER, asking("hot", &json!({}))).await;
    assert_eq!(told(&other), "miss", "nobody else's");
    assert_eq!(asked(&upstream, "a"), 2);
    // One that comes later finds what is there.
    let three = Gateway::start("", &sections).await;
    hears(&three, "question", 2.0).await;
    assert_eq!(ask(&three, "hot").await, "semantic");
    // What one forgets is forgotten by all.
    let all = json!({"all": true}).to_string();
    let purged = post(one.admin, "/admin/cache/purge", ADMIN_KEY, all).await;
    assert_eq!(purged.status, 200, "{}", purged.text());
    hears(&two, "purge", 1.0).await;
    assert_eq!(ask(&two, "hot").await, "miss");
    hears(&one, "question", 2.0).await;
    assert_eq!(ask(&one, "warm").await, "semantic");
    // A store that forgets everything takes nothing from those who know, and is told of what is new.
    redis.restart().await;
    assert_eq!(ask(&two, "warm").await, "semantic");
    assert_eq!(ask(&one, "cold").await, "miss");
    let heard = two.metric("switchpoint_cache_heard_total", &["what=\"question\""]).await;
    let mut number = 0;
    while two.metric("switchpoint_cache_heard_total", &["what=\"question\""]).await <= heard {
        number += 1;
        assert_eq!(told(&chat(&one, asking("cold", &json!({"seed": number}))).await), "miss");
    }
}
