//! What is told of a run that its process has left, and what its tools are told of its trace.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{Stage, found, results, says, search, texts, wants};
use crate::support::collector::{Collector, Mood, attribute};
use crate::support::upstream::Request;
use crate::support::{Gate, PATIENCE, Script, until};

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
    let answer = stage.chat("reader", "What are you told?").await;
    let said = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let of_tool = || collector.spans().into_iter().find(|it| it.name == "execute_tool small.meta");
    until("the call is told of", || of_tool().is_some()).await;
    let span = of_tool().unwrap();
    let expected = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert!(said.contains(&expected), "{expected}: {said}");
    let run: Value = json!(answer["x_agent"]["run_id"]);
    let stretch = stretches(&collector).pop();
    if let Some(stretch) = stretch {
        assert_eq!(stretch.trace_id, span.trace_id, "{run}");
    }
}
