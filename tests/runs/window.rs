//! What a model is shown of a long run: as much as it can read, no call without its result, and
//! everything that was left out is still in the journal.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::stage::{Stage, body, found, messages, results, says, search, texts, wants};
use crate::support::Script;
use crate::support::upstream::Request;

/// Two thousand tokens of somebody's prose, which JSON does not shorten.
fn prose(request: &Request) -> Script {
    let page = request.path.rsplit('=').next().unwrap_or_default().to_owned();
    let text = format!("page {page} says it. ").repeat(8000 / (15 + page.len()));
    Script::reply(200, &[("content-type", "text/plain")], text)
}

/// What a provider says that cannot read so much.
const TOO_LONG: &str = r#"{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;

const LONG_RUN: &str = "limits = { steps = 40, timeout = \"60s\" }\n\
    budget = { model_calls = 100, tool_calls = 100 }\n";

fn agent(more: &str) -> String {
    format!(
        "{}[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\n\
         tools = [\"search\"]\n{LONG_RUN}{more}\n",
        search("repeatable = true")
    )
}

/// Every call of a question has its result right behind it, and every result its call.
fn is_paired(request: &Request) -> bool {
    let mut open: Vec<Value> = Vec::new();
    for message in messages(request) {
        if message["role"] == "tool" {
            let Some(place) = open.iter().position(|id| *id == message["tool_call_id"]) else {
                return false;
            };
            open.remove(place);
        } else if !open.is_empty() {
            return false;
        }
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        open.extend(calls.into_iter().map(|call| call["id"].clone()));
    }
    open.is_empty()
}

