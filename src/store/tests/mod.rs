//! What the store promises, checked on every backend.
//!
//! Postgres is one of them where `SWITCHPOINT_TEST_POSTGRES` holds the address of one, such as
//! `postgres://postgres@127.0.0.1:5432/postgres`; each test then has a schema of its own.

use std::path::Path;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;
use tempfile::TempDir;

use super::database::{Fault, Row, values};
use super::*;
use crate::config::Secret;

/// A store whose clock stands still until it is told, with room for three opaque objects.
struct Bench {
    store: Store,
    clock: Arc<AtomicI64>,
    url: StoreUrl,
    folder: TempDir,
}

impl Bench {
    fn new(url: fn(&Path) -> StoreUrl) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, clock) = (url(folder.path()), Arc::new(AtomicI64::new(1000)));
        let store = open(&settings(&url, folder.path()), &clock).unwrap();
        Self { store, clock, url, folder }
    }

    /// The same after a restart.
    fn reopened(self) -> Self {
        let Self { store, clock, url, folder } = self;
        drop(store);
        let store = open(&settings(&url, folder.path()), &clock).unwrap();
        Self { store, clock, url, folder }
    }

    fn pass(&self, millis: i64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    async fn put(&self, owner: &Owner, id: &str, value: &'static str) {
        self.store.put(owner, ObjectKind::Opaque, draft(id, value)).await.unwrap();
    }

    async fn value(&self, owner: &Owner, id: &str) -> Option<Bytes> {
        let object = self.store.get(owner, ObjectKind::Opaque, id).await.unwrap();
        object.map(|object| object.value)
    }

    async fn ids(&self, owner: &Owner, kind: ObjectKind) -> Vec<String> {
        let objects = self.store.list(owner, kind, None, 1000).await.unwrap();
        objects.into_iter().map(|object| object.id).collect()
    }
}

/// The journal lies beside the file, wherever the database is.
fn settings(url: &StoreUrl, folder: &Path) -> config::Store {
    let journal = Some(folder.join("state.db.journal"));
    config::Store { journal, ..config::Store::at(url.clone()) }
}

fn open(settings: &config::Store, clock: &Arc<AtomicI64>) -> Result<Store, Failure> {
    let clock = Arc::clone(clock);
    let now = Arc::new(move || time(clock.load(Ordering::Relaxed)));
    let bound = |kind| if kind == ObjectKind::Opaque { 3 } else { 1000 };
    Store::open_with(settings, &Rules { now, bound, segment: 4096 })
}

/// A file that has its journal beside it.
fn open_file(path: &Path, clock: &Arc<AtomicI64>) -> Result<Store, Failure> {
    open(&config::Store::at(StoreUrl::Sqlite(path.to_owned())), clock)
}

/// The only number of an answer.
fn number(database: &mut Database, query: &str) -> Result<i64, Fault> {
    let read = |row: &Row<'_>| row.get(0);
    Ok(database.first(query, values![], read)?.unwrap())
}

fn draft(id: &str, value: &'static str) -> Draft {
    Draft { id: id.to_owned(), value: Bytes::from_static(value.as_bytes()), expires_at: None }
}

fn owner(name: &str) -> Owner {
    Owner::new(name)
}

async fn keeps_finds_replaces_and_deletes(bench: Bench) {
    let ann = owner("ann");
    assert_eq!(bench.value(&ann, "1").await, None);
    bench.put(&ann, "1", "first").await;
    bench.pass(5);
    bench.put(&ann, "1", "second").await;
    let object = bench.store.get(&ann, ObjectKind::Opaque, "1").await.unwrap().unwrap();
    assert_eq!((object.id.as_str(), &object.value[..]), ("1", &b"second"[..]));
    assert_eq!((object.created_at, object.expires_at), (time(1000), None));
    assert!(bench.store.delete(&ann, ObjectKind::Opaque, "1").await.unwrap());
    assert!(!bench.store.delete(&ann, ObjectKind::Opaque, "1").await.unwrap());
    assert_eq!(bench.value(&ann, "1").await, None);
}

