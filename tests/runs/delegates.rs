//! Agents as tools: what holds for a tool holds for them, whichever way their agent has them.

use serde_json::{Value, json};

use super::broker::{House, OPERATOR, agent, tool};
use super::stage::in_state;
use crate::support::Script;
use crate::support::gateway::KEY;

/// A tool that is the agent `searcher`.
fn research(more: &str) -> String {
    format!("[tools.research]\nkind = \"agent\"\nagent = \"searcher\"\n{more}\n")
}

/// One that has others search, by a tool and by their name.
fn team(more: &str) -> String {
    format!(
        "{}{}{}{}{}",
        tool("look", "read", ""),
        tool("pay", "once", "risk = \"high\""),
        research(more),
        agent("searcher", &["look"], "description = \"Finds things out.\""),
        agent("boss", &["research"], "delegates = [\"searcher\", \"buyer\"]"),
    ) + &agent("buyer", &["pay"], "")
}

fn found(_: &crate::support::upstream::Request) -> Script {
    Script::json(200, r#"{"found":true}"#)
}

/// What `boss` has `searcher` do.
fn task(work: &Value) -> Value {
    json!({"input": work.to_string()})
}

async fn children(house: &House, run: &Value) -> Vec<Value> {
    let root = run["id"].as_str().unwrap();
    let tree = house.get(&format!("/v1/agents/runs?root={root}")).await;
    let tree = tree["data"].as_array().unwrap();
    tree.iter().filter(|it| it["parent"] == run["id"]).cloned().collect()
}

#[tokio::test]
async fn an_agent_is_a_tool_of_another_and_is_listed_as_one() {
    let house = House::new(&team(""), found).await;
    let look = json!([["look", {}]]);
    let calls = json!([["research", task(&look)], ["delegate_searcher", task(&look)]]);
    let run = house.run("boss", &calls).await;
    assert_eq!((&run["state"], house.asked("/look").len()), (&json!("completed"), 2), "{run:#}");
    let children = children(&house, &run).await;
    assert!(children.iter().all(|it| it["agent"] == "searcher"), "{children:#?}");
    assert_eq!(children.len(), 2);
    assert_eq!(house.shown(), ["Done.", "Done."]);
    let listed = house.get_as(OPERATOR, "/v1/tools/research").await;
    let told = (&listed["kind"], &listed["effect"], &listed["health"]["state"]);
    assert_eq!(told, (&json!("agent"), &json!("read"), &json!("available")), "{listed}");
    assert_eq!(listed["input_schema"]["required"], json!(["input"]));
    assert!(listed["description"].as_str().unwrap().contains("Finds things out."), "{listed}");
    let names = async |agent: &str| {
        let all = house.get(&format!("/v1/tools?agent={agent}")).await;
        let all = all["data"].as_array().unwrap().iter();
        all.map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let expected = ["delegate_buyer", "delegate_searcher", "research"];
    assert_eq!(names("boss").await, expected);
    assert_eq!(names("boss@1").await, expected);
    let path = "/v1/tools?agent=boss@9";
    assert_eq!(crate::support::client::get(house.gateway.address, path, KEY).await.status, 404);
    for path in ["/v1/tools/research/call", "/v1/tools/delegate_searcher/call"] {
        let refused = house.send(OPERATOR, path, &json!({"args": {"input": "x"}})).await;
        let (status, text) = (refused.status, refused.text());
        assert!(
            status == 400 && text.contains("POST /v1/agents/searcher/runs"),
            "{status}: {text}"
        );
    }
}

#[tokio::test]
async fn what_an_agent_is_given_is_what_its_tool_asks_for() {
    let schema = "input = { type = \"object\", required = [\"about\"], \
        properties = { about = { type = \"string\" }, pages = { type = \"integer\" } } }";
    let house = House::new(&team(schema), found).await;
    let calls = json!([["research", {"input": "x"}], ["research", {"about": "ships", "pages": 2}]]);
    let run = house.run("boss", &calls).await;
    let shown = house.shown();
    assert!(shown[0].contains("invalid_arguments") && shown[0].contains("about"), "{shown:?}");
    let children = children(&house, &run).await;
    assert_eq!(children.len(), 1, "{children:#?}");
    let path = format!("/v1/agents/runs/{}", children[0]["id"].as_str().unwrap());
    let begun = &house.journal(&path).await[0]["data"];
    let told = begun["messages"].to_string();
    assert!(told.contains(r#"{\"about\":\"ships\",\"pages\":2}"#), "{begun}");
}

#[tokio::test]
async fn whoever_waits_for_a_run_waits_for_those_that_it_begins() {
    let house = House::new(&team(""), found).await;
    let calls = json!([["research", task(&json!([["look", {}]]))]]).to_string();
    let body = json!({"model": "agent/boss", "messages": [{"role": "user", "content": calls}]});
    let told = house.send(KEY, crate::support::client::CHAT, &body).await.json();
    let attended = json!({"id": told["x_agent"]["run_id"]});
    let run = house.run("boss", &serde_json::from_str(&calls).unwrap()).await;
    for (run, background) in [(attended, false), (run, true)] {
        let children = children(&house, &run).await;
        let path = format!("/v1/agents/runs/{}", children[0]["id"].as_str().unwrap());
        let begun = &house.journal(&path).await[0]["data"];
        assert_eq!(begun["wishes"]["background"], json!(background), "{begun}");
    }
}

#[tokio::test]
async fn limits_and_approvals_of_a_tool_hold_where_it_is_an_agent() {
    let terms = "limits = { tool = \"3/h\", run = 2 }\n\
        approval = { when = \"args.input == 'danger'\" }";
    let house = House::new(&team(terms), found).await;
    let work = |name: &str| json!(["research", task(&json!([["look", {"id": name}]]))]);
    let run = house.run("boss", &json!([work("one"), work("two"), work("three")])).await;
    assert_eq!(children(&house, &run).await.len(), 2, "{run:#}");
    let shown = house.shown();
    let is_late = |text: &String| text.contains("rate_limited");
    assert!(is_late(&shown[2]) && shown[2].contains("\"retryable\":false"), "{shown:?}");
    let run = house.run("boss", &json!([work("four"), work("five")])).await;
    assert_eq!(children(&house, &run).await.len(), 1, "{run:#}");
    let shown = house.shown();
    assert!(is_late(&shown[1]) && shown[1].contains("retry_after"), "{shown:?}");
    // Nobody is asked before a person lets it.
    let body = json!({"input": json!([["research", {"input": "danger"}]]).to_string()});
    let begun = house.send(KEY, "/v1/agents/boss/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let waiting = in_state(&house.gateway, &path, "waiting_approval").await;
    assert_eq!(waiting["pending"]["approvals"][0]["tool"], "research", "{waiting:#}");
    assert_eq!(children(&house, &waiting).await.len(), 0);
}

#[tokio::test]
async fn the_time_of_a_tool_bounds_the_run_of_its_agent() {
    let slow = |request: &crate::support::upstream::Request| {
        if request.path.contains("/look") { Script::default().stall() } else { found(request) }
    };
    let house = House::new(&team("timeout = \"1s\""), slow).await;
    let run = house.run("boss", &json!([["research", task(&json!([["look", {}]]))]])).await;
    let children = children(&house, &run).await;
    assert_eq!(children[0]["stop_reason"], "timeout", "{children:#?}");
    assert_eq!(run["state"], "completed", "{run:#}");
}

#[tokio::test]
async fn a_run_that_is_played_again_has_no_agent_do_what_must_not_happen_twice() {
    let house = House::new(&team(""), found).await;
    let buy = json!(["delegate_buyer", task(&json!([["pay", {}]]))]);
    let look = json!(["delegate_searcher", task(&json!([["look", {}]]))]);
    let run = house.run("boss", &json!([buy, look])).await;
    assert_eq!((house.asked("/pay").len(), house.asked("/look").len()), (1, 1), "{run:#}");
    let path = format!("/v1/agents/runs/{}/replay", run["id"].as_str().unwrap());
    let begun = house.send(KEY, &path, &json!({"mode": "live"})).await;
    let again = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    house.over(&again).await;
    assert_eq!((house.asked("/pay").len(), house.asked("/look").len()), (1, 2));
    assert!(house.shown()[0].contains("played again"), "{:?}", house.shown());
}
