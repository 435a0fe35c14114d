//! What people are asked: to let a call pass, to answer, to take over.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::actor::Actor;
use super::definition::ToolDefinition;
use super::event::{CallError, Event, Requested};
use super::journal::{Beside, Halt, now};
use super::run::Call;
use super::voice;
use crate::canon::{RunId, StopReason};
use crate::config::Approval;
use crate::store::hex;
use crate::store::runs::NewApproval;
use crate::tool::{self, Tool};

/// Asked in vain so often, a person takes over.
pub(super) const MOST_QUESTIONS: u32 = 2;
/// Why it does.
pub(super) const IN_VAIN: &str = "its user was asked, and has not answered";
/// How the id of a question to a user begins.
const QUESTION: &str = "inp_";

impl Actor {
    pub(super) async fn ask_user(&self, request: &Requested) -> Result<(), Halt> {
        let text = |name: &str| request.args.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(question) = text("question") else {
            let error = CallError::new("invalid_arguments", "`question` is missing.");
            return self.refuse(request, error, None).await;
        };
        if self.journal.run().await.questions >= MOST_QUESTIONS {
            return self.escalate(Some(&request.id), IN_VAIN.to_owned()).await;
        }
        let schema = request.args.get("schema").cloned();
        self.ask_for(&request.id, (question, schema), Vec::new()).await
    }

    /// What a call lacks that its user could say: the names of the arguments, and a form for them.
    /// Only agents that may ask their user do so.
    pub(super) async fn missing(&self, args: &Value, tool: &Tool) -> Option<(Vec<String>, Value)> {
        let given = args.as_object()?;
        let run = self.journal.run().await;
        if !run.member()?.tools.iter().any(|tool| tool.asks_user) {
            return None;
        }
        drop(run);
        let required = tool.input.get("required")?.as_array()?.iter().filter_map(Value::as_str);
        let missing: Vec<String> =
            required.filter(|name| !given.contains_key(*name)).map(str::to_owned).collect();
        let known = tool.input.get("properties");
        let property = |name: &String| {
            let schema = known.and_then(|known| known.get(name)).cloned();
            (name.clone(), schema.unwrap_or_else(|| json!({})))
        };
        let properties: serde_json::Map<_, _> = missing.iter().map(property).collect();
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": missing,
            "additionalProperties": false,
        });
        (!missing.is_empty()).then_some((missing, schema))
    }

    /// Asks for arguments that a model has left out.
    pub(super) async fn ask_for_missing(
        &self,
        request: &Requested,
        missing: Vec<String>,
        schema: Value,
    ) -> Result<(), Halt> {
        if self.journal.run().await.questions >= MOST_QUESTIONS {
            return self.escalate(Some(&request.id), IN_VAIN.to_owned()).await;
        }
        let described = |name: &String| {
            let about = schema["properties"][name]["description"].as_str();
            about.map_or_else(|| name.clone(), |about| format!("{name} ({about})"))
        };
        let names: Vec<String> = missing.iter().map(described).collect();
        let question = format!("To go on I need to know: {}.", names.join(", "));
        self.ask_for(&request.id, (question, Some(schema)), missing).await
    }

    /// Asks whoever is behind the run.
    pub(super) async fn ask_for(
        &self,
        id: &str,
        (message, schema): (String, Option<Value>),
        fills: Vec<String>,
    ) -> Result<(), Halt> {
        let asked = Event::InputAsked {
            request: format!("{QUESTION}{}", RunId::new().simple()),
            id: id.to_owned(),
            message,
            schema,
            expires_at: self.patience(),
            fills,
        };
        self.journal.intend(vec![asked]).await
    }

    pub(super) async fn unanswered(&self, id: &str) -> Result<(), Halt> {
        let error = CallError::new("unanswered", "Nobody has answered in time.");
        let (id, at) = (id.to_owned(), now());
        let failed = Event::Failed { id, error, attempts: 1, at, wire: None };
        self.journal.append(vec![failed]).await
    }

    /// Until when people are waited for.
    fn patience(&self) -> u64 {
        now().saturating_add(millis(self.definition.limits.wait))
    }

    pub(super) async fn escalate(&self, id: Option<&str>, reason: String) -> Result<(), Halt> {
        self.counts_escalation("agent");
        self.journal.intend(vec![self.escalated(id, reason)]).await
    }

    pub(super) fn escalated(&self, id: Option<&str>, reason: String) -> Event {
        let expires_at = Some(self.patience());
        Event::Escalated { reason, id: id.map(str::to_owned), expires_at }
    }

    /// A call is made, and somebody is to look at it later.
    pub(super) async fn review(&self, id: &str, confidence: Option<u32>) -> Result<(), Halt> {
        let id = Some(id.to_owned());
        self.journal.append(vec![Event::Review { id, confidence }]).await
    }

    /// Something that the run needs is not what it was when the run began: a person is to bring it
    /// back, and has the run go on.
    pub(super) async fn escalate_unavailable(
        &self,
        id: Option<&str>,
        what: &str,
    ) -> Result<(), Halt> {
        let reason = StopReason::DefinitionUnavailable.name();
        let reason = format!("{reason}: `{what}` is not what it was when the run began");
        self.escalate(id, reason).await
    }

    pub(super) async fn ask_approval(
        &self,
        request: &Requested,
        reason: String,
        approval: &Approval,
    ) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let Some(definition) = run.member().and_then(|member| member.tool(&request.tool)).cloned()
        else {
            return Ok(());
        };
        drop(run);
        let hash = approval_hash(&definition, &request.args);
        // A run that goes on from another one asks for itself.
        let asked = format!("{} {} {hash}", self.journal.id, request.key);
        let id = format!("mcpr_{}", &hex(&Sha256::digest(asked))[..32]);
        let expires_at = now().saturating_add(millis(approval.expires));
        let row = NewApproval {
            id: id.clone(),
            call: request.id.clone(),
            tool: request.tool.clone(),
            args: tool::canonical(&request.args),
            hash: hash.clone(),
            roles: approval.roles.clone(),
            reason: reason.clone(),
            expires_at,
        };
        let asked = Event::ApprovalAsked {
            id: request.id.clone(),
            approval: id.clone(),
            hash,
            roles: approval.roles.clone(),
            reason,
            expires_at,
        };
        let beside = Beside { approvals: vec![row], intent: true, ..Beside::default() };
        self.journal.append_with(vec![asked], beside).await?;
        let item = voice::mcp_approval(&id, &request.alias, &request.args);
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    /// Whether a person has let this tool pass for the rest of the run; the call is noted with that
    /// decision then. What the model itself is not sure of is asked for nevertheless.
    pub(super) async fn approve_remembered(&self, request: &Requested) -> Result<bool, Halt> {
        let known = self.journal.run().await.remembered.get(&request.tool).cloned();
        let Some((approval, by)) = known else { return Ok(false) };
        self.counts_approval(&request.tool, "remembered");
        let (id, args, remember) = (request.id.clone(), None, false);
        let passed = Event::Approved { id, approval, by, args, remember, at: now() };
        self.journal.append(vec![passed]).await.map(|()| true)
    }

    /// Nobody has decided in time.
    pub(super) async fn expire(&self, call: &Call, approval: &str) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let passes = run
            .member()
            .and_then(|member| member.tool(&call.request.tool)?.approval.as_ref())
            .is_some_and(|approval| approval.passes_unanswered);
        drop(run);
        let (id, approval) = (call.request.id.clone(), approval.to_owned());
        let by = "expiry".to_owned();
        let decision = if passes { "approved" } else { "expired" };
        self.counts_approval(&call.request.tool, decision);
        let event = if passes {
            Event::Approved { id, approval, by, args: None, remember: false, at: now() }
        } else {
            Event::Rejected { id, approval, by, comment: None, expired: true }
        };
        self.journal.append(vec![event]).await
    }

    pub(super) fn counts_escalation(&self, reason: &str) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        metrics.agent_escalations.with_label_values(&[agent, reason]).inc();
    }

    pub(super) fn counts_approval(&self, tool: &str, decision: &str) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        metrics.agent_approvals.with_label_values(&[agent, tool, decision]).inc();
    }
}