async fn turns_are_taken_of_all_limits_or_of_none(bench: Bench) {
    let turn = |name: &str, amount| shared::Turn { name: name.to_owned(), amount, seconds: 3600 };
    let both = || vec![turn("tool", 6), turn("user", 2)];
    for _ in 0..2 {
        assert_eq!(bench.store.take_turns(both()).await.unwrap(), Ok(()));
    }
    let wait = bench.store.take_turns(both()).await.unwrap().unwrap_err();
    let hour = Duration::from_hours(1);
    assert!(wait <= hour + hour / 60 && wait + hour / 60 >= hour, "{wait:?}");
    // One in whose name nothing was taken of the first limit when there was none of the second.
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, turns) = (bench.store.clone(), vec![turn("tool", 6)]);
        asking.spawn(async move { store.take_turns(turns).await.unwrap() });
    }
    let taken = asking.join_all().await.into_iter().flatten().count();
    assert_eq!(taken, 4);
}

async fn what_is_anothers_is_as_what_is_not_there(bench: Bench) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    bench.put(&ann, "1", "hers").await;
    assert_eq!(bench.value(&bob, "1").await, None);
    assert!(!bench.store.delete(&bob, ObjectKind::Opaque, "1").await.unwrap());
    assert_eq!(bench.ids(&bob, ObjectKind::Opaque).await, [""; 0]);
    bench.put(&bob, "1", "his").await;
    assert_eq!(bench.value(&ann, "1").await.unwrap(), "hers");
    assert_eq!(bench.ids(&ann, ObjectKind::File).await, [""; 0]);
    let odd = owner("' OR 1=1 --");
    assert_eq!(bench.ids(&odd, ObjectKind::Opaque).await, [""; 0]);
}

async fn lists_the_newest_first_and_goes_on_after_what_is_gone(bench: Bench) {
    let ann = owner("ann");
    for id in ["a", "b", "c", "d", "e"] {
        bench.store.put(&ann, ObjectKind::File, draft(id, "")).await.unwrap();
    }
    let page = bench.store.list(&ann, ObjectKind::File, None, 2).await.unwrap();
    assert_eq!([&page[0].id, &page[1].id], ["e", "d"]);
    bench.store.delete(&ann, ObjectKind::File, "d").await.unwrap();
    let after = Some(page[1].position);
    let page = bench.store.list(&ann, ObjectKind::File, after, 9).await.unwrap();
    let ids: Vec<_> = page.iter().map(|object| object.id.as_str()).collect();
    assert_eq!(ids, ["c", "b", "a"]);
    let after = Some(page[2].position);
    assert_eq!(bench.store.list(&ann, ObjectKind::File, after, 9).await.unwrap(), []);
}

async fn what_has_expired_is_gone_at_once_and_deleted_later(bench: Bench) {
    let ann = owner("ann");
    let soon = Draft { expires_at: Some(time(2000)), ..draft("soon", "x") };
    bench.store.put(&ann, ObjectKind::File, soon.clone()).await.unwrap();
    bench.store.put(&ann, ObjectKind::File, draft("never", "x")).await.unwrap();
    bench.pass(999);
    assert_eq!(bench.ids(&ann, ObjectKind::File).await, ["never", "soon"]);
    bench.pass(1);
    assert_eq!(bench.ids(&ann, ObjectKind::File).await, ["never"]);
    assert_eq!(bench.store.get(&ann, ObjectKind::File, "soon").await.unwrap(), None);
    let renewed = Draft { expires_at: Some(time(9000)), ..soon };
    bench.store.put(&ann, ObjectKind::File, renewed).await.unwrap();
    assert_eq!(bench.ids(&ann, ObjectKind::File).await, ["soon", "never"], "as if new");
    bench.pass(7000);
    let rows = |database: &mut Database| number(database, "SELECT count(*) FROM objects");
    assert_eq!(bench.store.write.run(rows).await.unwrap(), 2);
    bench.store.sweep().await.unwrap();
    assert_eq!(bench.store.write.run(rows).await.unwrap(), 1);
    assert!(!bench.store.delete(&ann, ObjectKind::File, "soon").await.unwrap());
}

async fn beyond_the_bound_the_oldest_go_and_no_others(bench: Bench) {
    let (ann, bob) = (owner("ann"), owner("bob"));
    bench.put(&bob, "0", "x").await;
    bench.store.put(&ann, ObjectKind::File, draft("file", "x")).await.unwrap();
    for id in ["1", "2", "3", "2", "4", "5"] {
        bench.put(&ann, id, "x").await;
    }
    assert_eq!(bench.ids(&ann, ObjectKind::Opaque).await, ["5", "4", "3"]);
    bench.store.delete(&ann, ObjectKind::Opaque, "4").await.unwrap();
    bench.put(&ann, "6", "x").await;
    assert_eq!(bench.ids(&ann, ObjectKind::Opaque).await, ["6", "5", "3"]);
    assert_eq!(bench.ids(&bob, ObjectKind::Opaque).await, ["0"]);
    assert_eq!(bench.ids(&ann, ObjectKind::File).await, ["file"]);
}

