//! How long a question is and how long its answer may be, in tokens: what a call may cost at most.

use std::cell::RefCell;
use std::sync::Arc;

use moka::sync::Cache;
use smallvec::SmallVec;

use super::arrival::Question;
use super::call::Call;
use super::relayed;
use super::snapshot::Target;
use crate::access::account::Demand;
use crate::canon::{ChatRequest, Dialect, Surface, Usage, UsageSource};
use crate::dialect::estimate;
use crate::dialect::marks::{Mark, has};
use crate::dialect::passage::Sight;
use crate::dialect::plain::PlainChat;
use crate::dialect::tokenizer::Encoding;
use crate::route::histogram::Histogram;
use crate::route::plan::Stage;

/// A stream is not expected to be longer at first, for it can hold more while it grows; nor is an
/// answer of a model of which nobody knows how much it says at most.
const USUAL_MOST: u64 = 4096;
/// A question that is shorter is soon measured, without being read as one.
const LONG: usize = 8 * 1024;
/// Bytes that make a token, where nobody looks at them: fewer than in nearly all texts.
const BYTES: u64 = 2;
/// How strings begin in what is not all text. A word too many costs a look at the question.
const MEDIA: [Mark; 4] = [has(&["\"dat"]), has(&["\"ima"]), has(&["\"fil"]), has(&["\"doc"])];
/// What is tried for an answer for which there is no room at its longest.
pub(super) const SHORTER: [u64; 3] = [4096, 1024, 256];
/// The share of answers that are as long as expected, or shorter.
const EXPECTED: f64 = 0.95;
/// So many keys, each with a model, are remembered.
const MOST_KNOWN: u64 = 10_000;

/// How long the answers of a model are for a key, where its calls do not say it.
#[derive(Debug)]
pub(super) struct Lengths(Cache<(Arc<str>, u64), Arc<Histogram<4>>>);

/// One question, measured.
#[derive(Debug)]
pub(super) struct Measure<'a> {
    words: Words<'a>,
    /// By its bytes.
    input: u64,
    /// Counted once for all targets that count alike.
    counted: RefCell<SmallVec<[(Way, u64); 2]>>,
    /// As the question says, or as it was made to say.
    output: Option<u64>,
    answers: u64,
    stream: bool,
}

/// What is counted.
#[derive(Debug)]
enum Words<'a> {
    /// No chat, or one that cannot be read: its bytes must do.
    Bytes,
    Plain(PlainChat<'a>),
    Chat(&'a ChatRequest),
}

/// What a target counts by.
type Way = (Option<Encoding>, Dialect);

// === impl Lengths ===

impl Default for Lengths {
    fn default() -> Self {
        Self(Cache::new(MOST_KNOWN))
    }
}

impl Lengths {
    pub(super) fn note(&self, key: &Arc<str>, target: &Target, output: u64) {
        let known = || Arc::new(Histogram::default());
        self.0.get_with((Arc::clone(key), target.identity), known).count(output);
    }

    fn expected(&self, key: &Arc<str>, target: &Target) -> Option<u64> {
        self.0.get(&(Arc::clone(key), target.identity))?.quantile(EXPECTED)
    }
}

/// Whether questions of this kind use tokens themselves. What a batch has used is counted when it
/// is known.
pub(super) fn costs(surface: Surface) -> bool {
    !surface.counts_tokens() && !matches!(surface, Surface::Files | Surface::Batches)
}

pub(super) async fn measure<'a>(call: &Call, question: &'a Question) -> Measure<'a> {
    let input = call.input_estimate();
    let surface = call.surface();
    let answers = surface.is_chat() || surface == Surface::Completions;
    if let Some(plain) = plain(call, question) {
        return plain;
    }
    if answers {
        Box::pin(question.understand(call)).await;
    }
    let chat = question.chat().ok().filter(|_| answers).map(|asked| &asked.request);
    let sampling = chat.map(|chat| &chat.sampling);
    let drawn = if surface == Surface::Images { question.envelope.choices.max(1) } else { 0 };
    let made = relayed::pictures(drawn.into());
    Measure {
        words: chat.map_or(Words::Bytes, Words::Chat),
        input,
        counted: RefCell::default(),
        output: if answers {
            sampling.and_then(|sampling| sampling.max_tokens)
        } else {
            Some(made)
        },
        answers: u64::from(sampling.and_then(|sampling| sampling.choices).unwrap_or(1).max(1)),
        stream: question.envelope.stream,
    }
}

