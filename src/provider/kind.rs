//! What a row of the catalogue says of a provider.

use super::failure::signs::Sign;
use crate::canon::{Dialect, Relay};
use crate::dialect::{Traits, embed};

/// One provider, as data. Adding one that speaks a known dialect is a row and its fixtures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// What `kind = "…"` says in a config.
    pub id: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// As the provider's own SDK takes it; empty where only the operator can know.
    pub base_url: &'static str,
    /// The dialects it speaks, the one with least loss first, each with its path behind the base
    /// URL. In a path `{model}` is the model, and `{method}` what the dialect calls an answer that
    /// is whole or streamed.
    pub speaks: &'static [(Dialect, &'static str)],
    /// What is passed on to it as it is, at the paths of OpenAI's API behind the base URL and this.
    pub relays: (&'static str, &'static [Relay]),
    /// How a key is shown to it.
    pub auth: Auth,
    /// The environment variable its users set by habit; empty if there is none.
    pub key_variable: &'static str,
    /// Where it departs from its dialect, on the way of bytes that pass as they are.
    pub quirks: Quirks,
    /// Where it departs from its dialect when a question is put into its words.
    pub traits: Traits,
    /// Its own APIs for vectors, where they are not OpenAI's; the first that knows the model.
    pub embeds: &'static [Embeds],
    /// Its public API reference.
    pub docs: &'static str,
}

/// How a provider wants its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// The bare key in a header of this name.
    Header(&'static str),
    /// The bare key in a header of this name; without a key, a token of Microsoft Entra.
    Entra(&'static str),
    /// A signature of AWS; a key goes as a bearer.
    Aws,
    /// A token of Google; a key goes in Google's header.
    Google,
    /// No key is needed; one that is configured goes as a bearer.
    None,
}

/// An API for vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embeds {
    /// What the names of its models contain.
    pub models: &'static str,
    pub spelling: embed::Upstream,
    /// Its path behind the base URL; empty where that follows from the model.
    pub path: &'static str,
}

/// What differs between providers of one dialect, each fact by its consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// `stream_options` is accepted; where false it is neither added nor passed on, since the
    /// call would be refused. Usage comes without asking then, or is estimated.
    pub stream_options: bool,
    /// `/completions` exists; where false the call is refused before it is sent.
    pub completions: bool,
    /// `/embeddings` exists; where false the call is refused before it is sent, unless the row
    /// has another API for vectors.
    pub embeddings: bool,
    /// Its own words for what is wrong, where they say more than the status.
    pub signs: &'static [Sign],
}
