//! What the ledger promises: each call once, whatever happens to the process and the disk.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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

async fn spent(store: &Store) -> u64 {
    let spent = store.spent("key:ann", Unit::Tokens, (UNIX_EPOCH, None)).await.unwrap();
    spent.into_iter().map(|(_, amount)| amount).sum()
}

/// Rows, budgets and sums say the same.
async fn assert_agree(store: &Store, calls: usize) {
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
    let attempts = |database: &mut Database| number(database, "SELECT count(*) FROM attempts");
    assert_eq!(bench.store.write.run(attempts).await.unwrap(), 2);
    let sums = bench.store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, spent(&bench.store).await), (1201, 1201 * 15));
    bench.pass(i64::try_from(day).unwrap() * 600);
    bench.store.retain(Some(10)).await.unwrap();
    let sums = bench.store.usage(&Reach::All, &[], &Filter::default()).await.unwrap();
    assert_eq!((sums[0].calls, spent(&bench.store).await), (0, 1201 * 15), "no end, no age");
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
                cache, purpose, tags
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
                who_asks_sees_only_what_is_theirs,
                usage_is_summed_by_anything_that_is_named,
                old_calls_go_and_their_sums_stay,
                pages_of_many_calls_neither_skip_nor_repeat,
            ]
        );
    };
}

ledger_suite!(memory, Some(Bench::new(|_| StoreUrl::Memory)));
ledger_suite!(file, Some(Bench::new(in_file)));
ledger_suite!(on_server, on_postgres());

// === What only a file can do ===

fn folder(bench: &Bench) -> std::path::PathBuf {
    bench.folder.path().join("state.db.journal")
}

fn segments(bench: &Bench) -> Vec<u64> {
    journal::segments(&folder(bench)).unwrap()
}

#[tokio::test]
async fn restart_upon_restart_each_call_is_there_once() {
    let mut bench = Bench::new(in_file);
    for round in 0..6 {
        for call in 0..40 {
            let row = row(&format!("{round}-{call}"), 5000);
            bench.store.append_open(row.clone());
            bench.store.append_settled(row.clone());
        }
        if round % 2 == 0 {
            bench.store.flush().await.unwrap();
        }
        bench.store.append_settled(row(&format!("{round}-40"), 5000));
        bench = bench.reopened();
        assert_agree(&bench.store, 41 * (round + 1)).await;
    }
    let left = segments(&bench);
    assert!(left.len() <= 2, "imported segments are deleted: {left:?}");
}

#[tokio::test]
async fn what_a_crash_leaves_is_taken_in_once_torn_or_whole() {
    let bench = Bench::new(in_file);
    // A journal beside a database that has taken nothing in.
    let place = tempfile::tempdir().unwrap();
    let copied = place.path().join("state.db.journal");
    std::fs::create_dir(&copied).unwrap();
    let journal = Journal::new();
    let lock = journal::claim(&copied).unwrap().unwrap();
    journal.settle_in(&copied, lock, (journal::Position::default(), 2048));
    for call in 0..20 {
        let row = row(&format!("{call}"), 5000);
        journal.append(journal::Record::Open(Box::new(row.clone())));
        if call < 17 {
            journal.append(journal::Record::Settled(Box::new(row)));
        }
    }
    let last = journal::segments(&copied).unwrap().into_iter().last().unwrap();
    assert!(last > 3, "several segments");
    drop(journal);
    let path = journal::path(&copied, last);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"1234abcd {\"settled\":{\"id\":");
    std::fs::write(&path, bytes).unwrap();
    for _ in 0..3 {
        let store = open_file(&place.path().join("state.db"), &bench.clock).unwrap();
        assert_agree(&store, 20).await;
        let rows = all(&store).await;
        let cut_off: Vec<_> = rows.iter().filter(|row| row.outcome == Outcome::Internal).collect();
        assert_eq!(cut_off.len(), 3, "those that were open");
        assert!(cut_off.iter().all(|row| row.usage_source == UsageSource::Estimated));
    }
}

#[test]
fn a_line_of_an_earlier_version_is_read_as_it_was_meant() {
    let written = r#"{"id":"5","at":5000000000,"surface":"chat","stream":true,"key":"ann","team":"search","route":"fast","task":"code","provider":"groq","model":"llama","outcome":"ok","status":200,"usage":[10,0,0,0,5,0,0,0],"usage_source":"provider","cost":7,"counted":15,"settled_at":0,"duration":1480000000,"first_token":210000000,"generation":7,"cache":"miss","purpose":"client","tags":{"a":"b","c":"it's \"d\""},"attempts":[["groq","llama","rate_limited",429,90000000,null,null],["groq","llama","ok",200,90000000,null,null]]}"#;
    let read: CallRow = serde_json::from_str(written).unwrap();
    assert_eq!(read, row("5", 5000));
    let anew = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<CallRow>(&anew).unwrap(), read);
    assert!(anew.len() * 3 < written.len() * 2, "{anew}");
}

