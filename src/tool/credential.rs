//! How a tool's server is shown that it is us: a header, which may have to be fetched first.

use std::fmt;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use super::egress::{place, read, sensitive};
use super::{Failure, FailureKind};
use crate::config::{ClientCredentials, ToolAuth, Web};
use crate::dialect::splice::Payload;
use crate::net::client::{Client, Origin, Outgoing, Reach, Template};

/// How long a fetch of a token may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a token is trusted for whose end nobody has told.
const UNSTATED: Duration = Duration::from_mins(5);
/// A token is not shown when it ends within so long.
const MARGIN: Duration = Duration::from_secs(20);
const LONGEST_ANSWER: usize = 64 * 1024;
/// A shorter secret is found everywhere.
const SHORTEST_SECRET: usize = 6;

/// What is shown.
pub(super) enum Credential {
    Fixed { name: HeaderName, value: HeaderValue, secrets: Vec<String> },
    Fetched(Box<Desk>),
}

/// Where tokens are fetched: OAuth 2.0, client credentials.
pub(super) struct Desk {
    origin: std::sync::Arc<Origin>,
    path: String,
    headers: Template,
    form: Bytes,
    secret: String,
    held: Mutex<Option<Held>>,
    /// Held by the one who fetches.
    gate: tokio::sync::Mutex<()>,
}

struct Held {
    header: HeaderValue,
    token: String,
    since: Instant,
    until: Instant,
}

// === impl Credential ===

impl Credential {
    pub(super) fn new(
        auth: &ToolAuth,
        web: &Web,
        (client, reach): (&Client, Reach),
    ) -> Result<Self, String> {
        let fixed = |name, value: &str, secrets| {
            Ok(Self::Fixed { name, value: sensitive(value)?, secrets })
        };
        match auth {
            ToolAuth::Bearer(token) => {
                let token = token.expose();
                fixed(AUTHORIZATION, &format!("Bearer {token}"), vec![token.to_owned()])
            }
            ToolAuth::Header { name, value } => {
                let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
                fixed(name, value.expose(), vec![value.expose().to_owned()])
            }
            ToolAuth::Basic { user, password } => {
                let password = password.expose();
                let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
                fixed(AUTHORIZATION, &format!("Basic {both}"), vec![password.to_owned(), both])
            }
            ToolAuth::Client(client_credentials) => {
                let desk = Desk::new(client_credentials, web, (client, reach))?;
                Ok(Self::Fetched(Box::new(desk)))
            }
        }
    }

    pub(super) async fn header(&self) -> Result<(HeaderName, HeaderValue), Failure> {
        match self {
            Self::Fixed { name, value, .. } => Ok((name.clone(), value.clone())),
            Self::Fetched(desk) => Ok((AUTHORIZATION, desk.token().await?)),
        }
    }

    /// What was shown has been refused: whether another one can be had. One that was fetched since
    /// `began` is not doubted, for another would fare no better.
    pub(super) fn renew(&self, began: Instant) -> bool {
        match self {
            Self::Fixed { .. } => false,
            Self::Fetched(desk) => {
                let mut held = desk.lock();
                held.take_if(|held| held.since < began).is_some() || held.is_none()
            }
        }
    }

    /// What must not be seen in an answer.
    pub(super) fn secrets(&self) -> Vec<String> {
        let mut secrets = match self {
            Self::Fixed { secrets, .. } => secrets.clone(),
            Self::Fetched(desk) => {
                let token = desk.lock().as_ref().map(|held| held.token.clone());
                token.into_iter().chain([desk.secret.clone()]).collect()
            }
        };
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credential(***)")
    }
}

// === impl Desk ===

impl Desk {
    fn new(
        credentials: &ClientCredentials,
        web: &Web,
        (client, reach): (&Client, Reach),
    ) -> Result<Self, String> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let (place, path) = place(&credentials.token_url, web)?;
        let secret = credentials.client_secret.expose().to_owned();
        // RFC 6749, section 2.3.1.
        let both = format!("{}:{}", encoded(&credentials.client_id), encoded(&secret));
        let basic = sensitive(&format!("Basic {}", BASE64_STANDARD.encode(both)))?;
        let mut form = "grant_type=client_credentials".to_owned();
        for (name, value) in [("scope", &credentials.scope), ("audience", &credentials.audience)] {
            if let Some(value) = value {
                form = format!("{form}&{name}={}", encoded(value));
            }
        }
        Ok(Self {
            origin: client.origin_within(&place, reach).map_err(|error| error.to_string())?,
            path: if path.is_empty() { "/".to_owned() } else { path },
            headers: Template::new(HeaderMap::from_iter([(AUTHORIZATION, basic)])),
            form: Bytes::from(form),
            secret,
            held: Mutex::new(None),
            gate: tokio::sync::Mutex::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Option<HeaderValue> {
        let held = self.lock();
        let valid = held.as_ref().filter(|held| Instant::now() < held.until);
        valid.map(|held| held.header.clone())
    }

    /// The token; all who need one at the same time wait for one fetch.
    async fn token(&self) -> Result<HeaderValue, Failure> {
        if let Some(header) = self.held() {
            return Ok(header);
        }
        let _gate = self.gate.lock().await;
        if let Some(header) = self.held() {
            return Ok(header);
        }
        let held = within(PATIENCE, self.fetch()).await?;
        let header = held.header.clone();
        *self.lock() = Some(held);
        Ok(header)
    }

    async fn fetch(&self) -> Result<Held, Failure> {
        let body = Payload::from(self.form.clone());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let outgoing = Outgoing {
            method: "POST",
            path: &self.path,
            headers: &self.headers,
            extra: &[],
            content_type: Some(&form),
            body: &body,
            rest: None,
        };
        let since = Instant::now();
        let sent = self.origin.send(outgoing, PATIENCE).await;
        let reply = sent.map_err(|_| away("the server of its credentials cannot be reached"))?;
        let status = reply.status;
        let (body, _) = read(reply, LONGEST_ANSWER)
            .await
            .map_err(|_| away("the server of its credentials broke off"))?;
        if status != 200 {
            let kind = if status >= 500 { FailureKind::Unreachable } else { FailureKind::Auth };
            let message = format!("the server of its credentials answered HTTP {status}");
            return Err(Failure::new(kind, message));
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = answer["access_token"].as_str().unwrap_or_default();
        let header = sensitive(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
        let header = header.ok_or_else(|| {
            Failure::new(FailureKind::Auth, "the server of its credentials gave no token")
        })?;
        let lifetime = answer["expires_in"].as_u64().map_or(UNSTATED, Duration::from_secs);
        // One that lives shorter than the margin is still good for a while.
        let usable = lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        Ok(Held { header, token: token.to_owned(), since, until: since + usable })
    }
}

fn away(message: &str) -> Failure {
    Failure::new(FailureKind::Unreachable, message)
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(away("the server of its credentials did not answer")))
}
