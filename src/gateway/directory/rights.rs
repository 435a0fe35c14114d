//! Who may see and change what. Whom something does not concern is told that it is not there.

use super::{Actor, Kind};
use crate::access::roster::Roster;
use crate::config::Role;
use crate::config::entry::{People as _, Terms};
use crate::error::{Error, Kind as Fault};

/// Nothing of this name, or nothing that the asker may know of.
pub(super) fn unknown(kind: Kind, id: &str) -> Error {
    Error::new(Fault::NotFound, format!("No {} has the id \"{id}\".", kind.name()))
}

fn forbidden(message: &'static str) -> Error {
    Error::new(Fault::NotAllowed, message)
}

impl Actor {
    fn is_of_team(&self, team: Option<&str>) -> bool {
        self.team.is_some() && self.team.as_deref() == team
    }

    /// Whether an entry of this team may be shown.
    pub(super) fn may_see(&self, team: Option<&str>) -> bool {
        self.role != Role::TeamAdmin || self.is_of_team(team)
    }

    /// Whether one that is like this may become like that.
    pub(super) fn may_change(
        &self,
        kind: Kind,
        id: &str,
        before: Option<&Terms>,
        after: Option<&Terms>,
        roster: &Roster,
    ) -> Result<(), Error> {
        let has_role = |terms: Option<&Terms>| match terms {
            Some(Terms::Key(key)) => key.role.is_some(),
            _ => false,
        };
        if let Some(before) = before.filter(|_| self.role == Role::TeamAdmin)
            && !self.may_see(roster.team_of(id, before).as_deref())
        {
            return Err(unknown(kind, id));
        }
        match self.role {
            Role::Viewer => Err(forbidden("A viewer changes nothing.")),
            Role::Owner => Ok(()),
            _ if has_role(before) || has_role(after) => {
                Err(forbidden("Only an owner deals with keys that have a role."))
            }
            Role::Operator => Ok(()),
            Role::TeamAdmin => match after {
                None | Some(Terms::Key(_) | Terms::User(_))
                    if matches!(kind, Kind::Key | Kind::User) =>
                {
                    self.keeps_to_its_team(id, after, roster)
                }
                _ => Err(forbidden("A team admin changes keys and users of its team only.")),
            },
        }
    }

    /// Whether it stays in the team and uses up nobody else's budgets.
    fn keeps_to_its_team(
        &self,
        id: &str,
        after: Option<&Terms>,
        roster: &Roster,
    ) -> Result<(), Error> {
        let Some(after) = after else { return Ok(()) };
        if !self.is_of_team(roster.team_of(id, after).as_deref()) {
            return Err(forbidden("A team admin makes keys and users of its own team only."));
        }
        let Terms::Key(key) = after else { return Ok(()) };
        let Some(user) = key.user.as_deref() else { return Ok(()) };
        let theirs =
            roster.has(Kind::User, user) && self.is_of_team(roster.team_of_user(user).as_deref());
        if theirs { Ok(()) } else { Err(unknown(Kind::User, user)) }
    }
}
