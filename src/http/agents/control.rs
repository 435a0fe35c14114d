//! What is done to a run from outside: it is ended, held, answered, tried again.

use http::{HeaderValue, StatusCode, header::LOCATION};
use serde_json::{Map, Value, json};

use super::runs::{journal, whole};
use super::story::Story;
use super::{Answer, Asked, Door, away, told};
use crate::agent::event::Resolution;
use crate::agent::{Again, Asker, Told};
use crate::canon::{RunState, StopReason};
use crate::config::suggestion;
use crate::error::{Error, Kind};
use crate::store::runs::RunRow;

const LONGEST_COMMENT: usize = 4096;

/// Ends a run. One that is cancelled already stays so.
pub(super) async fn cancel(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["mode", "reason"])?;
    let after_step = asked.word("mode", &[("now", false), ("after_step", true)])?;
    if run.state == RunState::Cancelled {
        return told(&whole(&door, &run).await?);
    }
    must(!run.state.is_over(), &run, "cancelled")?;
    let reason = asked.text("reason")?;
    let wish = Told::Cancel { by: asked.by(), reason, after_step: after_step.unwrap_or(false) };
    tell(&door, &asked, &run, "cancelled", wish).await
}

pub(super) async fn pause(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&[])?;
    must(!run.state.is_over() && run.state != RunState::Paused, &run, "paused")?;
    tell(&door, &asked, &run, "paused", Told::Pause { by: asked.by() }).await
}

pub(super) async fn resume(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&[])?;
    let lacks = run.state == RunState::WaitingHuman && lacks_something(&door, &run).await?;
    must(run.state == RunState::Paused || lacks, &run, "resumed")?;
    tell(&door, &asked, &run, "resumed", Told::Resume { by: asked.by() }).await
}

/// Whether it waits for what it needs and what is not there any more, or is another one.
async fn lacks_something(door: &Door, run: &RunRow) -> Result<bool, Error> {
    let why = Story::of(&journal(door, run.id).await?).pending()["escalated"].take();
    let lacks = StopReason::DefinitionUnavailable.name();
    Ok(why.as_str().is_some_and(|why| why.starts_with(lacks)))
}

/// What a run has asked for.
pub(super) async fn input(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["request_id", "values"])?;
    let wanted = asked.text("request_id")?;
    // What runs below it ask is told it, too.
    let waiting = door.agents.asker(&run, wanted.as_deref()).await?;
    let Some(Asker { row: run, request, is_question }) = waiting else {
        must(wanted.is_some() && !run.state.is_over(), &run, "answered")?;
        let message = "There is no open question of this `request_id`: see `pending.inputs`.";
        return Err(Error::new(Kind::InvalidTransition, message));
    };
    let values = asked.body.get("values").cloned();
    let values = values.ok_or_else(|| Error::invalid("`values` is missing."))?;
    // A person who answers in the place of an agent is not its user.
    let values = if is_question && run.state != RunState::WaitingHuman {
        door.gateway.hear(&asked.caller, &run.agent, &run.version, values).await?
    } else {
        values
    };
    door.agents.check_answer(&run, Some(&request), &values).await?;
    let request = Some(request);
    let wish = Told::Input { request, values, by: asked.by() };
    tell(&door, &asked, &run, "answered", wish).await
}

/// What became of a call of which nobody knew it.
pub(super) async fn resolve(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["seq", "outcome", "result", "run_id"])?;
    let outcomes =
        [("done", Resolution::Done), ("failed", Resolution::Failed), ("retry", Resolution::Retry)];
    let outcome = asked.word("outcome", &outcomes)?;
    let outcome = outcome.ok_or_else(|| Error::invalid("`outcome` is missing."))?;
    let seq = asked.body.get("seq").and_then(Value::as_u64);
    let seq = seq.ok_or_else(|| Error::invalid("`seq` is the number of a `tool.unknown`."))?;
    must(!run.state.is_over(), &run, "resolved")?;
    let (run, call) = unknown(&door, run, seq, asked.text("run_id")?).await?;
    let result = asked.body.get("result").filter(|result| !result.is_null()).cloned();
    let wish = Told::Resolve { seq, call, outcome, result, by: asked.by() };
    tell(&door, &asked, &run, "resolved", wish).await
}

/// The run that has this entry, of one and those below it, and the call that it is of.
async fn unknown(
    door: &Door,
    run: RunRow,
    seq: u64,
    wanted: Option<String>,
) -> Result<(RunRow, Option<String>), Error> {
    let below = door.agents.waiting_below(&run).await;
    let mut found = Vec::new();
    for row in std::iter::once(run).chain(below) {
        if wanted.as_ref().is_some_and(|wanted| *wanted != row.id.to_string()) {
            continue;
        }
        let pending = Story::of(&journal(door, row.id).await?).pending();
        let mut open = pending["unknown_outcomes"].as_array().into_iter().flatten();
        let open = open.find(|entry| entry["seq"].as_u64() == Some(seq));
        found.extend(open.map(|open| (row, open["call_id"].as_str().map(str::to_owned))));
    }
    let message = match found.pop() {
        Some(only) if found.is_empty() => return Ok(only),
        Some(_) => format!("Several runs have an entry {seq} that is unknown: say `run_id`."),
        None => format!("The entry {seq} is no outcome that is still unknown."),
    };
    Err(Error::new(Kind::InvalidTransition, message))
}

