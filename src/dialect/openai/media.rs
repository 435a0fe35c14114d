//! What answers in sound, pictures and scores say of themselves while they pass.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::canon::{Delta, Dialect, Event, Finish, Foreign, Opening, StreamFailure, Usage};
use crate::dialect::legible::{object, tokens};
use crate::dialect::{Misread, ReadStream};

/// Longer strings of a whole answer are not kept: they are pictures and sound.
const LONGEST_STRING: usize = 128;
/// What is left of an answer without them; a longer one is not read.
const LONGEST_REST: usize = 256 * 1024;

/// Keeps the shape of a JSON text that passes by, without its long strings.
#[derive(Debug)]
pub struct Skim {
    kept: Vec<u8>,
    /// More is not kept, and so cannot be read.
    most: usize,
    /// Where the string at hand begins in `kept`, behind its quote.
    string: Option<usize>,
    escaped: bool,
}

/// Reads the streams of speech, transcriptions and images.
#[derive(Debug, Default)]
pub struct MediaReader {
    usage: Option<Usage>,
    /// An event of a kind that is known has come, so the end must come too.
    known: bool,
    seen: bool,
    ended: bool,
}

/// One event of such a stream, or one of a server that streams chat chunks in its place.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Happening {
    #[serde(rename = "type")]
    kind: String,
    delta: Option<Value>,
    #[serde(deserialize_with = "object")]
    usage: Option<Counts>,
    error: Option<Value>,
    message: Option<String>,
    choices: Vec<Choice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Piece,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Piece {
    content: Option<String>,
}

/// Where a whole answer has its usage.
#[derive(Debug, Deserialize)]
struct Whole {
    usage: Counts,
}

/// Tokens under the names of either of OpenAI's APIs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    #[serde(alias = "prompt_tokens", deserialize_with = "tokens")]
    input_tokens: Option<u64>,
    #[serde(alias = "completion_tokens", deserialize_with = "tokens")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "tokens")]
    total_tokens: Option<u64>,
    #[serde(
        alias = "input_tokens_details",
        alias = "prompt_tokens_details",
        deserialize_with = "object"
    )]
    input_token_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    #[serde(deserialize_with = "tokens")]
    audio_tokens: Option<u64>,
}

// === impl Skim ===

impl Default for Skim {
    fn default() -> Self {
        Self::up_to(LONGEST_REST)
    }
}

impl Skim {
    /// Keeps so many bytes.
    pub fn up_to(most: usize) -> Self {
        Self { kept: Vec::new(), most, string: None, escaped: false }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.kept.len() > self.most {
            return;
        }
        for byte in bytes {
            self.take(*byte);
        }
    }

    /// What is kept.
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    fn take(&mut self, byte: u8) {
        let Some(start) = self.string else {
            self.kept.push(byte);
            self.string = (byte == b'"').then_some(self.kept.len());
            return;
        };
        let closing = byte == b'"' && !self.escaped;
        self.escaped = byte == b'\\' && !self.escaped;
        if closing {
            if self.kept.len() - start > LONGEST_STRING {
                self.kept.truncate(start);
            }
            self.kept.push(byte);
            self.string = None;
        } else if self.kept.len() - start <= LONGEST_STRING {
            self.kept.push(byte);
        }
    }

    /// What is kept, read as a whole.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.kept).ok()
    }

    /// The usage that the answer reports.
    pub fn usage(&self) -> Option<Usage> {
        self.read::<Whole>()?.usage.read()
    }
}

// === impl Counts ===

impl Counts {
    fn read(&self) -> Option<Usage> {
        let output = self.output_tokens.unwrap_or(0);
        let rest = self.total_tokens.map(|total| total.saturating_sub(output));
        let audio = self.input_token_details.as_ref().and_then(|details| details.audio_tokens);
        let input = self.input_tokens.or(rest)?;
        let audio_input = audio.unwrap_or(0).min(input);
        Some(Usage { input, output, audio_input, ..Usage::default() })
    }
}

// === impl MediaReader ===

impl MediaReader {
    /// Each picture reports its own.
    fn add(&mut self, usage: Usage, events: &mut Vec<Event>) {
        let sum = self.usage.get_or_insert_default();
        sum.input += usage.input;
        sum.output += usage.output;
        sum.audio_input += usage.audio_input;
        events.push(Event::Usage(*sum));
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        self.known = true;
        events.push(Event::Finish { choice: 0, finish: Finish::default() });
    }
}

