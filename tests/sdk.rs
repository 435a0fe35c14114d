//! The official SDKs, unmodified, against the gateway and a scripted upstream.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::json;

use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{DONE, REPLY, answer, choice, finish, role, usage, word};
use crate::support::{Gateway, Script, Upstream};

const LIMITED_KEY: &str = "sk-test-limited";
const REFUSALS: [u16; 7] = [400, 401, 403, 404, 422, 429, 500];

fn whole(message: &serde_json::Value, finish: &str) -> Script {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000, "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    });
    Script::json(200, &body.to_string())
}

fn calls() -> Script {
    let call = |id: &str, city: &str| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": json!({"city": city}).to_string()}});
    let calls = [call("call_1", "Paris"), call("call_2", "Rome")];
    whole(&json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
}

fn streamed_calls() -> Script {
    let open = |index: u8, id: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": "weather", "arguments": ""}}]});
    let more = |index: u8, text: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
    let deltas = [
        open(0, "call_1"),
        more(0, "{\"city\":"),
        more(0, "\"Paris\"}"),
        open(1, "call_2"),
        more(1, "{\"city\":\"Rome\"}"),
    ];
    let deltas = deltas.iter().map(|delta| choice(&delta.to_string(), "null"));
    let end = [choice("{}", "\"tool_calls\""), usage(), DONE.to_owned()];
    Script::stream([role()].into_iter().chain(deltas).chain(end))
}

fn embeddings(encoded: bool) -> Script {
    let numbers = [0.25_f32, -0.5, 1.0];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let embedding = if encoded { json!(text) } else { json!(numbers) };
    let data =
        [0, 1].map(|index| json!({"object": "embedding", "index": index, "embedding": embedding}));
    let body = json!({"object": "list", "model": "served", "data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}});
    Script::json(200, &body.to_string())
}

/// Cohere's answer, which is never base64.
fn cohere_embeddings() -> Script {
    let body = json!({
        "id": "1", "response_type": "embeddings_by_type", "texts": ["one", "two"],
        "embeddings": {"float": [[0.25, -0.5], [1.0, 0.125]]},
        "meta": {"billed_units": {"input_tokens": 2}},
    });
    Script::json(200, &body.to_string())
}

fn completion(text: &str, finish: Option<&str>) -> serde_json::Value {
    json!({
        "id": "cmpl-1", "object": "text_completion", "created": 1_760_000_000, "model": "served",
        "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}],
    })
}

/// The routes that the scripts ask for; `name?stream` answers those who want a stream.
fn scripts() -> Vec<(String, [Script; 1])> {
    let city = json!({"name": "Rome", "population": 2_800_000}).to_string();
    let pieces = ["there ", "was", ""].map(|text| {
        let event = completion(text, text.is_empty().then_some("stop"));
        format!("data: {event}\n\n")
    });
    let slow = Script::stream_head()
        .chunks(vec![word("slow "); 200])
        .paced(Duration::from_millis(50))
        .chunks([finish(), DONE.to_owned()])
        .end();
    let mut scripts = vec![
        ("chat", Script::json(200, REPLY)),
        ("chat?stream", Script::stream(answer())),
        ("tools", calls()),
        ("tools?stream", streamed_calls()),
        ("json", whole(&json!({"role": "assistant", "content": city}), "stop")),
        ("embed", embeddings(false)),
        ("embed?base64", embeddings(true)),
        ("vectors", cohere_embeddings()),
        ("completions", Script::json(200, &completion("there was", Some("stop")).to_string())),
        ("completions?stream", Script::stream(pieces.iter().map(String::as_str).chain([DONE]))),
        ("cut", Script::stream_head().chunks([role(), word("Hel")]).close()),
        ("slow", slow),
        ("not-allowed", Script::json(200, REPLY)),
    ]
    .into_iter()
    .map(|(name, script)| (name.to_owned(), [script]))
    .collect::<Vec<_>>();
    scripts.extend(REFUSALS.map(|status| {
        let body = json!({"error": {"message": format!("It is {status}."), "type": "test", "code": "test"}});
        (format!("err-{status}"), [Script::json(status, &body.to_string())])
    }));
    scripts
}

#[tokio::test]
async fn the_official_sdks_work_unmodified() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDKs were not asked to run");
        return;
    }
    let upstream = Upstream::start(scripts()).await;
    let names = scripts().into_iter().map(|(name, _)| name).filter(|name| !name.contains('?'));
    let provider_of = |name: &str| if name == "vectors" { "cohere" } else { "up" };
    let routes: String =
        names.map(|name| route(&name, &[&format!("{}/{name}", provider_of(&name))], "")).collect();
    let cohere = format!(
        "[providers.cohere]\nkind = \"cohere\"\nbase_url = \"http://{}\"\napi_key = \"k\"\n",
        upstream.address
    );
    let limited = format!("[keys.limited]\nsecret = \"{LIMITED_KEY}\"\nroutes = [\"chat\"]\n");
    let up = provider("up", &upstream).replace("openai-compatible", "openai");
    let sections = format!("{up}{cohere}[providers.demo]\nkind = \"demo\"\n\n{routes}{limited}");
    let gateway = Gateway::start("", &sections).await;
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/run.sh"));
    command
        .env("SWITCHPOINT_URL", gateway.base())
        .env("SWITCHPOINT_KEY", KEY)
        .env("SWITCHPOINT_LIMITED_KEY", LIMITED_KEY)
        .env("UPSTREAM_CONTROL", format!("http://{}", upstream.address));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}", said.concat());
    assert!(output.status.success(), "an SDK broke a promise");
}
