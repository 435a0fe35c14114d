//! Stores that fail and HTTP/2 peers that misbehave repeat what they were shown; nobody else does.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Collected, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use switchpoint::net::tls::{Certificate, server};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::support::client::{self, CHAT, get, post};
use crate::support::gateway::{ADMIN_KEY, KEY, config, provider};
use crate::support::tls::Authority;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

const SECRETS: [&str; 7] = [
    KEY,
    ADMIN_KEY,
    "postgres-canary",
    "redis-canary",
    "sk-upstream-canary",
    "sk-test-strange-canary",
    "sk-upstream-up",
];

/// Everything that anybody was shown.
#[derive(Default)]
struct Shown(Vec<(String, String)>);

impl Shown {
    fn note(&mut self, place: &str, answer: &client::Answer) {
        let body = String::from_utf8_lossy(&answer.body);
        self.0.push((place.to_owned(), format!("{} {:?} {body}", answer.status, answer.headers)));
    }

    fn check(mut self, gateway: &Gateway) {
        self.0.push(("the log".to_owned(), gateway.output().join("\n")));
        for (place, text) in &self.0 {
            for secret in SECRETS {
                assert!(!text.contains(secret), "{secret} shows in {place}: {text}");
            }
        }
    }
}

/// Whom a listener leads to, each connection by itself.
async fn serve<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> (u16, JoinSet<()>)
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Each is over when the other side is gone.
        let mut guests: JoinSet<Option<()>> = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            guests.spawn(answer(stream));
        }
    });
    (port, tasks)
}

// === Stores ===

/// A Postgres that wants the password in clear, and refuses with all it was told, under this code.
async fn postgres(mut stream: TcpStream, code: &'static str) -> Option<()> {
    let startup = loop {
        let length = stream.read_u32().await.ok()?;
        let mut startup = vec![0; length as usize - 4];
        stream.read_exact(&mut startup).await.ok()?;
        // Asked for TLS: there is none.
        if startup[..] != 80_877_103_u32.to_be_bytes() {
            break startup;
        }
        stream.write_all(b"N").await.ok()?;
    };
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.ok()?;
    let (_, length) = (stream.read_u8().await.ok()?, stream.read_u32().await.ok()?);
    let mut password = vec![0; length as usize - 4];
    stream.read_exact(&mut password).await.ok()?;
    assert!(password.starts_with(b"postgres-canary"));
    let told = [startup, password].concat();
    let told = String::from_utf8_lossy(&told).replace('\0', " ");
    let fields =
        ["SFATAL", "VFATAL", &format!("C{code}"), &format!("M{told}"), &format!("D{told}")];
    let fields = fields.join("\0") + "\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap();
    stream.write_all(&[b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()).await.ok()
}

/// A Redis that refuses everything by repeating it.
async fn redis(mut stream: TcpStream) -> Option<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        let told = String::from_utf8_lossy(&buffer[..length]).replace(['\r', '\n'], " ");
        stream.write_all(format!("-ERR {told}\r\n").repeat(8).as_bytes()).await.ok()?;
    }
}

fn stores(folder: &TempDir, postgres: u16, redis: u16) -> String {
    let journal = folder.path().join("journal");
    format!(
        "[store]\nurl = \"postgres://me:postgres-canary@127.0.0.1:{postgres}/x?sslmode=disable\"\n\
         journal = \"{}\"\nshared = \"redis://me:redis-canary@127.0.0.1:{redis}/0\"\n\
         replicas = 2\n\n",
        journal.display()
    )
}

