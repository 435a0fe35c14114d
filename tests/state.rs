//! What a gateway keeps lies where the config says, and one that cannot keep it does not start.

use std::process::Command;

use crate::support::gateway::config;
use crate::support::{Gateway, until};

const DEMO: &str = "[providers.demo]\nkind = \"demo\"\n";

#[tokio::test]
async fn the_state_lies_in_the_named_file_and_the_store_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    let sections = format!("[store]\nurl = \"sqlite:{}\"\n{DEMO}", file.display());
    let gateway = Gateway::start("", &sections).await;
    assert!(file.exists());
    let mut up = 0.0;
    while up < 1.0 {
        up = gateway.metric("switchpoint_store_up", &[]).await;
    }
    gateway.stop();
    // A second start finds what the first has left.
    Gateway::start("", &sections).await.stop();
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_is_told_like_a_mistake_in_the_config() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let url = format!("sqlite:{}/gone/state.db", folder.path().display());
    let text = config("", &format!("[store]\nurl = \"{url}\"\n{DEMO}"));
    let line = 1 + text.lines().position(|line| line.starts_with("url = ")).unwrap();
    std::fs::write(&path, text).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    let output = serve.arg("serve").arg("--config").arg(&path).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains(&format!("config.toml:{line}: store.url: there is no folder ")),
        "{told}"
    );
}

#[tokio::test]
async fn another_store_is_taken_at_the_next_start_only() {
    let gateway = Gateway::start("", DEMO).await;
    let file = gateway.folder().join("late.db");
    let sections = format!("[store]\nurl = \"sqlite:{}\"\n{DEMO}", file.display());
    assert_eq!(gateway.reload(&sections).await.status, 200);
    until("the change is named", || {
        gateway
            .output()
            .iter()
            .any(|line| line.contains("store.url") && line.contains("next start"))
    })
    .await;
    assert!(!file.exists());
}
