//! What was changed, here or by another process on the same store, comes into force.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::copy::Copy;
use super::{Kind, Known};
use crate::access::account::{Account, Moment, Scope, was_put_back};
use crate::access::roster::{Mark, Record};
use crate::config::entry::{self, Terms};
use crate::config::{self, Unit};
use crate::gateway::{Gateway, Past};
use crate::store::{EntryRow, Failure, News, TopUpRow};

/// How often it is looked for changes of others. A revoked key is to be refused within a second.
const INTERVAL: Duration = Duration::from_millis(500);
const SWEEP_AT_LEAST: usize = 64;

impl Gateway {
    /// Takes over all that is stored. Budgets are not told yet what was spent of them before.
    pub async fn load_directory(&self) -> Result<(), Failure> {
        let mut known = self.directory.known.lock().await;
        self.catch_up(&mut known).await?;
        // They are, before the first call.
        self.dispel_all(&mut known);
        Ok(())
    }

    /// Takes over what was changed since.
    pub async fn follow_directory(&self) -> Result<(), Failure> {
        let mut known = self.directory.known.lock().await;
        let caught_up = self.catch_up(&mut known).await;
        // Some of it may have been taken over.
        known.lacks_past |= caught_up.is_err() && known.doubt.is_some();
        known.lacks_past |= was_put_back();
        let to_seed = caught_up?;
        if known.lacks_past {
            self.seed(Past::Before).await?;
            known.lacks_past = false;
        }
        let seeded = self.seed_accounts(&to_seed, Past::Before).await;
        known.lacks_past = seeded.is_err();
        self.dispel_all(&mut known);
        seeded
    }

