//! What was spent stays spent, however the process ends and whenever a budget is written.

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::apis::Api;
use super::{budget, key, ledger, settled, store, sums};
use crate::support::client::{self, Opened};
use crate::support::database::Schema;
use crate::support::gateway::{Gateway, provider, route};
use crate::support::upstream::Request;
use crate::support::{Script, Upstream, until};

const USED: u64 = 15;
const WINDOWS: [(&str, &str); 4] = [
    ("prepaid", "window = \"none\""),
    ("rolling", "window = \"1h\", rolling = true"),
    ("month", "window = \"1mo\", timezone = \"Europe/Berlin\""),
    ("days", "window = \"366d\""),
];

fn answer(request: &Request) -> Script {
    let begun = || {
        let events = Api::Chat.events((11, 4));
        Script::stream_head().chunks(&events[..2]).stall()
    };
    match (request.model.as_str(), request.variant.as_str()) {
        ("silent", "stream") => begun(),
        ("silent", _) => Script::default().stall(),
        (_, "stream") => Api::Chat.stream((11, 4)),
        _ => Api::Chat.whole((11, 4)),
    }
}

async fn ask(gateway: &Gateway, name: &str) {
    let (path, body) = Api::Chat.question("up/m", "Hi", false);
    let answer =
        client::post(gateway.address, &path, &format!("sk-{name}"), body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A stream that does not go on behind its first word.
async fn begin(gateway: &Gateway, name: &str) -> Opened {
    begin_at(gateway, name, "up/silent").await
}

async fn begin_at(gateway: &Gateway, name: &str, model: &str) -> Opened {
    let (path, body) = Api::Chat.question(model, "Hi", true);
    let body = body.to_string().into();
    let request = client::request(Method::POST, &path, &format!("sk-{name}"), body);
    let mut opened = client::open(gateway.address, request).await;
    opened.read_until("Hello").await;
    opened
}

#[tokio::test]
async fn every_kind_of_budget_knows_after_a_restart_what_was_spent_before() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(answer).await;
    let keys = WINDOWS.map(|(name, window)| {
        key(name, &format!("team = \"search\"\nbudget = [{{ tokens = 1000, {window} }}]"))
    });
    let sections = [
        store(folder.path()),
        provider("up", &upstream),
        "[models.\"up/m\"]\nprice = { input = 1.0, output = 1.0 }\n".to_owned(),
        "[teams.search]\nbudget = [{ usd = 5.0, window = \"none\" }]\n".to_owned(),
        keys.concat(),
    ]
    .concat();
    for turn in 1..=3 {
        let gateway = Gateway::start("", &sections).await;
        for (name, _) in WINDOWS {
            let before = budget(&gateway, name).await;
            assert_eq!(before["used"], (turn - 1) * USED, "{name}: {before}");
            ask(&gateway, name).await;
            let after = settled(&gateway, name).await;
            assert_eq!(
                (&after["used"], &after["left"]),
                (&json!(turn * USED), &json!(1000 - turn * USED))
            );
        }
        gateway.stop();
    }
    let gateway = Gateway::start("", &sections).await;
    let team = super::budgets(&gateway, "prepaid").await.remove(1);
    assert_eq!((&team["scope"], &team["used"]), (&json!("team"), &json!(0.00018)), "{team}");
}

/// Waits until each of so many budgets knows that so much is used.
async fn knows(gateway: &Gateway, count: usize, used: u64) {
    let began = Instant::now();
    loop {
        let told = super::budgets(gateway, "ci").await;
        assert_eq!(told.len(), count);
        if told.iter().all(|budget| budget["used"] == used) {
            return;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "not {used}: {told:?}");
    }
}

#[tokio::test]
async fn a_budget_that_is_written_later_knows_what_was_spent_before_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(answer).await;
    let base = [store(folder.path()), provider("up", &upstream)].concat();
    let unlimited = format!("{base}{}", key("ci", "team = \"search\"") + "[teams.search]\n");
    let gateway = Gateway::start("", &unlimited).await;
    for _ in 0..4 {
        ask(&gateway, "ci").await;
    }
    let mut calls = 4;
    let budgets = WINDOWS.map(|(_, window)| format!("{{ tokens = 10_000, {window} }}"));
    for count in 1..=WINDOWS.len() {
        let list = format!("budget = [{}]", budgets[..count].join(", "));
        let team = format!("[teams.search]\n{list}\n");
        let written = format!("{base}{}{team}", key("ci", &format!("team = \"search\"\n{list}")));
        until("all that ended is noted", || ledger(folder.path()).len() as u64 == calls).await;
        assert_eq!(gateway.reload(&written).await.status, 200);
        // A call that comes in the meantime is counted with the others, once.
        ask(&gateway, "ci").await;
        calls += 1;
        knows(&gateway, 2 * count, calls * USED).await;
    }
    gateway.stop();
    assert_eq!(sums(&ledger(folder.path()))["key ci"].0, calls * USED);
}

