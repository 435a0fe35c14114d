//! What is told of a run that its process has left, and what its tools are told of its trace.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::mishaps::speaks_mcp;
use super::stage::{OPERATOR, Stage, found, results, says, search, texts, wants};
use crate::support::collector::{Collector, Mood, attribute};
use crate::support::upstream::Request;
use crate::support::{Gate, PATIENCE, Script, until};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Those who work at runs of an agent, the first to have begun first.
fn stretches(collector: &Collector) -> Vec<Span> {
    let spans = collector.spans().into_iter();
    let mut found: Vec<Span> = spans.filter(|it| it.name == "invoke_agent reader").collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn a_run_whose_process_died_is_told_of_as_interrupted_and_goes_on_behind_a_link() {
    let collector = Collector::start(Mood::Takes).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n{}{}[agents.reader]\n\
         route = \"fast\"\ninstructions = \"Read.\"\ntools = [\"search\"]\n",
        folder.path().join("state.db").display(),
        collector.section(""),
        search(""),
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("search", r#"{"q":"x"}"#)]),
        _ => says(request, "Here it is."),
    };
    let gate = Gate::shut();
    let held = gate.clone();
    let tool = move |_: &Request| {
        Script::default().gate(&held).then_all(Script::json(200, r#"{"found":"x"}"#))
    };
    let stage = Stage::new(&sections, mind, tool).await;
    let run = stage.begin("reader", "Find it.").await;
    stage.tools.asked(1).await;
    let stage = stage.crash(&sections).await;
    gate.open();
    let over = stage.in_state(&run, "completed").await;
    assert_eq!(over["result"]["text"], "Here it is.", "{over}");
    until("both stretches are told of", || stretches(&collector).len() == 2).await;
    let [first, second] = stretches(&collector).try_into().unwrap();
    let told = |span: &Span, name: &str| attribute(&span.attributes, name);
    assert_eq!(told(&first, "error.type").as_deref(), Some("interrupted"), "{first:#?}");
    assert_eq!(told(&second, "error.type"), None, "{second:#?}");
    assert_eq!(second.trace_id, first.trace_id);
    let links: Vec<_> = second.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(links, [&first.span_id]);
}

#[tokio::test]
async fn an_mcp_server_is_told_where_its_call_stands_in_the_trace_of_the_run() {
    let collector = Collector::start(Mood::Takes).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = format!(
        "{}[mcp]\nallowed_commands = [\"{}\"]\n{}[agents.reader]\nroute = \"fast\"\n\
         instructions = \"Read.\"\ntools = [\"small.meta\"]\nrequire_tools = [\"small.meta\"]\n",
        collector.section(""),
        crate::mcp::python().display(),
        crate::mcp::small("small", folder.path(), "effects = { meta = \"read\" }"),
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("small__meta", "{}")]),
        _ => says(request, &texts(request).pop().unwrap()),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let deadline = Instant::now() + PATIENCE;
    while !stage.get("/v1/tools").await.to_string().contains("small.meta") {
        assert!(Instant::now() < deadline, "the server does not come up");
        tokio::task::yield_now().await;
    }
    let headers = [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "shop=7;near")];
    let answer = stage.chat_in("reader", "What are you told?", &headers).await.json();
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let of_tool = || collector.spans().into_iter().find(|it| it.name == "execute_tool small.meta");
    until("the call is told of", || of_tool().is_some()).await;
    let span = of_tool().unwrap();
    let expected = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert!(said.contains(&expected), "{expected}: {said}");
    for more in [r#""tracestate": "a=1""#, r#""baggage": "shop=7;near""#] {
        assert!(said.contains(more), "{more}: {said}");
    }
    for (name, value) in [
        ("switchpoint.tool.kind", Some("mcp")),
        ("mcp.method.name", Some("tools/call")),
        ("mcp.protocol.version", Some("2025-11-25")),
        ("mcp.session.id", None),
        ("network.transport", Some("pipe")),
        ("rpc.response.status_code", None),
        ("error.type", None),
    ] {
        assert_eq!(attribute(&span.attributes, name).as_deref(), value, "{name}");
    }
    assert!(attribute(&span.attributes, "jsonrpc.request.id").is_some(), "{span:#?}");
    let run: Value = json!(answer["x_agent"]["run_id"]);
    let stretch = stretches(&collector).pop();
    if let Some(stretch) = stretch {
        assert_eq!(stretch.trace_id, span.trace_id, "{run}");
    }
}

/// A server of three tools, one that works, one that says that it fails, and one that is not there.
fn moody(request: &Request) -> Script {
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
    let failed = json!({"content": [{"type": "text", "text": "no"}], "isError": true});
    let said = match (asked["method"].as_str(), asked["params"]["name"].as_str()) {
        (Some("tools/list"), _) => {
            json!({"result": {"tools": [tool("echo"), tool("sad"), tool("lost")]}})
        }
        (Some("tools/call"), Some("sad")) => json!({"result": failed}),
        (Some("tools/call"), Some("lost")) => {
            json!({"error": {"code": -32602, "message": "Unknown tool"}})
        }
        _ => return speaks_mcp(request, "s-1"),
    };
    let mut answer = json!({"jsonrpc": "2.0", "id": asked["id"]});
    answer.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    let headers = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
    Script::reply(200, &headers, answer.to_string())
}

#[tokio::test]
async fn a_call_over_mcp_is_told_with_its_session_and_with_what_the_protocol_says_went_wrong() {
    let collector = Collector::start(Mood::Takes).await;
    let tools = "[tools.srv]\nkind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"{tools}\"\n\
        effects = { echo = \"read\", sad = \"read\", lost = \"read\" }\n\
        [agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\n\
        tools = [\"srv.echo\", \"srv.sad\", \"srv.lost\"]\n";
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("srv__echo", "{}"), ("srv__sad", "{}"), ("srv__lost", "{}")]),
        _ => says(request, "So it went."),
    };
    let stage = Stage::new(&format!("{}{tools}", collector.section("")), mind, moody).await;
    let deadline = Instant::now() + PATIENCE;
    while !stage.get("/v1/tools").await.to_string().contains("srv.lost") {
        assert!(Instant::now() < deadline, "its tools are never learned");
        tokio::task::yield_now().await;
    }
    let answer = stage.chat("reader", "Try all.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "So it went.", "{answer}");
    let of_tool = |name: &str| {
        let name = format!("execute_tool srv.{name}");
        collector.spans().into_iter().find(|span| span.name == name)
    };
    let all = ["echo", "sad", "lost"];
    until("all calls are told of", || all.iter().all(|name| of_tool(name).is_some())).await;
    for (tool, status, error) in [
        ("echo", None, None),
        ("sad", None, Some("tool_error")),
        ("lost", Some("-32602"), Some("-32602")),
    ] {
        let span = of_tool(tool).unwrap();
        for (name, value) in [
            ("mcp.method.name", Some("tools/call")),
            ("mcp.protocol.version", Some("2025-11-25")),
            ("mcp.session.id", Some("s-1")),
            ("network.transport", Some("tcp")),
            ("rpc.response.status_code", status),
            ("error.type", error),
        ] {
            assert_eq!(attribute(&span.attributes, name).as_deref(), value, "{tool}: {name}");
        }
    }
    let run = answer["x_agent"]["run_id"].as_str().unwrap();
    let document = stage.get(&format!("/v1/agents/runs/{run}/trace")).await.to_string();
    assert!(document.contains("mcp.session.id"), "its journal knows it too: {document}");
}

