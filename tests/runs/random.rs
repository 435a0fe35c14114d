//! Whatever goes wrong in a run, and whatever is done to it meanwhile, it goes only where a run may
//! go, does nothing twice, and ends once.

use std::collections::HashMap;
use std::sync::Mutex;

use futures_util::future;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{Stage, body, messages, says, search, wants};
use crate::support::gateway::KEY;
use crate::support::replies::{DONE, choice, role, usage, word};
use crate::support::upstream::Request;
use crate::support::{PATIENCE, Script};

/// What models and tools do, turn by turn: answer, or fail in some way.
const TURNS: [&str; 9] =
    ["says", "search", "searchfails", "garbled", "cut", "filtered", "refused", "asks", "pays"];
const PIPELINES: usize = 24;
const OVER: [&str; 6] = ["completed", "incomplete", "failed", "rejected", "cancelled", "expired"];

/// What is done to a run from outside.
#[derive(Debug, Clone, Copy)]
enum Deed {
    /// Until it does nothing by itself, it is left alone.
    Leave,
    Cancel {
        after_step: bool,
    },
    Pause,
    Resume,
    Answer,
    Decide {
        approve: bool,
    },
    Resolve,
}

#[derive(Debug, Clone)]
struct Pipeline {
    turns: Vec<&'static str>,
    /// Whether the payments that it makes vanish.
    vanishes: bool,
    deeds: Vec<Deed>,
}

fn pipelines() -> Vec<Pipeline> {
    let deed = prop_oneof![
        6 => Just(Deed::Leave),
        1 => any::<bool>().prop_map(|after_step| Deed::Cancel { after_step }),
        2 => Just(Deed::Pause),
        3 => Just(Deed::Resume),
        3 => Just(Deed::Answer),
        3 => any::<bool>().prop_map(|approve| Deed::Decide { approve }),
        2 => Just(Deed::Resolve),
    ];
    let turns = proptest::collection::vec(proptest::sample::select(&TURNS[..]), 1..7);
    let deeds = proptest::collection::vec(deed, 0..14);
    let one = (turns, any::<bool>(), deeds).prop_map(|(turns, vanishes, deeds)| Pipeline {
        turns,
        vanishes,
        deeds,
    });
    let mut runner = TestRunner::deterministic();
    (0..PIPELINES).map(|_| one.new_tree(&mut runner).unwrap().current()).collect()
}

/// What a user says who wants this pipeline: its number, and behind it what is to happen.
fn spoken(number: usize, pipeline: &Pipeline) -> String {
    let pay = if pipeline.vanishes { "vanish" } else { "pay" };
    format!("{number} {}", pipeline.turns.join(" ").replace("pays", pay))
}

