//! Access tokens of Google: for a service account, a person, a machine, or another cloud's token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::bearer::{Bearer, since_epoch};
use super::desk::{Desk, Question, Sign};
use super::keeper::Issued;
use super::{AuthFault, Setup, kept_token, until};
use crate::config::{CloudKeys, GoogleEnvironment, Secret};
use crate::provider::encode::form;

const TOKENS: Sign = Sign {
    name: "Google's token endpoint",
    remedy: "check the credentials file, or make a new one",
};
const METADATA: Sign = Sign {
    name: "Google's metadata server",
    remedy: "write `credentials`, or log in with `gcloud auth application-default login`",
};
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The address of `metadata.google.internal`, which no proxy is asked for.
const METADATA_HOST: &str = "169.254.169.254";
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// How long an assertion is good for, at the most.
const ASSERTED: Duration = Duration::from_hours(1);

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Source {
    ServiceAccount(Box<Account>),
    /// What `gcloud auth application-default login` left.
    User {
        desk: Desk,
        client_id: String,
        client_secret: Secret,
        refresh_token: Secret,
    },
    Metadata(Desk),
    /// A token that another platform keeps in a file, exchanged for one of Google's.
    External(Box<External>),
}

/// A service account and its key.
pub(super) struct Account {
    desk: Desk,
    email: String,
    audience: String,
    key_id: String,
    key: RsaKeyPair,
}

/// A workload identity of another platform.
#[derive(Debug)]
pub(super) struct External {
    desk: Desk,
    audience: String,
    token_type: String,
    file: PathBuf,
    /// The field that holds the token, where the file is JSON.
    field: Option<String>,
    /// Where the exchanged token gives one of a service account.
    impersonation: Option<Desk>,
}

/// The source of a section's tokens, and the project that pays for the quota if a file names one.
pub(super) fn find(setup: Setup<'_>) -> Result<(Source, Option<String>), String> {
    let environment = &setup.environment.google;
    let Some((path, named)) = file(&setup.section.cloud, environment) else {
        let host = environment.metadata_host.as_deref().unwrap_or(METADATA_HOST);
        let url = format!("http://{host}{METADATA_PATH}");
        let desk = Desk::local(METADATA, &url, setup)?;
        return Ok((Source::Metadata(desk), None));
    };
    let json = read(&path, &named)?;
    let source = Source::of(&json, setup).map_err(|wrong| format!("{named}: {wrong}"))?;
    Ok((source, json["quota_project_id"].as_str().map(str::to_owned)))
}

/// The project of a section, of the environment, or of the credentials.
pub(super) fn project(keys: &CloudKeys, environment: &GoogleEnvironment) -> Result<String, String> {
    if let Some(project) = keys.project.as_ref().or(environment.project.as_ref()) {
        return Ok(project.clone());
    }
    let json = file(keys, environment).map(|(path, named)| read(&path, &named));
    let json = json.transpose()?.unwrap_or_default();
    ["project_id", "quota_project_id"]
        .iter()
        .find_map(|key| json[key].as_str())
        .map(str::to_owned)
        .ok_or_else(|| "it needs a `project`, or GOOGLE_CLOUD_PROJECT".to_owned())
}

/// The file of credentials, and who names it: the section, the environment, or nobody for the usual
/// one, if it exists. Complaints say that and not the path, for whoever takes the account itself for
/// a path has a key there.
fn file(keys: &CloudKeys, environment: &GoogleEnvironment) -> Option<(PathBuf, String)> {
    let named = |path: &Option<PathBuf>, by: &str| Some((path.clone()?, by.to_owned()));
    let usual = || environment.well_known_file.clone().filter(|path| path.exists());
    named(&keys.credentials, "credentials")
        .or_else(|| named(&environment.credentials, "GOOGLE_APPLICATION_CREDENTIALS"))
        .or_else(|| usual().map(|path| (path.clone(), path.display().to_string())))
}

/// What is wrong is never shown: the file holds a key.
fn read(path: &Path, named: &str) -> Result<Value, String> {
    let text = std::fs::read(path).map_err(|error| format!("{named}: {error}"))?;
    serde_json::from_slice(&text).map_err(|_| format!("{named}: it is not JSON"))
}

/// The text in a field that must be there.
fn text<'a>(json: &'a Value, field: &str) -> Result<&'a str, String> {
    json[field].as_str().ok_or_else(|| format!("it has no `{field}`"))
}

// === impl Source ===

