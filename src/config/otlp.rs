//! `[telemetry.otlp]`: where traces go, which, and what they show.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::problem::Report;
use super::reader::{Field, Section};
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &[
    "endpoint",
    "protocol",
    "headers",
    "timeout",
    "compression",
    "ca",
    "capture",
    "attributes",
    "sample",
    "routes",
    "slow",
    "resource",
    "interval",
    "queue",
];

const PROTOCOLS: &[(&str, Protocol)] = &[("http", Protocol::Http), ("grpc", Protocol::Grpc)];
const COMPRESSIONS: &[(&str, bool)] = &[("none", false), ("gzip", true)];
const ATTRIBUTES: &[(&str, Attributes)] =
    &[("gen_ai", Attributes::GenAi), ("openinference", Attributes::OpenInference)];

/// Where OTLP is spoken over HTTP.
const HTTP_PATH: &str = "/v1/traces";

/// How traces are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// With the path where traces go over HTTP.
    pub endpoint: String,
    pub protocol: Protocol,
    pub headers: BTreeMap<String, Secret>,
    /// From the beginning of an export to its answer.
    pub timeout: Duration,
    pub gzip: bool,
    /// Further certificate authorities, a PEM file.
    pub ca: Option<PathBuf>,
    pub capture: Capture,
    pub attributes: Attributes,
    /// How many calls of a million are kept whose caller has not decided.
    pub sample: u32,
    /// The same for the calls of single routes.
    pub routes: BTreeMap<String, u32>,
    /// Calls that took so long are always kept.
    pub slow: Option<Duration>,
    /// What is said of the process.
    pub resource: BTreeMap<String, String>,
    pub interval: Duration,
    /// Bytes that each worker may have waiting.
    pub queue: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

/// What traces show of questions and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    None,
    /// Their SHA-256.
    Hashes,
    /// What is neither personal nor secret in them.
    Redacted,
    Full,
}

/// Whose names attributes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    GenAi,
    OpenInference,
}

// === impl Otlp ===

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Http,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(10),
            gzip: false,
            ca: None,
            capture: Capture::None,
            attributes: Attributes::GenAi,
            sample: value::ALL_CALLS,
            routes: BTreeMap::new(),
            slow: Some(Duration::from_secs(30)),
            resource: BTreeMap::new(),
            interval: Duration::from_secs(1),
            queue: 4 * 1024 * 1024,
        }
    }
}

impl Otlp {
    /// What the config says, and where it is silent, what the standard variables do: `look` finds
    /// one. `None` where neither names an endpoint.
    pub(super) fn read(
        section: Option<&Section<'_>>,
        report: &Report,
        look: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let environment = Environment { look, report };
        let usual = Self::default();
        let protocol = section
            .and_then(|section| section.read("protocol", |v| value::one_of(v, PROTOCOLS)))
            .or_else(|| environment.protocol())
            .unwrap_or(usual.protocol);
        let written = section.and_then(|section| section.get("endpoint"));
        let endpoint = match written {
            Some(field) => field.read(value::url).map(|url| with_path(&url, protocol)),
            None if section.is_some() => environment.endpoint(protocol).or_else(|| {
                report.problem("telemetry.otlp", "`endpoint` is missing");
                None
            }),
            None if environment.is_off() => None,
            None => environment.endpoint(protocol),
        }?;
        let silent = Self {
            endpoint,
            protocol,
            headers: environment.headers(),
            timeout: environment.timeout().unwrap_or(usual.timeout),
            gzip: environment.is("COMPRESSION", "gzip"),
            ca: environment.of("CERTIFICATE").map(PathBuf::from),
            capture: environment.capture(),
            sample: environment.sample().unwrap_or(usual.sample),
            resource: environment.resource(),
            ..usual
        };
        Some(match section {
            Some(section) => Self::written(section, silent),
            None => silent,
        })
    }

