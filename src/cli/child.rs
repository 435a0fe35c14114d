//! Stands between the gateway and a server of tools that it has started, and sees to it that nobody
//! of the server's process group outlives the gateway, however that ends.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, getpid, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::complain;

/// What a shell says of a program that it cannot start, and adds to the number of a signal.
const NOT_STARTED: u8 = 127;
const BY_SIGNAL: i32 = 128;
/// How long the server may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(2);

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.and_then(|runtime| runtime.block_on(watch(arguments)));
    ended.map_or_else(
        |error| {
            complain(&format!("{}: {error}", arguments.command.join(" ")));
            ExitCode::from(NOT_STARTED)
        },
        |status| ExitCode::from(code(status)),
    )
}

/// Starts the server, and waits for it to end, or for a signal: from the gateway to all of the
/// group, or from the system because the gateway is gone.
async fn watch(arguments: &ChildArguments) -> io::Result<ExitStatus> {
    let mut told = signal(SignalKind::terminate())?;
    ends_with(arguments.parent)?;
    let mut words = arguments.command.iter();
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut server = Command::new(program).args(words).spawn()?;
    tokio::select! {
        status = server.wait() => status,
        _ = told.recv() => end_all(&mut server).await,
    }
}

/// Tells all of the group, this process too, to end, and kills who is left.
async fn end_all(server: &mut Child) -> io::Result<ExitStatus> {
    let group = getpid();
    kill_process_group(group, Signal::TERM)?;
    let _ = timeout(GRACE, server.wait()).await;
    kill_process_group(group, Signal::KILL)?;
    server.wait().await
}

/// What a shell would make of it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(status.signal()? + BY_SIGNAL));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Asks the system for a signal when the parent dies; an error if it has died already.
#[cfg(target_os = "linux")]
fn ends_with(parent: u32) -> io::Result<()> {
    use rustix::process::{getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let now = getppid().map(|parent| parent.as_raw_nonzero().get().cast_unsigned());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("the gateway is gone")) }
}

#[cfg(not(target_os = "linux"))]
fn ends_with(_parent: u32) -> io::Result<()> {
    Ok(())
}
