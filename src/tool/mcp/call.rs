//! One call of one tool of an MCP server.

use std::sync::Arc;

use futures_util::FutureExt;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotification, CancelledNotificationParam,
    ClientRequest, ErrorCode, InputRequest, InputRequiredResult, InputResponses, MetaObject,
    RequestId, RequestMetaObject, ServerResult,
};
use rmcp::service::{Peer, PeerRequestOptions};
use rmcp::{RoleClient, ServiceError};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answer::{answer, failure};
use super::ear::{Asker, Question, answered, question};
use super::link::Session;
use super::pool::Pool;
use crate::tool::{Answer, Attempt, Failure, FailureKind, Invocation, Runner, Sent};

/// Where a server finds by what it can tell that a call was made before.
const IDEMPOTENCY_KEY: &str = "switchpoint/idempotency-key";
const TRACEPARENT: &str = "traceparent";
/// Times a server may want to be asked again before it has a result.
const MOST_ROUNDS: usize = 8;

/// Calls one tool by whichever connection is free.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) pool: Arc<Pool>,
    /// As its server calls it.
    pub(super) tool: String,
    /// It is another one than was approved.
    pub(super) has_drifted: bool,
}

/// A request that is called off when nobody waits for it any more.
struct Pending<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

/// How one request ended.
enum Ended {
    Complete(Answer),
    Wants(InputRequiredResult),
}

// === impl Caller ===

impl Runner for Caller {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        Box::pin(self.call(call))
    }

    fn minds_time(&self) -> bool {
        true
    }
}

impl Caller {
    async fn call(&self, call: &Invocation) -> Result<Answer, Failure> {
        if self.has_drifted {
            let tool = &self.tool;
            let message = format!(
                "the server describes `{tool}` otherwise than when it was approved; an operator must approve it again"
            );
            return Err(Failure::new(FailureKind::Refused, message));
        }
        let total = Instant::now() + self.pool.mcp.total_timeout;
        let deadline = total.min(call.deadline);
        let busy = self.pool.free().enter();
        let session = busy.session(deadline).await?;
        let mut request = self.request(call);
        let mut may_answer = call.answer.clone();
        for _ in 0..MOST_ROUNDS {
            let wants = match self.send(&session, request.clone(), (call, deadline)).await? {
                Ended::Complete(answer) => return Ok(answer),
                Ended::Wants(wants) => wants,
            };
            request.request_state = wants.request_state;
            request.input_responses = match wants.input_requests {
                Some(wanted) if !wanted.is_empty() => {
                    Some(respond(wanted.into_iter().collect(), &mut may_answer)?)
                }
                _ => None,
            };
        }
        let message = "the server wanted to be asked again too often";
        Err(Failure::new(FailureKind::Soft, message).sent(Sent::Maybe))
    }

    fn request(&self, call: &Invocation) -> CallToolRequestParams {
        let arguments = call.args.as_object().cloned().unwrap_or_default();
        CallToolRequestParams::new(self.tool.clone()).with_arguments(arguments)
    }

    async fn send(
        &self,
        session: &Session,
        params: CallToolRequestParams,
        (call, deadline): (&Invocation, Instant),
    ) -> Result<Ended, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let options = PeerRequestOptions::with_timeout(self.pool.terms.timeout.min(left))
            .reset_timeout_on_progress()
            .with_max_total_timeout(left)
            .with_meta(meta(call));
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let (ask, wanted) = oneshot::channel();
        let asker = Asker { answer: call.answer.clone(), ask: Some(ask), has_answered: false };
        let sending = session.peer().send_request_with_option(request, options);
        let handle = session
            .calls()
            .begin(sending, (|handle| handle.id.clone(), asker))
            .await
            // It has not even been handed over.
            .map_err(|error| failure(error).sent(Sent::Never))?;
        let id = handle.id.clone();
        let mut pending = Pending { peer: session.peer(), id: Some(id.clone()) };
        let result = tokio::select! {
            biased;
            Ok(question) = wanted => Err(needs(question)),
            result = handle.await_response() => {
                pending.id = None;
                result.map_err(|error| self.failed(error))
            }
        };
        drop(pending);
        session.calls().end(&id).await;
        match result? {
            ServerResult::CallToolResult(result) => {
                Ok(Ended::Complete(answer(result, self.pool.terms.max_result)))
            }
            ServerResult::InputRequiredResult(wants) => Ok(Ended::Wants(wants)),
            _ => Err(failure(ServiceError::UnexpectedResponse)),
        }
    }

    fn failed(&self, error: ServiceError) -> Failure {
        // It may have other tools by now.
        if let ServiceError::McpError(error) = &error
            && matches!(error.code, ErrorCode::INVALID_PARAMS | ErrorCode::METHOD_NOT_FOUND)
        {
            self.pool.changed.notify_one();
        }
        failure(error)
    }
}

fn meta(call: &Invocation) -> RequestMetaObject {
    let mut meta = Map::new();
    meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::from(call.idempotency_key.as_str()));
    if let Some(traceparent) = &call.traceparent {
        meta.insert(TRACEPARENT.to_owned(), Value::from(traceparent.as_str()));
    }
    RequestMetaObject(MetaObject(meta))
}

fn needs(Question { message, schema }: Question) -> Failure {
    // The server was told that nobody answers, and is asked again when somebody does.
    Failure::new(
        FailureKind::NeedsInput { message: message.clone(), schema: Box::new(schema) },
        message,
    )
    .sent(Sent::Refused)
}

/// What is answered to what a server wants, all at once: by a person, if that is needed.
fn respond(
    wanted: Vec<(String, InputRequest)>,
    answer: &mut Option<Value>,
) -> Result<InputResponses, Failure> {
    let mut responses = InputResponses::new();
    let mut questions = Vec::new();
    for (key, request) in wanted {
        match request {
            InputRequest::Elicitation(request) => {
                let question = question(&request.params).ok_or_else(unknown)?;
                questions.push((key, question));
            }
            InputRequest::ListRoots(_) => {
                responses.insert(key, json!({"roots": []}));
            }
            // Models are asked by agents, not by their tools.
            _ => return Err(unknown()),
        }
    }
    if questions.is_empty() {
        return Ok(responses);
    }
    let Some(answer) = answer.take() else { return Err(needs(together(questions))) };
    let only = questions.len() == 1;
    for (key, question) in questions {
        let answer = match &answer {
            Value::Object(answers) if !only => answers.get(&key).cloned().unwrap_or_default(),
            answer => answer.clone(),
        };
        responses.insert(key, super::answer::as_value(&answered(answer, &question.schema)));
    }
    Ok(responses)
}

fn unknown() -> Failure {
    let message = "the server wants something that it is not given here";
    Failure::new(FailureKind::Refused, message).sent(Sent::Refused)
}

/// Several questions as one.
fn together(mut questions: Vec<(String, Question)>) -> Question {
    if questions.len() == 1 {
        return questions.remove(0).1;
    }
    let messages: Vec<&str> = questions.iter().map(|(_, it)| it.message.as_str()).collect();
    let message = messages.join("\n");
    let properties: Map<String, Value> =
        questions.into_iter().map(|(key, it)| (key, it.schema)).collect();
    Question { message, schema: json!({"type": "object", "properties": properties}) }
}

// === impl Pending ===

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let reason = Some("nobody waits for it any more".to_owned());
        let params = CancelledNotificationParam::new(Some(id), reason);
        let notification = CancelledNotification::new(params);
        // It is in the queue after the first poll, and nobody waits until it is sent.
        let _ = self.peer.send_notification(notification.into()).now_or_never();
    }
}