/// A chat that is nothing but texts need not be read for this, if it is in one piece.
fn plain<'a>(call: &Call, question: &'a Question) -> Option<Measure<'a>> {
    let envelope = &question.envelope;
    let [body] = question.payload.parts() else { return None };
    if call.surface() != Surface::Chat || body.len() >= LONG {
        return None;
    }
    let output = envelope.most.completion.or(envelope.most.tokens);
    let allowed = call.wishes().and_then(|wishes| wishes.max_output_tokens);
    Some(Measure {
        words: Words::Plain(PlainChat::read(body)?),
        input: call.input_estimate(),
        counted: RefCell::default(),
        output: output.into_iter().chain(allowed).min(),
        answers: u64::from(envelope.choices.max(1)),
        stream: envelope.stream,
    })
}

/// Tokens that an answer may have at most, as far as its question was read.
pub(super) fn most(call: &Call, question: &Question) -> Option<u64> {
    let asked = match question.chat() {
        Ok(asked) => asked.request.sampling.max_tokens,
        Err(_) => written(call.surface(), question),
    };
    let allowed = call.wishes().and_then(|wishes| wishes.max_output_tokens);
    asked.into_iter().chain(allowed).min()
}

/// What a question says of its answer's length, by its envelope.
fn written(surface: Surface, question: &Question) -> Option<u64> {
    let most = &question.envelope.most;
    match surface {
        Surface::Chat => most.completion.or(most.tokens),
        Surface::Completions | Surface::Messages => most.tokens,
        Surface::Responses => most.output,
        _ => None,
    }
}

/// A long question by its bytes alone, where all of it is text, and what it says of its answer. Of
/// a short one the same is held always, so that an operator can tell how many calls a budget takes.
pub(super) fn rough(call: &Call, question: &Question) -> Option<Measure<'static>> {
    let envelope = &question.envelope;
    let surface = call.surface();
    let known = [Surface::Chat, Surface::Completions, Surface::Messages, Surface::Responses];
    if !known.contains(&surface) {
        return None;
    }
    let output = written(surface, question);
    let length = question.payload.len();
    if length < LONG || MEDIA.iter().any(|mark| envelope.beginnings.may_bear(mark)) {
        return None;
    }
    let allowed = call.wishes().and_then(|wishes| wishes.max_output_tokens);
    Some(Measure {
        words: Words::Bytes,
        input: (length as u64).div_ceil(BYTES),
        counted: RefCell::default(),
        output: output.into_iter().chain(allowed).min(),
        answers: u64::from(envelope.choices.max(1)),
        stream: envelope.stream,
    })
}

// === impl Measure ===

