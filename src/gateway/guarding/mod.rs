//! What the guards of one call make of it: its question before anybody is asked, its answer before
//! its client is told.
//!
//! What is masked in a question is masked for everyone who sees it from there on: the classifier,
//! the cache, shadows, each target. What stands for it lies in the call's vault, and is put back
//! into the answer behind the guards of the answer.

mod after;
mod asking;
mod late;
mod look;
mod notes;
mod screen;
mod surfaces;
mod texts;
mod tools;
mod whole;

use std::sync::Arc;

use serde_json::{Value, json};

pub(super) use self::after::After;
pub(super) use self::late::{Late, beside};
pub(super) use self::notes::Said;
pub(super) use self::surfaces::refuse_objects;
pub(super) use self::tools::{look_at_answer, look_at_arguments, look_at_result, reads_results};
pub(super) use self::whole::look_at;
use super::arrival::Question;
use super::call::Call;
use super::flow::Flow;
use super::snapshot::Target;
use crate::canon::GuardNote;
use crate::config::{Mode, Stage, together};
use crate::dialect::passage::Screen;
use crate::error::{Error, Kind};
use crate::guard::{Blocked, Chain, Vault};
use crate::provider::{Cause, Failure};

/// The guards of one call.
#[derive(Debug, Default)]
pub(super) struct Guarding {
    /// All of them, in their order.
    names: Vec<String>,
    output: Chain,
    tool_args: Chain,
    vault: Arc<Vault>,
    said: Arc<Said>,
    /// Those that are asked while a target is.
    late: Option<Late>,
}

/// What a streamed answer passes, and who is asked behind it.
type Screened = (Box<dyn Screen>, Option<Box<After>>);

/// The guards of a question that are new.
#[derive(Default)]
struct Inputs {
    input: Chain,
    results: Chain,
}

/// Has the guards that hold for the call look at its question, those of `route` among them. A guard
/// that has looked already does not do so again.
pub(super) async fn inspect(
    call: &mut Call,
    question: &mut Question,
    route: &[String],
) -> Result<(), Error> {
    if call.guard_lists(route).iter().all(|list| list.is_empty()) {
        return Ok(());
    }
    Box::pin(inspect_all(call, question, route)).await
}

