//! Instructions that a call costs inside the gateway, counted by callgrind: the same in every run.
//!
//! Run by `cargo bench --bench instructions`, with a part of a case's name to count only that.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports on stdout and stops at the first surprise"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use switchpoint::canon::Surface;
use switchpoint::config::{self, Config, StoreUrl};
use switchpoint::gateway::collector::Collector;
use switchpoint::gateway::{Arrival, Ask, Gateway, Snapshot};
use switchpoint::net::client::Client;
use switchpoint::net::patience::Pulse;
use switchpoint::store::Store;
use switchpoint::telemetry::{Format, Log, Telemetry, Traces};

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One kind of call.
struct Case {
    name: &'static str,
    /// What its request names.
    model: &'static str,
    prompt: usize,
    stream: bool,
    /// Its provider speaks another dialect.
    translated: bool,
    /// What else the config has.
    beside: Beside,
    told: Told,
    /// Its answer is remembered from the first call on.
    kept: bool,
    /// A run makes this many, and another one twice as many.
    calls: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    /// An agent with a tool, of which the call knows nothing.
    Agents,
    /// Its key has limits.
    Limits,
    /// And its key and its team have budgets.
    Budgets,
}

/// What is told of it, besides metrics.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    /// One line of the log.
    Line,
    /// And a trace, to a collector.
    Trace,
}

const SMALL: usize = 100;
const PLAIN: Case = Case {
    name: "",
    model: "up/m0",
    prompt: SMALL,
    stream: false,
    translated: false,
    beside: Beside::Nothing,
    told: Told::Line,
    kept: false,
    calls: 500,
};
const CASES: [Case; 21] = [
    Case { name: "small chat, direct", ..PLAIN },
    Case { name: "small chat, direct, unlisted model", model: "up/unlisted", ..PLAIN },
    Case { name: "small chat, route of 1 target", model: "one", ..PLAIN },
    Case { name: "small chat, route of 10 targets", model: "ten", ..PLAIN },
    Case { name: "small chat, beside agents", beside: Beside::Agents, ..PLAIN },
    Case { name: "small chat, key with limits", beside: Beside::Limits, ..PLAIN },
    Case { name: "small chat, limits and budgets", beside: Beside::Budgets, ..PLAIN },
    Case { name: "32 KiB prompt", prompt: 32 << 10, calls: 200, ..PLAIN },
    Case {
        name: "32 KiB prompt, limits and budgets",
        prompt: 32 << 10,
        beside: Beside::Budgets,
        calls: 200,
        ..PLAIN
    },
    Case { name: "1 MiB body", prompt: 1 << 20, calls: 20, ..PLAIN },
    Case { name: "stream of 100 chunks", stream: true, calls: 100, ..PLAIN },
    Case { name: "small chat, remembered", kept: true, ..PLAIN },
    Case { name: "32 KiB prompt, remembered", prompt: 32 << 10, kept: true, calls: 200, ..PLAIN },
    Case {
        name: "stream of 100 chunks, remembered",
        stream: true,
        kept: true,
        calls: 100,
        ..PLAIN
    },
    Case {
        name: "stream of 100 chunks, translated and remembered",
        stream: true,
        translated: true,
        kept: true,
        calls: 50,
        ..PLAIN
    },
    Case { name: "small chat, telemetry off", told: Told::Nothing, ..PLAIN },
    Case { name: "small chat, telemetry on", told: Told::Trace, ..PLAIN },
    Case {
        name: "stream of 100 chunks, telemetry off",
        stream: true,
        told: Told::Nothing,
        calls: 100,
        ..PLAIN
    },
    Case {
        name: "stream of 100 chunks, telemetry on",
        stream: true,
        told: Told::Trace,
        calls: 100,
        ..PLAIN
    },
    Case { name: "small chat, translated", translated: true, calls: 200, ..PLAIN },
    Case {
        name: "stream of 100 chunks, translated",
        stream: true,
        translated: true,
        calls: 50,
        ..PLAIN
    },
];

/// Calls before the first that counts: connections are opened, caches filled.
const WARM: usize = 20;
const CHUNKS: usize = 100;

