//! What the provider really sent: read, written, and read again.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{context, events, fold, written};
use crate::canon::{ChatRequest, ChatResponse, Content, Event, FinishReason, Part, Source};
use crate::dialect::fold::unfold;
use crate::dialect::gemini::CODEC;
use crate::dialect::{Aim, ClientSide, Traits, UpstreamSide};

struct Recording {
    name: String,
    facts: Value,
    body: Vec<u8>,
}

fn recordings() -> Vec<Recording> {
    let Some(root) = option_env!("SWITCHPOINT_RECORDINGS") else {
        println!("SWITCHPOINT_RECORDINGS is not set: no recording was read");
        return Vec::new();
    };
    let folders = ["gemini", "vertex-gemini"].map(|folder| Path::new(root).join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let mut facts: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    facts.retain(|path| path.extension().is_some_and(|end| end == "json"));
    facts.sort();
    let read = facts.iter().map(|path| Recording {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        facts: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
        body: std::fs::read(path.with_extension("body")).unwrap(),
    });
    read.collect()
}

impl Recording {
    fn has(&self, feature: &str) -> bool {
        self.facts["features"].as_array().unwrap().iter().any(|known| known == feature)
    }

    fn answer(&self) -> ChatResponse {
        if !self.has("stream") {
            return CODEC
                .read_response(&self.body)
                .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        }
        let whole = events(&self.body, 1 << 20).unwrap();
        assert_eq!(whole, events(&self.body, 7).unwrap(), "{}", self.name);
        assert_eq!(whole.last(), Some(&Event::End), "{}", self.name);
        fold(&whole)
    }
}

/// The last `usageMetadata` of a body.
fn last_usage(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).unwrap();
    let mut lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let chunk = lines.next_back().or_else(|| serde_json::from_slice(body).ok())?;
    chunk.get("usageMetadata").cloned()
}

#[test]
fn every_recorded_answer_is_read_with_its_facts() {
    for recording in recordings() {
        let name = &recording.name;
        if recording.facts["status"] != 200 {
            assert!(CODEC.read_response(&recording.body).is_err(), "{name}");
            continue;
        }
        let answer = recording.answer();
        let parts: Vec<&Content> = answer
            .choices
            .iter()
            .flat_map(|choice| &choice.parts)
            .map(|part| &part.content)
            .collect();
        let calls = parts.iter().filter(|content| matches!(content, Content::ToolCall(_))).count();
        assert_eq!(recording.has("tool"), calls > 0, "{name}");
        assert!(!recording.has("multitool") || calls > 1, "{name}");
        let reason = answer.choices[0].finish.reason;
        assert_eq!(calls > 0, reason == FinishReason::ToolCalls, "{name}");
        assert!(!recording.has("fin-max_tokens") || reason == FinishReason::Length, "{name}");
        let signed = answer
            .choices
            .iter()
            .flat_map(|choice| &choice.parts)
            .any(|part| part.opaque.is_some());
        let thought = parts
            .iter()
            .any(|content| matches!(content, Content::Reasoning(_) | Content::Foreign(_)));
        let usage = answer.usage.unwrap_or_default();
        assert!(!recording.has("reasoning") || signed || thought || usage.reasoning > 0, "{name}");
        assert!(!recording.has("cached") || usage.cache_read > 0, "{name}");
        let total = last_usage(&recording.body).and_then(|said| said["totalTokenCount"].as_u64());
        assert_eq!(usage.total(), total.unwrap_or_default(), "{name}");
        let classes: u64 = usage.classes().iter().map(|(_, count)| count).sum();
        assert_eq!(classes, usage.total(), "{name}");
    }
}

#[test]
fn every_recorded_answer_is_the_same_after_it_was_written_and_read() {
    for recording in recordings().iter().filter(|recording| recording.facts["status"] == 200) {
        let mut answer = recording.answer();
        if answer.id.is_empty() {
            "given-by-us".clone_into(&mut answer.id);
        }
        // Gemini has no refusals among its parts: what we tell of one is text to its clients.
        for part in answer.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
            if let Content::Refusal(text) = &part.content {
                *part = Part::text(text.clone());
            }
        }
        // A stream has told the words when the sources come.
        answer.choices.iter_mut().for_each(crate::dialect::gemini::response::join_sources);
        let request = ChatRequest::default();
        let bytes = CODEC.write_response(&answer, &context(&request));
        assert_eq!(bytes, CODEC.write_response(&answer, &context(&request)));
        assert_eq!(CODEC.read_response(&bytes).unwrap(), answer, "{}", recording.name);
        let streamed = written(&unfold(&answer), false);
        let read = fold(&events(&streamed, 11).unwrap());
        assert_eq!(plain(&read), plain(&answer), "{}", recording.name);
        written(&unfold(&answer), true);
    }
}

/// Words, calls and signatures in order: a stream may bring a text's signature in a part behind it.
fn plain(answer: &ChatResponse) -> Vec<String> {
    let parts = answer.choices.iter().flat_map(|choice| &choice.parts);
    let told = parts.flat_map(|part| {
        let words = match &part.content {
            Content::Text { text, .. } => text.clone(),
            Content::Reasoning(thought) => thought.text.clone(),
            content => format!("{content:?}"),
        };
        [words, part.opaque.as_ref().map(|opaque| opaque.data.to_string()).unwrap_or_default()]
    });
    told.filter(|told| !told.is_empty()).collect()
}

#[test]
fn every_recorded_question_is_read_and_goes_home_unharmed() {
    for recording in recordings() {
        let name = &recording.name;
        let asked = &recording.facts["request"]["body"];
        if asked["contents"].is_null() {
            continue;
        }
        let request = CODEC
            .read_request(asked.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let uri = recording.facts["request"]["uri"].as_str().unwrap();
        let model = uri.rsplit('/').next().unwrap().split(':').next().unwrap();
        let aim =
            Aim { model, traits: &Traits { model_in_path: true, ..Traits::NONE }, cache: None };
        let written =
            CODEC.write_request(&request, &aim).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(written.dropped.is_empty(), "{name}: {:?}", written.dropped);
        let again = CODEC.read_request(&written.body).unwrap();
        assert_eq!(facts(&again), facts(&request), "{name}");
        assert_eq!(again.tools, request.tools, "{name}");
        assert_eq!(again.extras, request.extras, "{name}");
        let sent: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(signatures(&sent), signatures(asked), "{name}");
    }
}

/// What was said, but for media that the recordings cut short.
fn facts(request: &ChatRequest) -> Vec<String> {
    let parts = request
        .messages
        .iter()
        .flat_map(|message| message.parts.iter().map(move |part| (message.role, part)));
    let told = parts.map(|(role, part)| match &part.content {
        Content::Media(media) => match &media.source {
            Source::Base64 { media_type, .. } => format!("{role:?} {media_type}"),
            source => format!("{role:?} {source:?}"),
        },
        content => format!("{role:?} {content:?}"),
    });
    told.collect()
}

/// All signatures, in order.
fn signatures(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("thoughtSignature" | "thought_signature", Some(text)) =
                    (name.as_str(), value.as_str())
                {
                    found.push(text.to_owned());
                }
                found.extend(signatures(value));
            }
        }
        Value::Array(items) => found.extend(items.iter().flat_map(signatures)),
        _ => {}
    }
    found
}
