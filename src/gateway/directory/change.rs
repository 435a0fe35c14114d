//! What changes an entry. Checked against what is in force here, stored together with who did it,
//! and in force here when the answer is given.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::follow::told;
use super::rights::unknown;
use super::{Actor, Created, Draft, Entry, Kind, Known, TopUp};
use crate::access::account::{Amount, BudgetStatus, Moment};
use crate::access::roster::{Key, Member};
use crate::access::{digest, new_secret};
use crate::config::entry::{self, Terms};
use crate::error::{Error, Kind as Fault};
use crate::gateway::Gateway;
use crate::store::{
    Act, Audit, Change, EntryRow, Failure, Once, Outcome, SecretRow, TopUpRow, hex,
};

/// How often a change is tried again when another process was faster.
const TRIES: usize = 4;
/// How long a secret that is not valid any more is told that it was replaced.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);
/// Secrets of one key at the same time.
const MOST_SECRETS: usize = 16;
/// The longest overlap of two secrets.
const LONGEST_OVERLAP: Duration = Duration::from_hours(366 * 24);

/// An entry as it is stored, with its terms.
struct Standing {
    terms: Terms,
    row: EntryRow,
}

/// What a change is called, and what came before and after it.
struct Told<'a> {
    what: &'static str,
    before: Option<&'a Json>,
    after: Option<Json>,
}

impl Gateway {
    /// Makes a key, user, team or org. The same request again, by the same actor under the same
    /// idempotency key within a day, makes nothing and shows what the first has made.
    pub async fn create_entry(
        &self,
        by: &Actor,
        kind: Kind,
        draft: Draft,
    ) -> Result<Created, Error> {
        let once = draft
            .idempotency
            .as_ref()
            .map(|token| Once { token: token.clone(), request: of_request(kind, &draft) });
        let id = match (draft.id, kind) {
            (Some(id), _) => id,
            (None, Kind::Key) => new_id()?,
            (None, _) => return Err(Error::invalid("`id` is missing.")),
        };
        if !entry::is_name(&id) {
            let message = format!("{id:?} is not a name; use letters, digits and . _ -");
            return Err(Error::invalid(message));
        }
        let settings = within_team(by, kind, draft.settings);
        let terms = entry::read(kind, &settings).map_err(|problems| wrong(&problems))?;
        let mut known = self.directory.known.lock().await;
        self.check(by, kind, &id, None, Some(&terms))?;
        let secret =
            if kind == Kind::Key { Some(new_secret().ok_or_else(no_chance)?) } else { None };
        let now = whole(SystemTime::now());
        let marks = secret
            .iter()
            .map(|secret| SecretRow { digest: hex(&digest(secret.expose())), valid_until: None });
        let row = EntryRow {
            kind: kind.name().to_owned(),
            id: id.clone(),
            settings: terms.written().to_string(),
            created_at: now,
            changed_at: now,
            ended_at: None,
            version: 0,
            secrets: marks.collect(),
        };
        let told = Told { what: "create", before: None, after: Some(terms.written().clone()) };
        match self.make(&mut known, told.change(by, row, once)).await? {
            None => {
                let entry = self.entry(by, kind, &id)?;
                Ok(Created { entry, secret, replayed: false })
            }
            Some(Outcome::Replayed(id)) => {
                // It may have been made by another process.
                self.learn(&mut known).await?;
                let entry = self.entry(by, kind, &id)?;
                Ok(Created { entry, secret: None, replayed: true })
            }
            Some(Outcome::Clash) => Err(clash()),
            Some(Outcome::Stale | Outcome::Done(_)) => {
                let message = format!("There is a {} \"{id}\" already.", kind.name());
                Err(Error::new(Fault::Conflict, message))
            }
        }
    }

    /// Merges a patch (RFC 7396) into the settings: what it does not name stays, null removes.
    pub async fn change_entry(
        &self,
        by: &Actor,
        kind: Kind,
        id: &str,
        patch: &Json,
    ) -> Result<Entry, Error> {
        if !patch.is_object() {
            return Err(Error::invalid("A change is a JSON object."));
        }
        self.alter(by, kind, id, |standing| {
            let mut settings = standing.terms.written().clone();
            merge(&mut settings, patch);
            let terms = entry::read(kind, &settings).map_err(|problems| wrong(&problems))?;
            standing.row.settings = terms.written().to_string();
            let after = Some(terms.written().clone());
            standing.terms = terms;
            Ok(("change", after))
        })
        .await?;
        self.entry(by, kind, id)
    }