impl Measure<'_> {
    /// What the call may need at most, whichever of its targets answers, and how much of that is
    /// for the answer.
    pub(super) fn dearest(&self, call: &Call) -> (Demand, u64) {
        let mut most = Demand { priced: true, ..Demand::default() };
        let mut room = 0;
        let saves = call.till.saves();
        let paid = call.eligible().filter(|(stage, _)| !saves || *stage == Stage::Budget);
        for (_, target) in paid {
            let output = self.output(call, target);
            let demand = self.demand_of(call, target, output);
            most.tokens = most.tokens.max(demand.tokens);
            most.nanos = most.nanos.max(demand.nanos);
            most.priced &= demand.priced;
            room = room.max(output);
        }
        (most, room)
    }

    /// What it may come to with this target.
    pub(super) fn demand(&self, call: &Call, target: &Target) -> Demand {
        self.demand_of(call, target, self.output(call, target))
    }

    fn demand_of(&self, call: &Call, target: &Target, output: u64) -> Demand {
        let input = self.input(target);
        let usage = Usage { input, output, ..Usage::default() };
        let price = target.info.price.as_ref();
        Demand {
            tokens: call.house.config.token_weights.count(&usage),
            nanos: price.map_or(0, |price| price.cost(&usage).nanos()),
            priced: price.is_some(),
        }
    }

    /// Whether the answer may be as long as its model can make it.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.words, Words::Bytes) && self.output.is_none()
    }

    /// From here on as if the question asked for so many tokens at most.
    pub(super) fn cap(&mut self, output: u64) {
        self.output = Some(output);
    }

    /// From here on as the question says again.
    pub(super) fn uncap(&mut self) {
        self.output = None;
    }

    /// The most that its targets count for the question.
    pub(super) fn longest_input(&self) -> u64 {
        let counted = self.counted.borrow();
        counted.iter().map(|(_, tokens)| *tokens).max().unwrap_or(self.input)
    }

    fn input(&self, target: &Target) -> u64 {
        if let Words::Bytes = self.words {
            return self.input;
        }
        let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
        let way = (target.encoding, home);
        let mut counted = self.counted.borrow_mut();
        if let Some((_, tokens)) = counted.iter().find(|(known, _)| *known == way) {
            return *tokens;
        }
        let tokens = match &self.words {
            Words::Bytes => self.input,
            Words::Plain(plain) => plain.tokens(target.tokenizer()),
            Words::Chat(chat) => estimate::tokens(chat, home, target.tokenizer()),
        };
        counted.push((way, tokens));
        tokens
    }

    /// As the question says; else as such answers are long; else as long as the model can.
    fn output(&self, call: &Call, target: &Target) -> u64 {
        let learned = || call.gateway.lengths.expected(call.key()?, target);
        let unbound = || {
            let most = learned().or(target.info.max_output).unwrap_or(USUAL_MOST);
            if self.stream { most.min(USUAL_MOST) } else { most }
        };
        self.output.unwrap_or_else(unbound).saturating_mul(self.answers)
    }
}

// === impl Call ===

impl Call {
    /// Notes what it has used, as its provider says or by estimate.
    pub(super) fn usage(&mut self, usage: Option<Usage>, output_estimate: u64) {
        let estimate =
            Usage { input: self.input_estimate(), output: output_estimate, ..Usage::default() };
        (self.record.usage, self.record.usage_source) = usage
            .map_or((estimate, UsageSource::Estimated), |usage| (usage, UsageSource::Provider));
    }

    /// Notes what a stream has used so far.
    pub(super) fn streamed(&mut self, sight: &Sight) {
        if self.chain.is_none() {
            // A run has said it, and its own calls have used what it took.
            self.record.finish = sight.finish;
            return;
        }
        if self.recalled.as_ref().is_some_and(|recalled| !recalled.charged) {
            return self.saves(sight.usage, None);
        }
        let (usage, is_told) = sight.used(self.input_estimate());
        let source = if is_told { UsageSource::Provider } else { UsageSource::Estimated };
        (self.record.usage, self.record.usage_source) = (usage, source);
        self.record.finish = sight.finish;
    }

    /// The targets that may answer it, and why each would be asked.
    fn eligible(&self) -> impl Iterator<Item = (Stage, &Target)> {
        let targets = self.chain.iter().flat_map(|chain| {
            let places = chain.targets.iter().enumerate();
            places.map(|(place, target)| (place, chain.stage(place), target))
        });
        let barred = &self.bearings.barred;
        targets
            .filter(|(place, _, target)| !barred.contains(place) && self.may_use(target))
            .map(|(_, stage, target)| (stage, target))
    }

    /// Whether somebody cheaper may answer it when there is no room for the others.
    pub(super) fn may_save(&self) -> bool {
        self.eligible().any(|(stage, target)| stage == Stage::Budget && target.in_region)
    }

    /// What was written so far, as far as that is known.
    pub(super) fn output_tokens(&self) -> u64 {
        self.record.usage.output
    }
}
