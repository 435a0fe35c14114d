//! Nobody uses more than they may: limits and budgets hold for calls that come all at once, and
//! what was not used is not charged.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{self, Answer, CHAT};
use crate::support::gateway::{provider, route};
use crate::support::replies::{REPLY, finish, role, word};
use crate::support::{Gateway, Script, Upstream, until};

/// What `REPLY` says that it used.
const USED: u64 = 15;

/// A key whose secret is `sk-` and its name.
fn key(name: &str, more: &str) -> String {
    format!("[keys.{name}]\nsecret = \"sk-{name}\"\n{more}\n\n")
}

fn question(model: &str, stream: bool) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": model, "max_tokens": 50, "stream": stream, "messages": messages}).to_string()
}

async fn ask(gateway: &Gateway, key: &str, model: &str) -> Answer {
    client::post(gateway.address, CHAT, &format!("sk-{key}"), question(model, false)).await
}

async fn opened(gateway: &Gateway, key: &str, model: &str) -> client::Opened {
    let body = question(model, true).into();
    let request = client::request(http::Method::POST, CHAT, &format!("sk-{key}"), body);
    client::open(gateway.address, request).await
}

/// The first of the budgets that bind a key.
async fn budget(gateway: &Gateway, key: &str) -> Value {
    let answer = client::get(gateway.address, "/v1/me/usage", &format!("sk-{key}")).await;
    answer.json()["budgets"][0].clone()
}

/// Of so many records one that says this. Calls of several workers are logged in no order.
async fn recorded(gateway: &Gateway, count: usize, name: &str, value: &str) -> Value {
    let records = gateway.recorded(count).await;
    records.into_iter().find(|record| record[name] == value).unwrap()
}

