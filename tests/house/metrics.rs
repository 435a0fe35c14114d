//! Every series has a help text and a place on a board, and no board asks for one that does not
//! exist.

use std::path::PathBuf;

use switchpoint::telemetry::Metrics;

use super::source::{Source, Text, Token};
use super::{Complaint, assert_clean, assert_complains, read, root};

const PREFIX: &str = "switchpoint_";

/// What a histogram adds to its name when it is scraped.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Every word of the text that looks like a series of ours.
fn series(text: &str) -> Vec<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with(PREFIX) && word.len() > PREFIX.len()).collect()
}

fn base(name: &str) -> &str {
    PARTS.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

fn undeclared(file: &str, board: &str, declarations: &str) -> Vec<Complaint> {
    let declared = series(declarations);
    let known = |name: &str| declared.contains(&name) || declared.contains(&base(name));
    let unknown = series(board).into_iter().filter(|name| !known(name));
    unknown.map(|name| format!("{file}: no metric is called `{name}`")).collect()
}

/// What a source declares and no board shows.
fn unshown(source: &Source, boards: &str) -> Vec<Complaint> {
    let shown: Vec<&str> = series(boards).into_iter().flat_map(|name| [name, base(name)]).collect();
    let declared = source.tokens.iter().filter_map(|token| token.string());
    let series = declared.filter(|text| series(text) == [*text]);
    let missing = series.filter(|name| !shown.contains(name));
    missing.map(|name| format!("dashboards/: no board shows `{name}`")).collect()
}

/// The help is the doc comment before a series' name, or the sentence written after it.
fn without_help(source: &Source) -> Vec<Complaint> {
    let literals: Vec<(usize, &Token)> = source
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| matches!(token.text, Text::Literal(_)))
        .collect();
    let documents = |at: usize| at >= 2 && source.tokens[at - 2].word() == Some("doc");
    let sentence = |token: &Token| token.string().is_some_and(|text| text.trim().contains(' '));
    let helped = |place: usize| {
        let before = place.checked_sub(1).and_then(|place| literals.get(place));
        let after = literals.get(place + 1);
        before.is_some_and(|(at, token)| documents(*at) && sentence(token))
            || after.is_some_and(|(at, token)| !documents(*at) && sentence(token))
    };
    let declares = |token: &Token| {
        token.string().is_some_and(|text| text.starts_with(PREFIX) && !text.contains(' '))
    };
    let bare = literals.iter().enumerate();
    bare.filter(|(place, (_, token))| declares(token) && !helped(*place))
        .map(|(_, (_, token))| {
            let (line, name) = (token.line, token.string().unwrap_or_default());
            format!("src/{}:{line}: `{name}` has no help text", source.path)
        })
        .collect()
}

fn dashboards() -> impl Iterator<Item = PathBuf> {
    let folder = std::fs::read_dir(root().join("dashboards")).unwrap();
    folder.map(|entry| entry.unwrap().path())
}

#[test]
fn dashboards_ask_only_for_series_that_exist() {
    let declarations = read(&root().join("src/telemetry/metrics.rs"));
    for path in dashboards() {
        assert_clean(&undeclared(&path.display().to_string(), &read(&path), &declarations));
    }
}

#[test]
fn every_series_is_on_a_board() {
    let boards =
        dashboards().filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let boards: String = boards.map(|path| read(&path)).collect();
    let source =
        Source::new("telemetry/metrics.rs", &read(&root().join("src/telemetry/metrics.rs")));
    assert_clean(&unshown(&source, &boards));
}

