//! Signatures against published ones, and each link of the credential chain.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::config::CloudEnvironment;
use crate::provider::auth::Signer;
use crate::provider::auth::tests::{Scene, Stand, authorize};

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "us-east-1";

/// 30 August 2015, 12:36:00 UTC: the moment of the published examples.
fn then() -> SystemTime {
    UNIX_EPOCH + Duration::from_mins(24_015_636)
}

fn signature(token: Option<&str>, scope: Scope<'_>, unsigned: &Unsigned<'_>) -> String {
    let credentials = Credentials::new(ID, KEY, token.map(str::to_owned), None, "test");
    let headers = signed(&credentials, scope, unsigned).unwrap();
    let found = headers.iter().find(|(name, _)| name == "authorization");
    found.unwrap().1.to_str().unwrap().to_owned()
}

#[test]
fn the_published_examples_are_signed_as_published() {
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let examples = [
        ("GET", None, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", None, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", Some(token), "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"),
    ];
    for (method, token, expected) in examples {
        let host = "example.amazonaws.com";
        let body = Payload::default();
        let unsigned = Unsigned { method, host, path: "/", headers: &[], body: &body };
        let scope = Scope { region: REGION, service: "service", time: then() };
        let signature = signature(token, scope, &unsigned);
        assert!(signature.ends_with(&format!(", Signature={expected}")), "{signature}");
    }
}

#[test]
fn a_model_with_a_colon_is_signed_as_the_specification_has_it() {
    // Computed apart from this code, by the steps of the specification.
    let expected = "87182bcc146d230ed63740bd2d759dc2366141db8e1d89d5c5fedccce7c78686";
    let path = crate::provider::bedrock::path(
        "",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        crate::provider::bedrock::Operation::Converse,
    );
    let mut body = Payload::default();
    body.push("{\"mess".into());
    body.push("ages\":[]}".into());
    let json = HeaderValue::from_static("application/json");
    let unsigned = Unsigned {
        method: "POST",
        host: "bedrock-runtime.eu-west-1.amazonaws.com",
        path: &path,
        headers: &[(http::header::CONTENT_TYPE, json)],
        body: &body,
    };
    let scope = Scope { region: "eu-west-1", service: SERVICE, time: then() };
    assert_eq!(
        signature(None, scope, &unsigned),
        format!(
            "AWS4-HMAC-SHA256 Credential={ID}/20150830/eu-west-1/bedrock/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, Signature={expected}"
        )
    );
}

fn scene() -> Scene {
    let mut environment = CloudEnvironment::default();
    environment.aws.region = Some(REGION.to_owned());
    Scene::new(CloudKeys::default(), environment)
}

fn sts(action: &str) -> String {
    format!(
        "<{action}Response><{action}Result><Credentials><AccessKeyId>ASIA</AccessKeyId>\
         <SecretAccessKey>key canary</SecretAccessKey><SessionToken>token+canary==</SessionToken>\
         <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></{action}Result>\
         </{action}Response>"
    )
}

/// The key id that a signer signs with, and the session token beside it.
async fn used(scene: &Scene) -> (String, Option<String>) {
    let signer = Signer::aws(scene.setup()).unwrap();
    let headers = authorize(&signer).await.unwrap();
    let find = |wanted| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let authorization = find("authorization").unwrap();
    let (_, rest) = authorization.split_once("Credential=").unwrap();
    let shown = format!("{signer:?}");
    assert!(!shown.contains("canary"), "{shown}");
    for secret in signer.secrets() {
        assert!(secret.expose().contains("canary"), "what is redacted");
    }
    (rest.split('/').next().unwrap().to_owned(), find("x-amz-security-token").cloned())
}

#[tokio::test]
async fn keys_of_the_section_win_over_those_of_the_environment() {
    let mut scene = scene();
    scene.environment.aws.access_key_id = Some("FROM_ENVIRONMENT".to_owned());
    scene.environment.aws.secret_access_key = Some(Secret::new("canary"));
    scene.environment.aws.session_token = Some(Secret::new("session canary"));
    let session = Some("session canary".to_owned());
    assert_eq!(used(&scene).await, ("FROM_ENVIRONMENT".to_owned(), session));
    scene.section.cloud.access_key_id = Some("FROM_SECTION".to_owned());
    scene.section.cloud.secret_access_key = Some(Secret::new("canary"));
    assert_eq!(used(&scene).await, ("FROM_SECTION".to_owned(), None));
}