fn code(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    (answer.status, json["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// What one such call is taken to need at most.
async fn most() -> u64 {
    let upstream = Upstream::start([("a", [Script::default().stall()])]).await;
    let budget_of = "budget = [{ tokens = 1_000_000, window = \"1d\" }]";
    let gateway = Gateway::before(&upstream, &key("probe", budget_of)).await;
    let mut calls = JoinSet::new();
    let address = gateway.address;
    calls.spawn(
        async move { client::post(address, CHAT, "sk-probe", question("up/a", false)).await },
    );
    upstream.asked(1).await;
    budget(&gateway, "probe").await["reserved"].as_u64().unwrap()
}

#[tokio::test]
async fn a_hundred_calls_at_once_get_what_is_left_and_no_more() {
    let room = most().await * 10;
    let slow = Script::json(200, REPLY).after(Duration::from_secs(2));
    let upstream = Upstream::start([("a", [slow])]).await;
    let tokens = format!("budget = [{{ tokens = {room}, window = \"1d\" }}]");
    let gateway = Gateway::before(&upstream, &key("ci", &tokens)).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let address = gateway.address;
        calls.spawn(
            async move { client::post(address, CHAT, "sk-ci", question("up/a", false)).await },
        );
    }
    let answers = calls.join_all().await;
    let answered = answers.iter().filter(|answer| answer.status == 200).count();
    let told = answers.iter().filter(|answer| answer.status != 200).map(code);
    assert!(told.into_iter().all(|told| told == refused(429, "budget_exceeded")));
    assert_eq!((answered, upstream.requests().len()), (10, 10));
    let left = budget(&gateway, "ci").await;
    assert_eq!((&left["used"], &left["reserved"]), (&json!(10 * USED), &json!(0)));
    assert!(gateway.metric("switchpoint_limited_total", &["budget_tokens"]).await >= 90.0);
}

#[tokio::test]
async fn so_many_calls_at_the_same_time_and_a_place_is_free_when_one_ends() {
    let upstream = Upstream::start([
        ("slow", [Script::stream_head().chunks([role(), word("a")]).stall()]),
        ("a", [Script::json(200, REPLY)]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &key("ci", "limits = { concurrency = 1 }")).await;
    let mut first = opened(&gateway, "ci", "up/slow").await;
    first.read_until("a").await;
    assert_eq!(code(&ask(&gateway, "ci", "up/a").await), refused(429, "rate_limited"));
    drop(first);
    gateway.recorded(2).await;
    assert_eq!(ask(&gateway, "ci", "up/a").await.status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_refused_call_consumes_nothing_and_the_client_sees_what_is_left() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let keys = [
        key("few", "limits = { requests = \"2/h\" }"),
        key("poor", "budget = [{ tokens = 20, window = \"1d\" }]"),
    ];
    let gateway = Gateway::before(&upstream, &keys.concat()).await;
    for left in ["1", "0"] {
        let answer = ask(&gateway, "few", "up/a").await;
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(left));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("2"));
    }
    for _ in 0..3 {
        let answer = ask(&gateway, "few", "up/a").await;
        assert_eq!(code(&answer), refused(429, "rate_limited"));
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((3000..=3700).contains(&wait), "{wait}");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
    }
    for _ in 0..3 {
        let answer = ask(&gateway, "poor", "up/a").await;
        assert_eq!(code(&answer), refused(429, "budget_exceeded"));
        assert_eq!(answer.header("x-switchpoint-budget-left"), Some("1"));
    }
    let budget = budget(&gateway, "poor").await;
    assert_eq!((&budget["used"], &budget["reserved"]), (&json!(0), &json!(0)));
    assert!(budget["resets_at"].as_str().unwrap().contains("T00:00:00"), "{budget}");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn an_aborted_stream_is_settled_by_estimate_and_an_error_costs_nothing() {
    let upstream = Upstream::start(
        [
            ("slow", Script::stream_head().chunks([role(), word("a"), word("b")]).stall()),
            ("broken", Script::json(500, r#"{"error":{"message":"no"}}"#)),
            ("wrong", Script::json(400, r#"{"error":{"message":"no"}}"#)),
        ]
        .map(|(name, script)| (name, [script])),
    )
    .await;
    let budgets = "budget = [{ tokens = 100_000, window = \"none\" }]";
    let gateway = Gateway::before(&upstream, &key("ci", budgets)).await;
    for model in ["up/broken", "up/wrong"] {
        assert_ne!(ask(&gateway, "ci", model).await.status, 200);
        let budget = budget(&gateway, "ci").await;
        assert_eq!((&budget["used"], &budget["reserved"]), (&json!(0), &json!(0)), "{model}");
    }
    let mut stream = opened(&gateway, "ci", "up/slow").await;
    stream.read_until("\"b\"").await;
    assert!(budget(&gateway, "ci").await["reserved"].as_u64() > Some(50));
    drop(stream);
    let record = recorded(&gateway, 3, "outcome", "client_closed").await;
    let used = record["input_tokens"].as_u64().unwrap() + 2;
    assert_eq!(
        (&record["outcome"], &record["output_tokens"]),
        (&json!("client_closed"), &json!(2))
    );
    let budget = budget(&gateway, "ci").await;
    assert_eq!((&budget["used"], &budget["reserved"]), (&json!(used), &json!(0)));
}

#[tokio::test]
async fn a_stream_that_outgrows_the_budget_is_ended_and_its_upstream_let_go() {
    let endless = Script::stream_head().chunks([role()]).chunks(vec![word("a"); 1000]).stall();
    let upstream = Upstream::start([("a", [endless])]).await;
    let tokens = format!("budget = [{{ tokens = {}, window = \"1d\" }}]", most().await + 300);
    let gateway = Gateway::before(&upstream, &key("ci", &tokens)).await;
    let answer = opened(&gateway, "ci", "up/a").await.whole().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.last_event()["error"]["code"], "budget_exceeded");
    until("the upstream is let go", || upstream.open_connections() == 0).await;
    assert_eq!(gateway.record().await["outcome"], "budget_exceeded");
}

#[tokio::test]
async fn a_stream_that_is_read_on_for_nobody_outgrows_the_budget_no_more_than_another() {
    let pause = Duration::from_millis(200);
    let begun = Script::stream_head().chunks([role(), word("a")]).wait(pause);
    let endless = begun.chunks(vec![word("a"); 2000]).stall();
    let upstream = Upstream::start([("a", [endless])]).await;
    let tokens = format!("budget = [{{ tokens = {}, window = \"1d\" }}]", most().await + 300);
    let sections = key("ci", &tokens) + &route("r", &["up/a"], "on_disconnect = \"drain\"");
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut stream = opened(&gateway, "ci", "r").await;
    stream.read_until("\"a\"").await;
    drop(stream);
    until("the upstream is let go", || upstream.open_connections() == 0).await;
    assert_eq!(gateway.record().await["outcome"], "client_closed");
    // What had come already when there was no more room counts, too.
    let budget = budget(&gateway, "ci").await;
    assert!(budget["used"].as_u64().is_some_and(|used| (50..1500).contains(&used)), "{budget}");
}

#[tokio::test]
async fn money_is_not_spent_where_nobody_knows_the_price() {
    let upstream =
        Upstream::start(["dark", "free", "paid"].map(|name| (name, [Script::json(200, REPLY)])))
            .await;
    let sections = [
        "[models.\"up/free\"]\nprice = \"free\"\n".to_owned(),
        "[models.\"up/paid\"]\nprice = { input = 1000.0, output = 10_000.0 }\n".to_owned(),
        "[teams.search]\nbudget = [{ usd = 1.0, window = \"30d\" }]\n".to_owned(),
        key("ci", "team = \"search\""),
        key("other", ""),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    assert_eq!(code(&ask(&gateway, "ci", "up/dark").await), refused(400, "unpriced_model"));
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(ask(&gateway, "ci", "up/free").await.status, 200);
    let answer = ask(&gateway, "ci", "up/paid").await;
    // 11 tokens in, 4 out.
    assert_eq!(answer.header("x-switchpoint-cost-usd"), Some("0.051"));
    assert_eq!(answer.header("x-switchpoint-budget-left"), Some("0.949"));
    let record = recorded(&gateway, 3, "model", "paid").await;
    assert_eq!((&record["cost_usd"], &record["team"]), (&json!(0.051), &json!("search")));
    let budget = budget(&gateway, "ci").await;
    assert_eq!((&budget["scope"], &budget["used"]), (&json!("team"), &json!(0.051)));
    let labels = ["provider=\"up\"", "model=\"other\"", "team=\"search\""];
    let cost = gateway.metric("switchpoint_cost_usd_total", &labels).await;
    let ratio = gateway.metric("switchpoint_budget_used_ratio", &["search"]).await;
    assert!((cost - 0.051).abs() < 1e-9 && (ratio - 0.051).abs() < 1e-6, "{cost} {ratio}");
    assert_eq!(ask(&gateway, "other", "up/dark").await.status, 200);
    gateway.recorded(4).await;
    assert!((gateway.metric("switchpoint_unpriced_total", &[]).await - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn keys_share_what_their_user_team_and_org_may_use() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let sections = [
        "[orgs.acme]\nlimits = { requests = \"3/h\" }\n".to_owned(),
        "[teams.search]\norg = \"acme\"\nlimits = { requests = \"2/h\" }\n".to_owned(),
        "[teams.ads]\norg = \"acme\"\n".to_owned(),
        "[users.ann]\nteam = \"search\"\nlimits = { requests = \"1/h\" }\n".to_owned(),
        key("one", "user = \"ann\""),
        key("two", "team = \"search\""),
        key("three", "team = \"ads\""),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    let asked = [
        ("one", None),
        ("one", Some("user `ann`")),
        ("two", None),
        ("two", Some("team `search`")),
        ("three", None),
        ("three", Some("org `acme`")),
    ];
    for (key, holder) in asked {
        let answer = ask(&gateway, key, "up/a").await;
        match holder {
            None => assert_eq!(answer.status, 200, "{key}"),
            Some(holder) => assert!(answer.text().contains(holder), "{}", answer.text()),
        }
    }
    assert_eq!(upstream.requests().len(), 3);
    let record = recorded(&gateway, 6, "user", "ann").await;
    assert_eq!((&record["user"], &record["team"]), (&json!("ann"), &json!("search")));
}

#[tokio::test]
async fn a_key_holds_for_its_time_its_networks_and_its_models() {
    let upstream = Upstream::start(["a", "b"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let sections = [
        route("both", &["up/a", "up/b"], ""),
        key("old", "expires = 2020-01-01"),
        key("young", "expires = 2999-01-01"),
        key("far", "ips = [\"10.0.0.0/8\"]"),
        key("near", "ips = [\"10.0.0.0/8\", \"127.0.0.1\"]"),
        key("narrow", "models = [\"up/b*\"]"),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    assert_eq!(code(&ask(&gateway, "old", "up/a").await), refused(401, "expired_key"));
    assert_eq!(ask(&gateway, "young", "up/a").await.status, 200);
    assert_eq!(code(&ask(&gateway, "far", "up/a").await), refused(403, "not_allowed"));
    let models = client::get(gateway.address, "/v1/models", "sk-far").await;
    assert_eq!(code(&models), refused(403, "not_allowed"));
    assert_eq!(ask(&gateway, "near", "up/a").await.status, 200);
    assert_eq!(code(&ask(&gateway, "narrow", "up/a").await), refused(403, "not_allowed"));
    let answer = ask(&gateway, "narrow", "both").await;
    assert_eq!(answer.header("x-switchpoint-model"), Some("b"));
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_target_without_room_is_passed_over_and_a_route_without_room_refuses() {
    let upstream = Upstream::start(["a", "b"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let sections = [
        "[models.\"up/a\"]\nlimits = { requests = \"1/h\" }\n".to_owned(),
        route("both", &["up/a", "up/b"], "limits = { requests = \"2/h\" }"),
        key("ci", ""),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    for model in ["a", "b"] {
        let answer = ask(&gateway, "ci", "both").await;
        assert_eq!(answer.header("x-switchpoint-model"), Some(model), "{}", answer.text());
    }
    let answer = ask(&gateway, "ci", "both").await;
    assert_eq!(code(&answer), refused(429, "rate_limited"));
    assert!(answer.text().contains("route `both`"), "{}", answer.text());
    let answer = ask(&gateway, "ci", "up/a").await;
    assert_eq!(code(&answer), refused(429, "rate_limited"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn both_sides_of_a_race_give_their_places_back() {
    let slow = Script::json(200, REPLY).after(Duration::from_secs(5));
    let upstream = Upstream::start([("slow", [slow]), ("quick", [Script::json(200, REPLY)])]).await;
    let hedge = "hedge = { after = \"50ms\", max_extra_cost = 1.0 }";
    let sections = [
        "[models.\"up/slow\"]\nlimits = { concurrency = 1 }\n".to_owned(),
        "[models.\"up/quick\"]\nlimits = { concurrency = 1 }\n".to_owned(),
        route("race", &["up/slow", "up/quick"], hedge),
        key("ci", "budget = [{ tokens = 100_000, window = \"1d\" }]"),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    for turn in 1..=3 {
        let answer = ask(&gateway, "ci", "race").await;
        assert_eq!(answer.header("x-switchpoint-model"), Some("quick"), "{}", answer.text());
        gateway.recorded(turn).await;
        upstream.asked(turn * 2).await;
    }
    let budget = budget(&gateway, "ci").await;
    // The loser's question counts too, by estimate.
    assert!(budget["used"].as_u64() > Some(3 * USED), "{budget}");
    assert_eq!(budget["reserved"], 0);
}

#[tokio::test]
async fn who_has_used_much_is_served_by_something_cheaper_first() {
    let upstream =
        Upstream::start(["dear", "cheap"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let sections = [
        route("smart", &["up/dear"], "fallbacks = { budget = [\"up/cheap\"] }"),
        key("ci", "budget = [{ tokens = 1000, window = \"1d\", soft = 0.01 }]"),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    for (model, degraded) in [("dear", None), ("cheap", Some("budget"))] {
        let answer = ask(&gateway, "ci", "smart").await;
        assert_eq!(answer.header("x-switchpoint-model"), Some(model));
        assert_eq!(answer.header("x-switchpoint-degraded"), degraded);
    }
}

#[tokio::test]
async fn where_a_budget_has_too_little_room_for_a_call_something_cheaper_serves_it() {
    let upstream =
        Upstream::start(["dear", "cheap"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let price = |model: &str, usd: u32| {
        format!("[models.\"up/{model}\"]\nprice = {{ input = 0, output = {usd} }}\n\n")
    };
    let cheaper = "fallbacks = { budget = [\"up/cheap\"] }";
    // 50 tokens are 0.05 and 0.00005 USD.
    let sections = [
        price("dear", 1000),
        price("cheap", 1),
        route("smart", &["up/dear"], cheaper),
        route("stubborn", &["up/dear"], ""),
        key("poor", "budget = [{ usd = 0.04, window = \"1d\" }]"),
        key("beggar", "budget = [{ usd = 0.00004, window = \"1d\" }]"),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    assert_eq!(code(&ask(&gateway, "poor", "stubborn").await), refused(429, "budget_exceeded"));
    assert_eq!(code(&ask(&gateway, "beggar", "smart").await), refused(429, "budget_exceeded"));
    let answer = ask(&gateway, "poor", "smart").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-switchpoint-model"), Some("cheap"));
    assert_eq!(answer.header("x-switchpoint-degraded"), Some("budget"));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn conditions_know_team_tags_and_what_is_left() {
    let upstream = Upstream::start(["a", "b"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let target =
        |when: &str| format!("targets = [{{ target = \"up/a\", when = '{when}' }}, \"up/b\"]");
    let sections = [
        format!("[routes.team]\n{}\n", target(r#"key.team == "search""#)),
        format!("[routes.tag]\n{}\n", target(r#"tags["tier"] == "gold""#)),
        format!("[routes.left]\n{}\n", target("budget.left > 0.99")),
        "[teams.search]\n".to_owned(),
        key("in", "team = \"search\"\ntags = { tier = \"gold\" }"),
        key("out", "budget = [{ tokens = 1000, window = \"1d\" }]"),
    ];
    let gateway = Gateway::before(&upstream, &sections.concat()).await;
    for (key, route, model) in [
        ("in", "team", "a"),
        ("in", "tag", "a"),
        ("out", "left", "a"),
        ("out", "left", "b"),
        ("out", "team", "b"),
        ("out", "tag", "b"),
    ] {
        let answer = ask(&gateway, key, route).await;
        assert_eq!(answer.header("x-switchpoint-model"), Some(model), "{key} {route}");
    }
}

#[tokio::test]
async fn what_was_used_stays_used_when_the_config_changes() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let sections = |tokens: u64| {
        let budget = format!("budget = [{{ tokens = {tokens}, window = \"1d\" }}]");
        format!("{}{}", provider("up", &upstream), key("ci", &budget))
    };
    let gateway = Gateway::start("", &sections(1000)).await;
    assert_eq!(ask(&gateway, "ci", "up/a").await.status, 200);
    assert_eq!(gateway.reload(&sections(70)).await.status, 200);
    let left = budget(&gateway, "ci").await;
    assert_eq!((&left["used"], &left["limit"]), (&json!(USED), &json!(70)));
    let answer = ask(&gateway, "ci", "up/a").await;
    assert_eq!(code(&answer), refused(429, "budget_exceeded"));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_response_in_the_background_is_refused_at_once() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let poor = key("ci", "budget = [{ tokens = 20, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &poor).await;
    let body = json!({"model": "up/a", "input": "Hi", "background": true}).to_string();
    let answer = client::post(gateway.address, "/v1/responses", "sk-ci", body).await;
    assert_eq!(code(&answer), refused(429, "budget_exceeded"));
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn every_door_moves_the_same_counter() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let budgets = key("ci", "budget = [{ tokens = 100_000, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &budgets).await;
    let hi = json!([{"role": "user", "content": "Hi"}]);
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]});
    let doors = [
        (CHAT, json!({"model": "up/a", "messages": hi})),
        ("/v1/messages", json!({"model": "up/a", "max_tokens": 50, "messages": hi})),
        ("/v1/responses", json!({"model": "up/a", "input": "Hi"})),
        ("/v1beta/models/up/a:generateContent", google),
    ];
    for (turn, (path, body)) in (1..).zip(doors) {
        let answer = client::post(gateway.address, path, "sk-ci", body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(budget(&gateway, "ci").await["used"], turn * USED, "{path}");
    }
}

#[tokio::test]
async fn a_whole_stream_counts_what_its_provider_says() {
    let events = [role(), word("a"), finish(), crate::support::replies::usage()];
    let events = events.into_iter().chain([crate::support::replies::DONE.to_owned()]);
    let upstream = Upstream::start([("a", [Script::stream(events)])]).await;
    let budgets = "budget = [{ tokens = 1000, window = \"1d\" }]";
    let gateway = Gateway::before(&upstream, &key("ci", budgets)).await;
    let answer = opened(&gateway, "ci", "up/a").await.whole().await;
    assert_eq!(answer.status, 200);
    gateway.recorded(1).await;
    let left = budget(&gateway, "ci").await;
    assert_eq!((&left["used"], &left["reserved"]), (&json!(USED), &json!(0)));
}

#[tokio::test]
async fn a_call_that_is_refused_has_no_shadow_either() {
    let good = || [Script::json(200, REPLY)];
    let upstream = Upstream::start([("a", good()), ("shade", good())]).await;
    let sections = key("once", "limits = { requests = \"1/h\" }")
        + &route("r", &["up/a"], "shadow = { target = \"up/shade\" }");
    let gateway = Gateway::before(&upstream, &sections).await;
    assert_eq!(ask(&gateway, "once", "r").await.status, 200);
    upstream.asked(2).await;
    assert_eq!(code(&ask(&gateway, "once", "r").await), refused(429, "rate_limited"));
    // One record for each of the two calls, one for the shadow; a second would have been the fourth.
    gateway.recorded(3).await;
    assert_eq!(gateway.stop().len(), 3);
    assert_eq!(upstream.requests().len(), 2);
}

/// What calls say nothing of.
fn open_ended(stream: bool) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": "up/a", "stream": stream, "messages": messages}).to_string()
}

/// A model that could say a lot.
const TALKATIVE: &str = "[models.\"up/a\"]\nmax_output = 50_000\n\n";

#[tokio::test]
async fn an_answer_of_any_length_is_expected_to_be_as_long_as_its_like() {
    let quick = std::iter::repeat_n(Script::json(200, REPLY), 20);
    let upstream =
        Upstream::start([("a", quick.chain([Script::default().stall()]).collect::<Vec<_>>())])
            .await;
    let budget_of = "budget = [{ tokens = 1_000_000, window = \"1d\" }]";
    let sections = TALKATIVE.to_owned() + &key("ci", budget_of);
    let gateway = Gateway::before(&upstream, &sections).await;
    for _ in 0..20 {
        let answer = client::post(gateway.address, CHAT, "sk-ci", open_ended(false)).await;
        assert_eq!(answer.status, 200);
    }
    let address = gateway.address;
    let mut calls = JoinSet::new();
    calls.spawn(async move { client::post(address, CHAT, "sk-ci", open_ended(false)).await });
    upstream.asked(21).await;
    // `REPLY` has four tokens; the smallest expectation is twenty.
    let reserved = budget(&gateway, "ci").await["reserved"].as_u64().unwrap();
    assert!((20..100).contains(&reserved), "{reserved}");
}

#[tokio::test]
async fn an_answer_for_whose_full_length_there_is_no_room_is_given_what_there_is() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    for (stream, tokens, most) in [
        (false, 1_000_000, None),
        (false, 40_000, Some(4096)),
        (false, 2_000, Some(1024)),
        (true, 40_000, None),
        (true, 2_000, Some(1024)),
    ] {
        let budget_of = format!("budget = [{{ tokens = {tokens}, window = \"1d\" }}]");
        let sections = TALKATIVE.to_owned() + &key("ci", &budget_of);
        let gateway = Gateway::before(&upstream, &sections).await;
        let answer = client::post(gateway.address, CHAT, "sk-ci", open_ended(stream)).await;
        assert_eq!(answer.status, 200);
        let asked: Value =
            serde_json::from_slice(&upstream.requests().last().unwrap().body).unwrap();
        let told = asked.get("max_tokens").or_else(|| asked.get("max_completion_tokens"));
        assert_eq!(told.and_then(Value::as_u64), most, "{stream} {tokens}");
    }
    let sections =
        TALKATIVE.to_owned() + &key("ci", "budget = [{ tokens = 200, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &sections).await;
    let answer = client::post(gateway.address, CHAT, "sk-ci", open_ended(false)).await;
    assert_eq!(code(&answer), refused(429, "budget_exceeded"));
}

#[tokio::test]
async fn pictures_that_nobody_counts_are_held_and_settled_by_estimate() {
    let pictures = r#"{"created":1,"data":[{"url":"a"},{"url":"b"}]}"#;
    let upstream = Upstream::answering(move |_| Script::json(200, pictures)).await;
    let keys = key("poor", "budget = [{ tokens = 3_000, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &keys).await;
    let ask = async |n: u32| {
        let body = format!(r#"{{"model":"up/m","prompt":"a cat","n":{n}}}"#);
        client::post(gateway.address, "/v1/images/generations", "sk-poor", body).await
    };
    assert_eq!(code(&ask(3).await), refused(429, "budget_exceeded"));
    assert!(upstream.requests().is_empty());
    assert_eq!(ask(2).await.status, 200);
    let records = gateway.recorded(2).await;
    let settled = records.iter().find(|record| record["outcome"] == "ok").unwrap();
    assert_eq!(settled["usage_source"], "estimated");
    assert_eq!(settled["output_tokens"], 2112);
    // What is left is less than another picture.
    assert_eq!(ask(1).await.status, 429);
}
