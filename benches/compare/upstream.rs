//! A scripted provider: precomputed answers over a hand-read HTTP/1.1, to cost next to nothing.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use memchr::memmem;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    process,
    traffic::{CHUNKS, MODELS},
    wire::read_request,
};

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache\r\nx-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n";

const COMPLETION: &str = r#"{"id":"chatcmpl-BenchBenchBenchBenchBench000","object":"chat.completion","created":1760000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"The fox is quick and brown, the dog is lazy, and both have had a long day in this benchmark.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":32,"completion_tokens":24,"total_tokens":56},"service_tier":"default","system_fingerprint":"fp_bench"}"#;

const USAGE: &str =
    r#""choices":[],"usage":{"prompt_tokens":32,"completion_tokens":198,"total_tokens":230}"#;

/// The same answer in Anthropic's words.
const MESSAGE: &str = r#"{"id":"msg_BenchBenchBenchBenchBench","type":"message","role":"assistant","model":"bench","content":[{"type":"text","text":"The fox is quick and brown, the dog is lazy, and both have had a long day in this benchmark."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":32,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":24,"service_tier":"standard"}}"#;

/// Every answer, spelled once at the start.
struct Script {
    completion: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    usage: Vec<u8>,
    end: Vec<u8>,
}

/// The answers of both APIs.
struct Scripts {
    openai: Script,
    anthropic: Script,
}

/// What one request asks for.
struct Question {
    /// Asked in Anthropic's API, which demands a limit.
    anthropic: bool,
    streams: bool,
    wants_usage: bool,
    gap: Duration,
}

pub(crate) async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    process::announce(listener.local_addr().unwrap());
    let scripts = Arc::new(Scripts { openai: Script::openai(), anthropic: Script::anthropic() });
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(stream, scripts.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers the requests of one connection until the client leaves.
async fn converse(mut stream: TcpStream, scripts: Arc<Scripts>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(4096);
    while let Some(request) = read_request(&mut stream, &mut input).await? {
        let question = Question::read(&request);
        let script = if question.anthropic { &scripts.anthropic } else { &scripts.openai };
        if question.streams {
            script.drip(&mut stream, &question).await?;
        } else {
            stream.write_all(&script.completion).await?;
        }
    }
    Ok(())
}

// === impl Question ===

impl Question {
    fn read(body: &[u8]) -> Self {
        let says = |text: &str| memmem::find(body, text.as_bytes()).is_some();
        let streams = says(r#""stream":true"#);
        let gap = MODELS.iter().find(|(model, gap)| streams && *gap > 0 && says(model));
        Self {
            anthropic: says(r#""max_tokens""#),
            streams,
            wants_usage: streams && says(r#""include_usage":true"#),
            gap: Duration::from_millis(gap.map_or(0, |(_, gap)| *gap)),
        }
    }
}

// === impl Script ===

impl Script {
    fn openai() -> Self {
        let choice = |delta: &str, reason: &str| {
            event(&format!(
                r#""choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]"#
            ))
        };
        let mut chunks = vec![choice(r#"{"role":"assistant","content":""}"#, "null")];
        chunks.resize(CHUNKS - 1, choice(r#"{"content":" word"}"#, "null"));
        chunks.push(choice("{}", r#""stop""#));
        Self {
            completion: whole(COMPLETION),
            chunks,
            usage: event(USAGE),
            end: [chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat(),
        }
    }

    fn anthropic() -> Self {
        let named = |name: &str, fields: &str| {
            chunk(&format!("event: {name}\ndata: {{\"type\":\"{name}\",{fields}}}\n\n"))
        };
        let start = MESSAGE.replace(r#""stop_reason":"end_turn""#, r#""stop_reason":null"#);
        let mut chunks = vec![named("message_start", &format!(r#""message":{start}"#))];
        chunks.push(named(
            "content_block_start",
            r#""index":0,"content_block":{"type":"text","text":""}"#,
        ));
        let delta = r#""index":0,"delta":{"type":"text_delta","text":" word"}"#;
        chunks.resize(CHUNKS + 2, named("content_block_delta", delta));
        chunks.push(named("content_block_stop", r#""index":0"#));
        let finish = r#""delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":198}"#;
        let stop = chunk("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
        Self {
            completion: whole(MESSAGE),
            chunks,
            usage: Vec::new(),
            end: [named("message_delta", finish), stop, b"0\r\n\r\n".to_vec()].concat(),
        }
    }

    /// Streams an answer, one write and thus one packet for each chunk.
    async fn drip(&self, stream: &mut TcpStream, question: &Question) -> io::Result<()> {
        stream.write_all(STREAM_HEAD.as_bytes()).await?;
        for chunk in &self.chunks {
            stream.write_all(chunk).await?;
            if !question.gap.is_zero() {
                tokio::time::sleep(question.gap).await;
            }
        }
        if question.wants_usage {
            stream.write_all(&self.usage).await?;
        }
        stream.write_all(&self.end).await
    }
}

fn whole(body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn event(fields: &str) -> Vec<u8> {
    chunk(&format!(
        "data: {{\"id\":\"chatcmpl-BenchBenchBenchBenchBench000\",\"object\":\"chat.completion.chunk\",\
         \"created\":1760000000,\"model\":\"bench\",{fields}}}\n\n"
    ))
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
