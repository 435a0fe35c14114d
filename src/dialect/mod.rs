//! How each API spells the language. Pure functions over bytes: no I/O, no clock.
//!
//! A dialect has up to two sides. `ClientSide` is what a door of ours needs: read the question,
//! write the answer. `UpstreamSide` is what a provider needs: write the question, read the answer.
//! Every pair works because both meet in `canon`; where both ends speak the same dialect, none of
//! this is used and the bytes pass as they are, under a `Passage` that only looks.

pub mod assemble;
pub mod batch;
pub mod chat;
pub mod cohere;
pub mod completions;
pub mod converse;
pub mod count;
pub mod custom;
pub mod document;
pub mod embed;
pub mod estimate;
pub mod eventstream;
pub mod fold;
pub mod gemini;
pub mod keepsake;
mod legible;
mod lost;
pub mod marks;
pub mod mend;
pub mod multipart;
pub mod messages;
pub mod names;
pub mod opaque;
pub mod openai;
pub mod pairs;
pub mod passage;
pub mod plain;
pub mod peek;
pub mod references;
pub mod responses;
pub mod row;
pub mod sampling;
pub mod schema;
mod seam;
pub mod search;
mod sight;
pub mod splice;
pub mod sse;
pub mod tokenizer;
mod traits;
pub mod turn;
pub mod turns;

pub use traits::{Documents, EFFORTS, EffortField, JsonMode, Thoughts, Traits};

use std::borrow::Cow;

use crate::canon::{CacheMark, ChatRequest, ChatResponse, Dialect, Event, FinishReason, Surface};
use crate::error::Error;

/// The side of a dialect that clients see.
pub trait ClientSide: Send + Sync {
    /// Reads a question. `model` and `stream` are the caller's to overwrite where the dialect
    /// says them elsewhere than in the body.
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread>;

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8>;

    /// Writes one answer's stream.
    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream>;

    /// The content type of its streams.
    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    /// The body of an error answer.
    fn write_error(&self, error: &Error) -> Vec<u8> {
        openai::write_error(error)
    }

    /// The event that ends a stream with an error.
    fn write_error_event(&self, error: &Error) -> Vec<u8> {
        openai::write_error_event(error)
    }

    /// The same where the stream has nothing else in it.
    fn write_lone_error(&self, error: &Error) -> Vec<u8> {
        self.write_error_event(error)
    }

    /// What keeps a silent stream's connection open and every client ignores.
    fn keep_alive(&self) -> &'static [u8] {
        openai::KEEP_ALIVE
    }
}

/// The side of a dialect that providers see.
pub trait UpstreamSide: Send + Sync {
    fn write_request(&self, request: &ChatRequest, aim: &Aim<'_>)
    -> Result<Written, Inexpressible>;

    fn read_whole(&self, body: &[u8]) -> Result<ChatResponse, Misread>;

    /// Reads a whole answer, mended if it is not legible as it is.
    fn read_response(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        self.read_whole(body).or_else(|misread| {
            mend::whole(body).map_or(Err(misread), |mended| self.read_whole(&mended))
        })
    }

    /// Reads one answer's stream.
    fn reader(&self) -> Box<dyn ReadStream>;
}

/// Turns a stream's own events into ours, by the rules in `canon::Event`.
pub trait ReadStream: Send {
    /// Reads one event: the name in its `event` line, if any, and its data. One that makes no sense
    /// is skipped and counted by the caller.
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread>;

    /// The stream has ended. Gives `End`, with what must precede it, if the answer was finished
    /// and the stream's own last word has not come; nothing if it was cut.
    fn end(&mut self, events: &mut Vec<Event>);

    /// How many answers have said why they end, and one of the reasons, where `Finish` is told at
    /// the end of the stream: some servers say why with every piece, and more may come.
    fn endings(&self) -> Option<(u32, FinishReason)> {
        None
    }
}

/// Turns our events into bytes of a client's stream.
pub trait WriteStream: Send {
    /// Appends what the client is to be given for `event`; may be nothing.
    fn write(&mut self, event: &Event, out: &mut Vec<u8>);