const COMPLETION: &str = r#"{"id":"chatcmpl-Bench","object":"chat.completion","created":1760000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"The fox is quick and brown, the dog is lazy, and both have had a long day in this benchmark.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":32,"completion_tokens":24,"total_tokens":56}}"#;
const MESSAGE: &str = r#"{"id":"msg_Bench","type":"message","role":"assistant","model":"bench","content":[{"type":"text","text":"The fox is quick and brown, the dog is lazy, and both have had a long day in this benchmark."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":32,"output_tokens":24}}"#;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|text| text != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["calls", case, count, upstream] => {
            let case = CASES.iter().find(|known| known.name == case).unwrap();
            make_calls(case, count.parse().unwrap(), upstream.parse().unwrap());
        }
        [] => report(""),
        [wanted, ..] => report(wanted),
    }
}

// === counting ===

fn report(wanted: &str) {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("valgrind is not installed, so nothing was counted.");
        return;
    }
    let upstream = serve();
    println!("| case | instructions per call | of its threads beside |\n|---|--:|--:|");
    for case in CASES.iter().filter(|case| case.name.contains(wanted)) {
        let [fewer, more] = [case.calls, 2 * case.calls].map(|calls| count(case, calls, upstream));
        let [call, beside] = [0, 1].map(|at| more[at].saturating_sub(fewer[at]) / case.calls);
        println!("| {} | {call} | {beside} |", case.name);
    }
}

/// Instructions of a whole process that makes so many calls: of the thread that makes them, and of
/// those that write the log and the ledger.
fn count(case: &Case, calls: usize, upstream: SocketAddr) -> [usize; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgrind.out");
    let result = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", path.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["calls", case.name, &calls.to_string(), &upstream.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&result.stderr);
    assert!(result.status.success(), "{text}");
    let mut counts = [0, 0];
    for file in std::fs::read_dir(&folder).unwrap() {
        let counted = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let told = |name| counted.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        // The file of all threads together has no thread.
        let Some(thread) = told("thread: ") else { continue };
        let total: usize = told("totals: ").unwrap_or("0").parse().unwrap();
        counts[usize::from(thread != "1")] += total;
    }
    counts
}

// === the process that is counted ===

fn make_calls(case: &Case, count: usize, upstream: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(case, upstream, folder.path());
    let body = request(case);
    // The collector is told by the thread that makes the calls, so that its count has all of it.
    let otlp = gateway.snapshot().config.telemetry.otlp.clone();
    let collector = otlp.map(|otlp| Collector::new(&otlp, &gateway.client).unwrap());
    let exporting =
        runtime.block_on(async { collector.and_then(|collector| collector.start(&gateway)) });
    for _ in 0..WARM + count {
        runtime.block_on(call(&gateway, body.clone()));
    }
    if let Some(exporting) = exporting {
        runtime.block_on(exporting.end());
    }
}

fn gateway(case: &Case, upstream: SocketAddr, folder: &Path) -> Arc<Gateway> {
    let (kind, path) =
        if case.translated { ("anthropic", "") } else { ("openai-compatible", "/v1") };
    let models: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
    let targets: Vec<String> = models.iter().map(|model| format!("up/{model}")).collect();
    let text = format!(
        "[providers.up]\nkind = \"{kind}\"\nbase_url = \"http://{upstream}{path}\"\n\
         api_key = \"sk-up\"\nmodels = {models:?}\n\
         [routes.one]\ntargets = [\"up/m0\"]\n[routes.ten]\ntargets = {targets:?}\n\
         [keys.test]\nsecret = \"sk-test\"\n{}{}",
        terms(case.beside),
        if case.kept { "[cache]\nmode = \"on\"\n" } else { "" }
    );
    let text = match case.told {
        Told::Trace => text + &format!("[telemetry.otlp]\nendpoint = \"http://{upstream}\"\n"),
        Told::Nothing | Told::Line => text,
    };
    let path = folder.join("config.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, &[kind]).unwrap();
    let traces = config.telemetry.otlp.as_ref().map(Traces::new);
    let client = Client::new(1);
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default())).unwrap();
    let access = case.told != Told::Nothing;
    let log = Log::start(Format::Json, access, Box::new(std::io::sink())).unwrap();
    // On disk, as it is in service: a journal is written, and taken into the database.
    let store = Store::open(&config::Store::at(StoreUrl::Sqlite(folder.join("state.db")))).unwrap();
    Gateway::new(snapshot, client, store, Telemetry::new(log).unwrap().tracing(traces))
}

