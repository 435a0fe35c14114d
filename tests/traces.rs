//! One trace a call, with each attempt as a span below it, told to a collector that no call waits
//! for.

use bytes::Bytes;
use http::{HeaderValue, Method};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{self, CHAT, chat, open, request};
use crate::support::collector::{Collector, Mood, attribute};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{REPLY, answer, ask, ask_stream};
use crate::support::{Gateway, Script, Upstream, until};

const DOWN: &str = r#"{"error":{"message":"Out of order","type":"server_error"}}"#;
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A gateway with a target that fails, one that answers, and a collector.
async fn house(collector: &Collector, more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|request| match &*request.model {
        "dead" => Script::json(503, DOWN),
        _ if request.variant.contains("stream") => Script::stream(answer()),
        _ => Script::json(200, REPLY),
    })
    .await;
    let sections = provider("up", &upstream)
        + "[models.\"up/good\"]\nprice = { input = 1.0, output = 2.0 }\n\n"
        + &route("safe", &["up/dead", "up/good"], "")
        + &route("plain", &["up/good"], "")
        + &collector.section(more);
    (upstream, Gateway::start("", &sections).await)
}

/// A chat whose client stands in a trace.
async fn traced(gateway: &Gateway, body: String, parent: &str, state: &[&str]) -> client::Answer {
    let mut request = request(Method::POST, CHAT, KEY, Bytes::from(body));
    request.headers_mut().insert("traceparent", HeaderValue::from_str(parent).unwrap());
    for state in state {
        request.headers_mut().append("tracestate", HeaderValue::from_str(state).unwrap());
    }
    open(gateway.address, request).await.whole().await
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn told(span: &Span, name: &str) -> String {
    attribute(&span.attributes, name).unwrap_or_default()
}

/// The call's own span, and those of its attempts in the order in which they left.
fn parted(spans: &[Span]) -> (Span, Vec<Span>) {
    let (calls, mut attempts): (Vec<Span>, Vec<Span>) =
        spans.iter().cloned().partition(|span| span.kind == SpanKind::Server as i32);
    assert_eq!(calls.len(), 1, "{spans:#?}");
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    (calls[0].clone(), attempts)
}

#[tokio::test]
async fn a_call_is_one_trace_with_its_attempts_below() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(Mood::Takes).await;
        let (upstream, gateway) = house(&collector, &format!("protocol = {protocol:?}")).await;
        let answer = chat(&gateway, ask("safe")).await;
        assert_eq!(answer.status, 200);
        let spans = collector.collected(3).await;
        let (call, attempts) = parted(&spans);
        assert_eq!(attempts.len(), 2);
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(hex(&call.trace_id), id.replace('-', ""), "one leads to the other");
        assert_eq!(call.parent_span_id, b"");
        assert_eq!(call.name, "chat safe");
        assert_eq!(told(&call, "switchpoint.call.id"), id);
        assert_eq!(told(&call, "switchpoint.attempts"), "2");
        assert_eq!(told(&call, "switchpoint.outcome"), "ok");
        assert_eq!(told(&call, "switchpoint.key"), "test");
        assert!(call.status.is_none());
        for (attempt, request) in attempts.iter().zip(upstream.requests()) {
            assert_eq!(attempt.trace_id, call.trace_id);
            assert_eq!(attempt.parent_span_id, call.span_id);
            assert_eq!(attempt.kind, SpanKind::Client as i32);
            assert!(attempt.start_time_unix_nano >= call.start_time_unix_nano);
            assert!(attempt.end_time_unix_nano <= call.end_time_unix_nano);
            let sent = format!("00-{}-{}-01", hex(&call.trace_id), hex(&attempt.span_id));
            assert_eq!(request.header("traceparent"), Some(&*sent), "its own span is sent");
        }
        let [dead, good] = &attempts[..] else { unreachable!() };
        assert_ne!(dead.span_id, good.span_id);
        assert_eq!((&*dead.name, &*good.name), ("chat dead", "chat good"));
        assert_eq!(told(dead, "error.type"), "upstream_error");
        assert_eq!(told(dead, "http.response.status_code"), "503");
        assert_eq!(dead.status.as_ref().unwrap().code, 2);
        for (name, value) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "openai-compatible"),
            ("gen_ai.request.model", "good"),
            ("gen_ai.usage.input_tokens", "11"),
            ("gen_ai.usage.output_tokens", "4"),
            ("gen_ai.usage.cost", "0.000019"),
            ("switchpoint.provider", "up"),
        ] {
            assert_eq!(told(good, name), value, "{name}");
        }
        let export = &collector.exports()[0];
        let path = if protocol == "http" {
            "/v1/traces"
        } else {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        };
        assert_eq!(export.path, path);
        let of_process = &export.resource.attributes;
        assert_eq!(attribute(of_process, "service.name").unwrap(), "switchpoint");
    }
}

