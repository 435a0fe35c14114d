//! Work that came to nothing, kept for a person.

use serde::Deserialize;

use super::rows::{self, Whose};
use super::{LetterFilter, LetterRow, NewLetter};
use crate::canon::Owner;
use crate::store::database::{Database, Fault, Row, values};
use crate::store::{Failure, Store};

const COLUMNS: &str =
    "id, (SELECT id FROM runs WHERE position = letters.run), owner, kind, payload,
    error, attempts, at, state";

/// What is looked for in the payload of a letter about a call.
#[derive(Deserialize)]
struct About {
    call_id: String,
}

// === impl Store ===

impl Store {
    /// The newest first.
    pub async fn letters(
        &self,
        filter: LetterFilter,
        limit: u32,
    ) -> Result<Vec<LetterRow>, Failure> {
        let read = move |database: &mut Database| chosen(database, &filter, limit);
        self.read.run(read).await
    }

    /// Closes an open letter as `retried` or `discarded`; `None` where it is not open.
    pub async fn close_letter(
        &self,
        owner: Option<Owner>,
        id: &str,
        state: &'static str,
    ) -> Result<Option<LetterRow>, Failure> {
        let chosen = if owner.is_some() { "AND owner = $3" } else { "" };
        let close = format!(
            "UPDATE letters SET state = $2 WHERE id = $1 AND state = 'open' {chosen}
                RETURNING {COLUMNS}"
        );
        let id = id.to_owned();
        let work = move |database: &mut Database| {
            let mut written = values![&id, state].to_vec();
            written.extend(owner.iter().map(|owner| owner.as_str().into()));
            database.first(&close, &written, letter)
        };
        self.write.run(work).await
    }

    /// What was tried again has come to nothing again: the letter is open as before.
    pub async fn reopen_letter(
        &self,
        id: &str,
        error: String,
        attempts: u32,
    ) -> Result<(), Failure> {
        let reopen = "UPDATE letters SET state = 'open', error = $2, attempts = attempts + $3
            WHERE id = $1 AND state = 'retried'";
        let id = id.to_owned();
        let work = move |database: &mut Database| {
            database.execute(reopen, values![&id, &error, attempts]).map(|_| ())
        };
        self.write.run(work).await
    }
}

fn chosen(
    database: &mut Database,
    filter: &LetterFilter,
    limit: u32,
) -> Result<Vec<LetterRow>, Fault> {
    let LetterFilter { owner, state, before } = filter;
    let before_it = "position < (SELECT position FROM letters WHERE id = ?)";
    let wanted = [
        ("owner = ?", owner.as_ref().map(Owner::as_str)),
        ("state = ?", state.as_deref()),
        (before_it, before.as_deref()),
    ];
    let (mut chosen, mut written) = (vec!["1 = 1".to_owned()], values![limit].to_vec());
    for (condition, value) in wanted {
        let Some(value) = value else { continue };
        written.push(value.into());
        chosen.push(condition.replace('?', &format!("${}", written.len())));
    }
    let chosen = chosen.join(" AND ");
    let query =
        format!("SELECT {COLUMNS} FROM letters WHERE {chosen} ORDER BY position DESC LIMIT $1");
    database.query(&query, &written, letter)
}

// === The statements ===

pub(super) fn keep(
    database: &mut Database,
    whose: &Whose,
    letters: &[NewLetter],
    now: i64,
) -> Result<(), Fault> {
    let mut written = Vec::with_capacity(letters.len() * 9);
    for NewLetter { id, kind, payload, error, attempts } in letters {
        written.extend_from_slice(values![id, whose.run, &whose.owner, kind, payload, error]);
        written.extend_from_slice(values![*attempts, now, "open"]);
    }
    let insert = "INSERT INTO letters (id, run, owner, kind, payload, error, attempts, at, state)
        VALUES";
    database.insert((insert, ""), 9, &written)
}

/// Closes those about calls of a run of which it is known now what became of them.
pub(super) fn settle(database: &mut Database, run: i64, calls: &[String]) -> Result<(), Fault> {
    if calls.is_empty() {
        return Ok(());
    }
    let open = "SELECT id, payload FROM letters
        WHERE run = $1 AND kind = 'unknown_outcome' AND state IN ('open', 'retried')";
    let read = |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<String>(1)?));
    for (id, payload) in database.query(open, values![run], read)? {
        let about = serde_json::from_str::<About>(&payload);
        if about.is_ok_and(|about| calls.contains(&about.call_id)) {
            database.execute("UPDATE letters SET state = 'settled' WHERE id = $1", values![&id])?;
        }
    }
    Ok(())
}

fn letter(row: &Row<'_>) -> Result<LetterRow, Fault> {
    Ok(LetterRow {
        id: row.get(0)?,
        run: rows::maybe_id(row, 1)?,
        owner: rows::owner(row, 2)?,
        kind: row.get(3)?,
        payload: row.get(4)?,
        error: row.get(5)?,
        attempts: rows::small(row, 6)?,
        at: rows::natural(row, 7)?,
        state: row.get(8)?,
    })
}
