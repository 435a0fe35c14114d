//! What a client has said, sorted by whom it is for.

use serde_json::Value;

use crate::canon::{ChatRequest, Content, Message, Role, ToolResult};

/// What a client has said, sorted by whom it is for.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// What is new in a session.
    pub(super) fresh: Vec<Message>,
    pub(super) all: Vec<Message>,
    pub(super) results: Vec<ToolResult>,
    pub(super) approvals: Vec<(String, bool, Option<String>)>,
    /// The last thing that its user says.
    pub(super) last: String,
    /// It ends in decisions, and nothing is said behind them.
    pub(super) only_decides: bool,
}

impl Words {
    pub(super) fn of(request: &ChatRequest) -> Self {
        let mut words = Self {
            fresh: Vec::new(),
            all: Vec::new(),
            results: Vec::new(),
            approvals: Vec::new(),
            last: String::new(),
            only_decides: false,
        };
        for message in &request.messages {
            words.take(message);
        }
        // What a model has said is known, and what is behind it is new.
        let since = request.messages.iter().rposition(|message| message.role == Role::Assistant);
        let fresh = request.messages.iter().skip(since.map_or(0, |place| place + 1));
        words.results.retain(|result| {
            fresh.clone().flat_map(|message| &message.parts).any(
                |part| matches!(&part.content, Content::ToolResult(known) if known.id == result.id),
            )
        });
        words.fresh =
            words.all.iter().rev().take_while(|it| it.role == Role::User).cloned().collect();
        words.fresh.reverse();
        words.last = words.fresh.last().map(Message::text).unwrap_or_default();
        let last = request.messages.last().and_then(|message| message.parts.last());
        words.only_decides = last.is_some_and(
            |part| matches!(&part.content, Content::Foreign(it) if approval(&it.value).is_some()),
        );
        words
    }

    /// What is said beside decisions and results.
    pub(super) fn beside(&self) -> Vec<Message> {
        let mut messages = self.fresh.clone();
        for message in &mut messages {
            message.parts.retain(|part| !matches!(part.content, Content::ToolResult(_)));
        }
        messages.retain(|message| !message.parts.is_empty());
        messages
    }

    fn take(&mut self, message: &Message) {
        let mut kept = message.clone();
        kept.parts.retain(|part| match &part.content {
            Content::Foreign(foreign) => {
                self.approvals.extend(approval(&foreign.value));
                false
            }
            Content::ToolResult(result) => {
                self.results.push(result.clone());
                true
            }
            _ => true,
        });
        if !kept.parts.is_empty() {
            self.all.push(kept);
        }
    }
}

/// What the responses API calls an answer to a question for approval.
fn approval(value: &Value) -> Option<(String, bool, Option<String>)> {
    if value.get("type")?.as_str()? != "mcp_approval_response" {
        return None;
    }
    let id = value.get("approval_request_id")?.as_str()?.to_owned();
    let reason = value.get("reason").and_then(Value::as_str).map(str::to_owned);
    Some((id, value.get("approve")?.as_bool()?, reason))
}
