//! Looks on while an answer passes: finish, usage, errors. Changes nothing but what it must.
//!
//! The stream formats are those of OpenAI's chat completions and completions and of the servers
//! that follow them; where they differ, the differences are in the fixtures under `tests/`.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::usage::Counts;
use super::{DONE, count, is_error, read_error, write_error_event};
use crate::canon::{FinishReason, Usage};
use crate::dialect::chat::reader::{BROKEN, is_reason, read_reason};
use crate::dialect::mend;
use crate::dialect::passage::{Sight, Verdict, last_data};
use crate::dialect::sse::{Decoder, Frame};
use crate::error::{Error, Kind};

/// What has been seen of one stream so far.
#[derive(Debug)]
pub struct Tap {
    /// How many answers were asked for; each ends with its own finish reason.
    choices: u32,
    /// The gateway asked for usage, so the event that only carries usage is withheld.
    withhold_usage: bool,
    sight: Sight,
    /// The usage came by itself, as a last word.
    counted: bool,
    /// The finish event, kept to be able to end the stream in the upstream's stead.
    finish_event: Option<Value>,
}

static USAGE: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"usage\""));
static FINISH: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"finish_reason\""));
static SAID: LazyLock<[Finder; 6]> = LazyLock::new(|| {
    [
        "\"content\"",
        "\"reasoning_content\"",
        "\"arguments\"",
        "\"text\"",
        "\"reasoning\"",
        "\"reasoning_text\"",
    ]
    .map(Finder::new)
});
static CHOICES: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"choices\""));
static DATA: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"data\""));
static ERROR: LazyLock<Finder> = LazyLock::new(|| Finder::new("\"error\""));

// === impl Tap ===

impl Tap {
    pub fn new(choices: u32, withhold_usage: bool) -> Self {
        Self {
            choices: choices.max(1),
            withhold_usage,
            sight: Sight::default(),
            counted: false,
            finish_event: None,
        }
    }

    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    /// The upstream has ended without `[DONE]`: what the client still lacks.
    pub fn complete(&mut self, usage_asked: bool, input_tokens: u64) -> Vec<u8> {
        self.sight.done = true;
        let lacking = usage_asked && !self.sight.usage_shown;
        let usage = lacking.then(|| self.estimated_usage_event(input_tokens)).flatten();
        let mut last = usage.unwrap_or_default();
        last.extend_from_slice(DONE);
        last
    }

    /// Looks at one event of the stream.
    pub fn inspect(&mut self, decoder: &Decoder, frame: &Frame) -> Verdict {
        let Some(data) = decoder.data(frame) else { return Verdict::Drop };
        let data = data.trim_ascii();
        let named_error = decoder.event(frame) == Some(b"error");
        if data.starts_with(b"[DONE]") {
            self.sight.done = true;
            self.sight.finished |= self.sight.finishes > 0 || self.counted;
            if !self.sight.finished {
                // Gateways say it too when they were cut off; without a reason it is no end, nor
                // without the usage, which is all that Snowflake says of it.
                return Verdict::Drop;
            }
        } else if !data.starts_with(b"{") {
            if named_error || says_failure(data) {
                return Verdict::Failed;
            }
            self.sight.malformed += u32::from(!data.is_empty());
            return Verdict::Drop;
        } else if let Some(verdict) = self.event(data, named_error) {
            return verdict;
        }
        decoder.amended(frame).map_or(Verdict::Forward, Verdict::Replace)
    }

    /// Looks at an event's JSON. Once content flows, only events that carry usage, a finish reason
    /// or an error are parsed, and a search finds them.
    fn event(&mut self, data: &[u8], named_error: bool) -> Option<Verdict> {
        let has_usage = key_value(&USAGE, data).is_some_and(|value| value.starts_with(b"{"));
        let finishes = key_value(&FINISH, data).is_some_and(says_why);
        let has_error =
            named_error || key_value(&ERROR, data).is_some_and(|value| !value.starts_with(b"null"));
        if self.sight.content && !has_usage && !finishes && !has_error {
            if !data.ends_with(b"}") {
                self.sight.malformed += 1;
                return Some(Verdict::Drop);
            }
            let said = text_of(data);
            // What says nothing is looked at twice: an error need not be called that.
            if said > 0 || has_choices(data) {
                self.sight.hear(said);
                return None;
            }
        }
        let event = serde_json::from_slice(data).ok().or_else(|| mend::value(data));
        let Some(event) = event else {
            self.sight.malformed += 1;
            return Some(Verdict::Drop);
        };
        if named_error || is_failure(&event) {
            return Some(Verdict::Failed);
        }
        if carries_content(&event) {
            self.sight.hear(text_of(data));
        }
        self.note_finish(&event, finishes);
        let no_choices = event["choices"].as_array().is_none_or(Vec::is_empty);
        if let Some(usage) = usage_of(&event) {
            // Zeros behind real counts are no news.
            if usage.total() > 0 || self.sight.usage.is_none() {
                self.sight.usage = Some(usage);
            }
            self.counted |= no_choices && usage.total() > 0;
            if self.withhold_usage && no_choices {
                return Some(Verdict::Drop);
            }
            self.sight.usage_shown = true;
        }
        None
    }

