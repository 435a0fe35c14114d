//! Brings what is to be told of runs to those who want to know it: signed as Standard Webhooks are,
//! by the client of everything else, to addresses that were looked at, until it is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ring::hmac;
use serde_json::json;

use super::journal::now;
use super::staff::Staff;
use crate::canon::RunId;
use crate::config::{Config, Hook, Secret};
use crate::dialect::splice::Payload;
use crate::net::client::{Outgoing, Place, Reach, Template};
use crate::store::runs::{DeliveryRow, NewLetter, Sending};

/// What an attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause after an attempt in vain, which doubles up to the longest; some three hours in
/// all.
const PAUSE: u64 = 1000;
const LONGEST_PAUSE: u64 = 3_600_000;
const MOST_ATTEMPTS: u32 = 14;
/// So many are taken at once, and so many are sent at the same time.
const BATCH: u32 = 64;
const AT_ONCE: u32 = 8;
/// How long nobody else sends them, in milliseconds: as long as the last of them may take, and the
/// time to keep what became of it.
const HELD: u64 = (BATCH.div_ceil(AT_ONCE) as u64 + 1) * PATIENCE.as_secs() * 1000;

static ID: HeaderName = HeaderName::from_static("webhook-id");
static TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why something was not heard.
#[derive(Debug)]
struct Deaf {
    why: String,
    /// It will not be heard later either.
    for_good: bool,
}

/// Says that it is being done, until dropped: also where that panics.
struct Posting<'a>(&'a AtomicBool);

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Staff {
    /// Sends what is due, unless that is being done.
    pub(super) async fn deliver(self: Arc<Self>) {
        if self.posting.swap(true, Ordering::AcqRel) {
            return;
        }
        let _posting = Posting(&self.posting);
        loop {
            let due = self.gateway.store().take_deliveries(BATCH, HELD).await;
            let due = due.inspect_err(|error| tracing::debug!(%error, "no hooks can be told"));
            let due = due.unwrap_or_default();
            if due.is_empty() {
                break;
            }
            stream::iter(due)
                .for_each_concurrent(AT_ONCE as usize, |row| self.tell_hook(row))
                .await;
        }
    }

    async fn tell_hook(&self, row: DeliveryRow) {
        let house = self.gateway.snapshot();
        let is_named = house.config.hooks.contains_key(&row.hook);
        // Only names of the config: what a client writes is no label.
        let label = if is_named { row.hook.as_str() } else { "run" };
        let sent = tokio::time::timeout(PATIENCE, self.send(&house.config, &row)).await;
        let sent = sent.unwrap_or_else(|_| Err(Deaf::now("it did not answer in time")));
        let (outcome, sending) = match sent {
            Ok(()) => ("delivered", Sending::Delivered),
            Err(deaf) if deaf.for_good || row.attempts >= MOST_ATTEMPTS => {
                tracing::warn!(hook = label, id = row.id, why = deaf.why, "a hook was not told");
                ("failed", Sending::GivenUp { letter: letter(&row, &deaf.why) })
            }
            Err(deaf) => {
                tracing::debug!(hook = label, id = row.id, why = deaf.why, "a hook does not hear");
                let doubled = PAUSE << row.attempts.saturating_sub(1).min(16);
                ("retried", Sending::Later(doubled.min(LONGEST_PAUSE)))
            }
        };
        let metrics = &self.gateway.telemetry.metrics;
        metrics.agent_webhook_deliveries.with_label_values(&[label, outcome]).inc();
        if let Err(error) = self.gateway.store().settle_delivery(&row.id, sending).await {
            // It is sent again, by the same id.
            tracing::warn!(%error, "what became of a webhook could not be kept");
        }
    }

    async fn send(&self, config: &Config, row: &DeliveryRow) -> Result<(), Deaf> {
        let hook = hook(config, &row.hook)?;
        let (place, path) = place(&hook)?;
        let reach = if hook.allow_private { Reach::Inner } else { Reach::Public };
        let origin = self.gateway.client.origin_within(&place, reach);
        let origin = origin.map_err(|error| Deaf::for_good(format!("ca: {error}")))?;
        let extra = signed(&hook, row, now() / 1000)?;
        let body = Payload::from(Bytes::from(row.body.clone()));
        let outgoing = Outgoing {
            method: "POST",
            path: &path,
            headers: &Template::new(HeaderMap::new()),
            extra: &extra,
            content_type: Some(&JSON),
            body: &body,
            rest: None,
            left: None,
        };
        match origin.send(outgoing, PATIENCE).await {
            Ok(reply) if (200..300).contains(&reply.status) => Ok(()),
            // It is gone, and says so.
            Ok(reply) if reply.status == 410 => Err(Deaf::for_good("HTTP 410")),
            Ok(reply) => Err(Deaf::now(format!("HTTP {}", reply.status))),
            Err(fault) if fault.forbidden().is_some() => {
                Err(Deaf::for_good("its address must not be reached from here"))
            }
            Err(fault) => Err(Deaf::now(fault.to_string())),
        }
    }
}

