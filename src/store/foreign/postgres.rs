//! Somebody else's Postgres. Queries stand in parentheses, where its grammar lets nothing else
//! stand, in a transaction that it lets change nothing; it counts rows and bytes itself, so that no
//! more is sent than is taken.

use std::error::Error;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement, Transaction};

use super::{Access, Ask, Gathered, Patience, Refusal, Table, distinct};
use crate::store::database::Fault;
use crate::store::postgres::Address;

/// How long a connection may take to come about, and a cancellation to be heard.
const CONNECT: Duration = Duration::from_secs(3);
/// Rows that are taken at once.
const STEP: i32 = 100;
/// Whether a role can do what no transaction keeps from happening.
const MIGHTY: &str = "SELECT current_setting('is_superuser') = 'on' OR EXISTS (SELECT 1 FROM \
    pg_roles WHERE (rolsuper OR rolreplication OR rolname IN ('pg_execute_server_program', \
    'pg_read_server_files', 'pg_write_server_files', 'pg_signal_backend')) \
    AND pg_has_role(oid, 'MEMBER'))";

/// Connected when it is first asked, and then kept connected.
pub(super) struct Server {
    address: Address,
    /// What drives the connection while a statement is waited for.
    runtime: Option<Runtime>,
    line: Option<Line>,
}

struct Line {
    client: Client,
    is_mighty: bool,
}

/// A value in the words of a statement: the server reads it as the type that it needs.
#[derive(Debug)]
struct Worded<'a>(&'a Json);

// === impl Server ===

impl Server {
    pub(super) fn at(address: Address) -> Self {
        Self { address, runtime: None, line: None }
    }

    pub(super) fn ask(&mut self, ask: &Ask, patience: &Patience) -> Result<Table, Refusal> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|_| Refusal::Away)?,
        };
        let answer = runtime.block_on(self.ask_in_time(&runtime, ask, patience));
        self.runtime = Some(runtime);
        answer
    }

    async fn ask_in_time(
        &mut self,
        runtime: &Runtime,
        ask: &Ask,
        patience: &Patience,
    ) -> Result<Table, Refusal> {
        let mut line = self.line(runtime).await?;
        let token = line.client.cancel_token();
        let answer = tokio::select! {
            answer = line.ask(ask, patience.left()) => answer,
            // The server stops it itself; this is for when it cannot, or nobody waits any more.
            () = patience.ends() => {
                let cancelled = token.cancel_query(self.address.secure());
                let _ = tokio::time::timeout(CONNECT, cancelled).await;
                // Half a transaction is open on it.
                return Err(match ask.access {
                    Access::Write => Refusal::Unsure("it was stopped at its end".to_owned()),
                    Access::Chosen | Access::Read => Refusal::Slow,
                });
            }
        };
        if !line.client.is_closed() {
            self.line = Some(line);
        }
        answer
    }

    /// A connection on which something was just heard.
    async fn line(&mut self, runtime: &Runtime) -> Result<Line, Refusal> {
        if let Some(line) = self.line.take() {
            let heard = tokio::time::timeout(CONNECT, line.client.check_connection()).await;
            if heard.is_ok_and(|heard| heard.is_ok()) {
                return Ok(line);
            }
        }
        let (client, connection) = self.address.open().await.map_err(away)?;
        runtime.spawn(async move {
            // The statement that is waited for tells the same.
            let _ = connection.await;
        });
        let row = client.query_one(MIGHTY, &[]).await.map_err(|error| away(error.into()))?;
        Ok(Line { client, is_mighty: row.try_get(0).unwrap_or(true) })
    }
}

fn away(fault: Fault) -> Refusal {
    let is_login = matches!(&fault, Fault::Postgres(error)
        if error.code().is_some_and(|code| code.code().starts_with("28")));
    let failure = crate::store::Failure::from(fault);
    tracing::warn!(error = %failure, "a tool's database cannot be reached");
    if is_login { Refusal::Login } else { Refusal::Away }
}

// === impl Line ===

impl Line {
    async fn ask(&mut self, ask: &Ask, left: Duration) -> Result<Table, Refusal> {
        if self.is_mighty && ask.access == Access::Chosen {
            let why = "a model's statements are not run with the rights of a superuser; the \
                       operator must give this tool a role that may only read what it is for";
            return Err(Refusal::Statement(why.to_owned()));
        }
        let table = self.transact(ask, left).await;
        if ask.access == Access::Chosen {
            // The only thing that a query takes and the end of its transaction does not give back.
            let released = self.client.batch_execute("SELECT pg_advisory_unlock_all()").await;
            released.map_err(told)?;
        }
        table
    }

    async fn transact(&mut self, ask: &Ask, left: Duration) -> Result<Table, Refusal> {
        let may_write = ask.access == Access::Write;
        let begun = self.client.build_transaction().read_only(!may_write).start().await;
        let transaction = begun.map_err(told)?;
        let limit = format!("SET LOCAL statement_timeout = {}", left.as_millis().max(1));
        transaction.batch_execute(&limit).await.map_err(told)?;
        let table = run(&transaction, ask).await?;
        if !may_write {
            transaction.rollback().await.map_err(told)?;
            return Ok(table);
        }
        transaction.commit().await.map_err(|error| match error.as_db_error() {
            Some(_) => told(error),
            None => Refusal::Unsure("the connection was lost at its end".to_owned()),
        })?;
        Ok(table)
    }
}

