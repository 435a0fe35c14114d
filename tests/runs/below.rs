//! Runs that other runs have begun: they end, rest and go on with them, and what they use is theirs.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::stage::{OPERATOR, Stage, messages, says, wants};
use crate::support::client::get;
use crate::support::gateway::KEY;
use crate::support::upstream::Request;
use crate::support::{Gate, Script, until};

/// Does what its user has written down: a list of turns, each a text, or calls `["name", {…}]`.
pub(super) fn mind(request: &Request) -> Script {
    let messages = messages(request);
    let plan = |message: &Value| -> Option<Vec<Value>> {
        let text = message["content"].as_str().filter(|_| message["role"] == "user")?;
        serde_json::from_str(text).ok()
    };
    let at = messages.iter().rposition(|message| plan(message).is_some()).unwrap();
    let turns = plan(&messages[at]).unwrap();
    let done = messages[at..].iter().filter(|message| message["role"] == "assistant").count();
    match turns.get(done) {
        Some(Value::Array(calls)) => {
            let args: Vec<String> = calls.iter().map(|call| call[1].to_string()).collect();
            let names = calls.iter().map(|call| call[0].as_str().unwrap());
            let calls: Vec<_> = names.zip(args.iter().map(String::as_str)).collect();
            wants(request, &calls)
        }
        Some(text) => says(request, text.as_str().unwrap()),
        None => says(request, "Done."),
    }
}

/// The call that has `worker` do this.
pub(super) fn work(turns: &Value) -> Value {
    has("worker", turns)
}

pub(super) fn has(agent: &str, turns: &Value) -> Value {
    json!([format!("delegate_{agent}"), {"input": turns.to_string()}])
}

pub(super) fn team(more: &str) -> String {
    let tool = |(name, method, more): (&str, &str, &str)| {
        format!(
            "[tools.{name}]\nkind = \"http\"\nmethod = \"{method}\"\nurl = \"{{tools}}/{name}\"\n\
             {more}\ninput = {{ type = \"object\" }}\n"
        )
    };
    let undo = "effect = \"once\"\nundo = { tool = \"unpay\", args = { id = \"$.id\" } }";
    let asked = format!("{undo}\napproval = {{ when = \"true\" }}");
    let tools = [
        ("look", "GET", "effect = \"read\"\ntimeout = \"10m\""),
        ("note", "POST", "effect = \"idempotent\""),
        ("pay", "POST", &*asked),
        ("buy", "POST", undo),
        ("unpay", "POST", "effect = \"idempotent\"\ninternal = true"),
    ];
    let tools: String = tools.into_iter().map(tool).collect();
    let agent = |name: &str, more: &str| {
        format!("[agents.{name}]\nroute = \"fast\"\ninstructions = \"I am {name}.\"\n{more}\n")
    };
    format!(
        "[tools.ask]\nkind = \"builtin\"\nname = \"ask_user\"\n\
         [models.\"up/m\"]\nprice = {{ input = 1.0, output = 1.0 }}\n{tools}{}{}{more}",
        agent("boss", "tools = [\"look\", \"buy\"]\ndelegates = [\"worker\"]"),
        agent("worker", "tools = [\"look\", \"note\", \"pay\", \"buy\", \"ask\"]"),
    )
}

/// What the tools give: each thing bought has a number of its own, `/look` waits for the gate.
pub(super) fn shop(gate: &Gate) -> impl Fn(&Request) -> Script + Send + 'static {
    let (gate, sold) = (gate.clone(), std::sync::atomic::AtomicU32::new(0));
    move |request| {
        let number = sold.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let given = Script::json(200, &json!({"id": format!("r{number}")}).to_string());
        if request.path.contains("/look") {
            return Script::default().gate(&gate).then_all(given);
        }
        given
    }
}

pub(super) fn stored(folder: &Path, engine: &str) -> String {
    let file = folder.join("runs.db");
    format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n{engine}\n",
        file.display()
    )
}

