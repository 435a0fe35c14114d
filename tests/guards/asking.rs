//! Guards that ask somebody else: a model, a moderation, a service of one's own.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use ring::hmac;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DOORS, PII, WORDS, guarded, parrot, said};
use crate::support::client::{chat, open_chat};
use crate::support::collector::{Collector, Mood, attribute};
use crate::support::gateway::{provider, route};
use crate::support::replies::REPLY;
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream, until};

const SECRET: &str = "whsec-test";

/// A service that answers each question with what `judge` makes of its texts.
async fn service(judge: impl Fn(&[String]) -> Value + Send + 'static) -> Upstream {
    Upstream::answering(move |request| {
        let texts = texts(request);
        Script::json(200, &judge(&texts).to_string())
    })
    .await
}

fn texts(request: &Request) -> Vec<String> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let texts = body["texts"].as_array().unwrap().iter();
    texts.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn webhook(service: &Upstream, stages: &str, more: &str) -> String {
    let address = service.address;
    format!(
        "[guards.own]\nkind = \"webhook\"\nurl = \"http://{address}/check\"\n\
         secret = \"{SECRET}\"\nstage = {stages}\n{more}\n"
    )
}

/// Objects to whatever contains the word.
fn objects_to(word: &'static str) -> impl Fn(&[String]) -> Value + Send + 'static {
    move |texts| {
        let found = texts.iter().any(|text| text.contains(word));
        let action = if found { "BLOCKED" } else { "NONE" };
        json!({"action": action, "blocked_reason": "because"})
    }
}

#[tokio::test]
async fn a_service_of_ones_own_is_asked_signed_and_heeded() {
    let upstream = parrot(4).await;
    let service = service(objects_to("forbidden")).await;
    let names = "guards = [\"personal\", \"own\"]";
    let gateway =
        guarded(&upstream, names, &format!("{PII}{}", webhook(&service, "[\"input\"]", ""))).await;
    for door in &DOORS {
        assert_eq!(door.ask(&gateway, "fine, alice@example.org", false).await.status, 200);
        let blocked = door.ask(&gateway, "forbidden", true).await;
        assert_eq!(blocked.status, 403, "{}", blocked.text());
    }
    assert_eq!(upstream.requests().len(), 4);
    let asked = &service.requests()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/check"));
    assert_eq!(texts(asked), ["fine, [EMAIL_1]"], "behind the local guards");
    let timestamp = asked.header("x-switchpoint-timestamp").unwrap();
    let signature = asked.header("x-switchpoint-signature").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [timestamp.as_bytes(), b".", &asked.body].concat();
    let tag = hmac::sign(&key, &signed);
    let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
    assert_eq!(signature, format!("sha256={}", hex.collect::<String>()));
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    assert_eq!((&body["input_type"], &body["model"]), (&json!("request"), &json!("fast")));
    assert_eq!(body["request_data"]["user_api_key_alias"], "test");
}

#[tokio::test]
async fn what_a_service_masks_is_masked_in_question_and_answer() {
    let upstream = parrot(4).await;
    let service = service(|texts| {
        let texts: Vec<String> = texts.iter().map(|text| text.replace("secret", "***")).collect();
        json!({"action": "GUARDRAIL_INTERVENED", "texts": texts})
    })
    .await;
    let guard = webhook(&service, "[\"input\", \"output\"]", "action = \"mask\"");
    let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
    for door in &DOORS {
        for stream in [false, true] {
            let answer = door.ask(&gateway, "a secret", stream).await;
            assert_eq!(door.text(&answer, stream), "a ***", "{}: {}", door.name, answer.text());
        }
    }
    assert!(upstream.requests().iter().all(|request| said(request) == "a ***"));
}

#[tokio::test]
async fn an_answer_is_held_until_a_service_has_spoken_and_is_then_not_told() {
    let upstream = super::upstream(3, |_| "this is forbidden".to_owned()).await;
    let service = service(objects_to("forbidden")).await;
    let gateway =
        guarded(&upstream, "guards = [\"own\"]", &webhook(&service, "[\"output\"]", "")).await;
    for door in &DOORS {
        for stream in [false, true] {
            let answer = door.ask(&gateway, "Well?", stream).await;
            assert_eq!(answer.status, 403, "{} {stream}: {}", door.name, answer.text());
            assert!(!answer.text().contains("this is"), "{}", answer.text());
        }
    }
    for record in gateway.recorded(8).await {
        assert_eq!(record["outcome"], "guard_blocked");
        assert_eq!(record["usage_source"], "provider", "it is paid for: {record}");
    }
}

#[tokio::test]
async fn a_service_that_fails_closes_the_door_and_one_may_open_it() {
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let broken = Upstream::answering(|_| Script::json(500, "{}")).await;
    let silent = Upstream::answering(|_| Script::default().stall()).await;
    let nonsense = Upstream::answering(|_| Script::json(200, "[]")).await;
    for service in [&broken, &silent, &nonsense] {
        let guard = webhook(service, "[\"input\"]", "timeout = \"200ms\"");
        let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
        let answer = DOORS[0].ask(&gateway, "Hi", false).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("unavailable"), "{}", answer.text());
        let note = gateway.record().await["guards"][0].clone();
        assert_eq!(note["action"], "failed_closed", "{note}");
        assert!(note["failure"].is_string(), "{note}");
        let labels = ["guard=\"own\"", "action=\"failed_closed\""];
        assert!(gateway.metric("switchpoint_guard_total", &labels).await > 0.0);
        let open = format!("{guard}on_error = \"allow\"\n");
        let gateway = guarded(&upstream, "guards = [\"own\"]", &open).await;
        assert_eq!(DOORS[0].ask(&gateway, "Hi", false).await.status, 200);
        assert_eq!(gateway.record().await["guards"][0]["action"], "failed_open");
    }
    // Nobody listens there any more.
    let gone = broken.address;
    drop(broken);
    let guard = format!(
        "[guards.own]\nkind = \"webhook\"\nurl = \"http://{gone}/\"\nstage = [\"input\"]\n"
    );
    let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
    assert_eq!(DOORS[0].ask(&gateway, "Hi", false).await.status, 403);
}

