//! What is kept of a caller whose work goes on when the process does not know it any more.

use std::sync::Arc;

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

    /// Whose limits of tools count and whose results are remembered: a user of the config is one
    /// person by whatever key, a key without one is somebody else, whatever it is called, and one
    /// whom a client has `named` is one of its own.
    pub fn person(&self, named: Option<&str>) -> Arc<str> {
        let own = self.user.as_deref();
        match named.filter(|named| own != Some(named)).or(own) {
            Some(user) if own == Some(user) => format!("user:{user}").into(),
            Some(user) => format!("key:{:?} {user:?}", self.owner).into(),
            None => format!("key:{}", self.owner).into(),
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
