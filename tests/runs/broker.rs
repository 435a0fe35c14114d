//! What holds for every call of a tool, whether the run of an agent makes it or its caller alone:
//! limits, guards, retries, breaker, cache, size, and what becomes of calls that come to nothing.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, open, request};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{DONE, choice, finish, role, usage, word};
use crate::support::script::Gate;
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream, until};

const OPERATOR: &str = "sk-operator-key";
const BOB: &str = "sk-bob-key";

struct House {
    gateway: Gateway,
    model: Upstream,
    tools: Upstream,
}

impl House {
    /// `TOOLS` in `sections` is the address of the tools' server.
    async fn new(sections: &str, answers: impl Fn(&Request) -> Script + Send + 'static) -> Self {
        let (model, tools) = (Upstream::answering(mind).await, Upstream::answering(answers).await);
        let sections = sections.replace("TOOLS", &tools.base());
        let sections = format!(
            "{}{}[keys.operator]\nsecret = \"{OPERATOR}\"\nrole = \"operator\"\n{sections}",
            provider("up", &model),
            route("fast", &["up/m"], ""),
        );
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    async fn send(&self, key: &str, path: &str, body: &Value) -> Answer {
        let asked = request(Method::POST, path, key, body.to_string().into());
        open(self.gateway.address, asked).await.whole().await
    }

    /// Calls a tool without a run.
    async fn call(&self, key: &str, tool: &str, args: Value) -> Answer {
        self.send(key, &format!("/v1/tools/{tool}/call"), &json!({"args": args})).await
    }

    async fn get(&self, path: &str) -> Value {
        self.get_as(KEY, path).await
    }

    async fn get_as(&self, key: &str, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, key).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A run of `agent` that makes these calls, one after the other, once it is over.
    async fn run(&self, agent: &str, calls: &Value) -> Value {
        let body = json!({"input": calls.to_string()});
        let begun = self.send(KEY, &format!("/v1/agents/{agent}/runs"), &body).await;
        assert!(matches!(begun.status, 200 | 202), "{}", begun.text());
        let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(&path).await;
            if !run["finished_at"].is_null() {
                return run;
            }
            assert!(Instant::now() < deadline, "it never ends: {run:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn asked(&self, path: &str) -> Vec<Request> {
        let requests = self.tools.requests().into_iter();
        let is_it = |it: &Request| it.path.split('?').next().is_some_and(|it| it.ends_with(path));
        requests.filter(is_it).collect()
    }

    /// What the model was last shown of its calls.
    fn shown(&self) -> Vec<String> {
        results(self.model.requests().last().unwrap())
    }

    async fn audits(&self, what: &str) -> Vec<Value> {
        let path = format!("/admin/audit?what={what}");
        let answer = client::get(self.gateway.admin, &path, ADMIN_KEY).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["data"].as_array().unwrap().clone()
    }
}

fn results(request: &Request) -> Vec<String> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap().clone();
    let results = messages.into_iter().filter(|message| message["role"] == "tool");
    results.map(|it| it["content"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Makes the calls that its user has written down, one a turn: `[["name", {…}], …]`. At `"break"`
/// it fails.
fn mind(request: &Request) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let messages = body["messages"].as_array().unwrap();
    let plan = messages.iter().find(|message| message["role"] == "user").unwrap();
    let plan: Value = serde_json::from_str(plan["content"].as_str().unwrap()).unwrap();
    let done = results(request).len();
    match plan.get(done) {
        Some(Value::String(_)) => Script::json(400, r#"{"error":{"message":"No."}}"#),
        Some(call) => {
            let call = json!({"tool_calls": [{"index": 0, "id": format!("call_{done}"),
                "type": "function",
                "function": {"name": call[0], "arguments": call[1].to_string()}}]});
            let call = choice(&call.to_string(), "null");
            let end = choice("{}", r#""tool_calls""#);
            Script::stream([role(), call, end, usage(), DONE.to_owned()])
        }
        None => Script::stream([role(), word("Done."), finish(), usage(), DONE.to_owned()]),
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A tool that asks `TOOLS/name`, and takes anything as `id`.
fn tool(name: &str, effect: &str, more: &str) -> String {
    let method = if effect == "read" { "GET" } else { "POST" };
    format!(
        "[tools.{name}]\nkind = \"http\"\nmethod = \"{method}\"\nurl = \"TOOLS/{name}\"\n\
         effect = \"{effect}\"\n\
         input = {{ type = \"object\", properties = {{ id = {{ type = \"string\" }} }} }}\n{more}\n"
    )
}

fn agent(name: &str, tools: &[&str], more: &str) -> String {
    format!(
        "[agents.{name}]\nroute = \"fast\"\ninstructions = \"Work.\"\ntools = {tools:?}\n{more}\n"
    )
}

fn key(name: &str, secret: &str, more: &str) -> String {
    format!("[keys.{name}]\nsecret = \"{secret}\"\ntools = [\"*\"]\n{more}\n")
}

const QUICK: &str = "retry = { attempts = 3, base = \"1ms\", max = \"2ms\" }";

#[tokio::test]
async fn a_call_without_a_run_goes_by_its_keys_limits_and_stands_in_the_books() {
    let sections = format!(
        "{}{}{}",
        key("bob", BOB, "limits = { requests = \"2/h\" }"),
        tool("look", "read", ""),
        tool("pay", "once", ""),
    );
    let house = House::new(&sections, |_| Script::json(200, r#"{"ok":true}"#)).await;
    // What breaks the schema costs nothing.
    assert_eq!(house.call(BOB, "look", json!({"id": 7})).await.status, 400);
    assert_eq!(house.call(BOB, "look", json!({})).await.status, 200);
    assert_eq!(house.call(BOB, "pay", json!({"id": "a"})).await.status, 200);
    let more = house.call(BOB, "look", json!({})).await;
    assert_eq!(code(&more), (429, "rate_limited".to_owned()), "{}", more.text());
    assert!(more.header("retry-after").is_some());
    assert_eq!(house.tools.requests().len(), 2);

    let records = house.gateway.recorded(4).await;
    let told = |record: &Value| {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        (text("surface"), text("route"), text("outcome"))
    };
    let of = |tool: &str, outcome: &str| {
        ("tool_call".to_owned(), format!("tool/{tool}"), outcome.to_owned())
    };
    let told: Vec<_> = records.iter().map(told).collect();
    let expected =
        [of("look", "refused"), of("look", "ok"), of("pay", "ok"), of("look", "rate_limited")];
    assert_eq!(told, expected);
    assert!(records.iter().all(|record| record["key"] == "bob"));
    let trail = house.audits("tool.call").await;
    assert_eq!(trail.len(), 1, "only what may change something: {trail:?}");
    assert_eq!((&trail[0]["who"], &trail[0]["subject"]), (&json!("bob"), &json!("tool:pay")));
    let counted = async |tool: &str| {
        let labels = [format!("tool=\"{tool}\""), "outcome=\"ok\"".to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        house.gateway.metric("switchpoint_agent_tool_calls_total", &labels).await
    };
    assert_eq!((counted("look").await, counted("pay").await), (1.0, 1.0));
}

#[tokio::test]
async fn a_call_without_a_run_counts_among_those_that_its_key_makes_at_once() {
    let gate = Gate::shut();
    let held = gate.clone();
    let sections =
        format!("{}{}", key("bob", BOB, "limits = { concurrency = 1 }"), tool("look", "read", ""),);
    let house = House::new(&sections, move |_| {
        Script::default().gate(&held).then_all(Script::json(200, "{}"))
    })
    .await;
    let address = house.gateway.address;
    let first = tokio::spawn(async move {
        let body = json!({"args": {}}).to_string();
        let asked = request(Method::POST, "/v1/tools/look/call", BOB, body.into());
        open(address, asked).await.whole().await
    });
    until("it is asked", || !house.tools.requests().is_empty()).await;
    assert_eq!(code(&house.call(BOB, "look", json!({})).await).0, 429);
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(house.call(BOB, "look", json!({})).await.status, 200);
}

#[tokio::test]
async fn guards_look_at_what_a_tool_is_given_and_gives_without_a_run_too() {
    let guards = "[guards.words]\nkind = \"pattern\"\nwords = [\"aurora\"]\n\
                  stage = [\"tool_args\"]\naction = \"block\"\n\
                  [guards.personal]\nkind = \"pii\"\nstage = [\"tool_results\"]\naction = \"mask\"\n\
                  [guards.never]\nkind = \"pattern\"\nwords = [\"borealis\"]\n\
                  stage = [\"tool_results\"]\naction = \"block\"\n";
    let sections = format!(
        "{}{guards}[mcp]\nexpose = {{ tools = [\"*\"] }}\n{}{}",
        key("bob", BOB, "guards = [\"words\", \"personal\", \"never\"]"),
        tool("look", "read", ""),
        tool("secret", "read", ""),
    );
    let house = House::new(&sections, |request| match request.path.contains("secret") {
        true => Script::json(200, r#"{"note":"the borealis plan"}"#),
        false => Script::json(200, r#"{"mail":"alice@example.org","n":1}"#),
    })
    .await;
    let blocked = house.call(BOB, "look", json!({"id": "project aurora"})).await;
    assert_eq!(code(&blocked), (403, "guard_blocked".to_owned()), "{}", blocked.text());
    assert!(house.tools.requests().is_empty());
    let masked = house.call(BOB, "look", json!({"id": "x"})).await.json();
    assert_eq!(masked["value"], json!({"mail": "[EMAIL_1]", "n": 1}), "{masked}");
    assert!(!masked.to_string().contains("alice"), "{masked}");
    let blocked = house.call(BOB, "secret", json!({})).await;
    assert_eq!(code(&blocked), (403, "guard_blocked".to_owned()), "{}", blocked.text());
    assert!(!blocked.text().contains("borealis plan"));
    // By the other door as well.
    let params = json!({"name": "look", "arguments": {"id": "x"}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}}});
    let ask = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let mut asked = request(Method::POST, "/mcp", BOB, ask.to_string().into());
    for (name, value) in [
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "look"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let told = open(house.gateway.address, asked).await.whole().await;
    assert!(told.text().contains("[EMAIL_1]"), "{}", told.text());
    assert!(!told.text().contains("alice"), "{}", told.text());
    // Without guards nothing is changed.
    let plain = house.call(OPERATOR, "look", json!({})).await.json();
    assert_eq!(plain["value"]["mail"], "alice@example.org");
}

#[tokio::test]
async fn nobody_gets_around_an_approval_by_calling_the_tool_without_a_run() {
    let sections = format!(
        "{}{}{}{}",
        key("bob", BOB, ""),
        tool("pay", "once", "approval = { roles = [\"lead\"] }"),
        tool("refund", "once", "approval = { when = \"args.id == 'big'\" }"),
        tool("wipe", "once", "risk = \"high\""),
    );
    let house = House::new(&sections, |_| Script::json(200, "{}")).await;
    for (key, tool) in [(BOB, "pay"), (OPERATOR, "pay"), (OPERATOR, "refund"), (BOB, "wipe")] {
        let refused = house.call(key, tool, json!({})).await;
        assert_eq!(code(&refused), (403, "approval_required".to_owned()), "{tool}");
        assert!(refused.text().contains("run of an agent"), "{}", refused.text());
    }
    assert!(house.tools.requests().is_empty());
    let shown = house.get_as(OPERATOR, "/v1/tools/pay").await;
    assert_eq!(shown["needs_approval"], true, "{shown}");
}

#[tokio::test]
async fn a_long_result_is_cleaned_and_cut_for_the_model_and_kept_whole() {
    let sections = format!(
        "{}{}{}{}",
        key("bob", BOB, ""),
        tool("big", "read", ""),
        tool("odd", "read", "output = { type = \"object\", required = [\"n\"] }"),
        agent("a", &["big", "odd"], "context = { tool_result_tokens = 500 }"),
    );
    let whole = format!("\u{1b}[31mred\u{200b}dish {}", "words and words. ".repeat(320_000));
    let answer = whole.clone();
    let house = House::new(&sections, move |request| match request.path.contains("odd") {
        true => Script::json(200, r#"{"m":1}"#),
        false => Script::reply(200, &[("content-type", "text/plain")], &answer),
    })
    .await;
    let run = house.run("a", &json!([["big", {}], ["odd", {}]])).await;
    assert_eq!(run["state"], "completed", "{run}");
    let shown = house.shown();
    assert!(shown[0].starts_with("reddish") && shown[0].len() < 4000, "{}", shown[0].len());
    assert!(shown[0].contains("blob:"), "it says that there is more: {}", shown[0]);
    assert!(shown[1].contains("output_invalid"), "{}", shown[1]);
    let steps = house.get(&format!("/v1/agents/runs/{}/steps", run["id"].as_str().unwrap())).await;
    let blob = steps.to_string();
    let blob = blob.split("\"blob\":\"").nth(1).and_then(|it| it.split('"').next()).unwrap();
    let path = format!("/v1/agents/blobs/{blob}");
    let kept = client::get(house.gateway.address, &path, KEY).await;
    assert_eq!(kept.status, 200);
    assert!(kept.text() == whole, "all of it is there");
    assert_eq!(client::get(house.gateway.address, &path, BOB).await.status, 404);
}

#[tokio::test]
async fn a_tool_that_fails_for_a_moment_is_asked_again_and_one_that_keeps_failing_is_left_alone() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let (failures, broken) = (Arc::new(AtomicUsize::new(2)), Arc::new(AtomicBool::new(false)));
    let (left, is_broken) = (Arc::clone(&failures), Arc::clone(&broken));
    let terms = "retry = { attempts = 3, base = \"1ms\", max = \"2ms\" }\n\
                 breaker = { failures = 5, cooldown = \"2s\" }";
    let needy = "require_tools = [\"crm\"]";
    let sections = format!(
        "{}{}{}",
        tool("crm", "read", terms),
        agent("a", &["crm"], ""),
        agent("needy", &["crm"], needy),
    );
    let house = House::new(&sections, move |_| {
        let fails = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1));
        match fails.is_ok() || is_broken.load(Ordering::Relaxed) {
            true => Script::json(503, "{}"),
            false => Script::json(200, r#"{"name":"Ann"}"#),
        }
    })
    .await;
    let run = house.run("a", &json!([["crm", {}]])).await;
    assert_eq!(house.asked("/crm").len(), 3);
    assert_eq!(house.shown(), [r#"{"name":"Ann"}"#], "the model sees one success");
    assert_eq!(run["result"]["degraded_tools"], json!([]), "{run}");
    let health = async || house.get_as(OPERATOR, "/v1/tools").await["data"][0]["health"].clone();
    assert_eq!(health().await["state"], "available");

    broken.store(true, Ordering::Relaxed);
    let run = house
        .run("a", &json!([["crm", {"id": "1"}], ["crm", {"id": "2"}], ["crm", {"id": "3"}]]))
        .await;
    assert_eq!(house.asked("/crm").len(), 3 + 5, "then nobody is asked");
    let shown = house.shown();
    assert!(shown[2].contains("unavailable"), "the model is told: {shown:?}");
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!(run["result"]["degraded_tools"], json!(["crm"]), "{run}");
    assert_eq!(health().await["state"], "unavailable");
    assert!(health().await["retry_after"].as_f64().unwrap() > 0.0);
    let asked = house.model.requests().len();
    let refused = house.send(KEY, "/v1/agents/needy/runs", &json!({"input": "[]"})).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("`crm`"), "{}", refused.text());
    assert_eq!(house.model.requests().len(), asked, "it fails before anything is spent");

    broken.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    while house.call(OPERATOR, "crm", json!({})).await.status != 200 {
        assert!(Instant::now() < deadline, "it is never tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(health().await["state"], "available");
    assert_eq!(house.run("needy", &json!([["crm", {}]])).await["state"], "completed");
}

#[tokio::test]
async fn an_error_that_looks_like_success_is_none_and_a_result_is_remembered_for_its_user() {
    let more = "error_when = \"/error\"\ncache = { ttl = \"60s\", scope = \"user\" }";
    let sections = format!(
        "{}{}{}",
        key("bob", BOB, ""),
        tool("look", "read", more),
        agent("a", &["look"], ""),
    );
    let house = House::new(&sections, |request| match request.path.contains("id=bad") {
        true => Script::json(200, r#"{"error":"no such order"}"#),
        false => Script::json(200, r#"{"ok":true}"#),
    })
    .await;
    let bad = json!(["look", {"id": "bad"}]);
    let good = json!(["look", {"id": "good"}]);
    house.run("a", &json!([bad, bad, good, good])).await;
    let shown = house.shown();
    assert!(shown[0].contains("soft_error") && shown[0].contains("no such order"), "{shown:?}");
    assert_eq!(house.tools.requests().len(), 3, "failures are not remembered");
    house.run("a", &json!([good])).await;
    assert_eq!(house.tools.requests().len(), 3);
    for (cached, asked) in [(false, 4), (true, 4)] {
        let told = house.call(BOB, "look", json!({"id": "good"})).await.json();
        assert_eq!((&told["cached"], house.tools.requests().len()), (&json!(cached), asked));
    }
}

#[tokio::test]
async fn each_limit_of_a_tool_is_told_to_the_model_with_the_time_to_wait() {
    let sections = format!(
        "{}{}{}{}{}",
        key("bob", BOB, ""),
        tool("all", "read", "limits = { tool = \"2/h\" }"),
        tool("own", "read", "limits = { user = \"2/h\" }"),
        tool("one", "read", "limits = { run = 2 }"),
        agent("a", &["all", "own", "one"], ""),
    );
    let house = House::new(&sections, |_| Script::json(200, r#"{"ok":true}"#)).await;
    for name in ["all", "own", "one"] {
        let call = |id: u32| json!([name, {"id": id.to_string()}]);
        house.run("a", &json!([call(1), call(2), call(3)])).await;
        let shown = house.shown();
        assert!(!shown[1].contains("rate_limited"), "{name}: {shown:?}");
        assert!(shown[2].contains("rate_limited"), "{name}: {shown:?}");
        assert_eq!(shown[2].contains("retry_after"), name != "one", "{name}: {shown:?}");
        assert_eq!(house.asked(&format!("/{name}")).len(), 2, "{name}");
    }
    let told = async |tool: &str| code(&house.call(BOB, tool, json!({})).await).0;
    assert_eq!((told("all").await, told("own").await), (429, 200));
    // Another run has its own.
    house.run("a", &json!([["one", {"id": "4"}]])).await;
    assert!(!house.shown()[0].contains("rate_limited"));
}

#[tokio::test]
async fn what_was_done_is_taken_back_the_last_first_when_the_run_fails() {
    let undo = |tool: &str| {
        format!("[tools.{tool}.undo]\ntool = \"un{tool}\"\nargs = {{ id = \"$.handle\" }}\n")
    };
    let sections = format!(
        "{}{}{}{}{}{}{}",
        tool("book", "once", &undo("book")),
        tool("hire", "once", &undo("hire")),
        tool("unbook", "idempotent", "internal = true"),
        tool("unhire", "idempotent", "internal = true"),
        tool("pay", "once", ""),
        agent("a", &["book", "hire", "pay"], "on_failure = \"compensate\""),
        agent("keeps", &["book"], ""),
    );
    let house = House::new(&sections, |request| {
        let name = request.path.rsplit('/').next().unwrap();
        if name == "pay" {
            return Script::json(402, "{}");
        }
        Script::json(200, &json!({"handle": format!("handle-of-{name}")}).to_string())
    })
    .await;
    let run = house.run("a", &json!([["book", {}], ["hire", {}], ["pay", {}], "break"])).await;
    assert_eq!(run["state"], "failed", "{run}");
    let undone: Vec<(String, Value)> = house
        .tools
        .requests()
        .iter()
        .filter(|request| request.path.contains("/un"))
        .map(|request| (request.path.clone(), serde_json::from_slice(&request.body).unwrap()))
        .collect();
    let expected = [
        ("/v1/unhire".to_owned(), json!({"id": "handle-of-hire"})),
        ("/v1/unbook".to_owned(), json!({"id": "handle-of-book"})),
    ];
    assert_eq!(undone, expected);
    // Of another agent what was done stays, until somebody says otherwise.
    let run = house.run("keeps", &json!([["book", {}], "break"])).await;
    assert_eq!(house.asked("/unbook").len(), 1);
    let path = format!("/v1/agents/runs/{}/compensate", run["id"].as_str().unwrap());
    assert_eq!(house.send(KEY, &path, &json!({})).await.status, 202);
    until("it is taken back", || house.asked("/unbook").len() == 2).await;
}

#[tokio::test]
async fn a_call_that_came_to_nothing_is_a_letter_until_it_is_done_or_put_away() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let terms = format!("{QUICK}\nbreaker = {{ failures = 100 }}");
    let sections = format!(
        "{}{}{}",
        key("bob", BOB, ""),
        tool("send", "idempotent", &terms),
        agent("a", &["send"], ""),
    );
    let house = House::new(&sections, move |_| match is_broken.load(Ordering::Relaxed) {
        true => Script::json(500, r#"{"message":"on fire"}"#),
        false => Script::json(200, r#"{"sent":true}"#),
    })
    .await;
    let run = house.run("a", &json!([["send", {"id": "m1"}], ["send", {"id": "m2"}]])).await;
    let letters = house.get("/v1/agents/dlq").await["data"].as_array().unwrap().clone();
    assert_eq!(letters.len(), 2, "{letters:?}");
    let letter = letters.iter().find(|it| it["payload"]["args"]["id"] == "m1").unwrap();
    assert_eq!((&letter["run_id"], &letter["attempts"]), (&run["id"], &json!(3)), "{letter}");
    assert_eq!((&letter["payload"]["tool"], &letter["state"]), (&json!("send"), &json!("open")));
    assert!(letter["error"].as_str().unwrap().contains("500"), "{letter}");
    let path = |word: &str| format!("/v1/agents/dlq/{}/{word}", letter["id"].as_str().unwrap());
    // It is nobody else's.
    assert_eq!(house.get_as(BOB, "/v1/agents/dlq").await["data"], json!([]));
    assert_eq!(house.send(BOB, &path("retry"), &json!({})).await.status, 404);
    // As long as it comes to nothing, it stays.
    let failed = house.send(KEY, &path("retry"), &json!({})).await.json();
    assert_eq!(
        (&failed["outcome"]["outcome"], &failed["state"]),
        (&json!("status"), &json!("open"))
    );
    let open = house.get("/v1/agents/dlq").await;
    let open = open["data"].as_array().unwrap().iter().find(|it| it["id"] == letter["id"]).unwrap();
    assert_eq!((&open["state"], &open["attempts"]), (&json!("open"), &json!(6)), "{open}");
    broken.store(false, Ordering::Relaxed);
    let done = house.send(KEY, &path("retry"), &json!({})).await.json();
    assert_eq!(done["outcome"], json!({"outcome": "done", "result": {"sent": true}}), "{done}");
    assert_eq!(done["state"], "retried");
    let requests = house.asked("/send");
    let keys: Vec<_> = requests
        .iter()
        .filter(|request| request.text().contains("m1"))
        .map(|request| request.header("idempotency-key").unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 7);
    assert!(keys.iter().all(|key| *key == keys[0]), "always by the same key: {keys:?}");
    assert_eq!(house.send(KEY, &path("retry"), &json!({})).await.status, 404, "it is closed");
    let other = letters.iter().find(|it| it["payload"]["args"]["id"] == "m2").unwrap();
    let path = format!("/v1/agents/dlq/{}/discard", other["id"].as_str().unwrap());
    assert_eq!(house.send(KEY, &path, &json!({})).await.json()["state"], "discarded");
    assert_eq!(house.asked("/send").len(), requests.len());
}

#[tokio::test]
async fn a_token_that_was_refused_is_fetched_once_more_and_then_the_model_is_told() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let auth = "auth = { kind = \"oauth2_client\", token_url = \"TOOLS/token\", \
                client_id = \"gateway\", client_secret = \"canary-secret\" }";
    let sections = format!(
        "{}{}{}",
        tool("crm", "read", auth),
        tool("shut", "read", auth),
        agent("a", &["crm", "shut"], ""),
    );
    let house = House::new(&sections, move |request| {
        if request.path.ends_with("/token") {
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            let token = json!({"access_token": format!("token-{number}"), "token_type": "Bearer",
                "expires_in": 3600});
            return Script::json(200, &token.to_string());
        }
        // The first one has run out before its time.
        let is_old = request.header("authorization").is_some_and(|it| it.ends_with("token-1"));
        match is_old || request.path.ends_with("/shut") {
            true => Script::json(401, "{}"),
            false => Script::json(200, r#"{"ok":true}"#),
        }
    })
    .await;
    house.run("a", &json!([["crm", {}]])).await;
    assert_eq!((house.asked("/crm").len(), fetched.load(Ordering::Relaxed)), (2, 2));
    assert_eq!(house.shown(), [r#"{"ok":true}"#]);
    let run = house.run("a", &json!([["shut", {}]])).await;
    assert_eq!(house.asked("/shut").len(), 2, "one refresh, one retry");
    assert!(house.shown()[0].contains("auth_failed"), "{:?}", house.shown());
    assert_eq!(run["result"]["degraded_tools"], json!(["shut"]), "{run}");
}

/// A server of tools by MCP over HTTP, as a scripted one: its session is `session`, and any other
/// is unknown to it.
fn speaks_mcp(request: &Request, session: &str) -> Script {
    let is_known = request.header("mcp-session-id") == Some(session);
    let Ok(asked) = serde_json::from_slice::<Value>(&request.body) else {
        return Script::json(405, "{}");
    };
    let result = match asked["method"].as_str().unwrap_or_default() {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "scripted", "version": "1"}}),
        _ if !is_known => return Script::json(404, "{}"),
        "tools/list" => json!({"tools": [{"name": "echo", "description": "Says it again.",
            "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": session}]}),
        _ => return Script::reply(202, &[], ""),
    };
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string();
    let headers = [("content-type", "application/json"), ("mcp-session-id", session)];
    Script::reply(200, &headers, answer)
}

#[tokio::test]
async fn a_session_that_an_mcp_server_has_lost_is_begun_again_and_the_call_goes_through() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let sessions = Arc::new(AtomicU32::new(1));
    let current = Arc::clone(&sessions);
    let sections =
        "[tools.srv]\nkind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"TOOLS\"\n";
    let house = House::new(sections, move |request| {
        speaks_mcp(request, &format!("session-{}", current.load(Ordering::Relaxed)))
    })
    .await;
    let said = async || {
        let answer = house.call(OPERATOR, "srv.echo", json!({})).await;
        (answer.status, answer.json()["text"].as_str().unwrap_or_default().to_owned())
    };
    let deadline = Instant::now() + PATIENCE;
    while said().await != (200, "session-1".to_owned()) {
        assert!(Instant::now() < deadline, "its tools are never learned");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for round in 2..5 {
        sessions.store(round, Ordering::Relaxed);
        assert_eq!(said().await, (200, format!("session-{round}")), "not one call is lost");
    }
    assert!(house.gateway.metric("switchpoint_mcp_reconnects_total", &["srv"]).await >= 3.0);
}
