//! What the store promises about runs, on every backend.

mod beside;
mod shared;

use self::beside::{
    a_letter_is_closed_once_and_by_its_owner, a_run_that_ends_withdraws_what_it_asked,
    an_append_is_all_or_nothing, an_approval_beyond_its_time_is_expired_and_cannot_be_decided,
    an_approval_is_decided_once_and_the_run_learns_of_it, many_runs_are_let_go_of_in_steps,
    what_agents_were_goes_with_the_last_run_that_was_so,
    what_is_long_over_goes_with_all_that_belongs_to_it,
};
use super::*;
use crate::canon::{RunId, RunState};
use crate::store::runs::{
    Append, Appended, Begun, LabelRow, LetterFilter, NewDelivery, NewEvent, NewLetter, NewRun,
    RunFilter, RunRow, Sending, Totals,
};

/// How long leases hold.
const LEASE: u64 = 1000;

fn new_run(owner: &str, state: RunState) -> NewRun {
    let id = RunId::new();
    NewRun {
        id,
        root: id,
        parent: None,
        agent: "support".to_owned(),
        version: "1".to_owned(),
        definition: "d".repeat(64),
        owner: Owner::new(owner),
        key: "ci".to_owned(),
        user: None,
        session: None,
        head: None,
        idempotency: None,
        trigger: "api".to_owned(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        state,
        events: vec![event("run.created")],
        told: Vec::new(),
        lease: LEASE,
    }
}

fn event(kind: &'static str) -> NewEvent {
    NewEvent { kind, data: "{}".to_owned() }
}

fn answer(call: u32) -> NewEvent {
    NewEvent { kind: "model.completed", data: format!(r#"{{"text":"hi","call":{call}}}"#) }
}

/// One more entry.
fn append(run: RunId, epoch: u64, after: u64) -> Append {
    Append {
        settled: Vec::new(),
        run,
        epoch,
        after,
        events: vec![event("tool.started")],
        state: RunState::Running,
        reason: None,
        totals: Totals::default(),
        wake_at: None,
        approvals: Vec::new(),
        letters: Vec::new(),
        blobs: Vec::new(),
        deliveries: Vec::new(),
        audits: Vec::new(),
        withdraw: false,
        signals: 0,
        durable: false,
    }
}

pub(super) async fn nobody_waits_for_all_that_another_owner_has_queued(bench: Bench) {
    let queued = |owner: &str| new_run(owner, RunState::Queued);
    for _ in 0..20 {
        bench.begin(queued("many")).await;
    }
    let mine = bench.begin(queued("one")).await.0;
    let first = bench.store.claim_runs(2, LEASE).await.unwrap();
    assert!(first.iter().any(|row| row.id == mine), "the first of each owner: {first:?}");
    // Whoever has most at work comes last.
    let late = bench.begin(queued("one")).await.0;
    let other = bench.begin(queued("other")).await.0;
    assert_eq!(bench.store.claim_runs(1, LEASE).await.unwrap()[0].id, other);
    let next = bench.store.claim_runs(2, LEASE).await.unwrap();
    assert!(next.iter().any(|row| row.id == late), "{next:?}");
}

pub(super) async fn what_is_to_be_told_is_told_once_and_again_until_it_is_heard(bench: Bench) {
    let run = bench.running("a").await;
    let news = |id: &str| NewDelivery {
        id: id.to_owned(),
        hook: "desk".to_owned(),
        body: "{}".to_owned(),
    };
    let deliveries = vec![news("msg_1"), news("msg_1"), news("msg_2")];
    bench.done(Append { deliveries, ..append(run, 1, 1) }).await;
    bench.done(Append { deliveries: vec![news("msg_2")], ..append(run, 1, 2) }).await;
    let mut taken = bench.store.take_deliveries(10, 1000).await.unwrap();
    taken.sort_by(|one, other| one.id.cmp(&other.id));
    let ids: Vec<&str> = taken.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["msg_1", "msg_2"]);
    assert!(bench.store.take_deliveries(10, 1000).await.unwrap().is_empty(), "somebody has them");
    bench.store.settle_delivery("msg_1", Sending::Delivered).await.unwrap();
    bench.store.settle_delivery("msg_2", Sending::Later(0)).await.unwrap();
    let again = bench.store.take_deliveries(10, 0).await.unwrap();
    assert_eq!((again.len(), again[0].id.as_str(), again[0].attempts), (1, "msg_2", 2));
    let letter = NewLetter {
        id: "dlq_1".to_owned(),
        kind: "webhook".to_owned(),
        payload: "{}".to_owned(),
        error: "HTTP 500".to_owned(),
        attempts: 2,
    };
    bench.store.settle_delivery("msg_2", Sending::GivenUp { letter }).await.unwrap();
    assert!(bench.store.take_deliveries(10, 0).await.unwrap().is_empty());
    let letters = bench.store.letters(LetterFilter::default(), 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].run), (1, Some(run)));
    assert!(bench.store.resend_delivery("msg_2").await.unwrap());
    assert!(!bench.store.resend_delivery("msg_1").await.unwrap(), "it was heard");
    assert_eq!(bench.store.take_deliveries(10, 0).await.unwrap()[0].id, "msg_2");
}

