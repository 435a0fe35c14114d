//! Which target is asked first: by weight, speed, price, or session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{ask_at, ask_with, asked, count, well};
use crate::support::client::{Answer, CHAT, chat};
use crate::support::gateway::route;
use crate::support::replies::{REPLY, ask};
use crate::support::{Gateway, Script, Upstream};

const STICKY: &str = "strategy = \"sticky\"";

#[tokio::test]
async fn over_many_calls_each_target_gets_the_share_that_its_weight_says() {
    let upstream = Upstream::start(well(&["a", "b", "last"])).await;
    let routes = "[routes.r]\nstrategy = \"weighted\"\ntargets = [{ target = \"up/a\", weight = 3 }, \
                  { target = \"up/b\", weight = 1 }, { target = \"up/last\", weight = 0 }]\n";
    let gateway = Gateway::before(&upstream, routes).await;
    for _ in 0..400 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    // 300 are expected; five times what chance makes of that is 43.
    let share = count(&upstream, "a");
    assert!((257..=343).contains(&share), "{share} of 400");
    assert_eq!(count(&upstream, "last"), 0);
}

#[tokio::test]
async fn fastest_leaves_the_slow_target_alone_once_it_is_known() {
    let slow = Script::default().wait(Duration::from_millis(150));
    let Script(answer) = Script::json(200, REPLY);
    let slow = answer.into_iter().fold(slow, Script::then);
    let upstream = Upstream::start([("slow", [slow]), ("quick", [Script::json(200, REPLY)])]).await;
    let routes = route("r", &["up/slow", "up/quick"], "strategy = \"fastest\"");
    let gateway = Gateway::before(&upstream, &routes).await;
    for _ in 0..40 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    assert!(count(&upstream, "slow") <= 2, "{:?}", asked(&upstream));
}

#[tokio::test]
async fn cheapest_goes_by_the_prices_that_are_known_and_on_to_the_next_dearer() {
    let sick = Arc::new(Mutex::new(false));
    let cheap_is_sick = Arc::clone(&sick);
    let upstream = Upstream::answering(move |request| match request.model.as_str() {
        "cheap" if *cheap_is_sick.lock().unwrap() => Script::json(404, "{}"),
        _ => Script::json(200, REPLY),
    })
    .await;
    let routes = route(
        "r",
        &["up/unpriced", "up/dear", "up/cheap"],
        "strategy = \"cheapest\"\n\
         [models.\"up/dear\"]\nprice = { input = 10, output = 30 }\n\
         [models.\"up/cheap\"]\nprice = { input = 1, output = 3 }\n",
    );
    let gateway = Gateway::before(&upstream, &routes).await;
    chat(&gateway, ask("r")).await;
    *sick.lock().unwrap() = true;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("dear"));
    assert_eq!(asked(&upstream), ["cheap", "cheap", "dear"]);
}

fn model(reply: &Answer) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("x-switchpoint-model").unwrap().to_owned()
}

fn turns(first: &str, more: &[&str]) -> Value {
    let mut messages = vec![json!({"role": "user", "content": first})];
    for (at, text) in more.iter().enumerate() {
        let role = if at % 2 == 0 { "assistant" } else { "user" };
        messages.push(json!({"role": role, "content": text}));
    }
    json!({"model": "r", "messages": messages})
}

#[tokio::test]
async fn a_session_stays_where_it_is_by_whatever_it_is_named() {
    let upstream = Upstream::start(well(&["a", "b", "c", "d"])).await;
    let routes = route("r", &["up/a", "up/b", "up/c", "up/d"], STICKY);
    let gateway = Gateway::before(&upstream, &routes).await;
    let headers =
        ["x-switchpoint-session", "session_id", "x-claude-code-session-id", "x-session-affinity"];
    for name in headers {
        check_sessions(name, async |session, turn| {
            model(&ask_with(&gateway, &[(name, session)], turns(turn, &[]).to_string()).await)
        })
        .await;
    }
    for name in ["prompt_cache_key", "metadata", "user"] {
        check_sessions(name, async |session, turn| {
            let mut body = turns(turn, &[]);
            body[name] = match name {
                "metadata" => json!({ "session_id": session }),
                "user" => format!("user_1_account__session_{session}").into(),
                _ => session.into(),
            };
            model(&chat(&gateway, body.to_string()).await)
        })
        .await;
    }
}

