//! What servers say and ask while they work at a request goes to the client that waits for it.

use std::collections::BTreeMap;
use std::pin::pin;

use rmcp::model::{
    ClientResult, ElicitRequestParams, ErrorCode, InputRequest, InputRequiredResult,
    InputResponses, ServerNotification, ServerRequest,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServiceError};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::tool::mcp::{Aside, Listener, Logs, Resumed, can_be_asked, filled};

/// Times that a server may ask back before it answers.
pub(super) const MOST_ROUNDS: usize = 8;

type Context = RequestContext<RoleServer>;

/// Whether the client speaks the older protocol, in which it can be asked while it waits.
pub(super) fn is_old(context: &Context) -> bool {
    context.protocol_version().is_none_or(|version| version.has_initialize())
}

/// The client of this request, as servers know it. `level` is what a session has asked for.
pub(super) fn listener(
    context: &Context,
    level: Option<String>,
    resumes: Option<Resumed>,
) -> (Listener, Receiver<Aside>) {
    let is_old = is_old(context);
    let asked = context.meta.0.get("io.modelcontextprotocol/logLevel");
    let level = asked.and_then(|it| it.as_str()).map(str::to_owned).or(level);
    let logs = match level {
        Some(level) => Logs::From(level),
        // The newer protocol is silent unless it is asked.
        None if is_old => Logs::Any,
        None => Logs::None,
    };
    let can = context.client_capabilities().unwrap_or_default();
    Listener::new(can, is_old, logs, resumes)
}

/// Waits for some work, and brings what is said meanwhile.
pub(super) async fn attend<T>(
    work: impl Future<Output = T>,
    mut asides: Receiver<Aside>,
    context: &Context,
) -> T {
    let result = {
        let mut work = pin!(work);
        let mut bring = pin!(bring(&mut asides, context));
        tokio::select! {
            // What was said before the answer is brought before it.
            biased;
            never = &mut bring => match never {},
            result = &mut work => result,
        }
    };
    while let Ok(Aside::Told(told)) = asides.try_recv() {
        tell(*told, context).await;
    }
    result
}

async fn bring(asides: &mut Receiver<Aside>, context: &Context) -> std::convert::Infallible {
    while let Some(aside) = asides.recv().await {
        match aside {
            Aside::Told(told) => tell(*told, context).await,
            Aside::Asks(request, answer) => {
                // Who has asked may not wait any more.
                let _ = answer.send(ask(*request, context).await);
            }
        }
    }
    std::future::pending().await
}

async fn tell(mut told: ServerNotification, context: &Context) {
    if let ServerNotification::ProgressNotification(progress) = &mut told {
        let Some(token) = context.meta.get_progress_token() else { return };
        progress.params.progress_token = token;
    }
    // Who has left hears nothing.
    let _ = context.peer.send_notification(told).await;
}

async fn ask(request: ServerRequest, context: &Context) -> Result<ClientResult, ErrorData> {
    context.peer.send_request(request).await.map_err(|error| match error {
        ServiceError::McpError(error) => error,
        error => ErrorData::internal_error(error.to_string(), None),
    })
}

/// Asks a client of the older protocol for what a server of the newer one wants.
pub(super) async fn answers(
    wants: InputRequiredResult,
    context: &Context,
) -> Result<Resumed, ErrorData> {
    let mut responses: InputResponses = BTreeMap::new();
    for (key, request) in wants.input_requests.into_iter().flatten() {
        let can = context.client_capabilities().unwrap_or_default();
        let (is_able, request) = match request {
            InputRequest::Elicitation(it) => {
                let opens = matches!(it.params, ElicitRequestParams::UrlElicitationParams { .. });
                (can_be_asked(&can, opens), ServerRequest::ElicitRequest(it))
            }
            InputRequest::CreateMessage(it) => {
                (can.sampling.is_some(), ServerRequest::CreateMessageRequest(it))
            }
            InputRequest::ListRoots(it) => {
                (can.roots.is_some(), ServerRequest::ListRootsRequest(it))
            }
            _ => (false, ServerRequest::PingRequest(rmcp::model::PingRequest::default())),
        };
        if !is_able {
            let message = "The server wants to know something that this client cannot be asked.";
            return Err(ErrorData::new(ErrorCode::INVALID_REQUEST, message, None));
        }
        let asked = json!(request);
        let answer = ask(request, context).await?;
        let mut answer = json!(answer);
        if let Some(said) = answer.get_mut("content").filter(|_| wants_form(&asked)) {
            *said = filled(said.take(), &asked["params"]["requestedSchema"]);
        }
        responses.insert(key, answer);
    }
    Ok(Resumed { responses: Some(responses), state: wants.request_state })
}

/// Whether a request is for what a person writes into a form.
fn wants_form(asked: &Value) -> bool {
    asked["params"]["requestedSchema"].is_object()
}
