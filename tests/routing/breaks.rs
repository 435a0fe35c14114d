//! Streams that break: switched silently, begun anew, carried on, or ended with an error; and what
//! is read to its end although nobody waits for it.

use std::time::Duration;

use serde_json::{Value, json};
use switchpoint::canon::{ChatResponse, Content, Dialect, Event};
use switchpoint::dialect::fold::Fold;
use switchpoint::dialect::sse::Decoder;
use switchpoint::dialect::upstream;

use super::{ask_at, ask_poorly, asked, body, count, need, poor, tokens, used};
use crate::support::client::{Answer, chat, open_chat, send, wire};
use crate::support::gateway::{KEY, route};
use crate::support::replies::{
    DONE, REPLY, answer, ask, ask_stream, choice, finish, role, shown, usage, word,
};
use crate::support::script::Step;
use crate::support::{Gateway, Script, Upstream, client, until};

const GAP: Duration = Duration::from_millis(50);

/// Each door that streams, how it is asked, and what its readers know of it.
const DOORS: [(Dialect, &str); 4] = [
    (Dialect::Chat, "/v1/chat/completions"),
    (Dialect::Messages, "/v1/messages"),
    (Dialect::Responses, "/v1/responses"),
    (Dialect::Gemini, "/v1beta/models/r:streamGenerateContent?alt=sse"),
];

fn question(dialect: Dialect) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    match dialect {
        Dialect::Messages => {
            json!({"model": "r", "max_tokens": 100, "stream": true, "messages": messages})
        }
        Dialect::Responses => json!({"model": "r", "stream": true, "input": "Hi"}),
        Dialect::Gemini => json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
        _ => json!({"model": "r", "stream": true, "messages": messages}),
    }
    .to_string()
}

/// A stream that says these words and breaks off.
fn cut(words: &[&str]) -> Script {
    let said = std::iter::once(role()).chain(words.iter().map(|text| word(text)));
    Script::stream_head().chunks(said).wait(GAP).close()
}

/// A whole stream of these words.
fn says(words: &[&str]) -> Script {
    let said = std::iter::once(role()).chain(words.iter().map(|text| word(text)));
    Script::stream(said.chain([finish(), usage(), DONE.to_owned()]))
}

/// A route over these models, each known to carry on.
fn continues(models: &[&str], more: &str) -> String {
    let targets =
        models.iter().map(|model| format!("{{ target = \"up/{model}\", prefill = true }}"));
    let targets = targets.collect::<Vec<_>>().join(", ");
    format!("[routes.r]\non_break = \"continue\"\ntargets = [{targets}]\n{more}\n")
}

/// The events of a stream, of which each must make sense, in an order that the dialect allows.
fn read(dialect: Dialect, stream: &str) -> Vec<Event> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(stream.as_bytes());
    let (mut reader, mut events) = (upstream(dialect).reader(), Vec::new());
    while let Some(frame) = decoder.next_frame() {
        if let Some(data) = decoder.data(&frame) {
            let read = reader.read(decoder.event(&frame), data.trim_ascii(), &mut events);
            assert!(read.is_ok(), "{read:?} in {stream}");
        }
    }
    reader.end(&mut events);
    let (mut open, mut started) = (false, false);
    for event in &events {
        match event {
            Event::Start(_) => assert!(!std::mem::replace(&mut started, true), "{stream}"),
            Event::Open { .. } => assert!(!std::mem::replace(&mut open, true), "{stream}"),
            Event::Delta { .. } => assert!(open, "{stream}"),
            Event::Close { .. } => assert!(std::mem::take(&mut open), "{stream}"),
            Event::Finish { .. } => assert!(!open, "{stream}"),
            Event::Usage(_) | Event::Failed(_) | Event::Aside(_) | Event::End => {}
        }
    }
    events
}

