//! How a target is told to think, and what of the question gives way to it.

use serde_json::{Value, json};

use super::Dropped;
use crate::canon::{
    ChatRequest, Content, Dialect, Effort, Message, Part, Role, Thinking, ToolChoice,
};
use crate::dialect::messages::models::{Family, Thinks};

/// What is said of thinking in a body.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The `thinking` object.
    pub(super) thinking: Option<Value>,
    /// `output_config.effort`.
    pub(super) effort: Option<&'static str>,
    /// Thinking is asked for, so the rules for it hold.
    pub(super) on: bool,
}

/// Decides. A tool that must be called comes before thinking, which only makes answers better: the
/// API refuses both together.
pub(super) fn plan(request: &ChatRequest, family: &Family, dropped: &mut Dropped) -> Plan {
    let forced = is_forced(request.tool_choice.as_ref()) && !request.tools.is_empty();
    let asked = request.reasoning.as_ref();
    if forced && family.thinking == Thinks::Default {
        dropped.add_if(asked.is_some_and(|asked| !asked.is_off()), "reasoning_effort");
        return Plan { thinking: Some(json!({ "type": "disabled" })), ..Plan::default() };
    }
    let Some(asked) = asked else { return Plan::default() };
    if asked.is_off() {
        return off(family, dropped);
    }
    match family.thinking {
        _ if forced && family.forced => refuse(dropped),
        Thinks::Never => refuse(dropped),
        Thinks::Budget => by_budget(request, asked, family, dropped),
        Thinks::Either if asked.budget.is_some() => by_budget(request, asked, family, dropped),
        _ => by_effort(asked, family),
    }
}

pub(super) fn is_forced(choice: Option<&ToolChoice>) -> bool {
    matches!(
        choice,
        Some(
            ToolChoice::Required | ToolChoice::Named(_) | ToolChoice::Among { required: true, .. }
        )
    )
}

fn refuse(dropped: &mut Dropped) -> Plan {
    dropped.add("reasoning_effort");
    Plan::default()
}

/// No thinking is wanted. Most families do none unless asked to.
fn off(family: &Family, dropped: &mut Dropped) -> Plan {
    match family.thinking {
        Thinks::Default => {
            Plan { thinking: Some(json!({ "type": "disabled" })), ..Plan::default() }
        }
        Thinks::BetweenTools => {
            Plan { thinking: Some(json!({ "type": "between_tools" })), ..Plan::default() }
        }
        Thinks::Always => {
            dropped.add("reasoning_effort");
            Plan { effort: Some("low"), ..Plan::default() }
        }
        Thinks::Never | Thinks::Budget | Thinks::Either | Thinks::Effort => Plan::default(),
    }
}

fn by_budget(
    request: &ChatRequest,
    asked: &Thinking,
    family: &Family,
    dropped: &mut Dropped,
) -> Plan {
    let budget = family.budget(asked, request.sampling.max_tokens);
    let Some(budget) = budget.filter(|_| !lacks_its_thoughts(&request.messages)) else {
        return refuse(dropped);
    };
    let mut thinking = json!({ "type": "enabled", "budget_tokens": budget });
    if asked.visible == Some(false) {
        thinking["display"] = json!("omitted");
    }
    Plan { thinking: Some(thinking), effort: None, on: true }
}

fn by_effort(asked: &Thinking, family: &Family) -> Plan {
    let mut thinking = json!({ "type": "adaptive" });
    if let Some(visible) = asked.visible {
        thinking["display"] = json!(if visible { "summarized" } else { "omitted" });
    }
    let effort = asked.as_effort().map(|effort| match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        // The first family that is told by effort does not know `xhigh`.
        Effort::Highest if family.thinking != Thinks::Either => "xhigh",
        Effort::High | Effort::Highest => "high",
        Effort::Max => "max",
    });
    Plan { thinking: Some(thinking), effort, on: true }
}

/// Whether the turn at hand called tools without the thoughts that led there: with a budget, the
/// API refuses such a turn. A client that cannot carry thoughts leaves them out.
fn lacks_its_thoughts(messages: &[Message]) -> bool {
    let is_thought = |part: &Part| {
        matches!(part.content, Content::Reasoning(_))
            && part.opaque_for(Dialect::Messages).is_some()
    };
    messages
        .iter()
        .rev()
        .take_while(|message| message.role != Role::User)
        .filter(|message| message.role == Role::Assistant)
        .any(|message| {
            let calls =
                message.parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
            calls && !message.parts.first().is_some_and(is_thought)
        })
}
