//! Servers that follow OpenAI's chat completions and do not take all that its clients say.

use serde_json::{Value, json};

use super::{before, sent};
use crate::support::client::{CHAT, post};
use crate::support::gateway::KEY;
use crate::support::replies::REPLY;
use crate::support::{Gateway, Script, Upstream};

/// What a provider of this kind is sent of these fields, and what is named as lost.
async fn asked_of(kind: &str, model: &str, more: Value) -> (Value, Option<String>) {
    let (upstream, gateway) = before(kind, model, vec![Script::json(200, REPLY)]).await;
    let mut body = json!({"model": "fast", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = post(gateway.address, CHAT, KEY, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    (sent(&upstream, 0), answer.header("x-switchpoint-dropped").map(str::to_owned))
}

#[tokio::test]
async fn the_limit_of_an_answer_has_the_name_that_the_server_knows() {
    let more = json!({"max_completion_tokens": 50, "odd": {"max_completion_tokens": 1}});
    for (kind, model) in [("mistral", "mistral-small-latest"), ("deepseek", "m"), ("ollama", "m")] {
        let (body, _) = asked_of(kind, model, more.clone()).await;
        assert_eq!(
            (&body["max_tokens"], &body["odd"]["max_completion_tokens"]),
            (&json!(50), &json!(1))
        );
        assert_eq!(body.get("max_completion_tokens"), None, "{kind}");
    }
    // These take both, or lead to models that know only the newer name.
    for (kind, model) in [("groq", "m"), ("openai-compatible", "m"), ("openrouter", "openai/gpt-5")]
    {
        let (body, _) = asked_of(kind, model, more.clone()).await;
        assert_eq!(
            (&body["max_completion_tokens"], &body["max_tokens"]),
            (&json!(50), &Value::Null)
        );
    }
    let both = json!({"max_completion_tokens": 50, "max_tokens": 60});
    let (body, _) = asked_of("mistral", "mistral-small-latest", both).await;
    assert_eq!(body["max_tokens"], 50);
    assert_eq!(body.get("max_completion_tokens"), None);
}

#[tokio::test]
async fn a_developer_speaks_as_the_system_where_only_that_is_known() {
    let more = json!({"messages": [
        {"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}]});
    for kind in ["mistral", "deepseek", "ollama"] {
        let (body, _) = asked_of(kind, "m", more.clone()).await;
        assert_eq!(
            body["messages"][0],
            json!({"role": "system", "content": "Be brief."}),
            "{kind}"
        );
    }
    for kind in ["openai", "openai-compatible"] {
        let (body, _) = asked_of(kind, "m", more.clone()).await;
        assert_eq!(body["messages"], more["messages"], "{kind}");
    }
}

#[tokio::test]
async fn what_mistral_would_refuse_is_left_out_and_named_unless_it_is_bookkeeping() {
    let kept = json!({"store": false, "safety_identifier": "x", "prompt_cache_key": "p", "temperature": 0.5});
    let mut more = kept.clone();
    more["web_search_options"] = json!({});
    more["seed"] = json!(7);
    let (body, dropped) = asked_of("mistral", "mistral-small-latest", more).await;
    assert_eq!(dropped.as_deref(), Some("web_search_options"));
    for lost in ["store", "safety_identifier", "web_search_options", "seed"] {
        assert_eq!(body.get(lost), None, "{lost}");
    }
    assert_eq!((&body["random_seed"], &body["prompt_cache_key"]), (&json!(7), &json!("p")));
    let (_, dropped) = asked_of("mistral", "mistral-small-latest", kept).await;
    assert_eq!(dropped, None);
}

#[tokio::test]
async fn a_schema_is_told_in_words_where_that_is_all_a_lone_provider_takes() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let (body, dropped) =
        asked_of("deepseek", "deepseek-chat", json!({"response_format": format})).await;
    assert_eq!(body["response_format"], json!({"type": "json_object"}));
    assert!(body["messages"][0].to_string().contains("JSON Schema"), "{body}");
    assert_eq!(dropped.as_deref(), Some("response_format.schema"));
}

#[tokio::test]
async fn thoughts_that_nobody_asked_for_do_not_stand_in_the_content() {
    let thinking = json!({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]});
    let said = json!([thinking, {"type": "text", "text": "Hello."}]);
    let mut reply: Value = serde_json::from_str(REPLY).unwrap();
    reply["choices"][0]["message"]["content"] = said;
    let chunk = |delta: Value, end: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let stream = [
        chunk(json!({"role": "assistant", "content": ""}), None),
        chunk(json!({"content": [thinking]}), None),
        chunk(json!({"content": "Hello."}), None),
        chunk(json!({"content": ""}), Some("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let scripts = vec![Script::json(200, &reply.to_string()), Script::stream([stream.concat()])];
    let (_upstream, gateway) = before("mistral", "magistral-medium-latest", scripts).await;
    let asked = json!({"model": "fast", "messages": [{"role": "user", "content": "Hi"}]});
    let whole = post(gateway.address, CHAT, KEY, asked.to_string()).await.json();
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("Hello."), &json!("Hm."))
    );

    let mut asked = asked;
    asked["stream"] = json!(true);
    let streamed = post(gateway.address, CHAT, KEY, asked.to_string()).await;
    let deltas: Vec<Value> =
        super::events(&streamed).iter().map(|event| event["choices"][0]["delta"].clone()).collect();
    assert!(deltas.iter().all(|delta| !delta["content"].is_array()), "{}", streamed.text());
    assert!(deltas.iter().any(|delta| delta["reasoning_content"] == "Hm."), "{}", streamed.text());
    assert!(deltas.iter().any(|delta| delta["content"] == "Hello."), "{}", streamed.text());
}

fn turn() -> Vec<Value> {
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": "{}"}});
    vec![
        json!({"role": "user", "content": "Look."}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": "abcdefghi", "content": "seen"}),
    ]
}

#[tokio::test]
async fn mistrals_model_speaks_between_a_tool_and_a_user() {
    let mut messages = turn();
    messages.push(json!({"role": "user", "content": "Go on."}));
    let more = json!({"messages": messages});
    let (body, _) = asked_of("mistral", "mistral-small-latest", more.clone()).await;
    let bridge = json!({"role": "assistant", "content": "I have the results."});
    let sent = body["messages"].as_array().unwrap();
    assert_eq!(sent[3..], [bridge, messages[3].clone()]);
    let (body, _) = asked_of("openai", "gpt-4o", more).await;
    assert_eq!(body["messages"].as_array(), Some(&messages));
}

#[tokio::test]
async fn a_turn_that_is_to_be_carried_on_says_so_in_whatever_words_it_goes_out() {
    let mut messages = turn();
    messages.push(json!({"role": "assistant", "content": "It is"}));
    let (body, _) =
        asked_of("mistral", "mistral-small-latest", json!({"messages": messages})).await;
    assert_eq!(
        body["messages"][3],
        json!({"role": "assistant", "content": "It is", "prefix": true})
    );
    // Written anew for its role; what its client said of the last turn stays.
    for word in ["prefix", "partial"] {
        let last = json!({"role": "assistant", "content": "It is", word: true});
        let user = json!({"role": "user", "content": "Hi"});
        let messages = json!([{"role": "developer", "content": "Be brief."}, user, last]);
        let (body, _) = asked_of("deepseek", "deepseek-chat", json!({"messages": messages})).await;
        assert_eq!(body["messages"][2], last);
    }
}

/// Claude Code sends results and a reminder in one turn.
#[tokio::test]
async fn a_reminder_beside_results_reaches_mistral_in_a_turn_of_its_own() {
    let upstream = Upstream::start([("m", vec![Script::json(200, REPLY)])]).await;
    let sections = format!(
        "[providers.up]\nkind = \"mistral\"\nbase_url = \"{}\"\napi_key = \"k\"\n\
         [routes.fast]\ntargets = [\"up/m\"]\n",
        upstream.base()
    );
    let gateway = Gateway::start("", &sections).await;
    let body = json!({"model": "fast", "max_tokens": 9, "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "seen"},
            {"type": "text", "text": "<system-reminder>Be brief.</system-reminder>"}]}]});
    let answer = post(gateway.address, "/v1/messages", KEY, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = sent(&upstream, 0);
    let roles: Vec<&str> =
        body["messages"].as_array().unwrap().iter().filter_map(|it| it["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant", "user"]);
}

/// Codex edits by free text, has tools in namespaces and a shell of its own.
fn as_codex_asks() -> Value {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let open = json!({"type": "function", "name": "open", "parameters": parameters});
    json!({
        "model": "fast",
        "input": [
            {"role": "user", "content": "Edit it."},
            {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c0", "name": "apply_patch", "input": "*** End"},
            {"type": "custom_tool_call_output", "call_id": "c0", "output": "Failed; again."},
        ],
        "tools": [
            {"type": "custom", "name": "apply_patch", "format": {"type": "text"}},
            {"type": "namespace", "name": "files", "description": "Files.", "tools": [open]},
            {"type": "local_shell"},
            {"type": "x_search"},
        ],
        "tool_choice": {"type": "custom", "name": "apply_patch"},
    })
}

#[tokio::test]
async fn servers_that_follow_the_responses_api_are_given_functions_and_keep_their_own_tools() {
    let called = |id: &str, name: &str, arguments: Value| {
        json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": name,
            "status": "completed", "arguments": arguments.to_string()})
    };
    let answer = json!({"id": "resp_1", "object": "response", "created_at": 17, "model": "m",
    "status": "completed", "usage": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12},
    "output": [
        called("c1", "apply_patch", json!({"input": "*** Begin"})),
        called("c2", "files-_-open", json!({"path": "a"})),
        called("c3", "local_shell", json!({"type": "exec", "command": ["ls"], "env": {}})),
    ]});
    let question = as_codex_asks();
    for kind in ["xai", "groq", "fireworks", "openrouter"] {
        let script = Script::json(200, &answer.to_string());
        let (upstream, gateway) = before(kind, "m", vec![script]).await;
        let reply = post(gateway.address, "/v1/responses", KEY, question.to_string()).await;
        assert_eq!(reply.status, 200, "{kind}: {}", reply.text());
        assert_eq!(reply.header("x-switchpoint-dropped"), None, "{kind}");

        let asked = sent(&upstream, 0);
        let tools = asked["tools"].as_array().unwrap();
        let named: Vec<_> = tools.iter().map(|tool| (&tool["type"], &tool["name"])).collect();
        let functions = ["apply_patch", "files-_-open", "local_shell"].map(|name| json!(name));
        assert!(
            named[..3].iter().zip(&functions).all(|(it, name)| *it == (&json!("function"), name))
        );
        assert_eq!(tools[3], json!({"type": "x_search"}));
        assert_eq!(asked["tool_choice"], json!({"type": "function", "name": "apply_patch"}));
        let input = json!({"input": "*** End"}).to_string();
        assert_eq!(
            asked["input"][1],
            json!({"type": "function_call", "call_id": "c0", "name": "apply_patch", "arguments": input})
        );
        assert_eq!(asked["input"][2]["type"], "function_call_output");

        let output = &reply.json()["output"];
        let kinds = [&output[0]["type"], &output[1]["type"], &output[2]["type"]];
        assert_eq!(kinds, ["custom_tool_call", "function_call", "local_shell_call"]);
        assert_eq!(output[0]["input"], "*** Begin");
        assert_eq!(
            (&output[1]["namespace"], &output[1]["name"]),
            (&json!("files"), &json!("open"))
        );
    }
    // OpenAI's own has them all, and is asked as the client does.
    let (upstream, gateway) =
        before("openai", "m", vec![Script::json(200, &answer.to_string())]).await;
    post(gateway.address, "/v1/responses", KEY, question.to_string()).await;
    assert_eq!(sent(&upstream, 0)["tools"], question["tools"]);
}
