//! What models are asked beside the steps of a run, what is lost with a process, and what is left for
//! the last word: all of it ends with the run, is paid for, and stands in the journal.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::stage::{Stage, body, found, results, says, search, wants};
use crate::support::gateway::KEY;
use crate::support::upstream::Request;
use crate::support::{Script, until};

/// Two thousand tokens.
fn prose(_: &Request) -> Script {
    Script::reply(200, &[("content-type", "text/plain")], "It says this. ".repeat(600))
}

/// One that reads more than its model can take in, unless older turns are told in short by `brief`.
fn reader() -> String {
    format!(
        "{}[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\ntools = [\"search\"]\n\
         limits = {{ steps = 40 }}\nbudget = {{ model_calls = 100, tool_calls = 100 }}\n\
         [models.\"up/m\"]\ncontext = 8000\nfeatures = [\"tools\"]\n\
         [models.\"up/brief\"]\ncontext = 8000\nprice = {{ input = 1, output = 1 }}\n\
         [routes.brief]\ntargets = [\"up/brief\"]\n\
         [agents.reader.context]\nsummariser = \"brief\"\n",
        search("repeatable = true")
    )
}

/// Reads page after page; what `brief` says is up to the test.
fn reads(request: &Request, asked: &AtomicUsize, brief: impl Fn(&Request) -> Script) -> Script {
    if request.model == "brief" {
        return brief(request);
    }
    match asked.fetch_add(1, Ordering::SeqCst) + 1 {
        page @ 1..=8 => wants(request, &[("search", &format!(r#"{{"page":{page}}}"#))]),
        _ => says(request, "I have read it all."),
    }
}

/// What was asked for as a summary, and what came of each.
fn summaries(journal: &[(String, Value)]) -> (usize, Vec<&Value>) {
    let is_asked = |(kind, data): &&(String, Value)| {
        kind == "model.requested" && data["summary"] == true && data["call"] == 0
    };
    let failed = journal.iter().filter(|(kind, data)| kind == "model.failed" && data["call"] == 0);
    (journal.iter().filter(is_asked).count(), failed.map(|(_, data)| data).collect())
}

#[tokio::test]
async fn a_summary_that_nobody_gives_is_paid_for_and_the_run_goes_on_without() {
    let asked = AtomicUsize::new(0);
    let empty = |request: &Request| says(request, " ");
    let stage = Stage::new(&reader(), move |it| reads(it, &asked, empty), prose).await;
    let answer = stage.chat("reader", "What do the pages say?").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "I have read it all.", "{answer}");
    let run = answer["x_agent"]["run_id"].as_str().unwrap();
    let journal = stage.journal(run).await;
    let (asked, failed) = summaries(&journal);
    assert!(asked > 0 && asked == failed.len(), "{asked}: {failed:?}");
    for failed in &failed {
        let told = (&failed["code"], &failed["usage"]["input"], &failed["cost"]);
        assert_eq!(told, (&json!("invalid_output"), &json!(11), &json!(15_000)));
    }
    let sum = |kind: &str| -> u64 {
        let entries = journal.iter().filter(|(known, _)| known == kind);
        entries.map(|(_, data)| data["usage"]["input"].as_u64().unwrap()).sum()
    };
    let used = sum("model.completed") + sum("model.failed");
    assert_eq!(answer["usage"]["prompt_tokens"], used, "{answer}");
    let steps = stage.get(&format!("/v1/agents/runs/{run}/steps")).await;
    let told = steps["data"].as_array().unwrap().iter().filter(|it| it["type"] == "compaction");
    assert_eq!(told.filter(|it| it["state"] == "failed").count(), asked, "{steps:#}");
}

#[tokio::test]
async fn a_summary_is_called_off_with_its_run() {
    let asked = AtomicUsize::new(0);
    let silent = |_: &Request| Script::default().stall();
    let stage = Stage::new(&reader(), move |it| reads(it, &asked, silent), prose).await;
    let path = stage.begin("reader", "What do the pages say?").await;
    let is_asked = || stage.model.requests().iter().any(|request| request.model == "brief");
    until("a summary is asked for", is_asked).await;
    let steps = stage.model.requests().len();
    let began = Instant::now();
    let answer = stage.post(&format!("{path}/cancel"), KEY, &json!({})).await;
    assert!(answer.status < 300, "{}", answer.text());
    until("nobody is asked any more", || stage.model.busy() == 0).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let over = stage.in_state(&path, "cancelled").await;
    assert_eq!(stage.model.requests().len(), steps, "nothing was asked behind it: {over:#}");
    let journal = stage.journal(path.rsplit('/').next().unwrap()).await;
    let (asked, failed) = summaries(&journal);
    assert_eq!((asked, failed.len()), (1, 1), "{journal:?}");
    assert_eq!(failed[0]["code"], "cancelled");
    let used = failed[0]["usage"]["input"].as_u64().unwrap();
    assert!(used > 0 && failed[0]["estimated"] == true, "{}", failed[0]);
}

fn priced(store: &Path, budget: &str) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n\
         [models.\"up/m\"]\nprice = {{ input = 100, output = 500 }}\n\
         [agents.teller]\nroute = \"fast\"\ninstructions = \"Tell.\"\n\
         budget = {{ output_tokens = 100{budget} }}\n",
        store.join("state.db").display()
    )
}

/// A run whose process dies while its model is asked, as the next process has it.
async fn lost(folder: &Path, budget: &str) -> (Stage, String) {
    let sections = priced(folder, budget);
    let asked = AtomicUsize::new(0);
    let mind = move |request: &Request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Script::default().stall(),
        _ => says(request, "Here it is."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let path = stage.begin("teller", "Tell me.").await;
    stage.model.asked(1).await;
    (stage.crash(&sections).await, path)
}

#[tokio::test]
async fn a_call_that_was_lost_with_its_process_costs_what_was_held_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (stage, path) = lost(folder.path(), "").await;
    let over = stage.in_state(&path, "completed").await;
    let journal = stage.journal(path.rsplit('/').next().unwrap()).await;
    let lost = &journal.iter().find(|(kind, _)| kind == "model.failed").unwrap().1;
    assert_eq!((&lost["lost"], &lost["estimated"]), (&json!(true), &json!(true)), "{lost}");
    let tokens = lost["usage"]["input"].as_u64().unwrap();
    assert_eq!(lost["usage"]["output"], 100);
    // In nano-dollars: 100 dollars for a million that were asked, 500 for those answered.
    let cost = tokens * 100_000 + 100 * 500_000;
    assert_eq!(lost["cost"], cost, "{lost}");
    let answered = 11 * 100_000 + 4 * 500_000;
    let told = over["cost_usd"].as_f64().unwrap() * 1e9;
    #[expect(clippy::cast_precision_loss, reason = "far below what would be lost")]
    let expected = (cost + answered) as f64;
    assert!((told - expected).abs() < 1.0, "{told} and {expected}");
}

#[tokio::test]
async fn what_was_lost_with_a_process_is_not_spent_again() {
    let folder = tempfile::tempdir().unwrap();
    // Enough to ask once with a long answer, and not twice.
    let (stage, path) = lost(folder.path(), ", usd = 0.06").await;
    let over = stage.in_state(&path, "incomplete").await;
    assert_eq!(over["stop_reason"], "budget", "{over:#}");
    assert_eq!(stage.model.requests().len(), 1);
    assert!(over["cost_usd"].as_f64().unwrap() <= 0.06, "{over:#}");
}

#[tokio::test]
async fn the_last_word_is_had_however_much_the_tools_have_said() {
    let agent = format!(
        "{}[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\ntools = [\"search\"]\n\
         budget = {{ tokens = 2000, output_tokens = 200 }}\n",
        search("repeatable = true")
    );
    let mind = |request: &Request| {
        if body(request)["tool_choice"] == "none" {
            return says(request, "That is what I have.");
        }
        let page = results(request) + 1;
        wants(request, &[("search", &format!(r#"{{"page":{page}}}"#))])
    };
    let stage = Stage::new(&agent, mind, prose).await;
    let answer = stage.chat("reader", "What do the pages say?").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "That is what I have.", "{answer}");
    let told = &answer["x_agent"];
    let ended = (&told["status"], &told["stop_reason"]);
    assert_eq!(ended, (&json!("incomplete"), &json!("budget")), "{answer}");
    let asked = stage.model.requests();
    let last = asked.last().unwrap();
    assert_eq!(results(last), 1);
    // At four bytes a token.
    assert!(last.body.len() < 2000 * 4, "{} bytes", last.body.len());
}

#[tokio::test]
async fn a_plan_is_remembered_for_who_only_reads_and_made_anew_for_who_can_pay() {
    let pay = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/pay\"\n\
        effect = \"once\"\nrisk = \"normal\"\ninput = { type = \"object\" }\n";
    let agent = |name: &str, tool: &str| {
        format!(
            "[agents.{name}]\nroute = \"kept\"\ninstructions = \"Be {name}.\"\n\
             planner = \"plan_then_act\"\ntools = [\"{tool}\"]\n"
        )
    };
    let sections = format!(
        "[routes.kept]\ntargets = [\"up/m\"]\ncache = {{ mode = \"on\", sampled = true }}\n\
         {}{pay}{}{}",
        search(""),
        agent("reader", "search"),
        agent("payer", "pay"),
    );
    let is_plan = |request: &Request| request.text().contains("Before you begin");
    let mind = move |request: &Request| {
        says(request, if is_plan(request) { r#"["Look."]"# } else { "Done." })
    };
    let stage = Stage::new(&sections, mind, found).await;
    for (agent, asked) in [("reader", 1), ("payer", 2)] {
        let before = stage.model.requests().len();
        for _ in 0..2 {
            let answer = stage.chat(agent, "Do it.").await;
            assert_eq!(answer["choices"][0]["message"]["content"], "Done.", "{answer}");
        }
        let requests = stage.model.requests();
        let plans = requests[before..].iter().filter(|it| is_plan(it)).count();
        assert_eq!(plans, asked, "{agent}");
    }
}
