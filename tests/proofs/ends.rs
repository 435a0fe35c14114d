//! Every way in which a call can end, as a table: what its upstream does, when its client leaves,
//! and what it comes to.

use std::time::Duration;

use serde_json::{Value, json};

use super::apis::{Api, Used};
use crate::support::Script;
use crate::support::replies::{DONE, role, word};

/// What an upstream does that is asked for a model by one of its APIs.
pub(super) type Deed = fn(Api, Used) -> Script;

/// One way to end.
pub(super) struct Ending {
    /// Also its route's, and the model's that answers.
    pub(super) name: String,
    /// Targets besides, asked before: their models have this behind the name.
    pub(super) before: Vec<(&'static str, Deed)>,
    pub(super) provider: Api,
    pub(super) deed: Deed,
    /// Further lines of its route.
    pub(super) route: &'static str,
    pub(super) ask: fn(&str, &str) -> (String, Value),
    pub(super) leaves: Leaves,
    pub(super) tokens: Tokens,
    /// Empty where it is left to chance.
    pub(super) outcome: &'static str,
    /// Where it is not one of those that all use.
    pub(super) key: Option<&'static str>,
}

/// When a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    Never,
    /// As soon as the upstream has been asked.
    Unanswered,
    /// When it has read this.
    Behind(&'static str),
}

/// Whose word the tokens of a call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    Upstream,
    Estimate,
    /// Nothing was used.
    None,
    Any,
}

type Ask = fn(&str, &str) -> (String, Value);

macro_rules! ask {
    ($api:expr, $stream:expr) => {
        |model, text| $api.question(model, text, $stream)
    };
}

const WHOLE: [(&str, Ask); 4] = [
    ("chat", ask!(Api::Chat, false)),
    ("responses", ask!(Api::Responses, false)),
    ("messages", ask!(Api::Messages, false)),
    ("gemini", ask!(Api::Gemini, false)),
];
const STREAMED: [(&str, Ask); 4] = [
    ("chat", ask!(Api::Chat, true)),
    ("responses", ask!(Api::Responses, true)),
    ("messages", ask!(Api::Messages, true)),
    ("gemini", ask!(Api::Gemini, true)),
];
const CHAT: Ask = WHOLE[0].1;
const CHAT_STREAM: Ask = STREAMED[0].1;
const ALONE: &str = "attempts = 1";
const ERROR: &str = r#"{"error":{"message":"no","type":"server_error"}}"#;

/// One word of a stream.
fn begun(api: Api, used: Used) -> Script {
    let events = api.events(used).into_iter().take(2).filter(|event| !event.is_empty());
    Script::stream_head().chunks(events)
}

/// The same, and then nothing more.
fn silent(api: Api, used: Used) -> Script {
    begun(api, used).stall()
}

fn ending(name: &str, ask: Ask, deed: Deed) -> Ending {
    Ending {
        name: name.to_owned(),
        before: Vec::new(),
        provider: Api::Chat,
        deed,
        route: "",
        ask,
        leaves: Leaves::Never,
        tokens: Tokens::Upstream,
        outcome: "ok",
        key: None,
    }
}

/// All of them.
pub(super) fn endings() -> Vec<Ending> {
    let mut all = answered();
    all.extend(other_doors());
    all.extend(unattended());
    all.extend(left());
    all.extend(broken());
    all.extend(detours());
    all.extend(refused());
    all
}

/// Answered as one should be, through every pair of APIs.
fn answered() -> Vec<Ending> {
    let mut all = Vec::new();
    for provider in Api::ALL {
        let asked: [(_, Deed, _); 2] =
            [(WHOLE, Api::whole, "whole"), (STREAMED, Api::stream, "stream")];
        for (asks, deed, way) in asked {
            all.extend(asks.map(|(client, ask)| Ending {
                provider,
                ..ending(&format!("{client}-by-{}-{way}", provider.name()), ask, deed)
            }));
        }
    }
    all
}