    /// What ends the stream with an error, where that depends on what was written before.
    fn write_error(&self, _error: &Error) -> Option<Vec<u8>> {
        None
    }
}

/// What an answer's writer must know besides the answer.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// 32 hexadecimal digits, unique to the call: where a dialect's ids have a prefix, this goes
    /// behind it.
    pub id: &'a str,
    /// When the call arrived, in seconds since 1970.
    pub created: u64,
    /// The target's model, for upstreams that do not name it themselves.
    pub model: &'a str,
    /// Tokens of the question by estimate, for dialects that want a count before it is known.
    pub input_estimate: u64,
    /// The response that the question goes on from.
    pub previous: Option<&'a str>,
    pub request: &'a ChatRequest,
}

/// What a question's writer must know of the target.
#[derive(Debug, Clone, Copy)]
pub struct Aim<'a> {
    pub model: &'a str,
    pub traits: &'a Traits,
    /// Set prompt cache breakpoints here, for a client that sets none itself.
    pub cache: Option<CacheInjection>,
}

/// Where a target's prompt cache gets breakpoints that the client did not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheInjection {
    /// Behind the system prompt.
    pub system: bool,
    /// Behind the last tool.
    pub tools: bool,
    /// Behind the last two messages of the user.
    pub messages: bool,
    pub lifetime: CacheMark,
}

/// What stands where `model` stood in a Messages body whose model is in the path (Vertex AI).
pub const VERTEX_VERSION: &str = r#""anthropic_version":"vertex-2023-10-16""#;

/// A question in the target's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub body: Vec<u8>,
    /// Fields of the question that the target cannot take, by their names in OpenAI's API, or, for
    /// those that it does not have, in the client's.
    pub dropped: Vec<Cow<'static, str>>,
}

/// A body that does not say what its dialect requires; the text is shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misread(pub Cow<'static, str>);

/// A question that makes no sense without what the target cannot take; the text is shown to the
/// client and names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inexpressible(pub Cow<'static, str>);

// === impl Misread ===

impl Misread {
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

impl From<serde_json::Error> for Misread {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("The body is not as its API defines it: {error}.").into())
    }
}

/// The dialect that a door's clients see. Where the question is no chat, errors are OpenAI's.
pub fn client(surface: Surface) -> &'static dyn ClientSide {
    match surface {
        Surface::Messages | Surface::CountTokens => &messages::CODEC,
        Surface::Responses | Surface::InputTokens | Surface::Compact => &responses::CODEC,
        Surface::Generate | Surface::GoogleEmbeddings => &gemini::CODEC,
        Surface::GenerateArray => &gemini::ARRAY,
        Surface::GoogleCountTokens => &gemini::COUNT,
        Surface::Completions => &completions::CODEC,
        Surface::Turn | Surface::Run | Surface::Tool => &turn::CODEC,
        Surface::Chat
        | Surface::Embeddings
        | Surface::Images
        | Surface::Speech
        | Surface::Transcriptions
        | Surface::Moderations
        | Surface::Rerank
        | Surface::Files
        | Surface::Batches
        | Surface::Explain => &chat::CODEC,
    }
}

/// The side of a dialect that providers see.
pub fn upstream(dialect: Dialect) -> &'static dyn UpstreamSide {
    match dialect {
        Dialect::Chat => &chat::CODEC,
        Dialect::Responses => &responses::CODEC,
        Dialect::Messages => &messages::CODEC,
        Dialect::Gemini => &gemini::CODEC,
        Dialect::Converse => &converse::CODEC,
        Dialect::Cohere => &cohere::CODEC,
    }
}

/// A tool call's id that every dialect takes: `^[A-Za-z0-9_-]{1,40}$`. Ids that fit stay; others
/// become one that is always the same for the same id, so that calls and results still meet.
pub fn portable_id(id: &str) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=40).contains(&id.len()) && id.bytes().all(fits) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("call_{:016x}{:016x}", fnv(id, 0), fnv(id, 1)))
}

