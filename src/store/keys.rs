//! Keys made at run time, and who changed what.

use std::time::SystemTime;

use super::database::{Alone, Database, Fault, Row, values};
use super::{Failure, Position, Store, millis, time};

/// Rows of one answer.
const PAGE: u32 = 1000;

/// A virtual key. Its secrets themselves are nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: String,
    pub name: String,
    pub team: Option<String>,
    pub user: Option<String>,
    pub org: Option<String>,
    /// Scopes, limits and budgets, as JSON.
    pub settings: String,
    pub created_at: SystemTime,
    pub expires_at: Option<SystemTime>,
    pub revoked_at: Option<SystemTime>,
    pub secrets: Vec<SecretRow>,
}

/// What one secret of a key is recognised by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    pub digest: String,
    /// As long as the key, if there is none.
    pub valid_until: Option<SystemTime>,
}

/// One change that someone made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub at: SystemTime,
    pub who: String,
    pub what: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

// === impl Store ===

impl Store {
    /// Keys by id, revoked ones too, at most a thousand after `after`.
    pub async fn keys(&self, after: Option<&str>) -> Result<Vec<KeyRow>, Failure> {
        let after = after.unwrap_or_default().to_owned();
        self.read.run(move |database| keys(database, "id > $1", &after)).await
    }

    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>, Failure> {
        let id = id.to_owned();
        let found = self.read.run(move |database| keys(database, "id = $1", &id)).await?;
        Ok(found.into_iter().next())
    }

    /// Keeps a key with these secrets and no others, in place of what had its id.
    pub async fn put_key(&self, key: KeyRow) -> Result<(), Failure> {
        self.write.run(move |database| put(database, &key)).await
    }

    /// Whether there was such a key that was not revoked yet.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, Failure> {
        let (id, now) = (id.to_owned(), self.now());
        let revoke = "UPDATE keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
        let revoke = move |database: &mut Database| database.execute(revoke, values![now, &id]);
        Ok(self.write.run(revoke).await? > 0)
    }

    /// Notes a change.
    pub async fn audit(&self, change: Audit) -> Result<(), Failure> {
        let insert = "INSERT INTO audit (at, who, what, before, after) VALUES ($1, $2, $3, $4, $5)";
        let note = move |database: &mut Database| {
            let Audit { at, who, what, before, after } = &change;
            database.alone(Alone::Audit)?;
            database.execute(insert, values![millis(*at), who, what, before, after])?;
            Ok(())
        };
        self.write.run(note).await
    }

    /// Changes, the newest first, at most `limit` or a thousand after `after`.
    pub async fn audits(
        &self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<(Position, Audit)>, Failure> {
        let after = after.map_or(i64::MAX, |position| position.0);
        let query = "SELECT position, at, who, what, before, after FROM audit WHERE position < $1
            ORDER BY position DESC LIMIT $2";
        let read = move |database: &mut Database| {
            database.query(query, values![after, limit.min(PAGE)], change)
        };
        self.read.run(read).await
    }
}

/// All or none, as it runs in one transaction.
fn put(database: &mut Database, key: &KeyRow) -> Result<(), Fault> {
    let put = r#"INSERT INTO keys
        (id, name, team, "user", org, settings, created_at, expires_at, revoked_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, team = excluded.team,
            "user" = excluded."user", org = excluded.org, settings = excluded.settings,
            created_at = excluded.created_at, expires_at = excluded.expires_at,
            revoked_at = excluded.revoked_at"#;
    let KeyRow { id, name, team, user, org, settings, .. } = key;
    let (created, expires) = (millis(key.created_at), key.expires_at.map(millis));
    let revoked = key.revoked_at.map(millis);
    let row = values![id, name, team, user, org, settings, created, expires, revoked];
    database.execute(put, row)?;
    database.execute("DELETE FROM secrets WHERE key = $1", values![id])?;
    let secret = "INSERT INTO secrets (key, digest, valid_until) VALUES ($1, $2, $3)
        ON CONFLICT (key, digest) DO UPDATE SET valid_until = excluded.valid_until";
    for SecretRow { digest, valid_until } in &key.secrets {
        database.execute(secret, values![id, digest, valid_until.map(millis)])?;
    }
    Ok(())
}

fn keys(database: &mut Database, which: &str, id: &str) -> Result<Vec<KeyRow>, Fault> {
    let query = format!(
        r#"SELECT id, name, team, "user", org, settings, created_at, expires_at, revoked_at
         FROM keys WHERE {which} ORDER BY id LIMIT {PAGE}"#
    );
    let mut found = database.query(&query, values![id], key)?;
    let secrets = "SELECT digest, valid_until FROM secrets WHERE key = $1 ORDER BY digest";
    let secret = |row: &Row<'_>| {
        let valid_until = row.get::<Option<i64>>(1)?.map(time);
        Ok(SecretRow { digest: row.get(0)?, valid_until })
    };
    for key in &mut found {
        key.secrets = database.query(secrets, values![&key.id], secret)?;
    }
    Ok(found)
}

fn key(row: &Row<'_>) -> Result<KeyRow, Fault> {
    Ok(KeyRow {
        id: row.get(0)?,
        name: row.get(1)?,
        team: row.get(2)?,
        user: row.get(3)?,
        org: row.get(4)?,
        settings: row.get(5)?,
        created_at: time(row.get(6)?),
        expires_at: row.get::<Option<i64>>(7)?.map(time),
        revoked_at: row.get::<Option<i64>>(8)?.map(time),
        secrets: Vec::new(),
    })
}

fn change(row: &Row<'_>) -> Result<(Position, Audit), Fault> {
    let audit = Audit {
        at: time(row.get(1)?),
        who: row.get(2)?,
        what: row.get(3)?,
        before: row.get(4)?,
        after: row.get(5)?,
    };
    Ok((Position(row.get(0)?), audit))
}
