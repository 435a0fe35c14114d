//! A response can be asked for again as it was given, until it is taken back.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    OTHER_KEY, RESPONSES, TARGETS, answers, asks, claude_events, create, created, event, events_of,
    fetch, house, lasting, path, response, sections,
};
use crate::support::client::{open, request};
use crate::support::gateway::KEY;
use crate::support::{Gateway, Script, Upstream};

#[tokio::test]
async fn what_was_answered_is_fetched_as_it_was_given() {
    let (_upstream, gateway) = house().await;
    for target in TARGETS {
        for stream in [false, true] {
            let body = json!({"model": target, "input": "Hi", "stream": stream});
            let given = created(&gateway, body).await;
            let kept = fetch(&gateway, &given["id"]).await;
            assert_eq!((kept.status, kept.json()), (200, given), "{target}, stream: {stream}");
        }
    }
}

#[tokio::test]
async fn a_streamed_response_is_there_before_its_last_event() {
    let (_upstream, gateway) = house().await;
    for target in TARGETS {
        let body = json!({"model": target, "input": "Hi", "stream": true}).to_string();
        let request = request(Method::POST, RESPONSES, KEY, body.into());
        let mut stream = open(gateway.address, request).await;
        let seen = stream.read_until("event: response.completed").await;
        let (_, rest) = seen.split_once("\"id\":\"resp_").unwrap();
        let id = json!(format!("resp_{}", rest.split_once('"').unwrap().0));
        // The connection still stands in the middle of its answer.
        let kept = fetch(&gateway, &id).await;
        assert_eq!((kept.status, &kept.json()["id"]), (200, &id), "{target}");
        assert_eq!(kept.json()["status"], "completed");
    }
}

