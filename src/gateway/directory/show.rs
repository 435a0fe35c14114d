//! What there is, in the file and outside of it, as it is shown.

use std::sync::Arc;
use std::time::SystemTime;

use super::rights::unknown;
use super::{Actor, Entry, Kind, PAGE, Page, Source};
use crate::access::roster::{Key, Member};
use crate::config::Config;
use crate::config::entry::Terms;
use crate::error::Error;
use crate::gateway::{Gateway, Snapshot};

impl Gateway {
    /// One that exists, or a key that was revoked.
    pub fn entry(&self, by: &Actor, kind: Kind, id: &str) -> Result<Entry, Error> {
        let entry = self.snapshot().find(kind, id);
        let entry = entry.filter(|entry| by.may_see(entry.team.as_deref()));
        entry.ok_or_else(|| unknown(kind, id))
    }

    /// The same, also if another process has just made it.
    pub async fn entry_of_all(&self, by: &Actor, kind: Kind, id: &str) -> Result<Entry, Error> {
        if self.snapshot().find(kind, id).is_none() {
            let mut known = self.directory.known.lock().await;
            self.look_for(&mut known, kind, id).await?;
        }
        self.entry(by, kind, id)
    }

    /// Entries by id, those of the file among them, and behind which the next page begins.
    pub fn entries(
        &self,
        by: &Actor,
        kind: Kind,
        page: Page<'_>,
    ) -> Result<(Vec<Entry>, Option<String>), Error> {
        let house = self.snapshot();
        let limit = page.limit.clamp(1, PAGE);
        let after = page.after.unwrap_or_default();
        let is_wanted = |entry: &Entry| {
            let is_of_team = page.team.is_none() || page.team == entry.team.as_deref();
            is_of_team && by.may_see(entry.team.as_deref())
        };
        let mut found: Vec<Entry> = named(&house.config, kind)
            .into_iter()
            .filter(|id| id.as_str() > after)
            .filter_map(|id| house.of_file(kind, id))
            .filter(&is_wanted)
            .take(limit + 1)
            .collect();
        let mut made = 0;
        let mut take = |entry: Entry| {
            if house.of_file(kind, &entry.id).is_none() && is_wanted(&entry) {
                made += 1;
                found.push(entry);
            }
            made <= limit
        };
        let roster = &house.roster;
        if kind == Kind::Key {
            roster
                .keys_after(after, |key| take(Entry::of_key(key, roster.team_of_key(&key.terms))));
        } else {
            roster.members_after(kind, after, |id, member| take(Entry::of_member(id, member)));
        }
        found.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|last| last.id.clone());
        Ok((found, next))
    }
}

fn named(config: &Config, kind: Kind) -> Vec<&String> {
    match kind {
        Kind::Key => config.keys.keys().collect(),
        Kind::User => config.users.keys().collect(),
        Kind::Team => config.teams.keys().collect(),
        Kind::Org => config.orgs.keys().collect(),
    }
}

// === impl Snapshot ===

impl Snapshot {
    pub(super) fn find(&self, kind: Kind, id: &str) -> Option<Entry> {
        let made = || match kind {
            Kind::Key => {
                let key = self.roster.key(id)?;
                let team = self.roster.team_of_key(&key.terms);
                Some(Entry::of_key(&key, team))
            }
            _ => Some(Entry::of_member(id, &self.roster.member(kind, id)?)),
        };
        self.of_file(kind, id).or_else(made)
    }

    /// What the file says of it.
    pub(super) fn terms_of_file(&self, kind: Kind, id: &str) -> Option<Terms> {
        let config = &self.config;
        Some(match kind {
            Kind::Key => Terms::Key(Arc::new(config.keys.get(id)?.clone())),
            Kind::User => Terms::User(Arc::new(config.users.get(id)?.clone())),
            Kind::Team => Terms::Team(Arc::new(config.teams.get(id)?.clone())),
            Kind::Org => Terms::Org(Arc::new(config.orgs.get(id)?.clone())),
        })
    }

    fn of_file(&self, kind: Kind, id: &str) -> Option<Entry> {
        let terms = self.terms_of_file(kind, id)?;
        let team = self.roster.team_of(id, &terms);
        Some(Entry { source: Source::File, team, ..Entry::bare(kind, id, &terms) })
    }
}

// === impl Entry ===

impl Entry {
    fn bare(kind: Kind, id: &str, terms: &Terms) -> Self {
        let written = terms.written();
        // Made at the start for a config without keys, it stands nowhere.
        let settings = if written.is_null() { serde_json::json!({}) } else { written.clone() };
        Self {
            id: id.to_owned(),
            kind,
            source: Source::Api,
            team: None,
            settings,
            created_at: None,
            changed_at: None,
            revoked_at: None,
            rotating_until: Vec::new(),
        }
    }

    pub(super) fn of_key(key: &Key, team: Option<Arc<str>>) -> Self {
        let now = SystemTime::now();
        let ends = key.secrets.iter().filter_map(|mark| mark.valid_until);
        let terms = Terms::Key(Arc::clone(&key.terms));
        Self {
            team: team.map(|team| team.to_string()),
            created_at: Some(key.created_at),
            changed_at: Some(key.changed_at),
            revoked_at: key.revoked_at,
            rotating_until: ends.map(SystemTime::from).filter(|until| *until > now).collect(),
            ..Self::bare(Kind::Key, &key.id, &terms)
        }
    }

    fn of_member(id: &str, member: &Member) -> Self {
        let team = match &member.terms {
            Terms::User(user) => user.team.clone(),
            Terms::Team(_) => Some(id.to_owned()),
            Terms::Key(_) | Terms::Org(_) => None,
        };
        Self {
            team,
            created_at: Some(member.created_at),
            changed_at: Some(member.changed_at),
            ..Self::bare(member.terms.kind(), id, &member.terms)
        }
    }
}
