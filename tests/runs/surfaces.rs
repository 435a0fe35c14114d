//! What a run shows at the ordinary doors: modes of streams, answers asked for twice, conversations,
//! and responses that another process gives.

use std::net::SocketAddr;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::doors::{House, RESPONSES, chat, events, sections, store};
use crate::support::client::{self, Answer, CHAT, request};
use crate::support::gateway::KEY;
use crate::support::{Gateway, PATIENCE, until};

const MODES: &str = r#"
[agents.quiet]
route = "fast"
instructions = "Help."
tools = ["lookup"]
stream = "final"
[agents.loud]
route = "fast"
instructions = "Help."
tools = ["lookup"]
stream = "steps"

"#;

/// The text of a stream of chat completions.
fn words(stream: &str) -> String {
    let events = events(stream);
    let said = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    said.collect()
}

#[tokio::test]
async fn a_stream_is_live_final_or_in_steps_as_the_agent_or_the_caller_says() {
    let house = House::on(MODES).await;
    house.gate.open();
    for (agent, header, live, steps) in [
        ("support", None, true, false),
        ("support", Some("live"), true, false),
        ("support", Some("final"), false, false),
        ("support", Some("steps"), true, true),
        ("quiet", None, false, false),
        ("quiet", Some("live"), true, false),
        ("loud", None, true, true),
        ("loud", Some("final"), false, false),
    ] {
        let model = format!("agent/{agent}");
        let body = chat("My order?", &json!({"stream": true, "model": model}));
        let headers: Vec<_> =
            header.map(|mode| ("x-switchpoint-stream", mode)).into_iter().collect();
        let stream = house.ask(CHAT, &headers, &body).await;
        let text = stream.text();
        assert_eq!(words(text).contains("Let me look."), live, "{agent} {header:?}: {text}");
        assert!(words(text).ends_with("It is in Bonn."), "{agent} {header:?}: {text}");
        let events = events(text);
        let told = events.iter().any(|event| event["x_agent"]["event"].is_string());
        assert_eq!(told, steps, "{agent} {header:?}: {text}");
        assert_eq!(text.matches("data: [DONE]").count(), 1);
    }
    let odd = [("x-switchpoint-stream", "loud")];
    let refused = house.ask(CHAT, &odd, &chat("Hi.", &json!({"stream": true}))).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn a_stream_ends_once_and_sums_its_usage_up_where_that_is_asked_for() {
    let house = House::new().await;
    house.gate.open();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let stream = house.ask(CHAT, &[], &chat("My order?", &more)).await;
    let events = events(stream.text());
    let last = events.last().unwrap();
    assert_eq!((&last["usage"]["total_tokens"], &last["choices"]), (&json!(30), &json!([])));
    let ends = events.iter().filter(|event| event["choices"][0]["finish_reason"].is_string());
    assert_eq!(ends.count(), 1, "{}", stream.text());
    let counted = events.iter().filter(|event| event["usage"].is_object());
    assert_eq!(counted.count(), 1, "{}", stream.text());
    assert!(stream.text().trim_end().ends_with("data: [DONE]"), "{}", stream.text());
}

#[tokio::test]
async fn signs_of_life_come_while_a_tool_is_at_work() {
    let house = House::with("keepalive = \"100ms\"\n", "").await;
    let mut stream = house.open(CHAT, &[], &chat("My order?", &json!({"stream": true}))).await;
    stream.read_until("Let me look.").await;
    house.tools.asked(1).await;
    stream.read_until(": ka").await;
    stream.read_until(": ka").await;
    house.gate.open();
    let rest = stream.whole().await;
    assert!(words(rest.text()).ends_with("It is in Bonn."), "{}", rest.text());
}

#[tokio::test]
async fn streams_of_every_api_tell_of_their_run() {
    let house = House::new().await;
    house.gate.open();
    let messages = json!([{"role": "user", "content": "My order?"}]);
    let anthropic = json!({
        "model": "agent/support", "max_tokens": 100, "messages": messages, "stream": true,
    });
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "My order?"}]}]});
    let openai = json!({"model": "agent/support", "input": "My order?", "stream": true});
    let path = "/v1beta/models/agent/support:streamGenerateContent";
    for (path, body, place) in [
        ("/v1/messages", &anthropic, "/x_agent"),
        (&format!("{path}?alt=sse"), &google, "/x_agent"),
        (RESPONSES, &openai, "/response/x_agent"),
        (CHAT, &chat("My order?", &json!({"stream": true})), "/x_agent"),
    ] {
        let stream = house.ask(path, &[], body).await;
        let told: Vec<_> =
            events(stream.text()).iter().filter_map(|it| it.pointer(place).cloned()).collect();
        assert_eq!(told.len(), 1, "{path}: {}", stream.text());
        let run = told[0]["run_id"].as_str();
        assert_eq!(run, stream.header("x-switchpoint-run-id"), "{path}");
        assert_eq!((&told[0]["status"], &told[0]["steps"]), (&json!("completed"), &json!(2)));
        assert!(stream.header("x-switchpoint-agent-version").is_some());
    }
    // A stream of Google's that is one array stays one.
    let array = house.ask(path, &[], &google).await.json();
    assert!(array.to_string().contains("It is in Bonn."), "{array}");
}

