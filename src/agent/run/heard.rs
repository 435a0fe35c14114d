//! What people were asked about a run, and what they said.

use serde_json::Value;

use super::{Call, Run, Stage};
use crate::agent::event::{CallError, Doer, Event};
use crate::canon::{FinishReason, Message, Part, Role};

/// How the word of a person who takes over is called.
const HUMAN: &str = "human";
/// What a model is told whose call lacks what its user does not want to say.
const DECLINED: &str = "The user does not want to say.";

impl Run {
    /// The questions to its user that have no answer yet.
    pub fn questions_open(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().filter_map(|call| match &call.stage {
            Stage::Asking { request, .. } => Some(request.as_str()),
            _ => None,
        })
    }

    /// What the answer of a person who takes over is called: of several to the same, the first
    /// holds.
    pub fn takeover(&self) -> Option<String> {
        self.escalated.as_ref().map(|it| format!("{HUMAN}:{}", it.seq))
    }

    /// A question, or the answer to one.
    pub(super) fn take_word(&mut self, event: &Event) {
        match event {
            Event::ApprovalAsked { id, approval, hash, expires_at, .. } => {
                let (approval, hash) = (approval.clone(), hash.clone());
                if let Some(call) = self.call_mut(id) {
                    call.approval = Some(approval.clone());
                }
                self.stage(id, Stage::Pending { approval, hash, expires_at: *expires_at });
            }
            Event::Approved { id, args, approval, by, remember, .. } => {
                if let Some(call) = self.call(id).filter(|_| *remember) {
                    let tool = call.request.tool.clone();
                    self.remembered.insert(tool, (approval.clone(), by.clone()));
                }
                self.let_pass(id, args.as_ref());
            }
            Event::Rejected { id, comment, expired, .. } => {
                let why = match (expired, comment) {
                    (true, _) => "Nobody has allowed it in time.".to_owned(),
                    (false, Some(comment)) => format!("A person has not allowed it: {comment}"),
                    (false, None) => "A person has not allowed it.".to_owned(),
                };
                let error = CallError::new("denied", why);
                self.settle(id, vec![Part::text(error.text())], true);
            }
            Event::InputAsked { request, id, message, schema, fills, expires_at } => {
                self.questions += 1;
                let (request, message) = (request.clone(), message.clone());
                let (schema, fills, expires_at) = (schema.clone(), fills.clone(), *expires_at);
                self.stage(id, Stage::Asking { request, message, schema, fills, expires_at });
            }
            Event::InputGiven { id, values, .. } => self.hear_answer(id, values),
            _ => {}
        }
    }

    /// What was asked has an answer; of no call, it is a person's who takes over.
    fn hear_answer(&mut self, id: &str, values: &Value) {
        self.questions = 0;
        if id.is_empty() {
            return self.hear_human(values);
        }
        if self.escalated_calls.remove(id) {
            // Its user was quicker than the person who was to take over.
            self.escalated = None;
        }
        let Some(call) = self.call_mut(id) else { return };
        match &call.stage {
            Stage::Asking { fills, .. }
                if values.is_null() && (!fills.is_empty() || call.request.doer == Doer::User) =>
            {
                let error = CallError::new("unanswered", DECLINED);
                self.settle(id, vec![Part::text(error.text())], true);
            }
            _ if call.request.doer == Doer::User => {
                self.settle(id, vec![Part::text(said(values))], false);
            }
            Stage::Asking { fills, .. } if !fills.is_empty() => {
                let mut args = call.request.args.clone();
                fill(&mut args, fills, values);
                call.change(args);
                call.stage = Stage::New;
            }
            Stage::Over => {}
            _ => call.stage = Stage::Answered { values: values.clone() },
        }
    }

    /// A person lets a call pass: as it was asked about, or with other arguments, whose digest
    /// counts then.
    fn let_pass(&mut self, id: &str, args: Option<&Value>) {
        let tool = self.call(id).map(|call| call.request.tool.as_str());
        let other = tool.zip(args).and_then(|(tool, args)| self.hash_of(tool, args));
        let Some(call) = self.call_mut(id) else { return };
        if let Some(args) = args {
            call.change(args.clone());
            call.edited = true;
        }
        if let Stage::Pending { hash, .. } = &call.stage {
            let hash = other.unwrap_or_else(|| hash.clone());
            call.allowed = Some(hash.clone());
            call.stage = Stage::Approved { hash };
        }
    }

    /// A person has the answer, or has something to say before it goes on.
    fn hear_human(&mut self, values: &Value) {
        self.escalated = None;
        let about = std::mem::take(&mut self.escalated_calls);
        let open = |call: &&Call| call.stage != Stage::Over;
        let calls = self.calls.iter().filter(open).map(|call| call.request.id.clone());
        if let Some(answer) = values.get("answer").and_then(Value::as_str) {
            let error = CallError::new("human", "A person has answered instead.");
            for id in calls.collect::<Vec<_>>() {
                self.settle(&id, vec![Part::text(error.text())], true);
            }
            let parts = vec![Part::text(answer)];
            self.transcript.push(Message::new(Role::Assistant, parts));
            (self.finish, self.settled_by_human) = (Some(FinishReason::Stop), true);
            self.calls.clear();
            return;
        }
        let calls: Vec<String> = calls.filter(|id| about.contains(id)).collect();
        if calls.is_empty() {
            return self.note(&said(values), Some("repair"));
        }
        let error = CallError::new("human", format!("A person says instead: {}", said(values)));
        for id in calls {
            self.settle(&id, vec![Part::text(error.text())], true);
        }
    }
}

/// Puts what a person has said where arguments were missing. A text that is all of the answer is
/// the one that was asked for.
fn fill(args: &mut Value, missing: &[String], values: &Value) {
    let Some(args) = args.as_object_mut() else { return };
    match (values, missing) {
        (Value::Object(given), _) => {
            let wanted = given.iter().filter(|(name, _)| missing.contains(name));
            args.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
        }
        (value, [only]) => {
            args.insert(only.clone(), value.clone());
        }
        _ => {}
    }
}

/// What a person has said, for the model.
fn said(values: &Value) -> String {
    match values {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.len() == 1 => map.values().next().map(said).unwrap_or_default(),
        other => other.to_string(),
    }
}
