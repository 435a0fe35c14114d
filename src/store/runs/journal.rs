//! Runs begin, and their journals grow.

use serde::Deserialize;

use super::rows::{self, COLUMNS, Whose, whole};
use super::{Append, Appended, Begun, EventRow, NewEvent, NewRun, RunFilter, RunRow};
use super::{approvals, blobs, deliveries, letters, sessions, signals};
use crate::canon::{Owner, RunId, RunState};
use crate::store::database::{Alone, Backend, Database, Fault, Row, Value, values};
use crate::store::{Failure, Store, audit};

/// The kind of event of which there is one for each call of a model.
const ANSWER: &str = "model.completed";

/// What is looked for in the data of such an event.
#[derive(Deserialize)]
struct Answer {
    call: i64,
}

/// Conditions on runs, each with one value in the place of its `?`.
struct Where {
    text: String,
    values: Vec<Value<'static>>,
}

// === impl Store ===

impl Store {
    /// Puts a run into the store. In a session it becomes its head, unless another one has become
    /// that. One that is queued is on the
    /// disk when this returns, whatever the database does otherwise.
    pub async fn begin_run(&self, run: NewRun) -> Result<Begun, Failure> {
        let now = self.now();
        let is_durable = run.state == RunState::Queued;
        let work = move |database: &mut Database| begin(database, &run, now);
        if is_durable { self.write.run_durable(work).await } else { self.write.run(work).await }?
            .ok_or_else(|| Failure::new("a run of this id is somebody else's".to_owned()))
    }

    /// Adds to a journal.
    pub async fn append_run(&self, append: Append) -> Result<Appended, Failure> {
        let now = self.now();
        let is_durable = append.durable;
        let work = move |database: &mut Database| add(database, &append, now);
        if is_durable { self.write.run_durable(work).await } else { self.write.run(work).await }?
            .ok_or_else(|| Failure::new("the journal of a run goes on elsewhere".to_owned()))
    }

    /// `owner`: `None` for operators.
    pub async fn run(&self, owner: Option<&Owner>, run: RunId) -> Result<Option<RunRow>, Failure> {
        let owner = owner.cloned();
        let find = move |database: &mut Database| {
            let found = find(database, run)?;
            Ok(found.filter(|row| owner.as_ref().is_none_or(|owner| row.owner == *owner)))
        };
        self.read.run(find).await
    }

    pub async fn runs(&self, filter: RunFilter, limit: u32) -> Result<Vec<RunRow>, Failure> {
        self.read.run(move |database| list(database, &filter, limit)).await
    }

    /// The journal behind the entry `after`.
    pub async fn run_events(
        &self,
        run: RunId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Failure> {
        let query = "SELECT seq, at, kind, data FROM events
            WHERE run = (SELECT position FROM runs WHERE id = $1) AND seq > $2
            ORDER BY seq LIMIT $3";
        let read = move |database: &mut Database| {
            database.query(query, values![run.to_string(), whole(after), limit], rows::event)
        };
        self.read.run(read).await
    }
}

// === The statements ===

/// `None` where another owner has a run of this id.
fn begin(database: &mut Database, run: &NewRun, now: i64) -> Result<Option<Begun>, Fault> {
    if !run.told.is_empty() {
        database.alone(Alone::Signal)?;
    }
    let Some(position) = insert(database, run, now)? else { return known(database, run) };
    if let Some(session) = &run.session
        && !sessions::lead(database, session, run, now)?
    {
        // As if it had never been there.
        database.execute("DELETE FROM runs WHERE position = $1", values![position])?;
        return Ok(Some(Begun::Overtaken));
    }
    note(database, position, 0, &run.events, now)?;
    for (kind, data) in &run.told {
        signals::tell(database, position, kind, data, None, now)?;
    }
    if run.state == RunState::Queued {
        database.notify(signals::CHANNEL)?;
    }
    Ok(Some(Begun::New { epoch: u64::from(run.state == RunState::Running) }))
}

/// Its position, unless it is there.
fn insert(database: &mut Database, run: &NewRun, now: i64) -> Result<Option<i64>, Fault> {
    let insert = r#"INSERT INTO runs (id, root, parent, agent, version, definition, owner, key,
            "user", session, idempotency, request, trigger, labels, state, created_at, started_at,
            finished_at, last_seq, epoch, lease_until, steps, tool_calls, tokens_in, tokens_out,
            cost, takeovers)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, 0, 0, 0, 0, 0, 0)
        ON CONFLICT DO NOTHING RETURNING position"#;
    let NewRun { id, root, parent, agent, version, definition, owner, key, user, .. } = run;
    let NewRun { session, idempotency, trigger, labels, state, events, lease, .. } = run;
    let parent = parent.map(|parent| parent.to_string());
    let (idempotency, request) =
        idempotency.as_ref().map(|(key, request)| (&**key, &**request)).unzip();
    let runs = *state == RunState::Running;
    let mut written = Vec::with_capacity(21);
    written.extend_from_slice(values![id.to_string(), root.to_string(), &parent, agent, version]);
    written.extend_from_slice(values![definition, owner.as_str(), key, user, session]);
    written.extend_from_slice(values![idempotency, request, trigger, rows::json(labels)]);
    written.extend_from_slice(values![state.name(), now, runs.then_some(now)]);
    written.extend_from_slice(values![state.is_over().then_some(now), whole(events.len() as u64)]);
    let until = if runs { database.clock(now)?.saturating_add(whole(*lease)) } else { 0 };
    written.extend_from_slice(values![i64::from(runs), until]);
    database.first(insert, &written, |row| row.get(0))
}

