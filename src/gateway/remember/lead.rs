//! Asks for an answer that is to be remembered, in the place of all who want the same. It is asked
//! for in a task of its own, which goes on without its client as long as others wait.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::fill::Filling;
use super::pump::{self, Patience};
use super::{Asking, Made};
use crate::cache::{Entry, Kept, Lead};
use crate::canon::{ChatResponse, Outcome};
use crate::dialect::fold::unfold;
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::ask::Answer;
use crate::gateway::call::Call;
use crate::gateway::flow::Flow;
use crate::gateway::{journey, shadow};

/// An answer on its way into the cache.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Recording {
    /// In our own words, where it came whole.
    pub(in crate::gateway) response: Option<Box<ChatResponse>>,
}

/// Who waits for what the task is answered.
type Client = oneshot::Sender<Made>;

/// Asks, and tells all who follow.
pub(super) async fn lead(
    mut call: Box<Call>,
    question: Box<Question>,
    lead: Lead,
    asking: Asking,
) -> Made {
    call.recording = Some(Box::default());
    let (gateway, house) = (Arc::clone(&call.gateway), Arc::clone(&call.house));
    let surface = call.surface();
    let (client, told) = oneshot::channel();
    gateway.tasks.spawn(Box::pin(ask(call, question, lead, asking, client)));
    told.await.unwrap_or_else(|_| {
        // Whatever became of the call is in its record.
        let error = Error::new(Kind::Internal, "The call came to no end.");
        (Call::open((gateway, house), surface, None, None), Err(error))
    })
}

async fn ask(
    call: Box<Call>,
    question: Box<Question>,
    lead: Lead,
    asking: Asking,
    mut client: Client,
) {
    let gateway = Arc::clone(&call.gateway);
    let mut walk = Box::pin(journey::seek(call, question));
    let waiting = wait(walk.as_mut(), &mut client, &lead);
    let made = tokio::select! {
        made = waiting => made,
        () = gateway.until_end() => None,
    };
    let Some((mut call, answer)) = made else { return };
    let recording = call.recording.take().unwrap_or_default();
    if let Some(target) = call.target() {
        let by = (Arc::clone(&target.provider.name), Arc::clone(&target.model));
        let _ = lead.tape().by.set(by);
    }
    match answer {
        Ok(Answer::Stream(flow)) => stream(call, flow, lead, asking, client).await,
        Ok(Answer::Whole { content_type, body }) => {
            let filling = Filling::of(&call, &asking);
            match recording.response {
                Some(response) => give(&lead, filling, *response, &asking),
                None if !call.surface().is_chat() => give_body(&lead, filling, &body, &call),
                None => {}
            }
            // Before the others can be told that there is nothing more.
            let _ = client.send((call, Ok(Answer::Whole { content_type, body })));
        }
        Err(error) => {
            // Who was refused by limits of their own has learnt nothing about the question.
            let was_asked = !call.attempts().is_empty();
            lead.fail(was_asked.then(|| error.clone()));
            let _ = client.send((call, Err(error)));
        }
        answer @ Ok(Answer::Bytes(_)) => drop(client.send((call, answer))),
    }
}

/// What the walk comes to; `None` when nobody waits for it any more.
async fn wait(
    mut walk: Pin<&mut impl Future<Output = Made>>,
    client: &mut Client,
    lead: &Lead,
) -> Option<Made> {
    tokio::select! {
        made = &mut walk => return Some(made),
        () = client.closed() => {}
    }
    while !lead.close_if_unfollowed() {
        tokio::select! {
            made = &mut walk => return Some(made),
            () = lead.tape().deserted() => {}
        }
    }
    None
}

/// An answer that was there after all, for all who follow.
pub(super) fn repeat(lead: &Lead, entry: &Entry, asking: &Asking) {
    if let Kept::Chat(response) = &entry.kept {
        give(lead, None, response.clone(), asking);
    } else {
        lead.tape().end();
    }
}

/// A whole answer: kept, and told to all who follow.
fn give(lead: &Lead, filling: Option<Filling>, response: ChatResponse, asking: &Asking) {
    let events = unfold(&response);
    if let Some(filling) = filling {
        filling.keep_chat(response);
    }
    lead.tape().push(events, asking.remembering.max_entry);
    lead.tape().end();
}

/// Vectors: who follows finds them among what is kept.
fn give_body(lead: &Lead, filling: Option<Filling>, body: &Bytes, call: &Call) {
    if let Some(filling) = filling {
        filling.keep_body(body, call.record.usage);
    }
    lead.tape().end();
}

async fn stream(call: Box<Call>, mut flow: Box<Flow>, lead: Lead, asking: Asking, client: Client) {
    let filling = Filling::of(&call, &asking);
    let patience = Patience::of(&call, asking.remembering.max_entry);
    let mut pump = None;
    flow.pump(|upstream, recorder| {
        let (made, pumped) = pump::pump(upstream, recorder, lead, filling, patience);
        pump = Some(made);
        pumped
    });
    let unsent = client.send((call, Ok(Answer::Stream(flow)))).err();
    if let Some((mut call, Ok(Answer::Stream(flow)))) = unsent
        && flow.is_followed()
    {
        // Its client has left; what others read on is still on its bill.
        let gateway = Arc::clone(&call.gateway);
        gateway.tasks.spawn(async move {
            shadow::drain_for_others(&mut call, flow).await;
            call.ends(Outcome::ClientClosed);
        });
    }
    if let Some(pump) = pump {
        pump.run().await;
    }
}