impl Stage {
    pub(super) async fn below(&self, path: &str) -> Vec<Value> {
        let root = path.rsplit('/').next().unwrap();
        let tree = self.get(&format!("/v1/agents/runs?root={root}")).await;
        let rows = tree["data"].as_array().unwrap().iter().filter(|row| row["id"] != *root);
        rows.rev().cloned().collect()
    }

    async fn child(&self, path: &str) -> String {
        let children = self.below(path).await;
        assert_eq!(children.len(), 1, "{children:#?}");
        format!("/v1/agents/runs/{}", children[0]["id"].as_str().unwrap())
    }

    /// The path of the run below that waits for an approval, when one does.
    pub(super) async fn asks_below(&self, path: &str) -> String {
        loop {
            let below = self.below(path).await;
            if let Some(asks) = below.iter().find(|it| it["state"] == "waiting_approval") {
                return format!("/v1/agents/runs/{}", asks["id"].as_str().unwrap());
            }
        }
    }

    pub(super) fn touched(&self, tool: &str) -> usize {
        let requests = self.tools.requests();
        let path = format!("/{tool}");
        let is_it = |it: &&Request| it.path.split('?').next().is_some_and(|it| it.ends_with(&path));
        requests.iter().filter(is_it).count()
    }

    pub(super) async fn approve(&self, run: &Value) {
        let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap();
        let path = format!("/v1/agents/approvals/{approval}");
        let decided = self.post(&path, OPERATOR, &json!({"decision": "approve"})).await;
        assert_eq!(decided.status, 200, "{}", decided.text());
    }

    pub(super) async fn tell(&self, path: &str, what: &str) {
        let told = self.post(&format!("{path}/{what}"), KEY, &json!({})).await;
        assert!(matches!(told.status, 200 | 202), "{}", told.text());
    }

    /// Waits until the journal of a run has such an entry.
    async fn heard(&self, path: &str, kind: &str) {
        let run = path.rsplit('/').next().unwrap();
        while !self.journal(run).await.iter().any(|entry| entry.0 == kind) {
            tokio::task::yield_now().await;
        }
    }

    /// The path of a run that is made of another one.
    async fn made(&self, path: &str, body: &Value) -> String {
        let made = self.post(path, KEY, body).await;
        assert_eq!(made.status, 202, "{}", made.text());
        made.header("location").unwrap().to_owned()
    }
}

/// Pays, when it is let, and then looks.
fn pays_and_looks() -> Value {
    work(&json!([[["pay", {}]], [["look", {}]], "Worked."]))
}

#[tokio::test]
async fn a_cancel_reaches_what_was_taken_up_again_behind_an_approval() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let path = stage.begin("boss", &json!([[pays_and_looks()]]).to_string()).await;
    stage.approve(&stage.in_state(&path, "waiting_child").await).await;
    until("it looks", || stage.touched("look") == 1).await;
    stage.tell(&path, "cancel").await;
    stage.in_state(&path, "cancelled").await;
    stage.in_state(&stage.child(&path).await, "cancelled").await;
    until("its call is called off", || stage.tools.open_connections() == 0).await;
}

#[tokio::test]
async fn the_time_of_a_run_ends_what_was_taken_up_again_behind_an_approval() {
    let quick = "[agents.quick]\nroute = \"fast\"\ninstructions = \"Quick.\"\n\
        delegates = [\"worker\"]\nlimits = { timeout = \"2s\" }\n";
    let stage = Stage::new(&team(quick), mind, shop(&Gate::shut())).await;
    let path = stage.begin("quick", &json!([[pays_and_looks()]]).to_string()).await;
    stage.approve(&stage.in_state(&path, "waiting_child").await).await;
    let run = stage.in_state(&path, "incomplete").await;
    assert_eq!(run["stop_reason"], "timeout", "{run:#}");
    stage.in_state(&stage.child(&path).await, "cancelled").await;
}

