//! What things are called in traces: every name stands here and nowhere else.
//!
//! `GEN_AI` is of OpenTelemetry's conventions for generative AI (the repository
//! `open-telemetry/semantic-conventions-genai`, `docs/gen-ai/client-inference.md`; their status is
//! Development, so they move), `OPENINFERENCE` of `arize-ai.github.io/openinference/spec`, read in
//! November 2026. What neither has a word for begins with `switchpoint.`.

use crate::canon::Surface;

/// Which conventions name the attributes of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// What kind of span it is, in the conventions' own sense.
    pub(super) kind: &'static str,
    pub(super) operation: &'static str,
    pub(super) provider: &'static str,
    pub(super) request_model: &'static str,
    pub(super) response_model: &'static str,
    pub(super) stream: &'static str,
    pub(super) max_tokens: &'static str,
    pub(super) temperature: &'static str,
    pub(super) top_p: &'static str,
    pub(super) top_k: &'static str,
    pub(super) seed: &'static str,
    pub(super) stop: &'static str,
    pub(super) frequency_penalty: &'static str,
    pub(super) presence_penalty: &'static str,
    pub(super) choices: &'static str,
    /// All of these, as JSON.
    pub(super) parameters: &'static str,
    /// What the provider calls its answer.
    pub(super) response: &'static str,
    /// In seconds, of streams.
    pub(super) first_chunk: &'static str,
    /// All of them, or the one.
    pub(super) finish_reasons: &'static str,
    pub(super) finish_reason: &'static str,
    pub(super) input_tokens: &'static str,
    pub(super) output_tokens: &'static str,
    pub(super) total_tokens: &'static str,
    pub(super) cache_read_tokens: &'static str,
    pub(super) cache_write_tokens: &'static str,
    /// The same by the name that it had before, which most readers know.
    pub(super) cache_creation_tokens: &'static str,
    pub(super) reasoning_tokens: &'static str,
    /// In USD.
    pub(super) cost: &'static str,
    pub(super) input: &'static str,
    pub(super) output: &'static str,
    /// How `input` and `output` are spelled.
    pub(super) input_type: &'static str,
    pub(super) output_type: &'static str,
}

/// An empty name is left out.
pub(super) const GEN_AI: Names = Names {
    kind: "",
    operation: "gen_ai.operation.name",
    provider: "gen_ai.provider.name",
    request_model: "gen_ai.request.model",
    response_model: "gen_ai.response.model",
    stream: "gen_ai.request.stream",
    max_tokens: "gen_ai.request.max_tokens",
    temperature: "gen_ai.request.temperature",
    top_p: "gen_ai.request.top_p",
    top_k: "gen_ai.request.top_k",
    seed: "gen_ai.request.seed",
    stop: "gen_ai.request.stop_sequences",
    frequency_penalty: "gen_ai.request.frequency_penalty",
    presence_penalty: "gen_ai.request.presence_penalty",
    choices: "gen_ai.request.choice.count",
    parameters: "",
    response: "gen_ai.response.id",
    first_chunk: "gen_ai.response.time_to_first_chunk",
    finish_reasons: "gen_ai.response.finish_reasons",
    finish_reason: "",
    input_tokens: "gen_ai.usage.input_tokens",
    output_tokens: "gen_ai.usage.output_tokens",
    total_tokens: "",
    cache_read_tokens: "gen_ai.usage.cache_read.input_tokens",
    cache_write_tokens: "gen_ai.usage.cache_write.input_tokens",
    cache_creation_tokens: "gen_ai.usage.cache_creation.input_tokens",
    reasoning_tokens: "gen_ai.usage.reasoning.output_tokens",
    // Not of the conventions, but what collectors of traces look for.
    cost: "gen_ai.usage.cost",
    input: "gen_ai.input.messages",
    output: "gen_ai.output.messages",
    input_type: "",
    output_type: "",
};