async fn many_writers_at_once_lose_nothing(bench: Bench) {
    let runtime = tokio::runtime::Handle::current();
    let write_all = |writer: usize| {
        for n in 0..200 {
            let (ann, id) = (owner("ann"), format!("{writer}-{n}"));
            runtime.block_on(async {
                bench.store.put(&ann, ObjectKind::Batch, draft(&id, "x")).await.unwrap();
                let found = bench.store.get(&ann, ObjectKind::Batch, &id).await.unwrap();
                assert!(found.is_some(), "what was answered can be read");
            });
        }
    };
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let write_all = &write_all;
            scope.spawn(move || write_all(writer));
        }
    });
    assert_eq!(bench.ids(&owner("ann"), ObjectKind::Batch).await.len(), 800);
    assert!(bench.store.is_up());
}

async fn a_failed_transaction_says_so_and_leaves_nothing(bench: Bench) {
    bench.put(&owner("ann"), "1", "x").await;
    let broken = bench.store.write.run(|database| {
        database.execute("DELETE FROM objects", values![])?;
        database.execute("no SQL", values![])
    });
    assert!(broken.await.is_err());
    assert!(!bench.store.is_up());
    assert!(bench.value(&owner("ann"), "1").await.is_some());
    bench.store.flush().await.unwrap();
    assert!(bench.store.is_up());
}

#[tokio::test]
async fn work_that_panics_is_a_failure_and_takes_nobody_with_it() {
    let bench = Bench::new(|folder| StoreUrl::Sqlite(folder.join("state.db")));
    let nothing: [u64; 0] = [];
    bench.put(&owner("ann"), "1", "x").await;
    let panics = bench.store.write.run(move |database| {
        database.execute("DELETE FROM objects", values![])?;
        Ok(nothing[std::hint::black_box(1)])
    });
    let failure = panics.await.unwrap_err();
    assert!(failure.to_string().contains("panicked"), "{failure}");
    assert!(bench.value(&owner("ann"), "1").await.is_some(), "nothing of it is done");
    // More often than there are threads that read.
    for _ in 0..5 {
        let panics = bench.store.read.run(move |_| Ok(nothing[std::hint::black_box(1)]));
        assert!(panics.await.is_err());
    }
    bench.put(&owner("ann"), "2", "x").await;
    assert!(bench.value(&owner("ann"), "2").await.is_some());
    assert!(bench.store.is_up());
}

#[tokio::test]
async fn a_database_whose_file_is_gone_takes_nothing_until_it_is_back() {
    let bench = Bench::new(|folder| StoreUrl::Sqlite(folder.join("state.db")));
    bench.put(&owner("ann"), "1", "x").await;
    let (file, aside) = (bench.folder.path().join("state.db"), bench.folder.path().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    let refused = bench.store.put(&owner("ann"), ObjectKind::Opaque, draft("2", "x")).await;
    let refused = refused.unwrap_err();
    assert!(refused.is_away() && refused.to_string().contains("was deleted"), "{refused}");
    assert!(!bench.store.is_up());
    std::fs::write(&file, "").unwrap();
    let refused = bench.store.put(&owner("ann"), ObjectKind::Opaque, draft("2", "x")).await;
    assert!(refused.unwrap_err().is_away(), "it is another one");
    std::fs::rename(&aside, &file).unwrap();
    bench.put(&owner("ann"), "2", "x").await;
    assert!(bench.store.is_up());
}

macro_rules! suite {
    ($backend:ident, $url:expr, [$($promise:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $promise() {
                if let Some(bench) = $url {
                    super::$promise(bench).await;
                }
            })+
        }
    };
    ($backend:ident, $url:expr) => {
        suite!($backend, $url, [
            keeps_finds_replaces_and_deletes,
            what_is_anothers_is_as_what_is_not_there,
            lists_the_newest_first_and_goes_on_after_what_is_gone,
            what_has_expired_is_gone_at_once_and_deleted_later,
            beyond_the_bound_the_oldest_go_and_no_others,
            many_writers_at_once_lose_nothing,
            a_failed_transaction_says_so_and_leaves_nothing,
            turns_are_taken_of_all_limits_or_of_none,
        ]);
    };
}

// Behind the macro, which it uses.
mod crashes;
mod directory;
mod ledger;
mod remote;
mod runs;

suite!(memory, Some(Bench::new(|_| StoreUrl::Memory)));
suite!(file, Some(Bench::new(in_file)));
suite!(on_server, on_postgres());

/// `None` where there is none to be tested with.
fn on_postgres() -> Option<Bench> {
    static SCHEMAS: AtomicI64 = AtomicI64::new(0);
    let server = std::env::var_os("SWITCHPOINT_TEST_POSTGRES")?.into_string().unwrap();
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    let schema = format!("test_{}_{number}", std::process::id());
    let make = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
    let address = postgres::Address::read(&server).unwrap();
    let make = move || postgres::Remote::connect(&address).unwrap().batch(&make).unwrap();
    std::thread::spawn(make).join().unwrap();
    println!("on Postgres, in schema {schema}");
    let joint = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{joint}options=-csearch_path%3D{schema}");
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(1000)));
    let url = StoreUrl::Postgres(Secret::new(url));
    let store = open(&settings(&url, folder.path()), &clock).unwrap();
    Some(Bench { store, clock, url, folder })
}

