//! What is said of routes: every key arrives, and every mistake is told with its line and path.

use std::time::Duration;

use super::super::{ClassifierKind, HedgeAfter, OnBreak, OnDisconnect, Strategy};
use super::{SOUND, complaints_beside_sound, parse};
use crate::canon::Task;

#[test]
fn every_key_of_a_route_arrives() {
    let text = r#"
[routes.r]
strategy = "weighted"
targets = [{ target = "groq/a", weight = 3, region = "eu", prefill = true, when = 'request.stream' }]
hold_back = "200ms"
on_break = "continue"
on_disconnect = "drain"
hedge = { after = "1s", max_extra_cost = 0.25 }
shadow = { target = "groq/b", sample = 0.5, concurrency = 3, tokens_per_hour = 1000 }
fallbacks = { general = ["fast"], context = ["groq/c"], rate_limit = ["groq/d"] }
max_output_tokens = 100
regions = ["eu"]
[routes.auto]
strategy = "task"
tasks = { code = "r" }
default = "fast"
classifier = { kind = "model", route = "fast", timeout = "1s", min_score = 0.5, ttl = "10m" }
"#;
    let config = parse(&format!("{SOUND}{text}")).unwrap();
    let route = &config.routes["r"];
    assert_eq!((route.strategy, route.on_break), (Strategy::Weighted, OnBreak::Continue));
    assert_eq!(route.on_disconnect, OnDisconnect::Drain);
    assert_eq!(route.hold_back, Duration::from_millis(200));
    let hedge = route.hedge.unwrap();
    assert_eq!(hedge.after, HedgeAfter::Fixed(Duration::from_secs(1)));
    assert_eq!(hedge.max_extra_permille, 250);
    let shadow = route.shadow.as_ref().unwrap();
    assert_eq!(
        (shadow.sample, shadow.concurrency, shadow.tokens_per_hour),
        (500_000, 3, Some(1000))
    );
    assert_eq!((route.targets[0].weight, route.targets[0].prefill), (Some(3), Some(true)));
    assert_eq!(route.max_output_tokens, Some(100));
    let classifier = &config.routes["auto"].classifier;
    assert_eq!((classifier.kind, classifier.min_permille), (ClassifierKind::Model, 500));
    assert_eq!(classifier.ttl, Duration::from_mins(10));
    assert_eq!(config.routes["auto"].tasks[&Task::Code], "r");
}

#[test]
fn nothing_said_of_a_route_means_the_plain_thing() {
    let config = parse(SOUND).unwrap();
    let route = &config.routes["fast"];
    assert_eq!((route.strategy, route.on_break), (Strategy::Ordered, OnBreak::Error));
    assert_eq!((route.on_disconnect, route.hold_back), (OnDisconnect::Cancel, Duration::ZERO));
    assert!(route.hedge.is_none() && route.shadow.is_none() && route.max_output_tokens.is_none());
}

#[test]
fn the_fallback_for_everything_comes_last() {
    let lists = parse(SOUND).unwrap().routes["fast"].fallbacks.lists().map(|(kind, _)| kind);
    assert_eq!(lists.last(), Some(&"general"));
}

#[test]
fn what_a_route_cannot_be_told_is_refused() {
    let text = r#"
[routes.a]
targets = ["groq/x"]
on_break = "retry"
on_disconnect = "wait"
hold_back = 200
hedge = { after = "p96", max_extra_cost = 2 }
shadow = { target = "gorq/y", sample = 1.5, concurrency = 0 }
max_output_tokens = 0
[routes.b]
targets = ["groq/x"]
strategy = "quickest"
tasks = { code = "a" }
fallbacks = { general = ["b", "nobody"], context = ["c"] }
[routes.c]
strategy = "task"
tasks = { cooking = "a", code = "c" }
default = "fast"
classifier = { kind = "examples" }
"#;
    let told = complaints_beside_sound(text);
    println!("{told}");
    for path in [
        "routes.a.on_break",
        "routes.a.on_disconnect",
        "routes.a.hold_back",
        "routes.a.hedge.after",
        "routes.a.hedge.max_extra_cost",
        "routes.a.shadow.sample",
        "routes.a.shadow.concurrency",
        "routes.a.max_output_tokens",
        "routes.b.strategy",
        "routes.b.tasks",
        "routes.c.tasks.cooking",
        "routes.c.classifier",
    ] {
        assert!(told.lines().any(|line| line.contains(&format!(": {path}"))), "{path}:\n{told}");
    }
}

