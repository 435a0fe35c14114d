//! What a tool's server is shown that it is us: headers whose secrets are those of the moment, and a
//! token, which may have to be fetched first.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::Instant;

use super::egress::{place, read, sensitive, telling};
use super::kept::Net;
use super::text::{censor_all, spellings};
use super::{Failure, FailureKind};
use crate::config::{ClientCredentials, Secret, ToolAuth, Web};
use crate::dialect::splice::Payload;
use crate::net::client::{Origin, Outgoing, Reach, Template};

/// How long a fetch of a token may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a token is trusted for whose end nobody has told.
const UNSTATED: Duration = Duration::from_mins(5);
/// One that is said to live longer is fetched anew after that.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// A token is not shown when it ends within so long.
const MARGIN: Duration = Duration::from_secs(20);
const LONGEST_ANSWER: usize = 64 * 1024;
/// A shorter secret is found everywhere.
const SHORTEST_SECRET: usize = 6;
/// Of secrets that were shown before the last change, so many must not be seen either: what was
/// asked with them may still be answered.
const MOST_FORMER: usize = 32;

/// All that one server is shown with every request.
pub(super) struct Papers {
    net: Net,
    /// What bears no secret.
    plain: HeaderMap,
    /// Some of its secrets may be others by and by.
    changes: bool,
    worn: Mutex<Arc<Worn>>,
    desk: Option<Box<Desk>>,
}

/// The same, as it was at one moment.
pub(super) struct Worn {
    web: Web,
    pub(super) headers: Template,
    /// What must not be seen in an answer.
    hidden: Vec<String>,
    /// The same of what was shown before.
    former: Vec<String>,
}

/// Where tokens are fetched: OAuth 2.0, client credentials.
struct Desk {
    origin: Arc<Origin>,
    path: String,
    client_id: String,
    form: Bytes,
    secret: Mutex<Secret>,
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

// === impl Papers ===

impl Papers {
    pub(super) fn new(
        web: &Web,
        plain: HeaderMap,
        net: &Net,
        reach: Reach,
    ) -> Result<Self, String> {
        let desk = match &web.auth {
            Some(ToolAuth::Client(credentials)) => {
                Some(Box::new(Desk::new(credentials, web, (net, reach))?))
            }
            _ => None,
        };
        let mut secrets = web.clone();
        let changes = secrets.secrets_mut().any(|secret| secret.place().is_some());
        let worn = Worn::new(&plain, web.clone(), Vec::new())?;
        Ok(Self { net: net.clone(), plain, changes, worn: Mutex::new(Arc::new(worn)), desk })
    }

    /// What a request that leaves now is shown.
    pub(super) async fn worn(&self) -> Arc<Worn> {
        self.worn_since(None).await
    }

    /// The token that it bears besides, where that is fetched.
    pub(super) async fn token(&self) -> Result<Option<(HeaderName, HeaderValue)>, Failure> {
        match &self.desk {
            Some(desk) => Ok(Some((AUTHORIZATION, desk.token(&self.net).await?))),
            None => Ok(None),
        }
    }

    /// What was shown has been refused: whether something else can be. What was fetched since
    /// `began` is not doubted, for another would fare no better.
    pub(super) async fn renew(&self, shown: &Arc<Worn>, began: Instant) -> bool {
        if self.desk.as_ref().is_some_and(|desk| desk.doubt(began)) {
            return true;
        }
        !Arc::ptr_eq(shown, &self.worn_since(Some(began)).await)
    }

    async fn worn_since(&self, since: Option<Instant>) -> Arc<Worn> {
        let worn = Arc::clone(&self.lock());
        if !self.changes {
            return worn;
        }
        let mut web = worn.web.clone();
        for secret in web.secrets_mut() {
            if let Some(now) = self.net.renewed(secret, since).await {
                *secret = now;
            }
        }
        if web == worn.web {
            return worn;
        }
        let mut former = [&worn.hidden[..], &worn.former].concat();
        former.truncate(MOST_FORMER);
        match Worn::new(&self.plain, web, former) {
            Ok(now) => {
                let now = Arc::new(now);
                *self.lock() = Arc::clone(&now);
                now
            }
            // It is no value of a header.
            Err(why) => {
                tracing::warn!(why, "a secret of a tool stays as it was known");
                worn
            }
        }
    }