#[tokio::test]
async fn what_is_asked_twice_by_one_key_has_one_answer_with_one_name() {
    let house = House::new().await;
    house.gate.open();
    for (key, body) in [
        ("one", json!({"model": "agent/support", "input": "My order?"})),
        ("two", json!({"model": "agent/support", "input": "My order?", "stream": true})),
        ("three", json!({"model": "agent/support", "input": "My order?", "background": true})),
    ] {
        let headers = [("idempotency-key", key)];
        let asked = house.model.requests().len();
        let first = house.ask(RESPONSES, &headers, &body).await;
        let second = house.ask(RESPONSES, &headers, &body).await;
        let id = |answer: &client::Answer| match body["stream"].as_bool() {
            Some(true) => events(answer.text()).last().unwrap()["response"]["id"].clone(),
            _ => answer.json()["id"].clone(),
        };
        assert!(id(&first).is_string(), "{key}: {}", first.text());
        assert_eq!(id(&first), id(&second), "{key}: {}", second.text());
        let kept = house.settled(id(&first).as_str().unwrap()).await;
        assert_eq!(kept["status"], "completed", "{key}: {kept:#}");
        assert!(kept.to_string().contains("It is in Bonn."), "{key}: {kept:#}");
        assert_eq!(house.model.requests().len(), asked + 2, "{key}: asked once");
    }
    let headers = [("idempotency-key", "four")];
    let body = chat("Hi.", &json!({"stream": true}));
    let first = house.ask(CHAT, &headers, &body).await;
    let second = house.ask(CHAT, &headers, &body).await;
    assert_eq!(events(first.text())[0]["id"], events(second.text())[0]["id"]);
    assert_eq!(words(first.text()), words(second.text()));
}

#[tokio::test]
async fn a_stream_that_is_asked_for_again_is_joined_while_it_goes_on() {
    let house = House::new().await;
    let headers = [("idempotency-key", "k")];
    let body = chat("My order?", &json!({"stream": true}));
    let mut first = house.open(CHAT, &headers, &body).await;
    first.read_until("Let me look.").await;
    house.tools.asked(1).await;
    let mut second = house.open(CHAT, &headers, &body).await;
    let seen = second.read_until("Let me look.").await;
    // The run goes on as long as one of them is there.
    drop(first);
    house.gate.open();
    let rest = second.whole().await;
    assert!(words(rest.text()).ends_with("It is in Bonn."), "{seen}{}", rest.text());
    assert_eq!((house.model.requests().len(), house.tools.requests().len()), (2, 1));
}

#[tokio::test]
async fn a_response_makes_no_more_calls_of_tools_than_it_is_told() {
    let house = House::new().await;
    house.gate.open();
    let body = json!({"model": "agent/support", "input": "My order?", "max_tool_calls": 0});
    let told = house.ask(RESPONSES, &[], &body).await.json();
    assert!(house.tools.requests().is_empty());
    assert_eq!(told["status"], "incomplete", "{told:#}");
    assert_eq!(told["metadata"]["agent_stop_reason"], "max_tool_calls");
    let reasons = [json!("max_output_tokens"), json!("content_filter")];
    assert!(reasons.contains(&told["incomplete_details"]["reason"]), "{told:#}");
    let body = json!({"model": "agent/support", "input": "My order?", "max_tool_calls": 1});
    let told = house.ask(RESPONSES, &[], &body).await.json();
    assert_eq!((&told["status"], house.tools.requests().len()), (&json!("completed"), 1));
}