impl Store {
    /// What was asked for by an idempotency key, which stands here with the digest of what is asked
    /// now: the run, or something else.
    pub async fn run_by_key(
        &self,
        owner: &Owner,
        asked: (String, String),
    ) -> Result<Option<Begun>, Failure> {
        let owner = owner.clone();
        self.read.run(move |database: &mut Database| by_key(database, &owner, &asked)).await
    }
}

/// What stands in the way of a run.
fn known(database: &mut Database, run: &NewRun) -> Result<Option<Begun>, Fault> {
    if let Some(row) = find(database, run.id)? {
        let is_same = row.owner == run.owner;
        return Ok(is_same.then(|| Begun::Known(Box::new(row))));
    }
    let Some(asked) = &run.idempotency else { return Ok(None) };
    by_key(database, &run.owner, asked)
}

fn by_key(
    database: &mut Database,
    owner: &Owner,
    (key, request): &(String, String),
) -> Result<Option<Begun>, Fault> {
    let query =
        format!("SELECT {COLUMNS}, request FROM runs WHERE owner = $1 AND idempotency = $2");
    let read = |row: &Row<'_>| Ok((rows::run(row)?, row.get::<Option<String>>(26)?));
    let found = database.first(&query, values![owner.as_str(), key], read)?;
    Ok(found.map(|(row, other)| {
        let is_same = other.as_ref() == Some(request);
        if is_same { Begun::Known(Box::new(row)) } else { Begun::Conflict }
    }))
}

/// `None` where the entries before are not those that were said.
fn add(database: &mut Database, append: &Append, now: i64) -> Result<Option<Appended>, Fault> {
    // First, for it tells whether anything may be written, and keeps others from taking the run.
    let update = "UPDATE runs SET last_seq = $4, state = $5, reason = $6, wake_at = $7,
            finished_at = $8, steps = $9, tool_calls = $10, tokens_in = $11, tokens_out = $12,
            cost = $13, bytes = $14, lease_until = CASE WHEN $5 = 'running' THEN lease_until ELSE 0 END
        WHERE id = $1 AND epoch = $2 AND last_seq = $3 AND lease_until > 0
        RETURNING position, owner, agent";
    let Append { run, epoch, after, events, state, reason, totals, wake_at, .. } = append;
    let last = whole(after.saturating_add(events.len() as u64));
    let is_over = state.is_over();
    let wake_at = wake_at.filter(|_| !is_over).map(whole);
    let mut written = Vec::with_capacity(14);
    written.extend_from_slice(values![run.to_string(), whole(*epoch), whole(*after), last]);
    written.extend_from_slice(values![state.name(), reason, wake_at, is_over.then_some(now)]);
    written.extend_from_slice(values![totals.steps, totals.tool_calls, whole(totals.tokens_in)]);
    written.extend_from_slice(values![
        whole(totals.tokens_out),
        whole(totals.cost),
        whole(totals.bytes)
    ]);
    let whose =
        |row: &Row<'_>| Ok(Whose { run: row.get(0)?, owner: row.get(1)?, agent: row.get(2)? });
    let Some(whose) = database.first(update, &written, whose)? else {
        let held = "SELECT 1 FROM runs WHERE id = $1 AND epoch = $2 AND lease_until > 0";
        let held = database.first(held, values![run.to_string(), whole(*epoch)], |_| Ok(()))?;
        return Ok(held.is_none().then_some(Appended::LeaseLost));
    };
    note(database, whose.run, *after, events, now)?;
    let taken = if is_over { u64::MAX } else { append.signals };
    if taken > 0 {
        signals::take(database, whose.run, taken)?;
    }
    if append.withdraw {
        approvals::withdraw(database, whose.run, now)?;
    }
    approvals::ask(database, &whose, &append.approvals, now)?;
    letters::settle(database, whose.run, &append.settled)?;
    letters::keep(database, &whose, &append.letters, now)?;
    blobs::keep(database, whose.run, &append.blobs)?;
    deliveries::keep(database, &whose, &append.deliveries, now)?;
    audit::wait(database, &append.audits)?;
    Ok(Some(Appended::Done))
}

