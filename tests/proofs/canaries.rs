//! Every secret there is, on every road that goes wrong: none shows anywhere, not even in what the
//! gateway keeps.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::apis::Api;
use super::store;
use crate::support::client::{self, CHAT, get, post};
use crate::support::gateway::{ADMIN_KEY, KEY, config};
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// What must never show. All are configured, or fetched with what is, or shown by clients.
const SECRETS: [&str; 18] = [
    KEY,
    ADMIN_KEY,
    "sk-test-strange-canary",
    "sk-test-expired-canary",
    "sk-up-canary-one",
    "sk-up-canary-two",
    "header-canary",
    "proxy-canary",
    // The same as proxies are shown it.
    "bWU6cHJveHktY2FuYXJ5",
    "aws-canary-secret",
    "aws-canary-session",
    "azure-canary-secret",
    "google-canary-client",
    "google-canary-refresh",
    "ya29.google-canary-token",
    "sk-env-canary",
    "sk-file-canary",
    "sk-claude-canary",
];

const TOKEN: &str =
    r#"{"access_token":"ya29.google-canary-token","expires_in":3599,"token_type":"Bearer"}"#;

/// Repeats whatever it is shown: in each header, in each place of an error, whole and in a stream.
fn echo(request: &Request) -> Script {
    let shown: Vec<String> =
        request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let shown = format!("{} {} {}", request.path, shown.join(", "), request.text());
    if request.path.ends_with("/token") {
        if request.text().contains("sure") {
            return Script::json(200, TOKEN);
        }
        let error = json!({"error": "x", "error_description": shown});
        return Script::json(401, &error.to_string());
    }
    let error = json!({"error": {"message": shown, "type": shown, "code": shown, "param": shown, "status": shown}});
    let error = error.to_string();
    let status = request.model.rsplit('-').next().and_then(|number| number.parse().ok());
    let event = format!("data: {error}\n\n");
    let begun = || Script::stream_head().chunks(&Api::Chat.events((11, 4))[..2]);
    match (status, request.model.as_str()) {
        (Some(status), _) => {
            let flat = shown.replace(['\r', '\n'], " ");
            let headers = [
                ("content-type", "application/json"),
                ("x-echo", &*flat),
                ("x-request-id", &*flat),
            ];
            Script::reply(status, &headers, error)
        }
        (None, "plain") => Script::reply(500, &[("content-type", "text/plain")], &shown),
        (None, "garbage") => Script::raw(format!("{shown}\r\n\r\n")).close(),
        (None, "head") => Script::raw(format!("HTTP/1.1 200 OK\r\n{shown}\r\n\r\n")).close(),
        (None, "first") => Script::stream([event]),
        (None, "later") => begun().wait(Duration::from_millis(20)).chunks([event]).end(),
        (None, "cut") => begun().close(),
        (None, "reset") => Script::default().reset(),
        (None, "silent") => Script::default().stall(),
        (None, "nonsense") => Script::json(200, &shown),
        (None, _) if request.variant == "stream" => Api::Chat.stream((11, 4)),
        (None, _) => Api::Chat.whole((11, 4)),
    }
}

const MODELS: [&str; 20] = [
    "s-400", "s-401", "s-402", "s-403", "s-404", "s-413", "s-422", "s-429", "s-500", "s-503",
    "plain", "garbage", "head", "first", "later", "cut", "reset", "silent", "nonsense", "good",
];

/// Providers with every sort of credential, some of them where nobody answers as one should.
const SECTIONS: &str = r#"
[providers.up]
kind = "openai-compatible"
base_url = "http://AT/v1"
api_keys = ["sk-up-canary-one", "sk-up-canary-two"]
headers = { x-team = "header-canary" }
LIMITS

[providers.env]
kind = "openai-compatible"
base_url = "http://AT/v1"
api_key = "env:CANARY"
LIMITS

[providers.file]
kind = "openai-compatible"
base_url = "http://AT/v1"
api_key = "file:FOLDER/secret"
LIMITS

