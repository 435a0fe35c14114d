//! Google Secret Manager, asked with the access tokens that Vertex is asked with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::super::bearer::Tokens;
use super::super::desk::{Desk, Question, Sign};
use super::super::{AuthFault, Setup, google_project};
use super::Document;
use crate::config;
use crate::provider::encode::push_segment;

const SIGN: Sign = Sign {
    name: "Google Secret Manager",
    remedy: "check the project, the secret's name, and the right to secretmanager.versions.access",
};
const URL: &str = "https://secretmanager.googleapis.com";

/// The secrets of one project, unless they name another.
#[derive(Debug)]
pub(super) struct Secrets {
    desk: Desk,
    tokens: Tokens,
    /// Or why none is known.
    project: Result<String, String>,
}

// === impl Secrets ===

impl Secrets {
    pub(super) fn open(setup: Setup<'_>) -> Result<Self, String> {
        let section = config::Manager::Gcp.section();
        let tokens = Tokens::google(setup).map_err(|wrong| format!("[{section}]: {wrong}"))?;
        let project = google_project(setup.section, setup.environment)
            .map_err(|wrong| format!("[{section}]: {wrong}"));
        let url = setup.section.base_url.as_deref().unwrap_or(URL);
        Ok(Self { desk: Desk::new(SIGN, url, setup)?, tokens, project })
    }

    /// By a name, or by all of `projects/P/secrets/NAME/versions/V`; the latest version, unless
    /// another is named.
    pub(super) async fn fetch(&self, name: &str) -> Result<Document, AuthFault> {
        let path = self.path(name).map_err(AuthFault)?;
        let headers = HeaderMap::from_iter(self.tokens.authorize().await?);
        let question =
            Question { method: "GET", path: Some(&path), headers, ..Question::default() };
        let answer = self.desk.ask(question).await.inspect_err(|_| self.tokens.doubt())?;
        let json = answer.json().unwrap_or_default();
        let bytes = json["payload"]["data"].as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Document::text(&text.ok_or_else(|| self.desk.fault("what is kept there is no text"))?)
    }

    fn path(&self, name: &str) -> Result<String, String> {
        let mut path = format!("{}/v1", self.desk.path);
        let whole = if name.starts_with("projects/") {
            name.to_owned()
        } else {
            format!("projects/{}/secrets/{name}", self.project.clone()?)
        };
        for segment in whole.split('/') {
            path.push('/');
            push_segment(&mut path, segment);
        }
        if !whole.contains("/versions/") {
            path.push_str("/versions/latest");
        }
        path.push_str(":access");
        Ok(path)
    }
}
