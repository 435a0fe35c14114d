//! Signature Version 4, with credentials from wherever the AWS tools would take them.

mod chain;
mod profile;
mod source;

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use self::source::Source;
use super::keeper::Keeper;
use super::{AuthFault, Setup, Unsigned, sensitive};
use crate::config::{AwsEnvironment, CloudKeys, Secret};
use crate::dialect::splice::Payload;
use crate::provider::bedrock;

/// The service that signatures are for: that of Bedrock's runtime.
const SERVICE: &str = bedrock::ID;

/// Signs requests for one region.
#[derive(Debug)]
pub(in crate::provider) struct Signatures {
    keeper: Keeper<Source>,
    region: String,
    service: &'static str,
}

/// What a signature is good for.
#[derive(Debug, Clone, Copy)]
struct Scope<'a> {
    region: &'a str,
    service: &'a str,
    time: SystemTime,
}

// === impl Signatures ===

impl Signatures {
    pub(super) fn new(setup: Setup<'_>) -> Result<Self, String> {
        Self::of(setup, SERVICE)
    }

    /// For another service than Bedrock.
    pub(super) fn of(setup: Setup<'_>, service: &'static str) -> Result<Self, String> {
        let region = region(&setup.section.cloud, &setup.environment.aws)?;
        let source = chain::find(setup, &region)?;
        Ok(Self { keeper: Keeper::new(source), region, service })
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    pub(super) async fn authorize(
        &self,
        unsigned: &Unsigned<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, AuthFault> {
        let credentials = self.keeper.credential().await?;
        let scope = Scope { region: &self.region, service: self.service, time: SystemTime::now() };
        signed(&credentials, scope, unsigned)
    }

    pub(super) fn doubt(&self) {
        self.keeper.doubt();
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        let Some(credentials) = self.keeper.held() else { return Vec::new() };
        let key = Secret::new(credentials.secret_access_key());
        let token = credentials.session_token().map(Secret::new);
        std::iter::once(key).chain(token).collect()
    }
}

/// The region of a section, of the environment, or of the profile.
pub(super) fn region(keys: &CloudKeys, environment: &AwsEnvironment) -> Result<String, String> {
    let written = keys.region.clone().or_else(|| environment.region.clone());
    if let Some(region) = written {
        return Ok(region);
    }
    let profiles = profile::Profiles::read(environment)?;
    let name = chain::profile_name(keys, environment);
    let region = profiles.find(name).and_then(|profile| profile.get("region"));
    let place = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    region
        .filter(|region| region.bytes().all(place))
        .map(str::to_owned)
        .ok_or_else(|| "it needs a `region`, or AWS_REGION in the environment".to_owned())
}

/// The headers that make `unsigned` a signed request.
fn signed(
    credentials: &Credentials,
    scope: Scope<'_>,
    unsigned: &Unsigned<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, AuthFault> {
    let wrong = |_| AuthFault("a request cannot be signed; check the model's name".to_owned());
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| AuthFault(format!("a request cannot be signed: {error}")))?
        .into();
    let host = std::iter::once(("host", unsigned.host));
    let headers = unsigned
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let request = SignableRequest::new(
        unsigned.method,
        // The scheme is not signed.
        format!("https://{}{}", unsigned.host, unsigned.path),
        host.chain(headers),
        SignableBody::Precomputed(digest(unsigned.body)),
    )
    .map_err(wrong)?;
    let (instructions, _) = sign(request, &parameters).map_err(wrong)?.into_parts();
    let (headers, _) = instructions.into_parts();
    headers
        .into_iter()
        .map(|header| Ok((HeaderName::from_static(header.name()), sensitive(header.value())?)))
        .collect()
}

/// SHA-256 in hex, over the pieces as they are.
fn digest(body: &Payload) -> String {
    let mut hasher = Sha256::new();
    for part in body.parts() {
        hasher.update(part);
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(digit), 16));
        }
        hex
    })
}

#[cfg(test)]
mod tests;
