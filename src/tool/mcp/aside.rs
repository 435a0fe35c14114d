//! What a server says and asks while it works at a request, for whoever waits for the answer.

use rmcp::ErrorData;
use rmcp::model::{
    ClientCapabilities, ClientResult, InputResponses, ServerNotification, ServerRequest,
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::answer::as_value;

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

// === impl Aside ===

impl Aside {
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Told(_))
    }

    /// What is said, as the protocol spells it.
    pub fn said(&self) -> Value {
        let mut whole = match self {
            Self::Told(told) => as_value(told),
            Self::Asks(request, _) => as_value(request),
        };
        whole["params"].take()
    }

    /// The same with this said. Nothing, where that is not what the protocol has.
    pub fn reworded(self, said: Value) -> Option<Self> {
        let with = |mut whole: Value| {
            whole["params"] = said;
            whole
        };
        match self {
            Self::Told(told) => {
                let told = serde_json::from_value(with(as_value(&told))).ok()?;
                Some(Self::Told(Box::new(told)))
            }
            Self::Asks(request, answer) => {
                if let Ok(request) = serde_json::from_value(with(as_value(&request))) {
                    return Some(Self::Asks(Box::new(request), answer));
                }
                let message = "What guards have left of the question is none any more.";
                Self::Asks(request, answer).withheld(message.to_owned());
                None
            }
        }
    }

    /// Nobody hears it: whoever has asked is told why.
    pub fn withheld(self, why: String) {
        if let Self::Asks(_, answer) = self {
            let _ = answer.send(Err(ErrorData::invalid_request(why, None)));
        }
    }
}

// === impl Listener ===

impl Listener {
    pub fn new(
        can: ClientCapabilities,
        asks: bool,
        logs: Logs,
        resumes: Option<Resumed>,
    ) -> (Self, mpsc::Receiver<Aside>) {
        let (said, asides) = mpsc::channel(MOST_ASIDES);
        (Self { said, can, asks, logs, resumes }, asides)
    }

    /// Another one, who hears first what this one is to hear.
    pub fn before(&self) -> (Self, mpsc::Receiver<Aside>) {
        Self::new(self.can.clone(), self.asks, self.logs.clone(), self.resumes.clone())
    }

    /// Hears what was said, or is asked it; who has asked gets what `look` leaves of the answer, or
    /// is told why it gets none.
    pub async fn hear(&self, aside: Aside, look: impl AsyncFnOnce(Value) -> Result<Value, String>) {
        match aside {
            Aside::Told(told) => self.tell(*told),
            Aside::Asks(request, answer) => {
                let said = match self.ask(*request).await {
                    Some(Ok(said)) => looked_at(said, look).await,
                    Some(Err(error)) => Err(error),
                    None => return,
                };
                // Who has asked may not wait any more.
                let _ = answer.send(said);
            }
        }
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

async fn looked_at(
    said: ClientResult,
    look: impl AsyncFnOnce(Value) -> Result<Value, String>,
) -> Result<ClientResult, ErrorData> {
    let whole = as_value(&said);
    let refused = |why: String| ErrorData::invalid_request(why, None);
    let seen = look(whole.clone()).await.map_err(refused)?;
    if seen == whole {
        return Ok(said);
    }
    let misshapen = |_| refused("What guards have left of the answer is none any more.".to_owned());
    serde_json::from_value(seen).map_err(misshapen)
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
