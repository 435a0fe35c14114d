//! Limits, cache, breaker, attempts, and what is made of results.

use serde_json::json;

use super::server::{Say, Server};
use super::*;
use crate::tool::{FailureKind, Health, Sent};

fn lookup(server: &Server, more: &str) -> String {
    format!(
        r#"
        [tools.lookup]
        kind = "http"
        effect = "read"
        method = "GET"
        url = "{}/orders/{{id}}?full={{full}}"
        retry = {{ attempts = 3, base = "1ms", max = "5ms" }}
        {more}
        [tools.lookup.input]
        type = "object"
        required = ["id"]
        properties = {{ id = {{ type = "string" }}, full = {{ type = "boolean" }}, more = {{}} }}
        "#,
        server.url
    )
}

fn refund(server: &Server, effect: &str) -> String {
    format!(
        r#"
        [tools.refund]
        kind = "http"
        effect = "{effect}"
        method = "POST"
        url = "{}/refunds"
        timeout = "300ms"
        retry = {{ attempts = 3, base = "1ms", max = "5ms" }}
        input = {{ type = "object", properties = {{ order = {{ type = "string" }}, cents = {{ type = "integer" }} }} }}
        "#,
        server.url
    )
}

#[tokio::test]
async fn arguments_stand_where_they_belong_and_cannot_leave_it() {
    let server = Server::start(|_, _| Say::json(200, r#"{"ok":true}"#)).await;
    let tools = toolbox(&lookup(&server, ""));
    let args = json!({"id": "a b?c#d%2e", "full": true, "more": ["x&y", 2]});
    let output = call(&tools, "lookup", args).await.unwrap();
    assert_eq!(output.value, Some(json!({"ok": true})));
    let asked = &server.asked()[0];
    assert_eq!(asked.target, "/orders/a%20b%3Fc%23d%252e?full=true&more=x%26y&more=2");
    for id in ["..", ".", "", "a/../b", "a/b", "a\\b", "a\nb"] {
        let refused = call(&tools, "lookup", json!({"id": id})).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::Invalid, "{id:?}");
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn arguments_that_break_the_schema_are_not_sent() {
    let server = Server::start(|_, _| Say::json(200, "{}")).await;
    let tools = toolbox(&lookup(&server, ""));
    for args in
        [json!({}), json!({"id": 7}), json!({"id": "1", "drop": "all"}), json!([]), json!("1")]
    {
        let failure = call(&tools, "lookup", args.clone()).await.unwrap_err();
        assert_eq!((failure.kind, failure.sent), (FailureKind::Invalid, Sent::Never), "{args}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_body_is_the_remaining_arguments_or_what_its_template_says() {
    let server = Server::start(|_, _| Say::json(200, "{}")).await;
    let tools = toolbox(&format!(
        r#"
        [tools.plain]
        kind = "http"
        effect = "idempotent"
        method = "PUT"
        url = "{0}/things/{{id}}"
        input = {{ type = "object" , properties = {{ id = {{}}, a = {{}}, b = {{}} }} }}
        [tools.shaped]
        kind = "http"
        effect = "once"
        method = "POST"
        url = "{0}/things"
        query = {{ kind = "thing", tag = "{{tags}}" }}
        body = {{ name = "{{name}}", note = "for {{name}}", size = "{{size}}", fixed = [1, "{{gone}}"] }}
        [tools.shaped.input]
        type = "object"
        properties = {{ name = {{}}, size = {{}}, tags = {{}}, gone = {{}} }}
        "#,
        server.url
    ));
    call(&tools, "plain", json!({"id": 7, "a": [1], "b": {"c": null}})).await.unwrap();
    call(&tools, "shaped", json!({"name": "x", "size": 3, "tags": ["p", "q"]})).await.unwrap();
    let asked = server.asked();
    assert_eq!(
        (asked[0].target.as_str(), asked[0].body.as_str()),
        ("/things/7", r#"{"a":[1],"b":{"c":null}}"#)
    );
    assert_eq!(asked[1].target, "/things?kind=thing&tag=p&tag=q");
    let body: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(body, json!({"name": "x", "note": "for x", "size": 3, "fixed": [1]}));
}

#[tokio::test]
async fn what_may_be_repeated_is_until_it_works() {
    let server = Server::start(|number, _| match number {
        1 | 2 => Say::json(503, "{}"),
        _ => Say::json(200, r#"{"n":1}"#),
    })
    .await;
    let tools = toolbox(&lookup(&server, ""));
    let output = call(&tools, "lookup", json!({"id": "1"})).await.unwrap();
    assert_eq!((output.attempts, server.count()), (3, 3));
}

#[tokio::test]
async fn what_must_not_happen_twice_is_sent_once_unless_it_was_refused() {
    for (effect, say, expected) in [
        ("once", Say::json(500, "{}"), 1),
        ("once", Say::Close, 1),
        ("once", Say::Hang, 1),
        ("once", Say::json(429, "{}"), 3),
        ("once", Say::json(409, "{}"), 1),
        ("idempotent", Say::json(500, "{}"), 3),
        ("idempotent", Say::Close, 3),
    ] {
        let says = say.clone();
        let server = Server::start(move |_, _| says.clone()).await;
        let tools = toolbox(&refund(&server, effect));
        let failure = call(&tools, "refund", json!({"order": "1", "cents": 5})).await.unwrap_err();
        let sent = match &say {
            Say::Answer(409 | 429, ..) => Sent::Refused,
            _ => Sent::Maybe,
        };
        assert_eq!((server.count(), failure.sent), (expected, sent), "{effect} {say:?}");
        let keys: Vec<bool> =
            server.asked().iter().map(|it| it.head.contains("idempotency-key: key-1")).collect();
        assert_eq!(keys, vec![true; expected]);
    }
}

#[tokio::test]
async fn what_must_not_happen_twice_never_goes_over_a_used_connection() {
    // The server closes a connection after it has taken the second request on it.
    let server = Server::start(|number, _| match number {
        1 => Say::json(200, "{}"),
        _ => Say::Close,
    })
    .await;
    let text = format!("{}{}", lookup(&server, ""), refund(&server, "once"));
    let tools = toolbox(&text);
    call(&tools, "lookup", json!({"id": "1"})).await.unwrap();
    let failure = call(&tools, "refund", json!({"order": "1"})).await.unwrap_err();
    assert_eq!((server.count(), failure.sent, failure.attempts), (2, Sent::Maybe, 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_was_certainly_not_asked() {
    let server =
        Server { url: "http://127.0.0.1:9".to_owned(), ..Server::start(|_, _| Say::Close).await };
    let tools = toolbox(&refund(&server, "once"));
    let failure = call(&tools, "refund", json!({})).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.sent, failure.attempts),
        (FailureKind::Unreachable, Sent::Never, 3)
    );
    assert!(!failure.message.contains("127.0.0.1"), "{}", failure.message);
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept_or_told() {
    let say = || Say::Answer(429, "retry-after: 3600\r\n", String::new());
    let server = Server::start(move |_, _| say()).await;
    let tools = toolbox(&lookup(&server, ""));
    let failure = call(&tools, "lookup", json!({"id": "1"})).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::RateLimited);
    assert_eq!(failure.retry_after, Some(Duration::from_hours(1)));
    assert_eq!(server.count(), 1, "nobody waits an hour");
}

#[tokio::test]
async fn a_pause_beyond_all_measure_is_taken_for_a_long_one() {
    for status in [429, 503] {
        let endless = "retry-after: 18446744073709551615\r\n";
        let server = Server::start(move |_, _| Say::Answer(status, endless, String::new())).await;
        let tools = toolbox(&lookup(&server, ""));
        let failure = call(&tools, "lookup", json!({"id": "1"})).await.unwrap_err();
        assert_eq!(failure.retry_after, Some(Duration::from_hours(24)));
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn who_fails_in_a_row_is_left_alone() {
    let server = Server::start(|_, _| Say::json(500, "{}")).await;
    let more = r#"breaker = { failures = 5, cooldown = "60s" }"#;
    let tools = toolbox(&lookup(&server, more));
    for _ in 0..4 {
        call(&tools, "lookup", json!({"id": "1"})).await.unwrap_err();
    }
    assert_eq!(server.count(), 5);
    let failure = call(&tools, "lookup", json!({"id": "1"})).await.unwrap_err();
    assert_eq!((failure.kind, failure.attempts), (FailureKind::Unavailable, 0));
    assert!(failure.retry_after.is_some());
    assert!(matches!(tools.get("lookup").unwrap().health(), Health::Down { .. }));
    // A new config with the same address knows it too.
    let tools = rebuilt(&lookup(&server, &format!("{more}\ndescription = \"New.\"")), &tools);
    assert!(matches!(tools.get("lookup").unwrap().health(), Health::Down { .. }));
}

#[tokio::test]
async fn results_are_remembered_for_their_user_and_failures_are_not() {
    let server = Server::start(|number, _| match number {
        1 => Say::json(200, r#"{"error":"down"}"#),
        number => Say::json(200, format!(r#"{{"n":{number}}}"#)),
    })
    .await;
    let more = "cache = { ttl = \"60s\" }\nerror_when = \"$.error\"";
    let tools = toolbox(&lookup(&server, more));
    let tool = tools.get("lookup").unwrap();
    let soft = tool.call(&invocation(json!({"id": "1"}))).await.unwrap_err();
    assert_eq!((soft.kind, soft.message.as_str()), (FailureKind::Soft, "down"));
    let first = tool.call(&invocation(json!({"id": "1", "full": true}))).await.unwrap();
    let again = tool.call(&invocation(json!({"full": true, "id": "1"}))).await.unwrap();
    assert_eq!((first.cached, again.cached, again.attempts), (false, true, 0));
    assert_eq!((server.count(), &again.value), (2, &first.value));
    let bob =
        Invocation { user: Some(Arc::from("bob")), ..invocation(json!({"id": "1", "full": true})) };
    assert!(!tool.call(&bob).await.unwrap().cached);
    let nobody = Invocation { user: None, ..bob };
    assert!(!tool.call(&nobody).await.unwrap().cached);
    assert_eq!(server.count(), 4);
}

#[tokio::test]
async fn no_more_is_called_than_the_limits_allow() {
    let server = Server::start(|_, _| Say::json(200, "{}")).await;
    let tools = toolbox(&lookup(&server, r#"limits = { tool = "3/m", user = "2/m" }"#));
    let tool = tools.get("lookup").unwrap();
    let of =
        |user: &str| Invocation { user: Some(Arc::from(user)), ..invocation(json!({"id": "1"})) };
    assert!(tool.call(&of("ann")).await.is_ok() && tool.call(&of("ann")).await.is_ok());
    let failure = tool.call(&of("ann")).await.unwrap_err();
    assert_eq!((failure.kind, failure.sent), (FailureKind::RateLimited, Sent::Never));
    assert!(failure.retry_after.unwrap() > Duration::from_secs(50));
    assert!(tool.call(&of("bob")).await.is_ok());
    assert_eq!(tool.call(&of("bob")).await.unwrap_err().kind, FailureKind::RateLimited);
    assert_eq!(server.count(), 3);
    // A reload gives nobody a second helping.
    let text =
        lookup(&server, "description = \"New.\"\nlimits = { tool = \"3/m\", user = \"2/m\" }");
    let tools = rebuilt(&text, &tools);
    assert!(call(&tools, "lookup", json!({"id": "1"})).await.is_err());
}

#[tokio::test]
async fn results_are_cleaned_and_capped_and_checked() {
    let server = Server::start(|_, asked| match asked.target.split(['?', '/']).nth(2).unwrap() {
        "dirty" => Say::json(200, r#"{"a":"\u001b[31mred\u200b","b":"\ud800x"}"#),
        "large" => Say::Answer(200, "content-type: text/plain\r\n", "x".repeat(5_000_000)),
        "broken" => Say::json(200, "{\"a\":"),
        "image" => Say::Answer(200, "content-type: image/png\r\n", "PNG".to_owned()),
        "pdf" => Say::Answer(200, "content-type: application/pdf\r\n", "PDF".to_owned()),
        _ => Say::json(200, r#"{"a":1}"#),
    })
    .await;
    let more = "max_result = \"1MiB\"\n[tools.lookup.output]\ntype = \"object\"\nproperties = { a = { type = \"string\" } }";
    let tools = toolbox(&lookup(&server, "max_result = \"1MiB\""));
    let get = |id: &'static str| call(&tools, "lookup", json!({"id": id}));
    let dirty = get("dirty").await.unwrap();
    assert_eq!(dirty.value, Some(json!({"a": "red", "b": "\u{fffd}x"})));
    assert_eq!(dirty.parts[0].as_text(), Some("{\"a\":\"red\",\"b\":\"\u{fffd}x\"}"));
    let large = get("large").await.unwrap();
    assert!(large.truncated && large.raw.len() == 1 << 20);
    assert_eq!(get("broken").await.unwrap_err().kind, FailureKind::BadOutput);
    assert_eq!(get("image").await.unwrap().parts[0].as_text(), None);
    assert_eq!(get("pdf").await.unwrap().parts[0].as_text(), Some("[application/pdf, 3 bytes]"));
    let checked = toolbox(&lookup(&server, more));
    let failure = call(&checked, "lookup", json!({"id": "number"})).await.unwrap_err();
    assert_eq!((failure.kind, failure.sent), (FailureKind::BadOutput, Sent::Maybe));
    assert!(failure.message.contains("/a"), "{}", failure.message);
}

#[tokio::test]
async fn what_can_be_read_is_shown_whatever_it_is_called() {
    let server = Server::start(|_, asked| {
        let (kind, said) = match asked.target.split(['?', '/']).nth(2).unwrap() {
            "lines" => ("content-type: application/x-ndjson\r\n", "{\"a\":1}\n{\"a\":2}\n"),
            "toml" => ("content-type: application/toml\r\n", "a = 1"),
            "atom" => ("content-type: application/atom+xml\r\n", "<feed/>"),
            "query" => ("content-type: application/sql\r\n", "SELECT 1"),
            "bytes" => ("content-type: application/octet-stream\r\n", "naïve\n"),
            "odd" => ("content-type: application/octet-stream\r\n", "PK\u{3}\u{4}"),
            _ => ("content-type: application/vnd.openxmlformats-officedocument.wordprocessingml.document\r\n", "PK"),
        };
        Say::Answer(200, kind, said.to_owned())
    })
    .await;
    let tools = toolbox(&lookup(&server, ""));
    for (id, told) in [
        ("lines", "{\"a\":1}\n{\"a\":2}\n"),
        ("toml", "a = 1"),
        ("atom", "<feed/>"),
        ("query", "SELECT 1"),
        ("bytes", "naïve\n"),
        ("odd", "[application/octet-stream, 4 bytes]"),
    ] {
        let output = call(&tools, "lookup", json!({"id": id})).await.unwrap();
        assert_eq!(output.parts[0].as_text(), Some(told), "{id}");
    }
    let output = call(&tools, "lookup", json!({"id": "word"})).await.unwrap();
    assert!(output.parts[0].as_text().unwrap().ends_with("2 bytes]"));
}

#[tokio::test]
async fn the_gateways_own_tools_are_called_by_the_same_door() {
    let tools = toolbox(
        "[tools.calc]\nkind = \"builtin\"\nname = \"calculator\"\n[tools.ask]\nkind = \"builtin\"\nname = \"ask_user\"\n",
    );
    let output = call(&tools, "calc", json!({"expression": "0.1 + 0.2"})).await.unwrap();
    assert_eq!(output.value, Some(json!({"result": "0.3"})));
    let failure = call(&tools, "calc", json!({"expression": "1 / 0"})).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Soft);
    let question = invocation(json!({"question": "Which order?"}));
    let ask = tools.get("ask").unwrap();
    let asked = ask.call(&question).await.unwrap_err();
    assert!(matches!(asked.kind, FailureKind::NeedsInput { .. }));
    let answered = Invocation { answer: Some(json!({"answer": "ORD-1"})), ..question };
    assert_eq!(ask.call(&answered).await.unwrap().value, Some(json!({"answer": "ORD-1"})));
    assert_eq!(tools.named(&["c*".to_owned()]).len(), 1);
    assert_eq!(tools.all().len(), 2);
}
