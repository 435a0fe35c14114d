//! Several gateways that share a Redis keep one limit and one budget between them, whatever becomes
//! of one of them or of the Redis. Run where `SWITCHPOINT_TEST_REDIS` is set and a `redis-server`
//! or `valkey-server` is in the path: each test starts its own, to stop it as it likes.

mod returns;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::client::{self, Answer, CHAT};
use crate::support::database::Schema;
use crate::support::gateway::{provider, route};
use crate::support::replies::{REPLY, role, word};
use crate::support::tls::Authority;
use crate::support::{Gateway, Script, Upstream, until};

/// What `REPLY` says that it used.
const USED: u64 = 15;

/// A server of the test's own, which remembers nothing.
pub(crate) struct Redis {
    port: u16,
    child: Child,
}

// === impl Redis ===

impl Redis {
    /// `None` where no such server is wanted.
    pub(crate) async fn start() -> Option<Self> {
        if std::env::var_os("SWITCHPOINT_TEST_REDIS").is_none() {
            println!("not run: SWITCHPOINT_TEST_REDIS is not set");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let redis = Self { port, child: Self::run(port) };
        redis.answers().await;
        Some(redis)
    }

    fn run(port: u16) -> Child {
        Self::run_with(&["--port", &port.to_string()])
    }

    /// One that is reached only over TLS, with a certificate that this authority has issued, and
    /// only by those who know a password.
    async fn secure(authority: &Authority) -> Option<Self> {
        let mut redis = Self::start().await?;
        redis.stop();
        let path = |name| authority.path(name).display().to_string();
        let (port, ca) = (redis.port.to_string(), path("ca.pem"));
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let tls = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"];
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let user = ["--user", "gate", "on", ">user-canary", "~switchpoint/*", "+@all"];
        let password = ["--requirepass", "password-canary"];
        redis.child = Self::run_with(&[&tls[..], &files, &user, &password].concat());
        redis.answers().await;
        Some(redis)
    }

    fn run_with(arguments: &[&str]) -> Child {
        let run = |program| {
            let mut command = Command::new(program);
            command.args(["--save", "", "--appendonly", "no"]);
            command.args(arguments).args(["--bind", "127.0.0.1"]).stdout(Stdio::null()).spawn()
        };
        run("redis-server").or_else(|_| run("valkey-server")).unwrap()
    }

    async fn answers(&self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until("the server answers", || std::net::TcpStream::connect(address).is_ok()).await;
    }

    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.child = Self::run(self.port);
        self.answers().await;
    }

    /// Waits until a name like this is there.
    pub(crate) async fn knows(&self, pattern: &str) {
        let client = format!("127.0.0.1:{}", self.port);
        until("the name is there", || {
            use std::io::{Read as _, Write as _};
            let mut stream = std::net::TcpStream::connect(&client).unwrap();
            stream.write_all(format!("KEYS {pattern}\r\n").as_bytes()).unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).unwrap();
            answer != *b"*0"
        })
        .await;
    }

    /// The sections of a gateway that counts here together with others.
    pub(crate) fn store(&self, replicas: usize) -> String {
        let port = self.port;
        format!(
            "[store]\nurl = \"memory:\"\nshared = \"redis://127.0.0.1:{port}\"\n\
             replicas = {replicas}\n\n"
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(more: &str) -> String {
    format!("[keys.ci]\nsecret = \"sk-ci\"\n{more}\n\n")
}

async fn gateways(redis: &Redis, upstream: &Upstream, more: &str) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let sections = format!("{}{}{more}", redis.store(3), provider("up", upstream));
        gateways.push(Gateway::start("", &sections).await);
    }
    connected(&gateways).await;
    gateways
}

async fn connected(gateways: &[Gateway]) {
    for gateway in gateways {
        while gateway.metric("switchpoint_shared_up", &[]).await < 1.0 {
            tokio::task::yield_now().await;
        }
    }
}

fn question(model: &str, stream: bool) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": model, "max_tokens": 50, "stream": stream, "messages": messages}).to_string()
}

