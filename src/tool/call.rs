//! The one door to every tool: limits, cache, breaker, attempts, and what is made of the result.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::breaker::Breaker;
use super::memo::Memo;
use super::pace::Gate;
use super::{Answer, Failure, FailureKind, Health, Invocation, Output, Sent, Tool, text};
use crate::canon::{Effect, Part};
use crate::config;
use crate::store::shared::Turns;

/// Of what a tool says about its own failure, how much the model is told.
const LONGEST_REASON: usize = 2000;

/// What is counted and remembered of a tool, whatever config it stands in.
#[derive(Debug)]
pub(super) struct State {
    gate: Arc<Gate>,
    breaker: Arc<Breaker>,
    memo: Option<Arc<Memo>>,
}

// === impl State ===

impl State {
    pub(super) fn new(terms: &config::Tool, effect: Effect) -> Self {
        let remembered = terms.cache.as_ref().filter(|_| effect == Effect::Read);
        Self {
            gate: Arc::new(Gate::new(&terms.limits)),
            breaker: Arc::new(Breaker::new(&terms.breaker)),
            memo: remembered.map(|cache| Arc::new(Memo::new(cache))),
        }
    }

    /// Counts together with the other replicas.
    pub(super) fn together(&mut self, name: &Arc<str>, turns: &Arc<Turns>) {
        if let Some(gate) = Arc::get_mut(&mut self.gate) {
            gate.together(name, turns);
        }
    }

    /// What `before` has, as far as it is meant the same way.
    pub(super) fn following(self, tool: &config::Tool, before: &Tool) -> Self {
        let (former, terms) = (&before.state, &before.terms);
        let same = tool.kind == terms.kind;
        let gate = former.gate.is_like(&tool.limits).then(|| Arc::clone(&former.gate));
        let breaker = same && former.breaker.is_like(&tool.breaker);
        let breaker = breaker.then(|| Arc::clone(&former.breaker));
        let memo = if *tool == **terms { former.memo.clone() } else { None };
        Self {
            gate: gate.unwrap_or(self.gate),
            breaker: breaker.unwrap_or(self.breaker),
            memo: self.memo.map(|new| memo.unwrap_or(new)),
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.breaker.closed_for() {
            None => Health::Up,
            retry_after => {
                let why = "it has failed too often in a row".to_owned();
                Health::Down { why, retry_after }
            }
        }
    }
}

impl Tool {
    /// Calls it, as often as its effect and its terms allow. Dropping the future ends the call.
    pub async fn call(&self, call: &Invocation) -> Result<Output, Failure> {
        if let Some(why) = self.runner.blocked() {
            return Err(Failure::new(FailureKind::Blocked, why));
        }
        self.check(&call.args)?;
        let memo = self.state.memo.as_ref();
        let memo = memo.and_then(|memo| Some((memo, memo.key(call)?)));
        if let Some(output) = memo.as_ref().and_then(|(memo, key)| memo.find(key)) {
            return Ok(output);
        }
        let (mut attempts, mut retried) = (0, Vec::new());
        let result = self.attempts(call, &mut attempts, &mut retried).await;
        let output = match result {
            Ok(output) => Output { retried, ..output },
            Err(failure) => return Err(Failure { attempts, retried, ..failure }),
        };
        if let Some((memo, key)) = memo {
            memo.keep(key, &output);
        }
        Ok(output)
    }

