//! The words in which providers say what is wrong.

use super::Class;

/// Codes and phrases that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign {
    pub class: Class,
    /// With which statuses they have it, 500 for all from there on; none is any. Inside of a
    /// success they always have it.
    pub statuses: &'static [u16],
    /// As they are written, in any field for a code, type, status or reason.
    pub codes: &'static [&'static str],
    /// Found anywhere in what is said, in lower case.
    pub texts: &'static [&'static str],
}

const fn sign(
    class: Class,
    codes: &'static [&'static str],
    texts: &'static [&'static str],
) -> Sign {
    Sign { class, statuses: &[], codes, texts }
}

// Each provider's own words, which mean the same with every status.

pub const OPENAI: &[Sign] = &[
    // That of a gateway which speaks as OpenAI does, and calls it a quota beside.
    sign(Class::Budget, &["budget_exceeded"], &[]),
    sign(
        Class::Quota,
        &["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"],
        &[],
    ),
    sign(Class::InvalidKey, &["account_deactivated", "access_terminated"], &[]),
    sign(Class::ContentFiltered, &[], &["flagged as potentially violating"]),
];

pub const ANTHROPIC: &[Sign] = &[
    sign(
        Class::Quota,
        &["billing_error"],
        &["credit balance is too low", "specified api usage limits"],
    ),
    // It comes before a stream with 529, and inside of one with nothing.
    sign(Class::Overloaded, &["overloaded_error"], &[]),
];

/// Google's two doors. What it calls a quota is a limit of a minute or of a day.
pub const GOOGLE: &[Sign] = &[
    sign(Class::DailyLimit, &[], &["perday", "_per_day", "per day"]),
    sign(
        Class::InvalidKey,
        &[
            "API_KEY_INVALID",
            "API_KEY_SERVICE_BLOCKED",
            "API_KEY_HTTP_REFERRER_BLOCKED",
            "API_KEY_IP_ADDRESS_BLOCKED",
            "CONSUMER_SUSPENDED",
        ],
        &["api key expired", "api key not found", "reported as leaked"],
    ),
    sign(Class::Quota, &["BILLING_DISABLED"], &[]),
    sign(Class::NotAllowed, &[], &["user location is not supported"]),
];

pub const BEDROCK: &[Sign] = &[
    sign(
        Class::InvalidKey,
        &[
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "MissingAuthenticationTokenException",
            "IncompleteSignatureException",
        ],
        &[],
    ),
    sign(Class::DailyLimit, &[], &["too many tokens per day"]),
    sign(
        Class::RateLimited,
        &["ThrottlingException", "throttlingException", "TooManyRequestsException"],
        &[],
    ),
    sign(
        Class::RateLimited,
        &["ServiceQuotaExceededException", "serviceQuotaExceededException"],
        &[],
    ),
    sign(
        Class::Overloaded,
        &[
            "ModelNotReadyException",
            "modelNotReadyException",
            "ServiceUnavailableException",
            "serviceUnavailableException",
        ],
        &[],
    ),
    // The model's trouble, in a 424.
    sign(
        Class::Trouble,
        &[
            "ModelErrorException",
            "modelErrorException",
            "ModelStreamErrorException",
            "modelStreamErrorException",
            "InternalServerException",
            "internalServerException",
        ],
        &[],
    ),
    sign(
        Class::ModelNotFound,
        &["ResourceNotFoundException", "resourceNotFoundException"],
        &["model identifier is invalid", "on-demand throughput isn", "access to the model"],
    ),
    sign(Class::ContentFiltered, &[], &["blocked by our content filters"]),
];

/// It says "quota" of a limit of a minute, and what to wait for it.
pub const AZURE: &[Sign] = &[
    sign(Class::ContentFiltered, &["ResponsibleAIPolicyViolation"], &[]),
    sign(Class::ModelNotFound, &["DeploymentNotFound", "OperationNotSupported"], &[]),
];

pub const COHERE: &[Sign] = &[
    sign(Class::Quota, &[], &["api calls / month", "monthly limit"]),
    sign(Class::ContextTooLong, &[], &["too many tokens"]),
    sign(Class::ContentFiltered, &[], &["blocked input", "blocked output"]),
];

pub const MISTRAL: &[Sign] = &[
    sign(Class::Overloaded, &["3505", "service_tier_capacity_exceeded"], &[]),
    sign(Class::ModelNotFound, &["1500", "invalid_model"], &["invalid model:"]),
    sign(Class::ContextTooLong, &["3051"], &["too large for model with"]),
];

pub const GROQ: &[Sign] = &[
    // A 413 of a minute's tokens is a limit of the account, not of the model.
    sign(Class::RateLimited, &["rate_limit_exceeded"], &[]),
    sign(Class::Overloaded, &["capacity_exceeded"], &["over capacity"]),
    // What the model wrote was no call; it may write one the next time.
    sign(Class::Trouble, &["tool_use_failed", "json_validate_failed", "output_parse_failed"], &[]),
    sign(Class::ModelNotFound, &["model_decommissioned", "model_not_active"], &[]),
    sign(Class::Quota, &["blocked_api_access", "spend_limit_reached"], &[]),
];

pub const DEEPSEEK: &[Sign] = &[
    sign(Class::Quota, &[], &["insufficient balance"]),
    sign(Class::ModelNotFound, &[], &["model not exist"]),
    sign(Class::ContentFiltered, &[], &["content exists risk"]),
];

pub const XAI: &[Sign] = &[
    sign(
        Class::Quota,
        &[],
        &["used all available credits", "monthly spending limit", "doesn't have any credits"],
    ),
    sign(Class::InvalidKey, &[], &["incorrect api key", "invalid api key"]),
    sign(Class::ModelNotFound, &[], &["does not exist or your team"]),
    sign(Class::ContentFiltered, &[], &["content violates usage guidelines", "safety_check"]),
    sign(Class::ContextTooLong, &[], &["maximum prompt length is"]),
];

