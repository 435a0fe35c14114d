//! Which credentials are taken: the section's own, its profile's, else the first that the
//! standard chain finds.

use aws_credential_types::Credentials;

use super::profile::{DEFAULT, Profile, Profiles};
use super::source::{Role, Source, Sts};
use crate::config::{AwsEnvironment, CloudKeys, Secret};
use crate::provider::auth::Setup;
use crate::provider::auth::desk::{Desk, Sign};
use crate::provider::bedrock;

/// Where an instance and a container's agent answer.
const INSTANCE: &str = "http://169.254.169.254";
const CONTAINER: &str = "http://169.254.170.2";

const STS: Sign =
    Sign { name: "AWS STS", remedy: "check the role, who may assume it, and the region" };
const AGENT: Sign =
    Sign { name: "The AWS container agent", remedy: "check the role of the task or pod" };
const METADATA: Sign = Sign {
    name: "The AWS instance metadata",
    remedy: "give the instance a role, or write an `api_key`, `access_key_id` and \
             `secret_access_key`, or a `profile`",
};

/// Profiles that take their keys from one another, at the most.
const DEEPEST: usize = 8;

/// The source of a section's credentials.
pub(super) fn find(setup: Setup<'_>, region: &str) -> Result<Source, String> {
    let keys = &setup.section.cloud;
    if let (Some(id), Some(secret)) = (&keys.access_key_id, &keys.secret_access_key) {
        let token = keys.session_token.as_ref().map(Secret::expose);
        return Ok(fixed(id, secret.expose(), token));
    }
    let chain = Chain { setup, region };
    if let Some(name) = &keys.profile {
        return chain.profile(&Profiles::read(&setup.environment.aws)?, name, DEEPEST);
    }
    if let Some(source) = chain.environment() {
        return Ok(source);
    }
    if let Some(source) = chain.web_identity()? {
        return Ok(source);
    }
    let profiles = Profiles::read(&setup.environment.aws)?;
    let name = profile_name(keys, &setup.environment.aws);
    let named = setup.environment.aws.profile.is_some();
    // A default profile often holds a region and nothing else; the chain then goes on.
    if named || profiles.find(name).is_some_and(holds_credentials) {
        return chain.profile(&profiles, name, DEEPEST);
    }
    if let Some(source) = chain.container()? {
        return Ok(source);
    }
    chain.instance()
}

pub(super) fn profile_name<'a>(keys: &'a CloudKeys, environment: &'a AwsEnvironment) -> &'a str {
    keys.profile.as_deref().or(environment.profile.as_deref()).unwrap_or(DEFAULT)
}

fn fixed(id: &str, secret: &str, token: Option<&str>) -> Source {
    let token = token.map(str::to_owned);
    Source::Fixed(Credentials::new(id, secret, token, None, "switchpoint"))
}

fn own_keys(profile: &Profile) -> Option<Source> {
    let (id, secret) = (profile.get("aws_access_key_id")?, profile.get("aws_secret_access_key")?);
    Some(fixed(id, secret, profile.get("aws_session_token")))
}

fn holds_credentials(profile: &Profile) -> bool {
    let keys = ["aws_access_key_id", "role_arn", "credential_process", "sso_session"];
    keys.iter().chain(&["sso_start_url"]).any(|key| profile.get(key).is_some())
}

struct Chain<'a> {
    setup: Setup<'a>,
    region: &'a str,
}

// === impl Chain ===

impl<'a> Chain<'a> {
    fn variables(&self) -> &'a AwsEnvironment {
        &self.setup.environment.aws
    }

    fn environment(&self) -> Option<Source> {
        let variables = self.variables();
        let (id, secret) = (&variables.access_key_id, &variables.secret_access_key);
        let token = variables.session_token.as_ref().map(Secret::expose);
        Some(fixed(id.as_deref()?, secret.as_ref()?.expose(), token))
    }

    fn web_identity(&self) -> Result<Option<Source>, String> {
        let variables = self.variables();
        let (Some(file), Some(arn)) = (&variables.web_identity_token_file, &variables.role_arn)
        else {
            return Ok(None);
        };
        let role = Role::new(arn, variables.role_session_name.as_deref(), None);
        Ok(Some(Source::WebIdentity { sts: self.sts()?, role, token_file: file.clone() }))
    }

    fn profile(&self, profiles: &Profiles, name: &str, depth: usize) -> Result<Source, String> {
        let profile = profiles.find(name).ok_or_else(|| {
            format!("there is no AWS profile `{name}` in the config or credentials file")
        })?;
        let session = profile.get("role_session_name");
        let external_id = profile.get("external_id");
        if let Some(arn) = profile.get("role_arn") {
            let role = Role::new(arn, session, external_id);
            if let Some(file) = profile.get("web_identity_token_file") {
                return Ok(Source::WebIdentity { sts: self.sts()?, role, token_file: file.into() });
            }
            let base = Box::new(self.base(profiles, profile, name, depth)?);
            return Ok(Source::AssumeRole { base, sts: self.sts()?, role });
        }
        own_keys(profile).ok_or_else(|| {
            format!(
                "the AWS profile `{name}` holds neither keys nor a role; `credential_process` and \
                 SSO are not supported, so export keys from them into the environment"
            )
        })
    }

    /// Whose keys ask for a profile's role.
    fn base(
        &self,
        profiles: &Profiles,
        profile: &Profile,
        name: &str,
        depth: usize,
    ) -> Result<Source, String> {
        let nothing = |place: &str| format!("the AWS profile `{name}` finds no keys in {place}");
        if let Some(source) = profile.get("source_profile") {
            if source == name {
                return own_keys(profile).ok_or_else(|| nothing("itself"));
            }
            let depth = depth
                .checked_sub(1)
                .ok_or_else(|| format!("the AWS profile `{name}` is its own source"))?;
            return self.profile(profiles, source, depth);
        }
        match profile.get("credential_source") {
            Some("Environment") => self.environment().ok_or_else(|| nothing("the environment")),
            Some("EcsContainer") => self.container()?.ok_or_else(|| nothing("a container")),
            Some("Ec2InstanceMetadata") => self.instance(),
            _ => Err(format!("the AWS profile `{name}` has a role, but no `source_profile`")),
        }
    }

    fn sts(&self) -> Result<Sts, String> {
        let usual = || format!("https://sts.{}.{}", self.region, bedrock::domain(self.region));
        let url = self.variables().sts_endpoint.clone().unwrap_or_else(usual);
        let desk = Desk::new(STS, &url, self.setup)?;
        Ok(Sts { desk, region: self.region.to_owned() })
    }

    fn container(&self) -> Result<Option<Source>, String> {
        let variables = self.variables();
        let desk = match (&variables.container_relative_uri, &variables.container_full_uri) {
            (Some(path), _) => Desk::local(AGENT, &format!("{CONTAINER}{path}"), self.setup)?,
            (None, Some(url)) if url.starts_with("https://") => Desk::new(AGENT, url, self.setup)?,
            (None, Some(url)) => Desk::local(AGENT, url, self.setup)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Source::Container {
            desk,
            token: variables.container_token.clone(),
            token_file: variables.container_token_file.clone(),
        }))
    }

    fn instance(&self) -> Result<Source, String> {
        if self.variables().metadata_disabled {
            return Err("no AWS credentials were found; write `access_key_id` and \
                        `secret_access_key`, or a `profile`, or an `api_key`"
                .to_owned());
        }
        let url = self.variables().metadata_endpoint.as_deref().unwrap_or(INSTANCE);
        Desk::local(METADATA, url, self.setup).map(Source::Instance)
    }
}
