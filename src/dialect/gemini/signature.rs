//! Thought signatures: Gemini's own as they are, other providers' state sealed in their place.
//!
//! A client's library reads the field as base64, and may write it back in base64's other alphabet.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use serde_json::Value;

use crate::canon::{Content, Dialect, Opaque, Opening};
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

/// The seal of no state.
const NOTHING: &str = "sp1.";
/// What the id of a call stands behind.
const CALL: char = '#';

/// The state in a `thoughtSignature`.
pub(super) fn read(text: &str) -> Option<Opaque> {
    match unseal(text) {
        Some((opaque, _)) => opaque,
        // Clients put it there too, where they were given none.
        None if text == DUMMY => None,
        None => Some(Opaque { dialect: Dialect::Gemini, data: Value::from(text) }),
    }
}

/// How a thought with this signature begins.
pub(super) fn thought(text: Option<&str>) -> Opening {
    let kept = text.and_then(unseal).map(|(_, kept)| kept).unwrap_or_default();
    Opening::Reasoning { summary: kept.contains('s'), redacted: kept.contains('r') }
}

/// The id that a call with this signature was given: some clients keep signatures, but no ids.
pub(super) fn call_id(text: &str) -> Option<String> {
    let (_, kept) = unseal(text)?;
    kept.strip_prefix(CALL).map(str::to_owned)
}

/// Another provider's state, and what else was kept with it.
fn unseal(text: &str) -> Option<(Option<Opaque>, String)> {
    if !text.starts_with(SEALED) {
        return None;
    }
    let standard = text.replace('-', "+").replace('_', "/");
    let sealed = String::from_utf8(LENIENT.decode(standard).ok()?).ok()?;
    let (seal, kept) = sealed.split_once(';')?;
    let state = if seal == NOTHING { None } else { Some(opaque::open(seal)?) };
    Some((state, kept.to_owned()))
}

/// The `thoughtSignature` that carries another provider's state through a client, or, where there
/// is none, the id by which that of the thoughts before is found.
pub(super) fn seal(state: Option<&Opaque>, content: &Content) -> String {
    let mut sealed = state.map_or_else(|| NOTHING.to_owned(), opaque::seal);
    sealed.push(';');
    match content {
        // What Gemini's thoughts have no field for.
        Content::Reasoning(thought) => {
            sealed.extend(thought.summary.then_some('s'));
            sealed.extend(thought.redacted.then_some('r'));
        }
        Content::ToolCall(call) => {
            sealed.push(CALL);
            sealed.push_str(&call.id);
        }
        _ => {}
    }
    STANDARD.encode(sealed)
}
