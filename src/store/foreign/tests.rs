//! What a statement can do to a database of somebody else's, and to us: in a real file, and on a
//! real server where `SWITCHPOINT_TEST_POSTGRES` names one.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::store::postgres::Remote;

const THINGS: &str = "CREATE TABLE things(id INTEGER PRIMARY KEY, name TEXT, price NUMERIC(12,2)); \
    INSERT INTO things VALUES (1, 'nail', 0.10), (2, 'hammer', 12.50), (3, NULL, NULL);";

/// One database with some things in it.
struct Bench {
    foreign: Foreign,
    /// Who may do all, to look at what has become of it.
    owner: Foreign,
    _folder: TempDir,
}

impl Bench {
    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("things.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch(THINGS).unwrap();
        let open = || Foreign::open(&StoreUrl::Sqlite(path.clone())).unwrap();
        Self { foreign: open(), owner: open(), _folder: folder }
    }

    /// Its role may change the tables: what it cannot do is for us to see to.
    fn server() -> Option<Self> {
        static SCHEMAS: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var_os("SWITCHPOINT_TEST_POSTGRES")?.into_string().unwrap();
        let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let name = format!("foreign_{}_{number}", std::process::id());
        let make = format!(
            "DROP SCHEMA IF EXISTS {name} CASCADE; DROP ROLE IF EXISTS {name}; \
             CREATE SCHEMA {name}; SET search_path = {name}; {THINGS} CREATE ROLE {name} LOGIN; \
             CREATE SEQUENCE numbers; \
             CREATE FUNCTION adds() RETURNS int LANGUAGE sql VOLATILE SECURITY DEFINER AS \
             $$ INSERT INTO {name}.things(id) VALUES (99) RETURNING id $$; \
             GRANT ALL ON SCHEMA {name} TO {name}; GRANT ALL ON things, numbers TO {name};"
        );
        let address = Address::read(&server).unwrap();
        let make = move || Remote::connect(&address).unwrap().batch(&make).unwrap();
        std::thread::spawn(make).join().unwrap();
        let open = |address: &str| {
            let url = format!("{address}?options=-csearch_path%3D{name}");
            Foreign::open(&StoreUrl::Postgres(crate::config::Secret::new(url))).unwrap()
        };
        let (_, place) = server.split_once('@').unwrap();
        let (owner, foreign) = (open(&server), open(&format!("postgres://{name}@{place}")));
        Some(Self { foreign, owner, _folder: tempfile::tempdir().unwrap() })
    }

    async fn run(&self, access: Access, sql: &str, values: &[Json]) -> Result<Table, Refusal> {
        self.foreign.ask(ask(access, sql, values)).await
    }

    async fn chosen(&self, sql: &str) -> Result<Table, Refusal> {
        self.run(Access::Chosen, sql, &[]).await
    }

    async fn count(&self) -> Json {
        let table =
            self.owner.ask(ask(Access::Read, "SELECT count(*) AS n FROM things", &[])).await;
        table.unwrap().rows[0]["n"].clone()
    }
}

fn ask(access: Access, sql: &str, values: &[Json]) -> Ask {
    let until = Instant::now() + Duration::from_secs(10);
    let (sql, values) = (Arc::from(sql), values.to_vec());
    Ask { sql, values, access, rows: 100, bytes: 10_000, until }
}

fn said(outcome: Result<Table, Refusal>) -> String {
    match outcome.unwrap_err() {
        Refusal::Statement(said) => said,
        other => panic!("{other:?}"),
    }
}

/// The promises that both keep.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod file {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Bench::file()).await;
            })*
        }

        mod server {
            $(#[tokio::test]
            async fn $name() {
                let Some(bench) = super::Bench::server() else {
                    println!("SWITCHPOINT_TEST_POSTGRES is not set: nothing was tried");
                    return;
                };
                super::$name(bench).await;
            })*
        }
    };
}

both!(
    rows_are_objects_and_values_are_bound,
    a_models_statement_can_change_nothing,
    a_statement_that_only_reads_can_change_nothing,
    a_change_is_made_whole_or_not_at_all,
    no_more_than_the_limits_is_taken,
    columns_of_one_name_are_told_apart,
    what_takes_too_long_is_stopped_and_the_next_is_served,
    whoever_leaves_has_it_stopped,
    a_wrong_statement_is_told_in_the_databases_words,
);

