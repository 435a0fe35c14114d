//! What people and programs do to runs from outside, each as its user would: they are followed over
//! bad lines, answered, held, played again, gone on with from the middle, and judged.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{House, LEAD, OPERATOR, types};
use crate::support::PATIENCE;
use crate::support::client::{open, request};
use crate::support::gateway::KEY;

/// The ids of server-sent events.
fn ids(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("id: ").map(str::to_owned)).collect()
}

impl House {
    async fn journal(&self, path: &str) -> Vec<Value> {
        let json = [("accept", "application/json")];
        let page = (Method::GET, &*format!("{path}/events?limit=500"));
        let page = self.send_with(KEY, page, &Value::Null, &json).await.json();
        page["data"].as_array().unwrap().clone()
    }

    /// The place of the run that was made of another one.
    async fn made(&self, path: &str, body: Value) -> String {
        let made = self.post(path, body).await;
        assert_eq!(made.status, 202, "{}", made.text());
        made.header("location").unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_line_that_is_cut_twenty_times_loses_no_event_and_gives_none_twice() {
    let house = House::new().await;
    let path = house.begin("plain", "recite").await;
    let events = format!("{path}/events");
    let (mut seen, mut text) = (Vec::<String>::new(), String::new());
    for cut in 0..=20 {
        let mut asked = request(Method::GET, &events, KEY, Vec::new().into());
        if let Some(last) = seen.last() {
            asked.headers_mut().insert("last-event-id", last.parse().unwrap());
        }
        let mut stream = open(house.gateway.address, asked).await;
        if cut == 20 {
            house.gate.open();
            text.push_str(stream.whole().await.text());
        } else {
            // Whatever came in the piece is taken, and the rest of the line is lost.
            let piece = stream.read_until("\n\n").await;
            let whole = piece.rfind("\n\n").map_or(0, |end| end + 2);
            text.push_str(&piece[..whole]);
        }
        seen = ids(&text);
    }
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "{seen:?}");
    let entries: Vec<u64> = seen.iter().filter_map(|id| id.parse().ok()).collect();
    assert_eq!(entries, (1..=entries.len() as u64).collect::<Vec<_>>(), "{seen:?}");
    let parts: Vec<&String> = seen.iter().filter(|id| id.contains('.')).collect();
    let numbers: Vec<usize> =
        parts.iter().map(|id| id.split_once('.').unwrap().1.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>(), "{seen:?}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let data = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    let said: String = data
        .filter(|it| it["type"] == "text.delta")
        .map(|it| it["data"]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(said, (1..=30).map(|word| format!("{word} ")).collect::<Vec<_>>().concat());
    assert_eq!(house.in_state(&path, "completed").await["result"]["text"], said);
    assert_eq!(house.journal(&path).await.len(), entries.len());
}

#[tokio::test]
async fn a_run_that_asks_its_user_goes_on_with_the_answer() {
    let house = House::new().await;
    let path = house.begin("plain", "ask").await;
    let run = house.in_state(&path, "waiting_input").await;
    let asked = &run["pending"]["inputs"][0];
    assert_eq!(asked["message"], "Which one?", "{run:#}");
    let body = json!({"request_id": asked["request_id"], "values": "The red one."});
    let answer = house.post(&format!("{path}/input"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    house.in_state(&path, "completed").await;
    let asked = house.model.requests();
    let told = String::from_utf8(asked.last().unwrap().body.to_vec()).unwrap();
    assert!(told.contains("The red one."), "{told}");
    let again = house.post(&format!("{path}/input"), json!({"values": "Or blue."})).await;
    assert_eq!(again.status, 409, "{}", again.text());
}

#[tokio::test]
async fn what_became_of_a_call_is_said_by_a_person_where_nobody_knows_it() {
    let house = House::new().await;
    for (outcome, calls, told) in
        [("done", 1, "the money is there"), ("failed", 1, "failed"), ("retry", 2, "")]
    {
        let before = house.tools.requests().len();
        let path = house.begin("plain", "vanish").await;
        let run = house.in_state(&path, "waiting_human").await;
        let open = &run["pending"]["unknown_outcomes"][0];
        assert_eq!(open["tool"], "vanish", "{run:#}");
        let wrong = json!({"seq": 1, "outcome": "done"});
        assert_eq!(house.post(&format!("{path}/resolve"), wrong).await.status, 409);
        let mut body = json!({"seq": open["seq"], "outcome": outcome});
        if outcome == "done" {
            body["result"] = json!("the money is there");
        }
        let answer = house.post(&format!("{path}/resolve"), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        if outcome == "retry" {
            // It vanishes again, and a person is asked again.
            let asks = || house.tools.requests().len() == before + 2;
            crate::support::until("it is tried again", asks).await;
            house.in_state(&path, "waiting_human").await;
        } else {
            house.in_state(&path, "completed").await;
            let asked = house.model.requests();
            let last = String::from_utf8(asked.last().unwrap().body.to_vec()).unwrap();
            assert!(last.contains(told), "{outcome}: {last}");
        }
        assert_eq!(house.tools.requests().len(), before + calls, "{outcome}");
    }
}

#[tokio::test]
async fn a_run_that_is_paused_does_nothing_until_it_is_resumed() {
    let house = House::new().await;
    let path = house.begin("plain", "hold and look").await;
    crate::support::until("the model is asked", || house.model.busy() == 1).await;
    let paused = house.post(&format!("{path}/pause"), Value::Null).await;
    assert_eq!(paused.status, 200, "{}", paused.text());
    house.gate.open();
    house.in_state(&path, "paused").await;
    assert!(house.tools.requests().is_empty(), "what its model wants waits, too");
    let twice = house.post(&format!("{path}/pause"), Value::Null).await;
    assert_eq!(twice.status, 409, "{}", twice.text());
    let resumed = house.post(&format!("{path}/resume"), Value::Null).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    house.in_state(&path, "completed").await;
    assert_eq!(house.tools.requests().len(), 1);
}

#[tokio::test]
async fn a_fork_of_a_run_that_is_paused_goes_on() {
    let house = House::new().await;
    let path = house.begin("plain", "hold and look").await;
    crate::support::until("the model is asked", || house.model.busy() == 1).await;
    house.post(&format!("{path}/pause"), Value::Null).await;
    house.gate.open();
    let paused = house.in_state(&path, "paused").await;
    let door = format!("{path}/fork");
    for odd in [json!(5), json!(""), json!(["x"]), json!({"a": 1})] {
        let fork = json!({"at_seq": paused["last_seq"], "edit": odd});
        let answer = house.post(&door, fork).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let fork = house.post(&door, json!({"at_seq": paused["last_seq"]})).await;
    house.in_state(fork.header("location").unwrap(), "completed").await;
    house.in_state(&path, "paused").await;
}

#[tokio::test]
async fn what_is_let_pass_while_a_run_is_paused_is_done_once_when_it_is_resumed() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = run["pending"]["approvals"][0]["id"].clone();
    let paused = house.post(&format!("{path}/pause"), Value::Null).await;
    assert_eq!(paused.status, 200, "{}", paused.text());
    house.in_state(&path, "paused").await;
    let door = format!("/v1/agents/approvals/{}", approval.as_str().unwrap());
    let yes = json!({"decision": "approve"});
    let decided = house.send_with(LEAD, (Method::POST, &door), &yes, &[("if-match", "*")]).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let of_kind = async |kind: &str| -> Vec<Value> {
        let rows = house.journal(&path).await.into_iter();
        rows.filter(|row| row["type"] == kind).map(|row| row["data"]["approval"].clone()).collect()
    };
    // It has heard of it.
    let deadline = Instant::now() + PATIENCE;
    while of_kind("tool.approved").await.is_empty() {
        assert!(Instant::now() < deadline, "it never hears of it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    house.in_state(&path, "paused").await;
    assert!(house.tools.requests().is_empty(), "nothing is done while it is paused");
    let resumed = house.post(&format!("{path}/resume"), Value::Null).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text());
    house.in_state(&path, "completed").await;
    assert_eq!(house.tools.requests().len(), 1);
    for kind in ["tool.approval_requested", "tool.approved"] {
        assert_eq!(of_kind(kind).await, std::slice::from_ref(&approval), "{kind}");
    }
}

#[tokio::test]
async fn a_run_played_again_from_its_record_has_the_same_entries() {
    let house = House::new().await;
    let path = house.begin("plain", "look").await;
    house.in_state(&path, "completed").await;
    let place = house.made(&format!("{path}/replay"), json!({"mode": "recorded"})).await;
    let played = house.in_state(&place, "completed").await;
    assert_eq!((&played["usage"]["total_tokens"], &played["cost_usd"]), (&json!(0), &json!(0.0)));
    let whole = house.get(&path).await["usage"].clone();
    assert_eq!(played["source"]["usage"], whole, "{played:#}");
    let (first, second) = (house.journal(&path).await, house.journal(&place).await);
    let said = |rows: &[Value]| -> Vec<(String, String)> {
        let rows = rows.iter().skip(1);
        rows.map(|row| (row["type"].to_string(), row["data"].to_string())).collect()
    };
    assert_eq!(said(&second), said(&first));
    assert_eq!((house.model.requests().len(), house.tools.requests().len()), (2, 1));
}

#[tokio::test]
async fn what_must_not_happen_twice_does_not_when_a_run_is_asked_anew() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap().to_owned();
    let door = format!("/v1/agents/approvals/{approval}");
    let yes = json!({"decision": "approve"});
    house.send_with(LEAD, (Method::POST, &door), &yes, &[("if-match", "*")]).await;
    house.in_state(&path, "completed").await;
    assert_eq!(house.tools.requests().len(), 1);
    let place = house.made(&format!("{path}/replay"), json!({"mode": "live"})).await;
    let again = house.in_state(&place, "completed").await;
    assert_eq!((&again["version"], &again["trigger"]), (&json!("7"), &json!("replay")));
    assert_eq!((house.tools.requests().len(), house.model.requests().len()), (1, 4));
    let effects = json!({"mode": "live", "overrides": {"effects": true}});
    let place = house.made(&format!("{path}/replay"), effects).await;
    house.in_state(&place, "waiting_approval").await;
}

#[tokio::test]
async fn a_run_goes_on_from_the_middle_of_another_with_what_its_user_says_there() {
    let house = House::new().await;
    let path = house.begin("plain", "look").await;
    house.in_state(&path, "completed").await;
    let rows = house.journal(&path).await;
    let called = rows.iter().find(|row| row["type"] == "tool.completed").unwrap();
    let body = json!({"at_seq": called["seq"], "edit": "Say it in one word."});
    let place = house.made(&format!("{path}/fork"), body).await;
    let run = house.in_state(&place, "completed").await;
    assert_eq!(run["trigger"], "fork");
    assert_eq!((house.model.requests().len(), house.tools.requests().len()), (3, 1));
    let asked = house.model.requests();
    let told = String::from_utf8(asked.last().unwrap().body.to_vec()).unwrap();
    assert!(told.contains("Say it in one word."), "{told}");
    let created = house.journal(&place).await[0]["data"]["forked_from"].clone();
    assert_eq!(created[1], called["seq"], "{created}");
    let first = house.get(&path).await;
    assert_eq!(first["state"], "completed", "the first one stays as it was");
    // What the first has paid for is no cost of the second.
    let tokens = |run: &Value| run["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!((tokens(&run) * 2, tokens(&run["source"]) * 2), (tokens(&first), tokens(&first)));
    assert_eq!((&run["tool_calls"], &run["source"]["tool_calls"]), (&json!(0), &json!(1)));
    assert!(path.ends_with(run["source"]["run_id"].as_str().unwrap()), "{run:#}");
    assert_eq!((&first["source"], &first["tool_calls"]), (&Value::Null, &json!(1)));
}

#[tokio::test]
async fn what_people_let_pass_in_one_run_no_other_that_is_made_of_it_may_do() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap().to_owned();
    let door = format!("/v1/agents/approvals/{approval}");
    let yes = json!({"decision": "approve"});
    house.send_with(LEAD, (Method::POST, &door), &yes, &[("if-match", "*")]).await;
    house.in_state(&path, "completed").await;
    let rows = house.journal(&path).await;
    let passed = rows.iter().find(|row| row["type"] == "tool.approved").unwrap();
    let place = house.made(&format!("{path}/fork"), json!({"at_seq": passed["seq"]})).await;
    let fork = house.in_state(&place, "waiting_approval").await;
    assert_ne!(fork["pending"]["approvals"][0]["id"], approval, "{fork:#}");
    assert_eq!(house.tools.requests().len(), 1);
}

#[tokio::test]
async fn approvals_are_listed_page_by_page_to_those_who_may_decide() {
    let house = House::new().await;
    for _ in 0..5 {
        let path = house.begin("buyer", "pay").await;
        house.in_state(&path, "waiting_approval").await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/agents/approvals?state=pending&role=lead&limit=2{cursor}");
        let page = house.send(LEAD, (Method::GET, &path), &Value::Null).await.json();
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= 2, "{page}");
        seen.extend(rows.iter().map(|row| row["id"].to_string()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let unique: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), unique.len()), (5, 5), "{seen:?}");
    let all = house.send(OPERATOR, (Method::GET, "/v1/agents/approvals"), &Value::Null).await;
    assert_eq!(all.json()["data"].as_array().unwrap().len(), 5);
    let run = all.json()["data"][0]["run_id"].as_str().unwrap().to_owned();
    let of_run = format!("/v1/agents/approvals?run={run}");
    let of_run = house.send(OPERATOR, (Method::GET, &of_run), &Value::Null).await.json();
    assert_eq!(of_run["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_steps_of_a_run_tell_what_each_took_and_who_let_it_pass() {
    let house = House::new().await;
    let path = house.begin("buyer", "pay").await;
    let run = house.in_state(&path, "waiting_approval").await;
    let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap().to_owned();
    let door = format!("/v1/agents/approvals/{approval}");
    let yes = json!({"decision": "approve"});
    house.send_with(LEAD, (Method::POST, &door), &yes, &[("if-match", "*")]).await;
    house.in_state(&path, "completed").await;
    let steps = house.get(&format!("{path}/steps")).await;
    let steps = steps["data"].as_array().unwrap();
    assert_eq!(types(&json!({"data": steps})), ["model", "tool", "model"]);
    let [model, tool, last] = &steps[..] else { panic!("{steps:#?}") };
    assert_eq!((&model["input"], &last["text"]), (&json!("pay"), &json!("It is done.")));
    for step in [model, last] {
        assert_eq!((&step["input_tokens"], &step["output_tokens"]), (&json!(11), &json!(4)));
        assert!(step.get("cost_usd").is_some() && step["ms"].is_u64(), "{step}");
        assert_eq!((&step["provider"], &step["state"]), (&json!("up"), &json!("completed")));
    }
    assert_eq!(tool["approved_by"], "lead", "{tool}");
    assert_eq!((&tool["args"]["amount"], &tool["approval"]["id"]), (&json!(5), &json!(approval)));
    assert!(tool["result"].as_str().unwrap().contains("paid"), "{tool}");
    assert!(tool["ms"].is_u64(), "{tool}");
}
