//! Fetches AWS credentials: from STS, a container's agent, or an instance's metadata.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use super::{Scope, signed};
use crate::config::Secret;
use crate::dialect::splice::Payload;
use crate::provider::auth::desk::{Answer, Desk, Question, form_type};
use crate::provider::auth::keeper::{Issued, Issuer};
use crate::provider::auth::{AuthFault, Unsigned, kept_token, sensitive, until};
use crate::provider::encode::form;

const STS_VERSION: (&str, &str) = ("Version", "2011-06-15");
/// The role of an instance, whose name is appended to it.
const INSTANCE_ROLE: &str = "/latest/meta-data/iam/security-credentials/";

/// Where credentials come from.
#[derive(Debug)]
pub(in crate::provider) enum Source {
    /// They do not end.
    Fixed(Credentials),
    /// A role, for a token that the platform keeps in a file.
    WebIdentity {
        sts: Sts,
        role: Role,
        token_file: PathBuf,
    },
    /// A role, for other credentials.
    AssumeRole {
        base: Box<Source>,
        sts: Sts,
        role: Role,
    },
    Container {
        desk: Desk,
        token: Option<Secret>,
        token_file: Option<PathBuf>,
    },
    Instance(Desk),
}

/// The token service of one region.
#[derive(Debug)]
pub(in crate::provider) struct Sts {
    pub(super) desk: Desk,
    pub(super) region: String,
}

/// A role to act in.
#[derive(Debug)]
pub(in crate::provider) struct Role {
    arn: String,
    session: String,
    external_id: Option<String>,
}

// === impl Source ===

impl Issuer for Source {
    type Credential = Credentials;

    async fn issue(&self) -> Result<Issued<Credentials>, AuthFault> {
        match self {
            Self::Fixed(credentials) => {
                Ok(Issued { credential: credentials.clone(), lifetime: None })
            }
            Self::WebIdentity { sts, role, token_file } => {
                let token = kept_token(token_file).await?;
                let fields = [("Action", "AssumeRoleWithWebIdentity")];
                let token = [("WebIdentityToken", token.as_str())];
                let body = form(&[&fields[..], &role.fields(), &token].concat());
                let answer = sts.desk.post(body).await?;
                from_xml(&sts.desk, &answer)
            }
            Self::AssumeRole { base, sts, role } => {
                let base = base.boxed().await?.credential;
                let body = form(&[&[("Action", "AssumeRole")][..], &role.fields()].concat());
                sts.ask_signed(&base, body).await
            }
            Self::Container { desk, token, token_file } => {
                let mut headers = HeaderMap::new();
                let token = match (token_file, token) {
                    (Some(file), _) => Some(kept_token(file).await?),
                    (None, token) => token.as_ref().map(|token| token.expose().to_owned()),
                };
                if let Some(token) = token {
                    headers.insert(AUTHORIZATION, sensitive(&token)?);
                }
                let question = Question { method: "GET", headers, ..Question::default() };
                let answer = desk.ask(question).await?;
                from_json(desk, &answer)
            }
            Self::Instance(desk) => from_instance(desk).await,
        }
    }
}

impl Source {
    /// `issue`, in a form that it can itself wait for.
    fn boxed(
        &self,
    ) -> Pin<Box<dyn Future<Output = Result<Issued<Credentials>, AuthFault>> + Send + '_>> {
        Box::pin(self.issue())
    }
}

/// Metadata of the second version: a token first, then the role, then its credentials.
async fn from_instance(desk: &Desk) -> Result<Issued<Credentials>, AuthFault> {
    let (base, mut headers) = (&desk.path, HeaderMap::new());
    headers.insert(HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"), 60.into());
    let path = format!("{base}/latest/api/token");
    let question = Question { method: "PUT", path: Some(&path), headers, ..Question::default() };
    let token = desk.ask(question).await?;
    let ask = async |path: &str| {
        let mut headers = HeaderMap::new();
        let token = sensitive(&String::from_utf8_lossy(&token.body))?;
        headers.insert(HeaderName::from_static("x-aws-ec2-metadata-token"), token);
        let path = Some(path);
        desk.ask(Question { method: "GET", path, headers, ..Question::default() }).await
    };
    let role = ask(&format!("{base}{INSTANCE_ROLE}")).await?;
    let role = String::from_utf8_lossy(&role.body);
    let role = role.lines().next().unwrap_or_default().trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    if role.is_empty() || !role.chars().all(plain) {
        return Err(desk.fault("the instance has no role; give it one, or write keys"));
    }
    let answer = ask(&format!("{base}{INSTANCE_ROLE}{role}")).await?;
    from_json(desk, &answer)
}

fn from_json(desk: &Desk, answer: &Answer) -> Result<Issued<Credentials>, AuthFault> {
    let json = answer.json().unwrap_or_default();
    credentials(desk, |field| json[field].as_str().map(str::to_owned), "Token")
}

fn from_xml(desk: &Desk, answer: &Answer) -> Result<Issued<Credentials>, AuthFault> {
    credentials(desk, |field| answer.element(field), "SessionToken")
}

fn credentials(
    desk: &Desk,
    field: impl Fn(&str) -> Option<String>,
    token: &str,
) -> Result<Issued<Credentials>, AuthFault> {
    let wanted = |name| field(name).ok_or_else(|| desk.fault(&format!("its answer has no {name}")));
    let (id, secret) = (wanted("AccessKeyId")?, wanted("SecretAccessKey")?);
    let credential = Credentials::new(id, secret, field(token), None, "switchpoint");
    Ok(Issued { credential, lifetime: field("Expiration").and_then(|end| until(&end)) })
}

// === impl Sts ===

impl Sts {
    async fn ask_signed(
        &self,
        base: &Credentials,
        body: String,
    ) -> Result<Issued<Credentials>, AuthFault> {
        let headers = [form_type()];
        let payload = Payload::from(bytes::Bytes::from(body.clone()));
        let scope = Scope { region: &self.region, service: "sts", time: SystemTime::now() };
        let unsigned = Unsigned {
            method: "POST",
            host: self.desk.host(),
            path: if self.desk.path.is_empty() { "/" } else { &self.desk.path },
            headers: &headers,
            body: &payload,
        };
        let signature = signed(base, scope, &unsigned)?;
        let headers = headers.into_iter().chain(signature).collect();
        let question = Question { method: "POST", headers, body, ..Question::default() };
        let answer = self.desk.ask(question).await?;
        from_xml(&self.desk, &answer)
    }
}

// === impl Role ===

impl Role {
    pub(super) fn new(arn: &str, session: Option<&str>, external_id: Option<&str>) -> Self {
        Self {
            arn: arn.to_owned(),
            session: session.unwrap_or("switchpoint").to_owned(),
            external_id: external_id.map(str::to_owned),
        }
    }

    fn fields(&self) -> Vec<(&str, &str)> {
        let external_id = self.external_id.as_deref().map(|id| ("ExternalId", id));
        let role = [("RoleArn", self.arn.as_str()), ("RoleSessionName", self.session.as_str())];
        std::iter::once(STS_VERSION).chain(role).chain(external_id).collect()
    }
}
