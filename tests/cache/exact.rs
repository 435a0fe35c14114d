//! The same question is asked once: by whom, in which words, and what is never remembered.

use serde_json::{Value, json};

use super::{
    MESSAGES, OTHER, ask_with, counted, open_at, question, remembering, said, told, willing,
};
use crate::support::client::{Answer, CHAT, chat, get, post};
use crate::support::gateway::{KEY, route};
use crate::support::replies::{REPLY, finish, role, word};
use crate::support::{Gateway, Script, Upstream};

#[tokio::test]
async fn the_second_of_two_identical_questions_is_answered_from_memory_streamed_or_not() {
    for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
        let upstream = willing().await;
        let gateway = Gateway::before(&upstream, &remembering("")).await;
        let asked = chat(&gateway, question(&json!({"stream": first}))).await;
        let again = chat(&gateway, question(&json!({"stream": second}))).await;
        assert_eq!((told(&asked), told(&again)), ("miss", "hit"), "{first} {second}");
        assert_eq!((&*said(&asked), &*said(&again)), ("Hello there.", "Hello there."));
        assert_eq!(upstream.requests().len(), 1);
        assert_eq!(again.header("age"), Some("0"));
        assert_eq!(again.header("x-switchpoint-provider"), Some("up"));
        if second {
            assert!(again.text().ends_with("data: [DONE]\n\n"), "{}", again.text());
        } else {
            assert_eq!(again.json()["usage"]["total_tokens"], 15);
            assert_eq!(again.json()["model"], "served");
        }
    }
}

#[tokio::test]
async fn the_first_answer_passes_as_its_provider_wrote_it() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    assert_eq!(chat(&gateway, question(&json!({}))).await.text(), REPLY);
}

#[tokio::test]
async fn each_hit_has_ids_of_its_own() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = chat(&gateway, question(&json!({}))).await;
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert!(ids.iter().all(|id| id.starts_with("chatcmpl-")), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

/// The body without what is of its call only: its id, and when it came.
fn timeless(answer: &Answer) -> String {
    let id = answer.header("x-request-id").unwrap().replace('-', "");
    let mut text = answer.text().replace(&id, "ID");
    for name in ["created", "created_at", "completed_at"] {
        let mark = format!("\"{name}\":");
        let mut parts = text.split(&mark).map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        text = parts.fold(first, |all, part| {
            all + &mark + part.trim_start_matches(|at: char| at.is_ascii_digit())
        });
    }
    text
}

#[tokio::test]
async fn who_repeats_every_word_is_answered_as_who_says_the_same_in_others() {
    let chat = json!({"model": "r", "temperature": 0, "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hi"}]});
    let input = json!({"model": "r", "temperature": 0, "max_output_tokens": 50, "input": "Hi"});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"temperature": 0, "maxOutputTokens": 50}});
    let with_stream = |body: &Value| {
        let mut body = body.clone();
        body["stream"] = json!(true);
        body
    };
    let doors = [
        (CHAT, chat.clone()),
        (CHAT, with_stream(&chat)),
        (MESSAGES, chat.clone()),
        (MESSAGES, with_stream(&chat)),
        ("/v1/responses", input.clone()),
        ("/v1/responses", with_stream(&input)),
        ("/v1beta/models/r:generateContent", contents.clone()),
        ("/v1beta/models/r:streamGenerateContent?alt=sse", contents),
    ];
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    for (path, body) in doors {
        let ask = |text: String| post(gateway.address, path, KEY, text);
        told(&ask(body.to_string()).await);
        let mut answers = Vec::new();
        for _ in 0..3 {
            let answer = ask(body.to_string()).await;
            assert_eq!(told(&answer), "hit", "{path}");
            answers.push(timeless(&answer));
        }
        let members = body.as_object().unwrap().clone().into_iter().rev();
        let reversed = ask(Value::Object(members.collect()).to_string()).await;
        assert_eq!(told(&reversed), "hit", "{path}");
        answers.push(timeless(&reversed));
        answers.dedup();
        assert_eq!(answers.len(), 1, "{path}: {answers:#?}");
        assert!(answers[0].contains("Hello there."), "{path}: {}", answers[0]);
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn words_that_are_known_are_guarded_as_any_are() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let expected = ["miss", "hit", "hit", "hit"];
    for expected in expected {
        assert_eq!(told(&chat(&gateway, question(&json!({}))).await), expected);
    }
    let guard = "[guards.quiet]\nkind = \"pattern\"\nwords = [\"there\"]\nstage = [\"output\"]\n\
                 action = \"block\"\n";
    let guarded = remembering("").replace("cache =", "guards = [\"quiet\"]\ncache =");
    let provider = crate::support::gateway::provider("up", &upstream);
    let reloaded = gateway.reload(&format!("{provider}{guarded}{guard}")).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    for _ in 0..3 {
        let answer = chat(&gateway, question(&json!({}))).await;
        assert!(!answer.text().contains("there"), "{}", answer.text());
    }
}

