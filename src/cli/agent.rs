//! One run of an agent in the terminal, with its steps, in this process: nobody listens, and
//! nothing of it is kept.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::HeaderMap;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::explain::{bearer, show_secret};
use super::{complain, complain_all, config_path, load, located, say};
use crate::agent::event::{ASIDE, Asking, CallError, Event};
use crate::agent::{Agents, Told, Verdict, Written};
use crate::canon::{ChatRequest, Content, Message, Money, Part, Role, RunId, RunState};
use crate::config::{self, StoreUrl};
use crate::error::Error;
use crate::gateway::agents::RunWishes;
use crate::gateway::{Gateway, Snapshot};
use crate::net::client::Client;
use crate::net::tasks::Tasks;
use crate::net::workers::Workers;
use crate::store::Store;
use crate::store::runs::{ApprovalFilter, RunRow};
use crate::telemetry::{Format, Log, Telemetry};

/// As whom the journal knows whoever sits before the terminal.
const BY: &str = "terminal";
/// Entries that are read at once.
const PAGE: u32 = 200;
/// How much of a result is shown.
const SHOWN: usize = 200;
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Run an agent once: its answer goes to stdout, its steps to stderr. Whoever sits before the
    /// terminal approves and answers; exit 1 if it does not complete, 3 if nobody is there.
    Run(RunArguments),
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// Which agent: NAME, NAME@VERSION or NAME@LABEL.
    #[arg(value_name = "NAME")]
    agent: String,
    /// What it is asked.
    #[arg(value_name = "INPUT")]
    input: String,
    /// The config; without it the one that `serve` would take.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// The virtual key that calls; else one that may call everything.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
}

/// Why there is no run.
enum Failed {
    /// The exit code, once everything was said.
    Said(ExitCode),
    Because(String),
}

/// A run that is followed.
struct Followed<'a> {
    gateway: &'a Arc<Gateway>,
    agents: &'a Agents,
    run: RunId,
    /// The last entry that was shown.
    after: u64,
    answer: String,
}

pub(super) fn run(command: AgentCommand) -> ExitCode {
    let AgentCommand::Run(arguments) = command;
    match perform(&arguments) {
        Ok(code) | Err(Failed::Said(code)) => code,
        Err(Failed::Because(message)) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &RunArguments) -> Result<ExitCode, Failed> {
    let gateway = build(arguments)?;
    let workers = Arc::new(Workers::start(1).map_err(broken)?);
    let agents = Agents::new(&gateway, &workers);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::default();
        gateway.snapshot().toolbox.refresh().await;
        let tended = agents.clone();
        tasks.spawn(async move { tended.tend().await });
        let code = Box::pin(begin(&gateway, &agents, arguments)).await;
        agents.close().await;
        code
    });
    runtime.shutdown_background();
    ended.map_err(|error| Failed::Because(error.message.into_owned()))
}

/// The gateway that `serve` would run, but for its store: what was kept may belong to one that
/// runs now.
fn build(arguments: &RunArguments) -> Result<Arc<Gateway>, Failed> {
    let path = config_path(arguments.config.clone());
    let said = |problems: Vec<_>| Failed::Said(complain_all(&problems));
    let mut config = load(path.as_deref()).map_err(said)?;
    show_secret(&mut config, arguments.key.as_deref()).map_err(Failed::Because)?;
    config.store.shared = None;
    let store = Store::open(&config::Store::at(StoreUrl::Memory)).map_err(broken)?;
    let log = Log::start(Format::Text, false, Box::new(io::sink())).map_err(broken)?;
    let telemetry = Telemetry::new(log).map_err(broken)?;
    let client = Client::new(1);
    let wrong = |problems: Vec<_>| said(located(path.as_deref(), &problems));
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default()));
    let mut snapshot = snapshot.map_err(wrong)?;
    let means = (&client, &store, &telemetry.metrics, None);
    snapshot.equip(means, None).map_err(wrong)?;
    Ok(Gateway::new(snapshot, client, store, telemetry))
}

fn broken(error: impl std::fmt::Display) -> Failed {
    Failed::Because(error.to_string())
}

