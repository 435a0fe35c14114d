//! A gateway with a scripted model and a scripted tools' server, and what tests of runs ask of it.

use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client::{self, Answer, CHAT, open, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies;
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

pub(crate) const OPERATOR: &str = "sk-operator-key";

pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) model: Upstream,
    pub(crate) tools: Upstream,
}

impl Stage {
    /// `{tools}` in the sections is where the tools' server listens.
    pub(crate) async fn new(
        sections: &str,
        mind: impl Fn(&Request) -> Script + Send + 'static,
        tool: impl Fn(&Request) -> Script + Send + 'static,
    ) -> Self {
        let model = Upstream::answering(mind).await;
        let tools = Upstream::answering(tool).await;
        let sections = written(&model, &tools, sections);
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    pub(crate) async fn reload(&self, sections: &str) {
        let answer = self.try_reload(sections).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    pub(crate) async fn try_reload(&self, sections: &str) -> Answer {
        self.gateway.reload(&written(&self.model, &self.tools, sections)).await
    }

    /// Another process beside this one.
    pub(crate) async fn beside(&self, sections: &str) -> Gateway {
        Gateway::start("", &written(&self.model, &self.tools, sections)).await
    }

    /// Another process in the place of this one.
    pub(crate) async fn restart(self, sections: &str) -> Self {
        let Self { gateway, model, tools } = self;
        gateway.stop();
        let sections = written(&model, &tools, sections);
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    /// The same, when this one has died.
    pub(crate) async fn crash(self, sections: &str) -> Self {
        let Self { gateway, model, tools } = self;
        gateway.kill();
        let sections = written(&model, &tools, sections);
        Self { gateway: Gateway::start("", &sections).await, model, tools }
    }

    /// Asks an agent by chat completions, whole.
    pub(crate) async fn chat(&self, agent: &str, text: &str) -> Value {
        self.chat_in(agent, text, &[]).await.json()
    }

    pub(crate) async fn chat_in(
        &self,
        agent: &str,
        text: &str,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        ask(&self.gateway, agent, text, headers).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = client::get(self.gateway.address, path, KEY).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        post(&self.gateway, path, key, body).await
    }

    /// Begins a run and gives its path.
    pub(crate) async fn begin(&self, agent: &str, input: &str) -> String {
        let path = format!("/v1/agents/{agent}/runs");
        let answer = self.post(&path, KEY, &json!({"input": input})).await;
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    /// The run at this path, as soon as it is in this state.
    pub(crate) async fn in_state(&self, path: &str, state: &str) -> Value {
        in_state(&self.gateway, path, state).await
    }

    /// The journal of a run, each entry as its name and its data.
    pub(crate) async fn journal(&self, run: &str) -> Vec<(String, Value)> {
        let path = format!("/v1/agents/runs/{run}/events?limit=500");
        let mut asked = request(Method::GET, &path, KEY, "".into());
        asked.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
        let page = open(self.gateway.address, asked).await.whole().await.json();
        let rows = page["data"].as_array().unwrap().clone();
        rows.into_iter()
            .map(|row| (row["type"].as_str().unwrap().to_owned(), row["data"].clone()))
            .collect()
    }
}

pub(crate) async fn post(gateway: &Gateway, path: &str, key: &str, body: &Value) -> Answer {
    let mut asked = request(Method::POST, path, key, body.to_string().into());
    asked.headers_mut().insert("if-match", HeaderValue::from_static("*"));
    open(gateway.address, asked).await.whole().await
}

pub(crate) async fn ask(
    gateway: &Gateway,
    agent: &str,
    text: &str,
    headers: &[(&'static str, &str)],
) -> Answer {
    let body = json!({
        "model": format!("agent/{agent}"), "messages": [{"role": "user", "content": text}],
    });
    let mut asked = request(Method::POST, CHAT, KEY, body.to_string().into());
    for (name, value) in headers {
        asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    open(gateway.address, asked).await.whole().await
}

pub(crate) async fn in_state(gateway: &Gateway, path: &str, state: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = client::get(gateway.address, path, KEY).await.json();
        if run["state"] == state {
            return run;
        }
        assert!(Instant::now() < deadline, "never {state}: {run:#}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn written(model: &Upstream, tools: &Upstream, sections: &str) -> String {
    let sections = sections.replace("{tools}", &tools.base());
    let operator = format!("[keys.operator]\nsecret = \"{OPERATOR}\"\nrole = \"operator\"\n\n");
    format!("{operator}{}{}{sections}", provider("up", model), route("fast", &["up/m"], ""))
}

/// A tool that is asked by GET with a `q`.
pub(crate) fn search(more: &str) -> String {
    format!(
        "[tools.search]\nkind = \"http\"\nmethod = \"GET\"\nurl = \"{{tools}}/search\"\n\
         effect = \"read\"\n{more}\n[tools.search.input]\ntype = \"object\"\n\
         properties = {{ q = {{ type = \"string\" }}, page = {{ type = \"integer\" }} }}\n\n"
    )
}

/// What a model says that wants these called, in the form in which it was asked.
pub(crate) fn wants(request: &Request, calls: &[(&str, &str)]) -> Script {
    let turn = messages(request).len();
    let ids: Vec<_> = (0..calls.len()).map(|place| format!("call_{turn}_{place}")).collect();
    let calls: Vec<_> =
        calls.iter().zip(&ids).map(|((name, args), id)| (&**id, *name, *args)).collect();
    if is_streamed(request) {
        return Script::stream(replies::calls(&calls));
    }
    let call = |(id, name, args): &(&str, &str, &str)| json!({"id": id, "type": "function", "function": {"name": name, "arguments": args}});
    let calls: Vec<Value> = calls.iter().map(call).collect();
    whole(&json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
}

/// The same for a text.
pub(crate) fn says(request: &Request, text: &str) -> Script {
    if !is_streamed(request) {
        return whole(&json!({"role": "assistant", "content": text}), "stop");
    }
    Script::stream(replies::says(text))
}

fn whole(message: &Value, reason: &str) -> Script {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    });
    Script::json(200, &body.to_string())
}

fn is_streamed(request: &Request) -> bool {
    body(request)["stream"] == true
}

pub(crate) fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

pub(crate) fn messages(request: &Request) -> Vec<Value> {
    body(request)["messages"].as_array().unwrap().clone()
}

/// The texts of a question, one a message.
pub(crate) fn texts(request: &Request) -> Vec<String> {
    let text = |it: &Value| it["content"].as_str().unwrap_or_default().to_owned();
    messages(request).iter().map(text).collect()
}

/// How many results of tools a question holds.
pub(crate) fn results(request: &Request) -> usize {
    messages(request).iter().filter(|message| message["role"] == "tool").count()
}

pub(crate) fn found(_: &Request) -> Script {
    Script::json(200, r#"{"found":"something"}"#)
}
