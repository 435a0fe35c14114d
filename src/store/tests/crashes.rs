//! What the journal's files promise: a call that was noted is taken in once, however a process ends
//! and whatever the disk does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::ledger::{all, assert_agree, row, spent};
use super::*;
use crate::canon::{Outcome, UsageSource};

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
    journal.settle_in(&copied, lock, journal::Position::default(), 2048);
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
    journal.settle_in(place.path(), lock, journal::Position::default(), 1 << 20);
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
    journal.settle_in(place.path(), lock, journal::Position::default(), 2048);
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
    assert!(bench.store.ledger_unwritten() > 0, "the end of the process would lose them");
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
const CHILD: &str = "store::tests::crashes::appends_until_it_is_killed";

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
