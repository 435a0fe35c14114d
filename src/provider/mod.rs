//! Who we call: address, credentials, quirks. Rows first, code only for oddities.

pub mod catalog;
mod encode;
#[cfg_attr(not(test), expect(dead_code, reason = "the catalogue's rows call it next"))]
mod auth;
mod azure;
#[cfg_attr(not(test), expect(dead_code, reason = "the catalogue's rows call it next"))]
mod bedrock;
#[cfg_attr(not(test), expect(dead_code, reason = "the catalogue's rows call it next"))]
mod vertex;
mod demo;
mod failure;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use self::catalog::{Auth, Kind};
pub use self::failure::{Failure, Next};
use crate::canon::Surface;
use crate::config::{self, Secret, Timeouts};
use crate::dialect::splice::{Payload, Usage};
use crate::net::client::{Client, Fault, Origin, Outgoing, Place, Reply, Template};

/// A configured provider.
#[derive(Debug)]
pub struct Provider {
    pub name: Arc<str>,
    pub kind: &'static Kind,
    /// What it is said to serve, for `/v1/models` and bare model names.
    pub models: Vec<String>,
    pub timeouts: Timeouts,
    door: Door,
    next_credential: AtomicUsize,
    /// It has refused `stream_options`, although its row has nothing against it.
    omits_stream_options: AtomicBool,
}

/// How a provider is reached.
#[derive(Debug)]
enum Door {
    Http {
        origin: Arc<Origin>,
        /// The path of the base URL, without a slash at its end.
        base: String,
        credentials: Vec<Credential>,
        deployments: Option<azure::Deployments>,
    },
    /// Answers are made in this process.
    BuiltIn,
}

/// One key of a provider, as the headers it is sent in. It can only be sent to that provider's
/// origin, because nothing else has the template.
#[derive(Debug)]
struct Credential {
    secret: Option<Secret>,
    template: Template,
}

/// One question to a provider.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub surface: Surface,
    pub model: &'a str,
    pub payload: &'a Payload,
    /// Which of its credentials, counted from one chosen by `first_credential`.
    pub credential: usize,
    /// Headers of the client that are passed on.
    pub extra: &'a [(HeaderName, HeaderValue)],
    pub connect_limit: Duration,
}

// === impl Provider ===

impl Provider {
    /// Builds a provider from its section; the error says what is wrong with it.
    pub fn build(name: &str, section: &config::Provider, client: &Client) -> Result<Self, String> {
        let kind = catalog::find(&section.kind)
            .ok_or_else(|| format!("there is no provider kind `{}`", section.kind))?;
        let door =
            if kind.id == demo::ID { Door::BuiltIn } else { Self::door(kind, section, client)? };
        let models = match &door {
            Door::BuiltIn if section.models.is_empty() => demo::models(),
            _ => section.models.clone(),
        };
        Ok(Self {
            name: name.into(),
            kind,
            models,
            timeouts: section.timeouts.clone(),
            door,
            next_credential: AtomicUsize::new(0),
            omits_stream_options: AtomicBool::new(!kind.quirks.stream_options),
        })
    }

    fn door(
        kind: &'static Kind,
        section: &config::Provider,
        client: &Client,
    ) -> Result<Door, String> {
        let base = section.base_url.as_deref().unwrap_or(kind.base_url);
        if base.is_empty() {
            return Err(format!("`{}` needs a `base_url`", kind.id));
        }
        let address: Uri =
            base.parse().map_err(|error| format!("its `base_url` is invalid: {error}"))?;
        if kind.auth != Auth::None && !kind.key_variable.is_empty() && section.api_keys.is_empty() {
            // A proxy in front may add the key, so this is only refused where it cannot work.
            if section.base_url.is_none() && section.headers.is_empty() {
                return Err(format!("`{}` needs an `api_key`", kind.id));
            }
        }
        let path = address.path().trim_end_matches('/').to_owned();
        let place = Place { address, proxy: section.proxy.clone(), ca: section.ca.clone() };
        let origin = client.origin(&place).map_err(|error| error.to_string())?;
        let mut credentials = Vec::new();
        let secrets = section.api_keys.iter().map(Some);
        for secret in secrets.chain(section.api_keys.is_empty().then_some(None)) {
            credentials.push(Credential::new(kind, section, secret)?);
        }
        let deployments = azure::Deployments::of(kind, &path, section.api_version.as_deref());
        Ok(Door::Http { origin, base: path, credentials, deployments })
    }

