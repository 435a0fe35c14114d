//! What people and programs do to runs from outside.

use std::sync::{Arc, Weak};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::act::bare;
use super::actor::Live;
use super::again::Again;
use super::begin::{away, halted};
use super::definition::ToolDefinition;
use super::event::Resolution;
use super::run::Stage;
use super::staff::Staff;
use crate::access::{Caller, CallerRef};
use crate::canon::{Part, Passed, RunId};
use crate::error::{Error, Kind};
use crate::store::runs::{ApprovalRow, Decided, Decision, LetterRow, RunRow};
use crate::tool::{self, Failure};

/// Something that a run is to know.
#[derive(Debug, Clone)]
pub enum Told {
    Cancel {
        by: String,
        reason: Option<String>,
        after_step: bool,
    },
    Pause {
        by: String,
    },
    Resume {
        by: String,
    },
    /// `request`: which question is answered; the only one, if it is not said.
    Input {
        request: Option<String>,
        values: Value,
        by: String,
    },
    /// An answer that is none was given to this question.
    Unfit {
        request: String,
        by: String,
    },
    /// What became of a call; `seq`: the entry that says that nobody knew it.
    Resolve {
        seq: u64,
        call: Option<String>,
        outcome: Resolution,
        result: Option<Value>,
        by: String,
    },
    Feedback {
        score: Option<f64>,
        label: Option<String>,
        comment: Option<String>,
        by: String,
    },
}

/// What somebody says of a call that needs approval.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub approved: bool,
    /// Other arguments than the model's.
    pub args: Option<Value>,
    pub comment: Option<String>,
    /// Later calls of the same tool in the same run pass, too.
    pub remember: bool,
    pub by: String,
}

/// A run as it goes on, for somebody who reads its journal along.
#[derive(Debug)]
pub struct Along {
    seq: watch::Receiver<u64>,
    live: Weak<Live>,
}

impl Along {
    /// Ready when there may be more to read; false when the run is at work here no more.
    pub async fn changed(&mut self) -> bool {
        self.seq.changed().await.is_ok()
    }

    /// The number of its last entry.
    pub fn newest(&self) -> u64 {
        *self.seq.borrow()
    }

    /// What its model is saying and no entry has yet, piece by piece: those behind the piece
    /// `part`, of a turn that was asked for by an entry up to `seen`.
    pub fn in_flight(&self, seen: u64, part: usize) -> Vec<String> {
        let live = self.live.upgrade();
        live.map(|live| live.voice.in_flight(seen, part + 1)).unwrap_or_default()
    }
}

impl Told {
    /// What can be said only once.
    fn once(&self) -> Option<String> {
        match self {
            Self::Resolve { seq, .. } => Some(seq.to_string()),
            Self::Input { request, .. } => request.clone(),
            _ => None,
        }
    }

    fn signal(&self) -> (&'static str, Value) {
        match self {
            Self::Cancel { by, reason, after_step } => {
                ("cancel", json!({"by": by, "reason": reason, "after_step": after_step}))
            }
            Self::Pause { by } => ("pause", json!({"by": by})),
            Self::Resume { by } => ("resume", json!({"by": by})),
            Self::Input { request, values, by } => {
                ("input", json!({"request": request, "values": values, "by": by}))
            }
            Self::Unfit { request, by } => ("unfit", json!({"request": request, "by": by})),
            Self::Resolve { call, outcome, result, by, .. } => {
                ("resolve", json!({"call": call, "outcome": outcome, "result": result, "by": by}))
            }
            Self::Feedback { score, label, comment, by } => {
                ("feedback", json!({"score": score, "label": label, "comment": comment, "by": by}))
            }
        }
    }
}

