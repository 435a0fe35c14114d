//! Errors as OpenAI's API spells them, read and written.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Upstream};

/// The body of an error answer. The stable code is ours; an upstream's own code is kept beside it.
pub fn write_error(error: &Error) -> Vec<u8> {
    let upstream = error.upstream.as_deref();
    let mut fields = json!({
        "message": spoken(error),
        "type": upstream.and_then(|said| said.kind.as_deref()).unwrap_or_else(|| error.kind.openai_type()),
        "param": upstream.and_then(|said| said.param.as_deref()),
        "code": error.kind.code(),
    });
    let own = (error.kind == Kind::ContextTooLong).then_some(TOO_LONG);
    if let Some(code) = upstream.and_then(|said| said.code.as_deref()).or(own) {
        fields["upstream_code"] = json!(code);
    }
    if !error.attempts.is_empty() {
        fields["attempts"] = error.attempts.iter().map(write_attempt).collect();
    }
    json!({ "error": fields }).to_string().into_bytes()
}

/// What the API calls a question that no window is large enough for.
const TOO_LONG: &str = "context_length_exceeded";

/// In the words by which clients of this API know that they must make the conversation shorter:
/// many look for them in the sentence, whoever was asked.
fn spoken(error: &Error) -> Cow<'_, str> {
    if error.kind != Kind::ContextTooLong || error.message.contains(TOO_LONG) {
        return Cow::Borrowed(&error.message);
    }
    format!("This model's maximum context length is exceeded ({TOO_LONG}): {}", error.message)
        .into()
}

/// The same as an event inside a stream.
pub fn write_error_event(error: &Error) -> Vec<u8> {
    [b"data: ", write_error(error).as_slice(), b"\n\n"].concat()
}

fn write_attempt(attempt: &crate::canon::Attempt) -> Value {
    json!({
        "provider": attempt.provider.as_ref(),
        "model": attempt.model.as_ref(),
        "outcome": attempt.outcome.name(),
        "status": attempt.status,
        "ms": u64::try_from(attempt.elapsed.as_millis()).unwrap_or(u64::MAX),
    })
}

/// A longer text is no sentence but a page or a trace.
const LONGEST: usize = 500;

/// What a message is called, by whoever has none of these inside of an `error`.
const MESSAGES: [&str; 9] = [
    "message",
    "detail",
    "Message",
    "error_message",
    "title",
    "msg",
    "status_msg",
    "description",
    "error",
];

/// The message and fields of an upstream's error body, whichever of the usual shapes it has:
/// `{"error":{…}}`, `{"error":"…"}`, `{"message":…}`, `{"detail":…}`, or a list of one of them.
pub fn read_error(body: &[u8]) -> Option<(String, Upstream)> {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return plain(body).map(|message| (message, Upstream::default()));
    };
    let value = first(&value);
    let object = value.as_object()?;
    match object.get("error") {
        Some(Value::Object(error)) => {
            let message = text(error, &MESSAGES)?;
            let message = match within(&value["error"]["metadata"]["raw"]) {
                Some(raw) if !message.contains(&raw) => format!("{message}: {raw}"),
                _ => message,
            };
            Some((message, fields(error)))
        }
        Some(Value::String(message)) => Some((message.clone(), fields(object))),
        // What somebody says is an answer, whoever calls it a message.
        _ if value["message"]["role"].is_string() => None,
        _ => {
            let within = [&value["errors"][0], &value["base_resp"], &value["choices"][0]["error"]];
            let mut said =
                std::iter::once(object).chain(within.into_iter().filter_map(Value::as_object));
            said.find_map(|object| Some((text(object, &MESSAGES)?, fields(object))))
        }
    }
}

/// What the provider behind OpenRouter said.
fn within(raw: &Value) -> Option<String> {
    match raw {
        Value::String(text) => Some(read_error(text.as_bytes())?.0),
        Value::Object(_) => Some(read_error(raw.to_string().as_bytes())?.0),
        _ => None,
    }
}

/// The words of an error that is no JSON, if they are a short text and no page.
fn plain(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_said = !text.is_empty() && text.len() <= LONGEST && !text.starts_with(['<', '{', '[']);
    is_said.then(|| text.to_owned())
}

/// Some tell of an error in a list.
fn first(value: &Value) -> &Value {
    value.as_array().and_then(|list| list.first()).unwrap_or(value)
}

/// Whether what brings nothing of an answer tells of an error instead, in one of the ways in which
/// servers do so inside of a success. None of them has a field that all others have.
pub fn is_error(said: &Value) -> bool {
    let said = first(said);
    let errors = ["error", "errors", "error_message", "error_type"];
    let named = errors.iter().any(|name| fails(&said[name]));
    let coded = || {
        let message = said.as_object().and_then(|said| text(said, &MESSAGES));
        let codes = ["code", "error_code"].iter().any(|name| fails(&said[name]));
        let statuses =
            || ["status", "status_code"].iter().any(|name| said[name].as_u64() >= Some(400));
        message.is_some() && (codes || statuses())
    };
    said["object"] == "error"
        || said["type"] == "error"
        || said["success"] == false
        || fails(&said["base_resp"]["status_code"])
        || named
        || coded()
}

