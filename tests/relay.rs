//! Media, scores and forms pass as they are: with keys, routing, fallback, limits and a record.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use switchpoint::canon::{Relay, Surface};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{self, Answer};
use crate::support::gateway::{KEY, provider, route};
use crate::support::tls::{Authority, SecureUpstream};
use crate::support::{Gateway, Script, Upstream, until, within};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const SPEECH: &str = "/v1/audio/speech";
const HEARD: &str = r#"{"text":"hello","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":12,"text_tokens":2},"output_tokens":4,"total_tokens":18}}"#;
const MIB: usize = 1024 * 1024;

/// The beginning of a form that asks for `model`, up to the bytes of its file.
fn form_head(model: &str) -> String {
    format!(
        "--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n\
         --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\n"
    )
}

fn form(model: &str, file: &[u8]) -> Bytes {
    [form_head(model).as_bytes(), file, b"\r\n--b1--\r\n"].concat().into()
}

async fn send_form(gateway: &Gateway, path: &str, key: &str, body: Bytes) -> Answer {
    let mut request = client::request(Method::POST, path, key, body);
    let form = HeaderValue::from_static("multipart/form-data; boundary=b1");
    request.headers_mut().insert("content-type", form);
    client::open(gateway.address, request).await.whole().await
}

/// The head of a form that is sent piece by piece.
async fn begin_form(gateway: &Gateway, length: usize) -> TcpStream {
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {KEY}\r\n\
         content-type: multipart/form-data; boundary=b1\r\ncontent-length: {length}\r\n\r\n"
    );
    client::send(gateway.address, head.as_bytes()).await
}

