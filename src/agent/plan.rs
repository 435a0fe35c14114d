//! What is to be done, written down before the first step, for agents that work by a plan.

use std::fmt::Write as _;

use serde_json::Value;

use super::actor::{Actor, Outcome, until};
use super::ask::Turning;
use super::definition::Member;
use super::event::Event;
use super::journal::Halt;
use super::run::Run;
use crate::canon::{ChatRequest, Message, Part, Role, Usage};
use crate::gateway::agents::Receipt;

/// Steps of a plan, at most.
const MOST: usize = 20;
/// Tokens of it.
const LENGTH: u64 = 1000;
/// So often it is asked for.
const TRIES: u32 = 2;

impl Actor {
    /// Has the model write down what it is going to do. Whoever cannot goes on without a plan: what
    /// is wrong with the model shows in its first step.
    pub(super) async fn plan(&self) -> Result<(), Halt> {
        let (mut usage, mut cost) = (Usage::default(), None::<u64>);
        let mut steps = Vec::new();
        for _ in 0..TRIES {
            let Some((text, receipt)) = self.planned().await? else { break };
            usage += receipt.usage;
            if let Some(own) = receipt.cost {
                cost = Some(cost.unwrap_or_default() + own.nanos());
            }
            steps = read(&text);
            if !steps.is_empty() {
                break;
            }
        }
        if self.journal.run().await.cancel.is_some() {
            return Ok(());
        }
        self.live.voice.aside(format!("plan of {} steps", steps.len()));
        self.journal.append(vec![Event::Planned { steps, usage, cost }]).await
    }

    /// What a model says when it is asked for a plan; `None` where it cannot be asked.
    async fn planned(&self) -> Result<Option<(String, Receipt)>, Halt> {
        let run = self.journal.run().await;
        let Some(mut request) = run.member().map(|member| question(&run, member)) else {
            return Ok(None);
        };
        let until = until(&run, self.definition.limits.step_timeout);
        drop(run);
        let forecast = self.staff.gateway.forecast(&self.caller, &request);
        let Ok(held) = self.purse.reserve(&forecast, LENGTH) else { return Ok(None) };
        request.sampling.max_tokens = Some(held.max_tokens);
        let turn = self.turn(request, until, None).await;
        let mut deaf = |_: &crate::canon::Event| {};
        let work: Turning<'_> = Box::pin(self.staff.gateway.turn(turn, &mut deaf));
        let Outcome::Done((answer, receipt)) = self.unless_ended(work, until).await? else {
            return Ok(None);
        };
        held.settle(receipt.usage, receipt.cost.map(crate::canon::Money::nanos));
        let parts = answer.ok().and_then(|it| it.choices.into_iter().next()).map(|it| it.parts);
        let text = parts.unwrap_or_default().iter().filter_map(Part::as_text).collect();
        Ok(Some((text, receipt)))
    }
}

fn question(run: &Run, member: &Member) -> ChatRequest {
    let mut text = format!(
        "[Before you begin: write down what you are going to do, as a JSON list of at most {MOST} \
         short sentences, one a step, and nothing else. Do nothing yet."
    );
    for tool in &member.tools {
        let _ = write!(text, "\nThere is the tool `{}`: {}", tool.alias, tool.description);
    }
    text.push(']');
    let mut messages = Vec::with_capacity(run.transcript.len() + 2);
    if !member.prompt.is_empty() {
        messages.push(Message::new(Role::System, vec![Part::text(member.prompt.clone())]));
    }
    messages.extend(run.transcript.iter().cloned());
    messages.push(Message::new(Role::User, vec![Part::text(text)]));
    ChatRequest {
        model: member.route.clone(),
        messages,
        user: run.created.user.clone(),
        include_usage: true,
        ..ChatRequest::default()
    }
}

/// The list in what a model says, whatever it says around it.
fn read(text: &str) -> Vec<String> {
    let (Some(from), Some(to)) = (text.find('['), text.rfind(']')) else { return Vec::new() };
    let list = text.get(from..=to).and_then(|list| serde_json::from_str::<Vec<Value>>(list).ok());
    let step = |item: Value| match item {
        Value::String(text) => Some(text),
        Value::Object(map) => map.values().find_map(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let steps = list.unwrap_or_default().into_iter().filter_map(step);
    steps.map(|step| step.trim().to_owned()).filter(|step| !step.is_empty()).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_list_whatever_is_said_around_it() {
        let plan = ["Look.".to_owned(), "Answer.".to_owned()];
        for text in [
            r#"["Look.", "Answer."]"#,
            "Here it is:\n```json\n[\"Look.\", \" Answer. \", \"\"]\n```",
            r#"[{"step": "Look."}, {"step": "Answer."}, 7]"#,
            r#"{"steps": ["Look.", "Answer."]}"#,
        ] {
            assert_eq!(read(text), plan, "{text}");
        }
        for text in ["", "I do not plan.", "] [", "[1, 2]", "[\"Look.\""] {
            assert_eq!(read(text), [""; 0], "{text}");
        }
    }
}
