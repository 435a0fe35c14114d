//! `[guards.NAME]`: what may be said, where that is looked at, and what happens if it is not so.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::de::DeValue;

use super::problem::{Report, child, suggestion};
use super::provider::texts;
use super::reader::Section;
use super::route::Strategy;
use super::secret::{Literal, Secret};
use super::{Config, value};

pub(super) const KEYS: &[&str] = &[
    "kind",
    "stage",
    "action",
    "dry_run",
    "mode",
    "on_error",
    "timeout",
    "restore",
    "words",
    "regex",
    "label",
    "kinds",
    "threshold",
    "route",
    "prompt",
    "model",
    "categories",
    "url",
    "secret",
    "schema",
    "allowed",
    "max_chars",
    "max_tokens",
    "hosts",
];

/// What the kind `pii` knows, under the names that verdicts and placeholders bear.
pub const PII_KINDS: &[&str] = &[
    "email",
    "phone",
    "card",
    "iban",
    "ipv4",
    "ipv6",
    "mac",
    "us_ssn",
    "uk_nino",
    "de_tax_id",
    "de_id_card",
    "fr_nir",
    "es_dni",
    "it_codice_fiscale",
    "nl_bsn",
    "pl_pesel",
    "se_personnummer",
    "br_cpf",
    "in_aadhaar",
    "ca_sin",
];

/// What the kind `injection` tells apart, under the names that verdicts bear.
pub const INJECTION_CATEGORIES: &[&str] =
    &["override", "role", "hidden", "encoded", "exfiltration", "persona", "tools"];

const EVERYWHERE: &[Stage] =
    &[Stage::Input, Stage::Output, Stage::ToolArgs, Stage::ToolResults, Stage::Memory];
/// Where people or models speak in sentences.
const PROSE: &[Stage] = &[Stage::Input, Stage::Output, Stage::ToolResults, Stage::Memory];

/// What each kind can do: its own keys, its stages, and whether it can replace what it finds.
const ABILITIES: &[Ability] = &[
    Ability { kind: "pattern", keys: &["words", "regex", "label"], masks: true, ..ABILITY },
    Ability { kind: "pii", keys: &["kinds"], masks: true, ..ABILITY },
    Ability { kind: "secrets", masks: true, ..ABILITY },
    Ability { kind: "injection", keys: &["threshold", "categories"], ..ABILITY },
    Ability { kind: "judge", keys: &["route", "prompt"], asks: true, ..ABILITY },
    Ability {
        kind: "moderation",
        keys: &["model", "categories", "threshold"],
        asks: true,
        ..ABILITY
    },
    Ability { kind: "webhook", keys: &["url", "secret"], asks: true, masks: true, ..ABILITY },
    Ability { kind: "schema", keys: &["schema"], stages: &[Stage::Output], ..ABILITY },
    Ability { kind: "language", keys: &["allowed"], stages: PROSE, ..ABILITY },
    Ability { kind: "length", keys: &["max_chars", "max_tokens"], ..ABILITY },
    Ability { kind: "urls", keys: &["hosts"], masks: true, ..ABILITY },
];
const ABILITY: Ability =
    Ability { kind: "", keys: &[], stages: EVERYWHERE, masks: false, asks: false };

/// Keys of every kind.
const SHARED: &[&str] = &["kind", "stage", "action", "dry_run"];
/// Keys of the kinds that ask somebody else.
const ASKING: &[&str] = &["mode", "on_error", "timeout"];

struct Ability {
    kind: &'static str,
    keys: &'static [&'static str],
    stages: &'static [Stage],
    masks: bool,
    /// It asks somebody else, which takes time and can fail.
    asks: bool,
}

/// One guard, as its operator described it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub kind: GuardKind,
    pub stages: BTreeSet<Stage>,
    pub action: Action,
    /// What it would have done is noted, and not done.
    pub dry_run: bool,
    pub mode: Mode,
    /// What becomes of a text that could not be looked at.
    pub on_error: OnError,
    pub timeout: Duration,
    /// What was masked on the way in is put back into the answer.
    pub restore: bool,
}

