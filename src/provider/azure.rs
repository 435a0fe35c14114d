//! Azure OpenAI's addresses: deployments with an API version, or the newer `/openai/v1` form.

use super::catalog::Kind;
use super::encode::push_segment;
use crate::canon::Surface;

pub(super) const ID: &str = "azure";

/// The API version that is asked for when the config names none: the newest that was generally
/// available for deployments.
const API_VERSION: &str = "2024-10-21";

/// Puts the model into the path, where Azure calls it a deployment.
#[derive(Debug)]
pub(super) struct Deployments {
    api_version: String,
}

impl Deployments {
    /// `None` for other providers, and for a base URL that ends in `/v1`: there the model stays in
    /// the body, as OpenAI has it.
    pub(super) fn of(kind: &Kind, base: &str, api_version: Option<&str>) -> Option<Self> {
        (kind.id == ID && !base.ends_with("/v1"))
            .then(|| Self { api_version: api_version.unwrap_or(API_VERSION).to_owned() })
    }

    pub(super) fn path(&self, base: &str, surface: Surface, deployment: &str) -> String {
        let base = base.strip_suffix("/openai").unwrap_or(base);
        let mut path = format!("{base}/openai/deployments/");
        push_segment(&mut path, deployment);
        path.push_str(surface.path());
        path.push_str("?api-version=");
        push_segment(&mut path, &self.api_version);
        path
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::find;
    use super::*;

    #[test]
    fn a_deployment_cannot_leave_its_segment() {
        let deployments = Deployments::of(find(ID).unwrap(), "", Some("2025-01-01")).unwrap();
        assert_eq!(
            deployments.path("/openai", Surface::Chat, "gpt-5"),
            "/openai/deployments/gpt-5/chat/completions?api-version=2025-01-01"
        );
        assert_eq!(
            deployments.path("", Surface::Embeddings, "../a?b"),
            "/openai/deployments/..%2Fa%3Fb/embeddings?api-version=2025-01-01"
        );
        assert!(deployments.path("", Surface::Chat, "..").contains("/%2E%2E/"));
    }

    #[test]
    fn the_newer_form_keeps_the_model_in_the_body() {
        assert!(Deployments::of(find(ID).unwrap(), "/openai/v1", None).is_none());
    }
}