async fn asked(path: &str, script: Script) -> (Upstream, Gateway) {
    let upstream = Upstream::start([(path, [script])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
    (upstream, gateway)
}

#[tokio::test]
async fn a_question_in_json_goes_to_its_target_and_the_answer_is_metered() {
    let image = format!(
        r#"{{"created":1,"data":[{{"b64_json":"{}"}}],"usage":{{"input_tokens":10,"output_tokens":20,"total_tokens":30}}}}"#,
        "A".repeat(300_000)
    );
    let upstream = Upstream::start([("served", [Script::json(200, &image)])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
    let body = r#"{"prompt":"a cat", "model":"fast"}"#;
    let answer = client::post(gateway.address, "/v1/images/generations", KEY, body).await;
    assert_eq!((answer.status, answer.text()), (200, image.as_str()));
    assert_eq!(answer.header("content-length"), Some(&*image.len().to_string()));
    assert_eq!(answer.header("x-switchpoint-provider"), Some("up"));
    let request = upstream.only_request();
    assert_eq!(request.path, "/v1/images/generations");
    assert_eq!(request.text(), r#"{"prompt":"a cat", "model":"served"}"#);
    assert_eq!(request.header("authorization"), Some("Bearer sk-upstream-up"));
    let record = gateway.record().await;
    assert_eq!(record["surface"], "images");
    assert_eq!(record["outcome"], "ok");
    assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&10.into(), &20.into()));
}

#[tokio::test]
async fn sound_leaves_as_it_comes() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n";
    let script = Script::raw(head)
        .chunks(["ID3 first"])
        .wait(Duration::from_millis(500))
        .chunks([" second"])
        .end();
    let upstream = Upstream::start([("served", [script])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
    let body = r#"{"model":"fast","input":"hello there","voice":"alloy"}"#;
    let request = client::request(Method::POST, SPEECH, KEY, body.into());
    let mut answer = client::open(gateway.address, request).await;
    assert_eq!(answer.headers["content-type"], "audio/mpeg");
    let first = answer.next().await.unwrap();
    assert_eq!(&first.bytes[..], b"ID3 first");
    let second = answer.next().await.unwrap();
    assert_eq!(&second.bytes[..], b" second");
    assert!(second.at - first.at > Duration::from_millis(200));
    assert!(answer.next().await.is_none());
    let record = gateway.record().await;
    assert_eq!((&record["surface"], &record["outcome"]), (&"speech".into(), &"ok".into()));
    assert_eq!(record["usage_source"], "estimated");
}

#[tokio::test]
async fn streamed_speech_and_images_are_metered_at_their_end() {
    let speech = [
        "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\n",
        "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7,\"total_tokens\":12}}\n\n",
    ];
    let image = [
        "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"AA\"}\n\n",
        "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7,\"total_tokens\":12}}\n\n",
    ];
    for (path, body, events) in [
        (SPEECH, r#"{"model":"fast","input":"hi","stream_format":"sse"}"#, speech),
        ("/v1/images/generations", r#"{"model":"fast","prompt":"a cat","stream":true}"#, image),
    ] {
        let script = || [Script::stream(events)];
        let upstream = Upstream::start([("served", script()), ("served?stream", script())]).await;
        let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
        let answer = client::post(gateway.address, path, KEY, body).await;
        assert_eq!(answer.text(), events.concat());
        let record = gateway.record().await;
        assert_eq!(
            (&record["outcome"], &record["usage_source"]),
            (&"ok".into(), &"provider".into())
        );
        assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&5.into(), &7.into()));
    }
}

#[tokio::test]
async fn a_form_arrives_as_it_was_sent_but_for_its_model() {
    for size in [0, 100, 3 * MIB] {
        let (upstream, gateway) = asked(TRANSCRIPTIONS, Script::json(200, HEARD)).await;
        let file: Vec<u8> = (0..=250).cycle().take(size).collect();
        let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("fast", &file)).await;
        assert_eq!((answer.status, answer.text()), (200, HEARD));
        assert_eq!(answer.header("x-switchpoint-tokens"), Some("18"));
        let request = upstream.only_request();
        assert_eq!(request.header("content-type"), Some("multipart/form-data; boundary=b1"));
        assert!(request.body == form("served", &file), "{size}");
        let record = gateway.record().await;
        assert_eq!(record["surface"], "transcriptions");
        assert_eq!((&record["input_tokens"], &record["outcome"]), (&14.into(), &"ok".into()));
    }
}

#[tokio::test]
async fn the_model_may_come_behind_the_file() {
    let (upstream, gateway) = asked(TRANSCRIPTIONS, Script::json(200, HEARD)).await;
    let form = |model: &str| {
        let end = format!(
            "\r\n--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b1--\r\n"
        );
        let file = "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        Bytes::from([file.as_bytes(), &vec![7; 2 * MIB], end.as_bytes()].concat())
    };
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("fast")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(upstream.only_request().body == form("served"));
}

#[tokio::test]
async fn a_large_upload_is_passed_on_and_not_held() {
    let (upstream, gateway) = asked(TRANSCRIPTIONS, Script::json(200, HEARD)).await;
    let before = gateway.resident();
    let body = form("fast", &vec![7; 64 * MIB]);
    let sent = body.len();
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(upstream.only_request().body.len(), sent + "served".len() - "fast".len());
    let grown = gateway.peak().saturating_sub(before);
    assert!(grown < 12 * MIB, "64 MiB passed by and {grown} bytes were held");
}

#[tokio::test]
async fn another_target_takes_over_while_all_of_the_form_is_held() {
    let failing = Upstream::start([(TRANSCRIPTIONS, [Script::json(500, "{}")])]).await;
    let upstream = Upstream::start([(TRANSCRIPTIONS, [Script::json(200, HEARD)])]).await;
    let sections = [
        provider("bad", &failing),
        provider("up", &upstream),
        "[providers.chat]\nkind = \"deepseek\"\napi_key = \"sk-x\"\n\n".to_owned(),
        route("fast", &["chat/a", "bad/b", "up/c"], ""),
        route("none", &["chat/a"], ""),
    ];
    let gateway = Gateway::start("", &sections.concat()).await;
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("fast", b"RIFF")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(failing.only_request().body, form("b", b"RIFF"));
    assert_eq!(upstream.only_request().body, form("c", b"RIFF"));
    // What is longer was sent once and is gone.
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("fast", &vec![7; 2 * MIB])).await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!((failing.requests().len(), upstream.requests().len()), (2, 1));
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("none", b"RIFF")).await;
    assert_eq!((answer.status, answer.header("x-switchpoint-error")), (400, Some("unsupported")));
}

#[tokio::test]
async fn a_large_form_goes_elsewhere_when_nobody_listens() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = Upstream::start([(TRANSCRIPTIONS, [Script::json(200, HEARD)])]).await;
    let gone = format!(
        "[providers.gone]\nkind = \"openai-compatible\"\nbase_url = \"http://{nobody}/v1\"\n\n"
    );
    let sections = [gone, provider("up", &upstream), route("fast", &["gone/a", "up/b"], "")];
    let gateway = Gateway::start("", &sections.concat()).await;
    let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, form("fast", &vec![7; 3 * MIB])).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(upstream.only_request().body == form("b", &vec![7; 3 * MIB]));
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_takes_its_upload_along() {
    let (upstream, gateway) = asked(TRANSCRIPTIONS, Script::json(200, HEARD)).await;
    let mut stream = begin_form(&gateway, 64 * MIB).await;
    stream.write_all(form_head("fast").as_bytes()).await.unwrap();
    stream.write_all(&vec![7; 4 * MIB]).await.unwrap();
    until("the upload begins", || upstream.open_connections() == 1).await;
    drop(stream);
    within(Duration::from_secs(1), "it ends", || upstream.open_connections() == 0).await;
    let record = gateway.record().await;
    assert_eq!(record["outcome"], "client_closed");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_form_that_is_not_whole_is_refused_and_recorded() {
    let (upstream, gateway) = asked(TRANSCRIPTIONS, Script::json(200, HEARD)).await;
    for (count, size) in [(1, 100), (2, 3 * MIB)] {
        let whole = form("fast", &vec![7; size]);
        let cut = whole.slice(..whole.len() - 6);
        let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, cut).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains("last boundary"), "{}", answer.text());
        let records = gateway.recorded(count).await;
        assert_eq!(
            (&records[count - 1]["outcome"], &records[count - 1]["status"]),
            (&"refused".into(), &400.into())
        );
    }
    for body in ["", "--b1\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b1--"] {
        let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, body.into()).await;
        assert_eq!(answer.status, 400);
    }
    assert!(upstream.open_connections() <= 1);
}