/// Those of its key stand first, for they belong to its section.
fn terms(beside: Beside) -> &'static str {
    match beside {
        Beside::Nothing => "",
        Beside::Agents => {
            "[tools.look]\nkind = \"http\"\nmethod = \"GET\"\nurl = \"http://127.0.0.1:9/{id}\"\neffect = \"read\"\n\
             input = { type = \"object\", properties = { id = { type = \"string\" } } }\n\
             [agents.help]\nroute = \"one\"\ninstructions = \"Help.\"\ntools = [\"look\"]\n"
        }
        Beside::Limits => "limits = { requests = \"100M/h\", concurrency = 1000 }\n",
        Beside::Budgets => {
            "team = \"search\"\n\
             limits = { requests = \"100M/h\", tokens = \"1000000M/h\", concurrency = 1000 }\n\
             budget = [{ tokens = 900_000_000_000, window = \"1d\" }]\n\
             [teams.search]\nbudget = [{ usd = 900_000.0, window = \"30d\" }]\n\
             [models.\"up/m0\"]\nprice = { input = 0.15, output = 0.60 }\n"
        }
    }
}

fn request(case: &Case) -> Bytes {
    let (model, stream, prompt) = (case.model, case.stream, "word ".repeat(case.prompt / 5));
    let temperature = if case.kept { "0" } else { "0.7" };
    format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}],"temperature":{temperature}}}"#).into()
}

/// One call, to the last byte of its answer.
async fn call(gateway: &Arc<Gateway>, body: Bytes) {
    // What an SDK sends.
    const HEADERS: [(&str, &str); 8] = [
        ("host", "localhost"),
        ("authorization", "Bearer sk-test"),
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("user-agent", "OpenAI/Python 2.0.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-retry-count", "0"),
    ];
    let pairs = HEADERS.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let headers = HeaderMap::from_iter(pairs);
    let ask = Ask {
        surface: Surface::Chat,
        model: None,
        stream: None,
        relay: None,
        filed: None,
        explains: false,
        id: None,
    };
    let (permit, busy) = (gateway.gauge.acquire(), Pulse::default().busy());
    let arrival = Arrival { ask, headers, body: Full::new(body), permit, busy };
    let response = gateway.answer(arrival).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
}

// === the upstream, in the process that is not counted ===

fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || converse(stream));
        }
    });
    address
}

fn converse(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let answers =
        [false, true].map(|anthropic| [false, true].map(|stream| answer(anthropic, stream)));
    loop {
        let (mut line, mut length, mut anthropic) = (String::new(), 0, false);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            anthropic |= line.starts_with("POST /v1/messages");
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let marks = [&br#""stream":true"#[..], br#""stream": true"#];
        let streams = marks.iter().any(|mark| memchr::memmem::find(&body, mark).is_some());
        stream.write_all(&answers[usize::from(anthropic)][usize::from(streams)]).unwrap();
    }
}

/// A whole answer with its head.
fn answer(anthropic: bool, stream: bool) -> Vec<u8> {
    let (kind, body) = match (anthropic, stream) {
        (false, false) => ("application/json", COMPLETION.to_owned()),
        (true, false) => ("application/json", MESSAGE.to_owned()),
        (false, true) => ("text/event-stream", chunks()),
        (true, true) => ("text/event-stream", events()),
    };
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

fn chunks() -> String {
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-Bench\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"bench\",{rest}}}\n\n"
        )
    };
    let delta = chunk(
        r#""choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]"#,
    );
    let end = chunk(r#""choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]"#);
    format!("{}{end}data: [DONE]\n\n", delta.repeat(CHUNKS))
}

fn events() -> String {
    let event =
        |name: &str, rest: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n");
    let usage = r#""usage":{"input_tokens":32,"output_tokens":1}"#;
    let start = format!(
        r#""message":{{"id":"msg_Bench","type":"message","role":"assistant","model":"bench","content":[],"stop_reason":null,"stop_sequence":null,{usage}}}"#
    );
    let delta = r#""index":0,"delta":{"type":"text_delta","text":" token"}"#;
    let end =
        r#""delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":100}"#;
    [
        event("message_start", &start),
        event("content_block_start", r#""index":0,"content_block":{"type":"text","text":""}"#),
        event("content_block_delta", delta).repeat(CHUNKS),
        event("content_block_stop", r#""index":0"#),
        event("message_delta", end),
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned(),
    ]
    .concat()
}