    fn written(section: &Section<'_>, silent: Self) -> Self {
        let headers = section.get("headers").map(|field| headers(&field));
        let resource = section.get("resource").map(|field| {
            let entries = field.entries().into_iter();
            entries.filter_map(|(name, field)| Some((name.to_owned(), field.read(value::text)?)))
        });
        let routes = section.get("routes").map(|field| field.entries()).unwrap_or_default();
        let share =
            |(name, field): (&str, Field<'_>)| Some((name.to_owned(), field.read(value::sample)?));
        let mut told = silent.resource;
        told.extend(resource.into_iter().flatten());
        Self {
            headers: headers.unwrap_or(silent.headers),
            timeout: section.read("timeout", value::deadline).unwrap_or(silent.timeout),
            gzip: section
                .read("compression", |v| value::one_of(v, COMPRESSIONS))
                .unwrap_or(silent.gzip),
            ca: section
                .read("ca", value::text)
                .map(|path| section.report.beside(&path))
                .or(silent.ca),
            capture: section.read("capture", capture).unwrap_or(silent.capture),
            attributes: section
                .read("attributes", |v| value::one_of(v, ATTRIBUTES))
                .unwrap_or(silent.attributes),
            sample: section.read("sample", value::sample).unwrap_or(silent.sample),
            routes: routes.into_iter().filter_map(share).collect(),
            slow: match section.read("slow", value::pause) {
                Some(Duration::ZERO) => None,
                Some(slow) => Some(slow),
                None => silent.slow,
            },
            resource: told,
            interval: section.read("interval", value::deadline).unwrap_or(silent.interval),
            queue: section.read("queue", value::size).unwrap_or(silent.queue),
            ..silent
        }
    }
}

/// The path goes behind what is the address of a collector, as with the standard variable.
fn with_path(url: &str, protocol: Protocol) -> String {
    let url = url.trim_end_matches('/');
    match protocol {
        Protocol::Http if !url.ends_with(HTTP_PATH) => format!("{url}{HTTP_PATH}"),
        Protocol::Http | Protocol::Grpc => url.to_owned(),
    }
}

fn headers(field: &Field<'_>) -> BTreeMap<String, Secret> {
    let read = |(name, field): (&str, Field<'_>)| {
        if http::HeaderName::try_from(name).is_err() {
            field.fail(format!("{name:?} is not the name of a header"));
        }
        Some((name.to_ascii_lowercase(), Secret::read(&field, Literal::Fine)?))
    };
    field.entries().into_iter().filter_map(read).collect()
}

fn capture(value: &DeValue<'_>) -> Result<Capture, String> {
    const WORDS: &[(&str, Capture)] = &[
        ("none", Capture::None),
        ("hashes", Capture::Hashes),
        ("redacted", Capture::Redacted),
        ("full", Capture::Full),
    ];
    value::one_of(value, WORDS)
}

/// The variables of OpenTelemetry's specification. Those of traces go before those of all signals.
struct Environment<'a> {
    look: &'a dyn Fn(&str) -> Option<String>,
    report: &'a Report,
}

// === impl Environment ===

impl Environment<'_> {
    fn of(&self, name: &str) -> Option<String> {
        let of_traces = (self.look)(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
        of_traces.or_else(|| (self.look)(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.of(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// Whether traces are not wanted at all.
    fn is_off(&self) -> bool {
        let is = |name, value: &str| {
            (self.look)(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
        };
        is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none")
    }

    fn protocol(&self) -> Option<Protocol> {
        match self.of("PROTOCOL")?.as_str() {
            "grpc" => Some(Protocol::Grpc),
            "http/protobuf" => Some(Protocol::Http),
            other => {
                let message = format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL is {other:?}; it can be \"http/protobuf\" or \
                     \"grpc\""
                );
                self.report.problem("telemetry.otlp", message);
                None
            }
        }
    }

    /// The one of traces is taken to the letter, the one of all signals lacks the path.
    fn endpoint(&self, protocol: Protocol) -> Option<String> {
        let of_traces = (self.look)("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let url = of_traces
            .or_else(|| Some(with_path(&(self.look)("OTEL_EXPORTER_OTLP_ENDPOINT")?, protocol)))?;
        let read = value::url(&DeValue::String(url.as_str().into()));
        read.map_err(|message| {
            let message = format!("OTEL_EXPORTER_OTLP_ENDPOINT {message}");
            self.report.problem("telemetry.otlp", message);
        })
        .ok()
    }

    fn headers(&self) -> BTreeMap<String, Secret> {
        let written = self.of("HEADERS").unwrap_or_default();
        let secret = |(name, value): (String, String)| {
            http::HeaderName::try_from(&name).ok()?;
            Some((name.to_ascii_lowercase(), Secret::checked(value).ok()?))
        };
        pairs(&written).filter_map(secret).collect()
    }

    /// In milliseconds.
    fn timeout(&self) -> Option<Duration> {
        let millis = self.of("TIMEOUT")?.parse().ok().filter(|millis| *millis > 0)?;
        Some(Duration::from_millis(millis))
    }

    fn capture(&self) -> Capture {
        let found = (self.look)("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT");
        let found = found.unwrap_or_default().to_ascii_lowercase();
        if matches!(found.as_str(), "true" | "span_only" | "span_and_event") {
            Capture::Full
        } else {
            Capture::None
        }
    }

    fn sample(&self) -> Option<u32> {
        match (self.look)("OTEL_TRACES_SAMPLER")?.trim_start_matches("parentbased_") {
            "always_on" => Some(value::ALL_CALLS),
            "always_off" => Some(0),
            "traceidratio" => {
                let ratio = (self.look)("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
                value::millionths(ratio.parse().ok()?)
            }
            _ => None,
        }
    }

    fn resource(&self) -> BTreeMap<String, String> {
        let written = (self.look)("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let mut told: BTreeMap<String, String> = pairs(&written).collect();
        if let Some(name) = (self.look)("OTEL_SERVICE_NAME") {
            told.insert("service.name".to_owned(), name);
        }
        told
    }
}

/// `a=b,c=d`, with values as URLs spell them.
fn pairs(written: &str) -> impl Iterator<Item = (String, String)> {
    written.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, value)| {
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
        (name.trim().to_owned(), value.into_owned())
    })
}
