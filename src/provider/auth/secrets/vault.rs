//! Vault's KV engine of version 2, by a token of our own or one that a role is given.

use std::path::PathBuf;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::super::desk::{Desk, Question, Sign};
use super::super::keeper::{Issued, Issuer, Keeper};
use super::super::{AuthFault, Setup, kept_token, sensitive};
use super::Document;
use crate::config::{self, Login, Secret};
use crate::provider::encode::push_segment;

const SIGN: Sign =
    Sign { name: "Vault", remedy: "check its address, the path, and what the token may read" };
const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");

/// One Vault.
#[derive(Debug)]
pub(super) struct Vault {
    desk: Desk,
    namespace: Option<HeaderValue>,
    keeper: Keeper<Logins>,
}

/// Where its tokens come from.
#[derive(Debug)]
enum Logins {
    Fixed(Secret),
    AppRole { desk: Desk, about: About, role_id: Secret, secret_id: Secret },
    Kubernetes { desk: Desk, about: About, role: String, token_file: PathBuf },
}

/// What is said besides who asks.
#[derive(Debug)]
struct About {
    path: String,
    namespace: Option<HeaderValue>,
}

// === impl Vault ===

impl Vault {
    pub(super) fn open(settings: &config::Vault, setup: Setup<'_>) -> Result<Self, String> {
        let section = config::Manager::Vault.section();
        let needs = |what: &str, variable: &str| {
            format!("Vault needs `{what}` in [{section}], or {variable} in the environment")
        };
        let url = settings.address.as_ref().ok_or_else(|| needs("address", "VAULT_ADDR"))?;
        let desk = || Desk::new(SIGN, url, setup);
        let namespace = settings.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(|_| "the namespace of Vault is no name".to_owned())?;
        let about = |mount: &str| {
            let mut path = desk().map(|desk| desk.path)?;
            path.push_str("/v1/auth");
            push_path(&mut path, mount);
            path.push_str("/login");
            Ok::<_, String>(About { path, namespace: namespace.clone() })
        };
        let logins = match &settings.login {
            Some(Login::Token(token)) => Logins::Fixed(token.clone()),
            Some(Login::AppRole { mount, role_id, secret_id }) => Logins::AppRole {
                desk: desk()?,
                about: about(mount)?,
                role_id: role_id.clone(),
                secret_id: secret_id.clone(),
            },
            Some(Login::Kubernetes { mount, role, token_file }) => Logins::Kubernetes {
                desk: desk()?,
                about: about(mount)?,
                role: role.clone(),
                token_file: token_file.clone(),
            },
            None => return Err(needs("token", "VAULT_TOKEN")),
        };
        Ok(Self { desk: desk()?, namespace, keeper: Keeper::new(logins) })
    }

    /// What is kept at `MOUNT/PATH`.
    pub(super) async fn fetch(&self, name: &str) -> Result<Document, AuthFault> {
        let token = self.keeper.credential().await?;
        let mut headers = HeaderMap::from_iter([(TOKEN, sensitive(token.expose())?)]);
        headers.extend(self.namespace.clone().map(|namespace| (NAMESPACE, namespace)));
        let (mount, path) = name.split_once('/').unwrap_or((name, ""));
        let mut asked = format!("{}/v1", self.desk.path);
        push_path(&mut asked, mount);
        asked.push_str("/data");
        push_path(&mut asked, path);
        let question =
            Question { method: "GET", path: Some(&asked), headers, ..Question::default() };
        let answer = self.desk.ask(question).await.inspect_err(|_| self.keeper.doubt())?;
        let json = answer.json().unwrap_or_default();
        let kept = &json["data"]["data"];
        if kept.is_object() {
            return Ok(Document::fields(kept));
        }
        Err(self.desk.fault("nothing is kept there by a KV engine of version 2"))
    }
}

/// Each of the segments of a path, as it is.
fn push_path(path: &mut String, name: &str) {
    for segment in name.split('/').filter(|segment| !segment.is_empty()) {
        path.push('/');
        push_segment(path, segment);
    }
}

// === impl Logins ===

impl Issuer for Logins {
    type Credential = Secret;

    async fn issue(&self) -> Result<Issued<Secret>, AuthFault> {
        match self {
            Self::Fixed(token) => Ok(Issued { credential: token.clone(), lifetime: None }),
            Self::AppRole { desk, about, role_id, secret_id } => {
                let said = json!({"role_id": role_id.expose(), "secret_id": secret_id.expose()});
                log_in(desk, about, &said).await
            }
            Self::Kubernetes { desk, about, role, token_file } => {
                // Kubernetes renews it in place.
                let said = json!({"role": role, "jwt": kept_token(token_file).await?});
                log_in(desk, about, &said).await
            }
        }
    }
}

async fn log_in(desk: &Desk, about: &About, said: &Value) -> Result<Issued<Secret>, AuthFault> {
    let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut headers = HeaderMap::from_iter([json]);
    headers.extend(about.namespace.clone().map(|namespace| (NAMESPACE, namespace)));
    let path = Some(about.path.as_str());
    let question = Question { method: "POST", path, headers, body: said.to_string() };
    let auth = desk.ask(question).await?.json().unwrap_or_default()["auth"].take();
    let token = auth["client_token"].as_str().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| desk.fault("its answer has no client_token"))?;
    // 0 is a token that does not end.
    let seconds = auth["lease_duration"].as_u64().filter(|seconds| *seconds > 0);
    Ok(Issued { credential: Secret::new(token), lifetime: seconds.map(Duration::from_secs) })
}
