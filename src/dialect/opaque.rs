//! Carries one provider's opaque state through another API, in a field made for such state.
//!
//! A signature or an encrypted thought must come back byte for byte to the provider that made it,
//! though the client speaks another dialect. Such a client has a field that it keeps and never
//! reads (`signature`, `encrypted_content`, `thoughtSignature`): there the state travels sealed, in
//! a text that no provider's own state begins with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canon::{Dialect, Opaque};

/// No provider's own state has a dot in fourth place: theirs is base64.
const PREFIX: &str = "sp1.";

/// What is sealed: whose state it is, and the state.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    d: String,
    data: T,
}

/// The state as one line of text that only `open` understands.
pub fn seal(opaque: &Opaque) -> String {
    let envelope = Envelope { d: opaque.dialect.name().to_owned(), data: &opaque.data };
    // A `Value` always serialises.
    let json = serde_json::to_vec(&envelope).unwrap_or_default();
    let mut text = PREFIX.to_owned();
    URL_SAFE_NO_PAD.encode_string(json, &mut text);
    text
}

/// The state that was sealed; `None` for a text that `seal` did not make.
pub fn open(text: &str) -> Option<Opaque> {
    let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let envelope: Envelope<Value> = serde_json::from_slice(&json).ok()?;
    let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.name() == envelope.d)?;
    Some(Opaque { dialect, data: envelope.data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_is_sealed_opens_to_the_same_state_in_every_dialect() {
        for dialect in Dialect::ALL {
            for data in [json!("EqQB+/=="), json!({"id": "rs_1", "x": ["日本", null]}), json!(7)]
            {
                let opaque = Opaque { dialect, data };
                assert_eq!(open(&seal(&opaque)), Some(opaque));
            }
        }
    }

    #[test]
    fn a_state_that_was_not_sealed_here_is_left_alone() {
        for text in ["", "sp1.", "sp1.e30", "sp1.!!", "EqQBCgIYAhIM", "c3AxLg"] {
            assert_eq!(open(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_seal(text in "(sp1\\.)?.{0,40}") {
            let _ = open(&text);
        }
    }
}
