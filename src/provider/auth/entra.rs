//! Access tokens of Microsoft Entra: for an app and its secret, a workload's identity, or the
//! managed identity of a machine.

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::bearer::Bearer;
use super::desk::{Desk, Question, Sign};
use super::keeper::Issued;
use super::{AuthFault, Setup, kept_token, sensitive};
use crate::config::Secret;
use crate::provider::encode::form;

const AUTHORITY: &str = "https://login.microsoftonline.com";
const METADATA: &str = "http://169.254.169.254";
const METADATA_PATH: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";
const APP_SERVICE_VERSION: &str = "2019-08-01";

const ENTRA: Sign = Sign {
    name: "Microsoft Entra",
    remedy: "check `tenant_id`, `client_id` and `client_secret`, or the workload's identity",
};
const MANAGED: Sign = Sign {
    name: "Azure's managed identity",
    remedy: "give the machine an identity, or write an `api_key` or a `client_secret`",
};

/// What tokens are for, by the authority that issues them; the first is the public cloud.
const RESOURCES: [(&str, &str); 3] = [
    ("login.microsoftonline.com", "https://cognitiveservices.azure.com"),
    ("login.microsoftonline.us", "https://cognitiveservices.azure.us"),
    ("login.partner.microsoftonline.cn", "https://cognitiveservices.azure.cn"),
];

/// Where tokens come from.
#[derive(Debug)]
pub(super) enum Source {
    App {
        desk: Desk,
        client_id: String,
        scope: String,
        proof: Proof,
    },
    /// The desk knows the machine; a header shows that we run on it.
    Managed {
        desk: Desk,
        header: (HeaderName, HeaderValue),
    },
}

/// How an app proves itself.
#[derive(Debug)]
pub(super) enum Proof {
    Secret(Secret),
    /// The platform keeps a token there, and renews it in place.
    File(PathBuf),
}

/// The source of a section's tokens: what it says, else what the environment says.
pub(super) fn find(setup: Setup<'_>) -> Result<Source, String> {
    let (keys, environment) = (&setup.section.cloud, &setup.environment.azure);
    let client_id = keys.client_id.as_ref().or(environment.client_id.as_ref());
    let secret = keys.client_secret.as_ref().or(environment.client_secret.as_ref());
    let authority = environment.authority_host.as_deref().unwrap_or(AUTHORITY);
    let proof = match (secret, &environment.federated_token_file) {
        (Some(secret), _) => Proof::Secret(secret.clone()),
        (None, Some(file)) => Proof::File(file.clone()),
        (None, None) => return managed(setup, resource(authority), client_id),
    };
    let tenant = keys.tenant_id.as_ref().or(environment.tenant_id.as_ref());
    let (Some(tenant), Some(client_id)) = (tenant, client_id) else {
        return Err("it needs `tenant_id` and `client_id` beside the secret".to_owned());
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if !tenant.bytes().all(plain) {
        return Err("its `tenant_id` is neither a GUID nor a domain".to_owned());
    }
    let authority = authority.trim_end_matches('/');
    let scheme = if authority.contains("://") { "" } else { "https://" };
    let url = format!("{scheme}{authority}/{tenant}/oauth2/v2.0/token");
    Ok(Source::App {
        desk: Desk::new(ENTRA, &url, setup)?,
        client_id: client_id.clone(),
        scope: format!("{}/.default", resource(authority)),
        proof,
    })
}

fn resource(authority: &str) -> &'static str {
    let found = RESOURCES.iter().find(|(host, _)| authority.contains(host));
    found.map_or(RESOURCES[0].1, |(_, resource)| resource)
}

/// The identity of an App Service, which tells where to ask, or of a virtual machine.
fn managed(setup: Setup<'_>, resource: &str, client_id: Option<&String>) -> Result<Source, String> {
    let environment = &setup.environment.azure;
    let mut fields = vec![("resource", resource)];
    fields.extend(client_id.map(|id| ("client_id", id.as_str())));
    let fields = form(&fields);
    if let (Some(endpoint), Some(secret)) =
        (&environment.identity_endpoint, &environment.identity_header)
    {
        let url = format!("{endpoint}?api-version={APP_SERVICE_VERSION}&{fields}");
        let value = sensitive(secret.expose()).map_err(|fault| fault.0)?;
        let header = (HeaderName::from_static("x-identity-header"), value);
        return Ok(Source::Managed { desk: Desk::local(MANAGED, &url, setup)?, header });
    }
    let host = environment.metadata_endpoint.as_deref().unwrap_or(METADATA).trim_end_matches('/');
    let url = format!("{host}{METADATA_PATH}&{fields}");
    let header = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
    Ok(Source::Managed { desk: Desk::local(MANAGED, &url, setup)?, header })
}

// === impl Source ===

impl Source {
    pub(super) async fn issue(&self) -> Result<Issued<Bearer>, AuthFault> {
        match self {
            Self::App { desk, client_id, scope, proof } => {
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client_id.as_str()),
                    ("scope", scope.as_str()),
                ];
                let body = form(&[&fields[..], &proof.fields(&proof.text().await?)].concat());
                Bearer::granted(desk, &desk.post(body).await?)
            }
            Self::Managed { desk, header } => {
                let headers = HeaderMap::from_iter([header.clone()]);
                let question = Question { method: "GET", headers, ..Question::default() };
                Bearer::granted(desk, &desk.ask(question).await?)
            }
        }
    }
}

// === impl Proof ===

impl Proof {
    async fn text(&self) -> Result<String, AuthFault> {
        match self {
            Self::Secret(secret) => Ok(secret.expose().to_owned()),
            Self::File(file) => kept_token(file).await,
        }
    }

    fn fields<'a>(&self, text: &'a str) -> Vec<(&'static str, &'a str)> {
        const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        match self {
            Self::Secret(_) => vec![("client_secret", text)],
            Self::File(_) => {
                vec![("client_assertion_type", ASSERTION), ("client_assertion", text)]
            }
        }
    }
}
