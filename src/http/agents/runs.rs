//! Runs: begun, listed and looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::story::Story;
use super::{Answer, Asked, Door, away, registry, told, views};
use crate::agent::definition::Member;
use crate::canon::{ChatRequest, Owner, RunId, RunState, Surface};
use crate::config::{OnLeave, point_in_time};
use crate::dialect;
use crate::error::{Error, Kind};
use crate::gateway::agents::{Performance, RunBudget, RunWishes, named, passed_on};
use crate::gateway::{baggage_in, trace_in};
use crate::http::json;
use crate::store::runs::{ApprovalFilter, EventRow, RunFilter, RunRow};
use crate::telemetry::RunSpan;

/// Entries that are read at once.
const PAGE: u32 = 500;
/// How long somebody may wait for a run.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

const LONGEST_URL: usize = 2048;

const BODY: &[&str] = &[
    "input",
    "messages",
    "session_id",
    "user",
    "version",
    "labels",
    "budget",
    "wait",
    "on_disconnect",
    "webhook",
];
const BUDGET: &[&str] = &["usd", "tokens", "steps", "tool_calls", "seconds"];
const FILTER: &[&str] =
    &["agent", "state", "user", "session", "label", "since", "root", "cursor", "limit"];

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    let query = asked.query(FILTER)?;
    let text = |name: &str| query.field(name).map(str::to_owned);
    let state = query.field("state").map(|state| {
        RunState::parse(state)
            .ok_or_else(|| Error::invalid(format!("`state`: no run is {state:?}.")))
    });
    let id = |name: &str| {
        let id = query.field(name).map(|id| RunId::parse(id).ok_or(()));
        id.transpose().map_err(|()| Error::invalid(format!("`{name}` is the id of a run.")))
    };
    let label = query.field("label").map(|label| {
        let pair = label
            .split_once('=')
            .ok_or_else(|| Error::invalid("`label` is a name, `=` and a value."))?;
        Ok::<_, Error>((pair.0.to_owned(), pair.1.to_owned()))
    });
    let filter = RunFilter {
        owner: if asked.sees_all() { None } else { Some(asked.owner()) },
        agent: text("agent"),
        state: state.transpose()?,
        user: text("user"),
        session: text("session"),
        label: label.transpose()?,
        since: since(query.field("since"))?,
        root: id("root")?,
        before: id("cursor")?,
    };
    let limit = asked.limit()?;
    let found = door.gateway.store().runs(filter, limit + 1).await;
    let rows = found.map_err(|failure| away(&failure))?;
    told(&views::paged(rows, limit, views::run, |row| row.id.to_string()))
}

