//! Thought signatures: Gemini's own as they are, other providers' state sealed in their place.
//!
//! A client's library reads the field as base64, and may write it back in base64's other alphabet.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use serde_json::Value;

use crate::canon::{Dialect, Opaque, Opening, Reasoning};
use crate::dialect::opaque;

/// What every sealed state begins with once it is in base64.
const SEALED: &str = "c3AxL";

static LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Takes the place of a signature where a call came from elsewhere: newer models refuse a history
/// whose calls have none, and know this one (the documentation of thought signatures names it).
pub(super) const DUMMY: &str = "skip_thought_signature_validator";

/// The state in a `thoughtSignature`.
pub(super) fn read(text: &str) -> Opaque {
    unseal(text).map_or_else(
        || Opaque { dialect: Dialect::Gemini, data: Value::from(text) },
        |(opaque, _)| opaque,
    )
}

/// How a thought with this signature begins.
pub(super) fn thought(text: Option<&str>) -> Opening {
    let kept = text.and_then(unseal).map(|(_, kept)| kept).unwrap_or_default();
    Opening::Reasoning { summary: kept.contains('s'), redacted: kept.contains('r') }
}

/// Another provider's state, and what else was kept with it.
fn unseal(text: &str) -> Option<(Opaque, String)> {
    if !text.starts_with(SEALED) {
        return None;
    }
    let standard = text.replace('-', "+").replace('_', "/");
    let sealed = String::from_utf8(LENIENT.decode(standard).ok()?).ok()?;
    let (seal, kept) = sealed.split_once(';')?;
    Some((opaque::open(seal)?, kept.to_owned()))
}

/// The `thoughtSignature` that carries another provider's state through a client.
pub(super) fn seal(state: &Opaque, thought: Option<&Reasoning>) -> String {
    let mut sealed = opaque::seal(state);
    sealed.push(';');
    // What Gemini's thoughts have no field for.
    if thought.is_some_and(|thought| thought.summary) {
        sealed.push('s');
    }
    if thought.is_some_and(|thought| thought.redacted) {
        sealed.push('r');
    }
    STANDARD.encode(sealed)
}
