//! Work that came to nothing: listed, tried again, or put away for good.

use serde_json::{Value, json};

use super::{Answer, Asked, Door, away, told, views};
use crate::error::{Error, Kind};
use crate::store::runs::LetterRow;

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    asked.query(&["limit"])?;
    let owner = if asked.sees_all() { None } else { Some(asked.owner()) };
    let rows = door.gateway.store().letters(owner, asked.limit()?).await;
    let rows = rows.map_err(|failure| away(&failure))?;
    let shown: Vec<Value> = rows.iter().map(views::letter).collect();
    told(&views::page(&shown, None))
}

pub(super) async fn retry(door: Door, asked: Asked) -> Answer {
    let letter = close(&door, &asked, "retried").await?;
    // Before anything happens, and whatever comes of it.
    let run = letter.run.map(|run| run.to_string());
    let tool = serde_json::from_str::<Value>(&letter.payload).unwrap_or_default()["tool"].take();
    let about = json!({"kind": letter.kind, "run": run, "tool": tool});
    door.notes(&asked, ("dlq.retry", subject(&letter)), &about).await?;
    let tried = door.agents.retry_letter(&asked.caller, &letter).await;
    let came = match &tried {
        Ok(outcome) => json!({"outcome": outcome["outcome"], "run": outcome["result"]["run"]}),
        Err(error) => json!({"outcome": error.kind.code()}),
    };
    door.notes(&asked, ("dlq.retried", subject(&letter)), &came).await?;
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
    door.notes(&asked, ("dlq.discard", subject(&letter)), &Value::Null).await?;
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
