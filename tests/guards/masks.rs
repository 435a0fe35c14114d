//! What is masked in a question never leaves, and is in the answer again.

use serde_json::{Value, json};

use super::{DOORS, PII, guarded, parrot, said, speak, ways_in};
use crate::support::client::chat;
use crate::support::gateway::route;
use crate::support::replies::{DONE, choice, finish, role, usage};
use crate::support::{Gateway, Script, Upstream};

const TEXT: &str = "Write to alice@example.org, and pay with 4111 1111 1111 1111.";
const MASKED: &str = "Write to [EMAIL_1], and pay with [CARD_1].";

#[tokio::test]
async fn what_is_masked_never_leaves_and_comes_back_whatever_the_client_speaks() {
    for piece in [1, 3, 1000] {
        let upstream = parrot(piece).await;
        let gateway = guarded(&upstream, "guards = [\"personal\"]", PII).await;
        for (door, stream) in ways_in() {
            let before = upstream.requests().len();
            let answer = door.ask(&gateway, TEXT, stream).await;
            let what = format!("{} stream={stream} piece={piece}", door.name);
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            assert_eq!(door.text(&answer, stream), TEXT, "{what}: {}", answer.text());
            let requests = upstream.requests();
            assert_eq!(said(&requests[before]), MASKED, "{what}");
        }
        assert!(upstream.requests().iter().all(|request| !request.text().contains("alice")));
    }
}

#[tokio::test]
async fn what_the_model_was_not_told_it_cannot_have_put_back() {
    let upstream = super::upstream(2, |_| "[EMAIL_1] and [EMAIL_2] and [EMAIL_".to_owned()).await;
    let gateway = guarded(&upstream, "guards = [\"personal\"]", PII).await;
    for door in &DOORS {
        for stream in [false, true] {
            let answer = door.ask(&gateway, TEXT, stream).await;
            let text = door.text(&answer, stream);
            assert_eq!(text, "alice@example.org and [EMAIL_2] and [EMAIL_", "{}", door.name);
        }
    }
}

#[tokio::test]
async fn arguments_of_tools_have_what_was_masked_again_and_stay_json() {
    let arguments = "{\"to\": \"[NAME_1] <[EMAIL_1]>\", \"card\": \"[CARD_1]\"}";
    let upstream = Upstream::answering(move |request| {
        let call = |arguments: &str| {
            json!({"index": 0, "id": "call_1", "type": "function",
                   "function": {"name": "send", "arguments": arguments}})
        };
        if request.variant != "stream" {
            let message = json!({"role": "assistant", "content": null, "tool_calls": [call(arguments)]});
            let choice = json!({"index": 0, "message": message, "finish_reason": "tool_calls"});
            let body = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "served",
                "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
            return Script::json(200, &body.to_string());
        }
        let mut events = vec![role()];
        events.push(choice(&json!({"tool_calls": [call("")]}).to_string(), "null"));
        for letter in arguments.chars() {
            let more = json!({"index": 0, "function": {"arguments": letter.to_string()}});
            events.push(choice(&json!({"tool_calls": [more]}).to_string(), "null"));
        }
        events.extend([choice("{}", "\"tool_calls\""), usage(), DONE.to_owned()]);
        Script::stream(events)
    })
    .await;
    let name = "[guards.name]\nkind = \"pattern\"\nlabel = \"name\"\nregex = [\"O'Brien \\\\\\\"Bo\\\\\\\"\"]\n\
        stage = [\"input\"]\naction = \"mask\"\nrestore = true\n";
    let gateway =
        guarded(&upstream, "guards = [\"personal\", \"name\"]", &format!("{PII}{name}")).await;
    let tools = json!([{"type": "function", "function": {"name": "send", "parameters": {"type": "object"}}}]);
    let content = format!("{TEXT} I am O'Brien \"Bo\".");
    for stream in [false, true] {
        let question = json!({"model": "fast", "stream": stream, "tools": tools,
            "messages": [{"role": "user", "content": content}]});
        let answer = chat(&gateway, question.to_string()).await;
        let got = if stream {
            let events = super::events(&answer);
            let place = "/choices/0/delta/tool_calls/0/function/arguments";
            events.iter().filter_map(|event| event.pointer(place)?.as_str()).collect::<String>()
        } else {
            let place = "/choices/0/message/tool_calls/0/function/arguments";
            answer.json().pointer(place).and_then(Value::as_str).unwrap().to_owned()
        };
        let read: Value =
            serde_json::from_str(&got).unwrap_or_else(|error| panic!("{error}: {got}"));
        let expected =
            json!({"to": "O'Brien \"Bo\" <alice@example.org>", "card": "4111 1111 1111 1111"});
        assert_eq!(read, expected, "stream={stream}");
    }
}