#[test]
fn of_a_call_that_begins_and_ends_only_its_end_is_read() {
    let place = tempfile::tempdir().unwrap();
    let journal = journal::Journal::new();
    let lock = journal::claim(place.path()).unwrap().unwrap();
    journal.settle_in(place.path(), lock, (journal::Position::default(), 1 << 20));
    let (whole, cut) = (row("whole", 5000), row("cut", 5000));
    for row in [&whole, &cut] {
        journal.append(journal::Record::Open(Box::new(row.clone())));
    }
    journal.append(journal::Record::Settled(Box::new(whole)));
    let (folder, end) = journal.end().unwrap();
    let from = journal::Position { offset: 0, ..end };
    let piece = journal::read(&folder, from, end).unwrap();
    assert_eq!((piece.lines.whole, piece.lines.damaged), (3, 0));
    let ids = piece.records.iter().map(|record| match record {
        journal::Record::Open(row) => ("open", row.id.as_str()),
        journal::Record::Settled(row) => ("settled", row.id.as_str()),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [("open", "cut"), ("settled", "whole")]);
}

#[test]
fn records_at_hand_are_those_of_the_file_from_where_it_was_read_to() {
    let place = tempfile::tempdir().unwrap();
    let journal = journal::Journal::new();
    let lock = journal::claim(place.path()).unwrap().unwrap();
    // Some records to a segment.
    journal.settle_in(place.path(), lock, (journal::Position::default(), 2048));
    let add = |calls: std::ops::Range<u64>| {
        for call in calls {
            journal.append(journal::Record::Settled(Box::new(row(&call.to_string(), 5000))));
        }
    };
    let id = |record: &journal::Record| match record {
        journal::Record::Open(row) | journal::Record::Settled(row) => row.id.clone(),
    };
    add(0..20);
    let (mut at, mut found, mut from_memory) = (journal::Position::default(), Vec::new(), 0);
    while found.len() < 60 {
        let (folder, end) = journal.end().unwrap();
        let records = if let Some((records, next)) = journal.take_fresh(at, 7) {
            (at, from_memory) = (next, from_memory + records.len());
            records
        } else {
            let piece = journal::read(&folder, at, end).unwrap();
            at = piece.next;
            piece.records
        };
        found.extend(records.iter().map(id));
        if found.len() == 20 && at == end {
            add(20..60);
            // As it goes after a failure: what was taken is read from the file.
            journal.take_fresh(at, 30);
        }
    }
    assert_eq!(found, (0..60).map(|call| call.to_string()).collect::<Vec<_>>());
    assert!((20..60).contains(&from_memory), "{from_memory} were not read from files");
}

#[tokio::test]
async fn a_transaction_that_fails_is_taken_in_later_and_once() {
    let bench = Bench::new(in_file);
    let path = bench.folder.path().join("state.db");
    let trap = "CREATE TRIGGER trap AFTER INSERT ON usage BEGIN SELECT raise(ABORT, 'full'); END";
    Connection::open(&path).unwrap().execute_batch(trap).unwrap();
    for call in 0..30 {
        bench.store.append_settled(row(&format!("{call}"), 5000));
    }
    assert!(bench.store.flush().await.is_err());
    assert_eq!((all(&bench.store).await.len(), spent(&bench.store).await), (0, 0));
    assert_eq!(bench.store.ledger_pending(), 30);
    // The process ends between the two, and what it had taken in and not deleted comes back.
    let saved = tempfile::tempdir().unwrap();
    for segment in segments(&bench) {
        let path = journal::path(&folder(&bench), segment);
        std::fs::copy(&path, journal::path(saved.path(), segment)).unwrap();
    }
    Connection::open(&path).unwrap().execute_batch("DROP TRIGGER trap").unwrap();
    let bench = bench.reopened();
    assert_agree(&bench.store, 30).await;
    for segment in journal::segments(saved.path()).unwrap() {
        let path = journal::path(saved.path(), segment);
        std::fs::copy(&path, journal::path(&folder(&bench), segment)).unwrap();
    }
    assert_agree(&bench.reopened().store, 30).await;
}

#[tokio::test]
async fn a_full_disk_fails_no_call_and_is_made_good() {
    let bench = Bench::new(in_file);
    bench.store.append_settled(row("0", 5000));
    bench.store.flush().await.unwrap();
    let last = segments(&bench).into_iter().last().unwrap();
    // The next segments are on a device that is always full.
    for segment in last + 1..last + 30 {
        let path = journal::path(&folder(&bench), segment);
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
    }
    for call in 1..20 {
        bench.store.append_settled(row(&format!("{call}"), 5000));
    }
    assert!(!bench.store.is_ledger_healthy());
    assert!(bench.store.ledger_pending() > 0);
    for _ in 0..40 {
        let _ = bench.store.flush().await;
    }
    assert!(bench.store.is_ledger_healthy());
    assert_eq!(bench.store.ledger_lost(), 0);
    assert_agree(&bench.store, 20).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_fails_no_call() {
    let bench = Bench::new(in_file);
    let (folder, aside) = (folder(&bench), bench.folder.path().join("aside"));
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    bench.store.append_open(row("1", 5000));
    bench.store.append_settled(row("1", 5000));
    assert!(!bench.store.is_ledger_healthy());
    assert_eq!(bench.store.ledger_pending(), 2);
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    bench.store.flush().await.unwrap();
    assert!(bench.store.is_ledger_healthy());
    assert_agree(&bench.store, 1).await;
}

#[tokio::test]
async fn a_second_process_loses_no_call_and_takes_over() {
    let Bench { store, clock, url, folder } = Bench::new(in_file);
    let second = open(&settings(&url, folder.path()), &clock).unwrap();
    store.append_open(row("1", 5000));
    second.append_open(row("2", 5000));
    second.append_settled(row("2", 5000));
    second.flush().await.unwrap();
    assert_agree(&second, 1).await;
    drop(store);
    second.flush().await.unwrap();
    assert_agree(&second, 2).await;
    second.append_settled(row("3", 5000));
    assert!(journal::segments(&folder.path().join("state.db.journal")).unwrap().len() > 1);
    second.flush().await.unwrap();
    assert_agree(&second, 3).await;
}

#[tokio::test]
async fn a_row_is_small_and_the_journal_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new(in_file);
    let tags = (0..500).map(|tag| (format!("tag{tag}").into(), "x".repeat(20).into())).collect();
    bench.store.append_settled(CallRow { tags, ..row("1", 5000) });
    bench.store.flush().await.unwrap();
    let rows = all(&bench.store).await;
    assert!(rows[0].tags().len() <= 256 && !rows[0].tags.is_empty());
    for path in [folder(&bench), journal::path(&folder(&bench), segments(&bench)[0])] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }
}

