//! What holds where several processes share a database, and on the way to it.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::ledger::{all, row};
use super::*;
use crate::canon::Outcome;
use crate::config::Unit;
use crate::net::tls;

/// Another process on the same database, with a journal of its own.
pub(super) struct Replica {
    pub store: Store,
    folder: TempDir,
}

impl Replica {
    pub(super) fn of(bench: &Bench) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&settings(&bench.url, folder.path()), &bench.clock).unwrap();
        Self { store, folder }
    }

    fn reopened(self, bench: &Bench) -> Self {
        let Self { store, folder } = self;
        drop(store);
        let store = open(&settings(&bench.url, folder.path()), &bench.clock).unwrap();
        Self { store, folder }
    }
}

async fn noted(store: &Store) -> Vec<(String, Outcome)> {
    let mut rows: Vec<_> = all(store).await.into_iter().map(|row| (row.id, row.outcome)).collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    rows
}

#[tokio::test]
async fn each_process_settles_its_own_calls_that_were_cut_off() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    assert_ne!(bench.store.node(), other.store.node());
    bench.store.append_open(row("1", 5000));
    other.store.append_open(row("2", 5000));
    bench.store.flush().await.unwrap();
    other.store.flush().await.unwrap();
    let other = other.reopened(&bench);
    let cut_off = |id: &str| (id.to_owned(), Outcome::Internal);
    assert_eq!(noted(&other.store).await, [cut_off("2")]);
    let bench = bench.reopened();
    assert_eq!(noted(&other.store).await, [cut_off("1"), cut_off("2")]);
    bench.store.append_settled(row("3", 5000));
    bench.store.flush().await.unwrap();
    let window = (UNIX_EPOCH, None);
    let spent = other.store.spent("key:ann", Unit::Tokens, window).await.unwrap();
    let mut expected = [(bench.store.node(), 30), (other.store.node(), 15)];
    expected.sort();
    let spent: Vec<_> = spent.iter().map(|spent| (&spent.node, spent.amount)).collect();
    assert_eq!(spent, expected);
    // Of a minute that is not over, each call that was settled before.
    let at = UNIX_EPOCH + Duration::from_secs(7);
    bench.store.append_settled(CallRow { settled_at: at, ..row("4", 7000) });
    bench.store.flush().await.unwrap();
    let until = Some(at);
    let before = other.store.spent("key:ann", Unit::Tokens, (UNIX_EPOCH, until)).await.unwrap();
    let before: Vec<_> = before.iter().map(|spent| (&spent.node, spent.amount)).collect();
    assert_eq!(before, expected);
}

#[tokio::test]
async fn what_a_vanished_process_left_open_is_settled_after_a_day() {
    let Some(bench) = on_postgres() else { return };
    let gone = Replica::of(&bench);
    gone.store.append_open(row("1", 5000));
    gone.store.flush().await.unwrap();
    let node = Arc::clone(gone.store.node());
    drop(gone);
    bench.pass(86_400_000);
    bench.store.retain(None).await.unwrap();
    assert_eq!(noted(&bench.store).await, []);
    bench.pass(10_000);
    bench.store.retain(None).await.unwrap();
    assert_eq!(noted(&bench.store).await, [("1".to_owned(), Outcome::Internal)]);
    let window = (UNIX_EPOCH, None);
    let spent = bench.store.spent("key:ann", Unit::Tokens, window).await.unwrap();
    assert_eq!((spent.len(), &spent[0].node), (1, &node));
    let opens = |database: &mut Database| number(database, "SELECT count(*) FROM opens");
    assert_eq!(bench.store.write.run(opens).await.unwrap(), 0);
}

#[tokio::test]
async fn processes_that_start_or_write_at_once_wait_for_one_another() {
    let Some(bench) = on_postgres() else { return };
    let drop_all = "DO $$ DECLARE found record; BEGIN
        FOR found IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
            EXECUTE format('DROP TABLE %I CASCADE', found.tablename);
        END LOOP;
        DROP FUNCTION objects_count;
        END $$";
    let drop_all = |database: &mut Database| database.batch(drop_all);
    bench.store.write.run(drop_all).await.unwrap();
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let write = |folder: &Path| {
        let store = open(&settings(&bench.url, folder), &bench.clock).unwrap();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        for call in 0..500 {
            // All add to the same sums.
            store.append_settled(row(&format!("{name}-{call}"), 5000));
        }
    };
    std::thread::scope(|scope| {
        for folder in &folders {
            scope.spawn(|| write(folder.path()));
        }
    });
    let other = Replica::of(&bench);
    assert_eq!(all(&other.store).await.len(), 2000);
    let sums = other.store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, sums[0].usage.total()), (2000, 30_000));
}

#[tokio::test]
async fn odd_names_are_kept_and_stop_nothing() {
    let Some(bench) = on_postgres() else { return };
    let long: Arc<str> = "m".repeat(20_000).into();
    let zeros = [("a\0".into(), "b".into()), ("c".into(), "d".into())].into();
    let odd =
        CallRow { model: Some(long), tags: zeros, user: Some("z\0".into()), ..row("1", 5000) };
    bench.store.append_settled(odd.clone());
    bench.store.append_settled(row("2", 5000));
    bench.store.flush().await.unwrap();
    assert_eq!(all(&bench.store).await.len(), 2);
    for column in [Column::Model, Column::Tag] {
        let sums = bench.store.usage(&Reach::All, &[column], &Filter::default()).await.unwrap();
        assert!(!sums.is_empty());
    }
}

