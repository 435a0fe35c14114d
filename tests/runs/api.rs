//! The runs of agents over HTTP: begun, followed, held, decided about and ended, each by whoever
//! may, on a gateway with a scripted model and a scripted tool.

use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, open, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{DONE, calls, finish, role, says, usage, word};
use crate::support::script::Gate;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

pub(super) const OTHER: &str = "sk-other-key";
pub(super) const OPERATOR: &str = "sk-operator-key";
pub(super) const LEAD: &str = "sk-lead-key";

/// A gateway with the agents `plain`, `buyer` and `locked`, its model, and its tools' server.
pub(super) struct House {
    pub(super) gateway: Gateway,
    pub(super) model: Upstream,
    pub(super) tools: Upstream,
    pub(super) gate: Gate,
}

const AGENTS: &str = r#"
[agents.plain]
description = "Answers."
route = "fast"
instructions = "Answer."
tools = ["look", "vanish", "ask_user"]
[agents.buyer]
version = 7
route = "fast"
instructions = "Buy."
tools = ["pay"]
[agents.buyer.versions.8]
instructions = "Buy more."
[agents.buyer.rollout]
labels = { candidate = 8 }
weights = { 7 = 100 }
[agents.locked]
route = "fast"
instructions = "Nobody."
access = { keys = ["operator"] }
"#;

/// Keys, tools and agents; the tools' server is at `base`.
fn agents(base: &str) -> String {
    let keys_and_tools = format!(
        r#"
[keys.other]
secret = "{OTHER}"
[keys.operator]
secret = "{OPERATOR}"
role = "operator"
[keys.lead]
secret = "{LEAD}"
tags = {{ role = "lead" }}
tools = ["look"]

[tools.look]
kind = "http"
method = "GET"
url = "{base}/look"
effect = "read"
[tools.pay]
kind = "http"
method = "POST"
url = "{base}/pay"
effect = "once"
approval = {{ roles = ["lead"] }}
undo = {{ tool = "unpay" }}
[tools.vanish]
kind = "http"
method = "POST"
url = "{base}/vanish"
effect = "once"
risk = "normal"
[tools.ask_user]
kind = "builtin"
name = "ask_user"
[tools.unpay]
kind = "http"
method = "POST"
url = "{base}/unpay"
effect = "idempotent"
internal = true
[tools.pay.input]
type = "object"
required = ["amount"]
additionalProperties = false
[tools.pay.input.properties.amount]
type = "integer"
maximum = 100
"#
    );
    keys_and_tools + AGENTS
}

