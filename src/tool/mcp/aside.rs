//! What a server says and asks while it works at a request, for whoever waits for the answer.

use rmcp::ErrorData;
use rmcp::model::{
    ClientCapabilities, ClientResult, InputResponses, ServerNotification, ServerRequest,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Of what is said and not yet heard, how much is kept; more is lost.
const MOST_ASIDES: usize = 256;

/// The levels of what servers log, from the chattiest to the gravest.
const LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// What is said beside an answer.
#[derive(Debug)]
pub enum Aside {
    /// Progress, by its own token of the gateway's, or a line of a log.
    Told(Box<ServerNotification>),
    /// A person or a model is to say something.
    Asks(Box<ServerRequest>, oneshot::Sender<Result<ClientResult, ErrorData>>),
}

/// Whoever waits for an answer, and what may be asked of it meanwhile.
#[derive(Debug, Clone)]
pub struct Listener {
    said: mpsc::Sender<Aside>,
    /// What can be asked of it,
    pub can: ClientCapabilities,
    /// and whether that can be done while it waits, and not only as an answer.
    pub asks: bool,
    pub logs: Logs,
    /// What it answers to what was asked of it when it asked before.
    pub resumes: Option<Resumed>,
}

/// What goes with a request that is sent again.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    pub responses: Option<InputResponses>,
    pub state: Option<String>,
}

/// Which lines of logs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logs {
    None,
    /// Whatever the server says without being asked.
    Any,
    /// From this level on.
    From(String),
}

// === impl Listener ===

impl Listener {
    pub fn new(
        (can, asks, logs): (ClientCapabilities, bool, Logs),
        resumes: Option<Resumed>,
    ) -> (Self, mpsc::Receiver<Aside>) {
        let (said, asides) = mpsc::channel(MOST_ASIDES);
        (Self { said, can, asks, logs, resumes }, asides)
    }

    /// Who hears too slowly misses some.
    pub(super) fn tell(&self, notification: ServerNotification) {
        let _ = self.said.try_send(Aside::Told(Box::new(notification)));
    }

    /// What is answered; nothing, if nobody waits any more.
    pub(super) async fn ask(
        &self,
        request: ServerRequest,
    ) -> Option<Result<ClientResult, ErrorData>> {
        let (answer, answered) = oneshot::channel();
        self.said.send(Aside::Asks(Box::new(request), answer)).await.ok()?;
        answered.await.ok()
    }
}

// === impl Logs ===

impl Logs {
    pub(super) fn want(&self, level: &str) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::From(least) => rank(level) >= rank(least),
        }
    }

    pub(super) fn level(&self) -> Option<&str> {
        match self {
            Self::From(level) => Some(level),
            Self::None | Self::Any => None,
        }
    }
}

/// How grave a level is; what is none is the gravest.
pub(super) fn rank(level: &str) -> usize {
    LEVELS.iter().position(|it| *it == level).unwrap_or(LEVELS.len())
}

/// The level of a line of a log.
pub(super) fn level_of(line: &Value) -> &str {
    line["params"]["level"].as_str().unwrap_or_default()
}