#[tokio::test]
async fn the_whole_conversation_is_masked_with_what_was_put_back_before() {
    let upstream = parrot(5).await;
    let gateway = guarded(&upstream, "guards = [\"personal\"]", PII).await;
    let question = json!({"model": "fast", "user": "alice@example.org", "messages": [
        {"role": "system", "content": "You help alice@example.org."},
        {"role": "user", "content": "Who am I?"},
        {"role": "assistant", "content": "You are alice@example.org.", "tool_calls": [{
            "id": "call_1", "type": "function",
            "function": {"name": "look", "arguments": "{\"who\":\"alice@example.org\"}"},
        }]},
        {"role": "tool", "tool_call_id": "call_1", "content": "alice@example.org is bob@example.org"},
        {"role": "user", "content": "So?"},
    ]});
    assert_eq!(chat(&gateway, question.to_string()).await.status, 200);
    let asked = upstream.only_request().text().to_owned();
    assert!(!asked.contains("@example.org"), "{asked}");
    assert!(asked.contains("[EMAIL_1] is [EMAIL_2]"), "{asked}");
}

#[tokio::test]
async fn a_conversation_that_the_gateway_remembers_is_masked_anew() {
    let upstream = parrot(5).await;
    let gateway = guarded(&upstream, "guards = [\"personal\"]", PII).await;
    let responses = |body: Value| {
        let body = body.to_string();
        let address = gateway.address;
        async move {
            crate::support::client::post(
                address,
                "/v1/responses",
                crate::support::gateway::KEY,
                body,
            )
            .await
        }
    };
    let first = responses(json!({"model": "fast", "input": "I am alice@example.org."})).await;
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert!(first.text().contains("alice@example.org"), "{}", first.text());
    let next = json!({"model": "fast", "input": "Who am I?", "previous_response_id": id});
    assert_eq!(responses(next).await.status, 200);
    for request in upstream.requests() {
        assert!(!request.text().contains("alice@"), "{}", request.text());
    }
}

#[tokio::test]
async fn a_shadow_sees_what_its_call_sends() {
    let upstream = parrot(5).await;
    let other = parrot(5).await;
    let shadow = format!(
        "{}{}{}{PII}",
        crate::support::gateway::provider("up", &upstream),
        crate::support::gateway::provider("other", &other),
        route(
            "fast",
            &["up/a"],
            "shadow = { target = \"other/b\", sample = 1.0 }\nguards = [\"personal\"]"
        ),
    );
    let gateway = Gateway::start("", &shadow).await;
    let door = &DOORS[0];
    assert_eq!(door.ask(&gateway, TEXT, false).await.status, 200);
    other.asked(1).await;
    assert_eq!(said(&other.only_request()), MASKED);
    assert_eq!(said(&upstream.only_request()), MASKED);
}

#[tokio::test]
async fn a_slow_target_that_is_raced_is_asked_for_the_same() {
    let slow = Upstream::answering(|request| {
        speak(&said(request), true, 3).after(std::time::Duration::from_secs(5))
    })
    .await;
    let quick = parrot(3).await;
    let sections = format!(
        "{}{}{}{PII}",
        crate::support::gateway::provider("slow", &slow),
        crate::support::gateway::provider("quick", &quick),
        route(
            "fast",
            &["slow/a", "quick/b"],
            "hedge = { after = \"20ms\", max_extra_cost = 1.0 }\nguards = [\"personal\"]"
        ),
    );
    let gateway = Gateway::start("", &sections).await;
    let answer = DOORS[0].ask(&gateway, TEXT, true).await;
    assert_eq!(DOORS[0].text(&answer, true), TEXT, "{}", answer.text());
    assert_eq!(said(&slow.only_request()), MASKED);
    assert_eq!(said(&quick.only_request()), MASKED);
}

#[tokio::test]
async fn an_answer_that_is_carried_on_by_another_target_is_restored_and_told_once() {
    let broken = Upstream::answering(|_| {
        let words = ["Mail to ", "[EMA", "IL_1], then to [EM"];
        let words = words.map(crate::support::replies::word);
        Script::stream_head().chunks([role()]).chunks(words).reset()
    })
    .await;
    let other = Upstream::answering(|_| {
        let words = ["[EMAIL", "_1] again."].map(crate::support::replies::word);
        let rest = [finish(), usage(), DONE.to_owned()];
        Script::stream([vec![role()], words.to_vec(), rest.to_vec()].concat())
    })
    .await;
    let sections = format!(
        "{}{}[routes.fast]\ntargets = [\"up/a\", {{ target = \"other/b\", prefill = true }}]\n\
         on_break = \"continue\"\nguards = [\"personal\"]\n{PII}",
        crate::support::gateway::provider("up", &broken),
        crate::support::gateway::provider("other", &other),
    );
    for door in &DOORS {
        // A target that breaks too often is left alone.
        let gateway = Gateway::start("", &sections).await;
        let answer = door.ask(&gateway, TEXT, true).await;
        let text = door.text(&answer, true);
        let expected = "Mail to alice@example.org, then to alice@example.org again.";
        assert_eq!(text, expected, "{}: {}", door.name, answer.text());
    }
    for request in other.requests() {
        assert_eq!(said(&request), "Mail to [EMAIL_1], then to", "{}", request.text());
    }
}
