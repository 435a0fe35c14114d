//! Routes by kind of work: tells which kind a call is, once per conversation, and never fails.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use http::HeaderMap;
use moka::sync::Cache;
use tokio::time::{Instant, timeout};

use super::arrival::Question;
use super::call::Call;
use super::chain::Chain;
use super::{needs, oracle, session};
use crate::canon::{
    ChatRequest, Content, Dialect, Feature, FeatureSet, Format, Message, Owner, Role, Task,
    ToolChoice,
};
use crate::config::{Classifier, ClassifierKind};
use crate::dialect::estimate;
use crate::error::Error;
use crate::route::condition::Condition;
use crate::route::task::{self, Prompt};

/// A route that goes on to other routes.
#[derive(Debug)]
pub(super) struct ByTask {
    pub(super) chains: BTreeMap<Task, Arc<Chain>>,
    pub(super) default: Arc<Chain>,
    pub(super) when: Option<Condition>,
    pub(super) classifier: Classifier,
    /// The vectors of the classifier's examples, once they were made.
    pub(super) vectors: OnceLock<Vec<(Task, Vec<f32>)>>,
}

/// What kind of work a call is, who said so, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decision {
    /// `None`: it could not be told, so the default counts.
    pub(super) task: Option<Task>,
    pub(super) by: By,
    /// From 0 to 1.
    pub(super) score: f32,
    pub(super) reason: Cow<'static, str>,
}

/// Who tells a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Header,
    Alias,
    Rules,
    Examples,
    Model,
    Default,
}

/// Decisions that took asking somebody, by owner, route and beginning of the conversation.
/// Each until when it is remembered.
pub(super) type Decisions = Cache<(Option<Owner>, Arc<str>, u64), (Instant, Decision)>;

/// So many conversations are remembered.
const REMEMBERED: u64 = 100_000;

pub(super) const HEADER: &str = "x-switchpoint-task";
/// So much of a conversation's beginning is looked at, at either end of each text.
const LOOKED_AT: usize = 16 * 1024;

// === impl By ===

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Alias => "alias",
            Self::Rules => "rules",
            Self::Examples => "examples",
            Self::Model => "model",
            Self::Default => "default",
        }
    }
}

// === impl Decision ===

impl Decision {
    fn named(task: Task, by: By) -> Self {
        Self { task: Some(task), by, score: 1.0, reason: "named by the client".into() }
    }

    fn unknown(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { task: None, by: By::Default, score: 0.0, reason: reason.into() }
    }
}

// === impl ByTask ===

impl ByTask {
    /// The chain of a task.
    pub(super) fn chain(&self, task: Option<Task>) -> &Arc<Chain> {
        task.and_then(|task| self.chains.get(&task)).unwrap_or(&self.default)
    }

    /// What kind of work a call is. The error is the client's: it named a task that there is not.
    pub(super) async fn decide(
        &self,
        call: &Call,
        question: &Question,
        (headers, alias): (&HeaderMap, Option<Task>),
    ) -> Result<Decision, Error> {
        if let Some(named) = named(headers)? {
            return Ok(Decision::named(named, By::Header));
        }
        if let Some(task) = alias {
            return Ok(Decision::named(task, By::Alias));
        }
        if !call.surface().is_chat() {
            return Ok(Decision::unknown("not a chat"));
        }
        Box::pin(question.understand(call)).await;
        let Ok(asked) = question.chat() else { return Ok(Decision::unknown("not understood")) };
        let decision = self.classify(call, &asked.request).await;
        let certain = decision.score * 1000.0 >= f64_of(self.classifier.min_permille);
        Ok(if decision.task.is_some() && !certain {
            Decision { task: None, by: By::Default, ..decision }
        } else {
            decision
        })
    }