/// The one answer of a stream that came to its end.
fn whole(dialect: Dialect, stream: &str) -> ChatResponse {
    let events = read(dialect, stream);
    assert_eq!(events.last(), Some(&Event::End), "{stream}");
    let once = |text: &str| assert_eq!(stream.matches(text).count(), 1, "{text}: {stream}");
    match dialect {
        Dialect::Chat => {
            once("data: [DONE]");
            once("\"role\":\"assistant\"");
            once("\"finish_reason\":\"stop\"");
        }
        Dialect::Messages => {
            for name in ["message_start", "message_delta", "message_stop", "content_block_start"] {
                once(&format!("event: {name}\n"));
            }
        }
        Dialect::Responses => {
            for name in [
                "created",
                "completed",
                "output_item.added",
                "content_part.added",
                "output_text.done",
            ] {
                once(&format!("event: response.{name}\n"));
            }
            check_numbers(stream);
        }
        _ => once("\"finishReason\""),
    }
    let mut fold = Fold::default();
    for event in &events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

/// The events of a response are numbered without a gap.
fn check_numbers(stream: &str) {
    let events = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    for (number, event) in events.enumerate() {
        assert_eq!(event["sequence_number"], number, "{stream}");
    }
}

fn text(response: &ChatResponse) -> String {
    let parts = response.choices.iter().flat_map(|choice| &choice.parts);
    let texts = parts.filter_map(|part| match &part.content {
        Content::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// That a stream ended with an error in its own dialect, and no end of its own.
fn check_failed(dialect: Dialect, reply: &Answer) -> String {
    assert_eq!(reply.status, 200);
    let stream = reply.text();
    for word in ["[DONE]", "message_stop", "response.completed", "\"finish_reason\":\"stop\""] {
        assert!(!stream.contains(word), "{dialect:?}: {stream}");
    }
    assert!(!stream.contains("\"finishReason\""), "{stream}");
    reply.last_event().to_string()
}

#[tokio::test]
async fn a_cut_within_the_hold_back_is_switched_silently_and_nothing_comes_twice() {
    for on_break in ["error", "restart", "continue"] {
        let upstream =
            Upstream::start([("a", [cut(&["Hel", "lo"])]), ("b", [Script::stream(answer())])])
                .await;
        let more = format!("hold_back = \"5s\"\non_break = \"{on_break}\"");
        let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], &more)).await;
        let reply = chat(&gateway, ask_stream("r")).await;
        assert_eq!(text(&whole(Dialect::Chat, reply.text())), "Hello there.", "{on_break}");
        assert!(on_break == "continue" || reply.text() == shown(), "{}", reply.text());
        assert_eq!(asked(&upstream), ["a", "b"]);
        let record = gateway.record().await;
        assert_eq!(record["outcome"], "ok");
        let bought = &record["failed"][0]["output_tokens"];
        assert!(bought.as_u64().is_some_and(|tokens| tokens > 0), "{record}");
    }
}

#[tokio::test]
async fn a_route_that_restarts_does_so_only_while_the_client_has_nothing() {
    for on_break in ["error", "restart"] {
        let upstream =
            Upstream::start([("a", [cut(&["Hel"])]), ("b", [Script::stream(answer())])]).await;
        let more = format!("on_break = \"{on_break}\"");
        let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], &more)).await;
        let reply = chat(&gateway, ask_stream("r")).await;
        assert!(check_failed(Dialect::Chat, &reply).contains("stream_truncated"));
        assert_eq!(asked(&upstream), ["a"], "{on_break}");
        let record = gateway.record().await;
        assert_eq!(record["outcome"], "upstream_truncated");
        assert_eq!(
            (&record["usage_source"], &record["output_tokens"]),
            (&json!("estimated"), &json!(1))
        );
    }
}

#[tokio::test]
async fn an_answer_is_carried_on_without_a_seam_in_each_clients_dialect() {
    let said: [(&[&str], &[&str]); 4] = [
        (&["Hel"], &["lo", " there."]),
        // What the client has of the space between is not shown to the next, who may repeat it.
        (&["Hello", " "], &["there", "."]),
        (&["Hello", " "], &[" there."]),
        (&["Hello", " "], &[" ", "there."]),
    ];
    for (dialect, path) in DOORS {
        for (before, after) in said {
            let upstream = Upstream::start([("a", [cut(before)]), ("b", [says(after)])]).await;
            let gateway = Gateway::before(&upstream, &continues(&["a", "b"], "")).await;
            let reply = ask_at(&gateway, path, &[], question(dialect)).await;
            let answer = whole(dialect, reply.text());
            assert_eq!(text(&answer), "Hello there.", "{dialect:?}: {before:?} {after:?}");
            let requests = upstream.requests();
            assert_eq!(requests.len(), 2);
            let messages = &body(&requests[1])["messages"];
            let last = messages.as_array().unwrap().last().unwrap();
            assert_eq!(last["role"], "assistant", "{messages}");
            assert_eq!(last["content"], before.concat().trim_end(), "{messages}");
            let record = gateway.record().await;
            assert_eq!((&record["outcome"], &record["attempts"]), (&json!("ok"), &json!(2)));
            assert_eq!(record["failed"][0]["outcome"], "upstream_truncated");
        }
    }
}

#[tokio::test]
async fn what_a_broken_stream_used_is_counted_for_its_own_target() {
    let upstream =
        Upstream::start([("a", [cut(&["Hel", "lo"])]), ("b", [says(&[" there."])])]).await;
    let gateway = Gateway::before(&upstream, &continues(&["a", "b"], "")).await;
    chat(&gateway, ask_stream("r")).await;
    let record = gateway.record().await;
    let failed = &record["failed"][0];
    assert_eq!((&failed["model"], &failed["output_tokens"]), (&json!("a"), &json!(2)), "{record}");
    let input = failed["input_tokens"].as_u64().unwrap();
    assert!(input > 0);
    // What the provider says of the last attempt stands for itself.
    assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&json!(11), &json!(4)));
    assert_eq!(tokens(&gateway, "a", "output").await, 2);
    assert_eq!(tokens(&gateway, "a", "input").await, input);
    assert_eq!(tokens(&gateway, "b", "output").await, 4);
}

