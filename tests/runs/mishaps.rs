//! What becomes of calls of tools that come to nothing: they are taken back, kept for a person, made
//! again with another token or in another session.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::broker::{BOB, House, OPERATOR, agent, key, tool};
use super::stage::{Stage, found, results, says};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::calls;
use crate::support::upstream::Request;
use crate::support::{PATIENCE, Script};

const QUICK: &str = "retry = { attempts = 3, base = \"1ms\", max = \"2ms\" }";

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
        agent("keeps", &["book", "hire"], ""),
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
    let undone = || -> Vec<(String, Value)> {
        let requests = house.tools.requests();
        let undoing = requests.iter().filter(|request| request.path.contains("/un"));
        let told = |it: &Request| (it.path.clone(), serde_json::from_slice(&it.body).unwrap());
        undoing.map(told).collect()
    };
    let expected = [
        ("/v1/unhire".to_owned(), json!({"id": "handle-of-hire"})),
        ("/v1/unbook".to_owned(), json!({"id": "handle-of-book"})),
    ];
    assert_eq!(undone(), expected);
    // Of another agent what was done stays, until somebody says otherwise.
    let run = house.run("keeps", &json!([["book", {}], ["hire", {}], "break"])).await;
    assert_eq!(undone().len(), 2);
    let path = format!("/v1/agents/runs/{}/compensate", run["id"].as_str().unwrap());
    let first = house.send(KEY, &path, &json!({})).await;
    assert_eq!(first.status, 202, "{}", first.text());
    // It is done once, by one run, however often and by whomever it is asked for.
    for key in [KEY, OPERATOR] {
        let again = house.send(key, &path, &json!({})).await;
        assert_eq!((again.status, &again.json()["id"]), (202, &first.json()["id"]));
    }
    let taking_back = format!("/v1/agents/runs/{}", first.json()["id"].as_str().unwrap());
    house.over(&taking_back).await;
    assert_eq!(undone()[2..], expected);
    let again = house.send(OPERATOR, &path, &json!({})).await;
    assert_eq!((again.status, &again.json()["state"]), (202, &json!("completed")));
    assert_eq!(undone().len(), 4);
}

#[tokio::test]
async fn what_was_done_is_taken_back_as_soon_as_what_was_to_follow_has_failed() {
    let undo = "[tools.book.undo]\ntool = \"unbook\"\nargs = { id = \"$.handle\" }\n";
    let undo_of_hire = undo.replace("book", "hire");
    let sections = format!(
        "{}{}{}{}{}{}{}{}",
        tool("book", "once", undo),
        tool("hire", "once", &undo_of_hire),
        tool("unbook", "idempotent", "internal = true"),
        tool("unhire", "idempotent", "internal = true"),
        tool("pay", "once", ""),
        tool("look", "read", QUICK),
        agent("a", &["book", "hire", "pay", "look"], "on_failure = \"compensate\""),
        agent("keeps", &["book", "pay"], ""),
    );
    let house = House::new(&sections, |request| {
        let name = request.path.split('?').next().unwrap().rsplit('/').next().unwrap();
        match name {
            "pay" => Script::json(402, "{}"),
            "look" => Script::json(404, "{}"),
            "unhire" => Script::json(409, "{}"),
            name => Script::json(200, &json!({"handle": format!("h-{name}")}).to_string()),
        }
    })
    .await;
    let undone = || house.asked("/unbook").len() + house.asked("/unhire").len();
    // What only looks has nothing to be undone for, and arguments can be made right.
    let work = json!([["book", {}], ["look", {}], ["pay", {"id": 7}]]);
    let run = house.run("a", &work).await;
    assert_eq!((&run["state"], undone()), (&json!("completed"), 0), "{run:#}");
    // The run goes on and says so; what is done after that stays.
    let work = json!([["hire", {}], ["book", {}], ["pay", {}], ["book", {"id": "again"}]]);
    let run = house.run("a", &work).await;
    assert_eq!(run["state"], "completed", "{run:#}");
    let taken: Vec<(String, Value)> = house
        .tools
        .requests()
        .iter()
        .filter(|it| it.path.contains("/un"))
        .map(|it| (it.path.clone(), serde_json::from_slice(&it.body).unwrap()))
        .collect();
    let back = |name: &str| (format!("/v1/un{name}"), json!({"id": format!("h-{name}")}));
    assert_eq!(taken, [back("book"), back("hire")]);
    let path = format!("/v1/agents/runs/{}", run["id"].as_str().unwrap());
    let journal = house.journal(&path).await;
    let order: Vec<&str> = journal.iter().filter_map(|it| it["type"].as_str()).collect();
    let place = |of: &str| order.iter().rposition(|it| *it == of).unwrap();
    assert!(place("compensation.completed") < place("model.requested"), "{order:?}");
    let last = house.model.requests().last().unwrap().text().to_owned();
    assert!(last.contains("what `book` had done before it was taken back"), "{last}");
    assert!(last.contains("what `hire` had done before it could not be taken back"), "{last}");
    let dead = house.get("/v1/agents/dlq").await;
    let kinds: Vec<&Value> =
        dead["data"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "compensation").count(), 1, "{dead:#}");
    // Its record plays without it.
    let asked = house.tools.requests().len();
    let (_, again) = made(&house, &path, "replay", json!({"mode": "recorded"})).await;
    assert_eq!((&again["state"], house.tools.requests().len()), (&json!("completed"), asked));
    // Of another agent it stays.
    house.run("keeps", &json!([["book", {}], ["pay", {}]])).await;
    assert_eq!(undone(), 2);
}