impl Source {
    fn of(json: &Value, setup: Setup<'_>) -> Result<Self, String> {
        let desk = |url| Desk::new(TOKENS, url, setup);
        match text(json, "type")? {
            "service_account" => {
                let url = json["token_uri"].as_str().unwrap_or(TOKEN_URL);
                Ok(Self::ServiceAccount(Box::new(Account::of(json, url, desk(url)?)?)))
            }
            "authorized_user" => Ok(Self::User {
                desk: desk(json["token_uri"].as_str().unwrap_or(TOKEN_URL))?,
                client_id: text(json, "client_id")?.to_owned(),
                client_secret: Secret::new(text(json, "client_secret")?),
                refresh_token: Secret::new(text(json, "refresh_token")?),
            }),
            "external_account" => {
                let impersonation = json["service_account_impersonation_url"].as_str();
                let source = &json["credential_source"];
                let file = source["file"].as_str().ok_or(
                    "its `credential_source` has no `file`; only files are supported as yet",
                )?;
                let format = &source["format"];
                let field = format["subject_token_field_name"].as_str();
                Ok(Self::External(Box::new(External {
                    desk: desk(text(json, "token_url")?)?,
                    audience: text(json, "audience")?.to_owned(),
                    token_type: text(json, "subject_token_type")?.to_owned(),
                    file: file.into(),
                    field: field.filter(|_| format["type"] == "json").map(str::to_owned),
                    impersonation: impersonation.map(desk).transpose()?,
                })))
            }
            _ => Err("its `type` is none of service_account, authorized_user and external_account"
                .to_owned()),
        }
    }

    pub(super) async fn issue(&self) -> Result<Issued<Bearer>, AuthFault> {
        match self {
            Self::ServiceAccount(account) => account.issue().await,
            Self::User { desk, client_id, client_secret, refresh_token } => {
                let body = form(&[
                    ("grant_type", "refresh_token"),
                    ("client_id", client_id),
                    ("client_secret", client_secret.expose()),
                    ("refresh_token", refresh_token.expose()),
                ]);
                Bearer::granted(desk, &desk.post(body).await?)
            }
            Self::Metadata(desk) => {
                let flavor = HeaderName::from_static("metadata-flavor");
                let headers = HeaderMap::from_iter([(flavor, HeaderValue::from_static("Google"))]);
                let question = Question { method: "GET", headers, ..Question::default() };
                Bearer::granted(desk, &desk.ask(question).await?)
            }
            Self::External(external) => external.issue().await,
        }
    }
}

// === impl Account ===

impl Account {
    fn of(json: &Value, url: &str, desk: Desk) -> Result<Self, String> {
        let pem = text(json, "private_key")?;
        let wrong = "its `private_key` is not an RSA key; make a new key for the account";
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong)?;
        Ok(Self {
            desk,
            email: text(json, "client_email")?.to_owned(),
            audience: url.to_owned(),
            key_id: json["private_key_id"].as_str().unwrap_or_default().to_owned(),
            key: RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| wrong)?,
        })
    }

    async fn issue(&self) -> Result<Issued<Bearer>, AuthFault> {
        let assertion = self.assertion(since_epoch())?;
        let body = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &assertion),
        ]);
        Bearer::granted(&self.desk, &self.desk.post(body).await?)
    }

    /// A JSON web token, signed with RS256, by which the account asks for another.
    fn assertion(&self, now: Duration) -> Result<String, AuthFault> {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.audience,
            "iat": now.as_secs(),
            "exp": (now + ASSERTED).as_secs(),
        });
        let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| AuthFault("the service account's key cannot sign".to_owned()))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Account({})", self.email)
    }
}

// === impl External ===

impl External {
    async fn issue(&self) -> Result<Issued<Bearer>, AuthFault> {
        let subject = self.subject().await?;
        let body = form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &self.audience),
            ("scope", SCOPE),
            ("subject_token_type", &self.token_type),
            ("subject_token", &subject),
        ]);
        let exchanged = Bearer::granted(&self.desk, &self.desk.post(body).await?)?;
        let Some(desk) = &self.impersonation else { return Ok(exchanged) };
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, exchanged.credential.header().clone()),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let body = json!({ "scope": [SCOPE] }).to_string();
        let question = Question { method: "POST", headers, body, ..Question::default() };
        let json = desk.ask(question).await?.json().unwrap_or_default();
        let token = json["accessToken"].as_str();
        let token = token.ok_or_else(|| desk.fault("its answer has no accessToken"))?;
        let end = json["expireTime"].as_str().and_then(until);
        let lifetime = end.or(exchanged.lifetime);
        Ok(Issued { credential: Bearer::new(token)?, lifetime })
    }

    /// The other platform's token, as it is now: platforms renew it in place.
    async fn subject(&self) -> Result<String, AuthFault> {
        let text = kept_token(&self.file).await?;
        let Some(field) = &self.field else { return Ok(text) };
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let token = json[field].as_str().map(str::to_owned);
        token.ok_or_else(|| {
            let shown = self.file.display();
            AuthFault(format!("{shown}: it has no `{field}`"))
        })
    }
}

#[cfg(test)]
mod tests;
