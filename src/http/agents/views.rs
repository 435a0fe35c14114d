//! Runs, approvals and letters as the API shows them. Nothing secret stands in any of them.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::agent::event::{Source, Spent};
use crate::canon::{Content, Money, Part};
use crate::store::runs::{ApprovalRow, EventRow, LetterRow, RunRow, Totals};

pub(super) fn time(millis: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_millis(time).to_string()
}

pub(super) fn usd(nanos: u64) -> f64 {
    Money::from_nanos(nanos).usd()
}

pub(super) fn run(row: &RunRow) -> Value {
    let totals = &row.totals;
    json!({
        "id": row.id.to_string(),
        "object": "agent.run",
        "agent": row.agent,
        "version": row.version,
        "definition": row.definition,
        "state": row.state.name(),
        "stop_reason": row.reason,
        "root": row.root.to_string(),
        "parent": row.parent.map(|parent| parent.to_string()),
        "owner": row.owner.as_str(),
        "key": row.key,
        "user": row.user,
        "session_id": row.session,
        "trigger": row.trigger,
        "labels": row.labels,
        "steps": totals.steps,
        "tool_calls": totals.tool_calls,
        "usage": tokens(totals.tokens_in, totals.tokens_out),
        "cost_usd": usd(totals.cost),
        "created_at": time(row.created_at),
        "started_at": row.started_at.map(time),
        "finished_at": row.finished_at.map(time),
        "last_seq": row.last_seq,
        "takeovers": row.takeovers,
    })
}

fn tokens(input: u64, output: u64) -> Value {
    json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output})
}

/// The run that one was made of, and what had been spent on what was taken over from there.
pub(super) fn source(source: &Source) -> Value {
    let spent = &source.spent;
    json!({
        "run_id": source.run.to_string(),
        "usage": tokens(spent.usage.input_total(), spent.usage.output),
        "tool_calls": spent.tool_calls,
        "cost_usd": usd(spent.cost),
    })
}

/// Adds to a run what those have used that it has begun; what it has used itself is its `own`.
pub(super) fn add(shown: &mut Value, totals: &Totals, below: &Spent) {
    let usage = &below.usage;
    let (input, output) =
        (totals.tokens_in + usage.input_total(), totals.tokens_out + usage.output);
    let used = |name: &str| shown[name].clone();
    shown["own"] = json!({
        "usage": used("usage"),
        "tool_calls": used("tool_calls"),
        "cost_usd": used("cost_usd"),
    });
    shown["usage"] = tokens(input, output);
    shown["tool_calls"] = json!(totals.tool_calls + below.tool_calls);
    shown["cost_usd"] = json!(usd(totals.cost + below.cost));
}

/// One entry of a journal. Who pays is the gateway's own note.
pub(super) fn event(row: &EventRow) -> Value {
    let mut data: Value = serde_json::from_str(&row.data).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.remove("kind");
        fields.remove("caller");
    }
    json!({"seq": row.seq, "at": time(row.at), "type": row.kind, "data": data})
}

pub(super) fn approval(row: &ApprovalRow) -> Value {
    let args: Value = serde_json::from_str(&row.args).unwrap_or_default();
    json!({
        "id": row.id,
        "object": "agent.approval",
        "run_id": row.run.to_string(),
        "agent": row.agent,
        "tool": row.tool,
        "call_id": row.call,
        "args": args,
        "args_hash": row.hash,
        "roles": row.roles,
        "reason": row.reason,
        "state": row.state,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at.map(time),
        "comment": row.comment,
        "created_at": time(row.created_at),
        "expires_at": time(row.expires_at),
    })
}

pub(super) fn letter(row: &LetterRow) -> Value {
    let payload: Value = serde_json::from_str(&row.payload).unwrap_or_default();
    json!({
        "id": row.id,
        "object": "agent.dead_letter",
        "run_id": row.run.map(|run| run.to_string()),
        "kind": row.kind,
        "payload": payload,
        "error": row.error,
        "attempts": row.attempts,
        "at": time(row.at),
        "state": row.state,
    })
}

/// All that is text.
pub(super) fn text(parts: &[Part]) -> String {
    let said = parts.iter().filter_map(|part| match &part.content {
        Content::Text { text, .. } | Content::Refusal(text) => Some(text.as_str()),
        _ => None,
    });
    said.collect()
}

/// A page of so many rows. One more was asked for: that it is there says that there is another page.
pub(super) fn paged<T>(
    mut rows: Vec<T>,
    limit: u32,
    show: fn(&T) -> Value,
    id: fn(&T) -> String,
) -> Value {
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| has_more).map(id);
    page(&rows.iter().map(show).collect::<Vec<_>>(), next.as_deref())
}

/// A page of a list, and where the next one begins.
pub(super) fn page(rows: &[Value], next: Option<&str>) -> Value {
    json!({"object": "list", "data": rows, "next": next})
}
