//! Answers that nobody can use: given back to be mended, then asked of another model of the route.

use serde_json::{Value, json};

use super::stage::{Stage, found, results, says, search, wants};
use crate::support::Script;
use crate::support::replies::{DONE, choice, role, usage};
use crate::support::upstream::Request;

fn agents() -> String {
    format!(
        "{}[routes.two]\ntargets = [\"up/b1\", \"up/b2\"]\n\
         [routes.one]\ntargets = [\"up/b1\"]\n\
         [agents.counter]\nroute = \"two\"\ninstructions = \"Count.\"\n\
         [agents.counter.output_schema]\ntype = \"object\"\nrequired = [\"total\"]\n\
         [agents.seeker]\nroute = \"two\"\ninstructions = \"Seek.\"\ntools = [\"search\"]\n\
         [agents.alone]\nroute = \"one\"\ninstructions = \"Seek.\"\ntools = [\"search\"]\n",
        search("")
    )
}

/// `b1` is of no use, and `b2` is of some.
fn mind(request: &Request) -> Script {
    let seeks = request.text().contains("Seek.");
    match (&*request.model, seeks) {
        ("b1", true) => wants(request, &[("search", &json!({"q": results(request)}).to_string())]),
        ("b1", false) => says(request, "Many."),
        (_, true) => says(request, "Found."),
        _ => says(request, r#"{"total":3}"#),
    }
}

fn asked(stage: &Stage) -> Vec<String> {
    stage.model.requests().iter().map(|it| it.model.clone()).collect()
}

#[tokio::test]
async fn what_a_model_cannot_mend_the_next_one_of_its_route_is_asked_for() {
    for (agent, text) in [("counter", r#"{"total":3}"#), ("seeker", "Found.")] {
        let stage = Stage::new(&agents(), mind, found).await;
        let path = stage.begin(agent, "Go.").await;
        let run = stage.in_state(&path, "completed").await;
        assert_eq!(run["result"]["text"], text, "{run:#}");
        assert_eq!(asked(&stage), ["b1", "b1", "b1", "b2"], "{agent}");
        let id = run["id"].as_str().unwrap();
        let journal = stage.journal(id).await;
        let passed: Vec<&Value> =
            journal.iter().filter(|it| it.0 == "model.fallback").map(|it| &it.1).collect();
        assert_eq!(passed.len(), 1, "{passed:?}");
        let why = (&passed[0]["from"], &passed[0]["outcome"]);
        assert_eq!(why, (&json!("up/b1"), &json!("invalid_output")));
    }
}

#[tokio::test]
async fn a_run_whose_only_model_is_of_no_use_fails() {
    let stage = Stage::new(&agents(), mind, found).await;
    let run = stage.in_state(&stage.begin("alone", "Go.").await, "failed").await;
    assert_eq!(run["stop_reason"], "invalid_output", "{run:#}");
    assert_eq!(asked(&stage), ["b1", "b1", "b1"]);
}

#[tokio::test]
async fn a_run_whose_calls_are_cut_each_time_says_that_its_answers_were_too_long() {
    let mind = |_: &Request| {
        let call = json!({"tool_calls": [{"index": 0, "id": "c", "type": "function",
            "function": {"name": "search", "arguments": "{\"q\": \"a"}}]});
        let call = choice(&call.to_string(), "null");
        Script::stream([role(), call, choice("{}", "\"length\""), usage(), DONE.to_owned()])
    };
    let stage = Stage::new(&agents(), mind, found).await;
    let run = stage.in_state(&stage.begin("alone", "Go.").await, "incomplete").await;
    assert_eq!(run["stop_reason"], "budget", "{run:#}");
    assert_eq!((asked(&stage).len(), stage.tools.requests().len()), (3, 0));
    let answer = stage.chat("alone", "Go.").await;
    let told = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(told.contains("`output_tokens`"), "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn json_in_a_fence_is_given_out_without_it() {
    let mind = |request: &Request| says(request, "```json\n{\"total\":3}\n```\n");
    let stage = Stage::new(&agents(), mind, found).await;
    let run = stage.in_state(&stage.begin("counter", "Go.").await, "completed").await;
    assert_eq!(run["result"]["text"], "{\"total\":3}", "{run:#}");
    let answer = stage.chat("counter", "Go.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "{\"total\":3}", "{answer}");
    assert_eq!(asked(&stage).len(), 2);
}