async fn ask_the_stores(gateway: &Gateway, shown: &mut Shown) {
    let chat = json!({"model": "fast", "messages": [{"role": "user", "content": "Hi"}]});
    for key in [KEY, "sk-test-strange-canary"] {
        let answer = post(gateway.address, CHAT, key, chat.to_string()).await;
        assert!(matches!(answer.status, 401 | 503), "{}", answer.text());
        shown.note("a chat", &answer);
        for background in [false, true] {
            let body = json!({"model": "fast", "input": "Hi", "background": background});
            let answer = post(gateway.address, "/v1/responses", key, body.to_string()).await;
            shown.note("a response", &answer);
        }
        for path in ["/v1/me/usage", "/v1/responses/resp_1", "/v1/files", "/v1/batches/b_1"] {
            shown.note(path, &get(gateway.address, path, key).await);
        }
    }
    for path in ["keys", "usage", "calls", "audit", "teams", "config/history", "runs"] {
        let path = format!("/admin/{path}");
        shown.note(&path, &get(gateway.admin, &path, ADMIN_KEY).await);
    }
    let made = post(gateway.admin, "/admin/keys", ADMIN_KEY, r#"{"id":"made"}"#).await;
    assert!(made.status >= 500, "{}", made.text());
    shown.note("a key that is not made", &made);
    for path in ["/readyz", "/metrics"] {
        shown.note(path, &get(gateway.admin, path, "").await);
    }
}

#[tokio::test]
async fn stores_that_repeat_what_they_are_shown_have_it_repeated_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    // One that is starting up: it is waited for.
    let (database, _postgres) = serve(|stream| postgres(stream, "57P03")).await;
    let (shared, _redis) = serve(redis).await;
    let upstream = Upstream::start([("a", [Script::json(200, "{}")])]).await;
    let sections = [
        stores(&folder, database, shared),
        provider("up", &upstream),
        "[routes.fast]\ntargets = [\"up/a\"]\ncache = { mode = \"on\" }\n".to_owned(),
        "[teams.all]\nbudget = [{ tokens = 1000, window = \"1d\" }]\n".to_owned(),
    ];
    let whole = config("", &sections.concat()).replace("level = \"debug\"", "level = \"trace\"");
    let whole = whole.replace(
        &format!("[keys.test]\nsecret = \"{KEY}\"\n"),
        &format!("[keys.test]\nsecret = \"{KEY}\"\nteam = \"all\"\n"),
    );
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("config.toml"), whole).unwrap();
    let gateway = Gateway::run(home, "").await;
    let mut shown = Shown::default();
    ask_the_stores(&gateway, &mut shown).await;
    shown.check(&gateway);
}

#[tokio::test]
async fn a_store_that_refuses_the_password_stops_the_start_without_telling_it() {
    let folder = tempfile::tempdir().unwrap();
    let (database, _postgres) = serve(|stream| postgres(stream, "28P01")).await;
    let path = folder.path().join("config.toml");
    std::fs::write(&path, config("", &stores(&folder, database, 1))).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    let output = command.arg("serve").arg("--config").arg(&path).output().await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(!output.status.success() && told.contains("store"), "{told}");
    assert!(SECRETS.iter().all(|secret| !told.contains(secret)), "{told}");
}

// === HTTP/2 ===

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An error that repeats a secret in its head and its body.
fn error_answer() -> Vec<u8> {
    let secret = b"sk-upstream-canary";
    let mut head = vec![0x8e, 0x00, 6];
    head.extend_from_slice(b"x-echo");
    head.push(u8::try_from(secret.len()).unwrap());
    head.extend_from_slice(secret);
    let body = json!({"error": {"message": "sk-upstream-canary", "code": "sk-upstream-canary"}});
    [frame(1, 4, 1, &head), frame(0, 1, 1, body.to_string().as_bytes())].concat()
}

/// What an upstream says once it was asked, each with the secret in it where there is room.
fn misdeeds() -> [Vec<u8>; 6] {
    let going = [&[0, 0, 0, 0, 0, 0, 0, 2][..], b"sk-upstream-canary"].concat();
    let begun = [&[0x88, 0x00, 12][..], b"content-type", &[17], b"text/event-stream"].concat();
    let begun = frame(1, 4, 1, &begun);
    [
        frame(7, 0, 0, &going),
        frame(3, 0, 1, &[0, 0, 0, 2]),
        error_answer(),
        [begun.clone(), frame(3, 0, 1, &[0, 0, 0, 2])].concat(),
        [begun, frame(7, 0, 0, &going)].concat(),
        b"HTTP/1.1 400 sk-upstream-canary\r\n\r\nsk-upstream-canary".to_vec(),
    ]
}

/// Reads until a request is there whole, answers with this, and hangs up.
async fn misbehave(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    misdeed: Vec<u8>,
) -> Option<()> {
    stream.read_exact(&mut [0; 24]).await.ok()?;
    stream.write_all(&frame(4, 0, 0, &[])).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        if matches!(head[3], 0 | 1) && head[4] & 1 == 1 {
            break;
        }
    }
    stream.write_all(&misdeed).await.ok()?;
    stream.shutdown().await.ok()
}

