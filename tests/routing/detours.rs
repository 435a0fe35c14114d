//! Where a call goes that its route's own targets cannot answer, and which are not even asked.

use serde_json::{Value, json};

use super::{ask_with, asked, well};
use crate::support::client::{chat, get};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, shown};
use crate::support::{Gateway, Script, Upstream};

const TOO_LONG: &str = r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
const FILTERED: &str = r#"{"error":{"message":"The response was filtered due to the prompt triggering content management policy.","type":null,"param":"prompt","code":"content_filter"}}"#;
const FAILED: &str = r#"{"error":{"message":"Internal.","type":"server_error"}}"#;

const FALLBACKS: &str = "fallbacks = { general = [\"up/general\"], context = [\"up/large\"], \
                         content_filter = [\"up/lenient\"], rate_limit = [\"up/spare\"] }";

#[tokio::test]
async fn each_kind_of_failure_leads_to_the_fallback_that_is_named_for_it() {
    let sick = [
        ("fails", Script::json(500, FAILED), "general", "general"),
        ("long", Script::json(400, TOO_LONG), "large", "context"),
        ("filtered", Script::json(400, FILTERED), "lenient", "content_filter"),
        ("limited", Script::reply(429, &[("retry-after", "60")], FAILED), "spare", "rate_limit"),
    ];
    let scripts = sick.iter().map(|(name, script, ..)| ((*name).to_owned(), vec![script.clone()]));
    let fallbacks = ["general", "large", "lenient", "spare"].map(|name| {
        let answer = crate::support::replies::answer();
        (format!("{name}?stream"), vec![Script::stream(answer)])
    });
    let all = scripts.chain(well(&["general", "large", "lenient", "spare"])).chain(fallbacks);
    let upstream = Upstream::start(all).await;
    let routes = sick.iter().map(|(name, ..)| route(name, &[&format!("up/{name}")], FALLBACKS));
    let gateway = Gateway::before(&upstream, &routes.collect::<String>()).await;
    for (name, _, fallback, kind) in &sick {
        let reply = chat(&gateway, ask(name)).await;
        assert_eq!((reply.status, reply.text()), (200, REPLY), "{name}");
        assert_eq!(reply.header("x-switchpoint-model"), Some(*fallback), "{name}");
        assert_eq!(reply.header("x-switchpoint-degraded"), Some(*kind), "{name}");
        let reply = chat(&gateway, ask_stream(name)).await;
        assert_eq!((reply.status, reply.text()), (200, shown().as_str()), "{name}");
        assert_eq!(reply.header("x-switchpoint-model"), Some(*fallback), "{name}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_content_is_final_where_nobody_is_named_for_it() {
    let scripts = [("filtered", vec![Script::json(400, FILTERED)])];
    let scripts = scripts.map(|(name, scripts)| (name.to_owned(), scripts));
    let upstream = Upstream::start(scripts.into_iter().chain(well(&["next", "general"]))).await;
    let routes = route(
        "r",
        &["up/filtered", "up/next"],
        "attempts = 5\nfallbacks = { general = [\"up/general\"] }",
    );
    let gateway = Gateway::before(&upstream, &routes).await;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("content_filtered")));
    assert_eq!(asked(&upstream), ["filtered"]);
}

#[tokio::test]
async fn every_target_that_is_named_for_filtered_content_is_tried() {
    let upstream = Upstream::start(
        [
            ("filtered".to_owned(), vec![Script::json(400, FILTERED)]),
            ("broken".to_owned(), vec![Script::json(500, FAILED)]),
        ]
        .into_iter()
        .chain(well(&["lenient"])),
    )
    .await;
    let routes = route("lenient", &["up/broken", "up/lenient"], "")
        + &route("r", &["up/filtered"], "fallbacks = { content_filter = [\"lenient\"] }");
    let gateway = Gateway::before(&upstream, &routes).await;
    assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    assert_eq!(asked(&upstream), ["filtered", "broken", "lenient"]);
}

