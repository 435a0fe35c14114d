//! Who is at work on which run.

use std::collections::BTreeSet;

use super::rows::{self, COLUMNS, whole};
use super::{Renewed, RunRow};
use crate::canon::RunId;
use crate::store::database::{Database, Fault, Row, values};
use crate::store::{Failure, Store};

/// Which runs have something to do, by the time `$1` and the clock of leases `$4`, and which of them
/// first; in the order in which they are thought of: who was at work goes on before others begin. The tree of a run is led from
/// its root.
const READY: [(&str, &str); 4] = [
    ("state = 'running' AND lease_until <= $4", "lease_until"),
    ("wake_at <= $1 AND state NOT IN ('queued', 'running')", "wake_at"),
    (TOLD, "position"),
    (MAY_BEGIN, "turn, position"),
];

/// Whose turn it is: of those that are queued, the first of whoever has least at work comes first,
/// so nobody waits for all that another one has queued.
const FAIR: &str = "busy AS (SELECT owner, count(*) AS runs FROM runs WHERE state = 'running'
        GROUP BY owner),
    queue AS (SELECT id AS queued, row_number() OVER (PARTITION BY owner ORDER BY position)
        + coalesce((SELECT runs FROM busy WHERE busy.owner = runs.owner), 0) AS turn
        FROM runs WHERE state = 'queued'),";

const TOLD: &str = "state NOT IN ('queued', 'running') AND finished_at IS NULL AND id IN (
    SELECT told.root FROM signals JOIN runs AS told ON told.position = signals.run
    WHERE signals.taken = 0 AND told.finished_at IS NULL)";

/// One that is called off begins only to end, whatever holds it up.
const MAY_BEGIN: &str = "state = 'queued' AND ((wake_at IS NULL OR wake_at <= $1)
    AND agent NOT IN (SELECT agent FROM paused_agents)
    OR runs.position IN (SELECT run FROM signals WHERE kind = 'cancel' AND taken = 0))";

/// What becomes of a run that is taken at the time `$1`, from `$4` on for so long as `$2`. Leases go
/// by the clock of the database, so that no process takes a run from another whose clock is late.
const TAKE: &str =
    "epoch = epoch + 1, lease_until = CAST($4 AS BIGINT) + $2, state = 'running', wake_at = NULL,
    started_at = coalesce(started_at, $1),
    takeovers = takeovers + CASE WHEN state = 'running' THEN 1 ELSE 0 END";

// === impl Store ===

impl Store {
    /// Takes over at most `limit` runs that nobody works at and that have something to do: queued
    /// ones, running ones whose lease is over, waiting ones that have a signal or whose time has
    /// come. `lease`: for how many milliseconds. Runs that another began are left to it, and what
    /// they are told is looked at as if their root had been told.
    pub async fn claim_runs(&self, limit: u32, lease: u64) -> Result<Vec<RunRow>, Failure> {
        let now = self.now();
        self.write.run(move |database| claim(database, limit, now, whole(lease))).await
    }

    /// The same for one run, whatever it waits for and whoever began it; `None` where somebody
    /// holds it, or it is over, or it is queued and its agent is paused.
    pub async fn claim_run(&self, run: RunId, lease: u64) -> Result<Option<RunRow>, Failure> {
        let now = self.now();
        let claim = format!(
            "UPDATE runs SET {TAKE} WHERE id = $3 AND lease_until <= $4 AND finished_at IS NULL
                AND (state <> 'queued' OR {MAY_BEGIN}) RETURNING {COLUMNS}"
        );
        let take = move |database: &mut Database| {
            let clock = database.clock(now)?;
            let values = values![now, whole(lease), run.to_string(), clock];
            database.first(&claim, values, rows::run)
        };
        self.write.run(take).await
    }

    /// Holds the leases of these runs, each by its epoch, for so many milliseconds more; for 0, it
    /// gives them back.
    pub async fn renew_runs(
        &self,
        held: Vec<(RunId, u64)>,
        lease: u64,
    ) -> Result<Renewed, Failure> {
        let now = self.now();
        self.write.run(move |database| renew(database, &held, now, whole(lease))).await
    }

