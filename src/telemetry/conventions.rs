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
    first_chunk: "gen_ai.response.time_to_first_chunk",
    finish_reasons: "gen_ai.response.finish_reasons",
    finish_reason: "",
    input_tokens: "gen_ai.usage.input_tokens",
    output_tokens: "gen_ai.usage.output_tokens",
    total_tokens: "",
    cache_read_tokens: "gen_ai.usage.cache_read.input_tokens",
    cache_write_tokens: "gen_ai.usage.cache_write.input_tokens",
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
    first_chunk: "",
    finish_reasons: "",
    finish_reason: "llm.finish_reason",
    input_tokens: "llm.token_count.prompt",
    output_tokens: "llm.token_count.completion",
    total_tokens: "llm.token_count.total",
    cache_read_tokens: "llm.token_count.prompt_details.cache_read",
    cache_write_tokens: "llm.token_count.prompt_details.cache_write",
    reasoning_tokens: "llm.token_count.completion_details.reasoning",
    cost: "llm.cost.total",
    input: "input.value",
    output: "output.value",
    input_type: "input.mime_type",
    output_type: "output.mime_type",
};

/// The kinds of OpenInference.
pub(super) const CHAIN: &str = "CHAIN";

pub(super) fn kind(surface: Surface) -> &'static str {
    match surface {
        Surface::Embeddings => "EMBEDDING",
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
/// The mark's own name follows.
pub(super) const TAG: &str = "switchpoint.tag.";

// Our own, of an attempt.
pub(super) const PROVIDER: &str = "switchpoint.provider";
/// `provider`, `estimated` or `none`.
pub(super) const USAGE_SOURCE: &str = "switchpoint.usage_source";
/// SHA-256 of what was asked and answered, where it is not shown.
pub(super) const INPUT_HASH: &str = "switchpoint.input.sha256";
pub(super) const OUTPUT_HASH: &str = "switchpoint.output.sha256";