#[tokio::test]
async fn a_job_that_fails_leaves_the_others_of_its_transaction_alone() {
    let Some(bench) = on_postgres() else { return };
    let ann = owner("ann");
    let broken = |database: &mut Database| database.execute("no SQL", values![]);
    let runs = (0..40).map(|number| {
        let (store, ann) = (&bench.store, &ann);
        async move {
            let id = number.to_string();
            let kept = store.put(ann, ObjectKind::File, draft(&id, "x"));
            let (kept, broken) = futures_util::future::join(kept, store.write.run(broken)).await;
            (kept.is_ok(), broken.is_ok())
        }
    });
    let outcomes = futures_util::future::join_all(runs).await;
    assert!(outcomes.into_iter().all(|outcome| outcome == (true, false)));
    assert_eq!(bench.ids(&ann, ObjectKind::File).await.len(), 40);
}

// === The way to the server ===

/// A server that takes a handshake, if one is asked for, and one message; what it was told.
async fn server(certificate: tls::Certificate) -> (u16, Arc<Mutex<Vec<&'static str>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(Mutex::new(Vec::new()));
    let (seen, config) = (Arc::clone(&told), tls::server(Arc::new(certificate)).unwrap());
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    tokio::task::spawn_local(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = [0; 8];
            socket.read_exact(&mut head).await.unwrap();
            // How a client asks for TLS.
            if head[4..] != [0x04, 0xd2, 0x16, 0x2f] {
                seen.lock().unwrap().push("clear");
                continue;
            }
            socket.write_all(b"S").await.unwrap();
            let Ok(mut secure) = acceptor.accept(socket).await else {
                seen.lock().unwrap().push("distrusted");
                continue;
            };
            let is_trusted = secure.read_exact(&mut head).await.is_ok();
            seen.lock().unwrap().push(if is_trusted { "trusted" } else { "distrusted" });
        }
    });
    (port, told)
}

/// What the server has noted, as soon as it has.
async fn heard(told: &Mutex<Vec<&'static str>>) -> &'static str {
    loop {
        if let Some(told) = told.lock().unwrap().pop() {
            return told;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_connection_is_as_safe_as_the_address_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    let certificate = tls::Certificate::load(&cert, &key).unwrap();
    let local = tokio::task::LocalSet::new();
    let checks = async {
        let (port, told) = server(certificate).await;
        for (settings, expected) in [
            ("sslmode=disable".to_owned(), "clear"),
            ("sslmode=require".to_owned(), "trusted"),
            ("sslmode=verify-full".to_owned(), "distrusted"),
            (format!("sslmode=verify-full&sslrootcert={}", cert.display()), "trusted"),
        ] {
            let url = format!("postgres://user:canary@localhost:{port}/state?{settings}");
            let address = postgres::Address::read(&url).unwrap();
            let connect = move || postgres::Remote::connect(&address).map(drop);
            let failure = tokio::task::spawn_blocking(connect).await.unwrap().unwrap_err();
            let heard = tokio::time::timeout(Duration::from_secs(10), heard(&told)).await;
            assert_eq!(heard, Ok(expected), "{settings}: {failure}");
            assert!(!failure.to_string().contains("canary"), "{failure}");
        }
        let nonsense = "postgres://user:canary@localhost:port/state?sslmode=canary";
        let failure = postgres::Address::read(nonsense).err().unwrap();
        assert!(!failure.to_string().contains("canary"), "{failure}");
    };
    local.run_until(checks).await;
}

// === A database of before ===

#[tokio::test]
async fn what_was_kept_before_processes_had_names_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let database = Connection::open(&path).unwrap();
    let steps = [
        "CREATE TABLE migrations (
            version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;",
        include_str!("../migrations/0001_objects.sql"),
        include_str!("../migrations/0002_ledger.sql"),
        include_str!("../migrations/0003_keys.sql"),
        "INSERT INTO migrations VALUES (1, 0), (2, 0), (3, 0);
         INSERT INTO journal VALUES (1, 7, 100);
         INSERT INTO spent VALUES ('key:ann', 'tokens', 5, 1000);",
    ];
    database.execute_batch(&steps.concat()).unwrap();
    let open_call = serde_json::to_string(&row("1", 5000)).unwrap();
    let insert = "INSERT INTO opens (id, row) VALUES ('1', ?1)";
    database.execute(insert, [open_call]).unwrap();
    drop(database);
    let clock = Arc::new(AtomicI64::new(1000));
    for _ in 0..2 {
        let store = open_file(&path, &clock).unwrap();
        assert_eq!(noted(&store).await, [("1".to_owned(), Outcome::Internal)]);
        let spent = store.spent("key:ann", Unit::Tokens, (UNIX_EPOCH, None)).await.unwrap();
        let amounts: Vec<_> = spent.into_iter().map(|spent| spent.amount).collect();
        assert_eq!(amounts, [15, 1000]);
    }
}
