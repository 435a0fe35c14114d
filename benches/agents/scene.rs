//! The gateway with its agents, the model and the tool they ask, and a client.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as Blocking},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    process::{self, Running},
    wire::read_request,
};

/// A gateway of its own for each case.
pub(crate) struct Scene {
    client: Client,
    upstream: SocketAddr,
    gateway: Running,
}

/// Asks the gateway; connections are not kept.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    gateway: u16,
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) took: Duration,
    body: Value,
}

// === impl Scene ===

impl Scene {
    pub(crate) async fn start(durability: &str) -> Self {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = upstream.local_addr().unwrap();
        // A thread of its own, so that the clients do not keep it waiting.
        let upstream = upstream.into_std().unwrap();
        std::thread::spawn(move || serve(upstream));
        let (port, admin) = (free_port().unwrap(), free_port().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("switchpoint.toml");
        fs::write(&file, configuration(port, admin, durability, address)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.arg("serve").arg("--config").arg(file).current_dir(folder.path());
        let log = File::create(folder.path().join("stdout.log")).unwrap();
        let mut gateway = Running::start(command.stdin(Stdio::null()).stdout(log)).unwrap();
        let client = Client { gateway: port };
        while client.ask("GET /healthz", "").await.is_err() {
            assert!(!gateway.poll_ended(), "the gateway ended at once");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { client, upstream: address, gateway: gateway.keeping(folder) }
    }

    pub(crate) fn client(&self) -> Client {
        self.client
    }

    pub(crate) async fn run(&self, number: usize) -> Answer {
        self.client.run(number).await
    }

    /// The same calls as those of a run, made by the client: the model's through the gateway.
    pub(crate) async fn by_hand(&self, steps: usize) -> Duration {
        let started = Instant::now();
        let mut messages = vec![json!({"role": "user", "content": "Go."})];
        for step in 0..steps {
            let tools = [json!({"type": "function", "function": {"name": "look", "parameters":
                {"type": "object", "properties": {"id": {"type": "string"}}}}})];
            let body =
                json!({"model": "smart", "stream": true, "messages": messages, "tools": tools});
            self.client.ask("POST /v1/chat/completions", &body.to_string()).await.unwrap();
            if step + 1 < steps {
                exchange(self.upstream, "GET /look/1", "").await.unwrap();
                let id = format!("call_{step}");
                let call = json!([{"id": id, "type": "function",
                    "function": {"name": "look", "arguments": format!("{{\"id\":\"{step}\"}}")}}]);
                messages.push(json!({"role": "assistant", "content": "Next.", "tool_calls": call}));
                messages
                    .push(json!({"role": "tool", "tool_call_id": id, "content": "{\"ok\":true}"}));
            }
        }
        started.elapsed()
    }

    /// Begins runs in the background and comes back when all of them wait for an approval.
    pub(crate) async fn wait_for_people(&self, runs: usize) {
        let mut begun = JoinSet::new();
        for number in 0..runs {
            let client = self.client;
            begun.spawn(async move { client.begin(number).await });
            if begun.len() == 64 {
                begun.join_next().await;
            }
        }
        begun.join_all().await;
        let busy = ["queued", "running"].map(|state| format!("GET /v1/agents/runs?state={state}"));
        for path in busy {
            while self.client.read(&path).await["data"] != json!([]) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let ended = self.client.read("GET /v1/agents/runs?state=failed").await;
        assert_eq!(ended["data"], json!([]), "every run waits");
    }

    /// Resident memory once the allocator has given back what it does not need.
    pub(crate) async fn settled_bytes(&self) -> usize {
        tokio::time::sleep(Duration::from_secs(4)).await;
        process::resident_bytes(self.gateway.id())
    }

    /// The most that was ever resident.
    pub(crate) fn peak_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    }
}

// === impl Client ===

impl Client {
    pub(crate) async fn run(self, number: usize) -> Answer {
        let body = json!({"model": "agent/ten",
            "messages": [{"role": "user", "content": format!("Go {number}.")}]});
        let started = Instant::now();
        let answer = self.ask("POST /v1/chat/completions", &body.to_string()).await;
        let body = answer.unwrap_or_else(|error| json!(error.to_string()));
        Answer { took: started.elapsed(), body }
    }

    async fn begin(self, number: usize) {
        let body = json!({"input": format!("Go {number}.")}).to_string();
        let run = self.ask("POST /v1/agents/careful/runs", &body).await.unwrap();
        assert!(run["id"].is_string(), "{run}");
    }

    async fn read(self, path: &str) -> Value {
        self.ask(path, "").await.unwrap()
    }

    async fn ask(self, line: &str, body: &str) -> io::Result<Value> {
        exchange((Ipv4Addr::LOCALHOST, self.gateway).into(), line, body).await
    }
}

// === impl Answer ===

impl Answer {
    /// It ended well, after so many calls of the model.
    pub(crate) fn completed(&self, steps: usize) -> bool {
        let told = &self.body["x_agent"];
        told["status"] == "completed" && told["model_calls"] == steps
    }
}

/// One request, and what of its answer is JSON: nothing of a stream.
async fn exchange(address: SocketAddr, line: &str, body: &str) -> io::Result<Value> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "{line} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer sk-bench\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !is_whole(&answer) && stream.read_buf(&mut answer).await? > 0 {}
    if !answer.starts_with(b"HTTP/1.1 2") {
        return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
    }
    // Whether sent in chunks or not, a whole answer is one object.
    let (start, end) = (memmem::find(&answer, b"\r\n\r\n{"), memchr::memrchr(b'}', &answer));
    let found = start.zip(end).and_then(|(start, end)| answer.get(start + 4..=end));
    let found = found.or_else(|| {
        let start = memmem::find(&answer, b"\r\n{")?;
        answer.get(start + 2..=end?)
    });
    Ok(found.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default())
}

/// Whether it is as long as it says: who scripts the upstream does not hang up.
fn is_whole(answer: &[u8]) -> bool {
    let told = memmem::find(answer, b"content-length: ").and_then(|at| {
        let told = answer.get(at + 16..)?;
        let end = memmem::find(told, b"\r\n")?;
        str::from_utf8(told.get(..end)?).ok()?.parse::<usize>().ok()
    });
    let head = memmem::find(answer, b"\r\n\r\n");
    told.zip(head).is_some_and(|(told, head)| answer.len() >= head + 4 + told)
}

fn configuration(port: u16, admin: u16, durability: &str, upstream: SocketAddr) -> String {
    format!(
        r#"[server]
listen = "127.0.0.1:{port}"
[admin]
listen = "127.0.0.1:{admin}"
key = "admin-bench-key"
[store]
url = "sqlite:bench.db"
[providers.bench]
kind = "openai-compatible"
base_url = "http://{upstream}/v1"
api_key = "bench-upstream-key"
[routes.smart]
targets = ["bench/m"]
[keys.bench]
secret = "sk-bench"
[agent_engine]
workers = 1000
durability = "{durability}"
[tools.look]
kind = "http"
effect = "read"
method = "GET"
url = "http://{upstream}/look/{{id}}"
[tools.look.input]
type = "object"
required = ["id"]
properties = {{ id = {{ type = "string" }} }}
[tools.pay]
kind = "http"
effect = "once"
method = "POST"
url = "http://{upstream}/pay"
[tools.pay.input]
type = "object"
properties = {{ id = {{ type = "string" }} }}
[tools.pay.approval]
expires = "24h"
[agents.ten]
route = "smart"
instructions = "Work."
tools = ["look"]
limits = {{ steps = 11, timeout = "10m", step_timeout = "5m" }}
budget = {{ model_calls = 30 }}
[agents.careful]
route = "smart"
instructions = "Work carefully."
tools = ["pay"]
"#
    )
}

fn free_port() -> io::Result<u16> {
    Ok(Blocking::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Model and tool: a request without a body is for the tool.
fn serve(listener: Blocking) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).unwrap();
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(converse(stream));
            while connections.try_join_next().is_some() {}
        }
    });
}