/// What a guard looks for. Texts are as they were written: `guard` makes them ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GuardKind {
    #[default]
    Secrets,
    Pattern {
        words: Vec<String>,
        regexes: Vec<String>,
        label: String,
    },
    /// Those of `PII_KINDS` that are looked for.
    Pii {
        kinds: Vec<String>,
    },
    /// Those of `INJECTION_CATEGORIES` that count.
    Injection {
        threshold_permille: u32,
        categories: Vec<String>,
    },
    /// A model, asked through a route whether the text is as `prompt` wants it.
    Judge {
        route: String,
        prompt: String,
    },
    /// The moderation endpoint behind `provider/model`; without categories, what it flags.
    Moderation {
        model: String,
        categories: Vec<String>,
        threshold_permille: Option<u32>,
    },
    Webhook {
        url: String,
        secret: Option<Secret>,
    },
    /// A JSON schema, as text.
    Schema {
        schema: String,
    },
    /// ISO 639-1 codes.
    Language {
        allowed: Vec<String>,
    },
    Length {
        characters: Option<u64>,
        tokens: Option<u64>,
    },
    Urls {
        hosts: Vec<String>,
    },
}

/// Which text of a call is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    Input,
    Output,
    ToolArgs,
    ToolResults,
    Memory,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The call or the stream ends.
    #[default]
    Block,
    /// What was found is replaced.
    Mask,
    /// It is noted.
    Log,
    /// It is noted, and the client is told.
    Flag,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing goes on before the verdict.
    #[default]
    Blocking,
    /// The verdict is awaited beside the model's work.
    Parallel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    #[default]
    Block,
    Allow,
}

// === impl Stage ===

impl Stage {
    const WORDS: [(&str, Self); 5] = [
        ("input", Self::Input),
        ("output", Self::Output),
        ("tool_args", Self::ToolArgs),
        ("tool_results", Self::ToolResults),
        ("memory", Self::Memory),
    ];

    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, stage)| *stage == self).map_or("", |(word, _)| word)
    }
}

impl Action {
    const WORDS: [(&str, Self); 4] =
        [("block", Self::Block), ("mask", Self::Mask), ("log", Self::Log), ("flag", Self::Flag)];

    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, action)| *action == self).map_or("", |(word, _)| word)
    }
}

// === impl Guard ===

impl Guard {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let Some(kind) = section.require("kind") else { return Self::default() };
        let words: Vec<(&str, &Ability)> =
            ABILITIES.iter().map(|ability| (ability.kind, ability)).collect();
        let Some(ability) = kind.read(|value| value::one_of(value, &words)) else {
            return Self::default();
        };
        let mut guard = Self {
            kind: GuardKind::read(ability.kind, section),
            stages: stages(section, ability),
            action: section
                .read("action", |value| value::one_of(value, &Action::WORDS))
                .unwrap_or_default(),
            dry_run: section.read("dry_run", value::flag).unwrap_or_default(),
            mode: section
                .read("mode", |value| {
                    value::one_of(
                        value,
                        &[("blocking", Mode::Blocking), ("parallel", Mode::Parallel)],
                    )
                })
                .unwrap_or_default(),
            on_error: section
                .read("on_error", |value| {
                    value::one_of(value, &[("block", OnError::Block), ("allow", OnError::Allow)])
                })
                .unwrap_or_default(),
            timeout: section.read("timeout", value::deadline).unwrap_or(Duration::from_secs(2)),
            restore: false,
        };
        guard.restore = section
            .read("restore", value::flag)
            .unwrap_or(ability.kind == "pii" && guard.action == Action::Mask);
        guard.check(ability, section);
        guard
    }

    /// A guard that could never do what it is told is refused rather than silently idle.
    fn check(&self, ability: &Ability, section: &Section<'_>) {
        let kind = ability.kind;
        let fail = |key: &str, message: String| {
            section.report.problem(&child(&section.path, key), message);
        };
        let known = |key: &&&str| {
            SHARED.contains(key)
                || ability.keys.contains(key)
                || (ability.asks && ASKING.contains(key))
                || (ability.masks && !ability.asks && kind != "urls" && **key == "restore")
        };
        for key in KEYS.iter().filter(|key| !known(key)) {
            if section.get(key).is_some() {
                fail(key, format!("`{key}` does not belong to guards of the kind \"{kind}\""));
            }
        }
        if self.action == Action::Mask && !ability.masks {
            let able: Vec<&str> =
                ABILITIES.iter().filter(|able| able.masks).map(|able| able.kind).collect();
            let able = able.join(", ");
            fail("action", format!("a guard of the kind \"{kind}\" cannot mask; {able} can"));
        }
        let is_mask = self.action == Action::Mask;
        if self.restore && !is_mask {
            fail("restore", "nothing can be restored where nothing is masked".to_owned());
        }
        let outward = [Stage::Input, Stage::ToolResults];
        let goes_out = outward.iter().any(|stage| self.stages.contains(stage));
        if section.get("restore").is_some() && self.restore && is_mask && !goes_out {
            let message = "only what is masked in `input` or `tool_results` can be restored";
            fail("restore", message.to_owned());
        }
        if self.mode == Mode::Parallel && ability.asks {
            self.check_parallel(&fail);
        }
    }

    fn check_parallel(&self, fail: &impl Fn(&str, String)) {
        if self.action == Action::Mask {
            fail("mode", "what was already sent on cannot be masked".to_owned());
        }
        let late = |stage: &&Stage| !matches!(stage, Stage::Input | Stage::Output);
        if let Some(stage) = self.stages.iter().find(late) {
            let stage = stage.name();
            fail("mode", format!("in `{stage}` the verdict would come after the deed"));
        }
    }
}