#[tokio::test]
async fn a_conversation_is_remembered_by_its_name_or_by_the_response_before() {
    let house = House::new().await;
    let ask = async |text: &str, more: Value| {
        let mut body = json!({"model": "agent/support", "input": text});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = house.ask(RESPONSES, &[], &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let said = |told: &Value| told["output"][0]["content"][0]["text"].clone();
    let first = ask("One.", json!({"conversation": "conv_1"})).await;
    assert_eq!(said(&first), "You said 1 things.");
    assert_eq!(first["conversation"], json!({"id": "conv_1"}));
    let second = ask("Two.", json!({"conversation": {"id": "conv_1"}})).await;
    assert_eq!(said(&second), "You said 2 things.");
    let third = ask("Three.", json!({"previous_response_id": second["id"]})).await;
    assert_eq!(said(&third), "You said 3 things.");
    assert_eq!(third["previous_response_id"], second["id"]);
    let other = ask("One.", json!({"conversation": "conv_2"})).await;
    assert_eq!(said(&other), "You said 1 things.");
    let both = json!({"model": "agent/support", "input": "Four.", "conversation": "conv_1",
        "previous_response_id": second["id"]});
    let refused = house.ask(RESPONSES, &[], &both).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn a_question_for_approval_is_still_asked_by_its_response_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("calls.db"));
    let house = House::on(&store).await;
    let body = json!({"model": "agent/support", "input": "My money back.", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    let path = "/v1/agents/approvals?state=pending";
    loop {
        if house.get(path).await["data"][0]["id"].is_string() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let House { gateway, model, tools, gate } = house;
    gateway.kill();
    let gateway = Gateway::start("", &sections(&model, &tools, &store)).await;
    let house = House { gateway, model, tools, gate };
    let id = begun["id"].as_str().unwrap();
    let (told, wanted) = house.wanted(id).await;
    assert_eq!((&told["status"], &told["background"]), (&json!("in_progress"), &json!(true)));
    let approval = json!([{
        "type": "mcp_approval_response", "approval_request_id": wanted["id"], "approve": true,
    }]);
    let next = json!({"model": "agent/support", "input": approval, "previous_response_id": id});
    let second = house.ask(RESPONSES, &[], &next).await.json();
    assert!(second.to_string().contains("It is in Bonn."), "{second:#}");
    assert_eq!(house.tools.requests().len(), 1);
    // The first one has come to the same end.
    let first = house.settled(id).await;
    assert_eq!((&first["status"], &first["id"]), (&json!("completed"), &json!(id)));
    assert!(first.to_string().contains("It is in Bonn."), "{first:#}");
}

#[tokio::test]
async fn a_response_in_the_background_is_in_progress_while_its_run_waits_for_people() {
    let house = House::new().await;
    let body = json!({"model": "agent/support", "input": "My money back.", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    let id = begun["id"].as_str().unwrap();
    let (told, wanted) = house.wanted(id).await;
    assert_eq!(told["status"], "in_progress", "{told:#}");
    assert_eq!(told["x_agent"]["status"], "waiting_approval", "{told:#}");
    house.approve(&wanted).await;
    let done = house.settled(id).await;
    assert_eq!((&done["status"], &done["id"]), (&json!("completed"), &json!(id)), "{done:#}");
    assert!(done.to_string().contains("It is in Bonn."), "{done:#}");
    let output = done["output"].as_array().unwrap();
    let items: Vec<_> = output.iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(items, ["mcp_approval_request", "mcp_call", "message"], "{done:#}");
    assert_eq!((&output[0]["id"], &output[1]["name"]), (&wanted["id"], &json!("refund")));
    assert_eq!(house.tools.requests().len(), 1);
    // So is one that is held by somebody, and it can be called off.
    house.gate.open();
    let body = json!({"model": "agent/support", "input": "Be stuck.", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    house.tools.asked(2).await;
    let run = begun["metadata"]["switchpoint_run_id"].as_str().unwrap();
    let path = format!("/v1/agents/runs/{run}");
    let begun = begun["id"].as_str().unwrap();
    assert_eq!(house.get(&format!("{RESPONSES}/{begun}")).await["status"], "in_progress");
    let cancel = format!("{RESPONSES}/{begun}/cancel");
    let cancelled = client::post(house.gateway.address, &cancel, KEY, "").await;
    assert_eq!(cancelled.json()["status"], "cancelled", "{}", cancelled.text());
    super::stage::in_state(&house.gateway, &path, "cancelled").await;
}

#[tokio::test]
async fn whoever_deletes_a_response_that_a_run_still_makes_ends_the_run() {
    let house = House::new().await;
    let body = json!({"model": "agent/support", "input": "Be stuck.", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    house.tools.asked(1).await;
    let path = format!("{RESPONSES}/{}", begun["id"].as_str().unwrap());
    let asked = client::request(http::Method::DELETE, &path, KEY, "".into());
    let deleted = client::open(house.gateway.address, asked).await.whole().await;
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let run = begun["metadata"]["switchpoint_run_id"].as_str().unwrap();
    let path = format!("/v1/agents/runs/{run}");
    super::stage::in_state(&house.gateway, &path, "cancelled").await;
}

#[tokio::test]
async fn a_stream_in_the_background_goes_on_when_a_person_has_decided() {
    let house = House::new().await;
    let body = json!({
        "model": "agent/support", "input": "My money back.", "background": true, "stream": true,
    });
    let stream = house.open(RESPONSES, &[], &body).await;
    let (answer, id) = tokio::join!(stream.whole(), async {
        let pending = loop {
            let listed = house.get("/v1/agents/approvals?state=pending").await;
            if let Some(found) = listed["data"].as_array().and_then(|all| all.first()) {
                break found.clone();
            }
            tokio::task::yield_now().await;
        };
        let id = pending["run_id"].as_str().unwrap().replace("run_", "resp_");
        let (told, wanted) = house.wanted(&id).await;
        assert_eq!(told["status"], "in_progress", "{told:#}");
        house.approve(&wanted).await;
        id
    });
    let told = events(answer.text());
    let numbers: Vec<u64> =
        told.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "{}", answer.text());
    let ends = told.iter().filter(|event| event["type"] == "response.completed");
    assert_eq!(ends.count(), 1, "{}", answer.text());
    assert_eq!(told[0]["response"]["background"], true, "{}", told[0]);
    let last = &told.last().unwrap()["response"];
    assert_eq!((&last["status"], &last["id"]), (&json!("completed"), &json!(id)), "{last:#}");
    assert!(last.to_string().contains("It is in Bonn."), "{last:#}");
    assert!(answer.text().contains("mcp_approval_request"), "{}", answer.text());
    // Its end knows the calls that it has told of, each of them once.
    let items = told.iter().filter(|event| event["type"] == "response.output_item.done");
    let items = items.map(|event| &event["item"]);
    let is_call = |it: &&Value| it["type"].as_str().is_some_and(|kind| kind.starts_with("mcp_"));
    let output = last["output"].as_array().unwrap();
    let calls: Vec<_> = output.iter().filter(is_call).collect();
    assert_eq!(items.filter(is_call).collect::<Vec<_>>(), calls, "{last:#}");
    assert_eq!(calls.len(), 2, "{last:#}");
    // Whoever joins it later is told the same.
    let path = format!("{RESPONSES}/{id}?stream=true&starting_after=1");
    let again = client::get(house.gateway.address, &path, KEY).await;
    let again: Vec<u64> =
        events(again.text()).iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
    assert_eq!(again, numbers[2..]);
}

#[tokio::test]
async fn every_process_knows_how_a_response_stands_that_another_one_makes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("calls.db"));
    let house = House::on(&store).await;
    let other = Gateway::start("", &sections(&house.model, &house.tools, &store)).await;
    let body = json!({"model": "agent/support", "input": "My order?", "background": true});
    let begun = house.ask(RESPONSES, &[], &body).await.json();
    house.tools.asked(1).await;
    let path = format!("{RESPONSES}/{}", begun["id"].as_str().unwrap());
    let status = async || {
        let told = client::get(other.address, &path, KEY).await;
        assert!(matches!(told.status, 200 | 404), "{}", told.text());
        told.json()["status"].as_str().unwrap_or_default().to_owned()
    };
    // What is kept reaches the store behind the answer.
    while status().await.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(status().await, "in_progress");
    house.gate.open();
    house.settled(begun["id"].as_str().unwrap()).await;
    until("the run is over", || house.model.requests().len() == 2).await;
    while status().await == "in_progress" {
        tokio::task::yield_now().await;
    }
    assert_eq!(status().await, "completed");
}

#[tokio::test]
async fn of_a_turn_with_calls_for_both_the_client_makes_its_own_and_sees_no_other() {
    let house = House::new().await;
    house.gate.open();
    let tool = json!([{"type": "function", "function": {
        "name": "mine", "parameters": {"type": "object", "properties": {}},
    }}]);
    let asked = chat("Use both.", &json!({"tools": tool}));
    let first = house.ask(CHAT, &[], &asked).await.json();
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls", "{first}");
    let message = &first["choices"][0]["message"];
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("mine")), "{first}");
    assert_eq!(house.tools.requests().len(), 1, "the agent's own was made");
    let result = json!({"role": "tool", "tool_call_id": calls[0]["id"], "content": "7"});
    let mut next = asked;
    next["messages"].as_array_mut().unwrap().extend([message.clone(), result]);
    let second = house.ask(CHAT, &[], &next).await.json();
    assert_eq!(second["choices"][0]["finish_reason"], "stop", "{second}");
    assert_eq!(second["x_agent"]["run_id"], first["x_agent"]["run_id"]);
    let asked = house.model.requests();
    let last: Value = serde_json::from_slice(&asked.last().unwrap().body).unwrap();
    let results = last["messages"].as_array().unwrap().iter().filter(|it| it["role"] == "tool");
    assert_eq!(results.count(), 2, "the hidden call stands in its place: {last:#}");
    assert_eq!(house.tools.requests().len(), 1);
}

#[tokio::test]
async fn a_client_may_say_that_its_run_ends_with_it_whatever_the_config_says() {
    let stays = "[agent_engine]\non_disconnect = \"continue\"\n\n";
    let house = House::on(stays).await;
    let ends = [("x-switchpoint-on-disconnect", "cancel")];
    let body = chat("My order?", &json!({"stream": true}));
    let mut stream = house.open(CHAT, &ends, &body).await;
    stream.read_until("Let me look.").await;
    house.tools.asked(1).await;
    drop(stream);
    until("the tool is left", || house.tools.busy() == 0).await;
    assert_eq!(house.model.requests().len(), 1);
}

#[tokio::test]
async fn a_stream_that_one_process_makes_is_joined_at_another_under_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("calls.db"));
    let house = House::on(&store).await;
    let other = Gateway::start("", &sections(&house.model, &house.tools, &store)).await;
    let body = json!({
        "model": "agent/support", "input": "My order?", "background": true, "stream": true,
    });
    let mut stream = house.open(RESPONSES, &[], &body).await;
    let seen = stream.read_until("Let me look.").await;
    let first = events(&seen);
    let id = first[0]["response"]["id"].as_str().unwrap().to_owned();
    let last = first.last().unwrap()["sequence_number"].as_u64().unwrap();
    house.tools.asked(1).await;
    let path = format!("{RESPONSES}/{id}?stream=true&starting_after={last}");
    let joined = found(other.address, &path);
    let opens = async {
        let asked = client::get(other.address, &format!("{RESPONSES}/{id}"), KEY).await;
        assert!(matches!(asked.status, 200 | 404));
        house.gate.open();
    };
    let (joined, ()) = tokio::join!(joined, opens);
    let rest = events(stream.whole().await.text());
    let numbers = |events: &[Value]| -> Vec<u64> {
        events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect()
    };
    let joined = events(joined.text());
    assert_eq!(joined.last().unwrap()["type"], "response.completed", "{joined:#?}");
    assert_eq!(numbers(&joined)[0], last + 1);
    let behind: Vec<Value> = first
        .iter()
        .chain(&rest)
        .filter(|it| it["sequence_number"].as_u64() > Some(last))
        .cloned()
        .collect();
    assert_eq!(joined, behind);
}

#[tokio::test]
async fn what_a_stream_in_the_background_has_said_is_written_from_time_to_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.db");
    let house = House::on(&store(&path)).await;
    let database = rusqlite::Connection::open(&path).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    let noted = "BEGIN INSERT INTO writes VALUES (length(new.value)); END";
    let count = format!(
        "CREATE TABLE writes (bytes INTEGER);
         CREATE TRIGGER first AFTER INSERT ON objects WHEN new.kind = 'events' {noted};
         CREATE TRIGGER later AFTER UPDATE ON objects WHEN new.kind = 'events' {noted};"
    );
    database.execute_batch(&count).unwrap();
    let began = Instant::now();
    let body = json!({
        "model": "agent/support", "input": "My order?", "background": true, "stream": true,
    });
    let mut stream = house.open(RESPONSES, &[], &body).await;
    stream.read_until("Let me look.").await;
    house.tools.asked(1).await;
    // Also while nothing more is said, what was said last.
    let written = |query: &str| -> i64 { database.query_row(query, [], |row| row.get(0)).unwrap() };
    let so_far = "SELECT count(*) FROM objects WHERE kind = 'events'
        AND CAST(value AS TEXT) LIKE '%output_text.done%'";
    until("it is written", || written(so_far) == 1).await;
    house.gate.open();
    stream.whole().await;
    let whole = "SELECT count(*) FROM objects WHERE kind = 'events'
        AND CAST(value AS TEXT) LIKE '%event: response.completed%'";
    until("all is written", || written(whole) == 1).await;
    let most = 3 + i64::try_from(began.elapsed().as_millis() / 300).unwrap();
    let times = written("SELECT count(*) FROM writes");
    assert!(times <= most, "{times} of {most}");
}

#[tokio::test]
async fn a_stream_whose_process_has_died_is_told_to_its_end_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder.path().join("calls.db"));
    let house = House::on(&store).await;
    let body = json!({
        "model": "agent/support", "input": "My order?", "background": true, "stream": true,
    });
    let mut stream = house.open(RESPONSES, &[], &body).await;
    let seen = stream.read_until("Let me look.").await;
    let first = events(&seen);
    let id = first[0]["response"]["id"].as_str().unwrap().to_owned();
    let last = first.last().unwrap()["sequence_number"].as_u64().unwrap();
    house.tools.asked(1).await;
    // What is kept reaches the store behind the answer.
    let other = Gateway::start("", &sections(&house.model, &house.tools, &store)).await;
    let path = format!("{RESPONSES}/{id}");
    while client::get(other.address, &path, KEY).await.status == 404 {}
    let joins = request(Method::GET, &format!("{path}?stream=true"), KEY, "".into());
    let mut joined = client::open(other.address, joins).await;
    joined.read_until("event: response.output_text.done").await;
    drop((joined, other));
    let House { gateway, model, tools, gate } = house;
    gateway.kill();
    gate.open();
    let gateway = Gateway::start("", &sections(&model, &tools, &store)).await;
    let path = format!("{path}?stream=true&starting_after={last}");
    let rest = client::get(gateway.address, &path, KEY).await;
    let rest = events(rest.text());
    let numbers: Vec<u64> =
        rest.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (last + 1..).take(numbers.len()).collect::<Vec<_>>());
    let end = rest.last().unwrap();
    assert_eq!(end["type"], "response.completed", "{rest:#?}");
    assert!(end["response"]["output"].to_string().contains("It is in Bonn."), "{end:#}");
    let said = rest.iter().filter(|event| event["type"] == "response.output_text.delta");
    let said: String = said.map(|event| event["delta"].as_str().unwrap().to_owned()).collect();
    assert_eq!(said, "It is in Bonn.", "{rest:#?}");
    let again = client::get(gateway.address, &path, KEY).await;
    assert_eq!(events(again.text()), rest, "the numbers stay");
    drop((model, tools));
}

/// What is kept reaches the store behind the answer.
async fn found(address: SocketAddr, path: &str) -> Answer {
    loop {
        let answer = client::get(address, path, KEY).await;
        if answer.status != 404 {
            return answer;
        }
    }
}
