//! What is made at run time, and the trail of who made it.

use super::*;

fn entry(id: &str, version: i64) -> EntryRow {
    EntryRow {
        kind: "key".to_owned(),
        id: id.to_owned(),
        settings: r#"{"team":"search"}"#.to_owned(),
        created_at: time(1000),
        changed_at: time(1000),
        ended_at: None,
        version,
        secrets: vec![SecretRow { digest: format!("of {id}"), valid_until: None }],
    }
}

fn put(row: EntryRow) -> Change {
    let audit = Audit {
        at: row.changed_at,
        who: "ann".to_owned(),
        what: "key.create".to_owned(),
        subject: format!("key:{}", row.id),
        before: None,
        after: Some(row.settings.clone()),
    };
    Change { audit, act: Act::Put(row), once: None }
}

async fn done(bench: &Bench, change: Change, known: i64) -> News {
    match bench.store.change(change, known).await.unwrap() {
        Outcome::Done(news) => news,
        other => panic!("{other:?}"),
    }
}

async fn a_change_is_news_to_everybody_who_has_not_seen_it(bench: Bench) {
    let news = done(&bench, put(entry("key_1", 0)), 0).await;
    assert_eq!((news.version, news.entries), (1, vec![entry("key_1", 1)]));
    let news = done(&bench, put(entry("key_2", 0)), 1).await;
    assert_eq!((news.version, news.entries), (2, vec![entry("key_2", 2)]));
    // One that is changed is new again, and comes last.
    let second = SecretRow { digest: "b".to_owned(), valid_until: Some(time(9000)) };
    let mut changed = entry("key_1", 1);
    changed.secrets.insert(0, second);
    done(&bench, put(changed.clone()), 2).await;
    let news = bench.store.news(0).await.unwrap();
    changed.version = 3;
    assert_eq!(news.entries, [entry("key_2", 2), changed]);
    assert_eq!(bench.store.news(3).await.unwrap(), News { version: 3, ..News::default() });
}

async fn a_change_of_what_is_not_so_any_more_changes_nothing(bench: Bench) {
    done(&bench, put(entry("key_1", 0)), 0).await;
    for version in [0, 2] {
        let outcome = bench.store.change(put(entry("key_1", version)), 0).await.unwrap();
        assert_eq!(outcome, Outcome::Stale);
    }
    assert_eq!(bench.store.news(0).await.unwrap().version, 1);
    // What is gone takes no place, but a revoked key does.
    let gone = |kind: &str, version| {
        let ended_at = Some(time(2000));
        EntryRow { kind: kind.to_owned(), ended_at, secrets: Vec::new(), ..entry("x", version) }
    };
    done(&bench, put(gone("team", 0)), 1).await;
    done(&bench, put(gone("team", 0)), 2).await;
    done(&bench, put(gone("key", 0)), 3).await;
    assert_eq!(bench.store.change(put(gone("key", 0)), 0).await.unwrap(), Outcome::Stale);
}

async fn what_is_asked_for_once_is_made_once_a_day(bench: Bench) {
    let once = |id: &str, request: &str| {
        let once = Once { token: "t".to_owned(), request: request.to_owned() };
        Change { once: Some(once), ..put(entry(id, 0)) }
    };
    done(&bench, once("key_1", "a"), 0).await;
    let again = bench.store.change(once("key_2", "a"), 0).await.unwrap();
    assert_eq!(again, Outcome::Replayed("key_1".to_owned()));
    let other = bench.store.change(once("key_2", "b"), 0).await.unwrap();
    assert_eq!(other, Outcome::Clash);
    let mut tomorrow = once("key_2", "b");
    tomorrow.audit.at = time(1001 + 24 * 3_600_000);
    done(&bench, tomorrow, 1).await;
}

async fn no_change_can_be_altered_or_taken_out_unseen(bench: Bench) {
    for number in 0..1100 {
        let row = entry(&format!("key_{number}"), 0);
        done(&bench, put(row), number).await;
    }
    let check = bench.store.verify_audit().await.unwrap();
    assert_eq!(check, AuditCheck { rows: 1100, broken_at: None });
    let breaks = async |statement: String, rows, place| {
        let run = move |database: &mut Database| database.execute(&statement, &[]);
        bench.store.write.run(run).await.unwrap();
        let check = bench.store.verify_audit().await.unwrap();
        assert_eq!(check, AuditCheck { rows, broken_at: Some(Position(place)) });
    };
    let altered = [
        "who = 'anm'",
        "what = 'key.creatf'",
        "subject = replace(subject, 'key_', 'kez_')",
        "before = ''",
        "after = replace(after, 'search', 'seerch')",
        "at = at + 1",
        // What one has lost, the next one has.
        "who = 'annk', what = 'ey.create'",
    ];
    for (number, change) in (0u32..).zip(altered) {
        let (rows, place) = (u64::from(1049 - number), i64::from(1050 - number));
        let alter = format!("UPDATE audit SET {change} WHERE position = {place}");
        breaks(alter, rows, place).await;
    }
    breaks("DELETE FROM audit WHERE position = 500".to_owned(), 499, 501).await;
}

async fn changes_are_found_by_whom_what_and_when(bench: Bench) {
    for (who, what, at) in [("ann", "key.create", 1000), ("bob", "key.revoke", 2000)] {
        let (before, after) = (None, Some("{}".to_owned()));
        let (who, what) = (who.to_owned(), what.to_owned());
        let change = Audit { at: time(at), who, what, subject: "key:x".to_owned(), before, after };
        bench.store.audit(change).await.unwrap();
    }
    let text = |text: &str| Some(text.to_owned());
    for filter in [
        AuditFilter { who: text("bob"), ..AuditFilter::default() },
        AuditFilter { what: text("key.revoke"), ..AuditFilter::default() },
        AuditFilter { from: Some(time(1001)), subject: text("key:x"), ..AuditFilter::default() },
    ] {
        let found = bench.store.audits(&filter, None, 10).await.unwrap();
        assert_eq!((found.len(), found[0].1.who.as_str()), (1, "bob"), "{filter:?}");
    }
    let all = AuditFilter::default();
    let found = bench.store.audits(&all, None, 1).await.unwrap();
    let found = bench.store.audits(&all, Some(found[0].0), 9).await.unwrap();
    assert_eq!((found.len(), found[0].1.who.as_str()), (1, "ann"));
    let until = AuditFilter { to: Some(time(1000)), ..AuditFilter::default() };
    assert_eq!(bench.store.audits(&until, None, 9).await.unwrap(), []);
}

macro_rules! directory_suite {
    ($backend:ident, $url:expr) => {
        suite!(
            $backend,
            $url,
            [
                a_change_is_news_to_everybody_who_has_not_seen_it,
                a_change_of_what_is_not_so_any_more_changes_nothing,
                what_is_asked_for_once_is_made_once_a_day,
                no_change_can_be_altered_or_taken_out_unseen,
                changes_are_found_by_whom_what_and_when,
            ]
        );
    };
}

directory_suite!(memory, Some(Bench::new(|_| StoreUrl::Memory)));
directory_suite!(file, Some(Bench::new(in_file)));
directory_suite!(remote, on_postgres());
