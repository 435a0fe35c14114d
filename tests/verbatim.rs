//! What the gateway need not change it does not: requests, answers, and streams however cut.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use switchpoint::dialect::openai::{DONE, Tap};
use switchpoint::dialect::passage::Verdict;
use switchpoint::dialect::sse::{Decoder, Frame};

use crate::support::client::{self, CHAT, chat, open, post};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{REPLY, answer, ask, ask_stream, role, shown, word};
use crate::support::{Gateway, Script, Upstream};

/// A request with everything that a rewriting gateway would spoil.
const ODD: &str = "  {\n\t\"z_unknown\" : [1.0, 1e5, -0, 12345678901234567890, \"\\u00e9\\/\"],\r\n \
    \"messages\":[ {\"role\":\"user\",\"content\":\"日本 😀 \\ud83d\\ude00 \\\"model\\\":\\\"x\\\"\", \"model\":\"inner\"} ],\n\
    \"model\" :  \"up/m\"  ,\"a\":{\"b\":{},\"a\":null}, \"stream_options\":{\"include_usage\":true,\"x\":[]}, \
    \"temperature\":1.10,\"stream\": STREAM }\n ";

fn fixtures(folder: &str) -> Vec<(String, Vec<u8>)> {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(base).unwrap().map(|entry| entry.unwrap().path()) {
        let path = if entry.is_dir() { entry.join("stream.sse") } else { entry };
        if path.extension().is_some_and(|extension| extension == "sse") {
            files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    files.sort();
    assert!(files.len() > 20, "where are the streams?");
    files
}

fn stream_fixture(name: &str) -> Vec<u8> {
    fixtures("streams").into_iter().find(|(path, _)| path.ends_with(name)).unwrap().1
}

/// What a client is given of a stream that arrives in these pieces.
fn relayed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, withhold_usage: bool) -> Vec<u8> {
    let (mut decoder, mut tap) = (Decoder::default(), Tap::new(1, withhold_usage));
    let mut output = Vec::new();
    let mut look = |decoder: &mut Decoder, frame: &Frame, end: &[u8]| {
        let verdict = tap.inspect(decoder, frame);
        let event = decoder.take(frame.range.end);
        match verdict {
            Verdict::Forward | Verdict::Failed => output.extend_from_slice(&[&event, end].concat()),
            Verdict::Replace(other) => output.extend_from_slice(&[&other, end].concat()),
            Verdict::Drop => {}
        }
    };
    for piece in pieces {
        decoder.buffer().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame() {
            look(&mut decoder, &frame, b"");
        }
    }
    if let Some(frame) = decoder.last_frame() {
        look(&mut decoder, &frame, b"\n\n");
    }
    output
}

fn with_line_ends(stream: &[u8], end: &str) -> Vec<u8> {
    String::from_utf8(stream.to_vec())
        .unwrap()
        .replace("\r\n", "\n")
        .replace('\n', end)
        .into_bytes()
}

#[test]
fn a_stream_cut_at_any_byte_gives_the_same_bytes() {
    for (path, stream) in fixtures("streams") {
        let whole = relayed([&stream[..]], true);
        let step = if stream.len() > 10_000 { 997 } else { 1 };
        for cut in (0..stream.len()).step_by(step) {
            let (left, right) = stream.split_at(cut);
            assert!(relayed([left, right], true) == whole, "{path}: cut at {cut}");
        }
    }
}

#[test]
fn a_stream_that_arrives_byte_by_byte_gives_the_same_bytes() {
    for (path, stream) in fixtures("streams").into_iter().chain(fixtures("providers")) {
        for withhold in [true, false] {
            let whole = relayed([&stream[..]], withhold);
            for size in [1, 2, 3, 7, 64] {
                assert!(relayed(stream.chunks(size), withhold) == whole, "{path}: by {size}");
            }
        }
    }
}

#[test]
fn line_ends_and_byte_order_marks_change_nothing_else() {
    for (path, stream) in fixtures("streams").into_iter().chain(fixtures("providers")) {
        let plain = with_line_ends(&stream, "\n");
        if plain.contains(&b'\r') {
            continue;
        }
        let expected = relayed([&plain[..]], true);
        for end in ["\n", "\r\n", "\r"] {
            let other = with_line_ends(&plain, end);
            let marked =
                [b"\xEF\xBB\xBF", other.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&other)].concat();
            for stream in [&other, &marked] {
                let output = relayed(stream.chunks(1), true);
                let output =
                    String::from_utf8(output).unwrap().replace("\r\n", "\n").replace('\r', "\n");
                // What lacks its last empty line is given one in the plain form.
                let (output, expected) =
                    (output.trim_end(), str::from_utf8(&expected).unwrap().trim_end());
                assert!(output == expected, "{path} with {end:?}:\n{output}");
            }
        }
    }
}

