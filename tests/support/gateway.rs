//! The real gateway as a child process, on ports of its own choice.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Upstream, client, until};

/// The key that tests call with.
pub(crate) const KEY: &str = "sk-test-key";
pub(crate) const ADMIN_KEY: &str = "sk-test-admin";

/// A running gateway. When it is dropped it is told to stop, and must do so in peace.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    /// Each closes when the child has closed one of its outputs.
    ends: Vec<Receiver<()>>,
    folder: TempDir,
    server: String,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway with one provider, `up`, whose targets are the scripts of `upstream`; `more` is
    /// further TOML.
    pub(crate) async fn before(upstream: &Upstream, more: &str) -> Self {
        Self::start("", &format!("{}{more}", provider("up", upstream))).await
    }

    /// A gateway with these lines in `[server]` and these sections behind it.
    pub(crate) async fn start(server: &str, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), config(server, sections)).unwrap();
        Self::run(folder, server).await
    }

    /// A gateway on the `config.toml` in this folder.
    pub(crate) async fn run(folder: TempDir, server: &str) -> Self {
        Self::run_with(folder, server, &[]).await
    }

    /// The same with these variables around it.
    pub(crate) async fn run_with(
        folder: TempDir,
        server: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        // A thousand streams are two thousand sockets; what the tests may open, the child may.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        // Nothing of the surroundings must change what the config says.
        command.env_clear().envs(std::env::vars().filter(|(name, _)| name == "PATH"));
        command.envs(environment.iter().copied());
        command.arg("serve").arg("--config").arg(folder.path().join("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = Arc::default();
        let ends = vec![
            collect(child.stdout.take().unwrap(), &output),
            collect(child.stderr.take().unwrap(), &output),
        ];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = server.to_owned();
        let mut gateway =
            Self { address: nowhere, admin: nowhere, child, output, ends, folder, server };
        gateway.read_banner().await;
        gateway
    }

    async fn read_banner(&mut self) {
        let after = |lines: &[String], name: &str| {
            let line = lines.iter().find_map(|line| line.trim().strip_prefix(name))?;
            let (_, authority) = line.trim().split_once("://")?;
            authority.split(['/', ' ']).next()?.parse().ok()
        };
        let mut found = None;
        until("the gateway prints its banner", || {
            let ended = self.child.try_wait().unwrap();
            let lines = self.output();
            found = after(&lines, "base URL").zip(after(&lines, "admin"));
            assert!(found.is_some() || ended.is_none(), "no start: {}", lines.join("\n"));
            found.is_some()
        })
        .await;
        (self.address, self.admin) = found.unwrap();
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Everything the process has printed.
    pub(crate) fn output(&self) -> Vec<String> {
        self.output.lock().unwrap().clone()
    }

    /// The lines of the access log.
    pub(crate) fn records(&self) -> Vec<Value> {
        let lines = self.output();
        let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.filter(|line| line["message"] == "call").collect()
    }

    /// The first `count` records, as soon as they are written.
    pub(crate) async fn recorded(&self, count: usize) -> Vec<Value> {
        until("calls are recorded", || self.records().len() >= count).await;
        self.records()
    }

    /// The record of the only call there was.
    pub(crate) async fn record(&self) -> Value {
        let records = self.recorded(1).await;
        assert_eq!(records.len(), 1, "{records:#?}");
        records[0].clone()
    }

    /// The sum of a metric over its series whose labels contain each of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let answer = client::get(self.admin, "/metrics", "").await;
        let series = answer.text().lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let named = series.split('{').next() == Some(name);
            (named && labels.iter().all(|label| series.contains(label))).then_some(value)
        });
        series.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Bytes of memory that it occupies.
    pub(crate) fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most that it ever occupied.
    pub(crate) fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Puts another config in the file's place and has it read.
    pub(crate) async fn reload(&self, sections: &str) -> client::Answer {
        let path = self.folder.path().join("config.toml");
        std::fs::write(path, config(&self.server, sections)).unwrap();
        client::post(self.admin, "/admin/config/reload", ADMIN_KEY, "").await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How it ended, when it does so unasked or was told by a signal.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the gateway ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Stops it, and gives every record there ever was.
    pub(crate) fn stop(mut self) -> Vec<Value> {
        self.end();
        self.records()
    }

    /// Ends it as a crash would: it is told nothing.
    pub(crate) fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.ends.clear();
        self.records()
    }

    /// SIGTERM, then the end within a deadline and without complaint.
    fn end(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::TERM);
        }
        for end in std::mem::take(&mut self.ends) {
            // Nothing is ever sent: the end of the output ends the wait.
            if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                self.child.kill().unwrap();
                self.fail("did not stop when told to");
            }
        }
        let status = self.child.wait().unwrap();
        let output = self.output();
        if !status.success() || output.iter().any(|line| line.contains("panicked")) {
            self.fail(&format!("ended with {status}"));
        }
    }

    fn fail(&self, what: &str) {
        let output = self.output().join("\n");
        // A second panic would abort the tests and hide the first.
        if std::thread::panicking() {
            println!("the gateway {what}:\n{output}");
        } else {
            panic!("the gateway {what}:\n{output}");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            println!("--- the gateway said:\n{}", self.output().join("\n"));
        }
    }
}

/// Gathers the lines of one output; the receiver closes at its end.
fn collect(output: impl Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) -> Receiver<()> {
    let (open, closed) = channel();
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
        drop(open);
    });
    closed
}

pub(crate) fn config(server: &str, sections: &str) -> String {
    let unless_said = |key: &str, line: &'static str| if server.contains(key) { "" } else { line };
    let drain = unless_said("drain =", "drain = \"100ms\"\n");
    let workers = unless_said("workers =", "workers = 2\n");
    let store = if sections.contains("[store]") { "" } else { "[store]\nurl = \"memory:\"\n\n" };
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{workers}{drain}{server}\n\n\
         [admin]\nlisten = \"127.0.0.1:0\"\nkey = \"{ADMIN_KEY}\"\n\n\
         [telemetry]\nlevel = \"debug\"\n\n{store}\
         [keys.test]\nsecret = \"{KEY}\"\n\n{sections}\n"
    )
}

/// The section of a provider without peculiarities.
pub(crate) fn provider(name: &str, upstream: &Upstream) -> String {
    let base = upstream.base();
    format!(
        "[providers.{name}]\nkind = \"openai-compatible\"\nbase_url = \"{base}\"\n\
         api_key = \"sk-upstream-{name}\"\n\n"
    )
}

/// The section of a route; `more` is further lines of it.
pub(crate) fn route(name: &str, targets: &[&str], more: &str) -> String {
    let mut text = format!("[routes.{name}]\ntargets = {targets:?}\n");
    let _ = writeln!(text, "{more}");
    text
}