impl Staff {
    /// Tells a run something. False where it is over, or was told that already.
    pub(super) async fn tell(&self, run: RunId, told: &Told) -> Result<bool, Error> {
        let (kind, data) = told.signal();
        let store = self.gateway.store();
        let heard = store.signal_run(run, kind, data.to_string(), told.once()).await;
        let heard = heard.map_err(away)?;
        if let (Told::Feedback { label, .. }, true) = (told, heard) {
            let known = ["good", "bad"];
            let label = label.as_deref().filter(|it| known.contains(it)).unwrap_or("other");
            if let Ok(Some(row)) = store.run(None, run).await {
                let metrics = &self.gateway.telemetry.metrics;
                metrics.agent_feedback.with_label_values(&[&row.agent, label]).inc();
            }
        }
        if heard {
            self.nudge_tree(run).await;
        }
        Ok(heard)
    }

    /// Whoever works at it here, or at the runs above it.
    async fn nudge_tree(&self, run: RunId) {
        self.nudge(run);
        let mut below = Some(run).filter(|run| self.live(*run).is_none());
        while let Some(run) = below
            && let Ok(Some(row)) = self.gateway.store().run(None, run).await
        {
            below = row.parent;
            row.parent.into_iter().for_each(|above| self.nudge(above));
        }
    }

    /// Decides about a call, with other arguments if they are said.
    pub(super) async fn decide(
        &self,
        approval: &ApprovalRow,
        verdict: Verdict,
    ) -> Result<Decided, Error> {
        let edited = match verdict.args.as_ref().filter(|_| verdict.approved) {
            None => None,
            Some(args) => {
                self.check_edited(approval, args).await?;
                Some((tool::canonical(args), self.hash_of(approval, args).await?))
            }
        };
        let signal = json!({
            "approval": approval.id,
            "approved": verdict.approved,
            "args": verdict.args,
            "comment": verdict.comment,
            "remember": verdict.remember,
            "by": verdict.by,
        });
        let decision = Decision {
            approved: verdict.approved,
            by: verdict.by,
            comment: verdict.comment,
            edited,
            signal: signal.to_string(),
        };
        let decided = self.gateway.store().decide(&approval.id, decision).await.map_err(away)?;
        if decided == Decided::Done {
            self.nudge_tree(approval.run).await;
        }
        Ok(decided)
    }

    /// Arguments that a person has put in must be as good as a model's.
    async fn check_edited(&self, approval: &ApprovalRow, args: &Value) -> Result<(), Error> {
        let Some(tool) = self.toolbox().get(&approval.tool) else {
            let message = format!("The tool `{}` is not there any more.", approval.tool);
            return Err(Error::new(Kind::Conflict, message));
        };
        let args = self.without_confidence(approval.run, args, &tool).await?;
        tool.check(&args).map_err(|failure| Error::invalid(failure.message))
    }

    /// Arguments as a tool takes them: without the field that only we have asked the model for.
    async fn without_confidence(
        &self,
        run: RunId,
        args: &Value,
        tool: &tool::Tool,
    ) -> Result<Value, Error> {
        let row = self.gateway.store().run(None, run).await.map_err(away)?;
        let Some(row) = row else { return Ok(args.clone()) };
        let run = self.load(&row).await.map_err(halted)?.run;
        let confidence = run.member().and_then(|member| member.confidence.as_ref());
        Ok(bare(args, confidence.map(|it| it.field.as_str()), tool))
    }

    /// The digest of what is allowed with other arguments, as its run will know it.
    async fn hash_of(&self, approval: &ApprovalRow, args: &Value) -> Result<String, Error> {
        let gone = || Error::new(Kind::Conflict, "The run is not kept any more.");
        let row = self.gateway.store().run(None, approval.run).await.map_err(away)?;
        let run = self.load(&row.ok_or_else(gone)?).await.map_err(halted)?.run;
        run.hash_of(&approval.tool, args).ok_or_else(gone)
    }

