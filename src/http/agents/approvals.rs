//! What people must let pass: listed to those who may decide, and decided once, about exactly what
//! they have looked at.

use http::header::IF_MATCH;
use serde_json::Value;

use super::{Answer, Asked, Door, away, told, views};
use crate::agent::Verdict;
use crate::canon::RunId;
use crate::error::{Error, Kind};
use crate::store::runs::{ApprovalFilter, ApprovalRow, Decided};

const STATES: [&str; 5] = ["pending", "approved", "denied", "expired", "withdrawn"];

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    let query = asked.query(&["state", "role", "run", "cursor", "limit"])?;
    let state = query.one_of("state", &STATES)?;
    let run = match query.field("run").map(RunId::parse) {
        Some(None) => return Err(Error::invalid("`run` is the id of a run.")),
        run => run.flatten(),
    };
    let role = asked.caller.tags().get("role").cloned();
    let filter = ApprovalFilter {
        seen_by: if asked.sees_all() { None } else { Some((asked.owner(), role)) },
        role: query.field("role").map(str::to_owned),
        state: state.map(str::to_owned),
        run,
        before: query.field("cursor").map(str::to_owned),
        ..ApprovalFilter::default()
    };
    let limit = asked.limit()?;
    let found = door.gateway.store().approvals(filter, limit + 1).await;
    let rows = found.map_err(|failure| away(&failure))?;
    told(&views::paged(rows, limit, views::approval, |row| row.id.clone()))
}

pub(super) async fn get(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    told(&views::approval(&find(&door, &asked).await?))
}

pub(super) async fn decide(door: Door, asked: Asked) -> Answer {
    let approval = find(&door, &asked).await?;
    demand(&door, &asked, &approval)?;
    asked.says(&["decision", "args", "comment", "remember"])?;
    let approved = asked.word("decision", &[("approve", true), ("deny", false)])?;
    let approved = approved.ok_or_else(|| Error::invalid("`decision` is missing."))?;
    let remember = asked.word("remember", &[("none", false), ("run", true)])?.unwrap_or(false);
    if remember && !approved {
        return Err(Error::invalid("`remember` goes with `approve` only."));
    }
    let args = asked.body.get("args").filter(|args| !args.is_null()).cloned();
    if args.is_some() && (!approved || !args.as_ref().is_some_and(Value::is_object)) {
        return Err(Error::invalid("`args` is an object, and goes with `approve` only."));
    }
    if approval.state != "pending" {
        return Err(already(&approval.state));
    }
    matches(&asked, &approval)?;
    let (comment, by) = (asked.text("comment")?, asked.by());
    let verdict = Verdict { approved, args, comment, remember, by };
    match door.agents.decide(&approval, verdict).await? {
        Decided::Done => told(&views::approval(&find(&door, &asked).await?)),
        Decided::Already(state) => Err(already(&state)),
        Decided::Missing => Err(missing(&asked)),
    }
}

async fn find(door: &Door, asked: &Asked) -> Result<ApprovalRow, Error> {
    let found = door.gateway.store().approval(&asked.id).await.map_err(|it| away(&it))?;
    let found = found.ok_or_else(|| missing(asked))?;
    if may_see(asked, &found) {
        return Ok(found);
    }
    // Who works with those who are asked is told that they are not; strangers learn nothing.
    let is_near = belongs_with(door, asked, &found).await?;
    Err(if is_near { refused(door, &found) } else { missing(asked) })
}

/// Whether it is of the team of the run's own key; where that has none, whoever bears a role at
/// all and has no team either.
async fn belongs_with(door: &Door, asked: &Asked, row: &ApprovalRow) -> Result<bool, Error> {
    let run = door.gateway.store().run(None, row.run).await.map_err(|it| away(&it))?;
    let Some(run) = run else { return Ok(false) };
    let team = door.agents.team(&run).await?;
    let own = asked.caller.team().map(|team| &**team);
    Ok(team.as_deref() == own && (own.is_some() || asked.caller.tag("role").is_some()))
}

fn missing(asked: &Asked) -> Error {
    Error::new(Kind::Missing, format!("There is no approval `{}`.", asked.id))
}

fn already(state: &str) -> Error {
    Error::new(Kind::AlreadyDecided, format!("The approval is `{state}` already."))
}

/// Its run's owner, whoever keeps the gateway, and those who are asked.
fn may_see(asked: &Asked, row: &ApprovalRow) -> bool {
    row.owner == asked.owner() || asked.sees_all() || has_role(asked, row)
}

/// Whoever is asked decides. Where nobody is named, that is the run's own user.
fn demand(door: &Door, asked: &Asked, row: &ApprovalRow) -> Result<(), Error> {
    let is_own = row.owner == asked.owner() && row.roles.is_empty();
    if asked.operates() || has_role(asked, row) || is_own {
        return Ok(());
    }
    Err(refused(door, row))
}

fn refused(door: &Door, row: &ApprovalRow) -> Error {
    door.gateway.telemetry.metrics.count_security_event("approval_not_allowed");
    let roles = row.roles.join("`, `");
    let message = match row.roles.as_slice() {
        [] => "This is for the key that has begun the run, and for operators.".to_owned(),
        _ => format!("This is for keys with the tag `role` of `{roles}`, and for operators."),
    };
    Error::new(Kind::NotAllowed, message)
}

fn has_role(asked: &Asked, row: &ApprovalRow) -> bool {
    let role = asked.caller.tags().get("role");
    role.is_some_and(|role| row.roles.contains(role))
}

/// Whoever decides says what they have looked at: the hash of tool, version and arguments.
fn matches(asked: &Asked, row: &ApprovalRow) -> Result<(), Error> {
    let Some(seen) = asked.header(IF_MATCH.as_str()) else {
        let message = "Send `If-Match` with the `args_hash` of what you decide about, in quotes.";
        return Err(Error::new(Kind::PreconditionRequired, message));
    };
    let is_it = |tag: &str| matches!(tag.trim(), "*") || tag.trim().trim_matches('"') == row.hash;
    if seen.split(',').any(is_it) {
        return Ok(());
    }
    let message = "The arguments are not those that `If-Match` names; look at them again.";
    Err(Error::new(Kind::ArgsChanged, message))
}