/// That each session has one target, and not all the same.
async fn check_sessions(what: &str, ask: impl AsyncFn(&str, &str) -> String) {
    let mut places = BTreeSet::new();
    for session in 0..16 {
        let session = format!("session-{session}");
        let models = [ask(&session, "one").await, ask(&session, "two").await];
        assert_eq!(models[0], models[1], "{what}: {session}");
        places.extend(models);
    }
    assert!(places.len() > 1, "{what}: all sessions at {places:?}");
}

#[tokio::test]
async fn a_conversation_without_a_name_is_known_by_its_beginning() {
    let upstream = Upstream::start(well(&["a", "b", "c"])).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b", "up/c"], STICKY)).await;
    let mut places = BTreeSet::new();
    for number in 0..16 {
        let first = format!("Question {number}");
        let mut models = BTreeSet::new();
        for more in [&[][..], &["Yes."][..1], &["Yes.", "And?", "No.", "Why?"][..]] {
            models.insert(model(&chat(&gateway, turns(&first, more).to_string()).await));
        }
        assert_eq!(models.len(), 1, "{first}");
        places.extend(models);
    }
    assert!(places.len() > 1, "{places:?}");
}

#[tokio::test]
async fn what_belongs_to_no_session_is_spread() {
    let vector = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let upstream = Upstream::answering(move |_| Script::json(200, vector)).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], STICKY)).await;
    for _ in 0..40 {
        let body = r#"{"model":"r","input":"words"}"#;
        assert_eq!(ask_at(&gateway, "/v1/embeddings", &[], body).await.status, 200);
    }
    assert!(count(&upstream, "a") > 0 && count(&upstream, "b") > 0, "{:?}", asked(&upstream));
}

#[tokio::test]
async fn a_session_moves_when_its_target_fails_and_to_one_and_the_same() {
    let sick = Arc::new(Mutex::new(String::new()));
    let now_sick = Arc::clone(&sick);
    let upstream = Upstream::answering(move |request| {
        if request.model == *now_sick.lock().unwrap() {
            return Script::json(500, "{}");
        }
        Script::json(200, REPLY)
    })
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b", "up/c"], STICKY)).await;
    let session = [("x-switchpoint-session", "one")];
    let home = model(&ask_with(&gateway, &session, ask("r")).await);
    sick.lock().unwrap().clone_from(&home);
    let mut refuges = BTreeSet::new();
    for _ in 0..8 {
        refuges.insert(model(&ask_with(&gateway, &session, ask("r")).await));
    }
    assert_eq!(refuges.len(), 1, "{refuges:?}");
    assert!(!refuges.contains(&home));
    // Who fails again and again is left alone, and the session is none the worse for it.
    assert!(count(&upstream, &home) <= 6, "{:?}", asked(&upstream));
}

#[tokio::test]
async fn a_session_keeps_the_same_key_of_its_provider() {
    let upstream = Upstream::start(well(&["m"])).await;
    let sections = format!(
        "[providers.up]\nkind = \"openai\"\nbase_url = \"{}\"\n\
         api_keys = [\"sk-one\", \"sk-two\", \"sk-three\"]\n{}",
        upstream.base(),
        route("r", &["up/m"], STICKY)
    );
    let gateway = Gateway::start("", &sections).await;
    let mut keys = BTreeMap::<String, BTreeSet<String>>::new();
    for call in 0..36 {
        let session = format!("session-{}", call % 12);
        let headers = [("x-switchpoint-session", session.as_str())];
        let reply = ask_at(&gateway, CHAT, &headers, ask("r")).await;
        assert_eq!(reply.status, 200);
        let request = upstream.requests().pop().unwrap();
        let key = request.header("authorization").unwrap().to_owned();
        keys.entry(session).or_default().insert(key);
    }
    assert!(keys.values().all(|keys| keys.len() == 1), "{keys:?}");
    assert!(keys.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{keys:?}");
}
