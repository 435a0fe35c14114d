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
    let outcome = door.agents.retry_letter(&letter).await?;
    let came = json!({"outcome": outcome["outcome"]});
    door.notes(&asked, ("dlq.retry", subject(&letter)), &came).await?;
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