    async fn classify(&self, call: &Call, request: &ChatRequest) -> Decision {
        let beginning = Beginning::of(request);
        if self.classifier.kind == ClassifierKind::Rules {
            return by_rules(&beginning);
        }
        let owner = call.owner();
        let key = (owner, call.route_name(), session::of_beginning(request));
        let decisions = &call.gateway.decisions;
        // As long as a conversation goes on, it stays what it is.
        let remember = |decision: &Decision| {
            decisions.insert(key.clone(), (Instant::now() + self.classifier.ttl, decision.clone()));
        };
        if let Some((until, known)) = decisions.get(&key)
            && Instant::now() < until
        {
            remember(&known);
            return known;
        }
        if call.is_only_explained() {
            return Decision::unknown("not asked: to explain a call nothing is sent");
        }
        let asked = timeout(self.classifier.timeout, Box::pin(oracle::ask(self, call, &beginning)));
        match asked.await {
            Ok(Ok(decision)) => {
                remember(&decision);
                decision
            }
            // Not remembered: the next call of the conversation may get an answer.
            Ok(Err(reason)) => Decision::unknown(reason),
            Err(_) => Decision::unknown("the classifier took too long"),
        }
    }
}

/// The task that the client names.
fn named(headers: &HeaderMap) -> Result<Option<Task>, Error> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let unknown = |unknown| Error::invalid(format!("`{HEADER}`: {unknown}."));
    task::parse(text).map(Some).map_err(unknown)
}

fn by_rules(beginning: &Beginning) -> Decision {
    let verdict = task::classify(&beginning.prompt());
    Decision {
        task: Some(verdict.task),
        by: By::Rules,
        score: verdict.score,
        reason: verdict.reason,
    }
}

/// How a conversation began: what no later turn changes.
#[derive(Debug)]
pub(super) struct Beginning {
    system: String,
    pub(super) user: String,
    tools: usize,
    forced: bool,
    features: FeatureSet,
    schema: bool,
    tokens: u64,
}

impl Beginning {
    fn of(request: &ChatRequest) -> Self {
        let first = request.messages.iter().position(|message| message.role == Role::User);
        let end = first.map_or(request.messages.len(), |first| first + 1);
        let (beginning, _) = request.messages.split_at(end);
        let (user, system) = match first {
            Some(first) => (&beginning[first..], &beginning[..first]),
            None => (&beginning[..0], beginning),
        };
        let opening = ChatRequest {
            messages: beginning.to_vec(),
            tools: request.tools.clone(),
            format: request.format.clone(),
            reasoning: request.reasoning.clone(),
            ..ChatRequest::default()
        };
        Self {
            system: text(system),
            user: text(user),
            tools: request.tools.len(),
            forced: request.tool_choice.as_ref().is_some_and(|choice| {
                matches!(choice, ToolChoice::Required | ToolChoice::Named(_))
            }),
            features: needs::features(&opening),
            schema: !matches!(request.format, Format::Text),
            tokens: estimate::tokens(&opening, Dialect::Chat, None),
        }
    }

    fn prompt(&self) -> Prompt<'_> {
        Prompt {
            system: &self.system,
            user: &self.user,
            tools: self.tools,
            tool_choice_forced: self.forced,
            schema: self.schema,
            images: self.features.contains(Feature::Vision),
            audio: self.features.contains(Feature::AudioIn),
            files: self.features.contains(Feature::Pdf),
            tokens: self.tokens,
            reasoning: self.features.contains(Feature::Reasoning),
        }
    }
}

/// The words of some messages. Of long ones, both ends.
fn text(messages: &[Message]) -> String {
    let mut words = String::new();
    for part in messages.iter().flat_map(|message| &message.parts) {
        let Content::Text { text, .. } = &part.content else { continue };
        if !words.is_empty() {
            words.push('\n');
        }
        if text.len() <= 2 * LOOKED_AT {
            words.push_str(text);
            continue;
        }
        let (head, tail) = (text.floor_char_boundary(LOOKED_AT), text.len() - LOOKED_AT);
        words.push_str(&text[..head]);
        words.push('\n');
        words.push_str(&text[text.ceil_char_boundary(tail)..]);
    }
    words
}

fn f64_of(permille: u32) -> f32 {
    u16::try_from(permille).map_or(1000.0, f32::from)
}

pub(super) fn remembered() -> Decisions {
    Cache::builder().max_capacity(REMEMBERED).build()
}
