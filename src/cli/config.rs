//! `switchpoint config`: looks at the config of a running gateway, changes it, and goes back, all
//! through its admin API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin::{Address, Door};
use super::{complain, config_path, say};

/// How often a trial is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the config that is served, with `***` where a secret stands.
    Show {
        /// An earlier one.
        #[arg(value_name = "GENERATION")]
        generation: Option<u64>,
        #[command(flatten)]
        address: Address,
    },
    /// Say what a file would change.
    Diff {
        #[command(flatten)]
        file: File,
        /// An earlier config in the place of a file.
        #[arg(long, value_name = "GENERATION", conflicts_with = "file")]
        to: Option<u64>,
        #[command(flatten)]
        address: Address,
    },
    /// Serve a file's config from the next call on, once it was found to be sound.
    Apply {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        address: Address,
    },
    /// Serve an earlier config again; the one before, if none is named.
    Rollback {
        #[arg(long, value_name = "GENERATION")]
        to: Option<u64>,
        /// Do not write it to the gateway's file.
        #[arg(long)]
        ephemeral: bool,
        #[command(flatten)]
        address: Address,
    },
    /// Serve the config on trial to all calls, now.
    Promote {
        #[command(flatten)]
        address: Address,
    },
    /// Take the config on trial back, now.
    Abort {
        #[command(flatten)]
        address: Address,
    },
    /// List the configs that there have been, who brought each about, and when.
    History {
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The config; without it the one that `serve` would take here.
    file: Option<PathBuf>,
}

/// How a config is to be applied.
#[derive(Debug, Args)]
pub(super) struct Terms {
    /// Refuse if another generation than this is served by now.
    #[arg(long, value_name = "GENERATION")]
    base: Option<u64>,
    /// Do not write it to the gateway's file: the next start serves what that says.
    #[arg(long)]
    ephemeral: bool,
    /// Have so many of the calls try it first, as in `5%`.
    #[arg(long, value_name = "SHARE")]
    canary: Option<String>,
    /// How long it is tried before it is promoted.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", requires = "canary")]
    lasts: String,
    /// When it is taken back: CEL, as in `error_rate > 0.02 || p95_latency > 2 *
    /// baseline.p95_latency`.
    #[arg(long, value_name = "CONDITION", requires = "canary")]
    rollback_on: Option<String>,
    /// So many calls must have tried it before they are judged.
    #[arg(long, value_name = "COUNT", default_value_t = 20, requires = "canary")]
    min_requests: u64,
    /// What stays with the config that it came to first: `session`, `key` or `call`.
    #[arg(long, value_name = "WHAT", default_value = "session", requires = "canary")]
    sticky: String,
    /// Wait for the end of the trial, and exit 1 unless the config was promoted.
    #[arg(long, requires = "canary")]
    wait: bool,
}

type Done = Result<ExitCode, String>;

pub(super) fn run(command: &ConfigCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(act(command)),
        Err(error) => Err(error.to_string()),
    };
    done.unwrap_or_else(|message| {
        complain(&message);
        ExitCode::FAILURE
    })
}