impl Bench {
    /// Begins one and gives its id and epoch.
    async fn begin(&self, run: NewRun) -> (RunId, u64) {
        let id = run.id;
        match self.store.begin_run(run).await.unwrap() {
            Begun::New { epoch } => (id, epoch),
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass, for leases too: those on a server go by its own clock.
    async fn lapse(&self, millis: i64) {
        self.pass(millis);
        if matches!(self.url, StoreUrl::Postgres(_)) {
            let lapse = "UPDATE runs SET lease_until = lease_until - $1 WHERE lease_until > 0";
            let lapse = move |database: &mut Database| database.execute(lapse, values![millis]);
            self.store.write.run(lapse).await.unwrap();
        }
    }

    async fn running(&self, owner: &str) -> RunId {
        let (id, epoch) = self.begin(new_run(owner, RunState::Running)).await;
        assert_eq!(epoch, 1);
        id
    }

    async fn row(&self, run: RunId) -> RunRow {
        self.store.run(None, run).await.unwrap().unwrap()
    }

    async fn kinds(&self, run: RunId) -> Vec<String> {
        let events = self.store.run_events(run, 0, 1000).await.unwrap();
        let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        events.into_iter().map(|event| event.kind).collect()
    }

    async fn claimed(&self) -> Vec<RunId> {
        let rows = self.store.claim_runs(10, LEASE).await.unwrap();
        assert!(rows.iter().all(|row| row.state == RunState::Running));
        rows.into_iter().map(|row| row.id).collect()
    }

    async fn done(&self, append: Append) {
        assert_eq!(self.store.append_run(append).await.unwrap(), Appended::Done);
    }

    async fn waits(&self, run: RunId, epoch: u64, state: RunState) {
        let after = self.row(run).await.last_seq;
        self.done(Append { state, ..append(run, epoch, after) }).await;
    }
}

async fn a_run_is_found_as_it_was_begun_and_only_by_its_owner(bench: Bench) {
    let run = NewRun {
        user: Some("u".to_owned()),
        session: Some("s".to_owned()),
        ..new_run("ann", RunState::Running)
    };
    bench.begin(run.clone()).await;
    let row = bench.store.run(Some(&owner("ann")), run.id).await.unwrap().unwrap();
    assert_eq!((row.id, row.root, row.parent), (run.id, run.id, None));
    assert_eq!((row.agent, row.version, row.definition), (run.agent, run.version, run.definition));
    assert_eq!((row.owner, row.key, row.user), (run.owner, run.key, run.user));
    assert_eq!((row.session, row.trigger, row.labels), (run.session, run.trigger, run.labels));
    assert_eq!((row.state, row.reason, row.totals), (run.state, None, Totals::default()));
    assert_eq!((row.created_at, row.started_at, row.finished_at), (1000, Some(1000), None));
    assert_eq!((row.last_seq, row.epoch, row.takeovers), (1, 1, 0));
    assert_eq!(bench.store.run(Some(&owner("bob")), run.id).await.unwrap(), None);
    let session = bench.store.session(&owner("ann"), "s").await.unwrap().unwrap();
    assert_eq!((session.head, session.updated_at), (run.id, 1000));
    assert_eq!(bench.store.session(&owner("bob"), "s").await.unwrap(), None);
    let behind = |head| {
        let session = Some("s".to_owned());
        NewRun { session, head, ..new_run("ann", RunState::Queued) }
    };
    let second = behind(Some(run.id));
    bench.begin(second.clone()).await;
    let session = bench.store.session(&owner("ann"), "s").await.unwrap().unwrap();
    assert_eq!(session.head, second.id);
    for late in [behind(Some(run.id)), behind(None)] {
        let id = late.id;
        assert!(matches!(bench.store.begin_run(late).await.unwrap(), Begun::Overtaken));
        assert_eq!(bench.store.run(None, id).await.unwrap(), None);
        assert_eq!(bench.kinds(id).await, [""; 0]);
    }
    let session = bench.store.session(&owner("ann"), "s").await.unwrap().unwrap();
    assert_eq!(session.head, second.id);
}

async fn a_run_begins_once_by_its_id_and_by_its_idempotency_key(bench: Bench) {
    let asked = |owner: &str, digest: &str| NewRun {
        idempotency: Some(("once".to_owned(), digest.to_owned())),
        ..new_run(owner, RunState::Queued)
    };
    let first = asked("ann", "a");
    assert_eq!(bench.begin(first.clone()).await, (first.id, 0));
    for again in [asked("ann", "a"), NewRun { id: first.id, ..asked("ann", "b") }] {
        match bench.store.begin_run(again).await.unwrap() {
            Begun::Known(row) => assert_eq!(row.id, first.id),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(bench.store.begin_run(asked("ann", "b")).await.unwrap(), Begun::Conflict));
    bench.begin(asked("bob", "b")).await;
    let anothers = NewRun { id: first.id, ..asked("bob", "c") };
    assert!(bench.store.begin_run(anothers).await.is_err());
    assert_eq!(bench.kinds(first.id).await, ["run.created"]);
}

async fn an_append_by_an_old_epoch_adds_nothing(bench: Bench) {
    let run = bench.running("ann").await;
    bench.done(append(run, 1, 1)).await;
    assert_eq!(bench.claimed().await, [], "somebody is at work");
    bench.lapse(1000).await;
    assert_eq!(bench.claimed().await, [run]);
    let row = bench.row(run).await;
    assert_eq!((row.epoch, row.takeovers, row.last_seq), (2, 1, 2));
    // In one batch of the writer, with appends of the new holder before and behind it.
    let [one, late, two] = [
        append(run, 2, 2),
        Append { state: RunState::Failed, ..append(run, 1, 2) },
        append(run, 2, 3),
    ];
    let appends = [one, late, two].map(|append| bench.store.append_run(append));
    let outcomes = futures_util::future::join_all(appends).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Appended::Done, Appended::LeaseLost, Appended::Done]);
    assert_eq!(bench.kinds(run).await.len(), 4);
    assert_eq!(bench.row(run).await.state, RunState::Running);
    let nowhere = bench.store.append_run(append(RunId::new(), 1, 1)).await.unwrap();
    assert_eq!(nowhere, Appended::LeaseLost);
}

async fn an_append_that_would_leave_a_gap_fails_and_adds_nothing(bench: Bench) {
    let run = bench.running("ann").await;
    for after in [0, 2, 7] {
        assert!(bench.store.append_run(append(run, 1, after)).await.is_err(), "{after}");
    }
    assert!(bench.store.is_up());
    assert_eq!(bench.kinds(run).await, ["run.created"]);
    bench.done(append(run, 1, 1)).await;
}

async fn a_call_of_a_model_is_answered_once(bench: Bench) {
    let run = bench.running("ann").await;
    let answered = |after, call| Append { events: vec![answer(call)], ..append(run, 1, after) };
    bench.done(answered(1, 0)).await;
    bench.done(answered(2, 1)).await;
    let second = Append { state: RunState::Failed, ..answered(3, 1) };
    assert!(bench.store.append_run(second).await.is_err());
    let numberless = NewEvent { kind: "model.completed", data: "{}".to_owned() };
    let numberless = Append { events: vec![numberless], ..append(run, 1, 3) };
    assert!(bench.store.append_run(numberless).await.is_err());
    assert_eq!(bench.row(run).await.state, RunState::Running);
    bench.done(answered(3, 2)).await;
    let other = bench.running("ann").await;
    bench.done(Append { run: other, ..answered(1, 1) }).await;
    assert_eq!(bench.kinds(run).await.len(), 4);
}

async fn who_waits_or_is_over_gives_the_lease_back(bench: Bench) {
    let run = bench.running("ann").await;
    bench.waits(run, 1, RunState::WaitingInput).await;
    let late = bench.store.append_run(append(run, 1, 2)).await.unwrap();
    assert_eq!(late, Appended::LeaseLost);
    let row = bench.store.claim_run(run, LEASE).await.unwrap().unwrap();
    assert_eq!((row.state, row.epoch, row.takeovers), (RunState::Running, 2, 0));
    assert_eq!(bench.store.claim_run(run, LEASE).await.unwrap(), None, "it is held");
    bench.lapse(5).await;
    let totals = Totals { steps: 3, tool_calls: 4, tokens_in: 5, tokens_out: 6, cost: 7, bytes: 8 };
    let reason = Some("max_steps".to_owned());
    let end = Append { state: RunState::Incomplete, reason, totals, ..append(run, 2, 2) };
    bench.done(Append { wake_at: Some(2000), ..end }).await;
    let row = bench.row(run).await;
    assert_eq!((row.state, row.reason.as_deref()), (RunState::Incomplete, Some("max_steps")));
    assert_eq!((row.totals, row.finished_at), (totals, Some(1005)));
    bench.lapse(9000).await;
    assert_eq!(bench.store.claim_run(run, LEASE).await.unwrap(), None, "it is over");
    assert_eq!(bench.claimed().await, []);
}

async fn runs_are_claimed_when_they_have_something_to_do(bench: Bench) {
    let (old, _) = bench.begin(new_run("ann", RunState::Queued)).await;
    let (young, _) = bench.begin(new_run("ann", RunState::Queued)).await;
    let (told, timed, lost) =
        (bench.running("ann").await, bench.running("ann").await, bench.running("ann").await);
    bench.waits(told, 1, RunState::WaitingApproval).await;
    let state = RunState::WaitingTimer;
    bench.done(Append { state, wake_at: Some(1500), ..append(timed, 1, 1) }).await;
    let first = bench.store.claim_runs(1, LEASE).await.unwrap();
    assert_eq!(first[0].id, old, "the oldest first");
    assert_eq!(first[0].started_at, Some(1000));
    assert_eq!(bench.claimed().await, [young]);
    assert!(bench.store.signal_run(told, "decision", "{}".to_owned(), None).await.unwrap());
    assert_eq!(bench.claimed().await, [told]);
    bench.lapse(499).await;
    assert_eq!(bench.claimed().await, []);
    bench.lapse(1).await;
    assert_eq!(bench.claimed().await, [timed]);
    let held = vec![(old, 1), (young, 1), (told, 2), (timed, 2), (lost, 7)];
    bench.lapse(499).await;
    let renewed = bench.store.renew_runs(held, LEASE).await.unwrap();
    assert_eq!((renewed.lost, renewed.signalled), (vec![lost], vec![told]));
    bench.lapse(1).await;
    assert_eq!(bench.claimed().await, [lost]);
    let row = bench.row(lost).await;
    assert_eq!((row.epoch, row.takeovers), (2, 1));
    bench.store.renew_runs(vec![(timed, 2)], 0).await.unwrap();
    assert_eq!(bench.claimed().await, [timed], "it was given back");
}

async fn a_child_is_left_to_its_parent_and_wakes_its_root(bench: Bench) {
    let root = bench.running("ann").await;
    let child = |state| NewRun { root, parent: Some(root), ..new_run("ann", state) };
    let (queued, _) = bench.begin(child(RunState::Queued)).await;
    let (waiting, _) = bench.begin(child(RunState::Running)).await;
    bench.waits(waiting, 1, RunState::WaitingApproval).await;
    bench.waits(root, 1, RunState::WaitingChild).await;
    assert_eq!(bench.claimed().await, []);
    bench.store.signal_run(waiting, "decision", "{}".to_owned(), None).await.unwrap();
    assert_eq!(bench.claimed().await, [root]);
    let renewed = bench.store.renew_runs(vec![(root, 2)], LEASE).await.unwrap();
    assert_eq!((renewed.lost, renewed.signalled), (vec![], vec![root]));
    assert_eq!(bench.store.claim_run(waiting, LEASE).await.unwrap().unwrap().epoch, 2);
    assert_eq!(bench.store.claim_run(queued, LEASE).await.unwrap().unwrap().epoch, 1);
    let renewed = bench.store.renew_runs(vec![(root, 2), (waiting, 2)], LEASE).await.unwrap();
    assert_eq!((renewed.lost.len(), renewed.signalled.len()), (0, 2));
    let signals = bench.store.run_signals(waiting, 0).await.unwrap();
    bench.done(Append { signals: signals[0].number, ..append(waiting, 2, 2) }).await;
    let renewed = bench.store.renew_runs(vec![(root, 2), (waiting, 2)], LEASE).await.unwrap();
    assert_eq!(renewed.signalled, []);
}

async fn a_run_of_a_paused_agent_does_not_begin_and_goes_on(bench: Bench) {
    let (queued, _) = bench.begin(new_run("ann", RunState::Queued)).await;
    let running = bench.running("ann").await;
    for _ in 0..2 {
        bench.store.pause_agent("support", true).await.unwrap();
    }
    assert_eq!(bench.store.paused_agents().await.unwrap(), ["support"]);
    bench.lapse(1000).await;
    assert_eq!(bench.claimed().await, [running]);
    assert_eq!(bench.store.claim_run(queued, LEASE).await.unwrap(), None);
    bench.waits(running, 2, RunState::WaitingInput).await;
    assert!(bench.store.claim_run(running, LEASE).await.unwrap().is_some());
    bench.store.pause_agent("support", false).await.unwrap();
    assert_eq!(bench.claimed().await, [queued]);
}

async fn a_run_is_told_a_thing_once_and_takes_it_in(bench: Bench) {
    let (run, other) = (bench.running("ann").await, bench.running("ann").await);
    let tell = async |run, kind, once: Option<&str>| {
        let once = once.map(str::to_owned);
        bench.store.signal_run(run, kind, r#"{"a":1}"#.to_owned(), once).await.unwrap()
    };
    assert!(tell(run, "input", Some("1")).await);
    assert!(!tell(run, "input", Some("1")).await);
    assert!(tell(run, "cancel", Some("1")).await);
    assert!(tell(other, "input", Some("1")).await);
    assert!(tell(run, "input", None).await && tell(run, "input", None).await);
    let signals = bench.store.run_signals(run, 0).await.unwrap();
    let kinds: Vec<_> = signals.iter().map(|signal| signal.kind.as_str()).collect();
    assert_eq!(kinds, ["input", "cancel", "input", "input"]);
    assert_eq!((signals[0].run, &*signals[0].data, signals[0].at), (run, r#"{"a":1}"#, 1000));
    assert!(signals.is_sorted_by(|one, next| one.number < next.number));
    let behind = bench.store.run_signals(run, signals[1].number).await.unwrap();
    assert_eq!(behind, signals[2..]);
    let wait = Append { state: RunState::WaitingInput, ..append(run, 1, 1) };
    bench.done(Append { signals: signals[2].number, ..wait.clone() }).await;
    assert_eq!(bench.store.run_signals(run, 0).await.unwrap(), signals[3..]);
    assert_eq!(bench.claimed().await, [run], "one was not taken in");
    bench.done(Append { epoch: 2, after: 2, signals: signals[3].number, ..wait }).await;
    assert_eq!(bench.claimed().await, []);
    assert!(!tell(run, "input", Some("1")).await, "it counts once for ever");
    assert!(tell(run, "message", None).await, "it waits, and looks before it goes on");
    bench.store.claim_run(run, LEASE).await.unwrap();
    assert!(!tell(run, "message", None).await, "it may never look again");
    bench.waits(run, 3, RunState::Cancelled).await;
    assert!(!tell(run, "cancel", Some("2")).await, "it is over");
    assert!(!tell(RunId::new(), "cancel", None).await);
}

async fn runs_are_listed_the_newest_first_by_what_is_asked(bench: Bench) {
    let first = bench.running("ann").await;
    bench.lapse(10).await;
    let mut other = new_run("ann", RunState::Queued);
    other.agent = "billing".to_owned();
    other.user = Some("u".to_owned());
    other.session = Some("s".to_owned());
    other.labels = [("tier".to_owned(), "tin".to_owned())].into();
    let (second, _) = bench.begin(other).await;
    let mut child = new_run("ann", RunState::Running);
    (child.root, child.parent) = (first, Some(first));
    let (third, _) = bench.begin(child).await;
    let bobs = bench.running("bob").await;
    let ann = || RunFilter { owner: Some(owner("ann")), ..RunFilter::default() };
    let tin = Some(("tier".to_owned(), "tin".to_owned()));
    for (filter, limit, expected) in [
        (RunFilter::default(), 9, vec![bobs, third, second, first]),
        (ann(), 2, vec![third, second]),
        (RunFilter { before: Some(second), ..ann() }, 9, vec![first]),
        (RunFilter { agent: Some("billing".to_owned()), ..ann() }, 9, vec![second]),
        (RunFilter { state: Some(RunState::Queued), ..ann() }, 9, vec![second]),
        (RunFilter { user: Some("u".to_owned()), ..ann() }, 9, vec![second]),
        (RunFilter { session: Some("s".to_owned()), ..ann() }, 9, vec![second]),
        (RunFilter { label: tin, ..ann() }, 9, vec![second]),
        (RunFilter { since: Some(1010), ..ann() }, 9, vec![third, second]),
        (RunFilter { root: Some(first), ..ann() }, 9, vec![third, first]),
        (RunFilter { user: Some("' OR 1=1 --".to_owned()), ..ann() }, 9, vec![]),
    ] {
        let rows = bench.store.runs(filter.clone(), limit).await.unwrap();
        let ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
        assert_eq!(ids, expected, "{filter:?}");
    }
}

async fn a_definition_is_kept_under_its_hash(bench: Bench) {
    assert_eq!(bench.store.definition("a").await.unwrap(), None);
    for body in ["first", "second"] {
        bench.store.put_definition("a", body.to_owned()).await.unwrap();
    }
    assert_eq!(bench.store.definition("a").await.unwrap().as_deref(), Some("first"));
}

async fn a_label_is_where_it_was_moved_last_until_it_is_reset(bench: Bench) {
    let label = |version: &str, file: Option<&str>| LabelRow {
        label: "prod".to_owned(),
        version: version.to_owned(),
        file: file.map(str::to_owned),
        by: "ann".to_owned(),
        at: 1000,
    };
    assert_eq!(bench.store.agent_labels("support").await.unwrap(), []);
    for label in [label("7", None), label("8", Some("7"))] {
        bench.store.move_label("support", label.clone()).await.unwrap();
        assert_eq!(bench.store.agent_labels("support").await.unwrap(), [label]);
    }
    assert_eq!(bench.store.agent_labels("billing").await.unwrap(), []);
    bench.store.reset_label("support", "prod").await.unwrap();
    assert_eq!(bench.store.agent_labels("support").await.unwrap(), []);
}

macro_rules! promises {
    ($backend:ident, $url:expr) => {
        suite!(
            $backend,
            $url,
            [
                a_run_is_found_as_it_was_begun_and_only_by_its_owner,
                a_run_begins_once_by_its_id_and_by_its_idempotency_key,
                an_append_by_an_old_epoch_adds_nothing,
                an_append_that_would_leave_a_gap_fails_and_adds_nothing,
                a_call_of_a_model_is_answered_once,
                who_waits_or_is_over_gives_the_lease_back,
                runs_are_claimed_when_they_have_something_to_do,
                a_child_is_left_to_its_parent_and_wakes_its_root,
                a_run_of_a_paused_agent_does_not_begin_and_goes_on,
                a_run_is_told_a_thing_once_and_takes_it_in,
                runs_are_listed_the_newest_first_by_what_is_asked,
                a_definition_is_kept_under_its_hash,
                a_label_is_where_it_was_moved_last_until_it_is_reset,
                what_agents_were_goes_with_the_last_run_that_was_so,
                nobody_waits_for_all_that_another_owner_has_queued,
                what_is_to_be_told_is_told_once_and_again_until_it_is_heard,
                an_append_is_all_or_nothing,
                an_approval_is_decided_once_and_the_run_learns_of_it,
                an_approval_beyond_its_time_is_expired_and_cannot_be_decided,
                a_run_that_ends_withdraws_what_it_asked,
                a_letter_is_closed_once_and_by_its_owner,
                what_is_long_over_goes_with_all_that_belongs_to_it,
                many_runs_are_let_go_of_in_steps,
            ]
        );
    };
}

promises!(memory, Some(Bench::new(|_| StoreUrl::Memory)));
promises!(file, Some(Bench::new(in_file)));
promises!(on_server, on_postgres());