    fn note_finish(&mut self, event: &Value, finishes: bool) {
        if !finishes {
            return;
        }
        let choices = event["choices"].as_array().into_iter().flatten();
        let reasons = choices.filter_map(|choice| choice["finish_reason"].as_str());
        let reasons: Vec<&str> = reasons.filter(|reason| is_reason(reason)).collect();
        if let Some(reason) = reasons.first() {
            self.sight.finishes += u32::try_from(reasons.len()).unwrap_or(u32::MAX);
            self.sight.finished |= self.sight.finishes >= self.choices;
            self.sight.finish = Some(read_reason(reason, ""));
            self.finish_event = Some(event.clone());
        }
    }

    /// The event that gives the client the usage it asked for and the upstream never sent: counted
    /// by the gateway, and marked so.
    fn estimated_usage_event(&self, input_tokens: u64) -> Option<Vec<u8>> {
        let mut event = self.finish_event.clone()?;
        event["choices"] = Value::Array(Vec::new());
        event["usage"] = serde_json::json!({
            "prompt_tokens": input_tokens,
            "completion_tokens": self.sight.written,
            "total_tokens": input_tokens + self.sight.written,
            "estimated": true,
        });
        Some([b"data: ", event.to_string().as_bytes(), b"\n\n"].concat())
    }
}

/// Whether what stands for a finish reason is one.
fn says_why(value: &[u8]) -> bool {
    let none: [&[u8]; 2] = [b"\"\"", b"\"null\""];
    value.starts_with(b"\"") && !none.iter().any(|none| value.starts_with(none))
}

/// How many bytes an event says, without parsing it: those of the first of its strings that is a
/// part of an answer.
fn text_of(data: &[u8]) -> usize {
    let said = SAID.iter().filter_map(|key| key_value(key, data)?.strip_prefix(b"\""));
    said.map(length).find(|length| *length > 0).unwrap_or_default()
}

/// Up to the quote that ends a string.
fn length(string: &[u8]) -> usize {
    let is_plain = |at: &usize| {
        let escapes = string[..*at].iter().rev().take_while(|byte| **byte == b'\\');
        escapes.count().is_multiple_of(2)
    };
    memchr::memchr_iter(b'"', string).find(is_plain).unwrap_or(string.len())
}

/// The bytes of the value behind the first occurrence of a key. Inside a string a quote is escaped,
/// so what is found is a key, at whatever depth.
fn key_value<'a>(key: &Finder, data: &'a [u8]) -> Option<&'a [u8]> {
    let mut from = 0;
    while let Some(found) = key.find(&data[from..]) {
        from += found + key.needle().len();
        if let Some(value) = data[from..].trim_ascii_start().strip_prefix(b":") {
            return Some(value.trim_ascii_start());
        }
    }
    None
}

/// Whether an event says that its provider broke down: by an `error`, by why a choice ends, or, if
/// it has no choices, by whatever else servers call that.
fn is_failure(event: &Value) -> bool {
    let fails = |of: &Value| of.get("error").is_some_and(|error| !error.is_null());
    let ends =
        |choice: &Value| choice["finish_reason"].as_str().is_some_and(|it| BROKEN.contains(&it));
    let choices = event["choices"].as_array().filter(|choices| !choices.is_empty());
    let broken = choices.map(|choices| choices.iter().any(|it| fails(it) || ends(it)));
    fails(event) || broken.unwrap_or_else(|| is_error(event))
}

/// The same of its data.
pub fn says_failure(data: &[u8]) -> bool {
    serde_json::from_slice::<Value>(data).is_ok_and(|event| is_failure(&event))
}

/// The event that ends a stream as its provider has said it: with an `error`, which is what clients
/// look for, in the provider's words.
pub fn told(event: Bytes) -> Bytes {
    let data = last_data(&event).unwrap_or_default();
    let value = serde_json::from_slice::<Value>(&data).unwrap_or_default();
    let is_seen = memchr::memmem::find(&event, b"data:").is_some();
    if is_seen && value.get("error").is_some_and(|error| !error.is_null()) {
        return event;
    }
    let said = read_error(&data).map_or_else(|| BROKE_OFF.to_owned(), |(said, _)| said);
    write_error_event(&Error::new(Kind::UpstreamError, said)).into()
}

