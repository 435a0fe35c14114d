//! Guards that are asked about a question while a target is: the answer waits for their verdict.

use std::pin::{Pin, pin};
use std::sync::Arc;

use futures_util::future::{Either, select, try_join_all};

use super::asking::Asker;
use super::notes::Said;
use super::refusal;
use crate::config::Stage;
use crate::error::Error;
use crate::guard::Guard;

/// What is still to be asked.
#[derive(Debug)]
pub(in crate::gateway) struct Late {
    asker: Asker,
    said: Arc<Said>,
    pending: Vec<(Pending, Arc<[String]>)>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) guard: Arc<Guard>,
    pub(super) stage: Stage,
}

// === impl Late ===

impl Late {
    pub(super) fn new(asker: Asker, said: &Arc<Said>) -> Self {
        Self { asker, said: Arc::clone(said), pending: Vec::new() }
    }

    /// These guards are to be asked about these texts.
    pub(super) fn add(&mut self, pending: impl Iterator<Item = Pending>, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        let texts: Arc<[String]> = texts.into();
        self.pending.extend(pending.map(|pending| (pending, Arc::clone(&texts))));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Asks them all. The error is the first objection; the others need not be waited for then.
    pub(in crate::gateway) async fn ask(self) -> Result<(), Error> {
        let Self { asker, said, pending } = &self;
        let consult = |(Pending { guard, stage }, texts): &(Pending, Arc<[String]>)| {
            let (guard, stage, texts) = (Arc::clone(guard), *stage, Arc::clone(texts));
            async move { asker.consult(&guard, stage, &texts, said).await.map(drop) }
        };
        let rulings = try_join_all(pending.iter().map(consult)).await;
        rulings.map(drop).map_err(|blocked| refusal(&blocked))
    }
}

/// Asks while `going` goes on, and gives what that came to when nobody objects. As soon as somebody
/// does, it is called off.
pub(in crate::gateway) async fn beside<T>(
    late: Late,
    going: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    let asking: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = Box::pin(late.ask());
    match select(asking, pin!(going)).await {
        Either::Left((verdict, going)) => {
            verdict?;
            going.await
        }
        Either::Right((came_to, asking)) => asking.await.and(came_to),
    }
}
