//! What a tool or its server says, while it works and at the end, past the guards of the call; and
//! what it is answered.

use std::pin::pin;

use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::canon::Part;
use crate::error::{Error, Kind};
use crate::gateway::call::Call;
use crate::gateway::guarding;
use crate::tool::mcp::{Aside, Listener, each_text};

/// Puts the words in the place of a value's texts that guards leave of them. Says whether any are
/// others now.
pub(super) async fn look_at(call: &mut Call, name: &str, said: &mut Value) -> Result<bool, Error> {
    if !guarding::reads_results(call) {
        return Ok(false);
    }
    let mut words = Vec::new();
    each_text(said, &mut |text| words.push(Part::text(text.clone())));
    let count = words.len();
    let (words, changed) = guarding::look_at_result(call, name, words).await?;
    if !changed {
        return Ok(false);
    }
    if words.len() != count {
        let message = "A guard has left something else of the answer than its texts.";
        return Err(Error::new(Kind::GuardBlocked, message));
    }
    let mut words = words.iter().map(|part| part.as_text().unwrap_or_default());
    each_text(said, &mut |text| {
        words.next().unwrap_or_default().clone_into(text);
    });
    Ok(true)
}

/// Has what the listener brings along as answers be what guards of arguments leave of it.
pub(super) async fn look_at_resumed(
    call: &Call,
    name: &str,
    listener: &mut Listener,
) -> Result<(), Error> {
    let resumed = listener.resumes.as_mut();
    let Some(responses) = resumed.and_then(|resumed| resumed.responses.as_mut()) else {
        return Ok(());
    };
    let seen = guarding::look_at_answer(call, name, json!(responses)).await?;
    let misshapen = "What a guard has left of the answers is none any more.";
    *responses =
        serde_json::from_value(seen).map_err(|_| Error::new(Kind::GuardBlocked, misshapen))?;
    Ok(())
}

/// Does some work of a tool's for a listener, who hears meanwhile what guards let pass, and is
/// asked that; and what it answers passes them too.
pub(super) async fn overhear<T>(
    call: &mut Call,
    name: &str,
    listener: Listener,
    work: impl AsyncFnOnce(Listener) -> T,
) -> T {
    if call.guarding.is_none() {
        return work(listener).await;
    }
    let (inner, mut asides) = listener.before();
    let mut work = pin!(work(inner));
    let done = loop {
        let aside = tokio::select! {
            // What was said before the answer is looked at before it.
            biased;
            Some(aside) = asides.recv() => aside,
            done = &mut work => break done,
        };
        // The work rests meanwhile, so that it never ends in the middle of a look.
        let Some(aside) = seen(&mut *call, name, aside).await else { continue };
        tokio::select! {
            () = bring(call, name, aside, &listener) => {}
            done = &mut work => break done,
        }
    };
    rest(call, name, &mut asides, &listener).await;
    done
}

/// What was said last.
async fn rest(call: &mut Call, name: &str, asides: &mut Receiver<Aside>, listener: &Listener) {
    while let Ok(aside) = asides.try_recv() {
        if let (true, Some(aside)) = (aside.is_told(), seen(&mut *call, name, aside).await) {
            bring(call, name, aside, listener).await;
        }
    }
}

/// Has the listener hear what was said, or answer it in words that the server may have.
async fn bring(call: &Call, name: &str, aside: Aside, listener: &Listener) {
    let look = async |said| {
        let seen = guarding::look_at_answer(call, name, said).await;
        seen.map_err(|error| error.message.into_owned())
    };
    listener.hear(aside, look).await;
}

/// The same in the words that guards leave; nothing, where they let nothing pass.
async fn seen(call: &mut Call, name: &str, aside: Aside) -> Option<Aside> {
    let mut said = aside.said();
    match look_at(call, name, &mut said).await {
        Ok(false) => Some(aside),
        Ok(true) => aside.reworded(said),
        Err(error) => {
            aside.withheld(error.message.into_owned());
            None
        }
    }
}
