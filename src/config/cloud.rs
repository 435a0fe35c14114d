//! What the big clouds want to know of us: keys of a provider's section, and the environment
//! variables that their own tools read.

use std::path::PathBuf;

use super::reader::Section;
use super::secret::{Literal, Secret, variable};

/// Where a request proves who sends it by more than a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    Aws,
    Google,
    Azure,
}

/// Keys of a provider that mean something to one cloud only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudKeys {
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    pub profile: Option<String>,
    pub project: Option<String>,
    pub location: Option<String>,
    /// A JSON file as Google's tools write it.
    pub credentials: Option<PathBuf>,
    pub tenant_id: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
}

/// The environment, as the clouds' own tools read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudEnvironment {
    pub aws: AwsEnvironment,
    pub google: GoogleEnvironment,
    pub azure: AzureEnvironment,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsEnvironment {
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub session_token: Option<Secret>,
    /// An API key of Bedrock, sent as a bearer.
    pub bearer_token: Option<Secret>,
    pub profile: Option<String>,
    pub config_file: Option<PathBuf>,
    pub credentials_file: Option<PathBuf>,
    pub role_arn: Option<String>,
    pub role_session_name: Option<String>,
    pub web_identity_token_file: Option<PathBuf>,
    pub container_relative_uri: Option<String>,
    pub container_full_uri: Option<String>,
    pub container_token: Option<Secret>,
    pub container_token_file: Option<PathBuf>,
    pub metadata_endpoint: Option<String>,
    pub metadata_disabled: bool,
    pub sts_endpoint: Option<String>,
    pub bedrock_endpoint: Option<String>,
    pub secrets_endpoint: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoogleEnvironment {
    pub credentials: Option<PathBuf>,
    /// What `gcloud auth application-default login` leaves behind.
    pub well_known_file: Option<PathBuf>,
    /// Host and port.
    pub metadata_host: Option<String>,
    pub project: Option<String>,
    pub location: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureEnvironment {
    pub tenant_id: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub federated_token_file: Option<PathBuf>,
    pub authority_host: Option<String>,
    pub identity_endpoint: Option<String>,
    pub identity_header: Option<Secret>,
    /// Where virtual machines ask for tokens, if not at the usual address.
    pub metadata_endpoint: Option<String>,
}

// === impl CloudKeys ===

impl CloudKeys {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let secret =
            |key, literal| section.get(key).and_then(|field| Secret::read(&field, literal));
        // Not secret, but as often kept in the environment.
        let plain = |key| secret(key, Literal::Plain).map(|text| text.expose().to_owned());
        let keys = Self {
            region: plain("region"),
            access_key_id: plain("access_key_id"),
            secret_access_key: secret("secret_access_key", Literal::Warned),
            session_token: secret("session_token", Literal::Warned),
            profile: plain("profile"),
            project: plain("project"),
            location: plain("location"),
            credentials: plain("credentials").map(|path| section.report.beside(&path)),
            tenant_id: plain("tenant_id"),
            client_id: plain("client_id"),
            client_secret: secret("client_secret", Literal::Warned),
        };
        if plain("credentials").is_some_and(|text| text.trim_start().starts_with('{')) {
            let message = "holds the account itself; put that into a file and write its path";
            section.get("credentials").iter().for_each(|field| field.fail(message));
        }
        keys.check(section);
        keys
    }

    /// Combinations that can never prove anything.
    fn check(&self, section: &Section<'_>) {
        let written = |key: &str| section.get(key).is_some();
        let complain = |message: &str| section.report.problem(&section.path, message);
        if written("access_key_id") != written("secret_access_key") {
            complain("`access_key_id` and `secret_access_key` belong together; write both");
        }
        if written("session_token") && !written("access_key_id") {
            complain("`session_token` belongs to an `access_key_id`; write both");
        }
        if written("access_key_id") && written("profile") {
            complain("`access_key_id` and `profile` are both written; keep one");
        }
        for key in ["region", "location"] {
            let text = if key == "region" { &self.region } else { &self.location };
            if text.as_ref().is_some_and(|text| !is_place(text)) {
                complain(&format!("`{key}` may hold small letters, digits and - only"));
            }
        }
    }

    /// The keys that were written, each with the cloud it means something to.
    pub fn written(&self) -> impl Iterator<Item = (&'static str, Cloud)> {
        [
            ("region", Cloud::Aws, self.region.is_some()),
            ("access_key_id", Cloud::Aws, self.access_key_id.is_some()),
            ("secret_access_key", Cloud::Aws, self.secret_access_key.is_some()),
            ("session_token", Cloud::Aws, self.session_token.is_some()),
            ("profile", Cloud::Aws, self.profile.is_some()),
            ("project", Cloud::Google, self.project.is_some()),
            ("location", Cloud::Google, self.location.is_some()),
            ("credentials", Cloud::Google, self.credentials.is_some()),
            ("tenant_id", Cloud::Azure, self.tenant_id.is_some()),
            ("client_id", Cloud::Azure, self.client_id.is_some()),
            ("client_secret", Cloud::Azure, self.client_secret.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, cloud, written)| written.then_some((key, cloud)))
    }
}

/// Regions and locations become part of a host name.
fn is_place(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

// === impl CloudEnvironment ===

impl CloudEnvironment {
    /// Reads it as it is now.
    pub fn read() -> Self {
        Self::from(&variable)
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let region = |name| variable(name).filter(|text| is_place(text));
        Self {
            aws: AwsEnvironment {
                region: region("AWS_REGION").or_else(|| region("AWS_DEFAULT_REGION")),
                ..AwsEnvironment::from(variable)
            },
            google: GoogleEnvironment::from(variable, &region),
            azure: AzureEnvironment::from(variable),
        }
    }
}

impl AwsEnvironment {
    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let path = |name| variable(name).map(PathBuf::from);
        let secret = |name| variable(name).map(Secret::new);
        let at_home = |file| home(variable, &[".aws", file]);
        let endpoint = |name| variable(name).or_else(|| variable("AWS_ENDPOINT_URL"));
        Self {
            region: None,
            access_key_id: variable("AWS_ACCESS_KEY_ID"),
            secret_access_key: secret("AWS_SECRET_ACCESS_KEY"),
            session_token: secret("AWS_SESSION_TOKEN"),
            bearer_token: secret("AWS_BEARER_TOKEN_BEDROCK"),
            profile: variable("AWS_PROFILE"),
            config_file: path("AWS_CONFIG_FILE").or_else(|| at_home("config")),
            credentials_file: path("AWS_SHARED_CREDENTIALS_FILE")
                .or_else(|| at_home("credentials")),
            role_arn: variable("AWS_ROLE_ARN"),
            role_session_name: variable("AWS_ROLE_SESSION_NAME"),
            web_identity_token_file: path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            container_relative_uri: variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            container_full_uri: variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            container_token: secret("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            container_token_file: path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            metadata_endpoint: variable("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            metadata_disabled: variable("AWS_EC2_METADATA_DISABLED")
                .is_some_and(|text| text.eq_ignore_ascii_case("true")),
            sts_endpoint: endpoint("AWS_ENDPOINT_URL_STS"),
            bedrock_endpoint: endpoint("AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
            secrets_endpoint: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
        }
    }
}

impl GoogleEnvironment {
    fn from(
        variable: &dyn Fn(&str) -> Option<String>,
        location: &dyn Fn(&'static str) -> Option<String>,
    ) -> Self {
        const FILE: &str = "application_default_credentials.json";
        let folder = variable("CLOUDSDK_CONFIG").map(|folder| PathBuf::from(folder).join(FILE));
        Self {
            credentials: variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            well_known_file: folder.or_else(|| home(variable, &[".config", "gcloud", FILE])),
            metadata_host: variable("GCE_METADATA_HOST"),
            project: variable("GOOGLE_CLOUD_PROJECT").or_else(|| variable("GCLOUD_PROJECT")),
            location: location("GOOGLE_CLOUD_LOCATION").or_else(|| location("CLOUD_ML_REGION")),
        }
    }
}

impl AzureEnvironment {
    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            tenant_id: variable("AZURE_TENANT_ID"),
            client_id: variable("AZURE_CLIENT_ID"),
            client_secret: variable("AZURE_CLIENT_SECRET").map(Secret::new),
            federated_token_file: variable("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            authority_host: variable("AZURE_AUTHORITY_HOST"),
            identity_endpoint: variable("IDENTITY_ENDPOINT"),
            identity_header: variable("IDENTITY_HEADER").map(Secret::new),
            metadata_endpoint: variable("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        }
    }
}

/// A file below the home folder.
fn home(variable: &dyn Fn(&str) -> Option<String>, steps: &[&str]) -> Option<PathBuf> {
    let mut path = PathBuf::from(variable("HOME")?);
    path.extend(steps);
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_as_the_clouds_own_tools_do() {
        let environment = CloudEnvironment::from(&|name| match name {
            "HOME" => Some("/home/me".to_owned()),
            "AWS_DEFAULT_REGION" => Some("eu-west-1".to_owned()),
            "AWS_ENDPOINT_URL" => Some("http://localhost:1".to_owned()),
            "AWS_ENDPOINT_URL_STS" => Some("http://localhost:2".to_owned()),
            "CLOUD_ML_REGION" => Some("evil.example/".to_owned()),
            "AZURE_CLIENT_SECRET" => Some("canary".to_owned()),
            _ => None,
        });
        let CloudEnvironment { aws, google, azure } = &environment;
        assert_eq!(aws.region.as_deref(), Some("eu-west-1"));
        assert_eq!(aws.sts_endpoint.as_deref(), Some("http://localhost:2"));
        assert_eq!(aws.bedrock_endpoint.as_deref(), Some("http://localhost:1"));
        assert_eq!(aws.config_file, Some(PathBuf::from("/home/me/.aws/config")));
        assert_eq!(google.location, None, "a location may not choose a host");
        assert!(google.well_known_file.as_ref().unwrap().starts_with("/home/me/.config/gcloud"));
        assert_eq!(azure.client_secret, Some(Secret::new("canary")));
        assert!(!format!("{environment:?}").contains("canary"));
    }
}