fn other_doors() -> Vec<Ending> {
    vec![
        ending(
            "completion",
            |model, text| completion(model, text, false),
            |_, used| Script::json(200, &completed(used).to_string()),
        ),
        ending(
            "completion-stream",
            |model, text| completion(model, text, true),
            |_, used| Script::stream([format!("data: {}\n\n", completed(used)), DONE.to_owned()]),
        ),
        ending(
            "embeddings",
            |model, text| ("/v1/embeddings".into(), json!({"model": model, "input": text})),
            |_, (input, output)| {
                let sum = input + output;
                let body = json!({"object": "list", "model": "served",
                    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
                    "usage": {"prompt_tokens": sum, "total_tokens": sum}});
                Script::json(200, &body.to_string())
            },
        ),
        ending(
            "image",
            |model, text| {
                ("/v1/images/generations".into(), json!({"model": model, "prompt": text}))
            },
            relayed,
        ),
        ending(
            "moderation",
            |model, text| ("/v1/moderations".into(), json!({"model": model, "input": text})),
            relayed,
        ),
        ending(
            "rerank",
            |model, text| {
                let body = json!({"model": model, "query": text, "documents": ["a", "b"]});
                ("/v1/rerank".into(), body)
            },
            relayed,
        ),
        ending(
            "speech",
            |model, text| {
                let body = json!({"model": model, "input": text, "stream_format": "sse"});
                ("/v1/audio/speech".into(), body)
            },
            |_, (input, output)| {
                let usage = json!({"input_tokens": input, "output_tokens": output});
                let done = json!({"type": "speech.audio.done", "usage": usage});
                Script::stream([format!("data: {done}\n\n")])
            },
        ),
    ]
}

/// Answers that nobody waits for, and questions that are only counted.
fn unattended() -> Vec<Ending> {
    let response: Ask = |model, text| {
        let (path, mut body) = Api::Responses.question(model, text, false);
        body["background"] = json!(true);
        (path, body)
    };
    let followed: Ask = |model, text| {
        let (path, mut body) = Api::Responses.question(model, text, true);
        body["background"] = json!(true);
        (path, body)
    };
    let responses =
        |name, ask, deed| Ending { provider: Api::Responses, ..ending(name, ask, deed) };
    vec![
        responses("background", response, Api::whole),
        Ending {
            leaves: Leaves::Behind("Hello"),
            ..responses("background-stream", followed, Api::stream)
        },
        Ending {
            tokens: Tokens::None,
            ..ending(
                "count",
                |model, text| {
                    let said = json!([{"role": "user", "content": text}]);
                    let body = json!({"model": model, "messages": said});
                    ("/v1/messages/count_tokens".into(), body)
                },
                |_, _| Script::json(404, ERROR),
            )
        },
    ]
}

fn completion(model: &str, text: &str, stream: bool) -> (String, Value) {
    let body = json!({"model": model, "prompt": text, "max_tokens": 50, "stream": stream});
    ("/v1/completions".to_owned(), body)
}