fn stages(section: &Section<'_>, ability: &Ability) -> BTreeSet<Stage> {
    let Some(field) = section.require("stage") else { return BTreeSet::new() };
    let fields = field.list().unwrap_or_default();
    if fields.is_empty() && field.is_list() {
        field.fail("must name at least one stage");
    }
    let mut stages = BTreeSet::new();
    for field in fields {
        let Some(stage) = field.read(|value| value::one_of(value, &Stage::WORDS)) else { continue };
        if !ability.stages.contains(&stage) {
            let able: Vec<&str> = ability.stages.iter().map(|stage| stage.name()).collect();
            let (kind, able) = (ability.kind, able.join(", "));
            field.fail(format!("a guard of the kind \"{kind}\" works in {able} only"));
        }
        if !stages.insert(stage) {
            field.fail("is named twice");
        }
    }
    stages
}

// === impl GuardKind ===

impl GuardKind {
    fn read(kind: &str, section: &Section<'_>) -> Self {
        let required = |key: &str| {
            section.require(key).and_then(|field| field.read(value::text)).unwrap_or_default()
        };
        match kind {
            "pattern" => pattern(section),
            "pii" => {
                let kinds = some_of(section, ("kinds", "kind of personal data"), PII_KINDS);
                Self::Pii { kinds }
            }
            "injection" => {
                let threshold = section.read("threshold", value::permille);
                let known = ("categories", "category of injection");
                Self::Injection {
                    threshold_permille: threshold.unwrap_or(500),
                    categories: some_of(section, known, INJECTION_CATEGORIES),
                }
            }
            "judge" => Self::Judge { route: required("route"), prompt: required("prompt") },
            "moderation" => Self::Moderation {
                model: required("model"),
                categories: texts(section, "categories"),
                threshold_permille: section.read("threshold", value::permille),
            },
            "webhook" => Self::Webhook {
                url: section
                    .require("url")
                    .and_then(|field| field.read(value::url))
                    .unwrap_or_default(),
                secret: section
                    .get("secret")
                    .and_then(|field| Secret::read(&field, Literal::Warned)),
            },
            "schema" => Self::Schema { schema: schema(section) },
            "language" => Self::Language { allowed: listed(section, "allowed") },
            "length" => length(section),
            "urls" => Self::Urls { hosts: hosts(section) },
            _ => Self::Secrets,
        }
    }
}

fn pattern(section: &Section<'_>) -> GuardKind {
    let (words, regexes) = (texts(section, "words"), texts(section, "regex"));
    if words.is_empty() && regexes.is_empty() {
        section.report.problem(&section.path, "write `words`, `regex` or both");
    }
    let label = section.read("label", label).unwrap_or_else(|| "pattern".to_owned());
    GuardKind::Pattern { words, regexes, label }
}

/// Placeholders are made of it: `[PROJECT_1]`.
fn label(value: &DeValue<'_>) -> Result<String, String> {
    let text = value::text(value)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.len() <= 24
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(allowed)
    {
        return Ok(text);
    }
    Err(format!("{text:?} is not a label; write up to 24 of a-z, 0-9 and _, a letter first"))
}

/// A list of known names, all of them where it is left out.
fn some_of(section: &Section<'_>, (key, what): (&str, &str), names: &[&str]) -> Vec<String> {
    let Some(field) = section.get(key) else {
        return names.iter().map(|&name| name.to_owned()).collect();
    };
    let fields = field.list().unwrap_or_default();
    if fields.is_empty() && field.is_list() {
        field.fail(format!("must name at least one {what}"));
    }
    let known = |value: &DeValue<'_>| {
        let text = value::text(value)?;
        let hint = suggestion(&text, names.iter().copied());
        if names.contains(&text.as_str()) {
            Ok(text)
        } else {
            Err(format!("no {what} is called {text:?}{hint}"))
        }
    };
    fields.iter().filter_map(|field| field.read(known)).collect()
}