#[tokio::test]
async fn a_pause_holds_all_that_a_run_has_begun_until_it_goes_on() {
    let gate = Gate::shut();
    let stage = Stage::new(&team(""), mind, shop(&gate)).await;
    let steps = json!([[["look", {}]], [["note", {}]], "Worked."]);
    let path = stage.begin("boss", &json!([[work(&steps)], "All."]).to_string()).await;
    until("it looks", || stage.touched("look") == 1).await;
    stage.tell(&path, "pause").await;
    stage.heard(&path, "run.paused").await;
    gate.open();
    stage.in_state(&path, "paused").await;
    let child = stage.child(&path).await;
    stage.in_state(&child, "paused").await;
    assert_eq!((stage.touched("note"), stage.model.requests().len()), (0, 2));
    stage.tell(&path, "resume").await;
    let run = stage.in_state(&path, "completed").await;
    assert_eq!(run["result"]["text"], "All.");
    assert_eq!((stage.touched("look"), stage.touched("note")), (1, 1));
    stage.in_state(&child, "completed").await;
}

#[tokio::test]
async fn a_decision_about_what_waits_below_a_pause_is_kept_until_it_goes_on() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let steps = json!([[["pay", {}]], "Worked."]);
    let path = stage.begin("boss", &json!([[work(&steps)], "All."]).to_string()).await;
    let waiting = stage.in_state(&path, "waiting_child").await;
    stage.tell(&path, "pause").await;
    stage.in_state(&path, "paused").await;
    stage.approve(&waiting).await;
    let child = stage.child(&path).await;
    stage.heard(&child, "tool.approved").await;
    stage.in_state(&path, "paused").await;
    let entries = stage.get(&path).await["last_seq"].clone();
    assert_eq!(stage.touched("pay"), 0);
    stage.tell(&path, "resume").await;
    stage.in_state(&path, "completed").await;
    assert_eq!(stage.touched("pay"), 1);
    // A run at rest writes nothing.
    assert!(entries.as_u64().unwrap() < 20, "{entries}");
}

