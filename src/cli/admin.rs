//! The admin API of a gateway that runs, as commands ask it.

use std::fmt::Display;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::Value;

use super::{config_path, load};
use crate::config::variable;
use crate::net::client::{Client, Origin, Outgoing, Place, Template};

/// How long a gateway has to say that it is there, and to answer.
pub(super) const GREETING: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const LONGEST: usize = 64 << 20;

/// One gateway's operators' door, and the key to it.
pub(super) struct Door {
    origin: Arc<Origin>,
    headers: Template,
}

/// Which gateway is meant.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// The admin address of the gateway; else `$SWITCHPOINT_ADMIN_URL`, else that of the config.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// A file that holds the admin key; else `$SWITCHPOINT_ADMIN_KEY`, else that of the config.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The config that names address and key, where nothing else does; without it the one that
    /// `serve` would take.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

// === impl Address ===

impl Address {
    /// Where it is told to be, whatever the config says.
    pub(super) fn url(&self) -> Option<String> {
        self.admin.clone().or_else(|| variable("SWITCHPOINT_ADMIN_URL"))
    }

    pub(super) fn key(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.key_file else { return Ok(variable("SWITCHPOINT_ADMIN_KEY")) };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Some(text.trim().to_owned()))
    }

    pub(super) fn open(&self) -> Result<Door, String> {
        let (url, key) = (self.url(), self.key()?);
        if let (Some(url), Some(key)) = (&url, &key) {
            return Door::open(url, key);
        }
        let config = load(config_path(self.config.clone()).as_deref()).map_err(|problems| {
            let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
            told.join("\n")
        })?;
        let own = || config.admin.key.as_ref().map(|key| key.expose().to_owned());
        let key = key.or_else(own).ok_or(
            "the admin key is not known: set SWITCHPOINT_ADMIN_KEY, or name a file by --key-file",
        )?;
        Door::open(&url.unwrap_or_else(|| format!("http://{}", config.admin.listen)), &key)
    }
}

// === impl Door ===

impl Door {
    pub(super) fn open(url: &str, key: &str) -> Result<Self, String> {
        let wrong = || "the admin address is not an http or https URL".to_owned();
        let address: Uri = url.trim_end_matches('/').parse().map_err(|_| wrong())?;
        if !matches!(address.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        let place = Place { address, proxy: None, ca: None };
        let origin = Client::new(1).origin(&place).map_err(told)?;
        let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
        let bearer = bearer.map_err(|_| "the admin key is not a key".to_owned())?;
        let headers =
            [(AUTHORIZATION, bearer), (CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok(Self { origin, headers: Template::new(HeaderMap::from_iter(headers)) })
    }

    /// Asks, and takes only yes for an answer.
    pub(super) async fn done(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = tokio::time::timeout(PATIENCE, self.ask(method, path, body)).await;
        let (status, body) = answer.map_err(|_| "the gateway does not answer".to_owned())??;
        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(told);
        }
        let message = told["error"]["message"].as_str().map(ToOwned::to_owned);
        Err(message.unwrap_or_else(|| format!("the gateway answers {status}")))
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), String> {
        let body = Bytes::from(body).into();
        let outgoing = Outgoing {
            method,
            path,
            headers: &self.headers,
            extra: &[],
            content_type: None,
            body: &body,
            rest: None,
            left: None,
        };
        let mut reply = self.origin.send(outgoing, GREETING).await.map_err(told)?;
        let (mut body, mut more) = (BytesMut::new(), true);
        while more && body.len() <= LONGEST {
            let read = poll_fn(|context| reply.body.poll_data(context, &mut body)).await;
            more = read.map_err(told)?;
        }
        Ok((reply.status, body.freeze()))
    }
}

fn told(error: impl Display) -> String {
    error.to_string()
}
