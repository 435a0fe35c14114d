//! Who we call: address, credentials, quirks. Rows first, code only for oddities.

pub mod catalog;
mod auth;
mod azure;
mod bedrock;
mod demo;
mod encode;
pub mod failure;
mod kind;
pub mod models;
mod paths;
mod vertex;
mod traits;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

pub use self::auth::secrets;
use self::auth::{Setup, Signer, Unsigned};
use self::catalog::{Auth, Kind};
pub use self::failure::{Blame, Cause, Class, Failure, Next};
use self::paths::Paths;
use crate::canon::{Dialect, Model, Relay, StreamFailure, Surface};
use crate::config::{self, CloudEnvironment, ModelOverride, Secret, Timeouts};
use crate::dialect::embed;
use crate::dialect::openai::family;
use crate::dialect::splice::{Payload, Usage};
use crate::net::client::{CDN_LOOP, Client, Fault, Feed, Origin, Outgoing, Place, Reply, Template};

/// Keyed afresh in each process, so that a fingerprint tells nothing of a secret.
static SEAL: LazyLock<RandomState> = LazyLock::new(RandomState::new);

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
    /// Where it is, by its config.
    region: Option<String>,
    /// It has refused `stream_options`, although its row has nothing against it.
    omits_stream_options: AtomicBool,
}

/// How a provider is reached.
#[derive(Debug)]
enum Door {
    Http {
        origin: Arc<Origin>,
        paths: Paths,
        credentials: Vec<Credential>,
    },
    /// Answers are made in this process.
    BuiltIn,
}

/// One key of a provider, as the headers it is sent in. It can only be sent to that provider's
/// origin, because nothing else has the template.
#[derive(Debug)]
struct Credential {
    secret: Option<Secret>,
    /// What of the config's headers may be secret too.
    telling: Vec<Secret>,
    template: Template,
    /// Adds what proves each request on its own.
    signer: Option<Signer>,
}

/// What is shorter is a word that may stand anywhere, and not a secret.
const SHORTEST_SECRET: usize = 8;

/// How a gateway like this one signs what it passes on.
pub const MARK: &str = "switchpoint";

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Net(#[from] Fault),
    /// Nothing proves who we are; says what to do about it.
    #[error("{0}")]
    Unproven(String),
}

/// What a provider is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Chat {
        dialect: Dialect,
        stream: bool,
    },
    /// How many tokens a question has, asked in this dialect.
    CountTokens(Dialect),
    /// Makes a conversation shorter.
    Compact,
    Completions,
    Embeddings,
    Relay(Relay),
}

/// How a question gets to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The provider speaks what the client speaks.
    Verbatim,
    /// It is put into this dialect.
    Translated(Dialect),
    /// It asks for vectors, and is spelled so.
    Vectors(embed::Upstream),
}

/// One question to a provider.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    pub operation: Operation,
    pub model: &'a str,
    pub payload: &'a Payload,
    /// Which of its credentials, one of its `turns`.
    pub credential: usize,
    /// Headers of the client that are passed on.
    pub extra: &'a [(HeaderName, HeaderValue)],
    pub connect_limit: Duration,
    pub form: Form<'a>,
    /// Set as soon as some of the question has left.
    pub left: Option<&'a AtomicBool>,
}

/// What a question has besides its payload.
#[derive(Clone, Copy)]
pub struct Form<'a> {
    pub content_type: Option<&'a HeaderValue>,
    /// The object that is asked for; empty where it is not one.
    pub id: &'a str,
    /// What comes behind the payload.
    pub rest: Option<&'a dyn Feed>,
}

// === impl Operation ===

impl Operation {
    fn method(self) -> &'static str {
        if let Self::Relay(relay) = self { relay.method() } else { "POST" }
    }
}

// === impl Provider ===

