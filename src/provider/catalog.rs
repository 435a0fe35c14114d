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
        traits: Traits { model_in_path: true, betas: Betas::Vertex, ..Traits::NONE },
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
        quirks: Quirks { signs: signs::MISTRAL, stream_options: false, embeddings: true, ..CHAT },
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
        traits: Traits::FOLLOWER,
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
        traits: Traits::FOLLOWER,
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
        traits: traits::REPLAYING,
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
        traits: Traits::FOLLOWER,
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
        traits: Traits::FOLLOWER,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use serde_json::Value;

    use super::{CATALOG, find};
    use crate::canon::{ChatResponse, Dialect, FinishReason, Part};
    use crate::dialect::fold::Fold;
    use crate::dialect::sse::Decoder;
    use crate::dialect::upstream;

    fn fixtures(folder: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder)
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn json(path: &Path) -> Value {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// What a stream's own dialect reads in it, and how many events have data.
    fn read_stream(path: &Path, dialect: Dialect) -> (ChatResponse, usize) {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&fs::read(path).unwrap());
        let mut reader = upstream(dialect).reader();
        let (mut events, mut count) = (Vec::new(), 0);
        while let Some(frame) = decoder.next_frame() {
            let Some(data) = decoder.data(&frame) else { continue };
            count += 1;
            reader.read(decoder.event(&frame), data.trim_ascii(), &mut events).unwrap();
        }
        reader.end(&mut events);
        let mut fold = Fold::default();
        for event in &events {
            fold.add(event);
        }
        (fold.finish().unwrap_or_else(|e| panic!("{}: {e:?}", path.display())), count)
    }

    fn finish_name(response: &ChatResponse) -> &'static str {
        match response.choices[0].finish.reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            other => panic!("no fixture ends so: {other:?}"),
        }
    }

    #[test]
    fn every_row_is_found_by_its_id_and_no_id_is_used_twice() {
        let ids: BTreeSet<_> = CATALOG.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), CATALOG.len());
        for kind in CATALOG {
            assert_eq!(find(kind.id), Some(kind));
        }
        assert_eq!(find("no-such-provider"), None);
    }

    #[test]
    fn rows_say_the_same_of_stream_options_for_bytes_as_they_are_and_for_translations() {
        for kind in CATALOG {
            let refused = kind.traits.refused.contains(&"stream_options");
            assert_eq!(refused, !kind.quirks.stream_options, "{}", kind.id);
        }
    }

    #[test]
    fn every_base_url_can_have_a_path_put_after_it() {
        for kind in CATALOG.iter().filter(|kind| !kind.base_url.is_empty()) {
            assert!(kind.base_url.starts_with("http"), "{}", kind.id);
            assert!(!kind.base_url.ends_with('/'), "{}", kind.id);
        }
    }

    #[test]
    fn every_row_has_fixtures_and_every_fixture_a_row() {
        let rows: BTreeSet<_> =
            CATALOG.iter().map(|kind| kind.id.to_owned()).filter(|id| id != "demo").collect();
        let mut folders = names(&fixtures("providers"));
        folders.remove("README.md");
        assert_eq!(rows, folders);
    }

    #[test]
    fn fixtures_say_what_their_expectations_say() {
        for kind in CATALOG.iter().filter(|kind| kind.id != "demo") {
            let folder = fixtures("providers").join(kind.id);
            // A row that is not odd needs no expectations: its fixtures are what its dialect says.
            let expect = folder.join("expect.json");
            let expect = if expect.is_file() { json(&expect) } else { continue };
            let (dialect, _) = kind.speaks[0];
            let reply = fs::read(folder.join("reply.json")).unwrap();
            let reply = upstream(dialect).read_response(&reply).unwrap();
            let (stream, count) = read_stream(&folder.join("stream.sse"), dialect);
            for (side, response) in [("reply", &reply), ("stream", &stream)] {
                let (expect, usage) = (&expect[side], response.usage.unwrap());
                assert_eq!(finish_name(response), expect["finish"], "{} {side}", kind.id);
                assert_eq!(usage.input_total(), expect["input_tokens"], "{} {side}", kind.id);
                assert_eq!(usage.output, expect["output_tokens"], "{} {side}", kind.id);
            }
            let parts = &stream.choices[0].parts;
            let text: String = parts.iter().filter_map(Part::as_text).collect();
            assert_eq!(text, expect["stream"]["content"].as_str().unwrap(), "{}", kind.id);
            assert_eq!(count, expect["stream"]["events"], "{}", kind.id);
        }
    }

    #[test]
    fn every_error_fixture_has_a_status_a_body_and_a_class() {
        for kind in CATALOG.iter().filter(|kind| kind.id != "demo") {
            let folder = fixtures("providers").join(kind.id).join("errors");
            let names = names(&folder);
            assert!(!names.is_empty(), "{}", kind.id);
            for name in names {
                let error = json(&folder.join(&name));
                // Below 300 it is reported inside of a success.
                let status = error["status"].as_u64().unwrap();
                assert!(status == 200 || (400..600).contains(&status), "{} {name}", kind.id);
                assert!(error["headers"].is_object() && !error["body"].is_null(), "{name}");
                assert!(error["class"].is_string() && error["next"].is_string(), "{name}");
                assert!(error.get("wait").is_some(), "{} {name}", kind.id);
            }
        }
    }

    #[test]
    fn every_odd_stream_is_described_and_every_description_has_a_stream() {
        let folder = fixtures("streams");
        let expect = json(&folder.join("expect.json"));
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let described: BTreeSet<_> = expect.as_object().unwrap().keys().cloned().collect();
        let streams: BTreeSet<_> = names(&folder)
            .into_iter()
            .filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "sse"))
            .collect();
        assert_eq!(described, streams);
        assert!(streams.iter().all(|name| readme.contains(&format!("`{name}`"))));
    }
}