/// A gateway whose route `judges` leads to a model that objects to the word.
async fn judged(upstream: &Upstream, judge: &Upstream, guard: &str) -> Gateway {
    let sections = format!(
        "{}{}[routes.fast]\ntargets = [\"up/a\"]\n[routes.judges]\ntargets = [\"judge/j\"]\n{guard}",
        provider("up", upstream),
        provider("judge", judge),
    );
    Gateway::start("guards = [\"topic\"]", &sections).await
}

async fn judge() -> Upstream {
    super::upstream(4, |text| {
        let objects = text.contains("weapons");
        if objects { "no - about weapons" } else { "yes" }.to_owned()
    })
    .await
}

const TOPIC: &str =
    "[guards.topic]\nkind = \"judge\"\nroute = \"judges\"\nprompt = \"No weapons.\"\n";

#[tokio::test]
async fn a_model_judges_through_a_route_and_is_billed_and_not_judged_itself() {
    let (upstream, judge) = (parrot(4).await, judge().await);
    let guard = format!("{TOPIC}stage = [\"input\", \"output\"]\n");
    let gateway = judged(&upstream, &judge, &guard).await;
    assert_eq!(DOORS[0].ask(&gateway, "Of flowers", true).await.status, 200);
    assert_eq!(judge.requests().len(), 2, "question and answer");
    assert_eq!(DOORS[1].ask(&gateway, "Of weapons", false).await.status, 403);
    assert_eq!(upstream.requests().len(), 1);
    let records = gateway.recorded(5).await;
    let own: Vec<&Value> = records.iter().filter(|record| record["purpose"] == "guard").collect();
    assert_eq!(own.len(), 3);
    for record in own {
        assert_eq!((&record["key"], &record["route"]), (&json!("test"), &json!("judges")));
        assert_eq!(record["input_tokens"], 11);
        assert!(record.get("guards").is_none(), "{record}");
    }
}

#[tokio::test]
async fn a_judge_beside_the_model_holds_the_answer_and_calls_it_off() {
    let upstream = parrot(4).await;
    let judge = Upstream::answering(|request| {
        let objects = said(request).contains("weapons");
        let script = super::speak(if objects { "no" } else { "yes" }, false, 1);
        script.after(Duration::from_millis(150))
    })
    .await;
    let guard = format!("{TOPIC}stage = [\"input\"]\nmode = \"parallel\"\n");
    let gateway = judged(&upstream, &judge, &guard).await;
    for stream in [false, true] {
        let answer = DOORS[0].ask(&gateway, "Of weapons", stream).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        let answer = DOORS[0].ask(&gateway, "Of flowers", stream).await;
        assert_eq!(DOORS[0].text(&answer, stream), "Of flowers");
    }
    assert_eq!(upstream.requests().len(), 4, "the model was asked at once");
    for record in gateway.recorded(8).await.iter().filter(|record| record["status"] == 403) {
        assert_eq!(record["outcome"], "guard_blocked");
        assert!(record["input_tokens"].as_u64().unwrap() > 0, "the model has read it: {record}");
    }
}