#[test]
fn a_share_of_calls_may_be_small_but_not_as_good_as_none() {
    let config = |share: &str| {
        parse(&format!(
            "{SOUND}[routes.a]\ntargets = [\"groq/x\"]\nshadow = {{ target = \"groq/y\", sample = {share} }}\n\
             [record]\nconsent = true\nsample = {share}\n\
             [telemetry.otlp]\nendpoint = \"http://c\"\nsample = {share}\n"
        ))
    };
    let small = config("0.0001").unwrap();
    let shadow = small.routes["a"].shadow.as_ref().unwrap();
    assert_eq!((shadow.sample, small.record.as_ref().unwrap().sample), (100, 100));
    assert_eq!(small.telemetry.otlp.as_ref().unwrap().sample, 100);
    assert_eq!(config("0").unwrap().record.unwrap().sample, 0);
    let problems = config("0.0000001").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(problems[0].message, "must be 0, or at least a millionth");
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let config = parse(&format!(
        "{SOUND}[routes.a]\ntargets = [{{ target = \"groq/x\", weight = 3 }}]\n\
         hedge = {{ after = \"1s\" }}\ncache = {{ semantic = {{ route = \"groq/e\" }} }}\n\
         [keys.t]\nhash = \"sha256:{}\"\nrole = \"team_admin\"\n",
        "0".repeat(64)
    ));
    let config = config.unwrap();
    let told: Vec<&str> = config.warnings.iter().map(|it| it.path.as_str()).collect();
    let all = ["routes.a.targets[0]", "routes.a.hedge", "routes.a.cache.semantic", "keys.t.role"];
    assert_eq!(told, all);
    let told = complaints_beside_sound("[cache]\nsemantic = { route = \"nope\" }\n");
    assert!(told.contains("cache.semantic.route: no route is called \"nope\""), "{told}");
}

#[test]
fn a_route_leads_only_where_there_is_something() {
    let text = r#"
[routes.a]
targets = ["groq/x"]
shadow = { target = "gorq/y" }
fallbacks = { general = ["a", "nobody"], context = ["gorq/z"] }
[routes.c]
strategy = "task"
tasks = { code = "c" }
default = "fats"
classifier = { kind = "model", route = "c" }
"#;
    let told = complaints_beside_sound(text);
    for path in [
        "routes.a.shadow.target",
        "routes.a.fallbacks.general[0]",
        "routes.a.fallbacks.general[1]",
        "routes.a.fallbacks.context[0]",
        "routes.c.tasks.code",
        "routes.c.default",
        "routes.c.classifier.route",
    ] {
        assert!(told.lines().any(|line| line.contains(&format!(": {path}"))), "{path}:\n{told}");
    }
}

#[test]
fn a_provider_that_is_the_gateway_itself_is_warned_of() {
    let warned = |listen: &str, base: &str| {
        let config = parse(&format!(
            "[server]\nlisten = \"{listen}\"\n\
             [providers.self]\nkind = \"openai\"\nbase_url = \"{base}\"\n"
        ));
        let warnings = config.unwrap().warnings;
        warnings.iter().any(|warning| warning.path == "providers.self.base_url")
    };
    for (listen, base) in [
        ("127.0.0.1:4000", "http://127.0.0.1:4000/v1"),
        ("127.0.0.1:4000", "http://localhost:4000/v1"),
        ("0.0.0.0:80", "http://127.0.0.1/v1"),
        ("[::]:443", "https://localhost"),
        ("[::1]:4000", "http://[::1]:4000"),
    ] {
        assert!(warned(listen, base), "{listen} {base}");
    }
    for (listen, base) in [
        ("127.0.0.1:4000", "http://127.0.0.1:4001/v1"),
        ("127.0.0.1:4000", "http://127.0.0.2:4000/v1"),
        ("0.0.0.0:4000", "http://10.0.0.7:4000/v1"),
        ("10.0.0.7:4000", "http://localhost:4000/v1"),
    ] {
        assert!(!warned(listen, base), "{listen} {base}");
    }
}