/// What is said of a provider that does not say why it broke off.
const BROKE_OFF: &str = "The provider broke off its answer.";

/// Whether a whole answer has choices. What has none is no answer, whatever its status says.
pub fn has_choices(body: &[u8]) -> bool {
    lists(&CHOICES, body)
}

/// The same of vectors.
pub fn has_data(body: &[u8]) -> bool {
    lists(&DATA, body)
}

fn lists(key: &Finder, body: &[u8]) -> bool {
    let list = key_value(key, body).and_then(|value| value.strip_prefix(b"["));
    list.is_some_and(|list| !list.trim_ascii_start().starts_with(b"]"))
}

/// Whether a whole answer may say that its provider broke down: it is to be read then.
pub fn may_be_broken(body: &[u8]) -> bool {
    let reason = key_value(&FINISH, body).and_then(|value| value.strip_prefix(b"\""));
    let ends = |word: &&str| reason.is_some_and(|reason| reason.starts_with(word.as_bytes()));
    BROKEN.iter().any(ends)
        || key_value(&ERROR, body).is_some_and(|value| !value.starts_with(b"null"))
}

/// Whether an event carries any of the answer, and not just the role of who speaks.
fn carries_content(event: &Value) -> bool {
    let filled = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    };
    event["choices"].as_array().into_iter().flatten().any(|choice| {
        let delta = choice.get("delta").or_else(|| choice.get("message"));
        let said = delta.and_then(Value::as_object).into_iter().flatten();
        choice.get("text").is_some_and(filled)
            || said.filter(|(name, _)| *name != "role").any(|(_, value)| filled(value))
    })
}

/// Why a whole answer has ended.
pub fn read_finish(body: &[u8]) -> Option<FinishReason> {
    let value = key_value(&FINISH, body).filter(|value| says_why(value))?.strip_prefix(b"\"")?;
    let end = value.iter().position(|byte| *byte == b'"')?;
    Some(read_reason(std::str::from_utf8(&value[..end]).ok()?, ""))
}

/// The usage that a whole answer reports. What is no JSON is no answer.
pub fn read_usage(body: &[u8]) -> Result<Option<Usage>, serde_json::Error> {
    if let Some(usage) = only_usage(body) {
        return Ok(Some(usage));
    }
    let top = serde_json::from_slice::<Top>(body).ok();
    if let Some(usage) = top.and_then(|top| top.usage?.classes()) {
        return Ok(Some(usage));
    }
    serde_json::from_slice::<IgnoredAny>(body)?;
    // Where parts of an answer have counts of their own, none of them is the whole's.
    let mut found = USAGE.find_iter(body);
    let only = found.next().filter(|_| found.next().is_none());
    let value = only.and_then(|only| {
        let value = body[only + USAGE.needle().len()..].trim_ascii_start().strip_prefix(b":")?;
        serde_json::Deserializer::from_slice(value).into_iter::<Value>().next()?.ok()
    });
    Ok(value.as_ref().and_then(count))
}

/// The same of an answer that has come to its end and has one usage, whole, as nearly all have. As
/// in a stream, the rest of it is not looked through: that costs more than all the tap does.
fn only_usage(body: &[u8]) -> Option<Usage> {
    let body = body.trim_ascii();
    let mut found = USAGE.find_iter(body.strip_prefix(b"{")?.strip_suffix(b"}")?);
    let only = found.next().filter(|_| found.next().is_none())?;
    let value = body[1 + only + USAGE.needle().len()..].trim_ascii_start().strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Counts>();
    let usage = values.next()?.ok()?.classes()?;
    let behind = value[values.byte_offset()..].trim_ascii_start();
    matches!(behind.first(), Some(b',' | b'}')).then_some(usage)
}

#[derive(Debug, Deserialize)]
struct Top {
    #[serde(default)]
    usage: Option<Counts>,
}

