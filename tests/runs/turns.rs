//! What a run asks a model is a call like any other: with its caller's limits, guards and cache, in
//! the ledger and the log, and heard as it comes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use switchpoint::access::{Caller, CallerRef};
use switchpoint::canon::{
    ChatRequest, ChatResponse, Content, Event, Message, Money, Part, Role, RunId,
};
use switchpoint::config::entry::Kind as Entry;
use switchpoint::config::{CacheMode, Config, Store as Settings, StoreUrl};
use switchpoint::error::{Error, Kind};
use switchpoint::gateway::agents::{Receipt, Turn};
use switchpoint::gateway::directory::{Actor, Draft};
use switchpoint::gateway::{Gateway, Snapshot};
use switchpoint::net::client::Client;
use switchpoint::store::Store;
use switchpoint::telemetry::{Format, Log, Telemetry};
use tokio::time::Instant;

use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{REPLY, answer, role, word};
use crate::support::{PATIENCE, Script, Upstream, until};

/// A gateway in this process, and what it logs.
struct House {
    gateway: Arc<Gateway>,
    log: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a turn came to.
struct Taken {
    heard: Vec<Event>,
    answer: Result<ChatResponse, Error>,
    receipt: Receipt,
}

impl House {
    fn of(upstream: &Upstream, more: &str) -> Self {
        let sections = format!(
            "[keys.test]\nsecret = \"{KEY}\"\ntags = {{ env = \"t\" }}\n{}{more}",
            provider("up", upstream)
        );
        let config = Config::parse(
            &sections,
            Path::new("switchpoint.toml"),
            &["openai-compatible", "anthropic"],
        )
        .unwrap_or_else(|problems| panic!("{problems:?}"));
        let client = Client::new(1);
        let snapshot =
            Snapshot::build(config, 1, (&client, Arc::default(), Arc::default())).unwrap();
        let log = Lines::default();
        let writer = Log::start(Format::Json, true, Box::new(log.clone())).unwrap();
        let store = Store::open(&Settings::at(StoreUrl::Memory)).unwrap();
        let gateway = Gateway::new(snapshot, client, store, Telemetry::new(writer).unwrap());
        Self { gateway, log }
    }

    async fn admit(&self, secret: &str) -> Result<Caller, Error> {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_str(secret).unwrap());
        self.gateway.admit(&self.gateway.snapshot(), &headers, None).await
    }

    async fn turn(&self, request: ChatRequest) -> Turn {
        Turn {
            caller: self.admit(KEY).await.unwrap(),
            request,
            run: RunId::new(),
            agent: "support".into(),
            version: "7".into(),
            step: 1,
            guarded: Vec::new(),
            headers: Vec::new(),
            labels: BTreeMap::new(),
            session: 7,
            trace: None,
            deadline: Instant::now() + PATIENCE,
            cache: None,
            user: None,
            avoids: None,
            rate_limit_tries: 2,
            receipt: Arc::default(),
        }
    }

    async fn take(&self, turn: Turn) -> Taken {
        let mut heard = Vec::new();
        let (answer, receipt) =
            self.gateway.turn(turn, &mut |event| heard.push(event.clone())).await;
        Taken { heard, answer, receipt }
    }

    async fn ask(&self, request: ChatRequest) -> Taken {
        let turn = self.turn(request).await;
        self.take(turn).await
    }

    /// The records of calls, as soon as there are so many.
    async fn records(&self, count: usize) -> Vec<Value> {
        let read = || {
            let bytes = self.log.0.lock().unwrap().clone();
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.filter(|line| line["message"] == "call").collect::<Vec<_>>()
        };
        until("calls are recorded", || read().len() >= count).await;
        read()
    }
}

fn question(model: &str, stream: bool) -> ChatRequest {
    ChatRequest {
        model: model.to_owned(),
        stream,
        messages: vec![Message::new(Role::User, vec![Part::text("Hi")])],
        ..ChatRequest::default()
    }
}

fn said(response: &ChatResponse) -> String {
    response.choices[0].parts.iter().filter_map(Part::as_text).collect()
}

/// The text that was heard, piece by piece.
fn pieces(heard: &[Event]) -> Vec<String> {
    let text = |event: &Event| match event {
        Event::Delta { delta: switchpoint::canon::Delta::Text(text), .. } => Some(text.clone()),
        _ => None,
    };
    heard.iter().filter_map(text).collect()
}

