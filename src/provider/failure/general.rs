//! What means the same whoever says it.

use super::Class;
use super::signs::Sign;

/// The first sign that shows counts.
pub(super) const GENERAL: &[Sign] = &[
    Sign {
        class: Class::ContextTooLong,
        statuses: &[400, 413, 422, 500],
        codes: &[
            "context_length_exceeded",
            "exceed_context_size_error",
            "model_context_window_exceeded",
            "context_window_exceeded",
            "tokens_limit_reached",
        ],
        texts: CONTEXT,
    },
    Sign {
        class: Class::ContentFiltered,
        statuses: &[400, 403, 422, 451, 500],
        codes: &[
            "content_filter",
            "content_policy_violation",
            "content_filtered",
            "moderation_blocked",
            "invalid_prompt_flagged",
            "censorship_blocked",
            "PROHIBITED_CONTENT",
            "SAFETY",
        ],
        texts: &[
            "content management policy",
            "output blocked by content filtering policy",
            "rejected as a result of our safety system",
        ],
    },
    // A key of the one behind a gateway, for one of its models; ours is good.
    Sign {
        class: Class::NotAllowed,
        statuses: &[400, 401, 403, 500],
        codes: &[],
        texts: &["litellm.authenticationerror"],
    },
    Sign { class: Class::Budget, statuses: &[400, 429], codes: &["budget_exceeded"], texts: &[] },
    Sign {
        class: Class::InvalidKey,
        statuses: &[400, 403, 422],
        codes: &[
            "invalid_api_key",
            "incorrect_api_key",
            "INVALID_API_KEY",
            "API_KEY_INVALID",
            "authentication_error",
            "AuthenticationError",
            "UNAUTHENTICATED",
            "unauthenticated",
            "token_expired",
            // LiteLLM's for a key that it does not know, where it has no database.
            "no_db_connection",
        ],
        texts: &["incorrect api key", "invalid api key", "api key not valid", "invalid x-api-key"],
    },
    Sign {
        class: Class::Quota,
        statuses: &[400, 403],
        codes: &[
            "insufficient_balance",
            "insufficient_credits",
            "payment_required",
            "insufficient_quota",
        ],
        texts: &["insufficient balance", "insufficient credits", "insufficient funds"],
    },
    Sign {
        class: Class::ModelNotFound,
        statuses: &[400, 403, 422, 500],
        codes: &[
            "model_not_found",
            "unknown_model",
            "model_not_available",
            "not_found_error",
            "NOT_FOUND",
        ],
        texts: &[
            "does not exist or you do not have access to it",
            "unknown model",
            "model not found",
            "invalid model name",
        ],
    },
    Sign {
        class: Class::RateLimited,
        statuses: &[400, 403, 413, 500],
        codes: &[
            "rate_limit_exceeded",
            "rate_limit_error",
            "rate_limited",
            "RateLimitReached",
            "too_many_requests",
            "RESOURCE_EXHAUSTED",
            "ThrottlingException",
        ],
        texts: &["tokens per minute (tpm)", "requests per minute (rpm)"],
    },
    Sign {
        class: Class::Overloaded,
        statuses: &[400],
        codes: &[
            "overloaded_error",
            "overloaded",
            "engine_overloaded",
            "UNAVAILABLE",
            "server_overloaded",
        ],
        texts: &["model is overloaded", "currently overloaded"],
    },
    // Only what claims to be a success: there no status says so.
    Sign {
        class: Class::NotAllowed,
        statuses: IN_BAND,
        codes: &["permission_error", "PERMISSION_DENIED", "permission_denied"],
        texts: &[],
    },
    Sign {
        class: Class::InvalidRequest,
        statuses: IN_BAND,
        codes: &[
            "INVALID_ARGUMENT",
            "BadRequestError",
            "bad_request_error",
            "invalid_prompt",
            "invalid_image",
            "unsupported_parameter",
            "unsupported_value",
            "ValidationException",
            "validationException",
        ],
        texts: &[],
    },
    // Some are sorry in a 4xx.
    Sign {
        class: Class::Trouble,
        statuses: &[400, 422],
        codes: &[
            "server_error",
            "internal_server_error",
            "internal_error",
            "InternalServerError",
            "INTERNAL",
        ],
        texts: &["model has crashed"],
    },
];

/// A status that no error has.
const IN_BAND: &[u16] = &[0];

/// A context that is too long, for whom that is no code.
const CONTEXT: &[&str] = &[
    "maximum context length",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input token count",
    "exceed context limit",
    "exceeds the context",
    "exceed the context",
    "context size has been exceeded",
    "exceeds the available context size",
    "exceeds the maximum allowed length",
    "`inputs` must have less than",
    "`inputs` tokens + `max_new_tokens` must be",
    "exceeds the model's context",
    "exceeds the model's maximum",
    "longer than the model's context",
    "longer than the maximum model length",
    "larger than the maximum context",
    "model is loaded with context length",
    "input length exceeds",
    "exceeds context length",
    "context window exceeds limit",
    "exceeds your current context window",
    "tokens in request more than max",
    "`max_new_tokens` must be <=",
    "max_tokens must be at least 1, got -",
    "context length is only",
    "should not exceed max_num_tokens",
    "cannot exceed the total tokens limit",
    "reduce the length of the messages",
    "reduce the length of either one",
    "exceed the configured limit of",
    "exceeds the limit of tokens",
    "prompt token count exceeds",
    "token count exceeds the limit",
];
