//! `switchpoint audit`: looks whether the trail of changes is as it was written.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::{complain, complain_all, config_path, load, say};
use crate::config::StoreUrl;
use crate::store::{AuditCheck, Store};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check the hash chain of the audit trail; exit 1 if a change was altered, or taken out from
    /// before another one.
    Verify {
        /// The config that names the store; without it the one that `serve` would take.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(super) fn run(AuditCommand::Verify { config }: AuditCommand) -> ExitCode {
    let path = config_path(config);
    let config = match load(path.as_deref()) {
        Ok(config) => config,
        Err(problems) => return complain_all(&problems),
    };
    // Opening would make what is not there, and find it whole.
    match &config.store.url {
        StoreUrl::Memory => {
            complain("a store in memory keeps no trail; ask `GET /admin/audit/verify`");
            return ExitCode::FAILURE;
        }
        StoreUrl::Sqlite(path) if !path.exists() => {
            complain(&format!("there is no store at {}", path.display()));
            return ExitCode::FAILURE;
        }
        StoreUrl::Sqlite(_) | StoreUrl::Postgres(_) => {}
    }
    let verdict = Store::open(&config.store).map_err(|failure| failure.to_string());
    match verdict.and_then(|store| verify(&store)) {
        Ok(AuditCheck { rows, broken_at: None }) => {
            say(&format!("{rows} changes, each as it was written"));
            ExitCode::SUCCESS
        }
        Ok(AuditCheck { rows, broken_at: Some(position) }) => {
            let position = position.number();
            complain(&format!("broken at change {position}; the {rows} before it are whole"));
            ExitCode::FAILURE
        }
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn verify(store: &Store) -> Result<AuditCheck, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(store.verify_audit()).map_err(|failure| failure.to_string())
}