/// The name of the test below, as the test runner knows it.
const CHILD: &str = "store::tests::ledger::appends_until_it_is_killed";

/// Not a promise: the process that the next test kills. It works where it is started.
#[test]
#[ignore = "started by another test"]
fn appends_until_it_is_killed() {
    if !Path::new("child").exists() {
        return;
    }
    let store = Store::open(&config::Store::at(StoreUrl::Sqlite("state.db".into()))).unwrap();
    for call in 0..200_000 {
        let row = row(&format!("{}-{call}", std::process::id()), 5000);
        store.append_open(row.clone());
        println!("\nopened {}", row.id);
        if call % 10 != 0 {
            store.append_settled(row.clone());
            println!("\nsettled {}", row.id);
        }
    }
}

#[tokio::test]
async fn a_kill_loses_no_settled_call_and_leaves_none_open() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("child"), "").unwrap();
    let mut settled = std::collections::HashSet::new();
    let mut opened = std::collections::HashSet::new();
    for round in 1..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            settled.extend(line.strip_prefix("settled ").map(str::to_owned));
            opened.extend(line.strip_prefix("opened ").map(str::to_owned));
            settled.len()
        };
        while note(&lines.next().unwrap().unwrap()) < round * 700 {}
        child.kill().unwrap();
        let last: Vec<_> = lines.map_while(Result::ok).collect();
        child.wait().unwrap();
        // The last line may be cut.
        for line in &last[..last.len().saturating_sub(1)] {
            note(line);
        }
    }
    for _ in 0..2 {
        let store = Store::open(&config::Store::at(in_file(folder.path()))).unwrap();
        let rows = all(&store).await;
        let ok = |row: &&CallRow| row.outcome == Outcome::Ok;
        let done: std::collections::HashSet<_> =
            rows.iter().filter(ok).map(|row| row.id.clone()).collect();
        let there: std::collections::HashSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        assert!(settled.is_subset(&done));
        assert!(opened.is_subset(&there));
        assert!(done.len() < there.len() && there.len() <= opened.len() + 3);
        assert_agree(&store, there.len()).await;
    }
}

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