/// A list that cannot be left out or empty.
fn listed(section: &Section<'_>, key: &str) -> Vec<String> {
    let Some(field) = section.require(key) else { return Vec::new() };
    let list = texts(section, key);
    if list.is_empty() && field.is_list() {
        field.fail("must not be empty");
    }
    list
}

/// An empty list is fine here: no host is allowed then.
fn hosts(section: &Section<'_>) -> Vec<String> {
    let fields = section.require("hosts").and_then(|field| field.list()).unwrap_or_default();
    let host = |value: &DeValue<'_>| {
        let text = value::text(value)?.to_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | ':');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(format!(
                "{text:?} is not a host; write \"example.com\" or \"*.example.com\""
            ));
        }
        Ok(text)
    };
    fields.iter().filter_map(|field| field.read(host)).collect()
}

fn length(section: &Section<'_>) -> GuardKind {
    let count = |key| section.read(key, |value| value::whole(value, 1..=u64::from(u32::MAX)));
    let (characters, tokens) = (count("max_chars"), count("max_tokens"));
    if section.get("max_chars").is_none() && section.get("max_tokens").is_none() {
        section.report.problem(&section.path, "write `max_chars`, `max_tokens` or both");
    }
    GuardKind::Length { characters, tokens }
}

/// The schema itself, or the path of a file that holds it.
fn schema(section: &Section<'_>) -> String {
    let Some(field) = section.require("schema") else { return String::new() };
    let Some(written) = field.read(value::text) else { return String::new() };
    let text = if written.trim_start().starts_with('{') {
        Ok(written)
    } else {
        let path = field.report.beside(&written);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let parsed = text.and_then(|text| match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("the schema is not JSON: {error}")),
    });
    parsed.map_err(|message| field.fail(message)).unwrap_or_default()
}

// === What only shows when the sections are seen together ===

/// Every guard that is named somewhere exists, and so does every route that a guard asks.
pub(super) fn check(config: &Config, report: &Report) {
    check_names(config, "server", &config.server.guards, report);
    for (name, route) in &config.routes {
        check_names(config, &child("routes", name), &route.guards, report);
    }
    for (name, key) in &config.keys {
        check_names(config, &child("keys", name), &key.guards, report);
    }
    for (name, guard) in &config.guards {
        let path = child("guards", name);
        match &guard.kind {
            GuardKind::Judge { route, .. } if !route.is_empty() => {
                let known: Vec<&str> = config.routes.keys().map(String::as_str).collect();
                let path = format!("{path}.route");
                check_name(&path, "route", route, &known, report);
                let asked = config.routes.get(route);
                if asked.is_some_and(|route| route.strategy == Strategy::Task) {
                    report.problem(&path, "a route by task cannot be asked: name one it leads to");
                }
            }
            GuardKind::Moderation { model, .. } if !model.is_empty() => {
                let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
                match model.split_once('/') {
                    Some((provider, _)) => {
                        check_name(&format!("{path}.model"), "provider", provider, &known, report);
                    }
                    None => report.problem(
                        &format!("{path}.model"),
                        format!("{model:?} is not a model; write \"provider/model\""),
                    ),
                }
            }
            _ => {}
        }
    }
}

pub(super) fn check_names(config: &Config, owner: &str, names: &[String], report: &Report) {
    let known: Vec<&str> = config.guards.keys().map(String::as_str).collect();
    for (position, name) in names.iter().enumerate() {
        let path = format!("{owner}.guards[{position}]");
        if names[..position].contains(name) {
            report.problem(&path, "is named twice");
        }
        check_name(&path, "guard", name, &known, report);
    }
}

fn check_name(path: &str, what: &str, name: &str, known: &[&str], report: &Report) {
    if !known.contains(&name) {
        let hint = suggestion(name, known.iter().copied());
        report.problem(path, format!("no {what} is called \"{name}\"{hint}"));
    }
}

/// The guards of a call: those of the server, its route and its key, each once, in this order.
pub fn together<'a>(lists: &[&'a [String]]) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let names = lists.iter().flat_map(|list| list.iter()).map(String::as_str);
    names.filter(|name| seen.insert(*name)).collect()
}