#[tokio::test]
async fn an_agent_that_is_paused_is_not_begun_by_another_one_either() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let paused = stage.post("/v1/agents/worker/pause", OPERATOR, &json!({})).await;
    assert_eq!(paused.status, 200, "{}", paused.text());
    let path = stage.begin("boss", &json!([[work(&json!(["Worked."]))], "All."]).to_string()).await;
    stage.in_state(&path, "completed").await;
    assert!(stage.below(&path).await.is_empty());
    let told = stage.model.requests().last().unwrap().text().to_owned();
    assert!(told.contains("unavailable") && told.contains("`worker` is paused"), "{told}");
    assert!(told.contains(r#"\"retryable\":false"#), "{told}");
}

#[tokio::test]
async fn a_run_that_is_given_up_leaves_nothing_that_it_has_begun() {
    let folder = TempDir::new().unwrap();
    let sections = stored(folder.path(), "max_takeovers = 1") + &team("");
    let stage = Stage::new(&sections, mind, shop(&Gate::shut())).await;
    let pays = work(&json!([[["pay", {}]], "Worked."]));
    let looks = work(&json!([[["look", {}]], "Worked."]));
    let path = stage.begin("boss", &json!([[pays, looks]]).to_string()).await;
    until("it looks", || stage.touched("look") == 1).await;
    let pending = "/v1/agents/approvals?state=pending";
    while stage.get(pending).await["data"].as_array().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let stage = stage.crash(&sections).await;
    until("it looks again", || stage.touched("look") == 2).await;
    let stage = stage.crash(&sections).await;
    let run = stage.in_state(&path, "failed").await;
    assert_eq!(run["stop_reason"], "takeovers", "{run:#}");
    let children = stage.below(&path).await;
    assert!(children.iter().all(|child| child["state"] == "cancelled"), "{children:#?}");
    assert_eq!(children.len(), 2);
    assert_eq!(stage.get(pending).await["data"], json!([]));
}

#[tokio::test]
async fn what_others_have_used_for_a_run_is_in_what_it_has_used() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let steps = json!([[["note", {}]], [["pay", {}]], "Worked."]);
    let told = stage.chat("boss", &json!([[work(&steps)], "All."]).to_string()).await;
    // What its client is told while it waits, and what it is told in the end, make all of it.
    let (calls, turn) = (stage.model.requests().len(), 15);
    assert_eq!((calls, told["usage"]["total_tokens"].as_u64()), (3, Some(3 * turn)), "{told}");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    stage.approve(&stage.get(&path).await).await;
    let run = stage.in_state(&path, "completed").await;
    let tokens = |run: &Value| run["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!((tokens(&run), stage.model.requests().len()), (5 * turn, 5), "{run:#}");
    assert_eq!((tokens(&run["own"]), &run["tool_calls"]), (2 * turn, &json!(3)), "{run:#}");
    let cost = |run: &Value| run["cost_usd"].as_f64().unwrap() * 1e6;
    assert!((cost(&run) - 75.0).abs() < 0.1 && (cost(&run["own"]) - 30.0).abs() < 0.1, "{run:#}");
    let child = stage.get(&stage.child(&path).await).await;
    assert_eq!((tokens(&child), &child["tool_calls"]), (3 * turn, &json!(2)), "{child:#}");
    let books = stage.get("/v1/agents/usage?group_by=key").await;
    let whole = books["data"][0]["total_tokens"].as_u64();
    assert_eq!(whole, Some(5 * turn), "nothing is counted twice: {books:#}");

    let whole = json!([[work(&json!([[["note", {}]], "Worked."]))], "All."]).to_string();
    let answer = stage.chat("boss", &whole).await;
    let about = &answer["x_agent"];
    assert_eq!((&about["model_calls"], &about["tool_calls"]), (&json!(4), &json!(2)), "{answer}");
    let body = json!({"model": "agent/boss", "input": whole});
    let answer = stage.post("/v1/responses", KEY, &body).await.json();
    assert_eq!(answer["usage"]["total_tokens"].as_u64(), Some(4 * turn), "{answer}");
    let messages = json!([{"role": "user", "content": whole}]);
    let body = json!({"model": "agent/boss", "max_tokens": 1000, "messages": messages});
    let answer = stage.post("/v1/messages", KEY, &body).await.json();
    let used = &answer["usage"];
    let used = used["input_tokens"].as_u64().zip(used["output_tokens"].as_u64());
    assert_eq!(used.map(|(input, output)| input + output), Some(4 * turn), "{answer}");
}

#[tokio::test]
async fn a_delegate_and_whoever_gets_the_conversation_go_by_their_rollout() {
    let agents = "[agents.lead]\nroute = \"fast\"\ninstructions = \"Lead.\"\n\
        delegates = [\"rolled\"]\nhandoffs = [\"rolled\"]\n\
        [agents.rolled]\nroute = \"fast\"\ninstructions = \"The old one.\"\nversion = \"1\"\n\
        [agents.rolled.versions.2]\ninstructions = \"The new one.\"\n\
        [agents.rolled.rollout]\nweights = { 2 = 100 }\n";
    let stage = Stage::new(&team(agents), mind, shop(&Gate::shut())).await;
    let asks = json!([[has("rolled", &json!(["Rolled."]))], "All."]).to_string();
    let path = stage.begin("lead", &asks).await;
    stage.in_state(&path, "completed").await;
    assert_eq!(stage.below(&path).await[0]["version"], "2");
    let is_told = |text: &str| stage.model.requests().iter().any(|it| it.text().contains(text));
    assert!(is_told("The new one.") && !is_told("The old one."));
    let gives = json!([[["handoff_rolled", {"reason": "yours"}]], "Mine."]).to_string();
    stage.in_state(&stage.begin("lead", &gives).await, "completed").await;
    let last = stage.model.requests().last().unwrap().text().to_owned();
    assert!(last.contains("The new one."), "{last}");
}

#[tokio::test]
async fn an_agent_is_begun_so_often_in_whatever_way_it_is_begun() {
    let agents = "[agents.lead]\nroute = \"fast\"\ninstructions = \"Lead.\"\n\
        delegates = [\"rare\"]\n\
        [agents.rare]\nroute = \"fast\"\ninstructions = \"Rare.\"\nbudget = { runs = \"2/h\" }\n";
    let stage = Stage::new(&team(agents), mind, shop(&Gate::shut())).await;
    let asks = json!([[has("rare", &json!(["Worked."]))], "All."]).to_string();
    let path = stage.begin("rare", "[\"Hello.\"]").await;
    stage.in_state(&path, "completed").await;
    // A delegate is one, too.
    let lead = stage.begin("lead", &asks).await;
    stage.in_state(&lead, "completed").await;
    assert_eq!(stage.below(&lead).await.len(), 1);
    let lead = stage.begin("lead", &asks).await;
    stage.in_state(&lead, "completed").await;
    assert_eq!(stage.below(&lead).await.len(), 0);
    let told = stage.model.requests().last().unwrap().text().to_owned();
    assert!(told.contains("rate_limited") && told.contains("retry_after"), "{told}");
    for (what, body) in [("fork", json!({"at_seq": 1})), ("replay", json!({"mode": "live"}))] {
        let refused = stage.post(&format!("{path}/{what}"), KEY, &body).await;
        let code = refused.json()["error"]["code"].clone();
        assert_eq!((refused.status, code), (429, json!("rate_limited")), "{}", refused.text());
    }
    let played = stage.post(&format!("{path}/replay"), KEY, &json!({"mode": "recorded"})).await;
    assert_eq!(played.status, 202, "{}", played.text());
}

#[tokio::test]
async fn what_an_agent_has_others_do_for_a_user_is_spent_by_it() {
    // Twice 15 tokens are its own, and as many are of whom it asks.
    let agents = "[agents.lead]\nroute = \"fast\"\ninstructions = \"Lead.\"\n\
        delegates = [\"worker\"]\nbudget = { user_usd_per_day = 0.00005 }\n\
        [agents.chief]\nroute = \"fast\"\ninstructions = \"Chief.\"\ndelegates = [\"lead\"]\n";
    let stage = Stage::new(&team(agents), mind, shop(&Gate::shut())).await;
    let asks = json!([[work(&json!([[["note", {}]], "Worked."]))], "All."]).to_string();
    let body = json!({"input": asks, "user": "ann", "wait": "30s"});
    let begun = stage.post("/v1/agents/lead/runs", KEY, &body).await;
    assert_eq!(begun.json()["state"], "completed", "{}", begun.text());
    let path = begun.header("location").unwrap().to_owned();
    let refused = async |path: &str, body: Value| {
        let refused = stage.post(path, KEY, &body).await;
        let code = refused.json()["error"]["code"].clone();
        assert_eq!((refused.status, code), (429, json!("budget_exceeded")), "{}", refused.text());
    };
    refused("/v1/agents/lead/runs", body).await;
    refused(&format!("{path}/fork"), json!({"at_seq": 1})).await;
    refused(&format!("{path}/replay"), json!({"mode": "live"})).await;
    let asks = json!([[has("lead", &json!(["Led."]))], "All."]).to_string();
    let body = json!({"input": asks, "user": "ann", "wait": "30s"});
    let run = stage.post("/v1/agents/chief/runs", KEY, &body).await.json();
    assert_eq!(run["state"], "completed", "{run:#}");
    let told = stage.model.requests().last().unwrap().text().to_owned();
    assert!(told.contains("budget_exceeded"), "{told}");
    let other = json!({"input": "[\"Led.\"]", "user": "bob", "wait": "30s"});
    let run = stage.post("/v1/agents/lead/runs", KEY, &other).await;
    assert_eq!(run.status, 200, "{}", run.text());
    let page = get(stage.gateway.address, "/v1/agents/runs?user=bob", KEY).await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
}

/// Buys by itself, has others buy, and fails or not.
fn shopping() -> Value {
    json!([
        [["buy", {"n": 1}]],
        [has("worker", &json!([[["buy", {"n": 2}]], [["buy", {"n": 3}]], "Bought."]))],
        "All."
    ])
}

impl Stage {
    /// What was taken back, in the order in which it was.
    fn taken_back(&self) -> Vec<Value> {
        let requests = self.tools.requests().into_iter();
        let undone = requests.filter(|it| it.path.ends_with("/unpay"));
        undone.map(|it| serde_json::from_str::<Value>(it.text()).unwrap()["id"].clone()).collect()
    }
}

#[tokio::test]
async fn what_others_have_done_for_a_run_is_taken_back_with_it_the_last_first_and_once() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let path = stage.begin("boss", &shopping().to_string()).await;
    stage.in_state(&path, "completed").await;
    let undoing = stage.made(&format!("{path}/compensate"), &json!({})).await;
    stage.in_state(&undoing, "completed").await;
    assert_eq!(stage.taken_back(), ["r2", "r1", "r0"]);
    // Neither it nor what was done for it is taken back once more.
    let child = stage.child(&path).await;
    for again in [&path, &child] {
        let undoing = stage.made(&format!("{again}/compensate"), &json!({})).await;
        stage.in_state(&undoing, "completed").await;
    }
    assert_eq!(stage.taken_back().len(), 3);

    let path = stage.begin("boss", &shopping().to_string()).await;
    stage.in_state(&path, "completed").await;
    let child = stage.child(&path).await;
    let undoing = stage.made(&format!("{child}/compensate"), &json!({})).await;
    stage.in_state(&undoing, "completed").await;
    assert_eq!(stage.taken_back().len(), 5, "what the delegate has done");
    let undoing = stage.made(&format!("{path}/compensate"), &json!({})).await;
    stage.in_state(&undoing, "completed").await;
    assert_eq!(stage.taken_back().len(), 6, "and what is left");
}

#[tokio::test]
async fn a_run_that_fails_takes_back_what_others_have_done_for_it() {
    let agents = "[tools.breaks]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/breaks\"\n\
        effect = \"idempotent\"\ninput = { type = \"object\" }\n\
        [agents.careful]\nroute = \"fast\"\ninstructions = \"Careful.\"\non_failure = \"compensate\"\n\
        tools = [\"buy\", \"breaks\"]\ndelegates = [\"worker\"]\n";
    let gate = Gate::shut();
    let shop = shop(&gate);
    let tools = move |request: &Request| {
        let breaks = request.path.ends_with("/breaks");
        if breaks { Script::json(400, r#"{"error":"No."}"#) } else { shop(request) }
    };
    let stage = Stage::new(&team(agents), mind, tools).await;
    let mut turns = shopping();
    turns[2] = json!([["breaks", {}]]);
    turns.as_array_mut().unwrap().push(json!("All the same."));
    let path = stage.begin("careful", &turns.to_string()).await;
    stage.in_state(&path, "completed").await;
    assert_eq!(stage.taken_back(), ["r2", "r1", "r0"], "as soon as the call has failed");
    let told = stage.model.requests().last().unwrap().text().to_owned();
    assert!(told.contains("what `delegate_worker` had done"), "{told}");
    // What was under way when it ended is taken back, too.
    let late = work(&json!([[["buy", {"n": 4}]], [["look", {}]], "Worked."]));
    let body = json!({"input": json!([[late]]).to_string(), "budget": {"seconds": 3}});
    let begun = stage.post("/v1/agents/careful/runs", KEY, &body).await;
    let path = begun.header("location").unwrap().to_owned();
    let run = stage.in_state(&path, "incomplete").await;
    assert_eq!((stage.taken_back().len(), &run["stop_reason"]), (4, &json!("timeout")), "{run:#}");
}

#[tokio::test]
async fn a_fork_has_work_done_anew_and_leaves_alone_what_the_first_run_has_begun() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let steps = json!([[["note", {}]], [["pay", {}]], "Worked."]);
    let path = stage.begin("boss", &json!([[work(&steps)], "All."]).to_string()).await;
    let first = stage.in_state(&path, "waiting_child").await;
    let body = json!({"at_seq": first["last_seq"]});
    let fork = stage.made(&format!("{path}/fork"), &body).await;
    let second = stage.in_state(&fork, "waiting_child").await;
    let (own, others) = (stage.child(&fork).await, stage.child(&path).await);
    assert_ne!(own, others);
    assert_ne!(first["pending"]["approvals"][0]["id"], second["pending"]["approvals"][0]["id"]);
    assert_eq!(stage.touched("note"), 2);
    stage.tell(&fork, "cancel").await;
    stage.in_state(&fork, "cancelled").await;
    stage.in_state(&own, "cancelled").await;
    stage.in_state(&others, "waiting_approval").await;
    stage.approve(&first).await;
    let run = stage.in_state(&path, "completed").await;
    assert_eq!((&run["result"]["text"], stage.touched("pay")), (&json!("All."), 1), "{run:#}");
}

/// Has `asker` ask its user, and do with the answer what it is to do.
fn asking_child(question: &Value) -> String {
    let turns = json!([[["ask", question]], "Asked."]);
    json!([[work(&turns)], "All."]).to_string()
}

#[tokio::test]
async fn what_a_delegate_asks_its_user_is_asked_and_answered_in_the_conversation() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let session = [("x-switchpoint-session", "s1")];
    let asks = asking_child(&json!({"question": "Which order?"}));
    let first = stage.chat_in("boss", &asks, &session).await.json();
    assert_eq!(first["choices"][0]["message"]["content"], "Which order?", "{first}");
    let shown = &first["x_agent"]["approvals"][0];
    assert_eq!((&shown["type"], &shown["agent"]), (&json!("input"), &json!("worker")), "{first}");
    let path = format!("/v1/agents/runs/{}", first["x_agent"]["run_id"].as_str().unwrap());
    let waiting = stage.get(&path).await;
    let asked = &waiting["pending"]["inputs"][0];
    assert_eq!((&asked["message"], &asked["agent"]), (&json!("Which order?"), &json!("worker")));
    assert_eq!(asked["request_id"], shown["id"], "{waiting:#}");
    let second = stage.chat_in("boss", "Order 7", &session).await.json();
    assert_eq!(second["choices"][0]["message"]["content"], "All.", "{second}");
    assert_eq!(second["x_agent"]["run_id"], first["x_agent"]["run_id"]);
    let is_told = |it: &Request| it.text().contains("Order 7");
    assert!(stage.model.requests().iter().any(is_told), "the delegate was told");
}

#[tokio::test]
async fn what_runs_below_ask_is_answered_at_the_run_that_began_them() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let asks = asking_child(&json!({"question": "How many?", "schema": schema}));
    let path = stage.begin("boss", &asks).await;
    let waiting = stage.in_state(&path, "waiting_child").await;
    let request = &waiting["pending"]["inputs"][0]["request_id"];
    let input = format!("{path}/input");
    let unfit = json!({"request_id": request, "values": {"n": "many"}});
    assert_eq!(stage.post(&input, KEY, &unfit).await.status, 422);
    let other = json!({"request_id": "inp_other", "values": {"n": 2}});
    assert_eq!(stage.post(&input, KEY, &other).await.status, 409);
    let fits = json!({"request_id": request, "values": {"n": 2}});
    let answered = stage.post(&input, KEY, &fits).await;
    assert_eq!(answered.status, 200, "{}", answered.text());
    assert_eq!(answered.json()["id"], waiting["id"]);
    let run = stage.in_state(&path, "completed").await;
    assert_eq!((&run["result"]["text"], &run["pending"]["inputs"]), (&json!("All."), &json!([])));
}