#[tokio::test]
async fn words_that_are_known_get_the_answer_that_was_fetched_anew() {
    let answers = ["first", "second"].map(|text| REPLY.replace("Hello there.", text));
    let scripts = answers.map(|text| Script::json(200, &text));
    let upstream = Upstream::start([("a", scripts)]).await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let ask = |mode: &'static str| {
        let headers = [("x-switchpoint-cache", mode)];
        let gateway = &gateway;
        async move { said(&ask_with(gateway, &headers, question(&json!({}))).await) }
    };
    let mut heard = Vec::new();
    for mode in ["on", "on", "on", "refresh", "on", "on"] {
        heard.push(ask(mode).await);
    }
    assert_eq!(heard, ["first", "first", "first", "second", "second", "second"]);
}

#[tokio::test]
async fn a_question_hits_whatever_dialect_it_comes_in() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let message = question(&json!({}));
    let first = post(gateway.address, CHAT, KEY, message.clone()).await;
    let second = post(gateway.address, MESSAGES, KEY, message).await;
    assert_eq!((told(&first), told(&second)), ("miss", "hit"));
    let answer = second.json();
    assert_eq!(answer["content"][0]["text"], "Hello there.");
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"), "{answer}");
    let streamed = question(&json!({"stream": true}));
    let third = post(gateway.address, MESSAGES, KEY, streamed).await;
    assert_eq!(told(&third), "hit");
    assert!(third.text().contains("event: message_stop"), "{}", third.text());
    let input = json!({"model": "r", "temperature": 0, "max_output_tokens": 50, "input": "Hi"});
    let fourth = post(gateway.address, "/v1/responses", KEY, input.to_string()).await;
    assert_eq!(told(&fourth), "hit");
    // It is kept under an id of its own, as any response is.
    let id = fourth.json()["id"].as_str().unwrap().to_owned();
    let kept = get(gateway.address, &format!("/v1/responses/{id}"), KEY).await;
    assert_eq!((kept.status, &kept.json()["id"]), (200, &json!(id)));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn nobody_is_given_the_answer_to_another_keys_question() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    for key in [KEY, OTHER] {
        assert_eq!(told(&post(gateway.address, CHAT, key, question(&json!({}))).await), "miss");
        assert_eq!(told(&post(gateway.address, CHAT, key, question(&json!({}))).await), "hit");
    }
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_route_may_share_its_answers_with_all_or_with_a_team() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering(", share = \"all\"")).await;
    assert_eq!(told(&post(gateway.address, CHAT, KEY, question(&json!({}))).await), "miss");
    assert_eq!(told(&post(gateway.address, CHAT, OTHER, question(&json!({}))).await), "hit");

    let keys = "[teams.x]\n[keys.one]\nsecret = \"sk-one\"\nteam = \"x\"\n\
                [keys.two]\nsecret = \"sk-two\"\nteam = \"x\"\n";
    let sections = format!("{}{keys}", remembering(", share = \"team\""));
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut heard = Vec::new();
    for key in ["sk-one", "sk-two", KEY, OTHER] {
        let answer = post(gateway.address, CHAT, key, question(&json!({}))).await;
        heard.push(told(&answer).to_owned());
    }
    assert_eq!(heard, ["miss", "hit", "miss", "miss"]);
}