impl ReadStream for MediaReader {
    fn read(
        &mut self,
        _name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if data == b"[DONE]" {
            self.ended = true;
            events.push(Event::End);
            return Ok(());
        }
        let event: Happening = serde_json::from_slice(data)?;
        if event.kind == "error" || event.error.is_some() {
            let said = event.error.as_ref().and_then(|error| error["message"].as_str());
            let message = said.map(str::to_owned).or(event.message).unwrap_or_default();
            events.push(Event::Failed(StreamFailure { message, ..StreamFailure::default() }));
            return Ok(());
        }
        self.seen = true;
        if let Some(usage) = event.usage.and_then(|usage| usage.read()) {
            self.add(usage, events);
        }
        let text = event.delta.as_ref().and_then(Value::as_str);
        let piece = event.choices.first().and_then(|choice| choice.delta.content.as_deref());
        match text.or(piece) {
            Some(text) => {
                let delta = Delta::Text(text.to_owned());
                events.push(Event::Delta { choice: 0, delta });
            }
            None if event.choices.is_empty() => events.push(something()),
            None => {}
        }
        if event.choices.iter().any(|choice| choice.finish_reason.is_some()) {
            self.finish(events);
        }
        match event.kind.rsplit('.').next() {
            Some("completed") => self.finish(events),
            Some("done") => {
                self.finish(events);
                self.ended = true;
                events.push(Event::End);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        // A stream of another making says nothing of its end but by ending.
        if self.seen && !self.known {
            self.finish(events);
        }
        if self.known && !std::mem::replace(&mut self.ended, true) {
            events.push(Event::End);
        }
    }
}

/// Some of an answer that is not text: nobody looks at it, but from here on no other target can
/// take over.
fn something() -> Event {
    let part = Opening::Foreign(Foreign { dialect: Dialect::Chat, value: Value::Null });
    Event::Open { choice: 0, part }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: &str = r#"{"created":1,"data":[{"b64_json":"LONG","note":"a \"usage\": {\\"}],"usage":{"total_tokens":30,"input_tokens":10,"output_tokens":20,"input_tokens_details":{"text_tokens":10,"image_tokens":0}}}"#;

    fn usage(input: u64, output: u64, audio_input: u64) -> Usage {
        Usage { input, output, audio_input, ..Usage::default() }
    }

    fn read(events: &[&str]) -> (Vec<Event>, MediaReader) {
        let (mut reader, mut found) = (MediaReader::default(), Vec::new());
        for event in events {
            reader.read(None, event.as_bytes(), &mut found).unwrap();
        }
        reader.end(&mut found);
        (found, reader)
    }

    #[test]
    fn reads_usage_under_every_name() {
        for (body, expected) in [
            (IMAGE, Some(usage(10, 20, 0))),
            (r#"{"text":"hi","usage":{"type":"duration","seconds":3}}"#, None),
            (
                r#"{"usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":12},"output_tokens":4,"total_tokens":18}}"#,
                Some(usage(14, 4, 12)),
            ),
            (
                r#"{"usage":{"prompt_tokens":7,"total_tokens":7},"results":[]}"#,
                Some(usage(7, 0, 0)),
            ),
            (r#"{"usage":{"total_tokens":5}}"#, Some(usage(5, 0, 0))),
            (r#"{"results":[],"meta":{"billed_units":{"search_units":1}}}"#, None),
        ] {
            let mut skim = Skim::default();
            skim.feed(body.as_bytes());
            assert_eq!(skim.usage(), expected, "{body}");
        }
    }

    #[test]
    fn a_stream_ends_with_its_last_picture_or_word() {
        let (events, _) = read(&[
            r#"{"type":"transcript.text.delta","delta":"hi"}"#,
            r#"{"type":"transcript.text.done","text":"hi","usage":{"input_tokens":3,"output_tokens":1}}"#,
        ]);
        assert!(matches!(events[0], Event::Delta { .. }));
        assert!(events.contains(&Event::Usage(usage(3, 1, 0))));
        assert_eq!(events.iter().filter(|event| **event == Event::End).count(), 1);
        let image = r#"{"type":"image_generation.completed","b64_json":"x","usage":{"input_tokens":3,"output_tokens":1}}"#;
        let (events, reader) = read(&[image, image]);
        assert_eq!(reader.usage, Some(usage(6, 2, 0)));
        assert_eq!(events.last(), Some(&Event::End));
        let (events, _) = read(&[r#"{"type":"speech.audio.delta","audio":"x"}"#]);
        assert_eq!(events.last(), Some(&Event::End));
    }

    proptest! {
        #[test]
        fn pictures_are_not_kept_and_do_not_hide_the_usage(length in 0_usize..2000, cut in 0_usize..2000) {
            let body = IMAGE.replace("LONG", &"A".repeat(length));
            let (left, right) = body.as_bytes().split_at(cut.min(body.len()));
            let mut skim = Skim::default();
            skim.feed(left);
            skim.feed(right);
            prop_assert_eq!(skim.usage(), Some(usage(10, 20, 0)));
            prop_assert!(skim.kept.len() < IMAGE.len() + LONGEST_STRING);
        }
    }
}