    /// Work that came to nothing is tried again: a tool's call by the same key. If that comes to
    /// nothing too, the letter stays open.
    pub(super) async fn retry_letter(
        self: &Arc<Self>,
        caller: &Caller,
        letter: &LetterRow,
    ) -> Result<Value, Error> {
        let tried = self.try_letter(caller, letter).await;
        let (error, attempts) = match &tried {
            Ok(Ok(result)) => return Ok(json!({"outcome": "done", "result": result})),
            Ok(Err(failure)) => (failure.message.clone(), failure.attempts),
            Err(_) => (letter.error.clone(), 0),
        };
        let reopened = self.gateway.store().reopen_letter(&letter.id, error, attempts).await;
        reopened.map_err(away)?;
        let told = |it: Failure| json!({"outcome": it.kind.name(), "message": it.message});
        Ok(tried?.unwrap_or_else(told))
    }

    async fn try_letter(
        self: &Arc<Self>,
        caller: &Caller,
        letter: &LetterRow,
    ) -> Result<Result<Value, Failure>, Error> {
        let payload: Value = serde_json::from_str(&letter.payload).unwrap_or_default();
        let text = |name: &str| payload.get(name).and_then(Value::as_str);
        if letter.kind == "webhook" {
            let id = text("delivery").unwrap_or_default();
            let is_sent = self.gateway.store().resend_delivery(id).await.map_err(away)?;
            self.wake.notify_one();
            let outcome = if is_sent { "queued" } else { "delivered" };
            return Ok(Ok(json!({"delivery": id, "outcome": outcome})));
        }
        if letter.kind == "unknown_outcome"
            && let Some(run) = self.call_again(caller, letter, text("call_id")).await?
        {
            return Ok(Ok(json!({"run": run.to_string()})));
        }
        if letter.kind == "run" {
            return self.retry_run(caller, text("run")).await.map(Ok);
        }
        let Some(tool) = text("tool").and_then(|name| self.toolbox().get(name)) else {
            let message = "This letter is about no call of a tool that there is.";
            return Err(Error::new(Kind::Conflict, message));
        };
        // What takes back goes by the config, in runs too: their keys need not have it.
        if letter.kind != "compensation" && !caller.operates() && !caller.may_use_tool(&tool.name) {
            let message = format!("This key may not use the tool `{}`.", tool.name);
            return Err(Error::new(Kind::NotAllowed, message));
        }
        let args = payload.get("args").cloned().unwrap_or_default();
        let args = match letter.run {
            Some(run) => self.without_confidence(run, &args, &tool).await?,
            None => args,
        };
        self.needs_no_approval(letter.run, &tool).await?;
        tool.check(&args).map_err(|failure| Error::invalid(failure.message))?;
        let key = text("idempotency_key").or_else(|| text("key")).unwrap_or_default();
        let invocation = tool::Invocation {
            args,
            idempotency_key: key.to_owned(),
            user: Some(self.person_of(letter).await?),
            passed: Passed::default(),
            deadline: tokio::time::Instant::now() + tool.terms.timeout * 4,
            answer: None,
            listener: None,
        };
        Ok(tool.call(&invocation).await.map(|output| {
            let text: String = output.parts.iter().filter_map(Part::as_text).collect();
            output.value.unwrap_or_else(|| Value::from(text))
        }))
    }

    /// Whose limits a call of a letter goes by: those of its run.
    async fn person_of(&self, letter: &LetterRow) -> Result<Arc<str>, Error> {
        let row = match letter.run {
            Some(run) => self.gateway.store().run(None, run).await.map_err(away)?,
            None => None,
        };
        let Some(row) = row else { return Ok(format!("key:{}", letter.owner.as_str()).into()) };
        let (created, ..) = self.entries(row.id).await.map_err(halted)?;
        let caller = serde_json::from_value::<CallerRef>(created.caller);
        let caller = caller.map_err(|_| Error::new(Kind::Internal, "Its caller is not known."))?;
        Ok(caller.person(created.user.as_deref()))
    }

