//! Plays kept calls against another config, and tells what would be different.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value as Json, json};

use super::{complain, complain_all, load_as_written, say};
use crate::gateway::recording::{Attempted, Kept, Played, Player};

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// Calls that `[record]` kept, a line each.
    file: PathBuf,
    /// The config to play them against.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Tell it as JSON: a line for each call, and one for all.
    #[arg(long)]
    json: bool,
}

/// There was a difference.
const DIFFERENT: u8 = 1;
/// Nothing could be played.
const BROKEN: u8 = 2;

/// What all calls come to.
#[derive(Debug, Default)]
struct Sum {
    calls: u64,
    different: u64,
    /// Could not be played.
    left_out: u64,
    routes: u64,
    targets: u64,
    outcomes: u64,
    before_usd: f64,
    after_usd: f64,
    /// So many calls have no price, before or after.
    unpriced: u64,
    /// Were made by keys that the config does not have.
    unknown_keys: u64,
    /// Have no words in which guards could find something.
    wordless: u64,
}

pub(super) fn run(arguments: &ReplayArguments) -> ExitCode {
    // Whatever secrets it names elsewhere, nobody is asked for them.
    let config = match load_as_written(Some(&arguments.config)) {
        Ok(config) => config,
        Err(problems) => return complain_all(&problems),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return broken(&arguments.config, &error),
    };
    let player = match runtime.block_on(Player::new(config)) {
        Ok(player) => player,
        Err(error) => return broken(&arguments.config, &error),
    };
    let result = runtime.block_on(play_all(&player, &arguments.file, arguments.json));
    match result {
        Ok(sum) if sum.calls == sum.left_out => {
            complain("No call could be played.");
            ExitCode::from(BROKEN)
        }
        Ok(sum) if sum.different > 0 => ExitCode::from(DIFFERENT),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => broken(&arguments.file, &error),
    }
}

fn broken(file: &Path, error: &io::Error) -> ExitCode {
    complain(&format!("{}: {error}", file.display()));
    ExitCode::from(BROKEN)
}

async fn play_all(player: &Player, file: &Path, as_json: bool) -> io::Result<Sum> {
    let mut sum = Sum::default();
    for (number, line) in BufReader::new(File::open(file)?).lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        sum.calls += 1;
        let result = match serde_json::from_str::<Kept>(&line) {
            Ok(kept) => Box::pin(player.play(&kept)).await.map(|now| (kept, now)),
            Err(_) => Err("is no kept call".to_owned()),
        };
        match result {
            Ok((kept, now)) => {
                sum.unknown_keys += u64::from(!player.knows_key(&kept));
                sum.wordless += u64::from(player.is_blind(&kept));
                sum.take(&kept, &now, as_json);
            }
            Err(message) => {
                sum.left_out += 1;
                complain(&format!("line {}: left out: {message}", number + 1));
            }
        }
    }
    say(&if as_json { sum.json().to_string() } else { sum.text() });
    Ok(sum)
}

// === impl Sum ===

impl Sum {
    /// Counts a call, and tells of it if it went otherwise.
    fn take(&mut self, kept: &Kept, played: &Played, as_json: bool) {
        let changes = changes(kept, played);
        self.different += u64::from(!changes.is_empty());
        let is_among = |name: &str| u64::from(changes.iter().any(|(what, ..)| *what == name));
        self.routes += is_among("route");
        self.targets += is_among("targets");
        self.outcomes += is_among("outcome");
        match (cost(kept), played.cost_usd) {
            (Some(before), Some(after)) => {
                self.before_usd += before;
                self.after_usd += after;
            }
            (None, None) => {}
            _ => self.unpriced += 1,
        }
        if as_json {
            let changes: Vec<Json> = changes
                .iter()
                .map(
                    |(what, before, after)| json!({"what": what, "before": before, "after": after}),
                )
                .collect();
            say(&json!({"id": kept.id, "model": kept.model, "changes": changes}).to_string());
        } else if !changes.is_empty() {
            let mut text = format!("{} {}", kept.id, kept.model);
            for (what, before, after) in &changes {
                let _ = write!(text, "\n  {what}: {before} -> {after}");
            }
            say(&text);
        }
    }

    fn text(&self) -> String {
        let Self { calls, different, left_out, routes, targets, outcomes, unpriced, .. } = self;
        let mut text = format!(
            "{calls} calls, {different} different, {left_out} left out\n\
             routes {routes}, targets {targets}, outcomes {outcomes}\n\
             cost {:.6} -> {:.6} USD, where both are known; {unpriced} with one price only",
            self.before_usd, self.after_usd
        );
        if self.unknown_keys > 0 {
            let _ = write!(
                text,
                "\n{} calls by keys that this config does not have: played by one that may call all",
                self.unknown_keys
            );
        }
        if self.wordless > 0 {
            let _ = write!(
                text,
                "\n{} calls whose words were not kept: guards could find nothing in them",
                self.wordless
            );
        }
        text
    }

    fn json(&self) -> Json {
        json!({
            "calls": self.calls, "different": self.different, "left_out": self.left_out,
            "routes": self.routes, "targets": self.targets, "outcomes": self.outcomes,
            "cost_before_usd": rounded(self.before_usd), "cost_after_usd": rounded(self.after_usd),
            "unpriced": self.unpriced, "unknown_keys": self.unknown_keys,
            "wordless": self.wordless,
        })
    }
}

/// Sums of decimal fractions have crumbs.
fn rounded(usd: f64) -> f64 {
    (usd * 1e9).round() / 1e9
}

fn cost(kept: &Kept) -> Option<f64> {
    kept.cost_usd.as_ref()?.parse().ok()
}

/// What is different, as it was and as it is.
fn changes(kept: &Kept, played: &Played) -> Vec<(&'static str, String, String)> {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    let usd = |cost: Option<f64>| cost.map_or_else(|| "-".to_owned(), |cost| format!("{cost:.6}"));
    let outcome = match &played.error {
        Some(code) => format!("{} ({code})", played.outcome.name()),
        None => played.outcome.name().to_owned(),
    };
    // A client that left then has no reason to leave now.
    let left = kept.outcome == crate::canon::Outcome::ClientClosed;
    let before = kept.outcome.name().to_owned();
    let same = left || kept.outcome == played.outcome;
    let all = [
        ("route", name(&kept.route), name(&played.route)),
        ("task", name(&kept.task), name(&played.task)),
        ("targets", targets(&kept.attempts), targets(&played.attempts)),
        ("outcome", before.clone(), if same { before } else { outcome }),
        ("cost_usd", usd(cost(kept)), usd(played.cost_usd)),
    ];
    all.into_iter().filter(|(_, before, after)| before != after).collect()
}

fn targets(attempts: &[Attempted]) -> String {
    let names = attempts.iter().map(|it| format!("{}/{}", it.provider, it.model));
    names.collect::<Vec<_>>().join(", ")
}
