//! How a request proves who sends it where a key is not enough: AWS signatures, and tokens of
//! Google and Microsoft Entra that run out and are renewed.

mod keeper;
mod desk;
mod bearer;
mod aws;
mod google;
mod entra;
pub mod secrets;

use std::path::Path;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue};

use self::bearer::Tokens;
use super::{azure, bedrock, vertex};
use crate::config::{self, Cloud, CloudEnvironment, Secret};
use crate::dialect::splice::Payload;
use crate::net::client::Client;

/// Proves, request by request, who sends it. What it holds is renewed ahead of its end.
#[derive(Debug)]
pub(super) enum Signer {
    Aws(aws::Signatures),
    Token(Tokens),
}

/// A request about to be sent, as far as a signature covers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    /// The authority as it is sent in `Host`.
    pub(super) host: &'a str,
    /// With its query, as sent on the wire.
    pub(super) path: &'a str,
    /// Those to be signed besides `Host`.
    pub(super) headers: &'a [(HeaderName, HeaderValue)],
    pub(super) body: &'a Payload,
}

/// Why nothing proves who we are, and what to do about it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct AuthFault(pub(super) String);

/// What a signer is made from: the provider's section, the environment, and the way out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup<'a> {
    pub(super) section: &'a config::Provider,
    pub(super) environment: &'a CloudEnvironment,
    pub(super) client: &'a Client,
}

// === impl Signer ===

impl Signer {
    /// Signs for Bedrock, with the section's keys or profile, else what the standard chain finds.
    pub(super) fn aws(setup: Setup<'_>) -> Result<Self, String> {
        aws::Signatures::new(setup).map(Self::Aws)
    }

    /// Shows Google's access tokens, by the section's credentials or the application default.
    pub(super) fn google(setup: Setup<'_>) -> Result<Self, String> {
        Tokens::google(setup).map(Self::Token)
    }

    /// Shows Entra's access tokens for Azure's cognitive services.
    pub(super) fn entra(setup: Setup<'_>) -> Result<Self, String> {
        Tokens::entra(setup).map(Self::Token)
    }

    /// The headers that `unsigned` must be sent with. Does not wait while what is held is fresh.
    pub(super) async fn authorize(
        &self,
        unsigned: &Unsigned<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, AuthFault> {
        match self {
            Self::Aws(signatures) => signatures.authorize(unsigned).await,
            Self::Token(tokens) => tokens.authorize().await,
        }
    }

    /// An upstream refused what was shown, though it should be valid: revoked, or the clock stood
    /// still while the machine slept. The next call fetches anew.
    pub(super) fn doubt(&self) {
        match self {
            Self::Aws(signatures) => signatures.doubt(),
            Self::Token(tokens) => tokens.doubt(),
        }
    }

    /// What must not be shown, should an upstream echo it.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::Aws(signatures) => signatures.secrets(),
            Self::Token(tokens) => tokens.secrets(),
        }
    }
}

/// The region that a Bedrock section speaks to.
pub(super) fn aws_region(
    section: &config::Provider,
    environment: &CloudEnvironment,
) -> Result<String, String> {
    aws::region(&section.cloud, &environment.aws)
}

/// The project that a Vertex section speaks for.
pub(super) fn google_project(
    section: &config::Provider,
    environment: &CloudEnvironment,
) -> Result<String, String> {
    google::project(&section.cloud, &environment.google)
}

/// Refuses keys that mean nothing to providers of the kind `kind`.
pub(super) fn refuse_foreign_keys(kind: &str, section: &config::Provider) -> Result<(), String> {
    for (key, cloud) in section.cloud.written() {
        let home = match cloud {
            Cloud::Aws => bedrock::ID,
            Cloud::Google => vertex::ID,
            Cloud::Azure => azure::ID,
        };
        if home != kind {
            return Err(format!("`{key}` is a key of the kind `{home}`, and this is `{kind}`"));
        }
    }
    Ok(())
}

/// A token that the platform keeps in a file and renews in place, as it is now.
async fn kept_token(file: &Path) -> Result<String, AuthFault> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| AuthFault(format!("{}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

/// How long it is until the time `end`, as RFC 3339 writes it.
fn until(end: &str) -> Option<Duration> {
    let end = humantime::parse_rfc3339(end).ok()?;
    Some(end.duration_since(SystemTime::now()).unwrap_or_default())
}

/// A header that is never printed.
fn sensitive(text: &str) -> Result<HeaderValue, AuthFault> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| AuthFault("a credential holds characters that a header cannot".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
pub(super) mod tests;
