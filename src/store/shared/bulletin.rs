//! What each replica tells all others: two lists that forget their oldest notes. Who was away hears
//! what still stands there when it is back.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};

use super::{Address, CONNECT, failure};
use crate::store::Failure;

/// Nobody waits longer for news, and then asks anew.
const WAIT: Duration = Duration::from_secs(2);
/// What that may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many notes of each list at once.
const PAGE: usize = 200;

/// One of the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Board {
    /// Questions that were answered, and can be found by those who ask similar ones.
    Questions,
    /// Answers that are to be forgotten.
    Purges,
}

/// What somebody told, as it was given.
pub type Note = (Board, Vec<Vec<u8>>);

/// One who listens, over a connection of its own.
pub struct Bulletin {
    client: Client,
    connection: Option<MultiplexedConnection>,
    /// The last note of each list that was heard. A server that was started anew goes on with later
    /// ones.
    heard: [String; 2],
}

/// As the server answers: lists by name, of notes by id.
type Answer = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

// === impl Board ===

impl Board {
    const ALL: [Self; 2] = [Self::Questions, Self::Purges];

    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Questions => "switchpoint/questions",
            Self::Purges => "switchpoint/purges",
        }
    }

    /// About so many notes stay.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Questions => 10_000,
            Self::Purges => 1000,
        }
    }
}

// === impl Bulletin ===

impl Bulletin {
    pub fn open(address: Address) -> Self {
        let heard = ["0".to_owned(), "0".to_owned()];
        Self { client: address.0, connection: None, heard }
    }

    /// What is new, as soon as there is something; nothing if there is nothing for a while.
    pub async fn hear(&mut self) -> Result<Vec<Note>, Failure> {
        let heard = self.read().await;
        let answer = heard.inspect_err(|_| self.connection = None).map_err(failure)?;
        let mut news = Vec::new();
        for (key, notes) in answer.unwrap_or_default() {
            let known =
                Board::ALL.iter().zip(&mut self.heard).find(|(board, _)| board.key() == key);
            let Some((board, last)) = known else { continue };
            for (id, fields) in notes {
                *last = id;
                // Every other one is a field's name, which says nothing.
                news.push((*board, fields.into_iter().skip(1).step_by(2).collect()));
            }
        }
        Ok(news)
    }

    async fn read(&mut self) -> Result<Option<Answer>, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(PATIENCE));
                let made = self.client.get_multiplexed_async_connection_with_config(&config);
                none.insert(made.await?)
            }
        };
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(PAGE).arg("BLOCK").arg(WAIT.as_millis()).arg("STREAMS");
        command.arg(Board::ALL.map(Board::key).as_slice()).arg(self.heard.as_slice());
        command.query_async(connection).await
    }
}

impl std::fmt::Debug for Bulletin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Bulletin")
    }
}
