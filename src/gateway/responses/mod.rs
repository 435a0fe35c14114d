//! The responses API remembers: what was answered can be asked for, gone on from, and taken back.
//!
//! Whatever provider answered, it is this gateway that remembers, per owner, so that a conversation
//! can go on with another one. Ids that were not given out here to this owner are unknown here.

mod background;
mod stored;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use self::stored::{LONGEST_CHAIN, Stored, asked, said};
use super::Gateway;
use super::shelf::RESPONSE;
use crate::canon::Owner;
use crate::dialect::responses::state::{self, Page};
use crate::dialect::splice::Payload;
use crate::error::{Error, Kind};
use crate::store::ObjectKind;

pub(super) use self::background::Jobs;

/// What must be known at a call's end to keep its response.
#[derive(Debug)]
pub(super) struct Keeping {
    owner: Owner,
    /// The question as the client sent it.
    question: Payload,
    previous: Option<String>,
}

impl Keeping {
    pub(super) fn new(owner: Owner, question: Payload, previous: Option<String>) -> Self {
        Self { owner, question, previous }
    }
}

impl Gateway {
    /// Keeps an answered response: the object itself, or the event that brought it. `provider` is
    /// who keeps it too.
    pub(super) fn keep_response(&self, keeping: &Keeping, answer: &[u8], provider: Option<&str>) {
        let Ok(mut response) = serde_json::from_slice::<Value>(answer) else { return };
        if response["response"].is_object() {
            response = response["response"].take();
        }
        let Some(id) = response["id"].as_str().map(str::to_owned) else { return };
        let question: Value =
            serde_json::from_slice(&keeping.question.to_bytes()).unwrap_or_default();
        let stored = Stored {
            input: state::items(&question["input"]),
            response,
            previous: keeping.previous.clone(),
            provider: provider.map(str::to_owned),
        };
        self.put_response(&keeping.owner, id, &stored);
    }

    fn put_response(&self, owner: &Owner, id: String, stored: &Stored) {
        if let Ok(value) = serde_json::to_vec(stored) {
            self.shelf.put(owner, ObjectKind::Response, (id, value.into()), RESPONSE);
        }
    }

    async fn stored(&self, owner: &Owner, id: &str) -> Option<Stored> {
        let value = self.shelf.get(owner, ObjectKind::Response, id).await?;
        serde_json::from_slice(&value).ok()
    }

    /// The conversation that ends with response `id`, oldest turn first.
    async fn chain(&self, owner: &Owner, id: &str) -> Result<Vec<Stored>, Error> {
        let mut chain = Vec::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            let stored = self.stored(owner, &id).await.ok_or_else(|| unknown(&id))?;
            next.clone_from(&stored.previous);
            chain.push(stored);
            if chain.len() > LONGEST_CHAIN {
                let message = format!("The conversation has more than {LONGEST_CHAIN} turns.");
                return Err(Error::invalid(message));
            }
        }
        chain.reverse();
        Ok(chain)
    }

    /// The question with what was said before it, for providers that were not there. `targets` are
    /// those that may be asked now.
    pub(super) async fn unrolled(
        &self,
        keeping: &Keeping,
        previous: Option<&str>,
        targets: &[&str],
    ) -> Result<Bytes, Error> {
        let chain = match previous {
            Some(previous) => self.chain(&keeping.owner, previous).await?,
            None => Vec::new(),
        };
        let own = chain.iter().all(|turn| {
            turn.provider
                .as_deref()
                .is_some_and(|keeper| targets.iter().all(|name| *name == keeper))
        });
        let body: Result<Map<String, Value>, _> =
            serde_json::from_slice(&keeping.question.to_bytes());
        let mut body =
            body.map_err(|error| Error::invalid(format!("The body is odd: {error}.")))?;
        body =
            state::resume(body, &said(&chain, own)).map_err(|misread| Error::invalid(misread.0))?;
        // Whoever works in the background, it is the gateway that does.
        body.shift_remove("background");
        let body = serde_json::to_vec(&body);
        let body = body.map_err(|error| Error::new(Kind::Internal, error.to_string()))?;
        Ok(body.into())
    }

    /// `GET /v1/responses/{id}`.
    pub async fn response(&self, owner: &Owner, id: &str) -> Result<Value, Error> {
        Ok(self.stored(owner, id).await.ok_or_else(|| unknown(id))?.response)
    }

    /// `DELETE /v1/responses/{id}`. What its provider keeps besides is the provider's.
    pub async fn delete_response(&self, owner: &Owner, id: &str) -> Result<Value, Error> {
        self.jobs.cancel(owner, id);
        if !self.shelf.delete(owner, ObjectKind::Response, id).await {
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
        Ok(state::list(id, &asked(&self.chain(owner, id).await?), page))
    }

    /// `POST /v1/responses/{id}/cancel`.
    pub async fn cancel_response(
        self: &Arc<Self>,
        owner: &Owner,
        id: &str,
    ) -> Result<Value, Error> {
        let mut stored = self.stored(owner, id).await.ok_or_else(|| unknown(id))?;
        if stored.response["background"] != true {
            let message = "Only a response that was made with `background: true` can be cancelled.";
            return Err(Error::invalid(message));
        }
        if self.jobs.cancel(owner, id) {
            stored.response["status"] = json!("cancelled");
            self.put_response(owner, id.to_owned(), &stored);
        }
        Ok(stored.response)
    }
}

fn unknown(id: &str) -> Error {
    let message: Cow<'static, str> = format!("There is no response `{id}` of this key.").into();
    Error { status: Some(404), ..Error::new(Kind::NotFound, message) }
}