async fn inspect_all(
    call: &mut Call,
    question: &mut Question,
    route: &[String],
) -> Result<(), Error> {
    let mut guarding = call.guarding.take().unwrap_or_default();
    let looked = match guarding.add(call, route) {
        Ok(Some(inputs)) => look::look(&mut guarding, call, question, &inputs).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if guarding.reads_answers() && surfaces::has_answer(call.surface()) {
        question.mark_rewritten();
    }
    call.guarding = Some(guarding);
    looked
}

/// What the client is told of a guard that objects.
pub(super) fn refusal(blocked: &Blocked) -> Error {
    Error::new(Kind::GuardBlocked, blocked.to_string())
}

/// The stream behind the guards of its call; `None` if it cannot be shown to them.
pub(super) fn screened(call: &Call, question: &Question, mut flow: Flow) -> Option<Flow> {
    let Some((screen, after)) = call.screen(&question.envelope.model) else { return Some(flow) };
    if !flow.passage.screened(screen) {
        return None;
    }
    if after.is_some() {
        flow.passage.withhold_end();
    }
    flow.after = after;
    Some(flow)
}

/// What a guard has to read must not pass as it is.
pub(super) fn unscreened(target: &Target, status: u16) -> Failure {
    tracing::error!(provider = %target.provider.name, "an answer could not be shown to its guards");
    Failure::of(Cause::Malformed, status)
}

// === impl Guarding ===

impl Guarding {
    /// Adds the guards of these lists; what there is to be done for the question, if they are new.
    fn add(&mut self, call: &Call, route: &[String]) -> Result<Option<Inputs>, Error> {
        let guards = &call.house.guards;
        let all = together(&call.guard_lists(route));
        let known = |name: &&&str| self.names.iter().any(|known| known == *name);
        let new: Vec<&str> = all.iter().filter(|name| !known(name)).copied().collect();
        if let Some(gone) = new.iter().find(|name| guards.get(name).is_none()) {
            let message = format!("The guard `{gone}` of this key is not there any more.");
            return Err(Error::new(Kind::GuardBlocked, message));
        }
        if new.is_empty() {
            return Ok(None);
        }
        let inputs = Inputs {
            input: guards.chain(&new, Stage::Input),
            results: guards.chain(&new, Stage::ToolResults),
        };
        self.names.extend(new.into_iter().map(str::to_owned));
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.output = guards.chain(&names, Stage::Output);
        self.tool_args = guards.chain(&names, Stage::ToolArgs);
        Ok(Some(inputs))
    }

    /// Whether an answer has to be read before its client may have it.
    pub(super) fn reads_answers(&self) -> bool {
        !self.output.is_empty() || !self.tool_args.is_empty() || !self.vault.is_empty()
    }

    /// Whether an answer has to be there whole before anything of it is told.
    fn holds_answers(&self) -> bool {
        self.output.holds() || self.tool_args.holds()
    }

    /// Whether somebody is asked about answers.
    fn asks_about_answers(&self) -> bool {
        !self.output.remote().is_empty() || !self.tool_args.remote().is_empty()
    }

    /// Puts the placeholders of this call back in place of what they stand for.
    pub(super) fn conceal(&self, text: &str) -> String {
        self.vault.conceal(text)
    }

    /// Those that are still to be asked.
    pub(super) fn take_late(&mut self) -> Option<Late> {
        self.late.take()
    }

    /// The guard that ended the answer.
    pub(super) fn blocked(&self) -> Option<Blocked> {
        self.said.blocked()
    }

    /// The names of guards that want their findings told to the client, separated by commas.
    pub(super) fn flagged(&self) -> Option<String> {
        self.said.flagged()
    }

    /// All that was said, for the record.
    pub(super) fn notes(&self) -> Vec<GuardNote> {
        self.said.notes()
    }
}

// === impl Call ===

impl Call {
    /// Where guards are named for this call. Calls of the gateway's own are not guarded.
    fn guard_lists<'a>(&'a self, route: &'a [String]) -> [&'a [String]; 3] {
        let key = self.caller.as_ref().map_or(&[][..], |caller| caller.guards());
        [&self.house.config.server.guards, route, key]
    }

    /// Whether an answer has to be read before the client may have it.
    pub(super) fn screens(&self) -> bool {
        self.guarding.as_ref().is_some_and(|guarding| {
            guarding.reads_answers() && surfaces::has_answer(self.surface())
        })
    }

    /// Whether it has to be there whole for that.
    pub(super) fn gathers(&self) -> bool {
        self.screens() && self.guarding.as_ref().is_some_and(|guarding| guarding.holds_answers())
    }

    /// What a streamed answer has to pass, if anything, and who is asked behind it.
    pub(super) fn screen(&self, model: &str) -> Option<Screened> {
        let guarding = self.guarding.as_ref().filter(|_| self.screens())?;
        let mut sieve = screen::Sieve::new(guarding, screen::Wants::ALL);
        let after = guarding.asks_about_answers().then(|| After::new(guarding, self, model));
        if let Some(after) = &after {
            sieve.tells(after.spoken());
        }
        Some((Box::new(sieve), after.map(Box::new)))
    }

    /// Which guards hold for it, and what each of them would do.
    pub(super) fn told_guards(&self) -> Vec<Value> {
        let names = self.guarding.iter().flat_map(|guarding| &guarding.names);
        let guards = names.filter_map(|name| self.house.guards.get(name));
        let told = guards.map(|guard| {
            json!({
                "guard": guard.name,
                "stages": guard.stages().iter().map(|stage| stage.name()).collect::<Vec<_>>(),
                "action": guard.action.name(),
                "parallel": guard.mode == Mode::Parallel,
                "dry_run": guard.is_dry_run(),
            })
        });
        told.collect()
    }

    /// The guards that are to be asked while a target is.
    pub(super) fn take_late_guards(&mut self) -> Option<Late> {
        self.guarding.as_mut()?.take_late()
    }

    /// Notes what the guards have said.
    pub(super) fn note_guards(&mut self) {
        if let Some(guarding) = self.guarding.take() {
            self.record.guards = guarding.notes();
            self.record.consulted = guarding.said.take_consulted();
        }
    }
}

#[cfg(test)]
mod tests;