#[tokio::test]
async fn a_call_stands_in_its_clients_trace_and_hands_its_state_on() {
    let collector = Collector::start(Mood::Takes).await;
    let (upstream, gateway) = house(&collector, "").await;
    let answer = traced(&gateway, ask_stream("plain"), PARENT, &["congo=t61", "rojo=1"]).await;
    assert_eq!(answer.status, 200);
    let (call, attempts) = parted(&collector.collected(2).await);
    assert_eq!(hex(&call.trace_id), TRACE);
    assert_eq!(hex(&call.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(call.trace_state, "congo=t61,rojo=1");
    assert_eq!(call.flags & 0x300, 0x300, "its parent is remote");
    assert_eq!(attempts[0].flags & 0x300, 0x100, "an attempt's is not");
    assert_eq!(told(&attempts[0], "gen_ai.request.stream"), "true");
    assert!(!told(&attempts[0], "gen_ai.response.time_to_first_chunk").is_empty());
    let sent = upstream.only_request();
    assert_eq!(
        sent.header("traceparent"),
        Some(&*format!("00-{TRACE}-{}-01", hex(&attempts[0].span_id)))
    );
    assert_eq!(sent.header("tracestate"), Some("congo=t61,rojo=1"));
}

#[tokio::test]
async fn what_the_caller_left_out_is_left_out_unless_it_went_wrong() {
    let collector = Collector::start(Mood::Takes).await;
    let (upstream, gateway) = house(&collector, "").await;
    let unsampled = PARENT.replace("-01", "-00");
    assert_eq!(traced(&gateway, ask("plain"), &unsampled, &[]).await.status, 200);
    assert_eq!(traced(&gateway, ask("up/dead"), &unsampled, &[]).await.status, 503);
    let (call, _) = parted(&collector.collected(2).await);
    assert_eq!(call.name, "chat direct");
    assert!(upstream.requests()[0].header("traceparent").unwrap().ends_with("-00"));
}

#[tokio::test]
async fn a_sample_holds_for_a_route_and_errors_and_slow_calls_are_kept() {
    let collector = Collector::start(Mood::Takes).await;
    let more = "sample = 0\nroutes = { plain = 1.0 }\nslow = \"1h\"";
    let (_upstream, gateway) = house(&collector, more).await;
    chat(&gateway, ask("up/good")).await;
    chat(&gateway, ask("up/dead")).await;
    chat(&gateway, ask("plain")).await;
    let named = |name: &str| collector.spans().iter().filter(|span| span.name == name).count();
    until("the last call is there", || named("chat plain") == 1).await;
    assert_eq!((named("chat direct"), named("chat good")), (1, 1));
    assert!(named("chat dead") >= 1);
    let slow = Collector::start(Mood::Takes).await;
    let (_upstream, gateway) = house(&slow, "sample = 0\nslow = \"1ms\"").await;
    chat(&gateway, ask("up/good")).await;
    assert_eq!(slow.collected(2).await.len(), 2);
}

#[tokio::test]
async fn a_number_of_a_dashboard_leads_to_a_trace() {
    let collector = Collector::start(Mood::Takes).await;
    let (_upstream, gateway) = house(&collector, "").await;
    chat(&gateway, ask("plain")).await;
    let (call, _) = parted(&collector.collected(2).await);
    let line = gateway.record().await;
    assert_eq!(line["trace_id"], hex(&call.trace_id), "and the log does");
    let mut scrape = request(Method::GET, "/metrics", "", Bytes::new());
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3";
    scrape.headers_mut().insert("accept", HeaderValue::from_static(accept));
    let answer = open(gateway.admin, scrape).await.whole().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.headers["content-type"], kind);
    let example = format!("# {{trace_id=\"{}\"}}", hex(&call.trace_id));
    for name in ["switchpoint_request_seconds", "switchpoint_first_token_seconds"] {
        let of =
            |line: &&str| line.starts_with(&format!("{name}_bucket")) && line.contains(&example);
        assert_eq!(answer.text().lines().filter(of).count(), 1, "{name}");
    }
    let plain = client::get(gateway.admin, "/metrics", "").await;
    assert!(!plain.text().contains(" # {"));
}

#[tokio::test]
async fn headers_compression_and_resource_are_as_configured() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(Mood::Takes).await;
        let more = format!(
            "protocol = {protocol:?}\ncompression = \"gzip\"\nattributes = \"openinference\"\n\
             headers = {{ authorization = \"Basic c2VjcmV0\", x-langfuse-ingestion-version = \"4\" }}\n\
             resource = {{ \"service.name\" = \"gateway-eu\", \"openinference.project.name\" = \"chat\" }}"
        );
        let (_upstream, gateway) = house(&collector, &more).await;
        chat(&gateway, ask("plain")).await;
        let (call, attempts) = parted(&collector.collected(2).await);
        let export = &collector.exports()[0];
        assert_eq!(export.headers["authorization"], "Basic c2VjcmV0");
        assert_eq!(export.headers["x-langfuse-ingestion-version"], "4");
        let of_process = &export.resource.attributes;
        assert_eq!(attribute(of_process, "service.name").unwrap(), "gateway-eu");
        assert_eq!(attribute(of_process, "openinference.project.name").unwrap(), "chat");
        assert_eq!(told(&call, "openinference.span.kind"), "CHAIN");
        for (name, value) in [
            ("openinference.span.kind", "LLM"),
            ("llm.model_name", "good"),
            ("llm.token_count.prompt", "11"),
            ("llm.token_count.completion", "4"),
            ("llm.token_count.total", "15"),
            ("llm.cost.total", "0.000019"),
        ] {
            assert_eq!(told(&attempts[0], name), value, "{name}");
        }
        let spelled = |span: &Span| span.attributes.iter().any(|a| a.key.starts_with("gen_ai."));
        assert!(!spelled(&call) && !spelled(&attempts[0]));
    }
}