async fn ask(address: SocketAddr, model: &'static str) -> Answer {
    client::post(address, CHAT, "sk-ci", question(model, false)).await
}

/// So many calls at once, one gateway after the other.
fn all_at_once(gateways: &[Gateway], count: usize) -> JoinSet<Answer> {
    let mut calls = JoinSet::new();
    for address in gateways.iter().map(|gateway| gateway.address).cycle().take(count) {
        calls.spawn(ask(address, "up/a"));
    }
    calls
}

/// The first of the budgets that bind the key.
async fn budget(gateway: &Gateway) -> Value {
    let answer = client::get(gateway.address, "/v1/me/usage", "sk-ci").await;
    answer.json()["budgets"][0].clone()
}

/// As soon as all of them say that so much is used and nothing is held.
async fn settled(gateways: &[Gateway], used: u64) {
    let begin = Instant::now();
    for gateway in gateways {
        loop {
            let budget = budget(gateway).await;
            if (&budget["used"], &budget["reserved"]) == (&json!(used), &json!(0)) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(15), "{used} is not used: {budget}");
        }
    }
}

fn statuses(answers: &[Answer]) -> (usize, usize) {
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    (count(200), count(429))
}

/// What one such call is taken to need at most.
async fn most() -> u64 {
    let upstream = Upstream::start([("a", [Script::default().stall()])]).await;
    // Where there is plenty it would be held by a rougher guess.
    let budget_of = key("budget = [{ tokens = 1_000, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &budget_of).await;
    let address = gateway.address;
    let mut call = JoinSet::new();
    call.spawn(ask(address, "up/a"));
    upstream.asked(1).await;
    budget(&gateway).await["reserved"].as_u64().unwrap()
}

fn slow() -> Script {
    Script::json(200, REPLY).after(Duration::from_secs(2))
}

#[tokio::test]
async fn three_replicas_together_answer_as_many_as_there_is_room_for() {
    let Some(redis) = Redis::start().await else { return };
    let room = most().await * 10;
    let upstream = Upstream::start([("a", [slow()])]).await;
    let terms = key(&format!("budget = [{{ tokens = {room}, window = \"1d\" }}]"));
    let gateways = gateways(&redis, &upstream, &terms).await;
    let answers = all_at_once(&gateways, 100).join_all().await;
    assert_eq!(statuses(&answers), (10, 90));
    assert_eq!(upstream.requests().len(), 10, "refused before anything was sent");
    settled(&gateways, 10 * USED).await;
}

#[tokio::test]
async fn a_redis_that_is_restarted_meanwhile_lets_nobody_over_the_limit() {
    let Some(mut redis) = Redis::start().await else { return };
    let most = most().await;
    let upstream = Upstream::start([
        ("first", [Script::json(200, REPLY)]),
        ("a", [Script::json(200, REPLY).after(Duration::from_secs(6))]),
    ])
    .await;
    let room = 3 * USED + 10 * most;
    let terms = key(&format!("budget = [{{ tokens = {room}, window = \"1d\" }}]"));
    let gateways = gateways(&redis, &upstream, &terms).await;
    for gateway in &gateways {
        assert_eq!(ask(gateway.address, "up/first").await.status, 200);
    }
    // It forgets what was used, and each tells it again.
    redis.restart().await;
    let calls = all_at_once(&gateways, 100);
    upstream.asked(3 + 4).await;
    redis.restart().await;
    let answers = calls.join_all().await;
    let (answered, refused) = statuses(&answers);
    let unknown = answers.iter().filter(|answer| answer.status == 503).count();
    assert_eq!((answered, refused + unknown), (10, 90));
    assert_eq!(upstream.requests().len(), 3 + 10);
    settled(&gateways, 13 * USED).await;
}

#[tokio::test]
async fn limits_by_time_and_of_calls_at_once_hold_for_all_replicas_together() {
    let Some(redis) = Redis::start().await else { return };
    let upstream =
        Upstream::start([("a", [Script::json(200, REPLY).after(Duration::from_secs(3))])]).await;
    let terms = key("limits = { requests = \"10/h\" }")
        + "[keys.few]\nsecret = \"sk-few\"\nlimits = { concurrency = 4 }\n\n";
    let gateways = gateways(&redis, &upstream, &terms).await;
    let by_time = all_at_once(&gateways, 100);
    let mut at_once = JoinSet::new();
    for address in gateways.iter().map(|gateway| gateway.address).cycle().take(40) {
        let question = question("up/a", false);
        at_once.spawn(async move { client::post(address, CHAT, "sk-few", question).await });
    }
    assert_eq!(statuses(&by_time.join_all().await), (10, 90));
    assert_eq!(statuses(&at_once.join_all().await), (4, 36));
    assert_eq!(upstream.requests().len(), 14);
}

#[tokio::test]
async fn what_a_killed_replica_held_is_free_when_its_lease_is_over() {
    let Some(redis) = Redis::start().await else { return };
    let most = most().await;
    let upstream = Upstream::start([
        ("stalled", [Script::stream_head().chunks([role(), word("a")]).stall()]),
        ("a", [slow()]),
    ])
    .await;
    let room = 10 * most;
    let terms = key(&format!("budget = [{{ tokens = {room}, window = \"1d\" }}]"));
    let mut gateways = gateways(&redis, &upstream, &terms).await;
    let killed = gateways.pop().unwrap();
    let mut open = Vec::new();
    for _ in 0..6 {
        let body = question("up/stalled", true).into();
        let request = client::request(http::Method::POST, CHAT, "sk-ci", body);
        let mut opened = client::open(killed.address, request).await;
        opened.read_until("a").await;
        open.push(opened);
    }
    let answers = all_at_once(&gateways, 20).join_all().await;
    assert_eq!(statuses(&answers), (4, 16));
    killed.kill();
    settled(&gateways, 4 * USED).await;
    // What is left is there to the last token.
    let answers = all_at_once(&gateways, 20).join_all().await;
    let left = (room - 4 * USED) / most;
    assert_eq!(statuses(&answers).0, usize::try_from(left).unwrap());
}

#[tokio::test]
async fn without_the_shared_store_budgets_refuse_and_all_else_goes_on() {
    let Some(mut redis) = Redis::start().await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let terms = key("budget = [{ tokens = 100_000, window = \"1d\" }]")
        + "[keys.paced]\nsecret = \"sk-paced\"\nlimits = { requests = \"6/h\" }\n\n\
           [keys.free]\nsecret = \"sk-free\"\n\n";
    let gateways = gateways(&redis, &upstream, &terms).await;
    redis.stop();
    let refused = ask(gateways[0].address, "up/a").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let by = |key: &'static str| {
        let address = gateways[0].address;
        async move { client::post(address, CHAT, key, question("up/a", false)).await.status }
    };
    assert_eq!(by("sk-free").await, 200);
    // Each replica keeps to its part.
    assert_eq!([by("sk-paced").await, by("sk-paced").await, by("sk-paced").await], [200, 200, 429]);
    redis.restart().await;
    connected(&gateways).await;
    assert_eq!(ask(gateways[0].address, "up/a").await.status, 200);
}

