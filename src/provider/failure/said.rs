//! What a refusal says, in whichever shape, and the class that its words have.

use http::HeaderMap;
use serde_json::Value;

use super::Class;
use super::general::GENERAL;
use super::signs::Sign;

/// Where a body keeps its codes, outermost first.
const CODES: [&str; 9] = [
    "code",
    "type",
    "status",
    "reason",
    "__type",
    "error_code",
    "error_type",
    "status_code",
    "http_code",
];

/// Where it keeps its words.
const WORDS: [&str; 13] = [
    "message",
    "Message",
    "detail",
    "details",
    "error",
    "title",
    "msg",
    "raw",
    "error_message",
    "status_msg",
    "description",
    "quotaId",
    "quotaMetric",
];

/// Objects and lists that may hold more of both.
const WITHIN: [&str; 10] = [
    "error",
    "detail",
    "details",
    "innererror",
    "metadata",
    "violations",
    "message",
    "errors",
    "base_resp",
    "choices",
];

/// Deeper than this nobody hides an error.
const DEEPEST: usize = 6;

/// The longest text that is searched.
const LONGEST: usize = 16 * 1024;

/// What speaks of our credentials or our account, whatever it is said with.
const CONFIDENTIAL: &[&str] = &[
    "api key",
    "api_key",
    "apikey",
    "api-key",
    "access token",
    "credential",
    "subscription key",
    "security token",
    "service account",
    "billing",
    "credit balance",
    "unauthorized",
    "authentication",
];

/// What a refusal says.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The answer's own, unless that is a success and its body has another.
    pub(super) status: u16,
    codes: Vec<String>,
    /// In lower case.
    pub(super) words: String,
    pub(super) body: Value,
}

/// Whether a text is not for the client.
pub(super) fn confides(text: &str) -> bool {
    let text = text.to_lowercase();
    CONFIDENTIAL.iter().any(|phrase| text.contains(phrase))
}

// === impl Said ===

impl Said {
    pub(super) fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut said = Self { status, ..Self::default() };
        let name = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
        if let Some(name) = name.and_then(|name| name.split(':').next()) {
            said.codes.push(name.to_owned());
        }
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => {
                said.gather(&value, 0);
                said.body = value;
            }
            Err(_) => said.say(&String::from_utf8_lossy(&body[..body.len().min(LONGEST)])),
        }
        if status < 300 {
            let inner = said.codes.iter().find_map(|code| code.parse::<u16>().ok());
            said.status = inner.filter(|code| (400..600).contains(code)).unwrap_or(status);
        }
        said
    }

    fn gather(&mut self, value: &Value, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        for one in value.as_array().into_iter().flatten() {
            self.gather(one, depth + 1);
        }
        let Some(object) = value.as_object() else { return };
        self.codes.extend(CODES.iter().filter_map(|name| code(object.get(*name)?)));
        for text in WORDS.iter().filter_map(|name| object.get(*name)?.as_str()) {
            self.hear(text, depth);
        }
        for within in WITHIN.iter().filter_map(|name| object.get(*name)) {
            self.gather(within, depth + 1);
        }
    }

    /// Some pass on another's refusal as a text.
    fn hear(&mut self, text: &str, depth: usize) {
        let quoted = text.trim_start().starts_with(['{', '[']) && depth < DEEPEST;
        match serde_json::from_str::<Value>(text) {
            Ok(value) if quoted => self.gather(&value, depth + 1),
            _ => self.say(text),
        }
    }

    fn say(&mut self, text: &str) {
        if self.words.len() < LONGEST {
            self.words.push_str(&text.to_lowercase());
            self.words.push('\n');
        }
    }

    /// What is wrong, where the words say more than the status. A provider's own words come first.
    pub(super) fn class(&self, own: &[Sign]) -> Option<Class> {
        own.iter().chain(GENERAL).find(|sign| self.shows(sign)).map(|sign| sign.class)
    }

    fn shows(&self, sign: &Sign) -> bool {
        let status = if self.status >= 500 { 500 } else { self.status };
        let may = self.status < 300 || sign.statuses.is_empty() || sign.statuses.contains(&status);
        may && (self.codes.iter().any(|code| sign.codes.contains(&code.as_str()))
            || sign.texts.iter().any(|text| self.words.contains(text)))
    }
}

fn code(value: &Value) -> Option<String> {
    match value {
        Value::String(code) => Some(code.clone()),
        Value::Number(code) => Some(code.to_string()),
        _ => None,
    }
}