[providers.gone]
kind = "openai-compatible"
base_url = "http://NOBODY/v1"
api_key = "sk-up-canary-one"
LIMITS

[providers.tls]
kind = "openai-compatible"
base_url = "https://AT/v1"
api_key = "sk-up-canary-one"
LIMITS

[providers.proxied]
kind = "openai-compatible"
base_url = "https://AT/v1"
api_key = "sk-up-canary-one"
proxy = "http://AT"
LIMITS

[providers.lost]
kind = "openai-compatible"
base_url = "https://AT/v1"
api_key = "sk-up-canary-one"
proxy = "http://NOBODY"
LIMITS

[providers.outside]
kind = "openai-compatible"
base_url = "https://outside.invalid/v1"
api_key = "sk-up-canary-one"
LIMITS

[providers.claude]
kind = "anthropic"
base_url = "http://AT"
api_key = "sk-claude-canary"
LIMITS

[providers.bedrock]
kind = "bedrock"
base_url = "http://AT"
region = "eu-central-1"
access_key_id = "AKIDCANARY"
secret_access_key = "aws-canary-secret"
session_token = "aws-canary-session"
LIMITS

[providers.azure]
kind = "azure"
base_url = "https://AT/openai/v1"
tenant_id = "t"
client_id = "c"
client_secret = "azure-canary-secret"
proxy = "http://AT"
LIMITS

[providers.vertex]
kind = "vertex"
base_url = "http://AT"
project = "p"
credentials = "FOLDER/sure.json"
LIMITS

[providers.shut]
kind = "vertex"
base_url = "http://AT"
project = "p"
credentials = "FOLDER/closed.json"
LIMITS

[keys.old]
secret = "sk-test-expired-canary"
expires = 2020-01-01

[keys.test]
secret = "KEY"
budget = [{ tokens = 10_000_000, window = "1d" }]

[routes.all]
targets = ["gone/a", "up/s-401", "tls/a", "lost/a", "up/plain"]
attempts = 8
"#;
const LIMITS: &str = "timeouts = { connect = \"500ms\", first_token = \"500ms\", total = \"1s\" }";

fn sections(folder: &Path, upstream: &Upstream, nobody: SocketAddr) -> String {
    let at = upstream.address.to_string();
    for name in ["sure", "closed"] {
        let file = json!({"type": "authorized_user", "client_id": name,
            "client_secret": "google-canary-client", "refresh_token": "google-canary-refresh",
            "token_uri": format!("http://{at}/token")});
        std::fs::write(folder.join(format!("{name}.json")), file.to_string()).unwrap();
    }
    std::fs::write(folder.join("secret"), "sk-file-canary\n").unwrap();
    let text = SECTIONS.replace("NOBODY", &nobody.to_string()).replace("LIMITS", LIMITS);
    let text =
        text.replace("FOLDER", folder.to_str().unwrap()).replace("\"KEY\"", &format!("{KEY:?}"));
    store(folder) + &text.replace("//AT", &format!("//{at}"))
}

/// The config as it is written for this test: everything is logged, and nothing is left out.
fn written(sections: &str) -> String {
    let text = config("", sections).replace("level = \"debug\"", "level = \"trace\"");
    let usual = format!("[keys.test]\nsecret = \"{KEY}\"\n\n");
    text.replacen(&usual, "", 1)
}