/// Whether a code, or what an error is called, speaks of one.
fn fails(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(code) => !matches!(code.as_u64(), Some(0 | 200)),
        Value::String(code) => {
            !["", "0", "200", "ok", "success"].iter().any(|fine| code.eq_ignore_ascii_case(fine))
        }
        Value::Array(list) => !list.is_empty(),
        Value::Object(_) => true,
    }
}

/// The first of these that is there, as a text. What it holds may have a message of its own.
fn text(object: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let value = names.iter().find_map(|name| object.get(*name).filter(|value| !value.is_null()))?;
    let inner = || MESSAGES.iter().find_map(|name| value.get(*name)?.as_str());
    let said = value.as_str().or_else(inner).map(str::to_owned);
    Some(said.unwrap_or_else(|| value.to_string()))
}

fn fields(object: &Map<String, Value>) -> Upstream {
    Upstream {
        kind: text(object, &["type", "error_type"]),
        param: text(object, &["param"]),
        code: text(object, &["code", "status_code", "http_code"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_words_of_the_provider_behind_a_router_are_told() {
        for raw in [
            r#""{\"error\":{\"message\":\"too hot\"}}""#,
            r#"{"message":"too hot"}"#,
            r#""too hot""#,
        ] {
            let body = format!(
                r#"{{"error":{{"message":"Provider returned error","code":400,"metadata":{{"raw":{raw}}}}}}}"#
            );
            let (message, _) = read_error(body.as_bytes()).unwrap();
            assert_eq!(message, "Provider returned error: too hot", "{raw}");
        }
    }

    #[test]
    fn a_short_text_is_a_message_and_a_page_is_none() {
        assert_eq!(read_error(b" no such field\n").unwrap().0, "no such field");
        for body in ["<html>no</html>", "", "  ", "{\"a\":", &"x".repeat(LONGEST + 1)] {
            assert!(read_error(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn reads_the_message_in_every_usual_shape() {
        for body in [
            r#"{"error":{"message":"no","type":"t","code":429}}"#,
            r#"{"error":"no"}"#,
            r#"{"message":"no","request_id":"1"}"#,
            r#"{"detail":"no"}"#,
            r#"{"detail":{"error":"no"}}"#,
            r#"{"Message":"no"}"#,
            r#"{"status":401,"title":"Unauthorized","detail":"no"}"#,
            r#"{"status":429,"title":"no"}"#,
            r#"{"error":{"message":{"message":"no"}}}"#,
            r#"[{"error":{"message":"no"}}]"#,
            r#"{"code":500,"msg":"no","success":false}"#,
            r#"{"code":"A.B","description":"no","solution":"x"}"#,
            r#"{"success":false,"errors":[{"code":7003,"message":"no"}],"result":null}"#,
            r#"{"choices":null,"base_resp":{"status_code":1002,"status_msg":"no"}}"#,
            r#"{"choices":[{"finish_reason":"error","error":{"code":502,"message":"no"}}]}"#,
        ] {
            assert_eq!(read_error(body.as_bytes()).unwrap().0, "no", "{body}");
        }
        assert!(read_error(b"<html>").is_none());
        assert!(read_error(br#"{"message":{"role":"assistant","content":"yes"}}"#).is_none());
    }

    #[test]
    fn tells_an_error_inside_a_success_from_what_only_has_no_answer() {
        let is_error = |body: &str| is_error(&serde_json::from_str(body).unwrap());
        for body in [
            r#"{"code":404,"message":"no","object":"error"}"#,
            r#"{"code":50508,"message":"no","data":null}"#,
            r#"{"code":"A.B","description":"no"}"#,
            r#"{"choices":null,"error_type":"BadRequestError","error_message":"no"}"#,
            r#"{"choices":null,"usage":{},"base_resp":{"status_code":1002,"status_msg":"no"}}"#,
            r#"{"success":false,"errors":[]}"#,
            r#"[{"error":{"code":429}}]"#,
        ] {
            assert!(is_error(body), "{body}");
        }
        for body in [
            "{}",
            "[]",
            r#"{"id":"","choices":null,"usage":null,"error":null}"#,
            r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
            r#"{"choices":[],"usage":{},"base_resp":{"status_code":0,"status_msg":""}}"#,
            r#"{"code":0,"message":"ok"}"#,
            r#"{"message":"loading"}"#,
        ] {
            assert!(!is_error(body), "{body}");
        }
    }

    #[test]
    fn writes_the_stable_code_and_what_the_upstream_said() {
        let mut error = Error::new(Kind::InvalidRequest, "too long");
        error.upstream = Some(Box::new(Upstream {
            kind: Some("invalid_request_error".into()),
            param: Some("messages".into()),
            code: Some("context_length_exceeded".into()),
        }));
        let body: Value = serde_json::from_slice(&write_error(&error)).unwrap();
        assert_eq!(body["error"]["code"], "invalid_request");
        assert_eq!(body["error"]["upstream_code"], "context_length_exceeded");
        assert_eq!(body["error"]["param"], "messages");
    }
}
