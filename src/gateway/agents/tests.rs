//! What a call for an agent comes to at each door, by the words that a run says.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Commission, Conductor, Doing, Performance, Report, RunWishes};
use crate::access::Caller;
use crate::cache::Tape;
use crate::canon::{
    ChatRequest, Content, Delta, Dialect, Event, Finish, FinishReason, Foreign, Message, Money,
    Opening, Owner, Part, Role, RunId, RunState, Start, Surface, Usage,
};
use crate::config::{Config, OnLeave, Store as Settings, StoreUrl, StreamMode};
use crate::error::{Error, Kind};
use crate::gateway::{Arrival, Ask, Body, Gateway, Snapshot};
use crate::net::client::Client;
use crate::net::patience::Pulse;
use crate::store::{AuditFilter, Store};
use crate::telemetry::{Format, Log, Telemetry};

const FILE: &str = r#"
[providers.demo]
kind = "demo"
[routes.fast]
targets = ["demo/demo"]
[keys.ci]
secret = "sk-ci"
[keys.small]
secret = "sk-small"
agents = ["other"]
[keys.plain]
secret = "sk-plain"
routes = ["fast"]
[guards.words]
kind = "pattern"
stage = ["input", "output"]
action = "block"
words = ["aurora"]
[agents.support]
description = "Helps."
route = "fast"
instructions = "Help."
guards = ["words"]
"#;

/// One run, which says what a test has it say.
#[derive(Debug, Clone)]
struct Run {
    tape: Arc<Tape>,
    report: Arc<watch::Sender<Report>>,
    seen: Arc<Mutex<Vec<Commission>>>,
    cancelled: Arc<watch::Sender<u32>>,
}

impl Run {
    /// Waits until somebody has asked for it.
    async fn wait_until_asked(&self) {
        while self.seen.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    fn new() -> Self {
        let report = Report {
            state: RunState::Running,
            reason: None,
            steps: 2,
            model_calls: 2,
            tool_calls: 1,
            usage: Usage::default(),
            cost: Some(Money::from_nanos(1_500_000)),
            approvals: Vec::new(),
            degraded_tools: Vec::new(),
            degraded: false,
            confidence: None,
            fallback_level: 0,
            recalled: false,
        };
        Self {
            tape: Arc::default(),
            report: Arc::new(watch::Sender::new(report)),
            seen: Arc::default(),
            cancelled: Arc::new(watch::Sender::new(0)),
        }
    }

    fn says(&self, events: Vec<Event>) {
        self.tape.push(events, usize::MAX);
    }

    fn begins(&self) {
        self.says(vec![Event::Start(Start::default())]);
    }

    fn says_text(&self, text: &str) {
        let delta = Delta::Text(text.to_owned());
        self.says(vec![
            Event::Open { choice: 0, part: Opening::Text },
            Event::Delta { choice: 0, delta },
            Event::Close { choice: 0 },
        ]);
    }

    fn ends(&self, state: RunState, reason: FinishReason) {
        self.report.send_modify(|report| report.state = state);
        let usage = Usage { input: 30, output: 12, ..Usage::default() };
        let finish = Finish { reason, ..Finish::default() };
        self.says(vec![Event::Finish { choice: 0, finish }, Event::Usage(usage), Event::End]);
        self.tape.end();
    }

    /// All of a short answer.
    fn answers(&self, text: &str) {
        self.begins();
        self.says(vec![Event::Aside("step 1 execute_tool order_lookup".to_owned())]);
        self.says_text(text);
        self.ends(RunState::Completed, FinishReason::Stop);
    }

    fn performance(&self, run: RunId) -> Performance {
        Performance {
            run,
            version: "3".into(),
            follower: self.tape.follow().unwrap(),
            report: self.report.subscribe(),
            stream: StreamMode::Live,
            again: None,
        }
    }

    fn commission(&self) -> Commission {
        self.seen.lock().unwrap().pop().unwrap()
    }
}

impl Conductor for Run {
    fn conduct(&self, commission: Box<Commission>) -> Doing<Result<Performance, Error>> {
        let run = RunId::parse(&format!("run_{}", commission.answer_id)).unwrap();
        let stream = commission.wishes.stream.unwrap_or_default();
        self.seen.lock().unwrap().push(*commission);
        let performance = Performance { stream, ..self.performance(run) };
        Box::pin(async move { Ok(performance) })
    }

