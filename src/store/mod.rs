//! What survives a restart. Rows and statements; no decisions.
//!
//! `memory:` is the same SQLite without a file, so both backends keep the same promises.

mod import;
mod journal;
mod keys;
mod ledger;
mod migrate;
mod objects;
mod queue;
mod report;
mod rows;
pub mod shared;
mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use self::import::Importer;
use self::journal::Journal;
pub use self::keys::{Audit, KeyRow, SecretRow};
use self::queue::Queue;
pub use self::report::{Cursor, Export};
pub use self::rows::{CallRow, Column, Filter, Name, Reach, UsageRow};
use crate::canon::Owner;
use crate::config::StoreUrl;

/// Threads that read a file.
const READERS: usize = 2;
/// Expired objects deleted in one transaction: small, so that no write waits long behind it.
const STEP: u32 = 500;

/// The handle with which every room keeps and finds what is to last.
#[derive(Clone)]
pub struct Store {
    write: Queue,
    read: Queue,
    journal: Arc<Journal>,
    importer: Arc<Importer>,
    up: Arc<AtomicBool>,
    rules: Rules,
}

/// What kinds of object there are. Ids are the owner's within one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A stored response of the Responses API.
    Response,
    File,
    Batch,
    /// What a provider wants back with the next turn, and no client can carry.
    Opaque,
    /// In which response an item was said.
    Item,
    /// A batch whose tokens were not counted yet, or a file of its answers.
    Unmetered,
    /// The events in which a response was streamed.
    Events,
}

/// What is to be kept under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub id: String,
    pub value: Bytes,
    /// Never, if there is none.
    pub expires_at: Option<SystemTime>,
}

/// What was kept. Times are whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub id: String,
    pub value: Bytes,
    pub created_at: SystemTime,
    pub expires_at: Option<SystemTime>,
    pub position: Position,
}

/// Where a list goes on, even when the object it was taken from is gone. It counts the objects of
/// all owners, so it is not for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(i64);

/// Why the store cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(Arc<str>);

/// What one object is found by.
struct Key {
    owner: Owner,
    kind: ObjectKind,
    id: String,
}

/// What tests set otherwise.
#[derive(Clone)]
struct Rules {
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    bound: fn(ObjectKind) -> u32,
    /// Bytes of one file of the journal.
    segment: u64,
}

// === impl Store ===

impl Store {
    /// Opens the store, makes it if it is not there, and brings it to this program's version.
    pub fn open(url: &StoreUrl) -> Result<Self, Failure> {
        let (now, bound) = (Arc::new(SystemTime::now), ObjectKind::bound);
        Self::open_with(url, &Rules { now, bound, segment: journal::SEGMENT })
    }

    fn open_with(url: &StoreUrl, rules: &Rules) -> Result<Self, Failure> {
        let path = match url {
            StoreUrl::Memory => None,
            StoreUrl::Sqlite(path) => Some(path.as_path()),
        };
        let open = || {
            let up = Arc::new(AtomicBool::new(true));
            let mut connection = sqlite::writer(path)?;
            migrate::migrate(&mut connection, millis((rules.now)()))?;
            let write = Queue::write(connection, Arc::clone(&up)).map_err(no_thread)?;
            let read = match path {
                Some(path) => {
                    let readers = (0..READERS).map(|_| sqlite::reader(path));
                    Queue::read(readers.collect::<Result<_, _>>()?).map_err(no_thread)?
                }
                // Memory belongs to one connection.
                None => write.clone(),
            };
            let journal = Arc::new(Journal::new());
            let folder = path.map(|path| path.with_added_extension("journal"));
            let (shared, queue) = (Arc::clone(&journal), write.clone());
            let importer = Arc::new(Importer::start(shared, queue, folder, rules.segment)?);
            Ok(Self { write, read, journal, importer, up, rules: rules.clone() })
        };
        open().map_err(|failure: Failure| match path {
            Some(path) => Failure::new(format!("cannot open {}: {failure}", path.display())),
            None => failure,
        })
    }

    /// Keeps a value, in place of what the owner had under this id. Beyond the bound of its kind
    /// the owner's oldest go.
    pub async fn put(&self, owner: &Owner, kind: ObjectKind, draft: Draft) -> Result<(), Failure> {
        let (now, bound) = (self.now(), (self.rules.bound)(kind));
        let key = Key::new(owner, kind, &draft.id);
        self.write.run(move |database| objects::put(database, (&key, bound), &draft, now)).await
    }

    pub async fn get(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: &str,
    ) -> Result<Option<Object>, Failure> {
        let (now, key) = (self.now(), Key::new(owner, kind, id));
        self.read.run(move |database| objects::get(database, &key, now)).await
    }

    /// Whether there was something to delete.
    pub async fn delete(&self, owner: &Owner, kind: ObjectKind, id: &str) -> Result<bool, Failure> {
        let (now, key) = (self.now(), Key::new(owner, kind, id));
        self.write.run(move |database| objects::delete(database, &key, now)).await
    }

    /// The owner's objects, the newest first, at most `limit` after `after`.
    pub async fn list(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<Object>, Failure> {
        let (now, key) = (self.now(), Key::new(owner, kind, ""));
        self.read.run(move |database| objects::list(database, &key, (after, limit), now)).await
    }

    /// Deletes what has expired, step by step between the writes of others.
    pub async fn sweep(&self) -> Result<(), Failure> {
        loop {
            let now = self.now();
            let swept = self.write.run(move |database| objects::sweep(database, STEP, now)).await?;
            if swept < STEP as usize {
                return Ok(());
            }
        }
    }

    /// Waits until all that was handed in before is written.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.importer.flush().await?;
        self.write.run(|_| Ok(())).await
    }

    /// Whether the last transaction was committed.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn now(&self) -> i64 {
        millis((self.rules.now)())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("up", &self.is_up()).finish_non_exhaustive()
    }
}

// === impl ObjectKind ===

impl ObjectKind {
    /// How it stands in the database.
    fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::File => "file",
            Self::Batch => "batch",
            Self::Opaque => "opaque",
            Self::Item => "item",
            Self::Unmetered => "unmetered",
            Self::Events => "events",
        }
    }

    /// How many one owner may have, so that nothing grows without end.
    fn bound(self) -> u32 {
        match self {
            Self::Response | Self::Item => 100_000,
            Self::Unmetered => 20_000,
            Self::Events => 250,
            Self::File | Self::Batch | Self::Opaque => 10_000,
        }
    }
}

// === impl Failure ===

impl Failure {
    fn new(message: String) -> Self {
        Self(message.into())
    }
}

// === impl Key ===

impl Key {
    fn new(owner: &Owner, kind: ObjectKind, id: &str) -> Self {
        Self { owner: owner.clone(), kind, id: id.to_owned() }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn no_thread(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot start a thread: {error}"))
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
