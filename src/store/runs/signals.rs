//! What runs are told from outside.

use std::time::Duration;

use super::SignalRow;
use super::rows::{self, whole};
use crate::canon::RunId;
use crate::store::database::{Alone, Database, Fault, Row, values};
use crate::store::{Failure, Store};

/// Where processes tell one another that some run has something to do.
pub(super) const CHANNEL: &str = "switchpoint_runs";
/// When a connection that is gone is made anew.
const AGAIN: Duration = Duration::from_secs(2);

// === impl Store ===

impl Store {
    /// Tells a run something, once: a second signal of the same kind and `once` changes nothing and
    /// gives false, as does one for a run that is over or not there, unless it is feedback, and a
    /// message for one that is at work and may never look. It is on the disk when this returns.
    pub async fn signal_run(
        &self,
        run: RunId,
        kind: &'static str,
        data: String,
        once: Option<String>,
    ) -> Result<bool, Failure> {
        let now = self.now();
        let signal = move |database: &mut Database| {
            database.alone(Alone::Signal)?;
            let Some(position) = rows::position(database, run)? else { return Ok(false) };
            tell(database, position, kind, &data, once.as_deref(), now)
        };
        self.write.run_durable(signal).await
    }

    /// Calls `ring` whenever some process has told a run something or has left one for whoever comes
    /// first. Where processes share no more than a file, nothing rings: they have to look.
    pub async fn listen(&self, ring: impl Fn()) {
        let Some(bell) = &self.bell else { return std::future::pending().await };
        loop {
            if let Err(fault) = bell.listen(CHANNEL, &ring).await {
                let error = Failure::from(fault);
                tracing::debug!(%error, "what other processes tell cannot be heard");
            }
            tokio::time::sleep(AGAIN).await;
            // It may have told something meanwhile.
            ring();
        }
    }

    /// What a run was told behind the signal `after` and has not taken in.
    pub async fn run_signals(&self, run: RunId, after: u64) -> Result<Vec<SignalRow>, Failure> {
        self.signals(run, "number > $2 AND taken = 0", after).await
    }

    /// All that a run was ever told, whether it has taken it in or has ended before.
    pub async fn all_signals(&self, run: RunId) -> Result<Vec<SignalRow>, Failure> {
        self.signals(run, "number > $2", 0).await
    }

    async fn signals(
        &self,
        run: RunId,
        which: &'static str,
        after: u64,
    ) -> Result<Vec<SignalRow>, Failure> {
        let query = format!(
            "SELECT number, kind, data, at FROM signals
            WHERE run = (SELECT position FROM runs WHERE id = $1) AND {which} ORDER BY number"
        );
        let signal = move |row: &Row<'_>| {
            let (number, at) = (rows::natural(row, 0)?, rows::natural(row, 3)?);
            Ok(SignalRow { number, run, kind: row.get(1)?, data: row.get(2)?, at })
        };
        let read = move |database: &mut Database| {
            database.query(&query, values![run.to_string(), whole(after)], signal)
        };
        self.read.run(read).await
    }
}

// === The statements ===

/// Whether it is new. The caller is alone at it, so that numbers become visible in their order: a
/// run takes in all up to one of them.
pub(super) fn tell(
    database: &mut Database,
    run: i64,
    kind: &str,
    data: &str,
    once: Option<&str>,
    now: i64,
) -> Result<bool, Fault> {
    let insert = "INSERT INTO signals (run, kind, data, once, at, taken)
        SELECT position, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT), 0
        FROM runs WHERE position = $1 AND (finished_at IS NULL OR $2 = 'feedback')
            AND ($2 <> 'message' OR state <> 'running')
        ON CONFLICT DO NOTHING";
    let is_new = database.execute(insert, values![run, kind, data, once, now])? > 0;
    if is_new {
        database.notify(CHANNEL)?;
    }
    Ok(is_new)
}

/// Notes that a run has taken in what it was told up to a signal.
pub(super) fn take(database: &mut Database, run: i64, up_to: u64) -> Result<(), Fault> {
    let take = "UPDATE signals SET taken = 1 WHERE run = $1 AND taken = 0 AND number <= $2";
    database.execute(take, values![run, whole(up_to)]).map(|_| ())
}
