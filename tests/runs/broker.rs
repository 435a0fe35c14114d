//! What holds for every call of a tool, whether the run of an agent makes it or its caller alone:
//! limits, guards, retries, breaker, cache, size, and what becomes of calls that come to nothing.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, open, request};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{calls, says};
use crate::support::script::Gate;
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream, until};

pub(super) const OPERATOR: &str = "sk-operator-key";
pub(super) const BOB: &str = "sk-bob-key";

pub(super) struct House {
    pub(super) gateway: Gateway,
    pub(super) model: Upstream,
    pub(super) tools: Upstream,
}

impl House {
    /// `TOOLS` in `sections` is the address of the tools' server.
    pub(super) async fn new(
        sections: &str,
        answers: impl Fn(&Request) -> Script + Send + 'static,
    ) -> Self {
        let (model, tools) = (Upstream::answering(mind).await, Upstream::answering(answers).await);
        let sections = sections.replace("TOOLS", &tools.base());
        let sections = format!(
            "{}{}[keys.operator]\nsecret = \"{OPERATOR}\"\nrole = \"operator\"\n{sections}",
            provider("up", &model),
            route("fast", &["up/m"], ""),
        );
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    pub(super) async fn send(&self, key: &str, path: &str, body: &Value) -> Answer {
        let asked = request(Method::POST, path, key, body.to_string().into());
        open(self.gateway.address, asked).await.whole().await
    }

    /// Calls a tool without a run.
    pub(super) async fn call(&self, key: &str, tool: &str, args: Value) -> Answer {
        self.send(key, &format!("/v1/tools/{tool}/call"), &json!({"args": args})).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.get_as(KEY, path).await
    }

    pub(super) async fn get_as(&self, key: &str, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, key).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// A run of `agent` that makes these calls, one after the other, once it is over.
    pub(super) async fn run(&self, agent: &str, calls: &Value) -> Value {
        let body = json!({"input": calls.to_string()});
        let begun = self.send(KEY, &format!("/v1/agents/{agent}/runs"), &body).await;
        assert!(matches!(begun.status, 200 | 202), "{}", begun.text());
        self.over(&format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap())).await
    }

    /// A run once it is over.
    pub(super) async fn over(&self, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(path).await;
            if !run["finished_at"].is_null() {
                return run;
            }
            assert!(Instant::now() < deadline, "it never ends: {run:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn asked(&self, path: &str) -> Vec<Request> {
        let requests = self.tools.requests().into_iter();
        let is_it = |it: &Request| it.path.split('?').next().is_some_and(|it| it.ends_with(path));
        requests.filter(is_it).collect()
    }

    /// The journal of a run.
    pub(super) async fn journal(&self, run: &str) -> Vec<Value> {
        let mut asked = request(Method::GET, &format!("{run}/events?limit=500"), KEY, "".into());
        let json = http::HeaderValue::from_static("application/json");
        asked.headers_mut().insert("accept", json);
        let page = open(self.gateway.address, asked).await.whole().await.json();
        page["data"].as_array().unwrap().clone()
    }

    /// How often the model was asked.
    pub(super) fn turns(&self) -> usize {
        self.model.requests().len()
    }

    /// What the model was last shown of its calls.
    pub(super) fn shown(&self) -> Vec<String> {
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
            let (id, args) = (format!("call_{done}"), call[1].to_string());
            Script::stream(calls(&[(&id, call[0].as_str().unwrap(), &args)]))
        }
        None => Script::stream(says("Done.")),
    }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A tool that asks `TOOLS/name`, and takes anything as `id`.
pub(super) fn tool(name: &str, effect: &str, more: &str) -> String {
    let method = if effect == "read" { "GET" } else { "POST" };
    format!(
        "[tools.{name}]\nkind = \"http\"\nmethod = \"{method}\"\nurl = \"TOOLS/{name}\"\n\
         effect = \"{effect}\"\n\
         input = {{ type = \"object\", properties = {{ id = {{ type = \"string\" }} }} }}\n{more}\n"
    )
}

pub(super) fn agent(name: &str, tools: &[&str], more: &str) -> String {
    format!(
        "[agents.{name}]\nroute = \"fast\"\ninstructions = \"Work.\"\ntools = {tools:?}\n{more}\n"
    )
}

pub(super) fn key(name: &str, secret: &str, more: &str) -> String {
    format!("[keys.{name}]\nsecret = \"{secret}\"\ntools = [\"*\"]\n{more}\n")
}

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
    let mut told: Vec<_> = records.iter().map(told).collect();
    told.sort();
    let mut expected =
        [of("look", "refused"), of("look", "ok"), of("pay", "ok"), of("look", "rate_limited")];
    expected.sort();
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
    for tool in ["look", "pay"] {
        assert!((counted(tool).await - 1.0).abs() < 0.1, "{tool}");
    }
}

