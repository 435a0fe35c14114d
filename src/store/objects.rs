//! The statements over objects. Each names the owner, so nobody meets what is another's.

use bytes::Bytes;

use super::database::{Database, Fault, Row, Value, row, values};
use super::{Draft, Key, Object, ObjectKind, Position, millis, time};
use crate::canon::Owner;

/// Keeps `draft` under its key. One that is replaced keeps its place and its time.
pub(super) fn put(
    database: &mut Database,
    key: &Key,
    bound: u32,
    draft: &Draft,
    now: i64,
) -> Result<(), Fault> {
    forget_expired(database, key, now)?;
    let Key { owner, kind, id } = key;
    let (owner, kind) = (owner.as_str(), kind.name());
    let put = "INSERT INTO objects (owner, kind, id, created_at, expires_at, value)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (owner, kind, id)
        DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at";
    let expires_at = draft.expires_at.map(millis);
    database.execute(put, values![owner, kind, id, now, expires_at, &draft.value[..]])?;
    let count = "SELECT count FROM object_counts WHERE owner = $1 AND kind = $2";
    let count = database.first(count, values![owner, kind], |row| row.get::<i64>(0))?;
    let beyond = count.unwrap_or_default() - i64::from(bound);
    if beyond > 0 {
        let trim = "DELETE FROM objects WHERE position IN (SELECT position FROM objects
            WHERE owner = $1 AND kind = $2 ORDER BY position LIMIT $3)";
        database.execute(trim, values![owner, kind, beyond])?;
    }
    Ok(())
}

/// The same unless there is one of its key; whether there was none.
pub(super) fn put_new(
    database: &mut Database,
    key: &Key,
    draft: &Draft,
    now: i64,
) -> Result<bool, Fault> {
    forget_expired(database, key, now)?;
    let put = "INSERT INTO objects (owner, kind, id, created_at, expires_at, value)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (owner, kind, id) DO NOTHING";
    let Key { owner, kind, id } = key;
    let (owner, kind, expires_at) = (owner.as_str(), kind.name(), draft.expires_at.map(millis));
    let new = values![owner, kind, id, now, expires_at, &draft.value[..]];
    Ok(database.execute(put, new)? > 0)
}

/// An expired one is gone, whether it has been deleted or not.
fn forget_expired(database: &mut Database, key: &Key, now: i64) -> Result<(), Fault> {
    let expired = "DELETE FROM objects WHERE owner = $1 AND kind = $2 AND id = $3
        AND expires_at <= $4";
    let Key { owner, kind, id } = key;
    let whose = values![owner.as_str(), kind.name(), id, now];
    database.execute(expired, whose).map(|_| ())
}

pub(super) fn get(database: &mut Database, key: &Key, now: i64) -> Result<Option<Object>, Fault> {
    let query = "SELECT id, value, created_at, expires_at, position FROM objects
        WHERE owner = $1 AND kind = $2 AND id = $3 AND (expires_at IS NULL OR expires_at > $4)";
    let Key { owner, kind, id } = key;
    database.first(query, values![owner.as_str(), kind.name(), id, now], object)
}

/// Those of these that are there.
pub(super) fn get_all(
    database: &mut Database,
    owner: &Owner,
    kind: ObjectKind,
    ids: &[String],
    now: i64,
) -> Result<Vec<Object>, Fault> {
    let asked: Vec<Value> =
        ids.iter().flat_map(|id| row![owner.as_str(), kind.name(), id]).collect();
    let head = "WITH asked (owner, kind, id) AS (VALUES";
    let tail = ") SELECT objects.id, value, created_at, expires_at, position FROM asked
        JOIN objects ON objects.owner = asked.owner AND objects.kind = asked.kind
            AND objects.id = asked.id";
    let mut found = database.with_rows((head, tail), 3, &asked, object)?;
    found.retain(|object| object.expires_at.is_none_or(|at| millis(at) > now));
    Ok(found)
}

pub(super) fn delete(database: &mut Database, key: &Key, now: i64) -> Result<bool, Fault> {
    let delete = "DELETE FROM objects WHERE owner = $1 AND kind = $2 AND id = $3
        RETURNING expires_at IS NULL OR expires_at > $4";
    let Key { owner, kind, id } = key;
    let whose = values![owner.as_str(), kind.name(), id, now];
    Ok(database.first(delete, whose, |row| row.get(0))?.unwrap_or(false))
}

/// The key's id is not looked at.
pub(super) fn list(
    database: &mut Database,
    key: &Key,
    after: Option<Position>,
    limit: u32,
    now: i64,
) -> Result<Vec<Object>, Fault> {
    let query = "SELECT id, value, created_at, expires_at, position FROM objects
        WHERE owner = $1 AND kind = $2 AND position < $3
        AND (expires_at IS NULL OR expires_at > $4)
        ORDER BY position DESC LIMIT $5";
    let after = after.map_or(i64::MAX, |position| position.0);
    let page = values![key.owner.as_str(), key.kind.name(), after, now, limit];
    database.query(query, page, object)
}

/// Deletes at most `most` that have expired, and says how many.
pub(super) fn sweep(database: &mut Database, most: u32, now: i64) -> Result<u64, Fault> {
    let sweep = "DELETE FROM objects WHERE position IN (
        SELECT position FROM objects WHERE expires_at <= $1 LIMIT $2)";
    database.execute(sweep, values![now, most])
}

fn object(row: &Row<'_>) -> Result<Object, Fault> {
    Ok(Object {
        id: row.get(0)?,
        value: Bytes::from(row.get::<Vec<u8>>(1)?),
        created_at: time(row.get(2)?),
        expires_at: row.get::<Option<i64>>(3)?.map(time),
        position: Position(row.get(4)?),
    })
}