/// Configs that cannot be taken, with a secret at the fault.
fn faults(good: &str) -> Vec<String> {
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    vec![
        swap("api_key = \"sk-claude-canary\"", "api_key = \"sk-claude-canary"),
        swap("api_key = \"sk-claude-canary\"", "api_key = \"sk-claude-canary\\nx\""),
        swap("api_key = \"sk-claude-canary\"", "apikey = \"sk-claude-canary\""),
        swap("api_key = \"sk-claude-canary\"", "api_key = [\"sk-claude-canary\"]"),
        swap("api_key = \"sk-claude-canary\"", "api_key = \"sk-claude-canary\" x"),
        swap("api_key = \"sk-claude-canary\"", "api_key = { \"sk-claude-canary\" = 1 }"),
        swap("header-canary", "header-canary\\u0000"),
        swap("proxy = \"http://", "proxy = \"http://me:proxy-canary@"),
        swap("proxy = \"http://", "proxy = \"ftp://me:proxy-canary@"),
        swap("proxy = \"http://", "proxy = \"http://me:proxy-canary@:::"),
        swap("session_token = \"aws-canary-session\"", "session_token = 'aws-canary-session\""),
        swap(
            "secret = \"sk-test-expired-canary\"",
            "secret = \"sk-test-expired-canary\"\nhash = \"sk-test-expired-canary\"",
        ),
        swap("secret = \"sk-test-expired-canary\"", &format!("secret = \"{KEY}\"")),
        swap(
            &format!("key = \"{ADMIN_KEY}\""),
            &format!("key = \"{ADMIN_KEY}\"\nkey = \"{ADMIN_KEY}\""),
        ),
        swap("api_key = \"env:CANARY\"", "api_key = \"env:sk-env-canary\\u0001\""),
    ]
}

/// Everything that anybody has been shown.
struct Shown(Vec<(String, String)>);

impl Shown {
    fn note(&mut self, place: &str, answer: &client::Answer) {
        let body = String::from_utf8_lossy(&answer.body);
        self.0.push((place.to_owned(), format!("{:?} {body}", answer.headers)));
    }

    fn check(&self) {
        for (place, text) in &self.0 {
            for secret in SECRETS {
                assert_eq!(near(text, secret), None, "{secret} shows in {place}");
            }
        }
    }
}

/// What an upstream was shown.
fn seen(request: &Request) -> String {
    format!("{:?}{}", request.headers, request.text())
}

/// What stands around a secret.
fn near<'a>(text: &'a str, secret: &str) -> Option<&'a str> {
    let at = text.find(secret)?;
    let from = text.floor_char_boundary(at.saturating_sub(300));
    Some(&text[from..text.ceil_char_boundary(at + 60)])
}