/// An upstream that answers, whole and streamed.
async fn willing() -> Upstream {
    let whole = [Script::json(200, REPLY)];
    Upstream::start([("a", whole), ("a?stream", [Script::stream(answer())])]).await
}

fn priced() -> String {
    let price = "\n[models.\"up/a\"]\nprice = { input = 1.0, output = 10.0 }\n";
    format!("{}{price}", route("r", &["up/a"], ""))
}

#[tokio::test]
async fn an_answer_is_heard_as_it_comes_and_given_whole_with_what_it_cost() {
    let upstream = willing().await;
    let house = House::of(&upstream, &priced());
    for stream in [true, false] {
        let taken = house.ask(question("r", stream)).await;
        let response = taken.answer.unwrap();
        assert_eq!(said(&response), "Hello there.");
        let expected: &[&str] = if stream { &["Hello", " there."] } else { &["Hello there."] };
        assert_eq!(pieces(&taken.heard), expected);
        assert_eq!(taken.heard.last(), Some(&Event::End));
        let receipt = taken.receipt;
        assert_eq!((receipt.usage.input, receipt.usage.output), (11, 4));
        assert_eq!(receipt.cost, Some(Money::from_nanos(11_000 + 40_000)));
        assert_eq!((receipt.attempts, receipt.fallback_level, receipt.cached), (1, 0, false));
        assert_eq!(
            (receipt.provider.as_deref(), receipt.model.as_deref()),
            (Some("up"), Some("a"))
        );
        assert!(!receipt.estimated && receipt.failed.is_empty());
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_turn_is_one_record_that_names_its_run_its_agent_and_its_caller() {
    let upstream = willing().await;
    let house = House::of(&upstream, &priced());
    let turn = house.turn(question("r", true)).await;
    let run = turn.run.to_string();
    assert!(house.take(turn).await.answer.is_ok());
    let records = house.records(1).await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record["surface"], "agent_turn");
    assert_eq!(record["purpose"], "agent");
    assert_eq!((&record["key"], &record["route"]), (&json!("test"), &json!("r")));
    assert_eq!(record["outcome"], "ok");
    assert_eq!((&record["run_id"], &record["agent"]), (&json!(run), &json!("support")));
    let place = (&record["version"], &record["step"], &record["event"]);
    assert_eq!(place, (&json!("7"), &json!(1), &json!("call")));
}

#[tokio::test]
async fn what_breaks_off_is_an_error_and_who_answers_instead_is_named() {
    let cut = Script::stream_head().chunks([role(), word("Hel")]).close();
    let upstream = Upstream::start([
        ("cut", [cut]),
        ("down", [Script::json(500, "{}")]),
        ("a?stream", [Script::stream(answer())]),
    ])
    .await;
    let routes = [route("cut", &["up/cut"], ""), route("r", &["up/down", "up/a"], "")].concat();
    let house = House::of(&upstream, &routes);
    let broken = house.ask(question("cut", true)).await;
    assert_eq!(broken.answer.unwrap_err().kind, Kind::StreamTruncated);
    assert_eq!(pieces(&broken.heard), ["Hel"]);
    assert!(broken.receipt.estimated && broken.receipt.failed.len() == 1);
    let answered = house.ask(question("r", true)).await;
    assert!(answered.answer.is_ok());
    assert_eq!((answered.receipt.attempts, answered.receipt.fallback_level), (2, 1));
    assert_eq!(&*answered.receipt.failed[0].model, "down");
    assert_eq!(answered.receipt.model.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_turn_that_is_dropped_ends_its_request_and_is_recorded_once() {
    let hanging = Script::stream_head().chunks([role(), word("Hel")]).stall();
    let upstream = Upstream::start([("a", [hanging])]).await;
    let house = House::of(&upstream, &route("r", &["up/a"], ""));
    let turn = house.turn(question("r", true)).await;
    let (told, mut hears) = tokio::sync::mpsc::channel(16);
    let mut hear = |event: &Event| {
        if matches!(event, Event::Delta { .. }) {
            let _ = told.try_send(());
        }
    };
    tokio::select! {
        _ = house.gateway.turn(turn, &mut hear) => panic!("it never ends"),
        () = async { hears.recv().await; } => {}
    }
    until("the upstream is left", || upstream.open_connections() == 0).await;
    let records = house.records(1).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["outcome"], "client_closed");
}

#[tokio::test]
async fn a_turn_ends_at_its_deadline() {
    let upstream = Upstream::start([("a", [Script::default().stall()])]).await;
    let house = House::of(&upstream, &route("r", &["up/a"], ""));
    let turn = house.turn(question("r", false)).await;
    let turn = Turn { deadline: Instant::now() + Duration::from_millis(50), ..turn };
    let taken = house.take(turn).await;
    assert_eq!(taken.answer.unwrap_err().kind, Kind::UpstreamTimeout);
}

#[tokio::test]
async fn a_run_goes_where_its_agent_leads_but_never_to_models_that_its_caller_may_not_have() {
    let upstream = willing().await;
    let keys = "[keys.small]\nsecret = \"sk-small\"\nroutes = [\"agent/*\"]\n\
        [keys.other]\nsecret = \"sk-other\"\nmodels = [\"up/b\"]\n";
    let house = House::of(&upstream, &format!("{}{keys}", priced()));
    let caller = house.admit("sk-small").await.unwrap();
    assert!(!caller.may_call("r"));
    let turn = Turn { caller, ..house.turn(question("r", false)).await };
    assert!(house.take(turn).await.answer.is_ok());
    let caller = house.admit("sk-other").await.unwrap();
    let turn = Turn { caller, ..house.turn(question("r", false)).await };
    assert!(house.take(turn).await.answer.is_err());
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn the_limits_of_the_callers_key_hold_for_its_runs() {
    let upstream = willing().await;
    let key = "[keys.slow]\nsecret = \"sk-slow\"\nlimits = { requests = \"1/h\" }\n";
    let house = House::of(&upstream, &format!("{}{key}", priced()));
    let caller = house.admit("sk-slow").await.unwrap();
    let turn = async || Turn { caller: caller.clone(), ..house.turn(question("r", true)).await };
    assert!(house.take(turn().await).await.answer.is_ok());
    let refused = house.take(turn().await).await;
    assert_eq!(refused.answer.unwrap_err().kind, Kind::RateLimited);
    assert_eq!(refused.receipt.attempts, 0);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn guards_look_at_what_a_run_asks_and_at_what_it_is_answered() {
    let events = [role(), word("call ann@"), word("example.com, ABSTRACT"), word("ION")];
    let spoken = Script::stream(events.into_iter().chain(answer().split_off(3)));
    let upstream = Upstream::start([("a", [spoken])]).await;
    let guards = "[guards.mask]\nkind = \"pii\"\nstage = [\"input\", \"output\"]\n\
        action = \"mask\"\n[guards.words]\nkind = \"pattern\"\nstage = [\"output\"]\n\
        action = \"block\"\nwords = [\"abstraction\"]\n";
    let routes = [
        route("masked", &["up/a"], "guards = [\"mask\"]"),
        route("blocked", &["up/a"], "guards = [\"words\"]"),
    ];
    let house = House::of(&upstream, &format!("{}{guards}", routes.concat()));
    let mut asked = question("masked", true);
    asked.messages[0].parts = vec![Part::text("I am bob@example.com")];
    let masked = house.ask(asked).await;
    let text = said(&masked.answer.unwrap());
    assert!(text.starts_with("call [EMAIL_"), "{text}");
    assert_eq!(pieces(&masked.heard).concat(), text);
    let body = String::from_utf8(upstream.requests()[0].body.to_vec()).unwrap();
    assert!(body.contains("[EMAIL_1]") && !body.contains("bob@"), "{body}");
    let blocked = house.ask(question("blocked", true)).await;
    assert_eq!(blocked.answer.unwrap_err().kind, Kind::GuardBlocked);
    assert!(!pieces(&blocked.heard).concat().contains("ABSTRACTION"));
    assert_eq!(house.records(2).await[1]["outcome"], "guard_blocked");
}

#[tokio::test]
async fn a_question_that_was_answered_is_not_asked_again_unless_the_run_wants_that() {
    let upstream = willing().await;
    let lines = "cache = { mode = \"on\", sampled = true }";
    let house = House::of(&upstream, &route("r", &["up/a"], lines));
    let first = house.ask(question("r", true)).await;
    assert!(!first.receipt.cached);
    let again = house.ask(question("r", true)).await;
    assert_eq!(said(&again.answer.unwrap()), "Hello there.");
    assert!(again.receipt.cached && again.receipt.cost.is_none_or(|cost| cost.nanos() == 0));
    assert_eq!(again.receipt.attempts, 0);
    assert_eq!(pieces(&again.heard).concat(), "Hello there.");
    assert_eq!(upstream.requests().len(), 1);
    let turn = house.turn(question("r", true)).await;
    let anew = house.take(Turn { cache: Some(CacheMode::Off), ..turn }).await;
    assert!(!anew.receipt.cached);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn what_a_provider_wants_back_is_given_to_the_run_and_back_again() {
    let thought = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use", "usage": {"input_tokens": 5, "output_tokens": 6},
    });
    let upstream = Upstream::start([("claude", [Script::json(200, &thought.to_string())])]).await;
    let base = format!("http://{}", upstream.address);
    let anthropic = format!(
        "[providers.claude]\nkind = \"anthropic\"\nbase_url = \"{base}\"\napi_key = \"sk-up\"\n{}",
        route("think", &["claude/claude"], "")
    );
    let house = House::of(&upstream, &anthropic);
    let response = house.ask(question("think", false)).await.answer.unwrap();
    let parts = &response.choices[0].parts;
    assert!(matches!(&parts[0].content, Content::Reasoning(it) if it.text == "I should look."));
    let mut next = question("think", false);
    next.messages.push(Message::new(Role::Assistant, parts.clone()));
    let result = switchpoint::canon::ToolResult {
        id: "toolu_1".to_owned(),
        name: None,
        parts: vec![Part::text("found")],
        is_error: false,
        custom: false,
    };
    let result = Part::new(Content::ToolResult(result));
    next.messages.push(Message::new(Role::Tool, vec![result]));
    assert!(house.ask(next).await.answer.is_ok());
    let body: Value = serde_json::from_slice(&upstream.requests()[1].body).unwrap();
    assert_eq!(body["messages"][1]["content"][0], thought["content"][0], "{body}");
    assert_eq!(body["messages"][1]["content"][1]["id"], "toolu_1");
}

#[tokio::test]
async fn a_route_by_task_tells_what_a_run_wants() {
    let upstream = Upstream::start([
        ("code", [Script::json(200, REPLY)]),
        ("talk", [Script::json(200, REPLY)]),
    ])
    .await;
    let auto = "[routes.auto]\nstrategy = \"task\"\ntasks = { code = \"code\" }\n\
        default = \"talk\"\n";
    let routes = [route("code", &["up/code"], ""), route("talk", &["up/talk"], "")].concat();
    let house = House::of(&upstream, &format!("{routes}{auto}"));
    let mut asked = question("auto", false);
    asked.messages[0].parts = vec![Part::text("Fix this function: fn main() { let x: i32 = ; }")];
    assert!(house.ask(asked).await.answer.is_ok());
    assert_eq!(upstream.only_request().model, "code");
}

#[tokio::test]
async fn a_caller_is_known_again_by_name_until_the_key_is_gone() {
    let upstream = willing().await;
    let house = House::of(&upstream, &priced());
    let known = CallerRef::of(&house.admit(KEY).await.unwrap());
    let kept = serde_json::to_string(&known).unwrap();
    assert!(!kept.contains(KEY));
    let known: CallerRef = serde_json::from_str(&kept).unwrap();
    let again = house.gateway.recognise(&known).await.unwrap();
    assert_eq!((&**again.key(), &**again.owner()), ("test", "test"));
    let (actor, settings) = (Actor::owner("ann"), json!({"tags": {"a": "b"}}));
    let draft = Draft { id: None, settings, idempotency: None };
    let made = house.gateway.create_entry(&actor, Entry::Key, draft).await.unwrap();
    let made_key = made.secret.unwrap();
    let known = CallerRef::of(&house.admit(made_key.expose()).await.unwrap());
    assert_eq!(house.gateway.recognise(&known).await.unwrap().tag("a"), Some("b"));
    house.gateway.revoke_key(&actor, &made.entry.id).await.unwrap();
    assert_eq!(house.gateway.recognise(&known).await.unwrap_err().kind, Kind::KeyRevoked);
    let nobody = CallerRef { key: "gone".to_owned(), ..known };
    assert_eq!(house.gateway.recognise(&nobody).await.unwrap_err().kind, Kind::KeyRevoked);
    let visitor = CallerRef {
        key: "oidc:corp".to_owned(),
        owner: "oidc:corp:ann".to_owned(),
        user: Some("corp:ann".to_owned()),
        ..nobody
    };
    assert_eq!(house.gateway.recognise(&visitor).await.unwrap_err().kind, Kind::KeyRevoked);
}
