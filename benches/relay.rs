//! What calls cost inside the process: peek, routing, splice, SSE and tap; and what they allocate.
//!
//! Run by `cargo bench --bench relay`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use switchpoint::canon::{self, Feature, FeatureSet, Features};
use switchpoint::dialect::openai::Tap;
use switchpoint::dialect::peek::Scanner;
use switchpoint::dialect::splice::{Model, Payload, Usage, edits};
use switchpoint::dialect::sse::Decoder;
use switchpoint::route::condition::{Condition, Facts};
use switchpoint::route::health::board::{Board, Standing};
use switchpoint::route::health::{Reason, Report};
use switchpoint::route::plan::{Needs, Plan, Prospect, plan};
use switchpoint::route::strategy::{Candidate, Strategy};
use switchpoint::route::task::{Prompt, classify};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

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

/// A route of ten targets with a key each, of which one cannot see and one is left alone.
struct Route {
    targets: Vec<(Arc<Standing>, canon::Model)>,
    strategy: Strategy,
    needs: Needs,
}

const STRATEGIES: [(&str, Strategy); 5] = [
    ("ordered", Strategy::Ordered),
    ("weighted", Strategy::Weighted),
    ("fastest", Strategy::Fastest),
    ("cheapest", Strategy::Cheapest),
    ("sticky", Strategy::Sticky),
];

impl Route {
    fn new(strategy: &str) -> Self {
        let board = Board::default();
        let model = |place: u64| canon::Model {
            context: Some(128_000),
            features: if place == 3 {
                Features::from_iter([Feature::Tools])
            } else {
                Features::from_iter([Feature::Tools, Feature::Vision])
            },
            ..canon::Model::default()
        };
        let targets: Vec<_> = (0..10)
            .map(|place| (board.standing("up", &format!("m{place}"), &[place]), model(place)))
            .collect();
        let now = Instant::now();
        for (place, (standing, _)) in targets.iter().enumerate() {
            standing.load.first_token(Duration::from_millis(200 + place as u64), now);
        }
        targets[5].0.lanes[0].report(Report::Dead(Reason::QuotaSpent), now);
        let features = FeatureSet::from(Feature::Tools) | Feature::Vision.into();
        let needs = Needs { tokens: 1200, features, ..Needs::default() };
        let found = STRATEGIES.iter().find(|(name, _)| *name == strategy);
        Self { targets, strategy: found.map(|(_, known)| *known).unwrap_or_default(), needs }
    }

    /// Who is asked, in order, and the first one's leave to be asked.
    fn decide(&self, draw: u64) -> (Plan, bool) {
        let now = Instant::now();
        let prospects = self.targets.iter().enumerate().map(|(place, (standing, model))| {
            let lane = &standing.lanes[0];
            let shut = lane.ready_at(now);
            Prospect {
                candidate: Candidate {
                    place: u16::try_from(place).unwrap_or_default(),
                    identity: (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    weight: 1,
                    score: standing.load.score(now),
                    cost: Some(1000 - place as u64),
                },
                model,
                barred: None,
                prefills: false,
                shut: shut.map(|until| (until, lane.reason(now).unwrap_or(Reason::Errors))),
            }
        });
        let plan = plan(self.strategy, prospects, &self.needs, draw, 7);
        let first = plan.order.first().map(|place| &self.targets[usize::from(*place)].0);
        let entry = first.and_then(|standing| standing.lanes[0].enter(now));
        let entered = entry.is_some();
        if let Some(entry) = entry {
            entry.report(Report::Ok, now);
        }
        (plan, entered)
    }
}

#[divan::bench(args = STRATEGIES.map(|(name, _)| name))]
fn decision(bencher: Bencher, strategy: &str) {
    let (route, mut draw) = (Route::new(strategy), 0_u64);
    bencher.bench_local(|| {
        draw = draw.wrapping_add(1);
        route.decide(black_box(draw))
    });
}

/// The same for a question whose kind of work the rules tell first.
#[divan::bench]
fn decision_by_task(bencher: Bencher) {
    let (route, mut draw) = (Route::new("ordered"), 0_u64);
    let user =
        "Write a function in Rust that reads a file of JSON lines and sums one field. ".repeat(20);
    let prompt = Prompt {
        system: "You are a helpful assistant.",
        user: &user,
        tools: 0,
        tool_choice_forced: false,
        schema: false,
        images: false,
        audio: false,
        files: false,
        tokens: 400,
        reasoning: false,
    };
    bencher.bench_local(|| {
        draw = draw.wrapping_add(1);
        (classify(black_box(&prompt)).task, route.decide(black_box(draw)))
    });
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
