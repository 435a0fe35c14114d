//! Who asks at the operators' door, and what they may.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use super::AdminApi;
use crate::access;
use crate::config::Role;
use crate::error::{Error, Kind};
use crate::gateway::directory::Actor;
use crate::store::Reach;

/// The name of whoever shows the admin key.
const ADMIN: &str = "admin";

/// The least that one has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// A viewer.
    See,
    /// A viewer, or a team's admin, who sees what is the team's.
    SeeOwn,
    /// An operator.
    Change,
    /// An operator, or a team's admin, who changes what is the team's.
    ChangeOwn,
    /// The owner, for what decides about all else.
    Own,
}

// === impl Right ===

impl Right {
    pub(super) fn is_of(self, role: Role) -> bool {
        match role {
            Role::Owner => true,
            Role::Operator => self != Self::Own,
            Role::Viewer => matches!(self, Self::See | Self::SeeOwn),
            Role::TeamAdmin => matches!(self, Self::SeeOwn | Self::ChangeOwn),
        }
    }

    /// As the `OpenAPI` document tells it.
    pub(super) fn roles(self) -> Vec<&'static str> {
        let all = [Role::Owner, Role::Operator, Role::Viewer, Role::TeamAdmin];
        all.into_iter().filter(|role| self.is_of(*role)).map(Role::name).collect()
    }

    pub(super) fn demand(self, by: &Actor) -> Result<(), Error> {
        if self.is_of(by.role) {
            return Ok(());
        }
        let message = format!("This is not for the role `{}`.", by.role.name());
        Err(Error::new(Kind::NotAllowed, message))
    }
}

impl AdminApi {
    /// The admin key is the owner; every other credential is as good as its role. Whole digests
    /// are compared, so the time it takes tells nothing of the key.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Actor, Error> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            let message = "Send `Authorization: Bearer` and the admin key, or one with a role.";
            return Err(Error::new(Kind::MissingKey, message));
        };
        let token = access::bearer(value.to_str().unwrap_or_default());
        if !token.is_empty() && Sha256::digest(token) == Sha256::digest(self.key.expose()) {
            return Ok(Actor { name: ADMIN.to_owned(), role: Role::Owner, team: None });
        }
        let caller = self.gateway.admit(&self.gateway.snapshot(), headers, from).await?;
        let Some(role) = caller.role() else {
            return Err(Error::new(Kind::NotAllowed, "This key has no role among operators."));
        };
        let team = caller.team().map(ToString::to_string);
        if role == Role::TeamAdmin && team.is_none() {
            return Err(Error::new(Kind::NotAllowed, "This key is the admin of no team."));
        }
        Ok(Actor { name: caller.owner().to_string(), role, team })
    }
}

/// Which calls they may know of.
pub(super) fn reach(by: &Actor) -> Reach {
    match (by.role, &by.team) {
        (Role::TeamAdmin, Some(team)) => Reach::Team(team.as_str().into()),
        // No team is called so, and nobody gets here without one.
        (Role::TeamAdmin, None) => Reach::Team("".into()),
        (Role::Owner | Role::Operator | Role::Viewer, _) => Reach::All,
    }
}