#[tokio::test]
async fn an_http2_upstream_that_repeats_our_key_in_an_error_has_it_repeated_by_nobody() {
    let authority = Authority::new();
    let certificate =
        Certificate::load(&authority.path("cert.pem"), &authority.path("key.pem")).unwrap();
    let mut tls = rustls::ServerConfig::clone(&server(std::sync::Arc::new(certificate)).unwrap());
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(tls));
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let (port, _upstream) = serve(move |stream| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (acceptor, all) = (acceptor.clone(), misdeeds());
        let misdeed = all[turn % all.len()].clone();
        async move { misbehave(acceptor.accept(stream).await.ok()?, misdeed).await }
    })
    .await;
    let sections = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"https://127.0.0.1:{port}/v1\"\n\
         api_key = \"sk-upstream-canary\"\nca = \"{}\"\n[routes.fast]\ntargets = [\"up/a\"]\n\
         attempts = 1\n",
        authority.path("ca.pem").display()
    );
    let home = TempDir::new().unwrap();
    let whole = config("", &sections).replace("level = \"debug\"", "level = \"trace\"");
    std::fs::write(home.path().join("config.toml"), whole).unwrap();
    let gateway = Gateway::run(home, "").await;
    let mut shown = Shown::default();
    for stream in [false, true, false, true] {
        for _ in 0..misdeeds().len() {
            let messages = json!([{"role": "user", "content": "Hi"}]);
            let body = json!({"model": "fast", "stream": stream, "messages": messages});
            let answer = post(gateway.address, CHAT, KEY, body.to_string()).await;
            shown.note("a chat", &answer);
        }
    }
    shown.note("the metrics", &get(gateway.admin, "/metrics", "").await);
    shown.note("the targets", &get(gateway.admin, "/admin/targets", ADMIN_KEY).await);
    shown.check(&gateway);
}

/// A request by HTTP/2; what the answer says, if there is one.
async fn by_h2(gateway: &Gateway, request: Request<Full<Bytes>>) -> String {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    match sender.send_request(request).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
            format!("{:?} {}", head.headers, String::from_utf8_lossy(&body))
        }
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn an_http2_client_that_breaks_the_rules_finds_no_key_in_what_it_is_told() {
    let upstream = Upstream::start([("a", [Script::default().reset()])]).await;
    let whole = config("", &provider("up", &upstream));
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("config.toml"), whole.replace("\"debug\"", "\"trace\""))
        .unwrap();
    let gateway = Gateway::run(home, "").await;
    let mut shown = Shown::default();
    let good = r#"{"model":"up/a","messages":[{"role":"user","content":"Hi"}]}"#;
    for key in [KEY, "sk-test-strange-canary"] {
        for (method, path, body) in [
            (Method::POST, CHAT.to_owned(), good.to_owned()),
            (Method::POST, CHAT.to_owned(), format!("{{ {key}")),
            (Method::PUT, CHAT.to_owned(), key.to_owned()),
            (Method::POST, format!("{CHAT}?key={key}"), key.to_owned()),
            (Method::GET, "/v1/none".to_owned(), String::new()),
            (Method::CONNECT, CHAT.to_owned(), String::new()),
        ] {
            let (place, uri) = (format!("{method} {path}"), format!("http://gateway.test{path}"));
            let request =
                || Request::builder().method(method.clone()).uri(&uri).header("te", "trailers");
            let body = || Full::new(Bytes::from(body.clone()));
            let bearer = request().header("authorization", format!("Bearer {key}")).body(body());
            let others = ["x-api-key", "x-goog-api-key", "connection", "te"]
                .map(|name| request().header(name, key).body(body()));
            let all = others.into_iter().chain([bearer]).map(|it| by_h2(&gateway, it.unwrap()));
            let said = join_all(all).await.into_iter();
            shown.0.extend(said.map(|said| (place.clone(), said)));
        }
        // Frames that are none, with a key in them.
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for frame in [frame(1, 5, 1, key.as_bytes()), frame(0, 1, 7, key.as_bytes()), key.into()] {
            let sent = [&preface[..], &self::frame(4, 0, 0, &[]), &frame].concat();
            let mut stream = client::send(gateway.address, &sent).await;
            let mut said = Vec::new();
            // A reset is an end too.
            let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("stays open");
            shown.0.push(("frames".to_owned(), String::from_utf8_lossy(&said).into_owned()));
        }
    }
    shown.check(&gateway);
}
