//! What operators see of runs: one trace, lines of the log, sealed rows of the audit trail, and sums
//! that are the ledger's.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderValue, Method};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, CHAT, open, request};
use crate::support::collector::{Collector, Mood, attribute};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{calls, says};
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream, until};

const OPERATOR: &str = "sk-operator-key";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// What is said, and must stand in no log and no trace.
const SECRET: &str = "the-word-nobody-writes-down";

/// A gateway with agents, their model and their tools.
struct House {
    gateway: Gateway,
    model: Upstream,
    tools: Upstream,
}

fn agents(base: &str) -> String {
    format!(
        r#"
[keys.operator]
secret = "{OPERATOR}"
role = "operator"

[models."up/m"]
price = {{ input = 3.0, output = 7.0 }}

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
approval = {{ }}
[tools.note]
kind = "http"
method = "POST"
url = "{base}/note"
effect = "idempotent"

[agents.plain]
description = "Answers."
route = "fast"
instructions = "Answer."
tools = ["look", "note"]
delegates = ["helper"]
[agents.helper]
description = "Helps."
route = "fast"
instructions = "Help."
tools = ["look"]
[agents.buyer]
route = "fast"
instructions = "Buy."
tools = ["pay"]
[agents.locked]
route = "fast"
instructions = "Nobody."
access = {{ keys = ["operator"] }}
"#
    )
}

/// Wants what the user's last word names, and is done when it has it.
fn mind(request: &Request) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    let text = last["content"].as_str().unwrap_or_default().to_owned();
    let calls =
        |name: &str, args: Value| calls(&[(&format!("call_{name}"), name, &args.to_string())]);
    Script::stream(match text.split(' ').next().unwrap_or_default() {
        _ if last["role"] == "tool" => says("It is done."),
        "look" => calls("look", json!({})),
        "note" => calls("note", json!({})),
        "pay" => calls("pay", json!({})),
        "ask" => calls("delegate_helper", json!({"input": "look there"})),
        _ => says("Hello there."),
    })
}

