//! `[telemetry]`: what is logged, and how, and where traces go.

use toml::de::DeValue;

use super::otlp::{self, Otlp};
use super::problem::{Report, suggestion};
use super::reader::Section;
use super::secret::variable;
use super::value;

pub(super) const KEYS: &[&str] = &["log", "level", "access_log", "otlp"];

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    pub log: LogFormat,
    /// A level, or a comma-separated list of levels and `module=level`.
    pub level: String,
    /// Whether every call leaves a line.
    pub access_log: bool,
    /// `None` where nothing is traced.
    pub otlp: Option<Otlp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

// === impl Telemetry ===

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: LogFormat::Json, level: "info".to_owned(), access_log: true, otlp: None }
    }
}

impl Telemetry {
    /// What the section says, if there is one, and what the environment says of traces.
    pub(super) fn read(section: Option<&Section<'_>>, report: &Report) -> Self {
        let usual = Self::default();
        let of_traces = section.and_then(|section| section.get("otlp")?.section(otlp::KEYS));
        let otlp = Otlp::read(of_traces.as_ref(), report, &variable);
        let Some(section) = section else { return Self { otlp, ..usual } };
        Self {
            otlp,
            log: section.read("log", format).unwrap_or(usual.log),
            level: section.read("level", level).unwrap_or(usual.level),
            access_log: section.read("access_log", value::flag).unwrap_or(usual.access_log),
        }
    }
}

fn format(value: &DeValue<'_>) -> Result<LogFormat, String> {
    match value::text(value)?.as_str() {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        other => {
            Err(format!("{other:?} is not a log format{}", suggestion(other, ["json", "text"])))
        }
    }
}

fn level(value: &DeValue<'_>) -> Result<String, String> {
    let text = value::text(value)?;
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.contains(&level) {
            return Err(format!("{level:?} is not a log level{}", suggestion(level, LEVELS)));
        }
    }
    Ok(text)
}
