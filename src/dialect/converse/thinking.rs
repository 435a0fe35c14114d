//! How each family of models on Bedrock is asked to think.

use serde_json::json;

use super::family::Thinks;
use super::messages::Turns;
use super::request::Draft;
use crate::canon::{Effort, Thinking};
use crate::dialect::lost;
use crate::dialect::messages::{Thinks as Claude, family};

// === impl Draft ===

impl Draft<'_> {
    pub(super) fn thinking(&mut self, turns: &Turns<'_>) {
        if let Thinks::Claude(thinks) = self.family.thinks {
            return self.claude(thinks, turns);
        }
        let Some(asked) = &self.request.reasoning else { return };
        let off = asked.is_off();
        if !off {
            self.hides(asked);
        }
        let Some(effort) = asked.as_effort() else { return };
        match self.family.thinks {
            // Off is what these are unless asked.
            Thinks::Unasked | Thinks::Qwen if off => {}
            Thinks::Unasked | Thinks::Claude(_) => self.dropped.add("reasoning_effort"),
            Thinks::Nova => self.nova(effort, off),
            Thinks::OpenAi => self.model_field("reasoning_effort", json!(three_steps(effort))),
            Thinks::Qwen => self.model_field("reasoning_config", json!(three_steps(effort))),
        }
    }

    /// Thoughts cannot be hidden here.
    fn hides(&mut self, asked: &Thinking) {
        if asked.visible == Some(false) {
            self.dropped.add(lost::display(self.request));
        }
    }

    /// Claude thinks neither when a tool is forced nor over calls that it made without thinking.
    fn claude(&mut self, thinks: Claude, turns: &Turns<'_>) {
        let forced = self.forces_a_tool();
        let asked = self.request.reasoning.as_ref();
        let wanted = asked.filter(|asked| !asked.is_off());
        if forced && thinks == Claude::Default {
            self.dropped.add_if(wanted.is_some(), "reasoning_effort");
            return self.model_field("thinking", json!({ "type": "disabled" }));
        }
        if asked.is_none() {
            return;
        }
        let Some(wanted) = wanted else { return self.claude_off(thinks) };
        self.hides(wanted);
        match thinks {
            Claude::Never => self.dropped.add("reasoning_effort"),
            _ if forced || turns.thoughtless => self.dropped.add("reasoning_effort"),
            Claude::Budget => self.claude_budget(wanted),
            Claude::Either if wanted.budget.is_some() => self.claude_budget(wanted),
            _ => self.claude_effort(thinks, wanted),
        }
    }

    fn claude_off(&mut self, thinks: Claude) {
        match thinks {
            Claude::Never | Claude::Budget | Claude::Either | Claude::Effort => {}
            Claude::Default => self.model_field("thinking", json!({ "type": "disabled" })),
            Claude::BetweenTools => {
                self.model_field("thinking", json!({ "type": "between_tools" }));
            }
            Claude::Always => {
                self.dropped.add("reasoning_effort");
                self.model_field("output_config", json!({ "effort": "low" }));
            }
        }
    }

    fn claude_budget(&mut self, asked: &Thinking) {
        let limit = self.request.sampling.max_tokens;
        let Some(budget) = family(self.model).budget(asked, limit) else {
            return self.dropped.add("reasoning_effort");
        };
        self.model_field("thinking", json!({ "type": "enabled", "budget_tokens": budget }));
        if self.inference.get("temperature").is_some_and(|it| it.as_f64() != Some(1.0)) {
            self.unset(&["temperature"]);
        }
        if self.inference.get("topP").is_some_and(|it| it.as_f64().is_some_and(|it| it < 0.95)) {
            self.unset(&["topP"]);
        }
        self.unset(&["top_k"]);
    }

    fn claude_effort(&mut self, thinks: Claude, asked: &Thinking) {
        let newest = thinks != Claude::Either;
        // It thinks only if told to, however much it sees fit.
        let word = match asked.as_effort().unwrap_or(Effort::Medium) {
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
