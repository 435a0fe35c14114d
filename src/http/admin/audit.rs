//! The trail of changes: who changed what, and how it was before and after.

use std::time::SystemTime;

use http::StatusCode;
use serde_json::{Value, json};

use super::ledger::{read, time};
use super::{AdminApi, Answer, Asked};
use crate::gateway::directory::Actor;
use crate::http::json as answer;
use crate::store::{Audit, AuditCheck, AuditFilter, Position};

pub(super) async fn list(api: AdminApi, asked: Asked) -> Answer {
    let (after, limit) = (asked.query.after::<i64>()?.map(Position::from), asked.query.limit()?);
    let text = |name: &str| asked.query.text(name).map(str::to_owned);
    let filter = AuditFilter {
        who: text("who"),
        what: text("what"),
        subject: text("subject"),
        from: asked.query.time("from")?,
        to: asked.query.time("to")?,
    };
    let rows = read(api.gateway.store().audits(&filter, after, limit)).await?;
    let is_full = u32::try_from(rows.len()) == Ok(limit);
    let next = rows.last().filter(|_| is_full).map(|(position, _)| shown_position(*position));
    let data: Vec<Value> = rows.iter().map(|(position, change)| shown(*position, change)).collect();
    Ok(answer(StatusCode::OK, &json!({"data": data, "next": next})))
}

pub(super) async fn verify(api: AdminApi, _: Asked) -> Answer {
    let AuditCheck { rows, broken_at } = read(api.gateway.store().verify_audit()).await?;
    let broken_at = broken_at.map(shown_position);
    let verdict = json!({"ok": broken_at.is_none(), "rows": rows, "broken_at": broken_at});
    Ok(answer(StatusCode::OK, &verdict))
}

/// Notes a change that is made already. It stays made if it cannot be noted, and the log says so.
pub(super) async fn note(api: &AdminApi, by: &Actor, what: &str, before: &Value, after: &Value) {
    let change = Audit {
        at: SystemTime::now(),
        who: by.name.clone(),
        what: what.to_owned(),
        subject: String::new(),
        before: Some(before.to_string()),
        after: Some(after.to_string()),
    };
    if read(api.gateway.store().audit(change)).await.is_err() {
        tracing::error!(who = %by.name, what, "a change is not in the audit trail");
    }
}

fn shown_position(position: Position) -> String {
    position.number().to_string()
}

fn shown(position: Position, change: &Audit) -> Value {
    let settings = |text: &Option<String>| {
        let text = text.as_deref()?;
        Some(serde_json::from_str(text).unwrap_or_else(|_| json!(text)))
    };
    json!({
        "position": shown_position(position),
        "at": time(change.at),
        "who": change.who,
        "what": change.what,
        "subject": change.subject,
        "before": settings(&change.before),
        "after": settings(&change.after),
    })
}
