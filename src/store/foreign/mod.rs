//! Databases of others: one statement at a time, each in a transaction of its own. What reads can
//! change nothing, and what writes is the operator's own statement.
//!
//! They have threads of their own, so that neither a worker nor the gateway's store waits on them.

mod linear;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::postgres::Address;
use super::{Failure, no_thread};
use crate::config::StoreUrl;

/// Threads of each database, and so connections: a model asks for little at once.
const THREADS: usize = 2;
/// How much later than its time a statement may have ended.
const GRACE: Duration = Duration::from_secs(2);
/// Statements that may wait for a thread.
const LONGEST: usize = 256;

/// One database of somebody else's.
#[derive(Clone)]
pub struct Foreign(mpsc::Sender<Question>);

/// One statement, its values bound as `$1`, `$2`, in the order in which they first stand there.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub sql: Arc<str>,
    pub values: Vec<Json>,
    pub access: Access,
    /// Rows and bytes of the result.
    pub rows: usize,
    pub bytes: usize,
    pub until: Instant,
}

/// Whose statement it is, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A model's: nothing but a query, and not with the rights of a superuser.
    Chosen,
    /// The operator's, which changes nothing.
    Read,
    /// The operator's.
    Write,
}

/// What a statement gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Objects by the names of the columns.
    pub rows: Vec<Json>,
    /// There were more.
    pub truncated: bool,
    /// How many rows a statement without a result has changed.
    pub changed: Option<u64>,
}

/// Why there is no result. Of all but the last, nothing has remained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What for is said in the log: it is not for models.
    #[error("the database cannot be reached")]
    Away,
    #[error("the database has refused the login")]
    Login,
    /// Its own words about the statement.
    #[error("{0}")]
    Statement(String),
    #[error("the statement took too long and was stopped")]
    Slow,
    #[error("it is not known whether the change was made: {0}")]
    Unsure(String),
}

/// An [`Ask`], and someone who waits for what comes of it.
struct Question {
    ask: Ask,
    reply: oneshot::Sender<Result<Table, Refusal>>,
    patience: Patience,
}

/// How long somebody waits. Whoever has gone away waits no more.
#[derive(Clone)]
struct Patience {
    until: Instant,
    caller: watch::Receiver<()>,
}

/// A thread's way to the database.
enum Link {
    Sqlite(Box<sqlite::File>),
    Postgres(Box<postgres::Server>),
}

/// Gathers rows up to the limits.
struct Gathered {
    table: Table,
    rows: usize,
    bytes: usize,
}

// === impl Foreign ===

impl Foreign {
    /// At an address as the gateway's own store has one. Nobody is called yet.
    pub fn open(url: &StoreUrl) -> Result<Self, Failure> {
        let link: Box<dyn Fn() -> Link> = match url {
            StoreUrl::Memory => return Err(Failure::new("is nobody's database".to_owned())),
            StoreUrl::Sqlite(path) => {
                let path: PathBuf = path.clone();
                Box::new(move || Link::Sqlite(Box::new(sqlite::File::at(path.clone()))))
            }
            StoreUrl::Postgres(url) => {
                let address = Address::read(url.expose())?;
                Box::new(move || Link::Postgres(Box::new(postgres::Server::at(address.clone()))))
            }
        };
        let (questions, asked) = mpsc::channel(LONGEST);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..THREADS {
            let (link, asked) = (link(), Arc::clone(&asked));
            let thread = std::thread::Builder::new().name("foreign".to_owned());
            thread.spawn(move || serve(link, &asked)).map_err(no_thread)?;
        }
        Ok(Self(questions))
    }

    /// Has one statement run. Whoever drops this has it stopped.
    pub async fn ask(&self, ask: Ask) -> Result<Table, Refusal> {
        let (reply, answer) = oneshot::channel();
        let (waits, caller) = watch::channel(());
        let (until, access) = (ask.until, ask.access);
        let question = Question { ask, reply, patience: Patience { until, caller } };
        let handed = tokio::time::timeout_at(until, self.0.send(question)).await;
        handed.map_err(|_| Refusal::Slow)?.map_err(|_| Refusal::Away)?;
        // The thread stops in time, and only it knows how a change has ended.
        let answer = tokio::time::timeout_at(until + GRACE, answer).await;
        drop(waits);
        match answer {
            Ok(answer) => answer.unwrap_or(Err(Refusal::Away)),
            Err(_) if access == Access::Write => Err(Refusal::Unsure("no answer came".to_owned())),
            Err(_) => Err(Refusal::Slow),
        }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Foreign")
    }
}

fn serve(mut link: Link, questions: &Mutex<mpsc::Receiver<Question>>) {
    loop {
        // One waits for the next question, the others for the lock.
        let next = questions.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(Question { ask, reply, patience }) = next else { return };
        let answer = match &mut link {
            _ if patience.is_over() => Err(Refusal::Slow),
            Link::Sqlite(file) => file.ask(&ask, &patience),
            Link::Postgres(server) => server.ask(&ask, &patience),
        };
        // Who does not wait any more does not want to know.
        let _ = reply.send(answer);
    }
}

// === impl Patience ===

impl Patience {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.caller.has_changed().is_err()
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Until the time is up or nobody waits any more.
    async fn ends(&self) {
        let mut caller = self.caller.clone();
        let gone = async { while caller.changed().await.is_ok() {} };
        let _ = tokio::time::timeout_at(self.until, gone).await;
    }
}

// === impl Gathered ===

impl Gathered {
    fn new(ask: &Ask) -> Self {
        Self { table: Table::default(), rows: ask.rows, bytes: ask.bytes }
    }

    /// Takes one more row of so many bytes; false if there is no room for it.
    fn take(&mut self, row: impl FnOnce() -> Map<String, Json>, bytes: usize) -> bool {
        if self.table.rows.len() >= self.rows || bytes > self.bytes {
            self.table.truncated = true;
            return false;
        }
        self.bytes -= bytes;
        self.table.rows.push(Json::Object(row()));
        true
    }
}

/// A name for each column that no other has: in an object, the last of two would hide the first.
fn distinct<'a>(columns: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let mut name = column.to_owned();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{column}_{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

/// Bytes in text, as both databases can read them back.
fn hexadecimal(bytes: &[u8]) -> String {
    format!("\\x{}", super::hex(bytes))
}
