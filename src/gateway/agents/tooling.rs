//! A tool is called without a run: with the limits, guards and record that a call of a model has.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::overheard::{look_at, look_at_resumed, overhear};
use crate::access::Caller;
use crate::canon::{Effect, Outcome, Part, Surface};
use crate::config::ToolKind;
use crate::error::{Error, Kind};
use crate::gateway::call::Call;
use crate::gateway::reply::outcome_of;
use crate::gateway::{Gateway, Snapshot, guarding, till};
use crate::store::Audit;
use crate::tool::mcp::each_text;
use crate::tool::{Failure, FailureKind, Invocation, Output, Tool, elsewhere};

/// Why such a call gave nothing.
#[derive(Debug)]
pub enum Unmade {
    /// It was not made, or what it gave is not told.
    Refused(Error),
    Failed(Failure),
}

impl Gateway {
    /// Calls a tool for a caller who may have it. Where a person has to let a call pass, nobody gets
    /// around that here.
    pub async fn call_tool(
        self: &Arc<Self>,
        (caller, house): (&Caller, Arc<Snapshot>),
        tool: &Tool,
        invocation: Invocation,
    ) -> Result<Output, Unmade> {
        let mut call = Call::open((Arc::clone(self), house), Surface::Tool, None, None);
        call.admitted(caller);
        call.record.route = Some(format!("tool/{}", tool.name).into());
        call.record.tags.insert("tool".into(), (&*tool.name).into());
        let made = Box::pin(make(&mut call, caller, tool, invocation)).await;
        let (outcome, status) = match &made {
            Ok(_) => (Outcome::Ok, 200),
            Err(unmade) => (outcome_of(unmade.kind()), unmade.status()),
        };
        call.record.status = status;
        call.ends(outcome);
        made
    }
}

async fn make(
    call: &mut Call,
    caller: &Caller,
    tool: &Tool,
    mut invocation: Invocation,
) -> Result<Output, Unmade> {
    demand(caller, tool)?;
    tool.check(&invocation.args)?;
    let args = std::mem::take(&mut invocation.args);
    invocation.args = guarding::look_at_arguments(call, &tool.name, args).await?;
    if let Some(answer) = invocation.answer.take() {
        invocation.answer = Some(guarding::look_at_answer(call, &tool.name, answer).await?);
    }
    if let Some(listener) = &mut invocation.listener {
        look_at_resumed(call, &tool.name, listener).await?;
    }
    till::hold_request(call).await?;
    if tool.effect != Effect::Read {
        note(call, tool).await;
    }
    call.till.mark_used();
    let clock = Instant::now();
    let made = match invocation.listener.take() {
        Some(listener) => {
            let work = async |listener| {
                invocation.listener = Some(listener);
                tool.call(&invocation).await
            };
            Box::pin(overhear(&mut *call, &tool.name, listener, work)).await
        }
        None => tool.call(&invocation).await,
    };
    count(call, tool, &made, clock);
    match made {
        Ok(output) => given(call, tool, output).await.map_err(Unmade::from),
        Err(failure) => Err(came_to_nothing(call, tool, failure).await?.into()),
    }
}

/// What a tool has given, as its caller may have it.
async fn given(call: &mut Call, tool: &Tool, mut output: Output) -> Result<Output, Error> {
    if !guarding::reads_results(call) {
        return Ok(output);
    }
    let mut parts = std::mem::take(&mut output.parts);
    let own = parts.len();
    // A server may say there what it does not say in words.
    parts.extend(output.value.iter().map(|value| Part::text(value.to_string())));
    // And its own words are what a client of its protocol reads.
    if let Some(mut said) = tool.verbatim(&output.raw).filter(|_| !output.truncated) {
        each_text(&mut said, &mut |text| {
            let is_known = |part: &Part| part.as_text().is_some_and(|it| it.contains(&**text));
            if !parts.iter().any(is_known) {
                parts.push(Part::text(text.clone()));
            }
        });
    }
    let (mut parts, changed) = guarding::look_at_result(call, &tool.name, parts).await?;
    parts.truncate(own);
    if changed {
        output.value = output.value.and_then(|_| value(&parts));
        output.raw = Bytes::new();
    }
    Ok(Output { parts, ..output })
}