    /// Agents of which no queued run begins.
    pub async fn paused_agents(&self) -> Result<Vec<String>, Failure> {
        let query = "SELECT agent FROM paused_agents ORDER BY agent";
        self.read.run(move |database| database.query(query, &[], |row| row.get(0))).await
    }

    pub async fn pause_agent(&self, agent: &str, paused: bool) -> Result<(), Failure> {
        let (agent, now) = (agent.to_owned(), self.now());
        let pause = move |database: &mut Database| {
            if paused {
                let insert = "INSERT INTO paused_agents (agent, at) VALUES ($1, $2)
                    ON CONFLICT DO NOTHING";
                return database.execute(insert, values![&agent, now]);
            }
            database.notify(super::signals::CHANNEL)?;
            database.execute("DELETE FROM paused_agents WHERE agent = $1", values![&agent])
        };
        self.write.run_durable(pause).await.map(|_| ())
    }
}

// === The statements ===

fn claim(database: &mut Database, limit: u32, now: i64, lease: i64) -> Result<Vec<RunRow>, Fault> {
    let clock = database.clock(now)?;
    let lock = database.backend().unheld();
    let (mut claimed, mut left) = (Vec::new(), limit as usize);
    for (ready, first) in READY {
        if left == 0 {
            break;
        }
        let (fair, from, lock) = if ready == MAY_BEGIN {
            let lock = lock.replace("FOR UPDATE", "FOR UPDATE OF runs");
            (FAIR, "queue JOIN runs ON id = queued", lock)
        } else {
            ("", "runs", lock.to_owned())
        };
        let claim = format!(
            "WITH {fair} ready AS (SELECT id FROM {from} WHERE {ready} AND parent IS NULL
                ORDER BY {first} LIMIT $3 {lock})
            UPDATE runs SET {TAKE} WHERE id IN (SELECT id FROM ready) RETURNING {COLUMNS}"
        );
        let values = values![now, lease, whole(left as u64), clock];
        let taken = database.query(&claim, values, rows::run)?;
        left = left.saturating_sub(taken.len());
        claimed.extend(taken);
    }
    Ok(claimed)
}

fn renew(
    database: &mut Database,
    held: &[(RunId, u64)],
    now: i64,
    lease: i64,
) -> Result<Renewed, Fault> {
    let until = database.clock(now)?.saturating_add(lease);
    let epochs: serde_json::Map<_, _> =
        held.iter().map(|(run, epoch)| (run.to_string(), (*epoch).into())).collect();
    let epochs = rows::json(&epochs);
    let members = database.backend().members("CAST($1 AS TEXT)");
    let renew = format!(
        "UPDATE runs SET lease_until = $2 FROM {members} AS held
        WHERE runs.id = held.key AND runs.epoch = CAST(held.value AS BIGINT)
            AND runs.lease_until > 0
        RETURNING runs.id"
    );
    let id = |row: &Row<'_>| rows::id(row, 0);
    let renewed = database.query(&renew, values![&epochs, until], id)?;
    let renewed: BTreeSet<RunId> = renewed.into_iter().collect();
    let lost = held.iter().map(|(run, _)| *run).filter(|run| !renewed.contains(run)).collect();
    // Whoever works above one that was told something has to see to it.
    let told = "WITH RECURSIVE told (id, parent) AS (
            SELECT runs.id, runs.parent FROM signals JOIN runs ON runs.position = signals.run
                WHERE signals.taken = 0 AND runs.finished_at IS NULL
            UNION SELECT above.id, above.parent FROM told JOIN runs AS above
                ON above.id = told.parent)
        SELECT id FROM told";
    let told: BTreeSet<RunId> = database.query(told, &[], id)?.into_iter().collect();
    Ok(Renewed { lost, signalled: renewed.intersection(&told).copied().collect() })
}
