//! Nobody without a right gets anything at any door: by the table of doors itself.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::json;
use switchpoint::canon::{Relay, Surface};
use switchpoint::http::{PublicDoor, public_doors};

use super::apis::response;
use super::key;
use crate::support::client::{self, Answer};
use crate::support::gateway::{Gateway, KEY, provider};
use crate::support::upstream::Request;
use crate::support::{Script, Upstream};

/// Doors that anybody may knock at.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
const FORM: &str = "--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nup/m\r\n\
    --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{\"body\":{\"model\":\"m\"}}\n\r\n--b1--\r\n";

/// Ways to show a credential that is none, with the only status that answers it.
const NO_CREDENTIALS: [(&str, &str); 12] = [
    ("", ""),
    ("authorization", ""),
    ("authorization", "Bearer"),
    ("authorization", "Bearer "),
    ("authorization", "Bearer sk-junk"),
    ("authorization", "Bearer sk-test-ke"),
    ("authorization", "Bearer sk-old"),
    ("authorization", "Basic c2stdGVzdC1rZXk6"),
    ("authorization", "sk-test-key"),
    ("x-api-key", "sk-junk"),
    ("x-api-key", "sk-old"),
    ("x-goog-api-key", "sk-junk"),
];

fn body(door: &PublicDoor) -> Bytes {
    let said = json!([{"role": "user", "content": "Hi"}]);
    let input = json!("file-1");
    // One that every door takes for its own.
    let body = json!({"model": "up/m", "max_tokens": 9, "messages": said, "prompt": "Hi",
        "input": "Hi", "query": "Hi", "documents": ["a"], "input_file_id": input,
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]});
    let own = |names: &[&str]| {
        let mut own = json!({});
        for name in names {
            own[*name] = body[*name].clone();
        }
        own
    };
    let body = match door.surface {
        Some(Surface::Chat | Surface::Messages | Surface::CountTokens) => {
            own(&["model", "max_tokens", "messages"])
        }
        Some(Surface::Generate | Surface::GenerateArray | Surface::GoogleCountTokens) => {
            own(&["contents"])
        }
        Some(Surface::GoogleEmbeddings) => json!({"content": {"parts": [{"text": "Hi"}]}}),
        None => own(&["model", "messages"]),
        _ => own(&["model", "prompt", "input", "query", "documents", "input_file_id"]),
    };
    body.to_string().into()
}

/// Where everybody sees what is theirs.
const OWN: [&str; 9] = [
    "/v1/models",
    "/v1beta/models",
    "/v1/me/usage",
    "/v1/agents",
    "/v1/agents/runs",
    "/v1/agents/usage",
    "/v1/agents/approvals",
    "/v1/agents/dlq",
    "/v1/tools",
];

