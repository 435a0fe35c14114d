//! Those who keep secrets, as their documents say that they speak.

use super::*;
use crate::config::{CloudKeys, Login, Vault};
use crate::provider::auth::tests::Stand;

fn reference(manager: Manager, name: &str, field: Option<&str>) -> Reference {
    Reference { manager, name: name.to_owned(), field: field.map(str::to_owned) }
}

fn managers(settings: config::Secrets) -> Managers {
    let environment = CloudEnvironment::default();
    Managers { environment, ..Managers::new(settings, Client::new(1)) }
}

fn of_vault(url: &str, login: Login) -> Managers {
    let vault = Vault {
        address: Some(url.to_owned()),
        namespace: Some("team-a".to_owned()),
        login: Some(login),
        ..Vault::default()
    };
    managers(config::Secrets { vault, ..config::Secrets::default() })
}

/// A Vault that gives out tokens and keeps one secret.
async fn vault() -> Stand {
    Stand::open(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/v1/secret/data/apps/openai" => (
                200,
                r#"{"request_id":"r","lease_id":"","renewable":false,"lease_duration":0,"data":
                    {"data":{"api_key":"sk-kept","port":8200,"other":null},
                    "metadata":{"created_time":"2026-11-21T10:00:00Z","version":2}},"auth":null}"#
                    .to_owned(),
            ),
            "/v1/auth/approle/login" | "/v1/auth/cluster/one/login" => (
                200,
                r#"{"auth":{"client_token":"hvs.issued","accessor":"a","policies":["default"],
                    "lease_duration":3600,"renewable":true,"token_type":"service"}}"#
                    .to_owned(),
            ),
            _ => (404, r#"{"errors":[]}"#.to_owned()),
        }
    })
    .await
}

async fn kept(managers: &mut Managers, reference: &Reference) -> Result<String, String> {
    let secret = managers.fetch(reference, &mut Round::default()).await;
    secret.map(|secret| secret.expose().to_owned())
}

#[tokio::test]
async fn vault_is_asked_with_a_token_and_one_name_once_a_round() {
    let stand = vault().await;
    let mut managers = of_vault(&stand.url, Login::Token(Secret::new("hvs.own")));
    let mut round = Round::default();
    for (field, expected) in [("api_key", "sk-kept"), ("port", "8200")] {
        let wanted = reference(Manager::Vault, "secret/apps/openai", Some(field));
        let secret = managers.fetch(&wanted, &mut round).await.unwrap();
        assert_eq!(secret.expose(), expected);
    }
    let heard = stand.heard();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("GET /v1/secret/data/apps/openai HTTP/1.1\r\n"), "{}", heard[0]);
    for header in ["x-vault-token: hvs.own\r\n", "x-vault-namespace: team-a\r\n"] {
        assert!(heard[0].contains(header), "{header}");
    }
    let missing = reference(Manager::Vault, "secret/apps/openai", Some("key"));
    assert!(kept(&mut managers, &missing).await.unwrap_err().contains("no text in a field"));
    let nowhere = reference(Manager::Vault, "secret/none", Some("key"));
    let fault = kept(&mut managers, &nowhere).await.unwrap_err();
    assert!(fault.contains("HTTP 404") && fault.contains("check its address"), "{fault}");
}