#[tokio::test]
async fn a_refusal_before_the_end_of_an_upload_reaches_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let up = format!("[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"{base}\"\n\n");
    let gateway = Gateway::start("", &[up, route("fast", &["up/a"], "")].concat()).await;
    let mut client = begin_form(&gateway, 64 * MIB).await;
    client.write_all(form_head("fast").as_bytes()).await.unwrap();
    client.write_all(&vec![7; 2 * MIB]).await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    let mut some = vec![0; MIB];
    upstream.read_exact(&mut some).await.unwrap();
    let body = r#"{"error":{"message":"The audio is too long."}}"#;
    let head = format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    upstream.write_all(head.as_bytes()).await.unwrap();
    client::read_until(&mut client, "The audio is too long.").await;
    assert_eq!(gateway.record().await["status"], 400);
}

#[tokio::test]
async fn an_upstream_that_reads_slowly_slows_its_client() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let up = format!("[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"{base}\"\n\n");
    let limits = r#"timeouts = { idle = "1s" }"#;
    let gateway = Gateway::start("", &[up, route("fast", &["up/a"], limits)].concat()).await;
    let mut client = begin_form(&gateway, 512 * MIB).await;
    client.write_all(form_head("fast").as_bytes()).await.unwrap();
    let (_upstream, mut taken) = (listener, 0);
    let piece = vec![7; MIB];
    let before = gateway.resident();
    // Nobody reads at the other end: what is taken fills the sockets on the way and no more.
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(500), client.write(&piece)).await
    {
        taken += written.unwrap();
        assert!(taken < 64 * MIB);
    }
    assert!(gateway.peak().saturating_sub(before) < 16 * MIB);
    client::read_until(&mut client, "504").await;
    assert_eq!(gateway.record().await["outcome"], "timeout");
}