#[tokio::test]
async fn the_fallback_for_rate_limits_is_reached_behind_any_number_of_targets() {
    let limited = || vec![Script::reply(429, &[("retry-after", "60")], FAILED)];
    let names = ["a", "b", "c"];
    let upstream = Upstream::start(
        names.map(|name| (name.to_owned(), limited())).into_iter().chain(well(&["spare"])),
    )
    .await;
    let routes = route(
        "r",
        &["up/a", "up/b", "up/c"],
        "fallbacks = { rate_limit = [\"up/spare\"], general = [\"up/a\"] }",
    );
    let gateway = Gateway::before(&upstream, &routes).await;
    for _ in 0..2 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    // The second time nobody asks those who want to be left alone.
    assert_eq!(asked(&upstream), ["a", "b", "c", "spare", "spare"]);
}

fn picture() -> Value {
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    json!([{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}])
}

fn tools() -> Value {
    let schema = json!({"type": "object", "properties": {}});
    json!([{"type": "function", "function": {"name": "look", "parameters": schema}}])
}

fn question(more: &Value) -> String {
    let mut question = json!({"model": "r", "messages": [{"role": "user", "content": "Hi"}]});
    question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    question.to_string()
}

/// What the explanation says of each target, by its model.
fn told(explanation: &str) -> Vec<(String, Value)> {
    let explanation: Value = serde_json::from_str(explanation).unwrap();
    let targets = explanation["targets"].as_array().unwrap().iter();
    targets
        .map(|target| (target["model"].as_str().unwrap().to_owned(), target["skipped"].clone()))
        .collect()
}

const ABLE: &str = "[models.\"up/plain\"]\nfeatures = [\"json_mode\"]\ncontext = 1000\n\
                    [models.\"up/able\"]\nfeatures = [\"tools\", \"vision\"]\ncontext = 1000000\n";

#[tokio::test]
async fn a_target_that_lacks_what_the_question_needs_is_skipped_and_the_reason_is_told() {
    let upstream = Upstream::start(well(&["plain", "able"])).await;
    let gateway =
        Gateway::before(&upstream, &(route("r", &["up/plain", "up/able"], "") + ABLE)).await;
    let long = "word ".repeat(4000);
    let cases = [
        (json!({"messages": picture()}), "lacks", "vision"),
        (json!({"tools": tools()}), "lacks", "tools"),
        (json!({"messages": [{"role": "user", "content": long}]}), "context", "1000"),
    ];
    for (more, reason, detail) in cases {
        let explain = [("x-switchpoint-explain", "true")];
        let reply = ask_with(&gateway, &explain, question(&more)).await;
        assert_eq!(reply.header("x-switchpoint-model"), Some("able"), "{reason}");
        let told = told(reply.header("x-switchpoint-explain").unwrap());
        assert_eq!(told[0].1["reason"], reason, "{told:?}");
        assert!(told[0].1["detail"].to_string().contains(detail), "{told:?}");
        assert_eq!(told[1], ("able".to_owned(), Value::Null));
        let reply = chat(&gateway, question(&more)).await;
        assert_eq!(reply.header("x-switchpoint-explain"), None, "nobody asked");
    }
    let reply = chat(&gateway, question(&json!({}))).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("plain"));
}

#[tokio::test]
async fn a_target_outside_the_regions_of_its_route_is_never_asked() {
    let upstream = Upstream::start(
        [("near".to_owned(), vec![Script::json(503, FAILED)])].into_iter().chain(well(&["far"])),
    )
    .await;
    let routes = "[routes.r]\nattempts = 1\nregions = [\"eu\"]\ntargets = [\
                  \"up/nobody-knows\", { target = \"up/far\", region = \"us-east-1\" }, \
                  { target = \"up/near\", region = \"eu-west-1\" }]\n";
    let gateway = Gateway::before(&upstream, routes).await;
    let reply = ask_with(&gateway, &[("x-switchpoint-explain", "true")], ask("r")).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(asked(&upstream), ["near"]);
    let told = told(reply.header("x-switchpoint-explain").unwrap());
    let skipped = told.iter().filter(|(_, skipped)| skipped["reason"] == "region");
    let skipped: Vec<_> = skipped.map(|(model, _)| model.as_str()).collect();
    assert_eq!(skipped, ["nobody-knows", "far"]);
}

