//! What is kept of a caller whose work goes on when the process does not know it any more.

use serde::{Deserialize, Serialize};

use super::Caller;
use crate::config::Role;

/// A caller by name. There is no secret in it, and it proves nothing: it is only ever read back
/// from where it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerRef {
    /// The name of the key, or of the issuer of a token.
    pub key: String,
    /// Whose is what its calls leave behind.
    pub owner: String,
    pub user: Option<String>,
    pub team: Option<String>,
    pub role: Option<String>,
}

// === impl CallerRef ===

impl CallerRef {
    pub fn of(caller: &Caller) -> Self {
        Self {
            key: caller.key().to_string(),
            owner: caller.owner().to_string(),
            user: caller.user().map(ToString::to_string),
            team: caller.team().map(ToString::to_string),
            role: caller.role().map(|role| role.name().to_owned()),
        }
    }

    /// The issuer of the token that its caller has shown, if it was none of our keys, and the name
    /// that its user has there.
    pub(super) fn visitor(&self) -> Option<(&str, &str)> {
        let issuer = self.key.strip_prefix("oidc:")?;
        let user = self.user.as_deref()?.strip_prefix(issuer)?.strip_prefix(':')?;
        Some((issuer, user))
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.role.as_deref().and_then(|role| role.parse().ok())
    }
}
