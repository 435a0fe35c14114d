//! The server of everything that the authors of the protocol wrote, tool by tool, and their suite.

use super::gate::{begin, heard, questions, told};
use super::*;

/// The server of everything that the authors of the protocol wrote, if it can be installed here.
/// With `SWITCHPOINT_TEST_AGENTS=1` it must be.
pub(super) fn everything() -> Option<(PathBuf, PathBuf)> {
    let left_out = |why: &str| {
        let may_be = std::env::var_os("SWITCHPOINT_TEST_AGENTS").is_none_or(|value| value != "1");
        assert!(may_be, "{why}");
        eprintln!("{why}, so the server of everything is left out");
    };
    let Some(node) = found("node") else {
        left_out("there is no node");
        return None;
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.join("tests/mcp/run.sh");
    assert!(Command::new(script).arg("--install").status().unwrap().success());
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), PathBuf::from);
    let package = "sdk/mcp/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
    let server = target.join(package);
    if !server.exists() {
        left_out("its packages cannot be installed");
        return None;
    }
    Some((node, server))
}

/// Each of its tools, what it is given, and what stands in what it gives.
const CALLS: [(&str, &str, &str); 15] = [
    ("echo", r#"{"message":"hi"}"#, "Echo: hi"),
    ("get-annotated-message", r#"{"messageType":"error"}"#, "Error: Operation failed"),
    ("get-env", "{}", "SHOWN"),
    ("get-resource-links", r#"{"count":2}"#, "demo://resource/dynamic/"),
    (
        "get-resource-reference",
        r#"{"resourceType":"Text","resourceId":1}"#,
        "demo://resource/dynamic/text/1",
    ),
    ("get-structured-content", r#"{"location":"Chicago"}"#, r#""temperature":36"#),
    ("get-sum", r#"{"a":2,"b":3}"#, "The sum of 2 and 3 is 5."),
    ("get-tiny-image", "{}", r#""mimeType":"image/png""#),
    (
        "gzip-file-as-resource",
        r#"{"name":"a.gz","data":"data:text/plain,hello","outputType":"resource"}"#,
        "application/gzip",
    ),
    (RESEARCH, r#"{"topic":"ice"}"#, "task"),
    ("toggle-simulated-logging", "{}", "simulated"),
    ("toggle-subscriber-updates", "{}", "simulated"),
    ("trigger-elicitation-request", "{}", "Ada"),
    // It takes longer than `timeout`, and reports progress until it is done.
    (LONG, r#"{"duration":3,"steps":6}"#, "Long running operation completed."),
    ("trigger-url-elicitation", r#"{"url":"https://example.com/"}"#, "User completed"),
];
const LONG: &str = "trigger-long-running-operation";
/// Can only be called as a task, which is said to whoever calls it otherwise.
const RESEARCH: &str = "simulate-research-query";

/// Calls each of its tools once, and answers what some of them want to know.
async fn tries_everything(gateway: &Gateway) {
    let ways = json!({"form": {}, "url": {}});
    let session = Session::open_with(gateway, KEY, &ways).await;
    session.sees("everything__trigger-url-elicitation").await;
    let mut known = CALLS.map(|(name, ..)| format!("everything__{name}"));
    let mut names = session.names().await;
    known.sort();
    names.sort();
    assert_eq!(names, known, "each is tried");
    for (name, args, expected) in CALLS {
        let args = serde_json::from_str(args).unwrap();
        let answer = json!({"name": "Ada", "check": true});
        let said = heard(&session, &format!("everything__{name}"), args, answer).await;
        let last = said.last().unwrap();
        assert!(last.to_string().contains(expected), "{name}: {last}");
        let is_refused = last["error"].is_object() || last["result"]["isError"] == true;
        assert_eq!(is_refused, name == RESEARCH, "{name}: {last}");
        let asks = usize::from(name.contains("elicitation"));
        assert_eq!(questions(&said).len(), asks, "{name}: {said:?}");
    }
    // Whose client knows forms only is told of the page in one.
    let forms = Session::open(gateway).await;
    let args = json!({"url": "https://example.com/"});
    let said = heard(&forms, "everything__trigger-url-elicitation", args, json!({})).await;
    let asked = said.iter().find(|it| it["method"] == "elicitation/create").unwrap();
    assert_eq!(asked["params"]["mode"], "form", "{said:?}");
    assert!(questions(&said)[0].contains("https://example.com/"), "{said:?}");
    assert!(said.last().unwrap().to_string().contains("User completed"), "{said:?}");
}

/// One that takes minutes is called off, and its client waits no more.
async fn calls_one_off(gateway: &Gateway) {
    let session = Session::open(gateway).await;
    let params = json!({"name": format!("everything__{LONG}"), "_meta": {"progressToken": "p"},
        "arguments": {"duration": 300, "steps": 300}});
    let call = json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": params});
    let mut opened = begin(&session, &call).await;
    told(&mut opened, "notifications/progress").await;
    let off = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 77}});
    assert_eq!(session.send(&off, &[]).await.status, 202);
    let rest = opened.whole().await;
    assert!(!rest.text().contains("completed"), "{}", rest.text());
    let echoed = session.text("everything__echo", json!({"message": "still"})).await;
    assert_eq!(echoed, "Echo: still");
}

#[tokio::test]
async fn the_server_of_everything_works_tool_by_tool_as_a_child() {
    let Some((node, server)) = everything() else { return };
    let tools = format!(
        "[tools.everything]\nkind = \"mcp\"\ntransport = \"stdio\"\ntimeout = \"2s\"\n\
         command = [\"{}\", \"{}\", \"stdio\"]\nenv = {{ SHOWN = \"yes\" }}\n",
        node.display(),
        server.display()
    );
    let (_upstream, gateway) = house(&tools, ALL).await;
    tries_everything(&gateway).await;
    calls_one_off(&gateway).await;
    let session = Session::open(&gateway).await;
    let seen = session.text("everything__get-env", json!({})).await;
    assert_eq!(serde_json::from_str::<Value>(&seen).unwrap(), json!({"SHOWN": "yes"}));
}

/// It, over HTTP, until dropped.
struct Everything(Child);

impl Everything {
    async fn start((node, server): &(PathBuf, PathBuf), port: u16) -> Self {
        let mut command = Command::new(node);
        command.arg(server).arg("streamableHttp");
        command.env("PORT", port.to_string()).env("SHOWN", "yes");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = Self(command.spawn().unwrap());
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
        child
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_server_of_everything_works_over_http_and_its_restart_is_healed() {
    let Some(everything) = everything() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let running = Everything::start(&everything, port).await;
    let tools = format!(
        "[tools.everything]\nkind = \"mcp\"\ntransport = \"streamable-http\"\ntimeout = \"2s\"\n\
         url = \"http://127.0.0.1:{port}/mcp\"\neffects = {{ echo = \"read\" }}\n"
    );
    let (_upstream, gateway) = house(&tools, ALL).await;
    tries_everything(&gateway).await;
    calls_one_off(&gateway).await;
    // All its sessions are lost.
    drop(running);
    let _again = Everything::start(&everything, port).await;
    let session = Session::open(&gateway).await;
    let echoed = session.text("everything__echo", json!({"message": "again"})).await;
    assert_eq!(echoed, "Echo: again");
    assert!(gateway.metric("switchpoint_mcp_reconnects_total", &["everything"]).await >= 1.0);
}

#[tokio::test]
async fn the_conformance_suite_passes_for_client_and_server() {
    if everything().is_none() {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mcp/run.sh");
    let done = Command::new(script).arg(env!("CARGO_BIN_EXE_switchpoint")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
