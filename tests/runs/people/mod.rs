//! Runs and people: what an agent may do by itself, who is asked and told, and what becomes of a run
//! when its models, its agents or its people are not there.

mod answers;
mod failing;
mod others;
mod repeats;
mod sure;
mod told;

use std::path::Path;
use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, CHAT, open, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{self, DONE, choice, role, usage, word};
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

const LEAD: &str = "sk-lead-key";
const CLERK: &str = "sk-clerk-key";
const RUNNING: &str = "state=\"running\"";

/// Keys, two tools and the agents of a test.
fn sections(tools: &Upstream, more: &str) -> String {
    let base = tools.base();
    format!(
        r#"
[keys.lead]
secret = "{LEAD}"
tags = {{ role = "lead" }}
[keys.clerk]
secret = "{CLERK}"
tags = {{ role = "clerk" }}
[tools.look]
kind = "http"
method = "GET"
url = "{base}/look"
effect = "read"
[tools.act]
kind = "http"
method = "POST"
url = "{base}/act"
effect = "idempotent"
[tools.pay]
kind = "http"
method = "POST"
url = "{base}/pay"
effect = "once"
risk = "high"
approval = {{ roles = ["lead"] }}
[tools.pay.input]
type = "object"
required = ["amount"]
additionalProperties = false
properties = {{ to = {{ type = "string" }}, amount = {{ type = "integer", maximum = 100 }} }}
{more}
"#
    )
}

/// A gateway before a scripted model, the server of its tools, and whoever is told by hooks.
struct House {
    gateway: Gateway,
    model: Upstream,
    tools: Upstream,
}

impl House {
    /// `agents`: in TOML, on the route `fast`.
    async fn new(agents: &str, mind: impl Fn(&Request) -> Script + Send + 'static) -> Self {
        let tools = Upstream::answering(|_| Script::json(200, r#"{"done":true}"#)).await;
        Self::with(tools, agents, mind).await
    }

    async fn with(
        tools: Upstream,
        agents: &str,
        mind: impl Fn(&Request) -> Script + Send + 'static,
    ) -> Self {
        let model = Upstream::answering(mind).await;
        let text = Self::text(&model, &tools, agents);
        Self { gateway: Gateway::start("", &text).await, model, tools }
    }

    fn text(model: &Upstream, tools: &Upstream, agents: &str) -> String {
        let fast = route("fast", &["up/m"], "attempts = 1");
        format!("{}{fast}{}", provider("up", model), sections(tools, agents))
    }

    /// Ends it as a crash would, and begins it again.
    async fn crash(self, agents: &str) -> Self {
        let Self { gateway, model, tools } = self;
        gateway.kill();
        let text = Self::text(&model, &tools, agents);
        Self { gateway: Gateway::start("", &text).await, model, tools }
    }

    async fn send(
        &self,
        key: &str,
        path: &str,
        body: &Value,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        let mut asked = request(Method::POST, path, key, body.to_string().into());
        for (name, value) in headers {
            asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        open(self.gateway.address, asked).await.whole().await
    }

    async fn chat(&self, agent: &str, text: &str) -> Answer {
        let body = json!({"model": format!("agent/{agent}"),
            "messages": [{"role": "user", "content": text}]});
        self.send(KEY, CHAT, &body, &[]).await
    }

    /// Begins a run in the background and gives its path.
    async fn begin(&self, agent: &str, body: Value) -> String {
        let path = format!("/v1/agents/{agent}/runs");
        let answer = self.send(KEY, &path, &body, &[]).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, KEY).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn in_state(&self, path: &str, state: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(path).await;
            if run["state"] == state {
                return run;
            }
            assert!(Instant::now() < deadline, "never {state}: {run:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The journal of a run: what each entry is, and what it says.
    async fn journal(&self, path: &str) -> Vec<(String, Value)> {
        let path = format!("{path}/events");
        let mut wanted = request(Method::GET, &path, KEY, bytes::Bytes::new());
        wanted.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
        let events = open(self.gateway.address, wanted).await.whole().await.json();
        let rows = events["data"].as_array().unwrap();
        let read = |row: &Value| (row["type"].as_str().unwrap().to_owned(), row["data"].clone());
        rows.iter().map(read).collect()
    }

    async fn kinds(&self, path: &str) -> Vec<String> {
        self.journal(path).await.into_iter().map(|(kind, _)| kind).collect()
    }

    /// The only approval that is pending for the lead.
    async fn pending(&self) -> Value {
        let path = "/v1/agents/approvals?state=pending";
        let list = client::get(self.gateway.address, path, LEAD).await.json();
        assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list:#}");
        list["data"][0].clone()
    }

    async fn decide(&self, key: &str, approval: &Value, body: Value) -> Answer {
        let path = format!("/v1/agents/approvals/{}", approval["id"].as_str().unwrap());
        let hash = format!("\"{}\"", approval["args_hash"].as_str().unwrap());
        self.send(key, &path, &body, &[("if-match", &hash)]).await
    }

    /// What its tools were asked, by their paths' ends.
    fn touched(&self, tool: &str) -> usize {
        self.tools.requests().iter().filter(|request| request.path.ends_with(tool)).count()
    }
}

fn store(path: &Path) -> String {
    let path = path.display();
    format!("[store]\nurl = \"sqlite:{path}\"\n\n[agent_engine]\nlease_ttl = \"1s\"\n\n")
}

/// A turn in which these are called.
fn wants(calls: &[(&str, Value)]) -> Script {
    let texts: Vec<_> = calls.iter().map(|(name, args)| (*name, args.to_string())).collect();
    wants_text(&texts)
}

fn wants_text(calls: &[(&str, String)]) -> Script {
    let ids: Vec<_> =
        calls.iter().enumerate().map(|(place, (name, _))| format!("call_{name}_{place}")).collect();
    let calls: Vec<_> =
        calls.iter().zip(&ids).map(|((name, args), id)| (&**id, *name, &**args)).collect();
    Script::stream(replies::calls(&calls))
}

fn says(text: &str) -> Script {
    Script::stream(replies::says(text))
}

fn messages(request: &Request) -> Vec<Value> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["messages"].as_array().unwrap().clone()
}

/// What its user has said first.
fn asked(request: &Request) -> String {
    let messages = messages(request);
    let first = messages.iter().find(|message| message["role"] == "user").unwrap();
    first["content"].as_str().unwrap().to_owned()
}

/// The results of tools that a question holds.
fn results(request: &Request) -> Vec<String> {
    let messages = messages(request);
    let results = messages.iter().filter(|message| message["role"] == "tool");
    results.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}
