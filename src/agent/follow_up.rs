//! How runs go on that wait for their client: by what it decides, answers, gives or says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Told;
use super::answers::Written;
use super::begin::{LOOK, away};
use super::journal::now;
use super::session::{idempotency, used_before};
use super::staff::{Ear, Staff};
use super::view;
use super::words::Words;
use crate::canon::{Owner, RunId};
use crate::error::Error;
use crate::gateway::agents::{Commission, Performance};
use crate::store::runs::RunRow;
use crate::store::{Draft, ObjectKind, hex};

/// How long calls of a client's tools, and turns by which runs go on, are recognised.
const KEPT: Duration = Duration::from_hours(24);
const CALL: &str = "agent_call:";
const TURN: &str = "agent_turn:";
/// How long the telling may take: then whoever did it is gone, and somebody else may.
const CLAIMED: Duration = Duration::from_secs(15);

/// A turn by which a run goes on, as it is known by the key of its client.
#[derive(Serialize, Deserialize)]
struct Turn {
    /// The digest of what is asked.
    asked: String,
    /// The run that was told, and what the answer is called, and since when.
    told: Option<(RunId, (String, u64))>,
}

/// What came of telling a run something.
enum Heard {
    Told,
    /// It is no answer: its user is asked once more, in these words.
    Unfit(String),
    /// Somebody else has answered before, or the run waits no more.
    Late,
    Nothing,
}

impl Staff {
    /// The run that waits for what this client says.
    pub(super) async fn waiting(
        &self,
        owner: &Owner,
        commission: &Commission,
        words: &Words,
    ) -> Result<Option<RunRow>, Error> {
        let mut found = match commission.previous {
            Some(run) => self.gateway.store().run(Some(owner), run).await.map_err(away)?,
            None => None,
        };
        if let (None, Some(session)) = (&found, &commission.wishes.session) {
            let head = self.gateway.store().session(owner, session).await.map_err(away)?;
            if let Some(head) = head {
                found = self.gateway.store().run(Some(owner), head.head).await.map_err(away)?;
            }
        }
        if found.is_none()
            && let Some((approval, ..)) = words.approvals.first()
        {
            // Not every client says which answer it goes on from.
            let known = self.gateway.store().approval(approval).await.map_err(away)?;
            if let Some(known) = known {
                found = self.root_of(owner, known.run).await?;
            }
        }
        if found.is_none()
            && let Some(result) = words.results.first()
        {
            let id = format!("{CALL}{}", result.id);
            let kept = self.gateway.store().get(owner, ObjectKind::Item, &id).await;
            let kept = kept.map_err(away)?;
            let run = kept.and_then(|kept| String::from_utf8(kept.value.to_vec()).ok());
            if let Some(run) = run.and_then(|run| RunId::parse(&run)) {
                found = self.gateway.store().run(Some(owner), run).await.map_err(away)?;
            }
        }
        let is_open =
            |row: &RunRow| row.state.is_waiting() || (words.only_decides && !row.state.is_over());
        Ok(found.filter(is_open))
    }

    /// The run from which the tree is led that a run belongs to.
    async fn root_of(&self, owner: &Owner, run: RunId) -> Result<Option<RunRow>, Error> {
        let store = self.gateway.store();
        match store.run(Some(owner), run).await.map_err(away)? {
            Some(row) if row.root != row.id => store.run(Some(owner), row.root).await.map_err(away),
            found => Ok(found),
        }
    }

