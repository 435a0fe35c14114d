//! What replicas tell one another of their answers: by which questions they can be found, and which
//! are to be forgotten.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::similar::Likeness;
use crate::cache::{Digest, Scope};
use crate::canon::CallId;
use crate::gateway::Gateway;
use crate::store::Failure;
use crate::store::shared::{Board, Bulletin, Note, Values};

/// Between two attempts to hear something.
const PAUSE: Duration = Duration::from_secs(1);

/// What can be heard, as metrics call it.
const QUESTION: &str = "question";
const PURGE: &str = "purge";

/// What all replicas remember.
#[derive(Debug)]
pub(in crate::gateway) struct Together {
    pub(super) values: Values,
    /// Until somebody listens.
    bulletin: Mutex<Option<Bulletin>>,
    /// By which this process knows its own word.
    me: String,
}

impl Together {
    /// Has the others find an answer by the likeness of its question.
    pub(super) async fn tell_question(
        &self,
        likeness: &Likeness,
        answer: (Digest, u64),
    ) -> Result<(), Failure> {
        self.tell(Board::Questions, likeness.spelled(answer)).await
    }

    /// Has the others forget the answers of a scope.
    pub(super) async fn tell_purge(&self, scope: &Scope) -> Result<(), Failure> {
        let Scope { tenant, route } = scope.clone();
        self.tell(Board::Purges, vec![tenant.into_bytes(), route.into_bytes()]).await
    }

    async fn tell(&self, board: Board, told: Vec<Vec<u8>>) -> Result<(), Failure> {
        let parts: Vec<Vec<u8>> =
            std::iter::once(self.me.clone().into_bytes()).chain(told).collect();
        self.values.tell(board, &parts).await
    }
}

impl Gateway {
    /// Where the answers of all replicas are kept, and where they tell one another of them.
    pub fn remember_in(&self, values: Values, bulletin: Bulletin) {
        let (bulletin, me) = (Mutex::new(Some(bulletin)), CallId::new().simple());
        for what in [QUESTION, PURGE] {
            // From the beginning on, so that the first of them is seen to be one more.
            self.telemetry.metrics.cache_heard.with_label_values(&[what]);
        }
        self.answers.get_or_init(|| Together { values, bulletin, me });
    }

    /// Hears what other replicas tell of their answers, for as long as the process lives.
    pub async fn follow_answers(self: Arc<Self>) {
        let Some(together) = self.answers.get() else { return };
        let bulletin = together.bulletin.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut bulletin) = bulletin else { return };
        loop {
            match self.shared_answer("hear", bulletin.hear().await) {
                Some(notes) => notes.iter().for_each(|note| self.hears(together, note)),
                None => sleep(PAUSE).await,
            }
        }
    }

    fn hears(&self, together: &Together, (board, parts): &Note) {
        let Some((from, told)) = parts.split_first() else { return };
        if *from == together.me.as_bytes() {
            return;
        }
        let understood = match board {
            Board::Questions => Likeness::read(told).map(|(likeness, answer)| {
                likeness.note(&self.cache, answer);
                QUESTION
            }),
            Board::Purges => scope(told).map(|scope| {
                self.cache.purge(&scope);
                PURGE
            }),
        };
        if let Some(what) = understood {
            self.telemetry.metrics.cache_heard.with_label_values(&[what]).inc();
        }
    }
}

/// Whose answers are to be forgotten; `None` where that makes no sense.
fn scope(told: &[Vec<u8>]) -> Option<Scope> {
    let [tenant, route] = told else { return None };
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).ok();
    Some(Scope { tenant: text(tenant)?, route: text(route)? })
}