#[tokio::test]
async fn what_was_said_is_shown_only_where_that_is_wanted() {
    for (capture, shown) in [("none", false), ("hashes", false), ("full", true)] {
        let collector = Collector::start(Mood::Takes).await;
        let (_upstream, gateway) = house(&collector, &format!("capture = {capture:?}")).await;
        for body in [ask("plain"), ask_stream("plain")] {
            chat(&gateway, body).await;
        }
        let spans = collector.collected(4).await;
        let answered = spans.iter().filter(|span| span.name == "chat good");
        for span in answered {
            assert_eq!(told(span, "gen_ai.response.finish_reasons"), "stop");
            let (input, output) =
                (told(span, "gen_ai.input.messages"), told(span, "gen_ai.output.messages"));
            let digests =
                [told(span, "switchpoint.input.sha256"), told(span, "switchpoint.output.sha256")];
            assert_eq!(digests.iter().all(|digest| digest.len() == 64), capture == "hashes");
            let asked = json!([{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]);
            let said = json!([{
                "role": "assistant",
                "parts": [{"type": "text", "content": "Hello there."}],
                "finish_reason": "stop"
            }]);
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            let is_shown = (read(&input), read(&output)) == (asked, said);
            assert_eq!(is_shown, shown, "{input} {output}");
            assert!(shown || (input.is_empty() && output.is_empty()));
        }
        if !shown {
            let all = format!("{spans:?}");
            assert!(!all.contains("Hello there") && !all.contains("Hi\""), "{all}");
        }
    }
}

#[tokio::test]
async fn what_is_personal_or_secret_is_covered_where_that_is_wanted() {
    let collector = Collector::start(Mood::Takes).await;
    let (_upstream, gateway) = house(&collector, "capture = \"redacted\"").await;
    let asked = ask("plain").replace("Hi", "I am ann@example.com, at ann@example.com.");
    chat(&gateway, asked).await;
    let spans = collector.collected(2).await;
    let call = spans.iter().find(|span| span.name == "chat good").unwrap();
    let input = told(call, "gen_ai.input.messages");
    assert!(input.contains("I am [EMAIL_1], at [EMAIL_1]."), "{input}");
    assert!(told(call, "gen_ai.output.messages").contains("Hello there."));
    assert!(!format!("{spans:?}").contains("ann@"));
}

#[tokio::test]
async fn a_collector_that_stalls_fails_no_call_and_costs_counted_spans() {
    let collector = Collector::start(Mood::Stalls).await;
    let (_upstream, gateway) = house(&collector, "timeout = \"50ms\"\nqueue = \"4KiB\"").await;
    for _ in 0..100 {
        assert_eq!(chat(&gateway, ask("plain")).await.status, 200);
    }
    assert!(gateway.metric("switchpoint_traces_dropped_total", &[]).await > 0.0);
    collector.turns(Mood::Takes);
    collector.collected(2).await;
}

#[tokio::test]
async fn an_overloaded_collector_is_tried_again_and_a_picky_one_is_not() {
    let collector = Collector::start(Mood::Overloaded).await;
    let (_upstream, gateway) = house(&collector, "protocol = \"grpc\"").await;
    chat(&gateway, ask("plain")).await;
    collector.turns(Mood::Picky);
    assert_eq!(collector.collected(2).await.len(), 2);
    let counted = async |outcome: &str| {
        gateway.metric("switchpoint_trace_spans_total", &[outcome]).await.to_string()
    };
    while counted("refused").await != "1" {}
    assert_eq!(counted("sent").await, "1");
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end() {
    let collector = Collector::start(Mood::Takes).await;
    let late = "interval = \"1h\"";
    let section = collector.section("").replace("interval = \"20ms\"", late);
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let mut gateway = Gateway::before(&upstream, &section).await;
    chat(&gateway, ask("up/m")).await;
    gateway.recorded(1).await;
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().await.success());
    assert_eq!(collector.spans().len(), 2);
}

#[tokio::test]
async fn a_collector_that_is_away_does_not_hold_up_the_end() {
    let collector = Collector::start(Mood::Stalls).await;
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let section = collector.section("timeout = \"200ms\"");
    let mut gateway = Gateway::before(&upstream, &section).await;
    chat(&gateway, ask("up/m")).await;
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn where_the_config_is_silent_the_standard_variables_speak() {
    let collector = Collector::start(Mood::Takes).await;
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let folder = tempfile::tempdir().unwrap();
    let text = crate::support::gateway::config("", &provider("up", &upstream));
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    let address = format!("http://{}", collector.address);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*address),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=a%20key,x-project=p"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let gateway = Gateway::run_with(folder, "", &environment).await;
    chat(&gateway, ask("up/m")).await;
    collector.collected(2).await;
    let export = &collector.exports()[0];
    assert_eq!(export.headers["x-api-key"], "a key");
    let of_process = &export.resource.attributes;
    assert_eq!(attribute(of_process, "service.name").unwrap(), "edge");
    assert_eq!(attribute(of_process, "deployment.environment.name").unwrap(), "test");
}

#[tokio::test]
async fn without_a_collector_the_clients_trace_passes_as_it_came() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    traced(&gateway, ask("up/m"), PARENT, &["congo=t61"]).await;
    let sent = upstream.only_request();
    assert_eq!(sent.header("traceparent"), Some(PARENT));
    assert_eq!(sent.header("tracestate"), Some("congo=t61"));
}

