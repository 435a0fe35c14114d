//! What the ledger promises: each call once, whatever happens to the process and the disk.

use super::database::Backend;
use super::*;
use crate::canon::{Attempt, Leg, Money, Outcome, Usage, UsageSource};
use crate::config::Unit;

pub(super) fn row(id: &str, at: u64) -> CallRow {
    let attempt = |outcome, status| Attempt {
        provider: "groq".into(),
        model: "llama".into(),
        outcome,
        status,
        elapsed: Duration::from_millis(90),
        usage: None,
        cost: None,
        leg: Leg::default(),
    };
    CallRow {
        id: id.to_owned(),
        at: UNIX_EPOCH + Duration::from_millis(at),
        surface: "chat".into(),
        stream: true,
        key: Some("ann".into()),
        team: Some("search".into()),
        user: None,
        org: None,
        route: Some("fast".into()),
        agent: None,
        task: Some("code".into()),
        provider: Some("groq".into()),
        model: Some("llama".into()),
        outcome: Outcome::Ok,
        status: 200,
        usage: Usage { input: 10, output: 5, ..Usage::default() },
        usage_source: UsageSource::Provider,
        cost: Some(Money::from_nanos(7)),
        counted: 15,
        settled_at: UNIX_EPOCH,
        duration: Duration::from_millis(1480),
        first_token: Some(Duration::from_millis(210)),
        generation: 7,
        cache: "miss".into(),
        purpose: "client".into(),
        tags: [("a".into(), "b".into()), ("c".into(), "it's \"d\"".into())].into(),
        attempts: vec![attempt(Outcome::RateLimited, 429), attempt(Outcome::Ok, 200)],
    }
}

pub(super) async fn all(store: &Store) -> Vec<CallRow> {
    let mut export = store.export(Reach::All, Filter::default());
    let mut rows = Vec::new();
    while let Some(more) = export.next().await.unwrap() {
        rows.extend(more);
    }
    rows
}

pub(super) async fn spent(store: &Store) -> u64 {
    let spent = store.spent("key:ann", Unit::Tokens, (UNIX_EPOCH, None)).await.unwrap();
    spent.iter().map(|spent| spent.amount).sum()
}

/// Rows, budgets and sums say the same.
pub(super) async fn assert_agree(store: &Store, calls: usize) {
    assert_eq!(all(store).await.len(), calls);
    assert_eq!(spent(store).await, 15 * calls as u64);
    let sums = store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, sums[0].usage.total()), (calls as u64, 15 * calls as u64));
    assert_eq!(store.ledger_pending(), 0);
}

async fn a_call_is_read_as_it_was_written(bench: Bench) {
    let written = row("1", 5000);
    bench.store.append_open(written.clone());
    bench.store.append_settled(written.clone());
    bench.store.flush().await.unwrap();
    let expected = written;
    assert_eq!(bench.store.call(&Reach::All, "1").await.unwrap(), Some(expected.clone()));
    assert_eq!(all(&bench.store).await, [expected]);
    assert_eq!(bench.store.call(&Reach::All, "2").await.unwrap(), None);
    assert_agree(&bench.store, 1).await;
}

async fn a_call_noted_twice_counts_once(bench: Bench) {
    bench.store.append_settled(row("1", 5000));
    bench.store.append_settled(row("1", 5000));
    bench.store.flush().await.unwrap();
    bench.store.append_open(row("1", 5000));
    bench.store.append_settled(row("1", 6000));
    bench.store.flush().await.unwrap();
    assert_agree(&bench.store, 1).await;
    let bench = bench.reopened();
    assert!(all(&bench.store).await.len() <= 1);
}

async fn of_many_calls_each_new_one_is_taken_in_with_its_own_attempts(bench: Bench) {
    let numbered = |call: u64| CallRow {
        attempts: vec![Attempt {
            status: u16::try_from(call).unwrap(),
            ..row("", 0).attempts[1].clone()
        }],
        ..row(&call.to_string(), 5000 + call)
    };
    for calls in [0..10, 0..60, 55..100, 100..101] {
        for call in calls {
            bench.store.append_settled(numbered(call));
            if call % 7 == 0 {
                bench.store.append_settled(numbered(call));
            }
        }
        bench.store.flush().await.unwrap();
    }
    assert_agree(&bench.store, 101).await;
    let newest_first: Vec<_> = (0..101).rev().map(numbered).collect();
    assert_eq!(all(&bench.store).await, newest_first);
}

