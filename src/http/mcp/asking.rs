//! What a tool wants to know of a person goes to the client, if it can ask one: by a request of ours
//! in the older protocol, as an answer that is to be sent again in the newer one.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ElicitRequest, ElicitRequestParams, ElicitResult,
    ElicitationAction, InputRequest, InputRequests, InputRequiredResult,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServiceError};
use serde_json::{Value, json};

use crate::tool::mcp::{Resumed, can_be_asked};

/// What the answer to our question is called, and how what goes with it begins.
const QUESTION: &str = "question";
const OURS: &str = "switchpoint:";

/// What a client brings along when it sends a call again.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The key of the call that it was.
    pub(super) call: Option<String>,
    /// What a person has said.
    pub(super) answer: Option<Value>,
    /// What is not an answer to us, but to the server behind us.
    pub(super) resumes: Option<Resumed>,
}

/// Whether a person says something.
#[derive(Debug)]
pub(super) enum Reply {
    Now(Value),
    /// With the call, when it is sent again.
    Later(CallToolResponse),
    Never,
    /// There is no client any more.
    Gone,
}

// === impl Asked ===

impl Asked {
    pub(super) fn of(request: &CallToolRequestParams) -> Self {
        let (state, responses) = (&request.request_state, &request.input_responses);
        let Some(call) = state.as_ref().and_then(|state| state.strip_prefix(OURS)) else {
            let resumes = Resumed { responses: responses.clone(), state: state.clone() };
            let is_again = state.is_some() || responses.is_some();
            return Self { resumes: is_again.then_some(resumes), ..Self::default() };
        };
        let answer = responses.as_ref().and_then(|it| it.get(QUESTION));
        let answer = answer.and_then(|it| serde_json::from_value(it.clone()).ok());
        Self { call: Some(call.to_owned()), answer: answer.and_then(answered), resumes: None }
    }

    pub(super) async fn ask(
        &self,
        context: &RequestContext<RoleServer>,
        (message, schema): (&str, &Value),
        call: &str,
    ) -> Reply {
        let can = can_ask(context);
        let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
        let Some(params) = serde_json::from_value(params).ok().filter(|_| can) else {
            return Reply::Never;
        };
        let is_old = context.protocol_version().is_none_or(|version| version.has_initialize());
        if is_old { now(context, params).await } else { later(params, call) }
    }
}

/// Whether the client can ask a person.
pub(super) fn can_ask(context: &RequestContext<RoleServer>) -> bool {
    context.client_capabilities().is_some_and(|can| can_be_asked(&can, false))
}

async fn now(context: &RequestContext<RoleServer>, params: ElicitRequestParams) -> Reply {
    use ServiceError::{Cancelled, TransportClosed, TransportSend};
    match context.peer.create_elicitation(params).await {
        Ok(result) => answered(result).map_or(Reply::Never, Reply::Now),
        Err(Cancelled { .. } | TransportClosed | TransportSend(_)) => Reply::Gone,
        Err(_) => Reply::Never,
    }
}

fn later(params: ElicitRequestParams, call: &str) -> Reply {
    let question = InputRequest::Elicitation(ElicitRequest::new(params));
    let questions = InputRequests::from([(QUESTION.to_owned(), question)]);
    let required = InputRequiredResult::new(Some(questions), Some(format!("{OURS}{call}")));
    Reply::Later(CallToolResponse::InputRequired(required))
}

/// A no is an answer too; that nobody has looked is none.
fn answered(result: ElicitResult) -> Option<Value> {
    match result.action {
        ElicitationAction::Accept => Some(result.content.unwrap_or_else(|| json!({}))),
        ElicitationAction::Decline => Some(Value::Null),
        _ => None,
    }
}
