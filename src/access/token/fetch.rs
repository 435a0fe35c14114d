//! Where an issuer's keys are fetched: at the configured address, or at the one that the issuer's
//! own document names. Nothing that a token says leads anywhere, and no redirect is followed.

use std::future::poll_fn;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri};
use serde_json::Value;

use crate::config::{Oidc, is_loopback};
use crate::dialect::splice::Payload;
use crate::net::client::{Client, Outgoing, Place, Reach, Template};

/// From opening a connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
const LONGEST_ANSWER: usize = 256 * 1024;
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// One issuer, as far as its keys are concerned.
#[derive(Debug, Clone)]
pub(super) struct Source {
    issuer: String,
    jwks_url: Option<String>,
    ca: Option<PathBuf>,
    client: Client,
}

// === impl Source ===

impl Source {
    /// Fails where the authorities cannot be read.
    pub(super) fn new(oidc: &Oidc, client: &Client) -> Result<Self, String> {
        let source = Self {
            issuer: oidc.issuer.clone(),
            jwks_url: oidc.jwks_url.clone(),
            ca: oidc.ca.clone(),
            client: client.clone(),
        };
        let url = source.jwks_url.as_ref().unwrap_or(&source.issuer);
        let (place, _) = source.place(url)?;
        client.origin(&place).map_err(|error| format!("ca: {error}"))?;
        Ok(source)
    }

    /// Whether both lead to the same keys.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.issuer, &self.jwks_url, &self.ca) == (&other.issuer, &other.jwks_url, &other.ca)
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The issuer's set of keys, as it is sent.
    pub(super) async fn fetch(&self) -> Result<Bytes, String> {
        let fetch = async {
            let (url, reach) = match &self.jwks_url {
                Some(url) => (url.clone(), Reach::Anywhere),
                None => self.discover().await?,
            };
            self.get(&url, reach).await
        };
        let fetched = tokio::time::timeout(PATIENCE, fetch).await;
        fetched.unwrap_or_else(|_| Err("it did not answer within 5 seconds".to_owned()))
    }

    /// Where the issuer's document says that its keys are, and which addresses that may have.
    async fn discover(&self) -> Result<(String, Reach), String> {
        let url = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let document = self.get(&url, Reach::Anywhere).await?;
        let document: Value = serde_json::from_slice(&document)
            .map_err(|_| "its discovery document is not JSON".to_owned())?;
        if document["issuer"].as_str() != Some(&self.issuer) {
            return Err("its discovery document is that of another issuer".to_owned());
        }
        let url = document["jwks_uri"].as_str().unwrap_or_default();
        match may_lead(&self.issuer, url) {
            Some(reach) => Ok((url.to_owned(), reach)),
            None => Err("its discovery document names no https address for its keys".to_owned()),
        }
    }

    async fn get(&self, url: &str, reach: Reach) -> Result<Bytes, String> {
        let (place, path) = self.place(url)?;
        let origin = self.client.origin_within(&place, reach);
        let origin = origin.map_err(|error| error.to_string())?;
        let accept = [(ACCEPT, HeaderValue::from_static("application/json"))];
        let headers = Template::new(HeaderMap::from_iter(accept));
        let body = Payload::default();
        let outgoing = Outgoing {
            method: "GET",
            path: path.as_str(),
            headers: &headers,
            extra: &[],
            content_type: None,
            body: &body,
            rest: None,
            left: None,
        };
        let mut reply = origin.send(outgoing, CONNECT).await.map_err(|fault| fault.to_string())?;
        if reply.status != 200 {
            return Err(format!("it answered HTTP {}", reply.status));
        }
        let mut body = BytesMut::new();
        while poll_fn(|context| reply.body.poll_data(context, &mut body))
            .await
            .map_err(|error| error.to_string())?
        {
            if body.len() > LONGEST_ANSWER {
                return Err("its answer is too long".to_owned());
            }
        }
        Ok(body.freeze())
    }

    fn place(&self, url: &str) -> Result<(Place, PathAndQuery), String> {
        let wrong = || "its address is not a URL".to_owned();
        let mut parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let root = PathAndQuery::from_static("/");
        let path = parts.path_and_query.replace(root.clone()).unwrap_or(root);
        let address = Uri::from_parts(parts).map_err(|_| wrong())?;
        Ok((Place { address, proxy: None, ca: self.ca.clone() }, path))
    }
}

/// Whether an issuer's document may send the gateway there, and which addresses that may have: to
/// the issuer's own machine, or by https to a host that has a name. What the document names must
/// never be an address inside of our network; keys that lie there are named by `jwks_url`.
fn may_lead(issuer: &str, url: &str) -> Option<Reach> {
    let (home, there) = (issuer.parse::<Uri>().ok()?, url.parse::<Uri>().ok()?);
    let authority = there.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if (home.scheme(), home.authority()) == (there.scheme(), Some(authority)) {
        return Some(Reach::Anywhere);
    }
    let host = authority.host();
    let is_number = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_named = there.scheme_str() == Some("https") && !is_number && !is_loopback(host);
    is_named.then_some(Reach::Public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_leads_to_its_own_host_or_by_https_to_one_with_a_name() {
        let home = "https://login.example/tenant";
        for (good, reach) in [
            ("https://login.example/keys", Reach::Anywhere),
            ("https://keys.example/v1?set=a", Reach::Public),
        ] {
            assert_eq!(may_lead(home, good), Some(reach), "{good}");
        }
        for bad in [
            "http://login.example/keys",
            "https://169.254.169.254/keys",
            "https://[::1]/keys",
            "https://localhost/keys",
            "https://login.example@10.0.0.1/keys",
            "http://127.0.0.1/keys",
            "file:///etc/passwd",
            "/keys",
            "",
        ] {
            assert_eq!(may_lead(home, bad), None, "{bad}");
        }
        let near = "http://127.0.0.1:1";
        assert_eq!(may_lead(near, "http://127.0.0.1:1/keys"), Some(Reach::Anywhere));
        assert_eq!(may_lead(near, "http://127.0.0.1:2/keys"), None);
    }
}