#[test]
fn ordinary_streams_pass_untouched_and_odd_ones_keep_their_events() {
    for (path, stream) in fixtures("streams") {
        let output = String::from_utf8(relayed([&stream[..]], false)).unwrap();
        let lines = output.split(['\n', '\r']);
        for line in lines.filter(|line| !line.is_empty()) {
            assert!(!line.starts_with("id") && !line.starts_with(':'), "{path}: {line}");
            assert!(str::from_utf8(&stream).unwrap().contains(line), "{path}: {line} is not in it");
        }
        let plain = !["bom", "comments", "empty", "id_", "colon", "cut_mid", "error_"]
            .iter()
            .any(|odd| path.contains(odd));
        assert!(
            !plain || output.trim_end().as_bytes() == stream.trim_ascii_end(),
            "{path}: is not as it was:\n{output}"
        );
    }
}

#[tokio::test]
async fn a_stream_in_any_chunking_reaches_the_client_in_the_same_bytes() {
    let names = [
        "cjk_emoji",
        "comments",
        "id_lines",
        "crlf",
        "cr",
        "bom",
        "multiline_data",
        "empty_data",
        "data_colon_x",
        "usage_before_finish",
    ];
    for name in names {
        let stream = stream_fixture(&format!("/{name}.sse"));
        let expected = relayed([&stream[..]], true);
        let cuts = (1..stream.len()).step_by(stream.len() / 12);
        let mut scripts: Vec<_> =
            cuts.map(|cut| Script::stream([&stream[..cut], &stream[cut..]])).collect();
        scripts.push(Script::stream(stream.chunks(1)));
        scripts.push(Script::stream([&stream]));
        let calls = scripts.len();
        let upstream = Upstream::start([("m", scripts)]).await;
        let gateway = Gateway::before(&upstream, "").await;
        for call in 0..calls {
            let reply = chat(&gateway, ask_stream("up/m")).await;
            assert!(reply.body == expected, "{name}, {call}:\n{}", reply.text());
        }
        let records = gateway.stop();
        assert!(
            records.iter().all(|record| record["outcome"] == "ok" && record["input_tokens"] == 11),
            "{name}: {records:#?}"
        );
    }
}

#[tokio::test]
async fn a_request_reaches_the_upstream_byte_for_byte_but_for_its_model() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, stream) in ["false", "true"].into_iter().enumerate() {
        let body = ODD.replace("STREAM", stream);
        chat(&gateway, body.clone()).await;
        let request = upstream.requests()[place].clone();
        assert_eq!(request.text(), body.replace("\"up/m\"", "\"m\""));
        assert_eq!(request.path, CHAT);
        assert_eq!(request.header("content-length"), Some(&*request.body.len().to_string()));
    }
}

#[tokio::test]
async fn an_answer_reaches_the_client_byte_for_byte_on_every_surface() {
    let odd = " {\"x\" : 1.0, \"choices\" : [ 1e0], \"data\": [{ } ],\"usage\":{\"prompt_tokens\":3,\"total_tokens\":3}, \"object\":\"new\",\n\"y\":\"\\u00e9\"}\n";
    let upstream = Upstream::start([("m", [Script::json(200, odd)])]).await;
    let sections = provider("up", &upstream).replace("openai-compatible", "vllm");
    let gateway = Gateway::start("", &sections).await;
    for path in [CHAT, "/v1/completions", "/v1/embeddings"] {
        let reply = post(gateway.address, path, KEY, r#"{"model":"up/m","input":"x"}"#).await;
        assert_eq!((reply.status, reply.text()), (200, odd), "{path}");
        assert_eq!(reply.header("x-switchpoint-tokens"), Some("3"));
    }
    let paths: Vec<_> = upstream.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, [CHAT, "/v1/completions", "/v1/embeddings"]);
}