/// A run that was made of another one, once it is over.
async fn made(house: &House, of: &str, what: &str, body: Value) -> (String, Value) {
    let begun = house.send(KEY, &format!("{of}/{what}"), &body).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let run = house.over(&path).await;
    (path, run)
}

#[tokio::test]
async fn what_was_taken_back_is_not_taken_back_by_runs_that_are_made_of_it() {
    let sections = format!(
        "{}{}{}{}",
        tool("book", "once", "[tools.book.undo]\ntool = \"unbook\"\nargs = { id = \"$.id\" }\n"),
        tool("unbook", "idempotent", "internal = true"),
        agent("a", &["book"], "on_failure = \"compensate\""),
        agent("keeps", &["book"], ""),
    );
    let house = House::new(&sections, |_| Script::json(200, r#"{"id": "b1"}"#)).await;
    let work = json!([["book", {}], "break"]);
    let path = |run: &Value| format!("/v1/agents/runs/{}", run["id"].as_str().unwrap());
    // One takes back itself, the other by a run of its own.
    let own = path(&house.run("a", &work).await);
    let kept = path(&house.run("keeps", &work).await);
    let (taking, _) = made(&house, &kept, "compensate", json!({})).await;
    let asked = || (house.asked("/book").len(), house.asked("/unbook").len());
    assert_eq!(asked(), (2, 2));
    for of in [&own, &taking] {
        let models = house.turns();
        let (again, run) = made(&house, of, "replay", json!({"mode": "recorded"})).await;
        assert_eq!((asked(), house.turns()), ((2, 2), models), "{run:#}");
        // What was played has done nothing that could be taken back.
        made(&house, &again, "compensate", json!({})).await;
        assert_eq!(asked(), (2, 2));
        made(&house, of, "replay", json!({"mode": "live"})).await;
        assert_eq!(asked(), (2, 2));
    }
    // In a fork of what was done, it stays taken back.
    let journal = house.journal(&own).await;
    let done = journal.iter().find(|it| it["type"] == "tool.completed");
    let behind = json!({"at_seq": done.unwrap()["seq"].as_u64().unwrap() + 1});
    made(&house, &own, "fork", behind).await;
    assert_eq!(asked(), (2, 2));
    let dead = house.get_as(OPERATOR, "/v1/agents/dlq").await;
    let letters = dead["data"].as_array().unwrap();
    assert!(letters.iter().all(|letter| letter["kind"] != "compensation"), "{dead:#}");
    // Whoever wants it all once more says so.
    let effects = json!({"mode": "live", "overrides": {"effects": true}});
    made(&house, &taking, "replay", effects).await;
    assert_eq!(asked(), (2, 3));
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
    let house = House::new(&sections, move |_| {
        if is_broken.load(Ordering::Relaxed) {
            Script::json(500, r#"{"message":"on fire"}"#)
        } else {
            Script::json(200, r#"{"sent":true}"#)
        }
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
    // Operators see how many there are.
    let deadline = Instant::now() + PATIENCE;
    let depth = ("switchpoint_agent_dlq_depth", ["kind=\"tool\""]);
    while house.gateway.metric(depth.0, &depth.1).await < 2.0 {
        assert!(Instant::now() < deadline, "it is never shown");
        tokio::task::yield_now().await;
    }
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
async fn a_call_is_a_letter_when_its_server_never_has_time_or_is_given_up_between_attempts() {
    let sections = format!(
        "{}{}{}",
        tool("busy", "idempotent", QUICK),
        tool("ill", "idempotent", &format!("{QUICK}\nbreaker = {{ failures = 2 }}")),
        agent("a", &["busy", "ill"], ""),
    );
    let house = House::new(&sections, |request| {
        Script::json(if request.path.ends_with("/busy") { 429 } else { 500 }, "{}")
    })
    .await;
    // The last one is not even tried.
    let calls = json!([["busy", {}], ["ill", {"id": "1"}], ["ill", {"id": "2"}]]);
    let run = house.run("a", &calls).await;
    assert_eq!(run["state"], "completed", "{run}");
    assert_eq!((house.asked("/busy").len(), house.asked("/ill").len()), (3, 2));
    let letters = house.get("/v1/agents/dlq").await["data"].as_array().unwrap().clone();
    let told = |it: &Value| {
        format!("{} {} {}", it["payload"]["tool"], it["payload"]["args"], it["attempts"])
    };
    let mut told: Vec<String> = letters.iter().map(told).collect();
    told.sort_unstable();
    assert_eq!(told, [r#""busy" {} 3"#, r#""ill" {"id":"1"} 2"#]);
}

#[tokio::test]
async fn a_token_that_was_refused_is_fetched_once_more_and_then_the_model_is_told() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (fetched, used) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
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
        // The first one runs out before its time.
        let is_first = request.header("authorization").is_some_and(|it| it.ends_with("token-1"));
        let is_old = is_first && used.fetch_add(1, Ordering::Relaxed) > 0;
        if is_old || request.path.ends_with("/shut") {
            Script::json(401, "{}")
        } else {
            Script::json(200, r#"{"ok":true}"#)
        }
    })
    .await;
    house.run("a", &json!([["crm", {"id": "1"}], ["crm", {"id": "2"}]])).await;
    assert_eq!((house.asked("/crm").len(), fetched.load(Ordering::Relaxed)), (3, 2));
    assert_eq!(house.shown(), [r#"{"ok":true}"#, r#"{"ok":true}"#]);
    let run = house.run("a", &json!([["shut", {}]])).await;
    assert!(house.asked("/shut").len() <= 2, "one refresh, one retry");
    assert!(house.shown()[0].contains("auth_failed"), "{:?}", house.shown());
    assert_eq!(run["result"]["degraded_tools"], json!(["shut"]), "{run}");
}

/// A server of tools by MCP over HTTP, as a scripted one: its session is `session`, and any other
/// is unknown to it.
pub(super) fn speaks_mcp(request: &Request, session: &str) -> Script {
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

#[tokio::test]
async fn a_letter_about_what_could_not_be_taken_back_says_how_often_that_was_tried() {
    let sections = format!(
        "{}{}{}",
        tool("book", "once", "[tools.book.undo]\ntool = \"unbook\"\nargs = { id = \"$.id\" }\n"),
        tool("unbook", "idempotent", QUICK),
        agent("a", &["book"], "on_failure = \"compensate\""),
    );
    let house = House::new(&sections, |request| {
        let status = if request.path.contains("/unbook") { 503 } else { 200 };
        Script::json(status, r#"{"id": "b1"}"#)
    })
    .await;
    house.run("a", &json!([["book", {}], "break"])).await;
    let dead = house.get("/v1/agents/dlq").await["data"].take();
    assert_eq!(
        (house.asked("/unbook").len(), dead[0]["attempts"].as_u64()),
        (3, Some(3)),
        "{dead}"
    );
}

#[tokio::test]
async fn a_letter_is_no_way_around_an_approval_that_its_tool_has_by_now() {
    let sections = |approval: &str| {
        let send = tool("send", "idempotent", &format!("retry = {{ attempts = 1 }}\n{approval}"));
        send + &agent("a", &["send"], "")
    };
    let house = House::new(&sections(""), |_| Script::json(500, "{}")).await;
    house.run("a", &json!([["send", {}]])).await;
    let letter = house.get("/v1/agents/dlq").await["data"][0].take();
    let path = format!("/v1/agents/dlq/{}/retry", letter["id"].as_str().unwrap());
    assert_eq!(house.send(KEY, &path, &json!({})).await.status, 200);
    assert_eq!(house.asked("/send").len(), 2);
    let now = provider("up", &house.model)
        + &route("fast", &["up/m"], "")
        + &sections("approval = {}").replace("TOOLS", &house.tools.base());
    assert_eq!(house.gateway.reload(&now).await.status, 200);
    let refused = house.send(KEY, &path, &json!({})).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("approval_required"), "{}", refused.text());
    assert_eq!(house.asked("/send").len(), 2);
    assert_eq!(house.get("/v1/agents/dlq").await["data"][0]["state"], "open");
}

#[tokio::test]
async fn a_letter_is_no_way_around_what_its_key_may_use_or_how_often() {
    let sections = |tools: &str| {
        let bob = format!("[keys.bob]\nsecret = \"{BOB}\"\ntools = [\"{tools}\"]\n");
        let more = "retry = { attempts = 1 }\nlimits = { user = \"2/h\" }";
        bob + &tool("send", "idempotent", more) + &agent("a", &["send"], "")
    };
    let house = House::new(&sections("send"), |_| Script::json(500, "{}")).await;
    let body = json!({"input": json!([["send", {}]]).to_string()});
    let begun = house.send(BOB, "/v1/agents/a/runs", &body).await;
    assert!(matches!(begun.status, 200 | 202), "{}", begun.text());
    let letters = async || house.get_as(BOB, "/v1/agents/dlq").await["data"].take();
    let deadline = Instant::now() + PATIENCE;
    while letters().await.as_array().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "there is no letter");
    }
    let path = format!("/v1/agents/dlq/{}/retry", letters().await[0]["id"].as_str().unwrap());
    let now = provider("up", &house.model)
        + &route("fast", &["up/m"], "")
        + &format!("[keys.operator]\nsecret = \"{OPERATOR}\"\nrole = \"operator\"\n")
        + &sections("look").replace("TOOLS", &house.tools.base());
    assert_eq!(house.gateway.reload(&now).await.status, 200);
    let refused = house.send(BOB, &path, &json!({})).await;
    assert_eq!((refused.status, house.asked("/send").len()), (403, 1), "{}", refused.text());
    assert!(refused.text().contains("not_allowed"), "{}", refused.text());
    assert_eq!(letters().await[0]["state"], "open");
    // Who operates may, within the limits of whoever had it made.
    for outcome in ["status", "rate_limited"] {
        let tried = house.send(OPERATOR, &path, &json!({})).await.json();
        assert_eq!(tried["outcome"]["outcome"], outcome, "{tried}");
    }
    assert_eq!(house.asked("/send").len(), 2);
}

#[tokio::test]
async fn what_a_replay_is_not_to_be_told_is_refused_by_its_name() {
    let house = House::new(&agent("a", &[], ""), |_| Script::json(500, "{}")).await;
    let run = house.run("a", &json!([])).await;
    let path = format!("/v1/agents/runs/{}/replay", run["id"].as_str().unwrap());
    for (overrides, told) in [
        (json!({"efects": true}), "`overrides.efects`"),
        (json!({"effects": true, "model": "up/n"}), "`overrides.model`"),
        (json!({"effects": "yes"}), "`overrides.effects`"),
        (json!(true), "`overrides`"),
    ] {
        let body = json!({"mode": "live", "overrides": overrides});
        let refused = house.send(KEY, &path, &body).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(told), "{}", refused.text());
    }
}

#[tokio::test]
async fn two_calls_of_a_model_by_one_id_are_both_made_and_told_by_ids_of_their_own() {
    let sections =
        tool("look", "read", "").replace("TOOLS", "{tools}") + &agent("a", &["look"], "");
    let mind = |request: &Request| match results(request) {
        0 => Script::stream(calls(&[
            ("same", "look", r#"{"id": "1"}"#),
            ("same", "look", r#"{"id": "2"}"#),
        ])),
        _ => says(request, "Done."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let path = stage.begin("a", "Look twice.").await;
    stage.in_state(&path, "completed").await;
    let mut asked: Vec<String> = stage.tools.requests().into_iter().map(|it| it.path).collect();
    asked.sort();
    assert_eq!(asked, ["/v1/look?id=1", "/v1/look?id=2"]);
    let told: Value = serde_json::from_slice(&stage.model.requests()[1].body).unwrap();
    let messages = told["messages"].as_array().unwrap();
    let of = |message: &Value| message["tool_call_id"].as_str().map(str::to_owned);
    let told: Vec<String> = messages.iter().filter_map(of).collect();
    let wanted = messages.iter().find_map(|it| it["tool_calls"].as_array()).unwrap();
    let wanted: Vec<&str> = wanted.iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(told == wanted && told[0] == "same" && told[1] != "same", "{told:?} {wanted:?}");
}
