//! What one caller is offered, and what becomes of its calls.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
    CompleteResult, ErrorCode, GetPromptRequestParams, GetPromptResponse, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities,
    ServerConfig, SubscriptionFilter, Tool as Listed,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::agents;
use super::answer::{erred, failed, refused, result};
use super::asking::{Asked, Reply};
use super::attend::{MOST_ROUNDS, answers, attend, is_old, listener};
use super::session::{Seen, State, keep_told, tell};
use super::shelf::{PROMPTS, RESOURCES, TEMPLATES, consult, no_resource, read};
use crate::access::Caller;
use crate::canon::{CallId, Passed};
use crate::config::ToolKind;
use crate::gateway::agents::Unmade;
use crate::gateway::{Gateway, Snapshot};
use crate::tool::{Failure, FailureKind, Health, Invocation, Output, Tool};

/// The longest that a call may take, whatever it reports.
const LONGEST: Duration = Duration::from_mins(10);
/// Where a caller says that it is the same call again.
pub(super) const IDEMPOTENCY_KEY: &str = "switchpoint/idempotency-key";

/// Where a list says that a tool cannot be called.
const HEALTH: &str = "switchpoint/health";

/// Answers the requests of one client.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) gateway: Arc<Gateway>,
    /// Who began the session; without one, who asks. It outlives many configs, and so holds none.
    pub(super) caller: Caller,
    pub(super) state: Arc<State>,
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
        // Agents are offered as agents.
        let is_ours =
            |tool: &Tool| !tool.terms.internal && !matches!(tool.terms.kind, ToolKind::Agent(_));
        tools.retain(|tool| is_ours(tool) && self.caller.may_use_tool(&tool.name));
        tools
    }

    /// One of them, by either of its names.
    fn tool(&self, name: &str) -> Option<Arc<Tool>> {
        let is_it = |tool: &Tool| match own_name(tool) {
            Some(own) if self.house.config.mcp.bare => own == name,
            _ => *tool.name == *name || *tool.alias == *name,
        };
        self.tools().into_iter().find(|tool| is_it(tool))
    }

    /// What a tool gave: as its server said it, where it is one of MCP.
    fn result(&self, tool: &Tool, output: Output) -> CallToolResult {
        let said = tool.verbatim(&output.raw).filter(|_| !output.truncated);
        let said = said.and_then(|said| self.readable(tool, said));
        said.unwrap_or_else(|| result(output))
    }

    fn failed(&self, tool: &Tool, failure: &Failure) -> Result<CallToolResponse, ErrorData> {
        let said = failure.verbatim.as_deref().filter(|_| failure.kind == FailureKind::Soft);
        if let Some(said) = said.cloned() {
            if said["code"].is_i64() {
                return Err(read(said)?);
            }
            if let Some(result) = self.readable(tool, said) {
                return Ok(result.into());
            }
        }
        Ok(failed(failure).into())
    }

    fn readable(&self, tool: &Tool, mut said: Value) -> Option<CallToolResult> {
        let (server, _) = tool.name.split_once('.')?;
        self.names(server).readdress(&mut said);
        serde_json::from_value(said).ok()
    }

    /// A tool as it is listed: all that its server says of it, by the name that it has here.
    fn listed(&self, tool: &Tool) -> Listed {
        let own = own_name(tool);
        let name = own.filter(|_| self.house.config.mcp.bare).unwrap_or(&tool.alias);
        let source = tool.name.split_once('.').map(|(source, _)| source);
        let server = source.and_then(|it| self.house.toolbox.source(it)?.server());
        let listed = own.and_then(|own| server?.listed(own));
        let mut listed = listed.unwrap_or_else(|| described(tool));
        listed.name = name.to_owned().into();
        if let Health::Blocked { why } = tool.health() {
            let said = listed.description.unwrap_or_default();
            listed.description = Some(format!("[Blocked: {why}.] {said}").into());
            let meta = listed.meta.get_or_insert_default();
            meta.0.insert(HEALTH.to_owned(), json!({"state": "blocked", "reason": why}));
        }
        listed
    }
}