#[tokio::test]
async fn a_silent_model_is_left_when_the_judge_objects() {
    let upstream = Upstream::answering(|_| Script::default().stall()).await;
    let judge = judge().await;
    let guard = format!("{TOPIC}stage = [\"input\"]\nmode = \"parallel\"\n");
    let gateway = judged(&upstream, &judge, &guard).await;
    assert_eq!(DOORS[0].ask(&gateway, "Of weapons", true).await.status, 403);
    crate::support::until("the model is left", || upstream.busy() == 0).await;
}

#[tokio::test]
async fn an_objection_waits_for_no_other_guard() {
    let upstream = Upstream::answering(|_| Script::default().stall()).await;
    let silent = Upstream::answering(|_| Script::default().stall()).await;
    let service = service(objects_to("forbidden")).await;
    let own = webhook(&service, "[\"input\"]", "mode = \"parallel\"\ntimeout = \"60s\"");
    let slow = webhook(&silent, "[\"input\"]", "mode = \"parallel\"\ntimeout = \"60s\"");
    let slow = slow.replace("guards.own", "guards.slow");
    let names = "guards = [\"slow\", \"own\"]";
    let gateway = guarded(&upstream, names, &format!("{slow}{own}")).await;
    let began = Instant::now();
    let answer = DOORS[0].ask(&gateway, "forbidden", false).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(30), "it came after {:?}", began.elapsed());
    until("the other one is left", || silent.busy() == 0).await;
}

#[tokio::test]
async fn a_providers_moderation_is_asked() {
    let upstream = parrot(4).await;
    let moderation = Upstream::answering(|request| {
        assert_eq!(request.path, "/v1/moderations");
        let harm = request.text().contains("harm");
        let result = json!({"flagged": harm, "categories": {"violence": harm},
                            "category_scores": {"violence": if harm { 0.9 } else { 0.1 }}});
        Script::json(200, &json!({"id": "m", "model": "omni", "results": [result]}).to_string())
    })
    .await;
    let guard =
        "[guards.harm]\nkind = \"moderation\"\nmodel = \"mods/omni\"\nstage = [\"input\"]\n";
    let sections = format!("{}{guard}", provider("mods", &moderation));
    let gateway = guarded(&upstream, "guards = [\"harm\"]", &sections).await;
    assert_eq!(DOORS[2].ask(&gateway, "fine", false).await.status, 200);
    let answer = DOORS[2].ask(&gateway, "harm", false).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("violence"), "{}", answer.text());
    let body: Value = serde_json::from_slice(&moderation.requests()[0].body).unwrap();
    assert_eq!(body, json!({"model": "omni", "input": ["fine"]}));
}

#[tokio::test]
async fn what_only_notes_may_let_a_stream_run_and_is_in_the_record() {
    let upstream = Upstream::answering(|_| {
        let words = ["this ", "is ", "forbidden"].map(crate::support::replies::word);
        Script::stream_head()
            .chunks(words)
            .wait(Duration::from_millis(100))
            .chunks([crate::support::replies::finish(), crate::support::replies::usage()])
            .end()
    })
    .await;
    let service = service(objects_to("forbidden")).await;
    let guard = webhook(&service, "[\"output\"]", "action = \"log\"\nmode = \"parallel\"");
    let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
    let mut body = (DOORS[0].body)("Well?");
    body["stream"] = json!(true);
    let mut opened = open_chat(&gateway, body.to_string()).await;
    opened.read_until("forbidden").await;
    let rest = opened.whole().await;
    assert!(rest.text().contains("\"stop\""), "{}", rest.text());
    let record = gateway.record().await;
    assert_eq!((&record["outcome"], &record["guards"][0]["action"]), (&json!("ok"), &json!("log")));
    assert_eq!(record["guards"][0]["found"]["blocked"], 1, "{record}");
}

