//! The example of `examples/support`, as a stranger would try it: its servers, the gateway in its
//! folder, the commands of its README and of `docs/agents.md` one after another, and the official
//! SDKs.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The model and the shop of the example, and the gateway in a copy of its folder.
struct Desk {
    servers: Child,
    gateway: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Desk {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&root().join("examples/support"), folder.path());
        let mut python = Command::new("/usr/bin/python3");
        let mut servers = start(python.args(["servers.py", "0"]), folder.path());
        let place = said(servers.stdout.take().unwrap(), "http://");
        let config = folder.path().join("switchpoint.toml");
        let written = std::fs::read_to_string(&config).unwrap();
        assert_eq!(written.matches("127.0.0.1:4100").count(), 4, "{written}");
        std::fs::write(&config, written.replace("127.0.0.1:4100", &place)).unwrap();
        let mut switchpoint = Command::new(env!("CARGO_BIN_EXE_switchpoint"));
        let anywhere = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let mut gateway = start(switchpoint.arg("serve").args(anywhere), folder.path());
        // Where its log is JSON, no line for people stands in it.
        std::thread::spawn({
            let lines = BufReader::new(gateway.stdout.take().unwrap()).lines();
            move || lines.for_each(drop)
        });
        let base = said(gateway.stderr.take().unwrap(), "base URL");
        let (_, address) = base.split_once("://").unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        Self { servers, gateway, address, folder }
    }

    /// Has a shell do this.
    fn shell(&self, commands: &str) -> String {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", commands]).current_dir(self.folder.path());
        bash.env("GATEWAY", format!("http://{}", self.address));
        let keys = [("KEY", "sk-shop-example"), ("LEAD", "sk-lead-example")];
        bash.envs(keys).env("OPERATOR", "sk-operator-example");
        told(&bash.output().unwrap(), commands)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for child in [&mut self.gateway, &mut self.servers] {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let _ = child.wait();
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let to = to.join(name);
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn start(command: &mut Command, folder: &Path) -> Child {
    let command = command.current_dir(folder).env("HOME", folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What stands behind this word in the first line that has it; the rest is read and thrown away.
fn said(output: impl Read + Send + 'static, word: &str) -> String {
    let mut lines = BufReader::new(output).lines();
    let found = lines.find_map(|line| line.unwrap().split_once(word).map(|it| it.1.to_owned()));
    std::thread::spawn(move || lines.for_each(drop));
    found.unwrap_or_else(|| panic!("it never said {word}")).trim().to_owned()
}

fn told(output: &Output, what: &str) -> String {
    let text = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
    let text = text.concat();
    assert!(output.status.success(), "{what}\n{text}");
    text
}

/// The blocks of shell commands in a page.
fn blocks(page: &str) -> Vec<String> {
    let page = std::fs::read_to_string(root().join(page)).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_commands_of_the_examples_pages_do_what_they_say() {
    let desk = Desk::open();
    let curl = |block: &String| block.contains("curl");
    let readme = blocks("examples/support/README.md").into_iter().filter(curl);
    let readme: String = readme
        .filter_map(|block| block.split_once("curl").map(|it| format!("curl{}", it.1)))
        .collect();
    let told = desk.shell(&readme.replace("http://127.0.0.1:4000", "$GATEWAY"));
    assert!(told.contains("shipped"), "{told}");
    // What ends processes, and what asks the admin's port, is for a terminal.
    let pages = blocks("docs/agents.md").into_iter().filter(curl);
    let page: Vec<String> =
        pages.filter(|block| !block.contains("kill") && !block.contains(":4001")).collect();
    assert!(page.len() >= 8, "{page:#?}");
    let told = desk.shell(&page.join("\n").replace("curl -s", "curl -sS --fail-with-body"));
    for words in [
        "Here is what I know",
        "\"state\":\"approved\"",
        "\"status\":\"cancelled\"",
        "event: run.ended",
        "\"stop_reason\":\"max_steps\"",
        "Billing here.",
    ] {
        let bare = |text: &str| text.replace(": ", ":");
        assert!(bare(&told).contains(&bare(words)), "no {words} in {told}");
    }
}

#[test]
fn the_official_libraries_drive_the_example() {
    if std::env::var_os("SWITCHPOINT_TEST_SDK").is_none_or(|value| value != "1") {
        println!("SWITCHPOINT_TEST_SDK is not 1: the SDKs were not asked to run");
        return;
    }
    let desk = Desk::open();
    let folder = std::env::var_os("CARGO_TARGET_DIR");
    let folder = folder.map_or_else(|| root().join("target"), PathBuf::from).join("sdk");
    // Installed by `tests/sdk/run.sh --install`; Node looks for packages beside the script.
    let script = folder.join("node/example_sdk.mjs");
    std::fs::copy(root().join("tests/sdk/example_sdk.mjs"), &script).unwrap();
    let python = folder.join("venv/bin/python");
    for (program, script) in
        [(python, root().join("tests/sdk/example_sdk.py")), (PathBuf::from("node"), script)]
    {
        let mut command = Command::new(program);
        command.arg(script).env("SWITCHPOINT_URL", format!("http://{}/v1", desk.address));
        println!("{}", told(&command.output().unwrap(), "an SDK broke a promise"));
    }
}
