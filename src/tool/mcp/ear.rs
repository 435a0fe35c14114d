//! What a server says unasked: that what it has has changed, how far it is, and what it wants to know
//! before it can go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ClientConfig, ClientResult, ElicitRequestParams, ElicitResult,
    ElicitationAction, ErrorCode, Extensions, Implementation, ProgressToken, ProtocolVersion,
    RequestId, ResourceUpdatedNotificationParam, ServerRequest,
};
use rmcp::service::{InboundStreamOrigin, NotificationContext, RequestContext, RequestHandle};
use rmcp::{ClientHandler, ErrorData, RoleClient};
use serde_json::{Value, json};
use sse_stream::Sse;
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::time::timeout;

use super::answer::as_value;
use super::aside::{Listener, level_of};
use super::news::{Change, News};

/// What is said about calls while they are worked at.
const ASIDES: [&str; 2] = ["notifications/progress", "notifications/message"];
/// When a question that nobody answers here is answered nevertheless.
const MOOT: Duration = Duration::from_secs(30);

/// Listens to one server.
#[derive(Debug, Clone)]
pub(super) struct Ear {
    pub(super) calls: Arc<Calls>,
    /// Rung when the tools of the server are others.
    pub(super) changed: Arc<Notify>,
    pub(super) news: News,
    /// Clients of ours may be asked for what a model says.
    pub(super) sampling: bool,
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
    /// Who hears of it while it is worked at, and can be asked.
    pub(super) listener: Option<Listener>,
    pub(super) token: ProgressToken,
    /// Beats when something is heard of the call; how many questions are open.
    pub(super) pulse: watch::Sender<usize>,
}

/// A question that is open.
struct Open(watch::Sender<usize>);

/// What a person must say, and the schema of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Question {
    pub(super) message: String,
    pub(super) schema: Value,
}

// === impl Calls ===

impl Calls {
    /// Sends a request so that no question about it comes before it is known whom to ask.
    pub(super) async fn begin<E>(
        &self,
        sending: impl Future<Output = Result<RequestHandle<RoleClient>, E>>,
        asker: impl FnOnce(ProgressToken) -> Asker,
    ) -> Result<RequestHandle<RoleClient>, E> {
        let mut calls = self.0.lock().await;
        let sent = sending.await?;
        calls.retain(|_, asker| !asker.pulse.is_closed());
        calls.insert(sent.id.clone(), asker(sent.progress_token.clone()));
        Ok(sent)
    }

    pub(super) async fn end(&self, id: &RequestId) {
        self.0.lock().await.remove(id);
    }

    pub(super) async fn waiting(&self) -> Vec<RequestId> {
        self.0.lock().await.keys().cloned().collect()
    }

    /// Hears an event of a stream, if it says something about a call.
    pub(super) async fn overhear(&self, about: Option<&RequestId>, event: Option<&Sse>) {
        let Some(data) = event.and_then(|event| event.data.as_deref()) else { return };
        let is_aside = ASIDES.iter().any(|method| data.contains(method));
        if let Some(said) = is_aside.then(|| serde_json::from_str(data).ok()).flatten() {
            self.hear(about, &said).await;
        }
    }

    /// Hears progress and lines of logs, in the order in which they come. `about` is known where
    /// the transport tells.
    pub(super) async fn hear(&self, about: Option<&RequestId>, said: &Value) {
        let is_progress = match said["method"].as_str() {
            Some("notifications/progress") => true,
            Some("notifications/message") => false,
            _ => return,
        };
        let mut calls = self.0.lock().await;
        let asker = if is_progress {
            let token = &said["params"]["progressToken"];
            calls.values_mut().find(|asker| as_value(&asker.token) == *token)
        } else {
            of(&mut calls, about)
        };
        let Some(asker) = asker else { return };
        asker.pulse.send_modify(|_| {});
        let wanted = |it: &&Listener| is_progress || it.logs.want(level_of(said));
        if let Some(listener) = asker.listener.as_ref().filter(wanted)
            && let Ok(notification) = serde_json::from_value(said.clone())
        {
            listener.tell(notification);
        }
    }

    /// What a client of ours says to a question, if it is there and can be asked.
    async fn relay(
        &self,
        about: Option<&RequestId>,
        (request, can): (ServerRequest, impl FnOnce(&ClientCapabilities) -> bool),
    ) -> Option<Result<ClientResult, ErrorData>> {
        let (listener, open) = {
            let mut calls = self.0.lock().await;
            let asker = of(&mut calls, about)?;
            let listener = asker.listener.clone().filter(|it| it.asks && can(&it.can))?;
            (listener, Open::new(&asker.pulse))
        };
        let answer = listener.ask(request).await;
        drop(open);
        answer
    }

