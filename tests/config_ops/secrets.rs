//! Secrets that another system keeps: fetched at the start, renewed without one, and remembered.

use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;
use crate::support::client::chat;
use crate::support::replies::ask as question;
use crate::support::until;

/// What a Vault keeps; `None` while it is away.
type Kept = Arc<Mutex<Option<&'static str>>>;

async fn vault(kept: &Kept) -> Upstream {
    let kept = Arc::clone(kept);
    Upstream::answering(move |request| {
        assert_eq!(request.path, "/v1/secret/data/apps/openai");
        assert_eq!(request.header("x-vault-token"), Some("hvs.test"));
        match *kept.lock().unwrap() {
            Some(key) => {
                let body = json!({"data": {"data": {"key": key}, "metadata": {"version": 1}}});
                Script::json(200, &body.to_string())
            }
            None => Script::json(503, r#"{"errors":["Vault is sealed"]}"#),
        }
    })
    .await
}

fn text(upstream: &Upstream, vault: &str, key: &str) -> String {
    let section = format!(
        "[secrets]\nrefresh = \"50ms\"\n\n[secrets.vault]\naddress = \"{vault}\"\n\
         token = \"env:VAULT_TOKEN\"\n\n\
         [providers.up]\nkind = \"openai-compatible\"\nbase_url = \"{}\"\napi_key = \"{key}\"\n\n",
        upstream.base()
    );
    config("", &(section + &route("fast", &["up/a"], "")))
}

const REFERENCE: &str = "vault:secret/apps/openai#key";

async fn start(text: &str) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    Gateway::run_with(folder, "", &[("VAULT_TOKEN", "hvs.test")]).await
}

/// The credential that the upstream was shown last.
async fn shown(gateway: &Gateway, upstream: &Upstream) -> String {
    assert_eq!(chat(gateway, question("fast")).await.status, 200);
    upstream.requests().pop().unwrap().header("authorization").unwrap().to_owned()
}

#[tokio::test]
async fn a_secret_that_vault_keeps_is_renewed_without_a_restart_and_outlasts_an_outage() {
    let upstream = upstream().await;
    let kept = Kept::new(Mutex::new(Some("sk-first")));
    let vault = vault(&kept).await;
    let address = format!("http://{}", vault.address);
    let gateway = start(&text(&upstream, &address, REFERENCE)).await;
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-first");
    let state = state(&gateway).await;
    assert!(state["text"].as_str().unwrap().contains(REFERENCE), "{state:#}");

    *kept.lock().unwrap() = Some("sk-second");
    becomes(&gateway, "the renewed secret", |state| state["generation"] == 2).await;
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-second");
    assert_eq!(history(&gateway).await[0], entry(2, "secrets", "secrets", "live"));

    *kept.lock().unwrap() = None;
    let is_told = || gateway.output().join("\n").contains("a secret stays as it was known");
    until("the outage is told", is_told).await;
    let up = gateway.metric("switchpoint_secrets_up", &["manager=\"vault\""]).await;
    assert_eq!(up.to_string(), "0");
    let failed = gateway.metric("switchpoint_secret_fetches_total", &["failed"]).await;
    assert!(failed >= 1.0);
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-second");
    let changed = text(&upstream, &address, REFERENCE) + "\n# changed meanwhile\n";
    order(&gateway, "/admin/config/apply", &json!({"text": changed})).await;
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-second");
    // One that was never had cannot be remembered.
    let strange = changed.replace("openai#key", "openai#other");
    let (status, told) = ask(&gateway, "/admin/config/apply", &json!({"text": strange})).await;
    assert_eq!(status, 400);
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("providers.up.api_key: vault:secret/apps/openai#other"), "{message}");
    let said = gateway.output().join("\n");
    assert!(!said.contains("sk-first") && !said.contains("hvs.test"), "{said}");
}

#[tokio::test]
async fn a_secret_in_a_file_that_is_replaced_is_taken_up_too() {
    let upstream = upstream().await;
    let gateway = {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "sk-first\n").unwrap();
        let text = text(&upstream, "http://127.0.0.1:9", "file:key");
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        Gateway::run_with(folder, "", &[("VAULT_TOKEN", "hvs.test")]).await
    };
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-first");
    std::fs::write(gateway.folder().join("key"), "sk-second\n").unwrap();
    becomes(&gateway, "the renewed secret", |state| state["generation"] == 2).await;
    assert_eq!(shown(&gateway, &upstream).await, "Bearer sk-second");
}

#[tokio::test]
async fn a_manager_that_cannot_be_reached_at_the_first_start_is_told_and_a_check_needs_none() {
    let upstream = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    // Nobody listens on the port of discarding.
    std::fs::write(&path, text(&upstream, "http://127.0.0.1:9", REFERENCE)).unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        command.env_clear().env("VAULT_TOKEN", "hvs.test").args(arguments).arg(&path);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = run(&["serve", "--config"]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("providers.up.api_key: vault:secret/apps/openai#key: Vault at 127.0.0.1:9")
    );
    let (code, said) = run(&["check"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("vault:secret/apps/openai#key is not fetched by a check"), "{said}");
}