#[tokio::test]
async fn an_attempt_tells_where_it_went_how_much_it_may_say_and_what_its_answer_is_called() {
    let collector = Collector::start(Mood::Takes).await;
    let (upstream, gateway) = house(&collector, "").await;
    let limited = |body: String| body.replacen('{', "{\"max_tokens\":9,", 1);
    for (spans, body) in [(2, ask("plain")), (4, ask_stream("plain"))] {
        chat(&gateway, limited(body)).await;
        let spans = collector.collected(spans).await;
        let attempts = spans.iter().filter(|span| span.kind == SpanKind::Client as i32);
        let last = attempts.max_by_key(|span| span.start_time_unix_nano).unwrap();
        assert_eq!(told(last, "server.address"), upstream.address.ip().to_string());
        assert_eq!(told(last, "server.port"), upstream.address.port().to_string());
        assert_eq!(told(last, "gen_ai.request.max_tokens"), "9");
        assert!(told(last, "gen_ai.response.id").starts_with("chatcmpl-"), "{last:#?}");
    }
}

#[tokio::test]
async fn an_attempt_tells_how_its_answer_was_to_be_drawn_and_no_word_of_the_client_unasked() {
    const TERMS: &str = "{\"temperature\":0.5,\"top_p\":0.9,\"seed\":-7,\"n\":2,\
        \"frequency_penalty\":0.25,\"stop\":[\"END\"],";
    for (more, stop) in [("", ""), ("capture = \"full\"", "END")] {
        let collector = Collector::start(Mood::Takes).await;
        let (_upstream, gateway) = house(&collector, more).await;
        chat(&gateway, ask("plain").replacen('{', TERMS, 1)).await;
        let (_, attempts) = parted(&collector.collected(2).await);
        for (name, value) in [
            ("gen_ai.request.temperature", "0.5"),
            ("gen_ai.request.top_p", "0.9"),
            ("gen_ai.request.seed", "-7"),
            ("gen_ai.request.choice.count", "2"),
            ("gen_ai.request.frequency_penalty", "0.25"),
            ("gen_ai.request.presence_penalty", ""),
            ("gen_ai.request.stop_sequences", stop),
        ] {
            assert_eq!(told(&attempts[0], name), value, "{name}");
        }
    }
    let collector = Collector::start(Mood::Takes).await;
    let (_upstream, gateway) = house(&collector, "attributes = \"openinference\"").await;
    chat(&gateway, ask("plain").replacen('{', TERMS, 1)).await;
    let (_, attempts) = parted(&collector.collected(2).await);
    let parameters: Value =
        serde_json::from_str(&told(&attempts[0], "llm.invocation_parameters")).unwrap();
    let expected = json!({
        "temperature": 0.5, "top_p": 0.9, "seed": -7, "frequency_penalty": 0.25, "n": 2,
    });
    assert_eq!(parameters, expected);
}
