//! The official SDKs, unmodified, ask agents.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::doors::House;
use crate::support::gateway::KEY;

#[tokio::test]
async fn the_official_libraries_and_the_agents_sdk_drive_an_agent() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDKs were not asked to run");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("CARGO_TARGET_DIR");
    let folder = folder.map_or_else(|| root.join("target"), PathBuf::from).join("sdk");
    // Installed by `tests/sdk/run.sh --install`; Node looks for packages beside the script.
    let script = folder.join("node/runs_sdk.mjs");
    std::fs::copy(root.join("tests/sdk/runs_sdk.mjs"), &script).unwrap();
    let house = House::new().await;
    house.gate.open();
    let python = folder.join("venv/bin/python");
    for (program, script) in
        [(python, root.join("tests/sdk/runs_sdk.py")), (PathBuf::from("node"), script)]
    {
        let mut command = Command::new(program);
        command
            .arg(script)
            .env("SWITCHPOINT_URL", house.gateway.base())
            .env("SWITCHPOINT_KEY", KEY);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.unwrap().unwrap();
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        println!("{}", said.concat());
        assert!(output.status.success(), "an SDK broke a promise");
    }
}
