//! Vertex AI's addresses: hosts by location, and project, publisher and model in the path.

use super::encode::push_segment;

pub(super) const ID: &str = "vertex";

/// The location when none is named: served from wherever there is room.
pub(super) const LOCATION: &str = "global";

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Gemini.
    Generate,
    StreamGenerate,
    CountTokens,
    /// Other publishers, in their own format.
    RawPredict,
    StreamRawPredict,
    /// Claude's tokens, counted by a model of that name; the body says for which.
    CountClaudeTokens,
    /// Embeddings.
    Predict,
}

/// The service of a location.
pub(super) fn base_url(location: &str) -> String {
    match location {
        "global" => "https://aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("https://aiplatform.{location}.rep.googleapis.com"),
        region => format!("https://{region}-aiplatform.googleapis.com"),
    }
}

pub(super) const GOOGLE: &str = "google";
/// A publisher here, whatever else has that name.
pub(super) const ANTHROPIC: &str = "anthropic";

/// Names that begin so belong to this publisher; all others are Google's own.
const PUBLISHERS: [(&str, &str); 8] = [
    ("claude-", ANTHROPIC),
    ("mistral-", "mistralai"),
    ("ministral-", "mistralai"),
    ("codestral-", "mistralai"),
    ("jamba-", "ai21"),
    ("llama-", "meta"),
    ("deepseek-", "deepseek-ai"),
    ("qwen", "qwen"),
];

/// The publisher of a model and its name there; `publisher/model` says both.
pub(super) fn publisher(model: &str) -> (&str, &str) {
    if let Some(explicit) = model.split_once('/') {
        return explicit;
    }
    let found = PUBLISHERS.iter().find(|(prefix, _)| model.starts_with(prefix));
    (found.map_or(GOOGLE, |(_, publisher)| publisher), model)
}

/// The path that asks `model` of `project` in `location`.
pub(super) fn path(
    base: &str,
    (project, location): (&str, &str),
    model: &str,
    method: Method,
) -> String {
    let (publisher, name) = publisher(model);
    let name = if method == Method::CountClaudeTokens { "count-tokens" } else { name };
    // Only the beta has all that Gemini's question can say: ids of calls, modes of tools.
    let version = if publisher == GOOGLE { "v1beta1" } else { "v1" };
    let mut path = format!("{base}/{version}/projects/");
    push_segment(&mut path, project);
    path.push_str("/locations/");
    push_segment(&mut path, location);
    path.push_str("/publishers/");
    push_segment(&mut path, publisher);
    path.push_str("/models/");
    push_segment(&mut path, name);
    path.push_str(match method {
        Method::Generate => ":generateContent",
        Method::StreamGenerate => ":streamGenerateContent?alt=sse",
        Method::CountTokens => ":countTokens",
        Method::RawPredict | Method::CountClaudeTokens => ":rawPredict",
        Method::StreamRawPredict => ":streamRawPredict",
        Method::Predict => ":predict",
    });
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (&str, &str) = ("p", "global");

    #[test]
    fn locations_have_their_own_hosts() {
        assert_eq!(base_url(LOCATION), "https://aiplatform.googleapis.com");
        assert_eq!(base_url("eu"), "https://aiplatform.eu.rep.googleapis.com");
        assert_eq!(base_url("us-east5"), "https://us-east5-aiplatform.googleapis.com");
    }

    #[test]
    fn each_model_is_asked_of_its_publisher() {
        assert_eq!(
            path("", PLACE, "gemini-2.5-flash", Method::StreamGenerate),
            "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash\
             :streamGenerateContent?alt=sse"
        );
        assert_eq!(
            path("", PLACE, "claude-sonnet-4-5@20250929", Method::StreamRawPredict),
            "/v1/projects/p/locations/global/publishers/anthropic/models/\
             claude-sonnet-4-5%4020250929:streamRawPredict"
        );
        assert_eq!(publisher("mistralai/anything"), ("mistralai", "anything"));
        let counted = path("", PLACE, "claude-opus-4-5", Method::CountClaudeTokens);
        assert!(counted.ends_with("/anthropic/models/count-tokens:rawPredict"), "{counted}");
        let ends = [
            (Method::Generate, ":generateContent"),
            (Method::CountTokens, ":countTokens"),
            (Method::RawPredict, ":rawPredict"),
            (Method::Predict, ":predict"),
        ];
        for (method, end) in ends {
            let path = path("", PLACE, "m", method);
            assert!(path.starts_with("/v1beta1/"), "{path}");
            assert!(path.ends_with(&["/google/models/m", end].concat()), "{path}");
        }
    }

    #[test]
    fn a_model_cannot_leave_its_segment() {
        assert_eq!(
            path("/base", ("a/b", ".."), "../../x:predict?y#z", Method::Generate),
            "/base/v1/projects/a%2Fb/locations/%2E%2E/publishers/%2E%2E/models/\
             ..%2Fx%3Apredict%3Fy%23z:generateContent"
        );
    }
}