pub(super) async fn feedback(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["score", "label", "comment"])?;
    let score = match asked.body.get("score") {
        None | Some(Value::Null) => None,
        Some(score) => {
            let score = score.as_f64().filter(|score| (0.0..=1.0).contains(score));
            Some(score.ok_or_else(|| Error::invalid("`score` is a number from 0 to 1."))?)
        }
    };
    let (label, comment) = (asked.text("label")?, asked.text("comment")?);
    if score.is_none() && label.is_none() && comment.is_none() {
        return Err(Error::invalid("Send a `score`, a `label` or a `comment`."));
    }
    if comment.as_ref().is_some_and(|comment| comment.len() > LONGEST_COMMENT) {
        return Err(Error::invalid(format!("`comment` has at most {LONGEST_COMMENT} bytes.")));
    }
    let wish = Told::Feedback { score, label, comment, by: asked.by() };
    door.agents.tell(run.id, wish).await?;
    told(&json!({"id": run.id.to_string(), "object": "agent.feedback"}))
}

pub(super) async fn replay(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["mode", "overrides"])?;
    let live = asked.word("mode", &[("recorded", false), ("live", true)])?.unwrap_or(false);
    let overrides = asked.body.get("overrides").filter(|it| !it.is_null());
    if !live && overrides.is_some() {
        return Err(Error::invalid("`overrides` go with the mode `live` only."));
    }
    let effects = overrides.map(effects).transpose()?.unwrap_or(false);
    must(run.state.is_over(), &run, "replayed")?;
    let how = if live { Again::Live { effects } } else { Again::Recorded };
    again(&door, &asked, &run, how).await
}

/// Whether what must not happen twice happens: all that `overrides` of a replay can say.
fn effects(overrides: &Value) -> Result<bool, Error> {
    const EFFECTS: &str = "effects";
    let overrides = overrides.as_object();
    let overrides = overrides.ok_or_else(|| Error::invalid("`overrides` must be an object."))?;
    if let Some(name) = overrides.keys().find(|name| *name != EFFECTS) {
        let hint = suggestion(name, [EFFECTS]);
        return Err(Error::invalid(format!("`overrides.{name}` is not known here{hint}")));
    }
    match overrides.get(EFFECTS) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(effects)) => Ok(*effects),
        Some(_) => Err(Error::invalid("`overrides.effects` must be true or false.")),
    }
}

pub(super) async fn fork(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&["at_seq", "edit"])?;
    let at_seq = asked.body.get("at_seq").and_then(Value::as_u64);
    let at_seq = at_seq.ok_or_else(|| Error::invalid("`at_seq` is the number of an entry."))?;
    let edit = edit(&asked.body)?;
    if !(1..=run.last_seq).contains(&at_seq) {
        let message = format!("`at_seq`: the run has the entries 1 to {}.", run.last_seq);
        return Err(Error::invalid(message));
    }
    again(&door, &asked, &run, Again::Fork { at_seq, edit }).await
}

/// What the user of a fork says there: a text, or the `message` of an object.
fn edit(body: &Map<String, Value>) -> Result<Option<String>, Error> {
    let Some(edit) = body.get("edit").filter(|edit| !edit.is_null()) else { return Ok(None) };
    let said = edit.as_str().or_else(|| edit.get("message")?.as_str());
    let said = said.filter(|said| !said.trim().is_empty());
    said.map(|said| Some(said.to_owned()))
        .ok_or_else(|| Error::invalid("`edit` is a text: what the user says there."))
}

/// Takes back what a run has done.
pub(super) async fn compensate(door: Door, asked: Asked) -> Answer {
    let run = door.own_run(&asked).await?;
    asked.says(&[])?;
    must(run.state.is_over(), &run, "compensated")?;
    again(&door, &asked, &run, Again::Compensate).await
}

/// Another run that comes of this one.
async fn again(door: &Door, asked: &Asked, run: &RunRow, how: Again) -> Answer {
    let what = match how {
        Again::Recorded | Again::Live { .. } => "run.replay",
        Again::Fork { .. } => "run.fork",
        Again::Retry => "run.retry",
        Again::Compensate => "run.compensate",
    };
    let id = door.agents.again(&asked.caller, run, how).await?;
    let subject = format!("run:{}", run.id);
    door.notes(asked, what, subject, &json!({"run": id.to_string()})).await?;
    let row = door.gateway.store().run(None, id).await.map_err(|it| away(&it))?;
    let row = row.ok_or_else(|| Error::new(Kind::RunNotFound, "The run was not kept."))?;
    let shown = whole(door, &row).await?;
    let mut response = crate::http::json(StatusCode::ACCEPTED, &shown);
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/agents/runs/{id}")) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

/// Tells a run something, and says how it stands then.
async fn tell(door: &Door, asked: &Asked, run: &RunRow, word: &str, wish: Told) -> Answer {
    // It may have ended since.
    let is_told = door.agents.tell(run.id, wish).await?;
    let run = door.run(asked).await?;
    if !is_told && !run.state.is_over() {
        let message = "Somebody else was first; the run is about to hear of it.";
        return Err(Error::new(Kind::InvalidTransition, message));
    }
    must(is_told || run.state == RunState::Cancelled, &run, word)?;
    told(&whole(door, &run).await?)
}

fn must(can: bool, run: &RunRow, word: &str) -> Result<(), Error> {
    if can {
        return Ok(());
    }
    let message = format!("A run that is `{}` cannot be {word}.", run.state.name());
    Err(Error::new(Kind::InvalidTransition, message))
}
