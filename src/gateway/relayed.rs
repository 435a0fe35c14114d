//! A question that is passed on as it is: what it needs besides its bytes, and how its answer
//! begins.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use super::ask::{Answer, Answered, says_error};
use super::batches::Metering;
use super::call::Call;
use super::snapshot::Target;
use super::upload::{Manifest, Upload};
use crate::canon::{Relay, Surface};
use crate::dialect::openai::Skim;
use crate::dialect::splice::Model;
use crate::error::{Error, Kind};
use crate::net::client::{Feed, Reply, ReplyBody};
use crate::provider::{Cause, Failure, Form, Operation};

/// JSON up to this size is looked at before any of it is passed on: an error in it can still go to
/// another target.
const LOOKED_AT: usize = 64 * 1024;

/// Tokens of a picture whose provider does not count them: one of `gpt-image-1` in medium quality,
/// 1024 by 1024.
const PICTURE: u64 = 1056;
/// Bytes of a sound that make a token: ten tokens a second, at 128 kbit/s.
const SOUND_BYTES: u64 = 1600;
/// Bytes of text that make one.
const TEXT_BYTES: u64 = 4;

static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a question of this kind has besides its payload.
#[derive(Debug)]
pub(super) struct Relayed {
    relay: Relay,
    content_type: Option<HeaderValue>,
    /// The model stands in the body as plain text and not as a JSON string.
    plain: bool,
    /// The object that is asked for.
    id: String,
    /// What of the body is still arriving.
    pub(super) rest: Option<Upload>,
    /// Of a file: what its lines want.
    pub(super) manifest: Option<Manifest>,
}

/// Pictures as they are told.
#[derive(Deserialize)]
struct Pictures {
    data: Vec<IgnoredAny>,
}

/// What was heard.
#[derive(Deserialize)]
struct Heard {
    text: String,
}

/// An answer that has begun.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) content_type: HeaderValue,
    pub(super) disposition: Option<HeaderValue>,
    /// What is there already.
    pub(super) first: Bytes,
    pub(super) body: ReplyBody,
    /// Its size, where it is known.
    pub(super) length: Option<u64>,
    /// Where these are the answers of a batch.
    pub(super) metering: Option<Box<Metering>>,
}

// === impl Relayed ===

impl Relayed {
    pub(super) fn json(relay: Relay) -> Self {
        let content_type = Some(JSON.clone());
        Self { relay, content_type, plain: false, id: String::new(), rest: None, manifest: None }
    }

    /// Whether its body is JSON and not a form.
    pub(super) fn is_json(&self) -> bool {
        !self.plain
    }

    pub(super) fn form(
        relay: Relay,
        content_type: Option<HeaderValue>,
        rest: Option<Upload>,
    ) -> Self {
        Self { relay, content_type, plain: true, id: String::new(), rest, manifest: None }
    }

    /// What is in its file is known there, once it has passed.
    pub(super) fn known_by(self, manifest: Manifest) -> Self {
        Self { manifest: Some(manifest), ..self }
    }

    /// About one object, without a body.
    pub(super) fn object(relay: Relay, id: String) -> Self {
        Self { relay, content_type: None, plain: true, id, rest: None, manifest: None }
    }

    /// Tokens of the question, where its bytes do not tell them: `held` of them are here.
    pub(super) fn input_estimate(&self, held: usize) -> Option<u64> {
        let rest = self.rest.as_ref().and_then(Feed::length).unwrap_or(0);
        let bytes = (held as u64).saturating_add(rest);
        match self.relay.surface() {
            _ if !self.plain => None,
            Surface::Images => Some(PICTURE),
            Surface::Transcriptions => Some(bytes.div_ceil(SOUND_BYTES)),
            _ => None,
        }
    }

    /// Which of a provider's credentials may be tried, and the first of them. What one account has
    /// another does not know, so files and batches are always the first one's.
    pub(super) fn credentials(&self) -> Option<std::ops::Range<usize>> {
        (!self.relay.has_model()).then_some(0..1)
    }

