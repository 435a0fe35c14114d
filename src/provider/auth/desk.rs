//! The desk where credentials are issued: one HTTP exchange, by the way out that the provider's
//! own calls take.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::Value;

use super::{AuthFault, Setup};
use crate::dialect::splice::Payload;
use crate::net::client::{Origin, Outgoing, Place, Template};

/// From opening a connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// These desks are near or not there at all.
const CONNECT: Duration = Duration::from_secs(3);
const LONGEST_ANSWER: usize = 256 * 1024;

/// What people call a desk, at the start of a sentence, and what to do when it refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    pub(super) name: &'static str,
    pub(super) remedy: &'static str,
}

/// One address that issues credentials.
#[derive(Debug)]
pub(super) struct Desk {
    sign: Sign,
    origin: Arc<Origin>,
    /// The path and query of its address.
    pub(super) path: String,
}

/// What is said at a desk.
#[derive(Default)]
pub(super) struct Question<'a> {
    pub(super) method: &'a str,
    /// Where it differs from the desk's own.
    pub(super) path: Option<&'a str>,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// A successful answer.
pub(super) struct Answer {
    pub(super) body: Bytes,
}

// === impl Desk ===

impl Desk {
    /// The desk at `url`, reached as the provider is: with its proxy and authorities.
    pub(super) fn new(sign: Sign, url: &str, setup: Setup<'_>) -> Result<Self, String> {
        let proxy = setup.section.proxy.clone();
        Self::open(sign, url, setup, proxy)
    }

    /// A desk of the machine itself, which no proxy knows.
    pub(super) fn local(sign: Sign, url: &str, setup: Setup<'_>) -> Result<Self, String> {
        Self::open(sign, url, setup, None)
    }

    fn open(
        sign: Sign,
        url: &str,
        setup: Setup<'_>,
        proxy: Option<String>,
    ) -> Result<Self, String> {
        let name = sign.name;
        let wrong = || format!("{name}: its address is not an http or https URL");
        let mut parts = url.parse::<Uri>().map_err(|_| wrong())?.into_parts();
        let path = parts.path_and_query.take().map_or_else(String::new, |path| path.to_string());
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let address = Uri::from_parts(parts).map_err(|_| wrong())?;
        if !matches!(address.scheme_str(), Some("http" | "https")) {
            return Err(wrong());
        }
        let place = Place { address, proxy, ca: setup.section.ca.clone() };
        let origin = setup.client.origin(&place).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { sign, origin, path: path.trim_end_matches('/').to_owned() })
    }

    /// The `Host` of its requests.
    pub(super) fn host(&self) -> &str {
        self.origin.authority()
    }

    pub(super) async fn ask(&self, question: Question<'_>) -> Result<Answer, AuthFault> {
        let path = question.path.unwrap_or(&self.path);
        let path = if path.is_empty() { "/" } else { path };
        let headers = Template::new(question.headers.clone());
        let body = Payload::from(Bytes::from(question.body.clone()));
        let outgoing = Outgoing {
            method: question.method,
            path,
            headers: &headers,
            extra: &[],
            content_type: None,
            body: &body,
            rest: None,
            left: None,
        };
        let exchange = async {
            let reply = self.origin.send(outgoing, CONNECT).await;
            let mut reply = reply.map_err(|fault| self.fault(&fault.to_string()))?;
            let mut body = BytesMut::new();
            let mut more = true;
            while more && body.len() <= LONGEST_ANSWER {
                more = poll_fn(|context| reply.body.poll_data(context, &mut body))
                    .await
                    .map_err(|error| self.fault(&error.to_string()))?;
            }
            if more { Err(self.fault("its answer is too long")) } else { Ok((reply.status, body)) }
        };
        let (status, body) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(self.fault("it did not answer within 10 seconds")))?;
        if (200..300).contains(&status) {
            return Ok(Answer { body: body.freeze() });
        }
        let code = code(&body).filter(|code| !question.says(code));
        let code = code.map_or_else(String::new, |code| format!(" {code}"));
        Err(self.fault(&format!("it refused with HTTP {status}{code}")))
    }

    /// Posts a form.
    pub(super) async fn post(&self, body: String) -> Result<Answer, AuthFault> {
        let headers = HeaderMap::from_iter([form_type()]);
        self.ask(Question { method: "POST", headers, body, ..Question::default() }).await
    }

    /// A fault of this desk.
    pub(super) fn fault(&self, what: &str) -> AuthFault {
        let (Sign { name, remedy }, host) = (self.sign, self.host());
        AuthFault(format!("{name} at {host} gave no credential: {what}; {remedy}"))
    }
}

pub(super) fn form_type() -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_static("application/x-www-form-urlencoded");
    (http::header::CONTENT_TYPE, value)
}

// === impl Question ===

impl Question<'_> {
    /// Whether `word` was said, and so may be a secret that comes back.
    fn says(&self, word: &str) -> bool {
        let mut values = self.headers.values().filter_map(|value| value.to_str().ok());
        self.body.contains(word) || values.any(|value| value.contains(word))
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The text between the first `<name>` and its end, in the XML that STS speaks.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        element(&self.body, name)
    }
}

fn element(body: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim().to_owned())
}

/// The machine-readable reason of a refusal. Sentences are left out: they may repeat what was sent.
fn code(body: &[u8]) -> Option<String> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let code = match &json {
        Some(json) => [&json["error_codes"][0], &json["error"], &json["error"]["status"]]
            .into_iter()
            .chain([&json["Code"], &json["code"], &json["__type"]])
            .find_map(|code| match code {
                Value::String(code) => Some(code.clone()),
                // Entra's numbers, as people search for them.
                Value::Number(number) => Some(format!("AADSTS{number}")),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
            }),
        None => element(body, "Code"),
    }?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (code.len() <= 64 && code.bytes().all(plain)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_code_and_never_by_its_sentence() {
        let google = br#"{"error":"invalid_grant","error_description":"secret canary"}"#;
        assert_eq!(code(google).as_deref(), Some("invalid_grant"));
        let entra = br#"{"error":"invalid_client","error_codes":[7000215]}"#;
        assert_eq!(code(entra).as_deref(), Some("AADSTS7000215"));
        let sts = b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
        assert_eq!(code(sts).as_deref(), Some("AccessDenied"));
        assert_eq!(code(br#"{"error":"a sentence with words"}"#), None);
        let question = Question { body: "secret=canary".to_owned(), ..Question::default() };
        assert!(question.says("canary") && !question.says("other"));
    }
}
