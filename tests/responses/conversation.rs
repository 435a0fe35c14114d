//! A conversation goes on where it was left, with whatever provider is asked next.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    assert_order, chat_says, claude_answers, claude_says, create, created, lasting, response,
    response_of, sections, streamed, whole,
};
use crate::support::client::{CHAT, post};
use crate::support::gateway::{KEY, provider, route};
use crate::support::{Gateway, Script, Upstream, until};

const SAID: [&str; 6] = ["first?", "First.", "second?", "Second.", "third?", "Third."];

/// Models that say `First.`, `Second.` and `Third.`, in that order.
fn talkers() -> Vec<(&'static str, Vec<Script>)> {
    let answers = [("1", SAID[1]), ("2", SAID[3]), ("3", SAID[5])];
    vec![
        ("verbatim", answers.map(|(number, text)| whole(&response(number, text))).into()),
        ("verbatim?stream", answers.map(|(number, text)| streamed(&response(number, text))).into()),
        ("chat", answers.map(|(_, text)| chat_says(text)).into()),
        ("claude", answers.map(|(_, text)| claude_says(text)).into()),
    ]
}

async fn turn(gateway: &Gateway, model: &str, text: &str, previous: &Value) -> Value {
    let body = json!({"model": model, "input": text, "previous_response_id": previous});
    created(gateway, body).await["id"].clone()
}

fn last_asked(upstream: &Upstream) -> String {
    upstream.requests().pop().unwrap().text().to_owned()
}

#[tokio::test]
async fn three_turns_are_told_in_order_to_every_kind_of_provider() {
    for model in super::TARGETS {
        let upstream = Upstream::start(talkers()).await;
        let gateway = Gateway::start("", &sections(&upstream)).await;
        let mut previous = Value::Null;
        for question in [SAID[0], SAID[2], SAID[4]] {
            previous = turn(&gateway, model, question, &previous).await;
        }
        let asked = last_asked(&upstream);
        assert_order(&asked, &SAID[..5]);
        for text in &SAID[..5] {
            assert_eq!(asked.matches(text).count(), 1, "{model}: {asked}");
        }
        assert!(!asked.contains("previous_response_id"), "{asked}");
        // Who made a thought finds it by its id.
        assert_eq!(
            asked.contains("rs_up1") && asked.contains("rs_up2"),
            model == super::TARGETS[0]
        );
    }
}

