//! What a server says unasked: that its tools have changed, and what it wants to know of a person
//! before it can go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
    ErrorCode, Implementation, ProtocolVersion, RequestId,
};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::time::timeout;

use super::answer::as_value;

/// When a question that nobody answers here is answered nevertheless.
const MOOT: Duration = Duration::from_secs(30);

/// Listens to one server.
#[derive(Debug, Clone)]
pub(super) struct Ear {
    pub(super) calls: Arc<Calls>,
    /// Rung when the tools of the server are others.
    pub(super) changed: Arc<Notify>,
}

/// The calls that one connection waits for.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<HashMap<RequestId, Asker>>);

/// Who can be asked about one call.
#[derive(Debug)]
pub(super) struct Asker {
    /// What a person has said already.
    pub(super) answer: Option<Value>,
    pub(super) ask: Option<oneshot::Sender<Question>>,
    /// Nobody answers another question.
    pub(super) has_answered: bool,
}

/// What a person must say, and the schema of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) message: String,
    pub(super) schema: Value,
}

// === impl Calls ===

impl Calls {
    /// Sends a request so that no question about it comes before it is known whom to ask.
    pub(super) async fn begin<T, E>(
        &self,
        sending: impl Future<Output = Result<T, E>>,
        (id, asker): (impl FnOnce(&T) -> RequestId, Asker),
    ) -> Result<T, E> {
        let mut calls = self.0.lock().await;
        let sent = sending.await?;
        calls.retain(|_, asker| asker.ask.as_ref().is_none_or(|ask| !ask.is_closed()));
        calls.insert(id(&sent), asker);
        Ok(sent)
    }

    pub(super) async fn end(&self, id: &RequestId) {
        self.0.lock().await.remove(id);
    }

    /// What is said to a question, when a person has answered it, or is to.
    async fn asked(&self, about: Option<&RequestId>, question: Question) -> Option<ElicitResult> {
        let mut calls = self.0.lock().await;
        let asker = match about {
            Some(id) => calls.get_mut(id),
            // Where the transport does not tell, it can only be about the one.
            None if calls.len() == 1 => calls.values_mut().next(),
            None => None,
        };
        let asker = asker?;
        if let Some(answer) = asker.answer.take() {
            asker.has_answered = true;
            return Some(answered(answer, &question.schema));
        }
        if let Some(ask) = asker.ask.take_if(|_| !asker.has_answered) {
            let _ = ask.send(question);
        }
        None
    }
}

/// What a person has said, as the protocol has it: nothing is a no, and what was left out is what
/// the schema says it is then.
pub(super) fn answered(mut answer: Value, schema: &Value) -> ElicitResult {
    if answer.is_null() {
        return ElicitResult::new(ElicitationAction::Decline);
    }
    if let (Some(said), Some(asked)) = (answer.as_object_mut(), schema["properties"].as_object()) {
        for (name, default) in
            asked.iter().filter_map(|(name, it)| Some((name, it.get("default")?)))
        {
            said.entry(name.clone()).or_insert_with(|| default.clone());
        }
    }
    ElicitResult::new(ElicitationAction::Accept).with_content(answer)
}

/// What is asked, as our users are asked.
pub(super) fn question(request: &ElicitRequestParams) -> Option<Question> {
    match request {
        ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } => {
            Some(Question { message: message.clone(), schema: as_value(requested_schema) })
        }
        ElicitRequestParams::UrlElicitationParams { message, url, .. } => {
            let schema = json!({"type": "object", "properties": {}});
            Some(Question { message: format!("{message}\n{url}"), schema })
        }
        _ => None,
    }
}

// === impl Ear ===

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::builder().enable_elicitation().build();
        if let Some(elicitation) = &mut capabilities.elicitation {
            elicitation.form = Some(rmcp::model::FormElicitationCapability::default());
            elicitation.url = Some(rmcp::model::UrlElicitationCapability::default());
        }
        let name = env!("CARGO_PKG_NAME");
        ClientConfig::new(capabilities, Implementation::new(name, env!("CARGO_PKG_VERSION")))
            // The newest one that begins with a handshake.
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let Some(question) = question(&request) else {
            let message = "This kind of question is not known here.";
            return Err(ErrorData::new(ErrorCode::INVALID_PARAMS, message, None));
        };
        let about = match context.extensions.get::<InboundStreamOrigin>() {
            Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id),
            Some(InboundStreamOrigin::Unassociated) | None => None,
        };
        if let Some(answer) = self.calls.asked(about, question).await {
            return Ok(answer);
        }
        // The call is called off now, and made again when a person has answered. What is said here
        // is moot then, so it comes when that is known to the server.
        let _ = timeout(MOOT, context.ct.cancelled()).await;
        Ok(ElicitResult::new(ElicitationAction::Cancel))
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}
