//! A question in its target's words: as it came, or written anew.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::arrival::{BETA, Question, VERSION};
use super::call::Call;
use super::count::count;
use super::embed::Vectors;
use super::snapshot::Target;
use crate::canon::{ChatRequest, Dialect, Feature, Surface};
use crate::config::OnBreak;
use crate::dialect::gemini::{self, shared_tier};
use crate::dialect::marks::Mark;
use crate::dialect::messages::{self, betas};
use crate::dialect::openai::family;
use crate::dialect::splice::{Limit, Payload};
use crate::dialect::{self, Aim, EffortField, Misread, marks, names, search};
use crate::error::{Error, Kind};
use crate::provider::{Operation, Way};

/// A question made ready for one target.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) operation: Operation,
    pub(super) wording: Wording,
    /// Fields that the target cannot take.
    pub(super) dropped: Vec<Cow<'static, str>>,
    /// Headers that the target's API wants, or the client wants it to have.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
pub(super) enum Wording {
    /// As it came, but for what is spliced in when it is sent.
    Verbatim,
    Translated {
        body: Payload,
        into: Dialect,
    },
    /// Texts to be made vectors, in as many requests as that takes.
    Vectors(Vectors),
    /// Tokens to be counted, in these words.
    Counted(Payload),
    /// The answer is made here.
    Local(Bytes),
}

/// Why a question is not sent to a target.
pub(super) enum Unfit {
    /// No target could take it.
    Question(Error),
    /// This one cannot; another may.
    Target(Error),
}

impl Errand {
    pub(super) fn new(operation: Operation, wording: Wording) -> Self {
        Self { operation, wording, dropped: Vec::new(), headers: Vec::new() }
    }

    fn verbatim(question: &Question, surface: Surface, target: &Target) -> Self {
        let stream = question.envelope.stream;
        let operation = match (surface, surface.dialect()) {
            (Surface::Compact, _) => Operation::Compact,
            (_, Some(dialect)) if surface.is_chat() => Operation::Chat { dialect, stream },
            (_, Some(dialect)) => Operation::CountTokens(dialect),
            (Surface::Embeddings, None) => Operation::Embeddings,
            (_, None) => Operation::Completions,
        };
        let mut errand = Self::new(operation, Wording::Verbatim);
        if surface.dialect() != Some(Dialect::Messages) {
            return errand;
        }
        errand.says_version(target, question.version.clone());
        errand.says_betas(question, target);
        errand
    }

    /// What the client wants of Anthropic's API beyond its version, as far as this host has it.
    fn says_betas(&mut self, question: &Question, target: &Target) {
        let Some(header) = &question.betas else { return };
        let (kept, lost) = betas(header, target.provider.kind.traits.betas);
        if let Some(kept) = HeaderValue::from_str(&kept).ok().filter(|kept| !kept.is_empty()) {
            self.headers.push((HeaderName::from_static(BETA), kept));
        }
        self.dropped.extend(lost.into_iter().map(|lost| Cow::from(format!("{BETA}:{lost}"))));
    }

    /// Anthropic's API demands a version: the client's own, or the one that our writers know.
    fn says_version(&mut self, target: &Target, version: Option<HeaderValue>) {
        if !target.provider.kind.traits.model_in_path {
            let version = version.unwrap_or(const { HeaderValue::from_static(messages::VERSION) });
            self.headers.push((HeaderName::from_static(VERSION), version));
        }
    }

    /// How urgent it is, for a host that reads that from a header.
    fn says_tier(&mut self, target: &Target, request: &ChatRequest) {
        let header = target.provider.kind.traits.tier_header;
        let tier = request.service_tier.as_deref().and_then(shared_tier);
        if let (Some(header), Some(tier)) = (header, tier) {
            self.headers.push((HeaderName::from_static(header), HeaderValue::from_static(tier)));
        }
    }

    /// Whether it wants a model to think, in words that are not the client's own.
    pub(super) fn asks_for_thoughts(&self, question: &Question) -> bool {
        let Wording::Translated { into, .. } = self.wording else { return false };
        question.chat().is_ok_and(|asked| {
            asked.request.reasoning.is_some() && asked.request.extras.dialect != Some(into)
        })
    }

    /// The same without a word of how much to think, for a target that has refused it.
    pub(super) fn without_thoughts(
        &self,
        call: &Call,
        question: &Question,
        target: &Target,
    ) -> Option<Self> {
        let Wording::Translated { into, .. } = self.wording else { return None };
        written(call, question, target, into, true).ok()
    }

    /// The answer, where no target is needed for it.
    pub(super) fn local(&self) -> Option<&Bytes> {
        if let Wording::Local(body) = &self.wording { Some(body) } else { None }
    }
}