#[tokio::test]
async fn a_web_identity_is_changed_for_a_role() {
    let desk = Stand::open(|_| (200, sts("AssumeRoleWithWebIdentity"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "pod-token\n").unwrap();
    let mut scene = scene();
    scene.environment.aws.sts_endpoint = Some(desk.url.clone());
    scene.environment.aws.role_arn = Some("arn:aws:iam::1:role/r".to_owned());
    scene.environment.aws.web_identity_token_file = Some(file);
    assert_eq!(used(&scene).await, ("ASIA".to_owned(), Some("token+canary==".to_owned())));
    let heard = desk.heard();
    assert!(heard[0].starts_with("POST / HTTP/1.1") && !heard[0].contains("authorization"));
    assert!(heard[0].ends_with(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
         &RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=switchpoint\
         &WebIdentityToken=pod-token"
    ));
}

#[tokio::test]
async fn a_refused_web_identity_says_why_and_not_what_was_shown() {
    let refusal = "<E><Error><Code>ExpiredToken</Code><Message>canary</Message></Error></E>";
    let desk = Stand::open(move |_| (403, refusal.to_owned())).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "canary").unwrap();
    let mut scene = scene();
    scene.environment.aws.sts_endpoint = Some(desk.url.clone());
    scene.environment.aws.role_arn = Some("arn:aws:iam::1:role/r".to_owned());
    scene.environment.aws.web_identity_token_file = Some(file);
    let signer = Signer::aws(scene.setup()).unwrap();
    let fault = authorize(&signer).await.unwrap_err().to_string();
    assert!(fault.contains("HTTP 403 ExpiredToken") && !fault.contains("canary"), "{fault}");
}

#[tokio::test]
async fn a_profile_may_hold_keys_or_a_role_for_another_profiles_keys() {
    let desk = Stand::open(|_| (200, sts("AssumeRole"))).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, credentials) = (folder.path().join("config"), folder.path().join("credentials"));
    let text = "[profile work]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = plain\n\
                external_id = e\n[default]\nregion = eu-north-1\n\
                [profile sso]\nsso_session = x\n[profile loop]\nrole_arn = a\n\
                source_profile = pool\n[profile pool]\nrole_arn = b\nsource_profile = loop\n";
    std::fs::write(&config, text).unwrap();
    let text = "[plain]\naws_access_key_id = PLAIN\naws_secret_access_key = canary\n";
    std::fs::write(&credentials, text).unwrap();
    let mut scene = scene();
    scene.environment.aws.sts_endpoint = Some(desk.url.clone());
    scene.environment.aws.config_file = Some(config);
    scene.environment.aws.credentials_file = Some(credentials);

    scene.section.cloud.profile = Some("plain".to_owned());
    assert_eq!(used(&scene).await, ("PLAIN".to_owned(), None));
    scene.section.cloud.profile = Some("work".to_owned());
    assert_eq!(used(&scene).await.0, "ASIA");
    let heard = desk.heard();
    assert!(heard[0].contains("Credential=PLAIN/") && heard[0].contains("/us-east-1/sts/aws4_"));
    assert!(heard[0].ends_with("&RoleSessionName=switchpoint&ExternalId=e"));

    let mut problem = |name: &str| {
        scene.section.cloud.profile = Some(name.to_owned());
        Signer::aws(scene.setup()).unwrap_err()
    };
    assert!(problem("none").contains("no AWS profile `none`"));
    assert!(problem("sso").contains("SSO are not supported"));
    assert!(problem("loop").contains("its own source"));
    scene.section.cloud.profile = None;
    scene.environment.aws.region = None;
    let region = crate::provider::auth::aws_region(&scene.section, &scene.environment);
    assert_eq!(region.as_deref(), Ok("eu-north-1"));
}

#[tokio::test]
async fn a_container_and_an_instance_ask_their_host() {
    let answer = r#"{"AccessKeyId":"ASIA","SecretAccessKey":"canary","Token":"canary",
                     "Expiration":"2999-01-01T00:00:00Z"}"#;
    let desk = Stand::open(move |request| match request.split(' ').nth(1).unwrap() {
        "/latest/api/token" => (200, "metadata-token".to_owned()),
        "/latest/meta-data/iam/security-credentials/" => (200, "my-role\n".to_owned()),
        "/latest/meta-data/iam/security-credentials/my-role" | "/container" => {
            (200, answer.to_owned())
        }
        _ => (404, String::new()),
    })
    .await;
    let mut scene = scene();
    scene.environment.aws.metadata_endpoint = Some(desk.url.clone());
    assert_eq!(used(&scene).await, ("ASIA".to_owned(), Some("canary".to_owned())));
    let heard = desk.heard();
    assert!(heard[0].starts_with("PUT /latest/api/token") && heard.len() == 3);
    assert!(heard[2].contains("x-aws-ec2-metadata-token: metadata-token"));

    scene.environment.aws.container_full_uri = Some(format!("{}/container", desk.url));
    scene.environment.aws.container_token = Some(Secret::new("pod"));
    assert_eq!(used(&scene).await.0, "ASIA");
    assert!(desk.heard()[3].contains("authorization: pod\r\n"));
}

#[test]
fn without_any_credentials_it_says_which_would_do() {
    let mut scene = scene();
    scene.environment.aws.metadata_disabled = true;
    assert!(Signer::aws(scene.setup()).unwrap_err().contains("write `access_key_id`"));
    scene.environment.aws.region = None;
    assert!(Signer::aws(scene.setup()).unwrap_err().contains("it needs a `region`"));
}
