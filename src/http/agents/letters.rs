//! Work that came to nothing: listed, tried again, or put away for good.

use serde_json::{Value, json};

use super::{Answer, Asked, Door, away, told, views};
use crate::error::{Error, Kind};
use crate::store::runs::{LetterFilter, LetterRow};

const STATES: [&str; 4] = ["open", "retried", "settled", "discarded"];

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    let query = asked.query(&["state", "cursor", "limit"])?;
    let filter = LetterFilter {
        owner: if asked.sees_all() { None } else { Some(asked.owner()) },
        state: query.one_of("state", &STATES)?.map(str::to_owned),
        before: query.field("cursor").map(str::to_owned),
    };
    let limit = asked.limit()?;
    let found = door.gateway.store().letters(filter, limit + 1).await;
    let rows = found.map_err(|failure| away(&failure))?;
    told(&views::paged(rows, limit, views::letter, |row| row.id.clone()))
}

pub(super) async fn retry(door: Door, asked: Asked) -> Answer {
    let letter = close(&door, &asked, "retried").await?;
    // Before anything happens, and whatever comes of it.
    let run = letter.run.map(|run| run.to_string());
    let tool = serde_json::from_str::<Value>(&letter.payload).unwrap_or_default()["tool"].take();
    let about = json!({"kind": letter.kind, "run": run, "tool": tool});
    door.notes(&asked, "dlq.retry", subject(&letter), &about).await?;
    let tried = door.agents.retry_letter(&asked.caller, &letter).await;
    let came = match &tried {
        Ok(outcome) => json!({"outcome": outcome["outcome"], "run": outcome["result"]["run"]}),
        Err(error) => json!({"outcome": error.kind.code()}),
    };
    door.notes(&asked, "dlq.retried", subject(&letter), &came).await?;
    let outcome = tried?;
    let mut shown = views::letter(&letter);
    if outcome["outcome"] != "done" {
        shown["state"] = "open".into();
    }
    shown["outcome"] = outcome;
    told(&shown)
}

pub(super) async fn discard(door: Door, asked: Asked) -> Answer {
    let letter = close(&door, &asked, "discarded").await?;
    door.notes(&asked, "dlq.discard", subject(&letter), &Value::Null).await?;
    told(&views::letter(&letter))
}

fn subject(letter: &LetterRow) -> String {
    format!("letter:{}", letter.id)
}

async fn close(door: &Door, asked: &Asked, state: &'static str) -> Result<LetterRow, Error> {
    let owner = if asked.operates() { None } else { Some(asked.owner()) };
    let closed = door.gateway.store().close_letter(owner, &asked.id, state).await;
    let missing = || Error::new(Kind::Missing, format!("There is no open letter `{}`.", asked.id));
    closed.map_err(|failure| away(&failure))?.ok_or_else(missing)
}