impl Provider {
    /// Builds a provider from its section; the error says what is wrong with it.
    pub fn build(
        name: &str,
        section: &config::Provider,
        environment: &CloudEnvironment,
        client: &Client,
    ) -> Result<Self, String> {
        let kind = catalog::find(&section.kind)
            .ok_or_else(|| format!("there is no provider kind `{}`", section.kind))?;
        auth::refuse_foreign_keys(kind.id, section)?;
        let door = if kind.id == demo::ID {
            Door::BuiltIn
        } else {
            Door::http(kind, Setup { section, environment, client })?
        };
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
            region: section.cloud.region.clone().or_else(|| section.cloud.location.clone()),
            omits_stream_options: AtomicBool::new(!kind.quirks.stream_options),
        })
    }

    /// How many credentials may be tried.
    fn credentials(&self) -> usize {
        match &self.door {
            Door::Http { credentials, .. } => credentials.len(),
            Door::BuiltIn => 1,
        }
    }

    /// Its credentials, from the one that the next call begins with. They take turns; those of one
    /// session, unless that is 0, begin with the same.
    pub fn turns(&self, session: u64) -> std::ops::Range<usize> {
        let first = match (self.credentials(), session) {
            (1, _) => 0,
            (_, 0) => self.next_credential.fetch_add(1, Ordering::Relaxed),
            (count, session) => usize::try_from(session).unwrap_or(0) % count,
        };
        first..first + self.credentials()
    }

    /// A number for each credential, which is the same as long as that is, and tells nothing of it.
    pub fn fingerprints(&self) -> Vec<u64> {
        let Door::Http { credentials, .. } = &self.door else { return vec![0] };
        let fingerprint = |(place, credential): (usize, &Credential)| match &credential.secret {
            Some(secret) => SEAL.hash_one(secret.expose()),
            None => place as u64,
        };
        credentials.iter().enumerate().map(fingerprint).collect()
    }

    /// What OpenTelemetry calls providers of this kind.
    pub fn system(&self) -> &'static str {
        catalog::system(self.kind.id)
    }

    /// Its host and port, unless it answers in this process.
    pub fn server(&self) -> Option<(&str, u16)> {
        match &self.door {
            Door::Http { origin, .. } => Some(origin.server()),
            Door::BuiltIn => None,
        }
    }

    /// Where it is, if that is known.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// What is known of one of its models.
    pub fn model(&self, model: &str, written: Option<&ModelOverride>) -> Model {
        models::resolve(self.kind, model, written)
    }

    /// The dialects in which this model can be asked, the one with least loss first.
    fn dialects(&self, model: &str) -> impl Iterator<Item = Dialect> {
        let leads = move |dialect: &Dialect| match &self.door {
            Door::Http { paths, .. } => paths.lead(*dialect, model),
            Door::BuiltIn => true,
        };
        let spoken = move || self.kind.speaks.iter().map(|(dialect, _)| *dialect).filter(leads);
        let newer = spoken().any(|dialect| dialect == Dialect::Responses)
            && family::prefers_responses(model);
        let alone = newer && family::needs_responses(model);
        let others = spoken().filter(move |dialect| match dialect {
            Dialect::Responses => !newer,
            Dialect::Chat => !alone,
            _ => true,
        });
        newer.then_some(Dialect::Responses).into_iter().chain(others)
    }

    /// The dialect in which this model loses least.
    pub fn home(&self, model: &str) -> Option<Dialect> {
        self.dialects(model).next()
    }

    pub fn speaks(&self, dialect: Dialect, model: &str) -> bool {
        self.dialects(model).any(|spoken| spoken == dialect)
    }

    /// How such a question gets to this model; `None` if it cannot.
    pub fn way(&self, surface: Surface, model: &str) -> Option<Way> {
        let first = || self.home(model);
        match (surface, surface.dialect()) {
            (Surface::Completions, _) if self.kind.quirks.completions => Some(Way::Verbatim),
            // Google's providers are asked for events, whatever their client wants.
            (Surface::Completions | Surface::GenerateArray | Surface::Turn, _) => {
                first().map(Way::Translated)
            }
            (Surface::Embeddings, _) if self.kind.quirks.embeddings => Some(Way::Verbatim),
            (Surface::GoogleEmbeddings, _) if self.kind.quirks.embeddings => {
                Some(Way::Vectors(embed::Upstream::OpenAi))
            }
            (Surface::Embeddings | Surface::GoogleEmbeddings, _) => {
                let embeds = self.kind.embeds.iter().find(|known| model.contains(known.models));
                embeds.map(|embeds| Way::Vectors(embeds.spelling))
            }
            // Only where a dialect is at home has it all its doors.
            (Surface::CountTokens | Surface::GoogleCountTokens, home) => {
                (first() == home).then_some(Way::Verbatim)
            }
            (Surface::InputTokens | Surface::Compact, _) => {
                let speaks = self.dialects(model).any(|spoken| spoken == Dialect::Responses);
                speaks.then_some(Way::Verbatim)
            }
            (_, Some(asked)) if self.dialects(model).any(|spoken| spoken == asked) => {
                Some(Way::Verbatim)
            }
            (_, Some(_)) => first().map(Way::Translated),
            (_, None) => None,
        }
    }

    /// The dialect in which it counts a question's tokens for this model, if it does, and whether
    /// as the dialect's maker does: a cloud that makes its paths itself has a form of its own.
    pub fn counts(&self, model: &str) -> Option<(Dialect, bool)> {
        let home = self.dialects(model).next();
        let home = home.filter(|home| matches!(home, Dialect::Messages | Dialect::Gemini))?;
        let (_, path) = self.kind.speaks.iter().find(|(spoken, _)| *spoken == home)?;
        Some((home, !path.is_empty()))
    }

    /// Whether it has what is passed on to it as it is.
    pub fn relays(&self, relay: Relay) -> bool {
        self.kind.relays.1.contains(&relay.of_a_kind())
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
    pub async fn send(&self, order: Order<'_>) -> Result<Reply, Unanswered> {
        let Door::Http { origin, paths, credentials } = &self.door else {
            if let Some(left) = order.left {
                left.store(true, Ordering::Relaxed);
            }
            return Ok(demo::answer(order.operation, order.payload));
        };
        let (operation, form) = (order.operation, order.form);
        let name = if form.id.is_empty() { order.model } else { form.id };
        let path = paths.fill_in(self.kind, operation, name);
        let credential = &credentials[order.credential % credentials.len()];
        let mut outgoing = Outgoing {
            method: operation.method(),
            path: &path,
            headers: &credential.template,
            extra: order.extra,
            content_type: form.content_type,
            body: order.payload,
            rest: form.rest,
            left: order.left,
        };
        let Some(signer) = &credential.signer else {
            return Ok(origin.send(outgoing, order.connect_limit).await?);
        };
        let unsigned = Unsigned {
            method: outgoing.method,
            host: origin.authority(),
            path: &path,
            headers: &[],
            body: order.payload,
        };
        let proof = Box::pin(signer.authorize(&unsigned)).await;
        let mut extra = proof.map_err(|fault| Unanswered::Unproven(fault.to_string()))?;
        extra.extend_from_slice(order.extra);
        outgoing.extra = &extra;
        let reply = origin.send(outgoing, order.connect_limit).await?;
        if reply.status == 401 {
            signer.doubt();
        }
        Ok(reply)
    }

    /// `text` without any of this provider's secrets, should an upstream have echoed one. A key of a
    /// few letters stands in for a real one, and would be found in every word.
    pub fn redact(&self, text: String) -> String {
        let Door::Http { credentials, .. } = &self.door else { return text };
        let signed = credentials.iter().filter_map(|credential| credential.signer.as_ref());
        let signed: Vec<Secret> = signed.flat_map(Signer::secrets).collect();
        let secrets = credentials
            .iter()
            .flat_map(|credential| credential.secret.iter().chain(&credential.telling));
        secrets
            .chain(&signed)
            .filter(|secret| secret.expose().len() >= SHORTEST_SECRET)
            .fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }

    /// `event` without them, if it has any.
    pub fn redact_event(&self, event: &Bytes) -> Option<Bytes> {
        let text = String::from_utf8_lossy(event);
        let redacted = self.redact(text.clone().into_owned());
        (redacted != text).then(|| redacted.into())
    }

    /// The tokens of a question, where they are told beside the answer and not in it.
    pub fn counted(&self, headers: &HeaderMap) -> Option<u64> {
        headers.get(bedrock::INPUT_TOKENS)?.to_str().ok()?.parse().ok()
    }

    /// What a status and body of this provider mean.
    pub fn classify(&self, status: u16, headers: &HeaderMap, body: &Bytes) -> Failure {
        failure::classify(self.kind, status, headers, body)
    }

    /// What a success in name means that carries an error in its body.
    pub fn reported(&self, status: u16, body: &[u8]) -> Failure {
        Failure::reported(self.kind.quirks.signs, status, body)
    }

    /// What the failure means that a stream of this provider reports.
    pub fn heard(&self, status: u16, heard: &StreamFailure) -> Failure {
        Failure::heard(self.kind.quirks.signs, status, heard)
    }
}

