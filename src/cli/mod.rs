//! The commands that people type, and the config each of them finds.

mod admin;
mod agent;
mod audit;
mod banner;
mod check;
mod child;
mod config;
mod explain;
mod import;
mod keys;
mod prompts;
mod replay;
mod serve;
mod tasks;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self as settings, Candidate, Config, Problem, variable};
use crate::gateway::secrets::Secrets;
use crate::provider::catalog::CATALOG;

/// An LLM gateway: one OpenAI-compatible address in front of every provider.
#[derive(Debug, Parser)]
#[command(name = "switchpoint", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway; the same as no command at all.
    Serve(ServeArguments),
    /// Load, check and build a config without serving it; exit 2 with every problem at once.
    Check {
        /// The config; without it the one that `serve` would take.
        file: Option<PathBuf>,
    },
    /// Try the task classifier on labelled prompts.
    #[command(subcommand)]
    Tasks(tasks::TasksCommand),
    /// Look at the config of a running gateway, change it, and go back.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Check the trail of changes that operators made.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Make, list, rotate and revoke virtual keys, in the store of the config where no address is
    /// told and no gateway answers at that of the config.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Run agents.
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Keep the versions of prompts as they are.
    #[command(subcommand)]
    Prompts(prompts::PromptsCommand),
    /// Say how a call would go whose body is read here, without sending it; exit 1 if it would be
    /// refused.
    Explain(ExplainArguments),
    /// Write a config of ours from one of another gateway; stderr says what did not come along.
    Import(import::ImportArguments),
    /// Play kept calls against a config, with nobody real behind it; exit 1 if one goes otherwise.
    Replay(replay::ReplayArguments),
    /// Watch over another program, which ends when the gateway does.
    #[command(hide = true)]
    Child(child::ChildArguments),
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// The config file; else `$SWITCHPOINT_CONFIG`, `./switchpoint.toml`, or discovery.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen for clients here instead of where the config says.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Listen for operators here instead of where the config says.
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The config; without it the one that `serve` would take.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The API: chat, responses, messages, generate, completions or embeddings; else as the body
    /// looks.
    #[arg(long, value_name = "SURFACE")]
    surface: Option<String>,
    /// The virtual key that calls; else one that may call everything.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// A header of the call, as in `x-switchpoint-task: code`.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => serve::run(&arguments.serve),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        Some(Command::Check { file }) => check::run(file),
        Some(Command::Tasks(command)) => tasks::run(&command),
        Some(Command::Config(command)) => config::run(&command),
        Some(Command::Audit(command)) => audit::run(command),
        Some(Command::Keys(command)) => keys::run(command),
        Some(Command::Agent(command)) => agent::run(command),
        Some(Command::Prompts(command)) => prompts::run(command),
        Some(Command::Explain(arguments)) => explain::run(&arguments),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::Replay(arguments)) => replay::run(&arguments),
        Some(Command::Child(arguments)) => child::run(&arguments),
    }
}

/// The provider kinds that a config may name.
fn kinds() -> Vec<&'static str> {
    CATALOG.iter().map(|kind| kind.id).collect()
}

/// The file to load: as named, else by `$SWITCHPOINT_CONFIG`, else `./switchpoint.toml` if it is
/// there; `None` is discovery.
fn config_path(named: Option<PathBuf>) -> Option<PathBuf> {
    named
        .or_else(|| variable("SWITCHPOINT_CONFIG").map(PathBuf::from))
        .or_else(|| Some(PathBuf::from("switchpoint.toml")).filter(|path| path.exists()))
}

/// The config with the secrets that are kept elsewhere.
fn load(path: Option<&Path>) -> Result<Config, Vec<Problem>> {
    let config = load_as_written(path)?;
    let Some(path) = path.filter(|_| !config.references.is_empty()) else { return Ok(config) };
    // On a thread of its own, for who asks may be a task.
    let (path, text) = (path.to_owned(), config.text.whole().to_owned());
    let fetched = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut secrets = Secrets::default();
        runtime.map(|runtime| runtime.block_on(secrets.load(&text, &path, &kinds())))
    });
    match fetched.join() {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(_)) | Err(_) => Err(config.unfetched()),
    }
}

/// The config, whose secrets are only named where they are kept elsewhere.
fn load_as_written(path: Option<&Path>) -> Result<Config, Vec<Problem>> {
    if let Some(path) = path {
        return Config::load(path, &kinds());
    }
    let candidates: Vec<_> = CATALOG
        .iter()
        .filter(|kind| !kind.key_variable.is_empty() && !kind.base_url.is_empty())
        .map(|kind| Candidate { kind: kind.id, variable: kind.key_variable })
        .collect();
    Ok(Config::discover(&candidates))
}

/// Problems of the built config, with the lines where they stand.
fn located(path: Option<&Path>, problems: &[(String, String)]) -> Vec<Problem> {
    let file = path.unwrap_or_else(|| Path::new("environment"));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    settings::located(&text, file, problems.to_vec())
}

/// Writes lines for a person; one who closed the pipe does not stop the gateway.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Says every problem, one a line.
fn complain_all(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        complain(&problem.to_string());
    }
    ExitCode::from(2)
}
