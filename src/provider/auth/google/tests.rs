//! Each of Google's credential files, against a scripted token endpoint.

use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::*;
use crate::config::CloudEnvironment;
use crate::provider::auth::tests::{Scene, Stand, authorize, token};
use crate::provider::auth::{Signer, google_project};

/// Made for these tests; it opens nothing.
const KEY: &str = include_str!("../../../../tests/fixtures/keys/worthless-rsa.pem");
const GRANT: &str = r#"{"access_token":"t1","expires_in":3599,"token_type":"Bearer"}"#;

/// A scene whose section names a file that holds `credentials`.
fn scene(credentials: &Value) -> (Scene, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("google.json");
    std::fs::write(&path, credentials.to_string()).unwrap();
    let keys = CloudKeys { credentials: Some(path), ..CloudKeys::default() };
    (Scene::new(keys, CloudEnvironment::default()), folder)
}

fn account(url: &str) -> Value {
    json!({
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "k1",
        "private_key": KEY,
        "client_email": "gateway@my-project.iam.test",
        "token_uri": format!("{url}/token"),
    })
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let (scene, _folder) = scene(&account(&desk.url));
    let signer = Signer::google(scene.setup()).unwrap();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    let heard = desk.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("POST /token HTTP/1.1"));
    assert!(heard[0].contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"));
    let (_, assertion) = heard[0].split_once("&assertion=").unwrap();

    let [header, claims, signature] = *assertion.split('.').collect::<Vec<_>>() else { panic!() };
    assert_eq!(decoded(header), json!({ "alg": "RS256", "typ": "JWT", "kid": "k1" }));
    let claims_of = decoded(claims);
    assert_eq!(claims_of["iss"], "gateway@my-project.iam.test");
    assert_eq!(claims_of["aud"], format!("{}/token", desk.url));
    assert_eq!(claims_of["scope"], SCOPE);
    let lifetime = claims_of["exp"].as_u64().unwrap() - claims_of["iat"].as_u64().unwrap();
    assert_eq!(lifetime, 3600);
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref())
        .verify(
            format!("{header}.{claims}").as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    assert_eq!(
        google_project(&scene.section, &scene.environment).as_deref(),
        Ok("my-project"),
        "the credentials name it"
    );
}

#[tokio::test]
async fn a_person_is_renewed_and_pays_with_a_project() {
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let (scene, _folder) = scene(&json!({
        "type": "authorized_user",
        "client_id": "c",
        "client_secret": "canary",
        "refresh_token": "canary/1",
        "quota_project_id": "payer",
        "token_uri": desk.url,
    }));
    let signer = Signer::google(scene.setup()).unwrap();
    let headers = authorize(&signer).await.unwrap();
    assert_eq!(headers[1], ("x-goog-user-project".to_owned(), "payer".to_owned()));
    let body = "grant_type=refresh_token&client_id=c&client_secret=canary&refresh_token=canary%2F1";
    assert!(desk.heard()[0].ends_with(body));
    assert!(!format!("{signer:?}").contains("canary"));
}

#[tokio::test]
async fn without_a_file_the_machine_is_asked() {
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let mut environment = CloudEnvironment::default();
    let host = desk.url.strip_prefix("http://").map(str::to_owned);
    environment.google.metadata_host = host;
    let scene = Scene::new(CloudKeys::default(), environment);
    let signer = Signer::google(scene.setup()).unwrap();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    let heard = desk.heard();
    assert!(heard[0].starts_with(&format!("GET {METADATA_PATH} HTTP/1.1")));
    assert!(heard[0].contains("metadata-flavor: Google"));
    let project = google_project(&scene.section, &scene.environment).unwrap_err();
    assert_eq!(project, "it needs a `project`, or GOOGLE_CLOUD_PROJECT");
}

#[tokio::test]
async fn another_platforms_token_is_exchanged_and_acts_as_an_account() {
    let desk = Stand::open(|request| {
        let impersonates = request.starts_with("POST /impersonate ");
        let answer = r#"{"accessToken":"t2","expireTime":"2999-01-01T00:00:00Z"}"#;
        (200, if impersonates { answer } else { GRANT }.to_owned())
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let subject = folder.path().join("subject");
    std::fs::write(&subject, r#"{"value":"platform-token"}"#).unwrap();
    let (scene, _folder) = scene(&json!({
        "type": "external_account",
        "audience": "//iam.test/pool",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/exchange", desk.url),
        "service_account_impersonation_url": format!("{}/impersonate", desk.url),
        "credential_source": {
            "file": subject,
            "format": { "type": "json", "subject_token_field_name": "value" },
        },
    }));
    let signer = Signer::google(scene.setup()).unwrap();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t2");
    let heard = desk.heard();
    assert!(heard[0].starts_with("POST /exchange ") && heard[0].ends_with("=platform-token"));
    assert!(heard[1].contains("authorization: Bearer t1\r\n"));
}

#[test]
fn a_file_that_proves_nothing_is_refused_without_being_shown() {
    let without_key = json!({
        "type": "service_account", "client_email": "e", "private_key": "canary",
    });
    let files = [
        (json!({ "type": "canary" }), "its `type` is none of"),
        (json!({ "canary": 1 }), "it has no `type`"),
        (without_key, "its `private_key` is not an RSA key"),
        (json!({ "type": "external_account", "credential_source": {} }), "only files"),
    ];
    for (credentials, expected) in files {
        let (scene, _folder) = scene(&credentials);
        let problem = Signer::google(scene.setup()).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("canary"), "{problem}");
    }
    // Somebody takes the account itself for a path.
    let account = r#"{"private_key": "canary"}"#;
    let keys = CloudKeys { credentials: Some(account.into()), ..CloudKeys::default() };
    let mut environment = CloudEnvironment::default();
    environment.google.credentials = Some(account.into());
    for (keys, environment, named) in [
        (keys, CloudEnvironment::default(), "credentials: "),
        (CloudKeys::default(), environment, "GOOGLE_APPLICATION_CREDENTIALS: "),
    ] {
        let problem = Signer::google(Scene::new(keys, environment).setup()).unwrap_err();
        assert!(problem.starts_with(named) && problem.contains("No such file"), "{problem}");
        assert!(!problem.contains("canary"), "{problem}");
    }
}
