//! The statements over objects. Each names the owner, so nobody meets what is another's.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{Draft, Key, Object, Position, millis, time};

/// Keeps `draft` under its key. One that is replaced keeps its place and its time.
pub(super) fn put(
    connection: &Connection,
    (key, bound): (&Key, u32),
    draft: &Draft,
    now: i64,
) -> rusqlite::Result<()> {
    // An expired one is gone, whether it has been deleted or not.
    let expired = "DELETE FROM objects WHERE owner = :owner AND kind = :kind AND id = :id
        AND expires_at <= :now";
    let (owner, kind, id) = (key.owner.as_str(), key.kind.name(), key.id.as_str());
    let whose = named_params! {":owner": owner, ":kind": kind, ":id": id, ":now": now};
    connection.prepare_cached(expired)?.execute(whose)?;
    let put = "INSERT INTO objects (owner, kind, id, created_at, expires_at, value)
        VALUES (:owner, :kind, :id, :now, :expires_at, :value)
        ON CONFLICT (owner, kind, id)
        DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at";
    connection.prepare_cached(put)?.execute(named_params! {
        ":owner": owner, ":kind": kind, ":id": id, ":now": now,
        ":expires_at": draft.expires_at.map(millis), ":value": &draft.value[..],
    })?;
    let trim = "DELETE FROM objects WHERE position IN (
        SELECT position FROM objects WHERE owner = :owner AND kind = :kind ORDER BY position
        LIMIT max(0, (SELECT count FROM object_counts WHERE owner = :owner AND kind = :kind)
            - :bound))";
    let bound = named_params! {":owner": owner, ":kind": kind, ":bound": bound};
    connection.prepare_cached(trim)?.execute(bound)?;
    Ok(())
}

pub(super) fn get(
    connection: &Connection,
    key: &Key,
    now: i64,
) -> rusqlite::Result<Option<Object>> {
    let query = "SELECT id, value, created_at, expires_at, position FROM objects
        WHERE owner = :owner AND kind = :kind AND id = :id
        AND (expires_at IS NULL OR expires_at > :now)";
    let (owner, kind, id) = (key.owner.as_str(), key.kind.name(), key.id.as_str());
    let whose = named_params! {":owner": owner, ":kind": kind, ":id": id, ":now": now};
    connection.prepare_cached(query)?.query_row(whose, object).optional()
}

pub(super) fn delete(connection: &Connection, key: &Key, now: i64) -> rusqlite::Result<bool> {
    let delete = "DELETE FROM objects WHERE owner = :owner AND kind = :kind AND id = :id
        RETURNING expires_at IS NULL OR expires_at > :now";
    let (owner, kind, id) = (key.owner.as_str(), key.kind.name(), key.id.as_str());
    let whose = named_params! {":owner": owner, ":kind": kind, ":id": id, ":now": now};
    let was_there = connection.prepare_cached(delete)?.query_row(whose, |row| row.get(0));
    Ok(was_there.optional()?.unwrap_or(false))
}

/// The key's id is not looked at.
pub(super) fn list(
    connection: &Connection,
    key: &Key,
    (after, limit): (Option<Position>, u32),
    now: i64,
) -> rusqlite::Result<Vec<Object>> {
    let query = "SELECT id, value, created_at, expires_at, position FROM objects
        WHERE owner = :owner AND kind = :kind AND position < :after
        AND (expires_at IS NULL OR expires_at > :now)
        ORDER BY position DESC LIMIT :limit";
    let mut statement = connection.prepare_cached(query)?;
    let (owner, kind) = (key.owner.as_str(), key.kind.name());
    let page = named_params! {
        ":owner": owner, ":kind": kind, ":now": now, ":limit": limit,
        ":after": after.map_or(i64::MAX, |position| position.0),
    };
    statement.query_map(page, object)?.collect()
}

/// Deletes at most `most` that have expired, and says how many.
pub(super) fn sweep(connection: &Connection, most: u32, now: i64) -> rusqlite::Result<usize> {
    let sweep = "DELETE FROM objects WHERE position IN (
        SELECT position FROM objects WHERE expires_at <= :now LIMIT :most)";
    connection.prepare_cached(sweep)?.execute(named_params! {":now": now, ":most": most})
}

fn object(row: &Row<'_>) -> rusqlite::Result<Object> {
    Ok(Object {
        id: row.get(0)?,
        value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
        created_at: time(row.get(2)?),
        expires_at: row.get::<_, Option<i64>>(3)?.map(time),
        position: Position(row.get(4)?),
    })
}
