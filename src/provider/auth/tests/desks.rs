//! Microsoft Entra, by each of the ways to it; the other clouds' tests stand beside their code.

use super::*;

const GRANT: &str = r#"{"token_type":"Bearer","access_token":"t1","expires_in":"3600"}"#;

fn entra_at(desk: &Stand, fill: impl FnOnce(&mut Scene)) -> Signer {
    let mut scene = Scene::new(CloudKeys::default(), CloudEnvironment::default());
    scene.environment.azure.authority_host = Some(desk.url.clone());
    fill(&mut scene);
    Signer::entra(scene.setup()).unwrap()
}

fn with_secret(scene: &mut Scene) {
    scene.section.cloud.tenant_id = Some("tenant".to_owned());
    scene.section.cloud.client_id = Some("app".to_owned());
    scene.section.cloud.client_secret = Some(Secret::new("canary secret"));
}

#[tokio::test]
async fn an_app_shows_its_secret_once_and_its_token_from_then_on() {
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let signer = entra_at(&desk, with_secret);
    for _ in 0..3 {
        assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    }
    let heard = desk.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("POST /tenant/oauth2/v2.0/token HTTP/1.1"));
    assert!(heard[0].contains("content-type: application/x-www-form-urlencoded"));
    assert!(heard[0].ends_with(
        "grant_type=client_credentials&client_id=app\
         &scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_secret=canary%20secret"
    ));
    assert_eq!(signer.secrets(), [Secret::new("t1")]);
    signer.doubt();
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
}

#[tokio::test]
async fn a_workload_shows_the_token_that_its_platform_keeps_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "platform-token\n").unwrap();
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let signer = entra_at(&desk, |scene| {
        scene.environment.azure.tenant_id = Some("tenant".to_owned());
        scene.environment.azure.client_id = Some("app".to_owned());
        scene.environment.azure.federated_token_file = Some(file);
    });
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    assert!(desk.heard()[0].ends_with("&client_assertion=platform-token"));
}

#[tokio::test]
async fn a_machine_asks_for_its_own_identity() {
    let desk = Stand::open(|_| (200, GRANT.to_owned())).await;
    let signer = entra_at(&desk, |scene| {
        scene.environment.azure.metadata_endpoint = Some(desk.url.clone());
    });
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    let signer = entra_at(&desk, |scene| {
        scene.environment.azure.identity_endpoint = Some(format!("{}/msi/token", desk.url));
        scene.environment.azure.identity_header = Some(Secret::new("canary"));
        scene.section.cloud.client_id = Some("app".to_owned());
    });
    assert_eq!(token(&signer).await.unwrap(), "Bearer t1");
    let heard = desk.heard();
    assert!(heard[0].starts_with(
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01\
         &resource=https%3A%2F%2Fcognitiveservices.azure.com HTTP/1.1"
    ));
    assert!(heard[0].contains("metadata: true"));
    assert!(heard[1].starts_with("GET /msi/token?api-version=2019-08-01&resource="));
    assert!(heard[1].contains("&client_id=app ") && heard[1].contains("x-identity-header: canary"));
}

#[tokio::test]
async fn no_fault_shows_what_was_sent_or_what_a_desk_says_in_words() {
    let bodies = [
        (401, r#"{"error":"invalid_client","error_description":"canary","error_codes":[7000215]}"#),
        (400, r#"{"error":"canary"}"#),
        (500, "canary secret"),
        (200, r#"{"canary":"canary"}"#),
        (200, r#"{"access_token":"canary\n"}"#),
    ];
    for (status, body) in bodies {
        let desk = Stand::open(move |_| (status, body.to_owned())).await;
        let signer = entra_at(&desk, with_secret);
        let fault = token(&signer).await.unwrap_err();
        let shown = format!("{fault} {fault:?} {signer:?}");
        assert!(!shown.contains("canary"), "{shown}");
        let shows_code = shown.contains("AADSTS7000215");
        assert_eq!(shows_code, status == 401, "{shown}");
    }
    let nowhere = Stand { url: "http://127.0.0.1:1".to_owned(), heard: Arc::default() };
    let fault = token(&entra_at(&nowhere, with_secret)).await.unwrap_err();
    let fault = fault.to_string();
    assert!(fault.starts_with("Microsoft Entra at 127.0.0.1:1 gave no credential: "), "{fault}");
    assert!(fault.contains("; check `tenant_id`"), "{fault}");
}

#[test]
fn an_app_that_is_half_described_is_refused_at_the_start() {
    let mut scene = Scene::new(CloudKeys::default(), CloudEnvironment::default());
    scene.section.cloud.client_secret = Some(Secret::new("canary"));
    let problem = Signer::entra(scene.setup()).unwrap_err();
    assert_eq!(problem, "it needs `tenant_id` and `client_id` beside the secret");
    with_secret(&mut scene);
    scene.section.cloud.tenant_id = Some("../other".to_owned());
    assert!(Signer::entra(scene.setup()).unwrap_err().contains("tenant_id"));
}
