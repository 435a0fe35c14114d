//! Turns that replicas take one after the other by way of their database, where there is no other
//! store that they share.

use std::time::Duration;

use super::database::{Alone, Database, Fault, Row, values};
use super::shared::Turn;
use super::{Failure, Store};

/// Parts of a span in which turns are counted together: each counts until its part is a whole span
/// old, a little longer than it must and never shorter.
const PARTS: u64 = 60;

// === impl Store ===

impl Store {
    /// Takes a turn of each of these, or of none: how long until it may be worth asking again.
    pub(super) async fn take_turns(
        &self,
        turns: Vec<Turn>,
    ) -> Result<Result<(), Duration>, Failure> {
        let now = self.now();
        self.write.run(move |database| take(database, &turns, now)).await
    }
}

fn take(database: &mut Database, turns: &[Turn], now: i64) -> Result<Result<(), Duration>, Fault> {
    database.alone(Alone::Turn)?;
    let now = database.clock(now)?;
    database.execute("DELETE FROM turns WHERE gone_at <= $1", values![now])?;
    let mut wait = None;
    for turn in turns {
        let taken = "SELECT CAST(coalesce(sum(taken), 0) AS BIGINT), coalesce(min(gone_at), $3)
            FROM turns WHERE name = $1 AND seconds = $2";
        let next = now.saturating_add(whole(turn.part()));
        let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
        let known = database.first(taken, values![&turn.name, whole(turn.seconds), next], read)?;
        let full = known.filter(|(taken, _)| *taken >= whole(turn.amount));
        wait = wait.max(full.map(|(_, gone_at)| gone_at.saturating_sub(now).max(1)));
    }
    if let Some(wait) = wait {
        return Ok(Err(Duration::from_millis(wait.unsigned_abs())));
    }
    for turn in turns {
        let length = whole(turn.part());
        let part = now / length;
        let gone_at = (part + whole(PARTS) + 1).saturating_mul(length);
        let put = "INSERT INTO turns (name, seconds, part, taken, gone_at)
            VALUES ($1, $2, $3, 1, $4)
            ON CONFLICT (name, seconds, part) DO UPDATE SET taken = turns.taken + 1";
        database.execute(put, values![&turn.name, whole(turn.seconds), part, gone_at])?;
    }
    Ok(Ok(()))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// === impl Turn ===

impl Turn {
    /// Milliseconds that are counted together.
    fn part(&self) -> u64 {
        self.seconds.saturating_mul(1000).div_ceil(PARTS).max(1)
    }
}