#[tokio::test]
async fn the_making_of_a_plan_is_a_span_with_the_call_of_its_model_below() {
    let collector = Collector::start(Mood::Takes).await;
    let sections = format!(
        "{}[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\nplanner = \"plan_then_act\"\n",
        collector.section("")
    );
    let mind = |request: &Request| {
        let is_asked = texts(request).last().unwrap().contains("Before you begin");
        says(request, if is_asked { r#"["Think.", "Say it."]"# } else { "Here it is." })
    };
    let stage = Stage::new(&sections, mind, found).await;
    let answer = stage.chat("reader", "Find it.").await;
    let run = answer["x_agent"]["run_id"].as_str().unwrap().to_owned();
    let named = |name: &str| {
        let spans = collector.spans().into_iter();
        spans.filter(|span| span.name == name).collect::<Vec<_>>()
    };
    until("the run is told of", || {
        named("invoke_agent reader").len() == 1 && named("chat fast").len() == 2
    })
    .await;
    let [plan] = named("plan reader").try_into().unwrap();
    let [whole] = named("invoke_agent reader").try_into().unwrap();
    assert_eq!((&plan.trace_id, &plan.parent_span_id), (&whole.trace_id, &whole.span_id));
    for (name, value) in [
        ("gen_ai.operation.name", Some("plan")),
        ("gen_ai.agent.name", Some("reader")),
        ("switchpoint.run.id", Some(&*run)),
        ("switchpoint.plan.steps", Some("2")),
        ("error.type", None),
    ] {
        assert_eq!(attribute(&plan.attributes, name).as_deref(), value, "{name}");
    }
    let mut parents: Vec<Vec<u8>> =
        named("chat fast").into_iter().map(|span| span.parent_span_id).collect();
    parents.sort();
    let mut expected = [plan.span_id.clone(), whole.span_id.clone()];
    expected.sort();
    assert_eq!(parents, expected, "one turn for the plan, one for the answer");
    let document = stage.get(&format!("/v1/agents/runs/{run}/trace")).await;
    let shown = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let same = shown.iter().find(|span| span["name"] == "plan reader").unwrap();
    assert_eq!(same["spanId"], hex(&plan.span_id));
    assert!(shown.iter().any(|span| span["parentSpanId"] == same["spanId"]), "{document:#}");
}

#[tokio::test]
async fn that_a_user_was_asked_is_a_span_like_any_call_of_a_tool() {
    let sections = "[tools.ask_user]\nkind = \"builtin\"\nname = \"ask_user\"\n[agents.reader]\n\
         route = \"fast\"\ninstructions = \"Read.\"\ntools = [\"ask_user\"]\n";
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("ask_user", r#"{"question":"Which one?"}"#)]),
        _ => says(request, "That one."),
    };
    let stage = Stage::new(sections, mind, found).await;
    let run = stage.begin("reader", "Read it.").await;
    stage.in_state(&run, "waiting_input").await;
    let trace = stage.get(&format!("{run}/trace")).await;
    let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let asked: Vec<&Value> =
        spans.iter().filter(|span| span["name"] == "execute_tool ask_user").collect();
    assert_eq!(asked.len(), 1, "{trace:#}");
    let kind = json!({"key": "switchpoint.tool.kind", "value": {"stringValue": "builtin"}});
    assert!(asked[0]["attributes"].as_array().unwrap().contains(&kind), "{trace:#}");
}

#[tokio::test]
async fn a_call_that_was_not_let_happen_is_a_span_that_says_so_and_nobody_is_asked() {
    let collector = Collector::start(Mood::Takes).await;
    let tool = |name: &str, more: &str| {
        format!(
            "[tools.{name}]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{{tools}}/{name}\"\n\
             effect = \"once\"\ninput = {{ type = \"object\" }}\n{more}\n"
        )
    };
    let sections = format!(
        "{}{}{}{}[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\n\
         tools = [\"pay\", \"slow\"]\n",
        collector.section(""),
        tool("pay", "approval = { when = \"true\" }"),
        tool("slow", "approval = { when = \"true\", expires = \"1s\" }"),
        tool("other", ""),
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("pay", "{}"), ("slow", "{}"), ("other", "{}")]),
        _ => says(request, "So it went."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let run = stage.begin("reader", "Pay.").await;
    let waiting = stage.in_state(&run, "waiting_approval").await;
    let asked = waiting["pending"]["approvals"].as_array().unwrap();
    let pay = asked.iter().find(|it| it["tool"] == "pay").unwrap();
    let approval = pay["id"].as_str().unwrap();
    let path = format!("/v1/agents/approvals/{approval}");
    let denied = stage.post(&path, OPERATOR, &json!({"decision": "deny"})).await;
    assert_eq!(denied.status, 200, "{}", denied.text());
    stage.in_state(&run, "completed").await;
    let spans = || {
        let spans = collector.spans().into_iter();
        spans.filter(|span| span.name.starts_with("execute_tool")).collect::<Vec<_>>()
    };
    until("all calls are told of", || spans().len() == 3).await;
    let error = |tool: &str| {
        let spans = spans();
        let span = spans.iter().find(|it| it.name == format!("execute_tool {tool}")).unwrap();
        let told = |name: &str| attribute(&span.attributes, name);
        (told("error.type"), told("switchpoint.approval.id"), told("switchpoint.tool.attempts"))
    };
    let (why, by, attempts) = error("pay");
    assert_eq!((why.as_deref(), by.as_deref()), (Some("denied"), Some(approval)));
    assert_eq!(attempts, None);
    assert_eq!(error("slow").0.as_deref(), Some("expired"));
    assert_eq!(error("other"), (Some("unknown_tool".to_owned()), None, None));
    assert!(stage.tools.requests().is_empty());
}
