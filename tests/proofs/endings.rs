//! A thousand calls that end in every way there is: what is used is what the ledger says is what
//! the upstream served, nothing stays reserved, and what is left can be spent to the last token.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http::Method;
use rustix::process::Signal;
use serde_json::json;
use switchpoint::canon::Money;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::apis::{Api, Used};
use super::ends::{Deed, Ending, Leaves, Tokens, endings};
use super::{Row, budgets, key, ledger, settled, store, sums};
use crate::support::client::{self, CHAT};
use crate::support::gateway::Gateway;
use crate::support::upstream::Request;
use crate::support::{Upstream, until};

const CALLS: usize = 1000;
const AT_ONCE: usize = 24;
const KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];
/// Who may spend so much in all, of which nearly all stays.
const PLENTY: u64 = 1_000_000;
/// Each token costs a millionth of a dollar.
const PRICE: u64 = 1000;

/// What the upstream remembers.
#[derive(Default)]
struct Memory {
    /// Tokens by model, as it told them.
    served: HashMap<String, u64>,
    asked: HashSet<usize>,
}

type Shared = Arc<Mutex<Memory>>;

/// The number that a question bears.
fn number(request: &Request) -> Option<usize> {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let (_, rest) = text.split_once("call-")?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn used(number: usize) -> Used {
    (11 + number as u64 % 5, 4 + number as u64 % 3)
}

async fn upstream(endings: &[Ending]) -> (Upstream, Shared) {
    let memory = Shared::default();
    let mut deeds: HashMap<String, Deed> = HashMap::new();
    for ending in endings {
        deeds.insert(ending.name.clone(), ending.deed);
        let before = ending.before.iter();
        deeds.extend(before.map(|(which, deed)| (format!("{}-{which}", ending.name), *deed)));
    }
    deeds.insert("exact".to_owned(), Api::whole);
    let shared = Arc::clone(&memory);
    let upstream = Upstream::answering(move |request| {
        let number = number(request).unwrap_or_default();
        let used = used(number);
        let mut memory = shared.lock().unwrap();
        memory.asked.insert(number);
        *memory.served.entry(request.model.clone()).or_default() += used.0 + used.1;
        deeds.get(&request.model).unwrap_or_else(|| panic!("{request:?}"))(
            Api::at(&request.path),
            used,
        )
    });
    (upstream.await, memory)
}

/// Everybody has budgets of both units: keys of their own, two teams, one organisation.
fn sections(folder: &Path, address: SocketAddr, endings: &[Ending]) -> String {
    let mut text = store(folder);
    for api in Api::ALL {
        text += &api.provider(address);
    }
    let budget = |tokens: u64, window: &str| {
        let usd = tokens / 1_000_000;
        format!("budget = [{{ tokens = {tokens}, {window} }}, {{ usd = {usd}.0, {window} }}]\n")
    };
    let (ever, month) = ("window = \"none\"", "window = \"30d\", rolling = true");
    let _ = writeln!(text, "[orgs.acme]\n{}", budget(1000 * PLENTY, "window = \"1mo\""));
    for team in ["t0", "t1"] {
        let _ = writeln!(text, "[teams.{team}]\norg = \"acme\"\n{}", budget(100 * PLENTY, month));
    }
    for (place, name) in KEYS.iter().enumerate() {
        let team = format!("team = \"t{}\"\n", place % 2);
        let own = format!("budget = [{{ tokens = {PLENTY}, {ever} }}, {{ usd = 9.0, {ever} }}]\n");
        text += &key(name, &(team + &own));
    }
    text += &key("poor", "team = \"t0\"\nbudget = [{ tokens = 400, window = \"none\" }]");
    text += &key("limited", "team = \"t1\"\nlimits = { requests = \"1/h\" }");
    let price = |target: &str| {
        format!("[models.\"{target}\"]\nprice = {{ input = 1.0, output = 1.0 }}\n\n")
    };
    for ending in endings {
        let (name, provider) = (&ending.name, ending.provider.name());
        let target = |model: String| format!("{provider}/{model}");
        let shadows = |which: &str| which == "shadow";
        let mut targets = Vec::new();
        for (which, _) in &ending.before {
            text += &price(&target(format!("{name}-{which}")));
            targets.extend((!shadows(which)).then(|| target(format!("{name}-{which}"))));
        }
        text += &price(&target(name.clone()));
        let own = format!("{{ target = \"{}\", prefill = true }}", target(name.clone()));
        let list: Vec<String> = targets.iter().map(|it| format!("\"{it}\"")).chain([own]).collect();
        let _ =
            writeln!(text, "[routes.{name}]\ntargets = [{}]\n{}", list.join(", "), ending.route);
        if ending.before.iter().any(|(which, _)| shadows(which)) {
            let shadow = target(format!("{name}-shadow"));
            let _ = writeln!(text, "shadow = {{ target = \"{shadow}\", sample = 1.0 }}");
        }
    }
    text + &price("chat/exact")
}

/// Makes one call and leaves it as its ending wants.
async fn call(address: SocketAddr, ending: &Ending, turn: usize, key: &str, memory: &Shared) {
    let (path, body) = (ending.ask)(&ending.name, &format!("Hello, this is call-{turn}."));
    let secret = format!("sk-{key}");
    let request = client::request(Method::POST, &path, &secret, body.to_string().into());
    match ending.leaves {
        Leaves::Never => drop(client::open(address, request).await.whole().await),
        Leaves::Behind(text) => {
            let mut opened = client::open(address, request).await;
            opened.read_until(text).await;
        }
        Leaves::Unanswered => {
            let mut asking = JoinSet::new();
            asking.spawn(client::open(address, request));
            until("the upstream is asked", || memory.lock().unwrap().asked.contains(&turn)).await;
            asking.abort_all();
            while asking.join_next().await.is_some() {}
        }
    }
}

/// All calls, some at once; each key makes calls of each ending.
async fn make_all(gateway: &Gateway, endings: &Arc<Vec<Ending>>, memory: &Shared) {
    let (places, mut calls) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    let mut names = HashMap::new();
    let note = |done: Result<(tokio::task::Id, ()), tokio::task::JoinError>,
                names: &HashMap<_, String>| {
        done.unwrap_or_else(|error| panic!("{}: {error}", names[&error.id()]));
    };
    for turn in 1..=CALLS {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (endings, memory, address) = (Arc::clone(endings), Arc::clone(memory), gateway.address);
        let name = endings[turn % endings.len()].name.clone();
        let task = calls.spawn(async move {
            let ending = &endings[turn % endings.len()];
            let key = ending.key.unwrap_or(KEYS[(turn / endings.len() + turn) % 4]);
            call(address, ending, turn, key, &memory).await;
            drop(place);
        });
        names.insert(task.id(), name);
        while let Some(done) = calls.try_join_next_with_id() {
            note(done, &names);
        }
    }
    while let Some(done) = calls.join_next_with_id().await {
        note(done, &names);
    }
}

/// What is told of each account: used tokens and nano-dollars. Nothing may be reserved.
async fn told(gateway: &Gateway) -> BTreeMap<String, (u64, u64)> {
    let mut all = BTreeMap::<String, (u64, u64)>::new();
    for name in KEYS.iter().chain(&["poor"]) {
        settled(gateway, name).await;
        for budget in budgets(gateway, name).await {
            assert_eq!(budget["reserved"].as_f64(), Some(0.0), "{budget}");
            let scope = budget["scope"].as_str().unwrap();
            let place = KEYS.iter().position(|key| key == name).unwrap_or_default() % 2;
            let owner = match scope {
                "key" => (*name).to_owned(),
                "team" => format!("t{place}"),
                _ => "acme".to_owned(),
            };
            let sum = all.entry(format!("{scope} {owner}")).or_default();
            match budget["unit"].as_str() {
                Some("tokens") => sum.0 = budget["used"].as_u64().unwrap(),
                _ => sum.1 = budget["used"].to_string().parse::<Money>().unwrap().nanos(),
            }
        }
    }
    all
}

/// The rows of one ending agree with what its upstream says.
fn check(ending: &Ending, rows: &[&Row], memory: &Memory) {
    let name = &ending.name;
    let outcomes: HashSet<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    if !ending.outcome.is_empty() {
        assert_eq!(outcomes, HashSet::from([ending.outcome]), "{name}");
    }
    for row in rows {
        assert_eq!(row.cost, row.counted * PRICE, "{name}: {row:?}");
        assert_eq!(row.source == "none", row.counted == 0, "{name}: {row:?}");
    }
    let source = match ending.tokens {
        Tokens::Upstream => "provider",
        Tokens::Estimate => "estimated",
        Tokens::None => "none",
        Tokens::Any => return,
    };
    let odd: Vec<_> = rows.iter().filter(|row| row.source != source).collect();
    assert!(odd.is_empty(), "{name} is not {source}: {odd:?}");
    if ending.tokens == Tokens::Upstream {
        let counted: u64 = rows.iter().map(|row| row.counted - row.beside).sum();
        assert_eq!(counted, memory.served[name], "{name}");
    }
}

fn check_all(endings: &[Ending], rows: &[Row], memory: &Shared) {
    let memory = memory.lock().unwrap();
    for ending in endings {
        let own = |row: &&Row| row.route == ending.name && row.purpose == "client";
        let rows: Vec<&Row> = rows.iter().filter(own).collect();
        let made = (1..=CALLS).filter(|turn| endings[turn % endings.len()].name == ending.name);
        let is_let_in = !matches!(&*ending.name, "stranger" | "unknown" | "misread");
        assert!(!is_let_in || rows.len() == made.count(), "{}: {rows:?}", ending.name);
        check(ending, &rows, &memory);
    }
}

/// Some streams are open when the gateway is told to stop.
async fn drain(mut gateway: Gateway) {
    let mut open = Vec::new();
    for key in KEYS {
        let (path, body) = Api::Chat.question("left-chat-by-chat", "Hello, this is call-0.", true);
        let secret = format!("sk-{key}");
        let request = client::request(Method::POST, &path, &secret, body.to_string().into());
        let mut stream = client::open(gateway.address, request).await;
        stream.read_until("Hello").await;
        open.push(stream);
    }
    gateway.signal(Signal::TERM);
    for stream in open {
        assert!(stream.whole().await.text().contains("shutting down"));
    }
    assert!(gateway.ended().await.success());
}

async fn exact(gateway: &Gateway, key: &str, most: u64) -> client::Answer {
    let said = json!([{"role": "user", "content": "Hello, this is call-0."}]);
    let body = json!({"model": "chat/exact", "max_tokens": most, "messages": said}).to_string();
    client::post(gateway.address, CHAT, &format!("sk-{key}"), body).await
}

/// A call that needs all that is left passes, and one that needs a token more does not.
async fn spend_the_rest(gateway: &Gateway, key: &str) {
    let left = settled(gateway, key).await["left"].as_u64().unwrap();
    let refusal = exact(gateway, key, left).await;
    let asked = refusal.text().split("this call may take ").nth(1).unwrap().to_owned();
    let asked: u64 = asked.split(' ').next().unwrap().parse().unwrap();
    let most = left - (asked - left);
    let refused = exact(gateway, key, most + 1).await;
    assert_eq!(
        (refused.status, refused.header("x-switchpoint-error")),
        (429, Some("budget_exceeded"))
    );
    assert_eq!(exact(gateway, key, most).await.status, 200);
    assert_eq!(settled(gateway, key).await["left"], left - 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_is_what_the_ledger_says_is_what_was_served_however_calls_end() {
    let folder = tempfile::tempdir().unwrap();
    let endings = Arc::new(endings());
    let (upstream, memory) = upstream(&endings).await;
    let sections = sections(folder.path(), upstream.address, &endings);
    let gateway = Gateway::start("", &sections).await;
    make_all(&gateway, &endings, &memory).await;
    until("every call is over", || upstream.busy() == 0).await;
    let before = told(&gateway).await;
    drain(gateway).await;

    let rows = ledger(folder.path());
    let (drained, made): (Vec<Row>, Vec<Row>) = rows
        .iter()
        .cloned()
        .partition(|row| row.route == "left-chat-by-chat" && row.outcome == "upstream_truncated");
    assert!(drained.len() == KEYS.len() && drained.iter().all(|row| row.source == "estimated"));
    check_all(&endings, &made, &memory);
    let sums = sums(&made);
    for (account, used) in &before {
        let spent = sums.get(account).copied().unwrap_or_default();
        let unit = if account.ends_with("poor") { (used.0, spent.1) } else { *used };
        assert_eq!(unit, spent, "{account}");
    }

    // Another process knows all of it, with what the drain has ended.
    let gateway = Gateway::start("", &sections).await;
    let again = told(&gateway).await;
    let sums = super::sums(&rows);
    for (account, used) in &again {
        assert_eq!(used.0, sums.get(account).copied().unwrap_or_default().0, "{account}");
    }
    for key in KEYS {
        spend_the_rest(&gateway, key).await;
    }
}
