//! What a server has besides tools is asked for without a run: with the limits, guards and record
//! that a call of a tool has.

use std::sync::Arc;

use serde_json::Value;
use tokio::time::Instant;

use super::overheard::{look_at, overhear};
use crate::access::Caller;
use crate::canon::{Outcome, Surface};
use crate::error::{Error, Kind};
use crate::gateway::call::Call;
use crate::gateway::reply::outcome_of;
use crate::gateway::{Gateway, Snapshot, guarding, till};
use crate::tool::mcp::Listener;

/// A question to a server. Whoever drops it has left.
pub struct Consultation {
    call: Box<Call>,
    name: Arc<str>,
    /// What is asked, as the server may hear it.
    pub args: Value,
    since: Instant,
}

/// A request that is answered here. Whoever drops it unanswered has left.
pub struct Attendance(Box<Call>);

impl Gateway {
    /// Counts a request that asks nobody, or for nothing but lists, if there is room for it.
    pub async fn attend(
        self: &Arc<Self>,
        (caller, house): (&Caller, Arc<Snapshot>),
        name: &str,
    ) -> Result<Attendance, Error> {
        let mut call = Call::open((Arc::clone(self), house), Surface::Tool, None, None);
        call.admitted(caller);
        call.record.route = Some(name.into());
        if let Err(error) = till::hold_request(&mut call).await {
            over(&mut call, outcome_of(error.kind), error.status());
            return Err(error);
        }
        call.till.mark_used();
        Ok(Attendance(call))
    }

    /// Lets a caller ask for what is called `name`, if there is room for that.
    pub async fn consult(
        self: &Arc<Self>,
        (caller, house): (&Caller, Arc<Snapshot>),
        name: &str,
        args: Value,
    ) -> Result<Consultation, Error> {
        let mut call = Call::open((Arc::clone(self), house), Surface::Tool, None, None);
        call.admitted(caller);
        call.record.route = Some(format!("tool/{name}").into());
        call.record.tags.insert("tool".into(), name.into());
        let args = match let_ask(&mut call, name, args).await {
            Ok(args) => args,
            Err(error) => {
                over(&mut call, outcome_of(error.kind), error.status());
                return Err(error);
            }
        };
        call.till.mark_used();
        Ok(Consultation { call, name: name.into(), args, since: Instant::now() })
    }
}

async fn let_ask(call: &mut Call, name: &str, args: Value) -> Result<Value, Error> {
    let args = guarding::look_at_arguments(call, name, args).await?;
    till::hold_request(call).await?;
    Ok(args)
}

fn over(call: &mut Call, outcome: Outcome, status: u16) {
    call.record.status = status;
    call.ends(outcome);
}

// === impl Attendance ===

impl Attendance {
    /// It counts as under way until it is dropped.
    pub fn note_answer(&mut self, status: u16) {
        let outcome = if status < 400 { Outcome::Ok } else { Outcome::Refused };
        over(&mut self.0, outcome, status);
    }
}

// === impl Consultation ===

impl Consultation {
    /// What was said, or why nothing was, as the caller may hear it.
    pub async fn heard(
        mut self,
        said: Result<Value, Value>,
    ) -> Result<Result<Value, Value>, Error> {
        let outcome = if said.is_ok() { "ok" } else { "soft_error" };
        self.count(outcome);
        let (mut said, is_answer) = match said {
            Ok(said) => (said, true),
            Err(said) => (said, false),
        };
        if let Err(error) = self.look_at(&mut said).await {
            over(&mut self.call, outcome_of(error.kind), error.status());
            return Err(error);
        }
        let failed = Kind::ToolFailed;
        let (outcome, status) =
            if is_answer { (Outcome::Ok, 200) } else { (outcome_of(failed), failed.status()) };
        over(&mut self.call, outcome, status);
        Ok(if is_answer { Ok(said) } else { Err(said) })
    }

    /// Has the words that guards leave in the place of those of a server.
    pub async fn look_at(&mut self, said: &mut Value) -> Result<(), Error> {
        look_at(&mut self.call, &self.name, said).await.map(|_| ())
    }

    /// What a server is answered, as it may have it.
    pub async fn answered(&self, said: Value) -> Result<Value, Error> {
        guarding::look_at_answer(&self.call, &self.name, said).await
    }

    /// Asks the server for a listener, who hears and is asked meanwhile what guards let pass.
    pub async fn overhear<T>(
        &mut self,
        listener: Listener,
        work: impl AsyncFnOnce(Listener) -> T,
    ) -> T {
        overhear(&mut self.call, &self.name, listener, work).await
    }

    fn count(&self, outcome: &str) {
        let metrics = &self.call.gateway.telemetry.metrics;
        metrics.agent_tool_calls.with_label_values(&["", &*self.name, outcome]).inc();
        let seconds = metrics.agent_tool_seconds.with_label_values(&["", &*self.name]);
        seconds.observe(self.since.elapsed().as_secs_f64());
    }
}
