//! What a config and the environment say of traces.

use super::super::otlp::Otlp;
use super::super::problem::{Lines, Report};
use super::super::{Attributes, Capture, Protocol};
use super::parse;

fn read(section: &str) -> Otlp {
    let config = parse(&format!("[telemetry.otlp]\n{section}")).unwrap();
    config.telemetry.otlp.unwrap()
}

/// Of an environment with these variables and a config that says nothing.
fn environment(variables: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
    let nothing = toml::de::DeTable::new();
    let report = Report::new("config.toml".as_ref(), &Lines::of(""), &nothing);
    let look = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let otlp = Otlp::read(None, &report, &look);
    let problems = report.close().map_err(|problems| problems[0].message.clone());
    problems.map(|_| otlp)
}

#[test]
fn a_path_goes_behind_the_address_of_a_collector_over_http_only() {
    for (written, endpoint) in [
        ("endpoint = \"http://c:4318\"", "http://c:4318/v1/traces"),
        ("endpoint = \"http://c:4318/\"", "http://c:4318/v1/traces"),
        ("endpoint = \"https://c/api/public/otel\"", "https://c/api/public/otel/v1/traces"),
        ("endpoint = \"https://c/v1/traces\"", "https://c/v1/traces"),
        ("endpoint = \"http://c:4317\"\nprotocol = \"grpc\"", "http://c:4317"),
    ] {
        assert_eq!(read(written).endpoint, endpoint);
    }
}

#[test]
fn the_table_of_the_contract_is_read_inline() {
    let text = "[telemetry]\notlp = { endpoint = \"http://127.0.0.1:4318\", protocol = \"http\", \
                capture = \"none\" }\n";
    let otlp = parse(text).unwrap().telemetry.otlp.unwrap();
    assert_eq!((otlp.protocol, otlp.capture), (Protocol::Http, Capture::None));
    assert_eq!((otlp.attributes, otlp.sample), (Attributes::GenAi, 1_000_000));
}

#[test]
fn what_cannot_be_done_is_refused() {
    for (written, complaint) in [
        ("protocol = \"grpc\"", "`endpoint` is missing"),
        ("endpoint = \"c:4318\"", "is not a URL"),
        ("endpoint = \"http://c\"\nprotocol = \"json\"", "\"json\" is none of"),
        ("endpoint = \"http://c\"\ncapture = \"some\"", "\"some\" is none of"),
        ("endpoint = \"http://c\"\nheaders = { \"a b\" = \"c\" }", "is not the name of a header"),
        ("endpoint = \"http://c\"\nroutes = { none = 0.5 }", "there is no route \"none\""),
        ("endpoint = \"http://c\"\nsample = 2", "is not a share"),
    ] {
        let problems = parse(&format!("[telemetry.otlp]\n{written}")).unwrap_err();
        assert!(problems[0].message.contains(complaint), "{written}: {}", problems[0]);
    }
}

#[test]
fn variables_of_traces_go_before_those_of_all_signals() {
    let otlp = environment(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/own"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY"),
    ]);
    let otlp = otlp.unwrap().unwrap();
    assert_eq!(otlp.endpoint, "http://traces:4318/own", "to the letter");
    assert_eq!((otlp.timeout.as_millis(), otlp.gzip, otlp.sample), (700, true, 250_000));
    assert_eq!(otlp.capture, Capture::Full);
}

#[test]
fn an_environment_that_names_no_collector_traces_nothing() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    assert_eq!(environment(&[("OTEL_SERVICE_NAME", "edge")]), Ok(None));
    assert_eq!(environment(&[endpoint, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
    assert_eq!(environment(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    let json = environment(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
    assert!(json.unwrap_err().contains("it can be \"http/protobuf\""));
}