#[tokio::test]
async fn a_target_that_fails_one_replica_is_left_alone_by_all() {
    let Some(redis) = Redis::start().await else { return };
    let upstream = Upstream::start([
        ("bad", [Script::json(500, r#"{"error":{"message":"no"}}"#)]),
        ("good", [Script::json(200, REPLY)]),
    ])
    .await;
    let terms = key("") + &route("both", &["up/bad", "up/good"], "");
    let gateways = gateways(&redis, &upstream, &terms).await;
    let state = |gateway: usize| gateways[gateway].metric("switchpoint_target_state", &["\"bad\""]);
    while state(0).await > 0.0 {
        assert_eq!(ask(gateways[0].address, "both").await.status, 200);
    }
    let asked = || upstream.requests().len();
    while state(1).await > 0.0 || state(2).await > 0.0 {
        tokio::task::yield_now().await;
    }
    let before = asked();
    for gateway in &gateways {
        assert_eq!(ask(gateway.address, "both").await.status, 200);
    }
    assert_eq!(asked(), before + 3, "nobody has asked the bad one again");
}

#[tokio::test]
async fn what_three_replicas_have_used_is_what_their_ledger_in_postgres_says() {
    let Some(mut redis) = Redis::start().await else { return };
    let Some(mut schema) = Schema::new("replicas").await else { return };
    let most = most().await;
    let upstream = Upstream::start([
        ("first", [Script::json(200, REPLY)]),
        ("a", [Script::json(200, REPLY).after(Duration::from_secs(6))]),
    ])
    .await;
    let room = 3 * USED + 10 * most;
    let terms = key(&format!("budget = [{{ tokens = {room}, window = \"1d\" }}]"));
    let mut gateways = Vec::new();
    for number in 0..3 {
        let journal = schema.journal(&number.to_string());
        let place = format!("{}\"\njournal = \"{}", schema.url(None), journal.display());
        let store = redis.store(3).replace("memory:", &place);
        let sections = format!("{store}{}{terms}", provider("up", &upstream));
        gateways.push(Gateway::start("", &sections).await);
    }
    connected(&gateways).await;
    for gateway in &gateways {
        assert_eq!(ask(gateway.address, "up/first").await.status, 200);
    }
    let calls = all_at_once(&gateways, 100);
    upstream.asked(3 + 4).await;
    redis.restart().await;
    assert_eq!(statuses(&calls.join_all().await).0, 10);
    assert_eq!(upstream.requests().len(), 13);
    settled(&gateways, 13 * USED).await;
    let begin = Instant::now();
    let sum = "SELECT coalesce(sum(counted), 0)::bigint FROM {schema}.calls";
    while schema.number(sum).await < 13 * USED {
        assert!(begin.elapsed() < Duration::from_secs(15), "the journals are not taken in");
    }
    let answered = "SELECT count(*) FROM {schema}.calls WHERE outcome = 'ok'";
    assert_eq!((schema.number(sum).await, schema.number(answered).await), (13 * USED, 13));
    let spent = "SELECT coalesce(sum(amount), 0)::bigint FROM {schema}.spent WHERE unit = 'tokens'";
    assert_eq!(schema.number(spent).await, 13 * USED, "as the next start is told");
}

#[tokio::test]
async fn a_tool_is_called_no_more_often_than_its_limits_say_by_all_replicas_together() {
    let Some(mut redis) = Redis::start().await else { return };
    let tools = Upstream::answering(|_| Script::json(200, "{}")).await;
    let base = tools.base();
    let tool = |name: &str, limits: &str| {
        format!(
            "[tools.{name}]\nkind = \"http\"\nmethod = \"GET\"\nurl = \"{base}/{name}\"\n\
             effect = \"read\"\nlimits = {{ {limits} }}\n"
        )
    };
    let keys = "[keys.ci]\nsecret = \"sk-ci\"\ntools = [\"*\"]\n\
                [keys.bob]\nsecret = \"sk-bob\"\ntools = [\"*\"]\n";
    let all = format!("{keys}{}{}", tool("all", "tool = \"12/h\""), tool("own", "user = \"3/h\""));
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let gateways = gateways(&redis, &upstream, &all).await;
    let calls = |tool: &'static str, key: &'static str, count: usize| {
        let mut calls = JoinSet::new();
        for address in gateways.iter().map(|gateway| gateway.address).cycle().take(count) {
            calls.spawn(called_at(address, tool, key));
        }
        calls.join_all()
    };
    let called =
        |path: &str| tools.requests().iter().filter(|request| request.path.ends_with(path)).count();
    let answers = calls("all", "sk-ci", 60).await;
    assert_eq!((statuses(&answers), called("/all")), ((12, 48), 12));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(refused.header("retry-after").is_some(), "{}", refused.text());
    for (key, count) in [("sk-ci", 3), ("sk-bob", 6)] {
        let answers = calls("own", key, 15).await;
        assert_eq!(
            (statuses(&answers), called("/own")),
            ((3, 12), count),
            "each user has their own"
        );
    }
    // Without the store each replica keeps its own part of what it has not used itself.
    redis.stop();
    let answers = calls("all", "sk-bob", 15).await;
    assert!(statuses(&answers).0 <= 12, "{:?}", statuses(&answers));
}

#[tokio::test]
async fn replicas_that_share_no_more_than_a_database_keep_the_limits_of_tools_together() {
    let Some(schema) = Schema::new("turns").await else { return };
    let tools = Upstream::answering(|_| Script::json(200, "{}")).await;
    let (base, upstream) =
        (tools.base(), Upstream::start([("a", [Script::json(200, REPLY)])]).await);
    let tool = |name: &str, limits: &str| {
        format!(
            "[tools.{name}]\nkind = \"http\"\nmethod = \"GET\"\nurl = \"{base}/{name}\"\n\
             effect = \"read\"\nlimits = {{ {limits} }}\n"
        )
    };
    let mut gateways = Vec::new();
    for number in ["0", "1"] {
        let journal = schema.journal(number);
        let sections = format!(
            "[store]\nurl = \"{}\"\njournal = \"{}\"\n{}[keys.ci]\nsecret = \"sk-ci\"\n\
             tools = [\"*\"]\n{}{}",
            schema.url(None),
            journal.display(),
            provider("up", &upstream),
            tool("all", "tool = \"12/h\""),
            tool("soon", "user = \"3/s\", max_wait = \"30s\""),
        );
        gateways.push(Gateway::start("", &sections).await);
    }
    let calls = |tool: &'static str, count: usize| {
        let mut calls = JoinSet::new();
        for address in gateways.iter().map(|gateway| gateway.address).cycle().take(count) {
            calls.spawn(called_at(address, tool, "sk-ci"));
        }
        calls.join_all()
    };
    let answers = calls("all", 40).await;
    assert_eq!((statuses(&answers), tools.requests().len()), ((12, 28), 12));
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_700).contains(&wait), "{wait}");
    // Who may wait has a turn, three in each second.
    let began = Instant::now();
    assert_eq!(statuses(&calls("soon", 8).await), (8, 0));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

async fn called_at(address: SocketAddr, tool: &'static str, key: &'static str) -> Answer {
    client::post(address, &format!("/v1/tools/{tool}/call"), key, "{}").await
}

#[tokio::test]
async fn limits_are_shared_over_tls_with_whoever_has_a_password_and_no_server_is_taken_at_its_word()
{
    let authority = Authority::new();
    let Some(redis) = Redis::secure(&authority).await else { return };
    let room = most().await * 10;
    let upstream = Upstream::start([("a", [slow()])]).await;
    let terms = key(&format!("budget = [{{ tokens = {room}, window = \"1d\" }}]"));
    let (port, ca) = (redis.port, authority.path("ca.pem"));
    let section = |who: &str, ca: &str| {
        format!(
            "[store]\nurl = \"memory:\"\nshared = \"rediss://{who}@127.0.0.1:{port}/0\"\n\
             replicas = 2\n{ca}\n{}{terms}",
            provider("up", &upstream)
        )
    };
    let ca = format!("shared_ca = \"{}\"\n", ca.display());
    let gateways = [
        Gateway::start("", &section(":password-canary", &ca)).await,
        Gateway::start("", &section("gate:user-canary", &ca)).await,
    ];
    connected(&gateways).await;
    let answers = all_at_once(&gateways, 40).join_all().await;
    assert_eq!(statuses(&answers), (10, 30));
    settled(&gateways, 10 * USED).await;
    // Neither without the authority nor with a wrong password is anything shared, and budgets wait.
    for section in [section("gate:user-canary", ""), section("gate:wrong-canary", &ca)] {
        let stranger = Gateway::start("", &section).await;
        let refused = ask(stranger.address, "up/a").await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        let output = stranger.output().join("\n");
        assert!(!output.contains("canary"), "{output}");
    }
    assert_eq!(upstream.requests().len(), 10);
}