/// Puts the question into the target's words, where it speaks others than the client.
pub(super) async fn prepare(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Errand, Unfit> {
    let name = &target.provider.name;
    if let Some(keeper) = question.keeper.as_ref().filter(|keeper| *keeper != name) {
        let message = format!("`{name}` does not have the files: `{keeper}` keeps them.");
        return Err(Unfit::Target(Error::new(Kind::Unsupported, message)));
    }
    if let Some(relayed) = &question.relayed {
        let operation = relayed.operation(target).map_err(Unfit::Target)?;
        return Ok(Errand::new(operation, Wording::Verbatim));
    }
    let surface = call.surface();
    let way = target.provider.way(surface, &target.model);
    if surface.counts_tokens() && question.is_rewritten() {
        return Box::pin(count(call, question, target)).await.map_err(Unfit::Question);
    }
    let Some(way) = way else {
        if surface.counts_tokens() {
            let counted = Box::pin(count(call, question, target));
            return counted.await.map_err(Unfit::Question);
        }
        let message = format!("`{name}` cannot answer {} requests.", surface.name());
        return Err(Unfit::Target(Error::new(Kind::Unsupported, message)));
    };
    match (way, surface.dialect()) {
        (Way::Translated(into), _) => {
            Box::pin(question.understand(call)).await;
            translate(call, question, target, searching(question, target, into))
        }
        (Way::Vectors(spelling), _) => {
            let (vectors, dropped) = Vectors::write(call, question, target, spelling)?;
            refuse_if_strict(call, target, &dropped)?;
            let wording = Wording::Vectors(vectors);
            Ok(Errand { dropped, ..Errand::new(Operation::Embeddings, wording) })
        }
        (Way::Verbatim, Some(Dialect::Chat)) if outgrows_chat(call, question, target).await? => {
            translate(call, question, target, Dialect::Responses)
        }
        (Way::Verbatim, Some(dialect)) if must_be_rewritten(call, question, target).await? => {
            translate(call, question, target, dialect)
        }
        (Way::Verbatim, _) => Ok(Errand::verbatim(question, surface, target)),
    }
}

/// The API of the target that is asked. One that is not asked as a rule may be the one that searches
/// the web.
fn searching(question: &Question, target: &Target, into: Dialect) -> Dialect {
    let other = Dialect::Responses;
    let is_other = into == Dialect::Chat && target.provider.speaks(other, &target.model);
    let searches = is_other && target.info.features.has(Feature::WebSearch);
    let wants = || question.chat().is_ok_and(|asked| search::is_wanted(&asked.request));
    if searches && wants() { other } else { into }
}

/// Chat completions refuse what some models are asked; their other API takes it.
async fn outgrows_chat(call: &Call, question: &Question, target: &Target) -> Result<bool, Unfit> {
    let home = target.provider.home(&target.model);
    if home != Some(Dialect::Responses) || !marks::TOOLS.iter().any(|mark| question.bears(mark)) {
        return Ok(false);
    }
    Box::pin(question.understand(call)).await;
    let request = &question.chat().map_err(misread)?.request;
    Ok(family::outgrows_chat(&target.model, request))
}

/// Bytes that pass as they are have not been read; a route may want them to be, and changed.
async fn must_be_rewritten(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<bool, Unfit> {
    let surface = call.surface();
    let Some(dialect) = surface.dialect().filter(|_| surface.is_chat()) else { return Ok(false) };
    if question.is_rewritten() {
        Box::pin(question.understand(call)).await;
        return Ok(true);
    }
    let Some(wishes) = call.wishes() else { return Ok(false) };
    // What another provider gave the client to keep this one may refuse, and want its own instead.
    let bears = |mark: &Mark| question.bears(mark);
    let strange = call.house.is_mixed() && marks::of_strangers(dialect).iter().any(bears);
    let odd = match dialect {
        Dialect::Chat => is_odd(question, target, call.house.is_mixed()),
        Dialect::Responses => {
            let traits = &target.provider.kind.traits;
            !traits.custom_tools && !traits.lenient && marks::BESIDE_FUNCTIONS.iter().any(bears)
        }
        Dialect::Gemini => {
            let told_apart = target.provider.kind.traits.tier_header.is_some();
            let wants = || call.house.is_mixed() && gemini::wants_signatures(&target.model);
            told_apart && marks::TIER.iter().any(bears)
                || marks::UNSIGNED_CALLS.iter().any(bears) && wants()
        }
        _ => false,
    };
    // Whoever carries on an answer must have read it.
    let continued = wishes.on_break == OnBreak::Continue && question.envelope.stream;
    let marked = strange || odd || continued;
    if !marked && !wishes.change_questions() && !question.is_capped() {
        return Ok(false);
    }
    Box::pin(question.understand(call)).await;
    let asked = question.chat().map_err(misread)?;
    let repaired = wishes.tool_pairs.is_some() && asked.repaired;
    let cached = wishes.prompt_cache.is_some() && !asked.has_cache_marks();
    Ok(marked || repaired || cached || asked.capped)
}

/// Whether the target is known not to take a question of chat completions as it is, or to answer it
/// in a way that clients do not know.
fn is_odd(question: &Question, target: &Target, mixed: bool) -> bool {
    let most = &question.envelope.most;
    let both = most.key.is_some() && most.completion_key.is_some();
    target.thinks_unasked
        || both && target.limit_name == Some(Limit::Tokens)
        || marks::of_traits(&target.provider.kind.traits, mixed).any(|mark| question.bears(&mark))
}

pub(super) fn misread(misread: &Misread) -> Unfit {
    Unfit::Question(Error::invalid(misread.0.clone()))
}

pub(super) fn translate(
    call: &Call,
    question: &Question,
    target: &Target,
    into: Dialect,
) -> Result<Errand, Unfit> {
    written(call, question, target, into, false)
}

/// Puts it into these words; `refused` tells that the target has refused what it was told of
/// thinking.
fn written(
    call: &Call,
    question: &Question,
    target: &Target,
    into: Dialect,
    refused: bool,
) -> Result<Errand, Unfit> {
    let request = &question.chat().map_err(misread)?.request;
    let traits = &target.provider.kind.traits;
    let aim = Aim {
        model: &target.model,
        traits,
        cache: call.wishes().and_then(|wishes| wishes.prompt_cache),
    };
    let (request, gave_way) = messages::abroad(request, into).map_err(Unfit::Target)?;
    let searches = target.info.features.has(Feature::WebSearch);
    let (mut request, unsearched) =
        if searches { search::abroad(request, into) } else { (request, Vec::new()) };
    let unasked = leaves_thoughts(&mut request, target, into, refused);
    let request = names::fitted(request, into);
    let mut written = dialect::upstream(into).write_request(&request, &aim).map_err(|cause| {
        let message = format!("`{}` cannot be asked this: {cause}", target.provider.name);
        Unfit::Target(Error::new(Kind::Unsupported, message))
    })?;
    written.dropped.extend(gave_way);
    written.dropped.extend(unsearched);
    written.dropped.extend(unasked.map(Cow::from));
    refuse_if_strict(call, target, &written.dropped)?;
    let body = Payload::from(Bytes::from(written.body));
    let operation = Operation::Chat { dialect: into, stream: question.envelope.stream };
    let wording = Wording::Translated { body, into };
    let mut errand = Errand { dropped: written.dropped, ..Errand::new(operation, wording) };
    if into == Dialect::Gemini {
        errand.says_tier(target, &request);
    }
    if into == Dialect::Messages {
        errand.says_version(target, None);
        // What was only put into other words may still need them.
        errand.says_betas(question, target);
    }
    Ok(errand)
}

/// Takes the wish for thoughts from a question for a model that does not think: it would be refused
/// for it. Who speaks the target's own dialect is told so by itself. Gives the name of what is lost.
fn leaves_thoughts(
    request: &mut Cow<'_, ChatRequest>,
    target: &Target,
    into: Dialect,
    refused: bool,
) -> Option<&'static str> {
    // Elsewhere a model that does not think by itself may do so when it is asked to.
    let scaled = matches!(target.provider.kind.traits.effort, EffortField::Effort(_))
        && matches!(into, Dialect::Chat | Dialect::Responses);
    let known = target.info.features.has(Feature::Reasoning) || !scaled;
    let thinks = known && !target.standing.is_sober();
    if thinks && !refused || request.reasoning.is_none() || request.extras.dialect == Some(into) {
        return None;
    }
    let asked = request.to_mut().reasoning.take()?;
    // Who does not think need not be told so.
    (thinks || !asked.is_off()).then_some("reasoning_effort")
}

/// A strict route has no use for a target that cannot take all of the question.
fn refuse_if_strict(
    call: &Call,
    target: &Target,
    dropped: &[Cow<'static, str>],
) -> Result<(), Unfit> {
    let strict = call.wishes().is_some_and(|wishes| wishes.strict);
    if !strict || dropped.is_empty() {
        return Ok(());
    }
    let (name, fields) = (&target.provider.name, dropped.join("`, `"));
    let message = format!("`{name}` cannot take `{fields}`, and the route is strict.");
    Err(Unfit::Target(Error::new(Kind::Unsupported, message)))
}
