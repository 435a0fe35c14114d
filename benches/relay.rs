//! What the verbatim path costs inside the process: peek, a route's condition, splice, SSE and tap.
//!
//! Run by `cargo bench --bench relay`.

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use switchpoint::dialect::openai::Tap;
use switchpoint::dialect::peek::Scanner;
use switchpoint::dialect::splice::{Model, Payload, Usage, edits};
use switchpoint::dialect::sse::Decoder;
use switchpoint::route::condition::{Condition, Facts};

fn main() {
    divan::main();
}

/// A chat request with a prompt of `size` bytes: one long line, or prose with an escape each 80.
fn request(size: usize, prose: bool) -> Bytes {
    let text = if prose {
        "the quick brown fox jumps over the lazy dog, and then it rests a while again.\\n"
    } else {
        "x"
    };
    let prompt = text.repeat(size / text.len());
    format!(
        r#"{{"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{prompt}"}}],"model":"fast","stream":true,"temperature":0.2}}"#
    )
    .into()
}

/// A request whose bytes are mostly structure: tools with schemas.
fn tools(size: usize) -> Bytes {
    let tool = r#"{"type":"function","function":{"name":"get_weather","description":"Weather of a city","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer","minimum":1}},"required":["city"]}}},"#;
    let list = tool.repeat(size / tool.len());
    format!(r#"{{"model":"fast","tools":[{}]}}"#, list.trim_end_matches(',')).into()
}

fn scan(bencher: Bencher, body: &Bytes) {
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let mut scanner = Scanner::default();
        scanner.feed(black_box(body)).and_then(|()| scanner.finish())
    });
}

#[divan::bench(args = [200, 32_768, 1_048_576])]
fn peek_long_line(bencher: Bencher, size: usize) {
    scan(bencher, &request(size, false));
}

#[divan::bench(args = [200, 32_768, 1_048_576])]
fn peek_prose(bencher: Bencher, size: usize) {
    scan(bencher, &request(size, true));
}

#[divan::bench(args = [32_768])]
fn peek_tools(bencher: Bencher, size: usize) {
    scan(bencher, &tools(size));
}

#[divan::bench(args = [200, 1_048_576])]
fn splice(bencher: Bencher, size: usize) {
    let body = request(size, false);
    let mut scanner = Scanner::default();
    let envelope = scanner.feed(&body).and_then(|()| scanner.finish()).ok();
    let payload = Payload::from(body);
    bencher.bench(|| {
        let envelope = envelope.as_ref()?;
        let (edits, _) =
            edits(envelope, Model::Value(Bytes::from_static(b"\"gpt-5-mini\"")), Usage::Ask);
        Some(black_box(&payload).edited(&edits))
    });
}

#[divan::bench]
fn condition(bencher: Bencher) {
    let source = r#"request.headers["x-tier"] == "gold" && request.tokens < 4000"#;
    let condition = Condition::compile(source).ok();
    let facts = Facts {
        model: "fast",
        surface: "chat",
        stream: true,
        images: false,
        tools: 0,
        max_tokens: 0,
        tokens: &|| 1200,
        header: &|_| Some("gold"),
        tag: &|_| None,
        task: &|| None,
        key: "laptop",
        team: "search",
        budget_left: 1.0,
        unix: 1_763_476_200,
    };
    bencher.bench_local(|| Some(condition.as_ref()?.holds(black_box(&facts))));
}

/// A stream of 200 events as OpenAI sends them, decoded and looked at, `batch` events at a time.
#[divan::bench(args = [1, 8, 64])]
fn sse_and_tap(bencher: Bencher, batch: usize) {
    let event = |content: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1741570283,\"model\":\"gpt-5-mini\",\"service_tier\":\"default\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
        )
    };
    let events: Vec<String> = (0..200).map(|_| event(" token")).collect();
    let pieces: Vec<Bytes> = events.chunks(batch).map(|piece| piece.concat().into()).collect();
    bencher.counter(ItemsCount::new(200_usize)).bench(|| {
        let mut decoder = Decoder::default();
        let mut tap = Tap::new(1, true);
        for piece in &pieces {
            decoder.buffer().extend_from_slice(piece);
            let mut end = 0;
            while let Some(frame) = decoder.next_frame() {
                black_box(tap.inspect(&decoder, &frame));
                end = frame.range.end;
            }
            black_box(decoder.take(end));
        }
        tap.sight().deltas
    });
}