async fn converse(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(4096);
    while let Some(body) = read_request(&mut stream, &mut input).await? {
        let (kind, answer) = if body.is_empty() {
            ("application/json", r#"{"ok":true}"#.to_owned())
        } else {
            ("text/event-stream", turn(&body))
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: ";
        let length = answer.len();
        let answer = format!("{head}{kind}\r\ncontent-length: {length}\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Asks for a tool until it has nine results, and then is done.
fn turn(body: &Bytes) -> String {
    let results = memmem::find_iter(body, br#""role":"tool""#).count();
    let tool = if memmem::find(body, br#""pay""#).is_some() { "pay" } else { "look" };
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": choices, "usage": usage});
        format!("data: {chunk}\n\n")
    };
    let says = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "finish_reason": finish}]), Value::Null)
    };
    let mut text = if results < 9 {
        let call = json!({"index": 0, "id": format!("call_{results}"), "type": "function",
            "function": {"name": tool, "arguments": format!("{{\"id\":\"{results}\"}}")}});
        let next = says(json!({"role": "assistant", "content": "Next."}), Value::Null);
        next + &says(json!({"tool_calls": [call]}), Value::Null)
            + &says(json!({}), json!("tool_calls"))
    } else {
        says(json!({"role": "assistant", "content": "Done."}), Value::Null)
            + &says(json!({}), json!("stop"))
    };
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    text += &chunk(json!([]), usage);
    text + "data: [DONE]\n\n"
}
