//! How runs go on that wait for their client: by what it decides, answers, gives or says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Told;
use super::answers::Written;
use super::begin::away;
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

    /// Tells a waiting run what its client says, and follows it.
    pub(super) async fn go_on(
        self: Arc<Self>,
        row: RunRow,
        (owner, commission): (&Owner, &Commission),
        words: Words,
    ) -> Result<Performance, Error> {
        let store = self.gateway.store();
        let by = commission.caller.key().to_string();
        let asker = self.asks_user(&row).await;
        let answer = self.answer_in(asker.as_ref(), &words).await?;
        let mut told = self.decides(&row, (owner, commission), &words).await?;
        if !words.results.is_empty() {
            let data = json!({"results": words.results, "messages": words.beside(), "by": by});
            let data = data.to_string();
            told |= store.signal_run(row.id, "client_results", data, None).await.map_err(away)?;
        }
        match (answer, asker) {
            (Some(Written::Fits { request, values }), Some(asker)) => {
                let data = json!({"request": request, "values": values, "by": by}).to_string();
                told = store.signal_run(asker.id, "input", data, None).await.map_err(away)?;
            }
            (Some(Written::Unfit { request, again }), Some(asker)) => {
                told = self.tell(asker.id, &Told::Unfit { request, by }).await?;
                if let Some(again) = again {
                    return self.asks_again(&row, &again).await;
                }
            }
            _ if !told && !words.beside().is_empty() => {
                // It waits for something else, and hears this when it goes on.
                let data = json!({"messages": words.beside(), "by": by}).to_string();
                told = store.signal_run(row.id, "message", data, None).await.map_err(away)?;
            }
            _ => {}
        }
        if !told {
            return self.said(&row).await;
        }
        self.knows_key(owner, commission, row.id).await?;
        self.attach(row.id, Ear::of(commission)).await
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

    /// The run that went on by a turn of the same key.
    pub(super) async fn known_in_passing(
        self: &Arc<Self>,
        owner: &Owner,
        commission: &Commission,
    ) -> Result<Option<Performance>, Error> {
        let Some((key, asked)) = idempotency(commission) else { return Ok(None) };
        let store = self.gateway.store();
        let kept = store.get(owner, ObjectKind::Item, &turn(&key)).await.map_err(away)?;
        let kept = kept.and_then(|kept| String::from_utf8(kept.value.to_vec()).ok());
        let Some((run, before)) = kept.as_deref().and_then(|kept| kept.split_once(' ')) else {
            return Ok(None);
        };
        if before != asked {
            return Err(used_before());
        }
        let Some(run) = RunId::parse(run) else { return Ok(None) };
        match store.run(Some(owner), run).await.map_err(away)? {
            Some(row) => self.once_more(&row, Ear::of(commission)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Lets the same turn be recognised by which a run goes on now.
    async fn knows_key(
        &self,
        owner: &Owner,
        commission: &Commission,
        run: RunId,
    ) -> Result<(), Error> {
        let Some((key, asked)) = idempotency(commission) else { return Ok(()) };
        let value = Bytes::from(format!("{run} {asked}"));
        let expires_at = Some(SystemTime::now() + KEPT);
        let draft = Draft { id: turn(&key), value, expires_at };
        self.gateway.store().put(owner, ObjectKind::Item, draft).await.map_err(away)
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

/// Under what a turn is kept by which a run has gone on.
fn turn(key: &str) -> String {
    format!("{TURN}{}", hex(&Sha256::digest(key)))
}