#[tokio::test]
async fn an_answer_that_breaks_twice_is_carried_on_twice() {
    for (dialect, path) in DOORS {
        let upstream = Upstream::start([
            ("a", [cut(&["One ", "two"])]),
            ("b", [cut(&[" three "])]),
            ("c", [says(&["four", "."])]),
        ])
        .await;
        let gateway = Gateway::before(&upstream, &continues(&["a", "b", "c"], "")).await;
        let reply = ask_at(&gateway, path, &[], question(dialect)).await;
        assert_eq!(text(&whole(dialect, reply.text())), "One two three four.", "{dialect:?}");
        let messages = body(&upstream.requests()[2])["messages"].as_array().unwrap().clone();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(messages[1]["content"], "One two three");
    }
}

#[tokio::test]
async fn a_tool_call_that_breaks_off_is_carried_on_by_nobody() {
    let call = choice(
        r#"{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"at\":"}}]}"#,
        "null",
    );
    let broken = Script::stream_head().chunks([role(), word("I will look."), call]).wait(GAP);
    for (dialect, path) in DOORS {
        let upstream =
            Upstream::start([("a", [broken.clone().close()]), ("b", [says(&["x"])])]).await;
        let gateway = Gateway::before(&upstream, &continues(&["a", "b"], "")).await;
        let reply = ask_at(&gateway, path, &[], question(dialect)).await;
        check_failed(dialect, &reply);
        assert_eq!(asked(&upstream), ["a"], "{dialect:?}");
        assert_eq!(gateway.record().await["outcome"], "upstream_truncated");
    }
}

#[tokio::test]
async fn a_target_that_is_not_known_to_carry_on_is_not_asked_to() {
    let upstream = Upstream::start([("a", [cut(&["Hel"])]), ("b", [says(&["lo"])])]).await;
    let gateway =
        Gateway::before(&upstream, &route("r", &["up/a", "up/b"], "on_break = \"continue\"")).await;
    let reply = chat(&gateway, ask_stream("r")).await;
    assert!(check_failed(Dialect::Chat, &reply).contains("stream_truncated"));
    assert_eq!(asked(&upstream), ["a"]);
}

#[tokio::test]
async fn when_nobody_can_carry_on_the_client_is_told_the_first_cause() {
    let silent = Script::stream_head().chunks([role(), word("Hel")]).stall();
    let refused = r#"{"error":{"message":"No such thing.","type":"invalid_request_error"}}"#;
    for (dialect, path) in DOORS {
        let upstream =
            Upstream::start([("a", [silent.clone()]), ("b", [Script::json(400, refused)])]).await;
        let gateway =
            Gateway::before(&upstream, &continues(&["a", "b"], "timeouts = { idle = \"200ms\" }"))
                .await;
        let reply = ask_at(&gateway, path, &[], question(dialect)).await;
        let told = check_failed(dialect, &reply);
        assert!(told.contains("fell silent"), "{dialect:?}: {told}");
        assert!(!told.contains("No such thing"), "{dialect:?}: {told}");
        assert_eq!(asked(&upstream), ["a", "b"], "{dialect:?}");
        let record = gateway.record().await;
        assert_eq!((&record["outcome"], &record["attempts"]), (&json!("timeout"), &json!(2)));
    }
}

#[tokio::test]
async fn a_silent_stream_is_closed_while_another_target_carries_it_on() {
    let silent = Script::stream_head().chunks([role(), word("Hel")]).stall();
    let slow = Script::stream_head().chunks([role(), word("lo")]).stall();
    let upstream = Upstream::start([("a", [silent]), ("b", [slow])]).await;
    let gateway =
        Gateway::before(&upstream, &continues(&["a", "b"], "timeouts = { idle = \"500ms\" }"))
            .await;
    let mut reply = open_chat(&gateway, ask_stream("r")).await;
    reply.read_until("lo").await;
    let ended = |at: usize| upstream.connections()[at].ended.is_some_and(|(_, by_peer)| by_peer);
    until("the silent one is closed", || ended(0)).await;
    reply.whole().await;
}