/// FNV-1a (draft-eastlake-fnv), seeded: no defence against anyone, only spread.
fn fnv(text: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    text.bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_make_no_sense_lose_no_answer() {
        let answers = [
            (Dialect::Chat, r#"{"choices":[{"message":{"content":"yes"}}],"usage":USAGE}"#),
            (
                Dialect::Responses,
                r#"{"output":[{"type":"message","content":[{"type":"output_text","text":"yes"}]}],
                    "usage":USAGE}"#,
            ),
            (Dialect::Messages, r#"{"content":[{"type":"text","text":"yes"}],"usage":USAGE}"#),
            (
                Dialect::Gemini,
                r#"{"candidates":[{"content":{"parts":[{"text":"yes"}]}}],"usageMetadata":USAGE}"#,
            ),
            (
                Dialect::Converse,
                r#"{"output":{"message":{"content":[{"text":"yes"}]}},"stopReason":null,
                    "usage":USAGE}"#,
            ),
            (
                Dialect::Cohere,
                r#"{"id":null,"message":{"content":[{"type":"text","text":"yes"}]},
                    "finish_reason":"COMPLETE","usage":USAGE}"#,
            ),
        ];
        for (dialect, answer) in answers {
            for counts in ["-1", "12.5", "\"12\"", "[]", "{}"] {
                let usage = ["input_tokens", "prompt_tokens", "promptTokenCount", "inputTokens"]
                    .map(|name| format!("\"{name}\":{counts}"));
                let usage = format!("{{{},\"tokens\":{counts}}}", usage.join(","));
                let answer = answer.replace("USAGE", &usage);
                let read = upstream(dialect).read_response(answer.as_bytes());
                let read = read.unwrap_or_else(|error| panic!("{dialect:?} {counts}: {error}"));
                let said = read.choices[0].parts[0].as_text();
                assert_eq!(said, Some("yes"), "{dialect:?} {counts}");
            }
        }
    }

    #[test]
    fn a_count_of_another_type_is_read_and_one_that_makes_no_sense_loses_no_other() {
        let answers = [
            (
                Dialect::Chat,
                r#"{"choices":[{"message":{"content":"yes"}}],
                    "usage":{"prompt_tokens":11.0,"completion_tokens":"7","total_tokens":18,
                        "prompt_tokens_details":"none",
                        "completion_tokens_details":{"reasoning_tokens":-1,"audio_tokens":1e300}}}"#,
            ),
            (
                Dialect::Messages,
                r#"{"content":[{"type":"text","text":"yes"}],
                    "usage":{"input_tokens":11.0,"output_tokens":6.5,"cache_read_input_tokens":-1,
                        "cache_creation":[],"iterations":[{"input_tokens":-1},null]}}"#,
            ),
            (
                Dialect::Gemini,
                r#"{"candidates":[{"content":{"parts":[{"text":"yes"}]}}],
                    "usageMetadata":{"promptTokenCount":11.0,"candidatesTokenCount":"7",
                        "cachedContentTokenCount":-1,"promptTokensDetails":7,"serviceTier":7}}"#,
            ),
            (
                Dialect::Converse,
                r#"{"output":{"message":{"content":[{"text":"yes"}]}},"stopReason":null,
                    "usage":{"inputTokens":11.0,"outputTokens":7,"cacheReadInputTokens":-1,
                        "cacheDetails":[{"ttl":5}]}}"#,
            ),
            (
                Dialect::Cohere,
                r#"{"id":null,"message":{"content":[{"type":"text","text":"yes"}]},
                    "finish_reason":"COMPLETE",
                    "usage":{"tokens":{"input_tokens":11.0,"output_tokens":7},"cached_tokens":"x"}}"#,
            ),
        ];
        for (dialect, answer) in answers {
            let read = upstream(dialect).read_response(answer.as_bytes()).unwrap();
            let usage = crate::canon::Usage { input: 11, output: 7, ..Default::default() };
            assert_eq!(read.usage, Some(usage), "{dialect:?}");
        }
    }

    #[test]
    fn an_id_that_every_dialect_takes_stays_and_any_other_becomes_one() {
        assert_eq!(portable_id("toolu_01A-b"), "toolu_01A-b");
        for id in ["", "call:1", "functions.search:0", &"x".repeat(41)] {
            let portable = portable_id(id);
            assert_eq!(portable.len(), 37);
            assert_eq!(portable, portable_id(id));
        }
        assert_ne!(portable_id("a:b"), portable_id("a:c"));
    }
}