#[tokio::test]
async fn who_may_not_be_answered_by_a_model_is_not_given_its_answer() {
    let upstream = Upstream::start(["a", "b"].map(|name| (name, [Script::json(200, REPLY)]))).await;
    let lines = "cache = { mode = \"on\", share = \"all\" }";
    let sections = format!(
        "{}[keys.few]\nsecret = \"sk-few\"\nmodels = [\"up/b\"]\n",
        route("r", &["up/a", "up/b"], lines)
    );
    let gateway = Gateway::before(&upstream, &sections).await;
    let first = post(gateway.address, CHAT, KEY, question(&json!({}))).await;
    let second = post(gateway.address, CHAT, "sk-few", question(&json!({}))).await;
    assert_eq!((told(&first), told(&second)), ("miss", "miss"));
    assert_eq!(second.header("x-switchpoint-model"), Some("b"));
}

#[tokio::test]
async fn what_is_drawn_by_chance_is_remembered_only_where_the_route_says_so() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    for temperature in [json!({"temperature": 0.7}), json!({"temperature": null})] {
        for _ in 0..2 {
            assert_eq!(told(&chat(&gateway, question(&temperature)).await), "off");
        }
    }
    assert_eq!(upstream.requests().len(), 4);
    let gateway = Gateway::before(&upstream, &remembering(", sampled = true")).await;
    for expected in ["miss", "hit"] {
        assert_eq!(told(&chat(&gateway, question(&json!({"temperature": 0.7}))).await), expected);
    }
}

/// The reply with another end and another message.
fn ending(reason: &str, message: &Value) -> Script {
    let mut reply: Value = serde_json::from_str(REPLY).unwrap();
    reply["choices"][0]["finish_reason"] = json!(reason);
    reply["choices"][0]["message"] = message.clone();
    Script::json(200, &reply.to_string())
}

fn tool_call() -> Script {
    let function = json!({"name": "look", "arguments": "{}"});
    let call = json!({"id": "call_1", "type": "function", "function": function});
    ending("tool_calls", &json!({"role": "assistant", "content": null, "tool_calls": [call]}))
}

#[tokio::test]
async fn what_is_no_whole_answer_is_never_remembered() {
    let text = |text: &str| json!({"role": "assistant", "content": text});
    let refusal = json!({"role": "assistant", "content": null, "refusal": "No."});
    let cut = [role(), word("Hel"), finish().replace("stop", "length")];
    let scripts = [
        ending("length", &text("Hel")),
        ending("content_filter", &text("Hel")),
        ending("stop", &refusal),
        ending("stop", &text("")),
        tool_call(),
        Script::json(400, r#"{"error":{"message":"no"}}"#),
        Script::stream(cut),
    ];
    for (number, script) in scripts.into_iter().enumerate() {
        let name = if number == 6 { "a?stream" } else { "a" };
        let upstream = Upstream::start([(name, [script])]).await;
        let gateway = Gateway::before(&upstream, &remembering("")).await;
        for _ in 0..2 {
            let answer = chat(&gateway, question(&json!({"stream": number == 6}))).await;
            assert_eq!(answer.header("x-switchpoint-cache"), Some("miss"), "{number}");
        }
        assert_eq!(upstream.requests().len(), 2, "{number}");
    }
}

#[tokio::test]
async fn tool_calls_are_remembered_where_the_route_says_so() {
    let upstream = Upstream::start([("a", [tool_call()])]).await;
    let gateway = Gateway::before(&upstream, &remembering(", tool_calls = true")).await;
    for expected in ["miss", "hit"] {
        let answer = chat(&gateway, question(&json!({}))).await;
        assert_eq!(told(&answer), expected);
        let call = &answer.json()["choices"][0]["message"]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "look");
    }
}

