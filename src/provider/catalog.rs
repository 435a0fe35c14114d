//! Every provider the gateway knows by name, one row each.

use super::failure::signs;
pub use super::kind::{Auth, Embeds, Kind, Quirks};
use super::traits;
use crate::canon::{Dialect, Relay};
use crate::dialect::messages::Betas;
use crate::dialect::{Traits, embed};

/// Chat only, nothing odd: what most rows start from.
const CHAT: Quirks =
    Quirks { stream_options: true, completions: false, embeddings: false, signs: &[] };

/// The three surfaces of the dialect, nothing odd.
const FULL: Quirks = Quirks { completions: true, embeddings: true, ..CHAT };

/// Chat completions and nothing else: what most rows speak.
const OPENAI_CHAT: &[(Dialect, &str)] = &[(Dialect::Chat, "/chat/completions")];

/// OpenAI's two APIs.
const OPENAI: &[(Dialect, &str)] =
    &[(Dialect::Chat, "/chat/completions"), (Dialect::Responses, "/responses")];

/// OpenAI's two APIs and Anthropic's.
const OPENROUTER: &[(Dialect, &str)] = &[
    (Dialect::Chat, "/chat/completions"),
    (Dialect::Responses, "/responses"),
    (Dialect::Messages, "/messages"),
];

/// All that OpenAI has. A file is uploaded where files are kept at all, and so with batches.
const OPENAI_RELAYS: &[Relay] = &[
    Relay::ImageGeneration,
    Relay::ImageEdit,
    Relay::ImageVariation,
    Relay::Speech,
    Relay::Transcription,
    Relay::Translation,
    Relay::Moderation,
    Relay::UploadFile,
    Relay::CreateBatch,
];

const AZURE_RELAYS: &[Relay] = &[
    Relay::ImageGeneration,
    Relay::ImageEdit,
    Relay::Speech,
    Relay::Transcription,
    Relay::Translation,
    Relay::UploadFile,
    Relay::CreateBatch,
];

/// Whatever a server may have that is only said to be like OpenAI's.
const ANY_RELAYS: &[Relay] = &[
    Relay::ImageGeneration,
    Relay::ImageEdit,
    Relay::ImageVariation,
    Relay::Speech,
    Relay::Transcription,
    Relay::Translation,
    Relay::Moderation,
    Relay::Rerank,
    Relay::UploadFile,
    Relay::CreateBatch,
];

/// What a row is that says nothing else.
const ROW: Kind = Kind {
    id: "",
    name: "",
    base_url: "",
    speaks: OPENAI_CHAT,
    relays: ("", &[]),
    auth: Auth::Bearer,
    key_variable: "",
    quirks: CHAT,
    traits: Traits::NONE,
    embeds: &[],
    docs: "",
};

/// The kind of any server that speaks OpenAI's API.
pub const ANY: &str = "openai-compatible";

/// The row with this id.
pub fn find(id: &str) -> Option<&'static Kind> {
    CATALOG.iter().find(|kind| kind.id == id)
}

