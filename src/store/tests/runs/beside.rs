//! What is kept beside the journals of runs: approvals, letters, long results.

use super::*;
use crate::store::runs::{ApprovalFilter, Decided, Decision, NewApproval, NewLetter};

fn question(id: &str, expires_at: u64) -> NewApproval {
    NewApproval {
        id: id.to_owned(),
        call: "call_1".to_owned(),
        tool: "refund".to_owned(),
        args: r#"{"order":7}"#.to_owned(),
        hash: "a".repeat(64),
        roles: vec!["support".to_owned(), "lead".to_owned()],
        reason: "it costs money".to_owned(),
        expires_at,
    }
}

fn letter(id: &str) -> NewLetter {
    NewLetter {
        id: id.to_owned(),
        kind: "tool".to_owned(),
        payload: r#"{"order":7}"#.to_owned(),
        error: "no answer".to_owned(),
        attempts: 3,
    }
}

fn decision(approved: bool) -> Decision {
    Decision {
        approved,
        by: "key:boss".to_owned(),
        comment: Some("fine".to_owned()),
        edited: None,
        signal: format!(r#"{{"approved":{approved}}}"#),
    }
}

/// All that goes with an append.
fn laden(run: RunId, number: u64) -> Append {
    Append {
        approvals: vec![question(&format!("apr_{number}"), 5000)],
        letters: vec![letter(&format!("dlq_{number}"))],
        blobs: vec![("b".repeat(64), b"long".to_vec())],
        totals: Totals { steps: 9, ..Totals::default() },
        state: RunState::WaitingApproval,
        wake_at: Some(5000),
        ..append(run, 1, 1)
    }
}

impl Bench {
    async fn ids_of_approvals(&self, owner: Option<&str>, state: Option<&str>) -> Vec<String> {
        let (seen_by, state) = (owner.map(|it| (Owner::new(it), None)), state.map(str::to_owned));
        self.listed(ApprovalFilter { seen_by, state, ..Default::default() }).await
    }

    async fn listed(&self, filter: ApprovalFilter) -> Vec<String> {
        let rows = self.store.approvals(filter, 100).await.unwrap();
        rows.into_iter().map(|row| row.id).collect()
    }

    async fn state_of(&self, approval: &str) -> String {
        self.store.approval(approval).await.unwrap().unwrap().state
    }

    async fn count(&self, table: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {table}");
        self.store.write.run(move |database| number(database, &query)).await.unwrap()
    }
}

pub(super) async fn an_append_is_all_or_nothing(bench: Bench) {
    let (run, other) = (bench.running("ann").await, bench.running("ann").await);
    bench.done(laden(run, 1)).await;
    let row = bench.row(run).await;
    assert_eq!((row.state, row.last_seq), (RunState::WaitingApproval, 2));
    assert_eq!(row.totals.steps, 9);
    let blob = bench.store.run_blob(&owner("ann"), &"b".repeat(64)).await.unwrap();
    assert_eq!(blob.as_deref(), Some(&b"long"[..]));
    assert_eq!(bench.store.run_blob(&owner("bob"), &"b".repeat(64)).await.unwrap(), None);
    assert_eq!(bench.store.run_blob(&owner("ann"), "c").await.unwrap(), None);
    // Its letter is there already, so nothing of it may be.
    let blobs = vec![("c".repeat(64), b"more".to_vec())];
    let letters = vec![letter("dlq_2"), letter("dlq_1")];
    let broken = Append { letters, blobs, ..laden(other, 2) };
    let (broken, fine) = futures_util::future::join(
        bench.store.append_run(broken),
        bench.store.put_definition("beside", "it".to_owned()),
    )
    .await;
    assert!(broken.is_err() && fine.is_ok());
    let row = bench.row(other).await;
    assert_eq!((row.state, row.last_seq, row.totals.steps), (RunState::Running, 1, 0));
    assert_eq!(bench.kinds(other).await.len(), 1);
    assert_eq!(bench.ids_of_approvals(None, None).await, ["apr_1"]);
    assert_eq!(bench.store.letters(LetterFilter::default(), 9).await.unwrap().len(), 1);
    assert_eq!(bench.store.run_blob(&owner("ann"), &"c".repeat(64)).await.unwrap(), None);
    bench.lapse(3999).await;
    bench.store.claim_run(other, LEASE).await.unwrap();
    assert_eq!(bench.claimed().await, []);
    bench.lapse(1).await;
    assert_eq!(bench.claimed().await, [run], "its time has come");
}

pub(super) async fn an_approval_is_decided_once_and_the_run_learns_of_it(bench: Bench) {
    let run = bench.running("ann").await;
    bench.done(laden(run, 1)).await;
    let row = bench.store.approval("apr_1").await.unwrap().unwrap();
    assert_eq!((row.run, row.owner.as_str(), &*row.agent), (run, "ann", "support"));
    assert_eq!((&*row.call, &*row.tool, &*row.args), ("call_1", "refund", r#"{"order":7}"#));
    assert_eq!((row.hash, &*row.reason), ("a".repeat(64), "it costs money"));
    assert_eq!((row.roles.len(), &*row.roles[1]), (2, "lead"));
    assert_eq!((&*row.state, row.decided_by, row.decided_at), ("pending", None, None));
    assert_eq!((row.comment, row.created_at, row.expires_at), (None, 1000, 5000));
    bench.lapse(5).await;
    let other = ("{}".to_owned(), "other".to_owned());
    let said = |approved: bool| {
        let edited = approved.then(|| other.clone());
        Decision { edited, ..decision(approved) }
    };
    let both = [true, false].map(|approved| bench.store.decide("apr_1", said(approved)));
    let both = futures_util::future::join_all(both).await;
    let both: Vec<_> = both.into_iter().map(Result::unwrap).collect();
    assert_eq!(both, [Decided::Done, Decided::Already("approved".to_owned())]);
    assert_eq!(bench.store.decide("apr_2", decision(true)).await.unwrap(), Decided::Missing);
    let row = bench.store.approval("apr_1").await.unwrap().unwrap();
    assert_eq!((&*row.state, row.decided_at), ("approved", Some(1005)));
    assert_eq!((row.args, row.hash), other, "what was let pass");
    assert_eq!(
        (row.decided_by.as_deref(), row.comment.as_deref()),
        (Some("key:boss"), Some("fine"))
    );
    let signals = bench.store.run_signals(run, 0).await.unwrap();
    assert_eq!(signals.len(), 1);
    assert_eq!((&*signals[0].kind, &*signals[0].data), ("decision", r#"{"approved":true}"#));
    assert_eq!(bench.claimed().await, [run]);
}

pub(super) async fn an_approval_beyond_its_time_is_expired_and_cannot_be_decided(bench: Bench) {
    let (run, other) = (bench.running("ann").await, bench.running("bob").await);
    bench.done(laden(run, 1)).await;
    bench
        .done(Append {
            approvals: vec![question("apr_2", 9000)],
            letters: vec![],
            ..laden(other, 2)
        })
        .await;
    assert_eq!(bench.ids_of_approvals(None, None).await, ["apr_2", "apr_1"]);
    assert_eq!(bench.ids_of_approvals(Some("ann"), None).await, ["apr_1"]);
    // Whoever has a role sees what it is for, and their own; no role is part of another one.
    for (role, seen) in [("lead", &["apr_2", "apr_1"][..]), ("lea", &["apr_2"])] {
        let seen_by = Some((owner("bob"), Some(role.to_owned())));
        let filter = ApprovalFilter { seen_by, ..Default::default() };
        assert_eq!(bench.listed(filter).await, seen, "{role}");
        let seen_by = Some((owner("ann"), Some(role.to_owned())));
        let role = Some("lead".to_owned());
        let filter = ApprovalFilter { seen_by, role, run: Some(run), ..Default::default() };
        assert_eq!(bench.listed(filter).await, ["apr_1"]);
    }
    bench.lapse(3999).await;
    assert_eq!(bench.ids_of_approvals(None, Some("pending")).await, ["apr_2", "apr_1"]);
    bench.lapse(1).await;
    assert_eq!(bench.ids_of_approvals(None, Some("pending")).await, ["apr_2"]);
    assert_eq!(bench.ids_of_approvals(Some("ann"), Some("pending")).await, [""; 0]);
    assert_eq!(bench.ids_of_approvals(None, Some("expired")).await, ["apr_1"]);
    let late = bench.store.decide("apr_1", decision(true)).await.unwrap();
    assert_eq!(late, Decided::Already("expired".to_owned()));
    assert_eq!(bench.store.run_signals(run, 0).await.unwrap(), []);
    assert_eq!(bench.state_of("apr_1").await, "expired");
    bench.store.decide("apr_2", decision(false)).await.unwrap();
    assert_eq!(bench.ids_of_approvals(Some("bob"), Some("denied")).await, ["apr_2"]);
}

pub(super) async fn a_run_that_ends_withdraws_what_it_asked(bench: Bench) {
    let run = bench.running("ann").await;
    let approvals = vec![question("apr_1", 1500), question("apr_2", 5000), question("apr_3", 5000)];
    bench.done(Append { approvals, ..laden(run, 1) }).await;
    bench.store.decide("apr_2", decision(true)).await.unwrap();
    bench.lapse(500).await;
    bench.store.claim_run(run, LEASE).await.unwrap();
    let end = Append { state: RunState::Cancelled, withdraw: true, ..append(run, 2, 2) };
    bench.done(end).await;
    for (id, state) in [("apr_1", "expired"), ("apr_2", "approved"), ("apr_3", "withdrawn")] {
        assert_eq!(bench.state_of(id).await, state, "{id}");
    }
    let late = bench.store.decide("apr_3", decision(true)).await.unwrap();
    assert_eq!(late, Decided::Already("withdrawn".to_owned()));
    bench.lapse(9000).await;
    assert_eq!(bench.claimed().await, [], "what was decided wakes nobody");
}

pub(super) async fn a_letter_is_closed_once_and_by_its_owner(bench: Bench) {
    let (run, other) = (bench.running("ann").await, bench.running("bob").await);
    bench.done(laden(run, 1)).await;
    bench.done(laden(other, 2)).await;
    let letters = bench.store.letters(LetterFilter::default(), 9).await.unwrap();
    let ids: Vec<_> = letters.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(ids, ["dlq_2", "dlq_1"]);
    let row = &letters[1];
    assert_eq!((row.run, row.owner.as_str(), &*row.kind), (Some(run), "ann", "tool"));
    assert_eq!((&*row.payload, &*row.error), (r#"{"order":7}"#, "no answer"));
    assert_eq!((row.attempts, row.at, &*row.state), (3, 1000, "open"));
    let of_ann = LetterFilter { owner: Some(owner("ann")), ..LetterFilter::default() };
    assert_eq!(bench.store.letters(of_ann, 9).await.unwrap(), letters[1..]);
    let before = LetterFilter { before: Some("dlq_2".to_owned()), ..LetterFilter::default() };
    assert_eq!(bench.store.letters(before.clone(), 9).await.unwrap(), letters[1..]);
    let close = async |owner: Option<&str>| {
        let owner = owner.map(Owner::new);
        bench.store.close_letter(owner, "dlq_1", "retried").await.unwrap()
    };
    assert_eq!(close(Some("bob")).await, None);
    assert_eq!(close(Some("ann")).await.unwrap().state, "retried");
    assert_eq!(close(None).await, None, "it is closed");
    let open = LetterFilter { state: Some("open".to_owned()), ..before };
    assert_eq!(bench.store.letters(open, 9).await.unwrap(), []);
}

pub(super) async fn what_is_long_over_goes_with_all_that_belongs_to_it(bench: Bench) {
    let blob = "b".repeat(64);
    let over = async |run: RunId, state| {
        let epoch = bench.store.claim_run(run, LEASE).await.unwrap().unwrap().epoch;
        bench.waits(run, epoch, state).await;
    };
    let [done, failed, late, waiting] = [1, 2, 3, 4].map(|_| new_run("ann", RunState::Running));
    let done = NewRun { session: Some("s".to_owned()), ..done };
    for (number, run) in (1..).zip([&done, &failed, &late, &waiting]) {
        bench.begin(run.clone()).await;
        bench.done(laden(run.id, number)).await;
        bench.store.signal_run(run.id, "input", "{}".to_owned(), None).await.unwrap();
    }
    let child =
        NewRun { root: waiting.id, parent: Some(waiting.id), ..new_run("ann", RunState::Queued) };
    bench.begin(child.clone()).await;
    over(done.id, RunState::Completed).await;
    over(failed.id, RunState::Failed).await;
    over(child.id, RunState::Completed).await;
    bench.lapse(100).await;
    over(late.id, RunState::Completed).await;
    assert_eq!(bench.store.prune_runs(1000, 1000).await.unwrap(), 0, "not before");
    assert_eq!(bench.store.prune_runs(1001, 0).await.unwrap(), 1);
    assert_eq!(bench.store.run(None, done.id).await.unwrap(), None);
    assert_eq!(bench.store.session(&owner("ann"), "s").await.unwrap(), None);
    assert_eq!(bench.kinds(done.id).await, [""; 0]);
    assert_eq!(bench.ids_of_approvals(None, None).await.len(), 3);
    assert!(bench.store.run_blob(&owner("ann"), &blob).await.unwrap().is_some());
    assert_eq!(bench.store.prune_runs(1001, 1001).await.unwrap(), 1);
    assert_eq!(bench.store.prune_runs(9000, 9000).await.unwrap(), 1, "its root is not over");
    over(waiting.id, RunState::Cancelled).await;
    assert_eq!(bench.store.prune_runs(9000, 9000).await.unwrap(), 2);
    for table in ["runs", "events", "signals", "approvals", "blobs", "run_blobs", "sessions"] {
        assert_eq!(bench.count(table).await, 0, "{table}");
    }
    // What nobody has settled stays until somebody does.
    let letters = bench.store.letters(LetterFilter::default(), 9).await.unwrap();
    assert!(letters.iter().all(|letter| letter.run.is_none() && letter.state == "open"));
    assert_eq!(letters.len(), 4);
    for letter in &letters {
        bench.store.close_letter(None, &letter.id, "discarded").await.unwrap().unwrap();
    }
    bench.store.prune_runs(9000, 9000).await.unwrap();
    assert_eq!(bench.count("letters").await, 0);
}

pub(super) async fn what_agents_were_goes_with_the_last_run_that_was_so(bench: Bench) {
    let known = async |hash: &str| bench.store.definition(hash).await.unwrap().is_some();
    for hash in ["old", "again", "used"] {
        bench.store.put_definition(hash, "it".to_owned()).await.unwrap();
    }
    let run = |hash: &str| {
        let definition = hash.to_owned();
        NewRun { definition, ..new_run("ann", RunState::Rejected) }
    };
    for hash in ["old", "again", "used"] {
        bench.begin(run(hash)).await;
    }
    let hour = 3_600_000;
    bench.lapse(hour).await;
    bench.store.put_definition("again", "it".to_owned()).await.unwrap();
    assert_eq!(bench.store.prune_runs(0, 0).await.unwrap(), 0);
    assert!(known("old").await, "its run is there");
    bench.lapse(1000).await;
    bench.begin(run("used")).await;
    assert_eq!(bench.store.prune_runs(0, 3_601_000).await.unwrap(), 3);
    assert!(!known("old").await);
    assert!(known("used").await, "a later run has it");
    assert!(known("again").await, "a run is about to begin that has it");
}

pub(super) async fn many_runs_are_let_go_of_in_steps(bench: Bench) {
    let long = NewRun {
        events: (0..700).map(|_| event("tool.started")).collect(),
        ..new_run("ann", RunState::Rejected)
    };
    bench.begin(long).await;
    for _ in 0..130 {
        let events = (0..10).map(|_| event("tool.started")).collect();
        bench.begin(NewRun { events, ..new_run("ann", RunState::Rejected) }).await;
    }
    assert_eq!(bench.count("events").await, 2000);
    assert_eq!(bench.store.prune_runs(0, 1001).await.unwrap(), 131);
    assert_eq!((bench.count("events").await, bench.count("runs").await), (0, 0));
}