impl House {
    async fn new(more: &str) -> Self {
        let model = Upstream::answering(mind).await;
        let tools = Upstream::answering(|_| Script::json(200, r#"{"found":true}"#)).await;
        let sections =
            provider("up", &model) + &route("fast", &["up/m"], "") + &agents(&tools.base()) + more;
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    async fn send(&self, key: &str, ask: (Method, &str), body: &Value) -> Answer {
        self.send_with(key, ask, body, &[]).await
    }

    async fn send_with(
        &self,
        key: &str,
        (method, path): (Method, &str),
        body: &Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut asked = request(method, path, key, Bytes::from(body));
        for (name, value) in headers {
            asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        open(self.gateway.address, asked).await.whole().await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, KEY).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn chat(&self, agent: &str, text: &str, headers: &[(&'static str, &str)]) -> Answer {
        let body = json!({"model": format!("agent/{agent}"),
            "messages": [{"role": "user", "content": text}]});
        let answer = self.send_with(KEY, (Method::POST, CHAT), &body, headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// Begins a run that goes on by itself, and gives its path.
    async fn begin(&self, agent: &str, body: Value) -> String {
        let path = format!("/v1/agents/{agent}/runs");
        let answer = self.send(KEY, (Method::POST, &path), &body).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    async fn in_state(&self, path: &str, state: &str) -> Value {
        // Whoever takes a run over waits for its lease to end.
        let deadline = Instant::now() + 4 * PATIENCE;
        loop {
            let run = self.get(path).await;
            if run["state"] == state {
                return run;
            }
            assert!(Instant::now() < deadline, "never {state}: {run:#}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Lets the only call that waits pass, or not.
    async fn decide(&self, run: &Value, decision: &str) {
        let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap();
        let door = format!("/v1/agents/approvals/{approval}");
        let body = json!({"decision": decision});
        let headers = [("if-match", "*")];
        let answer = self.send_with(OPERATOR, (Method::POST, &door), &body, &headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Rows of the audit trail, the oldest first.
    async fn audit(&self, query: &str) -> Vec<Value> {
        let path = format!("/admin/audit{query}");
        let answer = client::get(self.gateway.admin, &path, ADMIN_KEY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut rows = answer.json()["data"].as_array().unwrap().clone();
        rows.reverse();
        rows
    }

    /// The rows of callers who were refused, as soon as there are so many.
    async fn refusals(&self, least: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.audit("?what=agent.refused").await;
            if rows.len() >= least || Instant::now() > deadline {
                return rows;
            }
        }
    }

    /// Lines of the log about runs.
    fn lines(&self) -> Vec<Value> {
        let output = self.gateway.output();
        let parsed = output.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == "run").collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn told(span: &Span, name: &str) -> String {
    attribute(&span.attributes, name).unwrap_or_default()
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn the<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_run_is_one_trace_with_its_turns_and_its_tools_below() {
    let collector = Collector::start(Mood::Takes).await;
    let house = House::new(&collector.section("")).await;
    let headers =
        [("traceparent", PARENT), ("tracestate", "congo=t61"), ("baggage", "shop=7,lane=slow")];
    let answer = house.chat("plain", &format!("look {SECRET}"), &headers).await;
    // Two turns, each with the request that it made.
    let spans = collector.collected(7).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let call = the(&spans, "chat agent/plain");
    assert_eq!(hex(&call.parent_span_id), "00f067aa0ba902b7");
    let run = the(&spans, "invoke_agent plain");
    assert_eq!(run.parent_span_id, call.span_id);
    assert_eq!(run.trace_state, "congo=t61");
    let tool = the(&spans, "execute_tool look");
    assert_eq!(tool.parent_span_id, run.span_id);
    let turns = named(&spans, "chat fast");
    assert_eq!(turns.len(), 2, "{spans:#?}");
    assert!(turns.iter().all(|turn| turn.parent_span_id == run.span_id), "{spans:#?}");
    for asked in named(&spans, "chat m") {
        assert!(turns.iter().any(|turn| turn.span_id == asked.parent_span_id));
    }
    let parents = |requests: Vec<Request>| -> BTreeSet<String> {
        let sent = requests.iter().map(|it| it.header("traceparent").unwrap().to_owned());
        sent.collect()
    };
    let one = |span: &Span| format!("00-{TRACE}-{}-01", hex(&span.span_id));
    assert_eq!(parents(house.tools.requests()), [one(tool)].into());
    let sent = house.tools.only_request();
    assert_eq!(sent.header("tracestate"), Some("congo=t61"));
    assert_eq!(sent.header("baggage"), Some("shop=7,lane=slow"));
    assert!(house.model.requests().iter().all(|it| it.header("baggage").is_none()));
    let asked: BTreeSet<String> = named(&spans, "chat m").into_iter().map(one).collect();
    assert_eq!(parents(house.model.requests()), asked);
    let id = answer.header("x-switchpoint-run-id").unwrap();
    for (span, name, value) in [
        (run, "gen_ai.operation.name", "invoke_agent"),
        (run, "gen_ai.provider.name", "switchpoint"),
        (run, "gen_ai.agent.name", "plain"),
        (run, "gen_ai.agent.version", "1"),
        (run, "gen_ai.agent.description", "Answers."),
        (run, "gen_ai.request.model", "fast"),
        (run, "gen_ai.response.finish_reasons", "stop"),
        (run, "gen_ai.usage.input_tokens", "22"),
        (run, "gen_ai.usage.output_tokens", "8"),
        (run, "switchpoint.run.id", id),
        (run, "switchpoint.run.state", "completed"),
        (run, "switchpoint.run.steps", "2"),
        (run, "switchpoint.key", "test"),
        (tool, "gen_ai.operation.name", "execute_tool"),
        (tool, "gen_ai.tool.name", "look"),
        (tool, "gen_ai.tool.call.id", "call_look"),
        (tool, "gen_ai.tool.type", "extension"),
        (tool, "switchpoint.tool.effect", "read"),
        (tool, "switchpoint.tool.attempts", "1"),
    ] {
        assert_eq!(told(span, name), value, "{name}");
    }
    assert_eq!(told(run, "switchpoint.run.cost_usd"), "0.000122", "22 × 3 + 8 × 7");
    assert!(!format!("{spans:?}").contains(SECRET), "what was said is not shown");
}

#[tokio::test]
async fn what_a_run_has_another_agent_do_stands_below_it_in_its_clients_trace() {
    let collector = Collector::start(Mood::Takes).await;
    let house = House::new(&collector.section("")).await;
    let headers = [("traceparent", PARENT)];
    let body = json!({"input": "ask"});
    let door = (Method::POST, "/v1/agents/plain/runs");
    let begun = house.send_with(KEY, door, &body, &headers).await;
    let path = begun.header("location").unwrap().to_owned();
    house.in_state(&path, "completed").await;
    until("both runs are told of", || {
        let spans = collector.spans();
        named(&spans, "invoke_agent plain").len() + named(&spans, "invoke_agent helper").len() == 2
    })
    .await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    let (run, child) = (the(&spans, "invoke_agent plain"), the(&spans, "invoke_agent helper"));
    assert_eq!(child.parent_span_id, run.span_id);
    assert_eq!(the(&spans, "execute_tool look").parent_span_id, child.span_id);
    let document = house.get(&format!("{path}/trace")).await;
    let shown = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let same = shown.iter().find(|span| span["name"] == "invoke_agent helper").unwrap();
    assert_eq!(same["spanId"], hex(&child.span_id));
    assert_eq!(same["parentSpanId"], hex(&run.span_id));
}

#[tokio::test]
async fn a_run_that_waits_closes_its_span_and_goes_on_in_the_same_trace_behind_a_link() {
    let collector = Collector::start(Mood::Takes).await;
    let house = House::new(&collector.section("capture = \"full\"")).await;
    let path = house.begin("buyer", json!({"input": "pay"})).await;
    let run = house.in_state(&path, "waiting_approval").await;
    let of_run = || {
        let spans = collector.spans();
        spans.into_iter().filter(|span| span.name == "invoke_agent buyer").collect::<Vec<_>>()
    };
    until("the first stretch is told of", || of_run().len() == 1).await;
    let first = of_run().remove(0);
    assert_eq!(told(&first, "switchpoint.run.state"), "waiting_approval");
    house.decide(&run, "approve").await;
    house.in_state(&path, "completed").await;
    until("the second is told of", || of_run().len() == 2).await;
    let second = of_run().remove(1);
    assert_eq!(second.trace_id, first.trace_id);
    assert_ne!(second.span_id, first.span_id);
    assert_eq!(second.links.len(), 1);
    assert_eq!(second.links[0].span_id, first.span_id);
    assert_eq!(second.links[0].trace_id, first.trace_id);
    assert!(second.start_time_unix_nano >= first.end_time_unix_nano);
    assert_eq!(told(&second, "gen_ai.usage.input_tokens"), "11", "its own stretch's");
    let spans = collector.spans();
    let tool = the(&spans, "execute_tool pay");
    assert_eq!(tool.parent_span_id, second.span_id);
    assert_eq!(told(tool, "switchpoint.approval.id"), run["pending"]["approvals"][0]["id"]);
    assert_eq!(told(tool, "gen_ai.tool.call.arguments"), "{}", "where content is captured");
    assert!(told(tool, "gen_ai.tool.call.result").contains("found"));
}

#[tokio::test]
async fn the_journal_tells_the_same_trace_as_the_collector_was_sent() {
    let collector = Collector::start(Mood::Takes).await;
    let house = House::new(&collector.section("")).await;
    let path = house.begin("buyer", json!({"input": "pay"})).await;
    let run = house.in_state(&path, "waiting_approval").await;
    house.decide(&run, "approve").await;
    house.in_state(&path, "completed").await;
    let document = house.get(&format!("{path}/trace")).await;
    let shown = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let mut names: Vec<&str> = shown.iter().map(|span| span["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let expected =
        ["chat fast", "chat fast", "execute_tool pay", "invoke_agent buyer", "invoke_agent buyer"];
    assert_eq!(names, expected);
    until("the last span is sent", || named(&collector.spans(), "invoke_agent buyer").len() == 2)
        .await;
    let sent = collector.spans();
    for span in &shown {
        let same = sent.iter().find(|it| hex(&it.span_id) == span["spanId"]);
        let same = same.unwrap_or_else(|| panic!("{span:#} was not sent: {sent:#?}"));
        assert_eq!(hex(&same.trace_id), span["traceId"]);
        assert_eq!(hex(&same.parent_span_id), span["parentSpanId"]);
        assert_eq!(same.name, span["name"].as_str().unwrap());
    }
}

#[tokio::test]
async fn without_a_collector_a_runs_trace_is_its_clients_and_its_journal_has_it() {
    let house = House::new("").await;
    let answer = house.chat("plain", "look", &[("traceparent", PARENT)]).await;
    let id = answer.header("x-switchpoint-run-id").unwrap();
    let document = house.get(&format!("/v1/agents/runs/{id}/trace")).await;
    let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    assert!(spans.iter().all(|span| span["traceId"] == TRACE), "{document:#}");
    let find = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    let run = find("invoke_agent plain");
    assert_eq!(run["parentSpanId"], "00f067aa0ba902b7");
    let tool = find("execute_tool look");
    assert_eq!(tool["parentSpanId"], run["spanId"]);
    let sent = format!("00-{TRACE}-{}-01", tool["spanId"].as_str().unwrap());
    assert_eq!(house.tools.only_request().header("traceparent"), Some(&*sent));
    let stranger = client::get(house.gateway.address, "/v1/agents/runs/run_1/trace", KEY).await;
    assert_eq!(stranger.status, 404);
}

#[tokio::test]
async fn each_step_of_a_run_is_a_line_of_the_log_that_tells_nothing_of_what_was_said() {
    let house = House::new("").await;
    let path = house.begin("buyer", json!({"input": format!("pay {SECRET}")})).await;
    let run = house.in_state(&path, "waiting_approval").await;
    let told = |event: &str| house.lines().iter().any(|line| line["event"] == event);
    until("the wait is told of", || told("run.waiting")).await;
    house.decide(&run, "approve").await;
    house.in_state(&path, "completed").await;
    until("the end is told of", || told("run.ended")).await;
    let lines = house.lines();
    let events: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line["event"].as_str().unwrap(), line["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(
        events,
        [
            ("run.started", "running"),
            ("model.completed", "ok"),
            ("tool.approval_requested", "waiting_approval"),
            ("run.waiting", "waiting_approval"),
            ("run.resumed", "running"),
            ("tool.approved", "approved"),
            ("tool.completed", "ok"),
            ("model.completed", "ok"),
            ("run.ended", "completed"),
        ]
    );
    let trace = lines[0]["trace_id"].as_str().unwrap();
    assert_eq!(trace.len(), 32);
    for line in &lines {
        assert_eq!(line["run_id"], run["id"]);
        assert_eq!(line["agent"], "buyer");
        assert_eq!(line["version"], "1");
        assert_eq!(line["trace_id"], trace);
        assert_eq!(line["level"], "INFO");
        assert!(line["time"].is_string() && line["step"].is_u64());
    }
    assert_eq!(lines[6]["tool"], "pay");
    let all = house.gateway.output().join("\n");
    assert!(!all.contains(SECRET) && !all.contains("It is done."), "{all}");
}

#[tokio::test]
async fn each_action_of_a_run_is_one_sealed_row_with_who_what_and_what_came_of_it() {
    let house = House::new("").await;
    let path = house.begin("buyer", json!({"input": "pay", "user": "ann"})).await;
    let run = house.in_state(&path, "waiting_approval").await;
    house.decide(&run, "approve").await;
    house.in_state(&path, "completed").await;
    let subject = format!("run:{}", run["id"].as_str().unwrap());
    let rows = house.audit(&format!("?subject={subject}")).await;
    let kinds: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["approval.asked", "approval.decided", "tool.call"], "{rows:#?}");
    assert_eq!((&rows[0]["who"], &rows[1]["who"]), (&json!("agent:buyer"), &json!("operator")));
    assert_eq!(rows[1]["after"]["decision"], "approved");
    let call = &rows[2]["after"];
    assert_eq!(rows[2]["who"], "agent:buyer");
    for (name, value) in [
        ("tool", "pay"),
        ("effect", "once"),
        ("call", "call_pay"),
        ("decision", "approved"),
        ("outcome", "ok"),
        ("key", "test"),
        ("user", "ann"),
        // SHA-256 of `{}`.
        ("args_sha256", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
    ] {
        assert_eq!(call[name], value, "{name}");
    }
    assert_eq!(call["approval"], run["pending"]["approvals"][0]["id"]);

    let refused = house.begin("buyer", json!({"input": "pay"})).await;
    let waiting = house.in_state(&refused, "waiting_approval").await;
    let cancel = format!("{refused}/cancel");
    house.send(KEY, (Method::POST, &cancel), &Value::Null).await;
    house.in_state(&refused, "cancelled").await;
    let noted = house.begin("plain", json!({"input": "note"})).await;
    let noted = house.in_state(&noted, "completed").await;
    let looked = house.begin("plain", json!({"input": "look"})).await;
    let looked = house.in_state(&looked, "completed").await;
    let of = async |run: &Value| {
        let rows = house.audit(&format!("?subject=run:{}", run["id"].as_str().unwrap())).await;
        rows.iter().map(|row| row["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(&waiting).await, ["approval.asked", "run.cancel"]);
    assert_eq!(of(&noted).await, ["tool.call"]);
    assert!(of(&looked).await.is_empty(), "that something was read is no action");
    let verdict = client::get(house.gateway.admin, "/admin/audit/verify", ADMIN_KEY).await.json();
    assert_eq!((&verdict["ok"], &verdict["rows"]), (&json!(true), &json!(6)), "{verdict}");
}

#[tokio::test]
async fn who_asks_for_an_agent_that_is_not_theirs_stands_in_the_audit_trail() {
    let house = House::new("").await;
    let chat = json!({"model": "agent/locked", "messages": [{"role": "user", "content": "Hi"}]});
    let doors = [(CHAT, chat), ("/v1/agents/locked/runs", json!({"input": "Hi"}))];
    for (number, (door, body)) in doors.iter().enumerate() {
        let answer = house.send(KEY, (Method::POST, door), body).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "agent_not_allowed");
        let rows = house.refusals(number + 1).await;
        assert_eq!(rows.len(), number + 1, "{door}: {rows:#?}");
        assert_eq!(rows[number]["subject"], "agent:locked");
        assert_eq!(rows[number]["who"], "test");
    }
    assert!(house.model.requests().is_empty());
    let models = house.get("/v1/models").await.to_string();
    assert!(models.contains("agent/plain") && !models.contains("agent/locked"), "{models}");
}

#[tokio::test]
async fn what_agents_use_is_summed_as_the_ledger_has_it() {
    let house = House::new("").await;
    for (agent, user, input) in [
        ("plain", "ann", "look"),
        ("plain", "bob", "ask"),
        ("helper", "ann", "Hi"),
        ("plain", "ann", "Hi"),
    ] {
        let body = json!({"input": input, "user": user});
        let path = house.begin(agent, body).await;
        let run = house.in_state(&path, "completed").await;
        let usage = &run["usage"];
        let (input, output) = (usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64());
        let nanos = input.unwrap() * 3_000 + output.unwrap() * 7_000;
        let cost = run["cost_usd"].as_f64().unwrap();
        assert!((cost * 1e9 - f64::from(u32::try_from(nanos).unwrap())).abs() < 1e-3, "{run:#}");
    }
    let sums = house.get("/v1/agents/usage?group_by=agent,user,day").await;
    let lines = sums["data"].as_array().unwrap();
    let line = |agent: &str, user: &str| {
        let found = lines.iter().find(|it| it["agent"] == agent && it["user"] == user);
        let line = found.unwrap_or_else(|| panic!("{agent} {user}: {sums:#}"));
        assert_eq!(line["day"].as_str().unwrap().len(), 10);
        line["model_calls"].as_u64().unwrap()
    };
    assert_eq!(line("plain", "ann"), 3);
    assert_eq!(line("plain", "bob"), 2);
    assert_eq!(line("helper", "bob"), 2, "whom a child works for");
    assert_eq!(line("helper", "ann"), 1);
    let total = |rows: &Value, name: &str| -> f64 {
        rows["data"].as_array().unwrap().iter().map(|row| row[name].as_f64().unwrap()).sum()
    };
    let path = "/admin/usage?group_by=purpose&purpose=agent";
    let ledger = client::get(house.gateway.admin, path, ADMIN_KEY).await.json();
    for name in ["cost_usd", "input_tokens", "output_tokens"] {
        assert!((total(&sums, name) - total(&ledger, name)).abs() < 1e-12, "{name}: {ledger:#}");
        let runs = house.get("/v1/agents/usage?group_by=run").await;
        assert!((total(&runs, name) - total(&ledger, name)).abs() < 1e-12, "{name}: {runs:#}");
    }
    let ann = house.get("/v1/agents/usage?group_by=agent&user=ann").await;
    assert_eq!(ann["data"].as_array().unwrap().len(), 2);
    let odd = house.send(KEY, (Method::GET, "/v1/agents/usage?group_by=agnet"), &Value::Null).await;
    assert!(odd.status == 400 && odd.text().contains("did you mean"), "{}", odd.text());
    let series = client::get(house.gateway.admin, "/metrics", "").await;
    let is_label = |user: &str| series.text().contains(&format!("\"{user}\""));
    assert!(series.text().contains("\"plain\"") && !is_label("ann") && !is_label("bob"));
}
