//! What others are told of runs: kept with the journal, and sent until it was heard.

use super::letters;
use super::rows::{self, Whose, whole};
use super::{DeliveryRow, NewDelivery, NewLetter, Sending};
use crate::store::database::{Database, Fault, Row, values};
use crate::store::{Failure, Store};

// === impl Store ===

impl Store {
    /// Takes at most `limit` that are due, the oldest first. Nobody else gets them for so many
    /// milliseconds.
    pub async fn take_deliveries(
        &self,
        limit: u32,
        held: u64,
    ) -> Result<Vec<DeliveryRow>, Failure> {
        let now = self.now();
        let until = now.saturating_add(whole(held));
        self.write.run(move |database| take(database, limit, now, until)).await
    }

    /// What became of an attempt. One that was given up is a letter.
    pub async fn settle_delivery(&self, id: &str, sending: Sending) -> Result<(), Failure> {
        let (id, now) = (id.to_owned(), self.now());
        self.write.run(move |database| settle(database, &id, &sending, now)).await
    }

    /// Has one that was given up sent again; whether there is one.
    pub async fn resend_delivery(&self, id: &str) -> Result<bool, Failure> {
        let (id, now) = (id.to_owned(), self.now());
        let resend = "UPDATE deliveries SET state = 'pending', attempts = 0, due = $2
            WHERE id = $1 AND state = 'failed'";
        let work = move |database: &mut Database| database.execute(resend, values![&id, now]);
        self.write.run(work).await.map(|changed| changed > 0)
    }
}

// === The statements ===

pub(super) fn keep(
    database: &mut Database,
    whose: &Whose,
    deliveries: &[NewDelivery],
    now: i64,
) -> Result<(), Fault> {
    let mut written = Vec::with_capacity(deliveries.len() * 8);
    for NewDelivery { id, hook, body } in deliveries {
        written.extend_from_slice(values![id, whose.run, hook, body, 0_i64, now, now, "pending"]);
    }
    let insert = "INSERT INTO deliveries (id, run, hook, body, attempts, due, created_at, state)
        VALUES";
    // The same news is told once, whoever finds it twice.
    database.insert((insert, "ON CONFLICT DO NOTHING"), 8, &written)
}

fn take(
    database: &mut Database,
    limit: u32,
    now: i64,
    until: i64,
) -> Result<Vec<DeliveryRow>, Fault> {
    let lock = database.backend().unheld();
    let take = format!(
        "WITH open AS (SELECT position FROM deliveries WHERE state = 'pending' AND due <= $1
            ORDER BY due LIMIT $3 {lock})
        UPDATE deliveries SET due = $2, attempts = attempts + 1
        WHERE position IN (SELECT position FROM open) RETURNING id, hook, body, attempts"
    );
    let delivery = |row: &Row<'_>| {
        let (id, hook, body) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(DeliveryRow { id, hook, body, attempts: rows::small(row, 3)? })
    };
    database.query(&take, values![now, until, limit], delivery)
}

fn settle(database: &mut Database, id: &str, sending: &Sending, now: i64) -> Result<(), Fault> {
    let (state, due) = match sending {
        Sending::Delivered => ("delivered", now),
        Sending::Later(wait) => ("pending", now.saturating_add(whole(*wait))),
        Sending::GivenUp { .. } => ("failed", now),
    };
    let update = "UPDATE deliveries SET state = $2, due = $3 WHERE id = $1 AND state = 'pending'
        RETURNING run, (SELECT owner FROM runs WHERE position = run),
            (SELECT agent FROM runs WHERE position = run)";
    let whose =
        |row: &Row<'_>| Ok(Whose { run: row.get(0)?, owner: row.get(1)?, agent: row.get(2)? });
    let whose = database.first(update, values![id, state, due], whose)?;
    match (sending, whose) {
        (Sending::GivenUp { letter }, Some(whose)) => {
            letters::keep(database, &whose, std::slice::from_ref::<NewLetter>(letter), now)
        }
        _ => Ok(()),
    }
}
