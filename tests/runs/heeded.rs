//! What a client says of its calls, what there is budget for, and how long a model's window is: all
//! of it holds for the calls of models that a run makes.

use serde_json::{Value, json};

use super::stage::{OPERATOR, Stage, body, found, says, texts};
use crate::support::client::{CHAT, get};
use crate::support::gateway::KEY;
use crate::support::upstream::Request;
use crate::support::{Script, replies};

#[tokio::test]
async fn task_and_cache_are_as_the_client_of_a_run_wants_them() {
    let sections = "[routes.coder]\ntargets = [\"up/code\"]\n\
        [routes.auto]\nstrategy = \"task\"\ntasks = { code = \"coder\" }\ndefault = \"fast\"\n\
        [routes.kept]\ntargets = [\"up/m\"]\ncache = { mode = \"on\", sampled = true }\n\
        [agents.sorter]\nroute = \"auto\"\ninstructions = \"Sort.\"\n\
        [agents.keeper]\nroute = \"kept\"\ninstructions = \"Keep.\"\n";
    let stage = Stage::new(sections, |request| says(request, "Here."), found).await;
    let code = [("x-switchpoint-task", "code"), ("x-switchpoint-tags", "ticket=7")];
    assert_eq!(stage.chat_in("sorter", "Hello.", &code).await.status, 200);
    assert_eq!(stage.model.requests().last().unwrap().model, "code");
    for (headers, all) in [
        (&[][..], 2),
        (&[], 2),
        (&[("x-switchpoint-cache", "off")], 3),
        (&[("x-switchpoint-cache", "refresh")], 4),
        (&[], 4),
    ] {
        let answer = stage.chat_in("keeper", "The same.", headers).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(stage.model.requests().len(), all, "{headers:?}");
    }
    // What it is marked with stands on the calls that cost something.
    let is_paid = |row: &Value| row["tag"] == "ticket=7" && row["total_tokens"] == 15;
    loop {
        let sums = get(stage.gateway.admin, "/admin/usage?group_by=tag", OPERATOR).await.json();
        if sums["data"].as_array().unwrap().iter().any(is_paid) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_that_the_budget_cuts_short_is_no_whole_one() {
    let sections = "[models.\"up/m\"]\nprice = { input = 1, output = 1000 }\n\
        [agents.brief]\nroute = \"fast\"\ninstructions = \"Tell.\"\nbudget = { usd = 0.1 }\n\
        [agents.free]\nroute = \"fast\"\ninstructions = \"Tell.\"\n";
    let cut = |request: &Request| {
        assert_eq!(body(request)["stream"], true);
        let events = replies::says("Once upon a").into_iter();
        Script::stream(events.map(|it| it.replace("\"stop\"", "\"length\"")).collect::<Vec<_>>())
    };
    let stage = Stage::new(sections, cut, found).await;
    for (agent, state, reason) in
        [("brief", "incomplete", json!("budget")), ("free", "completed", json!(null))]
    {
        let run = stage.in_state(&stage.begin(agent, "Tell a story.").await, state).await;
        assert_eq!((&run["stop_reason"], &run["result"]["text"]), (&reason, &json!("Once upon a")));
    }
    assert_eq!(stage.model.requests().len(), 2, "there is no second word");
    let hit = ["agent=\"brief\"", "limit=\"cost\""];
    assert!(stage.gateway.metric("switchpoint_agent_limit_hits_total", &hit).await > 0.0);
}

#[tokio::test]
async fn the_question_for_a_plan_fits_into_the_window_too() {
    let sections = "[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\n\
        planner = \"plan_then_act\"\ncontext = { window = 3000 }\n";
    let mind = |request: &Request| {
        let plans = texts(request).last().unwrap().contains("Before you begin");
        says(request, if plans { r#"["Answer."]"# } else { "Done." })
    };
    let stage = Stage::new(sections, mind, found).await;
    let said = |place: usize| {
        let role = if place.is_multiple_of(2) { "user" } else { "assistant" };
        json!({"role": role, "content": format!("{place}: {}", "some words ".repeat(100))})
    };
    let messages: Vec<Value> = (0..31).map(said).collect();
    let answer =
        stage.post(CHAT, KEY, &json!({"model": "agent/reader", "messages": messages})).await;
    let text = answer.json()["choices"][0]["message"]["content"].clone();
    assert_eq!((answer.status, text), (200, json!("Done.")), "{}", answer.text());
    let requests = stage.model.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        let length = texts(request).concat().len();
        assert!(length < 3000 * 4, "{length} bytes");
        assert!(texts(request).iter().any(|text| text.starts_with("30: ")), "its last question");
    }
}

#[tokio::test]
async fn an_agent_with_a_budget_in_money_says_that_its_model_has_no_price() {
    let sections = "[agents.poor]\nroute = \"fast\"\ninstructions = \"Tell.\"\n\
        budget = { usd = 0.1 }\n";
    let stage = Stage::new(sections, |request| says(request, "Here."), found).await;
    let answer = stage.chat("poor", "Tell.").await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("(budget)") && text.contains("has no price"), "{text}");
    assert!(stage.model.requests().is_empty());
}

#[tokio::test]
async fn who_has_to_wait_for_an_agents_models_is_told_how_long() {
    let sections = "[agents.busy]\nroute = \"fast\"\ninstructions = \"Tell.\"\n\
        limits = { rate_limit_tries = 1 }\n";
    let busy = |_: &Request| {
        let error = r#"{"error":{"message":"Slow down.","type":"rate_limit_error"}}"#;
        Script::reply(429, &[("content-type", "application/json"), ("retry-after", "40")], error)
    };
    let stage = Stage::new(sections, busy, found).await;
    let refused = stage.chat_in("busy", "Tell.", &[]).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=40).contains(&wait), "{wait}");
}