/// What somebody allows: this tool, in this version, with these arguments.
pub(super) fn approval_hash(definition: &ToolDefinition, args: &Value) -> String {
    let text = format!(
        "{}\n{}\n{}\n{}",
        definition.name,
        definition.version,
        tool::canonical(&definition.input),
        tool::canonical(args)
    );
    hex(&Sha256::digest(text.as_bytes()))
}

pub(super) fn usual_approval() -> Approval {
    Approval {
        when: None,
        roles: Vec::new(),
        expires: Duration::from_hours(24),
        passes_unanswered: false,
        tools: None,
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run::tests::tool;
    use crate::canon::Effect;

    fn refund() -> ToolDefinition {
        let input = json!({"type": "object", "properties": {"id": {}, "cents": {}}});
        ToolDefinition { input, ..tool("refund", Effect::Once) }
    }

    #[test]
    fn an_approval_is_of_one_call_of_one_tool_in_whatever_order_it_is_written() {
        let args = json!({"id": "1", "how": {"cents": 5, "to": ["ann", "bob"]}});
        let hash = approval_hash(&refund(), &args);
        let turned = json!({"how": {"to": ["ann", "bob"], "cents": 5.0}, "id": "1"});
        assert_eq!(approval_hash(&refund(), &turned), hash);
        let input = json!({"properties": {"cents": {}, "id": {}}, "type": "object"});
        assert_eq!(approval_hash(&ToolDefinition { input, ..refund() }, &args), hash);

        let input = json!({"type": "object", "properties": {"id": {}, "cents": {}, "to": {}}});
        for other in [
            ToolDefinition { name: "refunds".to_owned(), ..refund() },
            ToolDefinition { version: "2".to_owned(), ..refund() },
            ToolDefinition { input, ..refund() },
            // What one ends with, the other begins with.
            ToolDefinition { name: "refund1".to_owned(), version: String::new(), ..refund() },
        ] {
            assert_ne!(approval_hash(&other, &args), hash, "{other:?}");
        }
        for other in [
            json!({"id": "2", "how": {"cents": 5, "to": ["ann", "bob"]}}),
            json!({"id": 1, "how": {"cents": 5, "to": ["ann", "bob"]}}),
            json!({"id": "1", "how": {"cents": 6, "to": ["ann", "bob"]}}),
            json!({"id": "1", "how": {"cents": 5, "to": ["bob", "ann"]}}),
            json!({"id": "1", "how": {"cents": 5, "to": ["ann", "bob"]}, "more": null}),
            json!({"id": "1"}),
        ] {
            assert_ne!(approval_hash(&refund(), &other), hash, "{other}");
        }
    }
}