pub(super) const OPENINFERENCE: Names = Names {
    kind: "openinference.span.kind",
    operation: "",
    provider: "llm.provider",
    request_model: "llm.request.model_name",
    response_model: "llm.model_name",
    stream: "",
    max_tokens: "",
    temperature: "",
    top_p: "",
    top_k: "",
    seed: "",
    stop: "",
    frequency_penalty: "",
    presence_penalty: "",
    choices: "",
    parameters: "llm.invocation_parameters",
    response: "",
    first_chunk: "",
    finish_reasons: "",
    finish_reason: "llm.finish_reason",
    input_tokens: "llm.token_count.prompt",
    output_tokens: "llm.token_count.completion",
    total_tokens: "llm.token_count.total",
    cache_read_tokens: "llm.token_count.prompt_details.cache_read",
    cache_write_tokens: "llm.token_count.prompt_details.cache_write",
    cache_creation_tokens: "",
    reasoning_tokens: "llm.token_count.completion_details.reasoning",
    cost: "llm.cost.total",
    input: "input.value",
    output: "output.value",
    input_type: "input.mime_type",
    output_type: "output.mime_type",
};

/// The kinds of OpenInference.
pub(super) const CHAIN: &str = "CHAIN";
pub(super) const GUARDRAIL: &str = "GUARDRAIL";

/// A guard that asks somebody. OpenTelemetry has a proposal for it and no more, in the words of
/// which these are.
pub(super) const APPLY_GUARDRAIL: &str = "apply_guardrail";
pub(super) const GUARD: &str = "gen_ai.guardrail.component.name";
/// What the config calls it, and which config that is.
pub(super) const GUARD_POLICY: &str = "gen_ai.guardrail.policy.id";
pub(super) const GUARD_VERSION: &str = "gen_ai.guardrail.policy.version";
/// `pass`, or what was done.
pub(super) const GUARD_RESULT: &str = "gen_ai.guardrail.result.type";
/// What was found, separated by commas.
pub(super) const GUARD_FOUND: &str = "gen_ai.guardrail.result.value";
/// Which texts of the call it looked at.
pub(super) const GUARD_SOURCE: &str = "gen_ai.guardrail.source";
/// The event with the result.
pub(super) const GUARD_EVENT: &str = "gen_ai.guardrail.result";

pub(super) fn kind(surface: Surface) -> &'static str {
    match surface {
        Surface::Embeddings | Surface::GoogleEmbeddings => "EMBEDDING",
        Surface::Rerank => "RERANKER",
        _ => "LLM",
    }
}

/// What `gen_ai.operation.name` says, which also begins the names of spans.
pub(super) fn operation(surface: Surface) -> &'static str {
    match surface {
        Surface::Chat | Surface::Responses | Surface::Messages | Surface::Turn => "chat",
        Surface::Completions => "text_completion",
        other => other.name(),
    }
}

// Of OpenTelemetry's general conventions.
pub(super) const ERROR_TYPE: &str = "error.type";
pub(super) const STATUS_CODE: &str = "http.response.status_code";
pub(super) const SERVER: &str = "server.address";
pub(super) const PORT: &str = "server.port";
pub(super) const USER: &str = "user.id";
pub(super) const SERVICE_NAME: &str = "service.name";
pub(super) const SERVICE_VERSION: &str = "service.version";

// Our own, of the call.
pub(super) const CALL: &str = "switchpoint.call.id";
pub(super) const SURFACE: &str = "switchpoint.surface";
pub(super) const ROUTE: &str = "switchpoint.route";
pub(super) const TASK: &str = "switchpoint.task";
pub(super) const TASK_BY: &str = "switchpoint.task_by";
pub(super) const SKIPPED: &str = "switchpoint.skipped";
pub(super) const OUTCOME: &str = "switchpoint.outcome";
pub(super) const KEY: &str = "switchpoint.key";
pub(super) const TEAM: &str = "switchpoint.team";
pub(super) const ORG: &str = "switchpoint.org";
/// `off`, `miss`, `hit` or `semantic`.
pub(super) const CACHE: &str = "switchpoint.cache";
pub(super) const PURPOSE: &str = "switchpoint.purpose";
pub(super) const ATTEMPTS: &str = "switchpoint.attempts";
pub(super) const COST: &str = "switchpoint.cost_usd";
pub(super) const TOKENS: &str = "switchpoint.tokens";
pub(super) const OVERHEAD: &str = "switchpoint.overhead_us";
pub(super) const GENERATION: &str = "switchpoint.generation";
pub(super) const DROPPED: &str = "switchpoint.dropped";
pub(super) const FIRST_TOKEN: &str = "switchpoint.first_token_seconds";
/// `NAME: stage action`, of each guard that looked at the call.
pub(super) const GUARDS: &str = "switchpoint.guards";
/// Of a guard that asks: whom, how sure it is, how much it was shown, and why it has no verdict.
pub(super) const GUARD_KIND: &str = "switchpoint.guard.kind";
pub(super) const GUARD_SCORE: &str = "switchpoint.guard.score";
pub(super) const GUARD_BYTES: &str = "switchpoint.guard.scanned_bytes";
pub(super) const GUARD_FAILURE: &str = "switchpoint.guard.failure";
/// The mark's own name follows.
pub(super) const TAG: &str = "switchpoint.tag.";