    /// How many credentials may be tried.
    pub fn credentials(&self) -> usize {
        match &self.door {
            Door::Http { credentials, .. } => credentials.len(),
            Door::BuiltIn => 1,
        }
    }

    /// The credential that the next call begins with; they take turns.
    pub fn first_credential(&self) -> usize {
        match self.credentials() {
            1 => 0,
            _ => self.next_credential.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Whether it has a door for this kind of question.
    pub fn serves(&self, surface: Surface) -> bool {
        match surface {
            Surface::Chat => true,
            Surface::Completions => self.kind.quirks.completions,
            Surface::Embeddings => self.kind.quirks.embeddings,
        }
    }

    /// What becomes of `stream_options` on the way to it.
    pub fn usage(&self) -> Usage {
        if self.omits_stream_options.load(Ordering::Relaxed) { Usage::Omit } else { Usage::Ask }
    }

    /// It refused `stream_options`; it is not shown the field again.
    pub fn omit_stream_options(&self) {
        self.omits_stream_options.store(true, Ordering::Relaxed);
    }

    /// Asks, and waits for the head of the answer.
    pub async fn send(&self, order: Order<'_>) -> Result<Reply, Fault> {
        let Door::Http { origin, base, credentials, deployments } = &self.door else {
            return Ok(demo::answer(order.surface, order.payload));
        };
        let path = match deployments {
            Some(deployments) => deployments.path(base, order.surface, order.model),
            None => [base, order.surface.path()].concat(),
        };
        let outgoing = Outgoing {
            method: "POST",
            path: &path,
            headers: &credentials[order.credential % credentials.len()].template,
            extra: order.extra,
            body: order.payload,
        };
        origin.send(outgoing, order.connect_limit).await
    }

    /// `text` without any of this provider's secrets, should an upstream have echoed one.
    pub fn redact(&self, text: String) -> String {
        let Door::Http { credentials, .. } = &self.door else { return text };
        let secrets = credentials.iter().filter_map(|credential| credential.secret.as_ref());
        secrets
            .filter(|secret| !secret.expose().is_empty())
            .fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }

    /// `event` without them, if it has any.
    pub fn redact_event(&self, event: &Bytes) -> Option<Bytes> {
        let text = String::from_utf8_lossy(event);
        let redacted = self.redact(text.clone().into_owned());
        (redacted != text).then(|| redacted.into())
    }

    /// What a status and body of this provider mean.
    pub fn classify(&self, status: u16, headers: &HeaderMap, body: &Bytes) -> Failure {
        failure::classify(self.kind, status, headers, body)
    }
}

// === impl Credential ===

impl Credential {
    fn new(
        kind: &Kind,
        section: &config::Provider,
        secret: Option<&Secret>,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Compressed streams are held back by whoever compresses them.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let agent = concat!("switchpoint/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(secret) = secret {
            let (name, text) = match kind.auth {
                Auth::Header(name) => (HeaderName::from_static(name), secret.expose().to_owned()),
                Auth::Bearer | Auth::None => (AUTHORIZATION, format!("Bearer {}", secret.expose())),
            };
            headers.insert(name, sensitive(&text)?);
        }
        for (name, value) in &section.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.insert(name, sensitive(value.expose())?);
        }
        Ok(Self { secret: secret.cloned(), template: Template::new(headers) })
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "a key or header holds characters that a header cannot".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
