//! Azure OpenAI's addresses: deployments with an API version, or the newer `/openai/v1` form.

use super::encode::push_segment;

pub(super) const ID: &str = "azure";

/// The newer form of a resource's address, which is meant where no version is named.
pub(super) fn newer(base: &str) -> String {
    if base.ends_with("/v1") {
        return base.to_owned();
    }
    format!("{}/openai/v1", base.strip_suffix("/openai").unwrap_or(base))
}

/// The path that asks a deployment, or the resource itself; `what` is what stands behind it.
pub(super) fn path(base: &str, what: &str, deployment: Option<&str>, api_version: &str) -> String {
    let base = base.strip_suffix("/openai").unwrap_or(base);
    let mut path = format!("{base}/openai");
    if let Some(deployment) = deployment {
        path.push_str("/deployments/");
        push_segment(&mut path, deployment);
    }
    path.push_str(what);
    path.push_str("?api-version=");
    push_segment(&mut path, api_version);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_cannot_leave_its_segment() {
        let path = |base, what, deployment| path(base, what, Some(deployment), "2025-01-01");
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
        let path = path("/openai", "/files/file-1", None, "2025-01-01");
        assert_eq!(path, "/openai/files/file-1?api-version=2025-01-01");
    }
}
