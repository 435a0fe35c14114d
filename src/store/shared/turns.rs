//! Turns that replicas take one after the other, so that all of them together take no more in any
//! span of time than a limit lets them.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Address, CONNECT, PATIENCE, failure};
use crate::store::{Failure, Store};

/// Parts of a span in which turns are counted together.
const PARTS: u64 = 60;
const PREFIX: &str = "switchpoint/turns";
/// A store that did not answer is not asked for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The handle to turns that are counted together.
pub struct Turns {
    book: Book,
    replicas: u32,
}

/// Where they are written down.
enum Book {
    Shared(Box<Line>),
    Store(Store),
}

/// The way to the shared store. It is connected to when it is first used.
struct Line {
    client: Client,
    script: Script,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// Not before then.
    again: Option<Instant>,
}

/// One limit: so many turns in any span of this length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Turns by the same name and span are counted together.
    pub name: String,
    pub amount: u64,
    pub seconds: u64,
}

// === impl Turns ===

impl Turns {
    pub fn open(address: Address, replicas: u32) -> Self {
        let script = Script::new(include_str!("turns.lua"));
        let line = Line { client: address.0, script, link: Mutex::default() };
        Self { book: Book::Shared(Box::new(line)), replicas: replicas.max(1) }
    }

    /// By way of a database that all replicas have.
    pub fn kept(store: Store, replicas: u32) -> Self {
        Self { book: Book::Store(store), replicas: replicas.max(1) }
    }

    /// Among so many a limit is parted while they cannot ask.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Takes a turn of each of these, or of none: how long until it may be worth asking again.
    /// `None`: nobody can be asked now.
    pub async fn take(&self, turns: Vec<Turn>) -> Option<Result<(), Duration>> {
        match &self.book {
            Book::Shared(line) => line.ask(&turns).await,
            Book::Store(store) => store.take_turns(turns).await.inspect_err(complain).ok(),
        }
    }
}

impl Line {
    async fn ask(&self, turns: &[Turn]) -> Option<Result<(), Duration>> {
        // Whoever connects has the others wait for it.
        let mut connection = self.link.lock().await.connection(&self.client).await?;
        let mut call = self.script.prepare_invoke();
        call.arg(PARTS);
        for Turn { name, amount, seconds } in turns {
            let part = seconds.saturating_mul(1000).div_ceil(PARTS).max(1);
            call.key(format!("{PREFIX}/{seconds}/{name}")).arg(*amount).arg(part);
        }
        match call.invoke_async::<u64>(&mut connection).await {
            Ok(0) => Some(Ok(())),
            Ok(millis) => Some(Err(Duration::from_millis(millis))),
            Err(error) => {
                self.link.lock().await.lose(error);
                None
            }
        }
    }
}

fn complain(failure: &Failure) {
    tracing::warn!(%failure, "each replica keeps its own part of the limits of tools");
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Turns")
    }
}

// === impl Link ===

impl Link {
    async fn connection(&mut self, client: &Client) -> Option<MultiplexedConnection> {
        if let Some(connection) = &self.connection {
            return Some(connection.clone());
        }
        if self.again.is_some_and(|again| Instant::now() < again) {
            return None;
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(PATIENCE));
        match client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(connection) => {
                self.connection = Some(connection.clone());
                Some(connection)
            }
            Err(error) => {
                self.lose(error);
                None
            }
        }
    }

    fn lose(&mut self, error: RedisError) {
        complain(&failure(error));
        *self = Self { connection: None, again: Some(Instant::now() + PAUSE) };
    }
}