// === impl Door ===

impl Door {
    fn http(kind: &'static Kind, setup: Setup<'_>) -> Result<Self, String> {
        let section = setup.section;
        let (paths, home) = Paths::of(kind, setup)?;
        let base = section.base_url.as_deref().unwrap_or(&home);
        if base.is_empty() {
            return Err(format!("`{}` needs a `base_url`", kind.id));
        }
        let address: Uri =
            base.parse().map_err(|error| format!("its `base_url` is invalid: {error}"))?;
        let paths = paths.behind(address.path().trim_end_matches('/'));
        let place = Place { address, proxy: section.proxy.clone(), ca: section.ca.clone() };
        let origin = setup.client.origin(&place).map_err(|error| error.to_string())?;
        Ok(Self::Http { origin, paths, credentials: credentials(kind, setup)? })
    }
}

/// One for each key; where there is none, what else proves who we are.
fn credentials(kind: &Kind, setup: Setup<'_>) -> Result<Vec<Credential>, String> {
    let Setup { section, environment, .. } = setup;
    let mut keys: Vec<&Secret> = section.api_keys.iter().collect();
    if kind.auth == Auth::Aws {
        keys.extend(environment.aws.bearer_token.as_ref().filter(|_| keys.is_empty()));
    }
    if !keys.is_empty() {
        return keys.iter().map(|key| Credential::new(kind, section, Some(key))).collect();
    }
    // A proxy in front may add the key, so its absence is only refused where it cannot work.
    let alone = section.base_url.is_none() && section.headers.is_empty();
    let signer = match kind.auth {
        Auth::Aws => Some(Signer::aws(setup)?),
        Auth::Google => Some(Signer::google(setup)?),
        Auth::Entra(_) if section.headers.is_empty() => Some(Signer::entra(setup)?),
        Auth::Bearer | Auth::Header(_) if alone && !kind.key_variable.is_empty() => {
            return Err(format!("`{}` needs an `api_key`", kind.id));
        }
        Auth::Bearer | Auth::Header(_) | Auth::Entra(_) | Auth::None => None,
    };
    Ok(vec![Credential { signer, ..Credential::new(kind, section, None)? }])
}

