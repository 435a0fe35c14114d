//! The responses API remembers: what was answered can be asked for, gone on from, and taken back.
//!
//! Whatever provider answered, it is this gateway that remembers, per owner, so that a conversation
//! can go on with another one. Ids that were not given out here to this owner are unknown here.

mod afar;
mod background;
mod detached;
mod refer;
mod runs;
mod stored;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use self::stored::{LONGEST_CHAIN, Stored, asked, said};
use super::Gateway;
use super::call::Call;
use super::shelf::RESPONSE;
use crate::canon::{Owner, RunId};
use crate::dialect::responses::state::{self, Page};
use crate::dialect::splice::Payload;
use crate::error::{Error, Kind, Upstream};
use crate::gateway::agents::Report;
use crate::store::ObjectKind;

pub(super) use self::background::Jobs;
pub(super) use self::detached::Follower;
pub(super) use self::stored::Maker;

/// What must be known at a call's end to keep its response.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    owner: Owner,
    /// The question as the client sent it.
    question: Payload,
    previous: Option<String>,
    /// The run that answers, if one does.
    run: Option<(RunId, watch::Receiver<Report>)>,
}

impl Keeping {
    pub(super) fn new(owner: Owner, question: Payload, previous: Option<String>) -> Self {
        Self { owner, question, previous, run: None }
    }

    fn asked(&self) -> Value {
        serde_json::from_slice(&self.question.to_bytes()).unwrap_or_default()
    }

    fn stored(&self, response: Value, maker: Option<Maker>) -> Stored {
        Stored {
            input: state::items(&self.asked()["input"]),
            response,
            previous: self.previous.clone(),
            maker,
            bytes: 0,
        }
    }
}

impl Call {
    /// Keeps the response that the client is being given, if it is to be kept. `verbatim`: the
    /// provider gave it that id.
    pub(in crate::gateway) fn keep_response(&mut self, answer: &[u8], verbatim: bool) {
        let Some(keeping) = self.keeping.take() else { return };
        let maker = self.target().map(|target| target.maker(!verbatim));
        self.gateway.keep_response(&keeping, answer, maker);
    }

    /// Keeps that the response, of which the client has the beginning, has failed.
    pub(in crate::gateway) fn keep_failure(&mut self, error: &Error) {
        let Some(keeping) = self.keeping.take() else { return };
        if keeping.goes_on() {
            return;
        }
        let (id, created) = self.stamp();
        // A run has no target.
        let asked = || keeping.asked()["model"].as_str().unwrap_or_default().to_owned();
        let model = self.target().map_or_else(asked, |target| target.model.to_string());
        self.gateway.keep_failure(&keeping, format!("resp_{id}"), created, &model, error);
    }

    /// Who gives the response.
    pub(in crate::gateway) fn maker(&self) -> Option<Maker> {
        Some(self.target()?.maker_for(self.surface()))
    }
}

impl Gateway {
    /// Keeps an answered response: the object itself, or the event that brought it.
    pub(super) fn keep_response(&self, keeping: &Keeping, answer: &[u8], maker: Option<Maker>) {
        let Ok(mut response) = serde_json::from_slice::<Value>(answer) else { return };
        if response["response"].is_object() {
            response = response["response"].take();
        }
        let Some(id) = response["id"].as_str().map(str::to_owned) else { return };
        self.put_response(&keeping.owner, id, &keeping.stored(response, maker));
    }

    fn put_response(&self, owner: &Owner, id: String, stored: &Stored) {
        self.index_items(owner, &id, stored);
        if let Ok(value) = serde_json::to_vec(stored) {
            self.shelf.put(owner, ObjectKind::Response, id, value.into(), RESPONSE);
        }
    }

    /// The same before its client is told its id, by which it is found from then on, whatever
    /// becomes of this process.
    async fn put_begun(&self, owner: &Owner, id: String, stored: &Stored) {
        if let Ok(value) = serde_json::to_vec(stored) {
            self.shelf.put_first(owner, ObjectKind::Response, id, value.into(), RESPONSE).await;
        }
    }

    async fn stored(&self, owner: &Owner, id: &str) -> Result<Stored, Error> {
        // Asked first: what ends in between is found ended.
        let running = self.jobs.is_running(owner, id);
        let value = self.shelf.get(owner, ObjectKind::Response, id).await?;
        let value = value.ok_or_else(|| unknown(id))?;
        let mut stored: Stored = serde_json::from_slice(&value).map_err(|_| unknown(id))?;
        stored.bytes = value.len();
        if stored.is_unfinished() && !running {
            if let Some(run) = stored.run() {
                return Ok(Box::pin(self.as_its_run_stands(owner, id, run, stored)).await);
            }
            stored.fail(&Error::new(Kind::Internal, "The gateway ended before the answer did."));
        }
        Ok(stored)
    }

    /// A response that its owner names, which another replica may have told of just now.
    async fn named(&self, owner: &Owner, id: &str) -> Result<Stored, Error> {
        let is_ours = id.strip_prefix("resp_").is_some_and(|id| RunId::of_digits(id).is_some());
        if is_ours {
            self.shelf.await_written(owner, ObjectKind::Response, id).await;
        }
        self.stored(owner, id).await
    }

    /// A response that its owner goes on from.
    async fn previous(&self, owner: &Owner, id: &str) -> Result<Stored, Error> {
        self.named(owner, id).await.map_err(|error| match error.kind {
            Kind::NotFound => not_previous(id, "unknown"),
            _ => error,
        })
    }

