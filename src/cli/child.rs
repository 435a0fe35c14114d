//! Becomes a server of tools that the gateway started, after seeing to it that this ends with it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;

use super::complain;

/// What a shell says of a program that it cannot start.
const NOT_STARTED: u8 = 127;

#[derive(Debug, Args)]
pub(super) struct ChildArguments {
    /// The process with which it ends.
    #[arg(long)]
    parent: u32,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// What stands in front of a program that is to end with this process.
pub(super) fn command() -> Vec<String> {
    // It stays this program, even when there is a newer one on the disk. Other systems have no such
    // name for it, and nothing that it could do there.
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let parent = std::process::id().to_string();
    ["/proc/self/exe", "child", "--parent", &parent, "--"].map(str::to_owned).to_vec()
}

pub(super) fn run(arguments: &ChildArguments) -> ExitCode {
    if !ends_with(arguments.parent) {
        return ExitCode::FAILURE;
    }
    let Some((program, words)) = arguments.command.split_first() else { return ExitCode::FAILURE };
    // It only comes back when it fails.
    let error = Command::new(program).args(words).exec();
    complain(&format!("{program}: {error}"));
    ExitCode::from(NOT_STARTED)
}

/// Asks the system for a signal when the parent dies; false if it has died already.
#[cfg(target_os = "linux")]
fn ends_with(parent: u32) -> bool {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let asked = set_parent_process_death_signal(Some(Signal::TERM));
    let now = getppid().map(|parent| parent.as_raw_nonzero().get().cast_unsigned());
    asked.is_ok() && now == Some(parent)
}

#[cfg(not(target_os = "linux"))]
fn ends_with(_parent: u32) -> bool {
    true
}