#[tokio::test]
async fn a_call_may_allow_less_than_its_route_and_never_more() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let mode = |mode: &'static str| [("x-switchpoint-cache", mode)];
    let mut heard = Vec::new();
    for said in ["read_only", "write_only", "off", "on", "refresh", "read_only"] {
        heard.push(told(&ask_with(&gateway, &mode(said), question(&json!({}))).await).to_owned());
    }
    assert_eq!(heard, ["miss", "miss", "off", "hit", "miss", "hit"]);
    assert_eq!(upstream.requests().len(), 4);
    let wrong = ask_with(&gateway, &mode("always"), question(&json!({}))).await;
    assert_eq!(wrong.status, 400);

    let sections = format!(
        "[cache]\nmode = \"on\"\n{}{}[keys.shy]\nsecret = \"sk-shy\"\ncache = \"write_only\"\n",
        route("r", &["up/a"], ""),
        route("n", &["up/a"], "cache = \"off\"")
    );
    let gateway = Gateway::before(&upstream, &sections).await;
    for (key, expected) in [("sk-shy", "miss"), ("sk-shy", "miss"), (KEY, "miss"), (KEY, "hit")] {
        let answer =
            open_at(&gateway, CHAT, key, &mode("on"), question(&json!({}))).await.whole().await;
        assert_eq!(told(&answer), expected, "{key}");
    }
    for _ in 0..2 {
        let never = ask_with(&gateway, &mode("on"), question(&json!({"model": "n"}))).await;
        assert_eq!(told(&never), "nothing");
    }
    for expected in ["miss", "hit"] {
        let direct = chat(&gateway, question(&json!({"model": "up/a"}))).await;
        assert_eq!(told(&direct), expected);
    }
}

#[tokio::test]
async fn a_hit_is_recorded_counted_and_charged_nothing() {
    let upstream = willing().await;
    let sections = format!(
        "{}limits = {{ requests = \"3/h\" }}\nbudget = [{{ tokens = 20, window = \"1d\" }}]\n\
         [models.\"up/a\"]\nprice = {{ input = 1000.0, output = 1000.0 }}\n",
        remembering(", share = \"all\"")
    );
    let gateway = Gateway::before(&upstream, &sections).await;
    // The other key has a budget, and room for no second answer.
    let ask = || post(gateway.address, CHAT, OTHER, question(&json!({"max_tokens": 4})));
    assert_eq!(told(&ask().await), "miss");
    let hit = ask().await;
    assert_eq!(told(&hit), "hit");
    assert_eq!(hit.header("x-switchpoint-cost-usd"), Some("0"));
    assert_eq!(told(&ask().await), "hit");
    let refused = ask().await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limited")));
    let records = gateway.recorded(4).await;
    assert_eq!((&records[0]["cache"], &records[0]["input_tokens"]), (&json!("miss"), &json!(11)));
    assert_eq!((&records[1]["cache"], &records[1]["input_tokens"]), (&json!("hit"), &json!(0)));
    assert_eq!(
        counted(&gateway, "switchpoint_cache_saved_tokens_total", &["route=\"r\""]).await,
        30
    );
    let saved = gateway.metric("switchpoint_cache_saved_usd_total", &["route=\"r\""]).await;
    assert!((saved - 0.03).abs() < 1e-9, "{saved}");
    assert_eq!(counted(&gateway, "switchpoint_cache_total", &["result=\"hit\""]).await, 2);
    assert_eq!(counted(&gateway, "switchpoint_attempts_total", &[]).await, 1);
}

#[tokio::test]
async fn vectors_are_remembered() {
    let body = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,1]}],"model":"a","usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let upstream = Upstream::start([("a", [Script::json(200, body)])]).await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let ask = |input: &str| {
        let body = json!({"model": "r", "input": input}).to_string();
        post(gateway.address, "/v1/embeddings", KEY, body)
    };
    for (input, expected) in [("a", "miss"), ("a", "hit"), ("b", "miss")] {
        let answer = ask(input).await;
        assert_eq!((told(&answer), answer.text()), (expected, body));
    }
}

#[tokio::test]
async fn what_is_remembered_outlives_a_reload_unless_that_changes_who_answers() {
    let upstream = willing().await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let sections = |more: &str| {
        let provider = crate::support::gateway::provider("up", &upstream);
        format!("{provider}{more}")
    };
    assert_eq!(told(&chat(&gateway, question(&json!({}))).await), "miss");
    gateway.reload(&sections(&remembering(", ttl = \"10m\""))).await;
    assert_eq!(told(&chat(&gateway, question(&json!({}))).await), "hit");
    let longer = remembering("").replace("cache =", "max_output_tokens = 40\ncache =");
    assert_eq!(gateway.reload(&sections(&longer)).await.status, 200);
    assert_eq!(told(&chat(&gateway, question(&json!({}))).await), "miss");
}
