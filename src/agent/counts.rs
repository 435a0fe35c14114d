//! What is counted of the calls that a run makes.

use tokio::time::Instant;

use super::actor::Actor;
use super::event::PLAN;
use crate::gateway::agents::Receipt;

/// What a model is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A turn.
    Reason,
    Plan,
    /// Older turns, told in short.
    Summarise,
}

// === impl Purpose ===

impl Purpose {
    /// Of the call of this number.
    pub(super) fn of(call: u32) -> Self {
        if call == PLAN { Self::Plan } else { Self::Reason }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Plan => "plan",
            Self::Summarise => "summarise",
        }
    }
}

impl Actor {
    /// A step took this long for something that is the gateway's own work.
    pub(super) fn took(&self, phase: &str, since: Instant) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let seconds = since.elapsed().as_secs_f64();
        metrics.agent_step_overhead.with_label_values(&[phase]).observe(seconds);
    }

    /// Counts a call of a model. `purpose`: what it was made for.
    pub(super) fn counts_answer(&self, purpose: Purpose, receipt: &Receipt, outcome: &str) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        let model = receipt.model.as_deref().unwrap_or("none");
        let route = receipt.route.as_deref().unwrap_or_default();
        let labels = [agent, route, model, purpose.name(), outcome];
        metrics.agent_model_calls.with_label_values(&labels).inc();
        if receipt.id.is_some() {
            let took = receipt.took.as_secs_f64();
            metrics.agent_model_seconds.with_label_values(&labels).observe(took);
        }
        let (usage, task) = (&receipt.usage, receipt.task.unwrap_or_default());
        for (class, tokens) in [
            ("input", usage.input_total().saturating_sub(usage.cache_read)),
            ("cached", usage.cache_read),
            ("output", usage.output.saturating_sub(usage.reasoning)),
            ("reasoning", usage.reasoning),
        ] {
            if tokens > 0 {
                let labels = [agent, model, class, task];
                metrics.agent_tokens.with_label_values(&labels).inc_by(tokens);
            }
        }
        if let Some(cost) = receipt.cost {
            // Those made at run time are without bound.
            let key = self.caller.key();
            let is_written = self.staff.gateway.snapshot().config.keys.contains_key(&**key);
            let key = if is_written { key } else { "other" };
            metrics.agent_cost.with_label_values(&[agent, model, key]).inc_by(cost.usd());
        }
    }
}