#[tokio::test]
async fn a_streamed_turn_is_gone_on_from_as_well() {
    let upstream = Upstream::start(talkers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let mut previous = Value::Null;
    for question in [SAID[0], SAID[2], SAID[4]] {
        let body = json!({
            "model": "oai/verbatim", "input": question, "previous_response_id": previous,
            "stream": true,
        });
        previous = created(&gateway, body).await["id"].clone();
    }
    assert_order(&last_asked(&upstream), &SAID[..5]);
}

#[tokio::test]
async fn a_conversation_may_change_its_provider_at_every_turn() {
    let models = ["oai/verbatim", "chat/chat", "claude/claude"];
    for rotation in 0..3 {
        let answers = ["1", "2", "3"].into_iter().zip([SAID[1], SAID[3], SAID[5]]);
        let answers: Vec<_> = answers.collect();
        let order: Vec<_> = (0..3).map(|turn| models[(turn + rotation) % 3]).collect();
        let scripts = order.iter().zip(answers).map(|(model, (number, text))| {
            let name = model.split_once('/').unwrap().1;
            let script = match name {
                "verbatim" => whole(&response(number, text)),
                "chat" => chat_says(text),
                _ => claude_says(text),
            };
            (name, [script])
        });
        let upstream = Upstream::start(scripts).await;
        let gateway = Gateway::start("", &sections(&upstream)).await;
        let mut previous = Value::Null;
        for (model, question) in order.iter().zip([SAID[0], SAID[2], SAID[4]]) {
            previous = turn(&gateway, model, question, &previous).await;
        }
        assert_order(&last_asked(&upstream), &SAID[..5]);
    }
}

/// A thought and what was said behind it.
fn sealed_response(number: u8) -> Value {
    let thought = json!({
        "type": "reasoning", "id": "rs_secret", "summary": [], "encrypted_content": "gAAAAB",
    });
    let mut response = response(&number.to_string(), SAID[1]);
    response["output"][0] = thought;
    response
}

#[tokio::test]
async fn thoughts_go_back_to_who_made_them_and_to_nobody_else() {
    let thinking = claude_answers(&json!([
        {"type": "thinking", "thinking": "Well.", "signature": "c2lnbmVk"},
        {"type": "text", "text": SAID[1]},
    ]));
    let upstream = Upstream::start([
        ("verbatim", (1..9).map(|number| whole(&sealed_response(number))).collect()),
        ("claude", vec![thinking]),
        ("chat", vec![chat_says(SAID[1])]),
    ])
    .await;
    let both = route("both", &["oai/verbatim", "claude/claude"], "");
    let gateway = Gateway::start("", &format!("{}{both}", sections(&upstream))).await;
    let from_openai = turn(&gateway, "oai/verbatim", SAID[0], &Value::Null).await;
    let from_claude = turn(&gateway, "claude/claude", SAID[0], &Value::Null).await;
    for (previous, model, thought) in [
        (&from_openai, "oai/verbatim", true),
        (&from_openai, "oai2/verbatim", false),
        (&from_openai, "chat/chat", false),
        (&from_openai, "claude/claude", false),
        (&from_openai, "both", false),
        (&from_claude, "claude/claude", true),
        (&from_claude, "oai/verbatim", false),
        (&from_claude, "both", false),
    ] {
        turn(&gateway, model, SAID[2], previous).await;
        let asked = last_asked(&upstream);
        assert_order(&asked, &SAID[..3]);
        let there = ["gAAAAB", "rs_secret", "c2lnbmVk", "sp1."].iter().any(|it| asked.contains(it));
        assert_eq!(there, thought, "{model}: {asked}");
    }
}

#[tokio::test]
async fn thoughts_without_a_seal_go_back_to_who_made_them_as_well() {
    let call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}});
    let thinks = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "", "reasoning_content": "Well.", "tool_calls": [call],
        }}],
    });
    let upstream =
        Upstream::start([("thinks", [whole(&thinks)]), ("says", [chat_says("Sunny.")])]).await;
    let seek = |name| provider(name, &upstream).replace("openai-compatible", "deepseek");
    let gateway = Gateway::start("", &[seek("seek"), seek("seek2")].concat()).await;
    let tools = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}}]);
    let body = json!({"model": "seek/thinks", "input": "How is Paris?", "tools": tools});
    let called = created(&gateway, body).await;
    let items = called["output"].as_array().unwrap();
    let by_id = items.iter().map(|item| json!({"type": "item_reference", "id": item["id"]}));
    let result = json!({"type": "function_call_output", "call_id": "call_1", "output": "22"});
    let input: Vec<Value> = by_id.chain([result.clone()]).collect();
    for (model, thought) in [("seek/says", true), ("seek2/says", false)] {
        for body in [
            json!({"input": [result], "previous_response_id": called["id"]}),
            json!({"input": input}),
        ] {
            let mut body = body.clone();
            body["model"] = json!(model);
            body["tools"] = tools.clone();
            created(&gateway, body).await;
            let asked = last_asked(&upstream);
            assert_order(&asked, &["call_1", "22"]);
            assert_eq!(asked.contains("Well."), thought, "{model}: {asked}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_gives_an_id_twice_leads_nobody_in_circles() {
    let upstream = Upstream::start([("verbatim", [whole(&response("1", SAID[1]))])]).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let first = turn(&gateway, "oai/verbatim", SAID[0], &Value::Null).await;
    assert_eq!(turn(&gateway, "oai/verbatim", SAID[2], &first).await, first);
    let body = json!({"model": "oai/verbatim", "input": "", "previous_response_id": first});
    assert_eq!(create(&gateway, &body).await.status, 400);
}

#[tokio::test]
async fn a_tool_is_called_in_one_turn_and_answers_in_the_next() {
    let call = json!({
        "type": "function_call", "id": "fc_up1", "call_id": "call_1", "name": "weather",
        "arguments": "{\"city\":\"Paris\"}", "status": "completed",
    });
    let chat_call = json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Paris\"}"}});
    let chat_calls = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null, "tool_calls": [chat_call]}}],
    });
    let claude_calls = claude_answers(&json!([
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
    ]));
    let upstream = Upstream::start([
        (
            "verbatim",
            vec![whole(&response_of("1", &json!([call]))), whole(&response("2", "Sunny."))],
        ),
        ("chat", vec![whole(&chat_calls), chat_says("Sunny.")]),
        ("claude", vec![claude_calls, claude_says("Sunny.")]),
    ])
    .await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let tools = json!([{
        "type": "function", "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }]);
    for model in super::TARGETS {
        let body = json!({"model": model, "input": "How is Paris?", "tools": tools});
        let called = created(&gateway, body).await;
        let output = called["output"].as_array().unwrap();
        let call = output.iter().find(|item| item["type"] == "function_call").unwrap();
        assert_eq!(call["name"], "weather", "{model}");
        let result = json!({
            "type": "function_call_output", "call_id": call["call_id"], "output": "22 degrees",
        });
        let body = json!({
            "model": model, "tools": tools, "input": [result],
            "previous_response_id": called["id"],
        });
        let told = created(&gateway, body).await;
        assert!(told.to_string().contains("Sunny."), "{told}");
        assert_order(&last_asked(&upstream), &["How is Paris?", "Paris", "22 degrees"]);
    }
}

#[tokio::test]
async fn what_was_already_said_may_be_referred_to_by_its_id() {
    let upstream = Upstream::start(talkers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let first = turn(&gateway, "oai/verbatim", SAID[0], &Value::Null).await;
    let ask = |id: &str| {
        let input = json!([
            {"type": "item_reference", "id": id}, {"role": "user", "content": SAID[2]},
        ]);
        json!({"model": "chat/chat", "input": input, "previous_response_id": first})
    };
    created(&gateway, ask("msg_up1")).await;
    let asked = last_asked(&upstream);
    assert_order(&asked, &SAID[..3]);
    assert_eq!(asked.matches(SAID[1]).count(), 1);
    // A thought that is not passed on may be referred to all the same.
    created(&gateway, ask("rs_up1")).await;
    assert_eq!(create(&gateway, &ask("msg_none")).await.status, 404);
}

#[tokio::test]
async fn an_item_may_be_referred_to_without_the_response_it_was_said_in() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start(talkers()).await;
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    turn(&gateway, "oai/verbatim", SAID[0], &Value::Null).await;
    gateway.stop();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    for (model, thought) in [("oai/verbatim", true), ("oai2/verbatim", false), ("chat/chat", false)]
    {
        let input = json!([
            {"type": "item_reference", "id": "rs_up1"}, {"id": "msg_up1"},
            {"role": "user", "content": SAID[2]},
        ]);
        let answer = created(&gateway, json!({"model": model, "input": input})).await;
        let asked = last_asked(&upstream);
        assert_order(&asked, &SAID[1..3]);
        assert!(!asked.contains("item_reference"), "{asked}");
        // A thought is told to who made it and to nobody else.
        assert_eq!(asked.contains("rs_up1"), thought, "{asked}");
        // Whoever goes on from there knows what was meant.
        turn(&gateway, "chat/chat", SAID[4], &answer["id"]).await;
        assert_order(&last_asked(&upstream), &SAID[1..3]);
    }
    let twice = json!([{"type": "item_reference", "id": "msg_up1"}, {"id": "msg_up1"}]);
    let refused = create(&gateway, &json!({"model": "chat/chat", "input": twice})).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn an_item_of_another_key_cannot_be_told_from_what_was_never_said() {
    let upstream = Upstream::start(talkers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    turn(&gateway, "oai/verbatim", SAID[0], &Value::Null).await;
    let items = [
        json!({"type": "item_reference", "id": "msg_up1"}),
        json!({"id": "msg_up1"}),
        json!({"type": null, "id": "msg_up1"}),
        json!({"type": "reasoning", "id": "msg_up1", "summary": []}),
    ];
    for (place, item) in items.iter().enumerate() {
        let background = place % 2 == 0;
        let body = json!({"model": "oai/verbatim", "input": [item], "background": background});
        let body = body.to_string();
        let ask = |body: String| post(gateway.address, super::RESPONSES, super::OTHER_KEY, body);
        let theirs = ask(body.clone()).await;
        let unknown = ask(body.replace("msg_up1", "msg_none")).await;
        assert_eq!((theirs.status, unknown.status), (404, 404), "{body}");
        assert_eq!(theirs.text().replace("msg_up1", "msg_none"), unknown.text());
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_names_the_response_that_it_goes_on_from() {
    let upstream = Upstream::start(super::answers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for model in &super::TARGETS[1..] {
        let first = turn(&gateway, model, SAID[0], &Value::Null).await;
        for stream in [false, true] {
            let body = json!({
                "model": model, "input": SAID[2], "previous_response_id": first, "stream": stream,
            });
            assert_eq!(created(&gateway, body).await["previous_response_id"], first);
        }
    }
}

#[tokio::test]
async fn a_conversation_is_no_longer_than_a_body_and_counts_as_one() {
    let long = "x".repeat(40 << 10);
    for (most, status, code) in [(100, 413, "invalid_request"), (150, 503, "overloaded")] {
        let mut models = talkers();
        models.push(("stuck", vec![Script::default().stall()]));
        let upstream = Upstream::start(models).await;
        let server = format!("max_body = \"{most}KiB\"\nbody_budget = \"{most}KiB\"");
        let gateway = Gateway::start(&server, &sections(&upstream)).await;
        let model = super::TARGETS[0];
        let first = turn(&gateway, model, &long, &Value::Null).await;
        let second = turn(&gateway, model, &long, &first).await;
        // Somebody else is there.
        let messages = [json!({"role": "user", "content": long})];
        let body = json!({"model": "chat/stuck", "messages": messages}).to_string();
        let mut others = JoinSet::new();
        others.spawn(post(gateway.address, CHAT, KEY, body));
        upstream.asked(3).await;
        let third = json!({"model": model, "input": long, "previous_response_id": second});
        let refused = create(&gateway, &third).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (status, &json!(code)));
        drop(others);
        until("nothing is held", || gateway.records().len() == 4).await;
        let held = gateway.metric("switchpoint_body_bytes", &[]).await;
        assert!(held < 1.0, "{held} bytes are held");
        assert_eq!(create(&gateway, &third).await.status, if status == 413 { 413 } else { 200 });
    }
}
