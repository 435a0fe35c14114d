//! What real servers sent is read without error and says what it says.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{CODEC, read_stream, write_stream, write_whole};
use crate::canon::{ChatRequest, ChatResponse, Content, FinishReason, Role};
use crate::dialect::openai::read_error;
use crate::dialect::{ClientSide, UpstreamSide};

/// One recorded answer.
struct Recording {
    facts: Value,
    body: Vec<u8>,
}

impl Recording {
    fn id(&self) -> &str {
        self.facts["id"].as_str().unwrap_or_default()
    }

    fn is_chat(&self) -> bool {
        let uri = self.facts["request"]["uri"].as_str().unwrap_or_default();
        // One proxy answered 200 with a line of its log.
        uri.split('?').next().unwrap_or_default().ends_with("/chat/completions")
            && !self.body.starts_with(b"method=")
    }

    fn is_stream(&self) -> bool {
        let kind = self.facts["headers"]["content-type"].as_str().unwrap_or_default();
        kind.starts_with("text/event-stream")
    }

    fn has(&self, feature: &str) -> bool {
        let features = self.facts["features"].as_array();
        features.is_some_and(|features| features.contains(&json!(feature)))
    }

    fn read(&self) -> ChatResponse {
        if !self.is_stream() {
            return CODEC
                .read_response(&self.body)
                .unwrap_or_else(|e| panic!("{}: {e}", self.id()));
        }
        let read = |chunk| read_stream(&self.body, chunk);
        let whole = read(usize::MAX).unwrap_or_else(|error| panic!("{}: {error:?}", self.id()));
        assert_eq!(read(7).as_ref(), Ok(&whole), "{}: pieces change it", self.id());
        whole
    }

    fn check(&self) {
        let response = self.read();
        assert!(!response.choices.is_empty(), "{}", self.id());
        let has = |wanted: fn(&Content) -> bool| {
            let mut parts = response.choices.iter().flat_map(|choice| &choice.parts);
            parts.any(|part| wanted(&part.content))
        };
        if self.has("tool") {
            assert!(has(|content| matches!(content, Content::ToolCall(_))), "{}", self.id());
            assert_eq!(response.choices[0].finish.reason, FinishReason::ToolCalls, "{}", self.id());
        }
        if self.has("reasoning") && self.says_thoughts() {
            assert!(has(|content| matches!(content, Content::Reasoning(_))), "{}", self.id());
        }
        if self.has("fin-length") {
            assert_eq!(response.choices[0].finish.reason, FinishReason::Length, "{}", self.id());
        }
        self.check_usage(&response);
        check_round_trips(self.id(), &response);
    }

    /// Some only count them.
    fn says_thoughts(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        ["\"reasoning_content\":\"", "\"reasoning\":\"", "\"reasoning_details\":[{", "\"thinking\""]
            .iter()
            .any(|field| text.contains(field))
    }

    fn check_usage(&self, response: &ChatResponse) {
        let last = self.usages().into_iter().rfind(|usage| usage["prompt_tokens"].is_u64());
        let Some(said) = last else { return };
        let usage = response.usage.unwrap_or_else(|| panic!("{}: no usage", self.id()));
        let total = said["total_tokens"].as_u64().unwrap();
        assert_eq!(usage.total(), total, "{}: {usage:?}", self.id());
        assert_eq!(usage.classes().iter().map(|(_, count)| count).sum::<u64>(), total);
        assert_eq!(said["prompt_tokens"], usage.input_total(), "{}", self.id());
    }

    fn usages(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.body);
        let bodies: Vec<Value> = if self.is_stream() {
            let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
            data.filter_map(|data| serde_json::from_str(data).ok()).collect()
        } else {
            vec![serde_json::from_slice(&self.body).unwrap()]
        };
        bodies
            .into_iter()
            .flat_map(|body| [body["usage"].clone(), body["x_groq"]["usage"].clone()])
            .collect()
    }
}

/// Written for a client and read again, it is the same but for what clients never see.
fn check_round_trips(id: &str, response: &ChatResponse) {
    let mut wanted = response.clone();
    wanted.id = "chatcmpl-00112233".into();
    if response.id.starts_with("chatcmpl-") {
        wanted.id.clone_from(&response.id);
    }
    wanted.created = response.created.or(Some(7));
    if wanted.model.is_empty() {
        wanted.model = "m".into();
    }
    let parts = wanted.choices.iter_mut().flat_map(|choice| &mut choice.parts);
    for part in parts {
        if let Content::ToolCall(call) = &mut part.content {
            call.id = crate::dialect::portable_id(&call.id).into_owned();
        }
    }
    let whole = CODEC.read_response(&write_whole(&wanted)).unwrap();
    assert_eq!(whole, wanted, "{id}: whole");
    let request = ChatRequest { include_usage: true, ..ChatRequest::default() };
    let streamed = read_stream(&write_stream(&wanted, &request), 100);
    assert_eq!(streamed, Ok(wanted), "{id}: streamed");
}

fn recordings() -> Vec<Recording> {
    let Some(folder) = std::env::var_os("SWITCHPOINT_RECORDINGS") else {
        eprintln!("SWITCHPOINT_RECORDINGS is not set: no recordings are read");
        return Vec::new();
    };
    let list = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let folders = list(Path::new(&folder)).into_iter().filter(|path| path.is_dir());
    let files = folders.flat_map(|path| list(&path));
    let read = |path: PathBuf| {
        let facts = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        Recording { facts, body: fs::read(path.with_extension("body")).unwrap() }
    };
    let facts = files.filter(|path| path.extension() == Some(OsStr::new("json")));
    facts.map(read).filter(Recording::is_chat).collect()
}

#[test]
fn every_recorded_answer_is_read_and_written_without_loss() {
    let (mut answers, mut errors) = (0, 0);
    for recording in recordings() {
        if recording.facts["status"] == 200 {
            recording.check();
            answers += 1;
        } else {
            let read = read_error(&recording.body);
            assert!(read.is_some_and(|(message, _)| !message.is_empty()), "{}", recording.id());
            assert!(CODEC.read_response(&recording.body).is_err(), "{}", recording.id());
            errors += 1;
        }
    }
    eprintln!("{answers} answers and {errors} errors were read");
}

#[test]
fn every_recorded_question_is_read() {
    for recording in recordings() {
        let question = &recording.facts["request"]["body"];
        if !question["messages"].is_array() || recording.facts["status"] != 200 {
            continue;
        }
        let request = CODEC.read_request(question.to_string().as_bytes());
        let request = request.unwrap_or_else(|error| panic!("{}: {error}", recording.id()));
        assert_eq!(request.messages.len(), question["messages"].as_array().unwrap().len());
        let roles = request.messages.iter().map(|message| message.role);
        assert!(roles.into_iter().any(|role| role == Role::User), "{}", recording.id());
    }
}
