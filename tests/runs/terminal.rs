//! What people type: one run in the terminal, and the digests of prompts.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::gateway::{config, provider, route};
use crate::support::replies::answer;
use crate::support::{Script, Upstream};

fn run(folder: &tempfile::TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
    command.env_clear().current_dir(folder.path()).stdin(Stdio::null());
    command.args(arguments).args(["--config", "config.toml"]).output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder(sections: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), config("", sections)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_runs_in_the_terminal_and_nothing_is_kept_of_it() {
    let upstream = Upstream::answering(|_| Script::stream(answer())).await;
    let agents = "[agents.plain]\nroute = \"fast\"\ninstructions = \"Answer.\"\n";
    let sections = provider("up", &upstream) + &route("fast", &["up/m"], "") + agents;
    let folder = folder(&sections);
    let (output, folder) = tokio::task::spawn_blocking(move || {
        (run(&folder, &["agent", "run", "plain", "Hi"]), folder)
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said(&output.stdout), "Hello there.\n", "the answer and nothing else");
    let steps = said(&output.stderr);
    assert!(steps.contains("step 1: asks fast") && steps.contains("completed"), "{steps}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the config is there");

    let output = run(&folder, &["agent", "run", "plane", "Hi"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("no agent `plane`"), "{output:?}");
}

#[test]
fn versions_of_prompts_are_locked_once_and_an_edited_one_is_refused() {
    let folder = folder("[prompts.support]\ndir = \"prompts\"\nlabels = { prod = 1 }\n");
    let prompts = folder.path().join("prompts");
    fs::create_dir(&prompts).unwrap();
    fs::write(prompts.join("1.md"), "Help.\n").unwrap();
    let locked = run(&folder, &["prompts", "lock"]);
    assert_eq!(said(&locked.stdout), "support@1\n", "{locked:?}");
    let again = run(&folder, &["prompts", "lock"]);
    assert_eq!((again.status.code(), said(&again.stdout).as_str()), (Some(0), ""));

    fs::write(prompts.join("1.md"), "Help more.\n").unwrap();
    let refused = run(&folder, &["prompts", "lock"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = said(&refused.stderr);
    assert!(told.contains("prompts/1.md differs") && told.contains("make the next one"), "{told}");
}
