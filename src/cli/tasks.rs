//! Asks the task classifier about prompts whose tasks are known, and says how often it is right.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::{complain, say};
use crate::dialect::estimate;
use crate::route::task::{self, Prompt, Task, Verdict, classify};

/// So many of the surest mistakes are shown.
const SHOWN: usize = 15;

#[derive(Debug, Subcommand)]
pub(super) enum TasksCommand {
    /// Classify labelled prompts and say how often that is right; exit 2 if a line is unreadable.
    Eval(EvalArguments),
}

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// One JSON object a line: `{"prompt": …, "task": …}` or `{"messages": […], "task": …}`.
    file: PathBuf,
    /// Exit 1 if fewer than this share are right, say 0.8.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    min_accuracy: Option<f64>,
}

/// A prompt whose task is known.
#[derive(Debug, Deserialize)]
struct Labelled {
    task: String,
    #[serde(default)]
    language: String,
    prompt: Option<String>,
    #[serde(default)]
    system: String,
    #[serde(default)]
    features: Features,
    /// The rest is as in a request of OpenAI's chat completions.
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    response_format: Option<Value>,
    reasoning_effort: Option<Value>,
}

/// What a request has besides its words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each of the classifier's")]
struct Features {
    tools: usize,
    tool_choice_forced: bool,
    schema: bool,
    images: bool,
    audio: bool,
    files: bool,
    tokens: Option<u64>,
    reasoning: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// One line, decided.
struct Outcome {
    line: usize,
    language: String,
    label: Task,
    verdict: Verdict,
}

struct Report {
    outcomes: Vec<Outcome>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be from 0 to 1".to_owned()) }
}

pub(super) fn run(command: &TasksCommand) -> ExitCode {
    let TasksCommand::Eval(arguments) = command;
    let text = match std::fs::read_to_string(&arguments.file) {
        Ok(text) => text,
        Err(error) => {
            complain(&format!("{}: {error}", arguments.file.display()));
            return ExitCode::from(2);
        }
    };
    let report = match evaluate(&arguments.file, &text) {
        Ok(report) => report,
        Err(problems) => {
            complain(&problems.join("\n"));
            return ExitCode::from(2);
        }
    };
    say(report.to_string().trim_end());
    match arguments.min_accuracy {
        Some(least) if report.accuracy() < least => {
            complain(&format!("accuracy {:.3} is below {least}", report.accuracy()));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Decides every line, or says what is wrong with each that cannot be read.
fn evaluate(file: &Path, text: &str) -> Result<Report, Vec<String>> {
    let (mut outcomes, mut problems) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        match decide(line, text) {
            Ok(outcome) => outcomes.push(outcome),
            Err(problem) => problems.push(format!("{}:{line}: {problem}", file.display())),
        }
    }
    if outcomes.is_empty() && problems.is_empty() {
        problems.push(format!("{}: no prompts", file.display()));
    }
    if problems.is_empty() { Ok(Report { outcomes }) } else { Err(problems) }
}

fn decide(line: usize, text: &str) -> Result<Outcome, String> {
    let mut labelled: Labelled = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let label = task::parse(&labelled.task).map_err(|unknown| unknown.to_string())?;
    let user = labelled.prompt.take();
    let user =
        user.or_else(|| labelled.read_messages()).ok_or("neither `prompt` nor `messages`")?;
    let features = &labelled.features;
    let counted = || estimate::text(&labelled.system) + estimate::text(&user);
    let prompt = Prompt {
        system: &labelled.system,
        user: &user,
        tools: features.tools,
        tool_choice_forced: features.tool_choice_forced,
        schema: features.schema,
        images: features.images,
        audio: features.audio,
        files: features.files,
        tokens: features.tokens.unwrap_or_else(counted),
        reasoning: features.reasoning,
    };
    let verdict = classify(&prompt);
    Ok(Outcome { line, language: labelled.language, label, verdict })
}

// === impl Labelled ===

impl Labelled {
    /// The first message of the user; the rest of the request goes into `system` and `features`.
    fn read_messages(&mut self) -> Option<String> {
        let mut first = None;
        for message in std::mem::take(&mut self.messages) {
            let text = self.read_content(&message.content);
            match message.role.as_str() {
                "system" | "developer" => self.system.push_str(&text),
                "user" if first.is_none() => first = Some(text),
                _ => {}
            }
        }
        let features = &mut self.features;
        features.tools = features.tools.max(self.tools.len());
        features.tool_choice_forced |= match &self.tool_choice {
            Some(Value::String(choice)) => choice == "required",
            Some(Value::Object(_)) => true,
            _ => false,
        };
        let format = self.response_format.as_ref().and_then(|format| format["type"].as_str());
        features.schema |= format.is_some_and(|format| format.starts_with("json"));
        features.reasoning |= self.reasoning_effort.is_some();
        first
    }

    /// The text of a message; what it has besides is noted.
    fn read_content(&mut self, content: &Value) -> String {
        let Value::Array(parts) = content else {
            return content.as_str().unwrap_or_default().to_owned();
        };
        let mut text = String::new();
        for part in parts {
            match part["type"].as_str() {
                Some("text") => text.push_str(part["text"].as_str().unwrap_or_default()),
                Some("image_url") => self.features.images = true,
                Some("input_audio") => self.features.audio = true,
                Some("file") => self.features.files = true,
                _ => {}
            }
        }
        text
    }
}

// === impl Report ===

impl Report {
    fn accuracy(&self) -> f64 {
        let (right, all) = tally(self.outcomes.iter());
        part(right, all)
    }

    fn per_task(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n{:<15}{:>8}{:>11}{:>9}", "task", "prompts", "precision", "recall")?;
        for task in Task::ALL {
            let (right, labelled) = tally(self.outcomes.iter().filter(|one| one.label == task));
            let decided = self.outcomes.iter().filter(|one| one.verdict.task == task).count();
            let (precision, recall) = (percent(right, decided), percent(right, labelled));
            writeln!(out, "{:<15}{labelled:>8}{precision:>11}{recall:>9}", task.name())?;
        }
        Ok(())
    }

    fn confusion(&self, out: &mut String) -> fmt::Result {
        write!(out, "\n{:<15}", "label \\ decided")?;
        for task in Task::ALL {
            write!(out, "{:>7.6}", task.name())?;
        }
        writeln!(out)?;
        for label in Task::ALL {
            write!(out, "{:<15}", label.name())?;
            for task in Task::ALL {
                let hit = |one: &&Outcome| one.label == label && one.verdict.task == task;
                match self.outcomes.iter().filter(hit).count() {
                    0 => write!(out, "{:>7}", ".")?,
                    count => write!(out, "{count:>7}")?,
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn per_language(&self, out: &mut String) -> fmt::Result {
        let mut languages = BTreeMap::<&str, Vec<&Outcome>>::new();
        for outcome in &self.outcomes {
            let name = if outcome.language.is_empty() { "-" } else { &outcome.language };
            languages.entry(name).or_default().push(outcome);
        }
        writeln!(out, "\n{:<15}{:>8}{:>11}", "language", "prompts", "accuracy")?;
        for (language, outcomes) in languages {
            let (right, all) = tally(outcomes.into_iter());
            writeln!(out, "{language:<15}{all:>8}{:>11}", percent(right, all))?;
        }
        Ok(())
    }

    /// What a least score would buy: how many calls keep a verdict, and how many of those are right.
    fn per_score(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n{:<15}{:>8}{:>11}", "score at least", "decided", "accuracy")?;
        for least in [0.0_f32, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8] {
            let sure = self.outcomes.iter().filter(|one| one.verdict.score >= least);
            let (right, decided) = tally(sure);
            let covered = percent(decided, self.outcomes.len());
            writeln!(out, "{least:<15}{covered:>8}{:>11}", percent(right, decided))?;
        }
        Ok(())
    }

    /// Mistakes, the surest first.
    fn mistakes(&self, out: &mut String) -> fmt::Result {
        let mut wrong: Vec<_> = self.outcomes.iter().filter(|one| !one.right()).collect();
        wrong.sort_by(|left, right| right.verdict.score.total_cmp(&left.verdict.score));
        if !wrong.is_empty() {
            writeln!(out, "\nsurest mistakes")?;
        }
        for one in wrong.iter().take(SHOWN) {
            let (label, decided) = (one.label.name(), one.verdict.task.name());
            let (score, reason) = (one.verdict.score, &one.verdict.reason);
            writeln!(
                out,
                "line {}: {label}, taken for {decided} ({score:.2}, {reason})",
                one.line
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (right, all) = tally(self.outcomes.iter());
        let mut out = format!("accuracy {} ({right} of {all})\n", percent(right, all));
        self.per_task(&mut out)?;
        self.confusion(&mut out)?;
        self.per_language(&mut out)?;
        self.per_score(&mut out)?;
        self.mistakes(&mut out)?;
        formatter.write_str(&out)
    }
}

// === impl Outcome ===

impl Outcome {
    fn right(&self) -> bool {
        self.label == self.verdict.task
    }
}

/// How many are right, and how many there are.
fn tally<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> (usize, usize) {
    outcomes.fold((0, 0), |(right, all), one| (right + usize::from(one.right()), all + 1))
}

#[expect(clippy::cast_precision_loss, reason = "counts of lines")]
fn part(some: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { some as f64 / all as f64 }
}

fn percent(some: usize, all: usize) -> String {
    if all == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * part(some, all)) }
}