async fn who_asks_sees_only_what_is_theirs(bench: Bench) {
    bench.store.append_settled(row("1", 5000));
    let bobs = CallRow { key: Some("bob".into()), team: None, ..row("2", 6000) };
    bench.store.append_settled(bobs.clone());
    bench.store.flush().await.unwrap();
    let nothing = Filter::default();
    for (reach, id, other) in
        [(Reach::Key("bob".into()), "2", "1"), (Reach::Team("search".into()), "1", "2")]
    {
        let (rows, _) = bench.store.calls(&reach, &nothing, (None, 10)).await.unwrap();
        assert_eq!((rows.len(), rows[0].id.as_str()), (1, id));
        assert!(bench.store.call(&reach, id).await.unwrap().is_some());
        assert!(bench.store.call(&reach, other).await.unwrap().is_none());
        let sums = bench.store.usage(&reach, &[Column::Model], &nothing).await.unwrap();
        assert_eq!(sums[0].calls, 1);
        let asks =
            Filter { equal: vec![(Column::Key, "x' OR 1=1 --".to_owned())], ..nothing.clone() };
        assert_eq!(bench.store.calls(&reach, &asks, (None, 10)).await.unwrap().0, []);
    }
}

async fn usage_is_summed_by_anything_that_is_named(bench: Bench) {
    let day = 86_400_000;
    bench.store.append_settled(row("1", day));
    bench.store.append_settled(row("2", day * 2));
    let unknown = CallRow {
        cost: None,
        key: None,
        tags: [].into(),
        usage_source: UsageSource::Estimated,
        ..row("3", day * 2)
    };
    bench.store.append_settled(unknown.clone());
    bench.store.flush().await.unwrap();
    let usage = async |groups: &[Column], filter: &Filter| {
        let rows = bench.store.usage(&Reach::All, groups, filter).await.unwrap();
        let line = |row: UsageRow| {
            let group: Vec<_> = row.group.into_iter().map(Option::unwrap_or_default).collect();
            (group.join(" "), row.calls)
        };
        let mut lines: Vec<_> = rows.into_iter().map(line).collect();
        lines.sort();
        lines
    };
    let lines = |lines: &[(&str, u64)]| -> Vec<(String, u64)> {
        lines.iter().map(|(group, calls)| ((*group).to_owned(), *calls)).collect()
    };
    let everything = Filter::default();
    let by_day = lines(&[("1970-01-02 groq", 1), ("1970-01-03 groq", 2)]);
    assert_eq!(usage(&[Column::Day, Column::Provider], &everything).await, by_day);
    let by_key = lines(&[("", 1), ("ann", 2)]);
    assert_eq!(usage(&[Column::Key], &everything).await, by_key);
    let by_tag = lines(&[("", 1), ("a=b", 2), ("c=it's \"d\"", 2)]);
    assert_eq!(usage(&[Column::Tag], &everything).await, by_tag);
    for column in Column::ALL {
        assert!(!usage(&[column], &everything).await.is_empty());
        let none = Filter { equal: vec![(column, "?".to_owned())], ..Filter::default() };
        assert_eq!(usage(&[column, Column::Tag], &none).await, []);
        let calls = bench.store.calls(&Reach::All, &none, (None, 10)).await.unwrap();
        assert_eq!(calls, (vec![], None));
        assert_eq!(Column::parse(column.name()), Some(column));
    }
    let (from, tag) = (UNIX_EPOCH + Duration::from_millis(day * 2), "a=b".to_owned());
    let later = Filter { from: Some(from), to: None, equal: vec![(Column::Tag, tag)] };
    assert_eq!(usage(&[Column::Key], &later).await, lines(&[("ann", 1)]));
    let (calls, _) = bench.store.calls(&Reach::All, &later, (None, 10)).await.unwrap();
    assert_eq!(calls[0].id, "2");
    let sums = bench.store.usage(&Reach::All, &[], &everything).await.unwrap();
    assert_eq!((sums[0].estimated, sums[0].unpriced, sums[0].cost.nanos()), (1, 1, 14));
    let asked_nobody =
        CallRow { cost: None, key: Some("eve".into()), attempts: Vec::new(), ..row("4", day * 2) };
    bench.store.append_settled(asked_nobody);
    bench.store.flush().await.unwrap();
    let eve = Filter { equal: vec![(Column::Key, "eve".to_owned())], ..Filter::default() };
    let sums = bench.store.usage(&Reach::All, &[], &eve).await.unwrap();
    assert_eq!((sums[0].calls, sums[0].unpriced), (1, 0));
}