async fn act(command: &ConfigCommand) -> Done {
    match command {
        ConfigCommand::Show { generation, address } => {
            let path = generation.map(|number| format!("/admin/config/generations/{number}"));
            let path = path.as_deref().unwrap_or("/admin/config");
            let told = address.open()?.done("GET", path, None).await?;
            let text = told["text"].as_str().unwrap_or_default().trim_end();
            say(&if address.json { format!("{told:#}") } else { text.to_owned() });
        }
        ConfigCommand::Diff { file, to, address } => {
            let body = match to {
                Some(number) => json!({"generation": number}),
                None => json!({"text": file.read()?}),
            };
            let told = address.open()?.done("POST", "/admin/config/diff", Some(&body)).await;
            let told = told.map_err(|message| file.named(&message))?;
            say(&if address.json { format!("{told:#}") } else { differences(&told) });
        }
        ConfigCommand::Apply { file, terms, address } => {
            let text = file.read()?;
            let body = terms.order(&text);
            let door = address.open()?;
            let state = served(&door, ("/admin/config/apply", &body), address).await;
            let state = state.map_err(|message| file.named(&message))?;
            if let (true, Some(generation)) = (terms.wait, state["canary"]["generation"].as_u64()) {
                return outcome(&door, generation).await;
            }
        }
        ConfigCommand::Promote { address } => {
            let nothing = ("/admin/config/promote", &Value::Null);
            served(&address.open()?, nothing, address).await?;
        }
        ConfigCommand::Abort { address } => {
            let nothing = ("/admin/config/abort", &Value::Null);
            served(&address.open()?, nothing, address).await?;
        }
        ConfigCommand::Rollback { to, ephemeral, address } => {
            let body = json!({"generation": to, "ephemeral": ephemeral});
            served(&address.open()?, ("/admin/config/rollback", &body), address).await?;
        }
        ConfigCommand::History { limit, address } => {
            let path = format!("/admin/config/generations?limit={limit}");
            let told = address.open()?.done("GET", &path, None).await?;
            say(&if address.json { format!("{told:#}") } else { table(&told) });
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn served(
    door: &Door,
    (path, body): (&str, &Value),
    address: &Address,
) -> Result<Value, String> {
    let body = Some(body).filter(|body| !body.is_null());
    let state = door.done("POST", path, body).await?;
    if address.json {
        say(&format!("{state:#}"));
        return Ok(state);
    }
    say_told(&state);
    Ok(state)
}

/// What is served by now, and where.
fn say_told(state: &Value) {
    let (generation, trial) = (&state["generation"], &state["canary"]);
    if !trial.is_null() {
        let (number, until) = (&trial["generation"], trial["until"].as_str().unwrap_or("its end"));
        say(&format!("generation {number} is on trial until {until}, beside {generation}"));
        return;
    }
    let place = match (&state["ephemeral"], state["source"].as_str()) {
        (Value::Bool(false), Some(path)) => format!("and written to {path}"),
        _ => "until the next start".to_owned(),
    };
    say(&format!("generation {generation} is served, {place}"));
    if let Some(waiting) = waiting(state) {
        say(&waiting);
    }
}

/// What does not hold before the next start, if there is anything.
fn waiting(told: &Value) -> Option<String> {
    let names = told["at_next_start"].as_array()?.iter().filter_map(Value::as_str);
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| format!("at the next start only: {}", names.join(", ")))
}

/// Waits for the trial of a generation to end.
async fn outcome(door: &Door, generation: u64) -> Done {
    let path = format!("/admin/config/generations/{generation}");
    loop {
        let told = door.done("GET", &path, None).await?;
        let state = told["state"].as_str().unwrap_or_default();
        if state != "canary" {
            let why = told["why"].as_str().unwrap_or_default();
            say(&format!("generation {generation} is {state}: {why}"));
            let is_promoted = matches!(state, "live" | "past");
            return Ok(if is_promoted { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(LOOK).await;
    }
}

// === impl File ===

impl File {
    fn read(&self) -> Result<String, String> {
        let path = config_path(self.file.clone())
            .ok_or_else(|| "there is no config file here; name one".to_owned())?;
        read(&path)
    }

    /// The gateway knows the lines of what it was sent, and not where they stand.
    fn named(&self, message: &str) -> String {
        let Some(path) = config_path(self.file.clone()) else { return message.to_owned() };
        let line = |line: &str| match line.strip_prefix("line ") {
            Some(rest) => format!("{}:{rest}", path.display()),
            None => line.to_owned(),
        };
        message.lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

// === impl Terms ===

impl Terms {
    fn order(&self, text: &str) -> Value {
        let trial = self.canary.as_ref().map(|share| {
            json!({
                "share": share,
                "for": self.lasts,
                "rollback_on": self.rollback_on,
                "min_requests": self.min_requests,
                "sticky": self.sticky,
            })
        });
        json!({"text": text, "base": self.base, "ephemeral": self.ephemeral, "canary": trial})
    }
}

/// One line for each place.
fn differences(told: &Value) -> String {
    let changes = told["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let line = |change: &Value| {
        let (path, before, after) =
            (change["path"].as_str().unwrap_or_default(), &change["before"], &change["after"]);
        match (before.is_null(), after.is_null()) {
            (true, _) => format!("+ {path} = {after}"),
            (false, true) => format!("- {path} = {before}"),
            (false, false) if before == after => format!("~ {path}: another secret"),
            (false, false) => format!("~ {path}: {before} -> {after}"),
        }
    };
    let mut lines: Vec<String> = changes.iter().map(line).collect();
    lines.extend(waiting(told));
    let generation = &told["generation"];
    if lines.is_empty() {
        return format!("no difference from generation {generation}");
    }
    lines.join("\n")
}

fn table(told: &Value) -> String {
    let rows = told["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = vec!["GENERATION  AT                    STATE        HOW       BY".to_owned()];
    lines.extend(rows.iter().map(|row| {
        let text = |name: &str| row[name].as_str().unwrap_or("-");
        let at = text("at").split('.').next().unwrap_or_default();
        let why = row["why"].as_str().map(|why| format!("  ({why})")).unwrap_or_default();
        let (number, state, how, by) = (&row["generation"], text("state"), text("how"), text("by"));
        format!("{number:<10}  {at}   {state:<11}  {how:<8}  {by}{why}")
    }));
    lines.join("\n")
}