// Our own, of an attempt.
pub(super) const PROVIDER: &str = "switchpoint.provider";
/// `provider`, `estimated` or `none`.
pub(super) const USAGE_SOURCE: &str = "switchpoint.usage_source";
/// SHA-256 of what was asked and answered, where it is not shown.
pub(super) const INPUT_HASH: &str = "switchpoint.input.sha256";
pub(super) const OUTPUT_HASH: &str = "switchpoint.output.sha256";

/// What spans of runs tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    AgentName,
    AgentId,
    AgentVersion,
    AgentDescription,
    Conversation,
    RequestModel,
    ResponseModel,
    System,
    OutputType,
    FinishReasons,
    InputTokens,
    OutputTokens,
    CacheReadTokens,
    CacheWriteTokens,
    CacheCreationTokens,
    ReasoningTokens,
    Cost,
    User,
    ToolName,
    ToolCall,
    ToolType,
    ToolKind,
    ToolDescription,
    ToolArguments,
    ToolResult,
    ArgumentsHash,
    ResultHash,
    ToolVersion,
    ToolEffect,
    ToolAttempts,
    ToolCached,
    Approval,
    Run,
    RunState,
    StopReason,
    RunCost,
    Steps,
    Key,
    Prompt,
    FallbackLevel,
    Cached,
    PlanSteps,
    McpMethod,
    McpProtocol,
    McpSession,
    RpcRequest,
    RpcStatus,
    Transport,
}

