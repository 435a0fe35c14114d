//! Questions to people, each answered once.

use super::rows::{self, Whose, whole};
use super::{ApprovalFilter, ApprovalRow, Decided, Decision, NewApproval, signals};
use crate::store::database::{Alone, Database, Fault, Row, values};
use crate::store::{Failure, Store};

/// What tells a run of an answer.
const DECISION: &str = "decision";

/// How one stands at the time `$1`.
const STATE: &str = "CASE WHEN approvals.state = 'pending' AND approvals.expires_at <= $1
    THEN 'expired' ELSE approvals.state END";

// === impl Store ===

impl Store {
    pub async fn approval(&self, id: &str) -> Result<Option<ApprovalRow>, Failure> {
        let (id, now) = (id.to_owned(), self.now());
        let query = select("approvals.id = $2");
        let read =
            move |database: &mut Database| database.first(&query, values![now, &id], approval);
        self.read.run(read).await
    }

    pub async fn approvals(
        &self,
        filter: ApprovalFilter,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, Failure> {
        let now = self.now();
        self.read.run(move |database| list(database, &filter, now, limit)).await
    }

    /// Decides, once, and tells the run; it is on the disk when this returns.
    pub async fn decide(&self, id: &str, decision: Decision) -> Result<Decided, Failure> {
        let (id, now) = (id.to_owned(), self.now());
        self.write.run_durable(move |database| decide(database, &id, &decision, now)).await
    }
}

// === The statements ===

fn list(
    database: &mut Database,
    filter: &ApprovalFilter,
    now: i64,
    limit: u32,
) -> Result<Vec<ApprovalRow>, Fault> {
    let ApprovalFilter { seen_by, role, state, run, root, before } = filter;
    let is_for = |text: &str| database.backend().has("approvals.roles", text);
    let (mut chosen, mut written) = (Vec::new(), values![now, limit].to_vec());
    if let Some((owner, role)) = seen_by {
        written.push(owner.as_str().into());
        let mut seen = format!("approvals.owner = ${}", written.len());
        if let Some(role) = role {
            written.push(role.into());
            seen = format!("({seen} OR {})", is_for(&format!("${}", written.len())));
        }
        chosen.push(seen);
    }
    let before_it = "approvals.position < (SELECT position FROM approvals WHERE id = ?)";
    // By an index, for those that are pending are few among many.
    let is_pending = format!("approvals.state = 'pending' AND {STATE} = ?");
    let is_so = match state.as_deref() {
        Some("pending") => is_pending,
        Some("expired") => format!("{STATE} = ?"),
        _ => "approvals.state = ?".to_owned(),
    };
    let wanted = [
        (is_for("?"), role.clone()),
        ("runs.id = ?".to_owned(), run.map(|it| it.to_string())),
        ("runs.root = ?".to_owned(), root.map(|it| it.to_string())),
        (before_it.to_owned(), before.clone()),
        (is_so, state.clone()),
    ];
    for (condition, value) in wanted {
        let Some(value) = value else { continue };
        written.push(value.into());
        chosen.push(condition.replace('?', &format!("${}", written.len())));
    }
    let chosen = if chosen.is_empty() { "1 = 1".to_owned() } else { chosen.join(" AND ") };
    let query = format!("{} ORDER BY approvals.position DESC LIMIT $2", select(&chosen));
    database.query(&query, &written, approval)
}

fn decide(
    database: &mut Database,
    id: &str,
    decision: &Decision,
    now: i64,
) -> Result<Decided, Fault> {
    // Before anything else, so that two who decide never wait for one another.
    database.alone(Alone::Signal)?;
    let update = "UPDATE approvals SET state = $2, decided_by = $3, decided_at = $4, comment = $5,
            args = COALESCE($6, args), hash = COALESCE($7, hash)
        WHERE id = $1 AND state = 'pending' AND expires_at > $4 RETURNING run";
    let state = if decision.approved { "approved" } else { "denied" };
    let edited = decision.edited.as_ref();
    let (args, hash) = edited.map(|(args, hash)| (&**args, &**hash)).unzip();
    let values = values![id, state, &decision.by, now, &decision.comment, args, hash];
    if let Some(run) = database.first(update, values, |row| row.get(0))? {
        signals::tell(database, run, DECISION, &decision.signal, Some(id), now)?;
        return Ok(Decided::Done);
    }
    let query = format!("SELECT {STATE} FROM approvals WHERE id = $2");
    let state = database.first(&query, values![now, id], |row| row.get(0))?;
    Ok(state.map_or(Decided::Missing, Decided::Already))
}

pub(super) fn ask(
    database: &mut Database,
    whose: &Whose,
    approvals: &[NewApproval],
    now: i64,
) -> Result<(), Fault> {
    let mut written = Vec::with_capacity(approvals.len() * 13);
    for NewApproval { id, call, tool, args, hash, roles, reason, expires_at } in approvals {
        let expires_at = whole(*expires_at);
        written.extend_from_slice(values![id, whose.run, &whose.owner, &whose.agent, call, tool]);
        written.extend_from_slice(values![args, hash, rows::json(roles), reason, "pending", now]);
        written.extend_from_slice(values![expires_at]);
    }
    let insert = "INSERT INTO approvals (id, run, owner, agent, call, tool, args, hash, roles,
        reason, state, created_at, expires_at) VALUES";
    database.insert((insert, ""), 13, &written)
}

/// Those of a run that are open come to nothing.
pub(super) fn withdraw(database: &mut Database, run: i64, now: i64) -> Result<(), Fault> {
    let withdraw = "UPDATE approvals
        SET state = CASE WHEN expires_at <= $2 THEN 'expired' ELSE 'withdrawn' END
        WHERE run = $1 AND state = 'pending'";
    database.execute(withdraw, values![run, now]).map(|_| ())
}

fn select(chosen: &str) -> String {
    format!(
        "SELECT approvals.id, runs.id, approvals.agent, approvals.owner, approvals.call,
            approvals.tool, approvals.args, approvals.hash, approvals.roles, approvals.reason,
            {STATE}, approvals.decided_by, approvals.decided_at, approvals.comment,
            approvals.created_at, approvals.expires_at
        FROM approvals JOIN runs ON runs.position = approvals.run WHERE {chosen}"
    )
}

fn approval(row: &Row<'_>) -> Result<ApprovalRow, Fault> {
    let roles: String = row.get(8)?;
    Ok(ApprovalRow {
        id: row.get(0)?,
        run: rows::id(row, 1)?,
        agent: row.get(2)?,
        owner: rows::owner(row, 3)?,
        call: row.get(4)?,
        tool: row.get(5)?,
        args: row.get(6)?,
        hash: row.get(7)?,
        roles: serde_json::from_str(&roles).map_err(|_| Fault::Odd(8))?,
        reason: row.get(9)?,
        state: row.get(10)?,
        decided_by: row.get(11)?,
        decided_at: rows::maybe(row, 12)?,
        comment: row.get(13)?,
        created_at: rows::natural(row, 14)?,
        expires_at: rows::natural(row, 15)?,
    })
}