    /// Takes over, all its life, what other processes change; and keeps a copy of it all beside the
    /// journal for a start without the database, if that is not on this machine.
    pub async fn keep_directory(self: Arc<Self>) {
        let copy = Arc::new(Copy::new(&self.snapshot().config.store));
        let mut is_told = false;
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.follow_directory().await {
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(%error, "changes that others make to keys are not seen");
                }
                Err(_) => {}
                Ok(()) => is_told = false,
            }
            let version = self.directory.known.lock().await.version;
            copy.renew(version, &self.snapshot().roster);
        }
    }

    /// Takes over what was saved when the store was there, for now it is not.
    pub async fn load_saved_directory(&self) {
        let entries = Copy::new(&self.snapshot().config.store).load();
        let mut known = self.directory.known.lock().await;
        let keys = entries.len();
        // Nobody knows what they have spent, so budgets wait for the store.
        self.take_over(&mut known, News { entries, ..News::default() });
        tracing::warn!(keys, "keys made at run time are those that were saved last");
    }

    /// The accounts that may have spent something that they do not know of.
    async fn catch_up(&self, known: &mut Known) -> Result<Vec<Arc<Account>>, Failure> {
        if !known.is_loaded {
            known.spenders = Some(self.store().spenders("key").await?);
        }
        let mut to_seed = Vec::new();
        loop {
            let news = self.store().news(known.version).await?;
            let has_more = news.has_more;
            to_seed.extend(self.take_over(known, news));
            if !has_more {
                known.spenders = None;
                known.is_loaded = true;
                return Ok(to_seed);
            }
        }
    }

    /// When this returns, no call goes by what was before.
    pub(super) async fn put_in_force(&self, known: &mut Known, news: News) {
        let has_more = news.has_more;
        let mut to_seed = self.take_over(known, news);
        let rest = if has_more { self.catch_up(known).await } else { Ok(Vec::new()) };
        let seeded = match rest {
            Ok(rest) => {
                to_seed.extend(rest);
                self.seed_accounts(&to_seed, Past::Before).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = seeded {
            known.lacks_past = true;
            tracing::error!(%error, "what was changed is not all in force yet");
        }
        self.dispel_all(known);
    }

    /// Unless something that was changed lacks its past.
    fn dispel_all(&self, known: &mut Known) {
        if !known.lacks_past
            && let Some(doubt) = known.doubt.take()
        {
            self.dispel(doubt);
        }
    }

    /// The accounts that may have spent something that they do not know of. Until they do, calls
    /// wait for it.
    fn take_over(&self, known: &mut Known, news: News) -> Vec<Arc<Account>> {
        if !news.entries.is_empty() {
            known.doubt.get_or_insert_with(|| self.doubt());
        }
        let roster = Arc::clone(&self.snapshot().roster);
        let records = news.entries.into_iter().filter_map(|row| known.record(row));
        let to_seed = roster.take(records.collect());
        for top_up in &news.top_ups {
            self.add_to_budget(top_up);
        }
        known.version = news.version;
        to_seed
    }

    fn add_to_budget(&self, row: &TopUpRow) {
        let Some(kind) = Kind::of_name(&row.scope) else { return };
        let Some(account) = self.account_of(kind, &row.name) else { return };
        let unit = if row.is_of(Unit::Usd) { Unit::Usd } else { Unit::Tokens };
        let Ok(made_at) = row.made_at.try_into() else { return };
        account.top_up_as_of(unit, &row.window, row.amount, made_at, Moment::now());
    }

    /// The account of somebody who has limits or budgets, in the file or not.
    pub(super) fn account_of(&self, kind: Kind, id: &str) -> Option<Arc<Account>> {
        let house = self.snapshot();
        let scope = match kind {
            Kind::Key => Scope::Key,
            Kind::User => Scope::User,
            Kind::Team => Scope::Team,
            Kind::Org => Scope::Org,
        };
        let in_file = house.tabs.of(scope).find(|account| *account.name == *id).cloned();
        in_file.or_else(|| house.roster.account(kind, id))
    }
}

// === impl Known ===

impl Known {
    fn record(&mut self, row: EntryRow) -> Option<Record> {
        let kind = Kind::of_name(&row.kind)?;
        let terms = self.terms(kind, &row.settings);
        let terms = terms.inspect_err(|problem| {
            tracing::error!(kind = kind.name(), id = %row.id, %problem, "what is stored of it cannot be read");
        });
        let secrets = row.secrets.iter().filter_map(|secret| {
            let valid_until = secret.valid_until.map(TryInto::try_into).transpose().ok()?;
            Some(Mark { digest: digest_of(&secret.digest)?, valid_until })
        });
        // What has just been made has spent nothing; what was made otherwise may have.
        let is_new = row.created_at == row.changed_at;
        let has_past = match &self.spenders {
            _ if self.is_loaded => !is_new,
            Some(spenders) => spenders.contains(&row.id),
            None => true,
        };
        Some(Record {
            kind,
            has_past,
            terms: terms.ok(),
            created_at: row.created_at,
            changed_at: row.changed_at,
            ended_at: row.ended_at,
            secrets: secrets.collect(),
            version: row.version,
            id: row.id.into(),
        })
    }

    fn terms(&mut self, kind: Kind, settings: &str) -> Result<Terms, String> {
        let digest = Sha256::digest(settings).into();
        let shared = self.terms.get(&digest).and_then(std::sync::Weak::upgrade);
        if let Some(key) = shared.filter(|_| kind == Kind::Key) {
            return Ok(Terms::Key(key));
        }
        let settings = serde_json::from_str(settings).map_err(|error| error.to_string())?;
        let terms = entry::read(kind, &settings).map_err(|problems| told(&problems))?;
        if let Terms::Key(key) = &terms {
            if self.terms.len() >= self.sweep_at {
                self.terms.retain(|_, key| key.strong_count() > 0);
                self.sweep_at = (self.terms.len() * 2).max(SWEEP_AT_LEAST);
            }
            self.terms.insert(digest, Arc::downgrade(key));
        }
        Ok(terms)
    }
}

/// Every problem, each with its place in the settings.
pub(super) fn told(problems: &[config::Problem]) -> String {
    let told = problems.iter().map(|problem| match problem.path.as_str() {
        "" => problem.message.clone(),
        path => format!("{path}: {}", problem.message),
    });
    told.collect::<Vec<_>>().join("\n")
}

fn digest_of(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[place * 2..place * 2 + 2], 16).ok()?;
    }
    Some(digest)
}
