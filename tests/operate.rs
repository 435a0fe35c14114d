//! What operators see: why a call goes where it goes, how targets are, and whether each answers.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use http::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, chat, get, open, post, request};
use crate::support::gateway::{ADMIN_KEY, KEY, config, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream};
use crate::support::{Gateway, Script, Upstream, until};

const EXPLAIN: &str = "/v1/explain";
const DOWN: &str = r#"{"error":{"message":"Out of order","type":"server_error"}}"#;
const VECTOR: &str = r#"{"object":"list","model":"served","data":[{"object":"embedding","index":0,"embedding":[0.5,1.0]}],"usage":{"prompt_tokens":1,"total_tokens":1}}"#;

async fn explain(gateway: &Gateway, query: &str, body: impl Into<String>) -> Answer {
    post(gateway.address, &format!("{EXPLAIN}{query}"), KEY, body.into()).await
}

async fn drill(gateway: &Gateway, route: &str) -> Value {
    let answer = post(gateway.admin, &format!("/admin/drills/{route}"), ADMIN_KEY, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The rows of `GET /admin/targets`, the one of this model.
async fn target(gateway: &Gateway, model: &str) -> Value {
    let list = get(gateway.admin, "/admin/targets", ADMIN_KEY).await.json();
    let rows = list["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["model"] == model);
    row.unwrap_or_else(|| panic!("{model} in {list:#}")).clone()
}

/// A good target, one that fails, and routes with both.
async fn house() -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|request| match &*request.model {
        "dead" => Script::json(503, DOWN),
        "waits" => Script::reply(429, &[("retry-after", "600")], "{}"),
        "odd" => Script::json(200, r#"{"choices":[0]}"#),
        "embedder" => Script::json(200, VECTOR),
        "refuses" => Script::json(401, r#"{"error":{"message":"key sk-upstream-up is bad"}}"#),
        _ => Script::json(200, REPLY),
    })
    .await;
    let sections = provider("up", &upstream)
        + "[models.\"up/blind\"]\nfeatures = [\"tools\"]\n\n"
        + "[models.\"up/small\"]\ncontext = 50\nprice = { input = 1.0, output = 2.0 }\n\n"
        + &route("plain", &["up/good", "up/other"], "")
        + &route("picky", &["up/blind", "up/small", "up/good"], "")
        + &route("gone", &["up/dead"], "fallbacks = { general = [\"up/good\"] }")
        + &route("lost", &["up/good"], "fallbacks = { general = [\"up/dead\", \"up/odd\"] }")
        + &route("tired", &["up/waits"], "fallbacks = { general = [\"up/good\"] }")
        + &route("keyless", &["up/refuses"], "")
        + &route("vectors", &["up/embedder"], "")
        + &route("shadowed", &["up/good"], "shadow = { target = \"up/shade\", sample = 1.0 }")
        + "[routes.auto]\nstrategy = \"task\"\ndefault = \"plain\"\n\
           tasks = { code = \"lost\", chat = \"plain\", vision = \"plain\" }\n\n"
        + "[routes.asks]\nstrategy = \"task\"\ndefault = \"plain\"\ntasks = { code = \"lost\" }\n\
           classifier = { kind = \"model\", route = \"plain\" }\n\n";
    let gateway = Gateway::start("", &sections).await;
    (upstream, gateway)
}

#[tokio::test]
async fn every_dialect_is_explained_and_nothing_is_sent() {
    let (upstream, gateway) = house().await;
    let said = json!([{"role": "user", "content": "Hi"}]);
    let bodies = [
        ("", "chat", json!({"model": "shadowed", "messages": said})),
        ("", "responses", json!({"model": "asks", "input": "Hi"})),
        (
            "",
            "generate_content",
            json!({"model": "auto", "contents": [{"parts": [{"text": "Hi"}]}]}),
        ),
        ("", "completions", json!({"model": "plain", "prompt": "Hi"})),
        (
            "?surface=messages",
            "messages",
            json!({"model": "plain", "max_tokens": 9, "messages": said}),
        ),
        ("?surface=embeddings", "embeddings", json!({"model": "vectors", "input": "Hi"})),
    ];
    for (query, surface, body) in bodies {
        let answer = explain(&gateway, query, body.to_string()).await;
        assert_eq!(answer.status, 200, "{surface}: {}", answer.text());
        let told = answer.json();
        assert_eq!(told["surface"], surface);
        assert_eq!(told["route"], body["model"]);
        assert_eq!(told["targets"][0]["provider"], "up", "{told:#}");
        assert_eq!(told["targets"][0]["order"], 1, "{told:#}");
        assert_eq!(told["targets"][0]["state"], "closed");
        assert_eq!(told["targets"][0]["dropped"], json!([]), "{told:#}");
        assert!(told["targets"][0]["limits"]["connect_ms"].is_u64());
    }
    assert!(upstream.requests().is_empty(), "nothing was sent");
    let records = gateway.recorded(6).await;
    assert!(records.iter().all(|record| record["surface"] == "explain"), "{records:#?}");
    for (name, label, count) in [
        ("switchpoint_requests_total", "surface=\"explain\"", "6"),
        ("switchpoint_requests_total", "surface=\"chat\"", "0"),
        ("switchpoint_tasks_total", "", "0"),
    ] {
        assert_eq!(gateway.metric(name, &[label]).await.abs().to_string(), count, "{name} {label}");
    }
}

#[tokio::test]
async fn an_explanation_names_who_is_skipped_and_why_and_what_the_others_cost() {
    let (_upstream, gateway) = house().await;
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let text = json!({"type": "text", "text": "word ".repeat(200)});
    let said = json!([{"role": "user", "content": [text, image]}]);
    let body = json!({"model": "picky", "messages": said}).to_string();
    let told = explain(&gateway, "", body.clone()).await.json();
    let skipped = |place: usize| told["targets"][place]["skipped"]["reason"].clone();
    assert_eq!((skipped(0), skipped(1)), (json!("lacks"), json!("context")), "{told:#}");
    assert_eq!(skipped(2), Value::Null);
    assert_eq!(told["targets"][2]["order"], 1);
    assert_eq!(told["needs"]["features"], json!(["vision"]));
    assert!(told["targets"][1]["estimated_cost_usd"].is_string(), "{told:#}");
    assert_eq!(told["targets"][2]["estimated_cost_usd"], Value::Null, "nobody knows its price");
    // It goes as was said.
    let answer = chat(&gateway, body).await;
    assert_eq!(answer.header("x-switchpoint-model"), Some("good"));
}

#[tokio::test]
async fn what_would_be_refused_is_refused_in_the_words_of_its_api() {
    let (upstream, gateway) = house().await;
    let unknown = explain(&gateway, "", ask("plian")).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("did you mean `plain`"), "{}", unknown.text());
    let anthropic = explain(&gateway, "?surface=messages", ask("plian")).await;
    assert_eq!(anthropic.json()["type"], "error", "{}", anthropic.text());
    assert_eq!(post(gateway.address, EXPLAIN, "sk-wrong", ask("plain")).await.status, 401);
    assert_eq!(explain(&gateway, "?surface=fax", ask("plain")).await.status, 400);
    let shapeless = explain(&gateway, "", r#"{"model":"plain"}"#).await;
    assert_eq!(shapeless.status, 400);
    assert!(shapeless.text().contains("surface=messages"), "{}", shapeless.text());
    assert_eq!(get(gateway.address, EXPLAIN, KEY).await.status, 405);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn headers_say_what_a_call_came_to() {
    let (_upstream, gateway) = house().await;
    let degraded = chat(&gateway, ask("gone")).await;
    assert_eq!(degraded.status, 200);
    assert_eq!(degraded.header("x-switchpoint-degraded"), Some("general"));
    assert_eq!(degraded.header("x-switchpoint-attempts"), Some("2"));
    assert_eq!(chat(&gateway, ask("plain")).await.header("x-switchpoint-degraded"), None);

    let asked = async |model: &str, task: &'static str| {
        let body = ask(model).replace("Hi", "Grüße 你好").into();
        let mut request = request(Method::POST, "/v1/chat/completions", KEY, body);
        request.headers_mut().insert("x-switchpoint-explain", "1".parse().unwrap());
        request.headers_mut().insert("x-switchpoint-task", task.parse().unwrap());
        open(gateway.address, request).await.whole().await
    };
    let answer = asked("auto", "code").await;
    assert_eq!(answer.header("x-switchpoint-task"), Some("code"));
    let told: Value = answer.header("x-switchpoint-explain").unwrap().parse().unwrap();
    assert_eq!(told["task"]["by"], "header");
    assert_eq!(told["task"]["route"], "lost");
    assert_eq!(told["targets"][1]["group"], "general");

    // They stand with a refusal too, and the refusal says who was tried.
    let refused = asked("keyless", "code").await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(refused.header("x-switchpoint-explain").is_some());
    let attempts = refused.json()["error"]["attempts"].clone();
    assert_eq!(attempts[0]["model"], "refuses", "{attempts}");
    assert!(!refused.text().contains("sk-upstream"), "{}", refused.text());
}

#[tokio::test]
async fn targets_show_their_state_by_key_and_since_when() {
    let (_upstream, gateway) = house().await;
    let good = target(&gateway, "good").await;
    assert_eq!((&good["state"], &good["reason"]), (&json!("closed"), &Value::Null));
    assert_eq!(good["latency_ms"], Value::Null);
    assert_eq!(chat(&gateway, ask("tired")).await.status, 200);
    let waits = target(&gateway, "waits").await;
    assert_eq!(waits["state"], "open", "{waits:#}");
    assert_eq!(waits["reason"], "rate_limited");
    assert_eq!(waits["last_error"]["reason"], "rate_limited");
    assert_eq!(waits["keys"][0]["state"], "open");
    let time = |field: &Value| humantime::parse_rfc3339(field.as_str().unwrap()).unwrap();
    let wait = time(&waits["until"]).duration_since(time(&waits["since"])).unwrap();
    assert!((595..=605).contains(&wait.as_secs()), "{wait:?}");
    let good = target(&gateway, "good").await;
    assert!(good["latency_ms"].is_u64(), "{good:#}");
    assert_eq!(good["in_flight"], 0);
    let state = async |model: &str| {
        gateway.metric("switchpoint_target_state", &[&format!("model=\"{model}\"")]).await
    };
    assert_eq!((state("good").await, state("waits").await), (1.0, 0.0));
    let list = get(gateway.admin, "/admin/targets", ADMIN_KEY).await;
    assert!(!list.text().contains("sk-upstream"), "{}", list.text());
    assert_eq!(get(gateway.admin, "/admin/targets", "").await.status, 401);
    assert_eq!(post(gateway.admin, "/admin/targets", ADMIN_KEY, "").await.status, 405);
}

#[tokio::test]
async fn a_target_with_a_dead_key_is_as_well_as_its_best_one() {
    let upstream = Upstream::answering(|request| match request.header("authorization") {
        Some("Bearer sk-dead") => Script::json(401, "{}"),
        Some("Bearer sk-poor") => Script::json(402, "{}"),
        _ => Script::json(200, REPLY),
    })
    .await;
    let keys = "api_keys = [\"sk-dead\", \"sk-poor\", \"sk-alive\"]";
    let section = provider("up", &upstream).replace("api_key = \"sk-upstream-up\"", keys);
    let gateway = Gateway::start("", &(section + &route("r", &["up/good"], ""))).await;
    for _ in 0..3 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    let good = target(&gateway, "good").await;
    assert_eq!(good["state"], "closed", "{good:#}");
    assert_eq!(good["keys"][0]["reason"], "key_refused", "{good:#}");
    assert_eq!(good["keys"][1]["reason"], "quota_spent", "{good:#}");
    assert_eq!(good["keys"][2]["state"], "closed");
}

#[tokio::test]
async fn a_drill_asks_each_target_once_and_says_which_level_is_dead() {
    let (upstream, gateway) = house().await;
    let drilled = drill(&gateway, "lost").await;
    assert_eq!((&drilled["route"], &drilled["ok"]), (&json!("lost"), &json!(false)));
    let levels: Vec<(&Value, &Value)> = drilled["levels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|level| (&level["group"], &level["ok"]))
        .collect();
    let (own, general) = (json!("own"), json!("general"));
    let (up, down) = (json!(true), json!(false));
    assert_eq!(levels, [(&own, &up), (&general, &down), (&general, &down)], "{drilled:#}");
    let dead = &drilled["levels"][1]["targets"][0];
    assert_eq!((&dead["status"], &dead["ok"]), (&json!(503), &down));
    assert!(dead["error"].as_str().unwrap().contains("Out of order"), "{dead}");
    assert!(drilled["levels"][2]["targets"][0]["error"].as_str().unwrap().contains("sense"));
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    let question: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(question["max_tokens"], 16, "{question}");
    let records = gateway.recorded(3).await;
    assert!(records.iter().all(|record| record["purpose"] == "drill"), "{records:#?}");
    let drill_up = async |model: &str| {
        gateway.metric("switchpoint_fallback_drill_success", &[&format!("model=\"{model}\"")]).await
    };
    assert_eq!((drill_up("good").await, drill_up("dead").await), (1.0, 0.0));
    let unknown = post(gateway.admin, "/admin/drills/nowhere", ADMIN_KEY, "").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    assert_eq!(post(gateway.admin, "/admin/drills/lost", KEY, "").await.status, 403);
    assert_eq!(get(gateway.admin, "/admin/drills/lost", ADMIN_KEY).await.status, 405);
}

#[tokio::test]
async fn a_drill_asks_embedding_routes_for_vectors_and_task_routes_by_every_chain() {
    let (upstream, gateway) = house().await;
    let vectors = drill(&gateway, "vectors").await;
    assert_eq!(vectors["ok"], true, "{vectors:#}");
    assert_eq!(upstream.only_request().path, "/v1/embeddings");
    let auto = drill(&gateway, "auto").await;
    let ways: Vec<&str> = auto["levels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|level| level["via"].as_str().unwrap())
        .collect();
    assert_eq!(ways, ["lost", "lost", "lost", "plain"], "{auto:#}");
    assert_eq!(upstream.requests().len(), 1 + 4, "good is asked once although twice in it");
}

#[tokio::test]
async fn a_drill_brings_back_a_target_that_was_left_alone() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let state = std::sync::Arc::clone(&broken);
    let upstream = Upstream::answering(move |_| {
        if state.load(std::sync::atomic::Ordering::Relaxed) {
            Script::reply(429, &[("retry-after", "600")], "{}")
        } else {
            Script::json(200, REPLY)
        }
    })
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/m"], "")).await;
    assert_eq!(chat(&gateway, ask("r")).await.status, 429);
    assert_eq!(target(&gateway, "m").await["state"], "open");
    assert_eq!(drill(&gateway, "r").await["ok"], false);
    assert_eq!(upstream.requests().len(), 2, "it was asked although it is left alone");
    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(drill(&gateway, "r").await["ok"], true);
    assert_eq!(target(&gateway, "m").await["state"], "closed");
    assert_eq!(chat(&gateway, ask("r")).await.status, 200);
}

#[tokio::test]
async fn a_drill_of_a_silent_target_ends_within_the_limits_of_its_route() {
    let upstream = Upstream::answering(|_| Script::default().stall()).await;
    let limits = "timeouts = { headers = \"200ms\" }";
    let gateway = Gateway::before(&upstream, &route("r", &["up/m"], limits)).await;
    let drilled = drill(&gateway, "r").await;
    let silent = &drilled["levels"][0]["targets"][0];
    assert_eq!((&silent["ok"], &silent["status"]), (&json!(false), &Value::Null));
    assert!(silent["error"].as_str().unwrap().contains("in time"), "{silent}");
    until("the silent connection is given up", || upstream.open_connections() == 0).await;
}

#[tokio::test]
async fn drills_of_routes_that_are_gone_leave_the_metrics() {
    let (upstream, gateway) = house().await;
    drill(&gateway, "plain").await;
    assert!(gateway.metric("switchpoint_fallback_drill_success", &["route=\"plain\""]).await > 1.0);
    let kept = provider("up", &upstream) + &route("fresh", &["up/good"], "");
    assert_eq!(gateway.reload(&kept).await.status, 200);
    let text = get(gateway.admin, "/metrics", "").await;
    assert!(!text.text().contains("switchpoint_fallback_drill_success{"), "{}", text.text());
    assert!(!text.text().contains("model=\"dead\",provider=\"up\"} 1"), "{}", text.text());
}

/// Runs `switchpoint explain` on a config with these sections.
fn command(sections: &str, arguments: &[&str], body: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, config("", sections).replace("[store]\nurl = \"memory:\"\n", ""))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.env_clear().current_dir(folder.path());
    command.arg("explain").arg("--config").arg(&file).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have found fault with its config and left before it read this.
    let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(!folder.path().join("switchpoint.db").exists(), "the store is left alone");
    output
}

#[tokio::test]
async fn the_command_explains_without_a_server_and_without_a_key() {
    let sections = "[providers.demo]\nkind = \"demo\"\n\n".to_owned()
        + "[keys.narrow]\nsecret = \"sk-narrow\"\nroutes = [\"other\"]\n\n"
        + &route("other", &["demo/demo"], "")
        + &route("fast", &["demo/demo"], "when = 'request.headers[\"x-tier\"] == \"gold\"'");
    let told = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let output = command(&sections, &[], &ask_stream("fast"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(told(&output)["targets"][0]["skipped"]["reason"], "condition");
    let output = command(&sections, &["--header", "X-Tier: gold"], &ask_stream("fast"));
    assert_eq!(told(&output)["targets"][0]["order"], 1, "{output:?}");
    assert_eq!(told(&output)["surface"], "chat");
    let output = command(&sections, &["--surface", "messages"], &ask("demo/demo"));
    assert_eq!(told(&output)["surface"], "messages", "{output:?}");

    for (arguments, body, word) in [
        (&["--key", "narrow"][..], ask("fast"), "not_allowed"),
        (&[], ask("fsat"), "model_not_found"),
        (&[], "nonsense".to_owned(), "invalid_request"),
        (&["--surface", "fax"], ask("fast"), "no surface"),
        (&["--header", "a b: c"], ask("fast"), "no header"),
        (&["--header", "x-tier"], ask("fast"), "no header"),
        (&["--key", "nobody"], ask("fast"), "no key"),
    ] {
        let output = command(&sections, arguments, &body);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{word}: {output:?}");
    }
    let broken = sections + "[routes.typo]\ntargets = [\"nobody/x\"]\n";
    let output = command(&broken, &[], &ask("fast"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"), "{output:?}");
}
