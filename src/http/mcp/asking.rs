//! What a tool wants to know of a person goes to the client, if it can ask one: by a request of ours
//! in the older protocol, as an answer that is to be sent again in the newer one.

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ElicitRequest, ElicitRequestParams, ElicitResult,
    ElicitationAction, InputRequest, InputRequests, InputRequiredResult,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

/// What the answer to our question is called.
const QUESTION: &str = "question";

/// What a client brings along when it sends a call again.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The key of the call that it was.
    pub(super) call: Option<String>,
    /// What a person has said.
    pub(super) answer: Option<Value>,
}

/// Whether a person says something.
#[derive(Debug)]
pub(super) enum Reply {
    Now(Value),
    /// With the call, when it is sent again.
    Later(CallToolResponse),
    Never,
}

// === impl Asked ===

impl Asked {
    pub(super) fn of(request: &CallToolRequestParams) -> Self {
        let answer = request.input_responses.as_ref().and_then(|it| it.get(QUESTION));
        let answer = answer.and_then(|it| serde_json::from_value(it.clone()).ok());
        Self { call: request.request_state.clone(), answer: answer.and_then(answered) }
    }

    pub(super) async fn ask(
        &self,
        context: &RequestContext<RoleServer>,
        (message, schema): (&str, &Value),
        call: &str,
    ) -> Reply {
        let can = context.client_capabilities().is_some_and(|can| can.elicitation.is_some());
        let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
        let Some(params) = serde_json::from_value(params).ok().filter(|_| can) else {
            return Reply::Never;
        };
        let is_old = context.protocol_version().is_none_or(|version| version.has_initialize());
        if is_old { now(context, params).await } else { later(params, call) }
    }
}

async fn now(context: &RequestContext<RoleServer>, params: ElicitRequestParams) -> Reply {
    let asked = context.peer.create_elicitation(params).await;
    asked.ok().and_then(answered).map_or(Reply::Never, Reply::Now)
}

fn later(params: ElicitRequestParams, call: &str) -> Reply {
    let question = InputRequest::Elicitation(ElicitRequest::new(params));
    let questions = InputRequests::from([(QUESTION.to_owned(), question)]);
    let required = InputRequiredResult::new(Some(questions), Some(call.to_owned()));
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