/// Why it has given nothing: that may say what the tool has said, or what it wants to know.
async fn came_to_nothing(
    call: &mut Call,
    tool: &Tool,
    mut failure: Failure,
) -> Result<Failure, Error> {
    let asked = match &failure.kind {
        FailureKind::NeedsInput { message, schema } => json!([message, schema]),
        _ => Value::Null,
    };
    let mut said = json!([failure.message, failure.verbatim, asked]);
    if !look_at(call, &tool.name, &mut said).await? {
        return Ok(failure);
    }
    let text = |value: &mut Value| value.take().as_str().unwrap_or_default().to_owned();
    failure.message = text(&mut said[0]);
    failure.verbatim = failure.verbatim.map(|_| Box::new(said[1].take()));
    if let FailureKind::NeedsInput { message, schema } = &mut failure.kind {
        *message = text(&mut said[2][0]);
        **schema = said[2][1].take();
    }
    Ok(failure)
}

/// What is left of a result is read anew.
fn value(parts: &[Part]) -> Option<Value> {
    let text: String = parts.iter().filter_map(Part::as_text).collect();
    serde_json::from_str(&text).ok()
}

/// Only runs wait for people.
fn demand(caller: &Caller, tool: &Tool) -> Result<(), Error> {
    if let ToolKind::Agent(it) = &tool.terms.kind {
        let message = format!("`{}` is not called by itself: {}.", tool.name, elsewhere(&it.agent));
        return Err(Error::new(Kind::Unsupported, message));
    }
    let operates = caller.operates();
    let is_risky = tool.terms.high_risk && tool.effect != Effect::Read;
    let why = match (tool.approval().is_some(), is_risky && !operates) {
        (true, _) => "needs an approval",
        (false, true) => "is of high risk",
        (false, false) => return Ok(()),
    };
    let message = format!(
        "The tool `{}` {why}, so it cannot be called by itself: call it through a run of an agent \
         that has it, which waits for the decision.",
        tool.name
    );
    Err(Error::new(Kind::ApprovalRequired, message))
}

/// What may change something stands in the audit trail before it does.
async fn note(call: &Call, tool: &Tool) {
    let after = json!({"call": call.record.id.to_string(), "effect": tool.effect.name()});
    let row = Audit {
        at: SystemTime::now(),
        who: call.key().map_or_else(String::new, ToString::to_string),
        what: "tool.call".to_owned(),
        subject: format!("tool:{}", tool.name),
        before: None,
        after: Some(after.to_string()),
    };
    if let Err(error) = call.gateway.store().audit(row).await {
        tracing::error!(%error, tool = &*tool.name, "a call of a tool is not in the audit trail");
    }
}

/// As calls of runs are counted, with no agent.
fn count(call: &Call, tool: &Tool, made: &Result<Output, Failure>, clock: Instant) {
    let outcome = match made {
        Ok(output) if output.cached => "cached",
        Ok(_) => "ok",
        Err(failure) => failure.kind.name(),
    };
    let metrics = &call.gateway.telemetry.metrics;
    metrics.agent_tool_calls.with_label_values(&["", &*tool.name, outcome]).inc();
    let seconds = metrics.agent_tool_seconds.with_label_values(&["", &*tool.name]);
    seconds.observe(clock.elapsed().as_secs_f64());
    let retried = made.as_ref().map_or_else(|failure| &failure.retried, |it| &it.retried);
    for reason in retried {
        metrics.agent_tool_retries.with_label_values(&[&*tool.name, reason]).inc();
    }
    if made.as_ref().is_err_and(|failure| failure.kind == FailureKind::Refused) {
        metrics.count_security_event("tool_refused");
    }
    if outcome == "cached" {
        metrics.agent_tool_cache_hits.with_label_values(&[&*tool.name]).inc();
    }
}

// === impl Unmade ===

impl Unmade {
    fn kind(&self) -> Kind {
        match self {
            Self::Refused(error) => error.kind,
            Self::Failed(failure) => kind_of(&failure.kind),
        }
    }

    fn status(&self) -> u16 {
        match self {
            Self::Refused(error) => error.status(),
            Self::Failed(failure) => kind_of(&failure.kind).status(),
        }
    }

    /// As doors other than MCP's tell it.
    pub fn into_error(self, tool: &Tool) -> Error {
        let failure = match self {
            Self::Refused(error) => return error,
            Self::Failed(failure) => failure,
        };
        let message = format!("{} ({}): {}", tool.name, failure.kind.name(), failure.message);
        let error = Error::new(kind_of(&failure.kind), message);
        Error { retry_after: failure.retry_after, ..error }
    }
}

fn kind_of(failure: &FailureKind) -> Kind {
    match failure {
        FailureKind::Invalid => Kind::InvalidRequest,
        FailureKind::RateLimited => Kind::RateLimited,
        FailureKind::Unavailable => Kind::Overloaded,
        FailureKind::Refused | FailureKind::Blocked => Kind::NotAllowed,
        FailureKind::Timeout => Kind::UpstreamTimeout,
        _ => Kind::ToolFailed,
    }
}

impl From<Error> for Unmade {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for Unmade {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}