pub const OPENROUTER: &[Sign] = &[
    sign(Class::ContentFiltered, &[], &["requires moderation", "input was flagged"]),
    sign(Class::DailyLimit, &[], &["free-models-per-day"]),
    sign(
        Class::ModelNotFound,
        &[],
        &["is not a valid model id", "no endpoints found", "no allowed providers"],
    ),
    sign(Class::Quota, &[], &["key limit exceeded", "insufficient credits"]),
    sign(Class::RateLimited, &[], &["temporarily rate-limited upstream"]),
];

pub const TOGETHER: &[Sign] = &[
    sign(Class::Quota, &["credit_limit"], &[]),
    sign(
        Class::RateLimited,
        &["model_rate_limit", "dynamic_request_limited", "dynamic_token_limited"],
        &[],
    ),
    sign(Class::ModelNotFound, &["model_not_available"], &["unable to access model"]),
];

pub const FIREWORKS: &[Sign] = &[
    sign(
        Class::Quota,
        &["ACCOUNT_SUSPENDED"],
        &["account suspended", "is suspended", "spending limit"],
    ),
    sign(Class::InvalidKey, &["unauthorized", "UNAUTHORIZED"], &[]),
];

pub const CEREBRAS: &[Sign] = &[
    sign(Class::RateLimited, &["request_quota_exceeded", "token_quota_exceeded"], &[]),
    sign(Class::Overloaded, &["queue_exceeded"], &[]),
    sign(Class::InvalidKey, &["wrong_api_key"], &[]),
];

pub const PERPLEXITY: &[Sign] = &[
    sign(Class::ModelNotFound, &["invalid_model"], &[]),
    sign(Class::Quota, &["insufficient_quota"], &["exceeded your current quota"]),
];

pub const DEEPINFRA: &[Sign] = &[
    sign(Class::InvalidKey, &[], &["not authenticated", "user not authenticated"]),
    sign(Class::Quota, &[], &["check your balance and payment"]),
    sign(Class::Overloaded, &["engine_overloaded"], &["model busy"]),
];

pub const NOVITA: &[Sign] = &[
    sign(
        Class::Quota,
        &["NOT_ENOUGH_BALANCE", "BILLING_BALANCE_NOT_ENOUGH"],
        &["not enough balance"],
    ),
    sign(Class::InvalidKey, &["INVALID_API_KEY", "FAILED_TO_AUTH"], &[]),
];

pub const MOONSHOT: &[Sign] = &[
    sign(Class::Quota, &["exceeded_current_quota_error"], &["insufficient balance"]),
    sign(Class::RateLimited, &["rate_limit_reached_error"], &[]),
    sign(Class::Overloaded, &["engine_overloaded_error"], &[]),
    sign(Class::ContentFiltered, &["content_filter"], &["considered high risk"]),
    sign(Class::InvalidKey, &["invalid_authentication_error", "incorrect_api_key_error"], &[]),
    sign(Class::ContextTooLong, &[], &["exceeded model token limit"]),
    sign(Class::ModelNotFound, &["resource_not_found_error"], &[]),
];

pub const ZAI: &[Sign] = &[
    sign(Class::Quota, &["1110", "1111", "1112", "1113", "1120", "1121", "1309", "1310"], &[]),
    sign(Class::InvalidKey, &["1000", "1001", "1002", "1003", "1004"], &[]),
    sign(Class::DailyLimit, &["1304"], &[]),
    sign(Class::RateLimited, &["1302", "1303", "1308"], &[]),
    sign(Class::Overloaded, &["1305", "1312"], &[]),
    sign(Class::ModelNotFound, &["1211", "1212", "1221", "1222"], &[]),
    sign(Class::NotAllowed, &["1220", "1311"], &[]),
    sign(Class::ContextTooLong, &["1261"], &["more than max tokens allowed"]),
    sign(Class::ContentFiltered, &["1301"], &[]),
    sign(Class::Trouble, &["1230", "1234", "500"], &[]),
];

/// `insufficient_quota` is a limit of a minute there.
pub const ALIBABA: &[Sign] = &[
    sign(Class::Quota, &["Arrearage", "AllocationQuota.FreeTierOnly", "PostpaidBillOverdue"], &[]),
    sign(
        Class::RateLimited,
        &["insufficient_quota", "limit_requests", "limit_burst_rate", "Throttling"],
        &["throttling."],
    ),
    sign(Class::ContentFiltered, &["data_inspection_failed", "DataInspectionFailed"], &[]),
    sign(Class::ContextTooLong, &[], &["range of input length should be"]),
    sign(Class::NotAllowed, &["access_denied", "AccessDenied", "Model.AccessDenied"], &[]),
];

pub const HUGGINGFACE: &[Sign] = &[
    sign(Class::Quota, &[], &["exceeded your monthly included credits"]),
    sign(Class::ModelNotFound, &["model_not_supported"], &["is not supported by provider"]),
    sign(Class::Overloaded, &[], &["currently loading"]),
];

pub const GITHUB: &[Sign] = &[
    sign(Class::ContextTooLong, &["tokens_limit_reached"], &[]),
    sign(Class::ModelNotFound, &["unknown_model", "unavailable_model"], &[]),
    sign(Class::DailyLimit, &[], &["byday"]),
];

pub const OLLAMA: &[Sign] = &[
    sign(Class::Overloaded, &[], &["server busy", "maximum pending requests"]),
    sign(Class::ModelNotFound, &[], &["try pulling it first"]),
];
