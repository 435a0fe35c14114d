//! One call of one tool of an MCP server.

use std::sync::Arc;

use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ErrorCode, InputRequest,
    InputRequiredResult, InputResponses, ServerResult,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::answer::{answer, as_value, failure};
use super::ear::{Question, answered, question};
use super::exchange::{self, Terms, exchange};
use super::link::Session;
use super::pool::Pool;
use crate::canon::Effect;
use crate::tool::{Answer, Attempt, Failure, FailureKind, Invocation, Runner, Sent, Wire};

/// Where a server finds by what it can tell that a call was made before.
const IDEMPOTENCY_KEY: &str = "switchpoint/idempotency-key";
/// Why a tool is not called that is not the one that was approved.
const DRIFTED: &str = "its server describes it otherwise than when it was approved; an operator \
                       must approve it again";
/// Times a server may want to be asked again before it has a result.
const MOST_ROUNDS: usize = 8;

/// Calls one tool by whichever connection is free.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) pool: Arc<Pool>,
    /// As its server calls it.
    pub(super) tool: String,
    pub(super) effect: Effect,
    /// It is another one than was approved.
    pub(super) has_drifted: bool,
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

    fn blocked(&self) -> Option<&'static str> {
        self.has_drifted.then_some(DRIFTED)
    }

    fn minds_time(&self) -> bool {
        true
    }
}

impl Caller {
    async fn call(&self, call: &Invocation) -> Result<Answer, Failure> {
        let total = Instant::now() + self.pool.mcp.total_timeout;
        let deadline = total.min(call.deadline);
        let busy = self.pool.free().enter();
        let session = busy.session(deadline).await?;
        let mut request = self.request(&session, call);
        let mut may_answer = call.answer.clone();
        for _ in 0..MOST_ROUNDS {
            let wants = match self.send(&session, request.clone(), call, deadline).await? {
                Ended::Complete(answer) => return Ok(answer),
                // Whoever waits answers by itself, and asks again.
                Ended::Wants(wants) if call.listener.is_some() => {
                    return Err(self.unanswered(&wants));
                }
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

    fn request(&self, session: &Session, call: &Invocation) -> CallToolRequestParams {
        let arguments = call.args.as_object().cloned().unwrap_or_default();
        let mut request = CallToolRequestParams::new(self.tool.clone()).with_arguments(arguments);
        let resumed = call.listener.as_ref().filter(|_| !session.is_old());
        if let Some(resumed) = resumed.and_then(|it| it.resumes.clone()) {
            request.input_responses = resumed.responses;
            request.request_state = resumed.state;
        }
        request
    }

    /// What the server wants goes to whoever waits, in its own words.
    fn unanswered(&self, wants: &InputRequiredResult) -> Failure {
        let mut asked = wants.input_requests.iter().flat_map(|it| it.values());
        let wants_model = asked.any(|it| matches!(it, InputRequest::CreateMessage(_)));
        if wants_model && !self.pool.mcp.sampling {
            return unknown();
        }
        let message = "the server wants to know something first".to_owned();
        let schema = Box::new(json!({"type": "object"}));
        let kind = FailureKind::NeedsInput { message: message.clone(), schema };
        Failure::new(kind, message).sent(Sent::Refused).verbatim(as_value(wants))
    }

    async fn send(
        &self,
        session: &Session,
        params: CallToolRequestParams,
        call: &Invocation,
        deadline: Instant,
    ) -> Result<Ended, Failure> {
        let mut request = CallToolRequest::new(params);
        request.extensions.insert(self.effect);
        let request = ClientRequest::CallToolRequest(request);
        let terms = Terms {
            meta: meta(call),
            silence: self.pool.terms.timeout,
            deadline,
            answer: call.answer.clone(),
            listener: call.listener.as_ref(),
            sampling: self.pool.mcp.sampling,
        };
        let mut id = None;
        let done = exchange(session, request, terms, &mut id).await;
        let mut wire = session.wire(id.as_ref());
        match done {
            Ok(ServerResult::CallToolResult(result)) => {
                wire.is_error = result.is_error.unwrap_or(false);
                let answer = answer(result, self.pool.terms.max_result);
                Ok(Ended::Complete(Answer { wire: Some(Box::new(wire)), ..answer }))
            }
            Ok(ServerResult::InputRequiredResult(wants)) => Ok(Ended::Wants(wants)),
            Ok(_) => Err(over(wire, failure(ServiceError::UnexpectedResponse))),
            Err(exchange::Ended::Unsent(error)) => {
                Err(over(wire, failure(error).sent(Sent::Never)))
            }
            Err(exchange::Ended::Lost(error)) => {
                if let ServiceError::McpError(error) = &error {
                    wire.code = Some(error.code.0);
                }
                Err(over(wire, self.failed(error)))
            }
            Err(exchange::Ended::Asks(question)) => Err(over(wire, needs(question))),
        }
    }

    fn failed(&self, error: ServiceError) -> Failure {
        let said = match &error {
            ServiceError::McpError(error) => {
                // It may have other tools by now.
                if matches!(error.code, ErrorCode::INVALID_PARAMS | ErrorCode::METHOD_NOT_FOUND) {
                    self.pool.changed.notify_one();
                }
                Some(as_value(error))
            }
            _ => None,
        };
        let failure = failure(error);
        match said {
            Some(said) => failure.verbatim(said),
            None => failure,
        }
    }
}

fn over(wire: Wire, failure: Failure) -> Failure {
    Failure { wire: Some(Box::new(wire)), ..failure }
}

fn meta(call: &Invocation) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert(IDEMPOTENCY_KEY.to_owned(), Value::from(call.idempotency_key.as_str()));
    meta.extend(call.passed.fields().map(|(name, said)| (name.to_owned(), Value::from(said))));
    meta
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
        responses.insert(key, as_value(&answered(answer, &question.schema)));
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
