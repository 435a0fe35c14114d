//! What survives a restart. Rows and statements; no decisions.
//!
//! SQLite, in a file or in memory, or Postgres: the same statements, and the same promises.

mod audit;
mod database;
mod directory;
mod entries;
pub mod foreign;
mod import;
mod journal;
mod ledger;
mod migrate;
mod objects;
mod postgres;
mod queue;
mod report;
mod rows;
pub mod runs;
mod secure;
pub mod shared;
mod spelling;
mod sqlite;
mod turns;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub(crate) use self::audit::hex;
pub use self::audit::{Audit, AuditCheck, AuditFilter};
use self::database::Database;
pub use self::directory::{Act, Change, EntryRow, News, Once, Outcome, SecretRow, TopUpRow};
use self::import::{Importer, Place};
use self::journal::Journal;
pub use self::ledger::Spent;
use self::queue::{Link, Queue};
pub use self::report::{Cursor, Export};
pub use self::rows::{CallRow, Column, Filter, Name, Reach, UsageRow};
use crate::canon::{CallId, Owner};
use crate::config::{self, StoreUrl};

/// Threads that read.
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
    node: Arc<str>,
    rules: Rules,
    /// Where other processes tell what they have written, if they can.
    bell: Option<Arc<postgres::Address>>,
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
    /// A batch that the gateway looks at until it is counted; all of them are the gateway's own.
    Followed,
    /// What the lines of a file want of whom, should it become a batch.
    Lines,
    /// The events in which a response was streamed.
    Events,
    /// A generation of the config.
    Config,
    /// How a tool was described when it was approved.
    ToolPin,
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
#[error("{message}")]
pub struct Failure {
    message: Arc<str>,
    is_away: bool,
}

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
    /// Opens the store, makes it if it is not there, and brings it to this program's version. A
    /// database of others that is away is no failure: it is looked for until it is there.
    pub fn open(settings: &config::Store) -> Result<Self, Failure> {
        let (now, bound) = (Arc::new(SystemTime::now), ObjectKind::bound);
        Self::open_with(settings, &Rules { now, bound, segment: journal::SEGMENT })
    }

    /// Whether there is a place for it, as far as that shows without opening it.
    pub fn check(settings: &config::Store) -> Result<(), Failure> {
        match &settings.url {
            StoreUrl::Postgres(url) => {
                let read = postgres::Address::read(url.expose());
                read.map_err(|failure| Failure::new(format!("url: {failure}")))?;
            }
            StoreUrl::Sqlite(path) => has_folder("url", path)?,
            StoreUrl::Memory => {}
        }
        settings.journal().map_or(Ok(()), |path| has_folder("journal", &path))
    }

    /// The same beside a process that has the journal: calls cannot be noted here to last.
    pub fn open_beside(settings: &config::Store) -> Result<Self, Failure> {
        let (now, bound) = (Arc::new(SystemTime::now), ObjectKind::bound);
        Self::open_at(&settings.url, None, &Rules { now, bound, segment: journal::SEGMENT })
    }

    fn open_with(settings: &config::Store, rules: &Rules) -> Result<Self, Failure> {
        Self::open_at(&settings.url, settings.journal(), rules)
    }

    fn open_at(url: &StoreUrl, journal: Option<PathBuf>, rules: &Rules) -> Result<Self, Failure> {
        let opened = match url {
            StoreUrl::Memory => Self::open_sqlite(None, journal, rules),
            StoreUrl::Sqlite(path) => Self::open_sqlite(Some(path), journal, rules),
            StoreUrl::Postgres(url) => postgres::Address::read(url.expose())
                .and_then(|address| Self::open_postgres(&address, journal, rules)),
        };
        opened.map_err(|failure| match url {
            StoreUrl::Memory => failure,
            StoreUrl::Sqlite(path) => failure.named(&path.display().to_string()),
            StoreUrl::Postgres(_) => failure.named("Postgres"),
        })
    }

    fn open_sqlite(
        path: Option<&Path>,
        journal: Option<PathBuf>,
        rules: &Rules,
    ) -> Result<Self, Failure> {
        let link = |connection| {
            // A file is not lost while it is open.
            Link::new(Some(Database::Sqlite(connection)), || Err(Failure::away("it was closed")))
        };
        let mut database = Database::Sqlite(sqlite::writer(path)?);
        migrate::migrate(&mut database, millis((rules.now)()))?;
        let write = Link::new(Some(database), || Err(Failure::away("it was closed"))).in_file(path);
        let read = match path {
            Some(path) => {
                (0..READERS).map(|_| sqlite::reader(path).map(link)).collect::<Result<_, _>>()?
            }
            // Memory belongs to one connection.
            None => Vec::new(),
        };
        Self::start(write, read, journal, rules)
    }

    fn open_postgres(
        address: &postgres::Address,
        journal: Option<PathBuf>,
        rules: &Rules,
    ) -> Result<Self, Failure> {
        let opener = || {
            let (address, now) = (address.clone(), Arc::clone(&rules.now));
            move || {
                let mut database =
                    Database::Postgres(Box::new(postgres::Remote::connect(&address)?));
                migrate::migrate(&mut database, millis(now()))?;
                Ok::<_, Failure>(database)
            }
        };
        // On a thread of its own, as ever: who opens the store may be a task.
        let first = std::thread::spawn(opener()).join();
        let first = first.unwrap_or_else(|_| Err(Failure::new("a thread failed".to_owned())));
        let database = match first {
            Ok(database) => Some(database),
            Err(error) if error.is_away() => {
                tracing::error!(%error, "starting without the store");
                None
            }
            Err(error) => return Err(error),
        };
        let write = Link::new(database, opener());
        let read = (0..READERS).map(|_| Link::new(None, opener())).collect();
        let store = Self::start(write, read, journal, rules)?;
        Ok(Self { bell: Some(Arc::new(address.clone())), ..store })
    }

    fn start(
        write: Link,
        read: Vec<Link>,
        folder: Option<PathBuf>,
        rules: &Rules,
    ) -> Result<Self, Failure> {
        let up = Arc::new(AtomicBool::new(write.is_open()));
        let write = Queue::write(write, Arc::clone(&up)).map_err(no_thread)?;
        let read =
            if read.is_empty() { write.clone() } else { Queue::read(read).map_err(no_thread)? };
        let name = || CallId::new().simple();
        let node = match &folder {
            Some(folder) => journal::node(folder, name)
                .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?,
            None => name(),
        };
        let (journal, node) = (Arc::new(Journal::new()), Arc::<str>::from(node));
        let place = Place { folder, segment: rules.segment, node: Arc::clone(&node) };
        let importer = Importer::start(Arc::clone(&journal), write.clone(), place)?;
        let importer = Arc::new(importer);
        Ok(Self { write, read, journal, importer, up, node, rules: rules.clone(), bell: None })
    }

    /// Keeps a value, in place of what the owner had under this id. Beyond the bound of its kind
    /// the owner's oldest go.
    pub async fn put(&self, owner: &Owner, kind: ObjectKind, draft: Draft) -> Result<(), Failure> {
        let (now, bound) = (self.now(), (self.rules.bound)(kind));
        let key = Key::new(owner, kind, &draft.id);
        self.write.run(move |database| objects::put(database, &key, bound, &draft, now)).await
    }

    /// Keeps it unless there is one of its id; whether there was none.
    pub async fn put_new(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        draft: Draft,
    ) -> Result<bool, Failure> {
        let (now, key) = (self.now(), Key::new(owner, kind, &draft.id));
        self.write.run(move |database| objects::put_new(database, &key, &draft, now)).await
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

    /// Those of these that are there, in no order.
    pub async fn get_all(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        ids: Vec<String>,
    ) -> Result<Vec<Object>, Failure> {
        let (now, owner) = (self.now(), owner.clone());
        self.read.run(move |database| objects::get_all(database, &owner, kind, &ids, now)).await
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
        self.read.run(move |database| objects::list(database, &key, after, limit, now)).await
    }

    /// Deletes what has expired, step by step between the writes of others.
    pub async fn sweep(&self) -> Result<(), Failure> {
        loop {
            let now = self.now();
            let swept = self.write.run(move |database| objects::sweep(database, STEP, now)).await?;
            if swept < u64::from(STEP) {
                return Ok(());
            }
        }
    }

    /// Waits until all that was handed in before is written.
    pub async fn flush(&self) -> Result<(), Failure> {
        self.importer.flush().await?;
        self.write.run(|_| Ok(())).await
    }

    /// Processes on other machines may write into it, too.
    pub fn is_shared(&self) -> bool {
        self.bell.is_some()
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
            Self::Followed => "followed",
            Self::Lines => "lines",
            Self::Events => "events",
            Self::Config => "config",
            Self::ToolPin => "tool_pin",
        }
    }

    /// How many one owner may have, so that nothing grows without end.
    fn bound(self) -> u32 {
        match self {
            Self::Response | Self::Item | Self::Followed => 100_000,
            Self::Unmetered => 20_000,
            Self::Events => 250,
            Self::Config => 100,
            Self::File | Self::Lines | Self::Batch | Self::Opaque | Self::ToolPin => 10_000,
        }
    }
}

// === impl Failure ===

impl Failure {
    fn new(message: String) -> Self {
        Self { message: message.into(), is_away: false }
    }

    fn away(why: &str) -> Self {
        Self { message: format!("the database is away: {why}").into(), is_away: true }
    }

    fn named(self, what: &str) -> Self {
        Self { message: format!("cannot open {what}: {self}").into(), ..self }
    }

    /// Whether the database cannot be reached, which passes.
    pub fn is_away(&self) -> bool {
        self.is_away
    }
}

// === impl Key ===

impl Key {
    fn new(owner: &Owner, kind: ObjectKind, id: &str) -> Self {
        Self { owner: owner.clone(), kind, id: id.to_owned() }
    }
}

fn has_folder(field: &str, path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            let folder = folder.display();
            Err(Failure::new(format!("{field}: there is no folder {folder}; make it first")))
        }
        _ => Ok(()),
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