    fn cancel(&self, _run: RunId, _owner: Owner) -> Doing<Result<(), Error>> {
        self.cancelled.send_modify(|times| *times += 1);
        self.report.send_modify(|report| report.state = RunState::Cancelled);
        self.tape.fail(Some(Error::invalid("It was called off.")));
        Box::pin(async { Ok(()) })
    }

    fn rejoin(
        &self,
        run: RunId,
        _since: u64,
        _owner: Owner,
    ) -> Doing<Result<Option<Performance>, Error>> {
        let performance = self.performance(run);
        Box::pin(async move { Ok(Some(performance)) })
    }
}

fn store() -> Store {
    Store::open(&Settings::at(StoreUrl::Memory)).unwrap()
}

fn house_on(store: Store, run: &Run) -> Arc<Gateway> {
    let config = Config::parse(FILE, Path::new("switchpoint.toml"), &["demo"]);
    let config = config.unwrap_or_else(|problems| panic!("{problems:?}"));
    let client = Client::new(1);
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default())).unwrap();
    let log = Log::start(Format::Text, false, Box::new(std::io::sink())).unwrap();
    let gateway = Gateway::new(snapshot, client, store, Telemetry::new(log).unwrap());
    gateway.set_conductor(Arc::new(run.clone()));
    gateway
}

fn house(run: &Run) -> Arc<Gateway> {
    house_on(store(), run)
}

async fn caller(house: &Gateway, secret: &str) -> Caller {
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(secret).unwrap());
    house.admit(&house.snapshot(), &headers, None).await.unwrap()
}