/// The model: each time that it is asked for a pipeline, what comes next in it.
fn mind() -> impl Fn(&Request) -> Script + Send + 'static {
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    move |request| {
        let first = messages(request).into_iter().find(|it| it["role"] == "user").unwrap();
        let wanted = first["content"].as_str().unwrap().to_owned();
        let mut asked = asked.lock().unwrap();
        let turn = asked.entry(wanted.clone()).or_default();
        *turn += 1;
        let cannot = body(request)["tool_choice"] == "none";
        match wanted.split(' ').nth(*turn).unwrap_or("says") {
            _ if cannot => says(request, "That is all."),
            "search" => wants(request, &[("search", r#"{"q":"fine"}"#)]),
            "searchfails" => wants(request, &[("search", r#"{"q":"broken"}"#), ("search", "{}")]),
            "garbled" => wants(request, &[("search", r#"{"q":"#), ("nothing", "{}")]),
            "cut" => Script::stream_head().chunks([role(), word("I am")]).close(),
            "filtered" => {
                let end = choice("{}", r#""content_filter""#);
                Script::stream([role(), end, usage(), DONE.to_owned()])
            }
            "refused" => Script::json(400, r#"{"error":{"message":"No.","type":"invalid"}}"#),
            "asks" => wants(request, &[("ask_user", r#"{"question":"Which?"}"#)]),
            pay @ ("pay" | "vanish") => {
                let args = json!({"by": wanted, "turn": *turn}).to_string();
                wants(request, &[(pay, &args)])
            }
            _ => says(request, "It is done."),
        }
    }
}

fn tool(request: &Request) -> Script {
    match request.path.as_str() {
        path if path.contains("broken") => Script::json(400, "{}"),
        path if path.ends_with("/vanish") => Script::default().close(),
        _ => Script::json(200, r#"{"ok":true}"#),
    }
}

fn sections() -> String {
    let pay = |name: &str| {
        format!(
            "[tools.{name}]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{{tools}}/{name}\"\n\
             effect = \"once\"\napproval = {{}}\ninput = {{ type = \"object\" }}\n"
        )
    };
    format!(
        "{}{}{}[tools.ask_user]\nkind = \"builtin\"\nname = \"ask_user\"\n[agents.any]\n\
         route = \"fast\"\ninstructions = \"Do it.\"\n\
         tools = [\"search\", \"pay\", \"vanish\", \"ask_user\"]\n",
        search(""),
        pay("pay"),
        pay("vanish"),
    )
}

/// One run, and where it was seen last.
struct Watched<'a> {
    stage: &'a Stage,
    path: String,
    state: String,
}

impl Watched<'_> {
    /// How it stands now, which it may come to from how it stood.
    async fn look(&mut self) -> Value {
        let run = self.stage.get(&self.path).await;
        let state = run["state"].as_str().unwrap().to_owned();
        let is_over = OVER.contains(&self.state.as_str());
        let may = state == self.state || (!is_over && state != "queued");
        assert!(may, "{} -> {state}: {run:#}", self.state);
        self.state = state;
        run
    }

    async fn rests(&mut self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.look().await;
            if !["queued", "running"].contains(&self.state.as_str()) {
                return run;
            }
            assert!(Instant::now() < deadline, "it never rests: {run:#}");
            tokio::task::yield_now().await;
        }
    }

    /// Does something to it, which is done or refused as what cannot be done there.
    async fn post(&mut self, path: &str, body: Value) {
        let answer = self.stage.post(path, KEY, &body).await;
        let known = [200, 409].contains(&answer.status);
        assert!(known, "{path}: {} {}", answer.status, answer.text());
    }

    async fn suffers(&mut self, deed: Deed) {
        let path = self.path.clone();
        let to = |word: &str| format!("{path}/{word}");
        match deed {
            Deed::Leave => drop(self.rests().await),
            Deed::Cancel { after_step } => {
                let mode = if after_step { "after_step" } else { "now" };
                self.post(&to("cancel"), json!({"mode": mode})).await;
            }
            Deed::Pause => self.post(&to("pause"), json!({})).await,
            Deed::Resume => self.post(&to("resume"), json!({})).await,
            Deed::Answer => self.post(&to("input"), json!({"values": "This one."})).await,
            Deed::Decide { approve } => {
                let run = self.look().await;
                let Some(asked) = run["pending"]["approvals"][0]["id"].as_str() else { return };
                let decision = if approve { "approve" } else { "deny" };
                let path = format!("/v1/agents/approvals/{asked}");
                self.post(&path, json!({"decision": decision})).await;
            }
            Deed::Resolve => {
                let run = self.look().await;
                let open = &run["pending"]["unknown_outcomes"][0]["seq"];
                let seq = open.as_u64().unwrap_or(1);
                self.post(&to("resolve"), json!({"seq": seq, "outcome": "failed"})).await;
            }
        }
        self.look().await;
    }

    /// Ends it where it has not come to an end by itself, and looks back.
    async fn ends(mut self) -> String {
        self.rests().await;
        if !OVER.contains(&self.state.as_str()) {
            self.post(&format!("{}/cancel", self.path), json!({})).await;
        }
        let deadline = Instant::now() + PATIENCE;
        while !OVER.contains(&self.state.as_str()) {
            let run = self.look().await;
            assert!(Instant::now() < deadline, "it never ends: {run:#}");
            tokio::task::yield_now().await;
        }
        for word in ["pause", "resume", "input"] {
            let body = if word == "input" { json!({"values": "Late."}) } else { json!({}) };
            let answer = self.stage.post(&format!("{}/{word}", self.path), KEY, &body).await;
            assert_eq!(answer.status, 409, "{word}: {}", answer.text());
            let code = answer.json()["error"]["code"].clone();
            assert_eq!(code, "invalid_state_transition", "{word}");
        }
        self.look().await;
        let journal = self.stage.journal(self.path.rsplit('/').next().unwrap()).await;
        assert_sound(&journal, &self.state);
        self.state
    }
}

/// It ends once, with the state that is told, and each call has one outcome at most.
fn assert_sound(journal: &[(String, Value)], state: &str) {
    let ends: Vec<usize> =
        (0..journal.len()).filter(|place| journal[*place].0 == "run.ended").collect();
    assert_eq!(ends, [journal.len() - 1], "{journal:#?}");
    assert_eq!(journal[ends[0]].1["state"], state);
    let outcomes = ["tool.completed", "tool.failed", "tool.denied", "tool.rejected"];
    let mut seen: HashMap<String, (usize, usize)> = HashMap::new();
    for (kind, data) in journal {
        let Some(id) = data["id"].as_str().map(str::to_owned) else { continue };
        let (begun, over) = seen.entry(id).or_default();
        *begun += usize::from(kind == "tool.started");
        *over += usize::from(outcomes.contains(&kind.as_str()));
        assert!(*over <= 1, "{journal:#?}");
        // What must not happen twice, and all else that does not fail for a moment.
        assert!(*begun <= 1, "{journal:#?}");
    }
}

#[tokio::test]
async fn no_pipeline_of_failures_and_deeds_leads_a_run_where_it_may_not_go() {
    let stage = Stage::new(&sections(), mind(), tool).await;
    let all = pipelines();
    let runs = all.iter().enumerate().map(async |(number, pipeline)| {
        let path = stage.begin("any", &spoken(number, pipeline)).await;
        let mut run = Watched { stage: &stage, path, state: "queued".to_owned() };
        for deed in &pipeline.deeds {
            run.suffers(*deed).await;
        }
        run.ends().await
    });
    let ended = future::join_all(runs).await;
    assert_eq!(ended.len(), PIPELINES);
    // Nothing was paid twice.
    let mut paid: Vec<String> = stage
        .tools
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/pay") || request.path.ends_with("/vanish"))
        .map(|request| request.text().to_owned())
        .collect();
    let all = paid.len();
    paid.sort();
    paid.dedup();
    assert_eq!(paid.len(), all, "{paid:?}");
}