/// In the words of OpenTelemetry (`docs/gen-ai/gen-ai-agent-spans.md`) and of OpenInference. An
/// empty name is left out.
const FACTS: &[(Fact, &str, &str)] = &[
    (Fact::AgentName, "gen_ai.agent.name", "agent.name"),
    (Fact::AgentId, "gen_ai.agent.id", ""),
    (Fact::AgentVersion, "gen_ai.agent.version", "switchpoint.agent.version"),
    (Fact::AgentDescription, "gen_ai.agent.description", ""),
    (Fact::Conversation, "gen_ai.conversation.id", "session.id"),
    (Fact::RequestModel, GEN_AI.request_model, OPENINFERENCE.request_model),
    (Fact::ResponseModel, GEN_AI.response_model, OPENINFERENCE.response_model),
    (Fact::System, GEN_AI.provider, OPENINFERENCE.provider),
    (Fact::OutputType, "gen_ai.output.type", ""),
    (Fact::FinishReasons, GEN_AI.finish_reasons, ""),
    (Fact::InputTokens, GEN_AI.input_tokens, OPENINFERENCE.input_tokens),
    (Fact::OutputTokens, GEN_AI.output_tokens, OPENINFERENCE.output_tokens),
    (Fact::CacheReadTokens, GEN_AI.cache_read_tokens, OPENINFERENCE.cache_read_tokens),
    (Fact::CacheWriteTokens, GEN_AI.cache_write_tokens, OPENINFERENCE.cache_write_tokens),
    (Fact::CacheCreationTokens, GEN_AI.cache_creation_tokens, OPENINFERENCE.cache_creation_tokens),
    (Fact::ReasoningTokens, GEN_AI.reasoning_tokens, OPENINFERENCE.reasoning_tokens),
    (Fact::Cost, GEN_AI.cost, OPENINFERENCE.cost),
    (Fact::User, USER, USER),
    (Fact::ToolName, "gen_ai.tool.name", "tool.name"),
    (Fact::ToolCall, "gen_ai.tool.call.id", "tool_call.id"),
    (Fact::ToolType, "gen_ai.tool.type", ""),
    (Fact::ToolDescription, "gen_ai.tool.description", "tool.description"),
    (Fact::ToolArguments, "gen_ai.tool.call.arguments", OPENINFERENCE.input),
    (Fact::ToolResult, "gen_ai.tool.call.result", OPENINFERENCE.output),
    (Fact::ArgumentsHash, INPUT_HASH, INPUT_HASH),
    (Fact::ResultHash, OUTPUT_HASH, OUTPUT_HASH),
    (Fact::ToolKind, "switchpoint.tool.kind", "switchpoint.tool.kind"),
    (Fact::ToolVersion, "switchpoint.tool.version", "switchpoint.tool.version"),
    (Fact::ToolEffect, "switchpoint.tool.effect", "switchpoint.tool.effect"),
    (Fact::ToolAttempts, "switchpoint.tool.attempts", "switchpoint.tool.attempts"),
    (Fact::ToolCached, "switchpoint.tool.cache_hit", "switchpoint.tool.cache_hit"),
    (Fact::Approval, "switchpoint.approval.id", "switchpoint.approval.id"),
    (Fact::Run, "switchpoint.run.id", "switchpoint.run.id"),
    (Fact::RunState, "switchpoint.run.state", "switchpoint.run.state"),
    (Fact::StopReason, "switchpoint.run.stop_reason", "switchpoint.run.stop_reason"),
    (Fact::RunCost, "switchpoint.run.cost_usd", "switchpoint.run.cost_usd"),
    (Fact::Steps, "switchpoint.run.steps", "switchpoint.run.steps"),
    (Fact::Key, KEY, KEY),
    (Fact::Prompt, "switchpoint.prompt.version", "switchpoint.prompt.version"),
    (Fact::FallbackLevel, "switchpoint.fallback.level", "switchpoint.fallback.level"),
    (Fact::Cached, CACHE, CACHE),
    (Fact::PlanSteps, "switchpoint.plan.steps", "switchpoint.plan.steps"),
    // `docs/gen-ai/mcp.md` of the same repository: on the span of the tool, which is not doubled.
    (Fact::McpMethod, "mcp.method.name", "mcp.method.name"),
    (Fact::McpProtocol, "mcp.protocol.version", "mcp.protocol.version"),
    (Fact::McpSession, "mcp.session.id", "mcp.session.id"),
    (Fact::RpcRequest, "jsonrpc.request.id", "jsonrpc.request.id"),
    (Fact::RpcStatus, "rpc.response.status_code", "rpc.response.status_code"),
    (Fact::Transport, "network.transport", "network.transport"),
];

/// What a run's span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStep {
    /// A piece of work at the run, from its beginning or from where it was taken up to where it was
    /// left.
    Agent,
    /// What is to be done is written down.
    Plan,
    Tool,
    Model,
}

// === impl RunStep ===

impl RunStep {
    /// What `gen_ai.operation.name` says, which also begins the names of spans.
    pub(super) fn operation(self) -> &'static str {
        match self {
            Self::Agent => "invoke_agent",
            Self::Plan => "plan",
            Self::Tool => "execute_tool",
            Self::Model => "chat",
        }
    }

    /// Of OpenInference.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::Plan => CHAIN,
            Self::Tool => "TOOL",
            Self::Model => "LLM",
        }
    }
}

// === impl Names ===

impl Names {
    pub(super) fn fact(&self, fact: Fact) -> &'static str {
        let row = FACTS.iter().find(|(known, ..)| *known == fact);
        let is_ours = self.kind.is_empty();
        row.map_or("", |(_, gen_ai, other)| if is_ours { gen_ai } else { other })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_facts_of_a_run_have_the_same_name() {
        let names: BTreeSet<&str> = FACTS.iter().map(|(_, name, _)| *name).collect();
        assert_eq!(names.len(), FACTS.len());
    }
}
