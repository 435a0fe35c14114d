//! What is to be done, written down before the first step, for agents that work by a plan.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use serde_json::Value;

use super::actor::Actor;
use super::aside::{Aside, Said};
use super::context::{self, Cut, Room};
use super::counts::Purpose;
use super::definition::Member;
use super::event::{ASIDE, Event};
use super::journal::{Beside, Halt, now};
use super::run::{Run, Step};
use crate::canon::{ChatRequest, Message, Part, Role, Usage};

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
        if !self.is_fresh().await {
            self.tell_lost().await?;
        }
        let mut plan = None;
        for _ in 0..TRIES {
            if let ControlFlow::Break(made) = self.planned().await? {
                plan = made;
                break;
            }
        }
        if self.journal.run().await.cancel.is_some() {
            return Ok(());
        }
        let none = || Event::Planned { steps: Vec::new(), usage: Usage::default(), cost: None };
        let plan = plan.unwrap_or_else(none);
        if let Event::Planned { steps, .. } = &plan {
            self.live.voice.aside(format!("plan of {} steps", steps.len()));
        }
        self.journal.append(vec![plan]).await
    }

    /// The plan that a model makes when it is asked for one: breaks off with it, or without one
    /// where nobody can be asked again.
    async fn planned(&self) -> Result<ControlFlow<Option<Event>>, Halt> {
        let Some(asked) = self.plan_asked_for().await else {
            return Ok(ControlFlow::Break(None));
        };
        match self.ask_aside(asked).await? {
            Some(said) => self.take_plan(said).await,
            None => Ok(ControlFlow::Break(None)),
        }
    }

    async fn take_plan(
        &self,
        (answer, (receipt, held)): Said,
    ) -> Result<ControlFlow<Option<Event>>, Halt> {
        let said = answer.map(|answer| {
            let parts = answer.choices.into_iter().next().map(|choice| choice.parts);
            let parts = parts.unwrap_or_default();
            read(&parts.iter().filter_map(Part::as_text).collect::<String>())
        });
        let (code, message) = match said {
            Ok(steps) if !steps.is_empty() => {
                let (usage, cost) = (receipt.usage, receipt.cost.map(crate::canon::Money::nanos));
                held.settle(usage, cost);
                self.counts_answer(Purpose::Plan, &receipt, "ok");
                return Ok(ControlFlow::Break(Some(Event::Planned { steps, usage, cost })));
            }
            Ok(_) => ("invalid_output", "The answer is no list of steps.".into()),
            Err(error) => (error.kind.code(), error.message),
        };
        self.broke(ASIDE, (code, &message), (receipt, held)).await?;
        Ok(ControlFlow::Continue(()))
    }

    /// Begins the run. One that works by a plan intends with that to ask for it, so that its plan
    /// is the first that comes of it.
    pub(super) async fn begin(&self) -> Result<(), Halt> {
        let at = now();
        let is_planned = self.journal.run().await.next(at) == Step::Plan;
        let asked = if is_planned { self.plan_asked_for().await } else { None };
        let asks = asked.map(|asked| asked.asking);
        let beside = Beside { intent: asks.is_some(), ..Beside::default() };
        self.journal.append_with(vec![Event::Started { at, asks }], beside).await
    }

    /// Whoever took it up first is still at it: what was intended then is done now.
    async fn is_fresh(&self) -> bool {
        self.journal.run().await.stretch.is_some_and(|stretch| stretch.before.is_none())
    }

    /// The question for a plan; nothing where there is nobody to ask or nothing to pay with.
    async fn plan_asked_for(&self) -> Option<Aside> {
        let run = self.journal.run().await;
        let member = run.member()?;
        let (terms, known) = (&member.context, self.known_of(&member.route));
        let window = [terms.window, known.window].into_iter().flatten().min();
        let room = Room::of(terms, window, None);
        let withheld = self.withheld(member);
        let mut cuts = Cut::ALL.into_iter().map(|cut| {
            let said = context::shown(&run, cut, room.most);
            let request = question(&run, member, &withheld, said);
            let forecast = self.staff.gateway.forecast(&self.caller, &request);
            (cut, request, forecast)
        });
        let (_, request, forecast) =
            cuts.find(|(cut, _, forecast)| cut.fits(room, forecast.input_tokens))?;
        self.aside(request, forecast, LENGTH, false)
    }
}

/// `said`: what is shown of the conversation.
fn question(run: &Run, member: &Member, withheld: &[&str], said: Vec<Message>) -> ChatRequest {
    let mut text = format!(
        "[Before you begin: write down what you are going to do, as a JSON list of at most {MOST} \
         short sentences, one a step, and nothing else. Do nothing yet."
    );
    for tool in member.tools.iter().filter(|tool| !withheld.contains(&&*tool.alias)) {
        let _ = write!(text, "\nThere is the tool `{}`: {}", tool.alias, tool.description);
    }
    text.push(']');
    let mut messages = Vec::with_capacity(said.len() + 2);
    if !member.prompt.is_empty() {
        messages.push(Message::new(Role::System, vec![Part::text(member.prompt.clone())]));
    }
    messages.extend(said);
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