#[tokio::test]
async fn thirty_long_results_never_overflow_a_small_window_and_stay_in_the_journal() {
    let asked = AtomicUsize::new(0);
    let terms = "[models.\"up/m\"]\ncontext = 8000\nfeatures = [\"tools\"]\n\
        [models.\"up/brief\"]\ncontext = 8000\n[routes.brief]\ntargets = [\"up/brief\"]\n\
        [agents.reader.context]\nsummariser = \"brief\"\n";
    let mind = move |request: &Request| {
        if request.model == "brief" {
            return says(request, "Many pages say it.");
        }
        let page = asked.fetch_add(1, Ordering::SeqCst) + 1;
        if page > 30 {
            return says(request, "I have read it all.");
        }
        wants(request, &[("search", &format!(r#"{{"page":{page}}}"#))])
    };
    let stage = Stage::new(&agent(terms), mind, prose).await;
    let answer = stage.chat("reader", "What do the pages say?").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "I have read it all.", "{answer}");
    assert_eq!(stage.tools.requests().len(), 30);
    let requests = stage.model.requests();
    let (steps, summaries): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.model == "m");
    assert_eq!(steps.len(), 31);
    assert!(!summaries.is_empty() && summaries.len() <= 20, "{}", summaries.len());
    for request in &requests {
        // Four bytes a token is more than prose has.
        assert!(request.body.len() < 8000 * 4, "{} bytes", request.body.len());
    }
    for (number, request) in steps.iter().enumerate() {
        assert!(is_paired(request), "{number}: {:?}", messages(request));
        let texts = texts(request);
        assert_eq!(texts[0], "Read.", "{number}");
        assert!(texts.iter().any(|text| text == "What do the pages say?"), "{number}");
        let last = format!("page {number} says it.");
        assert!(number == 0 || texts.last().unwrap().contains(&last), "{number}");
    }
    let told = texts(steps[30]).iter().any(|text| text.contains("Many pages say it."));
    assert!(told, "the last question holds a summary");
    assert!(summaries.iter().any(|request| request.text().contains("page 1 says it.")));
    let journal = stage.journal(answer["x_agent"]["run_id"].as_str().unwrap()).await;
    let kept: Vec<String> = journal
        .iter()
        .filter(|(kind, _)| kind == "tool.completed")
        .map(|(_, data)| data.to_string())
        .collect();
    assert_eq!(kept.len(), 30);
    for (page, result) in (1..).zip(&kept) {
        assert!(result.len() > 7000 && result.contains(&format!("page {page} says it.")), "{page}");
    }
    assert!(journal.iter().any(|(kind, _)| kind == "context.compacted"));
}

#[tokio::test]
async fn what_a_provider_cannot_read_is_made_shorter_once_then_asked_of_another_route() {
    let terms = "[routes.long]\ntargets = [\"up/long\"]\n[models.\"up/long\"]\n\
        context = 1000000\nfeatures = [\"tools\"]\n[agents.reader.context]\noverflow = \"long\"\n";
    let mind = |request: &Request| match (request.model.as_str(), results(request)) {
        (_, 0) => wants(request, &[("search", r#"{"page":1}"#), ("search", r#"{"page":2}"#)]),
        ("long", _) => says(request, "All of it."),
        _ => Script::json(400, TOO_LONG),
    };
    let stage = Stage::new(&agent(terms), mind, prose).await;
    let answer = stage.chat("reader", "Read.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "All of it.", "{answer}");
    let requests = stage.model.requests();
    let asked: Vec<&str> = requests.iter().map(|request| request.model.as_str()).collect();
    assert_eq!(asked, ["m", "m", "m", "long"]);
    let lengths: Vec<usize> = requests.iter().map(|request| request.body.len()).collect();
    assert!(lengths[2] < lengths[1] * 4 / 5, "made shorter: {lengths:?}");
    assert_eq!(lengths[3] / 1000, lengths[1] / 1000, "whoever can reads all: {lengths:?}");
    assert!(requests.iter().all(is_paired));
}

#[tokio::test]
async fn what_nobody_can_read_ends_the_run_and_says_so() {
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("search", r#"{"page":1}"#)]),
        _ => Script::json(400, TOO_LONG),
    };
    let stage = Stage::new(&agent(""), mind, prose).await;
    let answer = stage.chat("reader", "Read.").await;
    let told = &answer["x_agent"];
    assert_eq!(
        (&told["status"], &told["stop_reason"]),
        (&json!("incomplete"), &json!("context_overflow")),
        "{answer}"
    );
    assert_eq!(stage.model.requests().len(), 3, "asked, and once more with less");
}

#[tokio::test]
async fn of_what_a_search_finds_the_best_stand_where_they_are_read_and_none_twice() {
    let sections = agent("[agents.reader.context]\nretrieval_tokens = 200\n")
        .replace("effect = \"read\"", "effect = \"read\"\nresult = \"chunks\"");
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("search", r#"{"q":"x"}"#)]),
        _ => says(request, "Found."),
    };
    let chunks = |_: &Request| {
        let chunk = |place: u32| json!({"score": f64::from(place) / 10.0, "text": format!("Piece {place}.")});
        let mut all: Vec<Value> = (1..=10).map(chunk).collect();
        all.push(json!({"score": 0.05, "text": "piece  10."}));
        Script::json(200, &json!({"results": all}).to_string())
    };
    let stage = Stage::new(&sections, mind, chunks).await;
    stage.chat("reader", "Find it.").await;
    let requests = stage.model.requests();
    let shown = texts(&requests[1]).pop().unwrap();
    let pieces: Vec<Value> = serde_json::from_str(&shown).unwrap();
    let scores: Vec<String> = pieces.iter().map(|it| it["score"].to_string()).collect();
    assert_eq!((&*scores[0], &*scores[scores.len() - 1]), ("1.0", "0.9"), "{shown}");
    assert!(scores.len() < 11 && scores.len() > 4, "{shown}");
    assert_eq!(shown.matches("10.").count(), 1, "{shown}");
    assert!(shown.len() < 200 * 4, "{shown}");
}

#[tokio::test]
async fn only_a_model_that_can_is_asked() {
    let sections = agent(
        "[routes.pair]\ntargets = [\"up/plain\", \"up/m\"]\n\
         [models.\"up/plain\"]\nfeatures = [\"json_mode\"]\ncontext = 8000\n\
         [models.\"up/m\"]\nfeatures = [\"tools\", \"vision\"]\ncontext = 1000000\n",
    )
    .replace("route = \"fast\"", "route = \"pair\"");
    let talker = "[agents.talker]\nroute = \"pair\"\ninstructions = \"Talk.\"\n";
    let stage = Stage::new(&format!("{sections}{talker}"), |it| says(it, "Yes."), found).await;
    stage.chat("talker", "Hi.").await;
    stage.chat("reader", "With tools.").await;
    stage.chat("talker", &"word ".repeat(50_000)).await;
    let image = json!([{"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]);
    let body = json!({"model": "agent/talker", "messages": [{"role": "user", "content": image}]});
    let key = crate::support::gateway::KEY;
    let answer = stage.post("/v1/chat/completions", key, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = stage.model.requests();
    let asked: Vec<&str> = requests.iter().map(|request| request.model.as_str()).collect();
    assert_eq!(asked, ["plain", "m", "m", "m"]);
}

#[tokio::test]
async fn an_answer_that_breaks_its_schema_is_asked_for_twice_more_and_never_given() {
    let sections = "[agents.judge]\nroute = \"fast\"\ninstructions = \"Judge.\"\n\
        [agents.judge.output_schema]\ntype = \"object\"\nrequired = [\"verdict\"]\n\
        additionalProperties = false\nproperties = { verdict = { type = \"string\" } }\n";
    let mind = |request: &Request| {
        let texts = texts(request);
        let repairs = texts.iter().filter(|it| it.contains("what the schema demands")).count();
        match (texts[1].as_str(), repairs) {
            ("mends", 2) => says(request, r#"{"verdict":"good"}"#),
            (_, 0) => says(request, "It is good."),
            _ => says(request, r#"{"verdict":7}"#),
        }
    };
    let stage = Stage::new(sections, mind, found).await;
    let mended = stage.chat("judge", "mends").await;
    assert_eq!(mended["choices"][0]["message"]["content"], r#"{"verdict":"good"}"#, "{mended}");
    assert_eq!(stage.model.requests().len(), 3);
    assert_eq!(body(&stage.model.requests()[0])["response_format"]["type"], "json_schema");
    for again in [false, true] {
        let headers = [("idempotency-key", "judged")];
        let refused = stage.chat_in("judge", "never", &headers).await;
        assert_eq!(stage.model.requests().len(), 6);
        assert!(refused.status >= 500, "{again}: {}", refused.text());
        let text = refused.text();
        assert!(!text.contains("It is good") && !text.contains(r#"\"verdict\":7"#), "{text}");
    }
    let runs = stage.get("/v1/agents/runs?agent=judge&limit=1").await;
    assert_eq!(runs["data"][0]["stop_reason"], "invalid_output", "{runs}");
    let path = format!("/v1/agents/runs/{}", runs["data"][0]["id"].as_str().unwrap());
    assert_eq!(
        stage.get(&path).await["result"]["text"],
        Value::Null,
        "what it said is in its steps"
    );
    // A stream holds back what may have to be mended.
    let asked = json!({"model": "agent/judge", "stream": true,
        "messages": [{"role": "user", "content": "mends"}]});
    let key = crate::support::gateway::KEY;
    let stream = stage.post("/v1/chat/completions", key, &asked).await.text().to_owned();
    assert!(stream.contains("verdict") && !stream.contains("It is good"), "{stream}");
}

#[tokio::test]
async fn a_route_bounds_what_a_step_may_say_and_its_cache_answers_what_was_asked_before() {
    let tools = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/pay\"\n\
        effect = \"once\"\nrisk = \"normal\"\ninput = { type = \"object\" }\n";
    let sections = format!(
        "[routes.small]\ntargets = [\"up/m\"]\nmax_output_tokens = 256\n\
         cache = {{ mode = \"on\", sampled = true }}\n{}{tools}\
         [agents.reader]\nroute = \"small\"\ninstructions = \"Read.\"\ntools = [\"search\"]\n\
         [agents.payer]\nroute = \"small\"\ninstructions = \"Pay.\"\ntools = [\"pay\"]\n",
        search("")
    );
    let stage = Stage::new(&sections, |it| says(it, "Yes."), found).await;
    let mut told = Vec::new();
    for agent in ["reader", "reader", "payer", "payer"] {
        let answer = stage.chat_in(agent, "Is it so?", &[]).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Yes.");
        told.push(answer.header("x-switchpoint-cache").map(str::to_owned));
    }
    let expected = [None, Some("hit".to_owned()), None, None];
    assert_eq!(told, expected, "all of its models' answers, or it is no hit");
    let requests = stage.model.requests();
    let prompts: Vec<String> = requests.iter().map(|it| texts(it).swap_remove(0)).collect();
    assert_eq!(prompts, ["Read.", "Pay.", "Pay."], "who can pay never acts on what was remembered");
    for request in &requests {
        let body = body(request);
        let most = body["max_tokens"].as_u64().or_else(|| body["max_completion_tokens"].as_u64());
        assert!(most.is_some_and(|most| most <= 256), "{body}");
    }
    let runs = stage.get("/v1/agents/runs?agent=reader").await;
    let last = runs["data"][0]["id"].as_str().unwrap();
    let journal = stage.journal(last).await;
    let answered = journal.iter().find(|(kind, _)| kind == "model.completed").unwrap();
    assert_eq!(answered.1["cached"], true, "{answered:?}");
}

#[tokio::test]
async fn an_agent_that_plans_writes_its_plan_first_and_is_shown_it() {
    let sections = agent("planner = \"plan_then_act\"");
    let mind = |request: &Request| {
        let is_asked = texts(request).last().unwrap().contains("Before you begin");
        match (is_asked, results(request)) {
            (true, _) => says(request, r#"["Search for it.", "Say what was found."]"#),
            (false, 0) => wants(request, &[("search", r#"{"q":"x"}"#)]),
            (false, _) => says(request, "Here it is."),
        }
    };
    let stage = Stage::new(&sections, mind, found).await;
    let answer = stage.chat("reader", "Find x.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Here it is.", "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 45, "the plan is paid for: {answer}");
    let run = answer["x_agent"]["run_id"].as_str().unwrap().to_owned();
    let journal = stage.journal(&run).await;
    let kinds: Vec<&str> = journal.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [
        "run.created",
        "run.started",
        "plan.created",
        "model.requested",
        "model.completed",
        "tool.requested",
        "tool.started",
        "tool.completed",
        "model.requested",
        "model.completed",
        "run.ended",
    ];
    assert_eq!(kinds, expected);
    let plan = json!(["Search for it.", "Say what was found."]);
    assert_eq!(journal[2].1["steps"], plan);
    // That it was about to be asked for stands where the run begins.
    let asks = &journal[1].1["asks"];
    assert_eq!((&asks["call"], &asks["model"]), (&json!(0), &json!("fast")), "{asks}");
    for request in &stage.model.requests()[1..] {
        assert!(texts(request)[1].contains("1. Search for it."), "{:?}", texts(request));
    }
    let steps = stage.get(&format!("/v1/agents/runs/{run}/steps")).await;
    let first = &steps["data"][0];
    assert_eq!((&first["type"], &first["steps"]), (&json!("plan"), &plan), "{steps}");
    assert_eq!((&first["state"], &first["model"]), (&json!("completed"), &json!("fast")));
    assert_eq!(steps["data"][1]["input"], "Find x.", "{steps}");
}

#[tokio::test]
async fn a_journal_tells_turns_and_calls_in_the_order_in_which_they_were() {
    let mind = |request: &Request| match results(request) {
        number @ 0..2 => wants(request, &[("search", &format!(r#"{{"page":{number}}}"#))]),
        _ => says(request, "That is all."),
    };
    let stage = Stage::new(&agent(""), mind, found).await;
    let answer = stage.chat("reader", "Search twice.").await;
    let run = answer["x_agent"]["run_id"].as_str().unwrap();
    let kinds: Vec<String> = stage.journal(run).await.into_iter().map(|(kind, _)| kind).collect();
    let turn = ["model.requested", "model.completed"];
    let call = ["tool.requested", "tool.started", "tool.completed"];
    let expected = [&["run.created", "run.started"], &turn[..], &call, &turn, &call, &turn];
    assert_eq!(kinds, [&expected.concat()[..], &["run.ended"]].concat());
    let steps = stage.get(&format!("/v1/agents/runs/{run}/steps")).await;
    let kinds = steps["data"].as_array().unwrap().iter().map(|step| step["type"].as_str().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["model", "tool", "model", "tool", "model"]);
}

#[tokio::test]
async fn each_time_that_a_plan_is_asked_for_stands_in_the_journal_with_what_came_of_it() {
    let mind = |request: &Request| {
        let is_asked = texts(request).last().unwrap().contains("Before you begin");
        says(request, if is_asked { "I do not plan." } else { "Here it is." })
    };
    let stage = Stage::new(&agent("planner = \"plan_then_act\""), mind, found).await;
    let answer = stage.chat("reader", "Find x.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Here it is.", "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 45, "{answer}");
    assert_eq!(answer["x_agent"]["steps"], 1, "a plan is no step: {answer}");
    let journal = stage.journal(answer["x_agent"]["run_id"].as_str().unwrap()).await;
    let kinds: Vec<&str> = journal.iter().map(|(kind, _)| kind.as_str()).skip(2).collect();
    let expected = [
        "model.failed",
        "model.requested",
        "model.failed",
        "plan.created",
        "model.requested",
        "model.completed",
        "run.ended",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(journal[2].1["code"], "invalid_output", "{journal:?}");
    assert_eq!((&journal[5].1["steps"], &journal[6].1["call"]), (&json!([]), &json!(1)));
}

#[tokio::test]
async fn a_plan_that_was_asked_for_when_its_process_died_is_asked_for_anew() {
    let folder = tempfile::tempdir().unwrap();
    let sections = format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n{}",
        folder.path().join("state.db").display(),
        agent("planner = \"plan_then_act\""),
    );
    let asked = AtomicUsize::new(0);
    let mind = move |request: &Request| {
        let is_plan = texts(request).last().unwrap().contains("Before you begin");
        match (asked.fetch_add(1, Ordering::SeqCst), is_plan) {
            (0, _) => Script::default().stall(),
            (_, true) => says(request, r#"["Answer."]"#),
            _ => says(request, "Here it is."),
        }
    };
    let stage = Stage::new(&sections, mind, found).await;
    let path = stage.begin("reader", "Find x.").await;
    stage.model.asked(1).await;
    let run = path.rsplit('/').next().unwrap().to_owned();
    let kinds: Vec<String> = stage.journal(&run).await.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["run.created", "run.started"], "that it is asked for stands there");
    let stage = stage.crash(&sections).await;
    let over = stage.in_state(&path, "completed").await;
    assert_eq!(over["result"]["text"], "Here it is.", "{over}");
    let journal = stage.journal(&run).await;
    let kinds: Vec<&str> = journal.iter().map(|(kind, _)| kind.as_str()).collect();
    let expected = [
        "run.created",
        "run.started",
        "run.resumed",
        "model.failed",
        "model.requested",
        "plan.created",
        "model.requested",
        "model.completed",
        "run.ended",
    ];
    assert_eq!(kinds, expected);
    let (asks, lost, again) = (&journal[1].1["asks"], &journal[3].1, &journal[4].1);
    assert_eq!((&lost["call"], &lost["lost"]), (&json!(0), &json!(true)), "{lost}");
    let guessed = asks["input_estimate"].as_u64().filter(|tokens| *tokens > 0).unwrap();
    assert_eq!(lost["usage"]["input"], guessed, "what it used is guessed: {lost}");
    assert_eq!((&again["call"], &again["digest"]), (&json!(0), &asks["digest"]), "{again}");
    assert_eq!(journal[5].1["steps"], json!(["Answer."]));
    assert_eq!(over["usage"]["input_tokens"], guessed + 22, "{over}");
    assert_eq!(stage.model.requests().len(), 3);
}

#[tokio::test]
async fn the_same_call_in_other_words_is_a_loop_unless_its_tool_is_repeatable() {
    let mind = |request: &Request| {
        let done = results(request);
        if body(request)["tool_choice"] == "none" || done == 7 {
            return says(request, "That is all.");
        }
        let args = [r#"{"q":"x","page":1}"#, r#"{"page":1,"q":"x"}"#, r#"{ "page": 1, "q": "x" }"#];
        wants(request, &[("search", args[done % 3])])
    };
    // What it finds is another thing each time.
    let count = AtomicUsize::new(0);
    let changing = move |_: &Request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        Script::json(200, &json!({"found": number}).to_string())
    };
    let looping = agent("").replace("repeatable = true", "");
    let stage = Stage::new(&looping, mind, changing).await;
    let answer = stage.chat("reader", "Find x.").await;
    assert_eq!(answer["x_agent"]["stop_reason"], "loop_detected", "{answer}");
    assert!(stage.tools.requests().len() <= 5);
    let noted = |request: &Request| texts(request).iter().any(|it| it.contains("same arguments"));
    let requests = stage.model.requests();
    assert!(!noted(&requests[2]) && noted(&requests[3]));
    let stage = Stage::new(&agent(""), mind, found).await;
    let answer = stage.chat("reader", "Find x.").await;
    assert_eq!(answer["x_agent"]["status"], "completed", "{answer}");
    assert_eq!(stage.tools.requests().len(), 7);
    assert!(!stage.model.requests().iter().any(noted));
}

#[tokio::test]
async fn a_journal_grows_with_what_happens_and_not_with_what_was_said_before() {
    let mind = |request: &Request| match results(request) {
        ..40 => {
            let args = format!(r#"{{"page":{}}}"#, results(request));
            wants(request, &[("search", &args)])
        }
        _ => says(request, "Done."),
    };
    let more = agent("").replace("steps = 40", "steps = 60");
    let stage = Stage::new(&more, mind, prose).await;
    let answer = stage.chat("reader", "Go.").await;
    assert_eq!(answer["x_agent"]["steps"], 41, "{answer}");
    let journal = stage.journal(answer["x_agent"]["run_id"].as_str().unwrap()).await;
    let bytes = |kind: &str, from: usize| -> usize {
        let of_kind = journal.iter().filter(|(known, _)| known == kind);
        of_kind.skip(from).take(20).map(|(_, data)| data.to_string().len()).sum()
    };
    for kind in ["model.requested", "model.completed", "tool.completed"] {
        let (first, later) = (bytes(kind, 0), bytes(kind, 20));
        assert!(later < first * 11 / 10, "{kind}: {first}, then {later}");
    }
    assert!(bytes("model.requested", 0) < 20 * 400);
}