#[tokio::test]
async fn a_slow_reader_slows_its_provider_and_nothing_is_gathered() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 268435456\r\n\r\n";
    let mut script = Script::raw(head);
    for _ in 0..256 {
        script = script.then(crate::support::script::Step::Send(vec![7; MIB].into()));
    }
    let upstream = Upstream::start([("served", [script])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
    let body = r#"{"model":"fast","input":"hello there"}"#;
    let request = client::request(Method::POST, SPEECH, KEY, body.into());
    let mut answer = client::open(gateway.address, request).await;
    assert!(answer.next().await.is_some());
    let written = || upstream.connections()[0].written;
    let mut last = 0;
    while std::mem::replace(&mut last, written()) != written() {
        tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>())
            .await
            .unwrap_err();
    }
    assert!(written() < 64 * MIB, "{} bytes for a client that reads nothing", written());
    assert!(gateway.peak() < 64 * MIB + gateway.resident());
    drop(answer);
    within(Duration::from_secs(1), "it ends", || upstream.open_connections() == 0).await;
    assert_eq!(gateway.record().await["outcome"], "client_closed");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n";
    let (_upstream, gateway) = {
        let upstream =
            Upstream::start([("served", [Script::raw(head).chunks(["RIFF"]).close()])]).await;
        let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
        (upstream, gateway)
    };
    let body = r#"{"model":"fast","input":"x"}"#;
    let wire = format!(
        "POST {SPEECH} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = client::raw(gateway.address, wire.as_bytes()).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("RIFF") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_eq!(gateway.record().await["outcome"], "upstream_truncated");
}

#[tokio::test]
async fn uploads_pass_over_tls_and_http2_alike_and_end_with_their_client() {
    let authority = Authority::new();
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let upstream = SecureUpstream::start(&authority, protocols).await;
        let section = upstream.section(&authority.path("ca.pem"), "");
        let gateway = Gateway::start("", &[section, route("fast", &["up/b"], "")].concat()).await;
        let body = form("fast", &vec![7; 9 * MIB]);
        let answer = send_form(&gateway, TRANSCRIPTIONS, KEY, body.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(upstream.sizes(), [Some(body.len() - "fast".len() + "b".len())]);
        let mut stream = begin_form(&gateway, 64 * MIB).await;
        stream.write_all(&body).await.unwrap();
        drop(stream);
        within(Duration::from_secs(1), "it ends", || upstream.sizes().len() == 2).await;
        assert_eq!(upstream.sizes()[1], None);
        assert_eq!(gateway.recorded(2).await[1]["outcome"], "client_closed");
    }
}

#[tokio::test]
async fn a_form_of_unknown_length_passes_too() {
    let authority = Authority::new();
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let upstream = SecureUpstream::start(&authority, protocols).await;
        let section = upstream.section(&authority.path("ca.pem"), "");
        let gateway =
            Gateway::start("", &[section, route("fast", &["up/served"], "")].concat()).await;
        let mut stream = client::send(
            gateway.address,
            format!(
                "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\
                 content-type: multipart/form-data; boundary=b1\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .as_bytes(),
        )
        .await;
        for piece in form("fast", &vec![7; 3 * MIB]).chunks(100_000) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
            stream.write_all(piece).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        client::read_until(&mut stream, "Hello there.").await;
        assert_eq!(upstream.sizes(), [Some(form("served", &vec![7; 3 * MIB]).len())]);
    }
}

const FILE: &str = r#"{"id":"file-1","object":"file","bytes":4,"created_at":1,"filename":"a.jsonl","purpose":"batch"}"#;

fn batch(status: &str, output: &str) -> Script {
    let body = format!(
        r#"{{"id":"batch_1","object":"batch","status":"{status}","input_file_id":"file-1","output_file_id":{output}}}"#
    );
    Script::json(200, &body)
}

async fn call(gateway: &Gateway, method: Method, path: &str, key: &str, body: &str) -> Answer {
    let request = client::request(method, path, key, Bytes::copy_from_slice(body.as_bytes()));
    client::open(gateway.address, request).await.whole().await
}

async fn shelves() -> (Upstream, Gateway) {
    let content = Script::reply(
        200,
        &[("content-type", "application/octet-stream"), ("content-disposition", "attachment")],
        "{}\n",
    );
    let deleted = Script::json(200, r#"{"id":"file-1","object":"file","deleted":true}"#);
    let upstream = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("/v1/files/file-1", vec![Script::json(200, FILE), deleted]),
        ("/v1/files/file-1/content", vec![content.clone()]),
        ("/v1/files/file-2/content", vec![content]),
        ("/v1/batches", vec![batch("validating", "null")]),
        ("/v1/batches/batch_1", vec![batch("completed", "\"file-2\"")]),
        ("/v1/batches/batch_1/cancel", vec![batch("cancelling", "null")]),
    ])
    .await;
    let other = "[keys.other]\nsecret = \"sk-other\"\n\n[keys.narrow]\nsecret = \"sk-narrow\"\nroutes = [\"fast\"]\n";
    let gateway =
        Gateway::before(&upstream, &[&route("fast", &["up/x"], ""), other].concat()).await;
    (upstream, gateway)
}