#[tokio::test]
async fn usage_is_asked_for_in_the_clients_stead_and_kept_from_it() {
    let upstream = Upstream::start([("m", [Script::stream(answer())])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    assert_eq!(reply.text(), shown());
    let request = upstream.only_request();
    let added = r#","stream_options":{"include_usage":true}}"#;
    let plain = ask_stream("m");
    assert_eq!(request.text(), format!("{}{added}", plain.strip_suffix('}').unwrap()));
    let record = gateway.record().await;
    assert_eq!(
        (&record["input_tokens"], &record["usage_source"]),
        (&11.into(), &"provider".into())
    );
}

#[tokio::test]
async fn a_client_that_asks_for_usage_gets_it_and_its_request_stays_as_it_is() {
    let upstream = Upstream::start([("m", [Script::stream(answer())])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let body = |model: &str| {
        format!(r#"{{"stream_options":{{"include_usage":true}},"model":"{model}","stream":true}}"#)
    };
    assert_eq!(chat(&gateway, body("up/m")).await.text(), answer().concat());
    assert_eq!(upstream.only_request().text(), body("m"));
}

#[tokio::test]
async fn a_provider_that_refuses_stream_options_never_sees_them() {
    let upstream = Upstream::start([("m", [Script::stream(answer())])]).await;
    let sections = provider("up", &upstream).replace("openai-compatible", "mistral");
    let gateway = Gateway::start("", &sections).await;
    let asked = r#"{"model":"up/m","stream_options":{"include_usage":true},"stream":true}"#;
    for body in [ask_stream("up/m"), asked.to_owned()] {
        // Its usage came unasked; it stays where the provider put it.
        assert_eq!(chat(&gateway, body).await.text(), answer().concat());
    }
    for request in upstream.requests() {
        assert!(!request.text().contains("stream_options"), "{}", request.text());
        serde_json::from_slice::<Value>(&request.body).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_turns_out_to_refuse_stream_options_is_asked_without_and_then_spared() {
    let refusal = r#"{"detail":"stream_options: extra fields not permitted"}"#;
    let upstream =
        Upstream::start([("m", [Script::json(422, refusal), Script::stream(answer())])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    for _ in 0..2 {
        let reply = chat(&gateway, ask_stream("up/m")).await;
        assert_eq!((reply.status, reply.header("x-switchpoint-attempts")), (200, Some("1")));
    }
    let asked: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.text().contains("stream_options"))
        .collect();
    assert_eq!(asked, [true, false, false]);
}

#[tokio::test]
async fn nothing_of_the_clients_credentials_reaches_the_upstream() {
    let reply = Script::reply(
        200,
        &[("content-type", "application/json"), ("set-cookie", "a=b"), ("server", "x")],
        REPLY,
    );
    let upstream = Upstream::start([("m", [reply])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let mut request = client::request(Method::POST, CHAT, KEY, Bytes::from(ask("up/m")));
    for name in [
        "cookie",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "proxy-authorization",
        "x-forwarded-for",
        "x-stainless-os",
        "openai-organization",
    ] {
        request.headers_mut().insert(name, KEY.parse().unwrap());
    }
    request.headers_mut().insert("traceparent", "00-1-2-01".parse().unwrap());
    let reply = open(gateway.address, request).await.whole().await;
    assert_eq!(reply.text(), REPLY);
    assert_eq!((reply.header("set-cookie"), reply.header("server")), (None, None));
    let request = upstream.only_request();
    let names: BTreeSet<_> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "accept-encoding",
        "authorization",
        "cdn-loop",
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "user-agent",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    assert_eq!(request.header("authorization"), Some("Bearer sk-upstream-up"));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("host"), Some(&*upstream.address.to_string()));
    assert!(!format!("{request:?}").contains(KEY));
}

#[tokio::test]
async fn an_answer_compressed_without_being_asked_is_unpacked_once() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let head = |kind| [("content-type", kind), ("content-encoding", "gzip")];
    let upstream = Upstream::start([
        ("whole", [Script::reply(200, &head("application/json"), gzip(REPLY))]),
        ("stream", [Script::reply(200, &head("text/event-stream"), gzip(&answer().concat()))]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (body, expected) in
        [(ask("up/whole"), REPLY.to_owned()), (ask_stream("up/stream"), shown())]
    {
        let reply = chat(&gateway, body).await;
        assert_eq!((reply.text(), reply.header("content-encoding")), (&*expected, None));
    }
    let records = gateway.stop();
    assert!(records.iter().all(|record| record["output_tokens"] == 4), "{records:#?}");
}

#[tokio::test]
async fn a_body_sent_in_chunks_arrives_whole_and_invalid_ones_are_refused_clearly() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let body = ask("up/m");
    let chunk = |byte: &[u8]| [b"1\r\n", byte, b"\r\n"].concat();
    let chunks = String::from_utf8(body.as_bytes().chunks(1).flat_map(chunk).collect()).unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n"
    );
    let reply = client::raw(
        gateway.address,
        format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(reply.ends_with(REPLY.as_bytes()), "{}", String::from_utf8_lossy(&reply));
    assert_eq!(upstream.only_request().text(), ask("m"));
    for (body, word) in [
        (r#"{"model":"up/m","model":"up/n"}"#, "model"),
        (r#"{"model":"up/m""#, ""),
        (r#"{"messages":[]}"#, "model"),
        (r#"{"model":7}"#, "model"),
        ("", ""),
        ("[]", ""),
    ] {
        let reply = chat(&gateway, body).await;
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["code"]), (400, &"invalid_request".into()), "{body}");
        assert!(error["message"].as_str().unwrap().contains(word), "{body}: {error}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn an_event_that_makes_no_sense_is_skipped_and_the_rest_passes() {
    let bad = "data: {\"choices\":[{]}\n\n".to_owned();
    let pieces = [role(), bad.clone(), word("a")].into_iter().chain(answer().split_off(3));
    let upstream = Upstream::start([("m", [Script::stream(pieces.collect::<Vec<_>>())])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    assert!(!reply.text().contains(&bad) && reply.text().contains(&word("a")));
    assert!(reply.body.ends_with(DONE));
}

#[tokio::test]
async fn calls_without_signatures_pass_to_models_that_want_none() {
    let answer = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#;
    let models = ["gemini-2.5-flash", "gemini-3-flash-preview"];
    let upstream = Upstream::start(models.map(|model| (model, [Script::json(200, answer)]))).await;
    let google = provider("google", &upstream).replace("openai-compatible", "gemini");
    let sections = [google.replace("/v1\"", "\""), provider("up", &upstream)].concat();
    let gateway = Gateway::start("", &sections).await;
    let body = r#"{"contents": [{"role": "user", "parts": [{"text": "hi"}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "ok"}}}]}]}"#;
    for model in models {
        let path = format!("/v1beta/models/google/{model}:generateContent");
        let reply = post(gateway.address, &path, KEY, body.to_owned()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let asked = upstream.requests().pop().unwrap();
        assert_eq!(asked.text() == body, model == models[0], "{}", asked.text());
        // What the tool said keeps its name in any case.
        let asked: Value = serde_json::from_slice(&asked.body).unwrap();
        let result = &asked["contents"][2]["parts"][0]["functionResponse"]["response"];
        assert_eq!(*result, json!({"result": "ok"}), "{asked}");
    }
}

#[tokio::test]
async fn calls_of_mistrals_say_their_type_to_clients() {
    let call = r#"{"id":"abcdefghi","function":{"name":"f","arguments":"{}"},"index":0}"#;
    let calls = format!(
        r#"{{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"finish_reason":"tool_calls","message":{{"role":"assistant","content":"","tool_calls":[{call}]}}}}]}}"#
    );
    let upstream = Upstream::start([("m", [Script::json(200, &calls)])]).await;
    let mistral = provider("up", &upstream).replace("openai-compatible", "mistral");
    let gateway = Gateway::start("", &mistral).await;
    let reply = chat(&gateway, ask("up/m")).await.json();
    let mut expected: Value = serde_json::from_str(&calls).unwrap();
    expected["choices"][0]["message"]["tool_calls"][0]["type"] = json!("function");
    assert_eq!(reply, expected);
}
