//! Azure OpenAI's addresses: deployments with an API version, or the newer `/openai/v1` form.

use super::encode::push_segment;

pub(super) const ID: &str = "azure";

/// The API version that is asked for when the config names none: the newest that was generally
/// available for deployments.
const API_VERSION: &str = "2024-10-21";

/// The path that asks a deployment, or the resource itself; `what` is what stands behind it.
pub(super) fn path(
    base: &str,
    what: &str,
    (deployment, api_version): (Option<&str>, Option<&str>),
) -> String {
    let base = base.strip_suffix("/openai").unwrap_or(base);
    let mut path = format!("{base}/openai");
    if let Some(deployment) = deployment {
        path.push_str("/deployments/");
        push_segment(&mut path, deployment);
    }
    path.push_str(what);
    path.push_str("?api-version=");
    push_segment(&mut path, api_version.unwrap_or(API_VERSION));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_cannot_leave_its_segment() {
        let path =
            |base, what, deployment| path(base, what, (Some(deployment), Some("2025-01-01")));
        assert_eq!(
            path("/openai", "/chat/completions", "gpt-5"),
            "/openai/deployments/gpt-5/chat/completions?api-version=2025-01-01"
        );
        assert_eq!(
            path("", "/embeddings", "../a?b"),
            "/openai/deployments/..%2Fa%3Fb/embeddings?api-version=2025-01-01"
        );
        assert!(path("", "/chat/completions", "..").contains("/%2E%2E/"));
    }

    #[test]
    fn files_are_the_resources_own() {
        let path = path("/openai", "/files/file-1", (None, Some("2025-01-01")));
        assert_eq!(path, "/openai/files/file-1?api-version=2025-01-01");
    }
}