// === impl Offer ===

impl Offer {
    /// As it would be now.
    fn visit(&self) -> Visit {
        Visit { caller: self.caller.clone(), house: self.gateway.snapshot() }
    }
}

#[expect(deprecated, reason = "the older protocol has it, and its clients are answered")]
impl ServerHandler for Offer {
    fn get_info(&self) -> ServerConfig {
        let house = self.gateway.snapshot();
        let mcp = &house.config.mcp;
        let mut can = json!({"tools": {"listChanged": true}, "logging": {}});
        if !mcp.resources.is_empty() {
            can["resources"] = json!({"subscribe": true, "listChanged": true});
            can["completions"] = json!({});
        }
        if !mcp.prompts.is_empty() {
            can["prompts"] = json!({"listChanged": true});
            can["completions"] = json!({});
        }
        let can: ServerCapabilities = serde_json::from_value(can).unwrap_or_default();
        let mut info = ServerConfig::new(can);
        info.server_info = Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        info
    }

    /// For what of a call's arguments headers must say as well.
    fn get_tool(&self, name: &str) -> Option<Listed> {
        let visit = self.visit();
        visit.tool(name).map(|tool| visit.listed(&tool))
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        keep_told(&self.gateway, &self.state, &self.caller, context.peer);
    }

    async fn set_level(
        &self,
        request: rmcp::model::SetLevelRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if !is_old(&context) {
            return Err(unknown("logging/setLevel"));
        }
        if let Ok(Value::String(level)) = serde_json::to_value(request.level) {
            self.state.set_level(level);
        }
        Ok(())
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        read(Visit::of(&context)?.list(&RESOURCES).await)
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        read(Visit::of(&context)?.list(&TEMPLATES).await)
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        read(Visit::of(&context)?.list(&PROMPTS).await)
    }

    async fn read_resource(
        &self,
        mut request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let visit = Visit::of(&context)?;
        let found = visit.resource(&request.uri);
        let (server, own) = found.ok_or_else(|| no_resource(&request.uri))?;
        request.uri = own;
        let asked = ("resources/read", json!(request));
        let result = consult(&self.gateway, visit, &server, asked, &context, &self.state).await?;
        if result["resultType"] == "input_required" {
            return Ok(ReadResourceResponse::InputRequired(read(result)?));
        }
        Ok(ReadResourceResponse::Complete(read(result)?))
    }

    async fn get_prompt(
        &self,
        mut request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let visit = Visit::of(&context)?;
        let unknown = || no_prompt(&request.name);
        let (server, own) = visit.prompt(&request.name).ok_or_else(unknown)?;
        request.name = own;
        let asked = ("prompts/get", json!(request));
        let result = consult(&self.gateway, visit, &server, asked, &context, &self.state).await?;
        if result["resultType"] == "input_required" {
            return Ok(GetPromptResponse::InputRequired(read(result)?));
        }
        Ok(GetPromptResponse::Complete(read(result)?))
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let visit = Visit::of(&context)?;
        let mut params = json!(request);
        let (key, id) = match params["ref"]["type"].as_str() {
            Some("ref/prompt") => ("name", params["ref"]["name"].as_str()),
            _ => ("uri", params["ref"]["uri"].as_str()),
        };
        let id = id.unwrap_or_default();
        let found = if key == "name" { visit.prompt(id) } else { visit.resource(id) };
        let (server, own) = found.ok_or_else(|| no_prompt(id))?;
        params["ref"][key] = Value::from(own);
        let asked = ("completion/complete", params);
        read(consult(&self.gateway, visit, &server, asked, &context, &self.state).await?)
    }