    /// Gives a key a new secret. The old ones are valid for `overlap` more.
    pub async fn rotate_key(
        &self,
        by: &Actor,
        id: &str,
        overlap: Duration,
    ) -> Result<Created, Error> {
        if overlap > LONGEST_OVERLAP {
            return Err(Error::invalid("Secrets overlap for a year at most."));
        }
        let secret = new_secret().ok_or_else(no_chance)?;
        let mark = SecretRow { digest: hex(&digest(secret.expose())), valid_until: None };
        self.alter(by, Kind::Key, id, |standing| {
            let now = whole(SystemTime::now());
            let secrets = &mut standing.row.secrets;
            secrets.retain(|old| old.valid_until.is_none_or(|until| until + REMEMBERED > now));
            if secrets.len() >= MOST_SECRETS {
                let message = "This key has too many secrets that are valid or were lately.";
                return Err(Error::new(Fault::Conflict, message));
            }
            for old in secrets.iter_mut() {
                let until = now + overlap;
                old.valid_until = Some(old.valid_until.map_or(until, |old| old.min(until)));
            }
            secrets.push(mark.clone());
            let until = humantime::format_rfc3339_millis(now + overlap).to_string();
            Ok(("rotate", Some(json!({"older_secrets_valid_until": until}))))
        })
        .await?;
        let entry = self.entry(by, Kind::Key, id)?;
        Ok(Created { entry, secret: Some(secret), replayed: false })
    }

    /// Revokes a key for good. When this returns, no call is admitted by it here.
    pub async fn revoke_key(&self, by: &Actor, id: &str) -> Result<Entry, Error> {
        self.end(by, Kind::Key, id, "revoke").await?;
        self.entry(by, Kind::Key, id)
    }

    /// Removes a user, team or org, if nobody belongs to it any more; revokes a key.
    pub async fn remove_entry(&self, by: &Actor, kind: Kind, id: &str) -> Result<(), Error> {
        let what = if kind == Kind::Key { "revoke" } else { "remove" };
        self.end(by, kind, id, what).await
    }

    async fn end(&self, by: &Actor, kind: Kind, id: &str, what: &'static str) -> Result<(), Error> {
        self.alter(by, kind, id, |standing| {
            if let Some((other, member)) = self.snapshot().roster.belongs_to(kind, id) {
                let message =
                    format!("The {} \"{member}\" belongs to it; move that first.", other.name());
                return Err(Error::new(Fault::Conflict, message));
            }
            standing.row.ended_at = Some(whole(SystemTime::now()));
            Ok((what, None))
        })
        .await
    }

    /// Adds to a budget of a key, user, team or org, in the file or not, and shows it. The same
    /// request again, by the same actor under the same idempotency key within a day, adds nothing;
    /// whether it did so is told.
    pub async fn top_up(&self, by: &Actor, top_up: TopUp) -> Result<(BudgetStatus, bool), Error> {
        let no_budget = || Error::invalid("Only keys, users, teams and orgs have budgets.");
        let kind = Kind::of_name(top_up.scope.name()).ok_or_else(no_budget)?;
        let id = top_up.name.as_str();
        let mut known = self.directory.known.lock().await;
        self.look_for(&mut known, kind, id).await?;
        let terms = self.terms_of(kind, id).ok_or_else(|| unknown(kind, id))?;
        let roster = &self.snapshot().roster;
        by.may_change(kind, id, Some(&terms), Some(&terms), roster)?;
        let account = self.account_of(kind, id);
        let status = || {
            let all = account.iter().flat_map(|account| account.status(Moment::now()));
            let mut meant = all.filter(|it| it.unit == top_up.unit && it.window == top_up.window);
            meant.next()
        };
        let before = status().ok_or_else(|| {
            let (unit, window) = (top_up.unit.name(), &top_up.window);
            Error::invalid(format!("It has no budget of {unit} with the window \"{window}\"."))
        })?;
        let now = whole(SystemTime::now());
        let change = Change {
            audit: Audit {
                at: now,
                who: by.name.clone(),
                what: format!("{}.topup", kind.name()),
                subject: format!("{}:{id}", kind.name()),
                before: Some(json!({"limit": before.limit}).to_string()),
                after: Some(top_up.shown(&before).to_string()),
            },
            act: Act::TopUp(TopUpRow {
                scope: kind.name().to_owned(),
                name: id.to_owned(),
                unit: top_up.unit.name().to_owned(),
                window: top_up.window.clone(),
                amount: top_up.amount,
                made_at: now,
            }),
            once: top_up.idempotency.clone().map(|token| {
                let asked = json!(["topup", kind.name(), id, top_up.told()]);
                Once { token, request: digest_of(&asked) }
            }),
        };
        let outcome = self.make(&mut known, change).await?;
        if let Some(Outcome::Clash) = outcome {
            return Err(clash());
        }
        Ok((status().unwrap_or(before), outcome.is_some()))
    }

