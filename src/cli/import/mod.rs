//! Reads the config of another gateway, writes one of ours, and says what did not come along.

mod bifrost;
mod draft;
mod fallbacks;
mod litellm;
mod portkey;
mod report;
mod source;
mod values;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value as Json;

use self::draft::Draft;
use self::report::Report;
use super::{complain, say};

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// The gateway that the file was written for.
    peer: Peer,
    /// Its config.
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    /// `config.yaml` of LiteLLM's proxy.
    Litellm,
    /// `config.json` of Bifrost.
    Bifrost,
    /// A gateway config of Portkey.
    Portkey,
}

pub(super) fn run(arguments: &ImportArguments) -> ExitCode {
    let config = match read(&arguments.file) {
        Ok(config) => config,
        Err(message) => {
            complain(&message);
            return ExitCode::from(2);
        }
    };
    let report = Report::default();
    let draft = arguments.peer.import(config, &report);
    say(draft.write().trim_end());
    complain(report.write().trim_end());
    ExitCode::SUCCESS
}

/// The file as JSON, of which YAML is a superset. No part of it is repeated in an error, for it may
/// hold secrets.
fn read(path: &Path) -> Result<Json, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    if let Ok(config) = serde_json::from_str(&text) {
        return Ok(config);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&text, options).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!(":{}", at.line()));
        format!("{shown}{place}: is neither JSON nor YAML")
    })
}

// === impl Peer ===

impl Peer {
    fn import(self, config: Json, report: &Report) -> Draft {
        let mut draft = match self {
            Self::Litellm => litellm::import(config, report),
            Self::Bifrost => bifrost::import(config, report),
            Self::Portkey => portkey::import(config, report),
        };
        draft.opening.push(format!(
            "Imported from {}; what did not come along was said on stderr.",
            self.name()
        ));
        let variables = report.variables();
        if !variables.is_empty() {
            draft.opening.push("It reads these environment variables:".to_owned());
            draft.opening.extend(variables.iter().map(|name| format!("  {name}")));
        }
        draft
    }

    fn name(self) -> &'static str {
        match self {
            Self::Litellm => "LiteLLM",
            Self::Bifrost => "Bifrost",
            Self::Portkey => "Portkey",
        }
    }
}

#[cfg(test)]
mod tests;
