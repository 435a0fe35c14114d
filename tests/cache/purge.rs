//! Operators see how much is remembered and have it forgotten; replicas remember together.

use serde_json::{Value, json};

use super::{OTHER, question, remembering, told, willing};
use crate::replicas::Redis;
use crate::support::client::{CHAT, chat, get, post};
use crate::support::gateway::{ADMIN_KEY, KEY, provider};
use crate::support::{Gateway, Upstream};

async fn purge(gateway: &Gateway, what: &Value) -> Value {
    let answer = post(gateway.admin, "/admin/cache/purge", ADMIN_KEY, what.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn heard(gateway: &Gateway, key: &str) -> String {
    told(&post(gateway.address, CHAT, key, question(&json!({}))).await).to_owned()
}

#[tokio::test]
async fn answers_are_forgotten_by_route_by_key_or_all_of_them() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    for key in [KEY, OTHER] {
        assert_eq!(heard(&gateway, key).await, "miss");
    }
    assert_eq!(purge(&gateway, &json!({"key": "other"})).await, json!({"purged": 1}));
    assert_eq!(heard(&gateway, KEY).await, "hit");
    assert_eq!(heard(&gateway, OTHER).await, "miss");
    assert_eq!(purge(&gateway, &json!({"route": "r"})).await["purged"], 2);
    assert_eq!(heard(&gateway, KEY).await, "miss");
    assert_eq!(purge(&gateway, &json!({"all": true})).await["purged"], 1);
    let stock = get(gateway.admin, "/admin/cache", ADMIN_KEY).await.json();
    assert_eq!((&stock["entries"], &stock["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(gateway.metric("switchpoint_cache_entries", &[]).await.to_string(), "0");
    assert_eq!(heard(&gateway, KEY).await, "miss");
    let stock = get(gateway.admin, "/admin/cache", ADMIN_KEY).await.json();
    assert_eq!(stock["entries"], 1);
}

#[tokio::test]
async fn a_purge_says_what_it_means_and_who_may() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let ask = |key: &'static str, body: Value| {
        post(gateway.admin, "/admin/cache/purge", key, body.to_string())
    };
    let wrong = [
        json!({}),
        json!({"all": true, "route": "r"}),
        json!({"all": false}),
        json!({"key": "a", "team": "b"}),
        json!({"rute": "r"}),
        json!({"route": "another"}),
    ];
    for body in wrong {
        let answer = ask(ADMIN_KEY, body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    assert_eq!(ask(KEY, json!({"all": true})).await.status, 403);
    let stock = get(gateway.admin, "/admin/cache", ADMIN_KEY).await.json();
    assert!(stock["entries"].is_u64() && stock["bytes"].is_u64(), "{stock}");
}

async fn together(redis: &Redis, upstream: &Upstream) -> Vec<Gateway> {
    let sections = format!("{}{}{}", redis.store(2), provider("up", upstream), remembering(""));
    let mut gateways = Vec::new();
    for _ in 0..2 {
        gateways.push(Gateway::start("", &sections).await);
    }
    gateways
}

#[tokio::test]
async fn replicas_remember_together_and_do_without_when_their_store_is_away() {
    let Some(mut redis) = Redis::start().await else { return };
    let upstream = willing().await;
    let gateways = together(&redis, &upstream).await;
    let (one, two) = (&gateways[0], &gateways[1]);
    assert_eq!(told(&chat(one, question(&json!({}))).await), "miss");
    redis.knows("switchpoint/cache/*").await;
    assert_eq!(told(&chat(two, question(&json!({"stream": true}))).await), "hit");
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(purge(one, &json!({"route": "r"})).await["purged"], 1);
    assert_eq!(told(&chat(one, question(&json!({}))).await), "miss");
    while two.metric("switchpoint_cache_heard_total", &["what=\"purge\""]).await < 1.0 {
        tokio::task::yield_now().await;
    }
    let stock = get(two.admin, "/admin/cache", ADMIN_KEY).await.json();
    assert!(stock["entries"].is_u64(), "{stock}");
    redis.stop();
    for number in 0..3 {
        let other = question(&json!({"seed": number}));
        assert_eq!(told(&chat(two, other.clone()).await), "miss");
        assert_eq!(told(&chat(two, other).await), "hit");
    }
    let failures = two.metric("switchpoint_cache_shared_failures_total", &[]).await;
    assert!(failures >= 1.0, "{failures}");
}