    /// Changes what is made at run time, as it stands when nobody else is at it.
    async fn alter(
        &self,
        by: &Actor,
        kind: Kind,
        id: &str,
        mut act: impl FnMut(&mut Standing) -> Result<(&'static str, Option<Json>), Error> + Send,
    ) -> Result<(), Error> {
        let mut known = self.directory.known.lock().await;
        self.look_for(&mut known, kind, id).await?;
        for _ in 0..TRIES {
            self.check_owner(by, kind, id)?;
            let mut standing = self.standing(kind, id).ok_or_else(|| unknown(kind, id))?;
            let before = standing.terms.clone();
            let roster = Arc::clone(&self.snapshot().roster);
            by.may_change(kind, id, Some(&before), Some(&before), &roster)?;
            if standing.row.ended_at.is_some() {
                return Err(Error::new(Fault::Conflict, "This key was revoked."));
            }
            let (what, after) = act(&mut standing)?;
            if standing.row.ended_at.is_none() {
                self.check(by, kind, id, Some(&before), Some(&standing.terms))?;
            }
            standing.row.changed_at = whole(SystemTime::now());
            let told = Told { what, before: Some(before.written()), after };
            match self.make(&mut known, told.change(by, standing.row, None)).await? {
                None => return Ok(()),
                Some(_) => self.learn(&mut known).await?,
            }
        }
        Err(Error::new(Fault::Conflict, "Others change this at the same time; try again."))
    }

    /// Whether this actor may make it so, and it makes sense.
    fn check(
        &self,
        by: &Actor,
        kind: Kind,
        id: &str,
        before: Option<&Terms>,
        after: Option<&Terms>,
    ) -> Result<(), Error> {
        let house = self.snapshot();
        by.may_change(kind, id, before, after, &house.roster)?;
        self.check_owner(by, kind, id)?;
        let Some(after) = after else { return Ok(()) };
        entry::check(after, &house.config, &*house.roster).map_err(|problems| wrong(&problems))
    }

    fn check_owner(&self, by: &Actor, kind: Kind, id: &str) -> Result<(), Error> {
        let house = self.snapshot();
        let Some(terms) = house.terms_of_file(kind, id) else { return Ok(()) };
        let kind_name = kind.name();
        if !by.may_see(house.roster.team_of(id, &terms).as_deref()) {
            return Err(unknown(kind, id));
        }
        let message =
            format!("The {kind_name} \"{id}\" stands in the config file; change it there.");
        Err(Error::new(Fault::OwnedByFile, message))
    }

    fn terms_of(&self, kind: Kind, id: &str) -> Option<Terms> {
        let made = || self.standing(kind, id).map(|standing| standing.terms);
        self.snapshot().terms_of_file(kind, id).or_else(made)
    }

    /// One that is not known here may just have been made by another process.
    pub(super) async fn look_for(
        &self,
        known: &mut Known,
        kind: Kind,
        id: &str,
    ) -> Result<(), Error> {
        if self.snapshot().find(kind, id).is_some() { Ok(()) } else { self.learn(known).await }
    }

    fn standing(&self, kind: Kind, id: &str) -> Option<Standing> {
        let roster = Arc::clone(&self.snapshot().roster);
        if kind == Kind::Key {
            let key = roster.key(id)?;
            let terms = Terms::Key(Arc::clone(&key.terms));
            return Some(Standing { row: row_of_key(&key), terms });
        }
        let member = roster.member(kind, id)?;
        Some(Standing { row: row_of_member(id, &member), terms: member.terms })
    }

    /// Stores a change and puts it in force; else what stands in its way.
    async fn make(&self, known: &mut Known, change: Change) -> Result<Option<Outcome>, Error> {
        match self.store().change(change, known.version).await.map_err(away)? {
            Outcome::Done(news) => {
                self.put_in_force(known, news).await;
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    /// Looks what others have changed.
    async fn learn(&self, known: &mut Known) -> Result<(), Error> {
        let news = self.store().news(known.version).await.map_err(away)?;
        self.put_in_force(known, news).await;
        Ok(())
    }
}

// === As they are stored ===

pub(super) fn row_of_key(key: &Key) -> EntryRow {
    let secrets = key.secrets.iter().map(|mark| SecretRow {
        digest: hex(&mark.digest),
        valid_until: mark.valid_until.map(Into::into),
    });
    EntryRow {
        kind: Kind::Key.name().to_owned(),
        id: key.id.to_string(),
        settings: key.terms.written.to_string(),
        created_at: key.created_at,
        changed_at: key.changed_at,
        ended_at: key.revoked_at,
        version: key.version,
        secrets: secrets.collect(),
    }
}

pub(super) fn row_of_member(id: &str, member: &Member) -> EntryRow {
    EntryRow {
        kind: member.terms.kind().name().to_owned(),
        id: id.to_owned(),
        settings: member.terms.written().to_string(),
        created_at: member.created_at,
        changed_at: member.changed_at,
        ended_at: None,
        version: member.version,
        secrets: Vec::new(),
    }
}

// === impl Told ===

impl Told<'_> {
    fn change(self, by: &Actor, row: EntryRow, once: Option<Once>) -> Change {
        let audit = Audit {
            at: row.changed_at,
            who: by.name.clone(),
            what: format!("{}.{}", row.kind, self.what),
            subject: format!("{}:{}", row.kind, row.id),
            before: self.before.map(Json::to_string),
            after: self.after.map(|after| after.to_string()),
        };
        Change { audit, act: Act::Put(row), once }
    }
}

// === impl TopUp ===

impl TopUp {
    /// For people: dollars as such, and what may be used from here on.
    fn shown(&self, before: &BudgetStatus) -> Json {
        let amount = |value| Amount { unit: self.unit, value };
        let limit = amount(before.limit.value.saturating_add(self.amount));
        json!({"unit": self.unit.name(), "window": self.window, "added": amount(self.amount),
            "limit": limit})
    }

    fn told(&self) -> Json {
        json!({"unit": self.unit.name(), "window": self.window, "added": self.amount})
    }
}

/// What a team admin makes is its team's, if nothing else is said.
fn within_team(by: &Actor, kind: Kind, settings: Json) -> Json {
    let mut settings = if settings.is_null() { json!({}) } else { settings };
    let team = by.team.as_ref().filter(|_| by.role == crate::config::Role::TeamAdmin);
    if let (Kind::Key | Kind::User, Some(team), Some(members)) =
        (kind, team, settings.as_object_mut())
    {
        members.entry("team").or_insert_with(|| Json::from(team.as_str()));
    }
    settings
}

/// RFC 7396.
fn merge(target: &mut Json, patch: &Json) {
    let Json::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, change) in changes {
        if change.is_null() {
            members.shift_remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Json::Null), change);
        }
    }
}

fn clash() -> Error {
    Error::new(Fault::Conflict, "Another request was made with this idempotency key.")
}

fn digest_of(asked: &Json) -> String {
    hex(&Sha256::digest(asked.to_string()))
}

/// Two requests are the same if they ask for the same.
fn of_request(kind: Kind, draft: &Draft) -> String {
    digest_of(&json!([kind.name(), draft.id, draft.settings]))
}

fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| no_chance())?;
    Ok(format!("key_{}", hex(&bytes)))
}

/// As it is stored.
fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn wrong(problems: &[crate::config::Problem]) -> Error {
    Error::invalid(told(problems))
}

fn no_chance() -> Error {
    Error::new(Fault::Internal, "The system gives no random numbers.")
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn away(failure: Failure) -> Error {
    tracing::error!(%failure, "keys made at run time cannot be stored or looked for");
    let mut error = Error::new(Fault::Overloaded, "The store cannot be reached; try again later.");
    error.retry_after = Some(Duration::from_secs(1));
    error
}
