//! A run survives its process: killed behind each entry of its journal in turn, or stopped for
//! longer than its lease, it comes to the same end, and nothing is done twice that must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, Method};
use rustix::process::Signal;
use serde_json::{Value, json};
use switchpoint::canon::RunState;
use switchpoint::config::{Secret, Store as Settings, StoreUrl};
use switchpoint::store::Store;
use switchpoint::store::runs::{ApprovalFilter, EventRow, RunFilter, RunRow};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::client::{self, open, request};
use crate::support::database::Schema;
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{calls, says};
use crate::support::upstream::Request;
use crate::support::{Gate, Gateway, PATIENCE, Script, Upstream, until};

const ANSWER: &str = "All is done.";
/// What an append says that is not let pass.
const HALTED: &str = "halted here";

/// Where the runs of one case are kept.
enum Place {
    File(TempDir),
    Server(Box<Schema>),
}

/// One run, its model, its tools, and a look into its journal.
struct Case {
    place: Place,
    model: Upstream,
    tools: Upstream,
    store: Store,
    /// How long a process may be away before another one goes on.
    lease: &'static str,
}

/// When a process is killed that has written the last entry it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// At once, while it does what comes next.
    Then,
    /// When it has done so, and could not write what came of it.
    Late,
}

// === impl Place ===

impl Place {
    fn file(&self) -> Option<PathBuf> {
        if let Self::File(folder) = self { Some(folder.path().join("state.db")) } else { None }
    }

    fn url(&self) -> StoreUrl {
        match self {
            Self::File(folder) => StoreUrl::Sqlite(folder.path().join("state.db")),
            Self::Server(schema) => StoreUrl::Postgres(Secret::new(schema.url(None))),
        }
    }

    fn section(&self, process: &str) -> String {
        match self {
            Self::File(folder) => {
                format!("[store]\nurl = \"sqlite:{}\"\n", folder.path().join("state.db").display())
            }
            Self::Server(schema) => format!(
                "[store]\nurl = \"{}\"\njournal = \"{}\"\n",
                schema.url(None),
                schema.journal(process).display()
            ),
        }
    }

    /// Lets nobody write an entry behind this one.
    async fn halt(&mut self, last: u64) {
        match self {
            Self::File(_) => self.change(&format!(
                "CREATE TRIGGER halt BEFORE INSERT ON events WHEN new.seq > {last}
                 BEGIN SELECT RAISE(ABORT, '{HALTED}'); END"
            )),
            Self::Server(schema) => {
                let name = schema.name.clone();
                let halt = format!(
                    "CREATE FUNCTION {name}.halt() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN IF new.seq > {last} THEN RAISE EXCEPTION '{HALTED}'; END IF;
                     RETURN new; END $$;
                     CREATE TRIGGER halt BEFORE INSERT ON {name}.events
                     FOR EACH ROW EXECUTE FUNCTION {name}.halt()"
                );
                schema.client().await.batch_execute(&halt).await.unwrap();
            }
        }
    }

    async fn release(&mut self) {
        match self {
            Self::File(_) => self.change("DROP TRIGGER halt"),
            Self::Server(schema) => {
                let release = format!("DROP TRIGGER halt ON {}.events", schema.name);
                schema.client().await.batch_execute(&release).await.unwrap();
            }
        }
    }

    fn change(&self, sql: &str) {
        let database = rusqlite::Connection::open(self.file().unwrap()).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        database.execute_batch(sql).unwrap();
    }
}

// === impl Case ===