fn since(written: Option<&str>) -> Result<Option<u64>, Error> {
    let Some(written) = written else { return Ok(None) };
    let time = point_in_time(&written.replace(' ', "+"));
    let time = time.map_err(|problem| Error::invalid(format!("`since`: {problem}.")))?;
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Some(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

pub(super) async fn get(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let run = door.run(&asked).await?;
    told(&whole(&door, &run).await?)
}

pub(super) async fn steps(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let run = door.run(&asked).await?;
    let story = Story::of(&journal(&door, run.id).await?);
    told(&views::page(&story.steps(), None))
}

/// The run as spans, in the JSON of OTLP: what a collector was sent, and what it would have been.
pub(super) async fn trace(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let run = door.run(&asked).await?;
    told(&RunSpan::document(&door.agents.spans(&run).await?))
}

/// What a tool has given, whole, where a model was shown less of it.
pub(super) async fn blob(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let missing = || Error::new(Kind::Missing, format!("There is no result `{}`.", asked.id));
    let found = door.gateway.store().run_blob(&asked.owner(), &asked.id).await;
    let bytes = found.map_err(|failure| away(&failure))?.ok_or_else(missing)?;
    Ok(crate::http::body(StatusCode::OK, "application/octet-stream", bytes))
}

/// A run with what it waits for and what it has said.
pub(super) async fn whole(door: &Door, run: &RunRow) -> Result<Value, Error> {
    let story = Story::of(&journal(door, run.id).await?);
    let mut shown = views::run(run);
    let below =
        if run.state.is_over() { story.spent_below() } else { door.agents.spent_below(run).await };
    views::add(&mut shown, &run.totals, &below);
    let mut pending = story.pending();
    if !run.state.is_over() {
        ask_too(door, run, &mut pending).await?;
    }
    pending["approvals"] = approvals(door, run).await?;
    shown["pending"] = pending;
    let definition = door.agents.definition(run).await?;
    shown["prompt"] = definition.root().map(Member::shown_prompt).unwrap_or_default();
    shown["source"] = story.source();
    shown["result"] = story.result(&definition);
    if run.state.is_over() {
        append(&mut shown["result"]["feedback"], later(door, run.id).await?);
    }
    Ok(shown)
}

/// Adds what the runs below one ask.
async fn ask_too(door: &Door, run: &RunRow, pending: &mut Value) -> Result<(), Error> {
    for row in door.agents.waiting_below(run).await {
        let mut below = Story::of(&journal(door, row.id).await?).pending();
        for kind in ["inputs", "unknown_outcomes"] {
            let Value::Array(mut asked) = below[kind].take() else { continue };
            for asked in &mut asked {
                asked["run_id"] = row.id.to_string().into();
                asked["agent"] = row.agent.clone().into();
            }
            append(&mut pending[kind], asked);
        }
        if pending["escalated"].is_null() && !below["escalated"].is_null() {
            pending["escalated"] = below["escalated"].take();
            pending["escalated_run"] = row.id.to_string().into();
        }
    }
    Ok(())
}

/// What was said of a run when it was over stands behind its journal.
async fn later(door: &Door, run: RunId) -> Result<Vec<Value>, Error> {
    let signals = door.gateway.store().run_signals(run, 0).await;
    let signals = signals.map_err(|failure| away(&failure))?;
    let feedback = signals.iter().filter(|signal| signal.kind == "feedback");
    Ok(feedback.filter_map(|signal| serde_json::from_str(&signal.data).ok()).collect())
}

fn append(list: &mut Value, more: Vec<Value>) {
    if let Some(list) = list.as_array_mut() {
        list.extend(more);
    }
}

/// Those of the whole tree are its root's, too.
async fn approvals(door: &Door, run: &RunRow) -> Result<Value, Error> {
    if run.state.is_over() {
        return Ok(json!([]));
    }
    let of_tree = run.parent.is_none();
    let filter = ApprovalFilter {
        state: Some("pending".to_owned()),
        run: (!of_tree).then_some(run.id),
        root: of_tree.then_some(run.id),
        ..ApprovalFilter::default()
    };
    let pending = door.gateway.store().approvals(filter, PAGE).await;
    let pending = pending.map_err(|failure| away(&failure))?;
    Ok(pending.iter().map(views::approval).collect())
}

/// The whole journal of a run.
pub(super) async fn journal(door: &Door, run: RunId) -> Result<Vec<EventRow>, Error> {
    let mut entries: Vec<EventRow> = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry| entry.seq);
        let more = door.gateway.store().run_events(run, after, PAGE).await;
        let more = more.map_err(|failure| away(&failure))?;
        let is_all = more.len() < PAGE as usize;
        entries.extend(more);
        if is_all {
            return Ok(entries);
        }
    }
}

pub(super) async fn start(door: Door, asked: Asked) -> Answer {
    registry::demand(&door, &asked)?;
    asked.query(&[])?;
    asked.says(BODY)?;
    let agent = match asked.text("version")? {
        Some(version) => format!("{}@{version}", asked.id),
        None => asked.id.clone(),
    };
    let request = request(&asked, &agent)?;
    let wait = asked.duration("wait")?.unwrap_or_default().min(LONGEST_WAIT);
    let leave = [("cancel", OnLeave::Cancel), ("continue", OnLeave::Continue)];
    let wishes = RunWishes {
        session: match asked.text("session_id")? {
            Some(session) => named(Some(&session), "session_id")?,
            None => None,
        },
        user: asked.text("user")?,
        idempotency_key: asked.header("idempotency-key").map(str::to_owned),
        on_disconnect: asked.word("on_disconnect", &leave)?,
        labels: labels(asked.body.get("labels"))?,
        budget: budget(asked.body.get("budget"))?,
        webhook: webhook(&door, asked.text("webhook")?)?,
        headers: passed_on(&asked.headers),
        trace: trace_in(&asked.headers),
        baggage: baggage_in(&asked.headers),
        ..RunWishes::default()
    };
    let wanted = (request, wishes);
    let begun = door.gateway.commission(&asked.caller, &agent, wanted, true).await?;
    let run = begun.run;
    if !wait.is_zero() {
        settled(begun, wait).await;
    }
    let owner: Owner = asked.owner();
    let row = door.gateway.store().run(Some(&owner), run).await.map_err(|it| away(&it))?;
    let row = row.ok_or_else(|| Error::new(Kind::RunNotFound, "The run was not kept."))?;
    let status = if row.state.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = json(status, &whole(&door, &row).await?);
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/agents/runs/{run}")) {
        response.headers_mut().insert(LOCATION, place);
    }
    if let Ok(id) = HeaderValue::from_str(&run.to_string()) {
        response.headers_mut().insert("x-switchpoint-run-id", id);
    }
    Ok(response)
}

/// Waits until a run is over or waits for somebody itself.
async fn settled(mut begun: Performance, wait: Duration) {
    let rests = |state: RunState| state.is_over() || state.is_waiting();
    let settled = begun.report.wait_for(|report| rests(report.state));
    let _ = timeout(wait, settled).await;
}

