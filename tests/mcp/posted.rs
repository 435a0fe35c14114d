//! What is posted at the door: it counts, and what is wrong with it is told as JSON-RPC has it.

use super::*;

/// Allows batches; the versions before and after it do not.
const BATCHES: &str = "2025-03-26";

fn numbered(id: u32, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

#[tokio::test]
async fn whatever_is_asked_at_the_door_counts_as_a_call_of_its_key() {
    let keys = "[keys.few]\nsecret = \"sk-few\"\nlimits = { requests = \"5/h\" }\n";
    let (_upstream, gateway) = house(keys, "").await;
    let few = Session::open_as(&gateway, "sk-few").await;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        assert!(few.ask(method, json!({})).await["result"].is_object(), "{method}");
        // Who only asks whether anybody is there has asked for nothing.
        assert!(few.ask("ping", json!({})).await["result"].is_object());
    }
    let list = request("tools/list", &json!({}));
    let refused = few.send(&list, &[]).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let said = refused.json();
    assert_eq!((&said["id"], &said["error"]["code"]), (&json!(1), &json!(-32000)), "{said}");
    assert_eq!(said["error"]["data"]["error"]["type"], "rate_limited", "{said}");
    let another = Session { address: gateway.address, key: "sk-few", id: String::new() };
    let begin = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}});
    assert_eq!(another.send(&request("initialize", &begin), &[]).await.status, 429);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
    let newer = another.send(&request("tools/list", &json!({"_meta": meta})), &headers).await;
    assert_eq!(newer.status, 429, "{}", newer.text());
    let records = gateway.recorded(8).await;
    let told = |outcome: &str| {
        let of = records.iter().filter(|it| it["outcome"] == outcome);
        let mut routes: Vec<&str> = of.map(|it| it["route"].as_str().unwrap()).collect();
        routes.sort_unstable();
        routes
    };
    assert_eq!(
        told("ok"),
        [
            "mcp/initialize",
            "mcp/prompts/list",
            "mcp/resources/list",
            "mcp/resources/templates/list",
            "mcp/tools/list",
        ]
    );
    assert_eq!(told("rate_limited"), ["mcp/initialize", "mcp/tools/list", "mcp/tools/list"]);
}

#[tokio::test]
async fn a_message_that_is_none_is_a_400_and_wrong_params_are_an_answer() {
    let (_upstream, gateway) = house("", "").await;
    let session = Session::open(&gateway).await;
    for (said, code) in [
        ("{\"jsonrpc\":", -32700),
        ("hello", -32700),
        ("[]", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":7}", -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32600),
    ] {
        let answer = session.post(said, &[]).await;
        assert_eq!(answer.status, 400, "{said}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!(answer["error"]["code"], code, "{said}: {answer}");
        assert!(answer.get("id").is_none(), "{answer}");
    }
    for params in [json!({}), json!(["echo"]), json!({"name": 7})] {
        let answer = session.send(&numbered(9, "tools/call", &params), &[]).await;
        assert_eq!(answer.status, 200);
        let answer = answer.json();
        assert_eq!(
            (&answer["id"], &answer["error"]["code"]),
            (&json!(9), &json!(-32602)),
            "{answer}"
        );
    }
    let unknown = session.ask("things/do", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    // What is no JSON by its own word is not looked at.
    let form = session.post("a=b", &[("content-type", "application/x-www-form-urlencoded")]).await;
    assert_eq!(form.status, 415);
}

#[tokio::test]
async fn several_messages_at_once_are_answered_where_the_version_of_their_session_has_that() {
    let keys =
        "[keys.few]\nsecret = \"sk-few\"\nlimits = { requests = \"3/h\" }\ntools = [\"*\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let tools = format!("{}{keys}", small("small", folder.path(), ""));
    let (_upstream, gateway) = house(&tools, ALL).await;
    let ways = json!({});
    let session = Session::begin(&gateway, KEY, &ways, BATCHES).await;
    session.sees("small__echo").await;
    let call = json!({"name": "small__echo", "arguments": {"text": "among others"}});
    let batch = json!([
        numbered(1, "tools/call", &call),
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        numbered(2, "tools/list", &json!({})),
        numbered(3, "tools/call", &json!({})),
        numbered(4, "initialize", &json!({})),
        "nothing",
    ]);
    let answer = session.send(&batch, &[("mcp-protocol-version", BATCHES)]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let all = messages(&answer);
    let of = |id: u32| all.iter().find(|it| it["id"] == id).unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(of(1)["result"]["content"][0]["text"], "among others");
    assert!(of(2)["result"]["tools"].is_array());
    assert_eq!(of(3)["error"]["code"], -32602);
    assert_eq!(of(4)["error"]["code"], -32600);
    assert_eq!(all.iter().filter(|it| it.get("id").is_none()).count(), 1, "{all:?}");
    let told = json!([{"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}]);
    assert_eq!(session.send(&told, &[]).await.status, 202);
    // Each of them is a call.
    let few = Session::begin(&gateway, "sk-few", &ways, BATCHES).await;
    let lists: Vec<Value> = (1..=3).map(|id| numbered(id, "tools/list", &json!({}))).collect();
    let all = messages(&few.send(&json!(lists), &[]).await);
    let refused: Vec<&Value> = all.iter().filter(|it| it["error"]["code"] == -32000).collect();
    assert_eq!((all.len(), refused.len()), (3, 1), "{all:?}");
    for version in ["2025-06-18", VERSION] {
        let session = Session::begin(&gateway, KEY, &ways, version).await;
        let refused = session.send(&batch, &[]).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["code"], -32600, "{}", refused.text());
    }
}

#[tokio::test]
async fn what_is_asked_at_the_door_has_a_place_among_the_calls_in_flight() {
    let upstream = Upstream::answering(|_| crate::support::Script::default().stall()).await;
    let tool = format!(
        "[tools.slow]\nkind = \"http\"\nurl = \"http://{}/slow\"\nmethod = \"GET\"\n\
         effect = \"read\"\ndescription = \"Slow.\"\n",
        upstream.address,
    );
    let gateway = Gateway::start("max_in_flight = 1", &sections(&upstream, &tool, ALL)).await;
    let session = Session::open(&gateway).await;
    let session = std::sync::Arc::new(session);
    let (caller, mut calls) = (std::sync::Arc::clone(&session), tokio::task::JoinSet::new());
    calls.spawn(async move { caller.call("slow", json!({})).await });
    upstream.asked(1).await;
    let listed = session.send(&request("tools/list", &json!({})), &[]).await;
    assert_eq!((listed.status, listed.header("retry-after")), (503, Some("1")));
    assert_eq!(listed.json()["error"]["data"]["error"]["type"], "overloaded");
    let chat = crate::support::replies::ask("up/a");
    assert_eq!(client::chat(&gateway, chat).await.status, 503, "it counts among all others");
    assert!(session.ask("ping", json!({})).await["result"].is_object());
}
