//! AWS Secrets Manager, asked by signed requests as Bedrock is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::super::aws::Signatures;
use super::super::desk::{Desk, Question, Sign};
use super::super::{AuthFault, Setup, Unsigned};
use super::Document;
use crate::config;
use crate::dialect::splice::Payload;
use crate::provider::bedrock;

const SIGN: Sign = Sign {
    name: "AWS Secrets Manager",
    remedy: "check the region, the secret's name, and the right to secretsmanager:GetSecretValue",
};
const SERVICE: &str = "secretsmanager";
const TARGET: &str = "secretsmanager.GetSecretValue";

/// The secrets of one region.
#[derive(Debug)]
pub(super) struct Secrets {
    desk: Desk,
    signatures: Signatures,
}

// === impl Secrets ===

impl Secrets {
    /// In the region that is written, else in that of the first secret, if it is named by an ARN.
    pub(super) fn open(setup: Setup<'_>, name: &str) -> Result<Self, String> {
        let mut section = setup.section.clone();
        if section.cloud.region.is_none() {
            section.cloud.region = region_of(name);
        }
        let setup = Setup { section: &section, ..setup };
        let signatures = Signatures::of(setup, SERVICE)
            .map_err(|wrong| format!("[{}]: {wrong}", config::Manager::Aws.section()))?;
        let region = signatures.region();
        let usual = || format!("https://secretsmanager.{region}.{}", bedrock::domain(region));
        let endpoint = setup.environment.aws.secrets_endpoint.clone();
        let url = section.base_url.clone().or(endpoint).unwrap_or_else(usual);
        Ok(Self { desk: Desk::new(SIGN, &url, setup)?, signatures })
    }

    pub(super) async fn fetch(&self, name: &str) -> Result<Document, AuthFault> {
        let body = json!({"SecretId": name}).to_string();
        let payload = Payload::from(Bytes::from(body.clone()));
        let own = [
            (CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1")),
            (HeaderName::from_static("x-amz-target"), HeaderValue::from_static(TARGET)),
        ];
        let path = format!("{}/", self.desk.path);
        let unsigned = Unsigned {
            method: "POST",
            host: self.desk.host(),
            path: &path,
            headers: &own,
            body: &payload,
        };
        let proof = self.signatures.authorize(&unsigned).await?;
        let headers = own.into_iter().chain(proof).collect::<HeaderMap>();
        let question = Question { method: "POST", path: Some(&path), headers, body };
        let answer = self.desk.ask(question).await.inspect_err(|_| self.signatures.doubt())?;
        let json = answer.json().unwrap_or_default();
        if let Some(text) = json["SecretString"].as_str() {
            return Document::text(text);
        }
        let bytes = json["SecretBinary"].as_str().and_then(|text| STANDARD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Document::text(&text.ok_or_else(|| self.desk.fault("what is kept there is no text"))?)
    }
}

/// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`.
fn region_of(name: &str) -> Option<String> {
    let mut parts = name.split(':');
    let is_secret = parts.next()? == "arn" && parts.nth(1)? == SERVICE;
    parts.next().filter(|_| is_secret).map(str::to_owned)
}
