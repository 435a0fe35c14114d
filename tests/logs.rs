//! The log tells what became of each call, and never holds one up.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::client::{CHAT, chat, get, post};
use crate::support::gateway::{KEY, config, provider, route};
use crate::support::replies::{REPLY, ask};
use crate::support::{Gateway, Script, Upstream, until};

/// A gateway whose output nobody reads but this test.
struct Unread {
    address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    _folder: TempDir,
}

impl Unread {
    fn start(upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, config("", &provider("up", upstream))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.env_clear().arg("serve").arg("--config").arg(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut banner = Vec::new();
        while !banner.iter().any(|line: &String| line.contains("Try it")) {
            let mut line = String::new();
            assert!(told.read_line(&mut line).unwrap() > 0, "{banner:?}");
            banner.push(line);
        }
        let address = |name: &str| {
            let line = banner.iter().find_map(|line| line.trim().strip_prefix(name)).unwrap();
            let (_, authority) = line.split_once("://").unwrap();
            authority.trim().split(['/', ' ']).next().unwrap().parse().unwrap()
        };
        let (address, admin) = (address("base URL"), address("admin"));
        Self { address, admin, child, output: Some(output), _folder: folder }
    }

    async fn calls(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(post(self.address, CHAT, KEY, ask("up/m")).await.status, 200);
        }
    }

    async fn ends_in_peace(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut status = None;
        until("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success());
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_call_and_no_end() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let gateway = Unread::start(&upstream);
    // More lines than a pipe holds.
    gateway.calls(300).await;
    gateway.ends_in_peace().await;
}

#[tokio::test]
async fn each_line_of_a_log_in_json_is_json_and_tells_its_time_by_one_name() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let mut gateway = Unread::start(&upstream);
    gateway.calls(1).await;
    let output = gateway.output.take().unwrap();
    gateway.ends_in_peace().await;
    let lines: Vec<String> = output.lines().map(Result::unwrap).collect();
    assert!(lines.len() > 1, "{lines:#?}");
    for line in lines {
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        let has_both = said["time"].is_string() && said["level"].is_string();
        assert!(has_both && said.get("timestamp").is_none(), "{line}");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_written_fails_no_call_and_is_counted() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    let mut gateway = Unread::start(&upstream);
    drop(gateway.output.take());
    let mut lost = false;
    while !lost {
        gateway.calls(5).await;
        let metrics = get(gateway.admin, "/metrics", "").await;
        let none = "switchpoint_log_lines_dropped_total 0\n";
        lost = !metrics.text().contains(none);
    }
    gateway.ends_in_peace().await;
}

#[tokio::test]
async fn a_warning_that_repeats_is_written_once_and_counted() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sections = format!(
        "[providers.gone]\nkind = \"openai-compatible\"\nbase_url = \"http://{nobody}/v1\"\n\
         api_key = \"sk-gone\"\n\n"
    );
    let mut gateway = Gateway::start("", &sections).await;
    for _ in 0..5 {
        assert!(chat(&gateway, ask("gone/m")).await.status >= 500);
    }
    gateway.recorded(5).await;
    gateway.signal(Signal::TERM);
    gateway.ended().await;
    let lines = || {
        let output = gateway.output();
        let parsed = output.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let parsed = parsed.filter(|line| line["level"] == "WARN");
        parsed.filter_map(|line| line["message"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let said = "an upstream gave no answer";
    until("the rest is told", || {
        lines().iter().any(|line| line.ends_with(&format!(" more like it: {said}")))
    })
    .await;
    assert_eq!(lines().iter().filter(|line| *line == said).count(), 1, "{:#?}", lines());
    let secrets = "a secret is written here in clear";
    let warned = gateway.output().iter().filter(|line| line.contains(secrets)).count();
    assert_eq!(warned, 3, "what differs is told");
}

#[tokio::test]
async fn a_line_tells_who_was_asked_who_was_not_and_why() {
    let upstream = Upstream::answering(|request| match &*request.model {
        "dead" => Script::json(503, r#"{"error":{"message":"down"}}"#),
        _ => Script::json(200, REPLY),
    })
    .await;
    let sections = provider("up", &upstream)
        + "[models.\"up/small\"]\ncontext = 1\n\n"
        + &route("safe", &["up/small", "up/dead", "up/good"], "")
        + "[routes.auto]\nstrategy = \"task\"\ndefault = \"safe\"\ntasks = { chat = \"safe\" }\n\n";
    let gateway = Gateway::start("", &sections).await;
    assert_eq!(chat(&gateway, ask("auto/chat")).await.status, 200);
    let line = gateway.record().await;
    assert_eq!(line["route"], "auto");
    assert_eq!(line["task"], "chat");
    assert_eq!(line["task_by"], "alias", "{line:#}");
    assert_eq!(line["failed"][0]["model"], "dead");
    let skipped = json!([{"provider": "up", "model": "small", "reason": "context"}]);
    assert_eq!(line["skipped"], skipped);
}