    /// Tells a waiting run what its client says, and follows it; `None` where somebody else has said
    /// the same, or answered the same question, first.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        row: &RunRow,
        owner: &Owner,
        commission: &Commission,
        words: &Words,
    ) -> Result<Option<Performance>, Error> {
        if !self.claims_turn(owner, commission).await? {
            return Ok(None);
        }
        let heard = self.tells(row, owner, commission, words).await;
        match &heard {
            Ok(Heard::Told | Heard::Unfit(_)) => self.knows_turn(owner, commission, row.id).await?,
            Ok(Heard::Late | Heard::Nothing) | Err(_) => self.forgets_turn(owner, commission).await,
        }
        match heard? {
            Heard::Told => self.attach(row.id, Ear::of(commission)).await.map(Some),
            Heard::Unfit(again) => self.asks_again(row, &again).await.map(Some),
            Heard::Late => {
                tokio::time::sleep(LOOK).await;
                Ok(None)
            }
            Heard::Nothing => self.said(row).await.map(Some),
        }
    }

    async fn tells(
        &self,
        row: &RunRow,
        owner: &Owner,
        commission: &Commission,
        words: &Words,
    ) -> Result<Heard, Error> {
        let store = self.gateway.store();
        let by = commission.caller.key().to_string();
        let asker = self.asks_user(row).await;
        let answer = self.answer_in(asker.as_ref(), words).await?;
        let mut told = self.decides(row, owner, commission, words).await?;
        if !words.results.is_empty() {
            let data = json!({"results": words.results, "messages": words.beside(), "by": by});
            let data = data.to_string();
            told |= store.signal_run(row.id, "client_results", data, None).await.map_err(away)?;
        }
        match (answer, asker) {
            (Some(Written::Fits { request, values }), Some(asker)) => {
                let data = json!({"request": request, "values": values, "by": by}).to_string();
                // Of several answers to one question the first holds.
                told = store.signal_run(asker.id, "input", data, request).await.map_err(away)?;
                return Ok(if told { Heard::Told } else { Heard::Late });
            }
            (Some(Written::Unfit { request, again }), Some(asker)) => {
                told = self.tell(asker.id, &Told::Unfit { request, by }).await?;
                if let Some(again) = again {
                    return Ok(Heard::Unfit(again));
                }
            }
            _ if !told && !words.beside().is_empty() => {
                // It waits for something else, and hears this when it goes on.
                let data = json!({"messages": words.beside(), "by": by}).to_string();
                told = store.signal_run(row.id, "message", data, None).await.map_err(away)?;
                if !told {
                    // It has gone on since, and this is the next turn.
                    return Ok(Heard::Late);
                }
            }
            _ => {}
        }
        Ok(if told { Heard::Told } else { Heard::Nothing })
    }

    /// What a client's words answer of what the run asks its user.
    async fn answer_in(
        &self,
        asker: Option<&RunRow>,
        words: &Words,
    ) -> Result<Option<Written>, Error> {
        let is_other = !words.approvals.is_empty() || !words.results.is_empty();
        match asker.filter(|_| !words.last.is_empty() && !is_other) {
            Some(asker) => self.written(asker, &words.last).await.map(Some),
            None => Ok(None),
        }
    }

    /// A run that goes on waiting for an answer that is one.
    async fn asks_again(&self, row: &RunRow, text: &str) -> Result<Performance, Error> {
        let run = self.whole(row).await?;
        Ok(view::asks(&run, row, text))
    }

    /// The run that went on by a turn of the same key. One that is just being told is waited for.
    pub(super) async fn known_in_passing(
        self: &Arc<Self>,
        owner: &Owner,
        commission: &Commission,
    ) -> Result<Option<Performance>, Error> {
        let Some((key, asked)) = idempotency(commission) else { return Ok(None) };
        let store = self.gateway.store();
        let (run, answer) = loop {
            let kept = store.get(owner, ObjectKind::Item, &turn(&key)).await.map_err(away)?;
            let kept = kept.and_then(|kept| serde_json::from_slice::<Turn>(&kept.value).ok());
            match kept {
                None => return Ok(None),
                Some(turn) if turn.asked != asked => return Err(used_before()),
                Some(Turn { told: Some(told), .. }) => break told,
                Some(_) => tokio::time::sleep(LOOK).await,
            }
        };
        let Some(row) = store.run(Some(owner), run).await.map_err(away)? else { return Ok(None) };
        let mut performance = if row.state.is_over() {
            self.said(&row).await?
        } else {
            // It may not have heard yet.
            self.attach(row.id, Ear::of(commission)).await?
        };
        performance.again = Some(answer);
        Ok(Some(performance))
    }

    /// Has the same turn wait that comes by the same key, wherever it comes; false where this one is
    /// to wait.
    async fn claims_turn(&self, owner: &Owner, commission: &Commission) -> Result<bool, Error> {
        let Some((key, asked)) = idempotency(commission) else { return Ok(true) };
        let draft = Turn { asked, told: None }.draft(&key, CLAIMED);
        self.gateway.store().put_new(owner, ObjectKind::Item, draft).await.map_err(away)
    }

    /// Lets the same turn be recognised by which a run goes on now.
    async fn knows_turn(
        &self,
        owner: &Owner,
        commission: &Commission,
        run: RunId,
    ) -> Result<(), Error> {
        let Some((key, asked)) = idempotency(commission) else { return Ok(()) };
        let told = Some((run, (commission.answer_id.clone(), now() / 1000)));
        let draft = Turn { asked, told }.draft(&key, KEPT);
        self.gateway.store().put(owner, ObjectKind::Item, draft).await.map_err(away)
    }

    /// No run has gone on by it.
    async fn forgets_turn(&self, owner: &Owner, commission: &Commission) {
        let Some((key, _)) = idempotency(commission) else { return };
        let store = self.gateway.store();
        if let Err(error) = store.delete(owner, ObjectKind::Item, &turn(&key)).await {
            tracing::warn!(%error, "the same turn has to wait");
        }
    }

    /// Lets the client's next request find the run by the calls that it is to make.
    pub(super) async fn know_calls(&self, owner: &Owner, run: RunId, calls: Vec<String>) {
        let expires_at = Some(std::time::SystemTime::now() + KEPT);
        for call in calls {
            let value = Bytes::from(run.to_string());
            let draft = Draft { id: format!("{CALL}{call}"), value, expires_at };
            if let Err(error) = self.gateway.store().put(owner, ObjectKind::Item, draft).await {
                tracing::warn!(%error, "a call of a client's tool cannot be recognised later");
            }
        }
    }
}

// === impl Turn ===

impl Turn {
    fn draft(&self, key: &str, kept: Duration) -> Draft {
        let value = serde_json::to_vec(self).unwrap_or_default().into();
        Draft { id: turn(key), value, expires_at: Some(SystemTime::now() + kept) }
    }
}

/// Under what a turn is kept by which a run has gone on.
fn turn(key: &str) -> String {
    format!("{TURN}{}", hex(&Sha256::digest(key)))
}