// === What only a file can do ===

fn in_file(folder: &Path) -> StoreUrl {
    StoreUrl::Sqlite(folder.join("state.db"))
}

fn refusal(path: &Path) -> String {
    let clock = Arc::new(AtomicI64::new(1000));
    open_file(path, &clock).unwrap_err().to_string()
}

#[tokio::test]
async fn a_restart_loses_nothing() {
    let bench = Bench::new(in_file);
    let ann = owner("ann");
    for id in ["1", "2", "3"] {
        bench.put(&ann, id, "x").await;
    }
    let bench = bench.reopened();
    assert_eq!(bench.ids(&ann, ObjectKind::Opaque).await, ["3", "2", "1"]);
    bench.put(&ann, "4", "x").await;
    assert_eq!(bench.reopened().ids(&ann, ObjectKind::Opaque).await, ["4", "3", "2"]);
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_transaction_leaves_what_was_committed() {
    let bench = Bench::new(in_file);
    let ann = owner("ann");
    bench.put(&ann, "1", "x").await;
    let folder = bench.folder.path();
    let half = Connection::open(folder.join("state.db")).unwrap();
    // So little memory that the half-written transaction reaches the disk.
    half.execute_batch("PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE objects SET id = 'half'")
        .unwrap();
    half.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO objects (owner, kind, id, created_at, value)
         SELECT 'ann', 'opaque', 'half' || i, 1, zeroblob(4000) FROM n",
        [],
    )
    .unwrap();
    // What a killed process leaves: both files as they are, and nothing closed.
    let killed = tempfile::tempdir().unwrap();
    for name in ["state.db", "state.db-wal"] {
        std::fs::copy(folder.join(name), killed.path().join(name)).unwrap();
    }
    assert!(std::fs::metadata(killed.path().join("state.db-wal")).unwrap().len() > 1_000_000);
    let store = open_file(&killed.path().join("state.db"), &bench.clock).unwrap();
    let objects = store.list(&ann, ObjectKind::Opaque, None, 1000).await.unwrap();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].id, "1");
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let bench = Bench::new(in_file);
    let path = bench.folder.path().join("state.db");
    let database = Connection::open(&path).unwrap();
    database.execute("INSERT INTO migrations VALUES (99, 0)", []).unwrap();
    let refusal = refusal(&path);
    assert!(refusal.contains("has version 99 and this program knows "), "{refusal}");
    assert!(refusal.contains("state.db"), "{refusal}");
}

#[test]
fn a_file_that_cannot_serve_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = refusal(&folder.path().join("gone/state.db"));
    assert!(nowhere.contains("cannot open") && nowhere.contains("No such file"), "{nowhere}");
    let text = folder.path().join("text.db");
    std::fs::write(&text, "no database, but long enough to look at. ".repeat(40)).unwrap();
    assert!(refusal(&text).contains("no SQLite database"));
    let locked = folder.path().join("locked.db");
    let other = Connection::open(&locked).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE a (b)").unwrap();
    assert!(refusal(&locked).contains("locked by another process"));
    let read_only = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
    let told = sqlite::failed(&rusqlite::Error::SqliteFailure(read_only, None)).to_string();
    assert!(told.contains("read-only"));
    let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let full = database::Fault::Sqlite(rusqlite::Error::SqliteFailure(full, None));
    assert_eq!(Failure::from(full.at_the_end()).to_string(), "the disk is full");
}

#[test]
fn nobody_else_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new(in_file);
    for name in ["state.db", "state.db-wal"] {
        let metadata = std::fs::metadata(bench.folder.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{name}");
    }
}