impl House {
    pub(super) async fn new() -> Self {
        let gate = Gate::shut();
        let held = gate.clone();
        let model = Upstream::answering(move |request| mind(request, &held)).await;
        let tools = Upstream::answering(|request| match request.path.as_str() {
            path if path.ends_with("/broken") => Script::json(500, "{}"),
            // It may have been done.
            path if path.ends_with("/vanish") => Script::default().close(),
            _ => Script::json(200, r#"{"paid":true}"#),
        })
        .await;
        let sections = format!(
            "{}{}{}",
            provider("up", &model),
            route("fast", &["up/m"], ""),
            agents(&tools.base()),
        );
        Self { gateway: Gateway::start("", &sections).await, model, tools, gate }
    }

    pub(super) async fn send(&self, key: &str, ask: (Method, &str), body: &Value) -> Answer {
        self.send_with(key, ask, body, &[]).await
    }

    pub(super) async fn send_with(
        &self,
        key: &str,
        (method, path): (Method, &str),
        body: &Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut asked = request(method, path, key, body.into());
        for (name, value) in headers {
            asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        open(self.gateway.address, asked).await.whole().await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, KEY).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(KEY, (Method::POST, path), &body).await
    }

    /// Begins a run and gives its path.
    pub(super) async fn begin(&self, agent: &str, input: &str) -> String {
        let path = format!("/v1/agents/{agent}/runs");
        let answer = self.post(&path, json!({"input": input})).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        let place = answer.header("location").unwrap().to_owned();
        assert!(place.ends_with(answer.json()["id"].as_str().unwrap()));
        place
    }

    /// The run at this path, as soon as it is in this state.
    pub(super) async fn in_state(&self, path: &str, state: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(path).await;
            if run["state"] == state {
                return run;
            }
            assert!(Instant::now() < deadline, "never {state}: {run:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Wants a tool, holds its answer, or says something, by what it was asked.
fn mind(request: &crate::support::upstream::Request, gate: &Gate) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    let text = last["content"].as_str().unwrap_or_default().to_owned();
    let calls = |name: &str, args: Value| calls(&[("call_1", name, &args.to_string())]);
    match text.as_str() {
        _ if last["role"] == "tool" => Script::stream(says("It is done.")),
        "look" => Script::stream(calls("look", json!({}))),
        "pay" => Script::stream(calls("pay", json!({"amount": 5}))),
        "vanish" => Script::stream(calls("vanish", json!({}))),
        "ask" => Script::stream(calls("ask_user", json!({"question": "Which one?"}))),
        "recite" => {
            let words = (1..=30).map(|number| word(&format!("{number} ")));
            let script = Script::stream_head().chunks([role()]).chunks(words).gate(gate);
            script.chunks([finish(), usage(), DONE.to_owned()]).end()
        }
        "hold and look" => {
            let script = Script::stream_head().chunks([role(), word("Wait")]).gate(gate);
            script.chunks(calls("look", json!({})).into_iter().skip(1)).end()
        }
        "hold" => {
            let script = Script::stream_head().chunks([role(), word("Wait")]).gate(gate);
            script.chunks([finish(), usage(), DONE.to_owned()]).end()
        }
        _ => Script::stream(says("Hello there.")),
    }
}

pub(super) fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn types(events: &Value) -> Vec<&str> {
    let rows = events["data"].as_array().unwrap();
    rows.iter().map(|row| row["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_run_is_begun_told_of_and_its_steps_are_read_one_by_one() {
    let house = House::new().await;
    let body = json!({"input": "look", "wait": "10s", "labels": {"ticket": "7"}, "user": "ann"});
    let answer = house.post("/v1/agents/plain/runs", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let run = answer.json();
    assert_eq!((&run["state"], &run["agent"]), (&json!("completed"), &json!("plain")));
    assert_eq!((&run["steps"], &run["tool_calls"]), (&json!(2), &json!(1)));
    assert_eq!(run["usage"]["total_tokens"], 30, "the sum of both calls");
    assert_eq!((&run["labels"]["ticket"], &run["user"]), (&json!("7"), &json!("ann")));
    assert_eq!(run["result"]["text"], "It is done.");
    assert_eq!(answer.header("x-switchpoint-run-id"), run["id"].as_str());
    let path = answer.header("location").unwrap().to_owned();

    let steps = house.get(&format!("{path}/steps")).await;
    let steps = steps["data"].as_array().unwrap();
    let kinds: Vec<_> = steps.iter().map(|step| step["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["model", "tool", "model"]);
    assert_eq!((&steps[1]["tool"], &steps[1]["state"]), (&json!("look"), &json!("completed")));
    assert_eq!(steps[2]["text"], "It is done.");
    assert_eq!(house.tools.requests().len(), 1);
    assert_eq!(house.model.requests().len(), 2);
}

#[tokio::test]
async fn events_are_numbered_without_a_gap_and_taken_up_where_they_were_lost() {
    let house = House::new().await;
    let path = house.begin("plain", "look").await;
    house.in_state(&path, "completed").await;
    let events = format!("{path}/events");
    let json = [("accept", "application/json")];
    let all = house.send_with(KEY, (Method::GET, &events), &Value::Null, &json).await.json();
    assert_eq!(types(&all)[0], "run.created");
    assert_eq!(*types(&all).last().unwrap(), "run.ended");
    let numbers: Vec<u64> =
        all["data"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(all["data"][0]["data"].get("caller").is_none(), "who pays is not told");

    let stream = house.send(KEY, (Method::GET, &events), &Value::Null).await;
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let whole = stream.text().to_owned();
    let ids = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("id: ").map(str::to_owned)).collect()
    };
    assert_eq!(ids(&whole), numbers.iter().map(u64::to_string).collect::<Vec<_>>());
    for lost in ["3", "3.7"] {
        let headers = [("last-event-id", lost)];
        let rest = house.send_with(KEY, (Method::GET, &events), &Value::Null, &headers).await;
        assert_eq!(ids(rest.text()), ids(&whole)[3..]);
    }
    let page = format!("{events}?after=2&limit=2");
    let page = house.send_with(KEY, (Method::GET, &page), &Value::Null, &json).await.json();
    assert_eq!((types(&page).len(), &page["next"]), (2, &json!("4")));
}

#[tokio::test]
async fn whoever_follows_sees_a_run_while_it_goes_on() {
    let house = House::new().await;
    let path = house.begin("plain", "hold").await;
    let asked = request(Method::GET, &format!("{path}/events"), KEY, Vec::new().into());
    let mut stream = open(house.gateway.address, asked).await;
    stream.read_until("model.requested").await;
    house.gate.open();
    let rest = stream.read_until("run.ended").await;
    assert!(rest.contains("event: model.completed"), "{rest}");
    assert!(stream.next().await.is_none(), "the stream ends with the run");
}

#[tokio::test]
async fn a_cancelled_run_stops_its_model_and_stays_cancelled() {
    let house = House::new().await;
    let path = house.begin("plain", "hold").await;
    crate::support::until("the model is asked", || house.model.busy() == 1).await;
    let cancel = format!("{path}/cancel");
    let answer = house.post(&cancel, json!({"mode": "now", "reason": "enough"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    house.in_state(&path, "cancelled").await;
    crate::support::until("the model's socket closes", || house.model.open_connections() == 0)
        .await;
    let again = house.post(&cancel, Value::Null).await;
    assert_eq!((again.status, &again.json()["state"]), (200, &json!("cancelled")));
}

#[tokio::test]
async fn a_run_that_is_over_takes_nothing_more() {
    let house = House::new().await;
    let path = house.begin("plain", "Hi").await;
    house.in_state(&path, "completed").await;
    for (door, body) in [
        ("cancel", Value::Null),
        ("pause", Value::Null),
        ("resume", Value::Null),
        ("input", json!({"request_id": "x", "values": {}})),
        ("resolve", json!({"seq": 1, "outcome": "done"})),
    ] {
        let answer = house.post(&format!("{path}/{door}"), body).await;
        assert_eq!(code(&answer), (409, "invalid_state_transition".to_owned()), "{door}");
    }
    let run = house.get(&path).await;
    assert_eq!(run["state"], "completed");
}

#[tokio::test]
async fn an_approval_is_for_exactly_what_was_looked_at_and_for_those_who_may() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let pending = &run["pending"]["approvals"][0];
    assert_eq!((&pending["tool"], &pending["args"]["amount"]), (&json!("pay"), &json!(5)));
    let door = format!("/v1/agents/approvals/{}", pending["id"].as_str().unwrap());
    let hash = format!("\"{}\"", pending["args_hash"].as_str().unwrap());
    let yes = json!({"decision": "approve", "comment": "fine"});
    let decide = async |key: &str, body: &Value, seen: &str| {
        let headers = [("if-match", seen)];
        let headers = if seen.is_empty() { &headers[..0] } else { &headers[..] };
        house.send_with(key, (Method::POST, &door), body, headers).await
    };
    assert_eq!(code(&decide(OTHER, &yes, &hash).await), (404, "not_found".to_owned()));
    assert_eq!(code(&decide(KEY, &yes, &hash).await), (403, "not_allowed".to_owned()));
    assert_eq!(code(&decide(LEAD, &yes, "").await), (428, "precondition_required".to_owned()));
    assert_eq!(code(&decide(LEAD, &yes, "\"0\"").await), (412, "args_changed".to_owned()));
    let too_much = json!({"decision": "approve", "args": {"amount": 500}});
    assert_eq!(decide(LEAD, &too_much, &hash).await.status, 400);
    assert!(house.tools.requests().is_empty(), "nothing was done so far");

    let edited = json!({"decision": "approve", "args": {"amount": 7}});
    let decided = decide(LEAD, &edited, &hash).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    assert_eq!(decided.json()["state"], "approved");
    assert_eq!(decided.json()["decided_by"], "lead", "by the key, whatever the body says");
    assert_eq!(code(&decide(LEAD, &yes, &hash).await), (409, "already_decided".to_owned()));
    house.in_state(&path, "completed").await;
    let paid = house.tools.only_request();
    assert_eq!(paid.body, r#"{"amount":7}"#);
    assert!(paid.headers.iter().any(|(name, _)| name == "idempotency-key"));
}

#[tokio::test]
async fn a_denied_call_is_never_made_and_the_model_hears_of_it() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = &run["pending"]["approvals"][0];
    let door = format!("/v1/agents/approvals/{}", approval["id"].as_str().unwrap());
    let headers = [("if-match", "*")];
    let no = json!({"decision": "deny", "comment": "too dear"});
    let decided = house.send_with(OPERATOR, (Method::POST, &door), &no, &headers).await;
    assert_eq!(decided.json()["state"], "denied", "{}", decided.text());
    house.in_state(&path, "completed").await;
    assert!(house.tools.requests().is_empty());
    let asked = house.model.requests();
    let told = String::from_utf8(asked.last().unwrap().body.to_vec()).unwrap();
    assert!(told.contains("denied"), "{told}");
}

#[tokio::test]
async fn nobody_sees_the_runs_of_another_key_but_operators() {
    let house = House::new().await;
    let path = house.begin("plain", "Hi").await;
    house.in_state(&path, "completed").await;
    let look =
        async |key: &str, path: &str| house.send(key, (Method::GET, path), &Value::Null).await;
    for door in ["", "/events", "/steps"] {
        let answer = look(OTHER, &format!("{path}{door}")).await;
        assert_eq!(code(&answer), (404, "run_not_found".to_owned()));
        assert_eq!(look(OPERATOR, &format!("{path}{door}")).await.status, 200);
    }
    let cancel = house.send(OTHER, (Method::POST, &format!("{path}/cancel")), &Value::Null).await;
    assert_eq!(cancel.status, 404);
    let list = async |key: &str| look(key, "/v1/agents/runs").await.json()["data"].clone();
    assert_eq!(list(OTHER).await, json!([]));
    assert_eq!(list(OPERATOR).await.as_array().unwrap().len(), 1);
    assert_eq!(list(KEY).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn runs_are_listed_by_what_they_have_in_common_page_by_page() {
    let house = House::new().await;
    for user in ["ann", "bob", "ann"] {
        let body = json!({"input": "Hi", "wait": "10s", "user": user, "labels": {"n": user}});
        house.post("/v1/agents/plain/runs", body).await;
    }
    let count = async |query: &str| {
        let list = house.get(&format!("/v1/agents/runs?{query}")).await;
        list["data"].as_array().unwrap().len()
    };
    assert_eq!(count("user=ann").await, 2);
    assert_eq!(count("label=n=bob").await, 1);
    assert_eq!(count("agent=buyer").await, 0);
    assert_eq!(count("state=completed&since=2020-01-01").await, 3);
    let first = house.get("/v1/agents/runs?limit=2").await;
    let next = first["next"].as_str().unwrap();
    assert_eq!(count(&format!("limit=2&cursor={next}")).await, 1);
    let odd = house.send(KEY, (Method::GET, "/v1/agents/runs?sate=x"), &Value::Null).await;
    assert!(odd.text().contains("did you mean"), "{}", odd.text());
}

#[tokio::test]
async fn agents_and_their_versions_are_shown_to_those_who_may_call_them() {
    let house = House::new().await;
    let agents = house.get("/v1/agents").await;
    let names: Vec<_> =
        agents["data"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["buyer", "plain"]);
    let buyer = house.get("/v1/agents/buyer").await;
    assert_eq!(buyer["definition"]["tools"], json!(["pay"]));
    let versions = house.get("/v1/agents/buyer/versions").await;
    assert_eq!(versions["data"][0]["weight"], 100);
    assert_eq!(versions["data"][1]["labels"], json!(["candidate"]));
    let locked = house.send(KEY, (Method::GET, "/v1/agents/locked"), &Value::Null).await;
    assert_eq!(code(&locked), (404, "agent_not_found".to_owned()));

    let run = house.post("/v1/agents/buyer/runs", json!({"input": "Hi", "version": "candidate"}));
    let run = run.await.json();
    assert_eq!(run["version"], "8");
    let odd = house.post("/v1/agents/buyer/runs", json!({"input": "Hi", "version": "9"})).await;
    assert_eq!(odd.status, 404, "{}", odd.text());
    let locked = house.post("/v1/agents/locked/runs", json!({"input": "Hi"})).await;
    assert_eq!(code(&locked), (403, "agent_not_allowed".to_owned()));
}

#[tokio::test]
async fn a_paused_agent_begins_nothing_until_it_is_resumed() {
    let house = House::new().await;
    let mine = house.post("/v1/agents/plain/pause", Value::Null).await;
    assert_eq!(code(&mine), (403, "not_allowed".to_owned()));
    let pause = (Method::POST, "/v1/agents/plain/pause");
    let paused = house.send(OPERATOR, pause, &Value::Null).await;
    assert_eq!(paused.json()["paused"], true, "{}", paused.text());
    assert_eq!(house.get("/v1/agents/plain").await["paused"], true);
    let path = house.begin("plain", "Hi").await;
    assert_eq!(house.get(&path).await["state"], "queued");
    // What is called off need not begin for that.
    let other = house.begin("plain", "Hi").await;
    house.post(&format!("{other}/cancel"), Value::Null).await;
    house.in_state(&other, "cancelled").await;
    assert_eq!(house.get(&path).await["state"], "queued");
    assert!(house.model.requests().is_empty());
    let resume = (Method::POST, "/v1/agents/plain/resume");
    house.send(OPERATOR, resume, &Value::Null).await;
    house.in_state(&path, "completed").await;
}

#[tokio::test]
async fn what_is_empty_or_left_out_is_not_taken_for_something() {
    let house = House::new().await;
    for session in [String::new(), " ".into(), "x".repeat(2000)] {
        let run = json!({"input": "Hi", "session_id": session});
        let begun = house.post("/v1/agents/plain/runs", run).await;
        assert_eq!(begun.status, 400, "{}", begun.text());
    }
    let door = (Method::POST, "/v1/agents/buyer/labels");
    let moved = house.send(OPERATOR, door, &json!({"label": "candidate"})).await;
    assert_eq!(moved.status, 400, "{}", moved.text());
    assert!(moved.text().contains("`version` is missing"), "{}", moved.text());
}

#[tokio::test]
async fn a_tool_is_called_directly_only_by_whoever_was_given_it() {
    let house = House::new().await;
    let tools = house.get("/v1/tools").await;
    let names: Vec<_> =
        tools["data"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["ask_user", "look", "pay", "vanish"]);
    let call = async |key: &str, tool: &str, args: Value| {
        let path = format!("/v1/tools/{tool}/call");
        house.send(key, (Method::POST, &path), &json!({"args": args})).await
    };
    assert_eq!(code(&call(KEY, "look", json!({})).await), (403, "not_allowed".to_owned()));
    let looked = call(LEAD, "look", json!({})).await;
    assert_eq!(looked.json()["value"], json!({"paid": true}), "{}", looked.text());
    assert_eq!(call(LEAD, "pay", json!({"amount": 1})).await.status, 404);
    let refused = call(OPERATOR, "pay", json!({"amount": 1})).await;
    assert_eq!(code(&refused), (403, "approval_required".to_owned()));
    assert_eq!(call(OPERATOR, "unpay", json!({})).await.status, 200);
    assert_eq!(house.tools.requests().len(), 2);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_is_meant() {
    let house = House::new().await;
    for (body, word) in [
        (json!({}), "`input` is missing"),
        (json!({"input": "Hi", "messages": []}), "not both"),
        (json!({"input": "Hi", "budgte": {}}), "did you mean"),
        (json!({"input": "Hi", "budget": {"usd": -1}}), "number of dollars"),
        (json!({"input": "Hi", "wait": 5}), "must be a text"),
        (json!({"input": "Hi", "on_disconnect": "stay"}), "`cancel` or `continue`"),
    ] {
        let answer = house.post("/v1/agents/plain/runs", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(word), "{body}: {}", answer.text());
    }
    let missing = house.post("/v1/agents/plane/runs", json!({"input": "Hi"})).await;
    assert_eq!(code(&missing), (404, "agent_not_found".to_owned()));
    let path = (Method::GET, "/v1/agents/runs/run_1");
    let odd = house.send(KEY, path, &Value::Null).await;
    assert_eq!(code(&odd), (404, "run_not_found".to_owned()));
    let keyless = house.send("", (Method::GET, "/v1/agents"), &Value::Null).await;
    assert_eq!(code(&keyless), (401, "missing_key".to_owned()));
}

#[tokio::test]
async fn feedback_is_kept_with_its_run() {
    let house = House::new().await;
    let path = house.begin("plain", "Hi").await;
    house.in_state(&path, "completed").await;
    let odd = house.post(&format!("{path}/feedback"), json!({"score": 7})).await;
    assert_eq!(odd.status, 400);
    let body = json!({"score": 1, "label": "good", "comment": "Thanks."});
    let answer = house.post(&format!("{path}/feedback"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let run = house.get(&path).await;
    assert_eq!(run["result"]["feedback"][0]["label"], "good");
}

#[tokio::test]
async fn a_run_is_played_again_without_asking_anybody_or_asked_anew() {
    let house = House::new().await;
    let path = house.begin("plain", "look").await;
    house.in_state(&path, "completed").await;
    let (asked, called) = (house.model.requests().len(), house.tools.requests().len());
    let played = house.post(&format!("{path}/replay"), json!({"mode": "recorded"})).await;
    assert_eq!(played.status, 202, "{}", played.text());
    let place = played.header("location").unwrap().to_owned();
    assert_ne!(place, path);
    let run = house.in_state(&place, "completed").await;
    assert_eq!(
        (&run["result"]["text"], &run["trigger"]),
        (&json!("It is done."), &json!("replay"))
    );
    assert_eq!((house.model.requests().len(), house.tools.requests().len()), (asked, called));

    let live = house.post(&format!("{path}/replay"), json!({"mode": "live"})).await;
    house.in_state(live.header("location").unwrap(), "completed").await;
    assert_eq!(house.model.requests().len(), 2 * asked);

    let odd = house.post(&format!("{path}/replay"), json!({"overrides": {"effects": true}})).await;
    assert_eq!(odd.status, 400, "{}", odd.text());
    let odd = house.post(&format!("{path}/fork"), json!({"at_seq": 999})).await;
    assert_eq!(odd.status, 400, "{}", odd.text());
}

#[tokio::test]
async fn what_a_run_has_done_is_taken_back_on_demand() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let early = house.post(&format!("{path}/compensate"), Value::Null).await;
    assert_eq!(code(&early), (409, "invalid_state_transition".to_owned()));
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap().to_owned();
    let door = format!("/v1/agents/approvals/{approval}");
    let yes = json!({"decision": "approve"});
    house.send_with(LEAD, (Method::POST, &door), &yes, &[("if-match", "*")]).await;
    house.in_state(&path, "completed").await;
    let undone = house.post(&format!("{path}/compensate"), Value::Null).await;
    assert_eq!(undone.status, 202, "{}", undone.text());
    crate::support::until("it is taken back", || house.tools.requests().len() == 2).await;
    assert!(house.tools.requests()[1].path.ends_with("/unpay"));
}