    /// Servers that show what they were sent must not show it to models.
    pub(super) fn without_secrets(&self, said: impl Into<Bytes>) -> Bytes {
        let worn = Arc::clone(&self.lock());
        let fetched = self.desk.as_ref().map(|desk| desk.secrets()).unwrap_or_default();
        let hidden = worn.hidden.iter().chain(&worn.former).chain(&fetched);
        censor_all(said.into(), hidden.map(String::as_str))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Worn>> {
        self.worn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Papers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Papers(***)")
    }
}

// === impl Worn ===

impl Worn {
    fn new(plain: &HeaderMap, web: Web, former: Vec<String>) -> Result<Self, String> {
        let mut headers = plain.clone();
        for (name, value) in &web.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            headers.insert(name, sensitive(value.expose())?);
        }
        let mut hidden = telling(web.headers.values());
        let mut shown = |name, value: &str, secrets: &[&str]| {
            headers.insert(name, sensitive(value)?);
            let long = secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
            hidden.extend(long.flat_map(|secret| spellings(secret)));
            Ok::<_, String>(())
        };
        match &web.auth {
            Some(ToolAuth::Bearer(token)) => {
                let token = token.expose();
                shown(AUTHORIZATION, &format!("Bearer {token}"), &[token])?;
            }
            Some(ToolAuth::Header { name, value }) => {
                let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
                shown(name, value.expose(), &[value.expose()])?;
            }
            Some(ToolAuth::Basic { user, password }) => {
                let password = password.expose();
                let both = BASE64_STANDARD.encode(format!("{user}:{password}"));
                shown(AUTHORIZATION, &format!("Basic {both}"), &[password, &both])?;
            }
            Some(ToolAuth::Client(_)) | None => {}
        }
        Ok(Self { web, headers: Template::new(headers), hidden, former })
    }
}

// === impl Desk ===

impl Desk {
    fn new(
        credentials: &ClientCredentials,
        web: &Web,
        (net, reach): (&Net, Reach),
    ) -> Result<Self, String> {
        let (place, path) = place(&credentials.token_url, web)?;
        let mut form = "grant_type=client_credentials".to_owned();
        for (name, value) in [("scope", &credentials.scope), ("audience", &credentials.audience)] {
            if let Some(value) = value {
                form = format!("{form}&{name}={}", encoded(value));
            }
        }
        Ok(Self {
            origin: net.client.origin_within(&place, reach).map_err(|error| error.to_string())?,
            path: if path.is_empty() { "/".to_owned() } else { path },
            client_id: credentials.client_id.clone(),
            form: Bytes::from(form),
            secret: Mutex::new(credentials.client_secret.clone()),
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

    fn secret(&self) -> MutexGuard<'_, Secret> {
        self.secret.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What must not be seen in an answer.
    fn secrets(&self) -> Vec<String> {
        let token = self.lock().as_ref().map(|held| held.token.clone());
        let secret = self.secret().expose().to_owned();
        let long = token.into_iter().chain([secret]).filter(|it| it.len() >= SHORTEST_SECRET);
        long.flat_map(|secret| spellings(&secret)).collect()
    }

    /// Whether a token can be had that is not the one that was refused.
    fn doubt(&self, began: Instant) -> bool {
        let mut held = self.lock();
        held.take_if(|held| held.since < began).is_some() || held.is_none()
    }

    /// The token; all who need one at the same time wait for one fetch.
    async fn token(&self, net: &Net) -> Result<HeaderValue, Failure> {
        if let Some(header) = self.held() {
            return Ok(header);
        }
        let _gate = self.gate.lock().await;
        if let Some(header) = self.held() {
            return Ok(header);
        }
        let held = within(PATIENCE, self.fetch(net)).await?;
        let header = held.header.clone();
        *self.lock() = Some(held);
        Ok(header)
    }

    /// Who asks (RFC 6749, section 2.3.1).
    fn headers(&self) -> Result<Template, String> {
        let both = format!("{}:{}", encoded(&self.client_id), encoded(self.secret().expose()));
        let basic = sensitive(&format!("Basic {}", BASE64_STANDARD.encode(both)))?;
        Ok(Template::new(HeaderMap::from_iter([(AUTHORIZATION, basic)])))
    }

    async fn fetch(&self, net: &Net) -> Result<Held, Failure> {
        let known = self.secret().clone();
        if let Some(now) = net.renewed(&known, Some(Instant::now())).await {
            *self.secret() = now;
        }
        let headers = self.headers().map_err(|why| Failure::new(FailureKind::Auth, why))?;
        let body = Payload::from(self.form.clone());
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let outgoing = Outgoing {
            method: "POST",
            path: &self.path,
            headers: &headers,
            extra: &[],
            content_type: Some(&form),
            body: &body,
            rest: None,
            left: None,
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
        let lifetime = lifetime.min(LONGEST_LIFE);
        // One that lives shorter than the margin is still good for a while.
        let usable = lifetime.saturating_sub(MARGIN).max(lifetime / 2);
        Ok(Held { header, token: token.to_owned(), since, until: since + usable })
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
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
