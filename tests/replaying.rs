//! Calls that are kept in files, and played again against a config.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{chat, post};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, finish, role, word};
use crate::support::{Gateway, Script, Upstream, until};

/// The section that keeps calls in this folder.
fn record(folder: &Path, more: &str) -> String {
    format!("[record]\nconsent = true\nfolder = {:?}\n{more}\n", folder.display().to_string())
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("calls.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The calls that were kept, as soon as there are so many.
async fn kept(folder: &Path, count: usize) -> Vec<Value> {
    until("calls are kept", || {
        let path = folder.join("calls.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.matches('\n').count() >= count
    })
    .await;
    lines(folder)
}

fn replay(folder: &Path, config: &str, more: &[&str]) -> (Option<i32>, String) {
    let path = folder.join("new.toml");
    std::fs::write(&path, config).unwrap();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_switchpoint"))
        .env_clear()
        .arg("replay")
        .arg(folder.join("calls.jsonl"))
        .arg("--config")
        .arg(path)
        .args(more)
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

fn config(sections: &str) -> String {
    format!("[store]\nurl = \"memory:\"\n[keys.test]\nsecret = \"{KEY}\"\n\n{sections}")
}

const PRICES: &str = "[models.\"up/cheap\"]\nprice = { input = 1, output = 1 }\n\
    [models.\"up/dear\"]\nprice = { input = 10, output = 10 }\n";

#[tokio::test]
async fn a_call_is_kept_as_it_was_asked_and_with_where_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start([
        ("bad", vec![Script::json(500, "{}")]),
        ("good", vec![Script::json(200, REPLY)]),
    ])
    .await;
    let sections = record(folder.path(), "bodies = \"whole\"\nanswers = true\n")
        + &route("fast", &["up/bad", "up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    let body = ask("fast").replace("\"fast\"", "\"fast\",\"user\":\"sk-upstream-up\"");
    assert_eq!(chat(&gateway, body).await.status, 200);
    let kept = kept(folder.path(), 1).await;
    let call = &kept[0];
    assert_eq!(call["body"]["model"], "fast");
    assert_eq!((&call["surface"], &call["route"]), (&"chat".into(), &"fast".into()));
    assert_eq!(call["attempts"][0]["model"], "bad");
    assert_eq!(call["attempts"][0]["status"], 500);
    assert_eq!(call["attempts"][1]["outcome"], "ok");
    assert!(call["answer"].as_str().unwrap().contains("choices"));
    let text = call.to_string();
    assert!(!text.contains(KEY) && !text.contains("sk-upstream-up"), "{text}");
    assert!(call["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn nothing_is_kept_without_consent_and_words_only_where_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start([("good", [Script::json(200, REPLY)])]).await;
    let sections = record(folder.path(), "").replace("consent = true", "consent = false")
        + &route("fast", &["up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    gateway.stop();
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());

    let sections = record(folder.path(), "") + &route("fast", &["up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    let body = r#"{"model":"fast","messages":[{"role":"user","content":"My name is Ann 7"}]}"#;
    assert_eq!(chat(&gateway, body).await.status, 200);
    let call = &kept(folder.path(), 1).await[0];
    assert_eq!(call["body"]["messages"][0]["content"], "xx xxxx xx xxx 0");
    assert_eq!(call["body"]["messages"][0]["role"], "user");
    assert!(call.get("answer").is_none());
}

#[tokio::test]
async fn only_the_routes_and_keys_that_are_named_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start([("good", [Script::json(200, REPLY)])]).await;
    let sections = record(folder.path(), "routes = [\"fast\"]\nkeys = [\"te*\"]\n")
        + "[keys.other]\nsecret = \"sk-other\"\n"
        + &route("fast", &["up/good"], "")
        + &route("slow", &["up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    assert_eq!(chat(&gateway, ask("slow")).await.status, 200);
    let path = "/v1/chat/completions";
    assert_eq!(post(gateway.address, path, "sk-other", ask("fast")).await.status, 200);
    assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    gateway.stop();
    let kept = lines(folder.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!((&kept[0]["route"], &kept[0]["key"]), (&"fast".into(), &"test".into()));
}

#[tokio::test]
async fn full_files_are_put_away_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start([("good", [Script::json(200, REPLY)])]).await;
    let sections = record(folder.path(), "max_file = \"1KiB\"\nmax_files = 3\n")
        + &route("fast", &["up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    for _ in 0..8 {
        assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    }
    gateway.stop();
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["calls.1.jsonl", "calls.2.jsonl", "calls.jsonl"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_fails_no_call() {
    let upstream = Upstream::start([("good", [Script::json(200, REPLY)])]).await;
    let sections = record(Path::new("/proc/nowhere"), "") + &route("fast", &["up/good"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    let metrics = async || gateway.metric("switchpoint_recordings_total", &["failed"]).await;
    let mut failed = metrics().await;
    while failed < 1.0 {
        failed = metrics().await;
    }
}

#[tokio::test]
async fn played_against_its_own_config_nothing_is_different() {
    let folder = tempfile::tempdir().unwrap();
    let stream = Script::stream([role(), word("Hello"), finish()]);
    let upstream = Upstream::start([
        ("bad", vec![Script::json(429, "{}")]),
        ("cheap", vec![Script::json(200, REPLY)]),
        ("dear", vec![Script::json(200, REPLY)]),
        ("cheap?stream", vec![stream.clone()]),
        ("dear?stream", vec![stream]),
    ])
    .await;
    let sections = provider("up", &upstream)
        + PRICES
        + &route("chance", &["up/cheap", "up/dear"], "strategy = \"weighted\"\n")
        + &route("failing", &["up/bad", "up/cheap"], "");
    let all = record(folder.path(), "bodies = \"whole\"\n") + &sections;
    let gateway = Gateway::start("", &all).await;
    for _ in 0..12 {
        assert_eq!(chat(&gateway, ask("chance")).await.status, 200);
    }
    assert_eq!(chat(&gateway, ask_stream("chance")).await.status, 200);
    assert_eq!(chat(&gateway, ask("failing")).await.status, 200);
    assert_eq!(chat(&gateway, ask("up/dear")).await.status, 200);
    gateway.stop();
    let kept = lines(folder.path());
    let models: std::collections::BTreeSet<&str> =
        kept[..12].iter().map(|call| call["attempts"][0]["model"].as_str().unwrap()).collect();
    assert_eq!(models.len(), 2, "chance has fallen both ways");

    let asked = upstream.requests().len();
    let (code, said) = replay(folder.path(), &config(&sections), &[]);
    assert!(said.contains("15 calls, 0 different, 0 left out"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(upstream.requests().len(), asked, "nobody real was called");
}

#[tokio::test]
async fn played_against_another_config_the_differences_are_told_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start([
        ("cheap", [Script::json(200, REPLY)]),
        ("dear", [Script::json(200, REPLY)]),
    ])
    .await;
    let before = provider("up", &upstream) + PRICES + &route("fast", &["up/cheap"], "");
    let all = record(folder.path(), "bodies = \"whole\"\nanswers = true\n") + &before;
    let gateway = Gateway::start("", &all).await;
    assert_eq!(chat(&gateway, ask("fast")).await.status, 200);
    assert_eq!(chat(&gateway, ask("up/cheap")).await.status, 200);
    gateway.stop();

    let after = provider("up", &upstream) + PRICES + &route("fast", &["up/dear"], "");
    let (code, said) = replay(folder.path(), &config(&after), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("targets: up/cheap -> up/dear"), "{said}");
    assert!(said.contains("2 calls, 1 different"), "{said}");

    assert!(!said.contains("keys that this config does not have"), "{said}");
    let strangers = config(&after).replace("[keys.test]", "[keys.other]");
    let (_, said) = replay(folder.path(), &strangers, &[]);
    assert!(said.contains("2 calls by keys that this config does not have"), "{said}");

    let (_, said) = replay(folder.path(), &config(&after), &["--json"]);
    let told: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum = told.last().unwrap();
    let [before, after] =
        ["cost_before_usd", "cost_after_usd"].map(|key| sum[key].as_f64().unwrap());
    assert!((after / before - 5.5).abs() < 1e-6, "{sum}");

    let gone = provider("up", &upstream) + PRICES + &route("other", &["up/dear"], "");
    let (code, said) = replay(folder.path(), &config(&gone), &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("model_not_found"), "{said}");
    let (code, said) = replay(folder.path(), "[nonsense]\n", &[]);
    assert_eq!(code, Some(2), "{said}");
}

#[tokio::test]
async fn a_call_whose_client_left_is_kept_too() {
    let folder = tempfile::tempdir().unwrap();
    let stalled = Script::stream_head().chunks([role(), word("One")]).stall();
    let upstream = Upstream::start([("slow", [stalled])]).await;
    let sections = record(folder.path(), "") + &route("fast", &["up/slow"], "");
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut opened = crate::support::client::open_chat(&gateway, ask_stream("fast")).await;
    let piece = tokio::time::timeout(Duration::from_secs(10), opened.next()).await;
    assert!(piece.unwrap().is_some());
    drop(opened);
    assert_eq!(kept(folder.path(), 1).await[0]["outcome"], "client_closed");
}