async fn rows_are_objects_and_values_are_bound(bench: Bench) {
    let sql = "SELECT id, name FROM things WHERE name = $1 OR id = $2 ORDER BY id";
    let table = bench.run(Access::Read, sql, &[json!("nail"), json!(3)]).await.unwrap();
    assert_eq!(table.rows, [json!({"id": 1, "name": "nail"}), json!({"id": 3, "name": null})]);
    assert!(!table.truncated);
    for hostile in ["x' OR '1'='1", "'; DROP TABLE things; --", "nail\0", "$2", "\\'"] {
        let values = [json!(hostile), json!(null)];
        let table = bench.run(Access::Read, sql, &values).await.unwrap();
        assert_eq!(table.rows, [] as [Json; 0], "{hostile}");
    }
    assert_eq!(bench.count().await, 3);
}

async fn a_models_statement_can_change_nothing(bench: Bench) {
    for sql in [
        "DELETE FROM things",
        "SELECT 1; DROP TABLE things",
        "SELECT 1 /* ; */; DELETE FROM things --",
        "/* SELECT */ DROP TABLE things",
        "-- SELECT\nUPDATE things SET name = 'x'",
        "WITH x AS (DELETE FROM things RETURNING id) SELECT id FROM x",
        "WITH x AS (SELECT 1 AS id) INSERT INTO things SELECT id, 'x', 0 FROM x",
        "SELECT 1) AS t; DELETE FROM things; SELECT (1",
        "INSERT INTO things(id) VALUES (9) RETURNING id",
        "CREATE TABLE mine(id int)",
        "CREATE TEMP TABLE mine(id int)",
        "SELECT * INTO mine FROM things",
        "BEGIN",
        "COMMIT",
        "SET TRANSACTION READ WRITE",
        "PRAGMA writable_schema = 1",
        "PRAGMA table_info(things)",
        "SELECT * FROM pragma_table_info('things')",
        "ATTACH 'other.db' AS other",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "ANALYZE",
        "EXPLAIN ANALYZE DELETE FROM things",
        "SELECT load_extension('evil')",
        "COPY things TO PROGRAM 'cat'",
        "COPY things TO STDOUT",
        "DO $$ BEGIN DELETE FROM things; END $$",
        "LISTEN x",
        "",
        "-- nothing",
    ] {
        let outcome = bench.chosen(sql).await;
        assert!(matches!(outcome, Err(Refusal::Statement(_))), "{sql}: {outcome:?}");
    }
    assert_eq!(bench.count().await, 3);
    let table =
        bench.chosen("WITH x AS (SELECT 2 AS id) SELECT id FROM x -- the end;").await.unwrap();
    assert_eq!(table.rows, [json!({"id": 2})]);
    assert_eq!(bench.chosen("SELECT 1 AS one ; ").await.unwrap().rows, [json!({"one": 1})]);
}

async fn a_statement_that_only_reads_can_change_nothing(bench: Bench) {
    for sql in ["DELETE FROM things", "INSERT INTO things(id) VALUES (7) RETURNING id"] {
        assert!(bench.run(Access::Read, sql, &[]).await.is_err());
    }
    assert_eq!(bench.count().await, 3);
}

async fn a_change_is_made_whole_or_not_at_all(bench: Bench) {
    let sql = "INSERT INTO things(id, name) VALUES ($1, $2)";
    let table = bench.run(Access::Write, sql, &[json!(4), json!("saw")]).await.unwrap();
    assert_eq!((table.changed, table.rows.len()), (Some(1), 0));
    let sql = "UPDATE things SET name = 'x' WHERE id <= 2 RETURNING id";
    let two = Ask { rows: 1, ..ask(Access::Write, sql, &[]) };
    let table = bench.foreign.ask(two).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (1, true));
    let named = "SELECT count(*) AS n FROM things WHERE name = 'x'";
    let table = bench.run(Access::Read, named, &[]).await.unwrap();
    assert_eq!(table.rows, [json!({"n": 2})], "stopped halfway");
    let sql = "INSERT INTO things(id) VALUES (5), (1)";
    said(bench.run(Access::Write, sql, &[]).await);
    assert_eq!(bench.count().await, 4);
}