fn completed((input, output): Used) -> Value {
    json!({"id": "cmpl-1", "object": "text_completion", "created": 1_760_000_000, "model": "served",
        "choices": [{"index": 0, "text": "there was", "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": input, "completion_tokens": output,
            "total_tokens": input + output}})
}

/// What passes as it is says its usage like this.
fn relayed(_: Api, (input, output): Used) -> Script {
    let usage =
        json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    Script::json(200, &json!({"id": "x", "data": [], "results": [], "usage": usage}).to_string())
}

/// Clients that leave, at every point.
fn left() -> Vec<Ending> {
    let gone = |name: &str, ask, deed, leaves| Ending {
        leaves,
        tokens: Tokens::Estimate,
        outcome: "client_closed",
        ..ending(name, ask, deed)
    };
    let mut all = vec![
        gone("left-head", CHAT_STREAM, |_, _| Script::default().stall(), Leaves::Unanswered),
        gone("left-whole", CHAT, |_, _| Script::default().stall(), Leaves::Unanswered),
        gone(
            "left-first",
            CHAT_STREAM,
            |_, _| Script::stream_head().chunks([role()]).stall(),
            Leaves::Unanswered,
        ),
        gone(
            "left-body",
            CHAT,
            |_, _| Script::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").stall(),
            Leaves::Unanswered,
        ),
        gone(
            "left-vectors",
            |model, text| ("/v1/embeddings".into(), json!({"model": model, "input": text})),
            |_, _| Script::default().stall(),
            Leaves::Unanswered,
        ),
        Ending {
            tokens: Tokens::Any,
            outcome: "",
            ..gone("left-end", CHAT_STREAM, Api::stream, Leaves::Behind(" there."))
        },
        Ending {
            route: "on_disconnect = \"drain\"",
            tokens: Tokens::Upstream,
            ..gone(
                "left-drained",
                CHAT_STREAM,
                |api, used| {
                    let events = api.events(used);
                    let begun = Script::stream_head().chunks(&events[..2]);
                    begun.wait(Duration::from_millis(300)).chunks(&events[2..]).end()
                },
                Leaves::Behind("Hello"),
            )
        },
    ];
    let mid = |name: String, provider, ask, deed| Ending {
        provider,
        ..gone(&name, ask, deed, Leaves::Behind("Hello"))
    };
    for (place, provider) in Api::ALL.into_iter().enumerate() {
        let (own, other) = (STREAMED[place], STREAMED[(place + 1) % 4]);
        for (client, ask) in [own, other] {
            let name = format!("left-{client}-by-{}", provider.name());
            all.push(mid(name, provider, ask, silent));
        }
    }
    all
}

/// Upstreams that fail, at every point.
fn broken() -> Vec<Ending> {
    let fails = |name: &str, ask, deed| Ending {
        route: ALONE,
        tokens: Tokens::None,
        outcome: "",
        ..ending(name, ask, deed)
    };
    let breaks = |name: &str, deed| Ending {
        tokens: Tokens::Estimate,
        outcome: "upstream_truncated",
        ..fails(name, CHAT_STREAM, deed)
    };
    vec![
        fails("status-429", CHAT, |_, _| Script::json(429, ERROR)),
        fails("status-500", CHAT_STREAM, |_, _| Script::json(500, ERROR)),
        fails("status-400", CHAT, |_, _| Script::json(400, ERROR)),
        fails("nonsense", CHAT, |_, _| Script::json(200, "{nonsense")),
        fails("cut-whole", CHAT, |_, _| {
            Script::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").close()
        }),
        fails("cut-first", CHAT_STREAM, |_, _| Script::stream_head().chunks([role()]).close()),
        fails("error-first", CHAT_STREAM, |_, _| {
            Script::stream([role(), format!("data: {ERROR}\n\n")])
        }),
        Ending {
            route: "attempts = 1\ntimeouts = { first_token = \"300ms\" }",
            outcome: "timeout",
            ..fails("silent-first", CHAT_STREAM, |_, _| Script::stream_head().stall())
        },
        Ending {
            route: "attempts = 1\ntimeouts = { idle = \"300ms\" }",
            outcome: "timeout",
            ..breaks("silent", silent)
        },
        breaks("cut", |api, used| begun(api, used).close()),
        breaks("reset", |api, used| begun(api, used).wait(Duration::from_millis(50)).reset()),
        Ending {
            provider: Api::Messages,
            ..breaks("cut-messages", |api, used| begun(api, used).close())
        },
        Ending {
            outcome: "upstream_error",
            // Read at once, the word was never given to anybody.
            tokens: Tokens::Any,
            ..breaks("error", |api, used| {
                let said = format!("data: {ERROR}\n\n");
                begun(api, used).wait(Duration::from_millis(100)).chunks([said]).end()
            })
        },
        Ending {
            tokens: Tokens::Upstream,
            outcome: "ok",
            ..fails("malformed", CHAT_STREAM, |api, used| {
                let mut events = api.events(used);
                events.insert(1, "data: {nonsense\n\n".to_owned());
                Script::stream(events)
            })
        },
    ]
}

/// Answered, but not by the first target or not by it alone.
fn detours() -> Vec<Ending> {
    let (chat, stream): (Deed, Deed) = (Api::whole, Api::stream);
    let fails: Deed = |_, _| Script::json(500, ERROR);
    let stalls: Deed = |_, _| Script::default().stall();
    let breaks: Deed = |api, used| begun(api, used).close();
    let hedge = "hedge = { after = \"50ms\", max_extra_cost = 1.0 }";
    vec![
        Ending { before: vec![("bad", fails)], ..ending("failover", CHAT, chat) },
        Ending { before: vec![("bad", fails)], ..ending("failover-stream", CHAT_STREAM, stream) },
        Ending { before: vec![("slow", stalls)], route: hedge, ..ending("hedge", CHAT, chat) },
        Ending {
            before: vec![("slow", stalls)],
            route: hedge,
            ..ending("hedge-stream", CHAT_STREAM, stream)
        },
        Ending {
            before: vec![("bad", breaks)],
            route: "on_break = \"continue\"",
            ..ending("continued", CHAT_STREAM, stream)
        },
        Ending { before: vec![("shadow", chat)], ..ending("shadowed", CHAT, chat) },
    ]
}

/// Not let in, or not to the end.
fn refused() -> Vec<Ending> {
    let any = |name: &str, ask, key| Ending {
        tokens: Tokens::Any,
        outcome: "",
        key: Some(key),
        ..ending(name, ask, Api::stream)
    };
    vec![
        Ending {
            deed: |_, _| {
                let words = Script::stream_head().chunks([role()]).chunks(vec![word("a"); 600]);
                words.stall()
            },
            route: "timeouts = { idle = \"2s\" }",
            ..any("outgrown", CHAT_STREAM, "poor")
        },
        any("limited", CHAT_STREAM, "limited"),
        any("stranger", CHAT_STREAM, "nobody"),
        Ending {
            tokens: Tokens::None,
            ..any(
                "misread",
                |model, _| ("/v1/chat/completions".into(), json!({"model": model})),
                "k0",
            )
        },
        any("unknown", |_, text| Api::Chat.question("no-such-route", text, false), "k0"),
    ]
}