    /// What is said to a question, when a person has answered it, or is to.
    async fn asked(&self, about: Option<&RequestId>, question: Question) -> Option<ElicitResult> {
        let mut calls = self.0.lock().await;
        let asker = of(&mut calls, about)?;
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

fn of<'a>(
    calls: &'a mut HashMap<RequestId, Asker>,
    about: Option<&RequestId>,
) -> Option<&'a mut Asker> {
    match about {
        Some(id) => calls.get_mut(id),
        // Where the transport does not tell, it can only be about the one.
        None if calls.len() == 1 => calls.values_mut().next(),
        None => None,
    }
}

/// About which call a request of the server's is.
fn origin(extensions: &Extensions) -> Option<&RequestId> {
    match extensions.get::<InboundStreamOrigin>() {
        Some(InboundStreamOrigin::OutboundRequest(id)) => Some(id),
        Some(InboundStreamOrigin::Unassociated) | None => None,
    }
}

// === impl Open ===

impl Open {
    fn new(pulse: &watch::Sender<usize>) -> Self {
        pulse.send_modify(|open| *open += 1);
        Self(pulse.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// What a person has said, as the protocol has it: nothing is a no, and what was left out is what
/// the schema says it is then.
pub(super) fn answered(answer: Value, schema: &Value) -> ElicitResult {
    if answer.is_null() {
        return ElicitResult::new(ElicitationAction::Decline);
    }
    ElicitResult::new(ElicitationAction::Accept).with_content(filled(answer, schema))
}

/// What was left out is what the schema says it is then.
pub fn filled(mut answer: Value, schema: &Value) -> Value {
    if let (Some(said), Some(asked)) = (answer.as_object_mut(), schema["properties"].as_object()) {
        for (name, default) in
            asked.iter().filter_map(|(name, it)| Some((name, it.get("default")?)))
        {
            said.entry(name.clone()).or_insert_with(|| default.clone());
        }
    }
    answer
}

/// Whether somebody can be asked by a client: by a form, or to open a page. Who says neither means
/// forms.
pub fn can_be_asked(can: &ClientCapabilities, to_open_page: bool) -> bool {
    let Some(ways) = &can.elicitation else { return false };
    if to_open_page { ways.url.is_some() } else { ways.form.is_some() || ways.url.is_none() }
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

#[expect(deprecated, reason = "the older protocol has it, and its servers are spoken to")]
impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::builder().enable_elicitation().build();
        if let Some(elicitation) = &mut capabilities.elicitation {
            elicitation.form = Some(rmcp::model::FormElicitationCapability::default());
            elicitation.url = Some(rmcp::model::UrlElicitationCapability::default());
        }
        if self.sampling {
            capabilities.sampling = Some(rmcp::model::SamplingCapability::default());
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
        let about = origin(&context.extensions);
        let opens = matches!(request, ElicitRequestParams::UrlElicitationParams { .. });
        let relayed = ServerRequest::ElicitRequest(rmcp::model::ElicitRequest::new(request));
        let relayed = (relayed, |can: &ClientCapabilities| can_be_asked(can, opens));
        match self.calls.relay(about, relayed).await {
            Some(Ok(ClientResult::ElicitResult(mut result))) => {
                result.content = result.content.map(|said| filled(said, &question.schema));
                return Ok(result);
            }
            Some(Err(error)) => return Err(error),
            _ => {}
        }
        if let Some(answer) = self.calls.asked(about, question).await {
            return Ok(answer);
        }
        // The call is called off now, and made again when a person has answered. What is said here
        // is moot then, so it comes when that is known to the server.
        let _ = timeout(MOOT, context.ct.cancelled()).await;
        Ok(ElicitResult::new(ElicitationAction::Cancel))
    }

    async fn create_message(
        &self,
        request: rmcp::model::CreateMessageRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::CreateMessageResult, ErrorData> {
        let about = origin(&context.extensions);
        let request = ServerRequest::CreateMessageRequest(rmcp::model::Request::new(request));
        let can = |can: &ClientCapabilities| self.sampling && can.sampling.is_some();
        match self.calls.relay(about, (request, can)).await {
            Some(Ok(ClientResult::CreateMessageResult(result))) => Ok(*result),
            Some(Err(error)) => Err(error),
            _ => {
                let message = "No model can be asked here.";
                Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
            }
        }
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }

    async fn on_prompt_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.news.tell(Change::Prompts);
    }

    async fn on_resource_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.news.tell(Change::Resources);
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.news.tell(Change::Updated(params.uri));
    }
}