async fn no_more_than_the_limits_is_taken(bench: Bench) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
               SELECT i FROM n";
    let table =
        bench.foreign.ask(Ask { rows: 250, ..ask(Access::Chosen, sql, &[]) }).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (250, true));
    assert_eq!(table.rows[249], json!({"i": 250}));
    let few = Ask { rows: 1_000_000, bytes: 1000, ..ask(Access::Chosen, sql, &[]) };
    let table = bench.foreign.ask(few).await.unwrap();
    assert!(table.truncated && (50..200).contains(&table.rows.len()), "{}", table.rows.len());
    let exact = Ask { rows: 3, ..ask(Access::Chosen, "SELECT id FROM things ORDER BY id", &[]) };
    let table = bench.foreign.ask(exact).await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (3, false));
}

async fn columns_of_one_name_are_told_apart(bench: Bench) {
    let sql = "SELECT a.id, b.id, a.id AS \"a \"\"q\"\" b\", 1 AS \"id_2\" FROM things a, things b \
               WHERE a.id = 1 AND b.id = 2";
    let table = bench.chosen(sql).await.unwrap();
    assert_eq!(table.rows, [json!({"id": 1, "id_2": 2, "a \"q\" b": 1, "id_2_2": 1})]);
}

async fn what_takes_too_long_is_stopped_and_the_next_is_served(bench: Bench) {
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let until = Instant::now() + Duration::from_millis(200);
    let slow: Vec<_> = (0..=THREADS)
        .map(|_| bench.foreign.ask(Ask { until, ..ask(Access::Chosen, sql, &[]) }))
        .collect();
    for outcome in futures_util::future::join_all(slow).await {
        assert_eq!(outcome, Err(Refusal::Slow));
    }
    assert_eq!(bench.chosen("SELECT 1 AS one").await.unwrap().rows, [json!({"one": 1})]);
}

async fn whoever_leaves_has_it_stopped(bench: Bench) {
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    for _ in 0..THREADS {
        let endless = bench.foreign.ask(ask(Access::Chosen, sql, &[]));
        // It has been handed in and runs, or is about to.
        assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
    }
    let begun = Instant::now();
    bench.chosen("SELECT 1 AS one").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "its threads were still busy");
}

async fn a_wrong_statement_is_told_in_the_databases_words(bench: Bench) {
    assert!(said(bench.chosen("SELECT colour FROM things").await).contains("colour"));
    assert!(said(bench.chosen("SELECT FROM WHERE").await).contains("syntax error"));
    said(bench.run(Access::Read, "SELECT $1", &[]).await);
    said(bench.run(Access::Read, "SELECT 1", &[json!(1)]).await);
}

// === Each in its own way ===

#[tokio::test]
async fn a_file_shows_what_it_holds() {
    let bench = Bench::file();
    let sql = "SELECT NULL AS a, 1.5 AS b, x'00ff' AS c, 9007199254740993 AS d, 9e999 AS e, \
               CAST(x'c328' AS TEXT) AS f, $1 AS g, $2 AS h";
    let table = bench.run(Access::Read, sql, &[json!(true), json!([1])]).await.unwrap();
    let expected = json!({"a": null, "b": 1.5, "c": "\\x00ff", "d": 9_007_199_254_740_993_i64,
        "e": "inf", "f": "\u{fffd}(", "g": 1, "h": "[1]"});
    assert_eq!(table.rows, [expected]);
}

#[tokio::test]
async fn one_row_of_a_file_cannot_take_all_memory() {
    let bench = Bench::file();
    for sql in [
        "SELECT zeroblob(2000000)",
        "SELECT printf('%.*c', 2000000, 'x')",
        "WITH RECURSIVE n(i) AS (SELECT 'xxxxxxxx' UNION ALL SELECT i || i FROM n) SELECT i FROM n \
         WHERE length(i) > 10000000",
    ] {
        assert!(said(bench.chosen(sql).await).contains("too big"), "{sql}");
    }
    let columns = format!("SELECT {}", vec!["1"; 129].join(","));
    assert!(said(bench.chosen(&columns).await).contains("too many columns"));
}