fn file_form() -> Bytes {
    let head = "--b1\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
        --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n\
        {\"custom_id\":\"a\",\"body\":{\"model\":\"x\"}}\n";
    format!("{head}\r\n--b1--\r\n").into()
}

#[tokio::test]
async fn files_and_batches_are_made_looked_at_and_deleted() {
    let (upstream, gateway) = shelves().await;
    let answer = send_form(&gateway, "/v1/files", KEY, file_form()).await;
    assert_eq!((answer.status, answer.text()), (200, FILE));
    assert_eq!(upstream.requests()[0].body, file_form());
    let get = |path| call(&gateway, Method::GET, path, KEY, "");
    assert_eq!(get("/v1/files/file-1").await.text(), FILE);
    let content = get("/v1/files/file-1/content").await;
    assert_eq!(
        (content.text(), content.header("content-disposition")),
        ("{}\n", Some("attachment"))
    );
    let list = get("/v1/files?purpose=batch&limit=5").await.json();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&"file-1".into(), &false.into()));
    assert_eq!(get("/v1/files?purpose=vision").await.json()["data"].as_array().unwrap().len(), 0);
    assert_eq!(get("/v1/files?after=file-1").await.json()["data"].as_array().unwrap().len(), 0);

    let body =
        r#"{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}"#;
    let made = call(&gateway, Method::POST, "/v1/batches", KEY, body).await;
    assert_eq!(made.json()["status"], "validating", "{}", made.text());
    assert_eq!(get("/v1/batches").await.json()["data"][0]["status"], "validating");
    assert_eq!(get("/v1/files/file-2/content").await.status, 404);
    assert_eq!(get("/v1/batches/batch_1").await.json()["status"], "completed");
    assert_eq!(get("/v1/batches").await.json()["data"][0]["status"], "completed");
    // What a batch has made belongs to whose batch it is.
    assert_eq!(get("/v1/files/file-2/content").await.status, 200);
    let cancelled = call(&gateway, Method::POST, "/v1/batches/batch_1/cancel", KEY, "").await;
    assert_eq!(cancelled.json()["status"], "cancelling");

    let deleted = call(&gateway, Method::DELETE, "/v1/files/file-1", KEY, "").await;
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(get("/v1/files/file-1").await.status, 404);
    let records = gateway.recorded(15).await;
    let count =
        |surface: &str| records.iter().filter(|record| record["surface"] == surface).count();
    assert_eq!((count("files"), count("batches")), (10, 5));
}

#[tokio::test]
async fn what_belongs_to_another_key_cannot_be_told_from_what_is_not_there() {
    let (upstream, gateway) = shelves().await;
    assert_eq!(send_form(&gateway, "/v1/files", KEY, file_form()).await.status, 200);
    let batch = r#"{"input_file_id":"file-1"}"#;
    assert_eq!(call(&gateway, Method::POST, "/v1/batches", KEY, batch).await.status, 200);
    let asked = upstream.requests().len();
    for (method, path, body) in [
        (Method::GET, "/v1/files/file-1", ""),
        (Method::DELETE, "/v1/files/file-1", ""),
        (Method::GET, "/v1/files/file-1/content", ""),
        (Method::GET, "/v1/files?after=file-1", ""),
        (Method::GET, "/v1/batches/batch_1", ""),
        (Method::POST, "/v1/batches/batch_1/cancel", ""),
        (Method::POST, "/v1/batches", batch),
    ] {
        let theirs = call(&gateway, method.clone(), path, "sk-other", body).await;
        let swap = |text: &str| text.replace("file-1", "file-9").replace("batch_1", "batch_9");
        let nothing = call(&gateway, method, &swap(path), "sk-other", &swap(body)).await;
        assert_eq!((theirs.status, nothing.status), (404, 404), "{path}");
        assert_eq!(swap(theirs.text()), nothing.text());
    }
    let list = call(&gateway, Method::GET, "/v1/files", "sk-other", "").await;
    assert_eq!(list.json()["data"].as_array().unwrap().len(), 0);
    assert_eq!(upstream.requests().len(), asked);
    let narrow = send_form(&gateway, "/v1/files", "sk-narrow", file_form()).await;
    assert_eq!(narrow.header("x-switchpoint-error"), Some("unsupported"), "{}", narrow.text());
}

