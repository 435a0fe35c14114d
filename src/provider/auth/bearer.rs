//! Access tokens as they are shown: one header, made once for as long as the token lives.

use std::fmt;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::desk::{Answer, Desk};
use super::keeper::{Issued, Issuer, Keeper};
use super::{AuthFault, Setup, entra, google, sensitive};
use crate::config::Secret;

/// What a token without a stated end is trusted for.
const UNSTATED: Duration = Duration::from_mins(10);

/// Shows the tokens of one issuer.
pub(in crate::provider) struct Tokens {
    keeper: Keeper<Desks>,
    /// Sent beside each token: who pays for the quota.
    beside: Option<(HeaderName, HeaderValue)>,
}

/// Who issues tokens.
#[derive(Debug)]
enum Desks {
    Google(google::Source),
    Entra(entra::Source),
}

/// A token, as it is shown.
pub(super) struct Bearer {
    token: Secret,
    header: HeaderValue,
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn google(setup: Setup<'_>) -> Result<Self, String> {
        const QUOTA: HeaderName = HeaderName::from_static("x-goog-user-project");
        let (source, quota) = google::find(setup)?;
        let beside = match quota {
            Some(project) => Some((QUOTA, sensitive(&project).map_err(|fault| fault.0)?)),
            None => None,
        };
        Ok(Self { keeper: Keeper::new(Desks::Google(source)), beside })
    }

    pub(super) fn entra(setup: Setup<'_>) -> Result<Self, String> {
        let source = entra::find(setup)?;
        Ok(Self { keeper: Keeper::new(Desks::Entra(source)), beside: None })
    }

    pub(super) async fn authorize(&self) -> Result<Vec<(HeaderName, HeaderValue)>, AuthFault> {
        let bearer = self.keeper.credential().await?;
        let token = (AUTHORIZATION, bearer.header.clone());
        Ok(std::iter::once(token).chain(self.beside.clone()).collect())
    }

    pub(super) fn doubt(&self) {
        self.keeper.doubt();
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.keeper.held().map(|bearer| bearer.token.clone()).into_iter().collect()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({:?})", self.keeper)
    }
}

impl Issuer for Desks {
    type Credential = Bearer;

    async fn issue(&self) -> Result<Issued<Bearer>, AuthFault> {
        match self {
            Self::Google(source) => source.issue().await,
            Self::Entra(source) => source.issue().await,
        }
    }
}

// === impl Bearer ===

impl Bearer {
    pub(super) fn new(token: &str) -> Result<Self, AuthFault> {
        Ok(Self { token: Secret::new(token), header: sensitive(&format!("Bearer {token}"))? })
    }

    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token in an OAuth answer. Some desks write numbers as text.
    pub(super) fn granted(desk: &Desk, answer: &Answer) -> Result<Issued<Self>, AuthFault> {
        let json = answer.json().unwrap_or_default();
        let token = json["access_token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| desk.fault("its answer has no access_token"))?;
        let lifetime = seconds(&json["expires_in"])
            .or_else(|| seconds(&json["expires_on"])?.checked_sub(since_epoch()));
        Ok(Issued { credential: Self::new(token)?, lifetime: lifetime.or(Some(UNSTATED)) })
    }
}

fn seconds(value: &Value) -> Option<Duration> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    // A time that never comes is no reason to overflow.
    Some(Duration::from_secs(number.min(u64::from(u32::MAX))))
}

/// The time of day, as tokens count it.
pub(super) fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