// === impl Credential ===

impl Credential {
    fn new(
        kind: &Kind,
        section: &config::Provider,
        secret: Option<&Secret>,
    ) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        // Compressed streams are held back by whoever compresses them.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let agent = concat!("switchpoint/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        // By this we know a call that comes back to us.
        headers.insert(CDN_LOOP, HeaderValue::from_static(MARK));
        if let Some(secret) = secret {
            let (name, text) = match kind.auth {
                Auth::Header(name) | Auth::Entra(name) => {
                    (HeaderName::from_static(name), secret.expose().to_owned())
                }
                Auth::Google => {
                    (HeaderName::from_static("x-goog-api-key"), secret.expose().to_owned())
                }
                Auth::Bearer | Auth::Aws | Auth::None => {
                    (AUTHORIZATION, format!("Bearer {}", secret.expose()))
                }
            };
            headers.insert(name, sensitive(&text)?);
        }
        let mut telling = Vec::new();
        for (name, value) in &section.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.insert(name, sensitive(value.expose())?);
            // Whole, and without the word that says what it is.
            let last = value.expose().split(' ').next_back().unwrap_or_default();
            let secrets = [value.expose(), last].map(|text| Secret::new(text.to_owned()));
            telling.extend(secrets.into_iter().filter(|it| it.expose().len() >= SHORTEST_SECRET));
        }
        Ok(Self {
            secret: secret.cloned(),
            telling,
            template: Template::new(headers),
            signer: None,
        })
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| "a key or header holds characters that a header cannot".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