/// Who is meant: a hook of the config, or whoever the client that began the run has named.
fn hook(config: &Config, name: &str) -> Result<Hook, Deaf> {
    if let Some(hook) = config.hooks.get(name) {
        return Ok(hook.clone());
    }
    if !name.contains("://") {
        return Err(Deaf::for_good("there is no such hook any more"));
    }
    let secret = config.agent_engine.webhook_secret.clone();
    Ok(Hook { url: name.to_owned(), secret, ..Hook::default() })
}

fn place(hook: &Hook) -> Result<(Place, String), Deaf> {
    let wrong = || Deaf::for_good("its address is not a URL");
    let mut parts = hook.url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
    let root = PathAndQuery::from_static("/");
    let path = parts.path_and_query.replace(root.clone()).unwrap_or(root);
    let address = Uri::from_parts(parts).map_err(|_| wrong())?;
    let place = Place { address, proxy: hook.proxy.clone(), ca: hook.ca.clone() };
    Ok((place, path.as_str().to_owned()))
}

/// The headers of Standard Webhooks: id, time, and a signature of both and the body.
fn signed(
    hook: &Hook,
    row: &DeliveryRow,
    now: u64,
) -> Result<Vec<(HeaderName, HeaderValue)>, Deaf> {
    let Some(secret) = &hook.secret else {
        return Err(Deaf::for_good("there is no secret to sign with"));
    };
    let signature = format!("v1,{}", signature(secret, &row.id, now, &row.body));
    let header = |name: &HeaderName, value: &str| {
        let value = HeaderValue::from_str(value);
        value.map(|value| (name.clone(), value)).map_err(|error| Deaf::for_good(error.to_string()))
    };
    Ok(vec![
        header(&ID, &row.id)?,
        header(&TIMESTAMP, &now.to_string())?,
        header(&SIGNATURE, &signature)?,
    ])
}

/// HMAC-SHA256 of id, time and body. A secret that is written `whsec_` and base64 is those bytes.
fn signature(secret: &Secret, id: &str, now: u64, body: &str) -> String {
    let text = secret.expose();
    let bytes = text.strip_prefix("whsec_").and_then(|it| BASE64_STANDARD.decode(it).ok());
    let bytes = bytes.unwrap_or_else(|| text.as_bytes().to_vec());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    BASE64_STANDARD.encode(hmac::sign(&key, format!("{id}.{now}.{body}").as_bytes()))
}

fn letter(row: &DeliveryRow, why: &str) -> NewLetter {
    NewLetter {
        id: format!("dlq_{}", RunId::new().simple()),
        kind: "webhook".to_owned(),
        payload: json!({"delivery": row.id, "hook": row.hook}).to_string(),
        error: why.to_owned(),
        attempts: row.attempts,
    }
}

// === impl Deaf ===

impl Deaf {
    fn now(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_good: false }
    }

    fn for_good(why: impl Into<String>) -> Self {
        Self { why: why.into(), for_good: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_standard_webhooks_show() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let body = r#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