/// Every file of the store, as its bytes are.
fn kept(folder: &Path, into: &mut Shown) {
    for entry in folder.read_dir().unwrap().map(Result::unwrap) {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if path.is_dir() {
            kept(&path, into);
        } else if name.starts_with("state.db") || path.extension().is_some_and(|end| end == "seg") {
            let bytes = std::fs::read(&path).unwrap();
            into.0.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

async fn call_all(gateway: &Gateway, shown: &mut Shown) {
    let others = [
        "gone/a",
        "tls/a",
        "proxied/a",
        "lost/a",
        "outside/a",
        "azure/gpt-5",
        "shut/gemini-2.5-pro",
        "all",
    ];
    let echoes = [
        "env/s-401",
        "file/s-401",
        "claude/s-401",
        "bedrock/s-401",
        "vertex/s-401",
        "bedrock/plain",
        "vertex/plain",
        "claude/first",
    ];
    let models = MODELS.iter().map(|model| format!("up/{model}"));
    let models = models.chain(others.iter().chain(&echoes).map(|model| (*model).to_owned()));
    for (turn, model) in models.enumerate() {
        for stream in [false, true] {
            let client = Api::ALL[turn % 4];
            let (path, mut body) = client.question(&model, "Hi", stream);
            if client == Api::Responses {
                body["background"] = json!(turn % 8 == 1);
            }
            let answer = post(gateway.address, &path, KEY, body.to_string()).await;
            shown.note(&format!("{path} of {model}"), &answer);
        }
        let (_, body) = Api::Chat.question(&model, "Hi", false);
        let answer = post(gateway.address, "/v1/explain", KEY, body.to_string()).await;
        shown.note(&format!("the explanation of {model}"), &answer);
    }
    for (path, body) in [
        ("/v1/embeddings", json!({"model": "up/s-401", "input": "Hi"})),
        ("/v1/images/generations", json!({"model": "up/s-403", "prompt": "Hi"})),
        ("/v1/moderations", json!({"model": "up/plain", "input": "Hi"})),
    ] {
        shown.note(path, &post(gateway.address, path, KEY, body.to_string()).await);
    }
}

/// Where keys are shown that are none, and where operators ask.
fn places(gateway: &Gateway, secret: &str) -> Vec<(SocketAddr, String)> {
    let public = [CHAT.to_owned(), format!("{CHAT}?key={secret}"), format!("/v1/{secret}")];
    let admin = ["/admin/config", "/admin/targets", "/metrics"].map(str::to_owned);
    let asked = [format!("/admin/drills/all?key={secret}"), format!("/admin/none?key={secret}")];
    let public = public.into_iter().map(|path| (gateway.address, path));
    public.chain(admin.into_iter().chain(asked).map(|path| (gateway.admin, path))).collect()
}

/// A body that nobody understands, with a key in one of the places where clients put them.
async fn knock(
    (address, path): &(SocketAddr, String),
    method: &Method,
    secret: &str,
    shown: &mut Shown,
) {
    for (name, value) in [
        ("authorization", format!("Bearer {secret}")),
        ("authorization", format!("Basic {secret}")),
        ("x-api-key", secret.to_owned()),
        ("x-goog-api-key", secret.to_owned()),
    ] {
        let body = format!("{{\"model\":\"up/s-401\",\"messages\":7, {secret}");
        let mut request = client::request(method.clone(), path, "", body.into());
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = client::open(*address, request).await.whole().await;
        // That a method is wrong is told of the path.
        let quoted = path.contains(secret) && matches!(answer.status, 404 | 405);
        if !quoted {
            shown.note(&format!("{method} {path} with {name}"), &answer);
        }
    }
}

async fn knock_everywhere(gateway: &Gateway, shown: &mut Shown) {
    for secret in [KEY, ADMIN_KEY, "sk-test-strange-canary", "sk-test-expired-canary"] {
        for place in places(gateway, secret) {
            for method in [Method::GET, Method::POST, Method::PUT] {
                knock(&place, &method, secret, shown).await;
            }
        }
    }
}

#[tokio::test]
async fn no_secret_shows_or_is_kept_in_clear_whatever_goes_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(echo).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let good = written(&sections(folder.path(), &upstream, nobody));
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("config.toml"), &good).unwrap();
    let proxy = format!("http://me:proxy-canary@{}", upstream.address);
    let environment = [("CANARY", "sk-env-canary"), ("HTTPS_PROXY", &*proxy)];
    let gateway = Gateway::run_with(home, "", &environment).await;
    let mut shown = Shown(Vec::new());
    call_all(&gateway, &mut shown).await;
    knock_everywhere(&gateway, &mut shown).await;
    for fault in faults(&good) {
        std::fs::write(gateway.folder().join("config.toml"), fault).unwrap();
        let answer = post(gateway.admin, "/admin/config/reload", ADMIN_KEY, "").await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        shown.note("a refused reload", &answer);
        shown
            .note("the state of the config", &get(gateway.admin, "/admin/config", ADMIN_KEY).await);
    }
    shown.note("the metrics", &get(gateway.admin, "/metrics", "").await);
    shown.note("the targets", &get(gateway.admin, "/admin/targets", ADMIN_KEY).await);
    // What the upstreams were shown says that there was something to repeat.
    let sent = format!("{:?}", upstream.requests().iter().map(seen).collect::<Vec<_>>());
    for secret in [
        "sk-up-canary-one",
        "header-canary",
        "bWU6cHJveHktY2FuYXJ5",
        "aws-canary-session",
        "google-canary-refresh",
        "ya29.google-canary-token",
        "sk-env-canary",
        "sk-file-canary",
        "sk-claude-canary",
    ] {
        assert!(sent.contains(secret), "{secret} was never sent");
    }
    kept(folder.path(), &mut shown);
    shown.0.push(("the log".to_owned(), gateway.output().join("\n")));
    shown.check();
    gateway.stop();
    kept(folder.path(), &mut shown);
    shown.check();
}