#[tokio::test]
async fn an_end_that_guards_wait_for_is_told_though_its_upstream_says_no_last_word() {
    let ends: [fn(Script) -> Script; 2] = [Script::end, Script::stall];
    for end in ends {
        let upstream = Upstream::answering(move |_| {
            let (word, finish) = (crate::support::replies::word, crate::support::replies::finish());
            end(Script::stream_head().chunks([word("fine"), finish]))
        })
        .await;
        let service = service(objects_to("forbidden")).await;
        let guard = webhook(&service, "[\"output\"]", "mode = \"parallel\"");
        let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
        for door in DOORS {
            let answer = door.ask(&gateway, "Well?", true).await;
            assert!(answer.text().contains("fine"), "{}", answer.text());
            let ends = ["\"stop\"", "end_turn", "completed", "STOP"];
            assert!(ends.iter().any(|end| answer.text().contains(end)), "{}", answer.text());
        }
        let outcomes = gateway.recorded(DOORS.len()).await;
        assert!(outcomes.iter().all(|record| record["outcome"] == "ok"), "{outcomes:?}");
    }
}

#[tokio::test]
async fn a_verdict_that_comes_behind_a_stream_still_ends_it_as_filtered() {
    let upstream = super::upstream(3, |_| "this is forbidden".to_owned()).await;
    let service = service(objects_to("forbidden")).await;
    let guard = webhook(&service, "[\"output\"]", "mode = \"parallel\"");
    let gateway = guarded(&upstream, "guards = [\"own\"]", &guard).await;
    for door in &DOORS {
        let answer = door.ask(&gateway, "Well?", true).await;
        assert_eq!(door.text(&answer, true), "this is forbidden", "{}", answer.text());
        assert!(answer.text().contains(door.filtered), "{}: {}", door.name, answer.text());
        // Whole answers are held in any case.
        assert_eq!(door.ask(&gateway, "Well?", false).await.status, 403);
    }
    for record in gateway.recorded(8).await {
        assert_eq!(record["outcome"], "guard_blocked", "{record}");
    }
}

#[tokio::test]
async fn to_explain_a_call_nobody_is_asked_and_its_guards_are_named() {
    let (upstream, judge) = (parrot(4).await, judge().await);
    let guard = format!("{TOPIC}stage = [\"input\"]\ndry_run = true\n");
    let gateway = judged(&upstream, &judge, &guard).await;
    let body = (DOORS[0].body)("Of weapons").to_string();
    let key = crate::support::gateway::KEY;
    let told = crate::support::client::post(gateway.address, "/v1/explain", key, body).await;
    let expected = json!([{
        "guard": "topic", "stages": ["input"], "action": "block", "parallel": false, "dry_run": true,
    }]);
    assert_eq!(told.json()["guards"], expected, "{}", told.text());
    assert!(judge.requests().is_empty() && upstream.requests().is_empty());
    assert_eq!(chat(&gateway, (DOORS[0].body)("Of weapons").to_string()).await.status, 200);
}

/// A service that lets each question pass but one, a judge behind a route, and a collector.
async fn traced(collector: &Collector) -> (Upstream, Upstream, Gateway) {
    let upstream = Upstream::answering(|request| {
        let judged = request.model == "judge";
        let body = if judged { REPLY.replace("Hello there.", "yes") } else { REPLY.to_owned() };
        Script::json(200, &body)
    })
    .await;
    let service = service(objects_to("forbidden")).await;
    let sections = webhook(&service, "[\"input\"]", "")
        + "[guards.wise]\nkind = \"judge\"\nroute = \"judge\"\nprompt = \"Kind.\"\nstage = [\"input\"]\n\
           mode = \"parallel\"\naction = \"log\"\n"
        + &route("judge", &["up/judge"], "")
        + PII
        + &collector.section("");
    let gateway = guarded(&upstream, "guards = [\"personal\", \"own\", \"wise\"]", &sections).await;
    (upstream, service, gateway)
}