/// What is said to the agent, read as chat completions would be.
fn request(asked: &Asked, agent: &str) -> Result<ChatRequest, Error> {
    let given = (asked.body.get("input"), asked.body.get("messages"));
    let messages = match given {
        (Some(Value::String(input)), None) => json!([{"role": "user", "content": input}]),
        (Some(list @ Value::Array(_)), None) | (None, Some(list @ Value::Array(_))) => list.clone(),
        (None, None) => return Err(Error::invalid("`input` is missing.")),
        (Some(_), Some(_)) => {
            return Err(Error::invalid("Send `input` or `messages`, and not both."));
        }
        _ => return Err(Error::invalid("`input` is a text, or a list of messages.")),
    };
    let body = json!({"model": format!("agent/{agent}"), "messages": messages});
    let read = dialect::client(Surface::Chat).read_request(body.to_string().as_bytes());
    read.map_err(|misread| Error::invalid(misread.to_string()))
}

fn labels(written: Option<&Value>) -> Result<BTreeMap<String, String>, Error> {
    let wrong = || Error::invalid("`labels` has texts by name, at most 16 of 256 characters.");
    let Some(written) = written.filter(|written| !written.is_null()) else {
        return Ok(BTreeMap::new());
    };
    let fields = written.as_object().filter(|fields| fields.len() <= 16).ok_or_else(wrong)?;
    let short = |text: &str| text.chars().count() <= 256;
    let label = |(name, value): (&String, &Value)| {
        let value = value.as_str().filter(|value| short(value) && short(name));
        value.map(|value| (name.clone(), value.to_owned())).ok_or_else(wrong)
    };
    fields.iter().map(label).collect()
}

/// Who is told of the run: a hook of the config by its name, or a URL that all the world can reach.
fn webhook(door: &Door, written: Option<String>) -> Result<Option<String>, Error> {
    let Some(written) = written else { return Ok(None) };
    let config = &door.gateway.snapshot().config;
    if config.hooks.contains_key(&written) {
        return Ok(Some(written));
    }
    let uri = written.parse::<http::Uri>().ok();
    let is_url = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if !is_url || written.len() > LONGEST_URL {
        let message = "`webhook` is neither the name of a hook nor a URL.";
        return Err(Error::invalid(message));
    }
    if config.agent_engine.webhook_secret.is_none() {
        let message = "`webhook`: this gateway tells only its own `[hooks.NAME]`; URLs need a \
                       `webhook_secret` in `[agent_engine]` to be signed with.";
        return Err(Error::invalid(message));
    }
    Ok(Some(written))
}

/// Less than the agent may use; more is not given, whatever stands here.
fn budget(written: Option<&Value>) -> Result<Option<RunBudget>, Error> {
    let Some(written) = written.filter(|written| !written.is_null()) else { return Ok(None) };
    let Some(fields) = written.as_object() else {
        return Err(Error::invalid("`budget` must be an object."));
    };
    if let Some(name) = fields.keys().find(|name| !BUDGET.contains(&name.as_str())) {
        let hint = crate::config::suggestion(name, BUDGET.iter().copied());
        return Err(Error::invalid(format!("`budget.{name}` is not known here{hint}")));
    }
    let whole = |name: &str| match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("`budget.{name}` must be a whole number."))),
    };
    let small =
        |name: &str| whole(name).map(|it| it.map(|it| u32::try_from(it).unwrap_or(u32::MAX)));
    Ok(Some(RunBudget {
        usd: dollars(fields.get("usd"))?,
        tokens: whole("tokens")?,
        steps: small("steps")?,
        tool_calls: small("tool_calls")?,
        seconds: whole("seconds")?,
    }))
}

/// In nano-dollars.
fn dollars(written: Option<&Value>) -> Result<Option<u64>, Error> {
    let Some(written) = written.filter(|written| !written.is_null()) else { return Ok(None) };
    let wrong = || Error::invalid("`budget.usd` must be a number of dollars.");
    let usd = written.as_f64().filter(|usd| (0.0..=1e9).contains(usd)).ok_or_else(wrong)?;
    // Read from the digits, for a cast would be one that could lose something.
    format!("{:.0}", usd * 1e9).parse().map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_in_its_own_units_and_nothing_else_is_one() {
        let read =
            budget(Some(&json!({"usd": 0.25, "tokens": 1000, "steps": 3}))).unwrap().unwrap();
        assert_eq!((read.usd, read.tokens, read.steps), (Some(250_000_000), Some(1000), Some(3)));
        assert_eq!((read.tool_calls, read.seconds), (None, None));
        for odd in [json!({"usd": -1}), json!({"usd": "1"}), json!({"token": 1}), json!([1])] {
            assert!(budget(Some(&odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn labels_are_few_and_short() {
        let read = labels(Some(&json!({"team": "search"}))).unwrap();
        assert_eq!(read.get("team").map(String::as_str), Some("search"));
        for odd in [json!({"a": 1}), json!(["a"]), json!({"a": "x".repeat(300)})] {
            assert!(labels(Some(&odd)).is_err(), "{odd}");
        }
    }
}