    /// A run that waits for the outcome of a call makes it itself, once more; `None` where it does
    /// not wait.
    async fn call_again(
        &self,
        caller: &Caller,
        letter: &LetterRow,
        call: Option<&str>,
    ) -> Result<Option<RunId>, Error> {
        let Some(run) = letter.run else { return Ok(None) };
        let row = self.gateway.store().run(None, run).await.map_err(away)?;
        let Some(row) = row.filter(|row| !row.state.is_over()) else { return Ok(None) };
        let calls = self.load(&row).await.map_err(halted)?.run.calls;
        let waits = calls.into_iter().find_map(|it| match it.stage {
            Stage::Unknown { seq } if Some(&*it.request.id) == call => Some((seq, it.request.id)),
            _ => None,
        });
        let Some((seq, call)) = waits else { return Ok(None) };
        let (call, outcome, by) = (Some(call), Resolution::Retry, caller.owner().to_string());
        let told = Told::Resolve { seq, call, outcome, result: None, by };
        if !self.tell(run, &told).await? {
            let message = "Somebody has said already what became of it.";
            return Err(Error::new(Kind::InvalidTransition, message));
        }
        Ok(Some(run))
    }

    /// Whoever had to let a call pass when its run began has done so; of a tool that demands it
    /// since, or otherwise, nobody has.
    async fn needs_no_approval(&self, run: Option<RunId>, tool: &tool::Tool) -> Result<(), Error> {
        let Some(demanded) = tool.approval() else { return Ok(()) };
        let row = match run {
            Some(run) => self.gateway.store().run(None, run).await.map_err(away)?,
            None => None,
        };
        if let Some(row) = row {
            let run = self.load(&row).await.map_err(halted)?.run;
            let mut members = run.definition.members.values();
            let is_it = |known: &ToolDefinition| known.approval.as_ref() == Some(demanded);
            if members.any(|member| member.tool(&tool.name).is_some_and(is_it)) {
                return Ok(());
            }
        }
        let message = format!(
            "The tool `{}` needs an approval that this call never had: have the run of an agent \
             make the call, which waits for the decision, and discard the letter.",
            tool.name
        );
        Err(Error::new(Kind::ApprovalRequired, message))
    }

    /// A run that was given up goes on as another one, from where it was left.
    async fn retry_run(
        self: &Arc<Self>,
        caller: &Caller,
        run: Option<&str>,
    ) -> Result<Value, Error> {
        let missing = || Error::new(Kind::Conflict, "The run is not kept any more.");
        let run = run.and_then(RunId::parse).ok_or_else(missing)?;
        let row = self.gateway.store().run(None, run).await.map_err(away)?.ok_or_else(missing)?;
        let again = self.again(caller, &row, Again::Retry).await?;
        Ok(json!({"run": again.to_string()}))
    }

    /// A run that is at work here, for whoever reads its journal along.
    pub(super) fn follow(&self, run: RunId) -> Option<Along> {
        let live = self.live(run)?;
        Some(Along { seq: live.seq.subscribe(), live: Arc::downgrade(&live) })
    }

    /// A run with all that its journal says of it.
    pub(super) async fn whole(&self, row: &RunRow) -> Result<super::run::Run, Error> {
        Ok(self.load(row).await.map_err(halted)?.resting(row.state))
    }
}

/// Whether this key may decide: of the roles that are named, it must have one.
pub fn may_decide(caller: &Caller, approval: &ApprovalRow) -> Result<(), Error> {
    let role = caller.tag("role");
    let has = approval.roles.iter().any(|wanted| role == Some(wanted.as_str()));
    if approval.roles.is_empty() || has || caller.operates() {
        return Ok(());
    }
    let message = format!(
        "This key may not decide here: its tag `role` must be one of {}.",
        approval.roles.join(", ")
    );
    Err(Error::new(Kind::NotAllowed, message))
}
