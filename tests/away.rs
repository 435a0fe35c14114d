//! The database goes away and comes back: calls go on, and every record is there afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::client::{self, Answer, CHAT, get};
use crate::support::database::Schema;
use crate::support::gateway::{config, provider};
use crate::support::replies::REPLY;
use crate::support::{Gateway, Script, Upstream, within};

/// What the machine may need until all is well again.
const RECOVERY: Duration = Duration::from_secs(20);

/// A schema of its own on the server that the environment names, behind a door that can be shut.
struct Database {
    schema: Schema,
    door: SocketAddr,
    is_open: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Database {
    async fn new(schema: &str) -> Option<Self> {
        let schema = Schema::new(schema).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let door = listener.local_addr().unwrap();
        let is_open = watch::Sender::new(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(doorman(listener, schema.address(), is_open.subscribe()));
        Some(Self { schema, door, is_open, _tasks: tasks })
    }

    /// The section of a gateway that goes through the door.
    fn section(&self) -> String {
        let (url, journal) = (self.schema.url(Some(self.door)), self.schema.journal("away"));
        format!("[store]\nurl = \"{url}\"\njournal = \"{}\"\n\n", journal.display())
    }

    async fn count(&mut self, table: &str) -> u64 {
        self.schema.number(&format!("SELECT count(*) FROM {{schema}}.{table}")).await
    }
}

/// Lets connections through while the door is open; when it is shut, those that are there end.
async fn doorman(listener: TcpListener, behind: (String, u16), is_open: watch::Receiver<bool>) {
    let mut guests = JoinSet::new();
    while let Ok((mut guest, _)) = listener.accept().await {
        let (behind, mut seen) = (behind.clone(), is_open.clone());
        if !*seen.borrow() {
            continue;
        }
        guests.spawn(async move {
            let Ok(mut host) = TcpStream::connect(behind).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut guest, &mut host) => {}
                _ = seen.wait_for(|is_open| !is_open) => {}
            }
        });
    }
}

async fn ask(address: SocketAddr, key: &str) -> Answer {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"model": "up/a", "max_tokens": 50, "messages": messages}).to_string();
    client::post(address, CHAT, &format!("sk-{key}"), body).await
}

/// One call after the other; each must be answered.
async fn ask_on(
    address: SocketAddr,
    key: &str,
    stop: watch::Receiver<bool>,
    asked: Arc<AtomicU64>,
) {
    while !*stop.borrow() {
        let answer = ask(address, key).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        asked.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_millis(5)).await;
    }
}

/// Two keys: one with a budget, and one without.
fn keys() -> String {
    let key = |name: &str, more: &str| format!("[keys.{name}]\nsecret = \"sk-{name}\"\n{more}\n\n");
    key("free", "") + &key("bound", "budget = [{ tokens = 100_000_000, window = \"30d\" }]")
}

async fn store_is(gateway: &Gateway) -> String {
    let ready = get(gateway.admin, "/readyz", "").await;
    assert_eq!(ready.status, 200);
    ready.json()["store"].as_str().unwrap().to_owned()
}

async fn wait_for_store(gateway: &Gateway, state: &str) {
    let until = Instant::now() + RECOVERY;
    while store_is(gateway).await != state {
        assert!(Instant::now() < until, "the store is not {state}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_under_load_fails_no_call_and_lacks_none_afterwards() {
    let Some(mut database) = Database::new("stops").await else { return };
    let slow = std::env::var_os("SWITCHPOINT_TEST_SLOW").is_some_and(|value| value == "1");
    let outage = Duration::from_secs(if slow { 60 } else { 4 });
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let sections = [provider("up", &upstream), keys(), database.section()].concat();
    let gateway = Gateway::start("", &sections).await;
    let (stop, asked) = (watch::Sender::new(false), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for key in ["free", "bound", "free", "bound"] {
        load.spawn(ask_on(gateway.address, key, stop.subscribe(), Arc::clone(&asked)));
    }
    within(RECOVERY, "calls are made", || asked.load(Ordering::SeqCst) > 100).await;
    database.is_open.send_replace(false);
    let before = asked.load(Ordering::SeqCst);
    sleep(outage).await;
    wait_for_store(&gateway, "down").await;
    assert!(asked.load(Ordering::SeqCst) > before + 100);
    assert!(gateway.metric("switchpoint_ledger_pending", &[]).await > 100.0);
    assert!(gateway.metric("switchpoint_store_up", &[]).await < 0.5);
    database.is_open.send_replace(true);
    wait_for_store(&gateway, "up").await;
    stop.send_replace(true);
    while let Some(worker) = load.join_next().await {
        worker.unwrap();
    }
    // What was noted meanwhile is taken in bit by bit.
    let until = Instant::now() + 6 * RECOVERY;
    while gateway.metric("switchpoint_ledger_pending", &[]).await > 0.0 {
        assert!(Instant::now() < until, "the journal is not taken in");
        sleep(Duration::from_millis(200)).await;
    }
    gateway.stop();
    let asked = asked.load(Ordering::SeqCst);
    println!("{asked} calls, {before} of them before an outage of {outage:?}");
    assert_eq!((database.count("calls").await, database.count("opens").await), (asked, 0));
    let called = "SELECT sum(counted)::bigint FROM {schema}.calls WHERE key = 'bound'";
    let spent = "SELECT sum(amount)::bigint FROM {schema}.spent
        WHERE account = 'key:bound' AND unit = 'tokens'";
    let called = database.schema.number(called).await;
    assert_eq!(called, database.schema.number(spent).await, "calls and budgets agree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_database_serves_whom_no_budget_binds() {
    let Some(mut database) = Database::new("starts").await else { return };
    let upstream = Upstream::start([("a", [Script::json(200, REPLY)])]).await;
    let sections = [provider("up", &upstream), keys(), database.section()].concat();
    // One that has spent something already.
    let first = Gateway::start("", &sections).await;
    assert_eq!(ask(first.address, "bound").await.status, 200);
    first.stop();

    database.is_open.send_replace(false);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), config("", &sections)).unwrap();
    let gateway = Gateway::run(folder, "").await;
    assert_eq!(store_is(&gateway).await, "down");
    assert_eq!(ask(gateway.address, "free").await.status, 200);
    let refused = ask(gateway.address, "bound").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (503, &json!("overloaded")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let told = || gateway.output().join("\n").contains("starting without the store");
    within(RECOVERY, "the log says so", told).await;

    database.is_open.send_replace(true);
    wait_for_store(&gateway, "up").await;
    let until = Instant::now() + RECOVERY;
    while ask(gateway.address, "bound").await.status != 200 {
        assert!(Instant::now() < until, "the budget stays shut");
        sleep(Duration::from_millis(100)).await;
    }
    let used = get(gateway.address, "/v1/me/usage", "sk-bound").await.json();
    assert_eq!(used["budgets"][0]["used"], json!(30), "with what was spent before");
    gateway.stop();
    assert_eq!((database.count("calls").await >= 3, database.count("opens").await), (true, 0));
}