async fn old_calls_go_and_their_sums_stay(bench: Bench) {
    let day = 86_400_000;
    for id in 0..1200 {
        bench.store.append_settled(row(&format!("old{id}"), day));
    }
    bench.store.append_settled(row("new", day * 20));
    bench.store.flush().await.unwrap();
    bench.pass(i64::try_from(day).unwrap() * 25);
    assert_eq!(bench.store.retain(Some(10)).await.unwrap(), 1200);
    let rows = all(&bench.store).await;
    assert_eq!((rows.len(), rows[0].id.as_str(), rows[0].attempts.len()), (1, "new", 2));
    let sums = bench.store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, spent(&bench.store).await), (1201, 1201 * 15));
    bench.pass(i64::try_from(day).unwrap() * 600);
    bench.store.retain(Some(10)).await.unwrap();
    let sums = bench.store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, spent(&bench.store).await), (0, 1201 * 15), "no end, no age");
}

async fn attempts_that_had_rows_of_their_own_stand_in_those_of_their_calls(bench: Bench) {
    bench.store.append_settled(row("1", 5000));
    bench.store.flush().await.unwrap();
    let mut before = all(&bench.store).await;
    let back = |database: &mut Database| {
        let attempts = "DROP VIEW attempts;
            ALTER TABLE calls DROP COLUMN attempts;
            ALTER TABLE calls DROP COLUMN node;
            ALTER TABLE runs DROP COLUMN bytes;
            DROP TABLE turns;
            DROP INDEX calls_by_user;
            DROP INDEX calls_by_org;
            DELETE FROM migrations WHERE version >= 11;
            CREATE TABLE attempts (call INTEGER NOT NULL, number INTEGER NOT NULL,
                provider TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL,
                status INTEGER NOT NULL, ms INTEGER NOT NULL, input INTEGER, output INTEGER,
                cost INTEGER, PRIMARY KEY (call, number));
            INSERT INTO attempts SELECT position, 1, 'groq', 'llama', 'ok', 200, 90, 7, 3, 12
                FROM calls;
            INSERT INTO attempts SELECT position, 0, 'groq', 'it''s \"new\"', 'timeout', 504, 30,
                NULL, NULL, NULL FROM calls;";
        database.batch(attempts)?;
        migrate::take(database, 0)?;
        let rows = "SELECT number, status, ms, coalesce(input, 0), coalesce(output, 0),
            coalesce(cost, 0) FROM attempts WHERE call = (SELECT max(position) FROM calls)
            ORDER BY number";
        let numbers = |row: &Row<'_>| (0..6).map(|at| row.get::<i64>(at)).collect();
        let found: Vec<Vec<i64>> = database.query(rows, values![], numbers)?;
        assert_eq!(found, [[0, 504, 30, 0, 0, 0], [1, 200, 90, 7, 3, 12]]);
        Ok(())
    };
    bench.store.write.run(back).await.unwrap();
    let of = &before[0].attempts[0];
    let first = Attempt {
        model: "it's \"new\"".into(),
        outcome: Outcome::Timeout,
        status: 504,
        elapsed: Duration::from_millis(30),
        usage: None,
        cost: None,
        ..of.clone()
    };
    let second = Attempt {
        outcome: Outcome::Ok,
        status: 200,
        elapsed: Duration::from_millis(90),
        usage: Some(Usage { input: 7, output: 3, ..Usage::default() }),
        cost: Some(Money::from_nanos(12)),
        ..of.clone()
    };
    before[0].attempts = vec![first, second];
    assert_eq!(all(&bench.store).await, before);
}