impl Case {
    async fn new(place: Place, held: Option<(&'static str, Gate)>) -> Self {
        let model = Upstream::answering(mind).await;
        // Who is not meant to lose it must not do so because the machine is busy.
        let lease = if held.is_some() { "5s" } else { "1s" };
        let tools = Upstream::answering(move |request| {
            let done = Script::json(200, r#"{"ok":true}"#);
            match &held {
                Some((tool, gate)) if request.path.ends_with(tool) => {
                    Script::default().gate(gate).then_all(done)
                }
                _ => done,
            }
        })
        .await;
        let store = place.url();
        let store = tokio::task::spawn_blocking(move || Store::open_beside(&Settings::at(store)));
        Self { place, model, tools, store: store.await.unwrap().unwrap(), lease }
    }

    async fn start(&self, process: &str) -> Gateway {
        let tool = |(name, method, more): (&str, &str, &str)| {
            let base = self.tools.base();
            format!(
                "[tools.{name}]\nkind = \"http\"\nmethod = \"{method}\"\nurl = \"{base}/{name}\"\n\
                 input = {{ type = \"object\" }}\n{more}\n"
            )
        };
        let tools: String = [
            ("lookup", "GET", "effect = \"read\""),
            ("note", "POST", "effect = \"idempotent\""),
            ("refund", "POST", "effect = \"once\"\napproval = { expires = \"1h\" }"),
            ("mail", "POST", "effect = \"idempotent\""),
        ]
        .map(tool)
        .concat();
        let sections = format!(
            "{}{}{}\n[agent_engine]\nlease_ttl = \"{}\"\nmax_takeovers = 50\n\
             durability = \"strict\"\n\n{tools}\n\
             [agents.support]\nroute = \"r\"\ninstructions = \"Help.\"\n\
             tools = [\"lookup\", \"note\", \"refund\", \"mail\"]\n",
            self.place.section(process),
            provider("up", &self.model),
            route("r", &["up/m"], ""),
            self.lease,
        );
        Gateway::start("", &sections).await
    }

    /// Asks for the run; the connection stays as long as what this gives.
    async fn begin(&self, gateway: &Gateway) -> TcpStream {
        let body = json!({"input": "Help me.", "on_disconnect": "continue"}).to_string();
        let head = format!(
            "POST /v1/agents/support/runs HTTP/1.1\r\nhost: gateway.test\r\n\
             authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client::send(gateway.address, format!("{head}{body}").as_bytes()).await
    }

    async fn run(&self) -> Option<RunRow> {
        self.store.runs(RunFilter::default(), 2).await.unwrap().pop()
    }

    async fn events(&self) -> Vec<EventRow> {
        let Some(run) = self.run().await else { return Vec::new() };
        self.store.run_events(run.id, 0, 1000).await.unwrap()
    }

    async fn post(&self, gateway: &Gateway, path: &str, body: &Value) -> u16 {
        let mut asked = request(Method::POST, path, KEY, body.to_string().into());
        asked.headers_mut().insert("if-match", HeaderValue::from_static("*"));
        open(gateway.address, asked).await.status
    }

    /// Lets pass what waits for somebody.
    async fn approve(&self, gateway: &Gateway) {
        let state = Some("pending".to_owned());
        let pending = ApprovalFilter { state, ..ApprovalFilter::default() };
        let pending = self.store.approvals(pending, 9).await.unwrap();
        for approval in pending {
            let path = format!("/v1/agents/approvals/{}", approval.id);
            self.post(gateway, &path, &json!({"decision": "approve"})).await;
        }
    }

    /// Says of what nobody knows what became of it, as a person would who has looked.
    async fn resolve(&self, gateway: &Gateway) {
        let Some(run) = self.run().await else { return };
        let path = format!("/v1/agents/runs/{}", run.id);
        let shown = client::get(gateway.address, &path, KEY).await.json();
        let open = shown["pending"]["unknown_outcomes"].as_array().cloned().unwrap_or_default();
        for unknown in open {
            let answer = if self.calls("refund").is_empty() {
                json!({"seq": unknown["seq"], "outcome": "retry"})
            } else {
                json!({"seq": unknown["seq"], "outcome": "done", "result": {"ok": true}})
            };
            self.post(gateway, &format!("{path}/resolve"), &answer).await;
        }
    }

    /// The keys by which a tool was called.
    fn calls(&self, tool: &str) -> Vec<Option<String>> {
        let requests = self.tools.requests();
        let calls = requests.iter().filter(|request| request.path.ends_with(tool));
        calls.map(|request| request.header("idempotency-key").map(str::to_owned)).collect()
    }

    /// Waits until the last entry that may be written is, and it is time.
    async fn reach(&self, gateway: &Gateway, last: u64, moment: Moment) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = self.events().await;
            let is_there = events.len() as u64 >= last;
            let halted = gateway.output().iter().any(|line| line.contains(HALTED));
            let rests = self.run().await.is_some_and(|run| run.state.is_waiting());
            if halted || is_there && (moment == Moment::Then || rests) {
                return;
            }
            if rests && !is_there {
                self.approve(gateway).await;
            }
            assert!(Instant::now() < deadline, "no entry {last}: {}", told(&events));
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// Does what people have to, until it is over.
    async fn finish(&self, gateway: &Gateway) -> RunRow {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            let run = self.run().await;
            match run.as_ref().map(|run| run.state) {
                Some(RunState::WaitingApproval) => self.approve(gateway).await,
                Some(RunState::WaitingHuman) => self.resolve(gateway).await,
                _ => {}
            }
            if let Some(run) = run.filter(|run| run.state.is_over()) {
                return run;
            }
            assert!(Instant::now() < deadline, "never over: {}", told(&self.events().await));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What must hold of the run whatever happened on its way.
    async fn assert_as_if_nothing_had_been(&self, gateway: &Gateway) {
        let run = self.run().await.unwrap();
        let events = self.events().await;
        let told = told(&events);
        assert_eq!(run.state, RunState::Completed, "{told}");
        let shown = client::get(gateway.address, &format!("/v1/agents/runs/{}", run.id), KEY).await;
        assert_eq!(shown.json()["result"]["text"], ANSWER, "{told}");
        assert!((1..).zip(&events).all(|(number, event)| event.seq == number), "{told}");
        let answered: Vec<_> = of_kind(&events, "model.completed").collect();
        let calls: BTreeSet<_> = answered.iter().map(|data| data["call"].as_u64()).collect();
        assert_eq!((answered.len(), calls.len()), (3, 3), "{told}");
        assert_eq!(of_kind(&events, "tool.requested").count(), 4, "{told}");
        let approvals = self.store.approvals(ApprovalFilter::default(), 9).await.unwrap();
        let states: Vec<_> = approvals.iter().map(|row| row.state.as_str()).collect();
        assert_eq!(states, ["approved"], "{told}");
        assert_eq!(of_kind(&events, "tool.approved").count(), 1, "{told}");
        assert_eq!(self.calls("refund").len(), 1, "once: {told}");
        let mut keys = BTreeMap::new();
        for tool in ["note", "mail", "refund"] {
            let made: BTreeSet<_> = self.calls(tool).into_iter().collect();
            assert_eq!(made.len(), 1, "{tool} by one key: {made:?} {told}");
            keys.insert(made, tool);
        }
        assert_eq!(keys.len(), 3, "each by its own");
        assert!(!self.calls("lookup").is_empty());
    }
}

fn of_kind<'a>(events: &'a [EventRow], kind: &'a str) -> impl Iterator<Item = Value> {
    let found = events.iter().filter(move |event| event.kind == kind);
    found.map(|event| serde_json::from_str(&event.data).unwrap())
}

fn told(events: &[EventRow]) -> String {
    let lines = events.iter().map(|event| format!("\n{} {} {}", event.seq, event.kind, event.data));
    lines.collect()
}

/// Two groups of two calls, and an answer, by how much of it is done.
fn mind(request: &Request) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let done = messages.iter().filter(|message| message["role"] == "tool").count();
    let calls = |names: [&str; 2]| {
        let [one, two] = names.map(|name| format!("call_{name}"));
        calls(&[(&one, names[0], "{}"), (&two, names[1], "{}")])
    };
    Script::stream(match done {
        0 | 1 => calls(["lookup", "note"]),
        2 | 3 => calls(["refund", "mail"]),
        _ => says(ANSWER),
    })
}

/// Kills the process of a run behind the entry `last`, and has another one go on with it.
async fn killed(mut case: Case, last: u64, moment: Moment) {
    case.place.halt(last).await;
    let gateway = case.start("one").await;
    let _client = case.begin(&gateway).await;
    case.reach(&gateway, last, moment).await;
    gateway.kill();
    let events = case.events().await;
    assert!(events.len() as u64 <= last);
    // Nothing has happened of which the journal does not know that it might.
    let began: Vec<_> = of_kind(&events, "tool.started").map(|data| data["id"].clone()).collect();
    for tool in ["note", "refund", "mail"] {
        let is_told = began.contains(&json!(format!("call_{tool}")));
        assert!(is_told || case.calls(tool).is_empty(), "{tool}: {}", told(&events));
    }
    let asked = case.store.approvals(ApprovalFilter::default(), 9).await.unwrap();
    case.place.release().await;
    let gateway = case.start("one").await;
    let _client = if case.run().await.is_none() { Some(case.begin(&gateway).await) } else { None };
    case.finish(&gateway).await;
    case.assert_as_if_nothing_had_been(&gateway).await;
    if let [asked] = asked.as_slice() {
        assert!(case.store.approval(&asked.id).await.unwrap().is_some(), "the same question");
    }
}

/// How many entries a run has that nobody kills.
async fn undisturbed(case: Case) -> u64 {
    let gateway = case.start("one").await;
    let _client = case.begin(&gateway).await;
    let run = case.finish(&gateway).await;
    case.assert_as_if_nothing_had_been(&gateway).await;
    assert_eq!(case.model.requests().len(), 3);
    run.last_seq
}

async fn in_file() -> Case {
    Case::new(Place::File(tempfile::tempdir().unwrap()), None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_anywhere_comes_to_the_same_end() {
    let last = undisturbed(in_file().await).await;
    let moments = [Moment::Then, Moment::Late];
    let cases = (1..last).flat_map(|behind| moments.map(|moment| (behind, moment)));
    let killed = stream::iter(cases).map(|(behind, moment)| async move {
        println!("behind {behind} of {last}, {moment:?}");
        killed(in_file().await, behind, moment).await;
    });
    killed.buffer_unordered(6).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_anywhere_comes_to_the_same_end_on_postgres() {
    let on_server = async |name: String| {
        let place = Place::Server(Box::new(Schema::new(&name).await?));
        Some(Case::new(place, None).await)
    };
    let Some(first) = on_server("kill".to_owned()).await else { return };
    let last = undisturbed(first).await;
    let cases = (1..last).map(|behind| async move {
        let moment = if behind % 2 == 0 { Moment::Then } else { Moment::Late };
        let case = on_server(format!("kill{behind}")).await.unwrap();
        killed(case, behind, moment).await;
    });
    stream::iter(cases).buffer_unordered(4).collect::<Vec<()>>().await;
}

/// Two processes; the first is stopped for longer than its lease while it calls this tool.
async fn split(tool: &'static str) -> Option<Case> {
    let gate = Gate::shut();
    let place = Place::Server(Box::new(Schema::new(&format!("split_{tool}")).await?));
    let case = Case::new(place, Some((tool, gate.clone()))).await;
    let stopped = case.start("one").await;
    let _client = case.begin(&stopped).await;
    let deadline = Instant::now() + PATIENCE;
    while case.calls(tool).is_empty() {
        case.approve(&stopped).await;
        assert!(Instant::now() < deadline, "{}", told(&case.events().await));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    stopped.signal(Signal::STOP);
    let before = case.run().await.unwrap().epoch;
    let other = case.start("two").await;
    while case.run().await.unwrap().epoch == before {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    gate.open();
    case.finish(&other).await;
    stopped.signal(Signal::CONT);
    let deadline = Instant::now() + PATIENCE;
    while stopped.metric("switchpoint_agent_lease_lost_total", &[]).await < 1.0 {
        assert!(Instant::now() < deadline, "the loss is counted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    case.assert_as_if_nothing_had_been(&other).await;
    Some(case)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_away_for_longer_than_its_lease_changes_nothing() {
    let (mail, refund) = tokio::join!(split("mail"), split("refund"));
    let (Some(mail), Some(_)) = (mail, refund) else { return };
    assert_eq!(mail.calls("mail").len(), 2, "by both, by one key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_held_on_to_while_other_work_of_the_process_takes_its_time() {
    let Some(schema) = Schema::new("held").await else { return };
    let gate = Gate::shut();
    let mut case = Case::new(Place::Server(Box::new(schema)), Some(("note", gate.clone()))).await;
    let gateway = case.start("one").await;
    let _client = case.begin(&gateway).await;
    until("it is at work", || !case.calls("note").is_empty()).await;
    let Place::Server(schema) = &mut case.place else { return };
    let name = schema.name.clone();
    let slow = schema.client().await;
    let lock = format!("BEGIN; LOCK TABLE {name}.paused_agents IN ACCESS EXCLUSIVE MODE");
    slow.batch_execute(&lock).await.unwrap();
    let (mut leases, deadline) = (BTreeSet::new(), Instant::now() + PATIENCE);
    while leases.len() < 4 {
        leases.insert(schema.number("SELECT lease_until FROM {schema}.runs").await);
        assert!(Instant::now() < deadline, "{leases:?}");
    }
    slow.batch_execute("ROLLBACK").await.unwrap();
    gate.open();
    case.finish(&gateway).await;
    case.assert_as_if_nothing_had_been(&gateway).await;
}
