//! Keeps the versions of prompts as they are: their digests are written down beside them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{complain, complain_all, config_path, load_as_written, say};

#[derive(Debug, Subcommand)]
pub(super) enum PromptsCommand {
    /// Write down the digest of each version that has none yet; no other line is changed.
    Lock {
        /// The config; without it the one that `serve` would take.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(command: PromptsCommand) -> ExitCode {
    let PromptsCommand::Lock { config } = command;
    let config = match load_as_written(config_path(config).as_deref()) {
        Ok(config) => config,
        Err(problems) => return complain_all(&problems),
    };
    for (name, prompt) in &config.prompts {
        match prompt.lock() {
            Ok(locked) => locked.iter().for_each(|version| say(&format!("{name}@{version}"))),
            Err(error) => {
                complain(&format!("{}: {error}", prompt.dir.display()));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
