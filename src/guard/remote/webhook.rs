//! Somebody's own service: the request and response of `LiteLLM`'s Generic Guardrail API, signed.
//!
//! The body is signed with HMAC-SHA256 under the guard's `secret`. `x-switchpoint-timestamp` holds
//! the seconds since 1970, `x-switchpoint-signature` is `sha256=` and the hex digest of timestamp,
//! a dot and the body. A receiver compares in constant time, and refuses what is minutes old.

use std::fmt::Write as _;

use bytes::Bytes;
use ring::hmac;
use serde_json::{Value, json};

use super::{Failure, Finding, Opinion, Subject};
use crate::config::{Secret, Stage};

const TIMESTAMP: &str = "x-switchpoint-timestamp";
const SIGNATURE: &str = "x-switchpoint-signature";

pub(super) fn body(guard: &str, subject: &Subject<'_>) -> Bytes {
    let direction = match subject.stage {
        Stage::Input | Stage::ToolResults | Stage::Memory => "request",
        Stage::Output | Stage::ToolArgs => "response",
    };
    let body = json!({
        "texts": subject.texts,
        "input_type": direction,
        "model": subject.model,
        "litellm_call_id": subject.call,
        "request_data": {
            "user_api_key_alias": subject.key,
            "call_id": subject.call,
        },
        "additional_provider_specific_params": {
            "guard": guard,
            "stage": subject.stage.name(),
        },
    });
    body.to_string().into()
}

pub(super) fn headers(
    secret: Option<&Secret>,
    now: u64,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.push((TIMESTAMP, now.to_string()));
    headers.extend(secret.map(|secret| (SIGNATURE, signature(secret, now, body))));
    headers
}

fn signature(secret: &Secret, now: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{now}.").as_bytes());
    context.update(body);
    context.sign().as_ref().iter().fold("sha256=".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// `NONE` lets pass, `BLOCKED` objects, `GUARDRAIL_INTERVENED` sends the texts back masked.
pub(super) fn read(body: &Value, asked: usize) -> Result<Opinion, Failure> {
    let wrong = |what: &str| Failure::Answer(what.to_owned());
    let reason = body["blocked_reason"].as_str().map(|text| text.chars().take(200).collect());
    let finding = |label: &str| Finding { label: label.to_owned(), score: None, reason };
    match body["action"].as_str() {
        Some("NONE") => Ok(Opinion::default()),
        Some("BLOCKED") => Ok(Opinion { findings: vec![finding("blocked")], texts: None }),
        Some("GUARDRAIL_INTERVENED") => {
            let texts = body["texts"].as_array().ok_or_else(|| wrong("it has no `texts`"))?;
            let texts: Vec<String> =
                texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
            if texts.len() != asked {
                return Err(wrong("it has not as many `texts` as were sent"));
            }
            Ok(Opinion { findings: vec![finding("intervened")], texts: Some(texts) })
        }
        _ => Err(wrong("`action` is none of NONE, BLOCKED and GUARDRAIL_INTERVENED")),
    }
}