async fn begin(
    gateway: &Arc<Gateway>,
    agents: &Agents,
    arguments: &RunArguments,
) -> Result<ExitCode, Error> {
    let mut headers = HeaderMap::new();
    bearer(&mut headers).map_err(Error::invalid)?;
    let caller = gateway.admit(&gateway.snapshot(), &headers, None).await?;
    let said = Message::new(Role::User, vec![Part::text(arguments.input.clone())]);
    let request = ChatRequest { messages: vec![said], ..ChatRequest::default() };
    let wanted = (request, RunWishes::default());
    let begun = gateway.commission(&caller, &arguments.agent, wanted, true).await?;
    let mut followed =
        Followed { gateway, agents, run: begun.run, after: 0, answer: String::new() };
    followed.follow().await
}

// === impl Followed ===

impl Followed<'_> {
    async fn follow(&mut self) -> Result<ExitCode, Error> {
        loop {
            self.show().await?;
            let row = self.row().await?;
            let is_all = row.last_seq <= self.after;
            if row.state.is_over() && is_all {
                return Ok(self.ends(&row));
            }
            if row.state.is_waiting() && is_all && !self.help(&row).await? {
                complain(&format!("It waits ({}), and nobody is here.", row.state.name()));
                return Ok(ExitCode::from(3));
            }
            if let Some(mut news) = self.agents.follow(self.run) {
                let _ = timeout(LOOK, news.changed()).await;
            } else {
                sleep(LOOK).await;
            }
        }
    }

    fn ends(&self, row: &RunRow) -> ExitCode {
        let totals = &row.totals;
        let cost = Money::from_nanos(totals.cost).usd();
        let tokens = totals.tokens_in + totals.tokens_out;
        let (state, steps, tools) = (row.state.name(), totals.steps, totals.tool_calls);
        let reason = row.reason.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
        complain(&format!(
            "{state}{reason}: {steps} steps, {tools} calls of tools, {tokens} tokens, {cost} USD"
        ));
        if !self.answer.is_empty() {
            say(&self.answer);
        }
        if row.state == RunState::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    async fn row(&self) -> Result<RunRow, Error> {
        let row = self.gateway.store().run(None, self.run).await;
        let row = row.map_err(|failure| Error::invalid(failure.to_string()))?;
        row.ok_or_else(|| Error::invalid("The run is not there any more."))
    }

    async fn show(&mut self) -> Result<(), Error> {
        let rows = self.gateway.store().run_events(self.run, self.after, PAGE).await;
        for row in rows.map_err(|failure| Error::invalid(failure.to_string()))? {
            self.after = row.seq;
            let Ok(event) = serde_json::from_str::<Event>(&row.data) else { continue };
            self.hear(&event);
            if let Some(line) = line(&event) {
                complain(&line);
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: &Event) {
        let Event::Answered { parts, .. } = event else { return };
        let said: String = parts.iter().filter_map(text).collect();
        if !said.is_empty() {
            self.answer = said;
        }
    }

    /// Asks whoever sits before the terminal for what the run waits for. False where nobody does.
    async fn help(&self, row: &RunRow) -> Result<bool, Error> {
        if !io::stdin().is_terminal() {
            return Ok(false);
        }
        match row.state {
            RunState::WaitingApproval => self.approve().await,
            RunState::WaitingInput => {
                let Some(said) = ask("your answer: ") else { return Ok(false) };
                let (request, values) = match self.agents.written(row, &said).await? {
                    Written::Fits { request, values } => (request, values),
                    Written::Unfit { request, again } => {
                        complain(&again.unwrap_or_default());
                        let by = BY.to_owned();
                        return self.agents.tell(self.run, Told::Unfit { request, by }).await;
                    }
                };
                let by = BY.to_owned();
                self.agents.tell(self.run, Told::Input { request, values, by }).await
            }
            RunState::WaitingHuman => {
                let Some(said) = ask("your answer: ") else { return Ok(false) };
                let (values, by) = (json!({"answer": said}), BY.to_owned());
                self.agents.tell(self.run, Told::Input { request: None, values, by }).await
            }
            // What it waits for comes by itself.
            _ => Ok(true),
        }
    }

    async fn approve(&self) -> Result<bool, Error> {
        let pending =
            ApprovalFilter { state: Some("pending".to_owned()), ..ApprovalFilter::default() };
        let pending = self.gateway.store().approvals(pending, PAGE).await;
        for approval in pending.map_err(|failure| Error::invalid(failure.to_string()))? {
            let question = format!("{} {}: approve? [y/N] ", approval.tool, approval.args);
            let Some(said) = ask(&question) else { return Ok(false) };
            let approved = matches!(said.as_str(), "y" | "yes");
            let (by, remember) = (BY.to_owned(), false);
            let verdict = Verdict { approved, args: None, comment: None, remember, by };
            self.agents.decide(&approval, verdict).await?;
        }
        Ok(true)
    }
}

/// A line of whoever sits before the terminal; `None` at the end of what they have to say.
fn ask(question: &str) -> Option<String> {
    let mut output = io::stderr().lock();
    let _ = write!(output, "{question}").and_then(|()| output.flush());
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line).unwrap_or(0);
    (read > 0).then(|| line.trim().to_owned())
}

fn text(part: &Part) -> Option<&str> {
    match &part.content {
        Content::Text { text, .. } => Some(text),
        _ => None,
    }
}

fn asks(Asking { call, model, summary, .. }: &Asking) -> String {
    match (*call, summary) {
        (ASIDE, true) => format!("asks {model} for a summary"),
        (ASIDE, false) => format!("asks {model} for a plan"),
        (call, _) => format!("step {call}: asks {model}"),
    }
}

/// What is told of an entry, if it is worth a line.
fn line(event: &Event) -> Option<String> {
    let failed = |id: &str, error: &CallError| Some(format!("  {id} failed: {}", error.message));
    match event {
        Event::Started { asks: Some(asking), .. } | Event::Asked(asking) => Some(asks(asking)),
        Event::AskFailed { message, .. } => Some(format!("  it gave no answer: {message}")),
        Event::Answered { provider, model, usage, .. } => {
            let (input, output) = (usage.input_total(), usage.output);
            Some(format!("  {provider}/{model} answers ({input} + {output} tokens)"))
        }
        Event::Requested(request) => {
            Some(format!("  {} calls {} {}", request.id, request.tool, request.args))
        }
        Event::Refused { id, error } | Event::Failed { id, error, .. } => failed(id, error),
        Event::Done { id, parts, .. } => {
            let result: String = parts.iter().filter_map(text).collect();
            Some(format!("  {id} gives {}", short(&result)))
        }
        Event::Unknown { id } => Some(format!("  nobody knows what became of {id}")),
        Event::ChildStarted { agent, run, .. } => Some(format!("  asks the agent {agent} ({run})")),
        Event::Handoff { from, to, .. } => Some(format!("  {from} hands over to {to}")),
        Event::AgentFallback { from, to } => Some(format!("  {to} goes on for {from}")),
        Event::InputAsked { message, .. } => Some(format!("  asks: {message}")),
        Event::Compacted { .. } => Some("  makes the conversation shorter".to_owned()),
        Event::LimitHit { reason } => Some(format!("  meets a limit: {}", reason.name())),
        Event::Guarded { guard, message } => Some(format!("  the guard {guard}: {message}")),
        Event::Escalated { reason, .. } => Some(format!("  needs a person: {reason}")),
        Event::Ended { message: Some(message), .. } => Some(format!("  {message}")),
        _ => None,
    }
}

/// One line of it.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(SHOWN);
    let dots = if end < text.len() { " …" } else { "" };
    format!("{}{dots}", text[..end].replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_in_one_line() {
        assert_eq!(short("a\nb"), "a b");
        let long = short(&"ä".repeat(300));
        assert!(long.ends_with("ä …") && long.len() < 220, "{long}");
    }

    #[test]
    fn what_is_not_worth_a_line_has_none() {
        assert_eq!(line(&Event::Paused { by: "ann".to_owned() }), None);
        let error = CallError::new("timeout", "it took too long");
        let id = "call_1".to_owned();
        let failed = Event::Failed { id, error, attempts: 3, at: 0, wire: None };
        assert_eq!(line(&failed).as_deref(), Some("  call_1 failed: it took too long"));
    }
}
