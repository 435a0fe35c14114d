//! Guards look at an answer that is there whole, as they would at its stream; and those are asked
//! who want it whole.

use super::asking::Asker;
use super::screen::{Sieve, Wants};
use super::{Guarding, texts};
use crate::canon::ChatResponse;
use crate::config::Stage;
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::passage::Screen;
use crate::gateway::call::Call;
use crate::guard::{Blocked, Chain};

/// The answer as the client may have it.
pub(in crate::gateway) async fn look_at(
    call: &Call,
    model: &str,
    response: ChatResponse,
) -> Result<ChatResponse, Blocked> {
    let Some(guarding) = &call.guarding else { return Ok(response) };
    if !guarding.asks_about_answers() {
        return through(guarding, &response, Wants::ALL);
    }
    // Whoever is asked sees what the others have left, and not what was masked in the question.
    let mut response = through(guarding, &response, Wants::GUARDS)?;
    let asker = Asker::of(call, model);
    for (stage, chain) in
        [(Stage::Output, &guarding.output), (Stage::ToolArgs, &guarding.tool_args)]
    {
        ask(guarding, &asker, &mut response, stage, chain).await?;
    }
    through(guarding, &response, Wants::RESTORES)
}

fn through(
    guarding: &Guarding,
    response: &ChatResponse,
    wants: Wants,
) -> Result<ChatResponse, Blocked> {
    let (mut sieve, mut fold) = (Sieve::new(guarding, wants), Fold::default());
    let mut passed = Vec::new();
    for event in unfold(response) {
        if sieve.pass(&event, &mut passed).is_err() {
            return Err(guarding.blocked().unwrap_or_default());
        }
        passed.drain(..).for_each(|event| fold.add(&event));
    }
    // All that an answer has was just unfolded of one.
    Ok(fold.finish().unwrap_or_default())
}

async fn ask(
    guarding: &Guarding,
    asker: &Asker,
    response: &mut ChatResponse,
    stage: Stage,
    chain: &Chain,
) -> Result<(), Blocked> {
    for guard in chain.remote() {
        let texts = said(response, stage);
        if texts.is_empty() {
            break;
        }
        let masked = asker.consult(guard, stage, &texts, &guarding.said).await?;
        if let Some(texts) = masked {
            say(response, stage, texts, &guard.name)?;
        }
    }
    Ok(())
}

fn said(response: &mut ChatResponse, stage: Stage) -> Vec<String> {
    let mut texts = Vec::new();
    let _ = texts::of_response(response, &mut |place, text| {
        if place.said && place.stage == stage && !text.is_empty() {
            texts.push(text.clone());
        }
        Ok(())
    });
    texts
}

fn say(
    response: &mut ChatResponse,
    stage: Stage,
    texts: Vec<String>,
    guard: &str,
) -> Result<(), Blocked> {
    let mut new = texts.into_iter();
    texts::of_response(response, &mut |place, text| {
        if place.said && place.stage == stage && !text.is_empty() {
            *text = new.next().unwrap_or_default();
            texts::check(place, text, guard)?;
        }
        Ok(())
    })
}
