//! What is seen of a stream as it passes, whatever both ends speak.

use crate::canon::{Delta, Event, FinishReason, Opening, StreamFailure, Usage};

/// What has been seen of a stream so far.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Some of the answer has passed: from here on no other target can take over.
    pub content: bool,
    /// Every answer asked for has its finish reason.
    pub finished: bool,
    /// Some of the answer came behind that: its upstream gives reasons before the end, so the end is
    /// not near.
    pub resumed: bool,
    /// The stream's own last word has passed.
    pub done: bool,
    pub usage: Option<Usage>,
    /// The client has been given the usage.
    pub usage_shown: bool,
    /// Events that carried some of the answer.
    pub deltas: u64,
    /// Tokens of these, by what they said.
    pub written: u64,
    /// Events that made no sense and were skipped.
    pub malformed: u32,
    pub failure: Option<StreamFailure>,
    /// Answers that have their finish reason.
    pub finishes: u32,
    /// The last of their reasons.
    pub finish: Option<FinishReason>,
}

// === impl Sight ===

impl Sight {
    /// What was used, and whether its provider has said all of it. Before the end it has not, nor
    /// if it says that nothing was written: some tell at the beginning what they know then, and
    /// what was written since counts if it is more. The question is one of so many tokens.
    pub fn used(&self, question: u64) -> (Usage, bool) {
        let estimate = Usage { input: question, ..Usage::default() };
        match self.usage {
            Some(usage) if self.finished && (usage.output > 0 || self.is_unwritten()) => {
                (usage, true)
            }
            told => {
                // Some servers count nothing and say so by zeros.
                let told = told.filter(|usage| usage.total() > 0).unwrap_or(estimate);
                (Usage { output: told.output.max(self.written), ..told }, false)
            }
        }
    }

    /// Some of the answer has passed, of so many bytes.
    pub(super) fn hear(&mut self, bytes: usize) {
        self.content = true;
        self.resumed |= self.finished && bytes > 0;
        self.deltas += 1;
        self.written += tokens(bytes);
    }

    /// Whether the provider has written nothing. What is said of a question that was blocked may be
    /// our words.
    fn is_unwritten(&self) -> bool {
        self.written == 0 || self.finish == Some(FinishReason::ContentFilter)
    }

    /// So many answers have said why they end, and one of them so.
    pub(super) fn note_endings(&mut self, endings: Option<(u32, FinishReason)>, choices: u32) {
        let Some((count, reason)) = endings else { return };
        self.finish = Some(reason);
        self.finished |= count >= choices;
    }

    /// Whether the stream said it was done without an answer or a reason.
    pub fn says_nothing(&self) -> bool {
        self.done && !self.content && self.finishes == 0
    }

    /// Whether the stream said it was done and gave no reason why its answer ends there.
    pub fn ends_short(&self) -> bool {
        self.done && !self.finished
    }

    pub(super) fn note(&mut self, event: &Event, choices: u32) {
        match event {
            Event::Delta { delta, .. } if carries(delta) => {
                self.hear(spoken(delta));
            }
            Event::Open { part, .. } => self.content |= is_content(part),
            Event::Finish { finish, .. } => {
                self.finish = Some(finish.reason);
                self.finishes += 1;
                self.finished = self.finishes >= choices;
            }
            Event::Usage(usage) => {
                self.usage = Some(*usage);
                self.usage_shown = true;
            }
            Event::Failed(failure) => self.failure = Some(failure.clone()),
            Event::End => {
                self.finished |= self.finishes > 0;
                self.done = true;
            }
            Event::Start(_) | Event::Delta { .. } | Event::Close { .. } | Event::Aside(_) => {}
        }
    }
}

/// Few tokens are longer than this, and most servers send one at a time.
const ONE: usize = 16;

/// About how many tokens a piece of so many bytes is.
fn tokens(bytes: usize) -> u64 {
    if bytes <= ONE { 1 } else { bytes.div_ceil(4) as u64 }
}

/// The bytes of a piece's text. What is no text is a token, whatever its length.
fn spoken(delta: &Delta) -> usize {
    match delta {
        Delta::Text(text)
        | Delta::Refusal(text)
        | Delta::Reasoning(text)
        | Delta::Arguments(text)
        | Delta::Transcript(text) => text.len(),
        Delta::Audio(_) | Delta::Opaque(_) | Delta::Citation(_) | Delta::Logprobs(_) => 0,
    }
}

fn carries(delta: &Delta) -> bool {
    match delta {
        Delta::Text(text)
        | Delta::Refusal(text)
        | Delta::Reasoning(text)
        | Delta::Arguments(text)
        | Delta::Audio(text)
        | Delta::Transcript(text) => !text.is_empty(),
        Delta::Opaque(_) => true,
        Delta::Citation(_) | Delta::Logprobs(_) => false,
    }
}

/// A part that has begun with more than its kind.
fn is_content(part: &Opening) -> bool {
    match part {
        Opening::ToolCall { .. } | Opening::Media(_) | Opening::Foreign(_) => true,
        Opening::Text | Opening::Refusal | Opening::Reasoning { .. } | Opening::Audio { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Finish;

    #[test]
    fn a_question_that_was_blocked_costs_what_its_provider_says() {
        let usage = Usage { input: 5, ..Usage::default() };
        for (reason, told) in [(FinishReason::ContentFilter, true), (FinishReason::Stop, false)] {
            let mut sight = Sight::default();
            let words = Delta::Refusal("The prompt was blocked.".into());
            let finish = Finish { reason, ..Finish::default() };
            for event in [
                Event::Delta { choice: 0, delta: words },
                Event::Usage(usage),
                Event::Finish { choice: 0, finish },
            ] {
                sight.note(&event, 1);
            }
            assert_eq!(sight.used(9).1, told, "{reason:?}");
            assert_eq!(sight.used(9).0 == usage, told, "{reason:?}");
        }
    }
}