    /// The conversation that ends with response `id`, oldest turn first.
    async fn chain(&self, owner: &Owner, id: &str) -> Result<Vec<Stored>, Error> {
        let (mut chain, mut seen, mut bytes) = (Vec::new(), HashSet::new(), 0);
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            let stored = self.previous(owner, &id).await?;
            if stored.is_unfinished() {
                return Err(not_previous(&id, "not finished"));
            }
            bytes += stored.bytes;
            self.check_size(bytes)?;
            next.clone_from(&stored.previous);
            chain.push(stored);
            // A server that gives the same id twice has overwritten what it said before.
            if !seen.insert(id) || chain.len() > LONGEST_CHAIN {
                let message = format!(
                    "The conversation leads back to itself or has more than {LONGEST_CHAIN} turns."
                );
                return Err(Error::invalid(message));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    /// Whether what is put together from what is kept is no longer than a body may be.
    fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let most = self.snapshot().config.server.max_body;
        if bytes <= most {
            return Ok(());
        }
        let message = format!(
            "With what was said before, the body has more than {most} bytes; begin a new \
             conversation."
        );
        Err(Error::new(Kind::TooLarge, message))
    }

    /// A question that was put together.
    fn spell(&self, body: &Map<String, Value>) -> Result<Bytes, Error> {
        let body = serde_json::to_vec(body);
        let body = body.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        self.check_size(body.len())?;
        Ok(body.into())
    }

    /// The question with what was said before it, for providers that were not there. `listeners`
    /// are those that may be asked now, as `said` wants them.
    pub(super) async fn unrolled(
        &self,
        keeping: &Keeping,
        previous: Option<&str>,
        listeners: &[Option<Maker>],
    ) -> Result<Bytes, Error> {
        let chain = match previous {
            Some(previous) => self.chain(&keeping.owner, previous).await?,
            None => Vec::new(),
        };
        let body: Result<Map<String, Value>, _> =
            serde_json::from_slice(&keeping.question.to_bytes());
        let body = body.map_err(|error| Error::invalid(format!("The body is odd: {error}.")))?;
        let said_before: HashSet<&str> = chain.iter().flat_map(Stored::ids).collect();
        let knows = |id: &Value| id.as_str().is_some_and(|id| said_before.contains(id));
        let mut body = state::resume(body, said(&chain, listeners), knows)
            .map_err(|misread| Error::invalid(misread.0))?;
        // Whoever works in the background, it is the gateway that does.
        body.shift_remove("background");
        self.spell(&body)
    }

    /// `GET /v1/responses/{id}`.
    pub async fn response(&self, owner: &Owner, id: &str) -> Result<Value, Error> {
        Ok(self.named(owner, id).await?.response)
    }

    /// `DELETE /v1/responses/{id}`. What its provider keeps besides is the provider's.
    pub async fn delete_response(&self, owner: &Owner, id: &str) -> Result<Value, Error> {
        let stored = self.named(owner, id).await?;
        let run = stored.run().filter(|_| stored.is_unfinished());
        if let (Some(run), Some(conductor)) = (run, self.conductor()) {
            // Nobody can ask for what it would say.
            conductor.cancel(run, owner.clone()).await?;
        }
        self.jobs.end(owner, id, || {});
        self.shelf.delete(owner, ObjectKind::Events, id).await?;
        if !self.shelf.delete(owner, ObjectKind::Response, id).await? {
            return Err(unknown(id));
        }
        Ok(json!({"id": id, "object": "response", "deleted": true}))
    }

    /// `GET /v1/responses/{id}/input_items`, one page of them.
    pub async fn input_items(
        &self,
        owner: &Owner,
        id: &str,
        page: Page<'_>,
    ) -> Result<Value, Error> {
        let last = self.named(owner, id).await?;
        let mut chain = match &last.previous {
            Some(previous) => match self.chain(owner, previous).await {
                // What came before may have been deleted since.
                Err(error) if error.kind == Kind::InvalidRequest => Vec::new(),
                chain => chain?,
            },
            None => Vec::new(),
        };
        chain.push(last);
        Ok(state::list(id, &asked(&chain), page))
    }

    /// `POST /v1/responses/{id}/cancel`.
    pub async fn cancel_response(
        self: &Arc<Self>,
        owner: &Owner,
        id: &str,
    ) -> Result<Value, Error> {
        let mut stored = self.named(owner, id).await?;
        if stored.response["background"] != true {
            let message = "Only a response that was made with `background: true` can be cancelled.";
            return Err(Error::invalid(message));
        }
        let run = stored.run().filter(|_| stored.is_unfinished());
        if let (Some(run), Some(conductor)) = (run, self.conductor()) {
            conductor.cancel(run, owner.clone()).await?;
        }
        stored.response["status"] = json!("cancelled");
        let put = || self.put_response(owner, id.to_owned(), &stored);
        if self.jobs.end(owner, id, put) {
            return Ok(stored.response);
        }
        if run.is_some() && !self.jobs.is_running(owner, id) {
            // Nobody here was at work on it.
            self.put_response(owner, id.to_owned(), &stored);
            return Ok(stored.response);
        }
        // It came to its own end.
        self.response(owner, id).await
    }
}

fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("There is no response `{id}` of this key."))
}

/// What OpenAI says of it, which clients look for.
fn not_previous(id: &str, why: &str) -> Error {
    let upstream = Upstream {
        kind: None,
        param: Some("previous_response_id".to_owned()),
        code: Some("previous_response_not_found".to_owned()),
    };
    let message = format!("The previous response `{id}` is {why}.");
    Error { upstream: Some(Box::new(upstream)), ..Error::invalid(message) }
}
