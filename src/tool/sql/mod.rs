//! Tools that ask a database: statements of the operator's, or any query of whoever calls.

mod template;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::template::Template;
use super::kept::Net;
use super::{Answer, Attempt, Definition, Failure, FailureKind, Invocation, Runner, Sent, Tool};
use crate::canon::Effect;
use crate::config::{self, SqlTool, StoreUrl};
use crate::store::foreign::{Access, Ask, Foreign, Refusal, Table};

/// The longest statement of a model's.
const LONGEST: usize = 20_000;
/// The tool of a source that takes any query.
const QUERY: &str = "query";

/// Runs one statement, or one that it is given.
#[derive(Debug)]
struct Statement {
    database: Arc<Database>,
    template: Option<Template>,
    access: Access,
    rows: usize,
    bytes: usize,
    patience: Duration,
}

/// The database, at the address that it has at the moment: its password may change.
#[derive(Debug)]
struct Database {
    net: Net,
    open: Mutex<(StoreUrl, Foreign)>,
}

/// The tools of one database: `SOURCE.TEMPLATE`, or `SOURCE.query`.
pub(super) fn tools(
    name: &str,
    terms: &Arc<config::Tool>,
    sql: &SqlTool,
    net: &Net,
) -> Result<Vec<Tool>, String> {
    let database = Arc::new(Database::open(&sql.database, net)?);
    let statement = |template, access| Statement {
        database: Arc::clone(&database),
        template,
        access,
        rows: sql.max_rows,
        bytes: terms.max_result,
        patience: sql.statement_timeout,
    };
    let make = |tool: &str, effect, (description, input), runner| {
        let definition = Definition {
            name: format!("{name}.{tool}"),
            description,
            effect,
            input,
            output: None,
            is_held_to_it: false,
            version: None,
            terms: Arc::clone(terms),
        };
        Tool::new(definition, Arc::new(runner)).map_err(|why| format!("{tool}: {why}"))
    };
    if sql.select_only {
        let described = (query_description(&terms.description, sql), query_schema());
        return Ok(vec![make(QUERY, Effect::Read, described, statement(None, Access::Chosen))?]);
    }
    let tool = |(tool, written): (&String, &config::SqlTemplate)| {
        let named = |why: String| format!("{tool}: {why}");
        let template = Template::parse(&written.sql).map_err(named)?;
        let input = template.schema(written).map_err(named)?;
        // What is not said to change something cannot: the database sees to it.
        let effect = terms.effect_of(tool).unwrap_or(Effect::Read);
        let access = if effect == Effect::Read { Access::Read } else { Access::Write };
        let described = (described(&terms.description, written), input);
        make(tool, effect, described, statement(Some(template), access))
    };
    sql.templates.iter().map(tool).collect()
}

/// What is written for the statement, or the comment before it.
fn described(source: &str, written: &config::SqlTemplate) -> String {
    let comment = || {
        let lines = written.sql.lines().map(str::trim);
        let comments = lines.map_while(|line| line.strip_prefix("--")).map(str::trim);
        comments.collect::<Vec<_>>().join(" ")
    };
    let own = if written.description.is_empty() { comment() } else { written.description.clone() };
    [source, own.as_str()].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

fn query_description(source: &str, sql: &SqlTool) -> String {
    let (kind, schema) = match sql.database {
        StoreUrl::Postgres(_) => ("PostgreSQL", "information_schema.columns"),
        StoreUrl::Sqlite(_) | StoreUrl::Memory => ("SQLite", "sqlite_schema"),
    };
    let rows = sql.max_rows;
    let text = format!(
        "Runs one read-only SELECT in {kind} and returns at most {rows} rows. What tables and \
         columns there are stands in {schema}."
    );
    if source.is_empty() { text } else { format!("{source} {text}") }
}

fn query_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "sql": {
                "type": "string",
                "description": "One SELECT or WITH … SELECT statement.",
                "minLength": 1,
                "maxLength": LONGEST,
            }
        },
        "required": ["sql"],
        "additionalProperties": false,
    })
}

// === impl Database ===

impl Database {
    fn open(url: &StoreUrl, net: &Net) -> Result<Self, String> {
        let foreign = Foreign::open(url).map_err(|failure| failure.to_string())?;
        Ok(Self { net: net.clone(), open: Mutex::new((url.clone(), foreign)) })
    }

    /// The connections to it. Those to another address end when their statements have.
    async fn now(&self) -> Foreign {
        let (url, foreign) = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let StoreUrl::Postgres(known) = &url else { return foreign };
        let Some(now) = self.net.renewed(known, None).await else { return foreign };
        let url = StoreUrl::Postgres(now);
        let Ok(opened) = Foreign::open(&url) else {
            tracing::warn!("the address of a tool's database stays as it was known");
            return foreign;
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = (url, opened.clone());
        opened
    }
}

// === impl Statement ===

impl Runner for Statement {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        Box::pin(async move {
            let until = call.deadline.min(Instant::now() + self.patience);
            let (sql, values) = match &self.template {
                Some(template) => (template.sql.as_str(), template.values(&call.args)),
                None => (call.args["sql"].as_str().unwrap_or_default(), Vec::new()),
            };
            let (access, rows, bytes) = (self.access, self.rows, self.bytes);
            let ask = Ask { sql: Arc::from(sql), values, access, rows, bytes, until };
            let foreign = self.database.now().await;
            foreign.ask(ask).await.map(answer).map_err(|refusal| failure(&refusal, access))
        })
    }
}

fn answer(table: Table) -> Answer {
    let Table { rows, truncated, changed } = table;
    let value = match changed {
        Some(changed) => json!({"changed_rows": changed}),
        None if truncated => json!({"row_count": rows.len(), "more_rows": true, "rows": rows}),
        None => json!({"row_count": rows.len(), "rows": rows}),
    };
    Answer { truncated, ..Answer::json(value) }
}

fn failure(refusal: &Refusal, access: Access) -> Failure {
    let message = refusal.to_string();
    let (kind, sent) = match refusal {
        Refusal::Away => (FailureKind::Unreachable, Sent::Refused),
        Refusal::Login => (FailureKind::Auth, Sent::Never),
        Refusal::Statement(_) => (FailureKind::Soft, Sent::Refused),
        // The same query is no faster the next time: whoever wrote it must ask for less.
        Refusal::Slow if access == Access::Chosen => (FailureKind::Soft, Sent::Refused),
        Refusal::Slow => (FailureKind::Timeout, Sent::Refused),
        Refusal::Unsure(_) => (FailureKind::Timeout, Sent::Maybe),
    };
    Failure::new(kind, message).sent(sent)
}
