//! Guards that ask somebody else: what to ask, as data, and what the reply means.
//!
//! Nothing here has a connection. Who has one implements `Ask`.

mod judge;
mod moderation;
mod webhook;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde_json::Value;

use super::Engine;
use super::{Blocked, Failure, Finding, Guard, Verdict};
use crate::config::{Action, GuardKind, OnError, Secret, Stage};

/// What a guard that asks is shown: texts of one surface of a call, past the local guards.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub stage: Stage,
    pub texts: &'a [String],
    /// The call's id.
    pub call: &'a str,
    /// What the client asked for as its model.
    pub model: &'a str,
    /// The name of the key, never its secret.
    pub key: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

/// Something to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Inquiry {
    /// A chat completion through a route, in the name and on the bill of the call's key.
    Chat { route: String, body: Value },
    /// `POST /v1/moderations` at `provider/model`.
    Moderation { model: String, body: Value },
    /// `POST` to an address, as it stands.
    Webhook { url: String, headers: Vec<(&'static str, String)>, body: Bytes },
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Bytes,
}

pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failure>> + Send + 'a>>;

/// Who can ask. Its calls are marked as internal: they are billed, and not guarded themselves.
pub trait Ask: Sync {
    fn ask(&self, inquiry: Inquiry) -> Asking<'_>;
}

/// What a guard says of the subject, and what follows.
#[derive(Clone, Debug)]
pub struct Ruling {
    pub verdict: Verdict,
    /// The texts as the guard wants them, where it masks.
    pub texts: Option<Vec<String>>,
    pub blocked: Option<Blocked>,
}

/// What a reply says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Opinion {
    findings: Vec<Finding>,
    texts: Option<Vec<String>>,
}

pub(super) enum Remote {
    Judge { route: String, prompt: String },
    Moderation { model: String, categories: Vec<String>, threshold: Option<f32> },
    Webhook { url: String, secret: Option<Secret> },
}

// === impl Remote ===

impl Remote {
    pub(super) fn new(kind: &GuardKind) -> Self {
        match kind {
            GuardKind::Moderation { model, categories, threshold_permille } => Self::Moderation {
                model: model.clone(),
                categories: categories.clone(),
                threshold: threshold_permille.map(share),
            },
            GuardKind::Webhook { url, secret } => {
                Self::Webhook { url: url.clone(), secret: secret.clone() }
            }
            GuardKind::Judge { route, prompt } => {
                Self::Judge { route: route.clone(), prompt: prompt.clone() }
            }
            _ => Self::Webhook { url: String::new(), secret: None },
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Judge { .. } => "judge",
            Self::Moderation { .. } => "moderation",
            Self::Webhook { .. } => "webhook",
        }
    }

    fn inquiry(&self, guard: &Guard, subject: &Subject<'_>) -> Inquiry {
        match self {
            Self::Judge { route, prompt } => {
                let body = judge::body(route, prompt, subject);
                Inquiry::Chat { route: route.clone(), body }
            }
            Self::Moderation { model, .. } => {
                Inquiry::Moderation { model: model.clone(), body: moderation::body(model, subject) }
            }
            Self::Webhook { url, secret } => {
                let body = webhook::body(&guard.name, subject);
                let headers = webhook::headers(secret.as_ref(), subject.now, &body);
                Inquiry::Webhook { url: url.clone(), headers, body }
            }
        }
    }

    fn read(&self, subject: &Subject<'_>, reply: &Reply) -> Result<Opinion, Failure> {
        if !(200..300).contains(&reply.status) {
            return Err(Failure::Status(reply.status));
        }
        let body: Value = serde_json::from_slice(&reply.body)
            .map_err(|_| Failure::Answer("it is not JSON".to_owned()))?;
        match self {
            Self::Judge { .. } => judge::read(&body),
            Self::Moderation { categories, threshold, .. } => {
                moderation::read(&body, subject.texts.len(), categories, *threshold)
            }
            Self::Webhook { .. } => webhook::read(&body, subject.texts.len()),
        }
    }
}

/// Thousandths as a share.
fn share(permille: u32) -> f32 {
    u16::try_from(permille).map_or(1.0, f32::from) / 1000.0
}

// === impl Guard ===

impl Guard {
    /// What kind of guard it is, where it asks.
    pub fn asks_by(&self) -> Option<&'static str> {
        if let Engine::Remote(remote) = &self.engine { Some(remote.name()) } else { None }
    }

    /// Asks, within the guard's time, and says what follows. Nothing for guards that need not ask.
    pub async fn consult(&self, ask: &dyn Ask, subject: &Subject<'_>) -> Option<Ruling> {
        let Engine::Remote(remote) = &self.engine else { return None };
        let asking = ask.ask(remote.inquiry(self, subject));
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let reply = answer.unwrap_or(Err(Failure::Timeout));
        let opinion = reply.and_then(|reply| remote.read(subject, &reply));
        Some(self.rule(subject, opinion))
    }

    fn rule(&self, subject: &Subject<'_>, opinion: Result<Opinion, Failure>) -> Ruling {
        let mut verdict = self.silence(subject.stage);
        let opinion = match opinion {
            Ok(opinion) => opinion,
            Err(failure) => {
                verdict.failure = Some(failure);
                // A guard that only notes has nothing to block for.
                let blocks = verdict.acts() && self.on_error == OnError::Block;
                let blocked = blocks.then(|| self.blocks("unavailable".to_owned()));
                return Ruling { verdict, texts: None, blocked };
            }
        };
        verdict.scanned_bytes = subject.texts.iter().map(|text| text.len() as u64).sum();
        let first = opinion.findings.first().map(|finding| finding.label.clone());
        for finding in opinion.findings {
            verdict.note(finding);
        }
        let acts = verdict.acts();
        let masked = opinion.texts.filter(|_| acts && self.action == Action::Mask);
        // What should be masked and was not sent back masked must not go on.
        let blocked = first.filter(|_| acts && masked.is_none()).map(|label| self.blocks(label));
        Ruling { verdict, texts: masked, blocked }
    }
}

#[cfg(test)]
mod tests;
