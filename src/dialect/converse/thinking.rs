//! How each family of models on Bedrock is asked to think.

use serde_json::json;

use super::family::Thinks;
use super::messages::Turns;
use super::request::Draft;
use crate::canon::{Effort, Thinking};
use crate::dialect::lost;

/// Anthropic's least budget of thought.
const LEAST_BUDGET: u64 = 1024;

// === impl Draft ===

impl Draft<'_> {
    pub(super) fn thinking(&mut self, turns: &Turns<'_>) {
        let Some(asked) = &self.request.reasoning else { return };
        let off = asked.effort == Some(Effort::None) || asked.budget == Some(0);
        let effort = asked.effort.or_else(|| asked.budget.map(Effort::of_budget));
        if asked.visible == Some(false) && !off {
            self.dropped.add(lost::display(self.request));
        }
        let claude =
            matches!(self.family.thinks, Thinks::Budget | Thinks::BudgetOrEffort | Thinks::Effort);
        // Claude thinks only if told to, however much it sees fit.
        let effort = effort.or_else(|| claude.then_some(Effort::Medium));
        let Some(effort) = effort else { return };
        match self.family.thinks {
            // Off is what these are unless asked.
            Thinks::Unasked | Thinks::Budget | Thinks::BudgetOrEffort | Thinks::Qwen if off => {}
            Thinks::Unasked => self.dropped.add("reasoning_effort"),
            // These think or not as they see fit; the least they can be told is to do it seldom.
            Thinks::Effort if off => self.claude_effort(Effort::Low, asked),
            Thinks::Budget | Thinks::BudgetOrEffort | Thinks::Effort => {
                self.claude(effort, asked, turns);
            }
            Thinks::Nova => self.nova(effort, off),
            Thinks::OpenAi => self.model_field("reasoning_effort", json!(three_steps(effort))),
            Thinks::Qwen => self.model_field("reasoning_config", json!(three_steps(effort))),
        }
    }

    /// Claude thinks neither when a tool is forced nor over calls that it made without thinking.
    fn claude(&mut self, effort: Effort, asked: &Thinking, turns: &Turns<'_>) {
        if self.forces_a_tool() || turns.thoughtless {
            return self.dropped.add("reasoning_effort");
        }
        let by_budget = self.family.thinks == Thinks::Budget
            || (self.family.thinks == Thinks::BudgetOrEffort && asked.budget.is_some());
        if !by_budget {
            return self.claude_effort(effort, asked);
        }
        let wanted = asked.budget.unwrap_or_else(|| effort.budget()).max(LEAST_BUDGET);
        // The answer needs room behind the thoughts.
        let room = self.request.sampling.max_tokens.map_or(u64::MAX, |most| most.saturating_sub(1));
        if room < LEAST_BUDGET {
            return self.dropped.add("reasoning_effort");
        }
        let budget = wanted.min(room);
        self.model_field("thinking", json!({ "type": "enabled", "budget_tokens": budget }));
        if self.inference.get("temperature").is_some_and(|it| it.as_f64() != Some(1.0)) {
            self.unset(&["temperature"]);
        }
        if self.inference.get("topP").is_some_and(|it| it.as_f64().is_some_and(|it| it < 0.95)) {
            self.unset(&["topP"]);
        }
        self.unset(&["top_k"]);
    }

    fn claude_effort(&mut self, effort: Effort, asked: &Thinking) {
        let newest = self.family.thinks == Thinks::Effort;
        let word = match effort {
            Effort::None | Effort::Minimal | Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::Highest if newest => "xhigh",
            Effort::High | Effort::Highest => "high",
            Effort::Max => "max",
        };
        let mut thinking = json!({ "type": "adaptive" });
        // The newest say nothing of their thoughts unless asked.
        if newest && asked.visible == Some(true) {
            thinking["display"] = json!("summarized");
        }
        self.model_field("thinking", thinking);
        self.model_field("output_config", json!({ "effort": word }));
        self.unset(&["temperature", "topP", "top_k"]);
    }

    fn nova(&mut self, effort: Effort, off: bool) {
        if off {
            return self.model_field("reasoningConfig", json!({ "type": "disabled" }));
        }
        let word = three_steps(effort);
        let config = json!({ "type": "enabled", "maxReasoningEffort": word });
        self.model_field("reasoningConfig", config);
        if word == "high" {
            self.unset(&["temperature", "topP", "maxTokens"]);
        }
    }
}

fn three_steps(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::Highest | Effort::Max => "high",
    }
}