#[tokio::test]
async fn a_schema_or_reasoning_that_no_target_has_keeps_nobody_from_answering() {
    let upstream = Upstream::start(well(&["plain", "able"])).await;
    let gateway =
        Gateway::before(&upstream, &(route("r", &["up/plain", "up/able"], "") + ABLE)).await;
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for more in [json!({"response_format": format}), json!({"reasoning_effort": "high"})] {
        let reply = chat(&gateway, question(&more)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

#[tokio::test]
async fn the_one_target_that_has_a_schema_gets_the_questions_with_one() {
    let upstream = Upstream::start(well(&["plain", "schema"])).await;
    let models =
        "[models.\"up/plain\"]\nfeatures = []\n[models.\"up/schema\"]\nfeatures = [\"schema\"]\n";
    let routes = route("r", &["up/plain", "up/schema"], "") + models;
    let gateway = Gateway::before(&upstream, &routes).await;
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let reply = chat(&gateway, question(&json!({"response_format": format}))).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("schema"));
}

#[tokio::test]
async fn a_condition_decides_which_calls_a_target_and_a_route_get() {
    let upstream = Upstream::start(well(&["gold", "all", "other"])).await;
    let routes = "[routes.r]\ntargets = [{ target = \"up/gold\", when = 'request.headers[\"x-tier\"] == \"gold\"' }, \"up/all\"]\n\
                  [routes.shut]\ntargets = [\"up/all\"]\nwhen = 'request.tokens < 0'\n\
                  [routes.leads-on]\ntargets = [\"up/all\"]\nwhen = 'request.stream'\n\
                  fallbacks = { general = [\"up/other\"] }\n";
    let gateway = Gateway::before(&upstream, routes).await;
    let gold = ask_with(&gateway, &[("x-tier", "gold")], ask("r")).await;
    assert_eq!(gold.header("x-switchpoint-model"), Some("gold"));
    for headers in [&[][..], &[("x-tier", "tin")][..]] {
        let reply = ask_with(&gateway, headers, ask("r")).await;
        assert_eq!(reply.header("x-switchpoint-model"), Some("all"));
    }
    let reply = chat(&gateway, ask("shut")).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (403, &json!("not_allowed")));
    let reply = chat(&gateway, ask("leads-on")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("other"));
    assert_eq!(reply.header("x-switchpoint-degraded"), Some("general"));
}

#[tokio::test]
async fn a_key_that_answers_serves_the_call_behind_any_number_of_dead_ones() {
    let upstream = Upstream::answering(|request| match request.header("authorization") {
        Some("Bearer sk-5") => Script::json(200, REPLY),
        _ => Script::json(401, FAILED),
    })
    .await;
    let base = upstream.base();
    let sections = format!(
        "[providers.up]\nkind = \"openai\"\nbase_url = \"{base}\"\n\
         api_keys = [\"sk-1\", \"sk-2\", \"sk-3\", \"sk-4\", \"sk-5\"]\n{}",
        route("r", &["up/m"], "attempts = 1")
    );
    let gateway = Gateway::start("", &sections).await;
    for _ in 0..10 {
        let reply = chat(&gateway, ask("r")).await;
        assert_eq!((reply.status, reply.text()), (200, REPLY));
    }
    // Each dead key was asked once, and is benched.
    assert_eq!(upstream.requests().len(), 14);
}

#[tokio::test]
async fn a_fallback_route_is_only_for_the_calls_that_it_is_for() {
    let upstream = Upstream::start([
        ("broken", [Script::json(500, FAILED)]),
        ("small", [Script::json(200, REPLY)]),
        ("usual", [Script::json(200, REPLY)]),
    ])
    .await;
    let routes = "[routes.r]\ntargets = [\"up/broken\"]\nfallbacks = { general = [\"small\", \"usual\"] }\n\
                  [routes.small]\ntargets = [\"up/small\"]\nwhen = 'request.headers[\"x-tier\"] == \"tin\"'\n\
                  [routes.usual]\ntargets = [\"up/usual\"]\n";
    let gateway = Gateway::before(&upstream, routes).await;
    let tin = ask_with(&gateway, &[("x-tier", "tin")], ask("r")).await;
    assert_eq!(tin.header("x-switchpoint-model"), Some("small"));
    let gold = ask_with(&gateway, &[("x-tier", "gold")], ask("r")).await;
    assert_eq!(gold.header("x-switchpoint-model"), Some("usual"));
}

#[tokio::test]
async fn a_route_that_leads_back_to_its_gateway_ends_after_a_few_rounds() {
    let upstream = Upstream::start(well(&["m"])).await;
    let gateway = Gateway::before(&upstream, "").await;
    let own = format!(
        "{}[providers.self]\nkind = \"openai-compatible\"\nbase_url = \"{}\"\napi_key = \"{KEY}\"\n",
        provider("up", &upstream),
        gateway.base()
    );
    let circle = [route("a", &["self/b"], ""), route("b", &["self/a", "up/m"], "")].concat();
    assert_eq!(gateway.reload(&format!("{own}{circle}")).await.status, 200);
    for (body, calls) in [(ask("a"), 7), (ask_stream("a"), 14)] {
        let reply = chat(&gateway, body).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["code"]), (400, &json!("invalid_request")));
        let told = error["message"].as_str().unwrap();
        assert!(told.starts_with("This call has come through Switchpoint 6 times"), "{told}");
        let records = gateway.recorded(calls).await;
        assert_eq!(records.len(), calls, "each asked once, and the last nobody");
    }
    assert_eq!(asked(&upstream), [""; 0]);
    let targets = get(gateway.admin, "/admin/targets", ADMIN_KEY).await.json();
    let targets = targets["data"].as_array().unwrap();
    assert!(targets.iter().all(|target| target["state"] == "closed"), "{targets:?}");
}

