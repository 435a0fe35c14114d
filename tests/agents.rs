//! Claude Code and Codex, as people install them, at work through the gateway.

use std::path::Path;
use std::process::Command;

use crate::support::Fleet;
use crate::support::gateway::KEY;

#[tokio::test]
async fn agents_of_one_vendor_work_with_models_of_another() {
    // Apart from the SDKs: they are some hundred megabytes.
    if std::env::var_os("SWITCHPOINT_TEST_AGENTS").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_AGENTS is not 1: the agents were not asked to work");
        return;
    }
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway("").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/agents.sh");
    let mut command = Command::new(script);
    command.env("SWITCHPOINT_KEY", KEY);
    command.env("SWITCHPOINT_ADDRESS", format!("http://{}", gateway.address));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}", said.concat());
    assert!(output.status.success(), "an agent did not do its task");
}