async fn knock(gateway: &Gateway, door: &PublicDoor, (name, value): (&str, &str)) -> Answer {
    let id = if door.relay.is_some_and(|relay| relay.surface() == Surface::Batches) {
        "batch_1"
    } else if door.relay.is_some() {
        "file-1"
    } else {
        "resp_up1"
    };
    let path = door.path.replace("{id}", id).replace("{model}", "up/m");
    let method: Method = door.method.parse().unwrap();
    let upload = door.relay == Some(Relay::UploadFile);
    let sent = match (method.as_str(), upload) {
        ("POST", true) => Bytes::from_static(FORM.as_bytes()),
        ("POST", false) => body(door),
        _ => Bytes::new(),
    };
    let mut request = client::request(method, &path, "", sent);
    let headers: &mut HeaderMap = request.headers_mut();
    if upload {
        let form = HeaderValue::from_static("multipart/form-data; boundary=b1");
        headers.insert("content-type", form);
    }
    if !name.is_empty() {
        headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    client::open(gateway.address, request).await.whole().await
}

fn answer(request: &Request) -> Script {
    match request.path.as_str() {
        "/v1/files" => Script::json(200, r#"{"id":"file-1","object":"file"}"#),
        "/v1/batches" => Script::json(200, r#"{"id":"batch_1","status":"in_progress"}"#),
        "/v1/responses" => Script::json(200, &response((11, 4)).to_string()),
        _ => Script::json(200, "{}"),
    }
}

async fn house() -> (Upstream, Gateway) {
    let upstream = Upstream::answering(answer).await;
    let up = provider("up", &upstream).replace("openai-compatible", "openai");
    let keys = [
        key("old", "expires = 2020-01-01"),
        key("other", ""),
        key("narrow", "routes = [\"nothing\"]"),
        key("far", "ips = [\"10.0.0.0/8\"]"),
    ];
    let route = "[routes.nothing]\ntargets = [\"up/m\"]\n";
    let gateway = Gateway::start("", &[up, keys.concat(), route.to_owned()].concat()).await;
    (upstream, gateway)
}

fn closed() -> impl Iterator<Item = PublicDoor> {
    public_doors().into_iter().filter(|door| !OPEN.contains(&door.path.as_str()))
}

#[tokio::test]
async fn no_door_opens_to_who_shows_no_key_that_holds() {
    let (upstream, gateway) = house().await;
    let mut doors = 0;
    for door in closed() {
        doors += 1;
        for credential in NO_CREDENTIALS {
            let answer = knock(&gateway, &door, credential).await;
            assert_eq!(answer.status, 401, "{door:?} {credential:?}: {:?}", answer.body);
            let code = answer.header("x-switchpoint-error").unwrap();
            let expected = match credential.1 {
                "Bearer sk-old" | "sk-old" => "expired_key",
                _ if credential.0.is_empty() => "missing_key",
                _ => code,
            };
            assert_eq!(code, expected, "{door:?} {credential:?}");
        }
        // A right key from a wrong place.
        let answer = knock(&gateway, &door, ("authorization", "Bearer sk-far")).await;
        assert_eq!(answer.status, 403, "{door:?}: {:?}", answer.body);
    }
    assert!(doors > 40);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_key_gets_through_no_door_to_what_it_may_not_call() {
    let (upstream, gateway) = house().await;
    for door in closed() {
        let answer = knock(&gateway, &door, ("authorization", "Bearer sk-narrow")).await;
        // What is only its own anybody may see: there is nothing in it.
        let own = matches!(door.relay, Some(Relay::ListFiles | Relay::ListBatches))
            || OWN.contains(&&*door.path) && door.method == "GET";
        let expected: &[u16] = match door.relay {
            _ if own => &[200],
            // No provider that this key may use keeps files.
            Some(Relay::UploadFile) => &[400],
            _ => &[403, 404],
        };
        assert!(expected.contains(&answer.status), "{door:?}: {} {:?}", answer.status, answer.body);
        if own {
            assert!(!answer.text().contains("up/"), "{door:?}: {}", answer.text());
        }
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn what_another_key_has_cannot_be_told_from_what_is_not_there() {
    let (upstream, gateway) = house().await;
    let mine = ("authorization", "Bearer sk-test-key");
    assert_eq!(format!("Bearer {KEY}"), mine.1);
    for relay in [Relay::UploadFile, Relay::CreateBatch] {
        let door = closed().find(|door| door.relay == Some(relay)).unwrap();
        assert_eq!(knock(&gateway, &door, mine).await.status, 200);
    }
    let question = json!({"model": "up/m", "input": "Hi"}).to_string();
    let made = client::post(gateway.address, "/v1/responses", KEY, question).await;
    assert_eq!(made.json()["id"], "resp_up1");
    let asked = upstream.requests().len();
    let mut doors = 0;
    for door in closed().filter(|door| door.path.contains("{id}")) {
        doors += 1;
        let theirs = knock(&gateway, &door, ("authorization", "Bearer sk-other")).await;
        let nobodys = PublicDoor { path: door.path.replace("{id}", "{id}9"), ..door.clone() };
        let none = knock(&gateway, &nobodys, ("authorization", "Bearer sk-other")).await;
        assert_eq!((theirs.status, none.status), (404, 404), "{door:?}: {:?}", theirs.body);
        let swap = |text: &str| {
            ["file-1", "batch_1", "resp_up1"]
                .iter()
                .fold(text.to_owned(), |text, id| text.replace(&format!("{id}9"), id))
        };
        assert_eq!(theirs.text(), swap(none.text()), "{door:?}");
    }
    assert!(doors >= 9, "{doors}");
    assert_eq!(upstream.requests().len(), asked);
}