#[tokio::test]
async fn a_response_that_was_carried_on_is_kept_whole() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ";
    let rest = [role(), word(" there."), finish(), usage(), DONE.to_owned()].concat();
    // All of it in one piece, so that it is there before anybody asks for the seam.
    let rest = Script::raw(format!("{head}{}\r\n\r\n{rest}", rest.len()));
    let upstream = Upstream::start([("a", [cut(&["Hello"])]), ("b", [rest])]).await;
    let gateway = Gateway::before(&upstream, &continues(&["a", "b"], "")).await;
    let reply = ask_at(&gateway, "/v1/responses", &[], question(Dialect::Responses)).await;
    assert_eq!(text(&whole(Dialect::Responses, reply.text())), "Hello there.");
    let id = reply.last_event()["response"]["id"].as_str().unwrap().to_owned();
    let kept = client::get(gateway.address, &format!("/v1/responses/{id}"), KEY).await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    assert_eq!(kept.json()["output"][0]["content"][0]["text"], "Hello there.");
}

/// A stream of which the client sees the beginning, and the rest comes when it has left.
fn long(gap: Duration) -> Script {
    let rest = (0..40).map(|_| word(" and"));
    let Script(rest) = Script::default().chunks(rest).paced(gap);
    let begun = Script::stream_head().chunks([role(), word("Hello")]);
    let said = rest.into_iter().fold(begun, Script::then).wait(Duration::from_millis(300));
    said.chunks([finish(), usage(), DONE.to_owned()]).end()
}

#[tokio::test]
async fn an_answer_whose_client_has_left_is_drained_for_its_usage_where_the_route_wants_that() {
    // The quick one is not watched by the reactor while it passes.
    for gap in [Duration::from_millis(1), Duration::from_millis(10)] {
        let upstream = Upstream::start([("a", [long(gap)])]).await;
        let more = "on_disconnect = \"drain\"";
        let gateway = Gateway::before(&upstream, &route("r", &["up/a"], more)).await;
        let mut reply = open_chat(&gateway, ask_stream("r")).await;
        reply.read_until(" and").await;
        drop(reply);
        let record = gateway.record().await;
        assert_eq!(record["outcome"], "client_closed");
        assert_eq!(
            (&record["usage_source"], &record["input_tokens"], &record["output_tokens"]),
            (&json!("provider"), &json!(11), &json!(4)),
            "{gap:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_whose_client_has_left_is_broken_off_where_nothing_else_is_said() {
    let stays = Script::stream_head().chunks([role(), word("Hello")]).stall();
    let upstream = Upstream::start([("a", [stays])]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "")).await;
    let mut reply = open_chat(&gateway, ask_stream("r")).await;
    reply.read_until("Hello").await;
    drop(reply);
    until("the upstream is left", || upstream.open_connections() == 0).await;
    let record = gateway.record().await;
    assert_eq!(
        (&record["outcome"], &record["usage_source"]),
        (&json!("client_closed"), &json!("estimated"))
    );
    assert_eq!(count(&upstream, "a"), 1);
}

#[tokio::test]
async fn a_whole_answer_whose_client_has_left_is_waited_for_where_the_route_wants_that() {
    for (more, source, output) in
        [("on_disconnect = \"drain\"", "provider", 4), ("", "estimated", 0)]
    {
        let Script(answer) = Script::json(200, REPLY);
        let wait = vec![Step::Wait(Duration::from_millis(300))];
        let slow = Script([wait, answer].concat());
        let upstream = Upstream::start([("a", [slow])]).await;
        let gateway = Gateway::before(&upstream, &route("r", &["up/a"], more)).await;
        let client = send(gateway.address, &wire(&ask("r"))).await;
        until("the upstream is asked", || !upstream.requests().is_empty()).await;
        drop(client);
        let record = gateway.record().await;
        assert_eq!(
            (&record["outcome"], &record["usage_source"], &record["output_tokens"]),
            (&json!("client_closed"), &json!(source), &json!(output)),
            "{more}"
        );
    }
}

#[tokio::test]
async fn another_target_goes_on_only_where_the_budget_has_room_for_what_both_cost() {
    let need = need().await;
    for (tokens, outcome) in [(need + 1, "budget_exceeded"), (3 * need, "ok")] {
        let upstream =
            Upstream::start([("a", [cut(&["Hel"])]), ("b", [says(&["lo", " there."])])]).await;
        let sections = continues(&["a", "b"], "") + &poor(tokens);
        let gateway = Gateway::before(&upstream, &sections).await;
        let reply = ask_poorly(&gateway, true).await;
        if outcome == "ok" {
            assert_eq!(text(&whole(Dialect::Chat, reply.text())), "Hello there.");
        } else {
            assert!(check_failed(Dialect::Chat, &reply).contains(outcome));
        }
        assert_eq!(count(&upstream, "b") == 1, outcome == "ok");
        assert_eq!(gateway.record().await["outcome"], outcome);
        let used = used(&gateway).await;
        assert!((1..=tokens).contains(&used), "{used} of {tokens}");
    }
}
