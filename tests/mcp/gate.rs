//! What servers behind the gateway have besides tools, and agents, for clients of `/mcp`.

use std::io::{BufRead, BufReader};

use crate::support::replies::{DONE, calls, finish, role, says, usage, word};
use crate::support::script::Gate;
use crate::support::upstream::Request;
use crate::support::{Script, gateway::route};

use super::everything::everything;
use super::*;

/// The server that the conformance suite asks for, until dropped.
pub(super) struct Fixture(Child, String);

impl Fixture {
    /// Of the older generation of the protocol, or of the newer.
    pub(super) fn start(generation: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/fixture.py");
        let mut command = Command::new(python());
        command.arg("-u").arg(script).arg(generation).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self(child, url.trim().to_owned())
    }

    pub(super) fn tool(&self) -> String {
        let url = &self.1;
        format!("[tools.kb]\nkind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"{url}\"\n")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const EVERYTHING: &str =
    "expose = { tools = [\"kb.*\"], resources = [\"kb.*\"], prompts = [\"kb.*\"] }";

/// A request whose answer comes piece by piece.
pub(super) async fn begin(session: &Session, message: &Value) -> client::Opened {
    let mut call = client::request(Method::POST, DOOR, session.key, message.to_string().into());
    let headers = call.headers_mut();
    headers.insert("accept", "application/json, text/event-stream".parse().unwrap());
    headers.insert(SESSION, session.id.parse().unwrap());
    client::open(session.address, call).await
}

/// The first message of this method on a stream.
pub(super) async fn told(opened: &mut client::Opened, method: &str) -> Value {
    let mut seen = String::new();
    loop {
        let piece = opened.next().await.unwrap_or_else(|| panic!("no {method}: {seen}"));
        seen.push_str(&String::from_utf8_lossy(&piece.bytes));
        let lines = seen.lines().filter_map(|line| line.strip_prefix("data:"));
        let mut said = lines.filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        if let Some(said) = said.find(|said| said["method"] == method) {
            return said;
        }
    }
}

fn ids(listed: &Value, key: &str, id: &str) -> Vec<String> {
    let items = listed["result"][key].as_array().unwrap_or_else(|| panic!("{listed}"));
    items.iter().map(|item| item[id].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_a_server_has_is_offered_by_names_of_ours_to_keys_that_may_have_it() {
    let fixture = Fixture::start("old");
    let keys = "[keys.narrow]\nsecret = \"sk-narrow\"\ntools = [\"kb.test://static-text\"]\n";
    let (_upstream, gateway) = house(&format!("{}{keys}", fixture.tool()), EVERYTHING).await;
    let session = Session::open(&gateway).await;
    session.sees("kb__test_simple_text").await;
    let resources = ids(&session.ask("resources/list", json!({})).await, "resources", "uri");
    assert!(resources.contains(&"kb+test://static-text".to_owned()), "{resources:?}");
    let read = session.ask("resources/read", json!({"uri": "kb+test://static-text"})).await;
    let contents = &read["result"]["contents"][0];
    assert_eq!(contents["uri"], "kb+test://static-text");
    assert_eq!(contents["text"], "This is the content of the static text resource.");
    let prompt = session.ask("prompts/get", json!({"name": "kb__test_simple_prompt"})).await;
    let text = &prompt["result"]["messages"][0]["content"]["text"];
    assert_eq!(text, "This is a simple prompt for testing.");
    let argument = json!({"name": "arg1", "value": "par"});
    let about = json!({"type": "ref/prompt", "name": "kb__test_prompt_with_arguments"});
    let asked = json!({"ref": about, "argument": argument});
    let completed = session.ask("completion/complete", asked).await;
    assert_eq!(completed["result"]["completion"]["values"][0], "paris", "{completed}");
    // Where a result leads to, it can be read here.
    let embedded = session.call("kb__test_embedded_resource", json!({})).await;
    let uri = &embedded["result"]["content"][0]["resource"]["uri"];
    assert_eq!(uri, "kb+test://embedded-resource");
    let structured = session.call("kb__test_structured_content", json!({})).await;
    assert_eq!(structured["result"]["structuredContent"], json!({"sum": 8}));
    for (method, params) in [
        ("resources/read", json!({"uri": "kb+test://template/../data"})),
        ("resources/read", json!({"uri": "test://static-text"})),
        ("prompts/get", json!({"name": "test_simple_prompt"})),
    ] {
        let refused = session.ask(method, params).await;
        assert!(refused["error"].is_object(), "{refused}");
    }
    let narrow = Session::open_as(&gateway, "sk-narrow").await;
    let resources = ids(&narrow.ask("resources/list", json!({})).await, "resources", "uri");
    assert_eq!(resources, ["kb+test://static-text"]);
    let prompts = ids(&narrow.ask("prompts/list", json!({})).await, "prompts", "name");
    assert!(prompts.is_empty() && narrow.names().await.is_empty());
    let refused = narrow.ask("resources/read", json!({"uri": "kb+test://static-binary"})).await;
    assert!(refused["error"].is_object(), "{refused}");
}

#[tokio::test]
async fn whoever_watches_a_resource_hears_that_it_changed() {
    let fixture = Fixture::start("old");
    let (_upstream, gateway) = house(&fixture.tool(), EVERYTHING).await;
    let session = Session::open(&gateway).await;
    session.sees("kb__test_touch").await;
    let mut news = client::request(Method::GET, DOOR, KEY, Bytes::new());
    news.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    news.headers_mut().insert(SESSION, session.id.parse().unwrap());
    let mut news = client::open(gateway.address, news).await;
    let uri = "kb+test://watched-resource";
    let watched = session.ask("resources/subscribe", json!({"uri": uri})).await;
    assert_eq!(watched["result"], json!({}), "{watched}");
    session.call("kb__test_touch", json!({})).await;
    let heard = told(&mut news, "notifications/resources/updated").await;
    assert_eq!(heard["params"]["uri"], uri);
    session.call("kb__test_trigger_tool_change", json!({})).await;
    told(&mut news, "notifications/tools/list_changed").await;
}

#[tokio::test]
async fn what_is_read_goes_by_limits_and_guards_and_leaves_a_record() {
    let fixture = Fixture::start("old");
    let guards = "[guards.words]\nkind = \"pattern\"\nwords = [\"static\"]\nstage = [\"tool_results\"]\naction = \"mask\"\n\n\
        [guards.secret]\nkind = \"pattern\"\nwords = [\"simple\"]\nstage = [\"tool_results\"]\naction = \"block\"\n\n";
    let keys = "[keys.seen]\nsecret = \"sk-seen\"\nguards = [\"words\", \"secret\"]\ntools = [\"*\"]\n\n\
        [keys.few]\nsecret = \"sk-few\"\nlimits = { requests = \"2/h\" }\ntools = [\"*\"]\n";
    let (_upstream, gateway) =
        house(&format!("{}{guards}{keys}", fixture.tool()), EVERYTHING).await;
    let uri = json!({"uri": "kb+test://static-text"});
    let seen = Session::open_as(&gateway, "sk-seen").await;
    seen.sees("kb__test_simple_text").await;
    let read = seen.ask("resources/read", uri.clone()).await;
    let contents = &read["result"]["contents"][0];
    // Names are for machines, and stay.
    assert_eq!(contents["uri"], "kb+test://static-text", "{read}");
    let text = contents["text"].as_str().unwrap_or_else(|| panic!("{read}"));
    assert!(text.starts_with("This is the content of the ") && !text.contains("static"), "{text}");
    let prompt = seen.ask("prompts/get", json!({"name": "kb__test_simple_prompt"})).await;
    assert_eq!(prompt["error"]["data"]["error"]["type"], "guard_blocked", "{prompt}");
    let few = Session::open_as(&gateway, "sk-few").await;
    assert!(few.ask("resources/read", uri.clone()).await["result"].is_object());
    let refused = few.ask("resources/read", uri).await;
    assert_eq!(refused["error"]["data"]["error"]["type"], "rate_limited", "{refused}");
    let asked = || {
        let records = gateway.records().into_iter();
        let records =
            records.filter(|it| it["route"].as_str().is_some_and(|it| it.starts_with("tool/")));
        records.collect::<Vec<Value>>()
    };
    until("all is recorded", || asked().len() >= 4).await;
    let mut told: Vec<String> = asked()
        .iter()
        .map(|it| {
            format!("{} {} {} {}", it["key"], it["surface"], it["route"], it["outcome"])
                .replace('"', "")
        })
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            "few tool_call tool/kb.resources/read ok",
            "few tool_call tool/kb.resources/read rate_limited",
            "seen tool_call tool/kb.prompts/get guard_blocked",
            "seen tool_call tool/kb.resources/read ok",
        ]
    );
}

/// Guards that change one word and do not let another pass.
const WORDS: &str = "[guards.words]\nkind = \"pattern\"\nwords = [\"hidden\", \"processing\", \"name\"]\n\
    stage = [\"tool_results\"]\naction = \"mask\"\n\n[guards.secret]\nkind = \"pattern\"\n\
    words = [\"password\", \"is it about\"]\nstage = [\"tool_results\"]\naction = \"block\"\n\n\
    [guards.given]\nkind = \"pattern\"\nwords = [\"lovelace\"]\nstage = [\"tool_args\"]\naction = \"mask\"\n\n\
    [guards.nobody]\nkind = \"pattern\"\nwords = [\"mallory\"]\nstage = [\"tool_args\"]\naction = \"block\"\n\n\
    [keys.seen]\nsecret = \"sk-seen\"\nguards = [\"words\", \"secret\", \"given\", \"nobody\"]\ntools = [\"*\"]\n\n";

/// Calls a tool, answers what it asks with this, and gives all that was heard.
pub(super) async fn heard(session: &Session, name: &str, args: Value, said: Value) -> Vec<Value> {
    let call = request("tools/call", &json!({"name": name, "arguments": args}));
    let mut opened = begin(session, &call).await;
    let (mut seen, mut known) = (String::new(), 0);
    loop {
        let lines = seen.lines().map(|line| line.strip_prefix("data:").unwrap_or(line).trim());
        let heard: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        for asked in heard[known..].iter().filter(|it| it["method"] == "elicitation/create") {
            let result = json!({"action": "accept", "content": said});
            let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
            assert_eq!(session.send(&answer, &[]).await.status, 202);
        }
        known = heard.len();
        if heard.iter().any(|it| it["id"] == 1 && it["method"].is_null()) {
            return heard;
        }
        let piece = opened.next().await.unwrap_or_else(|| panic!("no end: {seen}"));
        seen.push_str(&String::from_utf8_lossy(&piece.bytes));
    }
}

pub(super) fn questions(heard: &[Value]) -> Vec<String> {
    let asked = heard.iter().filter(|it| it["method"] == "elicitation/create");
    asked.map(|it| it["params"]["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_a_server_asks_and_logs_meanwhile_passes_the_guards_of_its_results() {
    let (newer, older) = (Fixture::start("new"), Fixture::start("old"));
    let tools = format!("{}{}", newer.tool(), older.tool().replace("[tools.kb]", "[tools.old]"));
    let expose = "expose = { tools = [\"*\"], prompts = [\"kb.*\"] }";
    let (_upstream, gateway) = house(&format!("{tools}{WORDS}"), expose).await;
    let session = Session::open_as(&gateway, "sk-seen").await;
    session.sees("kb__test_input_required_result_elicitation").await;
    session.sees("old__test_elicitation").await;
    let said = || json!({"name": "Ada", "username": "ada", "email": "a@b.c"});
    // Lines of logs, which come where nobody has asked for anything.
    let mut news = client::request(Method::GET, DOOR, session.key, Bytes::new());
    news.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    news.headers_mut().insert(SESSION, session.id.parse().unwrap());
    let mut news = client::open(gateway.address, news).await;
    heard(&session, "old__test_tool_with_logging", json!({}), said()).await;
    let logs = news.read_until("completed").await;
    assert!(logs.contains("execution started") && !logs.contains("processing"), "{logs}");
    assert_eq!(logs.matches("notifications/message").count(), 3, "{logs}");
    // Questions while it works, and in the place of an answer.
    let args = json!({"message": "Is it hidden?"});
    let asked = heard(&session, "old__test_elicitation", args, said()).await;
    let question = questions(&asked);
    assert!(question[0].starts_with("Is it ") && !question[0].contains("hidden"), "{asked:?}");
    assert!(asked.last().unwrap().to_string().contains("action=accept"), "{asked:?}");
    let args = json!({"message": "Your password?"});
    let asked = heard(&session, "old__test_elicitation", args, said()).await;
    assert!(questions(&asked).is_empty(), "nobody is asked: {asked:?}");
    assert!(!asked.last().unwrap().to_string().contains("action=accept"), "{asked:?}");
    let tool = "kb__test_input_required_result_elicitation";
    let asked = heard(&session, tool, json!({}), said()).await;
    let question = questions(&asked);
    assert!(question[0].starts_with("What is your ") && !question[0].contains("name"), "{asked:?}");
    assert!(asked.last().unwrap().to_string().contains("Hello, Ada!"), "{asked:?}");
    // What is no tool asks, too.
    let prompt = json!({"name": "kb__test_input_required_result_prompt"});
    let refused = session.ask("prompts/get", prompt).await;
    assert_eq!(refused["error"]["data"]["error"]["type"], "guard_blocked", "{refused}");
    // What is answered is given to a tool like any arguments.
    let by = |name: &str| json!({"name": name, "username": name, "email": "a@b.c"});
    let person = "old__test_elicitation";
    let both =
        [(tool, json!({}), "Hello, "), (person, json!({"message": "Who?"}), "action=accept")];
    for (called, args, known) in both {
        let masked = heard(&session, called, args.clone(), by("Lovelace")).await;
        let told = masked.last().unwrap().to_string();
        assert!(told.contains(known) && !told.contains("Lovelace"), "{masked:?}");
        let refused = heard(&session, called, args, by("Mallory")).await;
        let told = refused.last().unwrap().to_string();
        assert_eq!(questions(&refused).len(), 1, "{refused:?}");
        assert!(!told.contains(known) && told.contains("guard"), "{refused:?}");
    }
    // And who has no guards hears all of it.
    let free = Session::open(&gateway).await;
    let asked = heard(&free, tool, json!({}), said()).await;
    assert_eq!(questions(&asked), ["What is your name?"]);
}

#[tokio::test]
async fn a_text_that_is_sent_as_bytes_is_looked_at_like_any_other() {
    use base64::Engine as _;
    let fixture = Fixture::start("old");
    let (_upstream, gateway) = house(&format!("{}{WORDS}", fixture.tool()), EVERYTHING).await;
    let (seen, free) = (Session::open_as(&gateway, "sk-seen").await, Session::open(&gateway).await);
    seen.sees("kb__test_embedded_bytes").await;
    let uri = json!({"uri": "kb+test://text-as-bytes"});
    let read = async |session: &Session| {
        let read = session.ask("resources/read", uri.clone()).await;
        let bytes = read["result"]["contents"][0]["blob"].as_str().unwrap().to_owned();
        String::from_utf8(base64::prelude::BASE64_STANDARD.decode(bytes).unwrap()).unwrap()
    };
    assert_eq!(read(&free).await, "It is hidden in bytes.");
    let text = read(&seen).await;
    assert!(text.ends_with("in bytes.") && !text.contains("hidden"), "{text}");
    let whole = free.call("kb__test_embedded_bytes", json!({})).await;
    let bytes = whole["result"]["content"][0]["resource"]["blob"].as_str().unwrap().to_owned();
    let looked = seen.call("kb__test_embedded_bytes", json!({})).await.to_string();
    assert!(!looked.contains(&bytes) && looked.contains("text/plain"), "{looked}");
    // What is no text goes through as it is.
    let pixel = json!({"uri": "kb+test://static-binary"});
    let whole = free.ask("resources/read", pixel.clone()).await;
    assert_eq!(seen.ask("resources/read", pixel).await["result"], whole["result"]);
}

#[tokio::test]
async fn a_resource_stays_watched_when_another_config_has_another_server() {
    let fixture = Fixture::start("new");
    let upstream = Upstream::answering(|_| Script::json(200, "{}")).await;
    let config =
        |more: &str| sections(&upstream, &format!("{}{more}\n", fixture.tool()), EVERYTHING);
    let gateway = Gateway::start("", &config("")).await;
    let session = Session::open(&gateway).await;
    session.sees("kb__test_touch").await;
    let mut news = client::request(Method::GET, DOOR, KEY, Bytes::new());
    news.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    news.headers_mut().insert(SESSION, session.id.parse().unwrap());
    let mut news = client::open(gateway.address, news).await;
    let uri = "kb+test://watched-resource";
    session.ask("resources/subscribe", json!({"uri": uri})).await;
    assert_eq!(gateway.reload(&config("timeout = \"21s\"")).await.status, 200);
    // It may have changed in between.
    let heard = told(&mut news, "notifications/resources/updated").await;
    assert_eq!(heard["params"]["uri"], uri);
    session.sees("kb__test_touch").await;
    // The new server tells as soon as it is asked to, which nobody outside can see.
    let touches = async {
        loop {
            session.call("kb__test_touch", json!({})).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        heard = told(&mut news, "notifications/resources/updated") => {
            assert_eq!(heard["params"]["uri"], uri);
        }
        () = touches => {}
    }
}

#[tokio::test]
async fn a_newer_server_asks_an_older_client_and_an_older_server_a_newer_one() {
    let (newer, older) = (Fixture::start("new"), Fixture::start("old"));
    let tools = format!("{}{}", newer.tool(), older.tool().replace("[tools.kb]", "[tools.old]"));
    let (_upstream, gateway) = house(&tools, ALL).await;
    let session = Session::open(&gateway).await;
    session.sees("kb__test_input_required_result_elicitation").await;
    session.sees("old__test_elicitation").await;
    let call = json!({"name": "kb__test_input_required_result_elicitation", "arguments": {}});
    let mut opened = begin(&session, &request("tools/call", &call)).await;
    let question = told(&mut opened, "elicitation/create").await;
    assert_eq!(question["params"]["message"], "What is your name?");
    let result = json!({"action": "accept", "content": {"name": "Ada"}});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert_eq!(session.send(&answer, &[]).await.status, 202);
    opened.read_until("Hello, Ada!").await;
    // The other way round it is an answer, which is sent again with what was asked for.
    let client = Session { address: gateway.address, key: KEY, id: String::new() };
    let version = "2026-07-28";
    let headers = [
        ("mcp-protocol-version", version),
        ("mcp-method", "tools/call"),
        ("mcp-name", "old__test_elicitation"),
    ];
    let mut params = json!({
        "name": "old__test_elicitation",
        "arguments": {"message": "Who?"},
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
        },
    });
    let asked = client.send(&request("tools/call", &params), &headers).await;
    let asked = &messages(&asked)[0]["result"];
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let said = json!({"action": "accept", "content": {"username": "ada", "email": "a@b.c"}});
    params["inputResponses"] = json!({ key: said });
    params["requestState"] = asked["requestState"].clone();
    let done = client.send(&request("tools/call", &params), &headers).await;
    assert!(done.text().contains("action=accept"), "{}", done.text());
}

/// Wants a tool, waits, or says something, by what it was asked.
fn mind(request: &Request, gate: &Gate) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap().clone();
    let calls =
        |name: &str, args: Value| Script::stream(calls(&[("call_1", name, &args.to_string())]));
    match last["content"].as_str().unwrap_or_default() {
        _ if last["role"] == "tool" => Script::stream(says(&format!("So: {}", last["content"]))),
        "ask" => calls("ask_user", json!({"question": "Which one?"})),
        "sum" => calls("calc", json!({"expression": "20 + 22"})),
        "hold" => {
            let script = Script::stream_head().chunks([role(), word("Wait")]).gate(gate);
            script.chunks([finish(), usage(), DONE.to_owned()]).end()
        }
        _ => Script::stream(says("Hello there.")),
    }
}

pub(super) const AGENT: &str = "[tools.ask_user]\nkind = \"builtin\"\nname = \"ask_user\"\n\
    [tools.calc]\nkind = \"builtin\"\nname = \"calculator\"\n\
    [agents.helper]\ndescription = \"Helps.\"\nroute = \"fast\"\ninstructions = \"Help.\"\n\
    tools = [\"ask_user\", \"calc\"]\n[mcp]\nexpose = { agents = [\"helper\"] }\n";

#[tokio::test]
async fn an_agent_asks_the_client_and_ends_when_its_call_is_called_off() {
    let gate = Gate::shut();
    let held = gate.clone();
    let model = Upstream::answering(move |request| mind(request, &held)).await;
    let sections = format!("{}{}{AGENT}", provider("up", &model), route("fast", &["up/m"], ""));
    let gateway = Gateway::start("", &sections).await;
    let session = Session::open(&gateway).await;
    let call = json!({"name": "agent_helper", "arguments": {"input": "ask"}});
    let mut opened = begin(&session, &request("tools/call", &call)).await;
    let question = told(&mut opened, "elicitation/create").await;
    assert_eq!(question["params"]["message"], "Which one?");
    let result = json!({"action": "accept", "content": {"answer": "the red one"}});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": result});
    assert_eq!(session.send(&answer, &[]).await.status, 202);
    let done = opened.read_until("structuredContent").await;
    assert!(done.contains("the red one") && done.contains("completed"), "{done}");
    // And one that is called off.
    let asked = model.requests().len();
    let call = json!({"name": "agent_helper", "arguments": {"input": "hold"}});
    let _opened = begin(
        &session,
        &json!({
            "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": call,
        }),
    )
    .await;
    model.asked(asked + 1).await;
    let off = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77},
    });
    assert_eq!(session.send(&off, &[]).await.status, 202);
    for _ in 0..600 {
        let runs = client::get(gateway.address, "/v1/agents/runs?agent=helper", KEY).await;
        if runs.text().contains("\"cancelled\"") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the run goes on");
}

#[tokio::test]
async fn agents_are_tools_of_those_who_may_run_them() {
    let model = Upstream::answering(|request| mind(request, &Gate::shut())).await;
    let more = "[agents.other]\nroute = \"fast\"\ninstructions = \"Help.\"\ntools = []\n\
        [keys.without]\nsecret = \"sk-without\"\nagents = [\"other\"]\n";
    let sections =
        format!("{}{}{AGENT}{more}", provider("up", &model), route("fast", &["up/m"], ""));
    let gateway = Gateway::start("", &sections).await;
    let session = Session::open(&gateway).await;
    let listed = session.ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 1, "only what is offered: {listed}");
    assert_eq!(
        (&tools[0]["name"], &tools[0]["description"]),
        (&json!("agent_helper"), &json!("Helps."))
    );
    assert!(tools[0]["inputSchema"]["properties"]["input"].is_object(), "{listed}");
    let without = Session::open_as(&gateway, "sk-without").await;
    assert!(without.names().await.is_empty());
    let refused = without.call("agent_helper", json!({"input": "Hi."})).await;
    assert!(refused["error"].is_object(), "{refused}");
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn the_official_sdk_uses_agents_as_tools() {
    let Some((node, server)) = everything() else { return };
    let model = Upstream::answering(|request| mind(request, &Gate::shut())).await;
    let sections = format!("{}{}{AGENT}", provider("up", &model), route("fast", &["up/m"], ""));
    let gateway = Gateway::start("", &sections).await;
    let modules = server.ancestors().find(|path| path.ends_with("node_modules")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/agent.mjs");
    let mut command = tokio::process::Command::new(node);
    command.arg(script).arg(modules).arg(format!("http://{}{DOOR}", gateway.address)).arg(KEY);
    let done = command.output().await.unwrap();
    let (said, wrong) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && said.contains("all is well"), "{said}{wrong}");
}
