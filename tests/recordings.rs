//! What real providers sent, where recordings of it are at hand, is read without loss.

use serde_json::Value;
use switchpoint::dialect::openai::{Tap, read_error, read_usage};
use switchpoint::dialect::sse::Decoder;

use crate::support::recording::{self, Recording};

/// What must be found in a stream, read the simple way.
#[derive(Default)]
struct Told {
    usage: bool,
    finishes: usize,
    error: bool,
}

// === impl Recording ===

impl Recording {
    /// Whether it was asked for in the dialect of completions and embeddings.
    fn is_openai(&self) -> bool {
        self.path().ends_with("/completions") || self.path().ends_with("/embeddings")
    }

    fn choices(&self) -> u32 {
        let choices = self.facts["request"]["body"]["n"].as_u64().unwrap_or(1);
        u32::try_from(choices).unwrap()
    }

    fn check_stream(&self) {
        let told = self.told();
        for size in [self.body.len(), 1, 17] {
            let tap = self.tapped(size);
            assert_eq!(tap.sight().malformed, 0, "{}", self.id);
            assert_eq!(tap.sight().usage.is_some(), told.usage, "{}: usage", self.id);
            let finished = told.finishes >= self.choices() as usize;
            assert!(told.error || !finished || tap.sight().finished, "{}: no finish seen", self.id);
            assert!(tap.sight().content || told.error, "{}: no content seen", self.id);
        }
    }

    /// What is seen of the stream when it arrives in pieces of this size.
    fn tapped(&self, size: usize) -> Tap {
        let (mut decoder, mut tap) = (Decoder::default(), Tap::new(self.choices(), false));
        for piece in self.body.chunks(size) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(frame) = decoder.next_frame() {
                tap.inspect(&decoder, &frame);
                decoder.discard(frame.range.end);
            }
        }
        if let Some(frame) = decoder.last_frame() {
            tap.inspect(&decoder, &frame);
        }
        tap
    }

    fn told(&self) -> Told {
        let mut told = Told::default();
        let text = String::from_utf8_lossy(&self.body);
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        for event in data.filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
            let choices = event["choices"].as_array().into_iter().flatten();
            told.finishes += choices.filter(|choice| choice["finish_reason"].is_string()).count();
            let usages =
                [&event["usage"], &event["x_groq"]["usage"], &event["choices"][0]["usage"]];
            told.usage |= usages.iter().any(|usage| usage["total_tokens"].is_u64());
            told.error |= event["error"].is_object();
        }
        told
    }

    fn check_whole(&self) {
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else {
            return assert_eq!(read_usage(&self.body).ok().flatten(), None, "{}", self.id);
        };
        let told = &body["usage"];
        let usage = read_usage(&self.body).unwrap();
        let counted = ["prompt_tokens", "total_tokens"].iter().any(|name| told[*name].is_u64());
        assert_eq!(usage.is_some(), counted, "{}: {told}", self.id);
        if let (Some(usage), Some(total)) = (usage, told["total_tokens"].as_u64()) {
            assert_eq!(usage.total(), total, "{}: {told}", self.id);
        }
        if self.facts["status"].as_u64().is_some_and(|status| status >= 400) {
            assert!(read_error(&self.body).is_some(), "{}: {body}", self.id);
        }
    }
}

#[test]
fn recorded_answers_are_read_without_loss() {
    let recordings = recording::all().into_iter().filter(Recording::is_openai);
    let (streams, wholes): (Vec<_>, Vec<_>) = recordings.partition(Recording::is_stream);
    for recording in &streams {
        recording.check_stream();
    }
    for recording in &wholes {
        recording.check_whole();
    }
    println!("{} recorded streams and {} whole answers were read", streams.len(), wholes.len());
}
