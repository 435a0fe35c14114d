//! What real providers sent and were asked survives the way through every other dialect.

use std::collections::BTreeSet;

use serde_json::Value;
use switchpoint::canon::{
    ChatRequest, ChatResponse, Content, Dialect, Event, FinishReason, Surface,
};
use switchpoint::dialect::fold::{Fold, unfold};
use switchpoint::dialect::sse::Decoder;
use switchpoint::dialect::{
    Aim, ClientSide, Context, Traits, UpstreamSide, client, portable_id, upstream,
};
use switchpoint::provider::catalog::CATALOG;

use crate::support::recording::{self, Recording};

const DOORS: [Surface; 4] =
    [Surface::Chat, Surface::Responses, Surface::Messages, Surface::Generate];

/// What every dialect can say of an answer.
#[derive(Debug, Clone, PartialEq)]
struct Gist {
    text: String,
    /// Id, name and arguments of each tool call.
    calls: Vec<(String, String, Value)>,
    finish: FinishReason,
    tokens: Option<u64>,
}

// === impl Gist ===

impl Gist {
    fn of(response: &ChatResponse) -> Self {
        let (mut text, mut calls) = (String::new(), Vec::new());
        let first = &response.choices[0];
        for part in &first.parts {
            match &part.content {
                Content::Text { text: more, .. } | Content::Refusal(more) => text.push_str(more),
                Content::ToolCall(call) => {
                    let id = portable_id(&call.id).into_owned();
                    calls.push((id, call.name.clone(), arguments(&call.arguments)));
                }
                _ => {}
            }
        }
        // What only some dialects tell apart.
        let finish = match first.finish.reason {
            FinishReason::ContextFull => FinishReason::Length,
            FinishReason::Refusal => FinishReason::ContentFilter,
            FinishReason::Pause | FinishReason::Malformed => FinishReason::Stop,
            other => other,
        };
        Self { text, calls, finish, tokens: response.usage.map(|usage| usage.total()) }
    }
}

