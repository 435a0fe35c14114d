//! What replicas remember for one another: bytes under a name, for a while. Whoever cannot reach
//! the store does without.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::time::Instant;

use super::{Address, Board, failure};
use crate::store::Failure;

/// What a question may take: an answer that comes later is of little use.
const PATIENCE: Duration = Duration::from_millis(100);
/// A store that did not answer is not asked for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Names that are looked at in one question.
const PAGE: usize = 500;

/// The handle to what is remembered together. It connects when it is first used.
pub struct Values {
    client: Client,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// Not before then.
    again: Option<Instant>,
}

// === impl Values ===

impl Values {
    pub fn open(address: Address) -> Self {
        Self { client: address.0, link: Mutex::default() }
    }

    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Some(mut connection) = self.connection().await? else { return Ok(None) };
        let found = redis::cmd("GET").arg(name).query_async(&mut connection).await;
        found.map_err(|error| self.lost(error))
    }

    /// Whether it is there now.
    pub async fn put(&self, name: &str, value: &[u8], life: Duration) -> Result<bool, Failure> {
        let Some(mut connection) = self.connection().await? else { return Ok(false) };
        let mut command = redis::cmd("SET");
        command.arg(name).arg(value).arg("PX").arg(life.as_millis().max(1));
        let put = command.exec_async(&mut connection).await;
        put.map(|()| true).map_err(|error| self.lost(error))
    }

    /// Tells the other replicas.
    pub async fn tell(&self, board: Board, parts: &[Vec<u8>]) -> Result<(), Failure> {
        let Some(mut connection) = self.connection().await? else { return Err(away()) };
        let mut command = redis::cmd("XADD");
        command.arg(board.key()).arg("MAXLEN").arg("~").arg(board.most()).arg("*");
        for part in parts {
            command.arg("p").arg(part.as_slice());
        }
        command.exec_async(&mut connection).await.map_err(|error| self.lost(error))
    }

    /// It did not answer just now, and is not asked.
    pub fn is_away(&self) -> bool {
        let link = self.link();
        link.connection.is_none() && link.again.is_some_and(|again| Instant::now() < again)
    }

    /// Forgets all whose names are like this; how many those were.
    pub async fn forget(&self, pattern: &str) -> Result<usize, Failure> {
        let Some(mut connection) = self.connection().await? else { return Err(away()) };
        let (mut cursor, mut gone) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
            let page: Result<(u64, Vec<String>), _> = scan.query_async(&mut connection).await;
            let (next, names) = page.map_err(|error| self.lost(error))?;
            if !names.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                let unlinked = unlink.arg(&names).query_async::<usize>(&mut connection).await;
                gone += unlinked.map_err(|error| self.lost(error))?;
            }
            if next == 0 {
                return Ok(gone);
            }
            cursor = next;
        }
    }

    /// `None`: it was away just now.
    async fn connection(&self) -> Result<Option<MultiplexedConnection>, Failure> {
        {
            let mut link = self.link();
            if let Some(connection) = &link.connection {
                return Ok(Some(connection.clone()));
            }
            if link.again.is_some_and(|again| Instant::now() < again) {
                return Ok(None);
            }
            // One tries; the others do without meanwhile.
            link.again = Some(Instant::now() + PAUSE);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let connection = connect.await.map_err(failure)?;
        self.link().connection = Some(connection.clone());
        Ok(Some(connection))
    }

    /// A server that was started anew can be asked at once, and one that is slow later.
    fn lost(&self, error: RedisError) -> Failure {
        let is_closed = error.is_connection_dropped();
        let again = (!is_closed).then(|| Instant::now() + PAUSE);
        *self.link() = Link { connection: None, again };
        failure(error)
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn away() -> Failure {
    Failure::new("the shared store did not answer just now".to_owned())
}

impl std::fmt::Debug for Values {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Values")
    }
}
