//! Streams end rightly: complete, with an error that says so, or not at all for a client that left.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::client::{chat, open_chat, post};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{
    DONE, REPLY, answer, ask, ask_stream, choice, event, finish, role, shown, usage, word,
};
use crate::support::script::Step;
use crate::support::{Gateway, Script, Upstream};

const KEEP_ALIVE: &str = ": ka\n\n";
const ZEROS: &str = "\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0";
const SECOND: Duration = Duration::from_secs(1);

fn said_usage(text: &str) -> serde_json::Value {
    let events = text
        .split("data: ")
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok());
    events.filter(|event| event["usage"].is_object()).last().unwrap_or_default()["usage"].clone()
}

#[tokio::test]
async fn a_stream_cut_before_its_finish_ends_in_an_error_and_never_in_done() {
    // A reset throws away what was not read yet, so it waits until the beginning has been.
    let pause = Duration::from_millis(100);
    let begun = || Script::stream_head().chunks([role(), word("Hel")]).wait(pause);
    let upstream = Upstream::start([
        ("close", [begun().close()]),
        ("reset", [begun().reset()]),
        ("orderly", [begun().end()]),
        ("half-an-event", [begun().chunks(["data: {\"choices\":[{\"delta\":"]).end()]),
        ("garbled", [begun().then(Step::Send("zz\r\n".into())).close()]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, model) in
        ["close", "reset", "orderly", "half-an-event", "garbled"].into_iter().enumerate()
    {
        let reply = chat(&gateway, ask_stream(&format!("up/{model}"))).await;
        assert_eq!(reply.status, 200);
        let begun = [role(), word("Hel")].concat();
        let rest = reply
            .text()
            .strip_prefix(&begun)
            .unwrap_or_else(|| panic!("{model}: {}", reply.text()));
        assert!(rest.starts_with("data: {\"error\":") && rest.ends_with("\n\n"), "{model}: {rest}");
        let error = &reply.last_event()["error"];
        assert_eq!(
            (&error["code"], &error["attempts"][0]["outcome"]),
            (&"stream_truncated".into(), &"upstream_truncated".into()),
            "{model}"
        );
        assert!(!rest.contains("[DONE]"), "{model}");
        let record = &gateway.recorded(place + 1).await[place];
        assert_eq!(record["outcome"], "upstream_truncated", "{model}");
        assert_eq!(
            (&record["usage_source"], &record["output_tokens"]),
            (&"estimated".into(), &1.into())
        );
    }
}

#[tokio::test]
async fn zeros_are_no_counts_of_an_answer_that_says_something() {
    let zeros = |text: &str| {
        text.replace("\"prompt_tokens\":11,\"completion_tokens\":4,\"total_tokens\":15", ZEROS)
    };
    let stream = [role(), word("Hello"), word(" there."), finish(), zeros(&usage()), DONE.into()];
    let upstream = Upstream::start([
        ("whole", [Script::json(200, &zeros(REPLY))]),
        ("stream", [Script::stream(stream.to_vec())]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, asks) in [ask("up/whole"), ask_stream("up/stream")].into_iter().enumerate() {
        let reply = chat(&gateway, asks).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let record = &gateway.recorded(place + 1).await[place];
        assert_eq!(record["usage_source"], "estimated", "{record}");
        let counted = |name: &str| record[name].as_u64().unwrap();
        assert!(counted("input_tokens") > 0 && counted("output_tokens") > 0, "{record}");
    }
}

#[tokio::test]
async fn a_finish_without_done_is_completed_within_a_second() {
    let finished =
        || Script::stream_head().chunks([role(), word("Hello"), word(" there."), finish()]);
    let upstream = Upstream::start([
        ("ends", [finished().end()]),
        ("closes", [finished().close()]),
        ("stays", [finished().stall()]),
        ("with-usage", [finished().chunks([usage()]).stall()]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for model in ["ends", "closes", "stays", "with-usage"] {
        let asks = [false, true].map(|asked| {
            let options = format!(r#""stream_options":{{"include_usage":{asked}}}"#);
            (asked, format!(r#"{{"model":"up/{model}","stream":true,{options}}}"#))
        });
        for (asked, body) in asks {
            let mut reply = open_chat(&gateway, body).await;
            let begun = reply.read_until("\"stop\"").await;
            let finished = Instant::now();
            let rest = reply.whole().await;
            assert!(
                finished.elapsed() < SECOND + Duration::from_millis(300),
                "{model}: {:?}",
                finished.elapsed()
            );
            let text = begun + rest.text();
            assert!(text.ends_with(DONE), "{model}: {text}");
            assert_eq!(text.matches("[DONE]").count(), 1);
            let usage = said_usage(&text);
            assert_eq!(
                usage["total_tokens"].as_u64().is_some_and(|total| total > 0),
                asked,
                "{model}: {text}"
            );
            assert_eq!(
                usage["estimated"] == true,
                asked && model != "with-usage",
                "{model}: {text}"
            );
        }
    }
    for record in gateway.stop() {
        assert_eq!(
            (&record["outcome"], record["output_tokens"].as_u64() > Some(0)),
            (&"ok".into(), true),
            "{record}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_goes_on_behind_a_finish_is_not_cut() {
    let with_each = |text: &str| {
        let delta =
            format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"stop"}}"#);
        event(&format!(r#""choices":[{delta}]"#))
    };
    let pieces = [with_each("a"), with_each("b"), with_each("c")];
    let slow = pieces[2..].to_vec();
    let begun = Script::stream_head().chunks(pieces[..2].to_vec()).wait(SECOND * 3 / 2);
    let upstream = Upstream::start([("slow", [begun.chunks(slow).chunks([DONE]).end()])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let said = r#"{"model":"up/slow","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    for (place, path) in ["/v1/chat/completions", "/v1/messages"].into_iter().enumerate() {
        let reply = post(gateway.address, path, KEY, said.to_owned()).await;
        for text in ["\"a\"", "\"b\"", "\"c\""] {
            assert_eq!(reply.text().matches(text).count(), 1, "{path}: {}", reply.text());
        }
        assert_eq!(gateway.recorded(place + 1).await[place]["outcome"], "ok", "{path}");
    }
}

#[tokio::test]
async fn usage_is_read_wherever_a_provider_puts_it() {
    let counts = r#""usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}"#;
    let with_finish = event(&format!(
        r#""choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],{counts}"#
    ));
    let begun = || vec![role(), word("Hello")];
    let stream = |end: Vec<String>| [Script::stream([begun(), end].concat())];
    let upstream = Upstream::start([
        ("behind", stream(vec![finish(), usage(), DONE.into()])),
        ("with", stream(vec![with_finish, DONE.into()])),
        ("before", stream(vec![usage(), finish(), DONE.into()])),
        ("never", stream(vec![finish(), DONE.into()])),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, model) in ["behind", "with", "before", "never"].into_iter().enumerate() {
        assert!(chat(&gateway, ask_stream(&format!("up/{model}"))).await.text().ends_with(DONE));
        let record = &gateway.recorded(place + 1).await[place];
        let (source, output) = if model == "never" { ("estimated", 1) } else { ("provider", 4) };
        assert_eq!(
            (&record["usage_source"], &record["output_tokens"]),
            (&source.into(), &output.into()),
            "{model}"
        );
        assert_ne!(record["input_tokens"], 0);
    }
    assert!(gateway.metric("switchpoint_tokens_total", &["provider=\"up\""]).await > 0.0);
}

#[tokio::test]
async fn an_error_inside_a_stream_is_passed_on_and_is_the_last_word() {
    let error = "data: {\"error\":{\"message\":\"The model broke.\",\"code\":500}}\n\n";
    let script = Script::stream_head()
        .chunks([role(), word("a")])
        .wait(Duration::from_millis(100))
        .chunks([error, &word("b"), DONE])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    assert_eq!(reply.text(), [role(), word("a"), error.to_owned()].concat());
    assert_eq!(gateway.record().await["outcome"], "upstream_error");
}

#[tokio::test]
async fn silence_before_the_head_is_bridged_by_keep_alives_and_a_slow_answer_still_comes() {
    let late = Script::default().wait(Duration::from_millis(700));
    let late = Script([late.0, Script::stream(answer()).0].concat());
    let upstream = Upstream::start([
        ("late", [late]),
        (
            "fails",
            [Script::default()
                .wait(Duration::from_millis(400))
                .then(Step::Send("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into()))],
        ),
    ])
    .await;
    let sections = provider("up", &upstream) + &route("r", &["up/fails", "up/late"], "");
    let gateway = Gateway::start("keepalive = \"200ms\"", &sections).await;
    let started = Instant::now();
    let reply = open_chat(&gateway, ask_stream("up/late")).await;
    let headed = started.elapsed();
    assert_eq!(
        (reply.status, reply.headers["content-type"].to_str().unwrap()),
        (200, "text/event-stream")
    );
    assert!(
        headed > Duration::from_millis(150) && headed < Duration::from_millis(600),
        "{headed:?}"
    );
    let text = reply.whole().await;
    let events = text.text().trim_start_matches(KEEP_ALIVE);
    assert_eq!(events, shown());
    assert!(text.text().matches(KEEP_ALIVE).count() >= 2);
    // After the head another target may still take over, and the last failure goes in-band.
    assert_eq!(
        chat(&gateway, ask_stream("r")).await.text().trim_start_matches(KEEP_ALIVE),
        shown()
    );
    let failed = chat(&gateway, ask_stream("up/fails")).await;
    assert_eq!(
        (failed.status, &failed.last_event()["error"]["code"]),
        (200, &"upstream_error".into())
    );
    let outcomes: Vec<_> =
        gateway.recorded(3).await.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "ok", "upstream_error"]);
}

#[tokio::test]
async fn keep_alives_come_only_between_events_and_upstream_comments_never_pass() {
    let hello = word("Hello");
    let (left, right) = hello.split_at(40);
    let pause = Duration::from_millis(500);
    let script = Script::stream_head()
        .chunks([role(), word("A"), ": upstream\n\n".to_owned(), left.to_owned()])
        .wait(pause)
        .chunks([right.to_owned(), format!(": inside\nid: 7\nretry: 9\n{}", word("B"))])
        .wait(pause)
        .chunks([finish(), DONE.to_owned()])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::start("keepalive = \"150ms\"", &provider("up", &upstream)).await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    let text = reply.text();
    assert!(text.matches(KEEP_ALIVE).count() >= 4, "{text}");
    let events = text.replace(KEEP_ALIVE, "").replace("retry: 9\n", "");
    assert_eq!(
        events,
        [role(), word("A"), word("Hello"), word("B"), finish(), DONE.into()].concat()
    );
}

#[tokio::test]
async fn tokens_that_come_one_by_one_leave_one_by_one() {
    let words: Vec<_> = (0..12).map(|number| word(&format!("w{number}"))).collect();
    let gap = Duration::from_millis(100);
    let script = Script::stream_head()
        .chunks(words.clone())
        .paced(gap)
        .chunks([finish(), DONE.into()])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let pieces = open_chat(&gateway, ask_stream("up/m")).await.pieces().await;
    let arrivals: Vec<_> = words
        .iter()
        .map(|word| {
            pieces
                .iter()
                .find(|piece| piece.bytes == word.as_bytes())
                .expect("each in its own piece")
                .at
        })
        .collect();
    for pair in arrivals.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between > gap / 2 && between < gap * 2, "{between:?}");
    }
}

#[tokio::test]
async fn every_answer_asked_for_is_waited_for() {
    let second = |reason: &str| {
        event(&format!(
            r#""choices":[{{"index":1,"delta":{{"content":"b"}},"finish_reason":{reason}}}]"#
        ))
    };
    let pieces = vec![
        choice(r#"{"content":"a"}"#, "\"stop\""),
        second("null"),
        second("\"stop\""),
        DONE.to_owned(),
    ];
    let cut = pieces[..2].to_vec();
    let upstream =
        Upstream::start([("m", [Script::stream(pieces.clone())]), ("cut", [Script::stream(cut)])])
            .await;
    let gateway = Gateway::before(&upstream, "").await;
    let body = |model: &str| format!(r#"{{"model":"up/{model}","n":2,"stream":true}}"#);
    assert_eq!(chat(&gateway, body("m")).await.text(), pieces.concat());
    assert_eq!(chat(&gateway, body("cut")).await.last_event()["error"]["code"], "stream_truncated");
}

#[tokio::test]
async fn a_reload_leaves_open_streams_alone() {
    let script = Script::stream_head().chunks(vec![word("a"); 10]).paced(Duration::from_millis(50));
    let script = script.chunks([finish(), DONE.into()]).end();
    let upstream = Upstream::start([("m", [script])]).await;
    let sections = provider("up", &upstream);
    let gateway = Gateway::start("", &(sections.clone() + &route("old", &["up/m"], ""))).await;
    let mut open = open_chat(&gateway, ask_stream("old")).await;
    open.next().await.unwrap();
    let reload = gateway.reload(&(sections + &route("new", &["up/m"], ""))).await;
    assert_eq!((reload.status, reload.json()["generation"].as_u64() > Some(1)), (200, true));
    assert_eq!(chat(&gateway, ask("old")).await.json()["error"]["code"], "model_not_found");
    assert!(open.whole().await.body.ends_with(DONE.as_bytes()));
    let refused = gateway.reload("[providers.up]\nkind = \"nonsense\"\n").await;
    assert_eq!(refused.status, 400);
    assert!(chat(&gateway, ask_stream("new")).await.body.ends_with(DONE.as_bytes()));
}

#[tokio::test]
async fn an_array_that_fails_before_its_first_element_is_still_one() {
    let silent = Script::stream_head().stall();
    let upstream = Upstream::start([("m", [silent])]).await;
    let limits = r#"timeouts = { first_token = "400ms" }"#;
    let sections = provider("up", &upstream) + &route("r", &["up/m"], limits);
    let gateway = Gateway::start("keepalive = \"100ms\"", &sections).await;
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
    let path = "/v1beta/models/r:streamGenerateContent";
    let reply = post(gateway.address, path, KEY, body).await;
    assert_eq!(reply.status, 200, "the head was due before the answer");
    let array: Vec<serde_json::Value> = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(array[0]["error"]["code"], 504, "{array:?}");
}