#[tokio::test]
async fn a_call_without_a_run_counts_among_those_that_its_key_makes_at_once() {
    let gate = Gate::shut();
    let held = gate.clone();
    let sections =
        format!("{}{}", key("bob", BOB, "limits = { concurrency = 1 }"), tool("look", "read", ""));
    let house = House::new(&sections, move |_| {
        Script::default().gate(&held).then_all(Script::json(200, "{}"))
    })
    .await;
    let address = house.gateway.address;
    let mut first = tokio::task::JoinSet::new();
    first.spawn(async move {
        let body = json!({"args": {}}).to_string();
        let asked = request(Method::POST, "/v1/tools/look/call", BOB, body.into());
        open(address, asked).await.whole().await
    });
    until("it is asked", || !house.tools.requests().is_empty()).await;
    assert_eq!(code(&house.call(BOB, "look", json!({})).await).0, 429);
    gate.open();
    assert_eq!(first.join_next().await.unwrap().unwrap().status, 200);
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
    let house = House::new(&sections, |request| {
        if request.path.contains("secret") {
            Script::json(200, r#"{"note":"the borealis plan"}"#)
        } else {
            Script::json(200, r#"{"mail":"alice@example.org","n":1}"#)
        }
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
    let house = House::new(&sections, move |request| {
        if request.path.contains("odd") {
            Script::json(200, r#"{"m":1}"#)
        } else {
            Script::reply(200, &[("content-type", "text/plain")], &answer)
        }
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
        if fails.is_ok() || is_broken.load(Ordering::Relaxed) {
            Script::json(503, "{}")
        } else {
            Script::json(200, r#"{"name":"Ann"}"#)
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
    let house = House::new(&sections, |request| {
        if request.path.contains("id=bad") {
            Script::json(200, r#"{"error":"no such order"}"#)
        } else {
            Script::json(200, r#"{"ok":true}"#)
        }
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
    // Two clients that call somebody by the same name need not mean the same person.
    for (key, asked) in [(KEY, 5), (BOB, 6), (BOB, 6), (KEY, 6)] {
        let body = json!({"input": json!([good]).to_string(), "user": "ann", "wait": "10s"});
        let run = house.send(key, "/v1/agents/a/runs", &body).await.json();
        assert_eq!((&run["state"], house.tools.requests().len()), (&json!("completed"), asked));
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
        // A run has no other turn to wait for.
        let is_worth_it =
            (shown[2].contains("retry_after"), shown[2].contains("\"retryable\":true"));
        assert_eq!(is_worth_it, (name != "one", name != "one"), "{name}: {shown:?}");
        assert_eq!(house.asked(&format!("/{name}")).len(), 2, "{name}");
    }
    let told = async |tool: &str| code(&house.call(BOB, tool, json!({})).await).0;
    assert_eq!((told("all").await, told("own").await), (429, 200));
    // Another run has its own.
    house.run("a", &json!([["one", {"id": "4"}]])).await;
    assert!(!house.shown()[0].contains("rate_limited"));
}

#[tokio::test]
async fn a_run_may_call_a_tool_as_often_as_its_limit_says_whatever_is_remembered_or_refused() {
    let sections = format!(
        "{}{}",
        tool("look", "read", "limits = { run = 2 }\ncache = { ttl = \"60s\", scope = \"user\" }"),
        agent("a", &["look"], ""),
    );
    let house = House::new(&sections, |_| Script::json(200, r#"{"ok":true}"#)).await;
    let call = |id: &str| json!(["look", {"id": id}]);
    // There is something to remember.
    house.run("a", &json!([call("one")])).await;
    let wrong = json!(["look", {"nope": 1}]);
    house.run("a", &json!([call("one"), wrong, call("two"), call("three"), call("four")])).await;
    let shown = house.shown();
    let is_late = |text: &String| text.contains("rate_limited");
    let late: Vec<bool> = shown.iter().map(is_late).collect();
    assert_eq!(late, [false, false, false, false, true], "{shown:?}");
    assert!(shown[1].contains("invalid_arguments"), "{shown:?}");
    assert_eq!(house.asked("/look").len(), 3);
}

#[tokio::test]
async fn what_is_no_text_stands_in_the_answer_of_a_call_without_a_run() {
    let sections = format!("{}{}", key("bob", BOB, ""), tool("draw", "read", ""));
    let house =
        House::new(&sections, |_| Script::reply(200, &[("content-type", "image/png")], "PNG"));
    let told = house.await.call(BOB, "draw", json!({})).await.json();
    let picture = json!([{"type": "image", "data": "UE5H", "mimeType": "image/png"}]);
    assert_eq!((&told["content"], &told["text"]), (&picture, &json!("")), "{told}");
}

#[tokio::test]
async fn of_a_result_beyond_the_limit_of_its_tool_nobody_is_told_that_it_is_kept_whole() {
    let sections = format!(
        "{}{}",
        tool("big", "read", "max_result = \"64KiB\""),
        agent("a", &["big"], "context = { tool_result_tokens = 500 }")
            + &agent("b", &["big"], "context = { tool_result_tokens = 50_000 }"),
    );
    let answer = "words and words. ".repeat(8_000);
    let house = House::new(&sections, move |_| {
        Script::reply(200, &[("content-type", "text/plain")], &answer)
    })
    .await;
    house.run("a", &json!([["big", {}]])).await;
    let told = house.shown().remove(0);
    assert!(told.contains("longer than `max_result`") && told.contains("blob:"), "{told}");
    assert!(!told.contains("whole result"), "{told}");
    // Also where all that there is has room.
    house.run("b", &json!([["big", {}]])).await;
    let told = house.shown().remove(0);
    assert!(told.len() > 64 << 10 && told.contains("longer than `max_result`"), "{}", told.len());
}