#[tokio::test]
async fn the_marks_of_other_gateways_go_on_beside_our_own() {
    let upstream = Upstream::start(well(&["m"])).await;
    let gateway = Gateway::before(&upstream, "").await;
    let before = "edge.example; trace=\"a\", Switchpoint";
    assert_eq!(ask_with(&gateway, &[("cdn-loop", before)], ask("up/m")).await.status, 200);
    let headers = upstream.only_request().headers;
    let marks = headers.iter().filter(|(name, _)| name == "cdn-loop");
    let marks: Vec<&str> = marks.map(|(_, value)| value.as_str()).collect();
    assert_eq!(marks, ["switchpoint", before]);
}

#[tokio::test]
async fn a_refusal_by_the_gateway_behind_for_one_call_or_model_shuts_nothing_else() {
    const BUDGET: &str = r#"{"error":{"message":"The key `inner` has a budget of 5000 tokens.","type":"insufficient_quota","code":"budget_exceeded"}}"#;
    const DEAD: &str = r#"{"error":{"message":"litellm.AuthenticationError: OpenAIException - Incorrect API key provided","type":null,"code":"401"}}"#;
    for kind in ["openai-compatible", "openai"] {
        let mut scripts = well(&["good"]);
        let large = vec![Script::json(429, BUDGET), Script::json(200, REPLY)];
        scripts
            .extend([("m".to_owned(), large), ("dead".to_owned(), vec![Script::json(401, DEAD)])]);
        let upstream = Upstream::start(scripts).await;
        let base = upstream.base();
        let up = format!(
            "[providers.up]\nkind = \"{kind}\"\nbase_url = \"{base}\"\napi_key = \"sk-1\"\n"
        );
        let gateway = Gateway::start("", &up).await;
        for (model, status) in [("m", 429), ("m", 200), ("dead", 502), ("good", 200), ("m", 200)] {
            let reply = chat(&gateway, ask(&format!("up/{model}"))).await;
            assert_eq!(reply.status, status, "{kind} {model}: {}", reply.text());
            assert!(!reply.text().contains("inner"), "that is for the operator");
        }
    }
}