#[tokio::test]
async fn where_several_providers_keep_files_the_question_says_which() {
    let first = Upstream::start([("/v1/files", [Script::json(200, FILE)])]).await;
    let second = Upstream::start([("/v1/files", [Script::json(200, FILE)])]).await;
    let sections = [provider("one", &first), provider("two", &second)].concat();
    let gateway = Gateway::start("", &sections).await;
    let answer = send_form(&gateway, "/v1/files", KEY, file_form()).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("`one`, `two`"), "{}", answer.text());
    let answer = send_form(&gateway, "/v1/files?provider=three", KEY, file_form()).await;
    assert_eq!((answer.status, answer.header("x-switchpoint-error")), (400, Some("unsupported")));
    assert_eq!(send_form(&gateway, "/v1/files?provider=two", KEY, file_form()).await.status, 200);
    assert_eq!((first.requests().len(), second.requests().len()), (0, 1));
}

#[tokio::test]
async fn every_door_leaves_a_record() {
    let upstream = Upstream::start([("x", [Script::json(200, "{}")])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/x"], "")).await;
    let body = r#"{"model":"fast"}"#;
    let mut count = 0;
    for relay in Relay::all() {
        let path = format!("/v1{}", relay.path().replace("{id}", "x"));
        let method = Method::from_bytes(relay.method().as_bytes()).unwrap();
        call(&gateway, method, &path, KEY, body).await;
        count += 1;
        let record = gateway.recorded(count).await.pop().unwrap();
        assert_eq!(
            (&record["surface"], &record["key"]),
            (&relay.surface().name().into(), &"test".into())
        );
    }
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
        "/v1/explain",
        "/v1beta/models/fast:generateContent",
        "/v1beta/models/fast:countTokens",
    ] {
        call(&gateway, Method::POST, path, KEY, body).await;
    }
    let records = gateway.recorded(count + 11).await;
    // Runs of agents, their turns and tools have doors of another kind.
    let inner = [Surface::Run, Surface::Turn, Surface::Tool];
    let doors = Surface::ALL.iter().filter(|it| !inner.contains(it));
    for surface in doors {
        assert!(records.iter().any(|record| record["surface"] == surface.name()), "{surface:?}");
    }
}

#[tokio::test]
async fn the_official_sdk_relays_unmodified() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDK was not asked to run");
        return;
    }
    let speech = [
        "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\n",
        "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7,\"total_tokens\":12}}\n\n",
    ];
    let reply = |body: &str| vec![Script::json(200, body)];
    let upstream = Upstream::start([
        ("image", reply(r#"{"created":1,"data":[{"b64_json":"AAAA"}]}"#)),
        ("speech", vec![Script::reply(200, &[("content-type", "audio/mpeg")], vec![7; 300_000])]),
        ("speech-sse", vec![Script::stream(speech)]),
        ("moderate", reply(r#"{"id":"modr-1","model":"x","results":[{"flagged":true,"categories":{},"category_scores":{},"category_applied_input_types":{}}]}"#)),
        (TRANSCRIPTIONS, reply(HEARD)),
        ("/v1/images/edits", reply(r#"{"created":1,"data":[{"b64_json":"BBBB"}]}"#)),
        ("/v1/files", reply(FILE)),
        ("/v1/files/file-1", vec![Script::json(200, FILE), Script::json(200, r#"{"id":"file-1","object":"file","deleted":true}"#)]),
        ("/v1/files/file-1/content", vec![Script::reply(200, &[("content-type", "application/octet-stream")], "{}\n")]),
        ("/v1/batches", vec![batch("validating", "null")]),
        ("/v1/batches/batch_1", vec![batch("completed", "\"file-2\"")]),
        ("/v1/batches/batch_1/cancel", vec![batch("cancelling", "null")]),
    ])
    .await;
    let names = ["image", "speech", "speech-sse", "moderate", "hear"];
    let routes: String = names.map(|name| route(name, &[&format!("up/{name}")], "")).concat();
    let gateway = Gateway::before(&upstream, &routes).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/relay.sh");
    let mut command = Command::new(script);
    command.env("SWITCHPOINT_URL", gateway.base()).env("SWITCHPOINT_KEY", KEY);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}", said.concat());
    assert!(output.status.success(), "the SDK broke a promise");
}