#[tokio::test]
async fn what_a_killed_process_had_under_way_counts_with_what_was_held_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(answer).await;
    let keys = ["a", "b"].map(|name| {
        key(name, "team = \"search\"\nbudget = [{ tokens = 100_000, window = \"none\" }]")
    });
    let team = "[teams.search]\nbudget = [{ tokens = 1_000_000, window = \"1mo\" }]\n".to_owned();
    let sections = [store(folder.path()), provider("up", &upstream), keys.concat(), team].concat();
    let mut ended = 0;
    for turn in 1..=3 {
        let gateway = Gateway::start("", &sections).await;
        for name in ["a", "b"].repeat(5) {
            ask(&gateway, name).await;
            ended += 1;
        }
        let open = [begin(&gateway, "a").await, begin(&gateway, "b").await];
        drop(begin(&gateway, "a").await);
        until("the client that left is noted", || upstream.busy() == 2).await;
        // Whoever was answered is noted with one write, so nothing is waited for but that.
        gateway.recorded(11).await;
        until("all is noted", || gateway.records().len() == 11).await;
        let before = [budget(&gateway, "a").await, budget(&gateway, "b").await];
        drop((gateway.kill(), open));
        until("the upstream is left", || upstream.busy() == 0).await;

        let gateway = Gateway::start("", &sections).await;
        let told = [settled(&gateway, "a").await, settled(&gateway, "b").await];
        let team = super::budgets(&gateway, "a").await.remove(1);
        assert_eq!(team["reserved"], 0);
        gateway.stop();
        let rows = ledger(folder.path());
        let sums = sums(&rows);
        for ((name, told), before) in ["a", "b"].iter().zip(&told).zip(&before) {
            assert_eq!(told["reserved"], 0);
            let all = ["used", "reserved"].map(|amount| before[amount].as_u64().unwrap());
            assert!(all[1] > 0 && told["used"] == all.iter().sum::<u64>(), "{before} {told}");
            assert_eq!(told["used"], sums[&format!("key {name}")].0, "{name}");
        }
        assert_eq!(team["used"], sums["team search"].0);
        let cut: Vec<_> = rows.iter().filter(|row| row.outcome == "internal").collect();
        assert_eq!(cut.len(), 2 * turn, "{cut:?}");
        assert!(cut.iter().all(|row| row.source == "estimated" && row.counted > 0), "{cut:?}");
        let whole = rows.iter().filter(|row| row.outcome == "ok" && row.counted == USED).count();
        assert_eq!((whole, rows.len()), (ended, ended + 3 * turn));
    }
}

async fn status(gateway: &Gateway, name: &str) -> u16 {
    let (path, body) = Api::Chat.question("up/m", "Hi", false);
    client::post(gateway.address, &path, &format!("sk-{name}"), body.to_string()).await.status
}

#[tokio::test]
async fn no_call_passes_by_a_new_budget_before_it_knows_what_was_spent() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(answer).await;
    let base = [store(folder.path()), provider("up", &upstream)].concat();
    let limit = |used: u64| format!("budget = [{{ tokens = {used}, window = \"none\" }}]");
    let gateway = Gateway::start("", &(base.clone() + &key("ci", ""))).await;
    for turn in 1..=5 {
        ask(&gateway, "ci").await;
        let answered = || ledger(folder.path()).iter().filter(|row| row.outcome == "ok").count();
        until("all that ended is noted", || answered() as u64 == turn).await;
        // What was spent is all there is.
        let written = base.clone() + &key("ci", &limit(turn * USED));
        assert_eq!(gateway.reload(&written).await.status, 200);
        let calls = (0..10).map(|_| status(&gateway, "ci"));
        assert_eq!(join_all(calls).await, [429; 10]);
        assert_eq!(gateway.reload(&(base.clone() + &key("ci", ""))).await.status, 200);
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[tokio::test]
async fn while_the_ledger_does_not_tell_it_a_new_budget_holds_calls_back_and_others_go_on() {
    let Some(mut schema) = Schema::new("past").await else { return };
    let upstream = Upstream::answering(answer).await;
    let (url, journal) = (schema.url(None), schema.journal("past"));
    let store = format!("[store]\nurl = \"{url}\"\njournal = \"{}\"\n", journal.display());
    let base = [store, provider("up", &upstream), key("free", "")].concat();
    let gateway = Gateway::start("", &(base.clone() + &key("ci", ""))).await;
    ask(&gateway, "ci").await;
    let spent = "SELECT count(*) FROM {schema}.calls WHERE outcome = 'ok'";
    let begin = Instant::now();
    while schema.number(spent).await == 0 {
        assert!(begin.elapsed() < crate::support::PATIENCE, "the journal is not taken in");
    }
    let client = schema.client().await;
    let lock = format!("BEGIN; LOCK TABLE {}.spent IN ACCESS EXCLUSIVE MODE", schema.name);
    client.batch_execute(&lock).await.unwrap();
    let limited = key("ci", &format!("budget = [{{ tokens = {USED}, window = \"none\" }}]"));
    assert_eq!(gateway.reload(&(base + &limited)).await.status, 200);
    assert_eq!(status(&gateway, "ci").await, 503);
    assert_eq!(status(&gateway, "free").await, 200);
    client.batch_execute("COMMIT").await.unwrap();
    let begin = Instant::now();
    let told = loop {
        let told = status(&gateway, "ci").await;
        if told != 503 {
            break told;
        }
        assert!(begin.elapsed() < crate::support::PATIENCE, "the past is never known");
    };
    assert_eq!((told, upstream.requests().len()), (429, 2));
}

#[tokio::test]
async fn who_waited_for_the_answer_of_another_has_used_nothing_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(answer).await;
    let sections = [
        store(folder.path()),
        provider("up", &upstream),
        key("ci", "budget = [{ tokens = 100_000, window = \"none\" }]"),
        route("r", &["up/silent"], "cache = { mode = \"on\", sampled = true }"),
    ]
    .concat();
    let gateway = Gateway::start("", &sections).await;
    let open = [begin_at(&gateway, "ci", "r").await, begin_at(&gateway, "ci", "r").await];
    assert_eq!(upstream.requests().len(), 1);
    let held = budget(&gateway, "ci").await["reserved"].as_u64().unwrap();
    drop((gateway.kill(), open));
    let gateway = Gateway::start("", &sections).await;
    assert_eq!(settled(&gateway, "ci").await["used"], held);
    let own = client::get(gateway.address, "/v1/me/usage", "sk-ci").await.json();
    assert_eq!(own["models"][0]["tokens"], held, "{own:#}");
}