async fn ask(
    house: &Arc<Gateway>,
    surface: Surface,
    secret: &str,
    headers: &[(&'static str, &str)],
    body: &Value,
) -> Response<Body> {
    let mut map = HeaderMap::new();
    map.insert("x-api-key", HeaderValue::from_str(secret).unwrap());
    for (name, value) in headers {
        map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let (model, stream) = match surface {
        Surface::Generate => (Some("agent/support".to_owned()), Some(true)),
        _ => (None, None),
    };
    let (relay, filed, explains, id) = (None, None, false, None);
    let arrival = Arrival {
        ask: Ask { surface, model, stream, relay, filed, explains, id },
        headers: map,
        body: Full::new(Bytes::from(body.to_string())),
        permit: house.gauge.acquire(),
        busy: Pulse::default().busy(),
    };
    house.answer(arrival).await
}

async fn chat(
    house: &Arc<Gateway>,
    headers: &[(&'static str, &str)],
    more: &Value,
) -> Response<Body> {
    let mut body = json!({
        "model": "agent/support", "messages": [{"role": "user", "content": "Where is it?"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(house, Surface::Chat, "sk-ci", headers, &body).await
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn read(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The data of a stream's events.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[tokio::test]
async fn a_whole_answer_tells_of_its_run_and_sums_up_what_it_used() {
    let run = Run::new();
    run.answers("In Bonn.");
    let house = house(&run);
    let response = chat(&house, &[("x-switchpoint-session", "s1")], &json!({"user": "ann"})).await;
    assert_eq!(response.status(), 200);
    let commission = run.commission();
    let id = format!("run_{}", commission.answer_id);
    assert_eq!(header(&response, "x-switchpoint-run-id"), id);
    assert_eq!(header(&response, "x-switchpoint-agent-version"), "3");
    assert_eq!(header(&response, "x-switchpoint-agent-steps"), "2");
    assert_eq!(header(&response, "x-switchpoint-cost-usd"), "0.0015");
    assert_eq!(header(&response, "x-switchpoint-route"), "agent/support");
    let answer = read(response).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "In Bonn.");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 42);
    assert_eq!(answer["model"], "agent/support");
    let told = &answer["x_agent"];
    assert_eq!((&told["run_id"], &told["status"]), (&json!(id), &json!("completed")));
    assert_eq!((&told["steps"], &told["cost_usd"]), (&json!(2), &json!(0.0015)));
    assert_eq!(commission.agent, "support");
    assert_eq!(commission.wishes.session.as_deref(), Some("s1"));
    assert_eq!(commission.wishes.user.as_deref(), Some("ann"));
    assert_eq!(commission.request.messages[0].text(), "Where is it?");
}

#[tokio::test]
async fn a_stream_has_one_end_and_tells_of_work_in_comments_only() {
    let run = Run::new();
    run.answers("In Bonn.");
    let stream = text(chat(&house(&run), &[], &json!({"stream": true})).await).await;
    assert!(
        stream.contains("\n: step 1 execute_tool order_lookup\n\n") || stream.starts_with(": "),
        "{stream}"
    );
    assert_eq!(stream.matches("data: [DONE]").count(), 1, "{stream}");
    let events = events(&stream);
    let finished = |event: &&Value| event["choices"][0]["finish_reason"].is_string();
    let ends: Vec<&Value> = events.iter().filter(finished).collect();
    assert_eq!(ends.len(), 1, "{stream}");
    assert_eq!(ends[0]["x_agent"]["status"], "completed");
    assert!(events.iter().filter(|event| !finished(event)).all(|it| it.get("x_agent").is_none()));
    let said = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(said.collect::<String>(), "In Bonn.");
}

#[tokio::test]
async fn who_wants_the_steps_gets_pieces_without_words() {
    let run = Run::new();
    run.answers("In Bonn.");
    let headers = [("x-switchpoint-stream", "steps"), ("x-switchpoint-on-disconnect", "continue")];
    let stream = text(chat(&house(&run), &headers, &json!({"stream": true})).await).await;
    let events = events(&stream);
    let step = events.iter().find(|event| event["x_agent"]["event"].is_string()).unwrap();
    assert_eq!(step["x_agent"]["event"], "step 1 execute_tool order_lookup");
    assert_eq!(step["choices"][0]["delta"], json!({}));
    assert_eq!(step["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(run.commission().wishes.on_disconnect, Some(OnLeave::Continue));
    let odd = chat(&house(&run), &[("x-switchpoint-stream", "all")], &json!({})).await;
    assert_eq!(odd.status(), 400);
}

#[tokio::test]
async fn the_other_doors_speak_their_own_language() {
    let run = Run::new();
    run.answers("In Bonn.");
    let house = house(&run);
    let messages = json!([{"role": "user", "content": "Where?"}]);
    let body = json!({"model": "agent/support", "max_tokens": 50, "messages": messages});
    let whole = read(ask(&house, Surface::Messages, "sk-ci", &[], &body).await).await;
    assert_eq!(whole["content"][0]["text"], "In Bonn.");
    assert_eq!(
        (&whole["stop_reason"], &whole["x_agent"]["steps"]),
        (&json!("end_turn"), &json!(2))
    );
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let stream = text(ask(&house, Surface::Messages, "sk-ci", &[], &streamed).await).await;
    assert_eq!(stream.matches("event: message_stop").count(), 1, "{stream}");
    assert!(stream.contains(": step 1 execute_tool order_lookup\n\n"), "{stream}");
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "Where?"}]}]});
    let stream = text(ask(&house, Surface::Generate, "sk-ci", &[], &body).await).await;
    assert!(
        stream.contains("In Bonn.") && stream.contains("\"finishReason\":\"STOP\""),
        "{stream}"
    );
}

#[tokio::test]
async fn an_agent_is_for_those_whose_key_says_so_and_the_rest_is_on_record() {
    let run = Run::new();
    let house = house(&run);
    let body = json!({"model": "agent/support", "messages": [{"role": "user", "content": "Hi"}]});
    for secret in ["sk-small", "sk-plain"] {
        let refused = ask(&house, Surface::Chat, secret, &[], &body).await;
        assert_eq!(refused.status(), 403);
        assert_eq!(read(refused).await["error"]["code"], "agent_not_allowed");
        assert_eq!(house.snapshot().agents(&caller(&house, secret).await).count(), 0);
    }
    let allowed = caller(&house, "sk-ci").await;
    assert_eq!(house.snapshot().agents(&allowed).collect::<Vec<_>>(), ["support"]);
    let unknown = chat(&house, &[], &json!({"model": "agent/nobody"})).await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(read(unknown).await["error"]["code"], "agent_not_found");
    let many = chat(&house, &[], &json!({"n": 2})).await;
    assert_eq!(many.status(), 400);
    let vectors = json!({"model": "agent/support", "input": "Hi"});
    assert_eq!(ask(&house, Surface::Embeddings, "sk-ci", &[], &vectors).await.status(), 400);
    assert!(run.seen.lock().unwrap().is_empty());
    let rows = loop {
        let rows = house.store().audits(&AuditFilter::default(), None, 10).await.unwrap();
        if rows.len() >= 2 {
            break rows;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (rows[0].1.what.as_str(), rows[0].1.subject.as_str()),
        ("agent.refused", "agent:support")
    );
}

#[tokio::test]
async fn guards_look_at_the_question_and_at_what_the_run_says() {
    let run = Run::new();
    let house = house(&run);
    let asked = json!({"messages": [{"role": "user", "content": "Tell me of Aurora."}]});
    run.answers("It is Aurora.");
    chat(&house, &[], &asked).await;
    let blocked = run.commission().blocked.unwrap();
    assert!(!blocked.contains("Aurora"), "{blocked}");
    let refused = chat(&house, &[], &json!({})).await;
    assert_eq!(header(&refused, "x-switchpoint-run-id").len(), 36);
    assert_eq!(read(refused).await["error"]["code"], "guard_blocked");
    let stream = text(chat(&house, &[], &json!({"stream": true})).await).await;
    assert!(!stream.contains("Aurora"), "{stream}");
}

#[tokio::test]
async fn a_run_that_fails_before_its_first_word_is_refused_and_later_it_breaks_off() {
    for stream in [false, true] {
        let run = Run::new();
        let house = house(&run);
        run.begins();
        let more = json!({ "stream": stream });
        let failing = async {
            run.wait_until_asked().await;
            run.tape.fail(Some(Error::new(Kind::RateLimited, "Too many runs.")));
        };
        let (refused, ()) = tokio::join!(chat(&house, &[], &more), failing);
        assert_eq!(refused.status(), 429, "{stream}");
        assert_eq!(read(refused).await["error"]["message"], "Too many runs.");
    }
    let run = Run::new();
    run.begins();
    run.says_text("In ");
    let response = chat(&house(&run), &[], &json!({"stream": true})).await;
    assert_eq!(response.status(), 200);
    run.tape.fail(Some(Error::new(Kind::UpstreamUnavailable, "No model answers.")));
    let stream = text(response).await;
    assert!(stream.contains("No model answers."), "{stream}");
    assert!(stream.contains("upstream_unavailable"), "{stream}");
}

#[tokio::test]
async fn a_run_is_told_when_its_client_has_left() {
    let run = Run::new();
    run.begins();
    run.says_text("In ");
    let house = house(&run);
    let response = chat(&house, &[], &json!({"stream": true})).await;
    assert_eq!(run.tape.followers(), 1);
    drop(response);
    run.tape.deserted().await;
}

fn item() -> Event {
    let value = json!({
        "type": "mcp_approval_request", "id": "mcpr_1", "server_label": "switchpoint",
        "name": "refund", "arguments": "{}",
    });
    let part = Opening::Foreign(Foreign { dialect: Dialect::Responses, value });
    Event::Open { choice: 0, part }
}

#[tokio::test]
async fn a_response_has_items_of_tools_and_the_next_one_goes_on_from_its_run() {
    let run = Run::new();
    run.begins();
    run.says(vec![item(), Event::Close { choice: 0 }]);
    run.report.send_modify(|report| report.reason = Some("budget"));
    run.ends(RunState::WaitingApproval, FinishReason::Stop);
    let house = house(&run);
    let body = json!({"model": "agent/support", "input": "Refund it.", "metadata": {"a": "b"}});
    let first = read(ask(&house, Surface::Responses, "sk-ci", &[], &body).await).await;
    let id = format!("run_{}", run.commission().answer_id);
    assert_eq!(first["output"][0]["type"], "mcp_approval_request", "{first}");
    assert_eq!(first["status"], "completed");
    let metadata = json!({"a": "b", "switchpoint_run_id": id, "agent_stop_reason": "budget"});
    assert_eq!(first["metadata"], metadata);
    assert_eq!(first["x_agent"]["status"], "waiting_approval");
    let approval = json!([{
        "type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": true,
    }]);
    let next = json!({
        "model": "agent/support", "input": approval, "previous_response_id": first["id"],
        "stream": true,
    });
    let stream = text(ask(&house, Surface::Responses, "sk-ci", &[], &next).await).await;
    let commission = run.commission();
    assert_eq!(commission.previous, RunId::parse(&id));
    let part = &commission.request.messages[0].parts[0];
    assert!(matches!(&part.content, Content::Foreign(it) if it.value["approve"] == true));
    let events = events(&stream);
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap().clone();
    assert_eq!(of("response.output_item.done")["output_index"], 0);
    assert_eq!(of("response.output_item.done")["item"]["id"], "mcpr_1");
    assert!(of("response.created")["response"]["metadata"]["switchpoint_run_id"].is_string());
    assert_eq!(of("response.completed")["response"]["metadata"]["agent_stop_reason"], "budget");
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

async fn in_background(house: &Arc<Gateway>, stream: bool) -> Response<Body> {
    let body = json!({
        "model": "agent/support", "input": "Hi", "background": true, "stream": stream,
    });
    ask(house, Surface::Responses, "sk-ci", &[], &body).await
}

/// How a response stands, as soon as it is no more as it was.
async fn settled(house: &Arc<Gateway>, id: &str) -> Value {
    let owner = Owner::new("ci");
    loop {
        let response = house.response(&owner, id).await.unwrap();
        if !["queued", "in_progress"].contains(&response["status"].as_str().unwrap()) {
            return response;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn in_the_background_a_run_is_fetched_and_called_off() {
    let run = Run::new();
    let house = house(&run);
    let begun = read(in_background(&house, false).await).await;
    assert_eq!(begun["status"], "queued");
    assert!(run.commission().background);
    let id = begun["id"].as_str().unwrap();
    run.answers("In Bonn.");
    let done = settled(&house, id).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["output"][0]["content"][0]["text"], "In Bonn.");
    assert_eq!(done["metadata"]["switchpoint_run_id"], begun["metadata"]["switchpoint_run_id"]);
    assert_eq!((&done["background"], &done["x_agent"]["steps"]), (&json!(true), &json!(2)));
    let run = Run::new();
    let house = self::house(&run);
    let begun = read(in_background(&house, false).await).await;
    let id = begun["id"].as_str().unwrap();
    let cancelled = house.cancel_response(&Owner::new("ci"), id).await.unwrap();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(*run.cancelled.borrow(), 1);
    assert_eq!(settled(&house, id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_stream_in_the_background_outlives_its_client_and_is_joined_again() {
    let run = Run::new();
    run.begins();
    let house = house(&run);
    let mut response = in_background(&house, true).await;
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    let first = events(std::str::from_utf8(&first).unwrap());
    let id = first[0]["response"]["id"].as_str().unwrap().to_owned();
    drop(response);
    run.says_text("In Bonn.");
    run.ends(RunState::Completed, FinishReason::Stop);
    let done = settled(&house, &id).await;
    assert_eq!((&done["status"], &done["background"]), (&json!("completed"), &json!(true)));
    let owner = Owner::new("ci");
    let joined =
        house.joined(&owner, &id, Some(1), Pulse::default().busy()).await.unwrap().unwrap();
    let stream = text(Response::new(joined)).await;
    let events = events(&stream);
    assert_eq!(events[0]["sequence_number"], 2);
    assert_eq!(events.last().unwrap()["type"], "response.completed");
}

#[tokio::test]
async fn after_a_restart_a_response_stands_as_its_run_does() {
    let (run, store) = (Run::new(), store());
    let before = house_on(store.clone(), &run);
    let begun = read(in_background(&before, false).await).await;
    let id = begun["id"].as_str().unwrap();
    store.flush().await.unwrap();
    let after = house_on(store, &run);
    let owner = Owner::new("ci");
    assert_eq!(after.response(&owner, id).await.unwrap()["status"], "in_progress");
    run.answers("In Bonn.");
    let done = after.response(&owner, id).await.unwrap();
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &json!(id)));
    assert_eq!(done["output"][0]["content"][0]["text"], "In Bonn.");
    assert_eq!(done["metadata"]["switchpoint_run_id"], begun["metadata"]["switchpoint_run_id"]);
}

#[tokio::test]
async fn a_run_is_asked_for_without_a_door_past_the_same_rights_and_guards() {
    let run = Run::new();
    let house = house(&run);
    let request = |text: &str| ChatRequest {
        messages: vec![Message::new(Role::User, vec![Part::text(text)])],
        ..ChatRequest::default()
    };
    let wishes = RunWishes { session: Some("s".to_owned()), ..RunWishes::default() };
    let asked = |secret: &'static str, text: &'static str| {
        let (house, wishes) = (Arc::clone(&house), wishes.clone());
        async move {
            let caller = caller(&house, secret).await;
            house.commission(&caller, "support@7", (request(text), wishes), true).await
        }
    };
    let kind = |asked: Result<Performance, Error>| asked.unwrap_err().kind;
    assert_eq!(kind(asked("sk-small", "Hi").await), Kind::AgentNotAllowed);
    asked("sk-ci", "Aurora").await.unwrap();
    let commission = run.commission();
    // No turn of its conversation.
    assert!(commission.blocked.is_some() && commission.wishes.session.is_none());
    asked("sk-ci", "Hi").await.unwrap();
    let commission = run.commission();
    assert!(commission.blocked.is_none() && commission.wishes.session.is_some());
    assert_eq!((commission.agent.as_str(), commission.background), ("support@7", true));
    assert_eq!(commission.surface, Surface::Run);
}
