//! How servers that follow OpenAI depart from its chat completions, by their own documentation.

use crate::dialect::marks::{Mark, has};
use crate::dialect::{Documents, EFFORTS, EffortField, JsonMode, Thoughts, Traits};

/// Unknown fields are an error here (422).
pub(super) const MISTRAL: Traits = Traits {
    seed: "random_seed",
    short_ids: true,
    documents: Documents::DocumentUrl,
    effort: EffortField::Effort(&[("", &["none", "high"])]),
    thoughts: Thoughts::Parts,
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "logprobs",
        "modalities",
        "prompt_cache_retention",
        "refusal",
        "safety_identifier",
        "service_tier",
        "store",
        "stream_options",
        "top_k",
        "user",
        "verbosity",
        "web_search_options",
    ],
    stumbles: UNKNOWN_TO_MISTRAL,
    thinkers: &["magistral"],
    strict_turns: true,
    bare_calls: true,
    ..Traits::FOLLOWER
};

/// What clients of OpenAI send unasked, some of it as null; `user` stands in every question.
const UNKNOWN_TO_MISTRAL: &[Mark] = &[
    has(&["\"annotations\""]),
    has(&["\"function_call\""]),
    has(&["\"logit_bias\""]),
    has(&["\"logprobs\""]),
    has(&["\"modalities\""]),
    has(&["\"prompt_cache_retention\""]),
    has(&["\"refusal\""]),
    has(&["\"safety_identifier\""]),
    has(&["\"seed\""]),
    has(&["\"service_tier\""]),
    has(&["\"store\""]),
    has(&["\"top_logprobs\""]),
    has(&["\"verbosity\""]),
    has(&["\"web_search_options\""]),
];

/// What its page on compatibility with OpenAI says is answered by 400, and what it does not know.
pub(super) const GROQ: Traits = Traits {
    max_tokens: "max_completion_tokens",
    effort: EffortField::Effort(&[
        ("gpt-oss", &["low", "medium", "high"]),
        // They think, or they do not.
        ("qwen", &["none"]),
        ("", EFFORTS),
    ]),
    thoughts: Thoughts::Field("reasoning"),
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "logprobs",
        "metadata",
        "n",
        "name",
        "prompt_cache_key",
        "refusal",
        "top_k",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

/// Thoughts must come back in turns with tools; fields without effect are not sent.
pub(super) const DEEPSEEK: Traits = Traits {
    flat_text: true,
    json: JsonMode::ObjectOnly,
    effort: EffortField::Thinking(&["low", "high", "max"]),
    thoughts: Thoughts::Field("reasoning_content"),
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "metadata",
        "n",
        "parallel_tool_calls",
        "prompt_cache_key",
        "refusal",
        "seed",
        "service_tier",
        "strict",
        "top_k",
        "user",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

/// Its models that think refuse to be told where to stop, and the others are few.
pub(super) const XAI: Traits = Traits {
    max_tokens: "max_completion_tokens",
    effort: EffortField::Effort(&[
        ("grok-3-mini", &["low", "high"]),
        ("grok-4.20", &[]),
        ("grok-4.3", EFFORTS),
        ("grok-4.", &["low", "medium", "high"]),
        ("grok-4", &[]),
        ("grok-code", &[]),
        ("", &["low", "medium", "high"]),
    ]),
    refused: &[
        "allowed_tools",
        "audio",
        "frequency_penalty",
        "logit_bias",
        "metadata",
        "presence_penalty",
        "prompt_cache_key",
        "refusal",
        "service_tier",
        "stop",
        "top_k",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

pub(super) const OPENROUTER: Traits = Traits {
    developer: true,
    cache_control: true,
    documents: Documents::FileOrUrl,
    effort: EffortField::Reasoning,
    thoughts: Thoughts::Details,
    refused: &["allowed_tools", "metadata"],
    ..Traits::FOLLOWER
};

/// What its page on compatibility with OpenAI says is answered by 400, and what it does not know.
pub(super) const CEREBRAS: Traits = Traits {
    max_tokens: "max_completion_tokens",
    refused: &[
        "allowed_tools",
        "audio",
        "frequency_penalty",
        "logit_bias",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "refusal",
        "service_tier",
        "top_k",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

pub(super) const PERPLEXITY: Traits = Traits {
    json: JsonMode::SchemaOnly,
    effort: EffortField::Effort(&[("", &["minimal", "low", "medium", "high"])]),
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "logprobs",
        "metadata",
        "n",
        "prompt_cache_key",
        "refusal",
        "seed",
        "service_tier",
        "stream_options",
        "user",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

/// Images must be uploaded or base64; thoughts must come back in turns with tools.
pub(super) const MOONSHOT: Traits = Traits {
    max_tokens: "max_completion_tokens",
    image_urls: false,
    effort: EffortField::Thinking(&["low", "high", "max"]),
    thoughts: Thoughts::Field("reasoning_content"),
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "metadata",
        "refusal",
        "seed",
        "service_tier",
        "strict",
        "top_k",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

pub(super) const ZAI: Traits = Traits {
    json: JsonMode::ObjectOnly,
    effort: EffortField::Thinking(&[]),
    thoughts: Thoughts::Field("reasoning_content"),
    refused: &[
        "allowed_tools",
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "metadata",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "refusal",
        "seed",
        "service_tier",
        "strict",
        "top_k",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

pub(super) const ALIBABA: Traits = Traits {
    cache_control: true,
    json: JsonMode::ObjectOnly,
    effort: EffortField::EnableThinking,
    ..Traits::FOLLOWER
};

pub(super) const OLLAMA: Traits = Traits {
    image_urls: false,
    thoughts: Thoughts::Field("reasoning"),
    refused: &[
        "allowed_tools",
        "audio",
        "logit_bias",
        "metadata",
        "n",
        "parallel_tool_calls",
        "prompt_cache_key",
        "refusal",
        "service_tier",
        "tool_choice",
        "top_k",
        "user",
        "verbosity",
    ],
    ..Traits::FOLLOWER
};

pub(super) const LMSTUDIO: Traits = Traits { image_urls: false, ..Traits::FOLLOWER };

/// Takes its earlier thoughts back, and is otherwise as most.
pub(super) const REPLAYING: Traits =
    Traits { thoughts: Thoughts::Field("reasoning_content"), ..Traits::FOLLOWER };

/// The same, and what is new at OpenAI besides.
pub(super) const SGLANG: Traits = Traits { lenient: true, ..REPLAYING };