#[tokio::test]
async fn no_single_step_of_a_models_statement_outlives_its_time() {
    let bench = Bench::file();
    let long = |digits: &str| format!("replace(hex(zeroblob(250000)), '0', '{digits}')");
    let (text, pattern) = (long("aa"), format!("{}b", "a".repeat(100)));
    let half = "substr(t, 1, 400000) || 'b'";
    let steps = [
        "instr(t, HALF)",
        "length(replace(t, HALF, 'c'))",
        "length(trim(t, t))",
        "t LIKE '%' || PATTERN",
        "t GLOB '*' || PATTERN",
    ];
    for step in steps {
        let step = step.replace("HALF", half).replace("PATTERN", &format!("'{pattern}'"));
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000), \
             text(t) AS (SELECT {text}) SELECT sum({step}) FROM text, n"
        );
        let until = Instant::now() + Duration::from_millis(300);
        let asked = (0..THREADS)
            .map(|_| bench.foreign.ask(Ask { until, ..ask(Access::Chosen, &sql, &[]) }));
        futures_util::future::join_all(asked).await;
        // A thread is free again, or this would find none.
        let rows = bench.chosen("SELECT 1 AS one").await.unwrap().rows;
        assert_eq!(rows, [json!({"one": 1})], "{step}");
    }
    let (pattern, refused) = ("a".repeat(200), ["json_patch('{}', '{}')", "unhex('61')"]);
    let pattern = format!("'a' LIKE '{pattern}'");
    for expression in refused.into_iter().chain([&*pattern]) {
        assert!(bench.chosen(&format!("SELECT {expression}")).await.is_err(), "{expression}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    let foreign = Foreign::open(&StoreUrl::Sqlite(path.clone())).unwrap();
    for access in [Access::Chosen, Access::Read, Access::Write] {
        assert_eq!(foreign.ask(ask(access, "SELECT 1", &[])).await, Err(Refusal::Away));
    }
    assert!(!path.exists());
}

#[tokio::test]
async fn a_server_shows_what_it_holds() {
    let Some(bench) = Bench::server() else { return };
    let sql = "SELECT NULL AS a, 1.5::float8 AS b, '\\x00ff'::bytea AS c, 9007199254740993 AS d, \
               123456789012345678901234567890.10::numeric AS e, 'NaN'::float8 AS f, \
               '2026-02-03'::date AS g, '2026-02-03 04:05:06.7'::timestamp AS h, \
               '{1,2,NULL}'::int[] AS i, '{\"k\": [1]}'::jsonb AS j, '1 day 2 hours'::interval AS k, \
               true AS l, 'ec3cbf6d-6d2b-4a3b-8a52-5ef0ab0b3b4f'::uuid AS m, row(1, 'x') AS n";
    let table = bench.chosen(sql).await.unwrap();
    let expected = json!({"a": null, "b": 1.5, "c": "\\x00ff", "d": 9_007_199_254_740_993_i64,
        "e": "123456789012345678901234567890.10", "f": "NaN", "g": "2026-02-03",
        "h": "2026-02-03T04:05:06.7", "i": [1, 2, null], "j": {"k": [1]}, "k": "1 day 02:00:00",
        "l": true, "m": "ec3cbf6d-6d2b-4a3b-8a52-5ef0ab0b3b4f", "n": {"f1": 1, "f2": "x"}});
    assert_eq!(table.rows, [expected]);
}

#[tokio::test]
async fn a_server_reads_values_as_what_it_needs() {
    let Some(bench) = Bench::server() else { return };
    let sql = "SELECT $1::date + 1 AS a, $2::numeric * 2 AS b, $3::int = ANY($4::int[]) AS c, \
               $5::text[] AS d, $6::bool AS e, $7::jsonb AS f";
    let values = [
        json!("2026-02-28"),
        json!(1.25),
        json!(2),
        json!([1, 2]),
        json!(["a\"b\\", null]),
        json!(true),
        json!({"k": 1}),
    ];
    let table = bench.run(Access::Read, sql, &values).await.unwrap();
    let expected = json!({"a": "2026-03-01", "b": "2.50", "c": true, "d": ["a\"b\\", null],
        "e": true, "f": {"k": 1}});
    assert_eq!(table.rows, [expected]);
    let wrong = bench.run(Access::Read, "SELECT $1::date AS a", &[json!("soon")]).await;
    assert!(said(wrong).contains("invalid input syntax"));
    // Whole to JSON Schema.
    let whole = [json!(2.0), json!([3.0, 4])];
    let table = bench.run(Access::Read, "SELECT $1::int4 AS a, $2::int8[] AS b", &whole).await;
    assert_eq!(table.unwrap().rows, [json!({"a": 2, "b": [3, 4]})]);
}

#[tokio::test]
async fn functions_with_effects_leave_none() {
    let Some(bench) = Bench::server() else { return };
    for sql in [
        "SELECT adds()",
        "SELECT nextval('numbers')",
        "SELECT setval('numbers', 5)",
        "SELECT set_config('transaction_read_only', 'off', true), adds()",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT id FROM things FOR UPDATE",
        "SELECT query_to_xml('DELETE FROM things', true, true, '')",
    ] {
        let outcome = bench.chosen(sql).await;
        assert!(matches!(outcome, Err(Refusal::Statement(_))), "{sql}: {outcome:?}");
    }
    assert_eq!(bench.count().await, 3);
    let set =
        "SELECT set_config('statement_timeout', '0', false), set_config('search_path', '', false)";
    bench.chosen(set).await.unwrap();
    for sql in
        ["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_lock(2), 1 / (id - 1) FROM things"]
    {
        let _ = bench.chosen(sql).await;
    }
    for _ in 0..=THREADS {
        bench.chosen("SELECT id FROM things").await.unwrap();
    }
    let locks = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 \
                 AND pid IN (SELECT pid FROM pg_stat_activity WHERE usename = current_user)";
    assert_eq!(bench.chosen(locks).await.unwrap().rows, [json!({"n": 0})]);
}

#[tokio::test]
async fn sleep_is_stopped_in_time() {
    let Some(bench) = Bench::server() else { return };
    let until = Instant::now() + Duration::from_millis(200);
    let sleep = Ask { until, ..ask(Access::Chosen, "SELECT pg_sleep(60)", &[]) };
    assert_eq!(bench.foreign.ask(sleep).await, Err(Refusal::Slow));
    assert!(until.elapsed() < Duration::from_secs(2));
    let left = "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE 'SELECT pg\\_sleep%' \
                AND state = 'active' AND usename = current_user";
    assert_eq!(bench.chosen(left).await.unwrap().rows, [json!({"n": 0})]);
}

#[tokio::test]
async fn a_row_that_is_too_long_is_not_sent() {
    let Some(bench) = Bench::server() else { return };
    let table = bench.chosen("SELECT repeat('x', 100000000) AS x").await.unwrap();
    assert_eq!((table.rows.len(), table.truncated), (0, true));
}

#[tokio::test]
async fn a_superuser_is_not_lent_to_models() {
    let Some(bench) = Bench::server() else { return };
    let told = said(bench.owner.ask(ask(Access::Chosen, "SELECT 1", &[])).await);
    assert!(told.contains("superuser"), "{told}");
    assert!(bench.owner.ask(ask(Access::Read, "SELECT 1 AS one", &[])).await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_away_or_refuses_us_is_told_apart_from_a_wrong_statement() {
    let open =
        |url: &str| Foreign::open(&StoreUrl::Postgres(crate::config::Secret::new(url))).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let away = open(&format!("postgres://ann:secret@127.0.0.1:{port}/x"));
    let refusal = away.ask(ask(Access::Chosen, "SELECT 1", &[])).await.unwrap_err();
    assert_eq!(refusal, Refusal::Away);
    assert!(!refusal.to_string().contains("secret"));
    let Some(server) = std::env::var_os("SWITCHPOINT_TEST_POSTGRES") else { return };
    let server = server.into_string().unwrap();
    let (_, place) = server.split_once('@').unwrap();
    let nobody = open(&format!("postgres://nobody_of_this_name@{place}"));
    let refusal = nobody.ask(ask(Access::Chosen, "SELECT 1", &[])).await.unwrap_err();
    assert_eq!(refusal, Refusal::Login);
}