/// A tool without parameters may be called with nothing, which says as much as an empty object.
fn arguments(text: &str) -> Value {
    let text = if text.is_empty() { "{}" } else { text };
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// The events that a dialect reads in a stream, each of which must make sense to it.
fn read_stream(upstream: &dyn UpstreamSide, stream: &[u8]) -> Result<Vec<Event>, String> {
    let (mut decoder, mut reader, mut events) = (Decoder::default(), upstream.reader(), Vec::new());
    decoder.buffer().extend_from_slice(stream);
    while let Some(frame) = decoder.next_frame().or_else(|| decoder.last_frame()) {
        let Some(data) = decoder.data(&frame) else { continue };
        let read = reader.read(decoder.event(&frame), data.trim_ascii(), &mut events);
        read.map_err(|error| format!("{error} {}", String::from_utf8_lossy(&data)))?;
    }
    reader.end(&mut events);
    Ok(events)
}

fn fold(events: &[Event]) -> Result<ChatResponse, String> {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().map_err(|failure| format!("no whole stream: {failure:?}"))
}

/// The answer's events and the answer they make.
fn read(recording: &Recording, dialect: Dialect) -> Result<(Vec<Event>, ChatResponse), String> {
    if recording.is_stream() {
        let events = read_stream(upstream(dialect), &recording.events())?;
        let response = fold(&events)?;
        return Ok((events, response));
    }
    let response = upstream(dialect).read_response(&recording.body);
    let response = response.map_err(|error| error.to_string())?;
    Ok((unfold(&response), response))
}

/// What the answer says once it went through a door, whole and as a stream.
fn told(
    door: Surface,
    (events, response): &(Vec<Event>, ChatResponse),
    request: &ChatRequest,
) -> [Result<Gist, String>; 2] {
    let context = Context {
        id: "0123456789abcdef0123456789abcdef",
        created: 1_700_000_000,
        model: "model",
        input_estimate: 0,
        previous: None,
        request,
    };
    let (client, upstream): (&dyn ClientSide, _) =
        (client(door), upstream(door.dialect().unwrap()));
    let whole = client.write_response(response, &context);
    let whole = upstream.read_response(&whole).map_err(|error| error.to_string());
    let (mut writer, mut stream) = (client.writer(&context), Vec::new());
    for event in events {
        writer.write(event, &mut stream);
    }
    let stream = read_stream(upstream, &stream).and_then(|events| fold(&events));
    [whole, stream].map(|response| response.map(|response| Gist::of(&response)))
}

/// What was asked, where it was recorded and its API has a door of ours.
fn question(recording: &Recording) -> Option<Result<ChatRequest, String>> {
    let body = &recording.facts["request"]["body"];
    let asked = ["messages", "contents", "input", "prompt"];
    if !asked.iter().any(|field| !body[*field].is_null()) {
        return None;
    }
    let dialect = recording.dialect()?;
    let door = DOORS.into_iter().find(|door| door.dialect() == Some(dialect))?;
    let read = client(door).read_request(body.to_string().as_bytes());
    Some(read.map_err(|error| error.to_string()))
}

fn check_answer(recording: &Recording, dialect: Dialect) -> Vec<String> {
    let answer = match read(recording, dialect) {
        Ok(answer) => answer,
        Err(error) => return vec![format!("{}: {error}", recording.id)],
    };
    let choice = &answer.1.choices[0];
    if choice.finish.reason == FinishReason::Pause && choice.parts.is_empty() {
        return Vec::new(); // queued, and no answer yet
    }
    let question = question(recording).and_then(Result::ok).unwrap_or_default();
    let question = ChatRequest { include_usage: true, ..question };
    let expected = Gist::of(&answer.1);
    let mut complaints = Vec::new();
    for door in DOORS {
        for (way, told) in ["whole", "streamed"].into_iter().zip(told(door, &answer, &question)) {
            let right = told.as_ref().is_ok_and(|told| {
                let tokens = expected.tokens.is_none() || told.tokens == expected.tokens;
                tokens && Gist { tokens: expected.tokens, ..told.clone() } == expected
            });
            if !right {
                let id = &recording.id;
                complaints.push(format!("{id} to {door:?}, {way}:\n  {expected:?}\n  {told:?}"));
            }
        }
    }
    complaints
}

/// Everyone who can be asked, as what they speak.
fn targets() -> Vec<(&'static str, Dialect, &'static Traits)> {
    let plain = Dialect::ALL.map(|dialect| (dialect.name(), dialect, &Traits::NONE));
    let rows = CATALOG.iter().flat_map(|kind| {
        kind.speaks.iter().map(move |(dialect, _)| (kind.id, *dialect, &kind.traits))
    });
    plain.into_iter().chain(rows).collect()
}

fn check_question(recording: &Recording, request: &ChatRequest) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, dialect, traits) in targets() {
        let aim = Aim { model: "model", traits, cache: None };
        // What makes no sense without a field that the target lacks is refused, and says so.
        let Ok(written) = upstream(dialect).write_request(request, &aim) else { continue };
        let mut complain =
            |what: &str| complaints.push(format!("{} to {name}: {what}", recording.id));
        if serde_json::from_slice::<Value>(&written.body).is_err() {
            complain("no JSON");
        }
        let named: BTreeSet<&str> = written.dropped.iter().map(AsRef::as_ref).collect();
        if named.len() < written.dropped.len() || named.contains("") {
            complain(&format!("dropped {:?}", written.dropped));
        }
        let foreign = request.extras.dialect.is_some_and(|theirs| theirs != dialect);
        let unnamed = |field: &&String| foreign && !named.contains(field.as_str());
        for field in request.extras.fields.keys().filter(unnamed) {
            complain(&format!("`{field}` is dropped and not named"));
        }
    }
    complaints
}

#[test]
fn recorded_answers_say_the_same_in_every_dialect_that_clients_speak() {
    let recordings = recording::all();
    let answers = recordings.iter().filter(|recording| recording.is_answer());
    let answers: Vec<_> =
        answers.filter_map(|recording| Some((recording, recording.dialect()?))).collect();
    let complaints: Vec<String> =
        answers.iter().flat_map(|(recording, dialect)| check_answer(recording, *dialect)).collect();
    assert!(complaints.is_empty(), "{} wrong:\n{}", complaints.len(), complaints.join("\n"));
    println!("{} recorded answers were translated", answers.len());
}

#[test]
fn recorded_questions_can_be_put_to_every_provider() {
    let recordings = recording::all();
    let (mut complaints, mut count) = (Vec::new(), 0);
    for recording in recordings.iter().filter(|recording| recording.is_answer()) {
        match question(recording) {
            Some(Ok(request)) => {
                count += 1;
                complaints.extend(check_question(recording, &request));
            }
            Some(Err(error)) => complaints.push(format!("{}: {error}", recording.id)),
            None => {}
        }
    }
    assert!(complaints.is_empty(), "{} wrong:\n{}", complaints.len(), complaints.join("\n"));
    println!("{count} recorded questions were translated");
}