#[tokio::test]
async fn a_stream_without_the_line_that_ends_its_last_event_is_kept_like_any_other() {
    for (model, events) in [
        ("oai/verbatim", events_of(&response("1", "Hello there."))),
        ("claude/claude", claude_events("Hello there.")),
    ] {
        for end in ["", "\n"] {
            let whole = events.concat();
            let stream = Script::stream([format!("{}{end}", whole.trim_end())]);
            let name = format!("{}?stream", model.split_once('/').unwrap().1);
            let upstream = Upstream::start([(&*name, [stream])]).await;
            let gateway = Gateway::start("", &sections(&upstream)).await;
            let body = json!({"model": model, "input": "Hi", "stream": true});
            let given = created(&gateway, body).await;
            let kept = fetch(&gateway, &given["id"]).await;
            assert_eq!((kept.status, kept.json()), (200, given), "{model}, {end:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_to_be_stored_is_not() {
    let (_upstream, gateway) = house().await;
    for target in TARGETS {
        for stream in [false, true] {
            let body = json!({"model": target, "input": "Hi", "stream": stream, "store": false});
            let given = created(&gateway, body).await;
            assert_eq!(fetch(&gateway, &given["id"]).await.status, 404, "{target}");
        }
    }
}

#[tokio::test]
async fn another_key_learns_nothing_on_any_road() {
    let (upstream, gateway) = house().await;
    let given = created(&gateway, json!({"model": TARGETS[0], "input": "Hi"})).await;
    let id = given["id"].as_str().unwrap();
    let verbs = [
        (Method::GET, ""),
        (Method::GET, "?stream=true"),
        (Method::DELETE, ""),
        (Method::POST, "/cancel"),
        (Method::GET, "/input_items"),
    ];
    for (method, end) in verbs {
        let ask = |id: &str| format!("{RESPONSES}/{id}{end}");
        let theirs = asks(&gateway, method.clone(), &ask(id), OTHER_KEY).await;
        let unknown = asks(&gateway, method.clone(), &ask("resp_none"), OTHER_KEY).await;
        assert_eq!((theirs.status, unknown.status), (404, 404), "{method} {end}");
        assert_eq!(theirs.text().replace(id, "resp_none"), unknown.text());
        assert_eq!(
            theirs.headers.get("x-switchpoint-error"),
            unknown.headers.get("x-switchpoint-error")
        );
    }
    for door in ["", "/compact", "/input_tokens"] {
        let body = |id: &str| {
            json!({"model": TARGETS[0], "input": "Hi", "previous_response_id": id}).to_string()
        };
        let path = format!("{RESPONSES}{door}");
        let send = |id: &str| request(Method::POST, &path, OTHER_KEY, body(id).into());
        let theirs = open(gateway.address, send(id)).await.whole().await;
        let unknown = open(gateway.address, send("resp_none")).await.whole().await;
        assert_eq!((theirs.status, unknown.status), (400, 400), "{door}");
        assert_eq!(theirs.text().replace(id, "resp_none"), unknown.text());
    }
    assert_eq!(upstream.requests().len(), 1);
    // No key at all learns as little, and the owner still has it.
    assert_eq!(asks(&gateway, Method::GET, &path(&given["id"]), "").await.status, 401);
    assert_eq!(fetch(&gateway, &given["id"]).await.json(), given);
}

#[tokio::test]
async fn what_is_deleted_is_gone_for_good() {
    let upstream = Upstream::start(answers()).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let gateway = Gateway::start("", &sections).await;
    let mut ids = Vec::new();
    for target in TARGETS {
        let id = created(&gateway, json!({"model": target, "input": "Hi"})).await["id"].clone();
        let deleted = asks(&gateway, Method::DELETE, &path(&id), KEY).await;
        assert_eq!(deleted.json(), json!({"id": id, "object": "response", "deleted": true}));
        assert_eq!(fetch(&gateway, &id).await.status, 404);
        assert_eq!(asks(&gateway, Method::DELETE, &path(&id), KEY).await.status, 404);
        let next = json!({"model": target, "input": "Hi", "previous_response_id": id});
        let refused = create(&gateway, &next).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], "previous_response_id");
        assert_eq!(refused.json()["error"]["upstream_code"], "previous_response_not_found");
        ids.push(id);
    }
    gateway.stop();
    let gateway = Gateway::start("", &sections).await;
    for id in ids {
        assert_eq!(fetch(&gateway, &id).await.status, 404);
    }
}

#[tokio::test]
async fn what_is_kept_outlives_a_restart() {
    let upstream = Upstream::start(answers()).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let gateway = Gateway::start("", &sections).await;
    let mut given = Vec::new();
    for target in TARGETS {
        given.push(created(&gateway, json!({"model": target, "input": "Hi"})).await);
    }
    gateway.stop();
    let gateway = Gateway::start("", &sections).await;
    for (target, given) in TARGETS.into_iter().zip(given) {
        assert_eq!(fetch(&gateway, &given["id"]).await.json(), given);
        let next = json!({"model": target, "input": "And?", "previous_response_id": given["id"]});
        created(&gateway, next).await;
        let asked = upstream.requests().pop().unwrap();
        super::assert_order(asked.text(), &["Hi", "Hello there.", "And?"]);
    }
}

#[tokio::test]
async fn what_a_store_that_is_out_keeps_is_asked_for_later_and_not_unknown() {
    let upstream = Upstream::start(answers()).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let gateway = Gateway::start("", &sections).await;
    let model = TARGETS[1];
    let first = created(&gateway, json!({"model": model, "input": "Hi"})).await["id"].clone();
    gateway.stop();
    let gateway = Gateway::start("", &sections).await;
    // This one is in memory, too.
    let next = json!({"model": model, "input": "And?", "previous_response_id": first});
    let second = created(&gateway, next.clone()).await["id"].clone();
    let database = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    database.execute_batch("ALTER TABLE objects RENAME TO elsewhere").unwrap();
    let items = |id: &Value| format!("{}/input_items", path(id));
    for (method, at) in [
        (Method::GET, path(&first)),
        (Method::GET, format!("{}?stream=true", path(&second))),
        (Method::POST, format!("{}/cancel", path(&first))),
        (Method::DELETE, path(&first)),
        (Method::GET, items(&first)),
        (Method::GET, items(&second)),
    ] {
        let told = asks(&gateway, method.clone(), &at, KEY).await;
        let code = told.json()["error"]["code"].clone();
        assert_eq!((told.status, code), (503, json!("overloaded")), "{method} {at}");
        assert_eq!(told.header("retry-after"), Some("1"), "{method} {at}");
    }
    let referred = json!([{"type": "item_reference", "id": "msg_elsewhere"}]);
    for body in [next.clone(), json!({"model": model, "input": referred})] {
        let told = create(&gateway, &body).await;
        assert_eq!((told.status, told.header("retry-after")), (503, Some("1")), "{}", told.text());
    }
    database.execute_batch("ALTER TABLE elsewhere RENAME TO objects").unwrap();
    assert_eq!(fetch(&gateway, &first).await.status, 200);
    created(&gateway, next).await;
}

#[tokio::test]
async fn the_items_of_a_question_are_listed_page_by_page() {
    let (_upstream, gateway) = house().await;
    let said = |text: &str| json!({"role": "user", "content": text});
    let input = json!([said("a"), said("b"), said("c")]);
    let first = created(&gateway, json!({"model": TARGETS[1], "input": input})).await;
    let list = async |query: &str| {
        let path = format!("{}/input_items?{query}", path(&first["id"]));
        asks(&gateway, Method::GET, &path, KEY).await.json()
    };
    let texts = |page: &serde_json::Value| {
        let items = page["data"].as_array().unwrap().iter();
        items.map(|item| item["content"].as_str().unwrap().to_owned()).collect::<String>()
    };
    for (order, begin, end) in
        [("order=asc", "ab", "c"), ("order=desc", "cb", "a"), ("", "cb", "a")]
    {
        let page = list(&format!("{order}&limit=2")).await;
        assert_eq!(
            (page["object"].as_str(), page["has_more"].as_bool()),
            (Some("list"), Some(true))
        );
        assert_eq!(texts(&page), begin);
        let after = page["last_id"].as_str().unwrap();
        let rest = list(&format!("{order}&after={after}")).await;
        assert_eq!((texts(&rest).as_str(), rest["has_more"].as_bool()), (end, Some(false)));
        assert_eq!(rest["first_id"], rest["last_id"]);
    }
    // What came before belongs to the question, for as long as it is kept.
    let next = json!({"model": TARGETS[1], "input": "d", "previous_response_id": first["id"]});
    let second = created(&gateway, next).await;
    let items = format!("{}/input_items?order=asc", path(&second["id"]));
    let before = asks(&gateway, Method::GET, &items, KEY).await.json();
    assert_eq!(before["data"].as_array().unwrap().len(), 5);
    asks(&gateway, Method::DELETE, &path(&first["id"]), KEY).await;
    let alone = asks(&gateway, Method::GET, &items, KEY).await.json();
    assert_eq!(alone["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_fails_is_kept_like_a_whole_one() {
    let mut failed = response("1", "");
    failed["status"] = json!("failed");
    failed["error"] = json!({"code": "server_error", "message": "It broke."});
    failed["output"] = json!([]);
    let mut begun = failed.clone();
    begun["status"] = json!("in_progress");
    let item = json!({"type": "message", "id": "msg_1", "role": "assistant", "content": []});
    let events = [
        event("response.created", json!({"response": begun})),
        event("response.output_item.added", json!({"output_index": 0, "item": item})),
        event(
            "response.output_text.delta",
            json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "Hel"}),
        ),
        event("response.failed", json!({"response": failed})),
    ];
    let chat = [
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n",
        "data: {\"error\":{\"message\":\"It broke.\"}}\n\n",
    ];
    // While nothing of the answer has come, another target could still give it.
    let halting = |events: &[&str]| {
        let (last, first) = events.split_last().unwrap();
        let first = Script::stream_head().chunks(first);
        vec![first.wait(Duration::from_millis(200)).chunks([last]).end()]
    };
    let events = events.each_ref().map(String::as_str);
    let upstream =
        Upstream::start([("verbatim?stream", halting(&events)), ("chat?stream", halting(&chat))])
            .await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for target in &TARGETS[..2] {
        let body = json!({"model": target, "input": "Hi", "stream": true});
        let given = create(&gateway, &body).await;
        let data = given.text().lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let first: Value = serde_json::from_str(data).unwrap();
        let kept = fetch(&gateway, &first["response"]["id"]).await;
        assert_eq!((kept.status, &kept.json()["status"]), (200, &json!("failed")), "{kept:?}");
        assert!(kept.text().contains("It broke."), "{kept:?}");
    }
}