    /// What a target is asked to do; the error says that it cannot.
    pub(super) fn operation(&self, target: &Target) -> Result<Operation, Error> {
        let (provider, relay) = (&target.provider, self.relay);
        if provider.relays(relay) {
            return Ok(Operation::Relay(relay));
        }
        let (name, path) = (&provider.name, relay.path());
        let message = format!("`{name}` has no `{path}`.");
        Err(Error::new(Kind::Unsupported, message))
    }

    /// What becomes of the model in the body.
    pub(super) fn model_edit(&self, target: &Target) -> Model {
        let quoted = &target.quoted;
        let plain = || Bytes::copy_from_slice(target.model.as_bytes());
        Model::Value(if self.plain { plain() } else { quoted.clone() })
    }
}

/// How a question is sent.
pub(super) fn form(relayed: Option<&Relayed>) -> Form<'_> {
    match relayed {
        None => Form { content_type: Some(&JSON), id: "", rest: None },
        Some(relayed) => Form {
            content_type: relayed.content_type.as_ref(),
            id: &relayed.id,
            rest: relayed.rest.as_ref().map(|rest| rest as &dyn Feed),
        },
    }
}

/// Takes in the beginning of an answer, or all of one that is small.
pub(super) async fn answer(
    surface: Surface,
    reply: Reply,
    due: Instant,
) -> Result<Answered, Box<Failure>> {
    let Reply { status, headers, mut body } = reply;
    let content_type = headers.get(CONTENT_TYPE).unwrap_or(&JSON).clone();
    let is_json = is_json(&content_type);
    let mut first = BytesMut::new();
    let mut whole = false;
    while !whole && (first.is_empty() || (is_json && first.len() < LOOKED_AT)) {
        let more = timeout_at(due, poll_fn(|context| body.poll_data(context, &mut first))).await;
        let more = more.map_err(|_| Failure::of(Cause::FirstTokenTimeout, status))?;
        whole = !more.map_err(|_| Failure::truncated(status))?;
    }
    let first = first.freeze();
    if is_json && says_error(&first) {
        return Err(Failure::in_band(status, &first).into());
    }
    if is_json && whole {
        let mut skim = Skim::default();
        skim.feed(&first);
        let usage = is_metered(surface).then(|| (skim.usage(), told(surface, &skim, &first, 0)));
        let answer = Answer::Whole { content_type, body: first };
        return Ok(Answered { usage, ..Answered::new(answer) });
    }
    let disposition = headers.get(CONTENT_DISPOSITION).cloned();
    let length = length(&headers);
    let incoming = Incoming { content_type, disposition, first, body, length, metering: None };
    Ok(Answered::new(Answer::Bytes(Box::new(incoming))))
}

/// Notes what was used, by estimate where nobody counted: so many bytes have passed, and this is
/// left of them where they are JSON.
pub(super) fn meter(call: &mut Call, skim: Option<&Skim>, passed: u64) {
    let surface = call.surface();
    if is_metered(surface) {
        let nothing = Skim::default();
        let output = told(surface, skim.unwrap_or(&nothing), b"", passed);
        call.usage(skim.and_then(Skim::usage), output);
    }
}

/// What a batch says of its usage it says again each time that it is looked at.
fn is_metered(surface: Surface) -> bool {
    !matches!(surface, Surface::Files | Surface::Batches)
}

/// Tokens of an answer of which nobody says them.
fn told(surface: Surface, skim: &Skim, whole: &[u8], passed: u64) -> u64 {
    match surface {
        Surface::Images => pictures(skim.read::<Pictures>().map_or(0, |it| it.data.len() as u64)),
        Surface::Transcriptions => {
            let heard = serde_json::from_slice::<Heard>(whole);
            heard.map_or(passed, |heard| heard.text.len() as u64).div_ceil(TEXT_BYTES)
        }
        _ => 0,
    }
}

/// Tokens of so many pictures.
pub(super) fn pictures(count: u64) -> u64 {
    count.saturating_mul(PICTURE)
}

pub(super) fn is_json(content_type: &HeaderValue) -> bool {
    let text = content_type.to_str().unwrap_or_default();
    text.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The size of a body that is not unpacked on its way.
fn length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(CONTENT_LENGTH).filter(|_| !headers.contains_key(CONTENT_ENCODING));
    length?.to_str().ok()?.parse().ok()
}