/// The well-known values of `gen_ai.provider.name` in OpenTelemetry's conventions, where they are
/// not our ids.
pub fn system(id: &'static str) -> &'static str {
    match id {
        "bedrock" => "aws.bedrock",
        "azure" => "azure.ai.openai",
        "gemini" => "gcp.gemini",
        "vertex" => "gcp.vertex_ai",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "moonshot" => "moonshot_ai",
        id => id,
    }
}

/// In the order of the docs and of `/v1/models`.
pub static CATALOG: &[Kind] = &[
    Kind {
        id: "openai",
        name: "OpenAI",
        base_url: "https://api.openai.com/v1",
        speaks: OPENAI,
        key_variable: "OPENAI_API_KEY",
        quirks: Quirks { signs: signs::OPENAI, ..FULL },
        relays: ("", OPENAI_RELAYS),
        docs: "https://platform.openai.com/docs/api-reference/chat",
        ..ROW
    },
    Kind {
        id: "anthropic",
        name: "Anthropic",
        base_url: "https://api.anthropic.com",
        speaks: &[(Dialect::Messages, "/v1/messages")],
        auth: Auth::Header("x-api-key"),
        key_variable: "ANTHROPIC_API_KEY",
        quirks: Quirks { signs: signs::ANTHROPIC, ..CHAT },
        docs: "https://docs.claude.com/en/api/messages",
        ..ROW
    },
    Kind {
        id: "gemini",
        name: "Google Gemini",
        base_url: "https://generativelanguage.googleapis.com",
        speaks: &[(Dialect::Gemini, "/v1beta/models/{model}:{method}")],
        auth: Auth::Header("x-goog-api-key"),
        key_variable: "GEMINI_API_KEY",
        embeds: &[Embeds {
            models: "",
            spelling: embed::Upstream::Gemini,
            path: "/v1beta/models/{model}:{method}",
        }],
        traits: Traits { model_in_path: true, ..Traits::NONE },
        quirks: Quirks { signs: signs::GOOGLE, ..CHAT },
        docs: "https://ai.google.dev/api/generate-content",
        ..ROW
    },
    Kind {
        // Gemini and Claude, each in its own dialect; host and path follow from project and place.
        id: "vertex",
        name: "Google Vertex AI",
        speaks: &[(Dialect::Gemini, ""), (Dialect::Messages, "")],
        auth: Auth::Google,
        traits: Traits {
            model_in_path: true,
            betas: Betas::Vertex,
            tier_header: Some("x-vertex-ai-llm-shared-request-type"),
            ..Traits::NONE
        },
        embeds: &[Embeds { models: "", spelling: embed::Upstream::VertexPredict, path: "" }],
        quirks: Quirks { signs: signs::GOOGLE, ..CHAT },
        docs: "https://docs.cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",
        ..ROW
    },
    Kind {
        // Host and path follow from region and model.
        id: "bedrock",
        name: "Amazon Bedrock",
        speaks: &[(Dialect::Converse, "")],
        auth: Auth::Aws,
        embeds: &[
            Embeds { models: "titan-embed", spelling: embed::Upstream::Titan, path: "" },
            Embeds { models: "multimodal-embeddings", spelling: embed::Upstream::Nova, path: "" },
            Embeds { models: "cohere.embed", spelling: embed::Upstream::BedrockCohere, path: "" },
        ],
        quirks: Quirks { signs: signs::BEDROCK, ..CHAT },
        docs: "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
        ..ROW
    },
    Kind {
        id: "cohere",
        name: "Cohere",
        base_url: "https://api.cohere.com",
        speaks: &[(Dialect::Cohere, "/v2/chat")],
        key_variable: "CO_API_KEY",
        relays: ("/v2", &[Relay::Rerank]),
        embeds: &[Embeds { models: "", spelling: embed::Upstream::Cohere, path: "/v2/embed" }],
        quirks: Quirks { signs: signs::COHERE, ..CHAT },
        docs: "https://docs.cohere.com/reference/chat",
        ..ROW
    },
    Kind {
        // The resource's address; `azure` also needs its own URL form, which is built elsewhere.
        // "Quota" in its 429 means a rate here, so no code is final.
        id: "azure",
        name: "Azure OpenAI",
        speaks: OPENAI,
        auth: Auth::Entra("api-key"),
        key_variable: "AZURE_OPENAI_API_KEY",
        quirks: Quirks { signs: signs::AZURE, ..FULL },
        relays: ("", AZURE_RELAYS),
        docs: "https://learn.microsoft.com/azure/ai-foundry/openai/reference",
        ..ROW
    },
    Kind {
        // Answers 422 to `stream_options`; it sends usage in the finish chunk unasked.
        id: "mistral",
        name: "Mistral AI",
        base_url: "https://api.mistral.ai/v1",
        key_variable: "MISTRAL_API_KEY",
        quirks: Quirks { signs: signs::MISTRAL, stream_options: false, ..CHAT },
        embeds: &[Embeds { models: "", spelling: embed::Upstream::Mistral, path: "/embeddings" }],
        relays: ("", &[Relay::Transcription, Relay::Moderation, Relay::UploadFile]),
        traits: traits::MISTRAL,
        docs: "https://docs.mistral.ai/api/",
        ..ROW
    },
    Kind {
        id: "groq",
        name: "Groq",
        base_url: "https://api.groq.com/openai/v1",
        speaks: OPENAI,
        key_variable: "GROQ_API_KEY",
        relays: (
            "",
            &[
                Relay::Speech,
                Relay::Transcription,
                Relay::Translation,
                Relay::UploadFile,
                Relay::CreateBatch,
            ],
        ),
        traits: traits::GROQ,
        quirks: Quirks { signs: signs::GROQ, ..CHAT },
        docs: "https://console.groq.com/docs/api-reference",
        ..ROW
    },
    Kind {
        id: "deepseek",
        name: "DeepSeek",
        base_url: "https://api.deepseek.com/v1",
        key_variable: "DEEPSEEK_API_KEY",
        traits: traits::DEEPSEEK,
        quirks: Quirks { signs: signs::DEEPSEEK, ..CHAT },
        docs: "https://api-docs.deepseek.com/",
        ..ROW
    },
    Kind {
        // An empty account has no code of its own: 403 `permission-denied`, told by the text.
        id: "xai",
        name: "xAI",
        base_url: "https://api.x.ai/v1",
        speaks: OPENAI,
        key_variable: "XAI_API_KEY",
        quirks: Quirks { signs: signs::XAI, ..CHAT },
        relays: ("", &[Relay::ImageGeneration]),
        traits: traits::XAI,
        docs: "https://docs.x.ai/developers/rest-api-reference",
        ..ROW
    },
    Kind {
        id: "openrouter",
        name: "OpenRouter",
        base_url: "https://openrouter.ai/api/v1",
        speaks: OPENROUTER,
        key_variable: "OPENROUTER_API_KEY",
        quirks: Quirks { signs: signs::OPENROUTER, ..FULL },
        traits: traits::OPENROUTER,
        docs: "https://openrouter.ai/docs/api/reference/overview",
        ..ROW
    },
    Kind {
        id: "together",
        name: "Together AI",
        base_url: "https://api.together.xyz/v1",
        key_variable: "TOGETHER_API_KEY",
        quirks: Quirks { signs: signs::TOGETHER, ..FULL },
        relays: (
            "",
            &[
                Relay::ImageGeneration,
                Relay::Speech,
                Relay::Transcription,
                Relay::Translation,
                Relay::Rerank,
            ],
        ),
        traits: Traits::FOLLOWER,
        docs: "https://docs.together.ai/reference/chat-completions-1",
        ..ROW
    },
    Kind {
        id: "fireworks",
        name: "Fireworks AI",
        base_url: "https://api.fireworks.ai/inference/v1",
        speaks: OPENAI,
        key_variable: "FIREWORKS_API_KEY",
        quirks: Quirks { signs: signs::FIREWORKS, ..FULL },
        relays: ("", &[Relay::Rerank]),
        traits: traits::REPLAYING,
        docs: "https://docs.fireworks.ai/api-reference/post-chatcompletions",
        ..ROW
    },
    Kind {
        id: "cerebras",
        name: "Cerebras",
        base_url: "https://api.cerebras.ai/v1",
        key_variable: "CEREBRAS_API_KEY",
        quirks: Quirks { signs: signs::CEREBRAS, completions: true, ..CHAT },
        traits: traits::CEREBRAS,
        docs: "https://inference-docs.cerebras.ai/api-reference/chat-completions",
        ..ROW
    },
    Kind {
        id: "crusoe",
        name: "Crusoe",
        base_url: "https://api.inference.crusoecloud.com/v1",
        key_variable: "CRUSOE_API_KEY",
        docs: "https://docs.crusoecloud.com/managed-inference/overview",
        traits: Traits::FOLLOWER,
        ..ROW
    },
    Kind {
        // Does not document `stream_options`; sends running usage on every chunk unasked.
        id: "perplexity",
        name: "Perplexity",
        base_url: "https://api.perplexity.ai",
        key_variable: "PERPLEXITY_API_KEY",
        quirks: Quirks { signs: signs::PERPLEXITY, stream_options: false, ..CHAT },
        embeds: &[Embeds {
            models: "pplx-embed-v1",
            spelling: embed::Upstream::Perplexity,
            path: "/v1/embeddings",
        }],
        traits: traits::PERPLEXITY,
        docs: "https://docs.perplexity.ai/api-reference/chat-completions-post",
        ..ROW
    },
    Kind {
        id: "nvidia",
        name: "NVIDIA NIM",
        base_url: "https://integrate.api.nvidia.com/v1",
        key_variable: "NVIDIA_API_KEY",
        quirks: FULL,
        traits: Traits::FOLLOWER,
        docs: "https://docs.api.nvidia.com/nim/reference/llm-apis",
        ..ROW
    },
    Kind {
        id: "sambanova",
        name: "SambaNova",
        base_url: "https://api.sambanova.ai/v1",
        key_variable: "SAMBANOVA_API_KEY",
        quirks: FULL,
        docs: "https://docs.sambanova.ai/docs/en/features/openai-compatibility",
        ..ROW
    },
    Kind {
        id: "hyperbolic",
        name: "Hyperbolic",
        base_url: "https://api.hyperbolic.xyz/v1",
        key_variable: "HYPERBOLIC_API_KEY",
        quirks: Quirks { completions: true, ..CHAT },
        traits: Traits::FOLLOWER,
        docs: "https://docs.hyperbolic.xyz/docs/rest-api",
        ..ROW
    },
    Kind {
        id: "deepinfra",
        name: "DeepInfra",
        base_url: "https://api.deepinfra.com/v1/openai",
        key_variable: "DEEPINFRA_API_KEY",
        quirks: Quirks { signs: signs::DEEPINFRA, ..FULL },
        relays: (
            "",
            &[
                Relay::ImageGeneration,
                Relay::ImageEdit,
                Relay::ImageVariation,
                Relay::Speech,
                Relay::Transcription,
                Relay::Translation,
            ],
        ),
        traits: Traits::FOLLOWER,
        docs: "https://deepinfra.com/docs/openai_api",
        ..ROW
    },
    Kind {
        id: "novita",
        name: "Novita AI",
        base_url: "https://api.novita.ai/openai/v1",
        key_variable: "NOVITA_API_KEY",
        quirks: Quirks { signs: signs::NOVITA, ..FULL },
        traits: Traits::FOLLOWER,
        docs: "https://novita.ai/docs/guides/llm-api",
        ..ROW
    },
    Kind {
        id: "moonshot",
        name: "Moonshot AI",
        base_url: "https://api.moonshot.ai/v1",
        key_variable: "MOONSHOT_API_KEY",
        quirks: Quirks { signs: signs::MOONSHOT, ..CHAT },
        relays: ("", &[Relay::UploadFile]),
        traits: traits::MOONSHOT,
        docs: "https://platform.moonshot.ai/docs/api/chat",
        ..ROW
    },
    Kind {
        // 1302 to 1305 are rates, 1113 is an empty account; all are 429.
        id: "zai",
        name: "Z.ai",
        base_url: "https://api.z.ai/api/paas/v4",
        key_variable: "ZAI_API_KEY",
        quirks: Quirks { signs: signs::ZAI, ..CHAT },
        relays: ("", &[Relay::ImageGeneration, Relay::Transcription]),
        traits: traits::ZAI,
        docs: "https://docs.z.ai/api-reference/llm/chat-completion",
        ..ROW
    },
    Kind {
        // `insufficient_quota` is a rate here, not an empty account.
        id: "alibaba",
        name: "Alibaba Cloud Model Studio",
        base_url: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variable: "DASHSCOPE_API_KEY",
        quirks: Quirks { signs: signs::ALIBABA, ..FULL },
        relays: ("", &[Relay::UploadFile, Relay::CreateBatch]),
        traits: traits::ALIBABA,
        docs: "https://www.alibabacloud.com/help/en/model-studio/compatibility-of-openai-with-dashscope",
        ..ROW
    },
    Kind {
        id: "huggingface",
        name: "Hugging Face",
        base_url: "https://router.huggingface.co/v1",
        key_variable: "HF_TOKEN",
        traits: Traits::FOLLOWER,
        quirks: Quirks { signs: signs::HUGGINGFACE, ..CHAT },
        docs: "https://huggingface.co/docs/inference-providers/tasks/chat-completion",
        ..ROW
    },
    Kind {
        id: "github",
        name: "GitHub Models",
        base_url: "https://models.github.ai/inference",
        // `GITHUB_TOKEN` is set for other purposes on many machines, so it is not taken as consent.
        quirks: Quirks { signs: signs::GITHUB, embeddings: true, ..CHAT },
        traits: Traits::LENIENT,
        docs: "https://docs.github.com/rest/models/inference",
        ..ROW
    },
    Kind {
        id: "ollama",
        name: "Ollama",
        base_url: "http://127.0.0.1:11434/v1",
        auth: Auth::None,
        quirks: Quirks { signs: signs::OLLAMA, ..FULL },
        traits: traits::OLLAMA,
        docs: "https://docs.ollama.com/api/openai-compatibility",
        ..ROW
    },
    Kind {
        id: "vllm",
        name: "vLLM",
        base_url: "http://127.0.0.1:8000/v1",
        auth: Auth::None,
        quirks: FULL,
        relays: ("", &[Relay::Transcription, Relay::Translation, Relay::Rerank]),
        traits: Traits::LENIENT,
        docs: "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        ..ROW
    },
    Kind {
        id: "sglang",
        name: "SGLang",
        base_url: "http://127.0.0.1:30000/v1",
        auth: Auth::None,
        quirks: FULL,
        relays: ("", &[Relay::Rerank]),
        traits: traits::SGLANG,
        docs: "https://docs.sglang.ai/basic_usage/openai_api.html",
        ..ROW
    },
    Kind {
        id: "lmstudio",
        name: "LM Studio",
        base_url: "http://127.0.0.1:1234/v1",
        auth: Auth::None,
        quirks: FULL,
        traits: traits::LMSTUDIO,
        docs: "https://lmstudio.ai/docs/developer/openai-compat",
        ..ROW
    },
    Kind {
        id: "llamacpp",
        name: "llama.cpp",
        base_url: "http://127.0.0.1:8080/v1",
        auth: Auth::None,
        quirks: FULL,
        relays: ("", &[Relay::Rerank]),
        traits: Traits::LENIENT,
        docs: "https://github.com/ggml-org/llama.cpp/tree/master/tools/server",
        ..ROW
    },
    Kind {
        // Most servers honour or ignore `stream_options`.
        id: ANY,
        name: "Any OpenAI-compatible server",
        auth: Auth::None,
        quirks: FULL,
        relays: ("", ANY_RELAYS),
        traits: Traits::LENIENT,
        docs: "https://platform.openai.com/docs/api-reference/chat",
        ..ROW
    },
    Kind {
        id: "demo",
        name: "Demo (built in, offline)",
        auth: Auth::None,
        quirks: FULL,
        docs: "",
        ..ROW
    },
];