/// Puts entries behind the one of the number `after`.
fn note(
    database: &mut Database,
    run: i64,
    after: u64,
    events: &[NewEvent],
    now: i64,
) -> Result<(), Fault> {
    let mut written = Vec::with_capacity(events.len() * 6);
    for (number, NewEvent { kind, data }) in (whole(after) + 1..).zip(events) {
        let call = if *kind == ANSWER { Some(call(data)?) } else { None };
        written.extend_from_slice(values![run, number, now, *kind, data, call]);
    }
    let insert = "INSERT INTO events (run, seq, at, kind, data, call) VALUES";
    database.insert((insert, ""), 6, &written)?;
    Ok(())
}

/// Which call of a model was answered.
fn call(data: &str) -> Result<i64, Fault> {
    serde_json::from_str::<Answer>(data).map(|answer| answer.call).map_err(|_| Fault::Odd(4))
}

fn find(database: &mut Database, run: RunId) -> Result<Option<RunRow>, Fault> {
    let query = format!("SELECT {COLUMNS} FROM runs WHERE id = $1");
    database.first(&query, values![run.to_string()], rows::run)
}

fn list(database: &mut Database, filter: &RunFilter, limit: u32) -> Result<Vec<RunRow>, Fault> {
    let mut chosen = Where::of(filter, database.backend());
    chosen.values.push(limit.into());
    let query = format!(
        "SELECT {COLUMNS} FROM runs {} ORDER BY position DESC LIMIT ${}",
        chosen.text,
        chosen.values.len()
    );
    database.query(&query, &chosen.values, rows::run)
}

// === impl Where ===

impl Where {
    fn of(filter: &RunFilter, backend: Backend) -> Self {
        let RunFilter { owner, agent, state, user, session, label, since, root, before } = filter;
        let labelled = format!(
            "EXISTS (SELECT 1 FROM {} AS one WHERE one.key || '=' || one.value = ?)",
            backend.members("runs.labels")
        );
        let text = |text: &str| Value::from(text.to_owned());
        let conditions = [
            ("owner = ?", owner.as_ref().map(|owner| text(owner.as_str()))),
            ("agent = ?", agent.as_deref().map(text)),
            ("state = ?", state.map(|state| text(state.name()))),
            (r#""user" = ?"#, user.as_deref().map(text)),
            ("session = ?", session.as_deref().map(text)),
            (&labelled, label.as_ref().map(|(key, value)| text(&format!("{key}={value}")))),
            ("created_at >= ?", since.map(|since| whole(since).into())),
            ("root = ?", root.map(|root| root.to_string().into())),
            (
                "position < (SELECT position FROM runs WHERE id = ?)",
                before.map(|run| run.to_string().into()),
            ),
        ];
        let mut chosen = Self { text: String::new(), values: Vec::new() };
        for (condition, value) in conditions {
            let Some(value) = value else { continue };
            chosen.text += if chosen.values.is_empty() { "WHERE " } else { " AND " };
            chosen.values.push(value);
            chosen.text += &condition.replace('?', &format!("${}", chosen.values.len()));
        }
        chosen
    }
}
