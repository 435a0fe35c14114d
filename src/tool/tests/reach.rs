//! Whom tools can reach, and as whom.

use serde_json::json;

use super::server::{Say, Server};
use super::*;
use crate::tool::{FailureKind, Sent};

fn port(server: &Server) -> &str {
    server.url.rsplit(':').next().unwrap()
}

#[tokio::test]
async fn a_name_that_leads_into_this_network_is_not_fetched_from() {
    let server = Server::start(|_, _| Say::json(200, "{}")).await;
    let text = |more: &str| {
        format!(
            "[tools.fetch]\nkind = \"builtin\"\nname = \"fetch\"\nhosts = [\"localhost:{}\", \"127.0.0.1:{}\"]\n{more}",
            port(&server),
            port(&server)
        )
    };
    let tools = toolbox(&text(""));
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{}/", port(&server));
        let failure = call(&tools, "fetch", json!({"url": url})).await.unwrap_err();
        assert_eq!((failure.kind, failure.sent), (FailureKind::Refused, Sent::Never), "{host}");
    }
    assert_eq!(server.count(), 0);
    let tools = toolbox(&text("allow_private = true\n"));
    let url = format!("http://localhost:{}/", port(&server));
    assert!(call(&tools, "fetch", json!({"url": url})).await.is_ok());
}

