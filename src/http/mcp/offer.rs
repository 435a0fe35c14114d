//! What one caller is offered, and what becomes of its calls.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, Implementation, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool as Listed,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::agents;
use super::answer::{erred, failed, refused, result};
use super::asking::{Asked, Reply};
use crate::access::Caller;
use crate::canon::CallId;
use crate::gateway::agents::Unmade;
use crate::gateway::{Gateway, Snapshot};
use crate::tool::{FailureKind, Invocation, Tool};

/// The longest that a call may take, whatever it reports.
const LONGEST: Duration = Duration::from_mins(10);
/// Where a caller says that it is the same call again.
pub(super) const IDEMPOTENCY_KEY: &str = "switchpoint/idempotency-key";
pub(super) const TRACEPARENT: &str = "traceparent";

/// Answers the requests of one client.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) gateway: Arc<Gateway>,
}

/// Who sent a request, and by which config it goes.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) caller: Caller,
    pub(super) house: Arc<Snapshot>,
}

// === impl Visit ===

impl Visit {
    fn of(context: &RequestContext<RoleServer>) -> Result<&Self, ErrorData> {
        let parts = context.extensions.get::<Parts>();
        let visit = parts.and_then(|parts| parts.extensions.get::<Self>());
        visit.ok_or_else(|| ErrorData::internal_error("nobody is known to ask", None))
    }

    /// The tools that this caller may call.
    fn tools(&self) -> Vec<Arc<Tool>> {
        let mut tools = self.house.toolbox.named(&self.house.config.mcp.tools);
        tools.retain(|tool| !tool.terms.internal && self.caller.may_use_tool(&tool.name));
        tools
    }

    /// One of them, by either of its names.
    fn tool(&self, name: &str) -> Option<Arc<Tool>> {
        self.tools().into_iter().find(|tool| *tool.name == *name || *tool.alias == *name)
    }
}

// === impl Offer ===

impl ServerHandler for Offer {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        info
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let visit = Visit::of(&context)?;
        let mut tools: Vec<Listed> = visit.tools().iter().map(|tool| listed(tool)).collect();
        tools.extend(agents::listed(visit));
        // What one key sees is not for others, and may change with the next reload.
        Ok(ListToolsResult::with_all_items(tools)
            .with_ttl_ms(0)
            .with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let visit = Visit::of(&context)?;
        let cancelled = context.ct.clone();
        let answered = async {
            // What a caller may not use is not there for it.
            if let Some(tool) = visit.tool(&request.name) {
                Ok(call(&self.gateway, (visit, &tool), (request, &context)).await)
            } else if let Some(agent) = agents::named(visit, &request.name) {
                let run = agents::run(&self.gateway, (visit, agent), (request, &context));
                Ok(run.await.into())
            } else {
                let message = format!("Unknown tool: {}", request.name);
                Err(ErrorData::invalid_params(message, None))
            }
        };
        tokio::select! {
            answer = answered => answer,
            () = cancelled.cancelled() => {
                Ok(refused("cancelled", "the call was cancelled", None).into())
            }
        }
    }
}

fn listed(tool: &Tool) -> Listed {
    let schema = match &tool.input {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    Listed::new(tool.alias.to_string(), tool.description.clone(), Arc::new(schema))
}

async fn call(
    gateway: &Arc<Gateway>,
    (visit, tool): (&Visit, &Tool),
    (request, context): (CallToolRequestParams, &RequestContext<RoleServer>),
) -> CallToolResponse {
    let mut asked = Asked::of(&request);
    let caller = &visit.caller;
    let key = said(context, IDEMPOTENCY_KEY).or_else(|| asked.call.take());
    let key = key.unwrap_or_else(|| CallId::new().simple());
    let mut invocation = Invocation {
        args: Value::Object(request.arguments.unwrap_or_default()),
        idempotency_key: format!("{}:{key}", caller.owner()),
        user: Some(Arc::clone(caller.user().unwrap_or_else(|| caller.owner()))),
        traceparent: said(context, TRACEPARENT),
        deadline: Instant::now() + LONGEST,
        answer: asked.answer.take(),
    };
    let by = || (caller, Arc::clone(&visit.house));
    let mut result = gateway.call_tool(by(), tool, invocation.clone()).await;
    if let Err(Unmade::Failed(failure)) = &result
        && let FailureKind::NeedsInput { message, schema } = &failure.kind
        && invocation.answer.is_none()
    {
        match asked.ask(context, (message, schema), &key).await {
            Reply::Later(response) => return response,
            Reply::Now(answer) => {
                invocation.answer = Some(answer);
                invocation.deadline = Instant::now() + LONGEST;
                result = gateway.call_tool(by(), tool, invocation).await;
            }
            Reply::Never => {}
        }
    }
    match result {
        Ok(output) => self::result(output),
        Err(Unmade::Failed(failure)) => failed(&failure),
        Err(Unmade::Refused(error)) => erred(&error),
    }
    .into()
}

/// What a caller has said beside its arguments.
pub(super) fn said(context: &RequestContext<RoleServer>, key: &str) -> Option<String> {
    context.meta.get(key).and_then(Value::as_str).map(str::to_owned)
}