    async fn attempts(
        &self,
        call: &Invocation,
        made: &mut u32,
        retried: &mut Vec<&'static str>,
    ) -> Result<Output, Failure> {
        loop {
            let failure = match self.attempt(call, made).await {
                Ok(answer) => return self.output(answer, *made),
                Err(failure) => failure,
            };
            let Some(pause) = self.again(&failure, *made) else { return Err(failure) };
            if pause >= call.deadline.saturating_duration_since(Instant::now()) {
                return Err(failure);
            }
            retried.push(failure.kind.name());
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, if limits and breaker let it through.
    async fn attempt(&self, call: &Invocation, made: &mut u32) -> Result<Answer, Failure> {
        let state = &self.state;
        let closed = |left| {
            let message = "it has failed too often and is left alone for a while";
            Failure::new(FailureKind::Unavailable, message).retry_after(Some(left))
        };
        if let Some(left) = state.breaker.closed_for() {
            return Err(closed(left));
        }
        self.takes_turn(call.user.as_ref(), call.deadline).await?;
        let pass = state.breaker.pass().map_err(closed)?;
        *made += 1;
        let began = Instant::now();
        let result = self.timed(call).await;
        let hurried = |failure: &Failure| {
            failure.kind == FailureKind::Timeout && began.elapsed() < self.terms.timeout
        };
        match &result {
            Ok(_) => pass.worked(),
            // Its connection rests: nobody was asked.
            Err(failure) if failure.kind == FailureKind::Unavailable => *made -= 1,
            // Whoever has little time is no sign of a slow tool.
            Err(failure) if hurried(failure) => {}
            Err(failure) if is_down(failure) => pass.failed(),
            // It is there, and refuses this call.
            Err(failure) if failure.sent != Sent::Never => pass.worked(),
            Err(_) => {}
        }
        result
    }

    /// Waits for a turn of its limits, and takes it.
    pub async fn takes_turn(
        &self,
        user: Option<&Arc<str>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.state.gate.pass(user, deadline).await.map_err(|wait| {
            let message = "it was called as often as it may be";
            Failure::new(FailureKind::RateLimited, message).retry_after(Some(wait))
        })
    }

    async fn timed(&self, call: &Invocation) -> Result<Answer, Failure> {
        let own = Instant::now() + self.terms.timeout;
        let until = if self.runner.minds_time() { call.deadline } else { call.deadline.min(own) };
        let answer = tokio::time::timeout_at(until, self.runner.attempt(call)).await;
        answer.unwrap_or_else(|_| {
            let late = Failure::new(FailureKind::Timeout, "it took too long to answer");
            Err(late.sent(Sent::Maybe))
        })
    }

    /// How long to wait before another attempt, where one is allowed.
    fn again(&self, failure: &Failure, made: u32) -> Option<Duration> {
        let retry = &self.terms.retry;
        let transient = match failure.kind {
            FailureKind::Timeout | FailureKind::Unreachable => true,
            // Ours are not waited for twice: nothing was sent.
            FailureKind::RateLimited => failure.sent == Sent::Refused,
            FailureKind::Status(status) => status >= 500,
            _ => false,
        };
        let harmless = match self.effect {
            Effect::Read | Effect::Idempotent => true,
            Effect::Once => matches!(failure.sent, Sent::Never | Sent::Refused),
        };
        if !transient || !harmless || made >= retry.attempts {
            return None;
        }
        let most = retry.base.saturating_mul(1 << (made - 1).min(16)).min(retry.max);
        Some(part_of(most).max(failure.retry_after.unwrap_or_default()))
    }

    /// What is made of an answer: failures that look like success, and clean texts.
    fn output(&self, mut answer: Answer, attempts: u32) -> Result<Output, Failure> {
        tidy(&mut answer);
        let soft = |message: &str| {
            let message = text::head(message.trim(), LONGEST_REASON);
            Failure::new(FailureKind::Soft, message).sent(Sent::Answered)
        };
        if answer.is_error {
            let said: Vec<&str> = answer.parts.iter().filter_map(Part::as_text).collect();
            let failure = Failure { wire: answer.wire.take(), ..soft(&said.join("\n")) };
            return Err(match self.verbatim(&answer.raw) {
                Some(said) if !answer.truncated => failure.verbatim(said),
                _ => failure,
            });
        }
        if let Some(error) = self.error_in(&answer) {
            return Err(soft(&error));
        }
        if let Some(schema) = &self.checks.output {
            let checked = match &answer.value {
                Some(value) => schema.check(value),
                None => Err("it is not JSON".to_owned()),
            };
            checked.map_err(|why| {
                let message = format!("its result is not what it should be: {why}");
                Failure::new(FailureKind::BadOutput, message).sent(Sent::Maybe)
            })?;
        }
        let Answer { parts, value, raw, truncated, wire, .. } = answer;
        let (cached, retried) = (false, Vec::new());
        Ok(Output { parts, value, raw, truncated, cached, attempts, retried, wire })
    }

    /// What a server of MCP gave, in its own words, though without what nobody sees.
    pub fn verbatim(&self, raw: &[u8]) -> Option<Value> {
        if !matches!(self.terms.kind, config::ToolKind::Mcp(_)) {
            return None;
        }
        let mut said = serde_json::from_slice(raw).ok()?;
        text::clean_value(&mut said);
        Some(said)
    }

    /// Where `error_when` leads, if it is something.
    fn error_in(&self, answer: &Answer) -> Option<String> {
        match answer.value.as_ref()?.pointer(self.terms.error_when.as_ref()?)? {
            Value::Null | Value::Bool(false) => None,
            Value::String(said) => Some(said.clone()),
            value => Some(value.to_string()),
        }
    }
}

/// A failure that tells of the tool, and not of what it was asked.
fn is_down(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Timeout | FailureKind::Unreachable => true,
        FailureKind::Status(status) => status >= 500,
        _ => false,
    }
}

/// Some part of `most`: all of those who wait should not come back at once.
fn part_of(most: Duration) -> Duration {
    // Each state of this kind hashes in its own way.
    let dice = RandomState::new().hash_one(0u8) % 1025;
    let share = u32::try_from(dice).unwrap_or(1024);
    most.saturating_mul(share) / 1024
}

/// Takes out of texts and values what nobody sees.
fn tidy(answer: &mut Answer) {
    let whole = match (&answer.value, answer.parts.as_slice()) {
        // A text that is JSON: what hides in it behind escapes is taken out as well.
        (Some(_), [part]) => part.as_text().is_some(),
        _ => false,
    };
    let changed = answer.value.as_mut().is_some_and(text::clean_value);
    if let Some(value) = answer.value.as_ref().filter(|_| whole && changed) {
        answer.parts = vec![Part::text(value.to_string())];
        return;
    }
    for part in &mut answer.parts {
        if let Some(said) = part.as_text()
            && let std::borrow::Cow::Owned(cleaned) = text::clean(said)
        {
            *part = Part::text(cleaned);
        }
    }
}