async fn run(transaction: &Transaction<'_>, ask: &Ask) -> Result<Table, Refusal> {
    // Two statements cannot be prepared as one.
    let plain = transaction.prepare(&ask.sql).await.map_err(told)?;
    let mut gathered = Gathered::new(ask);
    let values: Vec<_> = ask.values.iter().map(Worded).collect();
    let values: Vec<_> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    if values.len() != plain.params().len() {
        return Err(Refusal::Statement("the statement has other parameters".to_owned()));
    }
    if plain.columns().is_empty() && ask.access == Access::Write {
        let changed = transaction.execute(&plain, &values).await.map_err(told)?;
        gathered.table.changed = Some(changed);
        return Ok(gathered.table);
    }
    let statement = transaction.prepare(&counted(ask, &plain)).await.map_err(told)?;
    let portal = transaction.bind(&statement, &values).await.map_err(told)?;
    loop {
        let rows = transaction.query_portal(&portal, STEP).await.map_err(told)?;
        for row in &rows {
            let text: Option<&str> = row.try_get(0).map_err(told)?;
            // What is not sent is one byte too long.
            let size = text.map_or(usize::MAX, str::len);
            let row = serde_json::from_str(text.unwrap_or("{}")).unwrap_or_default();
            if !gathered.take(|| row, size) {
                return Ok(gathered.table);
            }
        }
        if rows.len() < STEP as usize {
            return Ok(gathered.table);
        }
    }
}

/// The statement in parentheses, its rows as JSON: one more than may be taken, and of too many
/// bytes only that they are too many.
fn counted(ask: &Ask, plain: &Statement) -> String {
    let columns = plain.columns();
    let names = distinct(columns.iter().map(tokio_postgres::Column::name));
    let quoted: Vec<_> =
        names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    // A number of JSON's holds no more than a float: digits and scale are kept as text.
    let shown = columns.iter().zip(&quoted).map(|(column, name)| match *column.type_() {
        Type::NUMERIC => format!("t.{name}::text AS {name}"),
        _ => format!("t.{name}"),
    });
    let (shown, names) = (shown.collect::<Vec<_>>().join(", "), quoted.join(", "));
    let (sql, rows, bytes) = (ask.sql.trim_end().trim_end_matches(';'), ask.rows + 1, ask.bytes);
    let (with, from) = match ask.access {
        // What changes something may stand only here.
        Access::Write => (format!("WITH t ({names}) AS (\n{sql}\n) "), "t".to_owned()),
        Access::Chosen | Access::Read => (String::new(), format!("(\n{sql}\n) AS t ({names})")),
    };
    format!(
        "{with}SELECT CASE WHEN sum(octet_length(j)) OVER (ROWS UNBOUNDED PRECEDING) <= {bytes} \
         THEN j END FROM (SELECT row_to_json(u.*)::text AS j FROM (SELECT {shown} FROM {from} \
         LIMIT {rows}) AS u) AS v"
    )
}

/// In the server's own words about the statement.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn told(error: tokio_postgres::Error) -> Refusal {
    let Some(said) = error.as_db_error() else {
        // Its connection is lost, and with it the transaction; or a value has no form.
        return if error.is_closed() {
            Refusal::Away
        } else {
            Refusal::Statement(error.to_string())
        };
    };
    match said.code().code() {
        // Stopped by its time, or because it waited for a lock.
        "57014" | "55P03" => Refusal::Slow,
        code if code.starts_with("57P") || code.starts_with("08") => Refusal::Away,
        "25006" => Refusal::Statement(format!("only queries are allowed here: {}", said.message())),
        _ => Refusal::Statement(match said.hint() {
            Some(hint) => format!("{} ({hint})", said.message()),
            None => said.message().to_owned(),
        }),
    }
}

// === impl Worded ===

impl ToSql for Worded<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self.0, kind.kind()) {
            (Json::Null, _) => return Ok(IsNull::Yes),
            (Json::String(text), _) => out.put_slice(whole(text).as_bytes()),
            (Json::Array(items), Kind::Array(kind)) => {
                out.put_slice(list(items, kind).as_bytes());
            }
            (other, _) => out.put_slice(spelled(other, kind).as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// No text may hold a zero here.
fn whole(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// `2.0` is whole to JSON Schema, and Postgres takes it for no integer.
fn spelled(value: &Json, kind: &Type) -> String {
    let is_whole = matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8);
    match value.as_f64().filter(|number| is_whole && number.fract() == 0.0 && value.is_f64()) {
        Some(number) => format!("{number:.0}"),
        None => value.to_string(),
    }
}

fn list(items: &[Json], kind: &Type) -> String {
    let item = |item: &Json| match item {
        Json::Null => "NULL".to_owned(),
        Json::Array(items) => list(items, kind),
        Json::String(text) => {
            format!("\"{}\"", whole(text).replace('\\', "\\\\").replace('"', "\\\""))
        }
        other => spelled(other, kind),
    };
    format!("{{{}}}", items.iter().map(item).collect::<Vec<_>>().join(","))
}