/// The usage of a stream event: at the top, or where Groq and Moonshot put it.
fn usage_of(event: &Value) -> Option<Usage> {
    [&event["usage"], &event["x_groq"]["usage"], &event["choices"][0]["usage"]]
        .into_iter()
        .find_map(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tap: &mut Tap, stream: &str) -> Vec<Verdict> {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(stream.as_bytes());
        let mut verdicts = Vec::new();
        while let Some(frame) = decoder.next_frame() {
            verdicts.push(tap.inspect(&decoder, &frame));
        }
        verdicts
    }

    #[test]
    fn withholds_the_usage_event_only_when_the_gateway_asked_for_it() {
        let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}],\"usage\":null}\n\n\
            data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n\
            data: [DONE]\n\n";
        let mut tap = Tap::new(1, true);
        let verdicts = run(&mut tap, stream);
        assert_eq!(verdicts[2], Verdict::Drop);
        assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Forward).count(), 3);
        assert!(tap.sight.finished && tap.sight.done && tap.sight.content);
        assert_eq!(tap.sight.usage.unwrap().total(), 5);
        assert!(!run(&mut Tap::new(1, false), stream).contains(&Verdict::Drop));
    }

    #[test]
    fn a_role_is_no_content_but_text_tools_and_reasoning_are() {
        for (delta, content) in [
            (r#"{"role":"assistant","content":""}"#, false),
            (r#"{"role":"assistant","content":null}"#, false),
            (r#"{"content":"x"}"#, true),
            (r#"{"tool_calls":[{"index":0}]}"#, true),
            (r#"{"reasoning_content":"x"}"#, true),
            (r#"{"refusal":"no"}"#, true),
        ] {
            let mut tap = Tap::new(1, false);
            run(&mut tap, &format!("data: {{\"choices\":[{{\"delta\":{delta}}}]}}\n\n"));
            assert_eq!(tap.sight.content, content, "{delta}");
        }
    }

    #[test]
    fn an_error_is_one_whatever_it_is_called_and_wherever_it_comes() {
        let said = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let quiet = "data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n";
        for (event, field) in [
            (r#"{"code":404,"message":"no","object":"error"}"#, "data"),
            (
                r#"{"choices":null,"usage":{"total_tokens":0},"base_resp":{"status_code":1013,"status_msg":"no"}}"#,
                "data",
            ),
            (
                r#"{"id":"x","choices":null,"error_type":"BadRequestError","error_message":"no"}"#,
                "data",
            ),
            (r#"[{"error":{"code":429,"message":"no"}}]"#, "data"),
            // llama.cpp's own field.
            (r#"{"code":500,"message":"no","type":"server_error"}"#, "error"),
            (r#"{"error":{"code":500,"message":"no"}}"#, "error"),
        ] {
            let event = format!("{field}: {event}\n\n");
            let mut tap = Tap::new(1, false);
            assert_eq!(run(&mut tap, &event), [Verdict::Failed], "{event}");
            let mut tap = Tap::new(1, false);
            let verdicts = run(&mut tap, &[said, quiet, &event].concat());
            assert_eq!(verdicts, [Verdict::Forward, Verdict::Forward, Verdict::Failed], "{event}");
            let told = told(Bytes::from(event));
            let data: Value = serde_json::from_slice(&told[b"data: ".len()..]).unwrap();
            assert_eq!(data["error"]["message"], "no", "{data}");
        }
    }

    #[test]
    fn waits_for_the_finish_of_every_answer_asked_for() {
        let mut tap = Tap::new(2, false);
        let finish =
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        run(&mut tap, finish);
        assert!(!tap.sight.finished);
        run(&mut tap, finish);
        assert!(tap.sight.finished);
    }

    fn piece(content: &str, reason: &str) -> String {
        let choice = format!(r#"{{"delta":{{"content":"{content}"}},"finish_reason":{reason}}}"#);
        format!("data: {{\"choices\":[{choice}]}}\n\n")
    }

    #[test]
    fn what_is_filled_in_where_there_is_no_reason_is_no_finish() {
        for none in [r#""""#, r#""null""#, "null"] {
            let mut tap = Tap::new(1, false);
            let verdicts =
                run(&mut tap, &(piece("a", none) + &piece("b", none) + "data: [DONE]\n\n"));
            let passed = [Verdict::Forward, Verdict::Forward, Verdict::Drop];
            assert_eq!((verdicts.as_slice(), tap.sight.finished), (&passed[..], false), "{none}");
            assert_eq!(read_finish(format!(r#"{{"finish_reason":{none}}}"#).as_bytes()), None);
        }
    }

    #[test]
    fn an_answer_that_goes_on_behind_its_finish_is_not_near_its_end() {
        let mut tap = Tap::new(1, false);
        run(&mut tap, &piece("a", r#""stop""#));
        assert!(tap.sight.finished && !tap.sight.resumed);
        run(&mut tap, &piece("", "null"));
        assert!(!tap.sight.resumed, "an empty piece is none of the answer");
        run(&mut tap, &piece("b", "null"));
        assert!(tap.sight.finished && tap.sight.resumed);
    }

    #[test]
    fn usage_with_every_piece_is_no_last_word() {
        let counts = r#""usage":{"prompt_tokens":9,"completion_tokens":1}"#;
        for (choices, ends) in [(r#"[{"delta":{"content":"b"}}]"#, false), ("[]", true)] {
            let mut tap = Tap::new(1, false);
            let counted = format!("data: {{\"choices\":{choices},{counts}}}\n\n");
            run(&mut tap, &(piece("a", "null") + &counted + "data: [DONE]\n\n"));
            assert_eq!(tap.sight.finished, ends, "{choices}");
        }
    }

    #[test]
    fn words_in_the_answer_are_not_taken_for_fields() {
        let mut tap = Tap::new(1, false);
        let stream = r#"data: {"choices":[{"delta":{"content":"\"usage\": {\"prompt_tokens\":9} \"error\": 1 \"finish_reason\":\"stop\""}}]}"#;
        let verdicts = run(&mut tap, &format!("{stream}\n\n{stream}\n\n"));
        assert_eq!(verdicts, [Verdict::Forward, Verdict::Forward]);
        assert!(!tap.sight.finished && tap.sight.usage.is_none());
        let said = br#"{"content":"\"usage\": {\"prompt_tokens\":9}"}"#;
        assert_eq!(read_usage(said).unwrap(), None);
    }

    #[test]
    fn usage_classes_are_disjoint_in_every_spelling() {
        let usage =
            |text: &str| read_usage(format!(r#"{{"usage":{text}}}"#).as_bytes()).unwrap().unwrap();
        let openai = usage(
            r#"{"prompt_tokens":10,"completion_tokens":7,"total_tokens":17,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":5}}"#,
        );
        assert_eq!(
            (openai.input, openai.cache_read, openai.output, openai.reasoning),
            (6, 4, 7, 5)
        );
        let xai = usage(
            r#"{"prompt_tokens":10,"completion_tokens":2,"total_tokens":17,"completion_tokens_details":{"reasoning_tokens":5}}"#,
        );
        assert_eq!((xai.output, xai.total()), (7, 17));
        let deepseek =
            usage(r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_cache_hit_tokens":8}"#);
        assert_eq!((deepseek.input, deepseek.cache_read), (2, 8));
        assert_eq!(usage(r#"{"prompt_tokens":4,"total_tokens":4}"#).total(), 4);
        let gemini = usage(r#"{"prompt_tokens":10,"completion_tokens":2,"total_tokens":17}"#);
        assert_eq!(gemini.output, 7);
    }

    #[test]
    fn the_usage_of_the_whole_answer_counts_and_not_that_of_a_part() {
        let body = br#"{"usage":{"prompt_tokens":9,"completion_tokens":1},"parts":[{"usage":{"prompt_tokens":4}}]}"#;
        assert_eq!(read_usage(body).unwrap().unwrap().total(), 10);
        let two = br#"{"parts":[{"usage":{"prompt_tokens":4}},{"usage":{"prompt_tokens":5}}]}"#;
        assert_eq!(read_usage(two).unwrap(), None);
    }

    #[test]
    fn usage_is_found_wherever_it_stands_alone_and_however_odd_its_neighbours_are() {
        let tokens = |body: &str| read_usage(body.as_bytes()).unwrap().map(|usage| usage.total());
        assert_eq!(tokens(r#"{"x_groq":{"usage":{"prompt_tokens":4}}}"#), Some(4));
        assert_eq!(tokens(r#"[{"usage":{"prompt_tokens":4}}]"#), Some(4));
        // Named twice, as some proxies do when they add a count: the last one is read.
        let twice = r#"{"usage":{"prompt_tokens":1,"prompt_tokens":4,"odd":{"a":[1.5,null]}}}"#;
        assert_eq!(tokens(twice), Some(4));
        assert_eq!(tokens(r#"{"usage":"none"}"#), None);
        let odd = r#"{"usage":{"prompt_tokens":4.0,"completion_tokens":-1,"total_tokens":"6"}}"#;
        assert_eq!(tokens(odd), Some(6));
        assert_eq!(only_usage(odd.as_bytes()).map(|usage| usage.output), Some(2));
        assert_eq!(tokens(r#""usage""#), None);
        assert_eq!(tokens("\n{\"usage\" : {\"prompt_tokens\":4} , \"a\":[]}\r\n"), Some(4));
        for cut in [r#"{"usage":{"prompt_tokens":4}"#, r#"{"a":{"#, r#"{"usage":{},"a":}"#] {
            assert!(read_usage(cut.as_bytes()).is_err(), "{cut}");
        }
    }
}
