//! Several gateways that share a Redis keep one limit and one budget between them, whatever becomes
//! of one of them or of the Redis. Run where `SWITCHPOINT_TEST_REDIS` is set and a `redis-server`
//! or `valkey-server` is in the path: each test starts its own, to stop it as it likes.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{self, Answer, CHAT};
use crate::support::gateway::provider;
use crate::support::replies::{REPLY, role, word};
use crate::support::{Gateway, Script, Upstream, until};

/// What `REPLY` says that it used.
const USED: u64 = 15;

/// A server of the test's own, which remembers nothing.
struct Redis {
    port: u16,
    child: Child,
}

// === impl Redis ===

impl Redis {
    /// `None` where no such server is wanted.
    async fn start() -> Option<Self> {
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
        let run = |program| {
            let mut command = Command::new(program);
            command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.args(["--bind", "127.0.0.1"]).stdout(Stdio::null()).spawn()
        };
        run("redis-server").or_else(|_| run("valkey-server")).unwrap()
    }

    async fn answers(&self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        until("the server answers", || std::net::TcpStream::connect(address).is_ok()).await;
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn restart(&mut self) {
        self.stop();
        self.child = Self::run(self.port);
        self.answers().await;
    }

    /// The sections of a gateway that counts here together with others.
    fn store(&self, replicas: usize) -> String {
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
    let budget_of = key("budget = [{ tokens = 1_000_000, window = \"1d\" }]");
    let gateway = Gateway::before(&upstream, &budget_of).await;
    let address = gateway.address;
    let _call = tokio::spawn(ask(address, "up/a"));
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