#[tokio::test]
async fn a_tool_of_the_operators_may_be_inside_unless_they_say_otherwise() {
    let server = Server::start(|_, _| Say::json(200, "{}")).await;
    let text = |more: &str| {
        format!(
            "[tools.t]\nkind = \"http\"\neffect = \"read\"\nmethod = \"GET\"\nurl = \"{}/\"\n{more}",
            server.url
        )
    };
    assert!(call(&toolbox(&text("")), "t", json!({})).await.is_ok());
    let refused =
        call(&toolbox(&text("allow_private = false\n")), "t", json!({})).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    let metadata = text("").replace(&server.url, "http://169.254.169.254/latest");
    let refused = call(&toolbox(&metadata), "t", json!({})).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_only_to_hosts_on_the_list() {
    let server = Server::start(|_, asked| match asked.target.as_str() {
        "/moved" => Say::Answer(302, "location: /here\r\n", String::new()),
        "/evil" => Say::Answer(302, "location: http://evil.example/\r\n", String::new()),
        "/inside" => Say::Answer(302, "location: http://169.254.169.254/\r\n", String::new()),
        "/round" => Say::Answer(302, "location: /round\r\n", String::new()),
        _ => Say::json(200, r#"{"here":true}"#),
    })
    .await;
    let tools = toolbox(&format!(
        "[tools.fetch]\nkind = \"builtin\"\nname = \"fetch\"\nallow_private = true\nhosts = [\"127.0.0.1:{}\", \"169.254.169.254\"]\n\
         [tools.t]\nkind = \"http\"\neffect = \"read\"\nmethod = \"GET\"\nurl = \"{}/moved\"\n",
        port(&server),
        server.url
    ));
    let fetch = |path: &str| call(&tools, "fetch", json!({"url": format!("{}{path}", server.url)}));
    assert_eq!(fetch("/moved").await.unwrap().value, Some(json!({"here": true})));
    for bad in ["/evil", "/inside", "/round"] {
        assert_eq!(fetch(bad).await.unwrap_err().kind, FailureKind::Refused, "{bad}");
    }
    assert_eq!(call(&tools, "t", json!({})).await.unwrap_err().kind, FailureKind::Status(302));
}

#[tokio::test]
async fn a_token_that_is_said_to_live_for_ever_is_a_token() {
    let server = Server::start(|_, asked| match asked.target.as_str() {
        "/token" => {
            Say::json(200, json!({"access_token": "good-for-ever", "expires_in": u64::MAX}))
        }
        _ => Say::json(200, "{}"),
    })
    .await;
    let tools = toolbox(&format!(
        "[tools.t]\nkind = \"http\"\neffect = \"read\"\nmethod = \"GET\"\nurl = \"{0}/t\"\n\
         auth = {{ kind = \"oauth2_client\", token_url = \"{0}/token\", client_id = \"gw\", \
         client_secret = \"canary-secret\" }}\n",
        server.url
    ));
    for _ in 0..2 {
        call(&tools, "t", json!({})).await.unwrap();
    }
    assert_eq!(server.count(), 3, "it is fetched once");
}

#[tokio::test]
async fn a_token_is_fetched_kept_and_renewed_once_when_it_is_refused() {
    let server = Server::start(|number, asked| match asked.target.as_str() {
        "/token" => {
            Say::json(200, json!({"access_token": format!("token-{number}"), "expires_in": 3600}))
        }
        // The first token is good once.
        _ if asked.head.contains("bearer token-1\r\n") && number > 2 => Say::json(401, "{}"),
        _ if asked.head.contains("bearer token-") => Say::json(200, json!({"auth": asked.head})),
        _ => Say::json(401, "{}"),
    })
    .await;
    let tools = toolbox(&format!(
        r#"
        [tools.t]
        kind = "http"
        effect = "once"
        method = "POST"
        url = "{0}/refunds"
        auth = {{ kind = "oauth2_client", token_url = "{0}/token", client_id = "gw", client_secret = "canary-secret", scope = "refund:write" }}
        "#,
        server.url
    ));
    let first = call(&tools, "t", json!({})).await.unwrap();
    assert!(!String::from_utf8_lossy(&first.raw).contains("token-1"), "{first:?}");
    call(&tools, "t", json!({})).await.unwrap();
    call(&tools, "t", json!({})).await.unwrap();
    let asked = server.asked();
    let targets: Vec<&str> = asked.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(targets, ["/token", "/refunds", "/refunds", "/token", "/refunds", "/refunds"]);
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=refund%3Awrite");
    assert!(asked[0].head.contains("authorization: basic "));
}

#[tokio::test]
async fn a_credential_that_is_refused_for_good_is_told_and_never_shown() {
    let server = Server::start(|_, asked| Say::json(403, json!({"you sent": asked.head}))).await;
    let tools = toolbox(&format!(
        r#"
        [tools.t]
        kind = "http"
        effect = "read"
        method = "GET"
        url = "{}/"
        headers = {{ x-tenant = "canary-canary-canary" }}
        auth = {{ kind = "header", name = "X-Api-Key", value = "canary-key" }}
        "#,
        server.url
    ));
    let failure = call(&tools, "t", json!({})).await.unwrap_err();
    assert_eq!((failure.kind, failure.sent), (FailureKind::Auth, Sent::Refused));
    assert!(!failure.message.contains("canary"), "{}", failure.message);
    assert_eq!(server.count(), 1);
    let asked = &server.asked()[0].head;
    assert!(asked.contains("x-api-key: canary-key") && asked.contains("x-tenant: canary"));
}

#[tokio::test]
async fn what_a_server_shows_of_our_secrets_nobody_sees() {
    let server = Server::start(|_, asked| {
        // As PHP writes it.
        Say::json(200, json!({"head": asked.head}).to_string().replace('/', "\\/"))
    })
    .await;
    for auth in [
        r#"{ kind = "bearer", token = "canary-token" }"#,
        r#"{ kind = "bearer", token = "canary/canary/canary" }"#,
        r#"{ kind = "header", name = "x-key", value = "canary-value" }"#,
        r#"{ kind = "basic", user = "gw", password = "canary-password" }"#,
    ] {
        let tools = toolbox(&format!(
            "[tools.t]\nkind = \"http\"\neffect = \"read\"\nmethod = \"GET\"\nurl = \"{}/\"\nauth = {auth}\n",
            server.url
        ));
        let output = call(&tools, "t", json!({})).await.unwrap();
        assert!(!format!("{output:?}").contains("canary"), "{output:?}");
        assert!(!format!("{tools:?}").contains("canary"));
    }
}

/// Shows in the result of a call what it was asked with, in one message or as an event.
fn shows_itself(asked: &super::server::Asked) -> Say {
    let message: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let head = &asked.head;
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "mirror", "version": "1"},
        }),
        Some("tools/list") => json!({"tools": [
            {"name": "show", "description": head, "inputSchema": {"type": "object"}},
        ]}),
        Some("tools/call") => json!({
            "content": [{"type": "text", "text": head}], "structuredContent": {"head": head},
        }),
        Some(method) if message.get("id").is_some() => {
            let error = json!({"code": -32601, "message": format!("no {method}: {head}")});
            return Say::json(200, json!({"jsonrpc": "2.0", "id": message["id"], "error": error}));
        }
        _ => return Say::Answer(202, "", String::new()),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    if message["method"] == "tools/call" && head.contains("by-event") {
        let event = format!("data: {answer}\n\n");
        return Say::Answer(200, "content-type: text/event-stream\r\n", event);
    }
    Say::json(200, answer)
}

#[tokio::test]
async fn what_a_server_of_mcp_shows_of_our_secrets_nobody_sees() {
    let server = Server::start(|_, asked| shows_itself(asked)).await;
    for way in ["by-message", "by-event"] {
        let tools = toolbox(&format!(
            "[tools.t]\nkind = \"mcp\"\ntransport = \"streamable-http\"\nurl = \"{}/mcp\"\n\
             auth = {{ kind = \"bearer\", token = \"canary-token\" }}\n\
             headers = {{ x-way = \"{way}\", x-tenant = \"canary-canary-canary\" }}\n",
            server.url
        ));
        tools.refresh().await;
        let output = call(&tools, "t.show", json!({})).await.unwrap();
        let shown = format!("{output:?} {:?}", tools.get("t.show").unwrap().description);
        assert!(shown.contains("***") && shown.contains(way), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
