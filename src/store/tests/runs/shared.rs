//! What holds of runs where several processes share a database, and where the power may fail.

use std::collections::BTreeSet;

use futures_util::future;

use super::*;
use crate::store::tests::remote::Replica;

async fn claim_all(store: &Store) -> Vec<RunId> {
    let mut claimed = Vec::new();
    loop {
        let rows = store.claim_runs(3, LEASE).await.unwrap();
        assert!(rows.len() <= 3);
        if rows.is_empty() {
            return claimed;
        }
        claimed.extend(rows.into_iter().map(|row| row.id));
    }
}

async fn tell(store: &Store, run: RunId, times: usize) {
    let tell = |_| store.signal_run(run, "input", "{}".to_owned(), None);
    let told = future::join_all((0..times).map(tell)).await;
    assert!(told.into_iter().all(Result::unwrap));
}

/// Reads what a run is told as it comes, until it is so much.
async fn hear(store: &Store, run: RunId, times: usize) {
    let (mut heard, mut last) = (0, 0);
    while heard < times {
        let signals = store.run_signals(run, last).await.unwrap();
        heard += signals.len();
        last = signals.last().map_or(last, |signal| signal.number);
    }
}

async fn fill(store: Store, run: RunId, durable: bool) {
    for after in 1..=200 {
        let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(400));
        let events = vec![NewEvent { kind: "tool.completed", data }];
        let append = Append { events, durable, ..append(run, 1, after) };
        assert_eq!(store.append_run(append).await.unwrap(), Appended::Done);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_claimed_by_two_processes() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    for _ in 0..60 {
        bench.begin(new_run("ann", RunState::Queued)).await;
    }
    let (mut all, others) = future::join(claim_all(&bench.store), claim_all(&other.store)).await;
    all.extend(others);
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (60, 60));
    let (one, two) = (bench.running("ann").await, bench.running("ann").await);
    bench.lapse(1000).await;
    for run in [one, two] {
        let claims = [&bench.store, &other.store].map(|store| store.claim_run(run, LEASE));
        let claims = future::join_all(claims).await;
        let claims: Vec<_> = claims.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!((claims.len(), claims[0].epoch), (1, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_clock_is_fast_takes_no_run_from_another() {
    let Some(bench) = on_postgres() else { return };
    let run = bench.running("ann").await;
    for epoch in [1, 2] {
        bench.pass(60_000);
        assert_eq!(claim_all(&bench.store).await, []);
        assert_eq!(bench.store.claim_run(run, LEASE).await.unwrap(), None);
        let renewed = bench.store.renew_runs(vec![(run, epoch)], 60_000).await.unwrap();
        assert_eq!(renewed.lost, []);
        bench.pass(60_000);
        assert_eq!(claim_all(&bench.store).await, []);
        bench.lapse(60_000).await;
        assert_eq!(bench.claimed().await, [run], "nobody has held on to it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_for_longer_than_its_lease_changes_nothing() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    let run = bench.running("ann").await;
    bench.lapse(1000).await;
    assert_eq!(other.store.claim_runs(9, LEASE).await.unwrap()[0].epoch, 2);
    let renewed = bench.store.renew_runs(vec![(run, 1)], LEASE).await.unwrap();
    assert_eq!(renewed.lost, [run]);
    let late = Append { state: RunState::Completed, ..append(run, 1, 1) };
    assert_eq!(bench.store.append_run(late).await.unwrap(), Appended::LeaseLost);
    assert_eq!(other.store.append_run(append(run, 2, 1)).await.unwrap(), Appended::Done);
    assert_eq!(bench.kinds(run).await, ["run.created", "tool.started"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_signal_becomes_visible_behind_a_later_one() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    let run = bench.running("ann").await;
    let hear = tokio::time::timeout(Duration::from_secs(30), hear(&bench.store, run, 300));
    let told = (tell(&bench.store, run, 150), tell(&other.store, run, 150));
    let (heard, ..) = future::join3(hear, told.0, told.1).await;
    assert!(heard.is_ok(), "one was passed over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_ask_for_the_same_begin_it_once() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    for round in 0..20 {
        let asked = || {
            let idempotency = Some((format!("once-{round}"), "a".to_owned()));
            NewRun { idempotency, ..new_run("ann", RunState::Queued) }
        };
        let both = (bench.store.begin_run(asked()), other.store.begin_run(asked()));
        let both = future::join(both.0, both.1).await;
        let both = (both.0.unwrap(), both.1.unwrap());
        let is_one = matches!(
            both,
            (Begun::New { .. }, Begun::Known(_)) | (Begun::Known(_), Begun::New { .. })
        );
        assert!(is_one, "{both:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_turns_that_begin_at_once_one_is_behind_the_other() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    let mut head = None;
    for _ in 0..20 {
        let turn = || {
            let session = Some("s".to_owned());
            NewRun { session, head, ..new_run("ann", RunState::Queued) }
        };
        let (first, second) = (turn(), turn());
        let ids = (first.id, second.id);
        let both = (bench.store.begin_run(first), other.store.begin_run(second));
        let both = future::join(both.0, both.1).await;
        head = match (both.0.unwrap(), both.1.unwrap()) {
            (Begun::New { .. }, Begun::Overtaken) => Some(ids.0),
            (Begun::Overtaken, Begun::New { .. }) => Some(ids.1),
            both => panic!("{both:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_hears_at_once_that_another_has_told_a_run_something() {
    let Some(bench) = on_postgres() else { return };
    let other = Replica::of(&bench);
    let run = bench.running("ann").await;
    let rung = tokio::sync::watch::Sender::new(0_u32);
    let mut heard = rung.subscribe();
    let listen = other.store.listen(|| rung.send_modify(|times| *times += 1));
    let told = async {
        // Whoever does not listen yet has not missed anything: it looks first.
        while *heard.borrow_and_update() == 0 {
            tell(&bench.store, run, 1).await;
            let _ = tokio::time::timeout(Duration::from_millis(50), heard.changed()).await;
        }
        heard.mark_unchanged();
        bench.begin(new_run("ann", RunState::Queued)).await;
        heard.changed().await.unwrap();
    };
    let told = tokio::time::timeout(Duration::from_secs(30), told);
    tokio::select! {
        () = listen => panic!("it stopped listening"),
        told = told => told.unwrap(),
    }
}

#[tokio::test]
async fn what_must_last_waits_for_the_disk_and_nothing_else_does() {
    let bench = Bench::new(in_file);
    let mode = |database: &mut Database| number(database, "PRAGMA synchronous");
    let (normal, full) = (1, 2);
    assert_eq!(bench.store.write.run(mode).await.unwrap(), normal);
    assert_eq!(bench.store.write.run_durable(mode).await.unwrap(), full);
    assert_eq!(bench.store.write.run(mode).await.unwrap(), normal);
    let broken = |database: &mut Database| database.execute("no SQL", values![]);
    assert!(bench.store.write.run_durable(broken).await.is_err());
    assert_eq!(bench.store.write.run(mode).await.unwrap(), normal);
}

#[tokio::test]
async fn a_long_run_takes_no_more_room_than_its_entries() {
    let bench = Bench::new(in_file);
    let pages = |database: &mut Database| number(database, "PRAGMA page_count");
    let run = bench.running("ann").await;
    let before = bench.store.write.run(pages).await.unwrap();
    for turn in 0..100 {
        let said = format!(r#"{{"call":{turn},"text":"{}"}}"#, "x".repeat(1000));
        let said = NewEvent { kind: "model.completed", data: said };
        bench
            .done(Append {
                events: vec![event("model.requested"), said],
                ..append(run, 1, 1 + 2 * turn)
            })
            .await;
    }
    let pages = bench.store.write.run(pages).await.unwrap() - before;
    assert!(pages * 4096 < 2 * 100 * 1024, "{pages} pages");
}

/// Prints how many events a second are kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_a_second() {
    let stores = [Some(Bench::new(in_file)), on_postgres()];
    let cases = stores.iter().flatten().flat_map(|bench| [(bench, false), (bench, true)]);
    for (bench, durable) in cases {
        let runs = future::join_all((0..64).map(|_| bench.running("ann"))).await;
        let begun = std::time::SystemTime::now();
        let fill = |run| fill(bench.store.clone(), run, durable);
        future::join_all(runs.into_iter().map(fill)).await;
        let pace = 64.0 * 200.0 / begun.elapsed().unwrap().as_secs_f64();
        println!("{:?}, durable {durable}: {pace:.0} events/s", bench.url);
    }
}