async fn pages_of_many_calls_neither_skip_nor_repeat(bench: Bench) {
    // Made in the database itself, for this is about reading.
    bench.store.append_settled(row("first", 0));
    bench.store.flush().await.unwrap();
    let many = |database: &mut Database| {
        database.execute(
            r#"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             INSERT INTO calls SELECT i + 10, 'n' || i, i / 7, surface, stream, key, team, "user", org,
                route, agent, task, provider, model, outcome, status, input, cache_read,
                cache_write, cache_write_long, output, reasoning, audio_input, audio_output,
                usage_source, cost, counted, settled_at, duration_ms, first_token_ms, generation,
                cache, purpose, tags, attempts, node
             FROM calls, n WHERE id = 'first'"#,
            values![],
        )?;
        if database.backend() == Backend::Postgres {
            number(database, "SELECT setval('calls_position_seq', 200000)")?;
        }
        Ok(())
    };
    bench.store.write.run(many).await.unwrap();
    let (mut seen, mut after) = (std::collections::HashSet::new(), None);
    let (reach, filter) = (Reach::Key("ann".into()), Filter::default());
    let mut last = UNIX_EPOCH + Duration::from_hours(1);
    loop {
        let page = bench.store.calls(&reach, &filter, (after, 5000)).await.unwrap();
        assert!(page.0.len() <= 1000);
        for row in page.0 {
            assert!(row.at <= last);
            last = row.at;
            assert!(seen.insert(row.id));
        }
        if seen.len() == 50_000 {
            bench.store.append_settled(row("late", 90_000_000));
            bench.store.flush().await.unwrap();
        }
        let Some(next) = page.1 else { break };
        after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen.len(), 100_001);
    assert!("x".parse::<Cursor>().is_err());
}

macro_rules! ledger_suite {
    ($backend:ident, $url:expr) => {
        suite!(
            $backend,
            $url,
            [
                a_call_is_read_as_it_was_written,
                a_call_noted_twice_counts_once,
                of_many_calls_each_new_one_is_taken_in_with_its_own_attempts,
                who_asks_sees_only_what_is_theirs,
                usage_is_summed_by_anything_that_is_named,
                old_calls_go_and_their_sums_stay,
                attempts_that_had_rows_of_their_own_stand_in_those_of_their_calls,
                pages_of_many_calls_neither_skip_nor_repeat,
            ]
        );
    };
}

ledger_suite!(memory, Some(Bench::new(|_| StoreUrl::Memory)));
ledger_suite!(file, Some(Bench::new(in_file)));
ledger_suite!(on_server, on_postgres());

#[tokio::test]
async fn pages_of_sums_miss_no_line_and_repeat_none() {
    let store = Store::open(&config::Store::at(StoreUrl::Memory)).unwrap();
    let many = 10_050;
    for number in 0..many {
        let model = (number != 7).then(|| format!("model-{number}").into());
        store.append_settled(CallRow { model, ..row(&number.to_string(), 5) });
    }
    store.flush().await.unwrap();
    let groups = [Column::Team, Column::Model];
    let (mut seen, mut after) = (Vec::new(), None::<Vec<String>>);
    loop {
        let which = (&Filter::default(), after.as_deref());
        let (rows, next) = store.usage_page(&Reach::All, &groups, which).await.unwrap();
        seen.extend(rows.into_iter().map(|row| row.group[1].clone()));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), many);
    assert!(seen.is_sorted() && seen[0].is_none());
    let (rows, next) =
        store.usage_page(&Reach::All, &[], (&Filter::default(), None)).await.unwrap();
    assert_eq!((rows.len(), rows[0].calls, next), (1, many as u64, None));
}

#[tokio::test]
async fn what_anybody_has_just_spent_is_looked_for_by_their_name() {
    let bench = Bench::new(in_file);
    for holder in ["key", "user", "team", "org"] {
        let plan = format!(
            r#"EXPLAIN QUERY PLAN SELECT sum(counted) FROM calls
                WHERE "{holder}" = 'ann' AND at >= 1 AND settled_at >= 2"#
        );
        let explain = move |database: &mut Database| {
            database.first(&plan, values![], |row| row.get::<String>(3))
        };
        let plan = bench.store.read.run(explain).await.unwrap().unwrap();
        assert!(plan.contains(&format!("INDEX calls_by_{holder} ")), "{plan}");
    }
}
