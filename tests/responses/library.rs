//! The official Python SDK, unmodified, takes responses through their life.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{TARGETS, answers, sections, whole};
use crate::support::gateway::KEY;
use crate::support::{Gateway, Script, Upstream};

#[tokio::test]
async fn the_official_library_finds_what_it_knows() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDK was not asked to run");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::env::var_os("CARGO_TARGET_DIR");
    let folder = folder.map_or_else(|| root.join("target"), Into::into);
    // Installed by `tests/sdk/run.sh --install`.
    let python = std::env::var_os("SWITCHPOINT_TEST_PYTHON");
    let python = python.map_or_else(|| folder.join("sdk/venv/bin/python"), Into::into);
    let others = [
        ("silent", vec![Script::default().stall()]),
        ("counted", vec![whole(&json!({"object": "response.input_tokens", "input_tokens": 7}))]),
    ];
    let upstream = Upstream::start(answers().into_iter().chain(others)).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let mut command = Command::new(python);
    command
        .arg(root.join("tests/sdk/responses_sdk.py"))
        .env("SWITCHPOINT_URL", gateway.base())
        .env("SWITCHPOINT_KEY", KEY)
        .env("SWITCHPOINT_MODELS", TARGETS.join(","));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{}", said.concat());
    assert!(output.status.success(), "the SDK broke a promise");
}