    async fn subscribe(
        &self,
        request: rmcp::model::SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let found = Visit::of(&context)?.resource(&request.uri);
        let (server, own) = found.ok_or_else(|| no_resource(&request.uri))?;
        let watch = server.watch(&own).await?;
        let seen = Seen { server: Arc::clone(server.name()), own };
        self.state.watch(request.uri, (watch, seen));
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: rmcp::model::UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.state.unwatch(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            let visit = self.visit();
            uris.retain(|uri| visit.resource(uri).is_some());
        }
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        tell(&self.gateway, self.visit(), context).await;
        Ok(())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let visit = Visit::of(&context)?;
        let mut tools: Vec<Listed> = visit.tools().iter().map(|tool| visit.listed(tool)).collect();
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
                call(&self.gateway, &self.state, visit, &tool, request, &context).await
            } else if let Some(agent) = agents::named(visit, &request.name) {
                let run = agents::run(&self.gateway, visit, agent, request, &context);
                Ok(Box::pin(run).await)
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

/// What a tool of a server is called there.
fn own_name(tool: &Tool) -> Option<&str> {
    let is_mcp = matches!(tool.terms.kind, ToolKind::Mcp(_));
    tool.name.split_once('.').map(|(_, own)| own).filter(|_| is_mcp)
}

fn described(tool: &Tool) -> Listed {
    let schema = match &tool.input {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    Listed::new(tool.alias.to_string(), tool.description.clone(), Arc::new(schema))
}

fn unknown(method: &str) -> ErrorData {
    ErrorData::new(ErrorCode::METHOD_NOT_FOUND, method.to_owned(), None)
}

fn no_prompt(name: &str) -> ErrorData {
    ErrorData::invalid_params(format!("Unknown prompt: {name}"), None)
}

async fn call(
    gateway: &Arc<Gateway>,
    state: &State,
    visit: &Visit,
    tool: &Tool,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let mut asked = Asked::of(&request);
    let mut resumes = asked.resumes.take();
    let caller = &visit.caller;
    let key = said(context, IDEMPOTENCY_KEY).or_else(|| asked.call.take());
    let key = key.unwrap_or_else(|| CallId::new().simple());
    let mut invocation = Invocation {
        args: Value::Object(request.arguments.unwrap_or_default()),
        idempotency_key: format!("{}:{key}", caller.owner()),
        user: Some(caller.person()),
        passed: passed(context),
        deadline: Instant::now() + LONGEST,
        answer: asked.answer.take(),
        listener: None,
    };
    for _ in 0..MOST_ROUNDS {
        let (listener, asides) = listener(context, state.level(), resumes.take());
        invocation.listener = Some(listener);
        let by = (caller, Arc::clone(&visit.house));
        let making = gateway.call_tool(by, tool, invocation.clone());
        let failure = match Box::pin(attend(making, asides, context)).await {
            Ok(output) => return Ok(visit.result(tool, output).into()),
            Err(Unmade::Refused(error)) => return Ok(erred(&error).into()),
            Err(Unmade::Failed(failure)) => failure,
        };
        let FailureKind::NeedsInput { message, schema } = &failure.kind else {
            return visit.failed(tool, &failure);
        };
        if let Some(wants) = failure.verbatim {
            let wants = read(*wants)?;
            if !is_old(context) {
                return Ok(CallToolResponse::InputRequired(wants));
            }
            resumes = Some(answers(wants, context).await?);
            continue;
        }
        if invocation.answer.is_some() {
            return Ok(failed(&failure).into());
        }
        match asked.ask(context, (message, schema), &key).await {
            Reply::Later(response) => return Ok(response),
            Reply::Now(answer) => invocation.answer = Some(answer),
            Reply::Never | Reply::Gone => return Ok(failed(&failure).into()),
        }
        invocation.deadline = Instant::now() + LONGEST;
    }
    Ok(refused("soft_error", "the server wanted to be asked again too often", None).into())
}

/// What a caller wants told to whoever is asked for it.
pub(super) fn passed(context: &RequestContext<RoleServer>) -> Passed {
    let said = |key| context.meta.get(key).and_then(Value::as_str);
    Passed::read(said("traceparent"), said("tracestate"), said("baggage"))
}

/// What a caller has said beside its arguments.
pub(super) fn said(context: &RequestContext<RoleServer>, key: &str) -> Option<String> {
    context.meta.get(key).and_then(Value::as_str).map(str::to_owned)
}