#[tokio::test]
async fn what_nobody_knows_below_a_run_and_what_is_too_unsure_is_settled_at_it() {
    let agents = "[tools.send]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/send\"\n\
        effect = \"once\"\ninput = { type = \"object\" }\n\
        [agents.sender]\nroute = \"fast\"\ninstructions = \"Send.\"\ntools = [\"send\", \"note\"]\n\
        confidence = {}\n\
        [agents.lead]\nroute = \"fast\"\ninstructions = \"Lead.\"\ndelegates = [\"sender\"]\n";
    let tools = |request: &Request| {
        let sends = request.path.ends_with("/send");
        if sends { Script::default().close() } else { Script::json(200, "{}") }
    };
    let stage = Stage::new(&team(agents), mind, tools).await;
    let asks =
        |call: Value| json!([[has("sender", &json!([[call], "Sent."]))], "All."]).to_string();
    let sends = asks(json!(["send", {"confidence": 1.0}]));
    let body = json!({"model": "agent/lead", "input": sends});
    let told = stage.post("/v1/responses", KEY, &body).await.json();
    let said = told["output"].to_string();
    assert!(said.contains("nobody knows what became of a call"), "{told}");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let waiting = stage.get(&path).await;
    let unknown = &waiting["pending"]["unknown_outcomes"][0];
    assert_eq!((&unknown["tool"], &unknown["agent"]), (&json!("send"), &json!("sender")));
    let body = json!({"seq": unknown["seq"], "outcome": "done"});
    let resolved = stage.post(&format!("{path}/resolve"), KEY, &body).await;
    assert_eq!(resolved.status, 200, "{}", resolved.text());
    stage.in_state(&path, "completed").await;

    let path = stage.begin("lead", &asks(json!(["note", {"confidence": 0.1}]))).await;
    let waiting = stage.in_state(&path, "waiting_child").await;
    let pending = &waiting["pending"];
    assert_eq!(pending["escalated"], "it is not sure enough to act", "{waiting:#}");
    let asks = pending["escalated_run"].as_str().unwrap();
    assert_eq!(stage.child(&path).await, format!("/v1/agents/runs/{asks}"));
    let body = json!({"values": {"answer": "I have done it."}});
    let answered = stage.post(&format!("{path}/input"), KEY, &body).await;
    assert_eq!(answered.status, 200, "{}", answered.text());
    stage.in_state(&path, "completed").await;
    let last = stage.model.requests().last().unwrap().text().to_owned();
    assert!(last.contains("I have done it."), "{last}");
}

#[tokio::test]
async fn a_decision_alone_about_what_a_delegate_does_goes_on_with_the_whole_run() {
    let stage = Stage::new(&team(""), mind, shop(&Gate::shut())).await;
    let asks = json!([[work(&json!([[["pay", {}]], "Paid."]))], "All."]).to_string();
    let told = stage.chat("boss", &asks).await;
    let approval = &told["x_agent"]["approvals"][0]["id"];
    let decides = json!([{"type": "mcp_approval_response", "approval_request_id": approval,
        "approve": true}]);
    let body = json!({"model": "agent/boss", "input": decides});
    let answer = stage.post("/v1/responses", KEY, &body).await.json();
    assert_eq!(answer["x_agent"]["run_id"], told["x_agent"]["run_id"], "{answer}");
    assert!(answer["output"].to_string().contains("All."), "{answer}");
}