/// Series that the page does not list, or with other labels.
fn unlisted(page: &str, declared: &[(&str, &[&str])]) -> Vec<Complaint> {
    let is_listed = |name: &str, labels: &[&str]| {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` | ")));
        row.is_some_and(|told| labels.iter().all(|label| told.contains(label)))
    };
    let missing = declared.iter().filter(|(name, labels)| !is_listed(name, labels));
    missing
        .map(|(name, labels)| format!("docs/monitoring.md: no row `{name}` with {labels:?}"))
        .collect()
}

#[test]
fn every_series_is_listed_with_its_labels() {
    assert_clean(&unlisted(&read(&root().join("docs/monitoring.md")), Metrics::NAMES));
}

#[test]
fn every_series_explains_itself() {
    let sources = Source::all("src").into_iter().filter(|file| file.room() == "telemetry");
    assert_clean(&sources.flat_map(|file| without_help(&file)).collect::<Vec<_>>());
}

/// What operators were promised of agents, each with its labels. Of work that is not there yet
/// nothing is counted.
const AGENTS: &[(&str, &str)] = &[
    ("runs_total", "agent version trigger outcome reason"),
    ("runs_active", "agent state"),
    ("run_duration_seconds", "agent outcome"),
    ("queue_depth", "agent"),
    ("queue_oldest_seconds", "agent"),
    ("queue_wait_seconds", "agent"),
    ("steps", "agent"),
    ("step_overhead_seconds", "phase"),
    ("model_calls_total", "agent route model purpose outcome"),
    ("model_latency_seconds", "agent route model purpose outcome"),
    ("tokens_total", "agent model type task"),
    ("cost_usd_total", "agent model key"),
    ("run_cost_usd", "agent"),
    ("tool_calls_total", "agent tool outcome"),
    ("tool_duration_seconds", "agent tool"),
    ("tool_retries_total", "tool reason"),
    ("tool_breaker_state", "tool"),
    ("tool_cache_hits_total", "tool"),
    ("limit_hits_total", "agent limit"),
    ("fallbacks_total", "agent route level"),
    ("approvals_pending", "agent tool"),
    ("approvals_total", "agent tool decision"),
    ("approval_wait_seconds", "agent tool decision"),
    ("escalations_total", "agent reason"),
    ("confidence", "agent"),
    ("guardrail_total", "guardrail stage action"),
    ("security_events_total", "kind"),
    ("context_tokens", "agent"),
    ("compactions_total", "agent"),
    ("journal_appends_total", ""),
    ("journal_commit_seconds", "durability"),
    ("lease_lost_total", ""),
    ("takeovers_total", ""),
    ("store_bytes", ""),
    ("dlq_depth", "kind"),
    ("webhook_deliveries_total", "hook outcome"),
    ("feedback_total", "agent label"),
];

#[test]
fn agents_are_counted_by_the_names_and_labels_that_were_promised() {
    let promised = AGENTS.iter().map(|(name, labels)| (format!("{PREFIX}agent_{name}"), *labels));
    let others = [
        ("fallback_drill_success", "route level provider model"),
        ("mcp_children", "server"),
        ("mcp_reconnects_total", "server"),
        ("mcp_tool_drift_total", "server"),
    ];
    let others = others.into_iter().map(|(name, labels)| (format!("{PREFIX}{name}"), labels));
    for (name, labels) in promised.chain(others) {
        let found = Metrics::NAMES.iter().find(|(known, _)| *known == name);
        let found = found.map(|(_, labels)| labels.join(" "));
        assert_eq!(found.as_deref(), Some(labels), "{name}");
    }
}

#[test]
fn an_unknown_series_an_unseen_one_and_a_bare_one_are_caught() {
    let board = "sum(rate(switchpoint_calls_seconds_bucket[5m])) / switchpoint_cals";
    let caught = undeclared("a.json", board, "\"switchpoint_calls_seconds\"");
    assert_complains(&caught, &["`switchpoint_cals`"]);

    let shown = Source::new("telemetry/metrics.rs", "a: \"switchpoint_a\"; b: \"switchpoint_b\";");
    assert_complains(&unshown(&shown, "rate(switchpoint_a_bucket[5m])"), &["`switchpoint_b`"]);
    let page = "| `switchpoint_a` | route |\n| `switchpoint_b` | – |";
    let declared: [(&str, &[&str]); 3] =
        [("switchpoint_a", &["route"]), ("switchpoint_b", &["kind"]), ("switchpoint_c", &[])];
    assert_complains(&unlisted(page, &declared), &["`switchpoint_b`", "`switchpoint_c`"]);

    let table = "const A: X = [(\"switchpoint_a\", \"Calls so far.\"), (\"switchpoint_b\", 1)];\n\
                 metrics! { /// Streams open now.\n c = \"switchpoint_c\" }";
    let caught = without_help(&Source::new("telemetry/metrics.rs", table));
    assert_complains(&caught, &["`switchpoint_b` has no help"]);
}
