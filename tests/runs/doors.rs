//! `model = "agent/NAME"` at the ordinary doors: a run looks like an answer, streamed or not, and
//! what the standard has for approvals, background work and cancelling drives it.

use std::path::Path;

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::client::{self, Answer, CHAT, Opened, open, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{DONE, choice, finish, role, usage, word};
use crate::support::script::Gate;
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream, until};

pub(super) const RESPONSES: &str = "/v1/responses";

/// A gateway with the agent `support`, its model and its tools' server.
pub(super) struct House {
    pub(super) gateway: Gateway,
    pub(super) model: Upstream,
    pub(super) tools: Upstream,
    /// Holds what is asked of the tool `lookup`.
    pub(super) gate: Gate,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::on("").await
    }

    pub(super) async fn on(store: &str) -> Self {
        Self::with("", store).await
    }

    /// A gateway with these lines in `[server]`, and these sections before its tools.
    pub(super) async fn with(server: &str, store: &str) -> Self {
        let gate = Gate::shut();
        let held = gate.clone();
        let model = Upstream::answering(mind).await;
        let tools = Upstream::answering(move |request| {
            let body = Script::json(200, r#"{"city":"Bonn"}"#);
            if request.path.contains("stuck") {
                return Script::default().stall();
            }
            let is_held = request.path.contains("lookup");
            if is_held { Script::default().gate(&held).then_all(body) } else { body }
        })
        .await;
        let gateway = Gateway::start(server, &sections(&model, &tools, store)).await;
        Self { gateway, model, tools, gate }
    }

    pub(super) async fn ask(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> Answer {
        self.open(path, headers, body).await.whole().await
    }

    pub(super) async fn open(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> Opened {
        let mut asked = request(Method::POST, path, KEY, body.to_string().into());
        for (name, value) in headers {
            asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        open(self.gateway.address, asked).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, KEY).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A response in the background and what it wants to be let do, as soon as it says so.
    pub(super) async fn wanted(&self, id: &str) -> (Value, Value) {
        loop {
            let response = self.get(&format!("{RESPONSES}/{id}")).await;
            let output = response["output"].as_array().unwrap();
            let wanted = output.iter().find(|item| item["type"] == "mcp_approval_request");
            if let Some(wanted) = wanted.cloned() {
                return (response, wanted);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lets it do that, as a person does.
    pub(super) async fn approve(&self, wanted: &Value) {
        let path = format!("/v1/agents/approvals/{}", wanted["id"].as_str().unwrap());
        let decision = json!({"decision": "approve"});
        let decided = self.ask(&path, &[("if-match", "*")], &decision).await;
        assert_eq!(decided.status, 200, "{}", decided.text());
    }

    /// The response in the background, as soon as it is over.
    pub(super) async fn settled(&self, id: &str) -> Value {
        loop {
            let response = self.get(&format!("{RESPONSES}/{id}")).await;
            if !["queued", "in_progress"].contains(&response["status"].as_str().unwrap()) {
                return response;
            }
            tokio::task::yield_now().await;
        }
    }
}

pub(super) fn sections(model: &Upstream, tools: &Upstream, store: &str) -> String {
    format!(
        r#"{}{}{store}
[keys.small]
secret = "sk-small"
agents = ["other"]
[tools.lookup]
kind = "http"
method = "GET"
url = "{base}/lookup"
effect = "read"
[tools.stuck]
kind = "http"
method = "GET"
url = "{base}/stuck"
effect = "read"
[tools.refund]
kind = "http"
method = "POST"
url = "{base}/refund"
effect = "once"
approval = {{}}
[agents.support]
description = "Helps."
version = 3
route = "fast"
instructions = "Help."
tools = ["lookup", "refund", "stuck"]
"#,
        provider("up", model),
        route("fast", &["up/m"], ""),
        base = tools.base(),
    )
}

/// The model: calls the tool that its user speaks of, and tells what it said.
fn mind(request: &Request) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let last = messages.last().unwrap();
    let said = last["content"].to_string();
    let stream = request.variant == "stream";
    let has = |word: &str| last["role"] == "user" && said.contains(word);
    if has("order") {
        return call(stream, Some("Let me look."), "lookup");
    }
    if has("stuck") {
        return call(stream, None, "stuck");
    }
    if has("money") {
        return call(stream, None, "refund");
    }
    if has("both") {
        return both();
    }
    if has("mine") {
        return call(stream, None, "mine");
    }
    let users = messages.iter().filter(|message| message["role"] == "user").count();
    let text = match last["role"].as_str() {
        Some("tool") => "It is in Bonn.".to_owned(),
        _ => format!("You said {users} things."),
    };
    if stream {
        return Script::stream([role(), word(&text), finish(), usage(), DONE.to_owned()]);
    }
    let message = json!({"role": "assistant", "content": text});
    whole(&message, "stop")
}

fn call(stream: bool, text: Option<&str>, name: &str) -> Script {
    let call = json!({
        "index": 0, "id": "call_1", "type": "function",
        "function": {"name": name, "arguments": "{}"},
    });
    if stream {
        let piece = choice(&json!({"tool_calls": [call]}).to_string(), "null");
        let events = [role()].into_iter().chain(text.map(word)).chain([piece]);
        let end = [choice("{}", "\"tool_calls\""), usage(), DONE.to_owned()];
        return Script::stream(events.chain(end));
    }
    whole(&json!({"role": "assistant", "content": text, "tool_calls": [call]}), "tool_calls")
}

/// Calls of a tool of the agent's and of one of the client's in one turn.
fn both() -> Script {
    let call = |number: u32, name: &str| {
        json!({"index": number, "id": format!("call_{number}"), "type": "function",
            "function": {"name": name, "arguments": "{}"}})
    };
    let calls = json!([call(0, "lookup"), call(1, "mine")]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    whole(&message, "tool_calls")
}

fn whole(message: &Value, reason: &str) -> Script {
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    });
    Script::json(200, &answer.to_string())
}

pub(super) fn chat(text: &str, more: &Value) -> Value {
    let mut body = json!({
        "model": "agent/support", "messages": [{"role": "user", "content": text}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub(super) fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[tokio::test]
async fn a_run_is_one_answer_with_the_usage_of_all_its_calls() {
    let house = House::new().await;
    house.gate.open();
    let answer = house.ask(CHAT, &[], &chat("Where is my order?", &json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let content = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.ends_with("It is in Bonn."), "{told}");
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        (&told["usage"]["total_tokens"], &told["model"]),
        (&json!(30), &json!("agent/support"))
    );
    let agent = &told["x_agent"];
    assert_eq!((&agent["steps"], &agent["model_calls"]), (&json!(2), &json!(2)));
    assert_eq!((&agent["tool_calls"], &agent["status"]), (&json!(1), &json!("completed")));
    assert_eq!(Some(agent["run_id"].as_str().unwrap()), answer.header("x-switchpoint-run-id"));
    assert_eq!(answer.header("x-switchpoint-agent-version"), Some("3"));
    assert_eq!(answer.header("x-switchpoint-agent-steps"), Some("2"));
    let records = house.gateway.recorded(3).await;
    let of = |surface: &str| records.iter().filter(|it| it["surface"] == surface).count();
    assert_eq!((of("agent_turn"), of("chat")), (2, 1), "{records:#?}");
    let outer = records.iter().find(|record| record["surface"] == "chat").unwrap();
    assert_eq!((&outer["route"], &outer["output_tokens"]), (&json!("agent/support"), &json!(0)));
    assert!(records.iter().all(|record| record["run_id"] == agent["run_id"]), "{records:#?}");
}

#[tokio::test]
async fn a_stream_tells_words_before_the_tool_is_done_and_has_one_end() {
    let house = House::new().await;
    let mut stream = house.open(CHAT, &[], &chat("My order?", &json!({"stream": true}))).await;
    assert!(stream.headers.contains_key("x-switchpoint-run-id"));
    let mut seen = stream.read_until("Let me look.").await;
    house.tools.asked(1).await;
    house.gate.open();
    seen.push_str(stream.whole().await.text());
    assert_eq!(seen.matches("data: [DONE]").count(), 1, "{seen}");
    assert!(seen.contains("\n: ") && seen.contains("lookup"), "{seen}");
    let events = events(&seen);
    let ends = events.iter().filter(|event| event["choices"][0]["finish_reason"].is_string());
    let ends: Vec<_> = ends.collect();
    assert_eq!((ends.len(), &ends[0]["x_agent"]["status"]), (1, &json!("completed")), "{seen}");
    let ids: std::collections::BTreeSet<_> =
        events.iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{seen}");
    let said = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert!(said.collect::<String>().ends_with("It is in Bonn."), "{seen}");
}

#[tokio::test]
async fn a_response_asks_for_approval_and_the_next_one_gives_it() {
    let house = House::new().await;
    let body = json!({"model": "agent/support", "input": "My money back."});
    let first = house.ask(RESPONSES, &[], &body).await.json();
    let output = first["output"].as_array().unwrap();
    let wanted = output.iter().find(|item| item["type"] == "mcp_approval_request");
    let wanted = wanted.unwrap_or_else(|| panic!("{first:#}"));
    assert_eq!((&first["status"], &wanted["name"]), (&json!("completed"), &json!("refund")));
    assert_eq!(first["x_agent"]["status"], "waiting_approval");
    assert!(house.tools.requests().is_empty());
    let approval = json!([{
        "type": "mcp_approval_response", "approval_request_id": wanted["id"], "approve": true,
    }]);
    let next = json!({
        "model": "agent/support", "input": approval, "previous_response_id": first["id"],
    });
    let second = house.ask(RESPONSES, &[], &next).await.json();
    assert_eq!(second["status"], "completed", "{second:#}");
    assert_eq!(second["x_agent"]["run_id"], first["x_agent"]["run_id"]);
    let output = second["output"].as_array().unwrap();
    assert!(output.iter().any(|item| item["type"] == "mcp_call"), "{second:#}");
    assert!(second.to_string().contains("It is in Bonn."), "{second:#}");
    assert_eq!(house.tools.requests().len(), 1);
    // Said once more it is no decision, and no question either.
    let asked = house.model.requests().len();
    let again = house.ask(RESPONSES, &[], &next).await;
    assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!("already_decided")));
    let mut other = next.clone();
    other["input"][0]["approval_request_id"] = json!("apr_never_asked");
    let other = house.ask(RESPONSES, &[], &other).await;
    assert_eq!(other.status, 404, "{}", other.text());
    assert_eq!((house.model.requests().len(), house.tools.requests().len()), (asked, 1));
}

#[tokio::test]
async fn a_chat_says_that_a_person_must_decide() {
    let house = House::new().await;
    let answer = house.ask(CHAT, &[], &chat("My money back.", &json!({}))).await.json();
    assert_eq!(answer["x_agent"]["status"], "waiting_approval", "{answer}");
    assert_eq!(answer["x_agent"]["approvals"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(!answer["choices"][0]["message"]["content"].as_str().unwrap().is_empty());
    assert!(house.tools.requests().is_empty());
}

#[tokio::test]
async fn a_chat_that_is_willing_to_wait_goes_on_when_a_person_has_decided() {
    let house = House::new().await;
    let headers = [("x-switchpoint-approval-wait", "10s")];
    let body = chat("My money back.", &json!({"stream": true}));
    let stream = house.open(CHAT, &headers, &body).await;
    let (answer, ()) = tokio::join!(stream.whole(), async {
        let pending = loop {
            let listed = house.get("/v1/agents/approvals?state=pending").await;
            if let Some(found) = listed["data"].as_array().and_then(|all| all.first()) {
                break found.clone();
            }
            tokio::task::yield_now().await;
        };
        let path = format!("/v1/agents/approvals/{}", pending["id"].as_str().unwrap());
        let hash = format!("\"{}\"", pending["args_hash"].as_str().unwrap());
        let decision = json!({"decision": "approve"});
        let decided = house.ask(&path, &[("if-match", &hash)], &decision).await;
        assert_eq!(decided.status, 200, "{}", decided.text());
    });
    assert!(answer.text().contains("It is in Bonn."), "{}", answer.text());
    assert_eq!(answer.text().matches("data: [DONE]").count(), 1);
    assert_eq!(house.tools.requests().len(), 1);
}

#[tokio::test]
async fn a_run_in_the_background_is_fetched_or_called_off() {
    let house = House::new().await;
    let body = json!({"model": "agent/support", "input": "My order?", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    assert_eq!(begun["status"], "queued", "{begun}");
    house.tools.asked(1).await;
    let id = begun["id"].as_str().unwrap();
    assert_eq!(house.get(&format!("{RESPONSES}/{id}")).await["status"], "in_progress");
    house.gate.open();
    let done = house.settled(id).await;
    assert_eq!((&done["status"], &done["background"]), (&json!("completed"), &json!(true)));
    assert!(done.to_string().contains("It is in Bonn."), "{done:#}");
    assert_eq!(done["usage"]["total_tokens"], 30);
    let house = House::new().await;
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    house.tools.asked(1).await;
    let id = begun["id"].as_str().unwrap();
    let path = format!("{RESPONSES}/{id}/cancel");
    let cancelled = client::post(house.gateway.address, &path, KEY, "").await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    until("the tool is left", || house.tools.busy() == 0).await;
    assert_eq!(house.settled(id).await["status"], "cancelled");
    let run = begun["metadata"]["switchpoint_run_id"].as_str().unwrap();
    assert!(run.starts_with("run_"), "{begun}");
}

#[tokio::test]
async fn a_stream_in_the_background_is_joined_where_it_was_left() {
    let house = House::new().await;
    let body = json!({
        "model": "agent/support", "input": "My order?", "background": true, "stream": true,
    });
    let mut stream = house.open(RESPONSES, &[], &body).await;
    let seen = stream.read_until("Let me look.").await;
    drop(stream);
    let events = events(&seen);
    let id = events[0]["response"]["id"].as_str().unwrap().to_owned();
    let last = events.last().unwrap()["sequence_number"].as_u64().unwrap();
    house.tools.asked(1).await;
    house.gate.open();
    let path = format!("{RESPONSES}/{id}?stream=true&starting_after={last}");
    let rest = client::get(house.gateway.address, &path, KEY).await;
    let rest = self::events(rest.text());
    assert_eq!(rest[0]["sequence_number"], last + 1);
    assert_eq!(rest.last().unwrap()["type"], "response.completed");
    assert_eq!(house.settled(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_response_in_the_background_is_told_to_its_end_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.db");
    let store = store(&path);
    let house = House::on(&store).await;
    let body = json!({"model": "agent/support", "input": "My order?", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    house.tools.asked(1).await;
    let id = begun["id"].as_str().unwrap();
    assert_eq!(house.get(&format!("{RESPONSES}/{id}")).await["status"], "in_progress");
    let House { gateway, model, tools, gate } = house;
    gateway.kill();
    let gateway = Gateway::start("", &sections(&model, &tools, &store)).await;
    let house = House { gateway, model, tools, gate };
    assert_eq!(house.get(&format!("{RESPONSES}/{id}")).await["status"], "in_progress");
    house.gate.open();
    let done = house.settled(id).await;
    assert_eq!(done["status"], "completed", "{done:#}");
    assert!(done.to_string().contains("It is in Bonn."), "{done:#}");
    assert_eq!(house.model.requests().len(), 2);
}

#[tokio::test]
async fn an_agent_that_is_paused_stays_so_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let model = Upstream::answering(|_| Script::json(500, "{}")).await;
    let sections = format!(
        "{}{}{}[agents.plain]\nroute = \"fast\"\ninstructions = \"Answer.\"\n\
         [keys.operator]\nsecret = \"sk-operator-key\"\nrole = \"operator\"\n",
        store(&folder.path().join("calls.db")),
        provider("up", &model),
        route("fast", &["up/m"], ""),
    );
    let gateway = Gateway::start("", &sections).await;
    let pause = client::post(gateway.address, "/v1/agents/plain/pause", "sk-operator-key", "");
    assert_eq!(pause.await.status, 200);
    gateway.kill();
    let gateway = Gateway::start("", &sections).await;
    let body = json!({"model": "agent/plain", "input": "Hi"}).to_string();
    let refused = client::post(gateway.address, RESPONSES, KEY, body).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(model.requests().is_empty());
}

pub(super) fn store(path: &Path) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n\n[agent_engine]\nlease_ttl = \"1s\"\n\n",
        path.display()
    )
}

#[tokio::test]
async fn whoever_leaves_has_called_the_run_off_unless_they_said_otherwise() {
    let house = House::new().await;
    let body = chat("My order?", &json!({"stream": true}));
    let mut stream = house.open(CHAT, &[], &body).await;
    stream.read_until("Let me look.").await;
    house.tools.asked(1).await;
    drop(stream);
    until("the tool is left", || house.tools.busy() == 0).await;
    assert_eq!(house.model.requests().len(), 1);
    let stays = [("x-switchpoint-on-disconnect", "continue")];
    let mut stream = house.open(CHAT, &stays, &body).await;
    stream.read_until("Let me look.").await;
    house.tools.asked(2).await;
    drop(stream);
    house.gate.open();
    house.model.asked(3).await;
}

#[tokio::test]
async fn tools_of_the_client_pass_through_and_their_results_come_back() {
    let house = House::new().await;
    let tool = json!([{"type": "function", "function": {
        "name": "mine", "parameters": {"type": "object", "properties": {}},
    }}]);
    let asked = chat("Use mine.", &json!({"tools": tool}));
    let first = house.ask(CHAT, &[], &asked).await.json();
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls", "{first}");
    let message = &first["choices"][0]["message"];
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["name"], "mine");
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "7"});
    let mut next = asked;
    next["messages"].as_array_mut().unwrap().extend([message.clone(), result]);
    let second = house.ask(CHAT, &[], &next).await.json();
    assert_eq!(second["choices"][0]["message"]["content"], "It is in Bonn.", "{second}");
    assert_eq!(second["x_agent"]["run_id"], first["x_agent"]["run_id"]);
}

#[tokio::test]
async fn a_session_remembers_and_a_repeated_key_gives_the_same_run() {
    let house = House::new().await;
    let session = [("x-switchpoint-session", "s1")];
    let one = house.ask(CHAT, &session, &chat("One.", &json!({}))).await;
    assert_eq!(one.json()["choices"][0]["message"]["content"], "You said 1 things.");
    let two = house.ask(CHAT, &session, &chat("Two.", &json!({}))).await;
    assert_eq!(two.json()["choices"][0]["message"]["content"], "You said 2 things.");
    let again = [("idempotency-key", "k1")];
    let first = house.ask(CHAT, &again, &chat("Hi.", &json!({}))).await;
    let second = house.ask(CHAT, &again, &chat("Hi.", &json!({}))).await;
    assert_eq!(first.json()["choices"][0]["message"], second.json()["choices"][0]["message"]);
    let run = |answer: &Answer| answer.header("x-switchpoint-run-id").map(str::to_owned);
    assert_eq!(run(&first), run(&second));
    assert_eq!(house.model.requests().len(), 3);
    let other = house.ask(CHAT, &again, &chat("Ho.", &json!({}))).await;
    assert_eq!(other.status, 409, "{}", other.text());
}

#[tokio::test]
async fn agents_are_listed_for_those_who_may_run_them_and_refused_to_others() {
    let house = House::new().await;
    let models = house.get("/v1/models").await;
    let ids: Vec<_> = models["data"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert!(ids.contains(&&json!("agent/support")), "{ids:?}");
    assert_eq!(house.get("/v1/models/agent/support").await["owned_by"], "switchpoint");
    let listed = client::get(house.gateway.address, "/v1/models", "sk-small").await;
    assert!(!listed.text().contains("agent/support"), "{}", listed.text());
    let body = chat("Hi.", &json!({})).to_string();
    let refused = client::post(house.gateway.address, CHAT, "sk-small", body).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (403, &json!("agent_not_allowed"))
    );
    assert!(house.model.requests().is_empty());
    let explained = house.ask("/v1/explain", &[], &chat("Hi.", &json!({}))).await.json();
    assert_eq!((&explained["agent"], &explained["route"]), (&json!("support"), &json!("fast")));
}

#[tokio::test]
async fn anthropics_and_googles_clients_ask_agents_too() {
    let house = House::new().await;
    house.gate.open();
    let messages = json!([{"role": "user", "content": "My order?"}]);
    let body = json!({
        "model": "agent/support", "max_tokens": 100, "messages": messages, "stream": true,
    });
    let stream = house.ask("/v1/messages", &[], &body).await;
    assert_eq!(stream.text().matches("event: message_stop").count(), 1, "{}", stream.text());
    assert!(stream.text().contains("It is in Bonn."), "{}", stream.text());
    let path = "/v1beta/models/agent/support:generateContent";
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "My order?"}]}]});
    let answer = house.ask(path, &[], &body).await;
    let told = answer.json();
    let text = told["candidates"][0]["content"]["parts"].to_string();
    assert!(text.contains("It is in Bonn."), "{told}");
    assert_eq!(told["x_agent"]["status"], "completed");
}