#[tokio::test]
async fn each_guard_that_asks_is_a_span_below_its_call_and_what_it_asks_stands_below_that() {
    let collector = Collector::start(Mood::Takes).await;
    let (_upstream, service, gateway) = traced(&collector).await;
    let door = &DOORS[0];
    assert_eq!(door.ask(&gateway, "alice@example.org", false).await.status, 200);
    // The call and its attempt, the judge's call and its attempt, and two guards.
    let spans = collector.collected(6).await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap().clone();
    let told = |span: &Span, name: &str| attribute(&span.attributes, name).unwrap_or_default();
    let call = named("chat fast");
    for (guard, kind) in [("own", "webhook"), ("wise", "judge")] {
        let span = named(&format!("apply_guardrail {guard}"));
        assert_eq!(span.parent_span_id, call.span_id);
        assert_eq!(span.trace_id, call.trace_id);
        assert_eq!(span.kind, SpanKind::Client as i32);
        assert!(span.start_time_unix_nano >= call.start_time_unix_nano);
        assert!(span.start_time_unix_nano < span.end_time_unix_nano);
        assert!(span.end_time_unix_nano <= call.end_time_unix_nano);
        for (name, value) in [
            ("gen_ai.operation.name", "apply_guardrail"),
            ("gen_ai.guardrail.component.name", guard),
            ("gen_ai.guardrail.policy.id", &format!("guards.{guard}")),
            ("gen_ai.guardrail.policy.version", "1"),
            ("gen_ai.guardrail.source", "input"),
            ("gen_ai.guardrail.result.type", "pass"),
            ("switchpoint.guard.kind", kind),
        ] {
            assert_eq!(told(&span, name), value, "{guard}: {name}");
        }
        assert_eq!(span.events.len(), 1);
        assert_eq!(span.events[0].name, "gen_ai.guardrail.result");
        assert_eq!(span.events[0].time_unix_nano, span.end_time_unix_nano);
    }
    let judged = named("chat judge");
    assert_eq!(judged.parent_span_id, named("apply_guardrail wise").span_id);
    assert_eq!(judged.trace_id, call.trace_id);
    let hex = |bytes: &[u8]| -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let parent = hex(&named("apply_guardrail own").span_id);
    let sent = format!("00-{}-{parent}-01", hex(&call.trace_id));
    assert_eq!(service.requests()[0].header("traceparent"), Some(&*sent));
    // What a guard finds by itself is an event of its call.
    let found: Vec<_> = call.events.iter().map(|event| &event.attributes).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(attribute(found[0], "gen_ai.guardrail.component.name").unwrap(), "personal");
    assert_eq!(attribute(found[0], "gen_ai.guardrail.result.type").unwrap(), "mask");
    assert_eq!(attribute(found[0], "gen_ai.guardrail.result.value").unwrap(), "email");
}

#[tokio::test]
async fn a_trace_tells_which_guard_ended_a_call_and_which_one_could_not_look() {
    let collector = Collector::start(Mood::Takes).await;
    let (_upstream, service, gateway) = traced(&collector).await;
    let door = &DOORS[0];
    assert_eq!(door.ask(&gateway, "forbidden", false).await.status, 403);
    let told = |span: &Span, name: &str| attribute(&span.attributes, name).unwrap_or_default();
    let own = |spans: Vec<Span>| spans.into_iter().rfind(|it| it.name == "apply_guardrail own");
    until("the guard is told of", || own(collector.spans()).is_some()).await;
    let span = own(collector.spans()).unwrap();
    assert_eq!(told(&span, "gen_ai.guardrail.result.type"), "block");
    assert!(span.status.is_none(), "that it objects is what it is for");
    drop(service);
    assert_eq!(door.ask(&gateway, "Well?", false).await.status, 403);
    let is_told = || own(collector.spans()).is_some_and(|span| span.status.is_some());
    until("the failure is told of", is_told).await;
    let span = own(collector.spans()).unwrap();
    assert_eq!(told(&span, "gen_ai.guardrail.result.type"), "failed_closed");
    assert_eq!(told(&span, "error.type"), "failed_closed");
    assert!(told(&span, "switchpoint.guard.failure").starts_with("could not be asked"));
}

#[tokio::test]
async fn a_guard_that_finds_nothing_is_told_to_have_let_the_call_pass() {
    let collector = Collector::start(Mood::Takes).await;
    let upstream = Upstream::answering(|_| Script::json(200, REPLY)).await;
    let sections = WORDS.to_owned() + &collector.section("");
    let gateway = guarded(&upstream, "guards = [\"words\"]", &sections).await;
    assert_eq!(DOORS[0].ask(&gateway, "Hi", false).await.status, 200);
    let record = gateway.record().await;
    assert_eq!(record["guards"][0]["action"], "pass", "{record}");
    let spans = collector.collected(2).await;
    let call = spans.iter().find(|span| span.name == "chat fast").unwrap();
    let said = attribute(&call.attributes, "switchpoint.guards").unwrap();
    assert_eq!(said, "words: input pass,words: output pass");
}