#[tokio::test]
async fn vault_gives_a_role_its_token_once_for_as_long_as_that_lives() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pod.jwt\n").unwrap();
    let approle = Login::AppRole {
        mount: "approle".to_owned(),
        role_id: Secret::new("role"),
        secret_id: Secret::new("canary"),
    };
    let kubernetes = Login::Kubernetes {
        mount: "cluster/one".to_owned(),
        role: "gateway".to_owned(),
        token_file: file.path().to_owned(),
    };
    for (login, path, said) in [
        (approle, "/v1/auth/approle/login", r#"{"role_id":"role","secret_id":"canary"}"#),
        (kubernetes, "/v1/auth/cluster/one/login", r#"{"role":"gateway","jwt":"pod.jwt"}"#),
    ] {
        let stand = vault().await;
        let mut managers = of_vault(&stand.url, login);
        assert!(!format!("{managers:?}").contains("canary"));
        let wanted = reference(Manager::Vault, "secret/apps/openai", Some("api_key"));
        for _ in 0..2 {
            assert_eq!(kept(&mut managers, &wanted).await.unwrap(), "sk-kept");
        }
        let heard = stand.heard();
        assert_eq!(heard.len(), 3, "one login, two looks: {heard:#?}");
        assert!(heard[0].starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{}", heard[0]);
        assert!(heard[0].ends_with(said), "{}", heard[0]);
        assert!(heard[1].contains("x-vault-token: hvs.issued\r\n"), "{}", heard[1]);
    }
}

fn of_aws(url: &str) -> Managers {
    let cloud = CloudKeys {
        access_key_id: Some("AKIAEXAMPLE".to_owned()),
        secret_access_key: Some(Secret::new("canary")),
        ..CloudKeys::default()
    };
    let aws =
        config::Provider { base_url: Some(url.to_owned()), cloud, ..config::Provider::default() };
    managers(config::Secrets { aws, ..config::Secrets::default() })
}

#[tokio::test]
async fn aws_is_asked_by_a_signed_request_in_the_region_that_an_arn_names() {
    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:openai-AbCdEf";
    let stand = Stand::open(|_| {
        let kept = r#"{"ARN":"a","Name":"openai","VersionId":"v","SecretString":
            "{\"key\":\"sk-kept\",\"user\":\"me\"}","VersionStages":["AWSCURRENT"]}"#;
        (200, kept.to_owned())
    })
    .await;
    let wanted = reference(Manager::Aws, ARN, Some("key"));
    assert_eq!(kept(&mut of_aws(&stand.url), &wanted).await.unwrap(), "sk-kept");
    let heard = stand.heard();
    for line in [
        "POST / HTTP/1.1\r\n",
        "x-amz-target: secretsmanager.GetSecretValue\r\n",
        "content-type: application/x-amz-json-1.1\r\n",
        "/eu-west-1/secretsmanager/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target",
    ] {
        assert!(heard[0].contains(line), "{line}: {}", heard[0]);
    }
    assert!(heard[0].ends_with(&format!(r#"{{"SecretId":"{ARN}"}}"#)), "{}", heard[0]);
    let nowhere = kept(&mut of_aws(&stand.url), &reference(Manager::Aws, "openai", None)).await;
    assert!(nowhere.unwrap_err().contains("[secrets.aws]"), "no region is known");
}

#[tokio::test]
async fn what_aws_refuses_is_told_by_its_code() {
    let stand = Stand::open(|_| {
        let refused = r#"{"__type":"ResourceNotFoundException","Message":"canary"}"#;
        (400, refused.to_owned())
    })
    .await;
    let mut managers = of_aws(&stand.url);
    managers.settings.aws.cloud.region = Some("us-east-1".to_owned());
    let fault = kept(&mut managers, &reference(Manager::Aws, "openai", None)).await.unwrap_err();
    assert!(fault.contains("HTTP 400 ResourceNotFoundException"), "{fault}");
    assert!(!fault.contains("canary"), "{fault}");
}

#[tokio::test]
async fn google_is_asked_for_the_latest_version_with_an_access_token() {
    let stand = Stand::open(|request| {
        if request.contains("/computeMetadata/") {
            let token = r#"{"access_token":"ya29.t","expires_in":3599,"token_type":"Bearer"}"#;
            return (200, token.to_owned());
        }
        // "sk-kept\n" as bytes.
        let kept = r#"{"name":"projects/1/secrets/openai/versions/4","payload":
            {"data":"c2sta2VwdAo=","dataCrc32c":"1"}}"#;
        (200, kept.to_owned())
    })
    .await;
    let gcp = config::Provider {
        base_url: Some(stand.url.clone()),
        cloud: CloudKeys { project: Some("house".to_owned()), ..CloudKeys::default() },
        ..config::Provider::default()
    };
    let mut managers = managers(config::Secrets { gcp, ..config::Secrets::default() });
    managers.environment.google.metadata_host =
        stand.url.strip_prefix("http://").map(str::to_owned);
    for (name, path) in [
        ("openai", "/v1/projects/house/secrets/openai/versions/latest:access"),
        ("projects/p/secrets/openai/versions/4", "/v1/projects/p/secrets/openai/versions/4:access"),
    ] {
        let wanted = reference(Manager::Gcp, name, None);
        assert_eq!(kept(&mut managers, &wanted).await.unwrap(), "sk-kept");
        let heard = stand.heard();
        let last = heard.last().unwrap();
        assert!(last.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{last}");
        assert!(last.contains("authorization: Bearer ya29.t\r\n"), "{last}");
    }
}
